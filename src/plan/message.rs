//! Messages to the host and from it with descriptors in them (unix(7), `SCM_RIGHTS`), made of slots, which calls fill.

use std::borrow::Cow;

use super::arena::{Ref, Word};
use super::call::{Arg, Slot, flags, nr};
use super::program::{Input, Program};
use super::report::LISTENING;

/// The control part of a message: `struct cmsghdr {size_t len; int level, type; int fds[]}`.
pub(super) struct Rights {
    len: Slot,
    /// The numbers of the descriptors, two of 32 bits; the kernel or a call writes the first.
    pub fds: Slot,
}

/// Bytes that it takes, with up to two descriptors.
const RIGHTS: u64 = 24;

impl Rights {
    /// For `count` descriptors, whose numbers are `fds` at first.
    pub fn new(program: &mut Program, count: u64, name: impl Into<Cow<'static, str>>, fds: u64) -> Self {
        let len = program.value("length", 16 + 4 * count);
        let rights = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
        program.value("SCM_RIGHTS", rights);
        let fds = program.value(name, fds);
        Self { len, fds }
    }
}

/// `struct msghdr` of pieces of data (`struct iovec`) and of descriptors.
pub(super) fn header(program: &mut Program, data: Ref, pieces: u64, rights: &Rights, shown: String) -> Ref {
    let zero = Word::Value(0);
    let control = Program::slot_word(rights.len);
    let words = [zero, zero, data.into(), Word::Value(pieces), control, Word::Value(RIGHTS), zero];
    program.arena.words(&words, shown)
}

/// The listener of a seccomp filter on its way to the host.
pub(crate) struct Listener {
    header: Ref,
    /// Where the call that makes it stores its number.
    pub fd: Slot,
}

impl Listener {
    pub fn new(program: &mut Program) -> Self {
        let tag = program.value("listening", LISTENING);
        let rights = Rights::new(program, 1, "listener", 0);
        let data = program.arena.words(&[Program::slot_word(tag), Word::Value(8)], "{<listening>}");
        let header = header(program, data, 1, &rights, "{[<listener>]}".into());
        Self { header, fd: rights.fds }
    }

    pub fn send(&self, program: &mut Program) {
        let report = program.input(Input::Report);
        let message: [Arg; 3] = [report.into(), self.header.into(), flags!(MSG_NOSIGNAL)];
        program.call(nr!(SYS_sendmsg), message);
    }
}

/// Waits for a descriptor from the host: the slot that holds it.
pub(super) fn receive(program: &mut Program, name: impl Into<Cow<'static, str>>) -> Slot {
    // No descriptor has this number: it fails what comes next if the host has sent none.
    let rights = Rights::new(program, 1, name, u32::MAX.into());
    let byte = program.value("byte", 0);
    let data = program.arena.words(&[Program::slot_word(byte), Word::Value(1)], "{<byte>}");
    let header = header(program, data, 1, &rights, "{[<descriptor>]}".into());
    let report = program.input(Input::Report);
    program.call(nr!(SYS_recvmsg), [report.into(), header.into(), flags!(MSG_CMSG_CLOEXEC)]);
    program.fcntl(rights.fds, flags!(F_GETFD), Arg::NONE);
    rights.fds
}
