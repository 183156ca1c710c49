//! The calls of the mount interface (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)), with names for their
//! arguments.

use std::ffi::OsStr;

use super::call::{Arg, flags, nr};
use super::mount_attr::{Attributes, Change};
use super::script::{Added, Script};
use super::value::{Address, Input, Ref, Slot, Word};

impl Script {
    /// Creates a file system and a detached mount of it.
    pub fn file_system(&mut self, kind: &str, options: &[(&str, Option<String>)], attributes: Attributes) -> Slot {
        let fs = self.open_file_system(kind, options);
        self.mount_of(fs, attributes)
    }

    /// Creates a file system.
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

    /// Creates a detached mount of a new file system.
    pub fn mount_of(&mut self, fs: Slot, attributes: Attributes) -> Slot {
        let mount = self.call(nr!(SYS_fsmount), [fs.into(), flags!(FSMOUNT_CLOEXEC), attributes.arg()]).store("mount");
        self.close(fs);
        mount
    }

    /// Creates a detached copy of the mount tree at `name` in `dir`. `""` is `dir` itself. An automount point is copied
    /// as it is, since mounting can fail or hang.
    pub fn open_tree(&mut self, dir: impl Into<Arg>, name: impl AsRef<OsStr>) -> Slot {
        let name = self.text(name);
        let how = flags!(
            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT
        );
        let tree = self.reusable_slot("tree");
        self.call(nr!(SYS_open_tree), [dir.into(), name, how]).store_in(tree)
    }

    /// Attaches a mount at the directory or file that `target` refers to.
    pub fn move_mount(&mut self, mount: Slot, target: impl Into<Arg>) -> Added<'_> {
        let empty = self.text("");
        let how = flags!(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
        self.call(nr!(SYS_move_mount), [mount.into(), empty, target.into(), empty, how])
    }

    /// Attaches a mount at a name in a directory of the sandbox's own, where the name is not a symlink.
    pub fn move_mount_to(&mut self, mount: Slot, dir: impl Into<Arg>, name: impl AsRef<OsStr>) {
        let (empty, name) = (self.text(""), self.text(name));
        let how = flags!(MOVE_MOUNT_F_EMPTY_PATH);
        self.call(nr!(SYS_move_mount), [mount.into(), empty, dir.into(), name, how]);
    }

    /// Changes the attributes of a mount.
    pub fn mount_setattr(&mut self, mount: Slot, change: Change) -> Added<'_> {
        let attributes = self.arena.attributes(change);
        self.setattr(mount, change.recursive, attributes)
    }

    /// Sets the ID mapping of a mount: the maps of a user namespace.
    pub fn mount_idmap(&mut self, mount: Slot, recursive: bool, namespace: Input) -> Added<'_> {
        // Registers the descriptor, so that it is not closed.
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
