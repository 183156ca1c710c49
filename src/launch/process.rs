//! A handle to a process of a sandbox, by its pidfd: sends signals, kills it, and reaps it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::reaper::{self, ProcessKey, Reaper};
use crate::advice::{Denial, Need};
use crate::error::{Error, Result};
use crate::plan::Slot;
use crate::sys::clone::ChildProcess;
use crate::sys::layout::Layout;
use crate::sys::pidfd;
use crate::sys::priority::thread_has_deadlines;
use crate::sys::wait::{self, Exit, Status};
use crate::unix::ToErrno;

/// The interval at which `unblock_exit` is called while a killed process has not exited, in milliseconds.
const UNBLOCK_INTERVAL: u8 = 20;
/// The first such interval. Each is twice as long as the one before.
const FIRST_INTERVAL: u8 = 2;
/// The time that a killed process may take to exit.
pub(super) const MAX_EXIT_TIME: Duration = Duration::from_secs(10);

/// Sends signals to a process, from any thread. After the process is reaped, signals fail with `ESRCH`, even if its PID
/// is reused.
#[derive(Debug)]
pub(super) struct SignalTarget {
    key: ProcessKey,
    pidfd: Arc<OwnedFd>,
    /// When SIGKILL was first sent to it.
    killed_at: OnceLock<Instant>,
}

impl SignalTarget {
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        pidfd::send(self.pidfd.as_fd(), signal).or_else(|errno| self.signal_by_pid(signal, errno))?;
        if signal == libc::SIGKILL {
            self.killed_at.get_or_init(Instant::now);
        }
        Ok(())
    }

    /// Sends a signal by the PID, since that by the pidfd was refused with `errno`: the filter of a container may deny
    /// only the newer call.
    fn signal_by_pid(&self, signal: i32, errno: Errno) -> nix::Result<()> {
        let mut sent = Err(errno);
        if matches!(errno, Errno::EPERM | Errno::ENOSYS | Errno::EACCES) {
            reaper::while_unreaped(self.key, self.pidfd.as_fd(), || sent = pidfd::send_to(self.key.pid, signal));
        }
        sent
    }

    /// Sends a signal to the process group that it leads. Returns `ESRCH` if it leads none. The signal never reaches the
    /// group of another process to which its PID was given.
    pub fn signal_group(&self, signal: i32) -> nix::Result<()> {
        // Supported since Linux 6.9.
        let mut sent = pidfd::send_to_group(self.pidfd.as_fd(), signal);
        if !matches!(sent, Ok(()) | Err(Errno::ESRCH)) {
            sent = Err(Errno::ESRCH);
            reaper::while_unreaped(self.key, self.pidfd.as_fd(), || sent = pidfd::send_to(-self.key.pid, signal));
        }
        sent
    }

    /// Waits until it has exited, for at most `timeout`. Returns whether it has. A signal of the caller interrupts the
    /// wait.
    pub fn has_exited(&self, timeout: PollTimeout) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => Ok(false),
            other => other.map(|ready| ready > 0),
        }
    }
}

/// A child of the caller. Dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    target: Arc<SignalTarget>,
    child: ChildProcess,
    reaped: bool,
}

impl Process {
    pub(super) fn new(child: ChildProcess) -> Self {
        let (key, pidfd) = (reaper::register(child.pid()), child.pidfd().clone());
        Self { target: Arc::new(SignalTarget { key, pidfd, killed_at: OnceLock::new() }), child, reaped: false }
    }

    /// Clones a child that shares the memory of the caller: see [`ChildProcess::clone`]. `step` is for the error.
    pub(super) fn clone(flags: u64, script: &Layout<'_>, step: &'static str) -> Result<Self> {
        ChildProcess::clone(flags, script).map(Self::new).map_err(|errno| clone_error(step, flags, errno))
    }

    pub fn from_parts(pid: i32, pidfd: OwnedFd) -> Self {
        Self::new(ChildProcess::from_parts(pid, pidfd))
    }

    /// Returns a handle by which other threads can send signals.
    pub(super) fn target(&self) -> &Arc<SignalTarget> {
        &self.target
    }

    /// Returns the child itself.
    pub(super) fn child(&mut self) -> &mut ChildProcess {
        &mut self.child
    }

    /// Returns the value of a slot of the script that it executes in memory of the caller: see [`ChildProcess::slot`].
    pub(super) fn slot(&self, slot: Slot) -> u64 {
        self.child.slot(slot)
    }

    pub fn pid(&self) -> i32 {
        self.target.key.pid
    }

    /// Gives up the process, because another process owns it. Dropping this then neither kills nor reaps it.
    pub fn disown(&mut self) {
        self.reaped = true;
    }

    /// Returns whether it was reaped or given up. Its PID may have been reused then.
    pub fn is_reaped(&self) -> bool {
        self.reaped
    }

    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        if self.reaped {
            return Err(Errno::ESRCH);
        }
        self.target.signal(signal)
    }

    /// Returns whether SIGKILL was sent to it.
    pub fn is_killed(&self) -> bool {
        self.target.killed_at.get().is_some()
    }

    /// Returns whether it was killed more than [`MAX_EXIT_TIME`] ago.
    pub fn is_overdue(&self) -> bool {
        self.target.killed_at.get().is_some_and(|killed| killed.elapsed() > MAX_EXIT_TIME)
    }

    /// Waits until it has exited, for at most `timeout`: see [`SignalTarget::has_exited`].
    pub fn has_exited(&self, timeout: PollTimeout) -> nix::Result<bool> {
        self.target.has_exited(timeout)
    }

    /// Waits for a process that exits by itself, and reaps it. Kills it if it has not exited in [`MAX_EXIT_TIME`].
    pub fn wait(&mut self) -> nix::Result<Exit> {
        let start = Instant::now();
        while start.elapsed() < MAX_EXIT_TIME && !self.has_exited(UNBLOCK_INTERVAL.into())? {}
        self.finish()
    }

    /// Returns whether it has exited before it executed a program (`PF_FORKNOEXEC` of linux/sched.h, in proc_pid_stat(5)), and
    /// was not reaped: a signal has killed it, or the interpreter could not report why it exits.
    pub(super) fn exited_before_execution(&self) -> bool {
        const FORK_NO_EXEC: u64 = 0x40;
        /// The exit status of the interpreter.
        const FAILED: i32 = 127;
        /// The position of the flags after the name.
        const FLAGS: usize = 6;
        let flags = || {
            let stat = std::fs::read(format!("/proc/{}/stat", self.pid())).ok()?;
            let name = stat.iter().rposition(|&byte| byte == b')')?;
            String::from_utf8_lossy(&stat[name + 1..]).split_whitespace().nth(FLAGS)?.parse::<u64>().ok()
        };
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
        self.has_exited(PollTimeout::ZERO) == Ok(true)
            && matches!(
                waitid(Id::PIDFd(self.as_fd()), peek),
                Ok(WaitStatus::Exited(_, FAILED) | WaitStatus::Signaled(..))
            )
            && flags().is_some_and(|flags| flags & FORK_NO_EXEC != 0)
    }

    /// Calls `action` if it was not reaped: see [`reaper::while_unreaped`].
    pub(super) fn while_unreaped(&self, action: impl FnOnce()) {
        reaper::while_unreaped(self.target.key, self.as_fd(), action);
    }

    /// Takes the status of a process that has exited. `None` if a tracer has not released the status yet (ptrace(2)).
    fn reap(&mut self) -> nix::Result<Option<Exit>> {
        let taken = wait::take_status(self.as_fd(), libc::WNOHANG);
        if let Ok(None) = taken {
            return Ok(None);
        }
        self.reaped = true;
        let kept = reaper::forget(self.target.key);
        match taken {
            Err(Errno::ECHILD) => {
                Ok(Some(kept.unwrap_or_else(|| Exit::of(wait::kept_status(self.as_fd()).unwrap_or(Status::Lost)))))
            }
            other => other,
        }
    }

    /// Kills and reaps it. Returns how it exited, which may have been before the kill.
    ///
    /// Returns `ETIMEDOUT` if it does not exit in [`MAX_EXIT_TIME`], for example because it waits for a file system
    /// that does not respond. It is reaped later then ([`reaper::reap_abandoned`]).
    pub fn finish(&mut self) -> nix::Result<Exit> {
        self.finish_while(|| {})
    }

    /// Kills and reaps the init of a sandbox. `program` is the PID that its program had. Meanwhile reaps the processes
    /// that the init waits for, and calls `unblock_exit` repeatedly, which removes what may prevent processes from
    /// exiting.
    pub fn finish_init_of(&mut self, program: Option<i32>, unblock_exit: impl Fn()) -> nix::Result<Exit> {
        /// An init takes longer if something keeps it. The search for that reads the status of every process of the host.
        const USUAL_EXIT_TIME: Duration = Duration::from_millis(10);
        let (init, start, mut reaper) = (self.pid(), Instant::now(), None);
        self.finish_while(|| {
            if start.elapsed() >= USUAL_EXIT_TIME {
                reaper.get_or_insert_with(|| Reaper::of(init, program)).reap();
            }
            unblock_exit();
        })
    }

    /// Kills and reaps it. Meanwhile calls `unblock_exit` repeatedly, which removes what may prevent it from exiting.
    pub fn finish_while(&mut self, mut unblock_exit: impl FnMut()) -> nix::Result<Exit> {
        /// The pause before another attempt to reap a process whose tracer has not released its status.
        const PAUSE: Duration = Duration::from_millis(1);
        if self.target.killed_at.get().is_none() {
            let _ = self.signal(libc::SIGKILL);
        }
        self.target.killed_at.get_or_init(Instant::now);
        let mut interval = FIRST_INTERVAL;
        loop {
            if self.has_exited(interval.into()) != Ok(false) {
                if let Some(exit) = self.reap()? {
                    return Ok(exit);
                }
                std::thread::sleep(PAUSE);
            }
            if self.is_overdue() {
                self.abandon();
                return Err(Errno::ETIMEDOUT);
            }
            unblock_exit();
            interval = (2 * interval).min(UNBLOCK_INTERVAL);
        }
    }

    /// Hands it over to the reaper, which reaps it later.
    pub(super) fn abandon(&mut self) {
        self.reaped = true;
        if let Ok(pidfd) = self.as_fd().try_clone_to_owned() {
            reaper::abandon(self.target.key, pidfd);
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.finish();
        }
    }
}

/// Opens a pidfd of the caller.
pub(super) fn own_pidfd() -> nix::Result<OwnedFd> {
    pidfd::open(std::process::id() as i32)
}

/// Returns the error of a failed clone.
fn clone_error(step: &'static str, flags: u64, errno: Errno) -> Error {
    let remedy = match errno {
        Errno::EAGAIN if thread_has_deadlines() => Some(
            "spawn from another thread, or set SCHED_FLAG_RESET_ON_FORK: a thread with the policy SCHED_DEADLINE \
             cannot start a process (sched(7))",
        ),
        Errno::EAGAIN => Some("raise the limit on processes (RLIMIT_NPROC, pids.max)"),
        _ => None,
    };
    let need = (flags & libc::CLONE_NEWUSER as u64 != 0).then_some(Need::Namespaces(libc::CLONE_NEWUSER as u64));
    let advice = Denial { need, call: "clone", errno: errno.to_errno() }.advice(remedy);
    Error::set_up(step, "clone", errno, advice.as_deref())
}
