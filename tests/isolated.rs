//! Tests in sandboxes of their own, as the harness of Rust runs them: `stockade::test`.
//!
//! The tests in `passing` are run by whatever runs this binary. Those in `failing` are ignored, and run by the tests at
//! the end, which look at what the harness says about them.
//!
//! This has its own process, since it needs the harness of Rust.

// What they leave running is what some of the tests are about.
#![allow(clippy::zombie_processes)]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Host;

use stockade::test::{Isolated, isolated};
use stockade::{Command, Sandbox, profile};

/// The directory of the tests that must fail.
const FAILING: &str = "failing::";

/// A user who is not root, and has no rights to cgroups.
const ORDINARY: u32 = 1000;

mod passing {
    use super::*;

    /// Fifty tests that each listen on the same port and create the same file.
    mod same_port_and_file {
        use std::fs::File;
        use std::net::TcpListener;
        use std::thread::sleep;
        use std::time::Duration;

        fn collide() {
            let listener = TcpListener::bind("127.0.0.1:8080").expect("port 8080");
            File::create_new("/tmp/x").expect("/tmp/x");
            sleep(Duration::from_millis(100));
            drop(listener);
        }

        macro_rules! fifty {
            ($($tens:ident: $($name:ident)*;)*) => {
                $(mod $tens {
                    $(#[test]
                    fn $name() {
                        stockade::test::isolated(super::collide);
                    })*
                })*
            };
        }

        fifty! {
            a: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9;
            b: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9;
            c: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9;
            d: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9;
            e: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9;
        }
    }

    #[test]
    fn the_closure_runs_in_another_process() {
        let outer = std::process::id();
        isolated(|| {
            assert!(std::process::id() < 100, "a PID of a namespace of its own");
            assert_eq!(std::env::var("HOME").as_deref(), Ok("/home/sandbox"));
        });
        assert_eq!(std::process::id(), outer);
    }

    #[test]
    fn a_result_is_what_the_test_returns() -> Result<(), std::num::ParseIntError> {
        isolated(|| "7".parse::<u8>().map(drop))
    }

    #[test]
    #[should_panic(expected = "the message inside")]
    fn a_panic_has_its_message() {
        isolated(|| panic!("the message {}", "inside"));
    }

    #[test]
    fn each_call_has_a_sandbox_of_its_own() {
        for number in 0..3 {
            isolated(|| {
                std::fs::File::create_new("/tmp/number")
                    .and_then(|mut file| write!(file, "{number}"))
                    .expect("no file yet");
                assert_eq!(std::fs::read_to_string("/tmp/number").expect("the file"), number.to_string());
            });
        }
        isolated(|| assert!(!Path::new("/tmp/number").exists()));
    }

    #[test]
    fn a_call_within_a_closure_has_the_same_sandbox() {
        isolated(|| {
            std::fs::write("/tmp/outer", "").expect("a file");
            isolated(|| assert!(Path::new("/tmp/outer").exists()));
        });
    }

    #[test]
    fn a_thread_without_a_name_knows_its_test_by_the_closure() {
        let thread = std::thread::spawn(|| isolated(|| assert_ne!(std::process::id(), 0)));
        thread.join().expect("the thread of the test");
    }

    #[test]
    fn a_thread_with_another_name_knows_its_test_by_the_closure() {
        let thread = std::thread::Builder::new().name("worker".into());
        let thread = thread.spawn(|| isolated(|| assert_ne!(std::process::id(), 0))).expect("a thread");
        thread.join().expect("the thread of the test");
    }

    #[test]
    fn the_name_can_be_given() {
        let name = "passing::the_name_can_be_given";
        std::thread::spawn(move || Isolated::new().test_name(name).run(helper)).join().expect("the thread of the test");
    }

    fn helper() {
        assert_ne!(std::process::id(), 0);
    }

    #[test]
    #[ignore = "run by a test below"]
    fn ignored_tests_run() {
        isolated(|| println!("an ignored test runs"));
    }

    #[test]
    fn the_files_of_the_package_can_be_read() {
        let directory = std::env::current_dir().expect("a working directory");
        isolated(|| {
            assert_eq!(std::env::current_dir().expect("a working directory"), directory);
            std::fs::read_dir(".").expect("its files");
            assert!(std::fs::write("stockade-test-file", "").is_err(), "they are read-only");
        });
    }

    #[test]
    fn limits_that_are_not_exceeded_let_a_test_pass() {
        let limits = Isolated::new().memory_max(256 << 20).pids_max(64);
        limits.map_sandbox(best_effort).run(|| assert_eq!(vec![1u8; 1 << 20].len(), 1 << 20));
    }

    #[test]
    fn a_test_that_kills_its_processes_passes() {
        isolated(|| {
            let mut child = Host::new("sleep").arg("100").spawn().expect("sleep");
            child.kill().expect("it is killed");
            // It is a zombie.
        });
    }

    #[test]
    fn programs_that_a_test_starts_are_no_inner_runs() {
        isolated(|| {
            let mut own = Host::new(std::env::current_exe().expect("own path"));
            own.args(["failing::is_inline", "--exact", "--ignored", "--nocapture"]);
            let output = own.output().expect("the test binary");
            // There, the test is an outer one, which the sandbox denies another sandbox.
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains("the test was not run in a sandbox"), "{output:?}");
        });
    }
}

/// As far as the host gives this user cgroups.
fn best_effort(sandbox: Sandbox) -> Sandbox {
    sandbox.best_effort([stockade::Layer::Cgroup])
}

mod failing {
    use std::time::Duration;

    use nix::sys::wait::waitpid;
    use nix::unistd::ForkResult;

    use super::*;

    fn fork() -> ForkResult {
        // SAFETY: the other thread of this process waits for the test, and holds no lock that the closures take.
        unsafe { nix::unistd::fork() }.expect("a process")
    }

    #[test]
    #[ignore = "it fails"]
    fn panics() {
        isolated(|| {
            println!("on stdout");
            eprintln!("on stderr");
            panic!("the reason");
        });
    }

    #[test]
    #[ignore = "it fails"]
    #[should_panic(expected = "another message")]
    fn panics_with_the_wrong_message() {
        isolated(|| panic!("this message"));
    }

    #[test]
    #[ignore = "it fails"]
    #[should_panic(expected = "a panic")]
    fn does_not_panic() {
        isolated(|| ());
    }

    #[test]
    #[ignore = "it fails"]
    fn returns_an_error() -> Result<(), String> {
        isolated(|| Err("the error".to_owned()))
    }

    #[test]
    #[ignore = "it fails"]
    fn leaks() {
        isolated(|| {
            Host::new("sleep").arg("1000").spawn().expect("sleep");
            // Another session, as a daemon has it.
            Host::new("setsid").args(["tail", "-f", "/dev/null"]).spawn().expect("setsid");
            std::thread::sleep(Duration::from_millis(200));
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn leaks_and_panics() {
        isolated(|| {
            Host::new("sleep").arg("1000").spawn().expect("sleep");
            panic!("the reason");
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn exceeds_the_memory() {
        Isolated::new().memory_max(32 << 20).run(|| {
            let mut bytes = vec![0u8; 256 << 20];
            bytes.fill(1);
            std::hint::black_box(&bytes);
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn exceeds_the_processes() {
        Isolated::new().pids_max(8).run(|| {
            let mut children: Vec<_> = vec![];
            for _ in 0..20 {
                children.push(Host::new("sleep").arg("1000").spawn().expect("another process"));
            }
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn exceeds_the_time() {
        Isolated::new().wall_time(Duration::from_secs(1)).run(|| {
            println!("before the end");
            std::thread::sleep(Duration::from_secs(1000));
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn exits() {
        isolated(|| std::process::exit(0));
    }

    #[test]
    #[ignore = "it fails"]
    fn aborts() {
        isolated(|| std::process::abort());
    }

    #[test]
    #[ignore = "it fails"]
    fn fails_after_a_forked_process_has_returned() {
        isolated(|| {
            if let ForkResult::Parent { child } = fork() {
                let status = waitpid(child, None).expect("a status");
                panic!("the forked process: {status:?}");
            }
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn exits_after_a_forked_process_has_returned() {
        isolated(|| {
            if let ForkResult::Parent { child } = fork() {
                waitpid(child, None).expect("a status");
                std::process::exit(0);
            }
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn forks_before_the_call() {
        if std::env::var_os("STOCKADE_TEST_RUN").is_some()
            && let ForkResult::Parent { child } = fork()
        {
            waitpid(child, None).expect("a status");
            isolated(|| panic!("the reason"));
        }
        isolated(|| ());
    }

    #[test]
    #[ignore = "it fails"]
    fn is_killed_after_it_has_returned() {
        extern "C" fn abort() {
            std::process::abort();
        }
        // SAFETY: the function may be called at any time.
        isolated(|| assert_eq!(unsafe { libc::atexit(abort) }, 0));
    }

    /// The first call of this order is the second one where the threads run in another order.
    #[test]
    #[ignore = "it fails"]
    fn isolates_in_two_threads() {
        let name = "failing::isolates_in_two_threads";
        std::thread::scope(|scope| {
            let calls = [(); 2].map(|()| scope.spawn(|| Isolated::new().test_name(name).run(|| ())));
            for call in calls {
                call.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
            }
        });
    }

    #[test]
    #[ignore = "it fails"]
    fn has_no_name() {
        std::thread::spawn(|| Isolated::new().run(helper))
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    }

    fn helper() {}

    #[test]
    #[ignore = "it fails"]
    fn has_a_sandbox_that_cannot_be_created() {
        Isolated::new()
            .map_sandbox(|sandbox| sandbox.map_root(|root| root.bind("/no/such/directory", "/mnt")))
            .run(|| ());
    }

    #[test]
    #[ignore = "it fails unless STOCKADE_TEST_INLINE is set"]
    fn is_inline() {
        isolated(|| assert_ne!(std::env::var("HOME").as_deref(), Ok("/home/sandbox"), "it runs in a sandbox"));
    }
}

/// What a harness said.
#[derive(Debug)]
struct Said {
    success: bool,
    text: String,
}

impl Said {
    #[track_caller]
    fn has(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.text.contains(text), "{text:?} is missing in:\n{}", self.text);
        }
    }
}

fn harness(args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut host = Host::new(std::env::current_exe().expect("own path"));
    let output = host.args(args).envs(variables.iter().copied()).output().expect("the test binary");
    let text = [output.stdout, output.stderr].map(|stream| String::from_utf8_lossy(&stream).into_owned()).concat();
    Said { success: output.status.success(), text }
}

/// What the harness says about a test that fails.
#[track_caller]
fn failure(name: &str) -> Said {
    let said = harness(&[&format!("{FAILING}{name}"), "--exact", "--ignored"], &[]);
    assert!(!said.success, "{}", said.text);
    said.has(&[&format!("test {FAILING}{name}"), "0 passed; 1 failed"]);
    said
}

#[test]
fn fifty_tests_collide_without_sandboxes_and_pass_in_their_own() {
    // Together in one sandbox, so that neither a port nor a file of the host is touched.
    let own = std::env::current_exe().expect("own path");
    let directory = own.parent().expect("a directory");
    let sandbox = profile::test().map_root(|root| root.bind(directory, directory)).env("STOCKADE_TEST_INLINE", "1");
    let args = ["same_port_and_file", "--test-threads=50"];
    let together = sandbox.output(Command::new(&own).args(args)).expect("an outcome");
    let text = String::from_utf8_lossy(&together.stdout);
    assert!(!together.outcome.success() && text.contains("AddrInUse"), "{text}");

    let apart = harness(&args, &[]);
    assert!(apart.success, "{}", apart.text);
    apart.has(&["50 passed; 0 failed"]);
}

#[test]
fn a_panic_fails_the_test_and_its_output_is_captured() {
    let said = failure("panics");
    said.has(&["---- failing::panics stdout ----\non stdout\n", "on stderr\n", "the reason", "tests/isolated.rs:"]);
    assert_eq!(said.text.matches("the reason").count(), 1, "{}", said.text);
    assert!(!said.text.contains("stockade: the test begins") && said.text.matches("running 1 test").count() == 1);
}

#[test]
fn output_of_a_test_that_passes_is_captured_unless_it_is_asked_for() {
    let name = "passing::ignored_tests_run";
    let captured = harness(&[name, "--exact", "--ignored"], &[]);
    assert!(captured.success && !captured.text.contains("an ignored test runs"), "{captured:?}");
    let shown = harness(&[name, "--exact", "--ignored", "--nocapture"], &[]);
    assert!(shown.success && shown.text.contains("an ignored test runs\n"), "{shown:?}");
}

#[test]
fn should_panic_looks_at_the_message() {
    failure("panics_with_the_wrong_message").has(&["this message", "another message"]);
    failure("does_not_panic").has(&["test did not panic as expected"]);
}

#[test]
fn an_error_fails_the_test() {
    failure("returns_an_error").has(&["Error: \"the error\""]);
}

#[test]
fn leaked_processes_fail_the_test_by_name() {
    failure("leaks").has(&["left processes running: ", "sleep (", "tail ("]);
    failure("leaks_and_panics").has(&["the reason", "left processes running: sleep ("]);
}

#[test]
fn exceeded_limits_are_named() {
    failure("exceeds_the_time").has(&["before the end", "wall-clock limit exceeded: 1s"]);
    if let Err(error) =
        Sandbox::new().map_cgroup(|cgroup| cgroup.memory_max(64 << 20).pids_max(64)).status(Command::new("true"))
    {
        eprintln!("skipped: limits on memory and processes, since no cgroup can be created: {error}");
        failure("exceeds_the_memory").has(&["the test was not run in a sandbox", "cgroup"]);
        return;
    }
    failure("exceeds_the_memory").has(&["memory limit exceeded: 33554432 bytes"]);
    failure("exceeds_the_processes").has(&["another process", "limit on processes exceeded: 8 (pids_max)"]);
}

#[test]
fn a_process_that_does_not_return_fails_the_test() {
    failure("exits").has(&["the test did not return: its process exited with 0"]);
    failure("aborts").has(&["the test did not return: its process killed by SIGABRT"]);
}

#[test]
fn a_forked_process_does_not_report_for_the_test() {
    failure("fails_after_a_forked_process_has_returned").has(&["the forked process: Exited(", ", 0)"]);
    failure("exits_after_a_forked_process_has_returned").has(&["the test did not return: its process exited with 0"]);
    failure("forks_before_the_call");
}

#[test]
fn a_process_that_fails_after_the_test_has_returned_fails_the_test() {
    failure("is_killed_after_it_has_returned").has(&["after the test had returned: killed by SIGABRT"]);
}

#[test]
fn a_test_that_isolates_in_two_threads_fails() {
    failure("isolates_in_two_threads").has(&["isolates closures in two threads: isolate them in one"]);
}

#[test]
fn a_test_whose_name_is_unknown_fails_with_what_to_do() {
    // Without `--exact`, which names it.
    let said = harness(&["failing::has_no_name", "--ignored"], &[]);
    assert!(!said.success, "{}", said.text);
    said.has(&["ran no test of the name", "set the name of the test"]);
}

#[test]
fn a_sandbox_that_cannot_be_created_fails_the_test() {
    failure("has_a_sandbox_that_cannot_be_created").has(&["/no/such/directory", "STOCKADE_TEST_INLINE=1"]);
}

#[test]
fn closures_run_in_the_test_for_debuggers_if_asked() {
    failure("is_inline").has(&["it runs in a sandbox"]);
    let inline = harness(&["failing::is_inline", "--exact", "--ignored"], &[("STOCKADE_TEST_INLINE", "1")]);
    assert!(inline.success, "{}", inline.text);
    // The variable of inner runs makes none.
    let forged = harness(&["failing::is_inline", "--exact", "--ignored"], &[("STOCKADE_TEST_RUN", "1:0")]);
    assert!(!forged.success, "{}", forged.text);
}

#[test]
fn the_options_of_the_harness_do_not_matter() {
    for options in [&["--test-threads=1"][..], &["--test-threads=1", "--nocapture"], &["--show-output"], &["--quiet"]] {
        let said = harness(&[&["passing::", "--skip", "same_port"], options].concat(), &[]);
        assert!(said.success, "{options:?}: {}", said.text);
    }
}

/// Started by root, the binary runs once more as a user who may create no cgroups.
#[test]
fn everything_holds_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it is an ordinary user already");
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let copy = place.path().join("tests");
    // Not by this process: one that another thread forks could hold the file open for writing (ETXTBSY).
    let cp = Host::new("cp").arg(std::env::current_exe().expect("own path")).arg(&copy).status();
    assert!(cp.is_ok_and(|status| status.success()), "a copy");
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    let mut host = Host::new(&copy);
    let output = host.uid(ORDINARY).gid(ORDINARY).env("HOME", "/").current_dir("/").output().expect("the test binary");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
