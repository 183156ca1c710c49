//! Removing what a program has left.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command as Host, Stdio};
use std::sync::Barrier;
use std::thread;

use super::{Place, nest, set_mode};
use crate::support::{
    self, exists, in_mount_namespace, is_root, on_host, rounds, shared_dir, unless_mounts,
    unless_overlays_and_idmapped_mounts, unless_root,
};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{chown, mkfifo};
use stockade::collect::remove_dir_all;
use stockade::mount::{HostPath, Overlay};
use stockade::{Command, Errno, ErrorKind, Root, Sandbox};

payloads![
    ("removes_mounts", caller_that_removes_mounts),
    ("removes_deep", caller_that_removes_much),
    ("removes_foreign", caller_that_removes_of_another),
];

/// What a program may have left, as far as its user can make it: directories without any right, and others.
fn plant(directory: &Path) {
    let made = |path: &str| {
        let path = directory.join(path);
        fs::create_dir_all(&path).unwrap();
        path
    };
    made("closed/inner");
    fs::write(directory.join("closed/inner/file"), "").unwrap();
    made("sticky");
    fs::write(directory.join("sticky/file"), "").unwrap();
    set_mode(directory.join("sticky"), 0o1777);
    let full = made("full");
    for number in 0..1000 {
        fs::write(full.join(number.to_string()), "").unwrap();
    }
    symlink("/", directory.join("link")).unwrap();
    symlink("link", made("sub").join("dangling")).unwrap();
    mkfifo(&directory.join("sub/fifo"), Mode::empty()).unwrap();
    UnixListener::bind(directory.join("sub/socket")).unwrap();
    fs::write(directory.join(OsStr::from_bytes(b"\xff\n")), "").unwrap();
    set_mode(directory.join("closed/inner"), 0);
    set_mode(directory.join("closed"), 0);
}

#[apply(test)]
fn files_of_any_mode_and_name_are_removed() {
    let place = Place::new();
    plant(&place.from);
    if !is_root() {
        let error = fs::remove_dir_all(&place.from).expect_err("std gives up at a directory without rights");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(exists(place.from.join("closed")));
    }
    remove_dir_all(&place.from).unwrap();
    assert!(!exists(&place.from));
    remove_dir_all(&place.from).expect("what is gone is no error");
    remove_dir_all(place.from.join("nor/below")).expect("nor is what never was");

    // The directory itself has no rights either, and is named below one that is trusted.
    fs::create_dir_all(place.from.join("sub")).unwrap();
    set_mode(&place.from, 0);
    remove_dir_all(HostPath::beneath(place.dir.path(), "from")).unwrap();
    assert!(!exists(&place.from));
}

#[apply(test)]
fn concurrent_removals_of_the_same_tree_succeed() {
    let place = Place::new();
    for round in 0..rounds(20) {
        for path in ["a/b/c", "d/e", "f"] {
            fs::create_dir_all(place.from.join(path)).unwrap();
            (0..50).for_each(|number| fs::write(place.from.join(path).join(number.to_string()), "").unwrap());
        }
        let start = Barrier::new(4);
        let remove = || {
            start.wait();
            remove_dir_all(&place.from)
        };
        thread::scope(|scope| {
            let removals: Vec<_> = (0..4).map(|_| scope.spawn(remove)).collect();
            removals.into_iter().for_each(|end| assert_eq!(end.join().unwrap(), Ok(()), "round {round}"));
        });
        assert!(!exists(&place.from));
    }
}

/// The kernel makes a directory in it that an ordinary user may not enter.
#[apply(test)]
#[skip(unless_overlays_and_idmapped_mounts)]
fn the_work_directory_of_an_overlay_is_removed() {
    let place = Place::new();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.from.join(name));
    [&lower, &upper, &work].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let overlay = Overlay::new("/tmp/overlay").lower(&lower).upper(&upper, &work);
    let sandbox = Sandbox::new().root(Root::host().with(overlay));
    let status = sandbox.status(Command::new("sh").args(["-c", "echo >/tmp/overlay/file"])).unwrap();
    assert!(status.success() && exists(upper.join("file")));
    if !is_root() {
        assert!(fs::remove_dir_all(&place.from).is_err(), "std gives up at work/work");
    }
    remove_dir_all(&place.from).unwrap();
    assert!(!exists(&place.from));
}

#[apply(test)]
fn a_removal_takes_few_descriptors_and_little_memory_however_deep_it_goes() {
    let in_memory = tempfile::Builder::new().prefix("test-").tempdir_in("/dev/shm");
    let place = Place::of(in_memory.unwrap_or_else(|_| shared_dir()));
    on_host(&["prlimit", "--nofile=16:16"], "removes_deep", &[place.from.to_str().unwrap()]);
    assert!(!exists(&place.from));
}

/// The most memory that this process has had, in bytes.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn caller_that_removes_much(args: &[String]) -> i32 {
    const LEVELS: u32 = 1000;
    const NAMES: u32 = 50;
    let file = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    // It comes first in the order of names, so that all others wait.
    drop(nest(Path::new(&args[0]), "0", LEVELS, |directory| {
        for number in 0..NAMES {
            openat(directory, format!("{number:x>250}").as_str(), file, Mode::S_IRWXU).unwrap();
        }
    }));
    assert!(fs::remove_dir_all(&args[0]).is_err(), "std runs out of descriptors");
    let before = most_memory();
    remove_dir_all(&args[0]).unwrap();
    let (took, names) = (most_memory() - before, u64::from(LEVELS * NAMES) * 250);
    assert!(took < names / 3, "it took {took} bytes, and all names are {names}");
    0
}

/// What belongs to another user, as a program with sub-ids leaves it.
#[apply(test)]
#[only(Root)]
fn files_of_another_user_are_reported_as_not_removed() {
    let place = Place::new();
    let give = |path: &Path| chown(path, Some(support::USER.into()), Some(support::USER.into())).unwrap();
    let make = |path: &str| {
        fs::create_dir_all(place.from.join(path)).unwrap();
        place.from.join(path)
    };
    let (foreign, sticky) = (make("foreign"), make("a sticky one"));
    fs::write(foreign.join("kept"), "").unwrap();
    fs::write(sticky.join("of root's"), "").unwrap();
    set_mode(&sticky, 0o1777);
    [&place.from, &sticky].into_iter().for_each(|path| give(path));
    // A path that is too long for an error, and for everybody.
    let deep = make("z/deep");
    [deep.parent().unwrap(), &deep].into_iter().for_each(give);
    let own = |directory: &OwnedFd| give(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()));
    let last = nest(&deep, &"x".repeat(80), 60, own);
    mkdirat(&last, "foreign", Mode::S_IRWXU).unwrap();
    let foreign = openat(&last, "foreign", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    mkdirat(&foreign, "kept", Mode::S_IRWXU).unwrap();

    let id = support::USER.to_string();
    let way = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    on_host(&way, "removes_foreign", &[place.from.to_str().unwrap()]);
    assert!(exists(place.from.join("foreign/kept")) && !exists(&sticky));
    remove_dir_all(&place.from).expect("root removes the rest");
}

fn caller_that_removes_of_another(args: &[String]) -> i32 {
    let from = Path::new(&args[0]);
    let refused = |path: &Path| {
        let error = remove_dir_all(path).expect_err("another user's directory");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::EACCES)), "{error}");
        assert!(error.to_string().contains("belongs to another user"), "{error}");
        error.path().expect("a path").to_owned()
    };
    assert_eq!(refused(from), from.join("foreign/kept"));
    let told = refused(&from.join("z"));
    assert!(told.starts_with(from.join("z/deep")) && (3900..4096).contains(&told.as_os_str().len()), "{told:?}");
    0
}

fn unless_immutable_files() -> Option<String> {
    let dir = shared_dir();
    let set = |flag| Host::new("chattr").args([flag, "--"]).arg(dir.path()).stderr(Stdio::null()).status();
    let (made, _) = (set("+i"), set("-i"));
    let refused = !made.is_ok_and(|status| status.success());
    unless_root().or_else(|| refused.then(|| "chattr(1) makes nothing immutable here".into()))
}

#[apply(test)]
#[only(Root)]
#[skip(unless_immutable_files)]
fn immutable_files_are_reported_as_not_removed() {
    let place = Place::new();
    for (flag, path) in [("i", place.file("sub/file", "")), ("a", place.from.join("sub"))] {
        let set =
            |sign| assert!(Host::new("chattr").arg(format!("{sign}{flag}")).arg(&path).status().unwrap().success());
        set('+');
        let removed = remove_dir_all(&place.from);
        set('-');
        let error = removed.expect_err("it is immutable").to_string();
        let said = format!(
            "failed to remove {}: unlinkat: Operation not permitted (EPERM): it or its directory belongs to another \
             user",
            path.display()
        );
        assert!(error.starts_with(&said) && error.contains("chattr(1)"), "{error}");
    }
    remove_dir_all(&place.from).unwrap();
}

#[apply(test)]
fn a_removal_follows_no_link() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    let link = place.dir.path().join("a link");
    symlink(&outside, &link).unwrap();
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let says = |path: HostPath| place.words(&remove_dir_all(path).expect_err("no directory"));
    let no_directory = "openat: Not a directory (ENOTDIR): it is a symlink or a file: remove it with \
                        std::fs::remove_file if it is yours";
    assert_eq!(says((&link).into()), format!("failed to remove /a link: {no_directory}"));
    assert_eq!(says(HostPath::new(&link).follow_symlinks()), format!("failed to remove /a link: {no_directory}"));
    assert_eq!(says((&file).into()), format!("failed to remove /file: {no_directory}"));
    assert!(says(HostPath::beneath(place.dir.path(), "a link/sub")).contains("HostPath::beneath never follows"));
    for nothing in ["", ".", "..", "sub/.."] {
        let error = remove_dir_all(HostPath::beneath(place.dir.path(), nothing)).expect_err("what is not below");
        assert!(error.errno() == Some(Errno::EINVAL), "{nothing:?}: {error}");
    }
    assert!(says("/".into()).contains("use a path that ends in a name"));

    symlink(&outside, place.from.join("inside")).unwrap();
    remove_dir_all(&place.from).unwrap();
    assert!(exists(outside.join("kept")) && exists(&link) && exists(&file) && !exists(&place.from));
}

#[apply(test)]
#[skip(unless_mounts)]
fn mounts_are_not_removed() {
    let place = Place::new();
    set_mode(place.dir.path(), 0o777);
    fs::create_dir_all(place.from.join("sub/mounted")).unwrap();
    fs::create_dir(place.dir.path().join("elsewhere")).unwrap();
    fs::write(place.dir.path().join("elsewhere/kept"), "").unwrap();
    let mounts = "cd \"$dir\"; mount --bind elsewhere from/sub/mounted";
    in_mount_namespace(mounts, "removes_mounts", place.dir.path());
    assert!(exists(place.dir.path().join("elsewhere/kept")));
}

fn caller_that_removes_mounts(args: &[String]) -> i32 {
    let from = Path::new(&args[0]).join("from");
    let said = remove_dir_all(&from).expect_err("a mount is in the way").to_string();
    let mounted = from.join("sub/mounted");
    let busy = "unlinkat: Device or resource busy (EBUSY): it is a mount point: unmount it first";
    assert_eq!(said, format!("failed to remove {}: {busy}", mounted.display()));
    assert!(exists(mounted.join("kept")));
    0
}
