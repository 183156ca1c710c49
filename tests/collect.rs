//! What a program has left is collected: what is copied and what is left, how much, and what is said of the rest. How it
//! stands up to a hostile program is in `tests/attacks/outputs.rs`.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command as Host, ExitCode, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknod, umask};
use nix::unistd::{chown, mkfifo};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use stockade::{Collected, Collector, Command, Errno, Error, HostPath, Overlay, Root, Sandbox, Unfit, remove_dir_all};
use support::{
    at_most, descriptors, exists, in_mount_namespace, is_root, on_host, rounds, shared_dir, unless_mounts,
    unless_overlays_and_idmapped_mounts, unless_root, unless_user,
};
use tempfile::TempDir;

fn main() -> ExitCode {
    let tests = tests![
        files_and_directories_are_copied,
        copies_are_new_files_of_the_hosts_user,
        an_empty_directory_is_one,
        names_are_copied_byte_by_byte,
        what_is_no_file_is_left,
        device_nodes_are_left if unless_root,
        what_the_hosts_user_may_not_read_is_left if unless_user,
        a_file_with_other_names_is_taken_on_request_alone,
        what_is_mounted_there_is_left if unless_mounts,
        bytes_are_limited_in_all,
        a_sparse_file_counts_as_what_is_read_of_it,
        a_file_that_is_shorter_than_its_size_is_as_short if unless_sysfs,
        entries_are_limited_in_all,
        levels_are_limited,
        no_path_becomes_longer_than_can_be_named,
        one_file_is_read_by_its_path,
        what_is_not_read_is_said,
        what_can_not_be_copied_is_said,
        a_copy_below_what_is_copied_is_refused,
        a_full_file_system_leaves_nothing if unless_mounts,
        a_proc_that_is_none_is_refused if unless_mounts,
        a_host_without_openat2_is_told_so,
        a_host_without_descriptors_is_told_so,
        a_umask_takes_nothing,
        no_descriptor_stays,
        a_collector_is_plain_data,
        links_are_told_on_request_and_never_made,
        what_came_of_it_is_the_same_after_a_trip_through_json,
        what_a_program_has_left_is_removed,
        several_remove_the_same_at_once,
        the_work_directory_of_an_overlay_is_removed if unless_overlays_and_idmapped_mounts,
        a_removal_takes_few_descriptors_and_little_memory_however_deep_it_goes,
        what_another_user_owns_is_said_to_stay if unless_root,
        what_is_immutable_is_said_to_stay if unless_immutable_files,
        a_removal_follows_no_link,
        what_is_mounted_is_not_removed if unless_mounts,
    ];
    let payloads: &[support::Payload] = &[
        ("refused", host_without_openat2),
        ("few", host_with_few_descriptors),
        ("umask", host_with_a_umask),
        ("descriptors", host_that_counts_descriptors),
        ("mounted", host_with_mounts),
        ("removes_mounts", host_that_removes_mounts),
        ("removes_deep", host_that_removes_much),
        ("removes_foreign", host_that_removes_of_another),
        ("full", host_with_a_full_target),
        ("fake", host_with_a_fake_proc),
    ];
    support::run(tests, payloads)
}

/// A place with a directory to collect from, and room for copies beside it.
struct Place {
    dir: TempDir,
    from: PathBuf,
    to: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::of(shared_dir())
    }

    fn of(dir: TempDir) -> Self {
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).expect("a directory");
        Self { dir, from, to }
    }

    fn file(&self, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.from.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        fs::write(&path, contents).expect("a file");
        path
    }

    #[track_caller]
    fn copy(&self, collector: &Collector) -> Collected {
        collector.copy(&self.from, &self.to).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error of a copy, of which nothing stays.
    #[track_caller]
    fn refused(&self, collector: &Collector) -> Error {
        let error = collector.copy(&self.from, &self.to).expect_err("a copy");
        assert!(!exists(&self.to), "{error}");
        error
    }

    /// The same in its words, without the paths.
    #[track_caller]
    fn says(&self, collector: &Collector) -> String {
        self.words(&self.refused(collector))
    }

    #[track_caller]
    fn read_says(&self, path: impl AsRef<Path>) -> String {
        self.words(&Collector::new().read(&self.from, path).expect_err("contents"))
    }

    fn words(&self, error: &Error) -> String {
        error.to_string().replace(self.dir.path().to_str().expect("a plain path"), "")
    }
}

/// What is in a directory: of files the contents.
fn tree(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut seen = BTreeMap::new();
    let mut rest = vec![path.to_owned()];
    while let Some(directory) = rest.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a type");
            assert!(kind.is_file() || kind.is_dir(), "{entry:?}");
            let contents = kind.is_file().then(|| fs::read(entry.path()).expect("contents"));
            seen.insert(entry.path().strip_prefix(path).expect("below").to_owned(), contents);
            if kind.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    seen
}

fn counts(collected: &Collected) -> (u64, u64, u64) {
    (collected.files, collected.directories, collected.bytes)
}

fn left(collected: &Collected) -> Vec<(&str, Unfit)> {
    collected.left.iter().map(|left| (left.path.to_str().expect("a plain name"), left.why)).collect()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    path.as_ref().symlink_metadata().expect("metadata").mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

fn files_and_directories_are_copied() {
    let place = Place::new();
    place.file("a", "a");
    place.file("empty", "");
    place.file("sub/deep/b", "bb");
    // More than is copied at once.
    place.file("sub/large", support::touched((1 << 20) + 3));
    fs::create_dir(place.from.join("none")).unwrap();
    let collected = place.copy(&Collector::new());
    assert_eq!((counts(&collected), left(&collected)), ((4, 3, (1 << 20) + 6), vec![]));
    assert_eq!(tree(&place.to), tree(&place.from));
    // What is the host's own may be a symbolic link.
    symlink("from", place.dir.path().join("link")).unwrap();
    symlink(".", place.dir.path().join("here")).unwrap();
    let other = place.dir.path().join("here/other");
    assert_eq!(
        Collector::new().copy(HostPath::new(place.dir.path().join("link")).follow_symlinks(), &other),
        Ok(collected)
    );
    assert_eq!(tree(&other), tree(&place.from));
}

fn copies_are_new_files_of_the_hosts_user() {
    let place = Place::new();
    let modes = [(0o644, 0o644), (0o600, 0o644), (0o4755, 0o755), (0o2700, 0o755), (0o666, 0o644), (0o455, 0o644)];
    for (of, _) in modes {
        let path = place.file(format!("{of:o}"), "");
        if is_root() {
            chown(&path, Some(support::USER.into()), Some(support::USER.into())).unwrap();
        }
        set_mode(path, of);
    }
    fs::create_dir(place.from.join("directory")).unwrap();
    set_mode(place.from.join("directory"), 0o1777);
    let old = File::options().write(true).open(place.from.join("644")).unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    place.copy(&Collector::new());
    for (of, expected) in modes {
        let copy = place.to.join(format!("{of:o}"));
        assert_eq!(mode(&copy), expected, "{of:o}");
        let meta = copy.metadata().unwrap();
        assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
        assert!(meta.modified().unwrap().elapsed().unwrap_or_default() < Duration::from_secs(3600));
    }
    assert_eq!((mode(place.to.join("directory")), mode(&place.to)), (0o755, 0o755));
}

fn an_empty_directory_is_one() {
    let place = Place::new();
    let none = Collector::new().max_bytes(0).max_entries(0).max_depth(0);
    assert_eq!(place.copy(&none), Collected::default());
    assert!(tree(&place.to).is_empty());
}

fn names_are_copied_byte_by_byte() {
    let place = Place::new();
    let longest = [b'x'; 255];
    let names: [&[u8]; 8] = [b"new\nline", b"\xff\xfe", b"-rf *", b"...", b"\\", b"\x1b[2J", b"a:b,c", &longest];
    for name in names {
        place.file(OsStr::from_bytes(name), name);
        place.file(Path::new("sub").join(OsStr::from_bytes(name)), name);
    }
    let pipe = OsStr::from_bytes(b"pipe \xff\n");
    mkfifo(&place.from.join("sub").join(pipe), Mode::S_IRWXU).unwrap();
    let collected = place.copy(&Collector::new());
    let pipe = Path::new("sub").join(pipe);
    assert_eq!((collected.files, collected.left.len(), &collected.left[0].path), (16, 1, &pipe));
    assert_eq!(collected.left[0].to_string(), r#""sub/pipe \xFF\n": a FIFO, a socket or a device"#);
    fs::remove_file(place.from.join(pipe)).unwrap();
    assert_eq!(tree(&place.to), tree(&place.from));
    for name in names {
        assert_eq!(Collector::new().read(&place.from, OsStr::from_bytes(name)).as_deref(), Ok(name));
    }
}

fn what_is_no_file_is_left() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::write(&outside, "outside").unwrap();
    place.file("file", "file");
    for (name, text) in [("absolute", outside.to_str().unwrap()), ("inside", "file"), ("loop", "loop"), ("none", "x")] {
        symlink(text, place.from.join(name)).unwrap();
    }
    fs::create_dir(place.from.join("sub")).unwrap();
    symlink("..", place.from.join("sub/up")).unwrap();
    mkfifo(&place.from.join("sub/fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(place.from.join("sub/socket")).unwrap();
    fs::hard_link(&outside, place.from.join("zz hard")).unwrap();
    let collected = place.copy(&Collector::new());
    let expected = [
        ("absolute", Unfit::Symlink),
        ("inside", Unfit::Symlink),
        ("loop", Unfit::Symlink),
        ("none", Unfit::Symlink),
        ("sub/fifo", Unfit::Special),
        ("sub/socket", Unfit::Special),
        ("sub/up", Unfit::Symlink),
        ("zz hard", Unfit::HardLink),
    ];
    assert_eq!((left(&collected), counts(&collected)), (expected.to_vec(), (1, 1, 4)));
    assert_eq!(tree(&place.to).into_keys().collect::<Vec<_>>(), [Path::new("file"), Path::new("sub")]);
    let words: Vec<String> = collected.left.iter().map(ToString::to_string).collect();
    assert_eq!(words[0], r#""absolute": a symbolic link"#);
    assert_eq!(words[7], r#""zz hard": a file that has other names (hard links)"#);
}

fn device_nodes_are_left() {
    let place = Place::new();
    for (name, kind, device) in [("zero", SFlag::S_IFCHR, (1, 5)), ("loop", SFlag::S_IFBLK, (7, 0))] {
        mknod(&place.from.join(name), kind, Mode::S_IRWXU, libc::makedev(device.0, device.1)).unwrap();
    }
    let collected = place.copy(&Collector::new());
    assert_eq!(left(&collected), [("loop", Unfit::Special), ("zero", Unfit::Special)]);
}

fn what_the_hosts_user_may_not_read_is_left() {
    let place = Place::new();
    set_mode(place.file("closed/file", ""), 0o644);
    set_mode(place.file("listed/file", ""), 0o644);
    set_mode(place.file("secret", ""), 0);
    set_mode(place.from.join("closed"), 0o300);
    set_mode(place.from.join("listed"), 0o400);
    let why = Unfit::Unreadable(Errno(libc::EACCES));
    let collected = place.copy(&Collector::new());
    assert_eq!(left(&collected), [("closed", why), ("listed", why), ("secret", why)]);
    assert_eq!(collected.left[0].to_string(), r#""closed": unreadable: Permission denied (EACCES)"#);
    assert!(tree(&place.to).is_empty());
    let remedy = "Permission denied (EACCES): the host's user may not read it: have the program leave it readable, or \
                  collect as root";
    assert_eq!(place.read_says("secret"), format!(r#"collecting "/from/secret": open: {remedy}"#));
    set_mode(&place.from, 0o300);
    fs::remove_dir_all(&place.to).unwrap();
    assert_eq!(place.says(&Collector::new()), format!(r#"collecting from "/from": openat2: {remedy}"#));
    for path in ["", "closed", "listed"] {
        set_mode(place.from.join(path), 0o700);
    }
}

fn a_file_with_other_names_is_taken_on_request_alone() {
    let place = Place::new();
    fs::hard_link(place.file("a", "linked"), place.from.join("b")).unwrap();
    let (strict, lax) = (Collector::new(), Collector::new().hard_links());
    assert_eq!(left(&place.copy(&strict)), [("a", Unfit::HardLink), ("b", Unfit::HardLink)]);
    fs::remove_dir(&place.to).unwrap();
    assert_eq!(counts(&place.copy(&lax)), (2, 0, 12));
    assert_eq!(place.to.join("a").metadata().unwrap().nlink(), 1, "copies are files of their own");
    assert_eq!(lax.read(&place.from, "b").unwrap(), b"linked");
    assert_eq!(
        place.read_says("b"),
        "\"b\" below \"/from\" is a file that has other names (hard links): it may be one that the program may not read; \
         have the program leave a copy, or allow it by Collector::hard_links"
    );
}

fn host_with_mounts(args: &[String]) -> i32 {
    let place = Path::new(&args[0]);
    let (from, to) = (place.join("from"), place.join("to"));
    let collected = Collector::new().copy(&from, &to).unwrap();
    assert_eq!(left(&collected), [("bound", Unfit::Mount), ("file", Unfit::Mount), ("sub/tmpfs", Unfit::Mount)]);
    assert_eq!(counts(&collected), (0, 1, 0));
    let said = Collector::new().read(&from, "sub/tmpfs/file").unwrap_err().to_string();
    let expected =
        format!("\"sub/tmpfs\" below {from:?} is a place where something is mounted: collect from it by its own path");
    assert_eq!(said, expected);
    // What is mounted at the directory itself is what the host has named.
    assert_eq!(Collector::new().read(from.join("sub/tmpfs"), "file").unwrap(), b"mounted\n");
    0
}

fn what_is_mounted_there_is_left() {
    let place = Place::new();
    set_mode(place.dir.path(), 0o777);
    for directory in ["bound", "sub/tmpfs"] {
        fs::create_dir_all(place.from.join(directory)).unwrap();
    }
    place.file("file", "");
    let mounts = "cd \"$dir\"; mount --bind . from/bound; mount --bind /etc/passwd from/file; \
                  mount -t tmpfs none from/sub/tmpfs; echo mounted >from/sub/tmpfs/file";
    in_mount_namespace(mounts, "mounted", place.dir.path());
}

fn bytes_are_limited_in_all() {
    let place = Place::new();
    place.file("a", "1234");
    place.file("b", "");
    place.file("sub/c", "567");
    let exactly = |bytes| Collector::new().max_bytes(bytes);
    for enough in [7, 8, u64::MAX] {
        assert_eq!(counts(&place.copy(&exactly(enough))), (3, 1, 7));
        fs::remove_dir_all(&place.to).unwrap();
    }
    let error = place.refused(&exactly(6));
    assert_eq!((error.kind(), error.errno(), error.path()), (ErrorKind::QuotaExceeded, None, Some(&*place.from)));
    assert_eq!(
        place.words(&error),
        "collecting from \"/from\": the 3 bytes of \"sub/c\", after 4 of other files, exceed the limit of 6 bytes: raise \
         Collector::max_bytes, or have the program leave less"
    );
    let said = "collecting from \"/from\": the 4 bytes of \"a\" exceed the limit of 0 bytes: raise Collector::max_bytes, or \
                have the program leave less";
    assert_eq!(place.says(&exactly(0)), said);
    assert_eq!(exactly(4).read(&place.from, "a").unwrap(), b"1234");
    assert_eq!(exactly(u64::MAX).read(&place.from, "a").unwrap(), b"1234");
    assert_eq!(exactly(0).read(&place.from, "b").unwrap(), b"");
    assert_eq!(place.words(&exactly(0).read(&place.from, "a").unwrap_err()), said);
}

fn a_sparse_file_counts_as_what_is_read_of_it() {
    const PETABYTE: u64 = 1 << 50;
    let place = Place::new();
    let file = File::create(place.from.join("sparse")).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(counts(&place.copy(&Collector::new().max_bytes(1 << 20))), (1, 0, 1 << 20));
    assert_eq!(fs::read(place.to.join("sparse")).unwrap(), vec![0; 1 << 20]);
    fs::remove_dir_all(&place.to).unwrap();
    assert!(place.says(&Collector::new().max_bytes((1 << 20) - 1)).contains("exceed the limit of 1048575 bytes"));

    // Not every file system has files of a petabyte.
    let memory = tempfile::tempdir_in("/dev/shm").map_or_else(|_| Place::new(), Place::of);
    let file = File::create(memory.from.join("giant")).unwrap();
    let Some(size) = [PETABYTE, PETABYTE >> 7].into_iter().find(|size| file.set_len(*size).is_ok()) else {
        panic!("no giant")
    };
    let start = Instant::now();
    let expected = format!("the {size} bytes of \"giant\" exceed the limit of 1073741824 bytes: ");
    assert!(memory.says(&Collector::new()).contains(&expected));
    assert!(memory.read_says("giant").contains(&expected));
    assert!(start.elapsed() < at_most(Duration::from_millis(500)));
    // Where the host would have so much, its memory has not.
    if size == PETABYTE {
        let error = Collector::new().max_bytes(u64::MAX).read(&memory.from, "giant").unwrap_err();
        assert_eq!(error.errno(), Some(Errno(libc::ENOMEM)), "{error}");
    }
}

/// Files of sysfs have the size of a page, and hold a line: to who copies they are cut after they were opened.
const SHORT: &str = "/sys/class/net/lo/statistics";

fn unless_sysfs() -> Option<String> {
    (!exists(SHORT)).then(|| format!("{SHORT} has files that are shorter than their size"))
}

fn a_file_that_is_shorter_than_its_size_is_as_short() {
    let place = Place::new();
    let size = Path::new(SHORT).join("rx_bytes").metadata().unwrap().len();
    let collected = Collector::new().copy(SHORT, &place.to).unwrap();
    let contents: Vec<_> = tree(&place.to).into_values().flatten().collect();
    assert_eq!(collected.files, contents.len() as u64);
    assert_eq!(collected.bytes, contents.iter().map(Vec::len).sum::<usize>() as u64);
    assert!(contents.iter().all(|contents| contents.ends_with(b"\n") && (contents.len() as u64) < size));
    assert!(Collector::new().read(SHORT, "rx_bytes").unwrap().ends_with(b"\n"));
}

fn entries_are_limited_in_all() {
    let place = Place::new();
    place.file("a/b/c", "");
    place.file("a/d", "");
    symlink("x", place.from.join("e")).unwrap();
    let exactly = |entries| Collector::new().max_entries(entries);
    for enough in [5, 6, u64::MAX] {
        assert_eq!(counts(&place.copy(&exactly(enough))), (2, 2, 0));
        fs::remove_dir_all(&place.to).unwrap();
    }
    for less in [0, 1, 2, 3, 4] {
        assert_eq!(
            place.says(&exactly(less)),
            format!(
                "collecting from \"/from\": it holds more than {less} entries: raise Collector::max_entries, or have the \
                 program leave less"
            )
        );
    }
}

fn levels_are_limited() {
    let place = Place::new();
    place.file("a/b/c/file", "");
    let exactly = |levels| Collector::new().max_depth(levels);
    for enough in [3, 4, u32::MAX] {
        assert_eq!(counts(&place.copy(&exactly(enough))), (1, 3, 0));
        fs::remove_dir_all(&place.to).unwrap();
    }
    for (less, path) in [(0, "a"), (1, "a/b"), (2, "a/b/c")] {
        assert_eq!(
            place.says(&exactly(less)),
            format!(
                "collecting from \"/from\": {path:?} is deeper than {less} levels: raise Collector::max_depth, or have the \
                 program nest directories less"
            )
        );
    }
}

/// Makes directories in each other, does something with each, and gives the innermost.
fn nest(directory: &Path, name: &str, levels: u32, mut each: impl FnMut(&OwnedFd)) -> OwnedFd {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(directory, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&at, name, Mode::S_IRWXU).unwrap();
        at = openat(&at, name, flags, Mode::empty()).unwrap();
        each(&at);
    }
    at
}

fn no_path_becomes_longer_than_can_be_named() {
    let place = Place::new();
    // 15 times 255 and a slash, and 253 and a slash, are 4094.
    let name = "x".repeat(255);
    let above = nest(&place.from, &name, 15, |_| {});
    let last = "x".repeat(253);
    mkdirat(&above, last.as_str(), Mode::S_IRWXU).unwrap();
    let last = openat(&above, last.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    let file = |name| openat(&last, name, OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).map(drop).unwrap();
    file("y");
    assert_eq!(counts(&place.copy(&Collector::new())), (1, 16, 0));
    fs::remove_dir_all(&place.to).unwrap();
    file("yy");
    assert_eq!(
        place.says(&Collector::new()),
        format!(
            "collecting from \"/from\": a path below \"{name}\" is longer than 4095 bytes (PATH_MAX): have the program nest \
             directories less, or give them shorter names"
        )
    );
}

fn one_file_is_read_by_its_path() {
    let place = Place::new();
    place.file("a", "top");
    place.file("sub/deep/b", "deep");
    let contents = support::touched(300_000);
    place.file("large", &contents);
    let read = |path: &str| Collector::new().read(&place.from, path).unwrap();
    assert_eq!((read("a"), read("./sub//deep/./b"), read("large")), (b"top".into(), b"deep".into(), contents));
}

fn what_is_not_read_is_said() {
    let place = Place::new();
    place.file("sub/file", "");
    place.file("secret", "");
    symlink("sub", place.from.join("link")).unwrap();
    symlink("../secret", place.from.join("sub/link")).unwrap();
    mkfifo(&place.from.join("fifo"), Mode::S_IRWXU).unwrap();
    let symlink =
        "is a symbolic link: it may lead anywhere, so it is not followed; have the program leave the file itself";
    let outside = "may lead out of it: name the file by its path below, without `..`";
    let directory = "is a directory: name a file, or copy the directory with Collector::copy";
    let fifo = "is a FIFO, a socket or a device: to open it may wait for ever, or set a device going; have the program \
                leave a regular file";
    for (path, name, said) in [
        ("link", "link", symlink),
        ("link/file", "link", symlink),
        ("link/a/b/c", "link", symlink),
        ("sub/link", "sub/link", symlink),
        ("fifo", "fifo", fifo),
        ("sub", "sub", directory),
        ("", "", directory),
        (".", ".", directory),
        ("..", "..", outside),
        ("sub/../secret", "sub/../secret", outside),
        ("/etc/passwd", "/etc/passwd", outside),
    ] {
        assert_eq!(place.read_says(path), format!("{name:?} below \"/from\" {said}"), "{path}");
        assert!(matches!(Collector::new().read(&place.from, path), Err(Error::Invalid { .. })), "{path}");
    }
    for (path, errno, kind, said) in [
        ("none", libc::ENOENT, ErrorKind::NotFound, "No such file or directory (ENOENT)"),
        ("none/file", libc::ENOENT, ErrorKind::NotFound, "No such file or directory (ENOENT)"),
        ("secret/file", libc::ENOTDIR, ErrorKind::NotADirectory, "Not a directory (ENOTDIR)"),
        ("a\0b", libc::EINVAL, ErrorKind::InvalidInput, "Invalid argument (EINVAL)"),
    ] {
        let error = Collector::new().read(&place.from, path).unwrap_err();
        assert_eq!((error.errno(), error.kind()), (Some(Errno(errno)), kind), "{path}");
        assert_eq!(error.path(), Some(&*place.from.join(path)));
        assert_eq!(place.words(&error), format!("collecting {:?}: openat2: {said}", Path::new("/from").join(path)));
        assert_eq!(std::io::Error::from(error).kind(), kind);
    }
}

fn what_can_not_be_copied_is_said() {
    let place = Place::new();
    let file = place.file("file", "");
    let says = |from: &Path, to: &Path| {
        let error = Collector::new().copy(from, to).expect_err("a copy");
        (error.kind(), place.words(&error))
    };
    let none = place.dir.path().join("none");
    let said = "collecting from \"/none\": openat2: No such file or directory (ENOENT)";
    assert_eq!(says(&none, &place.to), (ErrorKind::NotFound, said.into()));
    assert_eq!(place.words(&Collector::new().read(&none, "file").unwrap_err()), said);
    let said = "collecting from \"/from/file\": openat2: Not a directory (ENOTDIR)";
    assert_eq!(says(&file, &place.to), (ErrorKind::NotADirectory, said.into()));
    let said = "copying to \"/none/to\": realpath: No such file or directory (ENOENT): the directory above the copy must exist";
    assert_eq!(says(&place.from, &none.join("to")), (ErrorKind::NotFound, said.into()));
    assert!(!exists(&place.to) && !exists(&none));

    // What is there stays as it is, whatever it is.
    fs::create_dir(&place.to).unwrap();
    fs::write(place.to.join("own"), "own").unwrap();
    symlink("none", place.dir.path().join("dangling")).unwrap();
    let said = |to| {
        format!(
            "copying to \"/{to}\": mkdirat: File exists (EEXIST): the copy is a new directory: name one that does not exist"
        )
    };
    for to in ["to", "from", "from/file", "dangling"] {
        assert_eq!(says(&place.from, &place.dir.path().join(to)), (ErrorKind::AlreadyExists, said(to)));
    }
    assert_eq!(fs::read(place.to.join("own")).unwrap(), b"own");
    assert!(!exists(&none));
}

fn a_copy_below_what_is_copied_is_refused() {
    let place = Place::new();
    place.file("sub/file", "file");
    let before = tree(&place.from);
    for to in ["copy", "sub/copy"] {
        let error = Collector::new().copy(&place.from, place.from.join(to)).unwrap_err();
        let said = format!(
            "the copy \"/from/{to}\" is below \"/from\", which is to be copied: copy to a place that the program can't reach"
        );
        assert_eq!(place.words(&error), said);
        assert_eq!(tree(&place.from), before);
    }
}

fn host_with_a_full_target(args: &[String]) -> i32 {
    let place = Path::new(&args[0]);
    let to = place.join("full/to");
    let error = Collector::new().copy(place.join("from"), &to).unwrap_err();
    let said = format!("copying to {:?}: write: No space left on device (ENOSPC)", to.join("sub/large"));
    assert_eq!((error.to_string(), error.kind()), (said, ErrorKind::StorageFull));
    assert!(!exists(to));
    0
}

fn a_full_file_system_leaves_nothing() {
    let place = Place::new();
    place.file("sub/large", support::touched(1 << 20));
    fs::create_dir(place.dir.path().join("full")).unwrap();
    in_mount_namespace("mount -t tmpfs -o size=64k,mode=777 none \"$dir/full\"", "full", place.dir.path());
}

fn host_with_a_fake_proc(args: &[String]) -> i32 {
    let from = Path::new(&args[0]).join("from");
    // Whatever is opened by the number of its descriptor is another file.
    let file = File::open(from.join("file")).unwrap();
    let by_number = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(by_number, fs::read("/etc/passwd").unwrap());
    let error = Collector::new().read(&from, "file").unwrap_err();
    let said = "/proc of the host is no proc file system: mount one there: files are opened by /proc/self/fd";
    assert_eq!(error.to_string(), said);
    0
}

fn a_proc_that_is_none_is_refused() {
    let place = Place::new();
    place.file("file", "");
    let fake = "mount -t tmpfs none /proc; mkdir -p /proc/self/fd; for fd in $(seq 0 20); do \
                ln -s /etc/passwd /proc/self/fd/$fd; done; exec \"$@\"";
    let namespaces = if is_root() { "-m" } else { "-Urm" };
    on_host(&["unshare", namespaces, "sh", "-ec", fake, "sh"], "fake", &[place.dir.path().to_str().unwrap()]);
}

fn host_without_openat2(args: &[String]) -> i32 {
    let errno: u32 = args[0].parse().unwrap();
    let (from, to) = (Path::new(&args[1]), Path::new(&args[2]));
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let rules = BTreeMap::from([(libc::SYS_openat2, vec![])]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
    let answer = Errno(errno as i32);
    let expected = format!(
        "collecting from {from:?}: openat2: {answer}: openat2(2) exists since Linux 5.6, and is refused here by the kernel or \
         by a filter of system calls around the caller, such as that of a container: update the kernel, or let the filter \
         allow the call. There is no other safe way"
    );
    for error in [Collector::new().copy(from, to).unwrap_err(), Collector::new().read(from, "file").unwrap_err()] {
        assert_eq!(error.to_string(), expected);
    }
    assert!(!exists(to));
    0
}

fn a_host_without_openat2_is_told_so() {
    let place = Place::new();
    place.file("file", "");
    for errno in [libc::ENOSYS, libc::EPERM] {
        let args = [&errno.to_string(), place.from.to_str().unwrap(), place.to.to_str().unwrap()];
        on_host(&[], "refused", &args);
    }
}

fn host_with_few_descriptors(args: &[String]) -> i32 {
    let (from, to) = (Path::new(&args[0]), Path::new(&args[1]));
    let before = descriptors();
    let error = Collector::new().copy(from, to).unwrap_err();
    assert_eq!(error.errno(), Some(Errno(libc::EMFILE)), "{error}");
    let remedy = "the host is at its limit on open descriptors: close some, or raise RLIMIT_NOFILE";
    assert_eq!(error.remedy(), Some(remedy));
    assert!(!exists(to) && descriptors() == before, "{error}");
    0
}

/// Nothing is left out of a copy because the host is short of something.
fn a_host_without_descriptors_is_told_so() {
    let place = Place::new();
    drop(nest(&place.from, "x", 40, |_| {}));
    for limit in 16..24 {
        let limit = format!("--nofile={limit}");
        on_host(&["prlimit", &limit], "few", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
    }
}

fn host_with_a_umask(args: &[String]) -> i32 {
    let (from, to) = (Path::new(&args[0]), Path::new(&args[1]));
    umask(Mode::from_bits_truncate(0o777));
    Collector::new().copy(from, to).unwrap();
    assert_eq!(umask(Mode::empty()).bits(), 0o777);
    let modes = ["", "sub", "sub/file", "program"].map(|path| mode(to.join(path)));
    assert_eq!(modes, [0o755, 0o755, 0o644, 0o755]);
    0
}

fn a_umask_takes_nothing() {
    let place = Place::new();
    place.file("sub/file", "");
    set_mode(place.file("program", ""), 0o700);
    on_host(&[], "umask", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
}

fn host_that_counts_descriptors(args: &[String]) -> i32 {
    let (from, to) = (Path::new(&args[0]), Path::new(&args[1]));
    let before = descriptors();
    let collectors = [
        Collector::new(),
        Collector::new().max_bytes(4),
        Collector::new().max_entries(2),
        Collector::new().max_depth(1),
    ];
    for (number, collector) in collectors.iter().enumerate() {
        assert_eq!(collector.copy(from, to).is_ok(), number == 0);
        assert!(number > 0 || collector.copy(from, to).is_err());
        assert_eq!(collector.read(from, "sub/deep/file").is_ok(), number != 1);
        assert!(collector.read(from, "link").is_err() && collector.read(from, "none").is_err());
        assert_eq!(descriptors(), before);
        let _ = fs::remove_dir_all(to);
    }
    0
}

fn no_descriptor_stays() {
    let place = Place::new();
    place.file("sub/deep/file", "contents");
    symlink("sub", place.from.join("link")).unwrap();
    on_host(&[], "descriptors", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
}

fn a_collector_is_plain_data() {
    let collector = Collector::new().max_bytes(u64::MAX).max_entries(0).max_depth(u32::MAX).hard_links();
    let json = serde_json::to_string(&collector).unwrap();
    assert_eq!(serde_json::from_str::<Collector>(&json).unwrap(), collector);
    assert_ne!(collector, Collector::new());
    let defaults = Collector::new().max_bytes(1 << 30).max_entries(10_000).max_depth(64);
    assert_eq!(Collector::default(), defaults);
    assert_eq!(Unfit::Unreadable(Errno(libc::EIO)).to_string(), "unreadable: I/O error (EIO)");
}

fn links_are_told_on_request_and_never_made() {
    let place = Place::new();
    fs::create_dir(place.from.join("sub")).unwrap();
    symlink("/etc/shadow", place.from.join("a")).unwrap();
    symlink(OsStr::from_bytes(b"../no\xffwhere"), place.from.join("sub/b")).unwrap();
    let left = Collector::new().copy(&place.from, &place.to).unwrap();
    assert_eq!((left.left.len(), left.symlinks.len(), left.bytes), (2, 0, 0), "by default they are left");

    let to = place.dir.path().join("again");
    let told = Collector::new().symlinks().copy(&place.from, &to).unwrap();
    let links: Vec<_> = told.symlinks.iter().map(|link| (link.path.as_os_str(), link.target.as_os_str())).collect();
    let expected = [("a", &b"/etc/shadow"[..]), ("sub/b", b"../no\xffwhere")];
    let expected = expected.map(|(path, target)| (OsStr::new(path), OsStr::from_bytes(target)));
    assert_eq!((links.as_slice(), told.left.as_slice()), (expected.as_slice(), [].as_slice()));
    assert_eq!(told.bytes, 11 + 11, "what they say is counted");
    assert!(!exists(to.join("a")) && !exists(to.join("sub/b")), "none is made");
    let too_much = Collector::new().symlinks().max_bytes(20).copy(&place.from, place.dir.path().join("third"));
    assert!(matches!(too_much, Err(Error::Exceeded { .. })), "{too_much:?}");
    // One file is read, and no link followed, whatever else is asked for.
    let read = Collector::new().symlinks().read(&place.from, "a");
    assert!(read.as_ref().is_err_and(|error| error.to_string().contains("is a symbolic link")), "{read:?}");
}

fn what_came_of_it_is_the_same_after_a_trip_through_json() {
    let place = Place::new();
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        let name = |kind: u8| place.from.join(OsStr::from_bytes(&[kind, byte, b'x']));
        symlink(OsStr::from_bytes(&[byte]), name(b'l')).unwrap();
        mkfifo(&name(b'f'), Mode::S_IRWXU).unwrap();
    }
    let collected = Collector::new().symlinks().copy(&place.from, &place.to).unwrap();
    assert_eq!((collected.symlinks.len(), collected.left.len()), (254, 254));
    let json = serde_json::to_string(&collected).unwrap();
    assert_eq!(serde_json::from_str::<Collected>(&json).unwrap(), collected);
    assert!(json.contains(r#""path":"laxx"#) || json.contains(r#""path":"lax""#), "text is text: {json}");
}

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

fn what_a_program_has_left_is_removed() {
    let place = Place::new();
    plant(&place.from);
    if !is_root() {
        let error = fs::remove_dir_all(&place.from).expect_err("std gives up at a directory without rights");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
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

fn several_remove_the_same_at_once() {
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
fn the_work_directory_of_an_overlay_is_removed() {
    let place = Place::new();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.from.join(name));
    [&lower, &upper, &work].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let overlay = Overlay::new("/tmp/overlay").lower(&lower).upper(&upper, &work);
    let sandbox = Sandbox::new().root(Root::host().mount(overlay));
    let status = sandbox.status(Command::new("sh").args(["-c", "echo >/tmp/overlay/file"])).unwrap();
    assert!(status.success() && exists(upper.join("file")));
    if !is_root() {
        assert!(fs::remove_dir_all(&place.from).is_err(), "std gives up at work/work");
    }
    remove_dir_all(&place.from).unwrap();
    assert!(!exists(&place.from));
}

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

fn host_that_removes_much(args: &[String]) -> i32 {
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
fn what_another_user_owns_is_said_to_stay() {
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

fn host_that_removes_of_another(args: &[String]) -> i32 {
    let from = Path::new(&args[0]);
    let refused = |path: &Path| {
        let error = remove_dir_all(path).expect_err("another user's directory");
        let Error::Collect { path, errno, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*errno, Errno(libc::EACCES), "{error}");
        assert!(error.to_string().contains("belongs to another user"), "{error}");
        path.clone()
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

fn what_is_immutable_is_said_to_stay() {
    let place = Place::new();
    for (flag, path) in [("i", place.file("sub/file", "")), ("a", place.from.join("sub"))] {
        let set =
            |sign| assert!(Host::new("chattr").arg(format!("{sign}{flag}")).arg(&path).status().unwrap().success());
        set('+');
        let removed = remove_dir_all(&place.from);
        set('-');
        let error = removed.expect_err("it is immutable").to_string();
        let said = format!(
            "removing {path:?}: unlinkat: Operation not permitted (EPERM): it, or the directory that it is in,"
        );
        assert!(error.starts_with(&said) && error.contains("chattr(1)"), "{error}");
    }
    remove_dir_all(&place.from).unwrap();
}

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
    let no_directory = "openat: Not a directory (ENOTDIR): it is a symlink or a file: if it is yours, remove it by \
                        std::fs::remove_file";
    assert_eq!(says((&link).into()), format!(r#"removing "/a link": {no_directory}"#));
    assert_eq!(says(HostPath::new(&link).follow_symlinks()), format!(r#"removing "/a link": {no_directory}"#));
    assert_eq!(says((&file).into()), format!(r#"removing "/file": {no_directory}"#));
    assert!(says(HostPath::beneath(place.dir.path(), "a link/sub")).contains("HostPath::beneath never follows"));
    for nothing in ["", ".", "..", "sub/.."] {
        let error = remove_dir_all(HostPath::beneath(place.dir.path(), nothing)).expect_err("what is not below");
        assert!(matches!(error, Error::Collect { errno: Errno(libc::EINVAL), .. }), "{nothing:?}: {error}");
    }
    assert!(says("/".into()).contains("give a path that ends in"));

    symlink(&outside, place.from.join("inside")).unwrap();
    remove_dir_all(&place.from).unwrap();
    assert!(exists(outside.join("kept")) && exists(&link) && exists(&file) && !exists(&place.from));
}

fn what_is_mounted_is_not_removed() {
    let place = Place::new();
    set_mode(place.dir.path(), 0o777);
    fs::create_dir_all(place.from.join("sub/mounted")).unwrap();
    fs::create_dir(place.dir.path().join("elsewhere")).unwrap();
    fs::write(place.dir.path().join("elsewhere/kept"), "").unwrap();
    let mounts = "cd \"$dir\"; mount --bind elsewhere from/sub/mounted";
    in_mount_namespace(mounts, "removes_mounts", place.dir.path());
    assert!(exists(place.dir.path().join("elsewhere/kept")));
}

fn host_that_removes_mounts(args: &[String]) -> i32 {
    let from = Path::new(&args[0]).join("from");
    let said = remove_dir_all(&from).expect_err("a mount is in the way").to_string();
    let mounted = from.join("sub/mounted");
    let busy = "unlinkat: Device or resource busy (EBUSY): something is mounted there: unmount it first";
    assert_eq!(said, format!("removing {mounted:?}: {busy}"));
    assert!(exists(mounted.join("kept")));
    0
}
