//! What each key means: the call of the builder that its row in the documentation names.

use std::fs;
use std::time::Duration;

use stockade::capabilities::Capability;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::config::{Config, ConfigFormat, examples};
use stockade::identity::IdRange;
use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::limits::{Overflow, Resource};
use stockade::mount::{Bind, HostPath, Operation, Overlay, Tmpfs};
use stockade::namespaces::{NamespaceRef, TimeOffsets};
use stockade::seccomp::Action;
use stockade::{
    Capabilities, Cgroup, Command, Errno, Identity, Landlock, Layer, Limits, Namespaces, Root, Sandbox, Seccomp,
    profile,
};

use crate::{BASE, json, toml};

#[track_caller]
fn sandbox(text: &str) -> Sandbox {
    toml(text).and_then(|config| config.sandbox()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Sandboxes that differ from the default one in the root.
fn with_root(change: impl FnOnce(Root) -> Root) -> Sandbox {
    Sandbox::new().map_root(change)
}

fn with_limits(change: impl FnOnce(Limits) -> Limits) -> Sandbox {
    Sandbox::new().map_limits(change)
}

fn with_cgroup(change: impl FnOnce(Cgroup) -> Cgroup) -> Sandbox {
    Sandbox::new().map_cgroup(change)
}

fn with_identity(identity: Identity) -> Sandbox {
    Sandbox::new().identity(identity)
}

fn rules(change: impl FnOnce(Landlock) -> Landlock) -> Sandbox {
    Sandbox::new().landlock(change(Landlock::new().any_signal().any_abstract_socket()))
}

/// The sandbox of the example of each key. A key of the command has none.
fn expected(key: &str) -> Option<Sandbox> {
    let new = Sandbox::new;
    Some(match key {
        "command" | "arg0" | "cwd" | "pty" | "new_session" | "descriptors" => return None,
        "profile" => profile::agent(),
        "env" => new().env("LANG", "C.UTF-8"),
        "root" => new().root(Root::empty()),
        "writable_root" => with_root(Root::writable),
        "ro" => with_root(|root| root.bind("/base/data", "/data")),
        "rw" => with_root(|root| root.bind_rw("/base/work", "/work").bind_rw("/base/a:b", "/c")),
        "git" => with_root(|root| root.git_workspace("/base/repository", "/work")),
        "tmpfs" => with_root(|root| root.tmpfs("/scratch", 64 << 20)),
        "overlay" => with_root(|root| root.with(Overlay::new("/opt/tools").lower("/opt/tools").unmapped())),
        "devices" => with_root(|root| root.device("/dev/kvm")),
        "gpus" => with_root(Root::gpus),
        "terminals" => with_root(|root| root.terminals(4)),
        "dirs" => with_root(|root| root.create_dir("/var/lib/app")),
        "files" => with_root(|root| root.file("/etc/app.conf", "debug = false\n")),
        "symlinks" => with_root(|root| root.symlink("bash", "/bin/sh")),
        "mask" => with_root(|root| root.mask("/usr/share")),
        "read_only" => with_root(|root| root.read_only("/work/vendor")),
        "protect" => with_root(|root| root.protect("/work/Makefile")),
        "mounts" => with_root(|root| root.with(Bind::new("/base/data", "/data").noexec())),
        "share" => new().map_namespaces(|created| created - Namespaces::NET),
        "join" => new().join(Namespaces::NET, NamespaceRef::pid(4711)),
        "keep_namespaces" => new().keep_namespaces(),
        "hostname" => new().hostname("box"),
        "domain_name" => new().domain_name("example"),
        "time_offsets" => new().time_offsets(TimeOffsets::new().monotonic(3600).boottime(3600)),
        "uid" => with_identity(Identity::new().uid(1000)),
        "gid" => with_identity(Identity::new().gid(1000)),
        "groups" => with_identity(Identity::new().groups([44, 107])),
        "identity" => with_identity(Identity::new().sub_ids()),
        "host_ids" => with_identity(Identity::new().host_ids(1_000_000, 1000)),
        "capabilities" => new().capabilities(Capabilities::none().keep([Capability::NetRaw])),
        "allow_new_privs" => new().allow_new_privs(),
        "umask" => new().umask(0o077),
        "seccomp" => new().seccomp(Seccomp::container()),
        "landlock" => new().landlock(Landlock::new().read_only("/usr").any_tcp()),
        "landlock_ro" => rules(|rules| rules.read_only("/usr").read_only("/etc").any_tcp()),
        "landlock_rw" => rules(|rules| rules.read_write("/work").any_tcp()),
        "connect" => rules(|rules| rules.connect_port(443).any_path()),
        "bind_port" => rules(|rules| rules.bind_port(8080).any_path()),
        "nestable" => new().nestable(),
        "landlock_fallback" => new().landlock_fallback(),
        "best_effort" => new().best_effort([Layer::Cgroup]),
        "cgroup" => with_cgroup(|cgroup| cgroup),
        "cgroup_parent" => with_cgroup(|cgroup| cgroup.parent(CgroupParent::SystemdScope)),
        "memory" => with_cgroup(|cgroup| cgroup.memory_max(256 << 20)),
        "memory_high" => with_cgroup(|cgroup| cgroup.memory_high(192 << 20)),
        "swap" => with_cgroup(Cgroup::swap_unlimited),
        "pids" => with_cgroup(|cgroup| cgroup.pids_max(64)),
        "cpus" => with_cgroup(|cgroup| cgroup.cpu_max(1.5)),
        "cpu_weight" => with_cgroup(|cgroup| cgroup.cpu_weight(50)),
        "cpuset" => with_cgroup(|cgroup| cgroup.cpuset_cpus("0-3,7")),
        "cpuset_mems" => with_cgroup(|cgroup| cgroup.cpuset_mems("0")),
        "io_max" => with_cgroup(|cgroup| cgroup.io_max("/dev/sda", IoMax::new().write_bytes(10_000_000))),
        "io_weight" => with_cgroup(|cgroup| cgroup.io_weight(50)),
        "hugetlb_max" => with_cgroup(|cgroup| cgroup.hugetlb_max("2MB", 64 << 20)),
        "cgroup_raw" => with_cgroup(|cgroup| cgroup.raw("memory.min", "16777216")),
        "freezable" => with_cgroup(Cgroup::freezable),
        "cgroup_hidden" => with_cgroup(Cgroup::hidden),
        "wall_time" => with_limits(|limits| limits.wall_time(Duration::from_secs(90))),
        "cpu_time" => with_limits(|limits| limits.cpu_time(Duration::from_secs(10))),
        "idle_timeout" => with_limits(|limits| limits.idle_timeout(Duration::from_secs(5))),
        "kill_grace" => with_limits(|limits| limits.kill_grace(Duration::from_secs(2))),
        "stdout_max" => with_limits(|limits| limits.stdout_max(1 << 20)),
        "stderr_max" => with_limits(|limits| limits.stderr_max(64 << 10)),
        "overflow" => with_limits(|limits| limits.overflow(Overflow::Discard)),
        "stderr_overflow" => with_limits(|limits| limits.stderr_overflow(Overflow::Discard)),
        "rlimits" => {
            with_limits(|limits| limits.rlimit(Resource::Nofile, 256, 256).rlimit(Resource::Stack, 8 << 20, u64::MAX))
        }
        "address_space_without_cgroup" => with_limits(|limits| limits.address_space_without_cgroup(4 << 30)),
        "nice" => with_limits(|limits| limits.nice(10)),
        "oom_score_adj" => with_limits(|limits| limits.oom_score_adj(500)),
        "setup_timeout" => new().setup_timeout(Duration::from_secs(5)),
        // These change something else, and have tests of their own.
        "env_remove" | "drop_on_setuid" | "cpu_period" | "learned" => return None,
        other => panic!("what does the key {other} mean?"),
    })
}

#[test]
fn every_key_is_the_call_that_the_documentation_names() {
    let mut compared = 0;
    for (key, example) in examples() {
        let Some(expected) = expected(key) else { continue };
        assert_eq!(sandbox(example), expected, "{key}");
        assert!(expected != Sandbox::new(), "{key} changes something");
        compared += 1;
    }
    assert!(compared > 60, "{compared} keys were compared");
}

#[test]
fn nothing_is_the_default_sandbox() {
    assert_eq!(sandbox(""), Sandbox::new());
    assert_eq!(json("{}").expect("a configuration").sandbox().expect("a sandbox"), Sandbox::new());
    assert_eq!(sandbox("version = 1"), Sandbox::new());
    let with_schema = json(r#"{ "$schema": "config.schema.json" }"#).expect("a configuration");
    assert_eq!(with_schema, Config::default());
}

#[test]
fn keys_that_change_others_do_so() {
    assert_eq!(sandbox("profile = 'test'\nenv_remove = ['LANG']"), profile::test().env_remove("LANG"));
    assert_ne!(sandbox("profile = 'test'\nenv_remove = ['LANG']"), profile::test());
    assert_eq!(
        sandbox("capabilities = ['CAP_NET_RAW', 'kill']\ndrop_on_setuid = true"),
        Sandbox::new().capabilities(Capabilities::none().keep([Capability::NetRaw, Capability::Kill]).drop_on_setuid())
    );
    assert_eq!(
        sandbox("cpus = 2\ncpu_period = '50ms'"),
        with_cgroup(|cgroup| cgroup.cpu_max_in(2.0, Duration::from_millis(50)))
    );
    let limits = "profile = 'judge'\nrlimits = { nofile = 20 }";
    assert_eq!(sandbox(limits), profile::judge().map_limits(|limits| limits.rlimit(Resource::Nofile, 20, 20)));
}

#[test]
fn forms_of_a_key_are_the_same_as_in_the_stored_form() {
    let beneath = Bind::new(HostPath::beneath("/base/untrusted", "out"), "/out").writable().owner(7, 8);
    assert_eq!(
        sandbox(
            "rw = [{ source = { beneath = 'untrusted', path = 'out' }, target = '/out', owner = { uid = 7, gid = 8 } }]"
        ),
        with_root(|root| root.with(beneath))
    );
    assert_eq!(
        sandbox("tmpfs = [{ target = '/a', size = '1MiB', mode = '1777', inodes = 9, noexec = true }, '/b']"),
        with_root(|root| root
            .with(Tmpfs::new("/a").size(1 << 20).mode(0o1777).inodes(9).noexec())
            .with(Tmpfs::new("/b")))
    );
    assert_eq!(
        sandbox("overlay = [{ target = '/o', lower = ['a', 'b'], upper = { upper = 'u', work = 'w' } }]"),
        with_root(|root| root.with(Overlay::new("/o").lower("/base/a").lower("/base/b").upper("/base/u", "/base/w")))
    );
    assert_eq!(
        sandbox("identity = { maps = { uid = [{ inside = 0, outside = 7, count = 1 }], gid = [] } }\nuid = 0"),
        with_identity(Identity::new().maps([IdRange::new(0, 7, 1)], []).uid(0))
    );
    assert_eq!(sandbox("identity = 'caller'"), with_identity(Identity::caller()));
    for (text, root) in [
        ("'./image'", Root::from_dir("/base/image")),
        ("'/image'", Root::from_dir("/image")),
        ("'inherit'", Root::inherit()),
        ("{ from_dir_rw = 'image' }", Root::from_dir_rw("/base/image")),
        (
            "{ from_overlay = { target = '/', lower = ['image'] } }",
            Root::from_overlay(Overlay::new("/").lower("/base/image")),
        ),
    ] {
        assert_eq!(sandbox(&format!("root = {text}")), Sandbox::new().root(root), "{text}");
    }
    assert_eq!(sandbox("swap = '1GiB'"), with_cgroup(|cgroup| cgroup.swap_max(1 << 30)));
    assert_eq!(
        sandbox("cgroup_parent = '/jobs'"),
        with_cgroup(|cgroup| cgroup.parent(CgroupParent::Path("/jobs".into())))
    );
    assert_eq!(
        sandbox("mounts = ['network_names', { proc = { target = '/proc' } }]"),
        with_root(|root| root.network_names().proc("/proc"))
    );
}

#[test]
fn landlock_restricts_what_the_keys_are_about() {
    let both = "landlock_ro = ['/usr']\nconnect = [443]";
    assert_eq!(sandbox(both), rules(|rules| rules.read_only("/usr").connect_port(443)));
    let access = FsAccess::READ_FILE | FsAccess::WRITE_FILE;
    let whole = "landlock = { rules = [{ path = '/a', access = ['read_file', 'write_file'] }] }";
    assert_eq!(sandbox(whole), Sandbox::new().landlock(Landlock::new().access("/a", access)));
}

/// What is absent does not weaken the policy of the profile.
#[test]
fn rules_without_a_preset_change_the_policy_of_the_profile() {
    let text = "seccomp = { rules = [{ call = 'uname', action = { errno = 'EPERM' } }] }";
    let denied = |policy: Seccomp| policy.on(["uname"], Action::Errno(Errno::EPERM));
    for (profile, base) in
        [("", Sandbox::new()), ("profile = 'agent'\n", profile::agent()), ("profile = 'judge'\n", profile::judge())]
    {
        assert_eq!(sandbox(&format!("{profile}{text}")), base.map_seccomp(denied), "{profile}");
    }
    let named = "profile = 'agent'\nseccomp = { preset = 'default', record = true }";
    assert_eq!(sandbox(named), profile::agent().seccomp(Seccomp::new().record()));
    assert_eq!(sandbox("seccomp = 'unconfined'"), Sandbox::new().seccomp(Seccomp::unconfined()));
    assert_eq!(sandbox("seccomp = 'pure-computation'"), Sandbox::new().seccomp(Seccomp::pure_computation()));
}

/// In a file too, with the place of what is wrong there.
#[test]
fn files_that_a_configuration_names_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let policy = Seccomp::new().deny(["mkdir", "mkdirat"]).record();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("a file");
    write("policy.json", &serde_json::to_string_pretty(&policy).expect("JSON"));
    write("policy.toml", &::toml::to_string(&policy).expect("TOML"));
    let read = |text: &str| Config::parse(text, ConfigFormat::Toml, dir.path()).and_then(|config| config.sandbox());
    for name in ["policy.json", "policy.toml", "./policy.json"] {
        let found = read(&format!("profile = 'agent'\nseccomp = '{name}'")).expect("a sandbox");
        assert_eq!(found, profile::agent().seccomp(policy.clone()), "{name}");
    }
    write("wrong.json", "{\n  \"rules\": [],\n  \"recrod\": true\n}\n");
    let error = read("seccomp = 'wrong.json'").expect_err("an unknown key").to_string();
    assert!(error.ends_with("wrong.json: line 3: unknown key `recrod`: use `record`"), "{error}");
    let error = read("seccomp = 'missing.json'").expect_err("no file");
    assert_eq!((error.kind(), error.errno()), (stockade::ErrorKind::Io, Some(Errno::ENOENT)), "{error}");
    assert_eq!(error.path(), Some(&*dir.path().join("missing.json")));
}

#[test]
fn what_learn_writes_is_accepted_unchanged() {
    let learned = Learned::new()
        .allow_calls(["openat", "read"])
        .allow_paths([("/etc/passwd", FsAccess::READ_FILE), ("/tmp", FsAccess::MAKE_REG | FsAccess::WRITE_FILE)])
        .allow_connect([443])
        .allow_bind([0])
        .allow_abstract_sockets();
    let dir = tempfile::tempdir().expect("a directory");
    // As the example `run` writes it.
    let written = format!("{}\n", serde_json::to_string_pretty(&learned).expect("JSON"));
    fs::write(dir.path().join("learned.json"), &written).expect("a file");
    let narrow = learned.apply(profile::test());
    let named = Config::parse("profile = 'test'\nlearned = 'learned.json'", ConfigFormat::Toml, dir.path());
    assert_eq!(named.and_then(|config| config.sandbox()).expect("a sandbox"), narrow);
    let inline = json(&format!("{{ \"profile\": \"test\", \"learned\": {written} }}"));
    assert_eq!(inline.and_then(|config| config.sandbox()).expect("a sandbox"), narrow);
    assert_ne!(narrow, profile::test());
}

#[test]
fn what_is_deeper_is_mounted_later() {
    let text = "
        ro = ['deep:/a/b/c', 'top:/a']
        mask = ['/a/b', '/z']
        tmpfs = ['/a/b/c/d']
        protect = ['/a/x']
        mounts = [{ mask = '/y' }, { mask = '/a' }]
    ";
    let expected = with_root(|root| {
        root.bind("/base/top", "/a")
            .mask("/z")
            .mask("/a/b")
            .protect("/a/x")
            .bind("/base/deep", "/a/b/c")
            .with(Tmpfs::new("/a/b/c/d"))
            .with(Operation::Mask("/y".into()))
            .mask("/a")
    });
    assert_eq!(sandbox(text), expected);
}

#[test]
fn system_directories_are_shown_as_to_every_user() {
    let bound = |text: &str| sandbox(&format!("ro = [{text}]"));
    assert_eq!(bound("'/etc'"), with_root(|root| root.with(Bind::new("/etc", "/etc").unmapped())));
    assert_eq!(
        bound("{ source = '/etc', target = '/e', owner = { uid = 0, gid = 0 } }"),
        with_root(|root| root.with(Bind::new("/etc", "/e").owner(0, 0)))
    );
    assert_eq!(bound("'/home'"), with_root(|root| root.bind("/home", "/home")));
}

#[test]
fn paths_start_at_the_directory_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("sandbox.toml");
    fs::create_dir(dir.path().join("sub")).expect("a directory");
    fs::write(
        &file,
        "ro = ['data', './a:/a', 'sub/..:/up', '/abs:/abs', '~/c:/c']\ndescriptors = { 5 = { read = 'in' } }",
    )
    .expect("a file");
    let here = dir.path().canonicalize().expect("a path");
    let data = here.join("data");
    let home = std::env::home_dir().expect("a home directory");
    let config = Config::read(&file).expect("a configuration");
    let sources = [
        (data.clone(), data),
        (here.join("a"), "/a".into()),
        (here.clone(), "/up".into()),
        ("/abs".into(), "/abs".into()),
        (home.join("c"), "/c".into()),
    ];
    let expected: Vec<Bind> = sources.into_iter().map(|(source, target)| Bind::new(source, target)).collect();
    assert_eq!(config.ro, expected);
    fs::write(dir.path().join("in"), "text").expect("a file");
    let mut with_command = config;
    with_command.command = Some(vec!["true".into()]);
    assert!(with_command.command().is_ok(), "the file is found");
}

#[test]
fn a_command_is_what_the_keys_say() {
    let text = "
        command = ['sh', '-c', 'id']
        arg0 = 'shell'
        cwd = '/tmp'
        new_session = false
        env = { A = 'b' }
    ";
    let mut expected = Command::new("sh");
    expected.args(["-c", "id"]).arg0("shell").current_dir("/tmp").new_session(false);
    assert_eq!(toml(text).and_then(|config| config.command()).expect("a command"), expected);
    let on_terminal = toml("command = ['sh']\npty = true").and_then(|config| config.command()).expect("a command");
    assert_ne!(on_terminal, Command::new("sh"));
}

/// Options of a command line decide over a file.
#[test]
fn options_override_a_file() {
    let file = toml(
        "profile = 'test'\nmemory = '1GiB'\npids = 5\nro = ['a:/a']\nenv = { A = '1', B = '1' }\n\
         rlimits = { nofile = 1, core = 0 }\ncommand = ['id', '-u']\nshare = ['ipc']\ncgroup = true",
    );
    let options = toml(
        "profile = 'agent'\nmemory = '2GiB'\nro = ['b:/b']\nenv = { B = '2' }\nrlimits = { nofile = 2 }\ncommand = ['ls']\n\
         share = ['net']\ncgroup = true",
    );
    let merged = file.expect("a file").overridden_by(options.expect("options"));
    let expected = toml(
        "profile = 'agent'\nmemory = '2GiB'\npids = 5\nro = ['a:/a', 'b:/b']\nenv = { A = '1', B = '2' }\n\
         rlimits = { nofile = 2, core = 0 }\ncommand = ['ls']\nshare = ['ipc', 'net']\ncgroup = true",
    );
    assert_eq!(merged, expected.expect("a configuration"));
    let any = toml("ro = ['a:/a']\nnice = 1").expect("a configuration");
    assert_eq!(Config::default().overridden_by(any.clone()), any);
    assert_eq!(any.clone().overridden_by(Config::default()), any);
}

/// What only both together contradict is found when they are used.
#[test]
fn merged_keys_that_contradict_each_other_are_refused() {
    let file = toml("memory = '1GiB'\nro = ['a:/a']").expect("a file");
    for (options, expected) in
        [("cgroup = false", "`memory` needs a cgroup"), ("rw = ['b:/a']", "\"/a\" is the target of both `ro` and `rw`")]
    {
        let merged = file.clone().overridden_by(toml(options).expect("options"));
        let error = merged.sandbox().expect_err("a contradiction").to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

/// A sandbox without a command would ignore them.
#[test]
fn keys_of_a_command_are_refused_for_a_sandbox_alone() {
    for (key, example) in examples() {
        let is_of_command = ["command", "arg0", "cwd", "pty", "new_session", "descriptors"].contains(key);
        let result = Sandbox::from_config(example, ConfigFormat::Toml, BASE);
        if is_of_command {
            let error = result.expect_err("a key of a command").to_string();
            assert!(error.starts_with(&format!("`{key}` is about a command")), "{error}");
        }
    }
}
