//! File systems of the kernel: `/proc` and `/dev`.

use std::path::Path;

use stockade::identity::IdRange;
use stockade::mount::{HidePid, Proc};
use stockade::{Identity, Namespaces, Root};

use crate::root::{is_read_only, programs, sandbox, with, with_mount};
use crate::support::{fails, stdout};

#[apply(test)]
fn proc_shows_the_sandboxes_own_processes() {
    let host = std::process::id();
    let inside = stdout(&sandbox(), "cd /proc; echo [0-9]*");
    let pids: Vec<u32> = inside.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.contains(&1) && pids.len() == 2, "{pids:?} on a host with process {host}");
    assert_eq!(stdout(&sandbox(), "cat /proc/$$/comm"), "sh");
}

#[apply(test)]
fn proc_can_be_elsewhere() {
    let sandbox = with(programs(Root::empty()).proc("/other/processes"));
    assert_eq!(stdout(&sandbox, "cat /other/processes/$$/comm; ls /"), stdout(&sandbox, "echo sh; ls /"));
    stdout(&sandbox, "test ! -e /proc");
}

#[apply(test)]
fn hidepid_hides_the_init() {
    // Group 0 of the host sees everything (proc(5), `gid`).
    let hiding = |hidepid| with_mount(Proc::new("/proc").hidepid(hidepid)).identity(Identity::new());
    stdout(&sandbox(), "cat /proc/1/comm");
    assert!(fails(&hiding(HidePid::NoAccess), "cat /proc/1/comm").contains("Operation not permitted"));
    for hidepid in [HidePid::Invisible, HidePid::Ptraceable] {
        assert!(fails(&hiding(hidepid), "cat /proc/1/comm").contains("No such file"), "{hidepid:?}");
        assert_eq!(stdout(&hiding(hidepid), "cd /proc; test ! -e 1; cat $$/comm"), "sh", "{hidepid:?}");
    }
}

#[apply(test)]
fn subset_pid_leaves_processes_alone() {
    let all = "for name in sys cpuinfo mounts self; do test -e /proc/$name && echo $name; done; true";
    assert_eq!(stdout(&sandbox(), all), "sys\ncpuinfo\nmounts\nself");
    let subset = with_mount(Proc::new("/proc").subset_pid());
    assert_eq!(stdout(&subset, all), "self");
    assert_eq!(stdout(&subset, "cat /proc/$$/comm"), "sh");
}

#[apply(test)]
fn a_shared_proc_is_read_only() {
    let raise = "echo 500 > /proc/self/oom_score_adj";
    let own = sandbox().identity(Identity::new());
    stdout(&own, raise);
    let shared = own.namespaces(Namespaces::all() - Namespaces::PID - Namespaces::TIME);
    is_read_only(&shared, "/proc/self/oom_score_adj");
}

#[apply(test)]
#[only(Root)]
fn the_proc_of_the_hosts_root_is_read_only() {
    for identity in [Identity::caller(), Identity::caller().uid(0)] {
        is_read_only(&sandbox().identity(identity), "/proc/self/oom_score_adj");
    }
    let all = [IdRange::new(0, 0, 1 << 16)];
    is_read_only(&sandbox().identity(Identity::new().maps(all, all).uid(1000).gid(1000)), "/proc/self/oom_score_adj");
}

#[apply(test)]
fn dev_has_what_every_program_expects() {
    let expected = "fd\nfull\nmqueue\nnull\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero";
    assert_eq!(stdout(&sandbox(), "ls -A /dev"), expected);
    let types = "cd /dev; for node in null zero full random urandom tty; do test -c $node || echo $node; done";
    assert_eq!(stdout(&sandbox(), types), "");
    let shared = sandbox().namespaces(Namespaces::all() - Namespaces::IPC);
    assert_eq!(stdout(&shared, "ls -A /dev"), expected.replace("mqueue\n", ""));
}

#[apply(test)]
fn devices_work() {
    let sandbox = sandbox();
    assert_eq!(stdout(&sandbox, "echo x > /dev/null && cat /dev/null"), "");
    assert_eq!(stdout(&sandbox, "head -c 3 /dev/zero | od -An -tx1"), " 00 00 00");
    assert!(fails(&sandbox, "head -c 1 /dev/zero > /dev/full").contains("No space left on device"));
    for node in ["random", "urandom"] {
        let script = format!("head -c 32 /dev/{node} | wc -c; echo x > /dev/{node}");
        assert_eq!(stdout(&sandbox, &script), "32");
        let script = format!("head -c 32 /dev/{node} | od -An -tx1");
        assert_ne!(stdout(&sandbox, &script), stdout(&sandbox, &script));
    }
    // The program has no controlling terminal.
    assert!(fails(&sandbox, ": < /dev/tty").contains("No such device or address"));
}

#[apply(test)]
fn the_descriptors_are_linked() {
    let sandbox = sandbox();
    assert_eq!(stdout(&sandbox, "echo text | cat /dev/stdin; echo text | cat /dev/fd/0"), "text\ntext");
    assert_eq!(stdout(&sandbox, "echo out > /dev/stdout; echo err > /dev/stderr"), "out");
}

#[apply(test)]
fn terminals_are_the_sandboxes_own() {
    let open = "exec 3<> /dev/ptmx; ls /dev/pts; stat -c %F /dev/pts/0";
    let expected = "0\nptmx\ncharacter special file";
    let sandbox = || sandbox().map_root(|root| root.terminals(1));
    assert_eq!(stdout(&sandbox(), "cd /dev; ls ptmx pts"), "ptmx\n\npts:\nptmx");
    assert_eq!(stdout(&sandbox(), open), expected);
    assert_eq!(stdout(&sandbox(), open), expected, "another sandbox counts from 0 too");
}

#[apply(test)]
fn shared_memory_is_the_sandboxes_own() {
    let name = format!("of-{}-{}", std::process::id(), nix::unistd::geteuid());
    assert_eq!(stdout(&sandbox(), "ls -A /dev/shm; stat -c %a /dev/shm"), "1777");
    stdout(&sandbox(), &format!("echo x > /dev/shm/{name}"));
    assert!(!Path::new("/dev/shm").join(&name).exists());
    assert_eq!(stdout(&sandbox(), "ls -A /dev/shm"), "");
}

#[apply(test)]
fn message_queues_are_the_sandboxes_own() {
    // Files are made in this file system by mq_open(3), or as everywhere.
    assert_eq!(
        stdout(&sandbox(), "> /dev/mqueue/queue; ls /dev/mqueue; cat /dev/mqueue/queue | cut -c 1-5"),
        "queue\nQSIZE"
    );
    assert_eq!(stdout(&sandbox(), "ls /dev/mqueue"), "");
}

#[apply(test)]
fn dev_can_be_elsewhere() {
    let sandbox = with(programs(Root::empty()).dev("/some/devices").terminals(1));
    assert_eq!(stdout(&sandbox, "echo x > /some/devices/null; head -c 5 /some/devices/zero | wc -c"), "5");
    assert_eq!(stdout(&sandbox, "exec 3<> /some/devices/ptmx; ls /some/devices/pts"), "0\nptmx");
    stdout(&sandbox, "test ! -e /dev");
}

#[apply(test)]
fn dev_itself_is_read_only() {
    is_read_only(&sandbox(), "/dev/new");
    assert!(fails(&sandbox(), "rm /dev/null").contains(crate::root::READ_ONLY));
    // Whoever owns the node on the host could change it there: here, to what it is already.
    let mode = stdout(&sandbox(), "stat -c %a /dev/null");
    for identity in [Identity::new(), Identity::caller()] {
        let said = fails(&sandbox().identity(identity), &format!("chmod {mode} /dev/null"));
        assert!(said.contains(crate::root::READ_ONLY) || said.contains("Operation not permitted"), "{said}");
    }
}
