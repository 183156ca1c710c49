//! Kernel limits that apply to a user as a whole. One sandbox uses a limit up, and all other processes of the user
//! fail.

use std::io::{BufRead, BufReader, IoSlice, Read};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource as Known, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};
use stockade::limits::Resource;
use stockade::{Command, Identity, Layer, Limits, Namespaces, Sandbox, Seccomp, Stdio};

use crate::attacks::common::{
    Attempts, attack, attack_by, attack_on_host, attempt, bare, here, privately, sandbox, tell, unfiltered,
};
use crate::attacks::sys::{self, Word};
use crate::support::{is_root, kernel, payload, stdout, text, unless_mounts, unless_pivot_root};

payloads![
    ("take_quotas", take_quotas),
    ("use_quotas", use_quotas),
    ("quota_caller", quota_caller),
    ("caller_without_settings", caller_without_settings),
    ("take_context", take_context),
];

/// A quota: its name, and what takes a piece of it, which is kept as long as the process lives.
type Quota = (&'static str, fn(large: bool) -> nix::Result<()>);

const QUOTAS: [Quota; 5] = [
    ("descriptors in flight", send_descriptors),
    ("inotify instances", |_| sys::numbers(libc::SYS_inotify_init1, &[0]).map(drop)),
    ("queued signals", queue_signal),
    ("message queues", open_queue),
    ("locked memory", lock_memory),
];

/// Sends descriptors that nobody receives.
fn send_descriptors(large: bool) -> nix::Result<()> {
    let (to, from) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
    let own = std::io::stdin();
    let rights = vec![own.as_raw_fd(); if large { 253 } else { 1 }];
    let send = || {
        let message = [ControlMessage::ScmRights(&rights)];
        sendmsg::<UnixAddr>(to.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::MSG_DONTWAIT, None).map(drop)
    };
    let result = if large { (0..100).try_for_each(|_| send()) } else { send() };
    std::mem::forget((to, from));
    result
}

pub fn queue_signal(_: bool) -> nix::Result<()> {
    const SIGNAL: i32 = 40;
    let set = 1u64 << (SIGNAL - 1);
    sys::call(
        libc::SYS_rt_sigprocmask,
        &mut [Word::Number(libc::SIG_BLOCK.into()), Word::Bytes(&set.to_ne_bytes()), Word::Number(0), Word::Number(8)],
    )?;
    // struct siginfo {int signo, errno, code}
    let mut info = [0; 128];
    info[..4].copy_from_slice(&SIGNAL.to_ne_bytes());
    info[8..12].copy_from_slice(&libc::SI_QUEUE.to_ne_bytes());
    let own = i64::from(std::process::id());
    let words = &mut [Word::Number(own), Word::Number(SIGNAL.into()), Word::Bytes(&info)];
    sys::call(libc::SYS_rt_sigqueueinfo, words).map(drop)
}

fn open_queue(large: bool) -> nix::Result<()> {
    // struct mq_attr {long flags, maxmsg, msgsize, curmsgs, reserved[4]}
    let (count, size) = if large { (10, 1024) } else { (1, 16) };
    let attributes = [0u64, count, size, 0, 0, 0, 0, 0].map(u64::to_ne_bytes);
    let name = format!("of-{}\0", std::process::id());
    let flags = i64::from(libc::O_CREAT | libc::O_EXCL | libc::O_RDWR);
    let open = &mut [
        Word::Bytes(name.as_bytes()),
        Word::Number(flags),
        Word::Number(0o600),
        Word::Bytes(attributes.as_flattened()),
    ];
    sys::call(libc::SYS_mq_open, open)?;
    sys::call(libc::SYS_mq_unlink, &mut [Word::Bytes(name.as_bytes())]).map(drop)
}

/// Locks shared memory, which counts to the user and not to the process.
fn lock_memory(large: bool) -> nix::Result<()> {
    const SHM_LOCK: i64 = 11;
    let size = if large { 1 << 15 } else { 1 << 12 };
    let segment =
        sys::numbers(libc::SYS_shmget, &[libc::IPC_PRIVATE.into(), size, i64::from(libc::IPC_CREAT | 0o600)])?;
    let result = sys::numbers(libc::SYS_shmat, &[segment, 0, 0])
        .and_then(|_| sys::numbers(libc::SYS_shmctl, &[segment, SHM_LOCK, 0]));
    // It goes with the last process that has it attached.
    sys::numbers(libc::SYS_shmctl, &[segment, libc::IPC_RMID.into(), 0])?;
    result.map(drop)
}

/// Takes all that it can get of each quota, and keeps it until its input ends.
fn take_quotas(_: &[String]) -> i32 {
    const MOST: usize = 200_000;
    for (name, take) in QUOTAS {
        let refused =
            (0..MOST).map(|count| (count, take(true))).find_map(|(count, result)| Some((count, result.err()?)));
        let (count, errno) = refused.unwrap_or((MOST, Errno::UnknownErrno));
        // What is left is less than a large piece.
        while name != "inotify instances" && take(false).is_ok() {}
        tell(&format!("taken of {name}"), (count, errno));
    }
    println!("holding");
    std::io::stdin().read_to_end(&mut vec![]).unwrap();
    0
}

/// Takes a piece of each quota.
fn use_quotas(args: &[String]) -> i32 {
    let prefix = args.first().map(|prefix| format!("{prefix} ")).unwrap_or_default();
    for (name, take) in QUOTAS {
        attempt(&format!("{prefix}{name}"), take(false));
    }
    0
}

/// The limits of a caller: less than those of the tests that run beside it, so that these notice nothing.
const LOW: [(Known, Resource, u64); 4] = [
    (Known::RLIMIT_NOFILE, Resource::Nofile, 1000),
    (Known::RLIMIT_SIGPENDING, Resource::Sigpending, 400),
    (Known::RLIMIT_MSGQUEUE, Resource::Msgqueue, 400_000),
    (Known::RLIMIT_MEMLOCK, Resource::Memlock, 1 << 19),
];

/// A caller whose sandbox takes all that it can get, and which needs something itself then, as does another sandbox of
/// it.
fn quota_caller(args: &[String]) -> i32 {
    for (known, _, value) in LOW {
        let (_, hard) = getrlimit(known).unwrap();
        setrlimit(known, value.min(hard), hard).unwrap_or_else(|error| panic!("{known:?}: {error}"));
    }
    let as_the_caller = |limits: Limits| {
        LOW.into_iter().fold(limits, |set, (known, name, _)| {
            let (soft, _) = getrlimit(known).unwrap();
            set.rlimit(name, soft, soft)
        })
    };
    let (sandbox, mut take) = match args[0].as_str() {
        "without" => (bare().map_limits(as_the_caller), here("take_quotas")),
        _ => (sandbox(), payload("take_quotas")),
    };
    let mut first = sandbox.spawn(take.stdin(Stdio::piped()).stdout(Stdio::piped())).unwrap();
    for line in BufReader::new(first.stdout.take().unwrap()).lines().map_while(Result::ok) {
        println!("{line}");
        if line == "holding" {
            break;
        }
    }
    use_quotas(&["caller".into()]);
    if args[0] != "without" {
        // How many descriptors may be in flight is compared with the limit of who sends one more.
        let second = sandbox.map_limits(|limits| limits.rlimit(Resource::Nofile, 1000, 1000));
        let output = second.output(payload("use_quotas").arg("second")).unwrap();
        print!("{}", text(&output.stdout));
    }
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    0
}

/// Takes a context for one event.
fn take_context(_: &[String]) -> i32 {
    attempt("context", sys::call(libc::SYS_io_setup, &mut [Word::Number(1), Word::Room(&mut [0; 8])]));
    0
}

/// All processes of a machine share `fs.aio-max-nr` of them.
#[apply(test)]
fn contexts_of_the_machine_are_not_taken() {
    let taken = attack(&unfiltered(&sandbox()), "take_context", &[]);
    taken.assert_done(&["context"]);
    for sandbox in [sandbox(), sandbox().seccomp(Seccomp::container())] {
        assert_eq!(attack(&sandbox, "take_context", &[]).get("context"), "ENOSYS");
    }
    attack(&sandbox().map_seccomp(|policy| policy.allow(["io_setup"])), "take_context", &[]).assert_done(&["context"]);
}

/// Over an initramfs a setting is written in any case.
fn unless_settings() -> Option<String> {
    unless_mounts().or_else(unless_pivot_root)
}

/// A caller whose /proc/sys is read-only, as in a container.
fn caller_without_settings(_: &[String]) -> i32 {
    let namespaces = Namespaces::USER | Namespaces::MOUNT;
    for (name, identity) in [("default", Identity::new()), ("caller", Identity::caller())] {
        let outcome = Sandbox::new().namespaces(namespaces).identity(identity).status(Command::new("true")).unwrap();
        let lost = outcome.enforcement.unenforced.iter().find(|lost| lost.layer == Layer::Limits);
        tell(name, lost.map(|lost| &lost.reason));
    }
    0
}

/// Where the quotas of inotify can't be limited, the program is run and the enforcement says so.
#[apply(test)]
#[skip(unless_settings)]
fn quotas_that_cannot_be_limited_are_reported() {
    let script = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    let said = attack_by(&mut privately(script, "caller_without_settings", &[]));
    assert!(said.get("caller").contains("max_inotify_instances is read-only"), "{said:?}");
    // A user of its own shares no quota with anybody.
    assert_eq!(said.get("default") == "None", is_root(), "{said:?}");
    let writable = attack_by(&mut privately("", "caller_without_settings", &[]));
    assert_eq!((writable.get("default"), writable.get("caller")), ("None", "None"));
}

/// They are beyond the default policy: an unfiltered program of an ordinary user's makes namespaces, and each spawn
/// needs some.
#[apply(test)]
fn a_user_namespace_gets_a_fraction_of_namespaces() {
    let caller = Sandbox::new().identity(Identity::caller());
    let kinds = "cd /proc/sys/user; head -n 1 max_*_namespaces | grep -v '^$'";
    let unlimited = stdout(&caller, kinds);
    let unfiltered = stdout(&unfiltered(&caller), kinds);
    let mut count = 0;
    for (name, value) in unfiltered.lines().collect::<Vec<_>>().chunks(2).map(|lines| (lines[0], lines[1])) {
        let name = name.trim_matches(['=', '>', '<', ' ']);
        let own: u64 = std::fs::read_to_string(format!("/proc/sys/user/{name}")).unwrap().trim().parse().unwrap();
        // Over an initramfs nobody inside may create one: it would give back CAP_SYS_CHROOT.
        let is_forbidden = name == "max_user_namespaces" && unless_pivot_root().is_some();
        let expected = if is_forbidden { 0 } else { own / 8 };
        assert_eq!(value, expected.to_string(), "{name}");
        count += 1;
    }
    assert!(count >= 7 && unlimited != unfiltered, "{unfiltered}");
}

/// The helper of a sandbox has the hard limit.
fn unless_descriptors() -> Option<String> {
    let (_, hard) = getrlimit(Known::RLIMIT_NOFILE).unwrap();
    (hard < 4096).then(|| format!("the hard limit on descriptors is {hard}, and 4,096 are needed"))
}

fn named(prefix: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{prefix} {name}")).collect()
}

/// Attack 64.
#[apply(test)]
#[skip(unless_descriptors)]
fn one_sandbox_leaves_others_of_its_user_their_quotas() {
    let check = |attempts: &Attempts, by: &str, names: &[&str], expect: fn(&Attempts, &[&str])| {
        let names = named(by, names);
        expect(attempts, &names.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let all = QUOTAS.map(|(name, _)| name);
    let without = attack_on_host("quota_caller", &["without"]);
    // Capabilities of root's lift the others for it.
    let missing = if is_root() { &all[1..4] } else { &all[..] };
    check(&without, "caller", missing, Attempts::assert_refused);

    let with = attack_on_host("quota_caller", &["with"]);
    check(&with, "caller", &all, Attempts::assert_done);
    // Before Linux 5.14 the limits are compared with what the user has in all user namespaces.
    let counted_apart = is_root() || kernel() >= (5, 14);
    check(&with, "second", if counted_apart { &all } else { &all[..2] }, Attempts::assert_done);
    for name in all {
        assert!(!with.get(&format!("taken of {name}")).contains("Unknown"), "{name} has an end: {with:?}");
    }
}

/// A sandbox's soft and hard limit, by its name in `/proc/PID/limits`.
fn limit(sandbox: &Sandbox, name: &str) -> (u64, u64) {
    let said = stdout(sandbox, "cat /proc/self/limits");
    let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {said}"));
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[apply(test)]
fn a_program_gets_a_fraction_of_the_quotas_of_its_user() {
    let (soft, hard) = getrlimit(Known::RLIMIT_NOFILE).unwrap();
    let most = if is_root() { hard.min(4096) } else { (soft / 2).min(hard).min(512) };
    assert_eq!(limit(&Sandbox::new(), "Max open files"), (most.min(1024), most));
    for (known, name, most) in [
        (Known::RLIMIT_SIGPENDING, "Max pending signals", 512),
        (Known::RLIMIT_MSGQUEUE, "Max msgqueue size", 102_400),
        (Known::RLIMIT_MEMLOCK, "Max locked memory", 1 << 20),
    ] {
        let share = most.min(getrlimit(known).unwrap().0 / 8);
        assert_eq!(limit(&Sandbox::new(), name), (share, share), "{name}");
    }
    let set = Sandbox::new().map_limits(|limits| limits.rlimit(Resource::Nofile, 70, hard));
    assert_eq!(limit(&set, "Max open files"), (70, hard), "what is set counts");
}

#[apply(test)]
fn a_user_namespace_gets_a_fraction_of_inotify() {
    let files = ["instances", "watches"].map(|what| format!("/proc/sys/user/max_inotify_{what}"));
    for (file, known) in files.iter().zip(["max_user_instances", "max_user_watches"]) {
        let own: u64 =
            std::fs::read_to_string(format!("/proc/sys/fs/inotify/{known}")).unwrap().trim().parse().unwrap();
        let caller = Sandbox::new().identity(Identity::caller());
        for sandbox in [caller.clone(), caller.map_root(|_| stockade::Root::host().writable())] {
            assert_eq!(stdout(&sandbox, &format!("cat {file}")), (own / 8).to_string());
        }
        let output = Sandbox::new().output(Command::new("sh").args(["-c", &format!("echo 1000000 > {file}")])).unwrap();
        assert!(!output.outcome.success(), "it can't be raised inside");
    }
}
