//! A process of a sandbox, held by its pidfd.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::interpreter::Cloned;
use super::strays;
use crate::pidfd;
use crate::watch::{Ended, How};

/// A child of the host. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Process {
    pub(super) fn new(cloned: Cloned) -> Self {
        Self::from_parts(cloned.pid, cloned.pidfd)
    }

    pub fn from_parts(pid: i32, pidfd: OwnedFd) -> Self {
        strays::register(pid);
        Self { pid, pidfd, reaped: false }
    }

    /// A child that nobody has reaped, so that its pid is nobody else's.
    pub(super) fn of_child(pid: i32) -> nix::Result<Self> {
        pidfd::open(pid).map(|pidfd| Self::from_parts(pid, pidfd))
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether its status was taken, so that its pid may be another's.
    pub fn is_reaped(&self) -> bool {
        self.reaped
    }

    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        if self.reaped {
            return Err(Errno::ESRCH);
        }
        pidfd::send(self.pidfd.as_fd(), signal)
    }

    /// Something that another thread can send signals by.
    pub fn handle(&self) -> nix::Result<Handle> {
        let copy =
            self.pidfd.try_clone().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Handle(copy))
    }

    /// Whether it has ended, waiting for that as long as `timeout` says, or until a signal of the host comes between.
    pub fn has_ended(&self, timeout: PollTimeout) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => Ok(false),
            other => other.map(|ready| ready > 0),
        }
    }

    /// Waits for the end, and takes the status.
    pub fn wait(&mut self) -> nix::Result<Ended> {
        while !self.has_ended(PollTimeout::NONE)? {}
        self.reap()
    }

    /// Takes the status of a process that has ended.
    fn reap(&mut self) -> nix::Result<Ended> {
        // SAFETY: plain data, for which all zeroes are valid.
        let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
        let result = loop {
            // SAFETY: the two structures are ours and of the kernel's own layout.
            let result = unsafe {
                let fd = self.pidfd.as_raw_fd();
                libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, libc::WEXITED, &raw mut usage)
            };
            match Errno::result(result) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        self.reaped = true;
        strays::forget(self.pid);
        match result {
            Ok(_) => {
                // SAFETY: waitid has filled the fields of a child's end.
                let status = unsafe { info.si_status() };
                let how = match info.si_code {
                    libc::CLD_EXITED => How::Exited(status),
                    code => How::Signaled { signal: status, core: code == libc::CLD_DUMPED },
                };
                Ok(Ended { rusage: Some(usage), ..Ended::of(how) })
            }
            Err(Errno::ECHILD) => Ok(Ended::of(self.kept_status().unwrap_or(How::Unknown))),
            Err(errno) => Err(errno),
        }
    }

    /// The status that the kernel keeps with the pidfd, since Linux 6.15 (`PIDFD_INFO_EXIT`). It is there some moments
    /// after the pidfd has become readable.
    fn kept_status(&self) -> Option<How> {
        const TRIES: u32 = 1000;
        const PAUSE: Duration = Duration::from_micros(100);
        for _ in 0..TRIES {
            // SAFETY: plain data, for which all zeroes are valid.
            let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
            info.mask = libc::PIDFD_INFO_EXIT.into();
            // SAFETY: the request carries the size of the structure, which is ours.
            let result = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
            match Errno::result(result) {
                Ok(_) if info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0 => {
                    let status = info.exit_code;
                    return Some(match libc::WTERMSIG(status) {
                        0 => How::Exited(libc::WEXITSTATUS(status)),
                        signal => How::Signaled { signal, core: libc::WCOREDUMP(status) },
                    });
                }
                // It is not reaped yet, or is being reaped just now.
                Ok(_) | Err(Errno::ESRCH) => std::thread::sleep(PAUSE),
                // The kernel has no such request.
                Err(_) => return None,
            }
        }
        None
    }

    /// Kills and reaps it, and does something again and again meanwhile that may hinder its end; how it had ended, if it had
    /// before.
    pub fn finish(&mut self, unhinder: impl Fn()) -> nix::Result<Ended> {
        /// Time that an init may take, in milliseconds, before what hinders it is looked for.
        const PATIENCE: u8 = 20;
        let _ = self.signal(libc::SIGKILL);
        let mut strays = BTreeSet::new();
        while let Ok(false) = self.has_ended(PATIENCE.into()) {
            strays::reap(&mut strays);
            unhinder();
        }
        self.reap()
    }
}

/// A pidfd of a process that somebody else holds.
pub(super) struct Handle(OwnedFd);

impl Handle {
    /// Of whoever has this pid now.
    pub fn open(pid: i32) -> nix::Result<Self> {
        pidfd::open(pid).map(Self)
    }

    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        pidfd::send(self.0.as_fd(), signal)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.finish(|| {});
        }
    }
}

/// A pidfd of this process.
pub(super) fn own_pidfd() -> nix::Result<OwnedFd> {
    pidfd::open(std::process::id() as i32)
}
