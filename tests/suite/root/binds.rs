//! Trees and files of the host, read-only and writable.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use stockade::mount::Bind;
use stockade::{Command, Landlock, Root};

use crate::root::{
    dir_with, is_read_only, names, open_dir, open_to_all, programs, set_up, unless_read_only, unless_writable_tmpfs,
    with, with_mount,
};
use crate::support::{
    fails, in_mount_namespace, invalid, is_root, shared_dir, stdout, unless_landlock_since, unless_mounts,
};
use stockade::Errno;
use stockade::ErrorKind;

payloads![
    ("recursive", recursive),
    ("writable-submounts", writable_submounts),
    ("covered", covered),
    ("stays-read-only", stays_read_only),
    ("read-only-source", read_only_source),
    ("later-over-submounts", later_over_submounts),
];

#[apply(test)]
fn binds_are_read_only() {
    let dir = dir_with(&[("sub/file", "old")]);
    open_to_all(&dir.path().join("sub"));
    let sandbox = with(Root::host().bind(dir.path(), "/d"));
    assert_eq!(stdout(&sandbox, "cat /d/sub/file"), "old");
    is_read_only(&sandbox, "/d/sub/file");
    is_read_only(&sandbox, "/d/sub/new");
    for change in ["rm /d/sub/file", "mkdir /d/sub/dir", "chmod 777 /d/sub", "ln /d/sub/file /d/sub/link"] {
        assert!(fails(&sandbox, change).contains(crate::root::READ_ONLY), "{change}");
    }
    assert_eq!(names(dir.path().join("sub")), ["file"]);
}

#[apply(test)]
fn writable_binds_write_to_the_host() {
    let dir = dir_with(&[("file", "old"), ("sub/file", "old")]);
    let script = "echo new > /d/file; echo new > /d/sub/new; mkdir /d/dir; mv /d/sub/file /d/dir/moved; rm -r /d/sub";
    stdout(&with(Root::host().bind_rw(dir.path(), "/d")), script);
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(dir.path().join("dir/moved")).unwrap(), "old");
    assert_eq!(names(dir.path()), ["dir", "file"]);
}

#[apply(test)]
fn files_are_bound_over_files_and_where_there_are_none() {
    let dir = dir_with(&[("file", "text of the file"), ("over", "covered")]);
    let file = dir.path().join("file");
    let root = Root::host()
        .bind(&file, "/new/place")
        .bind(&file, "/etc/passwd")
        .bind(dir.path(), "/d")
        .bind(&file, "/d/over")
        .bind_rw(&file, "/writable");
    let script = "cat /new/place /etc/passwd /d/over; echo changed > /writable; cat /d/file";
    assert_eq!(stdout(&with(root.clone()), script), "text of the file".repeat(3) + "changed");
    assert_eq!(fs::read_to_string(&file).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(dir.path().join("over")).unwrap(), "covered");
    is_read_only(&with(root), "/new/place");
}

#[apply(test)]
fn a_mount_point_of_another_type_is_an_error() {
    let dir = dir_with(&[("file", ""), ("dir/file", "")]);
    let (file, tree) = (dir.path().join("file"), dir.path().join("dir"));
    for (source, target) in [(&file, "/usr"), (&tree, "/etc/passwd")] {
        let failed = set_up(&with(Root::host().bind(source, target)));
        assert_eq!((failed.errno, failed.path.as_deref()), (libc::EINVAL, Some(Path::new(target))));
        assert!(failed.remedy.contains("directory"), "{}", failed.remedy);
    }
}

#[apply(test)]
fn symlinks_at_the_source_are_followed() {
    let dir = dir_with(&[("real/file", "text")]);
    symlink("real", dir.path().join("link")).unwrap();
    symlink("real/file", dir.path().join("file-link")).unwrap();
    let root = Root::host().bind(dir.path().join("link"), "/d").bind(dir.path().join("file-link"), "/f");
    assert_eq!(stdout(&with(root), "cat /d/file /f; test -L /f || test -L /d || echo no link"), "texttextno link");
}

#[apply(test)]
fn a_relative_source_is_below_the_working_directory() {
    let dir = dir_with(&[("file", "text")]);
    let cwd = std::env::current_dir().unwrap().canonicalize().unwrap();
    let up: PathBuf = cwd.components().skip(1).map(|_| "..").collect();
    let relative = up.join(dir.path().canonicalize().unwrap().strip_prefix("/").unwrap());
    assert!(relative.is_relative());
    assert_eq!(stdout(&with(Root::host().bind(relative, "/d")), "cat /d/file"), "text");
}

#[apply(test)]
fn a_missing_source_is_an_error() {
    let dir = shared_dir();
    let missing = dir.path().join("missing");
    for root in [Root::host().bind(&missing, "/d"), Root::host().bind_rw(&missing, "/d")] {
        let error = with(root).spawn(Command::new("true")).unwrap_err();
        assert_eq!((error.io_kind(), error.path()), (std::io::ErrorKind::NotFound, Some(&*missing)));
        assert!(error.hint().is_some_and(|remedy| remedy.contains("exists on the host")), "{error}");
        let said = error.to_string();
        assert!(said.contains(&*missing.to_string_lossy()) && said.contains("(ENOENT)"), "{said}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[apply(test)]
#[only(User)]
fn an_inaccessible_source_is_an_error() {
    let failed = set_up(&with(Root::host().bind("/proc/1/root", "/d")));
    assert_eq!(failed.errno, libc::EACCES);
    assert!(failed.remedy.contains("the caller can reach"), "{}", failed.remedy);
}

#[apply(test)]
fn paths_of_a_source_may_be_strange() {
    for strange in ["two words", "a\nline", "back\\slash", "a:b,c=d", "ünï", "\\040"] {
        let dir = dir_with(&[(&format!("{strange}/file"), strange)]);
        let target = format!("/{strange}");
        let sandbox = with(Root::host().bind_rw(dir.path().join(strange), &target));
        assert_eq!(stdout(&sandbox, &format!("cat '{target}/file' && echo new > '{target}/new'")), strange);
        assert_eq!(names(dir.path().join(strange)), ["file", "new"]);
    }
}

#[apply(test)]
fn one_source_can_be_bound_at_many_places() {
    let dir = dir_with(&[("sub/file", "old")]);
    let sub = dir.path().join("sub");
    let root = (0..20).fold(Root::host().bind(dir.path(), "/d"), |root, number| root.bind(&sub, format!("/{number}")));
    let sandbox = with(root.bind_rw(&sub, "/d/sub"));
    assert_eq!(stdout(&sandbox, "cat /0/file /19/file; echo new > /d/sub/file; cat /7/file"), "oldoldnew");
    is_read_only(&sandbox, "/0/file");
    is_read_only(&sandbox, "/d/file");
}

/// Whether `/d/program` runs.
fn executes(bind: Bind) -> bool {
    let sandbox = with_mount(bind);
    match sandbox.status(Command::new("/d/program")) {
        Ok(outcome) => outcome.success(),
        Err(error) if error.kind() == ErrorKind::NotExecutable => {
            assert_eq!(error.errno(), Some(Errno::EACCES));
            assert!(fails(&sandbox, "/d/program").contains("Permission denied"));
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[apply(test)]
fn noexec_denies_execution() {
    let dir = shared_dir();
    fs::copy("/bin/true", dir.path().join("program")).unwrap();
    assert!(executes(Bind::new(dir.path(), "/d")));
    assert!(!executes(Bind::new(dir.path(), "/d").noexec()));
    assert!(executes(Bind::new(dir.path(), "/d").writable()));
    assert!(!executes(Bind::new(dir.path(), "/d").writable().noexec()));
}

#[apply(test)]
fn device_nodes_work_if_allowed() {
    let write = "echo x > /d/null && cat /d/null";
    let said = fails(&with_mount(Bind::new("/dev", "/d")), write);
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(stdout(&with_mount(Bind::new("/dev", "/d").devices()), write), "");
    // A file that is bound takes the same way.
    assert!(fails(&with_mount(Bind::new("/dev/zero", "/zero")), "head -c 1 /zero").contains("Permission denied"));
    assert_eq!(stdout(&with_mount(Bind::new("/dev/zero", "/zero").devices()), "head -c 9 /zero | wc -c"), "9");
}

/// Mounts below a directory that everybody may write to, as the host has them: some with names that are escaped in
/// `/proc/self/mountinfo`, one on top of another, one below another.
const SUBMOUNTS: &str = "
    mkdir \"$dir/plain\" \"$dir/two words\" \"$dir/back\\\\slash\" \"$dir/covered\"
    for sub in \"$dir/plain\" \"$dir/two words\" \"$dir/back\\\\slash\" \"$dir/covered\" \"$dir/covered\"; do
        mount -t tmpfs -o mode=777 none \"$sub\"
    done
    mkdir \"$dir/plain/below\"
    mount -t tmpfs -o mode=777 none \"$dir/plain/below\"";

const PLACES: [&str; 6] = ["", "/plain", "/plain/below", "/two words", "/back\\slash", "/covered"];

#[apply(test)]
#[skip(unless_mounts)]
fn read_only_binds_are_recursive() {
    in_mount_namespace(SUBMOUNTS, "recursive", open_dir().path());
}

fn recursive(args: &[String]) -> i32 {
    let sandboxes = [(with(Root::host().bind(&args[0], "/d")), "/d"), (with(programs(Root::from_dir(&args[0]))), "")];
    for place in PLACES {
        fs::write(format!("{}{place}/file", args[0]), "seen").expect("on the host everybody may write there");
        for (sandbox, dir) in &sandboxes {
            assert_eq!(stdout(sandbox, &format!("cat '{dir}{place}/file'")), "seen");
            is_read_only(sandbox, &format!("{dir}{place}/new"));
            is_read_only(sandbox, &format!("{dir}{place}/file"));
        }
    }
    0
}

#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn submounts_of_a_writable_bind_are_writable() {
    in_mount_namespace(SUBMOUNTS, "writable-submounts", shared_dir().path());
}

fn writable_submounts(args: &[String]) -> i32 {
    let sandbox = with(Root::host().bind_rw(&args[0], "/d"));
    for place in PLACES {
        stdout(&sandbox, &format!("echo new > '/d{place}/new'"));
        assert!(Path::new(&format!("{}{place}/new", args[0])).exists(), "{place}");
    }
    0
}

#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn covered_mounts_are_ignored() {
    // One mount on top of the source, another on top of a directory above it.
    let script = "mkdir -p \"$dir/top/sub\" \"$dir/above/source/sub\"
        mount -t tmpfs none \"$dir/top/sub\"; mount -t tmpfs none \"$dir/above/source/sub\"
        mount -t tmpfs -o mode=777 none \"$dir/top\"
        mount -t tmpfs -o mode=755 none \"$dir/above\"; mkdir -m 777 \"$dir/above/source\"";
    in_mount_namespace(script, "covered", shared_dir().path());
}

fn covered(args: &[String]) -> i32 {
    for source in ["top", "above/source"].map(|name| Path::new(&args[0]).join(name)) {
        let read_only = with(Root::host().bind(&source, "/d"));
        is_read_only(&read_only, "/d/new");
        assert_eq!(stdout(&with(Root::host().bind_rw(&source, "/d")), "echo x > /d/new; ls /d"), "new");
        assert_eq!(names(source), ["new"]);
    }
    0
}

#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn read_only_sources_stay_read_only() {
    let script = "cd \"$dir\"; mkdir a b c
        mount -t tmpfs -o mode=777 none a; mkdir a/below; mount -t tmpfs -o mode=777 none a/below
        mount -o remount,bind,ro a
        mount -t tmpfs -o mode=777,ro none b
        mount -t tmpfs -o mode=777 none c; mkdir -m 777 c/dir; mount --bind c/dir c/dir; mount -o remount,bind,ro c/dir
        cd /";
    in_mount_namespace(script, "stays-read-only", shared_dir().path());
}

fn stays_read_only(args: &[String]) -> i32 {
    let sandbox = with(Root::host().bind_rw(&args[0], "/d"));
    for place in ["/d/a", "/d/b", "/d/c/dir"] {
        is_read_only(&sandbox, &format!("{place}/new"));
    }
    for place in ["/d", "/d/a/below", "/d/c"] {
        stdout(&sandbox, &format!("echo new > {place}/new"));
    }
    0
}

/// What a later operation puts over a submount of a writable bind, over a directory above it, or by a symlink that a
/// program could have created.
#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn a_later_operation_over_a_submount_of_a_writable_bind_is_not_made_writable() {
    let script = "cd \"$dir\"; mkdir -m 777 other other/y data data/x data/dir data/dir/y; ln -s x data/link
        for sub in data/x data/dir/y; do mount -t tmpfs -o mode=777 none $sub; done; cd /";
    in_mount_namespace(script, "later-over-submounts", shared_dir().path());
}

fn later_over_submounts(args: &[String]) -> i32 {
    let [data, other] = ["data", "other"].map(|name| Path::new(&args[0]).join(name));
    let bound = || Root::host().bind_rw(&data, "/data");
    stdout(&with(bound()), "echo x > /data/x/new; echo x > /data/dir/y/new");
    let over = |target| with(bound().bind(&other, target));
    let mut covered = vec![
        (over("/data/x"), "/data/x"),
        (over("/data/link"), "/data/x"),
        (over("/data/dir"), "/data/dir/y"),
        (over("/data"), "/data/y"),
    ];
    if unless_read_only().is_none() {
        let read_only = |target| with(bound().read_only(target));
        covered.extend([
            (read_only("/data/x"), "/data/x"),
            (read_only("/data/link"), "/data/x"),
            (read_only("/data/dir"), "/data/dir/y"),
            (read_only("/data"), "/data/dir/y"),
        ]);
        if unless_landlock_since((6, 2)).is_none() {
            let rules = || {
                let rules = Landlock::new().read_only("/").read_write("/data");
                rules.any_tcp().any_abstract_socket().any_signal()
            };
            covered.push((with(bound()).landlock(rules().deny_write("/data/x")), "/data/x"));
            covered.push((with(bound()).landlock(rules().deny_write("/data/dir")), "/data/dir/y"));
        }
    }
    for (sandbox, place) in &covered {
        is_read_only(sandbox, &format!("{place}/new"));
    }
    for masked in ["/data/x", "/data/dir"] {
        for script in ["chmod 777", "mkdir -m 777", "ls"] {
            fails(&with(bound().mask(masked)), &format!("{script} {masked}"));
        }
    }
    // What is not covered is writable, and what covers nothing changes nothing.
    stdout(&over("/data/x"), "echo x > /data/new; echo x > /data/dir/y/new");
    stdout(&with(bound().create_dir("/made")), "echo x > /data/x/new; echo x > /data/dir/y/new");
    assert_eq!((names(&other), names(other.join("y"))), (vec!["y".to_owned()], vec![]));
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_source_that_the_host_has_read_only_is_not_made_writable() {
    let script =
        "mount -t tmpfs -o mode=777 none \"$dir\"; mkdir -m 777 \"$dir/sub\"; mount -o remount,bind,ro \"$dir\"";
    in_mount_namespace(script, "read-only-source", shared_dir().path());
}

fn read_only_source(args: &[String]) -> i32 {
    for source in [args[0].clone(), format!("{}/sub", args[0])] {
        stdout(&with(Root::host().bind(&source, "/d")), "ls /d");
        let (what, remedy) = invalid(&with(Root::host().bind_rw(&source, "/d")));
        assert!(what.contains("cannot be bound writable") && what.contains(&source), "{what}");
        assert!(remedy.contains("bind it read-only"), "{remedy}");
    }
    0
}

#[apply(test)]
fn a_descriptor_is_a_source() {
    let dir = dir_with(&[("file", "old"), ("sub/file", "deep")]);
    open_to_all(dir.path());
    let open = |path: &Path| fs::File::open(path).unwrap();
    let path = nix::fcntl::open(dir.path(), nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
    let root = Root::host()
        .with(Bind::from_fd(open(dir.path()), "/d"))
        .with(Bind::from_fd(path, "/path"))
        .with(Bind::from_fd(open(&dir.path().join("file")), "/file"))
        .with(Bind::from_fd(open(&dir.path().join("sub")), "/sub").writable());
    let sandbox = with(root);
    let script = "cat /d/file /path/sub/file /file; echo new > /sub/new; ls /proc/self/fd";
    assert_eq!(stdout(&sandbox, script), "olddeepold0\n1\n2\n3");
    is_read_only(&sandbox, "/d/file");
    is_read_only(&sandbox, "/d/sub/new");
    is_read_only(&sandbox, "/file");
    assert_eq!(fs::read_to_string(dir.path().join("sub/new")).unwrap(), "new\n");
}

#[apply(test)]
fn a_descriptor_is_bound_and_not_what_is_at_its_path_now() {
    let dir = dir_with(&[("d/file", "right")]);
    let opened = fs::File::open(dir.path().join("d")).unwrap();
    let sandbox = with(Root::host().with(Bind::from_fd(opened, "/d")));
    let compiled = sandbox.plan(Command::new("grep").args(["-q", "right", "/d/file"])).unwrap();
    // Renamed before it is compiled: it is where it is now.
    fs::rename(dir.path().join("d"), dir.path().join("moved")).unwrap();
    assert_eq!(stdout(&sandbox, "cat /d/file"), "right");
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/file"), "wrong").unwrap();
    assert_eq!(stdout(&sandbox, "cat /d/file"), "right");
    // Replaced after it was compiled.
    match compiled.spawn() {
        Ok(mut child) => assert!(is_root() && child.wait().unwrap().success()),
        Err(error) => {
            assert!(!is_root() && error.errno() == Some(Errno::new(libc::EAGAIN)), "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("another file")), "{error}");
        }
    }
}

#[apply(test)]
fn a_descriptor_without_a_path_is_an_error() {
    let dir = dir_with(&[("file", ""), ("removed", "")]);
    let removed = fs::File::open(dir.path().join("removed")).unwrap();
    fs::remove_file(dir.path().join("removed")).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let memory = nix::sys::memfd::memfd_create(c"name", nix::sys::memfd::MFdFlags::empty()).unwrap();
    for fd in [removed.into(), reader.into(), memory] {
        let fd: std::os::fd::OwnedFd = fd;
        let error = with_mount(Bind::from_fd(fd, "/d")).plan(Command::new("true")).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    }
}
