//! Threads that are traced (ptrace(2)) keep a process from exiting until their tracer has taken their status. The caller must not
//! wait for that, whoever the tracer is.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use stockade::{Limits, Namespaces, Sandbox, Stdio, Termination};

use crate::attacks::common::sandbox;
use crate::attacks::sys;
use crate::support::{at_most, children, eventually, on_host, payload};

payloads![
    ("leave_traced_thread", leave_traced_thread),
    ("trace_a_thread", trace_a_thread),
    ("caller_of_traced_threads", caller_of_traced_threads)
];

const MS: Duration = Duration::from_millis(1);

/// A program of which a thread is traced when it exits: by the parent of the program, which it asks itself, or by whoever is told
/// its number. The program then exits with 7, or stays.
fn leave_traced_thread(args: &[String]) -> i32 {
    let by_parent = args[0] == "by parent";
    let traced = thread::spawn(move || match by_parent {
        true => sys::trace_me().is_ok(),
        false => {
            fs::write("/tmp/thread.new", nix::unistd::gettid().to_string()).expect("a file");
            fs::rename("/tmp/thread.new", "/tmp/thread").expect("a file");
            eventually("a tracer", || fs::exists("/tmp/traced").unwrap_or(false));
            true
        }
    });
    assert!(traced.join().expect("no panic"), "the thread is traced");
    if args[1] == "stays" {
        thread::sleep(Duration::from_secs(1000));
    }
    7
}

/// Traces the thread of the other program, and stays.
fn trace_a_thread(_: &[String]) -> i32 {
    let mut thread = None;
    eventually("a thread", || {
        thread = fs::read_to_string("/tmp/thread").ok().and_then(|text| text.parse().ok());
        thread.is_some()
    });
    sys::seize(thread.expect("a number")).expect("it can be traced");
    fs::write("/tmp/traced", "").expect("a file");
    thread::sleep(Duration::from_secs(1000));
    0
}

/// A caller that has no more children after its programs than before.
fn caller_of_traced_threads(_: &[String]) -> i32 {
    let without_pids = Namespaces::USER | Namespaces::MOUNT;
    for sandbox in [sandbox(), sandbox().namespaces(without_pids)] {
        let begin = Instant::now();
        let mut command = payload("leave_traced_thread");
        let outcome = sandbox.status(command.args(["by parent", "exits"]).stdin(Stdio::null())).expect("an outcome");
        assert_eq!(outcome.termination, Termination::Exited(7));
        assert!(begin.elapsed() < at_most(5000 * MS), "{:?}", begin.elapsed());
        let begin = Instant::now();
        let limited = sandbox.limits(Limits::new().wall_time(at_most(300 * MS)));
        let mut command = payload("leave_traced_thread");
        let outcome = limited.status(command.args(["by parent", "stays"]).stdin(Stdio::null())).expect("an outcome");
        assert_eq!(outcome.termination, Termination::WallTime);
        assert!(begin.elapsed() < at_most(5000 * MS), "{:?}", begin.elapsed());
        assert_eq!(children(), Vec::<i32>::new());
    }
    0
}

#[apply(test)]
fn a_thread_that_the_caller_traces_delays_no_outcome_and_nothing_stays() {
    on_host(&[], "caller_of_traced_threads", &[]);
}

#[apply(test)]
fn traced_threads_delay_no_command_of_a_session() {
    let session = sandbox().limits(Limits::new().wall_time(at_most(3000 * MS))).start().unwrap();
    let begin = Instant::now();
    for how in ["exits", "stays"] {
        let mut command = payload("leave_traced_thread");
        let outcome = session.status(command.args(["by parent", how]).stdin(Stdio::null())).unwrap();
        let expected = if how == "exits" { Termination::Exited(7) } else { Termination::WallTime };
        assert_eq!(outcome.termination, expected, "{how}");
    }
    // A program of another command is the tracer.
    let _tracer = session.spawn(payload("trace_a_thread").stdin(Stdio::null())).unwrap();
    let mut command = payload("leave_traced_thread");
    let outcome = session.status(command.args(["by another", "exits"]).stdin(Stdio::null())).unwrap();
    assert_eq!(outcome.termination, Termination::Exited(7));
    session.kill().unwrap();
    assert!(begin.elapsed() < at_most(15_000 * MS), "{:?}", begin.elapsed());
}

/// What these tests guard against: a tracer that does not take the status of a thread keeps the process from exiting.
#[apply(test)]
fn a_traced_thread_keeps_its_process_from_exiting() {
    let mut child = Sandbox::clone(&sandbox()).spawn({
        let mut command = payload("leave_traced_thread");
        command.args(["by parent", "exits"]).stdin(Stdio::null());
        command
    });
    let child = child.as_mut().unwrap();
    let status = format!("/proc/{}/status", child.pid().number());
    eventually("the first thread exits", || fs::read_to_string(&status).unwrap().contains("State:\tZ"));
    thread::sleep(100 * MS);
    let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(child), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO), Ok(0), "its pidfd is not readable");
}
