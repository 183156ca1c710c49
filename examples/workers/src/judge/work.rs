//! The worker: takes jobs from the broker, and publishes their results.
//!
//! A job is acknowledged when the broker has confirmed its result. If the connection is lost, or the broker takes the
//! delivery away because it lasts too long, the job goes on. Its result is published on the next connection, and if the
//! job is delivered again meanwhile, that delivery waits for the same result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::select_all;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, Connection};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use super::broker::{Broker, CurrentChannel, Delays, consume, publish, publish_surely, publishing_channel};
use super::failure::Failure;
use super::job::{Job, Priority, is_id};
use super::judging::Judge;
use super::report::JobResult;
use super::signals::Signals;
use super::slots::{Event, Slots};
use super::tracker::{End, ended};

/// What a worker is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    /// Take jobs.
    Work,
    /// Take no more jobs, and publish the results of those that run.
    Drain,
    Stop,
}

/// How long a job that could not be judged waits before it is given back.
const GIVEN_BACK_AFTER: Duration = Duration::from_secs(1);

struct Worker {
    broker: Broker,
    slots: Arc<Slots>,
    count: u16,
    publisher: watch::Sender<Option<Channel>>,
    phase: watch::Receiver<Phase>,
}

/// Takes jobs until a signal comes. Then the jobs that run are judged and published, and the others are given back. A
/// second signal ends that at once.
pub async fn work(broker: Broker, judge: Judge, count: u16, mut signals: Signals) -> Result<(), Failure> {
    let (slots, running, events) = Slots::start(judge, count.into());
    let (publisher, channel) = watch::channel(None);
    let (phase, of_worker) = watch::channel(Phase::Work);
    let outbox = tokio::spawn(outbox(broker.clone(), slots.clone(), events, channel));
    let worker = Arc::new(Worker { broker, slots: slots.clone(), count, publisher, phase: of_worker });
    let mut connecting = tokio::spawn(worker.keep_connected());
    signals.next().await;
    tracing::info!("waiting for the jobs that run; a second signal gives them back at once");
    phase.send_replace(Phase::Drain);
    let drained = async {
        running.drain(&slots).await;
        let _ = outbox.await;
        phase.send_replace(Phase::Stop);
        let _ = (&mut connecting).await;
    };
    tokio::select! {
        () = drained => Ok(()),
        () = signals.next() => Err(Failure::Worker("stopped by a second signal; jobs that were running are given back".into())),
    }
}

/// Publishes what happens in the slots.
async fn outbox(
    broker: Broker,
    slots: Arc<Slots>,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut channel: CurrentChannel,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Step(step) => {
                let current = channel.borrow().clone();
                broker.announce(current, &step).await;
            }
            Event::Result(result) => {
                let json = serde_json::to_vec(&*result).expect("a result is JSON");
                publish_surely(&mut channel, broker.results(), &result.id, &json).await;
                tracing::info!(job = result.id, verdict = result.summary, "judged");
                slots.tracker().keep(&result);
            }
            Event::Failed { id, error } => tracing::error!(job = id, "{error}"),
        }
    }
}

impl Worker {
    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    async fn keep_connected(self: Arc<Self>) {
        let mut delays = Delays::default();
        while self.phase() < Phase::Stop {
            let failure = match self.broker.connect().await {
                Ok(connection) => {
                    tracing::info!("connected");
                    let connected = Instant::now();
                    let used = self.clone().use_connection(&connection).await;
                    delays.note(connected);
                    used
                }
                Err(failure) => Err(failure),
            };
            let Err(failure) = failure else { return };
            tracing::warn!("{failure}; connecting again");
            // What waits belongs to the lost connection, and will be delivered again.
            self.slots.drop_waiting();
            let mut phase = self.phase.clone();
            tokio::select! {
                () = delays.wait() => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stop) => {}
            }
        }
    }

    /// Takes jobs until the connection fails or the worker is to stop.
    async fn use_connection(self: Arc<Self>, connection: &Connection) -> Result<(), Failure> {
        let failed = || Failure::to("use the broker");
        self.publisher.send_replace(Some(publishing_channel(connection).await.map_err(failed())?));
        let channel = connection.create_channel().await.map_err(failed())?;
        let mut deliveries = JoinSet::new();
        if self.phase() == Phase::Work {
            self.clone().take_jobs(&channel, &mut deliveries).await?;
        }
        self.drain(connection, &mut deliveries).await?;
        connection.close(200, "stopped".into()).await.map_err(failed())
    }

    /// Takes jobs until the worker is to drain.
    async fn take_jobs(self: Arc<Self>, channel: &Channel, deliveries: &mut JoinSet<()>) -> Result<(), Failure> {
        let failed = || Failure::to("take jobs from the broker");
        let mut consumers = vec![];
        for priority in Priority::ALL {
            let consumer = consume(channel, self.broker.jobs(priority), self.count).await.map_err(failed())?;
            consumers.push(consumer.map(move |delivery| (priority, delivery)));
        }
        let tags: Vec<_> = consumers.iter().map(|consumer| consumer.get_ref().tag()).collect();
        let mut jobs = select_all(consumers);
        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase > Phase::Work) => break,
                Some(_) = deliveries.join_next() => {}
                next = jobs.next() => match next {
                    Some((priority, Ok(delivery))) => drop(deliveries.spawn(self.clone().deliver(priority, delivery))),
                    Some((_, Err(error))) => return Err(failed()(error)),
                    None => return Err(Failure::Worker("the broker has cancelled the consumers".into())),
                },
            }
        }
        for tag in tags {
            channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(failed())?;
        }
        Ok(())
    }

    /// Keeps the connection until all deliveries are acknowledged and the results are published.
    async fn drain(&self, connection: &Connection, deliveries: &mut JoinSet<()>) -> Result<(), Failure> {
        let mut checks = interval(Duration::from_millis(500));
        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                Some(_) = deliveries.join_next() => {}
                _ = phase.wait_for(|phase| *phase == Phase::Stop), if deliveries.is_empty() => return Ok(()),
                _ = checks.tick() => if !connection.status().connected() {
                    return Err(Failure::Worker("the connection to the broker was lost".into()));
                },
            }
        }
    }

    /// Has a job judged, and acknowledges it.
    async fn deliver(self: Arc<Self>, priority: Priority, delivery: Delivery) {
        let done = match serde_json::from_slice::<Job>(&delivery.data) {
            Ok(job) if is_id(&job.id) => self.judge(Job { priority, ..job }, &delivery).await,
            Ok(job) => {
                tracing::error!("a job with the invalid ID {:?} is dead-lettered", job.id);
                delivery.reject(BasicRejectOptions { requeue: false }).await
            }
            Err(error) => {
                tracing::error!("a message is dead-lettered, since it is not a job: {error}");
                delivery.reject(BasicRejectOptions { requeue: false }).await
            }
        };
        if let Err(error) = done {
            tracing::warn!("failed to acknowledge a job, which will be delivered again: {error}");
        }
    }

    async fn judge(&self, job: Job, delivery: &Delivery) -> lapin::Result<bool> {
        let id = job.id.clone();
        let mut progress = self.slots.submit(job);
        let is_repeated = progress.borrow().is_kept;
        let is_published = match ended(&mut progress).await {
            // The recorder may be another one now.
            End::Result(result) if is_repeated => self.publish(&result).await,
            End::Result(_) => progress.wait_for(|progress| progress.is_kept).await.is_ok(),
            End::Failed(error) if deliveries_before(delivery) >= self.broker.delivery_limit.into() => {
                // The job is about to become a dead letter. Without this its result says less.
                let result = self.slots.sign(JobResult::failed(&id, &Failure::Worker(error)));
                let _ = self.publish(&result).await;
                false
            }
            End::Failed(_) => {
                sleep(GIVEN_BACK_AFTER).await;
                false
            }
            End::Dropped => false,
        };
        match is_published {
            true => delivery.ack(BasicAckOptions::default()).await,
            false => delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await,
        }
    }

    /// Publishes a result, and returns whether the broker has confirmed it.
    async fn publish(&self, result: &JobResult) -> bool {
        let (channel, json) = (self.publisher.borrow().clone(), serde_json::to_vec(result).expect("a result is JSON"));
        let Some(channel) = channel else { return false };
        let published = publish(&channel, self.broker.results(), &result.id, &json).await;
        published.inspect_err(|failure| tracing::warn!("{failure}")).is_ok()
    }
}

/// Returns how often a job was delivered before, without a result.
fn deliveries_before(delivery: &Delivery) -> i64 {
    let count = delivery.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-delivery-count"));
    count.and_then(AMQPValue::as_long_long_int).unwrap_or(0)
}
