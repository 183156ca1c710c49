//! User and group IDs of the program, inside and on the host, and the ID maps of its user namespace. Reserving a host
//! ID and running newuidmap(1) are in `launch`.

use std::collections::BTreeSet;
use std::path::Path;

use super::facts::{Facts, RunsAsRoot};
use super::namespaces::{Chosen, Namespaces};
use super::sub_ids::IdRange;
use crate::advice::{Need, way_to_capabilities};
use crate::error::{Error, Result};
use crate::launch::{OWN_IDS, maps_of_nobody};
use crate::layer::Layer;
use crate::plan::{Address, Arg, HostId, HostRange, IdMaps, Input, MapLine, MapWriter, Script, Step, Word, flags, nr};
#[cfg(feature = "serde")]
use crate::stored::{As, Plain, at_most_one, table_form};

/// The user and group ID inside, if the caller is root.
const INSIDE: u32 = 1000;

/// The user and group IDs of a program, and the ID maps of its user namespace.
///
/// A caller is *privileged* if it has these effective capabilities, which the set-up uses: CAP_SYS_ADMIN, CAP_SETUID,
/// CAP_SETGID, CAP_SETPCAP, CAP_KILL and CAP_CHOWN. A caller with a user ID other than 0 also needs CAP_DAC_OVERRIDE,
/// and needs all of them in the ambient set (capabilities(7)).
///
/// | caller | default inside | default in the caller's user namespace |
/// |---|---|---|
/// | privileged | user and group 1000 | an ID of the sandbox's own ([`Identity::host_ids`]), so that no two running sandboxes share files, quotas or keyrings |
/// | unprivileged | the caller's user and group | the caller's user and group |
/// | root of a user namespace that does not map the range of [`Identity::host_ids`] | user and group 1000 | the caller's user and group |
///
/// A user ID of 0 does not make a caller privileged: root in a Docker container lacks CAP_SYS_ADMIN. The program of
/// such a caller would have user ID 0 on the host, which is an error unless [`Identity::caller`] or [`Identity::maps`]
/// requests it.
///
/// # Errors
///
/// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with [`Layer::Identity`](crate::Layer::Identity) if the
/// caller has user ID 0 on the host and is not privileged, and neither [`Identity::caller`] nor [`Identity::maps`] is
/// used.
///
/// When compiled, [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration)
///
/// - if a privileged caller requests user or group ID 0 without a user namespace, and without [`Identity::caller`];
/// - if an ID of the program or a group is not in the ID map, or is 4,294,967,295, which is no ID;
/// - if an ID map has more than 340 ranges, a range that is empty or too long, or ranges that overlap;
/// - if an unprivileged caller sets groups without [`Identity::sub_ids`], or another ID without a user namespace;
/// - for maps without a new user namespace.
///
/// See user_namespaces(7).
///
/// ```
/// use stockade::{Command, Identity, Sandbox};
///
/// let sandbox = Sandbox::new().identity(Identity::new().uid(65534).gid(65534));
/// assert_eq!(sandbox.output(Command::new("id").arg("-u"))?.stdout, b"65534\n");
/// # Ok::<(), stockade::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "StoredIdentity", into = "StoredIdentity"))]
pub struct Identity {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    outside: Outside,
    own_ids: Option<(u32, u32)>,
}

/// The kind of IDs on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// The stored form of an identity: a key for each method.
#[cfg(feature = "serde")]
#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename = "Identity")]
struct StoredIdentity {
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Vec<u32>,
    caller: bool,
    sub_ids: bool,
    #[serde(with = "As::<Option<MapsTable>>")]
    maps: Option<(Vec<IdRange>, Vec<IdRange>)>,
    #[serde(with = "As::<Option<HostIdsTable>>")]
    host_ids: Option<(u32, u32)>,
}

#[cfg(feature = "serde")]
table_form!(
    /// The mappings of users and groups.
    MapsTable { uid: Vec<IdRange> as Plain, gid: Vec<IdRange> as Plain }
);

#[cfg(feature = "serde")]
table_form!(
    /// The range of host IDs.
    HostIdsTable { first: u32 as Plain, count: u32 as Plain }
);

#[cfg(feature = "serde")]
impl From<Identity> for StoredIdentity {
    fn from(Identity { uid, gid, groups, outside, own_ids: host_ids }: Identity) -> Self {
        let (caller, sub_ids) = (outside == Outside::Caller, outside == Outside::SubIds);
        let maps = match outside {
            Outside::Maps { uid, gid } => Some((uid, gid)),
            Outside::Own | Outside::Caller | Outside::SubIds => None,
        };
        Self { uid, gid, groups, caller, sub_ids, maps, host_ids }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<StoredIdentity> for Identity {
    type Error = String;

    fn try_from(stored: StoredIdentity) -> std::result::Result<Self, String> {
        let StoredIdentity { uid, gid, groups, caller, sub_ids, maps, host_ids: own_ids } = stored;
        at_most_one(&[("caller", caller), ("sub_ids", sub_ids), ("maps", maps.is_some())])?;
        let outside = match maps {
            Some((uid, gid)) => Outside::Maps { uid, gid },
            None if caller => Outside::Caller,
            None if sub_ids => Outside::SubIds,
            None => Outside::Own,
        };
        Ok(Self { uid, gid, groups, outside, own_ids })
    }
}

impl Identity {
    /// Creates the default identity: see [`Identity`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an identity with the caller's user and group IDs on the host.
    ///
    /// **If the caller has user ID 0, the program then has user ID 0 on the host**, though no capabilities. Its `/proc`
    /// is read-only, because the files below `/proc/sys` belong to that user.
    pub fn caller() -> Self {
        Self { outside: Outside::Caller, ..Self::default() }
    }

    /// Sets the user ID inside.
    ///
    /// Default: see [`Identity`].
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the group ID inside.
    ///
    /// Default: see [`Identity`].
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Sets the supplementary groups inside.
    ///
    /// If the caller is privileged, each of these is the group with the same ID on the host. An unprivileged caller can
    /// set groups only with [`Identity::sub_ids`]. Otherwise its program keeps the caller's groups, because the kernel
    /// does not allow an unprivileged process to drop them.
    ///
    /// Default: no groups for a privileged caller, the caller's groups for another.
    ///
    /// See setgroups(2).
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.groups = groups.into_iter().collect();
        self
    }

    /// Maps the subordinate IDs that `/etc/subuid` and `/etc/subgid` assign to the caller, in addition to the program's
    /// own ID. Inside, they are the IDs from 0 on, in order, without the program's own ID.
    ///
    /// An unprivileged caller needs `newuidmap` and `newgidmap` for this (package `uidmap`), in `/usr/bin`, `/bin`,
    /// `/usr/sbin`, `/sbin` or `/run/wrappers/bin`. They must belong to root, and no other user may be allowed to write
    /// to them.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) with [`Layer::Identity`](crate::Layer::Identity) if
    /// the files assign no IDs to the caller.
    ///
    /// When spawned, [`ErrorKind::SetupFailed`](crate::ErrorKind::SetupFailed) if these programs do not exist or deny
    /// the maps.
    ///
    /// See subuid(5).
    #[must_use]
    pub fn sub_ids(mut self) -> Self {
        self.outside = Outside::SubIds;
        self
    }

    /// Sets the ID maps of user IDs and of group IDs. The program gets the first ID of each, unless [`Identity::uid`]
    /// and [`Identity::gid`] set others.
    ///
    /// A privileged caller can map any ID. An unprivileged caller can map its own ID and its subordinate IDs, and needs
    /// `newuidmap` and `newgidmap` as for [`Identity::sub_ids`].
    ///
    /// Default: a map of one user ID and one group ID.
    ///
    /// ```
    /// use stockade::identity::IdRange;
    /// use stockade::{Command, Identity, Sandbox};
    ///
    /// // The caller's own IDs appear as 1000. A privileged caller can add further ranges.
    /// let (user, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    /// let maps = Identity::new().maps([IdRange::new(1000, user, 1)], [IdRange::new(1000, group, 1)]);
    /// let output = Sandbox::new().identity(maps).output(Command::new("cat").arg("/proc/self/uid_map"))?;
    /// let text = String::from_utf8_lossy(&output.stdout);
    /// assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["1000", &user.to_string(), "1"]);
    /// # Ok::<(), stockade::Error>(())
    /// ```
    ///
    /// See user_namespaces(7).
    #[must_use]
    pub fn maps(mut self, uid: impl IntoIterator<Item = IdRange>, gid: impl IntoIterator<Item = IdRange>) -> Self {
        self.outside = Outside::Maps { uid: uid.into_iter().collect(), gid: gid.into_iter().collect() };
        self
    }

    /// Sets the range of host IDs from which each sandbox of a privileged caller gets one: `count` IDs, beginning with
    /// `first`.
    ///
    /// An ID is reserved as long as the sandbox exists, by a lock on the file `/run/stockade/ids`, or on a file in
    /// `/dev` if there is no `/run`. So no two sandboxes of callers that share `/run` get the same ID. An ID that any
    /// visible process has is not assigned either. Callers that do not share `/run`, such as two containers without
    /// user namespaces, need separate ranges.
    ///
    /// Default: 251,658,240 IDs, beginning with 1,879,048,192.
    ///
    /// # Errors
    ///
    /// When compiled ([`Sandbox::plan`](crate::Sandbox::plan) or a spawn),
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) if the range is empty, begins at 0,
    /// or is too long.
    ///
    /// When spawned, [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) if all IDs are in use.
    #[must_use]
    pub fn host_ids(mut self, first: u32, count: u32) -> Self {
        self.own_ids = Some((first, count));
        self
    }
}

impl Identity {
    /// The identity of a reference sandbox of best effort: the default one, or the caller's.
    pub(crate) fn reference(&self) -> Self {
        match self.outside {
            Outside::Caller => Self::caller(),
            _ => Self::new(),
        }
    }
}

/// The IDs of the program, resolved for this caller and these namespaces.
pub(crate) struct Resolved {
    pub uid: u32,
    pub gid: u32,
    /// `None` keeps the caller's groups, because the kernel lets this user set none.
    pub groups: Option<Vec<u32>>,
    /// The IDs on the host.
    pub host_uid: HostId,
    pub host_gid: HostId,
    /// The supplementary groups on the host.
    pub host_groups: Vec<HostId>,
    /// The maps of the user namespace, if the sandbox creates one.
    pub maps: Option<IdMaps>,
    pub own_ids: HostRange,
}

impl Resolved {
    /// Whether the helper changes to the program's user before it creates a user namespace, or creates none.
    pub fn changes_user_first(&self, in_user_namespace: bool) -> bool {
        match &self.maps {
            Some(maps) => maps.writer == MapWriter::Process,
            None => !in_user_namespace,
        }
    }

    /// Whether processes outside the sandbox have the same user as the program, or as the creator of its user
    /// namespace. The kernel charges quotas to both.
    pub fn shares_user(&self, in_user_namespace: bool) -> bool {
        self.host_uid != HostId::Own || !self.changes_user_first(in_user_namespace)
    }

    /// Whether the program is the host's root, or can change to it. The kernel's own files belong to that user.
    pub fn reaches_host_root(&self) -> bool {
        self.host_uid == HostId::Id(0) || self.maps_user(0)
    }

    /// Whether the program is the host's root as user or as group, or can change to one of them.
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

    /// Whether the program is this user of the host, or can change to it. Without known maps it can be any user.
    pub fn may_be(&self, uid: u32) -> bool {
        self.maps.is_none() || self.maps_user(uid)
    }

    /// Whether the maps contain a user of the host.
    fn maps_user(&self, uid: u32) -> bool {
        self.maps.iter().flat_map(|maps| &maps.uid).any(|line| line.has(uid))
    }

    /// The maps of a user namespace in which the owners of files have no IDs. `None` if some of them can be the
    /// program's user.
    pub fn without_owners(&self) -> Option<IdMaps> {
        let lines = self.maps.iter().flat_map(|maps| &maps.uid);
        let is_own = self.host_uid == HostId::Own && lines.into_iter().all(|line| line.outside == HostId::Own);
        is_own.then(|| maps_of_nobody(self.host_groups.iter().copied()))
    }

    /// The maps of a user namespace in which the owner of files appears as the program. `None` if it is the program's
    /// user.
    pub fn id_mapping(&self, owner: (u32, u32)) -> Option<IdMaps> {
        if (self.host_uid, self.host_gid) == (HostId::Id(owner.0), HostId::Id(owner.1)) {
            return None;
        }
        let mut gid = vec![MapLine::one(owner.1, self.host_gid)];
        // Files that a group of the host may access stay accessible to a program in that group.
        gid.extend(self.host_groups.iter().filter_map(|&group| match group {
            HostId::Id(id) if id != owner.1 && group != self.host_gid => Some(MapLine::one(id, group)),
            _ => None,
        }));
        Some(IdMaps { uid: vec![MapLine::one(owner.0, self.host_uid)], gid, writer: MapWriter::Caller })
    }
}

/// Resolves the IDs of the program.
pub(crate) fn resolve(identity: &Identity, chosen: &Chosen, facts: &Facts) -> Result<Resolved> {
    check_ids(identity)?;
    let own_ids = match identity.own_ids {
        Some((first, count)) if first == 0 || count == 0 || first.checked_add(count).is_none() => {
            return Err(Error::invalid(
                format!("the range of {count} host IDs from {first} on cannot be assigned to sandboxes"),
                "give a range that is not empty, does not begin at 0, and ends below 4294967296",
            ));
        }
        Some((first, count)) => HostRange { first, count },
        None => OWN_IDS,
    };
    let mut resolved = if chosen.created.contains(Namespaces::USER) {
        mapped(identity, facts)?
    } else if chosen.joined_kinds().contains(Namespaces::USER) {
        joined(identity, facts)?
    } else {
        unmapped(identity, facts)?
    };
    resolved.own_ids = own_ids;
    Ok(resolved)
}

/// Returns an error if the program would be the host's root, and [`Identity::caller`] was not requested.
pub(crate) fn check_caller(identity: &Identity, facts: &Facts) -> Result<()> {
    let (Some(why), Outside::Own | Outside::SubIds) = (&facts.runs_as_root, &identity.outside) else { return Ok(()) };
    Err(match why {
        RunsAsRoot::HasNoIds => Error::unsupported(
            Layer::Identity,
            "this user namespace has no IDs but that of the host's root: the program would be host user 0",
            "map more IDs into it (those from 1879048192 on are for sandboxes), or allow it with Identity::caller()",
        ),
        RunsAsRoot::Lacks(capabilities) => {
            let names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
            Error::unsupported(
                Layer::Identity,
                format!("the caller is the host's root without {}: its program would be host user 0", names.join(", ")),
                format!(
                    "give the caller these capabilities ({}), run it as another user, or allow it with Identity::caller()",
                    way_to_capabilities(&names)
                ),
            )
        }
    })
}

/// Returns an error for the number that is no ID. For setresuid(2) it means that the ID does not change: the program of
/// a root caller would stay root.
fn check_ids(identity: &Identity) -> Result<()> {
    let mut ids = identity.uid.iter().chain(&identity.gid).chain(&identity.groups);
    match ids.any(|&id| id == u32::MAX) {
        true => Err(Error::invalid(format!("{} is not a user or group ID", u32::MAX), "use an ID below it")),
        false => Ok(()),
    }
}

/// Returns an error for a map that the kernel does not accept (user_namespaces(7)).
fn check_map(lines: &[MapLine]) -> Result<()> {
    /// The kernel's limit on lines.
    const MOST: usize = 340;
    let invalid = |why: String| Error::invalid(why, "give at most 340 ranges that are not empty and do not overlap");
    if lines.len() > MOST {
        return Err(invalid(format!("an ID map of {} ranges is too long", lines.len())));
    }
    let inside = lines.iter().map(|line| (line.inside, line.count));
    let outside = lines.iter().filter_map(|line| match line.outside {
        HostId::Id(first) => Some((first, line.count)),
        HostId::Own => None,
    });
    for mut ranges in [inside.collect::<Vec<_>>(), outside.collect()] {
        ranges.sort_unstable();
        let mut next = 0;
        for (first, count) in ranges {
            match first.checked_add(count) {
                Some(end) if count > 0 && first >= next => next = end,
                _ => {
                    return Err(invalid(format!(
                        "the range of {count} IDs from {first} on cannot be in an ID map: it is empty, ends above 4294967294, \
                         or overlaps another"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Resolves the IDs in a new user namespace.
fn mapped(identity: &Identity, facts: &Facts) -> Result<Resolved> {
    let (caller_uid, caller_gid) = facts.ids;
    let default = |id| if id == 0 { INSIDE } else { id };
    let mut uid = identity.uid.unwrap_or(default(caller_uid));
    let mut gid = identity.gid.unwrap_or(default(caller_gid));
    let mut by_helper_programs = !facts.privileged;
    let (uid_lines, mut gid_lines) = match &identity.outside {
        Outside::Own | Outside::Caller => {
            by_helper_programs = false;
            let own = facts.privileged && identity.outside == Outside::Own;
            let outside = |id| if own { HostId::Own } else { HostId::Id(id) };
            (vec![MapLine::one(uid, outside(caller_uid))], vec![MapLine::one(gid, outside(caller_gid))])
        }
        Outside::SubIds => (
            with_sub_ids(uid, caller_uid, &facts.sub_ids(Path::new("/etc/subuid"))?, facts.privileged),
            with_sub_ids(gid, caller_gid, &facts.sub_ids(Path::new("/etc/subgid"))?, facts.privileged),
        ),
        Outside::Maps { uid: uids, gid: gids } => {
            uid = identity.uid.or(uids.first().map(|range| range.inside)).unwrap_or(uid);
            gid = identity.gid.or(gids.first().map(|range| range.inside)).unwrap_or(gid);
            (lines(uids), lines(gids))
        }
    };
    if facts.privileged && identity.outside == Outside::Own {
        let extra = distinct(&identity.groups).filter(|&group| group != gid);
        gid_lines.extend(extra.map(|group| MapLine::one(group, HostId::Id(group))));
    }
    check_map(&uid_lines)?;
    check_map(&gid_lines)?;
    let outside = |kind: &str, id: u32, lines: &[MapLine]| {
        lines.iter().find_map(|line| line.to_outside(id)).ok_or_else(|| {
            Error::invalid(
                format!("the program's {kind} ID {id} is not in the map of the sandbox"),
                "map it with Identity::maps or Identity::sub_ids, or set one that is mapped",
            )
        })
    };
    let host_groups =
        distinct(&identity.groups).map(|group| outside("group", group, &gid_lines)).collect::<Result<_>>()?;
    let is_one = |lines: &[MapLine]| matches!(lines, [MapLine { count: 1, .. }]);
    let one_line = is_one(&uid_lines) && is_one(&gid_lines);
    let may_set_groups = facts.privileged || by_helper_programs;
    if !identity.groups.is_empty() && !may_set_groups {
        return Err(Error::invalid(
            "an unprivileged caller cannot set supplementary groups",
            "use Identity::sub_ids with groups that it maps, or remove the groups",
        ));
    }
    let (host_uid, host_gid) = (outside("user", uid, &uid_lines)?, outside("group", gid, &gid_lines)?);
    let writer = match (by_helper_programs, one_line && identity.groups.is_empty()) {
        (true, _) => MapWriter::HelperPrograms,
        (false, true) => MapWriter::Process,
        (false, false) => MapWriter::Caller,
    };
    let maps = IdMaps { uid: uid_lines, gid: gid_lines, writer };
    let groups = may_set_groups.then(|| identity.groups.clone());
    Ok(Resolved { uid, gid, groups, host_uid, host_gid, host_groups, maps: Some(maps), own_ids: OWN_IDS })
}

/// Groups may be listed twice (setgroups(2)), but not mapped twice.
fn distinct(groups: &[u32]) -> impl Iterator<Item = u32> {
    groups.iter().copied().collect::<BTreeSet<_>>().into_iter()
}

fn lines(ranges: &[IdRange]) -> Vec<MapLine> {
    let line =
        |range: &IdRange| MapLine { inside: range.inside, outside: HostId::Id(range.outside), count: range.count };
    ranges.iter().map(line).collect()
}

/// Maps the program's own ID, and the ranges of sub-IDs to the other IDs from 0 on.
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

/// Resolves the IDs in a user namespace that is joined, whose maps exist already.
fn joined(identity: &Identity, facts: &Facts) -> Result<Resolved> {
    if identity.outside != Outside::Own {
        return Err(Error::invalid(
            "the ID maps of a joined user namespace cannot be set",
            "remove Identity::caller, maps and sub_ids, or create a user namespace",
        ));
    }
    match (identity.uid, identity.gid) {
        (Some(uid), Some(gid)) => Ok(Resolved {
            uid,
            gid,
            groups: facts.privileged.then(|| identity.groups.clone()),
            // Not known. Bind mounts show the owners as the caller sees them.
            host_uid: HostId::Id(facts.ids.0),
            host_gid: HostId::Id(facts.ids.1),
            host_groups: vec![],
            maps: None,
            own_ids: OWN_IDS,
        }),
        _ if facts.privileged => Err(Error::invalid(
            "the program's IDs in a joined user namespace are not known",
            "set them: Identity::new().uid(…).gid(…)",
        )),
        (uid, gid) => Ok(Resolved {
            uid: uid.unwrap_or(facts.ids.0),
            gid: gid.unwrap_or(facts.ids.1),
            groups: None,
            host_uid: HostId::Id(facts.ids.0),
            host_gid: HostId::Id(facts.ids.1),
            host_groups: vec![],
            maps: None,
            own_ids: OWN_IDS,
        }),
    }
}

/// Resolves the IDs without a user namespace: those inside are those of the host.
fn unmapped(identity: &Identity, facts: &Facts) -> Result<Resolved> {
    if matches!(identity.outside, Outside::Maps { .. } | Outside::SubIds) {
        return Err(Error::invalid("ID maps need a user namespace", "add Namespaces::USER, or remove the maps"));
    }
    let caller = !facts.privileged || identity.outside == Outside::Caller;
    let choose = |kind: &str, requested: Option<u32>, own: u32| match requested {
        Some(id) if !facts.privileged && id != own => Err(Error::invalid(
            format!("an unprivileged caller cannot run a program as {kind} ID {id} without a user namespace"),
            format!("add Namespaces::USER, or {}", facts.way_to_rights()),
        )),
        Some(0) if !caller => Err(Error::invalid(
            format!("without a user namespace {kind} ID 0 is the host's root"),
            "add Namespaces::USER, set another ID, or allow it with Identity::caller()",
        )),
        Some(id) => Ok(HostId::Id(id)),
        None if caller => Ok(HostId::Id(own)),
        None => Ok(HostId::Own),
    };
    let host_uid = choose("user", identity.uid, facts.ids.0)?;
    let host_gid = choose("group", identity.gid, facts.ids.1)?;
    if !identity.groups.is_empty() && !facts.privileged {
        return Err(Error::invalid(
            "an unprivileged caller cannot set supplementary groups",
            format!("remove the groups, or {}", facts.way_to_rights()),
        ));
    }
    let number = |id| if let HostId::Id(id) = id { id } else { INSIDE };
    Ok(Resolved {
        uid: number(host_uid),
        gid: number(host_gid),
        groups: facts.privileged.then(|| identity.groups.clone()),
        host_uid,
        host_gid,
        host_groups: distinct(&identity.groups).map(HostId::Id).collect(),
        maps: None,
        own_ids: OWN_IDS,
    })
}

const CHANGE_OF_USER: &[(i32, &str)] = &[
    (libc::EINVAL, "the ID has no mapping in the user namespace: map it, or set one that is mapped"),
    (libc::EPERM, "give the caller CAP_SETUID and CAP_SETGID, or remove the user and group IDs from the configuration"),
    (libc::EAGAIN, "the user's limit on processes (RLIMIT_NPROC) is reached: raise it"),
];

/// Changes to the program's user and groups, by their IDs in the user namespace. It comes before anything is created,
/// since no file can belong to an ID without a mapping.
pub(crate) fn change_user(process: &mut Script, ids: &Resolved, groups_are_dropped: bool) {
    process.step(Step::new("change to the sandbox's user").remedies(CHANGE_OF_USER));
    let groups = ids.groups.as_deref().filter(|groups| !(groups.is_empty() && groups_are_dropped));
    set_ids(process, groups, ids.uid.into(), ids.gid.into());
}

/// Drops the caller's supplementary groups, before a user namespace is joined that may forbid it.
pub(crate) fn drop_groups(process: &mut Script) {
    process.step(Step::new("drop the caller's supplementary groups").remedies(CHANGE_OF_USER));
    process.call(nr!(SYS_setgroups), [Arg::NONE, Arg::NULL]);
}

/// Changes to the program's user and groups, by their IDs on the host. The kernel makes the process undumpable then,
/// and its files in `/proc` root's (proc(5)).
pub(crate) fn change_to_host_user(process: &mut Script, ids: &Resolved) {
    process.step(Step::new("change to the sandbox's host user").remedies(CHANGE_OF_USER));
    let mut id = |id| match id {
        HostId::Own => Arg::Slot(process.input(Input::OwnId)),
        HostId::Id(id) => Arg::Imm(id.into()),
    };
    let (uid, gid) = (id(ids.host_uid), id(ids.host_gid));
    set_ids(process, ids.groups.as_deref(), uid, gid);
    process.step(Step::new("make the process dumpable, to write to its files in /proc"));
    process.prctl(flags!(PR_SET_DUMPABLE), 1);
}

fn set_ids(process: &mut Script, groups: Option<&[u32]>, uid: Arg, gid: Arg) {
    if let Some(groups) = groups {
        let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let list = process.arena.bytes(&list, format!("{groups:?}"));
        process.call(nr!(SYS_setgroups), [(groups.len() as u64).into(), list.into()]);
    }
    process.call(nr!(SYS_setresgid), [gid; 3]);
    process.call(nr!(SYS_setresuid), [uid; 3]);
}

/// Writes ID maps of one ID, which is the process's own.
pub(crate) fn write_maps(process: &mut Script, maps: &IdMaps) {
    const REMEDIES: &[(i32, &str)] =
        &[(libc::EINVAL, "use IDs below 4294967295, and ranges that are not empty and do not overlap")];
    process.step(Step::new("deny setgroups(2)").path("/proc/self/setgroups").needs(Need::IdMaps).remedies(REMEDIES));
    let deny = process.arena.bytes(b"deny", "\"deny\"");
    process.write_file("/proc/self/setgroups", deny, 4);
    for (path, lines) in [("/proc/self/uid_map", &maps.uid), ("/proc/self/gid_map", &maps.gid)] {
        process.step(Step::new("write the ID map").path(path).needs(Need::IdMaps).remedies(REMEDIES));
        for line in lines {
            let outside = match line.outside {
                HostId::Own => "<own id>".into(),
                HostId::Id(id) => id.to_string(),
            };
            let words = line_of_map(line);
            let text = process.arena.words(&words, format!("\"{} {outside} 1\\n\"", line.inside));
            process.write_file(path, text, size_of::<u64>() * words.len());
        }
    }
}

/// A line of an ID map as text. The launch fills in the sandbox's own host ID.
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

/// Sets the file mode creation mask.
pub(crate) fn umask(process: &mut Script, mask: u32) {
    process.step(Step::new("set the umask"));
    process.call(nr!(SYS_umask), [Arg::Octal(mask)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_ids_map_to_the_ids_around_the_programs_own() {
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
