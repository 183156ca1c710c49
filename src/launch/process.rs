//! A process of a sandbox, held by its pidfd.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::interpreter::Cloned;
use super::reaper::{self, Name, Reaper};
use crate::sys::pidfd;
use crate::watch::{Ended, How};

/// Milliseconds that a process may take to end before what hinders it is looked for.
const PATIENCE: u8 = 20;
/// Time that it may take once it was killed.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

/// A child of the host. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    name: Name,
    pidfd: OwnedFd,
    reaped: bool,
    /// When it was killed first.
    killed: OnceLock<Instant>,
    /// Memory of the caller that it runs in.
    memory: Vec<u64>,
}

impl Process {
    /// A process that was just cloned, with the memory of the caller that it runs in until it executes an image.
    pub(super) fn new(cloned: Cloned, memory: Vec<u64>) -> Self {
        let mut process = Self::from_parts(cloned.pid, cloned.pidfd);
        process.memory = memory;
        process
    }

    pub fn from_parts(pid: i32, pidfd: OwnedFd) -> Self {
        Self { name: reaper::register(pid), pidfd, reaped: false, killed: OnceLock::new(), memory: vec![] }
    }

    /// Frees that memory: it has executed an image.
    pub(super) fn free_memory(&mut self) {
        self.memory = vec![];
    }

    /// The memory of the caller that it runs in, or has run in.
    pub(super) fn memory(&self) -> &[u64] {
        &self.memory
    }

    /// A child that nobody has reaped, so that its pid is nobody else's.
    pub(super) fn of_child(pid: i32) -> nix::Result<Self> {
        pidfd::open(pid).map(|pidfd| Self::from_parts(pid, pidfd))
    }

    pub fn pid(&self) -> i32 {
        self.name.pid
    }

    /// Leaves it to another process: dropping it does nothing to it.
    pub fn disown(&mut self) {
        self.reaped = true;
    }

    /// Whether its status was taken, so that its pid may be another's.
    pub fn is_reaped(&self) -> bool {
        self.reaped
    }

    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        if self.reaped {
            return Err(Errno::ESRCH);
        }
        pidfd::send(self.pidfd.as_fd(), signal)?;
        if signal == libc::SIGKILL {
            self.killed.get_or_init(Instant::now);
        }
        Ok(())
    }

    /// Kills the group of processes that it leads, if it does; none that another process leads which has its pid later.
    pub fn kill_group(&self) {
        // Linux 6.9.
        let sent = pidfd::send_to_group(self.pidfd.as_fd(), libc::SIGKILL);
        if !matches!(sent, Ok(()) | Err(Errno::ESRCH)) {
            reaper::while_unreaped(self.name, self.pidfd.as_fd(), || {
                let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
            });
        }
    }

    /// Whether it was killed so long ago that the kernel does not seem to let it end.
    pub fn is_overdue(&self) -> bool {
        self.killed.get().is_some_and(|killed| killed.elapsed() > LONGEST)
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

    /// Waits for the end of a process that ends by itself, and takes its status. It is killed if it takes too long.
    pub fn wait(&mut self) -> nix::Result<Ended> {
        let start = Instant::now();
        while start.elapsed() < LONGEST && !self.has_ended(PATIENCE.into())? {}
        self.finish()
    }

    /// Takes the status of a process that has ended; `None` if a tracer keeps it still (ptrace(2)).
    fn reap(&mut self) -> nix::Result<Option<Ended>> {
        let taken = take_status(self.pidfd.as_fd(), libc::WNOHANG);
        if let Ok(None) = taken {
            return Ok(None);
        }
        self.reaped = true;
        let kept = reaper::forget(self.name);
        match taken {
            Err(Errno::ECHILD) => {
                Ok(Some(kept.unwrap_or_else(|| Ended::of(self.kept_status().unwrap_or(How::Unknown)))))
            }
            other => other,
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

    /// Kills and reaps it; how it had ended, if it had before.
    ///
    /// A process that the kernel does not let end, such as one that waits for a file system that does not answer, is left
    /// to be reaped later: `ETIMEDOUT`.
    pub fn finish(&mut self) -> nix::Result<Ended> {
        self.finish_while(|| {})
    }

    /// The same of the init of a sandbox, whose program had this pid. `unhinder` is called again and again meanwhile,
    /// to remove what may keep processes from ending.
    pub fn finish_init_of(&mut self, program: Option<i32>, unhinder: impl Fn()) -> nix::Result<Ended> {
        let (init, mut reaper) = (self.pid(), None);
        self.finish_while(|| {
            reaper.get_or_insert_with(|| Reaper::of(init, program)).reap();
            unhinder();
        })
    }

    pub fn finish_while(&mut self, mut unhinder: impl FnMut()) -> nix::Result<Ended> {
        /// Between two looks at a process whose tracer keeps its status.
        const PAUSE: Duration = Duration::from_millis(1);
        if self.killed.get().is_none() {
            let _ = self.signal(libc::SIGKILL);
        }
        self.killed.get_or_init(Instant::now);
        loop {
            if self.has_ended(PATIENCE.into()) != Ok(false) {
                if let Some(ended) = self.reap()? {
                    return Ok(ended);
                }
                std::thread::sleep(PAUSE);
            }
            if self.is_overdue() {
                self.leave();
                return Err(Errno::ETIMEDOUT);
            }
            unhinder();
        }
    }

    /// Leaves it to be reaped later.
    pub(super) fn leave(&mut self) {
        self.reaped = true;
        // It may run in it still.
        std::mem::forget(std::mem::take(&mut self.memory));
        if let Ok(pidfd) = self.pidfd.try_clone() {
            reaper::leave(self.name, pidfd);
        }
    }
}

/// Takes the status of a child by its pidfd (waitid(2)); none if it has not ended yet, and `flags` has `WNOHANG`.
pub(super) fn take_status(pidfd: BorrowedFd<'_>, flags: i32) -> nix::Result<Option<Ended>> {
    // SAFETY: plain data, for which all zeroes are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::__WALL | flags;
    loop {
        // SAFETY: the two structures are ours and of the kernel's own layout.
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
    // SAFETY: waitid has filled the fields of a child's end, or left all of them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let how = match info.si_code {
        _ if pid == 0 => return Ok(None),
        libc::CLD_EXITED => How::Exited(status),
        code => How::Signaled { signal: status, core: code == libc::CLD_DUMPED },
    };
    Ok(Some(Ended { rusage: Some(usage), ..Ended::of(how) }))
}

/// Whether nobody has taken the status of a child, which runs or has ended.
pub(super) fn is_unreaped(pidfd: BorrowedFd<'_>) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    waitid(Id::PIDFd(pidfd), flags) != Err(Errno::ECHILD)
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
            let _ = self.finish();
        }
    }
}

/// A pidfd of this process.
pub(super) fn own_pidfd() -> nix::Result<OwnedFd> {
    pidfd::open(std::process::id() as i32)
}
