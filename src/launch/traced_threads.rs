//! Threads that keep a process of a sandbox from being reaped, because they are traced (ptrace(2)). A thread that has exited stays
//! until its tracer has taken its status, and until then its process has not exited.
//!
//! The tracer is the caller if a thread of a process that is a child of the caller has asked for it (`PTRACE_TRACEME`).

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use crate::process_status::ProcessStatus;
use crate::sys::{pidfd, wait};

/// Takes the status of each thread of a process that has exited and is traced by the caller. The process must not have been reaped.
pub(super) fn reap(pid: i32) {
    for thread in threads(pid).filter(|&thread| thread != pid) {
        // A thread that waits for the caller to take its status keeps its number until then. Its tracer is a thread too.
        let is_ours = |status: ProcessStatus| {
            let tracer = status.field("TracerPid");
            status.field("State").starts_with('Z') && tracer != "0" && is_own_thread(tracer)
        };
        if status_of(pid, thread).is_some_and(is_ours) {
            wait::take_status_of_thread(thread);
        }
    }
}

/// Returns whether the first thread of a process has exited, but not the process.
pub(super) fn has_exited_leader(pid: i32) -> bool {
    ProcessStatus::of(pid).is_ok_and(|status| status.field("State").starts_with('Z'))
}

/// Kills the processes that trace threads of a process in a session, if they are of the session: one outside is in a PID namespace
/// above, and so has fewer PIDs.
pub(super) fn end_tracers(pid: i32) {
    let pids = |pid: i32| ProcessStatus::of(pid).map_or(0, |status| status.words("NSpid").count());
    for thread in threads(pid) {
        let tracer = || status_of(pid, thread)?.field("TracerPid").parse::<i32>().ok().filter(|&tracer| tracer > 0);
        if let Some(found) = tracer()
            && let Ok(pidfd) = pidfd::open(found)
            // The number was not reused before it was opened.
            && tracer() == Some(found)
            && pids(found) >= pids(pid)
        {
            let _ = pidfd::send(pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

fn is_own_thread(thread: &str) -> bool {
    Path::new("/proc/self/task").join(thread).exists()
}

fn threads(pid: i32) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn status_of(pid: i32, thread: i32) -> Option<ProcessStatus> {
    ProcessStatus::read(format!("/proc/{pid}/task/{thread}/status")).ok()
}
