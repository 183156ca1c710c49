//! The command that is run in a sandbox, in the vocabulary of [`std::process::Command`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::child::first_size;
use crate::compile::{Job, StreamSource, Terminal};
use crate::confine::Descriptor;
use crate::error::{Error, Result};
use crate::plan::Stream;
use crate::stored::Version;
#[cfg(feature = "serde")]
use crate::stored::{As, Escaped};

/// Where programs are searched for by default.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The same on NixOS and on Guix System, where the other directories have next to nothing.
const PATH_WITH_STORE: &str = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin:/run/current-system/profile/bin";

/// A program with its arguments, environment and streams. Unlike a [`std::process::Command`], **it does not inherit the
/// caller's environment**.
///
/// | property | default |
/// |---|---|
/// | environment | `PATH=/usr/local/bin:/usr/bin:/bin` (on NixOS and Guix System also the directories of `/run/current-system`), and what [`Sandbox::env`](crate::Sandbox::env) sets |
/// | working directory | `/` |
/// | session | a new one, without a controlling terminal |
/// | standard streams | inherited by `spawn` and `status`; for `output`, `/dev/null` and two pipes |
///
/// A command is plain data, and can be run any number of times.
///
/// A [`std::process::Command`] converts into it. Its program, arguments, working directory and explicitly set variables
/// are used. Its standard streams and the inherited environment are not.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the program, an argument, a variable
/// or the working directory contains a zero byte.
///
/// ```
/// use stockade::{Command, Sandbox};
///
/// let mut command = Command::new("sh");
/// command.args(["-c", "echo $GREETING from $PWD"]).env("GREETING", "hello").current_dir("/tmp");
/// assert_eq!(Sandbox::new().output(&command)?.stdout, b"hello from /tmp\n");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Command {
    #[cfg_attr(feature = "serde", serde(default))]
    version: Version<1>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Escaped>"))]
    program: OsString,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>", default))]
    arg0: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Vec<Escaped>>", default))]
    args: Vec<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "As::<BTreeMap<Escaped, Escaped>>", default = "default_env"))]
    env: BTreeMap<OsString, OsString>,
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>", rename = "current_dir", default))]
    cwd: Option<PathBuf>,
    #[cfg_attr(feature = "serde", serde(default))]
    stdin: Option<Stdio>,
    /// Read from standard input instead.
    #[cfg_attr(feature = "serde", serde(with = "As::<Option<Escaped>>", default))]
    stdin_bytes: Option<Arc<[u8]>>,
    #[cfg_attr(feature = "serde", serde(default))]
    stdout: Option<Stdio>,
    #[cfg_attr(feature = "serde", serde(default))]
    stderr: Option<Stdio>,
    #[cfg_attr(feature = "serde", serde(rename = "fd", default))]
    fds: Vec<(u32, Descriptor)>,
    #[cfg_attr(feature = "serde", serde(default = "default_session"))]
    new_session: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    pty: Option<Terminal>,
}

/// The source or destination of a standard stream of a command.
///
/// A [`File`], a pipe or a socket converts into a `Stdio`. [`Command::fd`] describes what the program gets for it.
///
/// ```
/// use stockade::{Command, Sandbox, Stdio};
///
/// let mut command = Command::new("sh");
/// command.args(["-c", "cat >&2"]).stdin(Stdio::null()).stderr(Stdio::piped());
/// assert!(Sandbox::new().spawn(&command)?.wait_with_output()?.stderr.is_empty());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stdio(StdioKind);

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case", deny_unknown_fields))]
enum StdioKind {
    Inherit,
    Null,
    Piped,
    Descriptor(Descriptor),
}

impl Stdio {
    /// Returns the caller's own stream, or `/dev/null` if that is closed in the caller. [`Command::fd`] describes what
    /// the program gets for it.
    pub fn inherit() -> Self {
        Self(StdioKind::Inherit)
    }

    /// Returns `/dev/null`.
    pub fn null() -> Self {
        Self(StdioKind::Null)
    }

    /// Returns a new pipe for each run. The caller's end is in the [`Child`](crate::Child).
    pub fn piped() -> Self {
        Self(StdioKind::Piped)
    }

    fn source(&self) -> StreamSource {
        match &self.0 {
            StdioKind::Inherit => StreamSource::Plain(Stream::Inherit),
            StdioKind::Null => StreamSource::Plain(Stream::Null),
            StdioKind::Piped => StreamSource::Plain(Stream::Piped),
            StdioKind::Descriptor(fd) => StreamSource::Descriptor(fd.clone()),
        }
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(StdioKind::Descriptor(Descriptor(Arc::new(fd))))
    }
}

macro_rules! stdio_from {
    ($($from:ty),+ $(,)?) => {
        $(impl From<$from> for Stdio { fn from(from: $from) -> Self { OwnedFd::from(from).into() } })+
    };
}
stdio_from!(
    File,
    std::process::ChildStdin,
    std::process::ChildStdout,
    std::process::ChildStderr,
    std::io::PipeReader,
    std::io::PipeWriter,
    std::os::unix::net::UnixStream,
    std::net::TcpStream,
);

/// The environment of a new command.
fn default_env() -> BTreeMap<OsString, OsString> {
    BTreeMap::from([("PATH".into(), default_path().into())])
}

fn default_path() -> &'static str {
    if Path::new("/run/current-system").exists() { PATH_WITH_STORE } else { PATH }
}

#[cfg(feature = "serde")]
fn default_session() -> bool {
    true
}

impl Command {
    /// Creates a command that executes a program.
    ///
    /// `program` is a path inside the sandbox if it contains a slash. A relative one starts at
    /// [`Command::current_dir`]. A name without a slash is searched for in the directories of the `PATH` that the
    /// program gets, inside the sandbox.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a name without a slash if the
    /// program gets no `PATH`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            version: Version,
            program: program.as_ref().to_owned(),
            arg0: None,
            args: vec![],
            env: default_env(),
            cwd: None,
            stdin: None,
            stdin_bytes: None,
            stdout: None,
            stderr: None,
            fds: vec![],
            new_session: true,
            pty: None,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the name by which the program is called, `argv[0]`.
    ///
    /// Default: the program as it was given to [`Command::new`].
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Sets an environment variable. It replaces one of [`Sandbox::env`](crate::Sandbox::env).
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets environment variables.
    ///
    /// `envs(std::env::vars_os())` passes all variables of the caller, including secrets.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: impl IntoIterator<Item = (K, V)>) -> &mut Self {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable of the command. One of the sandbox is removed by
    /// [`Sandbox::env_remove`](crate::Sandbox::env_remove).
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.env.remove(key.as_ref());
        self
    }

    /// Removes every environment variable of the command, `PATH` too. For a program that is named without a slash, the
    /// `PATH` of [`Sandbox::env`](crate::Sandbox::env) is searched, or, if that is not set either, spawning fails with
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration).
    pub fn env_clear(&mut self) -> &mut Self {
        self.env.clear();
        self
    }

    /// Sets the working directory, a path inside the sandbox.
    ///
    /// Default: `/`.
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if the program's user cannot enter the
    /// directory, or it does not exist.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cwd = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets standard input.
    ///
    /// Default: inherited by `spawn` and `status`, `/dev/null` for `output`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdio.into());
        self.stdin_bytes = None;
        self
    }

    /// Sets standard input to bytes: the program reads them, and then end of file. Each run reads all of them.
    ///
    /// The program gets a sealed file in memory (memfd_create(2)), opened read-only. It can seek in it and open it
    /// again as `/dev/stdin`, but not write to it. `spawn` copies all of the bytes, and does not wait for the program
    /// to read them. The copy counts as memory of the caller, not of the sandbox's cgroup. It is freed when the program
    /// and everything that it has started have closed it.
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let output = Sandbox::new().output(Command::new("tr").args(["a-z", "A-Z"]).stdin_bytes("hello"))?;
    /// assert_eq!(output.stdout, b"HELLO");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if there are more bytes than the
    /// caller's `RLIMIT_FSIZE` allows.
    pub fn stdin_bytes(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.stdin = None;
        self.stdin_bytes = Some(bytes.into().into());
        self
    }

    /// Sets standard output.
    ///
    /// Default: inherited by `spawn` and `status`, a pipe for `output`.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdio.into());
        self
    }

    /// Sets standard error.
    ///
    /// Default: inherited by `spawn` and `status`, a pipe for `output`.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stdio.into());
        self
    }

    /// Passes a descriptor to the program as number `number`. No other descriptors, except the standard streams, are
    /// open in the program. The numbers 0 to 2 replace standard streams.
    ///
    /// A descriptor often gives access to more than it was opened for: a program could open a file again for writing
    /// through `/proc/self/fd`, and a change of flags such as `O_NONBLOCK` would affect the caller too. So the program
    /// gets something else for a descriptor, depending on its kind. The same holds for a standard stream that is
    /// inherited or given:
    ///
    /// | kind | opened for | the program gets |
    /// |---|---|---|
    /// | regular file | reading | the file, opened again on a read-only mount, with an offset of its own: the caller's offset does not move. `/proc/self/fd` shows it as `/` |
    /// | | writing, appending | a pipe, from which a thread of the caller copies to the file. Everything is copied when [`Child::wait`](crate::Child::wait) returns. `RLIMIT_FSIZE` limits what is copied |
    /// | | reading and writing | the caller's descriptor: the program can do whatever the file's owner can do, such as change its mode |
    /// | pipe, FIFO | anything | the same pipe, with flags of its own |
    /// | terminal | anything | the same terminal, with flags of its own. Its modes (termios(3)) are restored when the sandbox is removed, if the caller was in the terminal's foreground process group both then and at the start |
    /// | socket, device, other kinds | anything | the caller's descriptor, with the flags that the caller has |
    ///
    /// Exceptions:
    ///
    /// - A file that is open for reading is copied to memory if it cannot be opened again: if it has no path any more,
    ///   if the caller may not open it, if an unprivileged caller may not create namespaces, or before Linux 5.12. If
    ///   it has more than 16 MiB, the program gets the caller's descriptor.
    /// - For a pipe or a terminal of another user, the program gets the caller's descriptor. Only a pipe that is open
    ///   for writing is replaced by another pipe, from which a thread of the caller copies.
    ///
    /// Where the program gets the caller's descriptor,
    /// [`Enforcement::unenforced`](crate::outcome::Enforcement::unenforced) has an entry of
    /// [`Layer::Descriptors`](crate::Layer::Descriptors).
    ///
    /// The program can open `/dev/stdin`, `/dev/stdout` and `/dev/stderr`, with two exceptions: sockets, and terminals
    /// that belong to another user on the host, as they do if the caller is privileged. A program with the user ID of
    /// the caller can open a pipe again in the other direction.
    ///
    /// # Errors
    ///
    /// When spawned, [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a directory (`..`
    /// would lead out of the sandbox), for a namespace, for a descriptor that was opened with `O_PATH`, and for a file
    /// that is open for reading and appending. When compiled, the same for a number that is not below the caller's
    /// `RLIMIT_NOFILE`.
    pub fn fd(&mut self, number: u32, fd: impl Into<OwnedFd>) -> &mut Self {
        self.fds.push((number, Descriptor(Arc::new(fd.into()))));
        self
    }

    /// Sets whether the program starts a session of its own, without a controlling terminal (setsid(2)).
    ///
    /// In the caller's session a program can read from the caller's terminal, and insert input into it on kernels that
    /// allow that (`dev.tty.legacy_tiocsti`).
    ///
    /// Default: `true`.
    pub fn new_session(&mut self, new: bool) -> &mut Self {
        self.new_session = new;
        self
    }

    /// Creates a pseudo-terminal of this size for the program (pty(7)). It becomes the standard streams and the
    /// controlling terminal of the program, in a new session. The caller's side is [`Child::pty`](crate::Child::pty), which
    /// [`Child::interact`](crate::Child::interact) connects to the caller's own terminal.
    ///
    /// The root of the sandbox needs a `/dev` ([`Root::dev`](crate::Root::dev)). The program can open other
    /// pseudo-terminals only if [`Root::terminals`](crate::Root::terminals) allows them, which also describes the CPU
    /// time that terminals use outside of the cgroup.
    ///
    /// Sets the environment variable `TERM` to `xterm-256color`, unless it is set. For another terminal, or none, use
    /// [`Command::env`] or [`Command::env_remove`].
    ///
    /// Default: no terminal.
    ///
    /// # Errors
    ///
    /// When compiled, [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if a standard stream
    /// is set too, and by [`Sandbox::status`](crate::Sandbox::status) and [`Sandbox::output`](crate::Sandbox::output),
    /// which read no terminal: the program would wait when the terminal is full.
    pub fn pty(&mut self, rows: u16, columns: u16) -> &mut Self {
        self.pty = Some(Terminal { rows, columns });
        self.env.entry("TERM".into()).or_insert_with(|| "xterm-256color".into());
        self
    }

    /// Returns the command with a pseudo-terminal of the size of the caller's.
    pub(crate) fn for_interaction(command: impl Into<Self>) -> Self {
        let (mut command, [rows, columns]) = (command.into(), first_size());
        command.pty(rows, columns);
        command
    }

    /// Refuses a terminal where nobody can read it.
    pub(crate) fn check_unattended(&self) -> Result<()> {
        match self.pty {
            None => Ok(()),
            Some(_) => Err(Error::invalid(
                "status and output do not read the program's terminal",
                "call interact, or spawn and read Child::pty, or remove Command::pty",
            )),
        }
    }

    /// Returns the program as it was given to [`Command::new`].
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        &self.program
    }

    /// Returns the arguments, without `argv[0]`.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.args.iter().map(OsString::as_os_str)
    }

    /// Returns all environment variables of the command, sorted by name. Unlike [`std::process::Command::get_envs`],
    /// which returns changes to an inherited environment, this is the whole environment, but for the variables of
    /// [`Sandbox::env`](crate::Sandbox::env).
    pub fn get_envs(&self) -> impl ExactSizeIterator<Item = (&OsStr, &OsStr)> {
        self.env.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str()))
    }

    /// Returns the working directory, or `None` if it is the default, `/`.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.cwd.as_deref()
    }

    /// Returns the path of the program inside, if it was named by one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let program = Path::new(&self.program);
        let directory = self.cwd.as_deref().unwrap_or(Path::new("/"));
        (program.components().count() > 1).then(|| directory.join(program))
    }

    pub(crate) fn job(&self, default: [Stdio; 3]) -> Result<Job<'_>> {
        let is_any_set =
            self.stdin_bytes.is_some() || [&self.stdin, &self.stdout, &self.stderr].iter().any(|s| s.is_some());
        if self.pty.is_some() && is_any_set {
            return Err(Error::invalid(
                "a standard stream is set, and a terminal that becomes the standard streams",
                "leave out Command::pty or interact, or Command::stdin, Command::stdin_bytes, Command::stdout and Command::stderr",
            ));
        }
        let [stdin, stdout, stderr] = default;
        let stdio = match self.pty {
            Some(_) => [const { StreamSource::Plain(Stream::Pty) }; 3],
            None => {
                let mut stdio = [(&self.stdin, stdin), (&self.stdout, stdout), (&self.stderr, stderr)]
                    .map(|(set, default)| set.as_ref().unwrap_or(&default).source());
                if let Some(bytes) = &self.stdin_bytes {
                    stdio[0] = StreamSource::Bytes(bytes.clone());
                }
                stdio
            }
        };
        Ok(Job {
            program: &self.program,
            arg0: self.arg0.as_deref(),
            args: &self.args,
            env: &self.env,
            has_default_path: self.env.get(OsStr::new("PATH")).is_some_and(|path| *path == *default_path()),
            cwd: self.cwd.as_deref(),
            stdio,
            fds: &self.fds,
            new_session: self.new_session || self.pty.is_some(),
            pty: self.pty,
        })
    }
}

impl From<&Command> for Command {
    fn from(command: &Command) -> Self {
        command.clone()
    }
}

impl From<&mut Command> for Command {
    fn from(command: &mut Command) -> Self {
        command.clone()
    }
}

/// Converts the program, its arguments, the working directory, and the environment variables that were set explicitly.
/// The caller's environment is not inherited. Standard streams are not converted, since a `std::process::Command` has
/// no methods that return them.
impl From<&std::process::Command> for Command {
    fn from(command: &std::process::Command) -> Self {
        let mut ours = Self::new(command.get_program());
        ours.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => ours.env(key, value),
                None => ours.env_remove(key),
            };
        }
        ours.cwd = command.get_current_dir().map(Path::to_owned);
        ours
    }
}

impl From<&mut std::process::Command> for Command {
    fn from(command: &mut std::process::Command) -> Self {
        Self::from(&*command)
    }
}

impl From<std::process::Command> for Command {
    fn from(command: std::process::Command) -> Self {
        Self::from(&command)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::confine::NamespaceRef;

    #[test]
    fn a_descriptor_is_not_left_out_of_what_is_stored() {
        let file = || File::open("/dev/null").expect("a descriptor");
        let mut plain = Command::new("true");
        let stored = serde_json::to_string(&plain).expect("JSON");
        assert_eq!(serde_json::from_str::<Command>(&stored).expect("a command"), plain);
        assert!(stored.contains(r#""stdin_bytes":null"#), "{stored}");
        let mut with_bytes = plain.clone();
        with_bytes.stdin_bytes(b"a\0\xff");
        let stored = serde_json::to_string(&with_bytes).expect("JSON");
        assert!(stored.contains(r#""stdin_bytes":"a\u0000\\xff""#), "{stored}");
        assert_eq!(serde_json::from_str::<Command>(&stored).expect("a command"), with_bytes);
        let further = serde_json::to_string(plain.clone().fd(7, file())).map_err(|error| error.to_string());
        let stream = serde_json::to_string(plain.stdin(file())).map_err(|error| error.to_string());
        let joined = serde_json::to_string(&NamespaceRef::fd(file())).map_err(|error| error.to_string());
        for result in [further, stream, joined] {
            assert!(
                result.as_ref().is_err_and(|error| error.contains("an open descriptor cannot be serialised")),
                "{result:?}"
            );
        }
        let read = serde_json::from_str::<Stdio>(r#"{"descriptor": null}"#).map_err(|error| error.to_string());
        assert!(read.as_ref().is_err_and(|error| error.contains("an open descriptor")), "{read:?}");
    }
}
