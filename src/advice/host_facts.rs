//! Settings of the host and properties of the caller that explain a denial.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use caps::{CapSet, Capability, has_cap};
use nix::unistd::geteuid;

use crate::mountinfo;
use crate::process_status::ProcessStatus;

/// The manager of the container that the caller is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Docker,
    Podman,
    Kubernetes,
}

/// What was read. A setting is `None` if this kernel does not have it, or if it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostFacts {
    /// Whether the caller is root.
    pub root: bool,
    /// Whether the caller may mount without a user namespace.
    pub privileged: bool,
    /// Whether the caller is root without CAP_SETFCAP, which mapping host ID 0 requires.
    pub lacks_setfcap: bool,
    /// Major and minor version of the kernel.
    pub kernel: Option<(u32, u32)>,
    /// Whether the caller is in another user namespace than the machine's first.
    pub in_user_namespace: bool,
    /// Whether the caller has a seccomp filter.
    pub filtered: bool,
    /// Whether the caller is in a chroot.
    pub chrooted: bool,
    /// A mount that covers a part of `/proc`.
    pub proc_covered_at: Option<PathBuf>,
    /// Whether the mount of `/proc` is read-only.
    pub proc_is_read_only: bool,
    /// `kernel.unprivileged_userns_clone`, of Debian.
    pub userns_clone: Option<u32>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu.
    pub apparmor_restricts: Option<u32>,
    /// The AppArmor profile that confines the caller.
    pub apparmor_profile: Option<String>,
    /// Whether SELinux is enforcing.
    pub selinux: bool,
    pub memfd_noexec: Option<u32>,
    /// `user.max_…_namespaces`, by kind.
    pub limits: BTreeMap<&'static str, u64>,
    /// The active security modules.
    pub modules: Option<String>,
    /// The executable of the caller.
    pub executable: Option<PathBuf>,
    pub container: Option<Container>,
}

/// The kinds of namespaces with their flags, as sysctls name them.
pub(super) const KINDS: [(&str, i32); 8] = [
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("time", libc::CLONE_NEWTIME),
];

/// The inode number of the first user namespace (`PROC_USER_INIT_INO` of the kernel).
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

impl HostFacts {
    pub fn read() -> Self {
        let mounts = mountinfo::read().unwrap_or_default();
        // An empty directory, which the kernel allows to be covered.
        let harmless = Path::new("/proc/sys/fs/binfmt_misc");
        let covers = |point: &Path| point.starts_with("/proc") && point != Path::new("/proc") && point != harmless;
        let limit = |(kind, _)| Some((kind, number(&format!("/proc/sys/user/max_{kind}_namespaces"))?));
        let has = |capability| has_cap(None, CapSet::Effective, capability).unwrap_or(false);
        let root = geteuid().is_root();
        let proc = mounts.iter().rfind(|mount| mount.point == Path::new("/proc"));
        let is_read_only = |options: &[u8]| options.split(|&byte| byte == b',').any(|option| option == b"ro");
        Self {
            root,
            privileged: has(Capability::CAP_SYS_ADMIN),
            lacks_setfcap: root && !has(Capability::CAP_SETFCAP),
            kernel: text("/proc/sys/kernel/osrelease").and_then(|release| version(&release)),
            in_user_namespace: fs::metadata("/proc/self/ns/user")
                .is_ok_and(|first| first.ino() != FIRST_USER_NAMESPACE),
            // Of the calling thread: others may have other filters.
            filtered: ProcessStatus::read("/proc/thread-self/status")
                .is_ok_and(|status| status.field("Seccomp") == "2"),
            chrooted: !mounts.is_empty() && mounts.iter().all(|mount| mount.point != Path::new("/"))
                || an_ancestor_has_another_root(),
            proc_covered_at: mounts.iter().find(|mount| covers(&mount.point)).map(|mount| mount.point.clone()),
            proc_is_read_only: proc
                .is_some_and(|proc| is_read_only(&proc.options) || is_read_only(&proc.super_options)),
            userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            apparmor_profile: apparmor_profile(),
            selinux: number("/sys/fs/selinux/enforce") == Some(1),
            memfd_noexec: number("/proc/sys/vm/memfd_noexec"),
            limits: KINDS.into_iter().filter_map(limit).collect(),
            modules: text("/sys/kernel/security/lsm"),
            executable: std::env::current_exe().ok(),
            container: container(),
        }
    }

    /// Returns whether AppArmor denies an ordinary user the capabilities in a user namespace.
    pub fn apparmor(&self) -> bool {
        self.apparmor_restricts == Some(1) && !self.privileged
    }
}

/// Returns whether a process above the caller in the tree of processes has the same mounts and another root directory. A
/// chroot whose root is a mount point does not show otherwise.
fn an_ancestor_has_another_root() -> bool {
    /// More than any tree of processes has, unless `/proc` lies.
    const LONGEST: usize = 64;
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let Some((own, own_mounts)) = root_of("self").zip(mounts("self")) else { return false };
    let mut process = std::process::id();
    for _ in 0..LONGEST {
        let Some(parent) = ProcessStatus::read(format!("/proc/{process}/status"))
            .ok()
            .and_then(|status| status.field("PPid").parse().ok())
        else {
            return false;
        };
        process = parent;
        let name = process.to_string();
        let has_same_mounts = mounts(&name).is_some_and(|mounts| mounts == own_mounts);
        if has_same_mounts && root_of(&name).is_some_and(|root| root != own) {
            return true;
        }
    }
    false
}

/// Returns the mount and the inode number of the root directory of a process.
fn root_of(process: &str) -> Option<(String, u64)> {
    let mut open = File::options();
    let root = open.read(true).custom_flags(libc::O_PATH).open(format!("/proc/{process}/root")).ok()?;
    let info = text(&format!("/proc/self/fdinfo/{}", root.as_raw_fd()))?;
    Some((field(&info, "mnt_id:")?.to_owned(), root.metadata().ok()?.ino()))
}

/// Returns the profile of AppArmor that confines the caller. `None` if there is none, or if another module has labelled it.
fn apparmor_profile() -> Option<String> {
    if text("/sys/module/apparmor/parameters/enabled").is_none_or(|enabled| enabled != "Y") {
        return None;
    }
    let files = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let profile = files.into_iter().find_map(text)?;
    (profile != "unconfined" && !profile.ends_with("(unconfined)"))
        .then(|| profile.split(" (").next().unwrap_or_default().to_owned())
}

pub(super) fn container() -> Option<Container> {
    let exists = |path: &str| Path::new(path).exists();
    let hosts = || text("/etc/hosts").is_some_and(|hosts| hosts.starts_with("# Kubernetes-managed hosts file"));
    if exists("/var/run/secrets/kubernetes.io") || hosts() {
        Some(Container::Kubernetes)
    } else if exists("/run/.containerenv") {
        Some(Container::Podman)
    } else if exists("/.dockerenv") {
        Some(Container::Docker)
    } else {
        None
    }
}

/// Returns the first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns the first word after a name at the beginning of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    text(path)?.parse().ok()
}
