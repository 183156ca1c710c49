//! Landlock rules, with and without namespaces, on this kernel and on older ones.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use stockade::{Layer, Namespaces, Root, Sandbox};

fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    let Ok(landlock) = stockade_fuzz::landlock(&mut u) else { return };
    let mut sandbox = Sandbox::new().landlock(landlock);
    if bool::arbitrary(&mut u).unwrap_or_default() {
        sandbox = sandbox.namespaces(Namespaces::empty()).root(Root::inherit());
    }
    if bool::arbitrary(&mut u).unwrap_or_default() {
        sandbox = sandbox.best_effort([Layer::Landlock]);
    }
    stockade_fuzz::planned(&sandbox);
});
