//! Sessions: one sandbox for many commands. Those with a cgroup are tested in `cgroups/sessions.rs`.

mod attacks;
mod inside;
mod life;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use stockade::outcome::GapKind;
use stockade::{
    Command, Errno, ErrorKind, Limits, Namespaces, Root, Sandbox, Seccomp, Session, Signal, Stdio, Termination,
};

use crate::support::{at_most, eventually, payload, processes, rounds, text, with_payload};

const MS: Duration = Duration::from_millis(1);

fn start(sandbox: &Sandbox) -> Session {
    sandbox.start().unwrap_or_else(|error| panic!("{error}"))
}

/// A session in which the payloads of this binary can be executed.
fn session() -> Session {
    start(&Sandbox::new().root(with_payload(Root::host())))
}

fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// What a script writes to standard output in a session. It must succeed.
#[track_caller]
fn stdout(session: &Session, text_of_script: &str) -> String {
    let output = session.output(script(text_of_script)).unwrap_or_else(|error| panic!("{text_of_script:?}: {error}"));
    assert!(output.outcome.success(), "{text_of_script:?}: {}, {}", output.outcome, text(&output.stderr));
    text(&output.stdout)
}

/// The number of processes of a session with a name.
#[track_caller]
fn named(session: &Session, name: &str) -> usize {
    stdout(session, "cat /proc/[0-9]*/comm 2>/dev/null || :").lines().filter(|line| *line == name).count()
}

#[apply(test)]
fn files_and_processes_stay_between_commands() {
    let session = session();
    assert_eq!(stdout(&session, "echo kept > /tmp/file; sleep 1000 >/dev/null 2>&1 & echo $!"), "3");
    assert_eq!(stdout(&session, "cat /tmp/file; test -d /proc/3 && echo runs"), "kept\nruns");
    assert_eq!(stdout(&session, "kill 3; while test -d /proc/3; do sleep 0.01; done; echo gone"), "gone");
    // Each sandbox of its own has neither.
    let sandbox = Sandbox::new();
    assert!(!sandbox.status(script("test -e /tmp/file")).unwrap().success());
}

#[apply(test)]
fn a_background_process_delays_neither_outcome_nor_output() {
    let session = session();
    let start = Instant::now();
    let output = session.output(script("echo first; sleep 1000 & exit 4")).unwrap();
    assert_eq!((output.outcome.termination, text(&output.stdout)), (Termination::Exited(4), "first".into()));
    assert!(start.elapsed() < at_most(5000 * MS), "{:?}", start.elapsed());
    // The shell does not wait until what it forked has executed its program.
    eventually("the background process runs", || named(&session, "sleep") == 1);
}

#[apply(test)]
fn commands_run_at_once_and_each_has_its_own_outcome() {
    let session = session();
    thread::scope(|scope| {
        for thread in 0..4 {
            let session = &session;
            scope.spawn(move || {
                for round in 0..rounds(25) as i32 {
                    let code = (thread * 60 + round % 60) % 256;
                    let output = session.output(script(&format!("echo {code}; exit {code}"))).unwrap();
                    assert_eq!(output.outcome.termination, Termination::Exited(code));
                    assert_eq!(text(&output.stdout), code.to_string());
                }
            });
        }
    });
    let mut children: Vec<_> = (0..20).map(|_| session.spawn(Command::new("sleep").arg("0.2")).unwrap()).collect();
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    assert_eq!(
        session.status(script("kill -SEGV $$")).unwrap().termination,
        Termination::signaled(Signal::SEGV, false)
    );
}

#[apply(test)]
fn each_command_has_the_limits_of_the_sandbox() {
    let limits = Limits::new().wall_time(300 * MS).stdout_max(1000).rlimit(stockade::limits::Resource::Nofile, 33, 33);
    let session = start(&Sandbox::new().limits(limits));
    for _ in 0..2 {
        let background = session.spawn(script("sleep 1000 & wait")).unwrap();
        let group = background.pid();
        let outcome = { background }.wait().unwrap();
        assert_eq!(outcome.termination, Termination::WallTime);
        assert!((300 * MS..at_most(1000 * MS)).contains(&outcome.usage.wall_time), "{outcome}");
        let in_group = format!("/proc/{}", group.number());
        eventually("the killed command is reaped", || !std::path::Path::new(&in_group).exists());
        let flood = session.output(script("while :; do echo 0123456789; done")).unwrap();
        assert_eq!((flood.outcome.termination, flood.stdout.len()), (Termination::Output, 1000));
        assert_eq!(stdout(&session, "ulimit -n"), "33");
    }
    // What the killed commands had started in their process groups was killed with them.
    eventually("all of the commands is killed", || named(&session, "sleep") == 0);
}

/// A program that exits when a limit asks it to is killed with what it has started, as one that does not.
#[apply(test)]
fn a_limit_with_a_grace_period_kills_what_a_command_has_started() {
    let limits = Limits::new().wall_time(200 * MS).kill_grace(at_most(20_000 * MS));
    let session = start(&Sandbox::new().limits(limits));
    let argument = format!("300000.{}", std::process::id());
    for last in ["wait", "trap 'exit 0' TERM; wait"] {
        let outcome = session.status(script(&format!("sleep {argument} & {last}")).stdin(Stdio::null())).unwrap();
        assert_eq!(outcome.termination, Termination::WallTime, "{last}");
        eventually("the background process is killed", || processes(|line| line.contains(&argument)).is_empty());
    }
}

#[apply(test)]
fn killing_a_command_leaves_the_session() {
    let session = session();
    let mut child = session.spawn(script("sleep 1000 & sleep 1000")).unwrap();
    let mut other = session.spawn(Command::new("head").stdin(Stdio::piped())).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    drop(session.spawn(Command::new("sleep").arg("1001")).unwrap());
    eventually("all of the command is killed", || named(&session, "sleep") == 0);
    assert_eq!(named(&session, "head"), 1);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
}

#[apply(test)]
fn a_command_has_arguments_environment_directory_streams_and_descriptors() {
    let session = start(&Sandbox::new().env("OF_SANDBOX", "1").hostname("named"));
    let mut command = script("read line; echo $line $1 $OF_SANDBOX $OWN $PWD $(hostname); cat <&7; echo error >&2");
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"by descriptor\n").unwrap();
    drop(write);
    command
        .args(["sh", "argument"])
        .env("OWN", "2")
        .current_dir("/tmp")
        .stdin_bytes("input\n")
        .fd(7, OwnedFd::from(read));
    let output = session.output(&command).unwrap();
    assert_eq!(text(&output.stdout), "input argument 1 2 /tmp named\nby descriptor");
    assert_eq!(text(&output.stderr), "error");
    // No other descriptor is open, and none of the session's helper.
    assert_eq!(stdout(&session, "ls /proc/self/fd | tr '\\n' ' '").trim(), "0 1 2 3");
}

#[apply(test)]
fn a_command_may_be_larger_than_a_message() {
    let session = session();
    for len in [1, 60_000, 100_000] {
        let (long, count) = ("x".repeat(len), 4);
        let mut command = script("echo $# ${#1} ${#LONG}");
        command.arg("sh").args(vec![&*long; count]).env("LONG", &long);
        let output = session.output(&command).unwrap_or_else(|error| panic!("{len}: {error}"));
        assert_eq!(text(&output.stdout), format!("{count} {len} {len}"));
    }
    let mut command = script("echo $#");
    command.arg("sh").args(vec!["argument"; 10_000]);
    assert_eq!(text(&session.output(&command).unwrap().stdout), "10000");
    // The kernel's own limit is an error of the command alone.
    let mut command = script("true");
    command.arg("sh").args(vec!["x".repeat(100_000); 100]);
    let error = session.spawn(&command).expect_err("more than the kernel takes");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::NotExecutable, Some(Errno::E2BIG)), "{error}");
    assert_eq!(stdout(&session, "echo works"), "works");
}

#[apply(test)]
fn a_command_has_a_terminal() {
    let session = session();
    for _ in 0..2 {
        let mut command = script("tty; stty size; echo typed: $(head -n 1)");
        command.pty(24, 80);
        let mut child = session.spawn(&command).unwrap();
        let mut terminal = child.pty.take().expect("a terminal");
        terminal.write_all(b"word\n").unwrap();
        assert!(child.wait().unwrap().success());
        let mut said = vec![];
        terminal.read_to_end(&mut said).unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        for part in ["/dev/pts/", "24 80", "typed: word"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[apply(test)]
fn a_program_that_is_not_there_is_an_error_of_its_command() {
    let session = session();
    let error = session.spawn(Command::new("missing")).expect_err("no such program");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = session.spawn(Command::new("/etc/hostname")).expect_err("no program");
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error}");
    let error = session.spawn(script("true").current_dir("/missing")).expect_err("no such directory");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::SetupFailed, Some(Errno::ENOENT)), "{error}");
    assert!(error.to_string().contains("change the working directory to /missing"), "{error}");
    assert_eq!(stdout(&session, "echo works"), "works");
}

#[apply(test)]
fn what_a_session_cannot_have_is_an_error() {
    let all = Namespaces::all() - Namespaces::TIME;
    let error = Sandbox::new().namespaces(all - Namespaces::PID).start().expect_err("no PID namespace");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    assert!(error.to_string().contains("Namespaces::PID"), "{error}");
    let asking = Seccomp::new().on(["getpid"], stockade::seccomp::Action::Notify);
    let error = Sandbox::new().seccomp(asking).start().expect_err("there is no callback");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    let limits = Limits::new().rlimit(stockade::limits::Resource::Nofile, 9, 5);
    let error = Sandbox::new().limits(limits).start().expect_err("no command could start");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    let session = session();
    let error = session.output(script("true").pty(24, 80)).expect_err("nobody reads the terminal");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    let error = session.freeze().expect_err("there is no cgroup");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
}

#[apply(test)]
fn every_namespace_can_be_entered_from_outside() {
    let session = session();
    let kinds = session.namespaces().iter().fold(Namespaces::empty(), |all, (kind, _)| all | *kind);
    assert_eq!(kinds, Namespaces::all() - Namespaces::TIME);
    let names =
        [(Namespaces::NET, "net"), (Namespaces::MOUNT, "mnt"), (Namespaces::USER, "user"), (Namespaces::PID, "pid")];
    for (kind, name) in names {
        let (_, fd) = session.namespaces().iter().find(|(known, _)| *known == kind).expect("a namespace");
        let inside = stdout(&session, &format!("readlink /proc/self/ns/{name}"));
        let inode = std::fs::File::from(fd.try_clone().unwrap()).metadata().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&inode);
        assert_eq!(inside, format!("{name}:[{inode}]"));
    }
}

#[apply(test)]
fn limits_on_output_that_nobody_collects_are_a_gap_of_the_command() {
    let session = start(&Sandbox::new().limits(Limits::new().stdout_max(10)));
    let mut command = script("true");
    command.stdin(Stdio::null());
    let gaps = session.status(&command).unwrap().enforcement.gaps;
    assert!(gaps.iter().any(|gap| gap.kind == GapKind::Output), "{gaps:?}");
    assert!(session.output(&command).unwrap().outcome.enforcement.gaps.iter().all(|gap| gap.kind != GapKind::Output));
}

#[apply(test)]
fn a_payload_with_threads_runs_in_a_session() {
    let session = session();
    assert_eq!(session.output(payload("restricted")).unwrap().outcome.termination, Termination::Exited(0));
}
