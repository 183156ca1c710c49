//! What compilers and programs may do. Each submission gets a fresh sandbox of each kind that it needs.
//!
//! Both show the programs and libraries of the host, and no other file of it ([`profile::judge`]). Both may start
//! processes: a shell can do little without, and a compiler has parts. The only directory to write to is [`WORK`], a
//! file system in memory.

use std::time::Duration;

use stockade::limits::Resource;
use stockade::mount::Tmpfs;
use stockade::{Cgroup, Layer, Limits, Sandbox, Seccomp, profile};

/// The directory of the submission.
pub const WORK: &str = "/work";

const MIB: u64 = 1 << 20;

/// Maximum size of standard output, in bytes.
const STDOUT: u64 = MIB;

/// Limits of a compiler, which are the same for each submission.
const COMPILER: Allowance =
    Allowance { wall: Duration::from_secs(60), cpu: Duration::from_secs(20), memory: 512 * MIB, work: 64 * MIB };

/// Maximum number of processes and threads of a submission.
const PROCESSES: u64 = 64;

/// Limits that are for the caller to choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of submissions that run at a time.
    pub at_once: usize,
    /// Number of submissions that may wait for others. Further ones are turned away.
    pub waiting: usize,
    /// Limits of a program. CPU time decides most verdicts, since it does not grow with the load of the machine.
    pub wall_time: Duration,
    pub cpu_time: Duration,
    /// Memory of all processes of a program together, in bytes. It requires a cgroup.
    pub memory: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let (wall_time, cpu_time) = (Duration::from_secs(10), Duration::from_secs(2));
        Self { at_once: 2, waiting: 200, wall_time, cpu_time, memory: 128 * MIB }
    }
}

struct Allowance {
    wall: Duration,
    cpu: Duration,
    memory: u64,
    /// Size of the directory of the submission, in bytes.
    work: u64,
}

/// Returns the sandbox of compilers.
pub fn compiler() -> Sandbox {
    sandbox(&COMPILER)
}

/// Returns the sandbox of programs.
pub fn program(settings: &Settings) -> Sandbox {
    let &Settings { wall_time: wall, cpu_time: cpu, memory, .. } = settings;
    sandbox(&Allowance { wall, cpu, memory, work: 64 * MIB })
}

fn sandbox(allowance: &Allowance) -> Sandbox {
    let work = Tmpfs::new(WORK).size(allowance.work).inodes(1024).mode(0o1777);
    let limits = |limits: Limits| {
        // The limit on processes holds without a cgroup too.
        let limits = limits.rlimit(Resource::Nproc, PROCESSES, PROCESSES).stdout_max(STDOUT);
        limits.wall_time(allowance.wall).cpu_time(allowance.cpu)
    };
    profile::judge()
        .map_root(|root| root.with(work))
        .env("TMPDIR", WORK)
        .seccomp(Seccomp::container())
        .map_limits(limits)
        // An ordinary user may not be able to create cgroups. Each answer then says that this is not enforced.
        .cgroup(Cgroup::new().memory_max(allowance.memory).pids_max(PROCESSES))
        .best_effort([Layer::Cgroup])
}
