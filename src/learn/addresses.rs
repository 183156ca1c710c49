//! System calls that take a socket address: TCP ports, and UNIX sockets by path or abstract name.

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::effects::Effect;
use super::recorder::{ObservedCall, Recorder, WORKING_DIRECTORY, errno};
use crate::confine::FsAccess;

/// Bytes of the longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: u64 = 128;
/// Bytes of a `struct mmsghdr`.
const MESSAGE_SIZE: u64 = 64;
/// Maximum number of messages of sendmmsg(2) (`UIO_MAXIOV`).
const MAX_MESSAGES: u64 = 1024;

impl Recorder {
    /// Records the address that a call takes.
    pub(super) fn address(&mut self, effect: Effect, observed: &ObservedCall<'_>) -> nix::Result<()> {
        match effect {
            Effect::Bind => self.bind(observed, &read_address(observed, observed.arg(1), observed.arg(2))?),
            Effect::Send => self.connect(observed, &read_address(observed, observed.arg(4), observed.arg(5))?),
            Effect::SendMessage => self.connect(observed, &message_address(observed, observed.arg(1))?),
            Effect::SendMessages => {
                for index in 0..(observed.arg(2) as u32 as u64).min(MAX_MESSAGES) {
                    let message = observed.arg(1).wrapping_add(index * MESSAGE_SIZE);
                    // A message without an address goes to the peer of a connected socket.
                    let _ = message_address(observed, message).and_then(|address| self.connect(observed, &address));
                }
                Ok(())
            }
            _ => self.connect(observed, &read_address(observed, observed.arg(1), observed.arg(2))?),
        }
    }

    fn bind(&mut self, observed: &ObservedCall<'_>, address: &[u8]) -> nix::Result<()> {
        match SocketAddress::of(address) {
            // bind(2) treats an address without a family as IPv4.
            SocketAddress::Inet(port) | SocketAddress::Unspecified(port) if is_tcp(observed) => {
                self.learned.bind.insert(port);
            }
            SocketAddress::Path(path) => {
                let target = observed.process.locate(WORKING_DIRECTORY, path, false)?;
                if target.file.is_none() && !target.is_read_only {
                    self.create(observed, &target, FsAccess::MAKE_SOCK);
                }
            }
            SocketAddress::Abstract(name) if !self.bound.contains(name) => {
                self.bound.insert(name.to_vec());
                self.count(name.len());
            }
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, observed: &ObservedCall<'_>, address: &[u8]) -> nix::Result<()> {
        match SocketAddress::of(address) {
            SocketAddress::Inet(port) if is_tcp(observed) => {
                self.learned.connect.insert(port);
            }
            SocketAddress::Path(path) => {
                let target = observed.process.locate(WORKING_DIRECTORY, path, true)?;
                if target.kind() == SFlag::S_IFSOCK {
                    self.allow(observed, &target, FsAccess::RESOLVE_UNIX);
                }
            }
            SocketAddress::Abstract(name) if !self.bound.contains(name) => self.learned.abstract_sockets = true,
            _ => {}
        }
        Ok(())
    }
}

/// An address, as far as Landlock distinguishes them.
enum SocketAddress<'a> {
    /// IPv4 or IPv6, with the port.
    Inet(u16),
    Unspecified(u16),
    Path(&'a [u8]),
    Abstract(&'a [u8]),
    Other,
}

impl<'a> SocketAddress<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let Some((family, rest)) = bytes.split_first_chunk() else { return Self::Other };
        let port = rest.first_chunk().map_or(0, |port| u16::from_be_bytes(*port));
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_INET | libc::AF_INET6 => Self::Inet(port),
            libc::AF_UNSPEC => Self::Unspecified(port),
            libc::AF_UNIX => match rest {
                [] => Self::Other,
                [0, name @ ..] => Self::Abstract(name),
                path => Self::Path(path.split(|&byte| byte == 0).next().unwrap_or_default()),
            },
            _ => Self::Other,
        }
    }
}

fn is_tcp(observed: &ObservedCall<'_>) -> bool {
    observed.process.protocol(observed.arg(0)).is_some_and(|name| matches!(&*name, "TCP" | "TCPv6"))
}

/// Reads an address from the memory of the calling process.
fn read_address(observed: &ObservedCall<'_>, at: u64, len: u64) -> nix::Result<Vec<u8>> {
    let len = u64::from(len as u32).min(MAX_ADDRESS) as usize;
    if at == 0 {
        return Err(Errno::EDESTADDRREQ);
    }
    observed.call.bytes_at(at, len).map_err(errno)
}

/// Reads the address of a message, which begins with a pointer to it and its length (`struct msghdr`).
fn message_address(observed: &ObservedCall<'_>, message: u64) -> nix::Result<Vec<u8>> {
    let head = observed.call.bytes_at(message, 12).map_err(errno)?;
    let (Some(at), Some(len)) = (head.first_chunk(), head.last_chunk()) else { return Err(Errno::EFAULT) };
    read_address(observed, u64::from_ne_bytes(*at), u32::from_ne_bytes(*len).into())
}
