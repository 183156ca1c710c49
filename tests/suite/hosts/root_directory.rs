//! Hosts whose root directory is on an overlay, or is read-only.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use stockade::{Command, Root, Sandbox};

use super::simulated::{SimulatedHost, WORK};
use crate::support::{is_root, text, unless_overlays};

payloads![("private_bind", private_bind)];

/// A container of Docker: its root is an overlay, and so is the directory for a writable bind. A user who owns the
/// overlay has it for the directory alone, since it has the mounts of the lower one in it.
fn on_overlay() -> SimulatedHost {
    let overlay = |options: &str, lower: &str, at: &str| {
        format!(
            "mkdir /mnt/upper /mnt/other /mnt/lower
            mount -t overlay -o lowerdir={lower},upperdir=/mnt/upper,workdir=/mnt/other{options} overlay {at}"
        )
    };
    if !is_root() {
        return SimulatedHost::after(&overlay(",userxattr", "/mnt/lower", "/mnt/work"));
    }
    SimulatedHost::after(&format!(
        "mkdir /mnt/root; {}; cd /mnt/root
        for dir in proc sys dev; do mount --rbind /$dir $dir; done
        mkdir -p mnt/work; : >mnt/payload; mount --bind /mnt/payload mnt/payload
        mkdir old; pivot_root . old; cd /; umount -l /old; rmdir /old",
        overlay("", "/", "/mnt/root")
    ))
}

/// Finding H6: root's writable binds need idmapped mounts, which an overlay does not support.
#[apply(test)]
#[skip(unless_overlays)]
fn the_root_may_be_an_overlay() {
    let words = "failed to map the owners of /mnt/work: mount_setattr: Invalid argument (EINVAL): the mount at /, of \
                 type overlay, has no idmapped mounts";
    let of_root = [("writable bind", words)];
    on_overlay().answers().assert_all_but(if is_root() { &of_root } else { &[] });
    on_overlay().of_user().assert_works();
}

/// Binds a file that only its owner may read, read-only.
fn private_bind(_: &[String]) -> i32 {
    let path = std::path::Path::new(WORK).join("private");
    fs::write(&path, "seen").unwrap();
    for mode in [0o600, 0o644] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match Sandbox::new().root(Root::host().bind(&path, "/private")).output(Command::new("cat").arg("/private")) {
            Ok(output) => println!("{mode:o} {}{}", text(&output.stdout), text(&output.stderr)),
            Err(error) => println!("{mode:o} {error}"),
        }
    }
    0
}

/// Finding H6: the program cannot read what only root may read, and the bind alone would not say why.
#[apply(test)]
#[skip(unless_overlays)]
fn a_private_file_on_an_overlay_is_an_error() {
    let said = on_overlay().output("private_bind");
    let (private, public) = said.trim_end().split_once('\n').unwrap();
    assert_eq!(public, "644 seen");
    if is_root() {
        let words = "600 failed to map the owners of /mnt/work/private: mount_setattr: Invalid argument (EINVAL): the \
                     mount at /, of type overlay, has no idmapped mounts";
        assert!(private.starts_with(words) && private.contains("let other users read it, "), "{private}");
    } else {
        assert_eq!(private, "600 seen");
    }
}

#[apply(test)]
fn the_root_may_be_read_only() {
    let host = || SimulatedHost::after("mount -o remount,bind,ro /");
    host().assert_works();
    host().of_user().assert_works();
}

/// As with `docker run --read-only`, with and without its `--tmpfs /run`.
#[apply(test)]
fn every_mount_may_be_read_only() {
    let read_only = "for point in $(awk '{print $2}' /proc/mounts); do
        case $point in /proc*|/mnt*) ;; *) mount -o remount,bind,ro $point;; esac; done";
    let host = || SimulatedHost::after(&format!("mount -t tmpfs tmpfs /run; {read_only}"));
    if is_root() {
        host().answers().assert_all(
            "failed to reserve a host ID in /run/stockade/ids: open: Read-only file system (EROFS): let the caller \
             create this directory, or mount a file system for it: mount -t tmpfs -o mode=755 tmpfs /run",
        );
        SimulatedHost::after(&format!("{read_only}; mount -t tmpfs -o mode=755 tmpfs /run")).assert_works();
    } else {
        host().assert_works();
    }
    host().of_user().assert_works();
}
