//! Options about privileges: the profile, the user, capabilities, system calls, files, ports, and best-effort layers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use stockade::Layer;
use stockade::capabilities::Capability;
use stockade::config::{Config, Profile, SeccompSource};

use crate::option_words::as_message;
use crate::value_parsers::{capability, paths};

#[derive(Args)]
pub struct PrivilegeOptions {
    /// Use a profile instead of the default sandbox; the other options change it. Without --pty the output is limited,
    /// and printed when the program has terminated. With the profile test, a program that cargo starts by its path gets
    /// the files of its package, and fails if it leaves processes running
    #[arg(
        long,
        value_name = "NAME",
        value_parser = PossibleValuesParser::new(PROFILES.map(|(name, _)| profile_name(name))).try_map(profile)
    )]
    profile: Option<Profile>,

    /// Set the user ID inside the sandbox
    #[arg(long, value_name = "N")]
    uid: Option<u32>,

    /// Set the group ID inside the sandbox
    #[arg(long, value_name = "N")]
    gid: Option<u32>,

    /// Keep capabilities, which apply to the sandbox's user namespace: net_raw, CAP_SYS_PTRACE, …
    #[arg(long, value_name = "CAP,…", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<Capability>,

    /// Set the seccomp policy: a preset, none, or a file with a policy (a path with a slash or a dot in it)
    #[arg(
        long,
        value_name = "default|pure-computation|runtime|container|unconfined|FILE",
        value_parser = paths().try_map(policy)
    )]
    seccomp: Option<SeccompSource>,

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

    /// Start without these layers if the host does not support them, and print what is unenforced
    #[arg(
        long,
        value_name = "LAYER,…",
        value_delimiter = ',',
        value_parser = PossibleValuesParser::new(LAYERS.map(|(name, _)| name)).try_map(|name| known(&LAYERS, &name))
    )]
    best_effort: Vec<Layer>,
}

const PROFILES: [(&str, Profile); 5] = [
    ("build-step", Profile::BuildStep),
    ("test", Profile::Test),
    ("compile-untrusted", Profile::CompileUntrusted),
    ("judge", Profile::Judge),
    ("agent", Profile::Agent),
];

const LAYERS: [(&str, Layer); 5] = [
    ("namespaces", Layer::Namespaces),
    ("root", Layer::Root),
    ("cgroup", Layer::Cgroup),
    ("landlock", Layer::Landlock),
    ("seccomp", Layer::Seccomp),
];

/// The name of a profile, which configuration files write with `_`.
fn profile_name(name: &'static str) -> PossibleValue {
    let value = PossibleValue::new(name);
    match name {
        "build-step" => value.alias("build_step"),
        "compile-untrusted" => value.alias("compile_untrusted"),
        _ => value,
    }
}

fn profile(name: String) -> Result<Profile, String> {
    known(&PROFILES, &name.replace('_', "-"))
}

/// Looks up a name in a table.
fn known<T: Copy>(table: &[(&str, T)], name: &str) -> Result<T, String> {
    let entry = table.iter().find(|(known, _)| *known == name);
    entry.map(|(_, value)| *value).ok_or_else(|| format!("unknown name {name}"))
}

fn policy(text: OsString) -> Result<SeccompSource, String> {
    match text.to_str() {
        Some(name) => name.parse().map_err(|error| as_message(&error)),
        None => Ok(SeccompSource::file(text)),
    }
}

impl PrivilegeOptions {
    pub fn add_to(&self, config: &mut Config) {
        config.profile = self.profile;
        config.uid = self.uid;
        config.gid = self.gid;
        config.capabilities.clone_from(&self.cap_add);
        config.seccomp.clone_from(&self.seccomp);
        config.landlock_ro.clone_from(&self.landlock_ro);
        config.landlock_rw.clone_from(&self.landlock_rw);
        config.connect.clone_from(&self.connect);
        config.bind_port.clone_from(&self.bind_port);
        config.best_effort.clone_from(&self.best_effort);
    }
}
