//! The sandbox of an action: what it sees of the host, its limits, and how its end is reported.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade::mount::Tmpfs;
use stockade::{Cgroup, Command, ErrorKind, Namespaces, Root, Sandbox, Stdio, Termination, profile};

use super::failure::{Failure, Tried};
use super::platform::Allowance;
use super::proto::execution;

/// Where an input root is that is not the root itself. It is the same for all actions, so that no path of a worker gets into
/// an output.
const BESIDE_HOST: &str = "/build";

/// What the root of an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum InputRoot {
    /// The file system of the host, read-only and without private data, with the input root as a directory in it. For
    /// Bazel, recc and others whose actions use the compilers of the worker.
    BesideHost,
    /// The input root, which has all that actions need. For BuildStream.
    AsRoot,
}

/// The limits that are the same for all actions.
#[derive(Clone, Debug)]
pub struct SandboxLimits {
    pub pids: u64,
    /// Bytes of standard output, and of standard error.
    pub stream: u64,
    /// Whether there are cgroups.
    pub cgroup: bool,
    /// Files and directories of the worker. The actions of an ordinary user's worker have the permissions of that user.
    pub hidden: Vec<PathBuf>,
}

/// What a sandbox is made of.
pub struct ActionSandbox<'a> {
    pub input_root: InputRoot,
    pub directory: &'a Path,
    pub allowance: &'a Allowance,
    pub limits: &'a SandboxLimits,
    pub timeout: Duration,
    /// The CPUs of the slot, as a list such as `0-3,7`.
    pub cpus: &'a str,
}

impl ActionSandbox<'_> {
    pub fn sandbox(&self) -> Result<Sandbox, Failure> {
        let Self { limits, allowance, timeout, cpus, .. } = *self;
        let bounds = |bounds: stockade::Limits| {
            bounds.wall_time(timeout).stdout_max(limits.stream).stderr_max(limits.stream).kill_grace(Duration::ZERO)
        };
        let mut sandbox = profile::build_step().env_remove("HOME").env_remove("LANG").map_limits(bounds);
        sandbox = match self.input_root {
            InputRoot::BesideHost => {
                let hide = |root| limits.hidden.iter().fold(root, Root::mask);
                sandbox.map_root(|root| hide(root).bind_rw(self.directory, BESIDE_HOST))
            }
            InputRoot::AsRoot => sandbox.root(self.as_root()?),
        };
        if allowance.network {
            sandbox = sandbox.map_namespaces(|namespaces| namespaces - Namespaces::NET);
        }
        if limits.cgroup {
            let cgroup = Cgroup::new().memory_max(allowance.memory).pids_max(limits.pids).cpuset_cpus(cpus);
            sandbox = sandbox.cgroup(match allowance.cpus {
                Some(cpus) => cgroup.cpu_max(cpus),
                None => cgroup,
            });
        }
        Ok(sandbox)
    }

    /// Returns a root that is the input root, with the file systems of the kernel.
    fn as_root(&self) -> Result<Root, Failure> {
        for name in ["proc", "dev", "tmp"] {
            let path = self.directory.join(name);
            match path.symlink_metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    return Err(Failure::invalid(format!(
                        "/{name} of the input root is no directory: a root needs it"
                    )));
                }
                Err(_) => std::fs::create_dir(&path).tried(format_args!("create /{name}"))?,
            }
        }
        let tmp = Tmpfs::new("/tmp").size(1 << 30).mode(0o1777);
        Ok(Root::from_dir_rw(self.directory).proc("/proc").dev("/dev").with(tmp))
    }

    /// Returns the command of an action, with its working directory below the input root.
    pub fn command(&self, command: &execution::Command, directory: &Path) -> Result<Command, Failure> {
        let [program, arguments @ ..] = &*command.arguments else {
            return Err(Failure::invalid("the command has no arguments, and so no program"));
        };
        let start = match self.input_root {
            InputRoot::BesideHost => BESIDE_HOST,
            InputRoot::AsRoot => "/",
        };
        let mut described = Command::new(program);
        described.args(arguments).current_dir(Path::new(start).join(directory));
        for variable in &command.environment_variables {
            described.env(&variable.name, &variable.value);
        }
        described.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(described)
    }
}

/// How an action ended, as the protocol has it.
#[derive(Debug)]
pub enum Ending {
    /// With an exit code, and a line for standard error that says more.
    Exited(i32, Option<String>),
    TimedOut,
    /// For no reason of its own, so that it should run again.
    Again(String),
}

impl Ending {
    pub fn of(termination: Termination) -> Self {
        let killed = |code| Self::Exited(code, Some(termination.to_string()));
        match termination {
            Termination::Exited(code) => Self::Exited(code, None),
            Termination::Signaled { signal, .. } => killed(128 + signal.number()),
            Termination::WallTime => Self::TimedOut,
            Termination::HostMemory | Termination::Killed => Self::Again(termination.to_string()),
            // As a shell reports SIGKILL.
            _ => killed(137),
        }
    }

    /// Returns the ending of an action whose program cannot be executed, as a shell reports it.
    pub fn of_error(error: stockade::Error) -> Result<Self, Failure> {
        match error.kind() {
            ErrorKind::NotFound => Ok(Self::Exited(127, Some(error.to_string()))),
            ErrorKind::NotExecutable => Ok(Self::Exited(126, Some(error.to_string()))),
            _ => Err(error.into()),
        }
    }
}
