//! The network namespace of the sandbox: its loopback interface, and limits on its memory. Ports and addresses that a
//! program may use are in `landlock`.

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::advice::{Need, way_to_writable_proc};
use crate::outcome::{Gap, GapKind};
use crate::plan::{Arg, OnError, Script, Step, flags, nr};

/// Sysctls that limit the memory of sockets which no cgroup counts: connections that wait to be accepted, connections
/// that were closed in the last minute, unread bytes of a TCP connection, and bytes of socket options. Each network
/// namespace has its own values since Linux 6.8; before, some of them belong to the machine.
const SYSCTLS: [(&str, &str); 4] = [
    ("/proc/sys/net/core/somaxconn", "128"),
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "8192"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 524288"),
    ("/proc/sys/net/core/optmem_max", "20480"),
];

/// Limits the memory of connections in a new network namespace. Returns a gap if these sysctls are not writable.
pub(crate) fn limit_connections(process: &mut Script) -> Option<Gap> {
    let is_writable = |file: &str| statvfs(file).is_ok_and(|it| !it.flags().contains(FsFlags::ST_RDONLY));
    if let Some((file, _)) = SYSCTLS.iter().find(|(file, _)| !is_writable(file)) {
        return Some(Gap::new(
            GapKind::NetworkMemory,
            format!("no limit bounds the kernel memory of the sandbox's TCP connections, since {file} is not writable"),
            format!("{}, or deny socket(2)", way_to_writable_proc()),
        ));
    }
    for (file, value) in SYSCTLS {
        process.step(
            Step::new("limit the memory of connections in the network namespace").path(file).needs(Need::ProcFiles),
        );
        let (path, next) = (process.text(file), process.label());
        let text = process.arena.bytes(value.as_bytes(), format!("{value:?}"));
        let open = process.call(nr!(SYS_openat), [Arg::CWD, path, flags!(O_WRONLY | O_CLOEXEC), Arg::NONE]);
        // EACCES: on Linux 5.10 some of them are not writable in a nested user namespace.
        let fd = open.on_error(OnError::goto_if([libc::ENOENT, libc::EACCES], next)).store("fd");
        process.write(fd, text, value.len());
        process.close(fd);
        process.bind(next);
    }
    None
}

/// Brings up the loopback interface of a new network namespace (netdevice(7)). The kernel then gives it 127.0.0.1 and
/// ::1.
pub(crate) fn loopback_up(image: &mut Script) {
    image.step(Step::new("bring up the loopback interface").needs(Need::Loopback));
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
