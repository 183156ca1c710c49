//! A running program as its host sees it: waiting, signals, output, the end.

mod output;
mod running;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollTimeout;

use crate::error::{Error, Result};
use running::times;
pub(crate) use running::{Ended, How, Running};

use crate::outcome::{Enforcement, Outcome, Output, Reading, Signal, Source, Termination, Usage};

/// A program in its sandbox. Unlike [`std::process::Child`], **dropping it kills the program and everything that the
/// program has started**, and reaps it.
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
    enforced: Enforcement,
    killed: bool,
    outcome: Option<Outcome>,
}

impl Child {
    /// `ends` are the host's ends of pipes, `pty` its side of the terminal.
    pub(crate) fn new(
        running: Box<dyn Running>,
        ends: [Option<OwnedFd>; 3],
        pty: Option<OwnedFd>,
        enforced: Enforcement,
    ) -> Self {
        let [stdin, stdout, stderr] = ends.map(|end| end.map(File::from));
        let pty = pty.map(File::from);
        Self { stdin, stdout, stderr, pty, running, enforced, killed: false, outcome: None }
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
    /// [`Error::StatusTaken`] if another wait of the host took the status, on a kernel before 6.15.
    pub fn wait(&mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        self.running.has_ended(PollTimeout::NONE).map_err(waiting)?;
        self.ended()
    }

    /// The outcome, if the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        match self.running.has_ended(PollTimeout::ZERO).map_err(waiting)? {
            true => self.ended().map(Some),
            false => Ok(None),
        }
    }

    /// Waits for the end of the program, and collects meanwhile what it writes to the streams that are piped: both at
    /// once, so that neither can fill up. What a process left behind would still write is not waited for.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`], and [`Error::Host`] if a pipe can't be read.
    pub fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let streams = [self.stdout.take(), self.stderr.take()];
        let [stdout, stderr] = output::collect(streams, &*self.running)?;
        let outcome = self.ended()?;
        Ok(Output { outcome, stdout, stderr })
    }

    /// The program has ended: takes its status, and ends the sandbox.
    fn ended(&mut self) -> Result<Outcome> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        let wall = self.running.started().elapsed();
        let ended = self.running.reap().map_err(waiting)?;
        let outcome = Outcome {
            termination: self.termination(ended.how)?,
            usage: usage(wall, &ended),
            enforced: self.enforced.clone(),
        };
        self.outcome = Some(outcome.clone());
        Ok(outcome)
    }

    fn termination(&self, how: How) -> Result<Termination> {
        match how {
            How::Exited(code) => Ok(Termination::Exited(code)),
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

fn usage(wall: Duration, ended: &Ended) -> Usage {
    let mut usage = Usage { wall, ..Usage::default() };
    if let Some(account) = &ended.account {
        fn reading<T>(value: T) -> Option<Reading<T>> {
            Some(Reading { value, source: Source::Rusage })
        }
        let count = |value: i64| reading(value.unsigned_abs());
        let [user, system] = times(account);
        usage.cpu_user = reading(user);
        usage.cpu_system = reading(system);
        usage.max_rss = count(account.ru_maxrss * 1024);
        usage.major_faults = count(account.ru_majflt);
        usage.minor_faults = count(account.ru_minflt);
        usage.voluntary_switches = count(account.ru_nvcsw);
        usage.involuntary_switches = count(account.ru_nivcsw);
    }
    usage
}
