//! The securebits of a process (capabilities(7)): flags, each with a lock that lasts until the process enters another
//! user namespace. A caller that is itself in a sandbox has some locked. Which are set when is in `capabilities`.

use crate::error::{Error, Result};
use crate::plan::{Arg, ConstantNames, names};
use crate::sys::prctl;

/// The bits that are locks. The bit below each is the flag that it locks.
const LOCKS: u32 = 0xaaaa_aaaa;
/// Changes of user IDs change no capabilities.
pub(super) const KEEP_OVER_USER_CHANGE: u32 = libc::SECBIT_NO_SETUID_FIXUP as u32;
/// User ID 0 has no capabilities of its own, no ambient capability can be raised, and nothing of this can be changed.
pub(super) const LOCKED: u32 = (libc::SECBIT_NOROOT
    | libc::SECBIT_NOROOT_LOCKED
    | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
    | libc::SECBIT_KEEP_CAPS_LOCKED
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED) as u32;

static NAMES: ConstantNames = names!(
    SECBIT_NOROOT,
    SECBIT_NOROOT_LOCKED,
    SECBIT_NO_SETUID_FIXUP,
    SECBIT_NO_SETUID_FIXUP_LOCKED,
    SECBIT_KEEP_CAPS,
    SECBIT_KEEP_CAPS_LOCKED,
    SECBIT_NO_CAP_AMBIENT_RAISE,
    SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
);

/// The securebits of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecureBits(u32);

impl SecureBits {
    /// Those of the caller, which the processes that it creates inherit.
    pub fn of_caller() -> Self {
        Self(prctl::securebits())
    }

    /// The argument that sets other bits, and keeps the locks and what they lock, which cannot be changed.
    pub fn set(self, others: u32) -> Arg {
        let locked_flags = self.0 & (self.0 & LOCKS) >> 1;
        Arg::Bits(self.0 & LOCKS | locked_flags | others, &NAMES)
    }

    /// Whether ambient capabilities cannot be raised any more.
    pub fn denies_raising(self) -> bool {
        self.is_locked_unlike(0, libc::SECBIT_NO_CAP_AMBIENT_RAISE as u32)
    }

    /// Refuses flags that are locked with another value than the wanted one.
    pub fn check(self, wanted: u32, flags: u32) -> Result<()> {
        if !self.is_locked_unlike(wanted, flags) {
            return Ok(());
        }
        Err(Error::invalid(
            format!(
                "the securebits of the caller are locked ({:#x}), and the sandbox needs others ({wanted:#x})",
                self.0
            ),
            "add Namespaces::USER (a user namespace has securebits of its own), or remove Capabilities::drop_on_setuid, here or \
             from the sandbox that the caller is in",
        ))
    }

    fn is_locked_unlike(self, wanted: u32, flags: u32) -> bool {
        (self.0 ^ wanted) & flags & (self.0 & LOCKS) >> 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_locked_stays_set() {
        assert_eq!(SecureBits(0).set(LOCKED), Arg::Bits(LOCKED, &NAMES));
        let of_sandbox = SecureBits(LOCKED | KEEP_OVER_USER_CHANGE);
        assert_eq!(of_sandbox.set(KEEP_OVER_USER_CHANGE), Arg::Bits(LOCKED | KEEP_OVER_USER_CHANGE, &NAMES));
        assert!(of_sandbox.denies_raising() && !SecureBits(0).denies_raising());
        let unlocked = SecureBits(libc::SECBIT_KEEP_CAPS as u32);
        assert_eq!(unlocked.set(LOCKED), Arg::Bits(LOCKED, &NAMES), "what is not locked is replaced");
        // Linux 6.14: SECBIT_EXEC_RESTRICT_FILE and its lock.
        assert_eq!(SecureBits(0x300).set(LOCKED), Arg::Bits(LOCKED | 0x300, &NAMES));
    }

    #[test]
    fn other_values_of_what_is_locked_are_refused() {
        assert!(SecureBits(LOCKED | KEEP_OVER_USER_CHANGE).check(KEEP_OVER_USER_CHANGE, KEEP_OVER_USER_CHANGE).is_ok());
        for (bits, wanted, is_accepted) in [
            (0, LOCKED, true),
            (LOCKED, LOCKED, true),
            (LOCKED, LOCKED | KEEP_OVER_USER_CHANGE, false),
            (LOCKED | KEEP_OVER_USER_CHANGE, LOCKED, false),
            (LOCKED | KEEP_OVER_USER_CHANGE, LOCKED | KEEP_OVER_USER_CHANGE, true),
        ] {
            assert_eq!(SecureBits(bits).check(wanted, 0x55).is_ok(), is_accepted, "{bits:#x} to {wanted:#x}");
        }
    }
}
