//! The permissions of a file or directory that the sandbox creates.

use std::fmt::{self, Debug, Display, Formatter};
use std::path::Path;

use crate::error::{Error, Result};
#[cfg(feature = "serde")]
use crate::stored::{As, Octal};

/// The permissions of a file: the lower twelve bits of its mode (inode(7)).
///
/// An octal literal converts into a `Mode`. Its [`Display`] is octal.
///
/// ```
/// use stockade::mount::{Mode, Tmpfs};
///
/// let scratch = Tmpfs::new("/scratch").mode(0o1777);
/// assert_eq!(scratch, Tmpfs::new("/scratch").mode(Mode::new(0o1777)));
/// assert_eq!(Mode::new(0o644).to_string(), "0644");
/// ```
///
/// # Errors
///
/// When a sandbox is compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a mode with other bits than these
/// twelve.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Mode(#[cfg_attr(feature = "serde", serde(with = "As::<Octal>"))] u32);

impl Mode {
    /// The set-user-ID, set-group-ID and sticky bits, and the permissions of owner, group and others.
    const PERMISSIONS: u32 = 0o7777;

    /// Creates a mode from its bits, as chmod(2) takes them.
    pub const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns an error if the mode is no umask: the kernel would ignore the other bits (umask(2)).
    pub(crate) fn check_mask(self) -> Result<()> {
        if self.0 & !0o777 == 0 {
            return Ok(());
        }
        let what = format!("the umask {self} has bits other than the permissions of owner, group and others");
        Err(Error::invalid(what, "use a umask from 0 to 0o777, as umask(2) takes it"))
    }

    /// Returns the bits, or an error if some are no permissions. `path` is the file that has the mode.
    pub(super) fn checked(self, path: &Path) -> Result<u32> {
        if self.0 & !Self::PERMISSIONS == 0 {
            return Ok(self.0);
        }
        let what = format!("the mode {self} of {path:?} has bits other than permissions");
        Err(Error::invalid(what, "use a mode from 0 to 0o7777, as chmod(2) takes it"))
    }
}

impl From<u32> for Mode {
    fn from(bits: u32) -> Self {
        Self::new(bits)
    }
}

/// Formats four octal digits, as `0644`.
impl Display for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Debug for Mode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({:#o})", self.0)
    }
}
