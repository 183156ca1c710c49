//! Callbacks that decide system calls.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use stockade::seccomp::{Action, Decision, SystemCall};
use stockade::{Seccomp, Termination};

use crate::seccomp::calls::call;
use crate::seccomp::payloads::number;
use crate::seccomp::{MS, priority, succeeded, supervised, under};
use crate::support::{at_most, refused};
use stockade::ErrorKind;

payloads![("asking_threads", threads), ("changing", changing)];

fn asking(call: &'static str) -> Seccomp {
    Seccomp::new().on([call], Action::Notify)
}

#[apply(test)]
fn a_callback_decides_each_call() {
    let calls = ["getpriority:0,0", "getpriority:0,1", "getpriority:0,2", "getpriority:0,3"];
    let child = supervised(asking("getpriority"), "calls", &calls, |call| match call.args()[1] {
        0 => Decision::Allow,
        1 => Decision::Errno(stockade::Errno::EXDEV),
        2 => Decision::Return(1 << 40),
        _ => Decision::Errno(stockade::Errno::new(0)),
    });
    let (given, outcome) = succeeded(child);
    assert_eq!(given, [&priority(), "EXDEV", &(1u64 << 40).to_string(), "0"]);
    assert_eq!(outcome.violations, [], "the callback knows what it has refused");
}

/// Error numbers are 1 to 4095; with another one a program would take its call for done.
#[apply(test)]
fn impossible_results_are_refused() {
    let calls: Vec<String> = (0..4).map(|which| format!("getpriority:0,{which}")).collect();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let child = supervised(asking("getpriority"), "calls", &calls, |call| {
        let number = [-libc::EPERM, 4096, i32::MIN, i32::MAX][call.args()[1] as usize];
        Decision::Errno(stockade::Errno::new(number))
    });
    assert_eq!(succeeded(child).0, ["ENOSYS"; 4]);
}

#[apply(test)]
fn a_callback_sees_the_process_and_the_arguments() {
    let (sender, seen) = mpsc::channel();
    let args = u64::MAX - 5..=u64::MAX;
    let said: Vec<String> = args.clone().map(|arg| arg.to_string()).collect();
    let child = supervised(asking("getppid"), "calls", &[&format!("getppid:{}", said.join(","))], move |call| {
        sender.send((call.call(), call.args(), call.pid(), format!("{call:?}"))).expect("a receiver");
        Decision::Return(7)
    });
    let id = child.pid().number();
    assert_eq!(succeeded(child).0, ["7"]);
    let (call, given, pid, shown) = seen.recv().expect("a call");
    assert_eq!((call.name(), call.number()), (Some("getppid"), libc::SYS_getppid as i32));
    assert_eq!((given.to_vec(), pid.number()), (args.collect(), id));
    assert!(shown.starts_with("getppid[fffffffffffffffa, ") && shown.ends_with(&format!(" of {id}")), "{shown}");
    assert!(seen.recv().is_err(), "it is asked once");
}

#[apply(test)]
fn a_callback_can_kill_the_sandbox() {
    let policy = asking("mkdirat");
    let child = supervised(policy, "calls", &["mkdirat:cwd,/tmp/a,448", "mkdirat:cwd,/tmp/b,448"], |call| {
        if call.string(1).is_ok_and(|path| path == b"/tmp/a") { Decision::Allow } else { Decision::Kill }
    });
    let outcome = child.wait_with_output().expect("an outcome").outcome;
    assert_eq!(outcome.termination, Termination::Syscall(SystemCall::new(libc::SYS_mkdirat as i32)));
    let calls: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
    assert_eq!(calls, ["mkdirat(\"/tmp/b\")"]);
}

#[apply(test)]
fn calls_without_notify_reach_no_callback() {
    let policy = Seccomp::new().deny(["getppid"]).when(
        "getpriority",
        [stockade::seccomp::Condition::qword(1, stockade::seccomp::Comparison::Equal(5))],
        Action::Notify,
    );
    let (sender, seen) = mpsc::channel();
    let calls = ["getppid", "getpriority:0,0", "getpriority:0,5", "getpgid"];
    let child = supervised(policy.record(), "calls", &calls, move |call| {
        sender.send(call.args()[1]).expect("a receiver");
        Decision::Return(5)
    });
    let (given, outcome) = succeeded(child);
    assert_eq!(given[..3], ["EPERM", &priority(), "5"]);
    assert_eq!(seen.iter().collect::<Vec<_>>(), [5]);
    // What is refused without being asked about is noted.
    assert_eq!(outcome.violations.iter().map(|it| it.call.name()).collect::<Vec<_>>(), [Some("getppid")]);
}

const THREADS: u64 = 32;
const CALLS: u64 = 50;

/// All at once, each with numbers of its own: each call must get its own answer.
fn threads(_: &[String]) -> i32 {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for round in 0..CALLS {
                    let own = thread * CALLS + round;
                    assert_eq!(call(number("getppid"), [own, 0, 0, 0, 0, 0]), Ok(own as i64 + 1));
                }
            });
        }
    });
    println!("each has its own");
    0
}

#[apply(test)]
fn many_threads_wait_at_once() {
    let (sender, seen) = mpsc::channel();
    let child = supervised(asking("getppid"), "asking_threads", &[], move |call| {
        sender.send((call.args()[0], call.pid())).expect("a receiver");
        Decision::Return(call.args()[0] as i64 + 1)
    });
    assert_eq!(succeeded(child).0, ["each has its own"]);
    let seen: Vec<_> = seen.iter().collect();
    assert_eq!(seen.len() as u64, THREADS * CALLS);
    let numbers: BTreeSet<_> = seen.iter().map(|(number, _)| number).collect();
    let threads: BTreeSet<_> = seen.iter().map(|(_, thread)| thread).collect();
    assert_eq!((numbers.len() as u64, threads.len() as u64), (THREADS * CALLS, THREADS));
}

/// A path that another thread changes for ever, from `/tmp/good` to `/tmp/evil` and back.
fn changing(_: &[String]) -> i32 {
    static PATHS: [[u8; 10]; 2] = [*b"/tmp/good\0", *b"/tmp/evil\0"];
    static PATH: [AtomicU8; 10] = [const { AtomicU8::new(0) }; 10];
    static OVER: AtomicBool = AtomicBool::new(false);
    let put = |path: &[u8]| path.iter().zip(&PATH).for_each(|(byte, place)| place.store(*byte, Ordering::Relaxed));
    put(&PATHS[0]);
    let changer = thread::spawn(move || {
        let mut round = 0;
        while !OVER.load(Ordering::Relaxed) {
            thread::sleep(MS);
            put(&PATHS[round % 2]);
            round += 1;
        }
    });
    let made = call(number("mkdirat"), [libc::AT_FDCWD as u64, PATH.as_ptr() as u64, 0o700, 0, 0, 0]);
    OVER.store(true, Ordering::Relaxed);
    changer.join().expect("a thread");
    let given = if made == Err(Errno::EPERM) { "refused" } else { "made" };
    println!("{given} {}", std::path::Path::new("/tmp/evil").exists());
    0
}

/// What holds is what is in the registers, and that a refused call is not made. What `Decision::Allow` lets the kernel
/// do is what the memory says by then.
#[apply(test)]
fn a_path_may_change_after_it_was_read() {
    let policy = || Seccomp::new().on(["mkdirat"], Action::Notify);
    let path_is = |call: &stockade::seccomp::Notification<'_>, path: &[u8]| call.string(1).is_ok_and(|it| it == path);
    let wait_for = move |call: &stockade::seccomp::Notification<'_>, path: &[u8]| {
        let start = std::time::Instant::now();
        while !path_is(call, path) {
            assert!(start.elapsed() < at_most(20_000 * MS), "the path never changes");
        }
    };
    // The race is won as often as it takes.
    let won = (0..20).any(|_| {
        let child = supervised(policy(), "changing", &[], move |call| {
            let registers = call.args();
            wait_for(call, b"/tmp/good");
            wait_for(call, b"/tmp/evil");
            assert_eq!(call.args(), registers);
            Decision::Allow
        });
        succeeded(child).0 == ["made true"]
    });
    assert!(won, "a check of the path would keep a program from it");
    let child = supervised(policy(), "changing", &[], move |call| {
        wait_for(call, b"/tmp/good");
        wait_for(call, b"/tmp/evil");
        Decision::Errno(stockade::Errno::EPERM)
    });
    assert_eq!(succeeded(child).0, ["refused false"]);
}

#[apply(test)]
fn a_policy_that_asks_takes_a_callback() {
    let sandbox = under(asking("getppid"));
    let error = refused(&sandbox);
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration);
    let (what, remedy) = crate::support::words(&error);
    assert_eq!(what, "the seccomp policy has calls for a callback (Action::Notify), but there is no callback");
    assert_eq!(remedy, "use Sandbox::spawn_supervised");
    // A callback that nothing is asked of is none's harm.
    let mut child =
        under(Seccomp::new()).spawn_supervised(stockade::Command::new("true"), |_| Decision::Kill).expect("a child");
    assert!(child.wait().expect("an outcome").success());
}
