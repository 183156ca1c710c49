//! Options about the program: its arguments, directory, variables, names and terminals.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use stockade::Namespaces;
use stockade::config::Config;
use stockade::namespaces::TimeOffsets;

use crate::value_parsers::{assignment, paths};

#[derive(Args)]
pub struct CommandOptions {
    /// Set the working directory inside the sandbox [default: /, or the caller's for a test that cargo starts]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Set an environment variable; by default only PATH is set, and what cargo sets for a test that it starts
    #[arg(long, value_name = "K=V", value_parser = paths().try_map(assignment))]
    env: Vec<(OsString, OsString)>,

    /// Run the program on a new pseudo-terminal, connected to this terminal
    #[arg(long)]
    pty: bool,

    /// Allow the program to open up to N pseudo-terminals, as script(1) and tmux(1) do
    #[arg(long, value_name = "N")]
    terminals: Option<u32>,

    /// Set the host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<OsString>,

    /// Share these namespaces with the caller instead of creating them
    #[arg(
        long,
        value_name = "NS,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(SHARED.map(|(name, _)| name)).map(shared)
    )]
    share: Vec<Namespaces>,

    /// Set the offset of the monotonic and boot-time clocks, in seconds
    #[arg(long, value_name = "SECS", allow_negative_numbers = true)]
    time_offset: Option<i64>,

    /// Program to run, and its arguments; without it, the command of the configuration file
    #[arg(trailing_var_arg = true, value_name = "PROGRAM [ARG]")]
    program: Vec<OsString>,
}

const SHARED: [(&str, Namespaces); 7] = [
    ("user", Namespaces::USER),
    ("mount", Namespaces::MOUNT),
    ("pid", Namespaces::PID),
    ("net", Namespaces::NET),
    ("ipc", Namespaces::IPC),
    ("uts", Namespaces::UTS),
    ("cgroup", Namespaces::CGROUP),
];

fn shared(name: String) -> Namespaces {
    SHARED.iter().filter(|(known, _)| *known == name).map(|(_, namespace)| *namespace).collect()
}

impl CommandOptions {
    pub fn add_to(&self, config: &mut Config) {
        config.cwd.clone_from(&self.cwd);
        config.env.extend(self.env.iter().cloned());
        config.pty = self.pty.then_some(true);
        config.terminals = self.terminals;
        config.hostname.clone_from(&self.hostname);
        config.share.clone_from(&self.share);
        config.time_offsets = self.time_offset.map(|seconds| TimeOffsets::new().monotonic(seconds).boottime(seconds));
        config.command = (!self.program.is_empty()).then(|| self.program.clone());
    }
}
