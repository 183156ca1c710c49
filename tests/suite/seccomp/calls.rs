//! System calls that no safe crate provides, by their numbers.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::ptr::null_mut;

use nix::errno::Errno;

/// Makes a call. None of those that the tests make with pointers writes to memory.
pub fn call(number: i64, args: [u64; 6]) -> nix::Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel checks what it reads, and writes nothing for the calls of these tests.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Two pages, of which the second can't be read; the address of the first.
pub fn page_before_a_gap() -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, where the kernel likes it, that nobody else knows of.
    let first = unsafe { libc::mmap(null_mut(), 2 * PAGE, access, kind, -1, 0) };
    assert_ne!(first, libc::MAP_FAILED);
    // SAFETY: the second page is ours, and nothing lies in it.
    assert_eq!(unsafe { libc::mprotect(first.byte_add(PAGE), PAGE, libc::PROT_NONE) }, 0);
    first.cast()
}

/// Puts bytes at the end of a page of [`page_before_a_gap`], and gives their address.
pub fn put_at_end(page: *mut u8, bytes: &[u8]) -> u64 {
    assert!(bytes.len() <= PAGE);
    // SAFETY: the place is in the page, which is ours and can be written to.
    unsafe {
        let place = page.add(PAGE - bytes.len());
        place.copy_from(bytes.as_ptr(), bytes.len());
        place as u64
    }
}

/// A call of i386, made by `int 0x80`: the kernel's answer.
#[cfg(target_arch = "x86_64")]
pub fn i386(number: i32) -> i32 {
    let result: i32;
    // SAFETY: a call without arguments that touches no memory; r8 to r11 may be cleared.
    unsafe {
        asm!("int 0x80", inlateout("eax") number => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Other architectures have none.
#[cfg(not(target_arch = "x86_64"))]
pub fn i386(_: i32) -> i32 {
    -libc::ENOSYS
}
