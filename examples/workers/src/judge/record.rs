//! The recorder: takes results from the broker, and stores each once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Channel, Connection};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::blobs::digest_of;
use super::broker::{Broker, Delays, consume, publishing_channel};
use super::failure::Failure;
use super::job::{Job, is_id};
use super::report::JobResult;
use super::store::{Recorded, Store};
use super::tracker::{End, Step, StepKind, Tracker};

/// Number of results that are taken at a time.
const PREFETCH: u16 = 64;
/// How long a result that could not be stored waits.
pub const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Stores results, and tells the tracker of them.
#[derive(Debug)]
pub struct Recorder {
    pub broker: Broker,
    pub store: Arc<Store>,
    /// The jobs that clients of this process watch.
    pub tracker: Arc<Tracker>,
    /// Gets a channel for publishing with each connection.
    pub publisher: watch::Sender<Option<Channel>>,
}

/// A message of the broker.
enum Message {
    Result(Delivery),
    /// A job that no worker could judge.
    Dead(Delivery),
    Step(Delivery),
}

impl Recorder {
    /// Records results, and connects again when the connection is lost.
    pub async fn run(self) -> ! {
        let mut delays = Delays::default();
        loop {
            let failure = match self.broker.connect().await {
                Ok(connection) => {
                    tracing::info!("connected");
                    let connected = Instant::now();
                    let failure = self.record(&connection).await.err();
                    delays.note(connected);
                    failure
                }
                Err(failure) => Some(failure),
            };
            self.publisher.send_replace(None);
            let failure = failure.map_or_else(|| "the connection to the broker was lost".into(), |one| one.to_string());
            tracing::warn!("{failure}; connecting again");
            delays.wait().await;
        }
    }

    async fn record(&self, connection: &Connection) -> Result<(), Failure> {
        let failed = || Failure::to("take results from the broker");
        let channel = connection.create_channel().await.map_err(failed())?;
        let results = consume(&channel, self.broker.results(), PREFETCH).await.map_err(failed())?;
        let dead = consume(&channel, self.broker.dead(), PREFETCH).await.map_err(failed())?;
        let steps = self.broker.consume_steps(&channel).await.map_err(failed())?;
        self.publisher.send_replace(Some(publishing_channel(connection).await.map_err(failed())?));
        let streams: [BoxStream<'_, _>; 3] = [
            results.map(|one| one.map(Message::Result)).boxed(),
            dead.map(|one| one.map(Message::Dead)).boxed(),
            steps.map(|one| one.map(Message::Step)).boxed(),
        ];
        // Steps were missed while there was no connection.
        for id in self.tracker.ids() {
            self.look_up(id).await;
        }
        let mut messages = select_all(streams);
        while let Some(message) = messages.next().await {
            match message.map_err(failed())? {
                Message::Result(delivery) => settle(&delivery, self.store_result(&delivery).await).await?,
                Message::Dead(delivery) => settle(&delivery, self.store_dead(&delivery).await).await?,
                Message::Step(delivery) => self.advance(&delivery).await,
            }
        }
        Ok(())
    }

    /// Tells the tracker of a step. The result may have been stored by another recorder of the same directory.
    async fn advance(&self, delivery: &Delivery) {
        let Ok(Step { id, kind }) = serde_json::from_slice(&delivery.data) else { return };
        if !matches!(kind, StepKind::Recorded) {
            self.tracker.modify(&id, |progress| progress.advance(kind));
        } else if self.tracker.get(&id).is_some() {
            self.look_up(id).await;
        }
    }

    /// Ends a job whose result is stored.
    async fn look_up(&self, id: String) {
        let (store, stored) = (self.store.clone(), id.clone());
        match blocking(move || store.result(&stored)).await {
            Ok(Some(result)) => self.end(&id, result),
            Ok(None) => {}
            Err(failure) => tracing::error!("{failure}"),
        }
    }

    fn end(&self, id: &str, result: JobResult) {
        let result = Arc::new(result);
        self.tracker.end(id, End::Result(result.clone()));
        self.tracker.keep(&result);
        self.tracker.forget(id);
    }

    async fn store_result(&self, delivery: &Delivery) -> Result<(), Failure> {
        match serde_json::from_slice::<JobResult>(&delivery.data) {
            Ok(result) if is_id(&result.id) => self.store(result).await,
            _ => {
                tracing::error!("a message is dropped, since it is not a result: {}", excerpt(&delivery.data));
                Ok(())
            }
        }
    }

    /// Records the failure of a job that no worker could judge, and keeps its message.
    async fn store_dead(&self, delivery: &Delivery) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Identified {
            id: String,
        }
        let id = serde_json::from_slice::<Identified>(&delivery.data).ok().map(|job| job.id).filter(|id| is_id(id));
        let name = id.clone().unwrap_or_else(|| digest_of(&delivery.data));
        tracing::error!("{name} is a dead letter");
        let (store, data) = (self.store.clone(), delivery.data.clone());
        blocking(move || store.keep_dead(&name, &data)).await?;
        let Some(id) = id else { return Ok(()) };
        let too_often = || Failure::Worker("no worker could judge the job: it was delivered too often".into());
        // If a worker has said why it failed, that is recorded already.
        let failure = Job::parse(&delivery.data).err().unwrap_or_else(too_often);
        self.store(JobResult::failed(&id, &failure)).await
    }

    async fn store(&self, result: JobResult) -> Result<(), Failure> {
        let store = self.store.clone();
        let (result, recorded) = blocking(move || store.record(&result).map(|recorded| (result, recorded))).await?;
        match recorded {
            Recorded::New => tracing::info!(job = result.id, verdict = result.summary, "recorded"),
            Recorded::Already => tracing::info!(job = result.id, "delivered again, and recorded already"),
        }
        let id = result.id.clone();
        self.end(&id, result);
        let publisher = self.publisher.borrow().clone();
        self.broker.announce(publisher, &Step { id, kind: StepKind::Recorded }).await;
        Ok(())
    }
}

/// Acknowledges a message that is stored, and gives back another one: a full disk, or a file that is in the way, must not
/// keep the messages behind it from being stored.
async fn settle(delivery: &Delivery, stored: Result<(), Failure>) -> Result<(), Failure> {
    let settled = match stored {
        Ok(()) => delivery.ack(BasicAckOptions::default()).await,
        Err(failure) => {
            tracing::error!("{failure}; trying again");
            sleep(TRIED_AGAIN_AFTER).await;
            delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await
        }
    };
    settled.map(drop).map_err(Failure::to("acknowledge a message"))
}

/// Uses the disk on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    function: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    spawn_blocking(function)
        .await
        .unwrap_or_else(|error| Err(Failure::Worker(format!("failed to use the disk: {error}"))))
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).escape_debug().to_string()
}
