//! What the command line says, as the crate's own types.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser};
use stockade::{Bind, Command, Identity, Mount, Namespaces, Overlay, Root, Sandbox, TimeOffsets, Tmpfs};

use crate::confinement::Confinement;
use crate::resources::Resources;

/// Runs a program in a sandbox, and ends as the program does.
///
/// The options that change the file system are carried out in the order in which they are said. Exit status: the
/// program's; 128+N if signal N ended it; 125 if the sandbox could not be made; 126 if the program could not be
/// executed; 127 if it was not found; 124 if a limit or a forbidden system call ended it; 2 if the options are wrong.
#[derive(Parser)]
#[command(name = "run", override_usage = "run [OPTION]… -- PROGRAM [ARG]…")]
pub struct Options {
    #[command(flatten)]
    mounts: Mounts,

    /// The file system that the others change: the host's read-only, nothing, the host's as it is, or a directory
    /// [default: host, or that of the profile]
    #[arg(long, value_name = "host|empty|inherit|PATH", value_parser = paths().map(root))]
    root: Option<Root>,

    /// Namespaces that are not made, but shared with the host
    #[arg(long, value_name = "NS,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(SHARED.map(|(name, _)| name)).map(shared))]
    share: Vec<Namespaces>,

    /// Seconds that the monotonic and the boot-time clock are ahead inside
    #[arg(long, value_name = "SECS", allow_negative_numbers = true)]
    time_offset: Option<i64>,

    /// The host name inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<OsString>,

    /// The user id inside
    #[arg(long, value_name = "N")]
    uid: Option<u32>,

    /// The group id inside
    #[arg(long, value_name = "N")]
    gid: Option<u32>,

    /// The working directory inside, instead of /
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Sets an environment variable; none but PATH is set otherwise
    #[arg(long, value_name = "K=V", value_parser = paths().try_map(variable))]
    env: Vec<(OsString, OsString)>,

    #[command(flatten)]
    pub resources: Resources,

    #[command(flatten)]
    confinement: Confinement,

    /// Gives the program a terminal of its own, which is shown on this one
    #[arg(long)]
    pub pty: bool,

    /// Lets the program open so many pseudo-terminals itself, as script(1) or tmux(1) do
    #[arg(long, value_name = "N")]
    pub terminals: Option<u32>,

    /// Shows what would be done, call by call, and runs nothing
    #[arg(long, conflicts_with = "report")]
    pub explain: bool,

    /// Writes the outcome to a file, or with - to standard output, as a JSON object
    #[arg(long, value_name = "FILE|-")]
    pub report: Option<PathBuf>,

    /// Writes what the program needs to a file, or with - to standard output: as Rust code to one that ends in .rs, else as
    /// JSON. The program runs slower meanwhile
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["explain", "pty", "output"])]
    pub learn: Option<PathBuf>,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM [ARG]")]
    program: Vec<OsString>,
}

impl Options {
    /// The sandbox that they describe.
    pub fn sandbox(&self) -> Sandbox {
        let shared: Namespaces = self.share.iter().copied().collect();
        let mut identity = Identity::new();
        identity = self.uid.into_iter().fold(identity, Identity::uid);
        identity = self.gid.into_iter().fold(identity, Identity::gid);
        let mounts = self.mounts.0.iter().cloned();
        let mut sandbox = self
            .confinement
            .base()
            .map_limits(|limits| self.resources.limit(limits))
            .map_namespaces(|made| made - shared)
            .map_root(|root| mounts.fold(self.root.clone().unwrap_or(root), Root::mount))
            .map_root(|root| self.terminals.into_iter().fold(root, Root::terminals))
            .identity(identity);
        if let Some(cgroup) = self.resources.cgroup() {
            sandbox = sandbox.cgroup(cgroup);
        }
        if let Some(seconds) = self.time_offset {
            sandbox = sandbox.time_offsets(TimeOffsets { monotonic: seconds, boottime: seconds });
        }
        self.confinement.confine(self.hostname.iter().fold(sandbox, Sandbox::hostname))
    }

    /// Whether what it writes is collected, and shown when it has ended.
    pub fn collects_output(&self) -> bool {
        self.resources.output.is_some() || self.confinement.has_profile()
    }

    /// The program that runs in it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        command
    }
}

/// What is wrong with the options, in one line.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let wrong = paragraphs.next().unwrap_or_default().replacen("error: ", "", 1);
    match paragraphs.find(|paragraph| paragraph.starts_with("Usage: ")) {
        Some(usage) => format!("{wrong}; {}", usage.replacen('U', "u", 1)),
        None => wrong,
    }
}

/// What changes the file system, in the order in which it was said, whichever the options are.
struct Mounts(Vec<Mount>);

/// An option of that kind.
struct Operation {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    parse: fn(OsString) -> Result<Mount, String>,
}

/// Whether a source is in a directory of the system, where files that root alone may read are not meant for a program that
/// root starts.
fn is_of_system(text: &OsStr) -> bool {
    let text = text.as_encoded_bytes();
    let source = Path::new(OsStr::from_bytes(text.split(|&byte| byte == b':').next().unwrap_or(text)));
    let source = source.canonicalize().unwrap_or(source.into());
    let system = ["/etc", "/usr", "/bin", "/sbin", "/lib", "/boot", "/opt", "/var"];
    source == Path::new("/") || system.iter().any(|top| source.starts_with(top)) && !source.starts_with("/var/tmp")
}

const OPERATIONS: [Operation; 9] = [
    Operation {
        name: "ro",
        value: "SRC[:DST]",
        help: "Shows a file or directory of the host, read-only; of the system's what everybody may read",
        parse: |text| {
            let bind = bind(&text)?;
            Ok(if is_of_system(&text) { bind.unmapped() } else { bind }.into())
        },
    },
    Operation {
        name: "rw",
        value: "SRC[:DST]",
        help: "Shows a file or directory of the host, which the program may write",
        parse: |text| Ok(bind(&text)?.writable().into()),
    },
    Operation {
        name: "git",
        value: "SRC[:DST]",
        help: "Shows a workspace of git, which the program may write but for what git on the host would execute",
        parse: |text| Ok(bind(&text)?.writable().protect_git().into()),
    },
    Operation {
        name: "protect",
        value: "PATH",
        help: "Keeps what is at a path in a writable directory from being changed, replaced or created",
        parse: |path| Ok(Mount::Protect(path.into())),
    },
    Operation {
        name: "tmpfs",
        value: "DST[:SIZE]",
        help: "Makes a file system in memory, of at most 64M, 1G, …",
        parse: tmpfs,
    },
    Operation {
        name: "overlay",
        value: "LOWER:DST",
        help: "Shows a directory of the host, and keeps changes of it in memory; of the system's what everybody may read",
        parse: |text| {
            let (lower, target) = two(&text)?;
            let overlay = Overlay::new(target).lower(lower);
            Ok(if is_of_system(&text) { overlay.unmapped() } else { overlay }.into())
        },
    },
    Operation {
        name: "mask",
        value: "PATH",
        help: "Hides a file or directory",
        parse: |path| Ok(Mount::Mask(path.into())),
    },
    Operation {
        name: "dir",
        value: "PATH",
        help: "Makes a directory",
        parse: |path| Ok(Mount::Dir { target: path.into(), mode: 0o755 }),
    },
    Operation {
        name: "symlink",
        value: "TARGET:LINK",
        help: "Makes a symbolic link at LINK that says TARGET",
        parse: |text| two(&text).map(|(text, link)| Mount::Symlink { text: text.into(), link: link.into() }),
    },
];

impl Args for Mounts {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(OPERATIONS.map(|Operation { name, value, help, parse }| {
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
        let mut said: Vec<(usize, Mount)> = vec![];
        for Operation { name, .. } in OPERATIONS {
            let places = matches.indices_of(name).into_iter().flatten();
            said.extend(places.zip(matches.get_many::<Mount>(name).into_iter().flatten().cloned()));
        }
        said.sort_by_key(|(place, _)| *place);
        Ok(Self(said.into_iter().map(|(_, mount)| mount).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Paths are bytes, and need not be text.
fn paths() -> OsStringValueParser {
    OsStringValueParser::new()
}

fn bind(text: &OsStr) -> Result<Bind, String> {
    let (source, target) = split(text)?;
    let source = absolute(Path::new(source));
    let target = target.map_or_else(|| source.clone(), PathBuf::from);
    Ok(Bind::new(source, target))
}

fn tmpfs(text: OsString) -> Result<Mount, String> {
    let (target, size) = split(&text)?;
    let tmpfs = Tmpfs::new(target);
    Ok(match size {
        Some(size) => tmpfs.size(bytes(&size.to_string_lossy())?).into(),
        None => tmpfs.into(),
    })
}

/// A time with its unit.
pub fn time(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || "a time is a number with ms, s, m or h behind it".to_owned();
    let (number, seconds) =
        UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds))).ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// `ONE` or `ONE:OTHER`.
fn split(text: &OsStr) -> Result<(&OsStr, Option<&OsStr>), String> {
    let mut parts = text.as_bytes().split(|&byte| byte == b':').map(OsStr::from_bytes);
    match (parts.next(), parts.next(), parts.next()) {
        (_, _, Some(_)) => Err("it has more than one colon".into()),
        (Some(one), other, None) if !one.is_empty() && other != Some(OsStr::new("")) => Ok((one, other)),
        _ => Err("a part of it is empty".into()),
    }
}

/// `ONE:OTHER`.
fn two(text: &OsStr) -> Result<(&OsStr, &OsStr), String> {
    match split(text)? {
        (one, Some(other)) => Ok((one, other)),
        (_, None) => Err("it has no colon".into()),
    }
}

/// A path of the host from the root on. What `..` means depends on symlinks, so that it is resolved as the kernel does.
fn absolute(path: &Path) -> PathBuf {
    let resolved = path.components().any(|part| part == Component::ParentDir).then(|| path.canonicalize().ok());
    resolved.flatten().or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// A size such as `4096`, `64M`, `1G`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.find(|c: char| !c.is_ascii_digit()) {
        None => (text, Some(0)),
        Some(at) => {
            (&text[..at], ["K", "M", "G", "T"].iter().position(|unit| *unit == &text[at..]).map(|at| at * 10 + 10))
        }
    };
    let size = digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    match size {
        Some(0) => Err("nothing fits into 0 bytes".into()),
        Some(size) => Ok(size),
        None => Err(format!("{text:?} is no size: write a number of bytes, or of K, M, G or T")),
    }
}

fn root(text: OsString) -> Root {
    match text.to_str() {
        Some("host") => Root::host(),
        Some("empty") => Root::empty(),
        Some("inherit") => Root::inherit(),
        _ => Root::dir(text),
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
        Some(_) => Err("it has no name".into()),
        None => Err("it has no =".into()),
    }
}
