//! The crate on the command line, for trying things: `cargo run --example run -- --help`.

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
use stockade::{Error, Outcome, Output, Stdio, Termination};

/// The options are wrong.
const USAGE: u8 = 2;
/// The sandbox could not be made, or something else has failed that is not the program.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let status = match Options::try_parse() {
        Ok(options) if options.explain => explain(&options),
        Ok(options) => run(&options),
        Err(error) if error.use_stderr() => fail(USAGE, one_line(&error)),
        Err(help) => help.print().map_or_else(|error| fail(FAILED, error), |()| 0),
    };
    status.into()
}

/// Shows the plan.
fn explain(options: &Options) -> u8 {
    let mut command = options.command();
    if options.pty {
        terminal::give(&mut command);
    }
    match options.sandbox().plan(command) {
        Ok(plan) => write!(io::stdout(), "{plan}")
            .map_or_else(|error| fail(FAILED, format_args!("showing the plan: {error}")), |()| 0),
        Err(error) => failed(error),
    }
}

/// Runs the command, and reports.
fn run(options: &Options) -> u8 {
    let report = match options.report.as_deref().map(Destination::new).transpose() {
        Ok(report) => report,
        Err(error) => return fail(FAILED, format_args!("making the report {}: {error}", shown(&options.report))),
    };
    let mut lesson = match options.learn.as_deref().map(Lesson::create).transpose() {
        Ok(lesson) => lesson,
        Err(error) => {
            return fail(
                FAILED,
                format_args!("making the file for what is learned, {}: {error}", shown(&options.learn)),
            );
        }
    };
    let (sandbox, mut command) = (options.sandbox(), options.command());
    command.stdin(Stdio::inherit());
    let result = match options.collects_output() {
        _ if options.pty => terminal::run(&sandbox, command),
        true => match sandbox.output(command).map(show) {
            Ok(Err(error)) => return fail(FAILED, format_args!("writing the program's output: {error}")),
            Ok(Ok(outcome)) => Ok(outcome),
            Err(error) => Err(error),
        },
        false => match &mut lesson {
            Some(lesson) => lesson.run(&sandbox, command),
            None => sandbox.status(command),
        },
    };
    if let Some(Err(error)) = lesson.map(Lesson::write) {
        return fail(FAILED, format_args!("writing what was learned to {}: {error}", shown(&options.learn)));
    }
    if let Some(Err(error)) = report.map(|to| report::report(&result).and_then(|text| to.write(&text))) {
        return fail(FAILED, format_args!("writing the report to {}: {error}", shown(&options.report)));
    }
    match result {
        Ok(outcome) => {
            tell_lost(&outcome);
            tell_end(&outcome);
            exit_status(&outcome)
        }
        Err(error) => failed(error),
    }
}

/// Tells what ended the program, if that was not the program itself.
fn tell_end(outcome: &Outcome) {
    if !matches!(outcome.termination, Termination::Exited(_) | Termination::Signaled { .. }) {
        let _ = writeln!(io::stderr(), "run: the program was {}", outcome.termination);
    }
}

/// Tells what the sandbox did without.
fn tell_lost(outcome: &Outcome) {
    for lost in &outcome.enforced.lost {
        let _ = writeln!(io::stderr(), "run: without {} ({}): {}", lost.layer, lost.requested, lost.why);
    }
}

/// Shows what was kept of the output.
fn show(output: Output) -> io::Result<Outcome> {
    io::stdout().write_all(&output.stdout)?;
    io::stdout().flush()?;
    io::stderr().write_all(&output.stderr)?;
    Ok(output.outcome)
}

/// A path of an option, for an error that names it.
fn shown(path: &Option<PathBuf>) -> String {
    path.as_deref().map(|path| format!("{path:?}")).unwrap_or_default()
}

fn failed(error: Error) -> u8 {
    fail(report::class(&error).0, error)
}

/// One line that says why it ends.
fn fail(status: u8, why: impl Display) -> u8 {
    let _ = writeln!(io::stderr(), "run: {why}");
    status
}
