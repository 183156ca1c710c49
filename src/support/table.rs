//! The report for people: a table, and below it what is missing, and what to do about it.

use std::fmt::{self, Display, Formatter};

use super::{Finding, State, Support};

/// Columns of a name and of a state.
const NAME: usize = 19;
const STATE: usize = 13;

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "available",
            Self::Limited { .. } => "limited",
            Self::Unavailable { .. } => "unavailable",
        })
    }
}

/// A line of the table.
impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = format!("{:NAME$}{:STATE$}{}", self.feature, self.state, self.detail);
        f.write_str(line.trim_end())
    }
}

impl Display for Support {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}, as user {}\n", self.kernel, self.uid)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        // Several may have one remedy.
        let mut told: Vec<&str> = vec![];
        for remedy in self.findings.iter().filter_map(Finding::remedy) {
            if told.contains(&remedy) {
                continue;
            }
            told.push(remedy);
            writeln!(f)?;
            for finding in self.findings.iter().filter(|finding| finding.remedy() == Some(remedy)) {
                writeln!(f, "{}: {}", finding.feature, finding.reason().unwrap_or_default())?;
            }
            for (index, line) in remedy.lines().enumerate() {
                writeln!(f, "{}{line}", if index == 0 { "  what to do: " } else { "    " })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::Feature;

    #[test]
    fn a_report_has_a_line_for_each_feature_and_a_remedy_once() {
        let missing = |feature, reason: &str, remedy: &str| Finding {
            feature,
            state: State::Unavailable { reason: reason.into(), remedy: remedy.into() },
            detail: String::new(),
        };
        let support = Support {
            kernel: "6.1.0".into(),
            uid: 1000,
            landlock_abi: Some(2),
            findings: vec![
                missing(Feature::UserNamespace, "unshare: EPERM", "allow it\nso"),
                missing(Feature::IdMaps, "not tried", "allow it\nso"),
                missing(Feature::CgroupMemory, "mkdir: EACCES", "delegate"),
                Finding { feature: Feature::Landlock, state: State::Available, detail: "ABI 2".into() },
            ],
        };
        let expected = "Linux 6.1.0, as user 1000

user namespace     unavailable
id maps            unavailable
cgroup memory      unavailable
landlock           available    ABI 2

user namespace: unshare: EPERM
id maps: not tried
  what to do: allow it
    so

cgroup memory: mkdir: EACCES
  what to do: delegate
";
        assert_eq!(support.to_string(), expected);
        assert!(support.has(Feature::Landlock) && !support.has(Feature::IdMaps) && !support.has(Feature::Seccomp));
    }
}
