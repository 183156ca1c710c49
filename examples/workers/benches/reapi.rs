//! Actions a second of stockade-reapi with 1, 2 and 4 slots, beside the same sandbox alone. "actions" have a storage in memory,
//! and no server. "BuildGrid" gives actions to a worker, and has their files, if STOCKADE_BUILD_ENGINES says where it is
//! installed: see `engines/builds`. Compare figures of one run only.
//!
//! `cargo bench --bench reapi`, and with `-- SECONDS` for each figure.

#[path = "../tests/reapi/engine.rs"]
#[allow(dead_code)]
mod engine;
#[path = "../tests/reapi/fake_storage.rs"]
#[allow(dead_code)]
mod fake_storage;
#[path = "../tests/reapi/job.rs"]
#[allow(dead_code)]
mod job;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use stockade_workers::reapi::action_sandbox::{ActionSandbox, InputRoot};
use stockade_workers::reapi::cas::{Cas, Upload};
use stockade_workers::reapi::connection::{Security, Service, connect};
use stockade_workers::reapi::digest::BlobDigest;
use stockade_workers::reapi::platform::Allowance;
use stockade_workers::reapi::proto::execution::execution_client::ExecutionClient;
use stockade_workers::reapi::proto::execution::{Action, ExecuteRequest, ExecuteResponse};
use stockade_workers::reapi::proto::longrunning::{Operation, operation};
use stockade_workers::reapi::slot;
use tokio_util::sync::CancellationToken;

use engine::{Engine, Server, Worker};
use job::{Fixture, JobBuilder};

const PROGRAM: &[&str] = &["cp", "in", "out"];

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5.0);
    let time = Duration::from_secs_f64(seconds);
    let engine = Engine::start("BuildGrid");
    println!("{:>6}  {:>20}  {:>20}  {:>20}", "slots", "sandbox alone, 1/s", "actions, 1/s", "BuildGrid, 1/s");
    let fixture = Arc::new(Fixture::new().await);
    for slots in [1, 2, 4] {
        let alone = sandboxes(&fixture, slots, time).await;
        let actions = actions(&fixture, slots, time).await;
        let from_server = match &engine {
            Some(engine) => format!("{:.1}", from_server(engine.server, slots, time).await),
            None => "-".to_owned(),
        };
        println!("{slots:>6}  {alone:>20.1}  {actions:>20.1}  {from_server:>20}");
    }
}

/// Runs the sandbox of an action in a directory that stays.
async fn sandboxes(fixture: &Arc<Fixture>, slots: usize, time: Duration) -> f64 {
    let (slots, fixture) = (slot::divide(slots).unwrap(), fixture.clone());
    rate(slots, time, move |slot| {
        let fixture = fixture.clone();
        async move {
            let directory = fixture.directory.path().join(format!("alone{}", slot.number));
            if !directory.exists() {
                std::fs::create_dir(&directory).unwrap();
                std::fs::write(directory.join("in"), "input").unwrap();
            }
            let _ = std::fs::remove_file(directory.join("out"));
            run_alone(&fixture, &directory, &slot.cpu_list()).await;
        }
    })
    .await
}

async fn run_alone(fixture: &Fixture, directory: &Path, cpus: &str) {
    let settings = &fixture.runner.settings;
    let allowance = Allowance { memory: settings.offer.memory, cpus: None, network: false };
    let described = ActionSandbox {
        input_root: InputRoot::BesideHost,
        directory,
        allowance: &allowance,
        limits: &settings.sandbox,
        timeout: settings.timeout,
        cpus,
    };
    let command = described.command(&JobBuilder::of(PROGRAM).command, Path::new("")).unwrap();
    let output = stockade::tokio::output(&described.sandbox().unwrap(), command).await.unwrap();
    assert!(output.outcome.success());
}

/// Runs whole actions: with an input, an output that is new each time, and the calls to the storage.
async fn actions(fixture: &Arc<Fixture>, slots: usize, time: Duration) -> f64 {
    let (slots, fixture) = (slot::divide(slots).unwrap(), fixture.clone());
    let number = Arc::new(AtomicU64::new(0));
    rate(slots, time, move |slot| {
        let (fixture, number) = (fixture.clone(), number.clone());
        async move {
            let input = format!("input {}", number.fetch_add(1, Ordering::Relaxed));
            let job = JobBuilder::of(PROGRAM).file("in", fixture.storage.add(input)).outputs(&["out"]);
            let payload = job.payload(&fixture.storage);
            Fixture::succeeded(fixture.runner.run(&payload, &slot, &CancellationToken::new()).await);
        }
    })
    .await
}

/// Has a server give the actions to a worker, by two clients for each slot, so that no slot waits for a client.
async fn from_server(server: &'static Server, slots: usize, time: Duration) -> f64 {
    let _worker = Worker::start(server, &format!("bench-{slots}"), &["--slots", &slots.to_string()]);
    let service = connect(&server.address(), &Security::default()).unwrap();
    let client = Arc::new(Client {
        cas: Cas::new(service.clone(), String::new(), Duration::from_secs(60)),
        execution: ExecutionClient::new(service),
        number: AtomicU64::new(0),
        name: format!("{slots} slots"),
    });
    // The worker is connected when the first has ended.
    client.execute().await;
    rate(vec![(); 2 * slots], time, move |()| {
        let client = client.clone();
        async move { client.execute().await }
    })
    .await
}

struct Client {
    cas: Cas,
    execution: ExecutionClient<Service>,
    number: AtomicU64,
    /// Is in each input, so that no action has a result already.
    name: String,
}

impl Client {
    /// Has an action executed, with an input that is new each time.
    async fn execute(&self) {
        let input = format!("{}, input {}", self.name, self.number.fetch_add(1, Ordering::Relaxed)).into_bytes();
        let job = JobBuilder::of(PROGRAM).file("in", BlobDigest::of(&input).into()).outputs(&["out"]);
        let (command, root) = (job.command.encode_to_vec(), job.root.encode_to_vec());
        let action = Action {
            command_digest: Some(BlobDigest::of(&command).into()),
            input_root_digest: Some(BlobDigest::of(&root).into()),
            ..Default::default()
        };
        let action = action.encode_to_vec();
        let action_digest = Some(BlobDigest::of(&action).into());
        self.cas.upload([input, command, root, action].map(Upload::bytes).into()).await.unwrap();
        let request = ExecuteRequest { action_digest, ..Default::default() };
        let mut operations = self.execution.clone().execute(request).await.unwrap().into_inner();
        let ended = loop {
            match operations.message().await.unwrap() {
                Some(Operation { done: true, result: Some(operation::Result::Response(response)), .. }) => {
                    break response;
                }
                Some(Operation { done: true, result, .. }) => panic!("{result:?}"),
                Some(_) => {}
                None => panic!("the server has ended the stream before the action"),
            }
        };
        let response = ExecuteResponse::decode(&*ended.value).unwrap();
        let result = response.result.unwrap_or_else(|| panic!("{:?}", response.status));
        assert!(result.exit_code == 0 && result.output_files.len() == 1, "{result:?}");
    }
}

/// Returns how often a second something runs, again and again for each of the slots.
async fn rate<S: Clone + Send + 'static, F: Future<Output = ()> + Send + 'static>(
    slots: Vec<S>,
    time: Duration,
    run: impl Fn(S) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let tasks: Vec<_> = slots
        .into_iter()
        .map(|slot| {
            let (stop, count, run) = (stop.clone(), count.clone(), run.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    run(slot.clone()).await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
