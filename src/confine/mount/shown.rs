//! The trees of the host that a root shows, as paths of the host: what a program may access where no root of its own
//! can be created. How they are enforced does not belong here.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::devices::present_nodes;
use super::gpu;
use super::host_root::{PROCESSORS, hidden_homes, is_bound};
use super::operation::Operation;
use super::overlay::Overlay;
use super::root::{Base, Root};
use super::source::resolve_source;
use super::system_root::system_mounts;
use super::tmpfs::Tmpfs;
use crate::confine::facts::Facts;
use crate::error::{Error, Result};
use crate::host_path::HostPath;

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
            Base::System => system_mounts().iter().try_for_each(|operation| shown.operation(operation, facts))?,
            Base::Empty => {}
            Base::Dir(_) | Base::WritableDir(_) | Base::Overlay(_) | Base::Inherit => {
                return Err(Error::invalid(
                    "Landlock cannot stand in for a root that is another directory, or none",
                    "use Root::host, Root::system or Root::empty with binds, or remove Sandbox::landlock_fallback",
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
    /// The places in the sandbox at which operations have shown trees, and these trees.
    mounted: Vec<(PathBuf, PathBuf)>,
    /// The symlinks in the sandbox that operations have created.
    links: Vec<PathBuf>,
}

impl ShownTrees {
    /// Adds a tree of the host, whose path has no symlinks.
    fn add(&mut self, path: impl Into<PathBuf>, access: TreeAccess) {
        self.trees.push(ShownTree { path: path.into(), access });
    }

    /// Adds a tree of the host, unless it does not exist.
    fn add_resolved(&mut self, path: impl AsRef<Path>, access: TreeAccess) {
        if let Ok(path) = path.as_ref().canonicalize() {
            self.add(path, access);
        }
    }

    /// Adds a tree of the host that is shown at a target in the sandbox.
    fn mount(&mut self, source: PathBuf, target: &Path, access: TreeAccess) {
        self.mounted.push((target.to_owned(), source.clone()));
        self.add(source, access);
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
        self.add_resolved("/proc", TreeAccess::Read);
        self.add_resolved(PROCESSORS, TreeAccess::Read);
        self.devices();
        Ok(())
    }

    fn devices(&mut self) {
        for name in present_nodes() {
            self.add_resolved(Path::new("/dev").join(name), TreeAccess::Device);
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
                let places = self.places(&bind.target)?;
                self.cover(&places, Some(&source))?;
                if !bind.writable && places.iter().any(|place| resolved(place) == source) {
                    self.protect(&source)?;
                }
                let access = match (bind.writable, bind.devices && !source.is_dir()) {
                    (true, _) => TreeAccess::Write,
                    (false, true) => TreeAccess::Device,
                    (false, false) => TreeAccess::Read,
                };
                self.mount(source, &bind.target, access);
            }
            Operation::Inputs(inputs) => {
                self.cover(&self.places(&inputs.target)?, None)?;
                let found = inputs.entries(facts)?;
                for entry in &found.entries {
                    self.mount(found.source(entry), &inputs.target.join(entry.to), TreeAccess::Read);
                }
            }
            Operation::Overlay(Overlay { lowers, target, .. }) => {
                self.cover(&self.places(target)?, None)?;
                for lower in lowers {
                    self.mount(resolve_source(facts, lower, true)?, target, TreeAccess::Read);
                }
            }
            Operation::Gpus => {
                for operation in gpu::operations()? {
                    self.operation(&operation, facts)?;
                }
            }
            Operation::Proc(proc) => {
                self.cover(&self.places(&proc.target)?, Some(Path::new("/proc")))?;
                self.add_resolved("/proc", TreeAccess::Read);
            }
            Operation::Dev(target) => {
                self.cover(&self.places(target)?, Some(Path::new("/dev")))?;
                self.devices();
            }
            Operation::Tmpfs(Tmpfs { target, .. }) | Operation::Mask(target) => {
                self.cover(&self.places(target)?, None)?;
            }
            // The program does not get the file, but it does not get that of the host instead.
            Operation::File { target, .. } => self.cover(&self.places(target)?, None)?,
            Operation::ReadOnly(path) | Operation::Protect(path) => {
                for place in self.places(path)? {
                    self.protect(&place)?;
                }
            }
            Operation::Symlink { link, .. } => self.links.push(link.clone()),
            // They change nothing of the host's files.
            Operation::CreateDir { .. } | Operation::NetworkNames | Operation::UserNames => {}
        }
        Ok(())
    }

    /// Returns the paths of the host at which the program would find what is at a path in the sandbox, and below it:
    /// the same path, and those that lead there by what was mounted before. It may return too many, of which some are
    /// covered.
    fn places(&self, path: &Path) -> Result<Vec<PathBuf>> {
        if let Some(link) = self.links.iter().find(|link| path.starts_with(link)) {
            return Err(Error::invalid(
                format!("Landlock cannot hide, protect or bind {path:?}, which leads through the symlink {link:?}"),
                "use the path that the symlink leads to, or remove Sandbox::landlock_fallback",
            ));
        }
        let mut places = vec![path.to_owned()];
        // The sandbox has symlinks of the host, such as /var/run.
        for path in [path, &*resolved(path)] {
            for (target, source) in &self.mounted {
                for target in [target, &resolved(target)] {
                    if target.starts_with(path) {
                        places.push(source.clone());
                    } else if let Ok(rest) = path.strip_prefix(target) {
                        check_links(source, target, rest)?;
                        places.push(source.join(rest));
                    }
                }
            }
        }
        places.sort();
        places.dedup();
        Ok(places)
    }

    /// Hides what an operation covers, apart from what it shows there itself.
    fn cover(&mut self, places: &[PathBuf], shown: Option<&Path>) -> Result<()> {
        places.iter().filter(|place| shown != Some(&*resolved(place))).try_for_each(|place| self.hide(place))
    }

    /// Makes the trees at and below a path read-only.
    fn protect(&mut self, path: &Path) -> Result<()> {
        let resolved = resolved(path);
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

/// Returns a path without symlinks, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    existing.map_or_else(
        || path.to_owned(),
        |(above, resolved)| match path.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => resolved.join(rest),
            _ => resolved,
        },
    )
}

/// Refuses a path through a symlink in a tree that is shown at another path: it would lead elsewhere on the host.
fn check_links(source: &Path, target: &Path, rest: &Path) -> Result<()> {
    let leads_elsewhere = || {
        let opened = HostPath::beneath(source, rest).open(OFlag::O_PATH);
        opened.is_err_and(|error| error.errno.number() == libc::ELOOP)
    };
    if source != resolved(target) && leads_elsewhere() {
        return Err(Error::invalid(
            format!(
                "Landlock cannot hide or protect {:?}, which leads through a symlink in {source:?}",
                target.join(rest)
            ),
            "use the path that the symlink leads to, or remove Sandbox::landlock_fallback",
        ));
    }
    Ok(())
}

fn inside_writable(path: &Path) -> Error {
    Error::invalid(
        format!("Landlock cannot hide or protect {path:?} inside a writable bind"),
        "bind only the directories that the program may write to, or remove Sandbox::landlock_fallback",
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
