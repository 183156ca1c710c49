//! Overlays: changes of the program on top of directories of the host, which do not change.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use stockade::mount::Overlay;
use stockade::{Identity, Namespaces, Root, Sandbox};
use tempfile::TempDir;

use crate::root::{dir_with, is_old_kernel, names, set_up, snapshot, with, with_mount};
use crate::support::{fails, in_mount_namespace, invalid, is_root, shared_dir, stdout, unless_mounts, unless_overlays};

payloads![("layer-with-mounts", layer_with_mounts)];

fn unless_overlays_and_mounts() -> Option<String> {
    unless_overlays().or_else(unless_mounts)
}

const CHANGE: &str = "cd /o && cat file && echo changed > file && echo new > new && rm gone && rm -r dir && mkdir dir
    mv sub/file sub/moved; cat file new; ls . dir sub";

/// A directory to change.
fn lower() -> TempDir {
    dir_with(&[("file", "old\n"), ("gone", ""), ("dir/inner", ""), ("sub/file", "moved\n")])
}

/// Directories that keep the changes of an overlay.
struct Layers {
    _own: TempDir,
    upper: PathBuf,
    work: PathBuf,
}

impl Layers {
    fn new() -> Self {
        Self::in_dirs("upper", "work")
    }

    fn in_dirs(upper: &str, work: &str) -> Self {
        let own = shared_dir();
        let (upper, work) = (own.path().join(upper), own.path().join(work));
        fs::create_dir_all(&upper).expect("directory");
        fs::create_dir_all(&work).expect("directory");
        Self { _own: own, upper, work }
    }

    fn over(&self, lower: &Path) -> Sandbox {
        with_mount(Overlay::new("/o").lower(lower).upper(&self.upper, &self.work))
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        crate::support::let_go_of_work(&self.work);
    }
}

const CHANGED: &str = "old\nchanged\nnew\n.:\ndir\nfile\nnew\nsub\n\ndir:\n\nsub:\nmoved";

/// Root has overlays without a user namespace.
fn unless_overlays_and_pivot_root() -> Option<String> {
    unless_overlays().or_else(crate::support::unless_root_can_pivot)
}

#[apply(test)]
#[skip(unless_overlays_and_pivot_root)]
fn changes_are_visible_only_inside() {
    let lower = lower();
    let before = snapshot(lower.path());
    let sandbox = with(Root::host().overlay(lower.path(), "/o"));
    let mut sandboxes = vec![sandbox.clone(), sandbox.clone().identity(Identity::caller())];
    if is_root() {
        sandboxes.push(sandbox.namespaces(Namespaces::all() - Namespaces::USER));
    }
    for sandbox in sandboxes {
        assert_eq!(stdout(&sandbox, CHANGE), CHANGED);
        assert_eq!(snapshot(lower.path()), before);
        assert_eq!(stdout(&sandbox, CHANGE), CHANGED, "a second sandbox begins anew");
    }
}

#[apply(test)]
#[skip(unless_overlays)]
fn changes_in_memory_have_a_limit() {
    let lower = lower();
    let sandbox = with_mount(Overlay::new("/o").lower(lower.path()).upper_tmpfs(1 << 20));
    stdout(&sandbox, "head -c 500000 /dev/zero > /o/new");
    let said = fails(&sandbox, "head -c 1100000 /dev/zero > /o/new");
    assert!(said.contains("No space left on device"), "{said}");
}

#[apply(test)]
#[skip(unless_overlays)]
fn an_upper_directory_keeps_the_changes() {
    let (lower, layers) = (lower(), Layers::new());
    let before = snapshot(lower.path());
    assert_eq!(stdout(&layers.over(lower.path()), CHANGE), CHANGED);
    assert_eq!(snapshot(lower.path()), before);
    assert_eq!(fs::read_to_string(layers.upper.join("file")).unwrap(), "changed\n");
    assert_eq!(fs::read_to_string(layers.upper.join("sub/moved")).unwrap(), "moved\n");
}

#[apply(test)]
#[skip(unless_overlays)]
fn changes_that_are_kept_belong_to_the_caller() {
    let (lower, layers) = (lower(), Layers::new());
    let sandbox = layers.over(lower.path());
    stdout(&sandbox, "echo new > /o/new; mkdir /o/made; echo changed > /o/file");
    for name in ["new", "made", "file"] {
        let metadata = fs::symlink_metadata(layers.upper.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (geteuid().as_raw(), getegid().as_raw()), "{name}");
    }
}

#[apply(test)]
#[skip(unless_overlays)]
fn a_kept_upper_directory_is_visible_in_the_next_run() {
    let (lower, layers) = (lower(), Layers::new());
    let sandbox = layers.over(lower.path());
    stdout(&sandbox, CHANGE);
    assert_eq!(stdout(&sandbox, "cd /o; cat file new; ls . dir sub; echo again > file"), &CHANGED[4..]);
    assert_eq!(fs::read_to_string(layers.upper.join("file")).unwrap(), "again\n");
}

#[apply(test)]
#[skip(unless_overlays)]
fn earlier_lowers_lie_above_later_ones() {
    let top = dir_with(&[("all", "top"), ("top", "top")]);
    let middle = dir_with(&[("all", "middle"), ("two", "middle"), ("middle", "middle")]);
    let bottom = dir_with(&[("all", "bottom"), ("two", "bottom"), ("bottom", "bottom")]);
    let overlay = Overlay::new("/o").lower(top.path()).lower(middle.path()).lower(bottom.path());
    let sandbox = with_mount(overlay);
    assert_eq!(stdout(&sandbox, "ls /o"), "all\nbottom\nmiddle\ntop\ntwo");
    assert_eq!(stdout(&sandbox, "cd /o; for file in *; do cat $file; echo; done"), "top\nbottom\nmiddle\ntop\nmiddle");
}

#[apply(test)]
#[skip(unless_overlays)]
fn layers_may_have_strange_names() {
    let strange = ["a:b", "a,b", "back\\slash", "a\nline", "two words", "b\\:c", "\\", "lowerdir=x"];
    let lowers = shared_dir();
    for name in strange {
        let lower = lowers.path().join(name);
        fs::create_dir(&lower).unwrap();
        fs::write(lower.join("file"), name).unwrap();
        let layers = Layers::in_dirs(&format!("upper/{name}"), &format!("work/{name}"));
        assert_eq!(stdout(&layers.over(&lower), "cat /o/file; echo new > /o/new"), name, "{name:?}");
        assert_eq!(names(&layers.upper), ["new"], "{name:?}");
    }
    let all = strange.iter().fold(Overlay::new("/o"), |all, name| all.lower(lowers.path().join(name)));
    assert_eq!(stdout(&with_mount(all), "ls /o"), "file");
}

#[apply(test)]
#[skip(unless_overlays)]
fn mount_points_are_created_in_memory() {
    let (lower, file) = (lower(), dir_with(&[("file", "bound")]));
    let before = snapshot(lower.path());
    let root = Root::host()
        .overlay(lower.path(), "/o")
        .bind(file.path(), "/o/a/new/place")
        .bind(file.path().join("file"), "/o/sub/b")
        .tmpfs("/o/sub/c", 1 << 20)
        .file("/o/d", "text")
        .symlink("d", "/o/link");
    assert_eq!(stdout(&with(root), "cd /o; cat a/new/place/file sub/b d link; ls sub"), "boundboundtexttextb\nc\nfile");
    assert_eq!(snapshot(lower.path()), before);
}

#[apply(test)]
#[skip(unless_overlays)]
fn an_overlay_needs_lowers_that_are_directories() {
    let lower = lower();
    let (what, _) = invalid(&with_mount(Overlay::new("/o")));
    assert_eq!(what, "the overlay at /o has no lower layer");
    let file = lower.path().join("file");
    let (what, _) = invalid(&with_mount(Overlay::new("/o").lower(&file)));
    assert_eq!(what, format!("the overlay layer {} is not a directory", file.display()));
    let missing = lower.path().join("missing");
    let failed = set_up(&with_mount(Overlay::new("/o").lower(lower.path()).upper(&missing, &missing)));
    assert_eq!((failed.errno, failed.path), (libc::ENOENT, Some(missing)));
}

#[apply(test)]
#[skip(unless_overlays)]
fn two_overlays_do_not_mix() {
    let (one, other) = (dir_with(&[("file", "one")]), dir_with(&[("file", "other")]));
    let root = Root::host().overlay(one.path(), "/one").tmpfs("/t", 1 << 20).overlay(other.path(), "/other");
    assert_eq!(stdout(&with(root), "cat /one/file; echo new > /one/new; cat /other/file; ls /other"), "oneotherfile");
}

#[apply(test)]
#[skip(unless_overlays_and_mounts)]
fn mounts_in_a_layer_are_invisible() {
    let script = "mkdir \"$dir/sub\"; mount -t tmpfs none \"$dir/sub\"; echo seen > \"$dir/sub/file\"";
    in_mount_namespace(script, "layer-with-mounts", shared_dir().path());
}

fn layer_with_mounts(args: &[String]) -> i32 {
    assert_eq!(names(format!("{}/sub", args[0])), ["file"]);
    let sandbox = with(Root::host().overlay(&args[0], "/o"));
    if is_root() {
        assert_eq!(stdout(&sandbox, "ls -A /o/sub; echo x > /o/sub/new; ls /o/sub"), "new");
        assert_eq!(names(format!("{}/sub", args[0])), ["file"]);
    } else {
        // What lies below a mount of the host's is nothing that a user may uncover.
        let failed = set_up(&sandbox);
        assert_eq!(failed.errno, libc::EINVAL);
        assert!(failed.remedy.contains("mounts in it that this user may not separate"), "{}", failed.remedy);
    }
    0
}

#[apply(test)]
#[skip(unless_overlays)]
fn private_files_of_a_layer_are_its_owners() {
    let lower = dir_with(&[("private", "secret\n"), ("public", "all\n")]);
    fs::set_permissions(lower.path().join("private"), fs::Permissions::from_mode(0o600)).expect("permissions");
    let overlay = || Overlay::new("/o").lower(lower.path());
    // Without idmapped mounts no owner is another.
    if !is_old_kernel() {
        assert_eq!(stdout(&with_mount(overlay()), "cat /o/private; echo x > /o/new"), "secret");
    }
    if is_root() && !is_old_kernel() {
        assert_eq!(stdout(&with_mount(overlay().unmapped()), "cat /o/public"), "all");
        for sandbox in [with_mount(overlay().unmapped()), with_mount(overlay().owner(12345, 12345))] {
            fails(&sandbox, "cat /o/private");
            fails(&sandbox, "echo x > /o/public");
        }
        let layers = Layers::new();
        let kept = overlay().unmapped().upper(&layers.upper, &layers.work);
        fails(&with_mount(kept), "cat /o/private");
        nix::unistd::chown(&lower.path().join("private"), Some(12345.into()), None).expect("owner");
        assert_eq!(stdout(&with_mount(overlay().owner(12345, 0)), "cat /o/private"), "secret");
    }
}
