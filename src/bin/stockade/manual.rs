//! `stockade man`: manual pages, from the same text as the help.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit_status::{FAILED, USAGE};
use crate::messages::fail;

/// Prints the page of the command, or of a subcommand. Returns the exit status.
pub fn print(subcommand: Option<&str>) -> u8 {
    let mut command = Cli::command();
    command.build();
    let page = match subcommand {
        None => Some(command.clone()),
        Some(name) => command.find_subcommand(name).cloned(),
    };
    let Some(page) = page else {
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        return fail(USAGE, format_args!("there is no subcommand {subcommand:?}: use one of {}", names.join(", ")));
    };
    let written = render(page).and_then(|page| io::stdout().write_all(&page));
    written.map_or_else(|error| fail(FAILED, format_args!("failed to print the page: {error}")), |()| 0)
}

fn render(command: Command) -> io::Result<Vec<u8>> {
    let mut page = vec![];
    Man::new(command).render(&mut page)?;
    Ok(page)
}
