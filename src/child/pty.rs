//! The caller's side of a pseudo-terminal: [`Pty`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::window_size;

/// The caller's side of the pseudo-terminal of [`Command::pty`](crate::Command::pty) (pty(7)). What is written to it is typed
/// at the program's terminal; what the program shows can be read from it.
///
/// Reading returns 0 bytes when no process has the program's side open. It can be opened again if a process of the program's
/// session is left.
///
/// When it is dropped, with every clone, the processes in the program's session get SIGHUP. `&Pty` can be read and written too,
/// so that two threads can share it.
///
/// ```
/// use std::io::{Read, Write};
///
/// use stockade::{Command, Sandbox};
///
/// let mut command = Command::new("sh");
/// command.args(["-c", "read word; echo word: $word; stty size"]).pty(24, 80);
/// let mut child = Sandbox::new().spawn(command)?;
/// let mut pty = child.pty.take().expect("it has a terminal");
/// pty.resize(40, 120)?;
/// pty.write_all(b"typed\n")?;
/// let mut shown = String::new();
/// pty.read_to_string(&mut shown)?;
/// assert!(shown.ends_with("word: typed\r\n40 120\r\n"), "{shown}");
/// assert!(child.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pty(File);

impl Pty {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd.into())
    }

    /// Changes the size of the terminal. The processes in its foreground get SIGWINCH if the size differs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the kernel refuses the size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(self.as_fd(), rows, columns)
    }

    /// Returns another handle to the same terminal.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the caller is at its limit on descriptors.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).map_err(Error::io("duplicate the descriptor of the terminal"))
    }
}

/// Changes the size of a terminal.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    window_size::set(terminal, [rows, columns]).map_err(Error::io("change the size of the terminal"))
}

/// Returns the end of a file instead of the error of a terminal whose other side is closed.
pub(crate) fn end_if_closed(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
        read => read,
    }
}

impl Read for &Pty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        end_if_closed((&self.0).read(buffer))
    }
}

impl Read for Pty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for &Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Pty> for OwnedFd {
    fn from(pty: Pty) -> Self {
        pty.0.into()
    }
}
