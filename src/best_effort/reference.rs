//! Finds out whether the host supports a layer, by starting a reference sandbox: one that has only that layer, and
//! takes nothing from the configuration that a program could have changed, such as a path, an ID or a number.

use std::collections::BTreeMap;
use std::fs;

use super::Layer;
use crate::command::{Command, Stdio};
use crate::compile::{SandboxConfig, compile};
use crate::confine::{Capabilities, Landlock, Limits, Namespaces, Root, Seccomp};
use crate::error::{ErrorKind, Result};
use crate::launch::{can_idmap, launch};
use crate::stored::Version;
use crate::unix::Errno;

/// A program that exists in no root: "not found" is the last error that a set-up can return.
const NOWHERE: &str = "/proc/stockade-reference";

/// The errors of a kernel that does not support something or forbids it. Errors of an exhausted quota or of short
/// memory are not among these: a program can exhaust quotas.
const LACKS: [Errno; 11] = [
    Errno::EPERM,
    Errno::EACCES,
    Errno::ENOSYS,
    Errno::EINVAL,
    Errno::EOPNOTSUPP,
    Errno::ENODEV,
    Errno::EROFS,
    Errno::E2BIG,
    Errno::ENOTTY,
    Errno::EAFNOSUPPORT,
    Errno::EBUSY,
];

/// Returns the requested namespaces that the host does not support.
pub(super) fn lacking_namespaces(config: &SandboxConfig) -> Namespaces {
    let Ok(facts) = config.facts(can_idmap) else { return Namespaces::empty() };
    let lacks = |namespaces| lacks(&SandboxConfig { namespaces, ..bare(config) });
    if lacks(Namespaces::empty()) {
        // Something else fails, not the creation of namespaces.
        return Namespaces::empty();
    }
    let requested = config.namespaces;
    let user = requested & Namespaces::USER;
    let lacking_user = if !user.is_empty() && lacks(user) { user } else { Namespaces::empty() };
    if !lacking_user.is_empty() && !facts.privileged {
        return requested;
    }
    let within = user - lacking_user;
    let others = (requested - Namespaces::USER).iter();
    others.filter(|&kind| lacks(within | kind)).fold(lacking_user, |lacking, kind| lacking | kind)
}

/// Returns whether the host does not support another layer, as far as the configuration uses it.
pub(super) fn lacks_layer(config: &SandboxConfig, layer: Layer) -> bool {
    let bare = bare(config);
    let reference = match layer {
        Layer::Root => SandboxConfig { namespaces: config.namespaces, root: config.root.reference(), ..bare },
        Layer::Seccomp => SandboxConfig { seccomp: config.seccomp.reference(), ..bare },
        Layer::Landlock => {
            let landlock = config.landlock.as_ref().or(config.stand_in.as_ref()).map(Landlock::reference);
            SandboxConfig { landlock, best_effort: vec![Layer::Landlock], ..bare }
        }
        Layer::Cgroup => return config.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_lacking()),
        _ => return false,
    };
    lacks(&reference)
}

/// Returns a configuration without the layers that can be best-effort.
fn bare(config: &SandboxConfig) -> SandboxConfig {
    SandboxConfig {
        namespaces: Namespaces::empty(),
        identity: config.identity.reference(),
        root: Root::inherit(),
        seccomp: Seccomp::unconfined(),
        setup_timeout: config.setup_timeout,
        #[cfg(feature = "_testing")]
        kernel: config.kernel,
        // Every field is named, so that the compiler asks whether a new layer belongs here.
        version: Version,
        joins: vec![],
        hostname: None,
        domain_name: None,
        time_offsets: None,
        env: BTreeMap::new(),
        capabilities: Capabilities::none(),
        new_privs: false,
        umask: config.umask,
        keep_namespaces: false,
        landlock: None,
        landlock_fallback: false,
        stand_in: None,
        nestable: false,
        best_effort: vec![],
        limits: Limits::new(),
        cgroup: None,
    }
}

/// Returns whether a reference sandbox fails to start because the host does not support something.
fn lacks(reference: &SandboxConfig) -> bool {
    match start(reference) {
        Ok(()) => false,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotExecutable) => false,
        Err(error) => match error.errno() {
            Some(Errno::ENOSPC) => reference.namespaces.iter().any(has_limit_of_zero),
            Some(errno) => LACKS.contains(&errno),
            None => false,
        },
    }
}

fn start(reference: &SandboxConfig) -> Result<()> {
    let command = Command::new(NOWHERE);
    let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
    let compiled = compile(reference, &command.job(streams)?, vec![], can_idmap)?;
    launch(&compiled.plan, compiled.cgroup.as_ref()).map(drop)
}

/// Returns whether namespaces of a kind are limited to 0. A higher limit may have been exhausted by a program.
fn has_limit_of_zero(kind: Namespaces) -> bool {
    let limit = fs::read_to_string(format!("/proc/sys/user/max_{}_namespaces", kind.names()));
    limit.is_ok_and(|limit| limit.trim() == "0")
}
