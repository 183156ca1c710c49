//! The parts of [`Root::host`](super::Root::host) that are not binds of the host: its default operations, the top-level
//! entries that are not bound, and the home directories that are hidden.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::unistd::{Uid, User};

use super::bind::Bind;
use super::operation::Operation;
use super::proc::Proc;
use super::tmpfs::Tmpfs;
use crate::confine::facts::Facts;
use crate::environment;
use crate::error::Result;
use crate::host_path::{is_directory, status};

/// The directories of home directories, by convention (hier(7)).
const HOMES: [&str; 2] = ["/home", "/root"];
/// The top-level entries that [`Root::host`](super::Root::host) does not bind.
pub(super) const NOT_BOUND: [&str; 8] = ["proc", "sys", "dev", "tmp", "run", "home", "root", "lost+found"];
/// Trees of programs and their settings. None of their directories is taken for a home, whatever the user database
/// says.
const PROGRAM_TREES: [&str; 11] =
    ["/bin", "/boot", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/sbin", "/usr"];
/// Directories that contain those of several programs or users (hier(7)).
const SHARED_DIRECTORIES: [&str; 10] =
    ["/media", "/mnt", "/opt", "/srv", "/var", "/var/cache", "/var/lib", "/var/log", "/var/mail", "/var/spool"];
/// The directory in which programs look up the number of processors.
pub(super) const PROCESSORS: &str = "/sys/devices/system";

/// A symlink to the programs of the host, where those are in a store.
pub(super) const CURRENT_SYSTEM: &str = "/run/current-system";

/// Returns the default operations of [`Root::host`](super::Root::host). `shows_keys`: whether `/proc/keys` would list
/// keys of the caller.
pub(super) fn default_mounts(shows_keys: bool) -> Vec<Operation> {
    let mut mounts = vec![Proc::new("/proc").into(), Operation::Dev("/dev".into())];
    mounts.extend(shows_keys.then(|| Operation::Mask("/proc/keys".into())));
    let temporary = ["/tmp", "/var/tmp"].into_iter().filter(|path| *path == "/tmp" || is_bound_directory(path));
    mounts.extend(temporary.map(|path| Tmpfs::new(path).mode(0o1777).into()));
    mounts.push(Tmpfs::new("/run").size(16 << 20).into());
    // On NixOS and Guix System it leads to the programs of the system.
    if let Ok(original) = std::fs::read_link(CURRENT_SYSTEM) {
        mounts.push(Operation::Symlink { original: original.into(), link: CURRENT_SYSTEM.into() });
    }
    if is_directory(Path::new(PROCESSORS)) {
        mounts.push(Bind::new(PROCESSORS, PROCESSORS).unmapped().into());
    }
    // They are not bound, so empty directories stand there.
    mounts.extend(HOMES.map(|home| Operation::create_dir(home, 0o755)));
    mounts.push(Operation::NetworkNames);
    mounts
}

/// Returns whether a path leads to a directory that the sandbox sees. Where it does not, nothing can be mounted on it,
/// and nothing has to be hidden.
fn is_bound_directory(path: &str) -> bool {
    Path::new(path).canonicalize().is_ok_and(|path| is_directory(&path) && is_bound(&path))
}

/// Returns whether a path is below a top-level entry that is bound.
pub(super) fn is_bound(path: &Path) -> bool {
    path.components().nth(1).is_some_and(|top| !NOT_BOUND.iter().any(|name| top.as_os_str() == *name))
}

/// Returns whether a directory contains what programs need, so that hiding it would leave none that runs.
fn is_system_directory(path: &Path) -> bool {
    PROGRAM_TREES.iter().any(|tree| path.starts_with(tree))
        || SHARED_DIRECTORIES.iter().any(|shared| path == Path::new(shared))
}

/// Returns the paths of home directories that are not below an entry in [`NOT_BOUND`], under all names that mounts give
/// them.
pub(super) fn hidden_homes(facts: &Facts) -> Result<Vec<PathBuf>> {
    let own =
        [environment::var("HOME").map(PathBuf::from), user_of(facts.ids.0).map(|user| user.dir)].into_iter().flatten();
    // The home of a system account can be a directory of the system, such as /usr/sbin, which belongs to another user.
    let is_owned = |home: &PathBuf| status(home).is_ok_and(|status| status.st_uid == facts.ids.0);
    let resolved = |home: PathBuf| home.canonicalize().ok().filter(|home| home.parent().is_some());
    let known = HOMES.iter().map(PathBuf::from).filter_map(resolved);
    let mut hidden = BTreeSet::new();
    let own = own.filter_map(resolved).filter(|home| is_owned(home) && !is_system_directory(home));
    for home in known.chain(own) {
        hidden.extend(facts.mounts()?.aliases(&home));
        hidden.insert(home);
    }
    let mut outermost: Vec<PathBuf> = vec![];
    for home in hidden {
        if is_bound(&home) && !outermost.iter().any(|above| home.starts_with(above)) {
            outermost.push(home);
        }
    }
    Ok(outermost)
}

/// Returns the entry of a user in the user database. The first answer is cached, since the database may be on the
/// network.
pub(super) fn user_of(uid: u32) -> Option<User> {
    static USER: OnceLock<(u32, Option<User>)> = OnceLock::new();
    let look_up = || User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let (known, user) = USER.get_or_init(|| (uid, look_up()));
    if *known == uid { user.clone() } else { look_up() }
}
