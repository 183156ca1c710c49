//! Compiles a policy to a program of the kernel's packet filter: a binary search for the number of the call, then the
//! decision about that call. If it depends on the arguments, `seccompiler` compiles the comparisons. Those of the
//! strictest action come first, so that the first match decides. How a program is made short is in `decision_graph`.
//!
//! When a filter is installed, the kernel runs it for each number of a call, to find out which calls are allowed
//! whatever their arguments are (`seccomp_cache_prepare`, since Linux 5.11). So a binary search makes not only each
//! call cheaper, but each spawn too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::decision_graph::{Graph, HIGH_HALF, JUMP_IF_EQUAL, LOW_HALF, Node, Operand, Test};
use super::{Action, Comparison, Condition, Policy};
use crate::error::{Error, Result};
use crate::plan::{Address, Input, Word};
use crate::syscall;

/// The number of instructions with which `seccompiler` checks the architecture, and with which it selects a call by
/// number.
const CHECK: usize = 3;
const SELECTION: usize = 2;
/// Offsets in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
/// That of the sixth argument. The lower half comes first on both architectures.
pub(super) const PASS_OFFSET: u32 = 56;
/// Return values of a filter (`linux/seccomp.h`).
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
pub(super) const RET_USER_NOTIF: u32 = 0x7fc0_0000;
pub(super) const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;

/// Placeholders in programs of `seccompiler` for the action of a group, and for continuing with the next group.
const MATCH: u16 = 1;
const NEXT: u16 = 2;

/// Compiles a policy. Calls in `passed` are allowed if their sixth argument is the pass.
pub(super) fn lower(policy: &Policy, passed: &[u32]) -> Result<BpfProgram> {
    let mut graph = Graph::default();
    let ranges = ranges(&mut graph, policy, passed)?;
    let own = search(&mut graph, &ranges);
    let root = check_architecture(&mut graph, own, policy.foreign());
    Ok(graph.program(root))
}

/// Returns `word` for calls of another architecture or, on x86_64, of x32.
fn check_architecture(graph: &mut Graph, own: Node, word: u32) -> Node {
    let foreign = graph.result(word);
    #[cfg(target_arch = "x86_64")]
    let own = graph.branch(Operand::at(NUMBER_OFFSET), Test::GreaterOrEqual(syscall::X32), foreign, own);
    graph.branch(Operand::at(ARCHITECTURE_OFFSET), Test::Equal(syscall::ARCHITECTURE), own, foreign)
}

/// Allows a call that carries the pass, and continues at `denied` otherwise.
fn check_pass(graph: &mut Graph, denied: Node) -> Node {
    let allow = graph.result(RET_ALLOW);
    let low = graph.branch(Operand::at(PASS_OFFSET), Test::LowHalf, allow, denied);
    graph.branch(Operand::at(PASS_OFFSET + 4), Test::HighHalf, low, denied)
}

/// The first number of a range, and the decision about all calls of the range. It ends where the next one starts.
type Range = (u32, Node);

/// Divides all numbers into ranges with the same decision.
fn ranges(graph: &mut Graph, policy: &Policy, passed: &[u32]) -> Result<Vec<Range>> {
    let otherwise = graph.result(policy.word(policy.default_action));
    let mut ranges: Vec<Range> = vec![];
    let mut begin = |number: u32, outcome: Node| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((number, outcome));
        }
    };
    let mut end = 0;
    let ruled = policy.cases.keys().map(|&number| number as u32);
    for number in ruled.chain(passed.iter().copied()).collect::<BTreeSet<_>>() {
        let mut outcome = decision(graph, policy.groups(number))?;
        if passed.contains(&number) {
            outcome = check_pass(graph, outcome);
        }
        if number > end {
            begin(end, otherwise);
        }
        begin(number, outcome);
        end = number + 1;
    }
    begin(end, otherwise);
    Ok(ranges)
}

/// Creates a binary search among ranges, of which there must be at least one.
fn search(graph: &mut Graph, ranges: &[Range]) -> Node {
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let (start, outcome) = above[0];
    if below.is_empty() {
        return outcome;
    }
    let (below, above) = (search(graph, below), search(graph, above));
    graph.branch(Operand::at(NUMBER_OFFSET), Test::GreaterOrEqual(start), above, below)
}

/// The return value for an action, and the alternative conditions for it.
type CallGroup = (u32, Vec<Vec<Condition>>);

/// Creates the decision about one call: that of the first group with an alternative that holds. The last group has no
/// conditions.
fn decision(graph: &mut Graph, groups: Vec<CallGroup>) -> Result<Node> {
    let mut next = None;
    for (word, alternatives) in groups.into_iter().rev() {
        let matched = graph.result(word);
        next = Some(match next {
            Some(next) if !alternatives.iter().any(Vec::is_empty) => {
                let outcome = |result| match result {
                    _ if result == RET_TRACE | u32::from(MATCH) => Some(matched),
                    _ if result == RET_TRACE | u32::from(NEXT) => Some(next),
                    _ => None,
                };
                let comparisons = comparisons(alternatives)?;
                graph.import(&comparisons, outcome).ok_or_else(|| not_compiled("its comparisons are not understood"))?
            }
            _ => matched,
        });
    }
    next.ok_or_else(|| not_compiled("a call has no action"))
}

impl Policy {
    /// Returns the rules for a call, the strictest action first, and last the default action.
    fn groups(&self, number: u32) -> Vec<CallGroup> {
        let mut groups = BTreeMap::<Reverse<Action>, Vec<Vec<Condition>>>::new();
        for (conditions, action) in self.cases.get(&(number as i32)).into_iter().flatten() {
            groups.entry(Reverse(*action)).or_default().push(conditions.clone());
        }
        let groups = groups.into_iter().map(|(Reverse(action), alternatives)| (self.word(action), alternatives));
        groups.chain([(self.word(self.default_action), vec![vec![]])]).collect()
    }

    /// Returns whether any call kills the sandbox.
    fn kills(&self) -> bool {
        let actions = self.cases.values().flatten().map(|(_, action)| *action);
        actions.chain([self.default_action]).any(|action| action == Action::Kill)
    }

    /// Returns what the filter returns for an action.
    pub(super) fn word(&self, action: Action) -> u32 {
        match action {
            _ if self.notifies(action) => RET_USER_NOTIF,
            Action::Errno(errno) => RET_ERRNO | errno.number() as u32,
            Action::Log => RET_LOG,
            _ => RET_ALLOW,
        }
    }

    /// Returns what the filter returns for calls of another ABI, whose numbers mean other calls.
    fn foreign(&self) -> u32 {
        if self.kills() { RET_USER_NOTIF } else { RET_ERRNO | libc::ENOSYS as u32 }
    }
}

/// Encodes an instruction as `struct sock_filter {u16 code; u8 jt, jf; u32 k}`. The launch fills in the halves of the
/// pass.
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

/// Compiles the alternatives of a call with `seccompiler`, without its check of the architecture and of the number.
fn comparisons(alternatives: Vec<Vec<Condition>>) -> Result<BpfProgram> {
    let translated = |conditions: Vec<Condition>| {
        SeccompRule::new(conditions.iter().map(translate).collect::<std::result::Result<_, _>>()?)
    };
    let rules: std::result::Result<Vec<_>, _> = alternatives.into_iter().map(translated).collect();
    let filter = rules.and_then(|rules| {
        let (next, matched) = (SeccompAction::Trace(NEXT.into()), SeccompAction::Trace(MATCH.into()));
        SeccompFilter::new(BTreeMap::from([(0, rules)]), next, matched, ARCHITECTURE)
    });
    let mut program: BpfProgram = filter.and_then(TryInto::try_into).map_err(not_compiled)?;
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

fn not_compiled(reason: impl Display) -> Error {
    Error::invalid(format!("the seccomp policy cannot be compiled: {reason}"), "use fewer rules, or fewer conditions")
}
