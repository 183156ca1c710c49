//! Pools of sessions that are kept ready.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::{ForkResult, Pid};
use stockade::pool::Pool;
use stockade::{Command, ErrorKind, Root, Sandbox, Session};

use crate::support::{at_most, children, descriptors, eventually, on_host, processes, rounds, shared_dir, text};

payloads![
    ("leaves_no_pool", leaves_no_pool),
    ("forks_with_a_pool", forks_with_a_pool),
    ("loses_a_session", loses_a_session)
];

fn pool(size: usize) -> Pool {
    let pool = Pool::new(Sandbox::new(), size).unwrap_or_else(|error| panic!("{error}"));
    eventually("the pool is full", || pool.stats().ready == size);
    pool
}

fn works(session: &Session) {
    let output = session.output(Command::new("echo").arg("works")).unwrap();
    assert_eq!(text(&output.stdout), "works");
}

#[apply(test)]
fn each_taker_gets_a_fresh_session() {
    let pool = pool(2);
    for round in 1..=5 {
        let session = pool.take().unwrap();
        session.open("/tmp/file").expect_err("nothing of an earlier one");
        session.create("/tmp/file").unwrap().write_all(b"left").unwrap();
        works(&session);
        let stats = pool.stats();
        assert_eq!(stats.taken_ready + stats.taken_unprepared, round, "{stats:?}");
    }
    eventually("the pool is full again", || pool.stats().ready == 2);
    assert_eq!((pool.stats().failed, pool.stats().lost), (0, 0));
}

#[apply(test)]
fn threads_share_a_pool_and_an_empty_one_starts_sessions() {
    let pool = pool(1);
    let taken: Vec<Session> = (0..4).map(|_| pool.take().unwrap()).collect();
    taken.iter().for_each(works);
    assert!(pool.stats().taken_unprepared >= 1, "{:?}", pool.stats());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..rounds(10)).for_each(|_| works(&pool.take().unwrap())));
        }
    });
    let stats = pool.stats();
    assert_eq!(stats.taken_ready + stats.taken_unprepared, 4 + 4 * u64::from(rounds(10)), "{stats:?}");
}

#[apply(test)]
fn a_session_outlives_its_pool() {
    let pool = pool(1);
    let session = pool.take().unwrap();
    drop(pool);
    works(&session);
}

#[apply(test)]
fn a_pool_that_was_shut_down_gives_none() {
    let pool = pool(2);
    let session = pool.take().unwrap();
    pool.shut_down();
    pool.shut_down();
    assert_eq!(pool.stats().ready, 0);
    let error = pool.take().expect_err("it was shut down");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    works(&session);
}

#[apply(test)]
fn what_cannot_be_started_is_an_error_of_the_pool() {
    let error = Pool::new(Sandbox::new(), 0).expect_err("no session");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
    let missing = Sandbox::new().root(Root::host().bind("/missing", "/mnt"));
    let error = Pool::new(missing, 1).expect_err("no such directory");
    assert!(error.to_string().contains("/missing"), "{error}");
}

/// A host that changes while the pool exists.
#[apply(test)]
fn a_failure_of_the_thread_is_told_to_the_next_taker_and_the_thread_tries_again() {
    let dir = shared_dir();
    let bound = dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let pool = Pool::new(Sandbox::new().root(Root::host().bind(&bound, "/mnt")), 2).unwrap();
    eventually("the pool is full", || pool.stats().ready == 2);
    std::fs::remove_dir(&bound).unwrap();
    let kept = [pool.take().unwrap(), pool.take().unwrap()];
    eventually("the thread has failed", || pool.stats().failed >= 2);
    let told = pool.take().expect_err("the failure of the thread");
    assert!(told.to_string().contains("bound"), "{told}");
    assert!(pool.stats().last_error.is_some());
    let begin = Instant::now();
    std::fs::create_dir(&bound).unwrap();
    eventually("the pool is full again", || pool.stats().ready == 2);
    assert!(begin.elapsed() < at_most(Duration::from_secs(5)), "{:?}", begin.elapsed());
    works(&pool.take().unwrap());
    kept.iter().for_each(works);
}

/// A caller whose pool loses a session while nobody has it: its helper is killed from outside.
fn loses_a_session(_: &[String]) -> i32 {
    let pool = pool(1);
    let own = std::process::id();
    let of_pool = children();
    assert!(!of_pool.is_empty() && processes(|line| line.contains("stockade")).len() > 1, "{own}");
    for &pid in &of_pool {
        kill(Pid::from_raw(pid), NixSignal::SIGKILL).expect("a signal");
    }
    thread::sleep(Duration::from_millis(50));
    let session = pool.take().expect("another session");
    works(&session);
    assert_eq!(pool.stats().lost, 1, "{:?}", pool.stats());
    0
}

#[apply(test)]
fn a_session_that_was_killed_is_given_to_nobody() {
    on_host(&[], "loses_a_session", &[]);
}

/// A caller that has what it had before once its pools are gone.
fn leaves_no_pool(_: &[String]) -> i32 {
    works(&Sandbox::new().start().expect("a session"));
    let before = (descriptors(), children());
    for _ in 0..rounds(5) {
        let pool = pool(3);
        works(&pool.take().expect("a session"));
        drop(pool);
        // Before any is ready but the first.
        drop(Pool::new(Sandbox::new(), 5).expect("a pool"));
    }
    assert_eq!((descriptors(), children()), before);
    0
}

#[apply(test)]
fn a_pool_leaves_nothing() {
    on_host(&[], "leaves_no_pool", &[]);
}

/// A caller whose forked child drops its copy of a pool.
fn forks_with_a_pool(_: &[String]) -> i32 {
    let pool = pool(1);
    // SAFETY: the thread of the pool waits.
    match unsafe { nix::unistd::fork() }.expect("a child") {
        ForkResult::Child => {
            drop(pool);
            std::process::exit(0);
        }
        ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).expect("its end");
            assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
            works(&pool.take().expect("a session"));
        }
    }
    0
}

#[apply(test)]
fn a_forked_child_ends_no_pool() {
    on_host(&[], "forks_with_a_pool", &[]);
}
