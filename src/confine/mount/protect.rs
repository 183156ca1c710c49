//! Protected paths within writable binds: they are read-only, and each directory above them is a mount point, which
//! cannot be renamed or removed (rename(2), `EBUSY`). Which paths git(1) executes is in `git`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::bind::Bind;
use super::builder::Builder;
use super::operation::Operation;
use super::target::Target;
use crate::confine::facts::Facts;
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::launch::is_placeholder_directory;
use crate::layer::Layer;
use crate::plan::{Absent, Change, Placeholder, Step};

/// A protected path.
pub(super) struct Protected {
    /// The target of the bind that contains it.
    bind: PathBuf,
    /// The path relative to the bind. If nothing exists there, that of a placeholder.
    below: PathBuf,
    /// Otherwise it is only a mount point: it can be written to, but not renamed or removed.
    read_only: bool,
}

/// Hints for calls that protect a path.
const PROTECT_HINTS: &[(i32, &str)] = &[
    (libc::ENOENT, "it was removed after it was resolved: spawn again"),
    (libc::ELOOP, "it was replaced by a symlink after it was resolved: remove the symlink"),
];

/// Returns the protected paths of all writable binds, and the placeholders for those that do not exist.
pub(super) fn resolve(facts: &Facts, operations: &[Operation]) -> Result<(Vec<Protected>, Vec<Placeholder>)> {
    let (mut resolved, mut kept) = ((vec![], vec![]), vec![]);
    let mut add = |bind: &Bind, source: &Path, below: &Path, absent: Absent| -> Result<()> {
        let (protected, placeholder) = resolve_one(bind, source, below, absent)?;
        resolved.0.push(protected);
        resolved.1.push(placeholder);
        Ok(())
    };
    for (index, mount) in operations.iter().enumerate() {
        match mount {
            Operation::Protect(path) => {
                let (place, bind) = bind_above(&operations[..index], path).ok_or_else(|| {
                    Error::invalid(
                        format!("{} cannot be protected: it is not below a writable bind", path.display()),
                        "bind a directory above it with Root::bind_rw before, or remove Root::protect: a read-only path needs no \
                         protection",
                    )
                })?;
                if let Some(above) = covering(&operations[place + 1..], path) {
                    return Err(Error::invalid(
                        format!(
                            "{} cannot be protected in the bind {}: what is mounted at {} later covers it",
                            path.display(),
                            bind.target.display(),
                            above.display()
                        ),
                        "remove Root::protect if what covers it is read-only; otherwise add the bind after that mount, or call \
                         Root::protect after the writable bind that covers it",
                    ));
                }
                let below = path.strip_prefix(&bind.target).unwrap_or(path);
                let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
                let absent = if is_directory { Absent::Directory } else { Absent::EmptyFile };
                add(bind, &bind.resolve_source(facts)?, below, absent)?;
            }
            Operation::Bind(bind) if bind.git && bind.writable => {
                let source = bind.resolve_source(facts)?;
                // The program cannot reach a covered path.
                let is_reachable =
                    |below: &Path| covering(&operations[index + 1..], &bind.target.join(below)).is_none();
                let paths = super::git::search(&source)?;
                for (below, absent) in paths.read_only.iter().filter(|(below, _)| is_reachable(below)) {
                    add(bind, &source, below, *absent)?;
                }
                for below in paths.kept.into_iter().filter(|below| is_reachable(below)) {
                    kept.push(Protected { bind: bind.target.clone(), below, read_only: false });
                }
            }
            _ => {}
        }
    }
    resolved.0.append(&mut kept);
    Ok(resolved)
}

/// Returns the last writable bind above a path, with its index.
fn bind_above<'a>(operations: &'a [Operation], path: &Path) -> Option<(usize, &'a Bind)> {
    operations.iter().enumerate().rev().find_map(|(place, mount)| match mount {
        Operation::Bind(bind) if bind.writable && path != bind.target && path.starts_with(&bind.target) => {
            Some((place, bind))
        }
        _ => None,
    })
}

/// Returns the target of a later operation that covers a path.
fn covering<'a>(later: &'a [Operation], path: &Path) -> Option<&'a Path> {
    later.iter().filter(|mount| mount.covers()).map(Operation::target).find(|target| path.starts_with(target))
}

/// Resolves a protected path of a bind. `absent` is the placeholder if nothing exists there.
fn resolve_one(bind: &Bind, source: &Path, below: &Path, absent: Absent) -> Result<(Protected, Placeholder)> {
    // Returns an error for `..` and the like.
    Target::new(&bind.target.join(below))?;
    let parts: Vec<&OsStr> = below.iter().collect();
    for count in 1..=parts.len() {
        let part: PathBuf = parts[..count].iter().collect();
        let error = match HostPath::beneath(source, &part).open(OFlag::O_PATH) {
            // A placeholder of another sandbox, or of a caller that was killed. Nothing may be created in it, since it
            // would no longer be recognized as one.
            Ok(there) if count < parts.len() && is_placeholder_directory(&there) => {
                return Ok(protected(bind, source, part, Absent::Directory));
            }
            Ok(_) => continue,
            Err(error) => error,
        };
        if error.errno.number() != libc::ENOENT {
            let remedy = match error.errno.number() {
                libc::ELOOP => {
                    "it is a symlink, or leads through one, which cannot be protected: protect what it leads to"
                }
                _ => "protect a path that the caller can reach",
            };
            let error = Error::set_up("resolve the protected path", error.call, error.errno, Some(remedy));
            return Err(error.on(source.join(part)));
        }
        // A missing directory above it gets the placeholder.
        let absent = if count < parts.len() { Absent::Directory } else { absent };
        return Ok(protected(bind, source, part, absent));
    }
    let absent = match absent {
        _ if source.join(below).is_dir() => Absent::Directory,
        Absent::Directory => Absent::EmptyFile,
        file => file,
    };
    Ok(protected(bind, source, below.components().collect(), absent))
}

fn protected(bind: &Bind, source: &Path, below: PathBuf, absent: Absent) -> (Protected, Placeholder) {
    let path = source.join(&below);
    let parent = path.parent().unwrap_or(source).to_owned();
    let placeholder = Placeholder { parent, name: path.file_name().unwrap_or_default().to_owned(), absent };
    (Protected { bind: bind.target.clone(), below, read_only: true }, placeholder)
}

impl Builder<'_> {
    /// Protects paths, after all operations were carried out.
    pub(super) fn protect(&mut self, all: &[Protected]) -> Result<()> {
        if !all.is_empty() && !self.has_setattr() {
            return Err(Error::unsupported(
                Layer::Root,
                "Root::protect requires mount_setattr(2), which the kernel lacks",
                "use Linux 5.12 or later, or bind the directory read-only",
            ));
        }
        // Each directory once, and those above first.
        let above = |one: &Protected| -> Vec<_> {
            let parents = one.below.ancestors().skip(1).filter(|parent| *parent != Path::new(""));
            parents.map(|parent| (one.bind.clone(), parent.to_owned(), false)).collect()
        };
        let mut places: BTreeSet<(PathBuf, PathBuf, bool)> = all.iter().flat_map(above).collect();
        places.extend(all.iter().map(|one| (one.bind.clone(), one.below.clone(), one.read_only)));
        for (bind, below, read_only) in places {
            self.bind_onto_itself(&bind, &below, read_only)?;
        }
        Ok(())
    }

    /// Binds a path of a bind onto itself, so that it is a mount point.
    fn bind_onto_itself(&mut self, bind: &Path, below: &Path, read_only: bool) -> Result<()> {
        let target = Target::new(bind)?;
        let helper = &mut *self.context.helper;
        helper.step(Step::new("protect").path(bind.join(below)).remedies(PROTECT_HINTS));
        let top = target.open(helper, self.root);
        // Follows no symlink, which a program could have created.
        let place = helper.open_beneath(top, below.as_os_str()).store("protected");
        let tree = helper.open_tree(place, "");
        if read_only {
            helper.mount_setattr(tree, Change::tree(crate::plan::Attributes::RDONLY));
        }
        helper.step(Step::new("protect").path(bind.join(below)).remedies(PROTECT_HINTS));
        helper.move_mount(tree, place);
        for slot in [tree, place, top] {
            helper.close(slot);
        }
        Ok(())
    }
}
