//! `stockade completions`.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::exit_status::FAILED;
use crate::messages::fail;

/// Prints the script for a shell. Returns the exit status.
pub fn print(shell: Shell) -> u8 {
    // `generate` panics where it cannot write.
    let mut script = vec![];
    generate(shell, &mut Cli::command(), "stockade", &mut script);
    let written = io::stdout().write_all(&script);
    written.map_or_else(|error| fail(FAILED, format_args!("failed to print the script: {error}")), |()| 0)
}
