//! The privileges of a program of `run`: profiles, capabilities, Landlock, system calls, and best-effort layers. Each
//! test first shows what happens without the option.

use std::fs;
use std::net::TcpListener;
use std::process::{Command as Host, Stdio};

use serde_json::Value;
use stockade::Seccomp;
use stockade::seccomp::Action;
use tempfile::TempDir;

use crate::run::{Ran, at, ran, reported, run, sh, with_file};
use crate::support::{COMMAND, example, exists, is_root, kernel, shared_dir, unless_mounts, unless_python};
use stockade::Errno;

fn unless_landlock() -> Option<String> {
    (kernel() < (6, 2) || !has_landlock()).then(|| "it takes Landlock of Linux 6.2".into())
}

fn unless_landlock_of_tcp() -> Option<String> {
    (kernel() < (6, 7) || !has_landlock()).then(|| "it takes Landlock of Linux 6.7".into())
}

fn unless_landlock_of_tcp_and_python() -> Option<String> {
    unless_landlock_of_tcp().or_else(unless_python)
}

/// Whether it is among the security modules of the boot.
fn has_landlock() -> bool {
    fs::read_to_string("/sys/kernel/security/lsm").map_or(true, |modules| modules.contains("landlock"))
}

/// A refusal of the options. It must say this.
fn refused(options: &[&str], expected: &str) {
    let said = run(&[options, &["--", "true"]].concat()).refusal(2);
    assert!(said.contains(expected), "{options:?}: {said}");
}

#[apply(test)]
fn added_capabilities_are_the_programs() {
    let sets = "grep -E '^Cap(Eff|Bnd|Amb)' /proc/self/status | cut -f2 | uniq";
    assert_eq!(sh(&[], sets).output(), "0000000000000000");
    // CAP_CHOWN is 0, CAP_KILL 5, CAP_NET_RAW 13.
    assert_eq!(sh(&["--cap-add", "net_raw"], sets).output(), "0000000000002000");
    assert_eq!(sh(&["--cap-add", "CAP_KILL,Chown", "--cap-add", "cap_net_raw"], sets).output(), "0000000000002021");
}

#[apply(test)]
fn an_unknown_capability_is_refused_with_the_nearest_name() {
    refused(&["--cap-add", "net_row"], "use \"CAP_NET_RAW\"");
    refused(&["--cap-add", "SYS_ADMINN,kill"], "'SYS_ADMINN' for '--cap-add <CAP,…>'");
    refused(&["--cap-add", "SYS_ADMINN"], "use \"CAP_SYS_ADMIN\"");
    refused(&["--cap-add", ""], "unknown capability");
}

/// Options by which a shell runs under Landlock.
fn programs() -> Vec<&'static str> {
    let paths = ["/usr", "/bin", "/lib", "/lib64", "/etc"].into_iter().filter(|path| exists(path));
    paths.flat_map(|path| ["--landlock-ro", path]).collect()
}

#[apply(test)]
#[skip(unless_landlock)]
fn landlock_leaves_the_files_that_are_named() {
    let dir = with_file();
    let shown = at(&dir, "/shown");
    let mounts = ["--ro", &shown, "--tmpfs", "/scratch"];
    let script = "cat /shown/file; echo x >/scratch/file && echo written";
    assert_eq!(sh(&mounts, script).stdout, "contents\nwritten");
    let none = sh(&[&mounts[..], &programs()].concat(), script);
    assert_eq!(none.stdout, "");
    assert_eq!(none.stderr.matches("ermission denied").count(), 2, "{none:?}");
    let named = ["--landlock-ro", "/shown", "--landlock-rw", "/scratch"];
    assert_eq!(sh(&[&mounts[..], &programs(), &named].concat(), script).output(), "contents\nwritten");
    let read = ["--landlock-ro", "/shown", "--landlock-ro", "/scratch"];
    assert_eq!(sh(&[&mounts[..], &programs(), &read].concat(), script).stdout, "contents");
    // A path that is not there is no path to allow anything below.
    let said = run(&["--landlock-ro", "/no/such/path", "--", "true"]).refusal(125);
    assert!(said.contains("/no/such/path") && said.contains("ENOENT"), "{said}");
}

#[apply(test)]
#[skip(unless_landlock_of_tcp)]
fn landlock_leaves_the_ports_to_connect_to_that_are_named() {
    let [one, other] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a listener"));
    let [named, unnamed] = [&one, &other].map(|it| it.local_addr().expect("its address").port().to_string());
    let connect = |options: &[&str], port: &str| {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
        run(&[&["--share", "net"], options, &["--", "bash", "-c", &script]].concat())
    };
    assert_eq!(connect(&[], &unnamed).output(), "connected");
    assert_eq!(connect(&["--connect", &named], &named).output(), "connected");
    let refused = connect(&["--connect", &named], &unnamed);
    assert!(refused.status != 0 && refused.stderr.contains("ermission denied"), "{refused:?}");
    // Files are as they were.
    assert_eq!(sh(&["--connect", &named], "echo x >/tmp/file; cat /tmp/file").output(), "x");
}

#[apply(test)]
#[skip(unless_landlock_of_tcp_and_python)]
fn landlock_leaves_the_ports_to_listen_on_that_are_named() {
    let listen = |options: &[&str], port: u16| {
        python(options, &format!("import socket; socket.create_server(('127.0.0.1', {port})); print('listens')"))
    };
    assert_eq!(listen(&[], 8081).output(), "listens");
    assert_eq!(listen(&["--bind-port", "8080", "--bind-port", "8081"], 8081).output(), "listens");
    let refused = listen(&["--bind-port", "8080"], 8081);
    assert!(refused.status == 1 && refused.stderr.contains("ermission denied"), "{refused:?}");
}

#[apply(test)]
fn ports_are_numbers_from_1_to_65535() {
    for option in ["--connect", "--bind-port"] {
        for port in ["0", "65536", "-1", "http", ""] {
            let said = run(&[&format!("{option}={port}"), "--", "true"]).refusal(2);
            assert!(said.contains(option) && said.contains(&format!("'{port}'")) || port.is_empty(), "{said}");
        }
        refused(&[option, "0"], "1..=65535");
        refused(&[option, "65536"], "1..=65535");
    }
}

/// Asks for a socket of the internet's.
const SOCKET: &str = "import socket; socket.socket(); print('a socket')";

fn python(options: &[&str], script: &str) -> Ran {
    run(&[options, &["--", "/usr/bin/python3", "-c", script]].concat())
}

#[apply(test)]
#[skip(unless_python)]
fn a_forbidden_call_gives_124() {
    assert_eq!(python(&[], SOCKET).output(), "a socket");
    let args = ["--seccomp", "pure-computation", "--", "/usr/bin/python3", "-c", SOCKET];
    let (report, ran) = reported(&args);
    assert_eq!((ran.status, ran.stdout.as_str()), (124, ""), "{ran:?}");
    assert_eq!(report["termination"]["syscall"], Value::from("socket"));
}

#[apply(test)]
#[skip(unless_python)]
fn a_policy_of_the_crates_is_taken_by_its_name() {
    assert_eq!(python(&["--seccomp", "default"], SOCKET).output(), "a socket");
    assert_eq!(python(&["--seccomp", "container"], SOCKET).output(), "a socket");
    // It asks to be traced: what a debugger does, and what a container may not do.
    let traced = "import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0))";
    assert_eq!(python(&["--seccomp", "default"], traced).output(), "0");
    assert_eq!(python(&["--seccomp", "container"], traced).output(), "-1");
}

/// A file with a policy.
fn policy(json: &str) -> (TempDir, String) {
    let dir = shared_dir();
    let file = dir.path().join("policy.json");
    fs::write(&file, json).expect("a file");
    let path = file.display().to_string();
    (dir, path)
}

#[apply(test)]
fn a_policy_of_a_file_is_the_programs() {
    let made = Seccomp::new().on(["mkdir", "mkdirat"], Action::Errno(Errno::EROFS));
    let (_dir, file) = policy(&serde_json::to_string_pretty(&made).expect("JSON"));
    assert_eq!(sh(&[], "mkdir /tmp/a && echo made").output(), "made");
    let refused = sh(&["--seccomp", &file], "mkdir /tmp/a && echo made");
    assert!(refused.status == 1 && refused.stderr.contains("Read-only file system"), "{refused:?}");
    // As somebody writes it by hand.
    let (_dir, file) = policy(
        r#"{"default_action": "allow", "rules": [
            {"call": "mkdir", "action": {"errno": 30}},
            {"call": "mkdirat", "action": {"errno": 30}}]}"#,
    );
    let refused = sh(&["--seccomp", &file], "mkdir /tmp/a && echo made");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
}

#[apply(test)]
fn the_error_of_a_malformed_policy_names_the_position() {
    refused(&["--seccomp", "/no/such/policy"], "/no/such/policy: open: No such file");
    refused(&["--seccomp", "/"], "Is a directory");
    let (_dir, file) = policy("{\n  \"default_action\": \"allow\",\n  \"record\": false,\n  \"rules\": [}\n}\n");
    refused(&["--seccomp", &file], "line 4: it is not JSON");
    let (_dir, file) = policy("{\n  \"default_action\": \"alow\"\n}\n");
    refused(&["--seccomp", &file], "alow");
    let rule = r#"{"call": "moumt", "action": "kill"}"#;
    let (_dir, file) = policy(&format!(r#"{{"default_action": "allow", "rules": [{rule}]}}"#));
    refused(&["--seccomp", &file], "unknown system call: \"moumt\": use a name of syscalls(2), such as mount");
}

/// Runs the command where no cgroup hierarchy is mounted.
fn without_cgroups(args: &[&str]) -> Ran {
    let mut host = Host::new("unshare");
    if !is_root() {
        host.args(["-U", "--map-current-user", "--keep-caps"]);
    }
    host.args(["-m", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"", "sh"]);
    host.arg(example(COMMAND)).arg("run").args(args).stdin(Stdio::null());
    ran(host)
}

#[apply(test)]
#[skip(unless_mounts)]
fn unsupported_layers_are_skipped_only_with_best_effort() {
    let options = ["--cgroup-parent", "/nowhere", "--pids", "5"];
    let said = sh(&options, "exit 7").refusal(2);
    assert!(said.contains("/nowhere"), "{said}");
    let others = [&options[..], &["--best-effort", "landlock,seccomp"]].concat();
    assert_eq!(sh(&others, "exit 7").refusal(2), said);
    // A program could have removed the group: only what no hierarchy has is lost by best effort.
    let removed = [&options[..], &["--best-effort", "landlock,cgroup"]].concat();
    assert_eq!(sh(&removed, "exit 7").refusal(2), said);
    let options = ["--pids", "5", "--best-effort", "landlock,cgroup"];
    let without = without_cgroups(&[&options[..], &["--report", "-", "--", "sh", "-c", "exit 7"]].concat());
    assert_eq!(without.status, 7, "{without:?}");
    assert!(without.stderr.starts_with("stockade: without cgroup (") && without.stderr.contains("pids"), "{without:?}");
    let report: Value = serde_json::from_str(&without.stdout).expect("JSON");
    assert_eq!(report["enforcement"]["unenforced"][0]["layer"], "cgroup");
    assert_eq!(sh(&["--best-effort", "namespaces,root,cgroup,landlock,seccomp"], "exit 7").stderr, "");
}

#[apply(test)]
fn the_error_of_an_unknown_layer_lists_all() {
    refused(&["--best-effort", "seccom"], "namespaces, root, cgroup, landlock, seccomp");
    refused(&["--best-effort", "cgroup,none"], "'none'");
}

#[apply(test)]
fn options_change_the_profile() {
    let dir = with_file();
    let shown = at(&dir, "/shown");
    // Nothing of the host but its programs, unless it is said.
    let list = "ls -A /var | grep -x lib; cat /shown/file";
    assert_eq!(sh(&["--ro", &shown], list).output(), "lib\ncontents");
    assert_eq!(sh(&["--profile", "agent", "--ro", &shown], list).stdout, "contents");
    // Its root can be another, and its limits and namespaces stay.
    let nproc = "ulimit -Hu";
    assert_eq!(run(&["--profile", "agent", "--root", "host", "--", "bash", "-c", nproc]).output(), "512");
    assert_ne!(run(&["--", "bash", "-c", nproc]).output(), "512");
    assert_eq!(sh(&["--profile", "test", "--wall", "100ms"], "sleep 30").status, 124);
    let both = run(&["--profile", "agent", "--nofile", "20", "--", "bash", "-c", "ulimit -n; ulimit -u"]);
    assert_eq!(both.output(), "20\n512");
    assert_eq!(run(&["--profile", "build-step", "--", "bash", "-c", nproc]).output(), "1024");
}

#[apply(test)]
#[skip(unless_python)]
fn the_policy_of_a_profile_can_be_another() {
    let judged = ["--profile", "judge"];
    assert_eq!(python(&judged, "print(6 * 7)").output(), "42");
    assert_eq!(python(&judged, SOCKET).status, 124);
    assert_eq!(python(&["--profile", "judge", "--seccomp", "default"], SOCKET).output(), "a socket");
}

#[apply(test)]
fn the_output_under_a_profile_is_limited() {
    let flood = "head -c 3M /dev/zero";
    assert_eq!(sh(&[], flood).stdout.len(), 3 << 20);
    let limited = sh(&["--profile", "agent"], flood);
    assert_eq!((limited.status, limited.stdout.len()), (124, 1 << 20));
    assert_eq!(sh(&["--profile", "agent", "--output", "4M"], flood).output().len(), 3 << 20);
}

#[apply(test)]
fn the_error_of_an_unknown_profile_lists_all() {
    refused(&["--profile", "agnt"], "build-step, test, compile-untrusted, judge, agent");
}
