//! The command `stockade-reapi`: a worker of the Remote Execution API.

use std::process::ExitCode;

use clap::Parser;
use stockade_workers::reapi::options::Options;
use stockade_workers::reapi::worker;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("STOCKADE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match worker::run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("stockade-reapi: {}", failure.message);
            ExitCode::FAILURE
        }
    }
}
