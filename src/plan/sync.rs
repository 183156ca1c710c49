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

    fn wake(&mut self, flag: Flag) -> Added<'_> {
        self.call(nr!(SYS_futex), [flag.address(), flags!(FUTEX_WAKE), 1.into()])
    }

    /// Waits until a flag is raised or cleared.
    pub fn wait_for(&mut self, flag: Flag) {
        self.wait_while(flag, LOWERED as u32, Arg::NULL);
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
