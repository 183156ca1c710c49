//! The probe: everything is tried, and what came of it is put into words.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use super::remedy::Cause;
use super::signs::Signs;
use super::trials::{self, Failure, Results, Tried};
use super::{Feature, Finding, State, Support};
use crate::cgroup::{self, Found};
use crate::command::Command;
use crate::confine::{Host, Identity, Namespaces, Root};
use crate::environment;
use crate::error::{Error, Result};
use crate::launch::trial;
use crate::sandbox::Sandbox;

/// A program that is nowhere: that it is not found is the last that can go wrong.
const NOWHERE: &str = "/nowhere/stockade-probe";

/// What no sandbox of the default kind can do without, each before what takes it.
const BASIS: [Feature; 17] = [
    Feature::Memfd,
    Feature::Pidfd,
    Feature::CloseRange,
    Feature::Openat2,
    Feature::UserNamespace,
    Feature::IdMaps,
    Feature::MountNamespace,
    Feature::PidNamespace,
    Feature::NetNamespace,
    Feature::IpcNamespace,
    Feature::UtsNamespace,
    Feature::CgroupNamespace,
    Feature::Loopback,
    Feature::Tmpfs,
    Feature::Proc,
    Feature::PivotRoot,
    Feature::Seccomp,
];

/// What the programs of trials are about.
const CALLS: [Feature; 10] = [
    Feature::Pidfd,
    Feature::CloseRange,
    Feature::Openat2,
    Feature::Clone3,
    Feature::Landlock,
    Feature::Seccomp,
    Feature::SeccompErrno,
    Feature::SeccompKillProcess,
    Feature::SeccompLog,
    Feature::SeccompNotify,
];
const NAMESPACES: [Feature; 15] = [
    Feature::UserNamespace,
    Feature::IdMaps,
    Feature::MountNamespace,
    Feature::PidNamespace,
    Feature::NetNamespace,
    Feature::IpcNamespace,
    Feature::UtsNamespace,
    Feature::CgroupNamespace,
    Feature::TimeNamespace,
    Feature::Loopback,
    Feature::Tmpfs,
    Feature::Overlay,
    Feature::Proc,
    Feature::MountSetattr,
    Feature::PivotRoot,
];
/// In the order in which `cgroup` tries them, by the names that it has.
const CONTROLLERS: [(&str, Feature); 8] = [
    ("memory", Feature::CgroupMemory),
    ("cpu", Feature::CgroupCpu),
    ("cpuacct", Feature::CgroupCpuacct),
    ("cpuset", Feature::CgroupCpuset),
    ("pids", Feature::CgroupPids),
    ("io", Feature::CgroupIo),
    ("hugetlb", Feature::CgroupHugetlb),
    ("freezer", Feature::CgroupFreezer),
];

pub(super) fn probe() -> Support {
    let host = Host::look(None, crate::launch::can_idmap);
    let signs = Signs::read(host.as_ref().is_ok_and(|host| host.privileged));
    let mut judge = Judge { signs, found: BTreeMap::new(), landlock_abi: None };
    let calls = judge.trials(&CALLS, trials::calls());
    judge.landlock(&calls);
    judge.memfd();
    let host = host.as_ref().map_err(Clone::clone);
    judge.trials(&NAMESPACES, host.clone().and_then(trials::namespaces));
    let directories = directories();
    let idmapped = judge.trials(&[Feature::IdmappedMounts], host.and_then(|host| trials::idmapped(host, &directories)));
    judge.idmapped(&directories, &idmapped);
    judge.sub_ids();
    judge.cgroups();
    judge.default_sandbox();
    judge.support()
}

/// One directory of each file system that sandboxes are likely to write to.
fn directories() -> Vec<PathBuf> {
    let mut known = BTreeSet::new();
    let likely = [Some(PathBuf::from("/")), env::current_dir().ok(), Some(environment::temp_dir())];
    let is_new = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| known.insert(meta.dev()));
    likely.into_iter().flatten().filter(is_new).collect()
}

/// What was found so far.
struct Judge {
    signs: Signs,
    found: BTreeMap<Feature, Finding>,
    landlock_abi: Option<u32>,
}

/// The words for an error of the crate, and its own remedy.
fn words(error: &Error) -> (String, String) {
    let remedy = error.remedy().unwrap_or_default();
    let all = error.to_string();
    let reason = all.strip_suffix(remedy).unwrap_or(&all).trim_end_matches(": ").to_owned();
    (reason, remedy.to_owned())
}

/// Whether a sandbox can be made.
fn made(sandbox: &Sandbox) -> Result<()> {
    match sandbox.spawn(Command::new(NOWHERE)) {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn unavailable(error: Error) -> State {
    let (reason, remedy) = words(&error);
    State::Unavailable { reason, remedy }
}

impl Judge {
    fn put(&mut self, feature: Feature, state: State, detail: impl Into<String>) {
        self.found.insert(feature, Finding { feature, state, detail: detail.into() });
    }

    fn failed(&self, feature: Feature, failure: &Failure) -> (String, String) {
        let reason = format!("{}: {}: {}", failure.step, failure.call, failure.errno);
        (reason, Cause::of(feature, failure, &self.signs).remedy(&self.signs))
    }

    /// Judges the trials of a program, which are about `features`, each by the first that has failed.
    fn trials(&mut self, features: &[Feature], results: Result<Results>) -> Results {
        let results = match results {
            Ok(results) => results,
            Err(error) => {
                let (reason, remedy) = words(&error);
                for &feature in features {
                    let (reason, remedy) = (reason.clone(), remedy.clone());
                    self.put(feature, State::Unavailable { reason, remedy }, "");
                }
                return vec![];
            }
        };
        for (feature, tried) in &results {
            let state = match tried {
                _ if self.found.get(feature).is_some_and(|finding| finding.state != State::Available) => continue,
                Tried::Done(_) => State::Available,
                Tried::Failed(failure) => {
                    let (reason, remedy) = self.failed(*feature, failure);
                    match Cause::of(*feature, failure, &self.signs) {
                        Cause::Initramfs => State::Limited { reason, remedy },
                        _ => State::Unavailable { reason, remedy },
                    }
                }
                Tried::Without(needed) => self.without(*needed),
            };
            self.put(*feature, state, "");
        }
        results
    }

    /// What can't be tried without something else.
    fn without(&self, needed: Feature) -> State {
        let remedy = self.found.get(&needed).and_then(Finding::remedy).unwrap_or_default().to_owned();
        State::Unavailable { reason: format!("not tried: it takes a {needed}, which can't be had"), remedy }
    }

    fn landlock(&mut self, results: &Results) {
        let version = results.iter().find_map(|(feature, tried)| match (feature, tried) {
            (Feature::Landlock, Tried::Done(version)) => Some(*version as u32),
            _ => None,
        });
        if let Some(version) = version {
            self.put(Feature::Landlock, State::Available, format!("ABI {version}"));
        }
        self.landlock_abi = version;
    }

    /// That a program was executed from one is known by the trials before.
    fn memfd(&mut self) {
        let state = match trial::memfd() {
            Ok(()) => State::Available,
            Err(errno) => {
                let step = "making a memfd that may be executed".to_owned();
                let failure = Failure { step, call: "memfd_create", errno: errno.into() };
                let (reason, remedy) = self.failed(Feature::Memfd, &failure);
                let stood_in = self.found.get(&Feature::Openat2).is_some_and(|known| known.state == State::Available);
                if stood_in { State::Limited { reason, remedy } } else { State::Unavailable { reason, remedy } }
            }
        };
        self.put(Feature::Memfd, state, "");
    }

    /// Some file systems can, and others can't.
    fn idmapped(&mut self, directories: &[PathBuf], results: &Results) {
        let can: Vec<String> = directories
            .iter()
            .zip(results)
            .filter(|(_, (_, tried))| matches!(tried, Tried::Done(_)))
            .map(|(directory, _)| directory.display().to_string())
            .collect();
        let Some(finding) = self.found.get_mut(&Feature::IdmappedMounts) else { return };
        match &finding.state {
            State::Unavailable { reason, remedy } if !can.is_empty() => {
                finding.state = State::Limited { reason: reason.clone(), remedy: remedy.clone() };
            }
            _ => {}
        }
        if !can.is_empty() {
            finding.detail = format!("on {}", can.join(", "));
        }
    }

    /// A user namespace with the sub-ids in its maps, and nothing else.
    fn sub_ids(&mut self) {
        let alone = Sandbox::new().namespaces(Namespaces::USER).root(Root::inherit());
        let state = match self.found.get(&Feature::UserNamespace) {
            Some(finding) if finding.state != State::Available => self.without(Feature::UserNamespace),
            _ => made(&alone.identity(Identity::new().sub_ids())).map_or_else(unavailable, |()| State::Available),
        };
        self.put(Feature::SubIds, state, "");
    }

    fn default_sandbox(&mut self) {
        let mut state = made(&Sandbox::new()).map_or_else(unavailable, |()| State::Available);
        // What is missing has the better remedy, unless it is a right of the caller's that the error names as well.
        let is_named = |feature| feature == Feature::IdMaps && self.signs.lacks_setfcap;
        let missing = BASIS.iter().filter(|&&feature| !is_named(feature)).find_map(|feature| {
            match &self.found.get(feature)?.state {
                State::Unavailable { remedy, .. } => Some(remedy),
                _ => None,
            }
        });
        if let (State::Unavailable { remedy, .. }, Some(better)) = (&mut state, missing) {
            better.clone_into(remedy);
        }
        self.put(Feature::Sandbox, state, "");
    }

    fn cgroups(&mut self) {
        let found = cgroup::probe();
        for (name, feature) in CONTROLLERS {
            let controller = match &found {
                Ok(found) => found.iter().find(|(controller, _)| *controller == name).map(|(_, found)| found),
                Err(error) => {
                    let (reason, remedy) = words(error);
                    self.put(feature, State::Unavailable { reason, remedy }, "");
                    continue;
                }
            };
            let (state, detail) = self.controller(name, controller.unwrap_or(&Found::Absent));
            self.put(feature, state, detail);
        }
    }

    fn controller(&self, name: &str, found: &Found) -> (State, String) {
        let detail = |v2: bool, below: &Path| format!("v{}, below {}", if v2 { 2 } else { 1 }, below.display());
        let remedy = |cause: Cause| cause.remedy(&self.signs);
        match found {
            Found::Groups { v2, below } => (State::Available, detail(*v2, below)),
            Found::AfterMove { below } => {
                let reason = format!("{} has processes, and can give no controllers on while it has", below.display());
                (State::Limited { reason, remedy: remedy(Cause::MovedToLeaf) }, detail(true, below))
            }
            Found::Undelegated { below, unit } => {
                let reason = format!("this process is in {unit}, which systemd has not delegated");
                (State::Unavailable { reason, remedy: remedy(Cause::Undelegated) }, detail(true, below))
            }
            Found::Refused { v2, below, errno } => {
                let cause = match errno.0 {
                    libc::EROFS => Cause::ReadOnlyCgroups,
                    libc::EAGAIN => Cause::CgroupLimit,
                    _ => Cause::Delegation,
                };
                let reason = format!("making a cgroup in {}: mkdir: {errno}", below.display());
                (State::Unavailable { reason, remedy: remedy(cause) }, detail(*v2, below))
            }
            Found::NotGiven { below, errno } => {
                let file = below.join("cgroup.subtree_control");
                let reason =
                    format!("the groups in {} do not have it: writing {}: {errno}", below.display(), file.display());
                let cause = if errno.0 == libc::EROFS { Cause::ReadOnlyCgroups } else { Cause::Delegation };
                (State::Unavailable { reason, remedy: remedy(cause) }, detail(true, below))
            }
            Found::Absent => {
                let reason = format!("no cgroup hierarchy of this host has the {name} controller here");
                (State::Unavailable { reason, remedy: remedy(Cause::NoController) }, String::new())
            }
        }
    }

    fn support(mut self) -> Support {
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        let findings = Feature::ALL.iter().filter_map(|feature| self.found.remove(feature)).collect();
        Support { kernel, uid: geteuid().as_raw(), landlock_abi: self.landlock_abi, findings }
    }
}
