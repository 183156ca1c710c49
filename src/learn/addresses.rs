//! What the calls that name addresses need: TCP ports, and Unix sockets by their paths or abstract names.

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::act::Act;
use super::record::{Recorder, Scene, WORKING_DIRECTORY, errno};
use crate::confine::FsAccess;

/// Bytes of the longest address (`struct sockaddr_storage`).
const LONGEST: u64 = 128;
/// Bytes of a `struct mmsghdr`.
const MESSAGE: u64 = 64;
/// Messages that sendmmsg(2) sends at most (`UIO_MAXIOV`).
const MESSAGES: u64 = 1024;

impl Recorder {
    /// Notes the address that a call names.
    pub(super) fn address(&mut self, act: Act, scene: &Scene<'_>) -> nix::Result<()> {
        match act {
            Act::Bind => self.bind(scene, &address(scene, scene.arg(1), scene.arg(2))?),
            Act::Send => self.connect(scene, &address(scene, scene.arg(4), scene.arg(5))?),
            Act::SendMessage => self.connect(scene, &addressee(scene, scene.arg(1))?),
            Act::SendMessages => {
                for index in 0..(scene.arg(2) as u32 as u64).min(MESSAGES) {
                    let message = scene.arg(1).wrapping_add(index * MESSAGE);
                    // One without an address goes where the socket is connected to.
                    let _ = addressee(scene, message).and_then(|address| self.connect(scene, &address));
                }
                Ok(())
            }
            _ => self.connect(scene, &address(scene, scene.arg(1), scene.arg(2))?),
        }
    }

    fn bind(&mut self, scene: &Scene<'_>, address: &[u8]) -> nix::Result<()> {
        match Address::of(address) {
            // An address without a family counts as one of IPv4.
            Address::Inet(port) | Address::Unspecified(port) if is_tcp(scene) => {
                self.learned.bind.insert(port);
            }
            Address::Path(path) => {
                let place = scene.caller.locate(WORKING_DIRECTORY, path, false)?;
                if place.file.is_none() && !place.is_read_only {
                    self.make(scene, &place, FsAccess::MAKE_SOCK);
                }
            }
            Address::Abstract(name) if !self.bound.contains(name) => {
                self.bound.insert(name.to_vec());
                self.count(name.len());
            }
            _ => {}
        }
        Ok(())
    }

    fn connect(&mut self, scene: &Scene<'_>, address: &[u8]) -> nix::Result<()> {
        match Address::of(address) {
            Address::Inet(port) if is_tcp(scene) => {
                self.learned.connect.insert(port);
            }
            Address::Path(path) => {
                let place = scene.caller.locate(WORKING_DIRECTORY, path, true)?;
                if place.kind() == SFlag::S_IFSOCK {
                    self.allow(scene, &place, FsAccess::RESOLVE_UNIX);
                }
            }
            Address::Abstract(name) if !self.bound.contains(name) => self.learned.abstract_sockets = true,
            _ => {}
        }
        Ok(())
    }
}

/// An address, as far as Landlock looks at it.
enum Address<'a> {
    /// IPv4 or IPv6, with the port.
    Inet(u16),
    Unspecified(u16),
    Path(&'a [u8]),
    Abstract(&'a [u8]),
    Other,
}

impl<'a> Address<'a> {
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

fn is_tcp(scene: &Scene<'_>) -> bool {
    scene.caller.protocol(scene.arg(0)).is_some_and(|name| matches!(&*name, "TCP" | "TCPv6"))
}

/// The bytes of an address in the caller's memory.
fn address(scene: &Scene<'_>, at: u64, len: u64) -> nix::Result<Vec<u8>> {
    let len = u64::from(len as u32).min(LONGEST) as usize;
    if at == 0 {
        return Err(Errno::EDESTADDRREQ);
    }
    scene.call.bytes_at(at, len).map_err(errno)
}

/// The address of a message, which begins with a pointer to it and its length (`struct msghdr`).
fn addressee(scene: &Scene<'_>, message: u64) -> nix::Result<Vec<u8>> {
    let head = scene.call.bytes_at(message, 12).map_err(errno)?;
    let (Some(at), Some(len)) = (head.first_chunk(), head.last_chunk()) else { return Err(Errno::EFAULT) };
    address(scene, u64::from_ne_bytes(*at), u32::from_ne_bytes(*len).into())
}
