//! Control groups: limits, statistics, and removal. An ordinary user creates cgroups on v1 below directories that the
//! run as root has delegated to it, and on v2 below its own cgroup, if that was delegated to the user who has started
//! the tests.

#[cfg(feature = "_testing")]
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
mod sessions;
mod sweep;
mod usage;
mod view;

use std::time::Duration;

use crate::support::{self, at_most, eventually};
use stockade::cgroup::CgroupParent;
use stockade::{Cgroup, Command, Limits, Outcome, Output, Root, Sandbox, Seccomp, Stdio, Termination};

const MS: Duration = Duration::from_millis(1);
const MB: u64 = 1 << 20;

/// Makes what these tests need of this host, until it is dropped.
pub fn prepare() -> Option<delegation::Delegated> {
    let delegated = delegation::delegate();
    delegation::make_room();
    delegated
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
        .limits(Limits::new().wall_time(at_most(60_000 * MS)))
}

/// The same without a filter of system calls, which refuses user namespaces within.
fn unfiltered(cgroup: Cgroup) -> Sandbox {
    with(cgroup).seccomp(Seccomp::unconfined())
}

/// The same without a group.
fn without() -> Sandbox {
    Sandbox::new().root(support::with_payload(Root::host())).limits(Limits::new().wall_time(at_most(60_000 * MS)))
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
