//! The user and group IDs of a program, inside and on the host, and the owners of the files that it reads and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command as Host;

use crate::support::{
    self, USER, fails, in_mount_namespace, invalid, is_root, on_host, refused, shared_dir, stdout, text,
    unless_idmapped_mounts, unless_mounts, unless_root, unless_user,
};
use nix::unistd::{Uid, User, getegid, geteuid};
use stockade::identity::IdRange;
use stockade::mount::{Bind, Tmpfs};
use stockade::{Child, Command, ErrorKind, Identity, Namespaces, Root, Sandbox, Stdio};

payloads![
    ("sub-ids-of-root", sub_ids_of_root),
    ("no-sub-ids", no_sub_ids),
    ("no-newuidmap", no_newuidmap),
    ("container", container),
    ("container-of-root", container_of_root),
    ("no-idmapped-mounts", no_idmapped_mounts),
];

/// The host ids that a root host gives away by default.
const GIVEN_AWAY: std::ops::Range<u32> = 0x7000_0000..0x7f00_0000;

fn with(identity: Identity) -> Sandbox {
    Sandbox::new().identity(identity)
}

/// A sandbox that a root host makes without a user namespace.
fn without_user_namespace() -> Sandbox {
    Sandbox::new().namespaces(Namespaces::all() - Namespaces::USER - Namespaces::TIME)
}

/// A program that runs until it is dropped.
fn running(sandbox: &Sandbox) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = sandbox.spawn(command).expect("sandbox");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("pipe")).read_line(&mut line).expect("first line");
    child
}

/// Real, effective, saved and file system ids and the groups of a process, as the host sees them.
#[derive(Debug, PartialEq)]
struct OnHost {
    uid: Vec<u32>,
    gid: Vec<u32>,
    groups: Vec<u32>,
}

fn host_ids(pid: u32) -> OnHost {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status of a process");
    let fields: BTreeMap<&str, Vec<u32>> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, values)| (name, values.split_whitespace().filter_map(|value| value.parse().ok()).collect()))
        .collect();
    OnHost { uid: fields["Uid"].clone(), gid: fields["Gid"].clone(), groups: fields["Groups"].clone() }
}

/// The host ids of the program of a sandbox.
fn ids_on_host(sandbox: &Sandbox) -> OnHost {
    host_ids(running(sandbox).pid().number())
}

/// User and group id of a program on the host, if all four of each are the same.
fn id_pair(ids: &OnHost) -> (u32, u32) {
    assert_eq!((&ids.uid, &ids.gid), (&vec![ids.uid[0]; 4], &vec![ids.gid[0]; 4]));
    (ids.uid[0], ids.gid[0])
}

fn ids_inside(sandbox: &Sandbox) -> String {
    stdout(sandbox, "echo $(id -u) $(id -g)")
}

fn caller() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

fn range(inside: u32, outside: u32, count: u32) -> IdRange {
    IdRange::new(inside, outside, count)
}

#[apply(test)]
#[only(Root)]
fn a_root_caller_gives_each_sandbox_ids_of_its_own() {
    assert_eq!(ids_inside(&Sandbox::new()), "1000 1000");
    let living: Vec<Child> = (0..8).map(|_| running(&Sandbox::new())).collect();
    let mut seen = BTreeSet::new();
    for child in &living {
        let ids = host_ids(child.pid().number());
        let (uid, gid) = id_pair(&ids);
        assert!(GIVEN_AWAY.contains(&uid) && GIVEN_AWAY.contains(&gid), "{ids:?}");
        assert_eq!(ids.groups, [0; 0]);
        assert!(seen.insert(uid), "two sandboxes are user {uid}");
    }
}

/// A reason to skip what root does without a user namespace.
fn unless_root_can_pivot() -> Option<String> {
    unless_root().or_else(support::unless_pivot_root)
}

fn unless_root_can_pivot_and_has_idmapped_mounts() -> Option<String> {
    unless_root_with_idmapped_mounts().or_else(support::unless_pivot_root)
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_can_pivot)]
fn nothing_in_a_sandbox_is_the_hosts_root() {
    for sandbox in [Sandbox::new(), with(Identity::new().uid(0).gid(0)), without_user_namespace()] {
        let child = running(&sandbox);
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let its_own = namespace(&child.pid().number().to_string());
        assert_ne!(its_own, namespace("self"));
        let inside: Vec<u32> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|pid| pid.parse::<u32>().is_ok() && namespace(pid) == its_own)
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(inside.len(), 2, "the init and the program");
        for pid in inside {
            let (uid, gid) = id_pair(&host_ids(pid));
            assert!(uid != 0 && gid != 0, "process {pid} is host user {uid} and group {gid}");
        }
    }
}

#[apply(test)]
#[only(User)]
fn an_ordinary_user_stays_itself() {
    assert_eq!(ids_inside(&Sandbox::new()), format!("{} {}", caller().0, caller().1));
    assert_eq!(id_pair(&ids_on_host(&Sandbox::new())), caller());
}

#[apply(test)]
fn a_program_can_have_any_ids_inside() {
    for (uid, gid) in [(0, 0), (1, 2), (0, 100), (65534, 65534), (123_456, 654_321), (u32::MAX - 1, u32::MAX - 1)] {
        let sandbox = with(Identity::new().uid(uid).gid(gid));
        assert_eq!(ids_inside(&sandbox), format!("{uid} {gid}"));
        let outside = id_pair(&ids_on_host(&sandbox));
        if is_root() {
            assert!(GIVEN_AWAY.contains(&outside.0) && GIVEN_AWAY.contains(&outside.1), "{outside:?}");
        } else {
            assert_eq!(outside, caller());
        }
    }
}

#[apply(test)]
fn root_inside_has_no_capabilities() {
    let powers = ["hostname powerful", "mount -t tmpfs none /tmp", "/usr/sbin/chroot / true"];
    // A root with capabilities of its own can, whoever it is outside.
    if unless_mounts().is_none() {
        let output = Host::new("unshare").args(["-Urmu", "sh", "-ec", &powers.join("; ")]).output().expect("unshare");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let root = with(Identity::new().uid(0).gid(0));
    let sets = stdout(&root, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
    let none: Vec<String> = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:\t{:016}", 0)).to_vec();
    assert_eq!(sets, format!("{}\nNoNewPrivs:\t1", none.join("\n")));
    for power in powers {
        fails(&root, power);
    }
}

#[apply(test)]
fn the_caller_is_the_same_user_on_the_host() {
    let same = with(Identity::caller());
    assert_eq!(id_pair(&ids_on_host(&same)), caller());
    let inside = with(Identity::caller().uid(7).gid(8));
    assert_eq!((ids_inside(&inside), id_pair(&ids_on_host(&inside))), ("7 8".into(), caller()));
    assert_eq!(stdout(&same, "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000");
}

/// The id maps of a sandbox as it sees them: without blanks that align them.
fn maps_inside(sandbox: &Sandbox) -> [Vec<String>; 2] {
    ["uid_map", "gid_map"].map(|map| {
        let lines = stdout(sandbox, &format!("cat /proc/self/{map}"));
        lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    })
}

#[apply(test)]
#[only(Root)]
fn id_maps_are_as_configured() {
    let uids = [range(0, 300_000, 10), range(1000, 400_000, 1)];
    let gids = [range(5, 500_000, 100)];
    let mapped = with(Identity::new().maps(uids, gids));
    assert_eq!(maps_inside(&mapped), [vec!["0 300000 10", "1000 400000 1"], vec!["5 500000 100"]]);
    assert_eq!(ids_inside(&mapped), "0 5", "the first ids of the maps are the default");
    assert_eq!(id_pair(&ids_on_host(&mapped)), (300_000, 500_000));
    let chosen = with(Identity::new().maps(uids, gids).uid(1000).gid(104));
    assert_eq!(id_pair(&ids_on_host(&chosen)), (400_000, 500_099));
    let with_the_callers = [range(0, 0, 1), range(5, 300_000, 1)];
    let other = with(Identity::new().maps(with_the_callers, with_the_callers).uid(5).gid(5));
    assert_eq!(id_pair(&ids_on_host(&other)), (300_000, 300_000));
}

/// The first range of a file of sub-ids for this user.
fn sub_ids(file: &str) -> Option<(u32, u32)> {
    let name = User::from_uid(geteuid()).ok()??.name;
    let number = geteuid().to_string();
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [owner, first, count] = fields[..] else { return None };
        (owner == name || owner == number).then_some((first.parse().ok()?, count.parse().ok()?))
    })
}

fn unless_sub_ids() -> Option<String> {
    if is_root() {
        return unless_user();
    }
    if Host::new("newuidmap").output().is_err() {
        return Some("there is no newuidmap (package uidmap)".into());
    }
    ["/etc/subuid", "/etc/subgid"].into_iter().find_map(|file| match sub_ids(file) {
        Some((_, count)) if count >= 1000 => None,
        _ => Some(format!(
            "{file} gives user {USER} no 1000 ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 NAME"
        )),
    })
}

fn unless_root_with_idmapped_mounts() -> Option<String> {
    unless_root().or_else(unless_idmapped_mounts)
}

fn unless_root_with_mounts_of_both_kinds() -> Option<String> {
    unless_root_with_idmapped_mounts().or_else(unless_mounts)
}

fn unless_root_and_mounts() -> Option<String> {
    unless_root().or_else(unless_mounts)
}

fn unless_user_and_mounts() -> Option<String> {
    unless_user().or_else(unless_mounts)
}

fn unless_sub_ids_and_mounts() -> Option<String> {
    unless_sub_ids().or_else(unless_mounts)
}

#[apply(test)]
#[only(User)]
#[skip(unless_sub_ids)]
fn an_ordinary_user_maps_its_sub_ids() {
    let ((uid, gid), (first_uid, _), (first_gid, _)) =
        (caller(), sub_ids("/etc/subuid").unwrap(), sub_ids("/etc/subgid").unwrap());
    let uids = [range(0, uid, 1), range(1, first_uid, 10)];
    let gids = [range(0, gid, 1), range(100, first_gid, 5)];
    let mapped = with(Identity::new().maps(uids, gids).uid(3).gid(104));
    let [uid_map, gid_map] = maps_inside(&mapped);
    assert_eq!(uid_map, [format!("0 {uid} 1"), format!("1 {first_uid} 10")]);
    assert_eq!(gid_map, [format!("0 {gid} 1"), format!("100 {first_gid} 5")]);
    assert_eq!(id_pair(&ids_on_host(&mapped)), (first_uid + 2, first_gid + 4));
    // Nobody was given the host's root.
    let error = refused(&with(Identity::new().maps([range(0, 0, 1)], gids)));
    assert!(error.to_string().contains("newuidmap"), "{error}");
    assert!(error.hint().is_some_and(|remedy| remedy.contains("/etc/subuid")), "{error}");
}

#[apply(test)]
fn unmapped_ids_are_an_error() {
    let maps = Identity::new().maps([range(0, 300_000, 10)], [range(0, 300_000, 10)]);
    for (identity, who) in [(maps.clone().uid(10), "user ID 10"), (maps.gid(11), "group ID 11")] {
        let (what, remedy) = invalid(&with(identity));
        assert_eq!(what, format!("the program's {who} is not in the map of the sandbox"));
        assert!(remedy.contains("Identity::maps"), "{remedy}");
    }
}

#[apply(test)]
fn the_number_that_is_no_id_is_refused_everywhere() {
    let none = u32::MAX;
    for identity in [Identity::new().uid(none), Identity::new().gid(none), Identity::new().groups([none])] {
        // Where setresuid(2) is given this number, the program of root stays root.
        let bare = is_root().then(|| without_user_namespace().identity(identity.clone()));
        for sandbox in [with(identity)].into_iter().chain(bare) {
            let error = sandbox.status(Command::new("true")).expect_err("no ID");
            assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
            assert!(error.to_string().contains("4294967295 is not a user or group ID"), "{error}");
        }
    }
}

#[apply(test)]
fn maps_that_the_kernel_refuses_are_invalid() {
    let one = || vec![range(5, 5, 1)];
    let wrong = [
        vec![range(5, 5, 1), range(9, 9, 0)],
        vec![range(5, 5, 3), range(6, 600, 3)],
        vec![range(5, 5, 3), range(60, 6, 3)],
        vec![range(5, u32::MAX - 1, 3)],
        (0..341).map(|id| range(2 * id, 2 * id, 1)).collect(),
    ];
    for wrong in wrong {
        for (uids, gids) in [(wrong.clone(), one()), (one(), wrong.clone())] {
            let error = with(Identity::new().maps(uids, gids)).status(Command::new("true")).expect_err("no map");
            assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
            assert!(error.to_string().len() < 300, "{error}");
        }
    }
}

#[apply(test)]
#[only(Root)]
fn a_group_may_be_named_twice_and_more_than_a_map_holds_are_invalid() {
    let groups = |groups: Vec<u32>| with(Identity::new().groups(groups));
    assert!(groups(vec![5, 5, 7, 5]).status(Command::new("true")).expect("groups").success());
    let error = groups((1..70_000).collect()).status(Command::new("true")).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::InvalidConfiguration, "{error}");
}

#[apply(test)]
#[only(Root)]
fn host_ids_come_from_the_range() {
    let one = with(Identity::new().host_ids(1_600_000_000, 1));
    assert_eq!(id_pair(&ids_on_host(&one)), (1_600_000_000, 1_600_000_000));
    let few = with(Identity::new().host_ids(1_600_000_000, 1000));
    for _ in 0..5 {
        let (uid, gid) = id_pair(&ids_on_host(&few));
        assert!((1_600_000_000..1_600_001_000).contains(&uid) && uid == gid, "{uid} {gid}");
    }
    for (first, count) in [(0, 10), (10, 0), (u32::MAX, 2)] {
        let (what, remedy) = invalid(&with(Identity::new().host_ids(first, count)));
        assert_eq!(what, format!("the range of {count} host IDs from {first} on cannot be assigned to sandboxes"));
        assert!(remedy.contains("does not begin at 0"), "{remedy}");
    }
}

#[apply(test)]
#[only(Root)]
fn supplementary_groups_are_set() {
    let grouped = with(Identity::new().groups([10, 20]));
    assert_eq!(stdout(&grouped, "id -G"), "1000 10 20");
    assert_eq!(ids_on_host(&grouped).groups, [10, 20]);
    assert_eq!(stdout(&Sandbox::new(), "id -G"), "1000", "the host's own groups don't come along");
    let mapped = Identity::new().maps([range(0, 300_000, 10)], [range(0, 300_000, 10)]).groups([5]);
    assert_eq!(ids_on_host(&with(mapped.clone())).groups, [300_005]);
    let (what, _) = invalid(&with(mapped.groups([5, 10])));
    assert_eq!(what, "the program's group ID 10 is not in the map of the sandbox");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_idmapped_mounts)]
fn supplementary_groups_give_the_same_access_as_on_the_host() {
    let dir = shared_dir();
    let file = dir.path().join("file");
    fs::write(&file, "for the group").unwrap();
    // Nobody is its owner: an owner has the owner's permissions alone.
    chown(&file, Some(5), Some(10)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o040)).unwrap();
    let bind = Bind::new(dir.path(), "/dir");
    for bind in [bind.clone(), bind.clone().writable(), bind.unmapped()] {
        let stranger = Sandbox::new().root(Root::host().with(bind.clone()));
        assert!(fails(&stranger, "cat /dir/file").contains("Permission denied"), "{bind:?}");
        let member = stranger.identity(Identity::new().groups([10]));
        assert_eq!(stdout(&member, "cat /dir/file"), "for the group", "{bind:?}");
    }
}

#[apply(test)]
#[only(User)]
fn an_ordinary_user_sets_no_groups() {
    let (what, remedy) = invalid(&with(Identity::new().groups([getegid().as_raw()])));
    assert_eq!(what, "an unprivileged caller cannot set supplementary groups");
    assert!(remedy.contains("Identity::sub_ids"), "{remedy}");
}

#[apply(test)]
#[only(User)]
#[skip(unless_sub_ids)]
fn sub_ids_are_mapped_around_the_users_own() {
    let ((uid, gid), (first_uid, uids), (first_gid, gids)) =
        (caller(), sub_ids("/etc/subuid").unwrap(), sub_ids("/etc/subgid").unwrap());
    let zero = with(Identity::new().uid(0).gid(0).sub_ids().groups([5, 7]));
    let [uid_map, gid_map] = maps_inside(&zero);
    assert_eq!(uid_map[..2], [format!("0 {uid} 1"), format!("1 {first_uid} {uids}")]);
    assert_eq!(gid_map[..2], [format!("0 {gid} 1"), format!("1 {first_gid} {gids}")]);
    assert_eq!(stdout(&zero, "id -G"), "0 5 7");
    let ids = ids_on_host(&zero);
    assert_eq!((id_pair(&ids), ids.groups), (caller(), vec![first_gid + 4, first_gid + 6]));
    // The user's own id stays where it is by default, and the others lie around it.
    let same = with(Identity::new().sub_ids());
    assert_eq!(ids_inside(&same), format!("{uid} {gid}"));
    assert_eq!(maps_inside(&same)[0][..2], [format!("{uid} {uid} 1"), format!("0 {first_uid} {uid}")]);
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_mounts)]
fn sub_ids_of_root_are_mapped() {
    let dir = shared_dir();
    fs::write(dir.path().join("subids"), "somebody:100:100\nroot:300000:100\n").unwrap();
    in_mount_namespace(SUB_IDS, "sub-ids-of-root", dir.path());
}

/// Puts a file of the test's in the place of those that give sub-ids.
const SUB_IDS: &str = "for file in subuid subgid; do mount --bind \"$dir/subids\" /etc/$file; done";

fn sub_ids_of_root(_: &[String]) -> i32 {
    let sandbox = with(Identity::new().uid(0).gid(0).sub_ids());
    let [uid_map, _] = maps_inside(&sandbox);
    assert_eq!((uid_map.len(), uid_map[1].as_str()), (2, "1 300000 100"));
    let (uid, gid) = id_pair(&ids_on_host(&sandbox));
    assert!(GIVEN_AWAY.contains(&uid) && GIVEN_AWAY.contains(&gid));
    0
}

#[apply(test)]
#[skip(unless_mounts)]
fn missing_sub_ids_are_an_error() {
    let dir = shared_dir();
    fs::write(dir.path().join("subids"), "somebody:100000:65536\n").unwrap();
    if !Path::new("/etc/subuid").exists() || !Path::new("/etc/subgid").exists() {
        assert_eq!(no_sub_ids(&[]), 0);
        return;
    }
    in_mount_namespace(SUB_IDS, "no-sub-ids", dir.path());
}

fn no_sub_ids(_: &[String]) -> i32 {
    let (what, remedy) = invalid(&with(Identity::new().sub_ids()));
    assert!(what.starts_with("/etc/subuid assigns no subordinate IDs to "), "{what}");
    assert!(remedy.contains("usermod --add-subuids"), "{remedy}");
    0
}

#[apply(test)]
#[only(User)]
#[skip(unless_sub_ids_and_mounts)]
fn the_error_without_newuidmap_names_the_package() {
    let dir = shared_dir();
    in_mount_namespace(
        "mkdir $dir/bin && cp /usr/bin/unshare $dir/bin && mount --bind $dir/bin /usr/bin && PATH=/usr/bin",
        "no-newuidmap",
        dir.path(),
    );
}

fn no_newuidmap(_: &[String]) -> i32 {
    let error = refused(&with(Identity::new().sub_ids()));
    assert_eq!(error.io_kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().starts_with("failed to map IDs with newuidmap"), "{error}");
    assert!(error.hint().is_some_and(|remedy| remedy.contains("install the package uidmap")), "{error}");
    0
}

#[apply(test)]
#[only(User)]
#[skip(unless_user_and_mounts)]
fn root_of_a_users_container_is_that_user() {
    let mut ways = vec![vec!["unshare", "--user", "--map-root-user"]];
    if unless_sub_ids().is_none() {
        // As rootless container engines do.
        ways.push(vec!["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]);
    }
    for way in ways {
        on_host(&way, "container", &[]);
    }
}

/// A host that is root in a user namespace, and an ordinary user outside.
fn container(_: &[String]) -> i32 {
    assert_eq!(caller(), (0, 0));
    assert_eq!(ids_inside(&Sandbox::new()), "1000 1000");
    assert_eq!(stdout(&Sandbox::new(), "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000");
    for identity in [Identity::new(), Identity::new().uid(0).gid(0), Identity::caller()] {
        let dir = shared_dir();
        let source = private(dir.path(), None);
        makes_files(&with(identity), Root::host().bind_rw(&source, "/out"), &source, caller());
    }
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_and_mounts)]
fn ids_that_are_host_root_in_a_container_are_refused() {
    on_host(&["unshare", "--user", "--map-root-user"], "container-of-root", &[]);
}

fn container_of_root(_: &[String]) -> i32 {
    let (what, remedy) = invalid(&Sandbox::new());
    assert_eq!(what, "this user namespace has no IDs but that of the host's root: the program would be host user 0");
    assert!(remedy.contains("Identity::caller()"), "{remedy}");
    assert_eq!(ids_inside(&with(Identity::caller())), "1000 1000");
    0
}

/// A directory that its owner alone can use, with a file in it that its owner alone can read.
fn private(dir: &Path, owner: Option<u32>) -> PathBuf {
    let private = dir.join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("secret"), "mine").unwrap();
    fs::set_permissions(private.join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    for path in [private.join("secret"), private.clone()] {
        chown(path, owner, owner).unwrap();
    }
    private
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

const MAKE_FILES: &str = "cd /out && mkdir dir && echo text > dir/file && ln -s dir link && cat secret > copy
    echo more >> secret && stat -c '%u %g' . dir/file secret | sort -u";

/// Makes files in a writable bind, and checks whose they are on the host.
fn makes_files(sandbox: &Sandbox, root: Root, source: &Path, (uid, gid): (u32, u32)) {
    let inside = stdout(&sandbox.clone().root(root), MAKE_FILES);
    assert_eq!(inside, ids_inside(sandbox), "inside, they are the program's");
    for name in ["dir", "dir/file", "link", "copy", "secret"] {
        assert_eq!(owner(source.join(name)), (uid, gid), "{name}");
    }
    assert_eq!(fs::read_to_string(source.join("copy")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(source.join("secret")).unwrap(), "minemore\n");
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn files_made_in_a_writable_bind_belong_to_the_caller() {
    let mut identities = vec![Identity::new(), Identity::new().uid(0).gid(0), Identity::caller()];
    if is_root() {
        identities.push(Identity::new().maps([range(0, 300_000, 10)], [range(0, 400_000, 10)]).uid(3));
    }
    for identity in identities {
        let dir = shared_dir();
        let source = private(dir.path(), None);
        makes_files(&with(identity), Root::host().bind_rw(&source, "/out"), &source, caller());
    }
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn private_files_of_the_caller_are_read_through_binds() {
    let dir = shared_dir();
    let source = private(dir.path(), None);
    let (tree, file) = (source.clone(), source.join("secret"));
    for root in [Root::host().bind(&tree, "/d"), Root::host().bind_rw(&tree, "/d")] {
        assert_eq!(stdout(&Sandbox::new().root(root), "cat /d/secret"), "mine");
    }
    for root in [Root::host().bind(&file, "/f"), Root::host().bind_rw(&file, "/f")] {
        assert_eq!(stdout(&Sandbox::new().root(root), "cat /f"), "mine");
    }
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_idmapped_mounts)]
fn a_bind_can_belong_to_another_owner() {
    let dir = shared_dir();
    let source = private(dir.path(), Some(USER));
    let strangers = Root::host().with(Bind::new(&source, "/out").writable());
    assert!(fails(&Sandbox::new().root(strangers), "cat /out/secret").contains("Permission denied"));
    let theirs = Root::host().with(Bind::new(&source, "/out").writable().owner(USER, USER));
    makes_files(&Sandbox::new(), theirs, &source, (USER, USER));
    let read_only = Root::host().with(Bind::new(&source, "/out").owner(USER, USER));
    assert_eq!(stdout(&Sandbox::new().root(read_only), "cat /out/copy"), "mine");
}

#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn an_unmapped_bind_is_seen_as_by_a_stranger() {
    let dir = shared_dir();
    let source = private(dir.path(), None);
    fs::set_permissions(&source, Permissions::from_mode(0o755)).unwrap();
    let root = Root::host().bind(&source, "/mapped").with(Bind::new(&source, "/unmapped").unmapped());
    let sandbox = Sandbox::new().root(root);
    assert_eq!(stdout(&sandbox, "cat /mapped/secret"), "mine");
    if is_root() {
        assert!(fails(&sandbox, "cat /unmapped/secret").contains("Permission denied"));
        assert_eq!(stdout(&sandbox, "stat -c '%u %g' /unmapped/secret"), "65534 65534");
    } else {
        // The program is on the host who the owner is.
        assert_eq!(stdout(&sandbox, "cat /unmapped/secret"), "mine");
    }
}

/// Checks that a tree without idmapped mounts can't be bound writable, and that the error says what to do.
fn is_refused_writable(source: &Path) {
    let writable = Root::host().bind_rw(source, "/d");
    let error = refused(&Sandbox::new().root(writable.clone()));
    assert_eq!((error.errno().map(|errno| errno.number()), error.path()), (Some(nix::libc::EINVAL), Some(source)));
    let remedy = error.hint().expect("remedy");
    assert!(remedy.contains("no idmapped mounts") && remedy.contains("Identity::caller()"), "{remedy}");
    // What the remedy says helps.
    stdout(&with(Identity::caller()).root(writable), "ls /d");
    stdout(&Sandbox::new().root(Root::host().with(Bind::new(source, "/d").writable().unmapped())), "ls /d");
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_mounts_of_both_kinds)]
fn a_file_system_without_idmapped_mounts_is_read_alone() {
    let dir = shared_dir();
    let script = "mount -t ramfs none \"$dir\"; cd \"$dir\"; chmod 755 .
        echo public > public; echo secret > secret; chmod 600 secret; cd /";
    in_mount_namespace(script, "no-idmapped-mounts", dir.path());
}

fn no_idmapped_mounts(args: &[String]) -> i32 {
    let source = Path::new(&args[0]);
    let read_only = Sandbox::new().root(Root::host().bind(source, "/d"));
    assert_eq!(stdout(&read_only, "cat /d/public"), "public");
    assert!(fails(&read_only, "cat /d/secret").contains("Permission denied"));
    is_refused_writable(source);
    0
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_with_idmapped_mounts)]
fn kernel_file_systems_are_bound_read_only() {
    let read_only = Sandbox::new().root(Root::host().bind("/sys/kernel", "/k"));
    assert!(stdout(&read_only, "ls /k").lines().any(|name| name == "mm"));
    is_refused_writable(Path::new("/sys/kernel/mm"));
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_can_pivot)]
fn without_a_user_namespace_the_ids_are_the_hosts() {
    let sandbox = without_user_namespace();
    let living: Vec<Child> = (0..2).map(|_| running(&sandbox)).collect();
    let pairs: Vec<(u32, u32)> = living.iter().map(|child| id_pair(&host_ids(child.pid().number()))).collect();
    assert!(pairs.iter().all(|(uid, gid)| GIVEN_AWAY.contains(uid) && GIVEN_AWAY.contains(gid)), "{pairs:?}");
    assert_ne!(pairs[0], pairs[1]);
    let few = sandbox.clone().identity(Identity::new().host_ids(1_600_001_000, 1));
    assert_eq!(ids_inside(&few), "1600001000 1600001000");
    let chosen = sandbox.clone().identity(Identity::new().uid(1234).gid(2345).groups([10]));
    assert_eq!(ids_inside(&chosen), "1234 2345");
    let ids = ids_on_host(&chosen);
    assert_eq!((id_pair(&ids), ids.groups), ((1234, 2345), vec![10]));
    let the_caller = sandbox.identity(Identity::caller());
    assert_eq!(ids_inside(&the_caller), "0 0");
    assert_eq!(stdout(&the_caller, "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000");
    fails(&the_caller, "hostname powerful");
}

#[apply(test)]
#[only(Root)]
fn without_a_user_namespace_the_program_is_not_root() {
    let identities = [(Identity::new().uid(0), "user"), (Identity::new().gid(0), "group")];
    for (identity, kind) in identities {
        let (what, remedy) = invalid(&without_user_namespace().identity(identity));
        assert_eq!(what, format!("without a user namespace {kind} ID 0 is the host's root"));
        assert!(remedy.contains("Namespaces::USER") && remedy.contains("Identity::caller()"), "{remedy}");
    }
    let one = || [range(0, 300_000, 10)];
    for identity in [Identity::new().maps(one(), one()), Identity::new().sub_ids()] {
        let (what, _) = invalid(&without_user_namespace().identity(identity));
        assert_eq!(what, "ID maps need a user namespace");
    }
}

#[apply(test)]
#[only(Root)]
#[skip(unless_root_can_pivot_and_has_idmapped_mounts)]
fn without_a_user_namespace_files_belong_to_the_caller() {
    let dir = shared_dir();
    let source = private(dir.path(), None);
    let sandbox = without_user_namespace().identity(Identity::new().host_ids(1_600_001_001, 1));
    makes_files(&sandbox, Root::host().bind_rw(&source, "/out"), &source, caller());
    let root = Root::host().tmpfs("/own", 1 << 20).with(Tmpfs::new("/private").mode(0o700));
    let script = "for dir in /own /private /tmp /var/tmp /run /dev/shm; do echo x > $dir/file; done; stat -c %u /own";
    assert_eq!(stdout(&sandbox.root(root), script), "1600001001");
}

#[apply(test)]
#[only(User)]
fn without_a_user_namespace_an_ordinary_user_is_itself() {
    let sandbox = Sandbox::new().namespaces(Namespaces::empty()).root(Root::inherit());
    assert_eq!(id_pair(&ids_on_host(&sandbox)), caller());
    let other = Uid::from_raw(USER + 1).as_raw();
    for (identity, kind) in [(Identity::new().uid(other), "user"), (Identity::new().gid(other), "group")] {
        let (what, remedy) = invalid(&sandbox.clone().identity(identity));
        assert_eq!(
            what,
            format!("an unprivileged caller cannot run a program as {kind} ID {other} without a user namespace")
        );
        assert_eq!(remedy, "add Namespaces::USER, or run as root");
    }
    let (what, _) = invalid(&sandbox.identity(Identity::new().groups([other])));
    assert_eq!(what, "an unprivileged caller cannot set supplementary groups");
}
