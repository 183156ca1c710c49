//! Parts of the kernel that no namespace isolates: its settings, the information that it shows, and calls that reach
//! much of its code.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use stockade::{Identity, Namespaces, Sandbox, Seccomp};

use crate::attacks::common::{
    Bystander, anything, attack, attack_as, attack_on_host, attempt, bare, here, in_namespaces, sandbox, tell,
};
use crate::attacks::sys::{Word, call};
use crate::support::{self, is_root, payload, payload_on_host, unless_mounts, unless_pivot_root, unless_root};

payloads![("settings", settings), ("spare", spare), ("tales", tales), ("see", see), ("look_into", look_into)];

fn unless_root_that_can_pivot() -> Option<String> {
    unless_root().or_else(unless_pivot_root)
}

/// Files below a directory that can be opened for writing. Nothing is written to them.
fn writable(directory: &Path) -> Vec<PathBuf> {
    let is_process = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.parent() == Some(Path::new("/proc")) && name.parse::<u32>().is_ok()
    };
    let mut found = vec![];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if kind.is_dir() && !is_process(&path) {
            found.extend(writable(&path));
        } else if kind.is_file() && File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path).is_ok() {
            found.push(path);
        }
    }
    found
}

/// Sets what stands there already.
fn set_again(path: &str) -> std::io::Result<()> {
    let value = fs::read(path)?;
    fs::write(path, value)
}

fn settings(directories: &[String]) -> i32 {
    for directory in directories {
        let found: Vec<String> = writable(Path::new(directory)).iter().map(|path| path.display().to_string()).collect();
        tell(directory, found.join(" "));
    }
    for name in ["core_pattern", "modprobe", "threads-max"] {
        attempt(name, set_again(&format!("/proc/sys/kernel/{name}")));
    }
    attempt("ns_last_pid", set_again("/proc/sys/kernel/ns_last_pid"));
    // Help: it is written to the log.
    attempt("sysrq-trigger", fs::write("/proc/sysrq-trigger", "h"));
    0
}

const SETTINGS: [&str; 4] = ["core_pattern", "modprobe", "threads-max", "sysrq-trigger"];

/// What everybody may open, and what is of a namespace that is the sandbox's own. To the first file nothing is written
/// without a capability.
fn is_harmless(path: &str) -> bool {
    const OPEN: [&str; 2] = ["/proc/sys/kernel/ns_last_pid", "/proc/pressure/"];
    is_own(path) || OPEN.iter().any(|open| path.starts_with(open))
}

fn is_own(path: &str) -> bool {
    const OWN: [&str; 7] =
        ["net/", "fs/mqueue/", "kernel/msg", "kernel/sem", "kernel/shm", "kernel/auto_msgmni", "kernel/pid_max"];
    let setting = path.strip_prefix("/proc/sys/").unwrap_or_default();
    OWN.iter().any(|own| setting.starts_with(own))
}

/// Attack 18: `/proc/sys/**`, `sysrq-trigger`, `/sys/**`.
#[apply(test)]
#[skip(unless_mounts)]
fn settings_of_the_machine_cannot_be_written() {
    let places = ["/proc", "/sys"];
    // Root of a network namespace has some.
    let own = support::text(&in_namespaces(&["-n"], ":", "", "settings", &["/proc/sys"]).output().unwrap().stdout);
    assert!(own.contains("/proc/sys/net/"), "{own}");
    if is_root() {
        let host = attack_on_host("settings", &["/proc/sys"]);
        host.assert_done(&["core_pattern", "threads-max"]);
        assert!(host.get("/proc/sys").contains("/proc/sys/kernel/core_pattern "));
    }
    let as_root = Identity::new().uid(0).gid(0);
    for (sandbox, is_root_inside) in [(sandbox(), false), (sandbox().identity(as_root), true)] {
        for sandbox in [sandbox.clone(), sandbox.seccomp(Seccomp::unconfined())] {
            let inside = attack(&sandbox, "settings", &places);
            inside.assert_refused(&SETTINGS);
            inside.assert_refused(&["ns_last_pid"]);
            let found = inside.get("/proc").trim_matches('"').split_whitespace();
            let (harmless, others): (Vec<&str>, Vec<&str>) = found.partition(|path| is_harmless(path));
            assert_eq!(others, Vec::<&str>::new());
            // Kernels differ in how much of its own root of a namespace may set; who is not root there sets nothing.
            assert!(is_root_inside || !harmless.iter().any(|path| is_own(path)), "{harmless:?}");
            assert_eq!(inside.get("/sys"), "\"\"");
        }
    }
}

/// Attack 18: The same where the program is the host's root, to whom the files belong: no capability is asked for.
#[apply(test)]
#[only(Root)]
#[skip(unless_root_that_can_pivot)]
fn settings_of_the_machine_cannot_be_written_by_host_root() {
    attack_as(&bare(), &here("settings")).assert_done(&["core_pattern", "threads-max"]);
    let all = Namespaces::all() - Namespaces::TIME;
    for namespaces in [all, all - Namespaces::USER, all - Namespaces::PID, Namespaces::USER | Namespaces::MOUNT] {
        for identity in [Identity::caller(), Identity::caller().uid(0).gid(0)] {
            let inside = attack(&sandbox().namespaces(namespaces).identity(identity), "settings", &["/proc", "/sys"]);
            inside.assert_refused(&SETTINGS);
            assert_eq!((inside.get("/proc"), inside.get("/sys")), ("\"\"", "\"\""), "{namespaces:?}");
        }
    }
}

/// Makes itself the last process that is killed for memory.
fn spare(_: &[String]) -> i32 {
    let path = "/proc/self/oom_score_adj";
    let own: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    attempt("lower", fs::write(path, (own - 1).to_string()));
    attempt("lowest", fs::write(path, "-1000"));
    attempt("raise", fs::write(path, "500"));
    attempt("back", fs::write(path, own.to_string()));
    attempt("back below", fs::write(path, (own - 1).to_string()));
    0
}

/// CAP_SYS_RESOURCE, which root of a container may lack.
fn has_resource_right() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    u64::from_str_radix(&support::field(&status, "CapEff"), 16).unwrap() >> 24 & 1 == 1
}

/// Attack 18: `oom_score_adj`.
#[apply(test)]
fn programs_cannot_exempt_themselves_from_the_oom_killer() {
    if has_resource_right() {
        attack_on_host("spare", &[]).assert_done(&["lower", "lowest", "back below"]);
    }
    for sandbox in [bare(), sandbox().identity(Identity::caller()), sandbox()] {
        let command = if sandbox == bare() { here("spare") } else { payload("spare") };
        let inside = attack_as(&sandbox, &command);
        inside.assert_refused(&["lower", "lowest", "back below"]);
    }
    // Who wants to be killed first may, and may change its mind.
    attack(&sandbox(), "spare", &[]).assert_done(&["raise", "back"]);
}

/// Whether any line has a number that tells where something is in the kernel's memory.
fn addresses(path: &str, digits: usize) -> Result<(), String> {
    /// Bytes of some thousands of lines: the first of them may well be zeros.
    const ENOUGH: u64 = 512 << 10;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(ENOUGH).read_to_string(&mut text));
    read.map_err(|error| error.kind().to_string())?;
    let tells = |word: &str| {
        word.len() >= digits && word.bytes().all(|c| c.is_ascii_hexdigit()) && word.bytes().any(|c| c != b'0')
    };
    let mut firsts = text.lines().filter_map(|line| line.trim().split([' ', '-']).next());
    if firsts.any(tells) { Ok(()) } else { Err("zeros".into()) }
}

/// Where a page of its own is in the machine's memory.
fn own_frame() -> Result<(), String> {
    let page = vec![1u8; 4096];
    let at = std::hint::black_box(page.as_ptr()) as u64 / 4096 * 8;
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").map_err(|error| error.to_string())?;
    pagemap.read_exact_at(&mut entry, at).map_err(|error| error.to_string())?;
    if u64::from_ne_bytes(entry) & ((1 << 55) - 1) != 0 { Ok(()) } else { Err("zero".into()) }
}

fn first_bytes(path: &str) -> std::io::Result<()> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let len = file.read(&mut [0; 8192])?;
    if len > 0 { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads what the kernel tells of itself and of the machine.
fn tales(_: &[String]) -> i32 {
    attempt("kallsyms", addresses("/proc/kallsyms", 16));
    attempt("iomem", addresses("/proc/iomem", 8));
    attempt("own frame", own_frame());
    for path in ["kcore", "kpagecount", "kpageflags", "slabinfo", "vmallocinfo", "timer_list", "kmsg"] {
        attempt(path, first_bytes(&format!("/proc/{path}")));
    }
    for path in ["/dev/mem", "/dev/kmsg", "/dev/port"] {
        attempt(path, first_bytes(path));
    }
    let powercap = fs::read_dir("/sys/class/powercap").and_then(|mut zones| zones.next().ok_or(Errno::ENOENT.into()));
    attempt("powercap", powercap);
    for path in ["/sys/kernel", "/sys/firmware", "/sys/class", "/sys/fs", "/sys/module", "/sys/bus"] {
        attempt(path, fs::read_dir(path));
    }
    attempt("log", call(libc::SYS_syslog, &mut [Word::Number(3), Word::Room(&mut [0; 64]), Word::Number(64)]));
    0
}

/// Attack 19: `/proc/kcore`, `/proc/kallsyms`, powercap, and others of their kind. (`/proc/keys` is among the keys.)
#[apply(test)]
fn kernel_internals_cannot_be_read() {
    let host = attack_on_host("tales", &[]);
    host.assert_done(&["/sys/kernel", "/sys/class", "/sys/module"]);
    if is_root() {
        host.assert_done(&["own frame", "iomem", "kpagecount", "/dev/kmsg", "log"]);
        let hides = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap().trim() == "2";
        assert!(hides || host.get("kallsyms") == "done");
    }
    attack(&sandbox(), "tales", &[]).assert_all_refused();
    // The filter adds the log to what permissions and mounts keep.
    let unfiltered = attack(&sandbox().seccomp(Seccomp::unconfined()), "tales", &[]);
    for what in ["kallsyms", "iomem", "own frame", "kcore", "kpagecount", "/dev/kmsg", "powercap", "/sys/kernel"] {
        unfiltered.assert_refused(&[what]);
    }
}

/// Looks for a process by its arguments, and counts those that there are.
fn see(args: &[String]) -> i32 {
    let pid: u32 = args[0].parse().unwrap();
    let named = !support::processes(|line| line.contains("keep_secret")).is_empty();
    attempt("by its name", named.then_some(()).ok_or("absent"));
    attempt(
        "by its pid",
        fs::read(format!("/proc/{pid}/cmdline")).map_err(|error| error.kind()).and_then(|line| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("keep_secret").then_some(()).ok_or(std::io::ErrorKind::NotFound)
        }),
    );
    attempt("by a signal", nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), None));
    tell("processes", support::processes(|_| true).len());
    0
}

/// Attack 19: The host's processes, with their arguments.
#[apply(test)]
fn processes_of_the_host_are_invisible() {
    let mut host = Bystander::start(&mut payload_on_host("keep_secret"));
    host.line();
    let pid = host.pid().to_string();
    let all = Namespaces::all() - Namespaces::TIME;
    attack(&sandbox().namespaces(all - Namespaces::PID), "see", &[&pid]).assert_done(&["by its name", "by its pid"]);
    let inside = attack(&sandbox(), "see", &[&pid]);
    inside.assert_refused(&["by its name", "by its pid", "by a signal"]);
    assert_eq!(inside.get("processes"), "2", "the init and itself");
}

/// Looks into the memory of a process of another sandbox.
fn look_into(args: &[String]) -> i32 {
    let pid: i32 = args[0].parse().unwrap();
    attempt("seen", fs::read(format!("/proc/{pid}/stat")));
    attempt("ptrace", crate::attacks::sys::ptrace(pid));
    attempt("memory", File::open(format!("/proc/{pid}/mem")));
    attempt(
        "process_vm_readv",
        crate::attacks::sys::read_memory(pid, 0x1000, 1).or_else(|errno| {
            // There is nothing at that address.
            if errno == Errno::EFAULT { Ok(vec![]) } else { Err(errno) }
        }),
    );
    attempt("pidfd_getfd", {
        let pidfd = call(libc::SYS_pidfd_open, &mut [Word::Number(pid.into()), Word::Number(0)]);
        pidfd.and_then(|fd| call(libc::SYS_pidfd_getfd, &mut [Word::Number(fd), Word::Number(0), Word::Number(0)]))
    });
    0
}

/// Attack 22: ptrace, and what takes the same right, of a process of another sandbox.
#[apply(test)]
fn processes_of_another_sandbox_cannot_be_inspected() {
    const WAYS: [&str; 4] = ["ptrace", "memory", "process_vm_readv", "pidfd_getfd"];
    let all = Namespaces::all() - Namespaces::TIME;
    let other = |sandbox: &Sandbox, command: &mut stockade::Command| {
        let mut child = sandbox.spawn(command.stdout(stockade::Stdio::piped())).unwrap();
        let said = child.stdout.take().unwrap();
        assert_eq!(crate::attacks::common::first_line(&said), "ready");
        (child, said)
    };
    // Of the same user, and with no namespace between them.
    let open = bare().landlock(anything());
    let (child, _said) = other(&open, &mut here("keep_secret"));
    attack_as(&open, here("look_into").arg(child.pid().number().to_string())).assert_done(&WAYS);
    drop(child);
    for identity in [Identity::new(), Identity::caller()] {
        for filter in [Seccomp::new(), Seccomp::unconfined()] {
            let default = sandbox().identity(identity.clone()).seccomp(filter);
            let seen = default.clone().namespaces(all - Namespaces::PID);
            let (mut child, _said) = other(&seen, &mut payload("keep_secret"));
            let inside = attack(&seen, "look_into", &[&child.pid().number().to_string()]);
            inside.assert_done(&["seen"]);
            inside.assert_refused(&WAYS);
            attack(&default, "look_into", &[&child.pid().number().to_string()]).assert_all_refused();
            std::thread::sleep(Duration::from_millis(1));
            assert!(child.try_wait().unwrap().is_none());
        }
    }
}
