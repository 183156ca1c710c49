//! The checks, as scripts of system calls, and their results.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Feature;
use crate::advice::Need;
use crate::confine::{Facts, Namespaces, loopback_up, write_maps};
use crate::error::Result;
use crate::launch::probe_script;
use crate::plan::{
    Address, Arg, Attributes, Change, HostId, IdMaps, Input, Label, MapLine, MapWriter, Script, Step, Word, flags, nr,
};
use crate::unix::Errno;

/// The system call by which a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was attempted.
    pub step: String,
    pub call: &'static str,
    pub errno: Errno,
    /// What its step needs of the host.
    pub need: Option<Need>,
}

/// The result of a check.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// It succeeded. The value is the result of its last call.
    Done(u64),
    Failed(Failure),
    /// It was not run, because it needs this feature, which is unavailable.
    Without(Feature),
}

/// A check in a script.
struct Check {
    feature: Feature,
    needs: &'static [Feature],
    calls: Range<usize>,
}

/// A script with several checks.
struct CheckScript {
    script: Script,
    checks: Vec<Check>,
}

/// The results of the checks of a script, in order.
pub(super) type Results = Vec<(Feature, CheckResult)>;

impl CheckScript {
    fn new(title: &'static str) -> Self {
        Self { script: Script::probes(title), checks: vec![] }
    }

    /// Adds a check. If it fails, the script continues at the returned label.
    fn begin<T>(
        &mut self,
        feature: Feature,
        needs: &'static [Feature],
        what: impl Into<Step>,
        calls: impl FnOnce(&mut Script) -> T,
    ) -> (Label, T) {
        let failed = self.script.label();
        self.script.step(what.into());
        let (calls, result) = self.script.attempt(failed, calls);
        self.checks.push(Check { feature, needs, calls });
        (failed, result)
    }

    /// Adds a check that no other one depends on.
    fn alone(
        &mut self,
        feature: Feature,
        needs: &'static [Feature],
        what: impl Into<Step>,
        calls: impl FnOnce(&mut Script),
    ) {
        let (failed, ()) = self.begin(feature, needs, what, calls);
        self.script.bind(failed);
    }

    fn run(mut self, mapping: Option<&std::os::fd::OwnedFd>) -> Result<Results> {
        self.script.report_slots();
        let values = probe_script::run(&self.script, mapping)?;
        let mut results: Results = vec![];
        for check in &self.checks {
            let failed = |needed: &&Feature| {
                results.iter().any(|(feature, result)| feature == *needed && !matches!(result, CheckResult::Done(_)))
            };
            let result = match check.needs.iter().find(failed) {
                Some(needed) => CheckResult::Without(*needed),
                None => self.result(check, &values),
            };
            results.push((check.feature, result));
        }
        Ok(results)
    }

    fn result(&self, check: &Check, values: &[u64]) -> CheckResult {
        let mut last = 0;
        for call in &self.script.calls[check.calls.clone()] {
            match call.result(values) {
                Ok(value) => last = value,
                Err(errno) => {
                    let step = &self.script.steps[call.step as usize];
                    let path = step.path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default();
                    return CheckResult::Failed(Failure {
                        step: format!("{}{path}", step.what),
                        call: call.nr.name.trim_start_matches("SYS_"),
                        errno: Errno::new(errno),
                        need: step.need,
                    });
                }
            }
        }
        CheckResult::Done(last)
    }
}

impl From<&'static str> for Step {
    fn from(what: &'static str) -> Self {
        Self::new(what)
    }
}

/// Checks system calls that change only the calling process.
pub(super) fn calls() -> Result<Results> {
    let mut checks = CheckScript::new("stockade: checks of calls");
    checks.alone(Feature::Pidfd, &[], "open a pidfd", |script| {
        let own = script.call(nr!(SYS_gettid), []).store("own pid");
        let pidfd = script.call(nr!(SYS_pidfd_open), [own.into(), Arg::NONE]).store("pidfd");
        script.close(pidfd);
    });
    checks.alone(Feature::CloseRange, &[], "close a range of descriptors", |script| {
        let none = u64::from(u32::MAX - 1);
        script.call(nr!(SYS_close_range), [none.into(), none.into(), Arg::NONE]);
    });
    checks.alone(Feature::Openat2, &[], Step::new("open").path("/"), |script| {
        let opened = script.open_directory(Path::new("/"));
        script.close(opened);
    });
    checks.alone(Feature::Clone3, &[], "start a child with clone3", clone3);
    let landlock = Step::new("query the ABI version of Landlock").needs(Need::Landlock);
    checks.alone(Feature::Landlock, &[], landlock, |script| {
        const VERSION: u64 = 1;
        script.call(nr!(SYS_landlock_create_ruleset), [Arg::NULL, Arg::NONE, VERSION.into()]).store("version");
    });
    let actions = [
        (Feature::SeccompErrno, libc::SECCOMP_RET_ERRNO, "query the seccomp action SECCOMP_RET_ERRNO"),
        (
            Feature::SeccompKillProcess,
            libc::SECCOMP_RET_KILL_PROCESS,
            "query the seccomp action SECCOMP_RET_KILL_PROCESS",
        ),
        (Feature::SeccompLog, libc::SECCOMP_RET_LOG, "query the seccomp action SECCOMP_RET_LOG"),
        (Feature::SeccompNotify, libc::SECCOMP_RET_USER_NOTIF, "query the seccomp action SECCOMP_RET_USER_NOTIF"),
    ];
    for (feature, action, what) in actions {
        checks.alone(feature, &[], Step::new(what).needs(Need::Filter), |script| {
            let action = script.arena.bytes(&action.to_ne_bytes(), format!("[{action:#x}]"));
            script.call(nr!(SYS_seccomp), [flags!(SECCOMP_GET_ACTION_AVAIL), Arg::NONE, action.into()]);
        });
    }
    let install = Step::new("install a seccomp filter").needs(Need::Filter);
    checks.alone(Feature::Seccomp, &[], install, |script| {
        script.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
        // struct sock_filter {u16 code; u8 jt, jf; u32 k}: return SECCOMP_RET_ALLOW
        let allow = u64::from((libc::BPF_RET | libc::BPF_K) as u16) | u64::from(libc::SECCOMP_RET_ALLOW) << 32;
        let filter = script.arena.bytes(&allow.to_ne_bytes(), "[RET SECCOMP_RET_ALLOW]");
        let filter = script.arena.words(&[Word::Value(1), filter.into()], "{1, [RET SECCOMP_RET_ALLOW]}");
        script.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), Arg::NONE, filter.into()]);
    });
    checks.run(None)
}

/// Starts a child by clone3(2) with a pidfd, which exits at once.
fn clone3(script: &mut Script) {
    /// Words of `struct clone_args` in its first version.
    const WORDS: u64 = 8;
    let pidfd = script.value("pidfd", 0);
    let first = script.value("clone_args", (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64);
    script.pointer("&pidfd", pidfd);
    for (name, value) in [("child_tid", 0), ("parent_tid", 0), ("exit_signal", libc::SIGCHLD as u64)] {
        script.value(name, value);
    }
    for name in ["stack", "stack_size", "tls"] {
        script.value(name, 0);
    }
    let parent = script.label();
    script.call(nr!(SYS_clone3), [Arg::SlotAddress(first), (8 * WORDS).into()]).above_zero(parent);
    script.exit(0);
    script.bind(parent);
    script.reap();
    script.close(pidfd);
}

/// Checks idmapped mounts of these directories. For an ordinary user the check ends after copying the mount.
pub(super) fn idmapped(facts: &Facts, directories: &[PathBuf]) -> Result<Results> {
    let mapping = if facts.privileged {
        let own = |id| vec![MapLine::one(id, HostId::Id(id))];
        let maps = IdMaps { uid: own(facts.ids.0), gid: own(facts.ids.1), writer: MapWriter::Caller };
        Some(probe_script::id_mapping(&maps)?)
    } else {
        None
    };
    let mut checks = CheckScript::new("stockade: checks of idmapped mounts");
    for directory in directories {
        let step = Step::new("create an idmapped mount of").path(directory).needs(Need::IdmappedMount);
        checks.alone(Feature::IdmappedMounts, &[], step, |script| {
            let path = script.text(directory);
            let how = flags!(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
            let tree = script.call(nr!(SYS_open_tree), [Arg::CWD, path, how]).store("tree");
            if mapping.is_some() {
                let (zero, userns) = (Word::Value(0), Word::Address(Address::Input(Input::IdMapping(0))));
                script.input(Input::IdMapping(0));
                let idmap = [Word::Value(libc::MOUNT_ATTR_IDMAP), zero, zero, userns];
                let attributes = script.arena.words(&idmap, "{set = IDMAP, userns = <id mapping>}");
                let empty = script.text("");
                let set = [tree.into(), empty, flags!(AT_EMPTY_PATH), attributes.into(), 32u64.into()];
                script.call(nr!(SYS_mount_setattr), set);
            }
            script.close(tree);
        });
    }
    checks.run(mapping.as_ref())
}

/// Checks namespaces, and operations inside them. If the caller is not root, they are created inside a user namespace.
pub(super) fn namespaces(facts: &Facts) -> Result<Results> {
    let mut checks = CheckScript::new("stockade: checks of namespaces");
    let (failed, ()) = unshare(&mut checks, Feature::UserNamespace, &[], Namespaces::USER, "create a user namespace");
    checks.alone(Feature::IdMaps, &[Feature::UserNamespace], "map an id", |script| {
        let own = |id| vec![MapLine::one(id, HostId::Id(id))];
        let maps = IdMaps { uid: own(facts.ids.0), gid: own(facts.ids.1), writer: MapWriter::Process };
        write_maps(script, &maps);
    });
    let needs: &'static [Feature] = if facts.privileged {
        // Root needs no user namespace.
        checks.script.bind(failed);
        &[]
    } else {
        &[Feature::UserNamespace]
    };
    checks.kinds(needs);
    if !facts.privileged {
        checks.script.bind(failed);
    }
    checks.run(None)
}

fn unshare(
    checks: &mut CheckScript,
    feature: Feature,
    needs: &'static [Feature],
    kind: Namespaces,
    what: &'static str,
) -> (Label, ()) {
    checks.begin(feature, needs, Step::new(what).needs(Need::Namespaces(kind.bits().into())), |script| {
        script.call(nr!(SYS_unshare), [kind.arg()]);
    })
}

impl CheckScript {
    /// Checks the other kinds of namespaces.
    fn kinds(&mut self, needs: &'static [Feature]) {
        let kinds = [
            (Feature::PidNamespace, Namespaces::PID, "create a pid namespace"),
            (Feature::IpcNamespace, Namespaces::IPC, "create an ipc namespace"),
            (Feature::UtsNamespace, Namespaces::UTS, "create a uts namespace"),
            (Feature::CgroupNamespace, Namespaces::CGROUP, "create a cgroup namespace"),
        ];
        for (feature, kind, what) in kinds {
            let (failed, ()) = unshare(self, feature, needs, kind, what);
            self.script.bind(failed);
        }
        let (failed, ()) = unshare(self, Feature::NetNamespace, needs, Namespaces::NET, "create a net namespace");
        self.alone(Feature::Loopback, &[Feature::NetNamespace], "bring up the loopback interface", loopback_up);
        self.script.bind(failed);
        let (failed, ()) = unshare(self, Feature::MountNamespace, needs, Namespaces::MOUNT, "create a mount namespace");
        self.mounts();
        self.script.bind(failed);
        // This is the last one, because a process that created one shares memory with no later child.
        let (failed, ()) = unshare(self, Feature::TimeNamespace, needs, Namespaces::TIME, "create a time namespace");
        self.script.bind(failed);
    }

    /// Checks operations in a mount namespace.
    fn mounts(&mut self) {
        let step = Step::new("mount a tmpfs").needs(Need::Tmpfs);
        let (failed, tmpfs) = self.begin(Feature::Tmpfs, &[Feature::MountNamespace], step, |script| {
            let private = [Arg::NULL, script.text("/"), Arg::NULL, flags!(MS_REC | MS_PRIVATE), Arg::NULL];
            script.call(nr!(SYS_mount), private);
            let tmpfs = script.file_system("tmpfs", &[("mode", Some("0755".into()))], Attributes::SAFE);
            script.move_mount_to(tmpfs, Arg::CWD, "/");
            tmpfs
        });
        let step = Step::new("create an overlay").needs(Need::Overlay);
        self.alone(Feature::Overlay, &[Feature::Tmpfs], step, |script| {
            let layers = [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")];
            for (_, name) in layers {
                script.mkdirat(tmpfs, name, 0o755);
            }
            script.call(nr!(SYS_fchdir), [tmpfs.into()]);
            let mut options = layers.map(|(option, name)| (option, Some(name.to_owned()))).to_vec();
            options.push(("userxattr", None));
            let overlay = script.file_system("overlay", &options, Attributes::SAFE);
            script.close(overlay);
        });
        let step = Step::new("change attributes of mounts").needs(Need::Mounts);
        self.alone(Feature::MountSetattr, &[Feature::Tmpfs], step, |script| {
            script.mount_setattr(tmpfs, Change::tree(Attributes::SAFE));
        });
        let needs = &[Feature::MountNamespace, Feature::PidNamespace];
        self.alone(Feature::Proc, needs, Step::new("mount a new").path("/proc").needs(Need::Proc), |script| {
            let fs = script.attempt_in_child(|child| child.open_file_system("proc", &[]));
            let proc = script.mount_of(fs, Attributes::SAFE | Attributes::NOEXEC);
            script.close(proc);
        });
        self.alone(
            Feature::PivotRoot,
            &[Feature::Tmpfs],
            Step::new("change the root").path("/").needs(Need::Pivot),
            |script| {
                script.call(nr!(SYS_fchdir), [tmpfs.into()]);
                let dot = script.text(".");
                script.call(nr!(SYS_pivot_root), [dot, dot]);
                script.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
            },
        );
        self.script.bind(failed);
    }
}
