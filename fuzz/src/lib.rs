//! Random sandboxes, and what must hold of any.

use std::path::PathBuf;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockade::capabilities::Capability;
use stockade::identity::IdRange;
use stockade::landlock::FsAccess;
use stockade::limits::{Overflow, Resource};
use stockade::mount::{Bind, HidePid, Operation, Overlay, Proc, Tmpfs};
use stockade::namespaces::TimeOffsets;
use stockade::{
    Capabilities, Cgroup, Command, Compiled, Identity, Landlock, Layer, Limits, Namespaces, Root, Sandbox, Seccomp,
    Stdio,
};

/// Paths that mean something, and others.
const PATHS: [&str; 20] = [
    "/",
    "",
    ".",
    "relative",
    "/a/../b",
    "/usr",
    "/etc",
    "/etc/passwd",
    "/tmp",
    "/proc",
    "/proc/self/fd/0",
    "/dev",
    "/sys",
    "/dev/null",
    "/run/x",
    "/a:b,c",
    "/new\nline",
    "/nowhere/at/all",
    "/tmp/a/b/c",
    "/home",
];

fn path(u: &mut Unstructured) -> Result<PathBuf> {
    Ok(if u.ratio(4, 5)? { u.choose(&PATHS)?.into() } else { String::arbitrary(u)?.into() })
}

/// Something, or what is there without it, as often.
fn perhaps<T>(u: &mut Unstructured, without: T, with: impl FnOnce(&mut Unstructured, T) -> Result<T>) -> Result<T> {
    if u.arbitrary()? { with(u, without) } else { Ok(without) }
}

fn times<T>(
    u: &mut Unstructured,
    most: usize,
    mut each: impl FnMut(&mut Unstructured, T) -> Result<T>,
    start: T,
) -> Result<T> {
    let count = u.int_in_range(0..=most)?;
    (0..count).try_fold(start, |value, _| each(u, value))
}

fn mount(u: &mut Unstructured) -> Result<Operation> {
    Ok(match u.int_in_range(0..=10)? {
        // Nothing of the host is writable: no iteration may change the next one's host.
        0 => Bind::new(path(u)?, path(u)?).noexec().into(),
        1 => Bind::new(path(u)?, path(u)?).owner(u.arbitrary()?, u.arbitrary()?).devices().into(),
        2 => Tmpfs::new(path(u)?).size(u.arbitrary()?).inodes(u.arbitrary()?).mode(u.arbitrary::<u32>()?).into(),
        3 => {
            let overlay = Overlay::new(path(u)?).upper_tmpfs(u.int_in_range(0..=1 << 20)?);
            times(u, 3, |u, overlay: Overlay| Ok(overlay.lower(path(u)?)), overlay)?.into()
        }
        4 => Proc::new(path(u)?)
            .hidepid(*u.choose(&[HidePid::NoAccess, HidePid::Invisible, HidePid::Ptraceable])?)
            .into(),
        5 => Operation::Dev(path(u)?),
        6 => Operation::file(path(u)?, u.arbitrary::<Vec<u8>>()?, u.arbitrary::<u32>()?),
        7 => Operation::symlink(path(u)?, path(u)?),
        8 => Operation::create_dir(path(u)?, u.arbitrary::<u32>()?),
        9 => Operation::Mask(path(u)?),
        _ => Operation::ReadOnly(path(u)?),
    })
}

fn root(u: &mut Unstructured) -> Result<Root> {
    let base = match u.int_in_range(0..=3)? {
        0 => Root::host(),
        1 => Root::empty(),
        2 => Root::inherit(),
        _ => Root::from_dir(path(u)?),
    };
    times(u, 5, |u, root: Root| Ok(root.with(mount(u)?)), base)
}

fn ranges(u: &mut Unstructured) -> Result<Vec<IdRange>> {
    let range = |u: &mut Unstructured, mut ranges: Vec<IdRange>| {
        ranges.push(IdRange::new(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?));
        Ok(ranges)
    };
    times(u, 3, range, vec![])
}

fn identity(u: &mut Unstructured) -> Result<Identity> {
    Ok(match u.int_in_range(0..=4)? {
        0 => Identity::new(),
        1 => Identity::caller(),
        2 => Identity::new().uid(u.arbitrary()?).gid(u.arbitrary()?).groups(Vec::<u32>::arbitrary(u)?),
        3 => Identity::new().host_ids(u.arbitrary()?, u.arbitrary()?),
        _ => Identity::new().maps(ranges(u)?, ranges(u)?),
    })
}

fn limits(u: &mut Unstructured) -> Result<Limits> {
    const RESOURCES: [Resource; 8] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Stack,
    ];
    let limits = Limits::new().wall_time(Duration::from_secs(5)).stdout_max(u.arbitrary()?).overflow(Overflow::Discard);
    let limits = perhaps(u, limits, |u, limits| Ok(limits.cpu_time(Duration::from_nanos(u.arbitrary()?))))?;
    times(u, 3, |u, limits: Limits| Ok(limits.rlimit(*u.choose(&RESOURCES)?, u.arbitrary()?, u.arbitrary()?)), limits)
}

fn cgroup(u: &mut Unstructured) -> Result<Cgroup> {
    let cgroup = Cgroup::new();
    let cgroup = perhaps(u, cgroup, |u, cgroup| Ok(cgroup.memory_max(u.arbitrary()?)))?;
    let cgroup = perhaps(u, cgroup, |u, cgroup| Ok(cgroup.pids_max(u.arbitrary()?)))?;
    let cgroup = perhaps(u, cgroup, |u, cgroup| Ok(cgroup.cpu_max(u.arbitrary()?)))?;
    let cgroup = perhaps(u, cgroup, |u, cgroup| Ok(cgroup.cpuset_cpus(String::arbitrary(u)?)))?;
    perhaps(u, cgroup, |u, cgroup| Ok(cgroup.raw(String::arbitrary(u)?, String::arbitrary(u)?)))
}

/// Some of these flags.
fn some<T: FromIterator<T>>(u: &mut Unstructured, flags: impl Iterator<Item = T>) -> Result<T> {
    flags.filter_map(|flag| u.arbitrary::<bool>().map(|is_in| is_in.then_some(flag)).transpose()).collect()
}

/// A Landlock ruleset.
pub fn landlock(u: &mut Unstructured) -> Result<Landlock> {
    let rule = |u: &mut Unstructured, landlock: Landlock| {
        Ok(match u.int_in_range(0..=6)? {
            0 => landlock.read_only(path(u)?),
            1 => landlock.read_write(path(u)?),
            2 => landlock.access(path(u)?, some(u, FsAccess::all().iter())?),
            3 => landlock.deny(path(u)?),
            4 => landlock.deny_write(path(u)?),
            5 => landlock.bind_port(u.arbitrary()?).connect_port(u.arbitrary()?),
            _ => landlock.any_path().any_signal(),
        })
    };
    times(u, 6, rule, Landlock::new())
}

fn seccomp(u: &mut Unstructured) -> Result<Seccomp> {
    let presets: [fn() -> Seccomp; 4] =
        [Seccomp::new, Seccomp::pure_computation, Seccomp::container, Seccomp::unconfined];
    let preset = u.choose(&presets)?();
    times(
        u,
        3,
        |u, policy: Seccomp| Ok(policy.deny([*u.choose(&["ptrace", "socket", "read", "nonsense", "exit_group"])?])),
        preset,
    )
}

/// A sandbox of all that there is.
pub fn sandbox(u: &mut Unstructured) -> Result<Sandbox> {
    const LAYERS: [Layer; 6] =
        [Layer::Namespaces, Layer::Root, Layer::Capabilities, Layer::Cgroup, Layer::Landlock, Layer::Seccomp];
    let namespaces = if u.arbitrary()? { some(u, Namespaces::all().iter())? } else { Namespaces::all() };
    let sandbox = Sandbox::new().namespaces(namespaces).root(root(u)?).limits(limits(u)?);
    let sandbox = perhaps(u, sandbox, |u, sandbox| Ok(sandbox.identity(identity(u)?)))?;
    let sandbox = perhaps(u, sandbox, |u, sandbox| Ok(sandbox.hostname(String::arbitrary(u)?)))?;
    let sandbox = perhaps(u, sandbox, |u, sandbox| {
        Ok(sandbox.time_offsets(TimeOffsets::new().monotonic(u.arbitrary()?).boottime(u.arbitrary()?)))
    })?;
    let sandbox = perhaps(u, sandbox, |u, sandbox| Ok(sandbox.cgroup(cgroup(u)?)))?;
    let sandbox = perhaps(u, sandbox, |u, sandbox| Ok(sandbox.landlock(landlock(u)?)))?;
    let sandbox = perhaps(u, sandbox, |u, sandbox| Ok(sandbox.seccomp(seccomp(u)?)))?;
    let sandbox = perhaps(u, sandbox, |_, sandbox| {
        Ok(sandbox.capabilities(Capabilities::none().keep([Capability::NetRaw, Capability::SysAdmin])))
    })?;
    perhaps(u, sandbox, |u, sandbox| Ok(sandbox.best_effort([*u.choose(&LAYERS)?])))
}

/// A command that does no harm.
pub fn command() -> Command {
    Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).into()
}

/// A plan, or a refusal that says what to do.
pub fn planned(sandbox: &Sandbox) -> Option<Compiled> {
    match sandbox.plan(command()) {
        Ok(plan) => {
            assert!(plan.to_string().contains("execve"));
            Some(plan)
        }
        Err(error) => {
            assert!(error.step().is_some() || error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
            None
        }
    }
}
