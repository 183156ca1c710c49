//! What a cold sandbox costs: made, run, torn down, against `std::process::Command` of the same static program in the
//! same run. Prints the ratios at its end; `-- --test` runs everything once.
//!
//! Absolute times say more about the machine than about the crate: read the ratios.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::Criterion;
use stockade::mount::Bind;
use stockade::pool::Pool;
use stockade::{Cgroup, Command, Namespaces, Root, Sandbox, Seccomp, Stdio};
use tempfile::TempDir;

/// Touched memory of the host, in GB.
const MEMORY: [usize; 3] = [0, 1, 4];
const THREADS: [usize; 3] = [1, 2, 4];
const STD: &str = "std";

/// What the ratios should be at most, in a host of +0 GB and from one thread.
const GOALS: [(&str, f64); 5] = [(NO_NET, 2.6), (ALL, 3.9), (DEFAULT, 6.0), (SESSION, 1.2), (SESSION_CGROUP, 1.8)];
const NO_NET: &str = "a: all namespaces but net";
const ALL: &str = "b: all namespaces";
const DEFAULT: &str = "c: Sandbox::new()";
const SESSION: &str = "d: a command of a session";
const SESSION_CGROUP: &str = "e: the same with a cgroup";

/// The same for [`print_pool`].
const POOL_GOAL: f64 = 1.4;

/// What a layer may add to a sandbox, in runs of `std`.
const CGROUP_ADDS: f64 = 0.5;

/// A static program that does nothing.
struct Program {
    _folder: TempDir,
    path: PathBuf,
}

impl Program {
    fn build() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        let (source, path) = (folder.path().join("true.c"), folder.path().join("true"));
        fs::write(&source, "int main(void) { return 0; }\n").expect("source");
        let cc = std::process::Command::new("cc").args(["-O2", "-static", "-o"]).args([&path, &source]).status();
        assert!(cc.expect("cc (Debian: gcc, libc6-dev)").success(), "cc failed");
        Self { _folder: folder, path }
    }

    fn folder(&self) -> &Path {
        self._folder.path()
    }
}

type Run = Box<dyn Fn() + Sync>;

/// A file system of `/usr`, the program and `/proc`, and all namespaces.
fn all_namespaces(program: &Program) -> Sandbox {
    let root = Root::empty()
        .with(Bind::new("/usr", "/usr").unmapped())
        .with(Bind::new(program.folder(), "/bin").unmapped())
        .proc("/proc");
    Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME).root(root)
}

fn default(program: &Program) -> Sandbox {
    Sandbox::new().root(Root::host().with(Bind::new(program.folder(), "/mnt").unmapped()))
}

/// The standard streams are `/dev/null`, also where the benchmark's own lead to a file.
fn sandboxed(sandbox: Sandbox, path: &'static str) -> Run {
    writing_to(sandbox, path, Stdio::null())
}

fn writing_to(sandbox: Sandbox, path: &'static str, output: Stdio) -> Run {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(output.clone()).stderr(output);
    Box::new(move || {
        let outcome = sandbox.status(&command);
        assert!(black_box(outcome).expect("a sandbox").success());
    })
}

/// Commands of a session, which is started once.
fn in_session(sandbox: &Sandbox, path: &'static str) -> Run {
    let session = sandbox.start().expect("a session");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Box::new(move || {
        let outcome = session.status(&command);
        assert!(black_box(outcome).expect("a command").success());
    })
}

/// What is compared, `std` first.
fn contestants(program: &Program) -> Vec<(&'static str, Run)> {
    let path = program.path.clone();
    let std: Run = Box::new(move || {
        let null = std::process::Stdio::null;
        let mut command = std::process::Command::new(&path);
        let status = command.env_clear().stdin(null()).stdout(null()).stderr(null()).status();
        assert!(black_box(status).is_ok_and(|status| status.success()));
    });
    let all = all_namespaces(program);
    let no_net = all.clone().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::NET);
    vec![
        (STD, std),
        (NO_NET, sandboxed(no_net, "/bin/true")),
        (ALL, sandboxed(all, "/bin/true")),
        (DEFAULT, sandboxed(default(program), "/mnt/true")),
        (SESSION, in_session(&default(program), "/mnt/true")),
        (SESSION_CGROUP, in_session(&default(program).cgroup(limits()), "/mnt/true")),
    ]
}

fn limits() -> Cgroup {
    Cgroup::new().memory_max(256 << 20).pids_max(64).cpu_max(1.5)
}

/// What a layer adds: a sandbox without it, and with it.
fn layers(program: &Program) -> Vec<(&'static str, f64, Run, Run)> {
    let (all, default) = (all_namespaces(program), default(program));
    let without_filter = default.clone().seccomp(Seccomp::unconfined());
    vec![
        (
            "a cgroup of memory, pids and cpu, to b",
            CGROUP_ADDS,
            sandboxed(all.clone(), "/bin/true"),
            sandboxed(all.cgroup(limits()), "/bin/true"),
        ),
        (
            "the filter of system calls, in c",
            f64::NAN,
            sandboxed(without_filter, "/mnt/true"),
            sandboxed(default.clone(), "/mnt/true"),
        ),
        (
            "two standard streams that are a file, to c",
            f64::NAN,
            sandboxed(default.clone(), "/mnt/true"),
            // One that is written to alone: what is open for both is shared as it is.
            writing_to(default, "/mnt/true", fs::File::create(program.folder().join("output")).expect("a file").into()),
        ),
    ]
}

/// Prints what a run in a fresh session of a pool costs while it has some, against `std` in turns.
fn print_pool(std: &Run, program: &Program, turns: u32) {
    const SIZE: usize = 4;
    let pool = Pool::new(default(program), SIZE).expect("a pool");
    let mut command = Command::new("/mnt/true");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let timed = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..turns)
        .map(|_| {
            while pool.stats().ready < SIZE {
                std::thread::sleep(Duration::from_millis(1));
            }
            let of_std = timed(&mut || std());
            let mut taken = None;
            let of_pool = timed(&mut || {
                let session = taken.insert(pool.take().expect("a session"));
                assert!(session.status(&command).expect("a command").success());
            });
            of_pool / of_std
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("{:<31} {:>5.2}x   goal {POOL_GOAL:.2}x", "f: Pool::take, and a command", ratios[ratios.len() / 2]);
    assert_eq!(pool.stats().taken_unprepared, 0, "it had some");
}

/// Time that `threads` threads take for `iterations` runs each.
fn on_threads(run: &Run, threads: usize, iterations: u64) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..iterations).for_each(|_| run()));
        }
    });
    start.elapsed()
}

/// Mean times by group and contestant, as criterion has measured them.
fn measured(groups: &[String]) -> BTreeMap<(String, String), f64> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let mut times = BTreeMap::new();
    for group in groups {
        let folder = Path::new(&target).join("criterion").join(group);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = |name: &str| fs::read(entry.path().join("new").join(name)).ok();
            let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&file(name)?).ok();
            let (Some(estimates), Some(benchmark)) = (json("estimates.json"), json("benchmark.json")) else { continue };
            let (Some(time), Some(id)) =
                (estimates["median"]["point_estimate"].as_f64(), benchmark["function_id"].as_str())
            else {
                continue;
            };
            times.insert((group.clone(), id.to_owned()), time);
        }
    }
    times
}

/// The ratio of a contestant to `std` when the two take turns, so that what else the machine does meets both alike: the
/// median over pairs of blocks.
fn paired(std: &Run, run: &Run, pairs: usize) -> f64 {
    const BLOCK: u64 = 32;
    let ratio = |_| on_threads(run, 1, BLOCK).as_secs_f64() / on_threads(std, 1, BLOCK).as_secs_f64();
    let mut ratios: Vec<f64> = (0..pairs).map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[pairs / 2]
}

/// What `run` takes longer than `base`, in runs of `std`, when the three take turns: the median over triples of blocks.
fn added(std: &Run, base: &Run, run: &Run, triples: usize) -> f64 {
    const BLOCK: u64 = 32;
    let time = |run| on_threads(run, 1, BLOCK).as_secs_f64();
    let mut added: Vec<f64> = (0..triples).map(|_| (time(run) - time(base)) / time(std)).collect();
    added.sort_by(f64::total_cmp);
    added[triples / 2]
}

fn print_layers(std: &Run, layers: &[(&str, f64, Run, Run)], triples: usize) {
    println!("\nwhat a layer adds, in runs of {STD}, in turns (median of {triples} triples of blocks)");
    for (name, goal, without, with) in layers {
        let goal = if goal.is_nan() { String::new() } else { format!("   goal {goal:.1}x") };
        println!("{name:<44}{:>8.2}x{goal}", added(std, without, with, triples));
    }
}

fn print_paired(contestants: &[(&str, Run)], pairs: usize) {
    println!("\nratio to {STD} in turns with it (median of {pairs} pairs of blocks)");
    for (name, run) in &contestants[1..] {
        let goal = GOALS.iter().find(|(goal, _)| goal == name).map_or(f64::NAN, |(_, goal)| *goal);
        println!("{name:<28}{:>8.2}x   goal {goal:.1}x", paired(&contestants[0].1, run, pairs));
    }
}

fn print_ratios(groups: &[String], names: &[&str]) {
    let times = measured(groups);
    println!("\nratio to {STD} in the same run (median)");
    println!("{:<28}{}", "", names.iter().map(|name| format!("{name:>28}")).collect::<String>());
    for group in groups {
        let of = |name: &str| times.get(&(group.clone(), name.to_owned())).copied();
        let Some(std) = of(STD) else { continue };
        let cells = names.iter().map(|name| of(name).map_or("-".into(), |time| format!("{:.2}x", time / std)));
        println!("{group:<28}{}", cells.map(|cell| format!("{cell:>28}")).collect::<String>());
    }
}

fn main() {
    let program = Program::build();
    let contestants = contestants(&program);
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4))
        .sample_size(40)
        .without_plots()
        .configure_from_args();
    let smoke = std::env::args().any(|arg| arg == "--test");
    let turns = if smoke { 1 } else { 100 };
    print_paired(&contestants, turns);
    print_pool(&contestants[0].1, &program, if smoke { 3 } else { 300 });
    print_layers(&contestants[0].1, &layers(&program), turns);
    let mut groups = vec![];
    let mut memory: Vec<u8> = vec![];
    for gigabytes in MEMORY {
        memory.resize(gigabytes << 30, 1);
        black_box(&memory);
        let name = format!("host of +{gigabytes} GB");
        let mut group = criterion.benchmark_group(&name);
        for (id, run) in &contestants {
            group.bench_function(*id, |bencher| bencher.iter(run));
        }
        group.finish();
        groups.push(name);
    }
    drop(memory);
    for threads in THREADS {
        let name = format!("{threads} threads");
        let mut group = criterion.benchmark_group(&name);
        for (id, run) in &contestants {
            group.bench_function(*id, |bencher| {
                bencher.iter_custom(|iterations| on_threads(run, threads, iterations));
            });
        }
        group.finish();
        groups.push(name);
    }
    criterion.final_summary();
    print_ratios(&groups, &contestants.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}
