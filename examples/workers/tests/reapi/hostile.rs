//! Hostile input roots and hostile actions. After each, the worker runs the next action as if nothing had been.

use std::fs;
use std::os::unix::fs::symlink as create_symlink;
use std::time::{Duration, Instant};

use stockade_workers::reapi::blob_cache::Placement;
use stockade_workers::reapi::proto::execution::{Digest, Directory, DirectoryNode};
use tonic::Code;

use crate::job::{Fixture, JobBuilder, file, has_cgroup, symlink};

/// Runs an action that needs most of what a worker has.
async fn the_next_action_is_fine(fixture: &Fixture) {
    let input = fixture.storage.add("input of the next action\n");
    let job = JobBuilder::script("cat in > out; echo done").file("in", input.clone()).outputs(&["out"]);
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!(result.output_files[0].digest.as_ref(), Some(&input));
    assert_eq!((&*result.stdout_raw, fixture.leftovers()), (&b"done\n"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_inputs_do_not_lead_out_of_the_directory() {
    let fixture = Fixture::new().await;
    let contents = fixture.storage.add("hostile");
    let secret = fixture.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    let target = secret.to_str().unwrap();
    let empty = fixture.storage.add_message(&Directory::default());
    let hostile = Directory { files: vec![file("x", contents.clone(), false)], ..Default::default() };
    let hostile = fixture.storage.add_message(&hostile);

    // Without the check a name and a symlink lead there.
    let naive = fixture.directory.path().join("naive");
    fs::create_dir(&naive).unwrap();
    create_symlink(&secret, naive.join("link")).unwrap();
    fs::write(naive.join("link/x"), "hostile").unwrap();
    fs::write(naive.join("../secret/y"), "hostile").unwrap();
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 2);
    fs::remove_dir_all(&secret).unwrap();
    fs::create_dir(&secret).unwrap();

    let base = || JobBuilder::script("true");
    let absolute = secret.join("x").to_str().unwrap().to_owned();
    let long = "x".repeat(300);
    let mut cases = vec![base().symlink("link", target).directory("link", hostile.clone())];
    cases.push(base().symlink("link", target).file("link", contents.clone()));
    for name in ["", ".", "..", "../secret/x", "a/b", "a\0b", &*absolute, &*long] {
        cases.push(base().file(name, contents.clone()));
        cases.push(base().directory(name, empty.clone()));
        cases.push(base().symlink(name, target));
    }
    cases.push(base().symlink("link", ""));
    cases.push(base().symlink("link", "a\0b"));
    cases.push(base().file("x", Digest { hash: "../../secret".into(), size_bytes: 1 }));
    for case in cases {
        let failure = fixture.run(&case).await.failure.expect("a refusal");
        assert_eq!(failure.code, Code::InvalidArgument, "{failure} of {:?}", case.root);
    }
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 0);
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_for_outputs_are_not_created_through_symlinks() {
    let fixture = Fixture::new().await;
    let secret = fixture.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    let link = |target: &str| JobBuilder::script("true").symlink("link", target);
    let cases = [
        link(secret.to_str().unwrap()).outputs(&["link/new/x"]),
        link("../../../../secret").outputs(&["link/new/x"]),
        JobBuilder {
            command: {
                let mut command = link("").command;
                command.working_directory = "link/new".into();
                command
            },
            ..link(secret.to_str().unwrap())
        },
        JobBuilder::script("true").outputs(&["../secret/x"]),
        JobBuilder::script("true").outputs(&["/etc/passwd"]),
        JobBuilder::script("true").outputs(&["a/../../x"]),
    ];
    for case in cases {
        let failure = fixture.run(&case).await.failure.expect("a refusal");
        assert_eq!(failure.code, Code::InvalidArgument, "{failure}");
    }
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 0);
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_messages_cannot_describe_a_huge_input_root() {
    let fixture = Fixture::new().await;
    // Each level has the level below twice: 2^40 directories in 40 messages.
    let mut digest = fixture.storage.add_message(&Directory::default());
    for _ in 0..40 {
        let node = |name: &str| DirectoryNode { name: name.into(), digest: Some(digest.clone()) };
        digest =
            fixture.storage.add_message(&Directory { directories: vec![node("a"), node("b")], ..Default::default() });
    }
    let job = JobBuilder { root_digest: Some(digest), ..JobBuilder::script("true") };
    let started = Instant::now();
    let failure = fixture.run(&job).await.failure.unwrap();
    assert!(failure.message.contains("--max-inputs") && started.elapsed() < Duration::from_secs(10), "{failure}");

    let mut digest = fixture.storage.add_message(&Directory::default());
    for _ in 0..300 {
        let node = DirectoryNode { name: "deeper".into(), digest: Some(digest) };
        digest = fixture.storage.add_message(&Directory { directories: vec![node], ..Default::default() });
    }
    let job = JobBuilder { root_digest: Some(digest), ..JobBuilder::script("true") };
    assert_eq!(fixture.run(&job).await.failure.unwrap().code, Code::InvalidArgument);
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinked_outputs_are_data() {
    let fixture = Fixture::new().await;
    // What a worker that opens paths would upload.
    let naive = fixture.directory.path().join("naive");
    fs::create_dir(&naive).unwrap();
    create_symlink("/etc", naive.join("out")).unwrap();
    assert!(fs::read(naive.join("out/passwd")).is_ok());

    let script = "rmdir out; ln -s /etc out; ln -s /etc/passwd file; mkdir tree; ln -s /etc tree/etc; mkfifo tree/fifo; \
                  ln -s / tree/root; ln file-of-mine tree/hard 2>/dev/null; exit 0";
    let job = JobBuilder::script(script).outputs(&["out/passwd", "file", "tree", "tree/etc/shadow", "tree/fifo"]);
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert!(result.output_files.is_empty(), "{result:?}");
    let links: Vec<_> = result.output_symlinks.iter().map(|link| (&*link.path, &*link.target)).collect();
    assert_eq!(links, [("file", "/etc/passwd")]);
    assert_eq!(result.output_directories.len(), 1);
    let blobs = &fixture.storage.lock().blobs.clone();
    let passwd = fs::read("/etc/passwd").unwrap();
    assert!(blobs.values().all(|blob| *blob != passwd), "a file of the host was uploaded");
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_utf8_are_an_error_that_shows_them() {
    let fixture = Fixture::new().await;
    for script in
        ["touch \"$(printf 'd/a\\377b')\"", "ln -s \"$(printf 'a\\377b')\" d/link", "mkdir \"$(printf 'd/\\377')\""]
    {
        let job = JobBuilder::script(script).outputs(&["d/x", "d"]);
        let failure = fixture.run(&job).await.failure.expect("a refusal");
        assert_eq!(failure.code, Code::FailedPrecondition, "{script}: {failure}");
        assert!(failure.message.contains("\\xFF"), "{script}: {failure}");
    }
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_outputs_and_too_many_are_an_error() {
    let fixture = Fixture::new().await;
    let job =
        |count: u32| JobBuilder::script(&format!("mkdir -p d; cd d; seq -f f%g {count} | xargs touch")).outputs(&["d"]);
    let result = Fixture::succeeded(fixture.run(&job(10_000)).await);
    assert_eq!(result.output_directories.len(), 1);
    let failure = fixture.run(&job(30_000)).await.failure.unwrap();
    assert_eq!(failure.code, Code::FailedPrecondition, "{failure}");
    let bytes = JobBuilder::script("truncate -s 1T out").outputs(&["out"]);
    let failure = fixture.run(&bytes).await.failure.unwrap();
    assert_eq!(failure.code, Code::FailedPrecondition, "{failure}");
    let deep =
        JobBuilder::script("i=0; while [ $i -lt 200 ]; do mkdir d && cd d || exit; i=$((i+1)); done").outputs(&["d"]);
    let failure = fixture.run(&deep).await.failure.unwrap();
    assert!(failure.message.contains("levels"), "{failure}");
    the_next_action_is_fine(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_do_not_change_the_cache() {
    let script = "chmod 777 in; echo hostile > in; rm -f in; mv in other; ln in third; cat in";
    for placement in [Placement::HardLinks, Placement::Copies] {
        if placement == Placement::HardLinks && !rustix::process::geteuid().is_root() {
            println!("skipped: hard links require root");
            continue;
        }
        let fixture = Fixture::with(|settings| settings.placement = placement).await;
        let input = fixture.storage.add("good\n");
        let hostile = JobBuilder::script(script).file("in", input.clone());
        let stdout = fixture.run(&hostile).await.result.unwrap().stdout_raw;
        // A copy can be changed and removed, and a hard link cannot.
        let expected: &[u8] = if placement == Placement::HardLinks { b"good\n" } else { b"" };
        assert_eq!(String::from_utf8_lossy(&stdout), String::from_utf8_lossy(expected), "{placement:?}");
        fixture.storage.lock().blobs.retain(|_, blob| blob != b"good\n");
        let next = JobBuilder::script("cat in").file("in", input);
        assert_eq!(Fixture::succeeded(fixture.run(&next).await).stdout_raw, b"good\n", "{placement:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_end_with_their_action() {
    let fixture = Fixture::new().await;
    let seconds = Duration::from_secs(5);
    let mut bombs = vec![
        ("a fork bomb", "bomb() { bomb | bomb & }; bomb; sleep 60"),
        ("processes in the background", "for i in 1 2 3; do setsid sleep 1000 & done; echo begun"),
        ("a flood", "yes | head -c 100000000"),
    ];
    if has_cgroup() {
        bombs.push(("memory", "x=x; while :; do x=$x$x; done"));
        bombs.push(("memory in /tmp", "head -c 900000000 /dev/zero > /tmp/x"));
    } else {
        println!("skipped: bombs of memory: this host has no cgroup for this user");
    }
    for (name, script) in bombs {
        let started = Instant::now();
        let finished = fixture.run(&JobBuilder::script(script).timeout(seconds)).await;
        assert!(started.elapsed() < Duration::from_secs(60), "{name}: {:?}", started.elapsed());
        assert!(finished.result.is_some(), "{name}: {finished:?}");
        the_next_action_is_fine(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_of_an_input_leads_nowhere_on_the_host() {
    let fixture = Fixture::new().await;
    let secret = fixture.directory.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let below = Directory { symlinks: vec![symlink("link", secret.to_str().unwrap())], ..Default::default() };
    let script = "cat link d/link; echo hostile > link; echo hostile > d/link; exit 0";
    let job = JobBuilder::script(script).symlink("link", secret.to_str().unwrap());
    let job = job.directory("d", fixture.storage.add_message(&below));
    let result = Fixture::succeeded(fixture.run(&job).await);
    assert_eq!((&*result.stdout_raw, fs::read_to_string(&secret).unwrap()), (&b""[..], "secret".into()));
    the_next_action_is_fine(&fixture).await;
}
