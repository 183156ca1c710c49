//! `Display` of [`Learned`]: Rust code that builds the same value.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::learned::Learned;
use crate::confine::FsAccess;
use crate::flag_set::FlagSet;

/// A Rust expression that builds the same value, to be pasted or included (`include!`).
impl Display for Learned {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("stockade::learn::Learned::new()")?;
        write_call(f, "allow_calls", self.calls.iter().map(|name| format!("{name:?}")))?;
        let text = |path: &Path| path.to_str().map(str::to_owned);
        let texts = self.paths.iter().filter_map(|(path, access)| Some((text(path)?, access)));
        write_call(f, "allow_paths", texts.map(|(path, access)| format!("({path:?}, {})", rights(*access))))?;
        let others = self.paths.iter().filter(|(path, _)| text(path).is_none());
        write_call(
            f,
            "allow_paths",
            others.map(|(path, access)| format!("({}, {})", byte_path(path.as_os_str()), rights(*access))),
        )?;
        write_call(f, "allow_bind", self.bind.iter().map(u16::to_string))?;
        write_call(f, "allow_connect", self.connect.iter().map(u16::to_string))?;
        if self.abstract_sockets {
            f.write_str("\n    .allow_abstract_sockets()")?;
        }
        f.write_str("\n")
    }
}

/// Writes a method call with an array, one element per line. Writes nothing if there are no elements.
fn write_call(f: &mut Formatter<'_>, method: &str, elements: impl Iterator<Item = String>) -> fmt::Result {
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

/// Returns an expression for a path that is not UTF-8.
fn byte_path(path: &OsStr) -> String {
    let literal = path.as_bytes().escape_ascii();
    format!("<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b\"{literal}\")")
}

fn rights(access: FsAccess) -> String {
    if access.is_empty() || access == FsAccess::all() {
        return format!("stockade::landlock::FsAccess::{}()", if access.is_empty() { "empty" } else { "all" });
    }
    let names: Vec<String> = access.flag_names().map(|name| format!("stockade::landlock::FsAccess::{name}")).collect();
    names.join(" | ")
}
