//! The verdict on a submission.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};
use stockade::seccomp::SystemCall;
use stockade::{Signal, Termination};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// It made a system call of another ABI, by its number there.
    ForbiddenForeign(i32),
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
            Termination::ForeignSyscall(number) => Self::ForbiddenForeign(number),
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
            Self::ForbiddenForeign(number) => write!(f, "Forbidden call ({number:#x} of another ABI)"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}
