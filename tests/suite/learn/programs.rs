//! Whole programs: the learned policy allows them to run again, and denies one additional access.

use std::fs;
use std::path::Path;
use std::process::Command as Host;

use stockade::landlock::FsAccess;
use stockade::learn::Learned;
use stockade::{Command, Landlock, Root, Sandbox};

use crate::learn::deeds::deeds;
use crate::learn::{at, bounded, fails, learn, sandbox, shell, succeeds, unless_landlock};
use crate::support::{shared_dir, unless_python, unless_runs};

fn unless_c() -> Option<String> {
    unless_runs("cc").or_else(unless_landlock)
}

fn unless_python_and_landlock() -> Option<String> {
    unless_python().or_else(unless_landlock)
}

/// All that most tests do first.
const USUAL: [&str; 3] = ["read /etc/passwd", "write /tmp/file", "listen 4000"];

#[apply(test)]
#[skip(unless_landlock)]
fn a_learned_policy_runs_the_same_program_and_no_more() {
    let learned = learn(&sandbox(), &deeds(&USUAL));
    assert!(Learned::UNOBSERVED.contains(&"read") && learned.calls.contains("read"));
    succeeds(&learned, &sandbox(), &deeds(&USUAL));
    for more in [
        "group",            // a call
        "read /etc/group",  // a path to read
        "list /tmp",        // a directory
        "append /dev/null", // a path to write
        "listen 4001",      // a port
        "mkdir /tmp/dir",
        "unlink /tmp/file",
    ] {
        fails(&learned, &sandbox(), &deeds(&[&USUAL[..], &[more]].concat()));
    }
}

#[apply(test)]
fn only_learned_calls_are_allowed() {
    let learned = learn(&sandbox(), &deeds(&USUAL));
    let status =
        |sandbox: Sandbox, more: &[&str]| sandbox.status(deeds(&[&USUAL[..], more].concat())).expect("an outcome");
    assert!(status(sandbox(), &["group"]).success());
    let narrow = || sandbox().seccomp(learned.seccomp());
    assert!(status(narrow(), &[]).success(), "{learned}");
    assert!(!status(narrow(), &["group"]).success(), "{learned}");
    assert!(!status(sandbox().seccomp(Learned::new().seccomp()), &[]).success());
}

/// Builds a program in C on the host, for a sandbox that shows the directory at `/work`.
fn build(dir: &Path, source: &str, options: &[&str]) -> Sandbox {
    fs::write(dir.join("program.c"), source).expect("the source");
    let (from, to) = (dir.join("program.c"), dir.join("program"));
    let output = Host::new("cc").args(options).arg("-o").args([to, from]).output().expect("cc");
    assert!(output.status.success(), "{}", crate::support::text(&output.stderr));
    bounded(Sandbox::new().root(Root::host().bind(dir, "/work")))
}

#[apply(test)]
#[skip(unless_c)]
fn a_program_in_c_runs_under_the_learned_policy() {
    let dir = shared_dir();
    let source = r#"
        #include <stdio.h>
        #include <string.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            char line[256];
            FILE *in = fopen("/etc/passwd", "r"), *out = fopen("/tmp/out", "w");
            if (!in || !out || !fgets(line, sizeof line, in) || fputs(line, out) < 0) return 1;
            if (argc > 1 && !strcmp(argv[1], "call") && getpgid(0) < 0) return 2;
            if (argc > 1 && !strcmp(argv[1], "path") && !fopen("/etc/group", "r")) return 3;
            if (argc > 1 && !strcmp(argv[1], "program") && system_of("/bin/true")) return 4;
            puts(line);
            return 0;
        }"#;
    let source = source.replace(
        "int main",
        "static int system_of(const char *path) {
             int status = -1;
             pid_t child = fork();
             if (child == 0) { execl(path, path, (char *)0); _exit(1); }
             return child < 0 || waitpid(child, &status, 0) < 0 || status;
         }
         int main",
    );
    let sandbox = build(dir.path(), &source, &["-include", "stdlib.h"]);
    let program = |more: &[&str]| Command::new("/work/program").args(more).clone();
    let learned = learn(&sandbox, &program(&[]));
    assert_eq!(at(&learned, "/work/program"), FsAccess::READ_FILE | FsAccess::EXECUTE);
    assert_eq!(at(&learned, "/etc/passwd"), FsAccess::READ_FILE);
    assert!(succeeds(&learned, &sandbox, &program(&[])).starts_with("root:"));
    for more in ["call", "path", "program"] {
        fails(&learned, &sandbox, &program(&[more]));
    }
}

#[apply(test)]
#[skip(unless_landlock)]
fn a_shell_with_pipes_runs_under_the_learned_policy() {
    let script = "sort /etc/passwd | grep root >/tmp/found && cat /tmp/found | wc -l && rm /tmp/found";
    let learned = learn(&sandbox(), &shell(script));
    let lines = succeeds(&learned, &sandbox(), &shell(script));
    assert!(lines.parse::<u32>().is_ok_and(|lines| lines > 0), "{lines}");
    fails(&learned, &sandbox(), &shell(&format!("{script}; sort /etc/group")));
    fails(&learned, &sandbox(), &shell(&format!("{script}; head -n1 /etc/passwd")));
    fails(&learned, &sandbox(), &shell(&format!("{script}; ln -s x /tmp/y")));
}

#[apply(test)]
#[skip(unless_c)]
fn a_compiler_runs_under_the_learned_policy() {
    let root = Root::host().file("/source.c", "#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n");
    let sandbox = bounded(Sandbox::new().root(root));
    let compile = |more: &str| shell(&format!("cc -O1 -o /tmp/program /source.c && /tmp/program{more}"));
    let learned = learn(&sandbox, &compile(""));
    assert_eq!(at(&learned, "/source.c"), FsAccess::READ_FILE);
    assert!(at(&learned, "/tmp").contains(FsAccess::MAKE_REG | FsAccess::REMOVE_FILE | FsAccess::EXECUTE));
    assert!(learned.executed().any(|path| path.ends_with("cc1")), "{learned}");
    // Temporary files have other names each time.
    assert_eq!(succeeds(&learned, &sandbox, &compile("")), "built");
    fails(&learned, &sandbox, &compile(" && cat /source.c"));
}

#[apply(test)]
#[skip(unless_python_and_landlock)]
fn python_runs_under_the_learned_policy() {
    let sandbox = bounded(Sandbox::new());
    let python = |script: &str| Command::new("/usr/bin/python3").args(["-c", script]).clone();
    let script = "import json, tempfile, subprocess
with tempfile.TemporaryDirectory() as d:
    json.dump([1], open(d + '/a', 'w'))
    print(json.load(open(d + '/a')), subprocess.run(['/bin/echo', 'ran'], capture_output=True).stdout)";
    let learned = learn(&sandbox, &python(script));
    assert_eq!(succeeds(&learned, &sandbox, &python(script)), "[1] b'ran\\n'");
    fails(&learned, &sandbox, &python(&format!("{script}\nopen('/etc/group')")));
    fails(&learned, &sandbox, &python(&format!("{script}\nimport socket; socket.socket()")));
}

#[apply(test)]
#[skip(unless_landlock)]
fn threads_are_learned_from() {
    let files = (0..8).fold(Root::host(), |root, number| root.file(format!("/many/file{number}"), "x"));
    let sandbox = bounded(Sandbox::new().root(crate::support::with_payload(files)));
    let learned = learn(&sandbox, &deeds(&["threads /many/fileN"]));
    for number in 0..8 {
        assert_eq!(at(&learned, &format!("/many/file{number}")), FsAccess::READ_FILE);
    }
    succeeds(&learned, &sandbox, &deeds(&["threads /many/fileN"]));
    fails(&learned, &sandbox, &deeds(&["threads /many/fileN", "read /etc/passwd"]));
}

#[apply(test)]
fn scripts_and_their_interpreters_are_executed() {
    let root = Root::host().tmpfs("/scripts", 1 << 20).create_dir("/scripts/dir");
    let sandbox = bounded(Sandbox::new().root(root));
    let write = |name: &str, text: &str| format!("printf '{text}' >/scripts/{name} && chmod 755 /scripts/{name}");
    let script = format!(
        "{} && {} && cd /scripts/dir && ../outer",
        write("inner", "#! /bin/sh -e\\nexec /bin/cat \"$1\" >/dev/null\\n"),
        write("outer", "#!/scripts/inner\\n")
    );
    let learned = learn(&sandbox, &shell(&script));
    let executed: Vec<&Path> = learned.executed().collect();
    let real = |path: &str| fs::canonicalize(path).expect("on the host");
    // What it has written itself is its directory's.
    assert!(executed.contains(&Path::new("/scripts")), "{executed:?}");
    assert!(executed.contains(&&*real("/bin/sh")) && executed.contains(&&*real("/bin/cat")), "{executed:?}");
    // The program itself may be a script.
    let root = Root::host().with(stockade::mount::Operation::file("/script", b"#!/bin/cat\n", 0o755));
    let sandbox = bounded(Sandbox::new().root(root));
    let learned = learn(&sandbox, &Command::new("/script"));
    let linker = learned.executed().any(|path| path.to_string_lossy().contains("/ld-"));
    assert!(linker, "the dynamic linker is executed by the kernel: {learned}");
    let both = FsAccess::READ_FILE | FsAccess::EXECUTE;
    assert_eq!((at(&learned, "/script"), learned.paths[&real("/bin/cat")]), (both, both));
}

#[apply(test)]
#[skip(unless_c)]
fn a_program_without_notified_calls_is_recorded_by_its_path() {
    let dir = shared_dir();
    let call = if cfg!(target_arch = "x86_64") {
        r#"__asm__ volatile("mov $231, %eax; mov $0, %edi; syscall");"#
    } else {
        r#"__asm__ volatile("mov x8, #94; mov x0, #0; svc #0");"#
    };
    let source = format!("void _start(void) {{ {call} }}");
    let sandbox = build(dir.path(), &source, &["-nostdlib", "-static"]);
    let learned = learn(&sandbox, &Command::new("/work/program"));
    assert_eq!(at(&learned, "/work/program"), FsAccess::READ_FILE | FsAccess::EXECUTE);
    assert_eq!(learned.calls.len(), Learned::UNOBSERVED.len());
    succeeds(&learned, &sandbox, &Command::new("/work/program"));
    let mut searched = Command::new("program");
    searched.env("PATH", "/work");
    let error = sandbox.learn(&searched).expect_err("a name alone is no path").to_string();
    assert!(error.contains("absolute path"), "{error}");
}

#[apply(test)]
#[skip(unless_landlock)]
fn several_runs_are_joined() {
    let [one, other] = [["read /etc/passwd", "listen 4000"], ["read /etc/group", "listen 4001"]];
    let learned = learn(&sandbox(), &deeds(&one));
    fails(&learned, &sandbox(), &deeds(&other));
    let joined = learned.union(learn(&sandbox(), &deeds(&other)));
    succeeds(&joined, &sandbox(), &deeds(&[one, other].concat()));
    fails(&joined, &sandbox(), &deeds(&["listen 4002"]));
}

#[apply(test)]
#[skip(unless_landlock)]
fn a_policy_for_directories_allows_files_with_new_names() {
    let root = Root::host().file("/many/one", "1").file("/many/other", "2").file("/else/third", "3");
    let sandbox = bounded(Sandbox::new().root(crate::support::with_payload(root)));
    let learned = learn(&sandbox, &deeds(&["read /many/one"]));
    fails(&learned, &sandbox, &deeds(&["read /many/other"]));
    succeeds(&learned.clone().by_directory(), &sandbox, &deeds(&["read /many/other"]));
    fails(&learned.by_directory(), &sandbox, &deeds(&["read /else/third"]));
}

#[apply(test)]
#[skip(unless_landlock)]
fn what_the_sandbox_denies_stays_denied() {
    let unshare = shell("unshare --user true 2>/dev/null || echo refused");
    let learned = learn(&sandbox(), &unshare);
    assert!(!learned.calls.contains("unshare"), "what is refused is not learned");
    assert_eq!(succeeds(&learned, &sandbox(), &unshare), "refused");
    // clone is allowed, and with its flags of namespaces it is still not.
    assert!(learned.calls.contains("clone") || learned.calls.contains("vfork"), "{learned}");
    let flags = learned.clone().allow_calls(["clone", "unshare"]).apply(sandbox());
    let output = flags.output(&unshare).expect("an outcome");
    assert_eq!(crate::support::text(&output.stdout), "refused");
}

#[apply(test)]
#[skip(unless_landlock)]
fn rules_that_the_sandbox_has_are_not_widened() {
    let own =
        ["/usr", "/etc", crate::support::PAYLOAD].iter().fold(Landlock::new(), |rules, path| rules.read_only(path));
    let sandbox = sandbox().landlock(own.bind_port(4000));
    let learned = learn(&sandbox, &deeds(&["read /etc/passwd", "listen 4000"]));
    let more = learned.allow_paths([("/proc", FsAccess::READ_FILE)]).allow_bind([4001]);
    succeeds(&more, &sandbox, &deeds(&["read /etc/passwd", "listen 4000"]));
    for deed in ["read /etc/group", "listen 4001", "read /proc/version"] {
        let outcome = more.apply(sandbox.clone()).output(deeds(&[deed])).expect("an outcome").outcome;
        assert!(!outcome.success(), "{deed}");
    }
}
