//! `Root::host()`: the host's file system without what is nobody else's business.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use stockade::{Identity, Root, Sandbox};

use crate::support::{Payload, Test, fails, in_mount_namespace, shared_dir, stdout, unless_mounts};
use crate::{is_read_only, names, sandbox, tests, with};

pub const TESTS: &[Test] = tests![
    the_hosts_file_system_is_read_only_also_in_submounts if unless_mounts,
    homes_are_hidden,
    a_home_elsewhere_is_hidden_too if unless_mounts,
    temporary_directories_are_private,
    of_sys_there_are_the_processors_alone,
    the_top_level_is_the_hosts,
    places_below_the_top_are_created,
    every_mount_ignores_set_user_ids,
    what_is_not_of_the_sandbox_is_read_only,
];

pub const PAYLOADS: &[Payload] = &[("host-read-only", host_read_only), ("home-elsewhere", home_elsewhere)];

fn the_hosts_file_system_is_read_only_also_in_submounts() {
    let script = "mount -t tmpfs -o mode=755 none /mnt; cd /mnt; mkdir open sub; chmod 777 open
        mount -t tmpfs -o mode=777 none sub; echo seen > sub/file; chmod 666 sub/file; cd /";
    in_mount_namespace(script, "host-read-only", shared_dir().path());
}

fn host_read_only(_: &[String]) -> i32 {
    for place in ["/mnt/open", "/mnt/sub"] {
        fs::write(Path::new(place).join("of-the-host"), "x").expect("on the host everybody may write there");
        is_read_only(&sandbox(), &format!("{place}/new"));
        is_read_only(&sandbox(), &format!("{place}/of-the-host"));
    }
    assert_eq!(stdout(&sandbox(), "cat /mnt/sub/file"), "seen");
    is_read_only(&sandbox(), "/mnt/sub/file");
    for place in ["/", "/usr/", "/etc/", "/sys/", "/dev/"] {
        is_read_only(&sandbox(), &format!("{place}new"));
    }
    0
}

fn homes_are_hidden() {
    assert_eq!(stdout(&sandbox(), "ls -A /home /root"), "/home:\n\n/root:");
    is_read_only(&sandbox(), "/home/file");
}

fn a_home_elsewhere_is_hidden_too() {
    let script = "mount -t tmpfs -o mode=755 none /mnt; export HOME=/mnt/people/me
        mkdir -p $HOME; echo secret > $HOME/file; echo public > /mnt/people/file";
    in_mount_namespace(script, "home-elsewhere", shared_dir().path());
}

fn home_elsewhere(_: &[String]) -> i32 {
    assert_eq!(fs::read_to_string("/mnt/people/me/file").expect("own file"), "secret\n");
    assert_eq!(stdout(&sandbox(), "cat /mnt/people/file; ls /mnt/people"), "public\nfile\nme");
    for script in ["cat /mnt/people/me/file", "ls /mnt/people/me", "cd /mnt/people/me", "chmod 700 /mnt/people/me"] {
        fails(&sandbox(), script);
    }
    0
}

fn temporary_directories_are_private() {
    let places = ["/tmp", "/var/tmp"];
    let of_the_host = places.map(|place| tempfile::tempdir_in(place).expect("temporary directory of the host"));
    assert_eq!(stdout(&sandbox(), "ls -A /tmp /var/tmp /run"), "/run:\n\n/tmp:\n\n/var/tmp:");
    let name = of_the_host[0].path().file_name().unwrap().to_string_lossy().into_owned() + "-inside";
    let script = format!("for dir in /tmp /var/tmp /run; do echo x > $dir/{name}; stat -c %a $dir; done");
    assert_eq!(stdout(&sandbox(), &script), "1777\n1777\n755");
    for place in ["/tmp", "/var/tmp", "/run"] {
        assert!(!Path::new(place).join(&name).exists(), "{place} is the host's");
    }
    assert_eq!(stdout(&sandbox(), "ls -A /tmp"), "", "a sandbox begins with an empty one");
}

fn of_sys_there_are_the_processors_alone() {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("processors of the host");
    let script = "ls -A /sys /sys/devices; cat /sys/devices/system/cpu/online";
    assert_eq!(stdout(&sandbox(), script), format!("/sys:\ndevices\n\n/sys/devices:\nsystem\n{}", online.trim()));
    is_read_only(&sandbox(), "/sys/devices/system/cpu/online");
}

fn the_top_level_is_the_hosts() {
    let mut expected: BTreeSet<String> = names("/").into_iter().collect();
    expected.remove("lost+found");
    expected.extend(["dev", "home", "proc", "root", "run", "sys", "tmp", "var"].map(String::from));
    let inside = stdout(&sandbox(), "ls -A /").lines().map(str::to_owned).collect();
    assert_eq!(expected, inside);
    for name in names("/") {
        if let Ok(text) = fs::read_link(Path::new("/").join(&name)) {
            assert_eq!(stdout(&sandbox(), &format!("readlink '/{name}'")), text.to_string_lossy());
        }
    }
    let etc = stdout(&sandbox(), "ls -A /etc | wc -l");
    assert_eq!(etc.trim(), names("/etc").len().to_string());
}

fn places_below_the_top_are_created() {
    let root = Root::host().tmpfs("/a/new/place", 1 << 20).directory("/another").file("/a-file", "text");
    let sandbox = with(root);
    assert_eq!(stdout(&sandbox, "echo x > /a/new/place/file; ls -d /another; cat /a-file"), "/another\ntext");
    for name in ["a", "another", "a-file"] {
        assert!(!Path::new("/").join(name).exists(), "/{name} is on the host");
    }
}

/// The mounts of a sandbox: place and options.
fn mounts(sandbox: &Sandbox) -> Vec<(String, Vec<String>)> {
    let table = stdout(sandbox, "cut -d' ' -f5,6 /proc/self/mountinfo");
    let fields = table.lines().map(|line| line.split_once(' ').expect("two fields"));
    fields.map(|(place, options)| (place.to_owned(), options.split(',').map(str::to_owned).collect())).collect()
}

fn every_mount_ignores_set_user_ids() {
    for (place, options) in mounts(&sandbox()) {
        let has = |name: &str| options.iter().any(|option| option == name);
        assert!(has("nosuid"), "{place}: {options:?}");
        assert!(has("nodev") || place.starts_with("/dev"), "{place}: {options:?}");
    }
}

fn what_is_not_of_the_sandbox_is_read_only() {
    let own = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/run", "/tmp", "/var/tmp"];
    for (place, options) in mounts(&sandbox().identity(Identity::new())) {
        let writable = options.iter().any(|option| option == "rw");
        assert_eq!(writable, own.contains(&place.as_str()), "{place}: {options:?}");
    }
}
