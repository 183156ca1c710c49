//! Communication between processes without a shared path: io_uring, sockets of machine-wide families, locks, and the
//! shared memory, semaphores and message queues of System V and POSIX.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Stdio as HostStdio;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use stockade::mount::Bind;
use stockade::seccomp::Action;
use stockade::{Child, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{Attempts, attack, attack_on_host, attempt, line, sandbox, tell, unfiltered};
use crate::attacks::sys::{Word, call, numbers, socket_by_ring};
use crate::support::{payload, payload_on_host, shared_dir, unless_idmapped_tmpfs, with_payload};

payloads![("leave", leave), ("find", find), ("machine_socket", machine_socket), ("ring", ring), ("lock", lock)];

const ALL: Namespaces = Namespaces::all().difference(Namespaces::TIME);

/// The objects that others might find, by a number: keys of System V, and the same as names.
pub const KINDS: [&str; 5] = ["shared memory", "semaphores", "messages", "queue", "file"];

/// Makes or opens each object: `flags` is `IPC_CREAT` or 0.
pub fn objects(key: &str, flags: i32) {
    let number = i64::from(key.parse::<i32>().unwrap());
    let mode = i64::from(flags | 0o666);
    attempt(KINDS[0], numbers(libc::SYS_shmget, &[number, 4096, mode]));
    attempt(KINDS[1], numbers(libc::SYS_semget, &[number, 1, mode]));
    attempt(KINDS[2], numbers(libc::SYS_msgget, &[number, mode]));
    let name = format!("stockade-test-{key}\0");
    let create = if flags == 0 { 0 } else { i64::from(libc::O_CREAT) };
    let words = &mut [Word::Bytes(name.as_bytes()), Word::Number(create), Word::Number(0o666), Word::Number(0)];
    attempt(KINDS[3], call(libc::SYS_mq_open, words));
    let file = Path::new("/dev/shm").join(name.trim_end_matches('\0'));
    attempt(KINDS[4], if flags == 0 { fs::read(file).map(drop) } else { fs::write(file, "left") });
}

fn take_away(key: &str) {
    let number = key.parse().unwrap();
    let id = |call_number, words: &[i64]| numbers(call_number, words).unwrap_or(-1);
    let _ = numbers(libc::SYS_shmctl, &[id(libc::SYS_shmget, &[number, 0, 0]), libc::IPC_RMID.into(), 0]);
    let _ = numbers(libc::SYS_semctl, &[id(libc::SYS_semget, &[number, 0, 0]), 0, libc::IPC_RMID.into(), 0]);
    let _ = numbers(libc::SYS_msgctl, &[id(libc::SYS_msgget, &[number, 0]), libc::IPC_RMID.into(), 0]);
    let name = format!("stockade-test-{key}\0");
    let _ = call(libc::SYS_mq_unlink, &mut [Word::Bytes(name.as_bytes())]);
    let _ = fs::remove_file(Path::new("/dev/shm").join(name.trim_end_matches('\0')));
}

/// Leaves objects for as long as its standard input is open.
fn leave(args: &[String]) -> i32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    objects(&args[0], libc::IPC_CREAT);
    println!("left");
    let _ = std::io::stdin().read(&mut [0]);
    take_away(&args[0]);
    0
}

fn find(args: &[String]) -> i32 {
    objects(&args[0], 0);
    0
}

/// Starts a payload that stays in a sandbox until its input is closed, and gives what it said until it is ready.
pub fn stay(sandbox: &Sandbox, name: &str, args: &[&str], ready: &str) -> (Child, Attempts) {
    let mut command = payload(name);
    let mut child = sandbox.spawn(command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !said.ends_with(&format!("{ready}\n")) {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "it ended: {said}");
        said.push(byte[0].into());
    }
    (child, Attempts::parse(&said))
}

/// Attack 20: System V and POSIX IPC, `/dev/shm`.
#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn ipc_objects_left_in_memory_are_not_found_by_others() {
    let shm = Bind::new("/dev/shm", "/dev/shm").unmapped().writable();
    let shared = Sandbox::new().root(with_payload(Root::host()).with(shm)).namespaces(ALL - Namespaces::IPC);
    let key = |number: u32| (std::process::id() * 8 + number).to_string();

    let of_host = key(0);
    let mut host = payload_on_host("leave");
    let mut host = host.arg(&of_host).stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().unwrap();
    let mut said = host.stdout.take().unwrap();
    (0..KINDS.len()).for_each(|_| assert!(line(&mut said).ends_with(": done")));
    assert_eq!(line(&mut said), "left");
    attack_on_host("find", &[&of_host]).assert_done(&KINDS);
    attack(&shared, "find", &[&of_host]).assert_done(&KINDS);
    for sandbox in [sandbox(), unfiltered(&sandbox())] {
        attack(&sandbox, "find", &[&of_host]).assert_all_refused();
    }
    drop(host.stdin.take());
    assert!(host.wait().unwrap().success());

    for (sandbox, number, passes) in [(shared, 1, true), (sandbox(), 2, false), (unfiltered(&sandbox()), 3, false)] {
        let of_other = key(number);
        let (mut child, left) = stay(&sandbox, "leave", &[&of_other], "left");
        left.assert_done(&KINDS);
        let (found, on_host) = (attack(&sandbox, "find", &[&of_other]), attack_on_host("find", &[&of_other]));
        for attempts in [found, on_host] {
            if passes { attempts.assert_done(&KINDS) } else { attempts.assert_all_refused() }
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

/// Takes a port of the sockets between virtual machines, which no namespace keeps apart.
fn machine_socket(args: &[String]) -> i32 {
    let family = i64::from(libc::AF_VSOCK);
    let made =
        call(libc::SYS_socket, &mut [Word::Number(family), Word::Number(libc::SOCK_STREAM.into()), Word::Number(0)]);
    if let Some(socket) = attempt("socket", made) {
        // struct sockaddr_vm {family, reserved, port, cid, zero}, the CID being VMADDR_CID_ANY
        let mut address = [0; 16];
        address[..2].copy_from_slice(&(libc::AF_VSOCK as u16).to_ne_bytes());
        address[4..8].copy_from_slice(&args[0].parse::<u32>().unwrap().to_ne_bytes());
        address[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        let bind = &mut [Word::Number(socket), Word::Bytes(&address), Word::Number(16)];
        attempt("port", call(libc::SYS_bind, bind));
    }
    println!("bound");
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// Attack 20: AF_VSOCK, by which the hypervisor and other machines are reached.
#[apply(test)]
fn sockets_of_machine_wide_families_are_denied() {
    let port = (std::process::id() + 100_000).to_string();
    let mut host = payload_on_host("machine_socket");
    let mut host = host.arg(&port).stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().unwrap();
    let mut said = host.stdout.take().unwrap();
    let mut lines = String::new();
    while !lines.ends_with("bound\n") {
        lines += &(line(&mut said) + "\n");
    }
    let on_host = Attempts::parse(&lines);
    let open = attack(&unfiltered(&sandbox()), "machine_socket", &[&port]);
    if on_host.get("socket") == "done" {
        on_host.assert_done(&["port"]);
        open.assert_done(&["socket"]);
        // The port is the machine's: the net namespace does not keep it apart.
        if crate::support::kernel() < (7, 0) {
            assert_eq!(open.get("port"), "EADDRINUSE");
        }
    }
    for policy in [Seccomp::new(), Seccomp::container()] {
        attack(&sandbox().seccomp(policy), "machine_socket", &[&port]).assert_refused(&["socket"]);
    }
    let marked = Seccomp::new().deny_with(Action::Errno(stockade::Errno::EBADE));
    let filtered = attack(&sandbox().seccomp(marked), "machine_socket", &[&port]);
    assert_eq!(filtered.get("socket"), "EBADE", "also where the kernel has none, the filter answers");
    drop(host.stdin.take());
    host.wait().unwrap();
}

/// Has io_uring make sockets, which no filter of socket(2) sees.
fn ring(_: &[String]) -> i32 {
    for (name, family) in [("inet", libc::AF_INET), ("vsock", libc::AF_VSOCK)] {
        let direct = call(libc::SYS_socket, &mut [Word::Number(family.into()), Word::Number(1), Word::Number(0)]);
        attempt(name, direct);
        attempt(&format!("{name} by a ring"), socket_by_ring(family).map_err(|error| error.raw_os_error()));
    }
    0
}

fn unless_rings_make_sockets() -> Option<String> {
    (crate::support::kernel() < (5, 19)).then(|| "io_uring makes sockets since Linux 5.19".into())
}

/// Attack 20: io_uring, and the sockets that it makes.
#[apply(test)]
#[skip(unless_rings_make_sockets)]
fn a_ring_makes_no_sockets() {
    let families = attack_on_host("ring", &[]);
    families.assert_done(&["inet", "inet by a ring"]);
    // A filter that lets rings be is got around by them.
    let naive = Seccomp::new().deny(["socket"]).allow(["io_uring_setup", "io_uring_enter", "io_uring_register"]);
    let passed = attack(&sandbox().seccomp(naive), "ring", &[]);
    passed.assert_refused(&["inet", "vsock"]);
    passed.assert_done(&["inet by a ring"]);
    assert_eq!(passed.get("vsock by a ring"), families.get("vsock by a ring"));
    for policy in [Seccomp::new(), Seccomp::container()] {
        let inside = attack(&sandbox().seccomp(policy), "ring", &[]);
        inside.assert_refused(&["inet by a ring", "vsock by a ring", "vsock"]);
        assert_eq!(inside.get("inet by a ring"), "Some(1)", "EPERM");
    }
}

/// Takes every lock of a file at each path that it may take, and keeps them.
fn lock(paths: &[String]) -> i32 {
    let mut held = vec![];
    for path in paths {
        let file = File::open(path).or_else(|_| File::create_new(path));
        if let Some(file) = attempt(&format!("open {path}"), file) {
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno);
            held.extend(attempt(&format!("lock {path}"), lock));
        }
    }
    // The kernel may list a lock twice if others change theirs meanwhile.
    let listed = fs::read_to_string("/proc/locks").unwrap();
    let locks = listed.lines().filter(|line| line.contains("FLOCK"));
    let files: BTreeSet<_> = locks.map(|line| line.split_whitespace().nth(5).map(str::to_owned)).collect();
    tell("locks listed", files.len());
    tell("the list of locks", &listed);
    println!("held");
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// Attack 20: Locks of files. They are on the file: who is shown the same one, read-only or not, shares them, which no
/// layer keeps apart; what a sandbox has of its own has its own locks, whatever the path.
#[apply(test)]
fn locks_are_held_on_nothing_that_is_not_shared() {
    let place = shared_dir();
    let shared = place.path().join("shared");
    fs::write(&shared, "").unwrap();
    // Where each has a directory of its own.
    let private = tempfile::Builder::new().prefix("test-").tempfile_in("/tmp").unwrap();
    let private = private.path();
    let root = with_payload(Root::host()).bind(&shared, "/tmp/shared");
    let sandbox = Sandbox::new().root(root);
    let paths = ["/tmp/shared", private.to_str().unwrap(), "/dev/shm/lock"];
    let locks = |attempts: &Attempts| paths.map(|path| attempts.get(&format!("lock {path}")) == "done");
    let take = |path: &Path| {
        let taken = Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusiveNonblock);
        taken.map_err(|(_, errno)| errno)
    };
    // The caller holds all, a sandbox what is its own.
    let held = [take(&shared).unwrap(), take(private).unwrap()];
    let (child, inside) = stay(&sandbox, "lock", &paths, "held");
    assert_eq!(locks(&inside), [false, true, true], "{inside:?}");
    assert_eq!(inside.get("locks listed"), "2", "its own alone: {inside:?}");
    // Another one has its own again.
    let (other, beside) = stay(&sandbox, "lock", &paths, "held");
    assert_eq!(locks(&beside), [false, true, true]);
    drop((child, other, held));
    // And a sandbox that holds all holds of the host's files what it is shown.
    let (child, inside) = stay(&sandbox, "lock", &paths, "held");
    assert_eq!(locks(&inside), [true; 3]);
    assert_eq!(take(&shared).err(), Some(Errno::EAGAIN));
    assert!(take(private).is_ok());
    drop(child);
}
