//! Exchanges and queues: declared, verified, or left alone.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde::{Deserialize, Serialize};

use super::Config;

/// What the gateway does about the topology at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Declare {
    /// Declare everything; needs the permission to configure.
    #[default]
    Active,
    /// Verify that the exchange is there.
    Passive,
    /// Neither.
    None,
}

/// Brings the topology into the state that `broker.declare` asks for.
///
/// | what | kind |
/// |---|---|
/// | `<exchange>` | topic, alternate exchange `<exchange>.unrouted` |
/// | `<exchange>.unrouted`, `<exchange>.dlx` | fanout, each with a quorum queue of its name |
/// | `<queue>` | quorum, bound with `#`, dead-letter exchange `<exchange>.dlx` |
pub(super) async fn prepare(channel: &Channel, config: &Config) -> lapin::Result<()> {
    match config.declare {
        Declare::Active => declare(channel, config).await,
        Declare::Passive => {
            let options = ExchangeDeclareOptions {
                passive: true,
                ..ExchangeDeclareOptions::default()
            };
            exchange(channel, &config.exchange, ExchangeKind::Topic, options, &[]).await
        }
        Declare::None => Ok(()),
    }
}

/// The same for the messages of shadows, when the first of them is sent: `<shadow>` is a topic exchange
/// with a quorum queue of its name, bound with `#`. No dead letters: nobody answers for them.
pub(super) async fn prepare_shadow(channel: &Channel, config: &Config) -> lapin::Result<()> {
    let options = |passive: bool| ExchangeDeclareOptions {
        durable: !passive,
        passive,
        ..ExchangeDeclareOptions::default()
    };
    let name = config.shadow.as_str();
    match config.declare {
        Declare::Active => {
            exchange(channel, name, ExchangeKind::Topic, options(false), &[]).await?;
            queue(channel, name, &[]).await?;
            bind(channel, name, name, "#").await
        }
        Declare::Passive => exchange(channel, name, ExchangeKind::Topic, options(true), &[]).await,
        Declare::None => Ok(()),
    }
}

async fn declare(channel: &Channel, config: &Config) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let dead_letters = format!("{}.dlx", config.exchange);
    let unrouted = format!("{}.unrouted", config.exchange);
    for side in [&dead_letters, &unrouted] {
        exchange(channel, side, ExchangeKind::Fanout, durable, &[]).await?;
        queue(channel, side, &[]).await?;
        bind(channel, side, side, "").await?;
    }
    let alternate = [("alternate-exchange", unrouted.as_str())];
    exchange(
        channel,
        &config.exchange,
        ExchangeKind::Topic,
        durable,
        &alternate,
    )
    .await?;
    queue(
        channel,
        &config.queue,
        &[("x-dead-letter-exchange", &dead_letters)],
    )
    .await?;
    bind(channel, &config.queue, &config.exchange, "#").await
}

async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
    arguments: &[(&str, &str)],
) -> lapin::Result<()> {
    channel
        .exchange_declare(name.into(), kind, options, table(arguments))
        .await
}

async fn queue(channel: &Channel, name: &str, arguments: &[(&str, &str)]) -> lapin::Result<()> {
    let mut arguments = arguments.to_vec();
    arguments.push(("x-queue-type", "quorum"));
    channel
        .queue_declare(
            name.into(),
            QueueDeclareOptions::durable(),
            table(&arguments),
        )
        .await
        .map(|_| ())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}

fn table(arguments: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), AMQPValue::LongString((*value).into()));
    }
    table
}
