//! What is tried, as programs of system calls, and what came of it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Feature;
use crate::confine::{Host, Namespaces, loopback_up, write_maps};
use crate::error::{Errno, Result};
use crate::launch::trial;
use crate::plan::{
    Address, Arg, Attributes, Change, HostId, IdMaps, Input, Label, MapLine, Program, Step, Word, Writer, flags, nr,
};

/// A call of a trial that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was being done.
    pub step: String,
    pub call: &'static str,
    pub errno: Errno,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The result of its last call.
    Done(u64),
    Failed(Failure),
    /// It takes another one that has failed.
    Without(Feature),
}

/// A trial in a program.
struct Trial {
    feature: Feature,
    needs: &'static [Feature],
    calls: Range<usize>,
}

/// A program of trials.
struct Trials {
    program: Program,
    trials: Vec<Trial>,
}

/// What came of the trials of a program, in order.
pub(super) type Results = Vec<(Feature, Tried)>;

impl Trials {
    fn new(title: &'static str) -> Self {
        Self { program: Program::trials(title), trials: vec![] }
    }

    /// Tries something; who fails goes on at the label.
    fn begin<T>(
        &mut self,
        feature: Feature,
        needs: &'static [Feature],
        what: impl Into<Step>,
        calls: impl FnOnce(&mut Program) -> T,
    ) -> (Label, T) {
        let failed = self.program.label();
        self.program.step(what.into());
        let (calls, result) = self.program.attempt(failed, calls);
        self.trials.push(Trial { feature, needs, calls });
        (failed, result)
    }

    /// The same for something that nothing else depends on.
    fn alone(
        &mut self,
        feature: Feature,
        needs: &'static [Feature],
        what: impl Into<Step>,
        calls: impl FnOnce(&mut Program),
    ) {
        let (failed, ()) = self.begin(feature, needs, what, calls);
        self.program.bind(failed);
    }

    fn run(mut self, mapping: Option<&std::os::fd::OwnedFd>) -> Result<Results> {
        self.program.tell();
        let told = trial::run(&self.program, mapping)?;
        let mut results: Results = vec![];
        for trial in &self.trials {
            let failed = |needed: &&Feature| {
                results.iter().any(|(feature, tried)| feature == *needed && !matches!(tried, Tried::Done(_)))
            };
            let tried = match trial.needs.iter().find(failed) {
                Some(needed) => Tried::Without(*needed),
                None => self.result(trial, &told),
            };
            results.push((trial.feature, tried));
        }
        Ok(results)
    }

    fn result(&self, trial: &Trial, told: &[u64]) -> Tried {
        let mut last = 0;
        for call in &self.program.calls[trial.calls.clone()] {
            match call.result(told) {
                Ok(value) => last = value,
                Err(errno) => {
                    let step = &self.program.steps[call.step as usize];
                    let path = step.path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default();
                    return Tried::Failed(Failure {
                        step: format!("{}{path}", step.what),
                        call: call.nr.name.trim_start_matches("SYS_"),
                        errno: Errno(errno),
                    });
                }
            }
        }
        Tried::Done(last)
    }
}

impl From<&'static str> for Step {
    fn from(what: &'static str) -> Self {
        Self::new(what)
    }
}

/// Calls that change nothing but the process that makes them.
pub(super) fn calls() -> Result<Results> {
    let mut trials = Trials::new("stockade: trials of calls");
    trials.alone(Feature::Pidfd, &[], "opening a pidfd", |program| {
        let own = program.call(nr!(SYS_gettid), []).store("own pid");
        let pidfd = program.call(nr!(SYS_pidfd_open), [own.into(), Arg::NONE]).store("pidfd");
        program.close(pidfd);
    });
    trials.alone(Feature::CloseRange, &[], "closing a range of descriptors", |program| {
        let none = u64::from(u32::MAX - 1);
        program.call(nr!(SYS_close_range), [none.into(), none.into(), Arg::NONE]);
    });
    trials.alone(Feature::Openat2, &[], Step::new("opening").path("/"), |program| {
        let opened = program.open_directory(Path::new("/"));
        program.close(opened);
    });
    trials.alone(Feature::Clone3, &[], "starting a child with clone3", clone3);
    trials.alone(Feature::Landlock, &[], "asking for the version of Landlock", |program| {
        const VERSION: u64 = 1;
        program.call(nr!(SYS_landlock_create_ruleset), [Arg::NULL, Arg::NONE, VERSION.into()]).store("version");
    });
    let actions = [
        (Feature::SeccompErrno, libc::SECCOMP_RET_ERRNO, "asking seccomp for SECCOMP_RET_ERRNO"),
        (Feature::SeccompKillProcess, libc::SECCOMP_RET_KILL_PROCESS, "asking seccomp for SECCOMP_RET_KILL_PROCESS"),
        (Feature::SeccompLog, libc::SECCOMP_RET_LOG, "asking seccomp for SECCOMP_RET_LOG"),
        (Feature::SeccompNotify, libc::SECCOMP_RET_USER_NOTIF, "asking seccomp for SECCOMP_RET_USER_NOTIF"),
    ];
    for (feature, action, what) in actions {
        trials.alone(feature, &[], what, |program| {
            let action = program.arena.bytes(&action.to_ne_bytes(), format!("[{action:#x}]"));
            program.call(nr!(SYS_seccomp), [flags!(SECCOMP_GET_ACTION_AVAIL), Arg::NONE, action.into()]);
        });
    }
    trials.alone(Feature::Seccomp, &[], "setting a filter of system calls", |program| {
        program.prctl(flags!(PR_SET_NO_NEW_PRIVS), 1);
        // struct sock_filter {u16 code; u8 jt, jf; u32 k}: return SECCOMP_RET_ALLOW
        let allow = u64::from((libc::BPF_RET | libc::BPF_K) as u16) | u64::from(libc::SECCOMP_RET_ALLOW) << 32;
        let filter = program.arena.bytes(&allow.to_ne_bytes(), "[RET SECCOMP_RET_ALLOW]");
        let filter = program.arena.words(&[Word::Value(1), filter.into()], "{1, [RET SECCOMP_RET_ALLOW]}");
        program.call(nr!(SYS_seccomp), [flags!(SECCOMP_SET_MODE_FILTER), Arg::NONE, filter.into()]);
    });
    trials.run(None)
}

/// A child by clone3(2), with a pidfd, that ends at once.
fn clone3(program: &mut Program) {
    /// Words of `struct clone_args` in its first version.
    const WORDS: u64 = 8;
    let pidfd = program.value("pidfd", 0);
    let first = program.value("clone_args", (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64);
    program.pointer("&pidfd", pidfd);
    for (name, value) in [("child_tid", 0), ("parent_tid", 0), ("exit_signal", libc::SIGCHLD as u64)] {
        program.value(name, value);
    }
    for name in ["stack", "stack_size", "tls"] {
        program.value(name, 0);
    }
    let parent = program.label();
    program.call(nr!(SYS_clone3), [Arg::SlotAddress(first), (8 * WORDS).into()]).above_zero(parent);
    program.exit(0);
    program.bind(parent);
    program.reap();
    program.close(pidfd);
}

/// A mount of the host's that shows other owners, in each of some directories. An ordinary user's trial ends at the copy of
/// the mount.
pub(super) fn idmapped(host: &Host, directories: &[PathBuf]) -> Result<Results> {
    let mapping = if host.privileged {
        let own = |id| vec![MapLine::one(id, HostId::Id(id))];
        let maps = IdMaps { uid: own(host.ids.0), gid: own(host.ids.1), writer: Writer::Host };
        Some(trial::id_mapping(&maps)?)
    } else {
        None
    };
    let mut trials = Trials::new("stockade: trials of idmapped mounts");
    for directory in directories {
        let step = Step::new("making an idmapped mount of").path(directory);
        trials.alone(Feature::IdmappedMounts, &[], step, |program| {
            let path = program.text(directory);
            let how = flags!(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
            let tree = program.call(nr!(SYS_open_tree), [Arg::CWD, path, how]).store("tree");
            if mapping.is_some() {
                let (zero, userns) = (Word::Value(0), Word::Address(Address::Input(Input::IdMapping(0))));
                program.input(Input::IdMapping(0));
                let idmap = [Word::Value(libc::MOUNT_ATTR_IDMAP), zero, zero, userns];
                let attributes = program.arena.words(&idmap, "{set = IDMAP, userns = <id mapping>}");
                let empty = program.text("");
                let set = [tree.into(), empty, flags!(AT_EMPTY_PATH), attributes.into(), 32u64.into()];
                program.call(nr!(SYS_mount_setattr), set);
            }
            program.close(tree);
        });
    }
    trials.run(mapping.as_ref())
}

/// The namespaces, and what takes place in them. Whoever is not root makes the others inside a user namespace.
pub(super) fn namespaces(host: &Host) -> Result<Results> {
    let mut trials = Trials::new("stockade: trials of namespaces");
    let (failed, ()) = unshare(&mut trials, Feature::UserNamespace, &[], Namespaces::USER, "making a user namespace");
    trials.alone(Feature::IdMaps, &[Feature::UserNamespace], "mapping an id", |program| {
        let own = |id| vec![MapLine::one(id, HostId::Id(id))];
        let maps = IdMaps { uid: own(host.ids.0), gid: own(host.ids.1), writer: Writer::Process };
        write_maps(program, &maps);
    });
    let needs: &'static [Feature] = if host.privileged {
        // It can do without.
        trials.program.bind(failed);
        &[]
    } else {
        &[Feature::UserNamespace]
    };
    trials.kinds(needs);
    if !host.privileged {
        trials.program.bind(failed);
    }
    trials.run(None)
}

fn unshare(
    trials: &mut Trials,
    feature: Feature,
    needs: &'static [Feature],
    kind: Namespaces,
    what: &'static str,
) -> (Label, ()) {
    trials.begin(feature, needs, what, |program| {
        program.call(nr!(SYS_unshare), [kind.arg()]);
    })
}

impl Trials {
    /// The other kinds.
    fn kinds(&mut self, needs: &'static [Feature]) {
        let kinds = [
            (Feature::PidNamespace, Namespaces::PID, "making a pid namespace"),
            (Feature::IpcNamespace, Namespaces::IPC, "making an ipc namespace"),
            (Feature::UtsNamespace, Namespaces::UTS, "making a uts namespace"),
            (Feature::CgroupNamespace, Namespaces::CGROUP, "making a cgroup namespace"),
        ];
        for (feature, kind, what) in kinds {
            let (failed, ()) = unshare(self, feature, needs, kind, what);
            self.program.bind(failed);
        }
        let (failed, ()) = unshare(self, Feature::NetNamespace, needs, Namespaces::NET, "making a net namespace");
        self.alone(Feature::Loopback, &[Feature::NetNamespace], "bringing the loopback up", loopback_up);
        self.program.bind(failed);
        let (failed, ()) = unshare(self, Feature::MountNamespace, needs, Namespaces::MOUNT, "making a mount namespace");
        self.mounts();
        self.program.bind(failed);
        // Last: who has made one shares memory with no child any more.
        let (failed, ()) = unshare(self, Feature::TimeNamespace, needs, Namespaces::TIME, "making a time namespace");
        self.program.bind(failed);
    }

    /// What is mounted in a mount namespace.
    fn mounts(&mut self) {
        let (failed, tmpfs) = self.begin(Feature::Tmpfs, &[Feature::MountNamespace], "mounting a tmpfs", |program| {
            let private = [Arg::NULL, program.text("/"), Arg::NULL, flags!(MS_REC | MS_PRIVATE), Arg::NULL];
            program.call(nr!(SYS_mount), private);
            let tmpfs = program.file_system("tmpfs", &[("mode", Some("0755".into()))], Attributes::SAFE);
            program.move_mount_to(tmpfs, Arg::CWD, "/");
            tmpfs
        });
        self.alone(Feature::Overlay, &[Feature::Tmpfs], "making an overlay", |program| {
            let layers = [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")];
            for (_, name) in layers {
                program.mkdirat(tmpfs, name, 0o755);
            }
            program.call(nr!(SYS_fchdir), [tmpfs.into()]);
            let mut options = layers.map(|(option, name)| (option, Some(name.to_owned()))).to_vec();
            options.push(("userxattr", None));
            let overlay = program.file_system("overlay", &options, Attributes::SAFE);
            program.close(overlay);
        });
        self.alone(Feature::MountSetattr, &[Feature::Tmpfs], "changing attributes of mounts", |program| {
            program.mount_setattr(tmpfs, Change::tree(Attributes::SAFE));
        });
        let needs = &[Feature::MountNamespace, Feature::PidNamespace];
        self.alone(Feature::Proc, needs, Step::new("mounting a new").path("/proc"), |program| {
            let fs = program.attempt_in_child(|child| child.open_file_system("proc", &[]));
            let proc = program.mount_of(fs, Attributes::SAFE | Attributes::NOEXEC);
            program.close(proc);
        });
        self.alone(Feature::PivotRoot, &[Feature::Tmpfs], Step::new("changing the root").path("/"), |program| {
            program.call(nr!(SYS_fchdir), [tmpfs.into()]);
            let dot = program.text(".");
            program.call(nr!(SYS_pivot_root), [dot, dot]);
            program.call(nr!(SYS_umount2), [dot, flags!(MNT_DETACH)]);
        });
        self.program.bind(failed);
    }
}
