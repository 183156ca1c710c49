//! What the declared inputs are on the host: files, directories or symlinks. It is looked up before the set-up, without
//! following a symlink below the directory of the inputs.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{SFlag, fstatat};

use super::inputs::{InputSet, Inputs};
use super::source::resolve_source;
use crate::confine::facts::Facts;
use crate::error::{Error, Result};
use crate::host_path::{is_directory, open_without_symlinks};
use crate::unix::ToErrno;

/// An input.
pub(super) struct InputEntry<'a> {
    /// The path below the target.
    pub to: &'a Path,
    /// The directory that it is from, by its index, and the path below it.
    pub set: usize,
    pub from: &'a Path,
    pub kind: InputKind,
}

pub(super) enum InputKind {
    File,
    Directory,
    /// A symlink with this text.
    Symlink(OsString),
}

/// The inputs, and the directories that they are from.
pub(super) struct InputEntries<'a> {
    pub directories: Vec<PathBuf>,
    /// Sorted by the path below the target.
    pub entries: Vec<InputEntry<'a>>,
}

impl InputEntries<'_> {
    /// Returns the path of an input on the host.
    pub fn source(&self, entry: &InputEntry<'_>) -> PathBuf {
        self.directories[entry.set].join(entry.from)
    }
}

impl Inputs {
    /// Returns the directories that the inputs are from, without symlinks.
    pub(super) fn directories(&self, facts: &Facts) -> Result<Vec<PathBuf>> {
        let resolve = |set: &InputSet| {
            let directory = resolve_source(facts, &set.directory, true)?;
            if is_directory(&directory) {
                return Ok(directory);
            }
            let what = format!("the inputs are from {}, which is not a directory", directory.display());
            Err(Error::invalid(what, "pass the directory above them, and their paths in it"))
        };
        self.sets.iter().map(resolve).collect()
    }

    /// Looks the inputs up.
    pub(super) fn entries(&self, facts: &Facts) -> Result<InputEntries<'_>> {
        let (directories, mut entries) = (self.directories(facts)?, vec![]);
        for (index, (set, directory)) in self.sets.iter().zip(&directories).enumerate() {
            set.look_up(index, directory, &mut entries)?;
        }
        // The inputs of one directory are sorted already.
        entries.sort_by(|one, other| one.to.cmp(other.to));
        self.check_apart(&entries)?;
        Ok(InputEntries { directories, entries })
    }

    /// Returns an error if two inputs have the same path, or if one is inside another.
    fn check_apart(&self, entries: &[InputEntry<'_>]) -> Result<()> {
        let mut last: Option<&Path> = None;
        for InputEntry { to, .. } in entries {
            match last {
                // What is inside an input follows it.
                Some(above) if to.starts_with(above) => {
                    let show = |path: &Path| self.target.join(path).display().to_string();
                    let relation = if *to == above { "declared twice, from two directories" } else { "inside another" };
                    return Err(Error::invalid(
                        format!("the input {} is {relation}: {}", show(to), show(above)),
                        "remove one of the two",
                    ));
                }
                _ => last = Some(to),
            }
        }
        Ok(())
    }
}

impl InputSet {
    fn look_up<'a>(&'a self, set: usize, directory: &Path, entries: &mut Vec<InputEntry<'a>>) -> Result<()> {
        let mut opened: Option<(&Path, OwnedFd)> = None;
        for (to, from) in &self.paths {
            let (above, name) = split(from)?;
            split(to)?;
            let fd = match opened.take() {
                Some((known, fd)) if known == above => fd,
                _ => open_directory(directory, above, from)?,
            };
            let kind = kind_in(fd.as_fd(), name, || directory.join(from))?;
            opened = Some((above, fd));
            entries.push(InputEntry { to, set, from, kind });
        }
        Ok(())
    }
}

/// Splits the path of an input into the directory above it and its name. Returns an error if it is not relative and plain.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    let is_plain =
        path.components().all(|part| matches!(part, Component::Normal(_))) && !path.as_os_str().as_bytes().contains(&0);
    path.parent().zip(path.file_name()).filter(|_| is_plain).ok_or_else(|| {
        Error::invalid(
            format!("{path:?} is not a valid path of an input"),
            "use a path that is relative to its directory, without `.`, `..` and zero bytes",
        )
    })
}

fn failed(call: &'static str, errno: Errno, path: PathBuf) -> Error {
    let hint = match errno {
        Errno::ENOENT => "it does not exist on the host: create it, or remove it from the inputs",
        Errno::ELOOP => "a directory above it is a symlink: pass the path that the symlink leads to",
        Errno::ENOTDIR => "a component above it is not a directory: remove it from the inputs",
        _ => "pass paths that exist on the host and that the caller can reach",
    };
    Error::set_up("find the input", call, errno.to_errno(), Some(hint)).on(path)
}

fn open_directory(directory: &Path, above: &Path, from: &Path) -> Result<OwnedFd> {
    let path = directory.join(above);
    let opened = open_without_symlinks(nix::fcntl::AT_FDCWD, path.as_os_str(), OFlag::O_PATH | OFlag::O_DIRECTORY);
    opened.map_err(|errno| failed("openat2", errno, directory.join(from)))
}

fn kind_in(directory: impl AsFd, name: &OsStr, path: impl Fn() -> PathBuf) -> Result<InputKind> {
    let status = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT)
        .map_err(|errno| failed("newfstatat", errno, path()))?;
    Ok(match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => InputKind::File,
        SFlag::S_IFDIR => InputKind::Directory,
        SFlag::S_IFLNK => {
            InputKind::Symlink(readlinkat(&directory, name).map_err(|errno| failed("readlinkat", errno, path()))?)
        }
        _ => {
            return Err(Error::invalid(
                format!("the input {} is a socket, a FIFO or a device", path().display()),
                "pass files, directories and symlinks only, and bind others with Root::bind",
            ));
        }
    })
}
