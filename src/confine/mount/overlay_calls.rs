//! Overlays. Their layers are mounted in the scratch tmpfs under plain names, so that a mount option never contains a
//! path of the host.

use std::path::{Path, PathBuf};

use super::bind_calls::Reach;
use super::builder::Builder;
use super::file_owner::Owner;
use super::operation::Operation;
use super::overlay::{Overlay, Upper};
use super::source::resolve_source;
use super::synthetic::tmpfs_options_or_default;
use super::target::{MountPointKind, Target};
use crate::advice::Need;
use crate::confine::facts::Facts;
use crate::confine::namespaces::Namespaces;
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::plan::{Attributes, Change, Script, Slot, Step, nr};

/// The layers of an overlay, as paths relative to the scratch tmpfs.
pub(super) struct StagedLayers {
    lowers: Vec<String>,
    upper: String,
    work: String,
    /// Whether changes are written to a directory of the host.
    keeps_changes: bool,
}

const OVERLAY_HINTS: &[(i32, &str)] = &[
    (
        libc::EINVAL,
        "a layer has mounts in it that this user may not separate, its file system does not support overlays, or upper and work are on different file systems: see dmesg(1), and use other directories",
    ),
    (libc::EBUSY, "another overlay uses upper or work: use other directories"),
];

impl Builder<'_> {
    /// Mounts the layers of all overlays in the scratch tmpfs, before the new root covers the host's.
    pub(super) fn stage_overlays(&mut self, operations: &[Operation]) -> Result<Vec<StagedLayers>> {
        let overlays = operations.iter().filter_map(|mount| match mount {
            Operation::Overlay(overlay) => Some(overlay),
            _ => None,
        });
        overlays.map(|overlay| self.stage(overlay)).collect()
    }

    /// Mounts the layers of an overlay in the scratch tmpfs.
    pub(super) fn stage(&mut self, overlay: &Overlay) -> Result<StagedLayers> {
        if overlay.lowers.is_empty() {
            return Err(Error::invalid(
                format!("the overlay at {} has no lower layer", overlay.target.display()),
                "add one with Overlay::lower",
            ));
        }
        let layers: Result<Vec<String>> = overlay
            .lowers
            .iter()
            .map(|lower| self.layer(&directory(self.context.facts, lower, true)?, overlay.owner, true))
            .collect();
        let lowers = layers?;
        let (upper, work, keeps_changes) = match &overlay.upper {
            Upper::Tmpfs { size } => {
                let name = self.layer_tmpfs(*size)?;
                (format!("{name}/upper"), format!("{name}/work"), false)
            }
            Upper::Dirs { upper, work } => {
                let (upper, work) =
                    (directory(self.context.facts, upper, false)?, directory(self.context.facts, work, false)?);
                let common = common_ancestor(&upper, &work);
                // Files that are written need an owner on the disk.
                let owner = if overlay.owner == Owner::Nobody { Owner::Caller } else { overlay.owner };
                let name = self.layer(&common, owner, false)?;
                let inside = |path: &Path| Path::new(&name).join(path.strip_prefix(&common).unwrap_or(path));
                (self.link(&inside(&upper)), self.link(&inside(&work)), true)
            }
        };
        Ok(StagedLayers { lowers, upper, work, keeps_changes })
    }

    /// Mounts a directory of the host as a layer.
    fn layer(&mut self, path: &Path, owner: Owner, read_only: bool) -> Result<String> {
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::RDONLY, read_only);
        let tree = self.tree(path, None, attributes, owner, Reach::Top, !read_only)?;
        if !read_only {
            self.follow_no_symlinks(tree, path);
        }
        self.context.helper.step(Step::new("attach the overlay layer").path(path).needs(Need::Mounts));
        let name = self.attach_in_scratch(tree, MountPointKind::Directory);
        self.context.helper.close(tree);
        Ok(name)
    }

    /// Prevents that symlinks in a layer are followed. The kernel looks up upper and work by their paths in it when the
    /// overlay is mounted, and a program may have created a symlink there since they were resolved. Requires Linux
    /// 5.14.
    fn follow_no_symlinks(&mut self, layer: Slot, path: &Path) {
        if self.has_setattr() {
            self.context.helper.step(Step::new("set nosymfollow on the overlay layer").path(path));
            self.context.helper.mount_setattr(layer, Change::top(Attributes::NOSYMFOLLOW)).ignore();
        }
    }

    /// Creates a symlink with a plain name to a path. In a mount option the kernel removes backslashes, and before
    /// Linux 6.5 it rejects commas.
    fn link(&mut self, path: &Path) -> String {
        let (name, scratch) = (self.new_name(), self.scratch());
        self.context.helper.symlinkat(path, scratch, &name);
        name
    }

    /// Mounts a tmpfs for the changes to an overlay.
    fn layer_tmpfs(&mut self, size: Option<u64>) -> Result<String> {
        self.context.helper.step(Step::new("create a tmpfs for the changes to an overlay").needs(Need::Tmpfs));
        let options = tmpfs_options_or_default(0o755, size, None)?;
        let mount = self.context.helper.file_system("tmpfs", &options, Attributes::SAFE);
        self.context.helper.mkdirat(mount, "upper", 0o755);
        self.context.helper.mkdirat(mount, "work", 0o755);
        let name = self.attach_in_scratch(mount, MountPointKind::Directory);
        self.context.helper.close(mount);
        Ok(name)
    }

    /// Carries out [`Operation::Overlay`].
    pub(super) fn overlay(&mut self, overlay: &Overlay, staged: Option<StagedLayers>) -> Result<()> {
        let Some(staged) = staged else { return Ok(()) };
        let target = Target::new(&overlay.target)?;
        let keeps_changes = staged.keeps_changes;
        let mount = self.overlay_mount(overlay, staged);
        self.attach(mount, &target, MountPointKind::Directory);
        if !keeps_changes {
            self.context.helper.close(mount);
        }
        Ok(())
    }

    /// Creates a detached mount of an overlay. If it keeps changes, it is made writable at the end.
    pub(super) fn overlay_mount(&mut self, overlay: &Overlay, staged: StagedLayers) -> Slot {
        let scratch = self.scratch();
        let mut options = vec![
            ("lowerdir", Some(staged.lowers.join(":"))),
            ("upperdir", Some(staged.upper)),
            ("workdir", Some(staged.work)),
        ];
        if self.context.namespaces.all().contains(Namespaces::USER) {
            options.push(("userxattr", None));
        }
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::RDONLY, staged.keeps_changes);
        let helper: &mut Script = self.context.helper;
        helper
            .step(Step::new("mount the overlay on").path(&overlay.target).needs(Need::Overlay).remedies(OVERLAY_HINTS));
        helper.call(nr!(SYS_fchdir), [scratch.into()]);
        let mount = helper.file_system("overlay", &options, attributes);
        if staged.keeps_changes {
            self.make_mount_writable_later(mount, &overlay.target);
        }
        mount
    }
}

/// Resolves a path to a directory that can be a layer.
fn directory(facts: &Facts, path: &HostPath, follow: bool) -> Result<PathBuf> {
    let path = resolve_source(facts, path, follow)?;
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::invalid(format!("the overlay layer {} is not a directory", path.display()), "use a directory"))
}

/// Returns the nearest directory above both paths: upper and work must be in one mount.
fn common_ancestor(one: &Path, other: &Path) -> PathBuf {
    one.ancestors().find(|above| other.starts_with(above)).unwrap_or(Path::new("/")).to_owned()
}
