//! User namespaces whose maps are those of idmapped mounts (mount_setattr(2)).

use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::host;
use super::identity::write;
use super::interpreter;
use super::layout::Layout;
use super::process::{self, Process};
use crate::error::{Error, Result};
use crate::plan::{Address, Arg, IdMaps, Input, OnError, Program, Word, flags, nr};

/// The namespace that leaves owners without an id, which is the same for every sandbox: it stays open for as long as this process lives, closed on execution.
struct Kept {
    namespace: Arc<OwnedFd>,
    /// Device and inode number of its file.
    file: (u64, u64),
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

fn file(namespace: &OwnedFd) -> nix::Result<(u64, u64)> {
    fstat(namespace).map(|stat| (stat.st_dev, stat.st_ino))
}

/// A user namespace with these maps, of a sandbox that has `own` as its host id.
pub(super) fn namespace(maps: &IdMaps, own: u32, host: BorrowedFd<'_>) -> Result<Arc<OwnedFd>> {
    if *maps != IdMaps::of_nobody([]) {
        return new_namespace(maps, own, host).map(Arc::new);
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.take() {
        if file(&known.namespace) != Ok(known.file) {
            // The program has closed it, and may have given its number to another file.
            mem::forget(known.namespace);
        } else {
            let namespace = known.namespace.clone();
            *kept = Some(known);
            return Ok(namespace);
        }
    }
    let namespace = new_namespace(maps, own, host)?;
    // A caller may have closed its standard streams: a copy never takes their numbers.
    let copy = namespace.try_clone().map_err(Error::host("copying the descriptor of a user namespace"))?;
    let namespace = Arc::new(copy);
    let file = file(&namespace).map_err(Error::host("looking at the user namespace of an idmapped mount"))?;
    *kept = Some(Kept { namespace: namespace.clone(), file });
    Ok(namespace)
}

/// Whether the mount at a path can have an idmapping, found by giving one to a copy of it; nothing if no mapping can be
/// made.
pub(crate) fn can_idmap(mount: &Path) -> Option<bool> {
    let host = process::own_pidfd().ok()?;
    let maps = IdMaps::of_nobody([]);
    let namespace = namespace(&maps, 0, host.as_fd()).ok()?;
    let mut trial = Program::new("stockade: trial of an idmapped mount");
    let source = trial.open_source(mount);
    let tree = trial.open_tree(source, "");
    trial.mount_idmap(tree, false, Input::IdMapping(0));
    let resolve = |_| namespace.as_raw_fd() as u64;
    match host::make(&Layout { program: &trial, tag: 0, fault: None, resolve: &resolve }) {
        Ok(_) => Some(true),
        Err((_, Errno::EINVAL | Errno::EPERM | Errno::ENOSYS)) => Some(false),
        Err(_) => None,
    }
}

/// A user namespace that has these maps, for a mount that shows other ids than the disk has. The process that it takes
/// to make one has ended when this returns.
pub(super) fn new_namespace(maps: &IdMaps, own: u32, host: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut holder = Program::new("stockade: id mapping");
    // It is there for some moments, with every capability over the namespace, which none of its calls needs.
    holder.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1).ignore();
    holder.capset(0, 0).ignore();
    holder.allow_only(&[], OnError::Ignore);
    // struct pollfd {int fd; short events, revents}
    let entry = [Word::Address(Address::Input(Input::Host))];
    let entry = holder.arena.words(&entry, "[{<pidfd of the host>, POLLIN}]");
    holder.call(nr!(SYS_ppoll), [entry.into(), 1.into(), Arg::NULL, Arg::NULL, 8.into()]);
    holder.call(nr!(SYS_exit_group), [Arg::NONE]);
    let events = u64::from(libc::POLLIN as u16) << 32;
    let layout = Layout { program: &holder, tag: 0, fault: None, resolve: &|_| host.as_raw_fd() as u64 | events };
    let mut memory = layout.in_place();
    let cloned = interpreter::clone(libc::CLONE_NEWUSER as u64, &mut memory)
        .map_err(|errno| super::refused("making a user namespace for an idmapped mount", errno))?;
    let process = Process::new(cloned, memory);
    write(process.pid(), maps, own)?;
    let path = format!("/proc/{}/ns/user", process.pid());
    let namespace = File::open(path).map_err(Error::host("opening the user namespace of an idmapped mount"))?;
    drop(process);
    Ok(namespace.into())
}
