//! [`Overlay`]: directories of the host in layers. The system calls are in `overlay_calls`.

use std::path::PathBuf;

use super::file_owner::{Owner, owner_methods};
use crate::host_path::HostPath;

/// An overlay mount: directories of the host in layers, with the program's changes on top (overlayfs,
/// `Documentation/filesystems/overlayfs.rst`).
///
/// Owners are as in a [`Bind`](crate::mount::Bind): **the files of a privileged caller appear as the program's own by
/// default, private ones too.** With [`Overlay::unmapped`] the program has the rights of any other user over the files
/// of the lower layers. Files that it writes to [`Overlay::upper`] belong to the caller in any case.
///
/// Sockets and FIFOs in a lower layer are not connected to those of the host.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
///
/// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if there is no lower layer, if a layer
///   is not a directory, or if the size of [`Overlay::upper_tmpfs`] is 0.
/// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if a directory cannot be resolved: see [`HostPath`].
///
/// When spawned, [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with [`Layer::Root`](crate::Layer::Root) if
/// the kernel has no overlayfs, or does not allow it to the caller.
///
/// In a user namespace, requires Linux 5.11.
///
/// ```
/// use stockade::mount::Overlay;
/// use stockade::{Command, Root, Sandbox};
///
/// let lower = tempfile::tempdir()?;
/// std::fs::write(lower.path().join("file"), "old")?;
/// let root = Root::host().with(Overlay::new("/tmp/project").lower(lower.path()).upper_tmpfs(1 << 20));
/// let script = "cd /tmp/project && echo new > file && cat file";
/// let output = Sandbox::new().root(root).output(Command::new("sh").args(["-c", script]))?;
/// assert_eq!(output.stdout, b"new\n");
/// assert_eq!(std::fs::read_to_string(lower.path().join("file"))?, "old");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::stored_mounts::StoredOverlay", into = "super::stored_mounts::StoredOverlay")
)]
pub struct Overlay {
    pub(super) target: PathBuf,
    pub(super) lowers: Vec<HostPath>,
    pub(super) upper: Upper,
    pub(super) owner: Owner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upper {
    Tmpfs { size: Option<u64> },
    Dirs { upper: HostPath, work: HostPath },
}

impl Default for Upper {
    fn default() -> Self {
        Self::Tmpfs { size: None }
    }
}

impl Overlay {
    /// Creates an overlay at `target` whose changes are kept in memory, and are lost with the sandbox.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), lowers: vec![], upper: Upper::default(), owner: Owner::Caller }
    }

    /// Adds a directory of the host as a lower layer, below those that were added before. Mounts in it are not shown.
    /// At least one lower layer is required.
    ///
    /// Use [`HostPath::beneath`] for a directory that a program could have written.
    #[must_use]
    pub fn lower(mut self, directory: impl Into<HostPath>) -> Self {
        self.lowers.push(directory.into());
        self
    }

    /// Keeps the changes in memory, and sets their maximum size in bytes. The number of files is limited as in a
    /// [`Tmpfs`](crate::mount::Tmpfs) of this size.
    ///
    /// Default: 512 MiB.
    #[must_use]
    pub fn upper_tmpfs(mut self, bytes: u64) -> Self {
        self.upper = Upper::Tmpfs { size: Some(bytes) };
        self
    }

    /// Keeps the changes in the directory `upper` of the host. The kernel uses `work`, an empty directory on the same
    /// file system. No two sandboxes may use the same directories at the same time.
    ///
    /// Remove the directories with [`remove_dir_all`](crate::collect::remove_dir_all): an unprivileged caller cannot
    /// enter directories that the kernel has created in `work`.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if one of them does not exist, or is a symlink
    /// (`ELOOP`, see [`HostPath`]).
    #[must_use]
    pub fn upper(mut self, upper: impl Into<HostPath>, work: impl Into<HostPath>) -> Self {
        self.upper = Upper::Dirs { upper: upper.into(), work: work.into() };
        self
    }

    owner_methods!();
}
