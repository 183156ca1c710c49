//! What is the sandbox's own: file systems of the kernel's, files, and what takes something away.

use std::path::Path;

use super::bind::Seen;
use super::lower::Builder;
use super::target::{Kind, Target};
use super::{Owner, Proc, Tmpfs};
use crate::confine::namespaces::{self, Namespaces};
use crate::error::{Error, Result};
use crate::plan::{Attributes, Change, Program, Slot, Step, flags};

/// Bytes that a tmpfs holds unless another size is set.
const SIZE: u64 = 512 << 20;

/// The options of a tmpfs. Each has a size and a number of inodes: without, the kernel lets it have half of the memory.
pub(super) fn tmpfs_options(mode: u32, size: u64, inodes: u64) -> [(&'static str, Option<String>); 3] {
    [("mode", Some(format!("{mode:o}"))), ("size", Some(size.to_string())), ("nr_inodes", Some(inodes.to_string()))]
}

/// The options of a tmpfs whose limits may be left to the default.
pub(super) fn limited_tmpfs(
    mode: u32,
    size: Option<u64>,
    inodes: Option<u64>,
) -> Result<[(&'static str, Option<String>); 3]> {
    let size = limit("bytes", size)?.unwrap_or(SIZE);
    // A file with anything in it takes a page. The kernel counts 1 KB of memory for each (`BOGO_INODE_SIZE`), and takes no
    // more of them than that can be counted.
    let inodes = limit("inodes", inodes)?.unwrap_or((size / 4096).max(1024)).min(u64::MAX >> 10);
    Ok(tmpfs_options(mode, size, inodes))
}

/// A limit of a tmpfs. The kernel takes 0 for none.
fn limit(what: &str, value: Option<u64>) -> Result<Option<u64>> {
    match value {
        Some(0) => Err(Error::invalid(
            format!("a tmpfs can't be limited to 0 {what}: the kernel takes that for no limit"),
            "limit it to at least 1, or make the directory read-only",
        )),
        value => Ok(value),
    }
}

fn proc_step(program: &mut Program, proc: &Proc) {
    program.step(Step::new("mounting a proc file system on").path(&proc.target).remedies(&[
        (
            libc::EPERM,
            "the /proc of this container is partly masked, so the kernel refuses a new one: run the container with an \
             unmasked /proc, or leave Namespaces::PID out and share the container's processes",
        ),
        (libc::EINVAL, "the kernel does not know an option (hidepid by name and subset since Linux 5.8)"),
    ]));
}

/// A proc file system of the pid namespace that the process is in.
pub(super) fn open_proc(program: &mut Program, proc: &Proc) -> Slot {
    proc_step(program, proc);
    let mut options = vec![];
    options.extend(proc.hidepid.map(|hidepid| ("hidepid", Some((hidepid as u8).to_string()))));
    options.extend(proc.subset_pid.then(|| ("subset", Some("pid".into()))));
    program.open_file_system("proc", &options)
}

impl Builder<'_> {
    pub(super) fn tmpfs(&mut self, tmpfs: &Tmpfs) -> Result<()> {
        let target = Target::new(&tmpfs.target)?;
        let options = limited_tmpfs(tmpfs.mode, tmpfs.size, tmpfs.inodes)?;
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::NOEXEC, tmpfs.noexec);
        target.step(self.l.helper, "making a tmpfs for");
        let mount = self.l.helper.file_system("tmpfs", &options, attributes);
        self.attach(mount, &target, Kind::Directory);
        self.l.helper.close(mount);
        Ok(())
    }

    pub(super) fn proc(&mut self, proc: &Proc) -> Result<()> {
        let target = Target::new(&proc.target)?;
        let mut safe = Attributes::SAFE | Attributes::NOEXEC;
        // The settings of the machine are writable for their owner, without any capability (proc_sys(5)).
        safe.set(Attributes::RDONLY, self.l.who.reaches_host_root());
        if !self.l.chosen.all().contains(Namespaces::PID) {
            if proc.hidepid.is_some() || proc.subset_pid {
                return Err(Error::invalid(
                    "the options of /proc need one of the sandbox's own",
                    "add Namespaces::PID, or leave hidepid and subset_pid out",
                ));
            }
            let tree = self.tree(Path::new("/proc"), safe | Attributes::RDONLY, Owner::Nobody, Seen::Tree, false)?;
            self.attach_own(tree, &target);
            return Ok(());
        }
        // One of a pid namespace that was made is the init's.
        self.l.procs.wait(self.l.helper);
        let made = self.l.procs.made.next();
        proc_step(self.l.helper, proc);
        let fs = made.unwrap_or_else(|| namespaces::in_joined_pids(self.l.helper, |child| open_proc(child, proc)));
        let mount = self.l.helper.mount_of(fs, safe);
        self.attach_own(mount, &target);
        self.l.helper.close(mount);
        Ok(())
    }

    pub(super) fn file(&mut self, target: &Target, contents: &[u8], mode: u32) {
        let (name, scratch) = (self.name(), self.scratch());
        let helper = &mut *self.l.helper;
        target.step(helper, "writing the contents of");
        let file = helper.openat(scratch, &name, flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), mode);
        let bytes = helper.arena.bytes(contents, format!("<{} bytes>", contents.len()));
        helper.write(file, bytes, contents.len());
        helper.close(file);
        let tree = helper.open_tree(scratch, &name);
        self.restrict_own(tree, Kind::File, Attributes::RDONLY | Attributes::SAFE);
        self.attach(tree, target, Kind::File);
        self.l.helper.close(tree);
    }

    pub(super) fn mask(&mut self, target: &Target) {
        self.mask_unless(target, [libc::ENOENT, libc::ENOTDIR]);
    }

    /// The same of what the program may be unable to reach anyway.
    pub(super) fn mask_reachable(&mut self, target: &Target) {
        self.mask_unless(target, [libc::ENOENT, libc::EACCES]);
    }

    fn mask_unless(&mut self, target: &Target, hidden: [i32; 2]) {
        let (file, absent) = (self.l.helper.label(), self.l.helper.label());
        target.step(self.l.helper, "masking");
        let place = target.open_or(self.l.helper, self.root, hidden, absent);
        let directory = self.nothing("nothing", Kind::Directory);
        self.l.helper.move_mount(directory, place).or_goto(file);
        self.l.helper.jump(absent);
        self.l.helper.bind(file);
        let nobody = self.nothing("nobody", Kind::File);
        self.l.helper.move_mount(nobody, place);
        self.l.helper.bind(absent);
    }

    /// A mount of something in the scratch tmpfs that nobody can open.
    fn nothing(&mut self, name: &str, kind: Kind) -> Slot {
        let tree = self.l.helper.open_tree(self.scratch(), name);
        self.restrict_own(tree, kind, Attributes::RDONLY | Attributes::SAFE | Attributes::NOEXEC);
        tree
    }

    pub(super) fn read_only(&mut self, target: &Target) -> Result<()> {
        if !self.has_setattr() {
            return Err(Error::invalid(
                "Root::read_only needs mount_setattr(2), to be recursive",
                "use Linux 5.12 or later, or bind the parts read-only",
            ));
        }
        target.step(self.l.helper, "making read-only");
        let place = target.open(self.l.helper, self.root);
        let tree = self.l.helper.open_tree(place, "");
        self.l.helper.mount_setattr(tree, Change::tree(Attributes::RDONLY));
        self.l.helper.move_mount(tree, place);
        self.l.helper.close(place);
        self.l.helper.close(tree);
        Ok(())
    }
}
