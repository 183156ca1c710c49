//! Jobs a second by number of slots, against the sandbox of a submission alone: `cargo run --release --example throughput`.
//!
//! "sandbox" runs the program on the input, and does nothing else. "jobs" does what a worker does: it reads the job,
//! runs the program on one test, and checks the output. "compiled jobs" are of C, and run a compiler first. "broker" is of
//! jobs that come from RabbitMQ, and whose results go back and are stored on disk, if STOCKADE_BROKER has its URL. "stored" is
//! of results alone, which pass the broker and are stored.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use lapin::Channel;
use serde_json::json;
use stockade_workers::judge::broker::{Broker, publish};
use stockade_workers::judge::compiler::Executable;
use stockade_workers::judge::job::{Job, Priority};
use stockade_workers::judge::judging::{Judge, Settings};
use stockade_workers::judge::record::Recorder;
use stockade_workers::judge::report::JobResult;
use stockade_workers::judge::sandboxes::{Host, command};
use stockade_workers::judge::signals::Signals;
use stockade_workers::judge::slots::Slots;
use stockade_workers::judge::store::Store;
use stockade_workers::judge::tracker::{End, Tracker, ended};
use stockade_workers::judge::verdict::Verdict;
use stockade_workers::judge::work::work;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

const PYTHON: &str = "print(sum(map(int, input().split())))";
const C: &str = "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d%d\", &a, &b); printf(\"%d\\n\", a + b); }";

fn job(id: &str, language: &str, source: &str) -> Result<Job, Failure> {
    let job = json!({
        "id": id, "program": {"language": language, "sources": [{"text": source}]},
        "tests": [{"name": "1", "input": {"text": "1 2"}, "answer": {"text": "3"}}],
    });
    Ok(Job::parse(job.to_string().as_bytes())?)
}

/// Runs the program in the sandbox of a submission, on this many threads.
fn sandboxes(threads: usize, count: usize) -> Result<f64, Failure> {
    let job = job("a", "python", PYTHON)?;
    let allowed = job.limits.of(job.program.language()?);
    let sandbox = Host::default().program(&Executable { program: job.program, directory: None }, &allowed, None)?;
    let left = AtomicUsize::new(count);
    let work = || -> Result<(), Failure> {
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let mut python = command(&["python3", "/src/program.py"]);
            python.stdin_bytes("1 2");
            if sandbox.output(python)?.stdout != b"3\n" {
                return Err("the program has failed".into());
            }
        }
        Ok(())
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Judges jobs in this many slots.
async fn jobs(slots: usize, count: usize, language: &str, source: &str) -> Result<f64, Failure> {
    let directory = TempDir::new()?;
    let scratch = directory.path().to_owned();
    let settings = Settings { host: Host::default(), scratch, blobs: None, worker: "test".into(), cpus: vec![] };
    let (slots, running, _events) = Slots::start(Judge::new(settings)?, slots);
    let start = Instant::now();
    let all = (0..count).map(|number| Ok(slots.submit(job(&format!("job-{number}"), language, source)?)));
    for mut progress in all.collect::<Result<Vec<_>, Failure>>()? {
        match ended(&mut progress).await {
            End::Result(result) if result.summary == "Accepted" => {}
            end => return Err(format!("{end:?}").into()),
        }
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    running.drain(&slots).await;
    Ok(rate)
}

/// A broker with queues of its own, and a recorder with a directory of its own.
struct Queues {
    broker: Broker,
    publisher: Channel,
    tracker: Arc<Tracker>,
    _directory: TempDir,
    _recording: JoinSet<()>,
}

impl Queues {
    async fn open(url: &str) -> Result<Self, Failure> {
        let directory = TempDir::new()?;
        let broker = Broker::new(url, &format!("throughput-{}", Uuid::new_v4()), 10)?;
        let (publisher, mut connected) = watch::channel(None);
        let (store, tracker) = (Arc::new(Store::open(directory.path())?), Arc::<Tracker>::default());
        let recorder = Recorder { broker: broker.clone(), store, tracker: tracker.clone(), publisher };
        let mut recording = JoinSet::new();
        recording.spawn(async { recorder.run().await });
        let publisher = connected.wait_for(Option::is_some).await?.clone().ok_or("the broker is away")?;
        Ok(Self { broker, publisher, tracker, _directory: directory, _recording: recording })
    }

    /// Publishes messages, and returns how many a second have a stored result.
    async fn rate(&self, queue: &str, messages: Vec<(String, Vec<u8>)>) -> Result<f64, Failure> {
        let count = messages.len();
        let mut all: Vec<_> = messages.iter().map(|(id, _)| self.tracker.track(id).0).collect();
        let start = Instant::now();
        for (id, message) in &messages {
            publish(&self.publisher, queue.to_owned(), id, message).await?;
        }
        for progress in &mut all {
            match ended(progress).await {
                End::Result(result) if result.verdict == Verdict::Accepted => {}
                end => return Err(format!("{end:?}").into()),
            }
        }
        Ok(count as f64 / start.elapsed().as_secs_f64())
    }
}

/// Judges jobs that come from a broker, by a worker with this many slots.
async fn from_broker(url: &str, slots: u16, count: usize) -> Result<f64, Failure> {
    let queues = Queues::open(url).await?;
    let directory = TempDir::new()?;
    let scratch = directory.path().to_owned();
    let settings = Settings { host: Host::default(), scratch, blobs: None, worker: "test".into(), cpus: vec![] };
    let mut working = JoinSet::new();
    working.spawn(work(queues.broker.clone(), Judge::new(settings)?, slots, Signals::new()?));
    let queue = queues.broker.jobs(Priority::Normal);
    let message = |id: String| Ok((id.clone(), serde_json::to_vec(&job(&id, "python", PYTHON)?)?));
    // The worker is connected when the first has ended.
    queues.rate(&queue, vec![message("first".into())?]).await?;
    let messages = (0..count).map(|number| message(format!("job-{number}"))).collect::<Result<_, Failure>>()?;
    queues.rate(&queue, messages).await
}

/// Stores results that come from a broker.
async fn stored(url: &str, count: usize) -> Result<f64, Failure> {
    let queues = Queues::open(url).await?;
    let result = |number| JobResult::judged(&format!("job-{number}"), None, vec![]);
    let results = (0..count).map(result).map(|result| Ok((result.id.clone(), serde_json::to_vec(&result)?)));
    queues.rate(&queues.broker.results(), results.collect::<Result<_, Failure>>()?).await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("STOCKADE_BROKER").ok();
    println!("{:>5} {:>10} {:>10} {:>14} {:>10}   a second", "slots", "sandbox", "jobs", "compiled jobs", "broker");
    for slots in [1, 2, 4] {
        let alone = tokio::task::spawn_blocking(move || sandboxes(slots.into(), 200)).await??;
        let judged = jobs(slots.into(), 200, "python", PYTHON).await?;
        let compiled = jobs(slots.into(), 60, "c", C).await?;
        let broker = match &url {
            Some(url) => format!("{:.1}", from_broker(url, slots, 200).await?),
            None => "-".to_owned(),
        };
        println!("{slots:>5} {alone:>10.1} {judged:>10.1} {compiled:>14.1} {broker:>10}");
    }
    match &url {
        Some(url) => println!("stored: {:.1} a second", stored(url, 1000).await?),
        None => println!("STOCKADE_BROKER is not set, so no broker was measured"),
    }
    Ok(())
}
