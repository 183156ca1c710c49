//! A policy of system calls as JSON: it becomes a filter that the kernel takes, or is refused with words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stockade::{ErrorKind, Sandbox, Seccomp};

fuzz_target!(|json: &[u8]| {
    let Ok(policy) = serde_json::from_slice::<Seccomp>(json) else { return };
    let written = serde_json::to_string(&policy).expect("as JSON");
    assert_eq!(serde_json::from_str::<Seccomp>(&written).expect("from JSON"), policy);
    assert!(!policy.to_string().is_empty());
    match Sandbox::new().seccomp(policy).plan(stockade_fuzz::command()) {
        Ok(_) => {}
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
        }
    }
});
