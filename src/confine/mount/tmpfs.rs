//! [`Tmpfs`]: a file system in memory. The system calls are in `synthetic`.

use std::path::PathBuf;

use super::mode::Mode;
#[cfg(feature = "serde")]
use crate::stored::{As, Bytes, Count, Escaped};

/// A file system in memory (tmpfs(5)). Set-user-ID programs and device nodes in it have no effect.
///
/// ```
/// use stockade::mount::Tmpfs;
/// use stockade::{Command, Root, Sandbox};
///
/// let root = Root::host().with(Tmpfs::new("/scratch").size(1 << 20).inodes(100).mode(0o700));
/// let script = "head -c 2M /dev/zero > /scratch/file";
/// assert!(!Sandbox::new().root(root).output(Command::new("sh").args(["-c", script]))?.outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Tmpfs {
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    pub(super) target: PathBuf,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Bytes>>", default))]
    pub(super) size: Option<u64>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Count>>", default))]
    pub(super) inodes: Option<u64>,
    #[cfg_attr(feature = "serde", serde(default = "Tmpfs::default_mode"))]
    pub(super) mode: Mode,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) noexec: bool,
}

impl Tmpfs {
    pub(super) const MODE: Mode = Mode::new(0o755);

    #[cfg(feature = "serde")]
    fn default_mode() -> Mode {
        Self::MODE
    }

    /// Creates an empty file system at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), size: None, inodes: None, mode: Self::MODE, noexec: false }
    }

    /// Sets the maximum size in bytes, at least 1. It is rounded up to whole pages.
    ///
    /// Default: 512 MiB.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for 0.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Sets the maximum number of files and directories. Each uses about 1 KiB of kernel memory in addition to the
    /// size.
    ///
    /// Default: one for each 4 KiB of the size, but at least 1,024.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for 0.
    #[must_use]
    pub fn inodes(mut self, count: u64) -> Self {
        self.inodes = Some(count);
        self
    }

    /// Sets the permissions of its top directory, which belongs to the program.
    ///
    /// Default: 0755.
    #[must_use]
    pub fn mode(mut self, mode: impl Into<Mode>) -> Self {
        self.mode = mode.into();
        self
    }

    /// Prevents programs in it from being executed (`MS_NOEXEC`).
    ///
    /// Default: allowed.
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.noexec = true;
        self
    }
}
