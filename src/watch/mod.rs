//! A running program as its host sees it: waiting, signals, output, the end.

mod bounds;
mod group;
mod meter;
mod noted;
mod output;
mod running;
mod supervise;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollTimeout;

use crate::error::{Error, Result};
pub(crate) use bounds::Bounds;
pub use bounds::Overflow;
use bounds::{Action, Stage};
pub use group::Group;
use meter::Meter;
use noted::Noted;
use output::{Counted, Streams};
use running::times;
pub(crate) use running::{Account, Ended, How, Oom, Running};
pub(crate) use supervise::{Answer, Callback, Heard, LAST_ERRNO, Listen, Rules, Ruling, Supervisor};
pub use supervise::{Decision, Notification};

use crate::outcome::{Enforcement, Leaked, Omitted, Outcome, Output, Reading, Signal, Source, Termination, Usage};

/// A program in its sandbox. Unlike [`std::process::Child`], **dropping it kills the program and everything that the
/// program has started**, and reaps it.
///
/// When the program has ended by itself, what it has started is killed within 50 ms, whether or not anybody waits
/// ([`Outcome::leaked`] tells who that was). Without a PID namespace that is the program's process group, since Linux 6.9; all
/// others in its cgroup are killed by [`Child::wait`], or with the `Child`. Without a cgroup too, a process that has left the
/// group (setsid(2)) is not killed.
///
/// It is independent of the thread that started it. Its [`AsFd`] is the pidfd of the program, which becomes readable
/// when the program ends (pidfd_open(2)).
#[derive(Debug)]
pub struct Child {
    /// Write end of standard input, if that was piped.
    pub stdin: Option<File>,
    /// Read end of standard output, if that was piped.
    pub stdout: Option<File>,
    /// Read end of standard error, if that was piped.
    pub stderr: Option<File>,
    /// The host's side of the terminal, if there is one.
    pub pty: Option<File>,
    running: Box<dyn Running>,
    bounds: Bounds,
    stage: Stage,
    meter: Meter,
    enforced: Enforcement,
    supervisor: Option<Supervisor>,
    killed: bool,
    /// Who was left behind, and how many more there were.
    leaked: Option<(Vec<Leaked>, u64)>,
    outcome: Option<Outcome>,
    /// Why there is none, though the program was ended.
    failed: Option<Error>,
}

/// Between two attempts to let a program end that was killed.
const PATIENCE: Duration = Duration::from_millis(20);

impl Child {
    /// `ends` are the host's ends of pipes, `pty` its side of the terminal.
    pub(crate) fn new(
        running: Box<dyn Running>,
        ends: [Option<OwnedFd>; 3],
        pty: Option<OwnedFd>,
        bounds: Bounds,
        enforced: Enforcement,
        supervisor: Option<Supervisor>,
    ) -> Self {
        let stage = Stage::new(&bounds, running.started());
        let meter = Meter::new(&bounds, running.started());
        let [stdin, stdout, stderr] = ends.map(|end| end.map(File::from));
        let pty = pty.map(File::from);
        Self {
            stdin,
            stdout,
            stderr,
            pty,
            running,
            bounds,
            stage,
            meter,
            enforced,
            supervisor,
            killed: false,
            leaked: None,
            outcome: None,
            failed: None,
        }
    }

    /// The pid of the program, as the host sees it.
    pub fn id(&self) -> u32 {
        self.running.pid().unsigned_abs()
    }

    /// Sends a signal to the program (pidfd_send_signal(2)): to no other process, even if the program has ended and its
    /// pid belongs to another. A program that has ended gets none, and that is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] if the kernel refuses, as it does for a number that is no signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.running.signal(signal.0) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::host("sending a signal to the program")(errno)),
        }
    }

    /// Kills the program, and everything that it has started. [`Child::wait`] then tells the end:
    /// [`Termination::Killed`], unless the program had ended before.
    ///
    /// # Errors
    ///
    /// Those of [`Child::signal`].
    pub fn kill(&mut self) -> Result<()> {
        if self.outcome.is_none() && !self.running.has_ended(PollTimeout::ZERO).unwrap_or(false) {
            self.killed = true;
            self.running.end();
        }
        Ok(())
    }

    /// Waits for the end of the program, with its standard input closed, and ends what it has left behind. Told once,
    /// the outcome stays the same.
    ///
    /// # Errors
    ///
    /// [`Error::StatusTaken`] if another wait of the host took the status, on a kernel before 6.15. [`Error::NotEnded`] if
    /// the program was killed, for a limit or by [`Child::kill`], and the kernel does not let it end within 10 seconds. A
    /// process beside it that does not end is in [`Enforcement::lost`].
    pub fn wait(&mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        while !self.has_ended(self.patience())? {}
        self.ended(Counted::default())
    }

    /// The outcome, if the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        match self.has_ended(PollTimeout::ZERO)? {
            true => self.ended(Counted::default()).map(Some),
            false => Ok(None),
        }
    }

    /// Waits for the end of the program, and collects meanwhile what it writes to the streams that are piped: both at
    /// once, so that neither can fill up. What a process left behind would still write is not waited for.
    ///
    /// Keeps the first 16 MiB of each stream, or as many bytes as [`Limits::stdout`](crate::Limits::stdout) and
    /// [`Limits::stderr`](crate::Limits::stderr) allow. The rest is read, counted in [`Usage`] and discarded, which
    /// [`Output::stdout_truncated`] and [`Output::stderr_truncated`] report.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`], and [`Error::Host`] if a pipe can't be read.
    pub fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let mut streams = Streams::new([self.stdout.take(), self.stderr.take()], &self.bounds)?;
        while !streams.take_with(&*self.running, self.patience())? && !self.running.is_overdue() {
            self.keep_limits(streams.overflowed().then_some(Termination::Output));
        }
        // What is left in the pipes is read when nobody writes to them any more.
        self.note_leaked();
        self.running.end();
        streams.take()?;
        if streams.overflowed() {
            self.keep_limits(Some(Termination::Output));
        }
        let (counted, [(stdout, stdout_truncated), (stderr, stderr_truncated)]) = streams.finish();
        let outcome = self.ended(counted)?;
        Ok(Output { outcome, stdout, stderr, stdout_truncated, stderr_truncated })
    }

    /// Time until something is to be done about a limit.
    fn patience(&self) -> PollTimeout {
        if self.is_killed() {
            return PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        }
        let meter = self.meter.next.filter(|_| self.stage.why().is_none());
        // The thread that decides system calls may have ended the sandbox.
        let supervisor = self.supervisor.as_ref().and_then(|_| Instant::now().checked_add(Duration::from_secs(1)));
        let deadlines = self.stage.deadline().into_iter().chain(meter).chain(supervisor);
        let Some(deadline) = deadlines.min() else { return PollTimeout::NONE };
        // Rounded up, so that the time has come when it is over.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn is_killed(&self) -> bool {
        self.killed || self.stage.is_killed()
    }

    /// Whether the program has ended, or does not end though it was killed; what is to be done about its limits meanwhile
    /// is done.
    fn has_ended(&mut self, timeout: PollTimeout) -> Result<bool> {
        let ended = self.running.has_ended(timeout).map_err(waiting)? || self.running.is_overdue();
        if !ended {
            self.keep_limits(None);
        }
        Ok(ended)
    }

    /// Does what the time, or a limit that is exceeded, demands.
    fn keep_limits(&mut self, exceeded: Option<Termination>) {
        if self.is_killed() {
            self.running.unhinder();
        } else if self.supervisor.as_ref().is_some_and(Supervisor::has_ended_it) {
            self.killed = true;
            self.running.end();
        }
        let now = Instant::now();
        let found = exceeded.or_else(|| self.look(now));
        // The caller may have been held up after it had seen that the program runs, as by a handler of a signal: what has
        // ended by itself meanwhile did not exceed a limit of time.
        let is_over_time = found.is_some() || self.stage.deadline().is_some_and(|until| now >= until);
        if exceeded.is_none() && is_over_time && self.running.has_ended(PollTimeout::ZERO) == Ok(true) {
            return;
        }
        let action = match found {
            Some(why) => self.stage.exceed(why, now, &self.bounds),
            None => Action::Nothing,
        };
        for action in [action, self.stage.advance(now, &self.bounds)] {
            match action {
                Action::Nothing => {}
                Action::Ask => drop(self.running.signal(libc::SIGTERM)),
                Action::Kill => self.running.end(),
            }
        }
    }

    /// Takes a look at the CPU time, if it is time to; what is exceeded.
    fn look(&mut self, now: Instant) -> Option<Termination> {
        if self.stage.why().is_some() || self.meter.next.is_none_or(|next| now < next) {
            return None;
        }
        let Some(account) = self.running.account() else {
            // Without a cgroup there will never be anything to look at.
            self.meter.next = None;
            return None;
        };
        self.meter.look(&account, now, &self.bounds)
    }

    /// What the program has used so far: what its cgroup has counted, if it has one. What is counted at the end alone is
    /// absent.
    pub fn usage(&self) -> Usage {
        match &self.outcome {
            Some(outcome) => outcome.usage,
            None => usage(self.running.started().elapsed(), Counted::default(), None, self.running.account()),
        }
    }

    /// Stops all processes of the sandbox, until [`Child::thaw`]. The time goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] without [`Cgroup::freezable`](crate::Cgroup::freezable), [`Error::Host`] if the kernel refuses.
    pub fn freeze(&self) -> Result<()> {
        self.running.freeze(true)
    }

    /// Lets the processes of the sandbox go on.
    ///
    /// # Errors
    ///
    /// Those of [`Child::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.running.freeze(false)
    }

    /// The program has ended: takes its status, and ends the sandbox.
    fn ended(&mut self, counted: Counted) -> Result<Outcome> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let wall = self.running.started().elapsed();
        self.note_leaked();
        let alone = self.leaked.as_ref().is_some_and(|(leaked, _)| leaked.is_empty());
        let mut ended = self.running.reap(alone).inspect_err(|error| self.failed = Some(error.clone()))?;
        self.enforced.lose(std::mem::take(&mut ended.lost));
        let mut noted = self.supervisor.as_mut().map(Supervisor::finish).unwrap_or_default();
        let (leaked, omitted) = self.leaked.take().unwrap_or_default();
        let outcome = Outcome {
            termination: self.termination(&ended, &noted)?,
            usage: usage(wall, counted, ended.rusage.as_ref(), ended.account),
            enforced: self.enforced.clone(),
            omitted: Omitted {
                leaked: omitted,
                leaked_late: ended.ended_itself && ended.account.is_some(),
                violations: noted.omitted,
            },
            leaked,
            violations: noted.violations(),
        };
        self.outcome = Some(outcome.clone());
        Ok(outcome)
    }

    /// Notes who is still there, if the program has ended by itself.
    fn note_leaked(&mut self) {
        if self.leaked.is_none() && self.stage.why().is_none() && !self.killed {
            self.leaked = Some(self.running.others());
        }
    }

    /// Why the program ended: for a limit, if it exceeded one and lived still; else as the kernel says.
    fn termination(&self, ended: &Ended, noted: &Noted) -> Result<Termination> {
        let account = ended.account.unwrap_or_default();
        if let Some(oom) = account.oom {
            return Ok(oom.termination());
        }
        if let Some(why) = self.stage.why() {
            return Ok(why);
        }
        if let Some(why) = noted.ended_for {
            return Ok(why);
        }
        // Without a cgroup that counts it RLIMIT_CPU has kept the limit.
        let used = account.cpu.or_else(|| ended.rusage.as_ref().map(|rusage| times(rusage).into_iter().sum()));
        if self.bounds.cpu.is_some_and(|limit| used.is_some_and(|used| used >= limit)) {
            return Ok(Termination::CpuTime);
        }
        match ended.how {
            How::Exited(code) => Ok(Termination::Exited(code)),
            How::Signaled { signal: libc::SIGKILL, .. } if ended.time_was_up => Ok(Termination::WallTime),
            How::Signaled { signal: libc::SIGKILL, .. } if self.killed => Ok(Termination::Killed),
            How::Signaled { signal, core } => Ok(Termination::Signaled { signal: Signal(signal), core }),
            How::Unknown => Err(Error::StatusTaken),
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.pidfd()
    }
}

fn waiting(errno: Errno) -> Error {
    Error::host("waiting for the program")(errno)
}

fn usage(wall: Duration, counted: Counted, rusage: Option<&libc::rusage>, account: Option<Account>) -> Usage {
    fn reading<T>(value: T, source: Source) -> Option<Reading<T>> {
        Some(Reading { value, source })
    }
    let Counted([stdout, stderr]) = counted;
    let mut usage = Usage { wall, stdout, stderr, ..Usage::default() };
    if let Some(rusage) = rusage {
        let count = |value: i64| reading(value.unsigned_abs(), Source::Rusage);
        let [user, system] = times(rusage);
        usage.cpu = reading(user + system, Source::Rusage);
        usage.cpu_user = reading(user, Source::Rusage);
        usage.cpu_system = reading(system, Source::Rusage);
        usage.max_rss = count(rusage.ru_maxrss * 1024);
        usage.major_faults = count(rusage.ru_majflt);
        usage.minor_faults = count(rusage.ru_minflt);
        usage.voluntary_switches = count(rusage.ru_nvcsw);
        usage.involuntary_switches = count(rusage.ru_nivcsw);
    }
    if let Some(account) = account {
        let count = |value: Option<u64>| reading(value?, Source::Cgroup);
        let time = |value: Option<Duration>| reading(value?, Source::Cgroup);
        usage.cpu = time(account.cpu).or(usage.cpu);
        usage.cpu_user = time(account.cpu_user).or(usage.cpu_user);
        usage.cpu_system = time(account.cpu_system).or(usage.cpu_system);
        usage.memory_peak = count(account.memory_peak);
        usage.memory_pressure = time(account.memory_pressure);
        usage.pids_peak = count(account.pids_peak);
        usage.pids_refused = count(account.pids_refused);
        usage.read_bytes = count(account.read_bytes);
        usage.written_bytes = account.written_bytes.and_then(|value| reading(value, Source::CgroupWrites));
    }
    usage
}
