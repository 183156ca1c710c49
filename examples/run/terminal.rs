//! `--pty`: runs the program on a new pseudo-terminal that is connected to the terminal of this process.

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::termios::tcgetwinsize;
use stockade::{Command, Error, Outcome, Sandbox, Signal};

/// The size where this process has no terminal: rows and columns.
const USUAL_SIZE: (u16, u16) = (24, 80);

/// Runs a command on a new pseudo-terminal.
pub fn run(sandbox: &Sandbox, mut command: Command) -> Result<Outcome, Error> {
    give(&mut command);
    let signals = requests_to_terminate();
    // A thread that is started from here on has them blocked too.
    let is_blocked = signals.thread_block().is_ok();
    let mut child = sandbox.spawn(command)?;
    let killer = child.killer();
    if is_blocked {
        std::thread::spawn(move || {
            while let Some(signal) = signals.wait().ok().and_then(|signal| Signal::new(signal as i32)) {
                let _ = killer.signal(signal);
            }
        });
    }
    child.interact()
}

/// Sets a pseudo-terminal for a command, with the size of this process's terminal.
pub fn give(command: &mut Command) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let known = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().find_map(|fd| tcgetwinsize(fd).ok());
    let (rows, columns) = known.map(|size| (size.ws_row, size.ws_col)).unwrap_or(USUAL_SIZE);
    match rows > 0 && columns > 0 {
        true => command.pty(rows, columns),
        false => command.pty(USUAL_SIZE.0, USUAL_SIZE.1),
    };
}

/// The signals that are passed on to the program.
fn requests_to_terminate() -> SigSet {
    use NixSignal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().collect()
}
