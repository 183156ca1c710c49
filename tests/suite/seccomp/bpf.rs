//! Compiled programs in addition to the policy.

use stockade::seccomp::Action;
use stockade::{Command, Errno, ErrorKind, Root, Sandbox, Seccomp, Signal, Termination};

use crate::support::{fails, invalid, on_host, payload, stdout, with_payload};

payloads![("traced_by_its_parent", traced_by_its_parent)];

type Instruction = (u16, u8, u8, u32);

const ALLOW: Instruction = (0x06, 0, 0, 0x7fff_0000);
const KILL: Instruction = (0x06, 0, 0, 0x8000_0000);
const EPERM: Instruction = (0x06, 0, 0, 0x0005_0000 | libc::EPERM as u32);
const TRACE: Instruction = (0x06, 0, 0, 0x7ff0_0000);
const RETURN_A: Instruction = (0x16, 0, 0, 0);
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
    let long = vec![ALLOW; 4085];
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "it is empty"),
        (vec![0; 7], "its 7 bytes are no multiple of 8"),
        (bytes(&long), "it has 4085 instructions"),
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
        (bytes(&[TRACE]), "instruction 0 (code 0x6) returns SECCOMP_RET_TRACE"),
        (on(libc::SYS_uname, (0x06, 0, 0, 0x7ff0_1234)), "instruction 2 (code 0x6) returns SECCOMP_RET_TRACE"),
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
    let longest = vec![ALLOW; 4084];
    assert_eq!(stdout(&with(Seccomp::new().bpf(bytes(&longest))), "echo works"), "works");
}

/// A program that computes `result` for uname(2), and returns it.
fn computing(result: u32) -> Vec<u8> {
    let compute = [(0x00, 0, 0, result), RETURN_A];
    bytes(&[&[LOAD_NUMBER, (0x15, 0, 2, libc::SYS_uname as u32)][..], &compute, &[ALLOW]].concat())
}

/// Traces a child, lets it make every call for which a filter asks a tracer, and prints whether its uname(2) succeeded.
/// With arguments the child installs a filter that asks.
fn traced_by_its_parent(args: &[String]) -> i32 {
    const GO_ON: libc::c_int = libc::PTRACE_O_TRACESECCOMP | libc::PTRACE_O_EXITKILL;
    let filter = on(libc::SYS_uname, TRACE);
    // SAFETY: the child makes system calls only, of which none allocates, and exits. All pointers are to live values.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            if !args.is_empty() {
                let program = libc::sock_fprog { len: (filter.len() / 8) as u16, filter: filter.as_ptr() as *mut _ };
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program);
            }
            let mut name = std::mem::zeroed::<libc::utsname>();
            libc::_exit(if libc::uname(&mut name) == 0 { 10 } else { 20 });
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, GO_ON);
        while libc::WIFSTOPPED(status) {
            libc::ptrace(libc::PTRACE_CONT, child, 0, 0);
            libc::waitpid(child, &mut status, 0);
        }
        println!("{}", if libc::WEXITSTATUS(status) == 10 { "succeeded" } else { "failed" });
    }
    0
}

#[apply(test)]
fn no_result_is_left_to_a_tracer() {
    assert_eq!(on_host(&[], "traced_by_its_parent", &["installs"]), "succeeded", "the parent has let it make the call");
    let (what, _) = invalid(&with(Seccomp::new().bpf(on(libc::SYS_uname, TRACE))));
    assert!(what.contains("SECCOMP_RET_TRACE"), "{what}");
    let traced = |policy: Seccomp| {
        let sandbox = with(policy).root(with_payload(Root::host()));
        let output = sandbox.output(payload("traced_by_its_parent")).expect("a run");
        crate::support::text(&output.stdout)
    };
    assert_eq!(traced(Seccomp::new()), "succeeded", "a program may trace its child");
    assert_eq!(traced(Seccomp::new().bpf(computing(0x7ff0_0000))), "failed");
    assert_eq!(traced(Seccomp::new().bpf(computing(0x7ff0_0007))), "failed");
    assert_eq!(traced(Seccomp::new().bpf(computing(ALLOW.3))), "succeeded", "other results are returned");
    assert_eq!(traced(Seccomp::new().bpf(computing(EPERM.3))), "failed");
}

/// The kernel clears the registers before a program: 0 is SECCOMP_RET_KILL_THREAD.
#[apply(test)]
fn a_program_begins_with_clear_registers() {
    let killed = |program: Vec<u8>| {
        let outcome = with(Seccomp::unconfined().bpf(program)).status(Command::new("true")).expect("a start");
        assert_eq!(outcome.termination, Termination::signaled(Signal::SYS, false));
    };
    killed(bytes(&[(0x06, 0, 0, 0)]));
    killed(bytes(&[RETURN_A]));
    // It is allowed unless A is 0.
    killed(bytes(&[(0x15, 0, 1, 0), KILL, ALLOW]));
    killed(bytes(&[(0x87, 0, 0, 0), RETURN_A]));
}
