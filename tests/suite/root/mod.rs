//! The file system of a program: its base, its mounts, and which changes reach the host.

mod base;
mod binds;
mod devices;
mod entries;
mod host;
mod inputs;
mod kernel;
mod overlay;
mod places;
mod propagation;
mod system;
mod tmpfs;
mod writable;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command as Host, ExitCode};

use crate::support::{self, refused, shared_dir};
use stockade::Errno;
use stockade::mount::{Bind, Operation};
use stockade::{Identity, Root, Sandbox};
use tempfile::TempDir;

/// Says that the sandboxes are to be made as on a kernel without mount_setattr(2) and idmapped mounts.
const OLD_KERNEL: &str = "STOCKADE_TESTS_AS_ON_AN_OLD_KERNEL";

/// Runs the tests of this area once more by the mount interface of older kernels, as root and as an ordinary user.
pub fn again_as_on_an_old_kernel() -> ExitCode {
    if is_old_kernel() || support::is_second_run() || cfg!(not(feature = "_testing")) {
        return ExitCode::SUCCESS;
    }
    if support::slowness() > 1 {
        println!("the mount interface of older kernels is tested on these: here everything would take twice as long");
        return ExitCode::SUCCESS;
    }
    println!("the same by the mount interface of older kernels");
    let mut again = Host::new(support::own_path());
    again.args(std::env::args_os().skip(1)).env(OLD_KERNEL, "1").env(support::AREA, "root");
    if again.status().is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A reason to skip what the mount interface of older kernels has no call for.
fn unless_read_only() -> Option<String> {
    is_old_kernel().then(|| "mount_setattr(2) is not used here".into())
}

fn is_old_kernel() -> bool {
    support::unless_mount_setattr().is_some() || std::env::var_os(OLD_KERNEL).is_some()
}

/// A reason to skip what binds a tmpfs that a test mounts as writable.
fn unless_writable_tmpfs() -> Option<String> {
    if is_old_kernel() {
        support::unless_mounts()
    } else {
        support::unless_idmapped_tmpfs().or_else(support::unless_mounts)
    }
}

/// The default sandbox. On an old kernel a root host can bind nothing writable for another user.
fn sandbox() -> Sandbox {
    match is_old_kernel() {
        true => as_on_an_old_kernel(Sandbox::new()).identity(Identity::caller()),
        false => Sandbox::new(),
    }
}

#[cfg(feature = "_testing")]
fn as_on_an_old_kernel(sandbox: Sandbox) -> Sandbox {
    let (major, minor) = support::kernel().min((5, 11));
    sandbox.as_on_kernel(major, minor)
}

/// Without the feature the tests run by the mount interface of the kernel alone.
#[cfg(not(feature = "_testing"))]
fn as_on_an_old_kernel(sandbox: Sandbox) -> Sandbox {
    sandbox
}

fn with(root: Root) -> Sandbox {
    sandbox().root(root)
}

/// The host as it is by default, and one operation.
fn with_mount(mount: impl Into<Operation>) -> Sandbox {
    with(Root::host().with(mount))
}

/// The programs and libraries of the host, for a root that has none.
fn programs(root: Root) -> Root {
    ["bin", "lib", "lib32", "lib64", "sbin", "usr"].into_iter().fold(root, |root, name| {
        let path = Path::new("/").join(name);
        match fs::read_link(&path) {
            Ok(text) => root.symlink(text, path),
            Err(_) if path.is_dir() => root.with(Bind::new(&path, &path).unmapped()),
            Err(_) => root,
        }
    })
}

/// A directory with files in it, that everybody can read, and what is in them.
fn dir_with(files: &[(&str, &str)]) -> TempDir {
    let dir = shared_dir();
    for (name, contents) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("directory")).expect("directory");
        fs::write(path, contents).expect("file");
    }
    dir
}

/// A directory that everybody can write to.
fn open_dir() -> TempDir {
    let dir = shared_dir();
    open_to_all(dir.path());
    dir
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("permissions");
}

/// Everything in a directory of the host, with permissions, size and the time of the last change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, (i64, i64))> {
    let mut seen = BTreeMap::new();
    let mut paths = vec![dir.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        if metadata.is_dir() {
            paths.extend(fs::read_dir(&path).expect("directory").map(|entry| entry.expect("entry").path()));
        }
        seen.insert(path, (metadata.mode(), metadata.len(), (metadata.ctime(), metadata.ctime_nsec())));
    }
    seen
}

/// Names in a directory of the host, in order.
fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What failed, on which path, with which error number, and what to do about it.
struct Failed {
    step: String,
    path: Option<PathBuf>,
    errno: i32,
    remedy: String,
}

/// How the set-up of a sandbox fails.
fn set_up(sandbox: &Sandbox) -> Failed {
    let error = refused(sandbox);
    assert!(support::is_set_up(&error), "{error:?}");
    Failed {
        step: error.step().unwrap_or_default().to_owned(),
        path: error.path().map(Path::to_owned),
        errno: error.errno().map_or(0, Errno::number),
        remedy: error.hint().unwrap_or_default().to_owned(),
    }
}

const READ_ONLY: &str = "Read-only file system";

/// That writing to a path inside fails since it is read-only, and not for a lack of permissions.
fn is_read_only(sandbox: &Sandbox, path: &str) {
    let said = support::fails(sandbox, &format!("> '{path}'"));
    assert!(said.contains(READ_ONLY), "write to {path}: {said}");
}
