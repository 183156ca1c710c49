//! The reasons why a file that a program wrote is not collected. How they are found is in `collect`.

use std::fmt::{self, Display, Formatter};

use crate::unix::Errno;

/// The reason why [`Collector::copy`](crate::collect::Collector::copy) skips an entry, and
/// [`Collector::read`](crate::collect::Collector::read) does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
#[non_exhaustive]
pub enum SkipReason {
    /// A symlink.
    Symlink,
    /// A FIFO, a socket or a device.
    Special,
    /// A file with several hard links: see [`Collector::hard_links`](crate::collect::Collector::hard_links).
    HardLink,
    /// A mount point.
    Mount,
    /// A file or directory that the caller cannot read. The error number is `EACCES` if the program removed the
    /// permission, and `EAGAIN` if a process holds a lease on the file (fcntl(2)), for which the caller would have to
    /// wait.
    Unreadable(Errno),
}

impl Display for SkipReason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Symlink => f.write_str("a symlink"),
            Self::Special => f.write_str("a FIFO, a socket or a device"),
            Self::HardLink => f.write_str("a file with several hard links"),
            Self::Mount => f.write_str("a mount point"),
            Self::Unreadable(errno) => write!(f, "unreadable: {errno}"),
        }
    }
}
