//! Hosts that deny namespaces or mounts: sysctls, security modules, and a chroot.

use super::simulated::SimulatedHost;
use crate::support::USER;

const NO_USER_NAMESPACES: &str = "No space left on device (ENOSPC): user.max_user_namespaces is 0: as root, run \
                                  `sysctl -w user.max_user_namespaces=15000`, and make it permanent in /etc/sysctl.d; \
                                  in a container do so on its host";

/// Finding H14.
#[apply(test)]
#[only(User)]
fn a_limit_of_no_user_namespaces_is_named() {
    let limit = "unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"' sh";
    SimulatedHost::after(":").by(limit).answers().assert_all(NO_USER_NAMESPACES);
}

/// A host on which the caller is root in a user namespace, and has all IDs in it.
fn in_user_namespace(unshare: &str, limit: u32) -> SimulatedHost {
    // A process is root there once it has executed another program.
    let scripts = format!(
        "mkfifo /mnt/mapped; echo 'read _ </mnt/mapped; exec sh -e /mnt/limit \"$@\"' >/mnt/wait
        echo 'echo {limit} >/proc/sys/user/max_user_namespaces; exec \"$@\"' >/mnt/limit"
    );
    let mapped = format!(
        "sh -ec '{unshare} sh -e /mnt/wait \"$@\" &
        for map in uid_map gid_map; do until echo 0 0 4294967295 >/proc/$!/$map; do sleep 0.01; done; done 2>/dev/null
        echo >/mnt/mapped; wait $!' sh"
    );
    SimulatedHost::after(&scripts).by(&mapped)
}

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn a_limit_of_no_user_namespaces_is_named_for_root() {
    in_user_namespace("unshare -Um", 0).answers().assert_all(NO_USER_NAMESPACES);
}

/// Finding H14: the tmpfs of the writable bind belongs to the outer user namespace.
#[apply(test)]
#[only(Root)]
fn a_mount_namespace_of_an_outer_user_namespace_is_named() {
    let not_mapped = ("writable bind", "the mount at /mnt, of type tmpfs, has no idmapped mounts");
    in_user_namespace("unshare -Um", 15000).answers().assert_all_but(&[not_mapped]);
    let words = "open_tree: Operation not permitted (EPERM): start the caller in a mount namespace that was created with \
                 its user namespace (unshare --user --mount): this one belongs to an outer user namespace";
    let others = ["agent", "build_step", "default", "doctor", "judge", "test"].map(|name| (name, words));
    in_user_namespace("unshare -U", 15000).answers().assert_all_but(&[&others[..], &[not_mapped]].concat());
}

/// Finding H14.
#[apply(test)]
#[only(Root)]
fn a_chroot_is_named() {
    let words = "Operation not permitted (EPERM): the kernel creates no user namespace in a chroot, and changes no \
                 root there: start the caller outside of it, or enter it by pivot_root";
    let as_user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups");
    for is_mount_point in [false, true] {
        SimulatedHost::in_chroot(is_mount_point).answers().assert_all(words);
    }
    SimulatedHost::in_chroot(false).by(&as_user).answers().assert_all(words);
    // What is outside belongs to root, so that the chroot cannot be told from other denials.
    SimulatedHost::in_chroot(true).by(&as_user).answers().assert_all(
        "Operation not permitted (EPERM): the kernel creates no user namespace in a chroot, and a security module \
         (SELinux, AppArmor, Smack) or a container denies it to this user: start the caller outside of a chroot, or \
         find the denial",
    );
}

/// A host whose sysctls of the kernel are others.
fn with_sysctl(name: &str, value: u32) -> SimulatedHost {
    SimulatedHost::after(&format!(
        "mkdir /mnt/kernel; for name in osrelease cap_last_cap overflowuid overflowgid; do
            [ ! -e /proc/sys/kernel/$name ] || cat /proc/sys/kernel/$name >/mnt/kernel/$name; done
        echo {value} >/mnt/kernel/{name}; mount --bind /mnt/kernel /proc/sys/kernel"
    ))
}

/// Finding H14: Ubuntu 24.04 creates the user namespace, and denies what follows with EACCES or EPERM.
#[apply(test)]
#[only(Root)]
fn the_restriction_of_ubuntu_is_named() {
    let words = "AppArmor denies capabilities in user namespaces to programs without a profile \
                 (kernel.apparmor_restrict_unprivileged_userns is 1): as root, run `echo 'abi <abi/4.0>, profile \
                 payload \"/mnt/payload\" flags=(unconfined) { userns, }' >/etc/apparmor.d/payload && apparmor_parser \
                 -r /etc/apparmor.d/payload`";
    for runtime in ["apparmor", "apparmor of Ubuntu"] {
        let by = format!(
            "setpriv --reuid={USER} --regid={USER} --clear-groups /mnt/payload --payload in_container '{runtime}'"
        );
        with_sysctl("apparmor_restrict_unprivileged_userns", 1).by(&by).answers().assert_all(words);
    }
}

/// Finding H14: the setting of Debian's kernels.
#[apply(test)]
#[only(Root)]
fn the_setting_of_debian_is_named() {
    let by = format!("setpriv --reuid={USER} --regid={USER} --clear-groups /mnt/payload --payload in_container docker");
    with_sysctl("unprivileged_userns_clone", 0).by(&by).answers().assert_all(
        "unshare: Operation not permitted (EPERM): as root, run `sysctl -w kernel.unprivileged_userns_clone=1`, and \
         make it permanent in /etc/sysctl.d",
    );
}
