//! The table: the causes of failures, the rows that select them, and the hint for each.

use super::generic::errors_of;
use super::host_facts::{self, Container, HostFacts, KINDS};
use super::{Denial, Need};

/// Why the host denies a step, or a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A limit on the number of namespaces of one of these kinds (flags of clone(2)).
    Limit(u64),
    UsernsClone,
    /// The restriction of unprivileged user namespaces.
    AppArmor,
    /// The AppArmor profile of the caller.
    AppArmorProfile(String),
    SeLinux,
    /// A seccomp filter, such as that of a container runtime.
    Filter,
    Chroot,
    /// The mount namespace probably belongs to an outer user namespace.
    OuterMounts,
    /// A denial of a user namespace, by a chroot that cannot be seen, or by a security module.
    RefusedUserNamespace,
    /// Another denial, most likely by a security module.
    Refused,
    MaskedProc,
    ReadOnlyProc,
    /// The root is an initramfs.
    Initramfs,
    /// The file system does not support idmapped mounts.
    FileSystem,
    /// Only root can use it, and other users do not need it.
    RootOnly,
    /// The caller is root and may not map its own ID.
    LacksSetfcap,
    /// The caller lacks this capability, which the step needs outside of a user namespace.
    Lacks(&'static str),
    LandlockOff,
    MemfdNoexec,
    NoOverlay,
    /// The crate uses clone(2) instead of clone3(2).
    Substituted,
    /// The kernel needs this option or version.
    Kernel(String),
    Delegation,
    Undelegated,
    ReadOnlyCgroups,
    NoController,
    MovedToLeaf,
    CgroupLimit,
    /// Another failure of this call.
    Other(&'static str),
}

impl Cause {
    /// Returns the cause that explains a denial. The rows are in the order of their certainty.
    pub fn of(denial: Denial, host: &HostFacts) -> Option<Self> {
        let Denial { need, call, errno } = denial;
        let (errno, need) = (errno.number(), need?);
        let is_denied = matches!(errno, libc::EPERM | libc::EACCES);
        if need.is_of_mounts() && matches!(call, "openat" | "openat2" | "mkdirat" | "symlinkat" | "fchdir") {
            // A path is the cause.
            return None;
        }
        Some(match (need, errno) {
            (Need::Namespaces(kinds), libc::ENOSPC) => Self::Limit(kinds),
            // The kernel counts a mount that is not attached as a mount namespace.
            (need, libc::ENOSPC) if need.is_of_mounts() && matches!(call, "fsmount" | "open_tree") => {
                Self::Limit(libc::CLONE_NEWNS as u64)
            }
            (Need::Namespaces(kinds), libc::EPERM | libc::EACCES) if kinds & libc::CLONE_NEWUSER as u64 != 0 => {
                Self::of_refused_user_namespace(host, errno)
            }
            (Need::IdMaps, libc::EPERM) if host.lacks_setfcap => Self::LacksSetfcap,
            (Need::IdMaps | Need::ProcFiles, libc::EROFS) => Self::ReadOnlyProc,
            (Need::Landlock, libc::EOPNOTSUPP) => Self::LandlockOff,
            (Need::Memfd, libc::EACCES) if host.memfd_noexec == Some(2) => Self::MemfdNoexec,
            (Need::Mounts | Need::Pivot, libc::EINVAL) if host.chrooted => Self::Chroot,
            (Need::Pivot, libc::EINVAL) => Self::Initramfs,
            (Need::Overlay, libc::ENODEV) => Self::NoOverlay,
            // An older kernel denies it in a user namespace.
            (Need::Overlay, libc::EPERM) if host.kernel.is_some_and(|kernel| kernel < (5, 11)) => {
                Self::Kernel("CONFIG_OVERLAY_FS, since Linux 5.11".into())
            }
            (Need::IdmappedMount, libc::EPERM) if !host.privileged => Self::RootOnly,
            (Need::IdmappedMount, libc::EINVAL) => Self::FileSystem,
            // The kernel compares it with the mounts that exist when it is mounted.
            (Need::Proc, libc::EPERM) if call != "fsopen" && host.proc_covered_at.is_some() => Self::MaskedProc,
            (Need::Proc, libc::EPERM) if call != "fsopen" && host.proc_is_read_only => Self::ReadOnlyProc,
            (Need::Proc, libc::EPERM) if call != "fsopen" && !(host.apparmor() || host.filtered) => Self::MaskedProc,
            (Need::Cgroups, libc::EROFS) => Self::ReadOnlyCgroups,
            (Need::Cgroups, libc::EPERM | libc::EACCES) => Self::Delegation,
            (Need::Cgroups, libc::EAGAIN) => Self::CgroupLimit,
            (Need::Cgroups, _) => return None,
            (Need::Chroot, libc::EPERM) if !host.filtered => Self::Lacks("CAP_SYS_CHROOT"),
            (Need::Loopback, libc::EPERM) if !(host.apparmor() || host.filtered) => Self::Lacks("CAP_NET_ADMIN"),
            _ if is_denied && host.apparmor() && need.is_in_user_namespace() => Self::AppArmor,
            (_, libc::EACCES) if host.apparmor_profile.is_some() && need.is_in_user_namespace() => {
                Self::AppArmorProfile(host.apparmor_profile.clone().unwrap_or_default())
            }
            (_, libc::EACCES) if host.selinux && need.is_in_user_namespace() => Self::SeLinux,
            _ if is_denied && host.filtered => Self::Filter,
            // Only a caller that may mount calls it in its own mount namespace.
            (Need::Mounts, libc::EPERM) if call == "open_tree" && host.privileged && host.in_user_namespace => {
                Self::OuterMounts
            }
            (_, libc::ENOSYS) => Self::of_missing_call(call, host)?,
            (_, libc::ENODEV) => Self::Kernel(need.kernel_option()?),
            // The filter itself may be the cause.
            (Need::Filter, libc::EINVAL) => return None,
            (_, libc::EINVAL | libc::EOPNOTSUPP) if !need.is_of_mounts() => Self::Kernel(need.kernel_option()?),
            _ => return None,
        })
    }

    /// Returns a cause that is likely, for a denial that no row explains.
    pub fn likely(denial: Denial, host: &HostFacts) -> Option<Self> {
        match denial.errno.number() {
            libc::EPERM | libc::EACCES if denial.need.is_some() => Some(Self::Refused),
            libc::EPERM if host.apparmor() => Some(Self::AppArmor),
            libc::EPERM if host.filtered => Some(Self::Filter),
            libc::EPERM => Some(Self::Refused),
            libc::ENOSYS => Self::of_missing_call(denial.call, host),
            // A kernel that gave the caller a filter supports them.
            libc::EINVAL if denial.need == Some(Need::Filter) && host.filtered => Some(Self::Filter),
            libc::EINVAL if denial.need == Some(Need::Filter) => Need::Filter.kernel_option().map(Self::Kernel),
            _ => None,
        }
    }

    /// Returns the cause of a denial of unshare(2) itself. The most certain causes come first.
    fn of_refused_user_namespace(host: &HostFacts, errno: i32) -> Self {
        match &host.apparmor_profile {
            _ if host.userns_clone == Some(0) && !host.privileged => Self::UsernsClone,
            _ if host.chrooted => Self::Chroot,
            Some(profile) if errno == libc::EACCES => Self::AppArmorProfile(profile.clone()),
            _ if errno == libc::EACCES && host.selinux => Self::SeLinux,
            _ if host.filtered => Self::Filter,
            _ if host.apparmor() => Self::AppArmor,
            _ => Self::RefusedUserNamespace,
        }
    }

    /// Returns why the kernel seems to lack a call.
    fn of_missing_call(call: &str, host: &HostFacts) -> Option<Self> {
        if call == "clone3" {
            return Some(Self::Substituted);
        }
        let since = since(call);
        let is_old = since.zip(host.kernel).is_some_and(|(since, kernel)| kernel < since);
        match since {
            _ if host.filtered && !is_old => Some(Self::Filter),
            _ if call == "landlock_create_ruleset" => Need::Landlock.kernel_option().map(Self::Kernel),
            _ if call == "seccomp" => Need::Filter.kernel_option().map(Self::Kernel),
            Some((major, minor)) => Some(Self::Kernel(format!("Linux {major}.{minor}"))),
            None => None,
        }
    }

    /// Returns what to do about it.
    pub fn hint(&self, host: &HostFacts) -> String {
        match self {
            Self::Limit(kinds) => limits(*kinds, host),
            Self::UsernsClone => "as root, run `sysctl -w kernel.unprivileged_userns_clone=1`, and make it permanent in /etc/sysctl.d"
                .into(),
            Self::AppArmor => app_armor(host),
            Self::AppArmorProfile(profile) => format!(
                "the AppArmor profile {profile} of the caller denies it: allow mount, umount, pivot_root and userns in it, or {}",
                in_container(host, [
                    "run the container without it (docker run --security-opt apparmor=unconfined)",
                    "run the container without it (podman run --security-opt apparmor=unconfined)",
                    "run the container without it (securityContext.appArmorProfile, type Unconfined)",
                    "start the caller without it (in Docker --security-opt apparmor=unconfined, in Kubernetes \
                     securityContext.appArmorProfile)",
                ])
            ),
            Self::SeLinux => format!(
                "SELinux denies it: find the denial with `ausearch -m avc`, and allow it there, or {}",
                in_container(host, [
                    "run the container without labels (docker run --security-opt label=disable)",
                    "run the container without labels (podman run --security-opt label=disable)",
                    "run the container with another type (securityContext.seLinuxOptions)",
                    "run the caller in a domain that may do it",
                ])
            ),
            Self::Filter => in_container(host, [
                "a seccomp filter denies it, probably that of the container: run the container with a profile that allows it \
                 (docker run --security-opt seccomp=profile.json, or seccomp=unconfined for everything)",
                "a seccomp filter denies it, probably that of the container: run the container with a profile that allows it \
                 (podman run --security-opt seccomp=profile.json, or seccomp=unconfined for everything)",
                "a seccomp filter denies it, probably that of the container: run the container with a profile that allows it \
                 (securityContext.seccompProfile, or type Unconfined for everything)",
                "a seccomp filter denies it, probably that of a container runtime: run the container with a profile that \
                 allows it (docker run --security-opt seccomp=profile.json, or seccomp=unconfined for \
                 everything; in Kubernetes securityContext.seccompProfile), or the service without SystemCallFilter= and RestrictNamespaces=",
            ])
            .into(),
            Self::Chroot => "the kernel creates no user namespace in a chroot, and changes no root there: start the caller outside of \
                             it, or enter it by pivot_root"
                .into(),
            Self::OuterMounts => "start the caller in a mount namespace that was created with its user namespace (unshare \
                                  --user --mount): this one belongs to an outer user namespace, where the caller may \
                                  not mount"
                .into(),
            Self::RefusedUserNamespace => format!(
                "the kernel creates no user namespace in a chroot, and {}",
                Self::Refused.hint(host).replace("find", "start the caller outside of a chroot, or find")
            ),
            Self::Refused if !host.root => {
                "a security module (SELinux, AppArmor, Smack) or a container denies it to this user: find the denial in the kernel \
                 log (dmesg, the audit log) and allow it there, or run as root"
                    .into()
            }
            Self::Refused => format!(
                "a security module (SELinux, AppArmor, Smack) or a container denies it: find the denial in the kernel \
                 log (dmesg, the audit log) and allow it there{}",
                if host.privileged { "" } else { ", or give the caller CAP_SYS_ADMIN" }
            ),
            Self::MaskedProc => masked_proc(host),
            Self::ReadOnlyProc => {
                format!("/proc, or a part of it, is mounted read-only: {}", way_to_writable_proc_in(host.container))
            }
            Self::Initramfs => "the root is an initramfs, which pivot_root(2) does not support: do nothing if the \
                                sandbox has a user namespace, which then uses chroot(2); otherwise move to another \
                                root (switch_root)"
                .into(),
            Self::FileSystem => "this file system does not support idmapped mounts on this kernel (ext4 and xfs since Linux 5.12, btrfs 5.15, \
                                 tmpfs 6.3): bind writable directories from another one, or use Bind::unmapped"
                .into(),
            Self::RootOnly => {
                "do nothing: only root may create idmapped mounts, and the sandboxes of other users do not need \
                 them"
                    .into()
            }
            Self::LacksSetfcap => "give the caller CAP_SETFCAP, which the kernel requires to map host ID 0 into a user namespace (since Linux \
                                   5.12)"
                .into(),
            Self::Lacks(capability) => {
                format!("without a user namespace this needs {capability}: give it to the caller, or add Namespaces::USER")
            }
            Self::LandlockOff => landlock_off(host.modules.as_deref()),
            Self::MemfdNoexec => "as root, set vm.memfd_noexec to 0 or 1 (sysctl); until then the crate uses an unnamed file in TMPDIR, whose file \
                                  system must not be mounted noexec"
                .into(),
            Self::NoOverlay => "as root, load the module (modprobe overlay), or use a kernel with CONFIG_OVERLAY_FS".into(),
            Self::Substituted => "do nothing: the crate uses clone(2) instead".into(),
            Self::Kernel(needed) => format!("use a kernel with {needed}"),
            Self::Delegation => format!(
                "use a delegated scope (CgroupParent::SystemdScope, or start the caller with systemd-run --user --scope -p \
                 Delegate=yes), or choose a subtree that is delegated to this user (CgroupParent::Path){}",
                if host.root { "" } else { ", or run as root" }
            ),
            Self::Undelegated => "set Delegate=yes in that unit, or use a delegated scope (CgroupParent::SystemdScope, or start the caller with \
                                  systemd-run --scope -p Delegate=yes, for an ordinary user with --user)"
                .into(),
            Self::ReadOnlyCgroups => format!(
                "the cgroup file system is read-only: {}",
                in_container(host, [
                    "run the container with a writable one of its own (docker run --cgroupns=private --security-opt \
                     writable-cgroups=true since Docker 28, or --privileged)",
                    "run the container with a writable one of its own (podman run --security-opt unmask=/sys/fs/cgroup)",
                    "run the container with a writable one of its own (securityContext.privileged)",
                    "run the container with a writable one of its own (podman run --security-opt unmask=/sys/fs/cgroup, docker \
                     run --cgroupns=private --security-opt writable-cgroups=true since Docker 28, or --privileged), or mount one",
                ])
            ),
            Self::NoController => "mount a hierarchy with it, or enable it in cgroup.subtree_control of every cgroup above (systemd: Delegate=yes), on \
                                   a kernel that was built with it"
                .into(),
            Self::MovedToLeaf => "do nothing: the first sandbox that needs it moves the processes of the caller's \
                                  cgroup to a leaf of it; to avoid that, choose another parent (CgroupParent::Path)"
                .into(),
            Self::CgroupLimit => "remove cgroups, or raise cgroup.max.descendants and cgroup.max.depth of the cgroups above".into(),
            Self::Other(call) => errors_of(call),
        }
    }
}

/// Returns the words for the container that the caller is in: Docker's, Podman's, those of Kubernetes, or, where that is not
/// known, those for all.
fn in_container(host: &HostFacts, [docker, podman, kubernetes, all]: [&'static str; 4]) -> &'static str {
    match host.container {
        Some(Container::Docker) => docker,
        Some(Container::Podman) => podman,
        Some(Container::Kubernetes) => kubernetes,
        None => all,
    }
}

/// Returns how the caller gets a writable `/proc`.
pub(crate) fn way_to_writable_proc() -> &'static str {
    way_to_writable_proc_in(host_facts::container())
}

fn way_to_writable_proc_in(container: Option<Container>) -> &'static str {
    match container {
        Some(Container::Docker) => {
            "run the container with a writable /proc (docker run --security-opt systempaths=unconfined)"
        }
        Some(Container::Podman) => "run the container with a writable /proc (podman run --security-opt unmask=ALL)",
        Some(Container::Kubernetes) => "run the container with a writable /proc (securityContext.procMount: Unmasked)",
        None => {
            "as root, run `mount -o remount,rw /proc`, or start the container or the service with a writable /proc (docker \
             run --security-opt systempaths=unconfined, in Kubernetes securityContext.procMount: Unmasked, in systemd \
             ProtectKernelTunables=no)"
        }
    }
}

/// Returns how a container gives the caller capabilities.
pub(crate) fn way_to_capabilities(names: &[impl AsRef<str>]) -> String {
    way_to_capabilities_in(&names.iter().map(AsRef::as_ref).collect::<Vec<_>>(), host_facts::container())
}

fn way_to_capabilities_in(names: &[&str], container: Option<Container>) -> String {
    let names = names.iter().map(|name| name.trim_start_matches("CAP_"));
    let options = || names.clone().map(|name| format!("--cap-add {name}")).collect::<Vec<_>>().join(" ");
    match container {
        Some(Container::Podman) => format!("podman run {}", options()),
        Some(Container::Kubernetes) => {
            format!("securityContext.capabilities.add: [{}]", names.collect::<Vec<_>>().join(", "))
        }
        Some(Container::Docker) | None => format!("docker run {}", options()),
    }
}

fn masked_proc(host: &HostFacts) -> String {
    let place = host.proc_covered_at.as_ref().map(|point| format!(" ({})", point.display())).unwrap_or_default();
    let run = in_container(
        host,
        [
            "run the container with an unmasked /proc (docker run --security-opt systempaths=unconfined)",
            "run the container with an unmasked /proc (podman run --security-opt unmask=ALL)",
            "run the container with an unmasked /proc (securityContext.procMount: Unmasked)",
            "run the container with an unmasked /proc (docker run --security-opt systempaths=unconfined, in Kubernetes \
         securityContext.procMount: Unmasked)",
        ],
    );
    format!(
        "a part of /proc is covered{place}, so the kernel denies a new one (\"mount too revealing\"): {run}, or use no PID \
         namespace (Namespaces::PID)"
    )
}

/// Returns the hint for kinds of namespaces of which one is limited.
fn limits(kinds: u64, host: &HostFacts) -> String {
    let requested = KINDS.iter().filter(|(_, flag)| kinds & *flag as u64 != 0).map(|(kind, _)| *kind);
    let limits: Vec<(&str, Option<u64>)> = requested.map(|kind| (kind, host.limits.get(kind).copied())).collect();
    let name = |kind: &str| format!("user.max_{kind}_namespaces");
    let (names, now) = match (limits.iter().find(|(_, limit)| *limit == Some(0)), &limits[..]) {
        (Some((kind, _)), _) => (vec![name(kind)], format!("{} is 0", name(kind))),
        (None, [(kind, Some(limit))]) => {
            let now = format!("{} is {limit}, and this user or an outer user namespace is at its limit", name(kind));
            (vec![name(kind)], now)
        }
        (None, [(kind, None)]) => {
            (vec![name(kind)], format!("{} of this or an outer user namespace is exceeded", name(kind)))
        }
        (None, several) => {
            let names: Vec<String> = several.iter().map(|(kind, _)| name(kind)).collect();
            let now = format!("one of {} is exceeded, of this or of an outer user namespace", names.join(", "));
            (names, now)
        }
    };
    let set: Vec<String> = names.iter().map(|name| format!("{name}=15000")).collect();
    format!(
        "{now}: as root, run `sysctl -w {}`, and make it permanent in /etc/sysctl.d; in a container do so on its host",
        set.join(" ")
    )
}

/// Returns the command that gives this executable what AppArmor denies to programs without a profile.
fn app_armor(host: &HostFacts) -> String {
    // Other characters are patterns to AppArmor, or quotes to the shell.
    let is_plain = |path: &&str| path.chars().all(|letter| letter.is_alphanumeric() || "/._-+ ".contains(letter));
    let path =
        host.executable.as_ref().and_then(|path| path.to_str()).filter(is_plain).unwrap_or("/path/to/the/program");
    let name: String = path.rsplit('/').next().unwrap_or(path).chars().filter(|&letter| letter != ' ').collect();
    format!(
        "AppArmor denies capabilities in user namespaces to programs without a profile \
         (kernel.apparmor_restrict_unprivileged_userns is 1): as root, run `echo 'abi <abi/4.0>, profile {name} \"{path}\" \
         flags=(unconfined) {{ userns, }}' >/etc/apparmor.d/{name} && apparmor_parser -r /etc/apparmor.d/{name}`"
    )
}

fn landlock_off(modules: Option<&str>) -> String {
    let rest = modules.filter(|modules| !modules.is_empty()).map(|modules| format!(",{modules}")).unwrap_or_default();
    format!("Landlock is disabled at boot: add lsm=landlock{rest} to the kernel command line, or add it to CONFIG_LSM")
}

impl Need {
    fn is_of_mounts(self) -> bool {
        matches!(self, Self::Mounts | Self::Tmpfs | Self::Overlay | Self::Proc | Self::Pivot)
    }

    /// Returns whether it takes capabilities that an ordinary user has only in a user namespace.
    fn is_in_user_namespace(self) -> bool {
        match self {
            Self::Namespaces(_) | Self::IdMaps | Self::Chroot | Self::Loopback => true,
            other => other.is_of_mounts(),
        }
    }

    /// Returns the kernel option or version that it needs.
    fn kernel_option(self) -> Option<String> {
        Some(match self {
            Self::Namespaces(kinds) => {
                let chosen = KINDS.iter().filter(|(_, flag)| kinds & *flag as u64 != 0);
                let options: Vec<&str> = chosen.filter_map(|(kind, _)| namespace_option(kind)).collect();
                match &options[..] {
                    [] => return None,
                    options => options.join(", "),
                }
            }
            Self::Mounts => "this file system, or load its module".into(),
            Self::Tmpfs => "CONFIG_TMPFS, and Linux 5.2 for the mount interface".into(),
            Self::Overlay => "CONFIG_OVERLAY_FS, since Linux 5.11".into(),
            Self::Proc => "CONFIG_PROC_FS".into(),
            Self::Landlock => "CONFIG_SECURITY_LANDLOCK, since Linux 5.13".into(),
            Self::Filter => "CONFIG_SECCOMP_FILTER".into(),
            Self::Memfd => "CONFIG_MEMFD_CREATE".into(),
            _ => return None,
        })
    }
}

fn namespace_option(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "user" => "CONFIG_USER_NS",
        "pid" => "CONFIG_PID_NS",
        "net" => "CONFIG_NET_NS",
        "ipc" => "CONFIG_IPC_NS",
        "uts" => "CONFIG_UTS_NS",
        "cgroup" => "CONFIG_CGROUPS",
        "time" => "CONFIG_TIME_NS, since Linux 5.6",
        _ => return None,
    })
}

/// Returns the version of the kernel that has introduced a call.
fn since(call: &str) -> Option<(u32, u32)> {
    Some(match call {
        "open_tree" | "move_mount" | "fsopen" | "fsconfig" | "fsmount" | "pidfd_send_signal" => (5, 2),
        "pidfd_open" | "clone3" => (5, 3),
        "openat2" | "pidfd_getfd" => (5, 6),
        "close_range" => (5, 9),
        "mount_setattr" => (5, 12),
        "landlock_create_ruleset" | "landlock_add_rule" | "landlock_restrict_self" => (5, 13),
        "memfd_create" | "seccomp" => (3, 17),
        "execveat" => (3, 19),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::wording;
    use crate::unix::Errno;

    const USER: Need = Need::Namespaces(libc::CLONE_NEWUSER as u64);
    const NET: Need = Need::Namespaces(libc::CLONE_NEWNET as u64);

    fn host() -> HostFacts {
        HostFacts { kernel: Some((6, 12)), ..HostFacts::default() }
    }

    fn ubuntu() -> HostFacts {
        HostFacts { apparmor_restricts: Some(1), executable: Some("/opt/my judge/run".into()), ..host() }
    }

    fn filtered() -> HostFacts {
        HostFacts { filtered: true, ..host() }
    }

    fn denial(need: impl Into<Option<Need>>, call: &'static str, errno: i32) -> Denial {
        Denial { need: need.into(), call, errno: Errno::new(errno) }
    }

    #[track_caller]
    fn assert_row(need: Need, call: &'static str, errno: i32, host: &HostFacts, expected: Option<Cause>) {
        assert_eq!(Cause::of(denial(need, call, errno), host), expected, "{need:?} {call} {errno} {host:?}");
    }

    /// The guide has the words to search for, and what to copy.
    #[test]
    fn the_guide_quotes_the_hints() {
        let page = include_str!("../../docs/containers.md").split_whitespace().collect::<Vec<_>>().join(" ");
        let profile = Cause::AppArmorProfile("docker-default".into());
        let causes =
            [Cause::Filter, Cause::MaskedProc, Cause::ReadOnlyProc, profile, Cause::SeLinux, Cause::ReadOnlyCgroups];
        for container in [Container::Docker, Container::Podman, Container::Kubernetes] {
            let host = HostFacts { container: Some(container), ..host() };
            for hint in causes.iter().map(|cause| cause.hint(&host)) {
                let options = &hint[hint.find("run the container ").expect("what to add")..];
                let options = &options[..=options.find(')').expect("the options")];
                assert!(page.contains(options), "{container:?}: {options}");
            }
            let capabilities = way_to_capabilities_in(&["CAP_SYS_ADMIN"], Some(container));
            assert!(page.contains(&capabilities), "{capabilities}");
        }
        let host = HostFacts { executable: Some("/opt/judge/run".into()), ..ubuntu() };
        for hint in [Cause::AppArmor.hint(&host), Cause::UsernsClone.hint(&host)] {
            assert!(page.contains(&hint), "{hint}");
        }
        let profile = "abi <abi/4.0>, profile run \"/opt/judge/run\" flags=(unconfined) { userns, }";
        assert!(Cause::AppArmor.hint(&host).contains(profile) && page.matches(profile).count() == 2, "as a file too");
    }

    #[test]
    fn every_row_is_selected() {
        let with = |change: fn(&mut HostFacts)| {
            let mut host = host();
            change(&mut host);
            host
        };
        let root = with(|host| (host.root, host.privileged) = (true, true));
        let profile = with(|host| host.apparmor_profile = Some("docker-default".into()));
        let in_profile = || Some(Cause::AppArmorProfile("docker-default".into()));
        let selinux = with(|host| host.selinux = true);
        let chrooted = with(|host| host.chrooted = true);
        let masked = HostFacts { proc_covered_at: Some("/proc/keys".into()), ..filtered() };
        let old = |kernel| HostFacts { kernel: Some(kernel), ..host() };
        let kernel = |needed: &str| Some(Cause::Kernel(needed.into()));
        let rows = [
            (NET, "unshare", libc::ENOSPC, host(), Some(Cause::Limit(libc::CLONE_NEWNET as u64))),
            (Need::Tmpfs, "fsmount", libc::ENOSPC, host(), Some(Cause::Limit(libc::CLONE_NEWNS as u64))),
            (Need::Mounts, "open_tree", libc::ENOSPC, host(), Some(Cause::Limit(libc::CLONE_NEWNS as u64))),
            (Need::Mounts, "move_mount", libc::ENOSPC, host(), None),
            (USER, "unshare", libc::EPERM, with(|host| host.userns_clone = Some(0)), Some(Cause::UsernsClone)),
            (USER, "unshare", libc::EPERM, chrooted.clone(), Some(Cause::Chroot)),
            (USER, "unshare", libc::EACCES, profile.clone(), in_profile()),
            (USER, "unshare", libc::EACCES, selinux.clone(), Some(Cause::SeLinux)),
            (USER, "unshare", libc::EPERM, filtered(), Some(Cause::Filter)),
            (USER, "unshare", libc::EPERM, ubuntu(), Some(Cause::AppArmor)),
            (USER, "unshare", libc::EPERM, host(), Some(Cause::RefusedUserNamespace)),
            (USER, "unshare", libc::EINVAL, host(), kernel("CONFIG_USER_NS")),
            (NET, "unshare", libc::EPERM, filtered(), Some(Cause::Filter)),
            (Need::Proc, "fsopen", libc::EPERM, masked.clone(), Some(Cause::Filter)),
            (Need::Proc, "fsopen", libc::EPERM, host(), None),
            (
                Need::Mounts,
                "open_tree",
                libc::EPERM,
                with(|host| (host.privileged, host.in_user_namespace) = (true, true)),
                Some(Cause::OuterMounts),
            ),
            (Need::Mounts, "open_tree", libc::EPERM, with(|host| host.in_user_namespace = true), None),
            (Need::IdMaps, "write", libc::EPERM, with(|host| host.lacks_setfcap = true), Some(Cause::LacksSetfcap)),
            (Need::IdMaps, "openat", libc::EROFS, host(), Some(Cause::ReadOnlyProc)),
            (Need::IdMaps, "write", libc::EPERM, host(), None),
            (Need::ProcFiles, "openat", libc::EROFS, host(), Some(Cause::ReadOnlyProc)),
            (Need::Landlock, "landlock_create_ruleset", libc::EOPNOTSUPP, host(), Some(Cause::LandlockOff)),
            (Need::Landlock, "landlock_create_ruleset", libc::ENOSYS, filtered(), Some(Cause::Filter)),
            (
                Need::Landlock,
                "landlock_create_ruleset",
                libc::ENOSYS,
                host(),
                kernel("CONFIG_SECURITY_LANDLOCK, since Linux 5.13"),
            ),
            (
                Need::Memfd,
                "memfd_create",
                libc::EACCES,
                with(|host| host.memfd_noexec = Some(2)),
                Some(Cause::MemfdNoexec),
            ),
            (Need::Mounts, "mount", libc::EINVAL, chrooted.clone(), Some(Cause::Chroot)),
            (Need::Pivot, "pivot_root", libc::EINVAL, chrooted, Some(Cause::Chroot)),
            (Need::Pivot, "pivot_root", libc::EINVAL, root.clone(), Some(Cause::Initramfs)),
            (Need::Pivot, "pivot_root", libc::EPERM, filtered(), Some(Cause::Filter)),
            (Need::Overlay, "fsopen", libc::ENODEV, host(), Some(Cause::NoOverlay)),
            (Need::Overlay, "fsconfig", libc::EPERM, old((5, 10)), kernel("CONFIG_OVERLAY_FS, since Linux 5.11")),
            (Need::Overlay, "fsconfig", libc::EPERM, old((5, 11)), None),
            (Need::IdmappedMount, "open_tree", libc::EPERM, host(), Some(Cause::RootOnly)),
            (Need::IdmappedMount, "mount_setattr", libc::EINVAL, root.clone(), Some(Cause::FileSystem)),
            (Need::Proc, "fsmount", libc::EPERM, masked, Some(Cause::MaskedProc)),
            (Need::Proc, "fsmount", libc::EPERM, host(), Some(Cause::MaskedProc)),
            (Need::Proc, "fsmount", libc::EPERM, with(|host| host.proc_is_read_only = true), Some(Cause::ReadOnlyProc)),
            (Need::Proc, "fsmount", libc::EPERM, filtered(), Some(Cause::Filter)),
            (Need::Chroot, "chroot", libc::EPERM, host(), Some(Cause::Lacks("CAP_SYS_CHROOT"))),
            (Need::Loopback, "ioctl", libc::EPERM, host(), Some(Cause::Lacks("CAP_NET_ADMIN"))),
            (Need::Cgroups, "mkdir", libc::EROFS, filtered(), Some(Cause::ReadOnlyCgroups)),
            (Need::Cgroups, "mkdir", libc::EACCES, filtered(), Some(Cause::Delegation)),
            (Need::Cgroups, "mkdir", libc::EAGAIN, host(), Some(Cause::CgroupLimit)),
            (Need::Cgroups, "mkdir", libc::EINVAL, host(), None),
            (Need::Mounts, "mount", libc::EACCES, profile, in_profile()),
            (Need::Mounts, "move_mount", libc::EACCES, selinux, Some(Cause::SeLinux)),
            (Need::Mounts, "open_tree", libc::EPERM, filtered(), Some(Cause::Filter)),
            (Need::Mounts, "openat2", libc::EACCES, filtered(), None),
            (Need::Mounts, "mount_setattr", libc::ENOSYS, old((5, 10)), kernel("Linux 5.12")),
            (Need::Mounts, "mount_setattr", libc::ENOSYS, filtered(), Some(Cause::Filter)),
            (
                Need::Tmpfs,
                "fsopen",
                libc::ENODEV,
                host(),
                kernel("CONFIG_TMPFS, and Linux 5.2 for the mount interface"),
            ),
            (Need::Mounts, "mount_setattr", libc::EINVAL, host(), None),
            (Need::Mounts, "fsopen", libc::ENODEV, host(), kernel("this file system, or load its module")),
            (Need::Filter, "seccomp", libc::EOPNOTSUPP, host(), kernel("CONFIG_SECCOMP_FILTER")),
            (Need::Filter, "seccomp", libc::EINVAL, host(), None),
            (Need::Filter, "seccomp", libc::EPERM, filtered(), Some(Cause::Filter)),
        ];
        for (need, call, errno, host, expected) in rows {
            assert_row(need, call, errno, &host, expected);
        }
    }

    #[test]
    fn likely_causes_are_for_denials_that_no_row_explains() {
        let likely = |need, call, errno, host: &HostFacts| Cause::likely(denial(need, call, errno), host);
        assert_eq!(likely(None, "prctl", libc::EPERM, &filtered()), Some(Cause::Filter));
        assert_eq!(likely(None, "prctl", libc::EPERM, &ubuntu()), Some(Cause::AppArmor));
        assert_eq!(likely(None, "prctl", libc::EPERM, &host()), Some(Cause::Refused));
        assert_eq!(likely(Some(Need::Mounts), "mount", libc::EACCES, &host()), Some(Cause::Refused));
        // Most likely the permissions of a path.
        assert_eq!(likely(None, "openat", libc::EACCES, &filtered()), None);
        assert_eq!(likely(None, "openat2", libc::ENOSYS, &filtered()), Some(Cause::Filter));
        let without_filters = Some(Cause::Kernel("CONFIG_SECCOMP_FILTER".into()));
        assert_eq!(likely(Some(Need::Filter), "seccomp", libc::EINVAL, &host()), without_filters);
        assert_eq!(likely(Some(Need::Filter), "seccomp", libc::EINVAL, &filtered()), Some(Cause::Filter));
        let old = HostFacts { kernel: Some((5, 4)), ..filtered() };
        assert_eq!(likely(None, "openat2", libc::ENOSYS, &old), Some(Cause::Kernel("Linux 5.6".into())));
        assert_eq!(likely(None, "clone3", libc::ENOSYS, &filtered()), Some(Cause::Substituted));
    }

    #[test]
    fn apparmor_of_ubuntu_denies_what_follows_the_user_namespace() {
        for need in [Need::IdMaps, Need::Loopback, Need::Tmpfs, Need::Mounts, Need::Proc, NET] {
            assert_row(need, "mount", libc::EPERM, &ubuntu(), Some(Cause::AppArmor));
            assert_row(need, "mount", libc::EACCES, &ubuntu(), Some(Cause::AppArmor));
        }
        let expected = "AppArmor denies capabilities in user namespaces to programs without a profile \
                        (kernel.apparmor_restrict_unprivileged_userns is 1): as root, run `echo 'abi <abi/4.0>, profile run \
                        \"/opt/my judge/run\" flags=(unconfined) { userns, }' >/etc/apparmor.d/run && apparmor_parser -r \
                        /etc/apparmor.d/run`";
        assert_eq!(Cause::AppArmor.hint(&ubuntu()), expected);
        let strange = HostFacts { executable: Some("/opt/*'/run".into()), ..ubuntu() };
        assert!(Cause::AppArmor.hint(&strange).contains("profile program \"/path/to/the/program\" flags"));
        // Root keeps its capabilities, as does every user if the setting is off.
        assert_row(Need::Mounts, "mount", libc::EPERM, &HostFacts { privileged: true, ..ubuntu() }, None);
        assert_row(Need::IdMaps, "write", libc::EPERM, &HostFacts { apparmor_restricts: Some(0), ..ubuntu() }, None);
    }

    #[test]
    fn root_is_not_told_to_run_as_root() {
        let root = HostFacts { root: true, ..host() };
        let privileged = HostFacts { privileged: true, ..root.clone() };
        assert!(Cause::Refused.hint(&host()).ends_with(", or run as root"));
        assert!(Cause::Refused.hint(&root).ends_with(", or give the caller CAP_SYS_ADMIN"));
        assert!(Cause::Refused.hint(&privileged).ends_with("and allow it there"));
        assert!(Cause::Delegation.hint(&host()).ends_with(", or run as root"));
        assert!(!Cause::Delegation.hint(&root).contains("as root"));
    }

    #[test]
    fn a_hint_is_for_the_container_that_the_caller_is_in() {
        let hint = |cause: Cause, container| cause.hint(&HostFacts { container, ..host() });
        let profile = || Cause::AppArmorProfile("p".into());
        for cause in
            [Cause::Filter, profile(), Cause::SeLinux, Cause::MaskedProc, Cause::ReadOnlyProc, Cause::ReadOnlyCgroups]
        {
            let docker = hint(cause.clone(), Some(Container::Docker));
            assert!(
                docker.contains("docker run") && !docker.contains("podman") && !docker.contains("Kubernetes"),
                "{docker}"
            );
            let podman = hint(cause.clone(), Some(Container::Podman));
            assert!(podman.contains("podman run") && !podman.contains("docker"), "{podman}");
            let kubernetes = hint(cause, Some(Container::Kubernetes));
            assert!(kubernetes.contains("securityContext") && !kubernetes.contains(" run -"), "{kubernetes}");
        }
        assert!(hint(Cause::Filter, None).contains("Kubernetes"));
    }

    /// Every cause.
    fn causes() -> Vec<Cause> {
        use Cause::*;
        let several = (libc::CLONE_NEWNS | libc::CLONE_NEWNET) as u64;
        let causes = vec![
            Limit(libc::CLONE_NEWUSER as u64),
            Limit(several),
            UsernsClone,
            AppArmor,
            AppArmorProfile("p".into()),
            SeLinux,
            Filter,
            Chroot,
            OuterMounts,
            RefusedUserNamespace,
            Refused,
            MaskedProc,
            ReadOnlyProc,
            Initramfs,
            FileSystem,
            RootOnly,
            LacksSetfcap,
            Lacks("CAP_SYS_ADMIN"),
            LandlockOff,
            MemfdNoexec,
            NoOverlay,
            Substituted,
            Kernel("Linux 5.6".into()),
            Delegation,
            Undelegated,
            ReadOnlyCgroups,
            NoController,
            MovedToLeaf,
            CgroupLimit,
            Other("mount"),
        ];
        // A new cause is to be added above as well.
        match causes[0] {
            Limit(_) | UsernsClone | AppArmor | AppArmorProfile(_) | SeLinux | Filter | Chroot => causes,
            RefusedUserNamespace | Refused | MaskedProc | ReadOnlyProc | Initramfs | FileSystem => causes,
            RootOnly | LacksSetfcap | Lacks(_) | LandlockOff | MemfdNoexec | NoOverlay | Substituted => causes,
            Kernel(_) | Delegation | Undelegated | ReadOnlyCgroups | NoController | MovedToLeaf => causes,
            CgroupLimit | OuterMounts | Other(_) => causes,
        }
    }

    #[test]
    fn hints_of_the_table_are_instructions() {
        for container in [None, Some(Container::Docker), Some(Container::Podman), Some(Container::Kubernetes)] {
            for (root, privileged) in [(false, false), (true, false), (true, true)] {
                let host = HostFacts { root, privileged, container, ..host() };
                for cause in causes() {
                    let hint = cause.hint(&host);
                    assert!(wording::is_instruction(&hint), "{cause:?}: {hint}");
                }
            }
        }
    }

    #[test]
    fn capabilities_are_given_by_the_container() {
        let way = |container| way_to_capabilities_in(&["CAP_SYS_ADMIN", "CAP_KILL"], container);
        assert_eq!(way(None), "docker run --cap-add SYS_ADMIN --cap-add KILL");
        assert_eq!(way(Some(Container::Docker)), way(None));
        assert_eq!(way(Some(Container::Podman)), "podman run --cap-add SYS_ADMIN --cap-add KILL");
        assert_eq!(way(Some(Container::Kubernetes)), "securityContext.capabilities.add: [SYS_ADMIN, KILL]");
    }

    #[test]
    fn a_limit_is_reported_with_its_value() {
        let host = HostFacts { limits: [("user", 0), ("net", 7)].into(), ..host() };
        let hint = |kinds: i32| Cause::Limit(kinds as u64).hint(&host);
        assert!(
            hint(libc::CLONE_NEWUSER)
                .starts_with("user.max_user_namespaces is 0: as root, run `sysctl -w user.max_user_n")
        );
        assert!(hint(libc::CLONE_NEWNET).starts_with("user.max_net_namespaces is 7, and"));
        assert!(hint(libc::CLONE_NEWPID).starts_with("user.max_pid_namespaces of this or"));
        // Of several the one that is 0 is certain.
        assert!(hint(libc::CLONE_NEWUSER | libc::CLONE_NEWNET).starts_with("user.max_user_namespaces is 0: "));
        let several = hint(libc::CLONE_NEWNS | libc::CLONE_NEWNET);
        assert!(
            several.starts_with("one of user.max_mnt_namespaces, user.max_net_namespaces is exceeded"),
            "{several}"
        );
        assert!(
            several.contains("`sysctl -w user.max_mnt_namespaces=15000 user.max_net_namespaces=15000`"),
            "{several}"
        );
    }

    #[test]
    fn landlock_is_added_to_the_active_modules() {
        let host = HostFacts { modules: Some("lockdown,yama,apparmor".into()), ..host() };
        assert!(Cause::LandlockOff.hint(&host).contains("add lsm=landlock,lockdown,yama,apparmor to"));
        assert!(Cause::LandlockOff.hint(&HostFacts::default()).contains("add lsm=landlock to"));
    }

    #[test]
    fn what_covers_proc_is_named() {
        let host = HostFacts { proc_covered_at: Some("/proc/kcore".into()), ..host() };
        assert!(
            Cause::MaskedProc.hint(&host).starts_with("a part of /proc is covered (/proc/kcore), so the kernel denies")
        );
    }
}
