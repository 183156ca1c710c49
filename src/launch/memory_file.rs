//! Files in memory (memfd_create(2)) that a program inherits as its standard input, or instead of a file of the caller.
//! Each is sealed and open only for reading: no process can write, truncate or extend it. Its memory is counted in the
//! cgroup of the caller.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;

use crate::error::{Error, Result};
use crate::file_size;

/// The maximum size of a file of the caller that is copied, in bytes.
pub(super) const MAX_COPY: i64 = 16 << 20;

const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// Creates a file with these bytes. Each program gets a new one, because a program can change the mode and attributes
/// of its own.
pub(super) fn of_bytes(bytes: &[u8]) -> Result<File> {
    let failed = |call: &'static str| {
        move |errno: Errno| {
            let remedy = match errno {
                Errno::EFBIG => "raise the caller's RLIMIT_FSIZE, or pass a file: Command::stdin",
                _ => "allow memfd_create(2) in the seccomp profile of the container, or pass a file: Command::stdin",
            };
            Error::set_up("copy the bytes of standard input to memory", call, errno, Some(remedy))
        }
    };
    let mut file = Unsealed::new().map_err(failed("memfd_create"))?;
    file.write(bytes).map_err(failed("write"))?;
    file.seal().map_err(failed("fcntl"))
}

/// Creates a sealed copy of a file.
pub(super) fn copy(fd: BorrowedFd<'_>) -> nix::Result<File> {
    let mut copy = Unsealed::new()?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let len = match pread(fd, &mut buffer, at) {
            Ok(0) => return copy.seal(),
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        at += len as i64;
        if at > MAX_COPY {
            return Err(Errno::EFBIG);
        }
        copy.write(&buffer[..len])?;
    }
}

/// Returns whether a file is sealed.
pub(super) fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS).unwrap_or(0)).contains(SEALS)
}

/// A file to which bytes are still written.
struct Unsealed {
    file: File,
    len: u64,
}

impl Unsealed {
    fn new() -> nix::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = match memfd_create(c"stockade: copy", flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)) {
            // Linux before 6.3.
            Err(Errno::EINVAL) => memfd_create(c"stockade: copy", flags),
            other => other,
        };
        Ok(Self { file: file?.into(), len: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> nix::Result<()> {
        self.len += bytes.len() as u64;
        file_size::check(self.len)?;
        self.file.write_all(bytes).map_err(errno)
    }

    fn seal(self) -> nix::Result<File> {
        self.file.set_permissions(Permissions::from_mode(0o444)).map_err(errno)?;
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(SEALS))?;
        File::open(format!("/proc/self/fd/{}", self.file.as_fd().as_raw_fd())).map_err(errno)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
