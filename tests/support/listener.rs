//! Filters of system calls that have a listener (seccomp_unotify(2)), which no safe crate installs.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

/// Puts a filter in force for this thread and what it starts; its listener.
pub fn install_with_listener(program: &[sock_filter]) -> OwnedFd {
    let program =
        libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the instructions, which have the layout that it expects, and writes none.
    let listener = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
    };
    // SAFETY: the kernel has just made this descriptor for us.
    Errno::result(listener).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }).expect("a listener")
}

/// Has a system call of this thread, and of what it starts, wait for as long as the listener is open, and fail then.
pub fn hold(number: i64) -> OwnedFd {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let held = BTreeMap::from([(number, vec![])]);
    // Its own actions do not have the one of listeners: another stands for it, which the kernel numbers alike.
    let filter = SeccompFilter::new(held, SeccompAction::Allow, SeccompAction::Trace(0), arch).expect("a filter");
    let mut program = BpfProgram::try_from(filter).expect("a program");
    for instruction in &mut program {
        if instruction.k == libc::SECCOMP_RET_TRACE {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    install_with_listener(&program)
}

/// Has what is held go on, each call some time after it was made, for as long as somebody may make one.
pub fn let_go_after(listener: &OwnedFd, time: Duration) {
    let_go(listener, || std::thread::sleep(time));
}

/// Does something before each call that is held, and has it go on then, for as long as somebody may make one.
pub fn let_go(listener: &OwnedFd, mut before: impl FnMut()) {
    // SAFETY: plain data, for which all zeroes are valid, and the requests carry the sizes of the structures, which are
    // ours.
    let held = || unsafe {
        let mut held: libc::seccomp_notif = std::mem::zeroed();
        let received = libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut held);
        Errno::result(received).map(|_| held.id)
    };
    // Who made the call may have been killed.
    while let Ok(id) = held().or_else(|errno| if errno == Errno::ENOENT { Ok(0) } else { Err(errno) }) {
        before();
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
        // SAFETY: as above.
        let _ = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    }
}
