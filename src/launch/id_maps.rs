//! Writes the ID maps of a process that waits for them, directly or with newuidmap(1) and newgidmap(1).

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd;

use super::control_pipe::ControlPipe;
use super::host_ids::{self, Reserved};
use super::setuid_helpers;
use crate::advice::{Denial, Need};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{HostRange, IdMaps, MapLine, MapWriter};
use crate::unix::ToErrno;

/// Reserves the host ID of a sandbox. The inode number of its control pipe is the seed. No other open pipe has the same
/// one, so that callers which cannot see each other's reservations rarely select the same ID.
pub(super) fn own_id(control: &ControlPipe, range: HostRange) -> Result<Reserved> {
    let pipe = control.inode().map_err(Error::io("inspect the control pipe"))?;
    host_ids::reserve(range, pipe)
}

/// Returns the first or the second half of an ID as text.
pub(super) fn text(id: u32, half: u8) -> u64 {
    let text = format!("{id:>16}");
    let start = usize::from(half) * 8;
    u64::from_ne_bytes(std::array::from_fn(|index| text.as_bytes()[start + index]))
}

/// Writes the maps of the user namespace of a process.
pub(super) fn write(pid: i32, maps: &IdMaps, own: u32) -> Result<()> {
    let process = open_process(pid)?;
    let files = [("uid_map", "newuidmap", &maps.uid), ("gid_map", "newgidmap", &maps.gid)];
    for (file, helper, lines) in files {
        let lines = lines.iter().map(|line| numbers(line, own));
        if maps.writer == MapWriter::HelperPrograms {
            run(&process, pid, [file, helper], lines.flatten().collect())?;
        } else {
            let text: String = lines.map(|[inside, outside, count]| format!("{inside} {outside} {count}\n")).collect();
            write_file(&process, pid, file, &text)?;
        }
    }
    Ok(())
}

/// Opens the directory of a process in `/proc`. Fails if another file system is mounted there.
fn open_process(pid: i32) -> Result<OwnedFd> {
    let failed = Error::io("open the process in /proc");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let process = open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).map_err(&failed)?;
    if fstatfs(&process).map_err(&failed)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(failed(Errno::ENOTSUP));
    }
    Ok(process)
}

fn numbers(line: &MapLine, own: u32) -> [u32; 3] {
    [line.inside, line.outside.number(own), line.count]
}

fn write_file(process: &OwnedFd, pid: i32, file: &str, text: &str) -> Result<()> {
    let opened = openat(process, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let written = opened.and_then(|file| unistd::write(&file, text.as_bytes()));
    written.map(drop).map_err(|errno| {
        /// As many as fit into a message.
        const SHOWN: usize = 8;
        let count = text.lines().count();
        let step = match count {
            ..=SHOWN => format!("write {:?} to", text.trim_end()),
            _ => format!("write {count} lines to"),
        };
        let denial = Denial { need: Some(Need::IdMaps), call: "write", errno: errno.to_errno() };
        let error = Error::set_up(step, "write", errno, denial.advice(remedy(errno)).as_deref());
        error.of(Layer::Namespaces).on(format!("/proc/{pid}/{file}"))
    })
}

fn remedy(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EPERM => Some("this user may not map these IDs: map only your own ID, or use subordinate IDs"),
        Errno::EINVAL => Some("remove ranges that overlap or are empty, and use at most 340"),
        _ => None,
    }
}

/// Writes a map with newuidmap or newgidmap. Reads the map afterwards to check the result, because the exit status is
/// lost if the caller ignores SIGCHLD.
fn run(process: &OwnedFd, pid: i32, [file, helper]: [&'static str; 2], numbers: Vec<u32>) -> Result<()> {
    let args = std::iter::once(pid.to_string()).chain(numbers.iter().map(u32::to_string));
    let messages = setuid_helpers::run(helper, args)?;
    let map = openat(process, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(fs::File::from);
    let mut written = String::new();
    map.map_err(std::io::Error::from)
        .and_then(|mut map| map.read_to_string(&mut written))
        .map_err(Error::io("read an ID map"))?;
    if written.is_empty() {
        let remedy = format!("its message is {messages:?}: add the ranges of this user to /etc/subuid and /etc/subgid");
        return Err(Error::set_up(format!("map IDs with {helper}"), helper, Errno::EPERM, Some(&remedy)));
    }
    Ok(())
}
