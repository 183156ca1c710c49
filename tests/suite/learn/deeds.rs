//! A program that makes the accesses given as arguments, in order, and fails at the first that fails.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{linkat, truncate, unlinkat};
use stockade::Command;

use crate::support::payload;

payloads![("do", run)];

/// Deeds such as `read /etc/passwd`.
pub fn deeds(deeds: &[&str]) -> Command {
    let mut command = payload("do");
    command.args(deeds);
    command
}

fn run(deeds: &[String]) -> i32 {
    for deed in deeds {
        if let Err(error) = act(deed) {
            eprintln!("{deed}: {error}");
            return 1;
        }
    }
    0
}

fn act(deed: &str) -> io::Result<()> {
    let words: Vec<&str> = deed.split(' ').collect();
    let open = |dir: &str, flags| openat(File::open(dir)?, words[2], flags, Mode::empty()).map_err(io::Error::from);
    match words[0] {
        "read" => fs::read(words[1]).map(drop),
        "list" => fs::read_dir(words[1]).map(|entries| entries.for_each(drop)),
        "write" => fs::write(words[1], "text"),
        "append" => OpenOptions::new().append(true).open(words[1])?.write_all(b"text"),
        "truncate" => Ok(truncate(words[1], 1)?),
        "shorten" => OpenOptions::new().write(true).open(words[1])?.set_len(1),
        "nameless" => OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(words[1]).map(drop),
        "mkdir" => fs::create_dir(words[1]),
        "rmdir" => fs::remove_dir(words[1]),
        "unlink" => fs::remove_file(words[1]),
        "fifo" => Ok(mknod(words[1], SFlag::S_IFIFO, Mode::S_IRWXU, 0)?),
        "symlink" => std::os::unix::fs::symlink(words[1], words[2]),
        "link" => fs::hard_link(words[1], words[2]),
        "rename" => fs::rename(words[1], words[2]),
        "exchange" => {
            let (from, to) = (File::open("/")?, File::open("/")?);
            Ok(renameat2(from, &words[1][1..], to, &words[2][1..], RenameFlags::RENAME_EXCHANGE)?)
        }
        "cd" => std::env::set_current_dir(words[1]),
        "read-at" => open(words[1], OFlag::O_RDONLY).map(drop),
        "write-at" => open(words[1], OFlag::O_WRONLY).map(drop),
        "unlink-at" => Ok(unlinkat(File::open(words[1])?, words[2], nix::unistd::UnlinkatFlags::NoRemoveDir)?),
        "link-at" => Ok(linkat(File::open(words[1])?, words[2], File::open(words[3])?, words[4], AtFlags::empty())?),
        "execute" => match std::process::Command::new(words[1]).status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("it failed")),
        },
        "threads" => {
            let threads = (0..8).map(|number| {
                let file = words[1].replace('N', &number.to_string());
                std::thread::spawn(move || (0..50).try_for_each(|_| fs::read(&file).map(drop)))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a thread"))
        }
        "group" => Ok(nix::unistd::getpgid(None).map(drop)?),
        "listen" => TcpListener::bind(format!("127.0.0.1:{}", words[1])).map(drop),
        "listen6" => TcpListener::bind(format!("[::1]:{}", words[1])).map(drop),
        "connect" => {
            let _listener = TcpListener::bind(format!("127.0.0.1:{}", words[1]))?;
            TcpStream::connect(format!("127.0.0.1:{}", words[1])).map(drop)
        }
        "udp" => {
            let socket = UdpSocket::bind(format!("127.0.0.1:{}", words[1]))?;
            socket.connect("127.0.0.1:9")?;
            Ok(())
        }
        "unix-listen" => UnixListener::bind(words[1]).map(drop),
        "unix-connect" => UnixStream::connect(words[1]).map(drop),
        "unix-send" => {
            let _receiver = UnixDatagram::bind(words[1])?;
            UnixDatagram::unbound()?.send_to(b"text", words[1]).map(drop)
        }
        "abstract" => {
            let name = SocketAddr::from_abstract_name(words[1])?;
            let _listener = UnixListener::bind_addr(&name)?;
            UnixStream::connect_addr(&name).map(drop)
        }
        "abstract-connect" => UnixStream::connect_addr(&SocketAddr::from_abstract_name(words[1])?).map(drop),
        other => Err(io::Error::other(format!("no deed {other}"))),
    }
}
