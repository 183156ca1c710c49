//! `stockade doctor`.

use std::io::{self, Write};

use stockade::probe::{Feature, Support};

use crate::exit_status::FAILED;
use crate::messages::fail;

/// Prints which features this host supports. Returns the exit status.
pub fn print(is_json: bool) -> u8 {
    let support = Support::probe();
    match if is_json { print_json(&support) } else { write!(io::stdout(), "{support}") } {
        Ok(()) => u8::from(!support.has(Feature::Sandbox)),
        Err(error) => fail(FAILED, format_args!("failed to print the report: {error}")),
    }
}

fn print_json(support: &Support) -> io::Result<()> {
    serde_json::to_writer_pretty(io::stdout(), support)?;
    writeln!(io::stdout())
}
