//! Processes that share the helper's memory and wait for one another: by words of it, as futex(2) has them.

use super::arena::Word;
use super::call::{Arg, Label, OnError, Slot, flags, nr};
use super::program::{Added, Program};

/// A word that says whether somebody has come as far as another waits for. The kernel clears it, and wakes who waits, when
/// that process ends or executes something else (set_tid_address(2)).
#[derive(Clone, Copy)]
pub(crate) struct Flag(Slot);

/// What the word is at first.
const LOWERED: u64 = u32::MAX as u64;
/// What the word is half-way: the highest priority of SCHED_FIFO (sched(7)), which no thread that raises a flag has for its
/// number, since the first one of a PID namespace has 1.
const HALF_WAY: u32 = 99;

impl Flag {
    pub fn address(self) -> Arg {
        Arg::SlotAddress(self.0)
    }

    /// A slot that holds its address.
    pub fn pointer(self, program: &mut Program) -> Slot {
        program.pointer("&flag", self.0)
    }
}

impl Program {
    pub fn flag(&mut self, name: &'static str) -> Flag {
        Flag(self.value(name, LOWERED))
    }

    pub fn raise(&mut self, flag: Flag) {
        // It has no meaning but that it is neither 0 nor what the word is at first.
        self.call(nr!(SYS_gettid), []).store_in(flag.0);
        self.wake(flag);
    }

    /// The same for a process that can't report a failure.
    pub fn raise_or_goto(&mut self, flag: Flag, failed: Label) {
        self.call(nr!(SYS_gettid), []).or_goto(failed).store_in(flag.0);
        self.wake(flag).or_goto(failed);
    }

    /// Raises a flag half-way, for who has two things to tell: the second is told by raising it. By the first thread of a PID
    /// namespace alone.
    pub fn raise_half(&mut self, flag: Flag) {
        // A call that gives the number, since the interpreter stores nothing but results.
        self.call(nr!(SYS_sched_get_priority_max), [flags!(SCHED_FIFO)]).store_in(flag.0);
        self.wake(flag);
    }

    fn wake(&mut self, flag: Flag) -> Added<'_> {
        self.call(nr!(SYS_futex), [flag.address(), flags!(FUTEX_WAKE), 1.into()])
    }

    /// Has the kernel clear a flag, and wake who waits for it, when this process ends: one flag at a time.
    pub fn tell_of_end(&mut self, flag: Flag) {
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
    pub fn need_raised(&mut self, flag: Flag) {
        let at_once = self.arena.words(&[Word::Value(0); 2], "{0 s}");
        self.wait_while(flag, 0, at_once.into());
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
