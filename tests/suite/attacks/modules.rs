//! Kernel modules that are loaded because a program requests a socket family, a protocol or a line discipline. They
//! contain code that no other process of the machine uses.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::pty::openpty;
use stockade::{Sandbox, Seccomp, profile};

use crate::attacks::common::{Attempts, alone, attempt, is_machine_of_tests, sandbox, unfiltered};
use crate::attacks::sys::{Word, call, numbers};
use crate::support::{is_root, payload, shared_dir, text, with_payload};

payloads![("request_modules", request_modules)];

const CALLS: [(&str, i64); 2] = [("socket", libc::SYS_socket), ("socketpair", libc::SYS_socketpair)];

/// Makes sockets, and closes them again.
fn socket((name, number): (&str, i64), family: i64, kind: i64, protocol: i64) -> nix::Result<i64> {
    let mut pair = [0; 8];
    let mut words = [Word::Number(family), Word::Number(kind), Word::Number(protocol), Word::Room(&mut pair)];
    let made = call(number, &mut words)?;
    let fds = match name {
        "socket" => vec![made as i32],
        _ => pair.chunks(4).map(|fd| i32::from_ne_bytes(fd.try_into().unwrap())).collect(),
    };
    for fd in fds {
        numbers(libc::SYS_close, &[fd.into()])?;
    }
    Ok(0)
}

/// SIOCGIFBR and SIOCGIFVLAN.
const DEVICES: [(&str, i64); 2] = [("bridge", 0x8940), ("VLAN", 0x8982)];

/// What takes a module on most kernels; with an argument everything that might. Standard input is a terminal.
fn request_modules(args: &[String]) -> i32 {
    let (inet, netlink) = (libc::AF_INET.into(), libc::AF_NETLINK.into());
    let (stream, datagram, raw) = (libc::SOCK_STREAM.into(), libc::SOCK_DGRAM.into(), libc::SOCK_RAW.into());
    for kind in CALLS {
        let call = kind.0;
        attempt(&format!("{call} TIPC"), socket(kind, libc::AF_TIPC.into(), stream, 0));
        attempt(&format!("{call} VSOCK"), socket(kind, libc::AF_VSOCK.into(), stream, 0));
        attempt(&format!("{call} SCTP"), socket(kind, inet, stream, 132));
        attempt(&format!("{call} DCCP"), socket(kind, inet, 6, 33));
        attempt(&format!("{call} L2TP"), socket(kind, inet, datagram, 115));
        attempt(&format!("{call} sequential packets"), socket(kind, inet, libc::SOCK_SEQPACKET.into(), 0));
        attempt(&format!("{call} packets"), socket(kind, inet, 10, 0));
        attempt(&format!("{call} netfilter"), socket(kind, netlink, raw, 12));
        attempt(&format!("{call} sockets"), socket(kind, netlink, raw, 4));
    }
    let udp = numbers(libc::SYS_socket, &[inet, datagram, 0]).unwrap();
    for (name, request) in DEVICES {
        let mut words = [Word::Number(udp), Word::Number(request), Word::Bytes(&[0; 64])];
        attempt(name, call(libc::SYS_ioctl, &mut words));
    }
    // N_GSM0710 and N_R3964.
    for discipline in [21i32, 9] {
        let request = i64::from(libc::TIOCSETD as u32);
        let mut words = [Word::Number(0), Word::Number(request), Word::Bytes(&discipline.to_ne_bytes())];
        attempt(&format!("discipline {discipline}"), call(libc::SYS_ioctl, &mut words));
    }
    let works = [(libc::AF_UNIX, stream, 0), (libc::AF_INET, stream, 6), (libc::AF_NETLINK, raw, 0)];
    for (family, kind, protocol) in works {
        attempt(&format!("works {family}"), socket(CALLS[0], family.into(), kind, protocol));
    }
    if !args.is_empty() {
        sweep();
    }
    0
}

/// Every family with every type and the protocols of most, at both calls.
fn sweep() {
    for (call, family, kind) in
        CALLS.iter().flat_map(|call| (0..48).flat_map(move |family| (0..12).map(move |kind| (call, family, kind))))
    {
        let protocols = [0, 1, 2, 4, 6, 9, 12, 15, 16, 17, 21, 33, 58, 115, 132, 136, 255, 256, 262];
        for protocol in protocols {
            let _ = socket(*call, family, kind, protocol);
        }
    }
    for request in 0x8900..0x8a00 {
        let _ = call(libc::SYS_ioctl, &mut [Word::Number(0), Word::Number(request), Word::Bytes(&[0; 64])]);
    }
}

fn requesting(sandbox: &Sandbox, args: &[&str]) -> Attempts {
    let pair = openpty(None, None).unwrap();
    let output = sandbox.output(payload("request_modules").args(args).stdin(pair.slave)).unwrap();
    assert!(output.outcome.success(), "{}: {}", output.outcome, text(&output.stderr));
    Attempts::parse(&text(&output.stdout))
}

/// Attack 47: A program has the kernel load modules. Where the modules of the machine are not for a test to change,
/// that none is requested follows from the error, which is the filter's.
#[apply(test)]
fn no_module_is_requested() {
    let _alone = alone();
    let loader = (is_root() && is_machine_of_tests()).then(Loader::new).flatten();
    let marked = Errno::EBADE;
    let raw = requesting(&unfiltered(&sandbox()), &[]);
    if let Some(loader) = &loader {
        let requested = loader.requested();
        for module in ["net-pf-30", "net-pf-2-proto-132-type-1", "tty-ldisc-21"] {
            assert!(requested.iter().any(|it| it == module), "the attack must work here: {requested:?}, {raw:?}");
        }
        println!("requested without a filter: {requested:?}");
    }
    let marking = Seccomp::new().deny_with(stockade::seccomp::Action::Errno(stockade::Errno::new(marked as i32)));
    let with_payload = |sandbox: Sandbox| sandbox.map_root(with_payload);
    for (sandbox, errno) in [
        (sandbox().seccomp(marking), Some(marked)),
        (sandbox(), None),
        (sandbox().seccomp(Seccomp::container()), None),
        (with_payload(profile::agent()), None),
        (with_payload(profile::build_step()), None),
    ] {
        // With netlink, which each of them denies as a whole unless it is requested.
        let attempts = requesting(&sandbox.map_seccomp(Seccomp::allow_netlink), &["all"]);
        let (works, others): (Vec<&str>, Vec<&str>) = attempts.names().partition(|name| name.starts_with("works"));
        assert_eq!(works.len(), 3);
        attempts.assert_done(&works);
        attempts.assert_refused(&others);
        for name in others.iter().filter(|_| errno.is_some()) {
            assert_eq!(attempts.get(name), format!("{marked:?}"), "{name} passes the filter");
            assert_ne!(raw.get(name), format!("{marked:?}"), "{name}");
        }
        if let Some(loader) = &loader {
            assert_eq!(loader.requested(), Vec::<String>::new());
        }
    }
}

/// A program in the place of modprobe(8), which loads nothing and writes down what is to be loaded.
struct Loader {
    place: tempfile::TempDir,
    before: String,
}

impl Loader {
    const PATH: &str = "/proc/sys/kernel/modprobe";

    /// None if the kernel loads no modules.
    fn new() -> Option<Self> {
        let before = fs::read_to_string(Self::PATH).ok()?;
        let place = shared_dir();
        let (program, log) = (place.path().join("modprobe"), place.path().join("log"));
        // The last argument is the name.
        let script = format!("#!/bin/sh\nfor name; do :; done\necho \"$name\" >>{}\nexit 1\n", log.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(Self::PATH, program.as_os_str().as_encoded_bytes()).unwrap();
        Some(Self { place, before })
    }

    /// What has been requested since the last time.
    fn requested(&self) -> Vec<String> {
        let log = self.place.path().join("log");
        let names = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, self.before.trim_end());
    }
}
