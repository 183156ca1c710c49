//! Descriptors that a program inherits: it tries to get more access than they were opened for, and to change the
//! descriptors of the caller.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio as HostStdio;
use std::time::{Duration, SystemTime};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::pty::openpty;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use stockade::limits::Resource;
use stockade::{Command, Layer, Limits, Namespaces, Root, Sandbox, Stdio};

use crate::attacks::common::{Attempts, attack_as, attack_by, attempt, bare, sandbox, tell, unfiltered};
use crate::attacks::sys::{self, Word};
use crate::support::{
    at_most, descriptors, on_host, own_path, payload_on_host, rounds, sh, shared_dir, text, unless_mount_setattr,
};

payloads![
    ("abuse", abuse),
    ("read", read),
    ("share_flags", share_flags),
    ("change_modes", change_modes),
    ("run_repeatedly", run_repeatedly),
];

fn number(args: &[String]) -> i64 {
    args[0].parse().unwrap()
}

/// Tries to do to a descriptor what it was not opened for.
fn abuse(args: &[String]) -> i32 {
    let fd = number(args);
    let path = format!("/proc/self/fd/{fd}");
    // A pipe is read without waiting for something to be in it.
    let open = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let read = open().and_then(|mut file| file.read(&mut [0; 64])).map_err(|error| error.kind());
    attempt("read", read.and_then(|len| if len == 0 { Err(ErrorKind::UnexpectedEof) } else { Ok(len) }));
    attempt("append", sys::numbers(libc::SYS_fcntl, &[fd, libc::F_SETFL.into(), 0]));
    attempt(
        "overwrite",
        sys::call(libc::SYS_pwrite64, &mut [Word::Number(fd), Word::Bytes(b"harm"), Word::Number(4), Word::Number(0)]),
    );
    let write = || File::options().write(true).open(&path);
    attempt("write", write());
    attempt("write to it", write().and_then(|mut file| file.write_all(b"harm")));
    attempt("truncate", sys::numbers(libc::SYS_ftruncate, &[fd, 1]));
    attempt("truncate by path", File::options().write(true).truncate(true).open(&path));
    attempt("chmod", sys::numbers(libc::SYS_fchmod, &[fd, 0o666]));
    attempt("chmod by path", fs::set_permissions(&path, fs::Permissions::from_mode(0o666)));
    attempt("times", sys::numbers(libc::SYS_utimensat, &[fd, 0, 0, 0]));
    let mut attribute =
        [Word::Number(fd), Word::Bytes(b"user.harm\0"), Word::Bytes(b"harm"), Word::Number(4), Word::Number(0)];
    attempt("attribute", sys::call(libc::SYS_fsetxattr, &mut attribute));
    attempt(
        "map",
        sys::numbers(
            libc::SYS_mmap,
            &[0, 4096, (libc::PROT_READ | libc::PROT_WRITE).into(), libc::MAP_SHARED.into(), fd, 0],
        ),
    );
    0
}

/// Reads from a descriptor, from the path of it, and through a mapping.
fn read(args: &[String]) -> i32 {
    let fd = number(args);
    let mut rest = vec![0; 64];
    let len = sys::call(libc::SYS_read, &mut [Word::Number(fd), Word::Room(&mut rest), Word::Number(64)]).unwrap();
    tell("rest", text(&rest[..len as usize]));
    tell("by path", fs::read_to_string(format!("/proc/self/fd/{fd}")).map_err(|error| error.kind()));
    attempt("map", sys::numbers(libc::SYS_mmap, &[0, 4096, libc::PROT_READ.into(), libc::MAP_SHARED.into(), fd, 0]));
    attempt("seek", sys::numbers(libc::SYS_lseek, &[fd, 0, libc::SEEK_SET.into()]));
    0
}

/// What a file is, but for the time of its last reading.
fn state(file: &File) -> (Vec<u8>, u32, SystemTime, u64) {
    let metadata = file.metadata().unwrap();
    let mut whole = vec![0; metadata.len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut whole, 0).unwrap();
    (whole, metadata.mode(), metadata.modified().unwrap(), metadata.len())
}

const CONTENTS: &str = "0123456789";
const HARMS: &[&str] = &["write", "truncate by path", "chmod", "chmod by path", "times"];

/// A file that was last changed an hour ago.
fn file_with(path: &Path, mode: u32) -> File {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path).unwrap();
    (&file).write_all(CONTENTS.as_bytes()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    file
}

/// Sandboxes, and the program by which payloads run in each.
fn sandboxes() -> Vec<(&'static str, Sandbox, Command)> {
    vec![
        ("default", sandbox(), Command::new("/payload")),
        ("unfiltered", unfiltered(&sandbox()), Command::new("/payload")),
        (
            "without mounts",
            Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::MOUNT).root(Root::inherit()),
            Command::new(own_path()),
        ),
        ("bare", bare(), Command::new(own_path())),
    ]
}

/// Runs a payload on a descriptor as standard input, and as descriptor 7.
fn on_descriptor(sandbox: &Sandbox, command: &Command, name: &str, fd: impl Fn() -> OwnedFd) -> [Attempts; 2] {
    let with = |number: &str| {
        let mut command = command.clone();
        command.args(["--payload", name, number]);
        command
    };
    [attack_as(sandbox, with("0").stdin(Stdio::from(fd()))), attack_as(sandbox, with("7").fd(7, fd()))]
}

/// Attack 46: A file that is open for reading is opened again for writing, truncated, given another mode, other times,
/// an attribute.
#[apply(test)]
fn read_only_files_stay_read_only() {
    let place = shared_dir();
    let path = |name: &str| place.path().join(name);
    // What works without the sandbox.
    let victim = file_with(&path("victim"), 0o644);
    let done = attack_by(payload_on_host("abuse").arg("0").stdin(File::open(path("victim")).unwrap()));
    done.assert_done(HARMS);
    assert_ne!(state(&victim).0, CONTENTS.as_bytes(), "the attack works on a descriptor that is shared");

    for (number, (kind, sandbox, command)) in sandboxes().iter().enumerate() {
        for mode in [0o644, 0o600] {
            let path = path(&format!("{number} {mode:o}"));
            let file = file_with(&path, mode);
            let before = state(&file);
            let opened = File::open(&path).unwrap();
            (&opened).seek(SeekFrom::Start(3)).unwrap();
            let fd = || OwnedFd::from(opened.try_clone().unwrap());
            for attempts in on_descriptor(sandbox, command, "abuse", fd) {
                attempts.assert_refused(&["write to it", "overwrite", "truncate", "truncate by path", "map"]);
                // A copy has a mode and times of its own.
                if unless_mount_setattr().is_none() {
                    attempts.assert_refused(HARMS);
                    attempts.assert_refused(&["attribute"]);
                }
            }
            assert_eq!(state(&file), before, "{kind}, {mode:o}");
            for attempts in on_descriptor(sandbox, command, "read", fd) {
                attempts.assert_done(&["map", "seek"]);
                assert_eq!(attempts.get("rest"), r#""3456789""#, "{kind}, {mode:o}");
                assert_eq!(attempts.get("by path"), r#"Ok("0123456789")"#, "{kind}, {mode:o}");
            }
            assert_eq!((&opened).stream_position().unwrap(), 3, "the program's offset is its own");
        }
    }
    // Files without a path are copied.
    let deleted = file_with(&path("deleted"), 0o644);
    let for_reading = File::open(path("deleted")).unwrap();
    fs::remove_file(path("deleted")).unwrap();
    let memory = |seals| {
        let memory = File::from(memfd_create(c"memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap());
        (&memory).write_all(CONTENTS.as_bytes()).unwrap();
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        let for_reading = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory))).unwrap();
        (memory, for_reading)
    };
    let (open, open_for_reading) = memory(SealFlag::empty());
    // It can still be truncated.
    let (sealed, sealed_for_reading) = memory(SealFlag::F_SEAL_WRITE);
    for (kind, file, opened) in [
        ("deleted", deleted, for_reading),
        ("memfd", open, open_for_reading),
        ("half sealed", sealed, sealed_for_reading),
    ] {
        let before = state(&file);
        for attempts in
            on_descriptor(&sandbox(), &Command::new("/payload"), "abuse", || opened.try_clone().unwrap().into())
        {
            attempts.assert_refused(&["overwrite", "truncate", "write to it"]);
            attempts.assert_done(&["read"]);
        }
        assert_eq!(state(&file), before, "{kind}");
    }
}

/// Descriptors that have the inode, the flags and the offset of another one are descriptors of their own.
#[apply(test)]
fn descriptors_are_not_taken_for_each_other() {
    let place = shared_dir();
    let path = place.path().join("file");
    file_with(&path, 0o644);
    let (one, other) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    let read = |fds: [&File; 2]| {
        let mut command = script("head -c 3 <&5; head -c 3 <&6");
        let [five, six] = fds.map(|file| OwnedFd::from(file.try_clone().unwrap()));
        text(&sandbox().output(command.fd(5, five).fd(6, six)).unwrap().stdout)
    };
    assert_eq!(read([&one, &one]), "012345", "copies of one share their offset");
    assert_eq!(read([&one, &other]), "012012");
}

/// Attack 46: A file that is larger than what is copied is opened through a mount.
#[apply(test)]
#[skip(unless_mount_setattr)]
fn large_read_only_files_stay_read_only() {
    let place = shared_dir();
    let path = place.path().join("large");
    let file = file_with(&path, 0o600);
    file.set_len(1 << 30).unwrap();
    let (modified, mode) = (file.metadata().unwrap().modified().unwrap(), file.metadata().unwrap().mode());
    for attempts in on_descriptor(&sandbox(), &Command::new("/payload"), "abuse", || File::open(&path).unwrap().into())
    {
        attempts.assert_refused(HARMS);
    }
    let now = file.metadata().unwrap();
    assert_eq!((now.modified().unwrap(), now.mode(), now.len()), (modified, mode, 1 << 30));
}

/// Attack 46: A file that can neither be opened through a mount nor be copied stays shared, and that is reported.
#[apply(test)]
#[only(User)]
fn a_file_that_stays_writable_is_reported() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let reading = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    let outcome = sandbox().status(Command::new("/bin/true").stdin(reading)).unwrap();
    assert!(!outcome.enforcement.is_active(Layer::Descriptors));
    let lost = &outcome.enforcement.unenforced[0];
    assert_eq!(lost.layer, Layer::Descriptors);
    assert!(lost.reason.contains("standard input") && lost.reason.contains("16 MiB"), "{lost:?}");
    let outcome = sandbox().status(Command::new("/bin/true").stdin(Stdio::null())).unwrap();
    assert!(outcome.enforcement.is_active(Layer::Descriptors) || !outcome.enforcement.unenforced.is_empty());
}

fn log(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// Attack 46: A log that is open for appending is truncated, or written to at its start.
#[apply(test)]
fn append_only_files_stay_append_only() {
    let place = shared_dir();
    let path = place.path().join("log");
    let file = file_with(&path, 0o600);
    let done = attack_by(payload_on_host("abuse").arg("2").stderr(log(&path)));
    done.assert_done(&["append", "overwrite", "truncate"]);
    assert_ne!(state(&file).0, CONTENTS.as_bytes());
    fs::write(&path, CONTENTS).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();

    for (kind, sandbox, command) in sandboxes() {
        for number in ["2", "7"] {
            let mut command = command.clone();
            command.args(["--payload", "abuse", number]).fd(number.parse().unwrap(), log(&path));
            attack_as(&sandbox, &command).assert_refused(&["overwrite", "truncate"]);
            let now = fs::read_to_string(&path).unwrap();
            assert!(now.starts_with(CONTENTS), "{kind}: {now:?}");
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{kind}");
            assert!(fcntl(log(&path), FcntlArg::F_GETFL).unwrap() & libc::O_APPEND != 0);
        }
    }
    let both = File::options().read(true).append(true).open(&path).unwrap();
    let error = sandbox().spawn(Command::new("/bin/true").stdout(both)).unwrap_err();
    assert!(error.to_string().contains("open it twice"), "{error}");
}

/// Attack 46: A file that is open for writing is read, truncated, or given another mode.
#[apply(test)]
fn write_only_files_stay_write_only() {
    let place = shared_dir();
    let path = place.path().join("out");
    let file = file_with(&path, 0o600);
    let open = || {
        let mut file = File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        file
    };
    attack_by(payload_on_host("abuse").arg("2").stderr(open())).assert_done(&["read", "truncate", "chmod"]);
    fs::write(&path, CONTENTS).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    for (kind, sandbox, command) in sandboxes() {
        let mut command = command.clone();
        command.args(["--payload", "abuse", "2"]).stderr(open());
        let output = sandbox.output(&command).unwrap();
        let attempts = Attempts::parse(&text(&output.stdout));
        attempts.assert_refused(&["overwrite", "truncate"]);
        let now = fs::read_to_string(&path).unwrap();
        assert!(now.starts_with("0123") && now.len() == CONTENTS.len(), "{kind}: {now:?}");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{kind}");
    }
    // The offset is the caller's.
    let mut shared = File::options().write(true).truncate(true).open(&path).unwrap();
    shared.write_all(b"before ").unwrap();
    assert!(
        sandbox().status(Command::new("echo").arg("inside").stdout(shared.try_clone().unwrap())).unwrap().success()
    );
    shared.write_all(b"after").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before inside\nafter");
}

fn script(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    command
}

#[apply(test)]
fn output_is_in_the_file_when_wait_returns() {
    let place = shared_dir();
    let path = place.path().join("out");
    let without_pids = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    for sandbox in [Sandbox::new(), without_pids] {
        for _ in 0..rounds(20) {
            let file = File::create(&path).unwrap();
            let outcome = sandbox.status(script("head -c 3000000 /dev/zero; echo end").stdout(file)).unwrap();
            assert!(outcome.success(), "{outcome}");
            let bytes = fs::read(&path).unwrap();
            assert_eq!((bytes.len(), &bytes[bytes.len() - 4..]), (3_000_004, b"end\n".as_slice()));
        }
        // A writer that does not end is killed.
        let file = File::create(&path).unwrap();
        let limits = Limits::new().wall_time(Duration::from_millis(200));
        let outcome = sandbox.clone().limits(limits).status(script("while :; do echo y; done").stdout(file)).unwrap();
        assert_eq!(outcome.termination, stockade::Termination::WallTime);
        // Dropping a child writes what it has written.
        let mut child =
            sandbox.spawn(script("echo dropped; exec sleep 100").stdout(File::create(&path).unwrap())).unwrap();
        std::thread::sleep(at_most(Duration::from_millis(200)));
        child.kill().unwrap();
        drop(child);
        assert_eq!(fs::read_to_string(&path).unwrap(), "dropped\n");
    }
}

#[apply(test)]
fn output_of_both_streams_to_one_file_stays_in_order() {
    let place = shared_dir();
    let path = place.path().join("out");
    for how in [OpenOptions::new().append(true).create(true), OpenOptions::new().write(true).create(true)] {
        let _ = fs::remove_file(&path);
        let file = how.open(&path).unwrap();
        let mut command = script("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done");
        command.stdout(file.try_clone().unwrap()).stderr(file);
        assert!(Sandbox::new().status(&command).unwrap().success());
        let expected: String = (1..=5).map(|i| format!("out {i}\nerr {i}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}

#[apply(test)]
fn output_that_cannot_be_copied_is_reported() {
    let place = shared_dir();
    let path = place.path().join("out");
    let sandbox = Sandbox::new().limits(Limits::new().rlimit(Resource::Fsize, 100_000, 100_000));
    let outcome = sandbox.status(script("head -c 1000000 /dev/zero").stdout(File::create(&path).unwrap())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 100_000, "RLIMIT_FSIZE holds for what is copied");
    assert!(!outcome.enforcement.is_active(Layer::Descriptors));
    assert!(outcome.enforcement.unenforced.iter().any(|lost| lost.reason.contains("standard output")), "{outcome:?}");
}

/// Attack 46: A directory is handed in, from which `..` leads out of the root.
#[apply(test)]
fn descriptors_that_lead_out_of_the_sandbox_are_refused() {
    let place = shared_dir();
    let path_only = |path: &Path| File::options().read(true).custom_flags(libc::O_PATH).open(path).unwrap();
    file_with(&place.path().join("file"), 0o644);
    // A program of the host gets out by it.
    let mut host = std::process::Command::new("/bin/sh");
    host.args(["-c", "cat /proc/self/fd/0/file"]).stdin(File::open(place.path()).unwrap());
    assert_eq!(crate::attacks::common::host_output(&mut host), CONTENTS);
    let refused = [
        (File::open(place.path()).unwrap(), "a directory", "Root::bind"),
        (path_only(place.path()), "a directory", "Root::bind"),
        (path_only(&place.path().join("file")), "O_PATH", "open it for reading"),
        (File::open("/proc/self/ns/mnt").unwrap(), "a namespace", "Sandbox::join"),
    ];
    for (file, what, remedy) in refused {
        for sandbox in [sandbox(), bare()] {
            let mut commands = [Command::new("/bin/true"), Command::new("/bin/true")];
            commands[0].stdin(file.try_clone().unwrap());
            commands[1].fd(7, file.try_clone().unwrap());
            for (command, name) in commands.iter().zip(["standard input", "descriptor 7"]) {
                let error = sandbox.spawn(command).unwrap_err().to_string();
                assert!([name, what, remedy].iter().all(|part| error.contains(part)), "{error}");
            }
        }
    }
}

/// Sets a flag of each of its standard streams.
fn share_flags(_: &[String]) -> i32 {
    for fd in 0..3 {
        attempt(
            &format!("flag {fd}"),
            sys::numbers(libc::SYS_fcntl, &[fd, libc::F_SETFL.into(), libc::O_NONBLOCK.into()]),
        );
    }
    0
}

fn is_blocking(fd: impl AsFd) -> bool {
    !OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

/// Attack 46: `O_NONBLOCK` is set for the pipes and terminals of the caller.
#[apply(test)]
fn flags_of_pipes_and_terminals_are_not_shared() {
    let (input, _writer) = std::io::pipe().unwrap();
    let (_reader, output) = std::io::pipe().unwrap();
    let pty = openpty(None, None).unwrap();
    let place = shared_dir();
    let fifo = place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let fifo = File::options().read(true).write(true).open(&fifo).unwrap();
    let host = |fd: OwnedFd| attack_by(payload_on_host("share_flags").stdin(HostStdio::from(fd)));
    for fd in [input.as_fd(), pty.slave.as_fd(), fifo.as_fd()] {
        host(fd.try_clone_to_owned().unwrap()).assert_done(&["flag 0"]);
        assert!(!is_blocking(fd), "the attack works on a descriptor that is shared");
        fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    }
    for (kind, sandbox, command) in sandboxes() {
        for (fd, number) in
            [(input.as_fd(), 0), (output.as_fd(), 2), (pty.slave.as_fd(), 0), (pty.slave.as_fd(), 2), (fifo.as_fd(), 0)]
        {
            let mut command = command.clone();
            command.args(["--payload", "share_flags"]);
            let owned = Stdio::from(fd.try_clone_to_owned().unwrap());
            if number == 0 {
                command.stdin(owned)
            } else {
                command.stderr(owned)
            };
            attack_as(&sandbox, &command).assert_done(&[&format!("flag {number}")]);
            assert!(is_blocking(fd), "{kind}: descriptor {number}");
        }
    }
}

/// Turns the echo of its terminal off.
fn change_modes(_: &[String]) -> i32 {
    let mut modes = tcgetattr(std::io::stdin()).unwrap();
    modes.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
    attempt("modes", tcsetattr(std::io::stdin(), SetArg::TCSANOW, &modes));
    0
}

/// Attack 46: The modes of the caller's terminal are changed.
#[apply(test)]
fn modes_of_a_terminal_are_restored() {
    let pty = openpty(None, None).unwrap();
    let modes = || tcgetattr(&pty.slave).unwrap();
    let before = modes();
    attack_by(payload_on_host("change_modes").stdin(HostStdio::from(pty.slave.try_clone().unwrap())))
        .assert_done(&["modes"]);
    assert_ne!(modes(), before, "the attack works on a terminal");
    tcsetattr(&pty.slave, SetArg::TCSANOW, &before).unwrap();
    for (kind, sandbox, command) in sandboxes() {
        let mut command = command.clone();
        command.args(["--payload", "change_modes"]).stdin(pty.slave.try_clone().unwrap());
        attack_as(&sandbox, &command).assert_done(&["modes"]);
        assert_eq!(modes(), before, "{kind}");
        // Also if nobody waits for it.
        let mut child = sandbox.spawn(command.stdout(Stdio::piped())).unwrap();
        child.stdout.take().unwrap().read_to_string(&mut String::new()).unwrap();
        drop(child);
        assert_eq!(modes(), before, "{kind}: dropped");
    }
}

#[apply(test)]
fn standard_streams_can_be_opened_again() {
    let place = shared_dir();
    let path = |name: &str| place.path().join(name);
    for mode in [0o600, 0o644] {
        let input = path(&format!("in {mode:o}"));
        file_with(&input, mode);
        for name in ["pipe", "file", "log", "piped", "null"] {
            let out = path(&format!("{name} {mode:o}"));
            let mut command = script("cat /dev/stdin; echo out > /dev/stdout && echo err > /dev/stderr");
            command.stdin(File::open(&input).unwrap());
            let (mut reader, writer) = std::io::pipe().unwrap();
            let mut expected = format!("{CONTENTS}out\n");
            match name {
                "pipe" => command.stdout(writer.try_clone().unwrap()).stderr(writer),
                "file" => command.stdout(file_to_write(&out)).stderr(writer),
                "log" => {
                    file_to_write(&out);
                    command.stdout(log(&out)).stderr(writer)
                }
                "piped" => command.stdout(writer).stderr(Stdio::null()),
                _ => command.stdout(Stdio::null()).stderr(writer),
            };
            let outcome = Sandbox::new().status(&command).unwrap();
            assert!(outcome.success(), "{name}: {outcome}");
            drop(command);
            let mut read = String::new();
            reader.read_to_string(&mut read).unwrap();
            match name {
                "pipe" => expected += "err\n",
                "file" | "log" => {
                    assert_eq!(read, "err\n");
                    read = fs::read_to_string(&out).unwrap();
                }
                "null" => expected = "err\n".into(),
                _ => {}
            }
            assert_eq!(read, expected, "{name}, {mode:o}");
        }
    }
    // Also a pipe as standard input.
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"by a pipe").unwrap();
    drop(writer);
    let output = Sandbox::new().output(script("cat < /dev/stdin").stdin(reader)).unwrap();
    assert_eq!(text(&output.stdout), "by a pipe", "{output:?}");
    assert_eq!(text(&sh(&Sandbox::new(), "echo out > /dev/stdout").stdout), "out");
}

fn file_to_write(path: &Path) -> File {
    File::options().write(true).create_new(true).mode(0o600).open(path).unwrap()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap_or_default();
            name.starts_with("stockade-relay")
        })
        .count()
}

/// In a process of its own, where no other test opens a descriptor or starts a relay.
#[apply(test)]
fn repeated_runs_leave_no_descriptor_and_no_thread() {
    on_host(&[], "run_repeatedly", &[]);
}

fn run_repeatedly(_: &[String]) -> i32 {
    let place = shared_dir();
    let path = place.path().join("file");
    file_with(&path, 0o600);
    let pty = openpty(None, None).unwrap();
    let _ = descriptors();
    let run = |program: &str| {
        let mut command = Command::new(program);
        command.stdin(File::open(&path).unwrap()).stdout(log(&path)).stderr(pty.slave.try_clone().unwrap());
        Sandbox::new().status(&command).is_ok()
    };
    for _ in 0..rounds(10) {
        assert!(run("/bin/true"));
        assert!(!run("/does/not/exist"));
    }
    let ours = descriptors().into_iter().filter(|(_, target)| target == &path).count();
    assert_eq!(ours, 0, "{:?}", descriptors());
    let deadline = std::time::Instant::now() + at_most(Duration::from_secs(5));
    while threads() > 0 {
        assert!(std::time::Instant::now() < deadline, "a thread stays");
        std::thread::sleep(Duration::from_millis(10));
    }
    0
}
