//! The control pipe: the processes of a sandbox have its read end, and terminate the sandbox when it is closed. So the
//! caller can do that even if it may not send signals.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::{pipe2, write};

use crate::locks::lock;

/// Both ends of the pipe. The caller holds the read end too, so that a write never raises SIGPIPE.
#[derive(Debug)]
pub(super) struct ControlPipe(Mutex<Option<(OwnedFd, OwnedFd)>>);

impl ControlPipe {
    pub fn new() -> nix::Result<Self> {
        pipe2(OFlag::O_CLOEXEC).map(|ends| Self(Mutex::new(Some(ends))))
    }

    /// A pipe that is closed, for a command of a session: the sandbox ends with the session's.
    pub fn closed() -> Self {
        Self(Mutex::new(None))
    }

    fn ends(&self) -> MutexGuard<'_, Option<(OwnedFd, OwnedFd)>> {
        lock(&self.0)
    }

    /// Returns the number of the read end. -1 if the pipe is closed.
    pub fn read_end(&self) -> RawFd {
        self.ends().as_ref().map_or(-1, |(read, _)| read.as_raw_fd())
    }

    /// Returns the inode number, which no other pipe has.
    pub fn inode(&self) -> nix::Result<u64> {
        self.ends().as_ref().map_or(Err(Errno::EBADF), |(read, _)| fstat(read.as_fd()).map(|stat| stat.st_ino))
    }

    /// Writes a byte: the helper goes on after the ID maps were written, or init waits for the caller.
    pub fn write(&self) -> nix::Result<()> {
        self.ends().as_ref().map_or(Err(Errno::EPIPE), |(_, end)| write(end, b"\x01").map(drop))
    }

    /// Closes both ends, so that the sandbox terminates.
    pub fn close(&self) {
        self.ends().take();
    }
}
