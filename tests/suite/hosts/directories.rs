//! Hosts with unusual locations of directories: temporary ones, homes, and those of programs.

use std::path::Path;

use stockade::{Root, Sandbox};

use super::simulated::{SimulatedHost, WORK};
use crate::support::stdout;

payloads![("hidden_home", hidden_home)];

/// The simulation itself changes nothing.
#[apply(test)]
fn a_usual_host_works() {
    SimulatedHost::after(":").assert_works();
    SimulatedHost::with_root(&[], ":").assert_works();
}

/// Finding H3.
#[apply(test)]
fn temporary_directories_may_be_missing_or_links() {
    let without = |script: &str| SimulatedHost::after(&format!("mount -t tmpfs tmpfs /var; {script}"));
    without(":").assert_works();
    for target in ["nowhere", "/tmp", "/run/tmp", "../tmp", "tmp", "/etc/passwd"] {
        without(&format!("ln -s {target} /var/tmp")).assert_works();
    }
    for target in ["nowhere", "var/tmp", "run", "/home", "tmp"] {
        SimulatedHost::with_root(&["tmp"], &format!("ln -s {target} tmp")).assert_works();
    }
}

/// Finding H2: what the user database or HOME says is not hidden if programs need it.
#[apply(test)]
fn a_system_directory_is_never_taken_for_a_home() {
    for home in ["/", "/usr", "/etc", "/tmp", "/bin", "/usr/sbin", "/var", "/nonexistent"] {
        SimulatedHost::after(":").env("HOME", home).assert_works();
    }
}

/// Finding H2: homes of services and of containers, links to homes, and homes with two places.
#[apply(test)]
fn homes_may_be_anywhere() {
    SimulatedHost::after("mount -t tmpfs tmpfs /var/lib; mkdir -m 777 /var/lib/x")
        .env("HOME", "/var/lib/x")
        .assert_works();
    SimulatedHost::with_root(&[], "mkdir app").env("HOME", "/app").assert_works();
    SimulatedHost::with_root(&["home"], "ln -s var/home home; mount -t tmpfs tmpfs var; mkdir -p var/home/u")
        .env("HOME", "/home/u")
        .assert_works();
}

/// In a host with a file called `secret-of-home` in HOME: no path leads to it, and a writable bind can be below HOME.
fn hidden_home(_: &[String]) -> i32 {
    let home = std::env::var("HOME").expect("HOME");
    assert!(Path::new(&home).join("secret-of-home").exists(), "the test proves nothing");
    let find = "find / -maxdepth 5 -name secret-of-home -not -path '/proc/*' 2>/dev/null || :";
    assert_eq!(stdout(&Sandbox::new(), find), "");
    let work = Path::new(&home).join("below/work");
    let root = Root::host().bind_rw(WORK, &work);
    let write = format!("echo below >{}/below && {find}", work.display());
    assert_eq!(stdout(&Sandbox::new().root(root), &write), "");
    assert_eq!(std::fs::read_to_string(Path::new(WORK).join("below")).expect("a file"), "below\n");
    0
}

/// Findings H2 and S12: all paths to a home are hidden, and a directory below it can be bound.
#[apply(test)]
fn a_home_is_hidden_wherever_it_is() {
    // What HOME is, and where the directory is.
    let homes = [
        ("/home/u", "home/u", ":"),
        ("/home/u", "disk/users/u", "mkdir -p home/u; mount --bind disk/users/u home/u"),
        ("/home/u", "disk/u", "mkdir home; mount --bind disk home"),
        ("/home/u", "var/home/u", "ln -s var/home home"),
        ("/home/u", "data/home/u", "ln -s home/u data/link; mkdir home; ln -s ../data/link home/u"),
        ("/home/u", "data/home/u", "ln -s /data/home home"),
        ("/root", "var/roothome", "ln -s var/roothome root"),
        ("/var/lib/x", "var/lib/x", ":"),
        ("/app", "app", ":"),
        ("/data/app/home", "data/app/home", "mkdir other; mount --rbind data other"),
        ("/tmp/home", "tmp/home", ":"),
    ];
    for (home, place, script) in homes {
        let host = || {
            let script = format!("mkdir -p var/tmp {place}; {script}; : >{place}/secret-of-home");
            SimulatedHost::with_root(&["home", "root", "var", "tmp"], &script).env("HOME", home)
        };
        host().output("hidden_home");
        host().assert_works();
    }
}

/// The directories of Debian before and after the merge of `/usr`, those of other systems, and what may be missing.
#[apply(test)]
fn directories_of_the_system_may_be_links() {
    const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    let each = |command: &str| {
        format!("for dir in bin sbin lib lib32 lib64 libx32; do [ ! -d /usr/$dir ] || {{ {command}; }}; done")
    };
    let hosts: [(&[&str], String); 12] = [
        (&MERGED, each("mkdir $dir; mount --bind /usr/$dir $dir")),
        (&MERGED, each("ln -s /usr/$dir $dir")),
        (&MERGED, each("ln -s ../usr/$dir $dir")),
        (&MERGED, format!("mkdir system; ln -s /usr system/current; {}", each("ln -s system/current/$dir $dir"))),
        (&["usr"], "mkdir -p system/usr; mount --rbind /usr system/usr; ln -s system/usr usr".into()),
        (&["etc"], "mkdir -p system/etc; mount --rbind /etc system/etc; ln -s system/etc etc".into()),
        (&["var"], "mkdir -p data/var; mount --rbind /var data/var; ln -s /data/var var".into()),
        (&["opt"], "mkdir other; ln -s other opt".into()),
        (&["opt"], "ln -s /run/opt opt; ln -s opt opt2; ln -s loop loop; ln -s /proc/self/root own".into()),
        // The layout of OSTree.
        (
            &["home", "root", "opt", "srv", "media", "tmp", "var"],
            "mkdir -p var/home/u var/roothome var/opt var/srv var/tmp sysroot/tmp sysroot/ostree; ln -s var/home home
            for dir in opt srv; do ln -s var/$dir $dir; done; ln -s run/media media; ln -s sysroot/tmp tmp
            ln -s var/roothome root; ln -s sysroot/ostree ostree"
                .into(),
        ),
        (&["home", "root", "opt", "srv", "media", "boot", "lost+found", "run", "var"], ":".into()),
        (&["etc"], ":".into()),
    ];
    for (without, script) in hosts {
        SimulatedHost::with_root(without, &script).assert_works();
    }
}

/// Names that are quoted in the table of mounts, and one that is not text.
#[apply(test)]
fn mount_points_may_have_any_name() {
    let script = "mkdir odd; cd odd; mkdir 'a b' 'c\\d' \"$(printf 'e\\nf')\" \"$(printf 'g\\377')\" '#h' 'i:j,k'
        for name in *; do mkdir \"$name/mount\"; mount -t tmpfs tmpfs \"$name\"; done; cd ..";
    SimulatedHost::with_root(&[], script).assert_works();
}
