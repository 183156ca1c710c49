//! A step of a build: a command, the files that it reads, and the files that it writes.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The directory in the sandbox in which commands run, with the inputs. It is the same on every machine, so that no path of
/// a machine gets into an object.
pub const WORK: &str = "/build";

/// The directory below it for the outputs, which is empty at first.
pub const OUT: &str = "out";

#[derive(Clone, Debug)]
pub struct Step {
    /// What messages and the progress bar call it.
    pub name: String,
    pub command: Vec<String>,
    /// Files and directories, relative to the directory of the sources. Nothing else of it is visible.
    pub inputs: BTreeSet<PathBuf>,
    /// Files that it writes, relative to [`OUT`].
    pub outputs: Vec<PathBuf>,
}
