//! Actions a second of stockade-reapi with 1, 2 and 4 slots, beside the same sandbox alone. The storage is in memory, so that
//! no server is measured. Compare figures of one run only.
//!
//! `cargo bench --bench reapi`, and with `-- SECONDS` for each figure.

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

use stockade_workers::reapi::action_sandbox::{ActionSandbox, InputRoot};
use stockade_workers::reapi::platform::Allowance;
use stockade_workers::reapi::slot;
use tokio_util::sync::CancellationToken;

use job::{Fixture, JobBuilder};

const PROGRAM: &[&str] = &["cp", "in", "out"];

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5.0);
    let time = Duration::from_secs_f64(seconds);
    println!("{:>6}  {:>22}  {:>22}", "slots", "sandbox alone, 1/s", "actions, 1/s");
    let fixture = Arc::new(Fixture::new().await);
    for slots in [1, 2, 4] {
        let alone = sandboxes(&fixture, slots, time).await;
        let actions = actions(&fixture, slots, time).await;
        println!("{slots:>6}  {alone:>22.1}  {actions:>22.1}");
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

/// Returns how often a second all slots together run something.
async fn rate<F: Future<Output = ()> + Send + 'static>(
    slots: Vec<slot::Slot>,
    time: Duration,
    run: impl Fn(slot::Slot) -> F + Clone + Send + Sync + 'static,
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
