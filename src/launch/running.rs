//! A sandbox that was launched, as `watch` sees it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::poll::PollTimeout;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Launched;
use crate::plan::init::TIME_IS_UP;
use crate::watch::{Ended, How, Running};

impl Running for Launched {
    fn pid(&self) -> i32 {
        self.program.pid()
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    fn started(&self) -> Instant {
        self.started
    }

    fn signal(&self, signal: i32) -> nix::Result<()> {
        self.program.signal(signal)
    }

    fn has_ended(&self, timeout: PollTimeout) -> nix::Result<bool> {
        self.program.has_ended(timeout)
    }

    fn end(&self) {
        if self.has_pid_namespace {
            let _ = self.keeper.signal(libc::SIGKILL);
        } else if !self.program.is_reaped() {
            // The program leads its group; if it was not made to lead one, there is no group of this number. While it
            // is a zombie at least, the number is nobody else's.
            let _ = killpg(Pid::from_raw(self.program.pid()), Signal::SIGKILL);
        }
        let _ = self.program.signal(libc::SIGKILL);
    }

    fn reap(&mut self) -> nix::Result<Ended> {
        self.end();
        // Before the init, which can't end while a process of its namespace has not been reaped.
        let mut ended = self.program.wait()?;
        ended.time_was_up = self.keeper.finish().is_ok_and(|keeper| keeper.how == How::Exited(TIME_IS_UP));
        Ok(ended)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.program.is_reaped() {
            let _ = self.reap();
        }
    }
}
