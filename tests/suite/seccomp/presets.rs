//! The calls that the presets deny, and the programs that run under them, as documented.

use std::path::Path;

use stockade::{Seccomp, Termination};

use crate::seccomp::computing::{PYTHON, unless_compilers};
use crate::seccomp::{EPERM, ended_for, result, results, run, says, shell, under};
use crate::support::{text, unless_runs};

/// All of them, by what they are called here.
pub fn all() -> [(&'static str, Seccomp); 3] {
    let [new, container] = others();
    [("pure computation", Seccomp::pure_computation()), new, container]
}

/// Those under which programs of every kind run.
fn others() -> [(&'static str, Seccomp); 2] {
    [("the default", Seccomp::new()), ("container", Seccomp::container())]
}

#[apply(test)]
fn pure_computation_denies_other_calls() {
    let works = [
        "socket:2,2",
        "mkdirat:cwd,/tmp/dir,448",
        "memfd_create:name",
        "chdir:/tmp",
        "kill:0,0",
        "symlinkat:a,cwd,/tmp/a",
    ];
    for call in works {
        let given = result(Seccomp::new(), call);
        assert!(given.parse::<u32>().is_ok(), "{call} works elsewhere: {given}");
    }
    let others =
        ["clone:17", "execve:/bin/true", "ptrace:0", "setsid", "unshare", "mount", "bpf", "io_uring_setup", "setuid:0"];
    for call in works.into_iter().chain(others) {
        let outcome = run(&under(Seccomp::pure_computation()), "calls", &[call]).outcome;
        assert_eq!(Some(ended_for(&outcome)), call.split(':').next());
    }
}

#[apply(test)]
fn pure_computation_has_no_threads() {
    assert_eq!(says(&under(Seccomp::new()), "thread", &[]), "7");
    let outcome = run(&under(Seccomp::pure_computation()), "thread", &[]).outcome;
    assert!(["clone", "clone3"].contains(&ended_for(&outcome)), "{outcome}");
}

#[apply(test)]
fn pure_computation_reads_limits_and_sets_none() {
    assert_eq!(result(Seccomp::pure_computation(), "prlimit64:0,7,0,0"), "0");
    let outcome = run(&under(Seccomp::pure_computation()), "calls", &["prlimit64:0,7,1,0"]).outcome;
    assert_eq!(ended_for(&outcome), "prlimit64");
}

#[apply(test)]
fn pure_computation_opens_files_only_for_reading() {
    let open = |flags: i32| format!("openat:cwd,/tmp/../etc/passwd,{}", flags | libc::O_CLOEXEC);
    let reading = [0, libc::O_NOFOLLOW, libc::O_NONBLOCK | libc::O_NOCTTY].map(open);
    let given = results(Seccomp::pure_computation(), &reading.each_ref().map(String::as_str));
    assert_eq!(given, ["3", "4", "5"]);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC, libc::O_TMPFILE | libc::O_RDWR] {
        let outcome = run(&under(Seccomp::pure_computation()), "calls", &[&open(flags)]).outcome;
        assert_eq!(ended_for(&outcome), "openat", "{flags:#o}");
        assert_eq!(outcome.violations[0].path.as_deref(), Some(Path::new("/tmp/../etc/passwd")));
    }
}

/// Which Python asks for when it looks for a user's home.
#[apply(test)]
fn pure_computation_has_no_name_service() {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK].map(|family| format!("socket:{family},2"));
    assert_eq!(result(Seccomp::new(), &families[0]), "3");
    assert_eq!(result(Seccomp::pure_computation(), &families[0]), "EACCES");
    for family in &families[1..] {
        assert_eq!(ended_for(&run(&under(Seccomp::pure_computation()), "calls", &[family]).outcome), "socket");
    }
}

/// Runs a script under each of the other presets, and expects what it writes.
fn run_under_others(script: &str, expected: &str) {
    for (preset, policy) in others() {
        let output = shell(policy, script);
        let said = text(&output.stderr);
        assert_eq!(output.outcome.termination, Termination::Exited(0), "{script} under {preset} said {said:?}");
        assert_eq!(text(&output.stdout), expected, "{script} under {preset}");
    }
}

#[apply(test)]
fn shells_with_pipes_run_under_the_other_presets() {
    let script = "cd /tmp && for i in 3 1 2; do echo $i; done | sort | tee sorted | tr '\\n' ' ' && wc -l <sorted && \
                  cat <(echo substituted) && (sleep 0.01 & wait) && mkfifo p && (echo piped >p & cat p) && \
                  find . -name sorted | xargs rm && ls | grep -c sorted || true";
    run_under_others(&format!("exec bash -c {}", quoted(script)), "1 2 3 3\nsubstituted\npiped\n0");
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

#[apply(test)]
#[skip(unless_compilers)]
fn a_compiler_runs_under_the_other_presets() {
    let source = "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }";
    run_under_others(&format!("cd /tmp && printf %s {} >a.c && gcc -O2 -o a a.c && ./a", quoted(source)), "compiled");
    let program =
        "#include <iostream>\n#include <thread>\nint main() { std::thread([] { std::cout << \"ran\\n\"; }).join(); }";
    let script = format!("cd /tmp && printf %s {} >a.cpp && g++ -pthread -o a a.cpp && ./a", quoted(program));
    run_under_others(&script, "ran");
}

/// Those that are there.
#[apply(test)]
fn interpreters_with_threads_run_under_the_other_presets() {
    let python = "import subprocess, threading, socket, tempfile, multiprocessing as m\nt = \
                  threading.Thread(target=lambda: print(subprocess.check_output(['echo', \
                  'child']).decode().strip()))\nt.start(); t.join()\na, b = socket.socketpair(); a.send(b'x'); assert \
                  b.recv(1) == b'x'\ntempfile.TemporaryFile().write(b'x')\np = m.Process(target=print, \
                  args=('process',)); p.start(); p.join()";
    let node = "const {execFileSync} = require('child_process'); require('fs').writeFileSync('/tmp/a', 'x');\
                process.stdout.write(execFileSync('echo', ['child'])); setTimeout(() => console.log('later'), 10)";
    let java = "class Main { public static void main(String[] a) throws Exception { \
                var t = new Thread(() -> System.out.println(\"thread\")); t.start(); t.join(); } }";
    let scripts = [
        (PYTHON, format!("{PYTHON} -c {}", quoted(python)), "child\nprocess"),
        ("/usr/bin/node", format!("/usr/bin/node -e {}", quoted(node)), "child\nlater"),
        (
            "/usr/bin/javac",
            format!("cd /tmp && printf %s {} >Main.java && javac Main.java && java Main", quoted(java)),
            "thread",
        ),
    ];
    for (program, script, expected) in scripts {
        match unless_runs(program).is_none() {
            true => run_under_others(&script, expected),
            false => println!("{program} is not installed, and not tested"),
        }
    }
}

#[apply(test)]
fn the_other_presets_deny_calls_that_change_the_machine() {
    let calls =
        ["mount", "sethostname", "clock_settime", "reboot", "init_module", "kexec_load", "swapon", "bpf", "keyctl:0"];
    for (preset, policy) in others() {
        assert_eq!(results(policy, &calls), [EPERM; 9], "{preset}");
    }
    // Which is not only because the kernel asks for capabilities.
    let keyring = results(Seccomp::unconfined(), &["keyctl:0", "userfaultfd:1", "io_uring_setup:0,0"]);
    assert!(keyring.iter().all(|given| given != EPERM), "{keyring:?}");
    assert_eq!(results(Seccomp::new(), &["keyctl:0", "userfaultfd:1", "io_uring_setup:0,0"]), [EPERM; 3]);
}

#[apply(test)]
fn the_other_presets_allow_threads_and_no_namespaces() {
    // Flags that the kernel itself finds wrong (EINVAL) are let through to it.
    let user = libc::CLONE_NEWUSER;
    let both = [format!("clone:{}", user | libc::CLONE_THREAD), format!("clone:{}", libc::CLONE_THREAD)];
    let both = both.each_ref().map(String::as_str);
    assert_eq!(results(Seccomp::unconfined(), &both), ["EINVAL"; 2]);
    for (preset, policy) in others() {
        assert_eq!(results(policy.clone(), &both), [EPERM, "EINVAL"], "{preset}");
        assert_eq!(results(policy.clone(), &["clone3", "unshare", "setns"]), ["ENOSYS", EPERM, EPERM], "{preset}");
        assert_eq!(says(&under(policy), "thread", &[]), "7");
    }
}
