//! Which unit of systemd's a cgroup belongs to, and whether it was delegated. Below one that was not, nobody but systemd makes
//! cgroups: it takes the end of a sandbox for want of memory as the unit's own (`OOMPolicy=` of systemd.service(5)), and
//! expects the unit's processes where it has put them.

use std::path::Path;

use nix::sys::stat::stat;
use nix::unistd::geteuid;

use crate::sys::attribute::attribute;

/// Whether systemd runs this machine, as sd_booted(3) finds out.
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// The name of the unit that the cgroup of v2 in a directory belongs to, if it was not delegated to whoever runs in it. Cgroups
/// from `point` on, where the hierarchy is mounted, are looked at.
pub(super) fn undelegated(directory: &Path, point: &Path) -> Option<String> {
    let below = |path: &&Path| path.starts_with(point) && *path != point;
    let unit = directory.ancestors().take_while(below).find(|path| has_processes(path))?;
    if !has_systemd() || is_delegated(unit) {
        return None;
    }
    Some(unit.file_name()?.to_string_lossy().into_owned())
}

/// Whether a name is that of a kind of unit which processes are in.
fn has_processes(group: &Path) -> bool {
    let kind = group.extension().map(|kind| kind.to_string_lossy());
    kind.is_some_and(|kind| matches!(&*kind, "service" | "scope" | "socket" | "mount" | "swap"))
}

/// systemd says so by an attribute that root alone may read, and since 251 by one that everybody may. Before, an ordinary user
/// knows it of a unit of the system by owning it, and not of one that their own manager runs, who owns them all.
fn is_delegated(unit: &Path) -> bool {
    let says = |name| attribute(unit, name).is_ok_and(|value| value == b"1");
    if says(c"trusted.delegate") || says(c"user.delegate") {
        return true;
    }
    let user = geteuid();
    let is_managers = |above: &Path| above.file_name().is_some_and(|name| name.to_string_lossy().starts_with("user@"));
    !user.is_root()
        && stat(unit).is_ok_and(|stat| stat.st_uid == user.as_raw())
        && !unit.ancestors().skip(1).any(is_managers)
}
