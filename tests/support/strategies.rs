//! Strategies for configurations and commands: any that the interface can build, as people write them and as they
//! should not.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use stockade::capabilities::Capability;
use stockade::cgroup::{CgroupParent, IoMax};
use stockade::collect::{Collected, Collector, SkipReason};
use stockade::identity::IdRange;
use stockade::landlock::FsAccess;
use stockade::limits::{Overflow, Resource};
use stockade::mount::{Bind, HidePid, HostPath, Inputs, Operation, Overlay, Proc, Tmpfs};
use stockade::namespaces::{NamespaceRef, TimeOffsets};
use stockade::seccomp::{Action, Comparison, Condition};
use stockade::{
    Capabilities, Cgroup, Command, Errno, Identity, Landlock, Layer, Limits, Namespaces, Root, Sandbox, Seccomp, Stdio,
};

/// Any bytes, and such as look like escapes: a program names its files as it likes.
pub fn name() -> impl Strategy<Value = OsString> {
    let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'x')];
    vec(byte, 0..12).prop_map(OsString::from_vec)
}

/// Paths as people write them, and as they should not.
pub fn path() -> impl Strategy<Value = PathBuf> {
    let text = prop_oneof![
        4 => "/[a-z]{1,6}(/[a-z]{1,6}){0,3}",
        4 => select(vec!["/usr", "/etc", "/tmp", "/var/tmp", "/usr/share", "/etc/passwd"]).prop_map(str::to_owned),
        1 => select(vec!["/", "", ".", "relative", "/a/../b", "/usr", "/etc/passwd", "/tmp", "/proc", "/a\0b"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ];
    prop_oneof![6 => text.prop_map(PathBuf::from), 1 => name().prop_map(PathBuf::from)]
}

fn host_path() -> impl Strategy<Value = HostPath> {
    prop_oneof![
        path().prop_map(HostPath::new),
        (path(), path()).prop_map(|(directory, path)| HostPath::beneath(directory, path)),
        path().prop_map(|path| HostPath::new(path).follow_symlinks()),
    ]
}

/// File modes, some with other bits than permissions.
fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..0o2000, 1 => any::<u32>()]
}

/// Numbers that TOML has and such as it has not.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..5000, Just(i64::MAX as u64), Just(1 << 63)]
}

pub fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![any::<Duration>(), Just(Duration::MAX), Just(Duration::ZERO), Just(Duration::from_millis(10))]
}

fn bind() -> impl Strategy<Value = Bind> {
    (host_path(), path(), any::<[bool; 5]>(), option::of((any::<u32>(), any::<u32>())), any::<bool>()).prop_map(
        |(source, target, [writable, noexec, devices, sockets, git], owner, unmapped)| {
            let set = |bind: Bind, is_set, set: fn(Bind) -> Bind| if is_set { set(bind) } else { bind };
            let mut bind = set(Bind::new(source, target), writable, Bind::writable);
            bind = set(set(bind, noexec, Bind::noexec), devices, Bind::devices);
            bind = set(set(bind, sockets, Bind::sockets), git, Bind::protect_git);
            match owner {
                Some((uid, gid)) => bind.owner(uid, gid),
                None => set(bind, unmapped, Bind::unmapped),
            }
        },
    )
}

/// Paths of the host where nothing is: the kernel writes to the directories of an upper layer.
fn absent_path() -> impl Strategy<Value = HostPath> {
    prop_oneof![
        "/absent/[a-z]{1,6}".prop_map(HostPath::from),
        name().prop_map(|name| HostPath::beneath("/absent", name)),
    ]
}

fn overlay() -> impl Strategy<Value = Overlay> {
    (path(), vec(host_path(), 0..3), option::of(number()), option::of((absent_path(), absent_path())), any::<bool>())
        .prop_map(|(target, lowers, size, upper, unmapped)| {
            let mut overlay = lowers.into_iter().fold(Overlay::new(target), Overlay::lower);
            if let Some(size) = size {
                overlay = overlay.upper_tmpfs(size);
            }
            if let Some((upper, work)) = upper {
                overlay = overlay.upper(upper, work);
            }
            if unmapped { overlay.unmapped() } else { overlay.owner(1, 2) }
        })
}

fn tmpfs() -> impl Strategy<Value = Tmpfs> {
    (path(), option::of(number()), option::of(number()), mode(), any::<bool>()).prop_map(
        |(target, size, inodes, mode, noexec)| {
            let mut tmpfs = Tmpfs::new(target).mode(mode);
            tmpfs = size.into_iter().fold(tmpfs, Tmpfs::size);
            tmpfs = inodes.into_iter().fold(tmpfs, Tmpfs::inodes);
            if noexec { tmpfs.noexec() } else { tmpfs }
        },
    )
}

fn proc() -> impl Strategy<Value = Proc> {
    let hidepid = option::of(select(vec![HidePid::NoAccess, HidePid::Invisible, HidePid::Ptraceable]));
    (path(), hidepid, any::<bool>()).prop_map(|(target, hidepid, subset)| {
        let proc = hidepid.into_iter().fold(Proc::new(target), Proc::hidepid);
        if subset { proc.subset_pid() } else { proc }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        bind().prop_map(Into::into),
        tmpfs().prop_map(Into::into),
        overlay().prop_map(Into::into),
        proc().prop_map(Into::into),
        path().prop_map(Operation::Dev),
        (path(), vec(any::<u8>(), 0..64), mode())
            .prop_map(|(target, contents, mode)| Operation::file(target, contents, mode)),
        (host_path(), path(), vec((path(), path()), 0..3), any::<bool>()).prop_map(
            |(from, target, paths, unmapped)| {
                let inputs = Inputs::new(target).files_as(from.clone(), paths).files(from, ["file"]);
                if unmapped { inputs.unmapped().into() } else { inputs.into() }
            }
        ),
        (name(), path()).prop_map(|(original, link)| Operation::symlink(original, link)),
        (path(), mode()).prop_map(|(target, mode)| Operation::create_dir(target, mode)),
        path().prop_map(Operation::Mask),
        path().prop_map(Operation::ReadOnly),
        path().prop_map(Operation::Protect),
    ]
}

pub fn root() -> impl Strategy<Value = Root> {
    let base = prop_oneof![
        Just(Root::host()),
        Just(Root::empty().writable()),
        Just(Root::system()),
        Just(Root::inherit()),
        host_path().prop_map(Root::from_dir),
    ];
    let terminals = prop_oneof![8 => Just(0), 1 => any::<u32>()];
    (base, vec(operation(), 0..5), terminals)
        .prop_map(|(base, operations, terminals)| operations.into_iter().fold(base, Root::with).terminals(terminals))
}

pub fn identity() -> impl Strategy<Value = Identity> {
    let range = (any::<u32>(), any::<u32>(), any::<u32>());
    let range = range.prop_map(|(inside, outside, count)| IdRange::new(inside, outside, count));
    prop_oneof![
        6 => Just(Identity::new()),
        2 => Just(Identity::caller()),
        1 => Just(Identity::new().sub_ids()),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(uid, gid)| Identity::new().uid(uid).gid(gid)),
        1 => vec(any::<u32>(), 0..4).prop_map(|groups| Identity::new().groups(groups)),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(first, count)| Identity::new().host_ids(first, count)),
        1 => (vec(range.clone(), 0..3), vec(range, 0..3)).prop_map(|(uid, gid)| Identity::new().maps(uid, gid)),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        select(vec![Action::Allow, Action::Log, Action::Notify, Action::Kill]),
        any::<i32>().prop_map(|number| Action::Errno(Errno::new(number))),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let comparison = prop_oneof![
        number().prop_map(Comparison::Equal),
        number().prop_map(Comparison::NotEqual),
        number().prop_map(Comparison::Less),
        number().prop_map(Comparison::LessOrEqual),
        number().prop_map(Comparison::Greater),
        number().prop_map(Comparison::GreaterOrEqual),
        (number(), number()).prop_map(|(mask, value)| Comparison::masked(mask, value)),
    ];
    (any::<u8>(), comparison, any::<bool>()).prop_map(|(argument, comparison, low_half)| match low_half {
        true => Condition::dword(argument, comparison),
        false => Condition::qword(argument, comparison),
    })
}

pub fn seccomp() -> impl Strategy<Value = Seccomp> {
    let base = prop_oneof![Just(Seccomp::new()), Just(Seccomp::allow_list()), Just(Seccomp::pure_computation())];
    let rules = vec(("\\PC{0,9}", vec(condition(), 0..3), action()), 0..4);
    (base, action(), rules, any::<[bool; 4]>()).prop_map(|(base, default, rules, [set_id, huge, netlink, record])| {
        let mut policy = base.default_action(default);
        for (call, conditions, action) in rules {
            policy = policy.when(call, conditions, action);
        }
        policy = if set_id { policy.allow_set_id_bits() } else { policy };
        policy = if huge { policy.allow_huge_pages() } else { policy };
        policy = if netlink { policy.allow_netlink() } else { policy };
        if record { policy.record() } else { policy }
    })
}

pub fn namespaces() -> impl Strategy<Value = Namespaces> {
    let kinds: Vec<Namespaces> = Namespaces::all().iter().collect();
    subsequence(kinds, 0..=8).prop_map(Namespaces::from_iter)
}

pub fn fs_access() -> impl Strategy<Value = FsAccess> {
    let rights: Vec<FsAccess> = FsAccess::all().iter().collect();
    subsequence(rights, 0..=17).prop_map(FsAccess::from_iter)
}

pub fn landlock() -> impl Strategy<Value = Landlock> {
    let paths = vec((path(), fs_access()), 0..4);
    (paths, vec(path(), 0..3), vec(path(), 0..3), vec(any::<u16>(), 0..3), any::<[bool; 4]>()).prop_map(
        |(paths, denied, read_only, ports, [path, tcp, signal, socket])| {
            let mut rules = Landlock::new();
            rules = paths.into_iter().fold(rules, |rules, (path, access)| rules.access(path, access));
            rules = denied.into_iter().fold(rules, Landlock::deny);
            rules = read_only.into_iter().fold(rules, Landlock::deny_write);
            rules = ports.iter().copied().fold(rules, Landlock::bind_port);
            rules = ports.into_iter().fold(rules, Landlock::connect_port);
            rules = if path { rules.any_path() } else { rules };
            rules = if tcp { rules.any_tcp() } else { rules };
            rules = if signal { rules.any_signal() } else { rules };
            if socket { rules.any_abstract_socket() } else { rules }
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let times = proptest::array::uniform4(option::of(duration()));
    let sizes = proptest::array::uniform3(option::of(number()));
    let resources = [Resource::As, Resource::Core, Resource::Cpu, Resource::Data, Resource::Fsize, Resource::Memlock];
    let rlimits = vec((select(resources.to_vec()), number(), number()), 0..4);
    let overflow = (any::<bool>(), option::of(any::<bool>()));
    (times, sizes, rlimits, overflow, option::of(any::<i32>()), option::of(any::<i32>())).prop_map(
        |([wall, cpu, idle, grace], [stdout, stderr, space], rlimits, (discard, stderr_discard), nice, score)| {
            let overflow = |discard| if discard { Overflow::Discard } else { Overflow::Kill };
            let mut limits = Limits::new().overflow(overflow(discard));
            limits = wall.into_iter().fold(limits, Limits::wall_time);
            limits = cpu.into_iter().fold(limits, Limits::cpu_time);
            limits = idle.into_iter().fold(limits, Limits::idle_timeout);
            limits = grace.into_iter().fold(limits, Limits::kill_grace);
            limits = stdout.into_iter().fold(limits, Limits::stdout_max);
            limits = stderr.into_iter().fold(limits, Limits::stderr_max);
            limits = space.into_iter().fold(limits, Limits::address_space_without_cgroup);
            limits = stderr_discard.map(overflow).into_iter().fold(limits, Limits::stderr_overflow);
            limits = nice.into_iter().fold(limits, Limits::nice);
            limits = score.into_iter().fold(limits, Limits::oom_score_adj);
            rlimits.into_iter().fold(limits, |limits, (resource, soft, hard)| limits.rlimit(resource, soft, hard))
        },
    )
}

fn cgroup() -> impl Strategy<Value = Cgroup> {
    let parent =
        prop_oneof![Just(CgroupParent::Auto), Just(CgroupParent::SystemdScope), path().prop_map(CgroupParent::Path),];
    let io = (option::of(number()), option::of(number())).prop_map(|(bytes, operations)| {
        let mut max = IoMax::default();
        (max.read_bytes, max.write_bytes) = (bytes, bytes);
        (max.read_operations, max.write_operations) = (operations, operations);
        max
    });
    let sizes = proptest::array::uniform4(option::of(number()));
    let cpus = option::of((0.0f64..1e9, duration()));
    let lists = (vec((path(), io), 0..3), vec(("[0-9]kB", number()), 0..3), vec(("\\PC{0,9}", "\\PC{0,9}"), 0..3));
    (parent, sizes, cpus, lists, any::<[bool; 3]>(), any::<u32>()).prop_map(
        |(parent, [max, high, swap, pids], cpus, (io, huge, raw), [unlimited, sets, freezable], weight)| {
            let mut cgroup = Cgroup::new().parent(parent);
            cgroup = max.into_iter().fold(cgroup, Cgroup::memory_max);
            cgroup = high.into_iter().fold(cgroup, Cgroup::memory_high);
            cgroup = swap.into_iter().fold(cgroup, Cgroup::swap_max);
            cgroup = pids.into_iter().fold(cgroup, Cgroup::pids_max);
            cgroup = if unlimited { cgroup.swap_unlimited() } else { cgroup };
            cgroup = cpus.into_iter().fold(cgroup, |cgroup, (cpus, period)| cgroup.cpu_max_in(cpus, period));
            cgroup = io.into_iter().fold(cgroup, |cgroup, (device, max)| cgroup.io_max(device, max));
            cgroup = huge.into_iter().fold(cgroup, |cgroup, (size, bytes)| cgroup.hugetlb_max(size, bytes));
            cgroup = raw.into_iter().fold(cgroup, |cgroup, (file, value)| cgroup.raw(file, value));
            if sets {
                cgroup = cgroup.cpuset_cpus("0-1").cpuset_mems("0").cpu_weight(weight).io_weight(weight);
            }
            if freezable { cgroup.freezable() } else { cgroup }
        },
    )
}

pub fn sandbox() -> impl Strategy<Value = Sandbox> {
    let names = (option::of(name()), option::of(name()));
    let joins = vec((namespaces(), any::<u32>()), 0..3);
    let offsets = option::of((any::<i64>(), any::<i64>()));
    let namespaces = (namespaces(), joins, names, offsets);
    let rights = (identity(), seccomp(), option::of(landlock()), any::<[bool; 3]>());
    let bounds = (limits(), option::of(cgroup()), duration());
    (namespaces, root(), rights, bounds).prop_map(
        |(
            (created, joins, (host, domain), offsets),
            root,
            (identity, seccomp, landlock, flags),
            (limits, cgroup, time),
        )| {
            let mut sandbox = Sandbox::new().namespaces(created);
            for (kinds, pid) in joins {
                sandbox = sandbox.join(kinds, NamespaceRef::pid(pid));
            }
            sandbox = host.into_iter().fold(sandbox, Sandbox::hostname);
            sandbox = domain.into_iter().fold(sandbox, Sandbox::domain_name);
            if let Some((monotonic, boottime)) = offsets {
                sandbox = sandbox.time_offsets(TimeOffsets::new().monotonic(monotonic).boottime(boottime));
            }
            sandbox = sandbox.root(root).identity(identity).seccomp(seccomp).limits(limits).setup_timeout(time);
            sandbox = landlock.into_iter().fold(sandbox, Sandbox::landlock);
            sandbox = cgroup.into_iter().fold(sandbox, Sandbox::cgroup);
            let [new_privs, capabilities, best_effort] = flags;
            sandbox = if new_privs { sandbox.allow_new_privs() } else { sandbox };
            if capabilities {
                sandbox = sandbox.capabilities(Capabilities::none().keep([Capability::NetBindService]));
            }
            if best_effort { sandbox.best_effort([Layer::Cgroup, Layer::Landlock]) } else { sandbox }
        },
    )
}

/// A command with any words, and without descriptors, which are no data.
pub fn command() -> impl Strategy<Value = Command> {
    let words = (name(), option::of(name()), vec(name(), 0..4), vec((name(), name()), 0..4), option::of(path()));
    let stdio = || option::of(select(vec![Stdio::inherit as fn() -> Stdio, Stdio::null, Stdio::piped]));
    let others =
        (stdio(), stdio(), stdio(), any::<[bool; 2]>(), option::of((any::<u16>(), any::<u16>())), option::of(name()));
    (words, others).prop_map(
        |((program, arg0, args, variables, cwd), (stdin, stdout, stderr, [session, clear], pty, bytes))| {
            let mut command = Command::new(program);
            if clear {
                command.env_clear();
            }
            command.args(args).envs(variables).new_session(session);
            arg0.map(|name| command.arg0(name).get_program().len());
            cwd.map(|directory| command.current_dir(directory).get_program().len());
            stdin.map(|stdio| command.stdin(stdio()).get_program().len());
            stdout.map(|stdio| command.stdout(stdio()).get_program().len());
            stderr.map(|stdio| command.stderr(stdio()).get_program().len());
            bytes.map(|bytes| command.stdin_bytes(bytes.into_vec()).get_program().len());
            pty.map(|(rows, columns)| command.pty(rows, columns).get_program().len());
            command
        },
    )
}

/// Names that a file can have, and texts of symbolic links.
fn file_name() -> impl Strategy<Value = OsString> {
    let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b'\\'), 1 => Just(b'x')];
    let is_name = |bytes: &Vec<u8>| bytes != b"." && bytes != b"..";
    vec(byte.prop_filter("no name has it", |byte| !b"\0/".contains(byte)), 1..12)
        .prop_filter("a directory's own", is_name)
        .prop_map(OsString::from_vec)
}

/// What a program has left, which is collected.
pub fn collected() -> impl Strategy<Value = Collected> {
    let left = vec((file_name(), file_name(), any::<bool>()), 0..4);
    (left, any::<i32>()).prop_map(|(left, errno)| {
        let place = tempfile::tempdir().expect("a directory");
        let from = place.path().join("from");
        std::fs::create_dir(&from).expect("a directory");
        for (name, text, is_link) in left {
            // Two may have one name.
            let path = from.join(name);
            let _ = if is_link { symlink(text, path) } else { std::fs::create_dir(path) };
        }
        let copy = |collector: Collector, to| collector.copy(&from, place.path().join(to)).expect("a copy");
        let mut collected = copy(Collector::new().symlinks(), "told");
        collected.skipped = copy(Collector::new(), "left").skipped;
        if let Some(last) = collected.skipped.last_mut() {
            last.reason = SkipReason::Unreadable(Errno::new(errno));
        }
        collected
    })
}
