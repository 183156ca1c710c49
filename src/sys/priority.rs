//! By how much the calling thread is preferred to others (sched(7), ioprio_set(2)).
#![allow(unsafe_code)]

/// The priorities of a thread, which its children inherit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Priorities {
    /// Whether its scheduling policy is a real-time one, or one with deadlines.
    pub is_real_time: bool,
    pub nice: i32,
    /// Whether its input and output comes before that of everybody else.
    pub has_real_time_io: bool,
}

impl Priorities {
    /// Those of the calling thread. What the kernel does not tell is taken for the default.
    pub fn of_thread() -> Self {
        const PROCESS: libc::c_int = 1;
        const CLASS_SHIFT: i64 = 13;
        const REAL_TIME: i64 = 1;
        // SAFETY: the calls take numbers alone.
        let (policy, kept, io) = unsafe {
            (
                libc::syscall(libc::SYS_sched_getscheduler, 0),
                libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
                libc::syscall(libc::SYS_ioprio_get, PROCESS, 0),
            )
        };
        let policy = (policy.max(0) as libc::c_int) & !libc::SCHED_RESET_ON_FORK;
        Self {
            is_real_time: matches!(policy, libc::SCHED_FIFO | libc::SCHED_RR | libc::SCHED_DEADLINE),
            // The kernel gives 20 less the nice value, so that no result is negative.
            nice: if kept > 0 { 20 - kept as i32 } else { 0 },
            has_real_time_io: io >> CLASS_SHIFT == REAL_TIME,
        }
    }
}
