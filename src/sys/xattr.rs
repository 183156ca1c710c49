//! Extended attributes (xattr(7)).

use std::ffi::CStr;
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

/// Reads an attribute of a file, of at most 255 bytes (getxattr(2)).
pub(crate) fn get(path: &Path, name: &CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0; 255];
    let len = path.with_nix_path(|path| {
        // SAFETY: both strings end with a zero, and the kernel writes no more than the buffer's length into it.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) }
    })?;
    value.truncate(Errno::result(len)? as usize);
    Ok(value)
}
