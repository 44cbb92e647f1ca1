//! The two ends of a study's trace: the associations that brought it, and the span that holds all.
//!
//! An association ends before anybody knows which revision its instances become part of, or long
//! after; so what it delivered is kept until the ledger says so. The root span is made when nothing
//! is owed about the revision any more. Neither keeps anybody waiting: who knows something tells it
//! and goes on, and what comes when there is no room is not traced.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;
use crate::ledger::Ledger;
use crate::outbox::{Exchange, Outbox};
use crate::scp::{Delivered, Deliveries};
use crate::telemetry::traces::{self, Exporter, Kind, News, Tracer};
use crate::telemetry::{Metrics, StudyKey};

/// Associations that may wait to be told.
const ENDED: usize = 1024;
/// Deliveries that may wait for their revision; the oldest goes first.
const WAITING: usize = 4096;
/// Revisions whose beginning is known and that are not settled; the oldest goes first.
const OPEN: usize = 4096;

/// Everything about traces; nothing while they are off.
pub struct Tracing {
    /// For everybody who knows something.
    pub tracer: Tracer,
    running: Option<(Exporter, Journeys)>,
}

/// Puts the ends of traces together.
struct Journeys {
    tracer: Tracer,
    ledger: Ledger,
    outbox: Outbox,
    metrics: Arc<Metrics>,
    /// Associations that have ended.
    ended: mpsc::Receiver<Delivered>,
    /// What else has happened.
    news: mpsc::Receiver<News>,
}

/// What waits, in memory: after a crash, nobody knows of an association that it has cut off.
#[derive(Default)]
struct Waiting {
    /// No revision covers these yet.
    delivered: VecDeque<Delivered>,
    /// When the first association of a revision began, in the order of being heard of.
    began: HashMap<(String, u32), Timestamp>,
    order: VecDeque<(String, u32)>,
}

fn lost(metrics: &Metrics, spans: u64) {
    let dropped = &metrics.spans_dropped_total;
    dropped.with_label_values(&["queue-full"]).inc_by(spans);
}

impl Tracing {
    /// Also gives `deliveries` somebody to tell of associations.
    ///
    /// # Errors
    /// What is wrong with the endpoint or its authority.
    pub fn start(
        config: &traces::Config,
        key: &StudyKey,
        (ledger, outbox): (&Ledger, &Outbox),
        metrics: &Arc<Metrics>,
        deliveries: Deliveries,
    ) -> Result<(Self, Deliveries), String> {
        let instance = uuid::Uuid::new_v4().to_string();
        let Some(started) = traces::start(config, key, &instance, metrics)? else {
            let off = Self {
                tracer: Tracer::default(),
                running: None,
            };
            return Ok((off, deliveries));
        };
        let (tell, ended) = mpsc::channel(ENDED);
        let counted = Arc::clone(metrics);
        let deliveries = deliveries.observed(move |delivered| {
            if tell.try_send(delivered).is_err() {
                lost(&counted, 2);
            }
        });
        let tracer = started.tracer;
        let journeys = Journeys {
            tracer: tracer.clone(),
            ledger: ledger.clone(),
            outbox: outbox.clone(),
            metrics: Arc::clone(metrics),
            ended,
            news: started.news,
        };
        let running = Some((started.exporter, journeys));
        Ok((Self { tracer, running }, deliveries))
    }

    /// Runs until `stop`; what has been told by then is sent, if the collector takes it at once.
    pub async fn run(self, stop: CancellationToken) {
        let Some((exporter, journeys)) = self.running else {
            return stop.cancelled().await;
        };
        let last = CancellationToken::new();
        let ends = async {
            journeys.run(stop).await;
            last.cancel();
        };
        tokio::join!(ends, exporter.run(last.clone()));
    }
}

impl Journeys {
    /// Runs until `stop` and nothing is left to be told.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut waiting = Waiting::default();
        loop {
            let done = tokio::select! {
                // What has been told already is part of the trace that is closed.
                biased;
                Some(delivered) = self.ended.recv() => self.delivered(delivered, &mut waiting).await,
                Some(news) = self.news.recv() => self.told(news, &mut waiting).await,
                () = stop.cancelled() => return,
                else => return,
            };
            if let Err(err) = done {
                // What the database does not say now is not traced; studies do not depend on it.
                tracing::debug!(error = %err, "an end of a trace is lost");
                lost(&self.metrics, 1);
            }
        }
    }

    async fn delivered(
        &self,
        delivered: Delivered,
        waiting: &mut Waiting,
    ) -> Result<(), DatabaseError> {
        match self.ledger.revision_of(delivered.entry).await? {
            Some(revision) => self.association(&delivered, revision, waiting),
            None => {
                waiting.delivered.push_back(delivered);
                if waiting.delivered.len() > WAITING {
                    waiting.delivered.pop_front();
                    lost(&self.metrics, 2);
                }
            }
        }
        Ok(())
    }

    async fn told(&self, news: News, waiting: &mut Waiting) -> Result<(), DatabaseError> {
        match news {
            News::Finished { study } => self.resolve(&study, waiting).await,
            News::Settled { study, revision } => {
                self.resolve(&study, waiting).await?;
                self.settled(study, revision, waiting).await
            }
        }
    }

    /// Asks again which revision has got what was delivered of a study.
    async fn resolve(&self, study: &str, waiting: &mut Waiting) -> Result<(), DatabaseError> {
        let (of_it, others) = std::mem::take(&mut waiting.delivered)
            .into_iter()
            .partition(|delivered| delivered.study.as_str() == study);
        waiting.delivered = others;
        let of_it: VecDeque<Delivered> = of_it;
        for delivered in of_it {
            self.delivered(delivered, waiting).await?;
        }
        Ok(())
    }

    /// An association and what it stored, which is one span: there may be thousands of instances.
    fn association(&self, delivered: &Delivered, revision: u32, waiting: &mut Waiting) {
        let study = delivered.study.as_str();
        let Some(trace) = self.tracer.study(study, revision) else {
            return;
        };
        waiting.begin(study, revision, delivered.opened);
        // The spool's name of its first instance is nobody else's.
        let of = delivered.entry.to_string();
        let ending = match delivered.released {
            true => "released",
            false => "aborted",
        };
        let Delivered { opened, ended, .. } = *delivered;
        let association = trace.span("association", &of, Some(trace.root()), opened, ended);
        let (first, last, id) = (delivered.first, delivered.last, association.id());
        trace.record(association.kind(Kind::Server).with("ending", ending));
        let store = trace.span("store", &of, Some(id), first, last);
        let store = store.with("instances", delivered.instances);
        trace.record(store.with("bytes", delivered.bytes));
    }

    /// Closes the trace of a revision, when nothing is owed about it.
    async fn settled(
        &self,
        study: String,
        revision: u32,
        waiting: &mut Waiting,
    ) -> Result<(), DatabaseError> {
        let Some(trace) = self.tracer.study(&study, revision) else {
            return Ok(());
        };
        let messages = self.outbox.of_study(study.clone()).await?;
        let messages: Vec<_> = messages
            .into_iter()
            .filter(|message| message.revision == revision)
            .filter(|message| message.exchange == Exchange::Findings)
            .collect();
        let ends = messages.iter().map(|message| {
            let end = message.confirmed.as_ref().or(message.discarded.as_ref());
            end.and_then(|end| end.parse::<Timestamp>().ok())
        });
        // Something is owed still, or nothing was said.
        let Some(Some(end)) = ends.reduce(|one, two| Some(one?.max(two?))) else {
            return Ok(());
        };
        let Some(finished) = self.ledger.finished(study.clone(), revision).await? else {
            return Ok(());
        };
        let began = waiting.ended(&study, revision);
        let start = began.map_or(finished.first_received, |at| {
            at.min(finished.first_received)
        });
        let outcomes: Vec<&str> = messages.iter().map(|m| m.outcome.as_str()).collect();
        let discarded = messages.iter().any(|message| message.confirmed.is_none());
        let failed = outcomes.contains(&"failed");
        trace.record(
            trace
                .span("study", "", None, start, end)
                .with("revision", revision)
                .with("completeness", finished.method)
                .with("messages", messages.len())
                .with("outcomes", outcomes.join(","))
                .failed(match (discarded, failed) {
                    (true, _) => Some("a message was given up"),
                    (false, true) => Some("failed"),
                    (false, false) => None,
                }),
        );
        Ok(())
    }
}

impl Waiting {
    fn begin(&mut self, study: &str, revision: u32, at: Timestamp) {
        let of = (study.to_owned(), revision);
        if let Some(began) = self.began.get_mut(&of) {
            *began = at.min(*began);
            return;
        }
        self.began.insert(of.clone(), at);
        self.order.push_back(of);
        if self.order.len() > OPEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.began.remove(&oldest);
        }
    }

    fn ended(&mut self, study: &str, revision: u32) -> Option<Timestamp> {
        let of = (study.to_owned(), revision);
        let began = self.began.remove(&of)?;
        self.order.retain(|other| *other != of);
        Some(began)
    }
}
