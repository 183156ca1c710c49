//! A policy as a program of the kernel's packet filter: a binary search for the call's number, and at its end what becomes of
//! that call. Where it depends on the arguments, `seccompiler` gives the comparisons, the strictest action's first, so that
//! the first one that matches decides.
//!
//! When a filter is installed, the kernel runs it for each number that there is, to know which calls it lets through whatever
//! their arguments are (`seccomp_cache_prepare`, since Linux 5.11). So a search instead of a list is not only what a call
//! costs, but what a spawn costs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::{Action, Comparison, Condition, Policy};
use crate::error::{Error, Result};
use crate::plan::{Address, Input, Word};
use crate::system_call;

/// Instructions of `seccompiler`'s check of the architecture, and of those that load and compare the number.
const CHECK: usize = 3;
const SELECTION: usize = 2;
/// Of `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
/// Of `linux/bpf_common.h` and `linux/seccomp.h`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
pub(super) const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;

/// What stands for a group's own action, and for going on with the next group, until it is put in.
const MATCH: u16 = 1;
const NEXT: u16 = 2;
const RET_TRACE: u32 = 0x7ff0_0000;

/// What stands for the comparison with a half of the pass, which each sandbox has of its own.
const HIGH_HALF: u16 = 0xfffe;
const LOW_HALF: u16 = 0xffff;
/// Of the sixth argument in `struct seccomp_data`: the lower half comes first on both architectures.
const PASS_OFFSET: u32 = 56;

/// The program of a policy, in which calls that are `passed` are allowed if their sixth argument is the pass.
pub(super) fn lower(policy: &Policy, passed: &[u32]) -> Result<BpfProgram> {
    let mut program = prelude(policy.foreign());
    program.extend(search(&ranges(policy, passed)?));
    Ok(program)
}

/// Allows a call that carries the pass, and goes on otherwise.
fn pass_check() -> [sock_filter; 5] {
    [
        instruction(LOAD, PASS_OFFSET + 4),
        sock_filter { code: HIGH_HALF, jt: 0, jf: 3, k: 0 },
        instruction(LOAD, PASS_OFFSET),
        sock_filter { code: LOW_HALF, jt: 0, jf: 1, k: 0 },
        instruction(RETURN, RET_ALLOW),
    ]
}

/// What begins at a number, and what becomes of the calls from there to the next one.
type Range = (u32, BpfProgram);

/// All numbers, by what becomes of them.
fn ranges(policy: &Policy, passed: &[u32]) -> Result<Vec<Range>> {
    let otherwise = vec![instruction(RETURN, policy.word(policy.otherwise))];
    let mut ranges: Vec<Range> = vec![];
    let mut begin = |number: u32, outcome: BpfProgram| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((number, outcome));
        }
    };
    let mut end = 0;
    let ruled = policy.cases.keys().map(|&number| number as u32);
    for number in ruled.chain(passed.iter().copied()).collect::<BTreeSet<_>>() {
        let mut outcome = if passed.contains(&number) { pass_check().to_vec() } else { vec![] };
        outcome.extend(decision(policy.groups(number))?);
        if number > end {
            begin(end, otherwise.clone());
        }
        begin(number, outcome);
        end = number + 1;
    }
    begin(end, otherwise);
    Ok(ranges)
}

/// A binary search among ranges: each half is left out by one comparison.
fn search(ranges: &[Range]) -> BpfProgram {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let Some((_, outcome)) = below.first() else {
        return above.first().map(|(_, outcome)| outcome.clone()).unwrap_or_default();
    };
    let Some((start, _)) = above.first() else { return outcome.clone() };
    let (below, above) = (search(below), search(above));
    let mut program = match u8::try_from(below.len()) {
        Ok(len) => vec![sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: len, jf: 0, k: *start }],
        // Further than such a jump reaches.
        Err(_) => vec![
            sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: *start },
            instruction(JUMP, below.len() as u32),
        ],
    };
    program.extend(below.into_iter().chain(above));
    program
}

/// An action's word, and the alternatives under which it is taken.
type Group = (u32, Vec<Vec<Condition>>);

/// What becomes of one call: the first group with an alternative that holds decides, and the last one has no conditions.
fn decision(groups: Vec<Group>) -> Result<BpfProgram> {
    let mut program = vec![];
    for (word, alternatives) in groups {
        if alternatives.iter().any(Vec::is_empty) {
            program.push(instruction(RETURN, word));
            break;
        }
        let comparisons = comparisons(alternatives)?;
        let len = comparisons.len();
        program.extend(comparisons.into_iter().enumerate().map(|(index, it)| match (it.code, it.k) {
            (RETURN, k) if k == RET_TRACE | u32::from(MATCH) => instruction(RETURN, word),
            (RETURN, k) if k == RET_TRACE | u32::from(NEXT) => instruction(JUMP, (len - index - 1) as u32),
            _ => it,
        }));
    }
    Ok(program)
}

impl Policy {
    /// What the rules say of a call, the strictest first, and what becomes of it if none of them matches.
    fn groups(&self, number: u32) -> Vec<Group> {
        let mut groups = BTreeMap::<Reverse<Action>, Vec<Vec<Condition>>>::new();
        for (conditions, action) in self.cases.get(&(number as i32)).into_iter().flatten() {
            groups.entry(Reverse(*action)).or_default().push(conditions.clone());
        }
        let groups = groups.into_iter().map(|(Reverse(action), alternatives)| (self.word(action), alternatives));
        groups.chain([(self.word(self.otherwise), vec![vec![]])]).collect()
    }

    /// Whether any call ends the sandbox.
    fn kills(&self) -> bool {
        let actions = self.cases.values().flatten().map(|(_, action)| *action);
        actions.chain([self.otherwise]).any(|action| action == Action::Kill)
    }

    /// What the filter returns for an action.
    pub(super) fn word(&self, action: Action) -> u32 {
        match action {
            _ if self.is_heard(action) => RET_USER_NOTIF,
            Action::Errno(errno) => RET_ERRNO | errno as u32,
            Action::Log => RET_LOG,
            _ => RET_ALLOW,
        }
    }

    /// What it returns for calls of another ABI, whose numbers mean something else.
    fn foreign(&self) -> u32 {
        if self.kills() { RET_USER_NOTIF } else { RET_ERRNO | libc::ENOSYS as u32 }
    }
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// A `struct sock_filter {u16 code; u8 jt, jf; u32 k}`. A half of the pass is put in by the launch.
pub(super) fn word(instruction: &sock_filter) -> Word {
    let shift = match instruction.code {
        HIGH_HALF => Some(32),
        LOW_HALF => Some(0),
        _ => None,
    };
    let code = if shift.is_some() { JUMP_IF_EQUAL } else { instruction.code };
    let without_k = u32::from(code) | u32::from(instruction.jt) << 16 | u32::from(instruction.jf) << 24;
    match shift {
        Some(shift) => Word::Address(Address::Input(Input::Comparison { instruction: without_k, shift })),
        None => Word::Value(u64::from(without_k) | u64::from(instruction.k) << 32),
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// What `seccompiler` gives for the alternatives of a call, without its check of the architecture and of the number.
fn comparisons(alternatives: Vec<Vec<Condition>>) -> Result<BpfProgram> {
    let translated = |conditions: Vec<Condition>| {
        SeccompRule::new(conditions.iter().map(translate).collect::<std::result::Result<_, _>>()?)
    };
    let rules: std::result::Result<Vec<_>, _> = alternatives.into_iter().map(translated).collect();
    let filter = rules.and_then(|rules| {
        let (next, matched) = (SeccompAction::Trace(NEXT.into()), SeccompAction::Trace(MATCH.into()));
        SeccompFilter::new(BTreeMap::from([(0, rules)]), next, matched, ARCHITECTURE)
    });
    let mut program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| {
        let what = format!("the seccomp policy can't be compiled: {error}");
        Error::invalid(what, "name fewer calls, or fewer conditions")
    })?;
    Ok(program.split_off(CHECK + SELECTION))
}

fn translate(condition: &Condition) -> Result<SeccompCondition, seccompiler::BackendError> {
    let width = if condition.low_half { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    let (operator, value) = match condition.comparison {
        Comparison::Equal(value) => (SeccompCmpOp::Eq, value),
        Comparison::NotEqual(value) => (SeccompCmpOp::Ne, value),
        Comparison::Less(value) => (SeccompCmpOp::Lt, value),
        Comparison::LessOrEqual(value) => (SeccompCmpOp::Le, value),
        Comparison::Greater(value) => (SeccompCmpOp::Gt, value),
        Comparison::GreaterOrEqual(value) => (SeccompCmpOp::Ge, value),
        Comparison::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
    };
    SeccompCondition::new(condition.argument, width, operator, value)
}

/// The check of the architecture and, on x86_64, of x32: what is foreign is met by `word`.
fn prelude(word: u32) -> BpfProgram {
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE_OFFSET),
        sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: system_call::ARCHITECTURE },
        instruction(RETURN, word),
        instruction(LOAD, NUMBER_OFFSET),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([
        sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: system_call::X32 },
        instruction(RETURN, word),
    ]);
    program
}
