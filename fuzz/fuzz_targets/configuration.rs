//! A configuration as JSON: what is read is the same when it is written and read again, and is planned or refused with
//! words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stockade::Sandbox;

fuzz_target!(|json: &[u8]| {
    let Ok(sandbox) = serde_json::from_slice::<Sandbox>(json) else { return };
    let written = serde_json::to_string(&sandbox).expect("as JSON");
    assert_eq!(serde_json::from_str::<Sandbox>(&written).expect("from JSON"), sandbox);
    stockade_fuzz::planned(&sandbox);
});
