//! `stockade learn`, and `--learn`: run the program, and write what it uses as JSON or Rust code.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use stockade::learn::Learned;
use stockade::{Command, Outcome, Sandbox, Stdio};

use crate::cli::LearnOptions;
use crate::description::Description;
use crate::failure::{CommandFailure, Result};
use crate::program_run::conclude;
use crate::result_report::Destination;
use crate::signal_forwarding::Forwarding;

/// Runs the program of `stockade learn`, and writes the policy. Returns the exit status.
pub fn run(options: &LearnOptions) -> u8 {
    let forwarding = Forwarding::default();
    let learn = || -> Result<(Result<Outcome>, bool)> {
        let mut lesson = Lesson::open(&options.output)?;
        let description = Description::of(&options.sandbox, None)?;
        Lesson::check(&description)?;
        let (sandbox, mut command) = (description.sandbox()?, description.command(false)?);
        if lesson.destination.is_stdout() {
            let stderr = io::stderr().as_fd().try_clone_to_owned();
            command.stdout(Stdio::from(stderr.map_err(|error| CommandFailure::io("copy standard error", &error))?));
        }
        forwarding.start(&description)?;
        let result = lesson.run(&sandbox, command, &forwarding);
        lesson.write()?;
        Ok((result, description.is_test()))
    };
    match learn() {
        Ok((result, is_test)) => conclude(result, options.json, &forwarding, is_test),
        Err(failure) => conclude(Err(failure), options.json, &forwarding, false),
    }
}

/// A run that is observed, and the file for its result.
pub struct Lesson {
    destination: Destination,
    is_code: bool,
    learned: Option<Learned>,
}

impl Lesson {
    /// Opens the destination. A name that ends in `.rs` selects Rust code.
    pub fn open(path: &Path) -> Result<Self> {
        let is_code = path.extension() == Some(OsStr::new("rs"));
        Ok(Self { destination: Destination::open("learned policy", path)?, is_code, learned: None })
    }

    /// Refuses what cannot be observed.
    pub fn check(description: &Description) -> Result<()> {
        if description.has_terminal() {
            return Err(CommandFailure::usage("a program with a terminal of its own cannot be learned: remove --pty"));
        }
        if description.limits_output() {
            return Err(CommandFailure::usage(
                "the output of a program cannot be limited while it is learned: remove the keys stdout_max and stderr_max",
            ));
        }
        Ok(())
    }

    /// Runs the command, and keeps what it used.
    pub fn run(&mut self, sandbox: &Sandbox, command: Command, forwarding: &Forwarding) -> Result<Outcome> {
        let (learned, outcome) = sandbox.learn_with_killer(command, |killer| forwarding.reach(killer))?;
        self.learned = Some(learned);
        Ok(outcome)
    }

    /// Writes what the program used, if it was started.
    pub fn write(self) -> Result<()> {
        let Some(learned) = self.learned else { return Ok(()) };
        let text = if self.is_code {
            learned.to_string()
        } else {
            let json = serde_json::to_string_pretty(&learned);
            format!("{}\n", json.map_err(|error| CommandFailure::io("write the learned policy", &error.into()))?)
        };
        self.destination.write(&text)
    }
}
