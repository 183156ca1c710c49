//! Options that change the file system.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;
use stockade::Root;
use stockade::config::{self, Config};
use stockade::mount::{Bind, Overlay, Tmpfs};

use crate::option_words::as_message;
use crate::value_parsers::{paths, size, split, two};

#[derive(Args)]
pub struct MountOptions {
    /// Bind a file or directory of the host read-only; in system directories only what every user may read
    #[arg(long, value_name = "SRC[:DST]", value_parser = paths().try_map(bind))]
    ro: Vec<Bind>,

    /// Bind a file or directory of the host writable
    #[arg(long, value_name = "SRC[:DST]", value_parser = paths().try_map(bind))]
    rw: Vec<Bind>,

    /// Bind a git workspace writable, except what git on the host would execute
    #[arg(long, value_name = "SRC[:DST]", value_parser = paths().try_map(bind))]
    git: Vec<Bind>,

    /// Deny changing, replacing or creating a path in a writable directory
    #[arg(long, value_name = "PATH")]
    protect: Vec<PathBuf>,

    /// Mount a file system in memory, with a maximum size such as 64M or 1G
    #[arg(long, value_name = "DST[:SIZE]", value_parser = paths().try_map(tmpfs))]
    tmpfs: Vec<Tmpfs>,

    /// Mount an overlay of a directory of the host, with changes kept in memory; in system directories only what every
    /// user may read
    #[arg(long, value_name = "LOWER:DST", value_parser = paths().try_map(overlay))]
    overlay: Vec<Overlay>,

    /// Hide a file or directory
    #[arg(long, value_name = "PATH")]
    mask: Vec<PathBuf>,

    /// Create a directory
    #[arg(long, value_name = "PATH")]
    dir: Vec<PathBuf>,

    /// Create a symbolic link at LINK that points to TARGET
    #[arg(long, value_name = "TARGET:LINK", value_parser = paths().try_map(symlink))]
    symlink: Vec<LinkOption>,

    /// Set the root that the other options change: the host's, read-only; its programs and libraries alone; an empty one;
    /// the host's, unchanged; or a directory, with a slash in its path [default: host, or that of the profile]
    #[arg(long, value_name = "host|system|empty|inherit|PATH", value_parser = paths().try_map(root))]
    root: Option<Root>,
}

/// A symbolic link to create.
#[derive(Clone)]
struct LinkOption {
    target: OsString,
    link: PathBuf,
}

fn bind(text: OsString) -> Result<Bind, String> {
    let (source, target) = split(&text)?;
    // Without a target, `Config::resolve` makes both absolute.
    Ok(Bind::new(source, target.unwrap_or(source)))
}

fn tmpfs(text: OsString) -> Result<Tmpfs, String> {
    let (target, bytes) = split(&text)?;
    let tmpfs = Tmpfs::new(target);
    Ok(match bytes {
        Some(bytes) => tmpfs.size(size(&bytes.to_string_lossy())?),
        None => tmpfs,
    })
}

fn overlay(text: OsString) -> Result<Overlay, String> {
    two(&text).map(|(lower, target)| Overlay::new(target).lower(lower))
}

fn symlink(text: OsString) -> Result<LinkOption, String> {
    two(&text).map(|(target, link)| LinkOption { target: target.into(), link: link.into() })
}

fn root(text: OsString) -> Result<Root, String> {
    config::root(text).map_err(|error| as_message(&error))
}

impl MountOptions {
    pub fn add_to(&self, config: &mut Config) -> Result<(), String> {
        config.ro.clone_from(&self.ro);
        config.rw.clone_from(&self.rw);
        config.git.clone_from(&self.git);
        config.protect.clone_from(&self.protect);
        config.tmpfs.clone_from(&self.tmpfs);
        config.overlay.clone_from(&self.overlay);
        config.mask.clone_from(&self.mask);
        config.dirs.clone_from(&self.dir);
        config.root.clone_from(&self.root);
        for LinkOption { target, link } in &self.symlink {
            if config.symlinks.insert(link.clone(), target.clone()).is_some() {
                return Err(format!("--symlink: {link:?} is given twice: remove one"));
            }
        }
        Ok(())
    }
}
