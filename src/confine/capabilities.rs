//! Capabilities and what else a program could gain rights by: none in any set, and no way to more.

use caps::Capability;

use crate::plan::{Arg, Program, Step, flags, header_bytes, nr};

/// What the init does its work with: names, mounts, owners of its own files, the loopback, its user.
pub(crate) const OF_THE_INIT: u64 = bit(Capability::CAP_CHOWN)
    | bit(Capability::CAP_DAC_OVERRIDE)
    | bit(Capability::CAP_FOWNER)
    | bit(Capability::CAP_SETGID)
    | bit(Capability::CAP_SETUID)
    | bit(Capability::CAP_SETPCAP)
    | bit(Capability::CAP_NET_ADMIN)
    | bit(Capability::CAP_SYS_CHROOT)
    | bit(Capability::CAP_SYS_RESOURCE)
    | bit(Capability::CAP_SYS_ADMIN);

const fn bit(capability: Capability) -> u64 {
    1 << capability as u8
}

/// The init keeps what it has while it becomes the sandbox's user, also if it was root before.
pub(crate) fn keep_over_user_change(init: &mut Program) {
    init.step(Step::new("keeping the capabilities over the change of user"));
    init.prctl(flags!(PR_SET_SECUREBITS), flags!(SECBIT_NO_SETUID_FIXUP));
}

/// Empties the bounding set and locks the securebits. It takes CAP_SETPCAP, so it comes before the ids change.
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
    let header = helper.arena.bytes(&header_bytes(), "{_LINUX_CAPABILITY_VERSION_3, 0}");
    let none = helper.arena.bytes(&[0; 24], "{effective = permitted = inheritable = 0}");
    helper.call(nr!(SYS_capset), [header.into(), none.into()]);
}

/// No execve(2) gives rights that this process has not (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub(crate) fn no_new_privs(helper: &mut Program) {
    helper.step(Step::new("giving up new privileges"));
    helper.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
}
