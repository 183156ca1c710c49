//! Sessions with a server in memory: slots, heartbeats, cancellation, lost sessions, and the end of a worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use stockade_workers::reapi::proto::execution::ActionResult;
use stockade_workers::reapi::proto::workers::BotStatus;
use stockade_workers::reapi::session::{Session, SessionSettings, Signals};
use stockade_workers::reapi::slot::Slot;
use tonic::{Code, Status};

use crate::fake_bots::{FakeBots, State};
use crate::fake_storage::FakeStorage;
use crate::job::{Fixture, JobBuilder};

/// A worker with a server, whose session runs as a task.
struct Running {
    bots: FakeBots,
    storage: FakeStorage,
    signals: Signals,
    task: tokio::task::JoinHandle<()>,
    actions: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// The heartbeat of the tests, which is shorter than a command line allows.
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Running {
    async fn start(slots: usize) -> Self {
        let fixture = Fixture::new().await;
        let actions = fixture.actions();
        let (bots, service) = FakeBots::start().await;
        let settings = SessionSettings {
            instance: "instance".into(),
            id: "worker".into(),
            properties: vec![("OSFamily".into(), "linux".into())],
            heartbeat: HEARTBEAT,
            drain: Duration::from_secs(30),
        };
        let Fixture { storage, runner, directory, slot } = fixture;
        let slots = (0..slots).map(|number| Slot { number, ..slot.clone() }).collect();
        let session = Session::new(service, settings, Arc::new(runner), slots);
        let signals = Signals::default();
        let task = tokio::spawn({
            let signals = signals.clone();
            async move { session.run(signals).await.unwrap() }
        });
        Self { bots, storage, signals, task, actions, _directory: directory }
    }

    fn add(&self, id: &str, script: &str) {
        self.bots.add(id, JobBuilder::script(script).payload(&self.storage));
    }

    /// Waits until an action has created a file.
    async fn wait_for_file(&self, name: &str) {
        let started = Instant::now();
        let exists = || {
            std::fs::read_dir(&self.actions)
                .unwrap()
                .flatten()
                .any(|action| action.path().join("root").join(name).exists())
        };
        while !exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "{name} does not appear");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn running(&self) -> usize {
        std::fs::read_dir(&self.actions).unwrap().count()
    }

    async fn finish(self) {
        self.signals.drain.cancel();
        tokio::time::timeout(Duration::from_secs(60), self.task).await.expect("it ends").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_runs_an_action_and_each_result_is_reported_once() {
    let worker = Running::start(2).await;
    for number in 0..10 {
        worker.add(&format!("lease {number}"), &format!("echo {number}; exit {number}"));
    }
    worker.bots.wait_until("all are completed", |state| state.completed.len() == 10).await;
    check_ten(&worker.bots.lock());
    worker.finish().await;
}

fn check_ten(state: &State) {
    let mut codes: Vec<_> = state
        .completed
        .iter()
        .map(|lease| {
            let result = ActionResult::decode(&*lease.result.as_ref().unwrap().value).unwrap();
            assert_eq!(lease.id, format!("lease {}", result.exit_code));
            assert_eq!(lease.status.as_ref().unwrap().code, Code::Ok as i32);
            result.exit_code
        })
        .collect();
    codes.sort_unstable();
    assert_eq!((codes, state.sessions.len()), ((0..10).collect(), 1));
    let properties = &state.last.worker.as_ref().unwrap().devices[0].properties;
    assert_eq!((&*properties[0].key, &*properties[0].value, &*state.last.bot_id), ("OSFamily", "linux", "worker"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_lease_disappears_is_killed_within_a_heartbeat() {
    for slots in [1, 2] {
        let worker = Running::start(slots).await;
        worker.add("cancelled", "touch begun; sleep 60");
        worker.wait_for_file("begun").await;
        // The server knows that it runs.
        worker.bots.wait_until("it is confirmed", |state| state.last.leases.len() == 1).await;
        let started = Instant::now();
        worker.bots.cancel("cancelled");
        while worker.running() > 0 {
            assert!(started.elapsed() < 2 * HEARTBEAT, "it runs {:?} later", started.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Its slot takes the next one, and nothing is reported of it.
        worker.add("next", "exit 0");
        worker.bots.wait_until("the next is completed", |state| !state.completed.is_empty()).await;
        assert_eq!(worker.bots.lock().completed[0].id, "next");
        worker.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_for_a_while_gets_the_result() {
    let worker = Running::start(1).await;
    worker.add("long", "touch begun; sleep 3; echo result");
    worker.wait_for_file("begun").await;
    worker.bots.lock().fails = Some(Status::unavailable("away"));
    worker.bots.wait_until("it is completed", |state| state.completed.len() == 1).await;
    assert_eq!(worker.bots.lock().sessions.len(), 1);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_replaced_and_its_actions_run_again() {
    let worker = Running::start(1).await;
    worker.add("lost", "touch begun; sleep 4; echo result");
    worker.wait_for_file("begun").await;
    worker.bots.lock().fails = Some(Status::invalid_argument("no such session"));
    worker.bots.wait_until("there is a new session", |state| state.sessions.len() == 2).await;
    worker.bots.wait_until("it is completed", |state| state.completed.len() == 1).await;
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_finishes_what_runs_and_takes_no_more() {
    let worker = Running::start(2).await;
    worker.add("running", "touch begun; sleep 3; exit 7");
    worker.wait_for_file("begun").await;
    worker.signals.drain.cancel();
    worker.bots.wait_until("it says so", |state| state.last.status == BotStatus::BotTerminating as i32).await;
    worker.add("later", "exit 0");
    let bots = worker.bots.clone();
    worker.finish().await;
    let state = bots.lock();
    let completed: Vec<_> = state.completed.iter().map(|lease| &*lease.id).collect();
    assert_eq!((completed, state.queue.len()), (vec!["running"], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_worker_gives_its_actions_back() {
    let worker = Running::start(1).await;
    worker.add("given back", "touch begun; sleep 60");
    worker.wait_for_file("begun").await;
    worker.signals.drain.cancel();
    worker.signals.stop.cancel();
    let (bots, started) = (worker.bots.clone(), Instant::now());
    let actions = worker.actions.clone();
    let Running { task, _directory, .. } = worker;
    tokio::time::timeout(Duration::from_secs(30), task).await.expect("it ends").unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(std::fs::read_dir(actions).unwrap().count(), 0);
    // The server tries those of this status elsewhere.
    let code = bots.lock().completed[0].status.as_ref().unwrap().code;
    assert_eq!(code, Code::Unavailable as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_no_action_fails_alone() {
    let worker = Running::start(1).await;
    worker.bots.add("strange", prost_types::Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![1, 2] });
    worker.add("good", "exit 0");
    worker.bots.wait_until("both are completed", |state| state.completed.len() == 2).await;
    let codes: Vec<_> = worker.bots.lock().completed.iter().map(|lease| lease.status.as_ref().unwrap().code).collect();
    assert_eq!(codes, [Code::InvalidArgument as i32, Code::Ok as i32]);
    worker.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_sent_as_messages_have_room_for_them() {
    let worker = Running::start(2).await;
    // 16,000 outputs with long names are more than a message of 4 MiB, and two times 9,000 are, too.
    for (id, count) in [("too large", 16_000), ("first", 9000), ("second", 9000)] {
        let prefix = "x".repeat(190);
        let names: Vec<_> = (0..count).map(|number| format!("{prefix}{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let job = JobBuilder::script(&format!("seq -f {prefix}%g 0 {} | xargs touch", count - 1)).outputs(&names);
        worker.bots.add(id, job.payload(&worker.storage));
    }
    worker.bots.wait_until("all are completed", |state| state.completed.len() == 3).await;
    for lease in &worker.bots.lock().completed {
        let code = if lease.id == "too large" { Code::FailedPrecondition } else { Code::Ok };
        assert_eq!(lease.status.as_ref().unwrap().code, code as i32, "{}", lease.id);
    }
    worker.finish().await;
}
