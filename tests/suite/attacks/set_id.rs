//! Files with the set-user-ID or set-group-ID bit that a program creates in a directory of the host. They belong to the
//! caller, so other users of the host would gain privileges by them.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use stockade::learn::Learned;
use stockade::seccomp::SystemCall;
use stockade::{Root, Sandbox, Seccomp, profile};

use crate::attacks::common::{Attempts, attempt, open_directory};
use crate::attacks::sys::{Word, call};
use crate::support::{payload, shared_dir, text, unless_idmapped_mounts, with_payload};

#[path = "../../../examples/judge/policy.rs"]
mod policy;

payloads![("set_id", set_id)];

const BITS: [(i64, &str); 3] = [(0o4755, "user"), (0o2755, "group"), (0o6711, "both")];

const CWD: Word<'static> = Word::Number(libc::AT_FDCWD as i64);
/// Of Linux 6.6, on all architectures.
const FCHMODAT2: i64 = 452;

/// Its name, and the calls that it makes with a file's name, the file itself, and a mode.
type Way = (&'static str, fn(&[u8], &File, i64) -> nix::Result<i64>);

/// Ways to a file of this name and mode. What takes a file that exists finds it under this name.
fn ways() -> Vec<Way> {
    let mut ways: Vec<Way> = vec![
        ("fchmod", |_, file, mode| call(libc::SYS_fchmod, &mut [descriptor(file), Word::Number(mode)])),
        ("fchmodat", |name, _, mode| call(libc::SYS_fchmodat, &mut [CWD, Word::Bytes(name), Word::Number(mode)])),
        ("fchmodat2", |name, _, mode| {
            call(FCHMODAT2, &mut [CWD, Word::Bytes(name), Word::Number(mode), Word::Number(0)])
        }),
        ("openat", |name, _, mode| {
            call(libc::SYS_openat, &mut [CWD, Word::Bytes(&new(name)), flags(libc::O_CREAT), Word::Number(mode)])
        }),
        ("tmpfile", |name, _, mode| {
            let temporary = &mut [CWD, Word::Bytes(b".\0"), flags(libc::O_TMPFILE), Word::Number(mode)];
            let path = format!("/proc/self/fd/{}\0", call(libc::SYS_openat, temporary)?);
            let (path, follow) = (Word::Bytes(path.as_bytes()), Word::Number(libc::AT_SYMLINK_FOLLOW.into()));
            call(libc::SYS_linkat, &mut [CWD, path, CWD, Word::Bytes(&new(name)), follow])
        }),
        ("openat2", |name, _, mode| {
            let how = [(libc::O_CREAT | libc::O_RDWR) as u64, mode as u64, 0].map(u64::to_ne_bytes);
            let how = &mut [CWD, Word::Bytes(&new(name)), Word::Bytes(how.as_flattened()), Word::Number(24)];
            call(libc::SYS_openat2, how)
        }),
        ("mknodat", |name, _, mode| {
            let mode = Word::Number(i64::from(libc::S_IFREG) | mode);
            call(libc::SYS_mknodat, &mut [CWD, Word::Bytes(&new(name)), mode, Word::Number(0)])
        }),
        ("garbage", |_, file, mode| call(libc::SYS_fchmod, &mut [descriptor(file), Word::Number(mode | 0x1234 << 32)])),
    ];
    #[cfg(target_arch = "x86_64")]
    ways.extend::<[Way; 4]>([
        ("chmod", |name, _, mode| call(libc::SYS_chmod, &mut [Word::Bytes(name), Word::Number(mode)])),
        ("open", |name, _, mode| {
            call(libc::SYS_open, &mut [Word::Bytes(&new(name)), flags(libc::O_CREAT), Word::Number(mode)])
        }),
        ("creat", |name, _, mode| call(libc::SYS_creat, &mut [Word::Bytes(&new(name)), Word::Number(mode)])),
        ("mknod", |name, _, mode| {
            call(libc::SYS_mknod, &mut [Word::Bytes(&new(name)), Word::Number(mode), Word::Number(0)])
        }),
    ]);
    ways
}

fn descriptor(file: &File) -> Word<'static> {
    Word::Number(file.as_raw_fd().into())
}

fn flags(flags: libc::c_int) -> Word<'static> {
    Word::Number((flags | libc::O_RDWR).into())
}

/// The name of a file that does not exist yet.
fn new(name: &[u8]) -> Vec<u8> {
    [b"new-", name].concat()
}

/// Every way with all bits, or the one that the second argument names.
fn set_id(args: &[String]) -> i32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    for (way, make) in ways().into_iter().filter(|(way, _)| args.first().is_none_or(|named| named == way)) {
        for (mode, bits) in BITS {
            let name = format!("{way}-{bits}");
            let file = File::open(&name).unwrap();
            attempt(&name.clone(), make(&[name.as_bytes(), &[0]].concat(), &file, mode));
        }
    }
    0
}

/// What a program is told, and the names of the files with such bits that it leaves on the host.
fn leaves(sandbox: &Sandbox, way: Option<&str>) -> (Attempts, Vec<String>) {
    let place = shared_dir();
    open_directory(place.path());
    for name in ways().iter().flat_map(|(way, _)| BITS.map(|(_, bits)| format!("{way}-{bits}"))) {
        fs::write(place.path().join(name), "#!/bin/sh\n").unwrap();
    }
    let sandbox = sandbox.clone().map_root(|root| with_payload(root).bind_rw(place.path(), "/place"));
    // Files belong to the program, so that it may change their mode.
    let output = sandbox.output(payload("set_id").args(way).current_dir("/place")).unwrap();
    let has_bits = |entry: &fs::DirEntry| entry.metadata().unwrap().permissions().mode() & 0o6000 != 0;
    let left = fs::read_dir(place.path()).unwrap().flatten().filter(has_bits);
    (Attempts::parse(&text(&output.stdout)), left.map(|entry| entry.file_name().into_string().unwrap()).collect())
}

/// Attack 39: A program leaves a set-user-ID or set-group-ID file in a writable bind, by any call. For a caller that is
/// root it is root's.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn no_preset_and_no_profile_leaves_set_id_files() {
    let under = |policy: Seccomp| Sandbox::new().root(Root::host()).seccomp(policy);
    let every_way = ways().len() * BITS.len();
    for policy in [Seccomp::unconfined(), Seccomp::new().allow_set_id_bits()] {
        let (attempts, left) = leaves(&under(policy), None);
        let missing = if attempts.get("fchmodat2-user") == "ENOSYS" { BITS.len() } else { 0 };
        assert_eq!(left.len(), every_way - missing, "the attack must work here: {attempts:?} left {left:?}");
    }
    let everything = || SystemCall::all().filter_map(SystemCall::name);
    let learned = Learned::new().allow_calls(everything()).allow_paths([("/", stockade::landlock::FsAccess::all())]);
    let reporting: [(&str, Sandbox); 11] = [
        ("new", under(Seccomp::new())),
        ("container", under(Seccomp::container())),
        ("every call by name", under(Seccomp::allow_list().allow(everything()))),
        ("a deny-list", under(Seccomp::deny_list().deny(["bpf"]))),
        ("learned", under(learned.seccomp())),
        ("learned from container", under(Seccomp::container().only(learned.calls.clone()))),
        ("build_step", profile::build_step()),
        ("test", profile::test()),
        ("agent", profile::agent()),
        ("runtime", under(Seccomp::runtime())),
        ("pure computation that may write", under(Seccomp::pure_computation().allow(WRITING))),
    ];
    for (name, sandbox) in reporting {
        let (attempts, left) = leaves(&sandbox, None);
        assert!(left.is_empty(), "{name}: {left:?}");
        for (way, bits) in ways().iter().flat_map(|(way, _)| BITS.map(|(_, bits)| (way, bits))) {
            let errno = if *way == "openat2" { Errno::ENOSYS } else { Errno::EPERM };
            assert_eq!(attempts.get(&format!("{way}-{bits}")), format!("{errno:?}"), "{name}: {way}");
        }
    }
    // The first attempt kills the sandbox.
    for (name, sandbox) in [
        ("judge", profile::judge()),
        ("pure computation", under(Seccomp::pure_computation())),
        ("judge's computation", under(policy::computation())),
    ] {
        for (way, _) in ways() {
            let (attempts, left) = leaves(&sandbox, Some(way));
            assert!(left.is_empty() && attempts.done().count() == 0, "{name}: {way}: {attempts:?} left {left:?}");
        }
    }
}

/// What a policy has to allow for the attack, beside what computes.
const WRITING: [&str; 13] = [
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "open",
    "openat",
    "openat2",
    "creat",
    "mknod",
    "mknodat",
    "linkat",
    "umask",
    "execve",
];
