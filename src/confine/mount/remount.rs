//! Attributes of mounts: by mount_setattr(2), and before Linux 5.12 by mount(2). With mount(2) a tree is attached in
//! the scratch tmpfs first, and each of its mounts is remounted (`MS_REMOUNT | MS_BIND`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::builder::{Builder, PendingReadOnly};
use super::target::{MountPointKind, kind_of};
use crate::advice::Need;
use crate::confine::mount_table::HostMount;
use crate::error::Result;
use crate::plan::{Arg, Attributes, Change, ConstantNames, Script, Slot, Step, flags, names, nr};

/// Returns attributes as flags of mount(2). The first four have the same numbers in both interfaces.
pub(super) fn old_flags(attributes: Attributes) -> Arg {
    static NAMES: ConstantNames = names![MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND];
    Arg::Bits((attributes.bits() | libc::MS_REMOUNT | libc::MS_BIND) as u32, &NAMES)
}

/// Calls mount(2) on the working directory, or on a name in it.
fn remount(helper: &mut Script, name: impl AsRef<OsStr>, flags: Arg) {
    let name = helper.text(name);
    helper.call(nr!(SYS_mount), [Arg::NULL, name, Arg::NULL, flags, Arg::NULL]);
}

impl Builder<'_> {
    /// Returns the submounts of a tree of the host, with paths relative to it.
    pub(super) fn submounts(&mut self, source: &Path) -> Result<Vec<HostMount>> {
        let below = self.context.facts.mounts()?.below(source).into_iter();
        Ok(below
            .filter_map(|mount| {
                let point = mount.point.strip_prefix(source).ok()?.to_owned();
                Some(HostMount { point, ..mount.clone() })
            })
            .collect())
    }

    /// Returns the attributes of the mount of a path of the host. In a user namespace none of them can be cleared.
    pub(super) fn attributes_at(&mut self, path: &Path) -> Result<Attributes> {
        Ok(self.context.facts.mounts()?.containing(path).map_or(Attributes::empty(), |mount| mount.attributes))
    }

    /// Sets the attributes of a tree of the host that is not attached yet, by mount(2).
    ///
    /// Mounts of single files in a tree that will be `writable` are writable at once. Nothing can be mounted below
    /// them, so they need no protection during the set-up, and mount(2) could not make them writable later.
    pub(super) fn restrict_by_remounts(
        &mut self,
        tree: Slot,
        source: &Path,
        set: Attributes,
        writable: bool,
    ) -> Result<()> {
        let top = (PathBuf::new(), self.attributes_at(source)?);
        let below = self.submounts(source)?;
        self.context.helper.step(Step::new("remount the bind of").path(source).needs(Need::Mounts));
        let (name, scratch) = (self.attach_in_scratch(tree, kind_of(source)), self.scratch());
        let helper = &mut *self.context.helper;
        helper.call(nr!(SYS_fchdir), [scratch.into()]);
        remount(helper, &name, flags!(MS_REC | MS_PRIVATE));
        let below = below.into_iter().map(|mount| (mount.point, mount.attributes));
        for (point, own) in std::iter::once(top).chain(below) {
            let kind = kind_of(&source.join(&point));
            let mut attributes = set | own;
            if writable && kind == MountPointKind::File {
                attributes.set(Attributes::RDONLY, own.contains(Attributes::RDONLY));
            }
            // By its name in the directory above: the user may be unable to enter it.
            let place = Path::new(&name).join(&point);
            let name = place.file_name().unwrap_or_default().to_owned();
            match place.parent().filter(|above| !above.as_os_str().is_empty()) {
                Some(above) => {
                    let above = helper.open_beneath(scratch, above.as_os_str()).store("directory");
                    helper.call(nr!(SYS_fchdir), [above.into()]);
                    helper.close(above);
                }
                None => {
                    helper.call(nr!(SYS_fchdir), [scratch.into()]);
                }
            }
            remount(helper, &name, old_flags(attributes));
        }
        Ok(())
    }

    /// Makes the file systems read-only in which all operations have created their entries.
    pub(super) fn make_read_only(&mut self) {
        for PendingReadOnly { mount, step, attributes } in std::mem::take(&mut self.read_only_later) {
            self.context.helper.step(Step::new(step).needs(Need::Mounts));
            self.set_top(mount, attributes);
        }
    }

    /// Sets the attributes of an attached mount of the sandbox to `all`.
    pub(super) fn set_top(&mut self, mount: Slot, all: Attributes) {
        let has_setattr = self.has_setattr();
        let helper = &mut *self.context.helper;
        if has_setattr {
            let change = Change { clear: Attributes::RDONLY - all, ..Change::top(all & Attributes::RDONLY) };
            helper.mount_setattr(mount, change);
        } else {
            helper.call(nr!(SYS_fchdir), [mount.into()]);
            remount(helper, ".", old_flags(all));
        }
    }

    /// Sets the attributes of an attached mount of the sandbox, and of the mounts on `names` in it.
    pub(super) fn restrict_mounts(&mut self, mount: Slot, names: &[&str], set: Attributes) {
        let has_setattr = self.has_setattr();
        let helper = &mut *self.context.helper;
        if has_setattr {
            helper.mount_setattr(mount, Change::tree(set));
            return;
        }
        helper.call(nr!(SYS_fchdir), [mount.into()]);
        remount(helper, ".", flags!(MS_REC | MS_PRIVATE));
        for name in names.iter().chain(&["."]) {
            remount(helper, name, old_flags(set));
        }
    }

    /// Sets the attributes of a bind of a file or directory of the scratch tmpfs.
    pub(super) fn restrict_own(&mut self, tree: Slot, kind: MountPointKind, set: Attributes) {
        if self.has_setattr() {
            self.context.helper.mount_setattr(tree, Change::tree(set));
            return;
        }
        let (name, scratch) = (self.attach_in_scratch(tree, kind), self.scratch());
        self.context.helper.call(nr!(SYS_fchdir), [scratch.into()]);
        remount(self.context.helper, &name, old_flags(set));
    }
}
