//! The directory of a cgroup, held by a descriptor: whatever is done to the group is done to this one, also if another has
//! its name by then. No path of the caller's is followed any further than to a directory of a cgroup file system.

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

/// How directories are opened: names are looked up in them, and nothing else.
const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The directory of a cgroup.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// For messages alone.
    pub path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens a directory, which must belong to a cgroup file system: ENODEV if it does not.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path, PLACE, Mode::empty())?;
        match fstatfs(&fd)?.filesystem_type() {
            CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC => Ok(Self { fd, path: path.to_owned() }),
            _ => Err(Errno::ENODEV.into()),
        }
    }

    /// Whether it belongs to this process's user.
    pub fn is_own(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_uid == geteuid().as_raw())
    }

    /// Creates a group below this one, and opens it. ESTALE if somebody else, who may write here as well, has put one of
    /// their own in its place: they could change its limits.
    pub fn create(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755))?;
        let created = self.child(name)?;
        if created.is_own() { Ok(created) } else { Err(Errno::ESTALE.into()) }
    }

    /// Opens a group right below this one.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        let fd = openat(&self.fd, name, PLACE, Mode::empty())?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// Opens a file of the group.
    pub fn file(&self, name: &str, how: OFlag) -> io::Result<OwnedFd> {
        Ok(openat(&self.fd, name, how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Writes to a file of the group.
    pub fn write(&self, name: &str, value: &str) -> io::Result<()> {
        File::from(self.file(name, OFlag::O_WRONLY)?).write_all(value.as_bytes())
    }

    /// Reads a file of the group.
    pub fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::with_capacity(256);
        File::from(self.file(name, OFlag::O_RDONLY)?).read_to_string(&mut text)?;
        Ok(text)
    }

    /// The processes in the group itself, apart from those that this process can't see.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = self.listed();
        pids.retain(|&pid| pid > 0);
        pids
    }

    /// The same with a 0 for each that this process can't see.
    pub fn listed(&self) -> Vec<i32> {
        let text = self.read("cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Visits this group and all below it, each before those that are below it. It takes no more descriptors the deeper
    /// they are, and no path is too long for it.
    pub fn walk(&self, mut visit: impl FnMut(&Directory)) {
        let _ = self.descend(&mut visit, |_, _| Ok(()));
    }

    /// Removes a group right below this one, with all that are below it. One that is not there is no error; EBUSY if some
    /// process is in one of them.
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

    /// Removes a group right below this one, unless a process or another group is in it.
    pub fn remove_empty(&self, name: &str) -> nix::Result<()> {
        rmdir(&self.fd, name)
    }

    /// Calls `enter` for this group and all below it, and `leave` for each that is below, with the one above and its name,
    /// once all below it have been left.
    fn descend(
        &self,
        enter: &mut dyn FnMut(&Directory),
        mut leave: impl FnMut(&OwnedFd, &CString) -> nix::Result<()>,
    ) -> nix::Result<()> {
        let mut current = Self { fd: openat(&self.fd, ".", PLACE, Mode::empty())?, path: self.path.clone() };
        enter(&current);
        // Of each group down to the current one: the names of those below that are still to be visited, and its own.
        let mut levels = vec![(current.below(), CString::default())];
        while let Some((below, own)) = levels.last_mut() {
            if let Some(name) = below.pop() {
                // One that is gone meanwhile needs no visit.
                let Ok(fd) = openat(&current.fd, name.as_c_str(), PLACE, Mode::empty()) else { continue };
                current = Self { fd, path: PathBuf::new() };
                enter(&current);
                levels.push((current.below(), name));
            } else {
                let name = std::mem::take(own);
                levels.pop();
                if !levels.is_empty() {
                    // No group can be moved below another one.
                    current.fd = openat(&current.fd, "..", PLACE, Mode::empty())?;
                    leave(&current.fd, &name)?;
                }
            }
        }
        Ok(())
    }

    /// The names of the groups right below this one.
    fn below(&self) -> Vec<CString> {
        // Each is a link of it, beside its own two: most have none, and need not be listed.
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

    /// The names of the groups right below this one that are text.
    pub fn names(&self) -> Vec<String> {
        self.below().into_iter().filter_map(|name| name.into_string().ok()).collect()
    }
}

fn rmdir<P: ?Sized + NixPath>(above: &OwnedFd, name: &P) -> nix::Result<()> {
    match unlinkat(above, name, UnlinkatFlags::RemoveDir) {
        // EBUSY and others than ENOENT mean that it is there still.
        Err(Errno::ENOENT) => Ok(()),
        result => result,
    }
}
