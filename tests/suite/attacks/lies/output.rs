//! Output: bytes that are hard to count.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::waitpid;
use stockade::limits::Overflow;
use stockade::outcome::Source;
use stockade::{Limits, Namespaces, Stdio, Termination};

use super::{MB, MS, fork, number, run, with};
use crate::attacks::common::{sandbox, unfiltered};
use crate::attacks::sys::{self, Word, numbers};
use crate::support::{at_most, payload, text};

/// Calls that write without write(2); each writes a thousand bytes.
const THOUSAND: usize = 1000;

/// Writes to standard output, and exits at once.
pub fn write_all_by(args: &[String]) -> i32 {
    // Memory that is spliced is read when the program has exited.
    static ONES: [u8; THOUSAND] = [b'1'; THOUSAND];
    let ones = &ONES;
    let filled = || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(ones).unwrap();
        reader
    };
    let number_of = |fd: &dyn std::os::fd::AsRawFd| i64::from(fd.as_raw_fd());
    let len = THOUSAND as i64;
    let written = match args[0].as_str() {
        "write" => sys::write(1, ones),
        "splice" => numbers(libc::SYS_splice, &[number_of(&filled()), 0, 1, 0, len, 0]),
        "tee" => numbers(libc::SYS_tee, &[number_of(&filled()), 1, len, 0]),
        "vmsplice" => {
            let vector = [ones.as_ptr() as u64, THOUSAND as u64].map(u64::to_ne_bytes);
            let mut words = [Word::Number(1), Word::Bytes(vector.as_flattened()), Word::Number(1), Word::Number(0)];
            sys::call(libc::SYS_vmsplice, &mut words)
        }
        "reopened" => {
            let again = File::options().write(true).open("/proc/self/fd/1").unwrap();
            nix::unistd::close(1).unwrap();
            nix::unistd::write(&again, ones).map(|count| count as i64)
        }
        "child" => {
            waitpid(fork(libc::SIGCHLD, || _ = sys::write(1, ones)), None).unwrap();
            Ok(len)
        }
        // As much as the pipe holds, each byte in a piece of its own.
        "packets" => {
            let stdout = std::io::stdout();
            let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(1 << 20));
            fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_DIRECT)).unwrap();
            (0..number(&args[1])).map(|_| sys::write(1, b"1")).sum()
        }
        "full pipe" => {
            let size = number(&args[1]) as usize;
            let _ = fcntl(std::io::stdout(), FcntlArg::F_SETPIPE_SZ(size as i32));
            let all = vec![b'1'; size];
            sys::write(1, &all)
        }
        other => panic!("{other}"),
    };
    let wanted = args.get(1).map_or(len, |count| number(count) as i64);
    if written == Ok(wanted) {
        return 0;
    }
    eprintln!("{written:?}");
    1
}

/// Runs it with a limit of a byte less than it writes, and of as many, both ways.
#[track_caller]
fn assert_counted(args: &[&str], count: u64) {
    for (limit, overflow, verdict) in [
        (None, Overflow::Kill, Termination::Exited(0)),
        (Some(count), Overflow::Kill, Termination::Exited(0)),
        (Some(count - 1), Overflow::Kill, Termination::Output),
        (Some(count - 1), Overflow::Discard, Termination::Exited(0)),
        (Some(0), Overflow::Kill, Termination::Output),
    ] {
        let limits = Limits::new().wall_time(at_most(60_000 * MS)).overflow(overflow);
        let limits = limit.map_or(limits.clone(), |limit| limits.stdout_max(limit));
        let output = run(&unfiltered(&with(limits)), "write_all_by", args);
        let what = format!("{args:?} of {limit:?}, {overflow:?}: {}", text(&output.stderr));
        assert_eq!(output.outcome.termination, verdict, "{what}");
        let counted = output.outcome.usage.stdout.unwrap();
        // Who is ended in the middle of it has not written all.
        let least = if limit == Some(0) { 1 } else { count };
        assert!((least..=count).contains(&counted.value), "{what}: {counted:?}");
        assert_eq!(counted.source, Source::Pipe);
        let kept = limit.unwrap_or(count).min(counted.value);
        assert!(output.stdout.len() as u64 == kept && output.stdout.iter().all(|&byte| byte == b'1'), "{what}");
        assert_eq!(output.stdout_truncated, counted.value > kept, "{what}");
    }
}

/// Attack 75: output by whatever call, to the last byte that the pipe holds when the program has exited.
#[apply(test)]
fn no_way_to_write_lies_about_output() {
    for how in ["write", "splice", "tee", "vmsplice", "reopened", "child"] {
        assert_counted(&[how], THOUSAND as u64);
    }
    for size in [1 << 16, 1 << 20] {
        assert_counted(&["full pipe", &size.to_string()], size);
    }
}

/// Attack 75: output of which each byte has to be read by a call of its own.
#[apply(test)]
fn no_packet_lies_about_output() {
    const COUNT: &str = "200";
    let mut command = payload("write_all_by");
    let mut child = sandbox().spawn(command.args(["packets", COUNT]).stdout(Stdio::piped())).unwrap();
    assert!(child.wait().unwrap().success());
    let mut naive = child.stdout.take().unwrap();
    let read: usize = (0..17).map(|_| naive.read(&mut [0; 1 << 16]).unwrap()).sum();
    assert_eq!(read, 17, "who reads a megabyte's worth of pieces has a few bytes");
    assert_counted(&["packets", COUNT], number(COUNT));
}

/// Leaves a process behind that writes as soon as the program has exited, and goes on.
pub fn write_late(_: &[String]) -> i32 {
    let (mut over, alive) = std::io::pipe().unwrap();
    let number = alive.as_raw_fd();
    fork(libc::SIGCHLD, move || {
        let _ = numbers(libc::SYS_close, &[number.into()]);
        let _ = over.read(&mut [0]);
        while sys::write(1, b"22").is_ok() {}
    });
    let written = sys::write(1, &[b'1'; THOUSAND]);
    // Open until the program ends.
    std::mem::forget(alive);
    written.map_or(1, |_| 0)
}

/// Attack 75: what is written after the program's end is read no further than it comes before everybody is killed, and
/// what the program itself wrote is all there. Without a PID namespace nobody may be killed.
#[apply(test)]
fn no_output_after_the_end_lies() {
    const MOST: u64 = 4 * MB;
    let without = Namespaces::all() - Namespaces::TIME - Namespaces::PID;
    let limits = Limits::new().wall_time(at_most(20_000 * MS)).stdout_max(MOST);
    for sandbox in [with(limits.clone()), with(limits.clone()).namespaces(without)] {
        let output = run(&sandbox, "write_late", &[]);
        assert_eq!(output.outcome.termination, Termination::Exited(0), "{}", output.outcome);
        let counted = output.outcome.usage.stdout.unwrap().value;
        assert_eq!(counted, output.stdout.len() as u64);
        assert!((THOUSAND as u64..MOST).contains(&counted), "{counted}");
        let (own, late) = output.stdout.split_at(THOUSAND);
        assert!(own.iter().all(|&byte| byte == b'1') && late.iter().all(|&byte| byte == b'2'));
    }
}
