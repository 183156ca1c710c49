//! System calls that reach much kernel code or resources of the whole machine. Each test checks that the seccomp filter
//! alone denies them, even if another layer does too.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use stockade::capabilities::Capability;
use stockade::seccomp::Action;
use stockade::{Capabilities, Command, Root, Sandbox, Seccomp};

use crate::attacks::common::{
    attack, attack_as, attack_on_host, attempt, bare, here, open_directory, sandbox, unfiltered,
};
use crate::attacks::sys::{self, Word, call, numbers};
use crate::support::{
    is_root, kernel, shared_dir, unless_idmapped_mounts, unless_pivot_root, unless_root, with_payload,
};

payloads![
    ("filtered_calls", calls),
    ("namespaces", namespaces),
    ("mount_groups", mount_groups),
    ("set_bits", set_bits)
];

/// A marker that no call gives by itself: what is answered by it is answered by the filter.
const MARK: Errno = Errno::EBADE;

/// Opens a file by its handle, which leads past every directory and mount.
fn open_by_handle() -> nix::Result<i64> {
    // struct file_handle {u32 handle_bytes; i32 handle_type; u8 f_handle[]}
    let mut handle = [0; 136];
    handle[..4].copy_from_slice(&128u32.to_ne_bytes());
    let (at, name) = (Word::Number(libc::AT_FDCWD.into()), Word::Bytes(b"/\0"));
    let (handle_of, mount) = (libc::SYS_name_to_handle_at, &mut [0; 8]);
    // Who may not ask for it can make one up.
    let _ = call(handle_of, &mut [at, name, Word::Room(&mut handle), Word::Room(mount), Word::Number(0)]);
    let root = File::open("/").map_err(|_| Errno::ENOENT)?;
    let flags = i64::from(libc::O_RDONLY | libc::O_DIRECTORY);
    call(
        libc::SYS_open_by_handle_at,
        &mut [Word::Number(root.as_raw_fd().into()), Word::Bytes(&handle), Word::Number(flags)],
    )
}

/// A counter that counts nothing (`PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_DUMMY`), of the program itself.
fn perf_event() -> nix::Result<i64> {
    let mut attributes = [0; 128];
    attributes[..4].copy_from_slice(&1u32.to_ne_bytes());
    attributes[4..8].copy_from_slice(&64u32.to_ne_bytes());
    attributes[8] = 9;
    // exclude_kernel and exclude_hv
    attributes[40] = 1 << 5 | 1 << 6;
    let [own, any, no_group, no_flags] = [0, -1, -1, 0].map(Word::Number);
    call(libc::SYS_perf_event_open, &mut [Word::Bytes(&attributes), own, any, no_group, no_flags])
}

/// An array of one number.
fn bpf_map() -> nix::Result<i64> {
    let attributes = [2u32, 4, 4, 1, 0, 0, 0, 0].map(u32::to_ne_bytes);
    call(libc::SYS_bpf, &mut [Word::Number(0), Word::Bytes(attributes.as_flattened()), Word::Number(32)])
}

/// Each call, made so that it does no harm where it is let through: with what the kernel finds wrong, if it must be.
fn all_calls() -> Vec<(&'static str, nix::Result<i64>)> {
    let own = i64::from(std::process::id());
    let keyring = Word::Number(libc::KEY_SPEC_PROCESS_KEYRING.into());
    let key = [Word::Bytes(b"user\0"), Word::Bytes(b"stockade-test\0"), Word::Bytes(b"x"), Word::Number(1), keyring];
    let mut found = vec![
        ("bpf", bpf_map()),
        ("perf_event_open", perf_event()),
        // UFFD_USER_MODE_ONLY
        ("userfaultfd", numbers(libc::SYS_userfaultfd, &[1])),
        ("add_key", {
            let mut key = key;
            call(libc::SYS_add_key, &mut key)
        }),
        ("keyctl", numbers(libc::SYS_keyctl, &[libc::KEYCTL_GET_KEYRING_ID.into(), -2, 1])),
        (
            "request_key",
            call(
                libc::SYS_request_key,
                &mut [Word::Bytes(b"user\0"), Word::Bytes(b"none\0"), Word::Number(0), Word::Number(0)],
            ),
        ),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, &mut [Word::Number(1), Word::Room(&mut [0; 120])])),
        ("io_uring_enter", numbers(libc::SYS_io_uring_enter, &[-1, 0, 0, 0, 0, 0])),
        ("io_uring_register", numbers(libc::SYS_io_uring_register, &[-1, 0, 0, 0])),
        ("open_by_handle_at", open_by_handle()),
        // FAN_REPORT_FID
        ("fanotify_init", numbers(libc::SYS_fanotify_init, &[0x200, 0])),
        ("kcmp", numbers(libc::SYS_kcmp, &[own, own, 0, 0, 0])),
        // SYSLOG_ACTION_SIZE_BUFFER
        ("syslog", numbers(libc::SYS_syslog, &[10, 0, 0])),
        // More segments than there may be, a flag that there is not, no module, no descriptor of one.
        ("kexec_load", numbers(libc::SYS_kexec_load, &[0, 1 << 20, 0, 0])),
        ("kexec_file_load", numbers(libc::SYS_kexec_file_load, &[-1, -1, 0, 0, 1 << 30])),
        ("init_module", numbers(libc::SYS_init_module, &[0, 0, 0])),
        ("finit_module", numbers(libc::SYS_finit_module, &[-1, 0, 0])),
        ("delete_module", numbers(libc::SYS_delete_module, &[0, 0])),
        // No time, no magic number, no name, no swap.
        ("clock_settime", numbers(libc::SYS_clock_settime, &[0, 0])),
        ("reboot", numbers(libc::SYS_reboot, &[0, 0, 0, 0])),
        ("sethostname", numbers(libc::SYS_sethostname, &[0, -1])),
        ("swapon", numbers(libc::SYS_swapon, &[0, 0])),
        ("mount", numbers(libc::SYS_mount, &[0, 0, 0, 0, 0])),
        ("setns", numbers(libc::SYS_setns, &[-1, 0])),
        ("unshare", numbers(libc::SYS_unshare, &[0])),
    ];
    #[cfg(target_arch = "x86_64")]
    found.extend([
        ("modify_ldt", numbers(libc::SYS_modify_ldt, &[0, 0, 0])),
        ("iopl", numbers(libc::SYS_iopl, &[4])),
        ("ioperm", numbers(libc::SYS_ioperm, &[0, 0, 0])),
    ]);
    found
}

fn calls(_: &[String]) -> i32 {
    for (name, result) in all_calls() {
        attempt(name, result);
    }
    0
}

/// Those that are done where nothing is in the way.
fn done_by(root: bool) -> Vec<&'static str> {
    let mut names = vec!["add_key", "keyctl", "io_uring_setup", "kcmp", "unshare"];
    if root {
        names.extend(["bpf", "perf_event_open", "open_by_handle_at", "syslog", "fanotify_init"]);
        names.extend((kernel() >= (5, 11)).then_some("userfaultfd"));
    }
    names
}

/// Attack 22: `bpf`, `perf_event_open`, `userfaultfd`, keys, kexec, file handles, modules, and what is like them.
#[apply(test)]
fn calls_that_reach_into_the_kernel_are_denied() {
    let names: Vec<&str> = all_calls().into_iter().map(|(name, _)| name).collect();
    let host = attack_on_host("filtered_calls", &[]);
    host.assert_done(&done_by(is_root()));
    let unfiltered = attack(&sandbox().seccomp(Seccomp::unconfined()), "filtered_calls", &[]);
    unfiltered.assert_done(&["add_key", "keyctl", "io_uring_setup"]);
    unfiltered.assert_refused(&["bpf", "open_by_handle_at", "kexec_load", "init_module", "finit_module", "swapon"]);
    let marked = Seccomp::new().deny_with(Action::Errno(stockade::Errno::new(MARK as i32)));
    let (filtered, inside) =
        (attack(&sandbox().seccomp(marked), "filtered_calls", &[]), attack(&sandbox(), "filtered_calls", &[]));
    for name in names {
        assert_ne!(host.get(name), format!("{MARK:?}"), "{name}");
        assert_ne!(unfiltered.get(name), format!("{MARK:?}"), "{name}");
        assert_eq!(filtered.get(name), format!("{MARK:?}"), "{name} passes the filter");
        assert_eq!(inside.get(name), "EPERM", "{name}");
    }
    let container = attack(&sandbox().seccomp(Seccomp::container()), "filtered_calls", &[]);
    container.assert_all_refused();
}

/// Makes namespaces, and enters those of the process itself, which is no more than the right to do so.
fn namespaces(_: &[String]) -> i32 {
    for (name, kind) in [
        ("user", libc::CLONE_NEWUSER),
        ("mount", libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
        ("net", libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
        ("pid", libc::CLONE_NEWUSER | libc::CLONE_NEWPID),
    ] {
        // In a child, so that each begins anew.
        let ended = sys::clone(libc::SIGCHLD).and_then(|child| match child {
            0 => sys::exit(sys::unshare(kind).map_or_else(|errno| errno as i32, |_| 0)),
            child => match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child as i32), None)? {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                nix::sys::wait::WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
                _ => Err(Errno::ECHILD),
            },
        });
        attempt(name, ended);
    }
    let entered = sys::unshare(libc::CLONE_NEWUSER).and_then(|_| {
        let own = File::open("/proc/self/ns/uts").map_err(|_| Errno::ENOENT)?;
        sys::unshare(libc::CLONE_NEWUTS)?;
        call(libc::SYS_setns, &mut [Word::Number(own.as_raw_fd().into()), Word::Number(0)])
    });
    // The kernel does not let it back, but it would have got there.
    attempt("all of it", entered.or_else(|errno| if errno == Errno::EPERM { Err(errno) } else { Ok(0) }));
    0
}

/// Attack 22: A user namespace within, in which a program would have every capability over what it makes.
#[apply(test)]
#[skip(unless_pivot_root)]
fn nested_namespaces_are_denied() {
    const KINDS: [&str; 4] = ["user", "mount", "net", "pid"];
    attack(&unfiltered(&sandbox()), "namespaces", &[]).assert_done(&KINDS);
    attack_as(&bare(), &here("namespaces")).assert_done(&KINDS);
    attack(&sandbox(), "namespaces", &[]).assert_all_refused();
    attack(&sandbox().seccomp(Seccomp::container()), "namespaces", &[]).assert_all_refused();
    // With no other layer.
    let alone = attack_as(&bare().seccomp(Seccomp::new()), &here("namespaces"));
    for kind in KINDS {
        assert_eq!(alone.get(kind), "EPERM");
    }
}

fn unless_mounts_can_be_changed() -> Option<String> {
    crate::support::unless_mount_setattr().or_else(unless_idmapped_mounts).or_else(unless_pivot_root)
}

/// Mounts hierarchies of cgroups.
fn mount_groups(_: &[String]) -> i32 {
    fs::create_dir("/tmp/groups").unwrap();
    attempt("cgroup2", sys::mount("none", "/tmp/groups", "cgroup2", 0));
    attempt("new hierarchy", sys::mount("none", "/tmp/groups", "cgroup", 0));
    let (none, at, kind) = (Word::Bytes(b"none\0"), Word::Bytes(b"/tmp/groups\0"), Word::Bytes(b"cgroup\0"));
    attempt("v1", call(libc::SYS_mount, &mut [none, at, kind, Word::Number(0), Word::Bytes(b"memory\0")]));
    attempt("release_agent", File::options().write(true).open("/tmp/groups/release_agent"));
    let told = [Word::Bytes(b"cgroup2\0"), Word::Number(0)];
    attempt("fsopen", {
        let mut told = told;
        call(libc::SYS_fsopen, &mut told)
    });
    0
}

/// Attacks 14 and 23: The program has the capabilities for it; the filter alone is left.
#[apply(test)]
#[skip(unless_mounts_can_be_changed)]
fn mounts_are_denied_even_with_every_capability() {
    const HARM: [&str; 6] = ["clear read-only", "umount", "move", "see masked", "see moved", "write"];
    let run = |filter: Seccomp, name: &str| {
        let place = shared_dir();
        ["read-only", "masked", "moved"].iter().for_each(|name| open_directory(&place.path().join(name)));
        ["masked", "moved"].iter().for_each(|name| fs::write(place.path().join(name).join("secret"), "").unwrap());
        let root = with_payload(Root::host()).bind_rw(place.path(), "/tmp/place");
        let root = root.read_only("/tmp/place/read-only").mask("/tmp/place/masked").mask("/tmp/place/moved");
        let rights = Capabilities::none().keep([Capability::SysAdmin, Capability::SysChroot]);
        let capable = Sandbox::new().root(root).capabilities(rights).seccomp(filter);
        let args: &[&str] = if name == "escape" { &["/tmp/place"] } else { &[] };
        let attempts = attack(&capable, name, args);
        assert_eq!(
            place.path().join("read-only/file").exists(),
            attempts.done().any(|what| what == "write"),
            "{attempts:?}"
        );
        attempts
    };
    run(Seccomp::unconfined(), "escape").assert_done(&HARM);
    // By root of the host's own namespaces the agent, which the host would execute, can be set.
    const AGENT: &str = "/sys/fs/cgroup/memory/release_agent";
    let has_agent = is_root() && Path::new(AGENT).exists();
    assert!(!has_agent || File::options().write(true).open(AGENT).is_ok());
    let unfiltered = run(Seccomp::unconfined(), "mount_groups");
    unfiltered.assert_done(&["cgroup2", "fsopen"]);
    assert!(!has_agent || unfiltered.get("v1") == "done");
    unfiltered.assert_refused(&["new hierarchy", "release_agent"]);
    run(Seccomp::new(), "mount_groups").assert_all_refused();
    let filtered = run(Seccomp::new(), "escape");
    filtered.assert_all_refused();
    for what in ["clear read-only", "clear everything", "remount", "umount", "move", "share", "pivot", "user namespace"]
    {
        assert_eq!(filtered.get(what), "EPERM", "{what}");
    }
}

/// Makes programs in a directory that run as their owner, or with their group, wherever they are seen.
fn set_bits(args: &[String]) -> i32 {
    let at = |name: &str| format!("{}/{name}", args[0]);
    let text = |name: &str| [at(name).as_bytes(), &[0]].concat();
    for (bit, kind) in [(0o4755, "user"), (0o2755, "group")] {
        let make = |how: &str| {
            let name = format!("{how}-{kind}");
            let file = File::create(at(&name)).unwrap();
            (name, file)
        };
        let (name, _) = make("chmod");
        #[cfg(target_arch = "x86_64")]
        attempt(&name, call(libc::SYS_chmod, &mut [Word::Bytes(&text(&name)), Word::Number(bit)]));
        let (name, file) = make("fchmod");
        attempt(&name, call(libc::SYS_fchmod, &mut [Word::Number(file.as_raw_fd().into()), Word::Number(bit)]));
        let (name, _) = make("fchmodat");
        let here = i64::from(libc::AT_FDCWD);
        attempt(
            &name,
            call(libc::SYS_fchmodat, &mut [Word::Number(here), Word::Bytes(&text(&name)), Word::Number(bit)]),
        );
        let (name, _) = make("fchmodat2");
        let words = &mut [Word::Number(here), Word::Bytes(&text(&name)), Word::Number(bit), Word::Number(0)];
        attempt(&name, call(FCHMODAT2, words));
        // Made with the bit, and written to.
        let name = format!("open-{kind}");
        let made = File::options().write(true).create_new(true).mode(bit as u32).open(at(&name));
        attempt(&name, made.and_then(|mut file| std::io::Write::write_all(&mut file, b"#!/bin/sh\n")));
    }
    0
}

/// Of Linux 6.6, on all architectures.
const FCHMODAT2: i64 = 452;

/// Attack 6: A set-user-id program that is left on the host belongs to the caller. The filter alone keeps it from
/// being made.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn set_user_id_bits_are_denied() {
    const WAYS: [&str; 4] = ["fchmod-user", "fchmod-group", "fchmodat-user", "fchmodat-group"];
    let run = |filter: Seccomp| {
        let place = shared_dir();
        open_directory(place.path());
        let root = with_payload(Root::host()).bind_rw(place.path(), "/tmp/place");
        let attempts = attack(&Sandbox::new().root(root).seccomp(filter), "set_bits", &["/tmp/place"]);
        let with_bits = |entry: &fs::DirEntry| entry.metadata().unwrap().permissions().mode() & 0o6000 != 0;
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().flatten().filter(with_bits).collect();
        for file in &left {
            let owner = std::os::unix::fs::MetadataExt::uid(&file.metadata().unwrap());
            assert_eq!(owner, nix::unistd::geteuid().as_raw(), "it is the caller's");
        }
        (attempts, left.len())
    };
    let (unfiltered, left) = run(Seccomp::unconfined());
    unfiltered.assert_done(&WAYS);
    // Of those that were made with it and written to, none has kept it.
    let calls = unfiltered.done().filter(|name| !name.starts_with("open")).count();
    assert!(left == calls && left >= WAYS.len(), "{left} of {unfiltered:?}");
    let (filtered, left) = run(Seccomp::new());
    assert_eq!(left, 0, "{filtered:?}");
    for name in WAYS.iter().chain(&["fchmodat2-user", "fchmodat2-group"]) {
        assert_eq!(filtered.get(name), "EPERM");
    }
}

fn unless_filters_are_shown() -> Option<String> {
    unless_root().or_else(|| {
        let error = filters(&sandbox().plan(Command::new("sleep").arg("600")).unwrap()).err()?;
        Some(format!("the kernel does not show filters (PTRACE_SECCOMP_GET_FILTER): {error}"))
    })
}

/// The filters of two sandboxes that are made by one plan.
fn filters(plan: &stockade::Compiled) -> nix::Result<[Vec<u64>; 2]> {
    let mut children = [(); 2].map(|_| plan.spawn().unwrap());
    let filters = children.each_ref().map(|child| sys::filter_of(child.pid().number() as i32));
    for child in &mut children {
        child.kill().unwrap();
        let _ = child.wait().unwrap();
    }
    let [one, other] = filters;
    Ok([one?, other?])
}

/// Attack 58: The filter lets calls of the set-up through by a number in their sixth argument. A program that has
/// learned it makes every such call, in every sandbox of the caller.
#[apply(test)]
#[only(Root)]
#[skip(unless_filters_are_shown)]
fn each_filter_has_pass_values_of_its_own() {
    // `ld [56]` and `ld [60]`, of `struct seccomp_data`, and `jeq`.
    const SIXTH: [u64; 2] = [56 << 32 | 0x20, 60 << 32 | 0x20];
    let [one, other] = filters(&sandbox().plan(Command::new("sleep").arg("600")).unwrap()).unwrap();
    assert_eq!(one.len(), other.len());
    let passes = |filter: &[u64]| -> Vec<u64> {
        filter
            .windows(2)
            .filter(|pair| SIXTH.contains(&pair[0]) && pair[1] & 0xffff == 0x15)
            .map(|pair| pair[1] >> 32)
            .collect()
    };
    let (ones, others) = (passes(&one), passes(&other));
    assert!(ones.len() >= 2, "the filter has a pass: {one:x?}");
    assert!(ones.iter().all(|half| !others.contains(half)), "{ones:x?} and {others:x?}");
    let differing = one.iter().zip(&other).filter(|(one, other)| one != other).count();
    assert_eq!(differing, ones.len(), "nothing else differs");
}
