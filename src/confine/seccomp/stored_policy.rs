//! The stored form of a policy: a preset, and what is changed in it.
//!
//! Rules without a preset are added to those of the default policy, so that a file with one rule keeps the default
//! denials. What is written names a preset without rules, and lists all of them.

use std::collections::BTreeSet;

use super::{Action, Exemptions, Rule, Seccomp};
use crate::stored::{As, Escaped, Version};

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default, rename = "Seccomp")]
pub(super) struct StoredPolicy {
    version: Version<1>,
    preset: Preset,
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
#[derive(Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Preset {
    #[default]
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
            preset: if default_action.denies() { Preset::AllowList } else { Preset::DenyList },
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
    /// A rule without conditions replaces the preset's rules for its call, as [`Seccomp::on`] does. One with conditions
    /// is added to them, as by [`Seccomp::when`].
    fn from(stored: StoredPolicy) -> Self {
        let mut policy = stored.preset.policy();
        let replaced: BTreeSet<&str> =
            stored.rules.iter().filter(|rule| rule.conditions.is_empty()).map(|rule| &*rule.call).collect();
        policy.rules.retain(|rule| !replaced.contains(&*rule.call));
        policy.rules.extend(stored.rules);
        Self {
            default_action: stored.default_action.unwrap_or(policy.default_action),
            rules: policy.rules,
            record: stored.record,
            bpf: stored.bpf,
            exemptions: Exemptions {
                set_id_bits: stored.allow_set_id_bits,
                huge_pages: stored.allow_huge_pages,
                netlink: stored.allow_netlink,
                ..Exemptions::NONE
            },
        }
    }
}
