//! What was learned as Rust code.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Learned;
use crate::confine::FsAccess;

/// An expression that builds the same value, for `include!` or to be pasted.
impl Display for Learned {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("stockade::Learned::new()")?;
        list(f, "allow_calls", self.calls.iter().map(|name| format!("{name:?}")))?;
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let texts = self.paths.iter().filter_map(|(path, access)| Some((text(path)?, access)));
        list(f, "allow_paths", texts.map(|(path, access)| format!("({path:?}, {})", rights(*access))))?;
        let others = self.paths.iter().filter(|(path, _)| text(path).is_none());
        list(
            f,
            "allow_paths",
            others.map(|(path, access)| format!("({}, {})", bytes(path.as_os_str()), rights(*access))),
        )?;
        list(f, "allow_bind", self.bind.iter().map(u16::to_string))?;
        list(f, "allow_connect", self.connect.iter().map(u16::to_string))?;
        if self.abstract_sockets {
            f.write_str("\n    .allow_abstract_sockets()")?;
        }
        f.write_str("\n")
    }
}

/// A method with an array, one element a line; nothing for none.
fn list(f: &mut Formatter<'_>, method: &str, elements: impl Iterator<Item = String>) -> fmt::Result {
    let mut elements = elements.peekable();
    if elements.peek().is_none() {
        return Ok(());
    }
    write!(f, "\n    .{method}([\n")?;
    for element in elements {
        writeln!(f, "        {element},")?;
    }
    f.write_str("    ])")
}

/// A path that is no text.
fn bytes(path: &OsStr) -> String {
    let literal = path.as_bytes().escape_ascii();
    format!("<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b\"{literal}\")")
}

fn rights(access: FsAccess) -> String {
    if access.is_empty() || access.is_all() {
        return format!("stockade::FsAccess::{}()", if access.is_empty() { "empty" } else { "all" });
    }
    let names: Vec<String> = access.iter_names().map(|(name, _)| format!("stockade::FsAccess::{name}")).collect();
    names.join(" | ")
}
