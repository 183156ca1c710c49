//! The calls that put a filter in force.

use super::{Filter, Seccomp};
use crate::plan::{Arg, Listener, NO_ROOM, Program, Step, Word, flags, nr};

/// Puts a filter in force for the process that runs the program, and for all that it starts. What comes behind it in the
/// program carries the pass.
///
/// `said` is the policy that the filter was made of. `killable`: while the host decides, no signal but one that kills
/// interrupts the call (since Linux 5.19).
pub(crate) fn install(process: &mut Program, filter: &Filter, said: &Seccomp, killable: bool) {
    process.step(Step::new("installing the seccomp filter").remedies(&[
        (
            libc::EBUSY,
            "the host runs under a filter that has a listener (SECCOMP_RET_USER_NOTIF), and the kernel takes one: \
                       leave out record, notify and kill",
        ),
        (libc::EINVAL, "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or not this action"),
        NO_ROOM,
        (libc::EACCES, "without no_new_privs it takes CAP_SYS_ADMIN over the user namespace"),
        (
            libc::ENOMEM,
            "the filters of the caller and of the sandbox are together longer than the kernel takes: install fewer",
        ),
    ]));
    let instructions = process.arena.words(&filter.program, format!("<{} instructions>", filter.len()));
    // struct sock_fprog {unsigned short len; struct sock_filter *filter}
    let words = [Word::Value(filter.len() as u64), instructions.into()];
    let program = process.arena.words(&words, format!("{{{}, <filter of {said}>}}", filter.len()));
    let how = match (filter.policy.needs_listener(), killable) {
        (false, _) => Arg::NONE,
        (true, false) => flags!(SECCOMP_FILTER_FLAG_NEW_LISTENER),
        (true, true) => flags!(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
    };
    let listener = filter.policy.needs_listener().then(|| Listener::new(process));
    let installed = process.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), how, program.into()]);
    if let Some(listener) = &listener {
        installed.store_in(listener.fd);
    }
    process.carry_pass(filter.carrying.clone());
    if let Some(listener) = listener {
        listener.send(process);
    }
}
