//! The calls of the mount interface (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)), with names for their
//! arguments.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};

use super::arena::{Address, Ref, Word};
use super::call::{Arg, Names, Slot, flags, names, nr};
use super::program::{Added, Input, Program};

bitflags::bitflags! {
    /// Attributes of a mount: those of mount_setattr(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Attributes: u64 {
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        const NODEV = libc::MOUNT_ATTR_NODEV;
        const NOEXEC = libc::MOUNT_ATTR_NOEXEC;
        const NOSYMFOLLOW = libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
}

impl Attributes {
    pub const SAFE: Self = Self::NOSUID.union(Self::NODEV);

    fn arg(self) -> Arg {
        static NAMES: Names =
            names![MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSYMFOLLOW];
        Arg::Bits(self.bits() as u32, &NAMES)
    }
}

/// A change of a mount's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub set: Attributes,
    pub clear: Attributes,
    /// No mount propagates to it or from it.
    pub private: bool,
    /// Of all mounts of the tree, not of the top one alone.
    pub recursive: bool,
}

impl Change {
    /// Sets attributes on a whole tree, and makes it private.
    pub fn tree(set: Attributes) -> Self {
        Self { set, clear: Attributes::empty(), private: true, recursive: true }
    }

    /// Sets attributes on one mount.
    pub fn top(set: Attributes) -> Self {
        Self { set, clear: Attributes::empty(), private: false, recursive: false }
    }

    /// Lets one mount be written to.
    pub fn writable() -> Self {
        Self { clear: Attributes::RDONLY, ..Self::top(Attributes::empty()) }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let private = if self.private { ", MS_PRIVATE" } else { "" };
        write!(f, "{{set = {}, clear = {}{private}}}", Shown(self.set), Shown(self.clear))
    }
}

/// Attributes as mount_setattr(2) names them.
struct Shown(Attributes);

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("0") } else { bitflags::parser::to_writer(&self.0, f) }
    }
}

impl Program {
    /// Makes a file system and a mount of it that is attached nowhere yet.
    pub fn file_system(&mut self, kind: &str, options: &[(&str, Option<String>)], attributes: Attributes) -> Slot {
        let fs = self.open_file_system(kind, options);
        self.mount_of(fs, attributes)
    }

    /// Makes a file system.
    pub fn open_file_system(&mut self, kind: &str, options: &[(&str, Option<String>)]) -> Slot {
        let name = self.text(kind);
        let fs = self.call(nr!(SYS_fsopen), [name, flags!(FSOPEN_CLOEXEC)]).store("fs");
        for (key, value) in options {
            let (command, value) = match value {
                Some(value) => (flags!(FSCONFIG_SET_STRING), self.text(value)),
                None => (flags!(FSCONFIG_SET_FLAG), Arg::NULL),
            };
            let key = self.text(key);
            self.call(nr!(SYS_fsconfig), [fs.into(), command, key, value, Arg::NONE]);
        }
        let create = [fs.into(), flags!(FSCONFIG_CMD_CREATE), Arg::NULL, Arg::NULL, Arg::NONE];
        self.call(nr!(SYS_fsconfig), create);
        fs
    }

    /// A mount of a file system that was made, attached nowhere yet.
    pub fn mount_of(&mut self, fs: Slot, attributes: Attributes) -> Slot {
        let mount = self.call(nr!(SYS_fsmount), [fs.into(), flags!(FSMOUNT_CLOEXEC), attributes.arg()]).store("mount");
        self.close(fs);
        mount
    }

    /// A copy of the tree of mounts that `name` in `dir` is the root of, attached nowhere yet; `""` is `dir` itself.
    pub fn open_tree(&mut self, dir: impl Into<Arg>, name: impl AsRef<OsStr>) -> Slot {
        let name = self.text(name);
        let how = flags!(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
        self.call(nr!(SYS_open_tree), [dir.into(), name, how]).store("tree")
    }

    /// Attaches a mount at the place that `target` is open at.
    pub fn move_mount(&mut self, mount: Slot, target: impl Into<Arg>) -> Added<'_> {
        let empty = self.text("");
        let how = flags!(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        self.call(nr!(SYS_move_mount), [mount.into(), empty, target.into(), empty, how])
    }

    /// Attaches a mount at a name in a directory of the sandbox's own, where it is no symlink.
    pub fn move_mount_to(&mut self, mount: Slot, dir: impl Into<Arg>, name: impl AsRef<OsStr>) {
        let (empty, name) = (self.text(""), self.text(name));
        let how = flags!(MOVE_MOUNT_F_EMPTY_PATH);
        self.call(nr!(SYS_move_mount), [mount.into(), empty, dir.into(), name, how]);
    }

    /// Changes attributes of a mount.
    pub fn mount_setattr(&mut self, mount: Slot, change: Change) -> Added<'_> {
        let attributes = self.arena.attributes(change);
        self.setattr(mount, change.recursive, attributes)
    }

    /// Shows other owners than the disk has, as the maps of a user namespace say.
    pub fn mount_idmap(&mut self, mount: Slot, recursive: bool, namespace: Input) -> Added<'_> {
        // So that it is kept.
        self.input(namespace);
        let zero = Word::Value(0);
        let words = [Word::Value(libc::MOUNT_ATTR_IDMAP), zero, zero, Word::Address(Address::Input(namespace))];
        let attributes = self.arena.words(&words, "{set = IDMAP, userns = <id mapping>}");
        self.setattr(mount, recursive, attributes)
    }

    fn setattr(&mut self, mount: Slot, recursive: bool, attributes: Ref) -> Added<'_> {
        let empty = self.text("");
        let how = if recursive { flags!(AT_EMPTY_PATH | AT_RECURSIVE) } else { flags!(AT_EMPTY_PATH) };
        self.call(nr!(SYS_mount_setattr), [mount.into(), empty, how, attributes.into(), 32u64.into()])
    }
}
