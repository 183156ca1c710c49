//! Which unit of systemd's a cgroup belongs to, and whether it was delegated. Below one that was not, nobody but systemd makes
//! cgroups: it takes the end of a sandbox for want of memory as the unit's own (`OOMPolicy=` of systemd.service(5)), and
//! expects the unit's processes where it has put them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::stat;
use nix::unistd::geteuid;

use crate::sys::attribute::attribute;

/// Whether systemd runs this machine, as sd_booted(3) finds out.
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// The unit that the cgroup of v2 in a directory belongs to, if it was not delegated to whoever runs in it. Cgroups from `point`
/// on, where the hierarchy is mounted, are looked at. Where that is the root of a cgroup namespace, the names of units above are
/// hidden (cgroup_namespaces(7)), and it may be a unit itself.
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

/// Whether a name is that of a kind of unit which processes are in.
fn has_processes(group: &Path) -> bool {
    let kind = group.extension().map(|kind| kind.to_string_lossy());
    kind.is_some_and(|kind| matches!(&*kind, "service" | "scope" | "socket" | "mount" | "swap"))
}

/// The manager of the system says so by an attribute, which since 251 everybody may read; before, an ordinary user knows it of a
/// unit by owning it. A user's own manager owns all of its units, and sets no attribute: it is asked.
fn is_delegated(unit: &Path) -> bool {
    let says = |name| attribute(unit, name).is_ok_and(|value| value == b"1");
    if says(c"trusted.delegate") || says(c"user.delegate") {
        return true;
    }
    match unit.ancestors().skip(1).find_map(user_of_manager) {
        Some(user) => manager_says(unit, user),
        None => !is_hosts_root() && stat(unit).is_ok_and(|stat| stat.st_uid == geteuid().as_raw()),
    }
}

/// The user whose manager makes the groups below a group: `user@1000.service`.
fn user_of_manager(group: &Path) -> Option<u32> {
    let name = group.file_name()?.to_str()?;
    name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// Whether this process is root, and not of a user namespace, where root is another user.
fn is_hosts_root() -> bool {
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && maps.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What the user's manager says by systemctl(1), asked once for each unit in the life of this process.
fn manager_says(unit: &Path, user: u32) -> bool {
    static KNOWN: Mutex<BTreeMap<PathBuf, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known
        .entry(unit.to_owned())
        .or_insert_with(|| unit.file_name().is_some_and(|name| ask_manager(name, user) == Some(true)))
}

/// `None` if it does not answer.
fn ask_manager(unit: &OsStr, user: u32) -> Option<bool> {
    /// Not by PATH, which is whoever's who has set it.
    const PROGRAM: &str = "/usr/bin/systemctl";
    /// Milliseconds, as many as D-Bus gives a call.
    const PATIENCE: u16 = 25_000;
    let runtime = format!("/run/user/{user}");
    let mut asked = Command::new(PROGRAM)
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
    let read = asked.stdout.take().and_then(|mut stdout| {
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        let is_ready = poll(&mut fds, PATIENCE).is_ok_and(|ready| ready > 0);
        is_ready.then(|| stdout.read(&mut answer).ok()).flatten()
    });
    let _ = asked.kill();
    let _ = asked.wait();
    Some(&answer[..read?] == b"yes")
}
