//! Callers with a life of their own: signals, threads, limits and descriptors that a spawn must get along with, and
//! callers that are killed. Each is a process of its own, a payload of this binary that runs outside of any sandbox.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Host;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{self, at_most, children, descriptors, on_host, rounds, text};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as NixSignal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::ForkResult;
use stockade::ErrorKind;
use stockade::{Cgroup, Command, Identity, Namespaces, Outcome, Root, Sandbox, Seccomp, Signal, Stdio, Termination};

payloads![
    ("umask_777", caller_with_umask_777),
    ("works", |_| works()),
    ("timer", caller_with_a_timer),
    ("handler", caller_with_handlers),
    ("reaper", caller_that_reaps),
    ("pipe", caller_that_sigpipe_ends),
    ("sub-ids", caller_with_sub_ids),
    ("closed", caller_with_closed_streams),
    ("at_the_descriptor_limit", caller_without_descriptors),
    ("at_the_process_limit", caller_at_its_process_limit),
    ("many_descriptors", caller_with_many_descriptors),
    ("homeless", caller_without_directory),
    ("contained", caller_that_is_root_of_a_user_namespace),
    ("spawning_threads", caller_with_threads),
    ("forker", caller_that_forks),
    ("child_keeps_all", caller_whose_child_keeps_all),
    ("holder_of_a_tree", caller_with_a_tree),
    ("spawner", caller_that_spawns_on_and_on),
    ("undertaker", undertaker),
];

/// A caller whose forked child drops its copy of a running `Child`, and outlives the sandbox.
fn caller_that_forks(_: &[String]) -> i32 {
    let all = Namespaces::all() - Namespaces::TIME;
    let file = tempfile::tempfile().expect("a file");
    for (number, namespaces) in (0..).zip([all, all - Namespaces::PID]) {
        let identity = match support::is_root() {
            true => Identity::new().host_ids(1_600_002_000 + number, 1),
            false => Identity::new(),
        };
        // A thread copies what is written to a file, and another one hears of calls that are denied.
        let sandbox = Sandbox::new().namespaces(namespaces).identity(identity).seccomp(Seccomp::new().record());
        let mut command = script("sleep 0.3; exit 5");
        command.stdout(file.try_clone().expect("a copy"));
        let mut child = sandbox.spawn(&command).expect("a sandbox");
        // SAFETY: this process has threads of the crate's alone, which hold no lock that the child takes.
        match unsafe { nix::unistd::fork() }.expect("a child") {
            ForkResult::Child => {
                drop(child);
                thread::sleep(Duration::from_secs(1000));
                return 1;
            }
            ForkResult::Parent { child: forked } => {
                let outcome = child.wait().expect("an outcome");
                assert_eq!(outcome.termination, Termination::Exited(5), "{namespaces:?}");
                drop(child);
                let again = sandbox.status(&command).expect("its host ID is free again");
                assert_eq!(again.termination, Termination::Exited(5), "{namespaces:?}");
                assert_eq!(waitpid(forked, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive), "the child lives");
                nix::sys::signal::kill(forked, NixSignal::SIGKILL).expect("a signal");
                waitpid(forked, None).expect("its end");
            }
        }
    }
    0
}

/// A caller whose forked child keeps a copy of a running `Child`, when the program leaves a process behind that the
/// filter still decides about.
fn caller_whose_child_keeps_all(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    let mut command = script("setsid sleep 20.0625 </dev/null >/dev/null 2>&1 & exit 5");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = sandbox.seccomp(Seccomp::new().record()).spawn(&command).expect("a program");
    // SAFETY: this process has threads of the crate's alone, which hold no lock that the child takes.
    match unsafe { nix::unistd::fork() }.expect("a child") {
        ForkResult::Child => {
            thread::sleep(Duration::from_secs(10));
            // SAFETY: it ends this process, without what is to be dropped.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child: forked } => {
            let started = Instant::now();
            let outcome = child.wait().expect("an outcome");
            assert_eq!(outcome.termination, Termination::Exited(5));
            assert!(started.elapsed() < at_most(Duration::from_secs(5)), "{:?}", started.elapsed());
            nix::sys::signal::kill(forked, NixSignal::SIGKILL).expect("a signal");
            waitpid(forked, None).expect("its end");
        }
    }
    support::processes(|line| line.contains("20.0625")).into_iter().for_each(|pid| {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), NixSignal::SIGKILL);
    });
    0
}

#[apply(test)]
fn a_forked_child_delays_no_outcome() {
    on_host(&[], "child_keeps_all", &[]);
}

#[apply(test)]
fn a_forked_child_kills_no_sandbox_of_its_parent() {
    on_host(&[], "forker", &[]);
}

/// A shell that runs a script.
fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// A sandbox without namespaces, whose helper stays.
fn bare() -> Sandbox {
    Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit())
}

/// What every caller must be able to do, whatever its life is like; nothing of it stays.
fn works() -> i32 {
    let (before, before_children) = (descriptors(), children());
    for sandbox in [Sandbox::new(), bare()] {
        let output = sandbox.output(script("echo out; echo err >&2; exit 3")).expect("a program");
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
        assert_eq!(output.outcome.termination, Termination::Exited(3));

        let termination = |script_text| sandbox.output(script(script_text)).expect("a program").outcome.termination;
        assert_eq!(termination("kill -TERM $$"), Termination::signaled(Signal::TERM, false));
        assert_eq!(termination("sleep 0.01 & wait $!"), Termination::Exited(0), "it can wait for its own children");

        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = sandbox.spawn(&command).expect("cat");
        child.stdin.take().expect("its input").write_all(b"through pipes").expect("a write");
        assert_eq!(text(&child.wait_with_output().expect("its output").stdout), "through pipes");

        let mut child = sandbox.spawn(&command).expect("cat");
        assert_eq!(child.try_wait().expect("no end"), None);
        child.kill().expect("a kill");
        assert_eq!(child.wait().expect("the end").termination, Termination::Killed);
        drop(sandbox.spawn(&command).expect("cat"));

        let error = sandbox.spawn(Command::new("no such program")).expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert_eq!((descriptors(), children()), (before, before_children), "nothing stays");
    0
}

static ALARMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// Handles a signal by counting it; calls that it interrupts fail with EINTR.
fn handle(signal: NixSignal) {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler adds to an atomic number, which is safe in any signal handler.
    unsafe { sigaction(signal, &action) }.expect("a handler");
}

/// A caller that gets SIGALRM each millisecond, while it spawns and while it waits.
fn caller_with_a_timer(_: &[String]) -> i32 {
    handle(NixSignal::SIGALRM);
    let time = libc::timeval { tv_sec: 0, tv_usec: at_most(Duration::from_millis(1)).as_micros() as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the call reads the structure, and writes to none.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    let before = ALARMS.load(Ordering::Relaxed);
    for _ in 0..rounds(30) {
        works();
    }
    let outcome = Sandbox::new().status(Command::new("sleep").arg("0.1")).unwrap();
    assert!(outcome.success(), "the program has no timer: {outcome}");
    assert!(ALARMS.load(Ordering::Relaxed) - before > 100, "the signals came");
    0
}

#[apply(test)]
fn a_timer_signal_every_millisecond_disturbs_no_spawn() {
    on_host(&[], "timer", &[]);
}

#[apply(test)]
fn blocked_signals_disturb_no_spawn() {
    on_host(&["env", "--block-signal=ALRM"], "works", &[]);
    on_host(&["env", "--block-signal=CHLD"], "works", &[]);
    on_host(&["env", "--block-signal"], "works", &[]);
}

/// Whether the kernel keeps the status of a process for the holder of its pidfd, whoever waited for it.
fn kernel_keeps_status() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[apply(test)]
fn ignored_signals_disturb_no_spawn() {
    on_host(&["env", "--ignore-signal=ALRM"], "works", &[]);
    if kernel_keeps_status() {
        on_host(&["env", "--ignore-signal=CHLD"], "works", &[]);
        on_host(&["env", "--ignore-signal"], "works", &[]);
    } else {
        println!("before Linux 6.15 a caller that ignores SIGCHLD gets no status");
    }
}

/// A caller that handles SIGCHLD and SIGALRM, and blocks neither.
fn caller_with_handlers(_: &[String]) -> i32 {
    handle(NixSignal::SIGALRM);
    handle(NixSignal::SIGCHLD);
    let before = ALARMS.load(Ordering::Relaxed);
    works();
    assert!(ALARMS.load(Ordering::Relaxed) > before, "the caller is told of its children");
    0
}

#[apply(test)]
fn handled_signals_disturb_no_spawn() {
    on_host(&[], "handler", &[]);
}

/// A caller that a write to a closed pipe ends, as one that is not a Rust program is.
fn caller_that_sigpipe_ends(_: &[String]) -> i32 {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no handler.
    unsafe { sigaction(NixSignal::SIGPIPE, &default) }.expect("sigaction");
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..20 {
        // One that is only written to, so that a thread writes to it for the program.
        let file = File::create(directory.path().join("output")).expect("a file");
        let mut command = Command::new("echo");
        command.arg("hello").stdout(file.try_clone().expect("a descriptor")).stderr(file);
        assert!(Sandbox::new().status(&command).expect("a sandbox").success());
    }
    0
}

/// The thread that copies output to a file may have ended when it is told to.
#[apply(test)]
fn no_sigpipe_reaches_the_caller() {
    on_host(&[], "pipe", &[]);
}

/// A caller in which another thread waits for whichever child ends.
fn caller_that_reaps(_: &[String]) -> i32 {
    static REAPED: AtomicU32 = AtomicU32::new(0);
    thread::spawn(|| {
        loop {
            match waitpid(None, None) {
                Ok(_) => _ = REAPED.fetch_add(1, Ordering::Relaxed),
                Err(_) => thread::sleep(Duration::from_micros(50)),
            }
        }
    });
    let count = if kernel_keeps_status() { rounds(20) } else { 20 };
    for _ in 0..count {
        if kernel_keeps_status() {
            works();
        } else {
            match Sandbox::new().status(script("exit 3")) {
                Ok(outcome) => assert_eq!(outcome.termination, Termination::Exited(3)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::StatusLost),
            }
        }
    }
    assert!(REAPED.load(Ordering::Relaxed) > 0, "it took some");
    0
}

#[apply(test)]
fn a_caller_that_waits_for_any_child_disturbs_no_spawn() {
    on_host(&[], "reaper", &[]);
}

fn unless_user_with_sub_ids() -> Option<String> {
    let name = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    let has = |file| {
        let (text, name) = (fs::read_to_string(file).ok()?, name.as_deref()?);
        text.lines().any(|line| line.split(':').next() == Some(name)).then_some(())
    };
    let ready =
        Path::new("/usr/bin/newuidmap").exists() && has("/etc/subuid").is_some() && has("/etc/subgid").is_some();
    support::unless_user().or_else(|| (!ready).then(|| "it takes newuidmap and sub-ids".into()))
}

fn ignores_sigchld() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let ignored = u64::from_str_radix(support::field(&status, "SigIgn").trim(), 16).expect("a mask");
    ignored & 1 << (libc::SIGCHLD - 1) != 0
}

/// A caller whose id maps are written by another program.
fn caller_with_sub_ids(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().identity(Identity::new().sub_ids());
    let mut command = script("wc -l </proc/self/uid_map; exit 3");
    let mut child = sandbox.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped())).expect("a sandbox");
    let mut lines = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut lines).expect("its output");
    assert!(lines.trim().parse::<u32>().expect("a number") > 1, "{lines:?}");
    match child.wait() {
        Err(error) if ignores_sigchld() && !kernel_keeps_status() => assert_eq!(error.kind(), ErrorKind::StatusLost),
        outcome => assert_eq!(outcome.expect("its end").termination, Termination::Exited(3)),
    }
    0
}

#[apply(test)]
#[only(User)]
#[skip(unless_user_with_sub_ids)]
fn sub_ids_are_mapped_in_a_caller_that_ignores_sigchld() {
    on_host(&[], "sub-ids", &[]);
    on_host(&["env", "--ignore-signal=CHLD"], "sub-ids", &[]);
}

/// A caller that has closed some of its standard streams.
fn caller_with_closed_streams(args: &[String]) -> i32 {
    // Where panics are told, since standard error may be closed or be something else.
    let said = fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(100)).expect("a copy of standard error");
    let said = Path::new("/proc/self/fd").join(said.to_string());
    std::panic::set_hook(Box::new(move |info| {
        let told = File::options().append(true).open(&said).and_then(|mut file| writeln!(file, "{info}"));
        drop(told);
    }));
    let closed: Vec<i32> = args.iter().map(|number| number.parse().expect("a number")).collect();
    for &number in &closed {
        nix::unistd::close(number).expect("it was open");
    }
    works();
    for sandbox in [Sandbox::new(), bare()] {
        for &number in &closed {
            // An inherited stream that is not there is /dev/null, whatever the launch has opened in its place.
            let is_null = format!("test /dev/fd/{number} -ef /dev/null && ! read line");
            let mut command = script(&is_null);
            let outcome = sandbox.status(&command).expect("inherited streams");
            assert!(outcome.success(), "stream {number} of {closed:?}, {outcome}");
            // The others are piped or null: the order in which they are opened does not matter.
            for stdio in [Stdio::piped(), Stdio::null()] {
                for other in [0, 1, 2].into_iter().filter(|&other| other != number) {
                    match other {
                        0 => command.stdin(stdio.clone()),
                        1 => command.stdout(stdio.clone()),
                        _ => command.stderr(stdio.clone()),
                    };
                }
                let outcome = sandbox.status(&command).expect("mixed streams");
                assert!(outcome.success(), "stream {number} of {closed:?} beside {stdio:?}, {outcome}");
            }
        }
    }
    for &number in &closed {
        assert_eq!(fcntl_of(number), Err(Errno::EBADF), "{number} is closed as it was");
    }
    0
}

/// Whether a number is that of an open descriptor.
fn fcntl_of(number: i32) -> Result<(), Errno> {
    let open = descriptors().iter().any(|(open, _)| *open == number.to_string());
    if open { Ok(()) } else { Err(Errno::EBADF) }
}

#[apply(test)]
fn standard_streams_may_be_closed() {
    let all = [&["0"][..], &["1"], &["2"], &["0", "1"], &["1", "2"], &["0", "2"], &["0", "1", "2"]];
    for closed in support::sample(all) {
        on_host(&[], "closed", closed);
    }
}

/// A caller that has few descriptors left, one more each time.
fn caller_without_descriptors(_: &[String]) -> i32 {
    let shared = support::shared_dir();
    let with_binds = Root::empty().bind("/usr", "/usr").bind("/bin", "/bin").bind_rw(shared.path(), "/out").dev("/dev");
    let with_binds = ["/lib", "/lib64"].into_iter().fold(with_binds, |root, path| root.bind(path, path));
    let sandboxes = [
        ("the default", Sandbox::new()),
        ("with binds", Sandbox::new().root(with_binds)),
        ("bare", bare()),
        ("with the processes of the host", Sandbox::new().namespaces(Namespaces::all() - Namespaces::PID)),
        ("with a cgroup", Sandbox::new().cgroup(Cgroup::new().pids_max(64).freezable())),
    ];
    // Not everybody may create one.
    let can_group = sandboxes[4].1.status(script("true")).is_ok();
    let sandboxes = &sandboxes[..if can_group { 5 } else { 4 }];
    let mut piped = script("true");
    piped.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut terminal = script("true");
    terminal.pty(24, 80);
    let mut unclear = vec![];
    let commands = [("piped", piped), ("terminal", terminal), ("null", script("true"))];
    let each = sandboxes.iter().flat_map(|sandbox| commands.iter().map(move |command| (sandbox, command)));
    for ((name, sandbox), (kind, command)) in support::sample(each) {
        unclear.extend(scarcity(sandbox, command).into_iter().map(|error| format!("{name}, {kind}: {error}")));
    }
    assert!(unclear.is_empty(), "errors that don't say RLIMIT_NOFILE:\n{}", unclear.join("\n"));
    let own = format!("-{}", std::process::id());
    // On v2 the caller itself is moved to a leaf.
    let is_left = |path: &str| path.ends_with(&own) && !path.contains("/stockade-caller-");
    let groups =
        std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", "stockade-*"]).output().expect("find");
    let left: Vec<String> = text(&groups.stdout).lines().filter(|path| is_left(path)).map(str::to_owned).collect();
    assert!(left.is_empty(), "cgroups are left: {left:?}");
    0
}

/// Spawns with no descriptor left, with one, and so on until it succeeds; the errors that don't name the limit.
fn scarcity(sandbox: &Sandbox, command: &Command) -> Vec<String> {
    let before = descriptors();
    let mut unclear = vec![];
    for free in 0.. {
        let null = File::open("/dev/null").expect("/dev/null");
        let mut fill: Vec<File> = std::iter::from_fn(|| null.try_clone().ok()).collect();
        assert!(free < fill.len(), "it fails with {free} descriptors left: {:?}", unclear.last());
        fill.truncate(fill.len() - free);
        let result = sandbox.spawn(command);
        drop((fill, null));
        let error = match result {
            Ok(mut child) => {
                assert!(child.wait().expect("the end").success());
                drop(child);
                assert_eq!((descriptors(), children()), (before, vec![]));
                return unclear;
            }
            Err(error) => error,
        };
        assert_eq!((descriptors(), children()), (before.clone(), vec![]), "with {free} left: {error}");
        let told = error.to_string();
        if !told.contains("RLIMIT_NOFILE") || !(told.contains("(EMFILE)") || told.contains("(EBADF)")) {
            unclear.push(format!("with {free} left: {told}"));
        }
    }
    unclear
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn at_the_limit_on_descriptors_the_error_says_so_and_nothing_leaks() {
    on_host(&["prlimit", "--nofile=100:100"], "at_the_descriptor_limit", &[]);
}

/// A caller that may have few processes.
fn caller_at_its_process_limit(_: &[String]) -> i32 {
    let before = descriptors();
    for sandbox in [Sandbox::new(), bare()] {
        let result = sandbox.output(script("true"));
        assert_eq!((descriptors(), children()), (before.clone(), vec![]));
        match result {
            Ok(output) => println!("{}", output.outcome),
            Err(error) => println!("refused: {error}"),
        }
    }
    0
}

#[apply(test)]
#[only(User)]
fn at_the_limit_on_processes_the_error_says_so_and_nothing_leaks() {
    let mut refused = 0;
    for limit in 1..2000 {
        let told = on_host(&["prlimit", &format!("--nproc={limit}")], "at_the_process_limit", &[]);
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("refused: ")).collect();
        for error in &errors {
            assert!(error.contains("(EAGAIN)") && error.contains("RLIMIT_NPROC"), "{limit}: {error}");
        }
        refused += errors.len();
        if errors.is_empty() && told.lines().all(|line| line.starts_with("exited with 0")) {
            assert!(refused >= 2, "a limit of 1 is too low for all");
            return;
        }
    }
    panic!("no limit is high enough");
}

fn caller_with_umask_777(_: &[String]) -> i32 {
    umask(Mode::from_bits_truncate(0o777));
    works()
}

#[apply(test)]
fn a_umask_of_777_disturbs_no_spawn() {
    on_host(&[], "umask_777", &[]);
}

/// A caller with many descriptors, which its children inherit: this many, or as many as it may have but for a few.
fn caller_with_many_descriptors(args: &[String]) -> i32 {
    let many: usize = args[0].parse().expect("a number");
    let before = descriptors().len();
    let null = File::open("/dev/null").expect("/dev/null");
    let open = || fcntl(&null, FcntlArg::F_DUPFD(3)).expect("one more descriptor");
    let highest = (0..many).map(|_| open()).max();
    assert!(highest.is_some_and(|number| number as usize >= many), "{highest:?}");
    works();
    let inside = Sandbox::new().output(Command::new("ls").args(["-1", "/proc/self/fd"])).expect("ls");
    assert_eq!(text(&inside.stdout), "0\n1\n2\n3", "the last is the directory that ls reads");
    assert_eq!(descriptors().len(), before + 1 + many);
    0
}

#[apply(test)]
fn twenty_thousand_descriptors_disturb_no_spawn() {
    const SPARE: usize = 100;
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let hard: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let limit = hard.min(rounds(20_000) as usize + SPARE);
    on_host(&["prlimit", &format!("--nofile={limit}")], "many_descriptors", &[&(limit - SPARE).to_string()]);
}

fn caller_without_directory(_: &[String]) -> i32 {
    let gone = tempfile::tempdir().unwrap();
    std::env::set_current_dir(gone.path()).unwrap();
    drop(gone);
    assert!(std::env::current_dir().is_err());
    works()
}

#[apply(test)]
fn a_working_directory_that_is_gone_disturbs_no_spawn() {
    on_host(&[], "homeless", &[]);
}

#[apply(test)]
fn a_caller_that_is_pid_1_can_spawn() {
    let unshare = ["unshare", "-U", "--map-current-user", "-p", "-f", "--mount-proc"];
    let way: Vec<&str> =
        unshare.into_iter().filter(|arg| !support::is_root() || !matches!(*arg, "-U" | "--map-current-user")).collect();
    on_host(&way, "works", &[]);
}

/// A caller whose user namespace has one id, which is that of the real root: there is none to run a program as that is
/// not the caller's own.
fn caller_that_is_root_of_a_user_namespace(_: &[String]) -> i32 {
    let error = Sandbox::new().spawn(script("true")).expect_err("no id for a program");
    assert!(error.hint().is_some_and(|remedy| remedy.contains("Identity::caller()")), "{error}");
    let as_caller = Sandbox::new().identity(Identity::caller());
    let output = as_caller.output(script("id -u; cat /proc/self/uid_map")).expect("as the remedy says");
    assert_eq!(text(&output.stdout).split_whitespace().collect::<Vec<_>>(), ["1000", "1000", "0", "1"]);
    0
}

#[apply(test)]
fn a_caller_that_is_root_of_a_user_namespace_can_spawn() {
    if support::is_root() {
        on_host(&["unshare", "-Urm"], "contained", &[]);
    } else {
        // What is root there is an ordinary user in truth.
        on_host(&["unshare", "-Urm"], "works", &[]);
    }
}

/// A caller of eight threads, each of which spawns 200 times.
fn caller_with_threads(_: &[String]) -> i32 {
    let before = descriptors();
    let sandbox = Sandbox::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                for round in 0..rounds(200) {
                    let expected = format!("{number} {round}");
                    let output = sandbox.output(Command::new("echo").arg(&expected)).expect("echo");
                    assert!(output.outcome.success());
                    assert_eq!(text(&output.stdout), expected, "nobody reads another's pipe");
                }
            });
        }
    });
    assert_eq!((descriptors(), children()), (before, vec![]));
    0
}

#[apply(test)]
fn concurrent_spawns_by_many_threads_leave_nothing() {
    on_host(&[], "spawning_threads", &[]);
}

/// Six processes that sleep: in the background, in sessions of their own, orphaned, deaf to signals.
fn tree(marker: &str) -> String {
    format!(
        "sleep {marker} & setsid sleep {marker} & (setsid sh -c 'sleep {marker} & sleep {marker}' &) & \
         (trap '' TERM HUP INT; (sleep {marker} & sleep {marker}) &) & \
         until [ $(grep -lsz '^sleep$' /proc/[0-9]*/cmdline | wc -l) = 6 ]; do :; done; echo ready; exec sleep {marker}"
    )
}

/// Two processes of a group that sleep. Before Linux 6.9 the program alone is killed together with its caller: there it
/// is one.
fn group(marker: &str) -> String {
    let other = if kills_groups() { format!("sleep {marker} & ") } else { String::new() };
    format!("{other}echo ready; exec sleep {marker}")
}

fn kills_groups() -> bool {
    support::kernel() >= (6, 9)
}

fn sleepers(marker: &str) -> usize {
    support::processes(|line| line.starts_with(&format!("sleep {marker}"))).len()
}

/// A caller whose program runs for a long time; it says so once the tree stands.
fn caller_with_a_tree(args: &[String]) -> i32 {
    let (marker, kind) = (&args[0], args[1].as_str());
    let (sandbox, text) = match kind {
        "tree" => (Sandbox::new(), tree(marker)),
        "bare" => (bare(), group(marker)),
        _ => (Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID), group(marker)),
    };
    let mut child = sandbox.spawn(script(&text).stdin(Stdio::null()).stdout(Stdio::piped())).expect("a tree");
    child.stdout.as_mut().expect("its output").read_exact(&mut [0; 6]).expect("it is ready");
    println!("ready");
    let outcome: Outcome = child.wait().expect("no end");
    panic!("it was killed together with its caller: {outcome}");
}

/// A caller that starts sandboxes, one after the other.
fn caller_that_spawns_on_and_on(args: &[String]) -> i32 {
    println!("ready");
    let sandboxes = [Sandbox::new(), bare()];
    for round in 0.. {
        let mut command = Command::new("sleep");
        let child = sandboxes[round % 2].spawn(command.arg(&args[0]).stdout(Stdio::null())).expect("sleep");
        // Some live on beside the next one, to be ended by the kernel.
        thread_local!(static LAST: Cell<Option<stockade::Child>> = const { Cell::new(None) });
        LAST.replace(Some(child));
    }
    0
}

/// Starts a caller, kills it, and buries what it leaves: all of it becomes a child of this process, so that nothing
/// goes unseen. Prints the longest time that anything lived on.
fn undertaker(args: &[String]) -> i32 {
    set_child_subreaper(true).expect("orphans come here");
    let (kind, rounds) = (args[0].as_str(), args[1].parse::<u32>().expect("a number"));
    let temporary = tempfile::tempdir().expect("TMPDIR of the callers");
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let marker = format!("86400.{}{round:03}", std::process::id());
        let mut caller = Host::new(support::own_path());
        caller.args(["--payload", if kind == "spawner" { "spawner" } else { "holder_of_a_tree" }, &marker, kind]);
        caller.env("TMPDIR", temporary.path()).stdout(std::process::Stdio::piped()).process_group(0);
        let mut caller = Mortal(caller.spawn().expect("a caller"));
        let mut ready = String::new();
        BufReader::new(caller.0.stdout.take().expect("its output")).read_line(&mut ready).expect("its output");
        assert_eq!(ready, "ready\n");
        if kind == "spawner" {
            // At one time or another of a spawn: there is no event to wait for.
            thread::sleep(Duration::from_micros(u64::from(round) * 701));
        } else {
            let expected = if kind == "tree" { 7 } else { 1 + usize::from(kills_groups()) };
            until("the tree stands", || sleepers(&marker) == expected);
        }
        let killed = Instant::now();
        drop(caller);
        bury(killed, &marker);
        longest = longest.max(killed.elapsed());
        assert_eq!(fs::read_dir(temporary.path()).expect("TMPDIR").count(), 0, "a file of a dead caller");
    }
    println!("{longest:.1?}");
    0
}

/// A process that is killed and reaped when it is dropped.
struct Mortal(std::process::Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("SIGKILL, and the end");
    }
}

/// Waits until `done` holds, at most 10 seconds.
fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < at_most(Duration::from_secs(10)), "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reaps orphans until there are none.
fn bury(since: Instant, marker: &str) {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_micros(200)),
            Ok(_) => {}
            // Processes of the group that are nobody's children any more end on their own.
            Err(Errno::ECHILD) if sleepers(marker) == 0 => return,
            Err(errno) => assert_eq!(errno, Errno::ECHILD),
        }
        if since.elapsed() > at_most(Duration::from_secs(2)) {
            let left: Vec<String> = support::processes(|line| line.contains(marker) || line.starts_with("stockade:"))
                .into_iter()
                .map(|pid| format!("{pid} {:?}", fs::read_to_string(format!("/proc/{pid}/cmdline"))))
                .collect();
            panic!("alive 2 s after the caller: children {:?}, all {left:?}", children());
        }
    }
}

fn killed(kind: &str, rounds: u32) {
    let longest = on_host(&[], "undertaker", &[kind, &support::rounds(rounds).to_string()]);
    println!("after a killed caller ({kind}) the last process was gone within {longest}");
}

#[apply(test)]
fn a_killed_caller_leaves_no_process() {
    killed("tree", 5);
}

#[apply(test)]
fn a_killed_caller_leaves_no_program_without_a_pid_namespace() {
    killed("bare", 5);
    killed("namespaces", 5);
}

#[apply(test)]
fn a_caller_killed_at_any_time_leaves_nothing() {
    killed("spawner", 60);
}
