//! Settings of the host that tell why something was refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use caps::{CapSet, Capability::CAP_SETFCAP, has_cap};
use nix::unistd::geteuid;

use crate::mountinfo;

/// What was read. An absent setting is one that this kernel does not have, or that can't be read here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// May make mounts and become any user, without a user namespace.
    pub privileged: bool,
    /// The caller is root without CAP_SETFCAP, which the kernel asks of whoever maps host ID 0.
    pub lacks_setfcap: bool,
    /// Major and minor version of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// A filter of system calls is in force.
    pub filtered: bool,
    /// The root is no mount of its own, as in a chroot.
    pub chrooted: bool,
    /// Something is mounted over a part of `/proc`.
    pub proc_is_covered: bool,
    /// `kernel.unprivileged_userns_clone`, of Debian.
    pub userns_clone: Option<u32>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu.
    pub apparmor_restricts: Option<u32>,
    pub memfd_noexec: Option<u32>,
    /// `user.max_…_namespaces`, by kind.
    pub limits: BTreeMap<&'static str, u64>,
    /// The security modules that are active.
    pub modules: Option<String>,
    /// This executable.
    pub executable: Option<PathBuf>,
}

/// The kinds as sysctls name them.
const KINDS: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

impl Signs {
    pub fn read(privileged: bool) -> Self {
        let mounts = mountinfo::read().unwrap_or_default();
        // An empty directory, which the kernel lets be covered.
        let harmless = Path::new("/proc/sys/fs/binfmt_misc");
        let covers = |point: &Path| point.starts_with("/proc") && point != Path::new("/proc") && point != harmless;
        let limit = |kind| Some((kind, number(&format!("/proc/sys/user/max_{kind}_namespaces"))?));
        Self {
            privileged,
            lacks_setfcap: geteuid().is_root() && !has_cap(None, CapSet::Effective, CAP_SETFCAP).unwrap_or(false),
            kernel: text("/proc/sys/kernel/osrelease").and_then(|release| version(&release)),
            filtered: status().lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
            chrooted: !mounts.is_empty() && mounts.iter().all(|mount| mount.point != Path::new("/")),
            proc_is_covered: mounts.iter().any(|mount| covers(&mount.point)),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            memfd_noexec: number("/proc/sys/vm/memfd_noexec"),
            limits: KINDS.into_iter().filter_map(limit).collect(),
            modules: text("/sys/kernel/security/lsm"),
            executable: std::env::current_exe().ok(),
        }
    }

    /// Whether AppArmor takes the rights away that a user namespace gives to an ordinary user.
    pub fn apparmor(&self) -> bool {
        self.apparmor_restricts == Some(1) && !self.privileged
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    text(path)?.parse().ok()
}
