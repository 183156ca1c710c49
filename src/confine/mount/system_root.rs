//! The parts of [`Root::system`](super::Root::system): the programs and libraries of the host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::bind::Bind;
use super::host_root::CURRENT_SYSTEM;
use super::operation::Operation;
use crate::host_path::{is_directory, status};

/// Trees of programs and libraries. Those of NixOS and of Guix System are in a store, which all users may read.
const TREES: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", CURRENT_SYSTEM];
/// What the dynamic linker reads, and the targets of symlinks such as `/usr/bin/cc` on Debian.
const SETTINGS: [&str; 2] = ["/etc/alternatives", "/etc/ld.so.cache"];
/// Sources of the system. Container images often have their application there.
const HIDDEN: &str = "/usr/src";

/// Returns the operations that show the programs and libraries of the host, as far as they exist.
pub(super) fn system_mounts() -> Vec<Operation> {
    let trees = TREES.into_iter().chain(SETTINGS).map(PathBuf::from);
    let present = trees.chain(java_settings()).filter(|path| status(path).is_ok());
    let mut mounts: Vec<Operation> = present.map(shown).collect();
    mounts.push(Operation::Mask(HIDDEN.into()));
    mounts
}

/// Returns the operation that shows a path of the host.
fn shown(path: PathBuf) -> Operation {
    let is_in_tree = |target: &Path| TREES.iter().any(|tree| target.starts_with(tree));
    match fs::read_link(&path) {
        // What a link to another place leads to is bound.
        Ok(target) if is_in_tree(&Path::new("/").join(&target)) => Operation::symlink(target, path),
        // Unmapped, so that files that only root may read stay unreadable, even if the caller is root.
        _ => Bind::new(&*path, &path).unmapped().into(),
    }
}

/// Returns the directories with the settings of Java, without which it fails: Debian keeps them in directories such as
/// `/etc/java-17-openjdk`.
fn java_settings() -> impl Iterator<Item = PathBuf> {
    let is_of_java = |name: &OsStr| name.as_bytes().starts_with(b"java");
    let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
    let mut settings: Vec<PathBuf> =
        entries.filter(|entry| is_of_java(&entry.file_name())).map(|entry| entry.path()).collect();
    settings.sort();
    settings.into_iter().filter(|path| is_directory(path))
}
