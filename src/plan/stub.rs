//! What the child does while it still shares the memory of the host: it lets go of the host's descriptors, and executes its
//! image. Every signal is blocked until then.

use super::call::{Arg, flags, nr};
use super::program::{Input, Program, Step};

/// The stub of an image.
pub(crate) fn stub(image: &Program) -> Program {
    let mut stub = Program::new(image.title);
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

    stub.step(Step::new("executing the image").remedies(&[
        (libc::EACCES, "the file system of the image is mounted noexec, or a security module forbids it; allow memfd execution, or set TMPDIR to a file system where programs may be executed"),
        (libc::ENOSYS, "the kernel or a seccomp filter of the surrounding container lacks execveat(2); allow it"),
    ]));
    stub.exec_image(executable, image.title);
    stub
}
