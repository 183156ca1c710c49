//! Files for results. Each is written to a temporary file in the same directory and renamed, so that no symlink or hard
//! link that a program has created there is followed. The directory is opened before the program runs. If the program
//! then replaces the directory or one of its parents by a symlink, the file is still created in the original directory.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// The path of a file to create.
pub struct NewFile {
    directory: File,
    name: OsString,
}

impl NewFile {
    /// Opens the directory of `path`. Returns an error if no file can be created there, or if `path` is not a regular
    /// file.
    pub fn at(path: &Path) -> io::Result<Self> {
        let nameless = || io::Error::new(ErrorKind::InvalidInput, "the path does not end with a file name");
        // `Path::file_name` returns `a` for `a/` and `a/.` too.
        let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
        let name = name.ok_or_else(nameless)?.to_owned();
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let how = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let place = Self { directory: File::options().read(true).custom_flags(how).open(above)?, name };
        if place.path().symlink_metadata().is_ok_and(|there| !there.is_file()) {
            let what = "it exists and is not a regular file: use the path of a new file, or the target of the symlink";
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        place.begin().map(|_| place)
    }

    /// Creates a temporary file, which [`NewFile::persist`] renames.
    pub fn begin(&self) -> io::Result<NamedTempFile> {
        let file = Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(self.above());
        // The message omits the name of the temporary file, which the user does not know.
        file.map_err(|error| error.raw_os_error().map_or(error, io::Error::from_raw_os_error))
    }

    /// Renames a file of [`NewFile::begin`] to the path.
    pub fn persist(&self, file: NamedTempFile) -> io::Result<File> {
        file.persist(self.path()).map_err(|error| error.error)
    }

    /// Returns a path to the opened directory, which does not change if the original path does (proc_pid_fd(5)).
    fn above(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd()).into()
    }

    fn path(&self) -> PathBuf {
        self.above().join(&self.name)
    }
}
