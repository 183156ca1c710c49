//! The order of every step of the set-up, from top to bottom.
//!
//! [`Order::helper`] is the whole story: what the helper does, and, indented, what init and the program's process do.
//! These two are clones of the helper, so their steps are part of its script. [`Order::session`] is the same for a session:
//! its helper is confined itself, and the process of each command is a clone of it that executes [`command`]. Both begin with
//! [`Order::set_up`]. How a step is carried out does not belong here: a layer's system calls are in its file in `confine`,
//! those between the processes in `helper.rs`, `init.rs` and `session_helper.rs`.
//!
//! A new layer adds one line here, at the place where it takes effect.

use std::ffi::{OsStr, OsString};
use std::mem;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};

use super::config::SandboxConfig;
use super::decisions::Decisions;
use super::helper::{self, Groups, Placed, ProgramProcess, place_of};
use super::init::{self, Init};
use super::job::{Job, Terminal, argv, envp};
use super::session_helper::{self, SessionFrame};
use crate::cgroup::Spec;
use crate::confine::identity::Resolved;
use crate::confine::landlock::Implied;
use crate::confine::limits::{self, Rlimits};
use crate::confine::mount::{self, Endpoints, Names, OldRoot};
use crate::confine::seccomp::SetUpUnderFilter;
use crate::confine::secure_bits::SecureBits;
use crate::confine::{
    Capabilities, Namespaces, Operation, capabilities, identity, namespaces, network, no_zero, priorities, quotas,
    seccomp,
};
use crate::error::{Error, Result};
use crate::launch::check_filters;
use crate::layer::Layer;
use crate::outcome::{Enforcement, Unenforced};
use crate::plan::{IdMaps, Inherited, Input, Placeholder, Plan, Script, Search, Slot, Step, Stream, nr, share, stub};
use crate::sys::priority::Preferences;

/// A plan under construction: its scripts, and what they need at the launch.
pub(super) struct Order<'a> {
    pub decisions: Decisions<'a>,
    pub id_mappings: Vec<IdMaps>,
    pub placeholders: Vec<Placeholder>,
    pub descriptors: Vec<Arc<OwnedFd>>,
    /// Indices of the descriptors that the program inherits, and their numbers in the program.
    pub handed: Vec<(u16, u32)>,
    pub enforcement: Enforcement,
    /// The caller's preferences that the program does not inherit.
    pub reset_preferences: Preferences,
    /// Landlock rules that the root implies.
    implied: Option<Implied>,
}

impl<'a> Order<'a> {
    /// Resolves a configuration. `unenforced` are the layers that best effort has dropped already.
    pub fn of(
        config: &'a SandboxConfig,
        set_up: SetUpUnderFilter,
        unenforced: Vec<Unenforced>,
        can_idmap: fn(&Path) -> Option<bool>,
    ) -> Result<Self> {
        config.check_best_effort()?;
        let (mut descriptors, mut enforcement) = (vec![], Enforcement::default());
        enforcement.unenforced = unenforced;
        let decisions = Decisions::new(config, set_up, can_idmap, &mut descriptors, &mut enforcement)?;
        Ok(Self {
            decisions,
            id_mappings: vec![],
            placeholders: vec![],
            descriptors,
            handed: vec![],
            enforcement,
            reset_preferences: Preferences::empty(),
            implied: None,
        })
    }

    /// The plan of the helper's script.
    pub fn plan(self, helper: Script, inherited: Inherited, search: Search) -> Result<Plan> {
        if helper.is_too_long() {
            return Err(Error::invalid("the plan has more than 65,535 values", "remove some of the mounts"));
        }
        let ids = self.decisions.ids;
        Ok(Plan {
            stub: stub(&helper),
            helper,
            own_ids: ids.has_own_id().then_some(ids.own_ids),
            maps: ids.maps,
            inherited,
            id_mappings: self.id_mappings,
            placeholders: self.placeholders,
            setup_timeout: self.decisions.config.setup_timeout,
            search,
            fault: None,
        })
    }

    /// Takes the descriptors of the plan.
    pub fn inherited(&mut self, stdio: [Stream; 3], input: Arc<[u8]>, most_written: Option<u64>) -> Inherited {
        let (descriptors, handed) = (mem::take(&mut self.descriptors), mem::take(&mut self.handed));
        Inherited {
            stdio,
            input,
            descriptors,
            handed,
            most_written,
            owner: self.decisions.owner(),
            without_terminals: false,
        }
    }

    /// Compiles the script of the helper, with the steps of init and of the program's process.
    pub fn helper(&mut self, job: &Job<'_>, stdio: &[Stream; 3], search: &Search) -> Result<Script> {
        let wall_backstop = self.decisions.config.limits.wall_backstop();
        let mut script = helper::begin();
        let helper = &mut script;
        let writable = job.fds.iter().filter(|(_, fd)| is_writable(&fd.0)).map(|&(number, _)| number);
        let purpose = Purpose {
            is_session: false,
            leaves_process_group: job.new_session,
            home: job.env.get(OsStr::new("HOME")).map(OsString::as_os_str),
            terminals: job.pty.is_some().into(),
            writable: [1, 2].into_iter().chain(writable).collect(),
        };
        let SetUp { init, proc, old_root } = self.set_up(helper, purpose)?;

        // The program's process. It is confined at once, and executes the program once everything else is set up.
        let groups = self.groups();
        let pty = self.place_descriptors(helper, job, stdio, proc)?;
        let (argv, envp, rlimits) = (argv(job)?, envp(job)?, self.rlimits()?);
        let cwd = job.cwd.unwrap_or(Path::new("/"));
        no_zero("the working directory", cwd.as_os_str())?;
        let program = ProgramProcess::start(helper, groups, init, pty);
        {
            let process = &mut *helper;
            helper::restore_affinity(process);
            if groups.count > 0 && self.decisions.creates(Namespaces::CGROUP) {
                helper::create_cgroup_namespace(process);
                if let Some(proc) = proc {
                    namespaces::send(process, proc, Namespaces::CGROUP);
                }
                let view = self.decisions.cgroup_view();
                process.within(Layer::Cgroup, |process| helper::show_cgroups(process, view));
            }
            process.reset_signals();
            self.confine(process);
            if job.new_session {
                helper::create_session(process);
                self.active(Layer::Session, "new");
            }
            if pty.is_some() {
                helper::set_controlling_terminal(process);
            }
            program.wait_for_helper(process);
            change_directory(process, cwd);
            limits::set(process, rlimits);
            helper::execute(process, &search.candidates, &argv, &envp);
        }
        program.back_to_helper(helper, init);

        // Detaching the old root takes the kernel some time, in which the program's process is confined.
        limits::raise_descriptors(helper)?;
        mount::detach_old_root(helper, old_root);

        // The end: the program is executed, and the helper exits, or stays if no PID namespace terminates with the
        // sandbox.
        let stays = self.decisions.helper_stays();
        if stays && !self.filter_is_optional() {
            helper.within(Layer::Seccomp, check_filters);
        }
        helper::restore_affinity(helper);
        if let Some(init) = init {
            init.wait_confined(helper);
        }
        program.execute_and_report(helper);
        if stays {
            helper.reset_signals();
            drop_privileges(helper);
            program.watch(helper, wall_backstop, self.filter_is_optional());
        }
        program.exit(helper);
        limits::raise_for_mounts(helper)?;
        Ok(script)
    }

    /// Compiles the script of the helper of a session, with the steps of init.
    pub fn session(&mut self) -> Result<Script> {
        let mut script = helper::begin();
        let helper = &mut script;
        let env = &self.decisions.config.env;
        let purpose = Purpose {
            is_session: true,
            leaves_process_group: true,
            home: env.get(OsStr::new("HOME")).map(OsString::as_os_str),
            terminals: SESSION_TERMINALS,
            writable: vec![],
        };
        let SetUp { init, proc, old_root } = self.set_up(helper, purpose)?;

        let groups = self.groups();
        if groups.count > 0 {
            let entries = helper.within(Layer::Cgroup, |helper| groups.receive(helper));
            if let Some(proc) = proc.filter(|_| self.decisions.creates(Namespaces::CGROUP)) {
                let view = self.decisions.cgroup_view();
                session_helper::create_cgroup_namespace(helper, &entries, proc, |process| {
                    process.within(Layer::Cgroup, |process| helper::show_cgroups(process, view));
                });
                namespaces::send(helper, proc, Namespaces::CGROUP);
            }
        }
        mount::detach_old_root(helper, old_root);
        helper::restore_affinity(helper);
        if let Some(init) = init {
            init.wait_confined(helper);
        }

        // From here on the helper is as confined as the programs will be.
        session_helper::reserve_memory(helper);
        session_helper::close_descriptors(helper);
        helper.reset_signals();
        self.confine(helper);
        self.active(Layer::Session, "new");
        self.active(Layer::Descriptors, DESCRIPTORS);
        self.limits_are_active();
        session_helper::report_ready(helper);
        session_helper::serve(helper);
        limits::raise_for_mounts(helper)?;
        Ok(script)
    }

    /// The steps up to the root, which a run and a session have in common.
    fn set_up(&mut self, helper: &mut Script, purpose: Purpose<'_>) -> Result<SetUp> {
        let wall_backstop = self.decisions.config.limits.wall_backstop();
        if purpose.leaves_process_group {
            helper::leave_process_group(helper);
        }
        self.set_priorities(helper)?;

        // A privileged caller's sources of binds are opened here.
        helper.mark();

        // User and namespaces.
        helper.within(Layer::Namespaces, |helper| self.enter_namespaces(helper));
        self.limit_quotas(helper);
        self.limit_connections(helper);
        identity::umask(helper, 0);
        self.set_names(helper)?;

        // Init and the root. Init works while the helper waits for it, at the first mount that needs its PID namespace.
        let mounts = self.mounts()?;
        let mut procs = vec![];
        let init = match self.decisions.creates(Namespaces::PID) {
            true => {
                let init = Init::start(helper, purpose.is_session);
                {
                    let init_process = &mut *helper;
                    init::leave_process_group(init_process);
                    init::reap_orphans(init_process);
                    self.bring_up_loopback(init_process);
                    procs = init_process.within(Layer::Root, |process| mount::open_procs(&mounts, process));
                    init.wait_for_program(init_process);
                    init.close_descriptors(init_process);
                    drop_privileges(init_process);
                    init.sleep_until_the_end(init_process, wall_backstop, self.filter_is_optional());
                }
                init.back_to_helper(helper);
                Some(init)
            }
            false => {
                self.bring_up_loopback(helper);
                None
            }
        };
        let proc = self.send_namespaces(helper, purpose.is_session);
        let old_root = self.set_up_root(helper, purpose, &mounts, init, procs)?;
        helper.insert_at_mark();
        Ok(SetUp { init, proc, old_root })
    }

    /// The layers that confine the program's process.
    ///
    /// A seccomp filter and Landlock need either `no_new_privs` or a capability, so they come after the former, or
    /// before the capabilities are dropped.
    fn confine(&mut self, process: &mut Script) {
        let new_privs = self.decisions.config.new_privs;
        if !new_privs {
            self.limit_capabilities(process);
            capabilities::no_new_privs(process);
            self.active(Layer::NoNewPrivs, "set");
        }
        identity::umask(process, self.decisions.config.umask.bits());
        self.restrict_by_landlock(process);
        self.install_filter(process);
        if new_privs {
            self.limit_capabilities(process);
        }
    }

    /// Changes the user, joins and creates namespaces, and has the ID maps written.
    ///
    /// The user changes before a user namespace is created if the helper can write its own map: the namespace belongs
    /// to that user then. Otherwise the IDs inside have a meaning only after the maps are written.
    fn enter_namespaces(&mut self, helper: &mut Script) {
        let Decisions { config, facts, chosen, ids, .. } = &self.decisions;
        let user_first = ids.changes_user_first(chosen.all().contains(Namespaces::USER));
        if user_first {
            if facts.privileged {
                capabilities::keep_over_user_change(helper, facts.secure_bits);
            }
            identity::change_to_host_user(helper, ids);
        } else if facts.privileged {
            identity::drop_groups(helper);
        }
        namespaces::join(chosen, helper);
        let later = self.later_namespaces();
        namespaces::create(chosen.created - later, helper);
        if chosen.created.contains(Namespaces::TIME) {
            namespaces::enter_time(helper, config.time_offsets.unwrap_or_default());
        }
        match &ids.maps {
            Some(maps) if user_first => identity::write_maps(helper, maps),
            Some(_) => helper::request_maps(helper),
            None => {}
        }
        helper.make_undumpable();
        if !user_first {
            capabilities::keep_over_user_change(helper, SecureBits::default());
            identity::change_user(helper, ids, facts.privileged);
            // The change of user has reset the attribute to fs.suid_dumpable.
            helper.make_undumpable();
        }
        if !chosen.all().is_empty() {
            let names = chosen.all().names();
            self.active(Layer::Namespaces, names);
        }
        if self.decisions.is_other_than_root() {
            let Resolved { uid, gid, .. } = self.decisions.ids;
            self.active(Layer::Identity, format!("user {uid} and group {gid} inside"));
        }
    }

    /// Sends the caller the namespaces of the sandbox, `always` or if it wants them. Returns the descriptor of a proc file system, by
    /// which the program's process can send its own.
    fn send_namespaces(&self, helper: &mut Script, always: bool) -> Option<Slot> {
        if !self.decisions.config.keep_namespaces && !always {
            return None;
        }
        let proc = namespaces::open_proc(helper);
        namespaces::send(helper, proc, self.decisions.chosen.all() - self.later_namespaces());
        Some(proc)
    }

    /// The namespaces that the program's process creates itself: the cgroup namespace of a sandbox with a cgroup, inside
    /// that cgroup.
    fn later_namespaces(&self) -> Namespaces {
        let has_cgroup = self.decisions.cgroup.is_some() && self.decisions.creates(Namespaces::CGROUP);
        if has_cgroup { Namespaces::CGROUP } else { Namespaces::empty() }
    }

    /// Records a layer that is in force.
    fn active(&mut self, layer: Layer, description: impl Into<String>) {
        self.enforcement.activate(layer, description);
    }

    /// Whether a set-up process that stays goes on without its own filter if none can be installed.
    fn filter_is_optional(&self) -> bool {
        self.decisions.config.is_best_effort(Layer::Seccomp)
    }

    fn set_priorities(&mut self, helper: &mut Script) -> Result<()> {
        let inherited = priorities::inherited()?;
        self.enforcement.gaps.extend(priorities::gap(inherited));
        self.reset_preferences =
            helper.within(Layer::Limits, |helper| priorities::set(helper, &self.decisions.config.limits, inherited))?;
        Ok(())
    }

    fn limit_capabilities(&mut self, process: &mut Script) {
        let (kept, can_confine) = (&self.decisions.config.capabilities, self.decisions.has_capabilities());
        let bits = self.decisions.secure_bits();
        capabilities::limit_to(process, kept, self.decisions.facts.last_capability, bits, can_confine);
        // A program that can gain privileges has no other capabilities only if its bounding set has none.
        if can_confine || !self.decisions.config.new_privs {
            self.active(Layer::Capabilities, kept.to_string());
        }
    }

    fn restrict_by_landlock(&mut self, process: &mut Script) {
        if let Some(signals) = &self.decisions.signals {
            process.within(Layer::Landlock, |process| signals.restrict(process));
        }
        if let Some(implied) = &self.implied {
            process.within(Layer::Root, |process| implied.restrict(process));
        }
        for ruleset in &self.decisions.landlock {
            process.within(Layer::Landlock, |process| ruleset.restrict(process, &self.decisions.config.root));
        }
        if !self.decisions.landlock.is_empty() {
            let summaries: Vec<String> = self.decisions.landlock.iter().map(ToString::to_string).collect();
            self.active(Layer::Landlock, summaries.join("; "));
        }
    }

    fn install_filter(&mut self, process: &mut Script) {
        if !self.decisions.programs.is_empty() {
            process.within(Layer::Seccomp, |process| seccomp::install_programs(process, &self.decisions.programs));
        }
        if let Some(filter) = &self.decisions.filter {
            let killable = self.decisions.facts.has_killable_listeners();
            process.within(Layer::Seccomp, |process| {
                seccomp::install(process, filter, &self.decisions.config.seccomp, killable)
            });
        }
        if self.decisions.filter.is_some() || !self.decisions.programs.is_empty() {
            self.active(Layer::Seccomp, self.decisions.config.seccomp.to_string());
        }
    }

    /// The limits of each process of the program.
    fn rlimits(&mut self) -> Result<Rlimits> {
        self.limits_are_active();
        let Decisions { config, ids, .. } = &self.decisions;
        let shares_user = ids.shares_user(self.decisions.has(Namespaces::USER));
        config.limits.of_process(shares_user, self.memory_is_limited(), config.seccomp.allows_netlink())
    }

    fn limits_are_active(&mut self) {
        let limits = &self.decisions.config.limits;
        if !limits.is_empty() {
            self.enforcement.activate(Layer::Limits, limits.to_string());
        }
    }

    /// Whether a cgroup limits memory, and is not one of the layers that best effort has dropped.
    fn memory_is_limited(&self) -> bool {
        let is_dropped = self.enforcement.unenforced.iter().any(|unenforced| unenforced.layer == Layer::Cgroup);
        self.decisions.config.limits_memory() && !is_dropped
    }

    /// Whether the processes of commands share the memory of the helper until they execute their programs, which costs less
    /// than a copy.
    ///
    /// A program with capabilities, or the host's root, could write to that memory, or to the files in `/proc` that stand for
    /// all processes that share it, such as `oom_score_adj`. When the kernel kills a process since a limit on memory of its
    /// cgroup or of one above is reached, it kills all that share its memory (`__oom_kill_process` of mm/oom_kill.c).
    fn commands_share_memory(&self) -> bool {
        let Decisions { config, cgroup, ids, .. } = &self.decisions;
        cgroup.is_none() && config.capabilities == Capabilities::none() && !ids.reaches_host_root()
    }

    /// What the commands of a session depend on.
    pub fn frame(&self) -> SessionFrame {
        let Decisions { config, cgroup, ids, filter, programs, .. } = &self.decisions;
        SessionFrame {
            config: (*config).clone(),
            groups: cgroup.as_ref().map(Spec::groups).unwrap_or_default(),
            carrying: seccomp::carrying(filter.as_deref(), !programs.is_empty()),
            owner: self.decisions.owner(),
            shares_user: ids.shares_user(self.decisions.has(Namespaces::USER)),
            memory_is_limited: self.memory_is_limited(),
            shares_memory: self.commands_share_memory(),
            allows_tracing: self.decisions.allows_tracing(),
        }
    }

    /// The cgroups that the program's process enters.
    fn groups(&mut self) -> Groups {
        let Some(spec) = self.decisions.cgroup.as_ref() else { return Groups::default() };
        let groups = Groups { count: spec.groups(), born_in: spec.born_in() };
        if let Some(limits) = spec.enforced() {
            self.enforcement.activate(Layer::Cgroup, limits);
        }
        groups
    }

    /// Limits the share that the user namespace has of the quotas of its user, if others have the same user.
    fn limit_quotas(&mut self, helper: &mut Script) {
        if self.decisions.creates(Namespaces::USER) && self.decisions.ids.shares_user(true) {
            let allows = |call, first| self.decisions.allows(call, &[first, 0, 0, 0, 0, 0]);
            let result = helper.within(Layer::Limits, |helper| quotas::limit(helper, allows));
            self.enforcement
                .unenforced
                .extend(result.err().map(|error| Unenforced::new("a fraction of the user's quotas", &error)));
        }
    }

    /// Limits the memory of connections in a new network namespace, if the program can open any.
    fn limit_connections(&mut self, helper: &mut Script) {
        let connects = [libc::AF_INET, libc::AF_INET6].iter().any(|&family| {
            self.decisions.allows(libc::SYS_socket, &[family as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0])
        });
        if self.decisions.creates(Namespaces::NET) && connects {
            self.enforcement.gaps.extend(helper.within(Layer::Limits, network::limit_connections));
        }
    }

    fn set_names(&self, helper: &mut Script) -> Result<()> {
        let created = self.decisions.chosen.created;
        let (hostname, domain_name) = (self.decisions.hostname(), self.decisions.config.domain_name.as_deref());
        helper.within(Layer::Namespaces, |helper| namespaces::set_names(created, helper, hostname, domain_name))
    }

    /// The mounts of the root; none without a mount namespace.
    fn mounts(&self) -> Result<Vec<Operation>> {
        let root = &self.decisions.config.root;
        let mut mounts = match self.decisions.creates(Namespaces::MOUNT) {
            true => {
                mount::operations(root, &self.decisions.facts, &self.decisions.ids, self.decisions.config.nestable)?
            }
            false => vec![],
        };
        mounts.extend(self.decisions.cgroup_view().iter().map(|view| Operation::create_dir(place_of(view), 0o755)));
        mount::check_terminals(root, &mounts)?;
        Ok(mounts)
    }

    /// Mounts the root and changes to it. `procs` are the proc file systems that init has opened.
    fn set_up_root(
        &mut self,
        helper: &mut Script,
        purpose: Purpose<'_>,
        mounts: &[Operation],
        init: Option<Init>,
        procs: Vec<Slot>,
    ) -> Result<OldRoot> {
        let wait_for_init =
            init.map(|init| -> mount::WaitForInit { Box::new(move |helper| init.wait_started(helper)) });
        let mut proc_mounts = mount::ProcMounts { wait_for_init, opened: procs.into_iter() };
        let mut old_root = OldRoot::default();
        if self.decisions.creates(Namespaces::MOUNT) {
            let mut endpoints = self.decisions.endpoints(mounts);
            old_root = helper.within(Layer::Root, |helper| {
                let context = mount::RootContext {
                    names: Names {
                        host: self.decisions.hostname(),
                        shares_network: !self.decisions.creates(Namespaces::NET),
                        home: purpose.home,
                    },
                    helper,
                    id_mappings: &mut self.id_mappings,
                    facts: &self.decisions.facts,
                    identity: &self.decisions.ids,
                    namespaces: &self.decisions.chosen,
                    proc_mounts: &mut proc_mounts,
                    placeholders: &mut self.placeholders,
                    descriptors: &mut self.descriptors,
                    terminals: self.decisions.config.root.terminals_beside(purpose.terminals),
                    endpoints: &mut endpoints,
                    unenforced: &mut self.enforcement.unenforced,
                    is_nestable: self.decisions.config.nestable,
                };
                mount::lower(&self.decisions.config.root, mounts, context)
            })?;
            self.root_is_active(Some(&endpoints));
            self.imply_landlock(endpoints, purpose.writable);
        } else if let Some(path) = self.decisions.config.root.chroot() {
            mount::change_root(helper, &self.decisions.facts, path)?;
            self.root_is_active(None);
        }
        proc_mounts.wait(helper);
        Ok(old_root)
    }

    /// Adds the Landlock rules that cut off sockets and FIFOs which the root cannot, and records which remain
    /// reachable.
    fn imply_landlock(&mut self, endpoints: Endpoints, writable: Vec<u32>) {
        self.enforcement.gaps.extend(endpoints.gaps());
        self.implied = endpoints.landlock_rules().map(|abi| Implied::writing_below(endpoints.writable, writable, abi));
    }

    fn root_is_active(&mut self, endpoints: Option<&Endpoints>) {
        let root = &self.decisions.config.root;
        if !root.is_inherited() {
            let cut_off = endpoints.and_then(Endpoints::summary);
            let cut_off = cut_off.map(|how| format!("; sockets and FIFOs of the host cut off {how}"));
            self.active(Layer::Root, root.to_string() + &cut_off.unwrap_or_default());
        }
    }

    /// Brings up the loopback interface of a new network namespace. Init does it, if there is one: the call can block
    /// (on the lock of rtnetlink(7)), and the helper goes on meanwhile.
    fn bring_up_loopback(&self, process: &mut Script) {
        if self.decisions.creates(Namespaces::NET) {
            process.within(Layer::Namespaces, network::loopback_up);
        }
    }

    /// Opens the program's pseudo-terminal and sets up its descriptors. Returns the master of the pseudo-terminal.
    /// `proc` is a descriptor that the program's process needs before it executes the program.
    fn place_descriptors(
        &mut self,
        helper: &mut Script,
        job: &Job<'_>,
        stdio: &[Stream; 3],
        proc: Option<Slot>,
    ) -> Result<Option<Slot>> {
        let pty = job.pty.map(|Terminal { rows, columns }| helper::open_pty(helper, rows, columns));
        let placed =
            placed(helper, job, stdio, pty.map(|(_, slave)| slave), (&mut self.descriptors, &mut self.handed))?;
        let master = pty.map(|(master, _)| master);
        let kept: Vec<Slot> = master.into_iter().chain(proc).collect();
        helper::place_descriptors(helper, &placed, &helper::OWN, &kept);
        self.active(Layer::Descriptors, DESCRIPTORS);
        Ok(master)
    }
}

/// What is in force for the descriptors that programs inherit.
const DESCRIPTORS: &str = "files for reading stay read-only, files for writing stay write-only, flags are not shared";

/// The pseudo-terminals of commands that a session has room for.
const SESSION_TERMINALS: u32 = 16;

/// What the set-up is for, as far as it matters up to the root.
struct Purpose<'a> {
    is_session: bool,
    leaves_process_group: bool,
    /// The home directory of the program.
    home: Option<&'a OsStr>,
    /// The number of pseudo-terminals of commands.
    terminals: u32,
    /// The numbers of descriptors of the program that are open for writing.
    writable: Vec<u32>,
}

/// What the set-up up to the root has left.
struct SetUp {
    init: Option<Init>,
    /// A descriptor of a proc file system.
    proc: Option<Slot>,
    old_root: OldRoot,
}

/// Compiles the script of the process of a command in a session: a clone of the session's helper, which is confined. The
/// descriptors that it needs are added to `descriptors`, and those that the program inherits to `handed`.
pub(super) fn command(
    frame: &SessionFrame,
    job: &Job<'_>,
    stdio: &[Stream; 3],
    search: &Search,
    (descriptors, handed): (&mut Vec<Arc<OwnedFd>>, &mut Vec<(u16, u32)>),
) -> Result<Script> {
    let (argv, envp) = (argv(job)?, envp(job)?);
    let cwd = job.cwd.unwrap_or(Path::new("/"));
    no_zero("the working directory", cwd.as_os_str())?;
    let mut script = session_helper::begin_command(frame.carrying.as_deref());
    let process = &mut script;
    session_helper::enter_cgroups(process, frame.groups);
    // The session of the helper is not one of a program: a signal to a process group reaches all of it.
    helper::create_session(process);
    let pty = job.pty.map(|Terminal { rows, columns }| helper::open_pty(process, rows, columns));
    let placed = placed(process, job, stdio, pty.map(|(_, slave)| slave), (descriptors, handed))?;
    if let Some((master, _)) = pty {
        session_helper::pass(process, master);
    }
    session_helper::place_descriptors(process, &placed, &[]);
    if pty.is_some() {
        helper::set_controlling_terminal(process);
    }
    change_directory(process, cwd);
    limits::set(process, frame.rlimits()?);
    helper::execute(process, &search.candidates, &argv, &envp);
    Ok(script)
}

/// The descriptors of the program, with their sources. `slave` is the program's side of its pseudo-terminal.
fn placed(
    process: &mut Script,
    job: &Job<'_>,
    stdio: &[Stream; 3],
    slave: Option<Slot>,
    (descriptors, handed): (&mut Vec<Arc<OwnedFd>>, &mut Vec<(u16, u32)>),
) -> Result<Vec<Placed>> {
    let mut placed = vec![];
    for (number, stream) in stdio.iter().enumerate() {
        let source = match (stream, slave) {
            (Stream::Pty, Some(slave)) => slave,
            _ => process.input(Input::Stdio(number as u8)),
        };
        placed.push(Placed { source, number: number as u32 });
    }
    for (number, fd) in job.fds {
        let index = share(descriptors, fd.0.clone())?;
        handed.push((index, *number));
        placed.push(Placed { source: process.input(Input::Handed(index)), number: *number });
    }
    limits::check_numbers(placed.iter().map(|fd| fd.number))?;
    Ok(placed)
}

/// Whether a descriptor was opened for writing.
fn is_writable(fd: &OwnedFd) -> bool {
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

/// Leaves a set-up process that stays no capability.
fn drop_privileges(process: &mut Script) {
    capabilities::drop_all(process);
    capabilities::no_new_privs(process);
}

fn change_directory(process: &mut Script, path: &Path) {
    process.step(Step::new("change the working directory to").path(path).remedies(&[
        (libc::ELOOP, "the path leads through a magic link, such as /proc/self/cwd (proc(5)): give the path of the directory itself"),
        (libc::ENOENT, "the directory does not exist inside the sandbox: bind it, or set another"),
        (libc::ENOTDIR, "it is not a directory: set another"),
        (libc::EACCES, "the sandbox's user may not enter the directory: change its permissions, or set another"),
    ]));
    let directory = process.open_directory(path);
    process.call(nr!(SYS_fchdir), [directory.into()]);
}
