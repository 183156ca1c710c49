//! The directory of a cgroup, held by a descriptor, so that an operation applies to this cgroup even if its name was
//! reused. A path is followed only once, to a directory that must be in a cgroup file system.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// The flags for opening directories, only to look up names in them.
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory of a cgroup.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// Path for messages only.
    pub path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a directory. Returns ENODEV if it is not in a cgroup file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path, DIRECTORY, Mode::empty())?;
        match fstatfs(&fd)?.filesystem_type() {
            CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC => Ok(Self { fd, path: path.to_owned() }),
            _ => Err(Errno::ENODEV.into()),
        }
    }

    /// Returns whether it belongs to the caller's user.
    pub fn is_own(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
    }

    /// Creates a cgroup below this one, and opens it. Returns ESTALE if another user who may write here replaced it by
    /// their own, whose limits they could change.
    pub fn create(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755))?;
        let created = self.child(name).inspect_err(|_| {
            // The caller may be at its limit of open descriptors.
            let _ = rmdir(&self.fd, name);
        })?;
        if created.is_own() { Ok(created) } else { Err(Errno::ESTALE.into()) }
    }

    /// Opens a child cgroup.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        let fd = openat(&self.fd, name, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens a file of the cgroup.
    pub fn file(&self, name: &str, how: OFlag) -> nix::Result<OwnedFd> {
        openat(&self.fd, name, how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Writes to a file of the cgroup.
    pub fn write(&self, name: &str, value: &str) -> io::Result<()> {
        File::from(self.file(name, OFlag::O_WRONLY)?).write_all(value.as_bytes())
    }

    /// Reads a file of the cgroup.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let mut file = File::from(self.file(name, OFlag::O_RDONLY)?);
        // Most are short. `read_to_string` makes two more calls, for the size, which these files do not have.
        let (mut text, mut piece) = (vec![], [0; 1024]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(len) => text.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Returns the processes in the cgroup itself, without those outside of the caller's PID namespace.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = self.all_processes();
        pids.retain(|&pid| pid > 0);
        pids
    }

    /// Returns the processes in the cgroup itself, with 0 for each outside of the caller's PID namespace.
    pub fn all_processes(&self) -> Vec<i32> {
        let text = self.read("cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Visits this cgroup and all below it, parents first. The number of descriptors does not depend on the depth, and
    /// no path is too long. Returns an error if not all of them could be visited.
    pub fn walk(&self, mut visit: impl FnMut(&Directory)) -> nix::Result<()> {
        self.descend(&mut visit, |_, _| Ok(()))
    }

    /// Removes a child cgroup with all cgroups below it. Succeeds if it does not exist. Returns EBUSY if a process is
    /// in one of them.
    pub fn remove(&self, name: &str) -> nix::Result<()> {
        match rmdir(&self.fd, name) {
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            result => return result,
        }
        if let Ok(group) = self.child(name) {
            group.descend(&mut |_| {}, |above, name| rmdir(above, name.as_c_str()))?;
        }
        rmdir(&self.fd, name)
    }

    /// Removes a child cgroup, unless a process or another cgroup is in it.
    pub fn remove_empty(&self, name: &str) -> nix::Result<()> {
        rmdir(&self.fd, name)
    }

    /// Calls `enter` for this cgroup and all below it, parents first, and `leave` for each one below, children first,
    /// with its parent and its name.
    fn descend(
        &self,
        enter: &mut dyn FnMut(&Directory),
        mut leave: impl FnMut(&OwnedFd, &CString) -> nix::Result<()>,
    ) -> nix::Result<()> {
        enter(self);
        let children = self.children();
        if children.is_empty() {
            return Ok(());
        }
        let mut current = Self { fd: openat(&self.fd, ".", DIRECTORY, Mode::empty())?, path: PathBuf::new() };
        // For each cgroup down to the current one: the names of children that are still to be visited, and its own
        // name.
        let mut levels = vec![(children, CString::default())];
        while let Some((below, own)) = levels.last_mut() {
            if let Some(name) = below.pop() {
                let fd = match openat(&current.fd, name.as_c_str(), DIRECTORY, Mode::empty()) {
                    // It was removed in the meantime.
                    Err(Errno::ENOENT | Errno::ENODEV) => continue,
                    other => other?,
                };
                current = Self { fd, path: PathBuf::new() };
                enter(&current);
                levels.push((current.children(), name));
            } else {
                let name = std::mem::take(own);
                levels.pop();
                if !levels.is_empty() {
                    // `..` is the parent, because a cgroup cannot be moved below another one.
                    current.fd = openat(&current.fd, "..", DIRECTORY, Mode::empty())?;
                    leave(&current.fd, &name)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the names of the child cgroups.
    fn children(&self) -> Vec<CString> {
        // A directory has two links and one for each child. Most have no child, and need not be listed.
        if fstat(&self.fd).is_ok_and(|stat| stat.st_nlink <= 2) {
            return vec![];
        }
        let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listing = openat(&self.fd, ".", how, Mode::empty()).and_then(Dir::from_fd);
        let entries = listing.into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type() == Some(Type::Directory));
        groups
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .collect()
    }

    /// Returns the names of the child cgroups that are UTF-8.
    pub fn names(&self) -> Vec<String> {
        self.children().into_iter().filter_map(|name| name.into_string().ok()).collect()
    }
}

fn rmdir<P: ?Sized + NixPath>(above: &OwnedFd, name: &P) -> nix::Result<()> {
    match unlinkat(above, name, UnlinkatFlags::RemoveDir) {
        // Any other error means that it still exists.
        Err(Errno::ENOENT) => Ok(()),
        result => result,
    }
}
