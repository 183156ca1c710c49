//! Learning: the policy from one run of a program is sufficient for the next run, and denies everything else.

mod deeds;
mod ends;
mod hostile;
mod paths;
mod printed;
mod programs;
mod sockets;

use crate::support;
use std::fs;
use std::time::Duration;

use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::{Command, Limits, Outcome, Root, Sandbox, Stdio};

/// A reason to skip what needs the rules that come of learning: of files, TCP ports, signals and abstract sockets.
fn unless_landlock() -> Option<String> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or("landlock".into());
    let has = support::kernel() >= (6, 12) && modules.contains("landlock");
    (!has).then(|| "it takes Landlock of Linux 6.12".into())
}

/// A sandbox that ends in any case, with the payloads of this binary.
fn sandbox() -> Sandbox {
    bounded(Sandbox::new().root(support::with_payload(Root::host())))
}

fn bounded(sandbox: Sandbox) -> Sandbox {
    sandbox.limits(Limits::new().wall_time(support::at_most(Duration::from_secs(120))))
}

/// The command without output.
fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-euc", script]);
    command
}

/// What a command needs, which must succeed.
#[track_caller]
fn learn(sandbox: &Sandbox, command: &Command) -> Learned {
    let (learned, outcome) = learn_any(sandbox, command);
    assert!(outcome.success(), "{command:?} was learned from: {outcome}");
    learned
}

#[track_caller]
fn learn_any(sandbox: &Sandbox, command: &Command) -> (Learned, Outcome) {
    sandbox.learn(quiet(command.clone())).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command under what was learned; what it wrote.
#[track_caller]
fn succeeds(learned: &Learned, sandbox: &Sandbox, command: &Command) -> String {
    let output = learned.apply(sandbox.clone()).output(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, wrote) = (support::text(&output.stderr), support::text(&output.stdout));
    assert!(output.outcome.success(), "{command:?}: {}: {said}\nunder {learned}", output.outcome);
    wrote
}

/// Runs a command that the sandbox lets succeed, and what was learned does not.
#[track_caller]
fn fails(learned: &Learned, sandbox: &Sandbox, command: &Command) {
    let without = sandbox.output(command).expect("an outcome");
    assert!(without.outcome.success(), "{command:?} succeeds in the sandbox: {}", support::text(&without.stderr));
    let outcome = learned.apply(sandbox.clone()).output(command).expect("an outcome").outcome;
    assert!(!outcome.success(), "{command:?} does what was not learned:\n{learned}");
}

/// What was noted of a path.
#[track_caller]
fn at(learned: &Learned, path: &str) -> FsAccess {
    *learned.paths.get(std::path::Path::new(path)).unwrap_or_else(|| panic!("nothing of {path} in {learned}"))
}
