//! System calls of other ABIs, whose numbers mean other calls: no policy allows them.

use std::process::Command as Host;

use stockade::seccomp::Action;
use stockade::{Sandbox, Seccomp, Termination};

use crate::seccomp::calls::{call, i386};
use crate::seccomp::{among_the_hosts, run, says, under};
use crate::support::{own_path, payload_on_host, text};

payloads![("i386", of_i386), ("x32", of_x32), ("foreign-child", in_a_child)];

/// getpid(2) of i386, which on x86_64 is writev(2).
const GETPID: i32 = 20;
/// getpid(2) of x32.
const GETPID_OF_X32: i32 = 0x4000_0000 | 39;

fn of_i386(_: &[String]) -> i32 {
    println!("{}", i386(GETPID));
    0
}

fn of_x32(_: &[String]) -> i32 {
    println!("{:?}", call(GETPID_OF_X32.into(), [0; 6]));
    0
}

/// The same in a child, whose end it passes over.
fn in_a_child(args: &[String]) -> i32 {
    let output = Host::new(own_path()).args(["--payload", &args[0]]).output().expect("a child");
    println!("{} {}", output.status, text(&output.stdout));
    0
}

fn unless_x86_64() -> Option<String> {
    (!cfg!(target_arch = "x86_64")).then(|| "this architecture has no such calls".into())
}

fn unless_i386() -> Option<String> {
    let has = || {
        payload_on_host("i386")
            .output()
            .is_ok_and(|output| !text(&output.stdout).contains('-') && output.status.success())
    };
    unless_x86_64().or_else(|| (!has()).then(|| "this kernel has no calls of i386 (CONFIG_IA32_EMULATION)".into()))
}

#[apply(test)]
#[skip(unless_i386)]
fn calls_of_i386_are_unavailable() {
    let pid: i32 = says(&under(Seccomp::unconfined()), "i386", &[]).parse().expect("a pid");
    assert!(pid > 0, "without a filter it is made: {pid}");
    for policy in [
        Seccomp::new(),
        Seccomp::container(),
        Seccomp::deny_list().deny(["mount"]),
        Seccomp::deny_list().deny(["mount"]).record(),
        Seccomp::new().allow(["writev", "getpid"]),
    ] {
        assert_eq!(says(&under(policy), "i386", &[]), format!("-{}", libc::ENOSYS));
    }
}

/// How the payload, or a child of it, ends sandboxes in which another call is to do that.
fn ends(name: &str, number: i32) {
    let killing = || Seccomp::new().on(["swapon"], Action::Kill);
    let places: [fn(Seccomp) -> Sandbox; 2] = [under, among_the_hosts];
    for (place, policy) in places.into_iter().flat_map(|place| [(place, killing()), (place, killing().record())]) {
        for (name, args) in [(name, vec![]), ("foreign-child", vec![name])] {
            let output = run(&place(policy.clone()), name, &args);
            assert_eq!(output.outcome.termination, Termination::ForeignSyscall(number), "{name}");
            assert_eq!(text(&output.stdout), "");
            // Its number here would be that of another call. What the start of a child was refused is noted.
            let noted = output.outcome.violations.iter().filter(|it| it.call.name() != Some("clone3"));
            assert_eq!(noted.count(), 0);
        }
    }
}

#[apply(test)]
#[skip(unless_i386)]
fn calls_of_i386_are_killed_by_a_killing_policy() {
    ends("i386", GETPID);
    let outcome = run(&under(Seccomp::pure_computation()), "i386", &[]).outcome;
    let said = outcome.to_string();
    assert!(said.starts_with("killed for system call 0x14 of another ABI after"), "{said}");
}

/// Few kernels have them at all, so that they give the same error without a filter.
#[apply(test)]
#[skip(unless_x86_64)]
fn calls_of_x32_are_unavailable() {
    assert_eq!(says(&under(Seccomp::new()), "x32", &[]), "Err(ENOSYS)");
}

#[apply(test)]
#[skip(unless_x86_64)]
fn calls_of_x32_are_killed_by_a_killing_policy() {
    assert_eq!(run(&under(Seccomp::unconfined()), "x32", &[]).outcome.termination, Termination::Exited(0));
    ends("x32", GETPID_OF_X32);
}
