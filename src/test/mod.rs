//! Tests in sandboxes of their own: [`isolated`] for one test, [`TestBinary`] for a whole suite that stays as it is.
//!
//! ```
//! # mod example {
//! use std::net::TcpListener;
//!
//! #[test]
//! fn listens_on_8080() {
//!     stockade::test::isolated(|| {
//!         let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
//!         std::fs::write("/tmp/x", listener.local_addr().unwrap().to_string()).unwrap();
//!     });
//! }
//! # }
//! ```
//!
//! # How a test runs
//!
//! The test binary is executed once more, for this test alone (`--exact NAME`), in the sandbox of
//! [`profile::test`](crate::profile::test()) with the files and variables of [`TestBinary`]. There the same call runs the closure,
//! and the process exits. The outer process passes on its output and how it returned:
//!
//! | the closure | the test |
//! |---|---|
//! | returns `()` or `Ok(())` | passes |
//! | returns an error | fails with the error |
//! | panics | panics with the same message, so that `#[should_panic(expected = "…")]` works |
//! | leaves processes running | fails, and names them |
//! | exceeds a limit, is killed or exits | fails, and says which limit or signal it was |
//!
//! - **What stands before the call runs twice**, outside and inside; what stands after it runs outside only. So a test is best
//!   one call. Values that the closure captures are those of the inner process, and what it changes stays there. A test may call
//!   [`isolated`] more than once: each closure has a sandbox of its own.
//! - **Output** that the closure writes is printed when it has returned, at most the 16 MiB of each stream that the profile
//!   allows. The harness captures it as that of any test.
//! - **Harnesses**: `cargo test` with any of its options, and cargo-nextest; also harnesses of other crates that know `--exact`,
//!   `--nocapture`, `--test-threads` and `--include-ignored`, such as libtest-mimic. `#[ignore]` and tests that a macro generates
//!   for parameters work, and so does a harness that runs tests on its main thread.
//! - **Not supported**: documentation tests and benchmarks, which have no harness that runs one of them by name, and
//!   `#[should_panic]` without `expected`, which also passes if the sandbox cannot be created.
//! - **Asynchronous tests**: create the runtime in the closure.
//!
//! # Debuggers
//!
//! With the environment variable `STOCKADE_TEST_INLINE=1`, closures are called in the test itself, without a sandbox: for
//! debuggers, and for tests that already run in one, such as that of a runner.
//!
//! # Limits
//!
//! The profile limits wall-clock time to 5 minutes, the output, and the number of processes of the user. [`Isolated`] sets limits
//! on memory and on the processes of the test alone. These require a cgroup, as every [`Cgroup`](crate::Cgroup): if the caller may
//! not create one, the test fails and says so. `map_sandbox(|sandbox| sandbox.best_effort([Layer::Cgroup]))` runs it without them.
//! Processes that a test leaves running are found without a cgroup.
//!
//! # Errors
//!
//! A test panics if the sandbox cannot be created, with the message of the [`Error`](crate::Error).
//!
//! The repository has recipes for whole suites, of Rust and of other languages, in `docs/testing.md`.

mod inner_run;
mod run_report;
mod test_binary;
mod test_name;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::pipe2;

use crate::command::Command;
use crate::environment;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, Output, Termination};
use crate::profile;
use crate::sandbox::Sandbox;
use inner_run::InnerRun;
use run_report::{BEGIN, DESCRIPTOR, RunReport, TestVerdict};
pub use test_binary::{TestBinary, is_passed};

/// The variable with which closures are called in the test itself.
const INLINE: &str = "STOCKADE_TEST_INLINE";

/// Runs a test in a sandbox of its own: see the [module](self).
///
/// # Panics
///
/// If the test fails, as the module describes, or if the sandbox cannot be created.
#[track_caller]
pub fn isolated<R: TestResult>(test: impl FnOnce() -> R) -> R {
    Isolated::new().run(test)
}

/// What a test returns: `()`, or a `Result` with an error that is shown; or it never returns, as one that panics.
///
/// This trait is sealed.
pub trait TestResult: sealed::Sealed {
    #[doc(hidden)]
    fn passed() -> Self;

    #[doc(hidden)]
    fn error(&self) -> Option<String>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for Never {}

    /// The type `!`, whose name is not stable: what a function returns that never returns.
    pub type Never = <fn() -> ! as Returns>::Type;

    pub trait Returns {
        type Type;
    }

    impl<T> Returns for fn() -> T {
        type Type = T;
    }
}

impl TestResult for sealed::Never {
    fn passed() -> Self {
        unreachable!("a closure that never returns passes only by a panic");
    }

    fn error(&self) -> Option<String> {
        None
    }
}

impl TestResult for () {
    fn passed() -> Self {}

    fn error(&self) -> Option<String> {
        None
    }
}

impl<E: Debug> TestResult for Result<(), E> {
    fn passed() -> Self {
        Ok(())
    }

    fn error(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!("{error:?}"))
    }
}

/// The sandbox of a test, as a builder: [`isolated`] with limits and other settings.
///
/// ```
/// # mod example {
/// use stockade::test::Isolated;
///
/// #[test]
/// fn fits_in_64_mib() {
///     Isolated::new().memory_max(64 << 20).run(|| {
///         assert_eq!(vec![1u8; 1 << 20].len(), 1 << 20);
///     });
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a test runs by `run`"]
pub struct Isolated {
    sandbox: Sandbox,
    variables: Vec<String>,
    name: Option<String>,
}

impl Default for Isolated {
    fn default() -> Self {
        Self::new()
    }
}

impl Isolated {
    /// Describes the sandbox of [`profile::test`](crate::profile::test()).
    pub fn new() -> Self {
        Self { sandbox: profile::test(), variables: vec![], name: None }
    }

    /// Limits the memory of the test, in bytes: [`Cgroup::memory_max`](crate::Cgroup::memory_max).
    ///
    /// Default: no limit.
    pub fn memory_max(self, bytes: u64) -> Self {
        self.map_sandbox(|sandbox| sandbox.map_cgroup(|cgroup| cgroup.memory_max(bytes)))
    }

    /// Limits the number of processes and threads of the test: [`Cgroup::pids_max`](crate::Cgroup::pids_max). The harness in the
    /// sandbox has two threads.
    ///
    /// A test that the limit denied a process, and that passes nevertheless, passes.
    ///
    /// Default: 1,024 processes of the user, as in the profile.
    pub fn pids_max(self, processes: u64) -> Self {
        self.map_sandbox(|sandbox| sandbox.map_cgroup(|cgroup| cgroup.pids_max(processes)))
    }

    /// Limits the wall-clock time of the test: [`Limits::wall_time`](crate::Limits::wall_time).
    ///
    /// Default: 5 minutes, as in the profile.
    pub fn wall_time(self, time: Duration) -> Self {
        self.map_sandbox(|sandbox| sandbox.map_limits(|limits| limits.wall_time(time)))
    }

    /// Passes an environment variable of the caller, in addition to those of [`is_passed`]. One that is not set is not passed.
    pub fn pass_env(mut self, name: impl Into<String>) -> Self {
        self.variables.push(name.into());
        self
    }

    /// Changes the sandbox: binds, networks, other limits.
    pub fn map_sandbox(mut self, change: impl FnOnce(Sandbox) -> Sandbox) -> Self {
        self.sandbox = change(self.sandbox);
        self
    }

    /// Sets the name of the test, as the harness lists it.
    ///
    /// Default: the name is found out. It cannot be if another thread than that of the test calls [`Isolated::run`], and a
    /// function that the test calls has the closure.
    pub fn test_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Runs a test in the sandbox: see the [module](self).
    ///
    /// # Panics
    ///
    /// If the test fails, as the module describes, or if the sandbox cannot be created.
    #[track_caller]
    pub fn run<R: TestResult, F: FnOnce() -> R>(self, test: F) -> R {
        if environment::var(INLINE).is_some_and(|value| value != "0") {
            return test();
        }
        if let Some(inner) = InnerRun::of_process() {
            return inner.run(test);
        }
        let names = self.name.clone().map_or_else(test_name::candidates::<F>, |name| vec![name]);
        match self.run_any(&names) {
            Ok(Ran::Passed) => R::passed(),
            // The inner process has printed it.
            Ok(Ran::Panicked(message)) => resume_unwind(Box::new(message)),
            Ok(Ran::Failed(reason)) => panic!("{reason}"),
            Err(error) => {
                panic!("the test was not run in a sandbox: {error} ({INLINE}=1 runs it without one)")
            }
        }
    }

    /// Runs the first of these names that is a test.
    fn run_any(&self, names: &[String]) -> Result<Ran> {
        let binary = TestBinary::new(std::env::current_exe().map_err(Error::io("find the test binary"))?)?;
        let mut shown = String::new();
        for name in names {
            let attempt = Attempt::new(self, &binary, name)?;
            match attempt.result() {
                Some(ran) => return Ok(ran),
                None => shown = attempt.unstarted(),
            }
        }
        Ok(Ran::Failed(format!(
            "the test binary ran no test of the name {}, or not as far as this call: set the name of the test \
             (Isolated::test_name){shown}",
            names.join(" or ")
        )))
    }
}

/// How a test returned that was run in its sandbox.
enum Ran {
    Passed,
    Panicked(String),
    Failed(String),
}

/// A run of the test binary.
struct Attempt<'a> {
    isolated: &'a Isolated,
    output: Output,
    report: String,
    inode: u64,
}

impl<'a> Attempt<'a> {
    /// Runs the test of a name, if there is one.
    fn new(isolated: &'a Isolated, binary: &TestBinary, name: &str) -> Result<Self> {
        let failed = "create the pipe for the report of a test";
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(Error::io(failed))?;
        let inode = fstat(&read).map_err(Error::io(failed))?.st_ino;
        let command = isolated.command(binary, name, write, &inner_run::variable(inode, next_call(name)));
        let output = binary.bind(isolated.sandbox.clone()).output(command)?;
        // Every process that could write has exited; if one has not, because it has no PID namespace, this ends nevertheless.
        let mut report = vec![];
        let _ = File::from(read).read_to_end(&mut report);
        Ok(Self { isolated, output, report: String::from_utf8_lossy(&report).into_owned(), inode })
    }

    /// Prints what the closure wrote, and returns how it returned. `None` if it was not called, and the harness exited.
    fn result(&self) -> Option<Ran> {
        let outcome = &self.output.outcome;
        let rest = match self.report.strip_prefix(BEGIN) {
            None if matches!(outcome.termination, Termination::Exited(_)) => return None,
            rest => rest.unwrap_or_default(),
        };
        self.print();
        let mut report = RunReport::parse(rest);
        let leaked = match &mut report {
            Some(report) => std::mem::take(&mut report.leaked),
            None => outcome.leaked.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect(),
        };
        let notes = [self.exceeded(), self.denied(), self.left(&leaked)].into_iter().flatten().collect::<Vec<_>>();
        let notes = notes.join("; ");
        Some(match report.map(|report| report.verdict) {
            _ if outcome.termination == Termination::Memory => Ran::Failed(notes),
            None => Ran::Failed(if notes.is_empty() { self.unfinished() } else { notes }),
            Some(TestVerdict::Panicked(message)) => {
                // A harness shows the message of a panic as the inner process has printed it.
                if !notes.is_empty() {
                    eprintln!("{notes}");
                }
                Ran::Panicked(with_notes(message, &notes))
            }
            Some(TestVerdict::Failed(error)) => Ran::Failed(with_notes(format!("Error: {error}"), &notes)),
            Some(TestVerdict::Passed) if !leaked.is_empty() => Ran::Failed(notes),
            Some(TestVerdict::Passed) => Ran::Passed,
        })
    }

    /// Prints the output of the closure by the macros of `std`, which a harness captures.
    fn print(&self) {
        let separator = inner_run::separator(self.inode);
        let stdout = String::from_utf8_lossy(&self.output.stdout);
        let stderr = String::from_utf8_lossy(&self.output.stderr);
        print!("{}", after(&stdout, &separator));
        eprint!("{}", after(&stderr, &separator));
        for unenforced in &self.output.outcome.enforcement.unenforced {
            eprintln!("the test ran without {}: {}", unenforced.requested, unenforced.reason);
        }
    }

    /// Returns which limit the test exceeded.
    fn exceeded(&self) -> Option<String> {
        let config = &self.isolated.sandbox.config;
        let termination = self.output.outcome.termination;
        let limit = match termination {
            Termination::Exited(_) | Termination::Signaled { .. } => return None,
            Termination::Memory => {
                config.cgroup.as_ref().and_then(|cgroup| cgroup.memory_and_pids()[0]).map(|max| format!("{max} bytes"))
            }
            Termination::WallTime => config.limits.wall_clock().map(|max| format!("{max:?}")),
            _ => None,
        };
        Some(limit.map_or_else(|| termination.to_string(), |limit| format!("{termination}: {limit}")))
    }

    /// Returns that the limit on processes denied some.
    fn denied(&self) -> Option<String> {
        let denied = self.output.outcome.usage.pids_denied.map_or(0, |denied| denied.value);
        let max = self.isolated.sandbox.config.cgroup.as_ref().and_then(|cgroup| cgroup.memory_and_pids()[1])?;
        (denied > 0).then(|| format!("limit on processes exceeded: {max} (pids_max), {denied} denied"))
    }

    /// Returns that the test left processes running.
    fn left(&self, leaked: &[String]) -> Option<String> {
        (!leaked.is_empty()).then(|| {
            format!("the test left processes running: {}: kill them and wait for them in the test", leaked.join(", "))
        })
    }

    /// Returns how the process of a closure that did not return terminated.
    fn unfinished(&self) -> String {
        let Outcome { termination, .. } = self.output.outcome;
        format!("the test did not return: its process {termination}")
    }

    /// Returns what a run in which the closure was not called wrote.
    fn unstarted(&self) -> String {
        let Output { outcome, stdout, stderr, .. } = &self.output;
        let [stdout, stderr] = [stdout, stderr].map(|stream| String::from_utf8_lossy(stream).trim().to_owned());
        format!("\nit {}\n{stdout}\n{stderr}", outcome.termination)
    }
}

impl Isolated {
    /// Returns the command that runs one test of a binary.
    fn command(&self, binary: &TestBinary, name: &str, report: OwnedFd, variable: &str) -> Command {
        let mut command = binary.command();
        command.args([name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        command.envs(environment::vars(|name| self.variables.iter().any(|passed| passed == name)));
        command.env(inner_run::VARIABLE, variable).fd(DESCRIPTOR, report);
        command
    }
}

/// Returns the number of a call within its test.
fn next_call(test: &str) -> usize {
    static CALLS: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    let next = calls.get_or_insert_default().entry(test.to_owned()).or_default();
    *next += 1;
    *next - 1
}

/// Returns what follows a line, or all if it is absent.
fn after<'a>(text: &'a str, line: &str) -> &'a str {
    text.split_once(line).map_or(text, |(_, after)| after)
}

fn with_notes(message: String, notes: &str) -> String {
    if notes.is_empty() { message } else { format!("{message}\n{notes}") }
}
