//! Children that a program has given to the host (clone(2), `CLONE_PARENT`). Nobody waits for them, and a pid namespace
//! can't end while a zombie is in it: so they are looked for when an init does not end.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// The processes of sandboxes that somebody does wait for.
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn known() -> MutexGuard<'static, BTreeSet<i32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn register(pid: i32) {
    known().insert(pid);
}

pub(super) fn forget(pid: i32) {
    known().remove(&pid);
}

/// Reaps the zombies among the host's children that programs have given to it, and nobody else's. One is left to the
/// next call the first time that it is `seen`: it may be a program that another thread is about to register.
pub(super) fn reap(seen: &mut BTreeSet<i32>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        if is_stray(&status, std::process::id()) && !known().contains(&pid) && !seen.insert(pid) {
            let all = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
            let _ = waitpid(Pid::from_raw(pid), Some(all));
        }
    }
}

/// Reaps the children of a helper that has died and could not tell of them: with it the sandbox has lost the pipe that
/// keeps it.
pub(super) fn sweep() {
    const ROUNDS: u32 = 25;
    const PAUSE: Duration = Duration::from_millis(4);
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        reap(&mut seen);
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process, by its `/proc/[pid]/status`, is a zombie among the host's children that is in a pid namespace below
/// the host's and can gain no privileges, as no program of a sandbox can.
fn is_stray(status: &str, host: u32) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    field("State").starts_with('Z')
        && field("PPid") == host.to_string()
        && field("NSpid").split_whitespace().count() > 1
        && field("NoNewPrivs") == "1"
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRAY: &str = "Name:\tx\nState:\tZ (zombie)\nPPid:\t7\nNSpid:\t90\t3\nNoNewPrivs:\t1\n";

    #[test]
    fn a_stray_is_a_zombie_of_the_host_in_a_pid_namespace_and_without_new_privileges() {
        assert!(is_stray(STRAY, 7));
        assert!(!is_stray(STRAY, 8));
        for (from, to) in [("Z (zombie)", "S (sleeping)"), ("90\t3", "90"), ("NoNewPrivs:\t1", "NoNewPrivs:\t0")] {
            assert!(!is_stray(&STRAY.replace(from, to), 7), "{to}");
        }
    }
}
