//! The stub: the calls of the helper while it still shares the caller's memory. It closes the caller's descriptors and
//! executes the helper's image. Every signal is blocked until then. Nothing that needs the sandbox's configuration
//! belongs here.

use super::call::{Arg, flags, nr};
use super::script::{Script, Step};
use super::value::Input;
use crate::advice::Need;

/// Compiles the stub that executes an image.
pub(crate) fn stub(image: &Script) -> Script {
    let mut stub = Script::new(image.title);
    let executable = stub.input(Input::Image);
    stub.step(Step::new("close the caller's descriptors"));
    let kept: Vec<Input> = image.inputs().filter(|input| input.is_descriptor()).collect();
    for gap in 0..=(kept.len() + 1) as u16 {
        let (first, last) = (stub.input(Input::GapFirst(gap)), stub.input(Input::GapLast(gap)));
        stub.call(nr!(SYS_close_range), [first.into(), last.into(), Arg::NONE]);
    }
    for input in kept {
        let fd = stub.input(input);
        stub.fcntl(fd, flags!(F_SETFD), Arg::NONE);
    }

    stub.step(Step::new("execute the image").needs(Need::Memfd).remedies(&[
        (libc::EACCES, "the file system of the image is mounted noexec, or a security module denies it: allow executing memfds, or set TMPDIR to a directory on a file system that is not mounted noexec"),
    ]));
    stub.exec_image(executable, image.title);
    stub
}
