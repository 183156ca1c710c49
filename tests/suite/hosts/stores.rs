//! Hosts whose programs are in a store, to which links lead: NixOS and Guix System.

use stockade::{Command, Root, Sandbox};

use super::simulated::SimulatedHost;
use crate::support::refused;

payloads![("dangling_link", dangling_link)];

/// A host with a store, in which all programs of the machine are, and the directory of the system's programs. `/bin`
/// has `sh` alone, and `/usr` no more than `env`.
fn with_store(store: &str, programs: &str) -> SimulatedHost {
    let system = format!("/{store}/1-system");
    SimulatedHost::with_root(
        &["bin", "sbin", "usr", "run"],
        &format!(
            "mkdir -p {store}/0-usr .{system} bin usr/bin run; mount --rbind /usr {store}/0-usr
            mkdir -p .{system}/$(dirname {programs}); ln -s /{store}/0-usr/bin .{system}/{programs}
            ln -s {system} run/current-system
            ln -s /{store}/0-usr/bin/sh bin/sh; ln -s /{store}/0-usr/bin/env usr/bin/env
            for dir in lib lib32 lib64; do [ ! -L /$dir ] || {{ rm -f $dir; ln -s {store}/0-usr/$dir $dir; }}; done
            ln -s ../{store}/0-usr/lib usr/lib; PATH=$PATH:/run/current-system/{programs}"
        ),
    )
}

/// Finding H13.
#[apply(test)]
fn profiles_find_the_programs_of_a_store() {
    with_store("nix/store", "sw/bin").assert_works();
    with_store("gnu/store", "profile/bin").assert_works();
}

fn dangling_link(_: &[String]) -> i32 {
    let root = Root::empty().bind("/bin", "/bin").proc("/proc").dev("/dev");
    let error = Sandbox::new().root(root).status(Command::new("/bin/sh")).expect_err("nothing runs");
    println!("{error}");
    0
}

/// Finding H13: the target of a link is named, not the link, which is there.
#[apply(test)]
fn the_missing_target_of_a_link_is_named() {
    let said = with_store("nix/store", "sw/bin").output("dangling_link");
    assert!(said.contains("/bin/sh leads to /nix/store/0-usr/bin/"), "{said}");
    let binds = r#".bind("/bin", "/bin"), .bind("/nix/store", "/nix/store")"#;
    assert!(said.contains(&format!("which is not visible inside: add what is missing of {binds}")), "{said}");
    let elsewhere = Sandbox::new().root(Root::empty().bind("/usr/lib", "/usr/lib"));
    assert!(refused(&elsewhere).to_string().contains("not found inside the sandbox"), "nothing is there");
}
