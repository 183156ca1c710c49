//! CPU affinity (sched_setaffinity(2)): the set-up of a sandbox runs on the CPU of the thread that waits for it,
//! because waking another CPU costs more than the set-up.

use nix::errno::Errno;

use crate::plan::AFFINITY_WORDS as MASK;

/// A set of processors, as a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Processors(pub [u64; MASK]);

impl Processors {
    /// The processors that the calling thread may use. Empty if the mask is too small for the machine.
    pub fn of_thread() -> Self {
        let mut mask = [0; MASK];
        // SAFETY: the kernel writes at most the given number of bytes, which is the size of the mask.
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
        // SAFETY: the kernel reads the given number of bytes, which is the size of the mask.
        let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&self.0), self.0.as_ptr()) };
        Errno::result(result).map(drop)
    }
}

/// Pins the calling thread to its processor until it is dropped.
pub(crate) struct PinnedCpu {
    before: Option<Processors>,
}

impl PinnedCpu {
    /// Pins the thread. `all` are the processors that it may use. If that fails, the thread is not pinned.
    pub fn on_one_of(all: Processors) -> Self {
        // SAFETY: the call takes nothing.
        let here = usize::try_from(unsafe { libc::sched_getcpu() });
        let kept = all.count() > 1 && here.is_ok_and(|here| Processors::single(here).assign().is_ok());
        Self { before: kept.then_some(all) }
    }
}

impl Drop for PinnedCpu {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = before.assign();
        }
    }
}
