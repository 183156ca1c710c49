//! Pids that belong to another process when the end of a program is told.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command as Host;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use stockade::{Child, Command, ErrorKind, Signal, Stdio, Termination};

use super::MS;
use crate::attacks::common::{apart, bare, host_output};
use crate::attacks::sys::numbers;
use crate::support::{kernel, own_path, text};

const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// A payload as the first process of a PID namespace in which it can choose who gets which pid.
fn in_own_pids(name: &str) -> Host {
    let script = format!("echo 100 >{LAST_PID}; exec \"$@\"");
    let own = own_path();
    apart(&["-m", "--pid", "--fork", "--mount-proc"], &script, &[own.as_os_str(), "--payload".as_ref(), name.as_ref()])
}

pub fn unless_pids_can_be_chosen() -> Option<String> {
    let script = format!("echo 100 >{LAST_PID}");
    let output = apart(&["-m", "--pid", "--fork", "--mount-proc"], &script, &[]).output();
    let failed = output.map_or_else(
        |error| Some(error.to_string()),
        |output| (!output.status.success()).then(|| text(&output.stderr)),
    );
    failed.map(|why| format!("nobody can choose pids here: {why}"))
}

/// Starts something that gets a pid which was another's.
fn with_pid<T>(pid: u32, start: impl Fn() -> T, pid_of: impl Fn(&T) -> u32) -> T {
    // It may start other processes first.
    for before in 1..20 {
        fs::write(LAST_PID, (pid - before).to_string()).unwrap();
        let started = start();
        if pid_of(&started) == pid {
            return started;
        }
    }
    panic!("nobody gets the pid {pid}");
}

/// A caller that takes the status of its children before the crate does, after which others get their pids.
pub fn caller_of_reused_pids(_: &[String]) -> i32 {
    let shell = |script: &str| Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).clone();
    // Without a PID namespace its group is killed at its end.
    let stolen = || {
        let child = bare().spawn(shell("exit 7")).unwrap();
        let pid = Pid::from_raw(child.pid().number() as i32);
        waitpid(pid, None).unwrap();
        child
    };
    let ended = |mut child: Child| match child.wait() {
        Err(error) if kernel() < (6, 15) => assert_eq!(error.kind(), ErrorKind::StatusLost),
        outcome => assert_eq!(outcome.unwrap().termination, Termination::Exited(7)),
    };

    for end in [ended, drop] {
        let first = stolen();
        let start = || Host::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut stranger = with_pid(first.pid().number(), start, std::process::Child::id);
        first.signal(Signal::TERM).unwrap();
        end(first);
        std::thread::sleep(50 * MS);
        assert_eq!(stranger.try_wait().unwrap(), None, "a stranger with the pid of a program is not ended");
        // By the number of the program's group it is.
        numbers(libc::SYS_kill, &[-i64::from(stranger.id()), libc::SIGKILL.into()]).unwrap();
        assert_eq!(stranger.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
    for end in [ended, drop] {
        let first = stolen();
        let start = || bare().spawn(shell("read line; exit 9")).unwrap();
        let mut second = with_pid(first.pid().number(), start, |child| child.pid().number());
        first.signal(Signal::KILL).unwrap();
        end(first);
        assert_eq!(second.try_wait().unwrap(), None, "another program with the same pid goes on");
        drop(second.stdin.take());
        assert_eq!(second.wait().unwrap().termination, Termination::Exited(9), "and has its own end");
    }
    println!("done");
    0
}

/// Attack 75: the caller waits for any child, and the pid of a program is another process's before the program's end is
/// told. (That no spawn is disturbed by such a caller, nor by one that ignores SIGCHLD: `tests/caller_life`.)
#[apply(test)]
#[skip(super::unless_pids_can_be_chosen)]
fn no_reused_pid_lies() {
    assert_eq!(host_output(&mut in_own_pids("caller_of_reused_pids")), "done");
}
