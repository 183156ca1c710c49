//! `stockade plan`.

use std::io::{self, Write};

use crate::cli::PlanOptions;
use crate::description::Description;
use crate::failure::{Failure, Result};

/// Prints the plan. Returns the exit status.
pub fn print(options: &PlanOptions) -> u8 {
    let planned = || -> Result<()> {
        let description = Description::of_plan(options)?;
        let plan = description.sandbox()?.plan(description.command()?)?;
        write!(io::stdout(), "{plan}").map_err(|error| Failure::io("print the plan", &error))
    };
    planned().map_or_else(|failure| failure.say(), |()| 0)
}
