//! The text forms of values, for programs that take them as options. They are those of the keys.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::short_text::ShortText;
use crate::cgroup::CgroupParent;
use crate::confine::{Bind, Overlay, Tmpfs};
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

/// Reads a size in bytes: `"4096"`, `"256MiB"`, `"1.5GB"`.
///
/// ```
/// assert_eq!(stockade::config::size("1.5GiB")?, 3 << 29);
/// # Ok::<(), stockade::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for another text.
pub fn size(text: &str) -> Result<u64> {
    Bytes::read(text).map_err(|cause| Error::invalid(cause, "add one of these units"))
}

/// Reads a duration: `"500ms"`, `"10s"`, `"1m30s"`.
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
