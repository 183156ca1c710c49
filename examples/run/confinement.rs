//! What the command line says of rights, as the crate's own types: on which sandbox it builds, which system calls, files,
//! ports and capabilities the program has, and what it may do without.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use stockade::{Capabilities, Capability, Landlock, Layer, Sandbox, Seccomp, profile};

#[derive(Args)]
pub struct Confinement {
    /// The sandbox that the other options change, instead of the default one. What it writes is limited without --pty, and
    /// shown when it has ended
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PROFILES.map(|(name, _)| name)).try_map(|name| known(&PROFILES, &name)))]
    profile: Option<Profile>,

    /// Capabilities that it has, over its own user namespace: net_raw, CAP_SYS_PTRACE, …
    #[arg(long, value_name = "CAP,…", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<Capability>,

    /// Lets it read and execute what is below a path inside, and, by Landlock, no other files
    #[arg(long, value_name = "PATH")]
    landlock_ro: Vec<PathBuf>,

    /// Lets it read, execute and change what is below a path inside, and, by Landlock, no other files
    #[arg(long, value_name = "PATH")]
    landlock_rw: Vec<PathBuf>,

    /// Lets it connect to a TCP port, and, by Landlock, to no others
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    connect: Vec<u16>,

    /// Lets it listen on a TCP port, and, by Landlock, on no others
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    bind_port: Vec<u16>,

    /// The system calls that it may make: one of the crate's policies, or one in a file, as JSON
    #[arg(long, value_name = "default|pure-computation|container|FILE", value_parser = OsStringValueParser::new().try_map(policy))]
    seccomp: Option<Seccomp>,

    /// Layers that the sandbox does without where they can't be had; what was lost is told
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(LAYERS.map(|(name, _)| name)).try_map(|name| known(&LAYERS, &name)))]
    best_effort: Vec<Layer>,
}

type Profile = fn() -> Sandbox;

const PROFILES: [(&str, Profile); 4] = [
    ("build-step", profile::build_step),
    ("test", profile::test),
    ("judge", profile::judge),
    ("agent", profile::agent),
];

const LAYERS: [(&str, Layer); 5] = [
    ("namespaces", Layer::Namespaces),
    ("root", Layer::Root),
    ("cgroup", Layer::Cgroup),
    ("landlock", Layer::Landlock),
    ("seccomp", Layer::Seccomp),
];

/// What a name stands for, of those that are taken.
fn known<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    let entry = table.iter().find(|(known, _)| *known == name);
    entry.map(|(_, value)| *value).ok_or_else(|| format!("{name} is not known"))
}

/// A capability by its name, with or without `CAP_`, in letters of any case.
fn capability(text: &str) -> Result<Capability, String> {
    let name = text.to_uppercase();
    let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    name.parse().map_err(|_| {
        let all = caps::all();
        let nearest = all.iter().min_by_key(|known| strsim::damerau_levenshtein(&known.to_string(), &name));
        let nearest = nearest.map(ToString::to_string).unwrap_or_default();
        format!("there is no such capability; the nearest is {nearest}, and capabilities(7) has them all")
    })
}

fn policy(text: OsString) -> Result<Seccomp, String> {
    match text.to_str() {
        Some("default") => Ok(Seccomp::new()),
        Some("pure-computation") => Ok(Seccomp::pure_computation()),
        Some("container") => Ok(Seccomp::container()),
        _ => {
            let read =
                |error| format!("it is none of default, pure-computation, container, and no file to read: {error}");
            let json = fs::read_to_string(&text).map_err(read)?;
            serde_json::from_str(&json).map_err(|error| format!("it is no policy as JSON: {error}"))
        }
    }
}

impl Confinement {
    /// What the other options change.
    pub fn base(&self) -> Sandbox {
        self.profile.map_or_else(Sandbox::new, |profile| profile())
    }

    /// Whether there is a profile, all of which limit the output.
    pub fn has_profile(&self) -> bool {
        self.profile.is_some()
    }

    /// A sandbox with these rights.
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

    /// Rules for what the options name: files, TCP, or both. The rest is left to namespaces and mounts.
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
