//! Where the parts of an image lie in memory and in its file.

/// Address of the interpreter.
pub(crate) const CODE: u64 = 0x40_0000;
/// Address of the slots, which the table and the data follow: the interpreter's source names the same number.
pub(crate) const SLOTS: u64 = 0x41_0000;
/// Distance of the two, which is the offset of the slots in the file: a multiple of every page size.
pub(crate) const OFFSET: u64 = SLOTS - CODE;
/// Bytes of all slots that there may be.
pub(crate) const SLOTS_LEN: u64 = 8 * (u16::MAX as u64 + 1);
