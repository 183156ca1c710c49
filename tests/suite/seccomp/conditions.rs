//! Conditions on arguments, at their boundaries. getppid(2) has no arguments, so it can be called with any.

use stockade::Seccomp;
use stockade::seccomp::{Action, Comparison, Condition};

use crate::seccomp::{EPERM, priority, results, shell, under};
use crate::support::{stdout, text};
use stockade::Errno;

const LARGE: u64 = 0x1234_5678_9abc_def0;
const EDGES: [u64; 4] = [0, 1 << 32, LARGE, u64::MAX];

/// Whether a comparison holds of an argument and its value.
type Holds = fn(u64, u64) -> bool;

fn comparisons(value: u64) -> [(Comparison, Holds); 6] {
    [
        (Comparison::Equal(value), |one, other| one == other),
        (Comparison::NotEqual(value), |one, other| one != other),
        (Comparison::Less(value), |one, other| one < other),
        (Comparison::LessOrEqual(value), |one, other| one <= other),
        (Comparison::Greater(value), |one, other| one > other),
        (Comparison::GreaterOrEqual(value), |one, other| one >= other),
    ]
}

/// Which of these first arguments a condition refuses.
fn refused(condition: Condition, arguments: &[u64]) -> Vec<bool> {
    let calls: Vec<String> = arguments.iter().map(|argument| format!("getppid:{argument}")).collect();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let policy = Seccomp::deny_list().when("getppid", [condition], Action::Errno(Errno::EPERM));
    results(policy, &calls).iter().map(|it| it == EPERM).collect()
}

/// What lies at a value and beside it, in either half.
fn around(value: u64) -> Vec<u64> {
    [0, 1, u64::MAX, 1 << 32, (1u64 << 32).wrapping_neg()].into_iter().map(|step| value.wrapping_add(step)).collect()
}

#[apply(test)]
fn comparisons_of_64_bits_hold_at_their_edges() {
    for value in EDGES {
        let arguments = around(value);
        for (comparison, holds) in comparisons(value) {
            let expected: Vec<bool> = arguments.iter().map(|&argument| holds(argument, value)).collect();
            assert_eq!(
                refused(Condition::qword(0, comparison), &arguments),
                expected,
                "{comparison:?} of {arguments:x?}"
            );
        }
    }
    let masked = Comparison::masked(1 << 40 | 3, 1 << 40 | 1);
    let arguments = [1 << 40 | 1, 1 << 40 | 5, 1 << 40, 1, 1 << 40 | 3, u64::MAX, 1 << 41 | 1 << 40 | 1];
    let expected = [true, true, false, false, false, false, true];
    assert_eq!(refused(Condition::qword(0, masked), &arguments), expected);
}

#[apply(test)]
fn comparisons_of_32_bits_pass_over_the_upper_half() {
    let garbage = 0xdead_beef_0000_0000;
    for value in [0, 7, u64::from(u32::MAX)] {
        let arguments: Vec<u64> = around(value).into_iter().flat_map(|it| [it, it & 0xffff_ffff | garbage]).collect();
        for (comparison, holds) in comparisons(value) {
            let expected: Vec<bool> = arguments.iter().map(|&it| holds(it & 0xffff_ffff, value)).collect();
            assert_eq!(
                refused(Condition::dword(0, comparison), &arguments),
                expected,
                "{comparison:?} of {arguments:x?}"
            );
        }
    }
    // Which a comparison of 64 bits does not.
    assert_eq!(refused(Condition::qword(0, Comparison::Equal(7)), &[7, garbage | 7]), [true, false]);
    let masked = Condition::dword(0, Comparison::masked(3, 1));
    assert_eq!(refused(masked, &[1, garbage | 5, garbage | 2, garbage]), [true, true, false, false]);
}

#[apply(test)]
fn every_argument_can_be_compared() {
    for argument in 0..6 {
        let condition = Condition::qword(argument, Comparison::Equal(LARGE));
        let policy = Seccomp::deny_list().when("getppid", [condition], Action::Errno(Errno::EPERM));
        let call = |at: u8| {
            let args: Vec<String> = (0..6).map(|it| if it == at { LARGE.to_string() } else { "0".into() }).collect();
            format!("getppid:{}", args.join(","))
        };
        let calls: Vec<String> = (0..6).map(call).collect();
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        let found = results(policy, &calls).iter().position(|it| it == EPERM);
        assert_eq!(found, Some(argument.into()));
    }
}

#[apply(test)]
fn all_conditions_of_a_rule_must_hold() {
    let both = [Condition::qword(0, Comparison::Greater(10)), Condition::dword(0, Comparison::Less(20))];
    let other = Condition::qword(1, Comparison::Equal(1));
    let policy = Seccomp::deny_list().when("getppid", both.into_iter().chain([other]), Action::Errno(Errno::EPERM));
    let given = results(policy, &["getppid:10,1", "getppid:11,1", "getppid:19,1", "getppid:20,1", "getppid:11,2"]);
    assert_eq!(given.iter().map(|it| it == EPERM).collect::<Vec<_>>(), [false, true, true, false, false]);
}

#[apply(test)]
fn one_of_several_rules_is_enough() {
    let is = |value| [Condition::qword(0, Comparison::Equal(value))];
    let policy = Seccomp::deny_list()
        .when("getppid", is(1), Action::Errno(Errno::EXDEV))
        .when("getppid", is(2), Action::Errno(Errno::ENOSYS))
        .when("getppid", [Condition::qword(0, Comparison::LessOrEqual(2))], Action::Errno(Errno::EPERM));
    // EPERM is 1, and the larger of two numbers counts.
    let given = results(policy, &["getppid:0", "getppid:1", "getppid:2", "getppid:3"]);
    assert_eq!(given[..3], [EPERM, "EXDEV", "ENOSYS"]);
    assert!(given[3].parse::<i64>().is_ok());
}

#[apply(test)]
fn calls_that_match_no_condition_get_the_default_action() {
    let policy = Seccomp::pure_computation()
        .deny(["getppid"])
        .default_action(Action::Errno(Errno::ENOSYS))
        .when("getpriority", [Condition::dword(0, Comparison::Equal(1))], Action::Errno(Errno::EXDEV))
        .when("sched_getattr", [Condition::dword(0, Comparison::Equal(1))], Action::Allow);
    let given =
        results(policy, &["getpriority:0,0", "getpriority:1,0", "sched_getattr:1", "sched_getattr:2", "getppid"]);
    assert_eq!(given, [&priority(), "EXDEV", "EINVAL", "ENOSYS", EPERM]);
}

#[apply(test)]
fn sockets_are_refused_by_their_family() {
    let script = "exec bash -c 'exec 3<>/dev/udp/127.0.0.1/9 && echo connected'";
    assert_eq!(stdout(&under(Seccomp::new()), script), "connected");
    let not_unix = Condition::dword(0, Comparison::NotEqual(libc::AF_UNIX as u64));
    let policy = || Seccomp::new().when("socket", [not_unix], Action::Errno(Errno::EACCES));
    let refused = shell(policy(), script);
    assert!(text(&refused.stderr).contains("Permission denied"), "{}", text(&refused.stderr));
    let sockets = [format!("socket:{},1", libc::AF_UNIX), format!("socket:{},2", libc::AF_INET)];
    assert_eq!(results(policy(), &sockets.each_ref().map(String::as_str)), ["3", "EACCES"]);
}
