//! Process IDs.

use std::fmt::{self, Display, Formatter};

/// A process ID in the caller's PID namespace.
///
/// The kernel may assign the ID to another process once the process has been waited for.
///
/// ```
/// use stockade::process::Pid;
///
/// let mut child = std::process::Command::new("true").spawn()?;
/// let pid = Pid::from(child.id());
/// assert_eq!(pid.number(), child.id());
/// # child.wait()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Pid(u32);

impl Pid {
    /// From the kernel's `pid_t`, which is never negative where it names a process.
    pub(crate) const fn from_raw(pid: libc::pid_t) -> Self {
        Self(pid.unsigned_abs())
    }

    /// Returns the number, as [`std::process::id`] does. It is 0 for a process outside of the caller's PID namespace.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Converts the number that [`std::process::id`] or [`std::process::Child::id`] returns.
impl From<u32> for Pid {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl Display for Pid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
