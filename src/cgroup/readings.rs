//! What a group has counted, from the files of either version.

use std::time::Duration;

use super::alarm::Alarm;
use super::directory::Directory;
use super::group::Group;
use super::hierarchy::{Controller, Version};
use crate::watch::{Account, Oom};

impl Group {
    /// Reads what its controllers have counted.
    pub fn read(&self, account: &mut Account) {
        let text = |file: &str| self.directory.read(file).ok();
        let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
        let value = |file: &str, key: &str| keyed(&text(file)?, key);
        for controller in &self.controllers {
            match (controller, self.version) {
                (Controller::Memory, Version::V1) => {
                    // Buffers of TCP and UDP are counted apart.
                    let peaks = [number("memory.max_usage_in_bytes"), number(TCP_PEAK)];
                    account.memory_peak = peaks[0].map(|_| total_of(peaks.into_iter().flatten()));
                    account.oom = self.oom_v1();
                }
                (Controller::Memory, Version::V2) => {
                    account.memory_peak = number("memory.peak");
                    account.oom = self.oom_v2();
                    account.memory_pressure =
                        text("memory.pressure").and_then(|text| total(&text)).map(Duration::from_micros);
                }
                (Controller::Cpuacct, Version::V1) => {
                    account.cpu = number("cpuacct.usage").map(Duration::from_nanos);
                    let times = text("cpuacct.usage_all");
                    let time = |column| Some(Duration::from_nanos(sum_of_column(times.as_ref()?, column)));
                    (account.cpu_user, account.cpu_system) = (time(1), time(2));
                }
                (Controller::Cpuacct, Version::V2) => {
                    let time = |key| value("cpu.stat", key).map(Duration::from_micros);
                    account.cpu = time("usage_usec");
                    account.cpu_user = time("user_usec");
                    account.cpu_system = time("system_usec");
                }
                (Controller::Pids, version) => {
                    account.pids_peak = number("pids.peak");
                    account.pids_refused = Some(self.refused_forks(version));
                }
                (Controller::Io, Version::V1) => {
                    let sum = |key: &str| sum_of(&text("blkio.throttle.io_service_bytes_recursive")?, key);
                    (account.read_bytes, account.written_bytes) = (sum("Read"), sum("Write"));
                }
                (Controller::Io, Version::V2) => {
                    let sum = |key: &str| Some(total_of(assigned(&text("io.stat")?, key)));
                    (account.read_bytes, account.written_bytes) = (sum("rbytes"), sum("wbytes"));
                }
                _ => {}
            }
        }
    }
}

/// The most bytes of buffers of TCP and UDP that were in use at a time, where they are counted.
const TCP_PEAK: &str = "memory.kmem.tcp.max_usage_in_bytes";

impl Group {
    /// A kill is counted in the group of the process that was killed, in whichever group the limit was exceeded. Which one
    /// it was is not told: a group, if its use has come as near to its limit as it must for a kill. (`failcnt` stays 0 on
    /// some kernels.)
    fn oom_v1(&self) -> Option<Oom> {
        let kills = self.total(|group| keyed(&group.read("memory.oom_control").ok()?, "oom_kill"));
        let own = has_met_v1(&self.directory);
        // Of a kill in a group that is gone.
        let has_rung = own && self.alarm.as_ref().is_some_and(Alarm::has_rung);
        reason(kills.max(has_rung.into()), own, || self.total(|group| Some(has_met_v1(group).into())))
    }

    /// `oom` is counted where the limit was exceeded, `oom_kill` where the process was, both also in the groups above, unless
    /// the file system is mounted with `memory_localevents`.
    fn oom_v2(&self) -> Option<Oom> {
        let of = |group: &Directory, file: &str, key: &str| keyed(&group.read(file).ok()?, key);
        let count = |key: &str| {
            let local = self.total(|group| of(group, "memory.events.local", key));
            local.max(of(&self.directory, "memory.events", key).unwrap_or_default())
        };
        reason(count("oom_kill"), has_met_v2(&self.directory), || count("oom"))
    }

    /// Whether its own limit on memory was met, whoever was killed for that.
    pub fn has_met_memory_limit(&self) -> bool {
        let has_met = match self.version {
            Version::V1 => has_met_v1,
            Version::V2 => has_met_v2,
        };
        self.controllers.contains(&Controller::Memory) && has_met(&self.directory)
    }

    /// A refusal is counted in the group of the process that could not fork; on v2 since Linux 6.11 in the one whose limit was
    /// met, and in those above, unless they are asked for their own (`pids.events.local`).
    fn refused_forks(&self, version: Version) -> u64 {
        self.total(|group| {
            let local = (version == Version::V2).then(|| group.read("pids.events.local").ok()).flatten();
            keyed(&local.or_else(|| group.read("pids.events").ok())?, "max")
        })
    }

    /// The sum over this group and all below it.
    fn total(&self, of: impl Fn(&Directory) -> Option<u64>) -> u64 {
        let mut figures = vec![];
        self.directory.walk(|group| figures.extend(of(group)));
        total_of(figures.into_iter())
    }
}

/// Whether the use of a group has come as near to its limit as it must for a kill.
fn has_met_v1(group: &Directory) -> bool {
    /// The kernel kills for want of 8 pages at most (`PAGE_ALLOC_COSTLY_ORDER`); of 4 KB.
    const NEAR: u64 = 8 * 4096;
    ["", "memsw."].iter().any(|kind| {
        let bytes = |what: &str| group.read(&format!("memory.{kind}{what}_in_bytes")).ok()?.trim().parse().ok();
        let most: Option<u64> = bytes("max_usage");
        most.zip(bytes("limit")).is_some_and(|(most, limit)| most.saturating_add(NEAR) >= limit)
    })
}

/// Whether memory was wanted in vain at the limit of the group itself.
fn has_met_v2(group: &Directory) -> bool {
    let count = group.read("memory.events.local").ok().and_then(|events| keyed(&events, "oom"));
    count.is_some_and(|count| count > 0)
}

/// Why processes were killed for memory, by whether the group itself has met its limit, and how many groups have, with those
/// below it. Limits of those are of the program's own making: that one was met says nothing of the sandbox's.
fn reason(kills: u64, own: bool, met: impl FnOnce() -> u64) -> Option<Oom> {
    match kills {
        0 => None,
        _ if own => Some(Oom::OwnLimit),
        _ => (met() == 0).then_some(Oom::Above),
    }
}

/// `key value` in lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `device key value` in lines.
fn sum_of(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == key).then(|| fields.next()?.parse::<u64>().ok()).flatten()
    };
    Some(total_of(text.lines().filter_map(value)))
}

/// The sum of a column of numbers, below its head.
fn sum_of_column(table: &str, column: usize) -> u64 {
    total_of(table.lines().filter_map(|line| line.split_whitespace().nth(column)?.parse().ok()))
}

/// The sum, or the largest number that there is.
fn total_of(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// All that is read of the text of a file.
#[cfg(fuzzing)]
pub(crate) fn figures(text: &str) {
    keyed(text, "oom_kill");
    sum_of_column(text, 1);
    sum_of(text, "Read");
    total_of(assigned(text, "rbytes"));
    total(text);
}

/// `key=value` among words.
fn assigned<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split_whitespace().filter_map(move |word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Microseconds that some process was stalled (PSI).
fn total(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some"))?;
    assigned(some, "total").next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_files_of_both_versions() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(keyed("low 0\noom 2\noom_kill 1\n", "oom"), Some(2));
        assert_eq!(sum_of("8:0 Read 10\n8:0 Write 5\n8:16 Read 7\nTotal 22\n", "Read"), Some(17));
        assert_eq!(sum_of_column("cpu user system\n0 10 5\n1 7 2\n", 1), 17);
        assert_eq!(assigned("8:0 rbytes=10 wbytes=5\n8:16 rbytes=7\n", "rbytes").sum::<u64>(), 17);
        assert_eq!(total("some avg10=0.00 total=42\nfull avg10=0.00 total=7\n"), Some(42));
    }
}
