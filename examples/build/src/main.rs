//! Builds zstd with each compiler call in a sandbox of its own: `cargo run --release -- --help`.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::{Parser, Subcommand};
use hermetic_build::build::build;
use hermetic_build::cache::{Cache, Keys};
use hermetic_build::digest::FileDigests;
use hermetic_build::{Failure, hermetic, measure, project};

/// Builds zstd with each compiler call in a sandbox of its own
#[derive(Parser)]
struct Options {
    /// Directory `lib` of the sources of zstd [default: that of the crate zstd-sys, which cargo downloads]
    #[arg(long, value_name = "DIR", global = true)]
    sources: Option<PathBuf>,

    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Build the objects
    Build {
        /// Directory of the objects
        #[arg(long, value_name = "DIR", default_value = "target/zstd")]
        out: PathBuf,

        /// Directory of the cache
        #[arg(long, value_name = "DIR", default_value = "target/cache")]
        cache: PathBuf,

        /// Number of steps at a time [default: the number of CPUs]
        #[arg(long, value_name = "N")]
        jobs: Option<NonZero<usize>>,

        /// Leave a file out of the inputs of all steps, to see how a step fails
        #[arg(long, value_name = "PATH")]
        undeclare: Vec<PathBuf>,
    },

    /// Compare the CPU time with that of a plain build, and the objects
    Measure {
        /// Number of times that each step is run both ways
        #[arg(long, value_name = "N", default_value_t = 3)]
        rounds: usize,
    },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "hermetic-build: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    let sources = options.sources.map_or_else(project::sources, |directory| Ok(directory.canonicalize()?))?;
    match options.what {
        What::Build { out, cache, jobs, undeclare } => build_all(&sources, &out, &cache, jobs, &undeclare),
        What::Measure { rounds } => measure_all(&sources, rounds),
    }
}

fn build_all(
    sources: &Path,
    out: &Path,
    cache: &Path,
    jobs: Option<NonZero<usize>>,
    undeclare: &[PathBuf],
) -> Result<ExitCode, Failure> {
    let mut steps = project::steps(sources)?;
    for step in &mut steps {
        step.inputs.retain(|input| !undeclare.contains(input));
    }
    let (sandbox, tools) = (hermetic::base().fingerprint()?, project::tools()?);
    let keys = Keys { sandbox, tools, sources, files: FileDigests::default() };
    let jobs = jobs.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), NonZero::get);
    let start = Instant::now();
    let summary = build(&steps, &keys, &Cache::open(cache)?, out, jobs)?;
    let mut stderr = io::stderr().lock();
    for failure in &summary.failures {
        writeln!(stderr, "{failure}")?;
    }
    let (run, cached, seconds) = (summary.run, summary.cached, start.elapsed().as_secs_f64());
    writeln!(io::stdout(), "{run} steps run, {cached} from the cache, in {seconds:.2} s: {}", out.display())?;
    Ok(if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure_all(sources: &Path, rounds: usize) -> Result<ExitCode, Failure> {
    let steps = project::steps(sources)?;
    let out = tempfile::tempdir()?;
    let times = measure::compare(&steps, sources, out.path(), rounds)?;
    let (plain, sandboxed) = (times.plain.as_secs_f64(), times.sandboxed.as_secs_f64());
    let (steps_run, cost) = (steps.len() * rounds, times.cost() * 100.0);
    writeln!(
        io::stdout(),
        "{steps_run} steps: plain {plain:.2} s, sandboxed {sandboxed:.2} s of CPU time: {cost:+.2} %"
    )?;
    let different = measure::difference(&steps, &out.path().join("plain"), &out.path().join("sandboxed"))?;
    match different {
        None => writeln!(io::stdout(), "all objects are equal byte by byte")?,
        Some(object) => return Err(format!("{object} differs").into()),
    }
    Ok(ExitCode::SUCCESS)
}
