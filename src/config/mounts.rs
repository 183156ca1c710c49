//! The mounts of a configuration. TOML and JSON tables have no order, so the place of a mount decides: what is deeper in
//! the tree is mounted later, and covers what is above it.

use std::path::{Path, PathBuf};

use super::keys::Config;
use crate::confine::{Bind, Operation, Overlay, Root};
use crate::host_path::HostPath;

/// Returns whether a source is in a system directory. Its private files must not be readable for a program that root
/// starts.
fn is_of_system(source: &HostPath) -> bool {
    let source = source.unresolved();
    let source = source.canonicalize().unwrap_or(source);
    let system = ["/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/opt", "/var"];
    source == Path::new("/") || system.iter().any(|top| source.starts_with(top)) && !source.starts_with("/var/tmp")
}

/// A read-only bind. In system directories, it shows only what every user may read.
fn read_only(bind: &Bind) -> Operation {
    let is_of_system = bind.paths().is_some_and(|(source, _)| is_of_system(source));
    if is_of_system { bind.clone().unmapped_by_default() } else { bind.clone() }.into()
}

/// An overlay. In system directories, it shows only what every user may read.
fn overlay(overlay: &Overlay) -> Operation {
    let is_of_system = overlay.lowers().iter().any(is_of_system);
    if is_of_system { overlay.clone().unmapped_by_default() } else { overlay.clone() }.into()
}

/// The operations of all keys but `mounts`, with the key of each.
fn of_keys(config: &Config) -> Vec<(&'static str, Operation)> {
    let device = |path: &PathBuf| Bind::new(path, path).unmapped().devices().noexec().into();
    let mut found: Vec<(&'static str, Operation)> = vec![];
    let mut add = |key, operations: &mut dyn Iterator<Item = Operation>| found.extend(operations.map(|it| (key, it)));
    add("tmpfs", &mut config.tmpfs.iter().cloned().map(Into::into));
    add("overlay", &mut config.overlay.iter().map(overlay));
    add("ro", &mut config.ro.iter().map(read_only));
    add("rw", &mut config.rw.iter().map(|bind| bind.clone().writable().into()));
    add("git", &mut config.git.iter().map(|bind| bind.clone().writable().protect_git().into()));
    add("devices", &mut config.devices.iter().map(device));
    add("files", &mut config.files.iter().map(|(path, contents)| Operation::file(path, contents.as_slice(), 0o444)));
    add("dirs", &mut config.dirs.iter().map(|path| Operation::create_dir(path, 0o755)));
    add("symlinks", &mut config.symlinks.iter().map(|(link, original)| Operation::symlink(original, link)));
    add("mask", &mut config.mask.iter().cloned().map(Operation::Mask));
    add("read_only", &mut config.read_only.iter().cloned().map(Operation::ReadOnly));
    add("protect", &mut config.protect.iter().cloned().map(Operation::Protect));
    found
}

/// Returns the targets of all keys but `mounts`, whose order is their own.
pub(super) fn targets(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let target = |(key, operation): (_, Operation)| Some((key, operation.single_target()?.to_owned()));
    of_keys(config).into_iter().filter_map(target).collect()
}

/// Adds the mounts of a configuration to a root.
pub(super) fn mount(config: &Config, root: Root) -> Root {
    let depth = |operation: &Operation| operation.single_target().map_or(0, |target| target.components().count());
    let mut operations: Vec<Operation> = of_keys(config).into_iter().map(|(_, operation)| operation).collect();
    operations.sort_by_key(depth);
    let root = operations.into_iter().chain(config.mounts.iter().cloned()).fold(root, Root::with);
    let root = if config.gpus == Some(true) { root.gpus() } else { root };
    let root = config.terminals.into_iter().fold(root, Root::terminals);
    if config.writable_root == Some(true) { root.writable() } else { root }
}
