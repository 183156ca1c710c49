//! Files for results. Each is written beside its place and renamed to it, so that neither a symlink nor a hard link that a
//! program has left there leads anywhere.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Returns an error if no file can be created in the place of `path`, or if what is there is no regular file.
pub fn check(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        let what = "it exists and is no regular file: name a new file, or what a symlink leads to";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    begin(path).map(drop)
}

/// A file that is to be renamed to `path` by [`NamedTempFile::persist`].
pub fn begin(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(directory);
    // Without the name of the temporary file, which nobody knows.
    file.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))
}
