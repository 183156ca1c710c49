//! Attacks on the sandbox, each a small program that runs inside one, a hostile directory, or a host in a hostile
//! place. A test asserts the harm that did not happen, and shows first that the attack does it where the layer that
//! stops it is missing. README.md lists them.

#[path = "../support/mod.rs"]
#[macro_use]
mod support;

mod abis;
mod bombs;
mod buffers;
mod busy;
mod common;
mod cores;
mod descriptors;
mod downgrade;
mod every_means;
mod filesystem;
mod filter;
mod filter_memory;
mod helpers;
mod homes;
mod host_size;
mod huge_pages;
mod ids;
mod ipc;
mod kernel;
mod keys;
mod leases;
mod lies;
mod living;
mod locks;
mod modules;
mod network;
mod nothing;
mod outputs;
mod paths;
mod priorities;
mod privileges;
mod processes;
mod protect;
mod quotas;
mod runs;
mod set_id;
mod set_up;
mod sockets;
mod sources;
mod streams;
mod sys;
mod terminal;
mod terminals;
mod tmpfs_bounds;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        paths::TESTS,
        descriptors::TESTS,
        downgrade::TESTS,
        every_means::TESTS,
        filesystem::TESTS,
        streams::TESTS,
        priorities::TESTS,
        privileges::TESTS,
        processes::TESTS,
        quotas::TESTS,
        runs::TESTS,
        bombs::TESTS,
        buffers::TESTS,
        terminal::TESTS,
        terminals::TESTS,
        tmpfs_bounds::TESTS,
        network::TESTS,
        abis::TESTS,
        kernel::TESTS,
        cores::TESTS,
        ids::TESTS,
        ipc::TESTS,
        keys::TESTS,
        lies::TESTS,
        living::TESTS,
        locks::TESTS,
        nothing::TESTS,
        outputs::TESTS,
        busy::TESTS,
        filter::TESTS,
        set_id::TESTS,
        filter_memory::TESTS,
        huge_pages::TESTS,
        leases::TESTS,
        modules::TESTS,
        helpers::TESTS,
        host_size::TESTS,
        set_up::TESTS,
        sources::TESTS,
        sockets::TESTS,
        homes::TESTS,
        protect::TESTS,
    ]
    .concat();
    let payloads = [
        paths::PAYLOADS,
        descriptors::PAYLOADS,
        downgrade::PAYLOADS,
        every_means::PAYLOADS,
        filesystem::PAYLOADS,
        streams::PAYLOADS,
        priorities::PAYLOADS,
        privileges::PAYLOADS,
        processes::PAYLOADS,
        quotas::PAYLOADS,
        runs::PAYLOADS,
        buffers::PAYLOADS,
        terminal::PAYLOADS,
        terminals::PAYLOADS,
        tmpfs_bounds::PAYLOADS,
        network::PAYLOADS,
        abis::PAYLOADS,
        kernel::PAYLOADS,
        cores::PAYLOADS,
        ids::PAYLOADS,
        ipc::PAYLOADS,
        keys::PAYLOADS,
        lies::PAYLOADS,
        living::PAYLOADS,
        locks::PAYLOADS,
        nothing::PAYLOADS,
        outputs::PAYLOADS,
        busy::PAYLOADS,
        filter::PAYLOADS,
        set_id::PAYLOADS,
        filter_memory::PAYLOADS,
        huge_pages::PAYLOADS,
        leases::PAYLOADS,
        modules::PAYLOADS,
        helpers::PAYLOADS,
        host_size::PAYLOADS,
        set_up::PAYLOADS,
        sources::PAYLOADS,
        sockets::PAYLOADS,
        homes::PAYLOADS,
        protect::PAYLOADS,
    ]
    .concat();
    support::run(&tests, &payloads)
}
