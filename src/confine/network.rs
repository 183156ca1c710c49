//! The network of the sandbox: its own loopback, and nothing else.

use crate::plan::{Arg, Program, Step, flags, nr};

/// Brings the loopback device of a new net namespace up (netdevice(7)); the kernel gives it 127.0.0.1 and ::1 then.
pub(crate) fn loopback_up(image: &mut Program) {
    const REMEDIES: &[(i32, &str)] = &[(
        libc::EPERM,
        "without a user namespace it takes CAP_NET_ADMIN: give it to the caller, or add Namespaces::USER",
    )];
    image.step(Step::new("bringing the loopback up").remedies(REMEDIES));
    let socket = [flags!(AF_INET), flags!(SOCK_DGRAM | SOCK_CLOEXEC), Arg::NONE];
    let socket = image.call(nr!(SYS_socket), socket).store("socket");
    // struct ifreq {char name[16]; short flags; …}, 40 bytes
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    request[16..18].copy_from_slice(&up.to_ne_bytes());
    let request = image.arena.bytes(&request, "{\"lo\", IFF_UP|IFF_RUNNING}");
    image.ioctl(socket, flags!(SIOCSIFFLAGS), request.into());
    image.close(socket);
}
