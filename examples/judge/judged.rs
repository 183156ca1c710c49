//! A verdict with the usage of the runs that led to it.

use std::time::Duration;

use stockade::Outcome;

use crate::verdict::Verdict;

/// A verdict, and the maximum usage of all tests.
#[derive(Clone, Debug)]
pub struct Judged {
    pub verdict: Verdict,
    /// Number of the test that decided.
    pub test: Option<usize>,
    pub cpu: Duration,
    pub wall: Duration,
    pub memory: u64,
    /// A line of standard error if the submission was not accepted: the first about an error, or the last.
    pub stderr_line: String,
}

impl Judged {
    pub fn new() -> Self {
        let (cpu, wall) = (Duration::ZERO, Duration::ZERO);
        Self { verdict: Verdict::Accepted, test: None, cpu, wall, memory: 0, stderr_line: String::new() }
    }

    /// Adds the usage of a run.
    pub fn count(&mut self, outcome: &Outcome) {
        let usage = &outcome.usage;
        let memory = usage.memory_peak.or(usage.max_rss);
        self.wall = self.wall.max(usage.wall_time);
        self.cpu = self.cpu.max(usage.cpu_time.map_or(Duration::ZERO, |cpu| cpu.value));
        self.memory = self.memory.max(memory.map_or(0, |memory| memory.value));
    }

    /// Sets the verdict, with a line of standard error.
    pub fn decide(&mut self, verdict: Verdict, test: Option<usize>, stderr: &[u8]) {
        let stderr = String::from_utf8_lossy(stderr);
        let line = stderr.lines().find(|line| line.contains("error")).or(stderr.lines().last());
        self.stderr_line = line.unwrap_or_default().to_owned();
        self.verdict = verdict;
        self.test = test;
    }
}
