//! What came of the command, for programs: one JSON object.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use stockade::{Error, Outcome, Termination};

use crate::new_file::NewFile;

/// Where something for programs goes.
pub enum Destination {
    Stdout,
    File(NewFile),
}

impl Destination {
    /// `-` is standard output. A file is tried before the program runs, so that one that can't be written is known then.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") { Ok(Self::Stdout) } else { NewFile::at(path).map(Self::File) }
    }

    pub fn write(self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(text.as_bytes()),
            Self::File(place) => {
                let mut file = place.begin()?;
                // Its own error would name the temporary file.
                file.as_file_mut().write_all(text.as_bytes())?;
                place.persist(file).map(drop)
            }
        }
    }
}

/// The report of what came of the command.
pub fn report(result: &Result<Outcome, Error>) -> io::Result<String> {
    let object = match result {
        Ok(outcome) => serde_json::to_value(outcome)?,
        Err(error) => failure(error),
    };
    Ok(format!("{object}\n"))
}

fn failure(error: &Error) -> Value {
    let (_, kind) = class(error);
    json!({ "error": { "kind": kind, "message": error.to_string(), "remedy": error.remedy() } })
}

/// The exit status that says how the program ended, as shells have it.
pub fn exit_status(outcome: &Outcome) -> u8 {
    match outcome.termination {
        Termination::Exited(code) => code as u8,
        Termination::Signaled { signal, .. } => 128 + signal.0 as u8,
        Termination::WallTime
        | Termination::CpuTime
        | Termination::Idle
        | Termination::Syscall(_)
        | Termination::Memory
        | Termination::Output => 124,
        _ => 128 + libc::SIGKILL as u8,
    }
}

/// What an error means to the caller: an exit status, and its name in the report.
pub fn class(error: &Error) -> (u8, &'static str) {
    match error {
        Error::Invalid { .. } => (2, "Invalid"),
        Error::NotExecutable { .. } => (126, "NotExecutable"),
        Error::NotFound { .. } => (127, "NotFound"),
        Error::SetUp { .. } => (125, "SetUp"),
        Error::Died { .. } => (125, "Died"),
        Error::StatusTaken => (125, "StatusTaken"),
        Error::Systemd { .. } => (125, "Systemd"),
        _ => (125, "Host"),
    }
}
