//! A compiled policy, and how the set-up's own calls get past it.

use std::sync::{Arc, Mutex, PoisonError};

use super::lowering;
use super::{Policy, Seccomp};
use crate::error::{Error, Result};
use crate::plan::{SystemCall, Word, nr};

/// A policy, compiled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub policy: Arc<Policy>,
    /// The instructions. The launch puts the pass in: each sandbox has one of its own, though a policy is compiled once.
    pub program: Vec<Word>,
    /// The set-up's calls that carry the pass, by their numbers.
    pub carrying: Vec<u32>,
}

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

/// The kernel's limit (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

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

impl Filter {
    fn new(policy: Policy) -> Result<Self> {
        let needs_pass = |&number: &u32| !policy.always_allows(number as i32);
        let numbers = SET_UP.iter().map(|call| call.number);
        let passed: Vec<u32> = numbers.clone().filter(needs_pass).collect();
        let carrying =
            if REPORTING.iter().any(|call| passed.contains(&call.number)) { numbers.collect() } else { passed.clone() };
        let program = lowering::lower(&policy, &passed)?;
        if program.len() > LONGEST {
            let what = format!("the seccomp policy is a filter of {} instructions", program.len());
            return Err(Error::invalid(what, "the kernel takes 4096: name fewer calls, or fewer conditions"));
        }
        Ok(Self { policy: Arc::new(policy), program: program.iter().map(lowering::word).collect(), carrying })
    }

    /// Instructions of the filter.
    pub fn len(&self) -> usize {
        self.program.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::confine::seccomp::lowering::*;
    use crate::confine::seccomp::{Action, Comparison, Condition, Granted, Rule};
    use crate::plan::{Address, Input};
    use crate::system_call::ARCHITECTURE;
    #[cfg(target_arch = "x86_64")]
    use crate::system_call::X32;

    /// An instruction as the launch puts the pass in.
    fn resolve(word: Word, pass: u64) -> u64 {
        match word {
            Word::Value(value) => value,
            Word::Address(Address::Input(Input::Comparison { instruction, shift })) => {
                u64::from(instruction) | (pass >> shift) << 32
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the kernel would return: an interpreter of the instructions that filters are made of.
    fn run(program: &[Word], arch: u32, nr: u32, args: &[u64; 6]) -> u32 {
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
            let instruction = resolve(program[at], PASS).to_ne_bytes();
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
                0x45 => at += branch(a & k != 0),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const PASS: u64 = 0x0123_4567_89ab_cdef;
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
            (Seccomp::allow_list().allow(["read"]).otherwise(Action::Kill), RET_USER_NOTIF),
        ] {
            let filter = of(&policy);
            let read = number("read") as u32;
            assert_eq!(run(&filter.program, ARCHITECTURE, read, &[0; 6]), RET_ALLOW);
            assert_eq!(run(&filter.program, I386, read, &[0; 6]), refused);
            #[cfg(target_arch = "x86_64")]
            assert_eq!(run(&filter.program, ARCHITECTURE, read | X32, &[0; 6]), refused);
        }
    }

    #[test]
    fn an_empty_allow_list_refuses_everything_but_with_the_pass() {
        let filter = of(&Seccomp::allow_list());
        let pass = PASS;
        let execve = number("execve") as u32;
        assert_eq!(run(&filter.program, ARCHITECTURE, execve, &[0; 6]), RET_ERRNO | libc::EPERM as u32);
        assert_eq!(run(&filter.program, ARCHITECTURE, execve, &[1, 2, 3, 4, 5, pass]), RET_ALLOW);
        assert_eq!(run(&filter.program, ARCHITECTURE, execve, &[1, 2, 3, 4, 5, pass ^ 1 << 40]), RET_ERRNO | 1);
        assert_eq!(run(&filter.program, ARCHITECTURE, number("read") as u32, &[1, 2, 3, 4, 5, pass]), RET_ERRNO | 1);
    }

    #[test]
    fn a_policy_is_compiled_once_and_has_no_pass() {
        let [one, other] = [(); 2].map(|_| compile(&Seccomp::allow_list()).expect("a filter"));
        assert!(Arc::ptr_eq(&one, &other));
        let halves = one.program.iter().filter(|word| matches!(word, Word::Address(_))).count();
        assert_eq!(halves, 2, "one check that all calls of the set-up share");
    }

    /// The length of the filter is a large part of what a spawn costs.
    #[test]
    fn the_default_filter_is_short() {
        let len = of(&Seccomp::new()).len();
        assert!(len < 350, "{len} instructions");
    }

    #[test]
    fn every_number_is_decided_as_the_presets_say() {
        for preset in [Seccomp::new(), Seccomp::pure_computation(), Seccomp::container().record()] {
            let filter = of(&preset);
            let args = [0, 1, 2, 3].map(|first| [first, first, 0, 0, 0, 0]);
            for (number, args) in (0..1024).flat_map(|number| args.iter().map(move |args| (number, args))) {
                let expected = filter.policy.word(filter.policy.decide(number, args));
                assert_eq!(run(&filter.program, ARCHITECTURE, number as u32, args), expected, "{number} {args:?}");
            }
        }
    }

    #[test]
    fn a_search_reaches_further_than_a_jump() {
        let far = Comparison::Equal(1);
        let with_cases = |policy: Seccomp, (index, name): (usize, &'static str)| {
            let errno = |argument: u8| 1 + i32::from(argument) + 6 * index as i32;
            let refused = (0..6).map(|argument| (Condition::new(argument, far), Action::Errno(errno(argument))));
            refused.fold(policy, |policy, (condition, action)| policy.when(name, [condition], action))
        };
        let names = [
            "read", "write", "socket", "connect", "bind", "listen", "execve", "mount", "openat", "statx", "ioctl",
            "prctl", "futex", "close", "fstat",
        ];
        let filter = of(&names.into_iter().enumerate().fold(Seccomp::deny_list(), with_cases));
        assert!(filter.len() > 2 * 255, "{} instructions", filter.len());
        for (index, name) in names.into_iter().enumerate() {
            let of_the_last = run(&filter.program, ARCHITECTURE, number(name) as u32, &[0, 0, 0, 0, 0, 1]);
            assert_eq!(of_the_last, RET_ERRNO | (6 + 6 * index as u32), "{name}");
            assert_eq!(run(&filter.program, ARCHITECTURE, number(name) as u32, &[0; 6]), RET_ALLOW, "{name}");
        }
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

    /// As many that a filter is longer than a conditional jump.
    const CALLS: [&str; 12] = [
        "read", "socket", "execve", "mount", "write", "connect", "bind", "listen", "openat", "statx", "ioctl", "prctl",
    ];

    prop_compose! {
        fn rule(calls: usize)(
            call in 0..calls,
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
            rules in prop_oneof![prop::collection::vec(rule(4), 0..8), prop::collection::vec(rule(CALLS.len()), 100..200)],
            otherwise in action(),
            record in any::<bool>(),
            calls in prop::collection::vec(0..CALLS.len(), 8),
            args in prop::array::uniform6(prop_oneof![any::<u64>(), 0u64..4, Just(1 << 32)]),
        ) {
            let filter = of(&Seccomp { otherwise, rules, record, granted: Granted::NOTHING });
            for number in calls.into_iter().map(|call| number(CALLS[call])) {
                let expected = filter.policy.word(filter.policy.decide(number, &args));
                prop_assert_eq!(run(&filter.program, ARCHITECTURE, number as u32, &args), expected);
            }
        }
    }
}
