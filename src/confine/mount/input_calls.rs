//! Inputs: a tmpfs in which each declared file is a mount point. The files are copied from a mount of their directory, which
//! has the attributes and the ID mapping already, so that none has to be set for each file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::bind_calls::Reach;
use super::builder::{Builder, PendingReadOnly};
use super::input_entries::{InputEntries, InputEntry, InputKind};
use super::inputs::Inputs;
use super::synthetic::tmpfs_options;
use super::target::{MountPointKind, Target};
use crate::advice::Need;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{Attributes, Script, Slot, Step};

const INPUT_HINTS: &[(i32, &str)] = &[
    (libc::ENOENT, "it was removed after it was looked up: spawn again"),
    (
        libc::EACCES,
        "the sandbox's user may not enter a directory above it: grant access, or use Root::bind for this input",
    ),
    (libc::ELOOP, "a directory above it was replaced by a symlink after it was looked up: spawn again"),
    (libc::ENOTDIR, "it was replaced by a directory, or a directory above it by a file: spawn again"),
    (libc::ENOSPC, "too many mounts: raise /proc/sys/fs/mount-max, or declare directories instead of files"),
];

impl Builder<'_> {
    /// Carries out [`Operation::Inputs`](super::Operation::Inputs).
    pub(super) fn inputs(&mut self, inputs: &Inputs) -> Result<()> {
        if !self.has_setattr() {
            return Err(Error::unsupported(
                Layer::Root,
                "Root::inputs requires mount_setattr(2), which the kernel lacks",
                "use Linux 5.12 or later, or Root::bind for each input",
            ));
        }
        let target = Target::new(&inputs.target)?;
        let found = inputs.entries(self.context.facts)?;
        let sources = self.directories_of_inputs(&found.directories, inputs)?;
        let top = self.tmpfs_for_inputs(&target, &found);
        self.show_inputs(&inputs.target, top, &sources, &found);
        for directory in sources {
            self.context.helper.close_and_free(directory);
        }
        for entry in found.entries.iter().filter(|entry| matches!(entry.kind, InputKind::Directory)) {
            self.cut_off(&found.source(entry), &inputs.target.join(entry.to), inputs.owner)?;
        }
        let attributes = Attributes::SAFE | Attributes::RDONLY;
        self.read_only_later.push(PendingReadOnly { mount: top, step: "make the inputs read-only", attributes });
        Ok(())
    }

    /// Mounts the directories that inputs are from, read-only, in the scratch tmpfs: a mount can be copied only where it is
    /// attached.
    fn directories_of_inputs(&mut self, directories: &[PathBuf], inputs: &Inputs) -> Result<Vec<Slot>> {
        let attributes = Attributes::RDONLY | Attributes::SAFE;
        let mount = |path: &PathBuf| {
            let tree = self.tree(path, None, attributes, inputs.owner, Reach::TreeWithoutEndpoints, false)?;
            self.context.helper.step(Step::new("attach the directory of inputs").path(path).needs(Need::Mounts));
            self.attach_in_scratch(tree, MountPointKind::Directory);
            Ok(tree)
        };
        directories.iter().map(mount).collect()
    }

    fn tmpfs_for_inputs(&mut self, target: &Target, found: &InputEntries<'_>) -> Slot {
        let above = found.entries.iter().map(|entry| entry.to.components().count()).sum::<usize>();
        // For mount points of operations that follow, too.
        let inodes = above as u64 + 1024;
        target.step(self.context.helper, "mount a tmpfs for inputs on");
        let options = tmpfs_options(0o755, inodes << 12, inodes);
        let top = self.context.helper.file_system("tmpfs", &options, Attributes::SAFE);
        self.attach(top, target, MountPointKind::Directory);
        top
    }

    fn show_inputs(&mut self, target: &Path, top: Slot, sources: &[Slot], found: &InputEntries<'_>) {
        let helper = &mut *self.context.helper;
        let mut made = BTreeSet::new();
        let (mut place, mut source) = (Open::default(), Open::default());
        for entry in &found.entries {
            helper.step(
                Step::new("bind the input").path(target.join(entry.to)).needs(Need::Mounts).remedies(INPUT_HINTS),
            );
            let above = parent(entry.to);
            if !place.is_at(top, above) {
                make_directories(helper, top, above, &mut made);
                place.change(helper, top, above);
            }
            let directory = place.slot(top);
            let is_directory = match &entry.kind {
                InputKind::Symlink(text) => {
                    helper.symlinkat(text, directory, name(entry.to));
                    continue;
                }
                InputKind::Directory => true,
                InputKind::File => false,
            };
            match is_directory {
                true => helper.mkdirat(directory, name(entry.to), 0o755),
                false => helper.create(directory, name(entry.to), 0o444),
            }
            let InputEntry { set, from, .. } = entry;
            if !source.is_at(sources[*set], parent(from)) {
                source.change(helper, sources[*set], parent(from));
            }
            let tree = helper.open_tree(source.slot(sources[*set]), name(from));
            helper.move_mount_to(tree, directory, name(entry.to));
            helper.close_and_free(tree);
        }
        place.close(helper);
        source.close(helper);
    }
}

/// The directory that was opened last, below another one.
#[derive(Default)]
struct Open<'a>(Option<(Slot, &'a Path, Option<Slot>)>);

impl<'a> Open<'a> {
    fn is_at(&self, top: Slot, path: &Path) -> bool {
        self.0.is_some_and(|(known_top, known, _)| known_top == top && known == path)
    }

    /// Closes it, and opens another one.
    fn change(&mut self, helper: &mut Script, top: Slot, path: &'a Path) {
        self.close(helper);
        let below = (path != Path::new("")).then(|| {
            let directory = helper.reusable_slot("directory");
            helper.open_beneath(top, path.as_os_str()).store_in(directory)
        });
        self.0 = Some((top, path, below));
    }

    fn slot(&self, top: Slot) -> Slot {
        self.0.and_then(|(_, _, below)| below).unwrap_or(top)
    }

    fn close(&mut self, helper: &mut Script) {
        if let Some((_, _, Some(directory))) = self.0.take() {
            helper.close_and_free(directory);
        }
    }
}

/// Creates the directories of a path that were not created before.
fn make_directories<'a>(helper: &mut Script, top: Slot, path: &'a Path, made: &mut BTreeSet<&'a Path>) {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|above| *above != Path::new("") && made.insert(above)).collect();
    for directory in missing.into_iter().rev() {
        helper.mkdirat(top, directory, 0o755);
    }
}

/// Returns the directory above an input, which is empty for the top.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}
