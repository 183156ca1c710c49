//! Entry points as async functions, for a runtime of tokio (feature `tokio`).
//!
//! [`spawn`], [`status`] and [`output`] are those of [`Sandbox`]; [`start`] starts a [`Session`]; [`Pool`] keeps sessions ready.
//! They need a runtime with I/O and time (`enable_all`), of one thread or of several, and panic without. What is missing here is in
//! the blocking interface, for example `spawn_supervised`, `interact`, `Child::usage` and `Child::freeze`.
//!
//! - **No thread of the runtime is blocked.** What starts and reaps processes runs on the runtime's threads for blocking work.
//! - **Limits are enforced** by the same code as in the blocking interface, as long as the future of a wait is polled. Otherwise
//!   only the wall-clock limit is, one second late, by the sandbox itself, and in a session none is.
//! - **Dropping** a [`Child`], a [`Session`] or the future of [`spawn`], [`status`] or [`output`] kills the processes. To know
//!   when those of a session are gone, call [`Session::kill`], and wait for it.
//! - **Cancellation.** Each function says what happens if its future is dropped.
//!
//! Other runtimes and event loops need nothing of this module: [`AsFd`] of [`crate::Child`] and
//! [`crate::Child::next_deadline`] suffice, as the example there shows.
//!
//! ```
//! use std::time::Duration;
//!
//! use stockade::{Command, Limits, Sandbox, Termination};
//!
//! # ::tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let sandbox = Sandbox::new().limits(Limits::new().wall_time(Duration::from_secs(10)));
//! let output = stockade::tokio::output(&sandbox, Command::new("echo").arg("hello")).await?;
//! assert_eq!(output.stdout, b"hello\n");
//!
//! // Two at once, on one thread.
//! let sleep = async |time: &str| stockade::tokio::status(&sandbox, Command::new("sleep").arg(time)).await;
//! let (first, second) = ::tokio::join!(sleep("0.2"), sleep("0.1"));
//! assert!(first?.success() && second?.success());
//!
//! // A command whose future is dropped is killed.
//! let cancelled = ::tokio::time::timeout(Duration::from_millis(50), sleep("1000")).await;
//! assert!(cancelled.is_err());
//! # Ok::<(), stockade::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod async_pipe;
mod async_session;
mod child;

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;
use ::tokio::task::JoinHandle;

use crate::command::{Command, Stdio};
use crate::error::{Error, Result};
use crate::outcome::{Outcome, Output};
use crate::sandbox::Sandbox;
use crate::sys::async_fd;
use crate::trace;
pub use async_pipe::{ChildStderr, ChildStdin, ChildStdout, Pty};
pub use async_session::{Pool, Session, start};
pub use child::Child;

/// Spawns a command: see [`Sandbox::spawn`].
///
/// If the future is dropped, the program is killed, or not started at all.
///
/// # Errors
///
/// Those of [`Sandbox::spawn`].
pub async fn spawn(sandbox: &Sandbox, command: impl Into<Command>) -> Result<Child> {
    let (sandbox, command) = (sandbox.clone(), command.into());
    Child::new(blocking(move || sandbox.spawn(command)).await?)
}

/// Runs a command, and waits for it: see [`Sandbox::status`].
///
/// If the future is dropped, the program is killed.
///
/// # Errors
///
/// Those of [`Sandbox::status`].
pub async fn status(sandbox: &Sandbox, command: impl Into<Command>) -> Result<Outcome> {
    let command = command.into();
    command.check_unattended()?;
    spawn(sandbox, command).await?.wait().await
}

/// Runs a command, and collects its output: see [`Sandbox::output`].
///
/// If the future is dropped, the program is killed, and what was collected is lost.
///
/// # Errors
///
/// Those of [`Sandbox::output`].
pub async fn output(sandbox: &Sandbox, command: impl Into<Command>) -> Result<Output> {
    let (sandbox, command) = (sandbox.clone(), command.into());
    command.check_unattended()?;
    let child = blocking(move || sandbox.spawn_with(&command, [Stdio::null(), Stdio::piped(), Stdio::piped()], None));
    Child::new(child.await?)?.wait_with_output().await
}

/// Calls a function that blocks on a thread for that. If the future is dropped, the function is called nevertheless, and its result
/// is dropped.
async fn blocking<T: Send + 'static>(function: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // If the future is dropped, this drops the result, which may be a sandbox to kill.
    finished(spawn_blocking(move || function().map(DroppedElsewhere::new))).await.map(DroppedElsewhere::into_inner)
}

/// A value that is dropped on a thread for blocking work.
#[derive(Debug)]
struct DroppedElsewhere<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> DroppedElsewhere<T> {
    fn new(value: T) -> Self {
        Self(Some(value))
    }

    fn into_inner(mut self) -> T {
        self.0.take().expect("it is taken once")
    }
}

impl<T: Send + 'static> Deref for DroppedElsewhere<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is taken when this is consumed")
    }
}

impl<T: Send + 'static> Drop for DroppedElsewhere<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            drop_elsewhere(value);
        }
    }
}

fn spawn_blocking<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    ::tokio::task::spawn_blocking(trace::in_current(function))
}

/// Returns the result of a function that was called on another thread.
async fn finished<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|_| Err(shut_down()))
}

fn shut_down() -> Error {
    Error::failure(
        "call a function that blocks",
        "the runtime of tokio was shut down",
        "wait for what runs in it before it is dropped",
    )
}

/// Drops what takes a while to be dropped: on a thread for blocking work, if there is a runtime.
fn drop_elsewhere<T: Send + 'static>(value: T) {
    match Handle::try_current() {
        // Where the runtime is being shut down, it is dropped here.
        Ok(runtime) => drop(runtime.spawn_blocking(|| drop(value))),
        Err(_) => drop(value),
    }
}

/// Registers a copy of a descriptor that can be waited for.
fn register(fd: impl AsFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let failed = "register a descriptor with the runtime";
    let copy = fd.as_fd().try_clone_to_owned().map_err(Error::io(failed))?;
    async_fd::register(copy, interest).map_err(Error::io(failed))
}

/// Waits until one of the descriptors is readable, or a deadline has expired. A descriptor must be read until it would block before
/// it is waited for again.
async fn wait_for(fds: &[Option<&AsyncFd<OwnedFd>>], deadline: Option<Instant>) -> Result<()> {
    let mut sleep = pin!(deadline.map(|deadline| ::tokio::time::sleep_until(deadline.into())));
    poll_fn(|context| {
        for fd in fds.iter().flatten() {
            if let Poll::Ready(ready) = fd.poll_read_ready(context) {
                return Poll::Ready(ready.map(|mut guard| guard.clear_ready()));
            }
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context).map(Ok),
            None => Poll::Pending,
        }
    })
    .await
    .map_err(Error::io("wait for a descriptor"))
}
