//! Priorities of the caller that a program must not inherit, because it would delay all other processes of the machine.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::resource::{Resource, setrlimit};
use stockade::limits::Resource as Limit;
use stockade::{ErrorKind, Limits};

use crate::attacks::common::{Attempts, attack, attack_by, attack_on_host, host_output, sandbox, tell, unfiltered};
use crate::attacks::sys;
use crate::support::{USER, is_root, own_path, payload, payload_on_host, shared_dir, text, unless_root};

payloads![
    ("tell_priorities", tell_priorities),
    ("preferred", preferred),
    ("take_priorities", take_priorities),
    ("raised", raised),
    ("raised_user", raised_user),
    ("plan_of_another_thread", plan_of_another_thread),
    ("exempted", exempted),
    ("exempted_user", exempted_user),
    ("reset_on_fork", reset_on_fork),
    ("with_deadlines", with_deadlines),
];

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// Of prctl(2).
const SET_IO_FLUSHER: i64 = 57;
/// `PF_MEMALLOC_NOIO`, in the ninth field of `/proc/self/stat`: what IO_FLUSHER sets.
const NO_IO: u64 = 0x0008_0000;
/// Of ioprio_set(2): the first level of the real-time class.
const REAL_TIME_IO: i64 = 1 << 13;

fn tell_priorities(_: &[String]) -> i32 {
    tell("policy", sys::numbers(libc::SYS_sched_getscheduler, &[0]).unwrap());
    tell("nice", 20 - sys::numbers(libc::SYS_getpriority, &[libc::PRIO_PROCESS.into(), 0]).unwrap());
    tell("io", sys::numbers(libc::SYS_ioprio_get, &[1, 0]).unwrap());
    tell("oom", fs::read_to_string(OOM_SCORE_ADJ).unwrap().trim().parse::<i32>().unwrap());
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let flags: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(6).unwrap().parse().unwrap();
    tell("no io", flags & NO_IO != 0);
    0
}

/// The policy of a thread: of a real-time one with the lowest priority.
fn schedule(policy: libc::c_int) -> Result<(), nix::errno::Errno> {
    let parameters = i32::from(matches!(policy & 0xff, libc::SCHED_RR | libc::SCHED_FIFO)).to_ne_bytes();
    let mut words = [sys::Word::Number(0), sys::Word::Number(policy.into()), sys::Word::Bytes(&parameters)];
    sys::call(libc::SYS_sched_setscheduler, &mut words).map(drop)
}

/// A caller that is preferred to everybody else: what its child has, and what a program in a sandbox has.
fn preferred(_: &[String]) -> i32 {
    let process = libc::PRIO_PROCESS.into();
    sys::numbers(libc::SYS_setpriority, &[process, 0, -5]).unwrap();
    sys::numbers(libc::SYS_ioprio_set, &[1, 0, REAL_TIME_IO]).unwrap();
    // It takes CAP_SYS_RESOURCE, which root may lack.
    tell("exempted", fs::write(OOM_SCORE_ADJ, "-500").is_ok());
    tell("flusher", sys::numbers(libc::SYS_prctl, &[SET_IO_FLUSHER, 1, 0, 0, 0]).is_ok());
    schedule(libc::SCHED_RR).unwrap();
    let say = |where_from: &str, said: &Attempts| {
        for what in ["policy", "nice", "io", "oom", "no io"] {
            tell(&format!("{where_from} {what}"), said.get(what));
        }
    };
    say("child", &attack_on_host("tell_priorities", &[]));
    say("program", &attack(&sandbox(), "tell_priorities", &[]));
    0
}

/// Attack 56: the caller has a real-time scheduling class, a negative nice value, real-time input and output, and is
/// spared by the OOM killer.
#[apply(test)]
#[only(Root)]
fn priorities_of_the_caller_are_not_inherited() {
    let said = attack_by(&mut payload_on_host("preferred"));
    let of = |where_from: &str, what: &str| said.get(&format!("{where_from} {what}")).trim_matches('"').to_owned();
    assert_eq!(of("child", "policy"), libc::SCHED_RR.to_string(), "a child without a sandbox inherits it");
    assert_eq!(of("child", "nice"), "-5");
    assert_eq!(of("child", "io"), REAL_TIME_IO.to_string());
    for (proof, what, value) in [("exempted", "oom", "-500"), ("flusher", "no io", "true")] {
        if said.get(proof) == "true" {
            assert_eq!(of("child", what), value);
        } else {
            println!("no proof of {what:?}: root lacks CAP_SYS_RESOURCE here, or the kernel is older than 5.6");
        }
    }
    assert_eq!(of("program", "no io"), "false");
    for (what, default) in [("policy", "0"), ("nice", "0"), ("oom", "0")] {
        assert_eq!(of("program", what), default, "{what}");
    }
    let io: i64 = of("program", "io").parse().unwrap();
    assert_ne!(io >> 13, 1, "the class of input and output");
}

/// Takes what prefers the process to others, and tells what it got.
fn take_priorities(_: &[String]) -> i32 {
    tell("real time", schedule(libc::SCHED_FIFO).is_ok());
    tell("nice", sys::numbers(libc::SYS_setpriority, &[libc::PRIO_PROCESS.into(), 0, -10]).is_ok());
    tell("oom", fs::write(OOM_SCORE_ADJ, "-500").is_ok());
    0
}

/// Runs a payload on the host as an ordinary user, who inherits what this root process has set.
fn as_user(name: &str) {
    let place = shared_dir();
    let copy = place.path().join("tests");
    fs::copy(own_path(), &copy).unwrap();
    let mut command = std::process::Command::new(copy);
    print!("{}", host_output(command.args(["--payload", name]).current_dir("/").uid(USER).gid(USER)));
}

/// An administrator who lets an ordinary user prefer itself to others.
fn raised(_: &[String]) -> i32 {
    for (resource, most) in [(Resource::RLIMIT_RTPRIO, 50), (Resource::RLIMIT_NICE, 40)] {
        setrlimit(resource, most, most).unwrap();
    }
    as_user("raised_user");
    0
}

fn raised_user(_: &[String]) -> i32 {
    let say = |where_from: &str, said: &Attempts| {
        for what in ["real time", "nice"] {
            tell(&format!("{where_from} {what}"), said.get(what));
        }
    };
    say("child", &attack_on_host("take_priorities", &[]));
    say("program", &attack(&unfiltered(&sandbox()), "take_priorities", &[]));
    let allowed = Limits::new().rlimit(Limit::Rtprio, 50, 50).rlimit(Limit::Nice, 40, 40);
    say("allowed", &attack(&unfiltered(&sandbox()).limits(allowed), "take_priorities", &[]));
    0
}

/// Attack 56: RLIMIT_RTPRIO and RLIMIT_NICE, by which a program takes what the set-up has reset.
#[apply(test)]
#[only(Root)]
#[skip(unless_sys_resource)]
fn raised_rlimits_on_priorities_are_not_inherited() {
    let said = attack_by(&mut payload_on_host("raised"));
    for (who, can) in [("child", "true"), ("program", "false"), ("allowed", "true")] {
        for what in ["real time", "nice"] {
            assert_eq!(said.get(&format!("{who} {what}")).trim_matches('"'), can, "{what} of the {who}");
        }
    }
}

/// A thread that spawns what an ordinary one has planned, once it has become preferred in one way.
fn plan_of_another_thread(args: &[String]) -> i32 {
    let plan = sandbox().plan(payload("tell_priorities")).unwrap();
    let process = libc::PRIO_PROCESS.into();
    match args[0].as_str() {
        "policy" => schedule(libc::SCHED_RR).unwrap(),
        "policy, reset" => schedule(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK).unwrap(),
        "nice" => drop(sys::numbers(libc::SYS_setpriority, &[process, 0, -5]).unwrap()),
        "io" => drop(sys::numbers(libc::SYS_ioprio_set, &[1, 0, REAL_TIME_IO]).unwrap()),
        _ => drop(sys::numbers(libc::SYS_setpriority, &[process, 0, 5]).unwrap()),
    }
    let spawned = plan.spawn().and_then(|mut child| child.wait());
    tell("error", spawned.map_or_else(|error| error.to_string(), |outcome| format!("success: {}", outcome.success())));
    0
}

#[apply(test)]
#[only(Root)]
fn a_plan_is_not_spawned_by_a_thread_that_is_preferred_in_another_way() {
    let ways = [
        ("policy", "a real-time scheduling policy"),
        ("nice", "a negative nice value"),
        ("io", "real-time input and output"),
        ("a higher nice value", "success: true"),
        ("policy, reset", "success: true"),
    ];
    for (way, expected) in ways {
        let output = host_output(payload_on_host("plan_of_another_thread").arg(way));
        let said = Attempts::parse(&output);
        assert!(said.get("error").contains(expected), "{way}: {output}");
    }
}

/// It takes this to raise a hard limit, and to exempt a process from the OOM killer.
fn unless_sys_resource() -> Option<String> {
    let lacks = || {
        let has = caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap_or(false);
        (!has).then(|| "root lacks CAP_SYS_RESOURCE here".into())
    };
    unless_root().or_else(lacks)
}

/// An administrator who exempts an ordinary user from the OOM killer.
fn exempted(_: &[String]) -> i32 {
    fs::write(OOM_SCORE_ADJ, "-500").unwrap();
    as_user("exempted_user");
    0
}

fn exempted_user(_: &[String]) -> i32 {
    let output = sandbox().output(payload("take_priorities")).unwrap();
    tell("gaps", output.outcome.enforcement.gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    tell("taken back", Attempts::parse(&text(&output.stdout)).get("oom"));
    0
}

/// Attack 56: the kernel lets a program return to the score that root has given to the caller. That can't be prevented
/// without CAP_SYS_RESOURCE, but said.
#[apply(test)]
#[only(Root)]
#[skip(unless_sys_resource)]
fn an_exemption_that_the_program_can_take_back_is_among_the_gaps() {
    let said = attack_by(&mut payload_on_host("exempted"));
    assert!(said.get("taken back").contains("true"));
    assert!(said.get("gaps").contains("oom_score_adj of -500"), "{}", said.get("gaps"));
}

#[apply(test)]
fn requested_priorities_are_the_programs() {
    let requested = sandbox().limits(Limits::new().nice(7).oom_score_adj(600));
    let said = attack(&requested, "tell_priorities", &[]);
    assert_eq!((said.get("nice"), said.get("oom")), ("7", "600"));
    if is_root() {
        let said = attack(&sandbox().limits(Limits::new().nice(-3)), "tell_priorities", &[]);
        assert_eq!(said.get("nice"), "-3");
    }
    if unless_sys_resource().is_none() {
        let said = attack(&sandbox().limits(Limits::new().oom_score_adj(-300)), "tell_priorities", &[]);
        assert_eq!(said.get("oom"), "-300");
    }
}

/// A caller whose negative nice value the kernel resets in its children.
fn reset_on_fork(_: &[String]) -> i32 {
    sys::numbers(libc::SYS_setpriority, &[libc::PRIO_PROCESS.into(), 0, -5]).unwrap();
    schedule(libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK).unwrap();
    tell("child", attack_on_host("tell_priorities", &[]).get("nice"));
    tell("program", attack(&sandbox().limits(Limits::new().nice(-5)), "tell_priorities", &[]).get("nice"));
    0
}

#[apply(test)]
#[only(Root)]
fn a_requested_nice_value_holds_with_reset_on_fork_too() {
    let said = attack_by(&mut payload_on_host("reset_on_fork"));
    assert_eq!((said.get("child"), said.get("program")), ("\"0\"", "\"-5\""));
}

/// `struct sched_attr` of 10 ms in 100 ms, with further flags (sched_setattr(2)).
fn set_deadlines(flags: u64) -> Result<(), nix::errno::Errno> {
    let words = [48 | (libc::SCHED_DEADLINE as u64) << 32, flags, 0, 10_000_000, 100_000_000, 100_000_000];
    let attributes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    let mut words = [sys::Word::Number(0), sys::Word::Bytes(&attributes), sys::Word::Number(0)];
    sys::call(libc::SYS_sched_setattr, &mut words).map(drop)
}

fn unless_deadlines() -> Option<String> {
    unless_root().or_else(|| {
        let refused = std::thread::spawn(|| set_deadlines(0)).join().unwrap().err();
        refused.map(|errno| format!("this machine gives no deadlines: {errno}"))
    })
}

/// A caller of the policy SCHED_DEADLINE, whose children the kernel refuses, or gives the ordinary policy.
fn with_deadlines(_: &[String]) -> i32 {
    let spawn = || sandbox().output(payload("tell_priorities"));
    set_deadlines(0).unwrap();
    tell("error", spawn().map_or_else(|error| error.to_string(), |output| format!("{:?}", output.outcome)));
    const RESET_ON_FORK: u64 = 1;
    set_deadlines(RESET_ON_FORK).unwrap();
    tell("policy", Attempts::parse(&text(&spawn().unwrap().stdout)).get("policy"));
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_deadlines)]
fn a_caller_with_a_deadline_policy_gets_an_error() {
    let said = attack_by(&mut payload_on_host("with_deadlines"));
    assert!(said.get("error").contains("SCHED_FLAG_RESET_ON_FORK"), "{}", said.get("error"));
    assert_eq!(said.get("policy").trim_matches('"'), "0");
}

#[apply(test)]
fn priorities_above_the_callers_are_an_error() {
    for limits in [Limits::new().nice(20), Limits::new().nice(-21), Limits::new().oom_score_adj(1001)] {
        let error = crate::support::refused(&sandbox().limits(limits));
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    }
    if !is_root() {
        for (limits, capability) in
            [(Limits::new().nice(-3), "CAP_SYS_NICE"), (Limits::new().oom_score_adj(-3), "CAP_SYS_RESOURCE")]
        {
            let error = crate::support::refused(&sandbox().limits(limits));
            assert!(crate::support::is_set_up(&error) && error.to_string().contains(capability), "{error}");
        }
    }
}
