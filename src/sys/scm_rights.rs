//! Messages with descriptors (unix(7), `SCM_RIGHTS`).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recvmsg};

/// A received message.
pub(crate) struct Message {
    /// The length of its data in bytes.
    pub len: usize,
    pub fds: Vec<OwnedFd>,
    /// Whether descriptors were lost because the limit on open descriptors is reached.
    pub is_cut: bool,
}

/// Receives a message with up to three descriptors.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> nix::Result<Message> {
    let mut space = cmsg_space!([i32; 3]);
    let (len, is_cut) = loop {
        let mut buffers = [IoSliceMut::new(bytes)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => break (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC)),
            // ECONNRESET: the peer has closed with unread data. The kernel reports that once, before the data that it
            // has sent.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(errno) => return Err(errno),
        }
    };
    Ok(Message { len, fds: descriptors(&space), is_cut })
}

/// The descriptors in the control part of a message: `struct cmsghdr {size_t len; int level, type; int fds[]}`.
fn descriptors(control: &[u8]) -> Vec<OwnedFd> {
    const HEADER: usize = 16;
    let Some((len, rest)) = control.split_first_chunk() else { return vec![] };
    let fds = usize::from_ne_bytes(*len).saturating_sub(HEADER).min(rest.len().saturating_sub(8));
    let fds = rest.get(8..8 + fds).unwrap_or_default().chunks_exact(4);
    let fds = fds.map(|fd| i32::from_ne_bytes(fd.try_into().unwrap_or_default()));
    // SAFETY: the kernel has just opened these descriptors for us: our sockets get no other control messages, and the
    // buffer was zero before.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
