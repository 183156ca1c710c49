//! Control groups: what a program and all that it starts may use together, and what they used (cgroups(7)). On v1, v2 and
//! hybrid hosts, without a daemon.

mod alarm;
mod create;
mod directory;
mod files;
pub(crate) mod freezer;
mod group;
mod hierarchy;
mod leftovers;
mod members;
mod owner;
mod place;
mod probe;
mod readings;
mod systemd;
mod unit;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use create::Made;
#[cfg(fuzzing)]
pub(crate) use hierarchy::places;
pub(crate) use place::{Entrant, Spec};
pub(crate) use probe::{Found, probe};
#[cfg(fuzzing)]
pub(crate) use readings::figures;

/// A limit on the input and output of a block device; `None` is none, and 0 is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IoMax {
    /// Bytes that are read in a second.
    pub read_bytes: Option<u64>,
    /// Bytes that are written in a second.
    pub write_bytes: Option<u64>,
    /// Reads in a second.
    pub read_operations: Option<u64>,
    /// Writes in a second.
    pub write_operations: Option<u64>,
}

/// Below which cgroup the sandbox's own is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum CgroupParent {
    /// The one that the calling process is in. On v2 the processes there are moved to a leaf of it if it has no controllers to
    /// give otherwise (cgroups(7), "no internal processes"); if one of them can't be moved, all stay where they are, and that is
    /// an error. The leaf is removed by the next sandbox that finds it empty.
    ///
    /// A unit of systemd's must be delegated (`Delegate=yes` of systemd.resource-control(5)), or it is an error: in others
    /// systemd takes a sandbox that runs out of memory for the unit's own failure, and stops the unit (`OOMPolicy=` of
    /// systemd.service(5)). For a unit of an ordinary user's own manager `/usr/bin/systemctl` is asked, once.
    #[default]
    Auto,
    /// A cgroup by its path from the root of each hierarchy, as `/proc/[pid]/cgroup` has it: without the directory on which the
    /// hierarchy is mounted, such as `/sys/fs/cgroup`. It must exist, and the host
    /// must be allowed to make directories in it. On v2 an ordinary user must also be in the same delegated subtree: moving a
    /// process takes the right to write to `cgroup.procs` of the nearest cgroup above both places (cgroups(7), "delegation
    /// containment").
    Path(#[cfg_attr(feature = "serde", serde(with = "crate::text::form"))] PathBuf),
    /// A delegated scope of systemd's, into which the manager moves the host's process: the user's manager, or for root the
    /// system's. From then on it is as [`CgroupParent::Auto`] is below the scope, so that an ordinary user whose session is
    /// not delegated can limit a sandbox. It is what `systemd-run --scope -p Delegate=yes` does for a program that it
    /// starts (systemd.scope(5); `StartTransientUnit` of org.freedesktop.systemd1(5)).
    ///
    /// The host's process is moved once in its life, when the first plan of such a sandbox is made
    /// ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn): which limits can be kept depends on the scope. Its other
    /// children stay where they are. The scope is called `stockade-….scope`, is shared by all sandboxes of the host, and is
    /// gone when the last process in it has ended.
    ///
    /// The bus is where `DBUS_SYSTEM_BUS_ADDRESS`, `DBUS_SESSION_BUS_ADDRESS` or `XDG_RUNTIME_DIR` says, unless the process
    /// has more privileges than whoever started it (getauxval(3), `AT_SECURE`). Only `unix:` addresses are accepted.
    ///
    /// Whatever limited the host's previous cgroup does not limit the scope, nor the host in it. The limits of
    /// the user's slice still do. An ordinary user has in it the controllers that are delegated to the user's manager: memory
    /// and pids, since systemd 252 cpu, and none on v1.
    ///
    /// Errors: [`Error::Systemd`](crate::Error::Systemd) if there is no bus, no systemd, or no scope. It needs systemd 238,
    /// for an ordinary user both its user manager (`loginctl enable-linger`, where nobody logs in) and the system's bus,
    /// and the feature `systemd`; without the feature it is an [`Error::Invalid`](crate::Error::Invalid).
    SystemdScope,
}

/// How much may be swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Swap {
    /// Nothing, if memory is limited.
    #[default]
    Default,
    Max(u64),
    Unlimited,
}

/// A control group of the sandbox's own, in which the program is executed, and which is removed with the sandbox. The
/// init is outside of it, and is neither counted nor killed for the program's use of memory.
///
/// A limit that the host's hierarchies can't keep is an error of [`Sandbox::plan`](crate::Sandbox::plan), which names it.
/// An ordinary user's program is the user that the files of its limits belong to; so is one with
/// [`Identity::caller`](crate::Identity::caller). It can't change them: it is in a group below the one with the limits, and
/// cgroup file systems are hidden or read-only in a mount namespace. Without
/// [`Namespaces::MOUNT`](crate::Namespaces::MOUNT), and without [`Landlock`](crate::Landlock) rules that keep it from writing
/// there, such a program can change them, and [`Enforcement::lost`](crate::Enforcement::lost) says so. Whoever owns the
/// parent has power over the groups below it in any case: name none that belongs to a user whom you don't trust.
///
/// With or without limits it tells in [`Usage`](crate::Usage) what the program and its descendants used together, as
/// far as the host may make groups of the memory, cpuacct and pids controllers. A host that may make none gets an error, also
/// without a limit: nothing would be counted, and [`Outcome::leaked`](crate::Outcome::leaked) would be empty.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cgroup {
    parent: CgroupParent,
    memory_max: Option<u64>,
    memory_high: Option<u64>,
    swap: Swap,
    cpu_max: Option<(f64, Duration)>,
    cpu_weight: Option<u32>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    pids_max: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    io_max: Vec<(PathBuf, IoMax)>,
    io_weight: Option<u32>,
    hugetlb_max: Vec<(String, u64)>,
    raw: Vec<(String, String)>,
    freezable: bool,
}

/// The period of [`Cgroup::cpu_max`], which is the kernel's default.
const PERIOD: Duration = Duration::from_millis(100);

impl Cgroup {
    /// One without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where it is made. Default: [`CgroupParent::Auto`].
    #[must_use]
    pub fn parent(mut self, parent: CgroupParent) -> Self {
        self.parent = parent;
        self
    }

    /// Bytes of memory, page cache among them. Who needs more is killed by the kernel:
    /// [`Termination::Memory`](crate::Termination::Memory). Nothing is swapped out then, unless [`Cgroup::swap_max`] says
    /// otherwise. `memory.max` with `memory.oom.group` on v2, `memory.limit_in_bytes` on v1.
    ///
    /// v1 counts the buffers of TCP and UDP sockets apart: they get a limit of as many bytes of their own
    /// (`memory.kmem.tcp.limit_in_bytes`), at which sockets can't send.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory_max = Some(bytes);
        self
    }

    /// Bytes of memory above which it is reclaimed and its users are slowed down. `memory.high` on v2; v1 has none.
    #[must_use]
    pub fn memory_high(mut self, bytes: u64) -> Self {
        self.memory_high = Some(bytes);
        self
    }

    /// Bytes that may be swapped out. `memory.swap.max` on v2; on v1 `memory.memsw.limit_in_bytes` is the sum of it and of
    /// [`Cgroup::memory_max`], which it needs.
    #[must_use]
    pub fn swap_max(mut self, bytes: u64) -> Self {
        self.swap = Swap::Max(bytes);
        self
    }

    /// Lets memory be swapped out without a limit, also if there is one on memory.
    #[must_use]
    pub fn swap_unlimited(mut self) -> Self {
        self.swap = Swap::Unlimited;
        self
    }

    /// CPUs' worth of time, such as 1.5, in each period of 100 ms. `cpu.max` on v2, `cpu.cfs_quota_us` on v1.
    ///
    /// The kernel also works for a program outside of its processes, and no cgroup counts that: it passes on what is written to
    /// a pseudo-terminal (up to several times the program's own time; hence [`Root::terminals`](crate::Root::terminals) is needed
    /// to have one), removes watches of inotify(7) (about twice the program's own time, on a busy machine up to thirty times), and looks for
    /// descriptors in flight over UNIX sockets that nobody can receive any more (less than the program's own time). Floods of loopback traffic,
    /// timers, processes, and files cost next to nothing outside of the group. A kernel with `CONFIG_IRQ_TIME_ACCOUNTING` does not
    /// count loopback traffic either.
    #[must_use]
    pub fn cpu_max(self, cpus: f64) -> Self {
        self.cpu_max_in(cpus, PERIOD)
    }

    /// The same in each period of another length, 1 ms to 1 s.
    #[must_use]
    pub fn cpu_max_in(mut self, cpus: f64, period: Duration) -> Self {
        self.cpu_max = Some((cpus, period));
        self
    }

    /// Share of CPU time against others, 1 to 10000; the default is 100. `cpu.weight` on v2, `cpu.shares` on v1.
    #[must_use]
    pub fn cpu_weight(mut self, weight: u32) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// The CPUs that it may run on, as `0-3,7`. `cpuset.cpus`.
    #[must_use]
    pub fn cpuset_cpus(mut self, cpus: impl Into<String>) -> Self {
        self.cpuset_cpus = Some(cpus.into());
        self
    }

    /// The memory nodes that it may use, as `0-1`. `cpuset.mems`.
    #[must_use]
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.cpuset_mems = Some(nodes.into());
        self
    }

    /// Processes and threads, the program among them, 1 or more. Who starts more gets EAGAIN, which
    /// [`Usage::pids_refused`](crate::Usage::pids_refused) counts. More than the kernel can have at all
    /// (4194304) is no limit. `pids.max`.
    #[must_use]
    pub fn pids_max(mut self, count: u64) -> Self {
        self.pids_max = Some(count);
        self
    }

    /// Limits of a block device, by the path of its node (`/dev/sda`). `io.max` on v2, `blkio.throttle.*` on v1.
    ///
    /// Writes go through the page cache unless a program opens a file with O_DIRECT or O_SYNC. v1 does not limit those that do,
    /// nor does v2 where the group above gives on no memory controller: [`Enforcement::lost`](crate::Enforcement::lost) says
    /// so. Else v2 limits how fast they reach the disk, and by the limit on memory how many wait for that.
    #[must_use]
    pub fn io_max(mut self, device: impl Into<PathBuf>, max: IoMax) -> Self {
        self.io_max.push((device.into(), max));
        self
    }

    /// Share of input and output against others, 1 to 1000; the default is 100. `io.weight` on v2, `blkio.bfq.weight` on
    /// v1, both of an I/O scheduler that has weights.
    #[must_use]
    pub fn io_weight(mut self, weight: u32) -> Self {
        self.io_weight = Some(weight);
        self
    }

    /// Bytes of huge pages of a size (`2MB`, `1GB`). `hugetlb.*.max` on v2, `hugetlb.*.limit_in_bytes` on v1.
    ///
    /// A seccomp policy denies huge pages unless it has
    /// [`Seccomp::allow_huge_pages`](crate::Seccomp::allow_huge_pages).
    #[must_use]
    pub fn hugetlb_max(mut self, page_size: impl Into<String>, bytes: u64) -> Self {
        self.hugetlb_max.push((page_size.into(), bytes));
        self
    }

    /// Writes to a file of the group by its name (`memory.low`), after all else. The controller is what stands before the
    /// first dot.
    ///
    /// Errors: [`Error::Invalid`](crate::Error::Invalid) for files of no controller, such as `cgroup.procs`, and for those that
    /// could keep processes from starting or ending: `freezer.*`, `memory.force_empty`, `memory.oom_control`.
    #[must_use]
    pub fn raw(mut self, file: impl Into<String>, value: impl Into<String>) -> Self {
        self.raw.push((file.into(), value.into()));
        self
    }

    /// Lets [`Child::freeze`](crate::Child::freeze) stop all of its processes. `cgroup.freeze` on v2 (since Linux 5.2), the
    /// freezer controller on v1.
    #[must_use]
    pub fn freezable(mut self) -> Self {
        self.freezable = true;
        self
    }

    /// Whether writes to a block device are limited.
    fn limits_writes(&self) -> bool {
        self.io_max.iter().any(|(_, max)| max.write_bytes.is_some() || max.write_operations.is_some())
    }

    /// Whether the kernel may kill for memory.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory_max.is_some()
    }

    /// How many CPUs' worth of time it can use at most, if that is limited.
    pub(crate) fn cpus(&self) -> Option<f64> {
        self.cpu_max.map(|(cpus, _)| cpus)
    }
}
