//! The network, if the sandbox has none: listeners of the host, its interfaces, and raw sockets.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr as InetAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, setsockopt, socket, sockopt,
};
use stockade::capabilities::Capability;
use stockade::outcome::GapKind;
use stockade::{Capabilities, Namespaces, Sandbox, Seccomp, profile};

use crate::attacks::common::{
    alone, attack, attack_by, attack_on_host, attempt, in_namespaces, privately, sandbox, tell, unfiltered,
};
use crate::attacks::sys;
use crate::support::{kernel, unless_mounts, unless_pivot_root, with_payload};

payloads![
    ("reach", reach),
    ("links", links),
    ("fill", fill_netlink),
    ("raw", raw_sockets),
    ("bounds", bounds),
    ("spawn_bounds", spawn_bounds),
    ("label_flow", label_flow),
];

/// Tries to reach listeners: TCP port, UDP port, name of an abstract stream, name of an abstract datagram socket.
fn reach(args: &[String]) -> i32 {
    let address = |port: &String| InetAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let name = |name: &String| SocketAddr::from_abstract_name(name).unwrap();
    let short = Duration::from_secs(2);
    attempt("loopback tcp", TcpStream::connect_timeout(&address(&args[0]), short));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    udp.set_read_timeout(Some(short)).unwrap();
    // Nobody listening is said by an error to the next call.
    let answer = udp.connect(address(&args[1])).and_then(|()| udp.send(b"?")).and_then(|_| udp.recv(&mut [0; 1]));
    attempt("loopback udp", answer);
    attempt("abstract stream", UnixStream::connect_addr(&name(&args[2])));
    let datagram = UnixDatagram::unbound().unwrap();
    attempt("abstract datagram", datagram.send_to_addr(b"?", &name(&args[3])));
    // Beyond the loopback: what a resolver asks, and any host.
    for (what, host) in [("dns", [9, 9, 9, 9]), ("link-local", [169, 254, 169, 254]), ("docker", [172, 17, 0, 1])] {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        attempt(what, socket.send_to(b"?", (Ipv4Addr::from(host), 53)));
        let tcp = TcpStream::connect_timeout(&InetAddr::from((host, 53)), Duration::from_millis(200));
        let unreachable = |error: &std::io::Error| error.kind() == ErrorKind::NetworkUnreachable;
        assert!(tcp.is_err_and(|error| unreachable(&error)) || args.len() > 4, "{what} is reached by TCP");
    }
    0
}

/// Attack 31: Loopback, abstract sockets, name servers.
#[apply(test)]
fn listeners_of_the_host_are_out_of_reach() {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let names = ["stream", "datagram"].map(|kind| format!("stockade-test-{}-{kind}", std::process::id()));
    let address = names.each_ref().map(|name| SocketAddr::from_abstract_name(name).unwrap());
    let _stream = UnixListener::bind_addr(&address[0]).unwrap();
    let datagram = UnixDatagram::bind_addr(&address[1]).unwrap();
    let ports = [tcp.local_addr(), udp.local_addr()].map(|address| address.unwrap().port().to_string());
    let args = [&*ports[0], &*ports[1], &*names[0], &*names[1]];
    let reached = ["loopback tcp", "loopback udp", "abstract stream", "abstract datagram"];

    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let (_, asker) = udp.recv_from(&mut [0; 1]).unwrap();
            udp.send_to(b"!", asker).unwrap();
        });
        let shared = sandbox().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
        attack(&shared, "reach", &[&args[..], &["shared"]].concat()).assert_done(&reached);
        answer.join().unwrap();
    });
    datagram.set_nonblocking(true).unwrap();
    assert_eq!(datagram.recv(&mut [0; 8]).unwrap(), 1);

    let inside = attack(&sandbox(), "reach", &args);
    inside.assert_all_refused();
    udp.set_nonblocking(true).unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(datagram.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// The indices of the network devices that netlink tells of, and how many sockets of the machine sock_diag lists.
fn links(_: &[String]) -> i32 {
    // struct nlmsghdr {len, type, flags, seq, pid} and struct rtgenmsg, padded
    let request = |kind: u16, body: &[u8]| {
        let len = (16 + body.len()) as u32;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], body].concat()
    };
    tell("links", dump(libc::NETLINK_ROUTE, &request(libc::RTM_GETLINK, &[0; 16])).unwrap().len());
    tell("addresses", dump(libc::NETLINK_ROUTE, &request(libc::RTM_GETADDR, &[0; 8])).unwrap().len());
    // struct unix_diag_req {family, protocol, pad, states, ino, show, cookie}
    let unix = [&[libc::AF_UNIX as u8, 0, 0, 0][..], &u32::MAX.to_ne_bytes(), &[0; 16]].concat();
    tell("unix sockets", dump(libc::NETLINK_SOCK_DIAG, &request(20, &unix)).map(|found| found.len()));
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    tell("devices in /proc", devices.lines().skip(2).count());
    tell("namespace", std::fs::read_link("/proc/self/ns/net").unwrap());
    0
}

/// The messages of a dump, each without its header.
fn dump(protocol: i32, request: &[u8]) -> nix::Result<Vec<Vec<u8>>> {
    let socket = sys::netlink(protocol)?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut found = vec![];
    let mut bytes = vec![0; 1 << 16];
    loop {
        let len = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        let mut rest = &bytes[..len];
        while rest.len() >= 16 {
            let size = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            match i32::from(u16::from_ne_bytes(rest[4..6].try_into().unwrap())) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => {
                    let errno = i32::from_ne_bytes(rest[16..20].try_into().unwrap());
                    return Err(Errno::from_raw(-errno));
                }
                _ => found.push(rest[16..size].to_vec()),
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Sockets that the attack opens at most.
const MOST: usize = 300;

/// Opens netlink sockets, and asks for more than fits into the buffer of each: tells how many there are, and whether a
/// buffer can be made larger.
fn fill_netlink(_: &[String]) -> i32 {
    // struct nlmsghdr {len, type, flags, seq, pid} and struct rtgenmsg, padded
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let request = [&32u32.to_ne_bytes()[..], &libc::RTM_GETLINK.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 24]].concat();
    let mut sockets = vec![];
    while sockets.len() < MOST {
        match sys::netlink(libc::NETLINK_ROUTE) {
            Ok(socket) => sockets.push(socket),
            Err(errno) => {
                tell("refused", errno);
                break;
            }
        }
        let socket = sockets.last().unwrap();
        let asked = (0..1000).take_while(|_| send(socket.as_raw_fd(), &request, MsgFlags::MSG_DONTWAIT).is_ok());
        let _ = asked.count();
    }
    tell("sockets", sockets.len());
    if let Some(socket) = sockets.first() {
        let before = getsockopt(socket, sockopt::RcvBuf).unwrap();
        setsockopt(socket, sockopt::RcvBuf, &(2 * before)).unwrap();
        tell("grown", getsockopt(socket, sockopt::RcvBuf).unwrap() > before);
    }
    0
}

/// Attack 73: Answers of netlink that nobody reads take memory that is counted to no cgroup.
#[apply(test)]
fn netlink_takes_no_memory_that_nobody_counts() {
    let raw = attack(&unfiltered(&sandbox()), "fill", &[]);
    assert_eq!(raw.get("sockets"), MOST.to_string(), "the attack must work here");
    let profiles = [profile::build_step(), profile::test(), profile::agent()];
    let profiles = profiles.map(|profile| profile.map_root(with_payload));
    for sandbox in [sandbox(), sandbox().seccomp(Seccomp::container())].into_iter().chain(profiles) {
        let denied = attack(&sandbox, "fill", &[]);
        assert_eq!((denied.get("sockets"), denied.get("refused")), ("0", "EAFNOSUPPORT"));
    }
    let allowed = attack(&listing(), "fill", &[]);
    let sockets: usize = allowed.get("sockets").parse().unwrap();
    assert!((1..=64).contains(&sockets), "{sockets}");
    assert_eq!((allowed.get("refused"), allowed.get("grown")), ("EMFILE", "false"));
}

const BACKLOG: &str = "/proc/sys/net/core/somaxconn";

/// How many connections a listener may have wait, and whether the program can change that.
fn bounds(_: &[String]) -> i32 {
    tell("backlog", std::fs::read_to_string(BACKLOG).unwrap().trim());
    attempt("raise", std::fs::write(BACKLOG, "5000"));
    0
}

/// A caller that spawns with a network of the sandbox's own, and with its own.
fn spawn_bounds(_: &[String]) -> i32 {
    let without = Sandbox::new().seccomp(Seccomp::pure_computation());
    for (name, sandbox) in [("own", Sandbox::new()), ("none", without), ("shared", shared(&Sandbox::new()))] {
        // The kernel gives no new /proc to who has part of it covered.
        let namespaces = Namespaces::USER | Namespaces::MOUNT;
        let sandbox = sandbox.map_namespaces(|all| all & (namespaces | Namespaces::NET));
        let enforced = sandbox.status(stockade::Command::new("true")).unwrap().enforcement;
        tell(
            name,
            enforced.gaps.iter().any(|gap| gap.kind == GapKind::NetworkMemory && gap.description.contains("somaxconn")),
        );
    }
    0
}

fn shared(sandbox: &Sandbox) -> Sandbox {
    sandbox.clone().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET)
}

/// Over an initramfs a setting is written in any case.
fn unless_settings() -> Option<String> {
    let old = || (kernel() < (6, 8)).then(|| "a network of a user namespace has no somaxconn before Linux 6.8".into());
    unless_mounts().or_else(unless_pivot_root).or_else(old)
}

/// Attack 74: Connections that nobody accepts are counted to no cgroup.
#[apply(test)]
#[skip(unless_settings)]
fn connections_are_bounded_in_a_network_of_the_sandboxs_own() {
    let own = std::fs::read_to_string(BACKLOG).unwrap();
    assert!(own.trim().parse::<u64>().unwrap() > 128, "the machine's is higher");
    assert_eq!(attack(&shared(&sandbox()), "bounds", &[]).get("backlog"), format!("{:?}", own.trim()));
    let inside = attack(&sandbox(), "bounds", &[]);
    assert_eq!(inside.get("backlog"), "\"128\"");
    inside.assert_refused(&["raise"]);
    assert_eq!(std::fs::read_to_string(BACKLOG).unwrap(), own);

    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    for (script, is_gap) in [("", "false"), (read_only, "true")] {
        let gaps = attack_by(&mut privately(script, "spawn_bounds", &[]));
        assert_eq!((gaps.get("own"), gaps.get("none"), gaps.get("shared")), (is_gap, "false", "false"), "{script}");
    }
}

/// A sandbox whose program may list network interfaces.
fn listing() -> Sandbox {
    sandbox().map_seccomp(Seccomp::allow_netlink)
}

/// Attack 31: Netlink tells of the sandbox's own network alone.
#[apply(test)]
fn links_of_the_host_are_not_seen() {
    // It requests a module.
    let _alone = alone();
    let name = SocketAddr::from_abstract_name(format!("stockade-test-{}-diag", std::process::id())).unwrap();
    let _listener = UnixListener::bind_addr(&name).unwrap();
    let host = attack_on_host("links", &[]);
    let shared = attack(&listing().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET), "links", &[]);
    for what in ["links", "devices in /proc", "namespace"] {
        assert_eq!(shared.get(what), host.get(what), "{what}");
    }
    let own = attack(&listing(), "links", &[]);
    assert_ne!(own.get("namespace"), host.get("namespace"));
    assert_eq!((own.get("links"), own.get("devices in /proc")), ("1", "1"), "the loopback alone");
    if host.get("unix sockets").starts_with("Ok") {
        assert_ne!(host.get("unix sockets"), "Ok(0)");
        let unfiltered = attack(&unfiltered(&sandbox()), "links", &[]);
        assert_eq!(unfiltered.get("unix sockets"), "Ok(0)");
    }
    // A request to it has the kernel load modules.
    assert_eq!(own.get("unix sockets"), "Err(EPROTONOSUPPORT)");
    let alone = attack_by(&mut in_namespaces(&["-n"], ":", "", "links", &[]));
    assert_eq!(alone.get("links"), own.get("links"), "no more than a new network has");
}

fn raw_sockets(_: &[String]) -> i32 {
    let none = SockFlag::empty();
    attempt("packet", socket(AddressFamily::Packet, SockType::Raw, none, None));
    attempt("raw icmp", sys::raw_inet(libc::IPPROTO_ICMP));
    attempt("raw ip", sys::raw_inet(libc::IPPROTO_RAW));
    0
}

/// Attack 31: Sockets that make packets of their own.
#[apply(test)]
fn raw_sockets_are_denied() {
    attack_by(&mut in_namespaces(&["-n"], ":", "", "raw", &[])).assert_done(&["packet", "raw icmp", "raw ip"]);
    let shared = sandbox().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
    for sandbox in [sandbox(), shared] {
        attack(&sandbox, "raw", &[]).assert_all_refused();
        attack(&unfiltered(&sandbox), "raw", &[]).assert_all_refused();
    }
    // The filter refuses the family to who has the right to it.
    let capable = sandbox().capabilities(Capabilities::none().keep([Capability::NetRaw]));
    attack(&unfiltered(&capable), "raw", &[]).assert_done(&["packet", "raw icmp"]);
    let filtered = attack(&capable, "raw", &[]);
    filtered.assert_refused(&["packet"]);
    assert_eq!(filtered.get("packet"), "EAFNOSUPPORT");
}

fn unless_ipv6() -> Option<String> {
    (!std::path::Path::new("/proc/net/if_inet6").exists()).then(|| "this kernel has no IPv6".into())
}

/// Creates an IPv6 flow label.
fn label_flow(_: &[String]) -> i32 {
    const IPV6_FLOWLABEL_MGR: i64 = 32;
    let socket = UdpSocket::bind("[::]:0").unwrap();
    // struct in6_flowlabel_req {dst, label, action, share, flags, expires, linger, pad}: IPV6_FL_F_CREATE,
    // IPV6_FL_S_EXCL
    let mut request = [0u8; 32];
    request[15] = 1;
    request[21] = 1;
    request[22] = 1;
    let [fd, level, option] =
        [socket.as_raw_fd().into(), libc::IPPROTO_IPV6.into(), IPV6_FLOWLABEL_MGR].map(sys::Word::Number);
    let words = &mut [fd, level, option, sys::Word::Bytes(&request), sys::Word::Number(32)];
    attempt("label", sys::call(libc::SYS_setsockopt, words));
    0
}

/// Attack 79: IPv6 flow labels, of which the kernel has 4,096 for all network namespaces together. An unprivileged
/// program can take three quarters, and nobody else without CAP_NET_ADMIN gets more than one for each socket then.
#[apply(test)]
#[skip(unless_ipv6)]
fn flow_labels_of_the_machine_are_not_taken() {
    attack(&unfiltered(&sandbox()), "label_flow", &[]).assert_done(&["label"]);
    for sandbox in [sandbox(), sandbox().seccomp(Seccomp::container()), profile::agent().map_root(with_payload)] {
        assert_eq!(attack(&sandbox, "label_flow", &[]).get("label"), "ENOPROTOOPT");
    }
}
