//! The root of the sandbox and the mounts in it, said in order: [`Root`] is a base and a list of operations.

mod bind;
mod cgroups;
mod describe;
mod devices;
mod endpoints;
mod git;
mod git_config;
mod lower;
mod overlay;
mod own;
mod protect;
mod remount;
mod target;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::host_path::HostPath;
pub(crate) use cgroups::are_writable as cgroups_are_writable;
pub(crate) use endpoints::{Endpoints, writable_places};
pub(crate) use lower::{Covering, Lowering, Procs, change_root, check_terminals, lower, mounts, open_procs, take_away};

/// The file system that a program sees.
///
/// Operations are carried out in the order in which they are said, and a later one covers an earlier one at the same
/// place. A mount point that is missing is created where the file system is the sandbox's own; on the host's nothing
/// is ever created, and a mount point that is missing there is an error.
///
/// # Sockets and FIFOs
///
/// A read-only mount does not prevent connect(2) to a UNIX socket, nor opening a FIFO for writing. In the read-only trees of
/// the host ([`Root::host`], [`Root::dir`], a [`Bind`] of a directory) the program can do neither:
///
/// | caller | sockets | FIFOs |
/// |---|---|---|
/// | root, the sandbox has a host id of its own, and the file system has idmapped mounts | unmapped owners: `EACCES` (Linux 5.12; tmpfs 6.3; not overlayfs, and FUSE by file system) | the same |
/// | any other | Landlock (Linux 7.1); before, a mask over each bound socket that the kernel lists at the start | Landlock (Linux 5.19) |
///
/// Landlock rules are left out where the filter of system calls lets the program mount, since they deny mounts. What remains
/// reachable is in [`Enforcement::gaps`](crate::Enforcement::gaps): before Linux 7.1 sockets that are bound after the start,
/// in another network namespace, by a relative path, or have a second name (a hard link); without Landlock FIFOs. A FIFO that
/// everybody may read can be read on every kernel.
///
/// Abstract sockets belong to the network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Root {
    base: Base,
    mounts: Vec<Mount>,
    writable: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    terminals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Base {
    Inherit,
    Empty,
    Host,
    Dir(HostPath),
}

/// An operation on the file system of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Mount {
    /// A tree of the host.
    Bind(Bind),
    /// A file system in memory.
    Tmpfs(Tmpfs),
    /// Layers of the host's directories with changes on top.
    Overlay(Overlay),
    /// The processes of the sandbox.
    Proc(Proc),
    /// A minimal `/dev`.
    Dev(#[cfg_attr(feature = "serde", serde(with = "crate::text::form"))] PathBuf),
    /// A regular file with contents of its own, read-only.
    File {
        /// Where it is.
        #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
        target: PathBuf,
        /// What is in it.
        contents: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
        text: OsString,
        /// Where it is.
        #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
        link: PathBuf,
    },
    /// A directory.
    Dir {
        /// Where it is.
        #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
        target: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Nothing to be seen at a path: an empty directory or file that nobody can open.
    Mask(#[cfg_attr(feature = "serde", serde(with = "crate::text::form"))] PathBuf),
    /// What is at a path, and everything below, read-only.
    ReadOnly(#[cfg_attr(feature = "serde", serde(with = "crate::text::form"))] PathBuf),
    /// What is at a path within a writable bind, read-only, so that it can't be replaced: see [`Root::protect`].
    Protect(#[cfg_attr(feature = "serde", serde(with = "crate::text::form"))] PathBuf),
}

impl Mount {
    /// The path inside that it is about.
    fn target(&self) -> &Path {
        match self {
            Self::Bind(Bind { target, .. })
            | Self::Tmpfs(Tmpfs { target, .. })
            | Self::Overlay(Overlay { target, .. })
            | Self::Proc(Proc { target, .. })
            | Self::File { target, .. }
            | Self::Dir { target, .. }
            | Self::Symlink { link: target, .. }
            | Self::Dev(target)
            | Self::Mask(target)
            | Self::ReadOnly(target)
            | Self::Protect(target) => target,
        }
    }

    /// Whether what was there is out of sight.
    fn covers(&self) -> bool {
        !matches!(self, Self::Dir { .. } | Self::Symlink { .. } | Self::ReadOnly(_) | Self::Protect(_))
    }
}

/// A tree of the host, with everything that is mounted in it.
///
/// It is read-only unless [`Bind::writable`] is said, with all its submounts (mount_setattr(2), `AT_RECURSIVE`), and
/// set-uid programs and device nodes in it have no effect. In a root host's sandbox it is seen through an idmapped
/// mount, so that the program reads and writes there as the owner would, and what it writes belongs to the owner. A
/// file system without idmapped mounts is then seen as by any other user if it is bound read-only, and is an error if
/// it is bound writable.
///
/// **The files of a root caller appear as the program's own by default, private ones too**: `bind("/etc", "/etc")` shows
/// `/etc/shadow`. Use [`Bind::unmapped`] for directories of the system.
///
/// The program can't connect to UNIX sockets in a read-only tree, nor write to FIFOs in it, as [`Root`] describes; in a
/// writable tree it can. To let it use a socket, bind the socket itself, or say [`Bind::sockets`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Bind {
    source: HostPath,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    target: PathBuf,
    writable: bool,
    noexec: bool,
    devices: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    sockets: bool,
    owner: Owner,
    #[cfg_attr(feature = "serde", serde(default))]
    git: bool,
}

/// Whose files of a bind or an overlay are the program's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Owner {
    #[default]
    Caller,
    Ids(u32, u32),
    Nobody,
}

/// Which owner's files appear as the program's own: the same for binds and overlays.
macro_rules! owner_methods {
    () => {
        /// Sets the user and group on the disk whose files appear as the program's own, where the caller is root.
        ///
        /// Default: the caller. **A root caller's program then reads every file in the tree that root may read as its
        /// owner: `/etc/shadow` and private keys in `/etc`, if that is the tree.** Use [`unmapped`](Self::unmapped) for
        /// directories of the system.
        #[must_use]
        pub fn owner(mut self, uid: u32, gid: u32) -> Self {
            self.owner = Owner::Ids(uid, gid);
            self
        }

        /// Shows the tree to the program as to any other user of the host: no owner's files are its own, and it reads
        /// what everybody may read.
        #[must_use]
        pub fn unmapped(mut self) -> Self {
            self.owner = Owner::Nobody;
            self
        }
    };
}

impl Bind {
    /// Shows what is at `source` on the host at `target`.
    ///
    /// A source that is a symlink is followed, unless the bind is [`writable`](Self::writable): see [`HostPath`].
    pub fn new(source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        Self {
            source,
            target,
            writable: false,
            noexec: false,
            devices: false,
            sockets: false,
            owner: Owner::Caller,
            git: false,
        }
    }

    /// Shows what is at `path` below a trusted directory of the host at `target`, and follows no symlink below it:
    /// [`HostPath::beneath`]. For every source that a program could have written.
    pub fn beneath(directory: impl Into<PathBuf>, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::new(HostPath::beneath(directory, path), target)
    }

    /// Follows a source that is a symlink also if the bind is writable: [`HostPath::follow_symlinks`].
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.source = self.source.follow_symlinks();
        self
    }

    /// The program may write. Submounts that the host has read-only stay so, and so do cgroup file systems, in which the
    /// program could change its limits; a source that is one of these is an error.
    /// A source that is a symlink is an error too, unless [`follow_symlinks`](Self::follow_symlinks) allows it.
    ///
    /// What the program leaves there is its own to shape, and a root host finds it as root's. Every seccomp policy denies
    /// set-user-ID and set-group-ID files, unless it is [`Seccomp::unconfined`](crate::Seccomp::unconfined) or has
    /// [`Seccomp::allow_set_id_bits`](crate::Seccomp::allow_set_id_bits): then collect what comes out of a sandbox into a
    /// place where nobody runs it. Do not bind a directory that holds such files already: the program keeps what bits
    /// they have, and may change their contents through a mapping.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Allows the program to connect to the UNIX sockets in the tree and to write to the FIFOs in it, as far as their
    /// permissions go.
    ///
    /// Default: only in a writable tree. In a read-only one they are cut off, as [`Root`] describes. A socket or FIFO that is
    /// bound by itself needs no such request.
    #[must_use]
    pub fn sockets(mut self) -> Self {
        self.sockets = true;
        self
    }

    /// Whether sockets and FIFOs in the tree are out of reach.
    fn is_cut_off(&self) -> bool {
        !(self.writable || self.devices || self.sockets)
    }

    /// Protects what git(1) on the host would execute later, in a writable bind of a workspace or of a git directory.
    ///
    /// The program commits, branches and merges as usual. It can't change the configuration, or plant a hook. Protected are:
    ///
    /// - `.git/hooks`, `.git/config` and what it includes, `config.worktree`, `commondir`;
    /// - the directory of `core.hooksPath`, of this configuration and of the caller's own (`~/.gitconfig`,
    ///   `~/.config/git/config`, `/etc/gitconfig`), if it lies in the bind. If a directory above it in the workspace is hidden,
    ///   that one is protected, since hooks execute what lies beside them: `.husky` for `.husky/_`;
    /// - the same of each submodule, and where the files of each linked worktree are;
    /// - in a linked worktree `.git`, its git directory and its common directory, if they lie in the bind. Bind the common
    ///   directory with this as well if the program is to commit;
    /// - where there is no `.git`, that none can be created.
    ///
    /// What a later mount covers is left out. See [`Root::protect`] for how a path is protected, and Linux 5.12.
    ///
    /// # What is not protected
    ///
    /// The workspace is still untrusted data, and other tools execute what is in it. Protect by [`Root::protect`]
    /// what yours take commands from: `.pre-commit-config.yaml`, `lefthook.yml`, `.overcommit.yml` and the like, which hooks
    /// read; `.envrc` of direnv; `.vscode` and `.idea`; `.cargo/config.toml`, `Makefile`, `package.json` and other build
    /// files, if you build outside of a sandbox.
    ///
    /// A program can make a nested repository with a configuration of its own, in the place of a submodule that is not
    /// checked out, or anywhere else if it adds it to the index. git on the host
    /// enters it and executes what that configuration names, in `git status`, `diff`, `add` and `commit`; no settings on the
    /// command line prevent that in every case. Nor does git ask before it goes on with an interrupted rebase, whose `exec`
    /// lines a program can have written. So let git fetch the program's commits into another clone, and look at them there
    /// (git-fetch(1) executes nothing of the repository that it fetches from but its configuration, which is protected), or run
    /// git in a sandbox too:
    ///
    /// ```no_run
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let root = Root::host().git_workspace("/home/me/project", "/tmp/project");
    /// let mut status = Command::new("git");
    /// status.args(["-c", "safe.directory=*", "-C", "/tmp/project", "status", "--short"]);
    /// let output = Sandbox::new().root(root).output(&status)?;
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn protect_git(mut self) -> Self {
        self.git = true;
        self
    }

    /// No program in it can be executed (`MS_NOEXEC`).
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.noexec = true;
        self
    }

    /// Device nodes in it can be opened, as far as their permissions go (without `MS_NODEV`).
    #[must_use]
    pub fn devices(mut self) -> Self {
        self.devices = true;
        self
    }

    owner_methods!();
}

/// A file system in memory (tmpfs(5)), without set-uid programs and device nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tmpfs {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    target: PathBuf,
    size: Option<u64>,
    inodes: Option<u64>,
    mode: u32,
    noexec: bool,
}

impl Tmpfs {
    /// An empty one at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), size: None, inodes: None, mode: 0o755, noexec: false }
    }

    /// Sets the number of bytes that it holds at most, rounded up to whole pages. Default: 512 MiB.
    #[must_use]
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Sets the number of files and directories that it holds at most, beside its size: each takes about 1 KiB of kernel
    /// memory. Default: one for each 4 KiB of its size, at least 1,024.
    #[must_use]
    pub fn inodes(mut self, count: u64) -> Self {
        self.inodes = Some(count);
        self
    }

    /// Permissions of its top directory, which belongs to the program. Default 0755.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// No program in it can be executed (`MS_NOEXEC`).
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.noexec = true;
        self
    }
}

/// Layers of directories, with the program's changes on top (Documentation/filesystems/overlayfs.rst; in a user
/// namespace since Linux 5.11).
///
/// The rule about owners is that of [`Bind`]: **a root caller's files appear as the program's own by default, private ones
/// too.** With [`Overlay::unmapped`] the program has no more rights over the files of the lower layers than any other user of
/// the host. What it writes to [`Overlay::upper`] belongs to the caller all the same.
///
/// Sockets and FIFOs in a lower layer do not lead to those of the host: overlayfs shows them without their other ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Overlay {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    target: PathBuf,
    lowers: Vec<HostPath>,
    upper: Upper,
    #[cfg_attr(feature = "serde", serde(default))]
    owner: Owner,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Upper {
    Tmpfs(Option<u64>),
    Dirs { upper: HostPath, work: HostPath },
}

impl Overlay {
    /// One at `target`, whose changes go to memory and end with the sandbox.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), lowers: vec![], upper: Upper::Tmpfs(None), owner: Owner::Caller }
    }

    /// Adds a directory of the host, below those that were added before. Mounts in it are not seen. Use
    /// [`HostPath::beneath`] for one that a program could have written.
    #[must_use]
    pub fn lower(mut self, directory: impl Into<HostPath>) -> Self {
        self.lowers.push(directory.into());
        self
    }

    /// Keeps the changes in memory, and sets the number of bytes that they may take. The number of files is bounded as that
    /// of a [`Tmpfs`] of this size. Default: 512 MiB.
    #[must_use]
    pub fn upper_tmpfs(mut self, bytes: u64) -> Self {
        self.upper = Upper::Tmpfs(Some(bytes));
        self
    }

    /// Directories of the host that keep the changes: `upper` holds them, and `work`, an empty directory on the same
    /// file system, is the kernel's. No two sandboxes may use the same ones at a time. Remove them by
    /// [`remove_dir_all`](crate::remove_dir_all): an ordinary user may not enter what the kernel has made in `work`.
    ///
    /// One that is a symlink is an error: see [`HostPath`].
    #[must_use]
    pub fn upper(mut self, upper: impl Into<HostPath>, work: impl Into<HostPath>) -> Self {
        self.upper = Upper::Dirs { upper: upper.into(), work: work.into() };
        self
    }

    owner_methods!();
}

/// A `/proc` of the sandbox's own processes (proc(5)).
///
/// Without a pid namespace of the sandbox's own the kernel makes none: the host's is shown then, read-only, and the
/// options are refused. It is read-only also where the program is the host's root on the host
/// ([`Identity::caller`](crate::Identity::caller)).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proc {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    target: PathBuf,
    hidepid: Option<HidePid>,
    subset_pid: bool,
}

/// What a program sees in `/proc` of processes that it may not trace (proc(5), `hidepid`). A program in the host's group
/// 0, as a root host's with [`Identity::caller`](crate::Identity::caller) is, sees them all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum HidePid {
    /// Their directories, but nothing in them (1).
    NoAccess = 1,
    /// Nothing (2).
    Invisible = 2,
    /// Nothing of any process that it can't trace, whatever the group (4, since Linux 5.8).
    Ptraceable = 4,
}

impl Proc {
    /// One at `target`.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), hidepid: None, subset_pid: false }
    }

    /// Hides processes that the program may not trace.
    #[must_use]
    pub fn hidepid(mut self, hidepid: HidePid) -> Self {
        self.hidepid = Some(hidepid);
        self
    }

    /// Nothing but processes: no `/proc/sys`, `/proc/cpuinfo` and the like (`subset=pid`, since Linux 5.8).
    #[must_use]
    pub fn subset_pid(mut self) -> Self {
        self.subset_pid = true;
        self
    }
}

macro_rules! mount_from {
    ($($kind:ident),+) => {
        $(impl From<$kind> for Mount { fn from(mount: $kind) -> Self { Self::$kind(mount) } })+
    };
}
mount_from!(Bind, Tmpfs, Overlay, Proc);

impl Root {
    fn new(base: Base) -> Self {
        Self { base, mounts: vec![], writable: false, terminals: 0 }
    }

    /// The host's file system, read-only, without what is nobody else's business: a `/proc` of the sandbox's own, a
    /// minimal `/dev`, private `/tmp`, `/var/tmp` and `/run`, no home directories, and of `/sys` the processors and
    /// memory nodes alone (`/sys/devices/system`). `/proc/keys` is masked where the program is the caller on the host,
    /// whose keys it would list.
    ///
    /// `/tmp` and `/var/tmp` hold 512 MiB each, and `/run` 16 MiB. A [`Tmpfs`] at the same place replaces one:
    /// `Root::host().mount(Tmpfs::new("/tmp").size(4 << 30).mode(0o1777))`. All of it is memory of the sandbox, which a
    /// cgroup limits together ([`Cgroup::memory_max`](crate::Cgroup::memory_max)).
    ///
    /// A program can lock every file that it can read, with flock(2), or with fcntl(2) against writers. Locks are advisory,
    /// but a program of the host that waits for such a lock, as a database does, is stopped as long as the sandbox runs. Hide
    /// what others depend on, as [`profile::build_step`](crate::profile::build_step) and
    /// [`profile::test`](crate::profile::test()) do with `/var`.
    ///
    /// The root itself is a tmpfs, in which the top-level directories of the host are bound, so that mount points
    /// directly below `/` can be created. It holds what is there when the plan is made.
    pub fn host() -> Self {
        Self::new(Base::Host)
    }

    /// Nothing: a read-only tmpfs, in which the operations create what they need.
    pub fn empty() -> Self {
        Self::new(Base::Empty)
    }

    /// What is in a directory of the host, read-only: a tmpfs in which its entries are bound, so that mount points
    /// directly below `/` can be created without touching the directory.
    ///
    /// Without [`Namespaces::MOUNT`](crate::Namespaces::MOUNT) it is the directory itself, by chroot(2), and can have
    /// no operations.
    ///
    /// Use [`HostPath::beneath`] for a directory that a program could have written.
    pub fn dir(path: impl Into<HostPath>) -> Self {
        Self::new(Base::Dir(path.into()))
    }

    /// The host's file system as it is, writable where the program's user may write. It can have no operations. The terminals of
    /// the machine are among it: see [`Root::terminals`] for what they cost.
    ///
    /// With [`Namespaces::MOUNT`](crate::Namespaces::MOUNT) cgroup file systems are read-only, so that the program can't
    /// change its own limits or those of others. Without it see [`Cgroup`](crate::Cgroup).
    pub fn inherit() -> Self {
        Self::new(Base::Inherit)
    }

    /// Lets the program write to the top directory of the sandbox, a tmpfs of 64 MiB.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Adds an operation.
    #[must_use]
    pub fn mount(mut self, mount: impl Into<Mount>) -> Self {
        self.mounts.push(mount.into());
        self
    }

    /// Binds a tree of the host read-only: see [`Bind`]. Below a writable bind it can be evaded by renaming a directory above
    /// it: see [`protect`](Self::protect).
    #[must_use]
    pub fn bind(self, source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target))
    }

    /// Binds a tree of the host, and lets the program write there: see [`Bind`]. A source that is a symlink is an error:
    /// see [`HostPath`].
    #[must_use]
    pub fn bind_rw(self, source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).writable())
    }

    /// An empty file system in memory that holds `size` bytes: see [`Tmpfs`].
    #[must_use]
    pub fn tmpfs(self, target: impl Into<PathBuf>, size: u64) -> Self {
        self.mount(Tmpfs::new(target).size(size))
    }

    /// Changes that are kept in memory, on top of a directory of the host: see [`Overlay`].
    #[must_use]
    pub fn overlay(self, lower: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.mount(Overlay::new(target).lower(lower))
    }

    /// A `/proc` of the sandbox's own: see [`Proc`].
    #[must_use]
    pub fn proc(self, target: impl Into<PathBuf>) -> Self {
        self.mount(Proc::new(target))
    }

    /// Mounts a minimal `/dev`: `null`, `zero`, `full`, `random`, `urandom`, `tty`, the links to the descriptors, and file
    /// systems of the sandbox's own for shared memory (`shm`, 512 MiB), message queues (`mqueue`), and, on request, terminals
    /// (`pts`, `ptmx`): see [`Root::terminals`].
    #[must_use]
    pub fn dev(self, target: impl Into<PathBuf>) -> Self {
        self.mount(Mount::Dev(target.into()))
    }

    /// Lets the program open so many pseudo-terminals of its own at a time (pty(7)), beside that of
    /// [`Command::pty`](crate::Command::pty): script(1), expect(1), tmux(1), sshd(8) and the tests of a terminal library do.
    ///
    /// Default: none. `/dev/ptmx` and `/dev/pts` do not exist then, and opening one fails with `ENOENT`. Where the command
    /// has its own terminal by [`Command::pty`](crate::Command::pty) and no others are allowed, it fails with `ENOSPC`.
    ///
    /// What is written to a terminal is passed on by kernel threads. **That CPU time counts to no cgroup**: a program that
    /// writes to a terminal without pause uses CPUs beyond [`Cgroup::cpu_max`](crate::Cgroup::cpu_max) and
    /// [`Limits::cpu`](crate::Limits::cpu), on as many CPUs as it has terminals. All terminals also count to
    /// `kernel.pty.max` of the machine, so that a small number is best.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) at the spawn if the sandbox has no [`Root::dev`].
    #[must_use]
    pub fn terminals(mut self, count: u32) -> Self {
        self.terminals = count;
        self
    }

    /// A read-only file with these bytes in it, with permissions 0444.
    #[must_use]
    pub fn file(self, target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        self.mount(Mount::File { target: target.into(), contents: contents.into(), mode: 0o444 })
    }

    /// A symbolic link at `link` that says `text`.
    #[must_use]
    pub fn symlink(self, text: impl Into<OsString>, link: impl Into<PathBuf>) -> Self {
        self.mount(Mount::Symlink { text: text.into(), link: link.into() })
    }

    /// A directory with permissions 0755, where the file system is the sandbox's own.
    #[must_use]
    pub fn directory(self, target: impl Into<PathBuf>) -> Self {
        self.mount(Mount::Dir { target: target.into(), mode: 0o755 })
    }

    /// Protects a path within a writable bind: the program can neither change it, nor replace it, nor rename or remove a
    /// directory above it.
    ///
    /// Every directory from the bind down to the path is bound onto itself, and a mount point can't be renamed (rename(2),
    /// `EBUSY`; between what is below it and what is not a rename gives `EXDEV`, and programs copy); the path itself is bound
    /// read-only. The bind must be added before; the paths of all operations are
    /// protected when everything else stands. A path that is, or leads through, a symlink is an error, and so is one that a
    /// later mount covers. The same files under another name, by a second bind of them or by a hard link, are not protected.
    ///
    /// Where nothing exists at the path, the program could create it. Then a placeholder stands there on the host while the
    /// sandbox lives: an empty file, or an empty directory if the path ends with a slash. Where a directory above it is
    /// missing, that one is the placeholder. It is removed when the last sandbox that protects the path ends. If the caller
    /// is killed, it stays until another sandbox that protects the same path ends. One that somebody has written to stays.
    /// The program sees it too: git(1) inside shows an empty file as untracked, and `git add --all` adds it.
    ///
    /// The host can still replace what is protected: a rename there takes the mount away, and the new file is writable.
    ///
    /// Needs Linux 5.12.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let workspace = tempfile::tempdir()?;
    /// std::fs::create_dir_all(workspace.path().join("scripts"))?;
    /// std::fs::write(workspace.path().join("scripts/deploy"), "echo deployed\n")?;
    ///
    /// let root = Root::host().bind_rw(workspace.path(), "/tmp/work").protect("/tmp/work/scripts/deploy");
    /// let script = "cd /tmp/work; echo evil > scripts/deploy || mv scripts x || rm -rf scripts; touch scripts/new";
    /// let outcome = Sandbox::new().root(root).output(Command::new("sh").args(["-c", script]))?.outcome;
    ///
    /// assert!(outcome.success());
    /// assert!(workspace.path().join("scripts/new").exists());
    /// assert_eq!(std::fs::read_to_string(workspace.path().join("scripts/deploy"))?, "echo deployed\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn protect(self, path: impl Into<PathBuf>) -> Self {
        self.mount(Mount::Protect(path.into()))
    }

    /// Binds a workspace of git(1) that the program may write to, and protects what the host's git would execute later, such
    /// as hooks: [`Bind::protect_git`] lists what is protected and what is not.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let workspace = tempfile::tempdir()?;
    /// std::fs::create_dir_all(workspace.path().join(".git/hooks"))?;
    ///
    /// let sandbox = Sandbox::new().root(Root::host().git_workspace(workspace.path(), "/tmp/work"));
    /// let script = "cd /tmp/work; echo work > file; echo evil > .git/hooks/post-checkout";
    /// assert!(!sandbox.output(Command::new("sh").args(["-c", script]))?.outcome.success());
    ///
    /// assert!(workspace.path().join("file").exists());
    /// assert!(!workspace.path().join(".git/hooks/post-checkout").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn git_workspace(self, source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.mount(Bind::new(source, target).writable().protect_git())
    }

    /// Hides what is at a path: see [`Mount::Mask`]. A path that does not exist has nothing to hide.
    ///
    /// The mask covers the file or directory that is there when the sandbox starts, not its name. If the host renames another
    /// one to that path (as editors and package managers do when they save a file), the mask falls off in every sandbox that
    /// sees the directory, and a file that is created there later is not hidden. Hide the directory around it, or leave that
    /// out of the root, where the host changes files while a sandbox lives. In a writable bind the program can rename a
    /// directory above the mask, put another in its place, and create the path anew: see [`protect`](Self::protect).
    #[must_use]
    pub fn mask(self, path: impl Into<PathBuf>) -> Self {
        self.mount(Mount::Mask(path.into()))
    }

    /// Makes what is at a path read-only, with everything that is mounted below it so far.
    ///
    /// In a writable bind this does not keep the program from renaming a directory above the path and creating the path anew:
    /// use [`protect`](Self::protect). If the host renames something to the path, that is writable.
    #[must_use]
    pub fn read_only(self, path: impl Into<PathBuf>) -> Self {
        self.mount(Mount::ReadOnly(path.into()))
    }

    /// The terminals that a `/dev` has room for, with that of the command.
    pub(crate) fn terminals_beside(&self, command: u32) -> u32 {
        self.terminals.saturating_add(command)
    }

    /// A root that takes the same features of the kernel, and no path of the host but `/`.
    pub(crate) fn reference(&self) -> Self {
        let is_host = self.base == Base::Host;
        let has = |is: fn(&Mount) -> bool| self.mounts.iter().any(is);
        let mut root = Self::empty().mount(Bind::new("/", "/host").unmapped()).mount(Tmpfs::new("/tmp"));
        if is_host || has(|mount| matches!(mount, Mount::Proc(_))) {
            root = root.proc("/proc");
        }
        if is_host || has(|mount| matches!(mount, Mount::Dev(_))) {
            root = root.dev("/dev");
        }
        if has(|mount| matches!(mount, Mount::Overlay(_))) {
            root = root.overlay("/", "/overlay");
        }
        root.terminals = self.terminals.min(1);
        root
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether it leaves the host's mounts as they are.
    pub(crate) fn needs_mount_namespace(&self) -> bool {
        match self.base {
            Base::Inherit => !self.mounts.is_empty(),
            Base::Dir(_) => !self.mounts.is_empty(),
            Base::Empty | Base::Host => true,
        }
    }

    /// The directory that chroot(2) takes, where there is no mount namespace.
    pub(crate) fn chroot(&self) -> Option<&HostPath> {
        match &self.base {
            Base::Dir(path) if self.mounts.is_empty() => Some(path),
            _ => None,
        }
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.base == Base::Inherit && self.mounts.is_empty()
    }
}
