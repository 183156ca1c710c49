//! What the kernel has told this process when it was executed (getauxval(3)).
#![allow(unsafe_code)]

/// Whether it was executed with more privileges than whoever executed it (`AT_SECURE`).
pub(crate) fn is_secure() -> bool {
    // SAFETY: the call takes a number, and reads what the kernel has given to this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
