//! What a plan depends on of the host: who the caller is, what it may do, and what the kernel has. Read when the plan
//! is made.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use caps::{CapSet, Capability};
use landlock::ABI;
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::utsname::uname;
use nix::unistd::{Uid, User, getegid, geteuid};

use super::identity::{IdRange, OWN_IDS, read_sub_ids};
use super::mountinfo::{self, Table};
use super::root::{Bind, Mount, Proc, Tmpfs};
use crate::environment;
use crate::error::{Error, Result};
use crate::host_path::{HostPath, Unresolved};

/// Where the homes of people and of root are, by convention (hier(7)).
const HOMES: [&str; 2] = ["/home", "/root"];
/// What [`Root::host`](super::Root::host) does not bind of the top-level directory.
pub(super) const LEFT_OUT: [&str; 8] = ["proc", "sys", "dev", "tmp", "run", "home", "root", "lost+found"];
/// What programs look at to find out how many processors there are.
const PROCESSORS: &str = "/sys/devices/system";

/// Of a ramfs (statfs(2)).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// The capabilities that the set-up uses, and that ending the sandbox uses, where the program has other host IDs than the
/// caller. What single features take in addition (CAP_NET_ADMIN and CAP_SYS_CHROOT without a user namespace) is refused
/// by the call.
const RIGHTS: [Capability; 6] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
    Capability::CAP_CHOWN,
];
/// A directory that belongs to the host's root in every user namespace and container.
const OF_HOST_ROOT: &str = "/proc/sys/kernel";

/// Why a program with the caller's IDs would be the host's root.
pub(crate) enum RunsAsRoot {
    /// The caller is the host's root, and lacks some of [`RIGHTS`].
    Lacks(Vec<Capability>),
    /// Its user namespace has no IDs for sandboxes.
    HasNoIds,
}

/// The host, as far as a plan depends on it.
pub(crate) struct Host {
    /// Effective user and group id of the caller.
    pub ids: (u32, u32),
    /// Whether the caller has [`RIGHTS`], and a user namespace with the IDs of the sandboxes. If not, a program has the
    /// caller's own IDs on the host.
    pub privileged: bool,
    /// Why a program would be the host's root, if it would be.
    pub runs_as_root: Option<RunsAsRoot>,
    /// Version of the kernel, where no other way tells what it has.
    kernel: (u32, u32),
    /// Number of the last capability that the kernel knows.
    pub last_capability: u32,
    /// The mounts that the caller sees, read when they are needed.
    mounts: OnceCell<Table>,
    /// The paths that were resolved for this plan, with whether their last symlinks were followed.
    resolved: RefCell<HashMap<(HostPath, bool), PathBuf>>,
    /// Tells whether the mount at a path can have an idmapping, if that can be tried.
    pub can_idmap: fn(&Path) -> Option<bool>,
}

impl Host {
    /// `kernel` is believed, if it is given, whatever runs.
    pub fn look(kernel: Option<(u32, u32)>, can_idmap: fn(&Path) -> Option<bool>) -> Result<Self> {
        check_proc()?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let lacks = lacking_rights(uid);
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
            last_capability: last_capability(),
            mounts: OnceCell::new(),
            resolved: RefCell::default(),
            can_idmap,
        })
    }

    /// What gives the caller the rights of [`Host::privileged`].
    pub fn way_to_rights(&self) -> &'static str {
        match self.runs_as_root {
            None => "run as root",
            Some(RunsAsRoot::HasNoIds) => "leave the user namespace, which has too few ids",
            Some(RunsAsRoot::Lacks(_)) => {
                "give the caller CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL and CAP_CHOWN"
            }
        }
    }

    /// The mounts that the caller sees. They are read once for each plan.
    pub fn mounts(&self) -> Result<&Table> {
        if let Some(table) = self.mounts.get() {
            return Ok(table);
        }
        let table = Table::read()?;
        Ok(self.mounts.get_or_init(|| table))
    }

    /// The place that a path of the host names. `follow` says whether a symlink in its last component is followed by default.
    /// Each path is resolved once for each plan.
    pub fn resolve(&self, path: &HostPath, follow: bool) -> std::result::Result<PathBuf, Unresolved> {
        let key = (path.clone(), follow);
        if let Some(place) = self.resolved.borrow().get(&key) {
            return Ok(place.clone());
        }
        let place = path.resolve(follow)?;
        self.resolved.borrow_mut().insert(key, place.clone());
        Ok(place)
    }

    /// Whether a call that waits for its listener can be interrupted by nothing but its end.
    pub fn has_killable_listeners(&self) -> bool {
        self.kernel >= (5, 19)
    }

    /// The newest ABI of Landlock that the kernel has.
    pub fn landlock(&self) -> ABI {
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
        let of_version = SINCE.iter().find(|(since, _)| self.kernel >= *since).map(|&(_, abi)| abi);
        of_version.unwrap_or(ABI::Unsupported).min(super::landlock::newest())
    }

    /// Whether the kernel has mount_setattr(2).
    pub fn has_setattr(&self) -> bool {
        self.kernel >= (5, 12)
    }

    /// Whether the root is an initramfs, which can't be pivoted from.
    pub fn root_is_initramfs(&self) -> Result<bool> {
        let kind = statfs("/").map_err(Error::host("looking at the root"))?.filesystem_type();
        if kind == TMPFS_MAGIC || kind == FsType(RAMFS_MAGIC) { mountinfo::root_is_initramfs() } else { Ok(false) }
    }

    /// The sub-ids that a file gives to the caller.
    pub fn sub_ids(&self, file: &Path) -> Result<Vec<(u32, u32)>> {
        let user = User::from_uid(Uid::from_raw(self.ids.0)).ok().flatten();
        let name = user.map_or_else(|| self.ids.0.to_string(), |user| user.name);
        read_sub_ids(file, &name, self.ids.0)
    }

    /// What [`Root::host`](super::Root::host) has instead of the host's own directories, for a program that is the caller
    /// on the host or is not.
    pub fn default_mounts(&self, is_caller: bool) -> Vec<Mount> {
        let mut mounts = vec![Proc::new("/proc").into(), Mount::Dev("/dev".into())];
        mounts.extend(is_caller.then(|| Mount::Mask("/proc/keys".into())));
        mounts.extend(["/tmp", "/var/tmp"].map(|path| Tmpfs::new(path).mode(0o1777).into()));
        mounts.push(Tmpfs::new("/run").size(16 << 20).into());
        if Path::new(PROCESSORS).is_dir() {
            mounts.push(Bind::new(PROCESSORS, PROCESSORS).unmapped().into());
        }
        // Directly below / nothing of the host is bound in their places.
        mounts.extend(HOMES.map(|home| Mount::Dir { target: home.into(), mode: 0o755 }));
        mounts
    }

    /// The places at which homes are mounted, but those that [`Root::host`](super::Root::host) leaves out anyway.
    pub fn hidden_homes(&self) -> Result<Vec<PathBuf>> {
        let own = [environment::var("HOME").map(PathBuf::from), home_of(self.ids.0)].into_iter().flatten();
        // The homes of system accounts are directories of the system, such as /usr/sbin.
        let is_theirs = |home: &PathBuf| fs::metadata(home).is_ok_and(|meta| meta.uid() == self.ids.0);
        let resolved = |home: PathBuf| home.canonicalize().ok().filter(|home| home.parent().is_some());
        let known = HOMES.iter().map(PathBuf::from).filter_map(resolved);
        let mut hidden = BTreeSet::new();
        for home in known.chain(own.filter_map(resolved).filter(is_theirs)) {
            hidden.extend(self.mounts()?.aliases(&home));
            hidden.insert(home);
        }
        let mut outermost: Vec<PathBuf> = vec![];
        for home in hidden {
            let is_left_out =
                home.components().nth(1).is_none_or(|top| LEFT_OUT.iter().any(|name| top.as_os_str() == *name));
            if !is_left_out && !outermost.iter().any(|above| home.starts_with(above)) {
                outermost.push(home);
            }
        }
        Ok(outermost)
    }
}

/// Those of [`RIGHTS`] that the caller lacks, or that a process which it starts would not have after execve(2): a user
/// other than root keeps the ambient ones, and takes CAP_DAC_OVERRIDE to open what root has to itself.
fn lacking_rights(uid: u32) -> Vec<Capability> {
    let has = |set, capability| caps::has_cap(None, set, capability).unwrap_or(false);
    let usable =
        |&capability: &Capability| has(CapSet::Effective, capability) && (uid == 0 || has(CapSet::Ambient, capability));
    let roots_files = (uid != 0).then_some(Capability::CAP_DAC_OVERRIDE);
    RIGHTS.into_iter().chain(roots_files).filter(|capability| !usable(capability)).collect()
}

/// The user ids that this process's user namespace has.
fn own_map() -> Result<Vec<IdRange>> {
    let text = fs::read_to_string("/proc/self/uid_map").map_err(Error::host("reading /proc/self/uid_map"))?;
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdRange { inside: numbers.next()??, outside: numbers.next()??, count: numbers.next()?? })
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
        let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        let last = text.and_then(|text| text.trim().parse().ok());
        last.unwrap_or(Capability::CAP_CHECKPOINT_RESTORE.index().into())
    })
}

/// The home of a user, as the user database has it; it is asked once, since it may be far away.
fn home_of(uid: u32) -> Option<PathBuf> {
    static HOME: OnceLock<(u32, Option<PathBuf>)> = OnceLock::new();
    let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.dir);
    let (asked, home) = HOME.get_or_init(|| (uid, ask()));
    if *asked == uid { home.clone() } else { ask() }
}

/// What is written into `/proc` must not land in a directory that somebody has put there.
fn check_proc() -> Result<()> {
    let kind = statfs("/proc").map(|info| info.filesystem_type());
    let own = std::process::id().to_string();
    let problem = if kind != Ok(PROC_SUPER_MAGIC) {
        "is no proc file system"
    } else if fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str()) {
        return Ok(());
    } else {
        "shows the processes of another pid namespace"
    };
    Err(Error::invalid(format!("/proc of the host {problem}"), "mount one: mount -t proc proc /proc"))
}
