//! Paths during the set-up: hostile directories and hostile names.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::mkfifo;
use stockade::mount::Overlay;
use stockade::{Command, Error, ErrorKind, Root, Sandbox, Termination};
use tempfile::TempDir;

use crate::attacks::common::{
    Attempts, Bystander, Canary, apart, assert_typed, attack, attack_as, attack_by, attack_on_host, attempt,
    host_output, link, open_directory, privately, privately_as_before, runnable, sandbox, tell,
};
use crate::support::{
    PAYLOAD, is_root, let_go_of_work, own_path, payload, sample, sh, shared_dir, text, unless_idmapped_mounts,
    unless_idmapped_tmpfs, unless_overlays, unless_overlays_and_idmapped_mounts, with_payload,
};

payloads![
    ("behind_a_fake_proc", behind_a_fake_proc),
    ("with_a_proc_of_others", with_a_proc_of_others),
    ("plant", plant),
    ("read_and_write", read_and_write),
    ("bind_with_submounts", bind_with_submounts),
];

/// A root directory whose symlinks lead out of it.
struct Hostile {
    place: TempDir,
    canary: Canary,
    root: PathBuf,
}

const LINKS: [&str; 5] = ["absolute", "relative", "chain", "up", "below/link"];

impl Hostile {
    fn new() -> Self {
        let place = shared_dir();
        let canary = Canary::new(place.path().join("canary"));
        let root = place.path().join("root");
        open_directory(&root);
        link(&canary.path, &root.join("absolute"));
        link("../canary", &root.join("relative"));
        link("absolute", &root.join("chain"));
        link(Path::new("../../../../../../../..").join(canary.path.strip_prefix("/").unwrap()), &root.join("up"));
        link(&canary.path, &root.join("below/link"));
        Self { place, canary, root }
    }

    /// Shows that whoever follows the paths of the directory as they are is led to the canary.
    fn prove(&self) {
        for link in LINKS {
            fs::create_dir(self.root.join(link).join("made")).expect("a directory by a naive path");
            self.canary.assert_hit("made");
        }
    }
}

/// The name of an operation, and the root with it.
type Operation<'a> = (&'static str, Box<dyn Fn(Root) -> Root + 'a>);

/// Every operation that makes, or changes, something at a place.
fn operations<'a>(place: &'a str, source: &'a Path) -> Vec<Operation<'a>> {
    vec![
        ("tmpfs", Box::new(move |root: Root| root.tmpfs(place, 1 << 20))),
        ("directory", Box::new(move |root| root.create_dir(place))),
        ("file", Box::new(move |root| root.file(place, "contents"))),
        ("symlink", Box::new(move |root| root.symlink("text", place))),
        ("bind", Box::new(move |root| root.bind(source, place))),
        ("bind_rw", Box::new(move |root| root.bind_rw(source, place))),
        ("overlay", Box::new(move |root| root.overlay(source, place))),
        ("proc", Box::new(move |root| root.proc(place))),
        ("dev", Box::new(move |root| root.dev(place))),
        ("mask", Box::new(move |root| root.mask(place))),
        ("read_only", Box::new(move |root| root.read_only(place))),
    ]
}

/// All operations at all places.
fn attacks_on<'a>(places: &'a [String], source: &'a Path) -> impl Iterator<Item = (&'a String, Operation<'a>)> {
    places.iter().flat_map(move |place| operations(place, source).into_iter().map(move |operation| (place, operation)))
}

/// A sandbox that either works or says what does not.
fn works_or_says_why(sandbox: &Sandbox) -> bool {
    match sandbox.status(Command::new("true")) {
        Ok(outcome) => {
            assert_eq!(outcome.termination, Termination::Exited(0));
            true
        }
        Err(error) => {
            assert_typed(&error);
            false
        }
    }
}

/// Attack 1: A root directory holds `sub -> /etc`, and a mount point is made below it.
#[apply(test)]
fn symlinks_of_a_root_directory_lead_to_nothing_outside() {
    let hostile = Hostile::new();
    hostile.prove();
    let source = hostile.place.path().join("source");
    open_directory(&source);
    let below = |link| ["", "/made", "/file", "/a/b"].map(|rest| format!("/{link}{rest}"));
    let places: Vec<String> = LINKS.into_iter().flat_map(below).collect();
    for (place, (operation, with)) in sample(attacks_on(&places, &source)) {
        works_or_says_why(&Sandbox::new().root(with(runnable(Root::from_dir(&hostile.root)))));
        hostile.canary.assert_unchanged((operation, place));
    }
}

/// Attack 1: The same in a bind, where what the link leads to is visible in the sandbox, and can be written to.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn symlinks_of_a_bind_lead_to_nothing_outside() {
    let hostile = Hostile::new();
    hostile.prove();
    link("/etc", &hostile.root.join("etc"));
    let source = hostile.place.path().join("source");
    open_directory(&source);
    let root = Root::host().bind_rw(&hostile.canary.path, &hostile.canary.path).bind_rw(&hostile.root, "/tmp/bound");
    assert!(works_or_says_why(&Sandbox::new().root(root.clone())));
    let places = ["absolute", "chain", "up", "below/link", "etc"].map(|link| format!("/tmp/bound/{link}/made"));
    for (place, (operation, with)) in sample(attacks_on(&places, &source)) {
        works_or_says_why(&Sandbox::new().root(with(root.clone())));
        hostile.canary.assert_unchanged((operation, place));
        assert!(!Path::new("/etc/made").exists(), "{operation} at {place}");
    }
}

/// Attack 2: `/dev` and `/proc` of the root directory are symlinks: within it, or out of it.
#[apply(test)]
fn proc_and_dev_are_not_mounted_through_symlinks() {
    let place = shared_dir();
    let canary = Canary::new(place.path().join("canary"));
    for (number, text) in [canary.path.to_str().unwrap(), "../canary", "/elsewhere", "elsewhere"].iter().enumerate() {
        let root = place.path().join(number.to_string());
        open_directory(&root.join("elsewhere"));
        for name in ["proc", "dev", "sys"] {
            link(text, &root.join(name));
        }
        // Whoever mounts by the path is led astray.
        let naive = "mount -t tmpfs none \"$1/dev\"; grep -o ' /[^ ]*/\\(canary\\|elsewhere\\) ' /proc/self/mountinfo";
        if *text != "/elsewhere" {
            host_output(&mut apart(&["-m"], naive, &[root.as_os_str()]));
        }
        let base = runnable(Root::from_dir(&root));
        for root in [base.clone().proc("/proc"), base.clone().dev("/dev")] {
            let error = Sandbox::new().root(root).status(Command::new("true")).expect_err("a mount through a symlink");
            assert_typed(&error);
        }
        works_or_says_why(&Sandbox::new().root(base.bind("/sys/devices/system", "/sys")));
        canary.assert_unchanged(text);
    }
}

/// Attack 3: A mask that is made of the root directory's own `/dev/null` shows what an attacker has put there.
#[apply(test)]
fn a_mask_hides_its_path_in_any_root_directory() {
    let place = shared_dir();
    let canary = Canary::new(place.path().join("canary"));
    let root = place.path().join("root");
    for name in ["masked", "other"] {
        open_directory(&root.join("secret"));
        fs::write(root.join("secret").join(name), name).unwrap();
    }
    link("../secret/other", &root.join("dev/null"));
    link("../secret/masked", &root.join("dev/zero"));
    link(canary.path.join("file"), &root.join("dev/full"));
    link("/secret", &root.join("link"));

    let naive = "mount --bind \"$1/dev/null\" \"$1/secret/masked\"; cat \"$1/secret/masked\"";
    assert_eq!(host_output(&mut apart(&["-m"], naive, &[root.as_os_str()])), "other");

    let base = runnable(Root::from_dir(&root));
    let reads = |root: Root, path: &str| text(&sh(&Sandbox::new().root(root), &format!("cat {path}; :")).stdout);
    assert_eq!(reads(base.clone(), "/secret/masked /secret/other"), "maskedother");
    assert_eq!(reads(base.clone().mask("/secret/masked"), "/secret/masked"), "");
    // A mask follows the links of the root directory, within it.
    assert_eq!(reads(base.clone().mask("/dev/zero"), "/secret/masked /dev/zero"), "");
    assert_eq!(reads(base.clone().mask("/link"), "/secret/masked /link/masked"), "");
    assert_eq!(reads(base.clone().mask("/link/masked"), "/secret/masked /link/masked"), "");
    assert_eq!(reads(base.mask("/dev/null").mask("/dev/full"), "/secret/other /dev/null"), "");
    canary.assert_unchanged("masks");
}

/// Attack 3: `/dev/null` and `/dev/pts/0` are replaced before the devices and a terminal are set up.
#[apply(test)]
fn devices_and_terminals_are_not_those_of_the_root_directory() {
    let place = shared_dir();
    let canary = Canary::new(place.path().join("canary"));
    let root = place.path().join("root");
    for name in ["null", "console", "ptmx", "pts/0", "pts/ptmx", "tty"] {
        link("../canary/file", &root.join("dev").join(name));
        fs::remove_file(root.join("dev").join(name)).unwrap();
        link(canary.path.join("file"), &root.join("dev").join(name));
    }
    fs::write(root.join("dev/null"), "hit").expect("a write by a naive path");
    assert_eq!(fs::read_to_string(canary.path.join("file")).unwrap(), "hit");
    fs::write(canary.path.join("file"), "canary\n").unwrap();

    let sandbox = Sandbox::new().root(runnable(Root::from_dir(&root)).proc("/proc").dev("/dev"));
    let script = "echo hit >/dev/null; stat -c %F /dev/null; stat -c %F \"$(tty)\"; echo hit >/dev/tty; ls /dev/pts";
    let mut child = sandbox.spawn(Command::new("sh").args(["-c", script]).pty(24, 80)).unwrap();
    let mut terminal = child.pty.take().unwrap();
    assert!(child.wait().unwrap().success());
    let mut shown = vec![];
    std::io::Read::read_to_end(&mut terminal, &mut shown).unwrap();
    let shown = text(&shown).replace('\r', "");
    assert!(shown.starts_with("character special file\ncharacter special file\nhit\n"), "{shown:?}");
    canary.assert_unchanged("a terminal");
}

/// How long a race is run.
const RACE: Duration = Duration::from_secs(8);
const SWAPS: u64 = 10_000;

/// Swaps two entries for as long as `meanwhile` runs, which is told how often.
fn while_swapping(one: &Path, other: &Path, meanwhile: impl FnOnce(&AtomicU64)) {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).expect("a swap");
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A panic of an assertion must not leave the racer running.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(&swaps)));
        stop.store(true, Ordering::Relaxed);
        racer.join().expect("the racer");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    })
}

/// Attack 4: Components of targets are swapped for symlinks while sandboxes are made.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn swapped_components_lead_to_nothing_outside() {
    let place = shared_dir();
    let canary = Canary::new(place.path().join("canary"));
    let (root, source) = (place.path().join("root"), place.path().join("source"));
    open_directory(&source);
    for at in [root.join("sub"), root.join("deep/sub")] {
        open_directory(&at.join("place"));
        fs::write(at.join("file"), "own\n").unwrap();
    }
    let (sub, swap) = (root.join("deep/sub"), place.path().join("swap"));
    link(&canary.path, &swap);

    // Between the look and the write of a naive caller the link comes.
    while_swapping(&sub, &swap, |_| {
        let end = Instant::now() + Duration::from_secs(20);
        while !canary.path.join("naive").exists() {
            assert!(Instant::now() < end, "the racer must win against a naive caller");
            if sub.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                let _ = fs::create_dir(sub.join("naive"));
            }
        }
    });
    canary.assert_hit("naive");
    let _ = fs::remove_dir(if swap.is_symlink() { sub.join("naive") } else { swap.join("naive") });

    let hidden = "test ! -s /deep/sub/file && test ! -s /bound/deep/sub/file";
    let base = runnable(Root::from_dir(&root)).tmpfs("/tmp", 1 << 20).bind_rw(&root, "/bound");
    let roots = [
        base.clone().tmpfs("/deep/sub/place", 1 << 20),
        base.clone().bind_rw(&source, "/bound/deep/sub/place"),
        base.clone().create_dir("/deep/sub/made").file("/bound/deep/sub/made", "contents"),
        base.clone().mask("/deep/sub/file").read_only("/bound/deep/sub"),
        base.symlink("text", "/bound/deep/sub/made").overlay(&source, "/deep/sub/place"),
    ];
    let (mut worked, mut refused) = (0, 0);
    while_swapping(&sub, &swap, |swaps| {
        let start = Instant::now();
        for root in roots.iter().cycle() {
            match Sandbox::new().root(root.clone()).output(Command::new("sh").args(["-c", hidden])) {
                Ok(_) => worked += 1,
                Err(error) => {
                    assert_typed(&error);
                    refused += 1;
                }
            }
            let enough = swaps.load(Ordering::Relaxed) > SWAPS;
            if enough && start.elapsed() > RACE {
                break;
            }
            assert!(start.elapsed() < 10 * RACE, "{swaps:?} swaps");
        }
    });
    assert!(worked > 0 && refused > 0, "{worked} worked, {refused} were refused: the race has both outcomes");
    canary.assert_unchanged("a race");
}

/// Attack 4: A lookup that must not leave the root gives up when a directory is renamed anywhere while it goes through
/// `..` (openat2(2), EAGAIN): a mask must not be left out for that.
#[apply(test)]
fn a_mask_holds_while_directories_are_renamed() {
    let place = shared_dir();
    let root = place.path().join("root");
    open_directory(&root.join("a/b/c"));
    open_directory(&root.join("secret"));
    fs::write(root.join("secret/file"), "secret").unwrap();
    link("a/b/c/../../../secret/file", &root.join("link"));
    let base = runnable(Root::from_dir(&root));
    let read = |root: Root| {
        let output = Sandbox::new().root(root).output(Command::new("cat").args(["/secret/file", "/link"]));
        output.map(|output| text(&output.stdout))
    };
    assert_eq!(read(base.clone()).unwrap(), "secretsecret");

    let [one, other] = ["one", "other"].map(|name| place.path().join(name));
    open_directory(&one);
    open_directory(&other);
    let mut spawns = 0;
    while_swapping(&one, &other, |_| {
        let end = Instant::now() + RACE / 2;
        while Instant::now() < end {
            spawns += 1;
            match read(base.clone().mask("/link")) {
                Ok(seen) => assert_eq!(seen, "", "the mask is missing in spawn {spawns}"),
                Err(error) => assert_typed(&error),
            }
        }
    });
}

/// Files of a fake `/proc` that somebody wrote to.
fn written() -> Vec<PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let below = entries(Path::new("/proc")).into_iter().filter(|path| path.is_dir());
    let files = below.flat_map(|path| entries(&path)).filter(|file| file.metadata().is_ok_and(|meta| meta.len() > 0));
    files.collect()
}

fn behind_a_fake_proc(_: &[String]) -> i32 {
    let map = format!("/proc/{}/uid_map", std::process::id());
    attempt("a naive write", fs::write(&map, "0 0 1"));
    assert_eq!(written(), [PathBuf::from(&map)]);
    fs::write(map, "").unwrap();
    attempt("a sandbox", Sandbox::new().status(Command::new("true")));
    tell("written", written());
    0
}

/// Attack 5: What is meant for `/proc` lands in files that look like it.
#[apply(test)]
fn a_fake_proc_is_refused() {
    let fake = shared_dir();
    open_directory(fake.path());
    let files = "all=$(seq -f /proc/%.0f $$ $(($$ + 300))); mkdir $all; for one in $all; do : >$one/uid_map; \
                 : >$one/gid_map; : >$one/setgroups; done; chmod a+w /proc/*/*";
    let path = fake.path().display();
    for place in ["mount -t tmpfs none /proc".to_owned(), format!("mount --bind {path} /proc")] {
        let mut host = privately(&format!("{place}\n{files}"), "behind_a_fake_proc", &[]);
        let attempts = attack_by(&mut host);
        attempts.assert_done(&["a naive write"]);
        assert!(attempts.get("a sandbox").contains("the caller's /proc is not a proc file system"), "{attempts:?}");
        assert_eq!(attempts.get("written"), "[]");
    }
}

fn with_a_proc_of_others(args: &[String]) -> i32 {
    let victim: u32 = args[0].parse().unwrap();
    fs::write("/proc/sys/kernel/ns_last_pid", (victim - 1).to_string()).unwrap();
    attempt("a sandbox", Sandbox::new().status(Command::new("true")));
    0
}

/// Attack 5: `/proc` is a true one, but that of another pid namespace: a pid means another process there, and the id
/// maps of a sandbox are written to whoever has it.
#[apply(test)]
#[only(Root)]
fn a_proc_of_other_processes_is_refused() {
    let victim =
        Bystander::start(std::process::Command::new("unshare").args(["-U", "sh", "-c", "echo; exec sleep 1000"]));
    let mut victim = victim;
    victim.line();
    let map = format!("/proc/{}/uid_map", victim.pid());
    let args = ["with_a_proc_of_others", &victim.pid().to_string()];
    let mut host = std::process::Command::new("unshare");
    let attempts = attack_by(host.args(["--pid", "--fork"]).arg(own_path()).arg("--payload").args(args));
    assert_eq!(fs::read_to_string(&map).unwrap(), "", "another process got the id map: {attempts:?}");
    attempts.assert_refused(&["a sandbox"]);
    fs::write(&map, "0 0 1").expect("a map could have been written");
}

/// What a program leaves in a directory for whoever reads it. `outside` is what it wants to get at.
fn plant(args: &[String]) -> i32 {
    let (dir, outside) = (Path::new(&args[0]), Path::new(&args[1]));
    attempt("symlink", std::os::unix::fs::symlink(outside, dir.join("symlink")));
    attempt("fifo", mkfifo(&dir.join("fifo"), Mode::from_bits_retain(0o666)));
    let device = |name: &str, kind, device| mknod(&dir.join(name), kind, Mode::from_bits_retain(0o666), device);
    attempt("character device", device("null", SFlag::S_IFCHR, libc::makedev(1, 3)));
    attempt("block device", device("disk", SFlag::S_IFBLK, libc::makedev(7, 0)));
    attempt("hard link", fs::hard_link(outside.join("file"), dir.join("hard")));
    attempt("write through the symlink", fs::write(dir.join("symlink/written"), "hit"));
    fs::write(dir.join("own"), "own").unwrap();
    attempt("move out", fs::rename(dir.join("own"), outside.join("moved")));
    attempt("move in", fs::rename(outside.join("file"), dir.join("moved")));
    attempt("write above", fs::write(dir.join("../above"), "hit"));
    0
}

/// Attack 6: What a program may plant where its outputs are collected from.
#[apply(test)]
#[skip(unless_idmapped_mounts)]
fn what_is_planted_in_a_writable_bind_stays_in_it() {
    let place = shared_dir();
    let (work, outside) = (place.path().join("work"), place.path().join("outside"));
    open_directory(&work);
    open_directory(place.path());
    let canary = Canary::new(&outside);
    let host = attack_on_host("plant", &[work.to_str().unwrap(), outside.to_str().unwrap()]);
    host.assert_done(&["symlink", "fifo", "hard link", "write through the symlink", "move out", "write above"]);
    if is_root() {
        host.assert_done(&["character device", "block device"]);
    }
    fs::remove_dir_all(&work).unwrap();
    fs::remove_dir_all(&outside).unwrap();
    fs::remove_file(place.path().join("above")).unwrap();
    drop(canary);

    open_directory(&work);
    let canary = Canary::new(&outside);
    let root = with_payload(Root::host()).bind_rw(&work, "/tmp/work").bind(&outside, "/tmp/outside");
    let inside = attack(&Sandbox::new().root(root), "plant", &["/tmp/work", "/tmp/outside"]);
    inside.assert_done(&["symlink", "fifo"]);
    inside.assert_refused(&["character device", "block device", "hard link", "write through the symlink"]);
    inside.assert_refused(&["move out", "move in"]);
    canary.assert_unchanged(&inside);
    assert!(!place.path().join("above").exists());
    for entry in fs::read_dir(&work).unwrap() {
        let kind = entry.unwrap().file_type().unwrap();
        assert!(!kind.is_char_device() && !kind.is_block_device());
    }
}

/// Names with whatever has a meaning in a mount option, in a line of mountinfo, or in a list.
const NAMES: [&str; 16] = [
    "a:b",
    "a,b",
    "a\\b",
    "a\\:b",
    "a\\,b",
    "a b",
    "a\tb",
    "a\nb",
    "\\",
    "\\040",
    "..a",
    "a..",
    "#x",
    "%s\u{fc}\"'",
    "lowerdir=x,upperdir=y",
    "1000 0 1\n0 0 1",
];

/// For each directory: what is in the file `in`, and whether `out` can be made there.
fn read_and_write(args: &[String]) -> i32 {
    for (number, path) in args.iter().enumerate() {
        tell(&format!("read {number}"), fs::read_to_string(Path::new(path).join("in")).ok());
        attempt(&format!("write {number}"), fs::write(Path::new(path).join("out"), path));
    }
    tell("cwd", std::env::current_dir());
    0
}

/// Attack 7: Names that a mount option, a map or a list takes apart.
#[apply(test)]
#[skip(unless_overlays_and_idmapped_mounts)]
fn a_name_is_taken_as_it_is_byte_by_byte() {
    let place = shared_dir();
    for name in NAMES {
        let own = place.path().join(name);
        let [read, write, lower, upper, work] = ["read", "write", "lower", "upper", "work"].map(|directory| {
            let path = own.join(directory).join(name);
            open_directory(&path);
            fs::write(path.join("in"), format!("{directory} of {name}")).unwrap();
            path
        });
        fs::remove_file(work.join("in")).unwrap();
        fs::remove_file(upper.join("in")).unwrap();
        let at = |directory: &str| format!("/tmp/{directory}/{name}");
        let [read_at, write_at, tmpfs_at, overlay_at, program_at] =
            ["read", "write", "tmpfs", "overlay", "bin"].map(at);
        let root = with_payload(Root::host())
            .bind(&read, &read_at)
            .bind_rw(&write, &write_at)
            .tmpfs(&tmpfs_at, 1 << 20)
            .file(format!("{tmpfs_at}/in"), format!("tmpfs of {name}"))
            .with(Overlay::new(&overlay_at).lower(&lower).upper(&upper, &work))
            .symlink(PAYLOAD, &program_at);
        let mut command = Command::new(&program_at);
        command.args(["--payload", "read_and_write", &read_at, &write_at, &tmpfs_at, &overlay_at]);
        let attempts = attack_as(&Sandbox::new().root(root), command.current_dir(&write_at));
        for (number, directory) in ["read", "write", "tmpfs", "lower"].iter().enumerate() {
            let expected = format!("{:?}", Some(format!("{directory} of {name}")));
            assert_eq!(attempts.get(&format!("read {number}")), expected);
        }
        attempts.assert_refused(&["write 0"]);
        attempts.assert_done(&["write 1", "write 2", "write 3"]);
        assert_eq!(attempts.get("cwd"), format!("{:?}", Ok::<_, ()>(Path::new(&write_at))));
        let outs = [&read, &write, &lower, &upper].map(|directory| directory.join("out").exists());
        assert_eq!(outs, [false, true, false, true], "{name:?}");
        let_go_of_work(&work);
    }
}

/// Attack 7: A colon in a path makes two layers of one, the second of them any directory of the host.
#[apply(test)]
#[skip(unless_overlays)]
fn a_layer_of_an_overlay_is_one_directory() {
    let place = shared_dir();
    let canary = Canary::new(place.path().join("canary"));
    open_directory(&place.path().join("x"));
    // The directory `x:` holds, far below, one that has the path of the canary.
    let split = place.path().join("x:").join(canary.path.strip_prefix("/").unwrap());
    open_directory(&split);
    fs::write(split.join("own"), "own").unwrap();
    let naive =
        "mkdir \"$1/at\"; mount -t overlay -o \"lowerdir=$2\" none \"$1/at\"; ls \"$1/at\"; rmdir \"$1/at\" || :";
    let seen = host_output(&mut apart(&["-m"], naive, &[place.path().as_os_str(), split.as_os_str()]));
    assert!(seen.contains("file"), "a naive overlay shows the canary: {seen:?}");

    let sandbox = Sandbox::new().root(Root::host().overlay(&split, "/tmp/at"));
    assert_eq!(text(&sh(&sandbox, "ls /tmp/at").stdout), "own");
}

/// Directories with file systems of their own; the first is read-only.
const SUBMOUNTS: [&str; 4] = ["a b", "a\\040b", "new\nline", "a\\134040b"];

fn bind_with_submounts(args: &[String]) -> i32 {
    let dir = Path::new(&args[0]);
    let inside: Vec<String> = SUBMOUNTS.iter().map(|name| format!("/tmp/bound/{name}")).collect();
    let root = with_payload(Root::host()).bind_rw(dir, "/tmp/bound");
    let output = Sandbox::new().root(root).output(payload("read_and_write").args(&inside)).unwrap();
    std::io::stdout().write_all(&output.stdout).unwrap();
    for (number, name) in SUBMOUNTS.iter().enumerate() {
        tell(&format!("arrived {number}"), dir.join(name).join("out").exists());
    }
    0
}

/// Attack 7: The table of mounts writes blanks and backslashes in a way of its own: a submount that the host has
/// read-only must not be taken for another one.
#[apply(test)]
#[skip(unless_idmapped_tmpfs)]
fn submounts_are_known_by_their_names_byte_by_byte() {
    let place = shared_dir();
    for name in SUBMOUNTS {
        open_directory(&place.path().join(name));
    }
    // `cd` because a path of mount(8) may have a meaning of its own.
    let script = format!(
        "cd '{}'; for d in *; do mount -t tmpfs none \"$PWD/$d\"; chmod 777 \"$d\"; done; mount -o remount,bind,ro \
         '{}/a b'",
        place.path().display(),
        place.path().display()
    );
    let attempts =
        attack_by(&mut privately_as_before(&script, "bind_with_submounts", &[place.path().to_str().unwrap()]));
    attempts.assert_refused(&["write 0"]);
    attempts.assert_done(&["write 1", "write 2", "write 3"]);
    let arrived = [0, 1, 2, 3].map(|number| attempts.get(&format!("arrived {number}")).to_owned());
    assert_eq!(arrived, ["false", "true", "true", "true"]);
}

/// Attack 7: `..` in a place leads nowhere: it is refused when the plan is made. In a working directory it ends at the
/// root.
#[apply(test)]
fn dot_dot_is_no_part_of_a_place_in_a_sandbox() {
    let source = shared_dir();
    for place in ["/tmp/../../x", "/..", "/tmp/..", "../x", "/tmp/./../x"] {
        for (operation, with) in operations(place, source.path()) {
            let refused = Sandbox::new().root(with(Root::host())).plan(Command::new("true"));
            assert_eq!(
                refused.as_ref().map_err(Error::kind).err(),
                Some(ErrorKind::InvalidConfiguration),
                "{operation} at {place}: {refused:?}"
            );
        }
    }
    let mut pwd = payload("read_and_write");
    let attempts: Attempts = attack_as(&sandbox(), pwd.current_dir("/tmp/../../../../.."));
    assert_eq!(attempts.get("cwd"), "Ok(\"/\")");
}
