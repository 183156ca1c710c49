//! The probe: runs all checks, and turns their results into findings.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};

use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use super::checks::{self, CheckResult, Failure, Results};
use super::{Feature, Finding, State, Support};
use crate::advice::{Cause, Denial, HostFacts, Need};
use crate::cgroup::{self, Found};
use crate::command::Command;
use crate::confine::{Facts, Identity, Namespaces, Root};
use crate::environment;
use crate::error::{Error, ErrorKind, Result};
use crate::host_path::status;
use crate::launch::probe_script;
use crate::sandbox::Sandbox;
use crate::stored::Version;
use crate::unix::ToErrno;

/// A program that does not exist. Not finding it is the last step that can fail.
const MISSING_PROGRAM: &str = "/nowhere/stockade-probe";

/// The features of the check scripts.
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
/// The controllers, in the order of `cgroup::probe`, with their names.
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
    let facts = Facts::read(None, crate::launch::can_idmap);
    let host = HostFacts::read();
    let mut findings = Findings { host, found: BTreeMap::new(), landlock_abi: None };
    let calls = findings.add_results(&CALLS, checks::calls());
    findings.landlock(&calls);
    findings.memfd();
    let facts = facts.as_ref().map_err(Clone::clone);
    findings.add_results(&NAMESPACES, facts.clone().and_then(checks::namespaces));
    let directories = directories();
    let idmapped =
        findings.add_results(&[Feature::IdmappedMounts], facts.and_then(|host| checks::idmapped(host, &directories)));
    findings.idmapped(&directories, &idmapped);
    findings.sub_ids();
    findings.cgroups();
    findings.default_sandbox();
    findings.support()
}

/// Returns one directory of each file system that sandboxes are likely to write to.
fn directories() -> Vec<PathBuf> {
    let mut known = BTreeSet::new();
    let likely = [Some(PathBuf::from("/")), env::current_dir().ok(), Some(environment::temp_dir())];
    let is_new = |path: &PathBuf| status(path).is_ok_and(|status| known.insert(status.st_dev));
    likely.into_iter().flatten().filter(is_new).collect()
}

/// The findings so far.
struct Findings {
    host: HostFacts,
    found: BTreeMap<Feature, Finding>,
    landlock_abi: Option<u32>,
}

/// Splits the message of an error into the reason and the hint.
fn reason_and_hint(error: &Error) -> (String, String) {
    let hint = error.hint().unwrap_or_default();
    let all = error.to_string();
    let reason = all.strip_suffix(hint).unwrap_or(&all).trim_end_matches(": ").to_owned();
    (reason, hint.to_owned())
}

/// Tries to start a sandbox.
fn try_start(sandbox: &Sandbox) -> Result<()> {
    match sandbox.spawn(Command::new(MISSING_PROGRAM)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn unavailable(error: Error) -> State {
    let (reason, hint) = reason_and_hint(&error);
    State::Unavailable { reason, hint }
}

impl Findings {
    fn add(&mut self, feature: Feature, state: State, detail: impl Into<String>) {
        self.found.insert(feature, Finding { feature, state, detail: detail.into() });
    }

    fn cause(&self, failure: &Failure) -> Cause {
        let denial = Denial { need: failure.need, call: failure.call, errno: failure.errno };
        Cause::of(denial, &self.host).or_else(|| Cause::likely(denial, &self.host)).unwrap_or(Cause::Other(denial.call))
    }

    fn failed(&self, failure: &Failure) -> (String, String) {
        let reason = format!("failed to {}: {}: {}", failure.step, failure.call, failure.errno);
        (reason, self.cause(failure).hint(&self.host))
    }

    /// Adds the findings of a check script for these features. Of several checks of a feature the first failure counts.
    fn add_results(&mut self, features: &[Feature], results: Result<Results>) -> Results {
        let results = match results {
            Ok(results) => results,
            Err(error) => {
                let (reason, hint) = reason_and_hint(&error);
                for &feature in features {
                    let (reason, hint) = (reason.clone(), hint.clone());
                    self.add(feature, State::Unavailable { reason, hint }, "");
                }
                return vec![];
            }
        };
        for (feature, result) in &results {
            let state = match result {
                _ if self.found.get(feature).is_some_and(|finding| finding.state != State::Available) => continue,
                CheckResult::Done(_) => State::Available,
                CheckResult::Failed(failure) => {
                    let (reason, hint) = self.failed(failure);
                    match self.cause(failure) {
                        Cause::Initramfs => State::Limited { reason, hint },
                        _ => State::Unavailable { reason, hint },
                    }
                }
                CheckResult::Without(needed) => self.not_tried(*needed),
            };
            self.add(*feature, state, "");
        }
        results
    }

    /// Returns the state of a feature that needs another one, which is unavailable.
    fn not_tried(&self, needed: Feature) -> State {
        let hint = self.found.get(&needed).and_then(Finding::hint).unwrap_or_default().to_owned();
        State::Unavailable { reason: format!("not tried, because it needs an unavailable feature: {needed}"), hint }
    }

    fn landlock(&mut self, results: &Results) {
        let version = results.iter().find_map(|(feature, result)| match (feature, result) {
            (Feature::Landlock, CheckResult::Done(version)) => Some(*version as u32),
            _ => None,
        });
        if let Some(version) = version {
            self.add(Feature::Landlock, State::Available, format!("ABI {version}"));
        }
        self.landlock_abi = version;
    }

    /// Checks that a memfd may be executed. That the kernel has memfds is known, because the check scripts run from
    /// one.
    fn memfd(&mut self) {
        let state = match probe_script::memfd() {
            Ok(()) => State::Available,
            Err(errno) => {
                let step = "create an executable memfd".to_owned();
                let failure = Failure { step, call: "memfd_create", errno: errno.to_errno(), need: Some(Need::Memfd) };
                let (reason, hint) = self.failed(&failure);
                let has_substitute =
                    self.found.get(&Feature::Openat2).is_some_and(|known| known.state == State::Available);
                if has_substitute { State::Limited { reason, hint } } else { State::Unavailable { reason, hint } }
            }
        };
        self.add(Feature::Memfd, state, "");
    }

    /// Adds the file systems that support idmapped mounts.
    fn idmapped(&mut self, directories: &[PathBuf], results: &Results) {
        let supported: Vec<String> = directories
            .iter()
            .zip(results)
            .filter(|(_, (_, result))| matches!(result, CheckResult::Done(_)))
            .map(|(directory, _)| directory.display().to_string())
            .collect();
        let Some(finding) = self.found.get_mut(&Feature::IdmappedMounts) else { return };
        match &finding.state {
            State::Unavailable { reason, hint } if !supported.is_empty() => {
                finding.state = State::Limited { reason: reason.clone(), hint: hint.clone() };
            }
            _ => {}
        }
        if !supported.is_empty() {
            finding.detail = format!("on {}", supported.join(", "));
        }
    }

    /// Checks a user namespace with subordinate IDs in its maps, and nothing else.
    fn sub_ids(&mut self) {
        let alone = Sandbox::new().namespaces(Namespaces::USER).root(Root::inherit());
        let state = match self.found.get(&Feature::UserNamespace) {
            Some(finding) if finding.state != State::Available => self.not_tried(Feature::UserNamespace),
            _ => try_start(&alone.identity(Identity::new().sub_ids())).map_or_else(unavailable, |()| State::Available),
        };
        self.add(Feature::SubIds, state, "");
    }

    fn default_sandbox(&mut self) {
        let state = try_start(&Sandbox::new()).map_or_else(unavailable, |()| State::Available);
        self.add(Feature::Sandbox, state, "");
    }

    fn cgroups(&mut self) {
        let found = cgroup::probe();
        for (name, feature) in CONTROLLERS {
            let controller = match &found {
                Ok(found) => found.iter().find(|(controller, _)| *controller == name).map(|(_, found)| found),
                Err(error) => {
                    let (reason, hint) = reason_and_hint(error);
                    self.add(feature, State::Unavailable { reason, hint }, "");
                    continue;
                }
            };
            let (state, detail) = self.controller(name, controller.unwrap_or(&Found::Absent));
            self.add(feature, state, detail);
        }
    }

    fn controller(&self, name: &str, found: &Found) -> (State, String) {
        let detail = |v2: bool, below: &Path| format!("v{}, below {}", if v2 { 2 } else { 1 }, below.display());
        let hint = |cause: Cause| cause.hint(&self.host);
        match found {
            Found::Groups { v2, below } => (State::Available, detail(*v2, below)),
            Found::AfterMove { below } => {
                let reason =
                    format!("{} has processes, and cannot pass controllers on until they are moved", below.display());
                (State::Limited { reason, hint: hint(Cause::MovedToLeaf) }, detail(true, below))
            }
            Found::Undelegated { below, unit } => {
                let reason = format!("the caller is in {unit}, which systemd has not delegated");
                (State::Unavailable { reason, hint: hint(Cause::Undelegated) }, detail(true, below))
            }
            Found::Refused { v2, below, errno } => {
                let denial = Denial { need: Some(Need::Cgroups), call: "mkdir", errno: *errno };
                let cause = Cause::of(denial, &self.host).unwrap_or(Cause::Delegation);
                let reason = format!("failed to create a cgroup in {}: mkdir: {errno}", below.display());
                (State::Unavailable { reason, hint: hint(cause) }, detail(*v2, below))
            }
            Found::NotPassedOn { below, errno } => {
                let file = below.join("cgroup.subtree_control");
                let reason = format!(
                    "cgroups in {} do not have the controller: failed to write {}: {errno}",
                    below.display(),
                    file.display()
                );
                let denial = Denial { need: Some(Need::Cgroups), call: "write", errno: *errno };
                let cause = Cause::of(denial, &self.host).unwrap_or(Cause::Delegation);
                (State::Unavailable { reason, hint: hint(cause) }, detail(true, below))
            }
            Found::Absent => {
                let reason = format!("the {name} controller is not available in the caller's cgroup");
                (State::Unavailable { reason, hint: hint(Cause::NoController) }, String::new())
            }
        }
    }

    fn support(mut self) -> Support {
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        let findings = Feature::ALL.iter().filter_map(|feature| self.found.remove(feature)).collect();
        Support { version: Version, kernel, uid: geteuid().as_raw(), landlock_abi: self.landlock_abi, findings }
    }
}
