//! The cgroups of the commands of a session. What the caller does not wait for is done while a program runs.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cgroup::{CreatedCgroup, LeftCgroup};
use crate::error::Result;
use crate::locks::lock;

/// The cgroup of the next command, and those of commands that have exited.
#[derive(Debug, Default)]
pub(super) struct CommandCgroups {
    /// The number of those that were created.
    created: AtomicU64,
    next: Mutex<Option<CreatedCgroup>>,
    /// Processes of some may go on.
    left: Mutex<VecDeque<LeftCgroup>>,
}

impl CommandCgroups {
    /// Returns the cgroup of a command, below that of the session.
    pub fn take(&self, session: &CreatedCgroup) -> Result<CreatedCgroup> {
        let prepared = lock(&self.next).take();
        prepared.map_or_else(|| self.create(session), Ok)
    }

    fn create(&self, session: &CreatedCgroup) -> Result<CreatedCgroup> {
        session.create_below(&format!("command-{}", self.created.fetch_add(1, Ordering::Relaxed)))
    }

    /// Removes cgroups of commands that have exited, and creates that of the next command, unless this is the first one:
    /// many sessions have only one. An error is that of the next command, if it fails again.
    pub fn prepare(&self, session: &CreatedCgroup) {
        self.remove_empty();
        let mut next = lock(&self.next);
        if next.is_none() && self.created.load(Ordering::Relaxed) > 1 {
            *next = self.create(session).ok();
        }
    }

    fn remove_empty(&self) {
        /// The number of cgroups that are looked at, in turns.
        const LOOKS: usize = 4;
        let mut left = lock(&self.left);
        for _ in 0..LOOKS.min(left.len()) {
            let still_exists = left.pop_front().filter(|cgroup| !cgroup.remove());
            left.extend(still_exists);
        }
    }

    /// Keeps the cgroup of a command that has exited, until it is removed.
    pub fn leave(&self, cgroup: CreatedCgroup) {
        lock(&self.left).push_back(cgroup.leave());
    }

    /// Forgets those that exist. They are removed with the session's own.
    pub fn clear(&self) {
        lock(&self.left).clear();
        *lock(&self.next) = None;
    }

    /// Leaves them to the process that has created them, also if another thread had locked them when this one was forked.
    pub fn disown(&mut self) {
        let next = self.next.get_mut().unwrap_or_else(PoisonError::into_inner);
        mem::forget(next.take());
    }
}
