//! Quotas that the kernel counts for each user, in a user namespace and those above it (namespaces(7),
//! `/proc/sys/user`). A program that has the caller's user gets a fraction of each. Limits of a process are in
//! `limits`.

use std::fs;
use std::sync::OnceLock;

use libc::c_long;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::limits::SHARES;
use crate::advice::{Need, way_to_writable_proc};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::plan::{Script, Step};
use crate::proc_file;

/// A quota of a user.
struct Quota {
    /// The file with the quota of the caller.
    of_caller: &'static str,
    /// The file with the quota of users in a user namespace.
    file: &'static str,
    /// The bit of the first argument with which the calls use the quota. 0 if they always do.
    flag: libc::c_int,
    calls: &'static [c_long],
}

const INOTIFY: &[c_long] = &[
    libc::SYS_inotify_init1,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
];
const NAMESPACES: &[c_long] = &[libc::SYS_unshare, libc::SYS_clone, libc::SYS_clone3];

macro_rules! namespaces {
    ($name:literal, $flag:ident) => {{
        const FILE: &str = concat!("/proc/sys/user/max_", $name, "_namespaces");
        Quota { of_caller: FILE, file: FILE, flag: libc::$flag, calls: NAMESPACES }
    }};
}

const QUOTAS: [Quota; 11] = [
    Quota {
        of_caller: "/proc/sys/fs/inotify/max_user_instances",
        file: "/proc/sys/user/max_inotify_instances",
        flag: 0,
        calls: INOTIFY,
    },
    Quota {
        of_caller: "/proc/sys/fs/inotify/max_user_watches",
        file: "/proc/sys/user/max_inotify_watches",
        flag: 0,
        calls: INOTIFY,
    },
    Quota {
        of_caller: "/proc/sys/fs/fanotify/max_user_groups",
        file: "/proc/sys/user/max_fanotify_groups",
        flag: 0,
        calls: &[libc::SYS_fanotify_init],
    },
    namespaces!("user", CLONE_NEWUSER),
    namespaces!("mnt", CLONE_NEWNS),
    namespaces!("pid", CLONE_NEWPID),
    namespaces!("net", CLONE_NEWNET),
    namespaces!("ipc", CLONE_NEWIPC),
    namespaces!("uts", CLONE_NEWUTS),
    namespaces!("cgroup", CLONE_NEWCGROUP),
    namespaces!("time", CLONE_NEWTIME),
];

/// The fraction of each quota, as text. `None` if the kernel does not have the quota.
fn shares() -> &'static [Option<String>; QUOTAS.len()] {
    static SHARES_OF_EACH: OnceLock<[Option<String>; QUOTAS.len()]> = OnceLock::new();
    SHARES_OF_EACH.get_or_init(|| {
        QUOTAS.each_ref().map(|quota| {
            let most: u64 = proc_file::read_to_string(quota.of_caller).ok()?.trim().parse().ok()?;
            let has_file = quota.file == quota.of_caller || fs::exists(quota.file).ok()?;
            has_file.then(|| (most / SHARES).max(1).to_string())
        })
    })
}

/// Limits the quotas of the user namespace that the process has created, if the program can make the calls that use
/// them. Returns an error if `/proc/sys` is read-only.
pub(crate) fn limit(process: &mut Script, allows: impl Fn(c_long, u64) -> bool) -> Result<()> {
    let shares = QUOTAS.iter().zip(shares());
    let shares = shares.filter_map(|(quota, share)| Some((quota, share.as_ref()?)));
    let usable = shares.filter(|(quota, _)| quota.calls.iter().any(|&call| allows(call, quota.flag as u64)));
    let usable: Vec<_> = usable.collect();
    let Some((first, _)) = usable.first() else { return Ok(()) };
    if statvfs(first.file).is_ok_and(|file| file.flags().contains(FsFlags::ST_RDONLY)) {
        return Err(Error::unsupported(
            Layer::Limits,
            format!("the sandbox can exhaust the quotas of its user: {} is read-only", first.file),
            format!("{}, or run the caller as root", way_to_writable_proc()),
        ));
    }
    for (quota, share) in usable {
        process.step(
            Step::new("limit the user namespace's share of the user's quotas").path(quota.file).needs(Need::ProcFiles),
        );
        let text = process.arena.bytes(share.as_bytes(), format!("{share:?}"));
        process.write_file(quota.file, text, share.len());
    }
    Ok(())
}
