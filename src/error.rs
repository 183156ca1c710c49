//! The error of this crate. Each says what was attempted, on what, what the kernel answered, and, where that is known,
//! what to do about it.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::advice::{generic, shortage};
use crate::escape::{printable, shown};
use crate::layer::Layer;
use crate::skip_reason::SkipReason;
use crate::unix::{Errno, ToErrno};

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a sandbox: in its configuration, its set-up, the execution of the program, or a later operation.
///
/// A program that runs and fails is not an error: see [`Termination`](crate::Termination). When an operation returns an
/// error, everything that it had started or created has been removed, unless the documentation of the [`ErrorKind`]
/// says otherwise.
///
/// The message states the step that failed, its object, the error number that the kernel returned, and what to do. The
/// methods return the same as data.
///
/// ```
/// use stockade::{Command, Errno, ErrorKind, Sandbox};
///
/// let error = Sandbox::new().spawn(Command::new("/usr/bin/no-such-program")).unwrap_err();
///
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.errno(), Some(Errno::ENOENT));
/// assert_eq!(error.path().unwrap(), "/usr/bin/no-such-program");
/// if let Some(hint) = error.hint() {
///     println!("{hint}");
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    kind: ErrorKind,
    /// What was attempted, as a verb with its object: `mount /proc`.
    step: Option<Cow<'static, str>>,
    path: Option<PathBuf>,
    call: Option<&'static str>,
    errno: Option<Errno>,
    /// What is wrong, in words, where that is more than the number of an error.
    cause: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    layer: Option<Layer>,
    searched: Vec<PathBuf>,
    systemd: Option<SystemdFailure>,
    skipped: Option<SkipReason>,
}

/// The kind of an [`Error`].
///
/// ```
/// use stockade::{Command, ErrorKind, Sandbox};
///
/// let error = Sandbox::new().status(Command::new("no-such-program")).unwrap_err();
/// let message = match error.kind() {
///     ErrorKind::NotFound => format!("not in any of {:?}", error.searched()),
///     ErrorKind::InvalidConfiguration => format!("change the sandbox: {error}"),
///     ErrorKind::Unsupported => format!("this host has no {:?}: {error}", error.layer()),
///     _ => error.to_string(),
/// };
/// assert!(message.starts_with("not in any of"), "{message}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Settings contradict each other, or a value that the caller passed is invalid. The operation started and created
    /// nothing.
    InvalidConfiguration,
    /// This host cannot provide a requested layer: the kernel does not support it, or denies it to the caller.
    /// [`Error::layer`] returns the layer. For the layers that [`Sandbox::best_effort`](crate::Sandbox::best_effort)
    /// accepts, it starts the sandbox without the layer.
    Unsupported,
    /// A system call failed while the sandbox was set up, a set-up process exited early, or the caller lacks what every
    /// set-up needs, such as `/proc`.
    SetupFailed,
    /// The set-up took longer than [`Sandbox::setup_timeout`](crate::Sandbox::setup_timeout). [`Error::step`] returns
    /// the step that was in progress.
    SetupTimedOut,
    /// The program does not exist inside the sandbox. [`Error::searched`] returns the paths that were tried.
    NotFound,
    /// The program exists inside the sandbox, and execve(2) failed. With `ENOENT`, its interpreter or dynamic loader
    /// does not exist inside.
    NotExecutable,
    /// The exit status of the program was taken by another wait of the caller: the caller ignores SIGCHLD, or waits for
    /// any child (`waitpid(-1)`). Does not occur since Linux 6.15, which keeps a copy of the status.
    StatusLost,
    /// A limit was exceeded:
    ///
    /// - one of a [`Collector`](crate::collect::Collector);
    /// - the memory limit of the sandbox's cgroup, during the set-up;
    /// - the number of host IDs ([`Identity::host_ids`](crate::Identity::host_ids)): other sandboxes use all of them;
    /// - the memory for the paths and names of a program in [`Sandbox::learn`](crate::Sandbox::learn).
    LimitExceeded,
    /// A process of the sandbox was killed and did not terminate within 10 seconds, for example because it waits for a
    /// device in the kernel. A later spawn of the caller reaps it. The host user ID and the cgroup of the sandbox stay
    /// in use until then.
    Unkillable,
    /// An operation of the caller failed, such as reading, writing, waiting, or sending a signal. Also a file that is
    /// not collected because of what the program wrote there: see [`Error::skip_reason`].
    Io,
}

/// The reason why systemd did not create a scope for
/// [`CgroupParent::SystemdScope`](crate::cgroup::CgroupParent::SystemdScope).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemdFailure {
    /// The bus cannot be reached.
    NoBus,
    /// No systemd is on the bus.
    NoManager,
    /// The manager does not allow this user to create a scope.
    Refused,
    /// The manager failed to create the scope.
    Failed,
    /// The manager did not respond in time. It may still create the scope, and move the caller into it.
    TimedOut,
}

/// The hint for a set-up that takes too long.
const SLOW: &str = "check that every file system in the sandbox answers and that no process of a sandbox that is joined stops \
                    others, or raise Sandbox::setup_timeout";

/// Returns whether the kernel answers so if it lacks a layer, or forbids it.
fn means_unsupported(call: Option<&str>, errno: Errno, layer: Layer) -> bool {
    match errno {
        Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENODEV | Errno::EAFNOSUPPORT | Errno::EPERM => true,
        // Unknown kinds of namespaces, and a limit of 0 on them. What is joined or written may just be wrong.
        Errno::EINVAL | Errno::ENOSPC => layer == Layer::Namespaces && !matches!(call, Some("setns" | "write")),
        _ => false,
    }
}

/// Returns a part of a message in one line, whatever names are in it.
fn one_line(text: impl Into<Cow<'static, str>>) -> Cow<'static, str> {
    match text.into() {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => Cow::Owned(printable(&text)),
    }
}

impl Error {
    fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Details {
            kind,
            step: None,
            path: None,
            call: None,
            errno: None,
            cause: None,
            hint: None,
            layer: None,
            searched: vec![],
            systemd: None,
            skipped: None,
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(&mut self.0);
        self
    }

    /// A configuration that cannot be compiled.
    pub(crate) fn invalid(cause: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::stated(ErrorKind::InvalidConfiguration, cause, hint)
    }

    /// A text with a configuration that cannot be read.
    #[cfg(feature = "config")]
    pub(crate) fn misconfigured(
        path: Option<&Path>,
        cause: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        let error = Self::invalid(cause, hint).while_doing("read the configuration");
        path.into_iter().fold(error, Self::on)
    }

    /// A requested layer that this host cannot provide.
    pub(crate) fn unsupported(
        layer: Layer,
        cause: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::stated(ErrorKind::Unsupported, cause, hint).of(layer)
    }

    /// A failure that is stated in words, with what to do.
    fn stated(kind: ErrorKind, cause: impl Into<Cow<'static, str>>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(kind).with(|error| {
            error.cause = Some(one_line(cause));
            error.hint = Some(one_line(hint));
        })
    }

    /// A system call that failed. Its hint is the first of: that for a shortage of a resource, that of the step, and a
    /// generic one for the error number.
    fn failed(
        kind: ErrorKind,
        step: Cow<'static, str>,
        call: Option<&'static str>,
        errno: impl ToErrno,
        hint: Option<&str>,
    ) -> Self {
        let errno = errno.to_errno();
        let hint = hint.map(|hint| one_line(hint.to_owned()));
        Self::new(kind).with(|error| {
            error.step = Some(one_line(step));
            error.call = call;
            error.errno = Some(errno);
            error.hint = shortage(errno).map(Cow::Borrowed).or(hint).or_else(|| Some(generic(errno, call)));
        })
    }

    /// A system call that failed while the sandbox was set up.
    pub(crate) fn set_up(
        step: impl Into<Cow<'static, str>>,
        call: &'static str,
        errno: impl ToErrno,
        hint: Option<&str>,
    ) -> Self {
        Self::failed(ErrorKind::SetupFailed, step.into(), Some(call), errno, hint)
    }

    /// A system call of the caller that failed. A file that it opens is in `/proc` or `/dev`.
    pub(crate) fn io<E: ToErrno>(step: &'static str) -> impl Fn(E) -> Self {
        move |errno| {
            let errno = errno.to_errno();
            let is_missing = matches!(errno, Errno::ENOENT | Errno::ENOTDIR);
            let hint = is_missing.then_some("mount /proc and /dev where the caller runs");
            Self::failed(ErrorKind::Io, step.into(), None, errno, hint)
        }
    }

    /// A failure of the caller that is stated in words.
    pub(crate) fn failure(
        step: &'static str,
        cause: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::stated(ErrorKind::Io, cause, hint).while_doing(step)
    }

    /// A file that is not read because of what it is.
    pub(crate) fn skipped(path: impl Into<PathBuf>, reason: SkipReason, hint: &'static str) -> Self {
        let error = Self::failure("collect", format!("it is {reason}"), hint);
        error.on(path).with(|error| error.skipped = Some(reason))
    }

    /// A file that cannot be opened for reading.
    pub(crate) fn unreadable(path: impl Into<PathBuf>, errno: Errno, hint: Option<&str>) -> Self {
        let error = Self::collect("collect", path, "open", errno, hint);
        error.with(|error| error.skipped = Some(SkipReason::Unreadable(errno)))
    }

    /// A table of mounts that cannot be read.
    pub(crate) fn mounts(error: io::Error) -> Self {
        Self::io("read /proc/self/mountinfo")(error)
    }

    /// A system call that failed while files were collected or removed.
    /// Returns the error for a path that is not one below a directory.
    pub(crate) fn leads_out(from: &Path, path: &Path) -> Self {
        Self::invalid(
            format!("{path:?} below {from:?} may lead out of it"),
            "pass the path of the file relative to the directory, without `..`",
        )
    }

    pub(crate) fn collect(
        step: &'static str,
        path: impl Into<PathBuf>,
        call: &'static str,
        errno: impl ToErrno,
        hint: Option<&str>,
    ) -> Self {
        let errno = errno.to_errno();
        // The caller has passed the path.
        let hint = hint.or_else(|| (errno == Errno::ENOENT).then_some("pass a path that exists"));
        Self::failed(ErrorKind::Io, step.into(), Some(call), errno, hint).on(path)
    }

    /// A file of a session that is none to read or write.
    pub(crate) fn not_a_regular_file(path: &Path) -> Self {
        let cause = "it is no regular file, or shows data of the kernel";
        Self::stated(ErrorKind::Io, cause, "pass the path of a regular file").while_doing("open").on(path)
    }

    /// The same error of what the caller has asked a process of a session to open.
    pub(crate) fn of_caller(self) -> Self {
        self.with(|error| {
            if error.kind == ErrorKind::SetupFailed && error.errno.is_some() {
                error.kind = ErrorKind::Io;
            }
        })
    }

    /// A limit that was exceeded.
    pub(crate) fn exceeded(
        step: &'static str,
        cause: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::stated(ErrorKind::LimitExceeded, cause, hint).while_doing(step)
    }

    /// A set-up that cannot begin, because of what the caller has or lacks.
    pub(crate) fn not_set_up(
        step: &'static str,
        cause: impl Into<Cow<'static, str>>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::stated(ErrorKind::SetupFailed, cause, hint).while_doing(step)
    }

    /// A set-up that took longer than `limit`.
    pub(crate) fn timed_out(step: impl Into<Cow<'static, str>>, limit: Duration) -> Self {
        let cause = format!("the set-up timeout of {limit:?} expired");
        Self::stated(ErrorKind::SetupTimedOut, cause, SLOW).while_doing(step)
    }

    /// A set-up process that exited, with no evidence why.
    pub(crate) fn died(step: &'static str) -> Self {
        let error = Self::stated(
            ErrorKind::SetupFailed,
            "the set-up process exited without reporting an error: it was killed from outside, memory is short, or a resource \
             limit is too low for it",
            "look in the kernel's log (dmesg) for processes that were killed for memory, and raise RLIMIT_CPU and RLIMIT_AS \
             where the sandbox or its caller has them",
        );
        error.while_doing(step)
    }

    /// The process of a command of a session that exited before it executed its program.
    pub(crate) fn never_executed() -> Self {
        let cause =
            "its process was killed before: by a program of the session, from outside, or because memory is short";
        let hint = "kill the program of the session that kills others, or end the session";
        Self::stated(ErrorKind::SetupFailed, cause, hint).while_doing("execute the program")
    }

    /// A command of a session that has ended.
    pub(crate) fn session_ended() -> Self {
        Self::stated(ErrorKind::SetupFailed, "the session has ended", "start another one (Sandbox::start)")
            .while_doing("start the command")
    }

    /// The same error, where the memory limit of the sandbox's cgroup was exceeded.
    pub(crate) fn for_memory(self) -> Self {
        let is_death = self.0.kind == ErrorKind::SetupFailed && self.0.errno.is_none();
        self.with(|error| {
            if is_death {
                error.kind = ErrorKind::LimitExceeded;
                error.layer = Some(Layer::Cgroup);
                error.cause =
                    Some("the set-up process was killed: the memory limit of the sandbox's cgroup was exceeded".into());
                error.hint = Some("raise Cgroup::memory_max: no program starts with less than some 256 KiB".into());
            }
        })
    }

    /// A program that does not exist inside, and where it was looked for.
    pub(crate) fn not_found(program: PathBuf, searched: Vec<PathBuf>, hint: String) -> Self {
        Self::new(ErrorKind::NotFound).while_doing("execute").on(program).with(|error| {
            error.errno = Some(Errno::ENOENT);
            error.cause = Some("not found inside the sandbox (ENOENT)".into());
            error.hint = Some(one_line(hint));
            error.searched = searched;
        })
    }

    /// A program that execve(2) refused.
    pub(crate) fn not_executable(program: PathBuf, errno: Errno, hint: Option<&'static str>) -> Self {
        Self::new(ErrorKind::NotExecutable).while_doing("execute").on(program).with(|error| {
            error.errno = Some(errno);
            error.hint = Some(hint.map_or_else(|| generic(errno, Some("execve")), Cow::Borrowed));
        })
    }

    /// A status that another wait took.
    pub(crate) fn status_lost() -> Self {
        let error = Self::stated(
            ErrorKind::StatusLost,
            "its exit status was taken by another wait of the calling process (ECHILD)",
            "set SIGCHLD to its default and wait for children by their pid, or use Linux 6.15 or later",
        );
        error.while_doing("wait for the program").with(|error| error.errno = Some(Errno::ECHILD))
    }

    /// A process that was killed and does not terminate.
    pub(crate) fn unkillable(pid: i32, state: &str, hint: String) -> Self {
        let cause = format!("it was killed and does not terminate: it {state}");
        Self::stated(ErrorKind::Unkillable, cause, hint).while_doing(format!("kill process {pid} of the sandbox"))
    }

    /// A scope that systemd did not create.
    #[cfg(feature = "systemd")]
    pub(crate) fn systemd(step: String, failure: SystemdFailure, answer: String, hint: String) -> Self {
        let kind = match failure {
            SystemdFailure::NoBus | SystemdFailure::NoManager => ErrorKind::Unsupported,
            _ => ErrorKind::SetupFailed,
        };
        Self::stated(kind, answer, hint).while_doing(step).with(|error| {
            error.layer = Some(Layer::Cgroup);
            error.systemd = Some(failure);
        })
    }

    /// Adds what was attempted.
    fn while_doing(self, step: impl Into<Cow<'static, str>>) -> Self {
        self.with(|error| error.step = Some(one_line(step)))
    }

    /// Adds the path that it was attempted on.
    pub(crate) fn on(self, path: impl Into<PathBuf>) -> Self {
        self.with(|error| error.path = Some(path.into()))
    }

    /// Replaces the hint by that of the step, which knows more than what holds for every call.
    pub(crate) fn advised(self, hint: Option<Cow<'static, str>>) -> Self {
        self.with(|error| error.hint = hint.map(one_line).or(error.hint.take()))
    }

    /// Adds the layer that was being set up, or that the configuration is about.
    pub(crate) fn of(self, layer: impl Into<Option<Layer>>) -> Self {
        self.with(|error| {
            error.layer = layer.into();
            let (Some(layer), Some(errno)) = (error.layer, error.errno) else { return };
            if error.kind == ErrorKind::SetupFailed && means_unsupported(error.call, errno, layer) {
                error.kind = ErrorKind::Unsupported;
            }
        })
    }

    /// Returns whether the program is open for writing somewhere.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.kind == ErrorKind::NotExecutable && self.0.errno == Some(Errno::ETXTBSY)
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the step that failed, as a verb with its object, such as `create a cgroup`. `None` if no step was
    /// attempted, for example because the configuration is invalid.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// Returns the path that the error concerns: the program, a file of the host, or a path inside the sandbox.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Returns the name of the system call or library function that failed.
    pub fn call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// Returns the error number that the kernel returned.
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// Returns the layer that was being set up, or that this host cannot provide. `None` if the error concerns no
    /// layer.
    pub fn layer(&self) -> Option<Layer> {
        self.0.layer
    }

    /// Returns what to do, as an instruction. If the cause is known, it stands before the instruction, with a colon
    /// after it.
    ///
    /// Always `Some` at present. The words may change in any version.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the paths at which the program was searched for, in this order. Empty unless it is
    /// [`ErrorKind::NotFound`].
    pub fn searched(&self) -> &[PathBuf] {
        &self.0.searched
    }

    /// Returns the reason why systemd did not create a scope. `None` for any other error.
    pub fn systemd_failure(&self) -> Option<SystemdFailure> {
        self.0.systemd
    }

    /// Returns the reason why [`Collector::read`](crate::collect::Collector::read) did not read a file:
    /// [`Collector::copy`](crate::collect::Collector::copy) would skip it, or a directory on the way to it. `None` for
    /// any other error.
    ///
    /// ```
    /// use stockade::collect::{Collector, SkipReason};
    ///
    /// let out = tempfile::tempdir()?;
    /// std::os::unix::fs::symlink("/etc/passwd", out.path().join("answer"))?;
    /// let verdict = match Collector::new().read(out.path(), "answer") {
    ///     Ok(answer) => format!("{} bytes", answer.len()),
    ///     Err(error) if error.skip_reason() == Some(SkipReason::Symlink) => "no symlinks, please".into(),
    ///     Err(error) => return Err(error.into()),
    /// };
    /// assert_eq!(verdict, "no symlinks, please");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn skip_reason(&self) -> Option<SkipReason> {
        self.0.skipped
    }

    /// Returns the [`io::ErrorKind`] that corresponds to the error.
    pub fn io_kind(&self) -> io::ErrorKind {
        if let Some(failure) = self.0.systemd {
            return match failure {
                SystemdFailure::NoBus | SystemdFailure::NoManager => io::ErrorKind::NotFound,
                SystemdFailure::Refused => io::ErrorKind::PermissionDenied,
                SystemdFailure::Failed => io::ErrorKind::Other,
                SystemdFailure::TimedOut => io::ErrorKind::TimedOut,
            };
        }
        match (self.0.kind, self.0.errno) {
            (ErrorKind::NotFound, _) => io::ErrorKind::NotFound,
            (ErrorKind::SetupTimedOut | ErrorKind::Unkillable, _) => io::ErrorKind::TimedOut,
            (ErrorKind::InvalidConfiguration, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::StatusLost, _) => io::ErrorKind::Other,
            (_, Some(errno)) => errno.io_kind(),
            (ErrorKind::LimitExceeded, None) => io::ErrorKind::QuotaExceeded,
            (ErrorKind::Unsupported, None) => io::ErrorKind::Unsupported,
            (_, None) if self.0.skipped.is_some() => io::ErrorKind::InvalidData,
            (_, None) => io::ErrorKind::Other,
        }
    }
}

/// Formats one line: `failed to <step> <path>: <call>: <cause>: <hint>`. Control characters in names are escaped.
impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Details { step, path, call, errno, cause, hint, .. } = &*self.0;
        if let Some(step) = step {
            write!(f, "failed to {step}")?;
            if let Some(path) = path {
                write!(f, " {}", shown(path.as_os_str().as_encoded_bytes()))?;
            }
            f.write_str(": ")?;
        }
        if let Some(call) = call {
            write!(f, "{call}: ")?;
        }
        match (cause, errno) {
            (Some(cause), _) => f.write_str(cause)?,
            (None, Some(errno)) => errno.fmt(f)?,
            (None, None) => {}
        }
        hint.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}

/// Formats the kind and the message, on one line.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    /// Returns the error number that the kernel returned, as an [`Errno`].
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.errno.as_ref().map(|errno| errno as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}
