//! The mounts that the caller sees, with their attributes, and questions about them: which contain a path, which are
//! below it, where else it is mounted. Nothing is mounted here: that is in `mount/`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mountinfo::{self, Line};
use crate::plan::Attributes;

/// A mount that the caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostMount {
    /// The mount point.
    pub point: PathBuf,
    pub attributes: Attributes,
    /// The type of the file system.
    pub kind: Vec<u8>,
    /// Major and minor number of the file system, as text.
    pub device: Vec<u8>,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Whether it is an idmapped mount already, so that no other ID mapping can be set.
    pub is_idmapped: bool,
}

/// Types of file systems in which no socket or FIFO can be created.
const WITHOUT_ENDPOINTS: [&[u8]; 18] = [
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"efivarfs",
    b"fusectl",
    b"mqueue",
    b"nsfs",
    b"proc",
    b"pstore",
    b"securityfs",
    b"selinuxfs",
    b"sysfs",
    b"tracefs",
];

/// Returns whether the root of this process is an initramfs, which is the first of all mounts.
pub(crate) fn root_is_initramfs() -> Result<bool> {
    Ok(mountinfo::read().map_err(Error::mounts)?.iter().any(|line| !line.has_parent && line.point == Path::new("/")))
}

impl From<Line> for HostMount {
    fn from(line: Line) -> Self {
        let attribute = |option: &[u8]| match option {
            b"ro" => Attributes::RDONLY,
            b"nosuid" => Attributes::NOSUID,
            b"nodev" => Attributes::NODEV,
            b"noexec" => Attributes::NOEXEC,
            _ => Attributes::empty(),
        };
        let options = || line.options.split(|&byte| byte == b',');
        Self {
            attributes: options().map(attribute).collect(),
            is_idmapped: options().any(|option| option == b"idmapped"),
            point: line.point,
            kind: line.kind,
            device: line.device,
            root: line.root,
        }
    }
}

impl HostMount {
    /// Returns whether it is a cgroup file system, in which the limits of the sandbox could be changed.
    pub fn is_cgroup(&self) -> bool {
        self.kind == b"cgroup" || self.kind == b"cgroup2"
    }

    pub fn is_read_only(&self) -> bool {
        self.attributes.contains(Attributes::RDONLY)
    }

    /// Returns whether it can contain sockets and FIFOs.
    pub fn has_endpoints(&self) -> bool {
        !WITHOUT_ENDPOINTS.contains(&self.kind.as_slice())
    }

    /// Returns the location in the file system of a path below the mount point.
    fn location(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.point).ok().map(|below| self.root.join(below))
    }

    /// Returns the path at which the mount shows a location of its file system, or a directory below that location.
    fn shows(&self, location: &Path) -> Option<PathBuf> {
        match location.strip_prefix(&self.root) {
            Ok(below) if below.as_os_str().is_empty() => Some(self.point.clone()),
            Ok(below) => Some(self.point.join(below)),
            Err(_) => self.root.starts_with(location).then(|| self.point.clone()),
        }
    }
}

/// The mounts that the caller sees, in the order in which they were mounted.
pub(crate) struct MountTable {
    mounts: Vec<HostMount>,
    /// The indices of the mounts, by their mount points. A mount point is followed by those below it.
    by_point: Vec<usize>,
    /// Whether each mount is covered by a later one.
    is_covered: Vec<bool>,
}

impl MountTable {
    /// Parses `/proc/self/mountinfo`.
    pub fn parse(mountinfo: &[u8]) -> Self {
        Self::new(mountinfo::parse(mountinfo))
    }

    fn new(lines: Vec<Line>) -> Self {
        let mounts: Vec<HostMount> = lines.into_iter().map(HostMount::from).collect();
        let mut by_point: Vec<usize> = (0..mounts.len()).collect();
        by_point.sort_by_key(|&index| &mounts[index].point);
        let mut table = Self { is_covered: vec![false; mounts.len()], mounts, by_point };
        // A later mount covers earlier ones at its mount point and below.
        let is_covered = |(index, mount): (usize, &HostMount)| {
            mount.point.ancestors().any(|above| table.last_at(above).is_some_and(|later| later > index))
        };
        table.is_covered = table.mounts.iter().enumerate().map(is_covered).collect();
        table
    }

    /// Returns the index of the last mount with this mount point.
    fn last_at(&self, point: &Path) -> Option<usize> {
        let end = self.by_point.partition_point(|&index| self.mounts[index].point.as_path() <= point);
        let last = *self.by_point[..end].last()?;
        (self.mounts[last].point == point).then_some(last)
    }

    pub fn iter(&self) -> impl Iterator<Item = &HostMount> {
        self.mounts.iter()
    }

    /// Returns the mount that contains a path.
    pub fn containing(&self, path: &Path) -> Option<&HostMount> {
        path.ancestors().find_map(|above| self.last_at(above)).map(|index| &self.mounts[index])
    }

    /// Returns the mounts strictly below a path. If several have one mount point, only the topmost.
    pub fn below(&self, path: &Path) -> Vec<&HostMount> {
        let start = self.by_point.partition_point(|&index| self.mounts[index].point.as_path() <= path);
        let below = self.by_point[start..].iter().take_while(|&&index| self.mounts[index].point.starts_with(path));
        let mut found: Vec<usize> = below.copied().filter(|&index| !self.is_covered[index]).collect();
        found.sort_unstable();
        found.into_iter().map(|index| &self.mounts[index]).collect()
    }

    /// Returns the other paths at which the same file or directory is mounted, in whole or in part, by another mount of
    /// its file system. Other mounts may cover some of them. `path` must have no symlinks.
    pub fn aliases(&self, path: &Path) -> Vec<PathBuf> {
        let Some(own) = self.containing(path) else { return vec![] };
        let Some(location) = own.location(path) else { return vec![] };
        let same = self.mounts.iter().filter(|mount| mount.device == own.device);
        same.filter_map(|mount| mount.shows(&location)).filter(|place| !place.starts_with(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
        2 1 8:2 / /data rw,nosuid shared:1 - ext4 /dev/b rw\n\
        3 2 8:3 / /data/two\\040words ro,nodev - ext4 /dev/c rw\n\
        8 7 8:8 / /over/below rw - ext4 /dev/h rw\n\
        9 1 8:9 / /over rw - ext4 /dev/i rw\n\
        4 2 8:4 / /data/x rw - ext4 /dev/d rw\n\
        5 4 8:5 / /data/x/y rw - ext4 /dev/e rw\n\
        6 2 8:6 / /data/x ro - ext4 /dev/f rw\n\
        7 1 8:7 / /database ro - ext4 /dev/g rw\n\
        half a line\n";

    fn points(mounts: &[&HostMount]) -> Vec<(String, bool)> {
        mounts.iter().map(|mount| (mount.point.display().to_string(), mount.is_read_only())).collect()
    }

    #[test]
    fn below_finds_only_the_topmost_mounts() {
        let table = MountTable::parse(TABLE);
        let expected = [("/data/two words".to_owned(), true), ("/data/x".to_owned(), true)];
        assert_eq!(points(&table.below(Path::new("/data"))), expected);
        assert_eq!(points(&table.below(Path::new("/data/x"))), []);
        assert_eq!(points(&table.below(Path::new("/over"))), []);
        assert_eq!(points(&table.below(Path::new("/nowhere"))), []);
    }

    #[test]
    fn aliases_of_a_directory_are_found() {
        const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 8:2 /@home /home rw - btrfs /dev/b rw\n\
            3 1 8:2 / /mnt/all rw - btrfs /dev/b rw\n\
            4 1 8:2 /@home/me /srv/me rw - btrfs /dev/b rw\n\
            5 1 8:2 /@home/me/www /srv/www rw - btrfs /dev/b rw\n\
            6 1 8:2 /@homes /srv/homes rw - btrfs /dev/b rw\n\
            7 1 8:1 /home /srv/below rw - ext4 /dev/a rw\n";
        let table = MountTable::parse(TABLE);
        let aliases = |path: &str| table.aliases(Path::new(path));
        assert_eq!(aliases("/home/me"), ["/mnt/all/@home/me", "/srv/me", "/srv/www"].map(PathBuf::from));
        assert_eq!(aliases("/home/me/www"), ["/mnt/all/@home/me/www", "/srv/me/www", "/srv/www"].map(PathBuf::from));
        assert_eq!(aliases("/home"), ["/mnt/all/@home", "/srv/me", "/srv/www"].map(PathBuf::from));
    }

    #[test]
    fn containing_finds_the_nearest_and_topmost_mount() {
        let table = MountTable::parse(TABLE);
        let at = |path: &str| table.containing(Path::new(path)).map(|mount| (mount.point.clone(), mount.attributes));
        assert_eq!(at("/data/file"), Some(("/data".into(), Attributes::NOSUID)));
        assert_eq!(at("/data/x"), Some(("/data/x".into(), Attributes::RDONLY)));
        assert_eq!(at("/elsewhere"), Some(("/".into(), Attributes::empty())));
    }
}
