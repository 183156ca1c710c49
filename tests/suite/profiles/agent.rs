//! `profile::agent`: unreviewed code in a workspace.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command as Host;

use stockade::{Command, Output, Sandbox, Termination, profile};
use tempfile::TempDir;

use crate::support::{self, exists, shared_dir, text, unless_python};

/// A workspace, beside another project.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = shared_dir();
        fs::create_dir(dir.path().join("workspace")).expect("a directory");
        fs::create_dir(dir.path().join("other")).expect("a directory");
        fs::write(dir.path().join("workspace/data"), "3\n4\n").expect("data");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where it is on the host, so that a script is the same there.
    fn sandbox(&self) -> Sandbox {
        let workspace = self.path("workspace");
        profile::agent().map_root(|root| root.bind_rw(&workspace, &workspace))
    }

    fn run(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.path("workspace"));
        self.sandbox().output(command).expect("an outcome")
    }

    fn on_host(&self, script: &str) -> String {
        let mut host = Host::new("bash");
        let output = host.args(["-c", script]).current_dir(self.path("workspace")).output().expect("a shell");
        assert!(output.status.success(), "without the profile: {script}: {output:?}");
        text(&output.stdout)
    }
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn code_works_in_its_workspace() {
    let place = Place::new();
    let output = place.run("sort -n data | tail -1 >result && mkdir -p a/b && mv result a/b && cat a/b/result");
    assert!(output.outcome.success(), "{} {}", output.outcome, text(&output.stderr));
    assert_eq!(text(&output.stdout), "4");
    let made = fs::metadata(place.path("workspace/a/b/result")).expect("what it made");
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw());
    // It looks at who it is and where, as programs do.
    assert!(place.run("id -u && cat /etc/hosts >/dev/null && ls / && date && uname -a").outcome.success());
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn secrets_of_the_home_directory_are_hidden() {
    let place = Place::new();
    let home = PathBuf::from(std::env::var_os("HOME").expect("a home"));
    let keys = tempfile::Builder::new().prefix(".keys-").tempdir_in(&home).expect("a directory");
    let key = keys.path().join("id_test");
    fs::write(&key, "private").expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("permissions");
    let token = place.path("other/token");
    fs::write(&token, "private").expect("a token");
    for secret in [key, token] {
        let script = format!("cat {}", secret.display());
        assert_eq!(place.on_host(&script), "private");
        let output = place.run(&script);
        assert!(!output.outcome.success() && output.stdout.is_empty(), "{output:?}");
    }
    // What root alone may read, a root host's code may not.
    if support::is_root() {
        assert!(place.on_host("cat /etc/shadow").contains("root:"));
    }
    assert!(place.run("cat /etc/shadow").stdout.is_empty());
    // By no other way either.
    let output =
        place.run("grep -rl --include=id_test private / 2>/dev/null; ls -d ~/.[a-z]* /proc/1/root/root 2>/dev/null");
    assert_eq!(text(&output.stdout), "");
}

#[apply(test)]
fn tokens_of_the_environment_are_removed() {
    let host = Host::new("env").env("TOKEN", "private").output().expect("env");
    assert!(text(&host.stdout).contains("TOKEN=private"));
    let mut command = std::process::Command::new("env");
    command.env("NAMED", "said");
    let output = profile::agent().output(&command).expect("an outcome");
    let mut names: Vec<String> =
        text(&output.stdout).lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    names.sort();
    assert_eq!(names, ["HOME", "LANG", "NAMED", "PATH"]);
    assert!(std::env::vars_os().count() > 1, "this process has more");
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn files_outside_of_the_workspace_cannot_be_changed() {
    let place = Place::new();
    let outside = place.path("other/new").display().to_string();
    let script = format!("echo x >{outside}");
    place.on_host(&script);
    fs::remove_file(&outside).expect("what it made");
    for script in [&script, "echo x >>/etc/hosts", "touch /usr/new", "echo x >/new", "ln -s / w && echo x >w/etc/new"] {
        let output = place.run(script);
        assert!(!output.outcome.success(), "{script}");
    }
    assert!(!exists(&outside) && !exists("/usr/new") && !exists("/etc/new"));
    // Files that it makes elsewhere are its own, and end with it.
    let output = place.run(&format!("mkdir -p /tmp/x && echo x >/tmp/x/file && cat /tmp/x/file; ls {outside}"));
    assert_eq!(text(&output.stdout), "x");
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn connections_are_denied() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
    assert_eq!(place.on_host(&script), "connected");
    let output = place.run(&script);
    assert!(!output.outcome.success() && text(&output.stderr).contains("refused"), "{output:?}");
    let output = place.run("exec 3<>/dev/tcp/192.0.2.1/80 && echo connected");
    assert!(!output.outcome.success() && text(&output.stderr).contains("nreachable"), "{output:?}");
}

#[apply(test)]
#[skip(unless_python)]
fn sockets_of_unusual_families_are_denied() {
    // AF_RDS, AF_VSOCK, AF_ALG: what the kernel says depends on its modules; EAFNOSUPPORT is 97.
    let script = "
import socket, errno
for family in (21, 38, 40):
    try: socket.socket(family, socket.SOCK_SEQPACKET); print('made')
    except OSError as error: print(error.errno)
socket.socket(); socket.socket(socket.AF_UNIX); print('usual')";
    let said = |sandbox: Sandbox| {
        let output = sandbox.output(Command::new("/usr/bin/python3").args(["-c", script])).expect("an outcome");
        (text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(said(profile::agent()), ("97\n97\n97\nusual".into(), "".into()));
    let open = said(profile::agent().seccomp(stockade::Seccomp::unconfined()));
    assert_ne!(open.0, "97\n97\n97\nusual", "without the filter");
}

#[apply(test)]
fn output_is_truncated_at_its_limit() {
    let output = support::sh(&Sandbox::new(), "head -c 2M /dev/zero");
    assert_eq!(output.stdout.len(), 2 << 20);
    let output = support::sh(&profile::agent(), "head -c 2M /dev/zero");
    assert_eq!((output.outcome.termination, output.stdout.len()), (Termination::Output, 1 << 20));
}

#[apply(test)]
fn scratch_files_have_a_place_of_a_known_size() {
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        crate::profiles::holds(&profile::agent(), place, 256 << 20);
    }
    let full = support::sh(&profile::agent(), "head -c 257M /dev/zero >/tmp/file");
    assert!(!full.outcome.success() && text(&full.stderr).contains("No space left"), "{full:?}");
    let many = "cd /tmp && seq 40000 | xargs touch";
    assert!(support::sh(&Sandbox::new(), many).outcome.success());
    assert!(!support::sh(&profile::agent(), many).outcome.success());
}
