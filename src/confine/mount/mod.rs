//! The file system of a sandbox: [`Root`] is a base and an ordered list of set-up operations. Each public type has a
//! file of its name. How an operation becomes system calls is in the file of its subject (`bind_calls`, `devices`,
//! `symlink`), and `assemble` tells their order. What other layers do is not here.

mod assemble;
mod bind;
mod bind_calls;
mod builder;
mod cgroups;
mod cut_off;
mod descriptor;
mod devices;
mod endpoints;
mod file_owner;
mod git;
mod git_config;
mod gpu;
mod host_root;
#[cfg(feature = "config")]
mod host_sources;
mod input_calls;
mod input_entries;
mod inputs;
mod mode;
mod names;
mod operation;
mod overlay;
mod overlay_calls;
mod parking;
mod proc;
mod protect;
mod remount;
mod root;
mod root_display;
mod shown;
mod source;
#[cfg(feature = "serde")]
mod stored_mounts;
mod symlink;
mod synthetic;
mod system_root;
mod target;
mod tmpfs;

pub(crate) use assemble::{OldRoot, change_root, check_terminals, detach_old_root, lower, open_procs, operations};
pub use bind::Bind;
pub(crate) use builder::{Names, ProcMounts, RootContext, WaitForInit};
pub(crate) use cgroups::are_writable as cgroups_are_writable;
pub(crate) use endpoints::{Endpoints, writable_places};
#[cfg(feature = "config")]
pub(crate) use host_sources::HostSources;
pub use inputs::Inputs;
pub use mode::Mode;
pub use operation::Operation;
pub use overlay::Overlay;
pub use proc::{HidePid, Proc};
pub use root::Root;
pub(crate) use shown::TreeAccess;
pub use tmpfs::Tmpfs;
