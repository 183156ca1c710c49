//! The seccomp filter of the set-up processes that stay while the program runs: it allows the calls that such a process
//! still makes, and nothing else. The program's own filter is in `confine/seccomp`.

use crate::advice::Need;
use crate::plan::{Arg, Nr, OnError, Script, Step, Word, flags, nr};
use crate::syscall::ARCHITECTURE;

/// Offsets in `struct seccomp_data`. The lower half of an argument comes first on both architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
/// Instructions (`linux/bpf_common.h`) and results (`linux/seccomp.h`).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// The error of a call that the kernel does not have.
const DENY: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// A call that a process may still make.
#[derive(Clone, Copy)]
pub(crate) struct Remaining {
    nr: Nr,
    /// The only first argument that is allowed. `None` allows any.
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

/// The calls of every such process: sleeping, also after it was stopped and continued, and exiting.
const SLEEP_AND_EXIT: [Nr; 3] = [nr!(SYS_ppoll), nr!(SYS_restart_syscall), nr!(SYS_exit_group)];

/// `struct sock_filter`, one after the other.
fn instructions(calls: &[Remaining]) -> Vec<u8> {
    // Calls with a condition come last: if the condition does not hold, the call is denied at once.
    let (conditional, plain): (Vec<&Remaining>, Vec<&Remaining>) = calls.iter().partition(|call| call.first.is_some());
    let deny = 3 + plain.len() + 4 * conditional.len();
    let mut filter: Vec<(u16, u8, u8, u32)> = vec![];
    let to = |from: usize, target: usize| (target - from - 1) as u8;
    filter.push((LOAD, 0, 0, ARCH));
    filter.push((JUMP_IF_EQUAL, 0, to(1, deny), ARCHITECTURE));
    filter.push((LOAD, 0, 0, NUMBER));
    for call in plain {
        filter.push((JUMP_IF_EQUAL, to(filter.len(), deny + 1), 0, call.nr.number));
    }
    for call in conditional {
        filter.push((JUMP_IF_EQUAL, 0, 3, call.nr.number));
        filter.push((LOAD, 0, 0, FIRST_ARGUMENT));
        filter.push((JUMP_IF_EQUAL, to(filter.len(), deny + 1), 0, call.first.unwrap_or_default()));
        filter.push((RETURN, 0, 0, DENY));
    }
    filter.extend([(RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]);
    let bytes = filter.into_iter().flat_map(|(code, jt, jf, k)| {
        let ([c0, c1], [k0, k1, k2, k3]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [c0, c1, jt, jf, k0, k1, k2, k3]
    });
    bytes.collect()
}

/// `ENOTSUPP`, an error number internal to the kernel.
pub(crate) const NO_ROOM: (i32, &str) = (
    524,
    "the filters of other processes use all memory that the kernel has for filters: terminate some, or raise \
     net.core.bpf_jit_limit",
);

const REMEDIES: &[(i32, &str)] =
    &[NO_ROOM, (libc::ENOMEM, "the filters of the caller together have the maximum length: install fewer")];

/// Adds a call that fails if no filter can be installed. For a process that cannot report a failure later.
pub(crate) fn check_filters(process: &mut Script) {
    process.step(Step::new("check that a seccomp filter can be installed").needs(Need::Filter).remedies(REMEDIES));
    let allow = process.arena.bytes(&ALLOW.to_ne_bytes(), "{SECCOMP_RET_ALLOW}");
    process.call(nr!(SYS_seccomp), [flags!(SECCOMP_GET_ACTION_AVAIL), Arg::NONE, allow.into()]);
}

/// Adds the call by which the process allows itself only to sleep, to exit, and to make `calls`. Requires
/// `no_new_privs`.
pub(crate) fn allow_only(process: &mut Script, calls: &[Remaining], on_error: OnError) {
    process.step(Step::new("install the seccomp filter of this set-up process").needs(Need::Filter).remedies(REMEDIES));
    let calls: Vec<Remaining> = SLEEP_AND_EXIT.map(Remaining::any).iter().chain(calls).copied().collect();
    let bytes = instructions(&calls);
    let len = bytes.len() as u64 / 8;
    let names: Vec<&str> = calls.iter().map(|call| call.nr.name.trim_start_matches("SYS_")).collect();
    let bytes = process.arena.bytes(&bytes, format!("<{len} instructions>"));
    // struct sock_fprog {unsigned short len; struct sock_filter *filter}
    let filter = process.arena.words(&[Word::Value(len), bytes.into()], format!("{{allow {}}}", names.join(", ")));
    process.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), Arg::NONE, filter.into()]).on_error(on_error);
}
