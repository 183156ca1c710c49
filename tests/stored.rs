//! The stored form (feature `serde`): every value reads back exactly, from formats for people and from compact ones,
//! and what people write by hand is understood or refused by name.
//!
//! This is a binary of its own, since it needs neither a host nor a user: the suite runs its tests as root and as an
//! ordinary user, and these would run twice.

#[path = "support/strategies.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod strategies;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stockade::capabilities::Capability;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::collect::Collector;
use stockade::identity::IdRange;
use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::limits::{Overflow, Resource};
use stockade::mount::{Bind, HostPath, Inputs, Mode, Operation, Overlay, Proc, Tmpfs};
use stockade::namespaces::{NamespaceRef, TimeOffsets};
use stockade::probe::Support;
use stockade::seccomp::{Action, Comparison, Condition, SystemCall};
use stockade::{
    Capabilities, Cgroup, Command, Errno, Identity, Landlock, Layer, Limits, Namespaces, Outcome, Root, Sandbox,
    Seccomp,
};
use strategies::{collected, command, fs_access, landlock, path, sandbox, seccomp};

/// What is read of what was written, by format.
fn again<T: Serialize + DeserializeOwned>(value: &T) -> [(String, T); 3] {
    let json = serde_json::to_string(value).expect("as JSON");
    let toml = toml::to_string(value).expect("as TOML");
    let compact = postcard::to_allocvec(value).expect("as postcard");
    [
        (json.clone(), serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))),
        (toml.clone(), toml::from_str(&toml).unwrap_or_else(|error| panic!("{error}: {toml}"))),
        (format!("{compact:?}"), postcard::from_bytes(&compact).unwrap_or_else(|error| panic!("{error}: {compact:?}"))),
    ]
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for (written, read) in again(value) {
        assert_eq!(&read, value, "{written}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_sandbox_reads_back(sandbox in sandbox()) {
        reads_back(&sandbox);
    }

    #[test]
    fn every_command_reads_back(command in command()) {
        reads_back(&command);
    }

    #[test]
    fn every_collection_reads_back(collected in collected()) {
        reads_back(&collected);
    }

    #[test]
    fn every_part_reads_back_by_itself(
        policy in seccomp(),
        rules in landlock(),
        paths in vec((path(), fs_access()), 0..4),
    ) {
        reads_back(&policy);
        reads_back(&rules);
        reads_back(&Learned::new().allow_paths(paths).allow_calls(["read"]).allow_connect([443]));
    }
}

#[test]
fn every_outcome_reads_back() {
    let sandbox = Sandbox::new().seccomp(Seccomp::new().deny(["mkdir", "mkdirat"]).record()).best_effort([
        Layer::Namespaces,
        Layer::Root,
        Layer::Cgroup,
        Layer::Seccomp,
    ]);
    let script = "mkdir '/tmp/\u{1b}[2J'; printf '\\377'; exit 3";
    let output = sandbox.output(Command::new("sh").args(["-c", script])).expect("output");
    assert!(!output.stdout.is_empty());
    reads_back(&output);
    reads_back(&Support::probe());
    reads_back(&Collector::new().symlinks());
    for call in [SystemCall::named("read").expect("read"), SystemCall::new(9999)] {
        let json = serde_json::to_string(&call).expect("JSON");
        assert_eq!(serde_json::from_str::<SystemCall>(&json).expect("a call"), call, "{json}");
        let compact = postcard::to_allocvec(&call).expect("postcard");
        assert_eq!(postcard::from_bytes::<SystemCall>(&compact).expect("a call"), call);
    }
}

#[test]
fn nothing_is_the_default() {
    assert_eq!(serde_json::from_str::<Sandbox>("{}").expect("JSON"), Sandbox::new());
    assert_eq!(toml::from_str::<Sandbox>("").expect("TOML"), Sandbox::new());
    assert_eq!(toml::from_str::<Seccomp>("").expect("TOML"), Seccomp::new());
    assert_eq!(toml::from_str::<Command>("program = \"id\"").expect("TOML"), Command::new("id"));
    assert_eq!(toml::from_str::<Learned>("").expect("TOML"), Learned::new());
    let error = serde_json::from_str::<Command>("{}").expect_err("no program").to_string();
    assert!(error.contains("missing field `program`"), "{error}");
}

#[test]
fn a_file_that_a_person_writes_is_understood() {
    let text = r#"
        version = 1
        namespaces = ["user", "mount", "pid"]
        hostname = "box"
        best_effort = ["cgroup"]
        setup_timeout = 2.5

        [root]
        base = "empty"
        [[root.operations]]
        bind = { source = "/usr", target = "/usr", unmapped = true }
        [[root.operations]]
        bind = { source = { beneath = "/home", path = "work" }, target = "/work", writable = true, owner = { uid = 7, gid = 8 } }
        [[root.operations]]
        tmpfs = { target = "/tmp", size = "64MiB", mode = "1777" }
        [[root.operations]]
        file = { target = "/etc/issue", contents = "hello\n", mode = "0444" }
        [[root.operations]]
        mask = "/usr/share"
        [[root.operations]]
        overlay = { target = "/o", lower = ["/usr"], upper = { upper = "/u", work = "/w" } }

        [identity]
        sub_ids = true
        host_ids = { first = 100000, count = 9 }

        [capabilities]
        keep = ["CAP_NET_RAW"]

        [[join]]
        namespaces = ["net"]
        target = { pid = 7 }

        [limits]
        wall_time = "1.5s"
        cpu_time = 1
        stdout_max = "1MB"
        overflow = "discard"
        rlimit = [{ resource = "nofile", soft = 64, hard = "unlimited" }]

        [cgroup]
        memory_max = "256MiB"
        swap_max = "unlimited"
        cpu_max = { cpus = 1.5 }
        io_max = [{ device = "/dev/sda", max = { write_bytes = "10MB" } }]

        [landlock]
        rules = [{ path = "/usr", access = ["read_only"] }, { path = "/tmp", access = ["read_write"] }]
        deny_write = ["/tmp/kept"]
        connect_port = [443]

        [seccomp]
        preset = "allow_list"
        default_action = { errno = "EACCES" }
        rules = [
            { call = "read", action = "allow" },
            { call = "ioctl", action = "allow", conditions = [{ argument = 1, comparison = { equal = "0xffffffffffffffff" } }] },
        ]
        record = true
        allow_netlink = true
    "#;
    let comparison = Comparison::Equal(u64::MAX);
    let root = Root::empty()
        .with(Bind::new("/usr", "/usr").unmapped())
        .with(Bind::beneath("/home", "work", "/work").writable().owner(7, 8))
        .with(Tmpfs::new("/tmp").size(64 << 20).mode(0o1777))
        .with(Operation::file("/etc/issue", "hello\n", Mode::new(0o444)))
        .mask("/usr/share")
        .with(Overlay::new("/o").lower("/usr").upper("/u", "/w"));
    let limits = Limits::new()
        .wall_time(Duration::from_millis(1500))
        .cpu_time(Duration::from_secs(1))
        .stdout_max(1_000_000)
        .overflow(Overflow::Discard)
        .rlimit(Resource::Nofile, 64, u64::MAX);
    let cgroup = Cgroup::new().memory_max(256 << 20).swap_unlimited().cpu_max(1.5);
    let cgroup = cgroup.io_max("/dev/sda", IoMax::new().write_bytes(10_000_000));
    let landlock = Landlock::new().read_only("/usr").read_write("/tmp").deny_write("/tmp/kept").connect_port(443);
    let expected = Sandbox::new()
        .identity(Identity::new().sub_ids().host_ids(100_000, 9))
        .capabilities(Capabilities::none().keep([Capability::NetRaw]))
        .namespaces(Namespaces::USER | Namespaces::MOUNT | Namespaces::PID)
        .join(Namespaces::NET, NamespaceRef::pid(7))
        .hostname("box")
        .best_effort([Layer::Cgroup])
        .setup_timeout(Duration::from_millis(2500))
        .root(root)
        .limits(limits)
        .cgroup(cgroup)
        .landlock(landlock)
        .seccomp(
            Seccomp::allow_list()
                .default_action(Action::Errno(Errno::EACCES))
                .allow(["read"])
                .when("ioctl", [Condition::qword(1, comparison)], Action::Allow)
                .record()
                .allow_netlink(),
        );
    assert_eq!(toml::from_str::<Sandbox>(text).expect("a sandbox"), expected);
}

#[test]
fn the_stored_form_is_the_form_that_people_write() {
    let sandbox = Sandbox::new()
        .limits(Limits::new().wall_time(Duration::from_millis(1500)).stdout_max(u64::MAX))
        .landlock(Landlock::new().read_only("/usr"));
    let written = toml::to_string(&sandbox).expect("TOML");
    for line in [
        "version = 1",
        "namespaces = [\"user\", \"mount\", \"pid\", \"net\", \"ipc\", \"uts\", \"cgroup\"]",
        "base = \"host\"",
        "wall_time = \"1.5s\"",
        "stdout_max = \"18446744073709551615\"",
        "setup_timeout = \"30s\"",
    ] {
        assert!(written.lines().any(|written| written == line), "{line} in\n{written}");
    }
}

#[test]
fn errors_name_the_unknown_or_invalid_part() {
    for (text, named) in [
        ("memory_max = 1", "unknown field `memory_max`"),
        ("[limits]\nwal_time = \"1s\"", "unknown field `wal_time`"),
        ("[limits]\nwall_time = \"1.5\"", "invalid value: \"1.5\", expected a duration"),
        ("[limits]\nwall_time = -1.5", "invalid value: -1.5, expected a duration"),
        ("[cgroup]\nmemory_max = \"256Mb\"", "invalid value: \"256Mb\", expected a size"),
        ("[cgroup]\nmemory_max = -1", "invalid value: -1, expected a size"),
        ("[cgroup]\ncpu_max = { cpus = nan }", "expected a finite number"),
        ("namespaces = [\"user\", \"mnt\"]", "unknown name \"mnt\", expected one of user, mount"),
        ("root = { operations = [{ tmpfs = { target = \"/t\", mode = 755 } }] }", "a file mode as octal text"),
        ("root = { operations = [{ tmpfs = { target = \"/t\", sise = 7 } }] }", "unknown field `sise`"),
        ("root = { base = { from_dir = { pth = \"/\" } } }", "unknown field `pth`"),
        ("best_effort = [\"cgroups\"]", "unknown variant `cgroups`"),
        ("seccomp = { default_action = \"Allow\" }", "unknown variant `Allow`"),
        ("version = 2", "version 2 of the stored form is unknown: this version of the crate reads version 1"),
        ("seccomp = { version = 0 }", "version 0"),
        ("kernel = [5, 10]", "unknown field `kernel`"),
        ("seccomp = { sees_other_processes = true }", "unknown field `sees_other_processes`"),
        ("seccomp = { preset = \"new\" }", "unknown variant `new`"),
        ("seccomp = { default_action = { errno = \"EPREM\" } }", "unknown error name \"EPREM\""),
        ("seccomp = { rules = [{ call = \"read\", action = { errno = 4294967296 } }] }", "is not an error number"),
        ("seccomp = { rules = [{ name = \"read\" }] }", "unknown field `name`"),
        ("landlock = { rules = [{ path = \"/\", access = [], acess = [] }] }", "unknown field `acess`"),
        ("landlock = { read_only = [\"/usr\"] }", "unknown field `read_only`"),
        ("limits = { rlimit = [{ resource = \"nofile\", soft = 1, hard = 1, max = 1 }] }", "unknown field `max`"),
        ("limits = { rlimit = [{ resource = \"nofile\", soft = 1 }] }", "missing field `hard`"),
        ("[cgroup]\nswap_max = \"none\"", "such as \"256MiB\", or \"unlimited\""),
        // A lower-case letter is no unit: the error names those that are.
        (
            "[cgroup]\nmemory_max = \"64k\"",
            "(K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000)",
        ),
        ("[cgroup]\nswap_max = \"64k\"", "(K, M, G, T, KiB, MiB, GiB, TiB, kB, MB, GB, TB)"),
        (
            "[limits]\nrlimit = [{ resource = \"data\", soft = \"64k\", hard = 1 }]",
            "(K, M, G, T, KiB, MiB, GiB, TiB, kB, MB, GB, TB)",
        ),
        ("[limits]\nwall_time = \"30s1m\"", "text with units (d, h, m or min, s, ms, us, ns)"),
        ("[limits]\nwall_time = \"1M\"", "text with units (d, h, m or min, s, ms, us, ns)"),
        ("[cgroup]\ncpu_max = { cpus = 1, preiod = 1 }", "unknown field `preiod`"),
        ("identity = { host_ids = { first = 1, count = 1, last = 1 } }", "unknown field `last`"),
        ("identity = { maps = { uid = [], gid = [], pid = [] } }", "unknown field `pid`"),
        ("identity = { outside = \"caller\" }", "unknown field `outside`"),
        ("identity = { caller = true, sub_ids = true }", "the keys caller and sub_ids exclude each other: keep one"),
        ("capabilities = { keep = [\"CAP_NET\"] }", "unknown variant `CAP_NET`"),
        ("capabilities = { kept = [] }", "unknown field `kept`"),
        ("root = { operations = [{ bind = { source = \"/\", target = \"/\", onwer = 1 } }] }", "unknown field `onwer`"),
        (
            "root = { operations = [{ bind = { source = \"/\", target = \"/\", owner = { uid = 1, gid = 1 }, unmapped \
             = true } }] }",
            "the keys owner and unmapped exclude each other",
        ),
        (
            "root = { operations = [{ overlay = { target = \"/\", upper_tmpfs = 1, upper = { upper = \"/u\", work = \
             \"/w\" } } }] }",
            "the keys upper_tmpfs and upper exclude each other",
        ),
    ] {
        let error = toml::from_str::<Sandbox>(text).expect_err(text).to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
    let error = serde_json::from_str::<Sandbox>(r#"{"limits": {"wal_time": 1}}"#).expect_err("unknown").to_string();
    assert!(error.contains("`wal_time`") && error.contains("`wall_time`"), "{error}");
    let error = serde_json::from_str::<Outcome>(r#"{"termination": "killed", "version": 9}"#).expect_err("version");
    assert!(error.to_string().contains("version 9"), "{error}");
    let outcome: Outcome = serde_json::from_str(r#"{"termination": {"exited": 3}}"#).expect("the rest may be absent");
    assert_eq!(outcome.termination.code(), Some(3));
}

#[test]
fn what_has_no_stored_form_is_an_error() {
    let endless = Sandbox::new().cgroup(Cgroup::new().cpu_max(f64::INFINITY));
    let error = serde_json::to_string(&endless).expect_err("infinite").to_string();
    assert!(error.contains("inf can't be stored"), "{error}");
}

#[test]
fn test_seams_are_not_stored() {
    let seam = Sandbox::new().as_on_kernel(5, 10);
    let read: Sandbox = serde_json::from_str(&serde_json::to_string(&seam).expect("JSON")).expect("a sandbox");
    assert!(read == Sandbox::new() && read != seam);
}

/// A stored policy that has a rule, and no preset, is the default one with this rule.
#[test]
fn a_rule_keeps_the_default_denials() {
    let read = |text: &str| toml::from_str::<Sandbox>(text).expect(text);
    let one_rule = "[seccomp]\nrules = [{ call = \"sync\", action = { errno = \"EACCES\" } }]";
    let sandbox = read(one_rule);
    assert_eq!(sandbox, Sandbox::new().seccomp(Seccomp::new().on(["sync"], Action::Errno(Errno::EACCES))));
    let mut program = Command::new("unshare");
    program.args(["--user", "true"]);
    let status = |sandbox: &Sandbox| sandbox.status(&program).expect("an outcome");
    assert!(status(&Sandbox::new().seccomp(Seccomp::unconfined())).success(), "the host denies it anyway");
    assert!(!status(&sandbox).success());
    assert!(!status(&read("[seccomp]\nrules = []")).success());
    // Only what replaces the rule for the call, or another preset, allows it.
    let conditional = "[seccomp]\nrules = [{ call = \"unshare\", action = \"allow\", \
                       conditions = [{ argument = 0, comparison = { greater_or_equal = 0 } }] }]";
    assert!(!status(&read(conditional)).success());
    let allowed = read("[seccomp]\nrules = [{ call = \"unshare\", action = \"allow\" }]");
    assert_eq!(allowed, Sandbox::new().seccomp(Seccomp::new().allow(["unshare"])));
    assert!(status(&allowed).success());
    assert!(status(&read("[seccomp]\npreset = \"unconfined\"")).success());
}

#[test]
fn presets_have_the_names_of_their_constructors() {
    for (name, policy) in [
        ("default", Seccomp::new()),
        ("pure_computation", Seccomp::pure_computation()),
        ("container", Seccomp::container()),
        ("allow_list", Seccomp::allow_list()),
        ("deny_list", Seccomp::deny_list()),
        ("unconfined", Seccomp::unconfined()),
    ] {
        assert_eq!(toml::from_str::<Seccomp>(&format!("preset = {name:?}")).expect(name), policy);
        // It is written with its rules, which the preset of another version of the crate may not have.
        let written: Value = serde_json::to_value(&policy).expect("JSON");
        assert!(written["preset"] == "allow_list" || written["preset"] == "deny_list", "{written}");
        assert_eq!(written["rules"].as_array().map(Vec::len), Some(policy.rules().len()));
    }
}

#[test]
fn error_numbers_are_written_as_names() {
    for number in -1..4097 {
        let errno = Errno::new(number);
        let json = serde_json::to_string(&errno).expect("JSON");
        assert_eq!(serde_json::from_str::<Errno>(&json).expect("an error number"), errno, "{json}");
        assert_eq!(serde_json::from_str::<Errno>(&number.to_string()).expect("a number"), errno);
        let name = json.trim_matches('"');
        assert!(name == number.to_string() || errno.to_string().ends_with(&format!("({name})")), "{errno} {json}");
    }
    assert_eq!(serde_json::to_string(&Errno::EPERM).expect("JSON"), "\"EPERM\"");
}

#[test]
fn every_access_is_read_write() {
    assert_eq!(FsAccess::READ_WRITE, FsAccess::all());
}

/// The paths of all keys in a value, such as `root.operations[].bind.target`.
fn collect_keys(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect_keys(value, &path, keys);
                keys.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect_keys(value, &format!("{path}[]"), keys)),
        _ => {}
    }
}

/// The keys in the table below a heading of the documentation.
fn documented(heading: &str) -> BTreeSet<String> {
    let document = include_str!("../docs/stored-form.md");
    let section = document.split("\n# ").find(|section| section.lines().next() == Some(heading)).expect(heading);
    let rows: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let keys: BTreeSet<String> = rows.iter().filter_map(|row| row.split('`').next()).map(str::to_owned).collect();
    assert_eq!(keys.len(), rows.len(), "a key stands twice below {heading}");
    keys
}

/// Compares the keys of values in which together everything is set with those in the documentation.
fn check_documented<T: Serialize>(values: &[T], heading: &str) {
    let mut keys = BTreeSet::new();
    for value in values {
        collect_keys(&serde_json::to_value(value).expect("JSON"), "", &mut keys);
    }
    let documented = documented(heading);
    let differ: Vec<&String> = keys.symmetric_difference(&documented).collect();
    assert!(differ.is_empty(), "either written or documented, not both: {differ:?}");
}

#[test]
fn every_key_is_documented_and_no_other() {
    let comparisons = [
        Comparison::Equal(1),
        Comparison::NotEqual(1),
        Comparison::Less(1),
        Comparison::LessOrEqual(1),
        Comparison::Greater(1),
        Comparison::GreaterOrEqual(1),
        Comparison::masked(1, 1),
    ];
    let conditions = comparisons.map(|comparison| Condition::dword(0, comparison));
    let root = Root::from_dir("/srv")
        .with(Bind::new("/a", "/a").owner(1, 2))
        .with(Inputs::new("/a").files("/srv", ["PATH"]).owner(1, 2))
        .with(Tmpfs::new("/a"))
        .with(Overlay::new("/a").upper("/u", "/w").owner(1, 2))
        .with(Proc::new("/a"))
        .dev("/dev")
        .with(Operation::file("/a", "", 0o444))
        .with(Operation::file_rw("/a", "", 0o644))
        .with(Operation::symlink("a", "/a"))
        .with(Operation::create_dir("/a", 0o755))
        .network_names()
        .user_names()
        .mask("/a")
        .read_only("/a")
        .protect("/a");
    let cgroup = Cgroup::new()
        .parent(CgroupParent::Path("/jobs".into()))
        .cpu_max(1.0)
        .io_max("/dev/sda", IoMax::new())
        .hugetlb_max("2MB", 0)
        .raw("memory.low", "0");
    let ids = [IdRange::new(0, 0, 1)];
    let sandbox = Sandbox::new()
        .join(Namespaces::NET, NamespaceRef::pid(1))
        .env("NAME", "value")
        .time_offsets(TimeOffsets::new())
        .identity(Identity::new().maps(ids, ids).host_ids(1, 1))
        .root(root)
        .capabilities(Capabilities::none().keep([Capability::NetRaw]))
        .landlock(Landlock::new().read_only("/usr"))
        .seccomp(
            Seccomp::allow_list()
                .when("read", conditions, Action::Errno(Errno::EPERM))
                .bpf([6, 0, 0, 0, 0, 0, 255, 127]),
        )
        .limits(Limits::new().rlimit(Resource::Core, 0, 0))
        .cgroup(cgroup);
    let overlay = Overlay::new("/").upper("/u", "/w").owner(1, 2);
    let roots = [Root::from_dir_rw("/srv"), Root::from_overlay(overlay)];
    let [writable, layered] = roots.map(|root| Sandbox::new().root(root));
    check_documented(&[sandbox, writable, layered], "Keys of a sandbox");
    let mut command = Command::new("id");
    command.pty(24, 80).env_clear().env("NAME", "value");
    check_documented(&[command], "Keys of a command");
    check_documented(&[HostPath::beneath("/srv", "a")], "Keys of a path of the host");
}

/// How many seeds of a fuzz target are written.
const SEEDS: usize = 24;
/// The size in bytes of the largest input that `fuzz/run` tries.
const MAX_SEED: usize = 4096;

/// The folder of the seeds of a fuzz target. `None` in the published package, which has no fuzzing.
fn seeds(target: &str) -> Option<PathBuf> {
    let fuzz = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"));
    fuzz.exists().then(|| fuzz.join("seeds").join(target))
}

fn check_seeds<T: DeserializeOwned>(target: &str) {
    let Some(folder) = seeds(target) else { return };
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a folder of seeds") {
        let path = entry.expect("a seed").path();
        let seed = fs::read(&path).expect("a seed");
        if let Err(error) = serde_json::from_slice::<T>(&seed) {
            panic!("{}: {error}: see fuzz/README.md", path.display());
        }
        count += 1;
    }
    assert!(count >= SEEDS, "{count} seeds of {target}");
}

/// Fuzzing starts from values that are read, so that it tries what is behind the parser.
#[test]
fn the_seeds_of_fuzzing_are_read() {
    check_seeds::<Sandbox>("configuration");
    check_seeds::<Seccomp>("policy");
}

/// Writes small values that each have a key which those before have not, then any others.
fn write_seeds<T: Serialize + Debug>(target: &str, values: impl Strategy<Value = T>) {
    let folder = seeds(target).expect("the folder of fuzzing");
    let mut runner = TestRunner::deterministic();
    let mut known = BTreeSet::new();
    let (mut chosen, mut others) = (vec![], vec![]);
    for _ in 0..2000 {
        let value = values.new_tree(&mut runner).expect("a value").current();
        // Some have no stored form, such as flags without a name.
        let Ok(json) = serde_json::to_string(&value) else { continue };
        let mut keys = BTreeSet::new();
        collect_keys(&serde_json::from_str(&json).expect("JSON"), "", &mut keys);
        let list = if keys.is_subset(&known) { &mut others } else { &mut chosen };
        if json.len() <= MAX_SEED && list.len() < SEEDS {
            known.extend(keys);
            list.push(json);
        }
    }
    chosen.extend(others);
    for (index, json) in chosen.iter().take(SEEDS).enumerate() {
        fs::write(folder.join(format!("{index:02}")), json).expect("a seed is written");
    }
}

#[test]
#[ignore = "it writes files of the repository: see fuzz/README.md"]
fn write_the_seeds_of_fuzzing() {
    write_seeds("configuration", sandbox());
    write_seeds("policy", seccomp());
}
