//! Sandboxes in a sandbox: programs of [`Sandbox::nestable`] that use this crate, and what such a program still cannot
//! do.

use stockade::capabilities::Capability;
use stockade::mount::Bind;
use stockade::outcome::GapKind;
use stockade::{Capabilities, Command, Landlock, Namespaces, Outcome, Root, Sandbox, Seccomp, profile};

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use crate::support::{
    PAYLOAD, fails, invalid, payload, sh, stdout, text, unless_landlock_since, unless_mount_setattr, unless_pivot_root,
    with_payload,
};

payloads![("nest", nest), ("replace_protected", replace_protected), ("change_mounts", change_mounts)];

/// What a caller needs that is not root and whose sandboxes have users of their own.
const RIGHTS: [Capability; 8] = [
    Capability::SysAdmin,
    Capability::Setuid,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Kill,
    Capability::Chown,
    Capability::DacOverride,
    Capability::NetAdmin,
];

/// A sandbox by the words of its description. `source`: where this binary is.
fn described(words: &str, source: &str) -> Sandbox {
    let has = |word| words.split('+').any(|known| known == word);
    let programs = Root::empty().bind("/usr", "/usr").symlink("usr/bin", "/bin").symlink("usr/sbin", "/sbin");
    let libraries = programs.symlink("usr/lib", "/lib").symlink("usr/lib64", "/lib64");
    let root = if has("empty") { libraries.proc("/proc").dev("/dev").tmpfs("/tmp", 1 << 20) } else { Root::host() };
    let capabilities = Capabilities::none().keep(RIGHTS.into_iter().filter(|_| has("rights")));
    let dropped = if has("dropping") { capabilities.clone().drop_on_setuid() } else { capabilities };
    let namespaces = Namespaces::all() - Namespaces::TIME;
    let sandbox = Sandbox::new()
        .root(root.with(Bind::new(source, PAYLOAD).unmapped()))
        .namespaces(if has("rights") { namespaces - Namespaces::USER } else { namespaces })
        .capabilities(dropped);
    if has("nestable") { sandbox.nestable() } else { sandbox }
}

/// Runs a sandbox, in it the next one, and so on.
fn nest(descriptions: &[String]) -> i32 {
    let Some((first, others)) = descriptions.split_first() else {
        println!("innermost of {}", std::process::id());
        return 0;
    };
    let mut command = payload("nest");
    command.args(others);
    match described(first, PAYLOAD).output(command) {
        Ok(output) => {
            print!("{}{}", text(&output.stdout), text(&output.stderr));
            i32::from(!output.outcome.success())
        }
        Err(error) => {
            print!("{error}");
            1
        }
    }
}

/// What the innermost of several sandboxes prints, or the error of one of them.
fn nested(descriptions: &[&str]) -> (Outcome, String) {
    let mut command = payload("nest");
    command.args(&descriptions[1..]);
    let output = described(descriptions[0], crate::support::own_path().to_str().unwrap()).output(command).unwrap();
    (output.outcome, text(&output.stdout))
}

fn assert_nests(descriptions: &[&str]) {
    let (outcome, said) = nested(descriptions);
    assert!(outcome.success() && said == "innermost of 2", "{descriptions:?}: {outcome}: {said}");
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn sandboxes_nest() {
    assert_nests(&["nestable", "plain"]);
    assert_nests(&["nestable", "empty"]);
    assert_nests(&["nestable+empty", "empty"]);
    assert_nests(&["nestable", "nestable", "nestable", "plain"]);
}

#[apply(test)]
fn a_sandbox_that_is_not_nestable_denies_another() {
    let (outcome, said) = nested(&["plain", "plain"]);
    assert!(!outcome.success(), "{said}");
    assert!(said.starts_with("failed to create the namespaces: unshare: Operation not permitted (EPERM)"), "{said}");
}

/// Each program with the caller's user has an eighth of the caller's namespaces.
#[apply(test)]
#[skip(unless_pivot_root)]
fn the_quota_at_which_nesting_ends_is_named() {
    let (outcome, said) = nested(&["nestable"; 20]);
    assert!(!outcome.success() && said.contains("No space left on device (ENOSPC): "), "{said}");
    assert!(said.contains("user.max_") && said.contains("_namespaces") && said.contains("sysctl -w"), "{said}");
}

/// The filter of the agent lets no program install filters of its own.
#[apply(test)]
#[skip(unless_pivot_root)]
fn a_filter_that_denies_filters_is_named() {
    let agent = profile::agent().nestable();
    let sandbox = agent.map_root(|root| root.with(Bind::new(crate::support::own_path(), PAYLOAD).unmapped()));
    let mut command = payload("nest");
    let output = sandbox.output(command.arg("plain")).unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("seccomp: Invalid argument (EINVAL): a seccomp filter denies it"), "{said}");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_pivot_root)]
fn sandboxes_with_capabilities_of_the_host_nest() {
    assert_nests(&["nestable+rights", "plain"]);
    assert_nests(&["nestable+rights", "nestable+rights", "rights"]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_pivot_root)]
fn locked_securebits_that_a_sandbox_cannot_have_are_named() {
    for descriptions in [["nestable+rights", "rights+dropping"], ["nestable+rights+dropping", "rights"]] {
        let (_, said) = nested(&descriptions);
        assert!(said.starts_with("the securebits of the caller are locked (0x"), "{descriptions:?}: {said}");
    }
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn nested_namespaces_reveal_and_change_nothing() {
    let secret = tempfile::tempdir().unwrap();
    let place = std::fs::canonicalize(secret.path()).unwrap();
    std::fs::write(place.join("file"), "secret").unwrap();
    let file = place.join("file");
    let root = with_payload(Root::host()).bind(&place, "/srv").mask("/srv/file");
    let shown = Sandbox::new().root(Root::host().bind(&place, "/srv"));
    assert_eq!(stdout(&shown, "cat /srv/file"), "secret", "without the mask it is read");
    let sandbox = Sandbox::new().root(root).nestable();
    let script = "unshare --user --map-root-user --mount sh -c '
        umount /srv/file && echo unmounted; umount -l /srv && echo detached; grep secret /srv/file
        mount -o remount,bind,rw /srv && echo writable; touch /srv/new && echo written
        mount -t tmpfs none /mnt && echo mounted'";
    assert_eq!(stdout(&sandbox, script), "mounted", "mounts are allowed, and those of the sandbox stay");
    assert!(file.exists() && !place.join("new").exists());
}

#[apply(test)]
#[only(User)]
#[skip(unless_pivot_root)]
fn keys_of_the_caller_are_visible_only_where_sandboxes_nest() {
    let lists_keys = |sandbox: &Sandbox| {
        let outcome = sh(sandbox, "cat /proc/keys").outcome;
        let is_said = outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Keys);
        (outcome.success(), is_said)
    };
    assert_eq!(lists_keys(&Sandbox::new().nestable()), (true, true));
    assert_eq!(lists_keys(&Sandbox::new()), (false, false));
    assert!(fails(&Sandbox::new(), "cat /proc/keys").contains("Permission denied"));
}

#[apply(test)]
#[skip(unless_pivot_root)]
fn what_prevents_nesting_is_refused() {
    let nestable = Sandbox::new().nestable();
    let (what, remedy) = invalid(&nestable.clone().landlock(Landlock::new().read_only("/")));
    assert_eq!(what, "Landlock rules deny mounts, which a sandbox in the sandbox needs");
    assert_eq!(remedy, "remove Sandbox::landlock, or remove Sandbox::nestable");
    let (_, remedy) = invalid(&nestable.clone().namespaces(Namespaces::USER | Namespaces::MOUNT));
    assert_eq!(remedy, "add Namespaces::PID, or remove Sandbox::nestable");
    let writable = Root::host().bind_rw("/srv", "/srv");
    let git = Root::host().git_workspace("/srv", "/srv");
    for root in [writable.clone().protect("/srv/file"), writable.read_only("/srv/file"), git] {
        let (what, _) = invalid(&nestable.clone().root(root));
        assert!(what.contains("can replace a path"), "{what}");
    }
    assert!(nestable.status(Command::new("true")).unwrap().success());
}

fn unless_pivot_root_and_protection() -> Option<String> {
    unless_pivot_root().or_else(unless_mount_setattr)
}

/// Makes a system call with numbers and pointers as arguments, and returns its result, or -1.
macro_rules! syscall {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: all pointers are to values that live during the call.
        unsafe { libc::syscall($number $(, $argument)*) }
    };
}

const CWD: libc::c_long = libc::AT_FDCWD as libc::c_long;
const NONE: *const u8 = std::ptr::null();

/// Goes on in new user and mount namespaces, which a system call creates.
fn in_own_namespaces(create: &str) -> bool {
    const KINDS: libc::c_int = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let clone_args: [u64; 11] = [KINDS as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
    let child = match create {
        "unshare" => syscall!(libc::SYS_unshare, KINDS),
        "clone" => syscall!(libc::SYS_clone, KINDS | libc::SIGCHLD, 0, 0, 0, 0),
        _ => syscall!(libc::SYS_clone3, clone_args.as_ptr(), size_of_val(&clone_args)),
    };
    if child > 0 {
        let mut status = 0;
        syscall!(libc::SYS_wait4, child, &mut status, 0, 0);
        std::process::exit(libc::WEXITSTATUS(status));
    }
    let write = |file: &str, text: String| fs::write(Path::new("/proc/self").join(file), text).is_ok();
    child == 0
        && write("uid_map", format!("0 {user} 1"))
        && write("setgroups", "deny".into())
        && write("gid_map", format!("0 {group} 1"))
}

/// Mounts something on a directory, by one of several ways.
fn mount_on(target: &CStr, how: &str) {
    let target = target.as_ptr();
    let attach = |mount: libc::c_long| syscall!(libc::SYS_move_mount, mount, c"".as_ptr(), CWD, target, 4);
    match how {
        "mount" => {
            syscall!(libc::SYS_mount, c"none".as_ptr(), target, c"tmpfs".as_ptr(), 0, NONE);
        }
        "fsmount" => {
            let fs = syscall!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0);
            syscall!(libc::SYS_fsconfig, fs, 6, NONE, NONE, 0);
            attach(syscall!(libc::SYS_fsmount, fs, 0, 0));
        }
        _ => {
            attach(syscall!(libc::SYS_open_tree, CWD, c"/tmp".as_ptr(), libc::OPEN_TREE_CLONE));
        }
    }
}

/// Replaces a protected path: in a mount namespace in which the mounts of the sandbox are detached.
fn replace_protected(args: &[String]) -> i32 {
    let [create, how] = args else { return 2 };
    std::env::set_current_dir("/srv").unwrap();
    if !in_own_namespaces(create) {
        return 1;
    }
    mount_on(c"/mnt", how);
    let _ = fs::create_dir("/mnt/old");
    syscall!(libc::SYS_pivot_root, c"/mnt".as_ptr(), c"/mnt/old".as_ptr());
    syscall!(libc::SYS_umount2, c"/old".as_ptr(), libc::MNT_DETACH);
    i32::from(fs::rename("kept", "replaced").is_err())
}

#[apply(test)]
#[skip(unless_pivot_root_and_protection)]
fn paths_that_a_program_can_replace_are_reported() {
    let place = crate::support::shared_dir();
    let path = place.path().canonicalize().unwrap();
    fs::create_dir(path.join("kept")).unwrap();
    let root = with_payload(Root::host()).bind_rw(&path, "/srv").protect("/srv/kept");
    let replaces = |policy: Seccomp, create: &str, how: &str| {
        let sandbox = Sandbox::new().root(root.clone()).seccomp(policy);
        let mut command = payload("replace_protected");
        let outcome = sandbox.status(command.args([create, how])).unwrap();
        let is_replaced = fs::rename(path.join("replaced"), path.join("kept")).is_ok();
        assert_eq!(is_replaced, outcome.success(), "{outcome}");
        (is_replaced, outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::ProtectedPaths))
    };
    let mounts: [(&str, &[&str]); 3] = [
        ("mount", &["mount"]),
        ("fsmount", &["fsopen", "fsconfig", "fsmount", "move_mount"]),
        ("open_tree", &["open_tree", "move_mount"]),
    ];
    let changes = ["pivot_root", "umount2"];
    for create in ["unshare", "clone", "clone3"] {
        for (how, calls) in mounts {
            let policy = Seccomp::new().allow([create]).allow(calls.iter().copied()).allow(changes);
            assert_eq!(replaces(policy, create, how), (true, true), "by {create} and {how}");
        }
        assert_eq!(replaces(Seccomp::unconfined(), create, "mount"), (true, true), "by {create}");
        assert_eq!(replaces(Seccomp::new(), create, "mount"), (false, false), "by {create}");
        assert_eq!(replaces(Seccomp::new().allow([create]), create, "mount"), (false, false), "without mounts");
    }
    let without_namespaces = Seccomp::new().allow(["mount", "pivot_root", "umount2"]);
    assert_eq!(replaces(without_namespaces, "unshare", "mount"), (false, false));
}

/// Makes a read-only bind writable, or uncovers what a mask hides, by the capability that the program keeps.
fn change_mounts(args: &[String]) -> i32 {
    let (bind, mask) = (c"/srv".as_ptr(), c"/srv/file".as_ptr());
    let mut tree = -1;
    match args[0].as_str() {
        "mount" => {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOSUID | libc::MS_NODEV;
            syscall!(libc::SYS_mount, NONE, bind, NONE, flags, NONE);
        }
        "umount2" => {
            syscall!(libc::SYS_umount2, mask, libc::MNT_DETACH);
        }
        "mount_setattr" => {
            let attributes = [0, libc::MOUNT_ATTR_RDONLY, 0, 0];
            syscall!(libc::SYS_mount_setattr, CWD, bind, 0, attributes.as_ptr(), 32);
        }
        "move_mount" => {
            syscall!(libc::SYS_move_mount, CWD, mask, CWD, c"/etc/passwd".as_ptr(), 0);
        }
        _ => {
            // Without what is mounted in it.
            tree = syscall!(libc::SYS_open_tree, CWD, bind, libc::OPEN_TREE_CLONE);
        }
    }
    let is_secret = |path: String| fs::read_to_string(path).is_ok_and(|text| text == "secret");
    let is_shown = is_secret("/srv/file".into()) || is_secret(format!("/proc/self/fd/{tree}/file"));
    let is_changed = fs::create_dir("/srv/new").is_ok();
    i32::from(!(is_shown || is_changed))
}

fn unless_pivot_root_and_landlock() -> Option<String> {
    unless_pivot_root_and_protection().or_else(|| unless_landlock_since((6, 12)))
}

#[apply(test)]
#[skip(unless_pivot_root_and_landlock)]
fn mounts_that_a_program_can_change_are_reported() {
    let place = crate::support::shared_dir();
    let path = place.path().canonicalize().unwrap();
    fs::write(path.join("file"), "secret").unwrap();
    let root = with_payload(Root::host()).bind(&path, "/srv").mask("/srv/file");
    let admin = Capabilities::none().keep([Capability::SysAdmin]);
    let changes = |sandbox: &Sandbox, how: &str| {
        let mut command = payload("change_mounts");
        let outcome = sandbox.clone().root(root.clone()).status(command.arg(how)).unwrap();
        let _ = fs::remove_dir(path.join("new"));
        (outcome.success(), outcome.enforcement.gaps.iter().any(|gap| gap.kind == GapKind::Mounts))
    };
    let everything = Landlock::new().read_write("/").any_tcp().any_signal().any_abstract_socket();
    let keeps = |sandbox: Sandbox| sandbox.capabilities(admin.clone());
    // Where the filter allows no other call, the Landlock rules that cut off FIFOs may deny umount2(2).
    let unmounts = keeps(Sandbox::new().seccomp(Seccomp::new().allow(["umount2"])));
    assert!(changes(&unmounts, "umount2").1);
    for how in ["mount", "umount2", "mount_setattr", "move_mount", "open_tree"] {
        let also = (how == "umount2").then_some("mount");
        let allowed = Sandbox::new().seccomp(Seccomp::new().allow([how].into_iter().chain(also)));
        assert_eq!(changes(&keeps(allowed.clone()), how), (true, true), "{how}");
        assert_eq!(changes(&allowed, how), (false, false), "{how} without the capability");
        assert_eq!(changes(&keeps(Sandbox::new()), how), (false, false), "{how} with the default policy");
        assert_eq!(changes(&keeps(Sandbox::new().nestable()), how), (true, true), "{how}, nestable");
        assert_eq!(changes(&Sandbox::new().nestable(), how), (false, false), "{how}, nestable without the capability");
        let is_unrestricted = ["mount_setattr", "open_tree"].contains(&how);
        let (is_changed, is_reported) = changes(&keeps(allowed).landlock(everything.clone()), how);
        assert_eq!(is_reported, is_unrestricted, "{how} under Landlock");
        assert!(!is_changed || is_reported, "{how} under Landlock");
    }
}
