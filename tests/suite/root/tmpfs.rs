//! File systems in memory, with their limits.

use stockade::Root;
use stockade::mount::{Overlay, Tmpfs};

use crate::root::{with, with_mount};
use crate::support::{fails, invalid, stdout};

const FULL: &str = "No space left on device";

#[apply(test)]
fn a_tmpfs_is_empty_and_the_programs_own() {
    let sandbox = with(Root::host().tmpfs("/t", 1 << 20).tmpfs("/etc", 1 << 20));
    let script = "ls -A /t /etc; stat -c '%u %g' /t | grep -qx \"$(id -u) $(id -g)\" && echo mine; echo x > /etc/file";
    assert_eq!(stdout(&sandbox, script), "/etc:\n\n/t:\nmine");
    assert_eq!(stdout(&sandbox, "ls -A /etc"), "", "nothing is kept");
}

#[apply(test)]
fn a_tmpfs_holds_its_size_and_no_more() {
    let sandbox = with(Root::host().tmpfs("/t", 1 << 20).tmpfs("/large", 4 << 20));
    assert_eq!(stdout(&sandbox, "head -c 1048576 /dev/zero > /t/file; stat -c %s /t/file"), "1048576");
    assert!(fails(&sandbox, "head -c 1048577 /dev/zero > /t/file").contains(FULL));
    assert!(fails(&sandbox, "head -c 1048576 /dev/zero > /t/file && head -c 1 /dev/zero > /t/more").contains(FULL));
    stdout(&sandbox, "head -c 4194304 /dev/zero > /large/file");
}

#[apply(test)]
fn a_tmpfs_holds_its_inodes_and_no_more() {
    let sandbox = with_mount(Tmpfs::new("/t").inodes(10));
    // The top directory is one of them.
    stdout(&sandbox, "for n in 1 2 3 4 5 6 7 8 9; do > /t/$n || exit 1; done");
    assert!(fails(&sandbox, "for n in 1 2 3 4 5 6 7 8 9 10; do > /t/$n || exit 1; done").contains(FULL));
}

#[apply(test)]
fn a_tmpfs_at_the_edges_of_its_limits() {
    // A size is rounded up to whole pages; the largest is none.
    for (size, holds) in [(1, 4096), (4096, 4096), (4097, 8192), (1 << 62, 1 << 20), (u64::MAX, 1 << 20)] {
        let sandbox = with_mount(Tmpfs::new("/t").size(size));
        stdout(&sandbox, &format!("head -c {holds} /dev/zero > /t/file"));
        if holds < 1 << 20 {
            assert!(fails(&sandbox, &format!("head -c {} /dev/zero > /t/file", holds + 1)).contains(FULL), "{size}");
        }
    }
    // The top directory takes the only one.
    assert!(fails(&with_mount(Tmpfs::new("/t").inodes(1)), "> /t/file").contains(FULL));
    stdout(&with_mount(Tmpfs::new("/t").inodes(2)), "> /t/file");
    for count in [1 << 31, u64::MAX] {
        stdout(&with_mount(Tmpfs::new("/t").inodes(count)), "> /t/file");
    }
}

#[apply(test)]
fn a_tmpfs_can_forbid_execution() {
    let script = "cp /bin/true /t/program && /t/program";
    stdout(&with_mount(Tmpfs::new("/t")), script);
    assert!(fails(&with_mount(Tmpfs::new("/t").noexec()), script).contains("Permission denied"));
}

#[apply(test)]
fn a_tmpfs_has_its_mode() {
    for mode in [0o700, 0o755, 0o1777, 0o2770] {
        let sandbox = with_mount(Tmpfs::new("/t").mode(mode));
        assert_eq!(stdout(&sandbox, "stat -c %a /t"), format!("{mode:o}"));
    }
    assert!(fails(&with_mount(Tmpfs::new("/t").mode(0o500)), "> /t/file").contains("Permission denied"));
}

#[apply(test)]
fn a_size_of_zero_is_refused() {
    // The kernel takes 0 for no limit at all (tmpfs(5)).
    let overlay = Overlay::new("/t").lower("/etc").upper_tmpfs(0);
    let sandboxes = [with_mount(Tmpfs::new("/t").size(0)), with_mount(Tmpfs::new("/t").inodes(0)), with_mount(overlay)];
    for sandbox in sandboxes {
        let (_, remedy) = invalid(&sandbox);
        assert!(!remedy.is_empty());
    }
}
