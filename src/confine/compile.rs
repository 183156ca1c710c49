//! A configuration and a command, put together to a plan: the one place that knows every feature, and the order in which
//! their calls come.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host::Host;
use super::identity::{self, Resolved};
use super::namespaces::{self, Chosen};
use super::{Config, Job, Namespaces, Terminal, capabilities, limits, network, root, share};
use crate::error::{Error, Result};
use crate::outcome::{Enforcement, Layer};
use crate::plan::helper::{self, Placed, Start};
use crate::plan::{IdMaps, Init, Input, Plan, Process, Program, Search, Step, Stream, init, nr, stub};

/// A plan under construction.
struct Compiler<'a> {
    config: &'a Config,
    host: Host,
    chosen: Chosen,
    who: Resolved,
    host_program: Program,
    id_mappings: Vec<IdMaps>,
    descriptors: Vec<Arc<OwnedFd>>,
}

/// Compiles a plan. Whatever can be refused for a reason known beforehand is refused here.
pub(crate) fn compile(config: &Config, job: &Job<'_>) -> Result<Plan> {
    let host = Host::look(config.kernel)?;
    let mut descriptors = vec![];
    let chosen = namespaces::choose(config.namespaces, &config.joins, &mut descriptors, host.privileged)?;
    namespaces::check_offsets(chosen.created, config.time_offsets)?;
    let who = identity::resolve(&config.identity, &chosen, &host)?;
    let host_program = Program::new("stockade: host");
    let mut compiler = Compiler { config, host, chosen, who, host_program, id_mappings: vec![], descriptors };
    compiler.check_root()?;
    let init = if compiler.chosen.all().is_empty() { None } else { Some(compiler.init()?) };
    let stdio = job.stdio.clone().map(|stream| stream.lower(&mut compiler.descriptors));
    let search = search(job)?;
    let helper = compiler.helper(job, &stdio, &search)?;
    let enforced = compiler.enforcement(job);
    let init_image = init.as_ref().map(|init: &Init| &init.process.image);
    if [Some(&compiler.host_program), init_image, Some(&helper.image)].into_iter().flatten().any(Program::is_too_long) {
        return Err(Error::invalid("the plan has more than 65,535 calls or values", "leave some of the mounts out"));
    }
    Ok(Plan {
        host: compiler.host_program,
        init,
        helper,
        helper_stays: !compiler.chosen.created.contains(Namespaces::PID),
        stdio,
        descriptors: compiler.descriptors,
        id_mappings: compiler.id_mappings,
        own_ids: compiler.who.own_ids,
        bounds: compiler.config.limits.bounds(),
        owner: compiler.host.privileged.then_some((compiler.who.host_uid, compiler.who.host_gid)),
        search,
        enforced,
        fault: None,
    })
}

impl Compiler<'_> {
    fn has(&self, kind: Namespaces) -> bool {
        self.chosen.all().contains(kind)
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
                "add Namespaces::MOUNT and Namespaces::USER, or run as root",
            ));
        }
        Ok(())
    }

    fn init(&mut self) -> Result<Init> {
        let created = self.chosen.created;
        let mut prologue = Program::new("stockade: init");
        let birth = namespaces::birth(&self.chosen, &mut prologue);
        if created.contains(Namespaces::TIME) {
            namespaces::make_time(&mut prologue, self.config.time_offsets.unwrap_or_default());
        }
        let mut image = init::begin();
        if created.contains(Namespaces::TIME) {
            namespaces::enter_time(&mut image);
        }
        namespaces::join_time(&self.chosen, &mut image);
        identity::umask(&mut image, 0);
        let in_user_namespace = self.has(Namespaces::USER);
        if in_user_namespace || self.host.privileged {
            capabilities::keep_over_user_change(&mut image);
            identity::become_user(&mut image, &self.who, in_user_namespace);
        }
        let default = created.contains(Namespaces::UTS).then_some(OsStr::new("sandbox"));
        let hostname = self.config.hostname.as_deref().or(default);
        namespaces::set_names(created, &mut image, hostname, self.config.domain_name.as_deref())?;
        if created.contains(Namespaces::NET) {
            network::loopback_up(&mut image);
        }
        if created.contains(Namespaces::MOUNT) {
            let lowering = root::Lowering {
                init: &mut image,
                host_program: &mut self.host_program,
                id_mappings: &mut self.id_mappings,
                host: &self.host,
                who: &self.who,
                chosen: &self.chosen,
            };
            root::lower(&self.config.root, lowering)?;
        }
        init::finish(&mut image, self.config.limits.last_word());
        let keep = if in_user_namespace { capabilities::OF_THE_INIT } else { 0 };
        let process = Process { stub: stub(prologue, &image, keep), image };
        Ok(Init { process, birth, maps: self.who.maps.clone() })
    }

    fn helper(&mut self, job: &Job<'_>, stdio: &[Stream; 3], search: &Search) -> Result<Process> {
        let stay = !self.chosen.created.contains(Namespaces::PID);
        let in_user_namespace = self.has(Namespaces::USER);
        let has_rights = in_user_namespace || self.host.privileged;
        let mut image = helper::begin(stay);
        // What takes no more than the user namespace, which stands already, is done while the init makes the rest. To
        // join others' namespaces may take rights from before that.
        let early = in_user_namespace && self.chosen.joined.is_empty();
        if early {
            namespaces::join_kinds(Namespaces::USER, &mut image);
            self.become_powerless_user(&mut image);
        }
        if !self.chosen.all().is_empty() {
            helper::wait_for_init(&mut image);
            match early {
                true => namespaces::join_kinds(self.chosen.all() - Namespaces::USER, &mut image),
                false => namespaces::join_sandbox(&self.chosen, &mut image),
            }
        }
        if !self.chosen.created.contains(Namespaces::MOUNT)
            && let Some(path) = self.config.root.chroot()
        {
            root::change_root(&mut image, path)?;
        }
        if has_rights && !early {
            self.become_powerless_user(&mut image);
        }
        capabilities::drop_all(&mut image);
        capabilities::no_new_privs(&mut image);
        identity::umask(&mut image, 0o022);
        let pty = job.pty.map(|Terminal { rows, columns }| helper::open_pty(&mut image, rows, columns));
        let mut placed = vec![];
        for (number, stream) in stdio.iter().enumerate() {
            let source = match (stream, pty) {
                (Stream::Pty, Some((_, slave))) => slave,
                _ => image.input(Input::Stdio(number as u8)),
            };
            placed.push(Placed { source, number: number as u32 });
        }
        for (number, fd) in job.fds {
            let index = share(&mut self.descriptors, fd.0.clone());
            placed.push(Placed { source: image.input(Input::Descriptor(index)), number: *number });
        }
        let pty = pty.map(|(master, _)| master);
        limits::check_numbers(&placed)?;
        helper::place_descriptors(&mut image, &placed, pty);
        change_directory(&mut image, job.cwd.unwrap_or(Path::new("/")))?;
        let start = Start {
            candidates: &search.candidates,
            argv: &argv(job)?,
            envp: &envp(job)?,
            new_session: job.new_session,
            pty,
            stay,
            last_word: self.config.limits.last_word(),
        };
        helper::start(&mut image, &start, |child| self.config.limits.set(child));
        Ok(Process { stub: stub(Program::new("stockade: helper"), &image, 0), image })
    }

    /// Becomes the program's user, with no way to more rights than it has still.
    fn become_powerless_user(&self, image: &mut Program) {
        capabilities::close_ways_to_more(image, self.host.last_capability);
        identity::become_user(image, &self.who, self.has(Namespaces::USER));
    }

    fn enforcement(&self, job: &Job<'_>) -> Enforcement {
        let mut enforced = vec![];
        let all = self.chosen.all();
        if !all.is_empty() {
            enforced.push((Layer::Namespaces, all.names()));
        }
        if !self.config.root.is_inherited() {
            enforced.push((Layer::Root, self.config.root.to_string()));
        }
        enforced.push((Layer::Identity, format!("user {} and group {} inside", self.who.uid, self.who.gid)));
        enforced.push((Layer::Capabilities, "none".into()));
        enforced.push((Layer::NoNewPrivs, "set".into()));
        if job.new_session {
            enforced.push((Layer::Session, "new".into()));
        }
        if !self.config.limits.is_empty() {
            enforced.push((Layer::Limits, format!("{:?}", self.config.limits)));
        }
        Enforcement { enforced }
    }
}

fn change_directory(image: &mut Program, path: &Path) -> Result<()> {
    no_zero("the working directory", path.as_os_str())?;
    image.step(Step::new("changing the working directory to").path(path).remedies(&[
        (libc::ENOENT, "it does not exist inside the sandbox: bind it, or choose another"),
        (libc::ENOTDIR, "it is no directory"),
        (libc::EACCES, "the sandbox's user can't enter it"),
    ]));
    let text = image.text(path);
    image.call(nr!(SYS_chdir), [text]);
    Ok(())
}

fn no_zero(what: &str, text: &OsStr) -> Result<()> {
    if text.as_bytes().contains(&0) {
        let remedy = "the kernel ends a string at a zero byte: leave it out";
        return Err(Error::invalid(format!("{what} {text:?} contains a zero byte"), remedy));
    }
    Ok(())
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
