//! Attacks on the sandbox. Each is a small program in a sandbox, a hostile directory, or a caller in a hostile
//! environment. A test first shows that the attack succeeds without the layer that prevents it, and then that it fails.
//! README.md lists them.

mod abis;
mod bombs;
mod buffers;
mod busy;
mod caller_size;
pub mod common;
mod cores;
mod descriptors;
mod downgrade;
mod every_means;
mod filesystem;
mod filter;
mod filter_memory;
mod helpers;
mod homes;
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
mod protect_git;
mod quotas;
mod runs;
mod set_id;
mod set_up;
mod sockets;
mod sources;
mod streams;
pub mod sys;
mod terminal;
mod terminals;
mod tmpfs_bounds;
