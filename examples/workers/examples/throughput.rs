//! Jobs a second by number of slots, against the sandbox of a submission alone: `cargo run --release --example throughput`.
//!
//! "sandbox" runs the program on the input, and does nothing else. "jobs" does what a worker does: it reads the job,
//! runs the program on one test, and checks the output. "compiled jobs" are of C, and run a compiler first.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;
use stockade_workers::judge::compiler::Executable;
use stockade_workers::judge::job::Job;
use stockade_workers::judge::judging::{Judge, Settings};
use stockade_workers::judge::sandboxes::{Host, command};
use stockade_workers::judge::slots::Slots;
use stockade_workers::judge::tracker::{End, ended};
use tempfile::TempDir;

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

#[tokio::main]
async fn main() -> Result<(), Failure> {
    println!("{:>5} {:>10} {:>10} {:>14}   a second", "slots", "sandbox", "jobs", "compiled jobs");
    for slots in [1, 2, 4] {
        let alone = tokio::task::spawn_blocking(move || sandboxes(slots, 200)).await??;
        let judged = jobs(slots, 200, "python", PYTHON).await?;
        let compiled = jobs(slots, 60, "c", C).await?;
        println!("{slots:>5} {alone:>10.1} {judged:>10.1} {compiled:>14.1}   jobs/sandbox {:.2}", judged / alone);
    }
    Ok(())
}
