//! Options about privileges, as types of the crate: the profile, system calls, files, ports, capabilities, and
//! best-effort layers.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use stockade::capabilities::Capability;
use stockade::{Capabilities, Landlock, Layer, Sandbox, Seccomp, profile};

#[derive(Args)]
pub struct Confinement {
    /// Use a profile instead of the default sandbox; the other options change it. Without --pty the output is limited,
    /// and printed when the program has terminated. With the profile test, a program that cargo starts by its path gets
    /// the files of its package, and fails if it leaves processes running
    #[arg(
        long,
        value_name = "NAME",
        value_parser = PossibleValuesParser::new(PROFILES.map(|(name, _)| name))
            .try_map(|name| PROFILES.into_iter().find(|(known, _)| *known == name).ok_or("unknown name"))
    )]
    profile: Option<(&'static str, Profile)>,

    /// Keep capabilities, which apply to the sandbox's user namespace: net_raw, CAP_SYS_PTRACE, …
    #[arg(long, value_name = "CAP,…", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<Capability>,

    /// Allow reading and executing below a path, and deny all other files by Landlock
    #[arg(long, value_name = "PATH")]
    landlock_ro: Vec<PathBuf>,

    /// Allow reading, executing and writing below a path, and deny all other files by Landlock
    #[arg(long, value_name = "PATH")]
    landlock_rw: Vec<PathBuf>,

    /// Allow connecting to a TCP port, and deny all others by Landlock
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    connect: Vec<u16>,

    /// Allow binding to a TCP port, and deny all others by Landlock
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    bind_port: Vec<u16>,

    /// Set the seccomp policy: a preset of the crate, or a file with a policy as JSON
    #[arg(
        long,
        value_name = "default|pure-computation|runtime|container|FILE",
        value_parser = OsStringValueParser::new().try_map(policy)
    )]
    seccomp: Option<Seccomp>,

    /// Start without these layers if the host does not support them, and print what is unenforced
    #[arg(
        long,
        value_name = "LAYER,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(LAYERS.map(|(name, _)| name)).try_map(|name| known(&LAYERS, &name))
    )]
    best_effort: Vec<Layer>,
}

type Profile = fn() -> Sandbox;

const TEST: &str = "test";

const PROFILES: [(&str, Profile); 4] =
    [("build-step", profile::build_step), (TEST, profile::test), ("judge", profile::judge), ("agent", profile::agent)];

const LAYERS: [(&str, Layer); 5] = [
    ("namespaces", Layer::Namespaces),
    ("root", Layer::Root),
    ("cgroup", Layer::Cgroup),
    ("landlock", Layer::Landlock),
    ("seccomp", Layer::Seccomp),
];

/// Looks up a name in a table.
fn known<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    let entry = table.iter().find(|(known, _)| *known == name);
    entry.map(|(_, value)| *value).ok_or_else(|| format!("unknown name {name}"))
}

/// Parses the name of a capability, with or without `CAP_`, in upper or lower case.
fn capability(text: &str) -> Result<Capability, String> {
    let name = text.to_uppercase();
    let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    name.parse().map_err(|_| {
        let all = caps::all();
        let nearest = all.iter().min_by_key(|known| strsim::damerau_levenshtein(&known.to_string(), &name));
        let nearest = nearest.map(ToString::to_string).unwrap_or_default();
        format!("unknown capability: did you mean {nearest}? capabilities(7) lists all of them")
    })
}

fn policy(text: OsString) -> Result<Seccomp, String> {
    match text.to_str() {
        Some("default") => Ok(Seccomp::new()),
        Some("pure-computation") => Ok(Seccomp::pure_computation()),
        Some("runtime") => Ok(Seccomp::runtime()),
        Some("container") => Ok(Seccomp::container()),
        _ => {
            let read = |error| {
                format!(
                    "it is not default, pure-computation, runtime or container, and cannot be read as a file: {error}"
                )
            };
            let json = fs::read_to_string(&text).map_err(read)?;
            serde_json::from_str(&json).map_err(|error| format!("the file does not contain a policy as JSON: {error}"))
        }
    }
}

impl Confinement {
    /// Returns the sandbox to which the other options are applied.
    pub fn base(&self) -> Sandbox {
        self.profile.map_or_else(Sandbox::new, |(_, profile)| profile())
    }

    /// Whether a profile is used. All profiles limit the output.
    pub fn has_profile(&self) -> bool {
        self.profile.is_some()
    }

    /// Whether the profile for tests is used.
    pub fn is_for_tests(&self) -> bool {
        self.profile.is_some_and(|(name, _)| name == TEST)
    }

    /// Applies the options to a sandbox.
    pub fn confine(&self, mut sandbox: Sandbox) -> Sandbox {
        if !self.cap_add.is_empty() {
            sandbox = sandbox.capabilities(Capabilities::none().keep(self.cap_add.iter().copied()));
        }
        if let Some(policy) = &self.seccomp {
            sandbox = sandbox.seccomp(policy.clone());
        }
        if let Some(landlock) = self.landlock() {
            sandbox = sandbox.landlock(landlock);
        }
        sandbox.best_effort(self.best_effort.iter().copied())
    }

    /// Returns the Landlock policy. It restricts only files if only paths are given, and only TCP if only ports are
    /// given.
    fn landlock(&self) -> Option<Landlock> {
        let has_paths = !(self.landlock_ro.is_empty() && self.landlock_rw.is_empty());
        let has_ports = !(self.connect.is_empty() && self.bind_port.is_empty());
        let mut rules = Landlock::new().any_signal().any_abstract_socket();
        rules = self.landlock_ro.iter().fold(rules, Landlock::read_only);
        rules = self.landlock_rw.iter().fold(rules, Landlock::read_write);
        rules = self.connect.iter().copied().fold(rules, Landlock::connect_port);
        rules = self.bind_port.iter().copied().fold(rules, Landlock::bind_port);
        match (has_paths, has_ports) {
            (false, false) => None,
            (true, false) => Some(rules.any_tcp()),
            (false, true) => Some(rules.any_path()),
            (true, true) => Some(rules),
        }
    }
}
