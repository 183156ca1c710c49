//! The Landlock access rights (landlock(7)) that system calls on files need.

use nix::sys::stat::SFlag;

use super::calling_process::Located;
use super::effects::{Effect, NewKind, OpenArguments, PathArguments, RemovalKind};
use super::recorder::{ObservedCall, Recorder, errno, has};
use crate::confine::FsAccess;

impl Recorder {
    /// Records the rights that a call needs. An error means that the kernel denies the call as well.
    pub(super) fn record_effect(&mut self, effect: Effect, observed: &ObservedCall<'_>) -> nix::Result<()> {
        let flags = |number: Option<usize>| number.map_or(0, |number| observed.arg(number));
        match effect {
            Effect::Open(at, opening) => self.open(observed, at, opening)?,
            Effect::Execute(at, number) => {
                let follows = !has(flags(number), libc::AT_SYMLINK_NOFOLLOW);
                self.execute(observed, observed.locate_or_descriptor(at, flags(number), follows)?);
            }
            Effect::Create(at, new_kind) => {
                let target = observed.locate(at, false)?;
                if target.file.is_none() && !target.is_read_only {
                    self.create(observed, &target, new_kind_right(new_kind, observed));
                }
            }
            Effect::Remove(at, removal) => self.remove(observed, &observed.locate(at, false)?, removal),
            Effect::Link(old, new, number) => {
                let follows = has(flags(number), libc::AT_SYMLINK_FOLLOW);
                let old = observed.locate_or_descriptor(old, flags(number), follows);
                self.link(observed, old.ok(), &observed.locate(new, false)?);
            }
            Effect::Rename(old, new, number) => {
                self.rename(observed, &observed.locate(old, false)?, &observed.locate(new, false)?, flags(number));
            }
            Effect::Truncate(at) => {
                let target = observed.locate(at, true)?;
                if target.kind() == SFlag::S_IFREG && !target.is_read_only {
                    self.allow(observed, &target, FsAccess::TRUNCATE);
                }
            }
            Effect::TruncateDescriptor => {
                self.allow_opened(&observed.process.descriptor_target(observed.arg(0))?, FsAccess::TRUNCATE)
            }
            Effect::Control => {
                let device = Located::found(observed.process.descriptor(observed.arg(0))?)?;
                if matches!(device.kind(), SFlag::S_IFCHR | SFlag::S_IFBLK) {
                    self.allow_opened(&device.path, FsAccess::IOCTL_DEV);
                }
            }
            Effect::Bind | Effect::Connect | Effect::Send | Effect::SendMessage | Effect::SendMessages => {
                self.address(effect, observed)?
            }
        }
        Ok(())
    }

    fn open(&mut self, observed: &ObservedCall<'_>, at: PathArguments, opening: OpenArguments) -> nix::Result<()> {
        let flags = match opening {
            OpenArguments::Flags(number) => observed.arg(number),
            OpenArguments::Creat => (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64,
            // The flags are the first field.
            OpenArguments::How(number) => {
                let bytes = observed.call.bytes(number, 8).map_err(errno)?;
                bytes.first_chunk().map_or(0, |flags| u64::from_ne_bytes(*flags))
            }
        };
        if has(flags, libc::O_PATH) {
            return Ok(());
        }
        let is_new = has(flags, libc::O_CREAT | libc::O_EXCL);
        let target = observed.locate(at, !is_new && !has(flags, libc::O_NOFOLLOW))?;
        let (reads, writes) = match flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => (true, false),
            libc::O_WRONLY => (false, true),
            libc::O_RDWR => (true, true),
            _ => (false, false),
        };
        let truncates = has(flags, libc::O_TRUNC);
        let rights = [(reads, FsAccess::READ_FILE), (writes, FsAccess::WRITE_FILE), (truncates, FsAccess::TRUNCATE)];
        let access: FsAccess = rights.into_iter().filter(|(is_used, _)| *is_used).map(|(_, right)| right).collect();
        match target.kind() {
            SFlag::S_IFDIR if has(flags, libc::O_TMPFILE) => {
                self.allow(observed, &target, access | FsAccess::READ_DIR);
            }
            SFlag::S_IFDIR if !writes => self.allow(observed, &target, FsAccess::READ_DIR),
            _ if has(flags, libc::O_DIRECTORY) => {}
            SFlag::S_IFREG if is_new || (writes && target.is_read_only) => {}
            SFlag::S_IFREG => self.allow(observed, &target, access),
            SFlag::S_IFCHR | SFlag::S_IFBLK | SFlag::S_IFIFO => {
                self.allow(observed, &target, access - FsAccess::TRUNCATE);
            }
            _ if target.file.is_none() && has(flags, libc::O_CREAT) && !target.is_read_only => {
                self.create(observed, &target, FsAccess::MAKE_REG);
                self.allow_in_parent(observed, &target, access);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, observed: &ObservedCall<'_>, target: &Located, removal: RemovalKind) {
        let directory = match removal {
            RemovalKind::File => false,
            RemovalKind::Directory => true,
            RemovalKind::Flags(number) => has(observed.arg(number), libc::AT_REMOVEDIR),
        };
        let exists = target.file.is_some() && (target.kind() == SFlag::S_IFDIR) == directory;
        if exists && !target.is_read_only {
            self.allow_in_parent(observed, target, removal_right(target));
        }
    }

    fn link(&mut self, observed: &ObservedCall<'_>, old: Option<Located>, new: &Located) {
        if new.file.is_some() || new.is_read_only {
            return;
        }
        // A file without a name (O_TMPFILE) has no path.
        let kind = old.as_ref().map_or(SFlag::S_IFREG, Located::kind);
        if !kind.is_empty() {
            self.create(observed, new, creation_right(kind));
            self.refer(observed, old.as_ref(), new);
        }
    }

    fn rename(&mut self, observed: &ObservedCall<'_>, old: &Located, new: &Located, flags: u64) {
        let exchanges = has(flags, libc::RENAME_EXCHANGE as i32);
        let refused = has(flags, libc::RENAME_NOREPLACE as i32) && new.file.is_some();
        if old.file.is_none() || refused || (exchanges && new.file.is_none()) || new.is_read_only {
            return;
        }
        self.allow_in_parent(observed, old, removal_right(old));
        if new.file.is_some() {
            self.allow_in_parent(observed, new, removal_right(new));
        }
        self.create(observed, new, creation_right(old.kind()));
        if exchanges {
            self.create(observed, old, creation_right(new.kind()));
        }
        self.refer(observed, Some(old), new);
    }

    /// Records that a file gets a name in another directory.
    fn refer(&mut self, observed: &ObservedCall<'_>, old: Option<&Located>, new: &Located) {
        if let Some(old) = old.filter(|old| old.path.parent() != new.path.parent()) {
            self.allow_in_parent(observed, old, FsAccess::REFER);
            self.allow_in_parent(observed, new, FsAccess::REFER);
        }
    }
}

fn removal_right(target: &Located) -> FsAccess {
    if target.kind() == SFlag::S_IFDIR { FsAccess::REMOVE_DIR } else { FsAccess::REMOVE_FILE }
}

fn new_kind_right(new_kind: NewKind, observed: &ObservedCall<'_>) -> FsAccess {
    match new_kind {
        NewKind::Directory => FsAccess::MAKE_DIR,
        NewKind::Link => FsAccess::MAKE_SYM,
        NewKind::Mode(number) => creation_right(SFlag::from_bits_truncate(observed.arg(number) as u32) & SFlag::S_IFMT),
    }
}

/// Returns the right to create a file of a type.
fn creation_right(kind: SFlag) -> FsAccess {
    match kind {
        SFlag::S_IFDIR => FsAccess::MAKE_DIR,
        SFlag::S_IFLNK => FsAccess::MAKE_SYM,
        SFlag::S_IFCHR => FsAccess::MAKE_CHAR,
        SFlag::S_IFBLK => FsAccess::MAKE_BLOCK,
        SFlag::S_IFIFO => FsAccess::MAKE_FIFO,
        SFlag::S_IFSOCK => FsAccess::MAKE_SOCK,
        _ => FsAccess::MAKE_REG,
    }
}
