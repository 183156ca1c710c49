//! Landlock in place of a root, in a container that denies mounts and namespaces: the program still sees no more than
//! the root would have shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use stockade::{Command, ErrorKind, Landlock, Layer, Root, Sandbox, profile};

use crate::support::filter::filter_calls;
use crate::support::{on_host, shared_dir, text, unless_landlock_since};

payloads![("fall_back", fall_back), ("fall_back_and_hide", fall_back_and_hide)];

fn unless_truncation_is_restricted() -> Option<String> {
    unless_landlock_since((6, 2))
}

/// From here on this process may neither mount nor create namespaces.
fn deny_mounts() {
    let denied = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
    ];
    filter_calls(libc::EPERM, denied);
}

/// What a shell script in the sandbox can do: the numbers that it prints.
fn done(sandbox: &Sandbox, script: &str) -> Vec<u32> {
    let output = sandbox.output(Command::new("sh").args(["-c", script])).unwrap();
    text(&output.stdout).split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn in_workspace(sandbox: Sandbox, workspace: &Path) -> Sandbox {
    sandbox.map_root(|root| root.bind_rw(workspace, workspace)).best_effort([Layer::Namespaces]).landlock_fallback()
}

/// In a directory of the host: a workspace, and a secret beside it.
fn fall_back(args: &[String]) -> i32 {
    let (workspace, secret) = (PathBuf::from(&args[0]).join("workspace"), PathBuf::from(&args[0]).join("secret"));
    let (at, beside) = (workspace.display(), secret.display());
    let script = format!(
        "echo written >{at}/file && echo 1; mkdir {at}/dir && echo 2; read _ <{at}/file && echo 3
        read _ <{beside} && echo 10; ls {} && echo 11; echo changed >{beside} && echo 12
        echo >{}/open/file && echo 13; read _ </proc/1/environ && echo 14
        ls / && echo 15; echo >>/etc/hosts && echo 16",
        args[0], args[0]
    );
    deny_mounts();
    let open = Sandbox::new().best_effort([Layer::Namespaces, Layer::Root]);
    let mut seen = done(&open, &script);
    // The secret may belong to the user.
    seen.retain(|&number| number != 12);
    assert_eq!(seen, [1, 2, 3, 10, 11, 13, 15], "without a root all of it works, or the test proves nothing");
    fs::remove_dir(workspace.join("dir")).unwrap();
    fs::remove_file(workspace.join("file")).unwrap();
    for sandbox in
        [profile::agent(), profile::build_step(), Sandbox::new()].map(|sandbox| in_workspace(sandbox, &workspace))
    {
        let best_effort = sandbox.clone().best_effort([Layer::Root]);
        assert_eq!(done(&best_effort, &script), [1, 2, 3]);
        fs::remove_dir(workspace.join("dir")).unwrap();
        let outcome = sandbox.status(Command::new("true")).unwrap();
        let enforcement = outcome.enforcement;
        assert!(enforcement.is_active(Layer::Landlock) && !enforcement.is_active(Layer::Root), "{enforcement:?}");
        assert!(enforcement.unenforced.iter().any(|missing| missing.layer == Layer::Root), "{enforcement:?}");
        // A requested policy stays in force.
        let stricter = sandbox.landlock(Landlock::new().read_only("/").any_tcp().any_signal().any_abstract_socket());
        assert_eq!(done(&stricter, &script), [3]);
        fs::remove_file(workspace.join("file")).unwrap();
    }
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn the_program_sees_no_more_than_its_workspace() {
    let place = shared_dir();
    for name in ["workspace", "open"] {
        let directory = place.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(place.path().join("secret"), "secret\n").unwrap();
    on_host(&[], "fall_back", &[place.path().to_str().unwrap()]);
}

/// A directory that is masked in a tree that is shown.
fn fall_back_and_hide(args: &[String]) -> i32 {
    let tree = PathBuf::from(&args[0]);
    let root = Root::empty().bind("/usr", "/usr").bind(&tree, &tree).mask(tree.join("a/hidden")).mask("/usr/src");
    let root = root.bind_rw(tree.join("w"), tree.join("w")).bind_rw(tree.join("w/r"), tree.join("w/r"));
    let root = root.read_only(tree.join("w")).file(tree.join("covered"), "other contents");
    let root = ["/bin", "/lib", "/lib64"].into_iter().fold(root, |root, path| root.symlink(format!("usr{path}"), path));
    let sandbox = Sandbox::new().root(root).best_effort([Layer::Namespaces]).landlock_fallback();
    let at = tree.display();
    let script = format!(
        "read _ <{at}/a/shown && echo 1; read _ <{at}/b && echo 2
        read _ <{at}/a/hidden/file && echo 10; read _ <{at}/a/link/file && echo 11; ls /usr/src && echo 12
        echo >{at}/w/new && echo 13; echo >{at}/w/r/new && echo 14; read _ <{at}/covered && echo 15"
    );
    deny_mounts();
    assert_eq!(done(&sandbox, &script), [1, 2]);
    0
}

#[apply(test)]
#[skip(unless_truncation_is_restricted)]
fn what_is_masked_is_hidden() {
    let place = shared_dir();
    let at = |path: &str| place.path().join(path);
    fs::create_dir_all(at("a/hidden")).unwrap();
    symlink(at("a/hidden"), at("a/link")).unwrap();
    fs::create_dir_all(at("w/r")).unwrap();
    for path in ["w", "w/r"] {
        fs::set_permissions(at(path), Permissions::from_mode(0o777)).unwrap();
    }
    for path in ["a/shown", "a/hidden/file", "b", "covered"] {
        fs::write(at(path), "contents\n").unwrap();
    }
    on_host(&[], "fall_back_and_hide", &[place.path().to_str().unwrap()]);
}

/// What no rule can express is an error on every host, not only where it is needed.
#[apply(test)]
fn what_rules_cannot_express_is_an_error() {
    let place = shared_dir();
    fs::create_dir(place.path().join("inside")).unwrap();
    fs::write(place.path().join("file"), "of the host").unwrap();
    let (inside, beside) = (place.path().join("inside"), shared_dir());
    symlink(&inside, place.path().join("link")).unwrap();
    symlink(&inside, beside.path().join("link")).unwrap();
    let workspace = || Root::host().bind_rw(place.path(), place.path());
    let roots = [
        workspace().protect(&inside),
        workspace().read_only(&inside),
        workspace().mask(&inside),
        workspace().bind(&inside, &inside),
        workspace().protect(place.path().join("link")),
        workspace().protect(beside.path().join("link/new")),
        workspace().file(place.path().join("file"), "covers that of the host"),
        Root::host().git_workspace(place.path(), place.path()),
        Root::from_dir(place.path()),
    ];
    for root in roots {
        let error = Sandbox::new().root(root).landlock_fallback().status(Command::new("true")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.to_string().contains("Landlock cannot "), "{error}");
    }
}
