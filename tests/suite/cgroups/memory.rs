//! Limits of memory and swap.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use stockade::cgroup::CgroupParent;
use stockade::{Cgroup, Command, Identity, Layer, Seccomp, Signal, Stdio, Termination};

use crate::cgroups::groups::{
    self, is_v1, of_process, unless_accounts, unless_hugetlb, unless_peak, unless_v1, unless_v2,
};
use crate::cgroups::{MB, group, payload, sleeper, succeeds, with, without};
use crate::support::{self, sh, unless_python, unless_root, unless_user};
use stockade::Errno;
use stockade::ErrorKind;

#[apply(test)]
#[skip(unless_peak)]
fn programs_that_exceed_the_memory_limit_are_killed() {
    let _ = succeeds(&with(group()), "touch", &["128"]);
    let output = payload(&with(group().memory_max(64 * MB)), "touch", &["128"]);
    assert_eq!(output.outcome.termination, Termination::Memory, "{}", output.outcome);
    assert_eq!(support::text(&output.stdout), "");
    let peak = output.outcome.usage.memory_peak.expect("the peak").value;
    assert!((32 * MB..=64 * MB).contains(&peak), "{peak}");
}

#[apply(test)]
#[skip(unless_accounts)]
fn an_oom_kill_of_a_descendant_is_reported() {
    let (said, _) = succeeds(&with(group()), "touch-in-child", &["128"]);
    assert!(said.contains("exit status: 0"), "{said}");
    let output = payload(&with(group().memory_max(64 * MB)), "touch-in-child", &["128"]);
    assert_eq!(output.outcome.termination, Termination::Memory, "{}", output.outcome);
}

#[apply(test)]
#[skip(unless_accounts)]
fn children_share_the_limit() {
    let _ = succeeds(&with(group()), "touch-twice", &["40"]);
    let limited = with(group().memory_max(64 * MB));
    let _ = succeeds(&limited, "touch", &["40"]);
    let output = payload(&limited, "touch-twice", &["40"]);
    assert_eq!(output.outcome.termination, Termination::Memory, "{}", output.outcome);
}

#[apply(test)]
#[skip(unless_peak)]
fn programs_below_the_memory_limit_are_not_killed() {
    let (said, outcome) = succeeds(&with(group().memory_max(64 * MB)), "touch", &["32"]);
    assert_eq!(said, "touched 32");
    let peak = outcome.usage.memory_peak.expect("the peak").value;
    assert!((32 * MB..64 * MB).contains(&peak), "{peak}");
    let failed = sh(&with(group().memory_max(64 * MB)), "exit 137").outcome.termination;
    assert_eq!(failed, Termination::Exited(137), "it looks like a kill, and is none");
}

#[apply(test)]
#[skip(unless_accounts)]
fn an_oom_kill_does_not_affect_the_next_run() {
    let sandbox = with(group().memory_max(64 * MB));
    assert_eq!(payload(&sandbox, "touch", &["128"]).outcome.termination, Termination::Memory);
    let _ = succeeds(&sandbox, "touch", &["16"]);
}

#[apply(test)]
#[skip(unless_accounts)]
fn tiny_limits_kill_the_program_and_hang_nothing() {
    let is_clear = |error: &stockade::Error| {
        let (message, hint) = support::words(error);
        match error.kind() {
            ErrorKind::LimitExceeded => message.contains("cgroup") && hint.contains("memory_max"),
            ErrorKind::SetupFailed => error.errno() == Some(Errno::ENOMEM) && !hint.is_empty(),
            _ => false,
        }
    };
    for limit in [1, 4096, 65_536] {
        let sandbox = with(group().memory_max(limit));
        match sandbox.output(support::payload("touch").arg("1")) {
            Ok(output) => assert_eq!(output.outcome.termination, Termination::Memory, "{limit}: {}", output.outcome),
            Err(error) => assert!(is_clear(&error), "{limit}: {error}"),
        }
        if let Err(error) = sandbox.start() {
            assert!(is_clear(&error), "a session, {limit}: {error}");
        }
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_largest_memory_limit_means_unlimited() {
    for limit in [i64::MAX as u64, u64::MAX] {
        let (said, _) = succeeds(&with(group().memory_max(limit)), "touch", &["16"]);
        assert_eq!(said, "touched 16", "{limit}");
    }
}

/// A reason to skip what takes the file of a limit on swap: some kernels have it only if they are booted so.
fn unless_swap_is_limited() -> Option<String> {
    let missing = || {
        let child = sleeper(&with(group()));
        let file = groups::file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
        let is_there = of_process(child.pid().number(), "memory").join(file).exists();
        (!is_there).then(|| format!("this kernel has no {file}"))
    };
    unless_accounts().or_else(missing)
}

fn unless_swap_is_limited_alone() -> Option<String> {
    unless_v2().or_else(unless_swap_is_limited)
}

/// What the group of a program with this limit says: memory, and memory with swap.
fn limits_of(cgroup: stockade::Cgroup) -> [u64; 2] {
    let child = sleeper(&with(cgroup));
    let own = of_process(child.pid().number(), "memory");
    let bytes = |file| groups::read(&own, file).replace("max", &i64::MAX.to_string()).parse::<u64>().unwrap();
    if is_v1("memory") {
        return ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].map(bytes);
    }
    let [memory, swap] = ["memory.max", "memory.swap.max"].map(bytes);
    [memory, memory + swap]
}

#[apply(test)]
#[skip(unless_swap_is_limited)]
fn nothing_is_swapped_by_default() {
    let [memory, both] = limits_of(group());
    assert!(memory > 1 << 50 && both > 1 << 50, "no limit at all: {memory} {both}");
    assert_eq!(limits_of(group().memory_max(64 * MB)), [64 * MB, 64 * MB]);
}

#[apply(test)]
#[skip(unless_swap_is_limited)]
fn swap_is_limited_as_requested() {
    assert_eq!(limits_of(group().memory_max(64 * MB).swap_max(32 * MB)), [64 * MB, 96 * MB]);
    let [memory, both] = limits_of(group().memory_max(64 * MB).swap_unlimited());
    assert_eq!(memory, 64 * MB);
    assert!(both > 1 << 50, "{both}");
    let [memory, both] = limits_of(group().memory_max(64 * MB).swap_max(u64::MAX));
    assert!(memory == 64 * MB && both > 1 << 50, "{memory} {both}");
}

fn unless_a_user_without_a_cgroup() -> Option<String> {
    let is_limited = || without().cgroup(Cgroup::new().memory_max(64 * MB)).status(Command::new("true")).is_ok();
    unless_user().or_else(|| is_limited().then(|| "a cgroup can be created here".into()))
}

#[apply(test)]
#[only(User)]
#[skip(unless_a_user_without_a_cgroup)]
fn without_a_cgroup_the_limits_that_were_requested_are_named() {
    let named = |cgroup: Cgroup| -> Vec<String> {
        let sandbox = without().cgroup(cgroup).best_effort([Layer::Cgroup]);
        let lost = sandbox.status(Command::new("true")).unwrap().enforcement.unenforced;
        lost.into_iter().filter(|lost| lost.layer == Layer::Cgroup).map(|lost| lost.requested).collect()
    };
    let limited = Cgroup::new().memory_max(64 * MB).pids_max(16);
    assert_eq!(named(limited.clone()), ["memory_max", "pids_max"]);
    assert_eq!(named(limited.clone().swap_unlimited()), ["memory_max", "pids_max"]);
    assert_eq!(named(limited.swap_max(MB)), ["memory_max", "swap_max", "pids_max"]);
}

#[apply(test)]
#[skip(unless_v1)]
fn swap_alone_cannot_be_limited_on_v1() {
    let (what, remedy) = support::invalid(&with(group().swap_max(MB)));
    assert!(what.contains("swap_max") && remedy.contains("memory_max"), "{what}: {remedy}");
}

#[apply(test)]
#[skip(unless_swap_is_limited_alone)]
fn swap_alone_can_be_limited_on_v2() {
    let [memory, both] = limits_of(group().swap_max(MB));
    assert_eq!(both - memory, MB);
}

#[apply(test)]
#[skip(unless_v2)]
fn memory_high_is_kept_on_v2() {
    let child = sleeper(&with(group().memory_high(64 * MB)));
    assert_eq!(groups::read(&of_process(child.pid().number(), "memory"), "memory.high"), (64 * MB).to_string());
}

#[apply(test)]
#[skip(unless_v1)]
fn memory_high_is_refused_on_v1() {
    let (what, remedy) = support::invalid(&with(group().memory_high(64 * MB)));
    assert!(what.contains("memory_high") && what.contains("v1"), "{what}");
    assert!(remedy.contains("v2"), "{remedy}");
}

/// Two huge pages more than the host has, as long as it lives.
struct HugePages(String);

impl HugePages {
    const COUNT: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn more() -> Option<Self> {
        let before = fs::read_to_string(Self::COUNT).ok()?;
        let wanted = before.trim().parse::<u64>().ok()? + 2;
        fs::write(Self::COUNT, wanted.to_string()).ok()?;
        let pages = Self(before);
        (fs::read_to_string(Self::COUNT).ok()?.trim() == wanted.to_string()).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::COUNT, &self.0);
    }
}

fn unless_huge_pages() -> Option<String> {
    let none = || HugePages::more().is_none().then(|| "two huge pages of 2 MB can't be had".to_owned());
    unless_root().or_else(unless_python).or_else(unless_hugetlb).or_else(none)
}

#[apply(test)]
#[only(Root)]
#[skip(unless_huge_pages)]
fn huge_pages_do_not_exceed_their_limit() {
    let _pages = HugePages::more().expect("huge pages");
    let touch = |cgroup, pages: u64| {
        let map = format!("mmap.mmap(-1, {pages} << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)");
        let script = format!("import mmap\nm = {map}\nfor n in range({pages}): m[n << 21] = 1");
        let sandbox = with(cgroup).seccomp(Seccomp::new().allow_huge_pages());
        sandbox.output(Command::new("python3").args(["-c", &script])).unwrap().outcome.termination
    };
    assert_eq!(touch(group(), 2), Termination::Exited(0));
    let page = 2 * MB;
    for (limit, most) in [(0, 0), (1, 0), (page - 1, 0), (page, 1), (page + 1, 1), (2 * page, 2), (u64::MAX, 2)] {
        for pages in 1..=2 {
            let end = touch(group().hugetlb_max("2MB", limit), pages);
            let is_killed = matches!(end, Termination::Signaled { signal: Signal::BUS, .. });
            assert_eq!(is_killed, pages > most, "{pages} pages of {limit} bytes: {end:?}");
            assert!(is_killed || end.success(), "{pages} pages of {limit} bytes: {end:?}");
        }
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn the_cgroup_is_reported_as_active() {
    let is_enforced = |sandbox| sh(&sandbox, "true").outcome.enforcement.is_active(Layer::Cgroup);
    assert!(is_enforced(with(group())));
    assert!(!is_enforced(without()));
}

fn unless_accounts_with_python() -> Option<String> {
    unless_accounts().or_else(unless_python)
}

/// A group that others are made below, with a limit of its own; removed when it is dropped.
struct Parent {
    directory: PathBuf,
    cgroup: Cgroup,
}

impl Parent {
    fn new(limit: u64) -> Self {
        let hierarchy = groups::hierarchy("memory").expect("a hierarchy");
        let directory = groups::place("memory").expect("a place").join(format!("full-{}", std::process::id()));
        fs::create_dir(&directory).expect("a group");
        let write = |file: &str, value: &str| fs::write(directory.join(file), value);
        if hierarchy.is_v1 {
            write("memory.limit_in_bytes", &limit.to_string()).expect("a limit");
            let _ = write("memory.memsw.limit_in_bytes", &limit.to_string());
        } else {
            write("memory.max", &limit.to_string()).expect("a limit");
            let _ = write("memory.swap.max", "0");
            write("cgroup.subtree_control", "+memory").expect("its controller");
        }
        let path = Path::new("/").join(directory.strip_prefix(&hierarchy.point).expect("a group below it"));
        Self { directory, cgroup: Cgroup::new().parent(CgroupParent::Path(path)) }
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        fs::remove_dir(&self.directory).expect("it is empty");
    }
}

/// Whether the kernel kills one sandbox alone where two fill their parent.
fn is_spared_beside_a_victim(parent: &Parent) -> bool {
    let sandbox = with(parent.cgroup.clone().memory_max(200 * MB));
    let mut holder = support::payload("hold");
    let mut victim = sandbox.spawn(holder.arg("45").stdin(Stdio::null()).stdout(Stdio::piped())).expect("a victim");
    let mut line = String::new();
    BufReader::new(victim.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "holds 45\n");
    let other = payload(&sandbox, "touch", &["30"]).outcome;
    let outcome = victim.wait().expect("its end");
    assert_eq!(outcome.termination, Termination::HostMemory, "{outcome}; the other: {other}");
    assert!([Termination::Exited(0), Termination::HostMemory].contains(&other.termination), "{other}");
    other.termination == Termination::Exited(0)
}

/// Attack 67: a sandbox beside another one uses up what their parent may have.
#[apply(test)]
#[skip(unless_accounts)]
fn an_oom_kill_by_the_parents_limit_is_not_the_programs_own() {
    let parent = Parent::new(64 * MB);
    // The kernel at times kills the other one too, before the victim's memory is free: not three times in a row.
    let is_spared = (0..3).any(|_| is_spared_beside_a_victim(&parent));
    assert!(is_spared, "it needs less than its own limit, and the victim has more");
    // Nor is what exceeds its own limit there anything else.
    let own = payload(&with(parent.cgroup.clone().memory_max(16 * MB)), "touch", &["32"]).outcome;
    assert_eq!(own.termination, Termination::Memory, "{own}");
}

/// Sends to connections that nobody reads from until 200 MiB are under way, or no more is taken by any of 64.
const SEND: &str = "
import socket
total, kept = 0, []
listener = socket.create_server(('127.0.0.1', 0), backlog=64)
while total < 200 << 20 and len(kept) < 128:
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    kept += [client, listener.accept()[0]]
    try:
        while total < 200 << 20: total += client.send(bytes(65536))
    except BlockingIOError: pass
print(total >> 20)";

/// Attack 62: what is sent and not received is memory too.
#[apply(test)]
#[skip(unless_accounts_with_python)]
fn socket_buffers_are_limited_as_other_memory_is() {
    let sent = |cgroup| {
        let output = with(cgroup).output(Command::new("python3").args(["-c", SEND])).expect("a sandbox");
        let count = support::text(&output.stdout).trim().parse::<u64>();
        (count.unwrap_or_else(|_| panic!("{}: {}", output.outcome, support::text(&output.stderr))), output.outcome)
    };
    let (all, outcome) = sent(group());
    assert!(all > 150, "the attack must work here: {all} MiB, {outcome}");
    let (limited, outcome) = sent(group().memory_max(48 * MB));
    assert!(limited < 100, "{limited} MiB under a limit of 48: {outcome}");
    let peak = outcome.usage.memory_peak;
    assert!(peak.is_none_or(|peak| peak.value > limited * MB / 2), "{limited} MiB, and a peak of {peak:?}");
}

/// The events of all groups of the machine are counted in another way then: not on a machine that does other work.
fn unless_root_of_an_emulated_machine() -> Option<String> {
    let real = || (support::slowness() == 1).then(|| "it changes how this machine counts events".to_owned());
    unless_root().or_else(unless_accounts).or_else(unless_v2).or_else(real)
}

/// Sets the options of a cgroup file system: mount(8) would keep those that it has.
fn remount(point: &Path, options: &str) {
    let [point, options] = [point.as_os_str().as_bytes(), options.trim_matches(',').as_bytes()]
        .map(|text| CString::new(text).expect("a text"));
    // SAFETY: the four strings end with a zero.
    let result = unsafe {
        libc::mount(c"none".as_ptr(), point.as_ptr(), c"cgroup2".as_ptr(), libc::MS_REMOUNT, options.as_ptr().cast())
    };
    assert_eq!(result, 0, "{options:?}: {}", std::io::Error::last_os_error());
}

/// Attack 72: the program is in a group below the one with the limit, where alone its kill is counted.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_of_an_emulated_machine)]
fn oom_kills_are_seen_with_local_events_too() {
    let point = groups::hierarchy("memory").expect("a hierarchy").point;
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let mount = table.lines().find(|line| line.contains(&format!(" {} ", point.display()))).expect("its line");
    let options =
        mount.rsplit(' ').next().expect("options of the file system").trim_start_matches("rw").trim_matches(',');
    remount(&point, &format!("{options},memory_localevents"));
    let sandbox = with(group().memory_max(64 * MB)).identity(Identity::caller().uid(0).gid(0));
    let outcome = payload(&sandbox, "touch", &["128"]).outcome;
    // Else systemd sees no kill in a group below that of a unit.
    remount(&point, options);
    assert_eq!(outcome.termination, Termination::Memory, "{outcome}");
}
