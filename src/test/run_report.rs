//! What the process that runs a test in its sandbox reports to the one that waits for it, as lines of text in a pipe.
//!
//! A report has fewer bytes than a pipe holds, since it is read when the process has exited.

use std::fmt::Write;

/// The number of the descriptor of the pipe, in the process that writes it.
pub(super) const DESCRIPTOR: u32 = 3;

/// The line before the closure is called.
pub(super) const BEGIN: &str = "begin\n";

/// How a closure returned.
#[derive(Debug, PartialEq)]
pub(super) enum TestVerdict {
    Passed,
    /// It returned an error, as text.
    Failed(String),
    /// It panicked, with this message.
    Panicked(String),
}

/// The report after a closure has returned.
#[derive(Debug, PartialEq)]
pub(super) struct RunReport {
    pub verdict: TestVerdict,
    /// The processes that it has left running, each as name and PID.
    pub leaked: Vec<String>,
}

const MAX_MESSAGE: usize = 16 << 10;
const MAX_LEAKED: usize = 64;

impl RunReport {
    /// Returns the lines, with the message last.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for process in self.leaked.iter().take(MAX_LEAKED) {
            // Writing to a string never fails.
            let _ = writeln!(text, "leaked {process}");
        }
        let (word, message) = match &self.verdict {
            TestVerdict::Passed => ("passed", ""),
            TestVerdict::Failed(message) => ("failed", message.as_str()),
            TestVerdict::Panicked(message) => ("panicked", message.as_str()),
        };
        let _ = write!(text, "{word}\n{}", beginning(message));
        text
    }

    /// Parses what follows [`BEGIN`]. `None` if the closure has not returned.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut leaked) = (text, vec![]);
        loop {
            let (line, after) = rest.split_once('\n')?;
            let verdict = match line {
                // Anything after it is of another process, such as one that was forked before the call.
                "passed" if after.is_empty() => TestVerdict::Passed,
                "failed" => TestVerdict::Failed(after.to_owned()),
                "panicked" => TestVerdict::Panicked(after.to_owned()),
                _ => {
                    leaked.push(line.strip_prefix("leaked ")?.to_owned());
                    rest = after;
                    continue;
                }
            };
            return Some(Self { verdict, leaked });
        }
    }
}

/// Returns as much of a message as a report has room for.
fn beginning(message: &str) -> &str {
    let end = (0..=message.len().min(MAX_MESSAGE)).rev().find(|&at| message.is_char_boundary(at));
    &message[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for verdict in [TestVerdict::Passed, TestVerdict::Failed("a\nb".into()), TestVerdict::Panicked(String::new())] {
            let report = RunReport { verdict, leaked: vec!["sleep (7)".into(), "passed".into()] };
            assert_eq!(RunReport::parse(&report.to_text()), Some(report));
        }
        assert_eq!(RunReport::parse(""), None);
        assert_eq!(RunReport::parse("leaked sleep (7)\n"), None);
        assert_eq!(RunReport::parse("passe"), None);
        assert_eq!(RunReport::parse("passed\nbegin\npanicked\n"), None);
    }

    #[test]
    fn a_report_fits_in_a_pipe() {
        let leaked = vec!["n".repeat(60); 5000];
        let report = RunReport { verdict: TestVerdict::Panicked("ä".repeat(40_000)), leaked };
        let text = report.to_text();
        assert!(text.len() < 32 << 10, "{}", text.len());
        assert!(matches!(RunReport::parse(&text), Some(RunReport { verdict: TestVerdict::Panicked(_), .. })));
    }
}
