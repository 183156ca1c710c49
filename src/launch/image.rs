//! A laid-out program wrapped with the interpreter into a static executable, which lies in a memfd or, where memfds
//! may not be executed, in a file that has no name.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::interpreter;
use super::layout::Layout;
use crate::environment;
use crate::error::Error;
use crate::plan::place::{CODE, OFFSET, SLOTS};

const HEADERS: usize = 64 + 3 * 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The file of an image, and that of its data, which the processes of the image share with the caller: both are one
/// memfd, or, where memfds may not be executed, two files that have no name.
pub(super) struct Image {
    data: File,
    executable: Option<File>,
    is_memfd: bool,
}

impl Image {
    /// An empty one.
    pub fn new() -> nix::Result<Self> {
        let (data, is_memfd) = match memfd() {
            Ok(memfd) => (memfd.into(), true),
            // vm.memfd_noexec = 2, or a security module
            Err(Errno::EACCES | Errno::EPERM | Errno::ENOSYS) => (unnamed().map_err(errno)?, false),
            Err(errno) => return Err(errno),
        };
        Ok(Self { data, executable: None, is_memfd })
    }

    /// Writes the executable of a program.
    pub fn write(&mut self, layout: &Layout<'_>) -> nix::Result<()> {
        let memory = layout.at(SLOTS);
        let data = bytes(&memory);
        let code = [&headers(data.len() as u64), interpreter::code()].concat();
        let fill = |file: &File| file.write_all_at(&code, 0).and_then(|()| file.write_all_at(data, OFFSET));
        fill(&self.data).map_err(errno)?;
        if !self.is_memfd {
            // What is open for writing can't be executed.
            let writable = unnamed().map_err(errno)?;
            fill(&writable).map_err(errno)?;
            self.executable = Some(File::open(format!("/proc/self/fd/{}", writable.as_raw_fd())).map_err(errno)?);
        }
        Ok(())
    }

    /// What the processes of the image map their data from: see [`crate::plan::helper::share_data`].
    pub fn data(&self) -> RawFd {
        self.data.as_raw_fd()
    }

    /// What is executed.
    pub fn executable(&self) -> RawFd {
        self.executable.as_ref().unwrap_or(&self.data).as_raw_fd()
    }

    /// What the first slots hold now.
    pub fn slots<const N: usize>(&self) -> [u64; N] {
        let mut slots = [[0; 8]; N];
        let _ = self.data.read_exact_at(slots.as_flattened_mut(), OFFSET);
        slots.map(u64::from_ne_bytes)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The error for an image that can't be written.
pub(super) fn refused(errno: Errno) -> Error {
    let remedy = "set vm.memfd_noexec to 0 or 1, or TMPDIR to a file system where programs may be executed";
    let step = "writing an image to a memfd, or to an unnamed file in TMPDIR";
    Error::set_up(step, "memfd_create", errno, Some(remedy))
}

/// The bytes of words, in the order of the machine.
#[allow(unsafe_code)]
fn bytes(words: &[u64]) -> &[u8] {
    // SAFETY: any byte of a word is a byte, and the slice covers exactly the words.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

pub(super) fn memfd() -> nix::Result<OwnedFd> {
    match memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        // Linux before 6.3 has no MFD_EXEC, and makes every memfd executable.
        Err(Errno::EINVAL) => memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC),
        other => other,
    }
}

/// A file that never has a name, in `TMPDIR`.
fn unnamed() -> io::Result<File> {
    let writable = File::options()
        .read(true)
        .write(true)
        .mode(0o755)
        .custom_flags(libc::O_TMPFILE)
        .open(environment::temp_dir())?;
    // Whatever the umask of the host takes away.
    writable.set_permissions(Permissions::from_mode(0o700))?;
    Ok(writable)
}

/// An ELF header, and the headers of three segments: code, data, and a stack that can't be executed.
fn headers(data: u64) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const LOAD: u32 = 1;
    const GNU_STACK: u32 = 0x6474_e551;
    let code = (HEADERS + interpreter::code().len()) as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |bytes: &mut Vec<u8>, values: &[u16]| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let long = |bytes: &mut Vec<u8>, values: &[u64]| bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    half(&mut bytes, &[EXECUTABLE, MACHINE, 1, 0]);
    long(&mut bytes, &[CODE + HEADERS as u64, 64, 0]);
    half(&mut bytes, &[0, 0, 64, 56, 3, 0, 0, 0]);
    for (kind, flags, offset, address, size) in
        [(LOAD, 5u32, 0, CODE, code), (LOAD, 6, OFFSET, SLOTS, data), (GNU_STACK, 6, 0, 0, 0)]
    {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        long(&mut bytes, &[offset, address, address, size, size, if kind == LOAD { 0x1_0000 } else { 16 }]);
    }
    bytes
}
