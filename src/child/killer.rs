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
        match self.0.upgrade().map(|switch| switch.signal(signal.number())) {
            None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
            Some(Err(errno)) => Err(Error::io("send a signal to the program")(errno)),
        }
    }
}
