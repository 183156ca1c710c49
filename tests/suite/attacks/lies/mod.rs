//! Verdicts: programs that try to be judged other than as they deserve, or to have others judged so, and to have more
//! used than is counted. Each verdict is the one that the kernel's own evidence gives, and each figure is right or
//! marked as a lower bound.

mod cpu;
mod memory;
mod output;
mod pids;
mod time;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use stockade::seccomp::{Action, SystemCall};
use stockade::{Cgroup, Command, Limits, Output, Sandbox, Seccomp, Signal, Termination};

use crate::attacks::common::{alone, sandbox, unfiltered};
use crate::attacks::sys::{self, Word, numbers};
use crate::support::{
    at_most, payload, payload_on_host, sh, text, unless_idmapped_mounts, unless_pivot_root, unless_root, unless_user,
};
use cpu::{burn_and_exit, burn_apart, busy_child, caller_without_descriptors};
use memory::{fill_cache, use_memory};
use output::{write_all_by, write_late};
use pids::{caller_of_reused_pids, unless_pids_can_be_chosen};
use time::{exit_after, interrupted_caller, stop};

payloads![
    ("lie_by_signal", lie_by_signal),
    ("lie_by_child", lie_by_child),
    ("make_the_call", make_the_call),
    ("exit_after", exit_after),
    ("interrupted_caller", interrupted_caller),
    ("stop", stop),
    ("burn_apart", burn_apart),
    ("burn_and_exit", burn_and_exit),
    ("busy_child", busy_child),
    ("caller_without_descriptors", caller_without_descriptors),
    ("use_memory", use_memory),
    ("fill_cache", fill_cache),
    ("write_all_by", write_all_by),
    ("write_late", write_late),
    ("caller_of_reused_pids", caller_of_reused_pids),
    ("start_many", start_many),
];

const MS: Duration = Duration::from_millis(1);
const MB: u64 = 1 << 20;

fn with(limits: Limits) -> Sandbox {
    sandbox().limits(limits)
}

/// A sandbox whose use is counted.
fn counted() -> Sandbox {
    sandbox().cgroup(Cgroup::new()).limits(Limits::new().wall_time(at_most(60_000 * MS)))
}

fn run(sandbox: &Sandbox, name: &str, args: &[&str]) -> Output {
    sandbox.output(payload(name).args(args)).unwrap_or_else(|error| panic!("{name} {args:?}: {error}"))
}

fn verdict(sandbox: &Sandbox, name: &str, args: &[&str]) -> Termination {
    run(sandbox, name, args).outcome.termination
}

fn signaled(signal: i32) -> Termination {
    Termination::signaled(Signal::new(signal).expect("a signal"), false)
}

/// A reason to skip what needs groups that count memory, CPU time and processes.
fn unless_groups() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let try_one = || {
        let cgroup = Cgroup::new().memory_max(1 << 30).pids_max(1000).cpu_weight(100);
        let error = Sandbox::new().cgroup(cgroup).plan(Command::new("true")).err()?;
        Some(format!("this user may make no cgroup here: {error}"))
    };
    REASON.get_or_init(try_one).clone()
}

fn unless_user_without_groups() -> Option<String> {
    let has = || unless_groups().is_none().then(|| "this user may make cgroups".to_owned());
    unless_user().or_else(has)
}

fn unless_groups_and_idmapped_mounts() -> Option<String> {
    unless_groups().or_else(unless_idmapped_mounts)
}

/// Groups below its own are those of v1 alone that a program can limit: on v2 its group is given no controllers.
fn unless_v1_root() -> Option<String> {
    let v2 = || (!is_v1()).then(|| "on cgroup v2 a program is given no controllers for groups of its own".to_owned());
    unless_root().or_else(v2).or_else(unless_pivot_root)
}

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

fn number(arg: &str) -> u64 {
    arg.parse().expect("a number")
}

/// A child that does something and exits; its pid.
fn fork(flags: i32, work: impl FnOnce()) -> Pid {
    match sys::clone(flags).expect("a child") {
        0 => {
            work();
            sys::exit(0)
        }
        pid => Pid::from_raw(pid as i32),
    }
}

/// What a clock says.
fn clock(id: ClockId) -> Duration {
    clock_gettime(id).expect("a clock").into()
}

/// What seccomp sends with SIGSYS (sigaction(2), `SYS_SECCOMP`).
const SYS_SECCOMP: i32 = 1;
const SWAPON: i64 = libc::SYS_swapon;

fn lie_by_signal(args: &[String]) -> i32 {
    let (pid, signal) = (std::process::id().into(), args[1].parse().unwrap());
    let sent = match args[0].as_str() {
        "kill" => numbers(libc::SYS_kill, &[pid, signal]),
        "tgkill" => numbers(libc::SYS_tgkill, &[pid, pid, signal]),
        // siginfo_t {si_signo, si_errno, si_code, …, _call_addr, _syscall, _arch}
        "queue" => {
            let words = [signal as i32, libc::ENOSYS, SYS_SECCOMP, 0, 0, 0, SWAPON as i32, 0];
            let mut info = [0; 128];
            info[..32].copy_from_slice(words.map(i32::to_ne_bytes).as_flattened());
            let mut words = [Word::Number(pid), Word::Number(signal), Word::Bytes(&info)];
            sys::call(libc::SYS_rt_sigqueueinfo, &mut words)
        }
        other => panic!("{other}"),
    };
    println!("{sent:?}");
    0
}

fn make_the_call(_: &[String]) -> i32 {
    println!("{:?}", numbers(SWAPON, &[0, 0]));
    0
}

/// Has a child that ends by a signal, and exits with 0.
fn lie_by_child(args: &[String]) -> i32 {
    let child = fork(libc::SIGCHLD, || {
        let _ = numbers(libc::SYS_kill, &[std::process::id().into(), args[0].parse().unwrap()]);
    });
    println!("{:?}", waitpid(child, None).unwrap());
    0
}

/// Signals by which a limit, the kernel or a filter ends programs.
const ENDING: [i32; 5] = [libc::SIGKILL, libc::SIGXCPU, libc::SIGXFSZ, libc::SIGSYS, libc::SIGTERM];

/// Attack 75: an exit status as a shell has it for a killed program; signals as limits and the kernel send them, by
/// each call that sends one; the same to a child.
#[apply(test)]
fn no_exit_status_and_no_signal_of_its_own_lies() {
    let _alone = alone();
    let limits = || Limits::new().wall_time(at_most(60_000 * MS)).stdout_max(MB).stderr_max(MB);
    let mut sandboxes = vec![with(limits())];
    if unless_groups().is_none() {
        let cgroup = Cgroup::new().memory_max(256 * MB).pids_max(100);
        sandboxes.push(with(limits().cpu_time(60_000 * MS).idle_timeout(at_most(60_000 * MS))).cgroup(cgroup));
    }
    for sandbox in &sandboxes {
        for signal in ENDING {
            let status = 128 + signal;
            assert_eq!(sh(sandbox, &format!("exit {status}")).outcome.termination, Termination::Exited(status));
            for how in ["kill", "tgkill", "queue"] {
                let args = [how, &signal.to_string()];
                assert_eq!(verdict(sandbox, "lie_by_signal", &args), signaled(signal), "{how}");
            }
            let output = run(sandbox, "lie_by_child", &[&signal.to_string()]);
            assert_eq!(output.outcome.termination, Termination::Exited(0));
            assert!(text(&output.stdout).contains("Signaled"), "{}", text(&output.stdout));
        }
    }
}

/// Attack 75: SIGSYS that says that seccomp has sent it for a call. The filter's own is by the thread that decides
/// calls.
#[apply(test)]
fn no_forged_system_call_lies() {
    let args = ["queue", &libc::SIGSYS.to_string()];
    let naive = payload_on_host("lie_by_signal").args(args).output().expect("a payload").status;
    assert_eq!(naive.signal(), Some(libc::SIGSYS), "who judges by the signal takes it for that of a filter");

    let killing = sandbox().seccomp(Seccomp::deny_list().on(["swapon"], Action::Kill).record());
    for sandbox in [killing.clone(), sandbox(), unfiltered(&sandbox())] {
        let outcome = run(&sandbox, "lie_by_signal", &args).outcome;
        assert_eq!((outcome.termination, outcome.violations), (signaled(libc::SIGSYS), vec![]));
    }
    // Nor does who makes such a call go for one who has not.
    let call = "/payload --payload make_the_call";
    let ended = Termination::Syscall(SystemCall::new(SWAPON as i32));
    for script in ["{}; exit 0", "{} & wait; exit 0", "({} &); sleep 20"].map(|script| script.replace("{}", call)) {
        let output = sh(&killing, &script);
        assert_eq!(output.outcome.termination, ended, "{script}: {}", text(&output.stderr));
    }
}

/// Starts up to so many children, all at once; each that is refused is tried once.
fn start_many(args: &[String]) -> i32 {
    let (mut over, alive) = std::io::pipe().unwrap();
    let start = |_| sys::clone(libc::SIGCHLD);
    for child in (0..number(&args[0])).map(start) {
        if child == Ok(0) {
            // Until the last one is started.
            let _ = nix::unistd::close(alive.as_raw_fd());
            let _ = over.read(&mut [0]);
            sys::exit(0);
        }
        assert!(matches!(child, Ok(_) | Err(Errno::EAGAIN)), "{child:?}");
    }
    drop(alive);
    while waitpid(None, None).is_ok() {}
    0
}

/// Attack 75: each figure is what the program has used, or says that it may be less.
#[apply(test)]
fn no_figure_lies() {
    let _alone = alone();
    let start = Instant::now();
    let usage = run(&sandbox(), "exit_after", &["200"]).outcome.usage;
    assert!((200 * MS..=start.elapsed()).contains(&usage.wall_time), "{usage:?}");
    for count in [usage.max_rss, usage.minor_faults, usage.voluntary_switches] {
        assert!(count.is_some_and(|count| count.value > 0 && count.source.is_lower_bound()), "{usage:?}");
    }
    if unless_groups().is_some() {
        return;
    }

    let usage = run(&counted(), "use_memory", &["child", "40", "exit"]).outcome.usage;
    if let Some(peak) = usage.memory_peak {
        assert!((40 * MB..60 * MB).contains(&peak.value) && !peak.source.is_lower_bound(), "{peak:?}");
        assert!(usage.max_rss.unwrap().value > 40 * MB, "{usage:?}");
    }
    let usage = run(&counted(), "start_many", &["8"]).outcome.usage;
    assert_eq!(usage.pids_denied.map_or(0, |refused| refused.value), 0);
    assert!(usage.pids_peak.is_none_or(|peak| peak.value == 9), "{usage:?}");
    let limited = counted().cgroup(Cgroup::new().pids_max(4));
    let usage = run(&limited, "start_many", &["8"]).outcome.usage;
    assert_eq!(usage.pids_denied.expect("a count").value, 5);
    assert!(usage.pids_peak.is_none_or(|peak| peak.value == 4), "{usage:?}");
    // What was written to a file is not on a disk yet, whoever counts.
    assert!(usage.written_bytes.is_none_or(|bytes| bytes.source.is_lower_bound()), "{usage:?}");
}
