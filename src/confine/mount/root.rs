//! [`Root`]: the base of the file system of a sandbox, and the ordered list of operations on it. What an operation is
//! does not belong here, nor how it is carried out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::bind::Bind;
use super::inputs::Inputs;
use super::operation::Operation;
use super::overlay::{Overlay, Upper};
use super::proc::Proc;
use super::tmpfs::Tmpfs;
use crate::host_path::HostPath;

/// The file system that a program sees.
///
/// A root is a base, such as [`Root::host`], and a list of operations. They are carried out in the order in which they
/// were added. A later operation covers an earlier one at the same path.
///
/// A missing mount point is created if its file system belongs to the sandbox: the tmpfs of the root directory, a
/// [`Tmpfs`] or an [`Overlay`]. On a file system of the host nothing is created, and a missing mount point is an error.
///
/// Default: [`Root::host`].
///
/// ```
/// use stockade::{Command, Root, Sandbox};
///
/// let root = Root::host().tmpfs("/work", 1 << 20).file("/work/input", "42").symlink("input", "/work/link");
/// assert_eq!(Sandbox::new().root(root).output(Command::new("cat").arg("/work/link"))?.stdout, b"42");
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Sockets and FIFOs
///
/// A read-only mount does not prevent a program from connecting to a UNIX socket, or from opening a FIFO for writing.
/// In the read-only trees of the host ([`Root::host`], [`Root::from_dir`], a [`Bind`] of a directory), other means
/// prevent both:
///
/// | trees | sockets | FIFOs |
/// |---|---|---|
/// | [`Root::host`], [`Root::from_dir`] and binds with [`Bind::unmapped`], if a privileged caller ([`Identity`](crate::Identity)) gives the sandbox a host user ID of its own, and the file system supports idmapped mounts | opening fails with `EACCES`, because the owners are not mapped. Requires Linux 5.12 (tmpfs: 6.3); not on overlayfs and most of FUSE | the same |
/// | any other | Landlock denies them. Requires Linux 7.1; before, each bound socket that the kernel lists at the start is masked | Landlock denies them. Requires Linux 5.19 |
///
/// What remains reachable is listed in [`Enforcement::gaps`](crate::outcome::Enforcement::gaps):
///
/// - Before Linux 7.1, sockets that are bound after the start, in another network namespace or by a relative path, and
///   sockets with a second name (a hard link).
/// - Without Landlock, FIFOs. It is not used for this if the seccomp policy allows mounts, which Landlock would deny.
///
/// A FIFO that every user may read can be read on every kernel. Abstract sockets belong to the network namespace.
///
/// # Errors
///
/// - When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
///   [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a path in the sandbox is relative,
///   is `/`, or contains `..`, if [`Root::inherit`] has operations, or if the operations require a mount namespace and
///   none is created.
/// - When compiled, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if a path of the host cannot be resolved:
///   see [`HostPath`]. [`Bind`] and [`Overlay`] have further errors.
/// - When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if a mount point on a file system of the
///   host does not exist, or a mount fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Root {
    pub(super) base: Base,
    pub(super) operations: Vec<Operation>,
    pub(super) writable: bool,
    pub(super) terminals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
pub(super) enum Base {
    Inherit,
    Empty,
    Host,
    System,
    #[cfg_attr(feature = "serde", serde(rename = "from_dir"))]
    Dir(HostPath),
    #[cfg_attr(feature = "serde", serde(rename = "from_dir_rw"))]
    WritableDir(HostPath),
    #[cfg_attr(feature = "serde", serde(rename = "from_overlay"))]
    Overlay(Overlay),
}

/// [`Root::host`].
impl Default for Root {
    fn default() -> Self {
        Self::host()
    }
}

impl Root {
    fn new(base: Base) -> Self {
        Self { base, operations: vec![], writable: false, terminals: 0 }
    }

    /// Creates a root from the file system of the host, read-only and without private data:
    ///
    /// - `/proc` and `/dev` are new, and `/dev` is minimal ([`Root::dev`]).
    /// - `/tmp`, `/var/tmp` and `/run` are new and empty.
    /// - Home directories are hidden: `/home`, `/root`, and the caller's own (`HOME`, and its home in the user
    ///   database), under every name that mounts give them. Homes of other users elsewhere, such as those of system
    ///   users in `/var/lib`, stay visible. So does a home of the caller that belongs to another user, or is a
    ///   directory of the system such as `/usr`.
    /// - `/sys` shows only processors and memory nodes (`/sys/devices/system`).
    /// - `/proc/keys` is masked if the program has the caller's user ID on the host, since it would list the keys of
    ///   that user.
    /// - The host name of the sandbox resolves, and where the caller's network is shared, its names do
    ///   ([`Root::network_names`]).
    ///
    /// `/tmp` and `/var/tmp` hold 512 MiB each, and `/run` 16 MiB. To change that, cover one with a [`Tmpfs`]:
    /// `Root::host().with(Tmpfs::new("/tmp").size(4 << 30).mode(0o1777))`. Files there are memory of the sandbox, which
    /// [`Cgroup::memory_max`](crate::Cgroup::memory_max) limits.
    ///
    /// A program can lock every file that it can read (flock(2), fcntl(2)). A program of the host that waits for such a
    /// lock, such as a database, is blocked while the sandbox runs. Hide the files that programs of the host lock, as
    /// [`profile::build_step`](crate::profile::build_step) and [`profile::test`](crate::profile::test()) do with
    /// `/var`.
    ///
    /// The root directory is a tmpfs in which the top-level directories of the host are bound, so that mount points
    /// directly below `/` can be created. It contains the directories that exist when the sandbox is compiled
    /// ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn).
    pub fn host() -> Self {
        Self::new(Base::Host)
    }

    /// Creates a root with the programs and libraries of the host, read-only, and no other file of it:
    ///
    /// - `/usr`, without `/usr/src`, and `/bin`, `/sbin`, `/lib`, `/lib32` and `/lib64`, as directories or symlinks as on
    ///   the host; `/nix/store`, `/gnu/store` and `/run/current-system`. What does not exist on the host is left out.
    /// - Of `/etc`, what programs need to start: `/etc/ld.so.cache`, `/etc/alternatives`, and the settings of Java
    ///   (directories such as `/etc/java-17-openjdk`).
    ///
    /// Only files that every user may read are readable, also if the caller is root ([`Bind::unmapped`]). The root directory
    /// is an empty tmpfs, in which operations create their mount points. There is no `/proc`, `/dev` or `/tmp`: add those
    /// that the program needs. Compilers need `/tmp` and `/dev/null`.
    ///
    /// An operation at or above one of these paths replaces it: after `.bind("/etc", "/etc")` all of `/etc` is shown.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let root = Root::system().dev("/dev").tmpfs("/tmp", 64 << 20);
    /// let output = Sandbox::new().root(root).output(Command::new("sh").args(["-c", "ls -d /home /root /var; echo /tmp/*"]))?;
    /// assert_eq!(output.stdout, b"/tmp/*\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn system() -> Self {
        Self::new(Base::System)
    }

    /// Creates an empty root: a read-only tmpfs. Operations create their mount points in it.
    pub fn empty() -> Self {
        Self::new(Base::Empty)
    }

    /// Creates a root from a directory of the host, read-only.
    ///
    /// The root directory is a tmpfs in which the entries of the directory are bound, so that mount points directly
    /// below `/` can be created without changing the directory. Without [`Namespaces::MOUNT`](crate::Namespaces::MOUNT)
    /// it is the directory itself (chroot(2)), and operations are errors.
    ///
    /// Use [`HostPath::beneath`] for a directory that a program could have written.
    pub fn from_dir(path: impl Into<HostPath>) -> Self {
        Self::new(Base::Dir(path.into()))
    }

    /// Creates a root from a directory of the host, and allows the program to write to it. Changes are made on the
    /// host.
    ///
    /// It is what `Bind::new(path, "/").writable()` would be: mounts in the directory are shown, those that are
    /// read-only on the host stay so, files that the program creates belong to the caller, and sockets and FIFOs can be
    /// used. See [`Bind::writable`] for the dangers. **`Root::from_dir_rw("/")` allows the program to change the host**
    /// as far as the caller could.
    ///
    /// The directory itself is the root. So mount points of operations must exist in it, such as `/proc` and `/dev`. A
    /// directory of which only a copy is to be changed is one for [`Root::from_overlay`].
    ///
    /// If the directory is a symlink, that is an error: see [`HostPath`].
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn), those of [`Bind::writable`], and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if it is no directory.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let programs = ["/usr", "/bin", "/lib", "/lib64"];
    /// let directory = tempfile::tempdir()?;
    /// let mut root = Root::from_dir_rw(directory.path());
    /// for path in programs.iter().filter(|path| std::path::Path::new(path).exists()) {
    ///     std::fs::create_dir(directory.path().join(&path[1..]))?;
    ///     root = root.bind(path, path);
    /// }
    /// assert!(Sandbox::new().root(root).status(Command::new("touch").arg("/new"))?.success());
    /// assert!(directory.path().join("new").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_dir_rw(path: impl Into<HostPath>) -> Self {
        Self::new(Base::WritableDir(path.into()))
    }

    /// Creates a root from an overlay, whose target must be `/`: directories of the host, with the program's changes on
    /// top. The program can write to it, and the directories stay as they are.
    ///
    /// The changes are in memory, or in a directory of the caller's ([`Overlay::upper`]). From there
    /// [`Collector`](crate::collect::Collector) copies them, when the sandbox has terminated. It skips what is no
    /// regular file or directory, such as the whiteouts of removed files.
    ///
    /// Mounts in the layers are not shown, so a lower layer `/` has no `/proc`, and nothing of a `/home` or `/usr` with
    /// a file system of its own. Mount points of operations are created where they are missing, but not in a directory
    /// of [`Overlay::upper`], where they would stay.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn), those of [`Overlay`], and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if its target is not `/`.
    ///
    /// Requires Linux 5.11 in a user namespace.
    ///
    /// ```
    /// use stockade::mount::Overlay;
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let root = Root::from_overlay(Overlay::new("/").lower("/").upper_tmpfs(64 << 20).unmapped());
    /// # let root = ["/usr", "/bin", "/lib", "/lib64"].iter().fold(root, |root, path| {
    /// #     if std::path::Path::new(path).is_symlink() { root } else { root.bind(path, path) }
    /// # });
    /// let output = Sandbox::new().root(root).output(Command::new("sh").args(["-c", "echo new > /file; cat /file"]))?;
    /// assert_eq!(output.stdout, b"new\n");
    /// assert!(!std::path::Path::new("/file").exists());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn from_overlay(overlay: Overlay) -> Self {
        Self::new(Base::Overlay(overlay))
    }

    /// Creates a root that is the file system of the caller. The program can write wherever its user may write.
    /// Operations are errors.
    ///
    /// The program can open the pseudo-terminals of the host, whose CPU time [`Root::terminals`] describes. With
    /// [`Namespaces::MOUNT`](crate::Namespaces::MOUNT) cgroup file systems are read-only, so that the program cannot
    /// change limits. [`Cgroup`](crate::Cgroup) describes the case without.
    pub fn inherit() -> Self {
        Self::new(Base::Inherit)
    }

    /// Allows the program to write to the root directory, a tmpfs of 64 MiB. Binds in it stay as they are. For a root
    /// directory of the host that the program can change, use [`Root::from_dir_rw`].
    ///
    /// Default: read-only.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Adds an operation to the end of the list.
    #[must_use]
    pub fn with(mut self, operation: impl Into<Operation>) -> Self {
        self.operations.push(operation.into());
        self
    }

    /// Binds a tree of the host read-only: see [`Bind`].
    ///
    /// If the target is in a writable bind, the program can rename a directory above it, and create another at the
    /// path: use [`protect`](Self::protect) there.
    #[must_use]
    pub fn bind(self, source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.with(Bind::new(source, target))
    }

    /// Shows declared files of a directory of the host at `target`, read-only, and nothing else of that directory. See
    /// [`Inputs`], which also takes inputs of several directories, and gives them other names.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let sources = tempfile::tempdir()?;
    /// std::fs::write(sources.path().join("declared"), "42")?;
    /// std::fs::write(sources.path().join("other"), "")?;
    /// let sandbox = Sandbox::new().root(Root::host().inputs(sources.path(), "/build", ["declared"]));
    /// assert_eq!(sandbox.output(Command::new("ls").arg("/build"))?.stdout, b"declared\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inputs<P: Into<PathBuf>>(
        self,
        directory: impl Into<HostPath>,
        target: impl Into<PathBuf>,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        self.with(Inputs::new(target).files(directory, paths))
    }

    /// Binds a tree of the host, and allows the program to write to it: see [`Bind::writable`].
    ///
    /// A source that is a symlink is an error: see [`HostPath`]. Each writable bind takes a descriptor during the
    /// set-up, of which there can be as many as the caller's hard limit `RLIMIT_NOFILE`.
    #[must_use]
    pub fn bind_rw(self, source: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.with(Bind::new(source, target).writable())
    }

    /// Mounts an empty file system in memory with a maximum size in bytes: see [`Tmpfs`].
    #[must_use]
    pub fn tmpfs(self, target: impl Into<PathBuf>, size: u64) -> Self {
        self.with(Tmpfs::new(target).size(size))
    }

    /// Mounts an overlay of a directory of the host, with the changes in memory: see [`Overlay`].
    #[must_use]
    pub fn overlay(self, lower: impl Into<HostPath>, target: impl Into<PathBuf>) -> Self {
        self.with(Overlay::new(target).lower(lower))
    }

    /// Mounts a `/proc` that shows the processes of the sandbox: see [`Proc`].
    #[must_use]
    pub fn proc(self, target: impl Into<PathBuf>) -> Self {
        self.with(Proc::new(target))
    }

    /// Mounts a minimal `/dev`. It contains:
    ///
    /// - the devices `null`, `zero`, `full`, `random`, `urandom` and `tty`, as far as the host's `/dev` has them;
    /// - the symlinks `fd`, `stdin`, `stdout` and `stderr`;
    /// - new file systems for shared memory (`shm`, 512 MiB) and message queues (`mqueue`);
    /// - pseudo-terminals (`pts`, `ptmx`), if [`Root::terminals`] allows them.
    ///
    /// It is read-only for the program. Later operations can add to it: [`Root::device`] a device, and
    /// [`Root::symlink`] a link.
    #[must_use]
    pub fn dev(self, target: impl Into<PathBuf>) -> Self {
        self.with(Operation::Dev(target.into()))
    }

    /// Binds a device of the host, or a directory of devices, at its own path. Its owner and permissions are those that
    /// it has on the host, and must allow the program's user to open it. Create the `/dev` before ([`Root::host`] has
    /// one).
    ///
    /// - The program of an unprivileged caller can open what the caller can, by its supplementary groups too.
    /// - The program of a privileged caller has a user ID of its own and no groups, so it can open what every user can.
    ///   Otherwise open the device in the caller, and pass it with [`Command::fd`](crate::Command::fd).
    ///
    /// What the program can reach through a device is no longer isolated by the sandbox:
    ///
    /// | device | gives the program |
    /// |---|---|
    /// | `/dev/fuse` | nothing without the right to mount (`CAP_SYS_ADMIN` inside, and a policy that allows mount(2)); with it, file systems that it serves itself |
    /// | `/dev/kvm` | virtual machines: their memory counts to its cgroup, but their code runs behind KVM, a large part of the kernel, and not behind the seccomp filter |
    /// | `/dev/dri`, `/dev/kfd` | the GPU: the memory and the time of the GPU have no limit, the driver is a large part of the kernel, and a `card` node also controls the display. `renderD*` alone is less |
    /// | `/dev/net/tun` | nothing without `CAP_NET_ADMIN` in its network namespace; with it, interfaces there, or those of the caller's network if that is shared |
    /// | `/dev/snd`, `/dev/video*`, `/dev/input` | microphone, camera, and the keys that others press |
    /// | `/dev/mem`, disks such as `/dev/sda` | everything that the permissions of the node allow, past every file system |
    ///
    /// Programs find a GPU through `/sys` too: use [`Root::gpus`].
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the device does not exist on the host.
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// // It stands for a device that not every `/dev` has, such as /dev/kvm.
    /// let root = Root::host().device("/dev/null").symlink("null", "/dev/nothing");
    /// let output = Sandbox::new().root(root).output(Command::new("readlink").arg("/dev/nothing"))?;
    /// assert_eq!(output.stdout, b"null\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn device(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.with(Bind::new(path.clone(), path).unmapped().devices().noexec())
    }

    /// Binds the GPU devices of the host and their entries in `/sys`. Requires a `/dev` in the root ([`Root::host`] has
    /// one).
    ///
    /// | driver | devices |
    /// |---|---|
    /// | Direct Rendering Manager (Intel, AMD, virtio, …) | `/dev/dri/renderD*`, without the `card` nodes, which also control the display |
    /// | AMD ROCm | `/dev/kfd` |
    /// | NVIDIA | `/dev/nvidia0` and so on, `nvidiactl`, `nvidia-uvm`, `nvidia-uvm-tools` |
    /// | Arm Mali, Windows (WSL 2) | `/dev/mali0` and so on, `/dev/dxg` |
    ///
    /// In `/sys` they are found by their number and class (`/sys/dev/char/226:128`, `/sys/class/drm/renderD128`). The
    /// directory of the hardware is bound read-only.
    ///
    /// An unprivileged caller ([`Identity`](crate::Identity)) must be in the group of the device (`render`, `video`).
    /// For a privileged caller the device must be open to all users. A program with a GPU is isolated less: see
    /// [`Root::device`].
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the host has none of these devices.
    ///
    /// ```no_run
    /// # // Not run: it requires a GPU.
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let output = Sandbox::new().root(Root::host().gpus()).output(Command::new("vulkaninfo").arg("--summary"))?;
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn gpus(self) -> Self {
        self.with(Operation::Gpus)
    }

    /// Sets the number of pseudo-terminals that the program may have open at the same time (pty(7)), in addition to
    /// that of [`Command::pty`](crate::Command::pty). For example, script(1), expect(1), tmux(1) and sshd(8) open
    /// pseudo-terminals.
    ///
    /// **The CPU time of terminals counts to no cgroup**, because kernel threads pass on what is written to a terminal.
    /// A program that writes to terminals without pause can exceed [`Cgroup::cpu_max`](crate::Cgroup::cpu_max) and
    /// [`Limits::cpu_time`](crate::Limits::cpu_time), on as many CPUs as it has terminals. Terminals also count towards
    /// `kernel.pty.max` of the machine. So allow only as many as the program needs.
    ///
    /// Default: 0. `/dev/ptmx` and `/dev/pts` do not exist, and opening one fails with `ENOENT`. With
    /// [`Command::pty`](crate::Command::pty) it fails with `ENOSPC`.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the root has no [`Root::dev`].
    #[must_use]
    pub fn terminals(mut self, count: u32) -> Self {
        self.terminals = count;
        self
    }

    /// Creates a read-only file with these contents and the permissions 0444. Missing directories above it are created,
    /// and an existing file is covered. The contents are kept in memory. [`Operation::file`] sets other permissions.
    #[must_use]
    pub fn file(self, target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        self.with(Operation::file(target, contents, 0o444))
    }

    /// Creates a file with these contents and the permissions 0644, to which the program can write: see
    /// [`Operation::file_rw`].
    #[must_use]
    pub fn file_rw(self, target: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        self.with(Operation::file_rw(target, contents, 0o644))
    }

    /// Creates a symbolic link at `link` with the text `original` (symlink(2)). If a symlink with the same text is
    /// there already, on the host or from an operation before, this has no effect.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) with `EEXIST` if something else is at the path. For
    /// another symlink it names both texts, if its directory is not reached through a symlink. `EAGAIN` or `EINVAL` if a
    /// symlink with the same text was there when the sandbox was compiled, and has been changed since.
    #[must_use]
    pub fn symlink(self, original: impl Into<OsString>, link: impl Into<PathBuf>) -> Self {
        self.with(Operation::symlink(original, link))
    }

    /// Creates a directory with the permissions 0755, unless one exists. Its file system must belong to the sandbox. A
    /// directory of the host at that path stays visible. A file at the path is an error (`EEXIST`).
    /// [`Operation::create_dir`] sets other permissions.
    #[must_use]
    pub fn create_dir(self, target: impl Into<PathBuf>) -> Self {
        self.with(Operation::create_dir(target, 0o755))
    }

    /// Makes the host name of the sandbox resolve to `127.0.0.1`. If the caller's network is shared, DNS names resolve
    /// too.
    ///
    /// - `/etc/hosts` gets a line that resolves the host name of the sandbox
    ///   ([`Sandbox::hostname`](crate::Sandbox::hostname)) to `127.0.0.1`. The sandbox needs a UTS namespace of its
    ///   own, since other names are those of the host.
    /// - If the sandbox has no new network namespace, and `/etc/resolv.conf` is a symlink to what the sandbox does not
    ///   show, the file that it leads to on the host is bound there, read-only. This is so with systemd-resolved(8),
    ///   NetworkManager(8) and resolvconf(8), whose files are in `/run`. If the host replaces the file later, the
    ///   program sees the old one.
    ///
    /// A file of the host gets its line at the beginning, in a copy that is mounted over it. If the caller cannot read
    /// it, or it has more than 256 KiB, the copy has only the line. A file that does not exist is created where the
    /// file system is the sandbox's own. Files that are not from the host, such as those of [`Root::from_dir`], are not
    /// changed. Later operations cover these files as any other.
    ///
    /// Default: only [`Root::host`] and the profiles have it.
    ///
    /// See hosts(5) and resolv.conf(5).
    ///
    /// ```
    /// use stockade::{Command, Root, Sandbox};
    ///
    /// let root = ["/usr", "/bin", "/lib", "/lib64"].iter().fold(Root::empty(), |root, path| {
    ///     if std::path::Path::new(path).exists() { root.bind(path, path) } else { root }
    /// });
    /// let sandbox = Sandbox::new().root(root.network_names()).hostname("builder");
    /// let output = sandbox.output(Command::new("cat").arg("/etc/hosts"))?;
    /// assert!(output.stdout.starts_with(b"127.0.0.1\tbuilder\n"));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn network_names(self) -> Self {
        self.with(Operation::NetworkNames)
    }

    /// Gives the program's user and group an entry in `/etc/passwd` and `/etc/group`, with which programs such as
    /// whoami(1) and functions such as getpwuid(3) find its name and home directory.
    ///
    /// The user has its name on the host. If it has none, or the file is created, the name is `sandbox`. Its home
    /// directory is the environment variable `HOME` (of [`Command::env`](crate::Command::env) or
    /// [`Sandbox::env`](crate::Sandbox::env)). Without that variable an entry of the host is kept as it is, and a new
    /// one has `/`. The files are changed or created as [`Root::network_names`] describes. Created ones name root and
    /// nobody as well.
    ///
    /// Default: only the profiles have it.
    ///
    /// See passwd(5) and group(5).
    #[must_use]
    pub fn user_names(self) -> Self {
        self.with(Operation::UserNames)
    }

    /// Protects a path in a writable bind: the program can neither change nor replace it, nor rename or remove a
    /// directory above it.
    ///
    /// The bind must be added before. The path itself is mounted read-only. Every directory from the bind down to the
    /// path becomes a mount point, which cannot be renamed (`EBUSY`). A rename between such a directory and another
    /// fails with `EXDEV`, and programs such as mv(1) then copy. Paths are protected after all other operations were
    /// carried out.
    ///
    /// Two things are not protected: the same files under another name, by a second bind or a hard link, and the path
    /// against processes of the host. A rename on the host removes the mount, and the new file is writable.
    ///
    /// # Placeholders
    ///
    /// If the path does not exist, a placeholder is created there on the host, so that the program cannot create it: an
    /// empty file, or an empty directory if the path ends with a slash. If a directory above the path is missing, the
    /// placeholder is an empty directory in its place. The placeholder is removed with the last sandbox that protects
    /// the path, unless it was written to. If the caller is killed, it stays until another sandbox that protects the
    /// same path is removed.
    ///
    /// The program sees a placeholder: git(1) lists an empty file as untracked, and `git add --all` adds it.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn):
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if no writable bind contains the
    ///   path, or if a later mount covers it.
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if it is a symlink or leads through one (`ELOOP`).
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Linux 5.12.
    ///
    /// Requires Linux 5.12.
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
        self.with(Operation::Protect(path.into()))
    }

    /// Binds a workspace of git(1) to which the program can write, and protects the files that git on the host would
    /// execute later, such as hooks. [`Bind::protect_git`] lists what is protected and what is not. If the source is no
    /// git repository, the program cannot create one in it.
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
        self.with(Bind::new(source, target).writable().protect_git())
    }

    /// Hides a path: covers it with an empty directory or file that the program cannot open. If nothing exists at the
    /// path, this has no effect.
    ///
    /// The mask covers the file or directory that exists when the sandbox starts, not the name. If a process of the
    /// host renames another file to that path, as editors do when they save a file, the mask is removed, and the new
    /// file is visible. If files change on the host while a sandbox runs, hide the directory that contains them, or do
    /// not bind it.
    ///
    /// In a writable bind the program can rename a directory above the mask, and create another file at the path.
    /// [`protect`](Self::protect) prevents that.
    #[must_use]
    pub fn mask(self, path: impl Into<PathBuf>) -> Self {
        self.with(Operation::Mask(path.into()))
    }

    /// Makes a path read-only, with everything that earlier operations have mounted below it.
    ///
    /// In a writable bind the program can rename a directory above the path, and create another file at the path.
    /// [`protect`](Self::protect) prevents that. A file that a process of the host renames to the path is writable.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before Linux 5.12.
    ///
    /// Requires Linux 5.12.
    #[must_use]
    pub fn read_only(self, path: impl Into<PathBuf>) -> Self {
        self.with(Operation::ReadOnly(path.into()))
    }

    /// Returns the number of terminals that a `/dev` has room for, with that of the command.
    pub(crate) fn terminals_beside(&self, command: u32) -> u32 {
        self.terminals.saturating_add(command)
    }

    /// Returns a root that needs the same features of the kernel, and no path of the host but `/`.
    pub(crate) fn reference(&self) -> Self {
        let is_host = self.base == Base::Host;
        let has = |is: fn(&Operation) -> bool| self.operations.iter().any(is);
        let mut root = Self::empty().with(Bind::new("/", "/host").unmapped()).with(Tmpfs::new("/tmp"));
        if is_host || has(|mount| matches!(mount, Operation::Proc(_))) {
            root = root.proc("/proc");
        }
        if is_host || has(|mount| matches!(mount, Operation::Dev(_))) {
            root = root.dev("/dev");
        }
        if matches!(self.base, Base::Overlay(_)) || has(|mount| matches!(mount, Operation::Overlay(_))) {
            root = root.overlay("/", "/overlay");
        }
        root.terminals = self.terminals.min(1);
        root
    }

    /// Returns whether the program may write to the root directory.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable || matches!(self.base, Base::WritableDir(_) | Base::Overlay(_))
    }

    /// Returns whether the root needs mounts, and so a mount namespace.
    pub(crate) fn needs_mount_namespace(&self) -> bool {
        match self.base {
            Base::Inherit => !self.operations.is_empty(),
            Base::Dir(_) => !self.operations.is_empty(),
            Base::Empty | Base::Host | Base::System | Base::WritableDir(_) | Base::Overlay(_) => true,
        }
    }

    /// Returns whether a path is on the file system of the root directory, which the sandbox creates, and no operation
    /// puts anything at it, above it or below it.
    pub(crate) fn has_place_of_its_own(&self, path: &str) -> bool {
        let overlaps = |target: &Path| target.starts_with(path) || Path::new(path).starts_with(target);
        let is_own = matches!(self.base, Base::Host | Base::System | Base::Empty);
        is_own && !self.operations.iter().any(|mount| overlaps(mount.target()))
    }

    /// Returns the mount point that a path in the sandbox is below, if an earlier program could have created symlinks
    /// there.
    pub(crate) fn place_of_programs(&self, path: &Path) -> Option<&Path> {
        let is_in = |mount: &&Operation| mount.covers() && path.starts_with(mount.target());
        let mount = self.operations.iter().rev().find(is_in)?;
        // A program can write to the source of a read-only bind through another bind.
        let is_written_elsewhere = |source: &Path| {
            let is_above = |bind: &Bind| bind.writable && source.starts_with(bind.source.unresolved());
            self.operations.iter().any(|mount| matches!(mount, Operation::Bind(bind) if is_above(bind)))
        };
        let is_untrusted = match mount {
            Operation::Bind(bind) => {
                bind.writable || bind.source.is_beneath() || is_written_elsewhere(&bind.source.unresolved())
            }
            Operation::Overlay(overlay) => matches!(overlay.upper, Upper::Dirs { .. }),
            _ => false,
        };
        Some(mount.target()).filter(|target| is_untrusted && *target != path)
    }

    /// Returns the directory for chroot(2), where there is no mount namespace.
    pub(crate) fn chroot(&self) -> Option<&HostPath> {
        match &self.base {
            Base::Dir(path) if self.operations.is_empty() => Some(path),
            _ => None,
        }
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.base == Base::Inherit && self.operations.is_empty()
    }
}
