//! Actions, and a storage, that ask for more than a worker has: memory, entries, bytes, messages, time.

use std::time::{Duration, Instant};

use prost::Message;
use prost_types::Any;
use stockade_workers::reapi::digest::BlobDigest;
use stockade_workers::reapi::failure::Failure;
use stockade_workers::reapi::input_tree::{InputLimits, InputTree};
use stockade_workers::reapi::proto::execution::{Action, Digest, Directory, DirectoryNode};
use stockade_workers::reapi::proto::rpc::PreconditionFailure;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::job::{Fixture, JobBuilder, file, symlink};

async fn refused(fixture: &Fixture, job: &JobBuilder) -> Failure {
    let started = Instant::now();
    let failure = fixture.run(job).await.failure.expect("a refusal");
    assert!(started.elapsed() < Duration::from_secs(20), "{failure}: {:?}", started.elapsed());
    assert_eq!(fixture.leftovers(), 0);
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_of_a_command_have_limits() {
    let fixture = Fixture::new().await;
    let job = || JobBuilder::script("true");
    let deep = "x/".repeat(50_000);
    let long = ["y"; 20].map(|name| name.repeat(250)).join("/");
    let mut cases = vec![job().outputs(&[&deep]), job().outputs(&[&long]), job().outputs(&[&"x".repeat(300)])];
    for directory in [deep, long, "x".repeat(300)] {
        let mut case = job();
        case.command.working_directory = directory;
        cases.push(case);
    }
    for case in cases {
        let failure = refused(&fixture, &case).await;
        assert_eq!(failure.code, Code::InvalidArgument, "{failure}");
    }
    // Each has directories, which are created.
    let many: Vec<_> = (0..15_000).map(|number| format!("{number}/x")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let failure = refused(&fixture, &job().outputs(&many)).await;
    assert!(failure.message.contains("--max-outputs"), "{failure}");
    Fixture::succeeded(fixture.run(&job().outputs(&many[..1000])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_overlap_count_each_time() {
    let fixture = Fixture::new().await;
    let job = JobBuilder::script("mkdir d; cd d; seq -f f%g 9000 | xargs touch");
    let result = Fixture::succeeded(fixture.run(&job.clone().outputs(&["d", "x/../d"])).await);
    assert_eq!(result.output_directories.len(), 2);
    // Each has a tree, which is kept in memory until it is uploaded.
    let failure = refused(&fixture, &job.outputs(&["d"; 1000])).await;
    assert!(failure.message.contains("--max-outputs"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_root_may_have_more_directories_than_are_kept() {
    let fixture = Fixture::new().await;
    let target = "x".repeat(3500);
    let mut root = Directory::default();
    for number in 0..20_500 {
        let link = symlink(&number.to_string(), &target);
        let digest = fixture.storage.add_message(&Directory { symlinks: vec![link], ..Default::default() });
        root.directories.push(DirectoryNode { name: number.to_string(), digest: Some(digest) });
    }
    let root = BlobDigest::try_from(&fixture.storage.add_message(&root)).unwrap();
    let limits = InputLimits { bytes: 0, entries: 200_000 };
    let tree = InputTree::fetch(&fixture.runner.cas, &fixture.runner.known, root, limits).await.unwrap();
    assert_eq!(tree.root().directories.len(), 20_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_not_read_if_they_are_too_large() {
    let fixture = Fixture::new().await;
    let large = fixture.storage.add(vec![0; 33 << 20]);
    let reads = || fixture.storage.lock().calls.get("Read").copied();
    let root = JobBuilder { root_digest: Some(large.clone()), ..JobBuilder::script("true") };
    let failure = refused(&fixture, &root).await;
    assert!(failure.message.contains("--max-inputs"), "{failure}");
    let action = Action { command_digest: Some(large), ..Default::default() };
    let type_url = "type.googleapis.com/build.bazel.remote.execution.v2.Action".into();
    let payload = Any { type_url, value: action.encode_to_vec() };
    let failure = fixture.runner.run(&payload, &fixture.slot, &CancellationToken::new()).await.failure.unwrap();
    assert!(failure.message.contains("the command is larger"), "{failure}");
    assert_eq!(reads(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_input_root_have_a_limit_together() {
    let fixture = Fixture::new().await;
    let large = fixture.storage.add(vec![7; 30 << 20]);
    let below = Directory { files: vec![file("large", large, false)], ..Default::default() };
    let digest = fixture.storage.add_message(&below);
    let job = JobBuilder::script("cat */large | wc -c").directory("a", digest.clone());
    let job = job.directory("b", digest.clone()).directory("c", digest.clone());
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!(result.stdout_raw, format!("{}\n", 90 << 20).as_bytes());
    let failure = refused(&fixture, &job.directory("d", digest)).await;
    assert_eq!(failure.code, Code::FailedPrecondition, "{failure}");
    assert!(failure.message.contains("--max-input-bytes"), "{failure}");
    let endless = Digest { size_bytes: i64::MAX, ..BlobDigest::of(b"x").into() };
    let job = JobBuilder::script("true").file("a", endless.clone()).file("b", endless.clone()).file("c", endless);
    assert!(refused(&fixture, &job).await.message.contains("--max-input-bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_fits_into_a_message() {
    let fixture = Fixture::with(|settings| settings.inputs.entries = 100_000).await;
    let missing = |number: u32| BlobDigest::of(&number.to_le_bytes()).into();
    let mut job = JobBuilder::script("true");
    job.root.files = (0..33_000).map(|number| file(&number.to_string(), missing(number), false)).collect();
    let status = refused(&fixture, &job).await.into_status();
    assert!(status.encoded_len() < 1 << 20, "{}", status.encoded_len());
    let details = PreconditionFailure::decode(&*status.details[0].value).unwrap();
    assert_eq!(details.violations.len(), 1000);
    let property = JobBuilder::script("true").property("memory", &"\u{1F980}".repeat(1 << 20));
    let status = refused(&fixture, &property).await.into_status();
    assert!(status.encoded_len() < 1 << 20 && status.message.contains("memory"), "{}", status.encoded_len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_ends_and_is_no_timeout_of_the_action() {
    let fixture = Fixture::new().await;
    let large = fixture.storage.add(vec![7; 5 << 20]);
    fixture.storage.lock().stalls = true;
    let job = JobBuilder::script("wc -c < in").file("in", large);
    // The patience of the tests is 3 s.
    let failure = refused(&fixture, &job).await;
    assert_eq!(failure.code, Code::Unavailable, "{failure}");
    fixture.storage.lock().stalls = false;
    Fixture::succeeded(fixture.run(&job).await);
}
