//! The capability sets of the program, and what else it could gain privileges by: securebits and `no_new_privs`. The
//! names of capabilities are in `capability_names`.

use std::fmt::{self, Display, Formatter};

use caps::CapSet;

use super::capability_names::Capability;
use super::secure_bits::{KEEP_OVER_USER_CHANGE, LOCKED, SecureBits};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{Arg, Script, Step, flags, nr};

/// Lets the helper keep its capabilities when it changes to the sandbox's user, also from root.
pub(crate) fn keep_over_user_change(helper: &mut Script, bits: SecureBits) {
    helper.step(Step::new("keep the capabilities while the user changes"));
    helper.prctl(flags!(PR_SET_SECUREBITS), bits.set(KEEP_OVER_USER_CHANGE));
}

/// The capabilities that a program keeps.
///
/// A kept capability is in every capability set, including the ambient set. So the program and all programs that it
/// executes have it, even without user ID 0 and without file capabilities. They keep it when they change their user IDs
/// ([`Capabilities::drop_on_setuid`] changes that). It applies to the sandbox's user namespace
/// only, and gives no privilege over files and devices of the host.
///
/// Default: none in any set.
///
/// See capabilities(7).
///
/// ```
/// use stockade::capabilities::Capability;
/// use stockade::{Capabilities, Command, Sandbox};
///
/// let sandbox = Sandbox::new().capabilities(Capabilities::none().keep([Capability::NetBindService]));
/// let output = sandbox.output(Command::new("grep").args(["CapEff", "/proc/self/status"]))?;
/// assert_eq!(output.stdout, b"CapEff:\t0000000000000400\n");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Capabilities {
    #[cfg_attr(feature = "serde", serde(rename = "keep"))]
    kept: Vec<Capability>,
    drop_on_setuid: bool,
}

impl Capabilities {
    /// Creates a set without capabilities.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds capabilities to those that the program keeps.
    ///
    /// The default seccomp filter denies most system calls that need a capability: see
    /// [`Seccomp::allow`](crate::Seccomp::allow).
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the kernel does not support a capability, and
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the sandbox has no user namespace
    /// and the caller lacks it.
    #[must_use]
    pub fn keep(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        for capability in capabilities {
            if !self.kept.contains(&capability) {
                self.kept.push(capability);
            }
        }
        self
    }

    /// Lets the program lose its capabilities when it changes from user ID 0 to others, as on a host.
    ///
    /// Daemons that begin as root rely on that: they open a port, and change to another user by setuid(2). The program
    /// must have user ID 0 inside ([`Identity::uid`](crate::Identity::uid)), a second ID to change to
    /// ([`Identity::sub_ids`](crate::Identity::sub_ids), [`Identity::maps`](crate::Identity::maps)), and
    /// `CAP_SETUID`. With `PR_SET_KEEPCAPS` (prctl(2)) it can keep the permitted set over the change.
    ///
    /// Default: **the program and everything that it executes keep the capabilities over every change of user IDs**,
    /// since `SECBIT_NO_SETUID_FIXUP` is set and locked. `PR_SET_KEEPCAPS` is denied (`EPERM`). In either case user ID
    /// 0 gives no capabilities (`SECBIT_NOROOT`).
    ///
    /// See capabilities(7), "Effect of user ID changes on capabilities".
    ///
    /// ```
    /// use stockade::capabilities::Capability;
    /// use stockade::{Capabilities, Command, Identity, Sandbox};
    ///
    /// let kept = Capabilities::none().keep([Capability::Setuid, Capability::NetBindService]).drop_on_setuid();
    /// let sandbox = Sandbox::new().identity(Identity::new().uid(0)).capabilities(kept);
    /// assert!(sandbox.status(Command::new("true"))?.success());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[must_use]
    pub fn drop_on_setuid(mut self) -> Self {
        self.drop_on_setuid = true;
        self
    }

    /// Whether a capability is kept.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.kept.contains(&capability)
    }

    /// Refuses capabilities that the kernel does not know, and, without a user namespace, those that the caller lacks.
    pub(crate) fn check(&self, last: u32, has_capabilities: bool, has_namespace: bool) -> Result<()> {
        if let Some(unknown) = self.kept.iter().find(|capability| capability.number() > last) {
            return Err(Error::unsupported(
                Layer::Capabilities,
                format!("the kernel does not support {unknown}"),
                "remove it, or use a newer kernel",
            ));
        }
        if !has_capabilities && !self.kept.is_empty() {
            return Err(Error::invalid(
                format!("{self} cannot be kept: the caller is not root, and the sandbox has no user namespace"),
                "add Namespaces::USER, or remove the capabilities",
            ));
        }
        let lacks = |capability: &&Capability| {
            let has = |set, known| caps::has_cap(None, set, known).unwrap_or(false);
            !capability.name().parse().is_ok_and(|known| has(CapSet::Permitted, known) && has(CapSet::Bounding, known))
        };
        if let Some(missing) = self.kept.iter().filter(|_| !has_namespace).find(lacks) {
            return Err(Error::invalid(
                format!("{missing} cannot be kept: the caller does not have it"),
                "give it to the caller, add Namespaces::USER, or remove it",
            ));
        }
        Ok(())
    }

    /// Refuses what locked securebits of the caller prevent, which a caller in a sandbox has. A new user namespace has
    /// securebits of its own.
    pub(crate) fn check_secure_bits(&self, bits: SecureBits) -> Result<()> {
        bits.check(KEEP_OVER_USER_CHANGE, KEEP_OVER_USER_CHANGE)?;
        bits.check(self.secure_bits(), LOCKED | KEEP_OVER_USER_CHANGE)?;
        let is_ambient = |capability: &Capability| {
            let known = capability.name().parse();
            known.is_ok_and(|known| caps::has_cap(None, CapSet::Ambient, known).unwrap_or(false))
        };
        match self.kept.iter().find(|capability| bits.denies_raising() && !is_ambient(capability)) {
            None => Ok(()),
            Some(missing) => Err(Error::invalid(
                format!(
                    "{missing} cannot be kept: the caller may raise no ambient capability, and this is not among its own"
                ),
                "add Namespaces::USER, or remove it",
            )),
        }
    }

    /// The securebits of the program: user ID 0 has no capabilities of its own, and changes of user IDs change none,
    /// unless `drop_on_setuid` is set.
    fn secure_bits(&self) -> u32 {
        match self.drop_on_setuid {
            false => LOCKED | KEEP_OVER_USER_CHANGE,
            true => LOCKED & !(libc::SECBIT_KEEP_CAPS_LOCKED as u32),
        }
    }

    /// The set as a bit mask.
    fn mask(&self) -> u64 {
        self.kept.iter().fold(0, |mask, capability| mask | capability.bit())
    }
}

/// Lists their names, or writes `none`.
impl Display for Capabilities {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.kept.iter().map(ToString::to_string).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// Leaves the process the kept capabilities, and no way to gain others. Without `has_capabilities` it cannot change the
/// bounding set, which needs CAP_SETPCAP.
pub(crate) fn limit_to(process: &mut Script, kept: &Capabilities, last: u32, bits: SecureBits, has_capabilities: bool) {
    let locked = kept.secure_bits();
    let kept = kept.mask();
    if has_capabilities {
        process.step(Step::new("empty the bounding set"));
        for capability in (0..=last).filter(|capability| kept >> capability & 1 == 0) {
            let drop = [flags!(PR_CAPBSET_DROP), capability.into(), Arg::NONE, Arg::NONE, Arg::NONE];
            process.call(nr!(SYS_prctl), drop);
        }
        if kept != 0 {
            keep(process, kept, last, !bits.denies_raising());
        }
        process.step(Step::new("lock the securebits"));
        process.prctl(flags!(PR_SET_SECUREBITS), bits.set(locked));
    }
    process.step(Step::new("drop all other capabilities"));
    if kept == 0 {
        ambient(process, flags!(PR_CAP_AMBIENT_CLEAR_ALL), 0);
    }
    process.capset(kept, kept);
}

/// Drops all capabilities of a set-up process. Its bounding set and securebits stay: they would matter only if it
/// executed something, and under `no_new_privs` no execve(2) adds a capability.
pub(crate) fn drop_all(process: &mut Script) {
    process.step(Step::new("drop all capabilities"));
    process.capset(0, 0);
}

/// Raises the capabilities in the ambient set, which requires them in the permitted and the inheritable set. If none
/// can be raised, they are in it already, and capset(2) removes the others.
fn keep(process: &mut Script, kept: u64, last: u32, can_raise: bool) {
    process.step(Step::new("raise the ambient capabilities"));
    if can_raise {
        ambient(process, flags!(PR_CAP_AMBIENT_CLEAR_ALL), 0);
    }
    process.capset(kept | Capability::Setpcap.bit(), kept);
    if !can_raise {
        return;
    }
    for capability in (0..=last).filter(|capability| kept >> capability & 1 == 1) {
        ambient(process, flags!(PR_CAP_AMBIENT_RAISE), capability);
    }
}

fn ambient(process: &mut Script, what: Arg, capability: u32) {
    process.call(nr!(SYS_prctl), [flags!(PR_CAP_AMBIENT), what, capability.into(), Arg::NONE, Arg::NONE]);
}

/// Sets `no_new_privs`: execve(2) grants no privileges that the process does not have (prctl(2),
/// `PR_SET_NO_NEW_PRIVS`).
pub(crate) fn no_new_privs(helper: &mut Script) {
    helper.step(Step::new("set no_new_privs"));
    helper.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_capability_that_the_kernel_does_not_know_is_unsupported() {
        let kept = Capabilities::none().keep([Capability::CheckpointRestore]);
        let last = Capability::CheckpointRestore.number();
        kept.check(last, true, true).expect("it is known");
        let error = kept.check(last - 1, true, true).expect_err("it is not known");
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some(Layer::Capabilities)));
        assert_eq!(error.hint(), Some("remove it, or use a newer kernel"));
    }
}
