//! Options about resources, as types of the crate.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::limits::Resource;
use stockade::{Cgroup, Limits};

use crate::options::{bytes, time};

#[derive(Args)]
pub struct Resources {
    /// Limit the memory of all processes together: 256M, 1G, …
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Allow swapping that memory out
    #[arg(long, requires = "memory")]
    swap: bool,

    /// Limit the number of processes and threads, including the program
    #[arg(long, value_name = "N")]
    pids: Option<u64>,

    /// Limit the CPU time per second, as a number of CPUs: 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,

    /// Restrict the program to these CPUs: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset: Option<String>,

    /// Limit I/O on a block device: /dev/sda:rbps=1M,wbps=1M,riops=100,wiops=100
    #[arg(long, value_name = "DEVICE:LIMIT,…", value_parser = io_max)]
    io_max: Vec<(PathBuf, IoMax)>,

    /// Create the cgroup below the caller's own, not at all, in a scope of systemd, or below the cgroup at a path
    #[arg(long, value_name = "auto|none|systemd|PATH", value_parser = parent)]
    cgroup_parent: Option<Parent>,

    /// Limit the wall-clock time: 500ms, 2s, 1.5m
    #[arg(long, value_name = "TIME", value_parser = time)]
    wall: Option<Duration>,

    /// Limit the CPU time of all processes together
    #[arg(long, value_name = "TIME", value_parser = time)]
    cpu: Option<Duration>,

    /// Limit the time without CPU use
    #[arg(long, value_name = "TIME", value_parser = time)]
    idle: Option<Duration>,

    /// Limit the bytes of standard output and of standard error, which are printed when the program has terminated
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "pty")]
    pub output: Option<u64>,

    /// Send SIGTERM when a limit is exceeded, and SIGKILL after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    kill_grace: Option<Duration>,

    /// Limit the open descriptors of each process
    #[arg(long, value_name = "N")]
    nofile: Option<u64>,
}

/// Where the cgroup is created.
#[derive(Clone)]
enum Parent {
    None,
    Below(CgroupParent),
}

fn parent(text: &str) -> Result<Parent, String> {
    match text {
        "auto" => Ok(Parent::Below(CgroupParent::Auto)),
        "none" => Ok(Parent::None),
        "systemd" => Ok(Parent::Below(CgroupParent::SystemdScope)),
        path => Ok(Parent::Below(CgroupParent::Path(path.into()))),
    }
}

fn size(text: &str) -> Result<u64, String> {
    bytes(text)
}

fn io_max(text: &str) -> Result<(PathBuf, IoMax), String> {
    let (device, limits) = text.split_once(':').ok_or("it has no colon")?;
    let mut max = IoMax::new();
    for limit in limits.split(',') {
        let (key, value) = limit.split_once('=').ok_or_else(|| format!("{limit:?} has no ="))?;
        let field = match key {
            "rbps" => &mut max.read_bytes,
            "wbps" => &mut max.write_bytes,
            "riops" => &mut max.read_operations,
            "wiops" => &mut max.write_operations,
            _ => return Err(format!("unknown limit {key:?}: use rbps, wbps, riops or wiops")),
        };
        *field = Some(bytes(value)?);
    }
    Ok((device.into(), max))
}

impl Resources {
    /// Adds the requested limits.
    pub fn limit(&self, mut limits: Limits) -> Limits {
        limits = self.wall.into_iter().fold(limits, Limits::wall_time);
        limits = self.cpu.into_iter().fold(limits, Limits::cpu_time);
        limits = self.idle.into_iter().fold(limits, Limits::idle_timeout);
        limits = self.output.into_iter().fold(limits, |set, bytes| set.stdout_max(bytes).stderr_max(bytes));
        limits = self.kill_grace.into_iter().fold(limits, Limits::kill_grace);
        self.nofile.into_iter().fold(limits, |set, n| set.rlimit(Resource::Nofile, n, n))
    }

    /// Returns a cgroup if one is requested, or a limit that needs one.
    pub fn cgroup(&self) -> Option<Cgroup> {
        let parent = match &self.cgroup_parent {
            Some(Parent::None) => return None,
            Some(Parent::Below(parent)) => Some(parent.clone()),
            None => None,
        };
        let mut cgroup = Cgroup::new();
        cgroup = self.memory.into_iter().fold(cgroup, Cgroup::memory_max);
        cgroup = self.pids.into_iter().fold(cgroup, Cgroup::pids_max);
        cgroup = self.cpus.into_iter().fold(cgroup, Cgroup::cpu_max);
        cgroup = self.cpuset.iter().fold(cgroup, Cgroup::cpuset_cpus);
        cgroup = self.io_max.iter().cloned().fold(cgroup, |set, (device, max)| set.io_max(device, max));
        if self.swap {
            cgroup = cgroup.swap_unlimited();
        }
        let wanted = parent.is_some() || cgroup != Cgroup::new();
        wanted.then(|| cgroup.parent(parent.unwrap_or_default()))
    }
}
