//! What to do about a denial of the host: one table, for errors and for the probe. A row is selected by what a step needs
//! of the host, by the error number, and by facts of the host, which are read once something has failed.
//!
//! A hint that concerns a path or a number of the configuration stands beside its step. It begins with a verb. A row,
//! which knows the cause, may name that first, with a colon after it.

// `cause` has the table, `host_facts` reads settings of the host and properties of the caller, and `generic` is for
// what no row and no step explains.

mod cause;
mod generic;
mod host_facts;
#[cfg(test)]
#[path = "../../tests/support/wording.rs"]
mod wording;

pub(crate) use cause::{Cause, way_to_capabilities, way_to_writable_proc};
pub(crate) use generic::{generic, shortage};
pub(crate) use host_facts::HostFacts;

use std::borrow::Cow;

use crate::unix::Errno;

/// What a step needs of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To create namespaces: flags of clone(2).
    Namespaces(u64),
    /// To write the ID maps of a user namespace.
    IdMaps,
    /// To write to other files of `/proc`.
    ProcFiles,
    /// To create, move and change mounts.
    Mounts,
    /// To mount a tmpfs.
    Tmpfs,
    /// To mount an overlay.
    Overlay,
    /// To mount a new proc file system.
    Proc,
    /// To map the owners of a mount.
    IdmappedMount,
    /// To change the root by pivot_root(2).
    Pivot,
    /// To change the root by chroot(2).
    Chroot,
    /// To bring up the loopback interface.
    Loopback,
    /// To install a seccomp filter.
    Filter,
    /// To restrict itself by Landlock rules.
    Landlock,
    /// To execute a file in memory.
    Memfd,
    /// To create cgroups and to enable their controllers.
    Cgroups,
}

/// A call that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// What its step needs of the host, if that is in the table.
    pub need: Option<Need>,
    /// The name of the call.
    pub call: &'static str,
    pub errno: Errno,
}

impl Denial {
    /// Returns what to do, which is the first of: the hint of a row that explains this denial, the step's `own` hint, and a
    /// hint of where to look.
    pub fn advice(self, own: Option<&'static str>) -> Option<Cow<'static, str>> {
        if !self.may_be_the_hosts() {
            return own.map(Cow::Borrowed);
        }
        self.advice_on(own, &HostFacts::read())
    }

    fn advice_on(self, own: Option<&'static str>, host: &HostFacts) -> Option<Cow<'static, str>> {
        if let Some(cause) = Cause::of(self, host) {
            return Some(cause.hint(host).into());
        }
        let guess = || Cause::likely(self, host).map(|cause| cause.hint(host).into());
        own.map(Cow::Borrowed).or_else(guess)
    }

    /// Returns whether a row may be about this error number. Facts are read only then.
    fn may_be_the_hosts(self) -> bool {
        matches!(
            self.errno.number(),
            libc::EPERM
                | libc::EACCES
                | libc::ENOSYS
                | libc::EROFS
                | libc::ENOSPC
                | libc::EINVAL
                | libc::ENODEV
                | libc::EOPNOTSUPP
                | libc::EAGAIN
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_before_the_hint_of_the_step_and_a_guess_after_it() {
        let denial = |need, errno| Denial { need, call: "mount", errno: Errno::new(errno) };
        let host = HostFacts { filtered: true, ..HostFacts::default() };
        let advice = |need, errno, own| denial(need, errno).advice_on(own, &host);
        assert!(
            advice(Some(Need::Mounts), libc::EPERM, Some("own")).is_some_and(|hint| hint.contains("seccomp filter"))
        );
        assert_eq!(advice(None, libc::EPERM, Some("own")).as_deref(), Some("own"));
        assert!(advice(None, libc::EPERM, None).is_some_and(|hint| hint.contains("seccomp filter")));
        assert_eq!(advice(None, libc::EEXIST, None), None);
    }
}
