//! Hosts that run under a filter themselves, as a sandbox's program does that makes sandboxes.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter, sock_filter};
use stockade::{Action, Command, Error, Layer, Sandbox, Seccomp, Termination};

use crate::support::listener::install_with_listener;
use crate::support::{Payload, Test, on_host, refused};
use crate::tests;

pub const TESTS: &[Test] = tests![
    a_host_with_a_listener_is_told_that_the_kernel_takes_one,
    a_host_with_as_many_filters_as_the_kernel_takes_is_told_so,
];

pub const PAYLOADS: &[Payload] = &[("listening", host_with_a_listener), ("filtered", host_with_long_filters)];

/// Whose every call is allowed, by a filter that has a listener.
fn host_with_a_listener(_: &[String]) -> i32 {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture");
    let filter = SeccompFilter::new(BTreeMap::new(), SeccompAction::Allow, SeccompAction::Log, arch);
    let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
    let _listener = install_with_listener(&program);
    // The default takes none.
    assert!(Sandbox::new().status(Command::new("true")).expect("an outcome").success());
    for policy in [Seccomp::new().record(), Seccomp::pure_computation(), Seccomp::new().on(["mkdir"], Action::Kill)] {
        let sandbox = Sandbox::new().seccomp(policy);
        let Error::SetUp { .. } = refused(&sandbox) else { panic!("another error") };
        let said = refused(&sandbox).to_string();
        assert!(said.contains("installing the seccomp filter") && said.contains("(EBUSY)"), "{said}");
        assert!(said.contains("the kernel takes one: leave out record, notify and kill"), "{said}");
        let outcome = sandbox.best_effort([Layer::Seccomp]).status(Command::new("true")).expect("an outcome");
        assert_eq!(outcome.termination, Termination::Exited(0));
        assert!(!outcome.enforced.has(Layer::Seccomp));
        assert_eq!(outcome.enforced.lost[0].layer, Layer::Seccomp);
    }
    0
}

fn a_host_with_a_listener_is_told_that_the_kernel_takes_one() {
    on_host(&[], "listening", &[]);
}

/// Whose filters leave no room for those of a sandbox.
fn host_with_long_filters(_: &[String]) -> i32 {
    // BPF_RET with SECCOMP_RET_ALLOW
    let allow = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    let mut length = 4096;
    while length >= 64 {
        if apply_filter(&vec![allow.clone(); length]).is_err() {
            length /= 2;
        }
    }
    let error = refused(&Sandbox::new());
    assert_eq!((error.errno(), error.layer()), (Some(stockade::Errno(libc::ENOMEM)), Some(Layer::Seccomp)), "{error}");
    assert!(error.to_string().contains("longer than the kernel takes: install fewer"), "{error}");
    0
}

fn a_host_with_as_many_filters_as_the_kernel_takes_is_told_so() {
    on_host(&[], "filtered", &[]);
}
