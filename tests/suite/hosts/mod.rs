//! Hosts that look different from a usual one. On each the default sandbox, every profile, a writable bind and the
//! probe are tried: they work, or say what to do.

mod automount;
mod callers_cgroup;
mod cgroup_view;
mod containers;
mod denials;
mod devices;
mod directories;
mod fallback;
mod fuse;
mod idmapped;
mod limits;
mod names;
mod proc;
mod root_directory;
mod signals;
pub mod simulated;
mod stores;
mod submounts;
