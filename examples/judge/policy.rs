//! Which system calls a submission may make. Whoever makes another one is ended, and the verdict names it.

use stockade::{Action, Comparison, Condition, Seccomp};

/// For compiled programs and Python: they read, compute and write. They may have processes, whose number, memory and time
/// the cgroup limits, but execute no other program, open no socket, and write no file.
pub fn computation() -> Seccomp {
    let plain = Condition::int(0, Comparison::Masked { mask: u64::from(SPECIAL as u32), value: 0 });
    Seccomp::pure_computation()
        .allow(["fork", "vfork", "wait4", "waitid"])
        .when("clone", [plain], Action::Allow)
        .on(["clone3"], Action::Errno(libc::ENOSYS))
}

/// For runtimes that start with threads, files and pipes of their own: what no isolated program has a business with, and
/// beside it other programs, sockets, and signals. What they try and do without is refused alone.
pub fn runtime() -> Seccomp {
    let is_unix = Condition::int(0, Comparison::Equal(libc::AF_UNIX as u64));
    let is_other = Condition::int(0, Comparison::NotEqual(libc::AF_UNIX as u64));
    Seccomp::new()
        .refuse_with(Action::Kill)
        .on(["execve", "execveat", "kill"], Action::Kill)
        .on(["clone3", "io_uring_setup"], Action::Errno(libc::ENOSYS))
        .when("socket", [is_unix], Action::Errno(libc::EACCES))
        .when("socket", [is_other], Action::Kill)
}

/// Flags of clone(2) that make namespaces, and the one that makes a child of the judge's.
const SPECIAL: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWTIME
    | libc::CLONE_PARENT;
