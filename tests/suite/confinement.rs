//! Landlock rules, and capabilities that a program keeps.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::{self, fails, field, invalid, sh, stdout};
use stockade::capabilities::Capability;
use stockade::identity::IdRange;
use stockade::landlock::FsAccess;
use stockade::mount::Bind;
use stockade::{Capabilities, Command, Identity, Landlock, Layer, Namespaces, Root, Sandbox};

fn unless_landlock() -> Option<String> {
    support::unless_landlock_since((6, 2))
}

fn unless_landlock_of_tcp() -> Option<String> {
    support::unless_landlock_since((6, 7))
}

fn unless_landlock_of_signals() -> Option<String> {
    support::unless_landlock_since((6, 12))
}

/// A set of the program's, by the name that `/proc/self/status` has for it.
fn set(sandbox: &Sandbox, name: &str) -> u64 {
    let status = stdout(sandbox, "cat /proc/self/status");
    u64::from_str_radix(&field(&status, name), 16).expect("a mask")
}

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

#[apply(test)]
fn no_capability_is_kept_by_default() {
    for name in SETS {
        assert_eq!(set(&Sandbox::new(), name), 0, "{name}");
    }
}

#[apply(test)]
fn kept_capabilities_are_in_every_set_and_outlive_execve() {
    let kept = [Capability::SysAdmin, Capability::NetRaw];
    let mask = kept.iter().fold(0, |mask, &capability| mask | 1u64 << capability as u32);
    let sandbox = Sandbox::new().capabilities(Capabilities::none().keep(kept));
    for name in SETS {
        assert_eq!(set(&sandbox, name), mask, "{name}");
    }
    let outcome = sh(&sandbox, "true").outcome;
    let said = outcome.enforcement.active().find(|active| active.layer == Layer::Capabilities).expect("the layer");
    assert_eq!(said.summary, "CAP_SYS_ADMIN, CAP_NET_RAW");
}

#[apply(test)]
fn kept_capabilities_are_effective() {
    let script = "hostname other && hostname";
    let named = Sandbox::new().seccomp(stockade::Seccomp::new().allow(["sethostname"]));
    assert!(fails(&named, script).contains("hostname"));
    let admin = named.capabilities(Capabilities::none().keep([Capability::SysAdmin]));
    assert_eq!(stdout(&admin, script), "other");
}

#[apply(test)]
#[only(User)]
fn capabilities_cannot_be_kept_without_a_user_namespace() {
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let (what, remedy) = invalid(&bare.capabilities(Capabilities::none().keep([Capability::NetRaw])));
    assert_eq!(what, "CAP_NET_RAW cannot be kept: the caller is not root, and the sandbox has no user namespace");
    assert_eq!(remedy, "add Namespaces::USER, or remove the capabilities");
}

#[apply(test)]
fn no_new_privs_is_set_unless_disabled() {
    let status = |sandbox: &Sandbox, name| field(&stdout(sandbox, "cat /proc/self/status"), name);
    assert_eq!(status(&Sandbox::new(), "NoNewPrivs"), "1");
    let asked = Sandbox::new().allow_new_privs();
    assert_eq!(status(&asked, "NoNewPrivs"), "0");
    assert_eq!(status(&asked, "Seccomp"), "2", "the filter is there all the same");
    assert_eq!(set(&asked, "CapEff"), 0);
}

/// Rules by which a shell runs.
fn programs() -> Landlock {
    ["/usr", "/bin", "/lib", "/lib64", "/etc"].iter().fold(Landlock::new(), |rules, path| rules.read_only(path))
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_denies_what_no_rule_allows() {
    assert_eq!(stdout(&Sandbox::new(), "echo x >/tmp/file; cat /tmp/file /proc/self/comm"), "x\ncat");
    let sandbox = Sandbox::new().landlock(programs());
    for script in ["echo x >/tmp/file", "cat /proc/self/comm", "ls /", "mkdir /tmp/dir"] {
        assert!(fails(&sandbox, script).contains("ermission denied"), "{script}");
    }
    // An empty list allows nothing, not even the program.
    let error = support::refused(&Sandbox::new().landlock(Landlock::new())).to_string();
    assert!(error.contains("EACCES") && error.contains("Landlock"), "{error}");
    let (what, _) = support::invalid(&Sandbox::new().landlock(programs().read_only("etc")));
    assert!(what.contains("\"etc\" is relative"), "{what}");
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_rules_are_for_paths_inside() {
    let sandbox = Sandbox::new().root(Root::host().tmpfs("/scratch", 1 << 20));
    let sandbox = sandbox.landlock(programs().read_write("/scratch"));
    assert_eq!(
        stdout(&sandbox, "mkdir /scratch/a && echo x >/scratch/a/b && mv /scratch/a/b /scratch/c && cat /scratch/c"),
        "x"
    );
    fails(&sandbox, "echo x >/tmp/file");
    let read = Sandbox::new().landlock(programs().access("/tmp", FsAccess::MAKE_DIR));
    assert_eq!(stdout(&read, "mkdir /tmp/a && echo made"), "made");
    fails(&read, "echo x >/tmp/a/file");
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_rules_may_be_for_a_file() {
    let root = Root::host().file("/one", "1").file("/other", "2");
    let sandbox = Sandbox::new().root(root.clone());
    assert_eq!(stdout(&sandbox, "cat /one /other"), "12");
    let sandbox = sandbox.landlock(programs().read_only("/one"));
    assert_eq!(stdout(&sandbox, "cat /one"), "1");
    fails(&sandbox, "cat /other");
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_denies_inside_of_an_allowed_tree() {
    let root =
        || Root::host().tmpfs("/scratch", 1 << 20).file("/scratch/secret", "hidden").create_dir("/scratch/shown");
    let sandbox = |rules| Sandbox::new().root(root()).landlock(rules);
    let open = programs().read_write("/scratch");
    assert_eq!(
        stdout(&sandbox(open.clone()), "cat /scratch/secret; echo x >/scratch/shown/file && echo written"),
        "hiddenwritten"
    );
    let closed = sandbox(open.deny("/scratch/secret").deny_write("/scratch/shown"));
    assert!(!sh(&closed, "cat /scratch/secret").stdout.starts_with(b"hidden"));
    fails(&closed, "echo x >/scratch/shown/file");
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let (what, _) = invalid(&bare.landlock(programs().deny("/etc/passwd")));
    assert!(what.contains("Landlock::deny or Landlock::deny_write needs mounts"), "{what}");
}

fn unless_landlock_and_writable_binds() -> Option<String> {
    unless_landlock().or_else(support::unless_idmapped_mounts)
}

#[apply(test)]
#[skip(unless_landlock_and_writable_binds)]
fn landlock_rules_follow_no_link_that_a_program_may_have_created() {
    let dir = support::shared_dir();
    let workspace = dir.path().join("workspace");
    for path in ["workspace/real", "secret"] {
        fs::create_dir_all(dir.path().join(path)).expect("a directory");
        fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(0o777)).expect("permissions");
    }
    fs::set_permissions(&workspace, fs::Permissions::from_mode(0o777)).expect("permissions");
    fs::write(dir.path().join("secret/file"), "hidden").expect("a secret");
    let bound = |bind: Bind| Sandbox::new().root(Root::host().bind(dir.path().join("secret"), "/srv").with(bind));
    let first = bound(Bind::new(&workspace, "/mnt").writable());
    assert_eq!(stdout(&first, "ln -s /srv /mnt/out; ln -s real /mnt/also; cat /mnt/out/file"), "hidden");
    let script = "cat /srv/file; true";
    for path in ["/mnt/out", "/mnt/out/", "/mnt/out/file", "/mnt/also", "/mnt/./out"] {
        let policy = programs().read_write(path);
        for bind in [Bind::new(&workspace, "/mnt").writable(), Bind::beneath(dir.path(), "workspace", "/mnt")] {
            let error = support::refused(&bound(bind).landlock(policy.clone()));
            assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ELOOP), "{path}: {error}");
        }
        // In a tree that no program has written to, links are followed, and the rule is for what they lead to.
        let trusted = bound(Bind::new(&workspace, "/mnt")).landlock(policy);
        let expected = if path.contains("out") { "hidden" } else { "" };
        assert_eq!(stdout(&trusted, script), expected, "{path}");
    }
    let allowed = first.clone().landlock(programs().read_write("/mnt/real").read_write("/mnt"));
    assert_eq!(stdout(&allowed, "echo x >/mnt/real/file; cat /mnt/real/file; cat /srv/file || true"), "x");
    let (what, _) = invalid(&first.landlock(programs().read_only("/mnt/../srv")));
    assert!(what.contains("contains `..`"), "{what}");
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_works_without_namespaces() {
    let dir = support::shared_dir();
    fs::write(dir.path().join("secret"), "hidden").expect("a secret");
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    let script = format!("cat {}/secret", dir.path().display());
    assert_eq!(stdout(&bare, &script), "hidden");
    let restricted = bare.landlock(programs());
    assert!(fails(&restricted, &script).contains("ermission denied"));
    assert_eq!(stdout(&restricted, "cat /etc/hostname >/dev/null 2>&1; echo runs"), "runs");
    assert!(sh(&restricted, "true").outcome.enforcement.is_active(Layer::Landlock));
}

#[apply(test)]
#[skip(unless_landlock_of_tcp)]
fn landlock_denies_tcp_ports() {
    let allowed = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let denied = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = |listener: &TcpListener| listener.local_addr().expect("its address").port();
    let shared = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
    let connect = |port| format!("exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected'");
    assert_eq!(stdout(&shared, &connect(port(&denied))), "connected");
    let rules = programs().read_write("/dev").connect_port(port(&allowed));
    let sandbox = shared.landlock(rules);
    assert_eq!(stdout(&sandbox, &connect(port(&allowed))), "connected");
    assert!(fails(&sandbox, &connect(port(&denied))).contains("ermission denied"));
}

#[apply(test)]
#[skip(unless_landlock_of_signals)]
fn landlock_keeps_signals_inside() {
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit()).identity(Identity::caller());
    let mut other = bare.spawn(Command::new("sleep").arg("1000")).expect("another sandbox");
    let script = format!("kill -0 {} && echo reached", other.pid().number());
    let any = Landlock::new().any_path().any_tcp().any_abstract_socket().any_signal();
    assert_eq!(stdout(&bare.clone().landlock(any), &script), "reached");
    assert!(fails(&bare.landlock(programs()), &script).contains("ermitted"));
    other.kill().expect("its end");
}

/// Prints the effective capabilities before and after a change from user ID 0 to 1, and whether capabilities can be
/// kept over it. Then the effective set of a program that is executed.
const CHANGE_USER: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def effective():
    return [line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')][0].lstrip('0') or '0'
first = effective()
keeps = libc.prctl(8, int(sys.argv[1]), 0, 0, 0)
os.setresuid(1, 1, 1)
permitted = [line.split()[1] for line in open('/proc/self/status') if line.startswith('CapPrm')][0].lstrip('0') or '0'
print(first, keeps, effective(), permitted)
sys.stdout.flush()
os.execv('/bin/sh', ['sh', '-c', 'grep CapEff /proc/self/status'])
";

#[apply(test)]
#[only(Root)]
#[skip(support::unless_python)]
fn capabilities_are_dropped_with_root_only_on_request() {
    let ids = [IdRange::new(0, 3_000_000, 10)];
    let kept = Capabilities::none().keep([Capability::Setuid, Capability::NetRaw]);
    let run = |kept: &Capabilities, keeps: &str| {
        let sandbox = Sandbox::new().identity(Identity::new().maps(ids, ids).uid(0).gid(0)).capabilities(kept.clone());
        let output = sandbox.output(Command::new("python3").args(["-c", CHANGE_USER, keeps])).expect("a run");
        assert!(output.outcome.success(), "{}", support::text(&output.stderr));
        support::text(&output.stdout)
    };
    let all = "2080";
    // By default they stay in every set, whatever the user is, and PR_SET_KEEPCAPS is denied.
    assert_eq!(run(&kept, "1"), format!("{all} -1 {all} {all}\nCapEff:\t000000000000{all}"));
    let dropped = kept.drop_on_setuid();
    assert_eq!(run(&dropped, "0"), format!("{all} 0 0 0\nCapEff:\t0000000000000000"));
    // A daemon can keep them in the permitted set, but what it executes has none.
    assert_eq!(run(&dropped, "1"), format!("{all} 0 0 {all}\nCapEff:\t0000000000000000"));
}
