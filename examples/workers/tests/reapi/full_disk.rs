//! A worker whose file system is full. The server gets a status that it tries again, and the worker goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tonic::Code;

use crate::job::{Fixture, JobBuilder, directory};

/// A small file system, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=700", "small"]).arg(at).status();
        assert!(status.unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn on_small_disk() -> Option<(Fixture, SmallDisk)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a small file system requires root");
        return None;
    }
    let directory: TempDir = directory();
    let disk = SmallDisk::mount(directory.path());
    // The disk is unmounted before its directory is removed.
    Some((Fixture::in_directory(directory, |_| {}).await, disk))
}

const MB: usize = 1 << 20;

async fn fails_and_may_be_tried_again(fixture: &Fixture, job: &JobBuilder) {
    let failure = fixture.run(job).await.failure.expect("the disk is full");
    assert_eq!(failure.code, Code::Internal, "{failure}");
    assert!(failure.message.contains("No space left"), "{failure}");
    // Nothing of it stays, and the next action has room.
    assert_eq!(fixture.leftovers(), 0);
    let next = JobBuilder::script("head -c 1000000 /dev/zero > out; cat in").outputs(&["out"]);
    let next = next.file("in", fixture.storage.add("next"));
    assert_eq!(Fixture::succeeded(fixture.run(&next).await).stdout_raw, b"next");
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_that_do_not_fit_fail_alone() {
    let Some((fixture, _disk)) = on_small_disk().await else { return };
    let large = JobBuilder::script("true").file("in", fixture.storage.add(vec![1; 30 * MB]));
    fails_and_may_be_tried_again(&fixture, &large).await;
    let mut small = JobBuilder::script("true");
    for number in 0..30_u8 {
        small = small.file(&number.to_string(), fixture.storage.add(vec![number; MB]));
    }
    fails_and_may_be_tried_again(&fixture, &small).await;
    // It fits, and its copy does not.
    let output = JobBuilder::script("head -c 14000000 /dev/zero > out").outputs(&["out"]);
    fails_and_may_be_tried_again(&fixture, &output).await;
    let full = JobBuilder::script("head -c 50000000 /dev/zero > out; exit 0").outputs(&["out"]);
    fails_and_may_be_tried_again(&fixture, &full).await;
    // An action that fills it and names no outputs has failed by itself.
    let full = JobBuilder::script("head -c 50000000 /dev/zero > out || exit 9");
    assert_eq!(fixture.run(&full).await.result.unwrap().exit_code, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_leaves_room_for_actions() {
    let Some((fixture, _disk)) = on_small_disk().await else { return };
    // The limit of the cache is larger than the disk.
    for number in 0..6 {
        let input = fixture.storage.add(vec![number; 6 * MB]);
        let job = JobBuilder::script("wc -c < in; head -c 2000000 /dev/zero > out").file("in", input).outputs(&["out"]);
        Fixture::succeeded(fixture.run(&job).await);
    }
    assert!(fixture.runner.cache.size().0 > 10_000_000);
}
