//! Single files, symlinks, directories, masks, and read-only paths.

use std::fs;
use std::path::Path;

use stockade::mount::{Mode, Operation, Tmpfs};
use stockade::{Command, Errno, Root};

use crate::root::{dir_with, is_read_only, names, sandbox, set_up, snapshot, with, with_mount};
use crate::support::{fails, invalid, sh, shared_dir, stdout, text};

#[apply(test)]
fn files_have_their_bytes() {
    let bytes: Vec<u8> = (0..=255).chain([0, 0, b'\n']).collect();
    let sandbox = with(Root::host().file("/etc/new-place", "for the top").file("/deep/in/it", bytes.clone()));
    // The first place is on the host's file system.
    assert!(sandbox.status(stockade::Command::new("true")).is_err());
    let sandbox = with(Root::host().file("/deep/in/it", bytes.clone()).file("/empty", ""));
    assert_eq!(sh(&sandbox, "cat /deep/in/it /empty").stdout, bytes);
    assert_eq!(stdout(&sandbox, "stat -c '%a %s' /deep/in/it /empty"), "444 259\n444 0");
    is_read_only(&sandbox, "/deep/in/it");
    assert!(fails(&sandbox, "rm /deep/in/it").contains(crate::root::READ_ONLY));
}

#[apply(test)]
fn files_of_all_sizes_are_whole() {
    for size in [4095, 4096, 65_536, 1 << 20, (1 << 20) + 1] {
        let bytes: Vec<u8> = (0..size).map(|at: usize| (at / 7 % 251) as u8).collect();
        let output = sh(&with(Root::host().file("/file", bytes.clone())), "cat /file");
        assert!(output.stdout == bytes, "{size} bytes, of which came {}", output.stdout.len());
    }
    let many = (0..50).fold(Root::host(), |root, n| root.file(format!("/files/{n}"), format!("{n}\n")));
    let expected: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(stdout(&with(many), "cat /files/* | sort -n"), expected.join("\n"));
}

#[apply(test)]
fn a_file_covers_one_of_the_hosts() {
    let before = fs::read("/etc/passwd").unwrap();
    let sandbox = with(Root::host().file("/etc/passwd", "me:x:1000:1000::/:/bin/sh\n"));
    assert_eq!(stdout(&sandbox, "cat /etc/passwd"), "me:x:1000:1000::/:/bin/sh");
    is_read_only(&sandbox, "/etc/passwd");
    assert_eq!(fs::read("/etc/passwd").unwrap(), before);
    let dir = dir_with(&[("file", "old")]);
    let sandbox = with(Root::host().bind_rw(dir.path(), "/d").file("/d/file", "new"));
    assert_eq!(stdout(&sandbox, "cat /d/file; echo x > /d/other"), "new");
    is_read_only(&sandbox, "/d/file");
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "old");
}

#[apply(test)]
fn a_file_has_its_mode() {
    let script = |mode| {
        let contents = b"#!/bin/sh\necho ran\n".to_vec();
        with_mount(Operation::file("/script", contents, Mode::new(mode)))
    };
    assert_eq!(stdout(&script(0o555), "/script; stat -c %a /script"), "ran\n555");
    assert!(fails(&script(0o444), "/script").contains("Permission denied"));
    assert!(fails(&script(0o000), "cat /script").contains("Permission denied"));
}

#[apply(test)]
fn a_mode_has_permissions_alone() {
    for operation in [Operation::file("/a", "", 0o100_644), Operation::create_dir("/a", 0o40_755)] {
        let (what, remedy) = invalid(&with(Root::host().with(operation)));
        assert!(what.contains("\"/a\"") && remedy.contains("0o7777"), "{what}: {remedy}");
    }
    let (what, _) = invalid(&with(Root::host().with(Tmpfs::new("/a").mode(0o10_000))));
    assert!(what.contains("10000"), "{what}");
}

#[apply(test)]
fn symlinks_say_their_text_and_lead_inside() {
    let root = Root::host()
        .file("/real/file", "text")
        .symlink("/real/file", "/link")
        .symlink("../../real", "/deep/er/link")
        .symlink("nowhere\nat all", "/dangling")
        .tmpfs("/t", 1 << 20)
        .symlink("file", "/t/link");
    let sandbox = with(root);
    assert_eq!(stdout(&sandbox, "cat /link /deep/er/link/file; echo new > /t/link; cat /t/file"), "texttextnew");
    assert_eq!(stdout(&sandbox, "readlink /dangling; readlink /deep/er/link"), "nowhere\nat all\n../../real");
}

#[apply(test)]
fn a_symlink_does_not_replace_anything() {
    for link in ["/etc", "/etc/passwd", "/bin"] {
        let failed = set_up(&with(Root::host().symlink("text", link)));
        assert_eq!(failed.path.as_deref(), Some(std::path::Path::new(link)));
        assert!([libc::EEXIST, libc::EROFS].contains(&failed.errno) && !failed.remedy.is_empty(), "{}", failed.errno);
    }
}

#[apply(test)]
fn directories_are_made_with_their_mode() {
    let sandbox = with(Root::host().create_dir("/a/b").with(Operation::create_dir("/c", 0o1770)));
    assert_eq!(stdout(&sandbox, "stat -c %a /a /a/b /c"), "755\n755\n1770");
    stdout(&with(Root::host().create_dir("/etc")), "test -e /etc/passwd");
}

#[apply(test)]
fn a_mask_hides_a_file() {
    let dir = dir_with(&[("file", "secret"), ("other", "public")]);
    let sandbox = with(Root::host().bind_rw(dir.path(), "/d").mask("/d/file").mask("/etc/passwd"));
    assert_eq!(stdout(&sandbox, "cat /d/other; test -f /d/file && test -f /etc/passwd"), "public");
    for script in ["cat /d/file", "cat /etc/passwd", "> /d/file", "chmod 666 /d/file", "rm /d/file", "mv /d/file /d/f"]
    {
        fails(&sandbox, script);
    }
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "secret");
}

#[apply(test)]
fn a_mask_hides_a_directory_and_what_is_mounted_in_it() {
    let dir = dir_with(&[("dir/file", "secret")]);
    let root = Root::host().bind_rw(dir.path(), "/d").tmpfs("/t", 1 << 20).file("/t/dir/file", "secret");
    stdout(&with(root.clone()), "cat /d/dir/file /t/dir/file");
    let sandbox = with(root.mask("/d/dir").mask("/t/dir"));
    for masked in ["/d/dir", "/t/dir"] {
        for script in ["ls -A", "cd", "chmod 777", "rmdir", "mkdir -m 777"] {
            fails(&sandbox, &format!("{script} {masked}"));
        }
        fails(&sandbox, &format!("cat {masked}/file"));
        fails(&sandbox, &format!("> {masked}/new"));
    }
    assert_eq!(names(dir.path().join("dir")), ["file"]);
}

#[apply(test)]
fn masking_a_missing_path_changes_nothing() {
    let dir = dir_with(&[("file", "")]);
    let before = snapshot(dir.path());
    let root = Root::host().bind_rw(dir.path(), "/d").mask("/d/missing").mask("/missing/too").mask("/d/file/below");
    assert_eq!(stdout(&with(root), "ls -A /d; test ! -e /missing"), "file");
    assert_eq!(snapshot(dir.path()), before);
}

#[apply(test)]
#[skip(super::unless_read_only)]
fn read_only_denies_writes() {
    let dir = dir_with(&[("sub/file", "old"), ("file", "old")]);
    let writable = Root::host().bind_rw(dir.path(), "/d").tmpfs("/t", 1 << 20).create_dir("/t/sub");
    stdout(&with(writable.clone()), "echo x > /d/sub/new; rm /d/sub/new; echo x > /t/sub/new");
    let sandbox = with(writable.read_only("/d/sub").read_only("/d/file").read_only("/t"));
    for path in ["/d/sub/new", "/d/sub/file", "/d/file", "/t/new", "/t/sub/new"] {
        is_read_only(&sandbox, path);
    }
    assert_eq!(stdout(&sandbox, "cat /d/sub/file /d/file; echo x > /d/new"), "oldold");
    assert_eq!(names(dir.path()), ["file", "new", "sub"]);
}

#[apply(test)]
#[skip(super::unless_read_only)]
fn read_only_applies_to_earlier_operations_only() {
    let dir = shared_dir();
    let root = Root::host()
        .tmpfs("/t", 1 << 20)
        .tmpfs("/t/before", 1 << 20)
        .create_dir("/t/after")
        .bind_rw(dir.path(), "/t/bound")
        .read_only("/t")
        .tmpfs("/t/after", 1 << 20);
    let sandbox = with(root);
    for place in ["/t", "/t/before", "/t/bound"] {
        is_read_only(&sandbox, &format!("{place}/new"));
    }
    stdout(&sandbox, "echo x > /t/after/new");
    assert_eq!(names(dir.path()), [""; 0]);
}

#[apply(test)]
#[skip(super::unless_read_only)]
fn read_only_of_a_missing_path_is_an_error() {
    let failed = set_up(&with(Root::host().read_only("/missing")));
    assert_eq!((failed.step.as_str(), failed.errno), ("make read-only", libc::ENOENT));
}

#[cfg(feature = "_testing")]
#[apply(test)]
fn read_only_is_refused_where_it_would_not_be_recursive() {
    let (what, remedy) = invalid(&with(Root::host().tmpfs("/t", 1 << 20).read_only("/t")).as_on_kernel(5, 11));
    assert!(what.contains("mount_setattr(2)") && remedy.contains("Linux 5.12"), "{what}: {remedy}");
}

#[apply(test)]
fn later_operations_cover_earlier_ones() {
    let (one, other) = (dir_with(&[("sub/file", "one")]), dir_with(&[("sub/file", "other")]));
    let bound = |first: &tempfile::TempDir, second: &tempfile::TempDir| {
        with(Root::host().bind(first.path(), "/d").bind(second.path(), "/d"))
    };
    assert_eq!(stdout(&bound(&one, &other), "cat /d/sub/file"), "other");
    assert_eq!(stdout(&bound(&other, &one), "cat /d/sub/file"), "one");
    let (sub, tree) = (other.path().join("sub"), one.path());
    let inner_last = Root::host().bind(tree, "/d").bind(&sub, "/d/sub");
    assert_eq!(stdout(&with(inner_last), "cat /d/sub/file"), "other");
    let inner_first = Root::host().bind(&sub, "/d/sub").bind(tree, "/d");
    assert_eq!(stdout(&with(inner_first), "cat /d/sub/file"), "one");
    let emptied = Root::host().bind(tree, "/d").tmpfs("/d", 1 << 20);
    assert_eq!(stdout(&with(emptied), "ls -A /d"), "");
    let files = Root::host().file("/file", "first").file("/file", "second");
    assert_eq!(stdout(&with(files), "cat /file"), "second");
    let unmasked = Root::host().bind(tree, "/d").mask("/d").bind(other.path(), "/d");
    assert_eq!(text(&sh(&with(unmasked), "cat /d/sub/file").stdout), "other");
    assert_eq!(
        stdout(&sandbox().root(Root::host().tmpfs("/usr/bin", 4096).bind("/usr/bin", "/usr/bin")), "echo back"),
        "back"
    );
}

#[apply(test)]
fn writable_files_are_private_copies() {
    let root = Root::host().file_rw("/settings", "old\n").with(Operation::file_rw("/dir/script", "#!/bin/sh\n", 0o700));
    let sandbox = with(root.file_rw("/etc/passwd", "me\n"));
    let script = "echo new >> /settings; cat /settings; echo echo ran >> /dir/script; /dir/script; > /etc/passwd; \
                  cat /etc/passwd; stat -c '%a %s' /settings /dir/script; test -O /settings -a -O /dir/script";
    assert_eq!(stdout(&sandbox, script), "old\nnew\nran\n644 8\n700 19");
    // Each run has copies of its own.
    assert_eq!(stdout(&sandbox, "cat /settings"), "old");
    assert!(fs::read("/etc/passwd").unwrap().len() > 3);
    let in_tmpfs = with(Root::host().tmpfs("/t", 1 << 20).file_rw("/t/file", ""));
    assert!(fails(&in_tmpfs, "rm /t/file").contains("busy"));
    assert!(fails(&sandbox, "head -c 80M /dev/zero > /settings").contains("No space"));
}

#[apply(test)]
fn a_directory_is_not_created_over_a_file() {
    let root = Root::host().file("/file", "").symlink("file", "/to-file").create_dir("/dir").symlink("dir", "/to-dir");
    stdout(&with(root.clone().create_dir("/dir").create_dir("/to-dir")), "test -d /dir");
    for path in ["/file", "/to-file", "/etc/passwd"] {
        let failed = set_up(&with(root.clone().create_dir(path)));
        assert_eq!((failed.path.as_deref(), failed.errno), (Some(std::path::Path::new(path)), libc::EEXIST));
    }
}

#[apply(test)]
fn an_equal_symlink_is_accepted_and_another_one_is_named() {
    let dir = dir_with(&[]);
    std::os::unix::fs::symlink("in the bind", dir.path().join("link")).unwrap();
    let base = dir_with(&[]);
    std::os::unix::fs::symlink("in the base", base.path().join("link")).unwrap();
    std::os::unix::fs::symlink("pid:[1]", dir.path().join("dangling")).unwrap();
    let host = || Root::host().bind(dir.path(), "/d");
    let cases = [
        (host().symlink("a", "/link"), "/link", "a"),
        (host().symlink("a/b", "/x//./link/"), "/x/link", "a/b"),
        (host(), "/d/link", "in the bind"),
        (host(), "/d/dangling", "pid:[1]"),
        (host(), "/dev/stdin", "/proc/self/fd/0"),
    ];
    for (root, link, text) in cases {
        let again = with(root.clone().symlink(text, link).symlink(text, link));
        assert_eq!(stdout(&again, &format!("readlink {link}")), text);
        let failed = set_up(&with(root.symlink("another", link)));
        assert_eq!((failed.path.as_deref(), failed.errno), (Some(std::path::Path::new(link)), libc::EEXIST));
        for named in [text, "another"] {
            assert!(failed.remedy.contains(&format!("{named:?}")), "{link}: {}", failed.remedy);
        }
    }
    let base = || with(Root::from_dir(base.path()).symlink("in the base", "/link"));
    assert!(!crate::support::is_set_up(&crate::support::refused(&base())), "only the program is missing");
    // What covers a symlink has none.
    let covered = Root::host().symlink("a", "/t/link").tmpfs("/t", 1 << 20).symlink("b", "/t/link");
    assert_eq!(stdout(&with(covered), "readlink /t/link"), "b");
}

#[apply(test)]
fn a_symlink_that_has_changed_since_it_was_accepted_is_an_error() {
    let dir = dir_with(&[]);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("text", &link).unwrap();
    let sandbox = with(Root::host().bind_rw(dir.path(), "/d").symlink("text", "/d/link"));
    let compiled = sandbox.plan(Command::new("ln").args(["-sfn", "/etc/x", "/d/link"])).unwrap();
    let mut runs = 0;
    let mut check = |errno: Option<i32>| match (compiled.spawn(), errno) {
        (Ok(mut child), None) => {
            assert!(child.wait().unwrap().success());
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("/etc/x"));
            runs += 1;
        }
        (Err(error), Some(errno)) => {
            assert_eq!((error.errno(), error.path()), (Some(Errno::new(errno)), Some(Path::new("/d/link"))), "{error}");
            assert!(
                error.hint().is_some_and(|hint| hint.contains("there now") || hint.contains("now it is")),
                "{error}"
            );
        }
        (result, errno) => panic!("{result:?} and not {errno:?}"),
    };
    check(None);
    check(Some(libc::EAGAIN));
    for text in ["te", "texT", "text1", "text and so on"] {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(text, &link).unwrap();
        check(Some(libc::EAGAIN));
    }
    fs::remove_file(&link).unwrap();
    fs::write(&link, "text").unwrap();
    check(Some(libc::EINVAL));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("text", &link).unwrap();
    check(None);
    assert_eq!(runs, 2);
}
