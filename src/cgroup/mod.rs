//! Limits and statistics for the program and all of its descendants together, by control groups (cgroups(7)).
//!
//! The limits themselves are [`Cgroup`], also at the crate root. [`CgroupParent`] is the existing cgroup below which
//! the sandbox's own is created, and [`IoMax`] limits a block device. cgroup v2, v1 and hybrid hierarchies are
//! supported. No daemon is needed.
//!
//! Creating a cgroup requires root or a delegated subtree: one in which the caller may create cgroups. An ordinary user
//! in a session that is not delegated can use [`CgroupParent::SystemdScope`].
//! [`Support::probe`](crate::probe::Support::probe) reports which controllers are available.
//!
//! ```
//! use stockade::{Cgroup, Command, Layer, Sandbox};
//!
//! let sandbox = Sandbox::new()
//!     .cgroup(Cgroup::new().memory_max(256 << 20).pids_max(64).cpu_max(1.5))
//!     .best_effort([Layer::Cgroup]);
//! let outcome = sandbox.status(Command::new("true"))?;
//! if outcome.enforcement.is_active(Layer::Cgroup) {
//!     println!("peak memory: {:?} bytes", outcome.usage.memory_peak);
//! }
//! # Ok::<(), stockade::Error>(())
//! ```

mod alarm;
mod control_group;
mod create;
mod directory;
pub(crate) mod freezer;
mod hierarchy;
mod members;
mod owner;
mod probe;
mod settings;
mod spec;
mod stale;
mod stats;
mod systemd;
mod unit;

pub use crate::error::SystemdFailure;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "serde")]
use crate::stored::{As, Bytes, BytesOrUnlimited, Count, Escaped, Finite, Form, Plain, Read, Seconds, table_form};
pub(crate) use create::{CreatedCgroup, LeftCgroup};
#[cfg(fuzzing)]
pub(crate) use hierarchy::places;
pub(crate) use members::Members;
pub(crate) use probe::{Found, probe};
pub(crate) use spec::{Entrant, Spec, ViewMount};
pub(crate) use stats::Account;
#[cfg(test)]
pub(crate) use stats::Oom;
#[cfg(fuzzing)]
pub(crate) use stats::figures;

/// Limits on the I/O rate of a block device, for [`Cgroup::io_max`].
///
/// `None` is no limit.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a limit of 0.
///
/// ```
/// use stockade::Cgroup;
/// use stockade::cgroup::IoMax;
///
/// let max = IoMax::new().write_bytes(10 << 20).write_operations(100);
/// let cgroup = Cgroup::new().io_max("/dev/sda", max);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct IoMax {
    /// Bytes read per second.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    pub write_bytes: Option<u64>,
    /// Read operations per second.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Count>>"))]
    pub read_operations: Option<u64>,
    /// Write operations per second.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Count>>"))]
    pub write_operations: Option<u64>,
}

impl IoMax {
    /// Creates a value without limits.
    #[must_use]
    pub const fn new() -> Self {
        Self { read_bytes: None, write_bytes: None, read_operations: None, write_operations: None }
    }

    /// Limits reading, in bytes per second.
    #[must_use]
    pub const fn read_bytes(mut self, limit: u64) -> Self {
        self.read_bytes = Some(limit);
        self
    }

    /// Limits writing, in bytes per second.
    #[must_use]
    pub const fn write_bytes(mut self, limit: u64) -> Self {
        self.write_bytes = Some(limit);
        self
    }

    /// Limits the read operations per second.
    #[must_use]
    pub const fn read_operations(mut self, limit: u64) -> Self {
        self.read_operations = Some(limit);
        self
    }

    /// Limits the write operations per second.
    #[must_use]
    pub const fn write_operations(mut self, limit: u64) -> Self {
        self.write_operations = Some(limit);
        self
    }
}

/// The existing cgroup below which the sandbox's own is created.
///
/// ```
/// use stockade::Cgroup;
/// use stockade::cgroup::CgroupParent;
///
/// // The directory /sys/fs/cgroup/jobs of cgroup v2, which an administrator delegated to this user.
/// let cgroup = Cgroup::new().parent(CgroupParent::Path("/jobs".into())).memory_max(256 << 20);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum CgroupParent {
    /// The cgroup of the caller.
    ///
    /// On v2 a cgroup that has processes cannot pass controllers on to cgroups below it (cgroups(7), "no internal
    /// processes"). If necessary, the first sandbox moves all processes of the caller's cgroup to a new leaf below it.
    /// If one of them cannot be moved, all stay where they are and an error is returned. A later sandbox that finds the
    /// leaf empty removes it.
    ///
    /// If the cgroup belongs to a systemd unit, the unit must be delegated (`Delegate=yes`,
    /// systemd.resource-control(5)). Otherwise [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) is returned:
    /// systemd would treat the out-of-memory kill of a sandbox as a failure of the unit, and stop the unit
    /// (`OOMPolicy=`, systemd.service(5)). For a unit of a user manager, the crate executes `/usr/bin/systemctl` once
    /// to find out whether it is delegated.
    #[default]
    Auto,
    /// A cgroup by its path from the root of each hierarchy, as in `/proc/[pid]/cgroup`: without the mount point, such
    /// as `/sys/fs/cgroup`.
    ///
    /// The cgroup must exist, and the caller must be allowed to create directories in it. On v2 an ordinary user must
    /// also be in the same delegated subtree, because moving a process requires write access to `cgroup.procs` of the
    /// nearest common ancestor (cgroups(7), "delegation containment").
    Path(#[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))] PathBuf),
    /// A new delegated systemd scope, into which the caller is moved. It allows an ordinary user whose session is not
    /// delegated to create cgroups.
    ///
    /// The crate asks the user's systemd manager for the scope, or the system's if the caller is root
    /// (`StartTransientUnit`, org.freedesktop.systemd1(5)). The effect is that of `systemd-run --scope -p Delegate=yes`
    /// (systemd.scope(5)). Below the scope this is the same as [`CgroupParent::Auto`].
    ///
    /// The caller is moved once, when such a sandbox is compiled for the first time
    /// ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn). Its other children are not moved. The scope is named
    /// `stockade-….scope`, is shared by all sandboxes of the caller, and is removed when its last process has exited.
    ///
    /// Limits of the caller's previous cgroup do not apply in the scope. Those of the user's slice do. An ordinary user
    /// has the controllers that are delegated to the user manager: memory and pids, also cpu since systemd 252, and
    /// none on cgroup v1.
    ///
    /// The address of the bus is taken from `DBUS_SYSTEM_BUS_ADDRESS`, `DBUS_SESSION_BUS_ADDRESS` or `XDG_RUNTIME_DIR`.
    /// These variables are ignored if the caller was started with elevated privileges (getauxval(3), `AT_SECURE`). Only
    /// `unix:` addresses are accepted.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if there is no bus or no systemd.
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if systemd denied or failed to create the scope
    ///   ([`Error::systemd_failure`](crate::Error::systemd_failure)).
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) without the crate feature
    ///   `systemd`. The variant exists in any case.
    ///
    /// Requires the crate feature `systemd`, and systemd 238. An ordinary user needs a running user manager (`loginctl
    /// enable-linger` starts one without a login) and the system bus.
    #[cfg_attr(docsrs, doc(cfg(feature = "systemd")))]
    SystemdScope,
}

/// The limit on swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Swap {
    /// No swap if memory is limited, unlimited otherwise.
    #[default]
    Default,
    Max(u64),
    Unlimited,
}

/// An absent key, a size, or `"unlimited"`.
#[cfg(feature = "serde")]
struct SwapMax;

#[cfg(feature = "serde")]
impl Form<Swap> for SwapMax {
    fn serialize<S: serde::Serializer>(value: &Swap, serializer: S) -> Result<S::Ok, S::Error> {
        let max = match *value {
            Swap::Default => None,
            Swap::Max(bytes) => Some(Some(bytes)),
            Swap::Unlimited => Some(None),
        };
        Option::<BytesOrUnlimited>::serialize(&max, serializer)
    }

    fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Swap, D::Error> {
        Ok(match Option::<BytesOrUnlimited>::deserialize(deserializer)? {
            None => Swap::Default,
            Some(Some(bytes)) => Swap::Max(bytes),
            Some(None) => Swap::Unlimited,
        })
    }
}

#[cfg(feature = "serde")]
table_form!(
    /// A limit on CPUs.
    CpuTable { cpus: f64 as Finite, #[serde(default = "default_period")] period: Duration as Seconds }
);

#[cfg(feature = "serde")]
fn default_period() -> Read<Duration, Seconds> {
    Read::new(PERIOD)
}

#[cfg(feature = "serde")]
table_form!(
    /// The limits of a device.
    IoTable { device: PathBuf as Escaped, max: IoMax as Plain }
);

#[cfg(feature = "serde")]
table_form!(
    /// The limit on huge pages of a size.
    HugetlbTable { page_size: String as Plain, bytes: u64 as Bytes }
);

#[cfg(feature = "serde")]
table_form!(
    /// The value of a control file.
    RawTable { file: String as Plain, value: String as Plain }
);

/// A control group for the sandbox, with limits and statistics for the program and all of its descendants together.
///
/// The cgroup is created when the sandbox is spawned, and removed with it. The sandbox's init process is not a member:
/// it is neither counted, nor killed when the sandbox exceeds its memory limit.
///
/// Even without limits a cgroup is useful. The memory, CPU time, processes and I/O of all processes together are
/// reported in [`Usage`](crate::outcome::Usage), as far as the controllers are available, and
/// [`Outcome::leaked`](crate::Outcome::leaked) lists the processes that were still running when the program exited.
///
/// # Changing the limits from inside
///
/// If the caller is unprivileged ([`Identity`](crate::Identity)), or [`Identity::caller`](crate::Identity::caller) is
/// set, the program runs as the owner of the files that hold the limits. It cannot change them, because it runs in a
/// cgroup below the one with the limits, and the mount namespace hides cgroup file systems or makes them read-only.
/// Without [`Namespaces::MOUNT`](crate::Namespaces::MOUNT), and without [`Landlock`](crate::Landlock) rules that deny
/// writing there, the program can change its limits.
/// [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) reports that.
///
/// The owner of the parent cgroup can always change the cgroups below it. Do not use a parent that belongs to an
/// untrusted user.
///
/// The program sees its cgroup, read-only: [`Cgroup::hidden`].
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
///
/// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the hierarchies of this host cannot enforce a limit
///   (the message names the limit), or if the caller may not create a cgroup.
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a value is invalid, or if the
///   parent of [`CgroupParent::Path`] does not exist.
///
/// When spawned:
///
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the parent does not have all CPUs
///   or memory nodes of [`Cgroup::cpuset_cpus`] or [`Cgroup::cpuset_mems`].
/// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) or
///   [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a cgroup cannot be created or written to, for example
///   because the kernel rejects a value.
///
/// # Examples
///
/// ```
/// use stockade::{Cgroup, Command, Layer, Sandbox, Termination};
///
/// let sandbox = Sandbox::new()
///     .cgroup(Cgroup::new().memory_max(64 << 20).pids_max(16))
///     .best_effort([Layer::Cgroup]);
/// let outcome = sandbox.status(Command::new("sh").args(["-c", "text=$(yes | head -c 256M)"]))?;
/// if outcome.enforcement.is_active(Layer::Cgroup) {
///     assert_eq!(outcome.termination, Termination::Memory);
/// }
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Cgroup {
    parent: CgroupParent,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    memory_max: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    memory_high: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "As::<SwapMax>", rename = "swap_max"))]
    swap: Swap,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<CpuTable>>"))]
    cpu_max: Option<(f64, Duration)>,
    cpu_weight: Option<u32>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Count>>"))]
    pids_max: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<IoTable>>"))]
    io_max: Vec<(PathBuf, IoMax)>,
    io_weight: Option<u32>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<HugetlbTable>>"))]
    hugetlb_max: Vec<(String, u64)>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<RawTable>>"))]
    raw: Vec<(String, String)>,
    freezable: bool,
    hidden: bool,
}

/// The period of [`Cgroup::cpu_max`], which is the kernel's default.
const PERIOD: Duration = Duration::from_millis(100);

impl Cgroup {
    /// Creates a description of a cgroup without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the cgroup below which this one is created.
    ///
    /// Default: [`CgroupParent::Auto`].
    #[must_use]
    pub fn parent(mut self, parent: CgroupParent) -> Self {
        self.parent = parent;
        self
    }

    /// Limits memory, including the page cache, in bytes.
    ///
    /// If the limit is exceeded, the kernel kills the sandbox: [`Termination::Memory`](crate::Termination::Memory). On
    /// v1 it kills single processes. With this limit no memory is swapped out, unless [`swap_max`](Self::swap_max) or
    /// [`swap_unlimited`](Self::swap_unlimited) allows it.
    ///
    /// v1 counts the buffers of TCP and UDP sockets separately. They get an additional limit of the same size
    /// (`memory.kmem.tcp.limit_in_bytes`). Sending fails if it is exceeded.
    ///
    /// Default: no limit.
    ///
    /// `memory.max` and `memory.oom.group` on v2, `memory.limit_in_bytes` on v1.
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Self {
        self.memory_max = Some(bytes);
        self
    }

    /// Sets the memory usage, in bytes, above which the kernel reclaims memory and slows the processes down.
    ///
    /// Default: no such threshold.
    ///
    /// `memory.high` on v2. Unsupported on v1.
    #[must_use]
    pub fn memory_high(mut self, bytes: u64) -> Self {
        self.memory_high = Some(bytes);
        self
    }

    /// Limits swap, in bytes.
    ///
    /// Default: 0 if [`memory_max`](Self::memory_max) is set, no limit otherwise.
    ///
    /// `memory.swap.max` on v2. On v1 this requires [`memory_max`](Self::memory_max), since
    /// `memory.memsw.limit_in_bytes` limits the sum of both.
    #[must_use]
    pub fn swap_max(mut self, bytes: u64) -> Self {
        self.swap = Swap::Max(bytes);
        self
    }

    /// Removes the limit on swap, even if memory is limited.
    ///
    /// Default: see [`swap_max`](Self::swap_max).
    ///
    /// Leaves `memory.swap.max` on v2 and `memory.memsw.limit_in_bytes` on v1 as the kernel sets them.
    #[must_use]
    pub fn swap_unlimited(mut self) -> Self {
        self.swap = Swap::Unlimited;
        self
    }

    /// Limits CPU time to this number of CPUs, such as 1.5, in each period of 100 ms.
    ///
    /// The kernel does some work for a program in threads of its own, which no cgroup counts:
    ///
    /// - passing on what is written to a pseudo-terminal: up to several times the program's own CPU time. Hence a
    ///   sandbox has pseudo-terminals only with [`Root::terminals`](crate::Root::terminals);
    /// - removing inotify(7) watches: about twice the program's own time, up to thirty times on a busy machine;
    /// - garbage collection of descriptors in flight over UNIX sockets: less than the program's own time.
    ///
    /// The kernel counts loopback traffic, timers, processes and files almost completely, except loopback traffic with
    /// `CONFIG_IRQ_TIME_ACCOUNTING`.
    ///
    /// Minimum: 1 ms of CPU time in a period, which is 0.01 CPUs.
    ///
    /// Default: no limit.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a number below the minimum, or
    /// too large for the kernel.
    ///
    /// `cpu.max` on v2, `cpu.cfs_quota_us` and `cpu.cfs_period_us` on v1.
    #[must_use]
    pub fn cpu_max(self, cpus: f64) -> Self {
        self.cpu_max_in(cpus, PERIOD)
    }

    /// Limits CPU time as [`cpu_max`](Self::cpu_max) does, in each period of this length, 1 ms to 1 s.
    ///
    /// Minimum: 1 ms of CPU time in a period.
    ///
    /// Default: no limit.
    ///
    /// # Errors
    ///
    /// Those of [`cpu_max`](Self::cpu_max), also for a period outside of 1 ms to 1 s.
    ///
    /// `cpu.max` on v2, `cpu.cfs_quota_us` and `cpu.cfs_period_us` on v1.
    #[must_use]
    pub fn cpu_max_in(mut self, cpus: f64, period: Duration) -> Self {
        self.cpu_max = Some((cpus, period));
        self
    }

    /// Sets the share of CPU time relative to other cgroups below the same parent, 1 to 10000.
    ///
    /// Default: 100.
    ///
    /// `cpu.weight` on v2, `cpu.shares` on v1.
    #[must_use]
    pub fn cpu_weight(mut self, weight: u32) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// Sets the CPUs on which the processes may run, as a list such as `0-3,7`.
    ///
    /// Default: those of the parent.
    ///
    /// `cpuset.cpus`.
    #[must_use]
    pub fn cpuset_cpus(mut self, cpus: impl Into<String>) -> Self {
        self.cpuset_cpus = Some(cpus.into());
        self
    }

    /// Sets the memory (NUMA) nodes from which the processes may allocate, as a list such as `0-1`.
    ///
    /// Default: those of the parent.
    ///
    /// `cpuset.mems`.
    #[must_use]
    pub fn cpuset_mems(mut self, nodes: impl Into<String>) -> Self {
        self.cpuset_mems = Some(nodes.into());
        self
    }

    /// Limits the number of processes and threads, including the program itself. The limit must be at least 1.
    ///
    /// A fork(2) or clone(2) that would exceed it fails with `EAGAIN`.
    /// [`Usage::pids_denied`](crate::outcome::Usage::pids_denied) counts these failures. A limit above the kernel's
    /// maximum (4194304) has no effect.
    ///
    /// Default: no limit.
    ///
    /// `pids.max`.
    #[must_use]
    pub fn pids_max(mut self, count: u64) -> Self {
        self.pids_max = Some(count);
        self
    }

    /// Limits the I/O rate of a block device, by the path of its device node (`/dev/sda`). Can be called for several
    /// devices.
    ///
    /// Writes go through the page cache unless the program opens a file with `O_DIRECT` or `O_SYNC`. v2 limits the rate
    /// at which cached writes reach the disk, and the memory limit bounds how many of them are waiting. v1 does not
    /// limit cached writes, nor does v2 if the parent does not pass on the memory controller.
    /// [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) reports that.
    ///
    /// Default: no limit.
    ///
    /// `io.max` on v2, `blkio.throttle.*` on v1.
    #[must_use]
    pub fn io_max(mut self, device: impl Into<PathBuf>, max: IoMax) -> Self {
        self.io_max.push((device.into(), max));
        self
    }

    /// Sets the share of I/O relative to other cgroups below the same parent, 1 to 1000.
    ///
    /// Default: 100.
    ///
    /// `io.weight` on v2, `blkio.bfq.weight` on v1. Requires an I/O scheduler that supports weights.
    #[must_use]
    pub fn io_weight(mut self, weight: u32) -> Self {
        self.io_weight = Some(weight);
        self
    }

    /// Limits huge pages of one size (`2MB`, `1GB`), in bytes. Can be called for several sizes.
    ///
    /// A seccomp policy denies huge pages unless [`Seccomp::allow_huge_pages`](crate::Seccomp::allow_huge_pages) is
    /// set.
    ///
    /// Default: no limit.
    ///
    /// `hugetlb.*.max` on v2, `hugetlb.*.limit_in_bytes` on v1.
    #[must_use]
    pub fn hugetlb_max(mut self, page_size: impl Into<String>, bytes: u64) -> Self {
        self.hugetlb_max.push((page_size.into(), bytes));
        self
    }

    /// Writes a value to a file of the cgroup, by its name (`memory.low`). Can be called several times.
    ///
    /// The file is written after all other limits. The part of its name before the first dot selects the controller.
    ///
    /// # Errors
    ///
    /// When compiled, [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the file does not
    /// belong to a controller (`cgroup.procs`), or could prevent processes from starting or exiting (`freezer.*`,
    /// `memory.force_empty`, `memory.oom_control`).
    #[must_use]
    pub fn raw(mut self, file: impl Into<String>, value: impl Into<String>) -> Self {
        self.raw.push((file.into(), value.into()));
        self
    }

    /// Allows [`Child::freeze`](crate::Child::freeze) to stop all processes of the sandbox.
    ///
    /// Default: not freezable.
    ///
    /// `cgroup.freeze` on v2, the freezer controller on v1.
    #[must_use]
    pub fn freezable(mut self) -> Self {
        self.freezable = true;
        self
    }

    /// Hides the cgroup from the program.
    ///
    /// Default: shown. The program sees its cgroup, and no other, read-only at `/sys/fs/cgroup`, if the sandbox has a
    /// mount namespace, a cgroup namespace, and a root that begins as [`Root::host`](crate::Root::host) or
    /// [`Root::empty`](crate::Root::empty), and no operation puts anything at `/sys/fs/cgroup`, above it, or below it.
    /// Runtimes with a garbage collector or a pool of threads (the JVM, Node, .NET, Go) read their limits there. Where
    /// they see none they size themselves by the whole machine, and exceed the limits.
    ///
    /// On v1 each hierarchy has its own directory, such as `/sys/fs/cgroup/memory`. If [`memory_max`](Self::memory_max)
    /// or [`cpu_max`](Self::cpu_max) is set, the sandbox also has cgroups in the hierarchies of the controllers cpu,
    /// cpuacct and cpuset, without which the JVM ignores limits.
    ///
    /// If the program runs in a cgroup below the one with the limits (see [`Cgroup`], "Changing the limits from
    /// inside"), it sees the lower one. On v2 that has the same limits, on memory 1 MiB more; on v1 it has none.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Returns whether a limit is set by which programs choose their size.
    fn limits_size(&self) -> bool {
        self.memory_max.is_some() || self.cpu_max.is_some()
    }

    /// Returns whether writes to a block device are limited.
    fn limits_writes(&self) -> bool {
        self.io_max.iter().any(|(_, max)| max.write_bytes.is_some() || max.write_operations.is_some())
    }

    /// Returns whether the kernel may kill processes because of the memory limit.
    pub(crate) fn limits_memory(&self) -> bool {
        self.memory_max.is_some()
    }

    /// Returns the limits on memory in bytes, and on processes.
    pub(crate) fn memory_and_pids(&self) -> [Option<u64>; 2] {
        [self.memory_max, self.pids_max]
    }

    /// Returns the limit on CPU time, as a number of CPUs.
    pub(crate) fn cpus(&self) -> Option<f64> {
        self.cpu_max.map(|(cpus, _)| cpus)
    }
}
