//! Compiled programs in addition to the policy.

use stockade::seccomp::Action;
use stockade::{Command, Errno, ErrorKind, Sandbox, Seccomp, Signal, Termination};

use crate::support::{fails, invalid, stdout};

type Instruction = (u16, u8, u8, u32);

const ALLOW: Instruction = (0x06, 0, 0, 0x7fff_0000);
const KILL: Instruction = (0x06, 0, 0, 0x8000_0000);
const EPERM: Instruction = (0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32);
const LOAD_NUMBER: Instruction = (0x20, 0, 0, 0);

fn bytes(instructions: &[Instruction]) -> Vec<u8> {
    let encode = |&(code, jt, jf, k): &Instruction| {
        let [low, high] = code.to_ne_bytes();
        let [a, b, c, d] = k.to_ne_bytes();
        [low, high, jt, jf, a, b, c, d]
    };
    instructions.iter().flat_map(encode).collect()
}

/// A program that returns `result` for a call, and allows the others.
fn on(call: libc::c_long, result: Instruction) -> Vec<u8> {
    bytes(&[LOAD_NUMBER, (0x15, 0, 1, call as u32), result, ALLOW])
}

fn with(policy: Seccomp) -> Sandbox {
    Sandbox::new().seccomp(policy)
}

#[apply(test)]
fn a_program_denies_in_addition_to_the_policy() {
    let name = "uname";
    for policy in [Seccomp::new(), Seccomp::container(), Seccomp::unconfined(), Seccomp::new().record()] {
        assert!(!stdout(&with(policy.clone()), name).is_empty());
        let sandbox = with(policy.clone().bpf(on(libc::SYS_uname, EPERM)));
        assert!(fails(&sandbox, "uname -n").contains("not permitted"), "{policy}");
        assert_eq!(stdout(&sandbox, "echo works"), "works");
        // What a program allows the policy denies all the same, and the other way round.
        let denied = with(policy.deny(["mkdir", "mkdirat"]).bpf(bytes(&[ALLOW])));
        assert!(fails(&denied, "mkdir /tmp/x").contains("not permitted"));
    }
    let both = with(Seccomp::new().bpf(on(libc::SYS_uname, EPERM)).bpf(on(libc::SYS_sysinfo, EPERM)));
    assert!(fails(&both, "uname -n").contains("not permitted"));
    let filters = |sandbox: &Sandbox| -> u32 {
        let line = stdout(sandbox, "grep Seccomp_filters /proc/self/status");
        line.split_whitespace().last().expect("a number").parse().expect("a number")
    };
    assert_eq!(filters(&both), filters(&with(Seccomp::new())) + 2);
}

#[apply(test)]
fn a_program_does_not_decide_about_the_set_up() {
    // Not even the call that executes the program, so that the program begins and ends at once.
    let outcome = with(Seccomp::new().bpf(bytes(&[KILL]))).status(Command::new("true")).expect("a start");
    assert_eq!(outcome.termination, Termination::signaled(Signal::SYS, false));
    let outcome = with(Seccomp::new().bpf(bytes(&[EPERM]))).status(Command::new("true")).expect("a start");
    assert!(!outcome.success());
    // A set-up that fails later is reported.
    let sandbox = with(Seccomp::unconfined().bpf(bytes(&[KILL])));
    let error = sandbox.status(Command::new("/no/such/program")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = sandbox.status(Command::new("true").current_dir("/no/such/directory")).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::SetupFailed, Some(Errno::new(libc::ENOENT))));
}

#[apply(test)]
fn a_program_and_a_callback_work_together() {
    let policy = Seccomp::new().on(["uname"], Action::Kill).bpf(on(libc::SYS_sysinfo, EPERM));
    let outcome = with(policy).status(Command::new("uname")).expect("a run");
    assert!(!outcome.success());
    assert!(outcome.termination.signal().is_none() || outcome.termination.to_string().contains("uname"), "{outcome:?}");
}

#[apply(test)]
fn what_is_wrong_with_a_program_is_named() {
    let long = vec![ALLOW; 4092];
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "it is empty"),
        (vec![0; 7], "its 7 bytes are no multiple of 8"),
        (bytes(&long), "it has 4092 instructions"),
        (bytes(&[LOAD_NUMBER]), "instruction 0 (code 0x20) is the last, and does not return"),
        (bytes(&[(0x15, 1, 0, 0), ALLOW]), "instruction 0 (code 0x15) jumps past the end"),
        (bytes(&[(0x05, 0, 0, 1), ALLOW]), "instruction 0 (code 0x5) jumps past the end"),
        (bytes(&[(0x05, 0, 0, u32::MAX), ALLOW]), "jumps past the end"),
        (bytes(&[(0x20, 0, 0, 2), ALLOW]), "loads from an offset"),
        (bytes(&[(0x20, 0, 0, 64), ALLOW]), "loads from an offset"),
        (bytes(&[(0x34, 0, 0, 0), ALLOW]), "divides by 0"),
        (bytes(&[(0x74, 0, 0, 32), ALLOW]), "shifts by 32"),
        (bytes(&[(0x02, 0, 0, 16), ALLOW]), "above 15"),
        (bytes(&[(0x60, 0, 0, 3), ALLOW]), "nothing was stored"),
        (bytes(&[LOAD_NUMBER, (0x15, 1, 0, 7), (0x02, 0, 0, 3), (0x60, 0, 0, 3), ALLOW]), "instruction 3 (code 0x60)"),
        (bytes(&[(0x28, 0, 0, 0), ALLOW]), "is not allowed"),
        (bytes(&[(0x94, 0, 0, 1), ALLOW]), "is not allowed"),
    ];
    for (program, expected) in cases {
        let (what, remedy) = invalid(&with(Seccomp::new().bpf(program.clone())));
        assert!(what.contains(expected) && remedy.contains("sock_filter"), "{expected}: {what}: {remedy}");
    }
}

#[apply(test)]
fn what_the_kernel_accepts_is_accepted() {
    let stores = [LOAD_NUMBER, (0x02, 0, 0, 15), (0x07, 0, 0, 0), (0x15, 0, 0, 7), (0x60, 0, 0, 15), (0x87, 0, 0, 0)];
    let arithmetic = [0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0xa4].map(|code| (code, 0, 0, 1));
    let with_x = [0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0xac, 0x84].map(|code| (code, 0, 0, 0));
    let jumps = [0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x05].map(|code| (code, 0, 0, 0));
    let others = [(0x80, 0, 0, 0), (0x81, 0, 0, 0), (0x00, 0, 0, 5), (0x01, 0, 0, 5), (0x03, 0, 0, 0), (0x61, 0, 0, 0)];
    let program = [&stores[..], &others, &arithmetic, &with_x, &jumps, &[ALLOW]].concat();
    assert_eq!(stdout(&with(Seccomp::new().bpf(bytes(&program))), "echo works"), "works");
    let longest = vec![ALLOW; 4091];
    assert_eq!(stdout(&with(Seccomp::new().bpf(bytes(&longest))), "echo works"), "works");
}
