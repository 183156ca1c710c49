//! A session that is launched: its helper and its init, from their start to their end. How commands are started is in
//! `session_spawn.rs`.

use std::cell::Cell;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use super::command_cgroups::CommandCgroups;
use super::command_memory::CommandMemory;
use super::control_pipe::ControlPipe;
use super::handshake::{self, Channel};
use super::host_ids::Reserved;
use super::image::Image;
use super::listener::Listener;
use super::placeholder::HeldPlaceholder;
use super::process::Process;
use super::reaper;
use super::unkillable;
use crate::cgroup::{Account, CreatedCgroup};
use crate::creator::Creator;
use crate::error::Result;
use crate::locks::lock;
use crate::plan::Pids;
#[cfg(feature = "_testing")]
use crate::plan::{CommandFaults, Part};

/// The number of looks at an init that does not exit, after which no other thread is about to take over a process.
const UNREPORTED_ROUND: u32 = 4;

/// The processes of a session, and what they use. Dropping it kills and reaps all of them.
#[derive(Debug)]
pub(crate) struct LaunchedSession {
    pub(super) creator: Creator,
    pub(super) channel: Channel,
    /// The use of the helper's memory by processes that share it.
    pub(super) memory: CommandMemory,
    /// The image of the helper, whose slots the caller can read.
    pub(super) image: Image,
    pub(super) pass: u64,
    pub(super) own_id: u32,
    /// The PID of init.
    pub init: i32,
    /// A pidfd of the caller.
    pub(super) caller: OwnedFd,
    /// Namespaces of the session, with their kinds as flags of clone(2).
    pub namespaces: Vec<(u32, OwnedFd)>,
    /// The listener of the seccomp filter, if the policy passes calls to the caller.
    pub listener: Option<Listener>,
    pub(super) started: Instant,
    pub(super) is_kill_requested: AtomicBool,
    pub(super) is_frozen: AtomicBool,
    /// Held while it is ended.
    pub(super) ending: Mutex<()>,
    pub(super) has_ended: AtomicBool,
    /// What it has used, once it has ended.
    pub(super) last: Mutex<Option<(Duration, Option<Account>)>>,
    /// Removed after every process has exited.
    pub(super) cgroup: Mutex<Option<CreatedCgroup>>,
    pub(super) command_cgroups: CommandCgroups,
    /// `None` once the session has ended.
    pub(super) processes: Mutex<Option<SessionProcesses>>,
    #[cfg(feature = "_testing")]
    pub(super) faults: Mutex<CommandFaults>,
}

#[derive(Debug)]
pub(super) struct SessionProcesses {
    pub helper: Process,
    pub init: Process,
    pub control: ControlPipe,
    /// The host ID of the processes. Released after they have exited.
    pub reserved: Option<Reserved>,
    /// Released after every process has exited.
    pub placeholders: Vec<HeldPlaceholder>,
}

impl LaunchedSession {
    /// Returns the time since the session was started, and the statistics of its cgroup, if there is one. Once it has ended,
    /// these do not change.
    pub fn usage(&self) -> (Duration, Option<Account>) {
        let last = *lock(&self.last);
        last.unwrap_or_else(|| self.measure())
    }

    fn measure(&self) -> (Duration, Option<Account>) {
        (self.started.elapsed(), lock(&self.cgroup).as_ref().and_then(CreatedCgroup::account))
    }

    /// Freezes all processes of the programs, or thaws them. Does nothing once the session has ended.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        if self.is_kill_requested() {
            return Ok(());
        }
        lock(&self.cgroup).as_ref().unwrap_or(&CreatedCgroup::default()).freeze(frozen)?;
        self.is_frozen.store(frozen, Ordering::Release);
        Ok(())
    }

    /// Returns whether the caller has frozen the programs.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }

    /// Returns whether [`end`](Self::end) was called.
    pub fn is_kill_requested(&self) -> bool {
        self.is_kill_requested.load(Ordering::Acquire)
    }

    /// Returns whether all processes were killed.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Returns whether its helper and its init have not exited.
    pub fn is_alive(&self) -> bool {
        let runs = |process: &Process| process.has_exited(PollTimeout::ZERO) == Ok(false);
        lock(&self.processes).as_ref().is_some_and(|processes| runs(&processes.helper) && runs(&processes.init))
    }

    /// Kills and reaps every process of the session. Does nothing once it has ended.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unkillable`](crate::ErrorKind::Unkillable) if init does not exit. It is reaped later then.
    pub fn end(&self) -> Result<()> {
        self.is_kill_requested.store(true, Ordering::Release);
        // Another thread that ends it at the same time returns when it has ended.
        let _ending = lock(&self.ending);
        let Some(mut processes) = lock(&self.processes).take() else { return Ok(()) };
        // The helper first, so that it starts no further process.
        let _ = processes.helper.signal(libc::SIGKILL);
        let _ = processes.init.signal(libc::SIGKILL);
        // Where the caller may send no signals, both exit because of these.
        processes.control.close();
        self.channel.close();
        let members = lock(&self.cgroup).as_ref().map(CreatedCgroup::members).unwrap_or_default();
        members.thaw();
        let _ = processes.helper.finish();
        let init = processes.init.pid();
        let rounds = Cell::new(0);
        let unblock = || {
            members.thaw();
            rounds.set(rounds.get() + 1);
            if rounds.get() == UNREPORTED_ROUND {
                self.reap_unreported();
            }
        };
        let ended = processes.init.finish_init_of(None, unblock).map_err(|errno| unkillable::explain(init, errno));
        *lock(&self.last) = Some(self.measure());
        let cgroup = lock(&self.cgroup).take();
        self.command_cgroups.clear();
        cgroup.and_then(CreatedCgroup::remove_or_give_up);
        if ended.is_err() {
            // A process still uses these.
            mem::forget((processes.reserved.take(), mem::take(&mut processes.placeholders)));
        }
        self.has_ended.store(true, Ordering::Release);
        ended.map(drop)
    }

    /// Ends the session. It is an error in a forked child of the process that has started it.
    pub fn end_by_creator(&self) -> Result<()> {
        self.check_creator()?;
        self.end()
    }

    /// Ends the session, unless this process is a forked child of the one that has started it.
    pub fn end_if_own(&self) -> Result<()> {
        if self.creator.is_this() { self.end() } else { Ok(()) }
    }

    /// Reaps the process that the helper has cloned last, if the helper was killed before it could report it. Init cannot exit
    /// before.
    fn reap_unreported(&self) {
        let Pids { command, .. } = self.image.started();
        if command > 0 && !reaper::is_registered(command) && reaper::is_zombie_inside(command) {
            handshake::kill_and_reap(Pids { command, init: 0 });
        }
    }

    /// Leaves the session to the process that has created it: see `Running::disown`.
    fn disown(&mut self) {
        // Not by locking: another thread may have held a lock when this process was forked.
        fn take<T: Default>(mutex: &mut Mutex<T>) -> T {
            mem::take(mutex.get_mut().unwrap_or_else(PoisonError::into_inner))
        }
        if let Some(mut processes) = take(&mut self.processes) {
            processes.helper.disown();
            processes.init.disown();
            mem::forget(processes);
        }
        mem::forget(take(&mut self.cgroup));
        self.command_cgroups.disown();
    }
}

#[cfg(feature = "_testing")]
impl LaunchedSession {
    /// Makes a call of every later command fail.
    pub fn set_fault(&self, fault: Option<(Part, usize)>) {
        lock(&self.faults).fault = fault;
    }

    /// Returns the calls of a part of the last command.
    pub fn last_calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        lock(&self.faults).calls(part)
    }
}

impl Drop for LaunchedSession {
    fn drop(&mut self) {
        if self.creator.is_this() {
            let _ = self.end();
        } else {
            self.disown();
        }
    }
}
