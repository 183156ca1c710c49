//! Prints which features of a sandbox this host supports, with a hint for each missing one: `cargo run --features serde
//! --example doctor`. Exits with 0 if the default sandbox is supported, else with 1.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use stockade::probe::{Feature, Support};

#[derive(Parser)]
#[command(about = "Prints which features of a sandbox this host supports, with a hint for each missing one")]
struct Options {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let support = Support::probe();
    let written = if options.json { json(&support) } else { write!(io::stdout(), "{support}") };
    match written {
        Ok(()) if support.has(Feature::Sandbox) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("doctor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn json(support: &Support) -> io::Result<()> {
    serde_json::to_writer_pretty(io::stdout(), support)?;
    writeln!(io::stdout())
}
