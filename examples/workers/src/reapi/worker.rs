//! The worker as a whole: what the options say, and signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stockade::{Cgroup, Command, Layer, Sandbox};
use tokio::signal::unix::{SignalKind, signal};

use super::action::{ActionRunner, ActionSettings};
use super::action_sandbox::{InputRoot, SandboxLimits};
use super::blob_cache::{BlobCache, Placement};
use super::cas::Cas;
use super::connection::{Security, connect};
use super::digest::BlobDigest;
use super::failure::{Failure, Tried};
use super::input_tree::{InputLimits, KnownDirectories};
use super::options::Options;
use super::outputs::OutputLimits;
use super::platform::Offer;
use super::session::{Session, SessionSettings, Signals};
use super::slot;
use super::workplace::Workplace;

/// Runs a worker until SIGTERM or SIGINT.
///
/// # Errors
///
/// If the host lacks what the options ask for, or the server refuses the worker.
pub async fn run(options: Options) -> Result<(), Failure> {
    let signals = Signals::default();
    listen(signals.clone())?;
    check_descriptors(options.slots)?;
    check_memory(&options)?;
    let slots = slot::divide(options.slots.into())?;
    let workplace = Workplace::open(&options.directory)?;
    for slot in &slots {
        check_host(&options, workplace.actions(), &slot.cpu_list()).await?;
    }
    let cache = BlobCache::open(workplace.cache(), options.cache_size)?;
    let server = connect(&options.server, &options.security)?;
    let storage = options.cas.as_deref().map(|address| connect(address, &options.security)).transpose()?;
    let storage = storage.unwrap_or_else(|| server.clone());
    let cas = Cas::new(storage.clone(), options.instance.clone(), options.patience).with_server_limits(storage);
    let Some(cas) = signals.drain.run_until_cancelled(cas).await else { return Ok(()) };
    let id = options.id.clone().map_or_else(|| stable_id(&options.directory), Ok)?;
    let properties = properties(&options);
    let settings = action_settings(&options, &id, &properties, hidden(&options, &workplace)?)?;
    let runner = ActionRunner { cas, cache, workplace, settings, known: KnownDirectories::default() };
    let session = SessionSettings {
        instance: options.instance,
        id,
        properties,
        heartbeat: options.heartbeat,
        drain: options.drain,
    };
    Session::new(server, session, Arc::new(runner), slots).run(signals).await
}

/// Returns the files of the worker that no action may read.
fn hidden(options: &Options, workplace: &Workplace) -> Result<Vec<PathBuf>, Failure> {
    let Security { token_file, tls_key, .. } = &options.security;
    let secrets = [token_file, tls_key].into_iter().flatten();
    let secrets = secrets.map(|path| path.canonicalize().tried(format_args!("find {}", path.display())));
    secrets.chain([Ok(workplace.directory().to_owned())]).collect()
}

fn action_settings(
    options: &Options,
    id: &str,
    properties: &[(String, String)],
    hidden: Vec<PathBuf>,
) -> Result<ActionSettings, Failure> {
    let is_root = rustix::process::geteuid().is_root();
    let by_default = match options.input_root {
        InputRoot::BesideHost if is_root => Placement::HardLinks,
        _ => Placement::Copies,
    };
    let placement = options.inputs.unwrap_or(by_default);
    if placement == Placement::HardLinks && !is_root {
        return Err(Failure::invalid(
            "--inputs=hard-links requires root: the actions of an ordinary user could change the cache",
        ));
    }
    Ok(ActionSettings {
        worker: id.to_owned(),
        input_root: options.input_root,
        placement,
        offer: Offer {
            properties: properties.to_vec(),
            memory: options.memory,
            most_memory: options.max_memory.unwrap_or(options.memory),
            network: options.allow_network,
            cgroup: !options.without_cgroup,
        },
        sandbox: SandboxLimits {
            pids: options.max_processes,
            stream: options.max_stream,
            cgroup: !options.without_cgroup,
            hidden,
        },
        outputs: OutputLimits { bytes: options.max_output_bytes, entries: options.max_outputs },
        inputs: InputLimits { bytes: options.max_input_bytes, entries: options.max_inputs },
        timeout: options.timeout,
        longest_timeout: options.max_timeout.max(options.timeout),
    })
}

fn properties(options: &Options) -> Vec<(String, String)> {
    let isa = match std::env::consts::ARCH {
        "x86_64" => "x86-64",
        other => other,
    };
    let own = [("OSFamily", "linux"), ("ISA", isa)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    own.into_iter().chain(options.properties.iter().cloned()).collect()
}

/// Returns a name that is the same after a restart, and different for each worker of a host.
fn stable_id(directory: &Path) -> Result<String, Failure> {
    let path = directory.canonicalize().tried("find the directory of the worker")?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let digest = BlobDigest::of(path.as_os_str().as_encoded_bytes()).hash();
    Ok(format!("{host}-{}", &digest[..12]))
}

fn check_memory(options: &Options) -> Result<(), Failure> {
    match options.max_memory {
        Some(most) if most < options.memory => Err(Failure::invalid(format!(
            "--max-memory is less than --memory, which is {} bytes: lower --memory too",
            options.memory
        ))),
        _ => Ok(()),
    }
}

/// Checks that all slots can run actions at a time. Otherwise each would fail some, which other workers would have to run.
fn check_descriptors(slots: u16) -> Result<(), Failure> {
    let needed = 64 + 32 * u64::from(slots);
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(most) if most < needed => Err(Failure::precondition(format!(
            "{slots} slots need {needed} open files, of which the limit is {most}: raise it (ulimit -n, LimitNOFILE=)"
        ))),
        _ => Ok(()),
    }
}

/// Runs a program with the limits that actions have, and with the directory of actions, so that a host that cannot enforce
/// them is found out at once.
async fn check_host(options: &Options, directory: &Path, cpus: &str) -> Result<(), Failure> {
    let mut sandbox = Sandbox::new().map_root(|root| root.bind_rw(directory, "/build"));
    if !options.without_cgroup {
        let cgroup = Cgroup::new().memory_max(options.memory).pids_max(options.max_processes).cpuset_cpus(cpus);
        sandbox = sandbox.cgroup(cgroup);
    }
    let outcome = stockade::tokio::status(&sandbox, Command::new("true")).await.map_err(|error| {
        let is_cgroup = error.layer() == Some(Layer::Cgroup);
        let hint = if is_cgroup { ": give the worker a cgroup, or start it with --without-cgroup" } else { "" };
        Failure::precondition(format!("this host cannot run actions: {error}{hint}"))
    })?;
    if outcome.success() {
        return Ok(());
    }
    Err(Failure::precondition(format!("this host cannot run actions: true(1) {}", outcome.termination)))
}

/// The first SIGTERM or SIGINT drains the worker, and the second one stops it.
fn listen(signals: Signals) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).tried("listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).tried("listen to SIGINT")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if signals.drain.is_cancelled() {
                signals.stop.cancel();
            }
            signals.drain.cancel();
        }
    });
    Ok(())
}
