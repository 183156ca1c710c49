//! The parts of the result of a run: termination, resource usage, and enforcement.
//!
//! The result itself is [`Outcome`], also at the crate root.

mod enforcement;
mod listing;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Count, Escaped, Figure, Form, Seconds};
use crate::syscall::SystemCall;
use crate::unix::{Pid, Signal};
pub use enforcement::{ActiveLayer, Enforcement, Gap, GapKind, Unenforced};

/// The termination of a program: its exit status, the signal that killed it, or the limit that it exceeded (wait(2)).
///
/// If several apply, the first of this list is reported:
///
/// 1. The kernel killed a process of the sandbox because memory was exhausted.
/// 2. The limit that the caller first found to be exceeded, even if the program exited on SIGTERM.
/// 3. A system call for which the sandbox was killed.
/// 4. The CPU time limit, if the program had used that much when it exited: for example, RLIMIT_CPU killed it.
/// 5. [`Child::kill`](crate::Child::kill).
/// 6. The exit status, or the signal that killed the program.
///
/// ```
/// use stockade::{Command, Limits, Sandbox, Termination};
///
/// let sandbox = Sandbox::new().limits(Limits::new().stdout_max(1 << 20));
/// let output = sandbox.output(Command::new("sh").args(["-c", "kill -SEGV $$"]))?;
/// let message = match output.outcome.termination {
///     Termination::Exited(0) => "success".to_owned(),
///     Termination::Exited(code) => format!("failed with status {code}"),
///     Termination::Signaled { signal, .. } => format!("killed by {signal}"),
///     Termination::Output => "too much output".to_owned(),
///     other => format!("stopped: {other}"),
/// };
/// assert_eq!(message, "killed by SIGSEGV");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Termination {
    /// The program exited with this status (exit(2)).
    Exited(i32),
    /// A signal killed the program.
    #[non_exhaustive]
    Signaled {
        /// The signal.
        signal: Signal,
        /// Whether a core was dumped.
        core: bool,
    },
    /// The caller killed the program: [`Child::kill`](crate::Child::kill).
    Killed,
    /// The wall-clock limit was exceeded: [`Limits::wall_time`](crate::Limits::wall_time).
    WallTime,
    /// An output limit was exceeded: [`Limits::stdout_max`](crate::Limits::stdout_max) or
    /// [`Limits::stderr_max`](crate::Limits::stderr_max).
    Output,
    /// The program and its descendants together exceeded the CPU time limit:
    /// [`Limits::cpu_time`](crate::Limits::cpu_time).
    CpuTime,
    /// The program was idle for too long: [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    Idle,
    /// The program made a system call for which the seccomp policy kills the sandbox:
    /// [`Action::Kill`](crate::seccomp::Action::Kill). Contains the [`SystemCall`].
    Syscall(SystemCall),
    /// The program made a system call of another ABI, by its number in that ABI. On x86_64 these are the ABIs of i386,
    /// and of x32, whose numbers have the bit 0x40000000. Such a call kills the sandbox if the seccomp policy has
    /// [`Action::Kill`](crate::seccomp::Action::Kill) for any call.
    ForeignSyscall(i32),
    /// The sandbox exceeded its memory limit, and the kernel killed one of its processes:
    /// [`Cgroup::memory_max`](crate::Cgroup::memory_max). See also [`Termination::HostMemory`].
    ///
    /// On cgroup v1 this is an inference, since v1 does not report which limit was exceeded. The sandbox's own limit is
    /// assumed if memory ever reached it, even with page cache, which the kernel can reclaim. So a program that once
    /// filled its limit with page cache is reported as `Memory` if it is killed later because a parent cgroup is full.
    ///
    /// If the program creates cgroups below its own with lower limits, a process that is killed for one of these is not
    /// reported here. On v1, the program can make such a kill appear as [`Termination::HostMemory`].
    Memory,
    /// The memory of the host or of a parent cgroup was exhausted, and the kernel killed a process of the sandbox,
    /// which had not reached its own limit. Other programs may have used the memory: run the program again.
    ///
    /// Reported only with a cgroup. Without one it is [`Termination::Signaled`] with SIGKILL.
    HostMemory,
}

impl Termination {
    /// Creates the termination by a signal, with a core dump or without.
    #[must_use]
    pub const fn signaled(signal: Signal, core: bool) -> Self {
        Self::Signaled { signal, core }
    }

    /// Returns whether the program exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// Returns the signal that killed the program. `None` unless it is [`Termination::Signaled`].
    pub fn signal(&self) -> Option<Signal> {
        match *self {
            Self::Signaled { signal, .. } => Some(signal),
            _ => None,
        }
    }

    /// Returns the exit status. `None` unless it is [`Termination::Exited`].
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match *self {
            Self::Exited(code) => Some(code),
            _ => None,
        }
    }
}

impl Display for Termination {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Signaled { signal, core } => {
                write!(f, "killed by {signal}{}", if *core { " (core dumped)" } else { "" })
            }
            Self::Killed => f.write_str("killed by the caller"),
            Self::WallTime => f.write_str("wall-clock limit exceeded"),
            Self::Output => f.write_str("output limit exceeded"),
            Self::CpuTime => f.write_str("CPU time limit exceeded"),
            Self::Idle => f.write_str("idle timeout expired"),
            Self::Syscall(call) => write!(f, "killed for calling {call}"),
            Self::ForeignSyscall(number) => write!(f, "killed for system call {number:#x} of another ABI"),
            Self::Memory => f.write_str("memory limit exceeded"),
            Self::HostMemory => f.write_str("killed because the host, or a parent cgroup, ran out of memory"),
        }
    }
}

/// The source of a measured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum Source {
    /// The kernel's resource usage of the program and of those descendants that it waited for (getrusage(2)).
    ///
    /// This is a lower bound: descendants that were not waited for, such as those that outlive their parent, are not
    /// counted.
    Rusage,
    /// The bytes that the caller read from the pipe.
    Pipe,
    /// The sandbox's cgroup: the program and all of its descendants.
    Cgroup,
    /// The sandbox's cgroup, for writes to block devices.
    ///
    /// This is a lower bound: data that is still in the page cache when the program exits is not counted. On cgroup v1,
    /// no data that is written through the page cache is counted.
    CgroupWrites,
}

impl Source {
    /// Returns whether a value of this source is a lower bound: the program may have used more.
    pub fn is_lower_bound(self) -> bool {
        matches!(self, Self::Rusage | Self::CgroupWrites)
    }
}

/// A measured value with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reading<T> {
    /// The measured value.
    pub value: T,
    /// Its source.
    pub source: Source,
}

/// The stored form of a [`Reading`]. An implementation for every type of value would show private traits in the
/// documentation.
#[cfg(feature = "serde")]
struct ReadingForm;

#[cfg(feature = "serde")]
crate::stored::as_form!(Reading<u64>, ReadingForm);
#[cfg(feature = "serde")]
crate::stored::as_form!(Reading<Duration>, ReadingForm);

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Reading", deny_unknown_fields)]
#[serde(bound(serialize = "Figure: Form<T>", deserialize = "Figure: Form<T>"))]
struct ReadingTable<T> {
    #[serde(with = "As::<Figure>")]
    value: T,
    source: Source,
}

#[cfg(feature = "serde")]
impl<T: Copy> Form<Reading<T>> for ReadingForm
where
    Figure: Form<T>,
{
    fn serialize<S: serde::Serializer>(reading: &Reading<T>, serializer: S) -> Result<S::Ok, S::Error> {
        let Reading { value, source } = *reading;
        serde::Serialize::serialize(&ReadingTable { value, source }, serializer)
    }

    fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Reading<T>, D::Error> {
        let ReadingTable { value, source } = serde::Deserialize::deserialize(deserializer)?;
        Ok(Reading { value, source })
    }
}

/// The resource usage of a program. A measured value that is unavailable is `None`. None of them includes the usage of
/// the caller.
///
/// ```
/// use stockade::{Command, Sandbox};
///
/// let outcome = Sandbox::new().status(Command::new("true"))?;
/// if let Some(cpu) = outcome.usage.cpu_time {
///     println!("CPU time: {:?}{}", cpu.value, if cpu.source.is_lower_bound() { " at least" } else { "" });
/// }
/// # assert!(outcome.usage.cpu_time.is_some());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct Usage {
    /// Wall-clock time from the start of the program until the caller found that it had exited.
    #[cfg_attr(feature = "serde", serde(with = "As::<Seconds>"))]
    pub wall_time: Duration,
    /// Bytes that the program wrote to standard output, including those that were discarded. `None` unless
    /// [`Child::wait_with_output`](crate::Child::wait_with_output) or [`Sandbox::output`](crate::Sandbox::output)
    /// collected the stream.
    pub stdout: Option<Reading<u64>>,
    /// Bytes that the program wrote to standard error, including those that were discarded. `None` unless it was
    /// collected, as for `stdout`.
    pub stderr: Option<Reading<u64>>,
    /// CPU time in user mode and in the kernel. Without a cgroup, a lower bound: see [`Source::Rusage`].
    pub cpu_time: Option<Reading<Duration>>,
    /// CPU time in user mode. On cgroup v1, this and `system_time` are counted in clock ticks.
    pub user_time: Option<Reading<Duration>>,
    /// CPU time in the kernel.
    pub system_time: Option<Reading<Duration>>,
    /// Peak memory of all processes together, including page cache, in bytes. `None` without a cgroup.
    ///
    /// On cgroup v2, requires Linux 5.19.
    pub memory_peak: Option<Reading<u64>>,
    /// Time during which at least one process waited for memory (pressure stall information). `None` without a cgroup.
    ///
    /// Requires cgroup v2, and a kernel with `CONFIG_PSI`.
    pub memory_pressure: Option<Reading<Duration>>,
    /// Peak number of processes and threads. `None` without a cgroup.
    ///
    /// Requires Linux 6.11.
    pub pids_peak: Option<Reading<u64>>,
    /// Number of processes and threads that could not be created because of
    /// [`Cgroup::pids_max`](crate::Cgroup::pids_max). On cgroup v1, and before Linux 6.11, those that a limit of a
    /// parent cgroup prevented are included. `None` without a cgroup.
    pub pids_denied: Option<Reading<u64>>,
    /// Bytes read from block devices. `None` without a cgroup.
    pub read_bytes: Option<Reading<u64>>,
    /// Bytes written to block devices. A lower bound: see [`Source::CgroupWrites`]. `None` without a cgroup.
    pub written_bytes: Option<Reading<u64>>,
    /// Largest resident set of one process, in bytes.
    pub max_rss: Option<Reading<u64>>,
    /// Page faults that required a read from disk.
    pub major_faults: Option<Reading<u64>>,
    /// Page faults that required no read from disk.
    pub minor_faults: Option<Reading<u64>>,
    /// Context switches because a process waited.
    pub voluntary_switches: Option<Reading<u64>>,
    /// Context switches because the scheduler preempted a process.
    pub involuntary_switches: Option<Reading<u64>>,
}

/// A process that was still running when the program exited. [`Child`](crate::Child), "Leaked processes", describes how
/// it is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Leaked {
    /// The PID in the caller's PID namespace.
    pub pid: Pid,
    /// The name (proc(5), `/proc/[pid]/comm`), which the program can choose. Control characters and bytes that are not
    /// UTF-8 are escaped, such as `\u{1b}` and `\xff`. Empty if the process was killed before its name was read.
    pub name: String,
}

/// A system call that the seccomp policy denied. [`Outcome::violations`] lists them.
///
/// ```
/// use stockade::{Command, Sandbox, Seccomp};
///
/// let sandbox = Sandbox::new().seccomp(Seccomp::new().deny(["mkdir", "mkdirat"]).record());
/// let outcome = sandbox.status(Command::new("mkdir").arg("/tmp/new"))?;
/// let violation = &outcome.violations[0];
/// assert!(violation.call.name().is_some_and(|name| name.starts_with("mkdir")));
/// assert_eq!(violation.path.as_deref(), Some("/tmp/new".as_ref()));
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Violation {
    /// The system call.
    pub call: SystemCall,
    /// The arguments, as they were in the registers.
    #[cfg_attr(feature = "serde", serde(with = "As::<[Count; 6]>"))]
    pub args: [u64; 6],
    /// The path that was passed. `None` if the call has no path, or the path could not be read.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>", default))]
    pub path: Option<PathBuf>,
    /// Number of such calls: with the same path or, for a call without a path, with the same arguments.
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    pub count: u64,
}

impl Violation {
    pub(crate) fn new(call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>, count: u64) -> Self {
        Self { call, args, path: path.map(|path| OsString::from_vec(path).into()), count }
    }
}

/// Formats the call with its path, as `mount("/mnt")`, or with its arguments if there is no path.
impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}({path:?})", self.call)?,
            None => {
                let args = self.args.map(|arg| format!("{arg:#x}"));
                write!(f, "{}({})", self.call, args.join(", "))?;
            }
        }
        if self.count > 1 { write!(f, " {} times", self.count) } else { Ok(()) }
    }
}

/// The result of a run: how the program terminated, its resource usage, and what was enforced.
///
/// Its `Display` is one line. The alternate form (`{:#}`) is a table.
///
/// ```
/// use stockade::{Command, Sandbox, Termination};
///
/// let outcome = Sandbox::new().status(Command::new("sh").args(["-c", "exit 3"]))?;
/// assert_eq!(outcome.termination, Termination::Exited(3));
/// assert!(outcome.to_string().starts_with("exited with 3 after "));
/// println!("{outcome:#}");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use = "it says whether the program succeeded"]
pub struct Outcome {
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) version: Version<1>,
    /// How the program terminated.
    pub termination: Termination,
    /// The resource usage.
    #[cfg_attr(feature = "serde", serde(default))]
    pub usage: Usage,
    /// The layers of isolation that were in force, and what is missing.
    #[cfg_attr(feature = "serde", serde(default))]
    pub enforcement: Enforcement,
    /// Processes that were still running when the program exited, at most 1,024. Always empty without a cgroup, and if
    /// the program was killed.
    ///
    /// With a PID namespace these processes are killed within 50 ms after the program has exited. If the caller begins
    /// to wait later than 40 ms after the exit, some may be missing here: see [`Omitted::leaked_late`]. Without a PID
    /// namespace see [`Child`](crate::Child), "Leaked processes". In a [`Session`](crate::Session) they go on.
    #[cfg_attr(feature = "serde", serde(default))]
    pub leaked: Vec<Leaked>,
    /// System calls that the seccomp policy denied, if it records them ([`Seccomp::record`](crate::Seccomp::record)),
    /// and the call for which it killed the sandbox. At most 1,024 different calls.
    #[cfg_attr(feature = "serde", serde(default))]
    pub violations: Vec<Violation>,
    /// The entries that are missing in `leaked` and `violations`, whose sizes are limited.
    #[cfg_attr(feature = "serde", serde(default))]
    pub omitted: Omitted,
}

/// The entries that are missing in the lists of an [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct Omitted {
    /// Number of leaked processes beyond the 1,024 of [`Outcome::leaked`].
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    pub leaked: u64,
    /// Whether processes may be missing in [`Outcome::leaked`] because they were killed before they were listed: the
    /// caller began to wait more than 40 ms after the program had exited. False without a cgroup.
    pub leaked_late: bool,
    /// Number of denied system calls that differ from each of the 1,024 of [`Outcome::violations`].
    #[cfg_attr(feature = "serde", serde(with = "As::<Count>"))]
    pub violations: u64,
}

impl Outcome {
    /// Returns whether the program exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.termination.success()
    }
}

/// Formats one line, or a table with `{:#}`.
impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return listing::write(self, f);
        }
        write!(f, "{} after {:.1?}", self.termination, self.usage.wall_time)?;
        if let Some(cpu) = self.usage.cpu_time {
            write!(f, ", {:.1?} of CPU", cpu.value)?;
        }
        if let Some(memory) = self.usage.memory_peak.or(self.usage.max_rss) {
            write!(f, ", peak memory {} KiB", memory.value / 1024)?;
        }
        match self.usage.pids_denied.map_or(0, |refused| refused.value) {
            0 => {}
            1 => write!(f, ", 1 process denied by the limit on processes")?,
            count => write!(f, ", {count} processes denied by the limit on processes")?,
        }
        match self.leaked.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ", 1 leaked process ({})", one.name),
            [first, ..] => {
                let count = self.leaked.len() as u64 + self.omitted.leaked;
                write!(f, ", {count} leaked processes ({} …)", first.name)
            }
        }
    }
}

/// The result of a run with the output of the program, as [`Sandbox::output`](crate::Sandbox::output) returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
#[must_use = "it says whether the program succeeded"]
pub struct Output {
    /// The result of the run.
    pub outcome: Outcome,
    /// The collected standard output: at most [`Limits::stdout_max`](crate::Limits::stdout_max) bytes, by default the
    /// first 16 MiB. Empty if it was not piped.
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>", default))]
    pub stdout: Vec<u8>,
    /// The collected standard error: at most [`Limits::stderr_max`](crate::Limits::stderr_max) bytes, by default the
    /// first 16 MiB. Empty if it was not piped.
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>", default))]
    pub stderr: Vec<u8>,
    /// Whether the program wrote more to standard output than is in [`Output::stdout`]. [`Usage::stdout`] has the
    /// number of bytes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stdout_truncated: bool,
    /// Whether the program wrote more to standard error than is in [`Output::stderr`]. [`Usage::stderr`] has the number
    /// of bytes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stderr_truncated: bool,
}
