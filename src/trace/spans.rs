//! Spans and events, and their fields. `no_spans.rs` has the same functions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use ::tracing::field::{Empty, display};
use ::tracing::{Span, debug_span, info, info_span, warn};

use crate::error::{Error, Result};
use crate::escape::shown;
use crate::outcome::{Enforcement, Gap, Outcome, Termination, Unenforced};
use crate::unix::Pid;

/// The target of everything here.
const TARGET: &str = "stockade";

/// Compiles a command, or a session if there is no program.
pub(crate) fn compiling<T>(program: Option<&OsStr>, compile: impl FnOnce() -> Result<T>) -> Result<T> {
    let span = debug_span!(target: TARGET, "compile", program = program.map(name), error = Empty);
    within(&span, compile)
}

/// Starts a session.
pub(crate) fn starting<T>(session: impl FnOnce(&T) -> Pid, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let span = info_span!(target: TARGET, "start", session = Empty, error = Empty);
    within(&span, start).inspect(|started| {
        span.record("session", session(started).number());
    })
}

/// Spawns a program, in a session if there is one.
pub(crate) fn spawning<T>(
    program: &OsStr,
    session: Option<Pid>,
    pid: impl FnOnce(&T) -> Pid,
    spawn: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let session = session.map(Pid::number);
    let span = info_span!(target: TARGET, "spawn", program = name(program), session, pid = Empty, error = Empty);
    within(&span, spawn).inspect(|child| {
        span.record("pid", pid(child).number());
    })
}

fn within<T>(span: &Span, act: impl FnOnce() -> Result<T>) -> Result<T> {
    span.in_scope(act).inspect_err(|error| record_error(span, error))
}

fn record_error(span: &Span, error: &Error) {
    span.record("error", display(error));
}

fn name(program: &OsStr) -> String {
    shown(program.as_bytes())
}

/// The span of waiting for a program: from the first call that waits to the outcome, whether they block or not.
#[derive(Debug)]
pub(crate) struct Waiting(Option<Span>);

impl Waiting {
    pub fn new() -> Self {
        Self(None)
    }

    fn span(&mut self, pid: Pid) -> &Span {
        let new = || {
            info_span!(
                target: TARGET, "wait", pid = pid.number(), termination = Empty, wall_time = Empty, cpu_time = Empty,
                memory_peak = Empty, error = Empty
            )
        };
        self.0.get_or_insert_with(new)
    }

    /// Opens the span, unless it is open.
    pub fn begin(&mut self, pid: Pid) {
        self.span(pid);
    }

    /// Records how the program terminated, and closes the span.
    pub fn finish(&mut self, pid: Pid, result: &Result<Outcome>) {
        let span = self.span(pid);
        match result {
            Ok(outcome) => {
                let usage = &outcome.usage;
                span.record("termination", display(outcome.termination));
                span.record("wall_time", usage.wall_time.as_secs_f64());
                span.record("cpu_time", usage.cpu_time.map(|cpu| cpu.value.as_secs_f64()));
                span.record("memory_peak", usage.memory_peak.map(|memory| memory.value));
                span.in_scope(|| report(outcome, pid));
            }
            Err(error) => record_error(span, error),
        }
        self.0 = None;
    }
}

/// Reports what an outcome has of limits, denied system calls and leaked processes.
fn report(outcome: &Outcome, pid: Pid) {
    if let Some(limit) = exceeded(outcome.termination) {
        warn!(target: TARGET, pid = pid.number(), limit, "limit exceeded");
    }
    if let Some(denied) = outcome.usage.pids_denied.map(|denied| denied.value).filter(|denied| *denied > 0) {
        warn!(target: TARGET, pid = pid.number(), limit = "pids", denied, "limit exceeded");
    }
    for violation in &outcome.violations {
        let path = violation.path.as_deref().map(|path| name(path.as_os_str()));
        warn!(target: TARGET, pid = pid.number(), call = %violation.call, path, count = violation.count, "system call denied");
    }
    for process in &outcome.leaked {
        warn!(target: TARGET, pid = pid.number(), leaked = process.pid.number(), name = process.name, "process leaked");
    }
}

/// Returns the name of the limit that a program has exceeded.
fn exceeded(termination: Termination) -> Option<&'static str> {
    match termination {
        Termination::WallTime => Some("wall_time"),
        Termination::CpuTime => Some("cpu_time"),
        Termination::Idle => Some("idle_timeout"),
        Termination::Output => Some("output"),
        Termination::Memory => Some("memory"),
        Termination::HostMemory => Some("host_memory"),
        _ => None,
    }
}

/// Reports what is not enforced of a sandbox that has started.
pub(crate) fn enforcement(enforcement: &Enforcement) {
    unenforced(&enforcement.unenforced);
    gaps(&enforcement.gaps);
}

/// Reports gaps.
pub(crate) fn gaps(gaps: &[Gap]) {
    for gap in gaps {
        info!(target: TARGET, kind = ?gap.kind, description = gap.description, hint = gap.hint, "gap");
    }
}

/// Reports layers, or parts of them, that are not enforced.
pub(crate) fn unenforced(unenforced: &[Unenforced]) {
    for missing in unenforced {
        let Unenforced { layer, requested, reason, .. } = missing;
        warn!(target: TARGET, %layer, requested, reason, "layer unenforced");
    }
}

/// Lets a function that runs on another thread have the span of this one.
#[cfg(feature = "tokio")]
pub(crate) fn in_current<T>(function: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(function)
}
