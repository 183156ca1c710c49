//! The auxiliary vector of this process (getauxval(3)).

/// Returns whether this process has gained privileges when it was executed (`AT_SECURE`).
pub(crate) fn is_secure() -> bool {
    // SAFETY: the call takes a number, and reads memory that the kernel has initialised.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
