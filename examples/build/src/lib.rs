//! A build in which each compiler call has a sandbox of its own. It sees the system's programs and the inputs that were
//! declared for it, and has no network. See README.md.

pub mod build;
pub mod cache;
pub mod diagnosis;
pub mod digest;
pub mod files;
pub mod hermetic;
pub mod includes;
pub mod measure;
pub mod project;
pub mod step;

/// An error of the build itself, or of a step.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
