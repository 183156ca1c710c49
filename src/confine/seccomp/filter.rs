//! A compiled policy, and the pass by which calls of the set-up are allowed although the policy denies them: a random
//! number of each sandbox in their sixth argument, which the kernel ignores.

use std::sync::{Arc, Mutex};

use super::bpf;
use super::{Policy, Seccomp};
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::plan::{SyscallName, Word, nr};

/// A compiled policy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub policy: Arc<Policy>,
    /// The instructions. The launch fills in the pass: each sandbox has its own, though a policy is compiled once.
    pub instructions: Vec<Word>,
    /// The numbers of the calls of the set-up that carry the pass.
    pub carrying: Vec<u32>,
}

/// Calls that the process of a program may make after the filter has been installed.
const SET_UP: [&SyscallName; 15] = [
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

/// The further calls of the helper of a session, which is confined before it waits for commands, and of the processes that it
/// clones.
const SESSION: [&SyscallName; 15] = [
    nr!(SYS_ppoll),
    nr!(SYS_recvmsg),
    nr!(SYS_clone),
    nr!(SYS_pidfd_open),
    nr!(SYS_clock_gettime),
    nr!(SYS_close_range),
    nr!(SYS_dup3),
    nr!(SYS_fcntl),
    nr!(SYS_openat),
    nr!(SYS_pread64),
    nr!(SYS_socket),
    nr!(SYS_setsockopt),
    nr!(SYS_bind),
    nr!(SYS_listen),
    nr!(SYS_connect),
];

/// The processes of the set-up that make calls under the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetUpUnderFilter {
    OfProgram,
    OfSession,
}

impl SetUpUnderFilter {
    /// The numbers of their calls.
    fn calls(self) -> impl Iterator<Item = u32> + Clone {
        let further = if self == Self::OfSession { &SESSION[..] } else { &[] };
        SET_UP.iter().chain(further).map(|call| call.number)
    }
}

/// The numbers of the calls that the set-up may make after a compiled program has been installed: those after a filter,
/// and the call that installs the next one.
pub(super) fn all_calls() -> Vec<u32> {
    SetUpUnderFilter::OfSession.calls().chain([libc::SYS_seccomp as u32]).collect()
}

/// Calls with which the interpreter reports a failed call and exits. They have the sixth argument of the failed call.
const REPORTING: [&SyscallName; 2] = [nr!(SYS_write), nr!(SYS_exit_group)];

/// The kernel's limit (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// Compiles a policy. The last result is cached, since most callers use one policy.
pub(crate) fn compile(seccomp: &Seccomp, set_up: SetUpUnderFilter) -> Result<Arc<Filter>> {
    static LAST: Mutex<Option<(Seccomp, SetUpUnderFilter, Arc<Filter>)>> = Mutex::new(None);
    let mut last = lock(&LAST);
    if let Some((_, _, filter)) = last.as_ref().filter(|(known, of, _)| known == seccomp && *of == set_up) {
        return Ok(filter.clone());
    }
    let filter = Arc::new(Filter::new(Policy::resolve(seccomp)?, set_up)?);
    *last = Some((seccomp.clone(), set_up, filter.clone()));
    Ok(filter)
}

impl Filter {
    fn new(policy: Policy, set_up: SetUpUnderFilter) -> Result<Self> {
        let needs_pass = |&number: &u32| !policy.always_allows(number as i32);
        let numbers = set_up.calls();
        let passed: Vec<u32> = numbers.clone().filter(needs_pass).collect();
        let carrying =
            if REPORTING.iter().any(|call| passed.contains(&call.number)) { numbers.collect() } else { passed.clone() };
        let program = bpf::lower(&policy, &passed)?;
        if program.len() > MAX_INSTRUCTIONS {
            let what = format!(
                "the seccomp filter has {} instructions, and the kernel allows {MAX_INSTRUCTIONS}",
                program.len()
            );
            return Err(Error::invalid(what, "use fewer rules, or fewer conditions"));
        }
        let instructions = program.iter().map(bpf::word).collect();
        Ok(Self { policy: Arc::new(policy), instructions, carrying })
    }

    /// Returns the number of instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::unix::Errno;
    use proptest::prelude::*;

    use super::*;
    use crate::confine::seccomp::bpf::*;
    use crate::confine::seccomp::{Action, Comparison, Condition, Exemptions, Rule};
    use crate::plan::{Address, Input};
    use crate::syscall::ARCHITECTURE;
    #[cfg(target_arch = "x86_64")]
    use crate::syscall::X32;

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

    /// Runs a filter as the kernel does, and returns its result.
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
        Filter::new(Policy::resolve(seccomp).expect("a policy"), SetUpUnderFilter::OfProgram).expect("a filter")
    }

    fn number(name: &str) -> i32 {
        crate::syscall::SystemCall::named(name).expect(name).number()
    }

    #[test]
    fn calls_of_other_abis_are_denied() {
        for (policy, refused) in [
            (Seccomp::deny_list().deny(["ptrace"]), RET_ERRNO | libc::ENOSYS as u32),
            (Seccomp::allow_list().allow(["read"]).default_action(Action::Kill), RET_USER_NOTIF),
        ] {
            let filter = of(&policy);
            let read = number("read") as u32;
            assert_eq!(run(&filter.instructions, ARCHITECTURE, read, &[0; 6]), RET_ALLOW);
            assert_eq!(run(&filter.instructions, I386, read, &[0; 6]), refused);
            #[cfg(target_arch = "x86_64")]
            assert_eq!(run(&filter.instructions, ARCHITECTURE, read | X32, &[0; 6]), refused);
        }
    }

    #[test]
    fn an_empty_allow_list_allows_only_calls_with_the_pass() {
        let filter = of(&Seccomp::allow_list());
        let pass = PASS;
        let execve = number("execve") as u32;
        assert_eq!(run(&filter.instructions, ARCHITECTURE, execve, &[0; 6]), RET_ERRNO | libc::EPERM as u32);
        assert_eq!(run(&filter.instructions, ARCHITECTURE, execve, &[1, 2, 3, 4, 5, pass]), RET_ALLOW);
        assert_eq!(run(&filter.instructions, ARCHITECTURE, execve, &[1, 2, 3, 4, 5, pass ^ 1 << 40]), RET_ERRNO | 1);
        assert_eq!(
            run(&filter.instructions, ARCHITECTURE, number("read") as u32, &[1, 2, 3, 4, 5, pass]),
            RET_ERRNO | 1
        );
    }

    #[test]
    fn a_policy_is_compiled_once_and_has_no_pass() {
        let [one, other] =
            [(); 2].map(|_| compile(&Seccomp::allow_list(), SetUpUnderFilter::OfProgram).expect("a filter"));
        assert!(Arc::ptr_eq(&one, &other));
        let halves = one.instructions.iter().filter(|word| matches!(word, Word::Address(_))).count();
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
                assert_eq!(run(&filter.instructions, ARCHITECTURE, number as u32, args), expected, "{number} {args:?}");
            }
        }
    }

    #[test]
    fn a_search_reaches_further_than_a_jump() {
        let far = Comparison::Equal(1);
        let with_cases = |policy: Seccomp, (index, name): (usize, &'static str)| {
            let errno = |argument: u8| 1 + i32::from(argument) + 6 * index as i32;
            let refused =
                (0..6).map(|argument| (Condition::qword(argument, far), Action::Errno(Errno::new(errno(argument)))));
            refused.fold(policy, |policy, (condition, action)| policy.when(name, [condition], action))
        };
        let names = [
            "read", "write", "socket", "connect", "bind", "listen", "execve", "mount", "openat", "statx", "ioctl",
            "prctl", "futex", "close", "fstat",
        ];
        let filter = of(&names.into_iter().enumerate().fold(Seccomp::deny_list(), with_cases));
        assert!(filter.len() > 2 * 255, "{} instructions", filter.len());
        for (index, name) in names.into_iter().enumerate() {
            let of_the_last = run(&filter.instructions, ARCHITECTURE, number(name) as u32, &[0, 0, 0, 0, 0, 1]);
            assert_eq!(of_the_last, RET_ERRNO | (6 + 6 * index as u32), "{name}");
            assert_eq!(run(&filter.instructions, ARCHITECTURE, number(name) as u32, &[0; 6]), RET_ALLOW, "{name}");
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
            (1..4096i32).prop_map(|number| Action::Errno(Errno::new(number))),
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
            default_action in action(),
            record in any::<bool>(),
            calls in prop::collection::vec(0..CALLS.len(), 8),
            args in prop::array::uniform6(prop_oneof![any::<u64>(), 0u64..4, Just(1 << 32)]),
        ) {
            let filter = of(&Seccomp { rules, record, exemptions: Exemptions::NONE, ..Seccomp::with_default(default_action) });
            for number in calls.into_iter().map(|call| number(CALLS[call])) {
                let expected = filter.policy.word(filter.policy.decide(number, &args));
                prop_assert_eq!(run(&filter.instructions, ARCHITECTURE, number as u32, &args), expected);
            }
        }
    }
}
