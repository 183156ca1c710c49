//! Executes a script in the caller, call by call. The interpreter executes those of other processes.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::layout::Layout;
use super::shared_memory::{Checked, Executor, opens};
use crate::plan::{OnError, Script, Slot};

/// The stored results of the calls: descriptors, which are closed when it is dropped.
pub(crate) struct Stored {
    stored: Vec<u64>,
    owned: Vec<OwnedFd>,
}

impl Stored {
    /// Takes the descriptor of a slot, and closes the others.
    pub fn take(self, slot: Slot) -> Option<OwnedFd> {
        let number = self.stored[slot.0 as usize];
        self.owned.into_iter().find(|fd| fd.as_raw_fd() as u64 == number)
    }
}

/// Executes a script in this process. The error is the index of the failed call, and its errno: `EINVAL`, before any
/// call is made, for a call that is not for memory of the caller (see [`Checked`]).
pub(crate) fn execute(layout: &Layout<'_>) -> Result<Stored, (usize, Errno)> {
    let script: &Script = layout.script;
    Checked::new(script, Executor::Caller).map_err(|call| (call, Errno::EINVAL))?;
    let memory = layout.in_place();
    let slots = script.slots.len();
    let mut results = Stored { stored: memory[..slots].to_vec(), owned: vec![] };
    let mut at = 0;
    while let Some(call) = script.calls.get(at) {
        let entry = &memory[slots + at * 8..][..8];
        let args: [u64; 6] = std::array::from_fn(|index| {
            let by_slot = entry[0] >> (48 + index) & 1 == 1;
            if by_slot { results.stored[entry[1 + index] as usize] } else { entry[1 + index] }
        });
        let [a, b, c, d, e, f] = args;
        // SAFETY: the call was checked: it only reads memory, and that is `memory`, to which its pointers lead.
        let result = unsafe { libc::syscall(entry[0] as u16 as i64, a, b, c, d, e, f) };
        let errno = Errno::last();
        if result < 0 && call.again && errno == Errno::EAGAIN {
            continue;
        }
        at += 1;
        if result >= 0 {
            if let Some(slot) = call.store {
                results.stored[slot.0 as usize] = result as u64;
            }
            if opens(call) {
                // SAFETY: the call has just opened this descriptor.
                results.owned.push(unsafe { OwnedFd::from_raw_fd(result as RawFd) });
            }
            if result > 0 && call.above_zero.is_some() {
                at = script.target(call.above_zero) as usize;
            }
            continue;
        }
        match call.on_error {
            OnError::GotoIf(expected, label) if expected.contains(&(errno as u8)) => {
                at = script.target(Some(label)) as usize
            }
            OnError::Fail | OnError::GotoIf(..) => return Err((at - 1, errno)),
            OnError::Ignore => {}
            OnError::Goto(label) => at = script.target(Some(label)) as usize,
        }
    }
    Ok(results)
}
