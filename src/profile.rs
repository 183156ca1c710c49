//! Ready-made sandboxes for common uses: [`build_step`], [`test()`], [`compile_untrusted`], [`judge`] and [`agent`].
//!
//! A profile is [`Sandbox::new`] with other settings for its use. The guarantees of the default sandbox also hold here:
//! no network except its own loopback device, no home directories, no user ID 0 on the host, no capabilities, no
//! environment variables of the caller, and all processes are killed when the program exits. Use a profile as a
//! starting point: bind the directories that the program needs, and adjust the limits.
//!
//! ```
//! use std::time::Duration;
//! use stockade::{Cgroup, Command, Layer, profile};
//!
//! let dir = tempfile::tempdir()?;
//! let sandbox = profile::build_step()
//!     .map_root(|root| root.bind_rw(dir.path(), "/work"))
//!     .map_limits(|limits| limits.wall_time(Duration::from_secs(60)))
//!     .cgroup(Cgroup::new().memory_max(2 << 30).pids_max(256))
//!     .best_effort([Layer::Cgroup]);
//! assert!(sandbox.status(Command::new("sh").args(["-c", "echo 42 > /work/answer"]))?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Names, home directory and environment
//!
//! Many programs need these, so all profiles give the program's user and group a name ([`Root::user_names`]), and
//! resolve the host name ([`Root::network_names`]). All but [`judge`] also set environment variables, which
//! [`Command::env`](crate::Command::env) replaces:
//!
//! | variable | value | reason |
//! |---|---|---|
//! | `HOME` | `/home/sandbox`, a tmpfs of its own | git(1), Go and package managers look for settings and keep caches there |
//! | `LANG` | `C.UTF-8` | without it Java, Python and Perl treat text as ASCII |
//! | `TERM` | `xterm-256color`, with [`Command::pty`](crate::Command::pty) only | programs that draw on a terminal need it |
//!
//! # Limits that a profile does not set
//!
//! Profiles work for root and for ordinary users on most hosts. So they do not use:
//!
//! - **A cgroup**, which requires root or a delegated subtree. The memory and CPU time of the whole process tree are
//!   not limited. All but [`judge`] limit the number of processes with [`Resource::Nproc`]. Add
//!   [`Sandbox::cgroup`] if you can.
//! - **A limit on disk usage.** Without a bind the program writes only to memory, in file systems with a size. A
//!   directory that you bind with `bind_rw` is on a disk of the host. Use a file system with a size or a quota, or
//!   limit the size of each file: `map_limits(|limits| limits.rlimit(Resource::Fsize, 1 << 30, 1 << 30))`. Profiles
//!   other than [`compile_untrusted`] do not set `RLIMIT_FSIZE`, because it kills programs that create large sparse
//!   files (.NET, and tools of Go and Java), and does not limit the number of files.
//! - **Landlock**: mounts and namespaces already enforce these rules.
//!
//! # Errors
//!
//! As with any sandbox, a spawn returns an error if a layer cannot be enforced:
//!
//! - if the host does not support user namespaces;
//! - if a hard limit of the caller is lower than that of the profile (`ulimit -Hu`, `-Hs`, `-Hv`, `-Hd`, `-Hf`, `-Ht`);
//! - for [`judge`], if the caller itself has a seccomp filter with notifications;
//! - for all but [`judge`] before Linux 5.14, if all processes of an ordinary user together exceed the limit on
//!   processes.
//!
//! Limits on output are enforced by [`Sandbox::output`] and
//! [`Child::wait_with_output`](crate::Child::wait_with_output), which collect the output.

use std::path::Path;
use std::time::Duration;

use crate::confine::{Action, Bind, Comparison, Condition, Limits, Overflow, Proc, Resource, Root, Seccomp, Tmpfs};
use crate::host_path::is_directory;
use crate::sandbox::Sandbox;
use crate::unix::Errno;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Returns a sandbox for a step of a build: a compiler, a linker, a code generator.
///
/// The step depends only on its declared inputs, and changes only its outputs. Bind the sources with `bind`, and the
/// directory for outputs with `bind_rw`.
///
/// | setting | reason |
/// |---|---|
/// | the host's file system, read-only | a toolchain may be installed anywhere; a step that changes its sources changes the next build |
/// | no network | a download is an undeclared input |
/// | its own `/tmp`, `/var/tmp`, `/dev/shm`, 1 GiB each | compilers keep intermediate files there, which must not mix with those of other steps; without a size each may take half of the memory |
/// | an empty `/var` of 16 MiB, with the files of language tools (`/var/lib/gems`, `/var/lib/ghc`, `/var/lib/ocaml`, `/var/lib/texmf`) | a process that can read a file can lock it, and databases of the host are in `/var`; bind other directories that are needed: `bind("/var/lib/dpkg", "/var/lib/dpkg")` |
/// | `HOME=/home/sandbox`, a tmpfs of 1 GiB, and `LANG=C.UTF-8` | programs keep settings and caches in a home directory, and expect UTF-8 |
/// | [`Seccomp::new`] without ptrace(2) and similar calls | a step may execute any tool, but does not inspect other processes |
/// | 1,024 processes ([`Resource::Nproc`]) | enough for `make -j` and parallel linkers, and a bound for a recipe that calls itself |
/// | 10 minutes of wall-clock time, then SIGTERM, 2 s later SIGKILL | a step that hangs fails; compilers remove partial outputs on SIGTERM |
/// | 64 MiB of each of stdout and stderr | template errors are long, but nobody reads more |
///
/// ```
/// use stockade::{Command, profile};
///
/// let (src, out) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// std::fs::write(src.path().join("a.txt"), "hello")?;
///
/// let sandbox =
///     profile::build_step().map_root(|root| root.bind(src.path(), "/src").bind_rw(out.path(), "/out"));
/// assert!(sandbox.status(Command::new("cp").args(["/src/a.txt", "/out/b.txt"]))?.success());
/// assert_eq!(std::fs::read_to_string(out.path().join("b.txt"))?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn build_step() -> Sandbox {
    let limits = time_limits(600, 2).stdout_max(64 * MIB).stderr_max(64 * MIB);
    let limits = limits.rlimit(Resource::Nproc, 1024, 1024);
    with_home(without_var(), GIB).seccomp(Seccomp::new().deny(TRACING)).limits(limits)
}

/// Returns a sandbox for a test.
///
/// The result of the test does not depend on what ran before it or runs beside it.
///
/// | setting | reason |
/// |---|---|
/// | the host's file system, read-only | the test and its fixtures may be anywhere; what a test wrote there would affect the next one |
/// | a network namespace with a loopback device | each test has all ports: two tests that listen on 8080 do not conflict, and none depends on an external server |
/// | a PID namespace | daemons that the test started are killed with it, and it cannot kill processes of other tests; [`Outcome::leaked`](crate::Outcome::leaked) lists the daemons if the sandbox has a [`Cgroup`](crate::Cgroup) |
/// | its own `/tmp`, `/var/tmp`, `/dev/shm`, 1 GiB each | no file of an earlier run is there, and none stays |
/// | an empty `/var` of 16 MiB, with the files of language tools (`/var/lib/gems`, `/var/lib/ghc`, `/var/lib/ocaml`, `/var/lib/texmf`) | a process that can read a file can lock it, and databases of the host are in `/var`; no state of the host changes a result; bind other directories that are needed: `bind("/var/lib/dpkg", "/var/lib/dpkg")` |
/// | `HOME=/home/sandbox`, a tmpfs of 1 GiB, and `LANG=C.UTF-8` | programs keep settings and caches in a home directory, and expect UTF-8 |
/// | [`Seccomp::new`] | tests use unusual features on purpose: debuggers and sanitizers (ptrace(2)) work |
/// | no pseudo-terminals | no limit counts the CPU time of the kernel threads that serve them; use [`Root::terminals`] with [`Sandbox::map_root`] if the test needs them |
/// | 1,024 processes ([`Resource::Nproc`]) | a test that starts more in a loop gets `EAGAIN`, and the host stays usable |
/// | 5 minutes of wall-clock time, then SIGTERM, 5 s later SIGKILL | a test that hangs fails; harnesses report on SIGTERM where it hung |
/// | 16 MiB of each of stdout and stderr | a longer log comes from a loop |
///
/// ```
/// use stockade::{Command, profile};
///
/// let output = profile::test().output(Command::new("sh").args(["-c", "ls /tmp | wc -l"]))?;
/// assert_eq!(output.stdout, b"0\n");
/// # Ok::<(), stockade::Error>(())
/// ```
pub fn test() -> Sandbox {
    let limits = time_limits(300, 5).stdout_max(16 * MIB).stderr_max(16 * MIB);
    with_home(without_var(), GIB).limits(limits.rlimit(Resource::Nproc, 1024, 1024))
}

/// Returns a sandbox for a submission to an online judge, in C, C++, Rust or Python.
///
/// The submission reads its input, computes, and writes an answer. Bind the executable with `bind`.
///
/// | setting | reason |
/// |---|---|
/// | programs and libraries of the host ([`Root::system`]). No other files of the host are visible | answers, other submissions and the judge's own files are on the same disk |
/// | [`Seccomp::pure_computation`] | a submission has no reason to create a process, open a socket or write a file: [`Termination::Syscall`](crate::Termination::Syscall) names the call |
/// | `/etc/hosts`, `/etc/passwd` and `/etc/group` with the sandbox's own names alone | runtimes look up the host name and the user |
/// | `/proc` with processes only, a minimal `/dev` | some programs read their input from `/dev/stdin`; files on the state of the host are not visible. sysinfo(2) still tells its load |
/// | 10 s of wall-clock time, then SIGKILL | a last resort, also for a program that sleeps; set the limit of the problem with [`Limits::cpu_time`], which requires a cgroup |
/// | 1 GiB of address space, unless [`Cgroup::memory_max`](crate::Cgroup::memory_max) is set | a last resort too, which is enough because there is only one process; a verdict on memory requires the cgroup |
/// | 256 MiB of stack | deep recursion is allowed |
/// | 8 MiB of stdout, then killed ([`Termination::Output`](crate::Termination::Output)) | no answer is longer |
/// | 64 KiB of stderr, the rest is discarded | traces are not part of the answer, and not a reason for a verdict; [`Output::stderr_truncated`](crate::Output::stderr_truncated) reports that there was more |
///
/// Pass the input with [`Command::stdin_bytes`](crate::Command::stdin_bytes), or through a pipe. A file that the
/// program gets as the caller's own descriptor reveals its path ([`Command::fd`](crate::Command::fd)), and the answers
/// are often in the same directory. Compile with [`compile_untrusted`]: a compiler includes any file that it can read
/// (`.incbin "tests/1.out"`). `examples/judge` does both.
///
/// Java, Go and Node need threads, and more address space than they use. Limit their memory by a cgroup, and give them
/// the policy [`Seccomp::runtime`].
///
/// ```
/// use stockade::{Command, profile};
///
/// let output = profile::judge().output(Command::new("echo").arg("42"))?;
/// assert_eq!(output.stdout, b"42\n");
/// # Ok::<(), stockade::Error>(())
/// ```
pub fn judge() -> Sandbox {
    let limits = time_limits(10, 0).stdout_max(8 * MIB).stderr_max(64 * KIB).stderr_overflow(Overflow::Discard);
    let limits = limits.address_space_without_cgroup(GIB).rlimit(Resource::Stack, 256 * MIB, 256 * MIB);
    Sandbox::new().root(installed_programs().user_names()).seccomp(Seccomp::pure_computation()).limits(limits)
}

/// Returns a sandbox for a compiler of untrusted sources, such as submissions to an online judge.
///
/// A source can make its compiler read any file (`#include "/etc/passwd"`, `.incbin`, `include_str!`), disclose it in an
/// error message or in the program, and use time, memory and disk without a bound. Assume that it can also execute code in
/// the compiler. Bind the source with `bind`, and a directory for the output with `bind_rw`.
///
/// | setting | reason |
/// |---|---|
/// | programs and libraries of the host ([`Root::system`]). No other files of the host are visible | what the compiler can read, the author of the source can read |
/// | `/etc/hosts`, `/etc/passwd` and `/etc/group` with the sandbox's own names alone | compilers look up the user, and the names of the host are none of the author's business |
/// | `/proc` with processes only, a minimal `/dev` | Java and Rust find their libraries by `/proc/self/exe`. `/proc/self/mountinfo` shows the paths of binds on the host: do not put secrets into names of directories |
/// | no environment variables but `PATH`, `HOME` and `LANG` | `/proc/self/environ`, `env!` and `getenv` in a plug-in read them |
/// | no network | what was read cannot be sent anywhere |
/// | [`Seccomp::container`] without inotify(7), without installing seccomp filters, and without ptrace(2) and similar calls | an allow-list denies new and exploit-prone system calls |
/// | `HOME=/home/sandbox`, `/tmp`, `/var/tmp` and `/dev/shm`, 512 MiB each | compilers write temporary files, and Go a cache |
/// | 256 MiB for each file ([`Resource::Fsize`], then SIGXFSZ) | `int a[1 << 30] = {1};` would write 4 GiB |
/// | 2 GiB of data for each process ([`Resource::Data`]) | `#include "/dev/zero"` is read until memory is exhausted. Unlike a limit on address space, this does not fail Java, Go and others that reserve more than they use |
/// | 256 processes and threads ([`Resource::Nproc`]) | enough for parallel code generation and Java |
/// | 60 s of CPU time for each process ([`Resource::Cpu`]), 2 minutes of wall-clock time, then SIGKILL | templates and constant expressions compute without end |
/// | 1 MiB of stdout and of stderr, the rest is discarded | a flood of error messages is still a compile error |
///
/// The limits on memory and CPU time are for each process. Add a [`Cgroup`](crate::Cgroup) with `memory_max`, `pids_max`
/// and [`Limits::cpu_time`] for all processes together. A writable bind has no limit on its size: see "Limits that a profile
/// does not set" in [`profile`](self).
///
/// A source can read the standard input of its compiler (`#include "/dev/stdin"`). [`Sandbox::output`] passes `/dev/null`.
/// With [`Sandbox::spawn`] and [`Sandbox::status`], set [`Command::stdin`](crate::Command::stdin).
///
/// The output is untrusted too: run it in [`judge`], and bind or copy it with
/// [`HostPath::beneath`](crate::mount::HostPath::beneath).
///
/// ```
/// use stockade::{Command, profile};
///
/// let source = "#include \"/etc/shadow\"\n";
/// let mut compiler = Command::new("cc");
/// compiler.args(["-x", "c", "-E", "-"]).stdin_bytes(source);
/// # let compiler = if std::path::Path::new("/usr/bin/cc").exists() { compiler } else { Command::new("false") };
/// assert!(!profile::compile_untrusted().output(compiler)?.outcome.success());
/// # Ok::<(), stockade::Error>(())
/// ```
pub fn compile_untrusted() -> Sandbox {
    let limits = time_limits(120, 0).stdout_max(MIB).stderr_max(MIB);
    let limits = limits.overflow(Overflow::Discard);
    let limits = limits
        .rlimit(Resource::Cpu, 60, 60)
        .rlimit(Resource::Data, 2 * GIB, 2 * GIB)
        .rlimit(Resource::Fsize, 256 * MIB, 256 * MIB)
        .rlimit(Resource::Nproc, 256, 256);
    with_home(installed_programs(), 512 * MIB)
        .seccomp(without_filters(without_watches(Seccomp::container())).deny(TRACING))
        .limits(limits)
}

/// Returns a sandbox for unreviewed code, such as code from a language model, or a plug-in.
///
/// The code works in a workspace with the tools of the host. Bind the workspace with `bind_rw`, or a Git repository
/// with [`Root::git_workspace`].
///
/// | setting | reason |
/// |---|---|
/// | programs and libraries of the host ([`Root::system`]) and `/etc`, read-only. No other files of the host are visible | the code cannot disclose keys, tokens and other projects that it cannot read; all of its changes are in the workspace |
/// | no environment variables but `PATH`, `HOME` and `LANG` | tokens are often in the environment; pass the variables that the code needs with [`Command::env`](crate::Command::env) |
/// | `HOME=/home/sandbox`, a tmpfs of 256 MiB, and `LANG=C.UTF-8` | programs keep settings and caches in a home directory, and expect UTF-8 |
/// | no network | what the code has read cannot be sent anywhere; services on the host's loopback are unreachable |
/// | [`Seccomp::container`] without inotify(7) and without installing seccomp filters | an allow-list denies new and exploit-prone system calls; a watch on `/usr` or `/etc` would reveal which files other processes of the host open; filters take memory that no cgroup counts |
/// | its own `/tmp`, `/var/tmp`, `/dev/shm`, 256 MiB each | scratch files are removed with the sandbox, and cannot fill the memory |
/// | 512 processes ([`Resource::Nproc`]) | enough for a package manager or a test run, and a bound for a fork bomb |
/// | 2 minutes of wall-clock time, then SIGTERM, 2 s later SIGKILL | the caller waits for the result |
/// | 1 MiB of each of stdout and stderr | the reader, a model or a person, reads no more |
///
/// In a Git repository the program could plant hooks and settings that the next `git status` on the host executes:
/// [`Root::git_workspace`] prevents that. Protect other files that tools on the host execute automatically with
/// [`Root::protect`] (`.envrc`, `.vscode/`, a `Makefile`). Processes of the host can still replace a protected file by
/// a rename, but the program cannot.
///
/// Treat everything in the workspace as untrusted afterwards. Run scripts and build recipes from it in a sandbox too.
/// Bind a directory of the workspace for another program with [`HostPath::beneath`](crate::mount::HostPath::beneath),
/// and copy files out with a [`Collector`](crate::collect::Collector): any path in it may have become a symlink.
///
/// ```
/// use stockade::{Command, profile};
///
/// let workspace = tempfile::tempdir()?;
/// let sandbox = profile::agent().map_root(|root| root.bind_rw(workspace.path(), "/workspace"));
/// let output = sandbox.output(Command::new("sh").args(["-c", "echo hello > /workspace/a; ls /root /srv"]))?;
/// assert!(workspace.path().join("a").exists() && output.stdout.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn agent() -> Sandbox {
    let limits = time_limits(120, 2).stdout_max(MIB).stderr_max(MIB);
    let etc = is_directory(Path::new("/etc")).then(|| Bind::new("/etc", "/etc").unmapped());
    let root = etc.into_iter().fold(Root::system(), Root::with).proc("/proc").dev("/dev");
    with_home(root.network_names(), 256 * MIB)
        .seccomp(without_filters(without_watches(Seccomp::container())))
        .limits(limits.rlimit(Resource::Nproc, 512, 512))
}

/// Returns a root with the programs of the host, their own processes and a minimal `/dev`.
fn installed_programs() -> Root {
    Root::system().with(Proc::new("/proc").subset_pid()).dev("/dev").network_names()
}

/// System calls that inspect or change other processes.
const TRACING: [&str; 4] = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"];

/// Denies notifications of other processes' file accesses: inotify(7), and dnotify (`F_NOTIFY` of fcntl(2)). Programs
/// fall back to polling.
fn without_watches(policy: Seccomp) -> Seccomp {
    let notifies = Condition::dword(1, Comparison::Equal(libc::F_NOTIFY as u64));
    policy.on(["inotify_init", "inotify_init1"], Action::Errno(Errno::ENOSYS)).when(
        "fcntl",
        [notifies],
        Action::Errno(Errno::EINVAL),
    )
}

/// Denies installing seccomp filters, with the error of a kernel without seccomp (`EINVAL`). Each process could take
/// 700 kB of the memory that the kernel reserves for all filters of the host (`net.core.bpf_jit_limit`), which no
/// cgroup counts. Programs ask whether the kernel supports filters by passing a null pointer, which stays allowed.
fn without_filters(policy: Seccomp) -> Seccomp {
    let is = |argument, value: u32| Condition::dword(argument, Comparison::Equal(value.into()));
    let has_filter = Condition::qword(2, Comparison::NotEqual(0));
    policy.when("seccomp", [is(0, libc::SECCOMP_SET_MODE_FILTER), has_filter], Action::Errno(Errno::EINVAL)).when(
        "prctl",
        [is(0, libc::PR_SET_SECCOMP as u32), is(1, libc::SECCOMP_MODE_FILTER), has_filter],
        Action::Errno(Errno::EINVAL),
    )
}

/// Returns a root with the host's file system and an empty `/var`: a process that can read a file can lock it, and so
/// block a database of the host.
fn without_var() -> Root {
    const KEPT: [&str; 4] = ["/var/lib/gems", "/var/lib/ghc", "/var/lib/ocaml", "/var/lib/texmf"];
    let var = Tmpfs::new("/var").size(16 * MIB);
    let root = Root::host().with(var).symlink("/run", "/var/run").symlink("/run/lock", "/var/lock");
    let root = ["/run/lock", "/var/cache", "/var/lib", "/var/log"].into_iter().fold(root, Root::create_dir);
    // Unmapped, so that files that only root may read stay unreadable.
    let kept =
        KEPT.into_iter().filter(|path| is_directory(Path::new(path))).map(|path| Bind::new(path, path).unmapped());
    kept.fold(root, Root::with)
}

/// The home directory of the program's user.
const HOME: &str = "/home/sandbox";

/// Returns a sandbox with directories for temporary files and a home directory, each a tmpfs of this size in bytes.
fn with_home(root: Root, bytes: u64) -> Sandbox {
    // An inode takes memory that does not count against the size.
    const BYTES_OF_INODE: u64 = 8 * KIB;
    let tmpfs = |path, mode: u32| Tmpfs::new(path).size(bytes).inodes(bytes / BYTES_OF_INODE).mode(mode);
    let temporary = ["/tmp", "/var/tmp", "/dev/shm"].map(|path| tmpfs(path, 0o1777));
    let root = temporary.into_iter().fold(root, Root::with).with(tmpfs(HOME, 0o700)).user_names();
    Sandbox::new().root(root).env("HOME", HOME).env("LANG", "C.UTF-8")
}

/// Returns limits with a wall-clock time and a grace period between SIGTERM and SIGKILL, both in seconds.
fn time_limits(seconds: u64, grace: u64) -> Limits {
    let limits = Limits::new().wall_time(Duration::from_secs(seconds));
    if grace == 0 { limits } else { limits.kill_grace(Duration::from_secs(grace)) }
}
