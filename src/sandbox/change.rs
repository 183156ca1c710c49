//! Changing what a sandbox has so far, for those that somebody else has begun, such as a profile.

use super::Sandbox;
use crate::cgroup::Cgroup;
use crate::confine::{Landlock, Limits, Namespaces, Root, Seccomp};

/// Where `namespaces`, `root` and the like say something anew, these change what was said so far.
///
/// ```
/// use std::time::Duration;
/// use stockade::{Command, profile};
///
/// let sandbox = profile::test()
///     .map_root(|root| root.file("/fixture", "contents"))
///     .map_limits(|limits| limits.wall(Duration::from_secs(20)));
/// assert_eq!(sandbox.output(Command::new("cat").arg("/fixture"))?.stdout, b"contents");
/// # Ok::<(), stockade::Error>(())
/// ```
impl Sandbox {
    /// Changes which namespaces are made: see [`Sandbox::namespaces`].
    #[must_use]
    pub fn map_namespaces(mut self, change: impl FnOnce(Namespaces) -> Namespaces) -> Self {
        self.config.namespaces = change(self.config.namespaces);
        self
    }

    /// Changes the file system that the program sees, most often by further mounts: see [`Sandbox::root`].
    #[must_use]
    pub fn map_root(mut self, change: impl FnOnce(Root) -> Root) -> Self {
        self.config.root = change(self.config.root);
        self
    }

    /// Changes what the program may use: see [`Sandbox::limits`].
    #[must_use]
    pub fn map_limits(mut self, change: impl FnOnce(Limits) -> Limits) -> Self {
        self.config.limits = change(self.config.limits);
        self
    }

    /// Changes which system calls it may make: see [`Sandbox::seccomp`].
    #[must_use]
    pub fn map_seccomp(mut self, change: impl FnOnce(Seccomp) -> Seccomp) -> Self {
        self.config.seccomp = change(self.config.seccomp);
        self
    }

    /// Changes its Landlock rules, or begins with [`Landlock::new`] if it has none: see [`Sandbox::landlock`].
    #[must_use]
    pub fn map_landlock(mut self, change: impl FnOnce(Landlock) -> Landlock) -> Self {
        self.config.landlock = Some(change(self.config.landlock.unwrap_or_default()));
        self
    }

    /// Changes its cgroup, or begins with [`Cgroup::new`] if it has none: see [`Sandbox::cgroup`].
    #[must_use]
    pub fn map_cgroup(mut self, change: impl FnOnce(Cgroup) -> Cgroup) -> Self {
        self.config.cgroup = Some(change(self.config.cgroup.unwrap_or_default()));
        self
    }
}
