//! `/etc/subuid`: any text, for any user.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, u32)| {
    let (text, name, uid) = input;
    for (first, count) in stockade::fuzzing::sub_ids(text, name, uid) {
        assert!(first.checked_add(count).is_some(), "{first} and {count}");
    }
});
