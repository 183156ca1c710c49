//! What this host can do for sandboxes, and what to do about what it can't: `cargo run --example doctor`. It exits with 0 if a
//! default sandbox can be had, else with 1.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use stockade::{Feature, Support};

#[derive(Parser)]
#[command(about = "Tells what this host can do for sandboxes, and what to do about what it can't")]
struct Options {
    /// Write the findings as JSON
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
