//! The interpreter's machine code, and the clones that start a child with it.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

// `x86_64.s` or `aarch64.s`, with the version of the crate in the names of the symbols: see `build.rs`.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(include_str!(concat!(env!("OUT_DIR"), "/interpreter.s")), options(att_syntax, raw));
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(include_str!(concat!(env!("OUT_DIR"), "/interpreter.s")), options(raw));

unsafe extern "C" {
    #[link_name = concat!(env!("STOCKADE_SYMBOLS"), "_image_entry")]
    static stockade_image_entry: u8;
    #[link_name = concat!(env!("STOCKADE_SYMBOLS"), "_interpreter_end")]
    static stockade_interpreter_end: u8;
    #[link_name = concat!(env!("STOCKADE_SYMBOLS"), "_clone3")]
    fn stockade_clone3(args: *const libc::clone_args, size: usize, slots: *mut u64) -> isize;
    #[link_name = concat!(env!("STOCKADE_SYMBOLS"), "_clone")]
    fn stockade_clone(flags: u64, pidfd: *mut i32, slots: *mut u64) -> isize;
}

/// The machine code of an image, which begins with its entry.
pub(super) fn code() -> &'static [u8] {
    let (start, end) = (&raw const stockade_image_entry, &raw const stockade_interpreter_end);
    // SAFETY: both symbols stand in one section of one assembly file, the second after the first, and what lies
    // between them is code that nothing writes to.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start).unsigned_abs()) }
}

/// A process that was just cloned.
pub(super) struct Cloned {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Clones a child that shares the memory of the host and runs the calls of `memory`, which [`super::layout`] has laid
/// out at its own address and which is kept until the child has executed an image or ended.
///
/// Every signal of the calling thread is blocked meanwhile, so that no handler of the host runs in the child.
pub(super) fn clone(flags: u64, memory: &mut [u64]) -> nix::Result<Cloned> {
    let flags = flags | (libc::CLONE_VM | libc::CLONE_PIDFD) as u64;
    let mut pidfd: i32 = -1;
    // SAFETY: `clone_args` is plain data, for which all zeroes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    let slots = memory.as_mut_ptr();
    let blocked = Blocked::all();
    // SAFETY: the child runs the interpreter alone, which uses no stack and writes to no memory but `memory` and
    // what its calls point to, all of which the caller keeps until the child has its own memory or has ended.
    let mut pid = unsafe { stockade_clone3(&raw const args, size_of_val(&args), slots) };
    if matches!(-pid as i32, libc::ENOSYS | libc::EPERM) {
        // A seccomp filter can't look into the arguments of clone3, so some refuse it for whoever asks.
        // SAFETY: as above; the flags have the exit signal in their lowest byte, as clone(2) takes it.
        pid = unsafe { stockade_clone(flags | libc::SIGCHLD as u64, &raw mut pidfd, slots) };
    }
    drop(blocked);
    if pid < 0 {
        return Err(Errno::from_raw(-pid as i32));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// The signals of this thread, blocked until it is dropped.
struct Blocked {
    before: u64,
}

impl Blocked {
    fn all() -> Self {
        let mut before = 0;
        Self::set(&u64::MAX, &raw mut before);
        Self { before }
    }

    /// By the system call: the C library's function leaves its own two signals out.
    fn set(mask: &u64, before: *mut u64) {
        // SAFETY: the kernel reads and writes 8 bytes, its own size of a signal set; `before` is null or a place for
        // that many. It can't fail with these arguments.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask, before, 8usize) };
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        Self::set(&self.before, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    /// Two versions in one binary have no symbol in common then.
    #[test]
    fn symbols_carry_the_version() {
        let symbols: Vec<&str> = include_str!(concat!(env!("OUT_DIR"), "/interpreter.s"))
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("stockade_"))
            .collect();
        assert!(symbols.len() > 8, "{symbols:?}");
        let prefix = concat!(env!("STOCKADE_SYMBOLS"), "_");
        let version = concat!("stockade_", env!("CARGO_PKG_VERSION"), "_").replace('.', "_");
        assert!(prefix.starts_with(&version) && prefix.len() > version.len() + 8, "{prefix}");
        assert!(symbols.iter().all(|symbol| symbol.starts_with(prefix)), "{symbols:?}");
    }
}
