//! A running program: [`Child`].

use std::os::fd::OwnedFd;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::task::JoinHandle;
use nix::poll::PollTimeout;

use super::async_pipe::{ChildStderr, ChildStdin, ChildStdout, Pty};
use super::{drop_elsewhere, finished, register, shut_down, spawn_blocking, wait_for};
use crate::child::{self, Collecting, Killer};
use crate::creator::Creator;
use crate::error::Result;
use crate::outcome::{Outcome, Output};
use crate::unix::{Pid, Signal};

/// A handle to a running sandboxed program, as [`crate::Child`] is, whose functions do not block. **Dropping it kills the program**
/// and everything that it has started.
///
/// [`spawn`](super::spawn) and [`Session::spawn`](super::Session::spawn) create it.
///
/// ```
/// use stockade::{Command, Sandbox, Stdio};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let mut command = Command::new("cat");
/// command.stdin(Stdio::piped()).stdout(Stdio::piped());
/// let mut child = stockade::tokio::spawn(&Sandbox::new(), command).await?;
/// child.stdin.as_mut().expect("it is piped").write_all(b"hello").await?;
/// let mut word = [0; 5];
/// child.stdout.as_mut().expect("it is piped").read_exact(&mut word).await?;
/// assert_eq!(&word, b"hello");
/// assert!(child.wait().await?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a `Child` kills the program"]
#[non_exhaustive]
pub struct Child {
    /// The write end of the pipe of standard input. `None` if that is not [`Stdio::piped`](crate::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// The read end of the pipe of standard output. `None` if that is not piped.
    pub stdout: Option<ChildStdout>,
    /// The read end of the pipe of standard error. `None` if that is not piped.
    pub stderr: Option<ChildStderr>,
    /// The caller's side of the pseudo-terminal of [`Command::pty`](crate::Command::pty). `None` without one.
    pub pty: Option<Pty>,
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    killer: Killer,
    creator: Creator,
    state: Progress,
}

#[derive(Debug)]
enum Progress {
    Running(Box<child::Child>),
    /// The program has exited, and is reaped on another thread.
    Finishing(JoinHandle<Result<Outcome>>),
    Finished(Box<Result<Outcome>>),
}

impl Progress {
    /// The state if the runtime is shut down before the next one is known.
    fn lost() -> Self {
        Self::Finished(Box::new(Err(shut_down())))
    }
}

impl Child {
    pub(super) fn new(mut child: child::Child) -> Result<Self> {
        let pidfd = register(&child, Interest::READABLE)?;
        Ok(Self {
            stdin: child.stdin.take().map(ChildStdin::new).transpose()?,
            stdout: child.stdout.take().map(ChildStdout::new).transpose()?,
            stderr: child.stderr.take().map(ChildStderr::new).transpose()?,
            pty: child.pty.take().map(Pty::new).transpose()?,
            pid: child.pid(),
            pidfd,
            killer: child.killer(),
            creator: Creator::this(),
            state: Progress::Running(Box::new(child)),
        })
    }

    /// Returns the PID of the program in the caller's PID namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to the program: see [`crate::Child::signal`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::Child::signal`].
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.state {
            Progress::Running(child) => child.signal(signal),
            _ => Ok(()),
        }
    }

    /// Kills the program and everything that it has started: see [`crate::Child::kill`]. Does not wait until they have exited.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Child::kill`].
    pub fn kill(&mut self) -> Result<()> {
        self.killer.kill()
    }

    /// Returns a handle that kills the program, also while this is in [`Child::wait`].
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Waits until the program has exited, and kills the processes that it has left running. Enforces the limits meanwhile: see
    /// [`crate::Child::wait`]. Closes the pipe of standard input first.
    ///
    /// If the future is dropped, the program goes on, and `wait` can be called again. Nothing is lost.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Child::wait`].
    pub async fn wait(&mut self) -> Result<Outcome> {
        drop(self.stdin.take());
        loop {
            match &mut self.state {
                Progress::Finished(outcome) => return (**outcome).clone(),
                Progress::Finishing(task) => {
                    let outcome = task.await.unwrap_or_else(|_| Err(shut_down()));
                    self.state = Progress::Finished(Box::new(outcome));
                }
                Progress::Running(child) => {
                    if !child.has_exited_now()? {
                        wait_for(&[Some(&self.pidfd)], child.next_deadline()).await?;
                        continue;
                    }
                    let placeholder = Progress::lost();
                    if let Progress::Running(mut child) = std::mem::replace(&mut self.state, placeholder) {
                        self.state = Progress::Finishing(spawn_blocking(move || child.wait()));
                    }
                }
            }
        }
    }

    /// Waits until the program has exited, and collects what it writes to the piped streams: see
    /// [`crate::Child::wait_with_output`].
    ///
    /// If the future is dropped, the program is killed, and what was collected is lost.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Child::wait_with_output`].
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let placeholder = Progress::lost();
        let mut child = match std::mem::replace(&mut self.state, placeholder) {
            Progress::Running(child) => *child,
            // A program that has exited: its pipes are read to their end.
            state => {
                self.state = state;
                return self.collect_from_exited().await;
            }
        };
        child.stdout = self.stdout.take().map(ChildStdout::into_file);
        child.stderr = self.stderr.take().map(ChildStderr::into_file);
        collect(Collecting::new(child)?, &self.pidfd).await
    }

    /// Collects the output of a program that has exited already.
    async fn collect_from_exited(mut self) -> Result<Output> {
        let outcome = self.wait().await?;
        let stdout = self.stdout.take().map(ChildStdout::into_file);
        let stderr = self.stderr.take().map(ChildStderr::into_file);
        finished(spawn_blocking(move || child::collect_rest([stdout, stderr], outcome))).await
    }
}

/// Collects the output of a program that runs.
async fn collect(collecting: Collecting, pidfd: &AsyncFd<OwnedFd>) -> Result<Output> {
    let mut collecting = KilledOnDrop(Some(collecting), Creator::this());
    let running = collecting.get();
    let mut streams = [None, None];
    for (stream, open) in streams.iter_mut().zip(running.streams()) {
        *stream = open.map(|fd| register(fd, Interest::READABLE)).transpose()?;
    }
    while !running.advance(PollTimeout::ZERO)? {
        for (stream, open) in streams.iter_mut().zip(running.streams()) {
            // At its end it would be readable for ever.
            *stream = stream.take().filter(|_| open.is_some());
        }
        if running.has_unread()? {
            ::tokio::task::yield_now().await;
            continue;
        }
        let [stdout, stderr] = &streams;
        wait_for(&[Some(pidfd), stdout.as_ref(), stderr.as_ref()], running.child().next_deadline()).await?;
    }
    let Some(collecting) = collecting.0.take() else { return Err(shut_down()) };
    finished(spawn_blocking(move || collecting.finish())).await
}

/// A program whose output is collected by a future. If that is dropped, the program is killed at once, and reaped elsewhere.
struct KilledOnDrop(Option<Collecting>, Creator);

impl KilledOnDrop {
    fn get(&mut self) -> &mut Collecting {
        self.0.as_mut().expect("it is taken at the end alone")
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if let Some(collecting) = self.0.take() {
            if self.1.is_this() {
                let _ = collecting.child().killer().kill();
            }
            drop_elsewhere(collecting);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let placeholder = Progress::lost();
        if let Progress::Running(child) = std::mem::replace(&mut self.state, placeholder) {
            if self.creator.is_this() {
                let _ = self.killer.kill();
            }
            drop_elsewhere(child);
        }
    }
}
