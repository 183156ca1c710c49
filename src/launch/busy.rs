//! Tries again while the file of a program is open for writing.

use std::time::Duration;

use crate::error::Result;

/// The longest pause before another attempt. The first pause is 1 ms, and each is twice as long as the one before.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// Starts a program. ETXTBSY is often temporary: another thread of the caller has just written the program's file, and a child that
/// was forked meanwhile holds a copy of the descriptor until it executes its own program.
pub(super) fn while_busy<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match start() {
            Err(error) if error.is_busy() && pause <= LONGEST_PAUSE => std::thread::sleep(pause),
            other => return other,
        }
        pause *= 2;
    }
}
