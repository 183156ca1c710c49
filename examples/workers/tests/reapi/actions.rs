//! Actions with a storage in memory: inputs, outputs, endings, and a storage that fails.

use std::time::{Duration, Instant};

use prost::Message;
use prost_types::value::Kind;
use stockade_workers::reapi::action::Finished;
use stockade_workers::reapi::action_sandbox::InputRoot;
use stockade_workers::reapi::blob_cache::Placement;
use stockade_workers::reapi::digest::BlobDigest;
use stockade_workers::reapi::proto::execution::{Directory, Tree};
use stockade_workers::reapi::proto::rpc::PreconditionFailure;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::fake_storage::FakeStorage;
use crate::job::{Fixture, JobBuilder, file, has_cgroup, symlink};

fn failed(finished: Finished) -> (Code, String) {
    let failure = finished.failure.expect("a failure");
    (failure.code, failure.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_laid_out_and_outputs_are_reported() {
    let fixture = Fixture::new().await;
    let storage = &fixture.storage;
    let below = Directory {
        files: vec![file("data", storage.add("data\n"), false)],
        symlinks: vec![symlink("link", "data")],
        ..Default::default()
    };
    let script = "./tool in/link > out/file; ./tool ./tool > out/copy; chmod +x out/copy; mkdir -p tree/a/b tree/c/b; \
                  echo same > tree/a/b/x; echo same > tree/c/b/x; ln -s ../elsewhere tree/up; ln -s gone out/link; \
                  echo to stdout; echo to stderr >&2";
    let job = JobBuilder::script(script)
        .executable("tool", storage.add("#!/bin/sh\ncat \"$1\"\n"))
        .directory("in", storage.add_message(&below))
        .outputs(&["out/file", "out/copy", "tree", "out/link", "out/missing"]);
    let result = Fixture::succeeded(fixture.run(&job).await);

    let files: Vec<_> = result.output_files.iter().map(|file| (&*file.path, file.is_executable)).collect();
    assert_eq!(files, [("out/file", false), ("out/copy", true)]);
    assert_eq!(storage.get(result.output_files[0].digest.as_ref().unwrap()), b"data\n");
    let links: Vec<_> = result.output_symlinks.iter().map(|link| (&*link.path, &*link.target)).collect();
    assert_eq!(links, [("out/link", "gone")]);
    let [directory] = &*result.output_directories else { panic!("{result:?}") };
    let tree = Tree::decode(&*storage.get(directory.tree_digest.as_ref().unwrap())).unwrap();
    let root = tree.root.unwrap();
    let names: Vec<_> = root.directories.iter().map(|node| &*node.name).collect();
    assert_eq!((names, &*root.symlinks[0].target), (vec!["a", "c"], "../elsewhere"));
    // Both have a directory `b` with the same contents, and so are the same themselves.
    assert_eq!(tree.children.len(), 2);
    assert_eq!(root.directories[0].digest, root.directories[1].digest);
    assert_eq!((&*result.stdout_raw, &*result.stderr_raw), (&b"to stdout\n"[..], &b"to stderr\n"[..]));

    let metadata = result.execution_metadata.unwrap();
    let times = [
        metadata.worker_start_timestamp,
        metadata.input_fetch_start_timestamp,
        metadata.input_fetch_completed_timestamp,
        metadata.execution_start_timestamp,
        metadata.execution_completed_timestamp,
        metadata.output_upload_completed_timestamp,
        metadata.worker_completed_timestamp,
    ];
    let times = times.map(|time| time.map(|time| (time.seconds, time.nanos)).expect("a time"));
    assert!(times.is_sorted(), "{times:?}");
    let usage = prost_types::Struct::decode(&*metadata.auxiliary_metadata[0].value).unwrap();
    assert!(usage.fields.contains_key("cpu_seconds") && usage.fields.contains_key("max_rss_bytes"), "{usage:?}");
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_commands_name_files_and_directories() {
    let fixture = Fixture::new().await;
    let mut job = JobBuilder::script("echo 1 > f; mkdir d; ln -s f l; ln -s d m; echo 2 > d/x");
    job.command.output_files = ["f", "l", "d"].map(str::to_owned).to_vec();
    job.command.output_directories = ["d", "m", "f"].map(str::to_owned).to_vec();
    // The directory is created for the outputs, so that `mkdir` fails.
    job.command.arguments[2] = job.command.arguments[2].replace("mkdir d", "mkdir -p d");
    let result = Fixture::succeeded(fixture.run(&job).await);
    let paths = (&*result.output_files[0].path, &*result.output_directories[0].path);
    assert_eq!((paths, result.output_files.len(), result.output_directories.len()), (("f", "d"), 1, 1));
    assert_eq!(result.output_file_symlinks[0].path, "l");
    assert_eq!(result.output_directory_symlinks[0].path, "m");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_start_at_the_working_directory() {
    let fixture = Fixture::new().await;
    let script = "pwd; cat ../input; echo 1 > here; echo 2 > ../../above/there";
    let input = Directory { files: vec![file("input", fixture.storage.add("input\n"), false)], ..Default::default() };
    let mut job = JobBuilder::script(script).directory("a", fixture.storage.add_message(&input));
    job = job.outputs(&["here", "../../above/there"]);
    job.command.working_directory = "a/b".into();
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!(String::from_utf8_lossy(&result.stdout_raw), "/build/a/b\ninput\n");
    let paths: Vec<_> = result.output_files.iter().map(|file| &*file.path).collect();
    assert_eq!(paths, ["here", "../../above/there"]);
    // It does not lead through a directory that does not exist.
    job.command.working_directory = "missing/../a/b".into();
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!(result.stdout_raw, b"/build/a/b\ninput\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_that_of_the_command() {
    let fixture = Fixture::new().await;
    let job = JobBuilder::of(&["/usr/bin/env"]).env("GREETING", "hello").env("PATH", "/usr/bin");
    let result = Fixture::succeeded(fixture.run(&job).await);
    let text = String::from_utf8(result.stdout_raw).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["GREETING=hello", "PATH=/usr/bin"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endings_are_reported_as_a_shell_would() {
    let fixture = Fixture::with(|settings| settings.sandbox.stream = 100_000).await;
    let cases = [
        ("exit 3", 3, ""),
        ("kill -SEGV $$", 139, "SIGSEGV"),
        ("yes", 137, "output limit exceeded"),
        ("exec ./missing", 127, "not found"),
    ];
    for (script, code, reason) in cases {
        let finished = fixture.run(&JobBuilder::script(script)).await;
        assert!(finished.failure.is_none(), "{script}: {finished:?}");
        let result = finished.result.unwrap();
        let stderr =
            if let Some(digest) = &result.stderr_digest { fixture.storage.get(digest) } else { result.stderr_raw };
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(result.exit_code, code, "{script}: {stderr}");
        assert!(stderr.contains(reason), "{script}: {stderr}");
    }
    for (program, code) in [("no-such-program", 127), ("/etc/hostname", 126)] {
        let result = fixture.run(&JobBuilder::of(&[program])).await.result.unwrap();
        assert_eq!(result.exit_code, code, "{program}");
        assert!(String::from_utf8_lossy(&result.stderr_raw).contains(program));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_has_a_status_and_the_outputs_until_then() {
    let fixture = Fixture::new().await;
    let script = "echo partial > out; echo before; sleep 60";
    let job = JobBuilder::script(script).outputs(&["out"]).timeout(Duration::from_secs(1));
    let started = Instant::now();
    let finished = fixture.run(&job).await;
    assert!(started.elapsed() < Duration::from_secs(20));
    let result = finished.result.clone().unwrap();
    assert_eq!((&*result.stdout_raw, result.output_files.len()), (&b"before\n"[..], 1));
    assert_eq!(failed(finished).0, Code::DeadlineExceeded);
    let too_long = JobBuilder::script("true").timeout(Duration::from_secs(3600));
    assert_eq!(failed(fixture.run(&too_long).await).0, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_are_streamed_and_a_broken_stream_goes_on() {
    let fixture = Fixture::new().await;
    let large: Vec<u8> = (0..20_000_000_u32).map(|index| (index.wrapping_mul(index) >> 7) as u8).collect();
    let digest = fixture.storage.add(large.clone());
    fixture.storage.lock().breaks_after = Some(5_000_000);
    let job = JobBuilder::script("cat in in > out; cat in | head -c 500000").file("in", digest).outputs(&["out"]);
    let result = Fixture::succeeded(fixture.run(&job).await);
    let out = fixture.storage.get(result.output_files[0].digest.as_ref().unwrap());
    assert_eq!(out, [large.clone(), large.clone()].concat());
    assert_eq!(fixture.storage.get(result.stdout_digest.as_ref().unwrap()), large[..500_000]);
    let calls = fixture.storage.lock().calls.clone();
    assert_eq!((calls["Read"], calls["Write"]), (2, 1), "{calls:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_is_tried_again() {
    let fixture = Fixture::new().await;
    let job = JobBuilder::script("cp in out").file("in", fixture.storage.add("input")).outputs(&["out"]);
    let payload = job.payload(&fixture.storage);
    fixture.storage.lock().failures = 3;
    let cancelled = CancellationToken::new();
    Fixture::succeeded(fixture.runner.run(&payload, &fixture.slot, &cancelled).await);
    assert_eq!(fixture.storage.lock().failures, 0);
    // For ever, it is an error that the server tries elsewhere.
    fixture.storage.lock().failures = usize::MAX;
    let code = failed(fixture.runner.run(&payload, &fixture.slot, &cancelled).await).0;
    assert_eq!((code, fixture.leftovers()), (Code::Unavailable, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_and_outputs_of_earlier_actions_are_in_the_cache() {
    let fixture = Fixture::new().await;
    let input = fixture.storage.add("input".repeat(1000));
    let first = JobBuilder::script("cat in in > out").file("in", input.clone()).outputs(&["out"]);
    let out = Fixture::succeeded(fixture.run(&first).await).output_files[0].digest.clone().unwrap();
    // Both are gone from the storage.
    for digest in [&input, &out] {
        fixture.storage.lock().blobs.remove(&BlobDigest::try_from(digest).unwrap());
    }
    let second = JobBuilder::script("cat in out | wc -c").file("in", input).file("out", out.clone());
    assert_eq!(Fixture::succeeded(fixture.run(&second).await).stdout_raw, b"15000\n");
    // One with the other permission is copied from the cached one.
    let third = JobBuilder::script("test -x out && wc -c < out").executable("out", out);
    assert_eq!(Fixture::succeeded(fixture.run(&third).await).stdout_raw, b"10000\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_blobs_are_named() {
    let fixture = Fixture::new().await;
    let gone = BlobDigest::of(b"gone");
    let job = JobBuilder::script("cat in").file("in", gone.into());
    let status = fixture.run(&job).await.failure.unwrap().into_status();
    assert_eq!(status.code, Code::FailedPrecondition as i32);
    let details = PreconditionFailure::decode(&*status.details[0].value).unwrap();
    let violation = &details.violations[0];
    assert_eq!((&*violation.r#type, &*violation.subject), ("MISSING", &*format!("blobs/{gone}")));
    let tree = JobBuilder { root_digest: Some(gone.into()), ..JobBuilder::script("true") };
    assert_eq!(failed(fixture.run(&tree).await).0, Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_lies_is_not_believed() {
    let fixture = Fixture::new().await;
    let small = fixture.storage.add("true contents");
    let large = fixture.storage.add(vec![1; 5 << 20]);
    for (digest, lie) in [(small, b"false content".to_vec()), (large, vec![2; 5 << 20])] {
        let checked = BlobDigest::try_from(&digest).unwrap();
        let job = JobBuilder::script("wc -c in").file("in", digest);
        fixture.storage.lock().lies.insert(checked, lie);
        assert_eq!(failed(fixture.run(&job).await).0, Code::DataLoss);
        fixture.storage.lock().lies.clear();
        Fixture::succeeded(fixture.run(&job).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_action_is_killed_and_its_directory_removed() {
    let fixture = Fixture::new().await;
    let payload = JobBuilder::script("echo begun > begun; sleep 60").payload(&fixture.storage);
    let cancelled = CancellationToken::new();
    let run = async {
        let started = Instant::now();
        let finished = fixture.runner.run(&payload, &fixture.slot, &cancelled).await;
        (finished, started.elapsed())
    };
    let cancel = async {
        let begun = || {
            std::fs::read_dir(fixture.actions())
                .unwrap()
                .flatten()
                .any(|action| action.path().join("root/begun").exists())
        };
        while !begun() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancelled.cancel();
        Instant::now()
    };
    let ((finished, elapsed), _) = tokio::join!(run, cancel);
    assert_eq!(failed(finished).0, Code::Cancelled);
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
    assert_eq!(fixture.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_has_no_network_and_not_more_than_its_allowance() {
    let fixture = Fixture::new().await;
    let job = JobBuilder::script("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").property("network", "off");
    assert_eq!(Fixture::succeeded(fixture.run(&job).await).stdout_raw, b"lo\n");
    let unknown = JobBuilder::script("true").property("container-image", "docker://debian");
    let (code, message) = failed(fixture.run(&unknown).await);
    assert!(code == Code::InvalidArgument && message.contains("container-image"), "{message}");
    if !has_cgroup() {
        let memory = JobBuilder::script("true").property("memory", "100M");
        assert_eq!(failed(fixture.run(&memory).await).0, Code::FailedPrecondition);
        println!("skipped: limits on memory and CPUs: this host has no cgroup for this user");
        return;
    }
    // 150 MB are too much by default here, and enough if they are asked for.
    let script = "head -c 300000000 /dev/zero | tail | wc -c";
    let killed = fixture.run(&JobBuilder::script(script)).await.result.unwrap();
    assert!(String::from_utf8_lossy(&killed.stderr_raw).contains("memory limit exceeded"), "{killed:?}");
    let enough = JobBuilder::script(script).property("memory", "900M");
    assert_eq!(Fixture::succeeded(fixture.run(&enough).await).stdout_raw, b"300000000\n");
    let slow = JobBuilder::script("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    // How much longer it took than its CPU time.
    let slowness = async |job: &JobBuilder| {
        let metadata = Fixture::succeeded(fixture.run(job).await).execution_metadata.unwrap();
        let usage = prost_types::Struct::decode(&*metadata.auxiliary_metadata[0].value).unwrap();
        let seconds = |name: &str| match usage.fields[name].kind {
            Some(Kind::NumberValue(seconds)) => seconds,
            _ => panic!("{usage:?}"),
        };
        seconds("wall_seconds") / seconds("cpu_seconds")
    };
    let (whole, twentieth) = (slowness(&slow).await, slowness(&slow.clone().property("cpus", "0.05")).await);
    assert!(twentieth > 10.0 && twentieth > whole, "{whole} {twentieth}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_runs_on_the_cpus_of_its_slot() {
    if !has_cgroup() {
        println!("skipped: this host has no cgroup for this user");
        return;
    }
    let mut fixture = Fixture::new().await;
    fixture.slot.cpus.truncate(1);
    let job = JobBuilder::script("grep Cpus_allowed_list /proc/self/status");
    let stdout = Fixture::succeeded(fixture.run(&job).await).stdout_raw;
    assert_eq!(String::from_utf8(stdout).unwrap().trim(), format!("Cpus_allowed_list:\t{}", fixture.slot.cpu_list()));
}

/// Returns an input root with a shell.
fn busybox(storage: &FakeStorage) -> Option<JobBuilder> {
    let program = storage.add(std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).ok()?);
    let mut bin = Directory { files: vec![file("busybox", program, true)], ..Default::default() };
    bin.symlinks = ["cat", "id", "ls", "sh", "touch"].map(|name| symlink(name, "busybox")).to_vec();
    Some(JobBuilder::script("").directory("bin", storage.add_message(&bin)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_root_can_be_the_root() {
    let fixture = Fixture::with(|settings| {
        settings.input_root = InputRoot::AsRoot;
        settings.placement = Placement::Copies;
    })
    .await;
    let Some(mut job) = busybox(&fixture.storage) else {
        println!("skipped: this host has no busybox");
        return;
    };
    job.command.arguments[2] = "ls /; cd /; cat etc/motd; echo more >> etc/motd; echo new > /new; touch /tmp/x".into();
    let etc = Directory { files: vec![file("motd", fixture.storage.add("motd\n"), false)], ..Default::default() };
    job = job.directory("etc", fixture.storage.add_message(&etc)).outputs(&["new", "etc/motd", "tmp/x"]);
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!(String::from_utf8_lossy(&result.stdout_raw), "bin\ndev\netc\nproc\ntmp\nmotd\n");
    let paths: Vec<_> = result.output_files.iter().map(|file| &*file.path).collect();
    assert_eq!(paths, ["new", "etc/motd"]);
    assert_eq!(fixture.storage.get(result.output_files[1].digest.as_ref().unwrap()), b"motd\nmore\n");
    // The change was one of a copy.
    let again = Fixture::succeeded(fixture.run(&job).await);
    assert!(String::from_utf8_lossy(&again.stdout_raw).ends_with("motd\n"));
    assert_eq!(again.output_files[1].digest, result.output_files[1].digest);

    let redirected = job.clone().symlink("proc", "/etc");
    let (code, message) = failed(fixture.run(&redirected).await);
    assert!(code == Code::InvalidArgument && message.contains("/proc"), "{message}");
}
