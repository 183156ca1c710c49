//! Cgroup file systems where the root is the caller's: the program is not to change its own limits, nor those of others.

use std::path::Path;

use crate::confine::Landlock;
use crate::confine::mountinfo::HostMount;
use crate::error::Result;
use crate::mountinfo;
use crate::plan::{Arg, Attributes, Change, OnError, Program, Step, flags, nr};

use super::lower::MAKE;
use super::remount::old_flags;

/// Makes every cgroup file system read-only in the sandbox's mount namespace.
pub(super) fn make_read_only(helper: &mut Program, has_setattr: bool) -> Result<()> {
    for mount in mountinfo::read_of_kind(b"cgroup")?.into_iter().map(HostMount::from) {
        if mount.is_read_only() {
            continue;
        }
        helper.step(Step::new("making a cgroup file system read-only").path(&mount.point).remedies(MAKE));
        // What the sandbox's user can't enter the program can't enter either.
        let passed = helper.label();
        let unless_hidden = OnError::goto_if([libc::EACCES, libc::EACCES], passed);
        if has_setattr {
            let how = flags!(O_PATH | O_DIRECTORY | O_CLOEXEC);
            let place = helper.openat(Arg::CWD, &mount.point, how, 0);
            helper.last().on_error(unless_hidden);
            helper.mount_setattr(place, Change::top(Attributes::RDONLY));
            helper.close(place);
        } else {
            let point = helper.text(&mount.point);
            let how = old_flags(mount.attributes | Attributes::RDONLY);
            helper.call(nr!(SYS_mount), [Arg::NULL, point, Arg::NULL, how, Arg::NULL]).on_error(unless_hidden);
        }
        helper.bind(passed);
    }
    Ok(())
}

/// Whether a program that has the caller's mounts, below a directory, could write to a cgroup file system, as far as these
/// rules let it.
pub(crate) fn are_writable(below: &Path, rules: Option<&Landlock>) -> Result<bool> {
    let mounts = mountinfo::read_of_kind(b"cgroup")?.into_iter().map(HostMount::from);
    let mut seen = mounts.filter(|mount| mount.point.starts_with(below) && !mount.is_read_only());
    Ok(seen.any(|mount| rules.is_none_or(|rules| rules.allows_changes_at(&mount.point))))
}
