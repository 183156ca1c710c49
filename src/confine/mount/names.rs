//! The files in which programs look up names, completed with those of the sandbox: its host name, and its user and
//! group. A file of the host is covered by a copy with a line more; elsewhere a file is created.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::bind::Bind;
use super::builder::{Builder, Names};
use super::host_root::user_of;
use super::operation::Operation;
use super::root::Base;
use super::target::{MountPointKind, Target};
use crate::confine::facts::Facts;
use crate::error::Result;
use crate::host_path::is_directory;
use crate::plan::{Attributes, flags};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Lines of hosts(5) that every host has.
const LOCALHOST: &[u8] = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n";
/// The name of a user and a group that have none on the host.
const UNNAMED: &[u8] = b"sandbox";
/// Entries that every host has: a name and an ID, of a user and of a group.
const KNOWN: [(&[u8], u32); 2] = [(b"root", 0), (b"nobody", 65534)];

/// The position of an operation among those of a root.
#[derive(Clone, Copy)]
pub(super) struct Position<'a> {
    pub base: &'a Base,
    pub before: &'a [Operation],
    pub after: &'a [Operation],
}

/// What is at a path before an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    /// The file that is at the same path on the host, if there is one.
    OfHost,
    /// A file system of the sandbox's own, where nothing is yet.
    Nothing,
    Other,
}

impl Position<'_> {
    /// Returns what is at a path. `None` if a later operation puts something else there.
    fn present(&self, facts: &Facts, path: &Path) -> Result<Option<Present>> {
        let is_link_at = |mount: &Operation| matches!(mount, Operation::Symlink { link, .. } if link == path);
        let is_over = |mount: &&Operation| is_link_at(mount) || mount.covers() && path.starts_with(mount.target());
        if self.after.iter().any(|mount| is_over(&mount)) {
            return Ok(None);
        }
        Ok(Some(match self.before.iter().rev().find(is_over) {
            Some(Operation::Bind(bind)) => {
                let source = bind.resolve_source(facts)?;
                if source == bind.target { Present::OfHost } else { Present::Other }
            }
            Some(Operation::Tmpfs(tmpfs)) if tmpfs.target != path => Present::Nothing,
            Some(_) => Present::Other,
            None => match self.base {
                Base::Host => Present::OfHost,
                Base::Empty | Base::System => Present::Nothing,
                Base::Dir(_) | Base::WritableDir(_) | Base::Overlay(_) | Base::Inherit => Present::Other,
            },
        }))
    }
}

impl Builder<'_> {
    /// Carries out [`Operation::NetworkNames`].
    pub(super) fn network_names(&mut self, names: Names<'_>, position: Position<'_>) -> Result<()> {
        if let Some(host) = names.host.map(OsStr::as_bytes).filter(|name| is_one_word(name)) {
            let line = [b"127.0.0.1\t", host, b"\n"].concat();
            self.complete(HOSTS, position, |_| Some((line, LOCALHOST.to_vec())))?;
        }
        if names.shares_network {
            self.resolver(position)?;
        }
        Ok(())
    }

    /// Binds the settings of the resolver, if they are in a file that the sandbox does not show.
    fn resolver(&mut self, position: Position<'_>) -> Result<()> {
        let (facts, path) = (self.context.facts, Path::new(RESOLV_CONF));
        let Ok(file) = path.canonicalize() else { return Ok(()) };
        let is_shown = match position.present(facts, path)? {
            None | Some(Present::Other) => return Ok(()),
            Some(Present::Nothing) => false,
            Some(Present::OfHost) => file == path || shows(position, facts, &file)?,
        };
        if !is_shown && file.is_file() {
            self.bind(&Bind::new(file, path).unmapped())?;
        }
        Ok(())
    }

    /// Carries out [`Operation::UserNames`].
    pub(super) fn user_names(&mut self, names: Names<'_>, position: Position<'_>) -> Result<()> {
        let (uid, gid) = (self.context.identity.uid, self.context.identity.gid);
        let is_caller = uid == self.context.facts.ids.0;
        let home = names.home.map(OsStr::as_bytes).filter(|home| home.starts_with(b"/") && is_one_field(home));
        let mut name = UNNAMED.to_vec();
        self.complete(PASSWD, position, |users| {
            let known = users.and_then(|users| entry(users, uid));
            if let Some(known) = &known {
                name = known[0].to_vec();
            } else if users.is_some() && is_caller {
                // It may be in a user database on the network.
                name = user_of(uid).map_or(name.clone(), |user| user.name.into_bytes());
            }
            let line = match known {
                Some(mut fields) if fields.len() == 7 => {
                    let home = home.filter(|home| *home != fields[5])?;
                    fields[5] = home;
                    fields.join(&b':')
                }
                _ => user_line(&name, uid, gid, home.unwrap_or(b"/"), b"/bin/sh"),
            };
            let others = KNOWN.iter().filter(|(_, id)| *id != uid);
            let others = others.flat_map(|(name, id)| line_end(user_line(name, *id, *id, b"/", b"/usr/sbin/nologin")));
            Some((line_end(line), others.collect()))
        })?;
        self.complete(GROUP, position, |groups| {
            let line = |name: &[u8], id: u32| [name, format!(":x:{id}:\n").as_bytes()].concat();
            let others = KNOWN.iter().filter(|(_, id)| *id != gid).flat_map(|(name, id)| line(name, *id));
            groups.and_then(|groups| entry(groups, gid)).is_none().then(|| (line(&name, gid), others.collect()))
        })
    }

    /// Has a file begin with a line. `lines` gets the contents of the host's file, if the sandbox shows it. It returns
    /// the line and those that follow it where there are no contents, or `None` if the file is to stay as it is.
    fn complete(
        &mut self,
        path: &'static str,
        position: Position<'_>,
        lines: impl FnOnce(Option<&[u8]>) -> Option<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let Some(present) = position.present(self.context.facts, Path::new(path))? else { return Ok(()) };
        let of_host = match present {
            Present::OfHost => match read(path) {
                Err(_) if !can_be_covered(Path::new(path)) => return Ok(()),
                contents => contents.unwrap_or_default(),
            },
            Present::Nothing => vec![],
            Present::Other => return Ok(()),
        };
        let Some((line, others)) = lines((present == Present::OfHost).then_some(&*of_host)) else { return Ok(()) };
        let contents = [line, if of_host.is_empty() { others } else { of_host }].concat();
        let target = Target::new(Path::new(path))?;
        match present {
            Present::Nothing => target.file(self.context.helper, self.root, &contents, 0o444),
            _ => self.cover_file(&target, &contents),
        }
        Ok(())
    }

    /// Mounts a file over a file, if that exists. Without a scratch tmpfs it is created in the root, which is a tmpfs then,
    /// and its name is removed: the kernel mounts nothing without a name, and nothing over what has none.
    fn cover_file(&mut self, target: &Target, contents: &[u8]) {
        let absent = self.context.helper.label();
        let place = target.existing_file(self.context.helper, self.root, absent);
        let place_of_file = self.scratch.unwrap_or(self.root);
        let name = format!(".stockade-{}", self.new_name());
        let helper = &mut *self.context.helper;
        target.step(helper, "write the file");
        let file = helper.openat(place_of_file, &name, flags!(O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC), 0o444);
        helper.write_contents(file, contents);
        let tree = helper.open_tree(file, "");
        helper.close(file);
        self.restrict_own(tree, MountPointKind::File, Attributes::RDONLY | Attributes::SAFE);
        let helper = &mut *self.context.helper;
        target.step(helper, "attach a mount to");
        helper.move_mount(tree, place);
        helper.close(place);
        helper.close(tree);
        if self.scratch.is_none() {
            helper.unlinkat(place_of_file, &name);
        }
        helper.bind(absent);
    }
}

/// Returns whether the sandbox shows a file of the host at its own path.
fn shows(position: Position<'_>, facts: &Facts, file: &Path) -> Result<bool> {
    let is_bound = *position.base != Base::Host || super::host_root::is_bound(file);
    Ok(is_bound && position.present(facts, file)? == Some(Present::OfHost))
}

/// Returns whether a file can be mounted at a path of the host. It can also over a symlink that leads nowhere.
fn can_be_covered(path: &Path) -> bool {
    path.symlink_metadata().is_ok() && !is_directory(path)
}

/// Reads a file of the host.
fn read(path: &str) -> io::Result<Vec<u8>> {
    /// The maximum size, in bytes: each sandbox has a copy.
    const MAX: u64 = 256 << 10;
    // Opening a FIFO would block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // The copy is for every user, and the caller may be root.
    let is_readable_by_all = |meta: &fs::Metadata| meta.mode() & 0o004 != 0;
    let is_fit = |meta: &fs::Metadata| meta.is_file() && meta.len() <= MAX && is_readable_by_all(meta);
    if !is_fit(&file.metadata()?) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut contents = vec![];
    file.take(MAX).read_to_end(&mut contents)?;
    Ok(contents)
}

/// Returns the fields of the first entry with an ID in a file such as passwd(5).
fn entry(file: &[u8], id: u32) -> Option<Vec<&[u8]>> {
    let entries = file.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b':').collect::<Vec<_>>());
    let has_id = |fields: &Vec<&[u8]>| fields.get(2).is_some_and(|field| *field == id.to_string().as_bytes());
    entries.filter(|fields| !fields[0].is_empty() && !fields[0].starts_with(b"#")).find(has_id)
}

fn user_line(name: &[u8], uid: u32, gid: u32, home: &[u8], shell: &[u8]) -> Vec<u8> {
    [name, format!(":x:{uid}:{gid}::").as_bytes(), home, b":", shell].concat()
}

fn line_end(mut line: Vec<u8>) -> Vec<u8> {
    line.push(b'\n');
    line
}

/// Returns whether a name is a single word of hosts(5).
fn is_one_word(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| !byte.is_ascii_whitespace() && !byte.is_ascii_control() && *byte != b'#')
}

/// Returns whether a value is a single field of passwd(5).
fn is_one_field(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte != b':' && !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_their_id() {
        let file =
            b"#a:x:7:7::/:\n:x:7:7::/:\nroot:x:0:0:root:/root:/bin/sh\nbroken\nb:x:7:8::/b:/bin/sh\nc:x:7:9::/c:";
        assert_eq!(entry(file, 7).map(|fields| (fields[0], fields.len())), Some((&b"b"[..], 7)));
        assert_eq!(entry(file, 0).map(|fields| fields[5]), Some(&b"/root"[..]));
        assert_eq!(entry(file, 1), None);
        assert_eq!(entry(b"", 0), None);
    }

    #[test]
    fn a_host_name_that_is_no_word_gets_no_line() {
        for name in ["sandbox", "a.b", "\u{e9}"] {
            assert!(is_one_word(name.as_bytes()), "{name}");
        }
        for name in ["", "a b", "a\tb", "a\n127.0.0.1 b", "#a"] {
            assert!(!is_one_word(name.as_bytes()), "{name:?}");
        }
    }
}
