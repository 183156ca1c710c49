//! What is written to standard error: one line for each message.

use std::fmt::Display;
use std::io::{self, Write};

use stockade::{Outcome, Termination};

use crate::option_words::in_words_of_options;

/// Writes a message.
pub fn say(message: impl Display) {
    let _ = writeln!(io::stderr(), "stockade: {message}");
}

/// Writes the reason of a failure, and returns the exit status for it.
pub fn fail(status: u8, reason: impl Display) -> u8 {
    say(reason);
    status
}

/// Formats an error about the options in one line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let wrong = paragraphs.next().unwrap_or_default().replacen("error: ", "", 1);
    let lower = |paragraph: String| paragraph.replacen("Usage: ", "usage: ", 1).replacen("tip: ", "", 1);
    let rest = paragraphs.filter(|paragraph| ["tip: ", "Usage: "].iter().any(|begin| paragraph.starts_with(begin)));
    [wrong].into_iter().chain(rest.map(lower)).collect::<Vec<_>>().join("; ")
}

/// Writes which layers are unenforced, and why the sandbox has killed the program if it has.
pub fn say_outcome(outcome: &Outcome) {
    for layer in &outcome.enforcement.unenforced {
        let reason = in_words_of_options(&layer.reason.to_string());
        say(format_args!("without {} ({}): {reason}", layer.layer, layer.requested));
    }
    if !matches!(outcome.termination, Termination::Exited(_) | Termination::Signaled { .. } | Termination::Killed) {
        say(outcome.termination);
    }
}
