//! `--learn`: runs the program, and writes what it uses as JSON or Rust code.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use stockade::learn::Learned;
use stockade::{Command, Error, Outcome, Sandbox};

use crate::report::Destination;

/// A run that is observed, and the file for its result.
pub struct Lesson {
    destination: Destination,
    is_code: bool,
    learned: Option<Learned>,
}

impl Lesson {
    /// Opens the destination. A name that ends in `.rs` selects Rust code.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_code = path.extension() == Some(OsStr::new("rs"));
        Ok(Self { destination: Destination::new(path)?, is_code, learned: None })
    }

    /// Runs the command, and keeps what it used.
    pub fn run(&mut self, sandbox: &Sandbox, command: Command) -> Result<Outcome, Error> {
        let (learned, outcome) = sandbox.learn(command)?;
        self.learned = Some(learned);
        Ok(outcome)
    }

    /// Writes what the program used, if it was started.
    pub fn write(self) -> io::Result<()> {
        match self.learned {
            Some(learned) if self.is_code => self.destination.write(&learned.to_string()),
            Some(learned) => self.destination.write(&format!("{}\n", serde_json::to_string_pretty(&learned)?)),
            None => Ok(()),
        }
    }
}
