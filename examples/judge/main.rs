//! An online judge on real submissions: `cargo run --example judge -- --help`.
//!
//! Each submission is compiled in one sandbox and run on every test in another, two at a time, each on a CPU of its own, and
//! with the system calls alone that programs of its language need.
//! More can be run at a time: what decides is the time on the CPU, which does not grow with who else wants it.
//! The first line of a submission says which verdict it must get. Exit status 1 if one gets another, 2 if the judge itself
//! fails.

mod corpus;
mod language;
#[path = "../run/new_file.rs"]
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
use sandboxes::Judge;
use verdict::Judged;

/// Judges programs in C, C++, Python, and whatever other language has its tools here.
#[derive(Parser)]
#[command(name = "judge")]
struct Options {
    /// The directory with the submissions and the tests
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/judge"))]
    problem: PathBuf,

    /// How much is done at a time; beyond the number of CPUs they are shared [default: 2, or as many as there are CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,

    /// How often everything is run, after it was compiled once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    /// Writes every verdict to a file as soon as it is there, as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why the judge itself fails.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was judged, how often it must be judged, and all results: each run of each submission.
struct Results {
    submissions: Vec<Submission>,
    /// Every submission for the first time, then for the second, and so on.
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

/// Judges everything, and tells how many verdicts are not the expected ones.
fn judge(options: &Options) -> Result<usize, Failure> {
    let tests = corpus::tests(&options.problem)?;
    let submissions = present(corpus::submissions(&options.problem)?)?;
    let results = run(submissions, &tests, options)?;
    Ok(report::table(&mut io::stdout().lock(), &results)?)
}

/// The submissions whose languages have their tools here. Tells which ones are left out.
fn present(submissions: Vec<Submission>) -> io::Result<Vec<Submission>> {
    let mut missing: Vec<&str> = vec![];
    let (present, absent): (Vec<_>, Vec<_>) = submissions.into_iter().partition(|one| one.language.is_present());
    for Submission { language, .. } in &absent {
        if !missing.contains(&language.name) {
            missing.push(language.name);
            writeln!(io::stdout(), "{} is left out: {} does not run here", language.name, language.probe.join(" "))?;
        }
    }
    Ok(present)
}

/// Compiles every submission, and runs each so many times.
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
