//! The files of a cgroup, `/proc/self/cgroup`, and the table of mounts that says where they are.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (figures, mounts, own) = input;
    stockade::fuzzing::cgroup_figures(figures);
    stockade::fuzzing::cgroup_places(mounts, own);
});
