//! Configuration files (feature `config`): what people write is understood, or refused with the key, its line and what to
//! do; the schema and the documentation have the keys that the crate reads.
//!
//! This is a binary of its own, since it needs neither a host nor a user: the suite runs its tests as root and as an
//! ordinary user, and these would run twice. The suite runs the files of `examples/config`.

#[path = "config/errors.rs"]
mod errors;
#[path = "config/keys.rs"]
mod keys;
#[path = "config/schema.rs"]
mod schema;

use stockade::Result;
use stockade::config::{Config, ConfigFormat};

/// The directory at which relative paths start.
const BASE: &str = "/base";

fn toml(text: &str) -> Result<Config> {
    Config::parse(text, ConfigFormat::Toml, BASE)
}

fn json(text: &str) -> Result<Config> {
    Config::parse(text, ConfigFormat::Json, BASE)
}
