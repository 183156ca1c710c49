//! Symlinks: what is known of those that are at a path already. One with the same text is accepted, and an error names
//! the text of another.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use nix::errno::Errno;

use super::builder::Builder;
use super::devices::LINKS;
use super::host_root::is_bound;
use super::names::Position;
use super::operation::Operation;
use super::overlay::{Overlay, Upper};
use super::root::Base;
use super::source::resolve_source;
use super::target::Target;
use crate::confine::facts::Facts;
use crate::error::{Error, Result};

impl Builder<'_> {
    /// Carries out [`Operation::Symlink`].
    pub(super) fn symlink(&mut self, text: &OsStr, link: &Path, position: Position<'_>) -> Result<()> {
        let target = Target::new(link)?;
        let known = known_text(self.context.facts, link, position)?;
        if let Some(known) = known.as_ref().filter(|known| *known != text) {
            let hint = format!(
                "a symlink to {known:?} is there, which is not {text:?}: use the same text, or another path for the new one"
            );
            return Err(Error::set_up("create the symlink", "symlinkat", Errno::EEXIST, Some(&hint)).on(link));
        }
        target.symlink(self.context.helper, self.root, text, known.is_some());
        Ok(())
    }
}

/// Returns the text of the symlink that is at a path before an operation, as far as that is known.
fn known_text(facts: &Facts, path: &Path, position: Position<'_>) -> Result<Option<OsString>> {
    for mount in position.before.iter().rev() {
        match mount {
            Operation::Symlink { original, link } if link == path => return Ok(Some(original.clone())),
            Operation::Bind(bind) if path.starts_with(&bind.target) => {
                let source = bind.resolve_source(facts)?;
                return Ok(path.strip_prefix(&bind.target).ok().and_then(|rest| text_below(&source, rest)));
            }
            Operation::Dev(target) if path.starts_with(target) => {
                let known = LINKS.iter().find(|(_, name)| target.join(name) == path);
                return Ok(known.map(|(text, _)| text.into()));
            }
            Operation::Overlay(overlay) if path.starts_with(&overlay.target) => {
                return text_in_layers(facts, overlay, path.strip_prefix(&overlay.target).unwrap_or(path));
            }
            mount if mount.covers() && path.starts_with(mount.target()) => return Ok(None),
            _ => {}
        }
    }
    let below = path.strip_prefix("/").unwrap_or(path);
    match position.base {
        Base::Host if is_bound(path) => Ok(text_below(Path::new("/"), below)),
        Base::Dir(base) | Base::WritableDir(base) => Ok(text_below(&resolve_source(facts, base, true)?, below)),
        Base::Overlay(overlay) => text_in_layers(facts, overlay, below),
        Base::Host | Base::System | Base::Empty | Base::Inherit => Ok(None),
    }
}

/// Returns the text of a symlink in an overlay: that in the uppermost layer that has something at the path.
fn text_in_layers(facts: &Facts, overlay: &Overlay, rest: &Path) -> Result<Option<OsString>> {
    let upper = match &overlay.upper {
        Upper::Dirs { upper, .. } => Some(resolve_source(facts, upper, false)),
        Upper::Tmpfs { .. } => None,
    };
    let lowers = overlay.lowers.iter().map(|lower| resolve_source(facts, lower, true));
    for layer in upper.into_iter().chain(lowers) {
        let layer = layer?;
        if layer.join(rest).symlink_metadata().is_ok() {
            return Ok(text_below(&layer, rest));
        }
    }
    Ok(None)
}

/// Returns the text of a symlink of the host. `None` if there is none, or if its directory is reached through one,
/// which may lead elsewhere in the sandbox.
fn text_below(directory: &Path, rest: &Path) -> Option<OsString> {
    let path = directory.join(rest);
    let parent = path.parent().filter(|parent| parent.starts_with(directory))?;
    let is_plain = parent.canonicalize().is_ok_and(|real| real == parent);
    if is_plain { fs::read_link(path).ok().map(Into::into) } else { None }
}
