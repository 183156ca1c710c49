//! The command `stockade` (feature `cli`): runs programs in sandboxes that options and configuration files describe.
//!
//! It uses the public interface of the library alone. What options mean is in `config` of the library; here they are only
//! read.

mod cli;
mod command_options;
mod config_options;
mod description;
mod doctor;
mod exit_status;
mod failure;
mod key_list;
mod learning;
mod limit_options;
mod manual;
mod messages;
mod mount_options;
mod new_file;
mod option_words;
mod planning;
mod privilege_options;
mod program_run;
mod result_report;
mod saved_modes;
mod shell_completions;
mod signal_forwarding;
mod value_parsers;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Subprogram};
use exit_status::{FAILED, USAGE};
use messages::{fail, one_line};

fn main() -> ExitCode {
    let status = match Cli::try_parse() {
        Ok(cli) => perform(cli.action),
        Err(error) if error.use_stderr() => fail(USAGE, one_line(&error)),
        Err(help) => help.print().map_or_else(|error| fail(FAILED, error), |()| 0),
    };
    status.into()
}

fn perform(subprogram: Subprogram) -> u8 {
    match subprogram {
        Subprogram::Run(options) => program_run::run(&options),
        Subprogram::Plan(options) => planning::print(&options),
        Subprogram::Learn(options) => learning::run(&options),
        Subprogram::Doctor { json } => doctor::print(json),
        Subprogram::Keys => key_list::print(),
        Subprogram::Completions { shell } => shell_completions::print(shell),
        Subprogram::Man { page } => manual::print(page.as_deref()),
    }
}
