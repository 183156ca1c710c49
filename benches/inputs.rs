//! The time to start a program with 10,000 declared inputs, by `Root::inputs` and by other ways. Each figure is that of the
//! fastest of several starts, since other load of the machine only adds to it. A start is from the call of `spawn` to its
//! return, when the program is executed.
//!
//! `cargo bench --all-features --bench inputs`

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stockade::{Command, Root, Sandbox};
use tempfile::TempDir;

const INPUTS: usize = 10_000;
const IN_DIRECTORY: usize = 100;
/// Size of an input in bytes.
const SIZE: usize = 1024;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--test") { 3 } else { 21 };
    let (sources, paths) = inputs();
    let sandbox = |root: Root| Sandbox::new().root(root);
    let inputs = sandbox(Root::host().inputs(sources.path(), "/tmp/inputs", paths.clone()));
    let bind = |root: Root, path: &PathBuf| root.bind(sources.path().join(path), Path::new("/tmp/inputs").join(path));
    let binds = sandbox(paths.iter().fold(Root::host(), bind));
    println!("{INPUTS} inputs of {SIZE} bytes in {} directories, the fastest of {rounds}", INPUTS / IN_DIRECTORY);
    report("no inputs", fastest(rounds, || start(&sandbox(Root::host()))));
    report("Root::inputs", fastest(rounds, || start(&inputs)));
    report("Root::bind for each", fastest(rounds.min(5), || start(&binds)));
    report("a copy in a tmpfs, without the start", fastest(rounds, || staged(&paths, &sources, "/dev/shm", copy)));
    report("hard links, without the start", fastest(rounds, || staged(&paths, &sources, "/var/tmp", link)));
}

fn report(name: &str, time: Duration) {
    println!("{name:<40} {:8.1} ms", time.as_secs_f64() * 1e3);
}

fn fastest(rounds: usize, mut time: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| time()).min().unwrap_or_default()
}

/// Creates the inputs, in a file system of which hard links can be made.
fn inputs() -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let path = |number: usize| PathBuf::from(format!("{}/{number}.h", number / IN_DIRECTORY));
    let paths: Vec<PathBuf> = (0..INPUTS).map(path).collect();
    for path in &paths {
        fs::create_dir_all(directory.path().join(path.parent().expect("a directory"))).expect("a directory");
        fs::write(directory.path().join(path), vec![b'x'; SIZE]).expect("an input");
    }
    (directory, paths)
}

fn start(sandbox: &Sandbox) -> Duration {
    let start = Instant::now();
    let child = sandbox.spawn(Command::new("true"));
    let time = start.elapsed();
    assert!(child.and_then(|mut child| child.wait()).expect("an outcome").success());
    time
}

/// Creates a directory of the inputs, which a sandbox would bind.
fn staged(paths: &[PathBuf], sources: &TempDir, place: &str, create: fn(&Path, &Path)) -> Duration {
    let directory = tempfile::tempdir_in(place).expect("a directory");
    let start = Instant::now();
    for path in paths {
        let target = directory.path().join(path);
        let above = target.parent().expect("a directory");
        if path.ends_with(format!("{}.h", path.parent().map_or(0, first_in))) {
            fs::create_dir(above).expect("a directory");
        }
        create(&sources.path().join(path), &target);
    }
    start.elapsed()
}

/// Returns the number of the first input in a directory.
fn first_in(directory: &Path) -> usize {
    directory.to_string_lossy().parse::<usize>().expect("a number") * IN_DIRECTORY
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("a copy");
}

fn link(from: &Path, to: &Path) {
    fs::hard_link(from, to).expect("a link");
}
