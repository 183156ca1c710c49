//! The kernel's word that the memory of a group of v1 was used up (cgroup-v1/memory.rst, "OOM Control"). A kill is counted in
//! the group of the process that was killed, and the count is gone with a group that a program has made for it.

use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::directory::Directory;

#[derive(Debug)]
pub(super) struct Alarm(EventFd);

impl Alarm {
    /// Sets one for a group. A kernel that has none (`PREEMPT_RT`) is done without.
    pub fn set(group: &Directory) -> Option<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        let file = group.file("memory.oom_control", OFlag::O_RDONLY).ok()?;
        group.write("cgroup.event_control", &format!("{} {}", event.as_raw_fd(), file.as_raw_fd())).ok()?;
        Some(Self(event))
    }

    /// Whether memory was used up, at the limit of this group or of one above.
    pub fn has_rung(&self) -> bool {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}
