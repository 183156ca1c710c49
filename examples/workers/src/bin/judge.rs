//! A worker for judging jobs: see README.md.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use stockade_workers::judge::cli::{Options, run};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let filter = filter.add_directive("lapin=off".parse().expect("it is valid"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format!("failed to start threads: {error}")),
    };
    let done = runtime.block_on(run(options));
    // Jobs that run when a second signal comes are not waited for: their sandboxes end with this process.
    runtime.shutdown_background();
    done.map_or_else(fail, |()| ExitCode::SUCCESS)
}

fn fail(failure: impl Display) -> ExitCode {
    eprintln!("stockade-judge: {failure}");
    ExitCode::FAILURE
}
