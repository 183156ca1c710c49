//! Declared inputs: they are visible, and nothing else of their directories.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use stockade::mount::{Bind, HostPath, Inputs};
use stockade::{Command, Errno, ErrorKind, Root, Sandbox};
use tempfile::TempDir;

use crate::root::{dir_with, is_read_only, sandbox, snapshot, unless_read_only};
use crate::support::{self, fails, invalid, on_host, refused, stdout};

payloads![("caller_with_many_inputs", caller_with_many_inputs)];

fn unless_mapped() -> Option<String> {
    unless_read_only().or_else(support::unless_idmapped_mounts)
}

fn with(inputs: Inputs) -> Sandbox {
    sandbox().root(Root::host().with(inputs))
}

/// A directory with files, a directory, and a symlink.
fn sources() -> TempDir {
    let dir = dir_with(&[("a.c", "a"), ("undeclared.h", "no"), ("only-root", "private")]);
    fs::create_dir_all(dir.path().join("lib/deep")).expect("directories");
    for name in ["lib/b.h", "lib/undeclared.h", "lib/deep/c.h"] {
        fs::write(dir.path().join(name), name).expect("a file");
    }
    symlink("lib/b.h", dir.path().join("link.h")).expect("a symlink");
    dir
}

#[apply(test)]
#[skip(unless_read_only)]
fn declared_files_are_visible_and_no_others() {
    let dir = sources();
    let before = snapshot(dir.path());
    let all = stdout(&sandbox().root(Root::host().bind(dir.path(), "/in")), "cd /in; find . -type f | wc -l");
    assert_eq!(all, "6", "without it");
    let sandbox = with(Inputs::new("/in").files(dir.path(), ["a.c", "lib/b.h", "link.h", "lib/deep/c.h"]));
    let found = "cd /in; find . | sort; cat a.c lib/b.h link.h lib/deep/c.h; readlink link.h; stat -c %a lib .";
    let expected = ".\n./a.c\n./lib\n./lib/b.h\n./lib/deep\n./lib/deep/c.h\n./link.h\nalib/b.hlib/b.hlib/deep/c.hlib/b.h\n755\n755";
    assert_eq!(stdout(&sandbox, found), expected);
    for path in ["undeclared.h", "lib/undeclared.h"] {
        assert!(fails(&sandbox, &format!("cat /in/{path}")).contains("No such file"), "{path}");
    }
    assert_eq!(snapshot(dir.path()), before, "nothing is written on the host");
}

#[apply(test)]
#[skip(unless_read_only)]
fn inputs_are_read_only() {
    let dir = sources();
    fs::set_permissions(dir.path().join("a.c"), fs::Permissions::from_mode(0o666)).expect("permissions");
    let sandbox = with(Inputs::new("/in").files(dir.path(), ["a.c", "lib"]));
    for path in ["/in/a.c", "/in/lib/b.h", "/in/new", "/in/lib/new"] {
        is_read_only(&sandbox, path);
    }
    for script in ["rm /in/a.c", "mv /in/a.c /in/b.c", "chmod 600 /in/a.c", "ln /in/a.c /tmp/a", "mkdir /in/d"] {
        fails(&sandbox, script);
    }
    assert_eq!(fs::read_to_string(dir.path().join("a.c")).expect("the file"), "a");
}

#[apply(test)]
#[skip(unless_read_only)]
fn a_directory_is_shown_with_everything_in_it() {
    let dir = sources();
    let sandbox = with(Inputs::new("/in").files(dir.path(), ["lib"]));
    assert_eq!(stdout(&sandbox, "cd /in; find . -type f | sort"), "./lib/b.h\n./lib/deep/c.h\n./lib/undeclared.h");
}

#[apply(test)]
#[skip(unless_read_only)]
fn inputs_of_several_directories_have_other_names() {
    let (dir, other) = (sources(), dir_with(&[("1f2e", "generated"), ("zz", "z")]));
    let inputs = Inputs::new("/in").files(dir.path(), ["a.c", "lib/b.h"]);
    let inputs = inputs.files_as(other.path(), [("1f2e", "lib/generated.h"), ("zz", "z/z/z")]);
    let script = "cd /in; find . -type f | sort; cat lib/generated.h";
    assert_eq!(stdout(&with(inputs), script), "./a.c\n./lib/b.h\n./lib/generated.h\n./z/z/z\ngenerated");
}

#[apply(test)]
#[skip(unless_read_only)]
fn names_are_bytes() {
    let dir = support::shared_dir();
    let names = [&b"\xff\xfe"[..], b"two words", b"new\nline", b"-x", b"\"quoted'", b"\\134", "\u{e9}".as_bytes()];
    let paths = names.map(|name| PathBuf::from(OsStr::from_bytes(name)));
    for path in &paths {
        fs::write(dir.path().join(path), path.as_os_str().as_bytes()).expect("a file");
    }
    let sandbox = with(Inputs::new("/in").files(dir.path(), paths.clone()));
    for path in paths {
        let output = sandbox.output(Command::new("cat").arg(Path::new("/in").join(&path))).expect("an outcome");
        assert_eq!(output.stdout, path.as_os_str().as_bytes(), "{path:?}");
    }
}

#[apply(test)]
#[skip(unless_read_only)]
fn outputs_can_be_bound_among_the_inputs() {
    let (dir, out) = (sources(), support::shared_dir());
    let root = Root::host().inputs(dir.path(), "/in", ["a.c"]).with(Bind::new(out.path(), "/in/out/new").writable());
    assert_eq!(
        stdout(&sandbox().root(root), "cp /in/a.c /in/out/new/a; ! touch /in/out/b 2>/dev/null && ls /in"),
        "a.c\nout"
    );
    assert_eq!(fs::read_to_string(out.path().join("a")).expect("the output"), "a");
}

/// A symlink to a file of the host does not lead out of the sandbox.
#[apply(test)]
#[skip(unless_read_only)]
fn symlinks_do_not_lead_to_the_host() {
    let (dir, secret) = (sources(), dir_with(&[("secret", "42")]));
    symlink(secret.path().join("secret"), dir.path().join("evil.h")).expect("a symlink");
    symlink(secret.path(), dir.path().join("evil")).expect("a symlink");
    // A bind follows it.
    let bound = sandbox().root(Root::host().bind(dir.path().join("evil.h"), "/in/evil.h"));
    assert_eq!(stdout(&bound, "cat /in/evil.h"), "42");
    let sandbox = with(Inputs::new("/in").files(dir.path(), ["evil.h"]));
    assert!(fails(&sandbox, "cat /in/evil.h").contains("No such file"));
    let error = refused(&with(Inputs::new("/in").files(dir.path(), ["evil/secret"])));
    assert_eq!((error.kind(), error.errno()), (ErrorKind::SetupFailed, Some(Errno::ELOOP)), "{error}");
    let beneath = HostPath::beneath(dir.path(), "evil");
    let error = refused(&with(Inputs::new("/in").files(beneath, ["secret"])));
    assert_eq!(error.errno(), Some(Errno::ELOOP), "{error}");
}

#[apply(test)]
#[skip(unless_read_only)]
fn a_missing_input_is_named() {
    let dir = sources();
    for path in ["missing.h", "lib/missing.h", "missing/a.h"] {
        let error = refused(&with(Inputs::new("/in").files(dir.path(), ["a.c", path])));
        assert_eq!((error.kind(), error.errno()), (ErrorKind::SetupFailed, Some(Errno::ENOENT)), "{error}");
        assert_eq!(error.path(), Some(&*dir.path().join(path)));
        assert_eq!(error.step(), Some("find the input"));
    }
}

#[apply(test)]
#[skip(unless_read_only)]
fn impossible_inputs_are_refused() {
    let dir = sources();
    let _socket = UnixListener::bind(dir.path().join("socket")).expect("a socket");
    let input = |path: &str| Inputs::new("/in").files(dir.path(), [path]);
    for (inputs, says) in [
        (input("/etc/passwd"), "\"/etc/passwd\" is not a valid path of an input"),
        (input("../a.c"), "\"../a.c\" is not a valid path of an input"),
        (input(""), "\"\" is not a valid path of an input"),
        (input("lib/../a.c"), "\"lib/../a.c\" is not a valid path of an input"),
        (input("a\0c"), "\"a\\0c\" is not a valid path of an input"),
        (input("lib").files(dir.path(), ["lib/b.h"]), "the input /in/lib/b.h is inside another: /in/lib"),
        (
            input("lib/b.h").files(dir.path(), ["lib/b.h"]),
            "the input /in/lib/b.h is declared twice, from two directories: /in/lib/b.h",
        ),
        (input("a.c").files_as(dir.path(), [("lib/b.h", "a.c/b")]), "the input /in/a.c/b is inside another: /in/a.c"),
    ] {
        assert_eq!(invalid(&with(inputs)).0, says);
    }
    let socket = dir.path().join("socket").display().to_string();
    assert_eq!(invalid(&with(input("socket"))).0, format!("the input {socket} is a socket, a FIFO or a device"));
    let file = dir.path().join("a.c");
    let says = format!("the inputs are from {}, which is not a directory", file.display());
    assert_eq!(invalid(&with(Inputs::new("/in").files(&file, ["x"]))).0, says);
    // Names that begin alike are not inside one another.
    fs::write(dir.path().join("lib.h"), "").expect("a file");
    assert_eq!(stdout(&with(Inputs::new("/in").files(dir.path(), ["lib", "lib.h"])), "ls /in"), "lib\nlib.h");
}

/// The rights of a file are those in a bind of its directory.
#[apply(test)]
#[only(Root)]
#[skip(unless_mapped)]
fn owners_are_mapped_as_in_a_bind() {
    let dir = sources();
    fs::set_permissions(dir.path().join("only-root"), fs::Permissions::from_mode(0o600)).expect("permissions");
    let inputs = Inputs::new("/in").files(dir.path(), ["only-root"]);
    assert_eq!(stdout(&sandbox().root(Root::host().with(inputs.clone())), "cat /in/only-root"), "private");
    assert!(fails(&with(inputs.unmapped()), "cat /in/only-root").contains("Permission denied"));
}

/// A caller with 10,000 inputs, and with nothing of them when the sandbox has ended.
fn caller_with_many_inputs(_: &[String]) -> i32 {
    let dir = support::shared_dir();
    let paths: Vec<String> = (0..10_000).map(|number| format!("{}/{number}.h", number / 100)).collect();
    for number in 0..100 {
        fs::create_dir(dir.path().join(number.to_string())).expect("a directory");
    }
    for path in &paths {
        fs::write(dir.path().join(path), path).expect("an input");
    }
    let before = (snapshot(dir.path()).len(), mounts(), support::descriptors());
    let sandbox = with(Inputs::new("/in").files(dir.path(), paths));
    assert_eq!(stdout(&sandbox, "find /in -type f | wc -l; cat /in/99/9999.h"), "10000\n99/9999.h");
    assert_eq!((snapshot(dir.path()).len(), mounts(), support::descriptors()), before);
    0
}

#[apply(test)]
#[skip(unless_read_only)]
fn ten_thousand_inputs_start_and_leave_nothing() {
    on_host(&[], "caller_with_many_inputs", &[]);
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").expect("the mounts").lines().count()
}
