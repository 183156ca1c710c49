//! Attributes of mounts, by mount_setattr(2), or, on kernels before 5.12, by the old interface: there a mount is attached
//! in the scratch tmpfs first, and remounted mount by mount (mount(2), `MS_REMOUNT | MS_BIND`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::lower::Builder;
use super::target::{Kind, kind_of};
use crate::confine::mountinfo::HostMount;
use crate::error::Result;
use crate::plan::{Arg, Attributes, Change, Names, Program, Slot, Step, flags, names, nr};

/// Attributes as flags of mount(2): the first four have the same numbers in both interfaces.
pub(super) fn old_flags(attributes: Attributes) -> Arg {
    static NAMES: Names = names![MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND];
    Arg::Bits((attributes.bits() | libc::MS_REMOUNT | libc::MS_BIND) as u32, &NAMES)
}

/// mount(2) of the working directory, or of a name in it.
fn remount(helper: &mut Program, name: impl AsRef<OsStr>, flags: Arg) {
    let name = helper.text(name);
    helper.call(nr!(SYS_mount), [Arg::NULL, name, Arg::NULL, flags, Arg::NULL]);
}

impl Builder<'_> {
    /// Whether the kernel has mount_setattr(2).
    pub(super) fn has_setattr(&self) -> bool {
        self.l.host.has_setattr()
    }

    /// The submounts of a tree of the host's, with their paths relative to it.
    pub(super) fn submounts(&mut self, source: &Path) -> Result<Vec<HostMount>> {
        let below = self.l.host.mounts()?.below(source).into_iter();
        Ok(below
            .filter_map(|mount| {
                let point = mount.point.strip_prefix(source).ok()?.to_owned();
                Some(HostMount { point, ..mount.clone() })
            })
            .collect())
    }

    /// The attributes that a place of the host has already; a user namespace may take none of them away.
    pub(super) fn attributes_at(&mut self, path: &Path) -> Result<Attributes> {
        Ok(self.l.host.mounts()?.containing(path).map_or(Attributes::empty(), |mount| mount.attributes))
    }

    /// By the old interface: restricts a tree of the host's that is attached nowhere yet.
    ///
    /// What can't hold a mount point needs no protection while the sandbox is set up, and can't be let go by the old
    /// interface either: files of a tree that will be `writable` are so at once.
    pub(super) fn restrict_by_remounts(
        &mut self,
        tree: Slot,
        source: &Path,
        set: Attributes,
        writable: bool,
    ) -> Result<()> {
        let top = (PathBuf::new(), self.attributes_at(source)?);
        let below = self.submounts(source)?;
        self.l.helper.step(Step::new("restricting a bind, mount by mount").path(source));
        let (name, scratch) = (self.put(tree, kind_of(source)), self.scratch());
        let helper = &mut *self.l.helper;
        helper.call(nr!(SYS_fchdir), [scratch.into()]);
        remount(helper, &name, flags!(MS_REC | MS_PRIVATE));
        let below = below.into_iter().map(|mount| (mount.point, mount.attributes));
        for (point, own) in std::iter::once(top).chain(below) {
            let kind = kind_of(&source.join(&point));
            let mut attributes = set | own;
            if writable && kind == Kind::File {
                attributes.set(Attributes::RDONLY, own.contains(Attributes::RDONLY));
            }
            // By its name in the directory above: the user need not be able to enter it.
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

    /// Sets the attributes of a mount of the sandbox's own that is attached, whose attributes are then `all`.
    pub(super) fn set_top(&mut self, mount: Slot, all: Attributes) {
        let new = self.has_setattr();
        let helper = &mut *self.l.helper;
        if new {
            let change = Change { clear: Attributes::RDONLY - all, ..Change::top(all & Attributes::RDONLY) };
            helper.mount_setattr(mount, change);
        } else {
            helper.call(nr!(SYS_fchdir), [mount.into()]);
            remount(helper, ".", old_flags(all));
        }
    }

    /// Makes an attached mount of the sandbox's own, and those on `names` in it, private and restricts them.
    pub(super) fn restrict_places(&mut self, mount: Slot, names: &[&str], set: Attributes) {
        let new = self.has_setattr();
        let helper = &mut *self.l.helper;
        if new {
            helper.mount_setattr(mount, Change::tree(set));
            return;
        }
        helper.call(nr!(SYS_fchdir), [mount.into()]);
        remount(helper, ".", flags!(MS_REC | MS_PRIVATE));
        for name in names.iter().chain(&["."]) {
            remount(helper, name, old_flags(set));
        }
    }

    /// Restricts a copy of a file or directory of the scratch tmpfs.
    pub(super) fn restrict_own(&mut self, tree: Slot, kind: Kind, set: Attributes) {
        if self.has_setattr() {
            self.l.helper.mount_setattr(tree, Change::tree(set));
            return;
        }
        let (name, scratch) = (self.put(tree, kind), self.scratch());
        self.l.helper.call(nr!(SYS_fchdir), [scratch.into()]);
        remount(self.l.helper, &name, old_flags(set));
    }
}
