//! The sandboxes: of compilers ([`profile::compile_untrusted`]), of submissions, and of the checkers and interactors of
//! problems (both [`profile::judge`]).
//!
//! None shows tests, answers, other submissions or files of the worker: see "Cheating" in the example `judge`.

use std::path::PathBuf;
use std::time::Duration;

use stockade::limits::{Overflow, Resource};
use stockade::mount::{HostPath, Tmpfs};
use stockade::{Cgroup, Command, Layer, Limits, Root, Sandbox, profile};

use super::compiler::Executable;
use super::failure::Failure;
use super::job::{Allowed, Program};
use super::language::{COMPILER_ENVIRONMENT, HEAVY, Language};

/// Limits of a compiler with all its processes together. Go compiles its standard library each time.
const COMPILER_CPU: Duration = Duration::from_secs(60);
const COMPILER_MEMORY: u64 = 1 << 30;
const COMPILER_PROCESSES: u64 = 128;

/// Directory of the compiler's output, inside.
pub const OUT: &str = "/out";
/// Maximum size of all that a compiler writes there, in bytes.
pub const LARGEST_OUT: u64 = 64 << 20;

/// Limits of checkers and interactors.
pub const OF_PROBLEM: Allowed = Allowed {
    cpu: Duration::from_secs(10),
    wall: Duration::from_secs(60),
    idle: Duration::from_secs(60),
    memory: 512 << 20,
    processes: 64,
    output: 64 << 10,
};

/// What is the same for all sandboxes of a worker.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Directories that no program may see, wherever they are.
    pub hidden: Vec<PathBuf>,
    /// Whether jobs are judged without a cgroup if the host refuses one. Their results list what was not enforced.
    pub without_cgroup: bool,
}

impl Host {
    fn finish(&self, sandbox: Sandbox, cgroup: Cgroup, cpu: Option<u32>) -> Sandbox {
        let cgroup = cpu.into_iter().fold(cgroup, |cgroup, cpu| cgroup.cpuset_cpus(cpu.to_string()));
        let sandbox = sandbox.cgroup(cgroup);
        if self.without_cgroup { sandbox.best_effort([Layer::Cgroup]) } else { sandbox }
    }

    /// Hides the worker's own directories.
    fn hide(&self, root: Root) -> Root {
        self.hidden.iter().fold(root, |root, path| root.mask(path))
    }

    /// Returns the sandbox that a program is compiled in, as a session whose `/out` is in memory and limited in size.
    pub fn compiler(&self, program: &Program, cpu: Option<u32>) -> Result<Sandbox, Failure> {
        let language = program.language()?;
        let root = |root: Root| with_toolchain(self.hide(root), language);
        let sandbox = profile::compile_untrusted().map_root(root);
        let sandbox = program
            .files()?
            .into_iter()
            .fold(sandbox, |sandbox, (path, text)| sandbox.map_root(|root| root.file(path, text)));
        let out = Tmpfs::new(OUT).size(LARGEST_OUT).inodes(1 << 12).mode(0o1777);
        let limits = |limits: Limits| limits.cpu_time(COMPILER_CPU);
        let cgroup = Cgroup::new().memory_max(COMPILER_MEMORY).pids_max(COMPILER_PROCESSES);
        Ok(self.finish(sandbox.map_root(|root| root.with(out)).map_limits(limits), cgroup, cpu))
    }

    /// Returns the sandbox that a program is run in.
    pub fn program(&self, executable: &Executable, allowed: &Allowed, cpu: Option<u32>) -> Result<Sandbox, Failure> {
        let language = executable.program.language()?;
        let files = executable.program.files()?;
        let root = |root: Root| {
            let root = if language.is_static { Root::empty() } else { self.hide(root) };
            match &executable.directory {
                Some(directory) => root.bind(HostPath::from(directory.path()), OUT),
                None => files.into_iter().fold(root, |root, (path, text)| root.file(path, text)),
            }
        };
        let limits = |limits: Limits| {
            let limits = limits.cpu_time(allowed.cpu).wall_time(allowed.wall).idle_timeout(allowed.idle);
            // A flood of errors is a flood too.
            let limits = limits.stdout_max(allowed.output).stderr_max(allowed.output).stderr_overflow(Overflow::Kill);
            if self.without_cgroup && language.allowance == HEAVY { with_data(limits, allowed.memory) } else { limits }
        };
        let cgroup = Cgroup::new().memory_max(allowed.memory).pids_max(allowed.processes);
        let sandbox = profile::judge().map_root(root).seccomp((language.policy)()).map_limits(limits);
        Ok(self.finish(sandbox, cgroup, cpu))
    }
}

/// Limits the data of each process instead of its address space, of which Java and Node reserve many times what they use,
/// and allows for a stack of 256 MiB for each of its threads.
fn with_data(limits: Limits, data: u64) -> Limits {
    let data = data + (4 << 30);
    limits.address_space_without_cgroup(u64::MAX >> 1).rlimit(Resource::Data, data, data)
}

fn with_toolchain(root: Root, language: &Language) -> Root {
    language.directory().into_iter().fold(root, |root, path| root.bind(path, "/toolchain"))
}

/// Returns the command of a language, with the environment of compilers if it is one.
pub fn compile_command(words: &[&str]) -> Command {
    let mut command = command(words);
    command.envs(COMPILER_ENVIRONMENT);
    command
}

pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}
