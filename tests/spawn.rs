//! What a command is given: its arguments, environment, directory, streams, descriptors, session, signals; and the plan
//! that it is lowered to.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command as Host, ExitCode};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use stockade::{Child, Command, Error, Root, Sandbox, Signal, Stdio, Termination};
use support::{field, on_host, payload, stdout, text, with_payload};

fn main() -> ExitCode {
    let tests = tests![
        exit_codes_come_back,
        output_is_collected,
        arguments_arrive_as_they_are,
        arg0_is_what_the_program_is_told_to_be_called,
        the_environment_starts_with_path_alone,
        variables_are_set_removed_and_cleared,
        names_of_variables_that_are_none_are_refused,
        the_working_directory_is_the_root_unless_said,
        zero_bytes_are_refused,
        arguments_may_be_as_long_as_the_kernel_allows,
        longer_arguments_than_the_kernel_allows_are_an_error,
        inherited_streams_are_the_hosts,
        null_streams_are_empty,
        piped_input_is_read_to_its_end,
        streams_can_be_files_and_descriptors,
        one_stream_can_be_two,
        further_descriptors_have_the_numbers_that_were_asked_for,
        descriptors_can_swap_numbers_with_the_hosts,
        a_further_descriptor_can_take_the_number_of_a_standard_stream,
        the_number_of_a_descriptor_may_be_the_highest_below_the_limit,
        a_number_of_a_descriptor_above_the_limit_is_an_error,
        no_other_descriptor_is_open_inside,
        programs_are_looked_for_along_the_path_inside,
        a_name_with_a_slash_is_not_looked_for,
        a_name_without_a_path_to_search_is_refused,
        an_empty_entry_of_the_path_is_the_working_directory,
        a_session_is_new_unless_said,
        a_terminal_is_the_programs_own,
        an_interrupt_typed_at_the_terminal_ends_the_program,
        a_terminal_can_be_resized_and_read_after_the_end,
        a_command_of_the_standard_library_is_taken_over,
        a_command_can_be_run_again_with_its_pipes,
        a_plan_can_be_run_again_with_its_pipes,
        signals_are_neither_blocked_nor_ignored_inside,
        the_umask_inside_is_the_same_whatever_the_hosts,
        the_host_is_as_before,
        the_plan_shows_every_step_in_order_with_its_arguments if unless_as_shown,
        showing_a_plan_runs_nothing if support::unless_idmapped_mounts,
    ];
    support::run(
        tests,
        &[
            ("descriptors", show_descriptors),
            ("inherits", spawn_with_inherited_streams),
            ("leaky", leaky_host),
            ("limited", host_with_64_descriptors),
            ("masked", host_with_umask),
            ("same", host_is_as_before),
            ("signals", show_signals_inside),
        ],
    )
}

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

fn exit_codes_come_back() {
    let outcome = Sandbox::new().status(script("exit 3")).unwrap();
    assert_eq!(outcome.termination, Termination::Exited(3));
}

fn output_is_collected() {
    assert_eq!(stdout(&Sandbox::new(), "echo hello"), "hello");
    let output = support::sh(&Sandbox::new(), "echo out; echo err >&2");
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("out".into(), "err".into()));
}

fn arguments_arrive_as_they_are() {
    let args: [&[u8]; 6] = [b"a", b"two words", b"", b"line\nend", b"\xff\xfe", b"$HOME * 'q' \"q\""];
    let mut command = Command::new("cat");
    command.arg("/proc/self/cmdline").args(args.map(OsStr::from_bytes));
    let output = Sandbox::new().output(&command).unwrap();
    let given = [b"cat".as_slice(), b"/proc/self/cmdline"].into_iter().chain(args);
    let expected: Vec<u8> = given.flat_map(|arg| [arg, b"\0"].concat()).collect();
    assert!(output.stdout.starts_with(&expected), "{:?}", text(&output.stdout));
}

fn arg0_is_what_the_program_is_told_to_be_called() {
    let seen = run(Command::new("/bin/cat").arg0("another name").arg("/proc/self/cmdline"));
    assert_eq!(seen, "another name\0/proc/self/cmdline\0");
    let seen = run(Command::new("cat").arg("/proc/self/cmdline"));
    assert_eq!(seen, "cat\0/proc/self/cmdline\0", "by default it is as it was named");
}

fn the_environment_starts_with_path_alone() {
    let host = text(&Host::new("env").env("TOKEN", "secret").output().unwrap().stdout);
    assert!(host.contains("TOKEN=secret"), "a program of std::process has it all");
    assert!(std::env::vars_os().any(|(name, _)| name != "PATH"), "the host has an environment");
    assert_eq!(run(&mut Command::new("env")), "PATH=/usr/local/bin:/usr/bin:/bin");
}

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
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.remedy().is_some(), "{error}");
    error.to_string()
}

fn names_of_variables_that_are_none_are_refused() {
    for name in ["", "A=B", "="] {
        let message = invalid(Command::new("true").env(name, "value"));
        assert!(message.contains(&format!("{name:?}")), "{message}");
    }
}

fn the_working_directory_is_the_root_unless_said() {
    assert_ne!(std::env::current_dir().unwrap(), Path::new("/tmp"));
    assert_eq!(run(&mut Command::new("pwd")), "/");
    assert_eq!(run(Command::new("pwd").current_dir("/usr/bin")), "/usr/bin");
    let sandbox = Sandbox::new().root(Root::host().directory("/only here"));
    assert_eq!(output(&sandbox, Command::new("pwd").current_dir("/only here")), "/only here");
    assert_eq!(run(Command::new("./true").current_dir("/usr/bin")), "", "a relative program is below it");
}

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
    assert!(invalid(&Command::new("")).contains("no name"));
}

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

fn longer_arguments_than_the_kernel_allows_are_an_error() {
    let commands = [
        script("true").arg("x".repeat(200 << 10)).clone(),
        script("true").args(vec!["x".repeat(100 << 10); 80]).clone(),
        script("true").env("LONG", "x".repeat(200 << 10)).clone(),
    ];
    for command in &commands {
        let error = Sandbox::new().spawn(command).expect_err("too long");
        let Error::NotExecutable { program, errno, remedy } = &error else { panic!("{error:?}") };
        assert_eq!((program.as_path(), errno.0), (Path::new("/bin/sh"), libc::E2BIG));
        assert!(remedy.as_deref().is_some_and(|remedy| remedy.contains("arguments")), "{error}");
        assert!(error.to_string().contains("(E2BIG)"), "{error}");
    }
}

/// A host that lets a program use its own standard streams.
fn spawn_with_inherited_streams(_: &[String]) -> i32 {
    let outcome = Sandbox::new().status(script("cat; echo err >&2; exit 5")).unwrap();
    outcome.termination.code().unwrap()
}

fn inherited_streams_are_the_hosts() {
    let mut host = support::payload_on_host("inherits");
    let piped = || std::process::Stdio::piped();
    let mut host = host.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    host.stdin.take().unwrap().write_all(b"from the host's input").unwrap();
    let output = host.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("from the host's input".into(), "err".into()));
    assert_eq!(output.status.code(), Some(5));
}

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

fn one_stream_can_be_two() {
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

fn further_descriptors_have_the_numbers_that_were_asked_for() {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "cat <&3; cat <&11; cat <&900"]);
    command.fd(3, file_with("three ")).fd(11, file_with("eleven ")).fd(900, file_with("nine hundred"));
    assert_eq!(run(&mut command), "three eleven nine hundred");
    let mut command = payload("descriptors");
    command.fd(3, file_with("")).fd(11, file_with("")).fd(900, file_with(""));
    assert_eq!(output(&sandbox_with_payload(), &mut command), "[0, 1, 2, 3, 11, 900]");
}

fn descriptors_can_swap_numbers_with_the_hosts() {
    // Every number is that of another descriptor in the host.
    let files = ["one ", "two ", "three"].map(file_with);
    let numbers = [1, 2, 0].map(|other: usize| files[other].as_raw_fd());
    let mut command = Command::new("/bin/bash");
    command.args(["-c", &numbers.map(|number| format!("cat <&{number}; ")).concat()]);
    for (file, number) in files.into_iter().zip(numbers) {
        command.fd(number as u32, file);
    }
    assert_eq!(run(&mut command), "one two three");

    // The same with standard input, whose number in the host is that of a further descriptor in the command.
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

fn a_further_descriptor_can_take_the_number_of_a_standard_stream() {
    assert_eq!(run(Command::new("cat").fd(0, file_with("as a further one"))), "as a further one");
}

fn the_number_of_a_descriptor_may_be_the_highest_below_the_limit() {
    on_host(&["prlimit", "--nofile=64:64"], "limited", &["50", "62", "63"]);
}

fn a_number_of_a_descriptor_above_the_limit_is_an_error() {
    let numbers = ["64", "65", "1000", "1048576", "2147483647", "2147483648", "4294967294", "4294967295"];
    on_host(&["prlimit", "--nofile=64:64"], "limited", &numbers);
}

/// A host that may have 64 descriptors, and gives one to a program by these numbers.
fn host_with_64_descriptors(numbers: &[String]) -> i32 {
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

/// A host with descriptors that its children inherit.
fn leaky_host(_: &[String]) -> i32 {
    let secret = file_with("secret");
    let leak = |number| fcntl(&secret, FcntlArg::F_DUPFD(number)).unwrap();
    let leaked = [leak(3), leak(30), leak(900)];
    let numbers = text(&support::payload_on_host("descriptors").output().unwrap().stdout);
    for number in leaked {
        assert!(numbers.contains(&number.to_string()), "a program of std::process has {number}: {numbers}");
    }
    assert_eq!(output(&sandbox_with_payload(), &mut payload("descriptors")), "[0, 1, 2]");
    let sandbox = Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit());
    let mut here = Command::new(support::own_path());
    assert_eq!(output(&sandbox, here.args(["--payload", "descriptors"])), "[0, 1, 2]", "without any namespace");
    0
}

fn no_other_descriptor_is_open_inside() {
    on_host(&[], "leaky", &[]);
}

/// A directory with executables in it that say where they lie.
fn directory_of_programs() -> tempfile::TempDir {
    let top = support::shared_dir();
    for (directory, mode) in [("first", 0o644), ("second", 0o755), ("third", 0o755)] {
        let path = top.path().join(directory);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(path.join("program"), format!("#!/bin/sh\necho {directory}\n")).unwrap();
        fs::set_permissions(path.join("program"), PermissionsExt::from_mode(mode)).unwrap();
    }
    top
}

fn programs_are_looked_for_along_the_path_inside() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let along = |path: &str| output(&sandbox, Command::new("program").env("PATH", path));
    assert_eq!(along("/programs/second:/programs/third"), "second", "the first match wins");
    assert_eq!(along("/programs/third:/programs/second"), "third");
    assert_eq!(
        along("/nowhere:/etc/passwd:/programs/first:/programs/third"),
        "third",
        "what can't be run is passed over"
    );
    assert_eq!(
        output(&sandbox, Command::new("sh").args(["-c", "program"]).env("PATH", "/programs/second:/bin")),
        "second"
    );

    // Where it can't be found or run at all.
    let refused = |path: &str| sandbox.spawn(Command::new("program").env("PATH", path)).expect_err("not to be run");
    let error = refused("/nowhere:/usr/bin");
    let Error::NotFound { program, searched, .. } = &error else { panic!("{error:?}") };
    assert_eq!(program, Path::new("program"));
    assert_eq!(searched, &[Path::new("/nowhere/program"), Path::new("/usr/bin/program")]);
    let error = refused("/nowhere:/programs/first:/usr/bin");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "as execvp has it: {error}");
    assert_eq!(error.path(), Some(Path::new("/programs/first/program")));

    // The search is that of the inside: what the host has there does not count.
    let on_host = programs.path().join("second");
    assert!(on_host.join("program").exists());
    let error = refused(on_host.to_str().unwrap());
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

fn a_name_with_a_slash_is_not_looked_for() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let mut command = Command::new("second/program");
    command.env("PATH", "/programs");
    let error = sandbox.spawn(&command).expect_err("it is below the working directory alone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(output(&sandbox, command.current_dir("/programs")), "second");
    assert_eq!(output(&sandbox, Command::new("/programs/third/program").env_clear()), "third");
}

fn a_name_without_a_path_to_search_is_refused() {
    for command in [Command::new("true").env_clear(), Command::new("true").env("PATH", "")] {
        let error = Sandbox::new().spawn(command).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"true\" can't be looked for: PATH is empty: set PATH, or name the program with its directory"
        );
    }
}

fn an_empty_entry_of_the_path_is_the_working_directory() {
    let programs = directory_of_programs();
    let sandbox = Sandbox::new().root(Root::host().bind(programs.path(), "/programs"));
    let mut command = Command::new("program");
    command.env("PATH", "/nowhere::/programs/third").current_dir("/programs/second");
    assert_eq!(output(&sandbox, &mut command), "second");
}

/// Fields of `/proc/[pid]/stat` after the name: state, parent, group, session, terminal.
fn stat(of: &str) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect()
}

fn a_session_is_new_unless_said() {
    const GROUP: usize = 2;
    const SESSION: usize = 3;
    let mut child = Sandbox::new().spawn(cat()).unwrap();
    let id = child.id().to_string();
    assert_eq!((&stat(&id)[SESSION], &stat(&id)[GROUP]), (&id, &id));
    assert_ne!(stat(&id)[SESSION], stat("self")[SESSION]);
    assert!(child.wait().unwrap().enforced.has(stockade::Layer::Session));

    let mut child = Sandbox::new().spawn(cat().new_session(false)).unwrap();
    let id = child.id().to_string();
    assert_eq!(stat(&id)[SESSION], stat("self")[SESSION]);
    assert!(!child.wait().unwrap().enforced.has(stockade::Layer::Session));
}

/// What a terminal says until its other side is closed.
fn read_terminal(terminal: &mut File) -> String {
    let mut bytes = vec![];
    let mut buffer = [0; 4096];
    loop {
        match terminal.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => panic!("reading the terminal: {error}"),
        }
    }
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
}

fn a_terminal_is_the_programs_own() {
    let mut command = script(
        "test -t 0 && test -t 1 && test -t 2 && echo three; tty; stty size; echo by name >/dev/tty; \
         ps=$(cat /proc/self/stat); echo \"$ps\" | cut -d' ' -f7; ls -1 /dev/pts",
    );
    let mut child = Sandbox::new().spawn(command.pty(33, 101)).unwrap();
    assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    let mut terminal = child.pty.take().unwrap();
    let said = read_terminal(&mut terminal);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["three", "/dev/pts/0", "33 101", "by name"], "{said}");
    assert_eq!(lines[4], (136 << 8).to_string(), "pts/0 is the controlling terminal: {said}");
    assert_eq!(lines[5..], ["0", "ptmx"], "the sandbox has no other terminal: {said}");
    assert!(child.wait().unwrap().success());

    // Without one there is no terminal to be had, whichever the host has.
    let none = "test -t 0 || (: </dev/tty) 2>/dev/null || echo none";
    assert_eq!(stdout(&Sandbox::new(), none), "none");
}

fn an_interrupt_typed_at_the_terminal_ends_the_program() {
    let mut child = Sandbox::new().spawn(script("echo ready; exec sleep 1000").pty(24, 80)).unwrap();
    let mut terminal = child.pty.take().unwrap();
    let mut ready = [0; 7];
    terminal.read_exact(&mut ready).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    terminal.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().termination, Termination::Signaled { signal: Signal::INT, core: false });
}

fn a_terminal_can_be_resized_and_read_after_the_end() {
    let mut child = Sandbox::new().spawn(script("read line; echo \"got $line\"; stty size").pty(24, 80)).unwrap();
    let mut terminal = child.pty.take().unwrap();
    let resized = Host::new("stty").args(["rows", "40", "cols", "132"]).stdin(terminal.try_clone().unwrap()).status();
    assert!(resized.unwrap().success());
    terminal.write_all(b"typed\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(read_terminal(&mut terminal), "typed\ngot typed\n40 132\n");
}

fn a_command_of_the_standard_library_is_taken_over() {
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

/// Prints the signals that a program is born with, blocked and ignored, in a sandbox of this host's.
fn show_signals_inside(_: &[String]) -> i32 {
    for sandbox in [Sandbox::new(), Sandbox::new().namespaces(stockade::Namespaces::empty()).root(Root::inherit())] {
        let status = output(&sandbox, Command::new("cat").arg("/proc/self/status"));
        for (set, name) in [("SigBlk", "blocked"), ("SigIgn", "ignored"), ("SigCgt", "handled")] {
            assert_eq!(field(&status, set), "0".repeat(16), "nothing is {name}");
        }
    }
    0
}

fn signals_are_neither_blocked_nor_ignored_inside() {
    // A Rust program ignores SIGPIPE, and this thread blocks everything: a thread of its own, as the mask is inherited.
    let blocking = std::thread::spawn(|| {
        SigSet::all().thread_block().unwrap();
        let host = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_ne!(field(&host, "SigBlk"), "0".repeat(16));
        assert_ne!(field(&host, "SigIgn"), "0".repeat(16));
        show_signals_inside(&[]);
        assert!(SigSet::thread_get_mask().unwrap().contains(NixSignal::SIGTERM), "the host's mask is as before");
    });
    blocking.join().unwrap();
    // Every signal is ignored, or blocked, real-time ones too.
    // A host that ignores SIGCHLD is told no status by a kernel before 6.15.
    let but = if support::kernel() < (6, 15) { "--default-signal=CHLD" } else { "--ignore-signal" };
    on_host(&["env", "--ignore-signal", but], "signals", &[]);
    on_host(&["env", "--block-signal"], "signals", &[]);
}

/// A host with another umask.
fn host_with_umask(args: &[String]) -> i32 {
    let mask = u32::from_str_radix(&args[0], 8).unwrap();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    let sandbox =
        Sandbox::new().root(Root::host().file("/file", "contents").directory("/directory").tmpfs("/t", 1 << 20));
    let said = stdout(&sandbox, "umask; cat /file; echo; ls /directory; cd /t && echo x >f && stat -c %a f");
    assert_eq!(said, "0022\ncontents\n644");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&status, "Umask"), format!("{mask:04o}"));
    0
}

fn the_umask_inside_is_the_same_whatever_the_hosts() {
    for mask in ["0", "022", "077", "777"] {
        on_host(&[], "masked", &[mask]);
    }
}

/// What a host is, as far as a spawn could change it.
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

/// A host with a mask and a umask of its own.
fn host_is_as_before(_: &[String]) -> i32 {
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

fn the_host_is_as_before() {
    on_host(&[], "same", &[]);
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
            "setting the host name",
            "sethostname(\"plan-host\", 9)",
            "starting the init",
            "SIOCSIFFLAGS",
            "ppoll(",
            "MS_REC|MS_PRIVATE",
            "making the root",
            "/usr",
            "/shown/out",
            "12345344",
            "symlinkat(\"usr/lib64\"",
            "/etc/motd",
            "<4 bytes>",
            "/dev/null",
            "proc",
            "pivot_root(\".\", \".\")",
            "starting the command",
            "CLONE_PARENT",
            "PR_CAPBSET_DROP",
            "PR_SET_SECUREBITS",
            "PR_SET_NO_NEW_PRIVS",
            "umask(0o22)",
            "setsid()",
            "changing the working directory to: /scratch",
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
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "what was shown is what is run: {error}");
}

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
    assert!(owned.as_fd().as_raw_fd() > 2, "descriptors of the host are where they were");
}
