//! The features that are probed.

use std::fmt::{self, Display, Formatter};

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident => $words:literal),+ $(,)?) => {
        /// A feature of the host that a sandbox may need.
        ///
        /// Its `Display` is [`name`](Self::name).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* $name),+
        }

        impl Feature {
            /// All features, in the order of the report.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the name of the feature in the report.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words),+
                }
            }
        }
    };
}

features! {
    /// The default sandbox as a whole ([`Sandbox::new`](crate::Sandbox::new)).
    Sandbox => "default sandbox",
    /// User namespaces (user_namespaces(7)).
    UserNamespace => "user namespace",
    /// ID maps with the caller's own user and group ID, written by the process itself.
    IdMaps => "id maps",
    /// Subordinate IDs from `/etc/subuid` and `/etc/subgid`: [`Identity::sub_ids`](crate::Identity::sub_ids).
    SubIds => "subordinate ids",
    /// Mount namespaces (mount_namespaces(7)). For an unprivileged caller ([`Identity`](crate::Identity)), these and
    /// all namespaces below are created inside a user namespace.
    MountNamespace => "mount namespace",
    /// PID namespaces (pid_namespaces(7)).
    PidNamespace => "pid namespace",
    /// Network namespaces (network_namespaces(7)).
    NetNamespace => "net namespace",
    /// IPC namespaces (ipc_namespaces(7)).
    IpcNamespace => "ipc namespace",
    /// UTS namespaces (uts_namespaces(7)).
    UtsNamespace => "uts namespace",
    /// Cgroup namespaces (cgroup_namespaces(7)).
    CgroupNamespace => "cgroup namespace",
    /// Time namespaces (time_namespaces(7)).
    TimeNamespace => "time namespace",
    /// Bringing up the loopback device of a new network namespace.
    Loopback => "loopback",
    /// A new tmpfs in a new mount namespace.
    Tmpfs => "tmpfs",
    /// A new overlay in a new mount namespace: [`Root::overlay`](crate::Root::overlay). Requires Linux 5.11 for an
    /// unprivileged caller ([`Identity`](crate::Identity)).
    Overlay => "overlay",
    /// A new `/proc` for a new PID namespace.
    Proc => "new /proc",
    /// mount_setattr(2). Without it, read-only binds are created by remounting. Requires Linux 5.12.
    MountSetattr => "mount_setattr",
    /// Idmapped mounts, by which a privileged caller's program can write to directories of the host. Requires Linux
    /// 5.12, and a privileged caller ([`Identity`](crate::Identity)).
    IdmappedMounts => "idmapped mounts",
    /// Changing the root (pivot_root(2)).
    PivotRoot => "pivot_root",
    /// The cgroup memory controller: limits on and statistics of memory.
    CgroupMemory => "cgroup memory",
    /// The cgroup cpu controller: limits on and shares of CPU time.
    CgroupCpu => "cgroup cpu",
    /// Statistics of CPU time: the cpuacct controller on v1, every cgroup on v2.
    CgroupCpuacct => "cgroup cpuacct",
    /// The cgroup cpuset controller: sets of CPUs and memory nodes.
    CgroupCpuset => "cgroup cpuset",
    /// The cgroup pids controller: limits on processes.
    CgroupPids => "cgroup pids",
    /// The cgroup io controller (`blkio` on v1): I/O of block devices.
    CgroupIo => "cgroup io",
    /// The cgroup hugetlb controller: limits on huge pages.
    CgroupHugetlb => "cgroup hugetlb",
    /// Stopping all processes of a cgroup: the freezer controller on v1, every cgroup on v2.
    CgroupFreezer => "cgroup freezer",
    /// Landlock (landlock(7)). Its version is [`Support::landlock_abi`](crate::probe::Support::landlock_abi). Requires
    /// Linux 5.13.
    Landlock => "landlock",
    /// Seccomp filters (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
    Seccomp => "seccomp filter",
    /// The seccomp action `SECCOMP_RET_ERRNO`.
    SeccompErrno => "seccomp errno",
    /// The seccomp action `SECCOMP_RET_KILL_PROCESS`.
    SeccompKillProcess => "seccomp kill",
    /// The seccomp action `SECCOMP_RET_LOG`.
    SeccompLog => "seccomp log",
    /// The seccomp action `SECCOMP_RET_USER_NOTIF` (seccomp_unotify(2)).
    SeccompNotify => "seccomp notify",
    /// Executing a file in memory (memfd_create(2)).
    Memfd => "memfd execution",
    /// clone3(2). Without it the crate uses clone(2).
    Clone3 => "clone3",
    /// pidfd_open(2), and `CLONE_PIDFD`.
    Pidfd => "pidfd",
    /// Closing ranges of descriptors (close_range(2)).
    CloseRange => "close_range",
    /// Resolving paths below a directory (openat2(2)).
    Openat2 => "openat2",
}

impl Display for Feature {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
