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

/// Address of the script of a command, in the helper of a session and in the processes that it clones. Each process has its
/// own copy of what is there.
pub(crate) const COMMAND: u64 = 0x1000_0000;
/// The size of such a script in bytes, where it is a part of the message to the helper. A socket has room for a larger one
/// (`net.core.wmem_default`).
pub(crate) const COMMAND_LEN: u64 = 128 << 10;
/// The number of scripts whose processes share the memory of the helper at the same time.
pub(crate) const SHARED_COMMANDS: u32 = 8;
/// The size of the memory of all these scripts.
pub(crate) const COMMANDS_LEN: u64 = COMMAND_LEN * (1 + SHARED_COMMANDS as u64);
/// Address of a larger one, which a script at [`COMMAND`] reads from a file.
pub(crate) const LONG_COMMAND: u64 = 0x2000_0000;
/// The size of a larger one: more than the arguments and the environment of a program may have (execve(2)).
pub(crate) const LONG_COMMAND_LEN: u64 = 32 << 20;

/// Returns the address of a script whose process shares the memory of the helper.
pub(crate) fn shared_command(index: u32) -> u64 {
    COMMAND + COMMAND_LEN * u64::from(1 + index)
}

/// Maximum size of all slots, in bytes.
pub(crate) const SLOTS_LEN: u64 = 8 * (u16::MAX as u64 + 1);
