//! Who the program is: its user and group ids inside, and what they are on the host.

use std::fs;
use std::path::Path;

use super::host::{Host, RunsAsRoot};
use super::namespaces::{Chosen, Namespaces};
use crate::error::{Error, Result};
use crate::plan::{Address, Arg, HostId, HostRange, IdMaps, Input, MapLine, Program, Step, Word, Writer, flags, nr};

/// A range of ids in a user namespace: a line of `uid_map` or `gid_map` (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IdRange {
    /// First id inside the sandbox.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// The ids that a root host gives away by default.
pub(super) const OWN_IDS: HostRange = HostRange::OWN;
/// The user and group id inside, where the host is root.
const INSIDE: u32 = 1000;

impl IdRange {
    /// Whether the ids from `first` on are all in it.
    pub(super) fn covers(self, first: u32, count: u32) -> bool {
        first.checked_sub(self.inside).is_some_and(|offset| u64::from(offset) + u64::from(count) <= self.count.into())
    }

    /// The ID outside of an ID inside, if it is in the range.
    pub(super) fn to_outside(self, id: u32) -> Option<u32> {
        self.covers(id, 1).then(|| self.outside.wrapping_add(id - self.inside))
    }
}

/// User and group IDs, and the ID mappings of the user namespace.
///
/// Default for a caller with root's capabilities: user and group 1000 inside, which is a host ID of the sandbox's own,
/// from a range that belongs to nobody. No two sandboxes have it at the same time (see
/// [`Identity::host_ids`]), so that they share no ownership, quota or keyring. Default for every other
/// caller: the caller's own IDs, inside as outside. Root of a user namespace without the IDs of that range is one of
/// these; its ID inside is 1000.
///
/// Root's capabilities are those that the set-up uses: CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_KILL and
/// CAP_CHOWN, effective. A caller with another user ID than 0 needs CAP_DAC_OVERRIDE too, and all of them ambient
/// (capabilities(7)). The user ID does not
/// count: a caller that is host uid 0 without them (root in a Docker container lacks CAP_SYS_ADMIN) gets an
/// [`Error::Invalid`](crate::Error::Invalid), since its program would be host uid 0, unless it requests
/// [`Identity::caller`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Identity {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    outside: Outside,
    own_ids: Option<(u32, u32)>,
}

/// What the ids are on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Outside {
    #[default]
    Own,
    Caller,
    SubIds,
    Maps {
        uid: Vec<IdRange>,
        gid: Vec<IdRange>,
    },
}

impl Identity {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program has the caller's user and group on the host: for a root caller **it runs as host uid 0**, though without
    /// capabilities. Its `/proc` is read-only then: what is below `/proc/sys` belongs to that user.
    pub fn caller() -> Self {
        Self { outside: Outside::Caller, ..Self::default() }
    }

    /// The user id inside.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The group id inside.
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// The supplementary groups inside (setgroups(2)); none by default.
    ///
    /// A root host gives access to the host's group of the same number by this. An ordinary user needs
    /// [`Identity::sub_ids`] for it; without that its process keeps the groups that it has, as the kernel lets nobody
    /// drop them who has no right to set them.
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.groups = groups.into_iter().collect();
        self
    }

    /// Maps, beside the program's own id, the ranges that `/etc/subuid` and `/etc/subgid` give to the caller, to the
    /// ids from 0 on (subuid(5)). An ordinary user needs `newuidmap` and `newgidmap` for that (package `uidmap`), in
    /// `/usr/bin`, `/bin`, `/usr/sbin`, `/sbin` or `/run/wrappers/bin`, owned by root and writable by nobody else.
    #[must_use]
    pub fn sub_ids(mut self) -> Self {
        self.outside = Outside::SubIds;
        self
    }

    /// The maps themselves: a root host may map any id, an ordinary user those of `/etc/subuid` and its own.
    #[must_use]
    pub fn maps(mut self, uid: impl IntoIterator<Item = IdRange>, gid: impl IntoIterator<Item = IdRange>) -> Self {
        self.outside = Outside::Maps { uid: uid.into_iter().collect(), gid: gid.into_iter().collect() };
        self
    }

    /// The host IDs, from `first` on, of which each sandbox of a caller with root's capabilities gets one. Default:
    /// 251,658,240 IDs from 1,879,048,192 on.
    ///
    /// An ID is reserved for as long as the sandbox exists, by a lock on `/run/stockade/ids`, which the crate creates for root
    /// alone (in `/dev` where there is no `/run`): no two sandboxes of callers that see the same `/run` have it at the same time. IDs of
    /// processes that are in the caller's pid namespace, or below, are not given out either. Callers that share neither,
    /// such as two containers without user namespaces, need ranges of their own. If all are in use, `spawn` returns
    /// [`Error::Invalid`](crate::Error::Invalid).
    #[must_use]
    pub fn host_ids(mut self, first: u32, count: u32) -> Self {
        self.own_ids = Some((first, count));
        self
    }
}

impl Identity {
    /// The identity of a reference sandbox: the default one, or the caller's.
    pub(crate) fn reference(&self) -> Self {
        match self.outside {
            Outside::Caller => Self::caller(),
            _ => Self::new(),
        }
    }
}

/// Who the program is, decided.
pub(crate) struct Resolved {
    pub uid: u32,
    pub gid: u32,
    /// `None` leaves them: the kernel lets this user set none.
    pub groups: Option<Vec<u32>>,
    /// The ids on the host.
    pub host_uid: HostId,
    pub host_gid: HostId,
    /// The supplementary groups on the host.
    pub host_groups: Vec<HostId>,
    /// The ids in the process's own user namespace, where those of the inside have no meaning.
    pub maps: Option<IdMaps>,
    pub own_ids: HostRange,
}

impl Resolved {
    /// Whether its process becomes the program's user before it makes a user namespace, or makes none.
    pub fn is_user_before(&self, in_user_namespace: bool) -> bool {
        match &self.maps {
            Some(maps) => maps.writer == Writer::Process,
            None => !in_user_namespace,
        }
    }

    /// Whether the program's user, or the user that makes its user namespace, is one that others are too: the kernel counts
    /// what is used to both.
    pub fn shares_user(&self, in_user_namespace: bool) -> bool {
        self.host_uid != HostId::Own || !self.is_user_before(in_user_namespace)
    }

    /// Whether the program is the host's root on the host, or may become it: to it belong the kernel's own files.
    pub fn reaches_host_root(&self) -> bool {
        self.host_uid == HostId::Id(0) || self.maps_user(0)
    }

    /// The same of the host's root as user or as group.
    pub fn reaches_root(&self) -> bool {
        let mut groups = self.host_groups.iter().chain([&self.host_gid]);
        let mut maps = self.maps.iter().flat_map(|maps| &maps.gid);
        self.reaches_host_root() || groups.any(|&group| group == HostId::Id(0)) || maps.any(|line| line.has(0))
    }

    /// Whether the sandbox has a host ID of its own.
    pub fn has_own_id(&self) -> bool {
        let mut maps = self.maps.iter().flat_map(|maps| maps.uid.iter().chain(&maps.gid));
        let own = |id: HostId| id == HostId::Own;
        own(self.host_uid) || own(self.host_gid) || maps.any(|line| own(line.outside))
    }

    /// Whether the program may be that user of the host's, or become it: anybody, without maps that say who there is.
    pub fn may_be(&self, uid: u32) -> bool {
        self.maps.is_none() || self.maps_user(uid)
    }

    /// Whether a user of the host's is in the maps.
    fn maps_user(&self, uid: u32) -> bool {
        self.maps.iter().flat_map(|maps| &maps.uid).any(|line| line.has(uid))
    }

    /// The maps of a user namespace in which owners on a disk have no ids; nothing if some of them may be the program's.
    pub fn without_owners(&self) -> Option<IdMaps> {
        let lines = self.maps.iter().flat_map(|maps| &maps.uid);
        let is_own = self.host_uid == HostId::Own && lines.into_iter().all(|line| line.outside == HostId::Own);
        is_own.then(|| IdMaps::of_nobody(self.host_groups.iter().copied()))
    }

    /// The maps of a user namespace in which the owner on a disk appears as the program; nothing if it is that anyway.
    pub fn id_mapping(&self, owner: (u32, u32)) -> Option<IdMaps> {
        if (self.host_uid, self.host_gid) == (HostId::Id(owner.0), HostId::Id(owner.1)) {
            return None;
        }
        let mut gid = vec![MapLine::one(owner.1, self.host_gid)];
        // What opens to a group on the host opens to the program that is in it.
        gid.extend(self.host_groups.iter().filter_map(|&group| match group {
            HostId::Id(id) if id != owner.1 && group != self.host_gid => Some(MapLine::one(id, group)),
            _ => None,
        }));
        Some(IdMaps { uid: vec![MapLine::one(owner.0, self.host_uid)], gid, writer: Writer::Host })
    }
}

/// Decides who the program is.
pub(crate) fn resolve(identity: &Identity, chosen: &Chosen, host: &Host) -> Result<Resolved> {
    let own_ids = match identity.own_ids {
        Some((first, count)) if first == 0 || count == 0 || first.checked_add(count).is_none() => {
            return Err(Error::invalid(
                format!("the host ids {first} and {count} more can't be given to sandboxes"),
                "give a range that is not empty, does not begin at 0, and ends below 4294967296",
            ));
        }
        Some((first, count)) => HostRange { first, count },
        None => OWN_IDS,
    };
    let mut resolved = if chosen.created.contains(Namespaces::USER) {
        mapped(identity, host)?
    } else if chosen.joined_kinds().contains(Namespaces::USER) {
        joined(identity, host)?
    } else {
        unmapped(identity, host)?
    };
    resolved.own_ids = own_ids;
    Ok(resolved)
}

/// Returns an error if the program would be the host's root, and [`Identity::caller`] was not requested.
pub(super) fn check_caller(identity: &Identity, host: &Host) -> Result<()> {
    let (Some(why), Outside::Own | Outside::SubIds) = (&host.runs_as_root, &identity.outside) else { return Ok(()) };
    Err(match why {
        RunsAsRoot::HasNoIds => Error::invalid(
            "this user namespace has no ids but that of the host's root, for which nothing is to run",
            "map more ids into it (the ids from 1879048192 on are for sandboxes), or say Identity::caller()",
        ),
        RunsAsRoot::Lacks(capabilities) => {
            let names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
            let options = names.iter().map(|name| format!("--cap-add {}", name.trim_start_matches("CAP_")));
            Error::invalid(
                format!("the caller is the host's root without {}: its program would be host uid 0", names.join(", ")),
                format!(
                    "give the caller these capabilities (docker run {}), run it as another user, or allow its program to \
                     be the host's root with Identity::caller()",
                    options.collect::<Vec<_>>().join(" ")
                ),
            )
        }
    })
}

/// In a user namespace of the sandbox's own.
fn mapped(identity: &Identity, host: &Host) -> Result<Resolved> {
    let (caller_uid, caller_gid) = host.ids;
    let default = |id| if id == 0 { INSIDE } else { id };
    let mut uid = identity.uid.unwrap_or(default(caller_uid));
    let mut gid = identity.gid.unwrap_or(default(caller_gid));
    let mut by_helper_programs = !host.privileged;
    let (uid_lines, mut gid_lines) = match &identity.outside {
        Outside::Own | Outside::Caller => {
            by_helper_programs = false;
            let own = host.privileged && identity.outside == Outside::Own;
            let outside = |id| if own { HostId::Own } else { HostId::Id(id) };
            (vec![MapLine::one(uid, outside(caller_uid))], vec![MapLine::one(gid, outside(caller_gid))])
        }
        Outside::SubIds => (
            with_sub_ids(uid, caller_uid, &host.sub_ids(Path::new("/etc/subuid"))?, host.privileged),
            with_sub_ids(gid, caller_gid, &host.sub_ids(Path::new("/etc/subgid"))?, host.privileged),
        ),
        Outside::Maps { uid: uids, gid: gids } => {
            uid = identity.uid.or(uids.first().map(|range| range.inside)).unwrap_or(uid);
            gid = identity.gid.or(gids.first().map(|range| range.inside)).unwrap_or(gid);
            (lines(uids), lines(gids))
        }
    };
    if host.privileged && identity.outside == Outside::Own {
        let extra = identity.groups.iter().filter(|&&group| group != gid);
        gid_lines.extend(extra.map(|&group| MapLine::one(group, HostId::Id(group))));
    }
    let outside = |kind: &str, id: u32, lines: &[MapLine]| {
        lines.iter().find_map(|line| line.to_outside(id)).ok_or_else(|| {
            Error::invalid(
                format!("{kind} id {id} of the program is not in the map of the sandbox"),
                "map it with Identity::maps or Identity::sub_ids, or choose one that is mapped",
            )
        })
    };
    let host_groups =
        identity.groups.iter().map(|&group| outside("group", group, &gid_lines)).collect::<Result<_>>()?;
    let is_one = |lines: &[MapLine]| matches!(lines, [MapLine { count: 1, .. }]);
    let one_line = is_one(&uid_lines) && is_one(&gid_lines);
    let may_set_groups = host.privileged || by_helper_programs;
    if !identity.groups.is_empty() && !may_set_groups {
        return Err(Error::invalid(
            "an ordinary user can't set supplementary groups",
            "use Identity::sub_ids with groups that it maps, or leave them out",
        ));
    }
    let (host_uid, host_gid) = (outside("user", uid, &uid_lines)?, outside("group", gid, &gid_lines)?);
    let writer = match (by_helper_programs, one_line && identity.groups.is_empty()) {
        (true, _) => Writer::HelperPrograms,
        (false, true) => Writer::Process,
        (false, false) => Writer::Host,
    };
    let maps = IdMaps { uid: uid_lines, gid: gid_lines, writer };
    let groups = may_set_groups.then(|| identity.groups.clone());
    Ok(Resolved { uid, gid, groups, host_uid, host_gid, host_groups, maps: Some(maps), own_ids: OWN_IDS })
}

fn lines(ranges: &[IdRange]) -> Vec<MapLine> {
    let line =
        |range: &IdRange| MapLine { inside: range.inside, outside: HostId::Id(range.outside), count: range.count };
    ranges.iter().map(line).collect()
}

/// The program's own id, and the ranges of the sub-ids on all ids from 0 on that are left.
fn with_sub_ids(inside: u32, caller: u32, ranges: &[(u32, u32)], privileged: bool) -> Vec<MapLine> {
    let own = if privileged { HostId::Own } else { HostId::Id(caller) };
    let mut lines = vec![MapLine::one(inside, own)];
    let mut next = 0;
    for &(first, count) in ranges {
        let below = count.min(inside.saturating_sub(next));
        for (first, count) in [(first, below), (first + below, count - below)] {
            if next == inside {
                next += 1;
            }
            if count > 0 {
                lines.push(MapLine { inside: next, outside: HostId::Id(first), count });
                next += count;
            }
        }
    }
    lines
}

/// In a user namespace that exists: its maps are what they are.
fn joined(identity: &Identity, host: &Host) -> Result<Resolved> {
    if identity.outside != Outside::Own {
        return Err(Error::invalid(
            "the maps of a user namespace that is joined can't be set",
            "leave Identity::caller, maps and sub_ids out, or make a user namespace",
        ));
    }
    match (identity.uid, identity.gid) {
        (Some(uid), Some(gid)) => Ok(Resolved {
            uid,
            gid,
            groups: host.privileged.then(|| identity.groups.clone()),
            // Nobody can tell; what is bound is seen as by the caller.
            host_uid: HostId::Id(host.ids.0),
            host_gid: HostId::Id(host.ids.1),
            host_groups: vec![],
            maps: None,
            own_ids: OWN_IDS,
        }),
        _ if host.privileged => Err(Error::invalid(
            "the program's ids in a user namespace that is joined are not known",
            "say which they are: Identity::new().uid(…).gid(…)",
        )),
        (uid, gid) => Ok(Resolved {
            uid: uid.unwrap_or(host.ids.0),
            gid: gid.unwrap_or(host.ids.1),
            groups: None,
            host_uid: HostId::Id(host.ids.0),
            host_gid: HostId::Id(host.ids.1),
            host_groups: vec![],
            maps: None,
            own_ids: OWN_IDS,
        }),
    }
}

/// Without a user namespace: the ids inside are those of the host.
fn unmapped(identity: &Identity, host: &Host) -> Result<Resolved> {
    if matches!(identity.outside, Outside::Maps { .. } | Outside::SubIds) {
        return Err(Error::invalid("id maps need a user namespace", "add Namespaces::USER, or leave the maps out"));
    }
    let caller = !host.privileged || identity.outside == Outside::Caller;
    let choose = |kind: &str, asked: Option<u32>, own: u32| match asked {
        Some(id) if !host.privileged && id != own => Err(Error::invalid(
            format!("an ordinary user can't run as {kind} id {id} without a user namespace"),
            format!("add Namespaces::USER, or {}", host.way_to_rights()),
        )),
        Some(0) if !caller => Err(Error::invalid(
            format!("without a user namespace {kind} id 0 is the host's root"),
            "add Namespaces::USER, choose another id, or say Identity::caller() to run as the host's root",
        )),
        Some(id) => Ok(HostId::Id(id)),
        None if caller => Ok(HostId::Id(own)),
        None => Ok(HostId::Own),
    };
    let host_uid = choose("user", identity.uid, host.ids.0)?;
    let host_gid = choose("group", identity.gid, host.ids.1)?;
    if !identity.groups.is_empty() && !host.privileged {
        return Err(Error::invalid(
            "an ordinary user can't set supplementary groups",
            format!("leave them out, or {}", host.way_to_rights()),
        ));
    }
    let number = |id| if let HostId::Id(id) = id { id } else { INSIDE };
    Ok(Resolved {
        uid: number(host_uid),
        gid: number(host_gid),
        groups: host.privileged.then(|| identity.groups.clone()),
        host_uid,
        host_gid,
        host_groups: identity.groups.iter().map(|&group| HostId::Id(group)).collect(),
        maps: None,
        own_ids: OWN_IDS,
    })
}

const BECOMING: &[(i32, &str)] = &[
    (libc::EINVAL, "the id has no mapping in the user namespace; map it, or choose one that is mapped"),
    (libc::EPERM, "the host may not change its user (CAP_SETUID, CAP_SETGID), or the groups may not be set here"),
    (libc::EAGAIN, "the user is at its limit on processes (RLIMIT_NPROC)"),
];

/// Becomes the program's user and groups, by the ids that they have in the user namespace. It comes before anything is
/// created, since nothing can belong to an id that has no mapping.
pub(crate) fn become_user(program: &mut Program, who: &Resolved, has_left_groups: bool) {
    program.step(Step::new("becoming the sandbox's user").remedies(BECOMING));
    let groups = who.groups.as_deref().filter(|groups| !(groups.is_empty() && has_left_groups));
    set_ids(program, groups, who.uid.into(), who.gid.into());
}

/// Leaves the host's groups, before it joins a user namespace that may forbid it.
pub(crate) fn leave_groups(program: &mut Program) {
    program.step(Step::new("leaving the host's groups").remedies(BECOMING));
    program.call(nr!(SYS_setgroups), [Arg::NONE, Arg::NULL]);
}

/// The same by the ids that they have on the host, which makes a process nobody's to look into (proc(5)).
pub(crate) fn become_host_user(program: &mut Program, who: &Resolved) {
    program.step(Step::new("becoming the sandbox's user on the host").remedies(BECOMING));
    let mut id = |id| match id {
        HostId::Own => Arg::Slot(program.input(Input::OwnId)),
        HostId::Id(id) => Arg::Imm(id.into()),
    };
    let (uid, gid) = (id(who.host_uid), id(who.host_gid));
    set_ids(program, who.groups.as_deref(), uid, gid);
    program.step(Step::new("letting the process write to its own files in /proc"));
    program.prctl(flags!(PR_SET_DUMPABLE), 1);
}

fn set_ids(program: &mut Program, groups: Option<&[u32]>, uid: Arg, gid: Arg) {
    if let Some(groups) = groups {
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let list = program.arena.bytes(&list, format!("{groups:?}"));
        program.call(nr!(SYS_setgroups), [(groups.len() as u64).into(), list.into()]);
    }
    program.call(nr!(SYS_setresgid), [gid; 3]);
    program.call(nr!(SYS_setresuid), [uid; 3]);
}

/// Writes maps of one id, which is the process's own.
pub(crate) fn write_maps(program: &mut Program, maps: &IdMaps) {
    const REMEDIES: &[(i32, &str)] = &[
        (libc::EPERM, MAPS_REFUSED),
        (libc::EACCES, MAPS_REFUSED),
        (libc::EINVAL, "IDs must be below 4294967295, and ranges neither be empty nor overlap"),
    ];
    program.step(Step::new("denying setgroups(2)").path("/proc/self/setgroups").remedies(REMEDIES));
    let deny = program.arena.bytes(b"deny", "\"deny\"");
    program.write_file("/proc/self/setgroups", deny, 4);
    for (path, lines) in [("/proc/self/uid_map", &maps.uid), ("/proc/self/gid_map", &maps.gid)] {
        program.step(Step::new("mapping the sandbox's id").path(path).remedies(REMEDIES));
        for line in lines {
            let outside = match line.outside {
                HostId::Own => "<own id>".into(),
                HostId::Id(id) => id.to_string(),
            };
            let words = line_of_map(line);
            let text = program.arena.words(&words, format!("\"{} {outside} 1\\n\"", line.inside));
            program.write_file(path, text, size_of::<u64>() * words.len());
        }
    }
}

const MAPS_REFUSED: &str = "a security module (AppArmor's restriction of unprivileged user namespaces on Ubuntu 24.04) \
                            forbids it: allow user namespaces for this program in its AppArmor profile, or run as root; \
                            a caller that is root needs CAP_SETFCAP to map host id 0";

/// A line of one id as text, of which the launch may have to fill in a part.
fn line_of_map(line: &MapLine) -> Vec<Word> {
    let text = |text: String| {
        let words = text.as_bytes().chunks_exact(size_of::<u64>());
        words.map(|word| Word::Value(u64::from_ne_bytes(word.try_into().unwrap_or_default()))).collect::<Vec<_>>()
    };
    let outside = match line.outside {
        HostId::Own => [0, 1].map(|half| Word::Address(Address::Input(Input::OwnIdText(half)))).to_vec(),
        HostId::Id(id) => text(format!("{id:>16}")),
    };
    [text(format!("{:>15} ", line.inside)), outside, text(format!("{:>7}\n", line.count))].concat()
}

/// The ranges of a sub-id file for a user, by name or by number (subuid(5)). Lines that are no ranges are passed over,
/// as newuidmap does.
pub(crate) fn read_sub_ids(path: &Path, name: &str, uid: u32) -> Result<Vec<(u32, u32)>> {
    let none = || {
        let remedy = format!("add a range: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}");
        Error::invalid(format!("{} gives no sub-ids to {name}", path.display()), remedy)
    };
    let text = fs::read_to_string(path).map_err(|_| none())?;
    let ranges = sub_ids(&text, name, uid);
    if ranges.is_empty() { Err(none()) } else { Ok(ranges) }
}

/// The ranges of a sub-id file's text.
pub(crate) fn sub_ids(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        first.checked_add(count)?;
        (owner == name || owner == number).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// Sets the mask of file modes that the program starts with.
pub(crate) fn umask(program: &mut Program, mask: u32) {
    program.step(Step::new("setting the umask"));
    program.call(nr!(SYS_umask), [Arg::Octal(mask)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_ids_fill_the_ids_around_the_programs_own() {
        let id = |id| HostId::Id(id);
        let line = |inside, outside, count| MapLine { inside, outside: id(outside), count };
        assert_eq!(
            with_sub_ids(1000, 1000, &[(100_000, 65536)], false),
            [line(1000, 1000, 1), line(0, 100_000, 1000), line(1001, 101_000, 64536)]
        );
        assert_eq!(with_sub_ids(0, 1000, &[(100_000, 10)], false), [line(0, 1000, 1), line(1, 100_000, 10)]);
        assert_eq!(with_sub_ids(5, 7, &[(100, 5), (200, 5)], false), [line(5, 7, 1), line(0, 100, 5), line(6, 200, 5)]);
    }
}
