//! Control groups: their limits, their figures, and that nothing of them stays. An ordinary user makes groups below
//! directories of v1 that the run as root has made and given to it, and on v2 below the group that it is in, if whoever
//! started the tests has delegated that.

#[path = "../support/mod.rs"]
mod support;

mod born;
mod cpu;
mod delegation;
mod errors;
mod freeze;
mod groups;
mod life;
mod memory;
mod parents;
mod payloads;
mod processes;
mod reach;
mod sweep;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use stockade::{Cgroup, CgroupParent, Command, Limits, Outcome, Output, Root, Sandbox, Seccomp, Stdio, Termination};
use support::{at_most, eventually};

const MS: Duration = Duration::from_millis(1);
const MB: u64 = 1 << 20;

fn main() -> ExitCode {
    let tests = [
        born::TESTS,
        memory::TESTS,
        cpu::TESTS,
        processes::TESTS,
        errors::TESTS,
        usage::TESTS,
        freeze::TESTS,
        life::TESTS,
        sweep::TESTS,
        reach::TESTS,
        parents::TESTS,
    ];
    let payloads = [
        payloads::PAYLOADS,
        born::PAYLOADS,
        cpu::PAYLOADS,
        life::PAYLOADS,
        sweep::PAYLOADS,
        freeze::PAYLOADS,
        usage::PAYLOADS,
        parents::PAYLOADS,
    ];
    let _delegated = delegation::delegate();
    delegation::make_room();
    support::run(&tests.concat(), &payloads.concat())
}

/// A group without limits, where this user may make one.
fn group() -> Cgroup {
    match delegation::name() {
        Some(name) => Cgroup::new().parent(CgroupParent::Path(name.into())),
        None => Cgroup::new(),
    }
}

/// A sandbox with a group, in which the payloads of this binary can be executed.
fn with(cgroup: Cgroup) -> Sandbox {
    Sandbox::new()
        .root(support::with_payload(Root::host()))
        .cgroup(cgroup)
        .limits(Limits::new().wall(at_most(60_000 * MS)))
}

/// The same without a filter of system calls, which refuses user namespaces within.
fn unfiltered(cgroup: Cgroup) -> Sandbox {
    with(cgroup).seccomp(Seccomp::unconfined())
}

/// The same without a group.
fn without() -> Sandbox {
    Sandbox::new().root(support::with_payload(Root::host())).limits(Limits::new().wall(at_most(60_000 * MS)))
}

/// Runs a payload.
fn payload(sandbox: &Sandbox, name: &str, args: &[&str]) -> Output {
    let mut command = support::payload(name);
    command.args(args);
    sandbox.output(&command).unwrap_or_else(|error| panic!("{name} {args:?}: {error}"))
}

/// Runs a payload that must succeed, and gives what it wrote to standard output.
fn succeeds(sandbox: &Sandbox, name: &str, args: &[&str]) -> (String, Outcome) {
    let output = payload(sandbox, name, args);
    let said = support::text(&output.stderr);
    assert_eq!(output.outcome.termination, Termination::Exited(0), "{name} {args:?} said {said:?}");
    (support::text(&output.stdout), output.outcome)
}

/// A sandbox in which a program sleeps.
fn sleeper(sandbox: &Sandbox) -> stockade::Child {
    sandbox.spawn(quiet("sleep").arg("1000")).expect("a sleeper")
}

/// A command without input and output.
fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
