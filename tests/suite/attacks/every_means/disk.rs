//! The means by which a program takes disk, and processes.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;

use nix::sys::signal::{SigHandler, Signal, signal};
use stockade::limits::Resource;
use stockade::{Cgroup, Root, Sandbox};

use super::sandboxes;
use crate::attacks::common::{alone, attack, attempt, sandbox, tell, unfiltered};
use crate::attacks::sys::{self, Word, call, numbers};
use crate::support::{shared_dir, stdout};

payloads![("write_by", write_by), ("start_by", start_by)];

const MIB: i64 = 1 << 20;
/// Bytes of each file, and the ways to have so many.
const SIZE: i64 = 2 * MIB;
const WAYS: [&str; 6] = ["write", "write far behind", "truncate", "allocate", "copy", "send"];

/// Makes a file of two mebibytes in each way, in a directory, and many small ones.
fn write_by(args: &[String]) -> i32 {
    std::env::set_current_dir(&args[0]).unwrap();
    // SAFETY: no function is called.
    #[allow(unsafe_code)]
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    let from = File::open("/payload").unwrap();
    fs::write("half", vec![1; MIB as usize]).unwrap();
    for way in WAYS {
        let mut file = File::create(way).unwrap();
        let [to, source] = [file.as_raw_fd(), from.as_raw_fd()].map(i64::from);
        let result = match way {
            "write" => {
                (0..SIZE / MIB).try_for_each(|_| file.write_all(&vec![1; MIB as usize])).map_err(|_| nix::Error::EFBIG)
            }
            "write far behind" => {
                let words = [Word::Number(to), Word::Bytes(b"x"), Word::Number(1), Word::Number(SIZE)];
                let [fd, bytes, len, offset] = words;
                call(libc::SYS_pwrite64, &mut [fd, bytes, len, offset]).map(drop)
            }
            "truncate" => numbers(libc::SYS_ftruncate, &[to, SIZE]).map(drop),
            "allocate" => numbers(libc::SYS_fallocate, &[to, 0, 0, SIZE]).map(drop),
            "copy" => (0..2).try_for_each(|_| {
                let half = File::open("half").unwrap();
                numbers(libc::SYS_copy_file_range, &[half.as_raw_fd().into(), 0, to, 0, MIB, 0]).map(drop)
            }),
            _ => all(|| numbers(libc::SYS_sendfile, &[to, source, 0, SIZE])),
        };
        attempt(way, result);
        tell(&format!("size by {way}"), file.metadata().unwrap().len());
        fs::remove_file(way).unwrap();
    }
    attempt("many files", (0..200).try_for_each(|number| fs::write(format!("{number}"), [1; 4096])));
    (0..200).for_each(|number| fs::remove_file(format!("{number}")).unwrap_or(()));
    0
}

/// Copies until there are so many bytes.
fn all(mut copy: impl FnMut() -> nix::Result<i64>) -> nix::Result<()> {
    let mut copied = 0;
    while copied < SIZE {
        copied += copy()?;
    }
    Ok(())
}

/// What is not in memory is the caller's, and in no profile but by its request. There each file is bounded, and their
/// number is not.
#[apply(test)]
#[skip(super::unless_idmapped_tmpfs)]
fn disk_is_bounded_by_file() {
    for (name, sandbox) in sandboxes().into_iter().filter(|(name, _)| *name != "judge") {
        let table = stdout(&sandbox, "cat /proc/self/mountinfo");
        let writable =
            table.lines().filter(|line| line.split(' ').nth(5).is_some_and(|it| it.split(',').any(|it| it == "rw")));
        for mount in writable {
            let kind = mount.split_once(" - ").unwrap().1.split(' ').next().unwrap();
            let is_bounded = matches!(kind, "tmpfs" | "proc") || mount.contains(" /dev/");
            assert!(is_bounded, "{name}: {mount}");
        }
        let place = shared_dir();
        let owner = place.path().join("own");
        crate::attacks::common::open_directory(&owner);
        let with = |bytes: u64| {
            let sandbox = sandbox.clone().map_root(|root: Root| root.bind_rw(&owner, "/tmp/bound"));
            sandbox.map_limits(|limits| limits.rlimit(Resource::Fsize, bytes, bytes))
        };
        for place in ["/tmp/bound", "/tmp", "/dev/shm"] {
            let enough = attack(&with(4 << 20), "write_by", &[place]);
            enough.assert_done(&WAYS);
            let bounded = attack(&with(1 << 20), "write_by", &[place]);
            // What copies stops at the limit, and says how much it has copied.
            bounded.assert_refused(&WAYS);
            for way in WAYS {
                assert!(
                    bounded.get(&format!("size by {way}")).parse::<i64>().unwrap() <= MIB,
                    "{name}: {way} in {place}"
                );
            }
            bounded.assert_done(&["many files"]);
        }
    }
}

/// Starts what it can in each way, and keeps it.
fn start_by(args: &[String]) -> i32 {
    let flags = match args[0].as_str() {
        "fork" => libc::SIGCHLD,
        // A child that shares descriptors, and one that is the caller's.
        "clone" => libc::SIGCHLD | libc::CLONE_FILES | libc::CLONE_FS,
        "a sibling" => libc::CLONE_PARENT,
        _ => libc::SIGCHLD,
    };
    let mut started = 1;
    while started < 40 {
        let result = match args[0].as_str() {
            "thread" => {
                let sleeps = || std::thread::sleep(std::time::Duration::from_secs(1000));
                std::thread::Builder::new().stack_size(1 << 16).spawn(sleeps).is_ok().then_some(1)
            }
            "clone3" => sys::clone3(0).ok(),
            "a ring" => numbers(libc::SYS_io_uring_setup, &[8, 0]).ok(),
            _ => sys::clone(flags).ok(),
        };
        match result {
            Some(0) => loop {
                std::thread::sleep(std::time::Duration::from_secs(1000));
            },
            Some(_) => started += 1,
            None => break,
        }
    }
    tell("tasks", started);
    sys::exit(0)
}

/// Each thing that runs is one of those that the group counts.
#[apply(test)]
#[only(Root)]
#[skip(super::unless_root_with_groups)]
fn every_task_is_counted() {
    let _turn = alone();
    let with = |sandbox: &Sandbox, most| sandbox.clone().cgroup(Cgroup::new().pids_max(most).memory_max(64 << 20));
    let started = |sandbox: &Sandbox, way| attack(sandbox, "start_by", &[way]).get("tasks").parse::<u64>().unwrap();
    for way in ["fork", "clone", "thread", "clone3", "a sibling"] {
        let free = started(&with(&unfiltered(&sandbox()), 64), way);
        assert!(free == 40 || way == "a sibling", "{way}: the attack must work here: {free}");
        for most in [8, 16] {
            assert!(started(&with(&unfiltered(&sandbox()), most), way) <= most, "{way}");
            for (name, sandbox) in sandboxes().into_iter().filter(|(name, _)| *name != "judge") {
                let tasks = started(&with(&sandbox, most), way);
                let expected = if ["clone3", "a sibling"].contains(&way) { 1 } else { most };
                assert_eq!(tasks, expected, "{name}: {way}");
            }
        }
    }
    assert_eq!(started(&with(&sandbox(), 64), "a ring"), 1, "its workers are none");
}
