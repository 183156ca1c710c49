//! Memory: kills by the kernel that a program hides, or pretends.

use std::fs::File;
use std::io::{Read, Write};

use nix::sys::wait::waitpid;
use stockade::capabilities::Capability;
use stockade::{Capabilities, Cgroup, Identity, Root, Stdio, Termination};

use super::{MB, counted, fork, number, run, signaled, verdict};
use crate::attacks::common::{alone, line, open_directory, unfiltered};
use crate::attacks::sys::numbers;
use crate::support::{payload, sh, shared_dir, text, touched, with_payload};

/// Ends as the caller wants it to look.
fn end(how: &str) -> i32 {
    match how {
        "exit" => return 0,
        "exit like a killed one" => return 137,
        "kill" => drop(numbers(libc::SYS_kill, &[std::process::id().into(), libc::SIGKILL.into()])),
        other => panic!("{other}"),
    }
    1
}

/// Uses so many megabytes, by itself or by a child that it waits for, waits for a line, if one comes, and ends.
pub fn use_memory(args: &[String]) -> i32 {
    let size = (number(&args[1]) << 20) as usize;
    let held = match args[0].as_str() {
        "itself" => touched(size),
        "child" => {
            let status = waitpid(fork(libc::SIGCHLD, || drop(touched(size))), None);
            println!("{status:?}");
            vec![]
        }
        other => panic!("{other}"),
    };
    println!("used");
    let _ = std::io::stdin().read(&mut [0]);
    drop(std::hint::black_box(held));
    end(&args[2])
}

/// Attack 75: a program whose child is killed for memory ends as if nothing had been, and one that is not ends as if it
/// had; and neither is the verdict of the neighbour.
#[apply(test)]
#[skip(super::unless_groups)]
fn no_oom_kill_lies() {
    let _alone = alone();
    let limited = counted().cgroup(Cgroup::new().memory_max(32 * MB));
    let ends = ["exit", "exit like a killed one", "kill"];
    let naive = ends.map(|how| verdict(&limited, "use_memory", &["child", "1", how]));
    let own = [Termination::Exited(0), Termination::Exited(137), signaled(libc::SIGKILL)];
    assert_eq!(naive, own, "so much it may use, whatever its end looks like");
    for how in ends {
        assert_eq!(verdict(&limited, "use_memory", &["child", "64", how]), Termination::Memory, "{how}");
    }

    let mut neighbour = payload("use_memory");
    neighbour.args(["itself", "20", "kill"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut neighbour = limited.spawn(&neighbour).unwrap();
    assert_eq!(line(neighbour.stdout.as_mut().unwrap()), "used");
    assert_eq!(verdict(&limited, "use_memory", &["itself", "64", "exit"]), Termination::Memory);
    drop(neighbour.stdin.take());
    assert_eq!(neighbour.wait().unwrap().termination, signaled(libc::SIGKILL), "its own signal");
}

/// Writes so many megabytes to a file on a disk, which stay in the page cache as long as there is room, and ends.
pub fn fill_cache(args: &[String]) -> i32 {
    let mut file = File::create(&args[0]).unwrap();
    for _ in 0..number(&args[1]) {
        // What is written at once is charged at once.
        (0..256).for_each(|_| file.write_all(&[1; 4096]).unwrap());
        file.sync_data().unwrap();
    }
    end(&args[2])
}

/// Attack 75: a program that has filled its memory to the last page, with what the kernel can take back, and is killed
/// by somebody else.
#[apply(test)]
#[skip(super::unless_groups_and_idmapped_mounts)]
fn no_full_page_cache_lies() {
    const LIMIT: u64 = 24 * MB;
    let _alone = alone();
    let place = shared_dir();
    let out = place.path().join("out");
    open_directory(&out);
    let limited =
        counted().root(with_payload(Root::host()).bind_rw(&out, "/out")).cgroup(Cgroup::new().memory_max(LIMIT));
    for (how, verdict) in [("kill", signaled(libc::SIGKILL)), ("exit", Termination::Exited(0))] {
        let outcome = run(&limited, "fill_cache", &["/out/file", "40", how]).outcome;
        assert_eq!(outcome.termination, verdict, "{outcome}");
        // Who judges by a SIGKILL and a peak at the limit takes it for a kill for memory.
        let peak = outcome.usage.memory_peak.map_or(LIMIT, |peak| peak.value);
        assert!((LIMIT - 8 * 4096..=LIMIT).contains(&peak), "the attack must work here: {peak}");
    }
}

/// Attack 75: a program that makes a group below its own has a process killed there: for the limit of that group, which
/// says nothing of the sandbox's; or for the sandbox's own.
#[apply(test)]
#[only(Root)]
#[skip(super::unless_v1_root)]
fn no_group_of_its_own_making_lies() {
    let _alone = alone();
    let owning = unfiltered(&counted())
        .cgroup(Cgroup::new().memory_max(48 * MB))
        .identity(Identity::caller().uid(0).gid(0))
        .capabilities(Capabilities::none().keep([Capability::SysAdmin]));
    let run = |limit: &str, size: u64, end: &str| {
        let script = format!(
            "mount -t cgroup -o memory none /tmp && mkdir /tmp/inner && echo {limit} >/tmp/inner/memory.limit_in_bytes \
             && sh -c 'echo 0 >/tmp/inner/cgroup.procs; exec /payload --payload use_memory itself {size} exit' \
             </dev/null; echo $?; {end}"
        );
        let output = sh(&owning, &script);
        assert!(output.outcome.termination == Termination::Memory || !output.stdout.is_empty(), "{output:?}");
        (output.outcome.termination, text(&output.stdout))
    };
    let (verdict, said) = run("-1", 16, "exit 4");
    assert_eq!((verdict, said.as_str()), (Termination::Exited(4), "used\n0"));
    let (verdict, said) = run("8M", 16, "exit 4");
    assert_eq!((verdict, said.as_str()), (Termination::Exited(4), "137"), "a kill, for a limit of its own making");
    for end in ["exit 4", "rmdir /tmp/inner; exit 4"] {
        let (verdict, said) = run("-1", 64, end);
        assert_eq!(verdict, Termination::Memory, "for that of the sandbox: {said}");
    }
}
