//! Core dumps, which the kernel may pass to a program of the host.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stockade::{Limits, Root, Sandbox, Seccomp, Signal, Termination};

use crate::attacks::common::{attack, attempt, is_machine_of_tests, open_directory, sandbox, tell, unfiltered};
use crate::attacks::sys::{Word, call};
use crate::support::{at_most, is_root, payload, shared_dir, unless_idmapped_mounts, with_payload};

payloads![("cores", cores), ("crash", crash)];

/// Ends with a core. With an argument it first lowers the limit to 0.
fn crash(args: &[String]) -> i32 {
    if !args.is_empty() {
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        setrlimit(Resource::RLIMIT_CORE, 0, hard).unwrap();
    }
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGQUIT).unwrap();
    0
}

/// Tries to have a limit of cores that keeps none from a pipe: 0, which anybody may lower it to.
fn cores(_: &[String]) -> i32 {
    let soft = || getrlimit(Resource::RLIMIT_CORE).unwrap().0;
    let (before, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    tell("before", (before, hard));
    let core = i64::from(Resource::RLIMIT_CORE as u32);
    let limit = |soft: u64| [soft, hard].map(u64::to_ne_bytes);
    attempt("claimed", setrlimit(Resource::RLIMIT_CORE, 0, hard));
    attempt("lowered", (soft() == 0).then_some(()).ok_or(soft()));
    let _ = call(libc::SYS_setrlimit, &mut [Word::Number(0xdead << 32 | core), Word::Bytes(limit(0).as_flattened())]);
    let (own, none) = (i64::from(std::process::id()), limit(0));
    for pid in [0, own] {
        let words = &mut [Word::Number(pid), Word::Number(core), Word::Bytes(none.as_flattened())];
        let _ = call(libc::SYS_prlimit64, words);
    }
    attempt("lowered by its call", (soft() == 0).then_some(()).ok_or(soft()));
    tell("other limits", setrlimit(Resource::RLIMIT_NOFILE, 16, 16));
    0
}

/// Attack 18: A core dump. Where `core_pattern` is not for a test to change, that no pipe gets one follows from the
/// limit of 1, which core(5) has for that, and which the program can't be rid of.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn no_core_is_dumped_and_none_reaches_a_pipe() {
    let place = shared_dir();
    open_directory(place.path());
    let root = with_payload(Root::host()).bind_rw(place.path(), "/tmp/place");
    let sandbox = Sandbox::new().root(root);
    let ends = |sandbox: &Sandbox| sandbox.status(payload("crash").current_dir("/tmp/place")).unwrap().termination;
    let is_dumped = |core| Termination::signaled(Signal::QUIT, core);
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    assert!(hard > 1 << 20, "the host lets nobody have cores, so that nothing can be shown: {hard}");
    let large = Limits::new().rlimit(stockade::limits::Resource::Core, 1 << 28, 1 << 28);
    assert_eq!(ends(&sandbox.clone().limits(large)), is_dumped(true), "without the limit a core is dumped");
    fs::read_dir(place.path()).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    assert_eq!(ends(&sandbox), is_dumped(false));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

    let unfiltered = attack(&sandbox.clone().seccomp(Seccomp::unconfined()), "cores", &[]);
    assert_eq!(unfiltered.get("before"), "(1, 1)");
    unfiltered.assert_done(&["claimed", "lowered", "lowered by its call"]);
    for policy in [Seccomp::new(), Seccomp::container()] {
        let inside = attack(&sandbox.clone().seccomp(policy), "cores", &[]);
        // Programs that do so against leaks of their memory would end themselves else.
        inside.assert_done(&["claimed"]);
        inside.assert_refused(&["lowered", "lowered by its call"]);
        assert_eq!(inside.get("other limits"), "Ok(())");
    }
    if is_root() && is_machine_of_tests() {
        assert_no_pipe_gets_a_core();
    }
}

/// Has the kernel start a program for every core, also of other tests' programs: it is told the host name.
fn assert_no_pipe_gets_a_core() {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let place = shared_dir();
    let marker = place.path().join("cores");
    let before = fs::read(PATTERN).unwrap();
    fs::write(PATTERN, format!("|/usr/bin/touch {}/%h", place.path().display())).unwrap();
    let is_piped = |sandbox: &Sandbox, args: &[&str]| {
        let _ = sandbox.clone().hostname("cores").status(payload("crash").args(args)).unwrap();
        let end = Instant::now() + at_most(Duration::from_secs(1));
        while !marker.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(&marker).is_ok()
    };
    let lowered = is_piped(&unfiltered(&sandbox()), &["lower"]);
    let others = [is_piped(&unfiltered(&sandbox()), &[]), is_piped(&sandbox(), &[]), is_piped(&sandbox(), &["lower"])];
    fs::write(PATTERN, before).unwrap();
    assert!(lowered, "an unfiltered program has its core piped");
    assert_eq!(others, [false; 3]);
}
