//! Hosts with an unusual `/proc`.

use super::simulated::SimulatedHost;

#[apply(test)]
#[only(Root)]
fn a_missing_proc_is_named() {
    let words = "failed to use /proc: the caller's /proc is not a proc file system: run `mount -t proc proc /proc` in \
                 the caller's mount namespace";
    SimulatedHost::after("umount -l /proc").answers().assert_all(words);
    SimulatedHost::after("umount -l /proc").of_user().answers().assert_all(words);
}

const AS_USER: &str = "setpriv --reuid=1000 --regid=1000 --clear-groups";

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn a_read_only_proc_is_named() {
    let host = || SimulatedHost::with_root(&[], "mount -o remount,bind,ro proc");
    for host in [host(), host().by(AS_USER)] {
        host.answers().assert_all(
            "Read-only file system (EROFS): /proc, or a part of it, is mounted read-only: as root, run `mount -o \
             remount,rw /proc`, or start the container or the service with a writable /proc",
        );
    }
}

/// Finding H14.
#[apply(test)]
fn a_masked_proc_is_named() {
    SimulatedHost::after("mount --bind /dev/null /proc/uptime").answers().assert_all(
        "fsmount: Operation not permitted (EPERM): a part of /proc is covered (/proc/uptime), so the kernel denies a \
         new one",
    );
}

/// Finding H14: the processes of others are hidden.
#[apply(test)]
#[only(Root)]
fn processes_may_be_hidden() {
    SimulatedHost::after("mount -t proc -o hidepid=2 proc /proc").assert_works();
    SimulatedHost::after("mount -t proc -o hidepid=2 proc /proc; chown 1000:1000 /mnt/work").by(AS_USER).assert_works();
}
