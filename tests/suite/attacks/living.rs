//! A second command of a session. It is confined like the first one, whatever the program has changed in its
//! namespaces, which the second command joins by those of a process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Command as Host;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use stockade::namespaces::NamespaceRef;
use stockade::{Cgroup, Identity, Landlock, Limits, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{
    Attempts, Bystander, alone, attack, attack_as, attack_by, attempt, here, ids_of, line, sandbox, tell,
};
use crate::attacks::sys::{self, numbers};
use crate::support::{at_most, field, is_root, own_path, payload, unless_landlock_since, unless_pivot_root};

payloads![("restricted", restricted), ("stay_restricted", stay_restricted), ("stay_under_a_name", stay_under_a_name),];

fn unless_landlock() -> Option<String> {
    unless_landlock_since((6, 2))
}

const ALL: Namespaces = Namespaces::all().difference(Namespaces::TIME);

/// What the kernel says that this process is kept from, and what comes of trying.
fn restricted(_: &[String]) -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for name in ["Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask"] {
        println!("{name}: {}", field(&status, name));
    }
    tell("securebits", numbers(libc::SYS_prctl, &[libc::PR_GET_SECUREBITS.into()]));
    tell("dumpable", prctl::get_dumpable());
    for limit in [Resource::RLIMIT_NOFILE, Resource::RLIMIT_CORE, Resource::RLIMIT_FSIZE] {
        tell(&format!("{limit:?}"), getrlimit(limit));
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        tell(kind, fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    }
    let session = nix::unistd::getsid(None).unwrap() == nix::unistd::getpid();
    tell("leads its session", session);
    tell("descriptors", crate::support::descriptors().len());
    tell("environment", std::env::vars().collect::<Vec<_>>());
    tell("processes that it may start", start_many());
    attempt("file outside of the rules", fs::read("/etc/passwd"));
    let of_the_system = "/usr/stockade-test";
    attempt("write to the system", File::create(of_the_system));
    let _ = fs::remove_file(of_the_system);
    attempt("user namespace", sys::unshare(libc::CLONE_NEWUSER));
    attempt("mount", sys::mount("none", "/tmp", "tmpfs", 0));
    attempt("keyring", numbers(libc::SYS_keyctl, &[0, -2, 1]));
    attempt("ring", sys::socket_by_ring(libc::AF_INET));
    attempt("init", sys::ptrace(1));
    let own = format!("/tmp/set-user-id-{}", std::process::id());
    attempt("write to its own", fs::write(&own, ""));
    attempt("set-user-id", fs::set_permissions(&own, fs::Permissions::from_mode(0o4755)));
    let _ = fs::remove_file(&own);
    0
}

/// How many processes there can be beside this one, up to 40.
fn start_many() -> usize {
    let mut started = vec![];
    while started.len() < 40 {
        match sys::clone(libc::SIGCHLD) {
            Ok(0) => {
                std::thread::sleep(std::time::Duration::from_secs(20));
                sys::exit(0);
            }
            Ok(child) => started.push(nix::unistd::Pid::from_raw(child as i32)),
            Err(_) => break,
        }
    }
    for &child in &started {
        let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(child, None);
    }
    started.len()
}

/// The same, and then it lives until its input is closed.
fn stay_restricted(args: &[String]) -> i32 {
    restricted(args);
    println!("stays");
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// Attack 32: The filter, Landlock, capabilities, `no_new_privs`, limits, and the cgroup.
#[apply(test)]
#[skip(unless_landlock)]
fn a_second_command_keeps_every_restriction_of_the_first() {
    let _alone = alone();
    let rules = ["/usr", "/lib", "/lib64", "/payload", "/proc", "/dev"];
    let rules = rules.iter().fold(Landlock::new().read_write("/tmp"), |rules, path| rules.read_only(path));
    let limits = Limits::new().rlimit(stockade::limits::Resource::Nofile, 64, 64).rlimit(
        stockade::limits::Resource::Fsize,
        1 << 20,
        1 << 20,
    );
    let confined = sandbox().landlock(rules.any_tcp().any_signal().any_abstract_socket()).limits(limits);
    // An ordinary user needs a group that is delegated to it.
    let confined = if is_root() { confined.cgroup(Cgroup::new().pids_max(8)) } else { confined };

    let mut command = payload("stay_restricted");
    let mut first = confined.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    let mut said = first.stdout.take().unwrap();
    let mut lines = BTreeMap::new();
    loop {
        let line = line(&mut said);
        match line.split_once(": ") {
            Some((what, result)) => lines.insert(what.to_owned(), result.to_owned()),
            None => break assert_eq!(line, "stays"),
        };
    }
    let (uid, gid) = ids_of(first.pid().number());
    let joined = confined
        .join(ALL, NamespaceRef::pid(first.pid()))
        .identity(Identity::new().uid(uid).gid(gid))
        .root(Root::inherit());
    let second = attack(&joined, "restricted", &[]);
    for (what, result) in &lines {
        assert_eq!(second.get(what), result, "{what}");
    }
    assert_confined(&second);
    second.assert_refused(&["file outside of the rules", "init"]);
    if is_root() {
        assert_eq!(second.get("processes that it may start"), "7");
    }
    // Without these layers, in the same namespaces, there is more that it may do.
    let weak = Sandbox::new().seccomp(Seccomp::unconfined()).join(ALL, NamespaceRef::pid(first.pid()));
    let weak = attack(&weak.identity(Identity::new().uid(uid).gid(gid)).root(Root::inherit()), "restricted", &[]);
    weak.assert_done(&["file outside of the rules", "keyring", "ring", "set-user-id"]);
    assert_eq!(weak.get("processes that it may start"), "40");
    assert_eq!((weak.get("mnt"), weak.get("Seccomp")), (second.get("mnt"), "0"));
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

/// Takes a name that is not UTF-8, and lives until its input is closed.
fn stay_under_a_name(_: &[String]) -> i32 {
    sys::call(libc::SYS_prctl, &mut [sys::Word::Number(libc::PR_SET_NAME.into()), sys::Word::Bytes(b"\xff\xfe\0")])
        .unwrap();
    assert_eq!(fs::read("/proc/self/comm").unwrap(), b"\xff\xfe\n");
    println!("stays");
    let _ = std::io::stdin().read(&mut [0]);
    0
}

/// Attack 12: The name of a second command hides it from the caller, which has to reap it before the init of the first
/// one can exit.
#[apply(test)]
fn a_name_that_is_not_utf_8_delays_no_outcome() {
    let _alone = alone();
    let start = |sandbox: &Sandbox, name: &str| {
        let mut command = here(name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sandbox.spawn(&command).unwrap();
        while line(child.stdout.as_mut().unwrap()) != "stays" {}
        child
    };
    let mut first = start(&sandbox().root(Root::inherit()), "stay_restricted");
    let (uid, gid) = ids_of(first.pid().number());
    let joined = sandbox().join(ALL, NamespaceRef::pid(first.pid()));
    let second = start(&joined.identity(Identity::new().uid(uid).gid(gid)).root(Root::inherit()), "stay_under_a_name");
    first.kill().unwrap();
    let started = Instant::now();
    let outcome = first.wait().unwrap();
    assert_eq!(outcome.enforcement.unenforced, []);
    assert!(started.elapsed() < at_most(Duration::from_secs(5)), "{:?}", started.elapsed());
    drop(second);
}

#[track_caller]
fn assert_confined(attempts: &Attempts) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(attempts.get(set), "0000000000000000", "{set}");
    }
    assert_eq!((attempts.get("NoNewPrivs"), attempts.get("Seccomp")), ("1", "2"));
    attempts.assert_refused(&["user namespace", "mount", "keyring", "ring", "set-user-id", "write to the system"]);
    attempts.assert_done(&["write to its own"]);
}

/// Attack 32: The namespaces are of somebody's own making, as a program makes them that wants others to join, and has
/// every right in them.
#[apply(test)]
#[skip(unless_pivot_root)]
fn a_second_command_is_as_confined_in_namespaces_of_anybodys_making() {
    let mut host = Host::new("unshare");
    let mut target = Bystander::start(host.arg("-Urm").arg(own_path()).args(["--payload", "keep_secret"]));
    target.line();
    let pid = target.pid().to_string();
    let mut nsenter = Host::new("nsenter");
    nsenter.args(["-t", &pid, "-U", "-m", "--preserve-credentials"]).arg(own_path());
    let naive = attack_by(nsenter.args(["--payload", "restricted"]).env_clear());
    assert_ne!(naive.get("CapEff"), "0000000000000000");
    assert_eq!((naive.get("NoNewPrivs"), naive.get("Seccomp")), ("0", "0"));
    naive.assert_done(&["keyring", "ring", "set-user-id"]);

    let kinds = Namespaces::USER | Namespaces::MOUNT;
    let joined = Sandbox::new()
        .join(kinds, NamespaceRef::pid(target.pid()))
        .identity(Identity::new().uid(0).gid(0))
        .root(Root::inherit());
    let second = attack_as(&joined, &here("restricted"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(second.get(set), "0000000000000000", "{set}");
    }
    assert_eq!((second.get("NoNewPrivs"), second.get("Seccomp")), ("1", "2"));
    second.assert_refused(&["user namespace", "mount", "keyring", "ring", "set-user-id"]);
    assert_eq!(second.get("securebits"), attack(&sandbox(), "restricted", &[]).get("securebits"));
    assert_eq!(second.get("mnt"), naive.get("mnt"));
}
