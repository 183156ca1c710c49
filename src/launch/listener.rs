//! The listener of a seccomp filter (seccomp_unotify(2), since Linux 5.0).
#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::process::Handle;
use crate::system_call::is_foreign;
use crate::watch::{Answer, Heard, Listen};

#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listen for Listener {
    fn next(&self, stop: BorrowedFd<'_>) -> nix::Result<Option<Heard>> {
        loop {
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
                Ok(_) => {}
            }
            let [listener, stop] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            // Who stops it has ended the sandbox. The listener hangs up when nobody runs under the filter any more.
            if !stop.is_empty() || !listener.contains(PollFlags::POLLIN) {
                return Ok(None);
            }
            // SAFETY: plain data, for which all zeroes are valid; the kernel asks for them.
            let mut heard: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the structure is ours and of the size that the request carries.
            let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut heard) };
            match Errno::result(result) {
                Ok(_) => {
                    let (pid, data) = (heard.pid as i32, heard.data);
                    let is_foreign = is_foreign(data.arch, data.nr);
                    return Ok(Some(Heard { id: heard.id, pid, number: data.nr, is_foreign, args: data.args }));
                }
                // Who made the call was killed meanwhile, or a signal of the host came between.
                Err(Errno::ENOENT | Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the request takes the address of a number, which it reads.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
        result == 0
    }

    fn answer(&self, id: u64, answer: Answer) -> nix::Result<()> {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Error(errno) => (0, -errno, 0),
            Answer::Value(value) => (value, 0, 0),
        };
        let mut answer = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the structure is ours and of the size that the request carries.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        match Errno::result(result) {
            // Who made the call is not there any more.
            Err(Errno::ENOENT) => Ok(()),
            other => other.map(drop),
        }
    }

    fn kill(&self, heard: &Heard) {
        let Ok(process) = Handle::open(process_of(heard.pid)) else { return };
        // While the call waits, the pid is nobody else's.
        if self.is_waiting(heard.id) {
            let _ = process.signal(libc::SIGKILL);
        }
    }
}

/// The process that a thread belongs to (proc(5), `/proc/[pid]/status`).
fn process_of(thread: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    group.unwrap_or(thread)
}
