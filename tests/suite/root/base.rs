//! The bases of a root: an empty one, a directory of the host, the host's root, and the root without mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command as Host;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use stockade::{Command, Namespaces, Root};

use crate::root::{dir_with, is_read_only, names, open_dir, open_to_all, programs, sandbox, set_up, snapshot, with};
use crate::support::{fails, invalid, is_root, refused, shared_dir, stdout, text};
use stockade::ErrorKind;

#[apply(test)]
fn an_empty_root_contains_only_what_is_added() {
    let sandbox = with(programs(Root::empty()).file("/etc/name", "value"));
    let mut expected: Vec<&str> = ["bin", "lib", "lib32", "lib64", "sbin", "usr"]
        .into_iter()
        .filter(|name| Path::new("/").join(name).exists())
        .collect();
    expected.push("etc");
    expected.sort_unstable();
    assert_eq!(stdout(&sandbox, "ls -A /").lines().collect::<Vec<_>>(), expected);
    assert_eq!(stdout(&sandbox, "ls -A /etc; cat /etc/name"), "name\nvalue");
    is_read_only(&sandbox, "/file");
    is_read_only(&sandbox, "/etc/file");
}

#[apply(test)]
fn an_empty_root_has_no_programs() {
    let error = refused(&with(Root::empty()));
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(Path::new("/bin/true"))));
}

#[apply(test)]
fn a_root_can_be_made_writable() {
    let dir = dir_with(&[("data/file", "old")]);
    open_to_all(&dir.path().join("data"));
    for root in [Root::empty(), Root::from_dir(dir.path()), Root::host()] {
        let root = match root == Root::host() {
            true => root,
            false => programs(root),
        };
        let name = format!("/stockade-{}", std::process::id());
        is_read_only(&with(root.clone()), &name);
        assert_eq!(stdout(&with(root.writable()), &format!("echo new > {name} && cat {name}")), "new");
        assert!(!Path::new(&name).exists(), "it is on the host");
    }
    is_read_only(&with(programs(Root::from_dir(dir.path())).writable()), "/data/new");
    assert_eq!(names(dir.path()), ["data"]);
}

#[apply(test)]
fn a_directory_becomes_the_root() {
    let dir = dir_with(&[("file", "at the top"), ("data/inner/file", "below"), ("etc/hostname", "of the directory")]);
    let top = dir.path();
    open_to_all(&top.join("data"));
    symlink("data/inner", top.join("link")).unwrap();
    symlink("/etc/hostname", top.join("absolute")).unwrap();
    symlink("../../../etc/hostname", top.join("climbing")).unwrap();
    symlink("/nowhere", top.join("dangling")).unwrap();
    let before = snapshot(top);
    let sandbox = with(programs(Root::from_dir(top)));
    let entries = ["absolute", "climbing", "dangling", "data", "etc", "file", "link"];
    let inside = stdout(&sandbox, "ls -A /");
    let inside: Vec<&str> = inside.lines().filter(|name| entries.contains(name)).collect();
    assert_eq!(inside, entries);
    assert_eq!(stdout(&sandbox, "cat /file; echo; cat /link/file"), "at the top\nbelow");
    for link in ["absolute", "climbing"] {
        assert_eq!(stdout(&sandbox, &format!("cat /{link}")), "of the directory", "{link} leads out of the root");
    }
    assert_eq!(stdout(&sandbox, "readlink /dangling"), "/nowhere");
    fs::write(top.join("data/of-the-host"), "x").expect("on the host everybody may write there");
    fs::remove_file(top.join("data/of-the-host")).unwrap();
    is_read_only(&sandbox, "/data/new");
    is_read_only(&sandbox, "/file");
    let after = snapshot(top);
    assert!(before.keys().eq(after.keys()), "nothing is created in the directory");
}

#[apply(test)]
fn strange_names_at_the_top_are_kept() {
    let strange = ["two words", "a\nline", "back\\slash", "a:b,c", "ünï", "-n"];
    let files: Vec<(&str, &str)> = strange.iter().map(|&name| (name, name)).collect();
    let dir = dir_with(&files);
    mkfifo(&dir.path().join("fifo"), Mode::from_bits_truncate(0o644)).unwrap();
    let sandbox = with(programs(Root::from_dir(dir.path())));
    for name in strange {
        assert_eq!(stdout(&sandbox, &format!("cat -- '/{name}'")), name);
    }
    stdout(&sandbox, "test -p /fifo");
}

#[apply(test)]
fn missing_places_below_the_top_are_created_inside_alone() {
    let dir = dir_with(&[("file", "at the top")]);
    let before = snapshot(dir.path());
    let root =
        programs(Root::from_dir(dir.path())).proc("/proc").dev("/dev").tmpfs("/tmp", 1 << 20).create_dir("/a/b/c");
    assert_eq!(
        stdout(&with(root), "cat /file; test -e /proc/self && test -c /dev/null && ls -d /a/b/c"),
        "at the top/a/b/c"
    );
    assert_eq!(snapshot(dir.path()), before);
}

#[apply(test)]
fn a_root_that_is_no_directory_is_an_error() {
    let dir = dir_with(&[("file", "")]);
    let missing = set_up(&with(Root::from_dir(dir.path().join("missing"))));
    assert_eq!((missing.errno, missing.path.as_deref()), (libc::ENOENT, Some(&*dir.path().join("missing"))));
    let file = set_up(&with(Root::from_dir(dir.path().join("file"))));
    assert_eq!(file.errno, libc::ENOTDIR);
    assert!(file.remedy.contains("pass a directory"), "{}", file.remedy);
}

#[apply(test)]
fn the_host_root_can_be_inherited() {
    let dir = open_dir();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let script = format!("echo x > {}/new; wc -l < /proc/self/mountinfo", dir.path().display());
    assert_eq!(stdout(&with(Root::inherit()), &script), mounts.to_string());
    assert_eq!(names(dir.path()), ["new"]);
}

#[apply(test)]
fn a_root_that_is_kept_has_no_operations() {
    let (what, remedy) = invalid(&with(Root::inherit().tmpfs("/tmp", 1 << 20)));
    assert_eq!(what, "Root::inherit() has operations");
    assert!(remedy.contains("Root::host()"), "{remedy}");
}

/// Copies a program of the host with its libraries into a directory, at the same places.
fn copy_program(program: &str, dir: &Path) {
    let libraries = Host::new("ldd").arg(program).output().expect("ldd");
    let libraries = text(&libraries.stdout);
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for path in paths.chain([PathBuf::from(program)]) {
        let copy = dir.join(path.strip_prefix("/").expect("absolute"));
        fs::create_dir_all(copy.parent().expect("directory")).expect("directory");
        fs::copy(&path, copy).expect("copy");
    }
}

#[apply(test)]
fn without_a_mount_namespace_a_directory_is_the_root() {
    let dir = dir_with(&[("file", "of the directory")]);
    ["/bin/sh", "/bin/ls", "/bin/cat"].iter().for_each(|program| copy_program(program, dir.path()));
    let top = names(dir.path()).join("\n");
    let all = Namespaces::all() - Namespaces::MOUNT;
    let mut kinds = vec![all, Namespaces::USER];
    if is_root() {
        kinds.extend([all - Namespaces::USER, Namespaces::empty()]);
    }
    for kinds in kinds {
        let sandbox = sandbox().namespaces(kinds).root(Root::from_dir(dir.path()));
        assert_eq!(stdout(&sandbox, "pwd; ls -A /; cat /file"), format!("/\n{top}\nof the directory"), "{kinds:?}");
        assert_eq!(stdout(&sandbox, "cat /../../../file; cd ../../..; ls -A"), format!("of the directory{top}"));
        fails(&sandbox, &format!("ls {}", dir.path().display()));
    }
}

#[apply(test)]
fn chroot_needs_privileges() {
    let dir = shared_dir();
    let sandbox = sandbox().namespaces(Namespaces::empty()).root(Root::from_dir(dir.path()));
    if is_root() {
        let error = sandbox.status(Command::new("/bin/sh")).expect_err("no program");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    } else {
        let (what, remedy) = invalid(&sandbox);
        assert_eq!(what, "chroot(2) needs root, or a user namespace");
        assert!(remedy.contains("Namespaces::USER"), "{remedy}");
    }
}
