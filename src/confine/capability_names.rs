//! The names and numbers of capabilities. Which ones a program keeps is in `capabilities`.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

macro_rules! capabilities {
    ($($variant:ident = $name:literal: $what:literal;)+) => {
        /// A capability (capabilities(7)). Its `Display` and `FromStr` use the name, such as `CAP_NET_RAW`.
        ///
        /// ```
        /// use stockade::capabilities::Capability;
        ///
        /// assert_eq!(Capability::NetRaw.to_string(), "CAP_NET_RAW");
        /// assert_eq!("CAP_NET_RAW".parse(), Ok(Capability::NetRaw));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum Capability {
            $(
                #[doc = concat!("`", $name, "`: ", $what, ".")]
                #[cfg_attr(feature = "serde", serde(rename = $name))]
                $variant,
            )+
        }

        impl Capability {
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the names of all.
            #[cfg(feature = "config")]
            pub(crate) fn names() -> [&'static str; Self::ALL.len()] {
                [$($name),+]
            }

            /// Returns the name, such as `CAP_NET_RAW`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}
capabilities! {
    Chown = "CAP_CHOWN": "changes owners of files";
    DacOverride = "CAP_DAC_OVERRIDE": "reads, writes and executes files whatever their permissions";
    DacReadSearch = "CAP_DAC_READ_SEARCH": "reads files and directories whatever their permissions";
    Fowner = "CAP_FOWNER": "does what only the owner of a file may do";
    Fsetid = "CAP_FSETID": "keeps set-user-ID and set-group-ID bits of files that it changes";
    Kill = "CAP_KILL": "sends signals to any process";
    Setgid = "CAP_SETGID": "changes its group IDs";
    Setuid = "CAP_SETUID": "changes its user IDs";
    Setpcap = "CAP_SETPCAP": "changes its capability sets and securebits";
    LinuxImmutable = "CAP_LINUX_IMMUTABLE": "sets the immutable and append-only attributes of files";
    NetBindService = "CAP_NET_BIND_SERVICE": "binds ports below 1024";
    NetBroadcast = "CAP_NET_BROADCAST": "not used by the kernel";
    NetAdmin = "CAP_NET_ADMIN": "configures the network";
    NetRaw = "CAP_NET_RAW": "opens raw and packet sockets";
    IpcLock = "CAP_IPC_LOCK": "locks memory";
    IpcOwner = "CAP_IPC_OWNER": "uses System V IPC objects whatever their permissions";
    SysModule = "CAP_SYS_MODULE": "loads kernel modules";
    SysRawio = "CAP_SYS_RAWIO": "accesses I/O ports and raw devices";
    SysChroot = "CAP_SYS_CHROOT": "calls chroot(2), enters mount namespaces";
    SysPtrace = "CAP_SYS_PTRACE": "traces any process";
    SysPacct = "CAP_SYS_PACCT": "calls acct(2)";
    SysAdmin = "CAP_SYS_ADMIN": "mounts file systems, sets the host name, and performs other administration";
    SysBoot = "CAP_SYS_BOOT": "reboots";
    SysNice = "CAP_SYS_NICE": "changes priorities and scheduling";
    SysResource = "CAP_SYS_RESOURCE": "exceeds resource limits and quotas";
    SysTime = "CAP_SYS_TIME": "sets the clocks";
    SysTtyConfig = "CAP_SYS_TTY_CONFIG": "calls vhangup(2), configures terminals";
    Mknod = "CAP_MKNOD": "creates device nodes";
    Lease = "CAP_LEASE": "takes leases on any file";
    AuditWrite = "CAP_AUDIT_WRITE": "writes to the audit log";
    AuditControl = "CAP_AUDIT_CONTROL": "configures auditing";
    Setfcap = "CAP_SETFCAP": "sets capabilities of files, maps user ID 0";
    MacOverride = "CAP_MAC_OVERRIDE": "ignores mandatory access control";
    MacAdmin = "CAP_MAC_ADMIN": "configures mandatory access control";
    Syslog = "CAP_SYSLOG": "reads the kernel log";
    WakeAlarm = "CAP_WAKE_ALARM": "wakes the system by a timer";
    BlockSuspend = "CAP_BLOCK_SUSPEND": "prevents suspension";
    AuditRead = "CAP_AUDIT_READ": "reads the audit log by netlink";
    Perfmon = "CAP_PERFMON": "monitors performance";
    Bpf = "CAP_BPF": "uses bpf(2)";
    CheckpointRestore = "CAP_CHECKPOINT_RESTORE": "checkpoints and restores processes";
}

impl Capability {
    /// Returns its number in system calls.
    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    /// Returns its bit in a capability set.
    pub(crate) const fn bit(self) -> u64 {
        1 << self.number()
    }
}

impl Display for Capability {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a name that is not the name of a capability, which [`str::parse`] returns for a [`Capability`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a capability: the names are those of capabilities(7), such as CAP_NET_RAW")]
pub struct UnknownCapability(String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        let known = Self::ALL.iter().copied().find(|known| known.name() == name);
        known.ok_or_else(|| UnknownCapability(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for &capability in Capability::ALL {
            let known: caps::Capability = capability.name().parse().expect("a name that the kernel's headers have");
            assert_eq!(capability.number(), u32::from(known.index()), "{capability}");
        }
    }
}
