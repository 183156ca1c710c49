//! A laid-out program wrapped with the interpreter into a static executable, which lies in a memfd or, where memfds
//! may not be executed, in a file that has no name.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::interpreter;
use super::layout::Layout;
use crate::environment;
use crate::error::Error;

/// Where the interpreter lies in an image.
const CODE: u64 = 0x40_0000;
/// Where the slots lie: the interpreter's source names the same number.
const SLOTS: u64 = 0x41_0000;
/// Distance of the two in the file, a multiple of every page size.
const OFFSET: u64 = SLOTS - CODE;
const HEADERS: usize = 64 + 3 * 56;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Writes the executable of a program.
pub(super) fn executable(layout: &Layout<'_>) -> nix::Result<OwnedFd> {
    let memory = layout.at(SLOTS);
    let data = bytes(&memory);
    let code = [&headers(data.len() as u64), interpreter::code()].concat();
    write(&code, data).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
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

fn write(code: &[u8], data: &[u8]) -> io::Result<OwnedFd> {
    let fill = |file: &File| file.write_all_at(code, 0).and_then(|()| file.write_all_at(data, OFFSET));
    match memfd() {
        Ok(memfd) => {
            let file = File::from(memfd);
            fill(&file)?;
            Ok(file.into())
        }
        // vm.memfd_noexec = 2, or a security module
        Err(Errno::EACCES | Errno::EPERM | Errno::ENOSYS) => unnamed(fill),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn memfd() -> nix::Result<OwnedFd> {
    match memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        // Linux before 6.3 has no MFD_EXEC, and makes every memfd executable.
        Err(Errno::EINVAL) => memfd_create(c"stockade", MFdFlags::MFD_CLOEXEC),
        other => other,
    }
}

/// A file that never has a name, in `TMPDIR`: opened again for reading, since what is open for writing can't be
/// executed.
fn unnamed(fill: impl Fn(&File) -> io::Result<()>) -> io::Result<OwnedFd> {
    let writable = File::options()
        .read(true)
        .write(true)
        .mode(0o755)
        .custom_flags(libc::O_TMPFILE)
        .open(environment::temp_dir())?;
    // Whatever the umask of the host takes away.
    writable.set_permissions(Permissions::from_mode(0o700))?;
    fill(&writable)?;
    let readable = File::open(format!("/proc/self/fd/{}", writable.as_raw_fd()))?;
    Ok(readable.into())
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
