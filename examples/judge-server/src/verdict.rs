//! The answer: the verdict on a submission, and the figures of the run that decided it.

use serde::Serialize;
use stockade::outcome::Unenforced;
use stockade::{Outcome, Output, Termination};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Accepted,
    WrongAnswer,
    CompileError,
    /// Too much CPU time, or too much wall-clock time: [`Judged::termination`] says which.
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    /// It exited with a status other than 0, or a signal killed it.
    RuntimeError,
}

/// A verdict with its reasons, as a client gets it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    pub verdict: Verdict,
    /// How the program terminated, or the compiler if it failed.
    pub termination: Termination,
    pub usage: Figures,
    /// The beginning of standard error, or of the compiler's messages.
    pub stderr: String,
    /// What of the sandbox was not enforced on this host, and why.
    pub unenforced: Vec<Unenforced>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub wall_seconds: f64,
    pub cpu_seconds: Option<f64>,
    /// Whether the program may have used more CPU time: without a cgroup some of its processes may not be counted.
    pub cpu_is_lower_bound: bool,
    /// Peak memory of all processes together. Only a cgroup counts it.
    pub memory_peak_bytes: Option<u64>,
}

/// Maximum size of [`Judged::stderr`], in bytes.
const STDERR: usize = 4 << 10;

impl Judged {
    /// Returns what there is to say of a run of the program. `None` if its termination says nothing about the program.
    pub fn of_program(output: &Output, expected: &str) -> Option<Self> {
        let verdict = match output.outcome.termination {
            Termination::Exited(0) if is_right(&output.stdout, expected) => Verdict::Accepted,
            Termination::Exited(0) => Verdict::WrongAnswer,
            Termination::Exited(_) | Termination::Signaled { .. } => Verdict::RuntimeError,
            Termination::Syscall(_) | Termination::ForeignSyscall(_) => Verdict::RuntimeError,
            Termination::CpuTime | Termination::WallTime => Verdict::TimeLimit,
            Termination::Memory => Verdict::MemoryLimit,
            Termination::Output => Verdict::OutputLimit,
            _ => return None,
        };
        Some(Self::new(verdict, output))
    }

    /// Returns what there is to say of a run of the compiler that has failed.
    pub fn of_compiler(output: &Output) -> Option<Self> {
        let is_of_host = matches!(output.outcome.termination, Termination::HostMemory | Termination::Killed);
        (!is_of_host).then(|| Self::new(Verdict::CompileError, output))
    }

    fn new(verdict: Verdict, output: &Output) -> Self {
        let Outcome { termination, usage, enforcement, .. } = &output.outcome;
        let stderr = &output.stderr[..output.stderr.len().min(STDERR)];
        Self {
            verdict,
            termination: *termination,
            usage: Figures {
                wall_seconds: usage.wall_time.as_secs_f64(),
                cpu_seconds: usage.cpu_time.map(|cpu| cpu.value.as_secs_f64()),
                cpu_is_lower_bound: usage.cpu_time.is_none_or(|cpu| cpu.source.is_lower_bound()),
                memory_peak_bytes: usage.memory_peak.map(|memory| memory.value),
            },
            stderr: String::from_utf8_lossy(stderr).into_owned(),
            unenforced: enforcement.unenforced.clone(),
        }
    }
}

/// Returns whether an output has the expected words.
fn is_right(stdout: &[u8], expected: &str) -> bool {
    String::from_utf8_lossy(stdout).split_whitespace().eq(expected.split_whitespace())
}
