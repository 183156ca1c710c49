//! Sandboxes with the same host ID.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command as Host, Stdio as HostStdio};

use stockade::identity::IdRange;
use stockade::mount::Bind;
use stockade::{Child, Command, Error, ErrorKind, Identity, Root, Sandbox, Stdio};

use crate::attacks::common::open_directory;
use crate::support::{USER, eventually, field, payload_on_host, sh, shared_dir};

payloads![("hold-ids", hold_ids)];

/// A sandbox with one of some host IDs.
fn of_range(first: u32, count: u32) -> Sandbox {
    Sandbox::new().identity(Identity::new().host_ids(first, count))
}

/// A range that no other test has.
fn range() -> u32 {
    0x6000_0000 + (std::process::id() % 0x10_0000) * 16
}

fn running(sandbox: &Sandbox) -> Result<Child, Error> {
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sandbox.spawn(command)?;
    BufReader::new(child.stdout.as_mut().expect("pipe")).read_line(&mut String::new()).expect("first line");
    Ok(child)
}

fn host_uid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    field(&status, "Uid").split_whitespace().next().unwrap().parse().unwrap()
}

#[track_caller]
fn assert_none_left(sandbox: &Sandbox) {
    match running(sandbox) {
        Err(error) if error.kind() == ErrorKind::LimitExceeded => {
            let (what, remedy) = crate::support::words(&error);
            assert!(what.starts_with("failed to reserve a host ID: all ") && what.contains("are in use"), "{what}");
            assert!(remedy.contains("Identity::host_ids"), "{remedy}");
        }
        other => panic!("{:?}", other.map(|child| host_uid(child.pid().number()))),
    }
}

#[apply(test)]
#[only(Root)]
fn no_two_sandboxes_share_a_host_id() {
    let dir = shared_dir();
    let place = dir.path().join("place");
    open_directory(&place);
    fs::set_permissions(&place, Permissions::from_mode(0o1777)).unwrap();
    let root = || Root::host().with(Bind::new(&place, "/mnt").writable().unmapped());
    let leave = "umask 077; echo secret >/mnt/file";
    // The harm: who has the same host ID reads what the other keeps to itself.
    let same = |inside| IdRange::new(inside, range() + 15, 1);
    let alike = Sandbox::new().identity(Identity::new().maps([same(1000)], [same(1000)])).root(root());
    assert!(sh(&alike, leave).outcome.success());
    assert_eq!(sh(&alike, "cat /mnt/file").stdout, b"secret\n");
    fs::remove_file(place.join("file")).unwrap();

    let first = of_range(range(), 3).root(root());
    let mut living: Vec<Child> = (0..3).map(|_| running(&first).expect("an ID")).collect();
    let mut uids: Vec<u32> = living.iter().map(|child| host_uid(child.pid().number())).collect();
    uids.sort_unstable();
    assert_eq!(uids, [range(), range() + 1, range() + 2]);
    assert_none_left(&first);
    // The only one that is free is given out again.
    let freed = host_uid(living[1].pid().number());
    drop(living.remove(1));
    let next = running(&first).expect("an ID");
    assert_eq!(host_uid(next.pid().number()), freed);
    assert_none_left(&first);
}

/// A caller that has some sandboxes until it is killed, or its input ends.
fn hold_ids(args: &[String]) -> i32 {
    let sandbox = of_range(args[0].parse().unwrap(), args[1].parse().unwrap());
    let held: Vec<Child> = (0..args[2].parse().unwrap()).map(|_| running(&sandbox).expect("an ID")).collect();
    let pids: Vec<String> = held.iter().map(|child| child.pid().number().to_string()).collect();
    println!("{}", pids.join(" "));
    let _ = std::io::stdin().read_line(&mut String::new());
    0
}

/// Another process that has so many, and the pids of the programs.
fn holder(first: u32, count: u32, held: u32) -> (std::process::Child, Vec<u32>) {
    let args = [first, count, held].map(|number| number.to_string());
    let mut caller = payload_on_host("hold-ids");
    let mut caller = caller.args(args).stdin(HostStdio::piped()).stdout(HostStdio::piped()).spawn().expect("a caller");
    let mut line = String::new();
    BufReader::new(caller.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pids = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    (caller, pids)
}

#[apply(test)]
#[only(Root)]
fn host_ids_are_reserved_across_processes() {
    let first = range() + 4;
    let (mut one, of_one) = holder(first, 4, 2);
    let (mut two, of_two) = holder(first, 4, 1);
    let own = running(&of_range(first, 4)).expect("an ID");
    let mut uids: Vec<u32> = of_one.into_iter().chain(of_two).chain([own.pid().number()]).map(host_uid).collect();
    uids.sort_unstable();
    assert_eq!(uids, [first, first + 1, first + 2, first + 3]);
    assert_none_left(&of_range(first, 4));
    for caller in [&mut one, &mut two] {
        drop(caller.stdin.take());
        assert!(caller.wait().unwrap().success());
    }
    let again: Vec<Child> = (0..3).map(|_| running(&of_range(first, 4)).expect("an ID")).collect();
    assert_eq!(again.len(), 3);
}

#[apply(test)]
#[only(Root)]
fn the_host_id_of_a_killed_caller_is_free_when_its_sandbox_is_gone() {
    let id = range() + 8;
    let (mut caller, pids) = holder(id, 1, 1);
    assert_eq!(host_uid(pids[0]), id);
    caller.kill().unwrap();
    caller.wait().unwrap();
    // Whoever gets it is alone with it. A zombie has it still, until somebody reaps it.
    let mut next = None;
    eventually("the ID is free", || {
        next = running(&of_range(id, 1)).ok();
        next.is_some()
    });
    let alive = fs::read_to_string(format!("/proc/{}/status", pids[0]));
    assert!(alive.is_err(), "two sandboxes had {id}: {alive:?}");
}

#[apply(test)]
#[only(Root)]
fn an_ordinary_user_can_reserve_no_host_id() {
    drop(running(&Sandbox::new()).unwrap());
    let files = ["/run/stockade/ids", "/dev/stockade/ids"];
    let file = files.into_iter().find(|file| fs::metadata(file).is_ok()).expect("the file of reservations");
    let open = |redirect: &str| {
        let script = format!(": {redirect} {file}");
        Host::new("sh").args(["-c", &script]).uid(USER).gid(USER).stderr(HostStdio::null()).status().unwrap().success()
    };
    assert!(!open("<") && !open(">>"), "who can open the file can lock what is in it");
}
