//! Numbers that the kernel knows, as types: error numbers, signals, process IDs. What a layer means by a number is not
//! here.

mod errno;
mod pid;
mod signal;
#[cfg(feature = "serde")]
pub(crate) mod stored_number;

pub use errno::Errno;
pub(crate) use errno::ToErrno;
pub use pid::Pid;
pub use signal::{InvalidSignal, Signal};
