//! Allow-lists without any system call. A program under such a policy cannot report anything, so the signal that kills
//! it is the result.

use std::fs;
use std::path::PathBuf;

use stockade::landlock::FsAccess;
use stockade::seccomp::Action;
use stockade::{Capabilities, Command, Landlock, Root, Sandbox, Seccomp, Signal, Termination};
use tempfile::TempDir;

use crate::attacks::common::{attack, attack_as, attempt, host_output, runnable, sandbox, tell};
use crate::support::{PAYLOAD, payload, shared_dir, unless_compilers, unless_landlock_since, with_payload};

payloads![("reach_all", reach_all), ("look_around", look_around)];

fn unless_landlock() -> Option<String> {
    unless_landlock_since((6, 7))
}

/// Makes every system call that there may be, with arguments by which none does anything, until one is allowed: then it
/// ends by SIGILL, and by SIGTRAP if there was none.
const EVERY_CALL: &str = r#"
    long call(long number) {
        long result;
    #ifdef __x86_64__
        register long fourth __asm__("r10") = -1;
        register long fifth __asm__("r8") = -1;
        __asm__ volatile("syscall" : "=a"(result)
                         : "a"(number), "D"(-1L), "S"(-1L), "d"(-1L), "r"(fourth), "r"(fifth) : "rcx", "r11", "memory");
    #else
        register long first __asm__("x0") = -1, second __asm__("x1") = -1, third __asm__("x2") = -1;
        register long eighth __asm__("x8") = number;
        __asm__ volatile("svc 0" : "+r"(first) : "r"(second), "r"(third), "r"(eighth) : "memory");
        result = first;
    #endif
        return result;
    }
    /* uretprobe and uprobe, which the kernel puts into a program that is traced by them, and lets pass every filter.
       From elsewhere they are a SIGILL. */
    int is_the_kernels(long number) {
    #ifdef __x86_64__
        return number == 335 || number == 336;
    #else
        return 0;
    #endif
    }
    void _start(void) {
        for (long number = 0; number < 1024; number++)
            if (!is_the_kernels(number) && call(number) != -1) /* -EPERM */
                __builtin_trap();
    #ifdef __x86_64__
        __asm__ volatile("int3");
    #else
        __asm__ volatile("brk 0");
    #endif
        for (;;);
    }"#;

fn every_call() -> (TempDir, PathBuf) {
    let place = shared_dir();
    let (source, program) = (place.path().join("every.c"), place.path().join("every"));
    fs::write(&source, EVERY_CALL).unwrap();
    let mut cc = std::process::Command::new("cc");
    host_output(
        cc.args(["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o"])
            .args([&program, &source]),
    );
    (place, program)
}

/// Attack 33: A policy that allows no system call.
#[apply(test)]
#[skip(unless_compilers)]
fn an_empty_list_of_system_calls_allows_none() {
    let (_place, program) = every_call();
    let root = Root::empty().bind(program, "/every");
    let ends = |policy: Seccomp| {
        let sandbox = Sandbox::new().root(root.clone()).seccomp(policy);
        sandbox.status(Command::new("/every")).unwrap().termination
    };
    let signaled = |signal| Termination::signaled(Signal::new(signal).expect("a signal"), false);
    assert_eq!(ends(Seccomp::unconfined()), signaled(libc::SIGILL), "without a policy there is one that is allowed");
    assert_eq!(ends(Seccomp::allow_list().allow(["getppid"])), signaled(libc::SIGILL), "one is found");
    assert_eq!(ends(Seccomp::allow_list()), signaled(libc::SIGTRAP));
    assert_eq!(ends(Seccomp::allow_list().record()), signaled(libc::SIGTRAP));
    assert_eq!(ends(Seccomp::allow_list().allow(Vec::<&str>::new())), signaled(libc::SIGTRAP));
    let killed = ends(Seccomp::allow_list().default_action(Action::Kill));
    assert!(matches!(killed, Termination::Syscall { .. }), "{killed:?}");
}

/// Tries what rules of Landlock are about.
fn reach_all(_: &[String]) -> i32 {
    attempt("read a file", fs::read("/etc/passwd"));
    attempt("read its own", fs::read("/proc/self/status"));
    attempt("list", fs::read_dir("/"));
    attempt("write", fs::write("/tmp/file", ""));
    attempt("make a directory", fs::create_dir("/tmp/directory"));
    attempt("null", fs::File::options().write(true).open("/dev/null"));
    attempt("bind", std::net::TcpListener::bind("127.0.0.1:0"));
    attempt("execute", std::process::Command::new("/usr/bin/true").status());
    0
}

/// Attack 33: Rules of Landlock that allow nothing.
#[apply(test)]
#[skip(unless_landlock)]
fn an_empty_list_of_paths_and_ports_allows_none() {
    let all = ["read a file", "read its own", "list", "write", "make a directory", "null", "bind", "execute"];
    attack(&sandbox(), "reach_all", &[]).assert_done(&all);
    let none = Landlock::new().any_signal().any_abstract_socket();
    let error = sandbox().landlock(none.clone()).status(payload("reach_all")).unwrap_err().to_string();
    assert!(error.contains("EACCES"), "not even the program: {error}");
    let error = sandbox().landlock(none.access("/usr", FsAccess::empty())).status(payload("reach_all")).unwrap_err();
    assert!(error.to_string().contains("the rule allows nothing"), "{error}");
    // What a program takes to run, and nothing else.
    let own = FsAccess::EXECUTE | FsAccess::READ_FILE;
    let rules =
        [PAYLOAD, "/lib", "/lib64", "/usr/lib"].iter().fold(Landlock::new(), |rules, path| rules.access(*path, own));
    attack(&sandbox().landlock(rules.any_signal().any_abstract_socket()), "reach_all", &[]).assert_all_refused();
}

/// What there is at the root, and whether anything can be made there.
fn look_around(_: &[String]) -> i32 {
    let mut names: Vec<_> = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    tell("names", names);
    attempt("make", fs::create_dir("/made"));
    attempt("write", fs::write("/file", ""));
    attempt("above", fs::read("/../etc/passwd"));
    0
}

/// Attack 33: A root without operations.
#[apply(test)]
fn an_empty_root_shows_nothing() {
    let error = Sandbox::new().root(Root::empty()).status(Command::new("/bin/true")).unwrap_err();
    assert_eq!(error.io_kind(), std::io::ErrorKind::NotFound, "{error}");
    attack(&sandbox(), "look_around", &[]).assert_done(&["above"]);
    let least = with_payload(runnable(Root::empty()));
    let inside = attack_as(&Sandbox::new().root(least), &payload("look_around"));
    inside.assert_refused(&["make", "write", "above"]);
    let names = inside.get("names");
    for name in ["etc", "proc", "dev", "sys", "tmp", "home", "root", "run"] {
        assert!(!names.contains(&format!("\"{name}\"")), "{names}");
    }
    assert!(names.contains("\"payload\"") && names.contains("\"usr\""), "{names}");
}

/// Attack 33: A list of capabilities without any. (What each set then is stands in `filesystem`.)
#[apply(test)]
fn an_empty_list_of_capabilities_gives_none() {
    let none = Capabilities::none().keep([]);
    assert_eq!(none, Capabilities::none());
    let kept = attack(
        &sandbox().capabilities(Capabilities::none().keep([stockade::capabilities::Capability::NetRaw])),
        "ids",
        &[],
    );
    assert_ne!(kept.get("CapEff"), "0000000000000000");
    let sets = attack(&sandbox().capabilities(none), "ids", &[]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(sets.get(set), "0000000000000000", "{set}");
    }
}
