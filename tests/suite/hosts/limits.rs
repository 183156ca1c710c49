//! Limits of the caller (setrlimit(2)).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use stockade::collect::Collector;
use stockade::mount::Bind;
use stockade::{Command, Errno, Error, Output, Root, Sandbox};

use super::simulated::{SimulatedHost, WORK};
use crate::support::{at_most, is_root, on_host, shared_dir, text, unless_idmapped_tmpfs};

payloads![
    ("small_files", small_files),
    ("many_binds", many_binds),
    ("many_submounts", many_submounts),
    ("many_writable_submounts", many_writable_submounts),
    ("placeholders_on_a_full_disk", placeholders_on_a_full_disk),
    ("placeholders_with_few_descriptors", placeholders_with_few_descriptors),
];

#[apply(test)]
fn few_descriptors_suffice() {
    for limit in [64, 256] {
        SimulatedHost::after(":").by(&format!("prlimit --nofile={limit}")).assert_works();
    }
}

/// Finding H4.
#[apply(test)]
fn files_may_be_small() {
    SimulatedHost::after(":").by("prlimit --fsize=65536").assert_works();
    let words =
        "write: File too large (EFBIG): raise the caller's RLIMIT_FSIZE: most sandboxes need 64 KiB, and those with";
    for limit in [0, 4096] {
        SimulatedHost::after(":").by(&format!("prlimit --fsize={limit}")).answers().assert_all(words);
    }
}

/// What writes to files, in a caller that SIGXFSZ would kill. In a directory with a file that is larger than the limit.
fn small_files(args: &[String]) -> i32 {
    let (directory, big) = (Path::new(&args[0]), vec![b'x'; 65537]);
    let spawned = |sandbox: &Sandbox, command: &mut Command| sandbox.status(command).unwrap_err();
    let check = |error: Error| {
        assert_eq!(error.errno(), Some(Errno::EFBIG), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("RLIMIT_FSIZE")), "{error}");
    };
    check(spawned(&Sandbox::new(), Command::new("true").stdin_bytes(&*big)));
    let large_file = Sandbox::new().map_root(|root| root.file("/tmp/large", &*big));
    check(spawned(&large_file, &mut Command::new("true")));
    check(Collector::new().copy(directory.join("from"), directory.join("to")).unwrap_err());
    assert!(!directory.join("to").exists());
    let repository = directory.join("repository");
    let workspace = Sandbox::new().root(Root::host().git_workspace(&repository, &repository));
    match (args[1].as_str(), workspace.status(Command::new("true"))) {
        ("0", result) => check(result.unwrap_err()),
        (_, result) => assert!(result.unwrap().success()),
    }
    0
}

/// Finding H4: an error, and no signal.
#[apply(test)]
fn a_file_that_is_too_large_is_an_error() {
    for limit in ["0", "65536"] {
        let place = shared_dir();
        fs::create_dir_all(place.path().join("from")).unwrap();
        fs::create_dir_all(place.path().join("repository/.git/objects")).unwrap();
        fs::write(place.path().join("repository/.git/HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(place.path().join("from/file"), vec![b'x'; 65537]).unwrap();
        let by = format!("--fsize={limit}");
        on_host(&["prlimit", &by], "small_files", &[place.path().to_str().unwrap(), limit]);
    }
}

/// Binds a directory at many places, and masks what is in some. Arguments: the number, whether the binds are `writable`,
/// and whether the sandbox `starts`.
fn many_binds(args: &[String]) -> i32 {
    let (count, is_writable, starts) = (args[0].parse().unwrap(), args[1] == "writable", args[2] == "starts");
    let place = shared_dir();
    fs::create_dir(place.path().join("doc")).unwrap();
    let at = |number: usize| format!("/mnt/{number}");
    let root = Root::host().tmpfs("/mnt", 64 << 20);
    let bound = (0..count).fold(root, |root, number| match is_writable {
        true => root.bind_rw(place.path(), at(number)),
        false => root.bind(place.path(), at(number)),
    });
    // One by a descriptor, and one of a file.
    let bound =
        bound.with(Bind::from_fd(fs::File::open(place.path()).unwrap(), "/mnt/fd")).bind("/etc/group", "/mnt/file");
    let masked = (0..count.min(500)).fold(bound, |root, number| root.mask(at(number) + "/doc"));
    let script = "ls /mnt | wc -l; ls -d /mnt/fd/doc /mnt/file; ls /mnt/7/doc; echo a > /mnt/3/a; ulimit -Hn; ls /proc/self/fd | wc -l";
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let sandbox = Sandbox::new().root(masked);
    let start = Instant::now();
    let compiled = sandbox.plan(&command).unwrap();
    let compiling = start.elapsed();
    drop(compiled);
    let output = sandbox.output(&command);
    println!("{args:?}: {compiling:?} to compile, {:?} to run", start.elapsed() - compiling);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if !starts {
        let error = output.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EPERM), "{error}");
        let needed = error.step().and_then(|step| {
            step.strip_prefix(&format!("raise the limit of descriptors, RLIMIT_NOFILE, from {hard} to "))?
                .strip_suffix(" for the mounts")?
                .parse::<usize>()
                .ok()
        });
        assert!(needed.is_some_and(|needed| (count..count + 100).contains(&needed)), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("raise the caller's hard limit")), "{error}");
        return 0;
    }
    let output = output.unwrap();
    let (answer, errors) = (text(&output.stdout), text(&output.stderr));
    let [seen, _, _, limit, descriptors] = answer.lines().collect::<Vec<_>>()[..] else { panic!("{answer} {errors}") };
    assert_eq!((seen.trim(), descriptors.trim()), ((count + 2).to_string().as_str(), "4"), "{errors}");
    assert!(limit.parse::<u64>().unwrap() <= hard, "{limit}");
    assert!(errors.contains("Permission denied"), "{errors}");
    assert_eq!(
        (place.path().join("a").exists(), errors.contains("Read-only")),
        (is_writable, !is_writable),
        "{errors}"
    );
    0
}

/// Finding H7.
#[apply(test)]
fn binds_need_no_descriptor_of_their_own() {
    for (limit, count) in
        [("64", "10"), ("64", "1000"), ("256", "10"), ("256", "1000"), ("1024", "1000"), ("1024", "10000")]
    {
        let by = format!("--nofile={limit}");
        print!("{limit} {}", on_host(&["prlimit", &by], "many_binds", &[count, "read-only", "starts"]));
    }
}

/// Finding H7. Each writable bind needs a descriptor until all mount points exist.
#[apply(test)]
fn writable_binds_start_or_the_error_says_how_many_descriptors_they_need() {
    let few =
        [("64", "10"), ("256", "10"), ("256", "100"), ("1024", "500"), ("64:4096", "1000"), ("64:16384", "10000")];
    let many = [("64", "1000"), ("256", "1000"), ("1024", "10000")];
    for ((limit, count), result) in few.map(|case| (case, "starts")).into_iter().chain(many.map(|case| (case, "fails")))
    {
        let by = format!("--nofile={limit}");
        // Only with this capability the helper can raise the hard limit.
        let way = ["prlimit", &by, "setpriv", "--bounding-set=-sys_resource"];
        let way = if is_root() { &way[..] } else { &way[..2] };
        print!("{limit} {}", on_host(way, "many_binds", &[count, "writable", result]));
    }
}

/// Finding H7.
#[apply(test)]
#[only(Root)]
#[skip(unless_limits_can_be_raised)]
fn the_hard_limit_of_a_caller_that_may_raise_it_does_not_count() {
    for (limit, count) in [("64", "1000"), ("256", "1000"), ("1024", "10000")] {
        let by = format!("--nofile={limit}");
        print!("{limit} {}", on_host(&["prlimit", &by], "many_binds", &[count, "writable", "starts"]));
    }
}

fn unless_limits_can_be_raised() -> Option<String> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let has = u64::from_str_radix(effective.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1;
    (!has).then(|| "root lacks CAP_SYS_RESOURCE here".into())
}

fn many_submounts(_: &[String]) -> i32 {
    let start = Instant::now();
    assert!(Sandbox::new().status(Command::new("true")).unwrap().success());
    println!("{:?}", start.elapsed());
    let root = Root::host().bind("/mnt/work", "/work");
    assert!(Sandbox::new().root(root).status(Command::new("true")).unwrap().success());
    println!("{:?}", start.elapsed());
    assert!(start.elapsed() < at_most(Duration::from_secs(6)), "{:?}", start.elapsed());
    0
}

/// Mounts 2,047 times in the directory of a writable bind.
const MANY_SUBMOUNTS: &str = "mount -t tmpfs -o mode=755 tmpfs /mnt/work; mkdir $(seq -f /mnt/work/%g 11)
    for round in $(seq 11); do mount --rbind /mnt/work /mnt/work/$round; done";

/// Finding H7.
#[apply(test)]
fn the_time_is_linear_in_the_number_of_mounts() {
    print!("{}", SimulatedHost::after(MANY_SUBMOUNTS).by("prlimit --nofile=1024").output("many_submounts"));
}

/// Binds them writable, last and before another operation.
fn many_writable_submounts(_: &[String]) -> i32 {
    let bound = || Root::host().bind_rw(WORK, "/bound");
    let mut command = Command::new("sh");
    command.args(["-c", "grep ' /bound[/ ]' /proc/self/mountinfo | grep -vc ' ro,'"]);
    let run = |root: Root| Sandbox::new().root(root).output(&command);
    let is_whole = |output: Output| assert_eq!(text(&output.stdout), "2048", "{}", text(&output.stderr));
    is_whole(run(bound()).unwrap());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    match run(bound().tmpfs("/other", 1 << 20)) {
        Ok(output) => {
            assert!(hard > 2048, "{hard}");
            is_whole(output);
        }
        Err(error) => {
            assert_eq!((hard, error.errno()), (1024, Some(Errno::EPERM)), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("add last the writable bind")), "{error}");
        }
    }
    0
}

/// Finding H7. Each needs a descriptor as long as another operation can cover it.
#[apply(test)]
fn submounts_of_a_writable_bind_need_descriptors_only_before_another_operation() {
    for limit in ["1024", "1024:8192"] {
        // Only with this capability the helper can raise the hard limit.
        let without_it = if is_root() { "setpriv --bounding-set=-sys_resource" } else { "" };
        let by = format!("prlimit --nofile={limit} {without_it}");
        SimulatedHost::after(MANY_SUBMOUNTS).by(&by).output("many_writable_submounts");
    }
}

/// Returns the names in a directory.
fn names(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn placeholders_on_a_full_disk(_: &[String]) -> i32 {
    let git = Path::new(WORK).join(".git");
    let before = names(&git);
    let sandbox = Sandbox::new().root(Root::host().git_workspace(WORK, WORK));
    let error = sandbox.status(Command::new("true")).unwrap_err();
    assert_eq!((error.errno(), error.call()), (Some(Errno::ENOSPC), Some("write")), "{error}");
    assert_eq!((names(WORK), names(&git)), (vec![".git".into(), "full".into()], before.clone()));
    // With some space it works, and leaves nothing either.
    fs::remove_file(Path::new(WORK).join("full")).unwrap();
    assert!(sandbox.status(Command::new("true")).unwrap().success());
    assert_eq!((names(WORK), names(&git)), (vec![".git".into()], before));
    0
}

#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn no_placeholder_stays_if_the_disk_is_full() {
    let script = format!(
        "mount -t tmpfs -o mode=755,size=64k tmpfs {WORK}; mkdir {WORK}/.git; echo '[core]' >{WORK}/.git/config
        head -c 1M /dev/zero >{WORK}/full 2>/dev/null || :"
    );
    print!("{}", SimulatedHost::after(&script).output("placeholders_on_a_full_disk"));
}

fn placeholders_with_few_descriptors(_: &[String]) -> i32 {
    let root = (0..30).fold(Root::host().bind_rw(WORK, WORK), |root, number| {
        root.protect(format!("{WORK}/directory{number}/")).protect(format!("{WORK}/file{number}"))
    });
    let sandbox = Sandbox::new().root(root);
    // So that each call is the first that gets no descriptor.
    let mut more = vec![];
    for _ in 0..10 {
        let error = sandbox.status(Command::new("true")).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EMFILE), "{error}");
        assert!(names(WORK).is_empty(), "{:?} stay after {error}", names(WORK));
        more.push(fs::File::open("/dev/null").unwrap());
    }
    0
}

#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn no_placeholder_stays_if_descriptors_run_out() {
    let host = SimulatedHost::after(":").by("prlimit --nofile=64");
    print!("{}", host.output("placeholders_with_few_descriptors"));
}
