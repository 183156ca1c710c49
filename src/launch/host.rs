//! The part of a plan that the host makes itself, before it clones: the same calls, one after the other.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::layout::Layout;
use crate::plan::{OnError, Program, Slot};

/// What the calls have stored: descriptors, which close when it is dropped.
pub(super) struct Made {
    stored: Vec<u64>,
    owned: Vec<OwnedFd>,
}

impl Made {
    pub fn get(&self, slot: Slot) -> u64 {
        self.stored[slot.0 as usize]
    }

    /// The descriptor that a slot holds; the others close.
    pub fn take(self, slot: Slot) -> Option<OwnedFd> {
        let number = self.stored[slot.0 as usize];
        self.owned.into_iter().find(|fd| fd.as_raw_fd() as u64 == number)
    }
}

/// Makes the calls of a program in this process; the error is the index of the one that failed, and why.
pub(super) fn make(layout: &Layout<'_>) -> Result<Made, (usize, Errno)> {
    let memory = layout.in_place();
    let program: &Program = layout.program;
    let slots = program.slots.len();
    let mut made = Made { stored: memory[..slots].to_vec(), owned: vec![] };
    let mut at = 0;
    while let Some(call) = program.calls.get(at) {
        let entry = &memory[slots + at * 8..][..8];
        let args: [u64; 6] = std::array::from_fn(|index| {
            let by_slot = entry[0] >> (48 + index) & 1 == 1;
            if by_slot { made.stored[entry[1 + index] as usize] } else { entry[1 + index] }
        });
        let [a, b, c, d, e, f] = args;
        // SAFETY: the calls of a host's program open trees, set attributes of mounts, and the like: none touches the
        // memory of this process but what lies in `memory`, which their pointers lead to.
        let result = unsafe { libc::syscall(entry[0] as u32 as i64, a, b, c, d, e, f) };
        let errno = Errno::last();
        if result < 0 && call.again && errno == Errno::EAGAIN {
            continue;
        }
        at += 1;
        if result >= 0 {
            if let Some(slot) = call.store {
                made.stored[slot.0 as usize] = result as u64;
                // SAFETY: what a host's program stores is a descriptor that the call has just made.
                made.owned.push(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
            }
            if result > 0 && call.above_zero.is_some() {
                at = program.target(call.above_zero) as usize;
            }
            continue;
        }
        match call.on_error {
            OnError::GotoIf(expected, label) if expected.contains(&(errno as u8)) => {
                at = program.target(Some(label)) as usize
            }
            OnError::Fail | OnError::GotoIf(..) => return Err((at - 1, errno)),
            OnError::Ignore => {}
            OnError::Goto(label) => at = program.target(Some(label)) as usize,
        }
    }
    Ok(made)
}
