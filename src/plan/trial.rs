//! The frame of a program that tries things: no failure ends it, and at its end it tells what its calls have stored.

use std::ops::Range;

use super::call::{Arg, Call, Label, OnError, Slot, flags, nr};
use super::program::{Input, Program};
use super::report::TRIED;

/// The first slot of a program's own.
const FIRST: Slot = Slot(Program::RESERVED.len() as u16);

impl Program {
    /// A program of trials.
    pub fn trials(title: &'static str) -> Self {
        let mut program = Self::new(title);
        program.value("tried", TRIED);
        for _ in 0..3 {
            // 0, 1 and 2 are taken, so that a descriptor is above 0.
            let report = program.input(Input::Report);
            program.fcntl(report, flags!(F_DUPFD_CLOEXEC), Arg::NONE);
        }
        program
    }

    /// Appends calls that lead to `failed` when one of them fails, and gives their indices. Each has a slot of its own then,
    /// in which its error is.
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

    /// Makes calls in a child, which is in the namespaces that were made for children, and shares memory and descriptors.
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

    /// Waits for a child. There is none any more where SIGCHLD is ignored, as a host may do.
    pub fn reap(&mut self) {
        self.call(nr!(SYS_wait4), [(-1).into(), Arg::NULL, flags!(__WALL), Arg::NULL]).ignore();
    }

    /// Ends the program, which tells the host what is in its slots.
    pub fn tell(&mut self) {
        let (report, len) = (self.input(Input::Report), 8 * self.own_words());
        self.write(report, Arg::SlotAddress(FIRST), len);
        self.exit(0);
    }

    /// How many words it tells.
    pub fn own_words(&self) -> usize {
        self.slots.len() - usize::from(FIRST.0)
    }
}

impl Call {
    /// What it has stored, by the words that were told: the error of one that has failed.
    pub fn result(&self, told: &[u64]) -> Result<u64, i32> {
        const FIRST_ERROR: i64 = -4095;
        let index = self.store.and_then(|slot| slot.0.checked_sub(FIRST.0));
        let word = index.and_then(|index| told.get(usize::from(index)).copied()).unwrap_or(0);
        match word as i64 {
            error @ FIRST_ERROR..0 => Err(-error as i32),
            _ => Ok(word),
        }
    }
}
