//! The build of zstd in sandboxes, and steps that use what they have not declared. Started by root, these run as root, and
//! as the user with ID 1000 by `setpriv`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use hermetic_build::build::{Summary, build};
use hermetic_build::cache::{Cache, Keys};
use hermetic_build::digest::FileDigests;
use hermetic_build::hermetic::{self, StepFailure};
use hermetic_build::step::Step;
use hermetic_build::{measure, project};
use tempfile::TempDir;

const USER: u32 = 1000;

/// Runs a test once more as an ordinary user, if this is root.
fn as_user_too(test: &str) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // The program is in a directory that the user cannot enter.
    let place = shared();
    let program = place.path().join("test");
    fs::copy(std::env::current_exe().expect("the path"), &program).expect("a copy");
    let id = USER.to_string();
    let mut again = Command::new("setpriv");
    again.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(&program).args(["--exact", test, "--nocapture"]);
    let output = again.current_dir("/").env("HOME", "/tmp").output().expect("setpriv");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "as an ordinary user: {said}");
}

/// A directory that every user can enter.
fn shared() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
    directory
}

/// A directory of sources with these files.
fn sources(files: &[(&str, &str)]) -> TempDir {
    let directory = shared();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    directory
}

fn step(command: &[&str], inputs: &[&str], outputs: &[&str]) -> Step {
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    Step {
        name: "a step".into(),
        command: command.iter().map(|word| word.to_string()).collect(),
        inputs: paths(inputs).into_iter().collect(),
        outputs: paths(outputs),
    }
}

fn fails(step: &Step, sources: &Path) -> StepFailure {
    let failure = hermetic::run(step, sources).err().expect("a failure");
    *failure.downcast::<StepFailure>().expect("a failure of the step")
}

fn built(steps: &[Step], sources: &Path, cache: &Path, out: &Path) -> Summary {
    let sandbox = hermetic::base().fingerprint().expect("a fingerprint");
    let keys = Keys { sandbox, tools: project::tools().expect("a compiler"), sources, files: FileDigests::default() };
    let summary = build(steps, &keys, &Cache::open(cache).expect("a cache"), out, 2).expect("a build");
    assert!(summary.failures.is_empty(), "{}", summary.failures[0]);
    summary
}

/// All of zstd: the objects are those of a plain build, byte by byte, and the second build takes them from the cache.
#[test]
fn objects_are_equal_to_those_of_a_plain_build() {
    let sources = project::sources().expect("the sources of zstd");
    // Without optimisation, for time.
    let mut steps = project::steps(&sources).expect("steps");
    steps
        .iter_mut()
        .flat_map(|step| &mut step.command)
        .filter(|word| *word == "-O3")
        .for_each(|word| *word = "-O0".into());
    assert!(steps.len() > 30, "{}", steps.len());
    let place = shared();
    let (cache, plain) = (place.path().join("cache"), place.path().join("plain"));
    fs::create_dir(&plain).expect("a directory");
    for step in &steps {
        measure::run_plainly(step, &sources, &plain).expect("a plain build");
    }
    let first = place.path().join("first");
    let summary = built(&steps, &sources, &cache, &first);
    assert_eq!((summary.run, summary.cached), (steps.len(), 0));
    assert_eq!(measure::difference(&steps, &plain, &first).expect("objects"), None);
    let second = place.path().join("second");
    let summary = built(&steps, &sources, &cache, &second);
    assert_eq!((summary.run, summary.cached), (0, steps.len()));
    assert_eq!(measure::difference(&steps, &plain, &second).expect("objects"), None);
    // The objects link to a program that runs.
    let main = "#include <stdio.h>\nunsigned ZSTD_versionNumber(void);\nint main(void) { printf(\"%u\", ZSTD_versionNumber()); }\n";
    fs::write(place.path().join("main.c"), main).expect("a source");
    let mut linker = Command::new("cc");
    linker.arg(place.path().join("main.c")).arg("-o").arg(place.path().join("main")).arg("-lpthread");
    linker.args(steps.iter().flat_map(|step| &step.outputs).map(|output| second.join(output)));
    assert!(linker.status().expect("a linker").success());
    let output = Command::new(place.path().join("main")).output().expect("the program");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("10"), "{output:?}");
}

#[test]
fn what_a_result_depends_on_is_in_its_key() {
    let directory = sources(&[("a.c", "#include \"b.h\"\nint x = X;\n"), ("b.h", "#define X 1\n"), ("c.h", "")]);
    let place = shared();
    let (cache, out) = (place.path().join("cache"), place.path().join("out"));
    let compile = |options: &[&str], inputs: &[&str]| {
        let command = [&["cc", "-c", "a.c", "-o", "out/a.o"], options].concat();
        step(&command, inputs, &["a.o"])
    };
    let run = |step: Step| built(&[step], directory.path(), &cache, &out).run;
    assert_eq!(run(compile(&[], &["a.c", "b.h"])), 1);
    assert_eq!(run(compile(&[], &["a.c", "b.h"])), 0);
    assert_eq!(run(compile(&["-O2"], &["a.c", "b.h"])), 1, "another command");
    assert_eq!(run(compile(&[], &["a.c", "b.h", "c.h"])), 1, "another input");
    fs::write(directory.path().join("b.h"), "#define X 2\n").expect("a header");
    assert_eq!(run(compile(&[], &["a.c", "b.h"])), 1, "other contents");
    // A damaged entry is built again.
    for entry in fs::read_dir(cache.join("contents")).expect("the cache").flatten() {
        fs::write(entry.path(), "damaged").expect("an entry");
    }
    assert_eq!(run(compile(&[], &["a.c", "b.h"])), 1, "damaged");
    assert_eq!(run(compile(&[], &["a.c", "b.h"])), 0);
}

#[test]
fn undeclared_inputs_fail_with_their_paths() {
    let directory = sources(&[("lib/a.c", "#include \"../b.h\"\n"), ("b.h", ""), ("c.h", "")]);
    let elsewhere = sources(&[("d.h", "")]);
    let compile = ["cc", "-c", "lib/a.c", "-o", "out/a.o"];
    let declared = step(&compile, &["lib/a.c", "b.h"], &["a.o"]);
    hermetic::run(&declared, directory.path()).expect("with the input");
    let failure = fails(&step(&compile, &["lib/a.c", "c.h"], &["a.o"]), directory.path());
    assert_eq!(failure.accesses.undeclared, [PathBuf::from("b.h")].into());
    assert!(failure.to_string().contains("\nundeclared input: b.h: "), "{failure}");
    // And outside of the sources. On the host the same command succeeds.
    let header = elsewhere.path().join("d.h");
    let command = ["cc", "-include", header.to_str().expect("a path"), "-c", "lib/a.c", "-o", "out/a.o"];
    let outside = step(&command, &["lib/a.c", "b.h"], &["a.o"]);
    measure::run_plainly(&outside, directory.path(), elsewhere.path()).expect("on the host");
    let failure = fails(&outside, directory.path());
    assert_eq!(failure.accesses.undeclared, [header].into());
    as_user_too("undeclared_inputs_fail_with_their_paths");
}

#[test]
fn network_accesses_fail_with_their_addresses() {
    let directory = sources(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let script = format!("exec 3<>/dev/tcp/{}/{} && echo connected >&3", address.ip(), address.port());
    let download = step(&["bash", "-c", &script], &[], &[]);
    measure::run_plainly(&download, directory.path(), directory.path()).expect("on the host it is connected");
    let failure = fails(&download, directory.path());
    assert_eq!(failure.accesses.network, [address.to_string()].into());
    assert!(failure.to_string().contains(&format!("\nnetwork access: {address}: ")), "{failure}");
    as_user_too("network_accesses_fail_with_their_addresses");
}

/// An output that is a symlink to a file of the host is not followed.
#[test]
fn outputs_are_files() {
    let directory = sources(&[("secret", "42")]);
    let secret = directory.path().join("secret").display().to_string();
    let link = step(&["ln", "-s", &secret, "out/a.o"], &[], &["a.o"]);
    let out = shared();
    let produced = hermetic::run(&link, directory.path()).expect("it succeeds");
    assert!(produced.collect(out.path()).is_err());
    assert!(!out.path().join("a.o").exists());
    let nothing = hermetic::run(&step(&["true"], &[], &["a.o"]), directory.path()).expect("it succeeds");
    let failure = nothing.collect(out.path()).expect_err("no output").to_string();
    assert!(failure.contains("a.o"), "{failure}");
}

#[test]
fn a_step_sees_nothing_else_of_the_host() {
    let directory = sources(&[("in", "")]);
    let script = "ls / /build /tmp > out/a; cat /etc/passwd >> out/a; env | sort >> out/a; id -u >> out/a";
    let look = step(&["sh", "-c", script], &["in"], &["a"]);
    let out = shared();
    hermetic::run(&look, directory.path()).expect("it succeeds").collect(out.path()).expect("the output");
    let seen = fs::read_to_string(out.path().join("a")).expect("the output");
    assert!(seen.contains("/build:\nin\nout\n\n/tmp:\n") && seen.contains("HOME=/tmp\nLANG=C.UTF-8\n"), "{seen}");
    assert!(!seen.contains("home\n") && !seen.contains("CARGO"), "{seen}");
    assert_eq!(seen.lines().filter(|line| line.contains(":x:")).count(), 3, "{seen}");
}
