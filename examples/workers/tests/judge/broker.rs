//! Workers and a real RabbitMQ: nothing is lost and nothing is recorded twice, whatever is killed.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rustix::process::Signal;
use serde_json::Value;
use stockade_workers::judge::broker::{publish, publishing_channel};
use stockade_workers::judge::job::{Checker, Data, Job, Priority, Program};
use stockade_workers::judge::report::JobResult;
use tempfile::TempDir;

use crate::http::events;
use crate::support::{Process, Server, Submission, corpus, corpus_tests, has, job, judge, program, tests_of, within};

const SOON: Duration = Duration::from_secs(120);
const RABBIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/engines/rabbit");

/// A broker of a test, with a server that records results.
struct Engine {
    directory: TempDir,
    port: u16,
    acknowledged_within: String,
    delivery_limit: &'static str,
}

/// Returns the first of three free ports.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = 21_000 + (std::process::id() % 1000) as u16 * 9 + 3 * NEXT.fetch_add(1, Ordering::Relaxed);
        if (port..port + 3).all(is_free) {
            return port;
        }
    }
}

impl Engine {
    /// Starts a broker, unless RabbitMQ is not installed.
    fn start(acknowledged_within: Duration, delivery_limit: &'static str) -> Option<Self> {
        if !has(&["/usr/lib/rabbitmq/bin/rabbitmq-server"]) {
            return None;
        }
        // The broker of a root caller runs as another user.
        let directory = TempDir::new().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(directory.path(), mode).unwrap();
        let acknowledged_within = acknowledged_within.as_millis().to_string();
        let engine = Self { directory, port: free_ports(), acknowledged_within, delivery_limit };
        engine.start_broker();
        Some(engine)
    }

    fn rabbit(&self, args: &[&str]) {
        let (command, rest) = args.split_first().unwrap();
        let mut rabbit = Command::new(RABBIT);
        let status = rabbit.arg(command).arg(self.directory.path().join("rabbit")).args(rest).status().unwrap();
        assert!(status.success(), "{args:?}: {status}");
    }

    fn start_broker(&self) {
        self.rabbit(&["start", &self.port.to_string(), &self.acknowledged_within]);
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    fn server(&self) -> Server {
        let results = self.directory.path().join("store");
        let (results, url) = (results.to_str().unwrap(), self.url());
        let args = ["--results", results, "--broker", &url, "--delivery-limit", self.delivery_limit];
        Server::start(self.directory.path(), &args)
    }

    fn worker(&self, name: &str, slots: &str) -> Process {
        let url = self.url();
        let limit = self.delivery_limit;
        let args = ["work", "--broker", &url, "--slots", slots, "--name", name, "--delivery-limit", limit];
        Process::start(self.directory.path(), name, &args)
    }

    /// Number of messages that wait in a queue.
    fn waiting(&self, queue: &str) -> u32 {
        let count = async {
            let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
            queue.message_count()
        };
        tokio::runtime::Runtime::new().unwrap().block_on(count)
    }

    fn publish(&self, queue: &str, message: &[u8]) {
        let published = async {
            let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.unwrap();
            let channel = publishing_channel(&connection).await.unwrap();
            publish(&channel, queue.into(), "none", message).await.unwrap();
        };
        tokio::runtime::Runtime::new().unwrap().block_on(published);
    }

    /// Waits until no message is in any queue.
    fn expect_empty_queues(&self) {
        for queue in ["jobs.high", "jobs.normal", "jobs.low", "jobs.dead", "results"] {
            let queue = format!("stockade.{queue}");
            within(SOON, &format!("{queue} is empty"), || (self.waiting(&queue) == 0).then_some(()));
        }
    }

    /// Returns the summaries of all stored results by job.
    fn recorded(&self) -> BTreeMap<String, String> {
        recorded(&self.directory.path().join("store/results"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new(RABBIT).arg("stop").arg(self.directory.path().join("rabbit")).status();
        if thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.path().join("rabbit/stdout")).unwrap_or_default());
        }
    }
}

fn recorded(directory: &Path) -> BTreeMap<String, String> {
    let results = fs::read_dir(directory).unwrap().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let id = name.strip_suffix(".json")?.to_owned();
        let result: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).unwrap();
        assert_eq!(result["id"], id);
        Some((id, result["summary"].as_str().unwrap().to_owned()))
    });
    results.collect()
}

/// A program that sleeps before it prints 1.
fn slow(seconds: f64) -> Program {
    program("python", &format!("import time\ntime.sleep({seconds})\nprint(1)"))
}

fn slow_job(id: &str, seconds: f64) -> Job {
    let mut one = job(id, slow(seconds), tests_of(&[("", "1")]));
    (one.limits.wall_ms, one.limits.idle_ms) = (Some(60_000), Some(60_000));
    one
}

fn running(server: &Server, id: &str) {
    within(SOON, &format!("{id} runs"), || {
        (server.get(&format!("/api/jobs/{id}")).1["state"] == "running").then_some(())
    });
}

const HOUR: Duration = Duration::from_secs(3600);
/// Number of jobs that are judged while workers are killed, unless STOCKADE_JOBS is set.
const MANY: usize = 500;
/// Of two workers one is killed, so that each lives twice as long.
const KILLED_EVERY: Duration = Duration::from_secs(5);
/// In seconds.
const LONGEST_COMPILER: f64 = 4.0;

/// Returns the submissions of the languages whose compilers run for a shorter time than a worker lives.
fn short_submissions() -> Vec<Submission> {
    let (test, submissions) = (judge(), corpus());
    let mut long = vec![];
    for one in submissions.iter().filter(|one| one.name.starts_with("accepted.")) {
        let job = job("trial", one.program.clone(), corpus_tests());
        let compiler = test.judge.judge(&job, 0, |_| {}).unwrap().compiler;
        let seconds = compiler.map_or(0.0, |compiler| compiler.usage.wall_seconds);
        if seconds > LONGEST_COMPILER {
            println!("left out: {}: its compiler needs {seconds:.1} s now", one.language.name);
            long.push(one.language.name);
        }
    }
    submissions.into_iter().filter(|one| !long.contains(&one.language.name)).collect()
}

/// Returns a job whose run is shorter than a worker lives.
fn short_job(id: &str, one: &Submission) -> Job {
    let mut job = job(id, one.program.clone(), corpus_tests());
    // Others may wait long for a CPU, which is no verdict.
    let (wall, idle) = match one.expected.as_str() {
        "Wall time" => (3000, 2000),
        "Idle" => (20_000, 2000),
        _ => (20_000, 15_000),
    };
    (job.limits.wall_ms, job.limits.idle_ms) = (Some(wall), Some(idle));
    job
}

#[test]
fn many_jobs_have_exactly_one_verdict_each_while_workers_are_killed() {
    let Some(engine) = Engine::start(HOUR, "100") else { return };
    let many = std::env::var("STOCKADE_JOBS").map_or(MANY, |jobs| jobs.parse().unwrap());
    let submissions = short_submissions();
    let server = engine.server();
    let expected: HashMap<_, _> = (0..many)
        .map(|number| {
            let one = &submissions[number % submissions.len()];
            (format!("{number:03}-{}", one.name.replace('.', "-")), one)
        })
        .collect();
    let start = Instant::now();
    for (place, (id, one)) in expected.iter().enumerate() {
        server.submit(&Job { priority: Priority::ALL[place % 3], ..short_job(id, one) });
    }
    println!("{many} jobs submitted in {:.1?}", start.elapsed());

    let start = Instant::now();
    let mut workers = [engine.worker("first", "1"), engine.worker("second", "1")];
    let count = || fs::read_dir(engine.directory.path().join("store/results")).unwrap().count();
    let (mut kills, mut last, mut done) = (0, Instant::now(), 0);
    let results = within(Duration::from_secs(1500), "all jobs are judged", || {
        // On a machine so busy that no job has ended meanwhile, the next one is killed later.
        if last.elapsed() >= KILLED_EVERY && count() > done {
            let (place, name) = [(0, "first"), (1, "second")][kills % 2];
            workers[place].signal(Signal::KILL);
            workers[place].wait();
            workers[place] = engine.worker(name, "1");
            (kills, last, done) = (kills + 1, Instant::now(), count());
        }
        (count() >= many).then(|| engine.recorded()).filter(|results| results.len() == many)
    });
    let took = start.elapsed();
    println!(
        "{many} jobs judged in {took:.1?}, {:.1} a second; {kills} workers killed",
        many as f64 / took.as_secs_f64()
    );
    engine.expect_empty_queues();
    let again = server.process.log().matches("recorded already").count();
    println!("{again} results were published more than once, and recorded once");

    assert!(100 * kills >= many, "{kills}");
    assert_eq!(results.len(), many);
    let wrong: Vec<_> = results.iter().filter(|(id, summary)| **summary != expected[*id].expected).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // What the killed workers left on disk is gone: each of those that live has a directory.
    assert_eq!(fs::read_dir(engine.directory.path().join("scratch")).unwrap().count(), 2);
}

#[test]
fn a_broker_that_is_killed_in_mid_job_loses_nothing() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    let worker = engine.worker("worker", "2");
    let ids: Vec<_> = (0..8).map(|number| format!("killed-{number}")).collect();
    for id in &ids {
        server.submit(&slow_job(id, 2.0));
    }
    running(&server, "killed-0");
    // RabbitMQ 3.10 cannot use a quorum queue again that was created less than a second before it is killed.
    thread::sleep(Duration::from_secs(3));
    let before = engine.recorded().len();
    engine.rabbit(&["kill"]);
    // Jobs that run end while there is no broker.
    thread::sleep(Duration::from_secs(3));
    let (status, answer) = server.post("/api/jobs", slow_job("late", 0.0));
    assert_eq!(status, 503, "{answer}");
    engine.start_broker();
    server.submit(&slow_job("late", 0.0));
    for id in ids.iter().map(String::as_str).chain(["late"]) {
        assert_eq!(server.result(id, SOON)["verdict"], "accepted", "{id}");
    }
    assert!(before < ids.len(), "{before} jobs had ended before the broker was killed");
    assert_eq!(engine.recorded().len(), ids.len() + 1);
    engine.expect_empty_queues();
    let log = worker.log();
    assert!(log.contains("connecting again"), "{log}");
}

#[test]
fn a_job_that_outlives_the_acknowledgement_timeout_is_judged_once() {
    let Some(engine) = Engine::start(Duration::from_secs(3), "20") else { return };
    let server = engine.server();
    let worker = engine.worker("worker", "1");
    server.submit(&slow_job("long", 9.0));
    let result = server.result("long", SOON);
    assert_eq!(result["verdict"], "accepted");
    engine.expect_empty_queues();
    // The broker has taken the delivery away, and the worker has judged the job once all the same.
    let log = worker.log();
    assert!(log.contains("PRECONDITION") || log.contains("connecting again"), "{log}");
    assert_eq!(log.matches("judged").count(), 1, "{log}");
    let broker = fs::read_to_string(engine.directory.path().join("rabbit/stdout")).unwrap();
    let broker = broker + &logs(&engine.directory.path().join("rabbit/log"));
    assert!(broker.contains("timed out") || broker.contains("timeout"), "{broker}");
}

fn logs(directory: &Path) -> String {
    let files = fs::read_dir(directory).unwrap().flatten();
    files.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

#[test]
fn sigterm_drains_a_worker() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    let mut first = engine.worker("first", "1");
    for id in ["one", "two", "three"] {
        server.submit(&slow_job(id, 3.0));
    }
    running(&server, "one");
    first.signal(Signal::TERM);
    assert!(first.wait().success(), "{}", first.log());
    assert_eq!(first.log().matches("judged").count(), 1, "{}", first.log());
    assert_eq!(server.result("one", SOON)["worker"], "first");
    within(SOON, "two jobs are given back", || (engine.waiting("stockade.jobs.normal") == 2).then_some(()));
    let _second = engine.worker("second", "1");
    for id in ["two", "three"] {
        assert_eq!(server.result(id, SOON)["worker"], "second");
    }
    engine.expect_empty_queues();
}

#[test]
fn jobs_that_no_worker_can_judge_are_dead_letters_and_say_so() {
    let Some(engine) = Engine::start(HOUR, "2") else { return };
    let server = engine.server();
    let worker = engine.worker("worker", "1");
    let mut missing = job("missing", program("python", "print(1)"), tests_of(&[("", "1")]));
    missing.tests[0].answer = Data::Sha256("0".repeat(64));
    server.submit(&missing);
    server.submit(&slow_job("fine", 0.0));
    let result = server.result("missing", SOON);
    assert_eq!(result["verdict"], "unknown");
    assert!(result["error"].as_str().unwrap().contains("this worker has no directory of tests"), "{result}");
    assert_eq!(server.result("fine", SOON)["verdict"], "accepted");
    // Once more than the limit.
    assert_eq!(worker.log().matches("has no directory of tests").count(), 3, "{}", worker.log());
    let kept: Job =
        serde_json::from_slice(&fs::read(engine.directory.path().join("store/dead/missing.json")).unwrap()).unwrap();
    assert_eq!(kept, missing);
    // A message that has the ID of a job, and is none, says why.
    engine.publish("stockade.jobs.normal", br#"{"id": "half"}"#);
    let half = engine.directory.path().join("store/results/half.json");
    within(SOON, "it is recorded", || {
        fs::read_to_string(&half).ok()?.contains("missing field `program`").then_some(())
    });
    // A message that is no job is kept too.
    engine.publish("stockade.jobs.normal", b"no job");
    let digest = stockade_workers::judge::blobs::digest_of(b"no job");
    let path = engine.directory.path().join(format!("store/dead/{digest}.json"));
    within(SOON, "it is kept", || (fs::read(&path).ok()? == b"no job").then_some(()));
    engine.expect_empty_queues();
}

#[test]
fn a_job_that_is_sent_again_gets_a_result_again() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    let worker = engine.worker("worker", "1");
    let judged = |id: &str| worker.log().matches(&format!("job=\"{id}\" verdict")).count();
    // It has no verdict, so it is judged again.
    let mut failing = slow_job("failing", 0.0);
    failing.checker = Checker::Program(program("python", "exit(3)"));
    for attempt in 1..=2 {
        server.submit(&failing);
        within(SOON, "it is judged", || (judged("failing") == attempt).then_some(()));
        assert!(server.result("failing", SOON)["error"].as_str().unwrap().contains("the checker failed"));
    }
    // It has a verdict, but not in this store any more.
    server.submit(&slow_job("lost", 0.0));
    assert_eq!(server.result("lost", SOON)["verdict"], "accepted");
    fs::remove_file(engine.directory.path().join("store/results/lost.json")).unwrap();
    server.submit(&slow_job("lost", 0.0));
    assert_eq!(server.result("lost", SOON)["verdict"], "accepted");
    assert_eq!(judged("lost"), 1);
    engine.expect_empty_queues();
}

#[test]
fn a_result_that_cannot_be_stored_does_not_delay_others() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    let obstacle = engine.directory.path().join("store/results/blocked.json");
    fs::create_dir(&obstacle).unwrap();
    within(SOON, "it is connected", || server.process.log().contains("connected").then_some(()));
    engine.publish("stockade.results", &serde_json::to_vec(&JobResult::judged("blocked", None, vec![])).unwrap());
    within(SOON, "it fails", || server.process.log().contains("blocked.json").then_some(()));
    let _worker = engine.worker("worker", "1");
    for number in 0..5 {
        let id = format!("behind-{number}");
        server.submit(&slow_job(&id, 0.0));
        assert_eq!(server.result(&id, SOON)["verdict"], "accepted");
    }
    fs::remove_dir(&obstacle).unwrap();
    within(SOON, "it is stored", || obstacle.is_file().then_some(()));
    engine.expect_empty_queues();
    assert_eq!(server.process.log().matches("connecting again").count(), 0, "{}", server.process.log());
}

#[test]
fn a_second_signal_ends_a_worker_at_once_and_its_job_is_judged_by_another() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    let mut first = engine.worker("first", "1");
    server.submit(&slow_job("long", 25.0));
    running(&server, "long");
    first.signal(Signal::TERM);
    within(SOON, "it drains", || first.log().contains("a second signal").then_some(()));
    let start = Instant::now();
    first.signal(Signal::TERM);
    assert!(!first.wait().success(), "{}", first.log());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let _second = engine.worker("second", "1");
    assert_eq!(server.result("long", SOON)["worker"], "second");
    engine.expect_empty_queues();
}

/// Either may record a result, and each tells its own clients of it.
#[test]
fn fronts_that_share_a_directory_of_results_share_the_work() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let (first, second) = (engine.server(), engine.server());
    let _worker = engine.worker("worker", "1");
    for number in 0..6 {
        let id = format!("shared-{number}");
        first.submit(&slow_job(&id, 0.3));
        let events = events(&first, &id);
        let (name, result) = events.last().unwrap();
        assert_eq!((name.as_str(), &result["verdict"]), ("result", &Value::from("accepted")), "{events:?}");
        assert_eq!(second.result(&id, SOON)["verdict"], "accepted");
    }
    let by = [&first, &second].map(|server| server.process.log().matches("recorded").count());
    println!("recorded by each: {by:?}");
    assert!(by.iter().sum::<usize>() == 6 && by[0] > 0 && by[1] > 0, "{by:?}");
}

#[test]
fn jobs_of_a_higher_priority_are_judged_first() {
    let Some(engine) = Engine::start(HOUR, "20") else { return };
    let server = engine.server();
    for (id, priority) in
        [("low-1", Priority::Low), ("low-2", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]
    {
        // The recorder creates the queues, so the jobs wait there.
        server.submit(&Job { priority, ..slow_job(id, 0.2) });
    }
    let worker = engine.worker("worker", "1");
    for id in ["low-1", "low-2", "normal", "high"] {
        assert_eq!(server.result(id, SOON)["verdict"], "accepted");
    }
    let log = worker.log();
    let place = |id: &str| log.find(&format!("job=\"{id}\" verdict")).unwrap_or_else(|| panic!("{id}: {log}"));
    // The first that is delivered may be of any priority, since nothing else waits at that moment.
    assert!(place("high") < place("low-2") && place("normal") < place("low-2"), "{log}");
}
