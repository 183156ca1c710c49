//! Attributes of the calling thread that prctl(2) returns.

/// Returns the securebits of the calling thread (capabilities(7)). None are set if the kernel refuses to tell.
pub(crate) fn securebits() -> u32 {
    // SAFETY: PR_GET_SECUREBITS has no other arguments, and writes no memory.
    let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
    bits.try_into().unwrap_or(0)
}
