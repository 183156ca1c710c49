//! Synchronisation of the set-up processes, which share the helper's memory: flags that one raises and another waits
//! for (futex(2)).

use super::call::{Arg, OnError, flags, nr};
use super::script::{Added, Script};
use super::value::{Label, Ref, Slot, Word};

/// A word of the shared memory that a process raises when it has reached a point that another waits for. The kernel
/// clears it, and wakes the waiting process, when the first process exits or executes a program (set_tid_address(2)).
#[derive(Clone, Copy)]
pub(crate) struct Flag(Slot);

/// The initial value of the word.
const LOWERED: u64 = u32::MAX as u64;
/// The value of a flag that is raised half-way: the highest priority of SCHED_FIFO (sched(7)). It differs from the
/// thread ID of the process that raises the flag, which is 1: the first thread of a PID namespace.
const HALF_WAY: u32 = 99;

impl Flag {
    pub fn address(self) -> Arg {
        Arg::SlotAddress(self.0)
    }

    /// Returns a slot that holds its address.
    pub fn pointer(self, script: &mut Script) -> Slot {
        script.pointer("&flag", self.0)
    }
}

impl Script {
    pub fn flag(&mut self, name: &'static str) -> Flag {
        Flag(self.value(name, LOWERED))
    }

    pub fn raise(&mut self, flag: Flag) {
        // The value only has to differ from 0 and the initial one.
        self.call(nr!(SYS_gettid), []).store_in(flag.0);
        self.wake(flag);
    }

    /// Raises a flag in a process that cannot report a failure: goes on at `failed` then.
    pub fn raise_or_goto(&mut self, flag: Flag, failed: Label) {
        self.call(nr!(SYS_gettid), []).or_goto(failed).store_in(flag.0);
        self.wake(flag).or_goto(failed);
    }

    /// Raises a flag half-way, in a process that reaches two points: the second raises it fully. Only for the first
    /// thread of a PID namespace.
    pub fn raise_half(&mut self, flag: Flag) {
        // A call that returns this value, since the interpreter stores only results.
        self.call(nr!(SYS_sched_get_priority_max), [flags!(SCHED_FIFO)]).store_in(flag.0);
        self.wake(flag);
    }

    fn wake(&mut self, flag: Flag) -> Added<'_> {
        self.call(nr!(SYS_futex), [flag.address(), flags!(FUTEX_WAKE), 1.into()])
    }

    /// Has the kernel clear a flag, and wake the process that waits for it, when this process exits. It replaces an
    /// earlier flag.
    pub fn clear_on_exit(&mut self, flag: Flag) {
        self.call(nr!(SYS_set_tid_address), [flag.address()]);
    }

    /// Waits until a flag is raised, half-way at least, or cleared.
    pub fn wait_for(&mut self, flag: Flag) {
        self.wait_while(flag, LOWERED as u32, Arg::NULL);
    }

    /// Waits until a flag that was raised half-way is raised or cleared.
    pub fn wait_for_second(&mut self, flag: Flag) {
        self.wait_while(flag, HALF_WAY, Arg::NULL);
    }

    /// Fails with ETIMEDOUT if a flag was cleared.
    pub fn fail_if_cleared(&mut self, flag: Flag) {
        let at_once = self.arena.words(&[Word::Value(0); 2], "{0 s}");
        self.wait_while(flag, 0, at_once.into());
    }

    /// Fails with EAGAIN if a word of 32 bits differs from a value. It wakes and moves nobody: no process waits there.
    pub fn fail_unless_equal(&mut self, word: Ref, value: u32) {
        let compare = [word.into(), flags!(FUTEX_CMP_REQUEUE), 0.into(), 0.into(), word.into(), value.into()];
        self.call(nr!(SYS_futex), compare);
    }

    fn wait_while(&mut self, flag: Flag, value: u32, timeout: Arg) {
        let (again, changed) = (self.label(), self.label());
        self.bind(again);
        let wait = [flag.address(), flags!(FUTEX_WAIT), value.into(), timeout];
        self.call(nr!(SYS_futex), wait).on_error(OnError::goto_if([libc::EAGAIN; 2], changed));
        self.jump(again);
        self.bind(changed);
    }
}
