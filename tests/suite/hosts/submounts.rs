//! Mounts of the host below what a sandbox binds.

use std::time::{Duration, Instant};

use stockade::{Command, Layer, Root, Sandbox};

use super::simulated::{SimulatedHost, WORK};
use crate::support::{at_most, text};

payloads![("closed_submount", closed_submount)];

/// A mount in a directory that the caller may not enter, beside one that it may.
fn closed_submount(_: &[String]) -> i32 {
    let sandbox = Sandbox::new().root(Root::host().bind_rw(WORK, "/work"));
    let script = "echo >/work/file; echo >/work/open/file; grep ' /work/closed/mnt ' /proc/self/mountinfo";
    let output = sandbox.output(Command::new("sh").args(["-c", script])).expect("an outcome");
    assert!(output.outcome.success(), "{}: {}", output.outcome, text(&output.stderr));
    let options = text(&output.stdout).split(' ').nth(5).map(str::to_owned).expect("the options of the mount");
    assert!(options.starts_with("ro,"), "{options}");
    let enforcement = output.outcome.enforcement;
    let [missing] = &enforcement.unenforced[..] else { panic!("{enforcement:?}") };
    assert_eq!((missing.layer, &*missing.requested), (Layer::Root, "a writable bind of /mnt/work/closed/mnt"));
    let reason = "failed to make writable the mount /mnt/work/closed/mnt: openat2: Permission denied (EACCES): it \
                  stays read-only: let";
    assert!(missing.reason.replace('\"', "").contains(reason), "{}", missing.reason);
    assert!(!enforcement.is_active(Layer::Root));
    0
}

/// Finding H8.
#[apply(test)]
fn a_submount_that_the_caller_cannot_reach_stays_read_only() {
    let script = "mkdir -p /mnt/work/open /mnt/work/closed/mnt
        for place in open closed/mnt; do mount -t tmpfs -o mode=777 tmpfs /mnt/work/$place; done
        chmod 0 /mnt/work/closed";
    let host = SimulatedHost::after(script).of_user();
    host.output("closed_submount");
    host.assert_works();
}

/// Finding H7: as many as a host of containers has, in what is shown and in the directory of the writable bind.
#[apply(test)]
fn twelve_thousand_submounts_take_seconds() {
    let script = "cd /mnt/work; mkdir a b; for dir in a b; do mount -t tmpfs -o mode=755 tmpfs $dir; done
        for i in $(seq 110); do mkdir a/$i b/$i; mount --bind a/$i a/$i; done
        for i in $(seq 110); do mount --rbind a b/$i; done; cd /";
    let start = Instant::now();
    SimulatedHost::after(script).assert_works();
    assert!(start.elapsed() < at_most(Duration::from_secs(20)), "{:?}", start.elapsed());
}
