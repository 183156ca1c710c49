//! What is looked for.

use std::fmt::{self, Display, Formatter};

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident => $words:literal),+ $(,)?) => {
        /// Something that a sandbox may need of the host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* $name),+
        }

        impl Feature {
            /// All of them, in the order of the report.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What it is called in the report.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words),+
                }
            }
        }
    };
}

features! {
    /// The default sandbox, [`Sandbox::new`](crate::Sandbox::new): made as a whole.
    Sandbox => "default sandbox",
    /// user_namespaces(7).
    UserNamespace => "user namespace",
    /// The map of this user's own id, written by the process itself.
    IdMaps => "id maps",
    /// The ranges of `/etc/subuid` and `/etc/subgid`: [`Identity::sub_ids`](crate::Identity::sub_ids).
    SubIds => "sub-ids",
    /// mount_namespaces(7). Whoever is not root makes this and the other kinds inside a user namespace.
    MountNamespace => "mount namespace",
    /// pid_namespaces(7).
    PidNamespace => "pid namespace",
    /// network_namespaces(7).
    NetNamespace => "net namespace",
    /// ipc_namespaces(7).
    IpcNamespace => "ipc namespace",
    /// uts_namespaces(7).
    UtsNamespace => "uts namespace",
    /// cgroup_namespaces(7).
    CgroupNamespace => "cgroup namespace",
    /// time_namespaces(7).
    TimeNamespace => "time namespace",
    /// The loopback device of a new net namespace, up.
    Loopback => "loopback",
    /// A file system in memory, made and mounted in a mount namespace of its own.
    Tmpfs => "tmpfs",
    /// An overlay on that: [`Root::overlay`](crate::Root::overlay).
    Overlay => "overlay",
    /// A new `/proc` of a new pid namespace.
    Proc => "new /proc",
    /// mount_setattr(2), without which read-only binds are made by remounts.
    MountSetattr => "mount_setattr",
    /// Mounts that show other owners than the disk has, by which a root host's sandbox writes to the host's directories.
    IdmappedMounts => "idmapped mounts",
    /// pivot_root(2).
    PivotRoot => "pivot_root",
    /// A cgroup with the memory controller; likewise the others.
    CgroupMemory => "cgroup memory",
    /// CPU time that is limited and shared.
    CgroupCpu => "cgroup cpu",
    /// CPU time that is counted.
    CgroupCpuacct => "cgroup cpuacct",
    /// CPUs and memory nodes.
    CgroupCpuset => "cgroup cpuset",
    /// Processes.
    CgroupPids => "cgroup pids",
    /// Input and output of block devices, `blkio` on v1.
    CgroupIo => "cgroup io",
    /// Huge pages.
    CgroupHugetlb => "cgroup hugetlb",
    /// Stopping all processes of a group.
    CgroupFreezer => "cgroup freezer",
    /// landlock(7): see [`Support::landlock_abi`](crate::Support::landlock_abi).
    Landlock => "landlock",
    /// A filter of system calls (seccomp(2), `SECCOMP_SET_MODE_FILTER`).
    Seccomp => "seccomp filter",
    /// Its action `SECCOMP_RET_ERRNO`.
    SeccompErrno => "seccomp errno",
    /// `SECCOMP_RET_KILL_PROCESS`.
    SeccompKillProcess => "seccomp kill",
    /// `SECCOMP_RET_LOG`.
    SeccompLog => "seccomp log",
    /// `SECCOMP_RET_USER_NOTIF`.
    SeccompNotify => "seccomp notify",
    /// A file in memory that may be executed (memfd_create(2)).
    Memfd => "memfd execution",
    /// clone3(2), for which clone(2) stands in.
    Clone3 => "clone3",
    /// pidfd_open(2), and the pidfd of a clone (`CLONE_PIDFD`).
    Pidfd => "pidfd",
    /// close_range(2).
    CloseRange => "close_range",
    /// openat2(2).
    Openat2 => "openat2",
}

impl Display for Feature {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
