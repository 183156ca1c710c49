//! What came of a command: how it ended, what it used, and what of the isolation was enforced. Plain data, made by
//! `watch` from what the kernel says.

mod table;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal as NixSignal;

use crate::error::Error;
use crate::system_call::SystemCall;

/// A signal, by its number: also the real-time signals, which have no name (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Signal(pub i32);

impl Signal {
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(libc::SIGINT);
    /// Asks a process to end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Ends a process, which can't handle it.
    pub const KILL: Self = Self(libc::SIGKILL);
}

impl Display for Signal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match NixSignal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// How a program ended: as the kernel tells its parent (wait(2)), or, if it exceeded a limit, for which one it was ended.
/// What counts is, in this order: that the kernel killed a process of it for memory; the first limit that the host found
/// exceeded, whatever it did when it was asked to end; a system call that ended the sandbox; that it used too much CPU time;
/// how it ended itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Termination {
    /// It called exit(2) with this status.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// Which one.
        signal: Signal,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It was ended by [`Child::kill`](crate::Child::kill).
    Killed,
    /// It was ended because its time was over: [`Limits::wall`](crate::Limits::wall).
    WallTime,
    /// It was ended because it had written too much: [`Limits::stdout`](crate::Limits::stdout).
    Output,
    /// It or its descendants used more CPU time than they may: [`Limits::cpu`](crate::Limits::cpu).
    CpuTime,
    /// It was ended because it did nothing: [`Limits::idle`](crate::Limits::idle).
    Idle,
    /// It made a system call for which the policy ends the sandbox: [`Action::Kill`](crate::Action::Kill).
    Syscall(SystemCall),
    /// The same of another ABI of the architecture, by the number there, which means another call than here: on x86_64 of
    /// i386, or, with the bit 0x40000000, of x32. Any such call ends the sandbox if the policy ends it for some call.
    ForeignSyscall(i32),
    /// The program exceeded its memory limit, and the kernel killed a process of it:
    /// [`Cgroup::memory_max`](crate::Cgroup::memory_max). The limit that was met is its own: see
    /// [`Termination::HostMemory`].
    ///
    /// Cgroup v1 does not tell for which limit the kernel killed. There it is taken to be its own if the program ever met that
    /// limit, also if memory could be reclaimed then, as page cache can. A program that fills its limit with page cache and is
    /// killed later because a parent cgroup is full is therefore reported as `Memory` on v1.
    ///
    /// A program that may create cgroups below its own can limit them. A process that is killed for such a limit alone changes
    /// nothing: the program goes on, and ends as it does. On v1 it can also have such a kill taken for [`Termination::HostMemory`].
    Memory,
    /// The kernel killed a process of it for memory although the program had not met a limit of its own: the memory of the
    /// machine, or of a cgroup above the sandbox's, was used up, maybe by others. The result says nothing about the program;
    /// run it again.
    ///
    /// Known only with a cgroup. Without one it is [`Termination::Signaled`] with SIGKILL.
    HostMemory,
}

impl Termination {
    /// Whether the program exited with 0.
    pub fn success(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// The exit status, if the program exited.
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
                write!(f, "ended by {signal}{}", if *core { " (core dumped)" } else { "" })
            }
            Self::Killed => f.write_str("killed by the host"),
            Self::WallTime => f.write_str("ended at its limit of time"),
            Self::Output => f.write_str("ended at its limit of output"),
            Self::CpuTime => f.write_str("ended at its limit of CPU time"),
            Self::Idle => f.write_str("ended because it did nothing"),
            Self::Syscall(call) => write!(f, "ended because it called {call}"),
            Self::ForeignSyscall(number) => write!(f, "ended because it made system call {number:#x} of another ABI"),
            Self::Memory => f.write_str("ended at its limit of memory"),
            Self::HostMemory => f.write_str("killed because the memory of the host, or of a cgroup above, was used up"),
        }
    }
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Source {
    /// The kernel's account of the program and of those descendants that it waited for (getrusage(2)). A lower bound of what
    /// all of them used: a descendant that nobody waited for is missing, as one that outlived its parent.
    Rusage,
    /// Counted by the host as it read the pipe.
    Pipe,
    /// The sandbox's cgroup: the program and all of its descendants, whoever waited for them.
    Cgroup,
    /// The sandbox's cgroup, of what the kernel has written to block devices for it. A lower bound of what all of them wrote:
    /// what waits in the page cache when the sandbox ends is missing, and on cgroup v1 all that went through it.
    CgroupWrites,
}

impl Source {
    /// Whether the program may have used more than a figure from here says.
    pub fn is_lower_bound(self) -> bool {
        matches!(self, Self::Rusage | Self::CgroupWrites)
    }
}

/// A figure with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reading<T> {
    /// The figure.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

/// What a program used. A figure that could not be had is absent; none contains the host's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Usage {
    /// From the start of the program until the host saw its end.
    pub wall: Duration,
    /// Bytes that came from standard output, kept or not.
    pub stdout: Option<Reading<u64>>,
    /// Bytes that came from standard error, kept or not.
    pub stderr: Option<Reading<u64>>,
    /// CPU time in all. Without a cgroup it is a lower bound: see [`Source::Rusage`].
    pub cpu: Option<Reading<Duration>>,
    /// CPU time in user mode. A cgroup of v1 counts it and the next one by ticks of the clock.
    pub cpu_user: Option<Reading<Duration>>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Reading<Duration>>,
    /// Most bytes of memory that all processes had together, page cache among them.
    pub memory_peak: Option<Reading<u64>>,
    /// Time for which some process had to wait for memory (PSI, cgroup v2).
    pub memory_pressure: Option<Reading<Duration>>,
    /// Most processes and threads at a time (since Linux 6.11).
    pub pids_peak: Option<Reading<u64>>,
    /// How often the limit on processes refused to start a process or a thread (`pids.events`): see
    /// [`Cgroup::pids_max`](crate::Cgroup::pids_max). On cgroup v1, and before Linux 6.11, also for the limit of a group above.
    #[cfg_attr(feature = "serde", serde(default))]
    pub pids_refused: Option<Reading<u64>>,
    /// Bytes that were read from block devices.
    pub read_bytes: Option<Reading<u64>>,
    /// Bytes that were written to block devices. It is a lower bound: see [`Source::CgroupWrites`].
    pub written_bytes: Option<Reading<u64>>,
    /// Largest resident set of one process, in bytes.
    pub max_rss: Option<Reading<u64>>,
    /// Page faults that needed a read from a disk.
    pub major_faults: Option<Reading<u64>>,
    /// Page faults that did not.
    pub minor_faults: Option<Reading<u64>>,
    /// Times that the program gave the CPU up to wait.
    pub voluntary_switches: Option<Reading<u64>>,
    /// Times that the scheduler took the CPU away.
    pub involuntary_switches: Option<Reading<u64>>,
}

/// A process that was alive still when the program had ended, and that ended with the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Leaked {
    /// Its pid, as the host saw it.
    pub pid: i32,
    /// Its name (proc(5), `/proc/[pid]/comm`), which the program has chosen: control characters, and bytes that are no UTF-8,
    /// stand as escapes, such as `\u{1b}` and `\xff`. Empty if it was killed before its name was read.
    pub name: String,
}

/// A system call that the policy refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Violation {
    /// Which one.
    pub call: SystemCall,
    /// Its arguments, as they were in the registers.
    pub args: [u64; 6],
    /// The path that it named, if it is a call that names one, and the path could be read.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    pub path: Option<PathBuf>,
    /// How often it was made, with the same path, or without one with the same arguments.
    pub count: u64,
}

impl Violation {
    pub(crate) fn new(call: SystemCall, args: [u64; 6], path: Option<Vec<u8>>, count: u64) -> Self {
        Self { call, args, path: path.map(|path| OsString::from_vec(path).into()), count }
    }
}

/// `mount("/mnt")`, or the arguments of a call that names no path.
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

/// A layer of isolation, as [`Enforcement`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Layer {
    /// Namespaces, new or joined.
    Namespaces,
    /// A root of the sandbox's own.
    Root,
    /// User and group IDs other than the host's root, which the program can't become. In force neither with
    /// [`Identity::caller`](crate::Identity::caller) where the caller is root, nor with maps or groups that contain 0 of the
    /// host.
    Identity,
    /// No capability in any set but those of [`Capabilities::keep`](crate::Capabilities::keep), and none to be gained. Not in
    /// force where set-user-ID programs have their effect ([`Sandbox::allow_new_privs`](crate::Sandbox::allow_new_privs)) and
    /// the bounding set can't be emptied.
    Capabilities,
    /// `no_new_privs`: no set-uid or file-capability program gains anything.
    NoNewPrivs,
    /// A session without a controlling terminal of the host.
    Session,
    /// Limits of time, of output, and of the process. A sandbox that requests none has no entry, although the default
    /// quotas of [`Limits`](crate::Limits) apply to it.
    Limits,
    /// A cgroup of the sandbox's own.
    Cgroup,
    /// A filter of system calls.
    Seccomp,
    /// Rules on paths, ports and processes.
    Landlock,
    /// Files that are handed in for reading stay read-only, those for writing are only written to, and flags of pipes and
    /// terminals are not shared: see [`Command::fd`](crate::Command::fd).
    Descriptors,
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Identity => "identity",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no_new_privs",
            Self::Session => "session",
            Self::Limits => "limits",
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Descriptors => "descriptors",
        })
    }
}

/// What of a layer was asked for and not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Lost {
    /// The layer.
    pub layer: Layer,
    /// What was asked for.
    pub requested: String,
    /// Why it could not be had: what was tried, what the kernel said, and what to do.
    pub why: String,
}

impl Lost {
    /// Something of the layer that an error is about.
    pub(crate) fn new(requested: impl Into<String>, error: &Error) -> Self {
        // An error without a layer never comes here.
        let layer = error.layer().unwrap_or(Layer::Limits);
        Self { layer, requested: requested.into(), why: error.to_string() }
    }
}

/// Which layers of isolation were in force while the program ran.
///
/// A layer that was requested and can't be enforced is an error at `spawn`, unless it is among those of
/// [`Sandbox::best_effort`](crate::Sandbox::best_effort): then what is missing of it is in `lost`. A layer that is in force
/// in part is both in `enforced`, with what it consists of, and in `lost`, with what is missing; for
/// [`Enforcement::has`] it is not in force.
///
/// ```
/// use stockade::{Cgroup, Command, Layer, Sandbox};
///
/// let sandbox = Sandbox::new().cgroup(Cgroup::new().pids_max(64)).best_effort([Layer::Cgroup]);
/// // A program that can be trusted, to see what an untrusted one would have.
/// let enforced = sandbox.status(Command::new("true"))?.enforced;
///
/// assert!(enforced.has(Layer::Namespaces) && enforced.has(Layer::Seccomp));
/// for lost in &enforced.lost {
///     println!("without {}: {}", lost.requested, lost.why); // where this user may make no cgroups
/// }
/// for gap in &enforced.gaps {
///     println!("the program can still reach {gap}");
/// }
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Enforcement {
    /// The layers in force, whole or in part, each with what it consists of.
    pub enforced: Vec<(Layer, String)>,
    /// What was requested and is not in force.
    pub lost: Vec<Lost>,
    /// What the program can reach although the layers in force are meant to prevent it, because the kernel lacks what it takes,
    /// or the configuration leaves it open: UNIX sockets and FIFOs in read-only trees of the host (see [`Root`](crate::Root));
    /// without a PID namespace the user's other processes; with the caller's root its terminals; an `oom_score_adj` that
    /// the program can take back. Each entry names what would close the gap. Nothing that was requested is among them: that is an
    /// error, or in `lost`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gaps: Vec<String>,
}

impl Enforcement {
    /// Whether a layer was in force, and nothing that was requested of it is missing.
    pub fn has(&self, layer: Layer) -> bool {
        let is_missing = self.lost.iter().any(|lost| lost.layer == layer);
        !is_missing && self.enforced.iter().any(|(has, _)| *has == layer)
    }

    /// Notes what was lost of descriptors.
    pub(crate) fn lose(&mut self, lost: Vec<Lost>) {
        self.lost.extend(lost);
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Outcome {
    /// How the program ended.
    pub termination: Termination,
    /// What it used.
    pub usage: Usage,
    /// What of the isolation was in force.
    pub enforced: Enforcement,
    /// Who was alive still when the program had ended by itself: of the processes in the sandbox's cgroup, so that without
    /// one it is empty. 1,024 at most.
    ///
    /// They are killed when the program has ended, whether or not the caller waits for that. A caller that waits has them
    /// listed first; for one that comes later than 40 ms it may be too late, which [`Omitted::leaked_late`] says.
    pub leaked: Vec<Leaked>,
    /// What the seccomp policy refused, if it records it ([`Seccomp::record`](crate::Seccomp::record)), and the call for
    /// which it ended the sandbox: 1,024 different ones at most.
    pub violations: Vec<Violation>,
    /// How much is missing in the lists above, which are bounded.
    #[cfg_attr(feature = "serde", serde(default))]
    pub omitted: Omitted,
}

/// The number of entries that the lists of an [`Outcome`] have no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Omitted {
    /// Processes beyond the 1,024 of [`Outcome::leaked`].
    pub leaked: u64,
    /// Whether processes may be missing in [`Outcome::leaked`] because they were killed before the caller asked for them:
    /// [`Child::wait`](crate::Child::wait) was called more than 40 ms after the end of the program. False without a cgroup,
    /// where nobody is listed at all.
    #[cfg_attr(feature = "serde", serde(default))]
    pub leaked_late: bool,
    /// Refused system calls that differ from each of the 1,024 of [`Outcome::violations`].
    pub violations: u64,
}

impl Outcome {
    /// Whether the program exited with 0.
    pub fn success(&self) -> bool {
        self.termination.success()
    }
}

/// One line, or with `{:#}` a table.
impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return table::write(self, f);
        }
        write!(f, "{} after {:.1?}", self.termination, self.usage.wall)?;
        if let Some(cpu) = self.usage.cpu {
            write!(f, ", {:.1?} of CPU", cpu.value)?;
        }
        if let Some(memory) = self.usage.memory_peak.or(self.usage.max_rss) {
            write!(f, ", {} kB at most", memory.value / 1024)?;
        }
        match self.usage.pids_refused.map_or(0, |refused| refused.value) {
            0 => {}
            1 => write!(f, ", 1 process refused by the limit on processes")?,
            count => write!(f, ", {count} processes refused by the limit on processes")?,
        }
        match self.leaked.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ", 1 process left behind ({})", one.name),
            [first, ..] => {
                let count = self.leaked.len() as u64 + self.omitted.leaked;
                write!(f, ", {count} processes left behind ({} …)", first.name)
            }
        }
    }
}

/// What came of a command, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Output {
    /// How the program ended, and what it used.
    pub outcome: Outcome,
    /// What it wrote to standard output, if that was piped: the first 16 MiB, or as many bytes as
    /// [`Limits::stdout`](crate::Limits::stdout) allows.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, if that was piped: the first 16 MiB, or as many bytes as
    /// [`Limits::stderr`](crate::Limits::stderr) allows.
    pub stderr: Vec<u8>,
    /// Whether it wrote more to standard output than is in [`Output::stdout`]. [`Usage::stdout`] has the number of bytes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stdout_truncated: bool,
    /// Whether it wrote more to standard error than is in [`Output::stderr`]. [`Usage::stderr`] has the number of bytes.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stderr_truncated: bool,
}
