//! The means by which a program has the kernel keep memory for it. Each takes one object after the other, and none is
//! given back.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::attacks::sys::{self, Word, call, numbers};

/// Takes an object of this number: the first is 0.
pub type Take = Box<dyn FnMut(usize) -> nix::Result<()>>;

/// A means: how many objects it takes at most, and how it begins.
pub struct Means {
    pub name: &'static str,
    pub most: usize,
    pub begin: fn() -> nix::Result<Take>,
    /// Bytes of each object that are pages of the program's own.
    pub own: usize,
    /// Bytes of each object that no cgroup counts, at most, as `docs/security-model.md` says: all of them else.
    pub uncounted: Option<usize>,
}

const MIB: usize = 1 << 20;
/// Larger than any buffer.
static BLOCK: [u8; 60_000] = [1; 60_000];

/// Of kernel memory alone.
const fn kernel(name: &'static str, most: usize, begin: fn() -> nix::Result<Take>) -> Means {
    Means { name, most, begin, own: 0, uncounted: None }
}

/// Of kernel memory that no cgroup counts: so many bytes of each at most.
const fn uncounted(name: &'static str, bytes: usize, most: usize, begin: fn() -> nix::Result<Take>) -> Means {
    Means { name, most, begin, own: 0, uncounted: Some(bytes) }
}

/// Of pages of the program's own, a mebibyte each.
const fn pages(name: &'static str, begin: fn() -> nix::Result<Take>) -> Means {
    Means { name, most: 200, begin, own: MIB, uncounted: None }
}

#[rustfmt::skip]
pub const MEANS: &[Means] = &[
    pages("anonymous memory", || each(|_| map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS))),
    pages("files in memory", || each(|_| map_file(numbers_of_memfd(0)?))),
    pages("secret memory", || each(|_| map_file(numbers(447, &[0])?))),
    pages("files of a tmpfs", || each(|number| fs::write(format!("/tmp/{number}"), vec![1; MIB]).or_errno())),
    pages("shared memory of System V", || each(|_| {
        let segment = numbers(libc::SYS_shmget, &[libc::IPC_PRIVATE.into(), MIB as i64, 0o1600])?;
        let address = numbers(libc::SYS_shmat, &[segment, 0, 0])?;
        numbers(libc::SYS_madvise, &[address, MIB as i64, 23]).map(drop)
    })),
    pages("huge pages", || each(|_| map(-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB))),
    kernel("page tables", 60_000, page_tables),
    kernel("mappings", 60_000, || each(|number| one_page(number).map(drop))),
    kernel("names of mappings", 60_000, || each(|number| {
        let name = format!("{number:070}\0");
        // PR_SET_VMA, PR_SET_VMA_ANON_NAME
        let (page, name) = (one_page(number)?, Word::Bytes(name.as_bytes()));
        let words = &mut [Word::Number(0x5356_4d41), Word::Number(0), Word::Number(page), Word::Number(4096), name];
        call(libc::SYS_prctl, words).map(drop)
    })),
    kernel("memory policies", 60_000, memory_policies),
    kernel("empty files", 100_000, || each(|number| File::create(format!("/tmp/{number}")).or_errno().map(drop))),
    kernel("symlinks", 100_000, || {
        each(|number| symlink(format!("{number:0120}"), format!("/tmp/{number}")).or_errno())
    }),
    kernel("deep directories", 100_000, || {
        std::env::set_current_dir("/tmp").or_errno()?;
        each(|_| fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")).or_errno())
    }),
    kernel("extended attributes", 3000, || each(|number| {
        let path = new_file(number)?;
        set_attribute(&path, "user.large", &BLOCK)
    })),
    kernel("access control lists", 1500, || access_lists(8000)),
    kernel("short access control lists", 60_000, || access_lists(SHORT_LIST)),
    // Not more of them: reading `/proc/locks` takes the square of their number, and holds up every lock of the machine.
    uncounted("locks of ranges", 256, 100_000, || lock(libc::F_SETLK)),
    uncounted("locks of ranges of open files", 256, 100_000, || lock(libc::F_OFD_SETLK)),
    kernel("locks of files", 4000, || each(|number| {
        let file = File::create(format!("/tmp/{}", number % 100)).or_errno()?;
        keep(nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockShared).map_err(|(_, errno)| errno))
    })),
    kernel("leases", 4000, || each(|number| {
        let file = File::create(format!("/tmp/{number}")).or_errno()?;
        let lease = [file.as_raw_fd().into(), libc::F_SETLEASE.into(), libc::F_WRLCK.into()];
        keep(numbers(libc::SYS_fcntl, &lease).map(|_| file))
    })),
    kernel("pipes", 2000, || each(|_| {
        let (from, mut to) = io::pipe().or_errno()?;
        numbers(libc::SYS_fcntl, &[to.as_raw_fd().into(), libc::F_SETFL.into(), libc::O_NONBLOCK.into()])?;
        keep(fill(|| to.write(&BLOCK)).map(|()| (from, to)))
    })),
    kernel("UNIX streams", 2000, || each(|_| {
        let (mut one, other) = UnixStream::pair().or_errno()?;
        one.set_nonblocking(true).or_errno()?;
        keep(fill(|| one.write(&BLOCK)).map(|()| (one, other)))
    })),
    kernel("UNIX datagrams", 2000, || each(|_| {
        let (one, other) = UnixDatagram::pair().or_errno()?;
        one.set_nonblocking(true).or_errno()?;
        keep(fill(|| one.send(&BLOCK)).map(|()| (one, other)))
    })),
    kernel("UNIX connections that nobody accepts", 60_000, || {
        let mut listeners = vec![];
        each(move |number| {
            let address = UnixAddress::from_abstract_name(format!("listener-{}", number / BACKLOG)).or_errno()?;
            if number % BACKLOG == 0 {
                listeners.push(UnixListener::bind_addr(&address).or_errno()?);
                backlog(listeners.last().unwrap())?;
            }
            UnixStream::connect_addr(&address).or_errno().map(drop)
        })
    }),
    kernel("descriptors in flight", 4000, || {
        let own = std::io::stdin();
        each(move |_| {
            let (to, from) = UnixStream::pair().or_errno()?;
            let rights = [own.as_raw_fd()];
            let message = [ControlMessage::ScmRights(&rights)];
            let data = [IoSlice::new(b"x")];
            let sent = sendmsg::<UnixAddr>(to.as_raw_fd(), &data, &message, MsgFlags::MSG_DONTWAIT, None);
            sent?;
            drop(to);
            keep(Ok(from))
        })
    }),
    kernel("TCP connections with data", 400, || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_errno()?;
        each(move |_| {
            let mut one = TcpStream::connect(listener.local_addr().or_errno()?).or_errno()?;
            let other = listener.accept().or_errno()?;
            one.set_nonblocking(true).or_errno()?;
            keep(fill(|| one.write(&BLOCK)).map(|()| (one, other)))
        })
    }),
    uncounted("TCP connections that nobody accepts", 6 << 10, 10_000, || unaccepted(&[])),
    uncounted("data of TCP connections that nobody accepts", 5 << 19, 100, || unaccepted(&BLOCK)),
    kernel("TCP connections in TIME_WAIT", 30_000, || {
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_errno()?;
        each(move |number| {
            if number % 20_000 == 19_999 {
                listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_errno()?;
            }
            let one = TcpStream::connect(listener.local_addr().or_errno()?).or_errno()?;
            let other = listener.accept().or_errno()?;
            drop(one);
            drop(other);
            Ok(())
        })
    }),
    kernel("UDP datagrams that wait", 1000, || each(|_| {
        let (socket, to) = udp()?;
        enlarge(&socket)?;
        let (other, _) = udp()?;
        keep((0..20).try_for_each(|_| other.send_to(&BLOCK, to).map(drop)).or_errno().map(|()| socket))
    })),
    uncounted("UDP datagrams that are not finished", 100 << 10, 1500, || each(|_| {
        let (socket, to) = udp()?;
        socket.connect(to).or_errno()?;
        let [fd, len, more] = [socket.as_raw_fd().into(), BLOCK.len() as i64, libc::MSG_MORE.into()].map(Word::Number);
        keep(call(libc::SYS_sendto, &mut [fd, Word::Bytes(&BLOCK), len, more]).map(|_| socket))
    })),
    uncounted("datagrams that come back with a time", 300 << 10, 400, || each(|_| {
        let (socket, _) = udp()?;
        enlarge(&socket)?;
        // SO_TIMESTAMPING: SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
        set_option(&socket, libc::SOL_SOCKET, 37, 2 | 16)?;
        let (_closed, to) = udp()?;
        keep((0..20).try_for_each(|_| socket.send_to(&BLOCK, to).map(drop)).or_errno().map(|()| socket))
    })),
    uncounted("errors of datagrams", 300 << 10, 400, || each(|_| {
        let (socket, _) = udp()?;
        enlarge(&socket)?;
        set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        let to = { udp()?.1 };
        (0..400).for_each(|_| drop(socket.send_to(&BLOCK[..1000], to)));
        keep(Ok(socket))
    })),
    uncounted("multicast groups", 300 << 10, 20, || each(|number| {
        let socket = UdpSocket::bind("[::1]:0").or_errno()?;
        let groups = (0..3000).map(|group| 0xff11_u128 << 112 | (number << 16 | group) as u128);
        let joined = groups.take_while(|&group| socket.join_multicast_v6(&group.into(), 1).is_ok()).count();
        if joined == 0 { Err(Errno::ENODEV) } else { keep(Ok(socket)) }
    })),
    kernel("ping sockets", 1000, || each(|_| keep(numbers(libc::SYS_socket, &[2, 2, 1])))),
    kernel("packet sockets", 1000, || each(|_| keep(numbers(libc::SYS_socket, &[17, 3, 0])))),
    kernel("VSOCK sockets", 1000, || each(|_| keep(numbers(libc::SYS_socket, &[40, 1, 0])))),
    kernel("netlink sockets", 400, || each(|_| {
        let socket = sys::netlink(libc::NETLINK_ROUTE)?;
        fill_netlink(&socket);
        keep(Ok(socket))
    })),
    uncounted("threads that wait for many descriptors", 600 << 10, 100, wait_for_many),
    kernel("epoll watches", 400_000, epoll_watches),
    kernel("inotify watches", 60_000, inotify_watches),
    kernel("inotify events", 12_000, inotify_events),
    kernel("fanotify groups", 100, || each(|_| keep(numbers(libc::SYS_fanotify_init, &[0, 0])))),
    kernel("timers", 100_000, || each(|_| {
        // struct sigevent of SIGEV_NONE
        let mut event = [0; 64];
        event[12] = 1;
        call(libc::SYS_timer_create, &mut [Word::Number(1), Word::Bytes(&event), Word::Room(&mut [0; 8])]).map(drop)
    })),
    kernel("timers by descriptor", 4000, || each(|_| keep(numbers(libc::SYS_timerfd_create, &[1, 0])))),
    kernel("events by descriptor", 4000, || each(|_| keep(numbers(libc::SYS_eventfd2, &[0, 0])))),
    kernel("queued signals", 100_000, || each(|_| crate::attacks::quotas::queue_signal(true))),
    kernel("open files of proc", 4000, || each(|_| keep(File::open("/proc/self/stat").or_errno()))),
    kernel("messages of System V", 8000, || each(|_| {
        let queue = numbers(libc::SYS_msgget, &[libc::IPC_PRIVATE.into(), 0o1600])?;
        let message = [1; 8200];
        for _ in 0..2 {
            let how = Word::Number(libc::IPC_NOWAIT.into());
            let words = &mut [Word::Number(queue), Word::Bytes(&message), Word::Number(8192), how];
            call(libc::SYS_msgsnd, words)?;
        }
        Ok(())
    })),
    kernel("semaphores", 150, || each(|_| {
        numbers(libc::SYS_semget, &[libc::IPC_PRIVATE.into(), 32_000, 0o1600]).map(drop)
    })),
    kernel("message queues", 1000, || each(|number| {
        let name = format!("of-{number}\0");
        let flags = i64::from(libc::O_CREAT | libc::O_RDWR);
        let words = &mut [Word::Bytes(name.as_bytes()), Word::Number(flags), Word::Number(0o600), Word::Number(0)];
        call(libc::SYS_mq_open, words).map(drop)
    })),
    kernel("filters of system calls", 7, || {
        let instructions = crate::attacks::filter_memory::filter(4096);
        each(move |_| sys::filter_calls(&instructions).map(drop))
    }),
    kernel("rules of Landlock", 400_000, landlock_rules),
    kernel("contexts of input and output", 1000, || each(|_| {
        call(libc::SYS_io_setup, &mut [Word::Number(64), Word::Room(&mut [0; 8])]).map(drop)
    })),
    kernel("rings of input and output", 100, || each(|_| {
        keep(call(libc::SYS_io_uring_setup, &mut [Word::Number(4096), Word::Room(&mut [0; 120])]))
    })),
    kernel("keys", 1000, || each(|number| {
        let (name, value) = (format!("key {number}\0"), [1; 1000]);
        let (kind, name) = (Word::Bytes(b"user\0"), Word::Bytes(name.as_bytes()));
        let words = &mut [kind, name, Word::Bytes(&value), Word::Number(1000), Word::Number(-2)];
        call(libc::SYS_add_key, words).map(drop)
    })),
    // struct bpf_attr of an array: {type, size of a key, size of a value, entries}
    kernel("maps of BPF", 100, || each(|_| {
        let attributes = [2u32, 4, 1 << 20, 1].map(u32::to_ne_bytes).concat();
        keep(call(libc::SYS_bpf, &mut [Word::Number(0), Word::Bytes(&attributes), Word::Number(16)]))
    })),
    // UFFD_USER_MODE_ONLY
    kernel("faults of user space", 100, || each(|_| keep(numbers(libc::SYS_userfaultfd, &[1])))),
    kernel("mounts", 1000, || each(|_| keep(call(libc::SYS_fsopen, &mut [Word::Bytes(b"tmpfs\0"), Word::Number(0)])))),
    kernel("namespaces", 100, || each(|_| sys::unshare(libc::CLONE_NEWUSER).map(drop))),
    kernel("terminals", 100, || each(|_| keep(nix::pty::openpty(None, None)))),
];

/// A list that is as long as the filter allows.
const SHORT_LIST: usize = 15;
/// Connections that wait at a listener, which has room for some more.
const BACKLOG: usize = 100;

fn each(take: impl FnMut(usize) -> nix::Result<()> + 'static) -> nix::Result<Take> {
    Ok(Box::new(take))
}

/// Keeps what was taken.
fn keep<T>(taken: nix::Result<T>) -> nix::Result<()> {
    taken.map(std::mem::forget)
}

trait OrErrno<T> {
    fn or_errno(self) -> nix::Result<T>;
}

impl<T> OrErrno<T> for io::Result<T> {
    fn or_errno(self) -> nix::Result<T> {
        self.map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
    }
}

/// Writes until nothing more is taken.
fn fill(mut write: impl FnMut() -> io::Result<usize>) -> nix::Result<()> {
    loop {
        match write() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).or_errno(),
        }
    }
}

fn map(fd: i64, flags: libc::c_int) -> nix::Result<()> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_POPULATE);
    numbers(libc::SYS_mmap, &[0, MIB as i64, access.into(), flags.into(), fd, 0]).map(drop)
}

fn map_file(fd: i64) -> nix::Result<()> {
    numbers(libc::SYS_ftruncate, &[fd, MIB as i64])?;
    map(fd, libc::MAP_SHARED)
}

fn numbers_of_memfd(flags: i64) -> nix::Result<i64> {
    call(libc::SYS_memfd_create, &mut [Word::Bytes(b"\0"), Word::Number(flags)])
}

/// A mapping of a page that is not joined with the one before.
fn one_page(number: usize) -> nix::Result<i64> {
    let access = [libc::PROT_READ, libc::PROT_NONE][number % 2];
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    numbers(libc::SYS_mmap, &[0, 4096, access.into(), flags.into(), -1, 0])
}

/// Reads a byte of each 2 MiB.
fn page_tables() -> nix::Result<Take> {
    const STEP: i64 = 2 << 20;
    let (flags, size) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, STEP * 60_000);
    let start = numbers(libc::SYS_mmap, &[0, size, libc::PROT_READ.into(), flags.into(), -1, 0])?;
    let (from, to) = io::pipe().or_errno()?;
    each(move |number| {
        numbers(libc::SYS_write, &[to.as_raw_fd().into(), start + number as i64 * STEP, 1])?;
        nix::unistd::read(&from, &mut [0]).map(drop)
    })
}

/// A policy for every second page of a file that has no pages.
fn memory_policies() -> nix::Result<Take> {
    const WINDOW: usize = 20_000;
    const PAGE: i64 = 4096;
    const MPOL_BIND: i64 = 2;
    let file = numbers_of_memfd(0)?;
    numbers(libc::SYS_ftruncate, &[file, 512 << 20])?;
    let mut start = 0;
    each(move |number| {
        let size = 2 * WINDOW as i64 * PAGE;
        if number % WINDOW == 0 {
            if start != 0 {
                numbers(libc::SYS_munmap, &[start, size])?;
            }
            let (access, offset) = (libc::PROT_READ | libc::PROT_WRITE, (number / WINDOW) as i64 * size);
            start = numbers(libc::SYS_mmap, &[0, size, access.into(), libc::MAP_SHARED.into(), file, offset])?;
        }
        let (page, nodes) = (start + 2 * (number % WINDOW) as i64 * PAGE, 1u64.to_ne_bytes());
        let numbers = [page, PAGE, MPOL_BIND].map(Word::Number);
        let [page, len, mode] = numbers;
        let nodes = [Word::Bytes(&nodes), Word::Number(64), Word::Number(0)];
        let [nodes, most, flags] = nodes;
        call(libc::SYS_mbind, &mut [page, len, mode, nodes, most, flags]).map(drop)
    })
}

fn new_file(number: usize) -> nix::Result<String> {
    let path = format!("/tmp/{number}");
    File::create(&path).or_errno()?;
    Ok(path)
}

fn set_attribute(path: &str, name: &str, value: &[u8]) -> nix::Result<()> {
    let (path, name) = (format!("{path}\0"), format!("{name}\0"));
    let strings = [path.as_bytes(), name.as_bytes(), value].map(Word::Bytes);
    let [path, name, text] = strings;
    call(libc::SYS_setxattr, &mut [path, name, text, Word::Number(value.len() as i64), Word::Number(0)]).map(drop)
}

/// Directories with lists of so many entries for the own user.
fn access_lists(users: usize) -> nix::Result<Take> {
    let list = access_list(users);
    each(move |number| {
        let path = format!("/tmp/{number}");
        fs::create_dir(&path).or_errno()?;
        set_attribute(&path, "system.posix_acl_access", &list)?;
        set_attribute(&path, "system.posix_acl_default", &list)
    })
}

/// As many entries for the own user, and those that a list must have (`linux/posix_acl_xattr.h`).
fn access_list(users: usize) -> Vec<u8> {
    let own = nix::unistd::geteuid().as_raw();
    let entry = |tag: u16, id: u32| [&tag.to_ne_bytes()[..], &7u16.to_ne_bytes(), &id.to_ne_bytes()].concat();
    let entries = std::iter::once((1, u32::MAX)).chain(std::iter::repeat_n((2, own), users));
    let entries = entries.chain([(4, u32::MAX), (0x10, u32::MAX), (0x20, u32::MAX)]);
    let version = 2u32.to_ne_bytes().to_vec();
    [version, entries.flat_map(|(tag, id)| entry(tag, id)).collect()].concat()
}

/// Locks every second byte of a file, and goes on with the next file, since the kernel keeps the locks of each in a
/// list.
fn lock(command: libc::c_int) -> nix::Result<Take> {
    const LOCKS: usize = 1000;
    let files = |number: usize| File::create(format!("/tmp/{number}")).or_else(|_| File::open("/payload"));
    let mut file = files(0).or_errno()?;
    each(move |number| {
        if number % LOCKS == 0 {
            let next = files(number).or_errno()?;
            std::mem::forget(std::mem::replace(&mut file, next));
        }
        // struct flock {type, whence, start, len, pid}, padded
        let kind = if file.metadata().or_errno()?.len() > 0 { libc::F_RDLCK } else { libc::F_WRLCK };
        let mut lock = [[kind as u64, 2 * number as u64, 1, 0].map(u64::to_ne_bytes)].concat();
        call(
            libc::SYS_fcntl,
            &mut [
                Word::Number(file.as_raw_fd().into()),
                Word::Number(command.into()),
                Word::Bytes(&lock.as_flattened_mut()[..]),
            ],
        )
        .map(drop)
    })
}

fn backlog(listener: &impl AsRawFd) -> nix::Result<()> {
    numbers(libc::SYS_listen, &[listener.as_raw_fd().into(), BACKLOG as i64 + 1]).map(drop)
}

/// Connections whose clients close them again.
fn unaccepted(data: &'static [u8]) -> nix::Result<Take> {
    let mut listeners: Vec<(TcpListener, SocketAddr)> = vec![];
    each(move |number| {
        if number % BACKLOG == 0 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_errno()?;
            backlog(&listener)?;
            let address = listener.local_addr().or_errno()?;
            listeners.push((listener, address));
        }
        let mut client = TcpStream::connect(listeners.last().unwrap().1).or_errno()?;
        client.set_nonblocking(true).or_errno()?;
        if data.is_empty() { Ok(()) } else { fill(|| client.write(data)) }
    })
}

fn udp() -> nix::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_errno()?;
    let address = socket.local_addr().or_errno()?;
    Ok((socket, address))
}

/// As large a buffer as there is.
fn enlarge(socket: &UdpSocket) -> nix::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 24)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, 1 << 24)
}

fn set_option(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: i32) -> nix::Result<()> {
    let [fd, level, option] = [socket.as_raw_fd(), level, option].map(|number| Word::Number(number.into()));
    call(libc::SYS_setsockopt, &mut [fd, level, option, Word::Bytes(&value.to_ne_bytes()), Word::Number(4)]).map(drop)
}

/// Asks for more than fits into the buffer.
fn fill_netlink(socket: &OwnedFd) {
    // struct nlmsghdr {len, type, flags, seq, pid} and struct rtgenmsg, padded
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let request = [&32u32.to_ne_bytes()[..], &libc::RTM_GETLINK.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 24]].concat();
    let ask = |_: &u32| nix::sys::socket::send(socket.as_raw_fd(), &request, MsgFlags::MSG_DONTWAIT).is_ok();
    let _ = (0..1000).take_while(ask).count();
}

/// Threads that wait for a FIFO, which has a queue for each direction, as often as there may be descriptors.
fn wait_for_many() -> nix::Result<Take> {
    let path = "/tmp/fifo";
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?;
    let fifo = File::options().read(true).write(true).open(path).or_errno()?.into_raw_fd();
    each(move |_| {
        let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
        // struct pollfd {fd, events, revents}
        let entries = u64::from(fifo as u32).to_ne_bytes().repeat(most as usize);
        let wait =
            move || call(libc::SYS_poll, &mut [Word::Bytes(&entries), Word::Number(most as i64), Word::Number(-1)]);
        std::thread::Builder::new().stack_size(1 << 16).spawn(wait).or_errno().map(drop)
    })
}

fn epoll_watches() -> nix::Result<Take> {
    const FILES: usize = 400;
    let files = (0..FILES).map(|_| UnixStream::pair().or_errno()).collect::<nix::Result<Vec<_>>>();
    let files = files.or_else(|errno| if errno == Errno::EMFILE { Ok(vec![]) } else { Err(errno) })?;
    let mut epoll = 0;
    each(move |number| {
        if number % files.len().max(1) == 0 {
            epoll = numbers(libc::SYS_epoll_create1, &[0])?;
        }
        let file = files.get(number % files.len().max(1)).map_or(0, |(one, _)| one.as_raw_fd());
        let words = [epoll, libc::EPOLL_CTL_ADD.into(), file.into()].map(Word::Number);
        let [epoll, add, file] = words;
        call(libc::SYS_epoll_ctl, &mut [epoll, add, file, Word::Bytes(&[1; 16])]).map(drop)
    })
}

fn inotify() -> nix::Result<i64> {
    numbers(libc::SYS_inotify_init1, &[libc::IN_NONBLOCK.into()])
}

fn watch(instance: i64, path: &str) -> nix::Result<()> {
    let path = format!("{path}\0");
    let words = &mut [Word::Number(instance), Word::Bytes(path.as_bytes()), Word::Number(libc::IN_ALL_EVENTS.into())];
    call(libc::SYS_inotify_add_watch, words).map(drop)
}

/// Of the same files by each instance.
fn inotify_watches() -> nix::Result<Take> {
    const FILES: usize = 4000;
    let mut instance = inotify()?;
    each(move |number| {
        if number < FILES {
            new_file(number)?;
        } else if number % FILES == 0 {
            instance = inotify()?;
        }
        watch(instance, &format!("/tmp/{}", number % FILES))
    })
}

/// An event with a long name for each instance.
fn inotify_events() -> nix::Result<Take> {
    let instances = [inotify()?, inotify()?, inotify()?, inotify()?, inotify()?, inotify()?, inotify()?, inotify()?];
    let path = |number: usize| format!("/tmp/{:0250}", number % 2);
    for number in 0..2 {
        File::create(path(number)).or_errno()?;
    }
    instances.iter().try_for_each(|&instance| watch(instance, "/tmp"))?;
    each(move |number| {
        let path = format!("{}\0", path(number));
        call(libc::SYS_chmod, &mut [Word::Bytes(path.as_bytes()), Word::Number(0o600)]).map(drop)
    })
}

/// Ports that may be bound, in one set after the other.
fn landlock_rules() -> nix::Result<Take> {
    const RULES: usize = 10_000;
    let mut set = 0;
    each(move |number| {
        if number % RULES == 0 {
            // struct landlock_ruleset_attr {handled_access_fs, handled_access_net}
            let attributes = [0u64, 3].map(u64::to_ne_bytes).concat();
            let words = &mut [Word::Bytes(&attributes), Word::Number(16), Word::Number(0)];
            set = call(libc::SYS_landlock_create_ruleset, words)?;
        }
        // struct landlock_net_port_attr {allowed_access, port}
        let rule = [1u64, (number % RULES) as u64].map(u64::to_ne_bytes).concat();
        let words = &mut [Word::Number(set), Word::Number(2), Word::Bytes(&rule), Word::Number(0)];
        call(libc::SYS_landlock_add_rule, words).map(drop)
    })
}
