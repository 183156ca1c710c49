//! The decisions before the first call is compiled: the namespaces, IDs, cgroups and filters that the sandbox gets on
//! this host. A configuration that can be refused beforehand is refused here. No system call of a plan belongs here.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::landlock::ABI;
use nix::unistd::{Gid, getgroups};

use super::config::SandboxConfig;
use super::helper::CGROUPS;
use crate::cgroup::{Cgroup, Entrant, Spec, ViewMount};
use crate::confine::facts::Facts;
use crate::confine::identity::{self, Resolved};
use crate::confine::landlock::{self, Handled, Implied, Ruleset};
use crate::confine::landlock_fallback;
use crate::confine::mount::{self, Endpoints};
use crate::confine::namespaces::{self, Chosen};
use crate::confine::seccomp::{self, Filter, Policy, SetUpUnderFilter, Verdict};
use crate::confine::secure_bits::SecureBits;
use crate::confine::{Action, Capabilities, Capability, Namespaces, Operation};
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::layer::Layer;
use crate::outcome::{Enforcement, Gap, GapKind, Unenforced};
use crate::plan::HostId;
use crate::plan::Word;

/// The number of open_tree_attr(2) on all architectures.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// A configuration, resolved for this host.
pub(super) struct Decisions<'a> {
    pub config: &'a SandboxConfig,
    pub facts: Facts,
    pub chosen: Chosen,
    pub ids: Resolved,
    pub cgroup: Option<Spec>,
    pub filter: Option<Arc<Filter>>,
    /// Compiled programs beside the filter.
    pub programs: Vec<Vec<Word>>,
    /// The Landlock rules that stand in for the root, and the requested ones, as far as there are any.
    pub landlock: Vec<Ruleset<'a>>,
    /// The Landlock rule that denies signals to other processes where there is no PID namespace.
    pub signals: Option<Implied>,
}

impl<'a> Decisions<'a> {
    /// Resolves and checks a configuration. Descriptors that the plan holds are added to `descriptors`; what is
    /// unenforced, and gaps, to `enforcement`.
    pub fn new(
        config: &'a SandboxConfig,
        set_up: SetUpUnderFilter,
        can_idmap: fn(&Path) -> Option<bool>,
        descriptors: &mut Vec<Arc<OwnedFd>>,
        enforcement: &mut Enforcement,
    ) -> Result<Self> {
        let facts = config.facts(can_idmap)?;
        identity::check_caller(&config.identity, &facts)?;
        let chosen = namespaces::choose(config.namespaces, &config.joins, descriptors, &facts)?;
        namespaces::check_offsets(chosen.created, config.time_offsets)?;
        check_nestable(config, chosen.all())?;
        let ids = identity::resolve(&config.identity, &chosen, &facts)?;
        let cgroup = cgroup(config, &facts, &ids, &mut enforcement.unenforced)?;
        let landlock = rulesets(config, &facts, &mut enforcement.unenforced)?;
        enforcement.unenforced.extend(cgroup.as_ref().and_then(Spec::unenforced).cloned());
        if cgroup.as_ref().is_some_and(Spec::may_be_owned) {
            enforcement.unenforced.extend(may_change_limits(config, &chosen, &landlock)?);
        }
        let mut policy = Cow::Borrowed(&config.seccomp);
        if config.nestable {
            policy = Cow::Owned(policy.into_owned().allow_nesting());
            enforcement.gaps.extend(nesting(&ids, &facts));
        }
        if !chosen.all().contains(Namespaces::PID) {
            policy = Cow::Owned(policy.into_owned().guard_other_processes());
        }
        let programs = config.seccomp.programs()?;
        let filter = (!config.seccomp.is_unconfined()).then(|| seccomp::compile(&policy, set_up)).transpose()?;
        enforcement.gaps.extend(shown_terminals(config, &landlock));
        enforcement.gaps.extend(changeable_processes(config, &ids, &landlock));
        check_fallback(config, &facts)?;
        enforcement.gaps.extend(connectable_sockets(config, &facts));
        let mut decisions = Self { config, facts, chosen, ids, cgroup, filter, programs, landlock, signals: None };
        decisions.check_root()?;
        config.umask.check_mask()?;
        let has_namespace = decisions.has(Namespaces::USER);
        config.capabilities.check(decisions.facts.last_capability, decisions.has_capabilities(), has_namespace)?;
        if decisions.has_capabilities() {
            config.capabilities.check_secure_bits(decisions.secure_bits())?;
        }
        decisions.check_new_privs()?;
        decisions.protect_other_processes(&mut enforcement.gaps);
        enforcement.gaps.extend(decisions.callers_cgroup());
        enforcement.gaps.extend(decisions.replaceable_paths());
        enforcement.gaps.extend(decisions.changeable_mounts());
        Ok(decisions)
    }

    /// Whether the program is in a namespace of this kind, new or joined.
    pub fn has(&self, kind: Namespaces) -> bool {
        self.chosen.all().contains(kind)
    }

    /// Whether the sandbox creates a namespace of this kind.
    pub fn creates(&self, kind: Namespaces) -> bool {
        self.chosen.created.contains(kind)
    }

    /// The mounts by which the program sees its cgroups.
    pub fn cgroup_view(&self) -> &[ViewMount] {
        let has_place = self.creates(Namespaces::MOUNT) && self.config.root.has_place_of_its_own(CGROUPS);
        match &self.cgroup {
            Some(spec) if has_place && self.creates(Namespaces::CGROUP) => spec.view(),
            _ => &[],
        }
    }

    /// The host name that the sandbox sets.
    pub fn hostname(&self) -> Option<&OsStr> {
        let default = self.creates(Namespaces::UTS).then_some(OsStr::new("sandbox"));
        self.config.hostname.as_deref().or(default)
    }

    /// The owner of the program's pipes, if the caller may change it.
    pub fn owner(&self) -> Option<(HostId, HostId)> {
        self.facts.privileged.then_some((self.ids.host_uid, self.ids.host_gid))
    }

    /// Whether the helper stays while the program runs: there is no PID namespace that terminates with the sandbox.
    pub fn helper_stays(&self) -> bool {
        !self.creates(Namespaces::PID)
    }

    /// Whether the set-up processes have capabilities.
    pub fn has_capabilities(&self) -> bool {
        self.has(Namespaces::USER) || self.facts.privileged
    }

    /// The securebits of a process of the sandbox before any are set. A user namespace has none.
    pub fn secure_bits(&self) -> SecureBits {
        if self.has(Namespaces::USER) { SecureBits::default() } else { self.facts.secure_bits }
    }

    /// Whether the filter lets the program make a call.
    pub fn allows(&self, call: libc::c_long, args: &[u64; 6]) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| !matches!(filter.policy.verdict(call as i32, args), Verdict::Deny(_) | Verdict::Kill))
    }

    /// Whether the filter lets a process trace another, or ask its parent to trace it (ptrace(2)).
    pub fn allows_tracing(&self) -> bool {
        let requests = [libc::PTRACE_TRACEME, libc::PTRACE_ATTACH, libc::PTRACE_SEIZE];
        requests.into_iter().any(|request| self.allows(libc::SYS_ptrace, &[u64::from(request), 0, 0, 0, 0, 0]))
    }

    /// The policy by which the supervisor decides the calls that the filter passes to the caller, if there are any.
    pub fn supervised_policy(&self) -> Option<Arc<Policy>> {
        let policy = &self.filter.as_ref()?.policy;
        if policy.needs_listener() { Some(policy.clone()) } else { None }
    }

    /// How the sockets and FIFOs of the host are made unusable.
    pub fn endpoints(&self, operations: &[Operation]) -> Endpoints {
        // A capability has no effect on files whose owner has no ID in the user namespace.
        let has_no_capabilities = self.creates(Namespaces::USER) || self.config.capabilities == Capabilities::none();
        let can_unmap = self.facts.privileged && self.facts.has_setattr() && has_no_capabilities;
        let unmapped = self.ids.without_owners().filter(|_| can_unmap);
        let allows = |call: libc::c_long, args: [u64; 3]| {
            let args = [args[0], args[1], args[2], 0, 0, 0];
            let Some(filter) = &self.filter else { return true };
            matches!(filter.policy.decide(call as i32, &args), Action::Allow | Action::Log | Action::Notify)
        };
        let unix = [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0];
        let write = [libc::AT_FDCWD as u64, 0, libc::O_WRONLY as u64];
        let may_connect = allows(libc::SYS_socket, unix) || allows(libc::SYS_socketpair, unix);
        let may_write = allows(libc::SYS_openat, write) || allows(libc::SYS_openat2, [0; 3]);
        // Landlock denies mounts to the processes that it restricts, also in a nested user namespace.
        let may_mount = allows(libc::SYS_mount, [0; 3]) || allows(libc::SYS_move_mount, [0; 3]);
        let can_restrict = !may_mount && (!self.config.new_privs || self.has_capabilities());
        let landlock = Some(self.facts.landlock()).filter(|&abi| abi >= ABI::V2 && can_restrict);
        let writable = mount::writable_places(&self.facts, operations, self.config.root.is_writable());
        Endpoints::new(unmapped, landlock, [may_connect, may_write], writable)
    }

    /// Whether the program has user and group IDs other than the host's root, and cannot change to that.
    pub fn is_other_than_root(&self) -> bool {
        // The ID maps of a namespace that root joins are not known.
        let is_known = !(self.facts.privileged && self.chosen.joined_kinds().contains(Namespaces::USER));
        let keeps_groups = self.ids.groups.is_none();
        let keeps_roots_group = || getgroups().map_or(true, |groups| groups.contains(&Gid::from_raw(0)));
        is_known && !self.ids.reaches_root() && !(keeps_groups && keeps_roots_group())
    }

    /// Refuses a root that needs mounts without a mount namespace to create them in.
    fn check_root(&self) -> Result<()> {
        let root = &self.config.root;
        let own = self.chosen.created.contains(Namespaces::MOUNT);
        if !own && root.needs_mount_namespace() {
            let place = if self.has(Namespaces::MOUNT) { "the joined mount namespace" } else { "the caller's" };
            let (what, instead) = match self.config.landlock.as_ref().is_some_and(|landlock| landlock.needs_mounts()) {
                true => ("Landlock::deny or Landlock::deny_write", "remove them"),
                false => ("the root", "use Root::inherit(), or Root::from_dir(…) without operations"),
            };
            return Err(Error::invalid(
                format!("{what} needs mounts, which would be created in {place}"),
                format!("create a mount namespace (Namespaces::MOUNT), or {instead}"),
            ));
        }
        if !own && root.chroot().is_some() && !self.facts.privileged && !self.has(Namespaces::USER) {
            return Err(Error::invalid(
                "chroot(2) needs root, or a user namespace",
                format!("add Namespaces::MOUNT and Namespaces::USER, or {}", self.facts.way_to_rights()),
            ));
        }
        Ok(())
    }

    /// Refuses filters without `no_new_privs` if the set-up has no capabilities.
    fn check_new_privs(&self) -> Result<()> {
        let filters = self.filter.is_some() || !self.programs.is_empty() || !self.landlock.is_empty();
        if self.config.new_privs && filters && !self.has_capabilities() {
            return Err(Error::invalid(
                "without no_new_privs this caller may install neither a seccomp filter nor Landlock rules",
                format!("add Namespaces::USER, {}, or remove Sandbox::allow_new_privs", self.facts.way_to_rights()),
            ));
        }
        Ok(())
    }

    /// Whether the filter lets the program make one of these calls, if all arguments are 0.
    fn allows_any(&self, calls: &[libc::c_long]) -> bool {
        calls.iter().any(|&call| self.allows(call, &[0; 6]))
    }

    /// Whether the program may create a user namespace with a mount namespace, in which it has every capability. The
    /// mounts that it has there are locked: it can add and detach some, but reveals nothing and makes nothing writable.
    fn may_have_mounts_of_its_own(&self) -> bool {
        const BOTH: libc::c_int = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
        let allows = |call, flags: libc::c_int| self.allows(call, &[flags as u64, 0, 0, 0, 0, 0]);
        let creates = |kind| {
            [kind, kind | libc::SIGCHLD, BOTH, BOTH | libc::SIGCHLD].iter().any(|&flags| allows(libc::SYS_clone, flags))
                || allows(libc::SYS_unshare, kind)
                || allows(libc::SYS_unshare, BOTH)
        };
        // A filter cannot see the flags of clone3(2).
        self.allows_any(&[libc::SYS_clone3]) || (creates(libc::CLONE_NEWUSER) && creates(libc::CLONE_NEWNS))
    }

    /// Whether the program has the capability to change the mounts of the sandbox, which are not locked for it.
    fn administers_mounts(&self) -> bool {
        self.creates(Namespaces::MOUNT) && self.config.capabilities.has(Capability::SysAdmin)
    }

    fn landlock_denies_mounts(&self) -> bool {
        self.landlock.iter().any(|set| set.handled.denies_mounts())
    }

    /// Whether the program may mount file systems.
    fn may_mount(&self) -> bool {
        let may_mount = self.allows_any(&[libc::SYS_mount, libc::SYS_fsmount]);
        may_mount && (self.may_have_mounts_of_its_own() || self.administers_mounts()) && !self.landlock_denies_mounts()
    }

    /// The protected paths, if the program may create a mount namespace and change its mounts: there they can be no
    /// mount points any more, and be renamed.
    fn replaceable_paths(&self) -> Option<Gap> {
        let changes = [libc::SYS_mount, libc::SYS_umount2, libc::SYS_move_mount];
        let may_change = self.allows_any(&changes) && self.may_have_mounts_of_its_own();
        let may_replace = may_change && !self.landlock_denies_mounts();
        (self.config.root.protects() && may_replace).then(|| {
            Gap::new(
                GapKind::ProtectedPaths,
                "the program can replace a path that Root::protect, Root::read_only or a git workspace protects, since the \
                 filter allows namespaces and mounts",
                "use Seccomp::new, or another policy that denies unshare(2), clone3(2), clone(2) with the flags of \
                 namespaces, mount(2), umount2(2) and move_mount(2)",
            )
        })
    }

    /// The mounts of the sandbox, if the program has the capability to change them and the filter allows a call that
    /// does. Rules that the root implies may deny some of these, which is not known yet.
    fn changeable_mounts(&self) -> Option<Gap> {
        // Landlock knows nothing of these.
        let unrestricted = [libc::SYS_mount_setattr, libc::SYS_open_tree, OPEN_TREE_ATTR];
        let others = [libc::SYS_mount, libc::SYS_umount2, libc::SYS_move_mount];
        let allows = self.allows_any(&unrestricted) || (self.allows_any(&others) && !self.landlock_denies_mounts());
        (self.administers_mounts() && allows).then(|| {
            Gap::new(
                GapKind::Mounts,
                "the program can change the mounts of the sandbox, since it keeps CAP_SYS_ADMIN and the filter allows \
                 mounts: it can make read-only ones writable, and see what others hide",
                "remove Capability::SysAdmin, or deny mount(2), umount2(2), move_mount(2), mount_setattr(2), \
                 open_tree(2) and open_tree_attr(2): remove Sandbox::nestable, or use Seccomp::new",
            )
        })
    }

    /// The cgroup of the caller, if the program may write to it: in namespaces of its own it can mount any hierarchy.
    fn callers_cgroup(&self) -> Option<Gap> {
        let may_write = self.may_mount() && self.ids.may_be(self.facts.ids.0);
        let is_writable = |mounts: &[u8]| Spec::leaves_writable(self.cgroup.as_ref(), mounts);
        (may_write && self.facts.mountinfo().map_or(true, is_writable)).then(|| {
            Gap::new(
                GapKind::Cgroup,
                "the program can limit, freeze and kill the processes in the caller's cgroup: its files belong to the \
                 program's user, and the filter allows namespaces and mounts, by which they can be reached",
                "set Sandbox::cgroup, which gives the program a cgroup of its own, or deny mounts: remove \
                 Sandbox::nestable, or use Seccomp::new",
            )
        })
    }

    /// Protects the user's other processes from a program without a PID namespace, as far as the kernel supports it.
    fn protect_other_processes(&mut self, gaps: &mut Vec<Gap>) {
        if self.has(Namespaces::PID) {
            return;
        }
        if self.filter.is_none() {
            gaps.push(Gap::new(
                GapKind::Processes,
                "the program can change the limits, scheduling and priority of the user's other processes, without a PID \
                 namespace and without a seccomp filter",
                "add Namespaces::PID, or a seccomp policy",
            ));
        }
        let allowed = self.config.landlock.as_ref().is_some_and(|requested| requested.allows_any_signal());
        if allowed || self.landlock.iter().any(|set| set.handled.scopes_signals()) {
            return;
        }
        let can_restrict = !self.config.new_privs || self.has_capabilities();
        self.signals = Some(self.facts.landlock()).filter(|_| can_restrict).and_then(Implied::own_signals);
        if self.signals.is_none() {
            gaps.push(Gap::new(
                GapKind::Signals,
                "the program can send signals to the user's other processes, and trace them as far as the filter allows \
                 ptrace(2), without a PID namespace and without Landlock of Linux 6.12",
                "add Namespaces::PID",
            ));
        }
    }
}

/// The cgroup that is requested, or that a limit needs.
fn cgroup(
    config: &SandboxConfig,
    facts: &Facts,
    ids: &Resolved,
    unenforced: &mut Vec<Unenforced>,
) -> Result<Option<Spec>> {
    // A process that has changed its user may not clone into a cgroup of the caller.
    let entrant = Entrant { may_own: ids.may_be(facts.ids.0), is_cloned_by_caller: !facts.privileged };
    let counts_cpu = config.limits.counts_cpu();
    let unenforced = config.is_best_effort(Layer::Cgroup).then_some(unenforced);
    match &config.cgroup {
        Some(cgroup) => Spec::resolve(cgroup, counts_cpu, entrant, unenforced).map(Some),
        None if counts_cpu => Spec::resolve(&Cgroup::new(), true, entrant, unenforced).map(Some),
        None => Ok(None),
    }
}

/// Whether the program could change its own limits: it owns their files, and has the mounts of the caller.
fn may_change_limits(config: &SandboxConfig, chosen: &Chosen, landlock: &[Ruleset<'_>]) -> Result<Option<Unenforced>> {
    if chosen.created.contains(Namespaces::MOUNT) {
        return Ok(None);
    }
    let below = config.root.chroot().map_or_else(|| "/".into(), HostPath::unresolved);
    let error = Error::invalid(
        "the program can change its limits: their files belong to its user, and without a mount namespace of its own the \
         cgroup file system is not read-only",
        "add Namespaces::MOUNT, or Landlock rules that allow no writing in /sys/fs/cgroup",
    );
    let unenforced = || Unenforced::new("limits that the program cannot change", &error.of(Layer::Cgroup));
    Ok(mount::cgroups_are_writable(&below, landlock)?.then(unenforced))
}

/// Whether the program has a directory of the caller's with this file, and may write in it.
fn may_write_to_the_callers(config: &SandboxConfig, landlock: &[Ruleset<'_>], directory: &str, file: &str) -> bool {
    let below = match (config.root.is_inherited(), config.root.chroot()) {
        (true, _) => PathBuf::from("/"),
        (false, Some(path)) => path.unresolved(),
        (false, None) => return false,
    };
    let may_write = landlock.iter().all(|set| set.rules.allows_changes_at(&Path::new("/").join(directory)));
    may_write && below.join(directory).join(file).exists()
}

/// The files of the user's other processes, if the program has the caller's `/proc`: they belong to that user.
fn changeable_processes(config: &SandboxConfig, ids: &Resolved, landlock: &[Ruleset<'_>]) -> Option<Gap> {
    let is_shared = ids.host_uid != HostId::Own;
    (is_shared && may_write_to_the_callers(config, landlock, "proc", "self/oom_score_adj")).then(|| {
        Gap::new(
            GapKind::Processes,
            "the program can change the OOM scores, names and autogroups of the user's other processes by their files in the \
             caller's /proc",
            "use another root than Root::inherit, or Landlock rules that allow no writing in /proc",
        )
    })
}

/// The pseudo-terminals of the host, if the program has the caller's devices.
fn shown_terminals(config: &SandboxConfig, landlock: &[Ruleset<'_>]) -> Option<Gap> {
    may_write_to_the_callers(config, landlock, "dev", "ptmx").then(|| {
        Gap::new(
            GapKind::Terminals,
            "the program can open the pseudo-terminals of the host (/dev/ptmx), which no limit of the sandbox counts, and \
             those of its user",
            "use another root than Root::inherit, or Landlock rules that allow no writing in /dev",
        )
    })
}

/// Refuses what prevents that a program creates sandboxes.
fn check_nestable(config: &SandboxConfig, namespaces: Namespaces) -> Result<()> {
    if !config.nestable {
        return Ok(());
    }
    // A mount point can be renamed by a process in whose mount namespace it is none.
    if config.root.protects() {
        return Err(Error::invalid(
            "a program with mount namespaces can replace a path that Root::protect, Root::read_only or a git workspace \
             protects",
            "remove the protection, or remove Sandbox::nestable",
        ));
    }
    let (what, remedy) = if config.landlock.is_some() {
        ("Landlock rules deny mounts, which a sandbox in the sandbox needs", "remove Sandbox::landlock")
    } else if config.stand_in.is_some() {
        (
            "the Landlock rules in place of the root deny mounts, which a sandbox in the sandbox needs",
            "use another host",
        )
    } else if !namespaces.contains(Namespaces::PID) {
        (
            "without a PID namespace Landlock protects other processes from the program, and denies mounts, which a sandbox \
             in the sandbox needs",
            "add Namespaces::PID",
        )
    } else {
        return Ok(());
    };
    Err(Error::invalid(what, format!("{remedy}, or remove Sandbox::nestable")))
}

/// What a program that can create sandboxes can also do.
fn nesting(ids: &Resolved, facts: &Facts) -> Option<Gap> {
    let is_caller = ids.host_uid == HostId::Id(facts.ids.0);
    is_caller.then(|| {
        Gap::new(
            GapKind::Keys,
            "the program can list the keys of the caller's user in /proc/keys, which has to be visible for sandboxes in the \
             sandbox",
            "run as root, which gives the program a user of its own, or remove Sandbox::nestable",
        )
    })
}

/// Checks that Landlock can stand in for the root where that is requested, also on a host that supports the root.
fn check_fallback(config: &SandboxConfig, facts: &Facts) -> Result<()> {
    if !config.landlock_fallback {
        return Ok(());
    }
    landlock_fallback::rules(&config.root, facts).map(drop)
}

/// The sockets of the host, where Landlock stands in for the root and the kernel's does not restrict them.
fn connectable_sockets(config: &SandboxConfig, facts: &Facts) -> Option<Gap> {
    (config.stand_in.is_some() && !landlock::restricts_sockets(facts.landlock())).then(|| {
        Gap::new(
            GapKind::Sockets,
            "the program can connect to UNIX sockets of the host that its user may connect to, since Landlock stands in for \
             the root",
            "use Linux 7.1 or later, where Landlock denies them, or a host that allows mounts",
        )
    })
}

/// The rulesets that Landlock can enforce by the ABI of this kernel: the rules that stand in for the root, and the
/// requested ones.
fn rulesets<'a>(
    config: &'a SandboxConfig,
    facts: &Facts,
    unenforced: &mut Vec<Unenforced>,
) -> Result<Vec<Ruleset<'a>>> {
    const NEWER: &str = "use a newer kernel, or a host that allows mounts";
    const ALLOW: &str = "use a newer kernel, allow these (Landlock::any_tcp, any_signal, any_abstract_socket, \
                         any_path), or add Layer::Landlock to Sandbox::best_effort";
    let stand_in = config.stand_in.as_ref().map(|rules| (rules, config.stand_in_is_best_effort(), NEWER));
    let requested = config.landlock.as_ref().map(|rules| (rules, config.is_best_effort(Layer::Landlock), ALLOW));
    let mut rulesets = vec![];
    for (rules, is_best_effort, remedy) in stand_in.into_iter().chain(requested) {
        rules.check()?;
        let (handled, unsupported) = Handled::negotiate(rules, facts.landlock());
        if !unsupported.is_empty() {
            let error = landlock::unsupported(&unsupported, remedy);
            if !is_best_effort {
                return Err(error);
            }
            unenforced.push(Unenforced::new(rules.to_string(), &error));
        }
        if !handled.is_empty() {
            rulesets.push(Ruleset { rules, handled });
        }
    }
    Ok(rulesets)
}
