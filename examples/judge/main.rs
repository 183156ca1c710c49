//! An online judge on real submissions: `cargo run --features serde --example judge -- --help`.
//!
//! Each submission is compiled in one sandbox and run on every test in another, with only the system calls that
//! programs of its language need. Two submissions are judged at a time, each on a CPU of its own. More can be judged at
//! a time: verdicts depend on CPU time, which does not grow with the load of the machine. The first line of a
//! submission states its expected verdict. Exits with 1 if a verdict differs, and with 2 if the judge itself fails.

mod corpus;
mod judged;
mod language;
#[path = "../../src/bin/stockade/new_file.rs"]
mod new_file;
mod policy;
mod pool;
mod report;
mod sandboxes;
mod verdict;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use corpus::{Submission, Test};
use judged::Judged;
use sandboxes::Judge;

/// Judges programs in C, C++, Python, and other languages whose tools are installed
#[derive(Parser)]
#[command(name = "judge")]
struct Options {
    /// Directory of the submissions and the tests
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/judge"))]
    problem: PathBuf,

    /// Number of submissions to judge at a time; above the number of CPUs, CPUs are shared [default: 2, or the number
    /// of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,

    /// Number of times to run each submission after compiling it once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    /// Write each verdict to a file as a line of JSON, as soon as it is known
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A failure of the judge itself.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The submissions, and the result of each run of each submission.
struct Results {
    submissions: Vec<Submission>,
    /// The first run of every submission, then the second, and so on.
    judged: Vec<Judged>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match judge(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "judge: {error}");
            ExitCode::from(2)
        }
    }
}

/// Judges all submissions, and returns how many verdicts differ from the expected ones.
fn judge(options: &Options) -> Result<usize, Failure> {
    let tests = corpus::tests(&options.problem)?;
    let submissions = present(corpus::submissions(&options.problem)?)?;
    let results = run(submissions, &tests, options)?;
    Ok(report::table(&mut io::stdout().lock(), &results)?)
}

/// Returns the submissions whose tools are installed, and prints which languages are skipped.
fn present(submissions: Vec<Submission>) -> io::Result<Vec<Submission>> {
    let mut missing: Vec<&str> = vec![];
    let (present, absent): (Vec<_>, Vec<_>) = submissions.into_iter().partition(|one| one.language.is_present());
    for Submission { language, .. } in &absent {
        if !missing.contains(&language.name) {
            missing.push(language.name);
            writeln!(
                io::stdout(),
                "skipping {}: {} cannot be run on this host",
                language.name,
                language.probe.join(" ")
            )?;
        }
    }
    Ok(present)
}

/// Compiles every submission once, and runs each as often as requested.
fn run(submissions: Vec<Submission>, tests: &[Test], options: &Options) -> Result<Results, Failure> {
    let cpus = pool::cpus(options.jobs)?;
    let problem = options.problem.canonicalize()?;
    let judge = Judge::new(&problem, tests)?;
    let json = options.json.as_deref().map(report::Json::create).transpose()?;
    let compiled = pool::each(&cpus, "compiling", &submissions, |one, cpu| judge.compile(one, cpu))?;
    let jobs: Vec<_> = (0..options.repeat).flat_map(|_| submissions.iter().zip(&compiled)).collect();
    let judged = pool::each(&cpus, "judging", &jobs, |(one, compiled), cpu| {
        let judged = match compiled {
            Some(error) => error.clone(),
            None => judge.run(one, cpu)?,
        };
        json.as_ref().map_or(Ok(()), |json| json.write(one, &judged))?;
        Ok(judged)
    })?;
    Ok(Results { submissions, judged })
}
