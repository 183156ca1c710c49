//! Code that the attacks share: how a payload reports the result of each attempt, how it is run inside and outside of a
//! sandbox, and a directory that must not change.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child as HostChild, Command as Host, Stdio as HostStdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stockade::{Command, Error, Identity, Landlock, Namespaces, Root, Sandbox, Seccomp};

pub use crate::support::apart::{apart, as_before, host_output};
use crate::support::{own_path, payload, payload_on_host, text, with_payload};

/// Says what came of an attempt.
pub fn attempt<T, E: Debug>(what: &str, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => {
            println!("{what}: done");
            Some(value)
        }
        Err(error) => {
            println!("{what}: {}", format!("{error:?}").replace('\n', " "));
            None
        }
    }
}

/// Says what a payload found out.
pub fn tell(what: &str, value: impl Debug) {
    println!("{what}: {}", format!("{value:?}").replace('\n', " "));
}

/// What a payload said.
#[derive(Debug)]
pub struct Attempts(BTreeMap<String, String>);

impl Attempts {
    pub fn parse(output: &str) -> Self {
        let lines = output.lines().filter_map(|line| line.split_once(": "));
        Self(lines.map(|(what, result)| (what.to_owned(), result.to_owned())).collect())
    }

    pub fn get(&self, what: &str) -> &str {
        self.0.get(what).unwrap_or_else(|| panic!("{what} was not tried: {self:?}"))
    }

    /// What was tried.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What succeeded.
    pub fn done(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, result)| *result == "done").map(|(what, _)| what.as_str())
    }

    #[track_caller]
    pub fn assert_done(&self, attempts: &[&str]) {
        for what in attempts {
            assert_eq!(self.get(what), "done", "{what}: the attack must work here, or its failure proves nothing");
        }
    }

    #[track_caller]
    pub fn assert_refused(&self, attempts: &[&str]) {
        for what in attempts {
            assert_ne!(self.get(what), "done", "{what} must be refused");
        }
    }

    /// The same of all but some.
    #[track_caller]
    pub fn assert_all_refused_but(&self, known: &[&str]) {
        for what in self.0.keys().filter(|what| !known.contains(&what.as_str())) {
            self.assert_refused(&[what]);
        }
    }

    /// Whether every attempt was refused.
    #[track_caller]
    pub fn assert_all_refused(&self) {
        assert!(!self.0.is_empty(), "nothing was tried");
        for what in self.0.keys() {
            self.assert_refused(&[what]);
        }
    }
}

/// The default sandbox, in which this binary's payloads can be run.
pub fn sandbox() -> Sandbox {
    Sandbox::new().root(with_payload(Root::host()))
}

/// Landlock that restricts nothing.
pub fn anything() -> Landlock {
    Landlock::new().any_path().any_tcp().any_abstract_socket().any_signal()
}

/// The same sandbox without its filter of system calls, so that the other layers are seen alone.
pub fn unfiltered(sandbox: &Sandbox) -> Sandbox {
    sandbox.clone().seccomp(Seccomp::unconfined())
}

/// A sandbox that is nothing but the caller without capabilities: no namespace, no root of its own, no filter.
pub fn bare() -> Sandbox {
    let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit()).identity(Identity::caller());
    unfiltered(&bare)
}

/// A payload where the host's file system is seen as it is.
pub fn here(name: &str) -> Command {
    let mut command = Command::new(own_path());
    command.args(["--payload", name]);
    command
}

/// Tests whose sandboxes have cgroups take turns: some look at what the whole process has left. So do those that have
/// the kernel request modules.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a payload in a sandbox to its successful end.
#[track_caller]
pub fn attack(sandbox: &Sandbox, name: &str, args: &[&str]) -> Attempts {
    attack_as(sandbox, payload(name).args(args))
}

/// The same, with a command that has more to it.
#[track_caller]
pub fn attack_as(sandbox: &Sandbox, command: &Command) -> Attempts {
    let output = sandbox.output(command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.outcome.success(), "{}: {out:?}, stderr {err:?}", output.outcome);
    Attempts::parse(&out)
}

/// Runs a payload on the host to its successful end.
#[track_caller]
pub fn attack_on_host(name: &str, args: &[&str]) -> Attempts {
    attack_by(payload_on_host(name).args(args))
}

/// Runs a host's command that ends in a payload.
#[track_caller]
pub fn attack_by(command: &mut Host) -> Attempts {
    Attempts::parse(&host_output(command))
}

/// A payload on the host, behind a script that was run in a mount namespace of its own: with the rights that the
/// script has.
pub fn privately(script: &str, name: &str, args: &[&str]) -> Host {
    in_namespaces(&["-m"], script, "", name, args)
}

/// The same, where an ordinary user is one again before the payload starts.
pub fn privately_as_before(script: &str, name: &str, args: &[&str]) -> Host {
    in_namespaces(&["-m"], script, &as_before(), name, args)
}

pub fn in_namespaces(namespaces: &[&str], script: &str, before: &str, name: &str, args: &[&str]) -> Host {
    let own = own_path();
    let mut all: Vec<&OsStr> = vec![own.as_os_str(), "--payload".as_ref(), name.as_ref()];
    all.extend(args.iter().map(|arg| OsStr::new(*arg)));
    apart(namespaces, &format!("{script}\nexec {before} \"$@\""), &all)
}

/// A root that has what dynamically linked programs need.
pub fn runnable(root: Root) -> Root {
    ["/bin", "/lib", "/lib64"].into_iter().fold(root.bind("/usr", "/usr"), |root, path| match fs::read_link(path) {
        Ok(text) => root.symlink(text, path),
        Err(_) if Path::new(path).is_dir() => root.bind(path, path),
        Err(_) => root,
    })
}

/// A sandbox that could not be made says which of its steps failed, and why.
#[track_caller]
pub fn assert_typed(error: &Error) {
    assert!(crate::support::is_set_up(error) || crate::support::is_invalid(error), "{error:?}");
}

/// A directory that nothing may change, although everybody has the right to.
pub struct Canary {
    pub path: PathBuf,
    before: Vec<Seen>,
}

/// Path, mode, owner, and contents or text.
type Seen = (PathBuf, u32, u32, Vec<u8>);

impl Canary {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        open_directory(&path);
        fs::write(path.join("file"), "canary\n").expect("file");
        fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o666)).expect("permissions");
        open_directory(&path.join("directory"));
        let before = look(&path);
        Self { path, before }
    }

    #[track_caller]
    pub fn assert_unchanged(&self, by: impl Debug) {
        assert_eq!(look(&self.path), self.before, "changed by {by:?}");
    }

    /// Asserts that an attack has left `name` here, and takes it away again.
    #[track_caller]
    pub fn assert_hit(&self, name: &str) {
        let left = self.path.join(name);
        let meta = left.symlink_metadata().unwrap_or_else(|_| panic!("the attack must work here: {name} is missing"));
        if meta.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) }.expect("clean up");
        self.assert_unchanged("the clean-up");
    }
}

/// A new directory that everybody may write to.
pub fn open_directory(path: &Path) {
    fs::create_dir_all(path).expect("directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("permissions");
}

fn look(path: &Path) -> Vec<Seen> {
    let mut entries: Vec<_> = fs::read_dir(path).expect("canary").map(|entry| entry.expect("entry").path()).collect();
    entries.sort();
    let mut seen = vec![];
    for entry in entries {
        let meta = entry.symlink_metadata().expect("metadata");
        let contents = match meta.file_type() {
            kind if kind.is_file() => fs::read(&entry).expect("contents"),
            kind if kind.is_symlink() => fs::read_link(&entry).expect("text").into_os_string().into_encoded_bytes(),
            _ => vec![],
        };
        seen.push((entry.clone(), meta.mode(), meta.uid(), contents));
        if meta.is_dir() {
            seen.extend(look(&entry));
        }
    }
    seen
}

/// Makes a symlink, and what is missing above it.
pub fn link(text: impl AsRef<Path>, at: &Path) {
    open_directory(at.parent().expect("parent"));
    symlink(text, at).expect("symlink");
}

/// A process of the host that is killed when it is let go.
pub struct Bystander(HostChild);

impl Bystander {
    pub fn start(command: &mut Host) -> Self {
        Self(command.stdin(HostStdio::null()).stdout(HostStdio::piped()).spawn().expect("a process of the host"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for a line of its output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().expect("output");
        // A byte at a time: what follows the line is for whoever reads next.
        for byte in BufReader::with_capacity(1, stdout).bytes() {
            match byte.expect("output") {
                b'\n' => break,
                byte => line.push(byte.into()),
            }
        }
        line
    }

    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("status").is_none()
    }

    /// What it wrote, if it ends with success in time.
    #[track_caller]
    pub fn finish(&mut self, within: Duration) -> String {
        let end = Instant::now() + within;
        while self.is_alive() {
            assert!(Instant::now() < end, "process {} hangs", self.pid());
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut output = String::new();
        self.0.stdout.as_mut().expect("output").read_to_string(&mut output).expect("output");
        let status = self.0.wait().expect("status");
        assert!(status.success(), "{status}: {output}");
        output
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first line of a stream.
pub fn first_line(stream: impl Read) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// A line, and nothing of what follows.
pub fn line(stream: &mut impl Read) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0].into());
    }
    line
}

/// The ids of a process in its own user namespace.
pub fn ids_of(pid: u32) -> (u32, u32) {
    let inside = |file: &str| {
        let map = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        map.split_whitespace().next().unwrap().parse().unwrap()
    };
    (inside("uid_map"), inside("gid_map"))
}

/// Whether this kernel was booted for the tests alone (tests/vm), so that its settings are theirs.
pub fn is_machine_of_tests() -> bool {
    fs::read_to_string("/proc/cmdline").unwrap().contains("STOCKADE_TESTS_SLOW=")
}
