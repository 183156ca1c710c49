//! System call filters on programs that make the calls: which calls are denied and how, which are passed to the caller,
//! and which programs still run.

mod abis;
mod bpf;
mod callers;
mod calls;
mod computing;
mod conditions;
mod endings;
mod kills;
mod lists;
mod log;
mod memory;
mod notify;
mod payloads;
mod presets;
mod words;

use std::time::Duration;

use crate::support::{self, at_most, eventually, text};
use stockade::Errno;
use stockade::seccomp::{Action, Decision, Notification};
use stockade::{Child, Command, Limits, Namespaces, Outcome, Output, Root, Sandbox, Seccomp, Stdio, Termination};

const MS: Duration = Duration::from_millis(1);
const EPERM: &str = "EPERM";

/// A sandbox under a policy, in which the payloads of this binary can be executed.
fn under(policy: Seccomp) -> Sandbox {
    bounded(Sandbox::new().root(support::with_payload(Root::host())).seccomp(policy))
}

/// The same without a pid namespace.
fn among_the_hosts(policy: Seccomp) -> Sandbox {
    under(policy).namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID)
}

fn bounded(sandbox: Sandbox) -> Sandbox {
    sandbox.limits(Limits::new().wall_time(at_most(60_000 * MS)))
}

/// A policy on which programs run, and that refuses the rest as an allow-list does.
fn computing() -> Seccomp {
    Seccomp::pure_computation().default_action(Action::Errno(Errno::EPERM))
}

/// Runs a payload.
fn run(sandbox: &Sandbox, name: &str, args: &[&str]) -> Output {
    let mut command = support::payload(name);
    command.args(args);
    sandbox.output(&command).unwrap_or_else(|error| panic!("{name} {args:?}: {error}"))
}

/// Runs a payload that must succeed, and gives what it wrote to standard output.
fn says(sandbox: &Sandbox, name: &str, args: &[&str]) -> String {
    let output = run(sandbox, name, args);
    let said = text(&output.stderr);
    assert_eq!(output.outcome.termination, Termination::Exited(0), "{name} {args:?} said {said:?}");
    text(&output.stdout)
}

/// What the calls of a payload give, one after the other: see [`payloads::calls`].
fn results(policy: Seccomp, calls: &[&str]) -> Vec<String> {
    says(&under(policy), "calls", calls).lines().map(str::to_owned).collect()
}

/// What a call gives.
fn result(policy: Seccomp, call: &str) -> String {
    results(policy, &[call]).remove(0)
}

/// Starts a payload whose calls a callback decides.
fn supervised(
    policy: Seccomp,
    name: &str,
    args: &[&str],
    decide: impl FnMut(&Notification<'_>) -> Decision + Send + 'static,
) -> Child {
    let mut command = support::payload(name);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    under(policy).spawn_supervised(&command, decide).unwrap_or_else(|error| panic!("{name} {args:?}: {error}"))
}

/// The end of such a payload, which must have succeeded: what it wrote, and the outcome.
fn succeeded(child: Child) -> (Vec<String>, Outcome) {
    let output = child.wait_with_output().expect("an outcome");
    let said = text(&output.stderr);
    assert_eq!(output.outcome.termination, Termination::Exited(0), "it said {said:?}");
    (text(&output.stdout).lines().map(str::to_owned).collect(), output.outcome)
}

/// The name of the call for which a sandbox was ended.
fn ended_for(outcome: &Outcome) -> &'static str {
    match outcome.termination {
        Termination::Syscall(call) => {
            assert_eq!(Some(call), call.name().and_then(stockade::seccomp::SystemCall::named));
            call.name().expect("a name")
        }
        _ => panic!("{outcome}"),
    }
}

/// A shell script under a policy, as a bounded sandbox runs it.
fn shell(policy: Seccomp, script: &str) -> Output {
    support::sh(&under(policy), script)
}

/// What getpriority(2) gives in this process and in those that it starts.
fn priority() -> String {
    payloads::told("getpriority:0,0")
}

/// A command in which nothing is read.
fn silent(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
