//! Other ways to make system calls than the ABI that a filter is written for: the ABIs of i386 and x32, whose numbers
//! mean other calls, and clone3(2), whose flags a filter cannot inspect.

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use stockade::seccomp::Action;
use stockade::{Seccomp, Termination};

use crate::attacks::common::{Attempts, attack, attempt, sandbox};
use crate::attacks::sys;
use crate::support::{payload, unless_pivot_root};

payloads![
    #[cfg(target_arch = "x86_64")]
    ("attack_i386", i386),
    #[cfg(target_arch = "x86_64")]
    ("attack_x32", x32),
    ("clone3", clone3),
];

/// Every policy that a sandbox can have out of the box but for the one that allows nearly nothing.
fn policies() -> [Seccomp; 3] {
    [Seccomp::new(), Seccomp::container(), Seccomp::deny_list().deny(["unshare", "ptrace"])]
}

/// A kernel that was booted without them ends who makes one.
#[cfg(target_arch = "x86_64")]
fn unless_i386() -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").expect("the kernel's command line");
    let without = line
        .split_whitespace()
        .any(|word| ["0", "n", "off", "false"].map(|no| format!("ia32_emulation={no}")).contains(&word.into()));
    // Over an initramfs there are no user namespaces within.
    without.then(|| "the kernel was booted without the calls of i386".into()).or_else(unless_pivot_root)
}

/// Their numbers of i386: 310 is `process_vm_readv` for who takes it for one of x86_64.
#[cfg(target_arch = "x86_64")]
fn i386(_: &[String]) -> i32 {
    attempt("i386 getpid", sys::i386(20, [0; 3]).map(|pid| assert_eq!(pid, i64::from(std::process::id()))));
    attempt("i386 unshare", sys::i386(310, [libc::CLONE_NEWUSER as u32, 0, 0]));
    attempt("i386 ptrace", sys::i386(26, [libc::PTRACE_TRACEME, 0, 0]));
    0
}

/// Attack 21: The system calls of i386, by `int 0x80`.
#[cfg(target_arch = "x86_64")]
#[apply(test)]
#[skip(unless_i386)]
fn calls_of_i386_pass_no_filter() {
    let unfiltered = attack(&sandbox().seccomp(Seccomp::unconfined()), "attack_i386", &[]);
    unfiltered.assert_done(&["i386 getpid", "i386 unshare", "i386 ptrace"]);
    for policy in policies() {
        let filtered = attack(&sandbox().seccomp(policy), "attack_i386", &[]);
        filtered.assert_all_refused();
        assert_eq!(filtered.get("i386 getpid"), "ENOSYS", "by the filter");
    }
    assert_ended_by_a_foreign_call("attack_i386", 20);
}

/// A policy that ends the sandbox for a forbidden call ends it for one of another ABI, here getpid(2).
#[cfg(target_arch = "x86_64")]
fn assert_ended_by_a_foreign_call(name: &str, number: i32) {
    let strict = sandbox().seccomp(Seccomp::new().deny_with(Action::Kill));
    let outcome = strict.status(payload(name).stdout(stockade::Stdio::null())).unwrap();
    assert_eq!(outcome.termination, Termination::ForeignSyscall(number), "{name}");
}

/// The same numbers as those of x86_64, with a bit.
#[cfg(target_arch = "x86_64")]
fn x32(_: &[String]) -> i32 {
    let x32 = |number: i64, argument: i64| sys::call(number | 0x4000_0000, &mut [sys::Word::Number(argument)]);
    attempt("x32 getpid", x32(libc::SYS_getpid, 0));
    attempt("x32 unshare", x32(libc::SYS_unshare, libc::CLONE_NEWUSER.into()));
    0
}

/// Attack 21: The system calls of x32. Few kernels have them; that the filter is what refuses them shows where it
/// kills.
#[cfg(target_arch = "x86_64")]
#[apply(test)]
fn calls_of_x32_pass_no_filter() {
    let unfiltered = attack(&sandbox().seccomp(Seccomp::unconfined()), "attack_x32", &[]);
    if unfiltered.get("x32 getpid") == "done" {
        unfiltered.assert_done(&["x32 unshare"]);
    }
    for policy in policies() {
        let filtered = attack(&sandbox().seccomp(policy), "attack_x32", &[]);
        filtered.assert_all_refused();
        assert_eq!(filtered.get("x32 getpid"), "ENOSYS");
    }
    assert_ended_by_a_foreign_call("attack_x32", 0x4000_0000 | libc::SYS_getpid as i32);
}

/// Children in namespaces of their own, and one of its parent's.
fn clone3(_: &[String]) -> i32 {
    let flags = [
        ("none", 0),
        ("user namespace", libc::CLONE_NEWUSER),
        ("all namespaces", libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET),
        ("parent", libc::CLONE_PARENT),
    ];
    for (kind, clone) in [("clone", sys::clone as fn(i32) -> nix::Result<i64>), ("clone3", sys::clone3)] {
        for (name, flags) in flags {
            let signal = if kind == "clone" { libc::SIGCHLD } else { 0 };
            match clone(flags | signal) {
                Ok(0) => sys::exit(0),
                result => {
                    if let Some(child) = attempt(&format!("{kind}, {name}"), result) {
                        let _ = waitpid(Pid::from_raw(child as i32), None);
                    }
                }
            }
        }
    }
    0
}

fn said_of_clone(seccomp: Seccomp) -> Attempts {
    attack(&sandbox().seccomp(seccomp), "clone3", &[])
}

/// Attack 21: clone3(2) with every flag for which clone(2) is refused.
#[apply(test)]
#[skip(unless_pivot_root)]
fn flags_that_a_filter_can_not_see_open_nothing() {
    let kinds =
        ["clone", "clone3"].map(|kind| ["user namespace", "all namespaces"].map(|name| format!("{kind}, {name}")));
    let namespaces: Vec<&str> = kinds.as_flattened().iter().map(String::as_str).collect();
    let unfiltered = said_of_clone(Seccomp::unconfined());
    unfiltered.assert_done(&namespaces);
    unfiltered.assert_done(&["clone, parent", "clone3, parent"]);
    // A filter that knows the flags of clone alone is passed by.
    let naive = Seccomp::new().allow(["clone3"]);
    let passed = said_of_clone(naive);
    passed.assert_refused(&["clone, user namespace", "clone, parent"]);
    passed.assert_done(&["clone3, user namespace", "clone3, parent"]);
    for policy in [Seccomp::new(), Seccomp::container()] {
        let filtered = said_of_clone(policy);
        filtered.assert_done(&["clone, none"]);
        filtered.assert_refused(&namespaces);
        filtered.assert_refused(&["clone, parent", "clone3, parent"]);
        assert_eq!(filtered.get("clone3, none"), "ENOSYS", "so that the C library takes clone");
    }
}
