//! What the tests share: the corpus, judges, and the program as a child process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stockade_workers::judge::job::{Checker, Job, Limits, Priority, Program, Source, Test};
use stockade_workers::judge::judging::{Judge, Settings};
use stockade_workers::judge::language::{LANGUAGES, Language};
use stockade_workers::judge::problem;
use stockade_workers::judge::sandboxes::Host;
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_stockade-judge");

/// Directory of the example `judge`, whose submissions are the corpus.
pub fn corpus_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../judge")
}

/// A submission of the corpus, and its expected verdict.
pub struct Submission {
    pub name: String,
    pub language: &'static Language,
    pub program: Program,
    pub expected: String,
}

/// Returns the submissions whose languages are installed, and prints the others.
pub fn corpus() -> Vec<Submission> {
    let mut paths: Vec<_> = fs::read_dir(corpus_directory().join("submissions")).unwrap().flatten().collect();
    paths.sort_by_key(fs::DirEntry::file_name);
    let submissions = paths.iter().map(|entry| submission(&entry.path()));
    let (present, absent): (Vec<_>, Vec<_>) = submissions.partition(|one| one.language.is_present());
    for one in absent {
        println!("skipped: {}: {} is not installed", one.name, one.language.name);
    }
    present
}

fn submission(path: &Path) -> Submission {
    let text = fs::read_to_string(path).unwrap();
    let extension = path.extension().unwrap();
    let language = LANGUAGES.iter().find(|language| extension == language.extension).unwrap();
    Submission {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        language,
        expected: text.lines().next().unwrap().split_once("Expected: ").unwrap().1.to_owned(),
        program: program(&language.name.to_lowercase(), &text),
    }
}

pub fn program(language: &str, text: &str) -> Program {
    Program { language: language.into(), sources: vec![Source { name: None, text: text.into() }] }
}

pub fn corpus_tests() -> Vec<Test> {
    problem::tests(&corpus_directory().join("tests")).unwrap()
}

pub fn job(id: &str, program: Program, tests: Vec<Test>) -> Job {
    let (limits, checker) = (Limits::default(), Checker::default());
    Job { id: id.into(), priority: Priority::Normal, program, tests, limits, checker, interactor: None, run_all: false }
}

/// A judge with directories of its own.
pub struct TestJudge {
    pub judge: Judge,
    pub directory: TempDir,
}

pub fn judge() -> TestJudge {
    judge_hiding(vec![])
}

/// Creates a judge that hides these files and directories from programs.
pub fn judge_hiding(hidden: Vec<PathBuf>) -> TestJudge {
    let directory = TempDir::new().unwrap();
    let blobs = directory.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let settings = Settings {
        host: Host { hidden, ..Host::default() },
        scratch: directory.path().join("scratch"),
        blobs: Some(blobs),
        worker: "test".into(),
        cpus: vec![],
    };
    TestJudge { judge: Judge::new(settings).unwrap(), directory }
}

/// A process of the program, which is killed when this is dropped.
pub struct Process {
    child: Child,
    /// Its standard error.
    pub log: PathBuf,
}

impl Process {
    pub fn start(directory: &Path, name: &str, args: &[&str]) -> Self {
        let log = directory.join(format!("{name}.log"));
        let scratch = directory.join("scratch");
        let mut command = Command::new(PROGRAM);
        // A server that is killed leaves its temporary results.
        command.env("TMPDIR", directory);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        if args[0] != "record" {
            command.arg("--scratch").arg(scratch);
        }
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its exit.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

/// A server of the program.
pub struct Server {
    pub process: Process,
    pub url: String,
}

impl Server {
    pub fn start(directory: &Path, args: &[&str]) -> Self {
        let all: Vec<_> = ["serve", "--listen", "127.0.0.1:0"].iter().chain(args).copied().collect();
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("serve-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut process = Process::start(directory, &name, &all);
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}: {}", process.log()));
        Self { url: url.into(), process }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let mut answer = agent().get(format!("{}{path}", self.url)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    pub fn post(&self, path: &str, body: impl serde::Serialize) -> (u16, Value) {
        let mut answer = agent().post(format!("{}{path}", self.url)).send_json(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    /// Submits a job, again until it is accepted.
    pub fn submit(&self, job: &Job) {
        within(Duration::from_secs(60), &format!("{} is accepted", job.id), || {
            let (status, answer) = self.post("/api/jobs", job);
            assert!(status == 202 || status == 503, "{status} {answer}");
            (status == 202).then_some(())
        });
    }

    /// Waits for the end of a job.
    pub fn result(&self, id: &str, most: Duration) -> Value {
        within(most, &format!("{id} ends"), || {
            let (status, answer) = self.get(&format!("/api/jobs/{id}"));
            assert_eq!(status, 200, "{answer}");
            (answer["state"] == "ended").then(|| answer["result"].clone())
        })
    }
}

/// A client that returns answers of every status.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// Waits until a function returns a value.
pub fn within<T>(most: Duration, what: &str, mut function: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = function() {
            return value;
        }
        assert!(start.elapsed() < most, "not within {most:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns whether programs are installed. Prints that the test is skipped if not, or fails if STOCKADE_ENGINES is set.
pub fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|path| !Path::new(path).exists()).collect();
    assert!(missing.is_empty() || std::env::var_os("STOCKADE_ENGINES").is_none(), "not installed: {missing:?}");
    if !missing.is_empty() {
        println!("skipped: not installed: {missing:?}");
    }
    missing.is_empty()
}

pub fn tests_of(pairs: &[(&str, &str)]) -> Vec<Test> {
    let tests = pairs.iter().enumerate().map(|(place, (input, answer))| {
        json!({"name": (place + 1).to_string(), "input": {"text": input}, "answer": {"text": answer}})
    });
    tests.map(|test| serde_json::from_value(test).unwrap()).collect()
}
