//! The calls that install a filter (seccomp(2)). What is in the filter is decided before.

use super::filter::all_calls;
use super::{Filter, Seccomp};
use crate::advice::Need;
use crate::launch::NO_ROOM;
use crate::plan::message::{Rights, header};
use crate::plan::report::LISTENING;
use crate::plan::{Arg, Input, Ref, Script, Slot, Step, Word, flags, nr};

/// Hints for seccomp(2).
const HINTS: &[(i32, &str)] = &[
    (
        libc::EBUSY,
        "the caller runs under a filter with a listener (SECCOMP_RET_USER_NOTIF) already, and the kernel allows one: use a \
             policy without Seccomp::record, Action::Notify and Action::Kill",
    ),
    NO_ROOM,
    (
        libc::EACCES,
        "without no_new_privs a filter requires CAP_SYS_ADMIN in the user namespace: remove Sandbox::allow_new_privs",
    ),
    (
        libc::ENOMEM,
        "the filters of the caller and of the sandbox together exceed the kernel's limit: run the caller under fewer filters, or \
             use fewer rules",
    ),
];

/// Adds the calls that install compiled programs, of which each has the instructions that let the set-up through. All
/// later calls of the set-up carry the pass.
pub(crate) fn install_programs(process: &mut Script, programs: &[Vec<Word>]) {
    process.step(Step::new("install the BPF program").needs(Need::Filter).remedies(HINTS));
    for program in programs {
        let instructions = process.arena.words(program, format!("<{} instructions>", program.len()));
        let words = [Word::Value(program.len() as u64), instructions.into()];
        let program = process.arena.words(&words, format!("{{{}, <BPF program>}}", program.len()));
        process.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), Arg::NONE, program.into()]);
        process.carry_pass(all_calls());
    }
}

/// Adds the calls that install a filter to the script of the process that runs the program. The later calls of the
/// script carry the pass.
///
/// `policy` is what the filter was compiled from. `killable`: while the caller decides about a call, only a signal that
/// kills interrupts it. Requires Linux 5.19.
pub(crate) fn install(process: &mut Script, filter: &Filter, policy: &Seccomp, killable: bool) {
    process.step(Step::new("install the seccomp filter").needs(Need::Filter).remedies(HINTS));
    let instructions = process.arena.words(&filter.instructions, format!("<{} instructions>", filter.len()));
    // struct sock_fprog {unsigned short len; struct sock_filter *filter}
    let words = [Word::Value(filter.len() as u64), instructions.into()];
    let program = process.arena.words(&words, format!("{{{}, <filter of {policy}>}}", filter.len()));
    let flags = match (filter.policy.needs_listener(), killable) {
        (false, _) => Arg::NONE,
        (true, false) => flags!(SECCOMP_FILTER_FLAG_NEW_LISTENER),
        (true, true) => flags!(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
    };
    let listener = filter.policy.needs_listener().then(|| ListenerMessage::new(process));
    let installed = process.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), flags, program.into()]);
    if let Some(listener) = &listener {
        installed.store_in(listener.fd);
    }
    // The programs let no call of the set-up through that does not carry it.
    process.carry_pass(if policy.bpf.is_empty() { filter.carrying.clone() } else { all_calls() });
    if let Some(listener) = listener {
        listener.send(process);
    }
}

/// Returns the calls of the set-up that carry the pass after these filters: a compiled policy, and programs of raw BPF.
/// `None` without a filter.
pub(crate) fn carrying(filter: Option<&Filter>, has_programs: bool) -> Option<Vec<u32>> {
    match filter {
        _ if has_programs => Some(all_calls()),
        filter => filter.map(|filter| filter.carrying.clone()),
    }
}

/// The message that sends the listener of a seccomp filter to the caller.
struct ListenerMessage {
    header: Ref,
    /// The slot for the number of the listener.
    fd: Slot,
}

impl ListenerMessage {
    fn new(process: &mut Script) -> Self {
        let tag = process.value("listening", LISTENING);
        let rights = Rights::new(process, "listener", &[0]);
        let data = process.arena.words(&[Script::slot_word(tag), Word::Value(8)], "{<listening>}");
        let header = header(process, data, 1, &rights, "{[<listener>]}".into());
        Self { header, fd: rights.first }
    }

    fn send(&self, process: &mut Script) {
        let report = process.input(Input::Report);
        let message: [Arg; 3] = [report.into(), self.header.into(), flags!(MSG_NOSIGNAL)];
        process.call(nr!(SYS_sendmsg), message);
    }
}
