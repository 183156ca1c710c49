//! The caller's ends of pipes and pseudo-terminals, as `AsyncRead` and `AsyncWrite`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::child::{end_if_closed, resize};
use crate::error::{Error, Result};
use crate::sys::async_fd;

/// A descriptor that does not block.
#[derive(Debug)]
struct Pipe(AsyncFd<OwnedFd>);

impl Pipe {
    fn new(file: OwnedFd, interest: Interest) -> Result<Self> {
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(Error::io("read the flags of a pipe"))?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).map_err(Error::io("set the flags of a pipe"))?;
        async_fd::register(file, interest).map(Self).map_err(Error::io("register a pipe with the runtime"))
    }

    fn poll_read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|fd| end_if_closed(nix::unistd::read(fd.get_ref(), unfilled).map_err(io::Error::from))) {
                Ok(Ok(len)) => {
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }
}

macro_rules! ends {
    ($($(#[doc = $doc:literal])+ $name:ident: $interest:expr;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug)]
            pub struct $name(Pipe);

            impl $name {
                pub(super) fn new(file: impl Into<OwnedFd>) -> Result<Self> {
                    Pipe::new(file.into(), $interest).map(Self)
                }
            }

            impl AsFd for $name {
                fn as_fd(&self) -> BorrowedFd<'_> {
                    self.0.0.get_ref().as_fd()
                }
            }

            impl From<$name> for OwnedFd {
                /// The descriptor is non-blocking.
                fn from(end: $name) -> Self {
                    end.0.0.into_inner()
                }
            }
        )+
    };
}

ends! {
    /// The write end of the pipe of standard input. Dropping it closes the pipe; `shutdown` does not.
    ChildStdin: Interest::WRITABLE;
    /// The read end of the pipe of standard output.
    ChildStdout: Interest::READABLE;
    /// The read end of the pipe of standard error.
    ChildStderr: Interest::READABLE;
    /// The caller's side of a pseudo-terminal: see [`crate::child::Pty`].
    Pty: Interest::READABLE | Interest::WRITABLE;
}

impl Pty {
    /// Changes the size of the terminal: see [`crate::child::Pty::resize`].
    ///
    /// # Errors
    ///
    /// Those of [`crate::child::Pty::resize`].
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(self.as_fd(), rows, columns)
    }
}

macro_rules! reads {
    ($($name:ident),+) => {
        $(impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.0.poll_read(context, buffer)
            }
        })+
    };
}
reads!(ChildStdout, ChildStderr, Pty);

macro_rules! writes {
    ($($name:ident),+) => {
        $(impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                self.0.poll_write(context, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        })+
    };
}
writes!(ChildStdin, Pty);

macro_rules! files {
    ($($name:ident),+) => {
        $(impl $name {
            /// The file, no longer registered.
            pub(super) fn into_file(self) -> File {
                self.0.0.into_inner().into()
            }
        })+
    };
}
files!(ChildStdout, ChildStderr);
