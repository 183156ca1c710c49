//! `stockade plan`.

use std::io::{self, Write};

use crate::cli::PlanOptions;
use crate::description::Description;
use crate::failure::{CommandFailure, Result};

/// Prints the plan. Returns the exit status.
pub fn print(options: &PlanOptions) -> u8 {
    let planned = || -> Result<()> {
        let description = Description::of_plan(options)?;
        let plan = description.sandbox()?.plan(description.command(description.collects_output())?)?;
        write!(io::stdout(), "{plan}").map_err(|error| CommandFailure::io("print the plan", &error))
    };
    planned().map_or_else(|failure| failure.say(), |()| 0)
}
