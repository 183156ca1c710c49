//! Files for results. Each is written beside its place and renamed to it, so that neither a symlink nor a hard link that a
//! program has left there leads anywhere. The directory is opened before the program runs: if the program replaces it, or one
//! above, by a symlink, the file still comes to where the path led then.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// Where a file is to come to.
pub struct NewFile {
    directory: File,
    name: OsString,
}

impl NewFile {
    /// Returns an error if no file can be created in the place of `path`, or if what is there is no regular file.
    pub fn at(path: &Path) -> io::Result<Self> {
        let nameless = || io::Error::new(ErrorKind::InvalidInput, "the path has no name of a file");
        let name = path.file_name().ok_or_else(nameless)?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let how = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let place = Self { directory: File::options().read(true).custom_flags(how).open(above)?, name };
        if place.path().symlink_metadata().is_ok_and(|there| !there.is_file()) {
            let what = "it exists and is no regular file: name a new file, or what a symlink leads to";
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        place.begin().map(|_| place)
    }

    /// A file beside the place, which [`NewFile::persist`] puts there.
    pub fn begin(&self) -> io::Result<NamedTempFile> {
        let file = Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(self.above());
        // Without the name of the temporary file, which nobody knows.
        file.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))
    }

    /// Renames a file of [`NewFile::begin`].
    pub fn persist(&self, file: NamedTempFile) -> io::Result<File> {
        file.persist(self.path()).map_err(|error| error.error)
    }

    /// The directory that was opened, whatever its path leads to by now (proc_pid_fd(5)).
    fn above(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }

    fn path(&self) -> PathBuf {
        self.above().join(&self.name)
    }
}
