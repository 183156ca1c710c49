//! The file system: mounts that must not change, programs that would gain privileges, and device nodes.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Host;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, mknod};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use stockade::mount::Bind;
use stockade::{Command, Namespaces, Root, Sandbox};

use crate::attacks::common::{
    Attempts, Canary, apart, as_before, attack, attack_as, attack_by, attack_on_host, attempt, host_output,
    open_directory, privately, privately_as_before, sandbox, tell, unfiltered,
};
use crate::attacks::sys;
use crate::support::{
    own_path, payload_on_host, shared_dir, text, unless_idmapped_mounts, unless_idmapped_tmpfs, unless_mount_setattr,
    unless_pivot_root, unless_root, with_payload,
};

payloads![
    ("caller_with_mounts", caller_with_mounts),
    ("write_below", write_below),
    ("escape", escape),
    ("ids", ids),
    ("ids_inside", ids_inside),
    ("make_devices", make_devices),
    ("open_device", open_device),
    ("caller_without_mount_setattr", caller_without_mount_setattr),
    ("bind_writable", bind_writable),
];

fn unless_root_with_idmapped_mounts() -> Option<String> {
    unless_root().or_else(unless_idmapped_mounts)
}

/// Writes to a directory, to a mount in it, and to one that the caller makes when it is told to.
fn write_below(args: &[String]) -> i32 {
    let (dir, sync) = (Path::new(&args[0]), Path::new(&args[1]));
    attempt("write", fs::write(dir.join("file"), "hit"));
    attempt("write to a submount", fs::write(dir.join("sub/file"), "hit"));
    fs::write(sync.join("ready"), "").unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !sync.join("mounted").exists() {
        assert!(Instant::now() < end, "the caller has not mounted anything");
        std::thread::sleep(Duration::from_millis(1));
    }
    attempt("see a late mount", fs::read(dir.join("late/new")));
    attempt("write to a late mount", fs::write(dir.join("late/file"), "hit"));
    0
}

/// A caller with its mounts: how it gives the directory to the program, the directory, and one to speak over.
fn caller_with_mounts(args: &[String]) -> i32 {
    let (how, dir, sync) = (args[0].as_str(), &args[1], &args[2]);
    let root = with_payload(Root::host()).bind_rw(sync, "/tmp/sync");
    let (sandbox, dir, sync) = match how {
        "read-only" => (Sandbox::new().root(root.bind(dir, "/tmp/dir")), "/tmp/dir", "/tmp/sync"),
        "writable" => (Sandbox::new().root(root.bind_rw(dir, "/tmp/dir")), "/tmp/dir", "/tmp/sync"),
        _ => {
            let without = Namespaces::USER | Namespaces::PID;
            (Sandbox::new().namespaces(without).root(Root::inherit()), dir.as_str(), sync.as_str())
        }
    };
    let program = if how == "none" { own_path() } else { crate::support::PAYLOAD.into() };
    let mut command = Command::new(program);
    command.args(["--payload", "write_below", dir, sync]);
    println!("{}", text(&sandbox.output(&command).unwrap().stdout));
    0
}

/// What a program meets below a directory while its caller mounts something there, in a mount namespace where
/// everything propagates.
fn below(how: &str) -> Attempts {
    let place = shared_dir();
    let [dir, sync] = ["dir", "sync"].map(|name| place.path().join(name));
    [&dir, &sync, &dir.join("sub"), &dir.join("late")].into_iter().for_each(|path| open_directory(path));
    let script = format!(
        "dir=$5 sync=$6
        mount --make-rshared /
        mount -t tmpfs none \"$dir/sub\"; chmod 777 \"$dir/sub\"
        before=$(cat /proc/self/mountinfo)
        {} \"$@\" & host=$!
        while ! test -e \"$sync/ready\"; do sleep 0.01; kill -0 $host; done
        test \"$before\" = \"$(cat /proc/self/mountinfo)\" || echo 'mounts of the host: changed'
        mount -t tmpfs none \"$dir/late\"; chmod 777 \"$dir/late\"; echo late >\"$dir/late/new\"
        touch \"$sync/mounted\"
        wait $host
        for name in file sub/file late/file; do test ! -e \"$dir/$name\" || echo \"arrived $name: done\"; done",
        as_before()
    );
    let own = own_path();
    let args = [own.as_os_str(), "--payload".as_ref(), "caller_with_mounts".as_ref(), how.as_ref(), dir.as_ref()];
    let mut args = args.to_vec();
    args.push(sync.as_ref());
    Attempts::parse(&host_output(&mut apart(&["-m"], &script, &args)))
}

/// Attack 13: A program writes into a submount of a read-only bind, also into one that the caller makes while it runs.
#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn a_read_only_bind_is_read_only_in_all_its_submounts() {
    let writable = below("writable");
    writable.assert_done(&["write", "write to a submount", "arrived file", "arrived sub/file"]);
    below("none").assert_done(&["write to a late mount", "arrived late/file"]);
    below("read-only").assert_all_refused();
}

/// Attack 17: Mounts of the host do not come into the sandbox, nor those of the sandbox out of it.
#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn no_mount_propagates_either_way() {
    let place = shared_dir();
    let script = "mount --make-rshared /
        unshare -m --propagation unchanged mount -t tmpfs none \"$1\"
        grep -c \" $1 \" /proc/self/mountinfo";
    assert_eq!(host_output(&mut apart(&["-m"], script, &[place.path().as_os_str()])), "1", "mounts propagate out");
    below("none").assert_done(&["see a late mount"]);
    for how in ["read-only", "writable"] {
        let attempts = below(how);
        attempts.assert_refused(&["see a late mount"]);
        assert!(!format!("{attempts:?}").contains("mounts of the host"), "{attempts:?}");
        assert!(!format!("{attempts:?}").contains("arrived late/file"), "{attempts:?}");
    }
}

/// Takes its mounts apart, then once more as root of a user namespace of its own. `place` holds `read-only`, and
/// `masked` and `moved` with something mounted over them.
fn escape(args: &[String]) -> i32 {
    take_apart("", &args[0]);
    // The kernel and the sandbox may forbid the namespaces.
    if attempt("user namespace", sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)).is_some() {
        take_apart("nested ", &args[0]);
        climb("nested ");
    }
    0
}

fn take_apart(prefix: &str, place: &str) {
    let (read_only, masked, moved) =
        (format!("{place}/read-only"), format!("{place}/masked"), format!("{place}/moved"));
    let at = "/tmp/at";
    let _ = fs::create_dir(at);
    let say = |what: &str, result: nix::Result<i64>| {
        attempt(&format!("{prefix}{what}"), result);
    };
    let remount = libc::MS_REMOUNT | libc::MS_BIND;
    say("clear read-only", sys::mount_clear(&read_only, libc::MOUNT_ATTR_RDONLY));
    say("clear everything", sys::mount_clear("/", libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV));
    say("remount", sys::mount("", &read_only, "", remount));
    say("remount the file system", sys::mount("", &read_only, "", libc::MS_REMOUNT));
    say("remount the root", sys::mount("", "/", "", remount));
    say("umount", sys::umount(&masked, libc::MNT_DETACH));
    say("move", sys::move_mount(libc::AT_FDCWD.into(), &moved, at));
    say("bind what is below", sys::mount(place, at, "", libc::MS_BIND));
    attempt(&format!("{prefix}see it there"), fs::read(format!("{at}/masked/secret")));
    say("copy what is below", sys::open_tree(place, libc::OPEN_TREE_CLONE));
    say("share", sys::mount("", "/", "", libc::MS_REC | libc::MS_SHARED));
    say("pivot", sys::pivot_root("/", "/tmp"));
    for directory in [&masked, &moved] {
        attempt(&format!("{prefix}see {}", &directory[place.len() + 1..]), fs::read(format!("{directory}/secret")));
    }
    attempt(&format!("{prefix}write"), fs::write(format!("{read_only}/file"), prefix));
    while sys::umount(at, libc::MNT_DETACH).is_ok() {}
    let _ = fs::remove_dir(at);
}

/// What chroot leaves above, for who still has a descriptor there.
fn climb(prefix: &str) {
    let root = File::open("/").unwrap();
    let depth = |file: &File| nix::sys::stat::fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).unwrap();
    let _ = attempt(&format!("{prefix}chroot"), nix::unistd::chroot("/tmp"));
    nix::unistd::fchdir(&root).unwrap();
    (0..100).for_each(|_| std::env::set_current_dir("..").unwrap());
    let above = File::open(".").unwrap();
    attempt(&format!("{prefix}above the root"), (depth(&above) != depth(&root)).then_some(()).ok_or("the root"));
}

/// Attack 14: Remount, umount, move, bind, user namespaces, chroot.
#[apply(test)]
#[skip(unless_mount_setattr)]
fn mounts_stay_as_they_are() {
    const OPENING: [&str; 4] = ["clear read-only", "remount", "umount", "move"];
    const HARM: [&str; 4] = ["see it there", "see masked", "see moved", "write"];
    let place = shared_dir();
    let fill = |at: &Path| {
        ["read-only", "masked", "moved"].iter().for_each(|name| open_directory(&at.join(name)));
        ["masked", "moved"].iter().for_each(|name| fs::write(at.join(name).join("secret"), "secret").unwrap());
    };
    let (on_host, bound) = (place.path().join("host"), place.path().join("bound"));
    [&on_host, &bound].into_iter().for_each(|at| fill(at));
    let at = on_host.to_str().unwrap();
    let script = format!(
        "cd '{at}'; mount -t tmpfs none masked; mount -t tmpfs none moved
        mount --bind read-only read-only; mount -o remount,bind,ro read-only; ! touch read-only/file 2>&-"
    );
    let host = attack_by(&mut privately(&script, "escape", &[at]));
    host.assert_done(&OPENING);
    host.assert_done(&HARM);

    let canary = Canary::new(bound.join("read-only/canary"));
    let root = with_payload(Root::host())
        .bind_rw(&bound, "/tmp/place")
        .read_only("/tmp/place/read-only")
        .mask("/tmp/place/masked")
        .mask("/tmp/place/moved");
    let sandbox = Sandbox::new().root(root);
    for (sandbox, has_nested) in [(unfiltered(&sandbox), true), (sandbox, false)] {
        let inside = attack(&sandbox, "escape", &["/tmp/place"]);
        inside.assert_refused(&OPENING);
        inside.assert_refused(&HARM);
        inside.assert_refused(&["clear everything", "remount the root", "bind what is below", "copy what is below"]);
        inside.assert_refused(&["share", "pivot", "remount the file system"]);
        // Over an initramfs there are no user namespaces within.
        assert!((inside.get("user namespace") == "done") == has_nested || unless_pivot_root().is_some(), "{inside:?}");
        if inside.get("user namespace") == "done" {
            for attempt in
                OPENING.iter().chain(&HARM).chain(&["clear everything", "remount the root", "above the root"])
            {
                inside.assert_refused(&[&format!("nested {attempt}")]);
            }
        }
        canary.assert_unchanged(&inside);
        assert!(!bound.join("read-only/file").exists());
    }
}

/// The ids and the capabilities of a process, as the kernel says them.
fn ids(_: &[String]) -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines() {
        if let Some((key, value)) = line.split_once(":\t") {
            println!("{key}: {value}");
        }
    }
    0
}

fn ids_inside(_: &[String]) -> i32 {
    println!("CapInh of the caller: {}", attack_on_host("ids", &[]).get("CapInh"));
    println!("CapInh inside: {}", attack(&sandbox(), "ids", &[]).get("CapInh"));
    0
}

const NONE: &str = "0000000000000000";

fn assert_no_rights(attempts: &Attempts) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(attempts.get(set), NONE, "{set}");
    }
    assert_eq!(attempts.get("NoNewPrivs"), "1");
}

/// Attack 15: A set-uid program, a set-gid program, and one with capabilities.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_idmapped_mounts)]
fn set_id_and_file_capability_programs_gain_no_privileges() {
    let place = shared_dir();
    let make = |name: &str, mode: u32| {
        let path = place.path().join(name);
        fs::copy(own_path(), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let programs = [make("set-uid", 0o6755), make("capable", 0o755)];
    host_output(Host::new("setcap").arg("cap_net_raw,cap_dac_override+ep").arg(&programs[1]));
    let as_user = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let on_host = programs
        .each_ref()
        .map(|program| attack_by(Host::new("setpriv").args(as_user).arg(program).args(["--payload", "ids"])));
    assert_eq!(on_host[0].get("Uid"), "1000\t0\t0\t0");
    assert_eq!(on_host[0].get("Gid"), "1000\t0\t0\t0");
    assert_ne!(on_host[1].get("CapEff"), NONE);

    let own = attack(&sandbox(), "ids", &[]);
    let bind = Bind::new(place.path(), "/tmp/programs");
    for root in [bind.clone(), bind.clone().unmapped(), bind.writable()].map(|bind| Root::host().with(bind)) {
        for name in ["set-uid", "capable"] {
            let mut command = Command::new(format!("/tmp/programs/{name}"));
            let inside = attack_as(&Sandbox::new().root(root.clone()), command.args(["--payload", "ids"]));
            assert_no_rights(&inside);
            assert_eq!((inside.get("Uid"), inside.get("Gid")), (own.get("Uid"), own.get("Gid")), "{name}");
        }
    }
}

/// Attack 15: The caller has inheritable and ambient capabilities.
#[apply(test)]
#[only(Root)]
fn the_callers_inheritable_capabilities_are_not_inherited() {
    let own = own_path();
    let mut host = Host::new("setpriv");
    host.args(["--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"]).arg(own).args(["--payload", "ids_inside"]);
    let attempts = attack_by(&mut host);
    assert_ne!(attempts.get("CapInh of the caller"), NONE);
    assert_eq!(attempts.get("CapInh inside"), NONE);
}

/// Attack 15: Every set is empty, the bounding set too, and nothing can be gained by an exec.
#[apply(test)]
fn all_capability_sets_are_empty() {
    let host = attack_by(&mut payload_on_host("ids"));
    assert_ne!(host.get("CapBnd"), NONE);
    assert_no_rights(&attack(&sandbox(), "ids", &[]));
    assert_no_rights(&attack(&sandbox().namespaces(Namespaces::USER | Namespaces::MOUNT), "ids", &[]));
}

/// Makes device nodes, then once more as root of a user namespace of its own.
fn make_devices(_: &[String]) -> i32 {
    let make = |prefix: &str| {
        for (name, kind, number) in [("zero", SFlag::S_IFCHR, (1, 5)), ("disk", SFlag::S_IFBLK, (7, 0))] {
            let device = libc::makedev(number.0, number.1);
            let path = format!("/tmp/{prefix}{name}-{}", std::process::id());
            attempt(&format!("{prefix}{name}"), mknod(Path::new(&path), kind, Mode::from_bits_retain(0o666), device));
            let _ = fs::remove_file(path);
        }
    };
    make("");
    if attempt("user namespace", sys::unshare(libc::CLONE_NEWUSER)).is_some() {
        make("nested ");
    }
    0
}

fn open_device(args: &[String]) -> i32 {
    attempt("open", File::open(&args[0]));
    0
}

/// Attack 15: A device node that is made, or found in a bind.
#[apply(test)]
fn created_or_existing_device_nodes_cannot_be_opened() {
    if crate::support::is_root() {
        attack_on_host("make_devices", &[]).assert_done(&["zero", "disk"]);
    }
    for sandbox in [sandbox(), unfiltered(&sandbox())] {
        let made = attack(&sandbox, "make_devices", &[]);
        made.assert_refused(&["zero", "disk"]);
        if made.get("user namespace") == "done" {
            made.assert_refused(&["nested zero", "nested disk"]);
        }
    }
    let bind = Bind::new("/dev", "/tmp/dev").unmapped();
    for (bind, opens) in [(bind.clone().devices(), true), (bind.clone(), false), (bind.writable(), false)] {
        let sandbox = Sandbox::new().root(with_payload(Root::host()).with(bind));
        let attempts = attack(&sandbox, "open_device", &["/tmp/dev/zero"]);
        if opens { attempts.assert_done(&["open"]) } else { attempts.assert_refused(&["open"]) }
    }
}

/// A caller to which mount_setattr(2) is refused with an errno; with 0 it is not.
fn caller_without_mount_setattr(args: &[String]) -> i32 {
    let (errno, place) = (args[0].parse().unwrap(), Path::new(&args[1]));
    if errno != 0 {
        let rules = [(libc::SYS_mount_setattr, vec![])].into();
        let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno));
        let filter = SeccompFilter::new(rules, allow, refuse, std::env::consts::ARCH.try_into().unwrap()).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }
    let root = Root::host().bind(place.join("read-only"), "/tmp/read-only").bind_rw(place.join("out"), "/tmp/out");
    let script = "echo >/tmp/out/ran; echo >/tmp/read-only/file; :";
    attempt("a sandbox", Sandbox::new().root(root).status(Command::new("sh").args(["-c", script])));
    0
}

/// Attack 16: A kernel, or a filter of a container, that sets no flag on a mount.
#[apply(test)]
#[skip(unless_mount_setattr)]
fn a_mount_flag_that_can_not_be_had_is_an_error() {
    for errno in [0, libc::EPERM, libc::EINVAL, libc::ENOSYS] {
        let place = shared_dir();
        ["read-only", "out"].iter().for_each(|name| open_directory(&place.path().join(name)));
        let args = [&errno.to_string(), place.path().to_str().unwrap()];
        let attempts = attack_on_host("caller_without_mount_setattr", &args);
        let ran = place.path().join("out/ran").exists();
        assert_eq!(ran, attempts.get("a sandbox") == "done", "{attempts:?}");
        // A kernel without the call may be served in another way, but not by a bind that can be written to.
        assert!(!place.path().join("read-only/file").exists());
        match errno {
            0 => attempts.assert_done(&["a sandbox"]),
            libc::ENOSYS => {}
            _ => assert!(attempts.get("a sandbox").contains("mount_setattr"), "{attempts:?}"),
        }
    }
}

fn bind_writable(args: &[String]) -> i32 {
    let sandbox = Sandbox::new().root(Root::host().bind_rw(&args[0], "/tmp/bound"));
    let written = sandbox.status(Command::new("sh").args(["-c", "echo >/tmp/bound/file"]));
    attempt(
        "write",
        written
            .map_err(|error| error.to_string())
            .and_then(|outcome| outcome.success().then_some(()).ok_or_else(|| outcome.to_string())),
    );
    tell("written", Path::new(&args[0]).join("file").exists());
    0
}

/// Attack 16: The program may write, it was said, but the caller may not itself.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_read_only_mount_of_the_host_is_not_bound_writable() {
    let place = shared_dir();
    open_directory(place.path());
    let at = place.path().to_str().unwrap();
    let mount = format!("mount --bind '{at}' '{at}'");
    let run = |script: &str| attack_by(&mut privately_as_before(script, "bind_writable", &[at]));
    run(&mount).assert_done(&["write"]);
    fs::remove_file(place.path().join("file")).unwrap();
    let attempts = run(&format!("{mount}; mount -o remount,bind,ro '{at}'"));
    attempts.assert_refused(&["write"]);
    assert!(!place.path().join("file").exists());
}
