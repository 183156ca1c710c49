//! What an action sees of the worker: its directory, and its secrets.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::job::{Fixture, JobBuilder};

/// Returns a directory that actions see, as they do not see those below `/var` and `/home`.
fn visible_directory() -> Option<TempDir> {
    let hidden = ["/home", "/root", "/run", "/tmp", "/var"];
    let current = std::env::current_dir().unwrap();
    let candidates = [Path::new("/opt"), Path::new("/srv"), &current];
    let visible =
        candidates.into_iter().filter(|path| !hidden.iter().any(|hidden| Path::new(path).starts_with(hidden)));
    visible.into_iter().find_map(|path| tempfile::Builder::new().prefix("reapi-").tempdir_in(path).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_reads_no_file_of_the_worker() {
    for is_guarded in [false, true] {
        let Some(directory) = visible_directory() else {
            println!("skipped: this user may not write to a directory that actions see, such as /opt");
            return;
        };
        let token = directory.path().join("token");
        fs::write(&token, "secret token").unwrap();
        let fixture = Fixture::in_directory(directory, |settings| {
            settings.sandbox.hidden.push(token.clone());
            if !is_guarded {
                settings.sandbox.hidden.clear();
            }
        });
        let fixture = fixture.await;
        let input = fixture.storage.add("secret input");
        Fixture::succeeded(fixture.run(&JobBuilder::script("cat in").file("in", input)).await);
        let script = "cat \"$1/token\" \"$1\"/worker/cache/*; ls \"$1/worker/actions\"; echo; cat in; exit 0";
        let mut job = JobBuilder::script(script).file("in", fixture.storage.add("own input"));
        job.command.arguments.extend(["sh".into(), fixture.directory.path().to_str().unwrap().into()]);
        let stdout = Fixture::succeeded(fixture.run(&job).await).stdout_raw;
        let stdout = String::from_utf8_lossy(&stdout);
        assert!(stdout.ends_with("own input"), "{stdout}");
        assert_eq!(stdout.contains("secret token"), !is_guarded, "{stdout}");
        // The user of a worker that is root differs from that of its actions.
        if is_guarded || !rustix::process::geteuid().is_root() {
            assert_eq!(stdout.contains("secret input"), !is_guarded, "{stdout}");
        }
    }
}
