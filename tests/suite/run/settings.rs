//! `--config`, `--set`, and the other subcommands: every key can be set, files and options are merged, and errors are in
//! the words of the command line.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use stockade::config::Config;

use super::{Ran, at, ran, run, sh, stockade, stockade_run, with_file};
use crate::support::{exists, is_root, shared_dir};

#[apply(test)]
fn every_key_can_be_set() {
    for key in Config::keys() {
        let (name, value) = key.example().split_once(" = ").expect("an example");
        // The last one is an error, so that nothing is run: the first was read then.
        let said = stockade(&["plan", "--set", &format!("{name}={value}"), "--set", "none=1", "--", "true"]).refusal(2);
        assert!(said.contains("'none=1'") && said.contains("unknown key `none`"), "{name}: {said}");
        let wrong = stockade(&["plan", "--set", &format!("{name}=2020-01-01"), "--", "true"]).refusal(2);
        assert!(wrong.contains("--set") && wrong.contains(name), "{name}: {wrong}");
    }
}

#[apply(test)]
fn the_keys_are_listed_with_examples() {
    let listed = stockade(&["keys"]).output();
    for key in Config::keys() {
        assert!(listed.contains(key.example()) && listed.contains(key.description()), "{} is not listed", key.name());
    }
}

#[apply(test)]
fn a_setting_is_a_value_of_toml_or_text() {
    let limit = |setting: &str| sh(&["--set", setting], "ulimit -n").output();
    assert_eq!(limit("rlimits.nofile=33"), "33");
    assert_eq!(limit("rlimits={ nofile = 34 }"), "34");
    assert_eq!(limit("rlimits.nofile=\"35\""), "35");
    let name = |setting: &str| sh(&["--set", setting], "uname -n").output();
    assert_eq!(name("hostname=plain"), "plain");
    assert_eq!(name("hostname = \"quoted\""), "quoted");
    assert_eq!(run(&["--set", "hostname=a", "--set", "hostname=b", "--", "uname", "-n"]).output(), "b");
    for (setting, expected) in [
        ("hostname", "it has no ="),
        ("memmory=1GiB", "use `memory`"),
        ("setup_timeout=soon", "`setup_timeout`: invalid value"),
        ("uid=-1", "`uid`"),
        ("seccomp=contaner", "container"),
    ] {
        let said = run(&["--set", setting, "--", "true"]).refusal(2);
        assert!(said.contains("--set <KEY=VALUE>") && said.contains(expected), "{said}");
        assert!(!said.contains("line 1") && !said.contains("failed to read the configuration"), "{said}");
    }
}

/// A comment would be ignored, and a second line would set another key.
#[apply(test)]
fn a_setting_sets_its_key_alone() {
    for (setting, expected) in [
        ("#memory=64M", "is not a key"),
        (" # memory=64M", "is not a key"),
        ("[env]\nA=b", "is not a key"),
        ("hostname=\"a\"\nallow_new_privs=true", "more than one value"),
        ("hostname=\"a\" # b", "more than one value"),
    ] {
        let said = run(&["--set", setting, "--", "true"]).refusal(2);
        assert!(said.contains(expected), "{setting:?}: {said}");
    }
    // What is no TOML is text, also in several lines.
    assert_eq!(run(&["--set", "env.A=b\nc=d", "--", "printenv", "A"]).output(), "b\nc=d");
}

#[apply(test)]
fn options_and_keys_read_the_same_sizes_times_and_profiles() {
    let units = "ulimit -f; ulimit -u";
    let of = |options: &[&str]| run(&[options, &["--", "bash", "-c", units]].concat()).output();
    for options in
        [["--profile", "compile-untrusted"], ["--profile", "compile_untrusted"], ["--set", "profile=compile_untrusted"]]
    {
        assert_eq!(of(&options), "262144\n256", "{options:?}");
    }
    let size = |option: &[&str]| sh(option, "df -B1 --output=size /x | tail -n 1").output().trim().to_owned();
    for text in ["8M", "8MiB", "8192K", "8388608"] {
        assert_eq!(size(&["--tmpfs", &format!("/x:{text}")]), "8388608", "{text}");
        assert_eq!(size(&["--set", &format!("tmpfs=[\"/x:{text}\"]")]), "8388608", "{text}");
    }
    assert_eq!(size(&["--tmpfs", "/x:8192KB"]), "8192000");
    assert!(run(&["--set", "profile=build-step", "--", "true"]).refusal(2).contains("use `build_step`"));
}

#[apply(test)]
fn options_replace_settings_and_settings_replace_the_file() {
    let dir = with_file();
    let file = dir.path().join("sandbox.toml");
    fs::write(&file, "hostname = 'file'\nro = ['file:/shown']\nenv = { A = '1', B = '1' }\ncommand = ['uname', '-n']")
        .unwrap();
    let file = file.display().to_string();
    let options = ["--config", &file];
    assert_eq!(run(&options).output(), "file");
    assert_eq!(run(&[&options[..], &["--set", "hostname=set"]].concat()).output(), "set");
    let all = [&options[..], &["--hostname", "option", "--set", "hostname=set"]].concat();
    assert_eq!(run(&all).output(), "option");
    // Mounts and variables are added to each other. The path is relative to the file, not to this process.
    let script = "echo $A$B; cat /shown; ls /other";
    let other = at(&dir, "/other");
    let added = [&options[..], &["--env", "B=2", "--ro", &other, "--", "sh", "-c", script]].concat();
    assert_eq!(run(&added).output(), "12\ncontents\nfile\nsandbox.toml");
    let said = run(&[&options[..], &["--tmpfs", "/shown"]].concat()).refusal(2);
    assert!(said.contains("/shown") && said.contains("`tmpfs`"), "{said}");
}

#[apply(test)]
fn errors_of_a_file_name_it_and_its_line() {
    let dir = shared_dir();
    let file = dir.path().join("sandbox.toml");
    fs::write(&file, "hostname = 'a'\nmemmory = '1GiB'\n").unwrap();
    let said = run(&["--config", file.to_str().unwrap(), "--", "true"]).refusal(2);
    assert!(said.contains("sandbox.toml") && said.contains("line 2: unknown key `memmory`: use `memory`"), "{said}");
    let said = run(&["--config", "/no/such/file", "--", "true"]).refusal(2);
    assert!(said.contains("/no/such/file") && said.contains("No such file"), "{said}");
}

#[apply(test)]
fn a_path_may_have_a_colon_and_any_bytes() {
    let dir = shared_dir();
    fs::write(dir.path().join("a:b"), "colon").unwrap();
    let path = dir.path().join("a:b").display().to_string();
    assert!(run(&["--ro", &format!("{path}:/x"), "--", "true"]).refusal(2).contains("--set"), "it says how");
    let setting = format!("ro=[{{ source = {path:?}, target = \"/x:y\" }}]");
    assert_eq!(run(&["--set", &setting, "--", "cat", "/x:y"]).output(), "colon");
    let name = OsString::from_vec(b"bytes\xff".to_vec());
    fs::write(dir.path().join(&name), "bytes").unwrap();
    let args = [
        "--ro".into(),
        dir.path().join(&name).into_os_string(),
        "--".into(),
        "cat".into(),
        dir.path().join(&name).into(),
    ];
    assert_eq!(ran(stockade_run(args)).output(), "bytes");
}

#[apply(test)]
fn what_has_no_option_can_be_set() {
    let dir = with_file();
    let input = dir.path().join("file").display().to_string();
    // A further descriptor, and the standard input.
    let said = sh(&["--set", &format!("descriptors.3.read={input:?}")], "cat <&3").output();
    assert_eq!(said, "contents");
    assert_eq!(sh(&["--set", &format!("descriptors.0.read={input:?}")], "cat").output(), "contents");
    // An unconfined program, and the filter as it is else.
    let seccomp = "grep ^Seccomp: /proc/self/status";
    assert_eq!(sh(&[], seccomp).output(), "Seccomp:\t2");
    let unconfined = sh(&["--seccomp", "unconfined"], seccomp).output();
    assert!(["Seccomp:\t0", "Seccomp:\t2"].contains(&unconfined.as_str()), "a container may have one: {unconfined}");
    assert_eq!(
        unconfined,
        fs::read_to_string("/proc/self/status").map_or(String::new(), |status| {
            status.lines().find(|line| line.starts_with("Seccomp:")).unwrap_or_default().to_owned()
        })
    );
    // The caller's own IDs.
    let identity = sh(&["--set", "identity=caller"], "cat /proc/self/uid_map").output();
    let uid = nix::unistd::geteuid().to_string();
    assert!(identity.split_whitespace().nth(1) == Some(&uid), "{identity}");
    // A device that is not in the minimal /dev.
    let device = ["/dev/loop-control", "/dev/fuse", "/dev/kmsg"].into_iter().find(|path| exists(path));
    if let Some(device) = device {
        let is_there = format!("test -c {device}");
        assert_eq!(sh(&[], &is_there).status, 1);
        assert_eq!(sh(&["--set", &format!("devices=[{device:?}]")], &is_there).status, 0);
    }
}

#[apply(test)]
fn errors_are_in_the_words_of_options() {
    let cases: &[(&[&str], &str)] = &[
        (&["--root", "inherit", "--tmpfs", "/tmp"], "--root host or --root /"),
        (&["--share", "uts", "--set", "domain_name=x"], "domain_name"),
    ];
    for (options, expected) in cases {
        let said = run(&[*options, &["--", "true"]].concat()).refusal(2);
        assert!(said.contains(expected) && !said.contains("::"), "{options:?}: {said}");
    }
    let said = run(&["--root", "empty", "--", "/bin/sh"]).refusal(127);
    assert!(said.ends_with("add --ro /bin") || said.ends_with("add --ro /usr/bin"), "{said}");
}

#[apply(test)]
fn json_is_the_last_line_of_standard_error() {
    let last = |ran: &Ran| serde_json::from_str::<serde_json::Value>(ran.stderr.lines().last().unwrap_or_default());
    let limited = sh(&["--json", "--wall", "100ms"], "echo error >&2; sleep 30");
    let outcome: stockade::Outcome = serde_json::from_value(last(&limited).expect("JSON")).expect("an outcome");
    assert_eq!((limited.status, outcome.termination), (124, stockade::Termination::WallTime));
    assert_eq!(limited.stderr.lines().next(), Some("error"));
    assert_eq!(limited.stderr.lines().count(), 2, "no other message: {limited:?}");
    let failed = run(&["--json", "--", "no-such-program"]);
    assert_eq!(failed.status, 127);
    assert_eq!(last(&failed).expect("JSON")["error"]["kind"], "NotFound", "{failed:?}");
    for options in [["--report", "/no/such/report"], ["--report", "/dev/full"], ["--learn", "/no/such/policy"]] {
        let failed = run(&[&["--json"], &options[..], &["--", "true"]].concat());
        assert_eq!(failed.status, 125);
        assert_eq!(last(&failed).expect("JSON")["error"]["kind"], "Io", "{failed:?}");
    }
    // What cannot be written is no success.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let mut host = stockade_run(["--json", "--", "true"]);
    assert_eq!(host.stderr(full).status().expect("the command").code(), Some(125));
}

/// Profiles limit output that is collected; a program that is learned writes to the streams of the command.
#[apply(test)]
fn the_output_of_a_learned_program_is_shown_with_a_profile_too() {
    let dir = shared_dir();
    let file = dir.path().join("learned.json").display().to_string();
    let script = "echo shown; echo error >&2";
    for options in [["run", "--learn", &file], ["learn", "--output", &file]] {
        let program = ["--profile", "agent", "--", "sh", "-c", script];
        let learned = stockade(&[&options[..], &program].concat());
        assert_eq!((learned.status, &*learned.stdout, &*learned.stderr), (0, "shown", "error"), "{options:?}");
        let limited = ["--set", "stdout_max=1K", "--", "sh", "-c", script];
        let said = stockade(&[&options[..], &limited].concat()).refusal(2);
        assert!(said.contains("stdout_max"), "{said}");
    }
}

#[apply(test)]
fn learn_writes_the_policy_alone_to_standard_output() {
    let learned = stockade(&["learn", "--", "sh", "-c", "echo shown; read line </etc/passwd"]);
    assert_eq!((learned.status, learned.stderr.as_str()), (0, "shown"), "{learned:?}");
    let policy: stockade::learn::Learned = serde_json::from_str(&learned.stdout).expect("a policy");
    assert!(policy.read().any(|path| path == std::path::Path::new("/etc/passwd")), "{policy}");
    // It narrows a later run.
    let dir = shared_dir();
    let file = dir.path().join("learned.json").display().to_string();
    assert_eq!(stockade(&["learn", "--output", &file, "--", "cat", "/etc/passwd"]).status, 0);
    let narrowed = ["--set", &format!("learned={file:?}"), "--best-effort", "landlock"];
    assert_eq!(run(&[&narrowed[..], &["--", "cat", "/etc/passwd"]].concat()).status, 0);
    assert_ne!(run(&[&narrowed[..], &["--", "mkdir", "/tmp/made"]].concat()).status, 0);
    assert_eq!(run(&["--", "mkdir", "/tmp/made"]).status, 0);
}

/// The options of a help text.
fn options(help: &str) -> Vec<&str> {
    let words = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    words.filter_map(|line| line.split([' ', ',']).next()).filter(|name| !name.is_empty()).collect()
}

#[apply(test)]
fn completions_and_manual_pages_have_every_option() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stockade(&["completions", shell]).output();
        for subcommand in ["run", "plan", "learn"] {
            let help = stockade(&[subcommand, "--help"]).output();
            let options = options(&help);
            assert!(options.len() > 40, "{options:?}");
            for option in options {
                assert!(script.contains(option), "{shell} does not know --{option} of {subcommand}");
            }
        }
    }
    for subcommand in ["run", "plan", "learn", "doctor"] {
        let page = stockade(&["man", subcommand]).output();
        assert!(page.contains(&format!("stockade\\-{subcommand}")), "{page}");
        let help = stockade(&[subcommand, "--help"]).output();
        for option in options(&help) {
            let shown = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "--{option} is not in the page of {subcommand}");
        }
    }
    assert!(stockade(&["man"]).output().contains("stockade"), "a page");
    assert!(stockade(&["man", "nothing"]).refusal(2).contains("run, plan, learn"));
}

#[apply(test)]
fn doctor_and_keys_take_no_program() {
    assert!(stockade(&["keys", "true"]).refusal(2).contains("unexpected argument"));
    let doctor = stockade(&["doctor", "--json"]);
    assert!(serde_json::from_str::<stockade::probe::Support>(&doctor.stdout).is_ok(), "{doctor:?}");
    assert!(doctor.status == 0 || !is_root(), "{doctor:?}");
}

#[apply(test)]
fn a_program_may_follow_without_dashes() {
    assert_eq!(run(&["echo", "--", "-n", "x"]).output(), "-- -n x");
    let mut host = stockade_run(["--hostname", "a", "uname", "-n"]);
    host.stdin(Stdio::null());
    assert_eq!(ran(host).output(), "a");
}
