//! [`Bind`]: a tree of the host in the sandbox. The system calls are in `bind_calls`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::file_owner::{Owner, owner_methods};
use crate::confine::open_descriptor::Descriptor;
use crate::host_path::HostPath;

/// A bind mount of a tree of the host, including everything that is mounted in the tree.
///
/// The bind and all mounts in it are read-only, unless it is [`writable`](Bind::writable). Set-user-ID programs and
/// device nodes in it have no effect.
///
/// In the sandbox of a privileged caller ([`Identity`](crate::Identity)) it is an idmapped mount: the program reads and
/// writes there as the owner of the files would, and files that it creates belong to the owner.
///
/// Some file systems do not support idmapped mounts (overlayfs, most of FUSE). On these, a read-only bind gives the
/// program the rights of any other user, and is an error if only the owner may read the source. A writable bind is an
/// error, also if only a mount below the source is of such a file system. Bind a directory of another file system
/// instead, such as a volume of the container, or use [`Identity::caller`](crate::Identity::caller).
///
/// **The files of a privileged caller appear as the program's own by default, private ones too**:
/// `bind("/etc", "/etc")` shows `/etc/shadow`. Use [`Bind::unmapped`] for directories of the system.
///
/// The program can connect to UNIX sockets and write to FIFOs in a writable tree, but not in a read-only one: see
/// [`Root`](crate::Root). To allow it to use a socket, bind the socket itself, or use [`Bind::sockets`].
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed)
///
/// - if the source does not exist, or cannot be resolved: see [`HostPath`];
/// - with `EINVAL`, for a privileged caller, if only the owner may read the source, its file system does not support
///   idmapped mounts, and the bind is not [`unmapped`](Bind::unmapped).
///
/// [`Bind::writable`] has further errors.
///
/// ```
/// use stockade::mount::Bind;
/// use stockade::{Command, Root, Sandbox};
///
/// let data = tempfile::tempdir()?;
/// let root = Root::host().with(Bind::new(data.path(), "/tmp/data").writable().noexec());
/// let outcome = Sandbox::new().root(root).status(Command::new("touch").arg("/tmp/data/new"))?;
/// assert!(outcome.success() && data.path().join("new").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "super::stored_mounts::StoredBind", into = "super::stored_mounts::StoredBind")
)]
pub struct Bind {
    pub(super) source: HostPath,
    /// The descriptor of the source, which `source` leads to then.
    pub(super) fd: Option<Descriptor>,
    pub(super) target: PathBuf,
    pub(super) writable: bool,
    pub(super) noexec: bool,
    pub(super) devices: bool,
    pub(super) sockets: bool,
    pub(super) owner: Owner,
    pub(super) git: bool,
}

impl Bind {
    /// Creates a read-only bind of the file or directory `source` of the host at `target` in the sandbox.
    ///
    /// If `source` is a symlink, it is followed, unless the bind is [`writable`](Self::writable): see [`HostPath`].
    pub fn new(source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        let (source, target) = (source.into(), target.into());
        Self {
            source,
            fd: None,
            target,
            writable: false,
            noexec: false,
            devices: false,
            sockets: false,
            owner: Owner::Caller,
            git: false,
        }
    }

    /// Creates a read-only bind of `path` below a trusted directory of the host, and follows no symlink below that
    /// directory: see [`HostPath::beneath`]. Use it for every source that a program could have written.
    pub fn beneath(directory: impl Into<PathBuf>, path: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::new(HostPath::beneath(directory, path), target)
    }

    /// Creates a read-only bind of the file or directory that a descriptor of the caller refers to. The file is bound
    /// even if another file is at its path by then.
    ///
    /// `O_PATH` descriptors are accepted. The rights of the program do not depend on how the descriptor was opened: a
    /// bind of one that was opened for reading can be [`writable`](Self::writable). The sandbox keeps the descriptor
    /// open, but the program does not inherit it.
    ///
    /// It cannot be stored (feature `serde`).
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the file has no path that leads
    /// to it in the caller's mount namespace: it was removed, another mount covers it, or it is a socket or a pipe.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) with `EAGAIN` if the file was renamed or
    /// replaced since, and the caller is unprivileged ([`Identity`](crate::Identity)). A privileged caller binds the
    /// renamed file.
    ///
    /// See open_tree(2), `AT_EMPTY_PATH`.
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// use stockade::mount::Bind;
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let data = tempfile::tempdir()?;
    /// std::fs::write(data.path().join("answer"), "42")?;
    /// let root = Root::host().with(Bind::from_fd(File::open(data.path())?, "/tmp/data"));
    /// assert_eq!(Sandbox::new().root(root).output(Command::new("cat").arg("/tmp/data/answer"))?.stdout, b"42");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_fd(fd: impl Into<OwnedFd>, target: impl Into<PathBuf>) -> Self {
        let fd = fd.into();
        // The kernel shows there where the file is now. That is followed, and compared with the file.
        let source = HostPath::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).follow_symlinks();
        Self { fd: Some(Descriptor(Arc::new(fd))), ..Self::new(source, target) }
    }

    /// Follows a source that is a symlink even if the bind is writable: see [`HostPath::follow_symlinks`].
    ///
    /// Default: followed in a read-only bind only.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) with `EINVAL` for a bind of [`Bind::beneath`].
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.source = self.source.follow_symlinks();
        self
    }

    /// Allows the program to write. Mounts in the tree that are read-only on the host stay read-only. So do cgroup file
    /// systems, in which the program could change its limits.
    ///
    /// If an operation follows, the set-up needs a descriptor for each mount in the tree until the end. For more mounts
    /// than the caller's hard limit of descriptors (`RLIMIT_NOFILE`), add the bind last.
    ///
    /// The program can create any file there. On the host, the files that the program of a privileged caller
    /// ([`Identity`](crate::Identity)) creates belong to the caller, or to the user that [`owner`](Self::owner) sets.
    /// So set-user-ID and set-group-ID files are dangerous:
    ///
    /// - Seccomp policies deny creating them, with these exceptions:
    ///   [`Seccomp::unconfined`](crate::Seccomp::unconfined) and any other policy that denies nothing,
    ///   [`Seccomp::allow_set_id_bits`](crate::Seccomp::allow_set_id_bits),
    ///   [`Sandbox::nestable`](crate::Sandbox::nestable), and policies that allow io_uring_setup(2). With these, bind a
    ///   directory that other users of the host cannot enter.
    /// - Do not bind a directory that contains such files: the program can change their contents through a memory
    ///   mapping, which keeps the bits.
    ///
    /// Default: read-only.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the source is read-only on the
    ///   host, or if it is a cgroup file system.
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the source does not exist, or if it is a symlink
    ///   and [`follow_symlinks`](Self::follow_symlinks) is not set (`ELOOP`).
    /// - For a privileged caller, unless the bind is [`unmapped`](Self::unmapped):
    ///   [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) with `EINVAL` if the file system of the source, or
    ///   of a mount below it, does not support idmapped mounts, and
    ///   [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the kernel has none.
    ///
    /// For a privileged caller, requires Linux 5.12.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Allows the program to connect to the UNIX sockets in the tree and to write to the FIFOs in it, as far as their
    /// permissions allow it.
    ///
    /// Default: allowed in a writable tree, and denied in a read-only one, as [`Root`](crate::Root) describes. A bind
    /// of a single socket or FIFO always allows its use.
    #[must_use]
    pub fn sockets(mut self) -> Self {
        self.sockets = true;
        self
    }

    /// Returns whether sockets and FIFOs in the tree are cut off.
    pub(super) fn is_cut_off(&self) -> bool {
        !(self.writable || self.devices || self.sockets)
    }

    /// Protects the files in a writable bind of a git workspace or git directory that git(1) on the host would execute
    /// or obey later.
    ///
    /// The program can commit, branch and merge as usual. It cannot change the configuration, or create a hook.
    /// Protected are:
    ///
    /// - `.git/hooks`, `.git/config` and what it includes, `config.worktree`, `commondir`;
    /// - the directory of `core.hooksPath` if it lies in the bind, as set in this configuration or in the caller's own
    ///   (`~/.gitconfig`, `~/.config/git/config`, `/etc/gitconfig`). If its path contains a hidden directory, that
    ///   directory is protected, since hooks execute files beside them: `.husky` for `.husky/_`;
    /// - files of the caller's own configuration, and what they include, if they lie in the bind;
    /// - the same files of each submodule, and the paths and hooks of each linked worktree;
    /// - in a linked worktree `.git`, its git directory and its common directory, if they lie in the bind. Bind the
    ///   common directory with this as well if the program is to commit;
    /// - the path `.git` if the source is no git repository: the program cannot create one;
    /// - the path `HEAD` beside `.git`: the program cannot make the workspace itself a bare repository, which git would
    ///   use if the program damaged `.git`.
    ///
    /// While the sandbox runs, empty directories appear on the host as placeholders for those of these paths that do
    /// not exist ([`Root::protect`](crate::Root::protect)). git does not list them, but `git clean -d` and
    /// `git stash --include-untracked` fail to remove them. If the caller may not write to the
    /// directory, which may belong to another user, the spawn fails with
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed).
    ///
    /// The same paths are protected in the next sandbox, whatever a program creates, renames or removes in this one. If
    /// a program leaves a workspace that cannot be searched, the next spawn fails:
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if a directory cannot be read, or if a symlink
    /// replaces one, and [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if there are more
    /// than 8,000 paths to protect, 200,000 directories to search, or 64 components in a path.
    ///
    /// A path that a later mount covers is skipped. [`Root::protect`](crate::Root::protect) describes how a path is
    /// protected.
    ///
    /// Default: not protected.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Linux 5.12.
    ///
    /// Requires Linux 5.12.
    ///
    /// # What is not protected
    ///
    /// The workspace is still untrusted data, and other tools execute files in it. Protect with
    /// [`Root::protect`](crate::Root::protect) the files from which your tools take commands:
    ///
    /// - programs of the workspace that the configuration names, such as filters, or that a hook is a symlink to;
    /// - files that hooks read, such as `.pre-commit-config.yaml`, `lefthook.yml` and `.overcommit.yml`;
    /// - `.envrc` of direnv, and the directories `.vscode` and `.idea`;
    /// - `.cargo/config.toml`, `Makefile`, `package.json` and other build files, if you build outside of a sandbox.
    ///
    /// A program can also create a nested repository with a configuration of its own: in the place of a submodule that
    /// is not checked out, or anywhere else if it adds it to the index. On the host, `git status`, `diff`, `add` and
    /// `commit` enter it and execute the commands of its configuration. No settings on the command line prevent that in
    /// every case. Nor does git ask before it continues an interrupted rebase, whose `exec` lines the program may have
    /// written.
    ///
    /// So do not run git on the host in a workspace to which a program could write. Either fetch the program's commits
    /// into another clone, and inspect them there: git-fetch(1) executes only what the configuration of the workspace
    /// names, which is protected. Or run git in a sandbox too:
    ///
    /// ```no_run
    /// # // Not run: it requires git(1) and a repository.
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

    /// Prevents programs in the tree from being executed (`MS_NOEXEC`).
    ///
    /// Default: allowed.
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.noexec = true;
        self
    }

    /// Allows opening device nodes in the tree, as far as their permissions allow it (no `MS_NODEV`).
    ///
    /// Default: denied.
    #[must_use]
    pub fn devices(mut self) -> Self {
        self.devices = true;
        self
    }

    owner_methods!();
}
