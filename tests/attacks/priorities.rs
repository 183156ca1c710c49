//! Priorities of the caller that a program must not inherit: it would hold up everybody else on the machine.

use std::fs;

use stockade::{Error, Limits};

use crate::common::{Attempts, attack, attack_by, attack_on_host, sandbox, tell};
use crate::support::{Payload, Test, is_root, payload_on_host, unless_root};
use crate::sys;

pub const TESTS: &[Test] = tests![
    priorities_of_the_caller_are_not_inherited if unless_root,
    requested_priorities_are_the_programs,
    priorities_above_the_callers_are_an_error,
];

pub const PAYLOADS: &[Payload] = &[("tell_priorities", tell_priorities), ("preferred", preferred)];

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// Of ioprio_set(2): the first level of the real-time class.
const REAL_TIME_IO: i64 = 1 << 13;

fn tell_priorities(_: &[String]) -> i32 {
    tell("policy", sys::numbers(libc::SYS_sched_getscheduler, &[0]).unwrap());
    tell("nice", 20 - sys::numbers(libc::SYS_getpriority, &[libc::PRIO_PROCESS.into(), 0]).unwrap());
    tell("io", sys::numbers(libc::SYS_ioprio_get, &[1, 0]).unwrap());
    tell("oom", fs::read_to_string(OOM_SCORE_ADJ).unwrap().trim().parse::<i32>().unwrap());
    0
}

/// A caller that is preferred to everybody else: what its child has, and what a program in a sandbox has.
fn preferred(_: &[String]) -> i32 {
    let process = libc::PRIO_PROCESS.into();
    sys::numbers(libc::SYS_setpriority, &[process, 0, -5]).unwrap();
    sys::numbers(libc::SYS_ioprio_set, &[1, 0, REAL_TIME_IO]).unwrap();
    // It takes CAP_SYS_RESOURCE, which root may lack.
    let _ = fs::write(OOM_SCORE_ADJ, "-500");
    let parameters = 1i32.to_ne_bytes();
    let mut round_robin =
        [sys::Word::Number(0), sys::Word::Number(libc::SCHED_RR.into()), sys::Word::Bytes(&parameters)];
    sys::call(libc::SYS_sched_setscheduler, &mut round_robin).unwrap();
    let say = |where_from: &str, said: &Attempts| {
        for what in ["policy", "nice", "io", "oom"] {
            tell(&format!("{where_from} {what}"), said.get(what));
        }
    };
    say("child", &attack_on_host("tell_priorities", &[]));
    say("program", &attack(&sandbox(), "tell_priorities", &[]));
    0
}

/// Attack 56: the caller has a real-time scheduling class, a negative nice value, real-time input and output, and is
/// spared by the OOM killer.
fn priorities_of_the_caller_are_not_inherited() {
    let said = attack_by(&mut payload_on_host("preferred"));
    let of = |where_from: &str, what: &str| said.get(&format!("{where_from} {what}")).trim_matches('"').to_owned();
    assert_eq!(of("child", "policy"), libc::SCHED_RR.to_string(), "a child without a sandbox inherits it");
    assert_eq!(of("child", "nice"), "-5");
    assert_eq!(of("child", "io"), REAL_TIME_IO.to_string());
    for (what, default) in [("policy", "0"), ("nice", "0"), ("oom", "0")] {
        assert_eq!(of("program", what), default, "{what}");
    }
    let io: i64 = of("program", "io").parse().unwrap();
    assert_ne!(io >> 13, 1, "the class of input and output");
}

fn requested_priorities_are_the_programs() {
    let requested = sandbox().limits(Limits::new().nice(7).oom_score_adj(600));
    let said = attack(&requested, "tell_priorities", &[]);
    assert_eq!((said.get("nice"), said.get("oom")), ("7", "600"));
    if is_root() {
        let said = attack(&sandbox().limits(Limits::new().nice(-3)), "tell_priorities", &[]);
        assert_eq!(said.get("nice"), "-3");
    }
}

fn priorities_above_the_callers_are_an_error() {
    for limits in [Limits::new().nice(20), Limits::new().nice(-21), Limits::new().oom_score_adj(1001)] {
        let error = crate::support::refused(&sandbox().limits(limits));
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    if !is_root() {
        for (limits, capability) in
            [(Limits::new().nice(-3), "CAP_SYS_NICE"), (Limits::new().oom_score_adj(-3), "CAP_SYS_RESOURCE")]
        {
            let error = crate::support::refused(&sandbox().limits(limits));
            assert!(matches!(error, Error::SetUp { .. }) && error.to_string().contains(capability), "{error}");
        }
    }
}
