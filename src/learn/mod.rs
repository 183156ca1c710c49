//! Learning: a program is run once, and its calls are heard, so that the configuration that it needs comes of it.
//!
//! It stands on top of the sandbox and of the thread that is asked about calls (`watch`): the sandbox's policy is asked
//! to notify of whatever it allows, and a [`Recorder`] notes each call, and has it made.

mod act;
mod addresses;
mod caller;
mod executable;
mod files;
mod record;
mod rules;
mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::Command;
use crate::confine::{FsAccess, Seccomp};
use crate::error::{Error, Result};
use crate::outcome::{Layer, Outcome};
use crate::sandbox::Sandbox;
use record::Recorder;

/// What a program needs, as one run of it or several have shown: [`Sandbox::learn`].
///
/// It is plain data: it can be looked at and edited by its fields, put together from several runs ([`Learned::union`]),
/// and used ([`Learned::apply`]). Its `Display` is a Rust expression that builds the same value, and with the feature
/// `serde` it is JSON, with paths as `serde` has them everywhere in the crate.
///
/// ```
/// use std::path::Path;
/// use stockade::{Command, FsAccess, Layer, Sandbox};
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
#[non_exhaustive]
pub struct Learned {
    /// System calls that it made and that were not refused, by name. [`Learned::UNHEARD`] are always among them.
    pub calls: BTreeSet<String>,
    /// What it did with files, each right at the path at which Landlock asks for it, such as
    /// [`FsAccess::MAKE_REG`] at the directory in which a file was made. Paths are absolute, as seen inside, and without
    /// symbolic links.
    ///
    /// What it had made itself is counted to the directory in which that is: the next run makes it anew. So is what is
    /// in `/proc` of a process, to `/proc`, and terminals, to `/dev/pts`.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    pub paths: BTreeMap<PathBuf, FsAccess>,
    /// TCP ports to which it bound a socket; 0 is one that the kernel chose.
    pub bind: BTreeSet<u16>,
    /// TCP ports to which it connected, of whichever host.
    pub connect: BTreeSet<u16>,
    /// Whether it connected to an abstract Unix socket that it had not bound itself.
    pub abstract_sockets: bool,
}

impl Sandbox {
    /// Runs a command in this sandbox, waits for its end, and gives what it needed, with what came of it. Standard streams
    /// are those of [`Sandbox::status`].
    ///
    /// The sandbox is as it is: what it refuses is refused while the program is learned from, and system calls that its
    /// policy refuses are not learned. Each other one but [`Learned::UNHEARD`] takes a way over a thread of the host, some
    /// ten microseconds and more. Descendants and threads are learned from as well, as long as the program itself runs.
    /// Neither root nor ptrace(2) is needed (seccomp_unotify(2), since Linux 5.5).
    ///
    /// **It is a tool to write a configuration with, no security boundary**: learn from programs that you trust, and look
    /// at what was learned. A program can have it note less than it does: the host looks at paths and descriptors before
    /// the kernel does, and another thread may change them in between. Not seen are:
    ///
    /// - whether a call succeeds: one on a file that is there, or in a directory that is there, is taken for one that
    ///   does, unless the mount is read-only, so that what permissions or Landlock refuse is noted;
    /// - what this run did not come to: learn from several, and join them by [`Learned::union`];
    /// - what no rule of Landlock restricts: looking at files (stat(2)), permissions, owners, times;
    /// - what io_uring does, which the default policy refuses; interpreters of binfmt_misc;
    /// - files in directories that the host's user can't enter, where the sandbox has sub-ids;
    /// - files by descriptors that come from outside, and paths of a program that has changed its root (chroot(2));
    /// - signals to processes outside, where there is no pid namespace: see [`Landlock::any_signal`](crate::Landlock::any_signal).
    ///
    /// Before Linux 5.19, and on later ones in the moment before the thread has taken it up, a signal whose handler was
    /// set without `SA_RESTART` interrupts a call that would not be interrupted else (`EINTR`).
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait`](crate::Child::wait); [`Error::Invalid`] for a sandbox whose policy
    /// asks a callback, and for a program that used more than 64 MiB of paths; [`Error::Host`] if a process can't be looked at, as one that has gained privileges. The program
    /// that fails, or is ended for a limit, is no error: what it did until then is learned.
    pub fn learn(&self, command: impl Into<Command>) -> Result<(Learned, Outcome)> {
        let command = command.into();
        let recorder = Arc::new(Mutex::new(Recorder::new()));
        let ear = recorder.clone();
        let mut child = self.hearing()?.spawn_supervised(&command, move |call| lock(&ear).hear(call))?;
        let outcome = child.wait()?;
        let mut recorder = std::mem::take(&mut *lock(&recorder));
        match recorder.failure.take() {
            Some(error) => Err(error),
            None => Ok((recorder.finish(&command)?, outcome)),
        }
    }

    /// The sandbox whose policy notifies the host of whatever it allows.
    fn hearing(&self) -> Result<Self> {
        let mut sandbox = self.clone();
        if sandbox.config.seccomp.asks() {
            return Err(Error::invalid(
                "a sandbox whose seccomp policy asks a callback (Action::Notify) can't be learned in",
                "allow those calls while you learn, and ask later",
            ));
        }
        // Without the filter nothing is heard.
        sandbox.config.best_effort.retain(|&layer| layer != Layer::Seccomp);
        sandbox.config.seccomp = sandbox.config.seccomp.hearing_all_but(Learned::UNHEARD);
        Ok(sandbox)
    }
}

fn lock(recorder: &Mutex<Recorder>) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Learned {
    /// Calls that are taken for made without being heard, so that they cost nothing while a program is learned from: what
    /// any program does with its own memory, time and threads, and with descriptors that it has. Those that end a program
    /// or return from a signal can't be heard safely, since a signal may interrupt what is heard.
    #[rustfmt::skip]
    pub const UNHEARD: &[&'static str] = &[
        "brk", "clock_gettime", "close", "exit", "exit_group", "fcntl", "fstat", "futex", "getpid", "gettid",
        "gettimeofday", "lseek", "madvise", "mmap", "mprotect", "mremap", "munmap", "poll", "ppoll", "pread64", "preadv",
        "pselect6", "pwrite64", "pwritev", "read", "readv", "restart_syscall", "rt_sigaction", "rt_sigprocmask",
        "rt_sigreturn", "sched_yield", "select", "write", "writev",
    ];

    /// Nothing at all: to be built up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds system calls, by their names.
    #[must_use]
    pub fn allow_calls<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.calls.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds paths, with what is done there.
    #[must_use]
    pub fn allow_paths<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = (P, FsAccess)>) -> Self {
        for (path, access) in paths {
            *self.paths.entry(path.into()).or_insert(FsAccess::empty()) |= access;
        }
        self
    }

    /// Adds TCP ports to bind a socket to.
    #[must_use]
    pub fn allow_bind(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.bind.extend(ports);
        self
    }

    /// Adds TCP ports to connect to.
    #[must_use]
    pub fn allow_connect(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.connect.extend(ports);
        self
    }

    /// Adds abstract Unix sockets of others.
    #[must_use]
    pub fn allow_abstract_sockets(mut self) -> Self {
        self.abstract_sockets = true;
        self
    }

    /// What either needs.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.abstract_sockets |= other.abstract_sockets;
        self.allow_calls(other.calls).allow_paths(other.paths).allow_bind(other.bind).allow_connect(other.connect)
    }

    /// Paths of files that it read, and of directories that it listed.
    pub fn read(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::READ_FILE | FsAccess::READ_DIR)
    }

    /// Paths of files that it wrote or truncated, and of directories in which it made, moved or removed something.
    pub fn written(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::all() - FsAccess::READ_ONLY - FsAccess::IOCTL_DEV - FsAccess::RESOLVE_UNIX)
    }

    /// Paths of files that it executed, with the interpreters that the kernel took for them.
    pub fn executed(&self) -> impl Iterator<Item = &Path> {
        self.with(FsAccess::EXECUTE)
    }

    fn with(&self, access: FsAccess) -> impl Iterator<Item = &Path> {
        self.paths.iter().filter(move |(_, its)| its.intersects(access)).map(|(path, _)| &**path)
    }

    /// An allow-list of the system calls, with what the default policy ([`Seccomp::new`]) refuses of them by their
    /// arguments. Another one is made by [`Seccomp::only`].
    pub fn seccomp(&self) -> Seccomp {
        Seccomp::new().only(self.calls.iter().cloned())
    }

    /// A sandbox that leaves a program what was learned, and nothing else of system calls, files and TCP ports: of its
    /// policy [only](Seccomp::only) the calls, and the rules of [`Learned::landlock`]. It never allows more than before: of
    /// Landlock rules that it has these are what counts, as far as they name paths without symbolic links, and what they
    /// deny by mounts stays denied.
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
