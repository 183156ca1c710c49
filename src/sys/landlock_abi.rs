//! The ABI version of Landlock (landlock_create_ruleset(2), `LANDLOCK_CREATE_RULESET_VERSION`).

use nix::errno::Errno;

/// Returns the ABI version of the kernel. Fails with `ENOSYS` or `EOPNOTSUPP` if it does not support Landlock.
pub(crate) fn current() -> nix::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes a null pointer and a size of 0.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0usize, VERSION) };
    Errno::result(version).map(|version| version as u32)
}
