//! What hosts that were killed have left is removed by the next.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child as HostChild, Stdio as HostStdio};
use std::sync::mpsc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stockade::{Cgroup, Namespaces, Sandbox};

use crate::groups::{left_by, unless_accounts, unless_freezer};
use crate::support::listener::hold;
use crate::support::{Payload, Test, at_most, children_of, on_host, payload_on_host, processes};
use crate::tests;
use crate::{MS, eventually, group, quiet, with};

pub const TESTS: &[Test] = tests![
    a_dead_hosts_groups_are_removed_by_the_next if unless_accounts,
    a_host_killed_before_it_has_passed_its_groups_leaves_no_process if unless_accounts,
    processes_that_a_dead_host_has_left_are_ended_by_the_next if unless_accounts,
    frozen_processes_that_a_dead_host_has_left_are_ended_by_the_next if unless_freezer,
    a_living_hosts_groups_are_not_touched if unless_accounts,
];

pub const PAYLOADS: &[Payload] = &[("holder", holder), ("next", next), ("mute", mute)];

/// A host that starts a sandbox and waits for the end of its input. The arguments: how its processes sleep, and how long.
fn holder(args: &[String]) -> i32 {
    let (kind, time) = (args[0].as_str(), &args[1]);
    let sandbox = match kind {
        "contained" => with(limits()),
        "frozen" => bare(with(limits().freezable())),
        _ => bare(with(limits())),
    };
    let script = format!("setsid sleep {time} & exec sleep {time}");
    let child = sandbox.spawn(quiet("sh").args(["-c", &script])).unwrap();
    eventually("both sleep", || sleepers(time).len() == 2);
    if kind == "frozen" {
        child.freeze().unwrap();
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
    drop(child);
    assert_eq!(left_by(std::process::id()), Vec::<PathBuf>::new());
    0
}

/// A host that has made the groups of its sandbox, and never passes them to the helper: its sendmsg(2) is held.
fn mute(args: &[String]) -> i32 {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let listener: OwnedFd = receiver.recv().expect("a listener");
        poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).expect("a call that is held");
        println!("ready");
        loop {
            std::thread::park();
        }
    });
    sender.send(hold(libc::SYS_sendmsg)).expect("a receiver");
    let _ = with(limits()).spawn(quiet("sleep").arg(&args[0]));
    1
}

/// A host that comes later and needs the same groups.
fn next(_: &[String]) -> i32 {
    let status = with(limits().freezable()).status(quiet("true")).unwrap();
    assert!(status.success(), "{status}");
    0
}

fn limits() -> Cgroup {
    group().pids_max(50).memory_max(256 << 20)
}

fn bare(sandbox: Sandbox) -> Sandbox {
    sandbox.namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID)
}

/// Processes of a test: it has a time of its own to sleep.
fn sleepers(time: &str) -> Vec<i32> {
    processes(|line| line == format!("sleep {time} "))
}

fn time(number: u32) -> String {
    format!("{}.{number}", 200_000 + std::process::id())
}

/// A host that holds a sandbox.
fn host(kind: &str, time: &str) -> HostChild {
    let host = ready("holder", &[kind, time]);
    assert_eq!(sleepers(time).len(), 2);
    host
}

/// A host that has groups.
fn ready(payload: &str, args: &[&str]) -> HostChild {
    let mut command = payload_on_host(payload);
    let mut host = command.args(args).stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().expect("a host");
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(!left_by(host.id()).is_empty(), "it has groups");
    host
}

fn killed(mut host: HostChild) -> u32 {
    host.kill().unwrap();
    host.wait().unwrap();
    host.id()
}

/// Nothing is left of a dead host when the next one has started a sandbox.
fn is_swept(pid: u32, time: &str) {
    on_host(&[], "next", &[]);
    let deadline = std::time::Instant::now() + at_most(2000 * MS);
    while (!left_by(pid).is_empty() || !sleepers(time).is_empty()) && std::time::Instant::now() < deadline {
        std::thread::sleep(10 * MS);
    }
    let (groups, alive) = (left_by(pid), sleepers(time));
    for &pid in &alive {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for group in &groups {
        let _ = std::fs::write(group.join("freezer.state"), "THAWED");
        let _ = std::fs::write(group.join("cgroup.freeze"), "0");
    }
    eventually("they are gone", || sleepers(time).is_empty());
    for group in &groups {
        let _ = std::fs::remove_dir(group);
    }
    assert_eq!((groups, alive), (vec![], vec![]));
}

fn a_dead_hosts_groups_are_removed_by_the_next() {
    let time = time(1);
    let pid = killed(host("contained", &time));
    eventually("the kernel ends the sandbox with its host", || sleepers(&time).is_empty());
    is_swept(pid, &time);
}

fn a_host_killed_before_it_has_passed_its_groups_leaves_no_process() {
    let time = time(5);
    let host = ready("mute", &[&time]);
    eventually("its helper and its init are there", || children_of(host.id()).len() == 2);
    let children = children_of(host.id());
    let pid = killed(host);
    // Who has ended has no arguments any more, also while nobody has reaped it.
    let is_alive = |child: &i32| std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| !line.is_empty());
    eventually("they end with the host", || !children.iter().any(is_alive));
    is_swept(pid, &time);
}

fn processes_that_a_dead_host_has_left_are_ended_by_the_next() {
    let time = time(2);
    let pid = killed(host("bare", &time));
    std::thread::sleep(100 * MS);
    is_swept(pid, &time);
}

fn frozen_processes_that_a_dead_host_has_left_are_ended_by_the_next() {
    let time = time(3);
    let pid = killed(host("frozen", &time));
    is_swept(pid, &time);
}

fn a_living_hosts_groups_are_not_touched() {
    let time = time(4);
    let mut host = host("bare", &time);
    let before = left_by(host.id());
    on_host(&[], "next", &[]);
    assert_eq!(left_by(host.id()), before);
    assert_eq!(sleepers(&time).len(), 2);
    drop(host.stdin.take());
    assert!(host.wait().unwrap().success());
    assert_eq!((left_by(host.id()), sleepers(&time)), (vec![], vec![]));
}
