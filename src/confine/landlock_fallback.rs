//! Landlock rules that stand in for a root where the host denies one: the program sees the paths of the host, and can
//! access those that the root would have shown. Which these are is decided in `mount/shown.rs`.

use super::facts::Facts;
use super::mount::{Root, TreeAccess};
use super::{FsAccess, Landlock};
use crate::error::Result;

const DEVICE: FsAccess = FsAccess::READ_FILE.union(FsAccess::WRITE_FILE).union(FsAccess::IOCTL_DEV);

/// Returns rules that allow what a root shows.
pub(crate) fn rules(root: &Root, facts: &Facts) -> Result<Landlock> {
    // What is no file is the concern of other layers.
    let nothing = Landlock::resolved().any_tcp().any_signal().any_abstract_socket();
    Ok(root.shown_trees(facts)?.into_iter().fold(nothing, |rules, tree| {
        let access = match tree.access {
            TreeAccess::Read => FsAccess::READ_ONLY,
            TreeAccess::Write => FsAccess::all(),
            TreeAccess::Device => DEVICE,
        };
        rules.access(tree.path, access)
    }))
}
