//! The result of a job: the verdict for each test and overall, usage, and excerpts of what the program printed.

use serde::{Deserialize, Serialize};
use stockade::{Outcome, Output};

use super::failure::Failure;
use super::verdict::Verdict;

/// The result of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobResult {
    /// ID of the job.
    pub id: String,
    /// The verdict of the first test that was not passed, or of the compiler. `unknown` if `error` says why there is none.
    pub verdict: Verdict,
    /// The verdict in words.
    pub summary: String,
    /// Why the judge has no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The run of the compiler, if the language is compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<Compiling>,
    /// The tests that were run.
    pub tests: Vec<TestResult>,
    /// The largest of all tests.
    pub usage: Figures,
    /// What was requested and not enforced on this worker, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// Name of the worker.
    #[serde(default)]
    pub worker: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestResult {
    /// Name of the test.
    pub test: String,
    pub verdict: Verdict,
    /// The verdict in words.
    pub summary: String,
    pub usage: Figures,
    pub stdout: Excerpt,
    pub stderr: Excerpt,
    /// What the checker or the interactor wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Excerpt>,
}

/// The compiler's messages and usage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compiling {
    pub log: Excerpt,
    pub usage: Figures,
}

/// Usage of a program and all that it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub cpu_seconds: f64,
    /// Whether the program may have used more CPU time: without a cgroup, not all of its processes are counted.
    pub cpu_is_lower_bound: bool,
    pub wall_seconds: f64,
    /// Peak memory, in bytes. `null` without a cgroup.
    pub memory_peak_bytes: Option<u64>,
}

/// The beginning of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether there was more.
    pub truncated: bool,
}

impl Excerpt {
    /// Returns at most this many bytes of the beginning of an output.
    pub fn new(output: &[u8], most: usize, truncated: bool) -> Self {
        let excerpt = &output[..output.len().min(most)];
        let text = String::from_utf8_lossy(excerpt).into_owned();
        Self { text, truncated: truncated || output.len() > most }
    }
}

/// Maximum size of an excerpt of a program's output, in bytes.
pub const PROGRAM_EXCERPT: usize = 1 << 10;
/// Maximum size of an excerpt of a compiler's messages, in bytes.
const COMPILER_EXCERPT: usize = 16 << 10;

impl Figures {
    pub fn new(outcome: &Outcome) -> Self {
        let cpu = outcome.usage.cpu_time;
        Self {
            cpu_seconds: cpu.map_or(0.0, |cpu| cpu.value.as_secs_f64()),
            cpu_is_lower_bound: cpu.is_none_or(|cpu| cpu.source.is_lower_bound()),
            wall_seconds: outcome.usage.wall_time.as_secs_f64(),
            memory_peak_bytes: outcome.usage.memory_peak.map(|memory| memory.value),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds.max(other.cpu_seconds),
            cpu_is_lower_bound: self.cpu_is_lower_bound || other.cpu_is_lower_bound,
            wall_seconds: self.wall_seconds.max(other.wall_seconds),
            memory_peak_bytes: self.memory_peak_bytes.max(other.memory_peak_bytes),
        }
    }
}

impl Compiling {
    pub fn new(output: &Output) -> Self {
        let mut log = output.stderr.clone();
        log.extend_from_slice(&output.stdout);
        if output.outcome.termination.code().is_none() {
            log.extend_from_slice(format!("compiler: {}\n", output.outcome.termination).as_bytes());
        }
        let truncated = output.stderr_truncated || output.stdout_truncated;
        Self { log: Excerpt::new(&log, COMPILER_EXCERPT, truncated), usage: Figures::new(&output.outcome) }
    }
}

impl JobResult {
    /// Creates the result of a job whose tests were run.
    pub fn judged(id: &str, compiler: Option<Compiling>, tests: Vec<TestResult>) -> Self {
        let first = tests.iter().find(|test| test.verdict != Verdict::Accepted);
        let verdict = first.map_or(Verdict::Accepted, |test| test.verdict);
        let usage = tests.iter().map(|test| test.usage).reduce(Figures::max).unwrap_or_default();
        Self { compiler, tests, usage, ..Self::of(id, verdict) }
    }

    /// Creates the result of a job that could not be compiled.
    pub fn not_compiled(id: &str, compiler: Compiling) -> Self {
        Self { compiler: Some(compiler), ..Self::of(id, Verdict::CompileError) }
    }

    /// Creates the result of a job that could not be judged.
    pub fn failed(id: &str, failure: &Failure) -> Self {
        Self { error: Some(failure.to_string()), ..Self::of(id, Verdict::Unknown) }
    }

    /// Whether there is a verdict on the program.
    pub fn has_verdict(&self) -> bool {
        self.verdict != Verdict::Unknown
    }

    fn of(id: &str, verdict: Verdict) -> Self {
        Self {
            id: id.to_owned(),
            verdict,
            summary: verdict.to_string(),
            error: None,
            compiler: None,
            tests: vec![],
            usage: Figures::default(),
            unenforced: vec![],
            worker: String::new(),
        }
    }
}
