//! Kills a sandbox from any thread, while another waits for it or reaps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::PollTimeout;

use super::control_pipe::ControlPipe;
use super::process::{Process, SignalTarget};
use crate::cgroup::Members;

/// A handle that kills every process of a sandbox. It holds descriptors of processes and cgroups, and no PIDs or paths,
/// which may be reused.
#[derive(Debug)]
pub(crate) struct KillSwitch {
    program: Arc<SignalTarget>,
    /// The init of the sandbox's PID namespace. When it is killed, the kernel kills all other processes in that
    /// namespace.
    init: Option<Arc<SignalTarget>>,
    members: Members,
    control: ControlPipe,
    is_requested: AtomicBool,
}

impl KillSwitch {
    pub(super) fn new(program: &Process, init: Option<&Process>, members: Members, control: ControlPipe) -> Self {
        let (program, init) = (program.target().clone(), init.map(|init| init.target().clone()));
        Self { program, init, members, control, is_requested: AtomicBool::new(false) }
    }

    /// Kills every process of the sandbox at the request of the caller, unless the program has exited.
    pub fn request(&self) -> nix::Result<()> {
        if self.program.has_exited(PollTimeout::ZERO)? {
            return Ok(());
        }
        // Set before the kill: a thread that finds the program killed reads this to report why.
        self.is_requested.store(true, Ordering::Release);
        // The limits are to be enforced further on if the program could not be killed.
        self.kill().inspect_err(|_| self.is_requested.store(false, Ordering::Release))
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        self.program.signal(signal)
    }

    /// Sends a signal to the process group that the program leads, or to the program alone if it leads none.
    pub fn signal_group(&self, signal: i32) -> nix::Result<()> {
        self.program.signal_group(signal).or_else(|errno| match errno {
            Errno::ESRCH => self.program.signal(signal),
            errno => Err(errno),
        })
    }

    /// Stops the program: all processes of the sandbox if its cgroup can be frozen, else those of the program's process
    /// group.
    pub fn stop(&self) -> nix::Result<()> {
        if self.members.freeze() { Ok(()) } else { self.signal_group(libc::SIGSTOP) }
    }

    /// Continues what [`stop`](Self::stop) has stopped.
    pub fn resume(&self) -> nix::Result<()> {
        self.members.thaw();
        self.signal_group(libc::SIGCONT)
    }

    /// Returns whether [`request`](Self::request) has killed the sandbox.
    pub fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::Acquire)
    }

    /// Kills every process of the sandbox. The program must still be reaped.
    pub(super) fn kill(&self) -> nix::Result<()> {
        self.members.thaw();
        let init = match &self.init {
            Some(init) => init.signal(libc::SIGKILL),
            None => {
                self.members.kill();
                // Fails if the program is not the leader of a process group, as without a session of its own.
                let _ = self.program.signal_group(libc::SIGKILL);
                Err(Errno::ESRCH)
            }
        };
        match init.or(self.program.signal(libc::SIGKILL)) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            // The caller may send no signals: a filter of a container denies it. Init exits when the pipe closes, and
            // the kernel kills the others with it.
            Err(_) if self.init.is_some() => {
                self.control.close();
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Tells the keeper to wait for the caller: it would kill the sandbox soon after the program has exited.
    pub(super) fn wait_for_caller(&self) {
        let _ = self.control.write();
    }

    /// Closes the control pipe, so that the keeper exits.
    pub(super) fn close_control(&self) {
        self.control.close();
    }

    /// Thaws the cgroup of the sandbox. A process that is frozen there does not exit.
    pub(super) fn thaw(&self) {
        self.members.thaw();
    }

    /// Returns the pids of the processes in the sandbox's cgroup, as the caller sees them: see [`Members::pids`].
    pub(super) fn pids(&self) -> nix::Result<Vec<i32>> {
        self.members.pids()
    }
}
