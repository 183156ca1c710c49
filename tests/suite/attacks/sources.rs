//! Sources of binds: a directory that one program has changed is bound, collected from, or written to for the next one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use stockade::collect::Collector;
use stockade::mount::{Bind, HostPath, Operation, Overlay};
use stockade::{Command, Error, Root, Sandbox};
use tempfile::TempDir;

use crate::attacks::common::{Canary, open_directory};
use crate::support::{
    exists, kernel, let_go_of_work, rounds, sh, shared_dir, stdout, unless_idmapped_mounts,
    unless_overlays_and_idmapped_mounts,
};

payloads![];

fn unless_no_symfollow() -> Option<String> {
    let too_old = kernel() < (5, 14);
    unless_overlays_and_idmapped_mounts().or_else(|| too_old.then(|| "it takes nosymfollow of Linux 5.14".into()))
}

/// A workspace in which an earlier program has left symlinks to a directory outside of it.
struct Workspace {
    dir: TempDir,
    path: PathBuf,
    canary: Canary,
}

impl Workspace {
    fn new() -> Self {
        let dir = shared_dir();
        let (path, target) = (dir.path().join("ws"), dir.path().join("canary"));
        open_directory(&path);
        open_directory(&target.join("directory/inner"));
        let canary = Canary::new(target);
        let workspace = Self { dir, path, canary };
        let sandbox = Sandbox::new().root(Root::host().bind_rw(&workspace.path, "/tmp/ws"));
        let target = workspace.canary.path.display();
        let script = format!("cd /tmp/ws; mkdir real; ln -s {target} out; ln -s out chain; ln -s {target} real/link");
        stdout(&sandbox, &script);
        workspace
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn writes(mount: impl Into<Operation>) -> Result<bool, Error> {
    let sandbox = Sandbox::new().root(Root::host().with(mount));
    let output = sandbox.output(Command::new("/bin/sh").args(["-c", "echo hit > /tmp/bound/hit"]))?;
    Ok(output.outcome.success())
}

/// The error names the symlink and says what to do.
#[track_caller]
fn assert_symlink(error: &Error, remedy: &str) {
    assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ELOOP), "{error}");
    assert!(error.hint().is_some_and(|text| text.contains(remedy)), "{error}");
}

/// Attack 41: A program leaves `out -> /etc`, and the next one is to write its results to `out`.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn symlinks_of_an_earlier_run_are_no_writable_sources() {
    let workspace = Workspace::new();
    let bind = |name: &str| Bind::new(workspace.at(name), "/tmp/bound").writable();
    assert!(writes(bind("out").follow_symlinks()).unwrap());
    workspace.canary.assert_hit("hit");
    for name in ["out", "out/", "out/.", "./out", "real/../out", "chain", "real/link", "real/link//"] {
        let error = writes(bind(name)).unwrap_err();
        assert_symlink(&error, "HostPath::follow_symlinks");
        assert!(error.to_string().contains(workspace.path.to_str().unwrap()), "{error}");
        workspace.canary.assert_unchanged(name);
    }
    assert!(writes(bind("real")).unwrap());
    assert!(exists(workspace.at("real/hit")));
    // What is only read is followed: system directories such as /bin are symlinks.
    let sandbox = Sandbox::new().root(Root::host().bind(workspace.at("out"), "/tmp/bound"));
    assert_eq!(stdout(&sandbox, "cat /tmp/bound/file"), "canary");
}

/// Attack 41: The same for the directories that keep the changes of an overlay.
#[apply(test)]
#[skip(unless_overlays_and_idmapped_mounts)]
fn symlinks_of_an_earlier_run_are_no_upper_layers() {
    let workspace = Workspace::new();
    let (lower, work, upper) = (workspace.dir.path().join("lower"), workspace.at("work"), workspace.at("upper"));
    [&lower, &work, &upper].into_iter().for_each(|path| open_directory(path));
    let overlay = |upper: HostPath, work: &Path| Overlay::new("/tmp/bound").lower(&lower).upper(upper, work);
    // On the same file system, so that the kernel takes it.
    let followed = writes(overlay(HostPath::new(workspace.at("out")).follow_symlinks(), &work));
    let_go_of_work(&work);
    assert!(followed.unwrap());
    workspace.canary.assert_hit("hit");
    assert_symlink(&writes(overlay(workspace.at("out").into(), &work)).unwrap_err(), "follow_symlinks");
    assert_symlink(&writes(overlay((&upper).into(), &workspace.at("out"))).unwrap_err(), "follow_symlinks");
    workspace.canary.assert_unchanged("an overlay");
    assert!(writes(overlay((&upper).into(), &work)).unwrap());
    assert!(exists(upper.join("hit")));
    let_go_of_work(&work);
}

/// Attack 41: A component above the last leads elsewhere, and so does a source that is only read.
#[apply(test)]
#[skip(unless_overlays_and_idmapped_mounts)]
fn symlinks_beneath_a_directory_are_never_followed() {
    let workspace = Workspace::new();
    let (work, upper) = (workspace.at("work"), workspace.at("upper"));
    [&work, &upper].into_iter().for_each(|path| open_directory(path));
    assert!(writes(Bind::new(workspace.at("out/directory"), "/tmp/bound").writable()).unwrap());
    fs::remove_file(workspace.canary.path.join("directory/hit")).unwrap();
    workspace.canary.assert_unchanged("the clean-up");
    for name in ["out", "chain", "out/directory", "real/link", "real/link/directory"] {
        let path = || HostPath::beneath(&workspace.path, name);
        let roots = [
            Root::host().bind(path(), "/tmp/bound"),
            Root::host().bind_rw(path(), "/tmp/bound"),
            Root::host().with(Bind::beneath(&workspace.path, name, "/tmp/bound")),
            Root::host().overlay(path(), "/tmp/bound"),
            Root::host().with(Overlay::new("/tmp/bound").lower(&upper).upper(path(), &work)),
            Root::host().with(Overlay::new("/tmp/bound").lower(&upper).upper(&work, path())),
            Root::from_dir(path()),
            Root::from_dir(path()).tmpfs("/tmp", 1 << 20),
        ];
        for root in roots {
            let error = Sandbox::new().root(root.clone()).status(Command::new("true")).unwrap_err();
            assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ELOOP), "{root:?}: {error}");
        }
    }
    workspace.canary.assert_unchanged("sources beneath a directory");
    let real = || HostPath::beneath(&workspace.path, "real");
    assert!(writes(Bind::new(real(), "/tmp/bound").writable()).unwrap());
    assert!(exists(workspace.at("real/hit")));
    let changes = |name: &str| HostPath::beneath(&workspace.path, name);
    assert!(writes(Overlay::new("/tmp/bound").lower(real()).upper(changes("upper"), changes("work"))).unwrap());
    assert!(exists(workspace.at("upper/hit")));
    let_go_of_work(&work);
}

#[apply(test)]
fn paths_beneath_a_directory_stay_beneath_it() {
    let dir = shared_dir();
    let below = dir.path().join("below");
    fs::create_dir_all(below.join("real")).unwrap();
    let refused = |path: HostPath| {
        let error = Sandbox::new().root(Root::host().bind(path, "/tmp/bound")).status(Command::new("true"));
        error.unwrap_err()
    };
    for path in ["..", "real/../..", "real/..", "/etc", "../below"] {
        let error = refused(HostPath::beneath(&below, path));
        assert!(error.hint().is_some_and(|remedy| remedy.contains("has no `..`")), "{path}: {error}");
    }
    let error = refused(HostPath::beneath(&below, "real").follow_symlinks());
    assert!(error.hint().is_some_and(|remedy| remedy.contains("remove HostPath::follow_symlinks")), "{error}");
    let error = refused(HostPath::beneath(&below, "missing"));
    assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ENOENT), "{error}");
    // The trusted directory's own path may have symlinks in it, and may be itself what is meant.
    symlink(&below, dir.path().join("name")).unwrap();
    for path in ["real", "./real", "real/", "", "."] {
        let root = Root::host().bind(HostPath::beneath(dir.path().join("name"), path), "/tmp/bound");
        assert!(sh(&Sandbox::new().root(root), "ls /tmp/bound").outcome.success(), "{path:?}");
    }
}

/// Exchanges a directory with a symlink, as a program that still runs does, while `with` is called.
fn while_swapped(workspace: &Workspace, mut with: impl FnMut()) {
    let (one, other) = (workspace.at("swapped"), workspace.at("relative"));
    open_directory(&one);
    // In the same mount as what is bound around it.
    symlink("../canary", &other).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if an assertion fails.
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..rounds(150) {
            with();
        }
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attack 41: A program that still runs swaps the source.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn sources_that_are_swapped_meanwhile_lead_to_nothing_outside() {
    let workspace = Workspace::new();
    let (mut bound, mut refused) = (0, 0);
    while_swapped(&workspace, || {
        for source in [HostPath::new(workspace.at("swapped")), HostPath::beneath(&workspace.path, "swapped")] {
            match writes(Bind::new(source, "/tmp/bound").writable()) {
                Ok(_) => bound += 1,
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::ELOOP), "{error}");
                }
            }
            workspace.canary.assert_unchanged("a swapped source");
        }
    });
    println!("{bound} were bound, {refused} refused");
}

#[apply(test)]
#[skip(unless_no_symfollow)]
fn upper_layers_that_are_swapped_meanwhile_lead_to_nothing_outside() {
    let workspace = Workspace::new();
    // Upper and work are in different directories: what lies between is in the same mount.
    let (work, lower) = (workspace.dir.path().join("work"), workspace.at("lower"));
    [&work, &lower].into_iter().for_each(|path| open_directory(path));
    let (mut bound, mut refused) = (0, 0);
    while_swapped(&workspace, || {
        let upper = HostPath::beneath(&workspace.path, "swapped");
        match writes(Overlay::new("/tmp/bound").lower(&lower).upper(upper, &work)) {
            Ok(_) => bound += 1,
            Err(_) => refused += 1,
        }
        workspace.canary.assert_unchanged("a swapped upper layer");
    });
    let_go_of_work(&work);
    println!("{bound} were made, {refused} refused");
}

/// Attack 70: What is collected from, or to, has become a symlink.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn symlinks_of_an_earlier_run_are_not_collected_from_or_to() {
    let workspace = Workspace::new();
    let to = workspace.dir.path().join("copy");
    let collector = Collector::new();
    let followed = collector.copy(HostPath::new(workspace.at("out")).follow_symlinks(), &to).unwrap();
    assert_eq!(followed.files, 1, "the attack must work here");
    fs::remove_dir_all(&to).unwrap();
    for name in ["out", "out/", "out/.", "chain", "real/link/"] {
        assert_symlink(&collector.copy(workspace.at(name), &to).unwrap_err(), "follow_symlinks");
        assert_symlink(&collector.read(workspace.at(name), "file").unwrap_err(), "follow_symlinks");
        assert!(!exists(&to));
    }
    for name in ["out", "out/directory", "real/link"] {
        let from = || HostPath::beneath(&workspace.path, name);
        assert_symlink(&collector.copy(from(), &to).unwrap_err(), "beneath");
        assert_symlink(&collector.read(from(), "file").unwrap_err(), "beneath");
    }
    // Where the copy goes.
    fs::write(workspace.at("real/file"), "result\n").unwrap();
    let from = || HostPath::beneath(&workspace.path, "real");
    symlink(workspace.canary.path.join("copied"), workspace.at("dangling")).unwrap();
    for name in ["out", "out/", "dangling", "dangling/"] {
        let error = collector.copy(from(), workspace.at(name)).unwrap_err();
        assert_eq!(error.errno().map(|errno| errno.number()), Some(libc::EEXIST), "{name}: {error}");
    }
    let error = collector.copy(from(), HostPath::beneath(&workspace.path, "out/copied")).unwrap_err();
    assert_symlink(&error, "beneath");
    workspace.canary.assert_unchanged("a copy");
    let _ = collector.copy(from(), HostPath::beneath(workspace.dir.path(), "copied")).unwrap();
    assert_eq!(fs::read_to_string(workspace.dir.path().join("copied/file")).unwrap(), "result\n");
}
