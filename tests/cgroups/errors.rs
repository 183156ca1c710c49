//! What can't be had, and how it is said; and files that are written raw.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use stockade::{Cgroup, CgroupParent, Command, Error, IoMax, Layer, Root, Sandbox};

use crate::groups::{
    self, of_process, unless_accounts, unless_cpu, unless_cpuset, unless_hugetlb, unless_io, unless_limits,
};
use crate::support::{self, Test, invalid, refused, unless_idmapped_mounts, unless_root, unless_user};
use crate::tests;
use crate::{MS, group, sleeper, with};

pub const TESTS: &[Test] = tests![
    weights_out_of_range_are_refused,
    cpus_that_can_not_be_had_are_refused,
    lists_that_are_none_are_refused,
    lists_of_what_is_not_there_are_the_kernels_errors if unless_cpuset,
    raw_files_are_written if unless_limits,
    a_raw_file_comes_after_all_else if unless_limits,
    raw_files_of_no_controller_are_refused,
    raw_files_that_can_not_be_written_are_errors if unless_cpu,
    a_raw_value_that_the_kernel_refuses_is_an_error if unless_cpu_idle,
    an_io_weight_is_kept_or_named if unless_io,
    limits_of_what_is_no_block_device_are_refused,
    limits_of_a_block_device_are_set if unless_root_with_a_disk,
    buffered_writes_that_are_not_limited_are_reported if unless_root_with_a_writable_disk,
    no_limit_of_a_block_device_is_no_error if unless_root_with_a_disk,
    a_device_that_does_not_exist_is_refused_also_without_a_limit,
    nothing_from_a_block_device_is_refused if unless_a_disk,
    sizes_of_huge_pages_that_are_none_are_refused,
    a_size_of_huge_pages_that_the_kernel_has_not_is_named if unless_root_with_huge_pages,
    a_parent_that_does_not_exist_is_refused if unless_accounts,
    a_parent_that_one_hierarchy_lacks_is_named if unless_root_and_v1,
    a_parent_outside_of_the_hierarchies_gets_no_group if unless_accounts,
    a_cgroup_without_limits_that_can_not_be_made_is_an_error if unless_the_top_is_closed,
    a_parent_without_cpus_is_told_apart_from_one_without_permission if unless_root_and_a_cpuset_of_v1,
];

/// A configuration that is refused with words that contain these.
fn is_refused(cgroup: Cgroup, words: &[&str]) {
    let said = format!("{cgroup:?}");
    let (what, remedy) = invalid(&with(cgroup));
    words.iter().for_each(|word| assert!(what.contains(word), "{said}: {what}"));
    assert!(!remedy.is_empty(), "{said}: {what}");
}

/// A limit that the kernel refuses with words that contain these.
fn fails(cgroup: Cgroup, words: &[&str]) {
    let sandbox: Sandbox = with(cgroup);
    let error = refused(&sandbox);
    assert!(matches!(error, Error::SetUp { .. }), "{error:?}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
}

fn weights_out_of_range_are_refused() {
    for weight in [0, 10_001, u32::MAX] {
        is_refused(group().cpu_weight(weight), &["cpu_weight", &weight.to_string()]);
    }
    for weight in [0, 1001, u32::MAX] {
        is_refused(group().io_weight(weight), &["io_weight", &weight.to_string()]);
    }
}

fn cpus_that_can_not_be_had_are_refused() {
    for cpus in [0.0, -1.0, 0.001, 0.0099, 1e9, 1e10, f64::NAN, f64::INFINITY, f64::MAX] {
        is_refused(group().cpu_max(cpus), &["CPUs"]);
    }
    for period in [Duration::ZERO, 999 * MS / 1000, 1001 * MS, Duration::MAX] {
        is_refused(group().cpu_max_in(2.0, period), &["CPUs"]);
    }
}

fn lists_that_are_none_are_refused() {
    for list in ["", " ", "a", "0 1", "0\n", "0;1", "-1 ", "0-1:2", ",", "-"] {
        is_refused(group().cpuset_cpus(list), &["no list"]);
        is_refused(group().cpuset_mems(list), &["no list"]);
    }
}

fn lists_of_what_is_not_there_are_the_kernels_errors() {
    for list in ["9999", "1-0", "0-"] {
        fails(group().cpuset_cpus(list), &["cpuset_cpus", list]);
    }
    fails(group().cpuset_mems("63"), &["cpuset_mems", "63"]);
    let error = refused(&with(group().cpuset_cpus("9999"))).to_string();
    assert!(error.contains("those that"), "what to name: {error}");
}

/// A new cgroup of v1 in the hierarchy of a controller, which is removed when it is dropped.
struct New(PathBuf);

impl New {
    fn of(controller: &str) -> Self {
        let name = format!("stockade-test-new-{}", std::process::id());
        let directory = groups::hierarchy(controller).expect("a hierarchy").point.join(name);
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn parent(&self) -> CgroupParent {
        CgroupParent::Path(Path::new("/").join(self.0.file_name().expect("a name")))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn unless_root_and_a_cpuset_of_v1() -> Option<String> {
    let is_v2 = || (!groups::is_v1("cpuset")).then(|| "the cpuset controller is one of cgroup v2".into());
    unless_root().or_else(unless_cpuset).or_else(is_v2)
}

fn unless_the_top_is_closed() -> Option<String> {
    let points = groups::CONTROLLERS.iter().filter_map(|controller| Some(groups::hierarchy(controller)?.point));
    let is_open = |point: &PathBuf| access(point, AccessFlags::W_OK).is_ok();
    let mut open = points.filter(is_open);
    let may_make = || open.next().map(|point| format!("this user may make cgroups in {}", point.display()));
    unless_user().or_else(may_make).or_else(unless_accounts)
}

fn a_cgroup_without_limits_that_can_not_be_made_is_an_error() {
    let cgroup = Cgroup::new().parent(CgroupParent::Path("/".into()));
    is_refused(cgroup, &["accounting can't be kept", "may make no cgroup in"]);
}

fn a_parent_without_cpus_is_told_apart_from_one_without_permission() {
    let new = New::of("cpuset");
    for cgroup in [Cgroup::new().cpuset_cpus("0"), Cgroup::new().cpuset_mems("0")] {
        fails(cgroup.parent(new.parent()), &["cpuset_", "EACCES", "those that the cgroup above has", "empty"]);
    }
    let top = new.0.parent().expect("the hierarchy");
    let cpus = fs::read_to_string(top.join("cpuset.cpus")).unwrap();
    fs::write(new.0.join("cpuset.cpus"), cpus.trim()).unwrap();
    let cgroup = Cgroup::new().cpuset_cpus(cpus.trim()).parent(new.parent());
    fails(cgroup, &["entering the cgroup", "ENOSPC", "cpuset.mems"]);
}

/// What a file of a program's group says.
fn written(cgroup: Cgroup, controller: &str, file: &str) -> String {
    let child = sleeper(&with(cgroup));
    groups::read(&of_process(child.id(), controller), file)
}

/// The file of the share of CPU time, and what a new group has there.
fn shares() -> (&'static str, &'static str) {
    if groups::is_v1("cpu") { ("cpu.shares", "1024") } else { ("cpu.weight", "100") }
}

fn raw_files_are_written() {
    let (shares, default) = shares();
    assert_eq!(written(group(), "cpu", shares), default);
    assert_eq!(written(group().raw(shares, "512"), "cpu", shares), "512");
    let soft = groups::file("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(written(group().raw(soft, "16777216"), "memory", soft), "16777216");
}

fn a_raw_file_comes_after_all_else() {
    let (shares, _) = shares();
    let both = group().raw(shares, "512").cpu_weight(300);
    assert_eq!(written(both, "cpu", shares), "512");
    let twice = group().raw(shares, "512").raw(shares, "600");
    assert_eq!(written(twice, "cpu", shares), "600");
}

fn raw_files_of_no_controller_are_refused() {
    for file in
        ["quantum.entangled", "", "tasks", "cgroup.procs", "cpu.shares/../tasks", "../cpu.shares", "/cpu.shares"]
    {
        is_refused(group().raw(file, "1"), &[file]);
    }
}

fn raw_files_that_can_not_be_written_are_errors() {
    fails(group().raw("cpu.no_such_file", "1"), &["cpu.no_such_file", "ENOENT"]);
    fails(group().raw("cpu.stat", "1"), &["cpu.stat"]);
}

fn unless_cpu_idle() -> Option<String> {
    unless_cpu().or_else(|| (support::kernel() < (5, 15)).then(|| "cpu.idle exists since Linux 5.15".into()))
}

fn a_raw_value_that_the_kernel_refuses_is_an_error() {
    fails(group().cpu_max(0.5).raw("cpu.idle", "a lot"), &["cpu.idle", "a lot", "EINVAL"]);
}

fn an_io_weight_is_kept_or_named() {
    for weight in [1, 100, 1000] {
        match with(group().io_weight(weight)).status(Command::new("true")) {
            Ok(outcome) => assert!(outcome.success(), "{outcome}"),
            Err(error) => assert!(error.to_string().contains("io_weight"), "{error}"),
        }
    }
}

/// A device that is a disk, by number and node.
pub fn disk() -> Option<(String, PathBuf)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    disks
        .filter_map(|entry| {
            let node = Path::new("/dev").join(entry.file_name());
            let number = fs::read_to_string(entry.path().join("dev")).ok()?.trim().to_owned();
            let has_size = fs::read_to_string(entry.path().join("size")).ok()?.trim() != "0";
            (has_size && node.exists()).then_some((number, node))
        })
        .next()
}

fn unless_root_with_a_disk() -> Option<String> {
    unless_root().or_else(unless_limits).or_else(unless_io).or_else(unless_a_disk)
}

/// A directory on it is bound writable.
fn unless_root_with_a_writable_disk() -> Option<String> {
    unless_root_with_a_disk().or_else(unless_idmapped_mounts)
}

pub fn unless_a_disk() -> Option<String> {
    disk().is_none().then(|| "this host has no disk".to_owned())
}

fn limits_of_what_is_no_block_device_are_refused() {
    let max = IoMax { read_bytes: Some(1 << 20), ..IoMax::default() };
    for path in ["/dev/null", "/etc/passwd", "/etc", "/no/such/device", ""] {
        is_refused(group().io_max(path, max.clone()), &[path, "no block device"]);
    }
}

fn limits_of_a_block_device_are_set() {
    let (number, node) = disk().unwrap();
    let max = IoMax { read_bytes: Some(1 << 20), write_operations: Some(100), ..IoMax::default() };
    let limited = || group().io_max(&node, max.clone());
    if !groups::is_v1("blkio") {
        let said = written(limited(), "io", "io.max");
        assert_eq!(said, format!("{number} rbps=1048576 wbps=max riops=max wiops=100"));
        return;
    }
    for (file, value) in [
        ("blkio.throttle.read_bps_device", format!("{number} 1048576")),
        ("blkio.throttle.write_iops_device", format!("{number} 100")),
        ("blkio.throttle.write_bps_device", String::new()),
    ] {
        assert_eq!(written(limited(), "blkio", file), value, "{file}");
    }
}

/// Attack 71: what a program writes goes through the page cache.
fn buffered_writes_that_are_not_limited_are_reported() {
    const MIB: u64 = 1 << 20;
    let (number, node) = disk().unwrap();
    let run = |max: IoMax, program: &mut Command, dir: &Path| {
        let sandbox = with(group().io_max(&node, max)).root(Root::host().bind_rw(dir, dir));
        sandbox.status(program).expect("a sandbox")
    };
    let dir = tempfile::tempdir().expect("a directory");
    let reads = IoMax { read_bytes: Some(MIB), ..IoMax::default() };
    assert_eq!(run(reads, &mut Command::new("true"), dir.path()).enforced.lost, vec![]);
    let writes = IoMax { write_bytes: Some(MIB), ..IoMax::default() };
    if !groups::is_v1("blkio") {
        assert_eq!(run(writes.clone(), &mut Command::new("true"), dir.path()).enforced.lost, vec![]);
        let child = sleeper(&with(group().io_max(&node, writes)));
        assert!(of_process(child.id(), "io").join("memory.max").exists(), "memory is counted beside it");
        return;
    }
    let file = dir.path().join("file");
    let mut copy = Command::new("sh");
    copy.args(["-c", &format!("head -c {} /dev/zero >{}", 20 * MIB, file.display())]);
    let outcome = run(writes, &mut copy, dir.path());
    assert!(outcome.success(), "{outcome}");
    assert!(
        outcome.usage.wall < Duration::from_secs(10),
        "{number} is not limited: 20 MiB took {:?}",
        outcome.usage.wall
    );
    let [lost] = &outcome.enforced.lost[..] else { panic!("{:?}", outcome.enforced.lost) };
    assert_eq!(lost.layer, Layer::Cgroup);
    assert!(lost.why.contains("page cache") && !outcome.enforced.has(Layer::Cgroup), "{}", lost.why);
}

fn no_limit_of_a_block_device_is_no_error() {
    let (_, node) = disk().unwrap();
    let outcome = with(group().io_max(&node, IoMax::default())).status(Command::new("true"));
    assert!(outcome.as_ref().is_ok_and(|outcome| outcome.success()), "{outcome:?}");
}

fn a_device_that_does_not_exist_is_refused_also_without_a_limit() {
    for max in [IoMax::default(), IoMax { read_bytes: Some(1), ..IoMax::default() }] {
        let (what, _) = crate::support::invalid(&with(group().io_max("/dev/nope", max)));
        assert!(what.contains("/dev/nope is no block device"), "{what}");
    }
}

/// cgroup v1 would take 0 for no limit at all.
fn nothing_from_a_block_device_is_refused() {
    let (_, node) = disk().unwrap();
    let nothing = Some(0);
    for max in [
        IoMax { read_bytes: nothing, ..IoMax::default() },
        IoMax { write_bytes: nothing, read_bytes: Some(1), ..IoMax::default() },
        IoMax { read_operations: nothing, ..IoMax::default() },
        IoMax { write_operations: nothing, ..IoMax::default() },
    ] {
        is_refused(group().io_max(&node, max), &["nothing in a second", node.to_str().unwrap()]);
    }
}

fn sizes_of_huge_pages_that_are_none_are_refused() {
    for size in ["", "2 MB", "../2MB", "2MB.max/"] {
        is_refused(group().hugetlb_max(size, 0), &["huge pages"]);
    }
}

fn unless_root_with_huge_pages() -> Option<String> {
    unless_root().or_else(unless_hugetlb)
}

fn a_size_of_huge_pages_that_the_kernel_has_not_is_named() {
    fails(group().hugetlb_max("3MB", 0), &["hugetlb_max", "hugetlb.3MB", "ENOENT", "/sys/kernel/mm/hugepages"]);
}

fn a_parent_that_does_not_exist_is_refused() {
    let parent = CgroupParent::Path("no/such/parent".into());
    is_refused(Cgroup::new().parent(parent.clone()).pids_max(10), &["no/such/parent", "no hierarchy has it"]);
    // Without a limit too, and where the sandbox may do without a cgroup.
    for path in ["", "/sys/fs/cgroup/memory"] {
        let cgroup = Cgroup::new().parent(CgroupParent::Path(path.into()));
        is_refused(cgroup.pids_max(10), &[path, "can't be the parent"]);
    }
    for sandbox in [Sandbox::new(), Sandbox::new().best_effort([stockade::Layer::Cgroup])] {
        let error = refused(&sandbox.cgroup(Cgroup::new().parent(parent.clone())));
        assert!(error.to_string().contains("no hierarchy has it"), "{error}");
    }
}

fn a_parent_outside_of_the_hierarchies_gets_no_group() {
    let outside = crate::support::shared_dir();
    let up = "../".repeat(8) + outside.path().to_str().unwrap();
    let error = refused(&with(Cgroup::new().parent(CgroupParent::Path(up.into())).pids_max(10)));
    assert!(matches!(error, Error::Invalid { .. } | Error::SetUp { .. }), "{error}");
    let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn unless_root_and_v1() -> Option<String> {
    unless_root().or_else(groups::unless_v1)
}

/// What a spawn says below a new group that one hierarchy alone has.
fn refusal_below(controller: &str, limit: impl FnOnce(Cgroup) -> Cgroup) -> String {
    let place = groups::place(controller).expect("a place").join(format!("bare-{}", std::process::id()));
    fs::create_dir(&place).expect("a group");
    let name = place.strip_prefix(groups::hierarchy(controller).expect("a hierarchy").point).expect("a path");
    let parent = CgroupParent::Path(name.to_owned());
    let result = with(limit(Cgroup::new().parent(parent))).status(crate::quiet("true"));
    fs::remove_dir(&place).expect("it is empty");
    result.expect_err("a refusal").to_string()
}

fn a_parent_that_one_hierarchy_lacks_is_named() {
    let said = refusal_below("pids", |cgroup| cgroup.pids_max(10).memory_max(64 << 20));
    assert!(said.starts_with("memory_max can't be kept: there is no cgroup /"), "{said}");
    assert!(said.contains("create it in this hierarchy too"), "{said}");
}
