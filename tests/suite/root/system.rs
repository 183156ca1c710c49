//! The programs and libraries of the host, and nothing else of it.

use std::fs;

use stockade::{Root, Sandbox};

use crate::root::{names, sandbox, unless_read_only};
use crate::support::{exists, fails, is_root, stdout};

/// The paths that a root may show, apart from those of programs.
const SHOWN: [&str; 10] = ["bin", "etc", "gnu", "lib", "lib32", "lib64", "nix", "run", "sbin", "usr"];

fn system() -> Sandbox {
    sandbox().root(Root::system())
}

#[apply(test)]
fn programs_run_and_no_other_file_of_the_host_is_visible() {
    let secret = crate::support::shared_dir();
    let path = secret.path().join("secret").display().to_string();
    fs::write(&path, "42").expect("a file");
    let look = format!("cat {path} /etc/passwd; ls /home /root /var /tmp /proc /dev /srv /usr/src/*");
    assert!(stdout(&sandbox(), "cat /etc/passwd").contains("root:"), "without it");
    let shown = stdout(&system(), "ls /");
    assert!(shown.lines().all(|name| SHOWN.contains(&name)), "{shown}");
    let settings = stdout(&system(), "ls /etc 2>/dev/null; true");
    let is_needed = |name: &str| ["alternatives", "ld.so.cache"].contains(&name) || name.starts_with("java");
    assert!(settings.lines().all(is_needed), "{settings}");
    let failed = fails(&system(), &format!("{look}; true && exit 1"));
    assert_eq!(
        failed.lines().filter(|line| line.contains("No such file") || line.contains("denied")).count(),
        10,
        "{failed}"
    );
}

#[apply(test)]
fn the_top_level_is_as_on_the_host() {
    for path in ["/bin", "/sbin", "/lib", "/lib64"].into_iter().filter(|path| exists(path)) {
        let on_host = fs::read_link(path).map(|link| link.display().to_string()).unwrap_or_default();
        assert_eq!(stdout(&system(), &format!("readlink {path}; true")), on_host, "{path}");
    }
}

/// Files that only root may read are not readable, although the caller is root.
#[apply(test)]
#[only(Root)]
#[skip(unless_read_only)]
fn private_files_of_the_system_stay_private() {
    assert!(is_root());
    let file = tempfile::NamedTempFile::new_in("/usr/lib").expect("a private file");
    fs::write(file.path(), "42").expect("a file");
    let script = format!("cat {}", file.path().display());
    assert!(fails(&system(), &script).contains("Permission denied"));
}

#[apply(test)]
fn an_operation_at_or_above_a_path_replaces_it() {
    let directory = crate::root::dir_with(&[("mine", "42")]);
    let root = Root::system().bind(directory.path(), "/etc");
    assert_eq!(stdout(&sandbox().root(root), "cat /etc/mine; ls /etc | wc -l"), "421");
    // And nothing of the host is changed.
    assert_eq!(names(directory.path()), ["mine"]);
}
