//! Why there is no outcome: the exit status, and what is wrong in the words of the command line.

use std::io;
use std::path::Path;

use serde_json::{Value, json};
use stockade::Error;

use crate::exit_status::{self, FAILED, USAGE};
use crate::messages::fail;
use crate::option_words::in_words_of_options;

/// The result of a step of this command.
pub type Result<T> = std::result::Result<T, CommandFailure>;

/// Why the command ends without an outcome.
#[derive(Debug)]
pub struct CommandFailure {
    status: u8,
    kind: &'static str,
    reason: String,
    hint: Option<String>,
}

impl CommandFailure {
    /// Options that cannot be used.
    pub fn usage(reason: impl Into<String>) -> Self {
        Self { status: USAGE, kind: "InvalidConfiguration", reason: reason.into(), hint: None }
    }

    /// An error in what the options or the files that they name say.
    pub fn invalid(error: Error) -> Self {
        Self { status: USAGE, ..error.into() }
    }

    /// An operation of this command that failed.
    pub fn io(what: &str, error: &io::Error) -> Self {
        Self { status: FAILED, kind: "Io", reason: format!("failed to {what}: {error}"), hint: None }
    }

    /// An operation on a file that failed.
    pub fn on_file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::io(&format!("{what} {path:?}"), error)
    }

    /// Writes it, and returns the exit status.
    pub fn say(&self) -> u8 {
        fail(self.status, &self.reason)
    }

    pub fn status(&self) -> u8 {
        self.status
    }

    /// Returns it as a JSON object.
    pub fn to_json(&self) -> Value {
        json!({ "error": { "kind": self.kind, "message": self.reason, "hint": self.hint } })
    }
}

impl From<Error> for CommandFailure {
    fn from(error: Error) -> Self {
        let (status, kind) = exit_status::of_error(&error);
        let (reason, hint) = (in_words_of_options(&error.to_string()), error.hint().map(in_words_of_options));
        Self { status, kind, reason, hint }
    }
}
