//! `Root::host()`: the file system of the host without private files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use stockade::{Identity, Root, Sandbox};

use crate::root::{is_read_only, names, sandbox, with};
use crate::support::{fails, in_mount_namespace, shared_dir, stdout, unless_idmapped_mounts, unless_mounts};

payloads![("host-read-only", host_read_only), ("home-elsewhere", home_elsewhere)];

#[apply(test)]
#[skip(unless_mounts)]
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

#[apply(test)]
fn homes_are_hidden() {
    assert_eq!(stdout(&sandbox(), "ls -A /home /root"), "/home:\n\n/root:");
    is_read_only(&sandbox(), "/home/file");
}

#[apply(test)]
#[skip(unless_mounts)]
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

#[apply(test)]
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

#[apply(test)]
fn only_the_processors_of_sys_are_visible() {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("processors of the host");
    let script = "ls -A /sys /sys/devices; cat /sys/devices/system/cpu/online";
    assert_eq!(stdout(&sandbox(), script), format!("/sys:\ndevices\n\n/sys/devices:\nsystem\n{}", online.trim()));
    is_read_only(&sandbox(), "/sys/devices/system/cpu/online");
}

#[apply(test)]
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

#[apply(test)]
fn places_below_the_top_are_created() {
    let root = Root::host().tmpfs("/a/new/place", 1 << 20).create_dir("/another").file("/a-file", "text");
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

#[apply(test)]
fn every_mount_ignores_set_user_ids() {
    for (place, options) in mounts(&sandbox()) {
        let has = |name: &str| options.iter().any(|option| option == name);
        assert!(has("nosuid"), "{place}: {options:?}");
        assert!(has("nodev") || place.starts_with("/dev"), "{place}: {options:?}");
    }
}

#[apply(test)]
fn everything_not_created_by_the_sandbox_is_read_only() {
    let own = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/run", "/tmp", "/var/tmp"];
    for (place, options) in mounts(&sandbox().identity(Identity::new())) {
        let writable = options.iter().any(|option| option == "rw");
        assert_eq!(writable, own.contains(&place.as_str()), "{place}: {options:?}");
    }
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn directories_of_the_sandbox_are_writable() {
    let out = crate::root::open_dir();
    // Renaming and linking into another directory is what Landlock denies where it is not allowed.
    let script = "for top in /tmp /var/tmp /run /dev/shm /out /own; do
            mkdir $top/a $top/b; echo x > $top/a/file; mv $top/a/file $top/b/moved; ln $top/b/moved $top/a/linked
            echo more >> $top/a/linked; mkfifo $top/fifo; cat $top/fifo & echo through > $top/fifo; wait
        done
        echo x > /dev/null; echo named > /proc/self/comm; : > /dev/full; echo x > /proc/self/fd/1";
    let root = Root::host().bind_rw(out.path(), "/out").tmpfs("/own", 1 << 20);
    let expected = "through\n".repeat(6) + "x";
    assert_eq!(stdout(&with(root), script), expected);
    assert_eq!(fs::read_to_string(out.path().join("b/moved")).expect("output"), "x\nmore\n");
}

#[apply(test)]
#[only(User)]
fn a_file_that_is_the_output_can_be_opened_again() {
    let dir = shared_dir();
    let (path, other) = (dir.path().join("output"), dir.path().join("other"));
    let [file, third] = [&path, &other].map(|path| fs::File::create(path).expect("file"));
    let mut command = stockade::Command::new("/bin/sh");
    command.args(["-c", "echo one; echo two >> /dev/stdout; echo three > /proc/self/fd/3"]).stdout(file).fd(3, third);
    assert!(sandbox().status(&command).expect("a sandbox").success());
    assert_eq!(fs::read_to_string(path).expect("output"), "one\ntwo\n");
    assert_eq!(fs::read_to_string(other).expect("output"), "three\n");
}
