//! [`Fingerprint`]: a digest of the description of a sandbox. It is computed from the stored form, so that a new setting is
//! part of it by itself. Contents of files do not belong here.

use std::fmt::{self, Debug, Display, Formatter};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;

/// The version of the digest. It is raised when a setting gets another meaning without another stored form.
const VERSION: u8 = 1;

/// Settings that change nothing for the program: those that only the caller notices.
const OF_THE_CALLER: [&[&str]; 3] = [&["setup_timeout"], &["keep_namespaces"], &["cgroup", "parent"]];

/// A digest of the description of a sandbox: see [`Sandbox::fingerprint`].
///
/// Its `Display` is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Returns the bytes of the digest, a SHA-256.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Debug for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Sandbox {
    /// Returns a digest of what the result of a program depends on in this description, for the key of a cache.
    ///
    /// Equal descriptions have equal digests: in every process, on every machine of the same architecture, and with every
    /// release of the crate in which the settings mean the same. It reads no file, and makes no system call.
    ///
    /// | | |
    /// |---|---|
    /// | part of it | every setting of the sandbox with its arguments, apart from those below; the rules of the seccomp policy, so that a release with other presets gives other digests; the architecture |
    /// | not part of it, since the program does not notice it | [`Sandbox::setup_timeout`], [`Sandbox::keep_namespaces`], [`Cgroup::parent`](crate::Cgroup::parent) |
    /// | not part of it, although the program may notice it | the contents of files: of inputs, binds, and the programs of [`Root::host`](crate::Root::host) and [`Root::system`](crate::Root::system); the command with its arguments and environment; the kernel, the processor and the time; which best-effort layers are in force ([`Outcome::enforcement`](crate::Outcome::enforcement)); the caller's user, and its environment |
    ///
    /// Paths of the host count as text: the same file under another path gives another digest, and a relative path the same
    /// one in each working directory. Use absolute paths, or fingerprints of one working directory. To share a cache between
    /// directories, take the fingerprint before binds and [`Root::inputs`](crate::Root::inputs) are added, and add to the key
    /// for each input its path in the sandbox and the digest of its contents.
    ///
    /// A key consists of the fingerprint, the version of the tools (for example the output of `cc --version`), the command
    /// with its environment, and the inputs. `examples/build` does this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the description contains an open
    /// descriptor ([`Bind::from_fd`](crate::mount::Bind::from_fd),
    /// [`NamespaceRef::fd`](crate::namespaces::NamespaceRef::fd)), which means something else in another process, or a number
    /// of CPUs that is not finite.
    ///
    /// ```
    /// use stockade::{Limits, profile};
    /// use std::time::Duration;
    ///
    /// let sandbox = profile::build_step();
    /// let digest = sandbox.fingerprint()?;
    /// assert_eq!(digest, profile::build_step().setup_timeout(Duration::from_secs(5)).fingerprint()?);
    /// assert_ne!(digest, sandbox.env("LANG", "C").fingerprint()?);
    /// assert_eq!(digest.to_string().len(), 64);
    /// # Ok::<(), stockade::Error>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "fingerprint")))]
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut description = serde_json::to_value(self).map_err(|error| {
            Error::invalid(
                format!("the sandbox has no fingerprint: {error}"),
                "remove what is open or not finite, take the fingerprint, and add it afterwards",
            )
        })?;
        OF_THE_CALLER.iter().for_each(|path| remove(&mut description, path));
        let mut digest = Sha256::new();
        digest.update(b"stockade fingerprint\0");
        digest.update([VERSION]);
        absorb(&mut digest, &Value::from(std::env::consts::ARCH));
        absorb(&mut digest, &description);
        Ok(Fingerprint(digest.finalize().into()))
    }
}

/// Removes the value at a path of keys.
fn remove(value: &mut Value, path: &[&str]) {
    let Some((last, above)) = path.split_last() else { return };
    let table = above.iter().try_fold(value, |value, key| value.get_mut(*key));
    if let Some(Value::Object(table)) = table {
        table.remove(*last);
    }
}

/// Adds a value to a digest: its type, its length, and its parts. Tables are sorted by their keys.
fn absorb(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Null => digest.update(b"n"),
        Value::Bool(value) => digest.update([b'b', u8::from(*value)]),
        Value::Number(number) => absorb_text(digest, b'#', &number.to_string()),
        Value::String(text) => absorb_text(digest, b's', text),
        Value::Array(values) => {
            absorb_length(digest, b'a', values.len());
            values.iter().for_each(|value| absorb(digest, value));
        }
        Value::Object(table) => absorb_table(digest, table),
    }
}

fn absorb_table(digest: &mut Sha256, table: &Map<String, Value>) {
    // A setting that a newer release adds is unset in an older description.
    let mut set: Vec<(&String, &Value)> = table.iter().filter(|(_, value)| !is_unset(value)).collect();
    set.sort_by_key(|(key, _)| *key);
    absorb_length(digest, b't', set.len());
    for (key, value) in set {
        absorb_text(digest, b's', key);
        absorb(digest, value);
    }
}

/// Whether a value is that of an absent key. A table is not, even if it is empty: a cgroup without limits is a cgroup.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}

fn absorb_text(digest: &mut Sha256, kind: u8, text: &str) {
    absorb_length(digest, kind, text.len());
    digest.update(text);
}

fn absorb_length(digest: &mut Sha256, kind: u8, length: usize) {
    digest.update([kind]);
    digest.update((length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(value: Value) -> [u8; 32] {
        let mut digest = Sha256::new();
        absorb(&mut digest, &value);
        digest.finalize().into()
    }

    #[test]
    fn different_values_have_different_digests() {
        let values = [
            json!({}),
            json!([]),
            json!(""),
            json!("1"),
            json!(1),
            json!(1.0),
            json!(null),
            json!(true),
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!([["a"], "bc"]),
            json!({"a": {"b": "c"}}),
            json!({"a": {}, "b": "c"}),
            json!({"a": "b", "c": "d"}),
        ];
        for (index, value) in values.iter().enumerate() {
            for other in &values[index + 1..] {
                assert_ne!(digest(value.clone()), digest(other.clone()), "{value} {other}");
            }
        }
    }

    #[test]
    fn an_unset_key_is_an_absent_one() {
        let all = json!({"a": 1, "b": null, "c": false, "d": []});
        assert_eq!(digest(all), digest(json!({"a": 1})));
        assert_ne!(digest(json!({"a": {}})), digest(json!({})));
    }
}
