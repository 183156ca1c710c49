//! The options of the command line, as types of the crate.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser};
use stockade::mount::{Bind, Operation, Overlay, Tmpfs};
use stockade::namespaces::TimeOffsets;
use stockade::test::TestBinary;
use stockade::{Command, Identity, Namespaces, Root, Sandbox};

use crate::confinement::Confinement;
use crate::resources::Resources;

/// Runs a program in a sandbox, and exits with the program's status.
///
/// Options that change the file system are applied in the order given. Exit status: the program's; 128+N if it was
/// killed by signal N; 124 if it exceeded a limit or made a denied system call; 125 if the sandbox could not be set up;
/// 126 if the program could not be executed; 127 if it was not found; 2 if the options are invalid.
#[derive(Parser)]
#[command(name = "run", override_usage = "run [OPTION]… -- PROGRAM [ARG]…")]
pub struct Options {
    #[command(flatten)]
    mounts: Mounts,

    /// Set the root that the other options change: the host's, read-only; an empty one; the host's, unchanged; or a
    /// directory [default: host, or that of the profile]
    #[arg(long, value_name = "host|empty|inherit|PATH", value_parser = paths().map(root))]
    root: Option<Root>,

    /// Share these namespaces with the caller instead of creating them
    #[arg(
        long,
        value_name = "NS,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(SHARED.map(|(name, _)| name)).map(shared)
    )]
    share: Vec<Namespaces>,

    /// Set the offset of the monotonic and boot-time clocks, in seconds
    #[arg(long, value_name = "SECS", allow_negative_numbers = true)]
    time_offset: Option<i64>,

    /// Set the host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<OsString>,

    /// Set the user ID inside the sandbox
    #[arg(long, value_name = "N")]
    uid: Option<u32>,

    /// Set the group ID inside the sandbox
    #[arg(long, value_name = "N")]
    gid: Option<u32>,

    /// Set the working directory inside the sandbox [default: /, or the caller's for a test that cargo starts]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Set an environment variable; by default only PATH is set, and what cargo sets for a test that it starts
    #[arg(long, value_name = "K=V", value_parser = paths().try_map(variable))]
    env: Vec<(OsString, OsString)>,

    #[command(flatten)]
    pub resources: Resources,

    #[command(flatten)]
    confinement: Confinement,

    /// Run the program on a new pseudo-terminal, connected to this terminal
    #[arg(long)]
    pub pty: bool,

    /// Allow the program to open up to N pseudo-terminals, as script(1) and tmux(1) do
    #[arg(long, value_name = "N")]
    pub terminals: Option<u32>,

    /// Print the system calls of the set-up, and run nothing
    #[arg(long, conflicts_with = "report")]
    pub explain: bool,

    /// Write the outcome as a JSON object to a file, or to standard output with -
    #[arg(long, value_name = "FILE|-")]
    pub report: Option<PathBuf>,

    /// Record the system calls, paths and ports that the program uses, and write them to a file, or to standard output
    /// with -: as Rust code if the name ends in .rs, else as JSON. The program runs more slowly
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["explain", "pty", "output"])]
    pub learn: Option<PathBuf>,

    /// Program to run, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM [ARG]")]
    program: Vec<OsString>,
}

impl Options {
    /// Returns the test binary that cargo has started this program to run, if it has.
    pub fn test_binary(&self) -> stockade::Result<Option<TestBinary>> {
        if self.confinement.is_for_tests() { TestBinary::of_runner(&self.program[0]) } else { Ok(None) }
    }

    /// Returns the sandbox that the options describe.
    pub fn sandbox(&self, test: Option<&TestBinary>) -> Sandbox {
        let shared: Namespaces = self.share.iter().copied().collect();
        let mut identity = Identity::new();
        identity = self.uid.into_iter().fold(identity, Identity::uid);
        identity = self.gid.into_iter().fold(identity, Identity::gid);
        let mounts = self.mounts.0.iter().cloned();
        let base = self.confinement.base();
        let mut sandbox = test
            .map_or(base.clone(), |test| test.bind(base))
            .map_limits(|limits| self.resources.limit(limits))
            .map_namespaces(|made| made - shared)
            .map_root(|root| mounts.fold(self.root.clone().unwrap_or(root), Root::with))
            .map_root(|root| self.terminals.into_iter().fold(root, Root::terminals))
            .identity(identity);
        if let Some(cgroup) = self.resources.cgroup() {
            sandbox = sandbox.cgroup(cgroup);
        }
        if let Some(seconds) = self.time_offset {
            sandbox = sandbox.time_offsets(TimeOffsets::new().monotonic(seconds).boottime(seconds));
        }
        self.confinement.confine(self.hostname.iter().fold(sandbox, Sandbox::hostname))
    }

    /// Returns whether the output is collected, and printed when the program has terminated.
    pub fn collects_output(&self) -> bool {
        self.resources.output.is_some() || self.confinement.has_profile()
    }

    /// Returns the command that runs in the sandbox.
    pub fn command(&self, test: Option<&TestBinary>) -> Command {
        let mut command = test.map_or_else(|| Command::new(&self.program[0]), TestBinary::command);
        command.args(&self.program[1..]).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        command
    }
}

/// Formats an error about the options in one line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let wrong = paragraphs.next().unwrap_or_default().replacen("error: ", "", 1);
    match paragraphs.find(|paragraph| paragraph.starts_with("Usage: ")) {
        Some(usage) => format!("{wrong}; {}", usage.replacen('U', "u", 1)),
        None => wrong,
    }
}

/// The options that change the file system, in the order of the command line.
struct Mounts(Vec<Operation>);

/// An option that changes the file system.
struct RootOption {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    parse: fn(OsString) -> Result<Operation, String>,
}

/// Returns whether a source is in a system directory. Its private files must not be readable for a program that root
/// starts.
fn is_of_system(text: &OsStr) -> bool {
    let text = text.as_encoded_bytes();
    let source = Path::new(OsStr::from_bytes(text.split(|&byte| byte == b':').next().unwrap_or(text)));
    let source = source.canonicalize().unwrap_or(source.into());
    let system = ["/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/opt", "/var"];
    source == Path::new("/") || system.iter().any(|top| source.starts_with(top)) && !source.starts_with("/var/tmp")
}

const OPTIONS: [RootOption; 9] = [
    RootOption {
        name: "ro",
        value: "SRC[:DST]",
        help: "Bind a file or directory of the host read-only; in system directories only what every user may read",
        parse: |text| {
            let bind = bind(&text)?;
            Ok(if is_of_system(&text) { bind.unmapped() } else { bind }.into())
        },
    },
    RootOption {
        name: "rw",
        value: "SRC[:DST]",
        help: "Bind a file or directory of the host writable",
        parse: |text| Ok(bind(&text)?.writable().into()),
    },
    RootOption {
        name: "git",
        value: "SRC[:DST]",
        help: "Bind a git workspace writable, except what git on the host would execute",
        parse: |text| Ok(bind(&text)?.writable().protect_git().into()),
    },
    RootOption {
        name: "protect",
        value: "PATH",
        help: "Deny changing, replacing or creating a path in a writable directory",
        parse: |path| Ok(Operation::Protect(path.into())),
    },
    RootOption {
        name: "tmpfs",
        value: "DST[:SIZE]",
        help: "Mount a file system in memory, with a maximum size such as 64M or 1G",
        parse: tmpfs,
    },
    RootOption {
        name: "overlay",
        value: "LOWER:DST",
        help: "Mount an overlay of a directory of the host, with changes kept in memory; in system directories only \
               what every user may read",
        parse: |text| {
            let (lower, target) = two(&text)?;
            let overlay = Overlay::new(target).lower(lower);
            Ok(if is_of_system(&text) { overlay.unmapped() } else { overlay }.into())
        },
    },
    RootOption {
        name: "mask",
        value: "PATH",
        help: "Hide a file or directory",
        parse: |path| Ok(Operation::Mask(path.into())),
    },
    RootOption {
        name: "dir",
        value: "PATH",
        help: "Create a directory",
        parse: |path| Ok(Operation::create_dir(path, 0o755)),
    },
    RootOption {
        name: "symlink",
        value: "TARGET:LINK",
        help: "Create a symbolic link at LINK that points to TARGET",
        parse: |text| two(&text).map(|(original, link)| Operation::symlink(original, link)),
    },
];

impl Args for Mounts {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(OPTIONS.map(|RootOption { name, value, help, parse }| {
            let arg = Arg::new(name).long(name).value_name(value).help(help);
            arg.action(ArgAction::Append).value_parser(paths().try_map(parse))
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Mounts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<(usize, Operation)> = vec![];
        for RootOption { name, .. } in OPTIONS {
            let places = matches.indices_of(name).into_iter().flatten();
            given.extend(places.zip(matches.get_many::<Operation>(name).into_iter().flatten().cloned()));
        }
        given.sort_by_key(|(place, _)| *place);
        Ok(Self(given.into_iter().map(|(_, mount)| mount).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Returns a parser of paths, which need not be UTF-8.
fn paths() -> OsStringValueParser {
    OsStringValueParser::new()
}

fn bind(text: &OsStr) -> Result<Bind, String> {
    let (source, target) = split(text)?;
    let source = absolute(Path::new(source));
    let target = target.map_or_else(|| source.clone(), PathBuf::from);
    Ok(Bind::new(source, target))
}

fn tmpfs(text: OsString) -> Result<Operation, String> {
    let (target, size) = split(&text)?;
    let tmpfs = Tmpfs::new(target);
    Ok(match size {
        Some(size) => tmpfs.size(bytes(&size.to_string_lossy())?).into(),
        None => tmpfs.into(),
    })
}

/// Parses a time with its unit.
pub fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || "a time is a number followed by ms, s, m or h".to_owned();
    let (number, seconds) =
        UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds))).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// Parses `ONE` or `ONE:OTHER`.
fn split(text: &OsStr) -> Result<(&OsStr, Option<&OsStr>), String> {
    let mut parts = text.as_bytes().split(|&byte| byte == b':').map(OsStr::from_bytes);
    match (parts.next(), parts.next(), parts.next()) {
        (_, _, Some(_)) => Err("it has more than one colon".into()),
        (Some(one), other, None) if !one.is_empty() && other != Some(OsStr::new("")) => Ok((one, other)),
        _ => Err("a part before or after the colon is empty".into()),
    }
}

/// Parses `ONE:OTHER`.
fn two(text: &OsStr) -> Result<(&OsStr, &OsStr), String> {
    match split(text)? {
        (one, Some(other)) => Ok((one, other)),
        (_, None) => Err("it has no colon".into()),
    }
}

/// Returns the absolute path on the host. `..` depends on symlinks, so it is resolved as the kernel does.
fn absolute(path: &Path) -> PathBuf {
    let resolved = path.components().any(|part| part == Component::ParentDir).then(|| path.canonicalize().ok());
    resolved.flatten().or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// Parses a size such as `4096`, `64M`, `1G`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.find(|c: char| !c.is_ascii_digit()) {
        None => (text, Some(0)),
        Some(at) => {
            (&text[..at], ["K", "M", "G", "T"].iter().position(|unit| *unit == &text[at..]).map(|at| at * 10 + 10))
        }
    };
    let size = digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    match size {
        Some(0) => Err("a size of 0 bytes is too small".into()),
        Some(size) => Ok(size),
        None => Err(format!("{text:?} is not a size: use a number of bytes, or a number followed by K, M, G or T")),
    }
}

fn root(text: OsString) -> Root {
    match text.to_str() {
        Some("host") => Root::host(),
        Some("empty") => Root::empty(),
        Some("inherit") => Root::inherit(),
        _ => Root::from_dir(text),
    }
}

const SHARED: [(&str, Namespaces); 7] = [
    ("user", Namespaces::USER),
    ("mount", Namespaces::MOUNT),
    ("pid", Namespaces::PID),
    ("net", Namespaces::NET),
    ("ipc", Namespaces::IPC),
    ("uts", Namespaces::UTS),
    ("cgroup", Namespaces::CGROUP),
];

fn shared(name: String) -> Namespaces {
    SHARED.iter().filter(|(known, _)| *known == name).map(|(_, namespace)| *namespace).collect()
}

fn variable(text: OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if at > 0 => {
            Ok((OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
        }
        Some(_) => Err("the name before = is empty".into()),
        None => Err("it has no =".into()),
    }
}
