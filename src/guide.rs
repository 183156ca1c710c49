//! The guide: how to use this crate, in pages. They contain no code of the crate; every example is a test.
//!
//! Four uses, each from an empty crate to a working program:
//!
//! | page | program |
//! |---|---|
//! | [`builds`] | a build system whose compiler calls see their declared inputs alone |
//! | [`testing`] | tests that do not share ports, files and processes |
//! | [`judging`] | an online judge that runs untrusted submissions |
//! | [`agents`] | an agent that runs generated code in a workspace |
//!
//! What to know:
//!
//! | page | contents |
//! |---|---|
//! | [`concepts`] | what a sandbox is, its processes, and what happens in a spawn |
//! | [`security_model`] | what is isolated, what is not, for each layer and kernel version |
//! | [`sessions`] | many commands in one sandbox, and sandboxes that are kept ready |
//! | [`asynchronous`] | tokio, and any other event loop |
//! | [`containers`] | Docker, Podman, Kubernetes, GitHub Actions, Ubuntu with AppArmor |
//! | [`cgroups`] | limits on memory, processes and CPU time: what the host must delegate |
//! | [`nesting`] | sandboxes in sandboxes |
//! | [`troubleshooting`] | error messages, what causes them, and what to do |
//! | [`performance`] | what a spawn costs, and how to measure it |
//! | [`comparison`] | bubblewrap, nsjail, isolate, go-judge, hakoniwa, procage, runc |
//! | [`tracing`] | spans and events (feature `tracing`) |
//! | [`stored_form`] | the serialised form of values (feature `serde`) |
//!
//! Configuration files have a module of their own: `config` (feature `config`).

/// Declares pages: modules that contain a file of `docs` alone. The examples of some need a feature.
macro_rules! pages {
    ($($name:ident $file:literal $(if $feature:literal)?,)*) => {
        $(
            #[cfg_attr(all($(feature = $feature)?), doc = include_str!(concat!("../docs/", $file)))]
            $(#[cfg_attr(not(feature = $feature), doc = concat!("This page needs the feature `", $feature, "`."))])?
            pub mod $name {}
        )*
    };
}

pages! {
    builds "builds.md",
    testing "testing.md",
    judging "judging.md",
    agents "agents.md",
    concepts "concepts.md",
    security_model "security-model.md",
    sessions "sessions.md",
    asynchronous "asynchronous.md" if "tokio",
    containers "containers.md",
    cgroups "cgroups.md",
    nesting "nesting.md",
    troubleshooting "troubleshooting.md",
    performance "performance.md",
    comparison "comparison.md",
    tracing "tracing.md" if "tracing",
    stored_form "stored-form.md" if "serde",
}
