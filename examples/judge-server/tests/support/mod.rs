//! A server in this process, a client, and the processes of the host.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::fs::DirEntry;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use judge_server::judging::Judge;
use judge_server::places::Statistics;
use judge_server::sandboxes::Settings;
use judge_server::server;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinHandle;

/// How long the tests wait for what must happen. It says nothing about how long that should take.
const PATIENCE: Duration = Duration::from_secs(180);

/// Held by what starts many processes, so that the tests do not slow down each other.
static ALONE: Mutex<()> = Mutex::const_new(());

pub async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// Limits that a program exceeds soon, and that a busy machine does not.
pub fn settings() -> Settings {
    Settings { wall_time: Duration::from_secs(30), cpu_time: Duration::from_secs(1), ..Settings::default() }
}

/// Limits that no program of a test exceeds.
pub fn patient() -> Settings {
    Settings { wall_time: 10 * PATIENCE, ..settings() }
}

pub struct Server {
    pub address: SocketAddr,
    pub judge: Arc<Judge>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    pub async fn start(settings: Settings) -> Self {
        let alone = alone().await;
        let judge = Arc::new(Judge::new(&settings).await.expect("the host can start sandboxes"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server::serve(listener, judge.clone(), async {
            let _ = stopped.await;
        }));
        Self { address, judge, stop, serving, _alone: alone }
    }

    /// Asks the server to terminate, and returns what waits for that.
    pub fn stop(self) -> impl Future<Output = ()> {
        self.stop.send(()).expect("the server runs");
        async {
            tokio::time::timeout(PATIENCE, self.serving).await.expect("it terminates").unwrap().unwrap();
        }
    }

    pub fn statistics(&self) -> Statistics {
        self.judge.statistics()
    }

    /// Returns whether a cgroup limits and counts the memory of programs.
    pub fn has_cgroup(&self) -> bool {
        self.judge.enforcement().is_active(stockade::Layer::Cgroup)
    }
}

/// Sends a submission, and returns the status code and the JSON of the answer.
pub async fn submit(address: SocketAddr, submission: &Value) -> (u16, Value) {
    let mut stream = begin(address, submission).await;
    answer(&mut stream).await
}

/// Sends a submission, and returns the connection without waiting for the answer.
pub async fn begin(address: SocketAddr, submission: &Value) -> TcpStream {
    send(address, "POST /submissions", "application/json", submission.to_string().as_bytes()).await
}

pub async fn request(address: SocketAddr, route: &str, kind: &str, body: &[u8]) -> (u16, Value) {
    answer(&mut send(address, route, kind, body).await).await
}

async fn send(address: SocketAddr, route: &str, kind: &str, body: &[u8]) -> TcpStream {
    let head = format!(
        "{route} HTTP/1.1\r\nHost: judge\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    // A server that rejects a request need not read all of it.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    stream
}

/// Reads an answer.
pub async fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let mut bytes = vec![];
    // A server that has not read all of a request may reset the connection after the answer.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server answers");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {read:?}: {text}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Returns a submission without input.
pub fn submission(language: &str, source: &str, expected: &str) -> Value {
    json!({ "language": language, "source": source, "expected": expected })
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Returns an argument of sleep(1) of about 1,000 seconds that no other process has.
pub fn long_time(number: u32) -> String {
    format!("1000.{}{number:02}", std::process::id())
}

/// Returns a process of the host that has this argument, in whatever sandbox it is.
fn process(argument: &str) -> Option<Pid> {
    let has_argument = |process: &DirEntry| {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments.split(|&byte| byte == 0).any(|one| one == argument.as_bytes())
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(has_argument)?;
    found.file_name().to_str()?.parse().ok().map(Pid::from_raw)
}

/// Returns whether such a process runs.
pub fn runs(argument: &str) -> bool {
    process(argument).is_some()
}

/// Terminates such a process. What has started it goes on.
pub fn terminate(argument: &str) {
    kill(process(argument).expect("it runs"), Signal::SIGTERM).unwrap();
}
