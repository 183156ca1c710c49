//! Why something failed, and what a person can do about it: the one table of remedies.

use super::Feature;
use super::signs::Signs;
use super::trials::Failure;

/// Why something can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A limit on namespaces of a kind.
    Limit(&'static str),
    UsernsClone,
    AppArmor,
    /// A filter of system calls, as container runtimes set one.
    Filter,
    Chroot,
    /// Something else that refuses, most likely a security module.
    Refused,
    MaskedProc,
    /// The root is an initramfs.
    Initramfs,
    /// The file system has no idmapped mounts.
    FileSystem,
    /// Root alone can have it, and others do not need it.
    RootsOwn,
    /// The caller may not map its own ID, which is the host's root.
    LacksSetfcap,
    LandlockOff,
    MemfdNoexec,
    NoOverlay,
    /// clone(2) stands in for clone3(2).
    StoodIn,
    /// Built with this option, or since this version.
    Kernel(&'static str),
    Delegation,
    Undelegated,
    ReadOnlyCgroups,
    NoController,
    MovedToLeaf,
    CgroupLimit,
    Other,
}

impl Cause {
    /// By what failed, and what the host says of itself.
    pub fn of(feature: Feature, failure: &Failure, signs: &Signs) -> Self {
        let errno = failure.errno.0;
        if let (Some(kind), libc::ENOSPC) = (kind(feature), errno) {
            return Self::Limit(kind);
        }
        match (feature, errno) {
            (Feature::UserNamespace, libc::EPERM | libc::EACCES) => Self::of_refused_user_namespace(signs),
            (Feature::IdMaps, libc::EPERM) if signs.lacks_setfcap => Self::LacksSetfcap,
            (Feature::Clone3, _) => Self::StoodIn,
            (Feature::Landlock, libc::EOPNOTSUPP) => Self::LandlockOff,
            (Feature::Memfd, libc::EACCES) if signs.memfd_noexec == Some(2) => Self::MemfdNoexec,
            (Feature::PivotRoot, libc::EINVAL) => Self::Initramfs,
            (Feature::Overlay, libc::ENODEV) => Self::NoOverlay,
            // In a user namespace it is refused, not unknown.
            (Feature::Overlay, libc::EPERM) if signs.kernel.is_some_and(|kernel| kernel < (5, 11)) => {
                kernel(feature).map_or(Self::Other, Self::Kernel)
            }
            (Feature::IdmappedMounts, libc::EPERM) if !signs.privileged => Self::RootsOwn,
            (Feature::IdmappedMounts, libc::EINVAL) => Self::FileSystem,
            (Feature::Proc, libc::EPERM) if signs.proc_is_covered || !(signs.apparmor() || signs.filtered) => {
                Self::MaskedProc
            }
            (_, libc::EPERM | libc::EACCES) if signs.apparmor() && in_user_namespace(feature) => Self::AppArmor,
            (_, libc::EPERM | libc::EACCES | libc::ENOSYS) if signs.filtered => Self::Filter,
            (_, libc::EPERM | libc::EACCES) => Self::Refused,
            (_, libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::ENODEV) => {
                kernel(feature).map_or(Self::Other, Self::Kernel)
            }
            _ => Self::Other,
        }
    }

    /// A refusal of unshare(2) itself: what is certain comes first.
    fn of_refused_user_namespace(signs: &Signs) -> Self {
        if signs.userns_clone == Some(0) && !signs.privileged {
            Self::UsernsClone
        } else if signs.chrooted {
            Self::Chroot
        } else if signs.filtered {
            Self::Filter
        } else if signs.apparmor() {
            Self::AppArmor
        } else {
            Self::Refused
        }
    }

    /// What to do.
    pub fn remedy(&self, signs: &Signs) -> String {
        match *self {
            Self::Limit(kind) => limit(kind, signs.limits.get(kind).copied()),
            Self::UsernsClone => "as root, run `sysctl -w kernel.unprivileged_userns_clone=1`, and keep it in \
                                  /etc/sysctl.d"
                .into(),
            Self::AppArmor => app_armor(signs),
            Self::Filter => "a filter of system calls (seccomp) forbids it, as container runtimes set one: run the \
                             container with a profile that allows it (docker run --security-opt \
                             seccomp=profile.json, where seccomp=unconfined allows everything; in Kubernetes \
                             securityContext.seccompProfile)"
                .into(),
            Self::Chroot => "the kernel makes no user namespace in a chroot: leave it, or enter it by pivot_root".into(),
            Self::Refused => "a security module (SELinux, AppArmor, Smack) or what surrounds this host forbids it to \
                              this user: the kernel's log (dmesg, the audit log) names it; allow it there, or run as root"
                .into(),
            Self::MaskedProc => "a part of /proc is covered, so the kernel refuses a new one (\"mount too revealing\"): \
                                 run the container with an unmasked /proc (docker run --security-opt \
                                 systempaths=unconfined, in Kubernetes securityContext.procMount: Unmasked), or leave \
                                 Namespaces::PID out and share the container's processes"
                .into(),
            Self::Initramfs => "the root is an initramfs, which can't be pivoted from: a sandbox with a user namespace \
                                changes its root by chroot instead; move to another root (switch_root) to do without"
                .into(),
            Self::FileSystem => "this file system has no idmapped mounts on this kernel (ext4 and xfs since Linux 5.12, \
                                 btrfs 5.15, tmpfs 6.3): bind writable directories from another one, or \
                                 say Bind::unmapped"
                .into(),
            Self::RootsOwn => "nothing: root alone may map the mounts of this host, and the sandboxes of other users, who \
                               keep their ids inside, need none"
                .into(),
            Self::LacksSetfcap => "give the caller CAP_SETFCAP, without which the kernel maps host ID 0 into no user \
                                   namespace (since Linux 5.12)"
                .into(),
            Self::LandlockOff => landlock_off(signs.modules.as_deref()),
            Self::MemfdNoexec => "as root, set vm.memfd_noexec to 0 or 1 (sysctl); until then a file without a name in \
                                  TMPDIR stands in, whose file system must let programs be executed"
                .into(),
            Self::NoOverlay => "as root, load the module (modprobe overlay), or use a kernel with CONFIG_OVERLAY_FS".into(),
            Self::StoodIn => "nothing: clone(2) stands in for it".into(),
            Self::Kernel(needed) => format!("use a kernel with it: {needed}"),
            Self::Delegation => "have a subtree delegated to this user and name it (CgroupParent::Path), run the host in a \
                                 scope of its own (systemd-run --user --scope -p Delegate=yes), or run as root"
                .into(),
            Self::Undelegated => "set Delegate=yes in it, use a scope of the process's own (CgroupParent::SystemdScope), or start \
                                  the process in one (systemd-run --scope -p Delegate=yes, for an ordinary user with --user)"
                .into(),
            Self::ReadOnlyCgroups => "the cgroup file system is read-only here: run the container with a writable one of \
                                      its own (podman run --security-opt unmask=/sys/fs/cgroup, docker run --privileged \
                                      --cgroupns=private), or mount one"
                .into(),
            Self::NoController => "mount a hierarchy that has it, or enable it in the cgroup.subtree_control of every \
                                   cgroup above (systemd: Delegate=yes), on a kernel that was built with it"
                .into(),
            Self::MovedToLeaf => "nothing: the first sandbox that needs it moves the processes of this host's cgroup to a \
                                  leaf of it; to avoid that, name another parent (CgroupParent::Path)"
                .into(),
            Self::CgroupLimit => "remove cgroups, or raise cgroup.max.descendants and cgroup.max.depth above".into(),
            Self::Other => "see the manual page of the call for what the error means".into(),
        }
    }
}

fn limit(kind: &str, value: Option<u64>) -> String {
    let name = format!("user.max_{kind}_namespaces");
    let now = match value {
        Some(0) => format!("{name} is 0"),
        Some(value) => {
            format!("{name} is {value} here, and this user or a user namespace around this one is at its limit")
        }
        None => format!("{name}, or its like in a user namespace around this one, is reached"),
    };
    format!(
        "{now}: as root, run `sysctl -w {name}=15000`, and keep it in /etc/sysctl.d; in a container do so on its host"
    )
}

/// The profile that gives this executable what the host's AppArmor takes from every other.
fn app_armor(signs: &Signs) -> String {
    let path = signs.executable.as_ref().map_or("/path/to/the/program".into(), |path| path.display().to_string());
    let name: String = path.rsplit('/').next().unwrap_or(&path).chars().filter(|c| !c.is_whitespace()).collect();
    let path = if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path };
    format!(
        "AppArmor takes the rights in user namespaces from programs without a profile \
         (kernel.apparmor_restrict_unprivileged_userns is 1): as root, write this to /etc/apparmor.d/{name} and run \
         `apparmor_parser -r /etc/apparmor.d/{name}`\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         profile {name} {path} flags=(unconfined) {{\n\
         \x20 userns,\n\
         \x20 include if exists <local/{name}>\n\
         }}"
    )
}

fn landlock_off(modules: Option<&str>) -> String {
    let rest = modules.filter(|modules| !modules.is_empty()).map(|modules| format!(",{modules}")).unwrap_or_default();
    format!("Landlock was not enabled at boot: add lsm=landlock{rest} to the kernel's command line, or to CONFIG_LSM")
}

/// The kind of namespace, as sysctls name it, if a feature is one.
fn kind(feature: Feature) -> Option<&'static str> {
    Some(match feature {
        Feature::UserNamespace => "user",
        Feature::MountNamespace => "mnt",
        Feature::PidNamespace => "pid",
        Feature::NetNamespace => "net",
        Feature::IpcNamespace => "ipc",
        Feature::UtsNamespace => "uts",
        Feature::CgroupNamespace => "cgroup",
        Feature::TimeNamespace => "time",
        _ => return None,
    })
}

/// Whether it takes rights that an ordinary user has in a user namespace alone.
fn in_user_namespace(feature: Feature) -> bool {
    kind(feature).is_some()
        || matches!(
            feature,
            Feature::IdMaps
                | Feature::Loopback
                | Feature::Tmpfs
                | Feature::Overlay
                | Feature::Proc
                | Feature::MountSetattr
                | Feature::PivotRoot
        )
}

/// What a kernel must have been built with, or since when it has something.
fn kernel(feature: Feature) -> Option<&'static str> {
    Some(match feature {
        Feature::UserNamespace => "CONFIG_USER_NS",
        Feature::PidNamespace => "CONFIG_PID_NS",
        Feature::NetNamespace => "CONFIG_NET_NS",
        Feature::IpcNamespace => "CONFIG_IPC_NS",
        Feature::UtsNamespace => "CONFIG_UTS_NS",
        Feature::CgroupNamespace => "CONFIG_CGROUPS",
        Feature::TimeNamespace => "CONFIG_TIME_NS, since Linux 5.6",
        Feature::Tmpfs => "CONFIG_TMPFS, and the calls of the mount interface since Linux 5.2",
        Feature::Overlay => "CONFIG_OVERLAY_FS, since Linux 5.11",
        Feature::Proc => "CONFIG_PROC_FS",
        Feature::MountSetattr | Feature::IdmappedMounts => "Linux 5.12",
        Feature::Landlock => "CONFIG_SECURITY_LANDLOCK, since Linux 5.13",
        Feature::Seccomp
        | Feature::SeccompErrno
        | Feature::SeccompKillProcess
        | Feature::SeccompLog
        | Feature::SeccompNotify => "CONFIG_SECCOMP_FILTER",
        Feature::Memfd => "CONFIG_MEMFD_CREATE",
        Feature::Pidfd => "Linux 5.3",
        Feature::Openat2 => "Linux 5.6",
        Feature::CloseRange => "Linux 5.9",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Errno;

    fn cause(feature: Feature, errno: i32, signs: &Signs) -> Cause {
        Cause::of(feature, &Failure { step: String::new(), call: "unshare", errno: Errno(errno) }, signs)
    }

    #[test]
    fn ubuntus_apparmor_lets_the_namespace_be_made_and_refuses_what_comes_then() {
        let signs =
            Signs { apparmor_restricts: Some(1), executable: Some("/opt/my judge/run".into()), ..Signs::default() };
        for feature in [Feature::IdMaps, Feature::Loopback, Feature::Tmpfs, Feature::MountNamespace, Feature::Proc] {
            assert_eq!(cause(feature, libc::EPERM, &signs), Cause::AppArmor, "{feature}");
            assert_eq!(cause(feature, libc::EACCES, &signs), Cause::AppArmor, "{feature}");
        }
        let expected = "AppArmor takes the rights in user namespaces from programs without a profile \
                        (kernel.apparmor_restrict_unprivileged_userns is 1): as root, write this to \
                        /etc/apparmor.d/run and run `apparmor_parser -r /etc/apparmor.d/run`
abi <abi/4.0>,
include <tunables/global>
profile run \"/opt/my judge/run\" flags=(unconfined) {
  userns,
  include if exists <local/run>
}";
        assert_eq!(Cause::AppArmor.remedy(&signs), expected);
        // Root keeps its rights, and so does everybody whom the setting does not restrict.
        let root = Signs { privileged: true, ..signs.clone() };
        assert_eq!(cause(Feature::Tmpfs, libc::EPERM, &root), Cause::Refused);
        let unrestricted = Signs { apparmor_restricts: Some(0), ..signs };
        assert_eq!(cause(Feature::IdMaps, libc::EPERM, &unrestricted), Cause::Refused);
    }

    #[test]
    fn a_refused_user_namespace_is_told_by_its_surest_sign() {
        let user = |signs: &Signs| cause(Feature::UserNamespace, libc::EPERM, signs);
        assert_eq!(user(&Signs::default()), Cause::Refused);
        assert_eq!(user(&Signs { userns_clone: Some(0), filtered: true, ..Signs::default() }), Cause::UsernsClone);
        assert_eq!(user(&Signs { userns_clone: Some(1), filtered: true, ..Signs::default() }), Cause::Filter);
        assert_eq!(user(&Signs { chrooted: true, filtered: true, ..Signs::default() }), Cause::Chroot);
        assert_eq!(cause(Feature::UserNamespace, libc::EINVAL, &Signs::default()), Cause::Kernel("CONFIG_USER_NS"));
        assert!(Cause::UsernsClone.remedy(&Signs::default()).contains("kernel.unprivileged_userns_clone=1"));
    }

    #[test]
    fn a_limit_is_told_with_what_it_is() {
        let signs = Signs { limits: [("user", 0), ("net", 7)].into(), ..Signs::default() };
        assert_eq!(cause(Feature::NetNamespace, libc::ENOSPC, &signs), Cause::Limit("net"));
        assert!(Cause::Limit("user").remedy(&signs).starts_with("user.max_user_namespaces is 0: as root, run `sysctl"));
        assert!(Cause::Limit("net").remedy(&signs).starts_with("user.max_net_namespaces is 7 here, and"));
        assert!(Cause::Limit("pid").remedy(&signs).starts_with("user.max_pid_namespaces, or its like"));
    }

    #[test]
    fn an_overlay_that_an_old_kernel_refuses_takes_a_newer_one() {
        let since = |kernel| cause(Feature::Overlay, libc::EPERM, &Signs { kernel: Some(kernel), ..Signs::default() });
        assert_eq!(since((5, 10)), Cause::Kernel("CONFIG_OVERLAY_FS, since Linux 5.11"));
        assert_eq!(since((5, 11)), Cause::Refused);
    }

    #[test]
    fn landlock_is_enabled_beside_what_there_is() {
        assert_eq!(cause(Feature::Landlock, libc::EOPNOTSUPP, &Signs::default()), Cause::LandlockOff);
        let signs = Signs { modules: Some("lockdown,yama,apparmor".into()), ..Signs::default() };
        assert!(Cause::LandlockOff.remedy(&signs).contains("add lsm=landlock,lockdown,yama,apparmor to"));
        assert!(Cause::LandlockOff.remedy(&Signs::default()).contains("add lsm=landlock to"));
        let old = cause(Feature::Landlock, libc::ENOSYS, &Signs::default());
        assert_eq!(old.remedy(&signs), "use a kernel with it: CONFIG_SECURITY_LANDLOCK, since Linux 5.13");
    }

    #[test]
    fn what_a_container_refuses_is_its_filters_or_its_masks() {
        let signs = Signs { filtered: true, ..Signs::default() };
        assert_eq!(cause(Feature::PivotRoot, libc::EPERM, &signs), Cause::Filter);
        assert_eq!(cause(Feature::Openat2, libc::ENOSYS, &signs), Cause::Filter);
        assert_eq!(cause(Feature::Openat2, libc::ENOSYS, &Signs::default()), Cause::Kernel("Linux 5.6"));
        let masked = Signs { proc_is_covered: true, ..signs };
        assert_eq!(cause(Feature::Proc, libc::EPERM, &masked), Cause::MaskedProc);
    }
}
