//! Descriptors and memory: those of the caller, the images of init and the helper, and reports that a program forges.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command as Host;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use stockade::mount::Operation;
use stockade::namespaces::NamespaceRef;
use stockade::{Command, Identity, Namespaces, Root, Sandbox, Stdio, Termination};

use crate::attacks::common::{
    Attempts, Bystander, attack, attack_by, attack_on_host, attempt, first_line, ids_of, sandbox, tell,
};
use crate::attacks::sys;
use crate::support::{
    descriptors, own_path, payload, payload_on_host, processes, rounds, sample, sh, shared_dir, text, with_payload,
};

payloads![
    ("hold_descriptors", hold_descriptors),
    ("list_descriptors", list_descriptors),
    ("hold_directory", hold_directory),
    ("where", whereabouts),
    ("probe", probe),
    ("probe_sibling", probe_sibling),
    ("probe_helpers", probe_helpers),
    ("keep_secret", keep_secret),
    ("hunt", hunt),
    ("offer_descriptor", offer_descriptor),
    ("take_descriptor", take_descriptor),
    ("forge", forge),
];

fn list_descriptors(_: &[String]) -> i32 {
    tell("descriptors", numbers());
    0
}

fn numbers() -> Vec<String> {
    descriptors().into_iter().map(|(number, _)| number).collect()
}

/// Sandboxes from the default to none.
fn weaker_and_weaker() -> Vec<Sandbox> {
    let default = sandbox();
    let all = Namespaces::all() - Namespaces::TIME;
    vec![
        default.clone(),
        default.clone().namespaces(all - Namespaces::PID),
        default.namespaces(Namespaces::USER | Namespaces::MOUNT),
    ]
}

/// Opens a file in a way that it stays open over an exec, with the numbers 3 and 900 among others.
fn leak(path: &str) {
    let file = File::open(path).unwrap();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    for number in [3, 900] {
        // What fcntl gives is a number that nobody owns.
        fcntl(&file, FcntlArg::F_DUPFD(number)).unwrap();
    }
    std::mem::forget(file);
}

fn hold_descriptors(args: &[String]) -> i32 {
    leak(&args[0]);
    let held = numbers();
    assert!(["3", "900"].iter().all(|number| held.iter().any(|held| held == number)), "{held:?}");
    let child = attack_on_host("list_descriptors", &[]);
    tell("of a child without a sandbox", child.get("descriptors"));
    for (number, sandbox) in weaker_and_weaker().iter().enumerate() {
        tell(&format!("inside {number}"), attack(sandbox, "list_descriptors", &[]).get("descriptors"));
    }
    0
}

/// Attack 8: The caller holds descriptors 3 and 900 without CLOEXEC.
#[apply(test)]
fn descriptors_of_the_caller_are_absent_inside() {
    let place = shared_dir();
    let secret = place.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let attempts = attack_on_host("hold_descriptors", &[secret.to_str().unwrap()]);
    let leaked = attempts.get("of a child without a sandbox");
    assert!(leaked.contains("\\\"3\\\"") && leaked.contains("\\\"900\\\""), "a child inherits them: {leaked}");
    for number in 0..weaker_and_weaker().len() {
        assert_eq!(attempts.get(&format!("inside {number}")), r#""[\"0\", \"1\", \"2\"]""#);
    }
}

/// Where it is, and whether it can read a file of that directory. With an argument it goes to that directory first.
fn whereabouts(args: &[String]) -> i32 {
    if let Some(directory) = args.first() {
        attempt("change", std::env::set_current_dir(directory));
    }
    tell("cwd", sys::getcwd());
    attempt("read", fs::read("secret"));
    0
}

fn hold_directory(args: &[String]) -> i32 {
    leak(&args[0]);
    let numbers: Vec<i32> = sample(0..32).chain([900]).collect();
    let mut host = payload_on_host("where");
    attack_by(host.current_dir("/proc/self/fd/900")).assert_done(&["read"]);
    for sandbox in weaker_and_weaker() {
        for &number in &numbers {
            for directory in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
                let Ok(output) = sandbox.output(payload("where").current_dir(&directory)) else { continue };
                let attempts = Attempts::parse(&text(&output.stdout));
                attempts.assert_refused(&["read"]);
                assert!(attempts.get("cwd").starts_with("Ok(\"/"), "{directory}: {attempts:?}");
            }
            // A program in it can't be named either.
            let program = format!("/proc/self/fd/{number}/program");
            sandbox.output(Command::new(&program)).expect_err(&program);
        }
    }
    println!("ended: done");
    0
}

/// Attack 9: The working directory is named by a descriptor that the caller has leaked.
#[apply(test)]
fn a_working_directory_is_never_outside() {
    let place = shared_dir();
    let (secret, program) = (place.path().join("secret"), place.path().join("program"));
    fs::write(&secret, "secret").unwrap();
    fs::copy(own_path(), program).unwrap();
    // Attack 46: a program that had such a descriptor would be outside.
    let error = sandbox().output(payload("where").fd(7, File::open(place.path()).unwrap())).unwrap_err();
    assert!(error.to_string().contains("descriptor 7 is a directory"), "{error}");
    attack_on_host("hold_directory", &[place.path().to_str().unwrap()]).assert_done(&["ended"]);
}

/// Looks into a process in every way that there is.
fn look_into(pid: i32) {
    let path = |name: &str| format!("/proc/{pid}/{name}");
    attempt("exe", File::options().read(true).custom_flags(libc::O_PATH).open(path("exe")));
    attempt("fd", fs::read_link(path("fd/0")));
    for name in ["root", "cwd"] {
        attempt(name, fs::read_dir(path(name)));
    }
    for name in ["environ", "maps", "auxv"] {
        attempt(name, fs::read(path(name)).map_err(|error| error.kind()).and_then(not_empty));
    }
    attempt("mem", read_first(pid, "r", File::options().read(true)));
    attempt("mem for writing", write_first(pid));
    attempt("oom_score_adj", fs::write(path("oom_score_adj"), "1000"));
    attempt("ptrace", sys::ptrace(pid));
    attempt("process_vm_readv", sys::read_memory(pid, first_mapping(pid, "r").unwrap_or(0x41_0000), 8));
}

/// A process that is ending can be opened, but nothing is in it.
fn not_empty(bytes: Vec<u8>) -> Result<Vec<u8>, ErrorKind> {
    if bytes.is_empty() { Err(ErrorKind::UnexpectedEof) } else { Ok(bytes) }
}

/// Where the first mapping begins whose permissions begin so.
fn first_mapping(pid: i32, permissions: &str) -> Option<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut mappings = maps.lines().filter_map(|line| line.split_once(' '));
    let (range, _) = mappings.find(|(_, rest)| rest.starts_with(permissions))?;
    usize::from_str_radix(range.split_once('-')?.0, 16).ok()
}

/// Opens the memory of a process, and reads the first byte that has these permissions.
fn read_first(pid: i32, permissions: &str, how: &mut OpenOptions) -> Result<(File, u64, u8), ErrorKind> {
    let memory = how.open(format!("/proc/{pid}/mem")).map_err(|error| error.kind())?;
    let address = first_mapping(pid, permissions).ok_or(ErrorKind::NotFound)? as u64;
    let mut byte = [0];
    memory.read_exact_at(&mut byte, address).map_err(|error| error.kind())?;
    Ok((memory, address, byte[0]))
}

/// Writes the first byte that can be written again. (A kernel may keep read-only memory from being written this way.)
fn write_first(pid: i32) -> Result<(), ErrorKind> {
    let (memory, address, byte) = read_first(pid, "rw", File::options().read(true).write(true))?;
    memory.write_all_at(&[byte], address).map_err(|error| error.kind())
}

fn probe(args: &[String]) -> i32 {
    look_into(args[0].parse().unwrap());
    0
}

fn probe_sibling(_: &[String]) -> i32 {
    let mut sibling = Bystander::start(payload_on_host("keep_secret").env("PATH", "/usr/bin"));
    sibling.line();
    look_into(sibling.pid() as i32);
    0
}

/// Attack 10: `/proc/1/exe`, `/proc/1/mem`, `/proc/1/environ`, ptrace of pid 1.
#[apply(test)]
fn the_init_cannot_be_inspected() {
    let sibling = attack(&sandbox(), "probe_sibling", &[]);
    sibling.assert_done(&["exe", "root", "cwd", "fd", "environ", "maps", "auxv", "mem", "mem for writing"]);
    sibling.assert_done(&["oom_score_adj", "ptrace", "process_vm_readv"]);
    attack(&sandbox(), "probe", &["1"]).assert_all_refused();
}

fn probe_helpers(_: &[String]) -> i32 {
    let helpers = processes(|line| line.starts_with("stockade: "));
    tell("helpers", helpers.len());
    helpers.into_iter().for_each(look_into);
    0
}

/// Attack 10: Without a pid namespace the program sees the helper, which stays and is of the same user.
#[apply(test)]
fn a_persistent_helper_cannot_be_inspected() {
    let without = sandbox().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    let output = text(&without.output(payload("probe_helpers")).unwrap().stdout);
    let (helpers, attempts) = output.split_once('\n').unwrap();
    assert_ne!(helpers, "helpers: 0");
    assert!(!attempts.contains(": done"), "{attempts}");
}

/// Attack 10: `#!/proc/self/exe`, and `/proc/self/exe` as the program: it is executed by the helper's child.
#[apply(test)]
fn a_script_with_the_interpreter_proc_self_exe_gets_nothing_of_the_host() {
    let place = shared_dir();
    let contents = "#!/proc/self/exe --payload\n";
    let script = place.path().join("script");
    fs::write(&script, contents).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let host = Host::new(&script).output().unwrap();
    assert!(text(&host.stderr).contains("no payload"), "without a sandbox it runs the host's own program: {host:?}");

    let before = fs::read(own_path()).unwrap();
    let file = Operation::file("/tmp/script", contents, 0o755);
    let sandbox = Sandbox::new().root(with_payload(Root::host()).with(file));
    for program in ["/tmp/script", "/proc/self/exe", "/proc/thread-self/exe"] {
        let mut command = Command::new(program);
        command.args(["--payload", "list_descriptors"]);
        if let Ok(output) = sandbox.output(&command) {
            assert!(!output.outcome.success(), "{program}: {output:?}");
            assert!(!text(&output.stderr).contains("no payload"), "{program} ran the host's program");
            assert_eq!(text(&output.stdout), "", "{program}");
        }
        assert_eq!(attack(&sandbox, "list_descriptors", &[]).get("descriptors"), r#"["0", "1", "2"]"#);
    }
    assert!(fs::read(own_path()).unwrap() == before, "the host's program was written to");
}

/// What the hunter looks for: not as it stands in the memory of who has this program mapped, but as made by [`secret`].
const BACKWARDS: &str = "tsoh-eht-fo-terces-eht";

fn secret() -> String {
    std::hint::black_box(BACKWARDS).chars().rev().collect()
}

fn keep_secret(_: &[String]) -> i32 {
    let secret = std::hint::black_box(secret());
    println!("ready");
    std::thread::sleep(Duration::from_secs(1000));
    drop(secret);
    0
}

/// Reads the memory of every other process that it can, or of the one that is named, and says so if the secret is in
/// it, or if the process is one that still has the sandbox's channels.
fn hunt(args: &[String]) -> i32 {
    let needle = secret();
    println!("hunting");
    let own = std::process::id().to_string();
    loop {
        let pids: Vec<String> = match args.first() {
            Some(pid) => vec![pid.clone()],
            None => fs::read_dir("/proc").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect(),
        };
        for pid in pids.iter().filter(|pid| pid.parse::<u32>().is_ok() && **pid != own) {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let caught = line.starts_with(b"stockade: ")
                && read_first(pid.parse().unwrap(), "r", File::options().read(true)).is_ok();
            // Only if it was no other program meanwhile.
            let caught = caught && fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|again| again == line);
            if caught || has_in_memory(pid, needle.as_bytes()) {
                println!("found in {pid}: done");
                return 0;
            }
        }
    }
}

fn has_in_memory(pid: &str, needle: &[u8]) -> bool {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { return false };
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return false };
    let regions = maps.lines().filter(|line| line.contains(" rw")).filter_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let end = rest.split(' ').next()?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    });
    regions.into_iter().any(|(start, end)| {
        let mut bytes = vec![0; (end - start).min(64 << 20) as usize];
        let len = memory.read_at(&mut bytes, start).unwrap_or(0);
        bytes[..len].windows(needle.len()).any(|window| window == needle)
    })
}

/// Attack 10: While a program looks for a process to look into, others join its sandbox: none shares the caller's
/// memory in its reach.
#[apply(test)]
fn the_callers_memory_is_out_of_reach_while_others_join() {
    let mut keeper = Bystander::start(&mut payload_on_host("keep_secret"));
    keeper.line();
    let found = format!("found in {}", keeper.pid());
    attack_on_host("hunt", &[&keeper.pid().to_string()]).assert_done(&[&found]);

    let own_secret = std::hint::black_box(secret());
    let mut hunter = sandbox().spawn(payload("hunt").stdout(Stdio::piped())).unwrap();
    let mut said = hunter.stdout.take().unwrap();
    assert_eq!(first_line(&said), "hunting");
    let kinds = Namespaces::all() - Namespaces::TIME;
    let (uid, gid) = ids_of(hunter.pid().number());
    let joined = Sandbox::new()
        .join(kinds, NamespaceRef::pid(hunter.pid()))
        .identity(Identity::new().uid(uid).gid(gid))
        .root(Root::inherit());
    let start = Instant::now();
    let mut joins = 0;
    let mut ended = None;
    let enough = rounds(100);
    // Longer on a slow machine.
    while joins < 10_000 && start.elapsed() < Duration::from_secs(if joins > enough { 6 } else { 60 }) {
        // It fails when the sandbox has ended, because the hunter has found what it looks for.
        if let Err(error) = joined.status(Command::new("true")) {
            ended = Some(error.to_string());
            break;
        }
        joins += 1;
    }
    hunter.kill().unwrap();
    assert_eq!(hunter.wait().unwrap().termination, Termination::Killed, "the hunter ends only when it has found it");
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(joins > enough, "{joins} joins, then {ended:?}");
    drop(own_secret);
    // A process that gains rights by joining can't be looked into any more: that must not be the caller.
    assert!(nix::sys::prctl::get_dumpable().unwrap());
}

fn abstract_name(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).unwrap()
}

/// Sends a descriptor that can be written to, to whoever listens.
fn offer_descriptor(args: &[String]) -> i32 {
    let file = File::create("/tmp/offered").unwrap();
    let fds = [file.as_raw_fd()];
    let sent = UnixStream::connect_addr(&abstract_name(&args[0])).map_err(|error| error.kind()).map(|stream| {
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap()
    });
    attempt("offered", sent);
    0
}

/// Takes a descriptor, for as long as its standard input is open.
fn take_descriptor(args: &[String]) -> i32 {
    let listener = UnixListener::bind_addr(&abstract_name(&args[0])).unwrap();
    println!("listening");
    static TAKEN: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut bytes, mut space) = ([0; 1], cmsg_space!([i32; 1]));
        let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::empty()).unwrap();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                let written = sys::write(fds[0], b"from another sandbox");
                // Before it is told: whoever reads that closes the standard input.
                TAKEN.store(true, Ordering::SeqCst);
                attempt("taken", written);
            }
        }
    });
    let _ = std::io::stdin().read(&mut [0]);
    if TAKEN.load(Ordering::SeqCst) { 0 } else { 1 }
}

/// Attack 11: One sandbox hands its descriptors to another, over an abstract socket.
#[apply(test)]
fn descriptors_do_not_pass_between_sandboxes() {
    let shared = sandbox().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
    for (sandbox, passes) in [(shared, true), (sandbox(), false)] {
        let name = format!("stockade-test-{}-{passes}", std::process::id());
        let mut command = payload("take_descriptor");
        let mut taker = sandbox.spawn(command.arg(&name).stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        let mut said = taker.stdout.take().unwrap();
        let mut line = [0; 10];
        said.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"listening\n");
        let offered = attack(&sandbox, "offer_descriptor", &[&name]);
        let mut taken = String::new();
        if passes {
            offered.assert_done(&["offered"]);
            let mut word = [0; 12];
            said.read_exact(&mut word).unwrap();
            taken = text(&word);
        } else {
            offered.assert_refused(&["offered"]);
        }
        let outcome = taker.wait().unwrap();
        said.read_to_string(&mut taken).unwrap();
        assert_eq!((taken.trim_end(), outcome.success()), (if passes { "taken: done" } else { "" }, passes));
    }
}

/// Writes whatever might pass for a report to every descriptor that there may be, then exits with 7.
fn forge(_: &[String]) -> i32 {
    let passed = File::open("/dev/null").unwrap();
    let fds = [passed.as_raw_fd(), passed.as_raw_fd()];
    for fd in 0..1024 {
        for tag in 1..=20u64 {
            let words = [tag << 32, 1, 0, 0].map(u64::to_ne_bytes).concat();
            let _ = sys::write(fd, &words[..16]);
            let rights = [ControlMessage::ScmRights(&fds)];
            let _ = sendmsg::<UnixAddr>(fd, &[IoSlice::new(&words)], &rights, MsgFlags::MSG_DONTWAIT, None);
        }
        let _ = File::options()
            .write(true)
            .open(format!("/proc/self/fd/{fd}"))
            .and_then(|mut file| file.write_all(&[0; 16]));
    }
    7
}

/// Attack 12: The program writes to every descriptor that it has.
#[apply(test)]
fn reports_can_not_be_forged() {
    for sandbox in weaker_and_weaker() {
        let kind = SockType::SeqPacket;
        let (own, given) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let output = sandbox.output(payload("forge").fd(5, given)).unwrap();
        assert_eq!(output.outcome.termination, Termination::Exited(7));
        assert!(output.stdout.len() >= 20 * 16, "it writes what it has to");
        let mut record = [0; 64];
        let len = nix::unistd::read(&own, &mut record).unwrap();
        assert_eq!((len, &record[..8]), (16, &(1u64 << 32).to_ne_bytes()[..]), "what it forges arrives where it can");
        assert!(output.outcome.usage.max_rss.is_some());
    }
    assert_eq!(sh(&sandbox(), "exit 3").outcome.termination, Termination::Exited(3));
    assert!(Path::new("/dev/null").exists());
}
