//! Capabilities and what else a program could gain rights by: none in any set, and no way to more.

use crate::plan::{Arg, Program, Step, flags, nr};

/// The helper keeps what it has while it becomes the sandbox's user, also if it was root before.
pub(crate) fn keep_over_user_change(helper: &mut Program) {
    helper.step(Step::new("keeping the capabilities over the change of user"));
    helper.prctl(flags!(PR_SET_SECUREBITS), flags!(SECBIT_NO_SETUID_FIXUP));
}

/// Empties the bounding set and locks the securebits, which takes CAP_SETPCAP.
pub(crate) fn close_ways_to_more(helper: &mut Program, last: u32) {
    helper.step(Step::new("emptying the bounding set"));
    for capability in 0..=last {
        let drop = [flags!(PR_CAPBSET_DROP), capability.into(), Arg::NONE, Arg::NONE, Arg::NONE];
        helper.call(nr!(SYS_prctl), drop);
    }
    helper.step(Step::new("locking the securebits"));
    // Root has no capabilities by being root, changes of user ids change none, no ambient ones can be raised.
    let locked = flags!(
        SECBIT_NOROOT
            | SECBIT_NOROOT_LOCKED
            | SECBIT_NO_SETUID_FIXUP
            | SECBIT_NO_SETUID_FIXUP_LOCKED
            | SECBIT_KEEP_CAPS_LOCKED
            | SECBIT_NO_CAP_AMBIENT_RAISE
            | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
    );
    helper.prctl(flags!(PR_SET_SECUREBITS), locked);
}

/// Empties all other sets.
pub(crate) fn drop_all(helper: &mut Program) {
    helper.step(Step::new("dropping every capability"));
    let clear = [flags!(PR_CAP_AMBIENT), flags!(PR_CAP_AMBIENT_CLEAR_ALL), Arg::NONE, Arg::NONE, Arg::NONE];
    helper.call(nr!(SYS_prctl), clear);
    // struct __user_cap_header_struct {u32 version; int pid}
    let header = [0x2008_0522u32, 0].map(u32::to_ne_bytes);
    let header = helper.arena.bytes(header.as_flattened(), "{_LINUX_CAPABILITY_VERSION_3, 0}");
    let none = helper.arena.bytes(&[0; 24], "{effective = permitted = inheritable = 0}");
    helper.call(nr!(SYS_capset), [header.into(), none.into()]);
}

/// No execve(2) gives rights that this process has not (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub(crate) fn no_new_privs(helper: &mut Program) {
    helper.step(Step::new("giving up new privileges"));
    helper.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
}
