//! [`Session`]: one sandbox for many commands. How its helper starts them is in `compile/session_helper.rs` and `launch/session_spawn.rs`.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use nix::sys::statfs::{
    BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, NSFS_MAGIC, PROC_SUPER_MAGIC,
    SECURITYFS_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};

use crate::child::{Child, Killer, ProgramSupervisor, Programs, SessionCommands, Supervisor, usage_of_session};
use crate::command::{Command, Stdio};
use crate::compile::{CompiledSession, InsideAddress, Opened, SessionFrame, compile_command, compile_opening};
use crate::confine::Namespaces;
use crate::error::{Error, Result};
use crate::launch::{LaunchedSession, launch_session};
use crate::outcome::{Enforcement, Outcome, Output, Usage};
#[cfg(feature = "_testing")]
use crate::plan::Part;
use crate::trace;
use crate::unix::Pid;

/// A sandbox that is kept for many commands, one after another or at once. Dropping it kills every process in it.
///
/// [`Sandbox::start`](crate::Sandbox::start) creates it. The sandbox is set up once: a command costs little more than without a
/// sandbox. Its files, its network and its background processes stay between commands.
///
/// # Commands
///
/// The commands of a session trust one another: they have the same user and the same files, and see and signal one another's
/// processes. No command has more rights than the session. None can reach the helper that starts them. All end with the session.
///
/// Each has an outcome and limits of its own: those of [`Sandbox::limits`](crate::Sandbox::limits) hold for each. Those of
/// [`Sandbox::cgroup`](crate::Sandbox::cgroup) hold for all together. Each command then has a cgroup of its own below that of
/// the session, which counts what the command and its descendants use.
///
/// What a command has started goes on when the command exits, until the session ends, under no limit but the rlimits and those of
/// the cgroup. [`Outcome::leaked`] lists it, if there is a cgroup: [`Cgroup::new`](crate::Cgroup::new) suffices. Files in memory, as
/// in `/tmp`, stay too, and count to the cgroup's limit on memory. A command that is killed, by a limit or by [`Child::kill`], is
/// killed with its process group and, if there is a cgroup, with all that it has started.
///
/// A program can stop a command that is just being started (`SIGSTOP`). Then [`Session::spawn`] fails when
/// [`Sandbox::setup_timeout`](crate::Sandbox::setup_timeout) has expired. The command is never less confined for that. The same
/// timeout holds for [`Session::create`], [`Session::open`] and the sockets.
///
/// # Differences from a sandbox for each command
///
/// - It needs [`Namespaces::PID`].
/// - It cannot have a seccomp policy with calls for a callback ([`Action::Notify`](crate::seccomp::Action::Notify)).
/// - It has a `/dev/pts` with room for 16 pseudo-terminals of [`Command::pty`], also before a command has one.
/// - A call that the policy answers by killing ([`Action::Kill`](crate::seccomp::Action::Kill)) kills the command that it belongs
///   to. A process that has left the command (setsid(2)) and lost its parents is killed alone, and logged nowhere.
/// - No limit on time is enforced while the caller does not wait: the limits of a sandbox of its own are kept by its init.
/// - A command does not inherit the caller's terminal, since what goes on after the command could read there and change its modes:
///   standard input is `/dev/null` instead, and standard output and standard error are pipes from which a thread of the caller
///   copies to the terminal. [`Session::interact`] gives a command a terminal of its own. A terminal that is passed as a
///   [`Stdio`] of a descriptor is given as it is.
/// - A command has room for 237 descriptors of [`Command::fd`].
/// - Once [`Cgroup::memory_max`](crate::Cgroup::memory_max) was reached, a later kill for want of the machine's memory is reported as
///   [`Termination::Memory`](crate::Termination::Memory) too.
/// - Each command leads a session of its own (setsid(2)), also without [`Command::new_session`].
/// - Where Landlock denies writing to files outside of writable binds, a program cannot open a regular file by
///   `/dev/stdout` or `/dev/fd` to write to it, though it can write to the descriptor.
///
/// # Example
///
/// ```
/// use std::io::Write;
///
/// use stockade::{Command, Sandbox};
///
/// let session = Sandbox::new().start()?;
/// session.create("/tmp/numbers")?.write_all(b"3\n1\n2\n")?;
/// let sorted = session.output(Command::new("sort").args(["-o", "/tmp/sorted", "/tmp/numbers"]))?;
/// assert!(sorted.outcome.success());
/// let output = session.output(Command::new("head").args(["-n", "1", "/tmp/sorted"]))?;
/// assert_eq!(output.stdout, b"1\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a `Session` kills its processes"]
pub struct Session {
    launched: Arc<LaunchedSession>,
    /// The commands whose system calls the supervisor decides, if there is one.
    supervised: Option<(Arc<SessionCommands>, Supervisor)>,
    frame: SessionFrame,
    enforcement: Enforcement,
    namespaces: Vec<(Namespaces, OwnedFd)>,
}

impl Session {
    pub(crate) fn launch(compiled: CompiledSession) -> Result<Self> {
        let mut launched = launch_session(&compiled.plan, compiled.cgroup.as_ref())?;
        let namespaces = std::mem::take(&mut launched.namespaces).into_iter();
        let namespaces = namespaces.map(|(kind, fd)| (Namespaces::from_bits_truncate(kind), fd)).collect();
        let supervised = match (compiled.policy, launched.listener.take()) {
            (Some(policy), Some(listener)) => {
                let commands = Arc::new(SessionCommands::default());
                let programs = Programs::Session(commands.clone());
                Some((commands, Supervisor::start(listener, policy, None, programs)?))
            }
            _ => None,
        };
        let CompiledSession { frame, enforcement, .. } = compiled;
        trace::enforcement(&enforcement);
        Ok(Self { launched: Arc::new(launched), supervised, frame, enforcement, namespaces })
    }

    /// Returns the number of the session in spans: the PID of its init, in the caller's PID namespace.
    pub(crate) fn number(&self) -> Pid {
        Pid::from_raw(self.launched.init)
    }

    /// Starts a command. Standard streams that the command does not set are inherited, as by
    /// [`Sandbox::spawn`](crate::Sandbox::spawn), unless they are a terminal.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::spawn`](crate::Sandbox::spawn) that are about the command, and
    ///
    /// - [`ErrorKind::SetupTimedOut`](crate::ErrorKind::SetupTimedOut) if a program of the session has stopped the process. If it
    ///   was the helper (see the glossary at the crate root) that did not answer, the session ends.
    /// - [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the session has ended, or a program of the session has
    ///   killed the process. If it is killed before the program is executed, but exits after `spawn` has returned, [`Child::wait`]
    ///   returns this error.
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the session is frozen, or was started by
    ///   another process, of which this one is a forked child.
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let session = Sandbox::new().start()?;
    /// let mut first = session.spawn(Command::new("sleep").arg("0.1"))?;
    /// let mut second = session.spawn(Command::new("sleep").arg("0.1"))?;
    /// assert!(first.wait()?.success() && second.wait()?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn spawn(&self, command: impl Into<Command>) -> Result<Child> {
        self.spawn_with(&command.into(), [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()])
    }

    /// Runs a command, and waits for it: [`Session::spawn`] and [`Child::wait`].
    ///
    /// # Errors
    ///
    /// Those of both, and [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a command with a
    /// pseudo-terminal.
    pub fn status(&self, command: impl Into<Command>) -> Result<Outcome> {
        let command = command.into();
        command.check_unattended()?;
        self.spawn(command)?.wait()
    }

    /// Runs a command, and collects its output: see [`Sandbox::output`](crate::Sandbox::output).
    ///
    /// The pipes are closed when this returns: a process in the background that writes to them later gets SIGPIPE. Redirect the
    /// output of what a command leaves in the background: `server >log 2>&1 &`.
    ///
    /// # Errors
    ///
    /// Those of [`Session::status`] and [`Child::wait_with_output`].
    pub fn output(&self, command: impl Into<Command>) -> Result<Output> {
        let command = command.into();
        command.check_unattended()?;
        self.spawn_with(&command, [Stdio::null(), Stdio::piped(), Stdio::piped()])?.wait_with_output()
    }

    /// Runs a command on a pseudo-terminal that is connected to the caller's terminal, and waits for it: see
    /// [`Sandbox::interact`](crate::Sandbox::interact). Background jobs of a shell go on if they ignore SIGHUP.
    ///
    /// # Errors
    ///
    /// Those of [`Session::spawn`] and [`Child::interact`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let session = Sandbox::new().start()?;
    /// // For example a shell.
    /// assert!(session.interact(Command::new("tty"))?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn interact(&self, command: impl Into<Command>) -> Result<Outcome> {
        self.spawn(Command::for_interaction(command))?.interact()
    }

    pub(crate) fn spawn_with(&self, command: &Command, default: [Stdio; 3]) -> Result<Child> {
        trace::spawning(command.get_program(), Some(self.number()), Child::pid, || {
            self.spawn_untraced(command, default)
        })
    }

    fn spawn_untraced(&self, command: &Command, default: [Stdio; 3]) -> Result<Child> {
        let (plan, bounds) = compile_command(&self.frame, &command.job(default)?)?;
        let starting = self.supervised.as_ref().map(|(commands, _)| commands.starting());
        let mut running = self.launched.spawn(&plan)?;
        let supervision = starting.map(|command| command.started(running.pid(), Killer::of(&running)));
        let (ends, pty) = (std::mem::take(&mut running.streams), running.pty.take());
        let mut enforcement = self.enforcement.clone();
        let lost = running.lost();
        trace::unenforced(&lost);
        enforcement.unenforced.extend(lost);
        let supervision = supervision.map(ProgramSupervisor::OfSession);
        Ok(Child::new(running, ends, pty, vec![], bounds, enforcement, supervision))
    }

    /// Creates a regular file inside, or truncates it, and opens it for writing. The mode of a new one is 0666 without the bits of
    /// [`Sandbox::umask`](crate::Sandbox::umask). To make it executable, call [`File::set_permissions`], and close it before it is
    /// executed.
    ///
    /// A process of the session opens it, with the rights of the programs: the path is resolved inside, and the file belongs to
    /// the user of the programs. A relative path begins at `/`. To create a directory or remove a file, run a command.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be opened, also because it is a directory, a FIFO or a device, or in a file
    /// system of the kernel such as `/proc`. Those of [`Session::spawn`].
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use stockade::{Command, Sandbox};
    ///
    /// let session = Sandbox::new().start()?;
    /// session.create("/tmp/input")?.write_all(b"hello")?;
    /// assert_eq!(session.output(Command::new("cat").arg("/tmp/input"))?.stdout, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_file(path.as_ref(), libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
    }

    /// Opens a regular file inside for reading. A process of the session opens it, as for [`Session::create`]. A program can have
    /// given it any length, also by leaving holes: read at most what is expected ([`Read::take`](std::io::Read::take)).
    ///
    /// # Errors
    ///
    /// Those of [`Session::create`].
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// use stockade::{Command, Sandbox};
    ///
    /// let session = Sandbox::new().start()?;
    /// assert!(session.status(Command::new("sh").args(["-c", "echo result > /tmp/output"]))?.success());
    /// let mut text = String::new();
    /// session.open("/tmp/output")?.read_to_string(&mut text)?;
    /// assert_eq!(text, "result\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open_file(path.as_ref(), libc::O_RDONLY)
    }

    fn open_file(&self, path: &Path, flags: i32) -> Result<File> {
        const MODE: u32 = 0o666;
        let file = File::from(self.open_inside(Opened::File(path.to_owned(), flags, MODE))?);
        let kind = file.metadata().map_err(Error::io("read the type of a file"))?.file_type();
        match kind.is_file() && !is_of_kernel(&file)? {
            true => Ok(file),
            false => Err(Error::not_a_regular_file(path)),
        }
    }

    /// Listens for connections of TCP that programs of the session make to `address`. The caller accepts them.
    ///
    /// It needs no privilege. Port 0 is a free one, which [`TcpListener::local_addr`] returns. Without [`Namespaces::NET`] the
    /// network is the caller's, and the port is open there. After the session has ended, no program can connect, and `accept` waits
    /// for ever.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the address is in use, or its port is below 1,024. Those of
    /// [`Session::spawn`].
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// use stockade::{Command, Sandbox, Stdio};
    ///
    /// let session = Sandbox::new().start()?;
    /// let listener = session.listen_tcp("127.0.0.1:8080".parse()?)?;
    /// let mut command = Command::new("bash");
    /// command.args(["-c", "cat < /dev/tcp/127.0.0.1/8080"]).stdout(Stdio::piped());
    /// let child = session.spawn(command)?;
    /// listener.accept()?.0.write_all(b"served")?;
    /// assert_eq!(child.wait_with_output()?.stdout, b"served");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listen_tcp(&self, address: SocketAddr) -> Result<TcpListener> {
        self.open_inside(Opened::Listening(InsideAddress::tcp(address))).map(TcpListener::from)
    }

    /// Connects by TCP to a program of the session that listens at `address`. It needs no privilege.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if no program listens there yet: [`Error::io_kind`] is `ConnectionRefused`. Those of
    /// [`Session::spawn`].
    ///
    /// ```
    /// use std::io::{ErrorKind, Read};
    /// use std::time::Duration;
    ///
    /// use stockade::{Command, Sandbox, Stdio};
    ///
    /// let session = Sandbox::new().start()?;
    /// let server = "import socket; s = socket.create_server(('127.0.0.1', 8080)); s.accept()[0].sendall(b'served')";
    /// let mut command = Command::new("python3");
    /// let _server = session.spawn(command.args(["-c", server]).stdin(Stdio::null()))?;
    /// let mut stream = loop {
    ///     match session.connect_tcp("127.0.0.1:8080".parse()?) {
    ///         Err(error) if error.io_kind() == ErrorKind::ConnectionRefused => std::thread::sleep(Duration::from_millis(10)),
    ///         connected => break connected?,
    ///     }
    /// };
    /// let mut text = String::new();
    /// stream.read_to_string(&mut text)?;
    /// assert_eq!(text, "served");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream> {
        self.open_inside(Opened::Connected(InsideAddress::tcp(address))).map(TcpStream::from)
    }

    /// Listens for connections that programs of the session make to a UNIX socket at a path inside, of at most 107 bytes. The
    /// caller accepts them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if something exists at the path, or the programs may not create it. Those of
    /// [`Session::spawn`].
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<UnixListener> {
        self.open_inside(Opened::Listening(InsideAddress::unix(path.as_ref())?)).map(UnixListener::from)
    }

    /// Connects to a UNIX socket at which a program of the session listens, at a path inside.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if no program listens there. Those of [`Session::spawn`].
    pub fn connect_unix(&self, path: impl AsRef<Path>) -> Result<UnixStream> {
        self.open_inside(Opened::Connected(InsideAddress::unix(path.as_ref())?)).map(UnixStream::from)
    }

    /// Ends the session, unless this process is a forked child of the one that has started it.
    pub(crate) fn end(&self) {
        let _ = self.launched.end_if_own();
    }

    /// Returns whether it can still run commands: neither was it ended, nor were its processes killed from outside.
    pub(crate) fn is_alive(&self) -> bool {
        self.launched.is_alive()
    }

    fn open_inside(&self, opened: Opened) -> Result<OwnedFd> {
        self.launched.open(&compile_opening(&self.frame, &opened)?).map_err(Error::of_caller)
    }

    /// Returns a descriptor of each namespace that the session has created or joined, the user namespace first. They were
    /// opened before any program was executed: see [`Child::namespaces`].
    ///
    /// An outside tool can give the session a network by them, such as pasta(1) and slirp4netns(1).
    /// [`Sandbox::keep_namespaces`](crate::Sandbox::keep_namespaces) is not needed.
    #[must_use]
    pub fn namespaces(&self) -> &[(Namespaces, OwnedFd)] {
        &self.namespaces
    }

    /// Returns the layers that are in force for every command.
    #[must_use]
    pub fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    /// Returns the resource usage of all commands together so far, as counted by the session's cgroup, up to its end.
    /// [`Usage::wall_time`] is the time since the start. Without a cgroup all other values are `None`. [`Usage::pids_denied`] is
    /// counted for each command only.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (wall, account) = self.launched.usage();
        usage_of_session(wall, account)
    }

    /// Freezes the processes of all programs, until [`Session::thaw`]. Meanwhile [`Session::spawn`] is an error. The caller can still
    /// open files and sockets inside. Does nothing once the session has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Child::freeze`].
    pub fn freeze(&self) -> Result<()> {
        self.launched.freeze(true)
    }

    /// Thaws the processes of all programs, after [`Session::freeze`].
    ///
    /// # Errors
    ///
    /// Those of [`Child::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.launched.freeze(false)
    }

    /// Ends the session: kills and reaps every process in it. The commands that were running report
    /// [`Termination::Killed`](crate::Termination::Killed). Returns `Ok` if it has ended already.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Unkillable`](crate::ErrorKind::Unkillable) if a process does not terminate within 10 seconds.
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if another process has started the session, of
    ///   which this one is a forked child.
    pub fn kill(&self) -> Result<()> {
        self.launched.end_by_creator()
    }
}

#[cfg(feature = "_testing")]
impl Session {
    /// Makes a call of every later command fail, and of every process that opens a file or a socket: see
    /// [`Compiled::with_fault`](crate::Compiled::with_fault). For fault tests.
    #[doc(hidden)]
    pub fn set_fault(&self, fault: Option<(Part, usize)>) {
        self.launched.set_fault(fault);
    }

    /// Returns the calls of a part of the last of these: see [`Compiled::calls`](crate::Compiled::calls). For fault tests.
    #[doc(hidden)]
    #[must_use]
    pub fn last_calls(&self, part: Part) -> Vec<(&'static str, bool)> {
        self.launched.last_calls(part)
    }
}

/// Returns whether a file shows data of the kernel. Reading and writing such a file can be allowed by who does that, not by who has
/// opened it, and the caller may do more than the programs, which can place a symlink to it.
fn is_of_kernel(file: &File) -> Result<bool> {
    const KERNEL: [FsType; 9] = [
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
        DEBUGFS_MAGIC,
        TRACEFS_MAGIC,
        SECURITYFS_MAGIC,
        BPF_FS_MAGIC,
        NSFS_MAGIC,
    ];
    let kind = fstatfs(file).map_err(Error::io("read the file system of a file"))?.filesystem_type();
    Ok(KERNEL.contains(&kind))
}

impl Drop for Session {
    /// Ends the session, also if a [`Child`] of it is left.
    fn drop(&mut self) {
        self.end();
    }
}
