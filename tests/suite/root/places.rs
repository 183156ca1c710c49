//! The targets of operations on a root: beneath the root, and never by creating a file on the host.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use stockade::Root;
use stockade::mount::{Bind, Operation, Overlay, Proc, Tmpfs};

use crate::root::{dir_with, names, programs, set_up, snapshot, with};
use crate::support::{invalid, stdout, unless_overlays};

/// Each operation that needs a place, there; all but the mask, which needs none, and `read_only`, which makes none.
fn operations(target: &Path, source: &Path) -> Vec<(&'static str, Operation)> {
    let mut operations: Vec<(_, Operation)> = vec![
        ("bind", Bind::new(source, target).into()),
        ("bind_rw", Bind::new(source, target).writable().into()),
        ("file bind", Bind::new(source.join("file"), target).into()),
        ("tmpfs", Tmpfs::new(target).into()),
        ("overlay", Overlay::new(target).lower(source).into()),
        ("proc", Proc::new(target).into()),
        ("dev", Operation::Dev(target.into())),
        ("file", Operation::file(target, "text", 0o444)),
        ("symlink", Operation::symlink("text", target)),
        ("directory", Operation::create_dir(target, 0o755)),
    ];
    operations.retain(|(name, _)| *name != "overlay" || unless_overlays().is_none());
    operations
}

/// That no operation works at a place which would have to be created on the host's file system, and that the error
/// says what to do.
fn is_refused(root: &Root, target: &str, source: &Path) {
    for (name, mount) in operations(Path::new(target), source) {
        let failed = set_up(&with(root.clone().with(mount)));
        assert_eq!(
            (failed.errno, failed.path.as_deref()),
            (libc::EROFS, Some(Path::new(target))),
            "{name} at {target}"
        );
        assert!(
            failed.remedy.contains("nothing is created") && failed.remedy.contains("create it there on the host"),
            "{name} at {target}: {}",
            failed.remedy
        );
    }
}

#[apply(test)]
fn nothing_is_created_on_the_hosts_file_system() {
    let source = dir_with(&[("file", "")]);
    for target in ["/usr/stockade-missing", "/etc/stockade-missing/below"] {
        is_refused(&Root::host(), target, source.path());
    }
    assert!(!Path::new("/usr/stockade-missing").exists() && !Path::new("/etc/stockade-missing").exists());
}

#[apply(test)]
fn nothing_is_created_in_a_writable_bind() {
    let (source, dir) = (dir_with(&[("file", "")]), dir_with(&[("sub/file", "")]));
    let before = snapshot(dir.path());
    let root = Root::host().bind_rw(dir.path(), "/d");
    for target in ["/d/missing", "/d/sub/missing", "/d/missing/below"] {
        is_refused(&root, target, source.path());
    }
    assert_eq!(snapshot(dir.path()), before);
    // Once they are there, they are taken.
    fs::create_dir(dir.path().join("missing")).unwrap();
    assert_eq!(stdout(&with(root.bind(source.path(), "/d/missing")), "ls /d/missing"), "file");
}

#[apply(test)]
fn nothing_is_created_in_a_directory_that_is_the_root() {
    let (source, dir) = (dir_with(&[("file", "")]), dir_with(&[("sub/file", "")]));
    let before = snapshot(dir.path());
    let root = programs(Root::from_dir(dir.path()));
    for target in ["/sub/missing", "/sub/missing/below"] {
        is_refused(&root, target, source.path());
    }
    for (_, mount) in operations(Path::new("/missing"), source.path()) {
        stdout(&with(root.clone().with(mount)), "ls -d /missing");
    }
    assert_eq!(snapshot(dir.path()), before);
}

#[apply(test)]
fn a_place_is_an_absolute_path_below_the_root() {
    let source = dir_with(&[("file", "")]);
    let zero = PathBuf::from(OsString::from_vec(b"/with\0zero".to_vec()));
    let places = [
        (PathBuf::from("relative/place"), "it is relative"),
        (PathBuf::from(""), "it is relative"),
        (PathBuf::from("/usr/../place"), "it contains `..`"),
        (PathBuf::from("/.."), "it contains `..`"),
        (zero, "it contains a zero byte"),
        (PathBuf::from("/"), "it is the root itself"),
        (PathBuf::from("/."), "it is the root itself"),
    ];
    for (place, why) in places {
        let mut all = operations(&place, source.path());
        all.extend([("mask", Operation::Mask(place.clone())), ("read_only", Operation::ReadOnly(place.clone()))]);
        for (name, mount) in all {
            let (what, remedy) = invalid(&with(Root::host().with(mount)));
            assert!(
                what.contains(why) && what.contains("is not a valid path in a sandbox"),
                "{name} at {place:?}: {what}"
            );
            assert!(remedy.contains("absolute path"), "{remedy}");
        }
    }
}

#[apply(test)]
fn a_mount_point_can_be_written_in_several_ways() {
    let source = dir_with(&[("file", "text")]);
    for target in ["/d/e/", "//d//e", "/./d/./e/."] {
        assert_eq!(stdout(&with(Root::host().bind(source.path(), target)), "cat /d/e/file"), "text", "{target}");
    }
    for strange in ["two words", "a\nline", "back\\slash", "a:b,c=d", "-", "\\040", "..."] {
        let sandbox = with(Root::host().bind(source.path(), format!("/{strange}/place")));
        assert_eq!(stdout(&sandbox, &format!("cat '/{strange}/place/file'")), "text", "{strange:?}");
    }
}

#[apply(test)]
fn mount_points_resolve_symlinks_inside() {
    let source = dir_with(&[("file", "text")]);
    let dir = dir_with(&[("real/sub/file", "covered")]);
    symlink("/real", dir.path().join("absolute")).unwrap();
    symlink("../../../../real", dir.path().join("climbing")).unwrap();
    let before = snapshot(dir.path());
    for through in ["absolute", "climbing"] {
        let root = programs(Root::from_dir(dir.path())).bind(source.path(), format!("/{through}/sub"));
        assert_eq!(stdout(&with(root), "cat /real/sub/file"), "text", "through {through}");
    }
    let own = programs(Root::empty()).create_dir("/real").symlink("real", "/link").bind(source.path(), "/link/new");
    assert_eq!(stdout(&with(own), "cat /real/new/file"), "text");
    assert_eq!(snapshot(dir.path()), before);
    assert_eq!(names(source.path()), ["file"]);
}
