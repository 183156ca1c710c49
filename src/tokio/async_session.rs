//! Sessions and pools of sessions.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use ::tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::child::Child;
use super::{DroppedElsewhere, blocking, drop_elsewhere};
use crate::child::Child as BlockingChild;
use crate::command::{Command, Stdio};
use crate::confine::Namespaces;
use crate::error::{Error, Result};
use crate::outcome::{Enforcement, Outcome, Output, Usage};
use crate::pool::{self, PoolStats};
use crate::sandbox::Sandbox;
use crate::session;

/// Starts a session: see [`Sandbox::start`].
///
/// If the future is dropped, the session ends.
///
/// # Errors
///
/// Those of [`Sandbox::start`].
pub async fn start(sandbox: &Sandbox) -> Result<Session> {
    let sandbox = sandbox.clone();
    blocking(move || sandbox.start()).await.map(Session::from)
}

/// One sandbox for many commands, as [`crate::Session`] is, whose functions do not block. Dropping it kills every process in it.
///
/// ```
/// use stockade::{Command, Sandbox};
///
/// # ::tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let session = stockade::tokio::start(&Sandbox::new()).await?;
/// // A future borrows the command that it is given by reference.
/// let (mut one, mut other) = (Command::new("echo"), Command::new("echo"));
/// let (first, second) = ::tokio::join!(session.output(one.arg("first")), session.output(other.arg("second")));
/// assert_eq!((first?.stdout, second?.stdout), (b"first\n".to_vec(), b"second\n".to_vec()));
/// # Ok::<(), stockade::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a `Session` kills its processes"]
pub struct Session(Option<Arc<session::Session>>);

impl From<session::Session> for Session {
    fn from(session: session::Session) -> Self {
        Self(Some(Arc::new(session)))
    }
}

impl Session {
    fn get(&self) -> &Arc<session::Session> {
        self.0.as_ref().expect("it is taken when this is dropped")
    }

    async fn call<T: Send + 'static>(
        &self,
        function: impl FnOnce(&session::Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let session = self.get().clone();
        blocking(move || function(&session)).await
    }

    async fn child(
        &self,
        start: impl FnOnce(&session::Session) -> Result<BlockingChild> + Send + 'static,
    ) -> Result<Child> {
        Child::new(self.call(start).await?)
    }

    /// Starts a command: see [`crate::Session::spawn`]. If the future is dropped, the program is killed, or not started at all.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::spawn`].
    pub async fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        let command = command.into();
        self.child(move |session| session.spawn(command)).await
    }

    /// Runs a command, and waits for it: see [`crate::Session::status`]. If the future is dropped, the program is killed.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::status`].
    pub async fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        let command = command.into();
        command.check_unattended()?;
        self.spawn(command).await?.wait().await
    }

    /// Runs a command, and collects its output: see [`crate::Session::output`]. If the future is dropped, the program is killed,
    /// and what was collected is lost.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::output`].
    pub async fn output(&self, command: impl Into<Command>) -> Result<Output> {
        let command = command.into();
        command.check_unattended()?;
        let streams = [Stdio::null(), Stdio::piped(), Stdio::piped()];
        self.child(move |session| session.spawn_with(&command, streams)).await?.wait_with_output().await
    }

    /// Creates a regular file inside: see [`crate::Session::create`]. If the future is dropped, it may be created nevertheless.
    ///
    /// Writing to the file blocks as long as writing to the file system of the sandbox does.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::create`].
    pub async fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref().to_owned();
        self.call(move |session| session.create(path)).await
    }

    /// Opens a regular file inside: see [`crate::Session::open`]. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::open`].
    pub async fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref().to_owned();
        self.call(move |session| session.open(path)).await
    }

    /// Listens inside by TCP: see [`crate::Session::listen_tcp`]. If the future is dropped, the socket is closed.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::listen_tcp`].
    pub async fn listen_tcp(&self, address: SocketAddr) -> Result<TcpListener> {
        let listener = self.call(move |session| session.listen_tcp(address)).await?;
        listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)).map_err(Error::io(REGISTER))
    }

    /// Connects inside by TCP: see [`crate::Session::connect_tcp`]. If the future is dropped, the socket is closed.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::connect_tcp`].
    pub async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream> {
        let stream = self.call(move |session| session.connect_tcp(address)).await?;
        stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(Error::io(REGISTER))
    }

    /// Listens inside at a path: see [`crate::Session::listen_unix`]. If the future is dropped, the socket is closed, and its path
    /// may stay.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::listen_unix`].
    pub async fn listen_unix(&self, path: impl AsRef<Path>) -> Result<UnixListener> {
        let path = path.as_ref().to_owned();
        let listener = self.call(move |session| session.listen_unix(path)).await?;
        listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)).map_err(Error::io(REGISTER))
    }

    /// Connects inside to a path: see [`crate::Session::connect_unix`]. If the future is dropped, the socket is closed.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::connect_unix`].
    pub async fn connect_unix(&self, path: impl AsRef<Path>) -> Result<UnixStream> {
        let path = path.as_ref().to_owned();
        let stream = self.call(move |session| session.connect_unix(path)).await?;
        stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)).map_err(Error::io(REGISTER))
    }

    /// Returns a descriptor of each namespace: see [`crate::Session::namespaces`].
    #[must_use]
    pub fn namespaces(&self) -> &[(Namespaces, OwnedFd)] {
        self.get().namespaces()
    }

    /// Returns the layers that are in force for every command.
    #[must_use]
    pub fn enforcement(&self) -> &Enforcement {
        self.get().enforcement()
    }

    /// Returns the resource usage of all commands together: see [`crate::Session::usage`]. It reads some files of cgroups.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.get().usage()
    }

    /// Freezes all processes: see [`crate::Session::freeze`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::freeze`].
    pub fn freeze(&self) -> Result<()> {
        self.get().freeze()
    }

    /// Thaws all processes: see [`crate::Session::thaw`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::thaw`].
    pub fn thaw(&self) -> Result<()> {
        self.get().thaw()
    }

    /// Ends the session: see [`crate::Session::kill`]. If the future is dropped, it ends nevertheless.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Session::kill`].
    pub async fn kill(&self) -> Result<()> {
        self.call(session::Session::kill).await
    }
}

const REGISTER: &str = "register a socket with the runtime";

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            // A function that was called and whose future was dropped may still use it, so that this is not its end.
            drop_elsewhere(EndedOnDrop(session));
        }
    }
}

/// A session that ends when this is dropped, whoever else has it.
struct EndedOnDrop(Arc<session::Session>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Sessions that a thread keeps ready, as [`pool::Pool`](crate::pool::Pool) does, whose functions do not block.
#[derive(Clone, Debug)]
pub struct Pool(Arc<DroppedElsewhere<pool::Pool>>);

impl Pool {
    /// Creates a pool: see [`pool::Pool::new`](crate::pool::Pool::new). If the future is dropped, so is the pool.
    ///
    /// # Errors
    ///
    /// Those of [`pool::Pool::new`](crate::pool::Pool::new).
    pub async fn new(sandbox: Sandbox, size: usize) -> Result<Self> {
        blocking(move || pool::Pool::new(sandbox, size)).await.map(|pool| Self(Arc::new(DroppedElsewhere::new(pool))))
    }

    /// Takes a session: see [`pool::Pool::take`](crate::pool::Pool::take). If the future is dropped, the session ends.
    ///
    /// # Errors
    ///
    /// Those of [`pool::Pool::take`](crate::pool::Pool::take).
    pub async fn take(&self) -> Result<Session> {
        let session = match self.0.take_ready() {
            Some(taken) => taken,
            None => {
                let pool = self.0.clone();
                blocking(move || pool.start()).await
            }
        };
        session.map(Session::from)
    }

    /// Returns what the pool has done so far.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.0.stats()
    }

    /// Ends the sessions that were not taken: see [`pool::Pool::shut_down`](crate::pool::Pool::shut_down).
    pub async fn shut_down(&self) {
        let pool = self.0.clone();
        // The only error is a runtime that is shut down.
        let _ = blocking(move || {
            pool.shut_down();
            Ok(())
        })
        .await;
    }
}
