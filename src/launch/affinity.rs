//! The set-up of a sandbox is kept on the processor of the thread that waits for it: to wake another one costs more than
//! all that it does.
#![allow(unsafe_code)]

use nix::errno::Errno;

use crate::plan::helper::MASK;

/// Processors, a bit each (sched_setaffinity(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Processors(pub [u64; MASK]);

impl Processors {
    /// Those that the calling thread may use; none if the machine has more than can be told.
    pub fn of_thread() -> Self {
        let mut mask = [0; MASK];
        // SAFETY: the kernel writes no more than the bytes that it is told of, which are the mask's.
        let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
        Self(if result < 0 { [0; MASK] } else { mask })
    }

    fn single(processor: usize) -> Self {
        let mut mask = [0; MASK];
        if let Some(word) = mask.get_mut(processor / 64) {
            *word = 1 << (processor % 64);
        }
        Self(mask)
    }

    fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn assign(self) -> nix::Result<()> {
        // SAFETY: the kernel reads the bytes that it is told of, which are the mask's.
        let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&self.0), self.0.as_ptr()) };
        Errno::result(result).map(drop)
    }
}

/// The calling thread, kept on its processor until it is dropped.
pub(super) struct Kept {
    before: Option<Processors>,
}

impl Kept {
    /// `all` are those that the thread may use. Whatever refuses it, the thread goes on as it is.
    pub fn on_one_of(all: Processors) -> Self {
        // SAFETY: the call takes nothing.
        let here = usize::try_from(unsafe { libc::sched_getcpu() });
        let kept = all.count() > 1 && here.is_ok_and(|here| Processors::single(here).assign().is_ok());
        Self { before: kept.then_some(all) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = before.assign();
        }
    }
}
