//! Learned policies as Rust code and as JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use stockade::landlock::FsAccess;
use stockade::learn::Learned;

use crate::learn::deeds::deeds;
use crate::learn::{learn, sandbox};
use crate::support::{COMMAND, example, text};

/// One of everything.
fn everything() -> Learned {
    let all = FsAccess::all();
    let plain =
        [("/etc/passwd", FsAccess::READ_FILE), ("/", FsAccess::empty()), ("/tmp", all), ("/a \"b\"\n\u{1}é", all)];
    let bytes = [(OsStr::from_bytes(b"/no\xffutf8\n\"\\'"), FsAccess::READ_FILE | FsAccess::EXECUTE)];
    Learned::new()
        .allow_calls(["read", "openat"])
        .allow_paths(plain)
        .allow_paths(bytes)
        .allow_bind([0, 80])
        .allow_connect([65535])
        .allow_abstract_sockets()
}

#[apply(test)]
fn code_builds_the_value_that_it_was_printed_from() {
    // The file is compiled with this test: what is printed is Rust.
    let built: Learned = include!("printed.in");
    let printed = everything().to_string();
    assert_eq!(printed, include_str!("printed.in"), "{printed}");
    assert_eq!(built, everything());
    assert_eq!(Learned::new().to_string(), "stockade::learn::Learned::new()\n");
}

#[apply(test)]
fn json_is_the_value() {
    for learned in [everything(), Learned::new(), learn(&sandbox(), &deeds(&["read /etc/passwd", "listen 4000"]))] {
        let json = serde_json::to_string_pretty(&learned).expect("JSON");
        assert_eq!(serde_json::from_str::<Learned>(&json).expect("JSON of its own"), learned, "{json}");
    }
}

#[apply(test)]
fn json_can_be_edited() {
    let json = r#"{
        "calls": ["read"],
        "paths": { "/etc": ["read_file", "read_dir"], "/\\xff": [] },
        "connect": [443]
    }"#;
    let expected = Learned::new()
        .allow_calls(["read"])
        .allow_paths([("/etc", FsAccess::READ_FILE | FsAccess::READ_DIR)])
        .allow_paths([(OsStr::from_bytes(b"/\xff"), FsAccess::empty())])
        .allow_connect([443]);
    assert_eq!(serde_json::from_str::<Learned>(json).expect("JSON"), expected);
    for wrong in ["7", r#"{"call":[]}"#, &json.replace("read_file", "read_all"), &json.replace("443", "65536")] {
        assert!(serde_json::from_str::<Learned>(wrong).is_err(), "{wrong}");
    }
}

#[apply(test)]
fn run_writes_the_learned_policy() {
    let dir = crate::support::shared_dir();
    let [json, code] = ["learned.json", "learned.rs"].map(|name| dir.path().join(name));
    let run = |to: &OsStr, program: &[&str]| {
        let mut run = std::process::Command::new(example(COMMAND));
        let output = run.args(["run", "--learn"]).arg(to).arg("--").args(program).output().expect("run");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let program = ["sh", "-c", "read line </etc/passwd; exit 3"];
    for to in [&json, &code] {
        let (status, wrote, said) = run(to.as_ref(), &program);
        assert_eq!((status, &*wrote), (Some(3), ""), "{said}");
    }
    let read = |path| std::fs::read_to_string(path).expect("what was learned");
    let learned: Learned = serde_json::from_str(&read(&json)).expect("JSON");
    assert_eq!(crate::learn::at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    assert_eq!(learned.to_string(), read(&code));
    let (status, wrote, _) = run("-".as_ref(), &program);
    assert_eq!((status, serde_json::from_str::<Learned>(&wrote).expect("JSON")), (Some(3), learned));
    assert_eq!(run(dir.path().as_ref(), &program).0, Some(125), "a directory can't be written");
    let (status, wrote, said) = run("-".as_ref(), &["/nowhere"]);
    assert_eq!((status, &*wrote), (Some(127), ""), "{said}");
}
