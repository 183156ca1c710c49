//! Decides how UNIX sockets and FIFOs of the host in read-only trees are cut off. A read-only mount prevents neither
//! connect(2) nor opening a FIFO for writing, so a program could reach the processes at their other ends. The calls are
//! in `cut_off`.
//!
//! If the program has host IDs of its own, the trees get ID mappings in which their owners have no ID. Then the kernel
//! denies every write (`HAS_UNMAPPED_ID`), and it treats a connection and opening a FIFO for writing as one. Otherwise
//! Landlock denies opening files for writing that are not writable. Each bound socket is masked, unless Landlock denies
//! connecting too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use landlock::ABI;

use super::bind::Bind;
use super::file_owner::Owner;
use super::host_root::NOT_BOUND;
use super::operation::Operation;
use super::root::{Base, Root};
use super::source::resolve_source;
use crate::confine::facts::Facts;
use crate::confine::mount_table::{HostMount, MountTable};
use crate::error::{Error, Result};
use crate::locks::lock;
use crate::outcome::{Gap, GapKind};
use crate::plan::IdMaps;
use crate::proc_file;

/// How sockets and FIFOs are cut off, and the trees in which that remains to be done.
pub(crate) struct Endpoints {
    /// The ID mapping in which no owner has an ID. `None` if files can belong to the program's user.
    pub unmapped: Option<IdMaps>,
    /// The ABI of the Landlock rules that deny opening FIFOs. `None` if such rules cannot be used.
    pub landlock: Option<ABI>,
    /// Whether the seccomp filter allows connecting to a socket.
    pub may_connect: bool,
    /// Whether the seccomp filter allows opening a file for writing.
    pub may_write: bool,
    /// The paths in the sandbox that the program may write to. Landlock denies nothing there.
    pub writable: BTreeSet<PathBuf>,
    /// The paths in the sandbox of the trees whose owners are not unmapped.
    pub reachable: BTreeSet<PathBuf>,
    /// The sockets that the kernel lists, under all their names. Read when first needed.
    sockets: Option<BTreeSet<PathBuf>>,
}

/// The first ABI of Landlock that can deny connecting to a socket by its path.
const WITH_SOCKETS: ABI = ABI::V9;

impl Endpoints {
    pub fn new(
        unmapped: Option<IdMaps>,
        landlock: Option<ABI>,
        [may_connect, may_write]: [bool; 2],
        writable: BTreeSet<PathBuf>,
    ) -> Self {
        Self { unmapped, landlock, may_connect, may_write, writable, reachable: BTreeSet::new(), sockets: None }
    }

    /// Returns whether the sockets of a tree must be masked one by one.
    pub fn needs_masks(&self, tree: &Path) -> bool {
        self.may_connect && (self.landlock.is_none_or(|abi| abi < WITH_SOCKETS) || self.is_below_writable(tree))
    }

    fn is_below_writable(&self, place: &Path) -> bool {
        place.ancestors().any(|above| self.writable.contains(above))
    }

    /// Returns whether sockets may have to be masked, which needs the scratch tmpfs.
    pub fn may_mask(&mut self, root: &Root, operations: &[Operation], facts: &Facts) -> Result<bool> {
        let is_cut_off = |mount: &&Operation| match mount {
            Operation::Bind(bind) => bind.is_cut_off(),
            Operation::Inputs(_) => true,
            _ => false,
        };
        let trees = operations.iter().filter(is_cut_off);
        let may_need =
            self.needs_masks(Path::new("/")) || trees.map(Operation::target).any(|tree| self.needs_masks(tree));
        Ok(may_need && self.has_mapped_owners(root, operations, facts)? && !self.sockets(facts.mounts()?)?.is_empty())
    }

    /// Returns whether the root may have a read-only tree whose owners cannot be unmapped.
    fn has_mapped_owners(&self, root: &Root, operations: &[Operation], facts: &Facts) -> Result<bool> {
        if self.unmapped.is_none() {
            return Ok(true);
        }
        let mut trees: Vec<PathBuf> = match &root.base {
            Base::Dir(path) => vec![resolve_source(facts, path, true)?],
            _ => vec![],
        };
        for mount in operations {
            match mount {
                Operation::Bind(bind) if !bind.is_cut_off() => {}
                Operation::Bind(bind) if bind.owner != Owner::Nobody => return Ok(true),
                Operation::Bind(bind) => trees.push(bind.resolve_source(facts)?),
                // Directories among them.
                Operation::Inputs(inputs) if inputs.owner != Owner::Nobody => return Ok(true),
                Operation::Inputs(inputs) => trees.extend(inputs.directories(facts)?),
                _ => {}
            }
        }
        let of_host = |mount: &HostMount| {
            let top = mount.point.components().nth(1);
            root.base == Base::Host && top.is_none_or(|top| NOT_BOUND.iter().all(|name| top.as_os_str() != *name))
        };
        let is_visible = |mount: &&HostMount| {
            let overlaps = |tree: &PathBuf| tree.starts_with(&mount.point) || mount.point.starts_with(tree);
            of_host(mount) || trees.iter().any(overlaps)
        };
        Ok(facts
            .mounts()?
            .iter()
            .filter(is_visible)
            .any(|mount| mount.has_endpoints() && !can_idmap(mount, facts.can_idmap)))
    }

    /// Returns the ABI of the Landlock rules that are needed. `None` if none are.
    pub fn landlock_rules(&self) -> Option<ABI> {
        let is_needed = !self.reachable.is_empty()
            && (self.may_write || self.may_connect && self.landlock.is_some_and(|abi| abi >= WITH_SOCKETS));
        self.landlock.filter(|_| is_needed)
    }

    /// Returns how they are cut off, for the summary of the layer.
    pub fn summary(&self) -> Option<&'static str> {
        let masks = self.reachable.iter().any(|tree| self.needs_masks(tree));
        Some(match (self.reachable.is_empty(), self.landlock_rules(), masks) {
            (true, ..) if self.unmapped.is_some() => "by unmapped owners",
            (true, ..) => return None,
            (false, Some(_), false) => "by Landlock",
            (false, Some(_), true) => "by Landlock and masks",
            (false, None, true) => "by masks",
            (false, None, false) => "by the seccomp filter",
        })
    }

    /// Returns the sockets and FIFOs that the program can still reach.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = vec![];
        if self.reachable.is_empty() {
            return gaps;
        }
        if self.reachable.iter().any(|tree| self.needs_masks(tree)) {
            gaps.push(Gap::new(
                GapKind::Sockets,
                "UNIX sockets in read-only trees of the host are masked, except those that are bound after the start, in another \
                 network namespace, by a relative path or in a chroot, and those that were renamed or have a hard link or a \
                 newline in their path",
                "use Linux 7.1 or later, where Landlock denies them all, and mount no such tree in a writable directory",
            ));
        }
        match self.landlock_rules() {
            _ if !self.may_write => {}
            None => gaps.push(Gap::new(
                GapKind::Fifos,
                "FIFOs in read-only trees of the host can be opened for writing",
                "use Linux 5.19 or later with Landlock enabled, and a seccomp policy that denies mounts",
            )),
            Some(_) => gaps.extend(self.reachable.iter().filter(|tree| self.is_below_writable(tree)).map(|tree| {
                Gap::new(
                    GapKind::Fifos,
                    format!(
                        "FIFOs in {} can be opened for writing, since it is mounted in a writable directory",
                        tree.display()
                    ),
                    "mount it elsewhere",
                )
            })),
        }
        gaps
    }

    /// Removes the trees that a later mount covers.
    pub fn cover(&mut self, place: &Path) {
        remove_below(&mut self.reachable, place);
    }

    /// Returns the sockets that are bound in the caller's network namespace.
    pub fn sockets(&mut self, mounts: &MountTable) -> Result<&BTreeSet<PathBuf>> {
        if self.sockets.is_none() {
            self.sockets = Some(bound_sockets(mounts)?);
        }
        Ok(self.sockets.get_or_insert_default())
    }
}

/// Removes a path and those below it. The order of paths has them in a row.
fn remove_below(paths: &mut BTreeSet<PathBuf>, top: &Path) {
    let from_top = paths.range::<Path, _>((Bound::Included(top), Bound::Unbounded));
    let below: Vec<PathBuf> = from_top.take_while(|path| path.starts_with(top)).cloned().collect();
    for path in below {
        paths.remove(&path);
    }
}

/// Reads the paths of the sockets that are bound in the caller's network namespace, under all names that mounts give
/// them.
fn bound_sockets(mounts: &MountTable) -> Result<BTreeSet<PathBuf>> {
    let table = proc_file::read("/proc/self/net/unix").map_err(Error::io("read /proc/self/net/unix"))?;
    // number, count, protocol, flags, type, state, inode, path
    let path = |line: &[u8]| {
        let mut rest = line;
        for _ in 0..7 {
            let field = rest.iter().position(|byte| *byte != b' ')?;
            let end = rest[field..].iter().position(|byte| *byte == b' ')?;
            rest = &rest[field + end..];
        }
        let path = rest.strip_prefix(b" ").filter(|path| path.starts_with(b"/"))?;
        Some(PathBuf::from(OsStr::from_bytes(path)))
    };
    let listed: BTreeSet<PathBuf> = table.split(|byte| *byte == b'\n').filter_map(path).collect();
    let mut named = BTreeSet::new();
    // A socket whose path cannot be resolved cannot be connected to by that path either.
    // A path in an automount point would trigger it. No socket can be there.
    let is_there = |path: &PathBuf| mounts.containing(path).is_none_or(|mount| mount.kind != b"autofs");
    for path in listed.into_iter().filter(is_there).filter_map(|path| path.canonicalize().ok()) {
        named.extend(mounts.aliases(&path));
        named.insert(path);
    }
    Ok(named)
}

/// Returns whether a mount can be idmapped.
pub(super) fn can_idmap(mount: &HostMount, attempt: fn(&Path) -> Option<bool>) -> bool {
    is_idmappable(mount, attempt).unwrap_or(false)
}

/// Returns whether a mount can be idmapped, or `None` if that cannot be tried. The answer is cached by the type and the
/// device number of the file system, since only an attempt can tell.
pub(super) fn is_idmappable(mount: &HostMount, attempt: fn(&Path) -> Option<bool>) -> Option<bool> {
    /// Type and number of a file system.
    type FileSystem = (Vec<u8>, Vec<u8>);
    static KNOWN: Mutex<BTreeMap<FileSystem, bool>> = Mutex::new(BTreeMap::new());
    if mount.is_idmapped {
        return Some(false);
    }
    let key = (mount.kind.clone(), mount.device.clone());
    let mut known = lock(&KNOWN);
    if let Some(&can) = known.get(&key) {
        return Some(can);
    }
    let can = attempt(&mount.point)?;
    known.insert(key, can);
    Some(can)
}

/// Returns the paths in the sandbox that the program may write to, which Landlock must allow. Later mounts cover
/// earlier ones.
pub(crate) fn writable_places(facts: &Facts, operations: &[Operation], writable_root: bool) -> BTreeSet<PathBuf> {
    let mut places: BTreeSet<PathBuf> = writable_root.then(|| PathBuf::from("/")).into_iter().collect();
    for mount in operations {
        let target = mount.target();
        let writable = match mount {
            Operation::Bind(bind) => bind.writable || bind.devices || bind.sockets || is_endpoint(facts, bind),
            Operation::File { writable, .. } => *writable,
            Operation::Tmpfs(_) | Operation::Overlay(_) | Operation::Proc(_) | Operation::Dev(_) => true,
            _ => false,
        };
        if !mount.covers() {
            continue;
        }
        remove_below(&mut places, target);
        if writable {
            places.insert(target.to_owned());
        }
        if let Operation::Dev(_) = mount {
            // mq_open(3) looks up a queue in the file system that is mounted there, to which a rule for this path
            // applies.
            places.insert(target.join("mqueue"));
        }
    }
    places
}

/// Returns whether the source of a bind is itself a socket, a FIFO or a device, which the program is meant to use.
fn is_endpoint(facts: &Facts, bind: &Bind) -> bool {
    let is = |kind: fs::FileType| kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
    let source = bind.resolve_source(facts).and_then(|source| fs::metadata(&source).map_err(Error::io("stat")));
    source.is_ok_and(|meta| is(meta.file_type()))
}
