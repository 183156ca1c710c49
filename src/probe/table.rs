//! The report for people: a table, and below it the reasons and hints for what is missing.

use std::fmt::{self, Display, Formatter};

use super::{Finding, State, Support};

/// Widths of the columns with the name and the state.
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

/// A line of the table that [`Support`] prints.
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
        // Several features may have the same hint.
        let mut printed: Vec<&str> = vec![];
        for hint in self.findings.iter().filter_map(Finding::hint) {
            if printed.contains(&hint) {
                continue;
            }
            printed.push(hint);
            writeln!(f)?;
            for finding in self.findings.iter().filter(|finding| finding.hint() == Some(hint)) {
                writeln!(f, "{}: {}", finding.feature, finding.reason().unwrap_or_default())?;
            }
            for (index, line) in hint.lines().enumerate() {
                writeln!(f, "{}{line}", if index == 0 { "  hint: " } else { "    " })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Feature;
    use crate::stored::Version;

    #[test]
    fn a_report_has_a_line_for_each_feature_and_each_hint_once() {
        let missing = |feature, reason: &str, hint: &str| Finding {
            feature,
            state: State::Unavailable { reason: reason.into(), hint: hint.into() },
            detail: String::new(),
        };
        let support = Support {
            version: Version,
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
  hint: allow it
    so

cgroup memory: mkdir: EACCES
  hint: delegate
";
        assert_eq!(support.to_string(), expected);
        assert!(support.has(Feature::Landlock) && !support.has(Feature::IdMaps) && !support.has(Feature::Seccomp));
    }
}
