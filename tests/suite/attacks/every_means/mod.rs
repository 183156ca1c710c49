//! Every means by which a program takes memory of the machine, in every sandbox that the crate has ready: each is
//! counted to the sandbox's cgroup, or denied, or has a bound that the documentation names.

mod cpu;
mod disk;
mod memory;
mod meter;

use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stockade::{Cgroup, Sandbox, Seccomp, Stdio, Termination, profile};

use crate::attacks::common::{Attempts, alone, sandbox, unfiltered};
use crate::support::{at_most, is_root, payload, sample, unless_idmapped_tmpfs, unless_root_with_groups, with_payload};

use memory::{MEANS, Means};
use meter::Group;

payloads![("take_by", take_by), ("work_by", work_by)];

const MIB: i64 = 1 << 20;
/// What the limit on memory is, and what a means may take beside it: processes of the machine come and go meanwhile.
const LIMIT: i64 = 64 * MIB;
const TOLERANCE: i64 = 20 * MIB;
/// How often a means is measured that takes more. What others do meanwhile is not in all of them.
const TRIES: usize = 4;

/// Takes objects by a means until there is no more, and keeps them until its input ends.
fn take_by(args: &[String]) -> i32 {
    let means = MEANS.iter().find(|means| means.name == args[0]).expect("a means");
    let mut input = std::io::stdin();
    println!("ready");
    input.read_exact(&mut [0]).unwrap();
    let mut taken = 0;
    let refused = (means.begin)().and_then(|mut take| {
        take(0)?;
        taken = 1;
        raise_descriptors();
        (1..means.most).try_for_each(|number| take(number).inspect(|()| taken += 1))
    });
    println!("taken: {taken}");
    println!("refused: {:?}", refused.err());
    println!("holding");
    let _ = input.read(&mut [0]);
    // What is taken is given back by the kernel alone.
    crate::attacks::sys::exit(0)
}

/// As many descriptors as the program may have.
fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
}

/// What came of a means.
struct Taken {
    /// None if the program was ended meanwhile.
    objects: Option<usize>,
    /// Why there are no more.
    why: String,
    /// Bytes that the machine gave and the group was not charged, and those that it was charged.
    uncounted: i64,
    charged: i64,
}

impl Taken {
    fn is_denied(&self) -> bool {
        self.objects == Some(0) || self.why.starts_with("Syscall")
    }

    /// Bytes that may be uncounted: what the documentation says of the means, and, of any, half of what is counted,
    /// since small parts of large objects are not.
    fn bound(&self, means: &Means) -> i64 {
        let objects = self.objects.unwrap_or(means.most);
        // Without a group what would be counted is among it.
        let factor = if is_root() { 1 } else { 2 };
        TOLERANCE + self.charged / 2 + means.uncounted.map_or(0, |each| (factor * each * objects) as i64)
    }
}

impl Display for Taken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [uncounted, charged] = [self.uncounted, self.charged].map(|bytes| bytes / MIB);
        match self.objects {
            _ if self.is_denied() => write!(f, "denied: {}", self.why),
            Some(objects) if uncounted > 2 => {
                let each = self.uncounted / objects as i64;
                write!(f, "{uncounted} MiB of {objects} not counted, {each} bytes each, and {charged} MiB counted")
            }
            Some(objects) => write!(f, "{charged} MiB of {objects} counted ({})", self.why),
            None => write!(f, "counted until the program was ended ({}), {uncounted} MiB beside", self.why),
        }
    }
}

/// Takes by a means in a sandbox.
fn take(sandbox: &Sandbox, means: &Means) -> Taken {
    let time = at_most(Duration::from_secs(60));
    let sandbox = sandbox.clone().map_limits(|limits| limits.wall_time(time));
    let sandbox =
        if is_root() { sandbox.cgroup(Cgroup::new().memory_max(LIMIT as u64).pids_max(128)) } else { sandbox };
    let mut command = payload("take_by");
    command.arg(means.name).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sandbox.spawn(&command).unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("ready"), "{}", means.name);
    let group = is_root().then(|| Group::of(child.pid().number()));
    let charges = || group.as_ref().map_or([0; 2], Group::charged);
    let (before, [kernel, pages]) = (meter::kernel(), charges());
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    let over = AtomicBool::new(false);
    let (mut uncounted, mut charged) = (0, 0);
    let lines: Vec<String> = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let lines = said.by_ref().take_while(|line| line != "holding").collect();
            over.store(true, Ordering::Relaxed);
            lines
        });
        loop {
            let last = over.load(Ordering::Relaxed);
            let (in_use, now) = (meter::kernel() - before, charges());
            // What a program that is ended gives back disappears from one figure after the other.
            if !group.as_ref().is_some_and(Group::is_over) {
                uncounted = uncounted.max(in_use - (now[0] - kernel));
                charged = charged.max(now[0] - kernel + now[1] - pages);
            }
            if last {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        reader.join().unwrap()
    });
    drop(child.stdin.take());
    let outcome = child.wait().unwrap();
    if lines.is_empty() {
        let ended = outcome.termination;
        // A deadline is met if others hold the kernel up: who reads `/proc/locks` has every lock of the machine wait.
        let is_bounded = matches!(ended, Termination::Memory | Termination::Syscall(_) | Termination::WallTime);
        assert!(is_bounded, "{}: {outcome}", means.name);
        return Taken { objects: None, why: format!("{ended:?}"), uncounted, charged };
    }
    let said = Attempts::parse(&lines.join("\n"));
    let objects: usize = said.get("taken").parse().unwrap();
    // Pages of a program's own are no memory of the kernel's.
    uncounted += ((objects * means.own) as i64 - charged).max(0);
    Taken { objects: Some(objects), why: said.get("refused").to_owned(), uncounted, charged }
}

/// The sandboxes that the crate has ready.
fn sandboxes() -> Vec<(&'static str, Sandbox)> {
    let with_payload = |sandbox: Sandbox| sandbox.map_root(with_payload);
    vec![
        ("default", sandbox()),
        ("container", sandbox().seccomp(Seccomp::container())),
        ("build_step", with_payload(profile::build_step())),
        ("test", with_payload(profile::test())),
        ("agent", with_payload(profile::agent())),
        ("judge", with_payload(profile::judge())),
    ]
}

/// Measures a means until it takes no more than it may.
#[track_caller]
fn assert_bounded(name: &str, sandbox: &Sandbox, means: &Means) {
    for left in (0..TRIES).rev() {
        let taken = take(sandbox, means);
        if taken.is_denied() || taken.uncounted <= taken.bound(means) {
            return println!("{name:10} {:42} {taken}", means.name);
        }
        println!("{name:10} {:42} once more, or it is too much: {taken}", means.name);
        assert!(left > 0, "{name}: {} takes memory that no cgroup counts: {taken}", means.name);
    }
}

/// What an unfiltered program takes, and the group is not charged: so the figures show what there is to see.
fn assert_seen(name: &str) {
    let means = MEANS.iter().find(|means| means.name == name).expect("a means");
    let taken = take(&unfiltered(&sandbox()), means);
    println!("{:10} {name:42} {taken}", "unfiltered");
    assert!(
        taken.uncounted > 2 * TOLERANCE,
        "{name}: the attack must work here, or its failure proves nothing: {taken}"
    );
}

/// Findings A14 and A15, and all else that a program may have the kernel keep.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_groups)]
fn memory_is_counted_or_denied_or_bounded() {
    let _turn = alone();
    assert_seen("netlink sockets");
    assert_seen("access control lists");
    let sandboxes = sandboxes();
    let all = MEANS.iter().flat_map(|means| sandboxes.iter().map(move |(name, sandbox)| (name, sandbox, means)));
    for (name, sandbox, means) in sample(all) {
        assert_bounded(name, sandbox, means);
    }
}

/// The same of an ordinary user's sandboxes, which may have no group: what would not be counted is bounded here, too.
#[apply(test)]
#[only(User)]
fn memory_that_no_cgroup_counts_is_bounded() {
    let _turn = alone();
    assert_seen("netlink sockets");
    let sandboxes = sandboxes();
    let means = MEANS.iter().filter(|means| means.uncounted.is_some());
    let all = means.flat_map(|means| sandboxes.iter().map(move |(name, sandbox)| (name, sandbox, means)));
    for (name, sandbox, means) in sample(all) {
        assert_bounded(name, sandbox, means);
    }
}

/// Has the kernel work until its own time is over.
fn work_by(args: &[String]) -> i32 {
    let work = cpu::WORK.iter().find(|work| work.name == args[0]).expect("a means");
    let mut again = (work.begin)();
    let end = Instant::now() + Duration::from_millis(args[1].parse().unwrap());
    while Instant::now() < end {
        (0..20).for_each(|_| again());
    }
    0
}

/// Time of kernel threads for each second that the group was charged.
fn ratio(work: &cpu::Work) -> f64 {
    // In a network of its own, with terminals, which exist on request.
    let sandbox = sandbox().map_root(|root| root.terminals(1)).cgroup(Cgroup::new().pids_max(16));
    let mut command = payload("work_by");
    command.args([work.name, &at_most(Duration::from_millis(250)).as_millis().to_string()]);
    let before = meter::kernel_threads();
    let outcome = sandbox.status(&command).unwrap();
    assert!(outcome.success(), "{outcome}");
    // What is put off is done within moments.
    std::thread::sleep(Duration::from_millis(50));
    let threads = meter::kernel_threads() - before;
    threads.as_secs_f64() / outcome.usage.cpu_time.expect("a group's time").value.as_secs_f64()
}

/// Work that the kernel does for a program outside of its processes is what the documentation says it is.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_groups)]
fn work_of_kernel_threads_is_bounded() {
    let _turn = alone();
    let watches = cpu::WORK.iter().find(|work| work.name == "watches of inotify").expect("a means");
    assert!((0..TRIES).any(|_| ratio(watches) > 0.5), "the attack must work here, or its failure proves nothing");
    for work in sample(cpu::WORK) {
        let is_bounded = (0..TRIES).any(|_| {
            let ratio = ratio(work);
            println!("{:46} {ratio:.2} s of kernel threads for each of the program's", work.name);
            ratio <= work.ratio
        });
        assert!(is_bounded, "{}: it is more than {} in each of {TRIES} times", work.name, work.ratio);
    }
}
