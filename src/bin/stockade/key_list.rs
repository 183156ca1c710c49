//! `stockade keys`.

use std::io::{self, Write};

use stockade::config::Config;

use crate::exit_status::FAILED;
use crate::messages::fail;

/// Prints the keys of configuration files. Returns the exit status.
pub fn print() -> u8 {
    let text: String = Config::keys().map(|key| format!("{}\n    {}\n", key.example(), key.description())).collect();
    let written = io::stdout().write_all(text.as_bytes());
    written.map_or_else(|error| fail(FAILED, format_args!("failed to print the keys: {error}")), |()| 0)
}
