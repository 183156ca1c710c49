//! `stockade run`.

use std::io::{self, Write};

use stockade::{Outcome, Output};

use crate::cli::{ResultOptions, RunOptions};
use crate::description::Description;
use crate::exit_status::{self, EXCEEDED};
use crate::failure::{CommandFailure, Result};
use crate::learning::Lesson;
use crate::messages::{fail, say_outcome};
use crate::result_report::{self, Destination};
use crate::signal_forwarding::Forwarding;

/// Runs the command, and writes what the options request. Returns the exit status.
pub fn run(options: &RunOptions) -> u8 {
    let forwarding = Forwarding::default();
    let mut is_test = false;
    let result = Records::open(&options.results).and_then(|mut records| {
        let description = Description::of_run(options);
        is_test = description.as_ref().is_ok_and(Description::is_test);
        let result = description.and_then(|description| perform(&description, &mut records, &forwarding));
        records.write(&result).and(result)
    });
    conclude(result, options.results.json, &forwarding, is_test)
}

/// The files about a run, which are opened before the program starts.
struct Records {
    report: Option<Destination>,
    lesson: Option<Lesson>,
}

impl Records {
    fn open(results: &ResultOptions) -> Result<Self> {
        let report = results.report.as_deref().map(|path| Destination::open("report", path)).transpose()?;
        let lesson = results.learn.as_deref().map(Lesson::open).transpose()?;
        Ok(Self { report, lesson })
    }

    fn write(self, result: &Result<Outcome>) -> Result<()> {
        self.lesson.map_or(Ok(()), Lesson::write)?;
        match self.report {
            Some(destination) => destination.write(&result_report::line(result)?),
            None => Ok(()),
        }
    }
}

/// Runs the program.
fn perform(description: &Description, records: &mut Records, forwarding: &Forwarding) -> Result<Outcome> {
    if records.lesson.is_some() {
        Lesson::check(description)?;
    }
    let is_collected = records.lesson.is_none() && description.collects_output();
    let (sandbox, command) = (description.sandbox()?, description.command(is_collected)?);
    forwarding.start(description)?;
    if let Some(lesson) = &mut records.lesson {
        return lesson.run(&sandbox, command, forwarding);
    }
    let mut child = sandbox.spawn(command)?;
    forwarding.reach(child.killer());
    if description.has_terminal() {
        Ok(child.interact()?)
    } else if is_collected {
        print(child.wait_with_output()?).map_err(|error| CommandFailure::io("write the program's output", &error))
    } else {
        Ok(child.wait()?)
    }
}

/// Prints the collected output.
fn print(output: Output) -> io::Result<Outcome> {
    io::stdout().write_all(&output.stdout)?;
    io::stdout().flush()?;
    io::stderr().write_all(&output.stderr)?;
    Ok(output.outcome)
}

/// Writes the messages about a result, or the result itself as JSON, and returns the exit status.
pub fn conclude(result: Result<Outcome>, is_json: bool, forwarding: &Forwarding, is_test: bool) -> u8 {
    if is_json {
        let written = result_report::line(&result).and_then(|line| {
            let written = io::stderr().write_all(line.as_bytes());
            written.map_err(|error| CommandFailure::io("write the result to standard error", &error))
        });
        if let Err(failure) = written {
            return failure.say();
        }
    }
    match result {
        Err(failure) if is_json => failure.status(),
        Err(failure) => failure.say(),
        Ok(outcome) => {
            if !is_json {
                say_outcome(&outcome);
            }
            match forwarding.killed_for() {
                Some(killed) => killed.conclude(&outcome, is_json),
                None if is_test && outcome.success() && !outcome.leaked.is_empty() => fail(EXCEEDED, left(&outcome)),
                None => exit_status::of_outcome(&outcome),
            }
        }
    }
}

/// Names the processes that a test has left running.
fn left(outcome: &Outcome) -> String {
    let named: Vec<String> =
        outcome.leaked.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect();
    format!("the test left processes running: {}", named.join(", "))
}
