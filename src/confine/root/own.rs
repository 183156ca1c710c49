//! What is the sandbox's own: file systems of the kernel's, files, and what takes something away.

use std::path::Path;

use super::lower::Builder;
use super::target::{Kind, Target};
use super::{Owner, Proc, Tmpfs};
use crate::confine::namespaces::{self, Namespaces};
use crate::error::{Error, Result};
use crate::plan::{Attributes, Change, Slot, Step, flags};

/// A limit of a tmpfs. The kernel takes 0 for none.
pub(super) fn limit(
    option: &'static str,
    what: &str,
    value: Option<u64>,
) -> Result<Option<(&'static str, Option<String>)>> {
    match value {
        Some(0) => Err(Error::invalid(
            format!("a tmpfs can't be limited to 0 {what}: the kernel takes that for no limit"),
            "limit it to at least 1, or make the directory read-only",
        )),
        value => Ok(value.map(|value| (option, Some(value.to_string())))),
    }
}

impl Builder<'_> {
    pub(super) fn tmpfs(&mut self, tmpfs: &Tmpfs) -> Result<()> {
        let target = Target::new(&tmpfs.target)?;
        let mut options = vec![("mode", Some(format!("{:o}", tmpfs.mode)))];
        options.extend(limit("size", "bytes", tmpfs.size)?);
        options.extend(limit("nr_inodes", "inodes", tmpfs.inodes)?);
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::NOEXEC, tmpfs.noexec);
        target.step(self.l.init, "making a tmpfs for");
        let mount = self.l.init.file_system("tmpfs", &options, attributes);
        self.attach(mount, &target, Kind::Directory);
        self.l.init.close(mount);
        Ok(())
    }

    pub(super) fn proc(&mut self, proc: &Proc) -> Result<()> {
        let target = Target::new(&proc.target)?;
        let safe = Attributes::SAFE | Attributes::NOEXEC;
        if !self.l.chosen.all().contains(Namespaces::PID) {
            if proc.hidepid.is_some() || proc.subset_pid {
                return Err(Error::invalid(
                    "the options of /proc need one of the sandbox's own",
                    "add Namespaces::PID, or leave hidepid and subset_pid out",
                ));
            }
            let tree = self.tree(Path::new("/proc"), safe | Attributes::RDONLY, Owner::Nobody, false)?;
            self.attach_own(tree, &target);
            return Ok(());
        }
        let mut options = vec![];
        options.extend(proc.hidepid.map(|hidepid| ("hidepid", Some((hidepid as u8).to_string()))));
        options.extend(proc.subset_pid.then(|| ("subset", Some("pid".into()))));
        self.l.init.step(Step::new("mounting a proc file system on").path(&proc.target).remedies(&[
            (
                libc::EPERM,
                "the /proc of this container is partly masked, so the kernel refuses a new one: run the container \
                 with an unmasked /proc, or leave Namespaces::PID out and share the container's processes",
            ),
            (libc::EINVAL, "the kernel does not know an option (hidepid by name and subset since Linux 5.8)"),
        ]));
        let mount =
            namespaces::in_joined_pids(self.l.chosen, self.l.init, |init| init.file_system("proc", &options, safe));
        self.attach_own(mount, &target);
        self.l.init.close(mount);
        Ok(())
    }

    pub(super) fn file(&mut self, target: &Target, contents: &[u8], mode: u32) {
        let (name, scratch) = (self.name(), self.scratch());
        let init = &mut *self.l.init;
        target.step(init, "writing the contents of");
        let file = init.openat(scratch, &name, flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), mode);
        let bytes = init.arena.bytes(contents, format!("<{} bytes>", contents.len()));
        init.write(file, bytes, contents.len());
        init.close(file);
        let tree = init.open_tree(scratch, &name);
        self.restrict_own(tree, Kind::File, Attributes::RDONLY | Attributes::SAFE);
        self.attach(tree, target, Kind::File);
        self.l.init.close(tree);
    }

    pub(super) fn mask(&mut self, target: &Target) {
        let (file, absent) = (self.l.init.label(), self.l.init.label());
        target.step(self.l.init, "masking");
        let place = target.open_or(self.l.init, self.root, absent);
        let directory = self.nothing("nothing", Kind::Directory);
        self.l.init.move_mount(directory, place).or_goto(file);
        self.l.init.jump(absent);
        self.l.init.bind(file);
        let nobody = self.nothing("nobody", Kind::File);
        self.l.init.move_mount(nobody, place);
        self.l.init.bind(absent);
    }

    /// A mount of something in the scratch tmpfs that nobody can open.
    fn nothing(&mut self, name: &str, kind: Kind) -> Slot {
        let tree = self.l.init.open_tree(self.scratch(), name);
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
        target.step(self.l.init, "making read-only");
        let place = target.open(self.l.init, self.root);
        let tree = self.l.init.open_tree(place, "");
        self.l.init.mount_setattr(tree, Change::tree(Attributes::RDONLY));
        self.l.init.move_mount(tree, place);
        self.l.init.close(place);
        self.l.init.close(tree);
        Ok(())
    }
}
