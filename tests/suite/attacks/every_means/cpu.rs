//! The means by which a program has threads of the kernel's work for it, whose time is no cgroup's.

use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::attacks::sys::{self, Word, call, numbers};

/// A means, and the time of kernel threads for each second of the program's own at most, as
/// [`stockade::Cgroup::cpu_max`] says.
pub struct Work {
    pub name: &'static str,
    pub ratio: f64,
    pub begin: fn() -> Do,
}

/// Does it once more.
pub type Do = Box<dyn FnMut()>;

/// What costs nothing to speak of outside of the group. Where many packets come, a thread of the kernel handles some of
/// them.
const NOTHING: f64 = 0.4;

#[rustfmt::skip]
pub const WORK: &[Work] = &[
    Work { name: "nothing but computing", ratio: NOTHING, begin: || Box::new(|| {
        std::hint::black_box((0..10_000).sum::<u64>());
    }) },
    Work { name: "watches of inotify", ratio: 30.0, begin: || {
        fs::create_dir_all("/tmp/watched").unwrap();
        Box::new(move || {
            let Ok(instance) = numbers(libc::SYS_inotify_init1, &[0]) else { return };
            let words = &mut [Word::Number(instance), Word::Bytes(b"/tmp/watched\0"), Word::Number(2)];
            let _ = call(libc::SYS_inotify_add_watch, words)
                .and_then(|watch| numbers(libc::SYS_inotify_rm_watch, &[instance, watch]));
            let _ = numbers(libc::SYS_close, &[instance]);
        })
    } },
    Work { name: "descriptors in flight that nobody can receive", ratio: 2.0, begin: || Box::new(|| {
        let (one, other) = UnixStream::pair().unwrap();
        let rights = [one.as_raw_fd(), other.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&rights)];
        let _ = sendmsg::<UnixAddr>(one.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::MSG_DONTWAIT, None);
    }) },
    Work { name: "terminals", ratio: 10.0, begin: || {
        let ends = nix::pty::openpty(None, None).ok();
        Box::new(move || {
            let Some(ends) = &ends else { return };
            let _ = nix::unistd::write(&ends.slave, b"x");
            let _ = nix::unistd::read(&ends.master, &mut [0; 16]);
        })
    } },
    Work { name: "loopback traffic", ratio: NOTHING, begin: || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(socket.local_addr().unwrap()).unwrap();
        Box::new(move || { let _ = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 1])); })
    } },
    Work { name: "files", ratio: NOTHING, begin: || Box::new(|| {
        let _ = File::create("/tmp/one").and_then(|mut file| file.write_all(&[1; 4096]));
        let _ = fs::remove_file("/tmp/one");
    }) },
    Work { name: "descriptors", ratio: NOTHING, begin: || Box::new(|| drop(File::open("/proc/self/stat"))) },
    Work { name: "processes", ratio: NOTHING, begin: || Box::new(|| {
        if let Ok(child) = sys::clone(libc::SIGCHLD) {
            if child == 0 {
                sys::exit(0);
            }
            let _ = nix::sys::wait::wait();
        }
    }) },
    Work { name: "mappings", ratio: NOTHING, begin: || Box::new(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let size = 1 << 20;
        let start = numbers(libc::SYS_mmap, &[0, size, 3, flags.into(), -1, 0]).unwrap();
        let _ = numbers(libc::SYS_munmap, &[start, size]);
    }) },
    Work { name: "pages that are migrated", ratio: NOTHING, begin: || Box::new(|| {
        let nodes = 1u64.to_ne_bytes();
        let words = &mut [Word::Number(0), Word::Number(64), Word::Bytes(&nodes), Word::Bytes(&nodes)];
        let _ = call(libc::SYS_migrate_pages, words);
    }) },
    Work { name: "pages that are moved", ratio: NOTHING, begin: || {
        let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE);
        let page = numbers(libc::SYS_mmap, &[0, 4096, 3, flags, -1, 0]).unwrap();
        Box::new(move || {
            let (page, node) = (page.to_ne_bytes(), [0; 4]);
            let status = &mut [0; 4];
            let [own, count, flags] = [0, 1, 2].map(Word::Number);
            let words = &mut [own, count, Word::Bytes(&page), Word::Bytes(&node), Word::Room(status), flags];
            let _ = call(libc::SYS_move_pages, words);
        })
    } },
    Work { name: "locks", ratio: NOTHING, begin: || {
        let file = File::create("/tmp/locked").unwrap();
        Box::new(move || {
            for kind in [libc::F_WRLCK, libc::F_UNLCK] {
                let lock = [kind as u64, 0, 1, 0].map(u64::to_ne_bytes).concat();
                let command = [file.as_raw_fd().into(), libc::F_SETLK.into()].map(Word::Number);
                let [fd, command] = command;
                let _ = call(libc::SYS_fcntl, &mut [fd, command, Word::Bytes(&lock)]);
            }
        })
    } },
    Work { name: "objects of System V", ratio: NOTHING, begin: || Box::new(|| {
        if let Ok(id) = numbers(libc::SYS_semget, &[0, 100, 0o1600]) {
            let _ = numbers(libc::SYS_semctl, &[id, 0, libc::IPC_RMID.into()]);
        }
    }) },
];
