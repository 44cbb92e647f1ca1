//! Loop 3: what the outbox owes goes to the broker, and is forgotten when the broker has confirmed it.
//!
//! The loop never gives up: it reconnects with a capped, jittered back-off for ever, and a message
//! that the broker refuses waits with a back-off of its own while other studies go on. A confirm that
//! does not come in time means the connection is broken: the message is sent again, with the same id.

mod amqp;
mod config;
mod connect;
mod credentials;
mod file;
mod topology;
mod trace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;
use crate::live::Live;
use crate::outbox::{Due, Exchange, Outbox};
use crate::pause::Switch;
use crate::retry::Backoff;
use crate::telemetry::traces::Tracer;
use crate::telemetry::{Metrics, StudyKey};

pub use config::{Config, Kind, Sasl, Tls};
pub use topology::Declare;

use connect::Away;

/// A quiet outbox is looked at this often: a lost wake-up costs no more.
const IDLE: Duration = Duration::from_secs(5);
/// How often a connection with messages in flight is asked whether the broker has blocked it.
const LOOK: Duration = Duration::from_millis(250);
/// For a connection to be closed in good order.
const CLOSING: Duration = Duration::from_secs(2);
/// Between attempts to reach the broker.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
/// Between attempts at a message that the broker refused.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));

/// Why a message was not confirmed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PublishError {
    /// No queue took it: a binding is missing.
    #[error("the broker returned it as unroutable ({0})")]
    Unroutable(String),
    /// The broker answered `basic.nack`.
    #[error("the broker refused it (nack)")]
    Nack,
    /// Nothing is known about it; the connection has to be made anew.
    #[error("{0}")]
    Connection(String),
}

impl PublishError {
    const fn result(&self) -> &'static str {
        match self {
            Self::Unroutable(_) => "returned",
            Self::Nack => "nack",
            Self::Connection(_) => "connection",
        }
    }
}

/// What the rest of the gateway may know of the connection.
#[derive(Debug, Clone, Default, Serialize)]
pub struct State {
    /// The broker can be reached.
    pub connected: bool,
    /// It can, and takes nothing: it is short of memory or disk (`connection.blocked`).
    pub blocked: bool,
    /// An operator has told us to wait.
    pub paused: bool,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

enum Link {
    Amqp(Box<amqp::Link>),
    File(Box<file::Link>),
}

impl Link {
    async fn open(config: &Config) -> Result<Self, Away> {
        match config.kind {
            Kind::Amqp => Ok(Self::Amqp(Box::new(amqp::Link::open(config).await?))),
            Kind::File => Ok(Self::File(Box::new(file::Link::open(&config.file).await?))),
        }
    }

    /// Sends all of them; the answers are in the same order.
    async fn publish(&mut self, due: &[Due]) -> Vec<Result<(), PublishError>> {
        match self {
            Self::Amqp(link) => link.publish(due).await,
            Self::File(link) => link.publish(due).await,
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Amqp(link) => link.is_alive(),
            Self::File(_) => true,
        }
    }

    /// Tells whether the broker has stopped taking messages, also while [`Self::publish`] waits.
    fn alarm(&self) -> Option<amqp::Alarm> {
        match self {
            Self::Amqp(link) => Some(link.alarm()),
            Self::File(_) => None,
        }
    }

    async fn close(self) {
        if let Self::Amqp(link) = self {
            link.close().await;
        }
    }
}

/// The publisher.
pub struct Publisher {
    /// The `[broker]` section.
    pub config: Live<Config>,
    /// While it pauses nothing is published, and there is no connection.
    pub switch: Switch,
    /// What is owed.
    pub outbox: Outbox,
    /// Rung when something was put.
    pub wake: Arc<Notify>,
    /// Where the state of the connection is told.
    pub state: watch::Sender<State>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What stands for studies in logs.
    pub study_key: StudyKey,
    /// Traces of studies.
    pub tracer: Tracer,
}

impl Publisher {
    /// Publishes until `stop`. With `flush` cancelled it returns as soon as nothing is owed.
    pub async fn run(self, flush: CancellationToken, stop: CancellationToken) {
        let mut link = None;
        let mut failures = 0;
        let mut config = self.config.get();
        while let Err(err) = self
            .publish(&mut link, &mut config, &mut failures, &flush, &stop)
            .await
        {
            // A full disk, most likely. What is owed stays owed, and what was sent without being
            // marked as confirmed is sent again with the same id.
            tracing::error!(error = %err, "the outbox cannot be read or written; publishing waits");
            self.pause(RECONNECT.jittered(failures), &stop, &flush)
                .await;
            failures = failures.saturating_add(1);
        }
        self.close(&mut link).await;
    }

    async fn close(&self, link: &mut Option<Link>) {
        if let Some(link) = link.take() {
            // Closing is a courtesy: everything that counts is in the outbox.
            let _ = tokio::time::timeout(CLOSING, link.close()).await;
        }
    }

    async fn publish(
        &self,
        link: &mut Option<Link>,
        connected_by: &mut Arc<Config>,
        failures: &mut u32,
        flush: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<(), DatabaseError> {
        while !stop.is_cancelled() {
            if self.switch.is_paused() {
                if flush.is_cancelled() {
                    break;
                }
                self.rest(link, flush, stop).await;
                continue;
            }
            let config = self.config.get();
            if !Arc::ptr_eq(&config, connected_by) {
                self.close(link).await;
                *connected_by = Arc::clone(&config);
            }
            let due = self.outbox.due(Timestamp::now(), config.window).await?;
            if due.is_empty() && flush.is_cancelled() {
                break;
            }
            if link.as_ref().is_some_and(|link| !link.is_alive()) {
                let err = PublishError::Connection("the connection was lost".to_owned());
                self.tell(Err(&err));
                *link = None;
            }
            // The connection is made before it is needed, so that readiness can tell of it.
            let Some(open) = link else {
                match Link::open(&config).await {
                    Ok(opened) => {
                        self.metrics.broker_connections_total.inc();
                        *failures = 0;
                        *link = Some(opened);
                        self.tell(Ok(()));
                    }
                    Err(away) => {
                        self.metrics
                            .broker_connect_failures_total
                            .with_label_values(&[away.reason.as_str()])
                            .inc();
                        let err = PublishError::Connection(away.text);
                        self.away(&err, failures, flush, stop).await;
                    }
                }
                continue;
            };
            if due.is_empty() {
                self.idle(flush, stop).await?;
                continue;
            }
            let alarm = open.alarm();
            let sent = Instant::now();
            let answers = tokio::select! {
                answers = open.publish(&due) => answers,
                () = self.watch(alarm) => break,
                () = stop.cancelled() => break,
            };
            let took = &self.metrics.publish_confirm_duration_seconds;
            took.observe(sent.elapsed().as_secs_f64());
            self.tell_blocked(false);
            if let Some(err) = self.settle(&due, answers).await? {
                *link = None;
                self.away(&err, failures, flush, stop).await;
            }
        }
        Ok(())
    }

    /// Closes the connection, on which nothing is in flight, and waits for the end of the pause.
    async fn rest(
        &self,
        link: &mut Option<Link>,
        flush: &CancellationToken,
        stop: &CancellationToken,
    ) {
        self.close(link).await;
        self.metrics.broker_connected.set(0);
        self.metrics.broker_blocked.set(0);
        self.state.send_replace(State {
            paused: true,
            ..State::default()
        });
        tokio::select! {
            () = self.switch.becomes(false) => {}
            () = flush.cancelled() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Tells of a failure and waits before the next attempt.
    async fn away(
        &self,
        err: &PublishError,
        failures: &mut u32,
        flush: &CancellationToken,
        stop: &CancellationToken,
    ) {
        self.tell(Err(err));
        self.pause(RECONNECT.jittered(*failures), stop, flush).await;
        *failures = failures.saturating_add(1);
    }

    /// Writes down what became of each message; returns the failure that broke the connection.
    async fn settle(
        &self,
        due: &[Due],
        answers: Vec<Result<(), PublishError>>,
    ) -> Result<Option<PublishError>, DatabaseError> {
        let now = Timestamp::now();
        let (mut confirmed, mut sent) = (Vec::new(), Vec::new());
        let mut broken = None;
        for (due, answer) in due.iter().zip(answers) {
            let result = answer.as_ref().err().map_or("ack", PublishError::result);
            // Whatever is wrong on the shadows' side waits there.
            let findings = due.message.exchange == Exchange::Findings;
            self.metrics
                .published_total
                .with_label_values(&[result])
                .inc();
            match answer {
                Ok(()) => {
                    self.metrics
                        .publish_latency_seconds
                        .observe(now.since(due.message.created_at).as_secs_f64());
                    confirmed.push(due.seq);
                    sent.push(due);
                }
                Err(err @ PublishError::Connection(_)) if findings => broken = Some(err),
                Err(err) => {
                    let delay = REFUSED.jittered(due.attempts);
                    let study = self.study_key.log_id(&due.message.study);
                    tracing::warn!(%study, message_id = due.message.id, attempts = due.attempts + 1, error = %err, ?delay, "message deferred");
                    self.outbox
                        .defer(due.seq, now + delay, err.to_string())
                        .await?;
                }
            }
        }
        if !confirmed.is_empty() {
            // The promise: only what the broker has confirmed leaves the outbox.
            self.outbox.confirmed(confirmed, now).await?;
            trace::confirmed(&self.tracer, sent.into_iter(), now);
        }
        Ok(broken)
    }

    fn tell(&self, outcome: Result<(), &PublishError>) {
        let state = State {
            connected: outcome.is_ok(),
            blocked: false,
            paused: false,
            error: outcome.err().map(ToString::to_string),
        };
        self.metrics
            .broker_connected
            .set(i64::from(state.connected));
        self.metrics.broker_blocked.set(0);
        match outcome {
            Ok(()) => tracing::info!("broker connected"),
            // One line per change of state; the counter tells how often it is tried.
            Err(err) if self.state.borrow().error != state.error => {
                tracing::warn!(error = %err, "broker is away; messages wait in the outbox");
            }
            Err(_) => {}
        }
        self.state.send_replace(state);
    }

    /// Tells of the broker's alarm for as long as it is polled: a wait for confirms says nothing by
    /// itself. Never ends.
    async fn watch(&self, alarm: Option<amqp::Alarm>) {
        let Some(alarm) = alarm else {
            return std::future::pending().await;
        };
        loop {
            self.tell_blocked(alarm.raised());
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell_blocked(&self, blocked: bool) {
        let changed = self.state.send_if_modified(|state| {
            let changed = state.blocked != blocked;
            state.blocked = blocked;
            changed
        });
        if !changed {
            return;
        }
        self.metrics.broker_blocked.set(i64::from(blocked));
        if blocked {
            tracing::warn!(
                "the broker takes no messages, it is short of memory or disk; they wait in the outbox"
            );
        } else {
            tracing::info!("the broker takes messages again");
        }
    }

    async fn idle(
        &self,
        flush: &CancellationToken,
        stop: &CancellationToken,
    ) -> Result<(), DatabaseError> {
        let now = Timestamp::now();
        let next = self.outbox.next_due().await?;
        let wait = next.map_or(IDLE, |at| {
            at.since(now).clamp(Duration::from_millis(10), IDLE)
        });
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.switch.becomes(true) => {}
            () = tokio::time::sleep(wait) => {}
            () = flush.cancelled() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    async fn pause(&self, delay: Duration, stop: &CancellationToken, flush: &CancellationToken) {
        // While flushing, attempts come faster: there is a deadline, and nobody else is served.
        let delay = if flush.is_cancelled() {
            delay.min(Duration::from_millis(200))
        } else {
            delay
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.switch.becomes(true) => {}
            () = stop.cancelled() => {}
        }
    }
}
