//! `run --pty`: a new pseudo-terminal, connected to the terminal of the caller.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::tcgetattr;
use nix::unistd::Pid;

use crate::run::{reported, run, sh, stockade_run};
use crate::support::text;

#[apply(test)]
fn a_terminal_of_its_own_has_24_lines_where_there_is_none() {
    let script = "for fd in 0 1 2; do test -t $fd && echo $fd; done; stty size; tty";
    assert_eq!(sh(&[], "test -t 0 || test -t 1 || echo none").output(), "none");
    assert_eq!(sh(&["--pty"], script).output(), "0\r\n1\r\n2\r\n24 80\r\n/dev/pts/0\r");
    assert_eq!(sh(&["--pty"], "exit 9").status, 9);
    assert_eq!(sh(&["--pty"], "kill -9 $$").status, 137);
    let (report, _) = reported(&["--pty", "--", "echo", "shown"]);
    assert_eq!(report["termination"]["exited"], 0);
}

#[apply(test)]
fn the_terminal_takes_input_to_its_end() {
    for (input, expected) in [("", ""), ("one line\n", "<one line>"), ("no end", "<no end>"), ("1\n2\n", "<1><2>")] {
        let script = "stty -echo; cat | sed 's/.*/<&>/' | tr -d '\\n'";
        let mut host = stockade_run(["--pty", "--", "sh", "-c", script]);
        let mut child = host.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("input");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{output:?}");
        // Whether the input is echoed depends on who comes first.
        let shown = text(&output.stdout);
        assert!(shown.ends_with(expected), "{input:?}: {shown:?}");
    }
}

#[apply(test)]
fn the_terminal_shows_all_output() {
    let shown = run(&["--pty", "--", "seq", "100000"]).output();
    assert_eq!(shown.lines().count(), 100_000);
    assert!(shown.ends_with("\r\n100000\r"));
}

#[apply(test)]
fn a_program_can_close_its_terminal_and_open_it_again() {
    // Longer than it takes to see that nobody has it open.
    let script = "echo before; exec <&- >&- 2>&-; sleep 0.3; echo after >/dev/tty; exit 4";
    let ran = sh(&["--pty"], script);
    assert_eq!((ran.status, ran.stdout.as_str()), (4, "before\r\nafter\r"));
}

/// A `run --pty` on a terminal of the test's own, of 33 lines and 101 columns. A script that awaits a signal sleeps in
/// short turns: one that comes just before a `read` would not end it.
struct OnTerminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    shown: String,
}

impl OnTerminal {
    fn start(script: &str) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(&size, None).expect("a terminal");
        let stream = || Stdio::from(ends.slave.try_clone().expect("descriptor"));
        let mut host = stockade_run(["--pty", "--", "sh", "-c", script]);
        let child = host.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("the command");
        Self { child, master: ends.master.into(), slave: ends.slave, shown: String::new() }
    }

    /// Waits until it shows this.
    fn until(&mut self, expected: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut buffer = [0; 1024];
        while !self.shown.contains(expected) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{expected:?} is not shown: {:?}", self.shown);
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).expect("a minute");
            if poll(&mut fds, timeout).expect("poll") > 0 {
                let count = self.master.read(&mut buffer).expect("what is shown");
                self.shown += &String::from_utf8_lossy(&buffer[..count]);
            }
        }
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("keys");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal");
    }

    fn status(mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[apply(test)]
fn the_terminal_has_the_size_of_the_callers_and_follows_it() {
    let mut terminal = OnTerminal::start("trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done");
    terminal.until("33 101");
    let size = rustix::termios::Winsize { ws_row: 44, ws_col: 55, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal.master, size).expect("a new size");
    // The command is not of the terminal's session, so that the kernel does not tell it.
    terminal.signal(Signal::SIGWINCH);
    terminal.until("44 55");
    assert_eq!(terminal.status(), Some(5));
}

#[apply(test)]
fn keys_reach_the_program_and_the_callers_terminal_is_restored() {
    let mut terminal = OnTerminal::start(
        "trap 'echo interrupted; exit 6' INT; echo ready; read line; echo \"<$line>\"; while :; do sleep 0.05; done",
    );
    let slave = terminal.slave.try_clone().expect("descriptor");
    let master = terminal.master.try_clone().expect("descriptor");
    let before = tcgetattr(&slave).expect("its modes");
    terminal.until("ready");
    terminal.keys("typed\r");
    terminal.until("<typed>");
    assert_ne!(tcgetattr(&slave).expect("its modes"), before, "raw while the program runs");
    terminal.keys("\x03");
    terminal.until("interrupted");
    assert_eq!(terminal.status(), Some(6));
    assert_eq!(tcgetattr(&slave).expect("its modes"), before);
    drop(master);
}

#[apply(test)]
fn signals_reach_the_program_on_a_terminal() {
    let mut terminal = OnTerminal::start("trap 'echo asked; exit 8' TERM; echo ready; while :; do sleep 0.05; done");
    terminal.until("ready");
    terminal.signal(Signal::SIGTERM);
    terminal.until("asked");
    assert_eq!(terminal.status(), Some(8));
}
