//! Whether the host lacks a layer: found by starting a reference sandbox, which has that layer alone and takes nothing from
//! the configuration that a program could have changed, such as a path, an ID or a number.

use std::fs;

use super::Layer;
use crate::command::{Command, Stdio};
use crate::confine::{Config, Host, Landlock, Limits, Namespaces, Root, Seccomp, compile};
use crate::error::{Errno, Error, Result};
use crate::launch::{can_idmap, launch};

/// A program that no root has: that it is not found is the last error of a set-up.
const NOWHERE: &str = "/proc/stockade-reference";

/// What the kernel answers if it lacks something or refuses it. Whatever a full quota or short memory answers is not
/// among these: a program can fill quotas.
const LACKS: [i32; 11] = [
    libc::EPERM,
    libc::EACCES,
    libc::ENOSYS,
    libc::EINVAL,
    libc::EOPNOTSUPP,
    libc::ENODEV,
    libc::EROFS,
    libc::E2BIG,
    libc::ENOTTY,
    libc::EAFNOSUPPORT,
    libc::EBUSY,
];

/// Those of the requested namespaces that the host lacks.
pub(super) fn lacking_namespaces(config: &Config) -> Namespaces {
    let Ok(host) = Host::look(config.kernel, can_idmap) else { return Namespaces::empty() };
    let lacks = |namespaces| lacks(&Config { namespaces, ..bare(config) });
    if lacks(Namespaces::empty()) {
        // It is not the namespaces that can't be created.
        return Namespaces::empty();
    }
    let requested = config.namespaces;
    let user = requested & Namespaces::USER;
    let lacking_user = if !user.is_empty() && lacks(user) { user } else { Namespaces::empty() };
    if !lacking_user.is_empty() && !host.privileged {
        return requested;
    }
    let within = user - lacking_user;
    let others = (requested - Namespaces::USER).iter();
    others.filter(|&kind| lacks(within | kind)).fold(lacking_user, |lacking, kind| lacking | kind)
}

/// Whether the host lacks another layer, as far as the configuration uses it.
pub(super) fn lacks_layer(config: &Config, layer: Layer) -> bool {
    let bare = bare(config);
    let reference = match layer {
        Layer::Root => Config { namespaces: config.namespaces, root: config.root.reference(), ..bare },
        Layer::Seccomp => Config { seccomp: config.seccomp.reference(), ..bare },
        Layer::Landlock => {
            let landlock = config.landlock.as_ref().map(Landlock::reference);
            Config { landlock, best_effort: vec![Layer::Landlock], ..bare }
        }
        Layer::Cgroup => return config.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_lacking()),
        _ => return false,
    };
    lacks(&reference)
}

/// A sandbox with no layer that best effort is about.
fn bare(config: &Config) -> Config {
    Config {
        namespaces: Namespaces::empty(),
        joins: vec![],
        hostname: None,
        domain_name: None,
        time_offsets: None,
        identity: config.identity.reference(),
        root: Root::inherit(),
        capabilities: Default::default(),
        new_privs: false,
        landlock: None,
        seccomp: Seccomp::unconfined(),
        best_effort: vec![],
        limits: Limits::new(),
        cgroup: None,
        setup_timeout: config.setup_timeout,
        kernel: config.kernel,
    }
}

/// Whether a reference sandbox can't be started because the host lacks something.
fn lacks(reference: &Config) -> bool {
    match start(reference) {
        Ok(()) | Err(Error::NotFound { .. } | Error::NotExecutable { .. }) => false,
        Err(error) => match error.errno() {
            Some(Errno(libc::ENOSPC)) => reference.namespaces.iter().any(is_limited_to_none),
            Some(Errno(errno)) => LACKS.contains(&errno),
            None => false,
        },
    }
}

fn start(reference: &Config) -> Result<()> {
    let command = Command::new(NOWHERE);
    let streams = [Stdio::null(), Stdio::null(), Stdio::null()];
    launch(&compile(reference, &command.job(streams), vec![], can_idmap)?).map(drop)
}

/// Whether namespaces of a kind are limited to 0. A limit above that may have been reached by a program.
fn is_limited_to_none(kind: Namespaces) -> bool {
    let limit = fs::read_to_string(format!("/proc/sys/user/max_{}_namespaces", kind.names()));
    limit.is_ok_and(|limit| limit.trim() == "0")
}
