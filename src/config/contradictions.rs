//! Keys that contradict each other. Contradictions between layers are found when a sandbox is compiled.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::keys::Config;
use super::mounts::targets;
use crate::confine::Namespaces;

/// Two keys of a configuration that contradict each other.
#[derive(Debug)]
pub(super) struct Contradiction {
    pub keys: [&'static str; 2],
    pub cause: String,
    pub hint: &'static str,
}

impl Contradiction {
    fn new(keys: [&'static str; 2], cause: impl Into<String>, hint: &'static str) -> Self {
        Self { keys, cause: cause.into(), hint }
    }
}

impl Config {
    /// Finds keys that contradict each other.
    pub(super) fn contradiction(&self) -> Option<Contradiction> {
        let mut all = self.of_mounts().into_iter().chain(self.of_namespaces()).chain(self.of_privileges());
        all.next().or_else(|| self.of_resources()).or_else(|| self.of_command())
    }

    fn of_mounts(&self) -> Option<Contradiction> {
        if let Some(bind) = self.ro.iter().find(|bind| bind.is_writable_or_git()) {
            let target = bind.paths().map(|(_, target)| target.to_owned()).unwrap_or_default();
            let cause = format!("the bind of {target:?} in `ro` is to be writable");
            return Some(Contradiction::new(
                ["ro", "rw"],
                cause,
                "move it to `rw` or `git`, or remove `writable` and `protect_git`",
            ));
        }
        let mut known: BTreeMap<PathBuf, &'static str> = BTreeMap::new();
        targets(self).into_iter().find_map(|(key, target)| {
            let earlier = known.insert(target.components().collect(), key)?;
            let cause = format!("{target:?} is the target of both `{earlier}` and `{key}`");
            Some(Contradiction::new(
                [earlier, key],
                cause,
                "remove one, or use `mounts`, whose operations are carried out in their order",
            ))
        })
    }

    fn of_namespaces(&self) -> Option<Contradiction> {
        let (shared, mut joined) = (self.shared(), Namespaces::empty());
        for (kinds, _) in &self.join {
            if kinds.is_empty() {
                let cause = "an entry of `join` has no namespaces";
                return Some(Contradiction::new(["join", "join"], cause, "add one to it, or remove the entry"));
            }
            if shared.intersects(*kinds) {
                let cause = "a namespace is both shared with the caller and joined";
                return Some(Contradiction::new(["share", "join"], cause, "remove it from one of the two"));
            }
            if joined.intersects(*kinds) {
                return Some(Contradiction::new(["join", "join"], "a namespace is joined twice", "remove one"));
            }
            joined |= *kinds;
        }
        let needing = [
            ("hostname", self.hostname.is_some(), Namespaces::UTS),
            ("domain_name", self.domain_name.is_some(), Namespaces::UTS),
            ("time_offsets", self.time_offsets.is_some(), Namespaces::TIME),
        ];
        needing.into_iter().find(|(_, is_set, kind)| *is_set && shared.intersects(*kind)).map(|(key, ..)| {
            let cause = format!("`{key}` needs a namespace that is shared with the caller");
            Contradiction::new(["share", key], cause, "remove one of the two")
        })
    }

    fn of_privileges(&self) -> Option<Contradiction> {
        let rules = [
            ("landlock_ro", !self.landlock_ro.is_empty()),
            ("landlock_rw", !self.landlock_rw.is_empty()),
            ("connect", !self.connect.is_empty()),
            ("bind_port", !self.bind_port.is_empty()),
        ];
        if let Some((key, _)) = rules.into_iter().find(|(_, is_set)| *is_set && self.landlock.is_some()) {
            let cause = format!("`landlock` is a whole policy, and `{key}` a rule of another");
            return Some(Contradiction::new(["landlock", key], cause, "add the rule to the table `landlock`"));
        }
        if self.drop_on_setuid.is_some() && self.capabilities.is_empty() {
            let cause = "`drop_on_setuid` is about capabilities, of which the program keeps none";
            return Some(Contradiction::new(
                ["drop_on_setuid", "capabilities"],
                cause,
                "add `capabilities`, or remove it",
            ));
        }
        self.env_remove.iter().find(|name| self.env.contains_key(*name)).map(|name| {
            let cause = format!("the variable {name:?} is both set and removed");
            Contradiction::new(["env", "env_remove"], cause, "remove it from one of the two")
        })
    }

    fn of_resources(&self) -> Option<Contradiction> {
        if self.cgroup == Some(false)
            && let Some(key) = self.keys_of_cgroup().first()
        {
            let cause = format!("`{key}` needs a cgroup, and `cgroup` is false");
            return Some(Contradiction::new(["cgroup", key], cause, "remove one of the two"));
        }
        let lacks = |key, is_set: bool, other, has_other: bool| {
            let cause = format!("`{key}` is about `{other}`, which is missing");
            (is_set && !has_other)
                .then(|| Contradiction::new([key, other], cause, "add the other key, or remove this one"))
        };
        lacks("cpu_period", self.cpu_period.is_some(), "cpus", self.cpus.is_some())
    }

    /// Returns the keys that are set and need a cgroup.
    pub(super) fn keys_of_cgroup(&self) -> Vec<&'static str> {
        let keys = [
            ("cgroup_parent", self.cgroup_parent.is_some()),
            ("memory", self.memory.is_some()),
            ("memory_high", self.memory_high.is_some()),
            ("swap", self.swap.is_some()),
            ("pids", self.pids.is_some()),
            ("cpus", self.cpus.is_some()),
            ("cpu_weight", self.cpu_weight.is_some()),
            ("cpuset", self.cpuset.is_some()),
            ("cpuset_mems", self.cpuset_mems.is_some()),
            ("io_max", !self.io_max.is_empty()),
            ("io_weight", self.io_weight.is_some()),
            ("hugetlb_max", !self.hugetlb_max.is_empty()),
            ("cgroup_raw", !self.cgroup_raw.is_empty()),
            ("freezable", self.freezable == Some(true)),
            ("cgroup_hidden", self.cgroup_hidden == Some(true)),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    fn of_command(&self) -> Option<Contradiction> {
        if self.pty == Some(true) && self.new_session == Some(false) {
            let cause = "a program on a pseudo-terminal has a session of its own";
            return Some(Contradiction::new(["pty", "new_session"], cause, "remove one of the two"));
        }
        // A limit on output is enforced where the output is collected.
        let limits = [("stdout_max", self.stdout_max.is_some(), 1), ("stderr_max", self.stderr_max.is_some(), 2)];
        for (key, _, number) in limits.into_iter().filter(|(_, is_set, _)| *is_set) {
            let other = if self.pty == Some(true) { "pty" } else { "descriptors" };
            if other == "pty" || self.descriptors.contains_key(&number) {
                let cause = format!("`{key}` limits output that is collected, and `{other}` sends it elsewhere");
                return Some(Contradiction::new([other, key], cause, "remove one of the two"));
            }
        }
        let standard = self.descriptors.keys().find(|number| **number < 3);
        standard.filter(|_| self.pty == Some(true)).map(|number| {
            let cause = format!("the descriptor {number} is both the pseudo-terminal and another");
            Contradiction::new(["pty", "descriptors"], cause, "remove one of the two")
        })
    }
}
