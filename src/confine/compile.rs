//! A configuration and a command, put together to a plan: the one place that knows every feature, and the order in which
//! their calls come.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::landlock::ABI;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Gid, getgroups};

use super::host::Host;
use super::identity::{self, Resolved};
use super::landlock::{self, Handled, Implied};
use super::namespaces::{self, Chosen};
use super::root::{Covering, Endpoints, Mount};
use super::seccomp::{self, Filter};
use super::{
    Action, Capabilities, Config, Job, Namespaces, Terminal, capabilities, limits, network, no_zero, priorities,
    quotas, root, share,
};
use crate::cgroup::{Cgroup, Entrant, Spec};
use crate::error::{Error, Result};
use crate::host_path::HostPath;
use crate::outcome::{Enforcement, Layer, Lost};
use crate::plan::helper::{self, Groups, Placed, Start};
use crate::plan::init::{Confine, Init};
use crate::plan::{IdMaps, Input, Placeholder, Plan, Program, Search, Slot, Step, Stream, init, nr, stub};
use crate::sys::priority::Preferences;
use crate::watch::{Rules, Ruling};

/// A plan under construction.
struct Compiler<'a> {
    config: &'a Config,
    host: Host,
    chosen: Chosen,
    who: Resolved,
    host_program: Program,
    id_mappings: Vec<IdMaps>,
    placeholders: Vec<Placeholder>,
    descriptors: Vec<Arc<OwnedFd>>,
    /// Which of them the command gets, by their numbers there.
    handed: Vec<(u16, u32)>,
    cgroup: Option<Spec>,
    filter: Option<Arc<Filter>>,
    landlock: Option<Handled>,
    /// The Landlock rule that stands for a PID namespace.
    signals: Option<Implied>,
    /// Landlock rules that the root implies.
    implied: Option<Implied>,
    /// How the sockets and FIFOs of the host are cut off, and what of them is not.
    endpoints: Option<&'static str>,
    gaps: Vec<String>,
    lost: Vec<Lost>,
    /// The caller's preferences that the program does not inherit.
    taken: Preferences,
}

/// The cgroup that is asked for, or that a limit needs.
fn cgroup(config: &Config, host: &Host, who: &Resolved, lost: &mut Vec<Lost>) -> Result<Option<Spec>> {
    // Who is not the host's user any more may not clone into a group.
    let entrant = Entrant { may_own: who.may_be(host.ids.0), is_cloned_by_caller: !host.privileged };
    let counts_cpu = config.limits.counts_cpu();
    let lose = config.does_without(Layer::Cgroup).then_some(lost);
    match &config.cgroup {
        Some(cgroup) => Spec::resolve(cgroup, counts_cpu, entrant, lose).map(Some),
        None if counts_cpu => Spec::resolve(&Cgroup::new(), true, entrant, lose).map(Some),
        None => Ok(None),
    }
}

/// What a program could do that has the mounts of the caller, and owns the files of its limits.
fn may_change_limits(config: &Config, chosen: &Chosen, landlock: bool) -> Result<Option<Lost>> {
    if chosen.created.contains(Namespaces::MOUNT) {
        return Ok(None);
    }
    let below = config.root.chroot().map_or_else(|| "/".into(), HostPath::given);
    let rules = config.landlock.as_ref().filter(|_| landlock);
    let error = Error::invalid(
        "the program can change its limits: their files belong to its user, and the cgroup file system is not read-only \
         without a mount namespace of its own",
        "add Namespaces::MOUNT, or Landlock rules that allow no writing in /sys/fs/cgroup",
    );
    let lost = || Lost::new("limits that the program can't change", &error.of(Layer::Cgroup));
    Ok(root::cgroups_are_writable(&below, rules)?.then(lost))
}

/// The terminals of the machine, where the program has the caller's devices.
fn shown_terminals(config: &Config, landlock: bool) -> Option<String> {
    let below = match (config.root.is_inherited(), config.root.chroot()) {
        (true, _) => PathBuf::from("/"),
        (false, Some(path)) => path.given(),
        (false, None) => return None,
    };
    let rules = config.landlock.as_ref().filter(|_| landlock);
    let may_open = rules.is_none_or(|rules| rules.allows_changes_at(Path::new("/dev")));
    (may_open && below.join("dev/ptmx").exists()).then(|| {
        "the machine's pseudo-terminals (/dev/ptmx), which no limit of the sandbox counts, and those of the program's user: \
         use another root than Root::inherit, or Landlock rules that allow no writing in /dev"
            .into()
    })
}

/// What Landlock restricts here of what is asked for.
fn handled(config: &Config, host: &Host, lost: &mut Vec<Lost>) -> Result<Option<Handled>> {
    let Some(asked) = &config.landlock else { return Ok(None) };
    asked.check()?;
    let (handled, lacks) = Handled::negotiate(asked, host.landlock());
    if !lacks.is_empty() {
        let error = landlock::refuse(&lacks);
        if !config.does_without(Layer::Landlock) {
            return Err(error);
        }
        lost.push(Lost::new(asked.to_string(), &error));
    }
    Ok((!handled.is_empty()).then_some(handled))
}

/// The same configuration with masks where Landlock is to deny what is in an allowed tree.
fn covered(config: &Config) -> Option<Config> {
    let root = config.landlock.as_ref()?.cover(&config.root)?;
    Some(Config { root, ..config.clone() })
}

/// Compiles a plan. Whatever can be refused for a reason known beforehand is refused here.
pub(crate) fn compile(
    config: &Config,
    job: &Job<'_>,
    mut lost: Vec<Lost>,
    can_idmap: fn(&Path) -> Option<bool>,
) -> Result<Plan> {
    config.check_best_effort()?;
    let covered = covered(config);
    let config = covered.as_ref().unwrap_or(config);
    let host = Host::look(config.kernel, can_idmap)?;
    identity::check_caller(&config.identity, &host)?;
    let mut descriptors = vec![];
    let chosen = namespaces::choose(config.namespaces, &config.joins, &mut descriptors, &host)?;
    namespaces::check_offsets(chosen.created, config.time_offsets)?;
    let who = identity::resolve(&config.identity, &chosen, &host)?;
    let host_program = Program::new("stockade: host").of(Layer::Root);
    let cgroup = cgroup(config, &host, &who, &mut lost)?;
    let landlock = handled(config, &host, &mut lost)?;
    lost.extend(cgroup.as_ref().and_then(Spec::unenforced).cloned());
    if cgroup.as_ref().is_some_and(Spec::may_be_owned) {
        lost.extend(may_change_limits(config, &chosen, landlock.is_some())?);
    }
    let policy = match chosen.all().contains(Namespaces::PID) {
        true => Cow::Borrowed(&config.seccomp),
        false => Cow::Owned(config.seccomp.clone().among_other_processes()),
    };
    let filter = (!config.seccomp.is_unconfined()).then(|| seccomp::compile(&policy)).transpose()?;
    let has_rules = landlock.is_some();
    let mut compiler = Compiler {
        config,
        host,
        chosen,
        who,
        host_program,
        id_mappings: vec![],
        placeholders: vec![],
        descriptors,
        handed: vec![],
        cgroup,
        filter,
        landlock,
        signals: None,
        implied: None,
        endpoints: None,
        gaps: shown_terminals(config, has_rules).into_iter().collect(),
        lost,
        taken: Preferences::empty(),
    };
    compiler.check_root()?;
    let has_namespace = compiler.has(Namespaces::USER);
    config.capabilities.check(compiler.host.last_capability, compiler.has_rights(), has_namespace)?;
    compiler.check_new_privs()?;
    compiler.spare_other_processes();
    let stdio = job.stdio.clone().map(|stream| stream.lower(&mut compiler.descriptors));
    let search = search(job)?;
    let helper = compiler.helper(job, &stdio, &search)?;
    let (enforced, rules) = (compiler.enforcement(job), compiler.rules());
    let (said, helper_stays) = (config.cgroup.as_ref(), compiler.helper_stays());
    if [&compiler.host_program, &helper].into_iter().any(Program::is_too_long) {
        return Err(Error::invalid("the plan has more than 65,535 calls or values", "leave some of the mounts out"));
    }
    Ok(Plan {
        host: compiler.host_program,
        stub: stub(&helper),
        helper,
        own_ids: compiler.who.has_own_id().then_some(compiler.who.own_ids),
        maps: compiler.who.maps,
        helper_stays,
        stdio,
        descriptors: compiler.descriptors,
        handed: compiler.handed,
        id_mappings: compiler.id_mappings,
        cgroup: compiler.cgroup,
        placeholders: compiler.placeholders,
        bounds: compiler.config.limits.bounds(said.and_then(Cgroup::cpus), said.is_some_and(Cgroup::limits_memory)),
        owner: compiler.host.privileged.then_some((compiler.who.host_uid, compiler.who.host_gid)),
        rules,
        asks: config.seccomp.asks(),
        setup_timeout: config.setup_timeout,
        taken: compiler.taken,
        search,
        enforced,
        fault: None,
    })
}

impl Compiler<'_> {
    fn has(&self, kind: Namespaces) -> bool {
        self.chosen.all().contains(kind)
    }

    /// Whether no pid namespace ends with the sandbox.
    fn helper_stays(&self) -> bool {
        !self.chosen.created.contains(Namespaces::PID)
    }

    /// A root of the sandbox's own needs a place for its mounts.
    fn check_root(&self) -> Result<()> {
        let root = &self.config.root;
        let own = self.chosen.created.contains(Namespaces::MOUNT);
        if !own && root.needs_mount_namespace() {
            let joined = if self.has(Namespaces::MOUNT) { "a mount namespace that is joined" } else { "the host's" };
            return Err(Error::invalid(
                format!("the root needs mounts, which would be made in {joined}"),
                "make a mount namespace (Namespaces::MOUNT), or use Root::inherit(), or Root::dir(…) without operations",
            ));
        }
        if !own && root.chroot().is_some() && !self.host.privileged && !self.has(Namespaces::USER) {
            return Err(Error::invalid(
                "chroot takes root, or a user namespace",
                format!("add Namespaces::MOUNT and Namespaces::USER, or {}", self.host.way_to_rights()),
            ));
        }
        Ok(())
    }

    fn helper(&mut self, job: &Job<'_>, stdio: &[Stream; 3], search: &Search) -> Result<Program> {
        let mut helper = helper::begin();
        if job.new_session {
            helper::leave_process_group(&mut helper);
        }
        let inherited = priorities::inherited()?;
        self.gaps.extend(priorities::gap(inherited));
        self.taken = helper.within(Layer::Limits, |helper| priorities::set(helper, &self.config.limits, inherited))?;
        helper.within(Layer::Namespaces, |helper| self.enter_namespaces(helper));
        self.bound_quotas(&mut helper);
        self.bound_network(&mut helper);
        identity::umask(&mut helper, 0);
        let (covering, init) = self.set_up(&mut helper, job)?;
        let groups = self.groups();
        let pty = self.place_descriptors(&mut helper, job, stdio)?;
        let start = Start {
            candidates: &search.candidates,
            argv: &argv(job)?,
            envp: &envp(job)?,
            new_session: job.new_session,
            stay: self.helper_stays(),
            init,
            pty,
            last_word: self.config.limits.last_word(),
            groups,
        };
        // One that was made stands for the host's until the process is in its group.
        let has_namespace = self.chosen.created.contains(Namespaces::CGROUP);
        let confine = self.confine_set_up_process();
        let cwd = job.cwd.unwrap_or(Path::new("/"));
        no_zero("the working directory", cwd.as_os_str())?;
        let confine_in_groups = |command: &mut Program| {
            if groups.count > 0 && has_namespace {
                helper::make_cgroup_namespace(command);
            }
            command.reset_signals();
            self.confine_command(command);
        };
        let memory = self.config.cgroup.as_ref().is_some_and(Cgroup::limits_memory)
            && !self.lost.iter().any(|lost| lost.layer == Layer::Cgroup);
        let rlimits = self.config.limits.of_process(
            self.who.shares_user(self.has(Namespaces::USER)),
            memory,
            self.config.seccomp.allows_netlink(),
        )?;
        let command = helper::start(&mut helper, &start, confine_in_groups, |command| {
            change_directory(command, cwd);
            limits::set(command, rlimits);
        });
        limits::raise_descriptors(&mut helper)?;
        // The kernel takes its time for that, in which the command's process is confined.
        root::take_away(&mut helper, covering);
        helper::finish(&mut helper, &start, &command, confine);
        Ok(helper)
    }

    /// What confines a set-up process that stays.
    fn confine_set_up_process(&self) -> Confine<impl FnOnce(&mut Program)> {
        let rights = |process: &mut Program| {
            capabilities::drop_all(process);
            capabilities::no_new_privs(process);
        };
        Confine { rights, filter_is_optional: self.config.does_without(Layer::Seccomp) }
    }

    /// Takes from the command's process what the program is not to have.
    fn confine_command(&self, process: &mut Program) {
        // A filter takes the right to install it, or that there are no new privileges.
        if self.config.new_privs {
            identity::umask(process, 0o022);
            self.filter(process);
            self.limit_capabilities(process, &self.config.capabilities);
            return;
        }
        self.limit_capabilities(process, &self.config.capabilities);
        capabilities::no_new_privs(process);
        identity::umask(process, 0o022);
        self.filter(process);
    }

    fn has_rights(&self) -> bool {
        self.has(Namespaces::USER) || self.host.privileged
    }

    fn limit_capabilities(&self, process: &mut Program, kept: &Capabilities) {
        capabilities::limit_to(process, kept, self.host.last_capability, self.has_rights());
    }

    /// Keeps a program without a PID namespace from the caller's other processes, as far as that can be had.
    fn spare_other_processes(&mut self) {
        if self.has(Namespaces::PID) {
            return;
        }
        if self.filter.is_none() {
            self.gaps.push(
                "the limits, scheduling and priority of the user's other processes, without a PID namespace and without a \
                 seccomp filter: add Namespaces::PID, or a policy"
                    .into(),
            );
        }
        let asked = self.config.landlock.as_ref().is_some_and(|asked| asked.allows_any_signal());
        if asked || self.landlock.as_ref().is_some_and(Handled::scopes_signals) {
            return;
        }
        let can_restrict = !self.config.new_privs || self.has_rights();
        self.signals = Some(self.host.landlock()).filter(|_| can_restrict).and_then(Implied::own_signals);
        if self.signals.is_none() {
            self.gaps.push(
                "signals to the user's other processes, and ptrace(2) of them as far as the filter allows it, without a PID \
                 namespace and without Landlock of Linux 6.12: add Namespaces::PID"
                    .into(),
            );
        }
    }

    /// Landlock, and the filter of system calls.
    fn filter(&self, process: &mut Program) {
        if let Some(signals) = &self.signals {
            process.within(Layer::Landlock, |process| signals.restrict(process));
        }
        if let Some(implied) = &self.implied {
            process.within(Layer::Root, |process| implied.restrict(process));
        }
        if let (Some(asked), Some(handled)) = (&self.config.landlock, &self.landlock) {
            process.within(Layer::Landlock, |process| landlock::restrict(process, asked, handled));
        }
        if let Some(filter) = &self.filter {
            let killable = self.host.has_killable_listeners();
            process.within(Layer::Seccomp, |process| seccomp::install(process, filter, &self.config.seccomp, killable));
        }
    }

    /// What decides the calls that the filter hands to the host, if it does.
    fn rules(&self) -> Option<Arc<dyn Rules>> {
        let policy = &self.filter.as_ref()?.policy;
        if policy.needs_listener() { Some(policy.clone()) } else { None }
    }

    /// Filters without `no_new_privs` take rights over the user namespace.
    fn check_new_privs(&self) -> Result<()> {
        let filters = self.filter.is_some() || self.landlock.is_some();
        if self.config.new_privs && filters && !self.has_rights() {
            return Err(Error::invalid(
                "without no_new_privs this host may install neither a seccomp filter nor Landlock rules",
                format!("add Namespaces::USER, {}, or leave Sandbox::allow_new_privs out", self.host.way_to_rights()),
            ));
        }
        Ok(())
    }

    /// The cgroups that the command enters.
    fn groups(&self) -> Groups {
        let spec = self.cgroup.as_ref();
        spec.map_or_else(Groups::default, |spec| Groups { count: spec.groups(), born_in: spec.born_in() })
    }

    /// Joins and makes the namespaces, and becomes the program's user: before that if its id there is said by who is that
    /// user, else after it.
    fn enter_namespaces(&self, helper: &mut Program) {
        let before = self.who.is_user_before(self.has(Namespaces::USER));
        if before {
            if self.host.privileged {
                capabilities::keep_over_user_change(helper);
            }
            identity::become_host_user(helper, &self.who);
        } else if self.host.privileged {
            identity::leave_groups(helper);
        }
        namespaces::join(&self.chosen, helper);
        // With a cgroup of its own the program makes the namespace when it is there.
        let later = if self.cgroup.is_some() { Namespaces::CGROUP } else { Namespaces::empty() };
        namespaces::make(self.chosen.created - later, helper);
        if self.chosen.created.contains(Namespaces::TIME) {
            namespaces::enter_time(helper, self.config.time_offsets.unwrap_or_default());
        }
        match &self.who.maps {
            Some(maps) if before => identity::write_maps(helper, maps),
            Some(_) => helper::ask_for_maps(helper),
            None => {}
        }
        helper.hide();
        if !before {
            capabilities::keep_over_user_change(helper);
            identity::become_user(helper, &self.who, self.host.privileged);
            // A change of user makes it what fs.suid_dumpable says.
            helper.hide();
        }
    }

    /// Limits what the user namespace may use of what is its user's.
    fn bound_quotas(&mut self, helper: &mut Program) {
        if self.chosen.created.contains(Namespaces::USER) && self.who.shares_user(true) {
            let allows = |call, first| self.allows(call, &[first, 0, 0, 0, 0, 0]);
            let bound = helper.within(Layer::Limits, |helper| quotas::bound(helper, allows));
            self.lost.extend(bound.err().map(|error| Lost::new("a fraction of the user's quotas", &error)));
        }
    }

    /// Limits what connections keep in a network of the sandbox's own, if the program can have some.
    fn bound_network(&mut self, helper: &mut Program) {
        let connects = [libc::AF_INET, libc::AF_INET6]
            .iter()
            .any(|&family| self.allows(libc::SYS_socket, &[family as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0]));
        if self.chosen.created.contains(Namespaces::NET) && connects {
            self.gaps.extend(helper.within(Layer::Limits, network::bound));
        }
    }

    /// Whether the filter lets the program make a call.
    fn allows(&self, call: libc::c_long, args: &[u64; 6]) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| !matches!(filter.policy.ruling(call as i32, args), Ruling::Refuse(_) | Ruling::End))
    }

    /// Sets up what is in the namespaces, and starts the init of a PID namespace that was made.
    fn set_up(&mut self, helper: &mut Program, job: &Job<'_>) -> Result<(Covering, Option<Init>)> {
        let created = self.chosen.created;
        let default = created.contains(Namespaces::UTS).then_some(OsStr::new("sandbox"));
        let hostname = self.config.hostname.as_deref().or(default);
        let domain_name = self.config.domain_name.as_deref();
        helper.within(Layer::Namespaces, |helper| namespaces::set_names(created, helper, hostname, domain_name))?;
        let has_mounts = created.contains(Namespaces::MOUNT);
        let mounts = if has_mounts { root::mounts(&self.config.root, &self.host, &self.who) } else { vec![] };
        root::check_terminals(&self.config.root, &mounts)?;
        let (init, procs) = match created.contains(Namespaces::PID) {
            true => {
                let last_word = self.config.limits.last_word();
                let before = |init: &mut Program| {
                    self.bring_up_loopback(init);
                    init.within(Layer::Root, |init| root::open_procs(&mounts, init))
                };
                let (init, procs) = init::start(helper, last_word, before, self.confine_set_up_process());
                (Some(init), procs)
            }
            false => {
                self.bring_up_loopback(helper);
                (None, vec![])
            }
        };
        let mut procs = root::Procs { init, made: procs.into_iter() };
        let mut covering = Covering::default();
        if has_mounts {
            let mut endpoints = self.endpoints(&mounts);
            covering = helper.within(Layer::Root, |helper| {
                let lowering = root::Lowering {
                    helper,
                    host_program: &mut self.host_program,
                    id_mappings: &mut self.id_mappings,
                    host: &self.host,
                    who: &self.who,
                    chosen: &self.chosen,
                    procs: &mut procs,
                    placeholders: &mut self.placeholders,
                    terminals: self.config.root.terminals_beside(job.pty.is_some().into()),
                    endpoints: &mut endpoints,
                };
                root::lower(&self.config.root, &mounts, lowering)
            })?;
            self.imply(endpoints, job);
        } else if let Some(path) = self.config.root.chroot() {
            root::change_root(helper, &self.host, path)?;
        }
        procs.wait(helper);
        Ok((covering, init))
    }

    /// How the sockets and FIFOs of the host can be cut off.
    fn endpoints(&self, mounts: &[Mount]) -> Endpoints {
        // A capability over the host's files has no effect on an owner without an id.
        let has_no_rights =
            self.chosen.created.contains(Namespaces::USER) || self.config.capabilities == Capabilities::none();
        let can_unmap = self.host.privileged && self.host.has_setattr() && has_no_rights;
        let unmapped = self.who.without_owners().filter(|_| can_unmap);
        let allows = |call: libc::c_long, args: [u64; 3]| {
            let args = [args[0], args[1], args[2], 0, 0, 0];
            let Some(filter) = &self.filter else { return true };
            matches!(filter.policy.decide(call as i32, &args), Action::Allow | Action::Log | Action::Notify)
        };
        let unix = [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0];
        let write = [libc::AT_FDCWD as u64, 0, libc::O_WRONLY as u64];
        let may_connect = allows(libc::SYS_socket, unix) || allows(libc::SYS_socketpair, unix);
        let may_write = allows(libc::SYS_openat, write) || allows(libc::SYS_openat2, [0; 3]);
        // Landlock denies mounts to whoever it restricts, also in a user namespace within.
        let may_mount = allows(libc::SYS_mount, [0; 3]) || allows(libc::SYS_move_mount, [0; 3]);
        let can_restrict = !may_mount && (!self.config.new_privs || self.has_rights());
        let landlock = Some(self.host.landlock()).filter(|&abi| abi >= ABI::V2 && can_restrict);
        let writable = root::writable_places(&self.host, mounts, self.config.root.is_writable());
        Endpoints::new(unmapped, landlock, [may_connect, may_write], writable)
    }

    /// Landlock rules for what the root does not cut off, and what is left.
    fn imply(&mut self, endpoints: Endpoints, job: &Job<'_>) {
        self.gaps.extend(endpoints.gaps());
        self.endpoints = endpoints.summary();
        self.implied = endpoints.restricts().map(|abi| {
            let given = job.fds.iter().filter(|(_, fd)| is_writable(&fd.0)).map(|&(number, _)| number);
            Implied::writing_below(endpoints.writable, [1, 2].into_iter().chain(given).collect(), abi)
        });
    }

    /// In the init, if there is one: the kernel may take its time (the lock of rtnetlink(7)), and the helper goes on.
    fn bring_up_loopback(&self, program: &mut Program) {
        if self.chosen.created.contains(Namespaces::NET) {
            program.within(Layer::Namespaces, network::loopback_up);
        }
    }

    /// Opens the command's terminal, and gives the command its descriptors; the master of the terminal.
    fn place_descriptors(&mut self, helper: &mut Program, job: &Job<'_>, stdio: &[Stream; 3]) -> Result<Option<Slot>> {
        let pty = job.pty.map(|Terminal { rows, columns }| helper::open_pty(helper, rows, columns));
        let mut placed = vec![];
        for (number, stream) in stdio.iter().enumerate() {
            let source = match (stream, pty) {
                (Stream::Pty, Some((_, slave))) => slave,
                _ => helper.input(Input::Stdio(number as u8)),
            };
            placed.push(Placed { source, number: number as u32 });
        }
        for (number, fd) in job.fds {
            let index = share(&mut self.descriptors, fd.0.clone());
            self.handed.push((index, *number));
            placed.push(Placed { source: helper.input(Input::Handed(index)), number: *number });
        }
        limits::check_numbers(&placed)?;
        let master = pty.map(|(master, _)| master);
        helper::place_descriptors(helper, &placed, master);
        Ok(master)
    }

    /// Whether the program has user and group IDs other than the host's root, and can't become that.
    fn is_other_than_root(&self) -> bool {
        // The maps of a namespace that root joins are not known.
        let is_known = !(self.host.privileged && self.chosen.joined_kinds().contains(Namespaces::USER));
        let keeps_groups = self.who.groups.is_none();
        let keeps_roots_group = || getgroups().map_or(true, |groups| groups.contains(&Gid::from_raw(0)));
        is_known && !self.who.reaches_root() && !(keeps_groups && keeps_roots_group())
    }

    /// The layers in force. A new layer is named here only where nothing of it can be missing, or is in `lost`.
    fn enforcement(&self, job: &Job<'_>) -> Enforcement {
        let mut enforced = vec![];
        let all = self.chosen.all();
        if !all.is_empty() {
            enforced.push((Layer::Namespaces, all.names()));
        }
        if !self.config.root.is_inherited() {
            let cut_off = self.endpoints.map(|how| format!("; sockets and FIFOs of the host cut off {how}"));
            enforced.push((Layer::Root, self.config.root.to_string() + &cut_off.unwrap_or_default()));
        }
        if self.is_other_than_root() {
            enforced.push((Layer::Identity, format!("user {} and group {} inside", self.who.uid, self.who.gid)));
        }
        // A program that can gain privileges has no other capabilities only if its bounding set has none.
        if self.has_rights() || !self.config.new_privs {
            enforced.push((Layer::Capabilities, self.config.capabilities.to_string()));
        }
        if !self.config.new_privs {
            enforced.push((Layer::NoNewPrivs, "set".into()));
        }
        if let (Some(asked), Some(handled)) = (&self.config.landlock, &self.landlock) {
            enforced.push((Layer::Landlock, format!("{asked}, {handled}")));
        }
        if self.filter.is_some() {
            enforced.push((Layer::Seccomp, self.config.seccomp.to_string()));
        }
        if job.new_session {
            enforced.push((Layer::Session, "new".into()));
        }
        enforced.push((
            Layer::Descriptors,
            "files for reading stay read-only, files for writing are written to alone, flags are not shared".into(),
        ));
        if let Some(limits) = self.cgroup.as_ref().and_then(Spec::enforced) {
            enforced.push((Layer::Cgroup, limits));
        }
        if !self.config.limits.is_empty() {
            enforced.push((Layer::Limits, self.config.limits.to_string()));
        }
        Enforcement { enforced, lost: self.lost.clone(), gaps: self.gaps.clone() }
    }
}

/// Whether a descriptor was opened for writing.
fn is_writable(fd: &OwnedFd) -> bool {
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

fn change_directory(image: &mut Program, path: &Path) {
    image.step(Step::new("changing the working directory to").path(path).remedies(&[
        (libc::ELOOP, "it leads through a magic link, such as /proc/self/cwd (proc(5)): name the directory itself"),
        (libc::ENOENT, "it does not exist inside the sandbox: bind it, or choose another"),
        (libc::ENOTDIR, "it is no directory"),
        (libc::EACCES, "the sandbox's user can't enter it"),
    ]));
    let directory = image.open_directory(path);
    image.call(nr!(SYS_fchdir), [directory.into()]);
}

fn argv(job: &Job<'_>) -> Result<Vec<OsString>> {
    let name = job.arg0.unwrap_or(job.program);
    let argv: Vec<OsString> = std::iter::once(name.to_owned()).chain(job.args.iter().cloned()).collect();
    argv.iter().try_for_each(|arg| no_zero("the argument", arg))?;
    Ok(argv)
}

fn envp(job: &Job<'_>) -> Result<Vec<OsString>> {
    job.env
        .iter()
        .map(|(key, value)| {
            no_zero("the environment variable", key)?;
            no_zero("the value of an environment variable", value)?;
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                let remedy = "name it without = and with at least one byte";
                return Err(Error::invalid(format!("{key:?} is no name of an environment variable"), remedy));
            }
            let mut entry = key.clone();
            entry.push("=");
            entry.push(value);
            Ok(entry)
        })
        .collect()
}

/// Where the program is looked for: itself if its name has a slash, else in the directories of its `PATH`.
fn search(job: &Job<'_>) -> Result<Search> {
    no_zero("the program", job.program)?;
    if job.program.is_empty() {
        return Err(Error::invalid("the program has no name", "name one: Command::new(…)"));
    }
    let path = job.env.get(OsStr::new("PATH")).map(OsString::as_os_str).unwrap_or_default();
    let has_directory = job.program.as_bytes().contains(&b'/');
    if path.is_empty() && !has_directory {
        let remedy = "set PATH, or name the program with its directory";
        return Err(Error::invalid(format!("{:?} can't be looked for: PATH is empty", job.program), remedy));
    }
    let candidates: Vec<PathBuf> = match has_directory {
        true => vec![job.program.into()],
        false => std::env::split_paths(path).map(|directory| directory.join(job.program)).collect(),
    };
    Ok(Search { program: job.program.into(), candidates })
}
