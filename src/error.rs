//! The one error of the crate. Every variant says what was attempted, on what, what the kernel answered, and, where
//! that is known, what to do about it.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno as NixErrno;

use crate::outcome::Layer;

/// An error number of the kernel (errno(3)), shown as `Operation not permitted (EPERM)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Errno(pub i32);

impl Errno {
    /// What to do about a limit of the host, whichever call meets it.
    pub(crate) fn limit(self) -> Option<&'static str> {
        match self.0 {
            libc::EMFILE => Some("the host is at its limit on open descriptors: close some, or raise RLIMIT_NOFILE"),
            libc::ENFILE => Some("the machine is at its limit on open files: raise fs.file-max (sysctl)"),
            libc::ETOOMANYREFS => Some(
                "this user has too many descriptors in flight over UNIX sockets (unix(7)): raise the caller's soft limit \
                 RLIMIT_NOFILE, or end what has sent them",
            ),
            libc::ENOMEM => Some("memory is short, or a limit on it is reached (a cgroup's, RLIMIT_AS)"),
            _ => None,
        }
    }

    /// What to do about a limit of the host, if it is one; else what its user says.
    fn remedy(self, other: Option<&str>) -> Option<String> {
        self.limit().or(other).map(str::to_owned)
    }

    /// The [`io::ErrorKind`] of the number.
    pub fn kind(self) -> io::ErrorKind {
        io::Error::from_raw_os_error(self.0).kind()
    }
}

impl Display for Errno {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let errno = NixErrno::from_raw(self.0);
        match errno {
            NixErrno::UnknownErrno => write!(f, "error {}", self.0),
            _ => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

impl From<NixErrno> for Errno {
    fn from(errno: NixErrno) -> Self {
        Self(errno as i32)
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

/// `: what to do`, or nothing.
struct Remedy<'a>(&'a Option<String>);

impl Display for Remedy<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |remedy| write!(f, ": {remedy}"))
    }
}

/// ` /the/path`, or nothing.
struct On<'a>(&'a Option<PathBuf>);

impl Display for On<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |path| write!(f, " {}", path.display()))
    }
}

/// What to do about a set-up that takes too long.
const SLOW: &str = "check that every file system in the sandbox answers and that no process of a sandbox that is joined stops \
                    others, or raise Sandbox::setup_timeout";

/// Why a sandbox could not be made, a program not be executed, an outcome not be had, or what a program has left not be
/// collected. A program that ran and failed is no error: see [`Termination`](crate::Termination).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration can't be made into a plan. Nothing was started.
    #[error("{what}: {remedy}")]
    Invalid {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
        /// The layer of isolation that this host can't give, if it is that.
        layer: Option<Layer>,
    },

    /// A call failed while the sandbox was set up. Nothing of the sandbox is left.
    #[error("{step}{}: {call}: {errno}{}", On(path), Remedy(remedy))]
    SetUp {
        /// What was being done: a step of the plan.
        step: String,
        /// What it was being done to.
        path: Option<PathBuf>,
        /// The system call.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
        /// What can be done about it, where that is known.
        remedy: Option<String>,
        /// The layer of isolation that was being set up.
        layer: Option<Layer>,
    },

    /// Setting up the sandbox took longer than [`Sandbox::setup_timeout`](crate::Sandbox::setup_timeout). Everything that was
    /// started for it was killed.
    #[error("failed to set up the sandbox within {limit:?}, while {step}{}: {SLOW}", On(path))]
    SetUpTimedOut {
        /// What was being done: the step of the plan that was begun last.
        step: String,
        /// What it was being done to.
        path: Option<PathBuf>,
        /// The time that it had.
        limit: Duration,
    },

    /// A process of the sandbox ended before the program was started.
    #[error("{step}: the process exited without reporting an error: {cause}: {remedy}")]
    Died {
        /// What was being waited for.
        step: &'static str,
        /// What ended it, as far as that is known.
        cause: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },

    /// There is no such program inside the sandbox.
    #[error("executing {}: not found inside the sandbox (ENOENT){}", program.display(), Remedy(remedy))]
    NotFound {
        /// The program as it was named.
        program: PathBuf,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
        /// What can be done about it, where that is known.
        remedy: Option<String>,
    },

    /// The program is there, but can't be executed.
    #[error("executing {}: {errno}{}", program.display(), Remedy(remedy))]
    NotExecutable {
        /// The path that was tried.
        program: PathBuf,
        /// What the kernel answered to execve(2).
        errno: Errno,
        /// What can be done about it, where that is known.
        remedy: Option<String>,
    },

    /// Somebody else in the host took the program's status: the host ignores SIGCHLD, or waits for any child
    /// (`waitpid(-1)`), on a kernel before 6.15, which keeps no copy of it.
    #[error(
        "waiting for the program: its status was taken by another wait of the host (ECHILD): handle SIGCHLD by its \
         default and wait for children by their pid, or use Linux 6.15 or later"
    )]
    StatusTaken,

    /// A process of the sandbox was killed and did not end within 10 seconds. It is reaped by a later spawn of this process,
    /// once it has ended; the host ID and the cgroup of the sandbox stay in use.
    #[error("process {pid} of the sandbox was killed and does not end: it {state}: {remedy}")]
    NotEnded {
        /// The process, as the caller sees it.
        pid: i32,
        /// What keeps it.
        state: String,
        /// What to do about it.
        remedy: String,
    },

    /// systemd was asked for a scope, and gave none: see
    /// [`CgroupParent::SystemdScope`](crate::CgroupParent::SystemdScope). The host stays in its cgroup, but after
    /// [`SystemdFailure::TimedOut`] may be moved yet.
    #[error("{step} {on}: {answer}: {remedy}")]
    Systemd {
        /// What was being done.
        step: &'static str,
        /// What it was being done to: a bus, or the scope.
        on: String,
        /// Why it failed.
        failure: SystemdFailure,
        /// What was answered, in the words of who answered.
        answer: String,
        /// What can be done about it.
        remedy: String,
    },

    /// What a program has left could not be collected: see [`Collector`](crate::Collector). Nothing of a copy stays.
    #[error("{step} {path:?}: {call}: {errno}{}", Remedy(remedy))]
    Collect {
        /// What was being done.
        step: &'static str,
        /// What it was being done to. The names in it may be the program's.
        path: PathBuf,
        /// The system call.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
        /// What can be done about it, where that is known.
        remedy: Option<String>,
    },

    /// A program has left more than a [`Collector`](crate::Collector) takes. Nothing of a copy stays.
    #[error("collecting from {from:?}: {what}: {remedy}")]
    Exceeded {
        /// The directory that was collected from.
        from: PathBuf,
        /// Which limit is exceeded, and by what.
        what: String,
        /// What to do about it.
        remedy: String,
    },

    /// Reading, writing or waiting failed in the host.
    #[error("{what}: {errno}{}", Remedy(remedy))]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the kernel answered.
        errno: Errno,
        /// What can be done about it, where that is known.
        remedy: Option<String>,
    },
}

/// Why systemd gave no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemdFailure {
    /// The bus can't be reached.
    NoBus,
    /// No systemd is on the bus.
    NoManager,
    /// The manager does not let this user have one.
    Refused,
    /// The manager tried, and failed.
    Failed,
    /// There was no answer in time.
    TimedOut,
}

impl SystemdFailure {
    fn kind(self) -> io::ErrorKind {
        match self {
            Self::NoBus | Self::NoManager => io::ErrorKind::NotFound,
            Self::Refused => io::ErrorKind::PermissionDenied,
            Self::Failed => io::ErrorKind::Other,
            Self::TimedOut => io::ErrorKind::TimedOut,
        }
    }
}

/// The result of an operation on a sandbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), remedy: remedy.into(), layer: None }
    }

    /// A call that failed. The remedy is for whatever is no limit of the host.
    pub(crate) fn set_up(
        step: impl Into<String>,
        call: &'static str,
        errno: impl Into<Errno>,
        remedy: Option<&str>,
    ) -> Self {
        let errno = errno.into();
        Self::SetUp { step: step.into(), path: None, call, errno, remedy: errno.remedy(remedy), layer: None }
    }

    /// What its own step says of this answer, which is more than what holds for every call.
    pub(crate) fn advised(mut self, own: Option<&str>) -> Self {
        if let (Self::SetUp { remedy, .. }, Some(own)) = (&mut self, own) {
            *remedy = Some(own.into());
        }
        self
    }

    /// What a call was made on.
    pub(crate) fn on(mut self, what: impl Into<PathBuf>) -> Self {
        if let Self::SetUp { path, .. } = &mut self {
            *path = Some(what.into());
        }
        self
    }

    /// Which layer it is about.
    pub(crate) fn of(mut self, which: impl Into<Option<Layer>>) -> Self {
        if let Self::SetUp { layer, .. } | Self::Invalid { layer, .. } = &mut self {
            *layer = which.into();
        }
        self
    }

    /// A failure of the host while it does `what`.
    pub(crate) fn host<E: Into<Errno>>(what: &'static str) -> impl Fn(E) -> Self {
        move |errno| {
            let errno = errno.into();
            Self::Host { what, errno, remedy: errno.remedy(None) }
        }
    }

    /// A call that failed while something was collected. The remedy is for whatever is no limit of the host.
    pub(crate) fn collect(
        step: &'static str,
        path: impl Into<PathBuf>,
        call: &'static str,
        errno: impl Into<Errno>,
        remedy: Option<&str>,
    ) -> Self {
        let errno = errno.into();
        Self::Collect { step, path: path.into(), call, errno, remedy: errno.remedy(remedy) }
    }

    /// A process of the sandbox ended, and nobody knows why.
    pub(crate) fn died(step: &'static str) -> Self {
        Self::Died {
            step,
            cause: "it was killed from outside, memory is short, or a resource limit is too low for it",
            remedy: "look in the kernel's log for processes that were killed for memory, and raise RLIMIT_CPU and RLIMIT_AS \
                     where the sandbox or its caller has them",
        }
    }

    /// The same error, where the limit on memory of the sandbox's cgroup was met.
    pub(crate) fn for_memory(self) -> Self {
        let Self::Died { step, .. } = self else { return self };
        Self::Died {
            step,
            cause: "the memory limit of the sandbox's cgroup was reached",
            remedy: "raise Cgroup::memory_max: no program starts with less than some 256 KiB",
        }
    }

    /// Whether the program is open for writing somewhere.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::NotExecutable { errno: Errno(libc::ETXTBSY), .. })
    }

    /// The [`io::ErrorKind`] that `std::process` would give.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Invalid { .. } => io::ErrorKind::InvalidInput,
            Self::SetUp { errno, .. }
            | Self::NotExecutable { errno, .. }
            | Self::Collect { errno, .. }
            | Self::Host { errno, .. } => errno.kind(),
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::Exceeded { .. } => io::ErrorKind::QuotaExceeded,
            Self::Systemd { failure, .. } => failure.kind(),
            Self::SetUpTimedOut { .. } | Self::NotEnded { .. } => io::ErrorKind::TimedOut,
            Self::Died { .. } | Self::StatusTaken => io::ErrorKind::Other,
        }
    }

    /// The kernel's answer, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::SetUp { errno, .. }
            | Self::NotExecutable { errno, .. }
            | Self::Collect { errno, .. }
            | Self::Host { errno, .. } => Some(*errno),
            Self::NotFound { .. } => Some(Errno(libc::ENOENT)),
            Self::StatusTaken => Some(Errno(libc::ECHILD)),
            Self::Invalid { .. }
            | Self::Systemd { .. }
            | Self::SetUpTimedOut { .. }
            | Self::NotEnded { .. }
            | Self::Died { .. }
            | Self::Exceeded { .. } => None,
        }
    }

    /// The layer of isolation that can't be had, where it is one that [`Sandbox::best_effort`](crate::Sandbox::best_effort)
    /// can let the sandbox do without.
    pub fn layer(&self) -> Option<Layer> {
        match self {
            Self::Invalid { layer, .. } | Self::SetUp { layer, .. } => *layer,
            _ => None,
        }
    }

    /// The path that the error is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::SetUp { path, .. } | Self::SetUpTimedOut { path, .. } => path.as_deref(),
            Self::NotFound { program, .. } | Self::NotExecutable { program, .. } => Some(program),
            Self::Collect { path, .. } | Self::Exceeded { from: path, .. } => Some(path),
            _ => None,
        }
    }

    /// What can be done about it, where that is known.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Self::Invalid { remedy, .. }
            | Self::NotEnded { remedy, .. }
            | Self::Systemd { remedy, .. }
            | Self::Exceeded { remedy, .. } => Some(remedy),
            Self::SetUp { remedy, .. }
            | Self::Collect { remedy, .. }
            | Self::NotFound { remedy, .. }
            | Self::NotExecutable { remedy, .. }
            | Self::Host { remedy, .. } => remedy.as_deref(),
            Self::Died { remedy, .. } => Some(remedy),
            Self::SetUpTimedOut { .. } => Some(SLOW),
            Self::StatusTaken => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
