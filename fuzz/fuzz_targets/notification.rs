//! A system call that waits for the host: any number and arguments, and pointers that lead anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, i32, [u64; 6])| {
    let (memory, number, args) = input;
    let string = memory.split(|&byte| byte == 0).next().filter(|string| string.len() < memory.len());
    let mut own = args;
    own[0] = memory.as_ptr() as u64;
    // What lies behind the memory is not known.
    if let Some(string) = string.filter(|string| string.len() < 4096) {
        assert_eq!(stockade::fuzzing::notified(number, own).as_deref(), Some(string));
    }
    stockade::fuzzing::notified(number, args);
});
