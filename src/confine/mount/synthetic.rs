//! Operations that need nothing of the host: tmpfs, proc, files, masks, and making a tree read-only.

use std::path::Path;

use super::bind_calls::Reach;
use super::builder::Builder;
use super::file_owner::Owner;
use super::proc::Proc;
use super::target::{MountPointKind, Target};
use super::tmpfs::Tmpfs;
use crate::advice::Need;
use crate::confine::namespaces::{self, Namespaces};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{Attributes, Change, Script, Slot, Step, flags};

/// The default size of a tmpfs, in bytes.
const DEFAULT_SIZE: u64 = 512 << 20;

/// Returns the options of a tmpfs. A size and a number of inodes are always set: the kernel's default is half of the
/// memory.
pub(super) fn tmpfs_options(mode: u32, size: u64, inodes: u64) -> [(&'static str, Option<String>); 3] {
    [("mode", Some(format!("{mode:o}"))), ("size", Some(size.to_string())), ("nr_inodes", Some(inodes.to_string()))]
}

/// Returns the options of a tmpfs, with defaults for the limits that are not set.
pub(super) fn tmpfs_options_or_default(
    mode: u32,
    size: Option<u64>,
    inodes: Option<u64>,
) -> Result<[(&'static str, Option<String>); 3]> {
    let size = checked_limit("bytes", size)?.unwrap_or(DEFAULT_SIZE);
    // A file that is not empty takes a page. The kernel counts 1 KB of memory for each inode (`BOGO_INODE_SIZE`), and
    // rejects a number for which that overflows.
    let inodes = checked_limit("inodes", inodes)?.unwrap_or((size / 4096).max(1024)).min(u64::MAX >> 10);
    Ok(tmpfs_options(mode, size, inodes))
}

/// Returns an error if a limit of a tmpfs is 0, which the kernel takes for no limit.
fn checked_limit(what: &str, value: Option<u64>) -> Result<Option<u64>> {
    match value {
        Some(0) => Err(Error::invalid(
            format!("a tmpfs has a limit of 0 {what}, which the kernel takes for no limit"),
            "use a limit of at least 1, or make the directory read-only",
        )),
        value => Ok(value),
    }
}

fn proc_step(script: &mut Script, proc: &Proc) {
    script.step(Step::new("mount a proc file system on").path(&proc.target).needs(Need::Proc).remedies(&[(
        libc::EINVAL,
        "the kernel does not support an option: use Linux 5.8 or later, or remove hidepid and subset_pid",
    )]));
}

/// Opens a proc file system of the PID namespace of the process that executes the script.
pub(super) fn open_proc(script: &mut Script, proc: &Proc) -> Slot {
    proc_step(script, proc);
    let mut options = vec![];
    options.extend(proc.hidepid.map(|hidepid| ("hidepid", Some((hidepid as u8).to_string()))));
    options.extend(proc.subset_pid.then(|| ("subset", Some("pid".into()))));
    script.open_file_system("proc", &options)
}

impl Builder<'_> {
    /// Carries out [`Operation::Tmpfs`](super::Operation::Tmpfs).
    pub(super) fn tmpfs(&mut self, tmpfs: &Tmpfs) -> Result<()> {
        let target = Target::new(&tmpfs.target)?;
        let options = tmpfs_options_or_default(tmpfs.mode.checked(&tmpfs.target)?, tmpfs.size, tmpfs.inodes)?;
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::NOEXEC, tmpfs.noexec);
        target.step(self.context.helper, "mount a tmpfs on");
        let mount = self.context.helper.file_system("tmpfs", &options, attributes);
        self.attach(mount, &target, MountPointKind::Directory);
        self.context.helper.close(mount);
        Ok(())
    }

    /// Carries out [`Operation::Proc`](super::Operation::Proc).
    pub(super) fn proc(&mut self, proc: &Proc) -> Result<()> {
        let target = Target::new(&proc.target)?;
        let mut safe = Attributes::SAFE | Attributes::NOEXEC;
        // Their owner can write to the settings of the machine without any capability (proc_sys(5)).
        safe.set(Attributes::RDONLY, self.context.identity.reaches_host_root());
        if !self.context.namespaces.all().contains(Namespaces::PID) {
            if proc.hidepid.is_some() || proc.subset_pid {
                return Err(Error::invalid(
                    "Proc::hidepid and Proc::subset_pid require a PID namespace",
                    "add Namespaces::PID, or remove these options",
                ));
            }
            let tree =
                self.tree(Path::new("/proc"), None, safe | Attributes::RDONLY, Owner::Nobody, Reach::Tree, false)?;
            self.attach_own(tree, &target);
            self.context.helper.close(tree);
            return Ok(());
        }
        // If the PID namespace is new, init has opened the file system.
        self.context.proc_mounts.wait(self.context.helper);
        let opened = self.context.proc_mounts.opened.next();
        proc_step(self.context.helper, proc);
        let fs =
            opened.unwrap_or_else(|| namespaces::in_joined_pids(self.context.helper, |child| open_proc(child, proc)));
        let mount = self.context.helper.mount_of(fs, safe);
        self.attach_own(mount, &target);
        self.context.helper.close(mount);
        Ok(())
    }

    /// Carries out [`Operation::File`](super::Operation::File).
    pub(super) fn file(&mut self, target: &Target, contents: &[u8], mode: u32, writable: bool) {
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::RDONLY, !writable);
        let (name, scratch) = (self.new_name(), self.scratch());
        let helper = &mut *self.context.helper;
        target.step(helper, "write the file");
        let file = helper.openat(scratch, &name, flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), mode);
        helper.write_contents(file, contents);
        helper.close(file);
        let tree = helper.open_tree(scratch, &name);
        self.restrict_own(tree, MountPointKind::File, attributes);
        self.attach(tree, target, MountPointKind::File);
        self.context.helper.close(tree);
    }

    /// Carries out [`Operation::Mask`](super::Operation::Mask).
    pub(super) fn mask(&mut self, target: &Target) {
        self.mask_unless(target, [libc::ENOENT, libc::ENOTDIR]);
    }

    /// Masks a path, unless the sandbox's user cannot reach it anyway.
    pub(super) fn mask_reachable(&mut self, target: &Target) {
        self.mask_unless(target, [libc::ENOENT, libc::EACCES]);
    }

    /// Masks a path, unless opening it fails with one of these errors.
    fn mask_unless(&mut self, target: &Target, hidden: [i32; 2]) {
        let (file, absent) = (self.context.helper.label(), self.context.helper.label());
        target.step(self.context.helper, "mask");
        let place = target.open_or(self.context.helper, self.root, hidden, absent);
        let directory = self.inaccessible("empty-directory", MountPointKind::Directory);
        self.context.helper.move_mount(directory, place).or_goto(file);
        self.context.helper.close(directory);
        self.context.helper.close(place);
        self.context.helper.jump(absent);
        self.context.helper.bind(file);
        self.context.helper.close(directory);
        let mask = self.inaccessible("empty-file", MountPointKind::File);
        self.context.helper.move_mount(mask, place);
        self.context.helper.close(mask);
        self.context.helper.close(place);
        self.context.helper.bind(absent);
    }

    /// Returns a mount of a file or directory of the scratch tmpfs that no user can open.
    fn inaccessible(&mut self, name: &str, kind: MountPointKind) -> Slot {
        let tree = self.context.helper.open_tree(self.scratch(), name);
        self.restrict_own(tree, kind, Attributes::RDONLY | Attributes::SAFE | Attributes::NOEXEC);
        tree
    }

    /// Carries out [`Operation::ReadOnly`](super::Operation::ReadOnly).
    pub(super) fn read_only(&mut self, target: &Target) -> Result<()> {
        if !self.has_setattr() {
            return Err(Error::unsupported(
                Layer::Root,
                "Root::read_only requires mount_setattr(2), which the kernel lacks",
                "use Linux 5.12 or later, or bind the directory read-only",
            ));
        }
        target.step(self.context.helper, "make read-only");
        let place = target.open(self.context.helper, self.root);
        let tree = self.context.helper.open_tree(place, "");
        self.context.helper.mount_setattr(tree, Change::tree(Attributes::RDONLY));
        self.context.helper.move_mount(tree, place);
        self.context.helper.close(place);
        self.context.helper.close(tree);
        Ok(())
    }
}
