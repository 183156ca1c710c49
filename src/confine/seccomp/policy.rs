//! A policy by the numbers of its calls: what becomes of one, decided as the filter in the kernel decides it.

use std::collections::BTreeMap;

use super::paths::path_argument;
use super::{Action, Condition, Granted, Rule, Seccomp, guards};
use crate::error::{Error, Result};
use crate::system_call::SystemCall;
use crate::watch::{LAST_ERRNO, Rules, Ruling};

/// Conditions, and what becomes of a call for which all of them hold.
pub(super) type Case = (Vec<Condition>, Action);

/// A policy whose names were looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(super) otherwise: Action,
    pub(super) cases: BTreeMap<i32, Vec<Case>>,
    pub(super) record: bool,
}

/// Arguments that a call has at most.
const ARGUMENTS: u8 = 6;

impl Policy {
    pub fn resolve(seccomp: &Seccomp) -> Result<Self> {
        let mut policy = Self { otherwise: seccomp.otherwise, cases: BTreeMap::new(), record: seccomp.record };
        check_action(seccomp.otherwise, "what no rule matches")?;
        for rule in &seccomp.rules {
            let Some(call) = look_up(&rule.call)? else { continue };
            check(rule)?;
            policy.cases.entry(call.number()).or_default().push((rule.conditions.clone(), rule.action));
        }
        policy.guard(seccomp.granted)?;
        Ok(policy)
    }

    /// Adds the guards of the calls that the rules may allow.
    fn guard(&mut self, granted: Granted) -> Result<()> {
        let mut guards = vec![];
        for rule in guards::rules(granted) {
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

    /// The action of a guard on a call: none where the rules deny the call anyway, and never milder than what becomes of
    /// the call if no rule matches.
    fn guarded(&self, number: i32, action: Action) -> Option<Action> {
        let cases = self.cases.get(&number).map(Vec::as_slice).unwrap_or_default();
        let (always, sometimes): (Vec<&Case>, Vec<&Case>) =
            cases.iter().partition(|(conditions, _)| conditions.is_empty());
        match always.iter().map(|(_, action)| *action).max() {
            Some(said) => (!said.refuses()).then_some(action),
            None if self.otherwise.refuses() && sometimes.iter().all(|(_, action)| action.refuses()) => None,
            None => Some(action.max(self.otherwise)),
        }
    }

    /// What becomes of a call.
    pub fn decide(&self, number: i32, args: &[u64; 6]) -> Action {
        let cases = self.cases.get(&number).into_iter().flatten();
        let matching = cases.filter(|(conditions, _)| conditions.iter().all(|condition| condition.holds(args)));
        matching.map(|(_, action)| *action).max().unwrap_or(self.otherwise)
    }

    /// Whether a call is allowed whatever its arguments are.
    pub fn always_allows(&self, number: i32) -> bool {
        match self.cases.get(&number) {
            None => self.otherwise == Action::Allow,
            Some(cases) => {
                let unconditional = cases.iter().any(|(conditions, _)| conditions.is_empty());
                let rest = if unconditional { Action::Allow } else { self.otherwise };
                rest == Action::Allow && cases.iter().all(|(_, action)| *action == Action::Allow)
            }
        }
    }

    /// Whether the host hears of an action: it ends the sandbox, asks a callback, or notes what was refused.
    pub fn is_heard(&self, action: Action) -> bool {
        match action {
            Action::Kill | Action::Notify => true,
            Action::Errno(errno) => self.record && errno != 0,
            Action::Allow | Action::Log => false,
        }
    }

    /// Whether the host hears of anything.
    pub fn needs_listener(&self) -> bool {
        self.cases.values().flatten().map(|(_, action)| *action).chain([self.otherwise]).any(|it| self.is_heard(it))
    }
}

impl Rules for Policy {
    fn ruling(&self, number: i32, args: &[u64; 6]) -> Ruling {
        match self.decide(number, args) {
            Action::Allow | Action::Log => Ruling::Let,
            Action::Errno(errno) => Ruling::Refuse(errno),
            Action::Notify => Ruling::Ask,
            Action::Kill => Ruling::End,
        }
    }

    fn path_argument(&self, number: i32) -> Option<usize> {
        path_argument(number)
    }
}

/// The call of a name; none if another architecture alone has it.
fn look_up(name: &str) -> Result<Option<SystemCall>> {
    let call = SystemCall::named(name);
    if call.is_none() && !SystemCall::is_elsewhere(name) {
        let nearest = SystemCall::nearest(name);
        let remedy = format!("the nearest name is {nearest}; the names are those of syscalls(2)");
        return Err(Error::invalid(format!("there is no system call {name:?}"), remedy));
    }
    Ok(call)
}

fn check(rule: &Rule) -> Result<()> {
    if let Some(condition) = rule.conditions.iter().find(|condition| condition.argument >= ARGUMENTS) {
        let what = format!("a rule for {} looks at argument {}", rule.call, condition.argument);
        return Err(Error::invalid(what, "a system call has arguments 0 to 5"));
    }
    check_action(rule.action, &rule.call)
}

fn check_action(action: Action, of: &str) -> Result<()> {
    match action {
        Action::Errno(errno) if !(0..=LAST_ERRNO).contains(&errno) => {
            let what = format!("the rule for {of} gives the error number {errno}");
            Err(Error::invalid(what, "error numbers are 0 to 4095 (errno(3))"))
        }
        _ => Ok(()),
    }
}
