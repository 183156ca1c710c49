//! Pseudo-terminals of the sandbox. Kernel threads process their data outside of every cgroup, and their number is
//! limited for the whole machine.

use std::fs::{File, read_to_string};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use stockade::outcome::GapKind;
use stockade::{Command, Landlock, Outcome, Root, Sandbox, profile};

use crate::attacks::common::{Attempts, attack, attempt, here, sandbox, tell};
use crate::support::{payload, text, unless_landlock_since, with_payload};

payloads![("open_terminals", open_terminals)];

/// More than any sandbox of these tests allows.
const MANY: usize = 20;

/// Opens as many terminals as it can, and has the kernel pass on what is written to one.
fn open_terminals(_: &[String]) -> i32 {
    let ends: Vec<_> =
        (0..MANY).map_while(|number| attempt(&format!("terminal {number}"), openpty(None, None))).collect();
    tell("terminals", ends.len());
    for place in ["/dev/ptmx", "/dev/pts/ptmx"] {
        let opened = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(place);
        attempt(&format!("one more at {place}"), opened);
    }
    let Some(pair) = ends.first() else { return 0 };
    let mut settings = tcgetattr(&pair.slave).unwrap();
    cfmakeraw(&mut settings);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &settings).unwrap();
    let (mut slave, mut master) =
        (File::from(pair.slave.try_clone().unwrap()), File::from(pair.master.try_clone().unwrap()));
    std::io::Write::write_all(&mut slave, b"x").unwrap();
    let mut read = [0];
    attempt("work for a kernel thread", master.read_exact(&mut read));
    0
}

fn opened(sandbox: &Sandbox) -> Attempts {
    attack(sandbox, "open_terminals", &[])
}

/// Attacks 55 and 63: terminals are opened without end, and written to, by which kernel threads use CPU time that no
/// cgroup counts.
#[apply(test)]
fn terminals_exist_only_on_request() {
    let requested = opened(&sandbox().map_root(|root| root.terminals(3)));
    requested.assert_done(&["terminal 0", "terminal 2", "work for a kernel thread"]);
    assert_eq!(requested.get("terminals"), "3");
    assert_eq!(requested.get("terminal 3"), "ENOSPC", "the number is kept");
    let profiles =
        [profile::build_step(), profile::test(), profile::agent()].map(|profile| profile.map_root(with_payload));
    for sandbox in [sandbox()].into_iter().chain(profiles) {
        let attempts = opened(&sandbox);
        assert_eq!(attempts.get("terminals"), "0", "{sandbox:?}");
        assert_eq!(attempts.get("terminal 0"), "ENOENT", "{sandbox:?}");
        attempts.assert_all_refused_but(&["terminals"]);
    }
    // Its filter lets nothing be opened for writing.
    let judge = profile::judge().plan(Command::new("true")).unwrap().to_string();
    assert!(judge.contains("shm") && !judge.contains("devpts"), "{judge}");
    let seen = Sandbox::new().root(Root::host()).output(Command::new("ls").arg("/dev")).unwrap();
    assert!(!text(&seen.stdout).lines().any(|name| name == "ptmx" || name == "pts"), "{}", text(&seen.stdout));
}

/// The same by a command that has a terminal.
#[apply(test)]
fn a_command_on_a_terminal_opens_no_other() {
    let on_terminal = |sandbox: &Sandbox| {
        let mut child = sandbox.spawn(payload("open_terminals").pty(24, 80)).unwrap();
        let mut said = vec![];
        child.pty.take().unwrap().read_to_end(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{}", text(&said));
        Attempts::parse(&text(&said).replace('\r', ""))
    };
    let one = on_terminal(&sandbox());
    assert_eq!((one.get("terminals"), one.get("terminal 0")), ("0", "ENOSPC"));
    let more = on_terminal(&sandbox().map_root(|root| root.terminals(2)));
    assert_eq!((more.get("terminals"), more.get("terminal 2")), ("2", "ENOSPC"), "beside its own");
    let limit: usize = read_to_string("/proc/sys/kernel/pty/max").unwrap().trim().parse().unwrap();
    assert!(limit > MANY, "the machine has terminals left");
}

/// With the caller's devices the program opens the machine's.
#[apply(test)]
fn terminals_of_the_machine_are_among_the_gaps() {
    let inherited = Sandbox::new().root(Root::inherit());
    let output = inherited.output(here("open_terminals")).unwrap();
    Attempts::parse(&text(&output.stdout)).assert_done(&["terminal 0"]);
    let says = |outcome: &Outcome| outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Terminals);
    assert!(says(&output.outcome), "{:?}", output.outcome.enforcement.gaps);
    assert!(!says(&sandbox().status(payload("open_terminals")).unwrap()));
    // Before, it can't restrict all that it is asked to.
    if unless_landlock_since((6, 12)).is_none() {
        let ruled = inherited.landlock(Landlock::new().read_only("/").read_write("/dev/null"));
        let output = ruled.output(here("open_terminals")).unwrap();
        Attempts::parse(&text(&output.stdout)).assert_refused(&["terminal 0"]);
    }
}

#[apply(test)]
fn terminals_without_a_dev_are_an_error() {
    for root in [Root::empty(), Root::inherit()] {
        let error = Sandbox::new().root(root.terminals(1)).status(Command::new("/bin/true")).unwrap_err();
        assert!(error.to_string().contains("add Root::dev(\"/dev\")"), "{error}");
    }
}
