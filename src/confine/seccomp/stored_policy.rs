//! The stored form of a policy: a preset, and what is changed in it.
//!
//! Rules without a preset are added to those of the default policy, so that a file with one rule keeps the default
//! denials. What is written names a preset without rules, and lists all of them.

use std::collections::BTreeSet;

use super::{Action, Exemptions, Rule, Seccomp};
use crate::stored::{As, Escaped, Version};

#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default, rename = "Seccomp")]
pub(crate) struct StoredPolicy {
    version: Version<1>,
    preset: Option<Preset>,
    default_action: Option<Action>,
    rules: Vec<Rule>,
    record: bool,
    allow_set_id_bits: bool,
    allow_huge_pages: bool,
    allow_netlink: bool,
    #[serde(with = "As::<Vec<Escaped>>")]
    bpf: Vec<Vec<u8>>,
}

/// A constructor of [`Seccomp`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "_schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Preset {
    Default,
    PureComputation,
    Runtime,
    Container,
    AllowList,
    #[serde(alias = "unconfined")]
    DenyList,
}

impl Preset {
    fn policy(self) -> Seccomp {
        match self {
            Self::Default => Seccomp::new(),
            Self::PureComputation => Seccomp::pure_computation(),
            Self::Runtime => Seccomp::runtime(),
            Self::Container => Seccomp::container(),
            Self::AllowList => Seccomp::allow_list(),
            Self::DenyList => Seccomp::deny_list(),
        }
    }
}

impl From<Seccomp> for StoredPolicy {
    fn from(Seccomp { default_action, rules, record, exemptions, bpf }: Seccomp) -> Self {
        Self {
            version: Version,
            preset: Some(if default_action.denies() { Preset::AllowList } else { Preset::DenyList }),
            default_action: Some(default_action),
            rules,
            record,
            allow_set_id_bits: exemptions.set_id_bits,
            allow_huge_pages: exemptions.huge_pages,
            allow_netlink: exemptions.netlink,
            bpf,
        }
    }
}

impl From<StoredPolicy> for Seccomp {
    fn from(stored: StoredPolicy) -> Self {
        stored.changes(Self::new())
    }
}

impl StoredPolicy {
    /// Returns the policy. It changes the preset, or this policy if no preset is named.
    ///
    /// A rule without conditions replaces the rules for its call, as [`Seccomp::on`] does. One with conditions is added
    /// to them, as by [`Seccomp::when`].
    pub(crate) fn changes(self, base: Seccomp) -> Seccomp {
        let mut policy = self.preset.map_or(base, Preset::policy);
        let replaced: BTreeSet<&str> =
            self.rules.iter().filter(|rule| rule.conditions.is_empty()).map(|rule| &*rule.call).collect();
        policy.rules.retain(|rule| !replaced.contains(&*rule.call));
        policy.rules.extend(self.rules);
        policy.bpf.extend(self.bpf);
        let Exemptions { set_id_bits, huge_pages, netlink, sees_other_processes } = policy.exemptions;
        Seccomp {
            default_action: self.default_action.unwrap_or(policy.default_action),
            rules: policy.rules,
            record: self.record || policy.record,
            bpf: policy.bpf,
            exemptions: Exemptions {
                set_id_bits: self.allow_set_id_bits || set_id_bits,
                huge_pages: self.allow_huge_pages || huge_pages,
                netlink: self.allow_netlink || netlink,
                sees_other_processes,
            },
        }
    }
}
