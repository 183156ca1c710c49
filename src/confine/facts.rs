//! The facts that a plan depends on: the caller's IDs and capabilities, the features of the kernel, and the host's
//! mounts. They are read when the plan is compiled. What is decided from them belongs to the layers and to
//! `compile/decisions.rs`.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ::landlock::ABI;
use caps::{CapSet, Capability};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::utsname::uname;
use nix::unistd::{Uid, User, getegid, geteuid};

use super::landlock;
use super::mount_table::{self, MountTable};
use super::secure_bits::SecureBits;
use super::sub_ids::{IdRange, read_sub_ids};
use crate::error::{Error, Result};
use crate::host_path::{HostPath, ResolveError};
use crate::launch::OWN_IDS;
use crate::mountinfo;
use crate::proc_file;

/// The file system type of a ramfs (statfs(2)).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// The capabilities that setting up and killing a sandbox needs, if the program has other host IDs than the caller. If
/// a single layer needs another (CAP_NET_ADMIN, CAP_SYS_CHROOT without a user namespace), its system call fails.
const SET_UP_CAPABILITIES: [Capability; 6] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
    Capability::CAP_CHOWN,
];
/// A directory that belongs to the host's root in every user namespace and container.
const OF_HOST_ROOT: &str = "/proc/sys/kernel";

/// The reason why a program with the caller's IDs would be the host's root.
pub(crate) enum RunsAsRoot {
    /// The caller is the host's root, and lacks some of [`SET_UP_CAPABILITIES`].
    Lacks(Vec<Capability>),
    /// The caller's user namespace has no IDs for sandboxes.
    HasNoIds,
}

/// Facts about the caller and the host.
pub(crate) struct Facts {
    /// Effective user and group ID of the caller.
    pub ids: (u32, u32),
    /// Whether the caller has [`SET_UP_CAPABILITIES`], and a user namespace with the IDs for sandboxes. If not, a
    /// program has the caller's own IDs on the host.
    pub privileged: bool,
    /// Why a program would be the host's root, if it would be.
    pub runs_as_root: Option<RunsAsRoot>,
    /// Version of the kernel, for features that cannot be probed.
    kernel: (u32, u32),
    /// The securebits of the caller.
    pub secure_bits: SecureBits,
    /// Number of the last capability that the kernel knows.
    pub last_capability: u32,
    /// The contents of `/proc/self/mountinfo`, read when they are needed.
    mountinfo: OnceCell<Vec<u8>>,
    /// The mounts that the caller sees.
    mounts: OnceCell<MountTable>,
    /// The paths that were resolved for this plan, with whether their last symlinks were followed.
    resolved: RefCell<HashMap<(HostPath, bool), PathBuf>>,
    /// Tells whether the mount at a path can have an idmapping, if that can be tried.
    pub can_idmap: fn(&Path) -> Option<bool>,
}

impl Facts {
    /// Reads the facts. `kernel` overrides the version of the running kernel.
    pub fn read(kernel: Option<(u32, u32)>, can_idmap: fn(&Path) -> Option<bool>) -> Result<Self> {
        check_proc()?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let lacks = lacking_capabilities(uid);
        let may_be_root = fs::metadata(OF_HOST_ROOT).map_or(true, |meta| meta.uid() == uid);
        let map = if lacks.is_empty() || may_be_root { own_map()? } else { vec![] };
        let has_ids = map.iter().any(|line| line.covers(OWN_IDS.first, OWN_IDS.count));
        let privileged = lacks.is_empty() && has_ids;
        let is_root = may_be_root && map.iter().any(|line| line.to_outside(uid) == Some(0));
        let runs_as_root = match lacks.is_empty() {
            true => RunsAsRoot::HasNoIds,
            false => RunsAsRoot::Lacks(lacks),
        };
        Ok(Self {
            ids: (uid, gid),
            privileged,
            runs_as_root: (is_root && !privileged).then_some(runs_as_root),
            kernel: kernel.unwrap_or_else(running_kernel),
            secure_bits: SecureBits::of_caller(),
            last_capability: last_capability(),
            mountinfo: OnceCell::new(),
            mounts: OnceCell::new(),
            resolved: RefCell::default(),
            can_idmap,
        })
    }

    /// The hint by which a caller becomes [`Facts::privileged`].
    pub fn way_to_rights(&self) -> &'static str {
        match self.runs_as_root {
            None => "run as root",
            Some(RunsAsRoot::HasNoIds) => "run outside this user namespace, which has too few IDs",
            Some(RunsAsRoot::Lacks(_)) => {
                "give the caller CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL and CAP_CHOWN"
            }
        }
    }

    /// The contents of `/proc/self/mountinfo`. They are read once for each plan.
    pub fn mountinfo(&self) -> Result<&[u8]> {
        if let Some(table) = self.mountinfo.get() {
            return Ok(table);
        }
        let table = mountinfo::table().map_err(Error::mounts)?;
        Ok(self.mountinfo.get_or_init(|| table))
    }

    /// The mounts that the caller sees.
    pub fn mounts(&self) -> Result<&MountTable> {
        let table = self.mountinfo()?;
        Ok(self.mounts.get_or_init(|| MountTable::parse(table)))
    }

    /// Resolves a path of the host, once for each plan. `follow` says whether a symlink in its last component is
    /// followed by default.
    pub fn resolve(&self, path: &HostPath, follow: bool) -> std::result::Result<PathBuf, ResolveError> {
        let key = (path.clone(), follow);
        if let Some(place) = self.resolved.borrow().get(&key) {
            return Ok(place.clone());
        }
        let place = path.resolve(follow)?;
        self.resolved.borrow_mut().insert(key, place.clone());
        Ok(place)
    }

    /// Whether a call that waits for its listener can be interrupted by a fatal signal only
    /// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`).
    pub fn has_killable_listeners(&self) -> bool {
        self.kernel >= (5, 19)
    }

    /// The ABI of Landlock.
    pub fn landlock(&self) -> ABI {
        #[cfg(feature = "_testing")]
        return landlock_of(self.kernel).min(landlock::current_abi());
        #[cfg(not(feature = "_testing"))]
        landlock::current_abi()
    }

    /// Whether the kernel has mount_setattr(2).
    pub fn has_setattr(&self) -> bool {
        self.kernel >= (5, 12)
    }

    /// Whether the root is an initramfs, which pivot_root(2) does not support.
    pub fn root_is_initramfs(&self) -> Result<bool> {
        let kind = statfs("/").map_err(Error::io("read the file system type of /"))?.filesystem_type();
        if kind == TMPFS_MAGIC || kind == FsType(RAMFS_MAGIC) { mount_table::root_is_initramfs() } else { Ok(false) }
    }

    /// Reads the sub-IDs that a file assigns to the caller.
    pub fn sub_ids(&self, file: &Path) -> Result<Vec<(u32, u32)>> {
        let user = User::from_uid(Uid::from_raw(self.ids.0)).ok().flatten();
        let name = user.map_or_else(|| self.ids.0.to_string(), |user| user.name);
        read_sub_ids(file, &name, self.ids.0)
    }
}

/// Returns which of [`SET_UP_CAPABILITIES`] the caller lacks, or would lose with execve(2), where a user other than
/// root keeps only the ambient ones. Such a user also needs CAP_DAC_OVERRIDE, to open root's files.
fn lacking_capabilities(uid: u32) -> Vec<Capability> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let is_ambient = |capability| caps::has_cap(None, CapSet::Ambient, capability).unwrap_or(false);
    let usable = |capability: &Capability| effective.contains(capability) && (uid == 0 || is_ambient(*capability));
    let roots_files = (uid != 0).then_some(Capability::CAP_DAC_OVERRIDE);
    SET_UP_CAPABILITIES.into_iter().chain(roots_files).filter(|capability| !usable(capability)).collect()
}

/// Reads the user ID map of this process's user namespace.
fn own_map() -> Result<Vec<IdRange>> {
    let text = proc_file::read_to_string("/proc/self/uid_map").map_err(Error::io("read /proc/self/uid_map"))?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdRange::new(numbers.next()??, numbers.next()??, numbers.next()??))
    };
    Ok(text.lines().filter_map(range).collect())
}

/// Version of the running kernel, as `uname -r` begins.
fn running_kernel() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    })
}

/// Number of the last capability that the running kernel knows.
fn last_capability() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        let text = proc_file::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = text.and_then(|text| text.trim().parse().ok());
        last.unwrap_or(Capability::CAP_CHECKPOINT_RESTORE.index().into())
    })
}

/// Refuses a `/proc` that is not the proc file system of this PID namespace: the set-up writes to it.
fn check_proc() -> Result<()> {
    let kind = statfs("/proc").map(|info| info.filesystem_type());
    let own = std::process::id().to_string();
    let problem = if kind != Ok(PROC_SUPER_MAGIC) {
        "is not a proc file system"
    } else if fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str()) {
        return Ok(());
    } else {
        "shows the processes of another PID namespace"
    };
    let hint = "run `mount -t proc proc /proc` in the caller's mount namespace";
    Err(Error::not_set_up("use /proc", format!("the caller's /proc {problem}"), hint))
}

/// The newest ABI of Landlock in a version of the kernel that a test simulates.
#[cfg(feature = "_testing")]
fn landlock_of(kernel: (u32, u32)) -> ABI {
    const SINCE: [((u32, u32), ABI); 10] = [
        ((7, 2), ABI::V10),
        ((7, 1), ABI::V9),
        ((7, 0), ABI::V8),
        ((6, 15), ABI::V7),
        ((6, 12), ABI::V6),
        ((6, 10), ABI::V5),
        ((6, 7), ABI::V4),
        ((6, 2), ABI::V3),
        ((5, 19), ABI::V2),
        ((5, 13), ABI::V1),
    ];
    let of_version = SINCE.iter().find(|(since, _)| kernel >= *since).map(|&(_, abi)| abi);
    of_version.unwrap_or(ABI::Unsupported)
}
