//! Policies that are learned by observing a program.
//!
//! [`Sandbox::learn`] runs a program, and records its system calls and the files, ports and sockets that they use. The
//! result, a [`Learned`], is a starting point for a seccomp allow-list and Landlock rules. It is a development tool,
//! not a security boundary.
//!
//! ```
//! use stockade::{Command, Sandbox};
//!
//! let (learned, _) = Sandbox::new().learn(Command::new("true"))?;
//! println!("{learned}"); // Rust code that builds the same value
//! let narrow = learned.apply(Sandbox::new());
//! # Ok::<(), stockade::Error>(())
//! ```

// The sandbox's policy is changed to notify the caller of every system call that it allows
// (`Seccomp::notify_all_but`). A `Recorder` records each call on the thread that decides notifications (`child`), and
// lets the kernel continue it.

mod addresses;
mod calling_process;
mod effects;
mod executable;
mod file_access;
mod landlock_rules;
mod learned;
mod recorder;
mod rust_code;

use std::sync::{Arc, Mutex};

use crate::child::Killer;
use crate::command::Command;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::locks::lock;
use crate::outcome::Outcome;
use crate::sandbox::Sandbox;
pub use learned::Learned;
use recorder::Recorder;

impl Sandbox {
    /// Runs a command in this sandbox, and returns the system calls, files, ports and sockets that it used, with the
    /// outcome of the run.
    ///
    /// The standard streams are those of [`Sandbox::status`]. The sandbox is in force as configured: accesses that it
    /// denies fail during the run, and system calls that its policy denies are not recorded. Threads and descendants
    /// are observed as well, until the program itself exits. A thread of the caller handles each system call that is
    /// not in [`Learned::UNOBSERVED`], which takes ten microseconds or more.
    ///
    /// # Limitations
    ///
    /// **This is a tool for writing a configuration, not a security boundary.** Learn from programs that you trust, and
    /// review the result. A program can hide what it does: the caller reads paths and descriptors before the kernel
    /// does, and another thread may change them in between.
    ///
    /// The result does not show whether a call succeeded. A call on an existing file, or in an existing directory, is
    /// recorded as if it succeeded, unless the mount is read-only. So calls that file permissions or Landlock deny are
    /// recorded too.
    ///
    /// The result does not include:
    ///
    /// - code paths that this run did not take: merge several runs with [`Learned::union`];
    /// - operations that Landlock cannot restrict: stat(2), changes of permissions, owners and times;
    /// - operations by io_uring, which the default policy denies, and interpreters of binfmt_misc;
    /// - files in directories that the caller's user cannot enter, if the sandbox has subordinate IDs;
    /// - files used through inherited descriptors, and paths of a program that changed its root (chroot(2));
    /// - signals to processes outside of the sandbox, if it has no PID namespace: see
    ///   [`Landlock::any_signal`](crate::Landlock::any_signal).
    ///
    /// While a call is observed, a signal whose handler was set without `SA_RESTART` may interrupt it (`EINTR`), even
    /// if the call is otherwise not interruptible. Since Linux 5.19 this happens only until the caller's thread has
    /// received the notification of the call.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`] and [`Child::wait`](crate::Child::wait), and
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the sandbox's policy has a
    ///   callback ([`Action::Notify`](crate::seccomp::Action::Notify));
    /// - [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) if the program used more than 64 MiB of paths
    ///   and names;
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) (`EBUSY`) if the caller already runs under a seccomp
    ///   filter with a listener;
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if a process cannot be inspected, for example because it gained
    ///   privileges.
    ///
    /// A program that fails or exceeds a limit is not an error: the result contains what it used until then.
    ///
    /// Requires neither root nor ptrace(2).
    ///
    /// See seccomp_unotify(2).
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use stockade::{Command, Sandbox};
    ///
    /// let (learned, outcome) = Sandbox::new().learn(Command::new("cat").arg("/etc/passwd"))?;
    /// assert!(outcome.success() && learned.read().any(|path| path == Path::new("/etc/passwd")));
    ///
    /// // The system calls that it used are enough.
    /// let narrow = Sandbox::new().seccomp(learned.seccomp());
    /// assert!(narrow.output(Command::new("cat").arg("/etc/passwd"))?.outcome.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn learn(&self, command: impl Into<Command>) -> Result<(Learned, Outcome)> {
        self.learn_with_killer(command, |_| {})
    }

    /// Does the same as [`Sandbox::learn`], and calls `started` with a [`Killer`] when the program is running. With it
    /// another thread ends a program that does not exit by itself, such as a server.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::learn`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Signal, Termination};
    ///
    /// let (learned, outcome) = Sandbox::new().learn_with_killer(Command::new("sleep").arg("1000"), |killer| {
    ///     std::thread::spawn(move || {
    ///         std::thread::sleep(std::time::Duration::from_millis(200));
    ///         killer.signal(Signal::TERM)
    ///     });
    /// })?;
    /// assert_eq!(outcome.termination.signal(), Some(Signal::TERM));
    /// assert!(!learned.calls.is_empty());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn learn_with_killer(
        &self,
        command: impl Into<Command>,
        started: impl FnOnce(Killer),
    ) -> Result<(Learned, Outcome)> {
        let command = command.into();
        let recorder = Arc::new(Mutex::new(Recorder::new()));
        let shared = recorder.clone();
        let mut child = self.observed()?.spawn_supervised(&command, move |call| lock(&shared).record(call))?;
        started(child.killer());
        let outcome = child.wait()?;
        let mut recorder = std::mem::take(&mut *lock(&recorder));
        match recorder.failure.take() {
            Some(error) => Err(error),
            None => Ok((recorder.finish(&command)?, outcome)),
        }
    }

    /// Returns this sandbox with a policy that notifies the caller of every system call that it allows.
    fn observed(&self) -> Result<Self> {
        let mut sandbox = self.clone();
        if sandbox.config.seccomp.needs_callback() {
            return Err(Error::invalid(
                "Sandbox::learn does not support a seccomp policy with a callback (Action::Notify)",
                "allow these calls while learning, and add the callback afterwards",
            ));
        }
        // Without the filter nothing is observed.
        sandbox.config.best_effort.retain(|&layer| layer != Layer::Seccomp);
        sandbox.config.seccomp = sandbox.config.seccomp.notify_all_but(Learned::UNOBSERVED);
        Ok(sandbox)
    }
}
