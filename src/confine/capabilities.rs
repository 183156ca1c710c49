//! Capabilities and what else a program could gain rights by: none in any set but those that are asked for, and no way
//! to more.

use std::fmt::{self, Display, Formatter};

use caps::{CapSet, Capability};

use crate::error::{Error, Result};
use crate::plan::{Arg, Program, Step, flags, nr};

/// The helper keeps what it has while it becomes the sandbox's user, also if it was root before.
pub(crate) fn keep_over_user_change(helper: &mut Program) {
    helper.step(Step::new("keeping the capabilities over the change of user"));
    helper.prctl(flags!(PR_SET_SECUREBITS), flags!(SECBIT_NO_SETUID_FIXUP));
}

/// Which capabilities a program has (capabilities(7)). The default is none in any set.
///
/// What is kept is in every set, the ambient one among them, so that a program has it that is not root and has no file
/// capabilities, and so has what that executes. It is over the sandbox's user namespace, which the host's files and
/// devices are not in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Capabilities {
    kept: Vec<Capability>,
}

impl Capabilities {
    /// None: the default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Lets the program have these. It takes a user namespace, or a host that is root.
    ///
    /// The default seccomp filter refuses most calls that take a capability: [`Seccomp::allow`](crate::Seccomp::allow).
    #[must_use]
    pub fn keep(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        for capability in capabilities {
            if !self.kept.contains(&capability) {
                self.kept.push(capability);
            }
        }
        self
    }

    /// Refuses what the kernel does not know, and, without a user namespace, what the caller lacks.
    pub(super) fn check(&self, last: u32, has_rights: bool, has_namespace: bool) -> Result<()> {
        if let Some(unknown) = self.kept.iter().find(|capability| u32::from(capability.index()) > last) {
            return Err(Error::invalid(
                format!("the kernel knows no {unknown}"),
                "leave it out, or use a newer kernel",
            ));
        }
        if !has_rights && !self.kept.is_empty() {
            return Err(Error::invalid(
                format!("{self} can't be kept: this host is not root, and the sandbox has no user namespace"),
                "add Namespaces::USER, or leave the capabilities out",
            ));
        }
        let lacks = |&&capability: &&Capability| {
            !caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false)
                || !caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
        };
        if let Some(missing) = self.kept.iter().filter(|_| !has_namespace).find(lacks) {
            return Err(Error::invalid(
                format!("{missing} can't be kept: the caller does not have it"),
                "give it to the caller, add Namespaces::USER, or leave it out",
            ));
        }
        Ok(())
    }

    /// A bit for each.
    fn mask(&self) -> u64 {
        self.kept.iter().fold(0, |mask, capability| mask | capability.bitmask())
    }
}

/// Their names, or `none`.
impl Display for Capabilities {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.kept.iter().map(ToString::to_string).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// Leaves the process the capabilities that are kept, and no way to more. `has_rights`: it may change the bounding set,
/// which takes CAP_SETPCAP.
pub(super) fn limit_to(process: &mut Program, kept: &Capabilities, last: u32, has_rights: bool) {
    let kept = kept.mask();
    if has_rights {
        process.step(Step::new("emptying the bounding set"));
        for capability in (0..=last).filter(|capability| kept >> capability & 1 == 0) {
            let drop = [flags!(PR_CAPBSET_DROP), capability.into(), Arg::NONE, Arg::NONE, Arg::NONE];
            process.call(nr!(SYS_prctl), drop);
        }
        if kept != 0 {
            keep(process, kept, last);
        }
        lock(process);
    }
    process.step(Step::new("dropping every other capability"));
    if kept == 0 {
        ambient(process, flags!(PR_CAP_AMBIENT_CLEAR_ALL), 0);
    }
    process.capset(kept, kept);
}

/// Leaves a set-up process no capability. Its bounding set and its securebits are as they were: they would count if it
/// executed something, and then under `no_new_privs`, which lets no execve(2) add a capability.
pub(super) fn drop_all(process: &mut Program) {
    process.step(Step::new("dropping every capability"));
    process.capset(0, 0);
}

/// Has the capabilities in the ambient set, which needs them in two others.
fn keep(process: &mut Program, kept: u64, last: u32) {
    process.step(Step::new("keeping capabilities over execve"));
    ambient(process, flags!(PR_CAP_AMBIENT_CLEAR_ALL), 0);
    process.capset(kept | Capability::CAP_SETPCAP.bitmask(), kept);
    for capability in (0..=last).filter(|capability| kept >> capability & 1 == 1) {
        ambient(process, flags!(PR_CAP_AMBIENT_RAISE), capability);
    }
}

fn ambient(process: &mut Program, what: Arg, capability: u32) {
    process.call(nr!(SYS_prctl), [flags!(PR_CAP_AMBIENT), what, capability.into(), Arg::NONE, Arg::NONE]);
}

/// Root has no capabilities by being root, changes of user ids change none, no ambient ones can be raised any more.
fn lock(process: &mut Program) {
    process.step(Step::new("locking the securebits"));
    let locked = flags!(
        SECBIT_NOROOT
            | SECBIT_NOROOT_LOCKED
            | SECBIT_NO_SETUID_FIXUP
            | SECBIT_NO_SETUID_FIXUP_LOCKED
            | SECBIT_KEEP_CAPS_LOCKED
            | SECBIT_NO_CAP_AMBIENT_RAISE
            | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
    );
    process.prctl(flags!(PR_SET_SECUREBITS), locked);
}

/// No execve(2) gives rights that this process has not (prctl(2), `PR_SET_NO_NEW_PRIVS`).
pub(crate) fn no_new_privs(helper: &mut Program) {
    helper.step(Step::new("giving up new privileges"));
    helper.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
}
