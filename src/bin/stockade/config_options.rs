//! `--config` and `--set`: the keys of configuration files.

use std::path::PathBuf;

use clap::Args;
use stockade::Error;
use stockade::config::{Config, ConfigFormat};
use toml::de::{DeTable, DeValue};

use crate::option_words::of_setting;

#[derive(Args)]
pub struct ConfigOptions {
    /// Read a configuration file, in TOML, or in JSON if its name ends in .json. The other options change it. Keep it where
    /// no sandbox may write, or add it to --protect: it decides what the next run allows
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Set a key of configuration files to a value of TOML, as a line of such a file does: --set setup_timeout=5s,
    /// --set rlimits.stack=64MiB, --set 'devices=["/dev/kvm"]', --set 'descriptors.3.caller=3'. Text needs no quotes.
    /// `stockade keys` lists the keys
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<Config>,
}

impl ConfigOptions {
    /// Returns the configuration that the file and the settings describe.
    pub fn read(&self) -> Result<Config, Error> {
        let file = self.config.as_ref().map_or_else(|| Ok(Config::default()), Config::read)?;
        Ok(self.set.iter().cloned().fold(file, Config::overridden_by))
    }
}

/// Parses `KEY=VALUE`. What is no value of TOML is text. A comment, or a second key in another line, is an error: it would
/// be ignored, or set more than the key.
fn setting(text: &str) -> Result<Config, String> {
    let (key, value) = text.split_once('=').ok_or("it has no =")?;
    if key.contains('\n') || key.trim_start().starts_with('#') {
        return Err("what is before = is not a key".into());
    }
    let mut line = format!("{key} = {value}");
    if DeValue::parse(value.trim()).is_err() {
        if DeTable::parse(&line).is_ok() {
            return Err("what is after = is more than one value: remove comments and further lines".into());
        }
        line = format!("{key} = {}", serde_json::Value::from(value.trim()));
    }
    Config::parse_part(&line, ConfigFormat::Toml, ".").map_err(|error| of_setting(&error))
}
