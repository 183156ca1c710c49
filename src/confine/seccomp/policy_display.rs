//! A policy as text, for the report of what was enforced and for the plan.

use std::fmt::{self, Display, Formatter};

use super::{Action, Comparison, Condition, Rule, Seccomp, guards};

/// Formats an action, as `allow`, `EPERM` or `kill the sandbox`.
impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Allow => f.write_str("allow"),
            Self::Log => f.write_str("allow and log"),
            Self::Notify => f.write_str("ask the caller"),
            Self::Kill => f.write_str("kill the sandbox"),
            Self::Errno(errno) if errno.number() == 0 => f.write_str("return 0"),
            Self::Errno(errno) => match errno.name() {
                Some(name) => f.write_str(&name),
                None => errno.fmt(f),
            },
        }
    }
}

/// Formats a condition, as `argument 2 >= 0x1000` or `argument 0 as int & 0x3 == 0x0`.
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

/// Formats a rule, as `clone3: ENOSYS` or `prlimit64 if argument 2 == 0x0: allow`.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.call)?;
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, " {} {condition}", if index == 0 { "if" } else { "and" })?;
        }
        write!(f, ": {}", self.action)
    }
}

/// Formats a summary, as `all but 2 system calls`.
///
/// The alternate form (`{:#}`) has a line for each action with the calls that it applies to unconditionally, then one
/// for each rule with conditions, one for each guard, and one for the default action.
impl Display for Seccomp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.fmt_rules(f);
        }
        match self.default_action {
            Action::Allow => write!(f, "all but {} system calls", self.count(false)),
            _ => write!(f, "{} system calls", self.count(true)),
        }?;
        f.write_str(if self.record { ", recording" } else { "" })?;
        match self.bpf.len() {
            0 => Ok(()),
            1 => f.write_str(", 1 BPF program"),
            count => write!(f, ", {count} BPF programs"),
        }
    }
}

impl Seccomp {
    /// Returns the number of calls that have a rule which allows them, or one which does not.
    fn count(&self, allows: bool) -> usize {
        let rules = self.rules.iter().filter(|rule| (rule.action == Action::Allow) == allows);
        let mut calls: Vec<_> = rules.map(|rule| &rule.call).collect();
        calls.sort_unstable();
        calls.dedup();
        calls.len()
    }

    fn fmt_rules(&self, f: &mut Formatter<'_>) -> fmt::Result {
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
            guards::rules(self.exemptions)
                .iter()
                .try_for_each(|guard| writeln!(f, "{guard}, unless a rule is stricter"))?;
        }
        write!(f, "all others: {}", self.default_action)?;
        f.write_str(if self.record { "\ndenied calls are recorded" } else { "" })?;
        self.bpf.iter().try_for_each(|program| write!(f, "\nBPF program of {} instructions", program.len() / 8))
    }
}
