//! Signals that `stockade run` receives: they reach the program, and end it in the end.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{at, stockade_run};
use crate::support::{at_most, shared_dir, text, unless_idmapped_mounts, unless_root_with_groups};

/// A command whose program has written `ready`.
struct Signaled {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Signaled {
    /// Starts it in a process group of its own, as a shell does for a job.
    fn start(options: &[&str], script: &str) -> Self {
        let mut host = stockade_run(options.iter().copied().chain(["--", "sh", "-c", script]));
        Self::of(host.process_group(0))
    }

    fn of(host: &mut std::process::Command) -> Self {
        let mut child = host.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut signaled = Self { child, stdout };
        signaled.until("ready");
        signaled
    }

    /// Waits until the program has written this line.
    fn until(&mut self, expected: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a line");
        assert_eq!(line.trim_end(), expected);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal");
    }

    /// The state of the command, or of a process of the host, such as `S` or `T`.
    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its state");
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()).expect("a letter")
    }

    fn until_state(&self, expected: char) {
        let end = Instant::now() + at_most(Duration::from_secs(10));
        while self.state() != expected {
            assert!(Instant::now() < end, "it is {} and not {expected}", self.state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end. Returns its status, and what it wrote.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = self.child.wait().expect("its end");
        let (mut stdout, mut stderr) = (vec![], vec![]);
        self.stdout.read_to_end(&mut stdout).expect("its output");
        self.child.stderr.take().expect("a pipe").read_to_end(&mut stderr).expect("its errors");
        (status, text(&stdout), text(&stderr))
    }
}

impl Drop for Signaled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOOP: &str = "echo ready; while :; do sleep 0.05; done";

#[apply(test)]
fn a_request_to_terminate_reaches_the_program() {
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"), (Signal::SIGHUP, "HUP")] {
        // By its default action it ends the program, and not this command.
        let running = Signaled::start(&[], LOOP);
        running.signal(signal);
        let (status, _, said) = running.end();
        assert_eq!((status.code(), said.as_str()), (Some(128 + signal as i32), ""), "{name}");

        let running = Signaled::start(&[], &format!("trap 'echo cleaned; exit 7' {name}; {LOOP}"));
        running.signal(signal);
        let (status, wrote, said) = running.end();
        // A shell may say there how its child has ended.
        assert_eq!((status.code(), wrote.as_str()), (Some(7), "cleaned"), "{name}");
        assert!(!said.contains("stockade"), "{name}: {said}");
    }
}

#[apply(test)]
fn other_signals_reach_the_program_and_do_not_end_it() {
    for (signal, name) in [
        (Signal::SIGWINCH, "WINCH"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGCONT, "CONT"),
    ] {
        let mut running = Signaled::start(&[], &format!("trap 'echo caught' {name}; trap 'exit 5' TERM; {LOOP}"));
        running.signal(signal);
        running.until("caught");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.end().0.code(), Some(5), "{name}");
    }
}

#[apply(test)]
fn a_program_that_goes_on_is_killed_after_the_grace_period() {
    let deaf = format!("trap '' INT TERM HUP; {LOOP}");
    let running = Signaled::start(&["--kill-grace", "200ms"], &deaf);
    let start = Instant::now();
    running.signal(Signal::SIGTERM);
    let (status, _, said) = running.end();
    assert_eq!((status.code(), said.as_str()), (Some(143), "stockade: killed 200ms after SIGTERM"));
    assert!(start.elapsed() >= Duration::from_millis(200));

    // A second SIGINT does not wait for that.
    let mut running = Signaled::start(&["--kill-grace", "10m"], &format!("trap 'echo caught' INT; {LOOP}"));
    running.signal(Signal::SIGINT);
    running.until("caught");
    running.signal(Signal::SIGINT);
    let (status, _, said) = running.end();
    assert_eq!((status.code(), said.as_str()), (Some(130), "stockade: killed by a second SIGINT"));
}

/// A shell that waits for what it has started does not see SIGINT, so the terminal sends it to the whole group.
#[apply(test)]
fn an_interrupt_reaches_what_the_program_waits_for() {
    // Its child is ready, which it waits for by then.
    let script = "trap 'echo interrupted; exit 3' INT; sh -c 'echo ready; exec sleep 1000'";
    let running = Signaled::start(&["--kill-grace", "10m"], script);
    running.signal(Signal::SIGINT);
    let (status, wrote, _) = running.end();
    assert_eq!((status.code(), wrote.as_str()), (Some(3), "interrupted"));
}

#[apply(test)]
fn an_ignored_signal_stays_ignored() {
    let mut host = std::process::Command::new("sh");
    let command = stockade_run(["--", "sh", "-c", &format!("trap 'exit 5' TERM; trap 'echo caught' HUP; {LOOP}")]);
    host.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    let running = Signaled::of(host.stdin(Stdio::null()));
    running.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::SIGTERM);
    let (status, wrote, _) = running.end();
    assert_eq!((status.code(), wrote.as_str()), (Some(5), ""));
}

/// Whether a program that writes to `/out/ticks` all the time goes on while the command is stopped. It goes on afterwards
/// in any case. It writes to a file, since this command may pass on what it writes to a pipe.
fn writes_while_stopped(options: &[&str], script: &str) -> bool {
    let dir = shared_dir();
    let ticks = || std::fs::metadata(dir.path().join("ticks")).map_or(0, |file| file.len());
    let grows = |since: u64, limit: Duration| {
        let end = Instant::now() + limit;
        while ticks() == since && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        ticks() > since
    };
    let out = at(&dir, "/out");
    let running = Signaled::start(&[&["--rw", &out], options].concat(), script);
    assert!(grows(0, at_most(Duration::from_secs(20))), "it writes");
    running.signal(Signal::SIGTSTP);
    running.until_state('T');
    // The last write may be in progress.
    std::thread::sleep(Duration::from_millis(100));
    let goes_on = grows(ticks(), at_most(Duration::from_millis(500)));
    running.signal(Signal::SIGCONT);
    assert!(grows(ticks(), at_most(Duration::from_secs(20))), "it goes on afterwards");
    assert_ne!(running.state(), 'T');
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0.code(), Some(4));
    goes_on
}

const TICKS: &str = "while :; do echo tick >>/out/ticks; sleep 0.02; done";

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_stop_stops_the_program_and_this_command() {
    let script = format!("trap 'exit 4' TERM; echo ready; {TICKS}");
    assert!(!writes_while_stopped(&[], &script));
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_groups)]
fn a_stop_stops_all_processes_if_the_sandbox_is_freezable() {
    let script = format!("trap 'exit 4' TERM; echo ready; setsid sh -c '{TICKS}' & while :; do sleep 0.05; done");
    assert!(writes_while_stopped(&[], &script), "another process group goes on");
    assert!(!writes_while_stopped(&["--set", "freezable=true"], &script));
}

#[apply(test)]
fn the_wall_clock_goes_on_while_the_program_is_stopped() {
    let running = Signaled::start(&["--wall", "300ms"], LOOP);
    running.signal(Signal::SIGTSTP);
    running.until_state('T');
    std::thread::sleep(Duration::from_millis(400));
    running.signal(Signal::SIGCONT);
    let (status, _, said) = running.end();
    assert_eq!((status.code(), said.as_str()), (Some(124), "stockade: wall-clock limit exceeded"));
    assert_eq!(status.signal(), None);
}

#[apply(test)]
fn a_server_that_is_learned_ends_by_a_signal() {
    let dir = shared_dir();
    let file = dir.path().join("learned.json").display().to_string();
    let running = Signaled::start(&["--learn", &file], LOOP);
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().0.code(), Some(130));
    let learned = std::fs::read_to_string(&file).expect("a policy");
    assert!(serde_json::from_str::<stockade::learn::Learned>(&learned).is_ok_and(|learned| !learned.calls.is_empty()));
}
