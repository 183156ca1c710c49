//! What the keys of a configuration mean: the calls of the builders.

use std::path::Path;

use super::descriptor_source::DescriptorSource;
use super::keys::Config;
use super::learned_source::LearnedSource;
use super::mounts::mount;
use super::named_choices::{IdentityKind, Profile};
use super::reading::read_file;
use super::seccomp_source::{SeccompKind, SeccompSource};
use crate::cgroup::Cgroup;
use crate::command::{Command, Stdio};
use crate::confine::{Capabilities, Identity, Landlock, Limits, NamespaceRef, Namespaces, Seccomp, StoredPolicy};
use crate::error::{Error, Result};
use crate::learn::Learned;
use crate::sandbox::Sandbox;

impl Config {
    /// Returns the sandbox that the configuration describes. Files that it names, such as a seccomp policy, are read.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if keys contradict each other, or
    ///   if a file that the configuration names is invalid.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if such a file cannot be read.
    ///
    /// ```
    /// use stockade::config::{Config, ConfigFormat};
    /// use stockade::{Cgroup, Sandbox};
    ///
    /// let config = Config::parse("memory = '256MiB'", ConfigFormat::Toml, "/")?;
    /// assert_eq!(config.sandbox()?, Sandbox::new().cgroup(Cgroup::new().memory_max(256 << 20)));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn sandbox(&self) -> Result<Sandbox> {
        self.apply(self.profile.map_or_else(Sandbox::new, Profile::sandbox))
    }

    /// Applies the keys to a sandbox, which takes the place of that of the profile.
    ///
    /// # Errors
    ///
    /// Those of [`Config::sandbox`].
    ///
    /// ```
    /// use stockade::config::{Config, ConfigFormat};
    /// use stockade::profile;
    ///
    /// let config = Config::parse("profile = 'agent'\nhostname = 'box'", ConfigFormat::Toml, "/")?;
    /// let base = profile::agent().env("EDITOR", "vi");
    /// assert_eq!(config.apply(base)?, profile::agent().env("EDITOR", "vi").hostname("box"));
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn apply(&self, base: Sandbox) -> Result<Sandbox> {
        self.check()?;
        let sandbox = self.env_remove.iter().fold(base, |sandbox, name| sandbox.env_remove(name));
        let sandbox = self.env.iter().fold(sandbox, |sandbox, (name, value)| sandbox.env(name, value));
        let sandbox = self.with_namespaces(sandbox);
        let sandbox = sandbox
            .map_root(|root| mount(self, self.root.clone().unwrap_or(root)))
            .map_limits(|limits| self.limited(limits));
        let sandbox = self.cgroup().into_iter().fold(sandbox, Sandbox::cgroup);
        self.with_policies(self.with_privileges(sandbox))
    }

    /// Returns the command that the configuration describes. The files of `descriptors` are opened, and created if they
    /// are for writing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if there is no `command`, or if
    ///   the caller does not have a descriptor.
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if a file cannot be opened.
    ///
    /// ```
    /// use stockade::config::{Config, ConfigFormat};
    ///
    /// let config = Config::parse(r#"command = ["echo", "hello"]"#, ConfigFormat::Toml, "/")?;
    /// assert_eq!(config.sandbox()?.output(config.command()?)?.stdout, b"hello\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn command(&self) -> Result<Command> {
        self.check()?;
        let Some((program, args)) = self.command.as_deref().and_then(<[_]>::split_first) else {
            return Err(Error::invalid(
                "the configuration has no command",
                "add `command`, such as command = [\"id\", \"-u\"]",
            ));
        };
        let mut command = Command::new(program);
        command.args(args);
        if let Some(name) = &self.arg0 {
            command.arg0(name);
        }
        if let Some(directory) = &self.cwd {
            command.current_dir(directory);
        }
        if let Some(is_new) = self.new_session {
            command.new_session(is_new);
        }
        for (number, source) in &self.descriptors {
            let stdio = |source: &DescriptorSource| source.open().map(Stdio::from);
            match number {
                0 => command.stdin(stdio(source)?),
                1 => command.stdout(stdio(source)?),
                2 => command.stderr(stdio(source)?),
                _ => command.fd(*number, source.open()?),
            };
        }
        Ok(if self.pty == Some(true) { Command::for_interaction(command) } else { command })
    }

    /// Returns the namespaces that are shared with the caller.
    pub(super) fn shared(&self) -> Namespaces {
        self.share.iter().copied().collect()
    }

    fn with_namespaces(&self, sandbox: Sandbox) -> Sandbox {
        let mut sandbox = sandbox.map_namespaces(|created| created - self.shared());
        for &(kinds, pid) in &self.join {
            sandbox = sandbox.join(kinds, NamespaceRef::pid(pid));
        }
        sandbox = self.hostname.iter().fold(sandbox, Sandbox::hostname);
        sandbox = self.domain_name.iter().fold(sandbox, Sandbox::domain_name);
        sandbox = self.time_offsets.into_iter().fold(sandbox, Sandbox::time_offsets);
        if self.keep_namespaces == Some(true) { sandbox.keep_namespaces() } else { sandbox }
    }

    fn limited(&self, mut limits: Limits) -> Limits {
        limits = self.wall_time.into_iter().fold(limits, Limits::wall_time);
        limits = self.cpu_time.into_iter().fold(limits, Limits::cpu_time);
        limits = self.idle_timeout.into_iter().fold(limits, Limits::idle_timeout);
        limits = self.kill_grace.into_iter().fold(limits, Limits::kill_grace);
        limits = self.stdout_max.into_iter().fold(limits, Limits::stdout_max);
        limits = self.stderr_max.into_iter().fold(limits, Limits::stderr_max);
        limits = self.overflow.into_iter().fold(limits, Limits::overflow);
        limits = self.stderr_overflow.into_iter().fold(limits, Limits::stderr_overflow);
        limits = self.address_space_without_cgroup.into_iter().fold(limits, Limits::address_space_without_cgroup);
        limits = self.nice.into_iter().fold(limits, Limits::nice);
        limits = self.oom_score_adj.into_iter().fold(limits, Limits::oom_score_adj);
        self.rlimits.iter().fold(limits, |set, (resource, (soft, hard))| set.rlimit(*resource, *soft, *hard))
    }

    /// Returns the cgroup, if a key needs one.
    fn cgroup(&self) -> Option<Cgroup> {
        if self.cgroup != Some(true) && self.keys_of_cgroup().is_empty() {
            return None;
        }
        let mut cgroup = self.cgroup_parent.iter().cloned().fold(Cgroup::new(), Cgroup::parent);
        cgroup = self.memory.into_iter().fold(cgroup, Cgroup::memory_max);
        cgroup = self.memory_high.into_iter().fold(cgroup, Cgroup::memory_high);
        cgroup = match self.swap {
            Some(Some(bytes)) => cgroup.swap_max(bytes),
            Some(None) => cgroup.swap_unlimited(),
            None => cgroup,
        };
        cgroup = self.pids.into_iter().fold(cgroup, Cgroup::pids_max);
        cgroup = match (self.cpus, self.cpu_period) {
            (Some(cpus), Some(period)) => cgroup.cpu_max_in(cpus, period),
            (Some(cpus), None) => cgroup.cpu_max(cpus),
            (None, _) => cgroup,
        };
        cgroup = self.cpu_weight.into_iter().fold(cgroup, Cgroup::cpu_weight);
        cgroup = self.cpuset.iter().fold(cgroup, Cgroup::cpuset_cpus);
        cgroup = self.cpuset_mems.iter().fold(cgroup, Cgroup::cpuset_mems);
        cgroup = self.io_max.iter().fold(cgroup, |cgroup, (device, max)| cgroup.io_max(device, max.clone()));
        cgroup = self.io_weight.into_iter().fold(cgroup, Cgroup::io_weight);
        cgroup = self.hugetlb_max.iter().fold(cgroup, |cgroup, (size, bytes)| cgroup.hugetlb_max(size, *bytes));
        cgroup = self.cgroup_raw.iter().fold(cgroup, |cgroup, (file, value)| cgroup.raw(file, value));
        cgroup = if self.freezable == Some(true) { cgroup.freezable() } else { cgroup };
        Some(if self.cgroup_hidden == Some(true) { cgroup.hidden() } else { cgroup })
    }

    fn with_privileges(&self, mut sandbox: Sandbox) -> Sandbox {
        if !self.capabilities.is_empty() {
            let kept = Capabilities::none().keep(self.capabilities.iter().copied());
            sandbox =
                sandbox.capabilities(if self.drop_on_setuid == Some(true) { kept.drop_on_setuid() } else { kept });
        }
        sandbox = self.umask.into_iter().fold(sandbox, Sandbox::umask);
        sandbox = self.setup_timeout.into_iter().fold(sandbox, Sandbox::setup_timeout);
        sandbox = if self.allow_new_privs == Some(true) { sandbox.allow_new_privs() } else { sandbox };
        sandbox = if self.nestable == Some(true) { sandbox.nestable() } else { sandbox };
        sandbox = if self.landlock_fallback == Some(true) { sandbox.landlock_fallback() } else { sandbox };
        sandbox.identity(self.identity()).best_effort(self.best_effort.iter().copied())
    }

    fn identity(&self) -> Identity {
        let mut identity = match &self.identity {
            None | Some(IdentityKind::Default) => Identity::new(),
            Some(IdentityKind::Caller) => Identity::caller(),
            Some(IdentityKind::SubIds) => Identity::new().sub_ids(),
            Some(IdentityKind::Maps { uid, gid }) => Identity::new().maps(uid.iter().copied(), gid.iter().copied()),
        };
        identity = self.uid.into_iter().fold(identity, Identity::uid);
        identity = self.gid.into_iter().fold(identity, Identity::gid);
        identity = self.groups.iter().cloned().fold(identity, Identity::groups);
        self.host_ids.into_iter().fold(identity, |identity, (first, count)| identity.host_ids(first, count))
    }

    /// Adds the policies. What was learned narrows what the other keys allow.
    fn with_policies(&self, sandbox: Sandbox) -> Result<Sandbox> {
        let sandbox = self.landlock().into_iter().fold(sandbox, Sandbox::landlock);
        let sandbox = match &self.seccomp {
            Some(source) => {
                let change = source.change()?;
                sandbox.map_seccomp(change)
            }
            None => sandbox,
        };
        Ok(match &self.learned {
            Some(LearnedSource::File(path)) => read_file::<Learned>(path)?.apply(sandbox),
            Some(LearnedSource::Value(learned)) => learned.apply(sandbox),
            None => sandbox,
        })
    }

    /// Returns the Landlock policy. The keys for rules restrict only files if only paths are given, and only TCP if only
    /// ports are given.
    fn landlock(&self) -> Option<Landlock> {
        if self.landlock.is_some() {
            return self.landlock.clone();
        }
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

impl SeccompSource {
    /// Returns what the source makes of the policy of the profile.
    fn change(&self) -> Result<impl FnOnce(Seccomp) -> Seccomp> {
        let table = match &self.0 {
            SeccompKind::Policy(policy) => Err(policy.clone()),
            SeccompKind::File(path) => Ok(read_file::<StoredPolicy>(path)?),
            SeccompKind::Table(table) => Ok((**table).clone()),
        };
        Ok(move |of_profile| match table {
            Err(policy) => policy,
            Ok(table) => table.changes(of_profile),
        })
    }
}

impl Sandbox {
    /// Reads a sandbox from a configuration: see [`config`](crate::config). Relative paths of the host in it start at
    /// the directory `base`.
    ///
    /// # Errors
    ///
    /// Those of [`Config::parse`] and [`Config::sandbox`]. Also
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the text has keys of a command,
    /// which a sandbox would ignore: `command`, `arg0`, `cwd`, `pty`, `new_session`, `descriptors`. Use [`Config`] for
    /// these.
    ///
    /// ```
    /// use stockade::config::ConfigFormat;
    /// use stockade::{Command, Sandbox};
    ///
    /// let text = r#"
    ///     profile = "agent"
    ///     wall_time = "10s"
    ///     env = { GREETING = "hello" }
    /// "#;
    /// let sandbox = Sandbox::from_config(text, ConfigFormat::Toml, ".")?;
    /// let output = sandbox.output(Command::new("sh").args(["-c", "echo $GREETING"]))?;
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "config")))]
    pub fn from_config(text: &str, format: super::ConfigFormat, base: impl AsRef<Path>) -> Result<Self> {
        Config::parse(text, format, base)?.without_command()?.sandbox()
    }

    /// Reads a sandbox from a configuration file: see [`config`](crate::config). It is JSON if its name ends in
    /// `.json`, else TOML. Relative paths of the host in it start at its directory.
    ///
    /// # Errors
    ///
    /// Those of [`Config::read`] and [`Sandbox::from_config`].
    ///
    /// ```
    /// use stockade::{Command, Sandbox};
    ///
    /// let directory = tempfile::tempdir()?;
    /// std::fs::create_dir(directory.path().join("work"))?;
    /// let file = directory.path().join("sandbox.toml");
    /// std::fs::write(&file, "rw = ['work:/work']")?;
    /// assert!(Sandbox::from_config_file(&file)?.status(Command::new("touch").arg("/work/a"))?.success());
    /// assert!(directory.path().join("work/a").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "config")))]
    pub fn from_config_file(path: impl AsRef<Path>) -> Result<Self> {
        Config::read(path)?.without_command()?.sandbox()
    }
}

impl Config {
    /// Refuses keys of a command.
    fn without_command(self) -> Result<Self> {
        let keys = [
            ("command", self.command.is_some()),
            ("arg0", self.arg0.is_some()),
            ("cwd", self.cwd.is_some()),
            ("pty", self.pty.is_some()),
            ("new_session", self.new_session.is_some()),
            ("descriptors", !self.descriptors.is_empty()),
        ];
        match keys.into_iter().find(|(_, is_set)| *is_set) {
            None => Ok(self),
            Some((key, _)) => Err(Error::invalid(
                format!("`{key}` is about a command, and a sandbox has none"),
                "use Config::read or Config::parse, and its methods sandbox and command, or remove the key",
            )),
        }
    }
}
