//! Runs a program in a sandbox that is configured by options: `cargo run --features serde --example run -- --help`.

mod confinement;
mod learn;
mod new_file;
mod options;
mod report;
mod resources;
mod terminal;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use learn::Lesson;
use options::{Options, one_line};
use report::{Destination, exit_status};
use stockade::{Command, Error, Outcome, Output, Sandbox, Stdio, Termination};

/// Exit status for invalid options.
const USAGE: u8 = 2;
/// Exit status if the sandbox could not be set up, or this program itself failed.
const FAILED: u8 = 125;
/// Exit status if a test succeeds and leaves processes running.
const LEAKED: u8 = 124;

fn main() -> ExitCode {
    let status = match Options::try_parse() {
        Ok(options) if options.explain => explain(&options),
        Ok(options) => run(&options),
        Err(error) if error.use_stderr() => fail(USAGE, one_line(&error)),
        Err(help) => help.print().map_or_else(|error| fail(FAILED, error), |()| 0),
    };
    status.into()
}

/// Prints the plan.
fn explain(options: &Options) -> u8 {
    let (sandbox, mut command) = match described(options) {
        Ok((sandbox, command, _)) => (sandbox, command),
        Err(error) => return failed(error),
    };
    if options.pty {
        terminal::give(&mut command);
    }
    match sandbox.plan(command) {
        Ok(plan) => write!(io::stdout(), "{plan}")
            .map_or_else(|error| fail(FAILED, format_args!("failed to print the plan: {error}")), |()| 0),
        Err(error) => failed(error),
    }
}

/// Returns the sandbox and the command that the options describe, and whether it is a test that cargo starts.
fn described(options: &Options) -> Result<(Sandbox, Command, bool), Error> {
    let test = options.test_binary()?;
    Ok((options.sandbox(test.as_ref()), options.command(test.as_ref()), test.is_some()))
}

/// Runs the command, and writes the reports.
fn run(options: &Options) -> u8 {
    let report = match options.report.as_deref().map(Destination::new).transpose() {
        Ok(report) => report,
        Err(error) => {
            return fail(FAILED, format_args!("failed to create the report {}: {error}", shown(&options.report)));
        }
    };
    let mut lesson = match options.learn.as_deref().map(Lesson::create).transpose() {
        Ok(lesson) => lesson,
        Err(error) => {
            return fail(
                FAILED,
                format_args!("failed to create the file for the learned policy {}: {error}", shown(&options.learn)),
            );
        }
    };
    let (sandbox, mut command, is_test) = match described(options) {
        Ok(described) => described,
        Err(error) => return failed(error),
    };
    if !options.pty {
        command.stdin(Stdio::inherit());
    }
    let result = match options.collects_output() {
        _ if options.pty => terminal::run(&sandbox, command),
        true => match sandbox.output(command).map(show) {
            Ok(Err(error)) => return fail(FAILED, format_args!("failed to write the program's output: {error}")),
            Ok(Ok(outcome)) => Ok(outcome),
            Err(error) => Err(error),
        },
        false => match &mut lesson {
            Some(lesson) => lesson.run(&sandbox, command),
            None => sandbox.status(command),
        },
    };
    if let Some(Err(error)) = lesson.map(Lesson::write) {
        return fail(FAILED, format_args!("failed to write the learned policy to {}: {error}", shown(&options.learn)));
    }
    if let Some(Err(error)) = report.map(|to| report::report(&result).and_then(|text| to.write(&text))) {
        return fail(FAILED, format_args!("failed to write the report to {}: {error}", shown(&options.report)));
    }
    match result {
        Ok(outcome) => {
            print_unenforced(&outcome);
            print_kill(&outcome);
            if is_test && outcome.success() && !outcome.leaked.is_empty() {
                return fail(LEAKED, left(&outcome));
            }
            exit_status(&outcome)
        }
        Err(error) => failed(error),
    }
}

/// Names the processes that a test has left running.
fn left(outcome: &Outcome) -> String {
    let named: Vec<String> =
        outcome.leaked.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect();
    format!("the test left processes running: {}", named.join(", "))
}

/// Prints why the program was killed, if the sandbox has killed it.
fn print_kill(outcome: &Outcome) {
    if !matches!(outcome.termination, Termination::Exited(_) | Termination::Signaled { .. }) {
        let _ = writeln!(io::stderr(), "run: {}", outcome.termination);
    }
}

/// Prints the layers that are unenforced.
fn print_unenforced(outcome: &Outcome) {
    for layer in &outcome.enforcement.unenforced {
        let _ = writeln!(io::stderr(), "run: without {} ({}): {}", layer.layer, layer.requested, layer.reason);
    }
}

/// Prints the collected output.
fn show(output: Output) -> io::Result<Outcome> {
    io::stdout().write_all(&output.stdout)?;
    io::stdout().flush()?;
    io::stderr().write_all(&output.stderr)?;
    Ok(output.outcome)
}

/// Formats the path of an option for an error.
fn shown(path: &Option<PathBuf>) -> String {
    path.as_deref().map(|path| format!("{path:?}")).unwrap_or_default()
}

fn failed(error: Error) -> u8 {
    fail(report::class(&error).0, error)
}

/// Prints the reason of a failure in one line.
fn fail(status: u8, reason: impl Display) -> u8 {
    let _ = writeln!(io::stderr(), "run: {reason}");
    status
}
