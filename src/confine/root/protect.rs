//! Paths within writable binds that stay as they are: read-only, and below directories that can't be renamed or removed,
//! since each is a mount point (rename(2), EBUSY).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::bind::resolve_source;
use super::lower::Builder;
use super::target::Target;
use super::{Bind, Mount};
use crate::confine::host::Host;
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::plan::{Change, Placeholder, Step};

/// A path that is protected.
pub(super) struct Protected {
    /// Where the bind is that it lies in.
    bind: PathBuf,
    /// The path below it. If it does not exist, that of a placeholder.
    below: PathBuf,
}

/// What stands at a protected path that does not exist: a file with these contents, or a directory.
pub(super) type Absent = Option<Vec<u8>>;

const PROTECT: &[(i32, &str)] = &[
    (libc::ENOENT, "it was removed after the plan was made: spawn again"),
    (libc::ELOOP, "it was replaced by a symlink after the plan was made: remove that"),
];

/// What is protected, in every writable bind, and the placeholders that takes.
pub(super) fn resolve(host: &Host, mounts: &[Mount]) -> Result<(Vec<Protected>, Vec<Placeholder>)> {
    let mut resolved = (vec![], vec![]);
    let mut add = |bind: &Bind, source: &Path, below: &Path, absent: Absent| -> Result<()> {
        let (protected, placeholder) = resolve_one(bind, source, below, absent)?;
        resolved.0.push(protected);
        resolved.1.push(placeholder);
        Ok(())
    };
    for (index, mount) in mounts.iter().enumerate() {
        match mount {
            Mount::Protect(path) => {
                let (place, bind) = within(&mounts[..index], path).ok_or_else(|| {
                    Error::invalid(
                        format!("{} can't be protected: it is not below a writable bind", path.display()),
                        "bind the directory around it with Root::bind_rw before, or leave the path out: what is not \
                         writable needs no protection",
                    )
                })?;
                if let Some(above) = covering(&mounts[place + 1..], path) {
                    return Err(Error::invalid(
                        format!(
                            "{} can't be protected in the bind {}: what is mounted at {} later covers it",
                            path.display(),
                            bind.target.display(),
                            above.display()
                        ),
                        "leave the path out if the program can't write to what covers it; else add the bind after that, or \
                         call Root::protect after a writable bind that covers it",
                    ));
                }
                let below = path.strip_prefix(&bind.target).unwrap_or(path);
                let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
                add(bind, &resolve_source(host, &bind.source, false)?, below, (!is_directory).then(Vec::new))?;
            }
            Mount::Bind(bind) if bind.git && bind.writable => {
                let source = resolve_source(host, &bind.source, false)?;
                for (below, absent) in super::git::executed(&source) {
                    // What is covered is out of the program's reach.
                    if covering(&mounts[index + 1..], &bind.target.join(&below)).is_none() {
                        add(bind, &source, &below, absent)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(resolved)
}

/// The writable bind that a path is below, and its place in the list.
fn within<'a>(mounts: &'a [Mount], path: &Path) -> Option<(usize, &'a Bind)> {
    mounts.iter().enumerate().rev().find_map(|(place, mount)| match mount {
        Mount::Bind(bind) if bind.writable && path != bind.target && path.starts_with(&bind.target) => {
            Some((place, bind))
        }
        _ => None,
    })
}

/// Where something is mounted over a path.
fn covering<'a>(later: &'a [Mount], path: &Path) -> Option<&'a Path> {
    later.iter().filter(|mount| mount.covers()).map(Mount::target).find(|target| path.starts_with(target))
}

fn resolve_one(bind: &Bind, source: &Path, below: &Path, absent: Absent) -> Result<(Protected, Placeholder)> {
    // Refuses `..` and the like.
    Target::new(&bind.target.join(below))?;
    let parts: Vec<&OsStr> = below.iter().collect();
    for count in 1..=parts.len() {
        let part: PathBuf = parts[..count].iter().collect();
        let error = match HostPath::beneath(source, &part).open(OFlag::O_PATH) {
            // Of another sandbox, or of a caller that was killed: nothing is created in it, which would take its mark away.
            Ok(there) if count < parts.len() && is_placeholder(&there) => {
                return Ok(protected(bind, source, part, None));
            }
            Ok(_) => continue,
            Err(error) => error,
        };
        if error.errno.0 != libc::ENOENT {
            let remedy = match error.errno.0 {
                libc::ELOOP => {
                    "it is a symlink, or leads through one, which can't be protected: protect what it leads to"
                }
                _ => "protect a path that the caller can reach",
            };
            let error = Error::set_up("looking for what is to be protected:", error.call, error.errno, Some(remedy));
            return Err(error.on(source.join(part)));
        }
        // What is missing above it is kept from being created as well.
        return Ok(protected(bind, source, part, if count < parts.len() { None } else { absent }));
    }
    let absent = if source.join(below).is_dir() { None } else { absent.or(Some(vec![])) };
    Ok(protected(bind, source, below.components().collect(), absent))
}

fn is_placeholder(there: &OwnedFd) -> bool {
    let there = there.try_clone().and_then(|there| File::from(there).metadata());
    there.is_ok_and(|there| there.is_dir() && Placeholder::is_one(&there))
}

fn protected(bind: &Bind, source: &Path, below: PathBuf, contents: Absent) -> (Protected, Placeholder) {
    let path = source.join(&below);
    let parent = path.parent().unwrap_or(source).to_owned();
    let placeholder = Placeholder { parent, name: path.file_name().unwrap_or_default().to_owned(), contents };
    (Protected { bind: bind.target.clone(), below }, placeholder)
}

impl Builder<'_> {
    /// Protects paths, when everything else stands.
    pub(super) fn protect(&mut self, all: &[Protected]) -> Result<()> {
        if !all.is_empty() && !self.has_setattr() {
            return Err(Error::invalid(
                "Root::protect needs mount_setattr(2), to be recursive",
                "use Linux 5.12 or later, or bind the directory read-only",
            ));
        }
        // Those above first, and each once.
        let above = |one: &Protected| -> Vec<_> {
            let parents = one.below.ancestors().skip(1).filter(|parent| *parent != Path::new(""));
            parents.map(|parent| (one.bind.clone(), parent.to_owned(), false)).collect()
        };
        let mut places: BTreeSet<(PathBuf, PathBuf, bool)> = all.iter().flat_map(above).collect();
        places.extend(all.iter().map(|one| (one.bind.clone(), one.below.clone(), true)));
        for (bind, below, read_only) in places {
            self.fix(&bind, &below, read_only)?;
        }
        Ok(())
    }

    /// Makes a mount point of what is at a path in a bind.
    fn fix(&mut self, bind: &Path, below: &Path, read_only: bool) -> Result<()> {
        let target = Target::new(bind)?;
        let helper = &mut *self.l.helper;
        helper.step(Step::new("protecting").path(bind.join(below)).remedies(PROTECT));
        let top = target.open(helper, self.root);
        // No symlink that a program has left is followed.
        let place = helper.open_beneath(top, below.as_os_str()).store("protected");
        let tree = helper.open_tree(place, "");
        if read_only {
            helper.mount_setattr(tree, Change::tree(crate::plan::Attributes::RDONLY));
        }
        helper.step(Step::new("protecting").path(bind.join(below)).remedies(PROTECT));
        helper.move_mount(tree, place);
        for slot in [tree, place, top] {
            helper.close(slot);
        }
        Ok(())
    }
}
