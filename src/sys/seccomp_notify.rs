//! The listener of a seccomp filter (seccomp_unotify(2), since Linux 5.0).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// A system call that waits for a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub id: u64,
    /// The thread that makes the call.
    pub pid: i32,
    /// The architecture that `number` belongs to (`AUDIT_ARCH_*`).
    pub architecture: u32,
    pub number: i32,
    pub args: [u64; 6],
}

/// The response to a waiting call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Response {
    /// The kernel executes the call.
    Continue,
    Error(i32),
    Value(i64),
}

/// Receives a waiting call. Returns `None` if its thread was killed in the meantime, or if a signal of the caller has
/// interrupted this function.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> nix::Result<Option<Request>> {
    // SAFETY: plain data, for which all zeroes are valid; the kernel demands them.
    let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours and has the size that the request carries.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut request) };
    match Errno::result(result) {
        Ok(_) => {
            let (pid, data) = (request.pid as i32, request.data);
            Ok(Some(Request { id: request.id, pid, architecture: data.arch, number: data.nr, args: data.args }))
        }
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Returns whether a call still waits. If so, its PID has not been reused.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the request takes the address of a number, which it reads.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
    result == 0
}

/// Responds to a call. It is not an error if its thread has exited.
pub(crate) fn respond(listener: BorrowedFd<'_>, id: u64, response: Response) -> nix::Result<()> {
    let (val, error, flags) = match response {
        Response::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Response::Error(errno) => (0, -errno, 0),
        Response::Value(value) => (value, 0, 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the structure is ours and has the size that the request carries.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    match Errno::result(result) {
        Err(Errno::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}
