//! Automount points (autofs): a file system is mounted when a process accesses the path, by a daemon that may fail or
//! not answer.

use super::simulated::SimulatedHost;

/// A daemon that fails, and one that does not answer, as shell commands. They fail if an access to an automount point
/// does not end accordingly.
const DAEMONS: [&str; 2] = [
    "exec 8>&-; ! setsid -w ls boot/ 2>/dev/null",
    "code=0; setsid -w timeout -s KILL 1 ls boot/ || code=$?; [ $code = 137 ]",
];

/// Hosts with automount points at the top and in a directory that is bound, and at `others`.
fn hosts(others: &str) -> [SimulatedHost; 2] {
    DAEMONS.map(|daemon| {
        let script = format!(
            "mkdir boot; mount -t tmpfs -o mode=755 tmpfs opt; mkfifo /mnt/pipe; exec 8<>/mnt/pipe 9>/mnt/pipe
            for place in boot opt/auto {others}; do
                mkdir -p $place; mount -t autofs -o fd=9,minproto=5,maxproto=5,direct auto $place
            done
            exec 9>&-; {daemon}"
        );
        // A process of the daemon's process group triggers nothing.
        SimulatedHost::with_root(&["boot"], &script).by("setsid -w")
    })
}

/// Finding H1.
#[apply(test)]
#[only(Root)]
fn nothing_is_mounted_automatically() {
    for host in hosts("") {
        host.assert_works();
    }
}

/// Finding H1.
#[apply(test)]
#[only(Root)]
fn nothing_is_mounted_automatically_for_a_user() {
    for host in hosts("mnt/work/auto") {
        host.of_user().assert_works();
    }
}
