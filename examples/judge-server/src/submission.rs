//! The request: a program, its input, and the expected output. How each language is compiled and run.

use serde::Deserialize;
use stockade::Command;

use crate::sandboxes::WORK;

/// A program to judge, as a client sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    pub language: Language,
    /// Source code.
    pub source: String,
    /// What the program reads from standard input. Default: nothing.
    #[serde(default)]
    pub input: String,
    /// Expected standard output. White space may differ.
    pub expected: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Sh,
    Python3,
    C,
}

/// The executable that a compiler writes.
pub const EXECUTABLE: &str = "/work/program";

impl Language {
    /// Returns the path of the source, inside.
    pub fn source(self) -> &'static str {
        match self {
            Self::Sh => "/work/program.sh",
            Self::Python3 => "/work/program.py",
            Self::C => "/work/program.c",
        }
    }

    /// Returns the command that compiles the source to [`EXECUTABLE`]. `None` if the source is run as it is.
    pub fn compiler(self) -> Option<Command> {
        (self == Self::C).then(|| command(&["gcc", "-O2", "-o", EXECUTABLE, self.source(), "-lm"]))
    }

    /// Returns the command that runs the program.
    pub fn program(self) -> Command {
        match self {
            Self::Sh => command(&["sh", self.source()]),
            Self::Python3 => command(&["python3", self.source()]),
            Self::C => command(&[EXECUTABLE]),
        }
    }
}

/// Returns a command that is run in the directory of the submission.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(WORK);
    command
}
