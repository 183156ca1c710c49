//! Memory that the arguments of a waiting call point to, as the caller reads it.

use std::path::Path;
use std::sync::mpsc;

use stockade::seccomp::{Action, Decision, Notification};
use stockade::{Command, Namespaces, Root, Sandbox, Seccomp, Stdio};

use crate::seccomp::calls::{PAGE, call, page_before_a_gap, put_at_end};
use crate::seccomp::payloads::number;
use crate::seccomp::{bounded, succeeded, supervised, under};
use crate::support::{is_root, own_path};
use stockade::Errno;

payloads![("points", points)];

/// Calls with pointers that lead to different things, by what is said.
fn points(args: &[String]) -> i32 {
    let page = page_before_a_gap();
    // Two pages that can both be read, with nothing behind them that the test looks at.
    let long = [vec![b'x'; 3 * PAGE], vec![0]].concat();
    for arg in args {
        let (what, number_of_bytes) = arg.split_once(':').unwrap_or((arg, "0"));
        let len: usize = number_of_bytes.parse().expect("a number");
        let address = match what {
            // A string of so many bytes whose end is the end of the page.
            "ends" => put_at_end(page, &[vec![b'y'; len], vec![0]].concat()),
            // The same without its end.
            "endless" => put_at_end(page, &vec![b'y'; len]),
            "long" => long[long.len() - 1 - len..].as_ptr() as u64,
            // Before the last bytes of a page, and so many bytes long.
            "across" => {
                let start = long.as_ptr() as usize;
                let boundary = (start + PAGE).next_multiple_of(PAGE);
                long[boundary - 10 - start..].as_ptr() as u64
            }
            "gap" => page as u64 + PAGE as u64,
            "null" => 0,
            "kernel" => 0xffff_8000_0000_0000,
            "last" => u64::MAX,
            other => panic!("what is {other}?"),
        };
        let _ = call(number("getppid"), [address, len as u64, 0, 0, 0, 0]);
    }
    println!("done");
    0
}

/// What a reader says of each of these pointers.
fn read<T: Send + 'static>(points: &[&str], mut reader: impl FnMut(&Notification<'_>) -> T + Send + 'static) -> Vec<T> {
    let (sender, read) = mpsc::channel();
    let child = supervised(Seccomp::new().on(["getppid"], Action::Notify), "points", points, move |call| {
        sender.send(reader(call)).expect("a receiver");
        Decision::Errno(Errno::EPERM)
    });
    assert_eq!(succeeded(child).0, ["done"]);
    read.iter().collect()
}

/// The lengths of strings, or the errors' names.
fn lengths(points: &[&str]) -> Vec<Result<usize, String>> {
    read(points, |call| call.string(0).map(|it| it.len()).map_err(|error| name(&error)))
}

fn name(error: &stockade::Error) -> String {
    let said = error.to_string();
    let name = said.split_once('(').and_then(|(_, rest)| rest.split_once(')')).unwrap_or_else(|| panic!("{said}"));
    name.0.to_owned()
}

fn error<T>(name: &str) -> Result<T, String> {
    Err(name.to_owned())
}

#[apply(test)]
fn strings_are_read_up_to_their_end() {
    let strings = read(&["ends:5", "long:3", "ends:0"], |call| call.string(0).expect("a string"));
    assert_eq!(strings, [b"yyyyy".to_vec(), b"xxx".to_vec(), vec![]]);
}

#[apply(test)]
fn strings_are_read_across_pages() {
    assert_eq!(lengths(&["ends:4094", "ends:4095", "long:4095"]), [Ok(4094), Ok(4095), Ok(4095)]);
}

#[apply(test)]
fn reading_unmapped_memory_is_an_error() {
    let points = ["endless:5", "gap", "null", "kernel", "last"];
    assert_eq!(lengths(&points), vec![error("EFAULT"); points.len()]);
    let none = read(&["ends:5"], |call| call.string(7).map_err(|error| name(&error)));
    assert_eq!(none, [error("EFAULT")], "a call has six arguments");
}

#[apply(test)]
fn a_string_is_no_longer_than_a_path() {
    let long = error("ENAMETOOLONG");
    assert_eq!(lengths(&["long:4095", "long:4096", "long:12000"]), [Ok(4095), long.clone(), long]);
    // No end is looked for behind that.
    assert_eq!(lengths(&["endless:4095", "endless:4096"]), [error("EFAULT"), error("ENAMETOOLONG")]);
}

#[apply(test)]
fn bytes_are_read_whole_or_not_at_all() {
    let read_all = |call: &Notification<'_>| {
        let len = call.args()[1] as usize;
        [len, len + 1].map(|len| call.bytes(0, len).map(|it| it.len()).map_err(|error| name(&error)))
    };
    let read = read(&["endless:4096", "endless:1", "across:6000"], read_all);
    assert_eq!(read[..2], [[Ok(4096), error("EFAULT")], [Ok(1), error("EFAULT")]]);
    assert_eq!(read[2], [Ok(6000), Ok(6001)]);
}

#[apply(test)]
fn sizes_claimed_by_the_program_allocate_nothing() {
    let mebibyte = 1 << 20;
    let read = read(&["ends:5"], move |call| {
        [mebibyte, mebibyte + 1, usize::MAX].map(|len| call.bytes(0, len).map(drop).map_err(|error| name(&error)))
    });
    assert_eq!(read, [[error("EFAULT"), error("EMSGSIZE"), error("EMSGSIZE")]]);
}

/// prctl(PR_SET_DUMPABLE, 0), and a call with a string.
const HIDING: [&str; 4] = ["--payload", "calls", "prctl:4,0", "getppid:secret"];

/// What the host reads of such a program.
fn read_of_hiding(sandbox: &Sandbox, program: &Path) -> Result<Vec<u8>, String> {
    let (sender, read) = mpsc::channel();
    let mut command = Command::new(program);
    command.args(HIDING).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = sandbox.spawn_supervised(&command, move |call| {
        sender.send(call.string(0).map_err(|error| name(&error))).expect("a receiver");
        Decision::Return(7)
    });
    assert_eq!(succeeded(child.expect("a child")).0, ["0", "7"]);
    read.recv().expect("a call")
}

#[apply(test)]
fn memory_of_undumpable_programs_is_read_by_the_owner_of_their_user_namespace() {
    let policy = || Seccomp::new().on(["getppid"], Action::Notify);
    assert_eq!(read_of_hiding(&under(policy()), Path::new(crate::support::PAYLOAD)), Ok(b"secret".to_vec()));
    if !is_root() {
        // Without one the host is nothing but another process of the same user.
        let bare = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
        assert_eq!(read_of_hiding(&bounded(bare.seccomp(policy())), &own_path()), error("EPERM"));
    }
}
