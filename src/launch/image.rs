//! The image of the helper: a static executable that contains the interpreter and a script. It is a memfd or, if memfds
//! may not be executed, an unnamed file.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};

use crate::advice::{Denial, Need};
use crate::environment;
use crate::error::Error;
use crate::file_size;
use crate::plan::memory_map::{CODE, SLOTS, offset};
use crate::plan::{Pids, Script};
use crate::sys::clone;
use crate::sys::layout::Layout;
use crate::unix::ToErrno;

const HEADERS: usize = 64 + 3 * 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The executable of an image, and its data, which its processes share with the caller. Both are the same memfd or, if
/// memfds may not be executed, two unnamed files.
#[derive(Debug)]
pub(super) struct Image {
    data: File,
    executable: Option<File>,
    is_memfd: bool,
}

impl Image {
    /// Creates an empty image.
    pub fn new() -> nix::Result<Self> {
        let (data, is_memfd) = match memfd() {
            Ok(memfd) => (memfd.into(), true),
            // vm.memfd_noexec = 2, or a security module
            Err(Errno::EACCES | Errno::EPERM | Errno::ENOSYS) => (unnamed().map_err(errno)?, false),
            Err(errno) => return Err(errno),
        };
        Ok(Self { data, executable: None, is_memfd })
    }

    /// Writes the executable for a script.
    pub fn write(&mut self, layout: &Layout<'_>) -> nix::Result<()> {
        let words = layout.at(SLOTS);
        let data = words.bytes();
        let offset = offset();
        file_size::check(offset + data.len() as u64)?;
        let code = [&headers(data.len() as u64), clone::code()].concat();
        let fill = |file: &File| file.write_all_at(&code, 0).and_then(|()| file.write_all_at(data, offset));
        fill(&self.data).map_err(errno)?;
        if !self.is_memfd {
            // A file that is open for writing cannot be executed.
            let writable = unnamed().map_err(errno)?;
            fill(&writable).map_err(errno)?;
            self.executable = Some(File::open(format!("/proc/self/fd/{}", writable.as_raw_fd())).map_err(errno)?);
        }
        Ok(())
    }

    /// Returns the file from which the processes of the image map their data: see `compile::helper`.
    pub fn data(&self) -> RawFd {
        self.data.as_raw_fd()
    }

    /// Returns the file to execute.
    pub fn executable(&self) -> RawFd {
        self.executable.as_ref().unwrap_or(&self.data).as_raw_fd()
    }

    /// Removes all permissions, so that no process can open or execute it again. Does not affect those that run it.
    ///
    /// A program could lead a process that is to execute another one to this one, by `/proc/self/exe`, and then read it: it has
    /// the pass of the filter.
    pub fn close_off(&self) -> nix::Result<()> {
        [Some(&self.data), self.executable.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|file| fchmod(file, Mode::empty()))
    }

    /// Returns the processes that the helper has started so far, the last command among them.
    pub fn started(&self) -> Pids {
        let slots: [u64; Script::COMMAND.0 as usize + 1] = self.slots();
        let [init, command] = [Script::INIT, Script::COMMAND].map(|slot| slots[usize::from(slot.0)] as i32);
        Pids { init, command }
    }

    /// Reads the current values of the first slots.
    pub fn slots<const N: usize>(&self) -> [u64; N] {
        let mut slots = [[0; 8]; N];
        let _ = self.data.read_exact_at(slots.as_flattened_mut(), offset());
        slots.map(u64::from_ne_bytes)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Returns the error if an image cannot be written.
pub(super) fn refused(errno: Errno) -> Error {
    let (call, remedy) = match errno {
        Errno::EFBIG => (
            "write",
            "raise the caller's RLIMIT_FSIZE: most sandboxes need 64 KiB, and those with many binds or large files need more",
        ),
        _ => (
            "memfd_create",
            "set vm.memfd_noexec to 0 or 1, or TMPDIR to a directory on a file system that is not mounted noexec",
        ),
    };
    let need = (call == "memfd_create").then_some(Need::Memfd);
    let advice = Denial { need, call, errno: errno.to_errno() }.advice(Some(remedy));
    Error::set_up("write an image to a memfd, or to an unnamed file in TMPDIR", call, errno, advice.as_deref())
}

pub(super) fn memfd() -> nix::Result<OwnedFd> {
    match memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        // Linux before 6.3 has no MFD_EXEC, and makes every memfd executable.
        Err(Errno::EINVAL) => memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC),
        other => other,
    }
}

/// Creates an unnamed file in `TMPDIR`.
fn unnamed() -> io::Result<File> {
    let writable = File::options()
        .read(true)
        .write(true)
        .mode(0o755)
        .custom_flags(libc::O_TMPFILE)
        .open(environment::temp_dir())?;
    // Independent of the umask of the caller.
    writable.set_permissions(Permissions::from_mode(0o700))?;
    Ok(writable)
}

/// Returns an ELF header, and the headers of three segments: code, data, and a stack that is not executable.
fn headers(data: u64) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    let (code, align) = ((HEADERS + clone::code().len()) as u64, offset());
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |bytes: &mut Vec<u8>, values: &[u16]| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let long = |bytes: &mut Vec<u8>, values: &[u64]| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    half(&mut bytes, &[EXECUTABLE, MACHINE, 1, 0]);
    long(&mut bytes, &[CODE + HEADERS as u64, 64, 0]);
    half(&mut bytes, &[0, 0, 64, 56, 3, 0, 0, 0]);
    for (kind, flags, offset, address, size) in
        [(LOAD, 5u32, 0, CODE, code), (LOAD, 6, align, SLOTS, data), (GNU_STACK, 6, 0, 0, 0)]
    {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        long(&mut bytes, &[offset, address, address, size, size, if kind == LOAD { align } else { 16 }]);
    }
    bytes
}
