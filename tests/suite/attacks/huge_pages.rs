//! Huge pages of hugetlbfs, which the memory limit of a cgroup does not count.

use stockade::{Sandbox, Seccomp, profile};

use crate::attacks::common::{attack, attempt, sandbox, unfiltered};
use crate::attacks::sys::numbers;
use crate::support::with_payload;

payloads![("huge_pages", huge_pages)];

/// A mapping that reserves no page, so that it takes none of the host's.
fn map(flags: libc::c_int) -> nix::Result<i64> {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_HUGETLB | flags;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    numbers(libc::SYS_mmap, &[0, 2 << 20, access.into(), kind.into(), -1, 0])
}

fn memory_file(upper: i64) -> nix::Result<i64> {
    // The name is an empty string: the first zero byte of what is at the address.
    let mut words = [
        crate::attacks::sys::Word::Bytes(b"\0"),
        crate::attacks::sys::Word::Number(i64::from(libc::MFD_HUGETLB) | upper),
    ];
    crate::attacks::sys::call(libc::SYS_memfd_create, &mut words)
}

fn huge_pages(_: &[String]) -> i32 {
    attempt("mmap", map(0));
    attempt("mmap of 2 MB", map(libc::MAP_HUGE_2MB));
    attempt("memfd", memory_file(0));
    attempt("memfd with garbage", memory_file(0x1234 << 32));
    let flags = libc::IPC_CREAT | libc::SHM_HUGETLB | libc::SHM_NORESERVE | 0o600;
    attempt("shmget", numbers(libc::SYS_shmget, &[libc::IPC_PRIVATE.into(), 2 << 20, flags.into()]));
    // Others are as they were.
    attempt("small memfd", nix::sys::memfd::memfd_create(c"", nix::sys::memfd::MFdFlags::MFD_CLOEXEC));
    0
}

fn unless_huge_pages() -> Option<String> {
    let given = [map(0).map(drop), memory_file(0).map(drop)];
    given.iter().any(Result::is_err).then(|| format!("this kernel has no huge pages: {given:?}"))
}

/// Attack 62: 200 MiB of huge pages below a memory limit of 32 MiB. That a page is not counted is shown by
/// `huge_pages_do_not_exceed_their_limit` in `tests/cgroups`, where it has a limit of its own.
#[apply(test)]
#[skip(unless_huge_pages)]
fn huge_pages_are_denied_unless_requested() {
    const WAYS: [&str; 4] = ["mmap", "mmap of 2 MB", "memfd", "memfd with garbage"];
    let requested = sandbox().seccomp(Seccomp::new().allow_huge_pages());
    for allowed in [unfiltered(&sandbox()), requested] {
        attack(&allowed, "huge_pages", &[]).assert_done(&WAYS);
    }
    let with_payload = |sandbox: Sandbox| sandbox.map_root(with_payload);
    let denied = [
        sandbox(),
        sandbox().seccomp(Seccomp::container()),
        sandbox().seccomp(Seccomp::deny_list().deny(["bpf"])),
        with_payload(profile::build_step()),
        with_payload(profile::test()),
        with_payload(profile::agent()),
        // Calls that it kills for are allowed, so that all are made.
        with_payload(profile::judge()).seccomp(Seccomp::pure_computation().allow(["memfd_create", "shmget"])),
    ];
    for sandbox in denied {
        let attempts = attack(&sandbox, "huge_pages", &[]);
        for way in WAYS.iter().chain(&["shmget"]) {
            assert_eq!(attempts.get(way), "ENOMEM", "{way}");
        }
        attempts.assert_done(&["small memfd"]);
    }
}
