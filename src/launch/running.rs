//! A running sandbox: kills and reaps its processes, and reads the statistics of its cgroup.

use std::fs;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollTimeout;

use super::descriptors;
use super::host_ids::Reserved;
use super::kill_switch::KillSwitch;
use super::listener::Listener;
use super::live_session::LaunchedSession;
use super::placeholder::HeldPlaceholder;
use super::process::Process;
use super::reaper::Reaper;
use super::{traced_threads, unkillable};
use crate::cgroup::{Account, CreatedCgroup, freezer};
use crate::creator::Creator;
use crate::error::{Error, Result};
use crate::escape::shown;
use crate::layer::Layer;
use crate::outcome::{Leaked, Unenforced};
use crate::plan::report::{PROGRAM_EXITED, WALL_TIME_EXCEEDED};
use crate::sys::wait::{Exit, Status};
use crate::unix::Pid;

/// A sandbox whose program was executed. Dropping it kills and reaps every process of the sandbox.
#[derive(Debug)]
pub(crate) struct Running {
    pub(super) creator: Creator,
    pub(super) program: Process,
    pub(super) keeper: Keeper,
    /// Shared with other threads. `None` after the sandbox was reaped.
    pub(super) kill_switch: Option<Arc<KillSwitch>>,
    /// The caller's ends of pipes.
    pub streams: [Option<OwnedFd>; 3],
    pub pty: Option<OwnedFd>,
    /// The listener of the seccomp filter, if the policy passes calls to the caller.
    pub listener: Option<Listener>,
    /// Namespaces of the sandbox, if they were requested, with their kinds as flags of clone(2).
    pub namespaces: Vec<(u32, OwnedFd)>,
    pub(super) started: Instant,
    /// The relays and terminals of the descriptors that the program has inherited.
    pub(super) held: descriptors::HeldForProgram,
    /// What could not be enforced since the start.
    pub(super) lost: Vec<Unenforced>,
    /// Removed after every process has exited.
    pub(super) cgroup: Option<CreatedCgroup>,
    /// The host ID of the processes. Released after they have exited.
    pub(super) reserved: Option<Reserved>,
    /// Released after every process has exited.
    pub(super) placeholders: Vec<HeldPlaceholder>,
}

/// The process whose end is that of the sandbox.
#[derive(Debug)]
pub(super) enum Keeper {
    /// The init of its PID namespace, with which the kernel kills all other processes in it. It exits when the control pipe
    /// closes, which the kill switch holds.
    Init(Process),
    /// The helper, which stays where there is no PID namespace. It exits in the same way.
    Helper(Process),
    /// The init of a session, which goes on without this program.
    Session(Arc<LaunchedSession>),
}

impl Keeper {
    /// The process, unless it is that of a session.
    fn own(&mut self) -> Option<&mut Process> {
        match self {
            Self::Init(process) | Self::Helper(process) => Some(process),
            Self::Session(_) => None,
        }
    }

    /// Returns whether all processes of the sandbox were killed.
    fn has_exited(&self) -> bool {
        match self {
            Self::Init(process) | Self::Helper(process) => process.has_exited(PollTimeout::ZERO).unwrap_or(false),
            Self::Session(session) => session.has_ended(),
        }
    }
}

/// A sandbox whose processes have exited.
pub(crate) struct ReapedSandbox {
    /// How the program exited.
    pub exit: Exit,
    /// Whether its process exited before it executed the program. Only programs of the same session can kill it.
    pub never_executed: bool,
    /// The final statistics of the sandbox's cgroup.
    pub account: Option<Account>,
    /// Whether the caller has killed the sandbox: [`KillSwitch::request`].
    pub was_killed: bool,
    /// Whether the keeper has killed the sandbox because the wall-clock limit was exceeded.
    pub wall_time_exceeded: bool,
    /// Whether the keeper has killed the sandbox because the program had exited. Leaked processes may not have been
    /// listed before.
    pub killed_by_init: bool,
    /// What could not be enforced while the sandbox was running.
    pub lost: Vec<Unenforced>,
}

impl Running {
    /// Returns the program's PID.
    pub fn pid(&self) -> i32 {
        self.program.pid()
    }

    /// Returns the program's pidfd, which is readable when the program has exited.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Returns when the program was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: i32) -> nix::Result<()> {
        self.program.signal(signal)
    }

    /// Waits until the program has exited, for at most `timeout`. Returns whether it has.
    pub fn has_exited(&self, timeout: PollTimeout) -> nix::Result<bool> {
        self.program.has_exited(timeout)
    }

    /// Releases what keeps a program that has exited from being reaped: see `traced_threads.rs`.
    pub fn release_threads(&self) {
        let pid = self.program.pid();
        if traced_threads::has_exited_leader(pid) {
            self.program.while_unreaped(|| traced_threads::reap(pid));
            if matches!(self.keeper, Keeper::Session(_)) {
                traced_threads::end_tracers(pid);
            }
        }
    }

    /// Kills every process of the sandbox. The program must still be reaped.
    pub fn kill(&self) {
        if let Some(switch) = &self.kill_switch {
            let _ = switch.kill();
        }
    }

    /// Kills what does not outlive the program, which has exited or is to be killed: all of the sandbox, but in a session only
    /// what the caller or a limit kills.
    pub fn kill_with_program(&self) {
        if !self.outlives_program() {
            self.kill();
        }
    }

    /// Returns whether other processes go on: those of a session whose program has exited by itself.
    fn outlives_program(&self) -> bool {
        matches!(self.keeper, Keeper::Session(_))
            && !self.is_kill_requested()
            && !self.program.is_killed()
            && self.program.has_exited(PollTimeout::ZERO).unwrap_or(false)
    }

    /// Returns a handle by which other threads can kill the sandbox. It is empty after the sandbox was reaped.
    pub fn kill_switch(&self) -> Weak<KillSwitch> {
        self.kill_switch.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// Returns whether other threads can kill the sandbox.
    pub fn is_kill_switch_shared(&self) -> bool {
        self.kill_switch.as_ref().is_some_and(|switch| Arc::weak_count(switch) > 0)
    }

    /// Returns whether the caller has killed the sandbox: [`KillSwitch::request`].
    pub fn is_kill_requested(&self) -> bool {
        self.kill_switch.as_ref().is_some_and(|switch| switch.is_requested())
            || matches!(&self.keeper, Keeper::Session(session) if session.is_kill_requested())
    }

    /// Thaws the killed program, which cannot exit while it is frozen.
    pub fn unblock_exit(&self) {
        unblock_exit(self.kill_switch.as_deref(), self.program.pid());
    }

    /// Returns whether the program was killed too long ago and has still not exited. The error of [`Running::reap`]
    /// says why.
    pub fn is_overdue(&self) -> bool {
        self.program.is_overdue()
    }

    /// Kills and reaps the sandbox. `alone` means that no other process was in its cgroup when the program had exited.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unkillable`](crate::ErrorKind::Unkillable) if the program does not exit. It is reaped later then.
    pub fn reap(&mut self, alone: bool) -> Result<ReapedSandbox> {
        self.close_entries();
        let goes_on = self.outlives_program();
        if !goes_on {
            self.kill();
        }
        let (switch, pid) = (self.kill_switch.as_deref(), self.program.pid());
        // The program is reaped before the init, which cannot exit until every process of its namespace was reaped.
        let is_of_session = matches!(self.keeper, Keeper::Session(_));
        // Programs of the session can kill it as soon as it is cloned.
        let never_executed = is_of_session && self.program.exited_before_execution();
        let unblock = || {
            unblock_exit(switch, pid);
            traced_threads::reap(pid);
            if is_of_session {
                traced_threads::end_tracers(pid);
            }
        };
        let exit = match self.program.finish_while(unblock) {
            Ok(exit) => exit,
            Err(errno) => {
                let error = unkillable::explain(pid, errno);
                self.abandon();
                return Err(error);
            }
        };
        // If the cgroup is empty, it is read and removed while the init exits. Otherwise its processes are killed with
        // the init, and it is read after that. That of a command is removed when the next one runs, or later if processes
        // that the program has started are in it.
        let account = if alone { self.account() } else { None };
        let is_read = alone && (goes_on || self.cgroup.as_mut().is_none_or(CreatedCgroup::remove));
        let keeper = self.finish_keeper();
        let account = if is_read { account } else { self.account() };
        if let (Keeper::Session(session), Some(cgroup)) = (&self.keeper, self.cgroup.take_if(|_| goes_on)) {
            session.command_cgroups.leave(cgroup);
        }
        let mut lost = mem::take(&mut self.lost);
        lost.extend(self.held.finish());
        let status = keeper.as_ref().ok().copied().flatten();
        if let Err(error) = &keeper {
            let requested = "kill every process of the sandbox".into();
            lost.push(Unenforced { layer: Layer::Namespaces, requested, reason: error.to_string() });
            // A process still uses the host ID.
            mem::forget(self.reserved.take());
        }
        let mut reaped = ReapedSandbox {
            exit,
            never_executed,
            account,
            was_killed: self.is_kill_requested(),
            wall_time_exceeded: status == Some(Status::Exited(WALL_TIME_EXCEEDED)),
            killed_by_init: status == Some(Status::Exited(PROGRAM_EXITED)),
            lost,
        };
        self.kill_switch = None;
        if let Some(path) = self.cgroup.take().and_then(CreatedCgroup::remove_or_give_up) {
            reaped.lost.push(still_exists(&path));
        }
        self.reserved = None;
        self.placeholders.clear();
        Ok(reaped)
    }

    /// Closes the descriptors by which the program has entered its cgroup. A caller at its limit of descriptors needs
    /// free ones to list and kill the processes in it.
    fn close_entries(&mut self) {
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.close_entries();
        }
    }

    /// Returns the current statistics of the sandbox's cgroup, if there is one.
    pub fn account(&self) -> Option<Account> {
        self.cgroup.as_ref().and_then(CreatedCgroup::account)
    }

    /// Returns the processes in the sandbox's cgroup other than the program: the first ones, and the number of the
    /// rest.
    pub fn others(&mut self) -> (Vec<Leaked>, u64) {
        /// The maximum number of processes that are returned.
        const MOST: usize = 1024;
        self.close_entries();
        let Some(switch) = &self.kill_switch else { return (vec![], 0) };
        switch.wait_for_caller();
        let pids = switch.pids().unwrap_or_else(|errno| {
            let remedy = match errno {
                Errno::EMFILE | Errno::ENFILE => "close descriptors of the caller, or raise its RLIMIT_NOFILE",
                _ => "give the program a mount namespace, in which it cannot change the cgroups below its own",
            };
            let error = Error::set_up("list the processes of the cgroup", "openat", errno, Some(remedy));
            self.lost.push(Unenforced::new("the list of leaked processes", &error.of(Layer::Cgroup)));
            vec![]
        });
        // A process that no longer exists has exited by itself, unless the init has killed all processes.
        let all_killed = || self.keeper.has_exited();
        let named = |pid| {
            let name = fs::read(format!("/proc/{pid}/comm")).ok().or_else(|| all_killed().then(Vec::new))?;
            Some(Leaked { pid: Pid::from_raw(pid), name: shown(name.strip_suffix(b"\n").unwrap_or(&name)) })
        };
        let mut others = pids.into_iter().filter(|&pid| pid != self.program.pid());
        let leaked = others.by_ref().take(MOST).filter_map(named).collect();
        (leaked, others.count() as u64)
    }

    /// Freezes all processes of the sandbox, or thaws them.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.cgroup.as_ref().unwrap_or(&CreatedCgroup::default()).freeze(frozen)
    }
}

impl Running {
    /// Takes the list of what could not be enforced for the program's descriptors.
    pub(crate) fn lost(&mut self) -> Vec<Unenforced> {
        mem::take(&mut self.held.lost)
    }

    /// Closes the control pipe, and reaps the keeper. Returns its status, or an error that names the process that
    /// prevents it from exiting. The keeper of a session stays.
    fn finish_keeper(&mut self) -> Result<Option<Status>> {
        /// The time that a helper may take to exit by itself, in milliseconds.
        const HELPER_EXIT_TIME: u16 = 1000;
        self.close_control();
        if let Keeper::Helper(helper) = &self.keeper {
            // The exit status of a helper says why it has killed the program, so it is not killed at once.
            let _ = helper.has_exited(HELPER_EXIT_TIME.into());
        }
        let program = Some(self.program.pid());
        let Some(keeper) = self.keeper.own() else { return Ok(None) };
        let init = keeper.pid();
        let thaw = || self.kill_switch.iter().for_each(|switch| switch.thaw());
        match keeper.finish_init_of(program, thaw) {
            Ok(exit) => Ok(Some(exit.status)),
            Err(errno) => Err(unkillable::explain(Reaper::of(init, program).member().unwrap_or(init), errno)),
        }
    }

    fn close_control(&self) {
        if let Some(switch) = &self.kill_switch {
            switch.close_control();
        }
    }

    /// Gives up a sandbox whose program does not exit. The reaper reaps its processes later.
    fn abandon(&mut self) {
        self.held.finish();
        self.close_control();
        if let Some(keeper) = self.keeper.own() {
            let _ = keeper.signal(libc::SIGKILL);
            keeper.abandon();
        }
        // A process still uses these.
        mem::forget((self.reserved.take(), mem::take(&mut self.placeholders)));
    }
}

/// The record of a cgroup that could not be removed.
fn still_exists(path: &Path) -> Unenforced {
    let remedy = "a process is still in it: look in its cgroup.procs, and kill what is left. The cgroup is removed by the \
                  next caller that creates one beside it";
    let error = Error::set_up("remove the cgroup", "rmdir", Errno::EBUSY, Some(remedy));
    Unenforced::new("kill every process of the sandbox", &error.on(path).of(Layer::Cgroup))
}

/// Thaws the program of a sandbox, so that it can exit. It is called repeatedly, because another process of the sandbox
/// may freeze the program again before it exits itself.
fn unblock_exit(switch: Option<&KillSwitch>, program: i32) {
    switch.into_iter().for_each(KillSwitch::thaw);
    freezer::release(program);
}

impl Running {
    /// Leaves the sandbox to the process that has created it. This process is a forked child of that one, and only
    /// closes its copies of the descriptors.
    fn disown(&mut self) {
        self.program.disown();
        if let Some(keeper) = self.keeper.own() {
            keeper.disown();
        }
        mem::forget((
            mem::take(&mut self.held),
            self.cgroup.take(),
            self.reserved.take(),
            mem::take(&mut self.placeholders),
        ));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.creator.is_this() {
            self.disown();
        } else if !self.program.is_reaped() {
            let _ = self.reap(false);
        }
    }
}
