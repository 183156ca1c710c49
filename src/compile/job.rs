//! The part of a command that a plan depends on: its arguments, environment, streams and search path. The builder is in
//! `command`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::confine::{Descriptor, no_zero};
use crate::error::{Error, Result};
use crate::plan::{Search, Stream, share};

/// The part of a command that a plan depends on.
#[derive(Clone)]
pub(crate) struct Job<'a> {
    pub program: &'a OsStr,
    pub arg0: Option<&'a OsStr>,
    pub args: &'a [OsString],
    pub env: &'a BTreeMap<OsString, OsString>,
    /// Whether the `PATH` in it is the default one, which a `PATH` of the sandbox replaces.
    pub has_default_path: bool,
    pub cwd: Option<&'a Path>,
    pub stdio: [StreamSource; 3],
    /// Descriptors, with their numbers in the program.
    pub fds: &'a [(u32, Descriptor)],
    pub new_session: bool,
    pub pty: Option<Terminal>,
}

impl Job<'_> {
    /// Returns the environment of the program: that of the sandbox, with the variables that the command sets on top.
    pub fn env_over(&self, of_sandbox: &BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
        let is_replaced = |key: &OsStr| self.has_default_path && key == "PATH" && of_sandbox.contains_key(key);
        let own = self.env.iter().filter(|(key, _)| !is_replaced(key));
        of_sandbox.iter().chain(own).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// The source of a standard stream.
#[derive(Clone)]
pub(crate) enum StreamSource {
    Plain(Stream),
    Descriptor(Descriptor),
    /// Of standard input alone.
    Bytes(Arc<[u8]>),
}

impl StreamSource {
    pub(super) fn lower(self, descriptors: &mut Vec<Arc<OwnedFd>>, input: &mut Arc<[u8]>) -> Result<Stream> {
        Ok(match self {
            Self::Plain(stream) => stream,
            Self::Descriptor(fd) => Stream::Descriptor(share(descriptors, fd.0)?),
            Self::Bytes(bytes) => {
                *input = bytes;
                Stream::Input
            }
        })
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub(crate) struct Terminal {
    pub rows: u16,
    pub columns: u16,
}

pub(super) fn argv(job: &Job<'_>) -> Result<Vec<OsString>> {
    let name = job.arg0.unwrap_or(job.program);
    let argv: Vec<OsString> = std::iter::once(name.to_owned()).chain(job.args.iter().cloned()).collect();
    argv.iter().try_for_each(|arg| no_zero("the argument", arg))?;
    Ok(argv)
}

pub(super) fn envp(job: &Job<'_>) -> Result<Vec<OsString>> {
    job.env
        .iter()
        .map(|(key, value)| {
            no_zero("the environment variable", key)?;
            no_zero("the value of an environment variable", value)?;
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                let remedy = "give a name that is not empty and has no =";
                return Err(Error::invalid(format!("{key:?} is not the name of an environment variable"), remedy));
            }
            let mut entry = key.clone();
            entry.push("=");
            entry.push(value);
            Ok(entry)
        })
        .collect()
}

/// The paths at which the program is searched: its name if that has a slash, else the directories of its `PATH`.
pub(super) fn search(job: &Job<'_>) -> Result<Search> {
    no_zero("the program", job.program)?;
    if job.program.is_empty() {
        return Err(Error::invalid("the program's name is empty", "give one: Command::new(…)"));
    }
    let path = job.env.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
    let has_directory = job.program.as_bytes().contains(&b'/');
    if path.is_empty() && !has_directory {
        let remedy = "set PATH, or give the path of the program";
        return Err(Error::invalid(format!("{:?} cannot be found: PATH is empty", job.program), remedy));
    }
    let candidates: Vec<PathBuf> = match has_directory {
        true => vec![job.program.into()],
        false => std::env::split_paths(path).map(|directory| directory.join(job.program)).collect(),
    };
    Ok(Search { program: job.program.into(), candidates })
}
