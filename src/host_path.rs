//! Paths of the host, and which symlinks in them are followed. Whoever opens a path that a program may have been able to
//! write takes it from here.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno as NixErrno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::Errno;

/// A path of the host, and which symlinks in it are followed (path_resolution(7)).
///
/// A program leaves what it likes in a directory that it may write to, a symlink to `/etc` for example. Whoever binds,
/// reads or writes by a path below that directory later would be led there, with the rights of the caller. So:
///
/// | path | symlinks |
/// |---|---|
/// | [`HostPath::beneath`] | followed in the trusted directory's own path, never below it |
/// | any other, where the program or the crate writes: the source of a writable [`Bind`](crate::Bind), `upper` and `work` of an [`Overlay`](crate::Overlay), both paths of [`Collector::copy`](crate::Collector::copy) | followed, but for the last component |
/// | any other, where it is only read: the source of a read-only bind, a lower layer, [`Root::dir`](crate::Root::dir) | followed |
/// | with [`HostPath::follow_symlinks`] | followed |
///
/// Use `beneath` for every path that leads through a directory that a program could write to, read-only binds too: by a
/// symlink that one program has left, the next one would read files that were not meant for it.
///
/// A path is resolved when the sandbox is described in system calls ([`Sandbox::plan`](crate::Sandbox::plan),
/// [`Sandbox::spawn`](crate::Sandbox::spawn)). What is opened later is the resolved path, without symlinks (openat2(2),
/// `RESOLVE_NO_SYMLINKS`): if one appears in between, the sandbox fails with `ELOOP`.
///
/// Hard links are not covered: a file that is bound may have other names. A program can't link from one mount to another,
/// so it can only have linked files of the same writable bind.
///
/// Everything that converts into a [`PathBuf`] converts into a `HostPath`.
///
/// ```
/// use std::os::unix::fs::symlink;
/// use stockade::{Bind, Command, HostPath, Root, Sandbox};
///
/// let workspace = tempfile::tempdir()?;
/// symlink("/etc", workspace.path().join("out"))?; // what an earlier program has left
///
/// let write = |bind: Bind| Sandbox::new().root(Root::host().mount(bind.writable())).status(Command::new("true"));
/// assert!(write(Bind::new(workspace.path().join("out"), "/tmp/out")).is_err());
/// assert!(write(Bind::beneath(workspace.path(), "out/ssl", "/tmp/out")).is_err());
///
/// std::fs::create_dir(workspace.path().join("results"))?;
/// assert!(write(Bind::new(HostPath::beneath(workspace.path(), "results"), "/tmp/out"))?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Two programs, one after the other, the second of which uses what the first has left:
///
/// ```
/// use stockade::{Bind, Collector, Command, HostPath, Root, Sandbox};
///
/// let workspace = tempfile::tempdir()?;
/// let build = Sandbox::new().root(Root::host().bind_rw(workspace.path(), "/tmp/work"));
/// let script = "cd /tmp/work; mkdir out; echo 42 > out/answer; ln -s /etc/passwd out/more";
/// assert!(build.status(Command::new("sh").args(["-c", script]))?.success());
///
/// // The second reads it where it lies, read-only.
/// let results = Bind::beneath(workspace.path(), "out", "/tmp/results");
/// let test = Sandbox::new().root(Root::host().mount(results));
/// assert_eq!(test.output(Command::new("cat").arg("/tmp/results/answer"))?.stdout, b"42\n");
///
/// // The caller takes copies of files, and no links.
/// let place = tempfile::tempdir()?;
/// let kept = place.path().join("kept");
/// let collected = Collector::new().copy(HostPath::beneath(workspace.path(), "out"), &kept)?;
/// assert_eq!((collected.files, collected.left.len()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HostPath {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    beneath: Option<PathBuf>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    path: PathBuf,
    follow: bool,
}

/// Why a path could not be resolved or opened.
#[derive(Debug)]
pub(crate) struct Unresolved {
    pub call: &'static str,
    pub errno: Errno,
    pub remedy: Option<&'static str>,
}

impl<P: Into<PathBuf>> From<P> for HostPath {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

/// The path as it was given.
impl Display for HostPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.given().display().fmt(f)
    }
}

const LAST: &str = "it is a symlink, which an earlier program may have left: name the place that it leads to, remove it, \
                    or allow it with HostPath::follow_symlinks";
const BELOW: &str = "there is a symlink below the trusted directory, which HostPath::beneath never follows: remove it, or \
                     name the place that it leads to";
const RELATIVE: &str = "a path beneath a directory is relative and has no `..`: name it from the directory on";
const FOLLOWED: &str = "HostPath::beneath never follows symlinks: leave HostPath::follow_symlinks out";
const NAMELESS: &str =
    "what is created or removed has a name: give a path that ends in one, and not in `/`, `.` or `..`";
/// What to do where openat2(2) is refused.
pub(crate) const REFUSED: &str = "openat2(2) exists since Linux 5.6, and is refused here by the kernel or by a filter of system \
     calls around the caller, such as that of a container: update the kernel, or let the filter allow the call. There is no \
     other safe way";

impl HostPath {
    /// A path. A relative one starts at the caller's working directory at the time at which it is resolved.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { beneath: None, path: path.into(), follow: false }
    }

    /// A path below a directory that is trusted: one whose own path no program could have changed. `path` is relative, has
    /// no `..`, and leads through no symlink; otherwise using it is an error.
    pub fn beneath(directory: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        Self { beneath: Some(directory.into()), path: path.into(), follow: false }
    }

    /// Follows a symlink in the last component too, where it is not by default. Only for paths that no program could have
    /// written.
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.follow = true;
        self
    }

    /// The path as it was given.
    pub(crate) fn given(&self) -> PathBuf {
        self.beneath.as_ref().map_or_else(|| self.path.clone(), |directory| directory.join(&self.path))
    }

    /// The absolute path, in which no component is a symlink. `follow` says whether the last one is followed by default.
    pub(crate) fn resolve(&self, follow: bool) -> Result<PathBuf, Unresolved> {
        if self.beneath.is_none() && (follow || self.follow) {
            return real(&self.path);
        }
        let path = self.parts()?.map_or_else(|| real(&self.path), |(above, rest)| Ok(real(above)?.join(rest)))?;
        self.open_resolved(&path, OFlag::O_PATH).map(|_| path)
    }

    /// Opens what is there. The last component is not followed by default.
    pub(crate) fn open(&self, flags: OFlag) -> Result<OwnedFd, Unresolved> {
        self.open_resolved(&self.resolve(false)?, flags)
    }

    /// Opens the directory that something is to be created in, or removed from, and gives its name.
    pub(crate) fn open_parent(&self) -> Result<(OwnedFd, OsString), Unresolved> {
        let nameless = || invalid(NAMELESS);
        let (above, rest) = self.parts()?.ok_or_else(nameless)?;
        // The trusted directory itself is not below it.
        rest.file_name().ok_or_else(nameless)?;
        let path = real(above)?.join(rest);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(nameless)?;
        Ok((self.open_resolved(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name.to_owned()))
    }

    /// The part of the path in which symlinks are followed, and the rest. `None` if the path ends in `..` or is the root.
    fn parts(&self) -> Result<Option<(&Path, &Path)>, Unresolved> {
        let Some(directory) = &self.beneath else {
            let above = self.path.parent().map(|above| if above == Path::new("") { Path::new(".") } else { above });
            return Ok(above.zip(self.path.file_name().map(Path::new)));
        };
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !self.path.components().all(is_plain) {
            return Err(invalid(RELATIVE));
        }
        if self.follow {
            return Err(invalid(FOLLOWED));
        }
        Ok(Some((directory, &self.path)))
    }

    fn open_resolved(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Unresolved> {
        open_plain(AT_FDCWD, path.as_os_str(), flags).map_err(|errno| Unresolved {
            call: "openat2",
            errno: errno.into(),
            remedy: match errno {
                NixErrno::ELOOP => Some(if self.beneath.is_some() { BELOW } else { LAST }),
                NixErrno::ENOSYS | NixErrno::EPERM => Some(REFUSED),
                _ => None,
            },
        })
    }
}

/// Opens a path in which no component may be a symlink.
fn open_plain(directory: impl AsFd, path: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(directory, path, how)
}

/// The path with every symlink followed.
fn real(path: &Path) -> Result<PathBuf, Unresolved> {
    let failed = |error: io::Error| Unresolved { call: "realpath", errno: error.into(), remedy: None };
    path.canonicalize().map_err(failed)
}

fn invalid(remedy: &'static str) -> Unresolved {
    Unresolved { call: "openat2", errno: Errno(libc::EINVAL), remedy: Some(remedy) }
}
