//! `/proc/[pid]/status` (proc_pid_status(5)). A program chooses its name, which is part of it and need not be UTF-8.

use std::io;
use std::path::Path;

use crate::proc_file;

/// The status of a process or thread.
pub(crate) struct ProcessStatus(String);

impl ProcessStatus {
    /// Reads the file at a path.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        proc_file::read(path).map(|bytes| Self::parse(&bytes))
    }

    /// Reads the status of a process or thread.
    pub fn of(pid: i32) -> io::Result<Self> {
        Self::read(format!("/proc/{pid}/status"))
    }

    pub fn parse(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Returns the value of a line, empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    }

    /// Returns the words of a value.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.field(name).split_whitespace()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_utf_8_hides_no_field() {
        let status = ProcessStatus::parse(b"Name:\t\xff\\nState:\tx\nState:\tZ (zombie)\nNSpid:\t90\t3\n");
        assert_eq!(status.field("State"), "Z (zombie)");
        assert_eq!(status.words("NSpid").collect::<Vec<_>>(), ["90", "3"]);
        assert_eq!((status.field("NSpi"), status.field("Absent")), ("", ""));
    }
}
