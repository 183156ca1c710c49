//! Out-of-memory notifications of cgroup v1 (cgroup-v1/memory.rst, "OOM Control"). They are needed because a kill is
//! counted in the cgroup of the killed process, and the count is lost when a program removes a cgroup that it created.

use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::directory::Directory;

/// An eventfd that the kernel signals when the memory of a cgroup is used up.
#[derive(Debug)]
pub(super) struct OomAlarm(EventFd);

impl OomAlarm {
    /// Registers one for a cgroup. `None` if the kernel does not support it (`PREEMPT_RT`).
    pub fn register(group: &Directory) -> Option<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        let file = group.file("memory.oom_control", OFlag::O_RDONLY).ok()?;
        group.write("cgroup.event_control", &format!("{} {}", event.as_raw_fd(), file.as_raw_fd())).ok()?;
        Some(Self(event))
    }

    /// Returns whether memory was used up, at the limit of this cgroup or of an ancestor.
    pub fn is_triggered(&self) -> bool {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}
