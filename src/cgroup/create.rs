//! The groups of one sandbox: made before its processes, removed after them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hierarchy::{Controller, HOST_LEAF, Version, has_word};
use super::place::{Place, Spec};
use crate::error::{Error, Result};
use crate::watch::Account;

/// What every group's name begins with.
const PREFIX: &str = "stockade-";

/// A group that was made; it is removed when it is dropped.
#[derive(Debug)]
struct Group {
    version: Version,
    directory: PathBuf,
    controllers: Vec<Controller>,
}

/// The groups of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Made {
    groups: Vec<Group>,
    /// Who writes `0` there is in the group.
    pub entries: Vec<OwnedFd>,
}

impl Made {
    /// Makes the groups and writes their limits. What dead hosts have left beside them is removed.
    pub fn create(spec: &Spec) -> Result<Self> {
        let owner = Owner::this()?;
        sweep(&spec.swept, &owner);
        let mut made = Self::default();
        for place in &spec.places {
            if place.version == Version::V2 {
                enable(place, &owner, spec.below_own)?;
            }
            let directory = place.parent.join(owner.new_name());
            let failed = |step: &str, path: &Path, error: io::Error, call| {
                let remedy = "this user must be allowed to make cgroups there, and the group above must allow as much";
                Error::set_up(step.to_owned(), call, error, Some(remedy)).on(path)
            };
            fs::create_dir(&directory).map_err(|error| failed("making a cgroup", &directory, error, "mkdir"))?;
            let group = Group { version: place.version, directory, controllers: place.controllers.clone() };
            if place.version == Version::V1 && place.controllers.contains(&Controller::Cpuset) {
                inherit_cpuset(&place.parent, &group.directory).map_err(Error::host(INHERITING))?;
            }
            for file in &place.files {
                let path = group.directory.join(&file.name);
                match write(&path, &file.value) {
                    Err(error) if file.of_swap && error.kind() == io::ErrorKind::NotFound && !has_swap() => {}
                    result => {
                        let step = format!("setting {} of a cgroup to {:?}", file.setting, file.value);
                        result.map_err(|error| failed(&step, &path, error, "write"))?;
                    }
                }
            }
            let inside =
                group.make_inside().map_err(|error| failed("making a cgroup", &group.directory, error, "mkdir"))?;
            // Of the one thread that writes: without the lock that moving a whole process takes.
            let entry = inside.join(if place.version == Version::V1 { "tasks" } else { "cgroup.procs" });
            let opened = OpenOptions::new().write(true).open(&entry);
            made.groups.push(group);
            made.entries.push(opened.map_err(|error| failed("opening a cgroup", &entry, error, "open"))?.into());
        }
        Ok(made)
    }

    /// What was used so far.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for group in &self.groups {
            group.read(&mut account);
        }
        account
    }

    /// The processes that are in it, as the host sees them.
    pub fn processes(&self) -> Vec<i32> {
        let tree = self.groups.first().map(|group| tree(&group.directory)).unwrap_or_default();
        tree.iter().flat_map(|directory| processes(directory)).collect()
    }

    /// Kills every process that is in it, until there is none.
    pub fn kill(&self) {
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        if self.groups.iter().any(|group| write(&group.directory.join("cgroup.kill"), "1").is_ok()) {
            return;
        }
        for _ in 0..ROUNDS {
            let alive = self.processes();
            if alive.is_empty() {
                break;
            }
            for pid in alive {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Stops all of its processes, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let group = self.groups.iter().find(|group| group.controllers.contains(&Controller::Freezer));
        let Some(group) = group else {
            return Err(Error::invalid("the sandbox can't be frozen", "make its cgroup freezable: Cgroup::freezable"));
        };
        let (file, value) = match (group.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        write(&group.directory.join(file), value).map_err(Error::host("freezing or thawing the sandbox"))
    }
}

/// The group that the program enters, below the one with the limits: it is the root of the program's cgroup namespace, so
/// that whoever manages to mount the hierarchy inside does not see the files of the limits.
const INSIDE: &str = "program";

impl Group {
    /// Makes the group that the program enters.
    fn make_inside(&self) -> io::Result<PathBuf> {
        let v1 = self.version == Version::V1;
        if !self.controllers.iter().all(|controller| controller.is_hierarchical(self.version)) {
            return Ok(self.directory.clone());
        }
        if v1 && self.controllers.contains(&Controller::Memory) {
            // Before Linux 5.11 it is not so by itself.
            let _ = write(&self.directory.join("memory.use_hierarchy"), "1");
        }
        let inside = self.directory.join(INSIDE);
        fs::create_dir(&inside)?;
        if v1 && self.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(&self.directory, &inside)?;
        }
        Ok(inside)
    }

    fn read(&self, account: &mut Account) {
        let text = |file: &str| fs::read_to_string(self.directory.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
        let value = |file: &str, key: &str| keyed(&text(file)?, key);
        for controller in &self.controllers {
            match (controller, self.version) {
                (Controller::Memory, Version::V1) => {
                    account.memory_peak = number("memory.max_usage_in_bytes");
                    // Counted in the group of who was killed.
                    let of =
                        |group: PathBuf| keyed(&fs::read_to_string(group.join("memory.oom_control")).ok()?, "oom_kill");
                    account.oom_kills = tree(&self.directory).into_iter().filter_map(of).sum();
                }
                (Controller::Memory, Version::V2) => {
                    account.memory_peak = number("memory.peak");
                    account.oom_kills = value("memory.events", "oom_kill").unwrap_or_default();
                    account.memory_pressure =
                        text("memory.pressure").and_then(|text| total(&text)).map(Duration::from_micros);
                }
                (Controller::Cpuacct, Version::V1) => {
                    let time = |file| number(file).map(Duration::from_nanos);
                    account.cpu = time("cpuacct.usage");
                    account.cpu_user = time("cpuacct.usage_user");
                    account.cpu_system = time("cpuacct.usage_sys");
                }
                (Controller::Cpuacct, Version::V2) => {
                    let time = |key| value("cpu.stat", key).map(Duration::from_micros);
                    account.cpu = time("usage_usec");
                    account.cpu_user = time("user_usec");
                    account.cpu_system = time("system_usec");
                }
                (Controller::Pids, _) => account.pids_peak = number("pids.peak"),
                (Controller::Io, Version::V1) => {
                    let sum = |key: &str| sum_of(&text("blkio.throttle.io_service_bytes_recursive")?, key);
                    (account.read_bytes, account.written_bytes) = (sum("Read"), sum("Write"));
                }
                (Controller::Io, Version::V2) => {
                    let sum = |key: &str| Some(assigned(&text("io.stat")?, key).sum());
                    (account.read_bytes, account.written_bytes) = (sum("rbytes"), sum("wbytes"));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        const ROUNDS: u32 = 200;
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..ROUNDS {
            let removed = tree(&self.directory).iter().rev().try_for_each(fs::remove_dir);
            match removed {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(PAUSE),
                _ => break,
            }
        }
    }
}

/// `key value` in lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `device key value` in lines.
fn sum_of(text: &str, key: &str) -> Option<u64> {
    let value = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        (fields.next()? == key).then(|| fields.next()?.parse::<u64>().ok()).flatten()
    };
    Some(text.lines().filter_map(value).sum())
}

/// `key=value` among words.
fn assigned<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split_whitespace().filter_map(move |word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// Microseconds that some process was stalled (PSI).
fn total(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some"))?;
    assigned(some, "total").next()
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// A group and all below it, each before those that are below it.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let below = fs::read_dir(directory).into_iter().flatten().flatten();
        let below: Vec<PathBuf> =
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}

fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()
}

/// Whether the machine has any swap: the table has a line beside its head.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|table| table.lines().count() > 1)
}

const INHERITING: &str = "giving a cgroup the CPUs and memory nodes of the one above";

/// A new group of v1 has no CPUs and no memory nodes.
fn inherit_cpuset(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        write(&group.join(file), fs::read_to_string(parent.join(file))?.trim())?;
    }
    Ok(())
}

/// Lets groups below a place of v2 have its controllers.
fn enable(place: &Place, owner: &Owner, below_own: bool) -> Result<()> {
    let control = place.parent.join("cgroup.subtree_control");
    for name in place.controllers.iter().filter_map(|controller| controller.v2()) {
        if has_word(&control, name) {
            continue;
        }
        let mut result = write(&control, &format!("+{name}"));
        if below_own && result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy) {
            result = make_room(&place.parent, owner).and_then(|()| write(&control, &format!("+{name}")));
        }
        result.map_err(|error| {
            let remedy = "the cgroup has processes of its own, or may not give the controller on: name another parent \
                          (CgroupParent::Path), or run the host in a delegated scope (systemd-run --user --scope -p \
                          Delegate=yes)";
            Error::set_up(format!("enabling the {name} controller"), "write", error, Some(remedy)).on(&control)
        })?;
    }
    Ok(())
}

/// Moves the processes of the host's own cgroup to a leaf of it: a group of v2 with processes has no controllers to give.
fn make_room(own: &Path, owner: &Owner) -> io::Result<()> {
    let leaf = own.join(format!("{HOST_LEAF}{}", owner.0));
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for pid in processes(own) {
        // One that has ended meanwhile needs no place.
        let _ = write(&leaf.join("cgroup.procs"), &pid.to_string());
    }
    Ok(())
}

/// Whose groups they are: a host by its pid namespace, its pid, and the time when it was started, in ticks.
struct Owner(String);

impl Owner {
    fn this() -> Result<Self> {
        Self::of("self").ok_or_else(|| Error::host("reading /proc/self/stat")(nix::errno::Errno::ENOENT))
    }

    fn of(pid: &str) -> Option<Self> {
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let namespace: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let number = stat.split_whitespace().next()?;
        // The name may contain anything; behind it the start time is the 20th field.
        let started = stat.rsplit(')').next()?.split_whitespace().nth(19)?;
        Some(Self(format!("{namespace}-{number}-{started}")))
    }

    fn new_name(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        format!("{PREFIX}{}-{}", self.0, COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the owner of a group, by its name, was of the same pid namespace and is no more.
    fn knows_dead(&self, group: &str) -> bool {
        let parts: Vec<&str> = group.split('-').collect();
        let ["stockade", namespace, pid, started, _] = parts[..] else { return false };
        let here = self.0.split('-').next() == Some(namespace);
        let owner = format!("{namespace}-{pid}-{started}");
        here && pid.parse::<u32>().is_ok() && Self::of(pid).is_none_or(|living| living.0 != owner)
    }
}

/// Removes, once in the life of this host, the groups that dead hosts have left in some places, with whoever is in them.
fn sweep(places: &[PathBuf], owner: &Owner) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut left = vec![];
    for place in places.iter().filter(|place| swept.insert((*place).clone())) {
        let groups = fs::read_dir(place).into_iter().flatten().flatten();
        left.extend(groups.filter(|group| group.file_name().to_str().is_some_and(|name| owner.knows_dead(name))));
    }
    // All are killed before one is removed: in whichever hierarchy somebody is frozen or held.
    let left: Vec<Group> =
        left.iter().map(|group| Group { version: Version::V1, directory: group.path(), controllers: vec![] }).collect();
    for group in &left {
        for (file, thaw) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let _ = write(&group.directory.join(file), thaw);
        }
        for pid in tree(&group.directory).iter().flat_map(|directory| processes(directory)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_files_of_both_versions() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(keyed("low 0\noom 2\noom_kill 1\n", "oom"), Some(2));
        assert_eq!(sum_of("8:0 Read 10\n8:0 Write 5\n8:16 Read 7\nTotal 22\n", "Read"), Some(17));
        assert_eq!(assigned("8:0 rbytes=10 wbytes=5\n8:16 rbytes=7\n", "rbytes").sum::<u64>(), 17);
        assert_eq!(total("some avg10=0.00 total=42\nfull avg10=0.00 total=7\n"), Some(42));
    }

    #[test]
    fn only_groups_of_hosts_that_are_no_more_are_left() {
        let this = Owner::this().expect("this process");
        assert!(!this.knows_dead(&format!("{PREFIX}{}-0", this.0)));
        let [namespace, pid, _] = this.0.split('-').collect::<Vec<_>>()[..] else { panic!("{}", this.0) };
        assert!(this.knows_dead(&format!("{PREFIX}{namespace}-{pid}-1-0")), "another process with this pid");
        assert!(!this.knows_dead(&format!("{PREFIX}1-{pid}-1-0")), "of another pid namespace");
        assert!(!this.knows_dead("stockade-something"));
    }
}
