//! The addresses and file offsets of the parts of an image.

use nix::unistd::{SysconfVar, sysconf};

/// Address of the interpreter.
pub(crate) const CODE: u64 = 0x40_0000;
/// Address of the slots. The table and the data follow them. The interpreter's source has the same number.
pub(crate) const SLOTS: u64 = 0x41_0000;
/// Offset of the slots in the file: the first page after that of the code. `SLOTS` is a multiple of every page size.
///
/// No part of the file is a hole, so that a caller with a low RLIMIT_FSIZE can write it.
pub(crate) fn offset() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(SLOTS - CODE)
}

/// Maximum size of all slots, in bytes.
pub(crate) const SLOTS_LEN: u64 = 8 * (u16::MAX as u64 + 1);
