//! Sources of binds without a descriptor for each. A privileged caller's sources are opened before the namespaces of the
//! sandbox exist. If they are more than the descriptors that the caller may have, each is attached to a tmpfs at once, in
//! a mount namespace of its own. A copy of that tmpfs with all of them takes one descriptor. It is attached to the
//! scratch tmpfs, from which each source moves to its mount point.

use std::path::Path;

use super::builder::{Builder, Parking, make_mounts_private};
use super::operation::Operation;
use super::synthetic::tmpfs_options;
use super::target::MountPointKind;
use crate::advice::Need;
use crate::confine::facts::Facts;
use crate::confine::limits;
use crate::error::Result;
use crate::plan::{Arg, Attributes, Slot, Step, flags, nr};

/// The directory of the scratch tmpfs that the sources are attached to.
const DIRECTORY: &str = "sources";

/// Returns whether the binds among the operations have more sources than the caller may have descriptors.
pub(super) fn is_needed(operations: &[Operation], facts: &Facts) -> Result<bool> {
    /// For the descriptors of the entries of the host's root, of devices, and of the helper itself.
    const OTHERS: u64 = 128;
    if !facts.privileged || !facts.has_setattr() {
        return Ok(false);
    }
    let binds = operations.iter().filter(|mount| matches!(mount, Operation::Bind(_))).count() as u64;
    // The usual limits are far above.
    Ok(binds > 0 && binds + OTHERS > limits::descriptors()?.1)
}

impl Builder<'_> {
    /// Creates the tmpfs that sources are attached to until [`copy_parked`](Self::copy_parked), and attaches its copy.
    pub(super) fn begin_parking(&mut self, binds: usize) {
        let helper = &mut *self.context.helper;
        let tmpfs = helper.at_mark(|script| {
            let step = Step::new("create a mount namespace for the sources of binds");
            script.step(step.needs(Need::Namespaces(libc::CLONE_NEWNS as u64)));
            script.call(nr!(SYS_unshare), [flags!(CLONE_NEWNS)]);
            make_mounts_private(script);
            script.step(Step::new("create a tmpfs for the sources of binds").needs(Need::Tmpfs));
            let inodes = binds as u64 + 16;
            let tmpfs = script.file_system("tmpfs", &tmpfs_options(0o755, inodes << 12, inodes), Attributes::SAFE);
            script.move_mount_to(tmpfs, Arg::CWD, "/");
            tmpfs
        });
        let copy = helper.slot("sources");
        let scratch = self.scratch();
        let helper = &mut *self.context.helper;
        helper.step(Step::new("attach the sources of binds").needs(Need::Mounts));
        helper.mkdirat(scratch, DIRECTORY, 0o755);
        helper.move_mount_to(copy, scratch, DIRECTORY);
        helper.close(copy);
        self.parking = Some(Parking { tmpfs, copy, count: 0 });
    }

    /// Attaches a source to the tmpfs. Returns a slot that refers to it in its copy.
    pub(super) fn park(&mut self, tree: Slot, source: &Path, kind: MountPointKind) -> Slot {
        let scratch = self.scratch();
        let Some(Parking { tmpfs, count, .. }) = &mut self.parking else { return tree };
        *count += 1;
        let (tmpfs, name) = (*tmpfs, count.to_string());
        let step = || Step::new("keep the bind source").path(source).needs(Need::Mounts);
        self.context.helper.at_mark(|script| {
            script.step(step());
            match kind {
                MountPointKind::Directory => script.mkdirat(tmpfs, &name, 0o755),
                MountPointKind::File => script.create(tmpfs, &name, 0o444),
            }
            script.move_mount_to(tree, tmpfs, &name);
            script.close_and_free(tree);
        });
        self.context.helper.step(step());
        let parked = self.context.helper.reusable_slot("tree");
        self.context.helper.open_beneath(scratch, Path::new(DIRECTORY).join(name).as_os_str()).store_in(parked)
    }

    /// Copies the tmpfs with all sources, once all are attached, and detaches it.
    pub(super) fn copy_parked(&mut self) {
        let Some(Parking { tmpfs, copy, .. }) = self.parking else { return };
        self.context.helper.at_mark(|script| {
            script.step(Step::new("copy the sources of binds").needs(Need::Mounts));
            script.open_tree(tmpfs, "");
            script.last().store_in(copy);
            script.close(tmpfs);
            let slash = script.text("/");
            script.call(nr!(SYS_umount2), [slash, flags!(MNT_DETACH)]);
        });
    }
}
