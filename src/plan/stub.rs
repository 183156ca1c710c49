//! What a child does while it still shares the memory of the host: it lets go of the host's descriptors, keeps its
//! capabilities over the exec, and executes its image. Every signal is blocked until then.

use super::call::{Arg, flags, nr};
use super::program::{Input, Program, Step};

/// Wraps `prologue`, calls that must be made before the first exec, into a stub for `image`.
///
/// `capabilities` are kept over the exec: the child of a new user namespace has them, but no mapped user id yet, and
/// the exec of a user without one would drop them.
pub(crate) fn stub(prologue: Program, image: &Program, capabilities: u64) -> Program {
    let mut stub = prologue;
    let executable = stub.input(Input::Image);

    stub.step(Step::new("closing what the host has open"));
    let kept: Vec<Input> = image.inputs().filter(|input| input.is_descriptor()).collect();
    for gap in 0..=(kept.len() + 1) as u16 {
        let (first, last) = (stub.input(Input::GapFirst(gap)), stub.input(Input::GapLast(gap)));
        stub.call(nr!(SYS_close_range), [first.into(), last.into(), Arg::NONE]);
    }
    for input in kept {
        let fd = stub.input(input);
        stub.fcntl(fd, flags!(F_SETFD), Arg::NONE);
    }

    if capabilities != 0 {
        keep_capabilities(&mut stub, capabilities);
    }

    stub.step(Step::new("executing the image").remedies(&[
        (libc::EACCES, "the file system of the image is mounted noexec, or a security module forbids it; allow memfd execution, or set TMPDIR to a file system where programs may be executed"),
        (libc::ENOSYS, "the kernel or a seccomp filter of the surrounding container lacks execveat(2); allow it"),
    ]));
    stub.exec_image(executable, image.title);
    stub
}

fn keep_capabilities(stub: &mut Program, capabilities: u64) {
    stub.step(Step::new("keeping the capabilities over the exec"));
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    let header = stub.arena.bytes(&header_bytes(), "{_LINUX_CAPABILITY_VERSION_3, 0}");
    let sets: Vec<u8> = [low, low, low, high, high, high].into_iter().flat_map(u32::to_ne_bytes).collect();
    let sets = stub.arena.bytes(&sets, format!("{{effective = permitted = inheritable = {capabilities:#x}}}"));
    stub.call(nr!(SYS_capset), [header.into(), sets.into()]);
    for capability in (0..64u64).filter(|bit| capabilities >> bit & 1 == 1) {
        let raise = [flags!(PR_CAP_AMBIENT), flags!(PR_CAP_AMBIENT_RAISE), capability.into(), Arg::NONE, Arg::NONE];
        stub.call(nr!(SYS_prctl), raise);
    }
}

/// `struct __user_cap_header_struct` for the calling thread: `_LINUX_CAPABILITY_VERSION_3`, 0.
pub(crate) fn header_bytes() -> Vec<u8> {
    [0x2008_0522u32, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}
