//! What a program may use: limits of the process (setrlimit(2)), of time, and of output.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::time::Duration;

use nix::sys::resource::Resource::{
    RLIMIT_CORE, RLIMIT_CPU, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NOFILE, RLIMIT_SIGPENDING,
};
use nix::sys::resource::{Resource as Known, getrlimit};

use crate::error::{Error, Result};
use crate::plan::helper::Placed;
use crate::plan::{Added, Arg, Program, Step, flags, nr};
use crate::watch::{Bounds, Overflow};

/// A resource that setrlimit(2) limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Resource {
    /// Bytes of address space. Programs that reserve far more than they use (Java, Go, Node) don't start with it.
    As,
    /// Bytes of a core dump. Default 1, which keeps cores also from the pipe of `kernel.core_pattern`; 0 does not
    /// (core(5)). A host whose own hard limit is 0 can't give 1: then it is 0, and an error where there is such a pipe,
    /// unless it is set here.
    Core,
    /// Seconds of CPU time of one process, which is sent SIGXCPU at the soft limit and SIGKILL at the hard one. With 0 it is
    /// at the first tick of the clock that meets it.
    Cpu,
    /// Bytes of data segments and private mappings.
    Data,
    /// Bytes of a file that is written.
    Fsize,
    /// Bytes of memory that is locked. Default: an eighth of the caller's soft limit, at most 1 MiB, as its user may have so
    /// much together (`SHM_LOCK`, `MSG_ZEROCOPY`).
    Memlock,
    /// Bytes of POSIX message queues of the user. Default: an eighth of the caller's soft limit, at most 102,400: one queue
    /// of the default size.
    Msgqueue,
    /// 20 less the lowest nice value that the program may give itself (1 to 40). Default 0, so that it can't make itself
    /// preferred to others, whatever the caller may do.
    Nice,
    /// Number of the highest descriptor, plus 1. Default: 1,024, and 4,096 as the hard limit, at most half of the caller's.
    /// It is also the number of descriptors that the user may have in flight, sent over UNIX sockets and not yet received
    /// (unix(7), `ETOOMANYREFS`). So where the program is the caller's user, the hard limit is at most half of the caller's
    /// *soft* limit, and at most 512, so that the caller and the user's other processes can send some whatever a sandbox does.
    /// The kernel compares the limit with all that the user has in flight: while one sandbox has used up its own, others of an
    /// ordinary user can send none, unless their limit is higher.
    Nofile,
    /// Processes and threads of the user, in its user namespace.
    Nproc,
    /// Highest real-time priority that the program may give itself (1 to 99). Default 0: no real-time scheduling policy.
    Rtprio,
    /// Microseconds of CPU time under a real-time policy without a system call that waits.
    Rttime,
    /// Signals that are queued for the user, and POSIX timers. Default: an eighth of the caller's soft limit, at most 512: on
    /// Linux before 6.13 each timer whose signal is ignored costs an interrupt at every tick, which no cgroup counts.
    Sigpending,
    /// Bytes of the main thread's stack.
    Stack,
}

impl Resource {
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

/// Limits of a program.
///
/// By default nothing limits time, memory, processes or output: files in memory (memfd_create(2)) and System V shared memory are
/// memory like any other, which [`Cgroup::memory_max`](crate::Cgroup::memory_max) limits. Limited are cores ([`Resource::Core`]), the
/// priorities that a program may give itself ([`Resource::Nice`], [`Resource::Rtprio`]) and, so that one sandbox can't use up what the kernel gives to a user as a whole, [`Resource::Nofile`], [`Resource::Sigpending`],
/// [`Resource::Msgqueue`] and [`Resource::Memlock`]; [`Limits::rlimit`] sets other values. Where the program is the caller's user
/// in a user namespace of its own, it may also use an eighth of the inotify instances and watches of the caller
/// (`user.max_inotify_instances`, `user.max_inotify_watches`; namespaces(7)); and of the namespaces and fanotify(7) groups,
/// where its seccomp policy allows them.
///
/// A root caller's sandbox has a user of its own ([`Identity::new`](crate::Identity::new)), so that it shares no such quota
/// with any other process. The sandboxes of an ordinary user still share what has no limit of one program: processes
/// ([`Resource::Nproc`], or better [`Cgroup::pids_max`](crate::Cgroup::pids_max)), the memory of pipes
/// (`fs.pipe-user-pages-soft`: beyond it new pipes of the user are small), and epoll watches (`fs.epoll.max_user_watches`; a
/// limit on memory bounds them). Before Linux 5.14 queued signals, message queues and locked memory are compared with what the
/// user has in all its sandboxes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    wall: Option<Duration>,
    cpu: Option<Duration>,
    idle: Option<Duration>,
    kill_grace: Option<Duration>,
    stdout: Option<u64>,
    stderr: Option<u64>,
    overflow: Overflow,
    /// Of standard error alone.
    #[cfg_attr(feature = "serde", serde(default))]
    stderr_overflow: Option<Overflow>,
    rlimits: Rlimits,
    /// Bytes of address space, where no cgroup limits memory.
    #[cfg_attr(feature = "serde", serde(default))]
    address_space: Option<u64>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) nice: Option<i32>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) oom_score_adj: Option<i32>,
}

impl Limits {
    /// Creates limits that hold the defaults of [`Limits`] alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time from the start of the program on. Who still runs then is ended:
    /// [`Termination::WallTime`](crate::Termination::WallTime).
    ///
    /// The host keeps it while it waits; and the sandbox itself keeps it too, a second later, so that it holds when the host
    /// is stopped or does not wait. Who has ended by itself before the host looks has not exceeded it.
    #[must_use]
    pub fn wall(mut self, time: Duration) -> Self {
        self.wall = Some(time);
        self
    }

    /// CPU time of the program and all that it starts, together, of user mode and of the kernel. Who uses more is ended:
    /// [`Termination::CpuTime`](crate::Termination::CpuTime).
    ///
    /// The host keeps it while it waits, to some milliseconds, by the cgroup of the sandbox, which is made if there is none;
    /// RLIMIT_CPU stands behind it, with the next whole second, in each process for itself.
    #[must_use]
    pub fn cpu(mut self, time: Duration) -> Self {
        self.cpu = Some(time);
        self
    }

    /// Who uses less than a millisecond of CPU time for so long is ended: [`Termination::Idle`](crate::Termination::Idle).
    /// The host keeps it while it waits, by the cgroup of the sandbox, which is made if there is none. Who waits for a CPU
    /// looks the same: this is to be longer than the machine may make anybody wait.
    #[must_use]
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = Some(time);
        self
    }

    /// Who exceeds a limit is sent SIGTERM, and is killed after this time. Default: killed at once.
    #[must_use]
    pub fn kill_grace(mut self, time: Duration) -> Self {
        self.kill_grace = Some(time);
        self
    }

    /// Bytes that [`Child::wait_with_output`](crate::Child::wait_with_output) keeps of standard output. Default: 16 MiB are
    /// kept, and a program that writes more goes on. With this limit, who writes more is ended, [`Termination::Output`](crate::Termination::Output), unless [`Limits::overflow`] says otherwise.
    #[must_use]
    pub fn stdout(mut self, bytes: u64) -> Self {
        self.stdout = Some(bytes);
        self
    }

    /// The same of standard error.
    #[must_use]
    pub fn stderr(mut self, bytes: u64) -> Self {
        self.stderr = Some(bytes);
        self
    }

    /// What becomes of a program that writes too much. Default: it is ended.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The same for standard error alone. Default: that of [`Limits::overflow`].
    #[must_use]
    pub fn stderr_overflow(mut self, overflow: Overflow) -> Self {
        self.stderr_overflow = Some(overflow);
        self
    }

    /// The soft and the hard limit of a resource (setrlimit(2)), of the program and, each for itself, of all that it
    /// starts. Only root may set a hard limit above the host's own, and that only with CAP_SYS_RESOURCE.
    #[must_use]
    pub fn rlimit(mut self, resource: Resource, soft: u64, hard: u64) -> Self {
        self.rlimits.retain(|(known, ..)| *known != resource);
        self.rlimits.push((resource, soft, hard));
        self
    }

    /// Sets the bytes of address space that a program may have where no [`Cgroup::memory_max`](crate::Cgroup::memory_max) is in
    /// force: each process for itself ([`Resource::As`]). Default: no limit.
    ///
    /// A cgroup counts the memory that a program uses. This counts what it reserves, which is often much more, but takes no
    /// right to make cgroups. A limit of [`Resource::As`] that is set by [`Limits::rlimit`] is in force in any case.
    #[must_use]
    pub fn address_space_without_cgroup(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Sets the nice value, -20 to 19: the higher it is, the less CPU time the program gets beside others (setpriority(2)).
    /// Default: the caller's, or 0 if that is negative. The caller's real-time scheduling policy and real-time class of input
    /// and output are never inherited (sched(7), ioprio_set(2)).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) at the spawn for another number.
    /// [`Error::SetUp`](crate::Error::SetUp) if it is lower than the caller's, and the caller lacks CAP_SYS_NICE.
    ///
    /// ```
    /// use stockade::{Command, Limits, Sandbox};
    ///
    /// let output = Sandbox::new().limits(Limits::new().nice(19)).output(Command::new("nice"))?;
    /// assert_eq!(output.stdout, b"19\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn nice(mut self, value: i32) -> Self {
        self.nice = Some(value);
        self
    }

    /// Sets how likely the kernel is to kill the program when the machine or a cgroup has no memory left, -1000 (never) to 1000
    /// (first of all) (proc(5), `/proc/PID/oom_score_adj`). Default: the caller's, or 0 if that is negative.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) at the spawn for another number.
    /// [`Error::SetUp`](crate::Error::SetUp) if it is lower than the caller's, and the caller lacks CAP_SYS_RESOURCE.
    #[must_use]
    pub fn oom_score_adj(mut self, value: i32) -> Self {
        self.oom_score_adj = Some(value);
        self
    }

    /// Refuses priorities that the kernel would cut to what it has.
    pub(super) fn check_priorities(&self) -> Result<()> {
        for (what, value, most) in
            [("nice value", self.nice, -20..=19), ("oom_score_adj", self.oom_score_adj, -1000..=1000)]
        {
            if let Some(value) = value.filter(|value| !most.contains(value)) {
                let remedy = format!("give {} to {}", most.start(), most.end());
                return Err(Error::invalid(format!("{value} is no {what}"), remedy));
            }
        }
        Ok(())
    }

    /// Whether the CPU time must be counted.
    pub(crate) fn counts_cpu(&self) -> bool {
        self.cpu.is_some() || self.idle.is_some()
    }

    /// What the host keeps, of a program that can use so many CPUs at a time, or all.
    pub(crate) fn bounds(&self, cpus: Option<f64>, memory: bool) -> Bounds {
        let all = || std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Bounds {
            wall: self.wall,
            cpu: self.cpu,
            cpus: if self.cpu.is_some() { cpus.unwrap_or_else(all) } else { 0.0 },
            idle: self.idle,
            memory,
            kill_grace: self.kill_grace,
            output: [self.stdout, self.stderr],
            overflow: [self.overflow, self.stderr_overflow.unwrap_or(self.overflow)],
            file_size: self.rlimits.iter().find(|(known, ..)| *known == Resource::Fsize).map(|&(_, soft, _)| soft),
        }
    }

    /// When the init ends the sandbox by itself: it leaves the first word to the host.
    pub(crate) fn last_word(&self) -> Option<Duration> {
        const LATER: Duration = Duration::from_secs(1);
        Some(self.wall?.saturating_add(self.kill_grace.unwrap_or_default()).saturating_add(LATER))
    }

    /// The limits that are set, in words.
    fn said(&self) -> Vec<String> {
        let times = [("wall", self.wall), ("cpu", self.cpu), ("idle", self.idle), ("kill_grace", self.kill_grace)];
        let times = times.into_iter().filter_map(|(name, time)| time.map(|time| format!("{name} {time:?}")));
        let streams = [
            ("stdout", self.stdout, self.overflow),
            ("stderr", self.stderr, self.stderr_overflow.unwrap_or(self.overflow)),
        ];
        let streams = streams.into_iter().filter_map(|(name, most, overflow)| {
            let discards = if overflow == Overflow::Discard { ", the rest is discarded" } else { "" };
            most.map(|most| format!("{name} {most} B{discards}"))
        });
        let address_space =
            self.address_space.map(|most| format!("address space {most} B unless a cgroup limits memory"));
        let rlimits = self.rlimits.iter().map(|&(resource, soft, hard)| {
            let name = format!("{resource:?}").to_uppercase();
            if soft == hard { format!("RLIMIT_{name} {soft}") } else { format!("RLIMIT_{name} {soft} to {hard}") }
        });
        let others = [("nice value", self.nice), ("oom_score_adj", self.oom_score_adj)];
        let others = others.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}")));
        times.chain(streams).chain(address_space).chain(rlimits).chain(others).collect()
    }

    /// Whether any is set.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The resource limits of the program: what is set, and what goes without saying. `memory` says whether a cgroup limits
    /// memory. `netlink` says whether the program may open netlink sockets, whose buffers no limit of memory counts.
    pub(crate) fn of_process(&self, shares_user: bool, memory: bool, netlink: bool) -> Result<Rlimits> {
        let is_set = |resource| self.rlimits.iter().any(|(known, ..)| *known == resource);
        let mut limits = self.rlimits.clone();
        let stands_in = self.address_space.filter(|_| !memory && !is_set(Resource::As));
        limits.extend(stands_in.map(|bytes| (Resource::As, bytes, bytes)));
        for (resource, known, most) in OF_THE_USER {
            if !is_set(resource) {
                let (soft, _) = own(known)?;
                let share = (soft / SHARES).min(most);
                limits.push((resource, share, share));
            }
        }
        if !is_set(Resource::Nofile) {
            let (soft, hard) = own(RLIMIT_NOFILE)?;
            // Half is left for others of the user to send, among them the helper. Most callers have a soft limit of 1,024,
            // whatever that of this one is.
            let (half, most) = if shares_user { (soft / 2, 512) } else { (hard / 2, 4096) };
            let most = if netlink { LEAST_DESCRIPTORS } else { most };
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
        // The kernel counts nanoseconds in 64 bits: a limit of more seconds would be one of few.
        const MOST: u64 = u64::MAX / 1_000_000_000;
        // The host's own stands already, and can't be raised.
        let most = getrlimit(RLIMIT_CPU).map_or(MOST, |(_, hard)| hard.min(MOST));
        let backstop = self.cpu.map(|cpu| cpu.as_secs().saturating_add(1)).filter(|&seconds| seconds <= most);
        limits.extend(backstop.filter(|_| !is_set(Resource::Cpu)).map(|seconds| (Resource::Cpu, seconds, seconds)));
        Ok(limits)
    }
}

impl Display for Limits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said().join(", "))
    }
}

/// What all processes of a user may use together, and the most that a program gets of it.
const OF_THE_USER: [(Resource, Known, u64); 3] = [
    (Resource::Sigpending, RLIMIT_SIGPENDING, 512),
    (Resource::Msgqueue, RLIMIT_MSGQUEUE, 102_400),
    (Resource::Memlock, RLIMIT_MEMLOCK, 1 << 20),
];
/// How many sandboxes of a user it lasts for.
pub(super) const SHARES: u64 = 8;
/// With fewer descriptors many programs don't start.
const LEAST_DESCRIPTORS: u64 = 64;

/// The caller's own soft and hard limit.
fn own(resource: Known) -> Result<(u64, u64)> {
    getrlimit(resource).map_err(Error::host("reading the caller's resource limits"))
}

/// Resources with their soft and hard limits.
type Rlimits = Vec<(Resource, u64, u64)>;

/// Lets the process have as many descriptors in flight as the caller may have at most, so that it can report whatever the program
/// does.
pub(crate) fn raise_descriptors(process: &mut Program) -> Result<()> {
    let (_, hard) = own(RLIMIT_NOFILE)?;
    process.step(Step::new("having room for the descriptors that are reported"));
    set_one(process, Resource::Nofile, hard, hard).ignore();
    Ok(())
}

/// Sets the limits of the process, which are the program's from then on.
pub(crate) fn set(process: &mut Program, limits: Rlimits) {
    for (resource, soft, hard) in limits {
        process.step(Step::new(format!("limiting {resource:?}")).remedies(&[
            (libc::EPERM, "the hard limit is above the caller's own: lower it, or give the caller CAP_SYS_RESOURCE"),
            (libc::EINVAL, "the soft limit is above the hard one"),
        ]));
        set_one(process, resource, soft, hard);
    }
}

fn set_one(process: &mut Program, resource: Resource, soft: u64, hard: u64) -> Added<'_> {
    let limit = [soft, hard].map(u64::to_ne_bytes);
    let limit = process.arena.bytes(limit.as_flattened(), format!("{{rlim_cur = {soft}, rlim_max = {hard}}}"));
    process.call(nr!(SYS_prlimit64), [Arg::NONE, resource.arg(), limit.into(), Arg::NULL])
}

/// The limit under which no core is dumped anywhere.
fn no_core() -> Result<u64> {
    let (_, hard) = getrlimit(RLIMIT_CORE).map_err(Error::host("reading RLIMIT_CORE"))?;
    if hard > 0 {
        return Ok(1);
    }
    // To a file nothing is dumped then; a pipe, or a socket, gets all of it.
    let pattern = fs::read("/proc/sys/kernel/core_pattern").map_err(Error::host("reading kernel.core_pattern"))?;
    match pattern.first() {
        Some(b'|' | b'@') => Err(Error::invalid(
            "a crash of the program would be handed to what kernel.core_pattern names: the host's hard limit on cores is 0, \
             and 1 is needed to prevent it",
            "raise the host's hard RLIMIT_CORE to 1 or more, or let it happen: Limits::rlimit(Resource::Core, 0, 0)",
        )),
        _ => Ok(0),
    }
}

/// Refuses numbers that no descriptor of the program can have (getrlimit(2), `RLIMIT_NOFILE`).
pub(crate) fn check_numbers(placed: &[Placed]) -> Result<()> {
    let (soft, _) = getrlimit(RLIMIT_NOFILE).map_err(Error::host("reading RLIMIT_NOFILE"))?;
    match placed.iter().map(|fd| fd.number).find(|&number| u64::from(number) >= soft && number > 2) {
        Some(number) => Err(Error::invalid(
            format!("a descriptor can't have the number {number}: RLIMIT_NOFILE is {soft}"),
            "use a lower number, or raise the limit of the host",
        )),
        None => Ok(()),
    }
}
