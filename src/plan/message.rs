//! Messages with descriptors (unix(7), `SCM_RIGHTS`) between a set-up process and the caller, laid out in slots that
//! calls fill. What a message reports belongs to the room that sends it.

use std::borrow::Cow;

use super::call::{Arg, flags, nr};
use super::script::Script;
use super::value::{Input, Ref, Slot, Word};

/// The control part of a message: `struct cmsghdr {size_t len; int level, type; int fds[]}`.
pub(crate) struct Rights {
    len: Slot,
    /// The numbers of two descriptors, 32 bits each. The kernel or a call writes the first.
    pub fds: Slot,
}

/// Its size in bytes, with up to two descriptors.
const RIGHTS: u64 = 24;

impl Rights {
    /// For `count` descriptors, whose initial numbers are `fds`.
    pub fn new(script: &mut Script, count: u64, name: impl Into<Cow<'static, str>>, fds: u64) -> Self {
        let len = script.value("length", 16 + 4 * count);
        let rights = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
        script.value("SCM_RIGHTS", rights);
        let fds = script.value(name, fds);
        Self { len, fds }
    }
}

/// Adds a `struct msghdr` with data (`struct iovec`) and descriptors.
pub(crate) fn header(script: &mut Script, data: Ref, pieces: u64, rights: &Rights, shown: String) -> Ref {
    let zero = Word::Value(0);
    let control = Script::slot_word(rights.len);
    let words = [zero, zero, data.into(), Word::Value(pieces), control, Word::Value(RIGHTS), zero];
    script.arena.words(&words, shown)
}

/// Waits for a descriptor from the caller, and returns the slot that holds it.
pub(crate) fn receive(script: &mut Script, name: impl Into<Cow<'static, str>>) -> Slot {
    // An invalid number: if the caller has sent no descriptor, the next call fails.
    let rights = Rights::new(script, 1, name, u32::MAX.into());
    let byte = script.value("byte", 0);
    let data = script.arena.words(&[Script::slot_word(byte), Word::Value(1)], "{<byte>}");
    let header = header(script, data, 1, &rights, "{[<descriptor>]}".into());
    let report = script.input(Input::Report);
    script.call(nr!(SYS_recvmsg), [report.into(), header.into(), flags!(MSG_CMSG_CLOEXEC)]);
    script.fcntl(rights.fds, flags!(F_GETFD), Arg::NONE);
    rights.fds
}
