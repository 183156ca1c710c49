//! What the command line says of resources, as the crate's own types.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stockade::{Cgroup, CgroupParent, IoMax, Limits, Resource};

use crate::options::{bytes, time};

#[derive(Args)]
pub struct Resources {
    /// Memory that it may have with all that it starts: 256M, 1G, …
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Lets that memory be swapped out
    #[arg(long, requires = "memory")]
    swap: bool,

    /// Processes and threads that it may have, itself among them
    #[arg(long, value_name = "N")]
    pids: Option<u64>,

    /// CPUs' worth of time: 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,

    /// CPUs that it may run on: 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset: Option<String>,

    /// A limit of a block device: /dev/sda:rbps=1M,wbps=1M,riops=100,wiops=100
    #[arg(long, value_name = "DEVICE:LIMIT,…", value_parser = io_max)]
    io_max: Vec<(PathBuf, IoMax)>,

    /// Where its cgroup is made: below the host's own, nowhere, in a scope of systemd's, or below a cgroup by its path
    #[arg(long, value_name = "auto|none|systemd|PATH", value_parser = parent)]
    cgroup_parent: Option<Parent>,

    /// Time that it may run: 500ms, 2s, 1.5m
    #[arg(long, value_name = "TIME", value_parser = time)]
    wall: Option<Duration>,

    /// CPU time that it may use with all that it starts
    #[arg(long, value_name = "TIME", value_parser = time)]
    cpu: Option<Duration>,

    /// Time that it may do nothing
    #[arg(long, value_name = "TIME", value_parser = time)]
    idle: Option<Duration>,

    /// Bytes that it may write to each of standard output and standard error, which are shown when it has ended
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "pty")]
    pub output: Option<u64>,

    /// Time between SIGTERM and SIGKILL for a program that exceeds a limit
    #[arg(long, value_name = "TIME", value_parser = time)]
    kill_grace: Option<Duration>,

    /// Descriptors that it may have
    #[arg(long, value_name = "N")]
    nofile: Option<u64>,
}

/// Where the cgroup is made.
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
    let mut max = IoMax::default();
    for limit in limits.split(',') {
        let (key, value) = limit.split_once('=').ok_or_else(|| format!("{limit:?} has no ="))?;
        let field = match key {
            "rbps" => &mut max.read_bytes,
            "wbps" => &mut max.write_bytes,
            "riops" => &mut max.read_operations,
            "wiops" => &mut max.write_operations,
            _ => return Err(format!("{key:?} is none of rbps, wbps, riops, wiops")),
        };
        *field = Some(bytes(value)?);
    }
    Ok((device.into(), max))
}

impl Resources {
    /// Limits with those that are asked for.
    pub fn limit(&self, mut limits: Limits) -> Limits {
        limits = self.wall.into_iter().fold(limits, Limits::wall);
        limits = self.cpu.into_iter().fold(limits, Limits::cpu);
        limits = self.idle.into_iter().fold(limits, Limits::idle);
        limits = self.output.into_iter().fold(limits, |set, bytes| set.stdout(bytes).stderr(bytes));
        limits = self.kill_grace.into_iter().fold(limits, Limits::kill_grace);
        self.nofile.into_iter().fold(limits, |set, n| set.rlimit(Resource::Nofile, n, n))
    }

    /// The cgroup, if one is asked for, or a limit that takes one.
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
