//! What a program sees of its limits. What it sees of other cgroups is in `hosts/cgroup_view`.

use stockade::{Identity, Sandbox};

use crate::cgroups::groups::unless_v2;
use crate::cgroups::{group, with};
use crate::support::{is_root, stdout};

/// The program of an ordinary user, or with the caller's identity, is in a cgroup below the one with the limits, which has
/// them too, on memory 1 MiB more.
#[apply(test)]
#[skip(unless_v2)]
fn the_program_sees_its_limits_whoever_owns_the_cgroup() {
    let limited = with(group().memory_max(64 << 20).pids_max(50).cpu_max(0.5));
    let script = "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max";
    let sees = |sandbox: &Sandbox| stdout(sandbox, script);
    let (own, above) = ("68157440\n50\n50000 100000", "67108864\n50\n50000 100000");
    assert_eq!(sees(&limited), if is_root() { above } else { own });
    assert_eq!(sees(&limited.identity(Identity::caller())), own);
}
