//! The seccomp filter of the set-up processes that stay while the program runs: it allows the calls that such a process
//! still makes, and nothing else. The program's own filter is a policy, and does not belong here.

use super::arena::Word;
use super::call::{Arg, Nr, OnError, flags, nr};
use super::program::{Program, Step};
use crate::system_call::ARCHITECTURE;

/// Offsets in `struct seccomp_data`. The lower half of an argument comes first on both architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
/// Instructions (`linux/bpf_common.h`) and results (`linux/seccomp.h`).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// As of a call that the kernel does not have.
const DENY: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// A call that a process may still make.
#[derive(Clone, Copy)]
pub(crate) struct Remaining {
    nr: Nr,
    /// The only first argument that is allowed.
    first: Option<u32>,
}

impl Remaining {
    pub fn any(nr: Nr) -> Self {
        Self { nr, first: None }
    }

    pub fn with_first(nr: Nr, argument: u32) -> Self {
        Self { nr, first: Some(argument) }
    }
}

/// What every such process does: it sleeps, also after it was stopped and continued, and exits.
const SLEEP_AND_EXIT: [Nr; 3] = [nr!(SYS_ppoll), nr!(SYS_restart_syscall), nr!(SYS_exit_group)];

/// `struct sock_filter`, one after the other.
fn instructions(calls: &[Remaining]) -> Vec<u8> {
    // Those with a condition come last: they take three instructions, and where they don't match nothing is left to try.
    let (conditional, plain): (Vec<&Remaining>, Vec<&Remaining>) = calls.iter().partition(|call| call.first.is_some());
    let deny = 3 + plain.len() + 4 * conditional.len();
    let mut program: Vec<(u16, u8, u8, u32)> = vec![];
    let to = |from: usize, target: usize| (target - from - 1) as u8;
    program.push((LOAD, 0, 0, ARCH));
    program.push((JUMP_IF_EQUAL, 0, to(1, deny), ARCHITECTURE));
    program.push((LOAD, 0, 0, NUMBER));
    for call in plain {
        program.push((JUMP_IF_EQUAL, to(program.len(), deny + 1), 0, call.nr.number));
    }
    for call in conditional {
        program.push((JUMP_IF_EQUAL, 0, 3, call.nr.number));
        program.push((LOAD, 0, 0, FIRST_ARGUMENT));
        program.push((JUMP_IF_EQUAL, to(program.len(), deny + 1), 0, call.first.unwrap_or_default()));
        program.push((RETURN, 0, 0, DENY));
    }
    program.extend([(RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]);
    let bytes = program.into_iter().flat_map(|(code, jt, jf, k)| {
        let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [c0, c1, jt, jf, k0, k1, k2, k3]
    });
    bytes.collect()
}

/// ENOTSUPP of the kernel's own.
pub(crate) const NO_ROOM: (i32, &str) = (
    524,
    "the filters of other processes use all memory that the kernel has for them: end those, or raise net.core.bpf_jit_limit",
);

const REMEDIES: &[(i32, &str)] = &[
    NO_ROOM,
    (
        libc::EINVAL,
        "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): add Layer::Seccomp to Sandbox::best_effort",
    ),
    (
        libc::ENOSYS,
        "the kernel, or the filter of the surrounding container, lacks seccomp(2): allow it, or add Layer::Seccomp to \
         Sandbox::best_effort",
    ),
    (
        libc::EPERM,
        "the filter of the surrounding container denies seccomp(2): allow it, or add Layer::Seccomp to \
         Sandbox::best_effort",
    ),
    (libc::ENOMEM, "the filters of the caller are together as long as the kernel takes: install fewer"),
];

impl Program {
    /// Fails if no filter can be installed, for a process that can't report it later.
    pub fn check_filters(&mut self) {
        self.step(Step::new("checking that a seccomp filter can be installed").remedies(REMEDIES));
        let allow = self.arena.bytes(&ALLOW.to_ne_bytes(), "{SECCOMP_RET_ALLOW}");
        self.call(nr!(SYS_seccomp), [flags!(SECCOMP_GET_ACTION_AVAIL), Arg::NONE, allow.into()]);
    }

    /// Leaves the process nothing but to sleep, to exit, and to make `calls`. It takes `no_new_privs`.
    pub fn allow_only(&mut self, calls: &[Remaining], on_error: OnError) {
        self.step(Step::new("denying every call that this set-up process does not need").remedies(REMEDIES));
        let calls: Vec<Remaining> = SLEEP_AND_EXIT.map(Remaining::any).iter().chain(calls).copied().collect();
        let bytes = instructions(&calls);
        let len = bytes.len() as u64 / 8;
        let names: Vec<&str> = calls.iter().map(|call| call.nr.name.trim_start_matches("SYS_")).collect();
        let bytes = self.arena.bytes(&bytes, format!("<{len} instructions>"));
        // struct sock_fprog {unsigned short len; struct sock_filter *filter}
        let program = self.arena.words(&[Word::Value(len), bytes.into()], format!("{{allow {}}}", names.join(", ")));
        self.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), Arg::NONE, program.into()]).on_error(on_error);
    }
}
