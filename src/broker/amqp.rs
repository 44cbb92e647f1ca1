//! One connection to RabbitMQ, with publisher confirms.
//!
//! Messages of shadows have a channel of their own, which is opened for the first of them: what the
//! broker refuses there (an exchange that is missing, a permission) closes that channel alone.
//!
//! Auto-recovery is off on purpose: it never sends unconfirmed messages again, and the outbox does.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus};
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::connect::{Away, Reason, connect, diagnose};
use super::{Config, LOOK, PublishError, topology};
use crate::findings::event::{CONTENT_TYPE, EVENT_TYPE};
use crate::outbox::{Due, Exchange, Message};

/// RabbitMQ blocks a connection that publishes while memory or disk run low, and says so
/// (`connection.blocked`, an extension of AMQP 0-9-1). It reads nothing from it until the alarm is
/// over, so making the connection anew would only send everything twice.
#[derive(Clone)]
pub(super) struct Alarm(ConnectionStatus);

impl Alarm {
    /// Whether the connection is blocked now. One that is lost is not.
    pub fn raised(&self) -> bool {
        self.0.connected() && self.0.blocked()
    }
}

/// How long a broker that takes messages may take for its confirms. Time in which it is blocked does
/// not count: the connection is alive, as its heartbeat tells, and the confirms will come.
struct Patience {
    alarm: Alarm,
    longest: Duration,
    deadline: Instant,
}

impl Patience {
    fn new(alarm: Alarm, longest: Duration) -> Self {
        let deadline = Instant::now() + longest;
        Self {
            alarm,
            longest,
            deadline,
        }
    }

    /// Waits for the end of it. Cancelling the wait loses nothing.
    async fn ends(&mut self) {
        loop {
            let now = Instant::now();
            if self.alarm.raised() {
                self.deadline = now + self.longest;
            }
            if now >= self.deadline {
                return;
            }
            sleep(LOOK.min(self.deadline - now)).await;
        }
    }
}

/// An open channel in confirm mode.
pub(super) struct Link {
    connection: Connection,
    channel: Channel,
    shadow: Option<Channel>,
    config: Config,
    timeout: Duration,
}

impl Link {
    pub async fn open(config: &Config) -> Result<Self, Away> {
        let timeout = config.confirm_timeout.get();
        let deadline = Instant::now() + timeout;
        let connection = connect(config, timeout).await?;
        let preparing = async {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            topology::prepare(&channel, config).await?;
            Ok::<_, lapin::Error>(channel)
        };
        let channel = tokio::time::timeout_at(deadline, preparing)
            .await
            .map_err(|_| {
                let text = format!("no exchange and queue within {timeout:?}");
                Away::new(Reason::Timeout, text)
            })?
            .map_err(|err| diagnose(&err, config, "exchange and queue"))?;
        Ok(Self {
            connection,
            channel,
            shadow: None,
            config: config.clone(),
            timeout,
        })
    }

    pub async fn publish(&mut self, due: &[Due]) -> Vec<Result<(), PublishError>> {
        // One deadline for all of them: a broker that stopped confirming costs the timeout once, not
        // once per message in flight.
        let mut patience = Patience::new(self.alarm(), self.timeout);
        let overdue = |what: &str| {
            let timeout = patience.longest;
            PublishError::Connection(format!("{what} within {timeout:?}"))
        };
        let (not_sent, not_confirmed) = (overdue("not sent"), overdue("no confirm"));
        let mut confirms = Vec::with_capacity(due.len());
        for due in due {
            confirms.push(tokio::select! {
                biased;
                sent = self.send(&due.message) => sent.map_err(broken),
                () = patience.ends() => Err(not_sent.clone()),
            });
        }
        let mut answers = Vec::with_capacity(due.len());
        for confirm in confirms {
            answers.push(match confirm {
                Ok(confirm) => tokio::select! {
                    biased;
                    outcome = confirm => outcome.map_err(broken).and_then(verdict),
                    () = patience.ends() => Err(not_confirmed.clone()),
                },
                Err(err) => Err(err),
            });
        }
        answers
    }

    /// The channel for the messages of an exchange.
    async fn channel(&mut self, exchange: Exchange) -> lapin::Result<&Channel> {
        if exchange == Exchange::Findings {
            return Ok(&self.channel);
        }
        let open = self
            .shadow
            .take()
            .filter(|channel| channel.status().connected());
        let channel = match open {
            Some(channel) => channel,
            None => {
                let channel = self.connection.create_channel().await?;
                channel
                    .confirm_select(ConfirmSelectOptions::default())
                    .await?;
                topology::prepare_shadow(&channel, &self.config).await?;
                channel
            }
        };
        Ok(self.shadow.insert(channel))
    }

    async fn send(&mut self, message: &Message) -> lapin::Result<lapin::PublisherConfirm> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(CONTENT_TYPE.into())
            .with_message_id(message.id.as_str().into())
            .with_type(EVENT_TYPE.into())
            .with_timestamp(message.created_at.seconds())
            .with_app_id("pacs-gateway".into());
        if let Some(traceparent) = &message.traceparent {
            let value = AMQPValue::LongString(traceparent.as_str().into());
            let mut headers = FieldTable::default();
            headers.insert("traceparent".into(), value);
            properties = properties.with_headers(headers);
        }
        let exchange = match message.exchange {
            Exchange::Findings => self.config.exchange.clone(),
            Exchange::Shadow => self.config.shadow.clone(),
        };
        let channel = self.channel(message.exchange).await?;
        channel
            .basic_publish(
                exchange.into(),
                message.routing_key.as_str().into(),
                options,
                &message.body,
                properties,
            )
            .await
    }

    /// Tells of the broker's alarm.
    pub fn alarm(&self) -> Alarm {
        Alarm(self.connection.status().clone())
    }

    /// Whether the heartbeat still goes, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    pub async fn close(self) {
        let _ = self.connection.close(200, "shutting down".into()).await;
    }
}

/// Only `Ack` without a returned message is delivered: an unroutable mandatory message is returned
/// *and* acknowledged.
fn verdict(confirmation: Confirmation) -> Result<(), PublishError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) => Err(PublishError::Unroutable(format!(
            "{} {}",
            returned.reply_code, returned.reply_text
        ))),
        Confirmation::Nack(_) => Err(PublishError::Nack),
        Confirmation::NotRequested => Err(PublishError::Connection(
            "the channel is not in confirm mode".to_owned(),
        )),
    }
}

fn broken(err: lapin::Error) -> PublishError {
    PublishError::Connection(err.to_string())
}
