//! The files of `examples/config`: each is copied beside inputs, and runs as a reader would run it.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command as Host;
use std::time::{Duration, Instant};

use stockade::config::Config;
use stockade::{Output, Result, Termination};
use tempfile::TempDir;

use crate::support::{at_most, is_root, shared_dir, text, unless_python, unless_runs};

/// The directory of an example, with its inputs.
struct Inputs(TempDir);

impl Inputs {
    /// Copies a file of the examples to a new directory.
    fn of(example: &str) -> Self {
        let inputs = Self(shared_dir());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config").join(example);
        // The folder of the sources may not be the user's to read: its text is in the binary.
        let known = EXAMPLES.iter().find(|(name, _)| *name == example).map(|(_, text)| *text);
        let text = known.unwrap_or_else(|| panic!("{} is in the list of this test", source.display()));
        inputs.with(example, text)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, contents: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, contents).expect("a file");
        self
    }

    fn with_dir(self, name: &str) -> Self {
        fs::create_dir_all(self.path(name)).expect("a directory");
        self
    }

    /// Runs the example.
    fn run(&self, example: &str) -> Result<Output> {
        let config = Config::read(self.path(example))?;
        config.sandbox()?.output(config.command()?)
    }

    /// Runs the example, and returns its standard output. It must succeed.
    #[track_caller]
    fn succeeds(&self, example: &str) -> String {
        let output = self.run(example).unwrap_or_else(|error| panic!("{example}: {error}"));
        let said = format!("{}\n{}\n{}", output.outcome, text(&output.stdout), text(&output.stderr));
        assert!(output.outcome.success(), "{example}: {said}");
        text(&output.stdout)
    }
}

macro_rules! examples {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../examples/config/", $name)))),+]
    };
}

const EXAMPLES: &[(&str, &str)] = examples![
    "agent-shell.toml",
    "cargo-test.toml",
    "cc.json",
    "cc.toml",
    "gpu.toml",
    "judge-cpp.toml",
    "judge-java.toml",
    "make.toml",
    "pytest.toml",
    "test-server.toml",
];

fn unless_cc() -> Option<String> {
    unless_runs("cc")
}

fn unless_cxx() -> Option<String> {
    unless_runs("c++")
}

fn unless_make() -> Option<String> {
    unless_runs("make").or_else(unless_cc)
}

fn unless_git() -> Option<String> {
    unless_runs("git")
}

fn unless_javac() -> Option<String> {
    let error = Host::new("javac").arg("-version").output().err();
    error.map(|error| format!("javac can't be run: {error}"))
}

fn unless_pytest() -> Option<String> {
    let output = Host::new("/usr/bin/python3").args(["-m", "pytest", "--version"]).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("/usr/bin/python3 has no pytest: {}", text(&output.stderr))),
        Err(error) => Some(format!("/usr/bin/python3 can't be run: {error}")),
    }
}

fn unless_rustup() -> Option<String> {
    let home = std::env::home_dir().unwrap_or_default();
    let missing = [".cargo/bin/cargo", ".rustup/toolchains"].into_iter().find(|path| !home.join(path).exists());
    missing.map(|path| format!("this user has no toolchain of rustup: {} is missing", home.join(path).display()))
}

fn unless_gpu() -> Option<String> {
    let found = ["/dev/nvidia0", "/dev/kfd", "/dev/dri/renderD128"].into_iter().any(|path| Path::new(path).exists());
    (!found).then(|| "this host has no GPU: no /dev/nvidia0, /dev/kfd or /dev/dri/renderD128".into())
}

const HELLO: &str = "#include <stdio.h>\nint main(void) { puts(\"hello\"); }\n";

#[apply(test)]
#[skip(unless_cc)]
fn the_compiler_writes_its_output_alone() {
    for example in ["cc.toml", "cc.json"] {
        let inputs = Inputs::of(example).with("src/main.c", HELLO).with_dir("out");
        inputs.succeeds(example);
        let built = Host::new(inputs.path("out/program")).output().expect("the program");
        assert_eq!(built.stdout, b"hello\n");
        assert_eq!(fs::read_dir(inputs.path("src")).expect("the sources").count(), 1);
    }
}

#[apply(test)]
fn both_files_of_the_compiler_are_the_same() {
    let inputs = Inputs::of("cc.toml").with("cc.json", EXAMPLES[2].1);
    let [toml, json] = ["cc.toml", "cc.json"].map(|name| Config::read(inputs.path(name)).expect("a configuration"));
    assert_eq!(toml, json);
}

#[apply(test)]
#[skip(unless_cxx)]
fn a_submission_in_cxx_answers_and_is_stopped_at_its_limit() {
    let source = "#include <iostream>\n\
                  int main() { long a, b; std::cin >> a >> b; if (a < 0) for (;;) {} std::cout << a + b << '\\n'; }";
    let inputs = Inputs::of("judge-cpp.toml").with("main.cc", source).with("input.txt", "20 22\n").with_dir("out");
    let compiled =
        Host::new("c++").arg("-O1").arg("-o").args([inputs.path("out/program"), inputs.path("main.cc")]).output();
    let compiled = compiled.expect("the compiler");
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    assert_eq!(inputs.succeeds("judge-cpp.toml"), "42");
    let endless = inputs.with("input.txt", "-1 0\n");
    let output = endless.run("judge-cpp.toml").expect("an outcome");
    let termination = output.outcome.termination;
    assert!(matches!(termination, Termination::CpuTime | Termination::WallTime), "{}", output.outcome);
}

#[apply(test)]
#[skip(unless_javac)]
fn a_submission_in_java_answers() {
    let source = "public class Main { public static void main(String[] a) throws Exception { \
                  var in = new java.util.Scanner(System.in); System.out.println(in.nextLong() + in.nextLong()); \
                  try { new java.net.Socket(\"127.0.0.1\", 1); } \
                  catch (java.net.ConnectException e) { System.out.println(\"a socket\"); } \
                  catch (java.io.IOException e) { System.out.println(\"no socket\"); } } }";
    let inputs =
        Inputs::of("judge-java.toml").with("Main.java", source).with("input.txt", "20 22\n").with_dir("classes");
    let compiled = Host::new("javac").arg("-d").args([inputs.path("classes"), inputs.path("Main.java")]).output();
    let compiled = compiled.expect("the compiler");
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    let said = inputs.succeeds("judge-java.toml");
    assert!(said.starts_with("42"), "{said}");
}

#[apply(test)]
#[skip(unless_pytest)]
fn tests_of_a_python_project_run_and_change_nothing() {
    let tests = "import pathlib, socket\n\
                 def test_adds(): assert 20 + 22 == 42\n\
                 def test_listens(): socket.create_server(('127.0.0.1', 8080))\n\
                 def test_writes_to_tmp(tmp_path): (tmp_path / 'a').write_text('b')\n";
    let inputs = Inputs::of("pytest.toml").with("project/test_all.py", tests);
    let said = inputs.succeeds("pytest.toml");
    assert!(said.contains("3 passed"), "{said}");
    assert_eq!(fs::read_dir(inputs.path("project")).expect("the project").count(), 1);
    let writing = inputs.with("project/test_all.py", "def test_writes(): open('/project/a', 'w')\n");
    let output = writing.run("pytest.toml").expect("an outcome");
    assert_eq!(output.outcome.termination, Termination::Exited(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("Read-only file system"), "{}", text(&output.stdout));
}

#[apply(test)]
#[skip(unless_rustup)]
fn tests_of_a_rust_crate_run_without_network_and_keys() {
    let manifest = "[package]\nname = \"adds\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    let tests = "#[test]\nfn adds() { assert_eq!(20 + 22, 42); }\n\
                 #[test]\nfn has_no_keys() { assert!(!std::path::Path::new(\"/root/.cargo\").exists()); }\n\
                 #[test]\nfn has_no_network() { assert!(std::net::TcpStream::connect(\"192.0.2.1:9\").is_err()); }\n";
    let inputs = Inputs::of("cargo-test.toml")
        .with("project/Cargo.toml", manifest)
        .with("project/src/lib.rs", tests)
        .with_dir("target");
    let cargo = std::env::home_dir().unwrap_or_default().join(".cargo/bin/cargo");
    let locked = Host::new(cargo).args(["generate-lockfile", "--offline"]).current_dir(inputs.path("project")).output();
    assert!(locked.as_ref().is_ok_and(|output| output.status.success()), "{locked:?}");
    let said = inputs.succeeds("cargo-test.toml");
    assert!(said.contains("3 passed"), "{said}");
    assert!(inputs.path("target/debug").exists() && !inputs.path("project/target").exists());
}

#[apply(test)]
#[skip(unless_make)]
fn make_builds_and_its_recipes_cannot_change_the_makefile() {
    let makefile = "all: program\n\nprogram: main.c\n\tcc -o $@ $<\n\nattack:\n\techo 'all:' >Makefile\n";
    let inputs = Inputs::of("make.toml").with("project/Makefile", makefile).with("project/main.c", HELLO);
    inputs.succeeds("make.toml");
    let built = Host::new(inputs.path("project/program")).output().expect("the program");
    assert_eq!(built.stdout, b"hello\n");
    let mut config = Config::read(inputs.path("make.toml")).expect("a configuration");
    config.command = Some(["make", "-f", "Makefile", "attack"].map(Into::into).to_vec());
    let attack = |config: &Config| {
        let output = config.sandbox().and_then(|sandbox| sandbox.output(config.command()?)).expect("an outcome");
        let kept = fs::read_to_string(inputs.path("project/Makefile")).expect("the makefile") == makefile;
        (output.outcome.success(), kept)
    };
    assert_eq!(attack(&config), (false, true));
    config.protect.clear();
    assert_eq!(attack(&config), (true, false), "what protects it is the key");
}

#[apply(test)]
#[skip(unless_git)]
fn an_agents_shell_has_a_terminal_and_cannot_plant_hooks() {
    let inputs = Inputs::of("agent-shell.toml").with_dir("repository");
    let created = Host::new("git").args(["init", "-q"]).arg(inputs.path("repository")).status().expect("git");
    assert!(created.success());
    let config = Config::read(inputs.path("agent-shell.toml")).expect("a configuration");
    let mut child = config.sandbox().and_then(|sandbox| sandbox.spawn(config.command()?)).expect("a shell");
    let mut terminal = child.pty.take().expect("a terminal");
    let script = "tty; echo made >file; echo evil >.git/hooks/post-checkout; echo evil >.envrc; ls /home; exit 7\n";
    terminal.write_all(script.as_bytes()).expect("typed");
    let mut said = vec![];
    terminal.read_to_end(&mut said).expect("what the terminal shows");
    let said = String::from_utf8_lossy(&said).into_owned();
    let outcome = child.wait().expect("an outcome");
    assert_eq!(outcome.termination, Termination::Exited(7), "{outcome}: {said}");
    assert!(said.contains("/dev/pts/0"), "{said}");
    assert_eq!(fs::read_to_string(inputs.path("repository/file")).expect("a file"), "made\n");
    assert!(!inputs.path("repository/.git/hooks/post-checkout").exists(), "{said}");
    assert!(!inputs.path("repository/.envrc").exists(), "{said}");
}

#[apply(test)]
#[skip(unless_python)]
fn a_server_for_a_test_is_reached_through_its_session() {
    let inputs = Inputs::of("test-server.toml").with("site/index.html", "<p>served</p>");
    let config = Config::read(inputs.path("test-server.toml")).expect("a configuration");
    // Two at once have the same port.
    let sessions = [0, 1].map(|_| config.sandbox().and_then(|sandbox| sandbox.start()).expect("a session"));
    let servers =
        sessions.each_ref().map(|session| session.spawn(config.command().expect("a command")).expect("a server"));
    for session in &sessions {
        let start = Instant::now();
        let mut stream = loop {
            match session.connect_tcp("127.0.0.1:8080".parse().expect("an address")) {
                Ok(stream) => break stream,
                Err(error) => assert!(start.elapsed() < at_most(Duration::from_secs(20)), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with("<p>served</p>"), "{answer}");
    }
    drop((servers, sessions));
}

/// Its text is read on every host: tests/config.rs.
#[apply(test)]
#[skip(unless_gpu)]
fn a_program_on_a_gpu_opens_the_device() {
    let program = "import glob, os\n\
                   known = ['/dev/nvidia0', '/dev/kfd'] + glob.glob('/dev/dri/render*')\n\
                   found = [path for path in known if os.path.exists(path)]\n\
                   opened = [path for path in found if os.access(path, os.R_OK | os.W_OK) and os.open(path, os.O_RDWR)]\n\
                   open('/results/found', 'w').write(' '.join(found))\n\
                   print(found, opened)\n";
    let inputs = Inputs::of("gpu.toml").with("compute.py", program).with_dir("results");
    inputs.succeeds("gpu.toml");
    let found = fs::read_to_string(inputs.path("results/found")).expect("results");
    assert!(found.starts_with("/dev/"), "{found}");
}

/// Options over a file, as a command line would have them.
#[apply(test)]
#[skip(crate::support::unless_idmapped_mounts)]
fn options_change_a_file_that_runs() {
    let inputs = Inputs::of("cc.toml").with_dir("src").with_dir("out");
    let file = Config::read(inputs.path("cc.toml")).expect("a configuration");
    let mut options = Config::default();
    options.command = Some(["sh", "-c", "echo $A; cat /more/file; ulimit -n"].map(Into::into).to_vec());
    options.env.insert("A".into(), "set".into());
    options.ro.push(stockade::config::bind("more:/more").expect("a bind"));
    options.rlimits.insert(stockade::limits::Resource::Nofile, (99, 99));
    let inputs = inputs.with("more/file", "read\n");
    let config = file.overridden_by(options.resolve(inputs.0.path()));
    let output = config.sandbox().and_then(|sandbox| sandbox.output(config.command()?)).expect("an outcome");
    assert_eq!(text(&output.stdout), "set\nread\n99");
}

/// A `PATH` of the file is where programs are searched for.
#[apply(test)]
fn the_path_of_a_file_replaces_the_default_one() {
    let read = |text: &str| {
        let config = Config::parse(text, stockade::config::ConfigFormat::Toml, "/").expect("a configuration");
        config.sandbox().and_then(|sandbox| sandbox.output(config.command()?))
    };
    let tools = "files = { '/tools/hello' = \"\" }\ncommand = ['sh', '-c', 'echo $PATH']\n";
    assert_eq!(text(&read(tools).expect("an outcome").stdout), "/usr/local/bin:/usr/bin:/bin");
    let elsewhere = read(&format!("{tools}env = {{ PATH = '/tools:/bin' }}")).expect("an outcome");
    assert_eq!(text(&elsewhere.stdout), "/tools:/bin");
    let nowhere = read(&format!("{tools}env = {{ PATH = '/tools' }}")).expect_err("no shell there");
    assert_eq!(nowhere.searched(), [Path::new("/tools/sh")]);
}

/// Descriptors of files, and of the caller.
#[apply(test)]
fn descriptors_are_those_of_the_file() {
    let dir = shared_dir();
    fs::write(dir.path().join("in"), "read").expect("a file");
    fs::write(dir.path().join("log"), "old ").expect("a file");
    let own = fs::File::open(dir.path().join("in")).expect("a file");
    let text = format!(
        "command = ['sh', '-c', 'cat; cat <&7; echo appended >&4; echo written >&5; echo lost >&2']\n\
         [descriptors]\n0 = {{ read = 'in' }}\n7 = {{ caller = {} }}\n4 = {{ append = 'log' }}\n5 = {{ write = 'out' }}\n\
         2 = 'null'\n",
        std::os::fd::AsRawFd::as_raw_fd(&own)
    );
    let config = Config::parse(&text, stockade::config::ConfigFormat::Toml, dir.path()).expect("a configuration");
    let output = config.sandbox().and_then(|sandbox| sandbox.output(config.command()?)).expect("an outcome");
    assert_eq!((output.stdout.as_slice(), output.stderr.len()), (b"readread".as_slice(), 0), "{}", output.outcome);
    let written = ["log", "out"].map(|name| fs::read_to_string(dir.path().join(name)).expect("a file"));
    assert_eq!(written, ["old appended\n", "written\n"]);
    let closed = Config::parse(
        "command = ['true']\ndescriptors = { 9 = { caller = 9999 } }",
        stockade::config::ConfigFormat::Toml,
        "/",
    );
    let error = closed.and_then(|config| config.command()).expect_err("no such descriptor").to_string();
    assert!(error.contains("the caller has no descriptor 9999"), "{error} as root: {}", is_root());
}
