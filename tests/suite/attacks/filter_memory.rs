//! Filters of a program's own, which the kernel compiles into memory that no cgroup counts, and of which the machine
//! has as much as `net.core.bpf_jit_limit` says: when it is used up, no ordinary user can install a filter, nor start a
//! sandbox.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use stockade::{Command, Seccomp, Stdio, profile};

use crate::attacks::common::{Attempts, attack, attempt, is_machine_of_tests, line, sandbox, tell, unfiltered};
use crate::attacks::sys::{self, Word, call, numbers};
use crate::support::{is_root, payload, with_payload};

payloads![("filter_sockets", filter_sockets), ("filter_calls", filter_calls), ("take_memory", take_memory)];

/// `jeq` with far constants, which take the most room, and `ret` with everything.
pub fn filter(len: u32) -> Vec<u8> {
    let jumps = (1..len).map(|index| u64::from(0x1234_5678 + index) << 32 | 0x15);
    jumps.chain([0x7fff_0000 << 32 | 0x06]).flat_map(u64::to_ne_bytes).collect()
}

/// Attaches filters to sockets.
fn filter_sockets(_: &[String]) -> i32 {
    const LEN: u32 = 1000;
    let instructions = filter(LEN);
    let (one, _other) = UnixStream::pair().unwrap();
    // SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF
    for (name, option) in [("filter", 26), ("filter of a group", 51)] {
        attempt(name, sys::filter_socket(one.as_raw_fd(), option, &instructions));
    }
    0
}

/// Installs as many filters as it can.
fn filter_calls(_: &[String]) -> i32 {
    let instructions = filter(4096);
    // Support is asked for by a null pointer.
    let filters = i64::from(libc::SECCOMP_SET_MODE_FILTER);
    tell("support", numbers(libc::SYS_seccomp, &[filters, 0, 0]));
    attempt("seccomp", sys::filter_calls(&instructions));
    let named = i64::from(libc::PR_SET_NAME);
    attempt("prctl", call(libc::SYS_prctl, &mut [Word::Number(named), Word::Bytes(b"named\0")]));
    tell("more", std::iter::from_fn(|| sys::filter_calls(&instructions).ok()).take(16).count());
    0
}

/// Attaches a filter to as many sockets as it can, and keeps them until its input ends.
fn take_memory(_: &[String]) -> i32 {
    let instructions = filter(1000);
    let sockets: Vec<_> = std::iter::from_fn(|| UnixStream::pair().ok()).take(400).collect();
    let attach = |socket: &UnixStream| sys::filter_socket(socket.as_raw_fd(), 26, &instructions).is_ok();
    let attached = sockets.iter().flat_map(|(one, other)| [one, other]).take_while(|socket| attach(socket)).count();
    tell("attached", attached);
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// How many filters a program attached, and whether another sandbox could be started meanwhile.
fn beside(policy: Seccomp) -> (usize, Result<(), String>) {
    let mut command = payload("take_memory");
    let mut taker = sandbox().seccomp(policy).spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let said = line(taker.stdout.as_mut().unwrap());
    let other = sandbox().status(Command::new("true")).map(drop).map_err(|error| error.to_string());
    drop(taker.stdin.take());
    let _ = taker.wait().unwrap();
    (Attempts::parse(&said).get("attached").parse().unwrap(), other)
}

/// Has the kernel so little memory for filters that one program can take it.
fn assert_no_sandbox_is_kept_from_its_filter() {
    const LIMIT: &str = "/proc/sys/net/core/bpf_jit_limit";
    let Ok(before) = fs::read_to_string(LIMIT) else { return println!("this kernel does not limit filters") };
    fs::write(LIMIT, "4194304").unwrap();
    let (unfiltered, filtered) = (beside(Seccomp::unconfined()), beside(Seccomp::new()));
    fs::write(LIMIT, before.trim_end()).unwrap();
    assert_eq!((filtered.0, filtered.1), (0, Ok(())));
    assert!(unfiltered.0 > 0, "filters are attached");
    // Kernels that have an interpreter beside the compiler (no CONFIG_BPF_JIT_ALWAYS_ON) use it then.
    match unfiltered.1 {
        Ok(()) => println!("filters are interpreted when the memory is used up"),
        Err(error) => assert!(error.contains("net.core.bpf_jit_limit"), "{error}"),
    }
}

/// Attack 72: Filters of sockets, of which a process can have as many as descriptors.
#[apply(test)]
fn sockets_have_no_filters_of_the_programs() {
    attack(&unfiltered(&sandbox()), "filter_sockets", &[]).assert_done(&["filter"]);
    for sandbox in [sandbox(), sandbox().seccomp(Seccomp::container()), profile::agent().map_root(with_payload)] {
        let attempts = attack(&sandbox, "filter_sockets", &[]);
        assert_eq!([attempts.get("filter"), attempts.get("filter of a group")], ["ENOPROTOOPT"; 2]);
    }
    if is_root() && is_machine_of_tests() {
        assert_no_sandbox_is_kept_from_its_filter();
    }
}

/// Attack 72: Filters of system calls, of which each process can have 32,768 instructions.
#[apply(test)]
fn an_agent_has_no_filters_of_its_own() {
    let container = attack(&profile::agent().seccomp(Seccomp::container()).map_root(with_payload), "filter_calls", &[]);
    container.assert_done(&["seccomp", "prctl"]);
    assert_ne!(container.get("more"), "0");
    let agent = attack(&profile::agent().map_root(with_payload), "filter_calls", &[]);
    assert_eq!((agent.get("support"), agent.get("seccomp"), agent.get("more")), ("Err(EFAULT)", "EINVAL", "0"));
    agent.assert_done(&["prctl"]);
}
