//! Directories on file systems without idmapped mounts, as the root of a container of Docker is, and directories with
//! such mounts in them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use stockade::mount::Bind;
use stockade::{Command, Identity, Root, Sandbox};

use super::simulated::SimulatedHost;
use crate::support::{stdout, unless_mount_setattr};

payloads![
    ("on_overlay", on_overlay),
    ("above_others", above_others),
    ("socket_below", socket_below),
    ("connect_to", connect_to),
];

const OVERLAY: &str = "mkdir -p /mnt/layers /mnt/dir; mount -t tmpfs tmpfs /mnt/layers; cd /mnt/layers
    mkdir lower upper work; chmod 755 .
    mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay /mnt/dir; cd /; chmod 755 /mnt/dir";

fn on_overlay(_: &[String]) -> i32 {
    let writable = Root::host().bind_rw("/mnt/dir", "/d");
    let error = Sandbox::new().root(writable.clone()).status(Command::new("true")).expect_err("nothing maps the owner");
    println!("{error}");
    // What the hint says helps.
    stdout(&Sandbox::new().identity(Identity::caller()).root(writable), "echo written >/d/file");
    assert_eq!(fs::metadata("/mnt/dir/file").expect("a file").uid(), 0);
    assert_eq!(stdout(&Sandbox::new().root(Root::host().bind("/mnt/dir", "/d")), "cat /d/file"), "written");
    0
}

/// Finding H6.
#[apply(test)]
#[only(Root)]
#[skip(unless_mount_setattr)]
fn a_writable_bind_on_an_overlay_names_the_mount() {
    let said = SimulatedHost::after(OVERLAY).output("on_overlay");
    assert!(
        said.contains(
            "failed to map the owners of /mnt/dir: mount_setattr: Invalid argument (EINVAL): the mount at /mnt/dir, of \
             type overlay, has no idmapped mounts"
        ),
        "{said}"
    );
}

fn above_others(_: &[String]) -> i32 {
    let error = Sandbox::new().root(Root::host().bind_rw("/mnt/work", "/w")).status(Command::new("true"));
    println!("{}", error.expect_err("one mount cannot be mapped"));
    0
}

/// Finding H6: not the file system of the directory is blamed.
#[apply(test)]
#[only(Root)]
#[skip(unless_mount_setattr)]
fn the_mount_in_a_directory_that_is_at_fault_is_named() {
    for (mount, kind) in [("mount --bind /mnt/dir below", "overlay"), ("mount -t ramfs ramfs below", "ramfs")] {
        let script = format!("{OVERLAY}; cd /mnt/work; mkdir below; {mount}");
        let said = SimulatedHost::after(&script).output("above_others");
        let words = format!(
            "failed to map the owners of /mnt/work: mount_setattr: Invalid argument (EINVAL): the mount at \
             /mnt/work/below, of type {kind}, has no idmapped mounts"
        );
        assert!(said.contains(&words), "{said}");
    }
}

/// A socket in a mount below a directory that is bound for a stranger, beside a mount without idmapped mounts.
fn socket_below(_: &[String]) -> i32 {
    let _listener = UnixListener::bind("/mnt/work/tmpfs/socket").expect("a socket");
    fs::set_permissions("/mnt/work/tmpfs/socket", Permissions::from_mode(0o777)).expect("a socket for everybody");
    let is_reachable = |bind: Bind| {
        let root = Root::host().with(bind).bind("/mnt/payload", "/payload");
        let command = ["--payload", "connect_to", "/w/tmpfs/socket"];
        let outcome = Sandbox::new().root(root).status(Command::new("/payload").args(command));
        outcome.expect("an outcome").success()
    };
    let bind = || Bind::new("/mnt/work", "/w");
    assert!(is_reachable(bind().unmapped().sockets()), "the test can connect");
    assert!(!is_reachable(bind().unmapped()) && !is_reachable(bind()), "the socket is reachable");
    0
}

fn connect_to(args: &[String]) -> i32 {
    UnixStream::connect(&args[0]).is_err().into()
}

/// The kernel unmaps no single mount of a tree, so that others must cut off its sockets.
#[apply(test)]
#[only(Root)]
#[skip(unless_mount_setattr)]
fn sockets_below_a_mount_without_idmapped_mounts_are_cut_off() {
    SimulatedHost::after(
        "cd /mnt/work; chmod 755 .; mkdir ramfs tmpfs
        mount -t ramfs ramfs ramfs; mount -t tmpfs -o mode=755 tmpfs tmpfs",
    )
    .output("socket_below");
}
