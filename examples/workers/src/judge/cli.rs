//! The commands.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::broker::Broker;
use super::failure::Failure;
use super::front::{Backend, Front, keep_results, router};
use super::job::Job;
use super::judging::{Judge, Settings};
use super::language::LANGUAGES;
use super::problem::problems;
use super::record::{Recorder, blocking};
use super::report::JobResult;
use super::sandboxes::Host;
use super::signals::Signals;
use super::slots::Slots;
use super::store::Store;
use super::tracker::Tracker;
use super::work::work;

/// Judges programs in sandboxes: in-process, or as a worker of a message broker
#[derive(Debug, Parser)]
#[command(name = "stockade-judge")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a page and an HTTP interface to submit programs. Judges in-process, or sends jobs to a broker
    Serve {
        /// Address to listen on; port 0 is a free one
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Name that clients reach the server by, besides localhost and IP addresses; can be repeated
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<String>,
        /// Directory of the problems: a directory with `problem.toml` for each
        #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/problems"))]
        problems: PathBuf,
        /// Directory of the results [default: a temporary one]
        #[arg(long, value_name = "DIR")]
        results: Option<PathBuf>,
        /// Send jobs to this broker (amqp://USER:PASSWORD@HOST:PORT/%2f) instead of judging them
        #[arg(long, value_name = "URL")]
        broker: Option<String>,
        #[command(flatten)]
        queues: QueueOptions,
        #[command(flatten)]
        judge: JudgeOptions,
    },
    /// Judge jobs of a broker until SIGTERM or SIGINT; the jobs that run then are judged before it exits
    Work {
        /// URL of the broker: amqp://USER:PASSWORD@HOST:PORT/%2f
        #[arg(long, value_name = "URL", env = "STOCKADE_BROKER")]
        broker: String,
        #[command(flatten)]
        queues: QueueOptions,
        #[command(flatten)]
        judge: JudgeOptions,
    },
    /// Store the results of a broker's jobs in a directory, each once. `serve --broker` does so too
    Record {
        /// URL of the broker: amqp://USER:PASSWORD@HOST:PORT/%2f
        #[arg(long, value_name = "URL", env = "STOCKADE_BROKER")]
        broker: String,
        /// Directory of the results
        #[arg(long, value_name = "DIR")]
        results: PathBuf,
        #[command(flatten)]
        queues: QueueOptions,
    },
    /// Judge jobs in files, and print the results as lines of JSON. The exit status does not depend on the verdicts
    Judge {
        /// Files, each with a job in JSON
        #[arg(required = true)]
        jobs: Vec<PathBuf>,
        #[command(flatten)]
        judge: JudgeOptions,
    },
}

#[derive(Debug, Args)]
struct QueueOptions {
    /// Beginning of the names of the queues
    #[arg(long, value_name = "NAME", default_value = "stockade")]
    prefix: String,
    /// How often a job is delivered again before it is dead-lettered; the same for all that use the queues
    #[arg(long, value_name = "N", default_value_t = 10)]
    delivery_limit: u32,
}

#[derive(Debug, Args)]
struct JudgeOptions {
    /// Number of jobs to judge at a time [default: the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: Option<u16>,
    /// CPUs of the slots, separated by commas; slots share them if there are more slots [default: all CPUs for all]
    #[arg(long, value_name = "CPUS", value_delimiter = ',')]
    cpus: Vec<u32>,
    /// Directory of tests by digest: files whose names are the SHA-256 of their contents
    #[arg(long, value_name = "DIR")]
    blobs: Option<PathBuf>,
    /// Directory for compiled programs, which workers can share [default: stockade-judge-UID in the temporary directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Name of this worker in results [default: the host name and the process ID]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// If this host refuses a cgroup, judge without limits on the memory and the CPU time of all processes of a program
    /// together; results then list what was not enforced
    #[arg(long)]
    without_cgroup: bool,
}

impl JudgeOptions {
    fn slots(&self) -> u16 {
        let cpus =
            || std::thread::available_parallelism().map_or(1, |cpus| u16::try_from(cpus.get()).unwrap_or(u16::MAX));
        self.slots.unwrap_or_else(cpus)
    }

    /// Creates the judge, whose directories and `hidden` no program may see.
    fn judge(self, hidden: Vec<PathBuf>) -> Result<Judge, Failure> {
        let user = rustix::process::geteuid().as_raw();
        let scratch = self.scratch.unwrap_or_else(|| std::env::temp_dir().join(format!("stockade-judge-{user}")));
        let name = || format!("{}-{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id());
        let host = Host { hidden, without_cgroup: self.without_cgroup };
        let worker = self.name.unwrap_or_else(name);
        let judge = Judge::new(Settings { host, scratch, blobs: self.blobs, worker, cpus: self.cpus })?;
        for unenforced in &judge.enforcement().unenforced {
            tracing::warn!("not enforced: {}: {}: {}", unenforced.layer, unenforced.requested, unenforced.reason);
        }
        Ok(judge)
    }
}

impl QueueOptions {
    fn broker(&self, url: &str) -> Result<Broker, Failure> {
        Broker::new(url, &self.prefix, self.delivery_limit)
    }
}

/// Runs a command.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    match options.command {
        Command::Serve { listen, hosts, problems, results, broker: None, judge, .. } => {
            embedded(Site { listen, hosts, problems, results }, judge, signals).await
        }
        Command::Serve { listen, hosts, problems, results, broker: Some(url), queues, .. } => {
            before_broker(Site { listen, hosts, problems, results }, queues.broker(&url)?, signals).await
        }
        Command::Work { broker, queues, judge } => {
            let (broker, slots) = (queues.broker(&broker)?, judge.slots());
            work(broker, judge.judge(vec![])?, slots, signals).await
        }
        Command::Record { broker, results, queues } => {
            let (broker, store) = (queues.broker(&broker)?, Arc::new(Store::open(&results)?));
            let recorder = Recorder { broker, store, tracker: Arc::default(), publisher: watch::channel(None).0 };
            until_signal(&mut signals, recorder.run()).await;
            Ok(())
        }
        Command::Judge { jobs, judge } => {
            // What is no file, such as a pipe, is visible nowhere.
            let hidden = jobs.iter().filter(|path| path.is_file()).cloned().collect();
            let judge = judge.judge(hidden)?;
            tokio::select! {
                judged = blocking(move || judge_files(&judge, &jobs)) => judged,
                () = signals.next() => Err(Failure::Worker("stopped by a signal".into())),
            }
        }
    }
}

async fn until_signal(signals: &mut Signals, running: impl Future) {
    tokio::select! {
        () = signals.next() => {}
        _ = running => {}
    }
}

/// Judges all files. One that is no job does not keep the others from being judged.
fn judge_files(judge: &Judge, paths: &[PathBuf]) -> Result<(), Failure> {
    let failures = paths.iter().filter_map(|path| judge_file(judge, path).err());
    let failures: Vec<_> = failures.map(|failure| failure.to_string()).collect();
    if failures.is_empty() { Ok(()) } else { Err(Failure::Worker(failures.join("\n"))) }
}

fn judge_file(judge: &Judge, path: &PathBuf) -> Result<(), Failure> {
    let json = fs::read(path).map_err(Failure::to(format!("read {}", path.display())))?;
    let job = Job::parse(&json).map_err(Failure::to(format!("use {}", path.display())))?;
    let result = match judge.judge(&job, 0, |_| {}) {
        Ok(result) => result,
        Err(failure) => judge.sign(JobResult::failed(&job.id, &failure)),
    };
    let json = serde_json::to_string(&result).map_err(Failure::to("print a result"))?;
    writeln!(io::stdout(), "{json}").map_err(Failure::to("print a result"))
}

/// Opens the directory of results, or a temporary one, which is removed with the second value.
fn open_store(results: Option<PathBuf>) -> Result<(Arc<Store>, PathBuf, Option<TempDir>), Failure> {
    let temporary = match results {
        Some(_) => None,
        None => Some(TempDir::with_prefix("stockade-results-").map_err(Failure::to("create a temporary directory"))?),
    };
    let path = results.or_else(|| Some(temporary.as_ref()?.path().to_owned())).unwrap_or_default();
    Ok((Arc::new(Store::open(&path)?), path, temporary))
}

/// What a server serves, and where.
struct Site {
    listen: SocketAddr,
    hosts: Vec<String>,
    problems: PathBuf,
    results: Option<PathBuf>,
}

/// Serves, and judges in this process.
async fn embedded(site: Site, judge: JudgeOptions, mut signals: Signals) -> Result<(), Failure> {
    let (store, results, _temporary) = open_store(site.results)?;
    for id in store.unfinished() {
        let failure = Failure::Worker("the judge was stopped before it could judge the job: submit it again".into());
        store.record(&JobResult::failed(&id, &failure))?;
    }
    let all = problems(&site.problems)?;
    let hidden = all.values().flat_map(|problem| problem.paths.clone()).chain([site.problems, results]);
    let count = judge.slots();
    let (slots, running, events) = Slots::start(judge.judge(hidden.collect())?, count.into());
    let keeping = tokio::spawn(keep_results(slots.clone(), store.clone(), events));
    let is_present = |language: &&super::language::Language| language.is_present();
    let languages = LANGUAGES.iter().filter(is_present).map(|language| language.name.to_lowercase()).collect();
    let backend = Backend::Embedded(slots.clone());
    serve(site.listen, Front::new(site.hosts, all, languages, store, backend), &mut signals).await?;
    tracing::info!("waiting for the jobs that run; a second signal stops them");
    let drained = async {
        running.drain(&slots).await;
        let _ = keeping.await;
    };
    tokio::select! {
        () = drained => Ok(()),
        () = signals.next() => Err(Failure::Worker("stopped by a second signal; jobs that were running are lost".into())),
    }
}

/// Serves, and lets the workers of a broker judge.
async fn before_broker(site: Site, broker: Broker, mut signals: Signals) -> Result<(), Failure> {
    let (store, _, _temporary) = open_store(site.results)?;
    let all = problems(&site.problems)?;
    let (publisher, channel) = watch::channel(None);
    let tracker = Arc::<Tracker>::default();
    let recorder = Recorder { broker: broker.clone(), store: store.clone(), tracker: tracker.clone(), publisher };
    let recording = tokio::spawn(recorder.run());
    let languages = LANGUAGES.iter().map(|language| language.name.to_lowercase()).collect();
    let backend = Backend::Broker { broker, channel, tracker };
    let served = serve(site.listen, Front::new(site.hosts, all, languages, store, backend), &mut signals).await;
    // Results that come later stay with the broker.
    recording.abort();
    served
}

/// Serves until a signal comes. Streams that are open then are closed.
async fn serve(listen: SocketAddr, front: Front, signals: &mut Signals) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.map_err(Failure::to(format!("listen on {listen}")))?;
    let address = listener.local_addr().map_err(Failure::to("find the address"))?;
    writeln!(io::stdout(), "listening on http://{address}").map_err(Failure::to("print the address"))?;
    let serving = axum::serve(listener, router(Arc::new(front)));
    until_signal(signals, serving.into_future()).await;
    Ok(())
}
