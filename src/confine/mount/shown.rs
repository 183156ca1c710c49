//! The trees of the host that a root shows, as paths of the host: what a program may access where no root of its own
//! can be created. How they are enforced does not belong here.

use std::fs;
use std::path::{Path, PathBuf};

use super::devices::present_nodes;
use super::gpu;
use super::host_root::{hidden_homes, is_bound};
use super::operation::Operation;
use super::overlay::Overlay;
use super::root::{Base, Root};
use super::source::resolve_source;
use crate::confine::facts::Facts;
use crate::error::{Error, Result};

/// A tree of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownTree {
    pub path: PathBuf,
    pub access: TreeAccess,
}

/// What the program may do in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TreeAccess {
    Read,
    Write,
    /// Reading and writing a device, but not creating one.
    Device,
}

impl Root {
    /// Whether paths are protected in writable directories.
    pub(crate) fn protects(&self) -> bool {
        let protects = |operation: &Operation| match operation {
            Operation::Protect(_) | Operation::ReadOnly(_) => true,
            Operation::Bind(bind) => bind.git,
            _ => false,
        };
        self.operations.iter().any(protects)
    }

    /// Returns the trees of the host that the root shows. Returns an error if a path inside a writable tree must be
    /// hidden or protected, which no rule on trees can do.
    pub(crate) fn shown_trees(&self, facts: &Facts) -> Result<Vec<ShownTree>> {
        let mut shown = ShownTrees::default();
        match &self.base {
            Base::Host => shown.host(facts)?,
            Base::Empty => {}
            Base::Dir(_) | Base::WritableDir(_) | Base::Overlay(_) | Base::Inherit => {
                return Err(Error::invalid(
                    "Landlock cannot stand in for a root that is another directory, or none",
                    "use Root::host or Root::empty with binds, or remove Sandbox::landlock_fallback",
                ));
            }
        }
        for operation in &self.operations {
            shown.operation(operation, facts)?;
        }
        Ok(shown.trees)
    }
}

#[derive(Default)]
struct ShownTrees {
    trees: Vec<ShownTree>,
}

impl ShownTrees {
    fn add(&mut self, path: impl Into<PathBuf>, access: TreeAccess) {
        self.trees.push(ShownTree { path: path.into(), access });
    }

    /// Adds what the root of the host shows by default.
    fn host(&mut self, facts: &Facts) -> Result<()> {
        for path in children(Path::new("/"))? {
            if is_bound(&path) {
                self.add(path, TreeAccess::Read);
            }
        }
        self.hide(Path::new("/var/tmp"))?;
        for home in hidden_homes(facts)? {
            self.hide(&home)?;
        }
        self.add("/proc", TreeAccess::Read);
        self.add(super::host_root::PROCESSORS, TreeAccess::Read);
        self.devices();
        Ok(())
    }

    fn devices(&mut self) {
        for name in present_nodes() {
            self.add(Path::new("/dev").join(name), TreeAccess::Device);
        }
    }

    fn operation(&mut self, operation: &Operation, facts: &Facts) -> Result<()> {
        match operation {
            Operation::Bind(bind) => {
                let source = bind.resolve_source(facts)?;
                if bind.fd.is_some() {
                    return Err(Error::invalid(
                        "Landlock cannot stand in for the bind of a descriptor, since its rules are for paths",
                        "bind a path, or remove Sandbox::landlock_fallback",
                    ));
                }
                if bind.git {
                    return Err(inside_writable(&source));
                }
                if source != bind.target {
                    self.hide(&bind.target)?;
                } else if !bind.writable {
                    self.protect(&source)?;
                }
                let access = match (bind.writable, bind.devices && !source.is_dir()) {
                    (true, _) => TreeAccess::Write,
                    (false, true) => TreeAccess::Device,
                    (false, false) => TreeAccess::Read,
                };
                self.add(source, access);
            }
            Operation::Overlay(Overlay { lowers, target, .. }) => {
                self.hide(target)?;
                for lower in lowers {
                    self.add(resolve_source(facts, lower, true)?, TreeAccess::Read);
                }
            }
            Operation::Gpus => {
                for operation in gpu::operations()? {
                    self.operation(&operation, facts)?;
                }
            }
            Operation::Proc(_) => self.add("/proc", TreeAccess::Read),
            Operation::Dev(_) => self.devices(),
            Operation::Tmpfs(tmpfs) => self.hide(&tmpfs.target)?,
            Operation::Mask(path) => self.hide(path)?,
            Operation::ReadOnly(path) | Operation::Protect(path) => self.protect(path)?,
            // The program does not get the file, but it does not get that of the host instead.
            Operation::File { target, .. } => self.hide(target)?,
            // They change nothing of the host's files.
            Operation::Symlink { .. }
            | Operation::CreateDir { .. }
            | Operation::NetworkNames
            | Operation::UserNames => {}
        }
        Ok(())
    }

    /// Makes the trees at and below a path read-only.
    fn protect(&mut self, path: &Path) -> Result<()> {
        // What is protected need not exist.
        let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        let resolved = existing.map_or_else(
            || path.to_owned(),
            |(above, resolved)| match path.strip_prefix(above) {
                Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
                _ => resolved,
            },
        );
        for tree in self.trees.iter_mut().filter(|tree| tree.access == TreeAccess::Write) {
            if tree.path.starts_with(&resolved) {
                tree.access = TreeAccess::Read;
            } else if resolved.starts_with(&tree.path) || path.starts_with(&tree.path) {
                return Err(inside_writable(path));
            }
        }
        Ok(())
    }

    /// Removes a path from the trees. A tree that contains it is replaced by its parts that do not.
    fn hide(&mut self, path: &Path) -> Result<()> {
        let Ok(path) = path.canonicalize() else { return Ok(()) };
        self.trees.retain(|tree| !tree.path.starts_with(&path));
        let (around, others): (Vec<_>, _) =
            std::mem::take(&mut self.trees).into_iter().partition(|tree| path.starts_with(&tree.path));
        self.trees = others;
        for tree in around {
            if tree.access == TreeAccess::Write {
                return Err(inside_writable(&path));
            }
            let mut directory = tree.path.clone();
            for part in path.strip_prefix(&tree.path).unwrap_or(&path) {
                let next = directory.join(part);
                let beside = children(&directory)?.into_iter().filter(|child| *child != next);
                self.trees.extend(beside.map(|path| ShownTree { path, access: tree.access }));
                directory = next;
            }
        }
        Ok(())
    }
}

fn inside_writable(path: &Path) -> Error {
    Error::invalid(
        format!("Landlock cannot hide or protect {path:?} inside a writable bind"),
        "bind what may be written alone, or remove Sandbox::landlock_fallback",
    )
}

/// Returns the entries of a directory that are no symlinks: a rule on a symlink would apply to what it leads to.
fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::set_up("list the directory", "getdents64", error, None).on(directory);
    let mut paths = vec![];
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_type().map_err(failed)?.is_symlink() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
