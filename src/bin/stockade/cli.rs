//! The subcommands, and the text that stands below their options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::command_options::CommandOptions;
use crate::config_options::ConfigOptions;
use crate::limit_options::{LimitOptions, OutputOptions};
use crate::mount_options::MountOptions;
use crate::privilege_options::PrivilegeOptions;

/// Runs programs in sandboxes: with namespaces and a file system of their own, without a daemon.
#[derive(Parser)]
#[command(name = "stockade", version, disable_help_subcommand = true, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Subprogram,
}

#[derive(Subcommand)]
#[command(defer = true)]
pub enum Subprogram {
    /// Run a program in a sandbox, and exit with its status
    ///
    /// Without options, the program sees the file system of the host read-only and without home directories, has no
    /// network, no capability, an empty environment but for PATH, and no limit on time or memory. Options change that;
    /// `stockade keys` lists what --set and configuration files can say besides.
    #[command(after_long_help = RUN_NOTES)]
    Run(RunOptions),
    /// Print the system calls of the set-up, and run nothing
    ///
    /// It takes the options of `stockade run` that describe the sandbox and the program.
    Plan(PlanOptions),
    /// Run a trusted program, and write down the system calls, paths and ports that it uses
    ///
    /// The program runs as `stockade run` would run it, but more slowly, without a limit on its output, and with its
    /// standard output on standard error if the policy is written to standard output. The file is named in the key
    /// `learned` of a later run: `stockade run --set learned=policy.json`. It is a tool for writing policies, and no
    /// security boundary.
    Learn(LearnOptions),
    /// Print which features of a sandbox this host supports, with a hint for each missing one
    ///
    /// Exits with 0 if the default sandbox is supported, else with 1.
    Doctor {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys of configuration files and of --set, each with an example
    Keys,
    /// Print a script for a shell that completes the options
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page: stockade(1), or that of a subcommand
    ///
    /// man(1) shows it: `stockade man run | man -l -`.
    Man {
        /// The subcommand
        #[arg(value_name = "COMMAND")]
        page: Option<String>,
    },
}

// The options that describe a sandbox and its program. A doc comment would take the place of that of the subcommand.
#[derive(Args)]
pub struct SandboxOptions {
    #[command(flatten, next_help_heading = "Configuration")]
    pub config: ConfigOptions,
    #[command(flatten, next_help_heading = "Files")]
    pub mounts: MountOptions,
    #[command(flatten, next_help_heading = "Program")]
    pub command: CommandOptions,
    #[command(flatten, next_help_heading = "Privileges")]
    pub privileges: PrivilegeOptions,
    #[command(flatten, next_help_heading = "Limits")]
    pub limits: LimitOptions,
}

/// The form of the arguments of all subcommands that have a program.
const USAGE: &str = "[OPTION]… [--] PROGRAM [ARG]…";

#[derive(Args)]
#[command(override_usage = format!("stockade run {USAGE}"))]
pub struct RunOptions {
    #[command(flatten)]
    pub sandbox: SandboxOptions,
    #[command(flatten, next_help_heading = "Limits")]
    pub output: OutputOptions,
    #[command(flatten, next_help_heading = "Results")]
    pub results: ResultOptions,
}

// What is written about a run. No doc comment, as above.
#[derive(Args)]
pub struct ResultOptions {
    /// Write the outcome as a JSON object to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub report: Option<PathBuf>,

    /// Write the outcome as a JSON object to standard error, in place of messages: it is the last line there. Only
    /// options that cannot be read give a message
    #[arg(long)]
    pub json: bool,

    /// Record the system calls, paths and ports that the program uses, and write them to a file, or to standard output
    /// with -: as Rust code if the name ends in .rs, else as JSON. The program runs more slowly
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["pty", "output"])]
    pub learn: Option<PathBuf>,
}

#[derive(Args)]
#[command(override_usage = format!("stockade plan {USAGE}"))]
pub struct PlanOptions {
    #[command(flatten)]
    pub sandbox: SandboxOptions,
    #[command(flatten, next_help_heading = "Limits")]
    pub output: OutputOptions,
}

#[derive(Args)]
#[command(override_usage = format!("stockade learn {USAGE}"))]
pub struct LearnOptions {
    #[command(flatten)]
    pub sandbox: SandboxOptions,

    /// Write the policy to a file, or to standard output with -: as Rust code if the name ends in .rs, else as JSON
    #[arg(long, value_name = "FILE|-", default_value = "-", help_heading = "Results")]
    pub output: PathBuf,

    /// Write the outcome of the program as a JSON object to standard error, in place of messages. Only options that
    /// cannot be read give a message
    #[arg(long, help_heading = "Results")]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  stockade run --profile agent --rw work:/work --cwd /work -- python3 generated.py
          Run generated code that may change one directory
  stockade run --profile build-step --ro . --rw out:/out --cwd $PWD -- make OUT=/out
          Build without a network
  stockade run --share net --landlock-ro /usr --connect 443 -- PROGRAM
          Let a program connect to one port
  stockade run --memory 256M --pids 64 --wall 10s --report result.json -- PROGRAM
          Limit a program, and measure it
  stockade run --config sandbox.toml
          Run what a file describes";

const RUN_NOTES: &str = "\
Mounts:
  The place of a mount decides: what is deeper is mounted later. Two mounts on one path are an error. A path with a colon
  is given as a table: --set 'ro=[{ source = \"a:b\", target = \"/data\" }]'.

Precedence:
  A value of an option replaces that of --set, which replaces that of the file. Lists and mounts are added to each other.

Sizes and times:
  They are written as in configuration files. A size is a number of bytes, or a number with a unit: K, M, G, T and KiB,
  MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000. A time has one unit or several: 500ms, 1.5s, 1m30s, 2h, 1d.

Signals:
  SIGINT, SIGTERM and SIGHUP reach the program; SIGINT and SIGHUP its whole process group. If it still runs after the
  grace period (--kill-grace, or 2 seconds), or at a second SIGINT, everything in the sandbox is killed. SIGQUIT, SIGUSR1,
  SIGUSR2 and SIGWINCH are passed on. SIGTSTP (Ctrl-Z) stops the program and then this command, and SIGCONT continues both:
  all processes, if the key freezable is set, else those of the program's process group. Limits on wall-clock time and
  idle time go on meanwhile. A signal that this command was started to ignore (nohup) stays ignored. With --pty, Ctrl-C
  and Ctrl-Z are keys of the program's own terminal.

Exit status:
  The status of the program; 128+N if it was killed by signal N, or because this command received signal N; 124 if it
  exceeded a limit or made a denied system call, or if a test has left processes running; 125 if the sandbox could not be
  set up; 126 if the program could not be executed; 127 if it was not found; 2 if options or the configuration file are
  invalid.";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn no_group_of_options_takes_the_place_of_the_description_of_a_subcommand() {
        let abouts = |command: &Command| -> Vec<String> {
            let texts =
                command.get_subcommands().flat_map(|subcommand| [subcommand.get_about(), subcommand.get_long_about()]);
            texts.map(|text| text.map(ToString::to_string).unwrap_or_default()).collect()
        };
        let mut command = Cli::command();
        let described = abouts(&command);
        // Adds the options of the subcommands.
        command.build();
        assert_eq!(abouts(&command), described);
    }
}
