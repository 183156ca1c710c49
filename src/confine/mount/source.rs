//! Sources of binds and overlays: resolving a path of the host, and the hints if it cannot be opened.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::bind::Bind;
use crate::confine::facts::Facts;
use crate::confine::open_descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, ResolveError};

/// Hints for calls that open or bind a path of the host, where the path is the cause.
pub(super) const SOURCE_HINTS: &[(i32, &str)] = &[
    (libc::ENOENT, "it does not exist on the host: create it, or remove the bind"),
    (libc::EACCES, "the caller may not enter a directory above it: grant access, or run as a user that may"),
    (libc::ELOOP, "it was replaced by a symlink after it was resolved: spawn again"),
    (libc::EINVAL, "its file system cannot be bound, or its mounts are locked by a container: bind another directory"),
];

impl Bind {
    /// Resolves the source to a path without symlinks.
    pub(super) fn resolve_source(&self, facts: &Facts) -> Result<PathBuf> {
        let resolved = resolve_source(facts, &self.source, !self.writable);
        match &self.fd {
            Some(fd) => resolved.map_err(|_| no_path(fd)),
            None => resolved,
        }
    }
}

/// The error for a descriptor whose file has no path.
pub(super) fn no_path(fd: &Descriptor) -> Error {
    Error::invalid(
        format!("descriptor {} is not of a file at a path of the caller's mount namespace", fd.0.as_raw_fd()),
        "use a descriptor of a file that was not removed and that no mount covers, or bind a path",
    )
}

/// Resolves a source to a path without symlinks. `follow`: whether a symlink in the last component is followed by
/// default.
pub(super) fn resolve_source(facts: &Facts, path: &HostPath, follow: bool) -> Result<PathBuf> {
    facts.resolve(path, follow).map_err(|ResolveError { call, errno, hint }| {
        let hint = hint.unwrap_or("pass a path that exists on the host and that the caller can reach");
        Error::set_up("resolve the mount source", call, errno, Some(hint)).on(path.unresolved())
    })
}
