//! A running program as its host sees it: waiting, signals, output, the end.

mod output;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::signal::{Signal as NixSignal, killpg};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::launch::{Ended, How, Launched, times};
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
    running: Launched,
    enforced: Enforcement,
    killed: bool,
    outcome: Option<Outcome>,
}

impl Child {
    pub(crate) fn new(mut running: Launched, enforced: Enforcement) -> Self {
        let [stdin, stdout, stderr] = std::mem::take(&mut running.streams).map(|end| end.map(File::from));
        let pty = running.pty.take().map(File::from);
        Self { stdin, stdout, stderr, pty, running, enforced, killed: false, outcome: None }
    }

    /// The pid of the program, as the host sees it.
    pub fn id(&self) -> u32 {
        self.running.program.pid().unsigned_abs()
    }

    /// Sends a signal to the program (pidfd_send_signal(2)): to no other process, even if the program has ended and its
    /// pid belongs to another. A program that has ended gets none, and that is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] if the kernel refuses, as it does for a number that is no signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.running.program.signal(signal.0) {
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
        if self.outcome.is_none() && !self.running.program.has_ended(PollTimeout::ZERO).unwrap_or(false) {
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
        self.running.program.has_ended(PollTimeout::NONE).map_err(waiting)?;
        self.ended()
    }

    /// The outcome, if the program has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Outcome>> {
        match self.running.program.has_ended(PollTimeout::ZERO).map_err(waiting)? {
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
        let [stdout, stderr] = output::collect(streams, &mut self.running)?;
        let outcome = self.ended()?;
        Ok(Output { outcome, stdout, stderr })
    }

    /// The program has ended: takes its status, and ends the sandbox.
    fn ended(&mut self) -> Result<Outcome> {
        if let Some(outcome) = &self.outcome {
            return Ok(outcome.clone());
        }
        let wall = self.running.started.elapsed();
        // While it is a zombie its process group is nobody else's.
        self.running.end();
        let ended = self.running.program.wait().map_err(waiting)?;
        self.running.keepers.drain(..).for_each(drop);
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

impl Launched {
    /// Ends every process of the sandbox; the program is still to be reaped.
    fn end(&mut self) {
        if self.has_pid_namespace {
            for keeper in &self.keepers {
                let _ = keeper.signal(libc::SIGKILL);
            }
        } else {
            // The program leads its group; if it was not made to lead one, there is no group of this number.
            let group = Pid::from_raw(self.program.pid());
            if !self.program.is_reaped() {
                let _ = killpg(group, NixSignal::SIGKILL);
            }
        }
        let _ = self.program.signal(libc::SIGKILL);
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.program.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.running.end();
            // Before the init, which can't end while a process of its namespace has not been reaped.
            let _ = self.running.program.wait();
        }
    }
}

fn waiting(errno: Errno) -> Error {
    Error::host("waiting for the program")(errno)
}

fn usage(wall: Duration, ended: &Ended) -> Usage {
    let mut usage = Usage { wall, ..Usage::default() };
    if let Some(account) = &ended.usage {
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
