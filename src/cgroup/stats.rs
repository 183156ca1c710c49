//! Statistics of a cgroup, read from the files of v1 and v2.

use std::time::Duration;

use super::alarm::OomAlarm;
use super::control_group::ControlGroup;
use super::directory::Directory;
use super::hierarchy::{Controller, HierarchyVersion};
use crate::outcome::Termination;

/// The statistics of the program and its descendants together. `None` for what the kernel does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub cpu: Option<Duration>,
    pub cpu_user: Option<Duration>,
    pub cpu_system: Option<Duration>,
    pub memory_peak: Option<u64>,
    pub memory_pressure: Option<Duration>,
    /// Why the kernel killed a process because of memory, if it did.
    pub oom: Option<Oom>,
    pub pids_peak: Option<u64>,
    pub pids_denied: Option<u64>,
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
}

/// Why the kernel killed a process because of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oom {
    /// The memory limit of the sandbox was exceeded.
    OwnLimit,
    /// The memory of the machine or of an ancestor cgroup was used up.
    Above,
}

impl Oom {
    pub fn termination(self) -> Termination {
        match self {
            Self::OwnLimit => Termination::Memory,
            Self::Above => Termination::HostMemory,
        }
    }
}

impl ControlGroup {
    /// Reads the statistics of its controllers.
    pub fn read(&self, account: &mut Account) {
        let text = |file: &str| self.directory.read(file).ok();
        let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
        let value = |file: &str, key: &str| keyed(&text(file)?, key);
        for controller in &self.controllers {
            match (controller, self.version) {
                (Controller::Memory, HierarchyVersion::V1) => {
                    // Buffers of TCP and UDP are counted separately.
                    let peaks = [number("memory.max_usage_in_bytes"), number(TCP_PEAK)];
                    account.memory_peak = peaks[0].map(|_| total_of(peaks.into_iter().flatten()));
                    account.oom = self.oom_v1();
                }
                (Controller::Memory, HierarchyVersion::V2) => {
                    account.memory_peak = number("memory.peak");
                    account.oom = self.oom_v2();
                    account.memory_pressure =
                        text("memory.pressure").and_then(|text| stalled(&text)).map(Duration::from_micros);
                }
                (Controller::Cpuacct, HierarchyVersion::V1) => {
                    account.cpu = number("cpuacct.usage").map(Duration::from_nanos);
                    let times = text("cpuacct.usage_all");
                    let time = |column| Some(Duration::from_nanos(sum_of_column(times.as_ref()?, column)));
                    (account.cpu_user, account.cpu_system) = (time(1), time(2));
                }
                (Controller::Cpuacct, HierarchyVersion::V2) => {
                    let time = |key| value("cpu.stat", key).map(Duration::from_micros);
                    account.cpu = time("usage_usec");
                    account.cpu_user = time("user_usec");
                    account.cpu_system = time("system_usec");
                }
                (Controller::Pids, version) => {
                    account.pids_peak = number("pids.peak");
                    account.pids_denied = Some(self.refused_forks(version));
                }
                (Controller::Io, HierarchyVersion::V1) => {
                    let sum = |key: &str| sum_of(&text("blkio.throttle.io_service_bytes_recursive")?, key);
                    (account.read_bytes, account.written_bytes) = (sum("Read"), sum("Write"));
                }
                (Controller::Io, HierarchyVersion::V2) => {
                    let sum = |key: &str| Some(total_of(assigned(&text("io.stat")?, key)));
                    (account.read_bytes, account.written_bytes) = (sum("rbytes"), sum("wbytes"));
                }
                _ => {}
            }
        }
    }
}

/// The file with the peak memory of TCP and UDP buffers, in bytes.
const TCP_PEAK: &str = "memory.kmem.tcp.max_usage_in_bytes";

impl ControlGroup {
    /// A kill is counted in the cgroup of the killed process. The kernel does not report which cgroup's limit was
    /// exceeded, so the peak usage is compared with the limit. (`failcnt` stays 0 on some kernels.)
    fn oom_v1(&self) -> Option<Oom> {
        let own = || reached_limit_v1(self.limiting());
        let kills = self.total(|group| keyed(&group.read("memory.oom_control").ok()?, "oom_kill"));
        // For a kill in a cgroup that was removed.
        let is_triggered = || self.alarm.as_ref().is_some_and(OomAlarm::is_triggered) && own();
        let was_killed = kills > 0 || is_triggered();
        if was_killed { reason(own(), || self.total(|group| Some(reached_limit_v1(group).into()))) } else { None }
    }

    /// `oom` is counted in the cgroup whose limit was exceeded, `oom_kill` in that of the killed process. Ancestors
    /// count both too, unless the file system is mounted with `memory_localevents`.
    fn oom_v2(&self) -> Option<Oom> {
        let of = |group: &Directory, file: &str, key: &str| keyed(&group.read(file).ok()?, key);
        let count = |key: &str| {
            let local = self.total(|group| of(group, "memory.events.local", key));
            local.max(of(&self.directory, "memory.events", key).unwrap_or_default())
        };
        if count("oom_kill") > 0 { reason(reached_limit_v2(self.limiting()), || count("oom")) } else { None }
    }

    /// Returns whether its own memory limit was exceeded, whichever process was killed.
    pub fn exceeded_memory_limit(&self) -> bool {
        let reached_limit = match self.version {
            HierarchyVersion::V1 => reached_limit_v1,
            HierarchyVersion::V2 => reached_limit_v2,
        };
        self.controllers.contains(&Controller::Memory) && reached_limit(self.limiting())
    }

    /// A failed fork is counted in the cgroup of the process. On v2, since Linux 6.11, it is counted in the cgroup
    /// whose limit was exceeded and in its ancestors, but `pids.events.local` does not include descendants.
    fn refused_forks(&self, version: HierarchyVersion) -> u64 {
        self.total(|group| {
            let local = (version == HierarchyVersion::V2).then(|| group.read("pids.events.local").ok()).flatten();
            keyed(&local.or_else(|| group.read("pids.events").ok())?, "max")
        })
    }

    /// Returns the sum over this cgroup and all below it.
    fn total(&self, of: impl Fn(&Directory) -> Option<u64>) -> u64 {
        let mut counts = vec![];
        let _ = self.directory.walk(|group| counts.extend(of(group)));
        total_of(counts.into_iter())
    }
}

/// Returns whether the peak usage of a cgroup was near enough to its limit for a kill.
fn reached_limit_v1(group: &Directory) -> bool {
    /// The kernel kills for an allocation of at most 8 pages of 4 KiB (`PAGE_ALLOC_COSTLY_ORDER`).
    const LARGEST_ALLOCATION: u64 = 8 * 4096;
    ["", "memsw."].iter().any(|kind| {
        let bytes = |what: &str| group.read(&format!("memory.{kind}{what}_in_bytes")).ok()?.trim().parse().ok();
        let most: Option<u64> = bytes("max_usage");
        most.zip(bytes("limit")).is_some_and(|(most, limit)| most.saturating_add(LARGEST_ALLOCATION) >= limit)
    })
}

/// Returns whether an allocation failed at the limit of the cgroup itself.
fn reached_limit_v2(group: &Directory) -> bool {
    let count = group.read("memory.events.local").ok().and_then(|events| keyed(&events, "oom"));
    count.is_some_and(|count| count > 0)
}

/// Returns why processes were killed, by whether the cgroup itself reached its limit, and how many cgroups did,
/// including those below it. The program itself set the limits of those: reaching one is not the sandbox's limit.
fn reason(own: bool, reached: impl FnOnce() -> u64) -> Option<Oom> {
    if own { Some(Oom::OwnLimit) } else { (reached() == 0).then_some(Oom::Above) }
}

/// Returns the value of a line `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Returns the sum of the values in lines `device key value`.
fn sum_of(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == key).then(|| fields.next()?.parse::<u64>().ok()).flatten()
    };
    Some(total_of(text.lines().filter_map(value)))
}

/// Returns the sum of a column of a table, without its header.
fn sum_of_column(table: &str, column: usize) -> u64 {
    total_of(table.lines().filter_map(|line| line.split_whitespace().nth(column)?.parse().ok()))
}

/// Returns the saturating sum.
fn total_of(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Parses a file in all formats.
#[cfg(fuzzing)]
pub(crate) fn figures(text: &str) {
    keyed(text, "oom_kill");
    sum_of_column(text, 1);
    sum_of(text, "Read");
    total_of(assigned(text, "rbytes"));
    stalled(text);
}

/// Returns the values of all words `key=value`.
fn assigned<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split_whitespace().filter_map(move |word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Returns the time that some process was stalled (PSI), in microseconds.
fn stalled(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some"))?;
    assigned(some, "total").next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_versions_are_parsed() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(keyed("low 0\noom 2\noom_kill 1\n", "oom"), Some(2));
        assert_eq!(sum_of("8:0 Read 10\n8:0 Write 5\n8:16 Read 7\nTotal 22\n", "Read"), Some(17));
        assert_eq!(sum_of_column("cpu user system\n0 10 5\n1 7 2\n", 1), 17);
        assert_eq!(assigned("8:0 rbytes=10 wbytes=5\n8:16 rbytes=7\n", "rbytes").sum::<u64>(), 17);
        assert_eq!(stalled("some avg10=0.00 total=42\nfull avg10=0.00 total=7\n"), Some(42));
    }
}
