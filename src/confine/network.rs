//! The network of the sandbox: its own loopback, and nothing else.

use std::fs;

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::plan::{Arg, OnError, Program, Step, flags, nr};

/// What a new net namespace keeps for sockets without counting it to a cgroup, and how much of it is enough: connections that
/// wait until a listener accepts them, those that were closed a minute ago, bytes that a TCP connection keeps for who does not
/// read them, and bytes of a socket's options. Of these each namespace has a value of its own since Linux 6.8; before, the
/// machine has the same one.
const BOUNDS: [(&str, &str); 4] = [
    ("/proc/sys/net/core/somaxconn", "128"),
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "8192"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 524288"),
    ("/proc/sys/net/core/optmem_max", "20480"),
];

/// Bounds the memory that connections of a new net namespace take; what is left unbounded where the machine lets nobody set that.
pub(crate) fn bound(process: &mut Program) -> Option<String> {
    let is_writable = |file: &str| {
        fs::exists(file).is_ok_and(|it| it) && statvfs(file).is_ok_and(|it| !it.flags().contains(FsFlags::ST_RDONLY))
    };
    if let Some((file, _)) = BOUNDS.iter().find(|(file, _)| !is_writable(file)) {
        return Some(format!(
            "memory of TCP connections that no cgroup counts: {file} can't be written to, let the container have a writable \
             /proc/sys, or deny socket(2)"
        ));
    }
    for (file, value) in BOUNDS {
        process.step(Step::new("bounding the memory of the network's connections").path(file));
        let (path, next) = (process.text(file), process.label());
        let text = process.arena.bytes(value.as_bytes(), format!("{value:?}"));
        let open = process.call(nr!(SYS_openat), [Arg::CWD, path, flags!(O_WRONLY | O_CLOEXEC), Arg::NONE]);
        // EACCES: Linux 5.10 lets nobody write to some of them in a user namespace within another.
        let fd = open.on_error(OnError::goto_if([libc::ENOENT, libc::EACCES], next)).store("fd");
        process.write(fd, text, value.len());
        process.close(fd);
        process.bind(next);
    }
    None
}

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
