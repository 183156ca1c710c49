#![doc = include_str!("../../docs/config.md")]

// What people write, as opposed to the stored form of `stored`, which machines write. Nothing here enforces anything: the
// keys are calls of the builders.

mod contradictions;
mod descriptor_source;
mod deserializer;
mod document;
mod json_example;
mod keys;
mod learned_source;
mod lower;
mod mistake;
mod mounts;
mod named_choices;
mod nearest;
mod option_values;
mod overriding;
mod reading;
mod rlimit_pair;
mod root_base;
#[cfg(feature = "_schema")]
mod schema;
mod seccomp_source;
mod short_text;

pub use descriptor_source::DescriptorSource;
pub use document::ConfigFormat;
pub use keys::{Config, ConfigKey};
pub use learned_source::LearnedSource;
pub use named_choices::{IdentityKind, Profile};
pub use option_values::{bind, capability, cgroup_parent, duration, overlay, root, size, tmpfs};
#[cfg(feature = "_schema")]
#[doc(hidden)]
pub use schema::{examples, schema};
pub use seccomp_source::SeccompSource;
