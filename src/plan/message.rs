//! Messages with descriptors (unix(7), `SCM_RIGHTS`) between a set-up process and the caller, laid out in slots that
//! calls fill. What a message reports belongs to the room that sends it.

use std::borrow::Cow;

use super::call::{Arg, flags, nr};
use super::memory_map::COMMAND;
use super::script::Script;
use super::value::{Input, Ref, Slot, Word};

/// The number of the first descriptor that the helper of a session receives with a command. It has no others from there on.
pub(crate) const FIRST_RECEIVED: u32 = 3;

/// What a message to the helper of a session begins with. The script of the command follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandHeader {
    /// The flags of clone(2) for the process of the command.
    how: u64,
    /// The address of the script.
    pub address: u64,
}

impl CommandHeader {
    /// The size in bytes.
    pub const LEN: u64 = 16;

    const HOW: u64 = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::SIGCHLD) as u64;

    /// The process has a copy of the helper's memory, with its script at [`COMMAND`].
    pub fn copied() -> Self {
        Self { how: Self::HOW, address: COMMAND }
    }

    /// The process shares the helper's memory until it executes its program. No other one has its script at `address` until
    /// then.
    pub fn shared(address: u64) -> Self {
        Self { how: Self::HOW | libc::CLONE_VM as u64, address }
    }

    pub fn bytes(self) -> [u8; Self::LEN as usize] {
        let words = [self.how, self.address].map(u64::to_ne_bytes);
        std::array::from_fn(|index| words[index / 8][index % 8])
    }
}

/// The control part of a message: `struct cmsghdr {size_t len; int level, type; int fds[]}`.
pub(crate) struct Rights {
    len: Slot,
    /// The size in bytes, with the padding at the end.
    room: u64,
    /// The number of the first descriptor, which the kernel or a call writes. Its upper half is that of the second.
    pub first: Slot,
}

impl Rights {
    /// For descriptors with these initial numbers.
    pub fn new(script: &mut Script, name: impl Into<Cow<'static, str>>, fds: &[u32]) -> Self {
        let len = script.value("length", 16 + 4 * fds.len() as u64);
        let rights = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
        script.value("SCM_RIGHTS", rights);
        let mut pairs = fds.chunks(2).map(|pair| pair.iter().rev().fold(0, |word, &fd| word << 32 | u64::from(fd)));
        let first = script.value(name, pairs.next().unwrap_or_default());
        for pair in pairs {
            script.value("descriptors", pair);
        }
        Self { len, room: 16 + 8 * fds.len().div_ceil(2) as u64, first }
    }
}

/// Adds a `struct msghdr` with data (`struct iovec`) and descriptors.
pub(crate) fn header(script: &mut Script, data: Ref, pieces: u64, rights: &Rights, shown: String) -> Ref {
    let zero = Word::Value(0);
    let control = Script::slot_word(rights.len);
    let words = [zero, zero, data.into(), Word::Value(pieces), control, Word::Value(rights.room), zero];
    script.arena.words(&words, shown)
}

/// Waits for a descriptor from the caller, and returns the slot that holds it.
pub(crate) fn receive(script: &mut Script, name: impl Into<Cow<'static, str>>) -> Slot {
    // An invalid number: if the caller has sent no descriptor, the next call fails.
    let rights = Rights::new(script, name, &[u32::MAX]);
    let byte = script.value("byte", 0);
    let data = script.arena.words(&[Script::slot_word(byte), Word::Value(1)], "{<byte>}");
    let header = header(script, data, 1, &rights, "{[<descriptor>]}".into());
    let report = script.input(Input::Report);
    script.call(nr!(SYS_recvmsg), [report.into(), header.into(), flags!(MSG_CMSG_CLOEXEC)]);
    script.fcntl(rights.first, flags!(F_GETFD), Arg::NONE);
    rights.first
}
