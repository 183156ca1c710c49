//! A sandbox that was launched, as `watch` sees it.

use std::fs;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::poll::PollTimeout;
use nix::unistd::write;

use super::reaper::Reaper;
use super::{Launched, hindrance};
use crate::cgroup::{Made, freezer};
use crate::error::Result;
use crate::outcome::{Layer, Leaked, Lost};
use crate::plan::init::{PROGRAM_HAS_ENDED, TIME_IS_UP};
use crate::text::shown;
use crate::watch::{Account, Ended, How, Running};

impl Running for Launched {
    fn pid(&self) -> i32 {
        self.program.pid()
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    fn started(&self) -> Instant {
        self.started
    }

    fn signal(&self, signal: i32) -> nix::Result<()> {
        self.program.signal(signal)
    }

    fn has_ended(&self, timeout: PollTimeout) -> nix::Result<bool> {
        self.program.has_ended(timeout)
    }

    fn end(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.thaw();
            if !self.has_pid_namespace {
                cgroup.kill();
            }
        }
        if self.has_pid_namespace {
            let _ = self.keeper.signal(libc::SIGKILL);
        } else if !self.program.is_reaped() {
            // If it was not made to lead one, there is no such group.
            self.program.kill_group();
        }
        let _ = self.program.signal(libc::SIGKILL);
    }

    fn killer(&self) -> nix::Result<Box<dyn Fn() + Send>> {
        let keeper = if self.has_pid_namespace { Some(self.keeper.handle()?) } else { None };
        let program = self.program.handle()?;
        Ok(Box::new(move || {
            for handle in keeper.iter().chain([&program]) {
                let _ = handle.signal(libc::SIGKILL);
            }
        }))
    }

    fn unhinder(&self) {
        unhinder(self.cgroup.as_ref(), self.program.pid());
    }

    fn is_overdue(&self) -> bool {
        self.program.is_overdue()
    }

    fn reap(&mut self, alone: bool) -> Result<Ended> {
        self.end();
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.make_room();
        }
        let (cgroup, pid) = (self.cgroup.as_ref(), self.program.pid());
        // Before the init, which can't end while a process of its namespace has not been reaped.
        let mut ended = match self.program.finish_while(|| unhinder(cgroup, pid)) {
            Ok(ended) => ended,
            Err(errno) => {
                let error = hindrance::explain(pid, errno);
                self.leave();
                return Err(error);
            }
        };
        // The init takes its time meanwhile. Whoever else is in the cgroup ends with it.
        let account = if alone { self.account() } else { None };
        let is_removed = alone && self.cgroup.as_mut().is_none_or(Made::remove);
        let keeper = self.finish_keeper();
        ended.lost = self.kept.finish();
        ended.account = if is_removed { account } else { self.account() };
        match keeper {
            Ok(how) => {
                ended.time_was_up = how == How::Exited(TIME_IS_UP);
                ended.ended_itself = how == How::Exited(PROGRAM_HAS_ENDED);
            }
            Err(error) => {
                let requested = "the end of every process of the sandbox".into();
                ended.lost.push(Lost { layer: Layer::Namespaces, requested, why: error.to_string() });
                // A process has it still.
                mem::forget(self.reserved.take());
            }
        }
        self.cgroup = None;
        self.reserved = None;
        self.held.clear();
        Ok(ended)
    }

    fn account(&self) -> Option<Account> {
        self.cgroup.as_ref().and_then(Made::account)
    }

    fn others(&self) -> (Vec<Leaked>, u64) {
        /// Processes that are named.
        const MOST: usize = 1024;
        // Who ends the sandbox when the program has ended waits for this caller from now on.
        if let Some((_, control)) = &self.control {
            let _ = write(control, b"\x01");
        }
        let pids = self.cgroup.as_ref().map(Made::processes).unwrap_or_default();
        // Who is gone by then has ended by itself, unless the init has ended all.
        let all_killed = || self.keeper.has_ended(PollTimeout::ZERO).unwrap_or(false);
        let named = |pid| {
            let name = fs::read(format!("/proc/{pid}/comm")).ok().or_else(|| all_killed().then(Vec::new))?;
            Some(Leaked { pid, name: shown(name.strip_suffix(b"\n").unwrap_or(&name)) })
        };
        let mut others = pids.into_iter().filter(|&pid| pid != self.program.pid());
        let leaked = others.by_ref().take(MOST).filter_map(named).collect();
        (leaked, others.count() as u64)
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        self.cgroup.as_ref().unwrap_or(&Made::default()).freeze(frozen)
    }
}

impl Launched {
    /// What of its descriptors could not be enforced.
    pub(crate) fn lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.kept.lost)
    }

    /// Ends the keeper; how it has ended, or who keeps it from that.
    fn finish_keeper(&mut self) -> Result<How> {
        /// Time that a helper may take, in milliseconds.
        const HELPER: u8 = 100;
        self.control = None;
        if !self.has_pid_namespace {
            // A helper kills first, and says so by its status then: it is left to end by itself.
            let _ = self.keeper.has_ended(HELPER.into());
        }
        let (init, program) = (self.keeper.pid(), Some(self.program.pid()));
        let thaw = || self.cgroup.iter().for_each(Made::thaw);
        match self.keeper.finish_init_of(program, thaw) {
            Ok(ended) => Ok(ended.how),
            Err(errno) => Err(hindrance::explain(Reaper::of(init, program).member().unwrap_or(init), errno)),
        }
    }

    /// Leaves a sandbox whose program does not end.
    fn leave(&mut self) {
        let _ = self.keeper.signal(libc::SIGKILL);
        self.keeper.leave();
        // A process has them still.
        mem::forget((self.reserved.take(), mem::take(&mut self.held)));
    }
}

/// Lets the program of a sandbox go on, so that it can end. A process that is not frozen yet may freeze it once more before it
/// ends itself.
fn unhinder(cgroup: Option<&Made>, program: i32) {
    cgroup.into_iter().for_each(Made::thaw);
    freezer::release(program);
}

impl Launched {
    /// Leaves the sandbox to the process that has created it, of which this is a forked child. Descriptors close here too.
    fn disown(&mut self) {
        self.program.disown();
        self.keeper.disown();
        mem::forget((mem::take(&mut self.kept), self.cgroup.take(), self.reserved.take(), mem::take(&mut self.held)));
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.creator.is_this() {
            self.disown();
        } else if !self.program.is_reaped() {
            let _ = self.reap(false);
        }
    }
}
