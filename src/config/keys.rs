//! [`Config`]: the keys of a configuration file, as plain data. What a key does is in `lower`; how its text is read, in
//! the files of the forms.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::descriptor_source::{DescriptorNumber, DescriptorSource};
use super::learned_source::LearnedSource;
use super::named_choices::{CapabilityName, IdentityKind, NamespaceName, Profile};
use super::overriding::Overriding;
use super::rlimit_pair::RlimitPair;
use super::root_base::RootBase;
use super::seccomp_source::SeccompSource;
use super::short_text::{Short, Typed};
use crate::capabilities::Capability;
use crate::cgroup::{CgroupParent, IoMax};
use crate::confine::{
    Bind, Landlock, Mode, Namespaces, Operation, Overflow, Overlay, Resource, Root, TimeOffsets, Tmpfs,
};
use crate::layer::Layer;
use crate::stored::{As, Bytes, BytesOrUnlimited, Count, Escaped, Finite, Plain, Seconds, table_form};

table_form!(
    /// A range of host IDs.
    IdSpan { first: u32 as Plain, count: u32 as Plain }
);

table_form!(
    /// The namespaces of a process to join.
    JoinEntry { namespaces: Namespaces as Plain, pid: u32 as Plain }
);

/// A key of a configuration file: see [`Config::keys`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    name: &'static str,
    doc: &'static str,
    example: &'static str,
}

impl ConfigKey {
    /// Returns the name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns what the key is, as a sentence.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.doc.trim()
    }

    /// Returns an example, as a line of TOML.
    #[must_use]
    pub const fn example(&self) -> &'static str {
        self.example
    }
}

impl Config {
    /// Returns the keys that a configuration can have, in the order of the documentation.
    ///
    /// ```
    /// use stockade::config::Config;
    ///
    /// let memory = Config::keys().find(|key| key.name() == "memory").expect("it is a key");
    /// assert_eq!(memory.example(), "memory = \"256MiB\"");
    /// assert_eq!(memory.description(), "The memory of all processes together.");
    /// ```
    pub fn keys() -> impl ExactSizeIterator<Item = ConfigKey> {
        KEYS.iter().copied()
    }
}

/// Defines the keys: documentation, form, name, type, and an example as a line of TOML.
macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $(#[serde($($serde:tt)*)])? $key:ident: $type:ty, $example:literal;)+) => {
        /// The keys of a configuration file, as plain data: see [`config`](crate::config).
        ///
        /// An absent key is `None` or empty. [`Config::overridden_by`] merges two values, such as a file and the options
        /// of a command line.
        ///
        /// `Deserialize` reads the same keys from any format. Errors then have no line, a key after the header `[env]` is a
        /// variable, and relative paths stay as they are until [`Config::resolve`] is called. Prefer [`Config::parse`] and
        /// [`Config::read`].
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct Config {
            $($(#[doc = $doc])+ $(#[serde($($serde)*)])? pub $key: $type,)+
        }

        /// The keys, each with an example.
        pub(super) const EXAMPLES: &[(&str, &str)] = &[$((stringify!($key), $example)),+];

        const KEYS: &[ConfigKey] =
            &[$(ConfigKey { name: stringify!($key), doc: concat!($($doc),+), example: $example }),+];

        impl Config {
            /// Returns the union of both, in which `other` decides: its values replace those of this one. Lists are
            /// appended, and tables are merged by their keys.
            ///
            /// ```
            /// use stockade::config::{Config, ConfigFormat};
            ///
            /// let read = |text| Config::parse(text, ConfigFormat::Toml, "/srv");
            /// let file = read("memory = '1GiB'\nwall_time = '10s'\nro = ['a:/a']")?;
            /// let options = read("memory = '2GiB'\nro = ['b:/b']")?;
            /// assert_eq!(file.overridden_by(options), read("memory = '2GiB'\nwall_time = '10s'\nro = ['a:/a', 'b:/b']")?);
            /// # Ok::<(), stockade::Error>(())
            /// ```
            #[must_use]
            pub fn overridden_by(self, other: Self) -> Self {
                Self { $($key: self.$key.overridden_by(other.$key)),+ }
            }
        }
    };
}

keys! {
    /// The profile that the other keys change.
    profile: Option<Profile>, r#"profile = "agent""#;
    /// The program and its arguments.
    #[serde(with = "As::<Option<Vec<Escaped>>>")]
    command: Option<Vec<OsString>>, r#"command = ["pytest", "-q"]"#;
    /// The name that the program gets as its first argument.
    #[serde(with = "As::<Option<Escaped>>")]
    arg0: Option<OsString>, r#"arg0 = "-bash""#;
    /// The working directory, inside.
    #[serde(with = "As::<Option<Escaped>>")]
    cwd: Option<PathBuf>, r#"cwd = "/work""#;
    /// Whether the program runs on a new pseudo-terminal.
    pty: Option<bool>, "pty = true";
    /// Whether the program gets a session of its own.
    new_session: Option<bool>, "new_session = false";
    /// Descriptors of the program, by number.
    #[serde(with = "As::<BTreeMap<DescriptorNumber, Typed<DescriptorSource>>>")]
    descriptors: BTreeMap<u32, DescriptorSource>, r#"descriptors = { 0 = { read = "input.txt" }, 3 = { caller = 3 } }"#;
    /// Environment variables.
    #[serde(with = "As::<BTreeMap<Escaped, Escaped>>")]
    env: BTreeMap<OsString, OsString>, r#"env = { LANG = "C.UTF-8" }"#;
    /// Environment variables of the profile to remove.
    #[serde(with = "As::<Vec<Escaped>>")]
    env_remove: Vec<OsString>, r#"env_remove = ["LANG"]"#;

    /// The root that the other keys change: `host`, `system`, `empty`, `inherit`, a directory, or a table.
    #[serde(with = "As::<Option<RootBase>>")]
    root: Option<Root>, r#"root = "empty""#;
    /// Whether the root directory itself is writable.
    writable_root: Option<bool>, "writable_root = true";
    /// Files and directories of the host that are shown read-only.
    #[serde(with = "As::<Vec<Short<Bind>>>")]
    ro: Vec<Bind>, r#"ro = ["data:/data"]"#;
    /// Files and directories of the host that are shown writable.
    #[serde(with = "As::<Vec<Short<Bind>>>")]
    rw: Vec<Bind>, r#"rw = ["work:/work", { source = "a:b", target = "/c" }]"#;
    /// Git workspaces that are shown writable, except what git on the host would execute.
    #[serde(with = "As::<Vec<Short<Bind>>>")]
    git: Vec<Bind>, r#"git = ["repository:/work"]"#;
    /// File systems in memory.
    #[serde(with = "As::<Vec<Short<Tmpfs>>>")]
    tmpfs: Vec<Tmpfs>, r#"tmpfs = ["/scratch:64MiB"]"#;
    /// Directories of the host whose changes stay in memory.
    #[serde(with = "As::<Vec<Short<Overlay>>>")]
    overlay: Vec<Overlay>, r#"overlay = ["/opt/tools:/opt/tools"]"#;
    /// Device nodes of the host.
    #[serde(with = "As::<Vec<Escaped>>")]
    devices: Vec<PathBuf>, r#"devices = ["/dev/kvm"]"#;
    /// Whether the GPUs of the host are shown.
    gpus: Option<bool>, "gpus = true";
    /// The number of pseudo-terminals that the program can open.
    terminals: Option<u32>, "terminals = 4";
    /// Directories to create.
    #[serde(with = "As::<Vec<Escaped>>")]
    dirs: Vec<PathBuf>, r#"dirs = ["/var/lib/app"]"#;
    /// Read-only files, by path, with their contents.
    #[serde(with = "As::<BTreeMap<Escaped, Escaped>>")]
    files: BTreeMap<PathBuf, Vec<u8>>, r#"files = { "/etc/app.conf" = "debug = false\n" }"#;
    /// Symbolic links, by path, with their targets.
    #[serde(with = "As::<BTreeMap<Escaped, Escaped>>")]
    symlinks: BTreeMap<PathBuf, OsString>, r#"symlinks = { "/bin/sh" = "bash" }"#;
    /// Paths to hide.
    #[serde(with = "As::<Vec<Escaped>>")]
    mask: Vec<PathBuf>, r#"mask = ["/usr/share"]"#;
    /// Paths that are read-only within a writable directory.
    #[serde(with = "As::<Vec<Escaped>>")]
    read_only: Vec<PathBuf>, r#"read_only = ["/work/vendor"]"#;
    /// Paths in a writable directory that the program can neither change, replace nor create.
    #[serde(with = "As::<Vec<Escaped>>")]
    protect: Vec<PathBuf>, r#"protect = ["/work/Makefile"]"#;
    /// Further operations in the stored form. They are carried out last, in their order.
    mounts: Vec<Operation>, r#"mounts = [{ bind = { source = "data", target = "/data", noexec = true } }]"#;

    /// The namespaces that are shared with the caller.
    #[serde(with = "As::<Vec<NamespaceName>>")]
    share: Vec<Namespaces>, r#"share = ["net"]"#;
    /// Namespaces of other processes to join.
    #[serde(with = "As::<Vec<JoinEntry>>")]
    join: Vec<(Namespaces, u32)>, r#"join = [{ namespaces = ["net"], pid = 4711 }]"#;
    /// Whether the caller keeps a descriptor of each namespace.
    keep_namespaces: Option<bool>, "keep_namespaces = true";
    /// The host name.
    #[serde(with = "As::<Option<Escaped>>")]
    hostname: Option<OsString>, r#"hostname = "box""#;
    /// The NIS domain name.
    #[serde(with = "As::<Option<Escaped>>")]
    domain_name: Option<OsString>, r#"domain_name = "example""#;
    /// Offsets of the clocks, in seconds.
    time_offsets: Option<TimeOffsets>, "time_offsets = { monotonic = 3600, boottime = 3600 }";

    /// The user ID inside.
    uid: Option<u32>, "uid = 1000";
    /// The group ID inside.
    gid: Option<u32>, "gid = 1000";
    /// The supplementary groups inside.
    groups: Option<Vec<u32>>, "groups = [44, 107]";
    /// The IDs that the program has on the host.
    identity: Option<IdentityKind>, r#"identity = "sub_ids""#;
    /// The host IDs of which each sandbox of a privileged caller gets one.
    #[serde(with = "As::<Option<IdSpan>>")]
    host_ids: Option<(u32, u32)>, "host_ids = { first = 1000000, count = 1000 }";
    /// The capabilities that the program keeps.
    #[serde(with = "As::<Vec<CapabilityName>>")]
    capabilities: Vec<Capability>, r#"capabilities = ["net_raw"]"#;
    /// Whether a change of the user ID drops the capabilities.
    drop_on_setuid: Option<bool>, "drop_on_setuid = true";
    /// Whether set-user-ID programs gain privileges.
    allow_new_privs: Option<bool>, "allow_new_privs = true";
    /// The umask.
    umask: Option<Mode>, r#"umask = "0077""#;

    /// The system calls: `default`, `pure_computation`, `runtime`, `container`, `unconfined`, a file, or a table.
    seccomp: Option<SeccompSource>, r#"seccomp = "container""#;
    /// A Landlock policy in the stored form.
    landlock: Option<Landlock>, r#"landlock = { rules = [{ path = "/usr", access = ["read_only"] }], any_tcp = true }"#;
    /// Paths, inside, below which the program may read and execute. All others are denied.
    #[serde(with = "As::<Vec<Escaped>>")]
    landlock_ro: Vec<PathBuf>, r#"landlock_ro = ["/usr", "/etc"]"#;
    /// Paths, inside, below which the program may do everything. All others are denied.
    #[serde(with = "As::<Vec<Escaped>>")]
    landlock_rw: Vec<PathBuf>, r#"landlock_rw = ["/work"]"#;
    /// TCP ports to which the program may connect. All others are denied.
    connect: Vec<u16>, "connect = [443]";
    /// TCP ports on which the program may listen. All others are denied.
    bind_port: Vec<u16>, "bind_port = [8080]";
    /// What `learn` has recorded: a file, or its contents as a table.
    learned: Option<LearnedSource>, r#"learned = "learned.json""#;
    /// Whether the program can create sandboxes.
    nestable: Option<bool>, "nestable = true";
    /// Whether Landlock rules stand in for the root where the host denies mounts.
    landlock_fallback: Option<bool>, "landlock_fallback = true";
    /// The layers without which the program starts if the host does not support them.
    best_effort: Vec<Layer>, r#"best_effort = ["cgroup"]"#;

    /// Whether the sandbox has a cgroup, also without a limit of one.
    cgroup: Option<bool>, "cgroup = true";
    /// The cgroup below which that of the sandbox is created: `auto`, `systemd_scope`, or a path.
    #[serde(with = "As::<Option<Short<CgroupParent>>>")]
    cgroup_parent: Option<CgroupParent>, r#"cgroup_parent = "systemd_scope""#;
    /// The memory of all processes together.
    #[serde(with = "As::<Option<Bytes>>")]
    memory: Option<u64>, r#"memory = "256MiB""#;
    /// The memory above which the processes are slowed down.
    #[serde(with = "As::<Option<Bytes>>")]
    memory_high: Option<u64>, r#"memory_high = "192MiB""#;
    /// The swap of all processes together. `Some(None)` is `unlimited`.
    #[serde(with = "As::<Option<BytesOrUnlimited>>")]
    swap: Option<Option<u64>>, r#"swap = "unlimited""#;
    /// The number of processes and threads.
    #[serde(with = "As::<Option<Count>>")]
    pids: Option<u64>, "pids = 64";
    /// The CPU time per second of wall-clock time.
    #[serde(with = "As::<Option<Finite>>")]
    cpus: Option<f64>, "cpus = 1.5";
    /// The period in which `cpus` is measured.
    #[serde(with = "As::<Option<Seconds>>")]
    cpu_period: Option<Duration>, r#"cpu_period = "50ms""#;
    /// The share of the CPUs, beside other cgroups.
    cpu_weight: Option<u32>, "cpu_weight = 50";
    /// The CPUs on which the processes run.
    cpuset: Option<String>, r#"cpuset = "0-3,7""#;
    /// The memory nodes of the processes.
    cpuset_mems: Option<String>, r#"cpuset_mems = "0""#;
    /// Limits on the I/O of block devices, by the path of the device.
    #[serde(with = "As::<BTreeMap<Escaped, Typed<IoMax>>>")]
    io_max: BTreeMap<PathBuf, IoMax>, r#"io_max = { "/dev/sda" = { write_bytes = "10MB" } }"#;
    /// The share of the I/O, beside other cgroups.
    io_weight: Option<u32>, "io_weight = 50";
    /// Limits on huge pages, by their size.
    #[serde(with = "As::<BTreeMap<Typed<String>, Bytes>>")]
    hugetlb_max: BTreeMap<String, u64>, r#"hugetlb_max = { 2MB = "64MiB" }"#;
    /// Values of further control files, by the name of the file.
    cgroup_raw: BTreeMap<String, String>, r#"cgroup_raw = { "memory.min" = "16777216" }"#;
    /// Whether the sandbox can be frozen.
    freezable: Option<bool>, "freezable = true";
    /// Whether the program does not see its cgroup.
    cgroup_hidden: Option<bool>, "cgroup_hidden = true";

    /// The wall-clock time.
    #[serde(with = "As::<Option<Seconds>>")]
    wall_time: Option<Duration>, r#"wall_time = "1m30s""#;
    /// The CPU time of all processes together.
    #[serde(with = "As::<Option<Seconds>>")]
    cpu_time: Option<Duration>, r#"cpu_time = "10s""#;
    /// The time without CPU use.
    #[serde(with = "As::<Option<Seconds>>")]
    idle_timeout: Option<Duration>, r#"idle_timeout = "5s""#;
    /// The time between SIGTERM and SIGKILL when a limit is exceeded.
    #[serde(with = "As::<Option<Seconds>>")]
    kill_grace: Option<Duration>, r#"kill_grace = "2s""#;
    /// The bytes of standard output.
    #[serde(with = "As::<Option<Bytes>>")]
    stdout_max: Option<u64>, r#"stdout_max = "1MiB""#;
    /// The bytes of standard error.
    #[serde(with = "As::<Option<Bytes>>")]
    stderr_max: Option<u64>, r#"stderr_max = "64KiB""#;
    /// What happens when the program writes more.
    overflow: Option<Overflow>, r#"overflow = "discard""#;
    /// What happens when it writes more to standard error.
    stderr_overflow: Option<Overflow>, r#"stderr_overflow = "discard""#;
    /// Limits of each process, by resource.
    #[serde(with = "As::<BTreeMap<Typed<Resource>, RlimitPair>>")]
    rlimits: BTreeMap<Resource, (u64, u64)>, r#"rlimits = { nofile = 256, stack = { soft = "8MiB", hard = "unlimited" } }"#;
    /// The address space of each process, if no cgroup limits the memory.
    #[serde(with = "As::<Option<Bytes>>")]
    address_space_without_cgroup: Option<u64>, r#"address_space_without_cgroup = "4GiB""#;
    /// The nice value.
    nice: Option<i32>, "nice = 10";
    /// The adjustment for the out-of-memory killer.
    oom_score_adj: Option<i32>, "oom_score_adj = 500";
    /// The time that the set-up may take.
    #[serde(with = "As::<Option<Seconds>>")]
    setup_timeout: Option<Duration>, r#"setup_timeout = "5s""#;
}
