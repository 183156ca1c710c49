//! The GPUs of the host: the devices by which programs render and compute, and the directories in `/sys` in which they
//! look up what these are.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;

use super::bind::Bind;
use super::operation::Operation;
use crate::error::{Error, Result};
use crate::host_path::status;
use crate::layer::Layer;
use crate::unix::Errno;

/// Directories of devices, with the names of those by which programs render and compute: a whole name, or one that a
/// number follows. A `card` node of `/dev/dri` is left out, since it also controls the display.
const DEVICES: [(&str, &[&str], &[&str]); 2] = [
    ("/dev/dri", &[], &["renderD"]),
    ("/dev", &["dxg", "kfd", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"], &["mali", "nvidia"]),
];

/// Returns the operations that [`Operation::Gpus`] stands for on this host.
pub(super) fn operations() -> Result<Vec<Operation>> {
    let devices = devices();
    if devices.is_empty() {
        let hint = "load the driver of the GPU, give the container its devices, or remove Root::gpus";
        let error = Error::set_up("find the devices of a GPU", "open", Errno::ENOENT, Some(hint));
        return Err(error.on("/dev/dri").of(Layer::Root));
    }
    let mut operations = vec![];
    let mut directories: Vec<PathBuf> = vec![];
    for device in devices {
        if let Some(shown) = SysEntry::of(&device) {
            directories.push(shown.directory);
            operations.extend(shown.links.into_iter().map(|(link, text)| Operation::symlink(text, link)));
        }
        operations.push(Bind::new(device.clone(), device).unmapped().devices().noexec().into());
    }
    directories.sort();
    directories.dedup_by(|inner, outer| inner.starts_with(outer));
    let binds = directories.into_iter().map(|directory| Bind::new(directory.clone(), directory).unmapped().into());
    Ok(binds.chain(operations).collect())
}

fn devices() -> Vec<PathBuf> {
    let mut devices = vec![];
    for (directory, whole, numbered) in DEVICES {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let is_numbered = |name: &str, prefix: &str| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_digit()))
            };
            let is_listed =
                |name: &str| whole.contains(&name) || numbered.iter().any(|prefix| is_numbered(name, prefix));
            if entry.file_name().to_str().is_some_and(is_listed) && number(&entry.path()).is_some() {
                devices.push(entry.path());
            }
        }
    }
    devices.sort();
    devices
}

/// Returns the number of a character device, as `/sys/dev/char` has it.
fn number(device: &Path) -> Option<String> {
    let status = status(device).ok()?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    (kind == SFlag::S_IFCHR).then(|| format!("{}:{}", libc::major(status.st_rdev), libc::minor(status.st_rdev)))
}

/// What `/sys` has of a device.
struct SysEntry {
    /// The directory of the hardware, or of a device without any.
    directory: PathBuf,
    /// The symlinks that lead to the device, with their texts.
    links: Vec<(PathBuf, PathBuf)>,
}

impl SysEntry {
    /// `None` if the driver has no entry there.
    fn of(device: &Path) -> Option<Self> {
        let by_number = Path::new("/sys/dev/char").join(number(device)?);
        let directory = by_number.canonicalize().ok()?;
        let class = fs::read_link(directory.join("subsystem")).ok();
        let class = class.as_deref().and_then(Path::file_name).zip(directory.file_name());
        let by_class = class.map(|(class, name)| Path::new("/sys/class").join(class).join(name));
        let links = [Some(by_number), by_class].into_iter().flatten();
        let links = links.filter_map(|link| fs::read_link(&link).ok().map(|text| (link, text))).collect();
        let directory = directory.join("device").canonicalize().unwrap_or(directory);
        Some(Self { directory, links })
    }
}
