//! The harness of the test binaries: it runs each test as root and again as an ordinary user, and gives the tests what
//! they share. Where the tests are started by an ordinary user it runs that half alone, and says so.
//!
//! `cargo test --test suite -- as_user::root::` runs a part of the tests. A list is of names alone: what a test needs
//! of the host is found out when it runs, so that `cargo nextest run` works as `cargo test` does.
#![allow(dead_code)]

pub mod apart;
pub mod filter;
pub mod listener;
pub mod subscriber;
pub mod wording;

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Host, ExitCode};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Trial};
use linkme::distributed_slice;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use stockade::{Child, Command, Error, ErrorKind, Namespaces, Outcome, Output, Sandbox};
use tempfile::TempDir;

/// The ordinary user that root runs the tests as.
pub const USER: u32 = 1000;

/// How many times slower than real CPUs those of this machine are, as far as the tests must know: what starts it says
/// so in `STOCKADE_TESTS_SLOW` where they are emulated. It is 1 without.
pub fn slowness() -> u32 {
    let said = std::env::var("STOCKADE_TESTS_SLOW").ok();
    said.map_or(1, |factor| factor.parse().ok().filter(|&factor| factor > 0).expect("STOCKADE_TESTS_SLOW is a number"))
}

/// A time that something takes at most, as long as it is on this machine.
pub fn at_most(time: Duration) -> Duration {
    time * slowness()
}

/// How often something is done: less often on a slow machine, but three times if it is so often at all.
pub fn rounds(count: u32) -> u32 {
    (count / slowness()).max(count.min(3))
}

/// Of many that are alike all, but on a slow machine every so many-th, of which others are chosen on another kernel.
pub fn sample<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let step = slowness() as usize;
    all.into_iter().skip(kernel().1 as usize % step).step_by(step)
}

/// Memory that is written to. `vec![1; size]` is a loop over its bytes in a debug build.
pub fn touched(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes.fill(1);
    std::hint::black_box(bytes)
}

/// A test as [`test`] registers it.
pub struct Test {
    /// The modules that it is in, the name of the binary first, and its own name.
    pub path: &'static str,
    pub run: fn(),
    /// The one user that it runs as, where it does not run as both.
    pub only: &'static [User],
    /// Each gives the reason if the test can't run here.
    pub skip: &'static [fn() -> Option<String>],
}

/// The user that a test runs as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum User {
    Root,
    User,
}

impl User {
    fn now() -> Self {
        if is_root() { Self::Root } else { Self::User }
    }

    /// What the names of its tests begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Root => "as_root",
            Self::User => "as_user",
        }
    }
}

/// All tests of the binary.
#[distributed_slice]
pub static TESTS: [Test];

/// All payloads of the binary.
#[distributed_slice]
pub static PAYLOADS: [&'static [Payload]];

/// A program that runs inside sandboxes: it gets its arguments and returns its exit status. Its name is unique in the
/// binary.
pub type Payload = (&'static str, fn(&[String]) -> i32);

/// Makes a function a test, which runs as root and again as an ordinary user. Below it may stand which of the two it is
/// about, and functions that give the reason to skip it here.
///
/// ```ignore
/// #[apply(test)]
/// #[only(Root)]
/// #[skip(unless_python)]
/// fn loops_end_at_the_limit() {}
/// ```
macro_rules! test {
    ($(#[doc = $doc:expr])* $(#[only($user:ident)])? $(#[skip($skip:path)])* fn $name:ident() $body:block) => {
        $(#[doc = $doc])*
        fn $name() $body

        const _: () = {
            #[linkme::distributed_slice($crate::support::TESTS)]
            static TEST: $crate::support::Test = $crate::support::Test {
                path: concat!(module_path!(), "::", stringify!($name)),
                run: $name,
                only: &[$($crate::support::User::$user)?],
                skip: &[$($skip),*],
            };
        };
    };
}

/// Registers the payloads of a module: `payloads![("name", function), …];`.
#[allow(unused_macros)]
macro_rules! payloads {
    ($($payload:tt)*) => {
        const _: () = {
            #[linkme::distributed_slice($crate::support::PAYLOADS)]
            static PAYLOADS: &[$crate::support::Payload] = &[$($payload)*];
        };
    };
}

/// Runs the tests of a binary that the arguments select, as root and as an ordinary user.
pub fn run() -> ExitCode {
    Run::from_args().execute(&[])
}

/// One run of a binary.
pub struct Run {
    arguments: Arguments,
}

/// Restricts a run to the tests of one module below the root of the crate.
pub const AREA: &str = "STOCKADE_TESTS_AREA";

impl Run {
    /// Reads the arguments. If they ask for a payload it is run, and this does not return.
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().collect();
        if args.get(1).is_some_and(|arg| arg == "--payload") {
            let name = args.get(2).expect("the name of a payload");
            let mut found = PAYLOADS.iter().copied().flatten().filter(|(payload, _)| payload == name);
            let (_, payload) = found.next().unwrap_or_else(|| panic!("no payload {name}"));
            assert!(found.next().is_none(), "two payloads are called {name}");
            std::process::exit(payload(&args[3..]));
        }
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert_with(test_threads);
        Self { arguments }
    }

    /// Whether a test of a module below the root of the crate is to run, as any user. None is where tests are listed.
    pub fn has(&self, area: &str) -> bool {
        let is_selected = |user| tests(user).any(|test| is_in(test, area) && self.selects(&name(test, user)));
        !self.lists() && users().iter().copied().any(is_selected)
    }

    /// Whether tests are listed and none is run.
    pub fn lists(&self) -> bool {
        self.arguments.list
    }

    /// Runs the tests, which may start these examples of the crate: see [`example`].
    pub fn execute(&self, examples: &[&str]) -> ExitCode {
        if self.lists() {
            let trials = users().iter().copied().flat_map(|user| tests(user).map(move |test| trial(test, user)));
            return libtest_mimic::run(&self.arguments, trials.collect()).exit_code();
        }
        let has = |user| tests(user).any(|test| self.selects(&name(test, user)));
        let as_user = is_root() && has(User::User);
        let mut code = ExitCode::SUCCESS;
        if has(User::now()) || !as_user {
            let trials = tests(User::now()).map(|test| trial(test, User::now())).collect();
            code = libtest_mimic::run(&self.arguments, trials).exit_code();
        }
        if as_user && !again(examples) {
            code = ExitCode::FAILURE;
        }
        if !is_root() && !is_second_run() {
            println!("started by an ordinary user: what root does is not tested");
        }
        code
    }

    /// Whether the arguments select a test, as libtest-mimic has it.
    fn selects(&self, name: &str) -> bool {
        let matches = |pattern: &String| if self.arguments.exact { name == pattern } else { name.contains(pattern) };
        let is_skipped = self.arguments.skip.iter().any(matches);
        !self.arguments.ignored && self.arguments.filter.as_ref().is_none_or(matches) && !is_skipped
    }
}

/// Number of tests at a time. Most tests wait for most of their time, unless the CPUs are slow.
fn test_threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if slowness() == 1 { 2 * cpus } else { cpus }
}

/// The users that this process can run tests as.
fn users() -> &'static [User] {
    if is_root() { &[User::Root, User::User] } else { &[User::User] }
}

/// The tests of a user, by their names.
fn tests(user: User) -> impl Iterator<Item = &'static Test> {
    let area = std::env::var(AREA).ok();
    let mut tests: Vec<&Test> = TESTS
        .iter()
        .filter(|test| test.only.is_empty() || test.only.contains(&user))
        .filter(|test| area.as_ref().is_none_or(|area| is_in(test, area)))
        .collect();
    tests.sort_by_key(|test| test.path);
    tests.into_iter()
}

fn is_in(test: &Test, area: &str) -> bool {
    test.path.split("::").nth(1) == Some(area)
}

/// The name that a test has as a user: its path with the user in place of the name of the binary.
fn name(test: &Test, user: User) -> String {
    let (_, path) = test.path.split_once("::").expect("a path has a crate");
    format!("{}::{path}", user.prefix())
}

fn trial(test: &'static Test, user: User) -> Trial {
    let name = name(test, user);
    Trial::ignorable_test(name.clone(), move || {
        if let Some(reason) = test.skip.iter().find_map(|skip| skip()) {
            return Ok(Completion::ignored_with(reason));
        }
        let start = Instant::now();
        (test.run)();
        // Where time is dear.
        if slowness() > 1 {
            println!("took {:.1} s: {name}", start.elapsed().as_secs_f64());
        }
        Ok(Completion::Completed)
    })
}

/// Tells the second run that it is one.
const AGAIN: &str = "STOCKADE_TESTS_AS_USER";

/// Runs the binary once more, as an ordinary user, from a place that this user can reach. Returns whether all tests
/// passed.
fn again(examples: &[&str]) -> bool {
    let place = shared_dir();
    let copy = place.path().join("tests");
    link(&own_path(), &copy);
    // `cargo test` builds all of them, `cargo test --test` none.
    for name in examples.iter().filter(|name| path_of_example(name).exists()) {
        link(&path_of_example(name), &place.path().join(name));
    }
    let home = place.path().join("home");
    fs::create_dir(&home).expect("home of the user");
    nix::unistd::chown(&home, Some(USER.into()), Some(USER.into())).expect("home belongs to the user");
    let status = Host::new(&copy)
        .args(std::env::args_os().skip(1))
        .env(AGAIN, "1")
        .env("HOME", &home)
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .status()
        .expect("second run as an ordinary user");
    status.success()
}

/// Gives a program a second place, by a copy where that is another file system.
fn link(program: &Path, place: &Path) {
    if fs::hard_link(program, place).is_err() {
        fs::copy(program, place).unwrap_or_else(|error| panic!("copy of {}: {error}", program.display()));
    }
}

/// An example of the crate, as `cargo test` builds it.
pub fn example(name: &str) -> PathBuf {
    let place = path_of_example(name);
    place.canonicalize().unwrap_or_else(|error| panic!("{}: {error}: cargo build --examples makes it", place.display()))
}

fn path_of_example(name: &str) -> PathBuf {
    let own = own_path();
    // The second run has its copy beside itself; cargo puts tests into `deps`, and the command above.
    let folder = if name == COMMAND { ".." } else { "../examples" };
    if is_second_run() { own.with_file_name(name) } else { own.with_file_name(folder).join(name) }
}

/// The command of the crate, which cargo builds for the tests if its feature is on.
pub const COMMAND: &str = "stockade";

/// Whether this half of the tests runs as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A reason to skip what root alone can do.
pub fn unless_root() -> Option<String> {
    (!is_root()).then(|| "it takes root".into())
}

/// A reason to skip what is about ordinary users.
pub fn unless_user() -> Option<String> {
    is_root().then(|| "it is about ordinary users".into())
}

/// The kinds of namespaces, and the names of their files in `/proc/PID/ns`.
pub const NAMESPACES: [(Namespaces, &str); 8] = [
    (Namespaces::USER, "user"),
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::PID, "pid"),
    (Namespaces::NET, "net"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::UTS, "uts"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

/// The kernel's version, as far as features depend on it.
pub fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().expect("uname").release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A reason to skip what a root caller needs in order to bind something writable for another user.
pub fn unless_idmapped_mounts() -> Option<String> {
    if is_root() { unless_mount_setattr() } else { None }
}

/// The same where it is on a tmpfs.
pub fn unless_idmapped_tmpfs() -> Option<String> {
    (is_root() && kernel() < (6, 3)).then(|| "idmapped mounts of a tmpfs exist since Linux 6.3".into())
}

/// A reason to skip what needs mount_setattr(2).
pub fn unless_mount_setattr() -> Option<String> {
    (kernel() < (5, 12)).then(|| "idmapped mounts and mount_setattr(2) exist since Linux 5.12".into())
}

/// A reason to skip what needs pivot_root(2): an initramfs has no parent but itself.
pub fn unless_pivot_root() -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let is_bottom =
        |line: &str| matches!(line.split(' ').collect::<Vec<_>>()[..], [id, above, _, _, "/", ..] if id == above);
    table.lines().any(is_bottom).then(|| "the root is an initramfs, which can't be pivoted from".into())
}

/// The same where root does without a user namespace, in which it could do without.
pub fn unless_root_can_pivot() -> Option<String> {
    if is_root() { unless_pivot_root() } else { None }
}

/// A reason to skip what needs overlays in a sandbox.
pub fn unless_overlays() -> Option<String> {
    (kernel() < (5, 11)).then(|| "overlays in user namespaces exist since Linux 5.11".into())
}

/// A reason to skip what needs both.
pub fn unless_overlays_and_idmapped_mounts() -> Option<String> {
    unless_overlays().or_else(unless_idmapped_mounts)
}

/// A reason to skip what takes Python.
pub fn unless_python() -> Option<String> {
    unless_runs("/usr/bin/python3")
}

/// A reason to skip what takes compilers of C and C++.
pub fn unless_compilers() -> Option<String> {
    unless_runs("cc").or_else(|| unless_runs("c++"))
}

/// A reason to skip what takes a program of the host.
pub fn unless_runs(program: &str) -> Option<String> {
    let error = Host::new(program).arg("--version").output().err();
    error.map(|error| format!("{program} can't be run: {error}"))
}

/// A reason to skip what needs Landlock as it is since a kernel.
pub fn unless_landlock_since(since: (u32, u32)) -> Option<String> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or("landlock".into());
    let has_landlock = kernel() >= since && modules.contains("landlock");
    (!has_landlock).then(|| format!("it takes Landlock of Linux {}.{}", since.0, since.1))
}

/// A reason to skip what needs limits on memory, CPU, processors and processes for root.
pub fn unless_root_with_groups() -> Option<String> {
    let absent = || {
        let v1 = Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes");
        let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap_or_default();
        let given =
            ["memory", "cpu", "cpuset", "pids"].iter().all(|name| v2.split_whitespace().any(|has| has == *name));
        (!v1.exists() && !given).then(|| "/sys/fs/cgroup has no cgroups of v1, nor gives those of v2 on".to_owned())
    };
    unless_root().or_else(absent)
}

/// A temporary directory that every user can enter and read.
pub fn shared_dir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("test-").tempdir().expect("temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    dir
}

/// Lets the `work` directory of an overlay be removed: the kernel makes a directory in it that an ordinary user can't
/// list.
pub fn let_go_of_work(work: &Path) {
    let _ = fs::set_permissions(work.join("work"), fs::Permissions::from_mode(0o700));
}

/// Runs a shell script in a sandbox.
pub fn sh(sandbox: &Sandbox, script: &str) -> Output {
    sandbox.output(Command::new("/bin/sh").args(["-c", script])).unwrap_or_else(|error| panic!("{script:?}: {error}"))
}

/// What a script wrote to standard output, without the last newline. It must succeed.
pub fn stdout(sandbox: &Sandbox, script: &str) -> String {
    let output = sh(sandbox, script);
    assert!(output.outcome.success(), "{script:?}: {}, stderr {:?}", output.outcome, text(&output.stderr));
    text(&output.stdout)
}

/// Bytes as text, without the last newline.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
}

/// A command that runs a payload of this binary, which the sandbox must show at [`PAYLOAD`]: see [`with_payload`].
pub fn payload(name: &str) -> Command {
    let mut command = Command::new(PAYLOAD);
    command.args(["--payload", name]);
    command
}

/// Where a sandbox shows this binary.
pub const PAYLOAD: &str = "/payload";

/// A root with this binary in it.
pub fn with_payload(root: stockade::Root) -> stockade::Root {
    root.with(stockade::mount::Bind::new(own_path(), PAYLOAD).unmapped())
}

/// The same payload without a sandbox.
pub fn payload_on_host(name: &str) -> Host {
    let mut command = Host::new(own_path());
    command.args(["--payload", name]);
    command
}

/// This binary.
pub fn own_path() -> PathBuf {
    std::env::current_exe().expect("own path")
}

/// Processes of the host, as `/proc` has them, for whom `matches` holds of their command line.
pub fn processes(matches: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line: Vec<u8> = fs::read(entry.path().join("cmdline")).ok()?;
        matches(&String::from_utf8_lossy(&line).replace('\0', " ")).then_some(pid)
    })
    .collect()
}

/// What this process has open, by number and what it is: without the one user namespace that a root caller keeps for
/// the idmapped mounts of all its sandboxes.
pub fn descriptors() -> Vec<(String, PathBuf)> {
    let mut open = all_descriptors();
    let kept = open.iter().position(|(_, target)| target.to_string_lossy().starts_with("user:["));
    kept.map(|kept| open.remove(kept));
    open
}

fn all_descriptors() -> Vec<(String, PathBuf)> {
    let mut open: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("own descriptors")
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            (!target.starts_with("/proc")).then(|| (entry.file_name().to_string_lossy().into_owned(), target))
        })
        .collect();
    open.sort();
    open
}

/// Children of this process, zombies too.
pub fn children() -> Vec<i32> {
    children_of(std::process::id())
}

/// The same of another process.
pub fn children_of(parent: u32) -> Vec<i32> {
    let parent = parent.to_string();
    let pids = fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        (after_name.split_whitespace().nth(1)? == parent).then_some(pid)
    })
    .collect()
}

/// Arguments as `OsString`s.
pub fn strings(args: &[&str]) -> Vec<OsString> {
    args.iter().map(Into::into).collect()
}

/// Whether a path exists, without following it.
pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}

/// Why a sandbox can't be made.
pub fn refused(sandbox: &Sandbox) -> stockade::Error {
    match sandbox.status(Command::new("/bin/true")) {
        Ok(outcome) => panic!("the sandbox was made, and its program ran: {outcome}"),
        Err(error) => error,
    }
}

/// What a script wrote to standard error. It must fail.
pub fn fails(sandbox: &Sandbox, script: &str) -> String {
    let output = sh(sandbox, script);
    assert!(!output.outcome.success(), "{script:?} succeeded and wrote {:?}", text(&output.stdout));
    text(&output.stderr)
}

/// A reason to skip what needs mounts of the test's own on the host: see [`in_mount_namespace`].
pub fn unless_mounts() -> Option<String> {
    let output = mount_namespace("exit 0").output();
    let refused = |what: String| Some(format!("no mount namespace can be made with unshare(1): {what}"));
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => refused(text(&output.stderr)),
        Err(error) => refused(error.to_string()),
    }
}

/// A shell on the host that may make mounts, in a mount namespace of its own. What a user makes belongs to that user.
fn mount_namespace(script: &str) -> Host {
    let mut command = Host::new("unshare");
    command.args(if is_root() {
        ["--mount", "--"].as_slice()
    } else {
        &["--user", "--map-root-user", "--mount", "--"]
    });
    command.args(["sh", "-euc", script]);
    command
}

/// Runs a payload on the host in a mount namespace of its own, which it has no special rights over as an ordinary user,
/// after a script that makes mounts there. The script and the payload get `dir` as their argument.
pub fn in_mount_namespace(script: &str, name: &str, dir: &Path) {
    let back =
        if is_root() { String::new() } else { format!("unshare --user --map-user={USER} --map-group={USER} --") };
    let script = format!("dir=$1; me=$2; shift\n{script}\nexec {back} \"$me\" --payload {name} \"$dir\"");
    let output = mount_namespace(&script).arg("sh").arg(dir).arg(own_path()).output().expect("unshare");
    assert!(output.status.success(), "{name}: {}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
}

/// Runs a payload on the host, as a caller of its own, by way of other programs (`prlimit --nofile=64`), and gives what
/// it wrote to standard output. It must succeed, and is killed after ten minutes.
pub fn on_host(way: &[&str], name: &str, args: &[&str]) -> String {
    let mut command = Host::new("timeout");
    command
        .args(["-s", "KILL", &(600 * slowness()).to_string()])
        .args(way)
        .arg(own_path())
        .args(["--payload", name])
        .args(args);
    // Tests beside this one may have descriptors open that are inherited; Linux 5.10 has no flag for it.
    let inherit_none = || {
        // SAFETY: it changes flags of descriptors of a process that has just been forked, and allocates nothing.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: the function makes one system call.
    unsafe { command.pre_exec(inherit_none) };
    let output = command.output().expect("a caller of its own");
    let said = text(&output.stderr);
    assert!(output.status.success(), "the caller {name} {args:?} by {way:?}: {}, it said:\n{said}", output.status);
    text(&output.stdout)
}

/// The cgroup with the limits of a program that has entered this one: that of a program who may own their files lies
/// below.
pub fn with_limits(entered: &Path) -> &Path {
    if entered.ends_with("program") { entered.parent().expect("a group above") } else { entered }
}

/// A line of a file like `/proc/self/status`: what follows `name` and a colon.
pub fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// What an error of a configuration says: what is wrong, and what to do.
pub fn invalid(sandbox: &Sandbox) -> (String, String) {
    let error = refused(sandbox);
    assert!(is_invalid(&error), "{error:?}");
    words(&error)
}

/// What an error says: its message without the hint, and the hint.
pub fn words(error: &Error) -> (String, String) {
    let hint = error.hint().unwrap_or_default();
    let message = error.to_string();
    (message.strip_suffix(hint).unwrap_or(&message).trim_end_matches(": ").to_owned(), hint.to_owned())
}

/// Whether a configuration was refused before anything was started: it is wrong, or this host lacks something.
pub fn is_invalid(error: &Error) -> bool {
    error.step().is_none() && matches!(error.kind(), ErrorKind::InvalidConfiguration | ErrorKind::Unsupported)
}

/// Whether a system call failed while a sandbox was set up.
pub fn is_set_up(error: &Error) -> bool {
    error.call().is_some() && matches!(error.kind(), ErrorKind::SetupFailed | ErrorKind::Unsupported)
}

/// Whether a set-up process exited, for a limit or from outside.
pub fn has_died(error: &Error) -> bool {
    error.errno().is_none() && matches!(error.kind(), ErrorKind::SetupFailed | ErrorKind::LimitExceeded)
}

/// Whether this is the run as an ordinary user that follows the one as root.
pub fn is_second_run() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Waits for something to become true.
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..1000 * slowness() {
        if is_true() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// An outcome that lists who was left behind: on a busy machine the caller may be woken too late for that.
pub fn listed(mut run: impl FnMut() -> Outcome) -> Outcome {
    const TRIES: u32 = 20;
    let mut outcomes = (0..TRIES).map(|_| run());
    outcomes.find(|outcome| !outcome.omitted.leaked_late).expect("one that was not too late")
}

/// Waits for a program as an event loop does: with poll(2), by nothing but its descriptor and its next deadline.
/// Returns its outcome, and how often the loop went round.
pub fn wait_by_poll(child: &mut Child) -> (Outcome, u32) {
    for round in 1.. {
        if let Some(outcome) = child.try_wait().expect("an outcome") {
            return (outcome, round);
        }
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = child
            .next_deadline()
            .map_or(PollTimeout::NONE, |deadline| PollTimeout::try_from(left(deadline)).unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
    unreachable!("it goes round for ever")
}
