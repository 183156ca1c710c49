//! The system calls that a submission may make. A submission that makes another one is killed, and the verdict names
//! the call.

use stockade::Errno;
use stockade::Seccomp;
use stockade::seccomp::{Action, Comparison, Condition};

/// For compiled programs and Python, which read, compute and write. They may start processes, within the limits of the
/// cgroup, but may not execute other programs, open sockets, or write files.
pub fn computation() -> Seccomp {
    let plain = Condition::dword(0, Comparison::masked(u64::from(SPECIAL as u32), 0));
    Seccomp::pure_computation()
        .allow(["fork", "vfork", "wait4", "waitid"])
        .when("clone", [plain], Action::Allow)
        .on(["clone3"], Action::Errno(Errno::ENOSYS))
}

/// Flags of clone(2) that create namespaces, and `CLONE_PARENT`, which would create a child of the judge.
const SPECIAL: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWTIME
    | libc::CLONE_PARENT;
