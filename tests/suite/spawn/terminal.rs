//! A program with a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command as Host;

use super::script;
use crate::support::stdout;
use stockade::{Command, ErrorKind, Sandbox, Signal, Stdio, Termination};

/// What a terminal says until its other side is closed.
fn read_terminal(terminal: &mut File) -> String {
    let mut bytes = vec![];
    let mut buffer = [0; 4096];
    loop {
        match terminal.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => panic!("read the terminal: {error}"),
        }
    }
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

#[apply(test)]
fn a_terminal_is_the_programs_own() {
    let mut command = script(
        "test -t 0 && test -t 1 && test -t 2 && echo three; tty; stty size; echo by name >/dev/tty; \
         ps=$(cat /proc/self/stat); echo \"$ps\" | cut -d' ' -f7; ls -1 /dev/pts",
    );
    let mut child = Sandbox::new().spawn(command.pty(33, 101)).unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    let mut terminal = child.pty.take().unwrap();
    let said = read_terminal(&mut terminal);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["three", "/dev/pts/0", "33 101", "by name"], "{said}");
    assert_eq!(lines[4], (136 << 8).to_string(), "pts/0 is the controlling terminal: {said}");
    assert_eq!(lines[5..], ["0", "ptmx"], "the sandbox has no other terminal: {said}");
    assert!(child.wait().unwrap().success());

    // Without one there is no terminal to be had, whichever the caller has.
    let none = "test -t 0 || (: </dev/tty) 2>/dev/null || echo none";
    assert_eq!(stdout(&Sandbox::new(), none), "none");
}

#[apply(test)]
fn a_stream_and_a_terminal_in_its_place_are_refused() {
    let set: [fn(&mut Command) -> &mut Command; 4] = [
        |command| command.stdin_bytes("never read"),
        |command| command.stdin(Stdio::null()),
        |command| command.stdout(Stdio::piped()),
        |command| command.stderr(Stdio::inherit()),
    ];
    for set in set {
        let error = Sandbox::new().spawn(set(&mut script("cat")).pty(24, 80)).expect_err("one of both");
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("Command::pty")), "{error}");
    }
}

/// Without a reader the program would wait for one when the terminal is full.
#[apply(test)]
fn a_terminal_that_nobody_reads_is_refused() {
    let mut command = script("echo never started");
    command.pty(24, 80);
    let errors = [Sandbox::new().status(&command).err(), Sandbox::new().output(&command).err()];
    for error in errors.map(|error| error.expect("an error")) {
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("Sandbox::spawn")), "{error}");
    }
}

#[apply(test)]
fn an_interrupt_typed_at_the_terminal_kills_the_program() {
    let mut child = Sandbox::new().spawn(script("echo ready; exec sleep 1000").pty(24, 80)).unwrap();
    let mut terminal = child.pty.take().unwrap();
    let mut ready = [0; 7];
    terminal.read_exact(&mut ready).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    terminal.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::signaled(Signal::INT, false));
}

#[apply(test)]
fn a_terminal_can_be_resized_and_read_after_exit() {
    let mut child = Sandbox::new().spawn(script("read line; echo \"got $line\"; stty size").pty(24, 80)).unwrap();
    let mut terminal = child.pty.take().unwrap();
    let resized = Host::new("stty").args(["rows", "40", "cols", "132"]).stdin(terminal.try_clone().unwrap()).status();
    assert!(resized.unwrap().success());
    terminal.write_all(b"typed\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read_terminal(&mut terminal), "typed\ngot typed\n40 132\n");
}
