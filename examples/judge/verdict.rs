//! The verdict on a submission.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use stockade::seccomp::SystemCall;
use stockade::{Outcome, Signal, Termination};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    WrongAnswer,
    CompileError,
    CpuTime,
    WallTime,
    Idle,
    Memory,
    Output,
    Exit(i32),
    Signal(Signal),
    /// It made a system call that the policy of its language denies.
    Forbidden(SystemCall),
    /// It terminated in a way that this judge does not know.
    Unknown,
}

impl Verdict {
    /// Returns the verdict for a run. `is_right` checks the output.
    pub fn new(termination: Termination, is_right: bool) -> Self {
        match termination {
            Termination::Exited(0) if is_right => Self::Accepted,
            Termination::Exited(0) => Self::WrongAnswer,
            Termination::Exited(code) => Self::Exit(code),
            Termination::Signaled { signal, .. } => Self::Signal(signal),
            Termination::Syscall(call) => Self::Forbidden(call),
            Termination::CpuTime => Self::CpuTime,
            Termination::WallTime => Self::WallTime,
            Termination::Idle => Self::Idle,
            Termination::Memory => Self::Memory,
            Termination::Output => Self::Output,
            _ => Self::Unknown,
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("Accepted"),
            Self::WrongAnswer => f.write_str("Wrong answer"),
            Self::CompileError => f.write_str("Compile error"),
            Self::CpuTime => f.write_str("CPU time"),
            Self::WallTime => f.write_str("Wall time"),
            Self::Idle => f.write_str("Idle"),
            Self::Memory => f.write_str("Memory"),
            Self::Output => f.write_str("Output"),
            Self::Exit(code) => write!(f, "Runtime error (exit {code})"),
            Self::Signal(signal) => write!(f, "Runtime error ({signal})"),
            Self::Forbidden(call) => write!(f, "Forbidden call ({call})"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

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
