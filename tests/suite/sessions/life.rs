//! The end of a session, and callers that a session must get along with.

use std::io::{BufRead, BufReader};
use std::process::{Command as Host, Stdio as HostStdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::ForkResult;
use stockade::{Command, ErrorKind, Sandbox, Stdio, Termination};

use super::{MS, script, session, start, stdout};
use crate::support::{at_most, children, descriptors, eventually, on_host, own_path, processes, rounds};

payloads![
    ("holds_session", holds_session),
    ("leaves_nothing", leaves_nothing),
    ("forks_with_session", forks_with_session),
    ("session_of_few_descriptors", few_descriptors),
];

/// Processes of the host with this argument.
fn with_argument(argument: &str) -> Vec<i32> {
    processes(|line| line.contains("sleep") && line.contains(argument))
}

fn argument(kind: u32) -> String {
    format!("{}.{kind}{}", 100_000, std::process::id())
}

#[apply(test)]
fn the_end_of_a_session_is_that_of_its_processes() {
    for (kind, end) in (0..).zip([|session| drop(session), |session: stockade::Session| session.kill().unwrap()]) {
        let session = session();
        let argument = argument(kind);
        let mut child = session.spawn(Command::new("sleep").arg(&argument)).unwrap();
        stdout(&session, &format!("setsid sleep {argument} >/dev/null 2>&1 & sleep 0.05"));
        eventually("both run", || with_argument(&argument).len() == 2);
        let begin = Instant::now();
        end(session);
        assert!(begin.elapsed() < at_most(1000 * MS), "{:?}", begin.elapsed());
        assert_eq!(with_argument(&argument), Vec::<i32>::new());
        assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    }
}

#[apply(test)]
fn commands_of_a_session_that_has_ended_are_errors() {
    let session = session();
    session.kill().unwrap();
    session.kill().unwrap();
    for error in [
        session.spawn(Command::new("true")).map(drop).expect_err("it has ended"),
        session.open("/etc/passwd").map(drop).expect_err("it has ended"),
        session.connect_tcp("127.0.0.1:1".parse().unwrap()).map(drop).expect_err("it has ended"),
    ] {
        assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error}");
        assert!(error.to_string().contains("the session has ended: start another one"), "{error}");
    }
    assert!(session.usage().wall_time > Duration::ZERO);
}

#[apply(test)]
fn commands_that_are_being_started_when_a_session_ends_are_killed_or_errors() {
    for _ in 0..rounds(20) {
        let session = Arc::new(session());
        let spawning = session.clone();
        let thread = thread::spawn(move || {
            loop {
                match spawning.spawn(Command::new("sleep").arg("1000").stdin(Stdio::null())) {
                    Ok(mut child) => {
                        if spawning.spawn(Command::new("true")).is_err() {
                            return child.wait().map(|outcome| outcome.termination);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        });
        thread::sleep(5 * MS);
        session.kill().unwrap();
        match thread.join().expect("no panic") {
            Ok(termination) => assert_eq!(termination, Termination::Killed),
            Err(error) => assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error}"),
        }
    }
}

/// Starts a session with processes, says so, and waits.
fn holds_session(args: &[String]) -> i32 {
    let session = start(&Sandbox::new());
    let _child = session.spawn(Command::new("sleep").arg(&args[0])).expect("a command");
    stdout(&session, &format!("setsid sleep {} >/dev/null 2>&1 &", args[0]));
    eventually("both run", || with_argument(&args[0]).len() == 2);
    println!("holds");
    thread::sleep(Duration::from_secs(1000));
    1
}

#[apply(test)]
fn a_session_ends_with_its_caller() {
    let argument = argument(7);
    let mut caller = Host::new(own_path());
    caller.args(["--payload", "holds_session", &argument]).stdout(HostStdio::piped());
    let mut caller = caller.spawn().expect("a caller");
    let mut said = String::new();
    BufReader::new(caller.stdout.as_mut().expect("its words")).read_line(&mut said).expect("a line");
    assert_eq!(said, "holds\n");
    caller.kill().expect("its end");
    let begin = Instant::now();
    eventually("its processes are gone", || with_argument(&argument).is_empty());
    assert!(begin.elapsed() < at_most(300 * MS), "{:?}", begin.elapsed());
    caller.wait().expect("its status");
    // Neither its helper nor its init.
    let parent = caller.id().to_string();
    eventually("its helper is gone", || {
        processes(|line| line.contains("stockade: helper") && line.contains(&parent)).is_empty()
    });
}

/// A caller that starts and ends sessions has what it had before.
fn leaves_nothing(_: &[String]) -> i32 {
    let run = || {
        let session = start(&Sandbox::new());
        stdout(&session, "sleep 1000 >/dev/null 2>&1 & echo");
        session.create("/tmp/file").expect("a file");
        session.spawn(Command::new("missing")).expect_err("no such program");
        let _child = session.spawn(Command::new("sleep").arg("1000")).expect("a command");
        session.listen_tcp("127.0.0.1:8080".parse().expect("an address")).expect("a listener");
    };
    run();
    let before = (descriptors(), children());
    for _ in 0..rounds(20) {
        run();
    }
    assert_eq!((descriptors(), children()), before);
    0
}

#[apply(test)]
fn a_session_leaves_nothing() {
    on_host(&[], "leaves_nothing", &[]);
}

/// A caller whose forked child drops its copy of a session, which goes on.
fn forks_with_session(_: &[String]) -> i32 {
    let session = start(&Sandbox::new());
    let child = session.spawn(Command::new("sleep").arg("0.5").stdin(Stdio::null())).expect("a command");
    // SAFETY: this process has no other threads.
    match unsafe { nix::unistd::fork() }.expect("a child") {
        ForkResult::Child => {
            let is_refused = session.kill().is_err_and(|error| error.kind() == ErrorKind::InvalidConfiguration);
            drop((child, session));
            std::process::exit((!is_refused).into());
        }
        ForkResult::Parent { child: forked } => {
            let status = nix::sys::wait::waitpid(forked, None).expect("its end");
            assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
            assert!({ child }.wait().expect("an outcome").success());
            assert_eq!(stdout(&session, "echo works"), "works");
        }
    }
    0
}

#[apply(test)]
fn a_forked_child_ends_no_session() {
    on_host(&[], "forks_with_session", &[]);
}

/// A caller that may have few descriptors.
fn few_descriptors(_: &[String]) -> i32 {
    let session = start(&Sandbox::new());
    let before = children();
    let mut taken = vec![];
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    for _ in 0..40 {
        let result = session.output(script("echo works"));
        match result {
            Ok(output) => {
                assert_eq!(output.stdout, b"works\n");
                drop(taken);
                // Neither a process that runs nor one that has exited.
                assert_eq!(children(), before);
                return 0;
            }
            Err(error) => assert!(error.to_string().contains("(EMFILE)"), "{error}"),
        }
        taken.pop();
    }
    1
}

#[apply(test)]
fn a_caller_at_its_limit_on_descriptors_gets_an_error_and_goes_on() {
    on_host(&["prlimit", "--nofile=100:100"], "session_of_few_descriptors", &[]);
}

#[apply(test)]
fn a_session_does_not_depend_on_the_thread_that_has_started_it() {
    let session = thread::spawn(session).join().expect("a session");
    let child = thread::scope(|scope| scope.spawn(|| session.spawn(Command::new("sleep").arg("0.2"))).join());
    assert!(child.expect("no panic").unwrap().wait().unwrap().success());
}
