//! Real servers and clients: one BuildGrid for all tests, which run one after another, and a workspace of Bazel for each.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// An ordinary user for workers that are not root.
const USER: u32 = 1000;

/// Where `builds install` has put its programs.
const PROGRAMS: &str = "STOCKADE_BUILD_ENGINES";

pub fn engines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engines")
}

/// The server, for one test.
pub struct Engine {
    pub server: &'static Server,
    _alone: MutexGuard<'static, ()>,
}

pub struct Server {
    pub state: PathBuf,
    pub port: u16,
    pub programs: PathBuf,
}

impl Engine {
    /// Starts the server, unless it runs. If a program is missing, prints that the test is skipped.
    pub fn start(test: &str) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        match SERVER.get_or_init(Server::start) {
            Ok(server) => Some(Self { server, _alone: alone }),
            Err(reason) => {
                println!("skipped: {test}: {reason}");
                None
            }
        }
    }
}

impl Server {
    fn start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("engines/builds requires root".into());
        }
        let programs = std::env::var_os(PROGRAMS).map(PathBuf::from);
        let programs = programs.ok_or_else(|| {
            format!("{PROGRAMS} is not set: run `engines/builds install DIRECTORY`, and set it to the directory")
        })?;
        let builds = engines().join("builds");
        let missing = Command::new(&builds).arg("missing").arg(&programs).output().unwrap();
        let missing = String::from_utf8_lossy(&missing.stdout).trim().replace('\n', ", ");
        if !missing.is_empty() {
            return Err(format!("missing: {missing}: run `engines/builds install {}`", programs.display()));
        }
        let state = PathBuf::from(format!("/var/tmp/stockade-builds-{}", std::process::id()));
        let port = two_free_ports();
        fs::create_dir(&state).unwrap();
        // It goes with this process, however that ends.
        let own = std::process::id().to_string();
        let mut start = Command::new(&builds);
        start.arg("start").args([&programs, &state]).arg(port.to_string()).arg(own).stdin(Stdio::null());
        // Files, since the server has them for as long as it runs.
        let log = File::create(state.join("start.log")).unwrap();
        let status = start.stdout(log.try_clone().unwrap()).stderr(log).process_group(0).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(state.join("start.log")).unwrap());
        Ok(Self { state, port, programs })
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills the server, and starts it again.
    pub fn restart(&self) {
        let pid = fs::read_to_string(self.state.join("server.pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        let mut start = Command::new(engines().join("builds"));
        start.arg("server").arg(&self.state).arg(self.port.to_string()).stdin(Stdio::null()).process_group(0);
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success());
    }

    /// Runs the client of BuildGrid.
    pub fn bgd(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.programs.join("buildgrid/bin/bgd"));
        let output = command.args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Returns the rows that a query of the server's database has.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let mut command = Command::new("psql");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg((self.port + 1).to_string());
        let output = command.args(["-d", "buildgrid", "-tA", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

fn two_free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if first < u16::MAX && TcpListener::bind(("127.0.0.1", first + 1)).is_ok() {
            return first;
        }
    }
}

/// A workspace of Bazel.
pub struct Workspace {
    directory: TempDir,
}

impl Workspace {
    /// Copies the workspace of the tests, or a directory of sources.
    pub fn new(server: &Server, sources: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("workspace-").tempdir_in(&server.state).unwrap();
        copy(sources, &directory.path().join("sources"));
        copy(&engines().join("bazel/stubs"), &directory.path().join("stubs"));
        let settings = fs::read_to_string(engines().join("bazel/bazelrc")).unwrap();
        let stubs = directory.path().join("stubs");
        let settings = settings.replace("STUBS", stubs.to_str().unwrap()).replace("PORT", &server.port.to_string());
        let workspace = Self { directory };
        fs::write(workspace.path(".bazelrc"), settings).unwrap();
        workspace
    }

    pub fn of_tests(server: &Server) -> Self {
        Self::new(server, &engines().join("bazel/workspace"))
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("sources").join(path)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("bazel");
        command.current_dir(self.path("")).stdin(Stdio::null()).process_group(0);
        command.arg(format!("--output_user_root={}", self.directory.path().join("output").display()));
        command.arg("--max_idle_secs=120").args(arguments);
        command
    }

    /// Runs Bazel, and returns its exit code and all that it has printed.
    pub fn bazel(&self, arguments: &[&str]) -> (Option<i32>, String) {
        text(self.command(arguments).output().unwrap())
    }

    pub fn build(&self, targets: &[&str]) -> String {
        let arguments: Vec<_> = ["build", "--config=remote"].iter().chain(targets).copied().collect();
        let (code, output) = self.bazel(&arguments);
        assert_eq!(code, Some(0), "{output}");
        output
    }

    pub fn read(&self, output: &str) -> String {
        fs::read_to_string(self.path("bazel-bin").join(output)).unwrap()
    }
}

pub fn text(output: Output) -> (Option<i32>, String) {
    let both = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&both).into_owned())
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Bazel leaves a server, and makes directories read-only.
        let _ = self.command(&["shutdown"]).output();
        let _ = stockade::collect::remove_dir_all(self.directory.path());
    }
}

pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-RT").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// A process of stockade-reapi.
pub struct Worker {
    pub directory: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// The user and the group, if not that of the tests.
    user: Option<u32>,
    process: Child,
}

impl Worker {
    pub fn start(server: &Server, name: &str, arguments: &[&str]) -> Self {
        Self::start_program(server, name, arguments, env!("CARGO_BIN_EXE_stockade-reapi").into(), None)
    }

    /// Starts a worker that is not root.
    pub fn start_as_user(server: &Server, name: &str, arguments: &[&str]) -> Self {
        // The folder of cargo may not be for all users.
        let program = server.state.join("stockade-reapi");
        fs::copy(env!("CARGO_BIN_EXE_stockade-reapi"), &program).unwrap();
        let directory = server.state.join(name);
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::chown(&directory, Some(USER), Some(USER)).unwrap();
        Self::start_program(server, name, arguments, program, Some(USER))
    }

    fn start_program(server: &Server, name: &str, arguments: &[&str], program: PathBuf, user: Option<u32>) -> Self {
        let directory = server.state.join(name);
        let mut all = vec!["--server".to_owned(), server.address(), "--heartbeat".to_owned(), "5".to_owned()];
        all.extend(["--directory".to_owned(), directory.to_str().unwrap().to_owned()]);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let process = spawn(&program, &directory, &all, user);
        Self { directory, program, arguments: all, user, process }
    }

    /// Sends SIGKILL, and waits.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.wait();
    }

    pub fn restart(&mut self) {
        self.process = spawn(&self.program, &self.directory, &self.arguments, self.user);
    }

    pub fn terminate(&self) {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait().unwrap();
        // The number may be another process's by then.
        let _ = fs::remove_file(self.directory.with_extension("pid"));
        status
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.with_extension("log")).unwrap()
    }

    /// Returns the number of directories of actions.
    pub fn actions(&self) -> usize {
        fs::read_dir(self.directory.join("actions")).map_or(0, Iterator::count)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gently, so that the server does not wait for it.
        self.terminate();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if self.process.try_wait().unwrap().is_some() {
                self.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
    }
}

fn spawn(program: &Path, directory: &Path, arguments: &[String], user: Option<u32>) -> Child {
    let log = File::options().create(true).append(true).open(directory.with_extension("log")).unwrap();
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let process = command.process_group(0).spawn().unwrap();
    // For `builds`, which ends it if this process ends first.
    fs::write(directory.with_extension("pid"), process.id().to_string()).unwrap();
    process
}

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "waiting in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    started.elapsed()
}

/// Returns whether a process runs with exactly these arguments.
pub fn runs(arguments: &[&str]) -> bool {
    let wanted: Vec<u8> = arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.map(|process| process.path().join("cmdline")).any(|path| fs::read(path).is_ok_and(|line| line == wanted))
}
