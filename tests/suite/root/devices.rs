//! What is added to the `/dev` of a sandbox.

use std::path::Path;

use stockade::Root;
use stockade::mount::{Bind, Operation, Tmpfs};

use crate::root::{READ_ONLY, set_up, with};
use crate::support::{fails, stdout};

/// Devices of the host that the default `/dev` does not have.
fn others() -> impl Iterator<Item = &'static str> {
    ["/dev/fuse", "/dev/kvm", "/dev/net/tun", "/dev/kmsg", "/dev/dri", "/dev/cpu"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
}

#[apply(test)]
fn devices_of_the_host_are_added() {
    let root = others().fold(Root::host(), Root::device);
    let numbers = |sandbox: &stockade::Sandbox| {
        let paths: Vec<&str> = others().collect();
        stdout(sandbox, &format!("stat -c '%n %F %t:%T %a' {}", paths.join(" ")))
    };
    let on_host = std::process::Command::new("stat").args(["-c", "%n %F %t:%T %a"]).args(others()).output().unwrap();
    assert_eq!(numbers(&with(root.clone())), String::from_utf8(on_host.stdout).unwrap().trim_end());
    fails(&with(Root::host()), &format!("test -e {}", others().next().expect("a device")));
    assert_eq!(set_up(&with(Root::host().device("/dev/none-such"))).errno, libc::ENOENT);
}

#[apply(test)]
fn a_device_can_be_used_only_if_that_is_requested() {
    let zero = |bind: Bind| with(Root::host().with(bind.unmapped()));
    let read = "head -c 3 /dev/mine | od -An -c; : > /dev/mine";
    assert!(stdout(&zero(Bind::new("/dev/zero", "/dev/mine").devices()), read).contains("\\0  \\0  \\0"));
    assert!(fails(&zero(Bind::new("/dev/zero", "/dev/mine")), read).contains("ermission denied"));
}

#[apply(test)]
fn links_files_and_mounts_are_added_and_dev_is_read_only() {
    let root = Root::host()
        .symlink("fd/7", "/dev/log-stream")
        .symlink("/dev/null", "/dev/deep/er/nothing")
        .with(Operation::file("/dev/version", "1", 0o444))
        .with(Tmpfs::new("/dev/scratch").size(1 << 20));
    let sandbox = with(root);
    let script =
        "readlink /dev/log-stream; echo x > /dev/deep/er/nothing; cat /dev/version; echo; echo y > /dev/scratch/y";
    assert_eq!(stdout(&sandbox, script), "fd/7\n1");
    for script in ["> /dev/new", "mkdir /dev/new", "mknod /dev/new p", "ln -s a /dev/new", "rm /dev/null", "rm /dev/fd"]
    {
        for sandbox in [&sandbox, &with(Root::host())] {
            let said = fails(sandbox, script);
            assert!(said.contains(READ_ONLY) || said.contains("busy"), "{script}: {said}");
        }
    }
    assert!(fails(&sandbox, "rm /dev/log-stream").contains(READ_ONLY));
    // It is the sandbox's own, so no node can be created even where it is writable.
    assert!(fails(&sandbox, "mknod /dev/scratch/sda b 8 0").contains("not permitted"));
}
