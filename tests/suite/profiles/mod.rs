//! The profiles. For each, its use case works, and the harm that it prevents occurs without it.

mod agent;
mod build_step;
mod compile_untrusted;
mod judge;
mod test;

use crate::support::{self, stdout, text};
use stockade::limits::{Overflow, Resource};
use stockade::{Command, Sandbox, Termination, profile};

payloads![("caller_with_less", caller_with_less),];

fn all() -> [(&'static str, Sandbox); 5] {
    [
        ("build_step", profile::build_step()),
        ("test", profile::test()),
        ("compile_untrusted", profile::compile_untrusted()),
        ("judge", profile::judge()),
        ("agent", profile::agent()),
    ]
}

/// So that one works wherever there are user namespaces.
#[apply(test)]
fn a_profile_needs_no_cgroup() {
    for (name, sandbox) in all() {
        let outcome = sandbox.status(Command::new("true")).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(outcome.success(), "{name}: {outcome}");
        assert!(!outcome.enforcement.is_active(stockade::Layer::Cgroup), "{name}: {:?}", outcome.enforcement);
        assert_eq!(outcome.enforcement.unenforced, [], "{name}");
    }
}

#[apply(test)]
fn a_profile_is_no_less_than_the_default() {
    let layers = |sandbox: &Sandbox| {
        let outcome = sandbox.status(Command::new("true")).expect("an outcome");
        outcome.enforcement.active().map(|active| active.layer).collect::<Vec<_>>()
    };
    let default = layers(&Sandbox::new());
    for (name, sandbox) in all() {
        let its = layers(&sandbox);
        assert!(default.iter().all(|layer| its.contains(layer)), "{name}: {its:?}, {default:?} by default");
    }
}

/// A program that makes 1,100 processes at a time, or tells how far it came.
const FORKS: &str = "
import os, signal
for count in range(1100):
    try:
        child = os.fork()
    except BlockingIOError:
        raise SystemExit(f'{count} processes')
    if child == 0:
        signal.pause()
print('all')
";

#[apply(test)]
#[skip(support::unless_python)]
fn a_loop_of_forks_is_stopped_by_the_limit() {
    let forks = |sandbox: Sandbox| {
        let output = sandbox.output(Command::new("/usr/bin/python3").args(["-c", FORKS])).expect("an outcome");
        (output.outcome.success(), text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(forks(Sandbox::new()), (true, "all".into(), "".into()));
    let limits = [
        (profile::build_step(), 1024),
        (profile::test(), 1024),
        (profile::agent(), 512),
        (profile::compile_untrusted(), 256),
    ];
    for (sandbox, limit) in limits {
        let (succeeded, _, said) = forks(sandbox);
        let count: u64 = said.trim_end_matches(" processes").parse().unwrap_or_else(|_| panic!("{said}"));
        assert!(!succeeded && count < limit, "{said}");
    }
}

/// What is kept in a configuration file is the same sandbox.
#[apply(test)]
fn a_profile_survives_as_data() {
    for (name, sandbox) in all() {
        let json = serde_json::to_string(&sandbox).expect("JSON");
        let read: Sandbox = serde_json::from_str(&json).expect("a sandbox");
        assert_eq!(read, sandbox, "{name}");
    }
}

/// Makes a file of 2 TiB in memory of which nothing is used, as .NET does when it starts.
const RESERVES: &str = "import os; os.ftruncate(os.memfd_create('doublemapper'), 2 << 40); print('reserved')";

#[apply(test)]
#[skip(support::unless_python)]
fn an_unused_file_of_terabytes_does_not_kill_the_program() {
    for (name, sandbox) in
        [("build_step", profile::build_step()), ("test", profile::test()), ("agent", profile::agent())]
    {
        let run = |sandbox: Sandbox| {
            sandbox.output(Command::new("/usr/bin/python3").args(["-c", RESERVES])).expect("an outcome")
        };
        let output = run(sandbox.clone());
        assert_eq!(text(&output.stdout), "reserved", "{name}: {} {}", output.outcome, text(&output.stderr));
        let limited = run(sandbox.map_limits(|limits| limits.rlimit(Resource::Fsize, 1 << 30, 1 << 30)));
        assert!(!limited.outcome.success(), "{name}: by a limit on the size of a file it is ended");
    }
}

#[apply(test)]
#[skip(support::unless_python)]
fn stderr_output_of_a_submission_does_not_change_the_verdict() {
    const TALKATIVE: &str = "import sys; sys.stderr.write('x' * 100_000); print(42)";
    let run = |sandbox: Sandbox| {
        sandbox.output(Command::new("/usr/bin/python3").args(["-c", TALKATIVE])).expect("an outcome")
    };
    let output = run(profile::judge());
    assert_eq!((output.outcome.termination, text(&output.stdout)), (Termination::Exited(0), "42".into()));
    assert_eq!((output.stderr.len(), output.stderr_truncated), (64 << 10, true));
    assert_eq!(output.outcome.usage.stderr.map(|count| count.value), Some(100_000), "all of it is counted");
    let strict = run(profile::judge().map_limits(|limits| limits.stderr_overflow(Overflow::Kill)));
    assert_eq!(strict.outcome.termination, Termination::Output, "unless it is to be one");
}

/// A caller whose own hard limit is below that of a profile.
fn caller_with_less(_: &[String]) -> i32 {
    println!("{}", support::refused(&profile::judge()));
    0
}

#[apply(test)]
#[only(User)]
fn limits_above_the_callers_are_an_error() {
    // Not of processes: those of the tests beside this one would count.
    let said = support::on_host(&["prlimit", "--stack=8388608:8388608"], "caller_with_less", &[]);
    let expected = "failed to set RLIMIT_STACK: prlimit64: Operation not permitted (EPERM): lower the hard limit to \
                    the caller's, or give the caller CAP_SYS_RESOURCE";
    assert_eq!(said, expected);
}

/// A place for scratch files is there, and holds as much as it should.
fn holds(sandbox: &Sandbox, place: &str, bytes: u64) {
    let said = stdout(sandbox, &format!("stat -f -c '%b %S' {place} && echo x >{place}/file"));
    let size: u64 = said.split(' ').map(|number| number.parse::<u64>().expect("a number")).product();
    assert_eq!(size, bytes, "{place}");
}
