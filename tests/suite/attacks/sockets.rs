//! UNIX sockets and FIFOs of the host in trees that a sandbox shows read-only. A read-only mount does not prevent
//! connections.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use stockade::mount::{Bind, Overlay};
use stockade::outcome::GapKind;
use stockade::{Root, Sandbox, profile};

use crate::attacks::common::{Attempts, attack, attempt, sandbox};
use crate::hosts::simulated::SimulatedHost;
use crate::support::{
    self, exists, in_mount_namespace, is_root, kernel, shared_dir, stdout, unless_landlock_since, unless_mounts,
    unless_overlays, unless_pivot_root, with_payload,
};

payloads![
    ("reach-endpoints", reach_endpoints),
    ("reach-late-socket", reach_late_socket),
    ("endpoints-of-trees", endpoints_of_trees),
    ("endpoints-of-layers", endpoints_of_layers),
    ("late-socket", late_socket),
    ("given-sockets", given_sockets),
    ("fifos-below", fifos_below),
    ("endpoints-at-the-top", endpoints_at_the_top),
];

fn unless_mounts_and_overlays() -> Option<String> {
    unless_overlays().or_else(unless_mounts)
}

/// Two file systems that the default root shows, the second one in the first.
const PLACES: [&str; 2] = ["/mnt/daemon", "/mnt/sub/daemon"];

const MOUNT: &str = "mount -t tmpfs -o mode=755 none /mnt; mkdir /mnt/sub /mnt/daemon
    mount -t tmpfs -o mode=755 none /mnt/sub; mkdir /mnt/sub/daemon; chmod 777 /mnt/daemon /mnt/sub/daemon";

/// What a daemon holds open.
struct Daemon {
    _stream: UnixListener,
    _datagram: UnixDatagram,
    _packets: std::os::fd::OwnedFd,
    _fifo: fs::File,
}

impl Daemon {
    /// Makes endpoints that everybody may reach.
    fn start(place: &Path) -> Self {
        let packets =
            socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).expect("socket");
        socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&packets),
            &UnixAddr::new(&place.join("packets")).expect("address"),
        )
        .expect("bind");
        socket::listen(&packets, socket::Backlog::new(8).expect("backlog")).expect("listen");
        nix::unistd::mkfifo(&place.join("fifo"), Mode::from_bits_truncate(0o666)).expect("fifo");
        let daemon = Self {
            _stream: UnixListener::bind(place.join("stream")).expect("listener"),
            _datagram: UnixDatagram::bind(place.join("datagram")).expect("datagrams"),
            _packets: packets,
            _fifo: OpenOptions::new().read(true).write(true).open(place.join("fifo")).expect("fifo"),
        };
        for name in ["stream", "datagram", "packets", "fifo"] {
            fs::set_permissions(place.join(name), Permissions::from_mode(0o777)).expect("permissions");
        }
        daemon
    }

    fn start_all() -> [Self; 2] {
        PLACES.map(|place| Self::start(Path::new(place)))
    }
}

/// Tries to reach what is below some directories.
fn reach_endpoints(places: &[String]) -> i32 {
    for place in places.iter().map(Path::new) {
        for (name, kind) in
            [("stream", SockType::Stream), ("datagram", SockType::Datagram), ("packets", SockType::SeqPacket)]
        {
            let path = place.join(name);
            let connected = UnixAddr::new(&path).and_then(|address| {
                let socket = socket::socket(AddressFamily::Unix, kind, SockFlag::empty(), None)?;
                socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)
            });
            attempt(&path.to_string_lossy(), connected);
        }
        let datagram = UnixDatagram::unbound().expect("socket");
        attempt(&format!("{} by sendto", place.display()), datagram.send_to(b"x", place.join("datagram")));
        let fifo = place.join("fifo");
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
        attempt(&fifo.to_string_lossy(), opened);
    }
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn sockets_and_fifos_of_read_only_trees_lead_nowhere() {
    in_mount_namespace(MOUNT, "endpoints-of-trees", shared_dir().path());
}

/// Whether FIFOs can be cut off here: by idmapped mounts of a tmpfs, or by Landlock.
fn cuts_off_fifos() -> bool {
    is_root() && kernel() >= (6, 3) || unless_landlock_since((5, 19)).is_none()
}

#[track_caller]
fn assert_cut_off(name: &str, sandbox: &Sandbox, attempts: &Attempts) {
    let gaps = sandbox.status(support::payload("reach-endpoints")).expect("a sandbox").enforcement.gaps;
    let fifos = gaps.iter().any(|gap| gap.kind == GapKind::Fifos);
    for what in attempts.done() {
        let is_known = fifos && !cuts_off_fifos() && what.ends_with("fifo");
        assert!(is_known, "{name}: {what} was reached, and reported is {gaps:?}");
    }
}

/// Directly in the directory whose entries are bound.
#[apply(test)]
#[skip(unless_pivot_root)]
fn sockets_and_fifos_at_the_top_of_a_root_lead_nowhere() {
    SimulatedHost::with_root(&[], "chmod 777 .; : >file").output("endpoints-at-the-top");
}

fn endpoints_at_the_top(_: &[String]) -> i32 {
    let _daemon = Daemon::start(Path::new("/"));
    let given = ["stream", "datagram", "packets", "fifo"].into_iter().fold(with_payload(Root::host()), |root, name| {
        root.with(Bind::new(Path::new("/").join(name), Path::new("/given").join(name)).unmapped())
    });
    let reached = attack(&Sandbox::new().root(given), "reach-endpoints", &["/given"]);
    assert_eq!(reached.done().count(), 5, "the attack must work with the sockets: {reached:?}");
    for (name, root) in [("the host", Root::host()), ("a directory", Root::from_dir("/"))] {
        let sandbox = Sandbox::new().root(with_payload(root));
        assert_cut_off(name, &sandbox, &attack(&sandbox, "reach-endpoints", &["/"]));
        stdout(&sandbox, "test -f /file");
    }
    0
}

fn endpoints_of_trees(_: &[String]) -> i32 {
    let _daemons = Daemon::start_all();
    let by_bind = Sandbox::new().root(with_payload(Root::host()).with(Bind::new("/mnt", "/mnt").sockets()));
    let reached = attack(&by_bind, "reach-endpoints", &PLACES);
    assert_eq!(reached.done().count(), 10, "the attack must work with the sockets: {reached:?}");
    let payload = |root: Root| with_payload(root);
    let private = |root: Root| with_payload(root.bind("/mnt", "/mnt"));
    let others = |root: Root| with_payload(root.with(Bind::new("/mnt", "/mnt").unmapped()));
    let sandboxes = [
        ("default", sandbox()),
        ("build_step", profile::build_step().map_root(payload)),
        ("test", profile::test().map_root(payload)),
        ("agent", profile::agent().map_root(private)),
        ("agent, unmapped", profile::agent().map_root(others)),
        ("a directory", Sandbox::new().root(with_payload(Root::from_dir("/")))),
    ];
    for (name, sandbox) in &sandboxes {
        let attempts = attack(sandbox, "reach-endpoints", &PLACES);
        assert_cut_off(name, sandbox, &attempts);
    }
    0
}

#[apply(test)]
#[skip(unless_mounts_and_overlays)]
fn sockets_and_fifos_in_a_layer_of_an_overlay_lead_nowhere() {
    in_mount_namespace(MOUNT, "endpoints-of-layers", shared_dir().path());
}

fn endpoints_of_layers(_: &[String]) -> i32 {
    let _daemons = Daemon::start_all();
    let overlays = PLACES.into_iter().zip(["/over/one", "/over/two"]);
    let root =
        overlays.fold(with_payload(Root::host()), |root, (lower, target)| root.with(Overlay::new(target).lower(lower)));
    let attempts = attack(&Sandbox::new().root(root), "reach-endpoints", &["/over/one", "/over/two"]);
    // Such a FIFO is one of the overlay's own, in which nobody reads.
    attempts.assert_all_refused();
    0
}

/// Waits for a socket, and connects to it.
fn reach_late_socket(args: &[String]) -> i32 {
    println!("waiting: done");
    for _ in 0..1000 {
        if exists(&args[0]) {
            attempt("connect", std::os::unix::net::UnixStream::connect(&args[0]));
            return 0;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    1
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_socket_that_is_bound_after_the_start_leads_nowhere_or_is_reported() {
    in_mount_namespace(MOUNT, "late-socket", shared_dir().path());
}

fn late_socket(_: &[String]) -> i32 {
    let path = "/mnt/daemon/late";
    let mut command = support::payload("reach-late-socket");
    command.arg(path).stdout(stockade::Stdio::piped());
    let mut child = sandbox().spawn(&command).expect("a sandbox");
    crate::attacks::common::line(child.stdout.as_mut().expect("output"));
    let _listener = UnixListener::bind(path).expect("listener");
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("permissions");
    let output = child.wait_with_output().expect("output");
    assert!(output.outcome.success(), "{}", output.outcome);
    let attempts = Attempts::parse(&support::text(&output.stdout));
    let is_reported = output.outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Sockets);
    let is_cut_off = is_root() && kernel() >= (6, 3) || unless_landlock_since((7, 1)).is_none();
    if attempts.get("connect") == "done" {
        assert!(is_reported && !is_cut_off, "{attempts:?}");
    }
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn sockets_that_are_given_lead_to_their_owner() {
    in_mount_namespace(MOUNT, "given-sockets", shared_dir().path());
}

fn given_sockets(_: &[String]) -> i32 {
    let _daemon = Daemon::start(Path::new(PLACES[0]));
    let given = ["stream", "datagram", "packets", "fifo"].into_iter().fold(with_payload(Root::host()), |root, name| {
        root.with(Bind::new(Path::new(PLACES[0]).join(name), Path::new("/given").join(name)).unmapped())
    });
    let attempts = attack(&Sandbox::new().root(given), "reach-endpoints", &["/given"]);
    assert_eq!(attempts.done().count(), 5, "{attempts:?}");
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn fifos_below_a_writable_place_are_reported() {
    in_mount_namespace(MOUNT, "fifos-below", shared_dir().path());
}

fn fifos_below(_: &[String]) -> i32 {
    let _daemon = Daemon::start(Path::new(PLACES[0]));
    let below = Sandbox::new().root(with_payload(Root::host()).with(Bind::new(PLACES[0], "/tmp/daemon").unmapped()));
    let attempts = attack(&below, "reach-endpoints", &["/tmp/daemon"]);
    attempts.assert_refused(&["/tmp/daemon/stream", "/tmp/daemon/datagram", "/tmp/daemon/packets"]);
    let gaps = below.status(support::payload("reach-endpoints")).expect("a sandbox").enforcement.gaps;
    let is_reported = gaps.iter().any(|gap| gap.kind == GapKind::Fifos);
    assert!(attempts.get("/tmp/daemon/fifo") != "done" || is_reported, "{gaps:?}");
    0
}
