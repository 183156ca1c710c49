//! Reading a text or a file, and the errors of both.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::contradictions::Contradiction;
use super::document::{ConfigFormat, Content, LocatedValue, MAX_BYTES};
use super::json_example::json_example;
use super::keys::{Config, EXAMPLES};
use super::learned_source::LearnedSource;
use super::mistake::Mistake;
use super::seccomp_source::SeccompKind;
use crate::confine::{Bind, HostSources};
use crate::error::{Error, Result};

impl Config {
    /// Reads a configuration. Relative paths of the host in it start at the directory `base`: see [`Config::resolve`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfiguration`](crate::ErrorKind::InvalidConfiguration) for an unknown key, a value that a
    /// key does not take, a key that is given twice, and keys that contradict each other. The message names the key and
    /// its line.
    ///
    /// ```
    /// use stockade::config::{Config, ConfigFormat};
    ///
    /// let error = Config::parse("profile = 'agent'\nmemmory = '1GiB'", ConfigFormat::Toml, ".").unwrap_err();
    /// assert_eq!(error.to_string(), "failed to read the configuration: line 2: unknown key `memmory`: use `memory`");
    /// ```
    pub fn parse(text: &str, format: ConfigFormat, base: impl AsRef<Path>) -> Result<Self> {
        TextSource { path: None, format }.config(text).map(|config| config.resolve(base))
    }

    /// Does the same as [`Config::parse`] with a part of a configuration, which [`Config::overridden_by`] adds to another
    /// one: keys that contradict each other, or need another key, are an error of [`Config::sandbox`] alone.
    ///
    /// # Errors
    ///
    /// Those of [`Config::parse`], but for contradictions.
    ///
    /// ```
    /// use stockade::config::{Config, ConfigFormat};
    ///
    /// let [one, other] = ["cpus = 1.5", "cpu_period = '50ms'"];
    /// assert!(Config::parse(other, ConfigFormat::Toml, ".").is_err());
    /// let part = |text| Config::parse_part(text, ConfigFormat::Toml, ".");
    /// assert!(part(one)?.overridden_by(part(other)?).sandbox().is_ok());
    /// # Ok::<(), stockade::Error>(())
    /// ```
    pub fn parse_part(text: &str, format: ConfigFormat, base: impl AsRef<Path>) -> Result<Self> {
        let source = TextSource { path: None, format };
        let read = source.document(text).and_then(|document| Self::deserialize(&document.0));
        read.map(|config| config.resolve(base)).map_err(|mistake| source.error(mistake, EXAMPLES))
    }

    /// Reads a configuration file. It is JSON if its name ends in `.json`, else TOML. Relative paths of the host in it
    /// start at its directory.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io) if the file cannot be read.
    /// - Those of [`Config::parse`]. [`Error::path`] returns the path of the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = text_of(path)?;
        let config = TextSource { path: Some(path), format: ConfigFormat::of(path) }.config(&text)?;
        Ok(config.resolve(path.parent().unwrap_or(Path::new("."))))
    }

    /// Makes all paths of the host absolute. Relative ones start at the directory `base`. `~/` at the beginning is the
    /// home directory of the caller.
    ///
    /// `base` itself starts at the working directory of the caller. [`Config::parse`] and [`Config::read`] do this.
    #[must_use]
    pub fn resolve(mut self, base: impl AsRef<Path>) -> Self {
        let base = absolute(base.as_ref());
        let start = |path: &Path| match path.strip_prefix("~") {
            Ok(rest) => std::env::home_dir().map_or_else(|| path.to_owned(), |home| home.join(rest)),
            Err(_) => absolute(&base.join(path)),
        };
        let binds = [&mut self.ro, &mut self.rw, &mut self.git];
        for bind in binds.into_iter().flatten() {
            // A bind that names no target.
            let own = bind.paths().filter(|(source, target)| source.unresolved() == **target);
            if let Some(target) = own.map(|(_, target)| start(target)) {
                *bind = bind.clone().at(target);
            }
        }
        let mut sources: Vec<_> =
            [&mut self.ro, &mut self.rw, &mut self.git].into_iter().flatten().flat_map(Bind::host_sources).collect();
        sources.extend(self.overlay.iter_mut().flat_map(HostSources::host_sources));
        sources.extend(self.mounts.iter_mut().flat_map(HostSources::host_sources));
        sources.extend(self.root.iter_mut().flat_map(HostSources::host_sources));
        sources.into_iter().for_each(|path| path.map_start(start));
        let mut files: Vec<&mut PathBuf> = self.descriptors.values_mut().filter_map(|source| source.path()).collect();
        if let Some(SeccompKind::File(path)) = self.seccomp.as_mut().map(|source| &mut source.0) {
            files.push(path);
        }
        if let Some(LearnedSource::File(path)) = &mut self.learned {
            files.push(path);
        }
        files.into_iter().for_each(|path| *path = start(path));
        self
    }

    /// Returns an error if keys contradict each other.
    pub(super) fn check(&self) -> Result<()> {
        self.contradiction().map_or(Ok(()), |it| Err(Error::invalid(it.cause, it.hint)))
    }
}

/// The keys whose entries restrict the program to them, and that restrict nothing without an entry.
pub(super) const NOT_EMPTY: [&str; 4] = ["landlock_ro", "landlock_rw", "connect", "bind_port"];

/// The keys whose tables are in the stored form, in which null is an absent key.
const STORED: [&str; 4] = ["landlock", "learned", "mounts", "seccomp"];

/// Refuses null, which would be an absent key: no limit, for example.
fn refuse_null(value: &LocatedValue) -> std::result::Result<(), Mistake> {
    match &value.content {
        Content::Null => Err(Mistake::new("expected a value, found null").at(value.line)),
        Content::List(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(position, item)| refuse_null(item).map_err(|mistake| mistake.in_item(position)))
        }
        Content::Table(entries) => {
            entries.iter().try_for_each(|(key, inner)| refuse_null(inner).map_err(|mistake| mistake.within(&key.name)))
        }
        _ => Ok(()),
    }
}

/// Returns an absolute path. `..` depends on symlinks, so it is resolved as the kernel does.
fn absolute(path: &Path) -> PathBuf {
    let resolved = path.components().any(|part| part == Component::ParentDir).then(|| path.canonicalize().ok());
    resolved.flatten().or_else(|| std::path::absolute(path).ok()).unwrap_or_else(|| path.to_owned())
}

/// Reads a file that is not longer than a configuration may be.
fn text_of(path: &Path) -> Result<String> {
    let failed = |error: std::io::Error| Error::collect("read the configuration", path, "open", error, None);
    let mut bytes = vec![];
    File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| Error::misconfigured(Some(path), "it is not UTF-8", "change it to UTF-8"))
}

/// Reads a value in its stored form from a file.
pub(super) fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let source = TextSource { path: Some(path), format: ConfigFormat::of(path) };
    let text = text_of(path)?;
    let read = LocatedValue::parse(&text, source.format).and_then(|document| T::deserialize(&document));
    read.map_err(|mistake| source.error(mistake, &[]))
}

/// Where a text comes from.
struct TextSource<'a> {
    path: Option<&'a Path>,
    format: ConfigFormat,
}

impl TextSource<'_> {
    fn document(&self, text: &str) -> std::result::Result<Document, Mistake> {
        Document::check(LocatedValue::parse(text, self.format)?)
    }

    fn config(&self, text: &str) -> Result<Config> {
        let read = || -> std::result::Result<Config, Mistake> {
            let document = self.document(text)?;
            let config = Config::deserialize(&document.0)?;
            match config.contradiction() {
                Some(contradiction) => Err(document.mistake(contradiction)),
                None => Ok(config),
            }
        };
        read().map_err(|mistake| self.error(mistake, EXAMPLES))
    }

    /// Returns the error, with what to do.
    fn error(&self, mistake: Mistake, examples: &[(&str, &str)]) -> Error {
        Error::misconfigured(self.path, mistake.to_string(), self.hint(&mistake, examples))
    }

    fn hint(&self, mistake: &Mistake, examples: &[(&str, &str)]) -> String {
        /// Keys of a policy that `learn` wrote, in the place of a configuration.
        const LEARNED: [&str; 3] = ["calls", "paths", "abstract_sockets"];
        let example = |key: &str| examples.iter().find(|(known, _)| *known == key).map(|(_, example)| *example);
        match (mistake.unknown.as_deref(), mistake.hint(), mistake.outermost().and_then(example)) {
            (Some(key), ..) if mistake.is_nested() && example(key).is_some() => {
                format!("move `{key}` to the top of the file, above the first table")
            }
            (Some(key), ..) if !mistake.is_nested() && !examples.is_empty() && LEARNED.contains(&key) => {
                "name the file in the key `learned`: it is a policy that learn wrote, and no configuration".into()
            }
            (_, Some(hint), _) => hint.to_owned(),
            (Some(_), ..) => "see the table of keys in the documentation of stockade::config".into(),
            (None, _, Some(example)) => format!("write it as `{}`", self.shown(example)),
            _ => "change the text there".into(),
        }
    }

    fn shown(&self, example: &str) -> String {
        match self.format {
            ConfigFormat::Toml => example.to_owned(),
            ConfigFormat::Json => json_example(example),
        }
    }
}

/// The table of a configuration, in which every key is one of [`Config`], or wrong.
struct Document(LocatedValue);

impl Document {
    /// Removes the keys that no [`Config`] has, and refuses what serde would accept by mistake.
    fn check(mut located: LocatedValue) -> std::result::Result<Self, Mistake> {
        if let Content::Table(entries) = &mut located.content {
            entries.retain(|(key, value)| !(key.name == "$schema" && matches!(value.content, Content::Text(_))));
            if let Some(at) = entries.iter().position(|(key, _)| key.name == "version") {
                let (_, value) = entries.remove(at);
                if !matches!(value.content, Content::Unsigned(1)) {
                    let mistake = Mistake::new("this version of the crate reads version 1").at(value.line);
                    return Err(mistake.within("version").hinted("use 1, or remove it"));
                }
            }
            for (key, value) in entries.iter() {
                if !STORED.contains(&&*key.name) || matches!(value.content, Content::Null) {
                    refuse_null(value).map_err(|mistake| mistake.within(&key.name))?;
                }
                match &value.content {
                    Content::List(items) if items.is_empty() && NOT_EMPTY.contains(&&*key.name) => {
                        let mistake = Mistake::new("an empty list would be no restriction").at(value.line);
                        return Err(mistake.within(&key.name).hinted(
                            "remove the key, or deny all files or ports by the key `landlock` without rules for them",
                        ));
                    }
                    // In TOML, a key after the header [env] is a variable: a limit would become one.
                    Content::Table(variables) if key.name == "env" => {
                        let is_key = |name: &str| EXAMPLES.iter().any(|(known, _)| *known == name);
                        if let Some((variable, _)) = variables.iter().find(|(variable, _)| is_key(&variable.name)) {
                            let mistake = Mistake::new(format!("`{}` is a key of the configuration", variable.name));
                            return Err(mistake
                                .at(variable.line)
                                .within("env")
                                .hinted("move it above the table `env`"));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(Self(located))
    }

    /// Returns a contradiction with the line of its later key.
    fn mistake(&self, contradiction: Contradiction) -> Mistake {
        let mistake = Mistake::new(contradiction.cause).hinted(contradiction.hint);
        let Content::Table(entries) = &self.0.content else { return mistake };
        let lines = entries.iter().filter(|(key, _)| contradiction.keys.contains(&&*key.name)).map(|(key, _)| key.line);
        lines.max().map_or(mistake.clone(), |line| mistake.at(line))
    }
}
