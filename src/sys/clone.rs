//! The machine code of the interpreter, and children of the caller that run it.

use std::fmt::{self, Debug, Formatter};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::layout::Layout;
use super::shared_memory::{Checked, Executor};
use crate::plan::Slot;

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

/// Returns the machine code of an image. It begins with the entry point.
pub(crate) fn code() -> &'static [u8] {
    let (start, end) = (&raw const stockade_image_entry, &raw const stockade_interpreter_end);
    // SAFETY: both symbols stand in one section of one assembly file, the second after the first, and what lies
    // between them is code that nothing writes to.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start).unsigned_abs()) }
}

/// A child process. Dropping it neither kills nor reaps the process.
///
/// It owns the memory of the caller in which a cloned child runs until the child has executed an image or exited. That
/// memory is freed only if the process has exited; otherwise dropping the handle leaks it.
pub(crate) struct ChildProcess {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    memory: ManuallyDrop<Vec<u64>>,
    /// The slots of the script that hold descriptors, if the child shares the caller's.
    opened: Vec<Slot>,
}

/// The flags of clone(2) by which a child shares more or less with the caller: its descriptors, and namespaces.
const FLAGS: u64 = (libc::CLONE_FILES
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as u64;

impl ChildProcess {
    /// A child that does not run in memory of the caller.
    pub fn from_parts(pid: i32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Arc::new(pidfd), memory: ManuallyDrop::default(), opened: vec![] }
    }

    /// Clones a child that shares the memory of the caller and executes a script there. `flags` are `CLONE_FILES` and
    /// namespaces to create.
    ///
    /// Blocks every signal of the calling thread during the call, so that no signal handler of the caller runs in the
    /// child.
    ///
    /// Returns `EINVAL` for other flags, and for a script with a call that is not for memory of the caller (see
    /// [`Checked`]).
    pub fn clone(flags: u64, script: &Layout<'_>) -> nix::Result<Self> {
        let shares_descriptors = flags & libc::CLONE_FILES as u64 != 0;
        let executor = Executor::Child { shares_descriptors };
        let checked = Checked::new(script.script, executor).ok().filter(|_| flags & !FLAGS == 0);
        let Checked { opened } = checked.ok_or(Errno::EINVAL)?;
        let mut memory = script.in_place();
        // SAFETY: the script was checked, and so were the flags. The memory is freed only when the child has executed
        // an image or exited (`Drop`).
        let (pid, pidfd) = unsafe { clone_executing(flags, &mut memory) }?;
        let opened = if shares_descriptors { opened } else { vec![] };
        Ok(Self { pid, pidfd: Arc::new(pidfd), memory: ManuallyDrop::new(memory), opened })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the pidfd, which other threads can share.
    pub fn pidfd(&self) -> &Arc<OwnedFd> {
        &self.pidfd
    }

    /// Reads a slot of the script that the child executes in memory of the caller. Returns 0 without such a script.
    pub fn slot(&self, slot: Slot) -> u64 {
        // SAFETY: the reference is to a word of a vector that lives; the child may write to it at the same time.
        self.memory.get(usize::from(slot.0)).map_or(0, |word| unsafe { std::ptr::read_volatile(word) })
    }

    /// Takes the descriptor that a call of the script has opened and stored in a slot. Returns `EBADF` for any other
    /// slot, and if the child does not share the caller's descriptors (`CLONE_FILES`).
    pub fn take_descriptor(&mut self, slot: Slot) -> nix::Result<OwnedFd> {
        if !self.opened.contains(&slot) {
            return Err(Errno::EBADF);
        }
        let fd = self.slot(slot) as i64;
        match fd {
            ..0 => Err(Errno::from_raw(-fd as i32)),
            0 => Err(Errno::EBADF),
            // SAFETY: the child has opened this descriptor in the table that it shared with us, since no other call
            // stores its result there, and nobody else knows of it. It is taken once, since the slot is cleared.
            _ => unsafe {
                std::ptr::write_volatile(&raw mut self.memory[usize::from(slot.0)], 0);
                Ok(OwnedFd::from_raw_fd(fd as RawFd))
            },
        }
    }

    fn has_exited(&self) -> bool {
        poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for ChildProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Debug for ChildProcess {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildProcess").field("pid", &self.pid).field("pidfd", &self.pidfd).finish_non_exhaustive()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.memory.is_empty() && self.has_exited() {
            // SAFETY: the memory is dropped only here, and no thread runs in it any more: a pidfd is readable when
            // every thread of the process has exited, which gives up its memory first (pidfd_open(2)).
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        }
    }
}

/// Clones a child that executes the interpreter in `memory` (see `Layout::in_place`). Returns its PID and a pidfd.
///
/// # Safety
///
/// - The slots and the table at the beginning of `memory` are those of a script that passes [`Checked::new`] for this
///   child, laid out at the address of `memory`.
/// - `memory` is neither freed nor moved until the child has executed an image or exited. The child may write to it.
/// - `flags` are among [`FLAGS`].
unsafe fn clone_executing(flags: u64, memory: &mut [u64]) -> nix::Result<(i32, OwnedFd)> {
    let flags = flags | (libc::CLONE_VM | libc::CLONE_PIDFD) as u64;
    let mut pidfd: i32 = -1;
    // SAFETY: `clone_args` is plain data, for which all zeroes are valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    let slots = memory.as_mut_ptr();
    let blocked = Blocked::all();
    // SAFETY: the child executes the interpreter alone, which uses no stack and writes to no memory but `memory`
    // and what the calls of the script point to. A pointer in a script leads into its own memory (`Arg`), which is
    // freed only when the child has exited (`Drop`).
    let mut pid = unsafe { stockade_clone3(&raw const args, size_of_val(&args), slots) };
    if matches!(-pid as i32, libc::ENOSYS | libc::EPERM) {
        // A seccomp filter can't look into the arguments of clone3, so some deny it in any case.
        // SAFETY: as above; the flags have the exit signal in their lowest byte, as clone(2) takes it.
        pid = unsafe { stockade_clone(flags | libc::SIGCHLD as u64, &raw mut pidfd, slots) };
    }
    drop(blocked);
    if pid < 0 {
        return Err(Errno::from_raw(-pid as i32));
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as i32, pidfd))
}

/// Blocks the signals of this thread until it is dropped.
struct Blocked {
    before: u64,
}

impl Blocked {
    fn all() -> Self {
        let mut before = 0;
        // SAFETY: it is a place for a signal set.
        unsafe { Self::set(&u64::MAX, &raw mut before) };
        Self { before }
    }

    /// Sets the mask by the system call: the function of the C library leaves its own two signals out.
    ///
    /// # Safety
    ///
    /// `before` is null, or valid for writes.
    unsafe fn set(mask: &u64, before: *mut u64) {
        // SAFETY: the kernel reads and writes 8 bytes, its own size of a signal set. It can't fail with these
        // arguments.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask, before, 8usize) };
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: null.
        unsafe { Self::set(&self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    /// Two versions of the crate in one binary must not share symbols.
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
