//! The maximum size of the files that the caller may write (`RLIMIT_FSIZE`). The kernel sends SIGXFSZ to a process that
//! exceeds it, which kills the process, so the caller checks it before each write to a file.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// Returns `EFBIG` if the caller may not write a file of this size in bytes.
pub(crate) fn check(bytes: u64) -> nix::Result<()> {
    let (most, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if bytes > most { Err(Errno::EFBIG) } else { Ok(()) }
}

/// The hint for [`check`].
pub(crate) const HINT: &str = "raise the caller's RLIMIT_FSIZE";
