//! A handle that kills a sandbox, or sends it a signal, from another thread.

use std::sync::Weak;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::launch::{KillSwitch, Running};
use crate::unix::Signal;

/// A handle that kills a program and everything that it has started, also while another thread waits for it.
///
/// [`Child::killer`](crate::Child::killer) creates it. It holds no descriptor and keeps no part of the sandbox in
/// existence. In a forked child of the caller it works as in the caller. Once the program has exited, or the [`Child`](crate::Child) was dropped, it does nothing, even if another
/// process has the same PID then.
#[derive(Clone, Debug)]
pub struct Killer(Weak<KillSwitch>);

impl Killer {
    #[cfg(test)]
    pub(super) fn of_none() -> Self {
        Self(Weak::new())
    }

    pub(crate) fn of(running: &Running) -> Self {
        Self(running.kill_switch())
    }

    /// Kills the program and everything that it has started, as [`Child::kill`](crate::Child::kill) does. Returns `Ok`
    /// if the program has exited or the `Child` was dropped.
    ///
    /// [`Child::wait`](crate::Child::wait) then reports [`Termination::Killed`](crate::Termination::Killed), unless the
    /// program had exited before, or a wait had found it to exceed a limit. A limit that no wait has noticed does not count.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the signal cannot be sent.
    pub fn kill(&self) -> Result<()> {
        match self.0.upgrade() {
            Some(switch) => switch.request().map_err(Error::io("kill the program")),
            None => Ok(()),
        }
    }

    /// Sends a signal to the program, as [`Child::signal`](crate::Child::signal) does. Returns `Ok` if the program has exited or
    /// the `Child` was dropped.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.send(|switch| switch.signal(signal.number()))
    }

    /// Sends a signal to the process group of the program, as a terminal does for Ctrl-C: to the program, and to what it
    /// has started and put into no other group. Returns `Ok` if the program has exited or the `Child` was dropped.
    ///
    /// The program leads a group, unless [`Command::new_session`](crate::Command::new_session) is false. Then the signal
    /// is sent to the program alone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the signal cannot be sent.
    ///
    /// ```
    /// use stockade::{Command, Sandbox, Signal, Termination};
    ///
    /// let mut child = Sandbox::new().spawn(Command::new("sleep").arg("1000"))?;
    /// child.killer().signal_group(Signal::INT)?;
    /// assert_eq!(child.wait()?.termination.signal(), Some(Signal::INT));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        self.send(|switch| switch.signal_group(signal.number()))
    }

    /// Stops the program until [`Killer::resume`], as a shell does for Ctrl-Z: all processes of the sandbox if its cgroup
    /// is [`Cgroup::freezable`](crate::Cgroup::freezable), else the process group of the program, by SIGSTOP. Returns
    /// `Ok` if the program has exited or the `Child` was dropped.
    ///
    /// The wall-clock limit and the idle timeout still apply.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the signal cannot be sent.
    pub fn stop(&self) -> Result<()> {
        self.send(KillSwitch::stop)
    }

    /// Continues the program after [`Killer::stop`].
    ///
    /// # Errors
    ///
    /// Those of [`Killer::stop`].
    pub fn resume(&self) -> Result<()> {
        self.send(KillSwitch::resume)
    }

    fn send(&self, send: impl FnOnce(&KillSwitch) -> nix::Result<()>) -> Result<()> {
        match self.0.upgrade().as_deref().map(send) {
            None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
            Some(Err(errno)) => Err(Error::io("send a signal to the program")(errno)),
        }
    }
}
