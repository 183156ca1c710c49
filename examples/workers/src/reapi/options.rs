//! The options of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::action_sandbox::InputRoot;
use super::blob_cache::Placement;
use super::connection::Security;
use super::platform::parse_bytes;

/// A worker of the Remote Execution API: it takes actions from a server, and runs each in a sandbox of its own.
#[derive(Clone, Debug, Parser)]
#[command(name = "stockade-reapi", version)]
pub struct Options {
    /// Address of the server that gives work (Remote Workers API): http://, https://, grpc:// or grpcs://.
    #[arg(long, value_name = "URL")]
    pub server: String,

    /// Address of the content-addressed storage. Default: that of the server.
    #[arg(long, value_name = "URL")]
    pub cas: Option<String>,

    /// Name of the instance of the server.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub instance: String,

    #[command(flatten)]
    pub security: Security,

    /// Directory for the cache, and for the files of actions. Each worker has one of its own. A root's must be on a file
    /// system with idmapped mounts (ext4, xfs, btrfs, tmpfs; not overlayfs).
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: PathBuf,

    /// Name of the worker, which should be the same after a restart. Default: of the host and the directory.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,

    /// Number of actions that run at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: u16,

    /// What the root directory of an action is.
    #[arg(long, value_enum, default_value_t = InputRoot::BesideHost)]
    pub input_root: InputRoot,

    /// How inputs are placed. Default: hard links for a worker of root with --input-root=beside-host, and copies otherwise.
    #[arg(long, value_enum)]
    pub inputs: Option<Placement>,

    /// Property that the worker offers, besides OSFamily and ISA. Can be given several times.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = parse_property)]
    pub properties: Vec<(String, String)>,

    /// Maximum size of the cache.
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes)]
    pub cache_size: u64,

    /// Memory of an action without the platform property `memory`.
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = bytes)]
    pub memory: u64,

    /// Most memory that the platform property `memory` may ask for. Default: the memory of an action without it.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub max_memory: Option<u64>,

    /// Maximum number of processes and threads of an action.
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    pub max_processes: u64,

    /// Runs actions without a cgroup, in which memory, CPUs and the total number of processes have no limit.
    #[arg(long)]
    pub without_cgroup: bool,

    /// Lets actions use the network of the host if they ask for it by the platform property `network=host`.
    #[arg(long)]
    pub allow_network: bool,

    /// Seconds that an action without a timeout may run.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub timeout: Duration,

    /// Longest timeout that an action may ask for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub max_timeout: Duration,

    /// Maximum number of entries in an input root.
    #[arg(long, value_name = "NUMBER", default_value_t = 500_000)]
    pub max_inputs: u64,

    /// Maximum size of the files of an input root together. A file counts in each of its places.
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = bytes)]
    pub max_input_bytes: u64,

    /// Maximum size of the outputs of an action together.
    #[arg(long, value_name = "BYTES", default_value = "4G", value_parser = bytes)]
    pub max_output_bytes: u64,

    /// Maximum number of entries in the outputs of an action.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    pub max_outputs: u64,

    /// Maximum size of standard output, and of standard error. An action that writes more is killed.
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = bytes)]
    pub max_stream: u64,

    /// Longest time between two messages to the server, in seconds. An action that is cancelled is killed within it.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = heartbeat)]
    pub heartbeat: Duration,

    /// Seconds that running actions may take after SIGTERM. Then they are killed, and other workers run them.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub drain: Duration,

    /// Seconds for which the storage may be away until an action fails.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub patience: Duration,
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "use a number of bytes, or a number with K, M, G or T".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "use a number of seconds above 0".into())
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    // Servers give no work to a poll that is shorter.
    seconds(text).ok().filter(|time| *time >= Duration::from_secs(5)).ok_or_else(|| "use at least 5 seconds".into())
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("use NAME=VALUE")?;
    if matches!(name, "" | "memory" | "cpus" | "network") {
        return Err(format!("{name:?} is not for --property: use another name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
