//! `profile::test`: a test that leaks daemons and files, and listens on a fixed port.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command as Host, Stdio as HostStdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::{Command, Sandbox, Termination, profile};

use crate::support::{self, at_most, exists, payload, payload_on_host, sh, stdout, with_payload};

payloads![("flaky", flaky)];

/// What the test listens on if it is told no other.
const PORT: u16 = 18080;

/// A test as nobody should write it: it makes a file of a fixed name, listens on a fixed port, and leaves a daemon.
fn flaky(args: &[String]) -> i32 {
    let [state, port, seconds] = args else { return 2 };
    if File::create_new(state).is_err() {
        return 3;
    }
    let Ok(_listener) = TcpListener::bind(("127.0.0.1", port.parse().unwrap_or(PORT))) else { return 4 };
    let mut daemon = Host::new("sleep");
    daemon.arg(seconds).process_group(0).stdin(HostStdio::null()).stdout(HostStdio::null()).stderr(HostStdio::null());
    let started = daemon.spawn();
    // Long enough for another one to meet it.
    std::thread::sleep(Duration::from_millis(300));
    i32::from(started.is_err())
}

fn daemons(seconds: &str) -> Vec<i32> {
    support::processes(|line| line.trim() == format!("sleep {seconds}"))
}

fn sandbox() -> Sandbox {
    profile::test().map_root(with_payload)
}

fn in_sandbox(state: &str, port: u16, seconds: &str) -> Command {
    payload("flaky").args([state, &port.to_string(), seconds]).clone()
}

fn on_host(state: &str, port: u16, seconds: &str) -> Option<i32> {
    let mut host = payload_on_host("flaky");
    host.args([state, &port.to_string(), seconds]).status().expect("the test").code()
}

/// A port that is free on the host, as far as one can know.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

#[apply(test)]
fn a_test_passes_whatever_an_earlier_run_has_left() {
    // Both runs of this binary may find what the other has made.
    let state = format!("/tmp/stockade-test-state-{}", std::process::id());
    let seconds = format!("72{}", std::process::id());
    let port = free_port();
    assert_eq!(on_host(&state, port, &seconds), Some(0));
    let again = on_host(&state, port, &seconds);
    let end = Instant::now() + at_most(Duration::from_secs(20));
    // A process that is executing has no command line for a moment.
    while daemons(&seconds).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = daemons(&seconds);
    for pid in &left {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("its end");
    }
    assert_eq!((again, left.len()), (Some(3), 1), "without the profile");
    // The file of the host's is still there, and its daemon may not be gone yet.
    let seconds = format!("73{}", std::process::id());
    for _ in 0..2 {
        let outcome = sandbox().status(in_sandbox(&state, port, &seconds)).expect("an outcome");
        assert!(outcome.success(), "{outcome}");
        assert!(daemons(&seconds).is_empty());
    }
    fs::remove_file(&state).expect("the state");
}

#[apply(test)]
fn a_test_passes_beside_another_on_the_same_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = taken.local_addr().expect("its address").port();
    let state = format!("/tmp/stockade-test-port-{}", std::process::id());
    assert_eq!(on_host(&state, port, "0"), Some(4), "without the profile");
    fs::remove_file(&state).expect("the state");
    let both = [0, 1].map(|_| sandbox().spawn(in_sandbox(&state, port, "1000")).expect("a test"));
    for mut one in both {
        let outcome = one.wait().expect("an outcome");
        assert!(outcome.success(), "{outcome}");
    }
    assert!(!exists(&state));
}

#[apply(test)]
fn a_test_cannot_kill_other_processes() {
    let mut other = Host::new("sleep").arg("1000").spawn().expect("another process");
    let script = format!("kill -KILL {}", other.id());
    // As the program's own user it could: the harness of an ordinary user runs as that user too.
    assert!(Host::new("sh").args(["-c", &script.replace("-KILL", "-0")]).status().expect("a shell").success());
    assert!(!sh(&profile::test(), &script).outcome.success());
    assert!(other.try_wait().expect("its state").is_none());
    other.kill().expect("its end");
    other.wait().expect("its end");
}

#[apply(test)]
fn a_hanging_test_can_print_a_trace_before_it_is_killed() {
    let hanging = profile::test().map_limits(|limits| limits.wall_time(at_most(Duration::from_millis(300))));
    let output = sh(&hanging, "trap 'echo in line 7; exit 1' TERM; while :; do sleep 0.05; done");
    assert_eq!((output.outcome.termination, &output.stdout[..]), (Termination::WallTime, &b"in line 7\n"[..]));
}

/// As sanitizers do that look for leaks.
#[apply(test)]
#[skip(support::unless_python)]
fn a_test_may_trace_its_children() {
    assert_eq!(
        stdout(&profile::test(), "python3 -c 'import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0))'"),
        "0"
    );
}

#[apply(test)]
fn scratch_files_have_a_place_of_a_known_size() {
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        crate::profiles::holds(&profile::test(), place, 1 << 30);
    }
}
