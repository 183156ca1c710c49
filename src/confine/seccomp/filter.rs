//! A policy as a program of the kernel's packet filter, by `seccompiler`: one group of rules after the other, the
//! strictest first, so that the first one that matches decides.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::{Action, Comparison, Condition, Policy, Seccomp};
use crate::error::{Error, Result};
use crate::plan::{SystemCall, nr};

/// A policy, compiled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub policy: Arc<Policy>,
    /// `struct sock_filter`, one after the other.
    pub program: Vec<u8>,
    /// The sixth argument by which the set-up's own calls are let through: the program never learns it.
    pub pass: u64,
    /// Those that carry it, by their numbers.
    pub carrying: Vec<u32>,
}

/// Bytes of a `struct sock_filter`.
pub(super) const INSTRUCTION: usize = 8;

/// What the set-up may have to do once the filter is there.
const SET_UP: [&SystemCall; 15] = [
    nr!(SYS_setsid),
    nr!(SYS_ioctl),
    nr!(SYS_futex),
    nr!(SYS_gettid),
    nr!(SYS_openat2),
    nr!(SYS_fchdir),
    nr!(SYS_prlimit64),
    nr!(SYS_prctl),
    nr!(SYS_capset),
    nr!(SYS_umask),
    nr!(SYS_execve),
    nr!(SYS_faccessat),
    nr!(SYS_write),
    nr!(SYS_sendmsg),
    nr!(SYS_exit_group),
];

/// How the interpreter tells that a call has failed, and ends: with the sixth argument of the call that has failed.
const REPORTING: [&SystemCall; 2] = [nr!(SYS_write), nr!(SYS_exit_group)];

/// Calls of x32 have this bit (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// The kernel's limit (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// Instructions of `seccompiler`'s check of the architecture.
const CHECK: usize = 3;
/// Of `linux/bpf_common.h` and `linux/seccomp.h`.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
#[cfg(target_arch = "x86_64")]
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// What stands for a group's own action, and for going on with the next group, until it is put in.
const MATCH: u16 = 1;
const NEXT: u16 = 2;
const RET_TRACE: u32 = 0x7ff0_0000;

/// Compiles a policy; the last one is remembered, since most hosts have one.
pub(crate) fn compile(seccomp: &Seccomp) -> Result<Arc<Filter>> {
    static LAST: Mutex<Option<(Seccomp, Arc<Filter>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, filter)) = last.as_ref().filter(|(known, _)| known == seccomp) {
        return Ok(filter.clone());
    }
    let filter = Arc::new(Filter::new(Policy::resolve(seccomp)?)?);
    *last = Some((seccomp.clone(), filter.clone()));
    Ok(filter)
}

/// A number that nobody can guess: a hash under keys of getrandom(2).
fn secret() -> u64 {
    static SECRET: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    *SECRET
}

impl Filter {
    fn new(policy: Policy) -> Result<Self> {
        let needs_pass = |&number: &u32| !policy.always_allows(number as i32);
        let numbers = SET_UP.iter().map(|call| call.number);
        let passed: Vec<u32> = numbers.clone().filter(needs_pass).collect();
        let carrying =
            if REPORTING.iter().any(|call| passed.contains(&call.number)) { numbers.collect() } else { passed.clone() };
        let pass = secret();
        let mut program = prelude(policy.foreign());
        let passes = Condition::new(5, Comparison::Equal(pass));
        append(&mut program, passed.iter().map(|&number| (number as i32, vec![vec![passes]])).collect(), RET_ALLOW)?;
        for action in policy.actions() {
            append(&mut program, policy.rules_of(action), policy.word(action))?;
        }
        program.push(instruction(RETURN, policy.word(policy.otherwise)));
        if program.len() > LONGEST {
            let what = format!("the seccomp policy is a filter of {} instructions", program.len());
            return Err(Error::invalid(what, "the kernel takes 4096: name fewer calls, or fewer conditions"));
        }
        Ok(Self { policy: Arc::new(policy), program: program.iter().flat_map(bytes).collect(), pass, carrying })
    }

    /// Instructions of the filter.
    pub fn len(&self) -> usize {
        self.program.len() / INSTRUCTION
    }
}

/// The rules of one action: for each call its alternatives.
type Rules = BTreeMap<i32, Vec<Vec<Condition>>>;

impl Policy {
    /// What rules say, the strictest first.
    fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = self.cases.values().flatten().map(|(_, action)| *action).collect();
        actions.sort_unstable_by(|one, other| other.cmp(one));
        actions.dedup();
        // What is allowed anyway needs no rule.
        actions.retain(|&action| action != Action::Allow || self.otherwise != Action::Allow);
        actions
    }

    fn rules_of(&self, action: Action) -> Rules {
        let mut rules = Rules::new();
        for (number, cases) in &self.cases {
            let alternatives = cases.iter().filter(|(_, its)| *its == action).map(|(conditions, _)| conditions.clone());
            let alternatives: Vec<_> = alternatives.collect();
            if !alternatives.is_empty() {
                rules.insert(*number, alternatives);
            }
        }
        rules
    }

    /// What the filter returns for an action.
    fn word(&self, action: Action) -> u32 {
        match action {
            _ if self.is_heard(action) => RET_USER_NOTIF,
            Action::Errno(errno) => RET_ERRNO | errno as u32,
            Action::Log => RET_LOG,
            _ => RET_ALLOW,
        }
    }

    /// What it returns for calls of another ABI, whose numbers mean something else.
    fn foreign(&self) -> u32 {
        let kills = self.otherwise == Action::Kill || self.actions().first() == Some(&Action::Kill);
        if kills { RET_KILL_PROCESS } else { RET_ERRNO | libc::ENOSYS as u32 }
    }
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn bytes(instruction: &sock_filter) -> [u8; INSTRUCTION] {
    let mut bytes = [0; INSTRUCTION];
    bytes[..2].copy_from_slice(&instruction.code.to_ne_bytes());
    (bytes[2], bytes[3]) = (instruction.jt, instruction.jf);
    bytes[4..].copy_from_slice(&instruction.k.to_ne_bytes());
    bytes
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// What `seccompiler` gives for rules: the check of the architecture, the load of the number, and the rules.
fn lower(rules: Rules) -> Result<BpfProgram> {
    let rules = rules.into_iter().map(|(number, alternatives)| {
        // Without conditions there is nothing to tell apart.
        let always = alternatives.iter().any(Vec::is_empty);
        let alternatives = if always { vec![] } else { alternatives };
        let rules = alternatives
            .iter()
            .map(|conditions| SeccompRule::new(conditions.iter().map(translate).collect::<Result<_, _>>()?));
        Ok((i64::from(number), rules.collect::<Result<Vec<_>, _>>()?))
    });
    let filter = rules.collect::<Result<_, seccompiler::BackendError>>().and_then(|rules| {
        SeccompFilter::new(rules, SeccompAction::Trace(NEXT.into()), SeccompAction::Trace(MATCH.into()), ARCHITECTURE)
    });
    filter.and_then(TryInto::try_into).map_err(|error| {
        Error::invalid(
            format!("the seccomp policy can't be compiled: {error}"),
            "name fewer calls, or fewer conditions",
        )
    })
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
    let architecture = lower(Rules::new()).unwrap_or_default();
    let mut program: BpfProgram = architecture.into_iter().take(CHECK).collect();
    if let Some(refusal) = program.last_mut() {
        refusal.k = word;
    }
    program.push(instruction(LOAD, 0));
    #[cfg(target_arch = "x86_64")]
    program.extend([sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: X32 }, instruction(RETURN, word)]);
    program
}

/// Appends a group of rules: whoever matches one gets `word`, all others go on behind it.
fn append(program: &mut BpfProgram, rules: Rules, word: u32) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let group = lower(rules)?.split_off(CHECK);
    let len = group.len();
    program.extend(group.into_iter().enumerate().map(|(index, it)| match (it.code, it.k) {
        (RETURN, k) if k == RET_TRACE | u32::from(MATCH) => instruction(RETURN, word),
        (RETURN, k) if k == RET_TRACE | u32::from(NEXT) => instruction(JUMP, (len - index - 1) as u32),
        _ => it,
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::confine::seccomp::Rule;

    /// What the kernel would return: an interpreter of the instructions that filters are made of.
    fn run(program: &[u8], arch: u32, nr: u32, args: &[u64; 6]) -> u32 {
        let half = |offset: u32| match offset {
            0 => nr,
            4 => arch,
            _ => {
                let word = args[((offset - 16) / 8) as usize];
                if offset % 8 == 4 { (word >> 32) as u32 } else { word as u32 }
            }
        };
        let (mut at, mut a) = (0, 0u32);
        loop {
            let instruction: [u8; 8] = program[at * 8..][..8].try_into().unwrap();
            let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
            let k = u32::from_ne_bytes(instruction[4..].try_into().unwrap());
            let branch = |holds: bool| usize::from(if holds { instruction[2] } else { instruction[3] });
            at += 1;
            match code {
                0x20 => a = half(k),
                0x54 => a &= k,
                0x05 => at += k as usize,
                0x15 => at += branch(a == k),
                0x25 => at += branch(a > k),
                0x35 => at += branch(a >= k),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    const NATIVE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const NATIVE: u32 = 0xc000_00b7;
    const I386: u32 = 0x4000_0003;

    fn of(seccomp: &Seccomp) -> Filter {
        Filter::new(Policy::resolve(seccomp).expect("a policy")).expect("a filter")
    }

    fn number(name: &str) -> i32 {
        crate::system_call::SystemCall::named(name).expect(name).number()
    }

    #[test]
    fn other_abis_pass_no_filter() {
        for (policy, refused) in [
            (Seccomp::deny_list().deny(["ptrace"]), RET_ERRNO | libc::ENOSYS as u32),
            (Seccomp::allow_list().allow(["read"]).otherwise(Action::Kill), RET_KILL_PROCESS),
        ] {
            let filter = of(&policy);
            let read = number("read") as u32;
            assert_eq!(run(&filter.program, NATIVE, read, &[0; 6]), RET_ALLOW);
            assert_eq!(run(&filter.program, I386, read, &[0; 6]), refused);
            #[cfg(target_arch = "x86_64")]
            assert_eq!(run(&filter.program, NATIVE, read | X32, &[0; 6]), refused);
        }
    }

    #[test]
    fn an_empty_allow_list_refuses_everything_but_with_the_pass() {
        let filter = of(&Seccomp::allow_list());
        let pass = filter.pass;
        let execve = number("execve") as u32;
        assert_eq!(run(&filter.program, NATIVE, execve, &[0; 6]), RET_ERRNO | libc::EPERM as u32);
        assert_eq!(run(&filter.program, NATIVE, execve, &[1, 2, 3, 4, 5, pass]), RET_ALLOW);
        assert_eq!(run(&filter.program, NATIVE, execve, &[1, 2, 3, 4, 5, pass ^ 1 << 40]), RET_ERRNO | 1);
        assert_eq!(run(&filter.program, NATIVE, number("read") as u32, &[1, 2, 3, 4, 5, pass]), RET_ERRNO | 1);
    }

    fn comparison() -> impl Strategy<Value = Comparison> {
        let value = prop_oneof![any::<u64>(), 0u64..4, Just(u64::MAX), Just(1 << 32)];
        (0..7u8, value.clone(), value).prop_map(|(kind, value, mask)| match kind {
            0 => Comparison::Equal(value),
            1 => Comparison::NotEqual(value),
            2 => Comparison::Less(value),
            3 => Comparison::LessOrEqual(value),
            4 => Comparison::Greater(value),
            5 => Comparison::GreaterOrEqual(value),
            _ => Comparison::Masked { mask, value },
        })
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Allow),
            Just(Action::Log),
            Just(Action::Notify),
            Just(Action::Kill),
            (1..4096i32).prop_map(Action::Errno),
        ]
    }

    const CALLS: [&str; 4] = ["read", "socket", "execve", "mount"];

    prop_compose! {
        fn rule()(
            call in 0..CALLS.len(),
            conditions in prop::collection::vec((0..6u8, comparison(), any::<bool>()), 0..3),
            action in action(),
        ) -> Rule {
            let conditions = conditions.into_iter();
            let conditions = conditions
                .map(|(argument, comparison, low_half)| Condition { argument, comparison, low_half })
                .collect();
            Rule { call: CALLS[call].into(), conditions, action }
        }
    }

    proptest! {
        #[test]
        fn the_filter_decides_as_the_policy_does(
            rules in prop::collection::vec(rule(), 0..8),
            otherwise in action(),
            record in any::<bool>(),
            call in 0..CALLS.len(),
            args in prop::array::uniform6(prop_oneof![any::<u64>(), 0u64..4, Just(1 << 32)]),
        ) {
            let filter = of(&Seccomp { otherwise, rules, record });
            let number = number(CALLS[call]);
            let expected = filter.policy.word(filter.policy.decide(number, &args));
            prop_assert_eq!(run(&filter.program, NATIVE, number as u32, &args), expected);
        }
    }
}
