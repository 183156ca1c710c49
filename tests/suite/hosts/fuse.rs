//! FUSE: file systems that a process serves, such as those of sshfs and of gvfs. By default no user but the one who has
//! mounted it may enter it, not even root.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use super::simulated::SimulatedHost;
use crate::support::{at_most, is_root};

payloads![("serve_fuse", serve_fuse)];

/// The node ID of the root directory (`FUSE_ROOT_ID`), and that of the file in it.
const DIRECTORY: u64 = 1;
const FILE: u64 = 2;
/// What stands before each request, and before each answer.
const REQUEST_HEADER: usize = 40;
const ANSWER_HEADER: usize = 16;

/// The longest time until a file system is mounted.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file system with one file, which exists once it is created.
#[derive(Default)]
struct OneFile {
    contents: Option<Vec<u8>>,
}

fn number<const SIZE: usize>(bytes: &[u8], at: usize) -> [u8; SIZE] {
    bytes[at..at + SIZE].try_into().expect("a number")
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn long_words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl OneFile {
    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let size = if node == FILE { self.contents.as_ref().map_or(0, Vec::len) as u64 } else { 0 };
        let mode = if node == FILE { libc::S_IFREG | 0o666 } else { libc::S_IFDIR | 0o777 };
        [long_words(&[node, size, 0, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
    }

    /// `struct fuse_entry_out`: nothing of it is cached.
    fn entry(&self) -> Vec<u8> {
        [long_words(&[FILE, 0, 0, 0, 0]), self.attributes(FILE)].concat()
    }

    /// Answers a request. `None` if its kind has no answer.
    fn answer(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let (operation, node) = (u32::from_ne_bytes(number(request, 4)), u64::from_ne_bytes(number(request, 16)));
        let body = &request[REQUEST_HEADER..];
        let opened = || vec![0; 16];
        Some(match (operation, node) {
            // FUSE_INIT: version 7.31, writes of one page.
            (26, _) => Ok([words(&[7, 31, 0, 0, 0, 4096]), vec![0; 40]].concat()),
            // FUSE_LOOKUP
            (1, DIRECTORY) if body == b"file\0" && self.contents.is_some() => Ok(self.entry()),
            (1, _) => Err(libc::ENOENT),
            // FUSE_FORGET, FUSE_INTERRUPT, FUSE_BATCH_FORGET
            (2 | 36 | 42, _) => return None,
            // FUSE_GETATTR, and FUSE_SETATTR, which only truncates.
            (3, _) => Ok([vec![0; 16], self.attributes(node)].concat()),
            (4, FILE) => {
                self.contents = Some(vec![]);
                Ok([vec![0; 16], self.attributes(node)].concat())
            }
            // FUSE_CREATE
            (35, DIRECTORY) => {
                self.contents = Some(vec![]);
                Ok([self.entry(), opened()].concat())
            }
            // FUSE_OPEN, FUSE_OPENDIR
            (14 | 27, _) => Ok(opened()),
            // FUSE_READ
            (15, FILE) => {
                let from = u64::from_ne_bytes(number(body, 8)) as usize;
                Ok(self.contents.iter().flatten().skip(from).copied().collect())
            }
            // FUSE_WRITE, at the end.
            (16, FILE) => {
                let data = &body[40..];
                self.contents.get_or_insert_default().extend_from_slice(data);
                Ok(words(&[data.len() as u32, 0]))
            }
            // FUSE_RELEASE, FUSE_FLUSH, FUSE_READDIR, FUSE_RELEASEDIR
            (18 | 25 | 28 | 29, _) => Ok(vec![]),
            _ => Err(libc::ENOSYS),
        })
    }
}

/// Serves the file system that will be mounted with the device at stdin, until it is unmounted. With an argument it
/// answers the first request alone.
fn serve_fuse(args: &[String]) -> i32 {
    let mut device = File::from(io::stdin().as_fd().try_clone_to_owned().expect("the device"));
    let (mut files, mut request) = (OneFile::default(), vec![0; 1 << 17]);
    let (start, mut is_first) = (Instant::now(), true);
    loop {
        let len = match device.read(&mut request) {
            Ok(len) => len,
            // It is not mounted yet.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && start.elapsed() < at_most(PATIENCE) => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            // The request was interrupted.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(_) => return 0,
        };
        let answer = files.answer(&request[..len]).filter(|_| is_first || args.is_empty());
        is_first = false;
        let Some(answer) = answer else { continue };
        let (error, data) = answer.map_or_else(|error| (-error, vec![]), |data| (0, data));
        let len = (ANSWER_HEADER + data.len()) as u32;
        let header = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &request[8..16]].concat();
        // An interrupted request takes no answer.
        let _ = device.write(&[header, data].concat());
    }
}

/// The commands that mount a file system at a path of the working directory. Its server is in another mount namespace,
/// which does not have that mount, so that it is gone with the host.
fn mount(place: &str, options: &str, server: &str) -> String {
    format!(
        "mkdir -p {place}; exec 3<>/dev/fuse
        unshare -m /mnt/payload --payload serve_fuse {server} <&3 >/dev/null 2>&1 &
        while [ /proc/$!/ns/mnt -ef /proc/$$/ns/mnt ]; do :; done
        mount -i -t fuse -o fd=3,rootmode=40777,{options} fuse {place}; exec 3>&-\n"
    )
}

/// A host with such file systems at the top, and in a directory that is bound.
fn host_with(options: &str, server: &str) -> SimulatedHost {
    let mounts = [mount("fuse", options, server), mount("opt/fuse", options, server)].concat();
    SimulatedHost::with_root(&["opt"], &format!("mkdir opt\n{mounts}"))
}

/// A host with one at a path, such as that of the directory for a writable bind.
fn host_with_one_at(place: &str, options: &str) -> SimulatedHost {
    SimulatedHost::with_root(&["home"], &mount(place, options, ""))
}

fn unless_fuse() -> Option<String> {
    let error = File::options().read(true).write(true).open("/dev/fuse").err()?;
    Some(format!("/dev/fuse cannot be opened: {error}"))
}

/// Of the caller, for the caller alone and for everybody.
#[apply(test)]
#[skip(unless_fuse)]
fn file_systems_of_processes_are_shown() {
    host_with("user_id=0,group_id=0", "").assert_works();
    host_with("user_id=0,group_id=0,allow_other", "").assert_works();
}

/// Of another user, who alone may enter: root that of a user, a user that of root and that of another.
#[apply(test)]
#[only(Root)]
#[skip(unless_fuse)]
fn a_file_system_that_the_caller_may_not_enter_is_bound_as_it_is() {
    host_with("user_id=1234,group_id=1234", "").assert_works();
    host_with("user_id=0,group_id=0", "").of_user().assert_works();
    host_with("user_id=99,group_id=99", "").of_user().assert_works();
}

/// As of a server that has stopped, such as that of an sshfs without a network.
#[apply(test)]
#[skip(unless_fuse)]
fn a_server_that_never_answers_is_not_waited_for() {
    host_with("user_id=0,group_id=0", "silent").assert_works();
    host_with("user_id=0,group_id=0", "silent").of_user().assert_works();
}

/// Root's writable binds need idmapped mounts.
#[apply(test)]
#[only(Root)]
#[skip(unless_fuse)]
fn a_writable_bind_for_root_says_what_to_use_instead() {
    for place in ["mnt/work", "mnt/work/below"] {
        let words = format!(
            "failed to map the owners of /mnt/work: mount_setattr: Invalid argument (EINVAL): the mount at /{place}, \
             of type fuse, has no idmapped mounts"
        );
        for options in ["user_id=0,group_id=0", "user_id=0,group_id=0,allow_other", "user_id=1234,group_id=1234"] {
            host_with_one_at(place, options).answers().assert_all_but(&[("writable bind", &words)]);
        }
    }
}

#[apply(test)]
#[skip(unless_fuse)]
fn a_user_writes_to_a_file_system_of_its_own() {
    let host = |place: &str| {
        if !is_root() {
            return host_with_one_at(place, "user_id=0,group_id=0");
        }
        host_with_one_at(place, "user_id=1234,group_id=1234").by("setpriv --reuid=1234 --regid=1234 --clear-groups")
    };
    host("mnt/work").assert_works();
    host_with_one_at("mnt/work/below", "user_id=0,group_id=0").of_user().assert_works();
}

/// As with encrypted homes (gocryptfs).
#[apply(test)]
#[skip(unless_fuse)]
fn a_home_may_be_in_a_process() {
    host_with_one_at("home/u", "user_id=0,group_id=0").env("HOME", "/home/u").assert_works();
    host_with_one_at("vault", "user_id=0,group_id=0").env("HOME", "/vault").assert_works();
    host_with_one_at("vault", "user_id=0,group_id=0").env("HOME", "/vault").of_user().assert_works();
}
