//! Cgroup file systems in an inherited root: the program must not change its own limits, nor those of others. The
//! limits themselves are set in `cgroup`.

use std::path::Path;

use crate::advice::Need;
use crate::confine::landlock::Ruleset;
use crate::confine::mount_table::HostMount;
use crate::error::{Error, Result};
use crate::mountinfo;
use crate::plan::{Arg, Attributes, Change, OnError, Script, Step, flags, nr};

use super::remount::old_flags;

/// Makes every cgroup file system read-only in the sandbox's mount namespace.
pub(super) fn make_read_only(helper: &mut Script, has_setattr: bool) -> Result<()> {
    for mount in mountinfo::read_of_kind(b"cgroup").map_err(Error::mounts)?.into_iter().map(HostMount::from) {
        if mount.is_read_only() {
            continue;
        }
        helper.step(Step::new("make the cgroup file system read-only at").path(&mount.point).needs(Need::Mounts));
        // A mount that the sandbox's user cannot enter is hidden from the program too.
        let skip = helper.label();
        let unless_hidden = OnError::goto_if([libc::EACCES, libc::EACCES], skip);
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
        helper.bind(skip);
    }
    Ok(())
}

/// Returns whether a program with the caller's mounts below a directory could write to a cgroup file system, if it is
/// restricted by these rulesets.
pub(crate) fn are_writable(below: &Path, rulesets: &[Ruleset<'_>]) -> Result<bool> {
    let mounts = mountinfo::read_of_kind(b"cgroup").map_err(Error::mounts)?.into_iter().map(HostMount::from);
    let mut writable = mounts.filter(|mount| mount.point.starts_with(below) && !mount.is_read_only());
    Ok(writable.any(|mount| rulesets.iter().all(|set| set.rules.allows_changes_at(&mount.point))))
}
