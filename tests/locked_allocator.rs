//! A caller whose allocator uses one lock, and whose threads allocate constantly. A child that is cloned while another
//! thread holds the lock must not allocate. Spawns 2,000 times by default, or `STOCKADE_SPAWNS` times.
//!
//! This has its own process, since the allocator is that of the whole process.

#[macro_use]
extern crate macro_rules_attribute;

#[macro_use]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::os::unix::process::CommandExt;
use std::process::{Command as Host, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;
use stockade::{Command, Sandbox};
use support::{children, descriptors, on_host};

fn main() -> ExitCode {
    support::run()
}

payloads![("allocating", caller_that_allocates), ("forking", caller_that_forks)];

/// The allocator of the system behind a lock that spins: a mutex would do, but one that allocates nothing itself and is
/// never poisoned is plainer.
struct Locked {
    taken: AtomicBool,
    calls: UnsafeCell<u64>,
}

// SAFETY: `calls` is touched by the holder of the lock alone.
unsafe impl Sync for Locked {}

impl Locked {
    fn with<T>(&self, act: impl FnOnce() -> T) -> T {
        while self.taken.swap(true, Ordering::Acquire) {
            thread::yield_now();
        }
        // SAFETY: this thread holds the lock.
        unsafe { *self.calls.get() += 1 };
        let result = act();
        self.taken.store(false, Ordering::Release);
        result
    }
}

// SAFETY: it is the system's allocator, one call at a time.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        self.with(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        self.with(|| unsafe { System.dealloc(at, layout) });
    }
}

#[global_allocator]
static ALLOCATOR: Locked = Locked { taken: AtomicBool::new(false), calls: UnsafeCell::new(0) };

const ALLOCATING: usize = 64;
const SPAWNING: usize = 4;

/// Does something while 64 threads allocate, and says how often they did.
fn while_others_allocate(act: impl FnOnce()) -> u64 {
    let (done, allocated) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..ALLOCATING {
            scope.spawn(|| {
                let mut kept = vec![];
                while !done.load(Ordering::Relaxed) {
                    kept.push(vec![1u8; 64 + kept.len() % 1000]);
                    if kept.len() > 100 {
                        kept.clear();
                    }
                    allocated.fetch_add(1, Ordering::Relaxed);
                    // The spawning threads have a share of the processors too.
                    thread::yield_now();
                }
            });
        }
        act();
        done.store(true, Ordering::Relaxed);
    });
    allocated.into_inner()
}

/// A caller that spawns in 4 threads.
fn caller_that_allocates(args: &[String]) -> i32 {
    let spawns: usize = args[0].parse().expect("a number");
    let before = descriptors();
    let sandbox = Sandbox::new();
    let spawn = || {
        for _ in 0..spawns / SPAWNING {
            assert!(sandbox.status(Command::new("/bin/true")).expect("a spawn").success());
        }
    };
    let allocated = while_others_allocate(|| {
        let ended = thread::scope(|scope| [(); SPAWNING].map(|()| scope.spawn(spawn)).map(|thread| thread.join()));
        // A panic would leave the others to run for ever.
        if ended.iter().any(Result::is_err) {
            std::process::exit(1);
        }
    });
    assert_eq!((descriptors(), children()), (before, vec![]));
    assert!(allocated > spawns as u64, "the others were busy");
    0
}

/// A caller whose children allocate after a fork, until one of them hangs.
fn caller_that_forks(_: &[String]) -> i32 {
    while_others_allocate(|| {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let mut command = Host::new("/bin/true");
                // SAFETY: it is not: the child of a fork may not allocate, which is what is shown here.
                unsafe {
                    command.pre_exec(|| {
                        drop(std::hint::black_box(vec![1u8; 100]));
                        Ok(())
                    });
                }
                if sender.send(command.status()).is_err() {
                    return;
                }
            }
        });
        let started = Instant::now();
        while receiver.recv_timeout(Duration::from_secs(3)).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(60), "no child hangs");
        }
        // First, so that no other one is started, which would outlive this caller.
        drop(receiver);
        for child in children() {
            kill(Pid::from_raw(child), SIGKILL).expect("the child that hangs");
        }
    });
    0
}

/// Callers of so many spawns each, so that none runs for too long.
const AT_ONCE: usize = 2000;

#[apply(test)]
fn spawns_under_a_locked_allocator_never_hang() {
    on_host(&[], "forking", &[]);
    let spawns = std::env::var("STOCKADE_SPAWNS").map_or(AT_ONCE, |spawns| spawns.parse().expect("a number"));
    for begin in (0..spawns).step_by(AT_ONCE) {
        on_host(&[], "allocating", &[&AT_ONCE.min(spawns - begin).to_string()]);
    }
}
