//! The parts of a command: arguments, environment, working directory, streams, descriptors, session and signals; and
//! the plan that is compiled from it.

mod path_search;
mod terminal;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command as Host;

use crate::support::{self, field, on_host, payload, stdout, text, with_payload};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use stockade::Errno;
use stockade::ErrorKind;
use stockade::{Child, Command, Root, Sandbox, Stdio, Termination};

payloads![
    ("few_descriptors", caller_with_64_descriptors),
    ("show_descriptors", show_descriptors),
    ("inherits", spawn_with_inherited_streams),
    ("leaky", leaky_caller),
    ("caller_umask", caller_with_umask),
    ("file_size_limit", caller_with_a_limit_on_files),
    ("file_size_below_an_image", caller_that_may_write_no_image),
    ("state_unchanged", caller_is_as_before),
    ("signals", show_signals_inside),
];

/// Runs a command in a sandbox; what it wrote, without the last newline. It must succeed.
fn output(sandbox: &Sandbox, command: &mut Command) -> String {
    let output = sandbox.output(&*command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.outcome.success(), "{command:?}: {}, stderr {:?}", output.outcome, text(&output.stderr));
    text(&output.stdout)
}

/// The same in the default sandbox.
fn run(command: &mut Command) -> String {
    output(&Sandbox::new(), command)
}

/// A shell that runs a script.
fn script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// A program that waits for the end of its input.
fn cat() -> Command {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn collected(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.outcome.success(), "{}", output.outcome);
    text(&output.stdout)
}

/// A file with this text in it, which has no name.
fn file_with(contents: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, contents.as_bytes()).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    file
}

#[apply(test)]
fn exit_codes_are_reported() {
    let outcome = Sandbox::new().status(script("exit 3")).unwrap();
    assert_eq!(outcome.termination, Termination::Exited(3));
}

#[apply(test)]
fn output_is_collected() {
    assert_eq!(stdout(&Sandbox::new(), "echo hello"), "hello");
    let output = support::sh(&Sandbox::new(), "echo out; echo err >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
}

#[apply(test)]
fn arguments_arrive_as_they_are() {
    let args: [&[u8]; 6] = [b"a", b"two words", b"", b"line\nend", b"\xff\xfe", b"$HOME * 'q' \"q\""];
    let mut command = Command::new("cat");
    command.arg("/proc/self/cmdline").args(args.map(OsStr::from_bytes));
    let output = Sandbox::new().output(&command).unwrap();
    let given = [b"cat".as_slice(), b"/proc/self/cmdline"].into_iter().chain(args);
    let expected: Vec<u8> = given.flat_map(|arg| [arg, b"\0"].concat()).collect();
    assert!(output.stdout.starts_with(&expected), "{:?}", text(&output.stdout));
}

#[apply(test)]
fn arg0_sets_the_programs_own_name() {
    let seen = run(Command::new("/bin/cat").arg0("another name").arg("/proc/self/cmdline"));
    assert_eq!(seen, "another name\0/proc/self/cmdline\0");
    let seen = run(Command::new("cat").arg("/proc/self/cmdline"));
    assert_eq!(seen, "cat\0/proc/self/cmdline\0", "by default it is as it was named");
}

#[apply(test)]
fn the_environment_contains_only_path_by_default() {
    let host = text(&Host::new("env").env("TOKEN", "secret").output().unwrap().stdout);
    assert!(host.contains("TOKEN=secret"), "a program of std::process has it all");
    assert!(std::env::vars_os().any(|(name, _)| name != "PATH"), "the caller has an environment");
    assert_eq!(run(&mut Command::new("env")), "PATH=/usr/local/bin:/usr/bin:/bin");
}

#[apply(test)]
fn variables_are_set_removed_and_cleared() {
    let sorted = |command: &mut Command| {
        let mut lines: Vec<String> = run(command).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut command = Command::new("/usr/bin/env");
    command.env("A", "1").envs([("B", "2=2"), ("C", ""), ("D", "gone")]).env("A", "again").env_remove("D");
    assert_eq!(sorted(&mut command), ["A=again", "B=2=2", "C=", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    assert_eq!(sorted(command.env_remove("PATH")), ["A=again", "B=2=2", "C="]);
    assert_eq!(sorted(command.env_clear().env("LAST", "1")), ["LAST=1"]);
    assert_eq!(run(command.env_clear()), "");
    let bytes = Sandbox::new().output(command.env(OsStr::from_bytes(b"\xff"), OsStr::from_bytes(b"\xfe"))).unwrap();
    assert_eq!(bytes.stdout, b"\xff=\xfe\n");
}

fn invalid(command: &Command) -> String {
    let error = Sandbox::new().spawn(command).expect_err(&format!("{command:?} is refused"));
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error:?}");
    assert_eq!(error.io_kind(), io::ErrorKind::InvalidInput);
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

#[apply(test)]
fn invalid_variable_names_are_refused() {
    for name in ["", "A=B", "="] {
        let message = invalid(Command::new("true").env(name, "value"));
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
}

#[apply(test)]
fn the_working_directory_is_the_root_by_default() {
    assert_ne!(std::env::current_dir().unwrap(), Path::new("/tmp"));
    assert_eq!(run(&mut Command::new("pwd")), "/");
    assert_eq!(run(Command::new("pwd").current_dir("/usr/bin")), "/usr/bin");
    let sandbox = Sandbox::new().root(Root::host().create_dir("/only here"));
    assert_eq!(output(&sandbox, Command::new("pwd").current_dir("/only here")), "/only here");
    assert_eq!(run(Command::new("./true").current_dir("/usr/bin")), "", "a relative program is below it");
}

#[apply(test)]
fn zero_bytes_are_refused() {
    let zero = "with\0zero";
    let message = invalid(&Command::new(zero));
    assert!(message.contains("zero byte"), "{message}");
    let mut commands = [const { None::<Command> }; 6].map(|_| Command::new("true"));
    commands[0].arg(zero);
    commands[1].arg0(zero);
    commands[2].env(zero, "value");
    commands[3].env("NAME", zero);
    commands[4].current_dir(zero);
    commands[5].env("PATH", zero);
    for command in &commands {
        let message = invalid(command);
        assert!(message.contains("zero byte"), "{message}");
    }
    assert!(invalid(&Command::new("")).contains("name is empty"));
}

#[apply(test)]
fn arguments_may_be_as_long_as_the_kernel_allows() {
    let long = "x".repeat(100 << 10);
    assert_eq!(run(script("echo ${#1} ${#2}").args(["sh", &long, "y"])), "102400 1");
    let count = run(script("echo $# ${#15}").arg("sh").args(vec![&long; 15]));
    assert_eq!(count, "15 102400", "1.5 MB of arguments");
    let mut command = script("echo ${#V0} ${#V14}");
    command.envs((0..15).map(|n| (format!("V{n}"), &long)));
    assert_eq!(run(&mut command), "102400 102400", "1.5 MB of environment");
    let many = run(script("echo $#").arg("sh").args((0..50_000).map(|n| n.to_string())));
    assert_eq!(many, "50000");
}

#[apply(test)]
fn longer_arguments_than_the_kernel_allows_are_an_error() {
    let commands = [
        script("true").arg("x".repeat(200 << 10)).clone(),
        script("true").args(vec!["x".repeat(100 << 10); 80]).clone(),
        script("true").env("LONG", "x".repeat(200 << 10)).clone(),
    ];
    for command in &commands {
        let error = Sandbox::new().spawn(command).expect_err("too long");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotExecutable, Some(Errno::E2BIG)));
        assert_eq!(error.path(), Some(Path::new("/bin/sh")));
        assert!(error.hint().is_some_and(|hint| hint.contains("arguments")), "{error}");
        assert!(error.to_string().contains("(E2BIG)"), "{error}");
    }
}

/// A caller that lets a program use its own standard streams.
fn spawn_with_inherited_streams(_: &[String]) -> i32 {
    let outcome = Sandbox::new().status(script("cat; echo err >&2; exit 5")).unwrap();
    outcome.termination.code().unwrap()
}

#[apply(test)]
fn inherited_streams_are_the_callers() {
    let mut host = support::payload_on_host("inherits");
    let piped = || std::process::Stdio::piped();
    let mut host = host.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    host.stdin.take().unwrap().write_all(b"from the caller's input").unwrap();
    let output = host.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("from the caller's input".into(), "err".into()));
    assert_eq!(output.status.code(), Some(5));
}

#[apply(test)]
fn null_streams_are_empty() {
    let mut command =
        script("test /dev/fd/0 -ef /dev/null && test /dev/fd/1 -ef /dev/null && echo null >&2; cat; echo lost");
    let child =
        Sandbox::new().spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())).unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none());
    let output = child.wait_with_output().unwrap();
    assert!(output.outcome.success() && output.stdout.is_empty());
    assert_eq!(text(&output.stderr), "null");
}

#[apply(test)]
fn piped_input_is_read_to_its_end() {
    let mut child = Sandbox::new().spawn(cat()).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"first ").unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first ");
    stdin.write_all(b"last").unwrap();
    drop(stdin);
    assert_eq!(collected(child), "last");
    // Waiting closes the input, as std::process does.
    let mut child = Sandbox::new().spawn(cat()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The ways in which a root shows the system's programs.
fn with_and_without_a_root() -> [Sandbox; 3] {
    let empty = Root::empty().bind("/usr", "/usr").bind("/bin", "/bin").bind("/lib", "/lib");
    let libraries = ["/lib64"].into_iter().filter(|path| Path::new(path).exists());
    let empty = libraries.fold(empty, |root, path| root.bind(path, path));
    let bare = Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit());
    [Sandbox::new(), Sandbox::new().root(empty), bare]
}

#[apply(test)]
fn bytes_of_any_number_are_read_to_their_end() {
    let big: Vec<u8> = (0..10_000_000u32).map(|index| ((index * 7) >> 3) as u8).collect();
    for sandbox in with_and_without_a_root() {
        for bytes in [&b""[..], b"a\0\xff", &big] {
            let mut command = Command::new("cat");
            command.stdin_bytes(bytes);
            let output = sandbox.output(&command).unwrap();
            assert!(output.outcome.success() && output.stdout == bytes, "{} of {}", output.stdout.len(), bytes.len());
            // By a plan, by `spawn` and by `status`, again.
            let child = sandbox.plan(command.stdout(Stdio::piped())).unwrap().spawn().unwrap();
            assert!(child.stdin.is_none() && child.wait_with_output().unwrap().stdout == bytes);
            let child = sandbox.spawn(&command).unwrap();
            assert!(child.wait_with_output().unwrap().stdout == bytes);
            let mut counts = script(&format!("[ $(wc -c) = {} ]", bytes.len()));
            assert!(sandbox.status(counts.stdin_bytes(bytes)).unwrap().success());
        }
    }
    // The last word counts.
    assert_eq!(run(Command::new("cat").stdin_bytes("first").stdin(Stdio::null())), "");
    assert_eq!(run(Command::new("cat").stdin(Stdio::null()).stdin_bytes("last")), "last");
}

#[apply(test)]
fn unread_input_does_not_block_the_caller() {
    for text in ["exit 3", "exec <&-; exit 3", "head -c 1 >/dev/null; exit 3", "exec </dev/null; sleep 0.1; exit 3"] {
        let outcome = Sandbox::new().status(script(text).stdin_bytes(vec![b'x'; 10_000_000])).unwrap();
        assert_eq!(outcome.termination, Termination::Exited(3), "{text}");
    }
}

#[apply(test)]
fn no_program_changes_what_the_next_one_reads() {
    // Each is tried, whether or not it succeeds; what was written to the file would be read after all.
    let attempts = "chmod 0 /proc/self/fd/0; chmod 777 /dev/stdin; echo changed >/dev/stdin; echo changed \
                    >>/dev/stdin; truncate -s 0 /dev/stdin; truncate -s 100 /dev/stdin; cat";
    for sandbox in [Sandbox::new(), Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit())] {
        let mut command = script(attempts);
        command.stdin_bytes("as it was");
        let plan = sandbox.plan(command.stdout(Stdio::piped()).stderr(Stdio::null())).unwrap();
        for _ in 0..3 {
            assert_eq!(collected(plan.spawn().unwrap()), "as it was");
            assert_eq!(collected(sandbox.spawn(&command).unwrap()), "as it was");
        }
    }
}

#[apply(test)]
fn bytes_are_a_file_that_is_only_read() {
    let text =
        "cat; cat /dev/stdin; cat <&0; echo; [ -t 0 ] || echo no terminal; (echo more >&0) 2>/dev/null || echo no";
    let output = run(script(text).stdin_bytes("all"));
    assert_eq!(output, "allall\nno terminal\nno", "by its path it is read from the start");
}

fn caller_with_a_limit_on_files(_: &[String]) -> i32 {
    let mut command = Command::new("cat");
    let error = Sandbox::new().output(command.stdin_bytes(vec![b'x'; 2_000_000])).expect_err("more than the limit");
    assert!(error.to_string().contains("RLIMIT_FSIZE") && error.to_string().contains("(EFBIG)"), "{error}");
    let output = Sandbox::new().output(command.stdin_bytes(vec![b'x'; 900_000])).expect("fewer than the limit");
    i32::from(output.stdout.len() != 900_000)
}

#[apply(test)]
fn more_bytes_than_the_callers_limit_are_an_error() {
    // The kernel's answer to a write beyond it is SIGXFSZ.
    on_host(&["prlimit", "--fsize=1000000"], "file_size_limit", &[]);
}

fn caller_that_may_write_no_image(_: &[String]) -> i32 {
    let error = Sandbox::new().status(Command::new("true")).expect_err("an image is larger");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::SetupFailed, Some(Errno::EFBIG)), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("RLIMIT_FSIZE")), "{error}");
    0
}

#[apply(test)]
fn a_caller_that_may_write_no_image_gets_an_error_and_no_signal() {
    for limit in ["--fsize=0", "--fsize=20000"] {
        on_host(&["prlimit", limit], "file_size_below_an_image", &[]);
    }
}

#[apply(test)]
fn a_command_says_what_it_is() {
    let mut command = Command::new("prog");
    assert_eq!((command.get_program(), command.get_args().len()), (OsStr::new("prog"), 0));
    assert_eq!(command.get_current_dir(), None);
    command.args(["a", "b"]).arg0("other").current_dir("/tmp").env("B", "2").env("A", "1");
    assert_eq!(command.get_args().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(command.get_current_dir(), Some(Path::new("/tmp")));
    let (names, values): (Vec<_>, Vec<_>) = command.get_envs().unzip();
    assert_eq!(names, ["A", "B", "PATH"]);
    assert_eq!(values[..2], ["1", "2"]);
    // It is what the program has.
    let mut env = Command::new("env");
    env.env("A", "1").env_remove("PATH").env("PATH", "/usr/bin");
    let expected: Vec<String> =
        env.get_envs().map(|(key, value)| format!("{}={}", key.display(), value.display())).collect();
    assert_eq!(run(&mut env).lines().collect::<Vec<_>>(), expected);
}

#[apply(test)]
fn streams_can_be_files_and_descriptors() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = script("cat; echo err >&2");
    command.stdin(file_with("contents\n")).stdout(file.reopen().unwrap()).stderr(file.as_file().try_clone().unwrap());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert!(Sandbox::new().status(command.stderr(theirs)).unwrap().success());
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "contents\n");
    // The command holds the other end too, to be run again.
    drop(command);
    let mut err = String::new();
    ours.read_to_string(&mut err).unwrap();
    assert_eq!(err, "err\n");

    let (mut read, write) = io::pipe().unwrap();
    assert!(Sandbox::new().status(script("echo by a pipe").stdout(write)).unwrap().success());
    let mut piped = String::new();
    read.read_to_string(&mut piped).unwrap();
    assert_eq!(piped, "by a pipe\n");

    let mut host =
        Host::new("echo").arg("of a program of the host").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let piped = run(Command::new("cat").stdin(host.stdout.take().unwrap()));
    host.wait().unwrap();
    assert_eq!(piped, "of a program of the host");
}

#[apply(test)]
fn one_descriptor_can_serve_two_streams() {
    let (mut read, write) = io::pipe().unwrap();
    let mut command = script("echo out; echo err >&2");
    command.stdout(write.try_clone().unwrap()).stderr(write);
    assert!(Sandbox::new().status(&command).unwrap().success());
    drop(command);
    let mut both = String::new();
    read.read_to_string(&mut both).unwrap();
    assert_eq!(both, "out\nerr\n");
}

/// Prints the numbers of the descriptors that are open.
fn show_descriptors(_: &[String]) -> i32 {
    let mut numbers: Vec<u32> =
        support::descriptors().iter().map(|(number, _)| number.parse().expect("a number")).collect();
    numbers.sort_unstable();
    println!("{numbers:?}");
    0
}

fn sandbox_with_payload() -> Sandbox {
    Sandbox::new().root(with_payload(Root::host()))
}

#[apply(test)]
fn further_descriptors_have_the_requested_numbers() {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "cat <&3; cat <&11; cat <&900"]);
    command.fd(3, file_with("three ")).fd(11, file_with("eleven ")).fd(900, file_with("nine hundred"));
    assert_eq!(run(&mut command), "three eleven nine hundred");
    let mut command = payload("show_descriptors");
    command.fd(3, file_with("")).fd(11, file_with("")).fd(900, file_with(""));
    assert_eq!(output(&sandbox_with_payload(), &mut command), "[0, 1, 2, 3, 11, 900]");
}

#[apply(test)]
fn descriptors_can_swap_numbers_with_the_callers() {
    // Every number is that of another descriptor in the caller.
    let files = ["one ", "two ", "three"].map(file_with);
    let numbers = [1, 2, 0].map(|other: usize| files[other].as_raw_fd());
    let mut command = Command::new("/bin/bash");
    command.args(["-c", &numbers.map(|number| format!("cat <&{number}; ")).concat()]);
    for (file, number) in files.into_iter().zip(numbers) {
        command.fd(number as u32, file);
    }
    assert_eq!(run(&mut command), "one two three");

    // The same with standard input, whose number in the caller is that of a further descriptor in the command.
    let (input, further) = (file_with("input "), file_with("further"));
    let number = input.as_raw_fd() as u32;
    let mut command = Command::new("/bin/bash");
    command.args(["-c", &format!("cat; cat <&{number}")]).stdin(input).fd(number, further);
    assert_eq!(run(&mut command), "input further");

    // Numbers that the launch uses itself, whichever they are.
    let mut command = Command::new("/bin/bash");
    let numbers: Vec<u32> = (3..64).collect();
    for &number in &numbers {
        command.fd(number, file_with(&format!("{number} ")));
    }
    command.args(["-c", &numbers.iter().map(|number| format!("cat <&{number}; ")).collect::<String>()]);
    let expected: Vec<String> = numbers.iter().map(u32::to_string).collect();
    assert_eq!(run(&mut command).trim_end(), expected.join(" "));
}

#[apply(test)]
fn a_further_descriptor_can_take_the_number_of_a_standard_stream() {
    assert_eq!(run(Command::new("cat").fd(0, file_with("as a further one"))), "as a further one");
}

#[apply(test)]
fn the_number_of_a_descriptor_may_be_the_highest_below_the_limit() {
    on_host(&["prlimit", "--nofile=64:64"], "few_descriptors", &["50", "62", "63"]);
}

#[apply(test)]
fn a_number_of_a_descriptor_above_the_limit_is_an_error() {
    let numbers = ["64", "65", "1000", "1048576", "2147483647", "2147483648", "4294967294", "4294967295"];
    on_host(&["prlimit", "--nofile=64:64"], "few_descriptors", &numbers);
}

/// A caller that may have 64 descriptors, and gives one to a program by these numbers.
fn caller_with_64_descriptors(numbers: &[String]) -> i32 {
    for number in numbers.iter().map(|number| number.parse().unwrap()) {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &format!("cat <&{number}")]).fd(number, file_with("contents"));
        if number < 64 {
            assert_eq!(run(&mut command), "contents", "{number}");
        } else {
            let error = Sandbox::new().spawn(&command).expect_err("above the limit");
            assert!(error.to_string().contains("RLIMIT_NOFILE"), "{number}: {error}");
        }
    }
    0
}

/// A caller with descriptors that its children inherit.
fn leaky_caller(_: &[String]) -> i32 {
    let secret = file_with("secret");
    let leak = |number| fcntl(&secret, FcntlArg::F_DUPFD(number)).unwrap();
    let leaked = [leak(3), leak(30), leak(900)];
    let numbers = text(&support::payload_on_host("show_descriptors").output().unwrap().stdout);
    for number in leaked {
        assert!(numbers.contains(&number.to_string()), "a program of std::process has {number}: {numbers}");
    }
    assert_eq!(output(&sandbox_with_payload(), &mut payload("show_descriptors")), "[0, 1, 2]");
    let sandbox = Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit());
    let mut here = Command::new(support::own_path());
    assert_eq!(output(&sandbox, here.args(["--payload", "show_descriptors"])), "[0, 1, 2]", "without any namespace");
    0
}

#[apply(test)]
fn no_other_descriptor_is_open_inside() {
    on_host(&[], "leaky", &[]);
}

/// Fields of `/proc/[pid]/stat` after the name: state, parent, group, session, terminal.
fn stat(of: &str) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect()
}

#[apply(test)]
fn a_session_is_new_by_default() {
    const GROUP: usize = 2;
    const SESSION: usize = 3;
    let mut child = Sandbox::new().spawn(cat()).unwrap();
    let id = child.pid().number().to_string();
    assert_eq!((&stat(&id)[SESSION], &stat(&id)[GROUP]), (&id, &id));
    assert_ne!(stat(&id)[SESSION], stat("self")[SESSION]);
    assert!(child.wait().unwrap().enforcement.is_active(stockade::Layer::Session));

    let mut child = Sandbox::new().spawn(cat().new_session(false)).unwrap();
    let id = child.pid().number().to_string();
    assert_eq!(stat(&id)[SESSION], stat("self")[SESSION]);
    assert!(!child.wait().unwrap().enforcement.is_active(stockade::Layer::Session));
}

#[apply(test)]
fn a_command_of_the_standard_library_is_converted() {
    let mut host = Host::new("/bin/sh");
    host.args(["-c", "pwd; echo $A-$B-$C-$0-$1", "zero", "one"]).env("A", "1").env("B", "2").env_remove("B");
    host.current_dir("/usr");
    assert_eq!(run(&mut Command::from(&host)), "/usr\n1---zero-one");
    let output = Sandbox::new().output(&host).unwrap();
    assert_eq!(text(&output.stdout), "/usr\n1---zero-one");
    assert!(host.output().unwrap().status.success(), "it is still there");
    assert!(Sandbox::new().output(&mut host).unwrap().outcome.success());
    assert!(Sandbox::new().output(host).unwrap().outcome.success());
}

#[apply(test)]
fn a_command_can_be_run_again_with_its_pipes() {
    let sandbox = Sandbox::new();
    let mut command = cat();
    command.fd(5, file_with("")).stderr(Stdio::piped());
    for word in ["once", "twice", "three times"] {
        let mut child = sandbox.spawn(&command).unwrap();
        assert!(child.stderr.is_some());
        child.stdin.as_mut().unwrap().write_all(word.as_bytes()).unwrap();
        assert_eq!(collected(child), word);
    }
}

#[apply(test)]
fn a_plan_can_be_run_again_with_its_pipes() {
    let plan = Sandbox::new().plan(cat()).unwrap();
    let mut children: Vec<Child> = (0..10).map(|_| plan.spawn().unwrap()).collect();
    for (number, child) in children.iter_mut().enumerate() {
        child.stdin.take().unwrap().write_all(number.to_string().as_bytes()).unwrap();
    }
    for (number, child) in children.into_iter().enumerate() {
        assert_eq!(collected(child), number.to_string());
    }
    let shown = plan.to_string();
    assert_eq!(shown, plan.clone().to_string());
}

/// Prints the signals that a program is born with, blocked and ignored, in a sandbox of this caller's.
fn show_signals_inside(_: &[String]) -> i32 {
    for sandbox in [Sandbox::new(), Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit())] {
        let status = output(&sandbox, Command::new("cat").arg("/proc/self/status"));
        for (set, name) in [("SigBlk", "blocked"), ("SigIgn", "ignored"), ("SigCgt", "handled")] {
            assert_eq!(field(&status, set), "0".repeat(16), "nothing is {name}");
        }
    }
    0
}

#[apply(test)]
fn signals_are_neither_blocked_nor_ignored_inside() {
    // A Rust program ignores SIGPIPE, and this thread blocks everything: a thread of its own, as the mask is inherited.
    let blocking = std::thread::spawn(|| {
        SigSet::all().thread_block().unwrap();
        let host = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_ne!(field(&host, "SigBlk"), "0".repeat(16));
        assert_ne!(field(&host, "SigIgn"), "0".repeat(16));
        show_signals_inside(&[]);
        assert!(SigSet::thread_get_mask().unwrap().contains(NixSignal::SIGTERM), "the caller's mask is as before");
    });
    blocking.join().unwrap();
    // Every signal is ignored, or blocked, real-time ones too.
    // A caller that ignores SIGCHLD is told no status by a kernel before 6.15.
    let but = if support::kernel() < (6, 15) { "--default-signal=CHLD" } else { "--ignore-signal" };
    on_host(&["env", "--ignore-signal", but], "signals", &[]);
    on_host(&["env", "--block-signal"], "signals", &[]);
}

/// A caller with another umask.
fn caller_with_umask(args: &[String]) -> i32 {
    let mask = u32::from_str_radix(&args[0], 8).unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    let sandbox =
        Sandbox::new().root(Root::host().file("/file", "contents").create_dir("/directory").tmpfs("/t", 1 << 20));
    let said = stdout(&sandbox, "umask; cat /file; echo; ls /directory; cd /t && echo x >f && stat -c %a f");
    assert_eq!(said, "0022\ncontents\n644");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&status, "Umask"), format!("{mask:04o}"));
    0
}

#[apply(test)]
fn the_umask_inside_does_not_depend_on_the_callers() {
    for mask in ["0", "022", "077", "777"] {
        on_host(&[], "caller_umask", &[mask]);
    }
}

/// What a caller is, as far as a spawn could change it.
fn state() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let fields = ["Threads", "SigBlk", "SigIgn", "SigCgt", "Umask", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs"];
    let mut state: Vec<String> = fields.map(|name| format!("{name} {}", field(&status, name))).into();
    state.push(format!("{:?}", &stat("self")[1..5]));
    state.push(format!("{:?}", std::env::current_dir().unwrap()));
    state.push(format!("{:?}", std::env::vars_os().collect::<Vec<_>>()));
    state.push(format!("{:?}", support::descriptors()));
    state.push(format!("{:?}", support::children()));
    state.push(fs::read_to_string("/proc/self/limits").unwrap());
    state.push(fs::read_to_string("/proc/self/mountinfo").unwrap());
    state.push(fs::read_link("/proc/self/root").unwrap().display().to_string());
    let namespaces = fs::read_dir("/proc/self/ns").unwrap().flatten().map(|entry| fs::read_link(entry.path()).unwrap());
    state.push(format!("{:?}", namespaces.collect::<Vec<_>>()));
    state
}

/// A caller with a mask and a umask of its own.
fn caller_is_as_before(_: &[String]) -> i32 {
    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGUSR1);
    mask.thread_block().unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    std::env::set_current_dir("/usr").unwrap();
    let before = state();
    let mut command = script("true");
    command.current_dir("/bin").env("A", "1").fd(9, file_with(""));
    let (held, before_with_the_file) = (command.clone(), state());
    assert_ne!(before, before_with_the_file, "a difference would be seen");
    assert!(Sandbox::new().status(&command).unwrap().success());
    let output = Sandbox::new().output(&command).unwrap();
    assert!(output.outcome.success());
    let child = Sandbox::new().spawn(script("sleep 1000").pty(24, 80)).unwrap();
    drop(child);
    Sandbox::new().spawn(Command::new("/nowhere")).expect_err("no such program");
    Sandbox::new().spawn(script("").current_dir("/nowhere")).expect_err("no such directory");
    Sandbox::new().spawn(script("").arg("x".repeat(1 << 20))).expect_err("too long");
    assert_eq!(state(), before_with_the_file);
    drop((held, command));
    assert_eq!(state(), before);
    0
}

#[apply(test)]
fn the_caller_is_unchanged_by_a_spawn() {
    on_host(&[], "state_unchanged", &[]);
}

/// Asserts that `parts` stand in `text` in this order.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("{part:?} is not where it belongs in:\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

/// A reason to skip what shows the usual calls.
fn unless_as_shown() -> Option<String> {
    support::unless_idmapped_mounts().or_else(support::unless_pivot_root)
}

#[apply(test)]
#[skip(unless_as_shown)]
fn the_plan_shows_every_step_in_order_with_its_arguments() {
    let source = support::shared_dir();
    let source = source.path().canonicalize().unwrap();
    let root = Root::empty()
        .bind("/usr", "/usr")
        .bind_rw(&source, "/shown/out")
        .tmpfs("/scratch", 12_345_344)
        .symlink("usr/lib64", "/lib64")
        .file("/etc/motd", "four")
        .dev("/dev")
        .proc("/proc");
    let mut command = Command::new("program");
    command.args(["first", "second word"]).env("NAME", "value").current_dir("/scratch").fd(7, file_with(""));
    let plan = Sandbox::new().hostname("plan-host").root(root).plan(&command).unwrap();
    let shown = plan.to_string();
    let source = source.display().to_string();
    in_order(
        &shown,
        &[
            "stockade: helper",
            "execveat(",
            "stockade: helper",
            "unshare(CLONE_NEWUSER|",
            "set the host name",
            "sethostname(\"plan-host\", 9)",
            "start init",
            "SIOCSIFFLAGS",
            "ppoll(",
            "MS_REC|MS_PRIVATE",
            "create the root",
            "/usr",
            "/shown/out",
            "12345344",
            "symlinkat(\"usr/lib64\"",
            "/etc/motd",
            "<4 bytes>",
            "/dev/null",
            "proc",
            "pivot_root(\".\", \".\")",
            "start the program's process",
            "CLONE_PARENT",
            "PR_CAPBSET_DROP",
            "PR_SET_SECUREBITS",
            "PR_SET_NO_NEW_PRIVS",
            "umask(0o22)",
            "setsid()",
            "change the working directory to: /scratch",
            "openat2(AT_FDCWD, \"/scratch\"",
            "fchdir(",
            "RLIMIT_CORE",
            "execve(\"/usr/local/bin/program\", [\"program\", \"first\", \"second word\"], [\"NAME=value\", \"PATH=",
            "execve(\"/usr/bin/program\"",
            "execve(\"/bin/program\"",
            "umount2(\".\", MNT_DETACH)",
            "sendmsg(",
        ],
    );
    assert!(shown.contains(&source), "the source of the writable bind:\n{shown}");
    let steps = shown.lines().filter(|line| line.starts_with("# ")).count();
    assert!(steps > 30, "grouped by step:\n{shown}");
    for line in shown.lines() {
        assert!(line.starts_with("== ") || line.starts_with("# ") || line.starts_with("  "), "{line:?}");
    }
    let error = plan.spawn().expect_err("there is no such program");
    assert_eq!(error.io_kind(), io::ErrorKind::NotFound, "what was shown is what is run: {error}");
}

#[apply(test)]
#[skip(support::unless_idmapped_mounts)]
fn showing_a_plan_runs_nothing() {
    let source = support::shared_dir();
    let sandbox = Sandbox::new().root(Root::host().bind_rw(source.path(), "/out"));
    let plan = sandbox.plan(script("echo ran >>/out/ran")).unwrap();
    assert!(plan.to_string().contains("echo ran >>/out/ran"));
    assert_eq!(fs::read_dir(source.path()).unwrap().count(), 0);
    for times in 1..=3 {
        assert!(plan.spawn().unwrap().wait().unwrap().success());
        assert_eq!(fs::read_to_string(source.path().join("ran")).unwrap(), "ran\n".repeat(times));
    }
    let owned: OwnedFd = file_with("").into();
    assert!(owned.as_fd().as_raw_fd() > 2, "descriptors of the caller are where they were");
}

#[apply(test)]
fn the_umask_can_be_set() {
    let masked = |mask: u32| Sandbox::new().root(Root::host().tmpfs("/t", 1 << 20)).umask(mask);
    for mask in [0, 0o007, 0o777] {
        let script = "umask; cd /t; mkdir d; stat -c %a d";
        assert_eq!(stdout(&masked(mask), script), format!("{mask:04o}\n{:o}", 0o777 & !mask));
    }
    let (what, remedy) = support::invalid(&masked(0o1022));
    assert!(what.contains("umask 1022") && remedy.contains("0o777"), "{what}: {remedy}");
}
