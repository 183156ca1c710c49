//! Programs that make the filtered system calls.

use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command as Host;

use nix::errno::Errno;
use stockade::seccomp::SystemCall;

use crate::seccomp::calls::call;

payloads![("calls", calls), ("exec", exec), ("many_calls", many), ("thread", thread)];

/// The number of a call.
pub fn number(name: &str) -> i64 {
    SystemCall::named(name).unwrap_or_else(|| panic!("no call {name}")).number().into()
}

/// Makes each call that is named, `getppid:0,1`, `mkdirat:cwd,/tmp/a`, and tells what it gives: `0`, `EPERM`.
pub fn calls(args: &[String]) -> i32 {
    for arg in args {
        println!("{}", told(arg));
    }
    0
}

/// Makes a call, and tells what it gives.
pub fn told(said: &str) -> String {
    let (name, args) = said.split_once(':').unwrap_or((said, ""));
    let mut strings = vec![];
    let mut words = [0; 6];
    for (word, arg) in words.iter_mut().zip(args.split(',').filter(|arg| !arg.is_empty())) {
        *word = match arg.parse() {
            Ok(number) => number,
            Err(_) if arg == "cwd" => libc::AT_FDCWD as u64,
            Err(_) => {
                let string = CString::new(arg).expect("no zero byte");
                let address = string.as_ptr() as u64;
                strings.push(string);
                address
            }
        };
    }
    match call(number(name), words) {
        Ok(value) => value.to_string(),
        // One that the kernel does not have.
        Err(Errno::UnknownErrno) => format!("error {}", Errno::last_raw()),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Executes a program in its own place, and tells why it can't.
fn exec(args: &[String]) -> i32 {
    println!("{:?}", Host::new(&args[0]).args(&args[1..]).exec().raw_os_error().map(Errno::from_raw));
    0
}

/// Makes so many different calls with arguments, and as many with paths.
fn many(args: &[String]) -> i32 {
    let count: u64 = args[0].parse().expect("a number");
    for round in 0..count {
        let _ = call(number("getppid"), [round; 6]);
        let _ = fs::create_dir(format!("/tmp/{round}"));
    }
    println!("done");
    0
}

/// Starts a thread.
fn thread(_: &[String]) -> i32 {
    println!("{}", std::thread::spawn(|| 7).join().expect("a thread"));
    0
}
