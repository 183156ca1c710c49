//! The limits as files of cgroup v1 and v2, and the values that they accept.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::hierarchy::{Controller, HierarchyVersion};
use super::{Cgroup, IoMax, Swap};
use crate::error::{Error, Result};

/// A limit: the name of its method, and the files and values to write. Without files it is unsupported on that version.
pub(super) struct Setting {
    pub name: &'static str,
    pub controller: Controller,
    v1: Vec<(String, String)>,
    v2: Vec<(String, String)>,
    /// Whether it may be ignored on a machine without swap.
    pub of_swap: bool,
    /// Name of the method that has set this limit too, if it was not requested by itself.
    pub part_of: Option<&'static str>,
}

impl Setting {
    fn new(name: &'static str, controller: Controller, v1: &[(&str, String)], v2: &[(&str, String)]) -> Self {
        fn owned(files: &[(&str, String)]) -> Vec<(String, String)> {
            files.iter().map(|(file, value)| ((*file).to_owned(), value.clone())).collect()
        }
        Self { name, controller, v1: owned(v1), v2: owned(v2), of_swap: false, part_of: None }
    }

    pub fn files(&self, version: HierarchyVersion) -> &[(String, String)] {
        match version {
            HierarchyVersion::V1 => &self.v1,
            HierarchyVersion::V2 => &self.v2,
        }
    }
}

/// The maximum number of processes (`PID_MAX_LIMIT`). The kernel rejects a higher limit.
const MAX_PIDS: u64 = 4_194_304;
/// The maximum CPU time in a period, in microseconds (`MAX_BW` of `kernel/sched/sched.h`).
const MAX_QUOTA: f64 = ((1_u64 << 44) - 1) as f64;

/// The v1 file with the limit on buffers of TCP and UDP sockets, which v1 counts separately from other memory.
pub(super) const TCP_BUFFERS: &str = "memory.kmem.tcp.limit_in_bytes";

/// Files by which processes can be blocked forever.
const BLOCKING: [&str; 2] = ["memory.force_empty", "memory.oom_control"];

fn refuse<T>(what: String, remedy: &'static str) -> Result<T> {
    Err(Error::invalid(what, remedy))
}

impl Cgroup {
    /// Returns the limits that are set, in the order in which they are written.
    pub(super) fn settings(&self) -> Result<Vec<Setting>> {
        let mut settings = self.memory()?;
        settings.extend(self.cpu()?);
        if let Some(count) = self.pids_max {
            if count == 0 {
                return refuse("pids_max is 0".into(), "pass at least 1: the program itself counts");
            }
            let most = if count > MAX_PIDS { "max".into() } else { count.to_string() };
            let file = [("pids.max", most)];
            settings.push(Setting::new("pids_max", Controller::Pids, &file, &file));
        }
        for (device, max) in &self.io_max {
            settings.extend(io_max(device, max)?);
        }
        if let Some(weight) = self.io_weight {
            if !(1..=1000).contains(&weight) {
                return refuse(format!("io_weight {weight} is out of range"), "pass 1 to 1000");
            }
            let value = weight.to_string();
            settings.push(Setting::new(
                "io_weight",
                Controller::Io,
                &[("blkio.bfq.weight", value.clone())],
                &[("io.weight", value)],
            ));
        }
        for (size, bytes) in &self.hugetlb_max {
            if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return refuse(format!("{size:?} is not a size of huge pages"), "pass a size such as 2MB or 1GB");
            }
            settings.push(Setting::new(
                "hugetlb_max",
                Controller::Hugetlb,
                &[(&format!("hugetlb.{size}.limit_in_bytes"), bytes.to_string())],
                &[(&format!("hugetlb.{size}.max"), bytes.to_string())],
            ));
        }
        for (file, value) in &self.raw {
            if file.starts_with("freezer.") || BLOCKING.contains(&file.as_str()) {
                return refuse(
                    format!("writing {file} is not allowed, because it could keep processes from starting or exiting"),
                    "remove this call of Cgroup::raw; to stop processes use Cgroup::freezable and Child::freeze",
                );
            }
            let known = Controller::of_file(file).filter(|_| !file.contains('/'));
            let Some(controller) = known else {
                return refuse(format!("{file:?} is not a file of a controller"), "pass a name such as memory.low");
            };
            let file = [(file.as_str(), value.clone())];
            settings.push(Setting::new("raw", controller, &file, &file));
        }
        Ok(settings)
    }

    fn memory(&self) -> Result<Vec<Setting>> {
        let mut settings = vec![];
        if let Some(bytes) = self.memory_max {
            if bytes == 0 {
                return refuse("memory_max is 0".into(), "pass as many bytes as the program needs");
            }
            let value = bytes.to_string();
            let v2 = [("memory.max", value.clone()), ("memory.oom.group", "1".into())];
            let v1 = [("memory.limit_in_bytes", value.clone()), (TCP_BUFFERS, value)];
            settings.push(Setting::new("memory_max", Controller::Memory, &v1, &v2));
        }
        if let Some(bytes) = self.memory_high {
            settings.push(Setting::new("memory_high", Controller::Memory, &[], &[("memory.high", bytes.to_string())]));
        }
        let swap = match (self.swap, self.memory_max) {
            (Swap::Max(bytes), memory) => Some((bytes, memory)),
            (Swap::Default, Some(memory)) => Some((0, Some(memory))),
            (Swap::Default, None) | (Swap::Unlimited, _) => None,
        };
        if let Some((swap, memory)) = swap {
            let v1: Vec<_> = memory
                .map(|memory| ("memory.memsw.limit_in_bytes", memory.saturating_add(swap).to_string()))
                .into_iter()
                .collect();
            let v2 = [("memory.swap.max", swap.to_string())];
            let part_of = (self.swap == Swap::Default).then_some("memory_max");
            settings.push(Setting { of_swap: true, part_of, ..Setting::new("swap_max", Controller::Memory, &v1, &v2) });
        }
        Ok(settings)
    }

    fn cpu(&self) -> Result<Vec<Setting>> {
        let mut settings = vec![];
        if let Some((cpus, period)) = self.cpu_max {
            let quota = cpus * period.as_micros() as f64;
            if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period)
                || !(1000.0..MAX_QUOTA).contains(&quota)
            {
                return refuse(
                    format!("a limit of {cpus} CPUs in a period of {period:?} is out of range"),
                    "pass a period of 1 ms to 1 s, and a number of CPUs that gives at least 1 ms of CPU time in a period",
                );
            }
            let (quota, period) = (quota.round() as u64, period.as_micros());
            let v1 = [("cpu.cfs_period_us", period.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            settings.push(Setting::new("cpu_max", Controller::Cpu, &v1, &[("cpu.max", format!("{quota} {period}"))]));
        }
        if let Some(weight) = self.cpu_weight {
            if !(1..=10_000).contains(&weight) {
                return refuse(format!("cpu_weight {weight} is out of range"), "pass 1 to 10000");
            }
            // The default is 100 on v2 and 1024 on v1.
            let shares = (u64::from(weight) * 1024 / 100).clamp(2, 262_144);
            let (v1, v2) = ([("cpu.shares", shares.to_string())], [("cpu.weight", weight.to_string())]);
            settings.push(Setting::new("cpu_weight", Controller::Cpu, &v1, &v2));
        }
        let sets =
            [("cpuset_cpus", "cpuset.cpus", &self.cpuset_cpus), ("cpuset_mems", "cpuset.mems", &self.cpuset_mems)];
        for (name, file, list) in sets {
            let Some(list) = list else { continue };
            let is_list = |byte: u8| byte.is_ascii_digit() || byte == b',' || byte == b'-';
            if !list.bytes().any(|byte| byte.is_ascii_digit()) || !list.bytes().all(is_list) {
                return refuse(format!("{list:?} is not a list of numbers"), "pass a list such as 0-3,7");
            }
            let file = [(file, list.clone())];
            settings.push(Setting::new(name, Controller::Cpuset, &file, &file));
        }
        Ok(settings)
    }
}

/// Returns the limit of a device. `None` if it has no limits.
fn io_max(path: &Path, max: &IoMax) -> Result<Option<Setting>> {
    let block = fs::metadata(path).ok().filter(|meta| meta.file_type().is_block_device());
    let Some(device) = block.map(|meta| meta.rdev()) else {
        return refuse(
            format!("{} is not a block device", path.display()),
            "pass the path of a device node such as /dev/sda",
        );
    };
    if *max == IoMax::default() {
        return Ok(None);
    }
    let values = [max.read_bytes, max.write_bytes, max.read_operations, max.write_operations];
    if values.contains(&Some(0)) {
        let what = format!("a limit of 0 per second is set for {}", path.display());
        return refuse(
            what,
            "pass at least 1 (0 means no limit on cgroup v1); to deny access to the device do not bind it",
        );
    }
    let device = format!("{}:{}", major(device), minor(device));
    // v1 truncates numbers to 32 bits.
    let operations = |count: Option<u64>| count.map(|count| count.min(u32::MAX.into()));
    let limits = [
        ("blkio.throttle.read_bps_device", "rbps", max.read_bytes),
        ("blkio.throttle.write_bps_device", "wbps", max.write_bytes),
        ("blkio.throttle.read_iops_device", "riops", operations(max.read_operations)),
        ("blkio.throttle.write_iops_device", "wiops", operations(max.write_operations)),
    ];
    let set = || limits.iter().filter_map(|&(v1, v2, value)| Some((v1, v2, value?)));
    let v1: Vec<_> = set().map(|(file, _, value)| (file, format!("{device} {value}"))).collect();
    let all: String = set().map(|(_, key, value)| format!(" {key}={value}")).collect();
    Ok(Some(Setting::new("io_max", Controller::Io, &v1, &[("io.max", format!("{device}{all}"))])))
}
