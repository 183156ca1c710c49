//! A run of the test binary for one test in its sandbox, and what its report and its outcome mean for the test.

use std::fs::File;
use std::io::Read;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::pipe2;

use super::inner_run;
use super::run_report::{BEGIN, DESCRIPTOR, RunReport, TestVerdict};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, Output, Termination};
use crate::sandbox::Sandbox;

/// How a test returned that was run in its sandbox.
pub(super) enum Ran {
    Passed,
    Panicked(String),
    Failed(String),
}

/// A run of the test binary for one test.
pub(super) struct TestRun<'a> {
    sandbox: &'a Sandbox,
    output: Output,
    report: String,
    inode: u64,
}

impl<'a> TestRun<'a> {
    /// Runs the test of a name, if there is one, for the closure of a call. `command` executes the test binary.
    pub fn new(sandbox: &'a Sandbox, mut command: Command, name: &str, call: usize) -> Result<Self> {
        let failed = "create the pipe for the report of a test";
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(Error::io(failed))?;
        let inode = fstat(&read).map_err(Error::io(failed))?.st_ino;
        command.args([name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        command.env(inner_run::VARIABLE, inner_run::variable(inode, call)).fd(DESCRIPTOR, write);
        let output = sandbox.output(command)?;
        // Every process that could write has exited; if one has not, because it has no PID namespace, this ends
        // nevertheless.
        let mut report = vec![];
        let _ = File::from(read).read_to_end(&mut report);
        Ok(Self { sandbox, output, report: String::from_utf8_lossy(&report).into_owned(), inode })
    }

    /// Prints what the closure wrote, and returns how it returned. `None` if it was not called, and the harness exited.
    pub fn result(&self) -> Option<Ran> {
        let outcome = &self.output.outcome;
        let rest = match self.report.strip_prefix(BEGIN) {
            None if matches!(outcome.termination, Termination::Exited(_)) => return None,
            rest => rest.unwrap_or_default(),
        };
        self.print();
        let mut report = RunReport::parse(rest);
        let leaked = match &mut report {
            Some(report) => std::mem::take(&mut report.leaked),
            None => outcome.leaked.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect(),
        };
        let notes = [self.exceeded(), self.denied(), self.left(&leaked)].into_iter().flatten().collect::<Vec<_>>();
        let notes = notes.join("; ");
        Some(match report.map(|report| report.verdict) {
            _ if outcome.termination == Termination::Memory => Ran::Failed(notes),
            None => Ran::Failed(if notes.is_empty() { self.unfinished() } else { notes }),
            Some(TestVerdict::Panicked(message)) => {
                // A harness shows the message of a panic as the inner process has printed it.
                if !notes.is_empty() {
                    eprintln!("{notes}");
                }
                Ran::Panicked(with_notes(message, &notes))
            }
            Some(TestVerdict::Failed(error)) => Ran::Failed(with_notes(format!("Error: {error}"), &notes)),
            Some(TestVerdict::Passed) if !leaked.is_empty() => Ran::Failed(notes),
            Some(TestVerdict::Passed) if !outcome.success() => {
                Ran::Failed(with_notes(format!("after the test had returned: {}", outcome.termination), &notes))
            }
            Some(TestVerdict::Passed) => Ran::Passed,
        })
    }

    /// Prints the output of the closure by the macros of `std`, which a harness captures.
    fn print(&self) {
        let separator = inner_run::separator(self.inode);
        let stdout = String::from_utf8_lossy(&self.output.stdout);
        let stderr = String::from_utf8_lossy(&self.output.stderr);
        print!("{}", after(&stdout, &separator));
        eprint!("{}", after(&stderr, &separator));
        for unenforced in &self.output.outcome.enforcement.unenforced {
            eprintln!("the test ran without {}: {}", unenforced.requested, unenforced.reason);
        }
    }

    /// Returns which limit the test exceeded.
    fn exceeded(&self) -> Option<String> {
        let config = &self.sandbox.config;
        let termination = self.output.outcome.termination;
        let limit = match termination {
            Termination::Exited(_) | Termination::Signaled { .. } => return None,
            Termination::Memory => {
                config.cgroup.as_ref().and_then(|cgroup| cgroup.memory_and_pids()[0]).map(|max| format!("{max} bytes"))
            }
            Termination::WallTime => config.limits.wall_clock().map(|max| format!("{max:?}")),
            _ => None,
        };
        Some(limit.map_or_else(|| termination.to_string(), |limit| format!("{termination}: {limit}")))
    }

    /// Returns that the limit on processes denied some.
    fn denied(&self) -> Option<String> {
        let denied = self.output.outcome.usage.pids_denied.map_or(0, |denied| denied.value);
        let max = self.sandbox.config.cgroup.as_ref().and_then(|cgroup| cgroup.memory_and_pids()[1])?;
        (denied > 0).then(|| format!("limit on processes exceeded: {max} (pids_max), {denied} denied"))
    }

    /// Returns that the test left processes running.
    fn left(&self, leaked: &[String]) -> Option<String> {
        (!leaked.is_empty()).then(|| {
            format!("the test left processes running: {}: kill them and wait for them in the test", leaked.join(", "))
        })
    }

    /// Returns how the process of a closure that did not return terminated.
    fn unfinished(&self) -> String {
        let Outcome { termination, .. } = self.output.outcome;
        format!("the test did not return: its process {termination}")
    }

    /// Returns what a run in which the closure was not called wrote.
    pub fn unstarted(&self) -> String {
        let Output { outcome, stdout, stderr, .. } = &self.output;
        let [stdout, stderr] = [stdout, stderr].map(|stream| String::from_utf8_lossy(stream).trim().to_owned());
        format!("\nit {}\n{stdout}\n{stderr}", outcome.termination)
    }
}

/// Returns what follows a line, or all if it is absent.
fn after<'a>(text: &'a str, line: &str) -> &'a str {
    text.split_once(line).map_or(text, |(_, after)| after)
}

fn with_notes(message: String, notes: &str) -> String {
    if notes.is_empty() { message } else { format!("{message}\n{notes}") }
}
