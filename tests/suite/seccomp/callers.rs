//! Callers that run under a filter themselves, such as a sandboxed program that creates sandboxes.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter, sock_filter};
use stockade::seccomp::Action;
use stockade::{Command, Layer, Sandbox, Seccomp, Termination};

use crate::support::listener::install_with_listener;
use crate::support::{on_host, refused};

payloads![("listening", caller_with_a_listener), ("long_filters", caller_with_long_filters)];

/// Whose every call is allowed, by a filter that has a listener.
fn caller_with_a_listener(_: &[String]) -> i32 {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let filter = SeccompFilter::new(BTreeMap::new(), SeccompAction::Allow, SeccompAction::Log, arch);
    let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
    let _listener = install_with_listener(&program);
    // The default takes none.
    assert!(Sandbox::new().status(Command::new("true")).expect("an outcome").success());
    for policy in [Seccomp::new().record(), Seccomp::pure_computation(), Seccomp::new().on(["mkdir"], Action::Kill)] {
        let sandbox = Sandbox::new().seccomp(policy);
        assert!(crate::support::is_set_up(&refused(&sandbox)));
        let said = refused(&sandbox).to_string();
        assert!(said.contains("install the seccomp filter") && said.contains("(EBUSY)"), "{said}");
        assert!(said.contains("the kernel allows one: use a policy without Seccomp::record"), "{said}");
        let outcome = sandbox.best_effort([Layer::Seccomp]).status(Command::new("true")).expect("an outcome");
        assert_eq!(outcome.termination, Termination::Exited(0));
        assert!(!outcome.enforcement.is_active(Layer::Seccomp));
        assert_eq!(outcome.enforcement.unenforced[0].layer, Layer::Seccomp);
    }
    0
}

#[apply(test)]
fn a_caller_with_a_listener_gets_an_error() {
    on_host(&[], "listening", &[]);
}

/// Whose filters leave no room for those of a sandbox.
fn caller_with_long_filters(_: &[String]) -> i32 {
    // BPF_RET with SECCOMP_RET_ALLOW
    let allow = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut length = 4096;
    while length >= 64 {
        if apply_filter(&vec![allow.clone(); length]).is_err() {
            length /= 2;
        }
    }
    let error = refused(&Sandbox::new());
    assert_eq!((error.errno(), error.layer()), (Some(stockade::Errno::ENOMEM), Some(Layer::Seccomp)), "{error}");
    assert!(error.to_string().contains("run the caller under fewer filters"), "{error}");
    0
}

#[apply(test)]
fn a_caller_with_too_many_filters_gets_an_error() {
    on_host(&[], "long_filters", &[]);
}
