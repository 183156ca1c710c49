//! The result of learning from a program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::confine::{FsAccess, Seccomp};
use crate::sandbox::Sandbox;
use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped, Plain};

/// The system calls, files, ports and sockets that a program used in one or several runs: see [`Sandbox::learn`].
///
/// This is plain data. Inspect and edit its fields, merge several runs with [`union`](Self::union), and use it with
/// [`apply`](Self::apply), or with [`seccomp`](Self::seccomp) and [`landlock`](Self::landlock). Its `Display` is a Rust
/// expression that builds the same value. With the feature `serde` it can be stored, for example as JSON.
///
/// ```
/// use std::path::Path;
/// use stockade::landlock::FsAccess;
/// use stockade::{Command, Layer, Sandbox};
///
/// let (learned, outcome) = Sandbox::new().learn(Command::new("cat").arg("/etc/passwd"))?;
/// assert!(outcome.success() && learned.calls.contains("openat"));
/// assert_eq!(learned.paths[Path::new("/etc/passwd")], FsAccess::READ_FILE);
///
/// let narrow = learned.apply(Sandbox::new()).best_effort([Layer::Landlock]);
/// assert!(narrow.status(Command::new("cat").arg("/etc/passwd"))?.success());
/// assert!(!narrow.status(Command::new("mkdir").arg("/tmp/new")).is_ok_and(|outcome| outcome.success()));
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
#[non_exhaustive]
pub struct Learned {
    version: Version<1>,
    /// System calls, by name. Those of [`Learned::UNOBSERVED`] are always included.
    pub calls: BTreeSet<String>,
    /// Landlock access rights that the program needs, by path. A right is recorded at the path at which Landlock checks
    /// it: [`FsAccess::MAKE_REG`] for a created file is recorded at its directory. Paths are absolute, as the program
    /// sees them, and contain no symlinks.
    ///
    /// Rights on a file that the program created are recorded at its directory, since the next run creates another
    /// file. Files of a process in `/proc` are recorded at `/proc`, terminals at `/dev/pts`.
    #[cfg_attr(feature = "serde", serde(with = "As::<BTreeMap<Escaped, Plain>>"))]
    #[cfg_attr(feature = "_schema", schemars(with = "BTreeMap<String, FsAccess>"))]
    pub paths: BTreeMap<PathBuf, FsAccess>,
    /// TCP ports to which the program bound a socket. 0 stands for ports that the kernel chose.
    pub bind: BTreeSet<u16>,
    /// TCP ports to which the program connected, on any host.
    pub connect: BTreeSet<u16>,
    /// Whether the program connected to an abstract UNIX socket that it had not bound itself.
    pub abstract_sockets: bool,
}

impl Learned {
    /// System calls that are always recorded as used, and are not observed.
    ///
    /// Most of these calls act on the program's own memory, time, threads and open descriptors, and are frequent. The
    /// other calls terminate the program or return from a signal handler. Those cannot be observed safely, because a
    /// signal may interrupt the notification.
    #[rustfmt::skip]
    pub const UNOBSERVED: &[&'static str] = &[
        "brk", "clock_gettime", "close", "exit", "exit_group", "fcntl", "fstat", "futex", "getpid", "gettid",
        "gettimeofday", "lseek", "madvise", "mmap", "mprotect", "mremap", "munmap", "poll", "ppoll", "pread64", "preadv",
        "pselect6", "pwrite64", "pwritev", "read", "readv", "restart_syscall", "rt_sigaction", "rt_sigprocmask",
        "rt_sigreturn", "sched_yield", "select", "write", "writev",
    ];

    /// Creates an empty value, to which calls, paths and ports can be added.
    ///
    /// ```
    /// use stockade::landlock::FsAccess;
    /// use stockade::learn::Learned;
    ///
    /// let learned = Learned::new().allow_calls(["openat"]).allow_paths([("/etc/passwd", FsAccess::READ_FILE)]);
    /// assert!(learned.read().eq([std::path::Path::new("/etc/passwd")]));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds system calls, by name.
    #[must_use]
    pub fn allow_calls<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.calls.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds access rights at paths.
    #[must_use]
    pub fn allow_paths<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = (P, FsAccess)>) -> Self {
        for (path, access) in paths {
            *self.paths.entry(path.into()).or_insert(FsAccess::empty()) |= access;
        }
        self
    }

    /// Adds TCP ports to which the program may bind a socket.
    #[must_use]
    pub fn allow_bind(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.bind.extend(ports);
        self
    }

    /// Adds TCP ports to which the program may connect.
    #[must_use]
    pub fn allow_connect(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.connect.extend(ports);
        self
    }

    /// Adds the permission to connect to abstract UNIX sockets of other programs.
    #[must_use]
    pub fn allow_abstract_sockets(mut self) -> Self {
        self.abstract_sockets = true;
        self
    }

    /// Returns the union of both: everything that either of them allows.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.abstract_sockets |= other.abstract_sockets;
        self.allow_calls(other.calls).allow_paths(other.paths).allow_bind(other.bind).allow_connect(other.connect)
    }

    /// Returns the paths of files that the program read, and of directories that it listed.
    pub fn read(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::READ_FILE | FsAccess::READ_DIR)
    }

    /// Returns the paths of files that the program wrote or truncated, and of directories in which it created, moved or
    /// removed entries.
    pub fn written(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::all() - FsAccess::READ_ONLY - FsAccess::IOCTL_DEV - FsAccess::RESOLVE_UNIX)
    }

    /// Returns the paths of files that the program executed, and of the interpreters that the kernel loaded for them.
    pub fn executed(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::EXECUTE)
    }

    fn with(&self, access: FsAccess) -> impl Iterator<Item = &Path> {
        self.paths.iter().filter(move |(_, its)| its.intersects(access)).map(|(path, _)| &**path)
    }

    /// Returns an allow-list of the system calls.
    ///
    /// Arguments that the default policy ([`Seccomp::new`]) denies stay denied. To narrow another policy, use
    /// [`Seccomp::only`].
    pub fn seccomp(&self) -> Seccomp {
        Seccomp::new().only(self.calls.iter().cloned())
    }

    /// Returns the sandbox, narrowed to what was recorded. Its seccomp policy is narrowed to these system calls with
    /// [`Seccomp::only`], and it gets the Landlock policy of [`landlock`](Self::landlock).
    ///
    /// The result never allows more than `sandbox`. If `sandbox` has a Landlock policy, the result has the intersection
    /// of both. In that intersection, a rule of `sandbox` whose path leads through a symlink allows nothing.
    #[must_use]
    pub fn apply(&self, mut sandbox: Sandbox) -> Sandbox {
        let landlock = match &sandbox.config.landlock {
            Some(own) => self.landlock().within(own),
            None => self.landlock(),
        };
        sandbox.config.landlock = Some(landlock);
        sandbox.config.seccomp = sandbox.config.seccomp.only(self.calls.iter().cloned());
        sandbox
    }
}
