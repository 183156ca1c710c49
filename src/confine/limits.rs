//! Limits of time, of output, and of each process (setrlimit(2)). Limits of all processes together are in `cgroup`,
//! quotas of a user in `quotas`.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::time::Duration;

use nix::sys::resource::Resource::{
    RLIMIT_CORE, RLIMIT_CPU, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NOFILE, RLIMIT_SIGPENDING,
};
use nix::sys::resource::{Resource as Known, getrlimit};

use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{Added, Arg, Script, Step, flags, nr};
#[cfg(feature = "serde")]
use crate::stored::{Amount, As, Bytes, Plain, Seconds, table_form};

/// The action when a program exceeds a limit on output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Overflow {
    /// The program is killed: [`Termination::Output`](crate::Termination::Output).
    #[default]
    Kill,
    /// The program continues, and further output is read and discarded.
    Discard,
}

/// The limits that the caller enforces while the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub wall: Option<Duration>,
    /// CPU time of all processes together.
    pub cpu: Option<Duration>,
    /// CPUs that they can use at the same time.
    pub cpus: f64,
    /// Time without any CPU time.
    pub idle: Option<Duration>,
    /// Whether memory is limited.
    pub memory: bool,
    pub kill_grace: Option<Duration>,
    /// Bytes of standard output and standard error.
    pub output: [Option<u64>; 2],
    /// What happens when each of them is exceeded.
    pub overflow: [Overflow; 2],
    /// Maximum size of a file that the program writes, in bytes.
    pub file_size: Option<u64>,
    /// Whether a thread of the program can be traced, also by the caller if it asks for that, and so needs it to exit.
    pub threads_may_be_traced: bool,
}

/// A resource of a process, for [`Limits::rlimit`].
///
/// See setrlimit(2).
///
/// Each variant states its unit. Its default is the caller's limit, unless the variant states another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Resource {
    /// Address space, in bytes. Programs that reserve far more than they use (Java, Go, Node.js) do not start with a
    /// tight limit.
    As,
    /// Size of a core dump, in bytes.
    ///
    /// A limit of 1 also prevents core dumps through a pipe of `kernel.core_pattern`; a limit of 0 does not (core(5)).
    /// Default: 1, or 0 if the caller's hard limit is 0.
    ///
    /// If the caller's hard limit is 0 and there is such a pipe, compiling returns
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    Core,
    /// CPU time of one process, in seconds. The process is sent SIGXCPU at the soft limit and SIGKILL at the hard one.
    /// 0 takes effect at the first timer tick. The outcome is [`Termination::Signaled`](crate::Termination::Signaled)
    /// with SIGXCPU or SIGKILL.
    Cpu,
    /// Data segments and private mappings, in bytes.
    Data,
    /// Size of a written file, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    ///
    /// Default: an eighth of the caller's soft limit, at most 1 MiB, because the kernel counts some of it for each user
    /// (`SHM_LOCK`, `MSG_ZEROCOPY`).
    Memlock,
    /// POSIX message queues of the user, in bytes.
    ///
    /// Default: an eighth of the caller's soft limit, at most 102,400: one queue of the default size.
    Msgqueue,
    /// 20 minus the lowest nice value that the program may set (1 to 40).
    ///
    /// Default: 0. The program cannot lower its nice value, even if the caller may.
    Nice,
    /// The highest descriptor number, plus 1.
    ///
    /// It also limits the descriptors in flight, which were sent over UNIX sockets and not yet received (unix(7),
    /// `ETOOMANYREFS`). For this the kernel counts all descriptors in flight of the user. So if one sandbox of an
    /// unprivileged caller exhausts its limit, the user's other sandboxes cannot send descriptors, unless their limit
    /// is higher.
    ///
    /// Default: 1,024 as the soft limit, and 4,096 as the hard limit, but at most half of the caller's hard limit. If
    /// the program has the caller's user ID on the host, the hard limit is at most 512, and at most half of the
    /// caller's *soft* limit, so that the user's other processes can still send descriptors. With
    /// [`Seccomp::allow_netlink`](crate::Seccomp::allow_netlink) both limits are at most 64.
    Nofile,
    /// Processes and threads of the user, in its user namespace.
    Nproc,
    /// The highest real-time priority that the program may set (1 to 99).
    ///
    /// Default: 0. The program cannot use a real-time scheduling policy.
    Rtprio,
    /// CPU time under a real-time scheduling policy between two blocking system calls, in microseconds.
    Rttime,
    /// Queued signals and POSIX timers of the user.
    ///
    /// Default: an eighth of the caller's soft limit, at most 512. Before Linux 6.13, each timer whose signal is
    /// ignored costs an interrupt at every tick, which no cgroup counts.
    Sigpending,
    /// Stack of the main thread, in bytes.
    Stack,
}

impl Resource {
    /// The name of its constant, as `RLIMIT_NOFILE`.
    fn constant(self) -> String {
        format!("RLIMIT_{}", format!("{self:?}").to_uppercase())
    }

    fn arg(self) -> Arg {
        match self {
            Self::As => flags!(RLIMIT_AS),
            Self::Core => flags!(RLIMIT_CORE),
            Self::Cpu => flags!(RLIMIT_CPU),
            Self::Data => flags!(RLIMIT_DATA),
            Self::Fsize => flags!(RLIMIT_FSIZE),
            Self::Memlock => flags!(RLIMIT_MEMLOCK),
            Self::Msgqueue => flags!(RLIMIT_MSGQUEUE),
            Self::Nice => flags!(RLIMIT_NICE),
            Self::Nofile => flags!(RLIMIT_NOFILE),
            Self::Nproc => flags!(RLIMIT_NPROC),
            Self::Rtprio => flags!(RLIMIT_RTPRIO),
            Self::Rttime => flags!(RLIMIT_RTTIME),
            Self::Sigpending => flags!(RLIMIT_SIGPENDING),
            Self::Stack => flags!(RLIMIT_STACK),
        }
    }
}

/// Limits on time, on output, and on each process.
///
/// | resource | default |
/// |---|---|
/// | wall-clock time, CPU time, idle time | no limit |
/// | output | no limit; [`Child::wait_with_output`](crate::Child::wait_with_output) keeps 16 MiB of each stream |
/// | memory, processes | no limit: see [`Cgroup::memory_max`](crate::Cgroup::memory_max) and [`Cgroup::pids_max`](crate::Cgroup::pids_max) |
/// | core dumps | none ([`Resource::Core`]) |
/// | priorities | none above an ordinary process ([`Resource::Nice`], [`Resource::Rtprio`]) |
/// | descriptors, queued signals, message queues, locked memory | a part of the caller's limits ([`Resource::Nofile`], [`Resource::Sigpending`], [`Resource::Msgqueue`], [`Resource::Memlock`]) |
/// | inotify, fanotify, namespaces | an eighth of the caller's quotas, if the program has the caller's user ID on the host and a user namespace (`user.max_inotify_instances` and the like, namespaces(7)) |
///
/// Files in memory (memfd_create(2)) and System V shared memory count as memory.
///
/// The sandbox of a privileged caller ([`Identity`](crate::Identity)) has a host user ID of its own
/// ([`Identity::new`](crate::Identity::new)), and shares no quota with other processes. The sandboxes of an
/// unprivileged caller share the quotas of its user that are not limits of a process:
///
/// - The number of processes. Limit it with [`Cgroup::pids_max`](crate::Cgroup::pids_max), or else with
///   [`Resource::Nproc`].
/// - The memory of pipes (`fs.pipe-user-pages-soft`). Above it, new pipes of the user are small.
/// - The number of epoll watches (`fs.epoll.max_user_watches`). A limit on memory limits them too.
/// - Before Linux 5.14, queued signals, message queues and locked memory: the kernel compares the limit of each sandbox
///   with the usage of all of them together.
///
/// If `/proc/sys` is read-only for the caller, as in most containers, the quotas of the last row are not limited, and
/// [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) has an entry of
/// [`Layer::Limits`](crate::Layer::Limits).
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
///
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a value out of range, or a soft
///   limit above the hard one.
/// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a limit needs a cgroup that this host does not
///   support ([`Limits::cpu_time`], [`Limits::idle_timeout`]), or if core dumps cannot be prevented
///   ([`Resource::Core`]).
///
/// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the kernel does not allow the caller to
/// set a limit.
///
/// ```
/// use std::time::Duration;
/// use stockade::{Command, Limits, Sandbox, Termination};
///
/// let limits = Limits::new().wall_time(Duration::from_millis(200)).stdout_max(1 << 20);
/// let outcome = Sandbox::new().limits(limits).status(Command::new("sleep").arg("60"))?;
/// assert_eq!(outcome.termination, Termination::WallTime);
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Limits {
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Seconds>>"))]
    wall_time: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Seconds>>"))]
    cpu_time: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Seconds>>"))]
    idle_timeout: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Seconds>>"))]
    kill_grace: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    stdout_max: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>"))]
    stderr_max: Option<u64>,
    overflow: Overflow,
    /// For standard error only.
    stderr_overflow: Option<Overflow>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<RlimitTable>>", rename = "rlimit"))]
    rlimits: Rlimits,
    /// Address space in bytes, if no cgroup limits memory.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>", rename = "address_space_without_cgroup"))]
    address_space: Option<u64>,
    pub(super) nice: Option<i32>,
    pub(super) oom_score_adj: Option<i32>,
}

#[cfg(feature = "serde")]
table_form!(
    /// The limits of a resource.
    RlimitTable { resource: Resource as Plain, soft: u64 as Amount, hard: u64 as Amount }
);

impl Limits {
    /// Creates the default limits: see [`Limits`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limit on wall-clock time since the start of the program. A program that exceeds it is killed:
    /// [`Termination::WallTime`](crate::Termination::WallTime).
    ///
    /// The caller enforces it while it waits. If the caller does not wait or is stopped, the sandbox enforces it one
    /// second later. A program that exits before the caller checks has not exceeded the limit. In a
    /// [`Session`](crate::Session) only a wait enforces it.
    ///
    /// Default: no limit.
    #[must_use]
    pub fn wall_time(mut self, time: Duration) -> Self {
        self.wall_time = Some(time);
        self
    }

    /// Sets the limit on CPU time (user and system) of the program and all of its descendants together. A program that
    /// exceeds it is killed: [`Termination::CpuTime`](crate::Termination::CpuTime).
    ///
    /// The caller enforces it while it waits, to some milliseconds, and reads the CPU time from the sandbox's cgroup. A
    /// cgroup is created if none is requested. In addition, RLIMIT_CPU limits each process to the next whole second.
    ///
    /// If [`Layer::Cgroup`](crate::Layer::Cgroup) is best-effort
    /// ([`Sandbox::best_effort`](crate::Sandbox::best_effort)) and no cgroup can be created, only RLIMIT_CPU applies:
    /// to each process separately. [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) then has an
    /// entry of `Layer::Cgroup`.
    ///
    /// Default: no limit.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if no cgroup of this host measures CPU time.
    ///
    /// When spawned, those of [`Cgroup`](crate::Cgroup).
    #[must_use]
    pub fn cpu_time(mut self, time: Duration) -> Self {
        self.cpu_time = Some(time);
        self
    }

    /// Sets the idle timeout. A program whose processes together use less than a millisecond of CPU time in this period
    /// is killed: [`Termination::Idle`](crate::Termination::Idle).
    ///
    /// The caller enforces it while it waits, and reads the CPU time from the sandbox's cgroup. A cgroup is created if
    /// none is requested. A program that waits for a CPU also counts as idle: choose a timeout that is longer than such
    /// a wait on a busy machine. If [`Layer::Cgroup`](crate::Layer::Cgroup) is best-effort and no cgroup can be
    /// created, this limit does not apply, and [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) has
    /// an entry of `Layer::Cgroup`.
    ///
    /// Default: no timeout.
    ///
    /// # Errors
    ///
    /// Those of [`Limits::cpu_time`].
    #[must_use]
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// Sets the time between SIGTERM and SIGKILL for a program that exceeds a limit on wall-clock time, CPU time, idle
    /// time or output. The program alone gets SIGTERM, and all processes of the sandbox SIGKILL.
    /// [`Child::kill`](crate::Child::kill) sends SIGKILL at once.
    ///
    /// Default: no SIGTERM, and SIGKILL at once.
    #[must_use]
    pub fn kill_grace(mut self, time: Duration) -> Self {
        self.kill_grace = Some(time);
        self
    }

    /// Sets the limit on standard output, in bytes. A program that exceeds it is killed
    /// ([`Termination::Output`](crate::Termination::Output)), unless [`Limits::overflow`] discards the rest.
    ///
    /// Only [`Child::wait_with_output`](crate::Child::wait_with_output) and [`Sandbox::output`](crate::Sandbox::output)
    /// enforce it, since they collect the output, and only if the stream is a pipe
    /// ([`Stdio::piped`](crate::Stdio::piped)). [`Sandbox::status`](crate::Sandbox::status),
    /// [`Child::wait`](crate::Child::wait), [`Child::try_wait`](crate::Child::try_wait) and
    /// [`ChildSet::wait_next`](crate::child::ChildSet::wait_next) do not, and report a gap:
    /// [`GapKind::Output`](crate::outcome::GapKind::Output). A stream that is [`Stdio::null`](crate::Stdio::null) needs
    /// no limit, and has no gap.
    ///
    /// Default: no limit. The first 16 MiB are kept, and the rest is discarded.
    #[must_use]
    pub fn stdout_max(mut self, bytes: u64) -> Self {
        self.stdout_max = Some(bytes);
        self
    }

    /// Sets the limit on standard error, in bytes, as [`Limits::stdout_max`] does for standard output. The same methods
    /// enforce it.
    ///
    /// Default: no limit. The first 16 MiB are kept, and the rest is discarded.
    #[must_use]
    pub fn stderr_max(mut self, bytes: u64) -> Self {
        self.stderr_max = Some(bytes);
        self
    }

    /// Sets the action when the program exceeds a limit on output.
    ///
    /// Default: [`Overflow::Kill`].
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the action when the program exceeds the limit on standard error.
    ///
    /// Default: that of [`Limits::overflow`].
    #[must_use]
    pub fn stderr_overflow(mut self, overflow: Overflow) -> Self {
        self.stderr_overflow = Some(overflow);
        self
    }

    /// Sets the soft and the hard limit on a resource. They apply to the program and, separately, to each process that
    /// it starts. [`u64::MAX`] is unlimited.
    ///
    /// Default: see [`Resource`].
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the soft limit is above the hard
    /// one.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EPERM`) if the hard limit is above the
    /// caller's and the caller lacks CAP_SYS_RESOURCE.
    ///
    /// See setrlimit(2).
    #[must_use]
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.rlimits.retain(|(known, ..)| *known != resource);
        self.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets the limit on the address space of each process ([`Resource::As`]), in bytes, which applies only if no
    /// [`Cgroup::memory_max`](crate::Cgroup::memory_max) is in force.
    ///
    /// A cgroup counts the memory that a program uses, but requires permission to create cgroups. This limit counts the
    /// memory that a program reserves, which is often much more. To limit the address space in every run, use
    /// [`Limits::rlimit`].
    ///
    /// Default: no limit.
    #[must_use]
    pub fn address_space_without_cgroup(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Sets the nice value, -20 to 19. A program with a higher value gets less CPU time than programs with a lower one.
    ///
    /// The caller's real-time scheduling policy and real-time I/O class are never inherited (sched(7), ioprio_set(2)).
    ///
    /// Default: the caller's, or 0 if that is negative.
    ///
    /// ```
    /// use stockade::{Command, Limits, Sandbox};
    ///
    /// let output = Sandbox::new().limits(Limits::new().nice(19)).output(Command::new("nice"))?;
    /// assert_eq!(output.stdout, b"19\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a value out of range.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EACCES`) if the value is below the
    /// caller's and the caller lacks CAP_SYS_NICE.
    ///
    /// See setpriority(2).
    #[must_use]
    pub fn nice(mut self, value: i32) -> Self {
        self.nice = Some(value);
        self
    }

    /// Sets the OOM score adjustment, -1000 to 1000. If the memory of the machine or of a cgroup is exhausted, the
    /// kernel kills a program with 1000 first, and never one with -1000.
    ///
    /// Default: the caller's, or 0 if that is negative.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a value out of range.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EACCES`) if the value is below the
    /// caller's and the caller lacks CAP_SYS_RESOURCE.
    ///
    /// See proc(5), `/proc/PID/oom_score_adj`.
    #[must_use]
    pub fn oom_score_adj(mut self, value: i32) -> Self {
        self.oom_score_adj = Some(value);
        self
    }

    /// Refuses soft limits above their hard limits.
    fn check_rlimits(&self) -> Result<()> {
        match self.rlimits.iter().find(|(_, soft, hard)| soft > hard) {
            Some((resource, soft, hard)) => Err(Error::invalid(
                format!("the soft limit of {} is {soft}, and the hard limit {hard}", resource.constant()),
                "set a soft limit that is at most the hard limit",
            )
            .of(Layer::Limits)),
            None => Ok(()),
        }
    }

    /// Refuses priorities out of range, which the kernel would clamp.
    pub(crate) fn check_priorities(&self) -> Result<()> {
        for (what, value, most) in
            [("nice value", self.nice, -20..=19), ("oom_score_adj", self.oom_score_adj, -1000..=1000)]
        {
            if let Some(value) = value.filter(|value| !most.contains(value)) {
                let remedy = format!("set a value from {} to {}", most.start(), most.end());
                return Err(Error::invalid(format!("{value} is not a valid {what}"), remedy));
            }
        }
        Ok(())
    }

    /// Returns the limit on wall-clock time.
    pub(crate) fn wall_clock(&self) -> Option<Duration> {
        self.wall_time
    }

    /// Whether a limit needs the CPU time of the sandbox, which only a cgroup counts.
    pub(crate) fn counts_cpu(&self) -> bool {
        self.cpu_time.is_some() || self.idle_timeout.is_some()
    }

    /// The limits that the caller enforces. `cpus` is the limit of the cgroup, if there is one.
    pub(crate) fn bounds(&self, cpus: Option<f64>, memory: bool, threads_may_be_traced: bool) -> Bounds {
        let all = || std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Bounds {
            wall: self.wall_time,
            cpu: self.cpu_time,
            cpus: if self.cpu_time.is_some() { cpus.unwrap_or_else(all) } else { 0.0 },
            idle: self.idle_timeout,
            memory,
            kill_grace: self.kill_grace,
            output: [self.stdout_max, self.stderr_max],
            overflow: [self.overflow, self.stderr_overflow.unwrap_or(self.overflow)],
            file_size: self.rlimits.iter().find(|(known, ..)| *known == Resource::Fsize).map(|&(_, soft, _)| soft),
            threads_may_be_traced,
        }
    }

    /// The time at which init, or a helper that stays, terminates the sandbox if the caller does not enforce the
    /// wall-clock limit.
    pub(crate) fn wall_backstop(&self) -> Option<Duration> {
        const LATER: Duration = Duration::from_secs(1);
        Some(self.wall_time?.saturating_add(self.kill_grace.unwrap_or_default()).saturating_add(LATER))
    }

    /// The limits that are set, in words.
    fn descriptions(&self) -> Vec<String> {
        let times = [
            ("wall", self.wall_time),
            ("cpu", self.cpu_time),
            ("idle", self.idle_timeout),
            ("kill_grace", self.kill_grace),
        ];
        let times = times.into_iter().filter_map(|(name, time)| time.map(|time| format!("{name} {time:?}")));
        let streams = [
            ("stdout", self.stdout_max, self.overflow),
            ("stderr", self.stderr_max, self.stderr_overflow.unwrap_or(self.overflow)),
        ];
        let streams = streams.into_iter().filter_map(|(name, most, overflow)| {
            let discards = if overflow == Overflow::Discard { ", the rest is discarded" } else { "" };
            most.map(|most| format!("{name} {most} B{discards}"))
        });
        let address_space =
            self.address_space.map(|most| format!("address space {most} B unless a cgroup limits memory"));
        let rlimits = self.rlimits.iter().map(|&(resource, soft, hard)| {
            let name = resource.constant();
            if soft == hard { format!("{name} {soft}") } else { format!("{name} {soft} to {hard}") }
        });
        let others = [("nice value", self.nice), ("oom_score_adj", self.oom_score_adj)];
        let others = others.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}")));
        times.chain(streams).chain(address_space).chain(rlimits).chain(others).collect()
    }

    /// Whether no limit is set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The resource limits of the program: those that are set, and the defaults. `memory_is_limited` says whether a
    /// cgroup limits memory; `has_netlink`, whether the program may open netlink sockets, whose buffers no limit of
    /// memory counts.
    pub(crate) fn of_process(&self, shares_user: bool, memory_is_limited: bool, has_netlink: bool) -> Result<Rlimits> {
        self.check_rlimits()?;
        let is_set = |resource| self.rlimits.iter().any(|(known, ..)| *known == resource);
        let mut limits = self.rlimits.clone();
        let address_space = self.address_space.filter(|_| !memory_is_limited && !is_set(Resource::As));
        limits.extend(address_space.map(|bytes| (Resource::As, bytes, bytes)));
        for (resource, known, most) in OF_THE_USER {
            if !is_set(resource) {
                let (soft, _) = own(known)?;
                let share = (soft / SHARES).min(most);
                limits.push((resource, share, share));
            }
        }
        if !is_set(Resource::Nofile) {
            let (soft, hard) = own(RLIMIT_NOFILE)?;
            // The other half is for the user's other processes, such as the helper. Most callers have a soft limit of
            // 1,024, even if this one has another.
            let (half, most) = if shares_user { (soft / 2, 512) } else { (hard / 2, 4096) };
            let most = if has_netlink { LEAST_DESCRIPTORS } else { most };
            let hard = half.max(LEAST_DESCRIPTORS).min(hard).min(most);
            limits.push((Resource::Nofile, hard.min(1024), hard));
        }
        for resource in [Resource::Nice, Resource::Rtprio].into_iter().filter(|&resource| !is_set(resource)) {
            limits.push((resource, 0, 0));
        }
        if !is_set(Resource::Core) {
            let most = no_core()?;
            limits.push((Resource::Core, most, most));
        }
        // The kernel counts nanoseconds in 64 bits: a larger number of seconds would overflow to a small limit.
        const MOST: u64 = u64::MAX / 1_000_000_000;
        // The caller's hard limit is in force already, and cannot be raised.
        let most = getrlimit(RLIMIT_CPU).map_or(MOST, |(_, hard)| hard.min(MOST));
        let backstop = self.cpu_time.map(|cpu| cpu.as_secs().saturating_add(1)).filter(|&seconds| seconds <= most);
        limits.extend(backstop.filter(|_| !is_set(Resource::Cpu)).map(|seconds| (Resource::Cpu, seconds, seconds)));
        Ok(limits)
    }
}

impl Display for Limits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.descriptions().join(", "))
    }
}

/// Resources that the kernel counts for each user, and the maximum that a program gets of them.
const OF_THE_USER: [(Resource, Known, u64); 3] = [
    (Resource::Sigpending, RLIMIT_SIGPENDING, 512),
    (Resource::Msgqueue, RLIMIT_MSGQUEUE, 102_400),
    (Resource::Memlock, RLIMIT_MEMLOCK, 1 << 20),
];
/// The number of sandboxes of a user that these quotas suffice for.
pub(crate) const SHARES: u64 = 8;
/// Many programs do not start with fewer descriptors.
const LEAST_DESCRIPTORS: u64 = 64;

/// Reads the caller's soft and hard limit.
fn own(resource: Known) -> Result<(u64, u64)> {
    getrlimit(resource).map_err(Error::io("read the caller's resource limits"))
}

/// Reads the caller's soft and hard limit of descriptors.
pub(crate) fn descriptors() -> Result<(u64, u64)> {
    own(RLIMIT_NOFILE)
}

/// Resources with their soft and hard limits.
pub(crate) type Rlimits = Vec<(Resource, u64, u64)>;

/// Raises the helper's limit of descriptors in flight to the caller's hard limit, so that it can report the start even
/// if the program has many in flight.
pub(crate) fn raise_descriptors(process: &mut Script) -> Result<()> {
    let (_, hard) = descriptors()?;
    process.step(Step::new("raise RLIMIT_NOFILE for the report"));
    set_one(process, Resource::Nofile, hard, hard).ignore();
    Ok(())
}

/// Raises the helper's limit at the mark of its script, if more descriptors are open at once than the caller may have.
/// If the hard limit is lower too, that fails without CAP_SYS_RESOURCE.
pub(crate) fn raise_for_mounts(helper: &mut Script) -> Result<()> {
    /// For descriptors that no slot holds.
    const OTHERS: u64 = 8;
    /// By this number the count may be too high.
    const TOO_HIGH: u64 = 8;
    let (soft, hard) = descriptors()?;
    let needed = helper.most_descriptors() + OTHERS;
    if needed <= soft {
        return Ok(());
    }
    helper.at_mark(|helper| {
        let what = format!("raise the limit of descriptors, RLIMIT_NOFILE, from {hard} to {needed} for the mounts");
        helper.step(Step::new(what).remedies(&[(
            libc::EPERM,
            "raise the caller's hard limit, give the caller CAP_SYS_RESOURCE, bind a directory above many of the binds, or add last \
             the writable bind that has many mounts in it",
        )]));
        set_one(helper, Resource::Nofile, hard, hard).ignore();
        if needed > hard {
            let raised = set_one(helper, Resource::Nofile, needed, needed);
            if needed <= hard + OTHERS + TOO_HIGH {
                raised.ignore();
            }
        }
    });
    helper.insert_at_mark();
    Ok(())
}

/// Sets the limits of the process, which are the program's from then on.
pub(crate) fn set(process: &mut Script, limits: Rlimits) {
    for (resource, soft, hard) in limits {
        process.step(
            Step::new(format!("set {}", resource.constant())).remedies(&[(
                libc::EPERM,
                "lower the hard limit to the caller's, or give the caller CAP_SYS_RESOURCE",
            )]),
        );
        set_one(process, resource, soft, hard);
    }
}

fn set_one(process: &mut Script, resource: Resource, soft: u64, hard: u64) -> Added<'_> {
    let limit = [soft, hard].map(u64::to_ne_bytes);
    let limit = process.arena.bytes(limit.as_flattened(), format!("{{rlim_cur = {soft}, rlim_max = {hard}}}"));
    process.call(nr!(SYS_prlimit64), [Arg::NONE, resource.arg(), limit.into(), Arg::NULL])
}

/// The limit of core dumps that prevents all of them.
fn no_core() -> Result<u64> {
    let (_, hard) = getrlimit(RLIMIT_CORE).map_err(Error::io("read RLIMIT_CORE"))?;
    if hard > 0 {
        return Ok(1);
    }
    // A limit of 0 prevents files, but a pipe or a socket still gets the dump.
    let pattern = fs::read("/proc/sys/kernel/core_pattern").map_err(Error::io("read kernel.core_pattern"))?;
    match pattern.first() {
        Some(b'|' | b'@') => Err(Error::unsupported(
            Layer::Limits,
            "core dumps of the program would be written to the pipe of kernel.core_pattern: a limit of 1 prevents that, but \
             the caller's hard RLIMIT_CORE is 0",
            "raise the caller's hard RLIMIT_CORE to 1 or more, or allow it with Limits::rlimit(Resource::Core, 0, 0)",
        )),
        _ => Ok(0),
    }
}

/// Refuses descriptor numbers above `RLIMIT_NOFILE` (getrlimit(2)).
pub(crate) fn check_numbers(mut numbers: impl Iterator<Item = u32>) -> Result<()> {
    let (soft, _) = getrlimit(RLIMIT_NOFILE).map_err(Error::io("read RLIMIT_NOFILE"))?;
    match numbers.find(|&number| u64::from(number) >= soft && number > 2) {
        Some(number) => Err(Error::invalid(
            format!("a descriptor cannot have the number {number}: RLIMIT_NOFILE is {soft}"),
            "use a lower number, or raise the caller's limit",
        )),
        None => Ok(()),
    }
}
