//! Options about resources.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::config::Config;
use stockade::limits::Resource;

use crate::value_parsers::{size, time};

#[derive(Args)]
pub struct LimitOptions {
    /// Limit the memory of all processes together: 256M, 1G, …
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Allow swapping that memory out
    #[arg(long)]
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

    /// Limit the bytes and operations per second on a block device: /dev/sda:rbps=1M,wbps=1M,riops=100,wiops=100
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

    /// Send SIGTERM when a limit is exceeded, and SIGKILL after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    kill_grace: Option<Duration>,

    /// Limit the open descriptors of each process
    #[arg(long, value_name = "N")]
    nofile: Option<u64>,
}

// The limit on what is written. No doc comment: it would take the place of that of the subcommand.
#[derive(Args)]
pub struct OutputOptions {
    /// Limit the bytes of standard output and of standard error, which are printed when the program has terminated
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "pty")]
    output: Option<u64>,
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
        path if path.starts_with('/') => Ok(Parent::Below(CgroupParent::Path(path.into()))),
        _ => Err("it is not auto, none or systemd, and does not begin with /".into()),
    }
}

fn io_max(text: &str) -> Result<(PathBuf, IoMax), String> {
    let (device, limits) = text.split_once(':').ok_or("it has no colon")?;
    let mut max = IoMax::new();
    for limit in limits.split(',') {
        let (key, value) = limit.split_once('=').ok_or_else(|| format!("{limit:?} has no ="))?;
        let count = || value.parse().map_err(|_| format!("{value:?} is not a number of operations, such as 100"));
        let (field, limit) = match key {
            "rbps" => (&mut max.read_bytes, size(value)?),
            "wbps" => (&mut max.write_bytes, size(value)?),
            "riops" => (&mut max.read_operations, count()?),
            "wiops" => (&mut max.write_operations, count()?),
            _ => return Err(format!("unknown limit {key:?}: use rbps, wbps, riops or wiops")),
        };
        if field.replace(limit).is_some() {
            return Err(format!("{key} is given twice: remove one"));
        }
    }
    Ok((device.into(), max))
}

impl LimitOptions {
    pub fn add_to(&self, config: &mut Config) {
        config.memory = self.memory;
        config.swap = self.swap.then_some(None);
        config.pids = self.pids;
        config.cpus = self.cpus;
        config.cpuset.clone_from(&self.cpuset);
        config.io_max.extend(self.io_max.iter().cloned());
        (config.cgroup, config.cgroup_parent) = match &self.cgroup_parent {
            None => (None, None),
            Some(Parent::None) => (Some(false), None),
            Some(Parent::Below(parent)) => (None, Some(parent.clone())),
        };
        config.wall_time = self.wall;
        config.cpu_time = self.cpu;
        config.idle_timeout = self.idle;
        config.kill_grace = self.kill_grace;
        config.rlimits.extend(self.nofile.map(|count| (Resource::Nofile, (count, count))));
    }
}

impl OutputOptions {
    pub fn add_to(&self, config: &mut Config) {
        (config.stdout_max, config.stderr_max) = (self.output, self.output);
    }
}
