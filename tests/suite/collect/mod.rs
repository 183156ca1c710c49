//! Collecting the files of a program: what is copied, what is skipped, limits, and the report. Hostile programs are in
//! `tests/suite/attacks/outputs.rs`.

mod removal;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{
    self, at_most, descriptors, exists, in_mount_namespace, is_root, on_host, shared_dir, unless_mounts,
};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknod, umask};
use nix::unistd::{chown, mkfifo};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use stockade::collect::{Collected, Collector, SkipReason};
use stockade::mount::HostPath;
use stockade::{Errno, Error, ErrorKind};
use tempfile::TempDir;

payloads![
    ("refused_openat2", caller_without_openat2),
    ("few", caller_with_few_descriptors),
    ("collect_under_umask", caller_with_a_umask),
    ("count_descriptors", caller_that_counts_descriptors),
    ("mounted", caller_with_mounts),
    ("full_target", caller_with_a_full_target),
    ("fake", caller_with_a_fake_proc),
];

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

fn left(collected: &Collected) -> Vec<(&str, SkipReason)> {
    collected.skipped.iter().map(|left| (left.path.to_str().expect("a plain name"), left.reason)).collect()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    path.as_ref().symlink_metadata().expect("metadata").mode() & 0o7777
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
}

#[apply(test)]
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

#[apply(test)]
fn copies_are_new_files_of_the_caller() {
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
    let _ = place.copy(&Collector::new());
    for (of, expected) in modes {
        let copy = place.to.join(format!("{of:o}"));
        assert_eq!(mode(&copy), expected, "{of:o}");
        let meta = copy.metadata().unwrap();
        assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
        assert!(meta.modified().unwrap().elapsed().unwrap_or_default() < Duration::from_secs(3600));
    }
    assert_eq!((mode(place.to.join("directory")), mode(&place.to)), (0o755, 0o755));
}

#[apply(test)]
fn empty_directories_are_copied() {
    let place = Place::new();
    let none = Collector::new().max_bytes(0).max_entries(0).max_depth(0);
    assert_eq!(place.copy(&none), Collected::default());
    assert!(tree(&place.to).is_empty());
}

#[apply(test)]
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
    assert_eq!((collected.files, collected.skipped.len(), &collected.skipped[0].path), (16, 1, &pipe));
    assert_eq!(collected.skipped[0].to_string(), r#""sub/pipe \xFF\n": a FIFO, a socket or a device"#);
    fs::remove_file(place.from.join(pipe)).unwrap();
    assert_eq!(tree(&place.to), tree(&place.from));
    for name in names {
        assert_eq!(Collector::new().read(&place.from, OsStr::from_bytes(name)).as_deref(), Ok(name));
    }
}

#[apply(test)]
fn special_files_are_skipped() {
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
        ("absolute", SkipReason::Symlink),
        ("inside", SkipReason::Symlink),
        ("loop", SkipReason::Symlink),
        ("none", SkipReason::Symlink),
        ("sub/fifo", SkipReason::Special),
        ("sub/socket", SkipReason::Special),
        ("sub/up", SkipReason::Symlink),
        ("zz hard", SkipReason::HardLink),
    ];
    assert_eq!((left(&collected), counts(&collected)), (expected.to_vec(), (1, 1, 4)));
    assert_eq!(tree(&place.to).into_keys().collect::<Vec<_>>(), [Path::new("file"), Path::new("sub")]);
    let words: Vec<String> = collected.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(words[0], r#""absolute": a symlink"#);
    assert_eq!(words[7], r#""zz hard": a file with several hard links"#);
}

#[apply(test)]
#[only(Root)]
fn device_nodes_are_skipped() {
    let place = Place::new();
    for (name, kind, device) in [("zero", SFlag::S_IFCHR, (1, 5)), ("loop", SFlag::S_IFBLK, (7, 0))] {
        mknod(&place.from.join(name), kind, Mode::S_IRWXU, libc::makedev(device.0, device.1)).unwrap();
    }
    let collected = place.copy(&Collector::new());
    assert_eq!(left(&collected), [("loop", SkipReason::Special), ("zero", SkipReason::Special)]);
}

#[apply(test)]
#[only(User)]
fn unreadable_files_are_skipped() {
    let place = Place::new();
    set_mode(place.file("closed/file", ""), 0o644);
    set_mode(place.file("listed/file", ""), 0o644);
    set_mode(place.file("secret", ""), 0);
    set_mode(place.from.join("closed"), 0o300);
    set_mode(place.from.join("listed"), 0o400);
    let why = SkipReason::Unreadable(Errno::EACCES);
    let collected = place.copy(&Collector::new());
    assert_eq!(left(&collected), [("closed", why), ("listed", why), ("secret", why)]);
    assert_eq!(collected.skipped[0].to_string(), r#""closed": unreadable: Permission denied (EACCES)"#);
    assert!(tree(&place.to).is_empty());
    let remedy = "Permission denied (EACCES): the caller may not read it: make the program set read permission, or \
                  collect as root";
    assert_eq!(place.read_says("secret"), format!("failed to collect /from/secret: open: {remedy}"));
    set_mode(&place.from, 0o300);
    fs::remove_dir_all(&place.to).unwrap();
    assert_eq!(place.says(&Collector::new()), format!("failed to collect from /from: openat2: {remedy}"));
    for path in ["", "closed", "listed"] {
        set_mode(place.from.join(path), 0o700);
    }
}

#[apply(test)]
fn hard_linked_files_are_copied_only_on_request() {
    let place = Place::new();
    fs::hard_link(place.file("a", "linked"), place.from.join("b")).unwrap();
    let (strict, lax) = (Collector::new(), Collector::new().hard_links());
    assert_eq!(left(&place.copy(&strict)), [("a", SkipReason::HardLink), ("b", SkipReason::HardLink)]);
    fs::remove_dir(&place.to).unwrap();
    assert_eq!(counts(&place.copy(&lax)), (2, 0, 12));
    assert_eq!(place.to.join("a").metadata().unwrap().nlink(), 1, "copies are files of their own");
    assert_eq!(lax.read(&place.from, "b").unwrap(), b"linked");
    assert_eq!(
        place.read_says("b"),
        "failed to collect /from/b: it is a file with several hard links: make the program write a copy, or set \
         Collector::hard_links: the file may be one that the program cannot read"
    );
}

fn caller_with_mounts(args: &[String]) -> i32 {
    let place = Path::new(&args[0]);
    let (from, to) = (place.join("from"), place.join("to"));
    let collected = Collector::new().copy(&from, &to).unwrap();
    assert_eq!(
        left(&collected),
        [("bound", SkipReason::Mount), ("file", SkipReason::Mount), ("sub/tmpfs", SkipReason::Mount)]
    );
    assert_eq!(counts(&collected), (0, 1, 0));
    let error = Collector::new().read(&from, "sub/tmpfs/file").unwrap_err();
    assert_eq!((error.skip_reason(), error.path()), (Some(SkipReason::Mount), Some(&*from.join("sub/tmpfs"))));
    let path = from.join("sub/tmpfs");
    let expected =
        format!("failed to collect {}: it is a mount point: collect from it with its own path", path.display());
    assert_eq!(error.to_string(), expected);
    // What is mounted at the directory itself is what the caller has named.
    assert_eq!(Collector::new().read(from.join("sub/tmpfs"), "file").unwrap(), b"mounted\n");
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn mounts_are_skipped() {
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

#[apply(test)]
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
    assert_eq!(
        (error.io_kind(), error.errno(), error.path()),
        (io::ErrorKind::QuotaExceeded, None, Some(&*place.from))
    );
    assert_eq!(
        place.words(&error),
        "failed to collect from /from: the 3 bytes of \"sub/c\", after 4 bytes of other files, exceed the limit of 6 \
         bytes: raise Collector::max_bytes, or change the program so that it writes less"
    );
    let said = "failed to collect from /from: the 4 bytes of \"a\" exceed the limit of 0 bytes: raise \
                Collector::max_bytes, or change the program so that it writes less";
    assert_eq!(place.says(&exactly(0)), said);
    assert_eq!(exactly(4).read(&place.from, "a").unwrap(), b"1234");
    assert_eq!(exactly(u64::MAX).read(&place.from, "a").unwrap(), b"1234");
    assert_eq!(exactly(0).read(&place.from, "b").unwrap(), b"");
    assert_eq!(place.words(&exactly(0).read(&place.from, "a").unwrap_err()), said);
}

#[apply(test)]
fn sparse_files_count_by_the_bytes_read() {
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
        assert_eq!(error.errno(), Some(Errno::ENOMEM), "{error}");
    }
}

/// Files of sysfs have the size of a page, and hold a line: to who copies they are cut after they were opened.
const SHORT: &str = "/sys/class/net/lo/statistics";

fn unless_sysfs() -> Option<String> {
    (!exists(SHORT)).then(|| format!("{SHORT} has files that are shorter than their size"))
}

#[apply(test)]
#[skip(unless_sysfs)]
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

#[apply(test)]
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
                "failed to collect from /from: it has more than {less} entries: raise Collector::max_entries, or \
                 change the program so that it creates fewer files"
            )
        );
    }
}

#[apply(test)]
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
                "failed to collect from /from: {path:?} is deeper than {less} levels: raise Collector::max_depth, or \
                 change the program so that it nests directories less"
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

#[apply(test)]
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
            "failed to collect from /from: a path below \"{name}\" is longer than 4095 bytes (PATH_MAX): change the \
             program so that it nests directories less, or gives them shorter names"
        )
    );
}

#[apply(test)]
fn one_file_is_read_by_its_path() {
    let place = Place::new();
    place.file("a", "top");
    place.file("sub/deep/b", "deep");
    let contents = support::touched(300_000);
    place.file("large", &contents);
    let read = |path: &str| Collector::new().read(&place.from, path).unwrap();
    assert_eq!((read("a"), read("./sub//deep/./b"), read("large")), (b"top".into(), b"deep".into(), contents));
}

#[apply(test)]
fn skipped_entries_are_reported() {
    let place = Place::new();
    place.file("sub/file", "");
    place.file("secret", "");
    symlink("sub", place.from.join("link")).unwrap();
    symlink("../secret", place.from.join("sub/link")).unwrap();
    mkfifo(&place.from.join("fifo"), Mode::S_IRWXU).unwrap();
    let symlink =
        "a symlink: make the program write the file itself: symlinks are not followed, because they may lead anywhere";
    let fifo = "a FIFO, a socket or a device: make the program write a regular file: opening any other may block, or \
                trigger a device";
    for (path, name, reason, said) in [
        ("link", "link", SkipReason::Symlink, symlink),
        ("link/file", "link", SkipReason::Symlink, symlink),
        ("link/a/b/c", "link", SkipReason::Symlink, symlink),
        ("sub/link", "sub/link", SkipReason::Symlink, symlink),
        ("fifo", "fifo", SkipReason::Special, fifo),
    ] {
        let error = Collector::new().read(&place.from, path).unwrap_err();
        assert_eq!((error.kind(), error.skip_reason()), (ErrorKind::Io, Some(reason)), "{path}: {error}");
        assert_eq!((error.io_kind(), error.path()), (io::ErrorKind::InvalidData, Some(&*place.from.join(name))));
        assert_eq!(place.words(&error), format!("failed to collect /from/{name}: it is {said}"), "{path}");
    }
    let outside = "may lead out of it: pass the path of the file relative to the directory, without `..`";
    for path in ["..", "sub/../secret", "/etc/passwd"] {
        let error = Collector::new().read(&place.from, path).unwrap_err();
        assert_eq!((error.kind(), error.skip_reason()), (ErrorKind::InvalidConfiguration, None), "{path}: {error}");
        assert_eq!(place.words(&error), format!("{path:?} below \"/from\" {outside}"));
    }
    for path in ["sub", "", "."] {
        let error = Collector::new().read(&place.from, path).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Io, Some(Errno::EISDIR)), "{path}: {error}");
        let said =
            "openat2: Is a directory (EISDIR): pass the path of a file, or copy the directory with Collector::copy";
        assert!(place.words(&error).ends_with(said), "{path}: {error}");
        assert_eq!(error.skip_reason(), None);
    }
    let missing = "No such file or directory (ENOENT): check that the program has written it";
    let below_file = "Not a directory (ENOTDIR): pass a path whose components but the last are directories";
    let zero = "Invalid argument (EINVAL): see ERRORS in openat2(2)";
    for (path, errno, kind, said) in [
        ("none", libc::ENOENT, io::ErrorKind::NotFound, missing),
        ("none/file", libc::ENOENT, io::ErrorKind::NotFound, missing),
        ("secret/file", libc::ENOTDIR, io::ErrorKind::NotADirectory, below_file),
        ("a\0b", libc::EINVAL, io::ErrorKind::InvalidInput, zero),
    ] {
        let error = Collector::new().read(&place.from, path).unwrap_err();
        assert_eq!((error.errno(), error.io_kind()), (Some(Errno::new(errno)), kind), "{path}");
        assert_eq!(error.path(), Some(&*place.from.join(path)));
        let path = Path::new("/from").join(path).display().to_string().replace('\0', "\\0");
        assert_eq!(place.words(&error), format!("failed to collect {path}: openat2: {said}"));
        assert_eq!(std::io::Error::from(error).kind(), kind);
    }
}

#[apply(test)]
fn files_that_cannot_be_copied_are_reported() {
    let place = Place::new();
    let file = place.file("file", "");
    let says = |from: &Path, to: &Path| {
        let error = Collector::new().copy(from, to).expect_err("a copy");
        (error.io_kind(), place.words(&error))
    };
    let none = place.dir.path().join("none");
    let said = "failed to collect from /none: openat2: No such file or directory (ENOENT): pass a path that exists";
    assert_eq!(says(&none, &place.to), (io::ErrorKind::NotFound, said.into()));
    assert_eq!(place.words(&Collector::new().read(&none, "file").unwrap_err()), said);
    let said = "failed to collect from /from/file: openat2: Not a directory (ENOTDIR): pass a path whose components \
                but the last are directories";
    assert_eq!(says(&file, &place.to), (io::ErrorKind::NotADirectory, said.into()));
    let said = "failed to copy to /none/to: realpath: No such file or directory (ENOENT): create the parent directory \
                of the copy first";
    assert_eq!(says(&place.from, &none.join("to")), (io::ErrorKind::NotFound, said.into()));
    assert!(!exists(&place.to) && !exists(&none));

    // What is there stays as it is, whatever it is.
    fs::create_dir(&place.to).unwrap();
    fs::write(place.to.join("own"), "own").unwrap();
    symlink("none", place.dir.path().join("dangling")).unwrap();
    let said = |to| {
        format!(
            "failed to copy to /{to}: mkdirat: File exists (EEXIST): the copy must be a new directory: pass a path \
             that does not exist"
        )
    };
    for to in ["to", "from", "from/file", "dangling"] {
        assert_eq!(says(&place.from, &place.dir.path().join(to)), (io::ErrorKind::AlreadyExists, said(to)));
    }
    assert_eq!(fs::read(place.to.join("own")).unwrap(), b"own");
    assert!(!exists(&none));
}

#[apply(test)]
fn a_copy_into_its_own_source_is_refused() {
    let place = Place::new();
    place.file("sub/file", "file");
    let before = tree(&place.from);
    for to in ["copy", "sub/copy"] {
        let error = Collector::new().copy(&place.from, place.from.join(to)).unwrap_err();
        let said = format!(
            "the copy \"/from/{to}\" is below the source \"/from\": copy to a directory that the program cannot write \
             to"
        );
        assert_eq!(place.words(&error), said);
        assert_eq!(tree(&place.from), before);
    }
}

fn caller_with_a_full_target(args: &[String]) -> i32 {
    let place = Path::new(&args[0]);
    let to = place.join("full/to");
    let error = Collector::new().copy(place.join("from"), &to).unwrap_err();
    let hint = "free space on the file system, or raise the quota";
    let said = format!(
        "failed to copy to {}: write: No space left on device (ENOSPC): {hint}",
        to.join("sub/large").display()
    );
    assert_eq!((error.to_string(), error.io_kind()), (said, io::ErrorKind::StorageFull));
    assert!(!exists(to));
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_full_file_system_leaves_no_partial_copy() {
    let place = Place::new();
    place.file("sub/large", support::touched(1 << 20));
    fs::create_dir(place.dir.path().join("full")).unwrap();
    in_mount_namespace("mount -t tmpfs -o size=64k,mode=777 none \"$dir/full\"", "full_target", place.dir.path());
}

fn caller_with_a_fake_proc(args: &[String]) -> i32 {
    let from = Path::new(&args[0]).join("from");
    // Whatever is opened by the number of its descriptor is another file.
    let file = File::open(from.join("file")).unwrap();
    let by_number = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(by_number, fs::read("/etc/passwd").unwrap());
    let error = Collector::new().read(&from, "file").unwrap_err();
    let said = "failed to open /proc/self/fd: /proc of the caller is not a proc file system: mount /proc: files are \
                opened through /proc/self/fd";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Io, said));
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_fake_proc_is_not_trusted() {
    let place = Place::new();
    place.file("file", "");
    let fake = "mount -t tmpfs none /proc; mkdir -p /proc/self/fd; for fd in $(seq 0 20); do \
                ln -s /etc/passwd /proc/self/fd/$fd; done; exec \"$@\"";
    let namespaces = if is_root() { "-m" } else { "-Urm" };
    on_host(&["unshare", namespaces, "sh", "-ec", fake, "sh"], "fake", &[place.dir.path().to_str().unwrap()]);
}

fn caller_without_openat2(args: &[String]) -> i32 {
    let errno: u32 = args[0].parse().unwrap();
    let (from, to) = (Path::new(&args[1]), Path::new(&args[2]));
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let rules = BTreeMap::from([(libc::SYS_openat2, vec![])]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
    let answer = Errno::new(errno as i32);
    let expected = format!(
        "failed to collect from {}: openat2: {answer}: the kernel (before Linux 5.6) or a seccomp filter of the \
         caller, such as that of a container, denies openat2(2): update the kernel, or allow the call",
        from.display()
    );
    for error in [Collector::new().copy(from, to).unwrap_err(), Collector::new().read(from, "file").unwrap_err()] {
        assert_eq!(error.to_string(), expected);
    }
    assert!(!exists(to));
    0
}

#[apply(test)]
fn a_missing_openat2_is_an_error() {
    let place = Place::new();
    place.file("file", "");
    for errno in [libc::ENOSYS, libc::EPERM] {
        let args = [&errno.to_string(), place.from.to_str().unwrap(), place.to.to_str().unwrap()];
        on_host(&[], "refused_openat2", &args);
    }
}

fn caller_with_few_descriptors(args: &[String]) -> i32 {
    let (from, to) = (Path::new(&args[0]), Path::new(&args[1]));
    let before = descriptors();
    let error = Collector::new().copy(from, to).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EMFILE), "{error}");
    let remedy = "the caller is at its limit of open descriptors: close some, or raise RLIMIT_NOFILE";
    assert_eq!(error.hint(), Some(remedy));
    assert!(!exists(to) && descriptors() == before, "{error}");
    0
}

/// Nothing is left out of a copy because the caller is short of something.
#[apply(test)]
fn running_out_of_descriptors_is_an_error() {
    let place = Place::new();
    drop(nest(&place.from, "x", 40, |_| {}));
    for limit in 16..24 {
        let limit = format!("--nofile={limit}");
        on_host(&["prlimit", &limit], "few", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
    }
}

fn caller_with_a_umask(args: &[String]) -> i32 {
    let (from, to) = (Path::new(&args[0]), Path::new(&args[1]));
    umask(Mode::from_bits_truncate(0o777));
    let _ = Collector::new().copy(from, to).unwrap();
    assert_eq!(umask(Mode::empty()).bits(), 0o777);
    let modes = ["", "sub", "sub/file", "program"].map(|path| mode(to.join(path)));
    assert_eq!(modes, [0o755, 0o755, 0o644, 0o755]);
    0
}

#[apply(test)]
fn copied_modes_do_not_depend_on_the_umask() {
    let place = Place::new();
    place.file("sub/file", "");
    set_mode(place.file("program", ""), 0o700);
    on_host(&[], "collect_under_umask", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
}

fn caller_that_counts_descriptors(args: &[String]) -> i32 {
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

#[apply(test)]
fn no_descriptor_leaks() {
    let place = Place::new();
    place.file("sub/deep/file", "contents");
    symlink("sub", place.from.join("link")).unwrap();
    on_host(&[], "count_descriptors", &[place.from.to_str().unwrap(), place.to.to_str().unwrap()]);
}

#[apply(test)]
fn a_collector_is_plain_data() {
    let collector = Collector::new().max_bytes(u64::MAX).max_entries(0).max_depth(u32::MAX).hard_links();
    let json = serde_json::to_string(&collector).unwrap();
    assert_eq!(serde_json::from_str::<Collector>(&json).unwrap(), collector);
    assert_ne!(collector, Collector::new());
    let defaults = Collector::new().max_bytes(1 << 30).max_entries(10_000).max_depth(64);
    assert_eq!(Collector::default(), defaults);
    assert_eq!(SkipReason::Unreadable(Errno::EIO).to_string(), "unreadable: I/O error (EIO)");
}

#[apply(test)]
fn symlinks_are_reported_on_request_and_never_created() {
    let place = Place::new();
    fs::create_dir(place.from.join("sub")).unwrap();
    symlink("/etc/shadow", place.from.join("a")).unwrap();
    symlink(OsStr::from_bytes(b"../no\xffwhere"), place.from.join("sub/b")).unwrap();
    let left = Collector::new().copy(&place.from, &place.to).unwrap();
    assert_eq!((left.skipped.len(), left.symlinks.len(), left.bytes), (2, 0, 0), "by default they are left");

    let to = place.dir.path().join("again");
    let told = Collector::new().symlinks().copy(&place.from, &to).unwrap();
    let links: Vec<_> = told.symlinks.iter().map(|link| (link.path.as_os_str(), link.target.as_os_str())).collect();
    let expected = [("a", &b"/etc/shadow"[..]), ("sub/b", b"../no\xffwhere")];
    let expected = expected.map(|(path, target)| (OsStr::new(path), OsStr::from_bytes(target)));
    assert_eq!((links.as_slice(), told.skipped.as_slice()), (expected.as_slice(), [].as_slice()));
    assert_eq!(told.bytes, 11 + 11, "what they say is counted");
    assert!(!exists(to.join("a")) && !exists(to.join("sub/b")), "none is made");
    let too_much = Collector::new().symlinks().max_bytes(20).copy(&place.from, place.dir.path().join("third"));
    assert_eq!(too_much.as_ref().map_err(Error::kind).err(), Some(ErrorKind::LimitExceeded), "{too_much:?}");
    // One file is read, and no link followed, whatever else is asked for.
    let read = Collector::new().symlinks().read(&place.from, "a");
    assert!(read.as_ref().is_err_and(|error| error.to_string().contains("is a symlink")), "{read:?}");
}

#[apply(test)]
fn only_the_named_paths_are_copied_and_no_symlink_on_the_way_is_followed() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "key").unwrap();
    place.file("out/a", "a");
    place.file("out/scratch", "scratch");
    place.file("tree/sub/b", "b");
    place.file("file", "file");
    symlink(&secret, place.from.join("link")).unwrap();
    symlink("sub", place.from.join("tree/inner")).unwrap();
    assert_eq!(fs::read(place.from.join("link/key")).unwrap(), b"key", "the symlink leads there");

    let paths = ["out/a", "tree", "tree/sub/b", "link/key", "file/below", "missing/too", "./file"];
    let collected = Collector::new().symlinks().copy_only(&place.from, paths, &place.to).unwrap();
    let copied = ["out/a", "tree/sub/b", "file"].map(|path| fs::read_to_string(place.to.join(path)).unwrap());
    assert_eq!(copied, ["a", "b", "file"]);
    assert_eq!((collected.files, collected.directories), (3, 3));
    assert!(!exists(place.to.join("out/scratch")) && !exists(place.to.join("link")));
    let links: Vec<_> = collected.symlinks.iter().map(|link| link.path.to_str().unwrap()).collect();
    assert_eq!(links, ["link", "tree/inner"]);

    // Without the request for targets the symlinks are skipped, as in a whole copy.
    let again = place.dir.path().join("again");
    let collected = Collector::new().copy_only(&place.from, ["link/key", "out"], &again).unwrap();
    let skipped = collected.skipped.iter().map(|skipped| (skipped.path.to_str().unwrap(), skipped.reason));
    assert_eq!(skipped.collect::<Vec<_>>(), [("link", SkipReason::Symlink)]);
    assert_eq!(collected.files, 2);
}

#[apply(test)]
fn named_paths_stay_below_the_directory_and_count() {
    let place = Place::new();
    place.file("a", "a");
    place.file("sub/b", "b");
    let copy = |paths: &[&str], entries: u64, to: &str| {
        let collector = Collector::new().max_entries(entries);
        collector.copy_only(&place.from, paths, place.dir.path().join(to)).map_err(|error| error.kind())
    };
    for path in ["../to", "/etc/passwd", "sub/../../x", "a\0"] {
        assert_eq!(copy(&[path], 10, "refused").err(), Some(ErrorKind::InvalidConfiguration), "{path:?}");
    }
    assert_eq!(copy(&["a", "sub/b"], 2, "refused").err(), Some(ErrorKind::LimitExceeded));
    assert!(!exists(place.dir.path().join("refused")));
    assert_eq!(copy(&["a", "sub/b"], 3, "exact").unwrap().files, 2);
    assert_eq!(copy(&["."], 3, "whole").unwrap().files, 2);
    assert_eq!(copy(&[], 0, "none").unwrap().files, 0);
}

#[apply(test)]
fn a_named_path_of_many_directories_is_only_missing() {
    let place = Place::new();
    place.file("a", "a");
    // If each level dropped the next one, these would overflow the stack of a thread.
    let deep = "x/".repeat(100_000);
    let collected = Collector::new().copy_only(&place.from, [&*deep, "a"], &place.to).unwrap();
    assert_eq!((collected.files, collected.directories), (1, 0));
}

#[apply(test)]
fn the_result_survives_json() {
    let place = Place::new();
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        let name = |kind: u8| place.from.join(OsStr::from_bytes(&[kind, byte, b'x']));
        symlink(OsStr::from_bytes(&[byte]), name(b'l')).unwrap();
        mkfifo(&name(b'f'), Mode::S_IRWXU).unwrap();
    }
    let collected = Collector::new().symlinks().copy(&place.from, &place.to).unwrap();
    assert_eq!((collected.symlinks.len(), collected.skipped.len()), (254, 254));
    let json = serde_json::to_string(&collected).unwrap();
    assert_eq!(serde_json::from_str::<Collected>(&json).unwrap(), collected);
    assert!(json.contains(r#""path":"laxx"#) || json.contains(r#""path":"lax""#), "text is text: {json}");
}
