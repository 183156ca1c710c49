//! The text forms of values, for programs that take them as options. They are those of the keys.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::root_base::RootBase;
use super::short_text::ShortText;
use crate::cgroup::CgroupParent;
use crate::confine::{Bind, Overlay, Root, Tmpfs};
use crate::error::{Error, Result};
use crate::escape::encode;
use crate::stored::{Bytes, Seconds};

fn short<T: ShortText>(text: &OsStr) -> Result<T> {
    T::of_text(&encode(text.as_bytes())).map_err(|cause| {
        Error::invalid(format!("{text:?} is not {}: {cause}", T::EXPECTED), "change the text to that form")
    })
}

/// Reads `SOURCE` or `SOURCE:TARGET`, as the keys `ro`, `rw` and `git` do. [`Config::resolve`](super::Config::resolve)
/// makes the paths absolute.
///
/// ```
/// use stockade::config::bind;
/// use stockade::mount::Bind;
///
/// assert_eq!(bind("data:/data")?, Bind::new("data", "/data"));
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for a text with several colons.
pub fn bind(text: impl AsRef<OsStr>) -> Result<Bind> {
    short(text.as_ref())
}

/// Reads `TARGET` or `TARGET:SIZE`, as the key `tmpfs` does.
///
/// ```
/// use stockade::config::tmpfs;
/// use stockade::mount::Tmpfs;
///
/// assert_eq!(tmpfs("/scratch:64MiB")?, Tmpfs::new("/scratch").size(64 << 20));
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn tmpfs(text: impl AsRef<OsStr>) -> Result<Tmpfs> {
    short(text.as_ref())
}

/// Reads `LOWER:TARGET`, as the key `overlay` does.
///
/// ```
/// use stockade::config::overlay;
/// use stockade::mount::Overlay;
///
/// assert_eq!(overlay("tools:/tools")?, Overlay::new("/tools").lower("tools"));
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn overlay(text: impl AsRef<OsStr>) -> Result<Overlay> {
    short(text.as_ref())
}

/// Reads `auto`, `systemd_scope` or an absolute path, as the key `cgroup_parent` does.
///
/// ```
/// use stockade::cgroup::CgroupParent;
/// use stockade::config::cgroup_parent;
///
/// assert_eq!(cgroup_parent("/jobs")?, CgroupParent::Path("/jobs".into()));
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn cgroup_parent(text: impl AsRef<OsStr>) -> Result<CgroupParent> {
    short(text.as_ref())
}

/// Reads `host`, `system`, `empty`, `inherit`, or the path of a directory, as the key `root` does. A path has a slash in it.
///
/// ```
/// use stockade::Root;
/// use stockade::config::root;
///
/// assert_eq!(root("empty")?, Root::empty());
/// assert_eq!(root("./image")?, Root::from_dir("./image"));
/// assert!(root("emtpy").unwrap_err().to_string().contains("use \"empty\""));
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn root(text: impl AsRef<OsStr>) -> Result<Root> {
    let text = encode(text.as_ref().as_bytes());
    RootBase::of_text(&text).map_err(|instead| Error::invalid(format!("unknown root {text:?}"), instead))
}

/// Reads a size in bytes, as the keys do: `"4096"`, `"256MiB"`, `"64M"`, `"1.5GB"`.
///
/// `K`, `M`, `G`, `T` and `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024; `kB`, `MB`, `GB`, `TB` of 1000.
///
/// ```
/// assert_eq!(stockade::config::size("1.5GiB")?, 3 << 29);
/// assert_eq!(stockade::config::size("64M")?, 64 << 20);
/// assert_eq!(stockade::config::size("64MB")?, 64_000_000);
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn size(text: &str) -> Result<u64> {
    Bytes::read(text).map_err(|cause| Error::invalid(cause, "add one of these units"))
}

/// Reads a duration, as the keys do: `"500ms"`, `"10s"`, `"1m30s"`. The units are `d`, `h`, `m` or `min`, `s`, `ms`, `us`,
/// `ns`.
///
/// ```
/// assert_eq!(stockade::config::duration("1m30s")?.as_secs(), 90);
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn duration(text: &str) -> Result<Duration> {
    Seconds::read(text).map_err(|cause| Error::invalid(cause, "add one of these units"))
}

/// Reads the name of a capability, as the key `capabilities` does: with or without `CAP_`, in upper or lower case.
///
/// ```
/// use stockade::capabilities::Capability;
///
/// assert_eq!(stockade::config::capability("net_raw")?, Capability::NetRaw);
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn capability(text: &str) -> Result<crate::capabilities::Capability> {
    super::named_choices::CapabilityName::parse(text)
        .map_err(|cause| Error::invalid(cause, "use a name of capabilities(7)"))
}
