//! Descriptors of the caller as the sources of binds. A privileged caller opens the tree by the descriptor itself. The
//! helper of any other is in a copy of the caller's mount namespace, in which the descriptor's mount is not. It opens
//! the path of the file, and compares what is there with the file.

use std::fs;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::builder::Builder;
use super::source::{SOURCE_HINTS, no_path};
use crate::confine::open_descriptor::Descriptor;
use crate::error::Result;
use crate::host_path::HostPath;
use crate::plan::{Input, Ref, Script, Slot, Step, flags, nr, share};

/// A source that stays the same, whatever is at its path.
pub(super) enum Pinned {
    /// The descriptor itself.
    Input(Input),
    /// The file that must be at the path.
    File(FileIdentity),
}

/// The numbers by which the kernel tells files from one another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// The file was replaced after the sandbox was compiled, and before the helper opened it.
const REPLACED: &[(i32, &str)] = &[(
    libc::EAGAIN,
    "another file was put in the place of the descriptor's: open it again, or run as a privileged caller, for which the path does not count",
)];

impl Builder<'_> {
    /// Checks that a descriptor leads to the file at `path`, and returns how the tree there is opened.
    pub(super) fn pin(&mut self, fd: &Descriptor, path: &Path) -> Result<Pinned> {
        let no_path = || no_path(fd);
        let of_path = HostPath::new(path).open(OFlag::O_PATH).map_err(|_| no_path())?;
        let identity = FileIdentity::of(fd.0.as_fd()).ok_or_else(no_path)?;
        let is_same = FileIdentity::of(of_path.as_fd()) == Some(identity);
        if !is_same || mount_id(fd.0.as_fd()).is_none() || mount_id(fd.0.as_fd()) != mount_id(of_path.as_fd()) {
            return Err(no_path());
        }
        // Sources that are parked are opened in a mount namespace of their own, too.
        Ok(match self.context.facts.privileged && self.parking.is_none() {
            true => Pinned::Input(Input::Descriptor(share(self.context.descriptors, fd.0.clone())?)),
            false => Pinned::File(identity),
        })
    }
}

/// Returns the number of the mount that a file was opened in (proc(5), `/proc/PID/fdinfo`).
fn mount_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

impl FileIdentity {
    fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let stat = fstat(fd).ok()?;
        Some(Self { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Opens (`O_PATH`) a path, and fails with `EAGAIN` if another file is there.
    pub fn open(self, script: &mut Script, path: &Path) -> Slot {
        let source = script.open_source(path);
        script.step(Step::new("compare with the descriptor the file at").path(path).remedies(REPLACED));
        let stat = script.arena.buffer(size_of::<libc::statx>());
        let empty = script.text("");
        let how = flags!(AT_EMPTY_PATH | AT_NO_AUTOMOUNT);
        script.call(nr!(SYS_statx), [source.into(), empty, how, flags!(STATX_INO), stat.into()]);
        let (inode, major) = (offset_of!(libc::statx, stx_ino) as u32, offset_of!(libc::statx, stx_dev_major) as u32);
        let halves = [self.inode as u32, (self.inode >> 32) as u32];
        let halves = if cfg!(target_endian = "little") { halves } else { [halves[1], halves[0]] };
        let (of_device, minor) = (libc::major(self.device), libc::minor(self.device));
        for (plus, value) in [(inode, halves[0]), (inode + 4, halves[1]), (major, of_device), (major + 4, minor)] {
            script.fail_unless_equal(Ref { plus, ..stat }, value);
        }
        script.step(Step::new("open the bind source").path(path).remedies(SOURCE_HINTS));
        source
    }
}
