//! The tmpfs mounts of the crate itself: each has a size limit of its own, besides the memory of the machine.

use std::fs::File;
use std::io::Write;

use stockade::mount::{Overlay, Tmpfs};
use stockade::{Command, Root, Sandbox, profile};

use crate::attacks::common::{attack, attempt, sandbox};
use crate::support::{stdout, unless_overlays};

payloads![("fill_run", fill_run)];

const MIB: usize = 1 << 20;

/// Fills `/run`, where nobody has asked for a place for files.
fn fill_run(_: &[String]) -> i32 {
    let mut file = File::create("/run/file").expect("a file");
    let block = vec![1; MIB];
    attempt("17 MiB", (0..17).try_for_each(|_| file.write_all(&block)));
    let empty = |number: usize| File::create(format!("/run/{number}")).map(drop);
    attempt("5,000 files", (0..5000).try_for_each(empty));
    0
}

/// Attack 55: what has no size takes half of the machine's memory.
#[apply(test)]
fn memory_is_not_taken_by_files_in_run() {
    let profiles =
        [profile::build_step(), profile::test()].map(|profile| profile.map_root(crate::support::with_payload));
    for sandbox in [sandbox()].into_iter().chain(profiles) {
        attack(&sandbox, "fill_run", &[]).assert_all_refused();
        // What takes its place has its own size.
        let larger = sandbox.map_root(|root| root.with(Tmpfs::new("/run").size(64 << 20)));
        attack(&larger, "fill_run", &[]).assert_done(&["17 MiB", "5,000 files"]);
    }
}

/// The options of every tmpfs in the sandbox that the crate has mounted.
fn own_file_systems(sandbox: &Sandbox) -> Vec<String> {
    let table = stdout(sandbox, "cat /proc/self/mountinfo");
    let own = table.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - tmpfs none ")?;
        Some(format!("{} {kind}", place.split(' ').nth(4)?))
    });
    own.collect()
}

#[apply(test)]
fn no_file_system_in_memory_is_without_a_size() {
    let roots = [
        Root::host(),
        Root::host().writable(),
        Root::host().with(Tmpfs::new("/more")),
        Root::host().terminals(1).mask("/etc/passwd").file("/etc/hostname", "name"),
        Root::from_dir("/").proc("/proc").dev("/dev"),
    ];
    let own = roots.map(|root| Sandbox::new().root(root));
    let profiles = [profile::build_step(), profile::test(), profile::agent()];
    for sandbox in own.into_iter().chain(profiles) {
        let file_systems = own_file_systems(&sandbox);
        assert!(file_systems.len() >= 3, "{file_systems:?}");
        for shown in &file_systems {
            assert!(shown.contains("size=") && shown.contains("nr_inodes="), "{shown}");
        }
        let at_tmp = file_systems.iter().filter(|shown| shown.starts_with("/tmp ")).count();
        assert!(at_tmp <= 1, "a profile's own replaces the default one: {file_systems:?}");
    }
}

#[apply(test)]
#[skip(unless_overlays)]
fn changes_of_an_overlay_have_a_size() {
    let overlay = Overlay::new("/changed").lower("/etc");
    let size = |overlay: Overlay| {
        let sandbox = Sandbox::new().root(Root::host().with(overlay));
        let output = sandbox.output(Command::new("stat").args(["-f", "-c", "%b %S", "/changed"])).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product::<u64>()
    };
    assert_eq!(size(overlay.clone()), 512 << 20);
    assert_eq!(size(overlay.upper_tmpfs(1 << 20)), 1 << 20);
}
