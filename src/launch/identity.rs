//! Id maps: written for a process that waits for them, by the host or by newuidmap and newgidmap.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd;

use super::ids::{self, Reserved};
use super::privileged;
use crate::error::{Error, Result};
use crate::outcome::Layer;
use crate::plan::{HostRange, IdMaps, MapLine, Writer};

/// Reserves the host id that a sandbox has for itself. The search begins at the inode number of the sandbox's control pipe,
/// which no other living pipe has: callers that do not see each other's reservations rarely meet.
pub(super) fn own_id(control: &OwnedFd, range: HostRange) -> Result<Reserved> {
    let pipe = fstat(control).map_err(Error::host("looking at the control pipe"))?;
    ids::reserve(range, pipe.st_ino)
}

/// The first or the second half of an id as text.
pub(super) fn text(id: u32, half: u8) -> u64 {
    let text = format!("{id:>16}");
    let start = usize::from(half) * 8;
    u64::from_ne_bytes(std::array::from_fn(|index| text.as_bytes()[start + index]))
}

/// Writes the maps of the user namespace that the process is in.
pub(super) fn write(pid: i32, maps: &IdMaps, own: u32) -> Result<()> {
    let process = open_process(pid)?;
    let files = [("uid_map", "newuidmap", &maps.uid), ("gid_map", "newgidmap", &maps.gid)];
    for (file, helper, lines) in files {
        let lines = lines.iter().map(|line| numbers(line, own));
        if maps.writer == Writer::HelperPrograms {
            run(&process, pid, [file, helper], lines.flatten().collect())?;
        } else {
            let text: String = lines.map(|[inside, outside, count]| format!("{inside} {outside} {count}\n")).collect();
            write_file(&process, pid, file, &text)?;
        }
    }
    Ok(())
}

/// The directory of a process in `/proc`: in a proc file system, whatever else may have been put there.
fn open_process(pid: i32) -> Result<OwnedFd> {
    let failed = Error::host("opening the process in /proc");
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
        let step = format!("writing {:?} to", text.trim_end());
        Error::set_up(step, "write", errno, remedy(errno)).of(Layer::Namespaces).on(format!("/proc/{pid}/{file}"))
    })
}

fn remedy(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EPERM => Some(
            "these ids may not be mapped by this user, or a security module (AppArmor's restriction of unprivileged \
             user namespaces on Ubuntu 24.04) forbids it: map your own id alone, use sub-ids, or allow user namespaces \
             for this program in its AppArmor profile",
        ),
        Errno::EINVAL => Some("two ranges overlap, a range is empty, or there are more than 340"),
        _ => None,
    }
}

/// Has newuidmap or newgidmap write a map. Whether it did is seen from the map: its exit status may be nobody's to read, in
/// a host that ignores SIGCHLD.
fn run(process: &OwnedFd, pid: i32, [file, helper]: [&'static str; 2], numbers: Vec<u32>) -> Result<()> {
    let args = std::iter::once(pid.to_string()).chain(numbers.iter().map(u32::to_string));
    let said = privileged::run(helper, args)?;
    let map = openat(process, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(fs::File::from);
    let mut written = String::new();
    map.map_err(std::io::Error::from)
        .and_then(|mut map| map.read_to_string(&mut written))
        .map_err(Error::host("reading an id map"))?;
    if written.is_empty() {
        let remedy = format!("it said {said:?}; give this user the ranges in /etc/subuid and /etc/subgid");
        return Err(Error::set_up(format!("mapping ids with {helper}"), helper, Errno::EPERM, Some(&remedy)));
    }
    Ok(())
}
