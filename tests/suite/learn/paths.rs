//! The form of recorded paths: absolute, as seen inside, with each right at the path where Landlock checks it.

use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::{Command, Root, Sandbox};
use tempfile::TempDir;

use crate::learn::deeds::deeds;
use crate::learn::{at, bounded, fails, learn, sandbox, succeeds, unless_landlock};
use crate::support::{shared_dir, unless_idmapped_mounts, with_payload};

const READ: FsAccess = FsAccess::READ_FILE;
const WRITE: FsAccess = FsAccess::WRITE_FILE;

/// A sandbox with some files at `/a`, which are anew on the host each time.
fn with_files() -> (TempDir, Sandbox) {
    let dir = shared_dir();
    std::fs::create_dir(dir.path().join("dir")).expect("a directory");
    for name in ["file", "dir/other"] {
        std::fs::write(dir.path().join(name), "text").expect("a file");
    }
    for (text, link) in [("/a/dir", "to-dir"), ("../file", "dir/to-file"), ("/a/file", "dir/absolute")] {
        std::os::unix::fs::symlink(text, dir.path().join(link)).expect("a link");
    }
    let root = with_payload(Root::host().bind_rw(dir.path(), "/a"));
    (dir, bounded(Sandbox::new().root(root)))
}

fn of(words: &[&str]) -> Learned {
    of_command(&deeds(words))
}

fn of_command(command: &Command) -> Learned {
    let (_dir, sandbox) = with_files();
    learn(&sandbox, command)
}

/// What was noted below `/a`.
fn below(learned: &Learned) -> Vec<(&str, FsAccess)> {
    let paths = learned.paths.iter().filter(|(path, _)| path.starts_with("/a"));
    paths.map(|(path, access)| (path.to_str().expect("a text"), *access)).collect()
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn relative_paths_are_of_the_working_directory() {
    let learned = of(&["cd /a/dir", "read other", "read ../file", "cd ..", "read ././dir//../../../a/dir/other"]);
    assert_eq!(below(&learned), [("/a/dir/other", READ), ("/a/file", READ)]);
    let mut there = deeds(&["read file"]);
    there.current_dir("/a");
    assert_eq!(below(&of_command(&there)), [("/a/file", READ)]);
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn paths_are_relative_to_descriptors_of_directories() {
    let learned = of(&["read-at /a/to-dir ../file", "write-at /a dir/other", "link-at /a file /a/dir new"]);
    let directory = FsAccess::READ_DIR;
    // O_RDONLY of the directory itself is READ_DIR.
    assert_eq!(at(&learned, "/a/file"), READ);
    assert_eq!(at(&learned, "/a/dir/other"), WRITE);
    assert!(at(&learned, "/a/dir").contains(directory | FsAccess::MAKE_REG), "{learned}");
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn symbolic_links_are_followed_as_inside() {
    let learned = of(&["read /a/to-dir/other", "read /a/to-dir/to-file", "append /a/dir/absolute"]);
    assert_eq!(below(&learned), [("/a/dir/other", READ), ("/a/file", READ | WRITE)]);
    // To remove a link is something else than to follow it.
    assert_eq!(below(&of(&["unlink /a/to-dir"])), [("/a", FsAccess::REMOVE_FILE)]);
    // A file is made where the link leads to.
    let learned = of(&["symlink /a/dir/new /a/dangling", "write /a/dangling"]);
    assert!(at(&learned, "/a/dir").contains(FsAccess::MAKE_REG | WRITE), "{learned}");
    assert_eq!(at(&learned, "/a"), FsAccess::MAKE_SYM);
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn links_of_proc_are_resolved_as_for_the_program() {
    let learned =
        of(&["cd /a", "read /proc/self/cwd/file", "read /proc/self/root/a/dir/other", "read /proc/thread-self/comm"]);
    assert_eq!(below(&learned), [("/a/dir/other", READ), ("/a/file", READ)]);
    assert_eq!(at(&learned, "/proc"), READ | FsAccess::READ_DIR);
    assert!(!learned.paths.keys().any(|path| path.starts_with("/proc/self")), "{learned}");
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn creations_are_recorded_at_their_directory() {
    let learned = of(&[
        "mkdir /a/new",
        "write /a/new/file",
        "append /a/new/file",
        "list /a/new",
        "unlink /a/new/file",
        "rmdir /a/new",
    ]);
    let all = FsAccess::MAKE_DIR
        | FsAccess::MAKE_REG
        | WRITE
        | FsAccess::TRUNCATE
        | FsAccess::READ_DIR
        | FsAccess::REMOVE_FILE
        | FsAccess::REMOVE_DIR;
    assert_eq!(below(&learned), [("/a", all)]);
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn replacements_are_recorded_at_their_directory() {
    // The rule for a file is for what is there when a program starts: a new one of the name has none.
    let learned = of(&["read /a/file", "write /a/temporary", "rename /a/temporary /a/file", "append /a/file"]);
    let all = READ | WRITE | FsAccess::TRUNCATE | FsAccess::MAKE_REG | FsAccess::REMOVE_FILE;
    assert_eq!(below(&learned), [("/a", all)]);
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn each_operation_maps_to_its_right() {
    for (deed, path, access) in [
        ("read /a/file", "/a/file", READ),
        ("append /a/file", "/a/file", WRITE),
        ("write /a/file", "/a/file", WRITE | FsAccess::TRUNCATE),
        ("truncate /a/file", "/a/file", FsAccess::TRUNCATE),
        ("shorten /a/file", "/a/file", WRITE | FsAccess::TRUNCATE),
        ("nameless /a", "/a", WRITE | FsAccess::READ_DIR),
        ("list /a/dir", "/a/dir", FsAccess::READ_DIR),
        ("mkdir /a/new", "/a", FsAccess::MAKE_DIR),
        ("fifo /a/new", "/a", FsAccess::MAKE_FIFO),
        ("symlink x /a/new", "/a", FsAccess::MAKE_SYM),
        ("link /a/file /a/new", "/a", FsAccess::MAKE_REG),
        ("unlink /a/file", "/a", FsAccess::REMOVE_FILE),
        ("unlink-at /a file", "/a", FsAccess::REMOVE_FILE | FsAccess::READ_DIR),
        ("rename /a/file /a/new", "/a", FsAccess::REMOVE_FILE | FsAccess::MAKE_REG),
        ("exchange /a/file /a/to-dir", "/a", FsAccess::REMOVE_FILE | FsAccess::MAKE_REG | FsAccess::MAKE_SYM),
        ("unix-listen /a/new", "/a", FsAccess::MAKE_SOCK),
    ] {
        assert_eq!(below(&of(&[deed])), [(path, access)], "{deed}");
    }
}

#[apply(test)]
#[skip(unless_landlock)]
fn files_can_be_moved_between_directories_under_the_learned_policy() {
    let root = Root::host().tmpfs("/a", 1 << 20).create_dir("/a/from").create_dir("/a/to");
    let sandbox = bounded(Sandbox::new().root(with_payload(root)));
    let moves = ["write /a/from/file", "rename /a/from/file /a/to/file", "read /a/to/file"];
    let learned = learn(&sandbox, &deeds(&moves));
    for directory in ["/a/from", "/a/to"] {
        assert!(at(&learned, directory).contains(FsAccess::REFER), "{learned}");
    }
    succeeds(&learned, &sandbox, &deeds(&moves));
    fails(&learned, &sandbox, &deeds(&[&moves[..], &["rename /a/to/file /a/file"]].concat()));
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn missing_and_read_only_paths_are_not_recorded() {
    let script = "cat /nowhere || cat /a/file/x || echo >/etc/passwd || echo >/etc/new || mkdir /etc/dir || rm /a/none \
                  || echo >/a/dir";
    let learned = of_command(&crate::learn::shell(&format!("{{ {script}; }} 2>/dev/null || :")));
    for path in ["/nowhere", "/etc/passwd", "/etc", "/etc/new", "/a", "/a/dir", "/a/file"] {
        assert!(!learned.paths.contains_key(path.as_ref() as &std::path::Path), "{path}: {learned}");
    }
}

#[apply(test)]
fn devices_get_ioctl_when_it_is_used() {
    let learned = learn(&sandbox(), &crate::learn::shell("exec 3</dev/zero; head -c1 <&3 >/dev/null"));
    assert_eq!(at(&learned, "/dev/zero"), READ);
    let script = "import sys, os; fd = os.open('/dev/zero', os.O_RDONLY); os.isatty(fd)";
    if std::path::Path::new("/usr/bin/python3").exists() {
        let python = Command::new("/usr/bin/python3").args(["-c", script]).clone();
        assert_eq!(at(&learn(&sandbox(), &python), "/dev/zero"), READ | FsAccess::IOCTL_DEV);
    }
}

#[apply(test)]
fn paths_are_those_of_the_mounts_inside() {
    let dir = shared_dir();
    std::fs::write(dir.path().join("file"), "text").expect("a file");
    let root = Root::host().bind(dir.path(), "/inside/here").bind("/etc/passwd", "/inside/users");
    let sandbox = bounded(Sandbox::new().root(with_payload(root)));
    let learned = learn(&sandbox, &deeds(&["read /inside/here/file", "read /inside/users"]));
    assert_eq!(at(&learned, "/inside/here/file"), READ);
    assert_eq!(at(&learned, "/inside/users"), READ);
    // Without a mount namespace they are the host's.
    let bare = bounded(Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit()));
    let path = dir.path().join("file").canonicalize().expect("its path");
    let command = Command::new("/bin/cat").arg(&path).clone();
    assert_eq!(learn(&bare, &command).paths[&path], READ);
}

#[apply(test)]
fn descriptors_from_outside_lead_to_no_path_inside() {
    let dir = shared_dir();
    std::fs::write(dir.path().join("secret"), "text").expect("a file");
    let file = std::fs::File::open(dir.path().join("secret")).expect("the file");
    let mut command = crate::learn::shell("cat /proc/self/fd/7");
    command.fd(7, file);
    let learned = learn(&bounded(Sandbox::new()), &command);
    let outside = dir.path().canonicalize().expect("its path");
    assert!(!learned.paths.keys().any(|path| path.starts_with(&outside)), "{learned}");
}
