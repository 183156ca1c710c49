//! Invalid arguments of system calls, and paths with unusual characters.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::{Command, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::learn::{bounded, fails, learn, sandbox, succeeds, unless_landlock};
use crate::support::{is_root, own_path, payload, with_payload};
use stockade::Errno;

payloads![("hard-names", hard_names), ("nowhere", nowhere), ("change", change), ("hide", hide)];

/// A newline, a quote and a backslash, a byte that is no UTF-8, and the longest name.
fn names() -> [Vec<u8>; 4] {
    [b"new\nline".to_vec(), b"\"quote\\".to_vec(), b"no\xffutf8 \x01".to_vec(), vec![b'x'; 255]]
}

fn path(name: &[u8]) -> PathBuf {
    Path::new("/a").join(std::ffi::OsStr::from_bytes(name))
}

fn hard_names(args: &[String]) -> i32 {
    let wanted = names().iter().all(|name| File::open(path(name)).is_ok());
    let more = args.is_empty() || File::open("/a/more").is_ok();
    i32::from(!wanted || !more)
}

#[apply(test)]
#[skip(unless_landlock)]
fn hard_names_are_learned_printed_and_used() {
    let root = names().iter().fold(Root::host().file("/a/more", "x"), |root, name| root.file(path(name), "x"));
    let sandbox = bounded(Sandbox::new().root(with_payload(root)));
    let learned = learn(&sandbox, &payload("hard-names"));
    for name in names() {
        assert_eq!(learned.paths[&path(&name)], FsAccess::READ_FILE, "{name:?}");
    }
    let json = serde_json::to_string(&learned).expect("JSON");
    assert_eq!(serde_json::from_str::<Learned>(&json).expect("JSON of its own"), learned);
    let code = learned.to_string();
    assert!(code.contains(r#""/a/new\nline""#) && code.contains(r#"b"/a/no\xffutf8 \x01""#), "{code}");
    succeeds(&learned, &sandbox, &payload("hard-names"));
    let mut more = payload("hard-names");
    more.arg("more");
    fails(&learned, &sandbox, &more);
}

/// Calls with pointers and descriptors that lead nowhere, and structures that are cut off.
fn nowhere(_: &[String]) -> i32 {
    let unmapped = 16 as *const libc::c_char;
    let long = CString::new(vec![b'a'; 5000]).expect("a path");
    let deep = CString::new("a/".repeat(2000)).expect("a path");
    let loops = c"/a/loop";
    let cwd = libc::AT_FDCWD;
    // SAFETY: the kernel checks what it is given; all of these calls fail.
    let results = unsafe {
        [
            libc::open(unmapped, libc::O_RDONLY),
            libc::openat(cwd, std::ptr::null(), libc::O_RDONLY),
            libc::openat(-5, c"file".as_ptr(), libc::O_RDONLY),
            libc::openat(1_000_000, c"file".as_ptr(), libc::O_RDONLY),
            libc::open(long.as_ptr(), libc::O_RDONLY),
            libc::open(deep.as_ptr(), libc::O_RDONLY),
            libc::open(loops.as_ptr(), libc::O_RDONLY),
            libc::open(c"".as_ptr(), libc::O_RDONLY),
            libc::rename(unmapped, c"/tmp/x".as_ptr()),
            libc::link(c"/etc/passwd".as_ptr(), unmapped),
            libc::syscall(libc::SYS_openat2, cwd, c"/etc/passwd".as_ptr(), unmapped, 24) as i32,
            libc::syscall(libc::SYS_execveat, cwd, unmapped, 0, 0, 0) as i32,
            libc::bind(0, unmapped.cast(), 16),
            libc::connect(0, unmapped.cast(), u32::MAX),
            libc::syscall(libc::SYS_sendmsg, 0, unmapped, 0) as i32,
            libc::syscall(libc::SYS_sendmmsg, 0, unmapped, u32::MAX, 0) as i32,
            libc::syscall(9999) as i32,
        ]
    };
    match results.iter().position(|&result| result != -1) {
        None => 0,
        Some(call) => call as i32 + 1,
    }
}

#[apply(test)]
fn invalid_pointers_are_ignored() {
    let root = with_payload(Root::host().symlink("/a/loop", "/a/loop"));
    // Every policy that denies set-user-ID files denies openat2(2).
    let sandbox = bounded(Sandbox::new().root(root).seccomp(Seccomp::new().allow_set_id_bits()));
    let learned = learn(&sandbox, &payload("nowhere"));
    assert!(learned.calls.contains("sendmmsg") && learned.calls.contains("openat2"), "{learned}");
    for path in ["/etc/passwd", "/tmp/x", "/tmp", "/a/loop", "/a"] {
        assert!(!learned.paths.contains_key(Path::new(path)), "{path}: {learned}");
    }
}

/// Opens a path that another thread writes to meanwhile.
fn change(_: &[String]) -> i32 {
    use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
    static PATH: [AtomicU8; 12] = {
        let text = b"/etc/passwd\0";
        let mut path = [const { AtomicU8::new(0) }; 12];
        let mut at = 0;
        while at < text.len() {
            path[at] = AtomicU8::new(text[at]);
            at += 1;
        }
        path
    };
    static DONE: AtomicBool = AtomicBool::new(false);
    let writer = std::thread::spawn(|| {
        while !DONE.load(Ordering::Relaxed) {
            for byte in [0, b'/', b'\xff', b'e'] {
                PATH[1].store(byte, Ordering::Relaxed);
                PATH[11].store(byte, Ordering::Relaxed);
            }
            PATH[11].store(0, Ordering::Relaxed);
        }
    });
    for _ in 0..500 {
        // SAFETY: the kernel reads the string and keeps to pages that are mapped.
        let fd = unsafe { libc::open(PATH.as_ptr().cast(), libc::O_RDONLY) };
        if fd >= 0 {
            // SAFETY: it is this thread's own.
            unsafe { libc::close(fd) };
        }
    }
    DONE.store(true, Ordering::Relaxed);
    i32::from(writer.join().is_err())
}

#[apply(test)]
fn a_path_that_changes_while_it_is_read_is_harmless() {
    let learned = learn(&sandbox(), &payload("change"));
    assert!(learned.calls.contains("openat"), "{learned}");
}

/// Whom nobody looks into who has the same user id and nothing else.
fn hide(_: &[String]) -> i32 {
    nix::sys::prctl::set_dumpable(false).expect("prctl");
    i32::from(File::open("/etc/hostname").is_err())
}

#[apply(test)]
fn undumpable_programs_are_learned_from_by_the_owner_of_their_user_namespace() {
    let learned = learn(&sandbox(), &payload("hide"));
    assert_eq!(learned.paths[Path::new("/etc/hostname")], FsAccess::READ_FILE);
    if !is_root() {
        // Without one the caller is nothing but another process of the same user, and does not learn half of it.
        let bare = bounded(Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit()));
        let mut command = Command::new(own_path());
        command.args(["--payload", "hide"]).stdin(Stdio::null()).stdout(Stdio::null());
        let error = bare.learn(&command).expect_err("nobody can look at it");
        assert!(error.errno() == Some(Errno::EACCES), "{error}");
    }
}
