//! The command `stockade run`: each of its options, its exit statuses and its error messages.

mod confinement;
mod settings;
mod signals;
mod terminal;
mod test_binaries;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command as Host, Stdio};
use std::time::Duration;

use crate::support::{self, COMMAND, at_most, example, exists, is_root, shared_dir, text};
use serde_json::Value;
use tempfile::TempDir;

/// What came of a `run`.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// What it wrote to standard output. It must have succeeded.
    fn output(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        self.stdout
    }

    /// The one line that says why nothing was run.
    fn refusal(self, status: i32) -> String {
        assert_eq!((self.status, self.stdout.as_str()), (status, ""), "{self:?}");
        assert!(self.stderr.starts_with("stockade: ") && self.stderr.lines().count() == 1, "{self:?}");
        self.stderr
    }
}

fn stockade_run<S: Into<OsString>>(args: impl IntoIterator<Item = S>) -> Host {
    let mut host = Host::new(example(COMMAND));
    host.arg("run").args(args.into_iter().map(Into::into)).stdin(Stdio::null());
    host
}

fn ran(mut host: Host) -> Ran {
    let output = host.output().expect("the command");
    assert_eq!(output.status.signal(), None, "{output:?}");
    let status = output.status.code().expect("an exit status");
    Ran { status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn run(args: &[&str]) -> Ran {
    ran(stockade_run(args))
}

/// Runs a subcommand.
fn stockade(args: &[&str]) -> Ran {
    let mut host = Host::new(example(COMMAND));
    host.args(args).stdin(Stdio::null());
    ran(host)
}

/// Runs a shell script with these options.
fn sh(options: &[&str], script: &str) -> Ran {
    run(&[options, &["--", "sh", "-c", script]].concat())
}

/// A directory with a file `file`, and an option that shows it.
fn with_file() -> TempDir {
    let dir = shared_dir();
    fs::write(dir.path().join("file"), "contents\n").expect("file");
    dir
}

/// `DIR:TARGET`.
fn at(dir: &TempDir, target: &str) -> String {
    format!("{}:{target}", dir.path().display())
}

#[apply(test)]
fn the_exit_status_is_the_programs() {
    for status in [0, 1, 2, 77, 255] {
        let ran = sh(&[], &format!("exit {status}"));
        assert_eq!((ran.status, ran.stderr.as_str()), (status, ""));
    }
}

#[apply(test)]
fn a_signal_gives_128_and_its_number() {
    for signal in [1, 9, 11, 15, 34, 64] {
        assert_eq!(sh(&[], &format!("kill -{signal} $$")).status, 128 + signal);
    }
}

#[apply(test)]
fn a_program_that_is_not_found_gives_127() {
    let said = run(&["--", "no-such-program"]).refusal(127);
    assert!(said.contains("no-such-program") && said.contains("not found"), "{said}");
    run(&["--", "/no/such/program"]).refusal(127);
    // There on the host, but not inside: it says which bind is missing.
    let said = run(&["--root", "empty", "--", "sh"]).refusal(127);
    assert!(said.contains("exists on the host") && said.contains("add --ro /"), "{said}");
}

#[apply(test)]
fn a_program_that_cannot_be_executed_gives_126() {
    let said = run(&["--", "/etc/passwd"]).refusal(126);
    assert!(said.contains("/etc/passwd") && said.contains("EACCES"), "{said}");
    run(&["--", "/usr"]).refusal(126);
}

#[apply(test)]
fn a_failed_set_up_gives_125() {
    let said = run(&["--ro", "/no/such/source:/x", "--", "true"]).refusal(125);
    assert!(said.contains("/no/such/source") && said.contains("ENOENT"), "{said}");
    // The mount point would have to be created on the host.
    let said = run(&["--ro", "/etc:/usr/no-such-place", "--", "true"]).refusal(125);
    assert!(said.contains("/usr/no-such-place") && said.contains("EROFS"), "{said}");
    assert!(!exists("/usr/no-such-place"));
    let said = run(&["--cwd", "/no/such/place", "--", "true"]).refusal(125);
    assert!(said.contains("/no/such/place"), "{said}");
    let said = run(&["--root", "empty", "--pty", "--", "/true"]).refusal(125);
    assert!(said.contains("/dev/ptmx"), "{said}");
}

#[apply(test)]
fn wrong_options_give_2_and_one_line() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "PROGRAM"),
        (&["--"], "PROGRAM"),
        (&["--no-such-option", "--", "true"], "'--no-such-option'"),
        (&["--tmpf", "/x", "--", "true"], "'--tmpf'"),
        (&["--ro"], "--ro"),
        (&["--ro", "", "--", "true"], "empty"),
        (&["--ro", "/a:", "--", "true"], "empty"),
        (&["--rw", "/a:/b:/c", "--", "true"], "more than one colon"),
        (&["--overlay", "/usr", "--", "true"], "no colon"),
        (&["--symlink", "target", "--", "true"], "no colon"),
        (&["--tmpfs", "/x:0", "--", "true"], "limit of 0 bytes"),
        (&["--tmpfs", "/x:12Q", "--", "true"], "not a size"),
        (&["--tmpfs", "/x:M", "--", "true"], "not a size"),
        (&["--memory", "64m", "--", "true"], "K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024"),
        (&["--io-max", "/dev/null:riops=1K", "--", "true"], "not a number of operations"),
        (&["--io-max", "/dev/null:rbps=1,rbps=2", "--", "true"], "rbps is given twice"),
        (&["--tmpfs", "/x:99999999999999999999", "--", "true"], "not a size"),
        (&["--tmpfs", "/x:16777216T", "--", "true"], "not a size"),
        (&["--share", "user,nothing", "--", "true"], "'nothing'"),
        (&["--time-offset", "soon", "--", "true"], "'soon'"),
        (&["--wall", "soon", "--", "true"], "such as \"1.5s\""),
        (&["--wall", "-1s", "--", "true"], "'-1'"),
        (&["--kill-grace", "1", "--", "true"], "such as \"1.5s\""),
        (&["--uid", "-1", "--", "true"], "-1"),
        (&["--gid", "4294967296", "--", "true"], "4294967296"),
        (&["--env", "NAME", "--", "true"], "no ="),
        (&["--env", "=value", "--", "true"], "the name before = is empty"),
    ];
    for (args, expected) in cases {
        let said = run(args).refusal(2);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

#[apply(test)]
fn contradictory_options_give_2_and_one_line() {
    let cases: &[(&[&str], &str)] = &[
        (&["--output", "1K", "--pty"], "'--output <SIZE>'"),
        (&["--hostname", "a", "--hostname", "b"], "--hostname"),
        (&["--uid", "1", "--uid", "2"], "--uid"),
        (&["--root", "host", "--root", "empty"], "--root"),
        (&["--share", "uts", "--hostname", "name"], "`hostname` needs a namespace that is shared"),
        (&["--share", "mount"], "mount"),
        (&["--share", "mount", "--root", "empty"], "mount"),
        (&["--share", "mount", "--root", "/", "--tmpfs", "/x"], "mount"),
        (&["--root", "inherit", "--tmpfs", "/tmp"], "--root inherit"),
        (&["--ro", "/etc:relative"], "relative"),
        (&["--mask", "/../etc"], ".."),
        (&["--tmpfs", "/"], "root"),
        (&["--root", ""], "unknown root"),
        (&["--root", "emtpy"], "use \"empty\""),
        (&["--output", "1K", "--set", "descriptors.1.write=\"/dev/null\""], "`stdout_max` limits output"),
        (&["--set", "stdout_max=1K", "--pty"], "`stdout_max` limits output"),
    ];
    for (options, expected) in cases {
        for subcommand in ["run", "plan"] {
            let said = stockade(&[&[subcommand], *options, &["--", "true"]].concat()).refusal(2);
            assert!(said.contains(expected), "{subcommand} {options:?}: {said}");
        }
    }
}

#[apply(test)]
fn an_exceeded_limit_gives_124() {
    let slow = sh(&["--wall", "100ms"], "sleep 30");
    assert_eq!((slow.status, slow.stderr.trim()), (124, "stockade: wall-clock limit exceeded"));
    assert_eq!(
        sh(&["--wall", "100ms", "--kill-grace", "1m"], "trap 'exit 5' TERM; while :; do sleep 0.01; done").status,
        124
    );
    let in_time = sh(&["--wall", "1.5m", "--nofile", "20"], "ulimit -n; exit 6");
    assert_eq!((in_time.status, in_time.stdout.as_str()), (6, "20"));
}

#[apply(test)]
fn output_that_cannot_be_written_gives_125() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    // What is collected is written by the command, what is not by the program. A part of a line stays in a buffer until
    // the end.
    for (options, status) in [(["--profile", "agent"].as_slice(), 125), (&[], 1)] {
        for script in ["echo hi", "printf hi"] {
            let mut host = stockade_run(options.iter().copied().chain(["--", "sh", "-c", script]));
            let output = host.stdout(full()).output().expect("the command");
            let said = support::text(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{options:?} {script}: {said}");
            assert!(!said.is_empty(), "{options:?} {script} says why");
        }
    }
}

#[apply(test)]
#[skip(support::unless_python)]
fn limits_and_calls_are_named_in_the_report() {
    let options = ["--seccomp", "pure-computation", "--wall", "5s", "--report", "-", "--"];
    let program = ["python3", "-c", "import socket; socket.socket()"];
    let ran = run(&[&options[..], &program].concat());
    let report: serde_json::Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    assert_eq!(report["termination"], serde_json::json!({ "syscall": "socket" }));
    assert_eq!(report["violations"][0]["call"], "socket", "{report}");
    assert!(ran.stdout.contains(r#"{"layer":"limits","summary":"wall 5s"}"#), "{}", ran.stdout);
    assert_eq!(ran.stderr.trim(), "stockade: killed for calling socket");
}

#[apply(test)]
#[only(Root)]
#[skip(support::unless_root_with_groups)]
fn an_exceeded_cgroup_limit_gives_124() {
    assert_eq!(sh(&["--memory", "64M"], "head -c 20M /dev/zero | tail | wc -c").stdout, "20971520");
    assert_eq!(sh(&["--memory", "16M"], "head -c 50M /dev/zero | tail | wc -c").status, 124);
    assert_eq!(sh(&["--memory", "16M", "--swap"], "head -c 50M /dev/zero | tail | wc -c").status, 124, "no swap here");
    assert_eq!(sh(&["--cpu", "100ms"], "while :; do :; done").status, 124);
    assert_eq!(sh(&["--cpu", "10s", "--idle", "200ms"], "sleep 30").status, 124);
    let flood = sh(&["--output", "1K"], "yes | head -c 1M");
    assert_eq!((flood.status, flood.stdout.len()), (124, 1023), "cut, and its last newline trimmed");
}

#[apply(test)]
#[only(Root)]
#[skip(support::unless_root_with_groups)]
fn cgroup_limits_are_those_requested() {
    let cpus = sh(&["--cpuset", "0"], "grep Cpus_allowed_list /proc/self/status");
    assert_eq!(cpus.stdout, "Cpus_allowed_list:\t0");
    let forks = "n=1; while [ $n -lt 9 ]; do sleep 9 & n=$((n + 1)); done; echo all";
    assert_eq!(sh(&["--pids", "16"], forks).stdout, "all");
    assert_ne!(sh(&["--pids", "5"], forks).stdout, "all");
    // Nanoseconds of CPU time in some time, of which others may take their share too.
    let wall = at_most(Duration::from_millis(400));
    let used = |cpus: &[&str]| {
        let limit = format!("{}ms", wall.as_millis());
        let ran = sh(&[cpus, &["--cpuset", "0", "--wall", &limit, "--report", "-"]].concat(), "while :; do :; done");
        let outcome: stockade::Outcome = serde_json::from_str(&ran.stdout).expect("a report");
        outcome.usage.cpu_time.expect("CPU time").value.as_nanos()
    };
    let (limited, free) = (used(&["--cpus", "0.05"]), used(&[]));
    // The way to the program counts as well.
    let most = wall / 8 + at_most(Duration::from_millis(20));
    assert!(limited < most.as_nanos(), "{limited} ns of {wall:?}");
    assert!(free > limited * 3 / 2, "{free} ns without a limit, {limited} ns with one");
    // Without a cgroup nothing can be limited that takes one.
    assert_eq!(sh(&["--cgroup-parent", "none"], "exit 7").status, 7);
    let said = sh(&["--cgroup-parent", "/nowhere", "--pids", "5"], "exit 7").refusal(2);
    assert!(said.contains("/nowhere") && said.contains("does not exist in any hierarchy"), "{said}");
    let said = sh(&["--io-max", "/dev/null:rbps=1M"], "exit 7").refusal(2);
    assert!(said.contains("not a block device"), "{said}");
}

#[apply(test)]
fn help_is_no_error() {
    let help = run(&["--help"]).output();
    let options = "ro rw git protect tmpfs overlay mask dir symlink root share time-offset hostname uid gid cwd env \
                   wall kill-grace nofile memory swap pids cpus cpuset io-max cgroup-parent cpu idle output pty \
                   report json learn config set terminals profile cap-add landlock-ro landlock-rw connect bind-port seccomp best-effort";
    for option in options.split(' ') {
        assert!(help.contains(&format!("--{option}")), "--{option} is not in {help}");
    }
}

#[apply(test)]
fn the_streams_are_the_programs_own() {
    let mut host = stockade_run(["--", "sh", "-c", "cat; echo error >&2"]);
    let mut child =
        host.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command");
    child.stdin.take().expect("a pipe").write_all(b"input").expect("input");
    let output = child.wait_with_output().expect("its end");
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"input"[..], &b"error\n"[..]));
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn binds_are_read_only_or_writable_as_requested() {
    let dir = with_file();
    let shown = at(&dir, "/shown");
    let refused = sh(&["--ro", &shown], "cat /shown/file; echo changed >/shown/file");
    assert_eq!((refused.stdout.as_str(), refused.status), ("contents", 2));
    assert!(refused.stderr.contains("Read-only"), "{refused:?}");
    sh(&["--rw", &shown], "echo changed >/shown/file; echo new >/shown/new").output();
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"changed\n");
    let owner = fs::metadata(dir.path().join("new")).unwrap().uid();
    assert_eq!(owner, nix::unistd::geteuid().as_raw());
}

#[apply(test)]
fn a_bind_is_at_its_own_path_by_default() {
    let dir = with_file();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let path = dir.path().display().to_string();
    let read = format!("cat {path}/file");
    assert_ne!(sh(&[], &read).status, 0, "/tmp inside is the sandbox's own");
    assert_eq!(sh(&["--ro", &path], &read).output(), "contents");
    for relative in ["file", "./file", "sub/../file"] {
        let mut host = stockade_run(["--ro", relative, "--", "sh", "-c", &read]);
        host.current_dir(dir.path());
        assert_eq!(ran(host).output(), "contents", "{relative}");
    }
}

#[apply(test)]
fn paths_need_not_be_text() {
    let dir = shared_dir();
    let name = OsString::from_vec(b"\xff\xfe\n,\\".to_vec());
    fs::write(dir.path().join(&name), "bytes").unwrap();
    let mut shown = dir.path().join(&name).into_os_string();
    shown.push(":/shown");
    let args = ["--ro".into(), shown, "--".into(), "cat".into(), "/shown".into()];
    assert_eq!(ran(stockade_run(args)).output(), "bytes");
}

#[apply(test)]
fn a_tmpfs_has_the_requested_size() {
    let size = "stat -f -c %b:%S /x | { IFS=: read blocks size; echo $((blocks * size)); }";
    for (said, bytes) in [("65536", 65536), ("64K", 65536), ("3M", 3 << 20), ("1G", 1 << 30)] {
        assert_eq!(sh(&["--tmpfs", &format!("/x:{said}")], size).output(), bytes.to_string());
    }
    let full = sh(&["--tmpfs", "/x:64K"], "head -c 70000 /dev/zero >/x/file; stat -c %s /x/file");
    assert!(full.stderr.contains("No space left"), "{full:?}");
    assert_eq!(full.stdout, "65536");
    sh(&["--tmpfs", "/x"], "head -c 70000 /dev/zero >/x/file").output();
}

#[apply(test)]
#[skip(support::unless_overlays)]
fn changes_of_an_overlay_are_discarded() {
    let dir = with_file();
    let script = "echo more >>/shown/file; echo new >/shown/new; cat /shown/file /shown/new";
    for _ in 0..2 {
        assert_eq!(sh(&["--overlay", &at(&dir, "/shown")], script).output(), "contents\nmore\nnew");
    }
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"contents\n");
    assert!(!exists(dir.path().join("new")));
}

#[apply(test)]
fn masked_paths_are_hidden() {
    let dir = with_file();
    let shown = at(&dir, "/shown");
    let options = ["--ro", &shown];
    assert_eq!(sh(&options, "cat /shown/file").output(), "contents");
    let hidden = sh(&[&options[..], &["--mask", "/shown/file"]].concat(), "cat /shown/file");
    assert_eq!((hidden.status, hidden.stdout.as_str()), (1, ""), "{hidden:?}");
}

#[apply(test)]
fn directories_and_symlinks_are_created() {
    let options = ["--dir", "/deep/dir", "--symlink", "deep/dir:/link"];
    assert_eq!(
        sh(&options, "cd /link && pwd -P && readlink /link && stat -c %a .").output(),
        "/deep/dir\ndeep/dir\n755"
    );
}

#[apply(test)]
#[skip(support::unless_overlays_and_idmapped_mounts)]
fn what_is_deeper_is_mounted_later_in_any_order_of_the_options() {
    let dir = with_file();
    let bind = at(&dir, "/x/y");
    let list = "cd /x && find . -mindepth 1 | sort | tr '\\n' ' '";
    let overlay = at(&dir, "/x/y");
    let cases: &[(&[&str], &str)] = &[
        (&["--tmpfs", "/x", "--ro", &bind], "./y ./y/file "),
        (&["--ro", &bind, "--tmpfs", "/x"], "./y ./y/file "),
        (&["--tmpfs", "/x/y", "--symlink", "a:/x/y/b", "--dir", "/x/c"], "./c ./y ./y/b "),
        (&["--dir", "/x/c", "--symlink", "a:/x/y/b", "--tmpfs", "/x/y"], "./c ./y ./y/b "),
        (&["--symlink", "y:/x/z", "--overlay", &overlay, "--mask", "/x/y/file"], "./y ./y/file ./z "),
        (&["--mask", "/x", "--rw", &bind], "./y ./y/file "),
    ];
    for (options, expected) in cases {
        assert_eq!(sh(options, list).output(), *expected, "{options:?}");
    }
    // On one path neither is the later one.
    let refused = run(&["--ro", &bind, "--tmpfs", "/x/y", "--", "true"]).refusal(2);
    assert!(refused.contains("target of both `tmpfs` and `ro`"), "{refused}");
    // Operations of `mounts` come last, in their order.
    let again = ["--ro", &bind, "--set", r#"mounts=[{ tmpfs = { target = "/x/y" } }]"#];
    assert_eq!(sh(&again, list).output(), "./y ");
}

#[apply(test)]
fn the_root_is_the_chosen_one() {
    let dir = with_file();
    let path = dir.path().display().to_string();
    // The host's, of which nothing can be written, and /tmp is another.
    assert_eq!(sh(&["--root", "host"], "ls -d /usr; touch /usr/x 2>/dev/null || ls -A /tmp").output(), "/usr");
    // Its programs and libraries alone.
    assert_eq!(sh(&["--root", "system"], "ls -d /usr; ls -d /var/lib 2>/dev/null").stdout, "/usr");
    // The host's as it is.
    assert_eq!(sh(&["--root", "inherit"], &format!("cat {path}/file")).output(), "contents");
    // Nothing but what a program needs to run; and the same in a directory.
    let system: Vec<&str> = ["/usr", "/bin", "/lib", "/lib64"].into_iter().filter(|path| exists(path)).collect();
    let binds: Vec<&str> = system.iter().flat_map(|path| ["--ro", path]).collect();
    let empty = sh(&[&["--root", "empty"], &binds[..]].concat(), "echo /*").output();
    assert_eq!(empty.split(' ').collect::<Vec<_>>(), sorted(&system));
    let own = sh(&[&["--root", &path], &binds[..]].concat(), "echo /*; cat /file").output();
    assert_eq!(own, format!("{}\ncontents", sorted(&[&system[..], &["/file"]].concat()).join(" ")));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was created in it");
}

fn sorted<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let mut paths = paths.to_vec();
    paths.sort();
    paths
}

/// The namespaces that can be shared: the option, and the file in `/proc/self/ns`.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", "user"),
    ("mount", "mnt"),
    ("pid", "pid"),
    ("net", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
];

/// Which namespaces a program has in common with the host.
fn in_common(options: &[&str]) -> Vec<&'static str> {
    let files = NAMESPACES.map(|(_, file)| format!("/proc/self/ns/{file}"));
    let mut args = [options, &["--", "readlink"]].concat();
    args.extend(files.iter().map(String::as_str));
    let inside = run(&args).output();
    let outside = files.iter().map(|file| fs::read_link(file).expect("namespace"));
    let pairs = NAMESPACES.into_iter().zip(inside.lines().zip(outside));
    pairs.filter(|(_, (inside, outside))| Path::new(inside) == outside).map(|((name, _), _)| name).collect()
}

#[apply(test)]
#[skip(support::unless_root_can_pivot)]
fn shared_namespaces_are_the_hosts() {
    assert!(in_common(&[]).is_empty());
    for (name, _) in NAMESPACES {
        // Without a user namespace an ordinary user can make no other.
        if name == "user" && !is_root() {
            continue;
        }
        let root = if name == "mount" { "inherit" } else { "host" };
        assert_eq!(in_common(&["--share", name, "--root", root]), [name]);
    }
    assert_eq!(in_common(&["--share", "net,uts", "--share", "ipc"]), ["net", "ipc", "uts"]);
    let all = NAMESPACES.map(|(name, _)| name);
    assert_eq!(in_common(&["--share", &all.join(","), "--root", "inherit"]), all);
}

#[apply(test)]
#[only(User)]
fn an_ordinary_user_shares_the_user_namespace_with_all_others_alone() {
    let said = run(&["--share", "user", "--", "true"]).refusal(2);
    assert!(said.contains("an unprivileged caller cannot create"), "{said}");
}

#[apply(test)]
fn the_clocks_are_ahead_by_the_offset() {
    let uptime = |text: &str| text.split('.').next().unwrap().parse::<u64>().expect("seconds");
    let host = uptime(&fs::read_to_string("/proc/uptime").unwrap());
    let inside = uptime(&run(&["--time-offset", "1000000", "--", "cat", "/proc/uptime"]).output());
    assert!((host + 1_000_000..host + 1_000_600).contains(&inside), "{inside} inside, {host} on the host");
    let behind = host as i64 / 2;
    let inside = uptime(&run(&["--time-offset", &format!("-{behind}"), "--", "cat", "/proc/uptime"]).output());
    assert!(inside <= host - behind as u64 + 600, "{inside} inside, {host} on the host");
    // Before the start of the clocks.
    let said = run(&["--time-offset", "-9000000000", "--", "true"]).refusal(125);
    assert!(said.contains("ERANGE"), "{said}");
}

#[apply(test)]
fn the_host_name_is_set() {
    assert_eq!(run(&["--", "uname", "-n"]).output(), "sandbox");
    assert_eq!(run(&["--hostname", "other", "--", "uname", "-n"]).output(), "other");
    let said = run(&["--hostname", &"x".repeat(65), "--", "true"]).refusal(2);
    assert!(said.contains("64 bytes"), "{said}");
}

#[apply(test)]
fn the_ids_are_set() {
    let ids = "id -u; id -g";
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let own = if is_root() { "1000\n1000".into() } else { format!("{uid}\n{gid}") };
    assert_eq!(sh(&[], ids).output(), own);
    for (uid, gid) in [("0", "0"), ("12", "34"), ("4294967294", "65534")] {
        assert_eq!(sh(&["--uid", uid, "--gid", gid], ids).output(), format!("{uid}\n{gid}"));
    }
}

#[apply(test)]
fn the_working_directory_is_set() {
    assert_eq!(run(&["--", "pwd"]).output(), "/");
    assert_eq!(run(&["--cwd", "/usr/bin", "--", "pwd"]).output(), "/usr/bin");
}

#[apply(test)]
fn the_environment_contains_only_path_and_the_set_variables() {
    let mut host = stockade_run(["--env", "A=1", "--env", "B=x=y", "--env", "A=2", "--env", "EMPTY=", "--", "env"]);
    host.env("SECRET", "of the host");
    let mut lines: Vec<String> = ran(host).output().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A=2", "B=x=y", "EMPTY=", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    assert_eq!(run(&["--env", "PATH=/usr/bin", "--", "printenv", "PATH"]).output(), "/usr/bin");
}

/// A reason to skip what shows the usual calls.
fn unless_as_shown() -> Option<String> {
    support::unless_idmapped_mounts().or_else(support::unless_pivot_root)
}

#[apply(test)]
#[skip(unless_as_shown)]
fn a_plan_has_no_line_of_a_path() {
    // It would look like a call or a step.
    let plan = stockade(&["plan", "--ro", "/etc:/a\n# fake\u{1b}[31m", "--", "true"]).output();
    assert!(plan.contains("/a\\n# fake"), "{plan}");
    assert!(!plan.contains("\n# fake") && !plan.contains('\u{1b}'), "{plan}");
}

#[apply(test)]
#[skip(unless_as_shown)]
fn plan_shows_the_plan_and_runs_nothing() {
    let dir = shared_dir();
    let shown = at(&dir, "/out");
    let options = ["--rw", &shown, "--hostname", "explained", "--pty"];
    let command = ["--", "touch", "/out/touched"];
    let plan = stockade(&[&["plan"], &options[..], &command].concat()).output();
    for expected in ["pivot_root", "\"explained\"", "/out/touched", "# "] {
        assert!(plan.contains(expected), "{expected:?} is not in {plan}");
    }
    assert!(!exists(dir.path().join("touched")));
    run(&[&options[..], &command].concat()).output();
    assert!(exists(dir.path().join("touched")));
}

/// The report of a run, and what else it wrote to standard output.
fn reported(args: &[&str]) -> (Value, Ran) {
    let dir = shared_dir();
    let file = dir.path().join("report");
    let by_file = run(&[&["--report", file.to_str().unwrap()], args].concat());
    let text = fs::read_to_string(&file).expect("report");
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text:?}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    // To standard output it comes after what the program has written there.
    let to_stdout = run(&[&["--report", "-"], args].concat());
    assert_eq!(to_stdout.status, by_file.status);
    let written = to_stdout.stdout.strip_prefix(&by_file.stdout).expect("the program's output first");
    let same: Value = serde_json::from_str(written).expect("JSON");
    assert_eq!(same["termination"], report["termination"]);
    assert_eq!(same["error"], report["error"]);
    (report, by_file)
}

#[apply(test)]
fn the_report_is_the_outcome() {
    let (report, ran) = reported(&["--", "sh", "-c", "echo written; exit 7"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (7, "written"));
    assert_eq!(report["termination"], serde_json::json!({ "exited": 7 }));
    assert!(report["usage"]["max_rss"]["value"].as_u64().unwrap() > 0, "{report}");
    assert!(report["enforcement"].to_string().contains("no_new_privs"), "{report}");
    let outcome: stockade::Outcome = serde_json::from_value(report).expect("an outcome");
    assert_eq!(outcome.termination.code(), Some(7));
    let (report, ran) = reported(&["--", "sh", "-c", "kill -9 $$"]);
    assert_eq!((ran.status, &report["termination"]["signaled"]["signal"]), (137, &Value::from(9)));
}

#[apply(test)]
fn the_report_of_a_failure_is_the_error() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--", "no-such-program"], 127, "NotFound"),
        (&["--", "/etc/passwd"], 126, "NotExecutable"),
        (&["--ro", "/no/such/source", "--", "true"], 125, "SetupFailed"),
        (&["--share", "mount", "--", "true"], 2, "InvalidConfiguration"),
    ];
    for &(args, status, kind) in cases {
        let (report, ran) = reported(args);
        assert_eq!(report.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
        let error = &report["error"];
        assert_eq!(error["kind"], kind);
        let said = ran.refusal(status);
        assert_eq!(said.strip_prefix("stockade: "), error["message"].as_str());
        match error["hint"].as_str() {
            Some(remedy) => assert!(said.ends_with(remedy), "{said}"),
            None => assert_eq!(kind, "NotFound", "{said}"),
        }
    }
}

/// Attack 70: The report lies in a directory of the program's.
#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn reports_are_not_written_through_links() {
    let dir = shared_dir();
    let (out, secret) = (dir.path().join("out"), dir.path().join("secret"));
    let report = out.join("report");
    fs::create_dir(&out).unwrap();
    fs::write(&secret, "secret\n").unwrap();
    let unchanged = || assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n");
    let bound = format!("{}:/out", out.display());
    for option in ["--report", "--learn"] {
        let options = ["--rw", &bound, option, report.to_str().unwrap()];
        for plant in ["ln -s ../secret /out/report", "echo linked > /out/other; ln /out/other /out/report"] {
            let ran = sh(&options, plant);
            assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{plant}");
            unchanged();
            let written = report.symlink_metadata().unwrap();
            assert!(written.is_file(), "{plant}: {written:?}");
            assert!(serde_json::from_str::<Value>(&fs::read_to_string(&report).unwrap()).is_ok(), "{plant}");
            assert!(
                fs::read_to_string(out.join("other")).is_ok_and(|other| other == "linked\n") || plant.contains("-s")
            );
            assert!(fs::read_dir(&out).unwrap().count() <= 2, "no temporary file stays");
            fs::remove_file(&report).unwrap();
        }
        // Whoever writes by the path writes elsewhere.
        std::os::unix::fs::symlink("../secret", &report).unwrap();
        fs::write(&report, "secret\n").unwrap();
        let said = sh(&options, "touch /out/touched").refusal(125);
        assert!(said.contains("not a regular file") && !exists(out.join("touched")), "{said}");
        unchanged();
        fs::remove_file(&report).unwrap();
        fs::remove_file(out.join("other")).unwrap();
    }
}

/// Attack 70: The program replaces the directory of the report by a symlink.
#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn a_report_is_written_to_the_directory_opened_at_the_start() {
    let dir = shared_dir();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("work")).unwrap();
    fs::create_dir(place("elsewhere")).unwrap();
    let bound = format!("{}:/work", place("work").display());
    for option in ["--report", "--learn"] {
        fs::create_dir(place("work/out")).unwrap();
        let report = place("work/out/report");
        let options = ["--rw", &bound, option, report.to_str().unwrap()];
        let ran = sh(&options, "mv /work/out /work/kept; ln -s ../elsewhere /work/out");
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
        // Whoever follows the path now comes elsewhere.
        assert_eq!(fs::canonicalize(place("work/out")).unwrap(), fs::canonicalize(place("elsewhere")).unwrap());
        assert_eq!(fs::read_dir(place("elsewhere")).unwrap().count(), 0);
        let written = fs::read_to_string(place("work/kept/report")).unwrap();
        assert!(serde_json::from_str::<Value>(&written).is_ok(), "{written}");
        fs::remove_file(place("work/out")).unwrap();
        fs::remove_dir_all(place("work/kept")).unwrap();
    }
}

#[apply(test)]
fn the_program_does_not_run_if_the_report_cannot_be_written() {
    let dir = shared_dir();
    let options = ["--rw", &at(&dir, "/out"), "--report", "/no/such/report"];
    let said = sh(&options, "touch /out/touched").refusal(125);
    assert!(said.contains("report") && said.contains("No such file"), "{said}");
    assert!(!exists(dir.path().join("touched")));
}

#[apply(test)]
fn a_report_is_no_directory() {
    let dir = shared_dir();
    for end in ["report/", "report/.", "."] {
        let path = format!("{}/{end}", dir.path().display());
        let said = run(&["--report", &path, "--", "true"]).refusal(125);
        assert!(said.contains("does not end with a file name"), "{said}");
    }
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[apply(test)]
fn a_report_that_the_disk_has_no_room_for_is_named() {
    let dir = shared_dir();
    let path = dir.path().join("report");
    // A limit of the caller's on the size of files takes the place of a full disk.
    let mut host = Host::new("sh");
    host.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(example(COMMAND));
    host.args(["run", "--report"]).arg(&path).args(["--", "true"]);
    let said = ran(host).refusal(125);
    assert_eq!(said.trim(), format!("stockade: failed to write the report to {path:?}: File too large (os error 27)"));
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing stays");
}
