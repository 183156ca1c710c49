//! `--report`: the result of the run as a JSON object.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use stockade::{Error, Outcome, Termination};

use crate::new_file::NewFile;
use stockade::ErrorKind;

/// The destination of a report.
pub enum Destination {
    Stdout,
    File(NewFile),
}

impl Destination {
    /// Opens the destination; `-` is standard output. A file that cannot be written is an error before the program
    /// runs.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") { Ok(Self::Stdout) } else { NewFile::at(path).map(Self::File) }
    }

    pub fn write(self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(text.as_bytes()),
            Self::File(place) => {
                let mut file = place.begin()?;
                // Written to the file itself: an error of `NamedTempFile` would name the temporary file.
                file.as_file_mut().write_all(text.as_bytes())?;
                place.persist(file).map(drop)
            }
        }
    }
}

/// Formats the result of the run.
pub fn report(result: &Result<Outcome, Error>) -> io::Result<String> {
    let object = match result {
        Ok(outcome) => serde_json::to_value(outcome)?,
        Err(error) => failure(error),
    };
    Ok(format!("{object}\n"))
}

fn failure(error: &Error) -> Value {
    let (_, kind) = class(error);
    json!({ "error": { "kind": kind, "message": error.to_string(), "hint": error.hint() } })
}

/// Returns the exit status for a termination, by the convention of shells.
pub fn exit_status(outcome: &Outcome) -> u8 {
    match outcome.termination {
        Termination::Exited(code) => code as u8,
        Termination::Signaled { signal, .. } => 128 + signal.number() as u8,
        Termination::WallTime
        | Termination::CpuTime
        | Termination::Idle
        | Termination::Syscall(_)
        | Termination::Memory
        | Termination::Output => 124,
        _ => 128 + libc::SIGKILL as u8,
    }
}

/// Returns the exit status for an error, and its name in the report.
pub fn class(error: &Error) -> (u8, &'static str) {
    match error.kind() {
        ErrorKind::InvalidConfiguration => (2, "InvalidConfiguration"),
        ErrorKind::Unsupported if error.step().is_none() => (2, "Unsupported"),
        ErrorKind::Unsupported => (125, "Unsupported"),
        ErrorKind::NotExecutable => (126, "NotExecutable"),
        ErrorKind::NotFound => (127, "NotFound"),
        ErrorKind::SetupFailed => (125, "SetupFailed"),
        ErrorKind::SetupTimedOut => (125, "SetupTimedOut"),
        ErrorKind::StatusLost => (125, "StatusLost"),
        ErrorKind::LimitExceeded => (125, "LimitExceeded"),
        ErrorKind::Unkillable => (125, "Unkillable"),
        _ => (125, "Io"),
    }
}
