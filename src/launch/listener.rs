//! Receives the system calls that a seccomp filter passes to the caller, and responds to them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::process_status::ProcessStatus;
use crate::sys::pidfd;
use crate::sys::seccomp_notify::{self, Request, Response};

#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Waits for the next call. Returns `None` if `stop` is readable or was closed, or if no process runs under the
    /// filter any more.
    pub fn next(&self, stop: BorrowedFd<'_>) -> nix::Result<Option<Request>> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
                Ok(_) => {}
            }
            let [listener, stop] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            // The listener reports POLLHUP when no process runs under the filter any more.
            if !stop.is_empty() || !listener.contains(PollFlags::POLLIN) {
                return Ok(None);
            }
            if let Some(request) = seccomp_notify::receive(self.0.as_fd())? {
                return Ok(Some(request));
            }
        }
    }

    /// Returns whether a call still waits. If it does, its PID has not been reused.
    pub fn is_waiting(&self, id: u64) -> bool {
        seccomp_notify::is_waiting(self.0.as_fd(), id)
    }

    pub fn answer(&self, id: u64, response: Response) -> nix::Result<()> {
        seccomp_notify::respond(self.0.as_fd(), id, response)
    }

    /// Kills the process that makes a call, if the call still waits.
    pub fn kill(&self, request: &Request) {
        let Ok(process) = pidfd::open(process_of(request.pid)) else { return };
        // If the call still waits, the PID was not reused before it was opened.
        if self.is_waiting(request.id) {
            let _ = pidfd::send(process.as_fd(), libc::SIGKILL);
        }
    }
}

/// Returns the PID of the process that a thread belongs to.
fn process_of(thread: i32) -> i32 {
    ProcessStatus::of(thread).ok().and_then(|status| status.field("Tgid").parse().ok()).unwrap_or(thread)
}
