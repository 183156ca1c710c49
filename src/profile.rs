//! Sandboxes as a starting point for four uses. Each is [`Sandbox::new`] with what its use asks for on top, so that all that
//! stands there holds here too: no network but a loopback of its own, no home directories, no host root, no capabilities, an
//! empty environment but `PATH`, and an end for every process that is left behind.
//!
//! A profile works for root and for ordinary users, and asks for nothing that a usual host may lack. So there is **no limit on
//! memory, processes or CPU time of the whole tree** in it, which takes a cgroup, and a cgroup takes root or a delegated
//! subtree; and no Landlock, which takes Linux 6.12 to say all that mounts and namespaces say already. Add the first wherever
//! you can have it, and what the program is to see:
//!
//! ```no_run
//! use std::time::Duration;
//! use stockade::{Cgroup, Command, profile};
//!
//! let sandbox = profile::build_step()
//!     .map_root(|root| root.bind("src", "/src").bind_rw("out", "/out"))
//!     .map_limits(|limits| limits.cpu(Duration::from_secs(60)))
//!     .cgroup(Cgroup::new().memory_max(2 << 30).pids_max(256));
//! let output = sandbox.output(Command::new("cc").args(["-O2", "-c", "/src/a.c", "-o", "/out/a.o"]))?;
//! # Ok::<(), stockade::Error>(())
//! ```
//!
//! What can't be had is an error, as always. Four things of a profile may be missing on some host: user namespaces; a hard
//! limit that is not below that of the profile (`ulimit -Hu`, `-Hs`, `-Hv`); with [`judge`] a filter that can end the
//! sandbox, which the kernel gives to nobody who runs under another such filter; and, on Linux before 5.14, processes within
//! the limit of [`build_step`], [`test()`] and [`agent`], since all those of an ordinary user count there, whatever sandbox they
//! are in.
//!
//! **The disk.** What a program can write without being asked is in memory, in file systems with a size. A directory that you
//! bind with `bind_rw` is on the disk of the host, and nothing in a profile bounds what comes there: RLIMIT_FSIZE, which limits
//! one file and not how many there are, ends programs that only reserve much (.NET makes a file of 2 TiB in memory, Go and Java
//! tools have sparse files). Bind a directory of a file system with a size or a quota, or set that limit where your programs take
//! it: `map_limits(|limits| limits.rlimit(Resource::Fsize, 1 << 30, 1 << 30))`.
//!
//! Limits on output are kept by [`Sandbox::output`] and [`Child::wait_with_output`](crate::Child::wait_with_output), which
//! collect it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::confine::{Action, Bind, Comparison, Condition, Limits, Proc, Resource, Root, Seccomp, Tmpfs};
use crate::sandbox::Sandbox;
use crate::watch::Overflow;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// For a step of a build: a compiler, a linker, a code generator. It is to depend on nothing but its declared inputs, and to
/// change nothing but its outputs.
///
/// | what | why |
/// |---|---|
/// | the host's file system, read-only; bind sources with `bind`, the directory of outputs with `bind_rw` | a toolchain may be anywhere; a step that writes into its sources makes the next build another one |
/// | no network | what was downloaded is an input that nobody declared |
/// | `/tmp`, `/var/tmp`, `/dev/shm` of its own, 1 GiB each | compilers keep their intermediate files there, and must not meet those of other steps; without a size each may take half of the memory |
/// | an empty `/var` of 16 MiB, with what language tools have there (`/var/lib/gems`, `/var/lib/ghc`, `/var/lib/ocaml`, `/var/lib/texmf`) | whoever can read a file can lock it, and databases of the machine are there; bind what else is needed: `bind("/var/lib/dpkg", "/var/lib/dpkg")` |
/// | [`Seccomp::new`] without ptrace(2) and its like | steps execute whatever tools they like, but none looks into other processes |
/// | 1,024 processes | `make -j` and parallel linkers have room, a recipe that calls itself has not |
/// | 10 minutes, then SIGTERM, 2 s later SIGKILL | a step that hangs fails; compilers remove their partial outputs when asked to end |
/// | 64 MiB of each of stdout and stderr | errors of templates are long, but nobody reads more |
pub fn build_step() -> Sandbox {
    let limits = ending(600, 2).stdout(64 * MIB).stderr(64 * MIB);
    let limits = limits.rlimit(Resource::Nproc, 1024, 1024);
    Sandbox::new().root(scratch(without_var(), GIB)).seccomp(Seccomp::new().deny(TRACING)).limits(limits)
}

/// For a test that should come to the same result whatever ran before it, beside it, or is left over from it.
///
/// | what | why |
/// |---|---|
/// | the host's file system, read-only | the test and its fixtures may be anywhere; what it writes there would be seen by the next one |
/// | a network of its own with a loopback | each test has all ports: two that listen on 8080 don't meet, and none depends on a server that is down |
/// | a pid namespace | daemons that the test leaves end with it, and it can't kill those of others; which they were is in [`Outcome::leaked`](crate::Outcome::leaked), if the sandbox has a [`Cgroup`](crate::Cgroup) |
/// | `/tmp`, `/var/tmp`, `/dev/shm` of its own, 1 GiB each | no file of an earlier run is there, and none stays |
/// | an empty `/var` of 16 MiB, with what language tools have there (`/var/lib/gems`, `/var/lib/ghc`, `/var/lib/ocaml`, `/var/lib/texmf`) | whoever can read a file can lock it, and databases of the machine are there; no state of the machine changes what a test finds; bind what else is needed: `bind("/var/lib/dpkg", "/var/lib/dpkg")` |
/// | [`Seccomp::new`] | tests do strange things on purpose: debuggers and sanitizers (ptrace(2)) run |
/// | no pseudo-terminals | kernel threads work for them that no limit counts; [`Root::terminals`], by [`Sandbox::map_root`], gives some |
/// | 1,024 processes | a test that starts more in a loop is told so by `EAGAIN`, and the host goes on |
/// | 5 minutes, then SIGTERM, 5 s later SIGKILL | a test that hangs fails; harnesses write where it hung when asked to end |
/// | 16 MiB of each of stdout and stderr | a log that is longer is a loop |
pub fn test() -> Sandbox {
    let limits = ending(300, 5).stdout(16 * MIB).stderr(16 * MIB);
    Sandbox::new().root(scratch(without_var(), GIB)).limits(limits.rlimit(Resource::Nproc, 1024, 1024))
}

/// For a submission to an online judge, in C, C++, Rust or Python: it reads its input, computes, and writes an answer.
///
/// | what | why |
/// |---|---|
/// | programs and libraries of the host (`/usr` without `/usr/src`), and nothing else of it; bind the submission with `bind` | the answers, other submissions and the judge's own files are on the same disk |
/// | [`Seccomp::pure_computation`] | whoever makes a process, opens a socket, or writes a file wants something else than the answer: [`Termination::Syscall`](crate::Termination::Syscall) names the call |
/// | `/proc` with processes alone, a minimal `/dev` | `/dev/stdin` is how some read their input; the machine's load is nobody's business |
/// | 10 s, then SIGKILL | the last resort, for a sleeper too: the limit of the problem is [`Limits::cpu`], which takes a cgroup |
/// | 1 GiB of address space, unless [`Cgroup::memory_max`](crate::Cgroup::memory_max) is set | the last resort as well: a verdict on memory is that of the cgroup. It holds since there is one process alone |
/// | 256 MiB of stack | deep recursion is no mistake of the contestant's |
/// | 8 MiB of stdout | no answer is longer |
/// | 64 KiB of stderr, and the rest is discarded | traces are no answer, and no reason for a verdict: [`Output::stderr_truncated`](crate::Output::stderr_truncated) tells that there were more |
///
/// Give the input by a pipe. `/proc/self/fd/0` names the path of a file, and answers often lie beside it. Compile with
/// the same root, too: a compiler includes whatever file it can read (`.incbin "tests/1.out"`). `examples/judge` does both.
///
/// Java, Go and Node need threads and more address space than they use, so that a cgroup is what limits their memory: give
/// them limits of their own, and a policy such as `runtime` in `examples/judge/policy.rs`.
pub fn judge() -> Sandbox {
    let limits = ending(10, 0).stdout(8 * MIB).stderr(64 * KIB).stderr_overflow(Overflow::Discard);
    let limits = limits.address_space_without_cgroup(GIB).rlimit(Resource::Stack, 256 * MIB, 256 * MIB);
    let root = programs(&["/etc/alternatives", "/etc/ld.so.cache"]).mount(Proc::new("/proc").subset_pid()).dev("/dev");
    Sandbox::new().root(root).seccomp(Seccomp::pure_computation()).limits(limits)
}

/// For code that a model has written, or a plug-in, or anything else that nobody has read: it works in a workspace, with the
/// tools of the host.
///
/// | what | why |
/// |---|---|
/// | programs and libraries of the host (`/usr` without `/usr/src`) and `/etc`, read-only, and nothing else of it; bind the workspace with `bind_rw`, one of git with `git_workspace` | keys, tokens and other projects can't be told to anybody by who can't read them, wherever they are; and what the code changes is in the workspace |
/// | an empty environment but `PATH` | tokens are most often there; name what it needs by [`Command::env`](crate::Command::env) |
/// | no network | what it has read can't leave, and nothing comes in; a service of the host's that listens on its loopback is not there |
/// | [`Seccomp::container`] without inotify(7) and seccomp filters of its own | an allow-list: what is new in the kernel, or was often the way out, is not there; a watch on `/usr` or `/etc` would show which files other processes of the host open; filters take memory that no cgroup counts |
/// | `/tmp`, `/var/tmp`, `/dev/shm` of its own, 256 MiB each | scratch files that end with it, and can't fill the memory |
/// | 512 processes | a package manager or a test run has room, a fork bomb has not |
/// | 2 minutes, then SIGTERM, 2 s later SIGKILL | somebody waits for the answer |
/// | 1 MiB of each of stdout and stderr | whoever reads it, a model or a person, reads no more |
///
/// In a workspace of git(1) use [`Root::git_workspace`]: hooks and settings that the program plants would be executed on the
/// host by the next `git status`. Protect what else is executed there without being asked for by [`Root::protect`]
/// (`.envrc`, `.vscode/`, a `Makefile`). The host can replace what is protected, by a rename; the program can't.
///
/// What it leaves in the workspace nobody has read either: scripts, hooks of a version control system, recipes of a build are to
/// be run in a sandbox as well. A directory in the workspace is bound for another program by
/// [`HostPath::beneath`](crate::HostPath::beneath), and taken out by a [`Collector`](crate::Collector): a path there may have
/// become a symlink.
pub fn agent() -> Sandbox {
    let limits = ending(120, 2).stdout(MIB).stderr(MIB);
    let root = programs(&["/etc"]).proc("/proc").dev("/dev");
    Sandbox::new()
        .root(scratch(root, 256 * MIB))
        .seccomp(without_filters(without_watches(Seccomp::container())))
        .limits(limits.rlimit(Resource::Nproc, 512, 512))
}

/// What looks into other processes, or changes them.
const TRACING: [&str; 4] = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"];

/// Denies what reports that other processes of the host use a file: inotify(7), and dnotify (`F_NOTIFY` of fcntl(2)). Programs
/// that find it missing look at the files from time to time.
fn without_watches(policy: Seccomp) -> Seccomp {
    let notifies = Condition::int(1, Comparison::Equal(libc::F_NOTIFY as u64));
    policy.on(["inotify_init", "inotify_init1"], Action::Errno(libc::ENOSYS)).when(
        "fcntl",
        [notifies],
        Action::Errno(libc::EINVAL),
    )
}

/// Denies seccomp filters of the program's own, as a kernel that has none does (`EINVAL`): each process could take 700 kB of the
/// memory that the kernel has for all filters of the machine (`net.core.bpf_jit_limit`), which no cgroup counts. Asking
/// whether the kernel has filters passes a null pointer.
fn without_filters(policy: Seccomp) -> Seccomp {
    let is = |argument, value: u32| Condition::int(argument, Comparison::Equal(value.into()));
    let has_filter = Condition::new(2, Comparison::NotEqual(0));
    policy.when("seccomp", [is(0, libc::SECCOMP_SET_MODE_FILTER), has_filter], Action::Errno(libc::EINVAL)).when(
        "prctl",
        [is(0, libc::PR_SET_SECCOMP as u32), is(1, libc::SECCOMP_MODE_FILTER), has_filter],
        Action::Errno(libc::EINVAL),
    )
}

/// The programs and libraries of the host, as far as it has them, and what they need of `/etc`.
fn programs(of_etc: &[&str]) -> Root {
    let system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];
    let present = system.iter().chain(of_etc).map(Path::new).filter(|path| path.exists());
    let root = present.fold(Root::empty(), |root, path| match fs::read_link(path) {
        Ok(text) => root.symlink(text, path),
        // As any other user sees them: what root alone may read is not among them, also where the host is root.
        Err(_) => root.mount(Bind::new(path, path).unmapped()),
    });
    // Images of containers have their application there.
    root.mask("/usr/src")
}

/// The host's file system with a `/var` of its own: who can read a file can lock it, and so stop a database of the host.
fn without_var() -> Root {
    const READ: [&str; 4] = ["/var/lib/gems", "/var/lib/ghc", "/var/lib/ocaml", "/var/lib/texmf"];
    let var = Tmpfs::new("/var").size(16 * MIB);
    let root = Root::host().mount(var).symlink("/run", "/var/run").symlink("/run/lock", "/var/lock");
    let root = ["/run/lock", "/var/cache", "/var/lib", "/var/log"].into_iter().fold(root, Root::directory);
    // As any other user sees them.
    let read = READ.into_iter().filter(|path| Path::new(path).is_dir()).map(|path| Bind::new(path, path).unmapped());
    read.fold(root, Root::mount)
}

/// Places for scratch files in memory, of so many bytes each.
fn scratch(root: Root, bytes: u64) -> Root {
    // An inode takes memory that the size does not count.
    const BYTES_OF_INODE: u64 = 8 * KIB;
    let place = |path| Tmpfs::new(path).size(bytes).inodes(bytes / BYTES_OF_INODE).mode(0o1777);
    ["/tmp", "/var/tmp", "/dev/shm"].into_iter().fold(root, |root, path| root.mount(place(path)))
}

/// An end after so many seconds, and so many more for those who have something to tidy up.
fn ending(seconds: u64, grace: u64) -> Limits {
    let limits = Limits::new().wall(Duration::from_secs(seconds));
    if grace == 0 { limits } else { limits.kill_grace(Duration::from_secs(grace)) }
}
