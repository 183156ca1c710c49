//! Which parts of the memory of a session's helper have the script of a process that shares it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::plan::memory_map::{SHARED_COMMANDS, shared_command};
use crate::plan::message::CommandHeader;

/// The parts for scripts, with a bit for each that is in use.
#[derive(Debug, Default)]
pub(super) struct CommandMemory(AtomicU32);

impl CommandMemory {
    /// Takes a part that is free.
    pub fn take(&self) -> Option<SharedPart<'_>> {
        let free = |used: u32| Some(used.trailing_ones()).filter(|&index| index < SHARED_COMMANDS);
        let used =
            self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |used| Some(used | 1 << free(used)?)).ok()?;
        Some(SharedPart { memory: self, index: free(used)? })
    }
}

/// A part of the helper's memory, taken for one process. It stays in use unless it is released, which is possible once the
/// process has executed its program or has exited: the end of its channel says so, since the kernel gives up the memory
/// first (`begin_new_exec` of fs/exec.c, `do_exit` of kernel/exit.c).
#[must_use]
pub(super) struct SharedPart<'a> {
    memory: &'a CommandMemory,
    index: u32,
}

impl SharedPart<'_> {
    /// The beginning of the message with its script.
    pub fn header(&self) -> CommandHeader {
        CommandHeader::shared(shared_command(self.index))
    }

    /// Lets another process have it.
    pub fn release(self) {
        self.memory.0.fetch_and(!(1 << self.index), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_taken_once_until_it_is_released() {
        let memory = CommandMemory::default();
        let mut taken: Vec<SharedPart<'_>> = std::iter::from_fn(|| memory.take()).collect();
        let mut addresses: Vec<u64> = taken.iter().map(|part| part.header().address).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), SHARED_COMMANDS as usize, "{addresses:x?}");
        taken.swap_remove(3).release();
        let again = memory.take().expect("the one that was released");
        assert_eq!((again.index, memory.take().is_none()), (3, true));
    }
}
