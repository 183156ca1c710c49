//! UNIX sockets and FIFOs of the host in trees that are shown read-only. A read-only mount does not stop connect(2), nor a
//! FIFO from being opened for writing, so that they would lead to the programs at their other ends.
//!
//! Where the program has host ids of its own, the trees are mounted with idmappings that leave their owners without an id:
//! the kernel then refuses every write (`HAS_UNMAPPED_ID`), and a connection and a FIFO opened for writing are writes to it.
//! Elsewhere Landlock denies opening for writing whatever is not writable, and each bound socket is masked, unless Landlock
//! denies connecting too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use landlock::ABI;

use super::bind::{SOURCE, resolve_source};
use super::lower::Builder;
use super::target::Target;
use super::{Base, Bind, Mount, Owner, Root};
use crate::confine::host::{Host, LEFT_OUT};
use crate::confine::mountinfo::{HostMount, Table};
use crate::error::{Error, Result};
use crate::plan::{IdMaps, Input, OnError, Program, Slot, Step};

/// How sockets and FIFOs are cut off, and where they still are to be.
pub(crate) struct Endpoints {
    /// The maps that leave owners without an id, if the program is nobody that a file belongs to.
    pub unmapped: Option<IdMaps>,
    /// The ABI of the Landlock rules that deny opening FIFOs, if there can be some.
    pub landlock: Option<ABI>,
    /// What the filter of system calls leaves possible.
    pub may_connect: bool,
    pub may_write: bool,
    /// The places inside that the program may write to, where Landlock denies nothing.
    pub writable: Vec<PathBuf>,
    /// The trees, as places inside, whose owners have ids.
    reachable: Vec<PathBuf>,
    /// The sockets that the kernel lists, by all their names, once they were needed.
    sockets: Option<BTreeSet<PathBuf>>,
}

/// The ABI from which on Landlock denies connecting to a socket by its path.
const WITH_SOCKETS: ABI = ABI::V9;

impl Endpoints {
    pub fn new(
        unmapped: Option<IdMaps>,
        landlock: Option<ABI>,
        [may_connect, may_write]: [bool; 2],
        writable: Vec<PathBuf>,
    ) -> Self {
        Self { unmapped, landlock, may_connect, may_write, writable, reachable: vec![], sockets: None }
    }

    /// Whether the sockets of a tree have to be masked one by one.
    fn needs_masks(&self, tree: &Path) -> bool {
        self.may_connect && (self.landlock.is_none_or(|abi| abi < WITH_SOCKETS) || self.is_below_writable(tree))
    }

    fn is_below_writable(&self, place: &Path) -> bool {
        self.writable.iter().any(|above| place.starts_with(above))
    }

    /// Whether masks may come, which need a place for what they are made of.
    pub fn may_mask(&mut self, root: &Root, mounts: &[Mount], host: &Host) -> Result<bool> {
        let binds = mounts.iter().filter(|mount| matches!(mount, Mount::Bind(bind) if bind.is_cut_off()));
        let may_need = self.needs_masks(Path::new("/")) || binds.map(Mount::target).any(|tree| self.needs_masks(tree));
        Ok(may_need && self.leaves_owners(root, mounts, host)? && !self.sockets(host.mounts()?)?.is_empty())
    }

    /// Whether a read-only tree may come whose owners have ids.
    fn leaves_owners(&self, root: &Root, mounts: &[Mount], host: &Host) -> Result<bool> {
        if self.unmapped.is_none() {
            return Ok(true);
        }
        let mut trees: Vec<PathBuf> = match &root.base {
            Base::Dir(path) => vec![resolve_source(host, path, true)?],
            _ => vec![],
        };
        for mount in mounts {
            match mount {
                Mount::Bind(bind) if !bind.is_cut_off() => {}
                Mount::Bind(bind) if bind.owner != Owner::Nobody => return Ok(true),
                Mount::Bind(bind) => trees.push(resolve_source(host, &bind.source, true)?),
                _ => {}
            }
        }
        let of_host = |mount: &HostMount| {
            let top = mount.point.components().nth(1);
            root.base == Base::Host && top.is_none_or(|top| LEFT_OUT.iter().all(|name| top.as_os_str() != *name))
        };
        let shown = |mount: &&HostMount| {
            let meets = |tree: &PathBuf| tree.starts_with(&mount.point) || mount.point.starts_with(tree);
            of_host(mount) || trees.iter().any(meets)
        };
        Ok(host.mounts()?.iter().filter(shown).any(|mount| mount.has_endpoints() && !can_idmap(mount, host.can_idmap)))
    }

    /// The ABI of the Landlock rules that are needed.
    pub fn restricts(&self) -> Option<ABI> {
        let restricts = !self.reachable.is_empty()
            && (self.may_write || self.may_connect && self.landlock.is_some_and(|abi| abi >= WITH_SOCKETS));
        self.landlock.filter(|_| restricts)
    }

    /// How they are cut off, in a few words.
    pub fn summary(&self) -> Option<&'static str> {
        let masks = self.reachable.iter().any(|tree| self.needs_masks(tree));
        Some(match (self.reachable.is_empty(), self.restricts(), masks) {
            (true, ..) if self.unmapped.is_some() => "by unmapped owners",
            (true, ..) => return None,
            (false, Some(_), false) => "by Landlock",
            (false, Some(_), true) => "by Landlock and masks",
            (false, None, true) => "by masks",
            (false, None, false) => "by the filter of system calls",
        })
    }

    /// What the program can still reach.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = vec![];
        if self.reachable.is_empty() {
            return gaps;
        }
        if self.reachable.iter().any(|tree| self.needs_masks(tree)) {
            gaps.push(
                "UNIX sockets in read-only trees of the host are masked, but for those bound after the start, in another \
                 network namespace, by a relative path or in a chroot, and for those that were renamed or have a hard link or \
                 a newline in their path: Landlock denies them all (Linux 7.1), in trees that are not mounted in a writable \
                 directory"
                    .into(),
            );
        }
        match self.restricts() {
            _ if !self.may_write => {}
            None => gaps.push(
                "FIFOs in read-only trees of the host can be opened for writing: Landlock denies it (Linux 5.19, with landlock \
                 among the security modules of the boot, for a program that may not mount)"
                    .into(),
            ),
            Some(_) => gaps.extend(
                self.reachable
                    .iter()
                    .filter(|tree| self.is_below_writable(tree))
                    .map(|tree| {
                        format!(
                            "FIFOs in {} can be opened for writing, since it is mounted in a writable directory: mount it \
                             elsewhere",
                            tree.display()
                        )
                    }),
            ),
        }
        gaps
    }

    /// Something else is mounted over a place.
    pub fn cover(&mut self, place: &Path) {
        self.reachable.retain(|tree| !tree.starts_with(place));
    }

    fn sockets(&mut self, mounts: &Table) -> Result<&BTreeSet<PathBuf>> {
        if self.sockets.is_none() {
            self.sockets = Some(bound_sockets(mounts)?);
        }
        Ok(self.sockets.get_or_insert_default())
    }
}

/// The paths of the sockets that are bound in the caller's network namespace, by all names that the mounts give them.
fn bound_sockets(mounts: &Table) -> Result<BTreeSet<PathBuf>> {
    let table = fs::read("/proc/self/net/unix").map_err(Error::host("reading /proc/self/net/unix"))?;
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
    // Who can't reach one by its path can't connect to it either.
    for path in listed.into_iter().filter_map(|path| path.canonicalize().ok()) {
        named.extend(mounts.aliases(&path));
        named.insert(path);
    }
    Ok(named)
}

/// How the owners of a tree are unmapped.
enum Unmapping {
    Whole,
    /// Mount by mount, by their points below the tree; `true` for its own mount.
    Each(bool, Vec<PathBuf>),
}

/// Whether mounts of a file system can have idmappings, by its type and number: asked once, since it takes a trial.
fn can_idmap(mount: &HostMount, attempt: fn(&Path) -> Option<bool>) -> bool {
    /// Type and number of a file system.
    type FileSystem = (Vec<u8>, Vec<u8>);
    static KNOWN: Mutex<BTreeMap<FileSystem, bool>> = Mutex::new(BTreeMap::new());
    if mount.is_idmapped {
        return false;
    }
    let key = (mount.kind.clone(), mount.device.clone());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&can) = known.get(&key) {
        return can;
    }
    let Some(can) = attempt(&mount.point) else { return false };
    known.insert(key, can);
    can
}

/// Has the owners of a tree appear without an id.
pub(super) struct Unmap {
    mapping: u16,
    how: Unmapping,
}

impl Unmap {
    pub fn calls(&self, program: &mut Program, tree: Slot, path: &Path) {
        let mapping = Input::IdMapping(self.mapping);
        program.step(Step::new("cutting off the sockets and FIFOs of").path(path).remedies(&[(
            libc::EINVAL,
            "a file system was mounted there meanwhile whose owners can't be unmapped: start the sandbox again",
        )]));
        match &self.how {
            Unmapping::Whole => {
                program.mount_idmap(tree, true, mapping);
            }
            Unmapping::Each(top, below) => {
                if *top {
                    program.mount_idmap(tree, false, mapping);
                }
                for point in below {
                    // It may have been unmounted since the mounts were read.
                    let gone = program.label();
                    let unmounted = OnError::goto_if([libc::ENOENT, libc::EINVAL], gone);
                    let mount = program.open_beneath(tree, point.as_os_str()).on_error(unmounted).store("submount");
                    program.mount_idmap(mount, false, mapping).on_error(unmounted);
                    program.bind(gone);
                }
            }
        }
        program.step(Step::new("binding").path(path).remedies(SOURCE));
    }
}

impl Builder<'_> {
    /// How the owners of a read-only tree of the host at `path` are unmapped, if they are to be.
    pub(super) fn unmap(&mut self, path: &Path) -> Result<Option<Unmap>> {
        let Some(maps) = self.l.endpoints.unmapped.clone() else { return Ok(None) };
        let (mut able, mut whole, mut top) = (vec![], true, false);
        let host = self.l.host;
        let own = host.mounts()?.containing(path).into_iter().map(|mount| (Path::new(""), mount));
        let below = host.mounts()?.below(path);
        let below = below.into_iter().filter_map(|mount| Some((mount.point.strip_prefix(path).ok()?, mount)));
        for (point, mount) in own.chain(below) {
            let can = mount.has_endpoints() && can_idmap(mount, host.can_idmap);
            whole &= can;
            match (can, point.as_os_str().is_empty()) {
                (true, true) => top = true,
                (true, false) => able.push(point.to_owned()),
                (false, _) => {}
            }
        }
        if !top && able.is_empty() {
            return Ok(None);
        }
        let how = if whole { Unmapping::Whole } else { Unmapping::Each(top, able) };
        Ok(Some(Unmap { mapping: self.mapping(maps), how }))
    }

    /// Masks the sockets in a read-only tree of the host that was attached, as far as its owners have ids.
    pub(super) fn cut_off(&mut self, source: &Path, target: &Path, owner: Owner) -> Result<()> {
        let host = self.l.host;
        let unmapped = owner == Owner::Nobody && self.l.endpoints.unmapped.is_some();
        let table = host.mounts()?;
        let mut reachable: Vec<&Path> = vec![];
        for mount in table.containing(source).into_iter().chain(table.below(source)) {
            if mount.has_endpoints() && !(unmapped && can_idmap(mount, host.can_idmap)) {
                reachable.push(if source.starts_with(&mount.point) { source } else { &mount.point });
            }
        }
        if reachable.is_empty() {
            return Ok(());
        }
        let inside = |path: &Path| match path.strip_prefix(source) {
            Ok(below) if below.as_os_str().is_empty() => Some(target.to_owned()),
            below => below.ok().map(|below| target.join(below)),
        };
        self.l.endpoints.reachable.extend(reachable.iter().filter_map(|path| inside(path)));
        if !self.l.endpoints.needs_masks(target) {
            return Ok(());
        }
        let sockets = self.l.endpoints.sockets(table)?;
        let found = sockets.iter().filter(|socket| {
            // In a mount whose owners have ids.
            let mount = table.containing(socket);
            mount.is_some_and(|mount| {
                reachable.iter().any(|path| *path == mount.point || *path == source && source.starts_with(&mount.point))
            })
        });
        let places: Vec<PathBuf> = found.filter_map(|socket| inside(socket)).collect();
        for place in places {
            self.mask_reachable(&Target::new(&place)?);
        }
        Ok(())
    }
}

/// The places inside that the program may write to by the configuration: what Landlock has to allow. Later mounts cover
/// earlier ones.
pub(crate) fn writable_places(host: &Host, mounts: &[Mount], writable_root: bool) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = writable_root.then(|| PathBuf::from("/")).into_iter().collect();
    for mount in mounts {
        let target = mount.target();
        let writable = match mount {
            Mount::Bind(bind) => bind.writable || bind.devices || bind.sockets || is_endpoint(host, bind),
            Mount::Tmpfs(_) | Mount::Overlay(_) | Mount::Proc(_) | Mount::Dev(_) => true,
            _ => false,
        };
        if !mount.covers() {
            continue;
        }
        places.retain(|place| !place.starts_with(target));
        if writable {
            places.push(target.to_owned());
        }
        if let Mount::Dev(_) = mount {
            // mq_open(3) does not look for a queue by this path, but in its file system, to which a rule for the path applies.
            places.push(target.join("mqueue"));
        }
    }
    places
}

/// Whether the source of a bind is a socket, a FIFO or a device: bound by itself, it is meant to be used.
fn is_endpoint(host: &Host, bind: &Bind) -> bool {
    let is = |kind: fs::FileType| kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device();
    let source =
        resolve_source(host, &bind.source, true).and_then(|source| fs::metadata(&source).map_err(Error::host("stat")));
    source.is_ok_and(|meta| is(meta.file_type()))
}
