//! A policy in words.

use std::fmt::{self, Display, Formatter};

use nix::errno::Errno;

use super::{Action, Comparison, Condition, Rule, Seccomp, guards};

/// `allow`, `EPERM`, `end the sandbox`.
impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Allow => f.write_str("allow"),
            Self::Log => f.write_str("allow and log"),
            Self::Notify => f.write_str("ask the host"),
            Self::Kill => f.write_str("end the sandbox"),
            Self::Errno(0) => f.write_str("do nothing"),
            Self::Errno(errno) => match Errno::from_raw(errno) {
                Errno::UnknownErrno => write!(f, "error {errno}"),
                known => write!(f, "{known:?}"),
            },
        }
    }
}

/// `argument 2 >= 0x1000`, `argument 0 as int & 0x3 == 0x0`.
impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "argument {}{} ", self.argument, if self.low_half { " as int" } else { "" })?;
        match self.comparison {
            Comparison::Equal(value) => write!(f, "== {value:#x}"),
            Comparison::NotEqual(value) => write!(f, "!= {value:#x}"),
            Comparison::Less(value) => write!(f, "< {value:#x}"),
            Comparison::LessOrEqual(value) => write!(f, "<= {value:#x}"),
            Comparison::Greater(value) => write!(f, "> {value:#x}"),
            Comparison::GreaterOrEqual(value) => write!(f, ">= {value:#x}"),
            Comparison::Masked { mask, value } => write!(f, "& {mask:#x} == {value:#x}"),
        }
    }
}

/// `clone3: ENOSYS`, `prlimit64 if argument 2 == 0x0: allow`.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call)?;
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, " {} {condition}", if index == 0 { "if" } else { "and" })?;
        }
        write!(f, ": {}", self.action)
    }
}

/// What it comes to, in a few words; with `{:#}` all of it: a line for each action with the calls that it is for whatever
/// their arguments are, one for each rule with conditions, one for each guard that holds in every policy, and what becomes of
/// all others.
impl Display for Seccomp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.whole(f);
        }
        match self.otherwise {
            Action::Allow => write!(f, "all but {} system calls", self.count(false)),
            _ => write!(f, "{} system calls", self.count(true)),
        }?;
        f.write_str(if self.record { ", recording" } else { "" })
    }
}

impl Seccomp {
    /// How many calls have a rule that allows them, or that does not.
    fn count(&self, allows: bool) -> usize {
        let said = self.rules.iter().filter(|rule| (rule.action == Action::Allow) == allows);
        let mut calls: Vec<_> = said.map(|rule| &rule.call).collect();
        calls.sort_unstable();
        calls.dedup();
        calls.len()
    }

    fn whole(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (conditional, always): (Vec<&Rule>, Vec<&Rule>) =
            self.rules.iter().partition(|rule| !rule.conditions.is_empty());
        let mut actions: Vec<Action> = always.iter().map(|rule| rule.action).collect();
        actions.sort_unstable();
        actions.dedup();
        for action in actions {
            let calls = always.iter().filter(|rule| rule.action == action).map(|rule| &*rule.call);
            writeln!(f, "{}: {action}", calls.collect::<Vec<_>>().join(", "))?;
        }
        conditional.iter().try_for_each(|rule| writeln!(f, "{rule}"))?;
        if !self.is_unconfined() {
            guards::rules(self.granted)
                .iter()
                .try_for_each(|guard| writeln!(f, "{guard}, unless a rule is stricter"))?;
        }
        write!(f, "all others: {}", self.otherwise)?;
        f.write_str(if self.record { "\nwhat is refused is recorded" } else { "" })
    }
}
