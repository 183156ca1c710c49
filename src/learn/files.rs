//! What the calls that name files need, in Landlock's terms (landlock(7)).

use nix::sys::stat::SFlag;

use super::act::{Act, At, Making, Opening, Removing};
use super::caller::Place;
use super::record::{Recorder, Scene, errno, has};
use crate::confine::FsAccess;

impl Recorder {
    /// Notes what a call does. An error means that the kernel refuses it as well.
    pub(super) fn act(&mut self, act: Act, scene: &Scene<'_>) -> nix::Result<()> {
        let flags = |number: Option<usize>| number.map_or(0, |number| scene.arg(number));
        match act {
            Act::Open(at, opening) => self.open(scene, at, opening)?,
            Act::Execute(at, number) => {
                let follows = !has(flags(number), libc::AT_SYMLINK_NOFOLLOW);
                self.execute(scene, scene.locate_or_descriptor(at, flags(number), follows)?);
            }
            Act::Make(at, making) => {
                let place = scene.locate(at, false)?;
                if place.file.is_none() && !place.is_read_only {
                    self.make(scene, &place, made_by(making, scene));
                }
            }
            Act::Remove(at, removing) => self.remove(scene, &scene.locate(at, false)?, removing),
            Act::Link(old, new, number) => {
                let follows = has(flags(number), libc::AT_SYMLINK_FOLLOW);
                let old = scene.locate_or_descriptor(old, flags(number), follows);
                self.link(scene, old.ok(), &scene.locate(new, false)?);
            }
            Act::Rename(old, new, number) => {
                self.rename(scene, &scene.locate(old, false)?, &scene.locate(new, false)?, flags(number));
            }
            Act::Truncate(at) => {
                let place = scene.locate(at, true)?;
                if place.kind() == SFlag::S_IFREG && !place.is_read_only {
                    self.allow(scene, &place, FsAccess::TRUNCATE);
                }
            }
            Act::TruncateDescriptor => self.allow_opened(&scene.caller.name_of(scene.arg(0))?, FsAccess::TRUNCATE),
            Act::Control => {
                let device = Place::found(scene.caller.descriptor(scene.arg(0))?)?;
                if matches!(device.kind(), SFlag::S_IFCHR | SFlag::S_IFBLK) {
                    self.allow_opened(&device.path, FsAccess::IOCTL_DEV);
                }
            }
            Act::Bind | Act::Connect | Act::Send | Act::SendMessage | Act::SendMessages => self.address(act, scene)?,
        }
        Ok(())
    }

    fn open(&mut self, scene: &Scene<'_>, at: At, opening: Opening) -> nix::Result<()> {
        let flags = match opening {
            Opening::Flags(number) => scene.arg(number),
            Opening::Creat => (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64,
            // Its first field is the flags.
            Opening::How(number) => {
                let bytes = scene.call.bytes(number, 8).map_err(errno)?;
                bytes.first_chunk().map_or(0, |flags| u64::from_ne_bytes(*flags))
            }
        };
        if has(flags, libc::O_PATH) {
            return Ok(());
        }
        let is_new = has(flags, libc::O_CREAT | libc::O_EXCL);
        let place = scene.locate(at, !is_new && !has(flags, libc::O_NOFOLLOW))?;
        let (reads, writes) = match flags as i32 & libc::O_ACCMODE {
            libc::O_RDONLY => (true, false),
            libc::O_WRONLY => (false, true),
            libc::O_RDWR => (true, true),
            _ => (false, false),
        };
        let mut access = FsAccess::empty();
        access.set(FsAccess::READ_FILE, reads);
        access.set(FsAccess::WRITE_FILE, writes);
        access.set(FsAccess::TRUNCATE, has(flags, libc::O_TRUNC));
        match place.kind() {
            SFlag::S_IFDIR if has(flags, libc::O_TMPFILE) => {
                self.allow(scene, &place, access | FsAccess::READ_DIR);
            }
            SFlag::S_IFDIR if !writes => self.allow(scene, &place, FsAccess::READ_DIR),
            _ if has(flags, libc::O_DIRECTORY) => {}
            SFlag::S_IFREG if is_new || (writes && place.is_read_only) => {}
            SFlag::S_IFREG => self.allow(scene, &place, access),
            SFlag::S_IFCHR | SFlag::S_IFBLK | SFlag::S_IFIFO => {
                self.allow(scene, &place, access - FsAccess::TRUNCATE);
            }
            _ if place.file.is_none() && has(flags, libc::O_CREAT) && !place.is_read_only => {
                self.make(scene, &place, FsAccess::MAKE_REG);
                self.allow_beside(scene, &place, access);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, scene: &Scene<'_>, place: &Place, removing: Removing) {
        let directory = match removing {
            Removing::File => false,
            Removing::Directory => true,
            Removing::Flags(number) => has(scene.arg(number), libc::AT_REMOVEDIR),
        };
        let is_there = place.file.is_some() && (place.kind() == SFlag::S_IFDIR) == directory;
        if is_there && !place.is_read_only {
            self.allow_beside(scene, place, removal(place));
        }
    }

    fn link(&mut self, scene: &Scene<'_>, old: Option<Place>, new: &Place) {
        if new.file.is_some() || new.is_read_only {
            return;
        }
        // A file without a name (O_TMPFILE) is no place.
        let kind = old.as_ref().map_or(SFlag::S_IFREG, Place::kind);
        if !kind.is_empty() {
            self.make(scene, new, making(kind));
            self.refer(scene, old.as_ref(), new);
        }
    }

    fn rename(&mut self, scene: &Scene<'_>, old: &Place, new: &Place, flags: u64) {
        let exchanges = has(flags, libc::RENAME_EXCHANGE as i32);
        let refused = has(flags, libc::RENAME_NOREPLACE as i32) && new.file.is_some();
        if old.file.is_none() || refused || (exchanges && new.file.is_none()) || new.is_read_only {
            return;
        }
        self.allow_beside(scene, old, removal(old));
        if new.file.is_some() {
            self.allow_beside(scene, new, removal(new));
        }
        self.make(scene, new, making(old.kind()));
        if exchanges {
            self.make(scene, old, making(new.kind()));
        }
        self.refer(scene, Some(old), new);
    }

    /// Something gets into another directory.
    fn refer(&mut self, scene: &Scene<'_>, old: Option<&Place>, new: &Place) {
        if let Some(old) = old.filter(|old| old.path.parent() != new.path.parent()) {
            self.allow_beside(scene, old, FsAccess::REFER);
            self.allow_beside(scene, new, FsAccess::REFER);
        }
    }
}

fn removal(place: &Place) -> FsAccess {
    if place.kind() == SFlag::S_IFDIR { FsAccess::REMOVE_DIR } else { FsAccess::REMOVE_FILE }
}

fn made_by(making: Making, scene: &Scene<'_>) -> FsAccess {
    match making {
        Making::Directory => FsAccess::MAKE_DIR,
        Making::Link => FsAccess::MAKE_SYM,
        Making::Mode(number) => self::making(SFlag::from_bits_truncate(scene.arg(number) as u32) & SFlag::S_IFMT),
    }
}

/// The right to make a file of a kind.
fn making(kind: SFlag) -> FsAccess {
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
