//! The mounts of the host: which of them lie below a path, and what their attributes are.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::mountinfo::{self, Line};
use crate::plan::Attributes;

/// A mount of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostMount {
    pub point: PathBuf,
    pub attributes: Attributes,
    /// Type of the file system.
    pub kind: Vec<u8>,
    /// Major and minor number of the file system, as text.
    pub device: Vec<u8>,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Whether owners are shown by an idmapping already, so that no other one can be set.
    pub is_idmapped: bool,
}

/// File systems of the kernel in which nobody can create a socket or a FIFO.
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

/// Whether the root of this process is the first mount of all, an initramfs.
pub(crate) fn root_is_initramfs() -> Result<bool> {
    Ok(mountinfo::read()?.iter().any(|line| !line.has_parent && line.point == Path::new("/")))
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
    /// Whether limits of cgroups are set in it, those of the sandbox as well.
    pub fn is_cgroup(&self) -> bool {
        self.kind == b"cgroup" || self.kind == b"cgroup2"
    }

    pub fn is_read_only(&self) -> bool {
        self.attributes.contains(Attributes::RDONLY)
    }

    /// Whether it can hold sockets and FIFOs.
    pub fn has_endpoints(&self) -> bool {
        !WITHOUT_ENDPOINTS.contains(&self.kind.as_slice())
    }

    /// Where something below the mount point lies in the file system.
    fn location(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.point).ok().map(|below| self.root.join(below))
    }

    /// Where the mount shows a location of its file system, or a directory below that location.
    fn shows(&self, location: &Path) -> Option<PathBuf> {
        match location.strip_prefix(&self.root) {
            Ok(below) if below.as_os_str().is_empty() => Some(self.point.clone()),
            Ok(below) => Some(self.point.join(below)),
            Err(_) => self.root.starts_with(location).then(|| self.point.clone()),
        }
    }
}

/// The mounts of the host, in the order in which they were made.
pub(crate) struct Table(Vec<HostMount>);

impl Table {
    pub fn read() -> Result<Self> {
        Ok(Self::new(mountinfo::read()?))
    }

    fn new(lines: Vec<Line>) -> Self {
        Self(lines.into_iter().map(HostMount::from).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &HostMount> {
        self.0.iter()
    }

    /// The mount that a path lies in.
    pub fn containing(&self, path: &Path) -> Option<&HostMount> {
        let above = self.0.iter().enumerate().filter(|(_, mount)| path.starts_with(&mount.point));
        above.max_by_key(|(index, mount)| (mount.point.components().count(), *index)).map(|(_, mount)| mount)
    }

    /// The mounts strictly below a path, each place once: the one on top.
    pub fn below(&self, path: &Path) -> Vec<&HostMount> {
        let mut found: Vec<&HostMount> = vec![];
        for mount in &self.0 {
            // A later mount covers an earlier one at its place, and what is below.
            found.retain(|earlier| !earlier.point.starts_with(&mount.point));
            if mount.point != path && mount.point.starts_with(path) {
                found.push(mount);
            }
        }
        found
    }

    /// The other places at which the same file or directory is mounted, whole or in part: by another mount of its file
    /// system. Another mount may cover some of them. `path` has no symlinks.
    pub fn aliases(&self, path: &Path) -> Vec<PathBuf> {
        let Some(own) = self.containing(path) else { return vec![] };
        let Some(location) = own.location(path) else { return vec![] };
        let same = self.0.iter().filter(|mount| mount.device == own.device);
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
    fn mounts_below_a_path_are_found_with_the_one_on_top() {
        let table = Table::new(mountinfo::parse(TABLE));
        let expected = [("/data/two words".to_owned(), true), ("/data/x".to_owned(), true)];
        assert_eq!(points(&table.below(Path::new("/data"))), expected);
        assert_eq!(points(&table.below(Path::new("/data/x"))), []);
        assert_eq!(points(&table.below(Path::new("/over"))), []);
        assert_eq!(points(&table.below(Path::new("/nowhere"))), []);
    }

    #[test]
    fn other_names_of_a_directory_are_found() {
        const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 8:2 /@home /home rw - btrfs /dev/b rw\n\
            3 1 8:2 / /mnt/all rw - btrfs /dev/b rw\n\
            4 1 8:2 /@home/me /srv/me rw - btrfs /dev/b rw\n\
            5 1 8:2 /@home/me/www /srv/www rw - btrfs /dev/b rw\n\
            6 1 8:2 /@homes /srv/homes rw - btrfs /dev/b rw\n\
            7 1 8:1 /home /srv/below rw - ext4 /dev/a rw\n";
        let table = Table::new(mountinfo::parse(TABLE));
        let aliases = |path: &str| table.aliases(Path::new(path));
        assert_eq!(aliases("/home/me"), ["/mnt/all/@home/me", "/srv/me", "/srv/www"].map(PathBuf::from));
        assert_eq!(aliases("/home/me/www"), ["/mnt/all/@home/me/www", "/srv/me/www", "/srv/www"].map(PathBuf::from));
        assert_eq!(aliases("/home"), ["/mnt/all/@home", "/srv/me", "/srv/www"].map(PathBuf::from));
    }

    #[test]
    fn the_mount_that_a_path_lies_in_is_the_nearest_above_and_the_one_on_top() {
        let table = Table::new(mountinfo::parse(TABLE));
        let at = |path: &str| table.containing(Path::new(path)).map(|mount| (mount.point.clone(), mount.attributes));
        assert_eq!(at("/data/file"), Some(("/data".into(), Attributes::NOSUID)));
        assert_eq!(at("/data/x"), Some(("/data/x".into(), Attributes::RDONLY)));
        assert_eq!(at("/elsewhere"), Some(("/".into(), Attributes::empty())));
    }
}
