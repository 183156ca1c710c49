//! Waiting for children by pidfd, and the exit status that the kernel keeps (waitid(2), pidfd_open(2)).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How a process exited, and its resource usage if the caller reaped it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub status: Status,
    pub rusage: Option<libc::rusage>,
}

impl Exit {
    /// Creates an exit without resource usage.
    pub fn of(status: Status) -> Self {
        Self { status, rusage: None }
    }

    /// User and system CPU time.
    pub fn cpu_times(&self) -> Option<[Duration; 2]> {
        let time =
            |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000);
        self.rusage.as_ref().map(|rusage| [time(rusage.ru_utime), time(rusage.ru_stime)])
    }
}

/// The wait status of a process (wait(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Signaled {
        signal: i32,
        core: bool,
    },
    /// Another wait in this process took the status, and the kernel keeps no copy.
    Lost,
}

/// Takes the status of a child. Returns `None` if it has not exited yet and `flags` contains `WNOHANG`.
pub(crate) fn take_status(pidfd: BorrowedFd<'_>, flags: i32) -> nix::Result<Option<Exit>> {
    // SAFETY: both are plain data, for which all zeroes are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::__WALL | flags;
    loop {
        // SAFETY: the kernel writes to the two structures, which are ours and have its own layout.
        let result = unsafe {
            let fd = pidfd.as_raw_fd();
            libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd, &raw mut info, flags, &raw mut usage)
        };
        match Errno::result(result) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid has filled in the fields of SIGCHLD, or left all of them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = match info.si_code {
        _ if pid == 0 => return Ok(None),
        libc::CLD_EXITED => Status::Exited(status),
        code => Status::Signaled { signal: status, core: code == libc::CLD_DUMPED },
    };
    Ok(Some(Exit { status, rusage: Some(usage) }))
}

/// Takes the status of a thread that has exited and is traced by the caller, if it is one.
pub(crate) fn take_status_of_thread(thread: i32) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    let _ = waitid(Id::Pid(Pid::from_raw(thread)), flags);
}

/// Returns whether a child has not been reaped.
pub(crate) fn is_unreaped(pidfd: BorrowedFd<'_>) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    waitid(Id::PIDFd(pidfd), flags) != Err(Errno::ECHILD)
}

/// Returns the status that the kernel keeps with the pidfd of a reaped process (`PIDFD_INFO_EXIT`, since Linux 6.15).
/// It appears some moments after the pidfd has become readable.
pub(crate) fn kept_status(pidfd: BorrowedFd<'_>) -> Option<Status> {
    const TRIES: u32 = 1000;
    const PAUSE: Duration = Duration::from_micros(100);
    for _ in 0..TRIES {
        // SAFETY: plain data, for which all zeroes are valid.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = libc::PIDFD_INFO_EXIT.into();
        // SAFETY: the request carries the size of the structure, which is ours.
        let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        match Errno::result(result) {
            Ok(_) if info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0 => {
                let status = info.exit_code;
                return Some(match libc::WTERMSIG(status) {
                    0 => Status::Exited(libc::WEXITSTATUS(status)),
                    signal => Status::Signaled { signal, core: libc::WCOREDUMP(status) },
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
