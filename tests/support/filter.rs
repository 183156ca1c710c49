//! Seccomp filters of the caller, as container runtimes install them.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

/// Lets a filter answer some system calls of this process with an errno, from here on.
pub fn filter(errno: i32, rules: BTreeMap<i64, Vec<SeccompRule>>) {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).expect("a filter");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("a program")).expect("the filter is in force");
}

/// The same whatever the arguments are.
pub fn filter_calls(errno: i32, calls: impl IntoIterator<Item = i64>) {
    filter(errno, calls.into_iter().map(|call| (call, vec![])).collect());
}
