//! What keeps a process from ending that was killed.

use std::fs;

use nix::errno::Errno;

use crate::cgroup::freezer;
use crate::error::Error;
use crate::launch::reaper::field;

/// The error of waiting for a process that was killed.
pub(super) fn explain(pid: i32, errno: Errno) -> Error {
    if errno != Errno::ETIMEDOUT {
        return Error::host("waiting for a process of the sandbox")(errno);
    }
    let (state, remedy) = look(pid);
    Error::NotEnded { pid, state, remedy }
}

fn look(pid: i32) -> (String, String) {
    if let Some(group) = freezer::holder(pid) {
        let state = format!("is frozen in the cgroup {}", group.display());
        return (state, "thaw that group: write THAWED to its freezer.state".into());
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = field(&status, "TracerPid");
    if !matches!(tracer, "" | "0") {
        return (format!("is traced by process {tracer}"), "end that process, or let it detach".into());
    }
    match field(&status, "State") {
        "" => ("can't be seen".into(), "look for it in the PID namespace of the caller".into()),
        state if state.starts_with('D') => {
            let place = fs::read_to_string(format!("/proc/{pid}/wchan")).ok();
            let place = place.filter(|name| !matches!(name.as_str(), "" | "0"));
            let place = place.map(|name| format!(", in {name}")).unwrap_or_default();
            (
                format!("waits in the kernel{place}"),
                "let the file system or the device that it waits for answer, or abort the connection of a FUSE file system \
                 (/sys/fs/fuse/connections)"
                    .into(),
            )
        }
        state => (format!("has the state {state}"), format!("see /proc/{pid}/stack")),
    }
}
