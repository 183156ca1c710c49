//! seccomp: which system calls a program may make (seccomp(2), Linux's `Documentation/userspace-api/seccomp_filter.rst`).

mod filter;
mod install;
mod lowering;
mod paths;
mod policy;
mod presets;
mod rule;

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

pub(crate) use filter::{Filter, compile};
pub(crate) use install::install;
pub(crate) use policy::Policy;
pub use rule::{Action, Comparison, Condition, Rule};

/// Which system calls a program may make. `Seccomp::new()` is the default of a sandbox.
///
/// A policy is a list of rules, and what becomes of a call that no rule matches. Names are those of the manual pages; one
/// that another architecture has and this one has not is passed over, and one that none has is an error of
/// [`Sandbox::plan`](crate::Sandbox::plan) that names the nearest one. Whatever the policy, calls of another ABI (32-bit
/// ones and x32 on x86_64) are refused: with `ENOSYS`, or, where the policy kills, by the kernel with `SIGSYS`.
///
/// The program's own execve(2) is always let through, and with a policy that lacks it no other one.
///
/// ```
/// use stockade::{Action, Command, Comparison, Condition, Sandbox, Seccomp};
///
/// let policy = Seccomp::new()
///     .deny(["ptrace"])
///     .when("socket", [Condition::int(0, Comparison::NotEqual(libc::AF_UNIX as u64))], Action::Errno(libc::EAFNOSUPPORT));
/// let outcome = Sandbox::new().seccomp(policy).status(Command::new("true"))?;
/// assert!(outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Seccomp {
    otherwise: Action,
    rules: Vec<Rule>,
    record: bool,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self::new()
    }
}

impl Seccomp {
    /// Everything is allowed but what is denied by further calls.
    pub fn deny_list() -> Self {
        Self { otherwise: Action::Allow, rules: vec![], record: false }
    }

    /// Everything is refused with `EPERM` but what is allowed by further calls.
    pub fn allow_list() -> Self {
        Self { otherwise: Action::Errno(libc::EPERM), rules: vec![], record: false }
    }

    /// No filter at all.
    pub fn unconfined() -> Self {
        Self::deny_list()
    }

    /// Allows these calls, whatever was said of them before.
    #[must_use]
    pub fn allow<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Allow)
    }

    /// Refuses these calls with `EPERM`, whatever was said of them before.
    #[must_use]
    pub fn deny<N: Into<Cow<'static, str>>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.on(names, Action::Errno(libc::EPERM))
    }

    /// Says what becomes of these calls, whatever was said of them before.
    #[must_use]
    pub fn on<N: Into<Cow<'static, str>>>(mut self, names: impl IntoIterator<Item = N>, action: Action) -> Self {
        for call in names.into_iter().map(Into::into) {
            self.rules.retain(|rule| rule.call != call);
            self.rules.push(Rule { call, conditions: vec![], action });
        }
        self
    }

    /// Says what becomes of a call when all of these conditions hold of its arguments, beside what was said of it before.
    #[must_use]
    pub fn when(
        mut self,
        name: impl Into<Cow<'static, str>>,
        conditions: impl IntoIterator<Item = Condition>,
        action: Action,
    ) -> Self {
        self.rules.push(Rule { call: name.into(), conditions: conditions.into_iter().collect(), action });
        self
    }

    /// What becomes of a call that no rule matches.
    #[must_use]
    pub fn otherwise(mut self, action: Action) -> Self {
        self.otherwise = action;
        self
    }

    /// Has everything that is refused so far with an error number met by this instead, but for what gives 0.
    #[must_use]
    pub fn refuse_with(mut self, action: Action) -> Self {
        for said in self.rules.iter_mut().map(|rule| &mut rule.action).chain([&mut self.otherwise]) {
            if matches!(said, Action::Errno(1..)) {
                *said = action;
            }
        }
        self
    }

    /// Notes what is refused, with its arguments: [`Outcome::violations`](crate::Outcome::violations). A refused call then
    /// takes a way over the host, some ten times as long as without.
    #[must_use]
    pub fn record(mut self) -> Self {
        self.record = true;
        self
    }

    /// The rules so far.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether there is nothing to filter.
    pub(crate) fn is_unconfined(&self) -> bool {
        self.otherwise == Action::Allow && self.rules.iter().all(|rule| rule.action == Action::Allow)
    }

    /// Whether a callback of the host is asked.
    pub(crate) fn asks(&self) -> bool {
        self.rules.iter().map(|rule| rule.action).chain([self.otherwise]).any(|action| action == Action::Notify)
    }
}

/// What it comes to, in a few words.
impl Display for Seccomp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let count = |allows: bool| {
            let mut calls: Vec<_> = self
                .rules
                .iter()
                .filter(|rule| (rule.action == Action::Allow) == allows)
                .map(|rule| &rule.call)
                .collect();
            calls.sort_unstable();
            calls.dedup();
            calls.len()
        };
        match self.otherwise {
            Action::Allow => write!(f, "all but {} system calls", count(false)),
            _ => write!(f, "{} system calls", count(true)),
        }?;
        f.write_str(if self.record { ", recording" } else { "" })
    }
}
