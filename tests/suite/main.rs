//! The tests of the crate, but for those that need a process of their own, each a file beside this folder. A test is a
//! function below `#[apply(test)]`: see `tests/support`.

#[macro_use]
extern crate macro_rules_attribute;

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod caller_life;
mod cgroups;
mod child;
mod confinement;
mod errors;
mod identity;
mod interpreter;
mod limits;
mod namespaces;
mod nesting;
mod pools;
mod quickstart;
mod root;
mod spawn;

/// What needs features of the crate in most of its tests, or examples that do.
macro_rules! with_features {
    ($(mod $area:ident;)*) => {
        $(#[cfg(all(feature = "cli", feature = "config", feature = "serde", feature = "systemd", feature = "tokio", feature = "tracing", feature = "_testing"))] mod $area;)*
        const WITH_FEATURES: &[&str] = &[$(stringify!($area)),*];
    };
}

with_features! {
    mod async_interface;
    mod attacks;
    mod best_effort;
    mod collect;
    mod config;
    mod hosts;
    mod judge;
    mod learn;
    mod profiles;
    mod recipes;
    mod run;
    mod runtimes;
    mod seccomp;
    mod sessions;
    mod support_probe;
    mod systemd;
    mod tracing_spans;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    let run = support::Run::from_args();
    // See support::subscriber.
    let _interested = tracing::Dispatch::new(support::subscriber::Collector::default());
    let _delegated = run.has("cgroups").then(cgroups::prepare);
    let mut code = run.execute(&["judge", "quickstart", support::COMMAND]);
    if code == ExitCode::SUCCESS && run.has("root") {
        code = root::again_as_on_an_old_kernel();
    }
    let has_all = cfg!(all(
        feature = "cli",
        feature = "config",
        feature = "serde",
        feature = "systemd",
        feature = "tokio",
        feature = "tracing",
        feature = "_testing"
    ));
    if !has_all && !run.lists() {
        println!("not tested without all features of the crate: {}", WITH_FEATURES.join(", "));
    }
    code
}
