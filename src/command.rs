//! What is run in a sandbox, in the vocabulary of [`std::process::Command`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::confine::{Descriptor, Job, Source, Terminal};
use crate::plan::Stream;

/// Where programs are looked for by default.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program with its arguments and surroundings. Unlike that of [`std::process::Command`] **its environment starts
/// empty but for `PATH`**, its working directory is `/`, and it gets a session of its own.
///
/// It is plain data, and can be run any number of times.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Command {
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    program: OsString,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    arg0: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    args: Vec<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form"))]
    env: BTreeMap<OsString, OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::text::form", default))]
    cwd: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Vec::is_empty"))]
    fds: Vec<(u32, Descriptor)>,
    new_session: bool,
    pty: Option<Terminal>,
}

/// Where a standard stream of a command leads.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stdio(Kind);

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Kind {
    Inherit,
    Null,
    Piped,
    Descriptor(Descriptor),
}

impl Stdio {
    /// The caller's own stream, or `/dev/null` if the caller has that closed. See [`Command::fd`] for what the program
    /// gets.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null`.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A new pipe, whose other end is in the [`Child`](crate::Child).
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }

    fn source(&self) -> Source {
        match &self.0 {
            Kind::Inherit => Source::Plain(Stream::Inherit),
            Kind::Null => Source::Plain(Stream::Null),
            Kind::Piped => Source::Plain(Stream::Piped),
            Kind::Descriptor(fd) => Source::Descriptor(fd.clone()),
        }
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::Descriptor(Descriptor(Arc::new(fd))))
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

impl Command {
    /// A program by its path inside the sandbox, or by a name that is looked for in the directories of its `PATH`,
    /// inside the sandbox.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arg0: None,
            args: vec![],
            env: BTreeMap::from([("PATH".into(), PATH.into())]),
            cwd: None,
            stdin: None,
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

    /// What the program is told to be called (`argv[0]`). Default: as it was named.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.arg0 = Some(arg.as_ref().to_owned());
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets environment variables. `envs(std::env::vars_os())` gives the program all of the host's, with every secret
    /// that is among them.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, vars: impl IntoIterator<Item = (K, V)>) -> &mut Self {
        for (key, value) in vars {
            self.env(key, value);
        }
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.env.remove(key.as_ref());
        self
    }

    /// Removes every environment variable, `PATH` too.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env.clear();
        self
    }

    /// The working directory, a path inside the sandbox. Default `/`.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cwd = Some(directory.as_ref().to_owned());
        self
    }

    /// Standard input. Default: inherited by `spawn` and `status`, `/dev/null` for `output`.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdio.into());
        self
    }

    /// Standard output. Default: inherited by `spawn` and `status`, a pipe for `output`.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdio.into());
        self
    }

    /// Standard error. Default: inherited by `spawn` and `status`, a pipe for `output`.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stdio.into());
        self
    }

    /// Adds a descriptor, by its number in the program. No other than these and the standard streams is open in it.
    ///
    /// A descriptor is often access to more than it was opened for: a program could open a file that it has for reading
    /// again for writing (`/proc/self/fd`), and flags such as `O_NONBLOCK` would change for the caller too. What the program
    /// gets instead for a descriptor, or for a standard stream that is inherited or given, depends on the kind:
    ///
    /// | kind | opened for | the program gets |
    /// |---|---|---|
    /// | regular file | reading | the file, opened again on a read-only mount, with an offset of its own: the caller's offset does not move. `/proc/self/fd` shows it as `/` |
    /// | | writing, appending | a pipe, from which a thread of the caller copies to the file. Everything is copied when [`Child::wait`](crate::Child::wait) returns. `RLIMIT_FSIZE` limits what is copied |
    /// | | reading and writing | the caller's descriptor: the program can do whatever the file's owner can do, such as change its mode |
    /// | pipe, FIFO | anything | the same pipe, with flags of its own |
    /// | terminal | anything | the same terminal, with flags of its own. Its modes (termios(3)) are restored when the sandbox ends, if the caller is its foreground job then and was before |
    /// | socket, device, other kinds | anything | the caller's descriptor, with the flags that the caller has |
    ///
    /// A file is copied to memory if it can't be opened again: before Linux 5.12, if it has no path any more, if the caller
    /// may not open it, or if an ordinary user may not create namespaces. A file of more than 16 MiB is then given to the
    /// program as it is. A pipe or a terminal of another user is, too, unless it is a pipe that is open for writing, which is
    /// copied. [`Outcome::enforced`](crate::Outcome::enforced) reports each as lost of
    /// [`Layer::Descriptors`](crate::Layer::Descriptors).
    ///
    /// `/dev/stdin`, `/dev/stdout` and `/dev/stderr` can be opened, except for sockets, and except for a terminal if the
    /// program has another user ID on the host than the terminal's owner, as it has for a root caller. A program with the
    /// user ID of the caller can open a pipe again in the other direction.
    ///
    /// # Errors
    ///
    /// [`Sandbox::spawn`](crate::Sandbox::spawn) returns [`Error::Invalid`](crate::Error::Invalid) for a directory, from
    /// which `..` leads out of the sandbox, for a namespace, for a descriptor that is open as a path alone (`O_PATH`), and for
    /// a file that is open for reading and appending.
    pub fn fd(&mut self, number: u32, fd: impl Into<OwnedFd>) -> &mut Self {
        self.fds.push((number, Descriptor(Arc::new(fd.into()))));
        self
    }

    /// Whether it starts a session of its own (setsid(2)), without a controlling terminal. Default true. In the host's
    /// session a program can read the terminal, and on kernels that still allow it (`dev.tty.legacy_tiocsti`), type
    /// into it.
    pub fn new_session(&mut self, new: bool) -> &mut Self {
        self.new_session = new;
        self
    }

    /// Gives it a terminal of the sandbox's own, of this size, as its standard streams and controlling terminal
    /// (pty(7)); the other side is in the [`Child`](crate::Child). The sandbox needs a `/dev`, and the session is new.
    ///
    /// The program can open no other terminal, unless [`Root::terminals`](crate::Root::terminals) allows it. Kernel threads
    /// pass on what is written to a terminal, and their CPU time counts to no cgroup: see there.
    pub fn pty(&mut self, rows: u16, columns: u16) -> &mut Self {
        self.pty = Some(Terminal { rows, columns });
        self
    }

    /// The program as it was named.
    pub fn get_program(&self) -> &OsStr {
        &self.program
    }

    /// Where the program is inside, if it was named by its path.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let program = Path::new(&self.program);
        let directory = self.cwd.as_deref().unwrap_or(Path::new("/"));
        (program.components().count() > 1).then(|| directory.join(program))
    }

    pub(crate) fn job(&self, default: [Stdio; 3]) -> Job<'_> {
        let [stdin, stdout, stderr] = default;
        let stdio = match self.pty {
            Some(_) => [const { Source::Plain(Stream::Pty) }; 3],
            None => [(&self.stdin, stdin), (&self.stdout, stdout), (&self.stderr, stderr)]
                .map(|(said, default)| said.as_ref().unwrap_or(&default).source()),
        };
        Job {
            program: &self.program,
            arg0: self.arg0.as_deref(),
            args: &self.args,
            env: &self.env,
            cwd: self.cwd.as_deref(),
            stdio,
            fds: &self.fds,
            new_session: self.new_session || self.pty.is_some(),
            pty: self.pty,
        }
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

/// Takes over program, arguments, working directory, and the environment variables that were set one by one: what the
/// host's environment has does not come along. Standard streams can't be told from a `std::process::Command`.
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
    use crate::confine::NamespaceOf;

    #[test]
    fn a_descriptor_is_not_left_out_of_what_is_stored() {
        let file = || File::open("/dev/null").expect("a descriptor");
        let mut plain = Command::new("true");
        let stored = serde_json::to_string(&plain).expect("JSON");
        assert_eq!(serde_json::from_str::<Command>(&stored).expect("a command"), plain);
        let further = serde_json::to_string(plain.clone().fd(7, file())).map_err(|error| error.to_string());
        let stream = serde_json::to_string(plain.stdin(file())).map_err(|error| error.to_string());
        let joined = serde_json::to_string(&NamespaceOf::fd(file())).map_err(|error| error.to_string());
        for result in [further, stream, joined] {
            assert!(
                result.as_ref().is_err_and(|error| error.contains("an open descriptor can't be stored")),
                "{result:?}"
            );
        }
        let read = serde_json::from_str::<Stdio>(r#"{"Descriptor": null}"#).map_err(|error| error.to_string());
        assert!(read.as_ref().is_err_and(|error| error.contains("an open descriptor")), "{read:?}");
    }
}
