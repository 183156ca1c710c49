//! The session of the worker with the server: it says which actions run, and learns which ones to run and to cancel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::action::{ActionRunner, Finished};
use super::connection::Service;
use super::failure::Failure;
use super::proto::rpc;
use super::proto::workers::bots_client::BotsClient;
use super::proto::workers::{
    BotSession, BotStatus, CreateBotSessionRequest, Device, Lease, LeaseState, UpdateBotSessionRequest, Worker, device,
    worker,
};
use super::retry::{Pauses, is_transient, within};
use super::slot::Slot;

/// Servers answer a poll for work when this part of its deadline has passed.
const ANSWERED_AFTER: f64 = 0.8;
/// The shortest time between polls that bring nothing.
const SHORTEST_POLL: Duration = Duration::from_millis(500);
/// Bytes of results in a message. Servers of gRPC that are not configured accept messages of 4 MiB.
const LARGEST_RESULTS: usize = 3 << 20;
/// How long the last message may take.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct SessionSettings {
    pub instance: String,
    /// The name of the worker, which is the same after a restart.
    pub id: String,
    pub properties: Vec<(String, String)>,
    /// The longest time between two messages. A cancelled action is killed within it.
    pub heartbeat: Duration,
    /// How long running actions may take after SIGTERM.
    pub drain: Duration,
}

/// Asks for work, and runs it.
pub struct Session {
    bots: BotsClient<Service>,
    settings: SessionSettings,
    runner: Arc<ActionRunner>,
    free: Vec<Slot>,
    capacity: usize,
    running: HashMap<String, CancellationToken>,
    /// Finished actions that were not reported to the server, or that it has not confirmed.
    finished: HashMap<String, Lease>,
    results: (mpsc::UnboundedSender<Ran>, mpsc::UnboundedReceiver<Ran>),
    /// The session as the server has it.
    current: BotSession,
}

/// An action that a slot has run.
struct Ran {
    lease: String,
    slot: Slot,
    finished: Finished,
}

/// What the worker is to do.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Take no more work, and exit when the running actions have finished.
    pub drain: CancellationToken,
    /// Kill the running actions, and exit.
    pub stop: CancellationToken,
}

impl Session {
    pub fn new(service: Service, settings: SessionSettings, runner: Arc<ActionRunner>, slots: Vec<Slot>) -> Self {
        let bots = BotsClient::new(service);
        let capacity = slots.len();
        let current = described(&settings, capacity);
        let results = mpsc::unbounded_channel();
        let (running, finished) = Default::default();
        Self { bots, settings, runner, free: slots, capacity, running, finished, results, current }
    }

    /// Runs until a signal. A lost session is replaced by a new one.
    ///
    /// # Errors
    ///
    /// If the server refuses the first session for good.
    pub async fn run(mut self, signals: Signals) -> Result<(), Failure> {
        let mut is_first = true;
        let mut pauses = Pauses::default();
        while !signals.drain.is_cancelled() {
            match signals.drain.run_until_cancelled(self.create()).await {
                None => break,
                Some(Ok(())) => {
                    pauses = Pauses::default();
                    is_first = false;
                    self.keep(&signals).await;
                }
                Some(Err(status)) if is_first && !is_transient(&status) => {
                    return Err(Failure::from(status).during("create a session"));
                }
                Some(Err(status)) => {
                    tracing::warn!(%status, "the server gives no session, and is asked again");
                    signals.drain.run_until_cancelled(tokio::time::sleep(pauses.next_pause())).await;
                }
            }
        }
        self.end(&signals).await;
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Status> {
        let parent = self.settings.instance.clone();
        let bot_session = described(&self.settings, self.capacity);
        let request = CreateBotSessionRequest { parent, bot_session: Some(bot_session) };
        self.current =
            within(self.longest_poll(), request, async |request| self.bots.create_bot_session(request).await).await?;
        tracing::info!(name = self.current.name, id = self.settings.id, "a session begins");
        self.follow();
        Ok(())
    }

    /// Keeps a session until it is lost, or the worker is to drain. A lost session's actions are killed: the server gives
    /// them to another worker.
    async fn keep(&mut self, signals: &Signals) {
        let mut pauses = Pauses::default();
        while !signals.drain.is_cancelled() {
            let had = self.leases();
            let asked = Instant::now();
            let answer = tokio::select! {
                answer = self.updating(BotStatus::Ok) => answer,
                ran = next(&mut self.results.1) => {
                    // The pending poll says nothing of it, so it is given up.
                    self.add(ran);
                    continue;
                }
                () = signals.drain.cancelled() => return,
            };
            let next_message = match answer {
                Ok(answer) => {
                    pauses = Pauses::default();
                    self.current = answer;
                    self.follow();
                    let is_new = self.leases() != had;
                    if is_new { asked } else { self.next_heartbeat(asked) }
                }
                Err(status) if is_transient(&status) => {
                    tracing::warn!(%status, "the server does not answer, and is asked again");
                    Instant::now() + pauses.next_pause()
                }
                Err(status) => {
                    tracing::warn!(%status, "the session is lost");
                    return self.abandon().await;
                }
            };
            tokio::select! {
                () = sleep_until(next_message) => {}
                ran = next(&mut self.results.1) => self.add(ran),
                () = signals.drain.cancelled() => {}
            }
        }
    }

    /// Returns when to send the next message after one that brought nothing. With a free slot that is a poll, which the
    /// server answers when there is work.
    fn next_heartbeat(&self, asked: Instant) -> Instant {
        if !self.free.is_empty() {
            return asked + SHORTEST_POLL;
        }
        let expires = self.current.expire_time.and_then(|time| SystemTime::try_from(time).ok());
        let rest = expires.and_then(|time| time.duration_since(SystemTime::now()).ok());
        let pause = rest.map_or(self.settings.heartbeat, |rest| self.settings.heartbeat.min(rest / 3));
        Instant::now() + pause.max(SHORTEST_POLL)
    }

    /// Sends the state of the worker, and waits for work.
    fn updating(&self, status: BotStatus) -> impl Future<Output = Result<BotSession, Status>> + use<> {
        let mut bot_session = self.current.clone();
        bot_session.status = status as i32;
        bot_session.leases = self.leases_to_send();
        let request = UpdateBotSessionRequest {
            name: bot_session.name.clone(),
            bot_session: Some(bot_session),
            ..Default::default()
        };
        let (mut bots, longest) = (self.bots.clone(), self.longest_poll());
        async move { within(longest, request, async |request| bots.update_bot_session(request).await).await }
    }

    /// Returns the leases with as many results as a message has room for. The others are sent when the server has these.
    fn leases_to_send(&self) -> Vec<Lease> {
        let mut room = LARGEST_RESULTS;
        let known = self.current.leases.iter();
        let to_send = known.map(|lease| {
            let finished = self.finished.get(&lease.id);
            let finished = finished.filter(|finished| size_of_result(finished) <= room);
            room -= finished.map_or(0, size_of_result);
            finished.unwrap_or(lease).clone()
        });
        to_send.collect()
    }

    fn leases(&self) -> Vec<(String, i32)> {
        self.leases_to_send().into_iter().map(|lease| (lease.id, lease.state)).collect()
    }

    /// Returns the deadline of a poll that the server may hold for a heartbeat.
    fn longest_poll(&self) -> Duration {
        self.settings.heartbeat.div_f64(ANSWERED_AFTER)
    }

    /// Does what the server has said: kills actions whose leases it has taken back, and starts those of new leases.
    fn follow(&mut self) {
        let has = |id: &String| self.current.leases.iter().any(|lease| lease.id == *id);
        self.finished.retain(|id, _| has(id));
        for (id, cancelled) in self.running.iter().filter(|(id, _)| !has(id)) {
            if !cancelled.is_cancelled() {
                tracing::info!(lease = id, "the server has taken back the lease");
                cancelled.cancel();
            }
        }
        for index in 0..self.current.leases.len() {
            let lease = &mut self.current.leases[index];
            let is_new = !self.running.contains_key(&lease.id) && !self.finished.contains_key(&lease.id);
            match LeaseState::try_from(lease.state) {
                Ok(LeaseState::Pending | LeaseState::Active) if is_new => {
                    lease.state = LeaseState::Active as i32;
                    let lease = lease.clone();
                    self.start(lease);
                }
                Ok(LeaseState::Cancelled) => {
                    self.running.get(&lease.id).into_iter().for_each(CancellationToken::cancel);
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, lease: Lease) {
        let Some(slot) = self.free.pop() else {
            // The server does not count: another worker has room, or this one later.
            let failure = Failure::new(Code::Unavailable, "the worker has no free slot");
            self.finished.insert(lease.id.clone(), completed(lease, failure.into()));
            return;
        };
        tracing::info!(lease = lease.id, slot = slot.number, "an action begins");
        let cancelled = CancellationToken::new();
        self.running.insert(lease.id.clone(), cancelled.clone());
        let (runner, results) = (self.runner.clone(), self.results.0.clone());
        tokio::spawn(async move {
            let payload = lease.payload.unwrap_or_default();
            // A panic is a defect of this action alone.
            let task_slot = slot.clone();
            let run = tokio::spawn(async move { runner.run(&payload, &task_slot, &cancelled).await });
            let finished = run.await.unwrap_or_else(|error| Failure::internal(error.to_string()).into());
            let _ = results.send(Ran { lease: lease.id, slot, finished });
        });
    }

    /// Takes note of a finished action.
    fn add(&mut self, Ran { lease, slot, finished }: Ran) {
        let code = finished.result.as_ref().map(|result| result.exit_code);
        match &finished.failure {
            Some(failure) => tracing::info!(lease, code, %failure, "an action has failed"),
            None => tracing::info!(lease, code, "an action has finished"),
        }
        self.free.push(slot);
        self.running.remove(&lease);
        // If the server has taken back the lease, there is nothing to report.
        if let Some(known) = self.current.leases.iter().find(|known| known.id == lease) {
            self.finished.insert(lease, completed(known.clone(), finished));
        }
    }

    /// Kills what runs, and waits until it is gone.
    async fn kill(&mut self) {
        self.running.values().for_each(CancellationToken::cancel);
        while !self.running.is_empty() {
            let ran = next(&mut self.results.1).await;
            self.add(ran);
        }
    }

    async fn abandon(&mut self) {
        self.current.leases.clear();
        self.kill().await;
        self.finished.clear();
    }

    /// Finishes the running actions, says so, and says goodbye.
    async fn end(&mut self, signals: &Signals) {
        if self.current.name.is_empty() {
            return;
        }
        tracing::info!(running = self.running.len(), "the worker takes no more work");
        let deadline = Instant::now() + self.settings.drain;
        let mut next_message = Instant::now();
        while !self.running.is_empty() {
            tokio::select! {
                ran = next(&mut self.results.1) => {
                    self.add(ran);
                    next_message = Instant::now();
                }
                () = sleep_until(next_message) => {
                    let update = self.updating(BotStatus::BotTerminating);
                    if let Some(Ok(answer)) = signals.stop.run_until_cancelled(update).await {
                        self.current = answer;
                        self.follow_without_work();
                    }
                    next_message = Instant::now() + self.settings.heartbeat.min(Duration::from_secs(5));
                }
                () = sleep_until(deadline) => break,
                () = signals.stop.cancelled() => break,
            }
        }
        self.kill().await;
        // What was killed runs on another worker.
        for lease in self.finished.values_mut() {
            if lease.status.as_ref().is_some_and(|status| status.code == Code::Cancelled as i32) {
                let message = "the worker was shut down".to_owned();
                lease.status = Some(rpc::Status { code: Code::Unavailable as i32, message, details: vec![] });
            }
        }
        let farewell = tokio::time::timeout(FAREWELL, async {
            let mut pauses = Pauses::default();
            while let Err(status) = self.updating(BotStatus::BotTerminating).await {
                if !is_transient(&status) {
                    return Err(status);
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            Ok(())
        });
        match farewell.await {
            Ok(Ok(())) => tracing::info!("the worker has said goodbye"),
            Ok(Err(status)) => tracing::warn!(%status, "the last results were not reported to the server"),
            Err(_) => tracing::warn!("the last results were not reported to the server: it does not answer"),
        }
    }

    /// Does what the server says while the worker drains. A lease that it gives nevertheless goes back.
    fn follow_without_work(&mut self) {
        let slots = std::mem::take(&mut self.free);
        self.follow();
        self.free = slots;
    }
}

async fn next(results: &mut mpsc::UnboundedReceiver<Ran>) -> Ran {
    // The session has a sender itself.
    results.recv().await.expect("a channel with a sender is open")
}

/// Returns a new session, without leases.
fn described(settings: &SessionSettings, capacity: usize) -> BotSession {
    let property = |(key, value): &(String, String)| device::Property { key: key.clone(), value: value.clone() };
    let device = Device { handle: "host".into(), properties: settings.properties.iter().map(property).collect() };
    let configs = vec![worker::Config { key: "capacity".into(), value: capacity.to_string() }];
    BotSession {
        bot_id: settings.id.clone(),
        status: BotStatus::Ok as i32,
        worker: Some(Worker { devices: vec![device], properties: vec![], configs }),
        ..Default::default()
    }
}

fn size_of_result(lease: &Lease) -> usize {
    lease.result.as_ref().map_or(0, |result| result.value.len())
}

/// Returns a lease with its result.
fn completed(lease: Lease, Finished { mut result, mut failure }: Finished) -> Lease {
    if let Some(large) = result.take_if(|result| result.encoded_len() > LARGEST_RESULTS) {
        let size = large.encoded_len();
        failure = Some(Failure::precondition(format!(
            "the result of the action has {size} bytes, of at most {LARGEST_RESULTS}: name directories as outputs, not all files"
        )));
    }
    let status = failure.map_or_else(rpc::Status::default, Failure::into_status);
    let result = result.map(|result| Any {
        type_url: "type.googleapis.com/build.bazel.remote.execution.v2.ActionResult".into(),
        value: result.encode_to_vec(),
    });
    Lease { state: LeaseState::Completed as i32, status: Some(status), result, ..lease }
}
