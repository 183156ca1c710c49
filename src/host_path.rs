//! Paths of the host, and which symlinks in them are followed. Code that opens a path which a program may have written
//! must resolve it here. Paths inside a sandbox do not belong here.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno as NixErrno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag, fstatat};

use crate::unix::{Errno, ToErrno};

/// A path of the host, with a rule for which symlinks in it are followed.
///
/// A program can create anything in a directory to which it may write, for example a symlink to `/etc`. If the caller
/// later binds, reads or writes a path below that directory, it would follow the symlink with the caller's rights. So
/// not every symlink is followed:
///
/// | path | symlinks |
/// |---|---|
/// | [`HostPath::beneath`] | followed in the path of the trusted directory, never below it. With [`HostPath::follow_symlinks`] it is an error (`EINVAL`) |
/// | any other that the program can write to: the source of a writable [`Bind`](crate::mount::Bind), [`Root::from_dir_rw`](crate::Root::from_dir_rw), `upper` and `work` of an [`Overlay`](crate::mount::Overlay) | followed, except in the last component, which [`HostPath::follow_symlinks`] allows |
/// | `from` of [`Collector::copy`](crate::collect::Collector::copy) and [`Collector::read`](crate::collect::Collector::read) | the same |
/// | `to` of [`Collector::copy`](crate::collect::Collector::copy), and [`remove_dir_all`](crate::collect::remove_dir_all) | followed, except in the last component, even with [`HostPath::follow_symlinks`] |
/// | any other: the source of a read-only bind, a lower layer, [`Root::from_dir`](crate::Root::from_dir) | followed |
///
/// Use `beneath` for every path through a directory that a program could write to, also for a read-only bind: through a
/// symlink that one program has created, the next program could read files that it must not see.
///
/// A path is resolved when the sandbox is compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn). The set-up
/// then opens the resolved path without following symlinks (openat2(2), `RESOLVE_NO_SYMLINKS`).
///
/// Hard links are not detected: a bound file may have other names. A program cannot create a link from one mount to
/// another, so only files of the same writable bind can be linked.
///
/// Every type that converts into a [`PathBuf`] converts into a `HostPath`.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed)
///
/// - with `ELOOP` if a component is a symlink that is not followed;
/// - with `EINVAL` for an invalid path of [`HostPath::beneath`];
/// - with `ENOENT`, `EACCES` and the like if the path cannot be resolved.
///
/// When spawned, the same with `ELOOP` if a component has become a symlink after the path was resolved.
///
/// Functions of [`collect`](crate::collect) return the same with [`ErrorKind::Io`](crate::ErrorKind::Io).
///
/// See path_resolution(7).
///
/// ```
/// use std::os::unix::fs::symlink;
/// use stockade::mount::{Bind, HostPath};
/// use stockade::{Command, Root, Sandbox};
///
/// let workspace = tempfile::tempdir()?;
/// symlink("/etc", workspace.path().join("out"))?; // created by an earlier program
///
/// let write = |bind: Bind| Sandbox::new().root(Root::host().with(bind.writable())).status(Command::new("true"));
/// assert!(write(Bind::new(workspace.path().join("out"), "/tmp/out")).is_err());
/// assert!(write(Bind::beneath(workspace.path(), "out/ssl", "/tmp/out")).is_err());
///
/// std::fs::create_dir(workspace.path().join("results"))?;
/// assert!(write(Bind::new(HostPath::beneath(workspace.path(), "results"), "/tmp/out"))?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// One program writes files, and the next program and the caller read them:
///
/// ```
/// use stockade::collect::Collector;
/// use stockade::mount::{Bind, HostPath};
/// use stockade::{Command, Root, Sandbox};
///
/// let workspace = tempfile::tempdir()?;
/// let build = Sandbox::new().root(Root::host().bind_rw(workspace.path(), "/tmp/work"));
/// let script = "cd /tmp/work; mkdir out; echo 42 > out/answer; ln -s /etc/passwd out/more";
/// assert!(build.status(Command::new("sh").args(["-c", script]))?.success());
///
/// // The second program reads them through a read-only bind.
/// let results = Bind::beneath(workspace.path(), "out", "/tmp/results");
/// let test = Sandbox::new().root(Root::host().with(results));
/// assert_eq!(test.output(Command::new("cat").arg("/tmp/results/answer"))?.stdout, b"42\n");
///
/// // The caller copies the files, and skips symlinks.
/// let directory = tempfile::tempdir()?;
/// let kept = directory.path().join("kept");
/// let collected = Collector::new().copy(HostPath::beneath(workspace.path(), "out"), &kept)?;
/// assert_eq!((collected.files, collected.skipped.len()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPath {
    beneath: Option<PathBuf>,
    path: PathBuf,
    follow: bool,
}

#[cfg(feature = "serde")]
mod stored_path {
    use std::fmt::{self, Formatter};
    use std::path::PathBuf;

    use serde::de::value::{MapAccessDeserializer, StrDeserializer};
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
    use serde::ser::{Serialize, Serializer};

    use super::HostPath;
    use crate::stored::{As, Escaped, Form};

    /// All fields of a path.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[cfg_attr(feature = "_schema", derive(schemars::JsonSchema), schemars(rename = "HostPathTable"))]
    #[serde(deny_unknown_fields)]
    struct Whole {
        #[serde(with = "As::<Option<Escaped>>", default)]
        beneath: Option<PathBuf>,
        #[serde(with = "As::<Escaped>")]
        path: PathBuf,
        #[serde(default)]
        follow_symlinks: bool,
    }

    #[cfg(feature = "_schema")]
    impl schemars::JsonSchema for HostPath {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "HostPath".into()
        }

        fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<Whole>()] })
        }
    }

    impl From<Whole> for HostPath {
        fn from(whole: Whole) -> Self {
            Self { beneath: whole.beneath, path: whole.path, follow: whole.follow_symlinks }
        }
    }

    /// Serializes a path that is only a path as text, in human-readable formats.
    impl Serialize for HostPath {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() && self.beneath.is_none() && !self.follow {
                return <Escaped as Form<PathBuf>>::serialize(&self.path, serializer);
            }
            let (beneath, path) = (self.beneath.clone(), self.path.clone());
            Whole { beneath, path, follow_symlinks: self.follow }.serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for HostPath {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                deserializer.deserialize_any(TextOrWhole)
            } else {
                Whole::deserialize(deserializer).map(Into::into)
            }
        }
    }

    struct TextOrWhole;

    impl<'de> Visitor<'de> for TextOrWhole {
        type Value = HostPath;

        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("a path, or a map with the keys beneath, path and follow_symlinks")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<HostPath, E> {
            <Escaped as Form<PathBuf>>::deserialize(StrDeserializer::new(text)).map(HostPath::new)
        }

        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<HostPath, M::Error> {
            Whole::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
        }
    }
}

/// The error if a path cannot be resolved or opened.
#[derive(Debug)]
pub(crate) struct ResolveError {
    pub call: &'static str,
    pub errno: Errno,
    pub hint: Option<&'static str>,
}

impl<P: Into<PathBuf>> From<P> for HostPath {
    fn from(path: P) -> Self {
        Self::new(path)
    }
}

/// Formats the path that was specified, before it is resolved.
impl Display for HostPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.unresolved().display().fmt(f)
    }
}

const LAST_IS_SYMLINK: &str = "it is a symlink, which an earlier program may have created: use the path that it leads to, \
                               remove it, or allow it with HostPath::follow_symlinks";
const SYMLINK_BENEATH: &str = "a component below the trusted directory is a symlink, which HostPath::beneath never follows: \
                               remove it, or use the path that it leads to";
const NOT_RELATIVE: &str = "use a path that is relative to the directory of HostPath::beneath and has no `..`";
const BENEATH_FOLLOWS: &str = "HostPath::beneath never follows symlinks: remove HostPath::follow_symlinks";
const NO_FILE_NAME: &str = "use a path that ends in a name, and not in `/`, `.` or `..`";
/// The hint if openat2(2) is denied or missing. No older call is safe.
pub(crate) const NO_OPENAT2: &str = "the kernel (before Linux 5.6) or a seccomp filter of the caller, such as that of a container, \
     denies openat2(2): update the kernel, or allow the call";

impl HostPath {
    /// Creates a path. Whether a symlink in its last component is followed depends on what the path is used for: see
    /// the table of [`HostPath`].
    ///
    /// A relative path starts at the working directory that the caller has when the path is resolved.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { beneath: None, path: path.into(), follow: false }
    }

    /// Creates a path below a trusted directory, in which no symlink below that directory is followed.
    ///
    /// A directory is trusted if no program could have changed its own path. `path` must be relative and contain no
    /// `..`.
    ///
    /// # Errors
    ///
    /// Those of [`HostPath`], when the path is used: `EINVAL` if `path` is absolute or contains `..`, and `ELOOP` if it
    /// leads through a symlink.
    pub fn beneath(directory: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        Self { beneath: Some(directory.into()), path: path.into(), follow: false }
    }

    /// Follows a symlink in the last component as well, where the table of [`HostPath`] allows that. Use it only for
    /// paths that no program could have changed.
    ///
    /// Default: see the table of [`HostPath`].
    ///
    /// # Errors
    ///
    /// Those of [`HostPath`], when the path is used: `EINVAL` for a path of [`HostPath::beneath`].
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Changes the path that the rest starts at: the trusted directory, or the whole path.
    #[cfg(feature = "config")]
    pub(crate) fn map_start(&mut self, change: impl FnOnce(&Path) -> PathBuf) {
        let start = self.beneath.as_mut().unwrap_or(&mut self.path);
        *start = change(start);
    }

    /// Returns whether it is a path of [`HostPath::beneath`].
    pub(crate) fn is_beneath(&self) -> bool {
        self.beneath.is_some()
    }

    /// Returns the path that was specified, before it is resolved.
    pub(crate) fn unresolved(&self) -> PathBuf {
        self.beneath.as_ref().map_or_else(|| self.path.clone(), |directory| directory.join(&self.path))
    }

    /// Returns the absolute path without symlinks. `follow`: whether a symlink in the last component is followed by
    /// default.
    pub(crate) fn resolve(&self, follow: bool) -> Result<PathBuf, ResolveError> {
        if self.beneath.is_none() && (follow || self.follow) {
            return canonical(&self.path);
        }
        let path =
            self.split()?.map_or_else(|| canonical(&self.path), |(above, rest)| Ok(canonical(above)?.join(rest)))?;
        self.open_resolved(&path, OFlag::O_PATH).map(|_| path)
    }

    /// Opens the file. A symlink in the last component is not followed by default.
    pub(crate) fn open(&self, flags: OFlag) -> Result<OwnedFd, ResolveError> {
        self.open_resolved(&self.resolve(false)?, flags)
    }

    /// Opens the directory above a file to be created or removed, and returns it with the file's name.
    pub(crate) fn open_parent(&self) -> Result<(OwnedFd, OsString), ResolveError> {
        let nameless = || invalid(NO_FILE_NAME);
        let (above, rest) = self.split()?.ok_or_else(nameless)?;
        // The trusted directory itself is not below itself.
        rest.file_name().ok_or_else(nameless)?;
        let path = canonical(above)?.join(rest);
        let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(nameless)?;
        Ok((self.open_resolved(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name.to_owned()))
    }

    /// Splits the path into the part in which symlinks are followed, and the rest. `None` if it ends in `..` or is the
    /// root.
    fn split(&self) -> Result<Option<(&Path, &Path)>, ResolveError> {
        let Some(directory) = &self.beneath else {
            let above = self.path.parent().map(|above| if above == Path::new("") { Path::new(".") } else { above });
            return Ok(above.zip(self.path.file_name().map(Path::new)));
        };
        let is_plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !self.path.components().all(is_plain) {
            return Err(invalid(NOT_RELATIVE));
        }
        if self.follow {
            return Err(invalid(BENEATH_FOLLOWS));
        }
        Ok(Some((directory, &self.path)))
    }

    /// Opens a resolved path, in which no component may have become a symlink.
    fn open_resolved(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, ResolveError> {
        open_without_symlinks(AT_FDCWD, path.as_os_str(), flags).map_err(|errno| ResolveError {
            call: "openat2",
            errno: errno.to_errno(),
            hint: match errno {
                NixErrno::ELOOP => Some(if self.beneath.is_some() { SYMLINK_BENEATH } else { LAST_IS_SYMLINK }),
                NixErrno::ENOSYS | NixErrno::EPERM => Some(NO_OPENAT2),
                _ => None,
            },
        })
    }
}

/// Opens a path in which no component may be a symlink.
pub(crate) fn open_without_symlinks(directory: impl AsFd, path: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(directory, path, how)
}

/// Returns the absolute path with every symlink followed (realpath(3)).
fn canonical(path: &Path) -> Result<PathBuf, ResolveError> {
    let failed = |error: io::Error| ResolveError { call: "realpath", errno: error.to_errno(), hint: None };
    path.canonicalize().map_err(failed)
}

/// Returns the status of a file of the host, and follows symlinks. Unlike `std::fs::metadata`, it triggers no automount
/// at the path, which can fail or hang.
pub(crate) fn status(path: &Path) -> nix::Result<FileStat> {
    fstatat(AT_FDCWD, path, AtFlags::AT_NO_AUTOMOUNT)
}

/// Returns whether a path of the host leads to a directory: see [`status`].
pub(crate) fn is_directory(path: &Path) -> bool {
    status(path).is_ok_and(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// An error for a path that openat2(2) need not be asked about.
fn invalid(hint: &'static str) -> ResolveError {
    ResolveError { call: "openat2", errno: Errno::EINVAL, hint: Some(hint) }
}
