//! The namespaces of a sandbox, as its program sees them: created, shared and joined, with host names, loopback and
//! clocks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child as HostChild, Command as Host, Stdio as HostStdio};

use crate::support::{
    self, NAMESPACES, invalid, is_root, payload, payload_on_host, refused, stdout, text, with_payload,
};
use nix::time::{ClockId, clock_gettime};
use stockade::Errno;
use stockade::landlock::FsAccess;
use stockade::mount::Proc;
use stockade::namespaces::{NamespaceRef, TimeOffsets};
use stockade::{Child, Command, ErrorKind, Identity, Layer, Namespaces, Root, Sandbox, Stdio};

payloads![("loopback", loopback), ("connect", connect), ("listen", listen), ("clocks", clocks),];

/// The namespaces that a process is in, in the order of `NAMESPACES`.
fn links(process: &str) -> Vec<String> {
    let link = |name| fs::read_link(format!("/proc/{process}/ns/{name}")).expect("link of a namespace");
    NAMESPACES.iter().map(|(_, name)| link(name).to_string_lossy().into_owned()).collect()
}

/// The same of the program of a sandbox, as it sees itself.
fn links_inside(sandbox: &Sandbox) -> Vec<String> {
    let names: Vec<String> = NAMESPACES.iter().map(|(_, name)| format!("/proc/self/ns/{name}")).collect();
    stdout(sandbox, &format!("for link in {}; do readlink $link; done", names.join(" ")))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The kinds in which two processes differ.
fn differences(one: &[String], other: &[String]) -> Namespaces {
    assert_eq!((one.len(), other.len()), (NAMESPACES.len(), NAMESPACES.len()));
    NAMESPACES
        .iter()
        .zip(one.iter().zip(other))
        .filter(|(_, (one, other))| one != other)
        .map(|((kind, _), _)| *kind)
        .collect()
}

/// The kinds that the program of a sandbox does not share with the host.
fn own(sandbox: &Sandbox) -> Namespaces {
    differences(&links("self"), &links_inside(sandbox))
}

fn with(namespaces: Namespaces) -> Sandbox {
    Sandbox::new().namespaces(namespaces)
}

/// A root that shows this binary, which runs the payloads.
fn payloads() -> Root {
    with_payload(Root::host())
}

#[apply(test)]
fn each_kind_of_namespace_is_new() {
    let sandbox = with(Namespaces::all());
    assert_eq!(own(&sandbox), Namespaces::all());
    let (living, _) = started(&sandbox, waiting());
    let theirs = links(&living.pid().number().to_string());
    assert_eq!(differences(&links_inside(&sandbox), &theirs), Namespaces::all(), "two sandboxes share none");
}

#[apply(test)]
fn debug_writes_the_names_of_flags() {
    assert_eq!(format!("{:?}", Namespaces::NET | Namespaces::USER), "Namespaces(USER | NET)");
    assert_eq!(format!("{:?}", Namespaces::empty()), "Namespaces(empty)");
    let one_flag_each = FsAccess::READ_ONLY.iter().map(|right| format!("{right:?}")).collect::<Vec<_>>();
    assert_eq!(one_flag_each, ["FsAccess(EXECUTE)", "FsAccess(READ_FILE)", "FsAccess(READ_DIR)"]);
}

#[apply(test)]
fn the_default_has_all_kinds_but_time() {
    assert_eq!(own(&Sandbox::new()), Namespaces::all() - Namespaces::TIME);
}

#[apply(test)]
#[skip(support::unless_pivot_root)]
fn each_kind_of_namespace_can_be_disabled() {
    for (kind, name) in NAMESPACES {
        let mut sandbox = with(Namespaces::all() - kind);
        if kind == Namespaces::USER && !is_root() {
            continue;
        }
        if kind == Namespaces::MOUNT {
            sandbox = sandbox.root(Root::inherit());
        }
        assert_eq!(own(&sandbox), Namespaces::all() - kind, "without {name}");
    }
}

#[apply(test)]
fn all_namespaces_can_be_disabled() {
    let sandbox = with(Namespaces::empty()).root(Root::inherit());
    assert_eq!(own(&sandbox), Namespaces::empty());
    let outcome = sandbox.status(Command::new("true")).unwrap();
    assert!(!outcome.enforcement.is_active(Layer::Namespaces) && !outcome.enforcement.is_active(Layer::Root));
    assert!(outcome.enforcement.is_active(Layer::Capabilities));
}

#[apply(test)]
#[only(User)]
fn an_ordinary_user_needs_a_user_namespace() {
    for (kind, name) in NAMESPACES {
        if kind == Namespaces::USER {
            continue;
        }
        let (what, remedy) = invalid(&with(kind).root(Root::inherit()));
        assert_eq!(
            what,
            format!("an unprivileged caller cannot create or join namespaces ({name}) without a user namespace")
        );
        assert_eq!(remedy, "add Namespaces::USER, or run as root");
    }
}

#[apply(test)]
fn mounts_need_a_mount_namespace() {
    let without = with(Namespaces::all() - Namespaces::MOUNT);
    let roots = [Root::host(), Root::empty(), Root::from_dir("/").tmpfs("/tmp", 1 << 20), Root::inherit().dev("/dev")];
    for root in roots {
        let (what, remedy) = invalid(&without.clone().root(root));
        assert_eq!(what, "the root needs mounts, which would be created in the caller's");
        assert!(remedy.contains("Namespaces::MOUNT"), "{remedy}");
    }
    let host = NamespaceRef::pid(std::process::id());
    let (what, _) = invalid(&without.join(Namespaces::MOUNT, host));
    assert_eq!(what, "the root needs mounts, which would be created in the joined mount namespace");
}

#[apply(test)]
fn options_of_proc_need_a_pid_namespace() {
    let shared = with(Namespaces::all() - Namespaces::PID);
    let own = std::process::id();
    assert_eq!(stdout(&shared, &format!("ls -d /proc/{own}")), format!("/proc/{own}"), "the host's /proc is shown");
    let (what, remedy) = invalid(&shared.root(Root::host().with(Proc::new("/proc").subset_pid())));
    assert_eq!(what, "Proc::hidepid and Proc::subset_pid require a PID namespace");
    assert!(remedy.contains("Namespaces::PID"), "{remedy}");
}

#[apply(test)]
fn the_host_name_is_the_sandboxes_own() {
    let names = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname; uname -n";
    let host = || text(&Host::new("sh").args(["-c", names]).output().expect("names of the host").stdout);
    let before = host();
    let domain = before.lines().nth(1).expect("domain name of the host");
    assert_eq!(stdout(&Sandbox::new(), names), format!("sandbox\n{domain}\nsandbox"));
    let longest = "n".repeat(64);
    let named = Sandbox::new().hostname(&longest).domain_name("a.domain");
    assert_eq!(stdout(&named, names), format!("{longest}\na.domain\n{longest}"));
    let shared = with(Namespaces::all() - Namespaces::TIME - Namespaces::UTS);
    assert_eq!(stdout(&shared, names), before);
    assert_eq!(host(), before);
}

#[apply(test)]
fn names_need_a_uts_namespace_and_must_fit() {
    let shared = with(Namespaces::all() - Namespaces::UTS);
    for (sandbox, kind) in [(shared.clone().hostname("n"), "host"), (shared.domain_name("n"), "domain")] {
        let (what, remedy) = invalid(&sandbox);
        assert_eq!(what, format!("the {kind} name \"n\" cannot be set: it would be the caller's"));
        assert_eq!(remedy, "add Namespaces::UTS, or remove the name");
    }
    let long = "n".repeat(65);
    for sandbox in [Sandbox::new().hostname(&long), Sandbox::new().domain_name(&long), Sandbox::new().hostname("a\0b")]
    {
        let (what, remedy) = invalid(&sandbox);
        assert!(what.contains("bytes, or contains a zero byte"), "{what}");
        assert_eq!(remedy, "use at most 64 bytes, none of them zero");
    }
}

fn unless_ipv6() -> Option<String> {
    TcpListener::bind("[::1]:0").err().map(|error| format!("the host has no IPv6: {error}"))
}

/// A listener and a client on both addresses of the loopback.
fn loopback(_: &[String]) -> i32 {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).expect(address);
        let mut client = TcpStream::connect(listener.local_addr().expect("port")).expect(address);
        let (mut server, _) = listener.accept().expect(address);
        client.write_all(b"over the loopback").expect(address);
        drop(client);
        let mut received = String::new();
        server.read_to_string(&mut received).expect(address);
        assert_eq!(received, "over the loopback");
    }
    0
}

#[apply(test)]
#[skip(unless_ipv6)]
fn the_loopback_is_up() {
    let output = Sandbox::new().root(payloads()).output(payload("loopback")).unwrap();
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    let devices = stdout(&Sandbox::new(), "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '");
    assert!(devices.lines().any(|device| device == "lo"), "{devices}");
    assert!(!devices.contains("eth"), "{devices}");
}

/// Says whether something listens on a port of the loopback.
fn connect(args: &[String]) -> i32 {
    match TcpStream::connect(format!("127.0.0.1:{}", args[0])) {
        Ok(_) => println!("connected"),
        Err(error) => println!("{:?}", error.kind()),
    }
    0
}

fn connects(sandbox: &Sandbox, port: u16) -> String {
    let output = sandbox.output(payload("connect").arg(port.to_string())).unwrap();
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[apply(test)]
fn the_loopback_of_the_host_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = with(Namespaces::all() - Namespaces::NET).root(payloads());
    assert_eq!(connects(&shared, port), "connected");
    assert_eq!(connects(&Sandbox::new().root(payloads()), port), "ConnectionRefused");
}

/// The seconds of the monotonic and of the boot-time clock.
fn clocks(_: &[String]) -> i32 {
    for clock in [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME] {
        println!("{}", clock_gettime(clock).expect("clock").tv_sec());
    }
    0
}

/// Both clocks as a sandbox sees them, and the boot-time clock as its `/proc/uptime` says.
fn clocks_inside(sandbox: &Sandbox) -> [i64; 3] {
    let output = sandbox.clone().root(payloads()).output(payload("clocks")).unwrap();
    assert!(output.outcome.success(), "{}", text(&output.stderr));
    seconds(&text(&output.stdout), &stdout(sandbox, "cat /proc/uptime"))
}

fn clocks_of_the_host() -> [i64; 3] {
    let output = payload_on_host("clocks").output().expect("payload");
    seconds(&text(&output.stdout), &fs::read_to_string("/proc/uptime").expect("uptime"))
}

fn seconds(clocks: &str, uptime: &str) -> [i64; 3] {
    let mut lines = clocks.lines().map(|line| line.parse().expect("seconds"));
    let uptime = uptime.split('.').next().and_then(|whole| whole.parse().ok()).expect("seconds");
    [lines.next().expect("monotonic"), lines.next().expect("boottime"), uptime]
}

/// Whether clocks are ahead by these seconds, and by what has passed since: a minute at most.
fn are_ahead(clocks: [i64; 3], of: [i64; 3], by: [i64; 3]) -> bool {
    (0..3).all(|clock| (0..60).contains(&(clocks[clock] - of[clock] - by[clock])))
}

#[apply(test)]
fn clocks_are_ahead_by_their_offsets() {
    let host = clocks_of_the_host();
    assert!(are_ahead(clocks_inside(&with(Namespaces::all())), host, [0; 3]));
    let ahead = Sandbox::new().time_offsets(TimeOffsets::new().monotonic(1_000_000).boottime(2_000_000));
    let inside = clocks_inside(&ahead);
    assert!(are_ahead(inside, host, [1_000_000, 2_000_000, 2_000_000]), "{inside:?} on a host at {host:?}");
    let behind = Sandbox::new().time_offsets(TimeOffsets::new().monotonic(0).boottime(-1));
    assert!(are_ahead(clocks_inside(&behind), host, [0, -1, -1]));
}

#[apply(test)]
fn impossible_offsets_are_an_error() {
    for monotonic in [-10_000_000_000, 10_000_000_000] {
        let error = refused(&Sandbox::new().time_offsets(TimeOffsets::new().monotonic(monotonic).boottime(0)));
        assert_eq!((error.step(), error.errno()), (Some("set the clock offsets"), Some(Errno::ERANGE)));
        assert!(error.hint().is_some_and(|remedy| remedy.contains("a clock would be before 0")), "{error}");
    }
    let (what, _) = invalid(&Sandbox::new().time_offsets(TimeOffsets::default()).namespaces(Namespaces::USER));
    assert_eq!(what, "clock offsets need a new time namespace");
}

/// A sandbox whose program says a line and then waits for its standard input to end.
fn started(sandbox: &Sandbox, mut command: Command) -> (Child, String) {
    let mut child = sandbox.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped())).expect("a sandbox to join");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("pipe")).read_line(&mut line).expect("first line");
    (child, line.trim_end().to_owned())
}

fn waiting() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; read line"]);
    command
}

/// A process of the host in namespaces that it has made with unshare(1), until its standard input ends.
struct Unshared(HostChild);

impl Unshared {
    fn new(kinds: &str) -> Self {
        let kinds = if is_root() { vec![kinds] } else { vec!["--user", "--map-root-user", kinds] };
        let script = "hostname unshared; echo ready; read line";
        let mut child = Host::new("unshare")
            .args(kinds)
            .args(["sh", "-c", script])
            .stdin(HostStdio::piped())
            .stdout(HostStdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("pipe")).read_line(&mut line).expect("first line");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn links(&self) -> Vec<String> {
        links(&self.0.id().to_string())
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The program's ids in the user namespace of another default sandbox, which a root host must say.
fn there() -> Identity {
    if is_root() { Identity::new().uid(1000).gid(1000) } else { Identity::new() }
}

#[apply(test)]
fn a_sandbox_joins_namespaces_of_a_running_one() {
    let (living, _) = started(&Sandbox::new().hostname("the-living"), waiting());
    let all = Namespaces::all() - Namespaces::TIME;
    let joins = Sandbox::new().identity(there()).root(Root::inherit()).join(all, NamespaceRef::pid(living.pid()));
    assert_eq!(links_inside(&joins), links(&living.pid().number().to_string()));
    assert_eq!(stdout(&joins, "uname -n; cat /proc/1/comm /proc/2/comm | tail -n 1"), "the-living\nsh");
    assert_eq!(stdout(&joins, "touch /tmp/here && stat -c %u /tmp/here && id -u && grep CapEff /proc/self/status"), {
        let id = if is_root() { 1000 } else { support::USER };
        format!("{id}\n{id}\nCapEff:\t0000000000000000")
    });
    assert_eq!(stdout(&joins, "ls /tmp"), "here", "the file system is the other's");
    drop(living);
}

#[apply(test)]
fn a_sandbox_joins_some_namespaces_and_creates_others() {
    let (living, _) = started(&Sandbox::new().hostname("the-living"), waiting());
    let some = Namespaces::USER | Namespaces::NET | Namespaces::UTS;
    let joins = Sandbox::new().identity(there()).join(some, NamespaceRef::pid(living.pid()));
    let inside = links_inside(&joins);
    let theirs = links(&living.pid().number().to_string());
    assert_eq!(differences(&inside, &theirs), Namespaces::all() - some - Namespaces::TIME);
    assert_eq!(differences(&inside, &links("self")), Namespaces::all() - Namespaces::TIME);
    assert_eq!(stdout(&joins, "uname -n; ls /tmp"), "the-living");
}

#[apply(test)]
fn namespaces_are_joined_by_descriptor() {
    let other = Unshared::new("-nu");
    let open = |name: &str| -> OwnedFd {
        File::open(format!("/proc/{}/ns/{name}", other.0.id())).expect("file of a namespace").into()
    };
    let mut joins = Sandbox::new()
        .join(Namespaces::NET, NamespaceRef::fd(open("net")))
        .join(Namespaces::UTS, NamespaceRef::fd(open("uts")));
    let mut joined = Namespaces::NET | Namespaces::UTS;
    if !is_root() {
        // In it, this user is 0.
        let zero = Identity::new().uid(0).gid(0);
        joins = joins.join(Namespaces::USER, NamespaceRef::fd(open("user"))).identity(zero);
        joined |= Namespaces::USER;
    }
    let inside = links_inside(&joins);
    assert_eq!(differences(&inside, &other.links()), Namespaces::all() - joined - Namespaces::TIME);
    assert_eq!(stdout(&joins, "uname -n"), "unshared");
}

/// Listens on the loopback, says the port, and waits for its standard input to end.
fn listen(_: &[String]) -> i32 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    println!("{}", listener.local_addr().expect("port").port());
    let _ = std::io::stdin().read_to_string(&mut String::new());
    0
}

#[apply(test)]
fn a_listener_in_a_joined_net_namespace_is_reached() {
    let (living, port) = started(&Sandbox::new().root(payloads()), payload("listen"));
    let port = port.parse().expect("port");
    let joins = Sandbox::new()
        .root(payloads())
        .identity(there())
        .join(Namespaces::USER | Namespaces::NET, NamespaceRef::pid(living.pid()));
    assert_eq!(connects(&Sandbox::new().root(payloads()), port), "ConnectionRefused");
    assert_eq!(connects(&joins, port), "connected");
}

#[apply(test)]
fn a_time_namespace_is_joined() {
    let ahead = Sandbox::new().time_offsets(TimeOffsets::new().monotonic(3_000_000).boottime(4_000_000));
    let (living, _) = started(&ahead, waiting());
    let host = clocks_of_the_host();
    let kinds = Namespaces::USER | Namespaces::TIME;
    let joins = Sandbox::new().identity(there()).join(kinds, NamespaceRef::pid(living.pid()));
    let inside = clocks_inside(&joins);
    assert!(are_ahead(inside, host, [3_000_000, 4_000_000, 4_000_000]), "{inside:?} on a host at {host:?}");
    let theirs = links(&living.pid().number().to_string());
    assert_eq!(differences(&links_inside(&joins), &theirs), Namespaces::all() - kinds);
}

#[apply(test)]
fn a_joined_namespace_is_not_also_created() {
    let own = || NamespaceRef::pid(std::process::id());
    let made_and_joined = Sandbox::new().join(Namespaces::NET, own()).namespaces(Namespaces::all());
    let joined_twice = Sandbox::new().join(Namespaces::NET, own()).join(Namespaces::NET, own());
    for sandbox in [made_and_joined, joined_twice] {
        let (what, remedy) = invalid(&sandbox);
        assert_eq!(what, "the net namespace is both created and joined, or joined twice");
        assert!(remedy.contains("NET"), "{remedy}");
    }
}

#[apply(test)]
fn joining_an_invalid_namespace_is_an_error() {
    let set_up = |sandbox: &Sandbox| {
        let error = refused(sandbox);
        assert!(support::is_set_up(&error), "{error:?}");
        let step = error.step().expect("a step").to_owned();
        (step, error.errno().map_or(0, Errno::number), error.hint().expect("a hint").to_owned())
    };
    let no_namespace = NamespaceRef::fd(File::open("/dev/null").unwrap());
    let other_kind = NamespaceRef::fd(File::open("/proc/self/ns/uts").unwrap());
    for target in [no_namespace, other_kind] {
        let (step, errno, remedy) = set_up(&Sandbox::new().join(Namespaces::NET, target.clone()));
        assert_eq!((step.as_str(), errno), ("join a net namespace", nix::libc::EINVAL));
        assert_eq!(refused(&Sandbox::new().join(Namespaces::NET, target)).kind(), ErrorKind::SetupFailed);
        assert!(remedy.contains("not a namespace of this kind"), "{remedy}");
    }
    // No pid is as large (proc(5), pid_max).
    let (step, errno, remedy) = set_up(&Sandbox::new().join(Namespaces::NET, NamespaceRef::pid(1 << 23)));
    assert_eq!((step.as_str(), errno), ("open the net namespace of process 8388608", nix::libc::ENOENT));
    assert!(remedy.contains("a process that runs"), "{remedy}");
    if !is_root() {
        let (_, errno, remedy) = set_up(&Sandbox::new().join(Namespaces::NET, NamespaceRef::pid(std::process::id())));
        assert_eq!(errno, nix::libc::EPERM);
        assert!(remedy.contains("no capabilities over that namespace"), "{remedy}");
        let (_, errno, _) = set_up(&Sandbox::new().join(Namespaces::NET, NamespaceRef::pid(1)));
        assert_eq!(errno, nix::libc::EACCES);
    }
}
