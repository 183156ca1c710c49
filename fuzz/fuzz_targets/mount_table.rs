//! `/proc/self/mountinfo`: any bytes, and lines with hostile names as the kernel writes them.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

/// As `mangle` of the kernel's `fs/seq_file.c` does.
fn mangled(name: &[u8]) -> Vec<u8> {
    let one = |&byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![byte],
    };
    name.iter().flat_map(one).collect()
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (table, name) = input;
    stockade::fuzzing::mount_points(&table);
    if name.contains(&0) {
        return;
    }
    let mangled = mangled(&name);
    let line =
        [b"36 35 0:1 /", &mangled[..], b" /", &mangled[..], b" rw shared:1 - tmpfs ", &mangled[..], b" rw\n"].concat();
    let path = PathBuf::from(OsString::from_vec([b"/", &name[..]].concat()));
    assert_eq!(stockade::fuzzing::mount_points(&line), [path]);
});
