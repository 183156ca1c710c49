//! Roots that the program can write to: a directory of the host, and an overlay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;
use stockade::collect::Collector;
use stockade::mount::Overlay;
use stockade::{ErrorKind, Identity, Root, Sandbox};
use tempfile::TempDir;

use crate::root::{dir_with, is_read_only, names, programs, set_up, snapshot, unless_read_only, with};
use crate::support::{fails, in_mount_namespace, invalid, shared_dir, stdout, unless_mounts, unless_overlays};

payloads![("writable-root", writable_root_with_mounts)];

/// A directory in which the programs of the host can be mounted, with their symlinks.
fn system() -> TempDir {
    let dir = dir_with(&[("data/file", "old"), ("gone", "")]);
    for name in ["bin", "lib", "lib32", "lib64", "sbin", "usr", "proc", "dev"] {
        match fs::read_link(Path::new("/").join(name)) {
            Ok(text) => std::os::unix::fs::symlink(text, dir.path().join(name)).expect("symlink"),
            Err(_) => fs::create_dir(dir.path().join(name)).expect("directory"),
        }
    }
    dir
}

/// The programs of the host in a root that has mount points for them.
fn with_programs(root: Root) -> Sandbox {
    with(programs(root))
}

#[apply(test)]
fn a_directory_that_is_the_root_can_be_written_to() {
    let dir = system();
    let sandbox = with_programs(Root::from_dir_rw(dir.path()).proc("/proc").dev("/dev"));
    let script =
        "echo new > /new; echo changed > /data/file; mkdir /made; rm /gone; cat /proc/self/comm; : > /dev/null";
    assert_eq!(stdout(&sandbox, script), "cat");
    for name in ["new", "made", "data/file"] {
        assert_eq!(fs::metadata(dir.path().join(name)).unwrap().uid(), geteuid().as_raw(), "{name}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("data/file")).unwrap(), "changed\n");
    assert!(!dir.path().join("gone").exists());
    // What is bound in it stays read-only.
    fails(&sandbox, "> /usr/new");
    is_read_only(&with_programs(Root::from_dir(dir.path())), "/data/file");
}

#[apply(test)]
fn mount_points_are_not_created_in_a_writable_root_of_the_host() {
    let dir = system();
    let before = names(dir.path());
    let failed = set_up(&with_programs(Root::from_dir_rw(dir.path()).tmpfs("/missing", 1 << 20)));
    assert_eq!((failed.errno, failed.path.as_deref()), (libc::EROFS, Some(Path::new("/missing"))));
    assert_eq!(names(dir.path()), before);
}

#[apply(test)]
fn what_cannot_be_a_writable_root_is_an_error() {
    let dir = system();
    let (what, _) = invalid(&with(Root::from_dir_rw(dir.path().join("data/file"))));
    assert!(what.contains("not a directory"), "{what}");
    std::os::unix::fs::symlink("data", dir.path().join("link")).unwrap();
    let failed = set_up(&with(Root::from_dir_rw(dir.path().join("link"))));
    assert_eq!(failed.errno, libc::ELOOP);
    assert_eq!(set_up(&with(Root::from_dir_rw("/nonexistent"))).errno, libc::ENOENT);
    let overlay = Overlay::new("/o").lower(dir.path());
    let (what, remedy) = invalid(&with(Root::from_overlay(overlay)));
    assert!(what.contains("is at /o") && remedy.contains("Overlay::new(\"/\")"), "{what}: {remedy}");
}

fn writable_root_with_mounts(args: &[String]) -> i32 {
    let dir = Path::new(&args[0]);
    let sandbox = with_programs(Root::from_dir_rw(dir));
    assert_eq!(stdout(&sandbox, "echo new > /rw/new; cat /ro/file /rw/new"), "x\nnew");
    is_read_only(&sandbox, "/ro/file");
    // What a later operation puts over a mount is not made writable in its place.
    let over = |root: Root| with_programs(root.bind(dir.join("data"), "/rw"));
    is_read_only(&over(Root::from_dir_rw(dir)), "/rw/later");
    if unless_read_only().is_none() {
        is_read_only(&with_programs(Root::from_dir_rw(dir).read_only("/rw")), "/rw/later");
    }
    assert_eq!((names(dir.join("rw")), names(dir.join("data"))), (vec!["new".to_owned()], vec!["file".to_owned()]));
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn mounts_in_a_writable_root_that_are_read_only_stay_so() {
    let dir = system();
    let (ro, rw) = (shared_dir(), shared_dir());
    fs::write(ro.path().join("file"), "x\n").unwrap();
    for (name, source) in [("ro", &ro), ("rw", &rw)] {
        fs::create_dir(dir.path().join(name)).unwrap();
        crate::root::open_to_all(source.path());
    }
    let script = format!(
        "cd {} && mount --bind {} ro && mount -o remount,bind,ro ro && mount --bind {} rw",
        dir.path().display(),
        ro.path().display(),
        rw.path().display()
    );
    in_mount_namespace(&script, "writable-root", dir.path());
}

#[apply(test)]
#[skip(unless_overlays)]
fn changes_to_an_overlay_that_is_the_root_are_in_memory() {
    let dir = system();
    let before = snapshot(dir.path());
    let root = Root::from_overlay(Overlay::new("/").lower(dir.path())).proc("/proc").tmpfs("/made/by/operation", 4096);
    let sandbox = with_programs(root);
    for sandbox in [sandbox.clone(), sandbox.identity(Identity::caller())] {
        let script =
            "cat /data/file; echo; echo new > /data/file; echo new > /new; rm /gone; cat /data/file /new; ls /made/by";
        assert_eq!(stdout(&sandbox, script), "old\nnew\nnew\noperation");
        fails(&sandbox, "> /usr/new");
    }
    assert_eq!(snapshot(dir.path()), before);
    let small = with_programs(Root::from_overlay(Overlay::new("/").lower(dir.path()).upper_tmpfs(1 << 20)));
    assert!(
        fails(&small, "head -c 2000000 /dev/zero > /new || head -c 2000000 /usr/bin/env > /new; cat /usr/bin/* > /new")
            .contains("No space")
    );
}

#[apply(test)]
#[skip(unless_overlays)]
fn changes_to_an_overlay_that_is_the_root_are_collected() {
    let (dir, layers) = (system(), shared_dir());
    let [upper, work] = ["upper", "work"].map(|name| layers.path().join(name));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let overlay = Overlay::new("/").lower(dir.path()).upper(&upper, &work);
    let sandbox = with_programs(Root::from_overlay(overlay.clone()));
    stdout(&sandbox, "echo new > /new; mkdir /made; echo changed > /data/file; rm /gone");
    assert_eq!(stdout(&sandbox, "cat /new /data/file; test ! -e /gone"), "new\nchanged");
    // Nothing is created for operations.
    let failed = set_up(&with_programs(Root::from_overlay(overlay).tmpfs("/missing", 4096)));
    assert_eq!(failed.errno, libc::EROFS);
    let kept = layers.path().join("kept");
    let collected = Collector::new().copy(&upper, &kept).unwrap();
    assert_eq!(
        (names(&kept), names(kept.join("data"))),
        (vec!["data".into(), "made".into(), "new".into()], vec!["file".into()])
    );
    assert_eq!(collected.skipped.len(), 1, "the whiteout of the removed file: {:?}", collected.skipped);
    assert_eq!(fs::read_to_string(dir.path().join("data/file")).unwrap(), "old");
    crate::support::let_go_of_work(&work);
}

#[apply(test)]
fn names_are_completed_in_a_root_that_is_a_writable_directory_or_an_overlay() {
    let (dir, layers) = (system(), shared_dir());
    let [upper, work] = ["upper", "work"].map(|name| layers.path().join(name));
    for dir in [&dir.path().join("etc"), &upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    let mut roots = vec![Root::from_dir_rw(dir.path())];
    if unless_overlays().is_none() {
        let overlay = || Overlay::new("/").lower(dir.path());
        roots.extend([overlay(), overlay().upper(&upper, &work)].map(Root::from_overlay));
    }
    for root in roots {
        let unnamed = with_programs(root.clone().bind("/etc", "/etc"));
        assert!(!stdout(&unnamed, "cat /etc/hosts").contains("127.0.0.1\tsandbox"));
        let named = with_programs(root.bind("/etc", "/etc").network_names().user_names());
        assert_eq!(stdout(&named, "head -n 1 /etc/hosts; echo > /new"), "127.0.0.1\tsandbox");
        stdout(&named, "grep -q \"^[^:]*:[^:]*:$(id -u):\" /etc/passwd");
        is_read_only(&named.identity(Identity::caller()), "/etc/hosts");
    }
    assert_eq!(names(dir.path().join("etc")), [""; 0]);
    crate::support::let_go_of_work(&work);
}

#[apply(test)]
fn an_operation_is_not_the_root() {
    for root in [Root::host().overlay("/usr", "/"), Root::host().bind_rw("/tmp", "/")] {
        let error = crate::support::refused(&with(root));
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
        assert!(error.to_string().contains("Root::from_overlay"), "{error}");
    }
}
