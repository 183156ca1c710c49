//! Scripts of probes: a failed call does not terminate the script, and at the end it reports the result of each call.
//! Only `probe` uses them; a sandbox's scripts do not belong here.

use std::ops::Range;

use super::call::{Arg, Call, OnError, flags, nr};
use super::report::TRIED;
use super::script::Script;
use super::value::{Input, Label, Slot};

/// The first slot after the reserved ones.
const FIRST: Slot = Slot(Script::RESERVED.len() as u16);

impl Script {
    /// Begins a script of probes.
    pub fn probes(title: &'static str) -> Self {
        let mut script = Self::new(title);
        script.value("tried", TRIED);
        for _ in 0..3 {
            // 0, 1 and 2 are taken, so that a descriptor is above 0.
            let report = script.input(Input::Report);
            script.fcntl(report, flags!(F_DUPFD_CLOEXEC), Arg::NONE);
        }
        script
    }

    /// Appends calls that go on at `failed` if one of them fails, and returns their indices. Each gets a slot that
    /// stores its result or error.
    pub fn attempt<T>(&mut self, failed: Label, calls: impl FnOnce(&mut Self) -> T) -> (Range<usize>, T) {
        let first = self.calls.len();
        let result = calls(self);
        for index in first..self.calls.len() {
            if self.calls[index].on_error != OnError::Fail {
                continue;
            }
            self.calls[index].on_error = OnError::Goto(failed);
            if self.calls[index].store.is_none() {
                let slot = self.slot("result");
                self.calls[index].store = Some(slot);
            }
        }
        (first..self.calls.len(), result)
    }

    /// Makes calls in a child, which is in the namespaces created for children, and shares memory and descriptors.
    pub fn attempt_in_child<T>(&mut self, calls: impl FnOnce(&mut Self) -> T) -> T {
        let (parent, end) = (self.label(), self.label());
        let sharing = flags!(CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD);
        self.call(nr!(SYS_clone), [sharing, Arg::NULL, Arg::NULL, Arg::NULL, Arg::NULL]).above_zero(parent);
        let (_, result) = self.attempt(end, calls);
        self.bind(end);
        self.exit(0);
        self.bind(parent);
        self.reap();
        result
    }

    /// Waits for a child. If the caller ignores SIGCHLD, the kernel has reaped it already.
    pub fn reap(&mut self) {
        self.call(nr!(SYS_wait4), [(-1).into(), Arg::NULL, flags!(__WALL), Arg::NULL]).ignore();
    }

    /// Reports the slots to the caller, and exits.
    pub fn report_slots(&mut self) {
        let (report, len) = (self.input(Input::Report), 8 * self.reported_words());
        self.write(report, Arg::SlotAddress(FIRST), len);
        self.exit(0);
    }

    /// The number of words that it reports.
    pub fn reported_words(&self) -> usize {
        self.slots.len() - usize::from(FIRST.0)
    }
}

impl Call {
    /// Returns the result or error of this call from the reported words.
    pub fn result(&self, reported: &[u64]) -> Result<u64, i32> {
        const FIRST_ERROR: i64 = -4095;
        let index = self.store.and_then(|slot| slot.0.checked_sub(FIRST.0));
        let word = index.and_then(|index| reported.get(usize::from(index)).copied()).unwrap_or(0);
        match word as i64 {
            error @ FIRST_ERROR..0 => Err(-error as i32),
            _ => Ok(word),
        }
    }
}
