//! What the machine's kernel has in use, and what of it a group was charged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::with_limits;

/// Numbers by their names, as the kernel's files have them, in bytes.
fn table(path: &Path, unit: u64) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.trim_end_matches(':').to_owned();
        Some((name, words.next()?.parse::<u64>().ok()? * unit))
    };
    text.lines().filter_map(line).collect()
}

fn number(path: PathBuf) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Bytes that are in use on the machine, and are neither pages of a program nor of a file.
pub fn kernel() -> i64 {
    let all = table(Path::new("/proc/meminfo"), 1024);
    let others = ["MemFree", "Buffers", "Cached", "SwapCached", "AnonPages"].iter().map(|name| all[*name]).sum::<u64>();
    (all["MemTotal"] - others) as i64 - free_on_cpus()
}

/// Bytes that each CPU keeps free for itself, which are in no other figure.
fn free_on_cpus() -> i64 {
    let zones = fs::read_to_string("/proc/zoneinfo").expect("/proc/zoneinfo");
    let counts = zones.lines().filter_map(|line| line.trim().strip_prefix("count:")?.trim().parse::<i64>().ok());
    counts.sum::<i64>() * 4096
}

/// The group that has the limits of a process: v1's of memory, or that of v2.
pub struct Group {
    directory: PathBuf,
    is_v1: bool,
}

impl Group {
    pub fn of(pid: u32) -> Self {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups of a process");
        let is_v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
        let (names, above) = if is_v1 { (":memory:", "/sys/fs/cgroup/memory") } else { ("0::", "/sys/fs/cgroup") };
        let path = groups.lines().find_map(|line| line.split_once(names)).expect("a group").1;
        Self { directory: with_limits(&Path::new(above).join(path.trim_start_matches('/'))).to_owned(), is_v1 }
    }

    /// Whether the kernel has ended a process for its memory.
    pub fn is_over(&self) -> bool {
        let file = if self.is_v1 { "memory.oom_control" } else { "memory.events" };
        table(&self.directory.join(file), 1).get("oom_kill").is_none_or(|&killed| killed > 0)
    }

    /// Bytes of the kernel's that the group was charged, and pages of its programs and their files.
    pub fn charged(&self) -> [i64; 2] {
        let stat = table(&self.directory.join("memory.stat"), 1);
        let sum = |names: [&str; 2]| names.iter().filter_map(|name| stat.get(*name)).sum::<u64>() as i64;
        let at = |name: &str| number(self.directory.join(name)) as i64;
        if self.is_v1 {
            let kernel = at("memory.kmem.usage_in_bytes") + at("memory.kmem.tcp.usage_in_bytes");
            [kernel, sum(["total_rss", "total_cache"])]
        } else {
            let pages = sum(["anon", "file"]);
            [at("memory.current") - pages, pages]
        }
    }
}

/// CPU time of all threads of the kernel's.
pub fn kernel_threads() -> Duration {
    // Of each process: its number, name, state and parent. The threads' is process 2.
    let is_of_the_kernel = |directory: &Path| {
        let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some("2"))
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    // Nanoseconds on a CPU, and what else there is.
    let time = |directory: PathBuf| {
        fs::read_to_string(directory.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(processes.filter(|it| is_of_the_kernel(it)).filter_map(time).sum())
}
