//! Commands on the host in new namespaces, in which a test can change settings.

use std::ffi::OsStr;
use std::process::Command as Host;

use super::{is_root, text};

/// What a command of the host writes; it must succeed.
#[track_caller]
pub fn host_output(command: &mut Host) -> String {
    let output = command.output().expect("a command of the host");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}, {out:?}, stderr {err:?}", output.status);
    out
}

/// A shell script on the host in namespaces of its own, where it is root; `$@` are the arguments. `namespaces` are
/// options of unshare(1).
pub fn apart(namespaces: &[&str], script: &str, args: &[&OsStr]) -> Host {
    let mut host = Host::new("unshare");
    if !is_root() {
        host.arg("-Ur");
    }
    host.args(namespaces).args(["sh", "-ec", script, "sh"]).args(args);
    host
}

/// The beginning of a command line that makes root in a user namespace the ordinary user that it was.
pub fn as_before() -> String {
    if is_root() {
        return String::new();
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    format!("unshare -U --map-user={uid} --map-group={gid}")
}
