//! What it takes to run a program by the command `stockade run`, and by other programs that isolate: as processes, in turns, in
//! one run. Each round has another order, since what the kernel has to clean up after one slows the next. Prints medians, and
//! their ratios to the program alone; `-- --test` runs everything once. What is not installed, or does not work on this host,
//! is left out, with the reason.
//!
//! All create all namespaces but that of time, a root with `/usr` and the program read-only, new `/proc`, `/dev` and `/tmp`, no
//! filter of system calls, and give the program the user ID of the caller, apart from the lines that have another name. What each
//! does besides, and cannot be told not to do, is described in `docs/comparison.md`.

use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

/// How often each is run.
const ROUNDS: usize = 300;
/// What the ratio of [`SAME_ISOLATION`] to bubblewrap should be at most.
const GOAL: f64 = 1.0;

const ALONE: &str = "the program alone";
const SAME_ISOLATION: &str = "stockade run, with bwrap's isolation";
const BUBBLEWRAP: &str = "bwrap";

/// A static program that does nothing, as `program/true`, and the bundle of runc.
struct Files(TempDir);

impl Files {
    fn create() -> Self {
        let files = Self(tempfile::tempdir().expect("temporary directory"));
        fs::create_dir(files.folder()).expect("a directory");
        let source = files.0.path().join("true.c");
        fs::write(&source, "int main(void) { return 0; }\n").expect("source");
        let cc = Command::new("cc").args(["-O2", "-static", "-o"]).args([&files.program(), &source]).status();
        assert!(cc.expect("cc (Debian: gcc, libc6-dev)").success(), "cc failed");
        files
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("program")
    }

    fn program(&self) -> PathBuf {
        self.folder().join("true")
    }

    /// The folder, and where the sandbox has it.
    fn mount(&self) -> String {
        format!("{}:/program", self.folder().display())
    }
}

/// What is compared, and the names of those that are installed elsewhere.
fn contestants(files: &Files) -> Vec<(&'static str, Command)> {
    let mut version = Command::new(env!("CARGO_BIN_EXE_stockade"));
    version.arg("--version");
    vec![
        (ALONE, Command::new(files.program())),
        (SAME_ISOLATION, stockade(files, &["--seccomp", "unconfined", "--set", "identity=caller"])),
        ("stockade run --seccomp unconfined", stockade(files, &["--seccomp", "unconfined"])),
        ("stockade run", stockade(files, &[])),
        ("stockade --version", version),
        (BUBBLEWRAP, bubblewrap(&files.folder())),
        ("nsjail", nsjail(files)),
        ("runc", runc(files)),
    ]
}

fn stockade(files: &Files, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
    command.args(["run", "--root", "empty", "--ro", "/usr", "--tmpfs", "/tmp"]).args(options);
    command.arg("--ro").arg(files.mount()).args(["--", "/program/true"]);
    command
}

fn bubblewrap(folder: &Path) -> Command {
    let mut command = Command::new(BUBBLEWRAP);
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr"]);
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind"]).arg(folder);
    command.args(["/program", "--", "/program/true"]);
    command
}

/// By default it lowers the priority of the program.
fn nsjail(files: &Files) -> Command {
    let mut command = Command::new("nsjail");
    command.args(["-Mo", "-Q", "--nice_level", "0", "-R", "/usr", "-T", "/tmp", "-R"]).arg(files.mount());
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        command.arg("-R").arg(Path::new("/dev").join(device));
    }
    command.args(["--", "/program/true"]);
    command
}

fn runc(files: &Files) -> Command {
    let bundle = files.0.path().join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).expect("a directory");
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let bind = |source: &Path, target: &str| json!({"destination": target, "source": source, "type": "bind", "options": ["rbind", "ro"]});
    let fresh = |kind: &str, target: &str| json!({"destination": target, "source": kind, "type": kind});
    let kinds = ["pid", "network", "ipc", "uts", "cgroup", "mount", "user"];
    let namespaces = kinds.map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/program/true"], "cwd": "/", "env": ["PATH=/usr/bin"], "user": {"uid": 0, "gid": 0},
            "capabilities": {}, "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            fresh("proc", "/proc"), fresh("tmpfs", "/dev"), fresh("tmpfs", "/tmp"),
            bind(Path::new("/usr"), "/usr"), bind(&files.folder(), "/program"),
        ],
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
            "namespaces": namespaces,
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).expect("the configuration of runc");
    let mut command = Command::new("runc");
    command.arg("--root").arg(files.0.path().join("state")).args(["run", "--bundle"]).arg(bundle);
    command.arg(format!("stockade-peers-{}", std::process::id()));
    command
}

/// Returns why a command cannot be measured on this host.
fn obstacle(command: &mut Command) -> Option<String> {
    match command.stdin(Stdio::null()).output() {
        Err(error) => Some(error.to_string()),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Leaves out what does not run here. Those of this crate must run.
fn installed(contestants: Vec<(&'static str, Command)>) -> Vec<(&'static str, Command)> {
    let runs = |(name, command): &mut (&str, Command)| match obstacle(command) {
        None => true,
        Some(reason) => {
            assert!(*name != ALONE && !name.starts_with("stockade"), "{name}: {reason}");
            println!("not measured: {name}: {reason}");
            false
        }
    };
    contestants.into_iter().filter_map(|mut contestant| runs(&mut contestant).then_some(contestant)).collect()
}

/// Runs a command once.
fn run(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let time = start.elapsed();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
    time
}

/// Returns the median time of each in milliseconds, in turns, in another order in each round.
fn medians(contestants: &mut [(&str, Command)], rounds: usize) -> Vec<f64> {
    let mut times = vec![vec![]; contestants.len()];
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    for round in 0..rounds {
        // The same orders in every run.
        order.sort_by_key(|&index| BuildHasherDefault::<DefaultHasher>::default().hash_one((round, index)));
        for &index in &order {
            times[index].push(run(&mut contestants[index].1));
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    times.into_iter().map(median).collect()
}

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    let files = Files::create();
    let mut contestants = installed(contestants(&files));
    let medians = medians(&mut contestants, rounds);
    println!("median of {rounds} runs of each, in turns");
    for ((name, _), median) in contestants.iter().zip(&medians) {
        println!("{name:<36} {median:6.2} ms {:6.2}x", median / medians[0]);
    }
    let of = |name| contestants.iter().position(|(known, _)| *known == name).map(|index| medians[index]);
    if let (Some(stockade), Some(bubblewrap)) = (of(SAME_ISOLATION), of(BUBBLEWRAP)) {
        println!("stockade run / bwrap: {:.2} (goal: at most {GOAL})", stockade / bubblewrap);
    }
}
