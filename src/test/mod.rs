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
//! [`profile::test`](crate::profile::test()) with the files and variables of [`TestBinary`]. There the same call runs
//! the closure, and the process exits. The outer process passes on its output and how it returned:
//!
//! | the closure | the test |
//! |---|---|
//! | returns `()` or `Ok(())` | passes |
//! | returns an error | fails with the error |
//! | panics | panics with the same message, so that `#[should_panic(expected = "…")]` works |
//! | leaves processes running | fails, and names them |
//! | exceeds a limit, is killed or exits, with any status | fails, and says which limit, signal or status it was |
//! | returns, and its process fails while it exits | fails, and says how |
//!
//! - **What stands before the call runs twice**, outside and inside; what stands after it runs outside only. So a test
//!   is best one call. Values that the closure captures are those of the inner process, and what it changes stays
//!   there. A test may call [`isolated`] more than once: each closure has a sandbox of its own. The calls are told apart by
//!   their order, so all must be made by one thread: those of another one fail.
//! - **Output** that the closure writes is printed when it has returned, at most the 16 MiB of each stream that the
//!   profile allows. The harness captures it as that of any test.
//! - **Harnesses**: `cargo test` with any of its options, and cargo-nextest; also harnesses of other crates that know
//!   `--exact`, `--nocapture`, `--test-threads` and `--include-ignored`. `#[ignore]` and tests
//!   that a macro generates for parameters work, and so does a harness that runs tests on its main thread.
//! - **Not supported**: documentation tests and benchmarks, which have no harness that runs one of them by name, and
//!   `#[should_panic]` without `expected`, which also passes if the sandbox cannot be created.
//! - **Asynchronous tests**: create the runtime in the closure.
//! - **Forks**: a process that the closure has forked, and that returns from it, exits with status 0, or with 101 if it
//!   panics or returns an error. It does not decide the test.
//!
//! # Debuggers
//!
//! With the environment variable `STOCKADE_TEST_INLINE=1`, closures are called in the test itself, without a sandbox:
//! for debuggers, and for tests that already run in one, such as that of a runner.
//!
//! # Limits
//!
//! The profile limits wall-clock time to 5 minutes, the output, and the number of processes of the user. [`Isolated`]
//! sets limits on memory and on the processes of the test alone. These require a cgroup, as every
//! [`Cgroup`](crate::Cgroup): if the caller may not create one, the test fails and says so. `map_sandbox(|sandbox|
//! sandbox.best_effort([Layer::Cgroup]))` runs it without them. Processes that a test leaves running are found without
//! a cgroup.
//!
//! # Errors
//!
//! A test panics if the sandbox cannot be created, with the message of the [error](crate::Error).
//!
//! [`testing`](crate::guide::testing) has recipes for whole suites, of Rust and of other languages.

mod inner_run;
mod isolated_test;
mod run_report;
mod test_binary;
mod test_name;
mod test_result;
mod test_run;

pub use isolated_test::{Isolated, isolated};
pub use test_binary::{TestBinary, is_passed};
pub use test_result::TestResult;
