//! A policy with the numbers of its calls instead of their names. It decides about a call exactly as the filter in the
//! kernel does, so that the supervisor and the tests can ask it. No instruction of a filter is known here.

use std::collections::BTreeMap;

use super::path_arguments::path_argument;
use super::{Action, Condition, Exemptions, Rule, Seccomp, guards};
use crate::error::{Error, Result};
use crate::syscall::SystemCall;

/// The largest error number (`MAX_ERRNO` of the kernel).
pub(crate) const LAST_ERRNO: i32 = 4095;

/// Conditions, and the action for a call for which all of them hold.
pub(super) type Case = (Vec<Condition>, Action);

/// A policy with numbers of calls instead of names, and with the guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(super) default_action: Action,
    pub(super) cases: BTreeMap<i32, Vec<Case>>,
    pub(super) record: bool,
}

/// The largest number of arguments of a system call.
const ARGUMENTS: u8 = 6;

impl Policy {
    /// Looks up the names of a policy, checks its rules, and adds the guards.
    pub fn resolve(seccomp: &Seccomp) -> Result<Self> {
        let mut policy =
            Self { default_action: seccomp.default_action, cases: BTreeMap::new(), record: seccomp.record };
        check_action(seccomp.default_action, || "the default action of the seccomp policy".into())?;
        for rule in &seccomp.rules {
            let Some(call) = look_up(&rule.call)? else { continue };
            check(rule)?;
            policy.cases.entry(call.number()).or_default().push((rule.conditions.clone(), rule.action));
        }
        policy.guard(seccomp.exemptions)?;
        Ok(policy)
    }

    /// Adds the guards for calls that the rules may allow.
    fn guard(&mut self, exemptions: Exemptions) -> Result<()> {
        let mut guards = vec![];
        for rule in guards::rules(exemptions) {
            let Some(call) = look_up(&rule.call)? else { continue };
            if let Some(action) = self.guarded(call.number(), rule.action) {
                guards.push((call.number(), (rule.conditions, action)));
            }
        }
        for (number, case) in guards {
            self.cases.entry(number).or_default().push(case);
        }
        Ok(())
    }

    /// Returns the action of a guard on a call. `None` if the rules deny the call anyway. It is never milder than the
    /// default action.
    fn guarded(&self, number: i32, action: Action) -> Option<Action> {
        let cases = self.cases.get(&number).map(Vec::as_slice).unwrap_or_default();
        let (always, sometimes): (Vec<&Case>, Vec<&Case>) =
            cases.iter().partition(|(conditions, _)| conditions.is_empty());
        match always.iter().map(|(_, action)| *action).max() {
            Some(strictest) => (!strictest.denies()).then_some(action),
            None if self.default_action.denies() && sometimes.iter().all(|(_, action)| action.denies()) => None,
            None => Some(action.max(self.default_action)),
        }
    }

    /// Returns the action for a call: the strictest of the rules that match.
    pub fn decide(&self, number: i32, args: &[u64; 6]) -> Action {
        let cases = self.cases.get(&number).into_iter().flatten();
        let matching = cases.filter(|(conditions, _)| conditions.iter().all(|condition| condition.holds(args)));
        matching.map(|(_, action)| *action).max().unwrap_or(self.default_action)
    }

    /// Returns whether a call is allowed whatever its arguments are.
    pub fn always_allows(&self, number: i32) -> bool {
        match self.cases.get(&number) {
            None => self.default_action == Action::Allow,
            Some(cases) => {
                let unconditional = cases.iter().any(|(conditions, _)| conditions.is_empty());
                let rest = if unconditional { Action::Allow } else { self.default_action };
                rest == Action::Allow && cases.iter().all(|(_, action)| *action == Action::Allow)
            }
        }
    }

    /// Returns whether the kernel hands a call with this action to the listener, which kills the sandbox, asks a
    /// callback, or records the denied call.
    pub fn notifies(&self, action: Action) -> bool {
        match action {
            Action::Kill | Action::Notify => true,
            Action::Errno(errno) => self.record && errno.number() != 0,
            Action::Allow | Action::Log => false,
        }
    }

    /// Returns whether the filter needs a listener: some action notifies it.
    pub fn needs_listener(&self) -> bool {
        self.cases
            .values()
            .flatten()
            .map(|(_, action)| *action)
            .chain([self.default_action])
            .any(|action| self.notifies(action))
    }
}

/// What the supervisor does with a call that the kernel has handed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// Deny the call with this error number.
    Deny(i32),
    AskCallback,
    Kill,
}

impl Policy {
    /// Returns what the supervisor does with a call.
    pub fn verdict(&self, number: i32, args: &[u64; 6]) -> Verdict {
        match self.decide(number, args) {
            Action::Allow | Action::Log => Verdict::Allow,
            Action::Errno(errno) => Verdict::Deny(errno.number()),
            Action::Notify => Verdict::AskCallback,
            Action::Kill => Verdict::Kill,
        }
    }

    /// Returns the index of the argument that points to a path, if a call has one.
    pub fn path_argument(&self, number: i32) -> Option<usize> {
        path_argument(number)
    }
}

/// Returns the call of a name. `None` if only another architecture has it.
fn look_up(name: &str) -> Result<Option<SystemCall>> {
    let call = SystemCall::named(name);
    if call.is_none() && !SystemCall::is_elsewhere(name) {
        let nearest = SystemCall::nearest(name);
        let hint = format!("use a name of syscalls(2), such as {nearest}");
        return Err(Error::invalid(format!("the seccomp policy names an unknown system call: {name:?}"), hint));
    }
    Ok(call)
}

/// Returns an error if no system call can match a rule, or if its error number is out of range.
fn check(rule: &Rule) -> Result<()> {
    if let Some(condition) = rule.conditions.iter().find(|condition| condition.argument >= ARGUMENTS) {
        let what = format!("the seccomp rule for {} has a condition on argument {}", rule.call, condition.argument);
        return Err(Error::invalid(what, "use an argument from 0 to 5"));
    }
    check_action(rule.action, || format!("the seccomp rule for {}", rule.call))
}

fn check_action(action: Action, subject: impl FnOnce() -> String) -> Result<()> {
    match action {
        Action::Errno(errno) if !(0..=LAST_ERRNO).contains(&errno.number()) => {
            let what = format!("{} has the error number {}", subject(), errno.number());
            Err(Error::invalid(what, "use an error number from 0 to 4095 (errno(3))"))
        }
        _ => Ok(()),
    }
}
