//! The functions of `spans.rs` without the feature: none does anything.

use std::ffi::OsStr;

use crate::error::Result;
use crate::outcome::{Enforcement, Gap, Outcome, Unenforced};
use crate::unix::Pid;

pub(crate) fn compiling<T>(_program: Option<&OsStr>, compile: impl FnOnce() -> Result<T>) -> Result<T> {
    compile()
}

pub(crate) fn starting<T>(_session: impl FnOnce(&T) -> Pid, start: impl FnOnce() -> Result<T>) -> Result<T> {
    start()
}

pub(crate) fn spawning<T>(
    _program: &OsStr,
    _session: Option<Pid>,
    _pid: impl FnOnce(&T) -> Pid,
    spawn: impl FnOnce() -> Result<T>,
) -> Result<T> {
    spawn()
}

#[derive(Debug)]
pub(crate) struct Waiting;

impl Waiting {
    pub fn new() -> Self {
        Self
    }

    pub fn begin(&mut self, _pid: Pid) {}

    pub fn finish(&mut self, _pid: Pid, _result: &Result<Outcome>) {}
}

pub(crate) fn enforcement(_enforcement: &Enforcement) {}

pub(crate) fn gaps(_gaps: &[Gap]) {}

pub(crate) fn unenforced(_unenforced: &[Unenforced]) {}

#[cfg(feature = "tokio")]
pub(crate) fn in_current<T>(function: impl FnOnce() -> T) -> impl FnOnce() -> T {
    function
}
