//! Output directories: a caller collects files from a directory in which a program has created hostile entries.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command as Host;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknod};
use nix::unistd::mkfifo;
use stockade::collect::{Collected, Collector, SkipReason, remove_dir_all};
use stockade::{Child, Error, ErrorKind, Root, Sandbox, Stdio};
use tempfile::TempDir;

use crate::attacks::common::{Attempts, Bystander, attack, attempt, bare, here, line, open_directory, tell};
use crate::attacks::sys::numbers;
use crate::support::{
    at_most, exists, is_root, payload, rounds, shared_dir, unless_idmapped_mounts, unless_idmapped_tmpfs, with_payload,
};
use stockade::Errno;

payloads![
    ("plant_links", plant_links),
    ("plant_what_blocks", plant_what_blocks),
    ("plant_without_end", plant_without_end),
    ("hold_a_lease", hold_a_lease),
    ("grow", grow),
    ("swap", swap),
    ("lure", lure),
    ("carry_off", carry_off),
];

const SECRET: &[u8] = b"the host's secret\n";

/// A directory for outputs, a secret of the host's beside it, and room for what is collected.
struct Place {
    dir: TempDir,
    out: PathBuf,
    secret: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::at(shared_dir())
    }

    /// The same in memory, where the kernel lets a root caller's sandbox write there: for what makes many files.
    fn in_memory() -> Self {
        let dir = tempfile::Builder::new().prefix("test-").tempdir_in("/dev/shm");
        let Some(dir) = dir.ok().filter(|_| unless_idmapped_tmpfs().is_none()) else { return Self::new() };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self::at(dir)
    }

    fn at(dir: TempDir) -> Self {
        let (out, secret) = (dir.path().join("shared/out"), dir.path().join("shared/secret"));
        open_directory(&out);
        open_directory(&secret);
        fs::write(secret.join("file"), SECRET).unwrap();
        Self { dir, out, secret }
    }

    /// The default sandbox with the directory for outputs in it.
    fn sandbox(&self) -> Sandbox {
        Sandbox::new().root(with_payload(Root::host()).bind_rw(&self.out, "/out"))
    }

    fn new_path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Collects all, in which the secret must not be, and of which no more is said than there is, and takes it away
    /// again.
    #[track_caller]
    fn collect(&self, collector: &Collector) -> Result<Collected, Error> {
        let to = self.new_path("collected");
        let collected = collector.copy(&self.out, &to);
        if let Ok(collected) = &collected {
            assert_eq!(with_the_secret(&to), Vec::<PathBuf>::new());
            assert_eq!(files(&to).iter().map(|file| file.metadata().unwrap().len()).sum::<u64>(), collected.bytes);
            fs::remove_dir_all(&to).unwrap();
        }
        assert!(!exists(&to), "nothing stays of what failed");
        collected
    }
}

/// The files below a directory.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap()) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Those of them that have the secret in them.
fn with_the_secret(path: &Path) -> Vec<PathBuf> {
    let has = |file: &PathBuf| fs::read(file).is_ok_and(|contents| contents.starts_with(SECRET));
    files(path).into_iter().filter(has).collect()
}

fn why(collected: &Collected, path: &str) -> Option<SkipReason> {
    collected.skipped.iter().find(|left| left.path == Path::new(path)).map(|left| left.reason)
}

/// Names that lead to the secret, and some that lead nowhere.
const LEADING: [&str; 9] =
    ["absolute", "relative", "chain", "up", "directory/file", "below/deep/file", "by-proc", "hard", "below/hard"];

fn plant_links(args: &[String]) -> i32 {
    let (out, secret) = (Path::new(&args[0]), Path::new(&args[1]));
    let beside = out.join("../secret/file");
    attempt("read the secret", fs::read(&beside));
    open_directory(&out.join("below"));
    let up = Path::new("../../../../../../../../../..").join(secret.strip_prefix("/").unwrap());
    let links: [(&str, &Path); 9] = [
        ("absolute", &secret.join("file")),
        ("relative", Path::new("../secret/file")),
        ("chain", Path::new("below/../relative")),
        ("up", &up.join("file")),
        ("directory", secret),
        ("below/deep", Path::new("../../secret")),
        ("by-proc", &Path::new("/proc/self/root").join(secret.strip_prefix("/").unwrap()).join("file")),
        ("loop", Path::new("loop")),
        ("dangling", Path::new("nowhere")),
    ];
    for (name, text) in links {
        symlink(text, out.join(name)).unwrap();
    }
    for name in ["hard", "below/hard"] {
        attempt(name, fs::hard_link(&beside, out.join(name)));
    }
    fs::write(out.join("below/own"), "own").unwrap();
    0
}

/// Attack 6: Symbolic links, to files, to directories and to each other, and hard links to a file that the program may
/// not read: the directory for outputs is on a mount with others, all of which the program has.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn outputs_that_are_links_lead_to_nothing_outside() {
    let place = Place::new();
    let shared = place.out.parent().unwrap();
    // The host's root may read it all the same.
    let mode = if is_root() { 0 } else { 0o600 };
    fs::set_permissions(place.secret.join("file"), fs::Permissions::from_mode(mode)).unwrap();
    let sandbox = Sandbox::new().root(with_payload(Root::host()).bind_rw(shared, "/tmp/shared"));
    let planted = attack(&sandbox, "plant_links", &["/tmp/shared/out", place.secret.to_str().unwrap()]);
    planted.assert_done(&["hard", "below/hard"]);
    if is_root() {
        planted.assert_refused(&["read the secret"]);
    }

    for name in LEADING {
        let naive = fs::read(place.out.join(name)).unwrap();
        assert_eq!(naive, SECRET, "{name}: whoever reads it by its path is led to the secret");
    }
    let naive = place.new_path("naive");
    let _ = Host::new("cp").arg("-rL").arg(&place.out).arg(&naive).output().unwrap();
    assert_eq!(with_the_secret(&naive).len(), LEADING.len(), "all of it is in a copy");

    let collected = place.collect(&Collector::new()).unwrap();
    assert_eq!((collected.files, collected.directories, collected.bytes), (1, 1, 3), "{collected:?}");
    for name in ["absolute", "relative", "chain", "up", "directory", "below/deep", "by-proc", "loop", "dangling"] {
        assert_eq!(why(&collected, name), Some(SkipReason::Symlink), "{name}");
    }
    for name in ["hard", "below/hard"] {
        assert_eq!(why(&collected, name), Some(SkipReason::HardLink));
    }
    for name in LEADING.into_iter().chain(["../secret/file", "below/../../secret/file", "loop", "dangling"]) {
        let read = Collector::new().read(&place.out, name);
        let reason = read.as_ref().map_err(Error::skip_reason).err().flatten();
        match name.contains("..") {
            true => assert_eq!(read.as_ref().map_err(Error::kind).err(), Some(ErrorKind::InvalidConfiguration)),
            false => assert!(matches!(reason, Some(SkipReason::Symlink | SkipReason::HardLink)), "{name}: {read:?}"),
        }
    }
    let secret = place.secret.join("file");
    assert!(Collector::new().read(&place.out, &secret).is_err());
    assert_eq!(Collector::new().read(&place.out, "below/own").unwrap(), b"own");
}

fn plant_what_blocks(args: &[String]) -> i32 {
    let out = Path::new(&args[0]);
    open_directory(&out.join("sub"));
    for name in ["fifo", "sub/fifo"] {
        mkfifo(&out.join(name), Mode::S_IRWXU).unwrap();
    }
    drop(UnixListener::bind(out.join("socket")).unwrap());
    0
}

/// A reader on the host that waits for what never comes.
#[track_caller]
fn assert_blocks(path: &Path) {
    let mut reader = Bystander::start(Host::new("cat").arg(path));
    std::thread::sleep(Duration::from_millis(200));
    assert!(reader.is_alive(), "whoever opens {path:?} waits");
}

/// Attack 6: What never answers who opens it.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn outputs_that_block_are_not_waited_for() {
    let place = Place::new();
    attack(&place.sandbox(), "plant_what_blocks", &["/out"]);
    assert_blocks(&place.out.join("sub/fifo"));

    let start = Instant::now();
    let collected = place.collect(&Collector::new()).unwrap();
    for name in ["fifo", "sub/fifo", "socket"] {
        assert_eq!(why(&collected, name), Some(SkipReason::Special), "{name}");
        assert!(
            Collector::new()
                .read(&place.out, name)
                .is_err_and(|error| error.skip_reason() == Some(SkipReason::Special))
        );
    }
    assert!(start.elapsed() < at_most(Duration::from_secs(1)), "{:?}", start.elapsed());
}

fn hold_a_lease(args: &[String]) -> i32 {
    // The signal that asks for the lease would end the process.
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGIO);
    asked.thread_block().unwrap();
    let file = File::options().write(true).open(&args[0]).unwrap();
    let words = [file.as_raw_fd().into(), libc::F_SETLEASE.into(), libc::F_WRLCK.into()];
    attempt("lease", numbers(libc::SYS_fcntl, &words));
    std::thread::sleep(Duration::from_secs(600));
    0
}

/// Attack 6: A lease on a file lets who opens it wait for 45 seconds (`fs.lease-break-time`), each time again.
#[apply(test)]
fn outputs_with_a_lease_are_not_waited_for() {
    let place = Place::new();
    let leased = place.out.join("leased");
    fs::write(&leased, "leased").unwrap();
    fs::write(place.out.join("own"), "own").unwrap();
    let mut command = here("hold_a_lease");
    let mut holder = bare().spawn(command.arg(&leased).stdout(Stdio::piped())).unwrap();
    assert_eq!(line(holder.stdout.as_mut().unwrap()), "lease: done");
    assert_blocks(&leased);

    let start = Instant::now();
    let collected = place.collect(&Collector::new()).unwrap();
    assert_eq!(
        (why(&collected, "leased"), collected.files),
        (Some(SkipReason::Unreadable(stockade::Errno::EAGAIN)), 1)
    );
    let error = Collector::new().read(&place.out, "leased").unwrap_err();
    assert!(start.elapsed() < at_most(Duration::from_secs(1)), "{:?}", start.elapsed());
    let said = format!(
        "failed to collect {}: open: Try again (EAGAIN): a process holds a lease on it (fcntl(2)): kill the sandbox \
         first",
        leased.display()
    );
    assert_eq!(error.to_string(), said);
    holder.kill().unwrap();
    let _ = holder.wait().unwrap();
    assert_eq!(Collector::new().read(&place.out, "leased").unwrap(), b"leased");
}

/// Attack 6: Device nodes that are in the directory already: the default sandbox can make none.
#[apply(test)]
#[only(Root)]
fn outputs_that_are_devices_are_not_opened() {
    let place = Place::new();
    mknod(&place.out.join("zero"), SFlag::S_IFCHR, Mode::S_IRWXU, libc::makedev(1, 5)).unwrap();
    assert_eq!(begin_to_read(&place.out.join("zero")), BOUND, "whoever reads it never comes to an end");

    let collected = place.collect(&Collector::new()).unwrap();
    assert_eq!(why(&collected, "zero"), Some(SkipReason::Special));
    assert!(
        Collector::new().read(&place.out, "zero").is_err_and(|error| error.skip_reason() == Some(SkipReason::Special))
    );
}

/// Bytes that a naive reader is let read at most.
const BOUND: u64 = 4 << 20;

fn begin_to_read(path: &Path) -> u64 {
    std::io::copy(&mut File::open(path).unwrap().take(BOUND), &mut std::io::sink()).unwrap()
}

/// Bytes of a file that is a giant; what a file of ext4 can have at most is less than the first.
const GIANTS: [u64; 2] = [1 << 50, 1 << 43];
/// More than a path can have.
const LEVELS: u32 = 2100;
const ENTRIES: u32 = 1001;

fn plant_without_end(args: &[String]) -> i32 {
    let out = Path::new(&args[0]);
    for name in ["giant", "deep", "many"] {
        open_directory(&out.join(name));
    }
    let file = File::create(out.join("giant/file")).unwrap();
    assert!(GIANTS.into_iter().any(|size| file.set_len(size).is_ok()));
    let mut at = descend(&out.join("deep"), 0);
    for _ in 0..LEVELS {
        mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
        at = openat(&at, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    for number in 0..ENTRIES {
        symlink("x", out.join(format!("many/{number}"))).unwrap();
    }
    0
}

/// Goes down in directories that are nested.
fn descend(from: &Path, levels: u32) -> OwnedFd {
    let top = open(from, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    (0..levels).fold(top, |at, _| openat(&at, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap())
}

/// Attack 6: More than anybody can copy, which the program has made in no time.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn outputs_without_end_end_at_a_limit() {
    let place = Place::in_memory();
    attack(&place.sandbox(), "plant_without_end", &["/out"]);
    let giant = place.out.join("giant/file").metadata().unwrap();
    assert!(GIANTS.contains(&giant.len()) && giant.blocks() < 100, "a giant that takes no room");
    assert_eq!(begin_to_read(&place.out.join("giant/file")), BOUND, "a naive reader begins with it");
    drop(descend(&place.out.join("deep"), LEVELS));
    assert_eq!(fs::read_dir(place.out.join("many")).unwrap().count(), ENTRIES as usize);

    let start = Instant::now();
    let to = place.new_path("collected");
    for (name, collector, limit) in [
        ("giant", Collector::new(), "max_bytes"),
        ("deep", Collector::new(), "max_depth"),
        ("many", Collector::new().max_entries(u64::from(ENTRIES) - 1), "max_entries"),
    ] {
        let error = collector.copy(place.out.join(name), &to).expect_err(name);
        assert!(error.hint().unwrap().contains(limit), "{name}: {error}");
        assert!(!exists(&to), "{name}");
    }
    assert!(
        Collector::new().read(&place.out, "giant/file").is_err_and(|error| error.kind() == ErrorKind::LimitExceeded)
    );
    assert!(start.elapsed() < at_most(Duration::from_secs(10)), "{:?}", start.elapsed());
    // Deeper than what the standard library can remove with the descriptors that it may have.
    assert!(Host::new("rm").arg("-rf").arg(place.out.join("deep")).status().unwrap().success());
}

/// Until the caller has nothing more to say, which is when standard input ends.
fn until_the_end(mut once: impl FnMut()) {
    let end = std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    while !end.is_finished() {
        once();
    }
}

/// Bytes of a file that grows, before it is cut, in turn.
const GROWN: [u64; 4] = [32 << 20, 1 << 20, 2 << 20, 4 << 20];

fn grow(args: &[String]) -> i32 {
    let path = Path::new(&args[0]).join("growing");
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    let (mut length, mut most) = (0, GROWN.into_iter().cycle());
    let mut cut = GROWN[0];
    println!("begun");
    until_the_end(|| {
        if length >= cut {
            file.set_len(0).unwrap();
            (length, cut) = (0, most.next().unwrap());
        }
        file.write_all(&[b'x'; 16 << 10]).unwrap();
        length += 16 << 10;
    });
    0
}

/// A program that goes on until it is let go.
fn start(sandbox: &Sandbox, name: &str, args: &[&str]) -> Child {
    let mut command = payload(name);
    let mut child = sandbox.spawn(command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    assert_eq!(line(child.stdout.as_mut().unwrap()), "begun");
    child
}

/// Lets it go, and gives what it has to say.
fn end(mut child: Child) -> Attempts {
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.outcome.success(), "{}", output.outcome);
    Attempts::parse(&String::from_utf8(output.stdout).unwrap())
}

/// Attack 6: A file that grows, and is cut, while it is copied.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn outputs_that_grow_are_as_long_as_they_were() {
    const MOST: u64 = 8 << 20;
    let place = Place::in_memory();
    let program = start(&place.sandbox(), "grow", &["/out"]);
    let path = place.out.join("growing");
    let limit = Instant::now() + at_most(Duration::from_secs(20));
    loop {
        let mut file = File::open(&path).unwrap();
        let before = file.metadata().unwrap().len();
        let read = std::io::copy(&mut file, &mut std::io::sink()).unwrap();
        if before <= MOST && read > MOST {
            break;
        }
        assert!(Instant::now() < limit, "a naive reader must read more than there was when it looked");
    }

    let collector = Collector::new().max_bytes(MOST);
    let (mut collected, mut refused) = (0, 0);
    while collected < rounds(100) || refused < rounds(100) {
        match place.collect(&collector) {
            Ok(all) if all.files == 1 && all.bytes <= MOST => collected += 1,
            Err(error) if error.kind() == ErrorKind::LimitExceeded => refused += 1,
            other => panic!("{other:?}"),
        }
        match collector.read(&place.out, "growing") {
            Ok(contents) => assert!(contents.len() as u64 <= MOST && contents.iter().all(|byte| *byte == b'x')),
            Err(error) if error.kind() == ErrorKind::LimitExceeded => {}
            Err(other) => panic!("{other}"),
        }
        assert!(Instant::now() < limit, "{collected} were collected, {refused} refused");
    }
    end(program);
}

fn swap(args: &[String]) -> i32 {
    let out = Path::new(&args[0]);
    open_directory(&out.join("above/sub"));
    fs::write(out.join("above/sub/file"), "own").unwrap();
    symlink(&args[1], out.join("above/link")).unwrap();
    let (sub, link) = (out.join("above/sub"), out.join("above/link"));
    let mut swaps = 0;
    println!("begun");
    until_the_end(|| {
        renameat2(AT_FDCWD, &sub, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
        swaps += 1;
    });
    tell("swaps", swaps);
    0
}

/// Attack 6: A program that lives still exchanges a directory with a symbolic link to the host's secret while it is
/// collected.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn outputs_that_are_swapped_meanwhile_lead_to_nothing_outside() {
    let place = Place::in_memory();
    let program = start(&place.sandbox(), "swap", &["/out", place.secret.to_str().unwrap()]);
    let sub = place.out.join("above/sub");
    // Who looks and then reads by the path is led astray.
    let limit = Instant::now() + at_most(Duration::from_secs(20));
    let naive = (1..).find(|_| {
        assert!(Instant::now() < limit, "the program must win against a naive caller");
        let looks_good = sub.symlink_metadata().unwrap().is_dir();
        looks_good && fs::read(sub.join("file")).is_ok_and(|contents| contents == SECRET)
    });

    // On few processors either may stand still while the other works: it goes on until both outcomes were seen.
    let limit = Instant::now() + at_most(Duration::from_secs(20));
    let goes_on = |round: u32, least: u32, both: bool| round < least || (!both && Instant::now() < limit);
    let (mut found, mut left, mut round) = (0, 0, 0);
    while goes_on(round, rounds(300), found > 0 && left > 0) {
        let collected = place.collect(&Collector::new()).unwrap();
        found += collected.files;
        left += u64::from(collected.skipped.iter().any(|left| left.reason == SkipReason::Symlink));
        round += 1;
    }
    assert!(found > 0 && left > 0, "{found} directories were collected, {left} links were left");
    // What a link says is that link's, under whichever of both names it was met.
    let (mut found, mut told, mut round) = (0, 0, 0);
    while goes_on(round, rounds(300), found > 0 && told > 0) {
        let to = place.new_path("told");
        let collected = Collector::new().symlinks().copy(&place.out, &to).unwrap();
        assert!(collected.symlinks.iter().all(|link| link.target == place.secret), "{collected:?}");
        assert_eq!((with_the_secret(&to), collected.skipped), (vec![], vec![]));
        fs::remove_dir_all(&to).unwrap();
        found += collected.files;
        told += collected.symlinks.len();
        round += 1;
    }
    assert!(found > 0 && told > 0, "{found} directories were collected, {told} links were told");
    let (mut read, mut refused, mut round) = (0, 0, 0);
    while goes_on(round, naive.unwrap().max(rounds(3000)), read > 0 && refused > 0) {
        match Collector::new().read(&place.out, "above/sub/file") {
            Ok(contents) => {
                assert_eq!(contents, b"own");
                read += 1;
            }
            Err(error) if error.skip_reason() == Some(SkipReason::Symlink) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        round += 1;
    }
    assert!(read > 0 && refused > 0, "{read} were read, {refused} were refused: the race has both outcomes");
    let swaps: u64 = end(program).get("swaps").parse().unwrap();
    assert!(swaps > 100, "{swaps} swaps");
}

/// Exchanges a directory with a link to the secret, and makes both again when the caller has removed one.
fn lure(args: &[String]) -> i32 {
    let above = Path::new(&args[0]).join("above");
    let (sub, link) = (above.join("sub"), above.join("link"));
    let mut swaps = 0;
    println!("begun");
    until_the_end(|| {
        if renameat2(AT_FDCWD, &sub, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).is_ok() {
            swaps += 1;
            return;
        }
        // The caller may remove these at once.
        let _ = fs::create_dir_all(&sub);
        let _ = fs::write(sub.join("file"), "own");
        let _ = symlink(&args[1], &link);
    });
    tell("swaps", swaps);
    0
}

/// Attack 6: A directory that is removed is exchanged for a link to one that is not.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_removal_meanwhile_removes_nothing_outside() {
    let place = Place::in_memory();
    let secret = || exists(place.secret.join("file"));
    let program = start(&place.sandbox(), "lure", &["/out", place.secret.to_str().unwrap()]);
    // Who looks and then removes by the path is led astray.
    let limit = Instant::now() + at_most(Duration::from_secs(20));
    let above = place.out.join("above");
    let sub = above.join("sub");
    while secret() {
        assert!(Instant::now() < limit, "the program must win against a naive caller");
        if sub.symlink_metadata().is_ok_and(|seen| seen.is_dir()) {
            let _ = fs::remove_file(sub.join("file"));
        }
    }
    fs::write(place.secret.join("file"), SECRET).unwrap();

    // The place itself, which a link may have taken, and the directory above, in which that happens on the way.
    let limit = Instant::now() + at_most(Duration::from_secs(60));
    for directory in [&sub, &above] {
        let (mut removed, mut refused) = (0, 0);
        while removed < rounds(300) {
            while !exists(above.join("link")) || !exists(&sub) {
                assert!(Instant::now() < limit, "the program must go on: {removed} were removed, {refused} refused");
                std::thread::yield_now();
            }
            match remove_dir_all(directory) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::Io => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert!(secret(), "nothing outside is removed");
        }
        assert!(refused > 0 || directory == &above, "a link is refused");
    }
    let swaps: u64 = end(program).get("swaps").parse().unwrap();
    assert!(swaps > 10, "{swaps} swaps");
    remove_dir_all(&place.out).expect("the program has ended");
    assert!(!exists(&place.out) && secret());
}

/// Moves a directory elsewhere as soon as the caller has begun to empty it, and makes it again.
fn carry_off(args: &[String]) -> i32 {
    let out = Path::new(&args[0]);
    let (deep, elsewhere) = (out.join("above/sub/deep"), out.join("elsewhere/deep"));
    println!("begun");
    until_the_end(|| {
        // The caller may remove these at once.
        let _ = fs::create_dir_all(&deep);
        (0..300).for_each(|number| drop(fs::write(deep.join(format!("{number:03}")), "")));
        let _ = fs::write(out.join("ready"), "");
        let limit = Instant::now() + Duration::from_secs(1);
        while exists(deep.join("000")) && Instant::now() < limit {}
        let _ = fs::rename(&deep, &elsewhere);
        std::thread::sleep(Duration::from_millis(5));
        let _ = fs::remove_dir_all(&elsewhere);
    });
    0
}

/// Attack 6: A directory is moved while it is emptied, so that the one above it is another, which is not to be removed.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn a_removal_does_not_follow_moved_directories() {
    let place = Place::in_memory();
    let elsewhere = place.out.join("elsewhere");
    open_directory(&elsewhere);
    fs::write(elsewhere.join("file"), "kept").unwrap();
    let (above, ready) = (place.out.join("above"), place.out.join("ready"));
    let program = start(&place.sandbox(), "carry_off", &["/out"]);
    let limit = Instant::now() + at_most(Duration::from_secs(60));
    let wait = || {
        while fs::remove_file(&ready).is_err() {
            assert!(Instant::now() < limit, "the program must go on");
            std::thread::yield_now();
        }
    };
    // Who goes back by `..` comes elsewhere.
    wait();
    let deep = open(&above.join("sub/deep"), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    fs::remove_file(above.join("sub/deep/000")).unwrap();
    let back = || fs::metadata(format!("/proc/self/fd/{}/..", deep.as_raw_fd())).unwrap().ino();
    while back() != elsewhere.metadata().unwrap().ino() {
        assert!(Instant::now() < limit, "the program must move it");
    }

    let mut moved = 0;
    while moved < rounds(20) {
        wait();
        match remove_dir_all(&above) {
            Err(error) if error.errno() == Some(Errno::ESTALE) => moved += 1,
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Io => {}
            Err(other) => panic!("{other}"),
        }
        assert_eq!(fs::read(elsewhere.join("file")).unwrap(), b"kept", "after {moved} were moved");
    }
    end(program);
}
