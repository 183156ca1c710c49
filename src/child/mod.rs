//! Waiting for running programs, and the decisions about their system calls.
//!
//! The handle to one program is [`Child`], also at the crate root.

mod child_set;
mod deadline;
mod interaction;
mod killer;
mod output;
mod polling;
mod pty;
mod session_commands;
mod supervisor;
mod violations;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollTimeout;

use crate::error::{Error, ErrorKind, Result};
use crate::layer::Layer;
pub use child_set::ChildSet;
use deadline::{LimitAction, Stage};
pub(crate) use interaction::first_size;
pub use killer::Killer;
use output::{CapturedStreams, Counted};
use polling::UsagePoller;
pub use pty::Pty;
#[cfg(feature = "tokio")]
pub(crate) use pty::{end_if_closed, resize};
pub(crate) use session_commands::{SessionCommands, SupervisedCommand};
pub(crate) use supervisor::{Callback, Programs, Supervisor};
pub use supervisor::{Decision, Notification};
use violations::ViolationLog;

use crate::cgroup::Account;
use crate::confine::{Bounds, Namespaces};
use crate::launch::{ReapedSandbox, Running, poll_timeout};
use crate::outcome::{
    Enforcement, Gap, GapKind, Leaked, Omitted, Outcome, Output, Reading, Source, Termination, Usage,
};
use crate::stored::Version;
use crate::sys::wait::{Exit, Status};
use crate::trace::{self, Waiting};
use crate::unix::{Pid, Signal};

/// A handle to a running sandboxed program. Unlike [`std::process::Child`], **dropping it kills the program and
/// everything that the program has started**, and reaps it.
///
/// The program does not depend on the thread that has spawned it.
///
/// # Leaked processes
///
/// A process that still runs when the program exits is leaked. If the sandbox has a cgroup, [`Outcome::leaked`] lists
/// these processes. They are killed as follows:
///
/// - With a PID namespace, the kernel kills all of them within 50 ms, whether or not the caller waits.
/// - Without a PID namespace, the program's process group is killed when the program exits (requires Linux 6.9).
///   [`Child::wait`], or dropping the `Child`, kills the group and all processes in the sandbox's cgroup.
/// - Without a PID namespace and without a cgroup, a process that has left the process group (setsid(2)) is not killed.
///
/// # Limits
///
/// The caller enforces the limits on wall-clock time, CPU time and idle time while it waits, in any of these ways:
///
/// - [`Child::wait`], [`Child::wait_with_output`] and [`ChildSet::wait_next`] block.
/// - [`Child::try_wait`] does not block. An event loop calls it when the descriptor of [`AsFd`] is readable, and when
///   [`Child::next_deadline`] has expired. The descriptor is the pidfd of the program, which becomes readable when the
///   program exits (pidfd_open(2)).
///
/// If the caller does not wait, only the wall-clock limit is enforced, one second late, by the sandbox itself.
///
/// A [`Killer`] kills the program from another thread in the meantime.
///
/// # In a session
///
/// What is said here of the sandbox holds for the command in a [`Session`](crate::Session), with three differences:
///
/// - A process that still runs when the program exits goes on, until the session ends. [`Child::wait`] does not kill it.
/// - Killing or dropping the `Child`, and a limit, kill the program's process group, and everything that the program has started if
///   the session has a cgroup.
/// - No limit on time is enforced while the caller does not wait.
///
/// # Example
///
/// ```
/// use std::io::Write;
///
/// use stockade::{Command, Sandbox, Stdio};
///
/// let mut child = Sandbox::new().spawn(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()))?;
/// if let Some(stdin) = &mut child.stdin {
///     stdin.write_all(b"hello")?;
/// }
/// let output = child.wait_with_output()?;
/// assert!(output.outcome.success());
/// assert_eq!(output.stdout, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a `Child` kills the program"]
#[non_exhaustive]
pub struct Child {
    /// The write end of the pipe of standard input. `None` if that is not [`Stdio::piped`](crate::Stdio::piped).
    pub stdin: Option<File>,
    /// The read end of the pipe of standard output. `None` if that is not piped.
    pub stdout: Option<File>,
    /// The read end of the pipe of standard error. `None` if that is not piped.
    pub stderr: Option<File>,
    /// The caller's side of the pseudo-terminal of [`Command::pty`](crate::Command::pty). `None` without one.
    pub pty: Option<Pty>,
    /// Namespaces of the sandbox, if they are kept.
    namespaces: Vec<(Namespaces, OwnedFd)>,
    running: Running,
    bounds: Bounds,
    stage: Stage,
    poller: UsagePoller,
    /// When the limits were checked last.
    checked: Instant,
    /// When it was looked at last whether traced threads keep the program from exiting.
    looked: Instant,
    enforcement: Enforcement,
    supervision: Option<ProgramSupervisor>,
    /// The processes that were still running when the program had exited, and how many more there were.
    leaked: Option<(Vec<Leaked>, u64)>,
    outcome: Option<Outcome>,
    /// Why there is no outcome, though the program was killed or has exited.
    failed: Option<Error>,
    waiting: Waiting,
}

/// How the caller decides system calls of a program.
#[derive(Debug)]
pub(crate) enum ProgramSupervisor {
    /// By a supervisor of its own.
    Own(Supervisor),
    /// By that of its session.
    OfSession(SupervisedCommand),
}

impl ProgramSupervisor {
    /// Returns the log after the program has exited.
    fn finish(&mut self) -> ViolationLog {
        match self {
            Self::Own(supervisor) => supervisor.finish(),
            Self::OfSession(command) => command.finish(),
        }
    }
}

/// The time between two attempts to thaw a killed program that has not exited.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Time between two looks at whether another thread has killed the program: that wakes who waits, unless the program is
/// kept from exiting.
const KILLER_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks at whether threads that are traced keep the program from exiting, where its policy allows ptrace(2).
const THREADS_INTERVAL: Duration = Duration::from_secs(1);

impl Child {
    /// `ends` are the caller's ends of pipes, `pty` its side of the terminal.
    pub(crate) fn new(
        running: Running,
        ends: [Option<OwnedFd>; 3],
        pty: Option<OwnedFd>,
        namespaces: Vec<(Namespaces, OwnedFd)>,
        bounds: Bounds,
        enforcement: Enforcement,
        supervision: Option<ProgramSupervisor>,
    ) -> Self {
        let stage = Stage::new(&bounds, running.started());
        let poller = UsagePoller::new(&bounds, running.started());
        let checked = running.started();
        let [stdin, stdout, stderr] = ends.map(|end| end.map(File::from));
        let pty = pty.map(Pty::new);
        Self {
            stdin,
            stdout,
            stderr,
            pty,
            namespaces,
            running,
            bounds,
            stage,
            poller,
            checked,
            looked: checked,
            enforcement,
            supervision,
            leaked: None,
            outcome: None,
            failed: None,
            waiting: Waiting::new(),
        }
    }

    /// Returns the PID of the program in the caller's PID namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.running.pid())
    }

    /// Returns a descriptor of each namespace that the sandbox has created or joined, if
    /// [`Sandbox::keep_namespaces`](crate::Sandbox::keep_namespaces) is set. The user namespace is the first, as it is
    /// entered first. [`Session::namespaces`](crate::Session::namespaces) returns those of a session.
    ///
    /// They are opened before the program is executed, and stay open as long as this `Child`: the namespaces remain
    /// when the program has exited, without processes. They close when the caller executes a program (`FD_CLOEXEC`).
    /// A tool opens the namespace as `/proc/PID/fd/N`, with the PID of the caller and the number of the descriptor.
    ///
    /// Entering a namespace requires `CAP_SYS_ADMIN` in the user namespace that owns it (setns(2)). Root has it: `nsenter
    /// --net=/proc/PID/fd/N ip link`. Any other caller has it inside the user namespace, if the sandbox has a root user
    /// ([`Identity::uid`](crate::Identity::uid) of 0): `nsenter --preserve-credentials --user=… --net=… ip link`. **A process that enters is not confined by the other layers of the sandbox**, and the program can
    /// attack it: the process sees the files and processes that the program has prepared.
    ///
    /// ```
    /// use stockade::{Command, Namespaces, Sandbox};
    ///
    /// let child = Sandbox::new().keep_namespaces().spawn(Command::new("sleep").arg("1000"))?;
    /// let network = child.namespaces().iter().find(|(kind, _)| *kind == Namespaces::NET).map(|(_, fd)| fd);
    /// assert!(network.is_some());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn namespaces(&self) -> &[(Namespaces, OwnedFd)] {
        &self.namespaces
    }

    /// Sends a signal to the program, and to none of the processes that it has started. Returns `Ok` if the program has
    /// exited.
    ///
    /// The signal never reaches another process that has the same PID later (pidfd_send_signal(2)).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.running.signal(signal.number()) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::io("send a signal to the program")(errno)),
        }
    }

    /// Kills the program and everything that it has started. Returns `Ok` if the program has exited.
    ///
    /// [`Child::wait`] then reports [`Termination::Killed`], unless the program had exited before, or a wait had found
    /// it to exceed a limit. A limit that no wait has noticed does not count.
    ///
    /// # Errors
    ///
    /// Those of [`Killer::kill`].
    pub fn kill(&mut self) -> Result<()> {
        self.killer().kill()
    }

    /// Returns a handle that kills the program from another thread, also while this thread is in [`Child::wait`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use stockade::{Command, Sandbox, Termination};
    ///
    /// let mut child = Sandbox::new().spawn(Command::new("sleep").arg("1000"))?;
    /// let killer = child.killer();
    /// let thread = std::thread::spawn(move || {
    ///     std::thread::sleep(Duration::from_millis(50));
    ///     killer.kill()
    /// });
    /// assert_eq!(child.wait()?.termination, Termination::Killed);
    /// # thread.join().expect("the thread does not panic")?;
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn killer(&self) -> Killer {
        Killer::of(&self.running)
    }

    /// Waits until the program has exited, and kills the processes that it has left running, but for those of a
    /// [`Session`](crate::Session).
    ///
    /// Closes the pipe of standard input first. Every call returns the same outcome.
    ///
    /// Does not read the other pipes: a program that fills one waits until the caller reads it. Does not enforce limits
    /// on output, and reports each as a gap ([`GapKind::Output`]): use [`Sandbox::output`](crate::Sandbox::output) or
    /// [`Child::wait_with_output`].
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::StatusLost`] if another wait of the caller took the exit status. Does not occur since Linux 6.15.
    /// - [`ErrorKind::SetupFailed`] if another program of the [`Session`](crate::Session) killed the process before it
    ///   executed this program.
    /// - [`ErrorKind::Unkillable`] if the program was killed and does not terminate within 10 seconds. Another process
    ///   that does not terminate is reported in [`Enforcement::unenforced`].
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use stockade::{Command, Sandbox, Stdio, Termination};
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "read code; exit $code"]).stdin(Stdio::piped());
    /// let mut child = Sandbox::new().spawn(command)?;
    /// child.stdin.as_mut().expect("it is piped").write_all(b"7\n")?;
    /// assert_eq!(child.wait()?.termination, Termination::Exited(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(&mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        while !self.has_exited(poll_timeout(self.next_deadline()))? {}
        self.finish(Counted::default())
    }

    /// Returns the outcome, or `None` if the program has not exited. Does not block. Kills the program if it has
    /// exceeded a limit.
    ///
    /// Unlike [`Child::wait`], it does not close the pipe of standard input. Like it, it does not enforce limits on
    /// output.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`].
    ///
    /// ```
    /// use std::thread::sleep;
    /// use std::time::Duration;
    ///
    /// use stockade::{Command, Sandbox};
    ///
    /// let mut child = Sandbox::new().spawn(Command::new("sleep").arg("0.1"))?;
    /// let outcome = loop {
    ///     match child.try_wait()? {
    ///         Some(outcome) => break outcome,
    ///         None => sleep(Duration::from_millis(10)), // or other work
    ///     }
    /// };
    /// assert!(outcome.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        match self.has_exited(PollTimeout::ZERO)? {
            true => self.finish(Counted::default()).map(Some),
            false => Ok(None),
        }
    }

    /// Waits until the program has exited, and collects what it writes to the piped streams.
    ///
    /// Both streams are read at the same time, so that neither pipe fills up. Output that a leaked process would write
    /// later is not waited for.
    ///
    /// Keeps the first 16 MiB of each stream, or as many bytes as [`Limits::stdout_max`](crate::Limits::stdout_max) and
    /// [`Limits::stderr_max`](crate::Limits::stderr_max) allow. A program that exceeds such a limit is killed
    /// ([`Termination::Output`]), unless the limit discards what exceeds it ([`Overflow`](crate::limits::Overflow)).
    /// Without a limit the rest is read, counted in [`Usage`] and discarded. [`Output::stdout_truncated`] and
    /// [`Output::stderr_truncated`] report that a part is missing.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`], and [`ErrorKind::Io`] if a pipe cannot be read.
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Stdio};
    ///
    /// let mut command = Command::new("sh");
    /// command.args(["-c", "echo result; echo warning >&2"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    /// let output = Sandbox::new().spawn(command)?.wait_with_output()?;
    /// assert!(output.outcome.success());
    /// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"result\n"[..], &b"warning\n"[..]));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn wait_with_output(self) -> Result<Output> {
        let mut collecting = Collecting::new(self)?;
        while !collecting.advance(poll_timeout(collecting.child().next_deadline()))? {}
        collecting.finish()
    }

    /// Returns the time by which [`Child::try_wait`] must be called next to enforce the limits in time. Where the policy allows
    /// ptrace(2), this is in a second at the latest: a thread that asks to be traced keeps the program from exiting until `try_wait`
    /// releases it. Returns `None` if there is neither: then the descriptor of [`AsFd`] alone indicates when to call it.
    ///
    /// Each call of `try_wait` changes this time. Limits on output are not enforced by `try_wait`, but by
    /// [`Child::wait_with_output`].
    ///
    /// A loop with poll(2), which other event loops do alike:
    ///
    /// ```
    /// use std::os::fd::AsFd;
    /// use std::time::{Duration, Instant};
    ///
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use stockade::{Command, Limits, Sandbox, Termination};
    ///
    /// let sandbox = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(50)));
    /// let mut child = sandbox.spawn(Command::new("sleep").arg("1000"))?;
    /// let outcome = loop {
    ///     if let Some(outcome) = child.try_wait()? {
    ///         break outcome;
    ///     }
    ///     let timeout = match child.next_deadline() {
    ///         // Rounded up, so that the deadline has expired when poll returns.
    ///         Some(deadline) => {
    ///             let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    ///             PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    ///         }
    ///         None => PollTimeout::NONE,
    ///     };
    ///     poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], timeout)?;
    /// };
    /// assert_eq!(outcome.termination, Termination::WallTime);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_finished() {
            return None;
        }
        if self.is_killed() {
            return self.checked.checked_add(UNBLOCK_INTERVAL);
        }
        let poll = self.poller.due.filter(|_| self.stage.exceeded().is_none());
        let threads = self.bounds.threads_may_be_traced.then(|| self.looked.checked_add(THREADS_INTERVAL)).flatten();
        let is_shared = self.running.is_kill_switch_shared();
        let kill = is_shared.then(|| self.checked.checked_add(KILLER_INTERVAL)).flatten();
        [self.stage.deadline(), poll, kill, threads].into_iter().flatten().min()
    }

    /// Does the same as `has_exited` without waiting.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_exited_now(&mut self) -> Result<bool> {
        self.has_exited(PollTimeout::ZERO)
    }

    /// Returns whether the sandbox was reaped, or given up.
    fn is_finished(&self) -> bool {
        self.outcome.is_some() || self.failed.is_some()
    }

    /// Returns whether the program was killed, because of a limit or at the request of the caller.
    fn is_killed(&self) -> bool {
        self.running.is_kill_requested() || self.stage.is_killed()
    }

    /// Returns whether the program has exited, or does not exit though it was killed, after waiting for that for at
    /// most `timeout`. Enforces the limits if it has not.
    fn has_exited(&mut self, timeout: PollTimeout) -> Result<bool> {
        if self.is_finished() {
            return Ok(true);
        }
        self.waiting.begin(self.pid());
        let has_exited = self.running.has_exited(timeout).map_err(wait_failed)? || self.running.is_overdue();
        if !has_exited {
            self.enforce_limits(None);
        }
        Ok(has_exited)
    }

    /// Terminates or kills the sandbox if a limit is exceeded: `exceeded`, or one that this call finds.
    fn enforce_limits(&mut self, exceeded: Option<Termination>) {
        let now = Instant::now();
        self.checked = now;
        if self.bounds.threads_may_be_traced && now.saturating_duration_since(self.looked) >= THREADS_INTERVAL {
            self.looked = now;
            self.running.release_threads();
        }
        if self.is_killed() {
            self.running.unblock_exit();
            // A limit on time or usage that is exceeded after the kill is not its reason.
            if exceeded.is_none() {
                return;
            }
        }
        let found = exceeded.or_else(|| self.poll_usage(now));
        // The caller may have been delayed, for example by a signal handler. If the program has exited by itself in the
        // meantime, it has not exceeded a limit on time.
        let is_over_time = found.is_some() || self.stage.deadline().is_some_and(|until| now >= until);
        if exceeded.is_none() && is_over_time && self.running.has_exited(PollTimeout::ZERO) == Ok(true) {
            return;
        }
        let action = match found {
            Some(limit) => self.stage.exceed(limit, now, &self.bounds),
            None => LimitAction::Nothing,
        };
        for action in [action, self.stage.advance(now, &self.bounds)] {
            match action {
                LimitAction::Nothing => {}
                LimitAction::Terminate => drop(self.running.signal(libc::SIGTERM)),
                LimitAction::Kill => self.running.kill(),
            }
        }
    }

    /// Reads the figures of the cgroup if that is due. Returns the limit that they exceed.
    fn poll_usage(&mut self, now: Instant) -> Option<Termination> {
        if self.stage.exceeded().is_some() || self.poller.due.is_none_or(|due| now < due) {
            return None;
        }
        let Some(account) = self.running.account() else {
            // Without a cgroup there are no statistics.
            self.poller.due = None;
            return None;
        };
        self.poller.check(&account, now, &self.bounds)
    }

    /// Returns the resource usage of the program so far, as counted by its cgroup. Values that are known only after the
    /// program has exited are `None`. Without a cgroup most other values are `None` too.
    #[must_use]
    pub fn usage(&self) -> Usage {
        match &self.outcome {
            Some(outcome) => outcome.usage,
            None => usage(self.running.started().elapsed(), Counted::default(), None, self.running.account()),
        }
    }

    /// Freezes all processes of the sandbox, or of this command of a session, until [`Child::thaw`]. The wall-clock limit and the idle timeout still
    /// apply. Does nothing once [`Child::wait`] or [`Child::try_wait`] has returned the outcome.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`] if the sandbox's cgroup is not
    ///   [`Cgroup::freezable`](crate::Cgroup::freezable).
    /// - [`ErrorKind::Unsupported`] if the sandbox runs without the cgroup, by best effort.
    /// - [`ErrorKind::Io`] if the state of the cgroup cannot be changed.
    ///
    /// ```
    /// use stockade::{Cgroup, Command, ErrorKind, Sandbox};
    ///
    /// let sandbox = Sandbox::new().cgroup(Cgroup::new().freezable());
    /// let mut child = match sandbox.spawn(Command::new("sleep").arg("0.1")) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()), // no cgroup can be created
    ///     child => child?,
    /// };
    /// child.freeze()?;
    /// assert!(child.try_wait()?.is_none());
    /// child.thaw()?;
    /// assert!(child.wait()?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Thaws all processes of the sandbox, after [`Child::freeze`].
    ///
    /// # Errors
    ///
    /// Those of [`Child::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        if self.is_finished() {
            return Ok(());
        }
        let missing = self.enforcement.unenforced.iter().find(|missing| missing.layer == Layer::Cgroup);
        self.running.freeze(frozen).map_err(|error| match missing {
            Some(missing) if error.kind() == ErrorKind::InvalidConfiguration => Error::unsupported(
                Layer::Cgroup,
                format!("the sandbox cannot be frozen: {}", missing.reason),
                "give the caller a cgroup (CgroupParent), and remove Layer::Cgroup from Sandbox::best_effort to get an error \
                 of spawn instead",
            ),
            _ => error,
        })
    }

    /// Reaps the sandbox of a program that has exited, and makes the outcome, unless that has been done.
    fn finish(&mut self, counted: Counted) -> Result<Outcome> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.reap(counted);
        self.waiting.finish(self.pid(), &result);
        result
    }

    fn reap(&mut self, counted: Counted) -> Result<Outcome> {
        let wall = self.running.started().elapsed();
        if self.stage.exceeded().is_some() {
            // In a session what it has started goes on otherwise, if the program itself has exited when it was asked to.
            self.running.kill();
        }
        self.record_leaked();
        let alone = self.leaked.as_ref().is_some_and(|(leaked, _)| leaked.is_empty());
        let mut reaped = self.running.reap(alone).inspect_err(|error| self.failed = Some(error.clone()))?;
        let mut gaps: Vec<Gap> = unbounded_output(&self.bounds, counted).collect();
        trace::unenforced(&reaped.lost);
        trace::gaps(&gaps);
        self.enforcement.unenforced.append(&mut reaped.lost);
        self.enforcement.gaps.append(&mut gaps);
        let mut log = self.supervision.as_mut().map(ProgramSupervisor::finish).unwrap_or_default();
        let termination = self.termination(&reaped, &log).inspect_err(|error| self.failed = Some(error.clone()))?;
        let (leaked, omitted) = self.leaked.take().unwrap_or_default();
        let outcome = Outcome {
            version: Version,
            termination,
            usage: usage(wall, counted, Some(&reaped.exit), reaped.account),
            enforcement: self.enforcement.clone(),
            omitted: Omitted {
                leaked: omitted,
                leaked_late: reaped.killed_by_init && reaped.account.is_some(),
                violations: log.omitted,
            },
            leaked,
            violations: log.violations(),
        };
        self.outcome = Some(outcome.clone());
        Ok(outcome)
    }

    /// Records which processes still run, if the program has exited by itself.
    fn record_leaked(&mut self) {
        if self.leaked.is_none() && self.stage.exceeded().is_none() && !self.running.is_kill_requested() {
            self.leaked = Some(self.running.others());
        }
    }

    /// Returns how the program terminated: by a limit that it exceeded before it exited; else as the kernel reports it.
    fn termination(&self, reaped: &ReapedSandbox, log: &ViolationLog) -> Result<Termination> {
        let account = reaped.account.unwrap_or_default();
        if let Some(oom) = account.oom {
            return Ok(oom.termination());
        }
        if let Some(limit) = self.stage.exceeded() {
            return Ok(limit);
        }
        if let Some(call) = log.killed_for {
            return Ok(call);
        }
        // Without a cgroup that counts CPU time, RLIMIT_CPU enforces the limit.
        let used = account.cpu.or_else(|| reaped.exit.cpu_times().map(|times| times.into_iter().sum()));
        if self.bounds.cpu.is_some_and(|limit| used.is_some_and(|used| used >= limit)) {
            return Ok(Termination::CpuTime);
        }
        match reaped.exit.status {
            Status::Signaled { signal: libc::SIGKILL, .. } if reaped.wall_time_exceeded => Ok(Termination::WallTime),
            Status::Signaled { signal: libc::SIGKILL, .. } if reaped.was_killed => Ok(Termination::Killed),
            Status::Exited(_) | Status::Signaled { .. } if reaped.never_executed => Err(Error::never_executed()),
            Status::Exited(code) => Ok(Termination::Exited(code)),
            Status::Signaled { signal, core } => Ok(Termination::Signaled { signal: Signal::reported(signal), core }),
            Status::Lost => Err(Error::status_lost()),
        }
    }
}

/// A program whose output is collected: what [`Child::wait_with_output`] does, step by step.
#[derive(Debug)]
pub(crate) struct Collecting {
    child: Child,
    streams: CapturedStreams,
}

impl Collecting {
    pub fn new(mut child: Child) -> Result<Self> {
        child.waiting.begin(child.pid());
        drop(child.stdin.take());
        let streams = CapturedStreams::new([child.stdout.take(), child.stderr.take()], &child.bounds)?;
        Ok(Self { child, streams })
    }

    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Returns the streams that are open. After [`advance`](Self::advance) there may be fewer.
    #[cfg(feature = "tokio")]
    pub fn streams(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.streams.open()
    }

    /// Returns whether there is output that was not read.
    #[cfg(feature = "tokio")]
    pub fn has_unread(&self) -> Result<bool> {
        self.streams.has_unread()
    }

    /// Waits until there is something to do, for at most `timeout`, reads what was written, and enforces the limits. Returns
    /// whether the program has exited, or does not exit though it was killed.
    pub fn advance(&mut self, timeout: PollTimeout) -> Result<bool> {
        let Self { child, streams } = self;
        if child.is_finished() || streams.take_with(&child.running, timeout)? || child.running.is_overdue() {
            return Ok(true);
        }
        child.enforce_limits(streams.has_overflowed().then_some(Termination::Output));
        Ok(false)
    }

    /// Returns the output of a program that has exited.
    pub fn finish(self) -> Result<Output> {
        let Self { mut child, mut streams } = self;
        // Processes are killed first, so that the rest of the pipes is read after the last write.
        child.record_leaked();
        child.running.kill_with_program();
        streams.take()?;
        if streams.has_overflowed() {
            child.enforce_limits(Some(Termination::Output));
        }
        let (counted, [(stdout, stdout_truncated), (stderr, stderr_truncated)]) = streams.finish();
        let outcome = child.finish(counted)?;
        Ok(Output { outcome, stdout, stderr, stdout_truncated, stderr_truncated })
    }
}

/// Reads what a program that has exited has written to its pipes, up to what they hold.
#[cfg(feature = "tokio")]
pub(crate) fn collect_rest(files: [Option<File>; 2], outcome: Outcome) -> Result<Output> {
    let mut streams = CapturedStreams::new(files, &Bounds::default())?;
    streams.take()?;
    let (_, [(stdout, stdout_truncated), (stderr, stderr_truncated)]) = streams.finish();
    Ok(Output { outcome, stdout, stderr, stdout_truncated, stderr_truncated })
}

/// The pidfd of the program, which becomes readable when the program exits (pidfd_open(2)).
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.pidfd()
    }
}

/// Returns the usage of a session, by the figures of its cgroup.
pub(crate) fn usage_of_session(wall: Duration, account: Option<Account>) -> Usage {
    // The kernel counts a denied fork in the cgroup of the process, which is that of a command.
    Usage { pids_denied: None, ..usage(wall, Counted::default(), None, account) }
}

fn wait_failed(errno: Errno) -> Error {
    Error::io("wait for the program")(errno)
}

/// Returns a gap for each stream with a limit that was not collected.
fn unbounded_output(bounds: &Bounds, Counted(counted): Counted) -> impl Iterator<Item = Gap> {
    let streams = ["standard output", "standard error"].into_iter().zip(bounds.output).zip(counted);
    streams.filter_map(|((name, limit), count)| {
        let limit = limit.filter(|_| count.is_none())?;
        Some(Gap::new(
            GapKind::Output,
            format!("the limit of {limit} bytes on {name} was not enforced, since the caller did not collect it"),
            "use Sandbox::output, or Stdio::piped() and Child::wait_with_output",
        ))
    })
}

fn usage(wall: Duration, counted: Counted, exit: Option<&Exit>, account: Option<Account>) -> Usage {
    fn reading<T>(value: T, source: Source) -> Option<Reading<T>> {
        Some(Reading { value, source })
    }
    let Counted([stdout, stderr]) = counted;
    let mut usage = Usage { wall_time: wall, stdout, stderr, ..Usage::default() };
    if let Some((rusage, [user, system])) = exit.and_then(|exit| exit.rusage.zip(exit.cpu_times())) {
        let count = |value: i64| reading(value.unsigned_abs(), Source::Rusage);
        usage.cpu_time = reading(user + system, Source::Rusage);
        usage.user_time = reading(user, Source::Rusage);
        usage.system_time = reading(system, Source::Rusage);
        usage.max_rss = count(rusage.ru_maxrss * 1024);
        usage.major_faults = count(rusage.ru_majflt);
        usage.minor_faults = count(rusage.ru_minflt);
        usage.voluntary_switches = count(rusage.ru_nvcsw);
        usage.involuntary_switches = count(rusage.ru_nivcsw);
    }
    if let Some(account) = account {
        let count = |value: Option<u64>| reading(value?, Source::Cgroup);
        let time = |value: Option<Duration>| reading(value?, Source::Cgroup);
        usage.cpu_time = time(account.cpu).or(usage.cpu_time);
        usage.user_time = time(account.cpu_user).or(usage.user_time);
        usage.system_time = time(account.cpu_system).or(usage.system_time);
        usage.memory_peak = count(account.memory_peak);
        usage.memory_pressure = time(account.memory_pressure);
        usage.pids_peak = count(account.pids_peak);
        usage.pids_denied = count(account.pids_denied);
        usage.read_bytes = count(account.read_bytes);
        usage.written_bytes = account.written_bytes.and_then(|value| reading(value, Source::CgroupWrites));
    }
    usage
}
