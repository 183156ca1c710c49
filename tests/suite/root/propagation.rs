//! Mounts of the host and of the sandbox do not propagate to each other, whichever is created later.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command as Host, Stdio as HostStdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use stockade::{Command, Root, Sandbox, Stdio};

use crate::root::{unless_writable_tmpfs, with};
use crate::support::{in_mount_namespace, is_root, shared_dir, unless_overlays};

payloads![("outwards", outwards), ("inwards", inwards)];

/// Every mount of the host is one that propagates.
const SHARED: &str =
    "mount -t tmpfs -o mode=755 none \"$dir/shared\"; mkdir \"$dir/shared/sub\"; mount --make-rshared /";

fn dir() -> tempfile::TempDir {
    let dir = shared_dir();
    fs::create_dir(dir.path().join("shared")).expect("directory");
    dir
}

#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn mounts_of_the_sandbox_do_not_reach_the_host() {
    in_mount_namespace(SHARED, "outwards", dir().path());
}

fn table() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("mounts of the host")
}

fn outwards(args: &[String]) -> i32 {
    let before = table();
    assert!(before.contains(" shared:"), "{before}");
    let shared = Path::new(&args[0]).join("shared");
    let changed = match unless_overlays() {
        None => Root::host().overlay(&shared, "/d").file("/d/file", "text"),
        Some(_) => Root::host(),
    };
    let roots = [
        Root::host()
            .bind_rw(&shared, "/d")
            .tmpfs("/d/sub", 1 << 20)
            .tmpfs("/usr/bin", 1 << 20)
            .bind("/usr/bin", "/usr/bin"),
        changed.mask("/etc"),
        Root::from_dir("/").dev("/dev").proc("/proc"),
        Root::inherit(),
    ];
    for root in roots {
        let (_child, _) = Waiting::sandbox(&with(root), "true");
        assert_eq!(table(), before);
    }
    0
}

#[apply(test)]
#[skip(unless_writable_tmpfs)]
fn mounts_of_the_host_do_not_reach_the_sandbox() {
    let dir = dir();
    for fifo in ["mount", "mounted"] {
        mkfifo(&dir.path().join(fifo), Mode::from_bits_truncate(0o666)).expect("fifo");
    }
    // What the payload may not do as an ordinary user: it asks for it.
    let script = format!(
        "{SHARED}
        timeout 60 sh -c 'read line < \"$1/mount\"
            mount -t tmpfs none \"$1/shared/sub\" && echo late > \"$1/shared/sub/file\"
            echo > \"$1/mounted\"' sh \"$dir\" > /dev/null 2>&1 &"
    );
    in_mount_namespace(&script, "inwards", dir.path());
}

/// Something that says that it runs, waits for a line, and then says what it sees.
struct Waiting<I, O> {
    input: I,
    output: BufReader<O>,
}

impl<I: Write, O: Read> Waiting<I, O> {
    fn new(input: I, output: O) -> Self {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).expect("first line");
        assert_eq!(line, "ready\n");
        Self { input, output }
    }

    fn sees(mut self) -> String {
        self.input.write_all(b"go on\n").expect("line");
        let mut seen = String::new();
        self.output.read_to_string(&mut seen).expect("what it sees");
        seen
    }
}

fn script(then: &str) -> String {
    format!("echo ready; read line; {then}")
}

impl Waiting<fs::File, fs::File> {
    fn sandbox(sandbox: &Sandbox, then: &str) -> (stockade::Child, Self) {
        let mut command = Command::new("sh");
        command.args(["-c", &script(then)]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = sandbox.spawn(command).expect("sandbox");
        let (input, output) = (child.stdin.take().expect("pipe"), child.stdout.take().expect("pipe"));
        let waiting = Self::new(input, output);
        (child, waiting)
    }
}

fn inwards(args: &[String]) -> i32 {
    let shared = Path::new(&args[0]).join("shared");
    let looks = |at: &Path| format!("ls {}/sub", at.display());
    // A mount namespace that takes part sees it.
    let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut unguarded = Host::new("unshare")
        .args(user)
        .args(["--mount", "--propagation", "slave", "sh", "-c", &script(&looks(&shared))])
        .stdin(HostStdio::piped())
        .stdout(HostStdio::piped())
        .spawn()
        .expect("unshare");
    let takes_part = Waiting::new(unguarded.stdin.take().expect("pipe"), unguarded.stdout.take().expect("pipe"));
    let bound = Path::new("/d");
    let sandboxes = [
        (with(Root::host().bind(&shared, bound)), looks(bound)),
        (with(Root::host().bind_rw(&shared, bound)), looks(bound)),
        (with(Root::from_dir("/")), looks(&shared)),
        (with(Root::inherit()), looks(&shared)),
    ];
    let waiting: Vec<_> = sandboxes.iter().map(|(sandbox, looks)| Waiting::sandbox(sandbox, looks)).collect();
    fs::write(Path::new(&args[0]).join("mount"), "now\n").expect("ask for the mount");
    fs::read(Path::new(&args[0]).join("mounted")).expect("the mount");
    assert_eq!(takes_part.sees(), "file\n");
    unguarded.wait().expect("unshare");
    for (number, (_child, waiting)) in waiting.into_iter().enumerate() {
        assert_eq!(waiting.sees(), "", "sandbox {number}");
    }
    0
}
