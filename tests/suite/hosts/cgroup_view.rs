//! A program with a cgroup of its own sees its limits, and so does a runtime that sizes itself by them.

use stockade::{Cgroup, Command, Identity, Landlock, Namespaces, Root, Sandbox, profile};

use crate::support::{exists, fails, stdout, text};

const MEMORY: u64 = 256 << 20;

fn limited(sandbox: Sandbox) -> Sandbox {
    sandbox.cgroup(Cgroup::new().memory_max(MEMORY).pids_max(200).cpu_max(1.0))
}

/// A reason to skip what needs a cgroup with limits.
fn unless_cgroup() -> Option<String> {
    let error = limited(Sandbox::new()).status(Command::new("/bin/true")).err()?;
    Some(format!("this user may make no cgroup here: {error}"))
}

fn unless_java() -> Option<String> {
    unless_cgroup().or_else(|| unless_installed("/usr/bin/java"))
}

fn unless_node() -> Option<String> {
    unless_cgroup().or_else(|| unless_installed("/usr/bin/node"))
}

fn unless_installed(program: &str) -> Option<String> {
    (!exists(program)).then(|| format!("{program} is not installed"))
}

/// A file of the memory controller that has its limit, inside a sandbox.
fn limit_file() -> &'static str {
    "$(ls /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)"
}

/// Finding H12. The program of an ordinary user is in a cgroup below the one with the limits.
#[apply(test)]
#[only(Root)]
#[skip(unless_cgroup)]
fn the_program_sees_its_limits() {
    for sandbox in [Sandbox::new(), profile::build_step(), profile::test(), profile::agent()] {
        let limit = stdout(&limited(sandbox), &format!("cat {}", limit_file()));
        assert_eq!(limit, MEMORY.to_string());
    }
}

/// Finding H12: nothing in it can be changed, and no cgroup of the host is visible.
#[apply(test)]
#[skip(unless_cgroup)]
fn the_view_is_read_only_and_shows_nothing_else() {
    for sandbox in [limited(Sandbox::new()), limited(Sandbox::new().identity(Identity::caller()))] {
        let error = fails(
            &sandbox,
            "for file in $(find /sys/fs/cgroup -name cgroup.procs); do echo 0 >$file && exit 0; done; exit 1",
        );
        assert!(error.contains("Read-only file system") || error.contains("Permission denied"), "{error}");
        fails(&sandbox, "for dir in $(find /sys/fs/cgroup -type d); do mkdir $dir/new && exit 0; done; exit 1");
        assert_eq!(stdout(&sandbox, "grep ' cgroup' /proc/self/mountinfo | grep -v ' ro,' | cat"), "");
        let roots = stdout(&sandbox, "grep ' - cgroup' /proc/self/mountinfo | cut -d' ' -f4 | sort -u");
        assert_eq!(roots, "/");
        // Nothing but the own processes is in them: a process of the host is shown as 0.
        let script = "for file in $(find /sys/fs/cgroup -name cgroup.procs); do cat $file; done | grep -cx 0";
        assert_eq!(stdout(&sandbox, &format!("{script} || :")), "0");
    }
}

/// The view can be left out, and is where it has no place.
#[apply(test)]
#[skip(unless_cgroup)]
fn the_view_is_optional() {
    let is_shown = |sandbox: Sandbox| stdout(&sandbox, "grep -c ' - cgroup' /proc/self/mountinfo || :") != "0";
    assert!(is_shown(limited(Sandbox::new())));
    assert!(!is_shown(limited(Sandbox::new()).map_cgroup(Cgroup::hidden)));
    assert!(!is_shown(Sandbox::new()), "without a cgroup");
    assert!(!is_shown(limited(Sandbox::new().map_root(|root| root.tmpfs("/sys", 1 << 20)))));
    assert!(!is_shown(limited(Sandbox::new().map_namespaces(|all| all - Namespaces::CGROUP))));
    for sandbox in [
        Sandbox::new().root(Root::inherit()),
        Sandbox::new().root(Root::from_dir("/")),
        Sandbox::new().namespaces(Namespaces::USER | Namespaces::PID).root(Root::inherit()),
        Sandbox::new().root(Root::host().writable()),
        Sandbox::new().landlock(Landlock::new().read_only("/")),
    ] {
        let status = limited(sandbox).best_effort([stockade::Layer::Landlock]).status(Command::new("/bin/true"));
        assert!(status.expect("an outcome").success());
    }
}

/// Finding H12.
#[apply(test)]
#[only(Root)]
#[skip(unless_java)]
fn java_sizes_itself_by_the_limit() {
    let mut command = Command::new("/usr/bin/java");
    command.args(["-XX:+PrintFlagsFinal", "-XshowSettings:system", "-version"]);
    let heap = |sandbox: Sandbox| {
        let output = sandbox.output(&command).expect("an output");
        assert!(output.outcome.success(), "{}: {}", output.outcome, text(&output.stderr));
        let flags = text(&output.stdout);
        let line = flags.lines().find(|line| line.contains(" MaxHeapSize ")).expect("the flag");
        line.split_whitespace().nth(3).and_then(|value| value.parse::<u64>().ok()).expect("a number")
    };
    let without = heap(Sandbox::new().cgroup(Cgroup::new().memory_max(MEMORY).hidden()));
    assert!(without > MEMORY / 2, "the machine has enough memory for the test: {without}");
    for sandbox in [Sandbox::new(), profile::build_step(), profile::test(), profile::agent()] {
        let with = heap(limited(sandbox));
        assert!(with <= MEMORY / 2, "{with}");
    }
}

/// Finding H12.
#[apply(test)]
#[only(Root)]
#[skip(unless_node)]
fn node_sees_the_limit() {
    let script = "console.log(process.constrainedMemory ? process.constrainedMemory() : 'unsupported')";
    let output = limited(Sandbox::new()).output(Command::new("/usr/bin/node").args(["-e", script])).expect("an output");
    let said = text(&output.stdout);
    assert!(said == MEMORY.to_string() || said == "unsupported", "{said:?}: {}", text(&output.stderr));
}
