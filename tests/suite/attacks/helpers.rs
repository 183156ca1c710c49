//! Programs and environment variables by which the caller would execute, or connect to, something that a sandboxed
//! program has written.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Host;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stockade::cgroup::{CgroupParent, SystemdFailure};
use stockade::probe::Support;
use stockade::{Cgroup, Command, Identity, Root, Sandbox};

use crate::attacks::common::{Canary, open_directory};
use crate::support::{
    USER, at_most, in_mount_namespace, own_path, payload_on_host, processes, refused, shared_dir, text,
    unless_idmapped_mounts, unless_mounts, unless_root,
};

payloads![
    ("map-and-probe", map_and_probe),
    ("ask-systemd", ask_systemd),
    ("untrusted-helper", untrusted_helper),
    ("slow-helper", slow_helper),
];

fn unless_root_and_helpers() -> Option<String> {
    let missing = !Path::new("/usr/bin/newuidmap").exists() || !Path::new("/etc/subuid").exists();
    let missing = missing.then(|| "there is no newuidmap (package uidmap)".into());
    unless_root().or_else(unless_mounts).or(missing)
}

/// The trap is bound writable.
fn unless_trap_and_helpers() -> Option<String> {
    unless_root_and_helpers().or_else(unless_idmapped_mounts)
}

/// A workspace in which a program in a sandbox has left programs that change the canary, and the canary.
struct Trap {
    dir: tempfile::TempDir,
    canary: Canary,
}

impl Trap {
    fn new() -> Self {
        let dir = shared_dir();
        let bin = dir.path().join("work/.venv/bin");
        open_directory(&dir.path().join("work"));
        let canary = Canary::new(dir.path().join("canary"));
        let program = format!("#!/bin/sh\n: > {}/harm\nexit 1\n", canary.path.display());
        let trap = Self { dir, canary };
        let sandbox = Sandbox::new().root(Root::host().bind_rw(trap.dir.path().join("work"), "/work"));
        let mut leave = Command::new("sh");
        let script = "mkdir -p /work/.venv/bin; for name in newuidmap newgidmap ibus; do
            printf %s \"$1\" >/work/.venv/bin/$name; chmod 755 /work/.venv/bin/$name; done";
        let outcome = sandbox.status(leave.args(["-c", script, "sh", &program])).unwrap();
        assert!(outcome.success(), "{outcome}");
        assert!(bin.join("newuidmap").exists());
        trap
    }

    fn bin(&self) -> String {
        self.dir.path().join("work/.venv/bin").to_string_lossy().into_owned()
    }

    fn path(&self) -> String {
        format!("{}:{}", self.bin(), std::env::var("PATH").unwrap_or_default())
    }
}

/// A payload on the host that must succeed.
#[track_caller]
fn succeeds(host: &mut Host) -> String {
    let output = host.output().expect("a host");
    assert!(output.status.success(), "{host:?}: {}, {}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn programs_in_path_are_not_executed() {
    let trap = Trap::new();
    // The harm: the caller executes what is first in its PATH.
    let _ = Host::new("sh").args(["-c", "newuidmap"]).env("PATH", trap.path()).status();
    trap.canary.assert_hit("harm");
    succeeds(payload_on_host("map-and-probe").env("PATH", trap.path()));
    trap.canary.assert_unchanged("a program in PATH");
}

fn map_and_probe(_: &[String]) -> i32 {
    // Whether the IDs can be mapped depends on the user.
    let _ = Sandbox::new().identity(Identity::new().sub_ids()).status(Command::new("/bin/true"));
    let _ = Support::probe();
    0
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn bus_addresses_start_no_program() {
    let trap = Trap::new();
    let fake = format!("{}/newuidmap", trap.bin());
    let _ = Host::new(&fake).status();
    trap.canary.assert_hit("harm");
    for address in
        [format!("unixexec:path={fake}"), "ibus:".into(), "tcp:host=127.0.0.1,port=1".into(), "autolaunch:".into()]
    {
        let mut host = payload_on_host("ask-systemd");
        host.env("DBUS_SYSTEM_BUS_ADDRESS", &address)
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .env("PATH", trap.path());
        succeeds(&mut host);
        trap.canary.assert_unchanged(address);
    }
}

fn ask_systemd(_: &[String]) -> i32 {
    let error = refused(&Sandbox::new().cgroup(Cgroup::new().parent(CgroupParent::SystemdScope)));
    let is_bus = |failure| matches!(failure, SystemdFailure::NoBus | SystemdFailure::NoManager);
    assert!(error.systemd_failure().is_some_and(is_bus), "{error:?}");
    0
}

/// Runs a payload as an ordinary user with sub-IDs, where `/usr/bin` is a copy that a script has changed.
fn with_helper_programs(dir: &Path, change: &str, name: &str) {
    let prepare = "mkdir $dir/bin
        for name in sh setpriv mount chmod chown cp ln rm sleep newuidmap newgidmap
        do cp -pL /usr/bin/$name $dir/bin; done
        mount --bind $dir/bin /usr/bin; echo '1000:100000:65536' >$dir/ids
        for file in subuid subgid; do mount --bind $dir/ids /etc/$file; done";
    let user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups \"$me\" --payload {name}");
    in_mount_namespace(&format!("{prepare}\n{change}\nexec {user}"), name, dir);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_trap_and_helpers)]
fn helper_programs_that_others_can_write_are_not_executed() {
    let trap = Trap::new();
    let fake = format!("{}/newuidmap", trap.bin());
    let changes = [
        format!("cp {fake} /usr/bin/newuidmap; chmod 4755 /usr/bin/newuidmap; chown {USER} /usr/bin/newuidmap"),
        format!("cp {fake} /usr/bin/newuidmap; chmod 4777 /usr/bin/newuidmap"),
        format!("cp {fake} /usr/bin/newuidmap; chmod 755 /usr/bin/newuidmap"),
        format!("rm /usr/bin/newuidmap; ln -s {fake} /usr/bin/newuidmap"),
        "chmod 777 /usr/bin".into(),
        format!("chown {USER} /usr/bin"),
    ];
    for change in changes {
        let dir = shared_dir();
        with_helper_programs(dir.path(), &change, "untrusted-helper");
        trap.canary.assert_unchanged(change);
    }
}

fn untrusted_helper(_: &[String]) -> i32 {
    let error = refused(&Sandbox::new().identity(Identity::new().sub_ids()));
    assert_eq!(error.errno(), Some(stockade::Errno::EACCES), "{error}");
    let said = error.to_string();
    let reasons = ["users other than root can write to", "not set-user-ID"];
    assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_helpers)]
fn the_spawn_fails_if_a_helper_program_never_exits() {
    let dir = shared_dir();
    let program = dir.path().join("bin/newuidmap");
    with_helper_programs(
        dir.path(),
        "cp /usr/bin/sleep /usr/bin/newuidmap; chmod 4755 /usr/bin/newuidmap",
        "slow-helper",
    );
    // It is root's, which the payload could not kill.
    let id = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    for pid in processes(|line| line.starts_with("newuidmap ")) {
        if id(Path::new(&format!("/proc/{pid}/exe"))) == id(&program) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

fn slow_helper(_: &[String]) -> i32 {
    let start = Instant::now();
    let error = refused(&Sandbox::new().identity(Identity::new().sub_ids()));
    assert_eq!(error.errno(), Some(stockade::Errno::ETIMEDOUT), "{error}");
    assert!(start.elapsed() < at_most(Duration::from_secs(30)), "{:?}", start.elapsed());
    0
}

#[apply(test)]
#[only(Root)]
fn a_set_user_id_caller_uses_no_variable() {
    let dir = shared_dir();
    let socket = dir.path().join("bus");
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    let reached = Arc::new(AtomicBool::new(false));
    let heard = reached.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            heard.store(true, Ordering::SeqCst);
            let mut stream = stream;
            let _ = (stream.read(&mut [0; 64]), stream.write_all(b"ERROR\r\n"));
        }
    });
    let program = dir.path().join("program");
    fs::copy(own_path(), &program).unwrap();
    chown(&program, Some(0), Some(0)).unwrap();
    let address = format!("unix:path={}", socket.display());
    let ask = |mode: u32, uid: u32| {
        fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
        let mut host = Host::new(&program);
        host.args(["--payload", "ask-systemd"]).uid(uid).gid(uid).current_dir("/");
        let _ = host.env("DBUS_SYSTEM_BUS_ADDRESS", &address).env("DBUS_SESSION_BUS_ADDRESS", &address).output();
        reached.swap(false, Ordering::SeqCst)
    };
    assert!(ask(0o755, 0) && ask(0o755, USER), "whoever has no more privileges than its parent speaks to that bus");
    assert!(!ask(0o4755, USER), "a set-user-ID program was led to a bus by its user");
    assert!(!ask(0o2755, USER), "a set-group-ID program was led to a bus by its user");
}
