//! The systemd unit that a cgroup belongs to, and whether it is delegated. Below other units only systemd may create
//! cgroups: it takes the out-of-memory kill of a sandbox for a failure of the unit (`OOMPolicy=`, systemd.service(5)),
//! and expects the unit's processes where it put them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::stat;
use nix::unistd::geteuid;

use crate::locks::lock;
use crate::sys::xattr;

/// Returns whether systemd runs this machine (sd_booted(3)).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Returns the unit of a v2 cgroup, if it is not delegated. `point` is the mount point, up to which cgroups are
/// examined. If that is the root of a cgroup namespace, the names of its ancestors are hidden (cgroup_namespaces(7)),
/// and it may be a unit itself.
pub(super) fn undelegated(directory: &Path, point: &Path) -> Option<String> {
    if !has_systemd() {
        return None;
    }
    let below = |path: &&Path| path.starts_with(point) && *path != point;
    let unit = directory.ancestors().take_while(below).find(|path| has_processes(path));
    match unit {
        Some(unit) if !is_delegated(unit) => Some(unit.file_name()?.to_string_lossy().into_owned()),
        // The root of the hierarchy has no such file.
        None if point.join("cgroup.type").exists() && !is_delegated(point) => {
            Some("a unit whose name its cgroup namespace hides".into())
        }
        _ => None,
    }
}

/// Returns whether a name is that of a type of unit that has processes.
fn has_processes(group: &Path) -> bool {
    let kind = group.extension().map(|kind| kind.to_string_lossy());
    kind.is_some_and(|kind| matches!(&*kind, "service" | "scope" | "socket" | "mount" | "swap"))
}

/// The system manager marks delegated units with an extended attribute, which everybody may read since systemd 251.
/// Before that an ordinary user recognizes a delegated unit by owning it. A user manager owns all of its units and sets
/// no attribute: it is asked.
fn is_delegated(unit: &Path) -> bool {
    let is_set = |name| xattr::get(unit, name).is_ok_and(|value| value == b"1");
    if is_set(c"trusted.delegate") || is_set(c"user.delegate") {
        return true;
    }
    match unit.ancestors().skip(1).find_map(user_of_manager) {
        Some(user) => is_delegated_by_manager(unit, user),
        None => !is_hosts_root() && stat(unit).is_ok_and(|stat| stat.st_uid == geteuid().as_raw()),
    }
}

/// Returns the user whose manager runs in a cgroup: `user@1000.service`.
fn user_of_manager(group: &Path) -> Option<u32> {
    let name = group.file_name()?.to_str()?;
    name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// Returns whether the caller is root of the host, not of a user namespace.
fn is_hosts_root() -> bool {
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && maps.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Asks the user manager by systemctl(1), once for each unit in the life of this process.
fn is_delegated_by_manager(unit: &Path, user: u32) -> bool {
    static KNOWN: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());
    let mut known = lock(&KNOWN);
    *known
        .entry(unit.to_owned())
        .or_insert_with(|| unit.file_name().is_some_and(|name| ask_manager(name, user) == Some(true)))
}

/// Returns `None` if it does not answer.
fn ask_manager(unit: &OsStr, user: u32) -> Option<bool> {
    /// Not searched for in PATH, which is not trusted.
    const PROGRAM: &str = "/usr/bin/systemctl";
    /// The default timeout of D-Bus, in milliseconds.
    const TIMEOUT: u16 = 25_000;
    let runtime = format!("/run/user/{user}");
    let mut systemctl = Command::new(PROGRAM)
        .args(["--user", "show", "--property=Delegate", "--value", "--"])
        .arg(unit)
        .env_clear()
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut answer = [0; 3];
    let read = systemctl.stdout.take().and_then(|mut stdout| {
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        let is_ready = poll(&mut fds, TIMEOUT).is_ok_and(|ready| ready > 0);
        is_ready.then(|| stdout.read(&mut answer).ok()).flatten()
    });
    let _ = systemctl.kill();
    let _ = systemctl.wait();
    Some(&answer[..read?] == b"yes")
}
