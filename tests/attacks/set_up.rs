//! The set-up processes that stay while the program runs: what a program gains that reaches one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stockade::{Capabilities, Capability, Command, Identity, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::common::{Attempts, host_output, sandbox, tell, unfiltered};
use crate::support::{Payload, Test, children, field, is_root, payload, payload_on_host, unless_root};
use crate::sys;

pub const TESTS: &[Test] = tests![
    set_up_processes_that_stay_have_no_right_in_any_configuration,
    a_program_that_traces_init_gains_nothing if unless_root_and_x86_64,
];

pub const PAYLOADS: &[Payload] =
    &[("caller_of_every_configuration", caller_of_every_configuration), ("inject_into_init", inject_into_init)];

fn unless_root_and_x86_64() -> Option<String> {
    let other = (!cfg!(target_arch = "x86_64")).then(|| "the test knows the registers of x86_64 alone".into());
    unless_root().or(other)
}

/// Every set of namespaces that can be created here.
fn every_set_of_namespaces() -> impl Iterator<Item = Namespaces> {
    let all = Namespaces::all() - Namespaces::TIME;
    (0..=Namespaces::all().bits()).filter_map(Namespaces::from_bits).filter(move |set| all.contains(*set))
}

/// A caller that starts a sandbox in every configuration, and looks at the process that stays beside the program.
fn caller_of_every_configuration(_: &[String]) -> i32 {
    let mut looked_at = 0;
    let kept = Capabilities::none().keep([Capability::CAP_SYS_PTRACE]);
    for namespaces in every_set_of_namespaces() {
        let has_rights = is_root() || namespaces.contains(Namespaces::USER);
        let root = if namespaces.contains(Namespaces::MOUNT) { Root::host() } else { Root::inherit() };
        let plain = Sandbox::new().namespaces(namespaces).root(root);
        let mut sandboxes = vec![plain.clone(), plain.clone().identity(Identity::caller())];
        if has_rights {
            sandboxes.push(plain.clone().capabilities(kept.clone()).seccomp(Seccomp::unconfined()));
            sandboxes.push(plain.allow_new_privs());
        }
        for (index, sandbox) in sandboxes.iter().enumerate() {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = match sandbox.spawn(&sleep) {
                Ok(child) => child,
                Err(error) => {
                    assert!(!is_root() && !namespaces.contains(Namespaces::USER), "{namespaces:?}: {error}");
                    continue;
                }
            };
            let others: Vec<i32> = children().into_iter().filter(|&pid| pid as u32 != child.id()).collect();
            let &[staying] = others.as_slice() else { panic!("{namespaces:?}: {others:?}") };
            let status = loop {
                // The helper confines itself while the program runs already.
                let status = fs::read_to_string(format!("/proc/{staying}/status")).unwrap();
                let is_asleep = field(&status, "State").starts_with('S') && field(&status, "Seccomp") == "2";
                if is_asleep || child.id() == 0 {
                    break status;
                }
                std::thread::yield_now();
            };
            let what = format!("{namespaces:?} {index}: {status}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), "0000000000000000", "{set} of {what}");
            }
            assert!(!has_rights || field(&status, "CapBnd") == "0000000000000000", "{what}");
            assert_eq!(field(&status, "NoNewPrivs"), "1", "{what}");
            // The files in /proc of a process that is not dumpable belong to root.
            let owner = fs::metadata(format!("/proc/{staying}/environ")).unwrap().uid();
            assert_eq!(owner, 0, "{what}");
            looked_at += 1;
        }
    }
    tell("looked at", looked_at);
    0
}

/// Attack 43: The process that stays has no capability and a filter, whichever namespaces there are.
fn set_up_processes_that_stay_have_no_right_in_any_configuration() {
    let output = host_output(&mut payload_on_host("caller_of_every_configuration"));
    let looked_at: u32 = Attempts::parse(&output).get("looked at").parse().unwrap();
    assert!(looked_at >= 128, "{looked_at}");
}

/// Has PID 1, and a child of its own, make system calls, and tells what they answered.
#[cfg(target_arch = "x86_64")]
fn inject_into_init(args: &[String]) -> i32 {
    let status = fs::read_to_string("/proc/1/status").unwrap();
    tell("capabilities of init", field(&status, "CapEff"));
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let target = if args[0] == "init" { 1 } else { child.id() as i32 };
    tell("getppid", sys::inject(target, libc::SYS_getppid, [0; 3]).map(|_| ()));
    // The program's own filter would let it do that.
    tell(
        "socket",
        sys::inject(target, libc::SYS_socket, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0]).map(|_| ()),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn inject_into_init(_: &[String]) -> i32 {
    1
}

/// Attack 43: A program that keeps CAP_SYS_PTRACE in the caller's user namespace traces PID 1, and has it make calls.
fn a_program_that_traces_init_gains_nothing() {
    let kept = Capabilities::none().keep([Capability::CAP_SYS_PTRACE]);
    let all = Namespaces::all() - Namespaces::TIME - Namespaces::USER;
    let tracer = unfiltered(&sandbox()).namespaces(all).capabilities(kept);
    let run = |target: &str| {
        let output = tracer.output(payload("inject_into_init").arg(target)).unwrap();
        assert!(output.outcome.success(), "{output:?}");
        Attempts::parse(&crate::support::text(&output.stdout))
    };
    let other = run("child");
    assert_eq!((other.get("getppid"), other.get("socket")), ("Ok(())", "Ok(())"), "a process without a filter obeys");
    let init = run("init");
    assert_eq!(init.get("capabilities of init"), "\"0000000000000000\"");
    for call in ["getppid", "socket"] {
        assert_eq!(init.get(call), "Err(ENOSYS)", "it is traced, and its filter denies {call}");
    }
}
