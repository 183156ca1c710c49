//! Errors before a program runs. Each names the step, its object, the error of the kernel, and a hint.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::{self, NAMESPACES, children, descriptors, on_host, stdout, text, unless_mount_setattr, wording};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, umask};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use stockade::ErrorKind;
use stockade::cgroup::CgroupParent;
use stockade::mount::{Bind, Operation, Overlay, Tmpfs};
use stockade::{Cgroup, Command, Error, Identity, Namespaces, Root, Sandbox, Termination};

payloads![
    ("no_namespaces_is_an_error", caller_without_namespaces),
    ("filter_is_an_error", caller_under_a_filter),
    ("masked_proc_is_an_error", caller_with_a_masked_proc),
    ("noexec_is_an_error", caller_without_executable_memfds),
];

/// The error of a spawn, which leaves nothing and has these parts in its message, the errno's name in parentheses.
#[track_caller]
fn refused(sandbox: &Sandbox, command: &Command, parts: &[&str]) -> Error {
    let error = match sandbox.spawn(command) {
        Err(error) => error,
        Ok(_) => panic!("{command:?} was started"),
    };
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    let hint = error.hint().unwrap_or_default();
    assert!(message.ends_with(hint) && wording::is_instruction(hint), "it does not say what to do: {message}");
    if let Some(errno) = error.errno() {
        let name = format!("({:?})", Errno::from_raw(errno.number()));
        assert!(message.contains(&name), "{name} is missing in: {message}");
    }
    assert_eq!(io::Error::from(error.clone()).kind(), error.io_kind());
    error
}

/// The same, of a caller that has no other sandboxes: nothing of it stays.
fn refused_without_trace(sandbox: &Sandbox, parts: &[&str]) -> Error {
    let before = descriptors();
    let error = refused(sandbox, &Command::new("true"), parts);
    assert_eq!((descriptors(), children()), (before, vec![]));
    error
}

/// A file with a mode, in a directory that everybody can reach.
fn file_in(directory: &Path, name: &str, contents: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, contents).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

/// The default sandbox with a directory of the host's at `/files`.
fn with_files(directory: &Path) -> Sandbox {
    Sandbox::new().root(Root::host().bind(directory, "/files"))
}

#[apply(test)]
fn a_missing_program_is_not_found() {
    for program in ["/nowhere/program", "no-such-program", "/etc/passwd/program"] {
        let error = Sandbox::new().spawn(Command::new(program)).expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert_eq!((error.io_kind(), error.path()), (io::ErrorKind::NotFound, Some(Path::new(program))));
        assert!(
            error
                .to_string()
                .starts_with(&format!("failed to execute {program}: not found inside the sandbox (ENOENT)"))
        );
        let std = std::process::Command::new("/nowhere/program").spawn().expect_err("there is none");
        assert_eq!(io::Error::from(error).kind(), std.kind(), "it is what std::process gives");
    }
}

#[apply(test)]
fn a_missing_name_tells_where_it_was_looked_for() {
    let directories = ["in none of /", "/usr/bin:/", "set PATH"];
    refused(&Sandbox::new(), &Command::new("no-such-program"), &directories);
    let mut command = Command::new("no-such-program");
    command.env("PATH", "/opt/a:/opt/b");
    refused(&Sandbox::new(), &command, &["in none of /opt/a:/opt/b:"]);
}

#[apply(test)]
#[skip(unless_mount_setattr)]
fn making_a_missing_path_read_only_is_an_error() {
    let sandbox = Sandbox::new().root(Root::host().read_only("/etc/no-such-file"));
    refused(&sandbox, &Command::new("true"), &["/etc/no-such-file", "ENOENT", "does not exist inside the sandbox"]);
}

#[apply(test)]
fn a_missing_program_is_no_exit_code() {
    for code in [125, 126, 127] {
        let outcome = Sandbox::new().status(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap();
        assert_eq!(outcome.termination, Termination::Exited(code));
    }
    let outcome = Sandbox::new().output(Command::new("sh").args(["-c", "no-such-program"])).unwrap().outcome;
    assert_eq!(outcome.termination, Termination::Exited(127), "it is the shell that says so");
    Sandbox::new().status(Command::new("no-such-program")).expect_err("no exit code");
    Sandbox::new().output(Command::new("/etc/passwd")).expect_err("no exit code");
}

#[apply(test)]
fn a_program_that_is_not_visible_names_the_bind_that_is_missing() {
    let directory = support::shared_dir();
    let path = directory.path().canonicalize().unwrap();
    let program = file_in(&path, "program", "#!/bin/sh\necho runs\n", 0o755);
    // Not what else is in the directory, as it is a home.
    let bind = format!(".bind({:?}, {:?})", program.display().to_string(), program.display().to_string());
    let command = Command::new(&program);
    let error = refused(&Sandbox::new(), &command, &["exists on the host", "not visible inside", &bind]);
    assert_eq!(error.io_kind(), io::ErrorKind::NotFound);
    // What the error says is right.
    let sandbox = Sandbox::new().root(Root::host().bind(&program, &program));
    assert_eq!(text(&sandbox.output(&command).unwrap().stdout), "runs");
    // By name, too.
    let empty = Sandbox::new().root(Root::empty());
    let error = refused(&empty, &Command::new("true"), &["/true exists on the host", ".bind(\"/", "bin\", \"/"]);
    assert_eq!(error.path(), Some(Path::new("true")));
}

#[apply(test)]
fn a_program_behind_links_names_each_missing_bind_once() {
    let directory = support::shared_dir();
    let path = directory.path().canonicalize().unwrap();
    for name in ["bin", "links", "real/bin"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    let target = file_in(&path, "real/bin/tool", "#!/bin/sh\necho runs\n", 0o755);
    symlink("../real/bin/tool", path.join("links/tool")).unwrap();
    symlink("../links/tool", path.join("bin/tool")).unwrap();
    symlink("tool", path.join("bin/same")).unwrap();
    let needed = ["bin", "links/tool", "real/bin"].map(|name| path.join(name));
    let binds = needed.iter().map(|path| format!(".bind({path:?}, {path:?})")).collect::<Vec<_>>().join(", ");
    let command = Command::new(path.join("bin/same"));
    let leads = format!("leads to {} on the host", target.display());
    refused(&Sandbox::new(), &command, &[&leads, &format!("add what is missing of {binds}")]);
    // What the error says is right.
    let sandbox = Sandbox::new().root(needed.iter().fold(Root::host(), |root, path| root.bind(path, path)));
    assert_eq!(text(&sandbox.output(&command).unwrap().stdout), "runs");
}

#[apply(test)]
fn a_dynamic_loader_that_is_not_visible_is_named_as_the_cause() {
    let program = Path::new("/bin/true").canonicalize().unwrap();
    let alone = Sandbox::new().root(Root::empty().bind(&program, "/program"));
    let error = refused(&alone, &Command::new("/program"), &["execute /program", "the file exists", "loader"]);
    assert_eq!((error.kind(), error.errno()), (ErrorKind::NotExecutable, Some(stockade::Errno::ENOENT)));
    let libraries = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].into_iter().filter(|path| Path::new(path).exists());
    let root = libraries.fold(Root::empty().bind(&program, "/program"), |root, path| root.bind(path, path));
    assert!(Sandbox::new().root(root).status(Command::new("/program")).unwrap().success());
}

#[apply(test)]
fn an_interpreter_that_is_not_visible_is_named_as_the_cause() {
    let directory = support::shared_dir();
    file_in(directory.path(), "script", "#!/nowhere/interpreter\n", 0o755);
    let sandbox = with_files(directory.path());
    let error = refused(&sandbox, &Command::new("/files/script"), &["execute /files/script", "interpreter", "bind"]);
    assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error:?}");
}

#[apply(test)]
fn executing_a_non_executable_is_permission_denied() {
    let directory = support::shared_dir();
    file_in(directory.path(), "plain", "#!/bin/sh\n", 0o644);
    file_in(directory.path(), "script", "#!/bin/sh\n", 0o755);
    let denied = |sandbox: &Sandbox, program: &str| {
        let error = refused(sandbox, &Command::new(program), &[&format!("execute {program}"), "(EACCES)"]);
        assert_eq!(error.kind(), ErrorKind::NotExecutable, "{error:?}");
        assert_eq!((error.io_kind(), error.path()), (io::ErrorKind::PermissionDenied, Some(Path::new(program))));
    };
    let sandbox = with_files(directory.path());
    denied(&sandbox, "/files/plain");
    denied(&sandbox, "/files");
    denied(&sandbox, "/etc/passwd");
    assert!(sandbox.status(Command::new("/files/script")).unwrap().success());
    let bind = Bind::new(directory.path(), "/files").noexec();
    denied(&Sandbox::new().root(Root::host().with(bind)), "/files/script");
    denied(&Sandbox::new().root(Root::host().bind(directory.path(), "/files").mask("/files")), "/files/script");
    let file = Operation::file("/script", b"#!/bin/sh\n", 0o444);
    denied(&Sandbox::new().root(Root::host().with(file)), "/script");
}

#[apply(test)]
fn executing_a_non_program_is_an_exec_format_error() {
    let directory = support::shared_dir();
    file_in(directory.path(), "text", "echo no first line\n", 0o755);
    file_in(directory.path(), "empty", "", 0o755);
    file_in(directory.path(), "truncated", "\x7fELF", 0o755);
    for name in ["/files/text", "/files/empty", "/files/truncated"] {
        let error = refused(&with_files(directory.path()), &Command::new(name), &[name, "(ENOEXEC)", "format"]);
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotExecutable, Some(stockade::Errno::ENOEXEC)));
    }
}

#[apply(test)]
fn a_missing_working_directory_is_an_error() {
    let sandbox = Sandbox::new().root(Root::host().with(Tmpfs::new("/forbidden").mode(0)));
    let mut command = Command::new("true");
    for (directory, errno) in [("/nowhere", "(ENOENT)"), ("/etc/passwd", "(ENOTDIR)"), ("/forbidden", "(EACCES)")] {
        let error = refused(&sandbox, command.current_dir(directory), &["working directory", directory, errno]);
        assert!(support::is_set_up(&error), "{error:?}");
        assert_eq!(error.path(), Some(Path::new(directory)));
    }
    let here = support::shared_dir();
    refused(&Sandbox::new(), command.current_dir(here.path()), &["does not exist inside the sandbox", "bind"]);
}

#[apply(test)]
fn a_missing_source_of_a_bind_is_an_error() {
    let missing = "/nowhere/on/the/host";
    for root in [Root::host().bind(missing, "/bound"), Root::host().bind_rw(missing, "/bound"), Root::from_dir(missing)]
    {
        let error = refused(&Sandbox::new().root(root), &Command::new("true"), &[missing, "(ENOENT)", "host"]);
        assert_eq!((error.io_kind(), error.path()), (io::ErrorKind::NotFound, Some(Path::new(missing))));
    }
}

#[apply(test)]
fn a_mount_point_that_cannot_be_created_is_an_error() {
    let directory = support::shared_dir();
    let root = Root::host().bind(directory.path(), "/files").tmpfs("/files/new", 1 << 20);
    refused(&Sandbox::new().root(root), &Command::new("true"), &["mount point", "/files/new", "mkdirat", "(EROFS)"]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is created on the host");
}

#[apply(test)]
fn errors_are_those_of_the_standard_library_too() {
    fn is_an_error<E: std::error::Error + Send + Sync + Clone + 'static>(error: E) -> Box<dyn std::error::Error> {
        Box::new(error)
    }
    fn by_the_question_mark() -> io::Result<()> {
        let _ = Sandbox::new().spawn(Command::new("/etc/passwd"))?.wait()?;
        Ok(())
    }
    let error = Sandbox::new().spawn(Command::new("/etc/passwd")).expect_err("it is no program");
    let io = by_the_question_mark().expect_err("it is no program");
    assert_eq!(io.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(io.to_string(), error.to_string());
    let inner = io.into_inner().expect("the error itself").downcast::<Error>().expect("ours");
    assert_eq!(*inner, error);
    assert_eq!(is_an_error(error.clone()).to_string(), error.to_string());
}

/// A way to a caller whose user namespace may make none of these namespaces.
fn without(limit: &str) -> String {
    format!("echo 0 >/proc/sys/user/{limit} && exec \"$@\"")
}

/// A caller that is at a limit on namespaces.
fn caller_without_namespaces(args: &[String]) -> i32 {
    let [limit, kind] = [&args[0], &args[1]];
    let kind = NAMESPACES.iter().find(|(_, name)| name == kind).expect("a kind").0;
    let identity = Identity::caller();
    let with_root = Sandbox::new().identity(identity.clone());
    let bare = Sandbox::new().identity(identity).namespaces(kind | Namespaces::USER).root(Root::inherit());
    for sandbox in [with_root, bare] {
        let error = refused_without_trace(&sandbox, &["(ENOSPC)", &format!("user.{limit}"), "unshare"]);
        assert!(support::is_set_up(&error), "{error:?}");
    }
    let none = Sandbox::new().identity(Identity::caller()).namespaces(Namespaces::empty()).root(Root::inherit());
    assert_eq!(stdout(&none, "echo without any"), "without any");
    0
}

#[apply(test)]
fn the_error_names_the_limit_on_user_namespaces() {
    let script = without("max_user_namespaces");
    on_host(
        &["unshare", "-Urm", "sh", "-c", &script, "sh"],
        "no_namespaces_is_an_error",
        &["max_user_namespaces", "user"],
    );
}

#[apply(test)]
fn the_error_names_the_limit_on_network_namespaces() {
    let script = without("max_net_namespaces");
    on_host(
        &["unshare", "-Urm", "sh", "-c", &script, "sh"],
        "no_namespaces_is_an_error",
        &["max_net_namespaces", "net"],
    );
}

/// Lets a filter answer some system calls with an errno, from here on.
fn filter(errno: i32, rules: BTreeMap<i64, Vec<SeccompRule>>) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
}

/// A caller whose seccomp filter refuses clone3 with an errno, and perhaps namespaces with EPERM.
fn caller_under_a_filter(args: &[String]) -> i32 {
    filter(args[0].parse().expect("an errno"), BTreeMap::from([(libc::SYS_clone3, vec![])]));
    if args.get(1).is_some() {
        let namespaces = libc::CLONE_NEWUSER as u64;
        let rule = || {
            let has = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(namespaces), namespaces);
            vec![SeccompRule::new(vec![has.expect("a condition")]).expect("a rule")]
        };
        filter(libc::EPERM, BTreeMap::from([(libc::SYS_clone, rule()), (libc::SYS_unshare, rule())]));
        let error = refused_without_trace(&Sandbox::new(), &["(EPERM)", "seccomp", "namespaces"]);
        assert!(support::is_set_up(&error), "{error:?}");
        return 0;
    }
    let none = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    for sandbox in [Sandbox::new(), none] {
        assert_eq!(stdout(&sandbox, "echo out"), "out");
        let mut child = sandbox.spawn(Command::new("sleep").arg("1000")).expect("sleep");
        child.kill().expect("a kill");
        assert_eq!(child.wait().expect("the end").termination, Termination::Killed);
    }
    0
}

#[apply(test)]
fn clone_replaces_a_denied_clone3() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        on_host(&[], "filter_is_an_error", &[&errno.to_string()]);
    }
}

#[apply(test)]
fn a_filter_that_refuses_namespaces_is_named_as_a_cause() {
    on_host(&[], "filter_is_an_error", &[&libc::ENOSYS.to_string(), "namespaces"]);
}

/// Something in `/proc` that can be covered.
const COVERED: &str = "/proc/uptime";

/// The way to a caller whose `/proc` is partly covered, as a container manager does it.
fn masking() -> Vec<&'static str> {
    let mut way = vec!["unshare", "-m"];
    if !support::is_root() {
        way.extend(["-U", "--map-current-user", "--keep-caps"]);
    }
    way.extend(["sh", "-c", "mount --bind /dev/null /proc/uptime && exec \"$@\"", "sh"]);
    way
}

fn unless_proc_can_be_masked() -> Option<String> {
    let way = masking();
    let status = std::process::Command::new(way[0]).args(&way[1..]).arg("true").status().ok()?;
    (!status.success()).then(|| "mounts can't be made here".into())
}

fn caller_with_a_masked_proc(_: &[String]) -> i32 {
    assert_eq!(fs::read_to_string(COVERED).expect("a device"), "", "it is covered");
    let error = refused_without_trace(&Sandbox::new(), &["/proc", "(EPERM)", "masked"]);
    assert!(support::is_set_up(&error), "{error:?}");
    assert_eq!(error.path(), Some(Path::new("/proc")));
    // As the remedy says: the processes are shared, and what is covered stays so.
    let shared = Sandbox::new().namespaces(Namespaces::all() - Namespaces::TIME - Namespaces::PID);
    assert_eq!(stdout(&shared, "cat /proc/uptime; echo runs"), "runs");
    0
}

#[apply(test)]
#[skip(unless_proc_can_be_masked)]
fn the_error_names_a_masked_proc() {
    on_host(&masking(), "masked_proc_is_an_error", &[]);
}

const MEMFD_NOEXEC: &str = "/proc/sys/vm/memfd_noexec";

fn unless_memfd_noexec() -> Option<String> {
    let absent = || (!Path::new(MEMFD_NOEXEC).exists()).then(|| "it takes vm.memfd_noexec (Linux 6.3)".to_owned());
    support::unless_root().or_else(absent)
}

/// A caller in a pid namespace where no memfd may be executed.
fn caller_without_executable_memfds(args: &[String]) -> i32 {
    assert_eq!(fs::read_to_string(MEMFD_NOEXEC).expect("the setting").trim(), "2");
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    assert_eq!(memfd_create(c"program", executable).expect_err("not executable"), Errno::EACCES);
    let temporary = PathBuf::from(std::env::var_os("TMPDIR").expect("a place for files"));
    let before = descriptors();
    umask(Mode::from_bits_truncate(u32::from_str_radix(&args[0], 8).expect("an octal number")));
    for _ in 0..2 {
        assert_eq!(stdout(&Sandbox::new(), "echo by a file"), "by a file");
    }
    assert_eq!(fs::read_dir(&temporary).expect("TMPDIR").count(), 0, "no file has a name");
    assert_eq!((descriptors(), children()), (before, vec![]));
    0
}

fn by_a_file(umask: &str) {
    let temporary = support::shared_dir();
    let variable = format!("TMPDIR={}", temporary.path().display());
    let script = format!("echo 2 >{MEMFD_NOEXEC} && exec \"$@\"");
    let way = ["unshare", "-p", "-f", "--mount-proc", "sh", "-c", &script, "sh", "env", &variable];
    on_host(&way, "noexec_is_an_error", &[umask]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_memfd_noexec)]
fn files_replace_memfds_that_may_not_execute() {
    by_a_file("022");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_memfd_noexec)]
fn files_that_replace_memfds_do_not_depend_on_the_umask() {
    by_a_file("777");
}

#[apply(test)]
fn names_in_a_message_start_no_line_and_move_no_cursor() {
    let name = "a\n\x1b[31m";
    let directory = support::shared_dir();
    let program = directory.path().join(name);
    fs::write(&program, "").unwrap();
    let rooted = |root: Root| Sandbox::new().root(root);
    let below = |parent: &str| Cgroup::new().parent(CgroupParent::Path(format!("{parent}/{name}").into()));
    let mut elsewhere = Command::new(name);
    elsewhere.env("PATH", format!("/{name}"));
    let cases = [
        (Sandbox::new().cgroup(below("")), Command::new("true")),
        (rooted(Root::host().with(Overlay::new(format!("/tmp/{name}")))), Command::new("true")),
        (rooted(Root::host().overlay(&program, "/tmp/over")), Command::new("true")),
        (rooted(Root::host().protect(&program)), Command::new("true")),
        (Sandbox::new(), elsewhere),
        (rooted(Root::empty()), Command::new(&program)),
    ];
    for (sandbox, command) in cases {
        let error = sandbox.status(command).expect_err("an error");
        for said in [Some(error.to_string().as_str()), error.hint(), error.step()].into_iter().flatten() {
            assert!(!said.contains(['\n', '\x1b']), "{said:?}");
        }
        assert!(error.to_string().contains("a\\n\\u{1b}[31m"), "{error}");
    }
}
