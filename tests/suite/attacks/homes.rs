//! Home directories that are also mounted at other paths. They are hidden at all of these
//! paths.

use std::fs;
use std::path::Path;

use stockade::{Root, Sandbox};

use crate::attacks::common::{attack, attempt, sandbox};
use crate::support::{in_mount_namespace, shared_dir, stdout, unless_mounts, unless_pivot_root, with_payload};

/// The script changes the root.
fn unless_another_root() -> Option<String> {
    unless_mounts().or_else(unless_pivot_root)
}

payloads![
    ("read-files", read_files),
    ("home-of-many-names", home_of_many_names),
    ("linked-homes", linked_homes),
    ("bind-in-home", bind_in_home),
];

/// Reads files by their paths.
fn read_files(paths: &[String]) -> i32 {
    for path in paths {
        attempt(path, fs::read(path));
    }
    0
}

const HOME: &str = "mount -t tmpfs -o mode=755 none /mnt; export HOME=/mnt/people/me
    mkdir -p $HOME/part /mnt/all /mnt/whole /mnt/some; echo secret > $HOME/part/key; echo public > /mnt/people/file";

#[apply(test)]
#[skip(unless_mounts)]
fn a_home_is_hidden_under_all_its_names() {
    let script = format!(
        "{HOME}
        mount --bind /mnt/people/me /mnt/whole; mount --bind /mnt/people /mnt/all; mount --bind $HOME/part /mnt/some
        mount --bind /mnt /srv; mount --rbind /mnt /opt"
    );
    in_mount_namespace(&script, "home-of-many-names", shared_dir().path());
}

fn home_of_many_names(_: &[String]) -> i32 {
    let names = [
        "/mnt/people/me/part/key",
        "/mnt/whole/part/key",
        "/mnt/all/me/part/key",
        "/mnt/some/key",
        "/srv/people/me/part/key",
        "/opt/people/me/part/key",
        "/opt/whole/part/key",
        "/opt/all/me/part/key",
        "/opt/some/key",
    ];
    for name in names {
        assert_eq!(fs::read_to_string(name).expect("own file"), "secret\n");
    }
    attack(&sandbox(), "read-files", &names).assert_all_refused();
    let others = ["/mnt/people/file", "/mnt/all/file", "/srv/people/file", "/opt/all/file"];
    attack(&sandbox(), "read-files", &others).assert_done(&others);
    0
}

/// A root whose `/home` is a symlink, as that of an image-based distribution.
#[apply(test)]
#[skip(unless_another_root)]
fn homes_that_the_root_links_to_are_hidden() {
    let script = "new=/mnt; mount -t tmpfs -o mode=755 none $new; cd /
        for name in *; do
            if [ -L $name ]; then ln -s \"$(readlink $name)\" $new/$name
            elif [ -d $name ]; then case $name in
                home | root | var | mnt | lost+found) ;;
                *) mkdir $new/$name; mount --rbind /$name $new/$name ;;
            esac; fi
        done
        mkdir -p $new/var/home/me $new/var/tmp $new/var/roothome $new/mnt; chmod 1777 $new/var/tmp
        ln -s var/home $new/home; ln -s var/roothome $new/root
        echo secret > $new/var/home/me/key; echo secret > $new/var/roothome/key
        cd $new; pivot_root . mnt; umount -l /mnt; cd /; export HOME=/home/me";
    in_mount_namespace(script, "linked-homes", shared_dir().path());
}

fn linked_homes(_: &[String]) -> i32 {
    let names = ["/home/me/key", "/var/home/me/key", "/root/key", "/var/roothome/key"];
    for name in names {
        assert_eq!(fs::read_to_string(name).expect("own file"), "secret\n");
    }
    attack(&sandbox(), "read-files", &names).assert_all_refused();
    let bound = Sandbox::new().root(Root::host().bind("/var/home/me", "/var/home/me"));
    assert_eq!(
        stdout(&bound, "ls /var/home; cat /var/home/me/key; ls /var/roothome 2>/dev/null || true"),
        "me\nsecret"
    );
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn a_bind_shows_what_is_below_a_hidden_home() {
    in_mount_namespace(HOME, "bind-in-home", shared_dir().path());
}

fn bind_in_home(_: &[String]) -> i32 {
    let part = Path::new("/mnt/people/me/part");
    let root = with_payload(Root::host().bind(part, part));
    let attempts = attack(&Sandbox::new().root(root), "read-files", &["/mnt/people/me/part/key"]);
    attempts.assert_done(&["/mnt/people/me/part/key"]);
    0
}
