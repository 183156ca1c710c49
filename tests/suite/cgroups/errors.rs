//! Limits that cannot be enforced, with their errors, and files that are written raw.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use stockade::cgroup::{CgroupParent, IoMax};
use stockade::{Cgroup, Command, ErrorKind, Layer, Root, Sandbox};

use crate::cgroups::groups::{
    self, of_process, unless_accounts, unless_cpu, unless_cpuset, unless_hugetlb, unless_io, unless_limits,
};
use crate::cgroups::{MS, group, sleeper, with};
use crate::support::{self, invalid, refused, unless_idmapped_mounts, unless_root, unless_user};

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
    assert_eq!(error.kind(), ErrorKind::SetupFailed, "{error:?}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}"));
}

#[apply(test)]
fn weights_out_of_range_are_refused() {
    for weight in [0, 10_001, u32::MAX] {
        is_refused(group().cpu_weight(weight), &["cpu_weight", &weight.to_string()]);
    }
    for weight in [0, 1001, u32::MAX] {
        is_refused(group().io_weight(weight), &["io_weight", &weight.to_string()]);
    }
}

#[apply(test)]
fn invalid_numbers_of_cpus_are_refused() {
    for cpus in [0.0, -1.0, 0.001, 0.0099, 1e9, 1e10, f64::NAN, f64::INFINITY, f64::MAX] {
        is_refused(group().cpu_max(cpus), &["CPUs"]);
    }
    for period in [Duration::ZERO, 999 * MS / 1000, 1001 * MS, Duration::MAX] {
        is_refused(group().cpu_max_in(2.0, period), &["CPUs"]);
    }
}

#[apply(test)]
fn malformed_lists_are_refused() {
    for list in ["", " ", "a", "0 1", "0\n", "0;1", "-1 ", "0-1:2", ",", "-"] {
        is_refused(group().cpuset_cpus(list), &["not a list"]);
        is_refused(group().cpuset_mems(list), &["not a list"]);
    }
}

#[apply(test)]
#[skip(unless_cpuset)]
fn lists_of_missing_cpus_are_kernel_errors() {
    for list in ["9999", "1-0", "0-"] {
        fails(group().cpuset_cpus(list), &["cpuset_cpus", list]);
    }
    fails(group().cpuset_mems("63"), &["cpuset_mems", "63"]);
    let error = refused(&with(group().cpuset_cpus("9999"))).to_string();
    assert!(error.contains("a subset"), "what to name: {error}");
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

#[apply(test)]
#[only(User)]
#[skip(unless_the_top_is_closed)]
fn a_cgroup_without_limits_that_cannot_be_created_is_an_error() {
    let cgroup = Cgroup::new().parent(CgroupParent::Path("/".into()));
    is_refused(cgroup, &["accounting cannot be enforced", "may not create a cgroup in"]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_a_cpuset_of_v1)]
fn a_parent_without_cpus_is_distinguished_from_one_without_permission() {
    let new = New::of("cpuset");
    for cgroup in [Cgroup::new().cpuset_cpus("0"), Cgroup::new().cpuset_mems("0")] {
        fails(cgroup.parent(new.parent()), &["cpuset_", "EACCES", "a subset of those of the parent", "empty"]);
    }
    let top = new.0.parent().expect("the hierarchy");
    let cpus = fs::read_to_string(top.join("cpuset.cpus")).unwrap();
    fs::write(new.0.join("cpuset.cpus"), cpus.trim()).unwrap();
    let cgroup = Cgroup::new().cpuset_cpus(cpus.trim()).parent(new.parent());
    fails(cgroup, &["enter the cgroup", "ENOSPC", "cpuset.mems"]);
}

/// What a file of a program's group says.
fn written(cgroup: Cgroup, controller: &str, file: &str) -> String {
    let child = sleeper(&with(cgroup));
    groups::read(&of_process(child.pid().number(), controller), file)
}

/// The file of the share of CPU time, and what a new group has there.
fn shares() -> (&'static str, &'static str) {
    if groups::is_v1("cpu") { ("cpu.shares", "1024") } else { ("cpu.weight", "100") }
}

#[apply(test)]
#[skip(unless_limits)]
fn raw_files_are_written() {
    let (shares, default) = shares();
    assert_eq!(written(group(), "cpu", shares), default);
    assert_eq!(written(group().raw(shares, "512"), "cpu", shares), "512");
    let soft = groups::file("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(written(group().raw(soft, "16777216"), "memory", soft), "16777216");
}

#[apply(test)]
#[skip(unless_limits)]
fn raw_files_are_written_last() {
    let (shares, _) = shares();
    let both = group().raw(shares, "512").cpu_weight(300);
    assert_eq!(written(both, "cpu", shares), "512");
    let twice = group().raw(shares, "512").raw(shares, "600");
    assert_eq!(written(twice, "cpu", shares), "600");
}

#[apply(test)]
fn raw_files_of_no_controller_are_refused() {
    for file in
        ["quantum.entangled", "", "tasks", "cgroup.procs", "cpu.shares/../tasks", "../cpu.shares", "/cpu.shares"]
    {
        is_refused(group().raw(file, "1"), &[file]);
    }
}

#[apply(test)]
#[skip(unless_cpu)]
fn raw_files_that_cannot_be_written_are_errors() {
    fails(group().raw("cpu.no_such_file", "1"), &["cpu.no_such_file", "ENOENT"]);
    fails(group().raw("cpu.stat", "1"), &["cpu.stat"]);
}

fn unless_cpu_idle() -> Option<String> {
    unless_cpu().or_else(|| (support::kernel() < (5, 15)).then(|| "cpu.idle exists since Linux 5.15".into()))
}

#[apply(test)]
#[skip(unless_cpu_idle)]
fn a_raw_value_that_the_kernel_rejects_is_an_error() {
    fails(group().cpu_max(0.5).raw("cpu.idle", "a lot"), &["cpu.idle", "a lot", "EINVAL"]);
}

#[apply(test)]
#[skip(unless_io)]
fn an_io_weight_is_applied_or_the_error_names_it() {
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

pub fn unless_root_with_a_disk() -> Option<String> {
    unless_root().or_else(unless_limits).or_else(unless_io).or_else(unless_a_disk)
}

/// A directory on it is bound writable.
fn unless_root_with_a_writable_disk() -> Option<String> {
    unless_root_with_a_disk().or_else(unless_idmapped_mounts)
}

pub fn unless_a_disk() -> Option<String> {
    disk().is_none().then(|| "this host has no disk".to_owned())
}

#[apply(test)]
fn limits_of_non_block_devices_are_refused() {
    let max = IoMax::new().read_bytes(1 << 20);
    for path in ["/dev/null", "/etc/passwd", "/etc", "/no/such/device", ""] {
        is_refused(group().io_max(path, max.clone()), &[path, "not a block device"]);
    }
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_a_disk)]
fn limits_of_a_block_device_are_set() {
    let (number, node) = disk().unwrap();
    let max = IoMax::new().read_bytes(1 << 20).write_operations(100);
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
#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_a_writable_disk)]
fn buffered_writes_that_are_not_limited_are_reported() {
    const MIB: u64 = 1 << 20;
    let (number, node) = disk().unwrap();
    let run = |max: IoMax, program: &mut Command, dir: &Path| {
        let sandbox = with(group().io_max(&node, max)).root(Root::host().bind_rw(dir, dir));
        sandbox.status(program).expect("a sandbox")
    };
    let dir = tempfile::tempdir().expect("a directory");
    let reads = IoMax::new().read_bytes(MIB);
    assert_eq!(run(reads, &mut Command::new("true"), dir.path()).enforcement.unenforced, vec![]);
    let writes = IoMax::new().write_bytes(MIB);
    if !groups::is_v1("blkio") {
        assert_eq!(run(writes.clone(), &mut Command::new("true"), dir.path()).enforcement.unenforced, vec![]);
        let child = sleeper(&with(group().io_max(&node, writes)));
        assert!(of_process(child.pid().number(), "io").join("memory.max").exists(), "memory is counted beside it");
        return;
    }
    let file = dir.path().join("file");
    let mut copy = Command::new("sh");
    copy.args(["-c", &format!("head -c {} /dev/zero >{}", 20 * MIB, file.display())]);
    let outcome = run(writes, &mut copy, dir.path());
    assert!(outcome.success(), "{outcome}");
    assert!(
        outcome.usage.wall_time < Duration::from_secs(10),
        "{number} is not limited: 20 MiB took {:?}",
        outcome.usage.wall_time
    );
    let [lost] = &outcome.enforcement.unenforced[..] else { panic!("{:?}", outcome.enforcement.unenforced) };
    assert_eq!(lost.layer, Layer::Cgroup);
    assert!(lost.reason.contains("page cache") && !outcome.enforcement.is_active(Layer::Cgroup), "{}", lost.reason);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_a_disk)]
fn no_limit_of_a_block_device_is_no_error() {
    let (_, node) = disk().unwrap();
    let outcome = with(group().io_max(&node, IoMax::new())).status(Command::new("true"));
    assert!(outcome.as_ref().is_ok_and(|outcome| outcome.success()), "{outcome:?}");
}

#[apply(test)]
fn a_device_that_does_not_exist_is_refused_also_without_a_limit() {
    for max in [IoMax::new(), IoMax::new().read_bytes(1)] {
        let (what, _) = crate::support::invalid(&with(group().io_max("/dev/nope", max)));
        assert!(what.contains("/dev/nope is not a block device"), "{what}");
    }
}

/// cgroup v1 would take 0 for no limit at all.
#[apply(test)]
#[skip(unless_a_disk)]
fn an_io_limit_of_zero_is_refused() {
    let (_, node) = disk().unwrap();
    for max in [
        IoMax::new().read_bytes(0),
        IoMax::new().write_bytes(0).read_bytes(1),
        IoMax::new().read_operations(0),
        IoMax::new().write_operations(0),
    ] {
        is_refused(group().io_max(&node, max), &["0 per second", node.to_str().unwrap()]);
    }
}

#[apply(test)]
fn malformed_huge_page_sizes_are_refused() {
    for size in ["", "2 MB", "../2MB", "2MB.max/"] {
        is_refused(group().hugetlb_max(size, 0), &["huge pages"]);
    }
}

fn unless_root_with_huge_pages() -> Option<String> {
    unless_root().or_else(unless_hugetlb)
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_huge_pages)]
fn the_error_names_an_unsupported_huge_page_size() {
    fails(group().hugetlb_max("3MB", 0), &["hugetlb_max", "hugetlb.3MB", "ENOENT", "/sys/kernel/mm/hugepages"]);
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_parent_that_does_not_exist_is_refused() {
    let parent = CgroupParent::Path("no/such/parent".into());
    is_refused(
        Cgroup::new().parent(parent.clone()).pids_max(10),
        &["no/such/parent", "does not exist in any hierarchy"],
    );
    // Without a limit too, and where the sandbox may do without a cgroup.
    for path in ["", "/sys/fs/cgroup/memory"] {
        let cgroup = Cgroup::new().parent(CgroupParent::Path(path.into()));
        is_refused(cgroup.pids_max(10), &[path, "cannot be the parent"]);
    }
    for sandbox in [Sandbox::new(), Sandbox::new().best_effort([stockade::Layer::Cgroup])] {
        let error = refused(&sandbox.cgroup(Cgroup::new().parent(parent.clone())));
        assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
        assert!(error.to_string().contains("does not exist in any hierarchy"), "{error}");
    }
}

#[apply(test)]
#[skip(unless_accounts)]
fn a_parent_outside_of_the_hierarchies_gets_no_group() {
    let outside = crate::support::shared_dir();
    let up = "../".repeat(8) + outside.path().to_str().unwrap();
    let error = refused(&with(Cgroup::new().parent(CgroupParent::Path(up.into())).pids_max(10)));
    assert!(support::is_invalid(&error) || support::is_set_up(&error), "{error}");
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
    let result = with(limit(Cgroup::new().parent(parent))).status(crate::cgroups::quiet("true"));
    fs::remove_dir(&place).expect("it is empty");
    result.expect_err("a refusal").to_string()
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_v1)]
fn the_error_names_the_hierarchy_that_lacks_the_parent() {
    let said = refusal_below("pids", |cgroup| cgroup.pids_max(10).memory_max(64 << 20));
    assert!(said.starts_with("memory_max cannot be enforced: the cgroup /"), "{said}");
    assert!(said.contains("create it in this hierarchy too"), "{said}");
}
