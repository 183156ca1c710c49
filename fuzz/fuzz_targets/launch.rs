//! Random sandboxes: each is refused, or launched, or fails with a typed error; and nothing of it is left.
#![no_main]

use std::fs;
use std::sync::Once;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use stockade::{Command, ErrorKind, Sandbox};

/// The first sandbox opens what a process keeps for all that follow: the user namespace of idmapped mounts.
static BEGUN: Once = Once::new();

/// Descriptors, children and mounts of this process.
fn held() -> (usize, String, String) {
    let descriptors = fs::read_dir("/proc/self/fd").expect("descriptors").count();
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    (descriptors, children, fs::read_to_string("/proc/self/mountinfo").expect("mounts"))
}

fuzz_target!(|bytes: &[u8]| {
    BEGUN.call_once(|| {
        let _ = Sandbox::new().status(Command::new("true"));
    });
    let Ok(sandbox) = stockade_fuzz::sandbox(&mut Unstructured::new(bytes)) else { return };
    let before = held();
    if let Some(plan) = stockade_fuzz::planned(&sandbox) {
        match plan.spawn() {
            Ok(mut child) => drop(child.wait().expect("an outcome")),
            Err(error) => assert!(!matches!(error.kind(), ErrorKind::Io | ErrorKind::Unkillable), "{error}"),
        }
    }
    assert_eq!(held(), before, "{sandbox:?}");
});
