//! What the caller opens inside a session: files, and sockets of both sides.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;

use stockade::seccomp::SystemCall;
use stockade::{Command, Errno, ErrorKind, Root, Sandbox, Seccomp, Stdio, Termination};

use super::{MS, script, session, start, stdout};
use crate::support::{at_most, payload, text, with_payload};

payloads![("served", served), ("serving", serving)];

#[apply(test)]
fn the_caller_places_and_reads_files() {
    let session = session();
    session.create("/tmp/input").unwrap().write_all(b"placed").unwrap();
    // It belongs to the user of the programs, who may change it.
    assert_eq!(
        stdout(&session, "stat -c '%a %u' /tmp/input; id -u; cat /tmp/input; echo changed > /tmp/input"),
        "644 1000\n1000\nplaced"
    );
    let mut read = String::new();
    session.open("/tmp/input").unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "changed\n");
    // A program can be placed, and a relative path begins at the root.
    let file = session.create("tmp/program").unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
    { file }.write_all(b"#!/bin/sh\necho placed program\n").unwrap();
    assert_eq!(stdout(&session, "/tmp/program"), "placed program");
    // A file that exists is truncated.
    session.create("/tmp/input").unwrap().write_all(b"x").unwrap();
    assert_eq!(stdout(&session, "cat /tmp/input"), "x");
}

#[apply(test)]
fn paths_are_resolved_inside_with_the_rights_of_the_programs() {
    let dir = crate::support::shared_dir();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let session = session();
    let link = format!(
        "ln -s {} /tmp/link; ln -s ../../../../../etc/hostname /tmp/up; ln -s /proc/self/root /tmp/magic",
        secret.display()
    );
    stdout(&session, &link);
    // On the host the same path has a file.
    assert!(secret.exists());
    let error = session.open("/tmp/link").expect_err("the sandbox has no such file");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::ENOENT)), "{error}");
    let mut inside = String::new();
    session.open("/tmp/up").unwrap().read_to_string(&mut inside).unwrap();
    assert_eq!(inside.trim_end(), stdout(&session, "cat /etc/hostname"));
    let error = session.open("/tmp/magic/etc/hostname").expect_err("a magic link");
    assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
    for path in ["/usr/created", "/etc/passwd"] {
        let error = session.create(path).expect_err("the root is read-only");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(matches!(error.errno(), Some(Errno::EROFS | Errno::EACCES)), "{error}");
    }
}

#[apply(test)]
fn what_is_no_regular_file_is_an_error_and_blocks_nobody() {
    let session = session();
    stdout(&session, "mkfifo /tmp/fifo; mkdir /tmp/directory; ln -s /dev/null /tmp/device");
    for path in ["/tmp/fifo", "/dev/zero", "/tmp/device", "/dev/ptmx"] {
        let error = session.open(path).expect_err("no regular file");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        session.create(path).expect_err("no regular file");
    }
    // A directory can be opened for reading, and is none to read.
    session.open("/tmp/directory").expect_err("a directory");
    session.create("/tmp/directory").expect_err("a directory");
    for path in ["", "/tmp/zero\0byte"] {
        session.open(path).expect_err("no path");
    }
    assert_eq!(stdout(&session, "echo works"), "works");
}

/// A program that connects to the caller: by TCP, and to a UNIX socket.
fn served(args: &[String]) -> i32 {
    let mut said = String::new();
    std::net::TcpStream::connect(&*args[0]).expect("a connection").read_to_string(&mut said).expect("words");
    std::os::unix::net::UnixStream::connect(&args[1]).expect("a connection").read_to_string(&mut said).expect("words");
    println!("{said}");
    0
}

/// A program to which the caller connects.
fn serving(args: &[String]) -> i32 {
    let tcp = std::net::TcpListener::bind(&*args[0]).expect("an address");
    let unix = std::os::unix::net::UnixListener::bind(&args[1]).expect("a path");
    println!("listens");
    tcp.accept().expect("a connection").0.write_all(b"by TCP").expect("words");
    unix.accept().expect("a connection").0.write_all(b"by a path").expect("words");
    0
}

#[apply(test)]
fn the_caller_serves_programs() {
    let session = session();
    for address in ["127.0.0.1:8080", "[::1]:8081"] {
        let tcp = session.listen_tcp(address.parse().unwrap()).unwrap();
        assert_eq!(tcp.local_addr().unwrap().to_string(), address);
        // The same address is free outside, or taken by somebody else.
        let path = format!("/tmp/socket-{}", tcp.local_addr().unwrap().port());
        let unix = session.listen_unix(&path).unwrap();
        let serve = thread::spawn(move || {
            tcp.accept().unwrap().0.write_all(b"one ").unwrap();
            unix.accept().unwrap().0.write_all(b"two").unwrap();
        });
        let output = session.output(payload("served").args([address, &path])).unwrap();
        assert_eq!(text(&output.stdout), "one two", "{}", text(&output.stderr));
        serve.join().unwrap();
    }
    let free = session.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_ne!(free.local_addr().unwrap().port(), 0);
}

#[apply(test)]
fn the_caller_uses_servers_inside() {
    let session = session();
    let mut command = payload("serving");
    let mut child = session.spawn(command.args(["127.0.0.1:8080", "/tmp/server"]).stdout(Stdio::piped())).unwrap();
    let mut ready = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let mut said = String::new();
    session.connect_tcp("127.0.0.1:8080".parse().unwrap()).unwrap().read_to_string(&mut said).unwrap();
    session.connect_unix("/tmp/server").unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "by TCPby a path");
    assert!(child.wait().unwrap().success());
}

#[apply(test)]
fn addresses_that_cannot_be_had_are_errors() {
    let session = session();
    let address = "127.0.0.1:8080".parse().unwrap();
    let error = session.connect_tcp(address).expect_err("nobody listens");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::ECONNREFUSED)), "{error}");
    let first = session.listen_tcp(address).unwrap();
    let error = session.listen_tcp(address).expect_err("it is taken");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::EADDRINUSE)), "{error}");
    // Another session has it too: each has a network of its own.
    let other = start(&Sandbox::new());
    other.listen_tcp(address).unwrap();
    drop(first);
    session.listen_tcp(address).unwrap();
    let error = session.listen_tcp("127.0.0.1:80".parse().unwrap()).expect_err("a port of root's");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::EACCES)), "{error}");
    for path in ["x".repeat(108), String::new(), "/tmp/a\0b".into()] {
        let error = session.listen_unix(&path).expect_err("no path of a socket");
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    }
    let error = session.listen_unix("/usr/socket").expect_err("the root is read-only");
    assert!(matches!(error.errno(), Some(Errno::EROFS | Errno::EACCES)), "{error}");
    let error = session.connect_unix("/tmp/missing").expect_err("no socket");
    assert_eq!(error.errno(), Some(Errno::ENOENT), "{error}");
    assert_eq!(stdout(&session, "echo works"), "works");
}

/// Files of the kernel ask who reads and writes them what they may do: that would be the caller.
#[apply(test)]
fn files_of_the_kernel_are_not_opened_for_the_caller() {
    let session = session();
    stdout(
        &session,
        "ln -s /proc/self/autogroup /tmp/input; ln -s /proc/self/pagemap /tmp/output; ln -s /proc/version /tmp/version",
    );
    for path in ["/tmp/input", "/tmp/output", "/tmp/version", "/proc/self/status", "/sys/devices/system/cpu/online"] {
        let error = session.open(path).expect_err("a file of the kernel");
        assert_eq!(error.kind(), ErrorKind::Io, "{path}: {error}");
        let error = session.create(path).expect_err("a file of the kernel");
        assert_eq!(error.kind(), ErrorKind::Io, "{path}: {error}");
    }
    let error = session.open("/tmp/version").expect_err("a file of the kernel");
    assert!(error.to_string().contains("data of the kernel"), "{error}");
}

#[apply(test)]
fn errors_of_files_and_sockets_say_what_to_do_inside() {
    let session = session();
    let hint = |error: stockade::Error| error.hint().unwrap_or_default().to_owned();
    assert!(hint(session.open("/tmp/missing").expect_err("no file")).contains("by a command"));
    assert!(hint(session.create("/tmp").expect_err("a directory")).contains("directory"));
    assert!(hint(session.open("").expect_err("no path")).contains("inside"));
    let _listener = session.listen_unix("/tmp/socket").unwrap();
    assert!(hint(session.listen_unix("/tmp/socket").expect_err("it is taken")).contains("remove the file"));
    let other = "10.1.2.3:8080".parse().unwrap();
    assert!(hint(session.listen_tcp(other).expect_err("no interface has it")).contains("127.0.0.1"));
}

/// A server that accepts nothing keeps the caller only until the deadline of the set-up.
#[apply(test)]
fn a_server_that_does_not_accept_is_an_error_in_time() {
    let session = start(&Sandbox::new().setup_timeout(at_most(2000 * MS)));
    let _listener = session.listen_unix("/tmp/socket").unwrap();
    // As many as the kernel keeps for the listener are connected at once.
    let mut connected = vec![];
    let error = loop {
        match session.connect_unix("/tmp/socket") {
            Ok(stream) => connected.push(stream),
            Err(error) => break error,
        }
        assert!(connected.len() < 1000);
    };
    assert!(connected.len() > 100, "{}", connected.len());
    assert_eq!(error.kind(), ErrorKind::SetupTimedOut, "{error}");
    assert!(error.to_string().contains("accept connections"), "{error}");
    assert_eq!(stdout(&session, "echo works"), "works");
}

/// A policy that lets a program do next to nothing restricts neither the set-up of a command nor what the caller opens. Each
/// command is killed for its own calls.
#[apply(test)]
fn a_strict_policy_restricts_the_programs_alone() {
    let session = start(&Sandbox::new().root(with_payload(Root::host())).seccomp(Seccomp::pure_computation()));
    for _ in 0..3 {
        session.create("/tmp/input").unwrap().write_all(b"placed").unwrap();
        session.listen_tcp("127.0.0.1:8080".parse().unwrap()).unwrap();
        let mut waiting = Command::new("cat");
        let mut waiting = session.spawn(waiting.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
        // A program may make no directory here.
        let outcome = session.status(Command::new("mkdir").arg("/tmp/made").stdin(Stdio::null())).unwrap();
        let call = SystemCall::named("mkdir").expect("a call");
        assert_eq!(outcome.termination, Termination::Syscall(call), "{outcome}");
        assert_eq!(outcome.violations.len(), 1, "{outcome}");
        let mut command = Command::new("cat");
        let output = session.output(command.arg("input").current_dir("/tmp")).unwrap();
        assert_eq!(text(&output.stdout), "placed", "{}", output.outcome);
        assert_eq!(output.outcome.violations, []);
        waiting.stdin.take().unwrap().write_all(b"waited").unwrap();
        let output = waiting.wait_with_output().unwrap();
        assert_eq!((text(&output.stdout), output.outcome.success()), ("waited".into(), true), "{}", output.outcome);
    }
}

/// What is recorded belongs to the command that has made the call.
#[apply(test)]
fn denied_calls_are_recorded_for_the_command_that_made_them() {
    let session = start(&Sandbox::new().seccomp(Seccomp::new().record()));
    for _ in 0..2 {
        let denied = session.output(script("unshare -U true; setsid sh -c 'unshare -m true; sleep 0.1'")).unwrap();
        assert!(denied.outcome.violations.len() >= 2, "{}", denied.outcome);
        let clean = session.output(script("true")).unwrap();
        assert_eq!(clean.outcome.violations, [], "{}", clean.outcome);
    }
}

#[apply(test)]
fn a_file_of_the_host_keeps_its_owner() {
    let dir = crate::support::shared_dir();
    let root = Root::host().bind_rw(dir.path(), "/work");
    let session = match Sandbox::new().root(root).start() {
        Ok(session) => session,
        Err(error) if crate::support::unless_idmapped_mounts().is_some() => return println!("not tested: {error}"),
        Err(error) => panic!("{error}"),
    };
    session.create("/work/file").unwrap().write_all(b"placed").unwrap();
    let metadata = dir.path().join("file").metadata().unwrap();
    assert_eq!(metadata.uid(), nix::unistd::geteuid().as_raw());
}
