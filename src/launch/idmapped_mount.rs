//! User namespaces with the ID mappings of idmapped mounts (mount_setattr(2)).

use std::fs::File;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::control_pipe::ControlPipe;
use super::host_ids::OWN_IDS;
use super::id_maps::write;
use super::minimal_filter::allow_only;
use super::process::{self, Process};
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::plan::{Address, Arg, HostId, IdMaps, Input, MapLine, MapWriter, OnError, Script, Word, flags, nr};
use crate::sys::in_caller;
use crate::sys::layout::Layout;

/// The namespace of mounts on which no owner has an ID. It is the same for every sandbox, so it stays open in the
/// caller.
struct KeptNamespace {
    namespace: Arc<OwnedFd>,
    /// Device and inode number of its file.
    file: (u64, u64),
}

static KEPT: Mutex<Option<KeptNamespace>> = Mutex::new(None);

fn identify(namespace: &OwnedFd) -> nix::Result<(u64, u64)> {
    fstat(namespace).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Returns maps in which no owner of a file has an ID. Groups keep theirs, so that files which they may read stay
/// readable.
pub(crate) fn maps_of_nobody(groups: impl IntoIterator<Item = HostId>) -> IdMaps {
    // The kernel requires at least one line. No file system uses this ID.
    const NONE: u32 = u32::MAX - 2;
    let none = MapLine::one(NONE, HostId::Id(OWN_IDS.first));
    let groups = groups.into_iter().filter_map(|group| match group {
        HostId::Id(id) => Some(MapLine::one(id, group)),
        HostId::Own => None,
    });
    IdMaps { uid: vec![none], gid: [none].into_iter().chain(groups).collect(), writer: MapWriter::Caller }
}

/// Returns a user namespace with these maps, for a sandbox whose own host ID is `own`. `caller` is a pidfd of the
/// caller.
pub(super) fn namespace(maps: &IdMaps, own: u32, caller: BorrowedFd<'_>) -> Result<Arc<OwnedFd>> {
    if *maps != maps_of_nobody([]) {
        return new_namespace(maps, own, caller).map(Arc::new);
    }
    let mut kept = lock(&KEPT);
    if let Some(known) = kept.take() {
        if identify(&known.namespace) != Ok(known.file) {
            // Other code in this process has closed the descriptor, and its number may refer to another file now.
            mem::forget(known.namespace);
        } else {
            let namespace = known.namespace.clone();
            *kept = Some(known);
            return Ok(namespace);
        }
    }
    let namespace = new_namespace(maps, own, caller)?;
    // The caller may have closed its standard streams. A copy never gets their numbers.
    let copy = namespace.try_clone().map_err(Error::io("copy the descriptor of a user namespace"))?;
    let namespace = Arc::new(copy);
    let file = identify(&namespace).map_err(Error::io("inspect the user namespace of an idmapped mount"))?;
    *kept = Some(KeptNamespace { namespace: namespace.clone(), file });
    Ok(namespace)
}

/// Returns whether the mount at a path supports an ID mapping, by setting one on a copy of it. Returns `None` if no
/// mapping can be created.
pub(crate) fn can_idmap(mount: &Path) -> Option<bool> {
    let caller = process::own_pidfd().ok()?;
    let maps = maps_of_nobody([]);
    let namespace = namespace(&maps, 0, caller.as_fd()).ok()?;
    let mut trial = Script::new("stockade: trial of an idmapped mount");
    let source = trial.open_source(mount);
    let tree = trial.open_tree(source, "");
    trial.mount_idmap(tree, false, Input::IdMapping(0));
    let resolve = |_| namespace.as_raw_fd() as u64;
    match in_caller::execute(&Layout { script: &trial, tag: 0, fault: None, resolve: &resolve }) {
        Ok(_) => Some(true),
        Err((_, Errno::EINVAL | Errno::EPERM | Errno::ENOSYS)) => Some(false),
        Err(_) => None,
    }
}

/// Creates a user namespace with these maps. A child holds it until it is opened, and has exited when this returns.
pub(super) fn new_namespace(maps: &IdMaps, own: u32, caller: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut holder = Script::new("stockade: ID mapping");
    // The child has every capability in the new namespace, and needs none of them.
    holder.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1).ignore();
    holder.capset(0, 0).ignore();
    allow_only(&mut holder, &[], OnError::Ignore);
    // struct pollfd {int fd; short events, revents}
    let entries = [Input::CallerPidfd, Input::Control].map(|input| Word::Address(Address::Input(input)));
    let entries = holder.arena.words(&entries, "[{<pidfd of the caller>, POLLIN}, {<control>, POLLIN}]");
    holder.call(nr!(SYS_ppoll), [entries.into(), 2.into(), Arg::NULL, Arg::NULL, 8.into()]);
    holder.call(nr!(SYS_exit_group), [Arg::NONE]);
    let events = u64::from(libc::POLLIN as u16) << 32;
    let control = ControlPipe::new().map_err(Error::io("create the control pipe"))?;
    let resolve = |input| events | if input == Input::Control { control.read_end() } else { caller.as_raw_fd() } as u64;
    let layout = Layout { script: &holder, tag: 0, fault: None, resolve: &resolve };
    let step = "create a user namespace for an idmapped mount";
    let process = Process::clone(libc::CLONE_NEWUSER as u64, &layout, step)?;
    let written = write(process.pid(), maps, own);
    let path = format!("/proc/{}/ns/user", process.pid());
    let namespace = File::open(path).map_err(Error::io("open the user namespace of an idmapped mount"));
    if process.signal(libc::SIGKILL).is_err() {
        // The caller may send no signals.
        let _ = control.write();
    }
    written.and(namespace).map(Into::into)
}
