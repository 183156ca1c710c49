//! Overlays: the layers are mounted in the scratch tmpfs under plain names, so that no path of the host's ever stands in
//! a mount option.

use std::path::{Path, PathBuf};

use super::bind::{Seen, resolve_source};
use super::lower::Builder;
use super::own::limited_tmpfs;
use super::target::{Kind, Target};
use super::{Mount, Overlay, Owner, Upper};
use crate::confine::host::Host;
use crate::confine::namespaces::Namespaces;
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::plan::{Attributes, Change, Program, Slot, Step, nr};

/// The layers of an overlay, as paths from the scratch tmpfs.
pub(super) struct Staged {
    lowers: Vec<String>,
    upper: String,
    work: String,
    /// Changes go to the host.
    keeps: bool,
}

const MAKE: &[(i32, &str)] = &[
    (
        libc::EPERM,
        "overlays in user namespaces exist since Linux 5.11, and a security module may forbid them: run as root, or bind a copy",
    ),
    (
        libc::EINVAL,
        "a layer has mounts in it that this user may not take apart, lies on a file system that can't be one, or upper and work are not on one file system; dmesg may say which",
    ),
    (libc::ENODEV, "the kernel has no overlay file system, or its module is not loaded: modprobe overlay"),
    (libc::EBUSY, "upper and work are in use by another overlay"),
];

impl Builder<'_> {
    /// Brings the layers of all overlays into place, before the root is made that covers the host's.
    pub(super) fn stage_overlays(&mut self, mounts: &[Mount]) -> Result<Vec<Staged>> {
        let overlays = mounts.iter().filter_map(|mount| match mount {
            Mount::Overlay(overlay) => Some(overlay),
            _ => None,
        });
        overlays.map(|overlay| self.stage(overlay)).collect()
    }

    fn stage(&mut self, overlay: &Overlay) -> Result<Staged> {
        if overlay.lowers.is_empty() {
            return Err(Error::invalid(
                format!("the overlay at {} has no lower layer", overlay.target.display()),
                "add one with Overlay::lower",
            ));
        }
        let layers: Result<Vec<String>> = overlay
            .lowers
            .iter()
            .map(|lower| self.layer(&directory(self.l.host, lower, true)?, overlay.owner, true))
            .collect();
        let lowers = layers?;
        let (upper, work, keeps) = match &overlay.upper {
            Upper::Tmpfs(size) => {
                let name = self.layer_tmpfs(*size)?;
                (format!("{name}/upper"), format!("{name}/work"), false)
            }
            Upper::Dirs { upper, work } => {
                let (upper, work) = (directory(self.l.host, upper, false)?, directory(self.l.host, work, false)?);
                let common = common_ancestor(&upper, &work);
                // What is written belongs to somebody on the disk.
                let owner = if overlay.owner == Owner::Nobody { Owner::Caller } else { overlay.owner };
                let name = self.layer(&common, owner, false)?;
                let inside = |path: &Path| Path::new(&name).join(path.strip_prefix(&common).unwrap_or(path));
                (self.link(&inside(&upper)), self.link(&inside(&work)), true)
            }
        };
        Ok(Staged { lowers, upper, work, keeps })
    }

    /// A directory of the host's as a layer.
    fn layer(&mut self, path: &Path, owner: Owner, read_only: bool) -> Result<String> {
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::RDONLY, read_only);
        let tree = self.tree(path, attributes, owner, Seen::Top, !read_only)?;
        if !read_only {
            self.follow_no_symlinks(tree, path);
        }
        self.l.helper.step(Step::new("putting a layer of an overlay in place").path(path));
        Ok(self.put(tree, Kind::Directory))
    }

    /// Upper and work are found by their paths below the layer when the overlay is made: no symlink that has appeared there
    /// since may lead elsewhere (Linux 5.14).
    fn follow_no_symlinks(&mut self, layer: Slot, path: &Path) {
        if self.has_setattr() {
            self.l.helper.step(Step::new("keeping symlinks in a layer from being followed").path(path));
            self.l.helper.mount_setattr(layer, Change::top(Attributes::NOSYMFOLLOW)).ignore();
        }
    }

    /// A plain name for a path: in an option the kernel takes backslashes off, and before Linux 6.5 it refuses commas.
    fn link(&mut self, path: &Path) -> String {
        let (name, scratch) = (self.name(), self.scratch());
        self.l.helper.symlinkat(path, scratch, &name);
        name
    }

    fn layer_tmpfs(&mut self, size: Option<u64>) -> Result<String> {
        self.l.helper.step(Step::new("making a tmpfs for the changes of an overlay"));
        let options = limited_tmpfs(0o755, size, None)?;
        let mount = self.l.helper.file_system("tmpfs", &options, Attributes::SAFE);
        self.l.helper.mkdirat(mount, "upper", 0o755);
        self.l.helper.mkdirat(mount, "work", 0o755);
        Ok(self.put(mount, Kind::Directory))
    }

    pub(super) fn overlay(&mut self, overlay: &Overlay, staged: Option<Staged>) -> Result<()> {
        let Some(staged) = staged else { return Ok(()) };
        let target = Target::new(&overlay.target)?;
        let scratch = self.scratch();
        let mut options = vec![
            ("lowerdir", Some(staged.lowers.join(":"))),
            ("upperdir", Some(staged.upper)),
            ("workdir", Some(staged.work)),
        ];
        if self.l.chosen.all().contains(Namespaces::USER) {
            options.push(("userxattr", None));
        }
        let mut attributes = Attributes::SAFE;
        attributes.set(Attributes::RDONLY, staged.keeps);
        let helper: &mut Program = self.l.helper;
        helper.step(Step::new("making the overlay for").path(&overlay.target).remedies(MAKE));
        helper.call(nr!(SYS_fchdir), [scratch.into()]);
        let mount = helper.file_system("overlay", &options, attributes);
        self.attach(mount, &target, Kind::Directory);
        if staged.keeps {
            self.writable_mount_later(mount);
        }
        Ok(())
    }
}

fn directory(host: &Host, path: &HostPath, follow: bool) -> Result<PathBuf> {
    let path = resolve_source(host, path, follow)?;
    if path.is_dir() {
        return Ok(path);
    }
    Err(Error::invalid(format!("{} can't be a layer of an overlay: it is no directory", path.display()), "name one"))
}

/// The nearest directory above both: upper and work must be in one mount.
fn common_ancestor(one: &Path, other: &Path) -> PathBuf {
    one.ancestors().find(|above| other.starts_with(above)).unwrap_or(Path::new("/")).to_owned()
}
