//! A program with a terminal of its own.

use std::io::{Read, Write};
use std::time::Duration;

use super::script;
use crate::support::{on_host, stdout};
use stockade::child::Pty;
use stockade::{Command, ErrorKind, Limits, Sandbox, Signal, Stdio, Termination};

payloads![
    ("interacts", interacts),
    ("interacts_in_a_session", interacts_in_a_session),
    ("interacts_without_output", interacts_without_output),
    ("leaves_on_a_terminal", leaves_on_a_terminal),
];

/// What a terminal says until its other side is closed.
fn read_terminal(terminal: &mut Pty) -> String {
    let mut bytes = vec![];
    terminal.read_to_end(&mut bytes).expect("what the terminal shows");
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
        assert!(error.hint().is_some_and(|hint| hint.contains("spawn")), "{error}");
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
    terminal.resize(40, 132).unwrap();
    terminal.write_all(b"typed\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read_terminal(&mut terminal), "typed\ngot typed\n40 132\n");
}

#[apply(test)]
fn a_program_is_told_of_another_size() {
    let script = script("trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.05; done");
    let mut child = Sandbox::new().spawn({ script }.pty(24, 80)).unwrap();
    let terminal = child.pty.take().unwrap();
    let mut ready = [0; 7];
    (&terminal).read_exact(&mut ready).unwrap();
    terminal.try_clone().unwrap().resize(50, 60).unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Exited(7));
    assert_eq!(read_terminal(&mut { terminal }), "50 60\n");
}

/// A caller whose input and output are no terminals: `run/terminal.rs` has those that are.
fn interacts(_: &[String]) -> i32 {
    let said = "read line; echo \"<$line>\"; stty size; exit 3";
    assert_eq!(Sandbox::new().interact(script(said)).expect("an outcome").termination, Termination::Exited(3));
    // The input has ended.
    let limited = Sandbox::new().limits(Limits::new().wall_time(Duration::from_millis(200)));
    let outcome = limited.interact(script("stty -echo; cat; exec sleep 1000")).expect("an outcome");
    assert_eq!(outcome.termination, Termination::WallTime);
    let mut child = Sandbox::new().spawn(script("exit 4").pty(24, 80)).expect("a program");
    let taken = child.pty.take();
    let error = child.interact().expect_err("nothing to connect");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    child.pty = taken;
    assert_eq!(child.interact().expect("an outcome").termination, Termination::Exited(4));
    assert!(child.pty.is_some());
    0
}

#[apply(test)]
fn input_and_output_are_connected_to_the_terminal_of_a_program() {
    let said = on_host(&["sh", "-c", "echo typed | \"$@\"", "sh"], "interacts", &[]);
    // Whether the input is echoed depends on who comes first.
    assert!(said.ends_with("<typed>\r\n24 80\r"), "{said:?}");
}

/// A session whose background process goes on writing to a terminal.
fn interacts_in_a_session(_: &[String]) -> i32 {
    let session = Sandbox::new().start().expect("a session");
    let flooding = "trap '' HUP; while :; do echo flood; done & echo kept >/tmp/file; exit 5";
    assert_eq!(session.interact(script(flooding)).expect("an outcome").termination, Termination::Exited(5));
    assert_eq!(session.interact(script("cat /tmp/file")).expect("an outcome").termination, Termination::Exited(0));
    0
}

#[apply(test)]
fn a_background_process_of_a_session_delays_no_interaction() {
    let said = on_host(&[], "interacts_in_a_session", &[]);
    assert!(said.ends_with("kept\r"), "{:?}", &said[said.len().saturating_sub(200)..]);
}

fn interacts_without_output(_: &[String]) -> i32 {
    let mut child = Sandbox::new().spawn(script("echo shown; exec sleep 1000").pty(24, 80)).expect("a program");
    let error = child.interact().expect_err("nothing takes the output");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ENOSPC), "{error}");
    // The program goes on.
    assert_eq!(child.try_wait().expect("no outcome"), None);
    child.kill().expect("a signal");
    assert_eq!(child.wait().expect("an outcome").termination, Termination::Killed);
    0
}

#[apply(test)]
fn output_that_cannot_be_written_is_an_error() {
    on_host(&["sh", "-c", "\"$@\" >/dev/full", "sh"], "interacts_without_output", &[]);
}

/// A caller on a terminal of its own, whose command in a session leaves a process.
fn leaves_on_a_terminal(_: &[String]) -> i32 {
    let ends = nix::pty::openpty(None, None).expect("a terminal");
    for number in 0..3 {
        // SAFETY: the standard streams of this process are used by nobody else.
        assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&ends.slave), number) }, number);
    }
    let before = nix::sys::termios::tcgetattr(&ends.slave).expect("its modes");
    let session = Sandbox::new().start().expect("a session");
    let leaves = "test -t 0 || test -t 1 || test -t 2 || echo none; stty raw -echo <&1; echo shown >&2; \
                  setsid sh -c 'while :; do stty raw -echo <&1; cat <&1 >/tmp/stolen; sleep 0.05; done' & exit 0";
    assert!(session.status(script(leaves)).expect("an outcome").success());
    std::thread::sleep(Duration::from_millis(300));
    let mut shown = [0; 256];
    let count = nix::unistd::read(&ends.master, &mut shown).expect("what is shown");
    let shown = String::from_utf8_lossy(&shown[..count]).replace("\r\n", "\n");
    let is_unchanged = nix::sys::termios::tcgetattr(&ends.slave).expect("its modes") == before;
    nix::unistd::write(&ends.master, b"secret\n").expect("typed");
    let mut typed = [0; 64];
    let count = nix::unistd::read(&ends.slave, &mut typed).expect("what was typed");
    let is_right = shown.contains("none") && shown.contains("shown") && is_unchanged && &typed[..count] == b"secret\n";
    i32::from(!is_right)
}

#[apply(test)]
fn what_a_command_of_a_session_leaves_has_no_terminal_of_the_caller() {
    on_host(&[], "leaves_on_a_terminal", &[]);
}
