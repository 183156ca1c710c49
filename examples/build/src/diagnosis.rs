//! Why a step failed: files that exist on the host and not in its sandbox, and addresses of the network. The step is run a
//! second time, and its system calls are observed. That is too slow for each run of each step.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use stockade::seccomp::{Action, Decision, Notification, SystemCall};
use stockade::{Seccomp, Stdio};

use crate::Failure;
use crate::hermetic;
use crate::step::{Step, WORK};

/// What a step has tried to use, and does not have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accesses {
    /// Paths that exist on the host: relative ones in the directory of the sources, absolute ones elsewhere.
    pub undeclared: BTreeSet<PathBuf>,
    /// Addresses that it has connected or sent to.
    pub network: BTreeSet<String>,
}

/// Calls that look for a file, with the index of the argument that is its path.
const LOOKUPS: [(&str, usize); 11] = [
    ("open", 0),
    ("openat", 1),
    ("openat2", 1),
    ("stat", 0),
    ("lstat", 0),
    ("newfstatat", 1),
    ("statx", 1),
    ("access", 0),
    ("faccessat", 1),
    ("faccessat2", 1),
    ("execve", 0),
];

/// Calls with an address, with the indices of the arguments that are its place and its length.
const CONNECTIONS: [(&str, usize, usize); 2] = [("connect", 1, 2), ("sendto", 4, 5)];

/// Runs a step, and returns what it lacks.
pub fn observe(step: &Step, sources: &Path, out: &Path) -> Result<Accesses, Failure> {
    let names = LOOKUPS.iter().map(|(name, _)| *name).chain(CONNECTIONS.iter().map(|(name, ..)| *name));
    let names: Vec<&str> = names.filter(|name| SystemCall::named(name).is_some()).collect();
    let sandbox = hermetic::sandbox(step, sources, out).map_seccomp(|policy: Seccomp| policy.on(names, Action::Notify));
    let found = Arc::new(Mutex::new(Accesses::default()));
    let (observed, sources) = (found.clone(), sources.to_owned());
    let mut command = hermetic::command(step);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = sandbox.spawn_supervised(command, move |call| {
        record(call, &sources, &mut observed.lock().unwrap_or_else(PoisonError::into_inner));
        Decision::Allow
    })?;
    let _ = child.wait_with_output()?;
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(found)
}

fn record(call: &Notification<'_>, sources: &Path, found: &mut Accesses) {
    let Some(name) = call.call().name() else { return };
    if let Some((_, path)) = LOOKUPS.iter().find(|(known, _)| *known == name) {
        let Ok(path) = call.string(*path) else { return };
        // Relative paths start in the working directory, which compilers do not change.
        let path = plain(&Path::new(WORK).join(OsString::from_vec(path)));
        found.undeclared.extend(undeclared(call, sources, &path));
    }
    if let Some((_, place, length)) = CONNECTIONS.iter().find(|(known, ..)| *known == name) {
        let length = call.args()[*length].min(128) as usize;
        let address = call.bytes(*place, length).ok().and_then(|bytes| address(&bytes));
        found.network.extend(address);
    }
}

/// Returns a path as the sources call it, if it exists on the host and not in the sandbox.
fn undeclared(call: &Notification<'_>, sources: &Path, path: &Path) -> Option<PathBuf> {
    let (named, on_host) = match path.strip_prefix(WORK) {
        Ok(below) => (below, sources.join(below)),
        Err(_) => (path, path.to_owned()),
    };
    // Directories are searched, and exist as soon as something in them is declared.
    let is_file = on_host.is_file();
    let inside = Path::new("/proc").join(call.pid().to_string()).join("root").join(path.strip_prefix("/").ok()?);
    (is_file && inside.symlink_metadata().is_err()).then(|| named.to_owned())
}

/// Returns a path without `.` and `..`, as text: the sources have no symlinks to directories.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        plain
    })
}

/// Returns an address of the internet, as text, from a `struct sockaddr` (ip(7), ipv6(7)).
fn address(bytes: &[u8]) -> Option<String> {
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let address: SocketAddr = match family {
        INET => (Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?), port).into(),
        INET6 => (Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?), port).into(),
        _ => return None,
    };
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let inet = [&2u16.to_ne_bytes()[..], &443u16.to_be_bytes(), &[192, 0, 2, 7], &[0; 8]].concat();
        assert_eq!(address(&inet).as_deref(), Some("192.0.2.7:443"));
        let inet6 = [&10u16.to_ne_bytes()[..], &80u16.to_be_bytes(), &[0; 4], &[0; 15], &[1], &[0; 4]].concat();
        assert_eq!(address(&inet6).as_deref(), Some("[::1]:80"));
        assert_eq!(address(&1u16.to_ne_bytes()), None);
        assert_eq!(address(&inet[..5]), None);
    }
}
