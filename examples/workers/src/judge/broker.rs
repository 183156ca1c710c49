//! RabbitMQ: queues, connections, and publishing with confirmation.

use std::time::{Duration, Instant};

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::job::Priority;
use super::tracker::Step;

/// Heartbeat in seconds, if the URL has none: after two of them without a sign of life, the connection is closed.
const HEARTBEAT: u16 = 10;
/// How long the broker may take to confirm a message.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Where the broker is, and the names of its queues.
#[derive(Clone, Debug)]
pub struct Broker {
    uri: AMQPUri,
    /// Beginning of the names of all queues.
    pub prefix: String,
    /// How often a job is delivered again before it is dead-lettered.
    pub delivery_limit: u32,
}

impl Broker {
    pub fn new(url: &str, prefix: &str, delivery_limit: u32) -> Result<Self, Failure> {
        let mut uri: AMQPUri = url.parse().map_err(|error| {
            // Without the URL, which contains a password.
            Failure::Worker(format!(
                "failed to read the URL of the broker: {error}: use amqp://USER:PASSWORD@HOST:PORT/%2f"
            ))
        })?;
        // The client is built without TLS, and would send the password unencrypted to such an address.
        if uri.scheme != AMQPScheme::AMQP {
            let hint = "use amqp:// in a private network or through a TLS tunnel";
            return Err(Failure::Worker(format!(
                "failed to use the URL of the broker: amqps:// is unsupported: {hint}"
            )));
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.connection_timeout.get_or_insert(5000);
        Ok(Self { uri, prefix: prefix.to_owned(), delivery_limit })
    }

    /// Queue of the jobs of a priority.
    pub fn jobs(&self, priority: Priority) -> String {
        format!("{}.jobs.{}", self.prefix, priority.name())
    }

    /// Queue of the jobs that were delivered too often, or have no valid ID.
    pub fn dead(&self) -> String {
        format!("{}.jobs.dead", self.prefix)
    }

    /// Queue of the results.
    pub fn results(&self) -> String {
        format!("{}.results", self.prefix)
    }

    /// Exchange of the steps of running jobs. They are for people who watch, and may be lost.
    pub fn steps(&self) -> String {
        format!("{}.steps", self.prefix)
    }

    /// Connects, and creates the queues that do not exist.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let properties = ConnectionProperties::default().with_connection_name("stockade-judge".into());
        let authority = &self.uri.authority;
        let at = format!("connect to the broker at {}:{}", authority.host, authority.port);
        let connection = Connection::connect_uri(self.uri.clone(), properties).await.map_err(Failure::to(at))?;
        let channel = connection.create_channel().await.map_err(Failure::to("open a channel"))?;
        let limit =
            format!("create the queues with --delivery-limit {}, which must be that of all", self.delivery_limit);
        self.declare(&channel).await.map_err(Failure::to(limit))?;
        Ok(connection)
    }

    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for priority in Priority::ALL {
            let mut arguments = quorum();
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(self.delivery_limit));
            arguments.insert("x-dead-letter-exchange".into(), text(""));
            arguments.insert("x-dead-letter-routing-key".into(), text(&self.dead()));
            // A dead letter stays in its queue until the other queue has confirmed it.
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            arguments.insert("x-overflow".into(), text("reject-publish"));
            declare_queue(channel, &self.jobs(priority), arguments).await?;
        }
        declare_queue(channel, &self.dead(), quorum()).await?;
        declare_queue(channel, &self.results(), quorum()).await?;
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(self.steps().into(), ExchangeKind::Fanout, options, FieldTable::default()).await
    }

    /// Announces a step to those who watch, unless there is no connection.
    pub async fn announce(&self, channel: Option<Channel>, step: &Step) {
        let (Some(channel), Ok(json)) = (channel, serde_json::to_vec(step)) else { return };
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let _ = channel.basic_publish(self.steps().into(), "".into(), options, &json, properties).await;
    }

    /// Consumes the steps of running jobs, from now on.
    pub async fn consume_steps(&self, channel: &Channel) -> lapin::Result<Consumer> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
        let name = queue.name().clone();
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name.clone(), self.steps().into(), "".into(), options, arguments).await?;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        channel.basic_consume(name, "".into(), options, FieldTable::default()).await
    }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn declare_queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.map(drop)
}

/// Consumes a queue with manual acknowledgement, at most `prefetch` messages at a time.
pub async fn consume(channel: &Channel, queue: String, prefetch: u16) -> lapin::Result<Consumer> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// Opens a channel whose messages are confirmed.
pub async fn publishing_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes a message to a queue, and waits until the broker has it on disk.
pub async fn publish(channel: &Channel, queue: String, id: &str, message: &[u8]) -> Result<(), Failure> {
    let what = format!("publish {id} to {queue}");
    let published = async {
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.into());
        let properties = properties.with_content_type("application/json".into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        channel.basic_publish("".into(), queue.into(), options, message, properties).await?.await
    };
    let confirmation = timeout(CONFIRMED_WITHIN, published).await.map_err(Failure::to(&what))?;
    let confirmation = confirmation.map_err(Failure::to(&what))?;
    match confirmation.is_ack() && confirmation.take_message().is_none() {
        true => Ok(()),
        false => Err(Failure::Worker(format!("failed to {what}: the broker rejected the message"))),
    }
}

/// A channel that is replaced whenever the connection is.
pub type CurrentChannel = watch::Receiver<Option<Channel>>;

/// Publishes a message, again and again on each new connection until the broker has confirmed it.
pub async fn publish_surely(channel: &mut CurrentChannel, queue: String, id: &str, message: &[u8]) {
    let mut delays = Delays::default();
    loop {
        let current = channel.borrow_and_update().clone();
        if let Some(current) = current {
            match publish(&current, queue.clone(), id, message).await {
                Ok(()) => return,
                Err(failure) => tracing::warn!("{failure}"),
            }
        }
        let _ = timeout(delays.double(), channel.changed()).await;
    }
}

/// Delays between attempts: from 100 ms, doubled each time, up to 5 s.
#[derive(Debug, Default)]
pub struct Delays(u32);

impl Delays {
    /// Returns the next delay.
    pub fn double(&mut self) -> Duration {
        let delay = Duration::from_millis(100) * 2u32.pow(self.0.min(6));
        self.0 += 1;
        delay.min(LONGEST_DELAY)
    }

    pub async fn wait(&mut self) {
        sleep(self.double()).await;
    }

    /// Begins with short delays again, if the last attempt went well for a while.
    pub fn note(&mut self, attempt: Instant) {
        if attempt.elapsed() > LONGEST_DELAY {
            self.0 = 0;
        }
    }
}
