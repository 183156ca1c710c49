//! The builder of a test in a sandbox of its own, [`Isolated`].

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::inner_run::InnerRun;
use super::test_binary::{INLINE, TestBinary};
use super::test_name;
use super::test_result::TestResult;
use super::test_run::{Ran, TestRun};
use crate::environment;
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::profile;
use crate::sandbox::Sandbox;

/// Runs a test in a sandbox of its own: see the [module](super).
///
/// # Panics
///
/// If the test fails, as the module describes, or if the sandbox cannot be created.
#[track_caller]
pub fn isolated<R: TestResult>(test: impl FnOnce() -> R) -> R {
    Isolated::new().run(test)
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

    /// Limits the number of processes and threads of the test: [`Cgroup::pids_max`](crate::Cgroup::pids_max). The
    /// harness in the sandbox has two threads.
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

    /// Passes an environment variable of the caller, in addition to those of [`is_passed`](super::is_passed). One that
    /// is not set is not passed.
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
    /// Default: the name is found out. It cannot be if another thread than that of the test calls [`Isolated::run`],
    /// and a function that the test calls has the closure.
    pub fn test_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Runs a test in the sandbox: see the [module](super).
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
        let mut command = binary.command();
        command.envs(environment::vars(|name| self.variables.iter().any(|passed| passed == name)));
        let sandbox = binary.bind(self.sandbox.clone());
        let mut shown = String::new();
        for name in names {
            let Some(call) = next_call(name) else {
                return Ok(Ran::Failed(format!(
                    "{name} isolates closures in two threads: isolate them in one, in an order"
                )));
            };
            let run = TestRun::new(&sandbox, command.clone(), name, call)?;
            match run.result() {
                Some(ran) => return Ok(ran),
                None => shown = run.unstarted(),
            }
        }
        Ok(Ran::Failed(format!(
            "the test binary ran no test of the name {}, or not as far as this call: set the name of the test \
             (Isolated::test_name){shown}",
            names.join(" or ")
        )))
    }
}

/// Returns the number of a call within its test, by which the inner process finds the closure. `None` if another thread has
/// called before: the order may be another one there.
fn next_call(test: &str) -> Option<usize> {
    static CALLS: Mutex<Option<HashMap<String, (ThreadId, usize)>>> = Mutex::new(None);
    let (own, mut calls) = (thread::current().id(), lock(&CALLS));
    let (thread, next) = calls.get_or_insert_default().entry(test.to_owned()).or_insert((own, 0));
    *next += 1;
    (*thread == own).then_some(*next - 1)
}
