//! The consumer's side of RabbitMQ: queues are declared, bound, emptied and read.

use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

use super::rabbit::Route;
use super::{SOON, wait_for};

/// A client of one route's broker. What the route names is deleted when it is dropped.
pub struct Bus {
    route: Route,
    runtime: tokio::runtime::Runtime,
}

/// A message that was read.
pub struct Received {
    /// AMQP properties.
    pub properties: BasicProperties,
    /// Routing key.
    pub routing_key: String,
    /// Size of the body in bytes.
    pub size: usize,
    /// The body.
    pub event: Value,
}

impl Bus {
    /// A client. It connects for every call, so the broker may come and go.
    pub fn new(route: &Route) -> Self {
        Self {
            route: route.clone(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// Takes messages from the queue until there are `count`.
    #[track_caller]
    pub fn take(&self, count: usize) -> Vec<Received> {
        let mut taken = Vec::new();
        wait_for(&format!("{count} messages in the queue"), SOON, || {
            taken.extend(self.take_all());
            (taken.len() >= count).then_some(())
        });
        taken
    }

    /// Takes what is in the queue now; nothing when there is no queue.
    pub fn take_all(&self) -> Vec<Received> {
        let read = self.with_channel(async |channel| {
            let mut taken = Vec::new();
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) = channel.basic_get(self.queue(), options).await? {
                let delivery = message.delivery;
                taken.push(Received {
                    properties: delivery.properties,
                    routing_key: delivery.routing_key.to_string(),
                    size: delivery.data.len(),
                    event: serde_json::from_slice(&delivery.data).unwrap(),
                });
            }
            Ok(taken)
        });
        read.unwrap_or_default()
    }

    /// Declares the durable topic exchange.
    pub fn declare_exchange(&self) {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let exchange = self.route.exchange.as_str().into();
        self.with_channel(async |channel| {
            let kind = ExchangeKind::Topic;
            let arguments = FieldTable::default();
            channel
                .exchange_declare(exchange, kind, options, arguments)
                .await
        })
        .unwrap();
    }

    /// Deletes the exchange.
    pub fn delete_exchange(&self) {
        let exchange = self.route.exchange.as_str().into();
        let options = ExchangeDeleteOptions::default();
        self.with_channel(async |channel| channel.exchange_delete(exchange, options).await)
            .unwrap();
    }

    /// Declares the queue and binds it to everything.
    pub fn declare_queue(&self, arguments: &[(&str, AMQPValue)]) {
        self.bind_queue("#", arguments);
    }

    /// Declares the queue and binds it to what this pattern matches.
    pub fn declare_queue_for(&self, pattern: &str) {
        self.bind_queue(pattern, &[]);
    }

    fn bind_queue(&self, pattern: &str, arguments: &[(&str, AMQPValue)]) {
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        let exchange = self.route.exchange.as_str().into();
        self.with_channel(async |channel| {
            let durable = QueueDeclareOptions::durable();
            channel.queue_declare(self.queue(), durable, table).await?;
            let options = QueueBindOptions::default();
            let arguments = FieldTable::default();
            channel
                .queue_bind(self.queue(), exchange, pattern.into(), options, arguments)
                .await
        })
        .unwrap();
    }

    /// Empties the queue.
    pub fn purge(&self) {
        let options = QueuePurgeOptions::default();
        self.with_channel(async |channel| channel.queue_purge(self.queue(), options).await)
            .unwrap();
    }

    fn queue(&self) -> lapin::types::ShortString {
        self.route.queue.as_str().into()
    }

    fn with_channel<T>(
        &self,
        work: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        self.runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(&self.route.url, properties).await?;
            let channel = connection.create_channel().await?;
            let outcome = work(channel).await;
            let _ = connection.close(200, "done".into()).await;
            outcome
        })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let sides = ["", ".unrouted", ".dlx", ".shadow"];
        let _ = self.with_channel(async |channel| {
            for side in sides {
                let queue = format!("{}{side}", self.route.queue);
                let options = QueueDeleteOptions::default();
                channel.queue_delete(queue.into(), options).await?;
                let exchange = format!("{}{side}", self.route.exchange);
                let options = ExchangeDeleteOptions::default();
                channel.exchange_delete(exchange.into(), options).await?;
            }
            Ok(())
        });
    }
}
