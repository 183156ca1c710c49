//! Finds out why a killed process does not exit.

use std::fs;

use nix::errno::Errno;

use crate::cgroup::freezer;
use crate::error::Error;
use crate::process_status::ProcessStatus;

/// Returns the error if waiting for a killed process has failed.
pub(super) fn explain(pid: i32, errno: Errno) -> Error {
    if errno != Errno::ETIMEDOUT {
        return Error::io("wait for a process of the sandbox")(errno);
    }
    let (state, remedy) = diagnose(pid);
    Error::unkillable(pid, &state, remedy)
}

/// Returns the state of a process, as a clause without its subject, and a hint.
fn diagnose(pid: i32) -> (String, String) {
    if let Some(group) = freezer::frozen_cgroup(pid) {
        let state = format!("is frozen in the cgroup {}", group.display());
        return (state, "thaw that cgroup: write THAWED to its freezer.state".into());
    }
    let status = ProcessStatus::of(pid).unwrap_or_else(|_| ProcessStatus::parse(b""));
    let tracer = status.field("TracerPid");
    if !matches!(tracer, "" | "0") {
        return (
            format!("is traced by process {tracer}"),
            "kill that process, or detach it (ptrace(2), PTRACE_DETACH)".into(),
        );
    }
    match status.field("State") {
        "" => (
            "is not visible in /proc".into(),
            "mount the proc file system of the caller's PID namespace: mount -t proc proc /proc".into(),
        ),
        state if state.starts_with('D') => {
            let place = fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
            let place = place.filter(|name| !matches!(name.as_str(), "" | "0"));
            let place = place.map(|name| format!(", in {name}")).unwrap_or_default();
            (
                format!("waits in the kernel{place}"),
                "repair the file system or the device that it waits for, or abort the connection of a FUSE file system \
                 (/sys/fs/fuse/connections)"
                    .into(),
            )
        }
        state => (
            format!("has the state {state}"),
            format!("as root, read /proc/{pid}/stack, and report it as a problem of the kernel or of the file system"),
        ),
    }
}
