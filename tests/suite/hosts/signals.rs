//! Hosts on which the caller may send no signals, or not by pidfd_send_signal(2).

use std::time::{Duration, Instant};

use stockade::{Command, ErrorKind, Identity, Limits, Namespaces, Sandbox, Termination};

use crate::support::filter::filter_calls;
use crate::support::{at_most, children, eventually, on_host};

payloads![("without_signals", without_signals), ("without_the_capability", without_the_capability)];

fn sleeping() -> Command {
    let mut command = Command::new("sleep");
    command.arg("60");
    command
}

/// Runs programs that exit and programs that are killed. All of it takes a few seconds at most.
fn without_signals(args: &[String]) -> i32 {
    let by_pid = [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill].into_iter().filter(|_| args[1] == "any");
    filter_calls(args[0].parse().unwrap(), by_pid.chain([libc::SYS_pidfd_send_signal]));
    let (start, default) = (Instant::now(), Sandbox::new());
    assert!(default.status(Command::new("true")).unwrap().success());
    let limited = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(200)));
    assert_eq!(limited.status(sleeping()).unwrap().termination, Termination::WallTime);
    let mut child = default.spawn(sleeping()).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Killed);
    drop(default.spawn(sleeping()).unwrap());
    assert_eq!(default.status(Command::new("/nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
    // Without a PID namespace nothing but a signal ends the program.
    let processes = Sandbox::new().namespaces(Namespaces::all() - Namespaces::PID - Namespaces::TIME);
    let processes = processes.map_root(|root| root.bind("/proc", "/proc"));
    assert!(processes.status(Command::new("true")).unwrap().success());
    if args[1] != "any" {
        drop(processes.spawn(sleeping()).unwrap());
    }
    assert!(start.elapsed() < at_most(Duration::from_secs(8)), "{:?}", start.elapsed());
    eventually("every process is gone", || children().is_empty());
    0
}

/// Finding H5.
#[apply(test)]
fn signals_by_pidfd_may_be_denied() {
    for errno in [libc::EPERM, libc::ENOSYS, libc::EACCES] {
        on_host(&[], "without_signals", &[&errno.to_string(), "by pidfd"]);
    }
}

/// Finding H5.
#[apply(test)]
fn all_signals_may_be_denied() {
    on_host(&[], "without_signals", &[&libc::EPERM.to_string(), "any"]);
}

fn without_the_capability(_: &[String]) -> i32 {
    let start = Instant::now();
    for sandbox in [Sandbox::new(), Sandbox::new().identity(Identity::caller())] {
        match sandbox.status(Command::new("true")) {
            Ok(outcome) => assert!(outcome.success()),
            Err(error) => assert!(error.to_string().contains("without CAP_KILL"), "{error}"),
        }
    }
    assert!(start.elapsed() < at_most(Duration::from_secs(4)), "{:?}", start.elapsed());
    0
}

/// Finding H5.
#[apply(test)]
#[only(Root)]
fn root_may_lack_the_capability_to_send_signals() {
    on_host(&["setpriv", "--bounding-set=-kill"], "without_the_capability", &[]);
}
