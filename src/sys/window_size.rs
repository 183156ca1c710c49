//! The size of a terminal (TIOCGWINSZ(2const)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const NONE: libc::winsize = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };

/// Returns the rows and columns of a terminal, which are 0 if they were never set.
pub(crate) fn get(terminal: BorrowedFd<'_>) -> nix::Result<[u16; 2]> {
    let mut size = NONE;
    // SAFETY: the request writes a `winsize`.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok([size.ws_row, size.ws_col])
}

/// Sets the rows and columns of a terminal.
pub(crate) fn set(terminal: BorrowedFd<'_>, [rows, columns]: [u16; 2]) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ..NONE };
    // SAFETY: the request reads a `winsize`.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}
