//! Workers that put the crate stockade behind engines that exist: see README.md.

pub mod reapi;
