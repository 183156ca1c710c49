//! What the program needs, as it was learned: JSON, or Rust code.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use stockade::{Command, Error, Learned, Outcome, Sandbox};

use crate::report::Destination;

pub struct Lesson {
    destination: Destination,
    is_code: bool,
    learned: Option<Learned>,
}

impl Lesson {
    /// A file that ends in `.rs` gets Rust code.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_code = path.extension() == Some(OsStr::new("rs"));
        Ok(Self { destination: Destination::new(path)?, is_code, learned: None })
    }

    pub fn run(&mut self, sandbox: &Sandbox, command: Command) -> Result<Outcome, Error> {
        let (learned, outcome) = sandbox.learn(command)?;
        self.learned = Some(learned);
        Ok(outcome)
    }

    /// Writes what was learned, if the program ran.
    pub fn write(self) -> io::Result<()> {
        match self.learned {
            Some(learned) if self.is_code => self.destination.write(&learned.to_string()),
            Some(learned) => self.destination.write(&format!("{}\n", serde_json::to_string_pretty(&learned)?)),
            None => Ok(()),
        }
    }
}
