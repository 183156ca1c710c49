//! System calls of attacks that no safe crate provides, by their numbers.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// The pointers among the arguments must lead to memory that the call may read, or write, as it does.
unsafe fn raw(number: i64, args: [usize; 6]) -> nix::Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the pointers.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// What a system call is given.
pub enum Word<'a> {
    Number(i64),
    /// What the call reads. Strings end with a zero byte.
    Bytes(&'a [u8]),
    /// What it writes to, as large as it needs.
    Room(&'a mut [u8]),
}

/// Any system call. Numbers are no addresses, but 0 or what the kernel finds to lead nowhere.
pub fn call(number: i64, words: &mut [Word]) -> nix::Result<i64> {
    let mut args = [0; 6];
    for (arg, word) in args.iter_mut().zip(words) {
        *arg = match word {
            Word::Number(number) => *number as usize,
            Word::Bytes(bytes) => bytes.as_ptr() as usize,
            Word::Room(room) => room.as_mut_ptr() as usize,
        };
    }
    // SAFETY: the pointers are to what lives through the call, and may be read, or written, as it does.
    unsafe { raw(number, args) }
}

/// The same of numbers alone.
pub fn numbers(number: i64, words: &[i64]) -> nix::Result<i64> {
    call(number, &mut words.iter().map(|&word| Word::Number(word)).collect::<Vec<_>>())
}

/// A system call by its number in the i386 ABI.
#[cfg(target_arch = "x86_64")]
pub fn i386(number: u32, args: [u32; 3]) -> nix::Result<i64> {
    let [first, second, third] = args.map(u64::from);
    let result: u64;
    // SAFETY: none of the arguments is an address, and what the kernel changes is said.
    unsafe {
        core::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inout("rax") u64::from(number) => result,
            in("rcx") second,
            in("rdx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    match result as i32 {
        errno @ -4095..0 => Err(Errno::from_raw(-errno)),
        value => Ok(value.into()),
    }
}

/// A child by clone3(2), as by [`clone`].
pub fn clone3(flags: i32) -> nix::Result<i64> {
    // struct clone_args {flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls}
    let signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD } else { 0 };
    let args = [u64::from(flags as u32), 0, 0, 0, signal as u64, 0, 0, 0].map(u64::to_ne_bytes);
    call(libc::SYS_clone3, &mut [Word::Bytes(args.as_flattened()), Word::Number(64)])
}

/// A socket that is made by io_uring: its number.
pub fn socket_by_ring(family: i32) -> std::io::Result<i32> {
    let mut ring = io_uring::IoUring::new(2)?;
    let entry = io_uring::opcode::Socket::new(family, libc::SOCK_STREAM, 0).build();
    // SAFETY: the entry has no pointers.
    unsafe { ring.submission().push(&entry) }.expect("the queue is empty");
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().expect("a completion").result();
    if result < 0 { Err(std::io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn string(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}

/// -100 as an argument.
const CWD: usize = libc::AT_FDCWD as usize;

pub fn mount(source: &str, target: &str, kind: &str, flags: u64) -> nix::Result<i64> {
    let [source, target, kind] = [source, target, kind].map(string);
    let args = [source.as_ptr() as usize, target.as_ptr() as usize, kind.as_ptr() as usize, flags as usize, 0, 0];
    // SAFETY: three strings that live through the call.
    unsafe { raw(libc::SYS_mount, args) }
}

pub fn umount(target: &str, flags: i32) -> nix::Result<i64> {
    let target = string(target);
    // SAFETY: a string that lives through the call.
    unsafe { raw(libc::SYS_umount2, [target.as_ptr() as usize, flags as usize, 0, 0, 0, 0]) }
}

/// The number of a descriptor.
pub fn open_tree(path: &str, flags: u32) -> nix::Result<i64> {
    let path = string(path);
    // SAFETY: a string that lives through the call.
    unsafe { raw(libc::SYS_open_tree, [CWD, path.as_ptr() as usize, flags as usize, 0, 0, 0]) }
}

/// Moves what is at a path, or what a descriptor from [`open_tree`] stands for if the path is empty.
pub fn move_mount(fd: i64, from: &str, to: &str) -> nix::Result<i64> {
    let [from, to] = [from, to].map(string);
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH as usize;
    // SAFETY: two strings that live through the call.
    unsafe { raw(libc::SYS_move_mount, [fd as usize, from.as_ptr() as usize, CWD, to.as_ptr() as usize, flags, 0]) }
}

/// Takes attributes off everything that is mounted at a path and below.
pub fn mount_clear(path: &str, clear: u64) -> nix::Result<i64> {
    let path = string(path);
    let attributes: [u64; 4] = [0, clear, 0, 0];
    let args = [CWD, path.as_ptr() as usize, libc::AT_RECURSIVE as usize, attributes.as_ptr() as usize, 32, 0];
    // SAFETY: a string and a structure of 32 bytes that live through the call.
    unsafe { raw(libc::SYS_mount_setattr, args) }
}

pub fn pivot_root(new: &str, old: &str) -> nix::Result<i64> {
    let [new, old] = [new, old].map(string);
    // SAFETY: two strings that live through the call.
    unsafe { raw(libc::SYS_pivot_root, [new.as_ptr() as usize, old.as_ptr() as usize, 0, 0, 0, 0]) }
}

pub fn unshare(flags: i32) -> nix::Result<i64> {
    // SAFETY: no pointer.
    unsafe { raw(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]) }
}

/// Asks the parent to trace this thread.
pub fn trace_me() -> nix::Result<i64> {
    // SAFETY: the request takes no pointer.
    unsafe { raw(libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize, 0, 0, 0, 0, 0]) }
}

/// Traces a thread.
pub fn seize(thread: i32) -> nix::Result<i64> {
    // SAFETY: the request takes no pointer.
    unsafe { raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, thread as usize, 0, 0, 0, 0]) }
}

/// Attaches to a process and lets it go again.
pub fn ptrace(pid: i32) -> nix::Result<i64> {
    let call = |request: u32| {
        // SAFETY: both requests take no pointer.
        unsafe { raw(libc::SYS_ptrace, [request as usize, pid as usize, 0, 0, 0, 0]) }
    };
    let seized = call(libc::PTRACE_SEIZE)?;
    let _ = call(libc::PTRACE_DETACH);
    Ok(seized)
}

/// The instructions of the filter that another process installed last (`PTRACE_SECCOMP_GET_FILTER`): for root of the
/// host alone.
pub fn filter_of(pid: i32) -> nix::Result<Vec<u64>> {
    const GET_FILTER: usize = 0x420c;
    let trace = |request: usize, data: usize| {
        // SAFETY: but for the filter, whose length the kernel gives, no request has a pointer.
        unsafe { raw(libc::SYS_ptrace, [request, pid as usize, 0, data, 0, 0]) }
    };
    trace(libc::PTRACE_SEIZE as usize, 0)?;
    trace(libc::PTRACE_INTERRUPT as usize, 0)?;
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
    let filter = trace(GET_FILTER, 0).and_then(|len| {
        let mut instructions = vec![0u64; len as usize];
        trace(GET_FILTER, instructions.as_mut_ptr() as usize).map(|_| instructions)
    });
    trace(libc::PTRACE_DETACH as usize, 0)?;
    filter
}

/// A `struct sock_fprog`. It lives as long as the instructions.
fn program_of(instructions: &[u8]) -> [u64; 2] {
    [(instructions.len() / 8) as u64, instructions.as_ptr() as u64]
}

/// Attaches a filter to a socket, by an option that is set to one.
pub fn filter_socket(fd: RawFd, option: i32, instructions: &[u8]) -> nix::Result<i64> {
    let program = program_of(instructions);
    let args = [fd as usize, libc::SOL_SOCKET as usize, option as usize, program.as_ptr() as usize, 16, 0];
    // SAFETY: the structure and what it points to live through the call.
    unsafe { raw(libc::SYS_setsockopt, args) }
}

/// Installs a filter of system calls. The process must have `no_new_privs`.
pub fn filter_calls(instructions: &[u8]) -> nix::Result<i64> {
    let program = program_of(instructions);
    let args = [libc::SECCOMP_SET_MODE_FILTER as usize, 0, program.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the structure and what it points to live through the call.
    unsafe { raw(libc::SYS_seccomp, args) }
}

/// Reads the memory of another process.
pub fn read_memory(pid: i32, address: usize, len: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0u8; len];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: len };
    let args = [pid as usize, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
    // SAFETY: the kernel writes at most `len` bytes to the local vector, and checks the remote one itself.
    let read = unsafe { raw(libc::SYS_process_vm_readv, args) }?;
    bytes.truncate(read as usize);
    Ok(bytes)
}

/// The request has 64 bits here, as a register has. The argument is a byte, or nothing.
pub fn ioctl(fd: i32, request: u64, argument: Option<u8>) -> nix::Result<i64> {
    let bytes = [argument.unwrap_or_default(), 0, 0, 0, 0, 0, 0, 0];
    let pointer = if argument.is_some() { bytes.as_ptr() as usize } else { 0 };
    // SAFETY: the requests that are made read one byte there, at most, and write nothing.
    unsafe { raw(libc::SYS_ioctl, [fd as usize, request as usize, pointer, 0, 0, 0]) }
}

/// A child by clone(2) with these flags and a copy of the memory: 0 in the child, which must leave by [`exit`].
pub fn clone(flags: i32) -> nix::Result<i64> {
    // SAFETY: without CLONE_VM and a stack it is a fork of a process with one thread.
    unsafe { raw(libc::SYS_clone, [flags as usize, 0, 0, 0, 0, 0]) }
}

pub fn exit(status: i32) -> ! {
    // SAFETY: no pointer.
    let _ = unsafe { raw(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    unreachable!("exit_group does not return")
}

/// Writes to a descriptor by its number, whatever that is.
pub fn write(fd: i32, bytes: &[u8]) -> nix::Result<i64> {
    // SAFETY: the kernel reads the bytes, which live through the call.
    unsafe { raw(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// The working directory in the kernel's own words, which the C library hides if it is out of reach.
pub fn getcwd() -> nix::Result<String> {
    let mut bytes = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the length that is given.
    let len = unsafe { raw(libc::SYS_getcwd, [bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0, 0]) }?;
    bytes.truncate(len as usize - 1);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn new_socket(family: i32, protocol: i32) -> nix::Result<OwnedFd> {
    // SAFETY: no pointer.
    let fd = unsafe { raw(libc::SYS_socket, [family as usize, libc::SOCK_RAW as usize, protocol as usize, 0, 0, 0]) }?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn netlink(protocol: i32) -> nix::Result<OwnedFd> {
    new_socket(libc::AF_NETLINK, protocol)
}

pub fn raw_inet(protocol: i32) -> nix::Result<OwnedFd> {
    new_socket(libc::AF_INET, protocol)
}

/// Has a process that sleeps in a system call make another one: what it answered. The process goes on as before.
#[cfg(target_arch = "x86_64")]
pub fn inject(pid: i32, number: i64, args: [u64; 3]) -> nix::Result<i64> {
    let request = |request: u32, data: usize| {
        // SAFETY: the data is null, or the address of registers that live through the call.
        unsafe { raw(libc::SYS_ptrace, [request as usize, pid as usize, 0, data, 0, 0]) }
    };
    let stopped =
        || nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), Some(nix::sys::wait::WaitPidFlag::__WALL));
    request(libc::PTRACE_ATTACH, 0)?;
    stopped()?;
    // SAFETY: plain data, for which all zeroes are valid.
    let mut before: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, &raw mut before as usize)?;
    let mut registers = before;
    // It stands behind the instruction that makes a system call, of two bytes.
    registers.rip -= 2;
    (registers.rax, registers.orig_rax) = (number as u64, u64::MAX);
    [registers.rdi, registers.rsi, registers.rdx] = args;
    request(libc::PTRACE_SETREGS, &raw const registers as usize)?;
    request(libc::PTRACE_SINGLESTEP, 0)?;
    stopped()?;
    request(libc::PTRACE_GETREGS, &raw mut registers as usize)?;
    request(libc::PTRACE_SETREGS, &raw const before as usize)?;
    request(libc::PTRACE_DETACH, 0)?;
    match registers.rax as i64 {
        errno @ -4095..0 => Err(Errno::from_raw(-errno as i32)),
        value => Ok(value),
    }
}

/// Time in milliseconds that a handler of [`alarm_that_takes`] takes.
static TAKES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

extern "C" fn take_time(_: i32) {
    std::thread::sleep(std::time::Duration::from_millis(TAKES.load(std::sync::atomic::Ordering::Relaxed)));
}

/// Has this process interrupted in so many milliseconds by a handler that takes as many as are said.
pub fn alarm_that_takes(after: u64, takes: u64) {
    TAKES.store(takes, std::sync::atomic::Ordering::Relaxed);
    let handler: extern "C" fn(i32) = take_time;
    let timer = [0, 0, (after / 1000) as i64, (after % 1000 * 1000) as i64];
    // SAFETY: the handler sleeps, and the kernel reads the timer, of four numbers.
    unsafe {
        libc::signal(libc::SIGALRM, handler as libc::sighandler_t);
        let args = [libc::ITIMER_REAL as usize, timer.as_ptr() as usize, 0, 0, 0, 0];
        raw(libc::SYS_setitimer, args).expect("a timer");
    }
}
