//! Exit statuses, by the convention of shells and of timeout(1).

use stockade::{Error, ErrorKind, Outcome, Signal, Termination};

/// Exit status for invalid options and configuration files.
pub const USAGE: u8 = 2;
/// Exit status if a limit was exceeded, or a test succeeded and left processes running.
pub const EXCEEDED: u8 = 124;
/// Exit status if the sandbox could not be set up, or this command itself failed.
pub const FAILED: u8 = 125;

/// Returns the exit status for a signal that has ended the program.
pub fn of_signal(signal: Signal) -> u8 {
    128 + signal.number() as u8
}

/// Returns the exit status for a termination.
pub fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome.termination {
        Termination::Exited(code) => code as u8,
        Termination::Signaled { signal, .. } => of_signal(signal),
        Termination::WallTime
        | Termination::CpuTime
        | Termination::Idle
        | Termination::Syscall(_)
        | Termination::Memory
        | Termination::Output => EXCEEDED,
        _ => of_signal(Signal::KILL),
    }
}

/// Returns the exit status for an error, and its name in the report.
pub fn of_error(error: &Error) -> (u8, &'static str) {
    match error.kind() {
        ErrorKind::InvalidConfiguration => (USAGE, "InvalidConfiguration"),
        ErrorKind::Unsupported if error.step().is_none() => (USAGE, "Unsupported"),
        ErrorKind::Unsupported => (FAILED, "Unsupported"),
        ErrorKind::NotExecutable => (126, "NotExecutable"),
        ErrorKind::NotFound => (127, "NotFound"),
        ErrorKind::SetupFailed => (FAILED, "SetupFailed"),
        ErrorKind::SetupTimedOut => (FAILED, "SetupTimedOut"),
        ErrorKind::StatusLost => (FAILED, "StatusLost"),
        ErrorKind::LimitExceeded => (FAILED, "LimitExceeded"),
        ErrorKind::Unkillable => (FAILED, "Unkillable"),
        _ => (FAILED, "Io"),
    }
}
