//! The process that runs one test in its sandbox: it calls the closure, and reports how that returned.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::parent_id;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::run_report::{BEGIN, DESCRIPTOR, RunReport, TestVerdict};
use super::test_result::TestResult;
use crate::environment;
use crate::escape::shown;
use crate::process_status::ProcessStatus;
use crate::sys::inherited_fd::close_on_exec;

/// The variable that tells a process that it is the inner one: the inode of its pipe, and which call of the test it
/// runs.
pub(super) const VARIABLE: &str = "STOCKADE_TEST_RUN";

/// The exit status of a forked process that panics or returns an error, as that of a program in Rust that panics.
const EXIT_OF_A_PANIC: i32 = 101;

/// Returns the value of the variable.
pub(super) fn variable(inode: u64, call: usize) -> String {
    format!("{inode}:{call}")
}

/// Returns the line that precedes what the closure writes, in both output streams.
pub(super) fn separator(inode: u64) -> String {
    format!("\n-- stockade: the test begins ({inode}) --\n")
}

/// The process of one test, which was started for it alone.
#[derive(Debug)]
pub(super) struct InnerRun {
    inode: u64,
    /// The process that reports. What it forks has its memory and the pipe too.
    pid: u32,
    /// The number of the call to run. The caller has run those before it, each in a sandbox of its own.
    call: usize,
    calls: AtomicUsize,
}

impl InnerRun {
    /// Returns that of this process, if it is an inner one. The variable alone makes none: the pipe must be the one
    /// that it is about. A program that the test starts inherits the variable and not the pipe.
    pub fn of_process() -> Option<&'static Self> {
        static OWN: OnceLock<Option<InnerRun>> = OnceLock::new();
        OWN.get_or_init(Self::find).as_ref()
    }

    fn find() -> Option<Self> {
        let value = environment::var(VARIABLE)?.into_string().ok()?;
        let (inode, call) = value.split_once(':')?;
        let (inode, call) = (inode.parse().ok()?, call.parse().ok()?);
        let pipe = fs::metadata(pipe()).ok()?;
        if !pipe.file_type().is_fifo() || pipe.ino() != inode {
            return None;
        }
        close_on_exec(DESCRIPTOR as i32).ok()?;
        Some(Self { inode, pid: process::id(), call, calls: AtomicUsize::new(0) })
    }

    /// Calls the closure, reports how it returned, and exits, if this is the call to run.
    pub fn run<R: TestResult>(&self, test: impl FnOnce() -> R) -> R {
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            earlier if earlier < self.call => R::passed(),
            own if own == self.call => self.report(test),
            // Within the closure.
            _ => test(),
        }
    }

    fn report<R: TestResult>(&self, test: impl FnOnce() -> R) -> ! {
        let separator = separator(self.inode);
        let written = (|| {
            io::stdout().write_all(separator.as_bytes())?;
            io::stdout().flush()?;
            io::stderr().write_all(separator.as_bytes())?;
            // A write that would block is an error instead, which the caller sees as a report that is incomplete.
            let mut report = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(pipe())?;
            report.write_all(BEGIN.as_bytes())?;
            Ok::<File, io::Error>(report)
        })();
        let mut report = written.unwrap_or_else(|error| give_up(&error));
        let verdict = match catch_unwind(AssertUnwindSafe(test)) {
            Ok(result) => result.error().map_or(TestVerdict::Passed, TestVerdict::Failed),
            Err(payload) => TestVerdict::Panicked(message(&*payload)),
        };
        if process::id() != self.pid {
            // A process that the closure has forked: only its parent returns for the test.
            process::exit(if verdict == TestVerdict::Passed { 0 } else { EXIT_OF_A_PANIC });
        }
        let text = RunReport { verdict, leaked: leaked() }.to_text();
        if let Err(error) = io::stdout().flush().and_then(|()| report.write_all(text.as_bytes())) {
            give_up(&error);
        }
        process::exit(0)
    }
}

/// Returns the path of the pipe of this process.
fn pipe() -> PathBuf {
    format!("/proc/self/fd/{DESCRIPTOR}").into()
}

/// Exits without a report.
fn give_up(error: &io::Error) -> ! {
    let _ = writeln!(io::stderr(), "failed to report on the test to the process that waits for it: {error}");
    process::exit(1)
}

/// Returns the message of a panic.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the test panicked with a value that is no text").to_owned()
}

/// Returns the processes that the test has left running, as names and PIDs. A process that is about to exit has 100 ms
/// for it.
fn leaked() -> Vec<String> {
    let mut found = others();
    for _ in 0..10 {
        if found.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        found = others();
    }
    found
}

/// Returns the other processes of the PID namespace, except init and those that have exited. None without a PID
/// namespace of the sandbox's own: there, the parent is a process of the namespace.
fn others() -> Vec<String> {
    let own = process::id();
    let shows_own = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.to_string().as_str());
    if parent_id() != 0 || !shows_own {
        return vec![];
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != 1 && *pid != own).filter_map(living).collect()
}

/// Describes a process. `None` if it has exited.
fn living(pid: u32) -> Option<String> {
    let status = ProcessStatus::of(pid.try_into().ok()?).ok()?;
    let has_exited = status.field("State").starts_with(['Z', 'X']);
    (!has_exited).then(|| format!("{} ({pid})", shown(status.field("Name").as_bytes())))
}
