//! The paths of the host in mounts, and their targets, for configuration files: a path in a file starts at the directory
//! of the file. What a mount does is not here.

use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::bind::Bind;
use super::file_owner::Owner;
use super::inputs::Inputs;
use super::operation::Operation;
use super::overlay::{Overlay, Upper};
use super::root::{Base, Root};
use crate::host_path::HostPath;

/// The paths of the host that a value names.
pub(crate) trait HostSources {
    fn host_sources(&mut self) -> Vec<&mut HostPath>;
}

impl HostSources for Bind {
    fn host_sources(&mut self) -> Vec<&mut HostPath> {
        // A descriptor needs no path.
        if self.fd.is_some() { vec![] } else { vec![&mut self.source] }
    }
}

impl HostSources for Overlay {
    fn host_sources(&mut self) -> Vec<&mut HostPath> {
        let mut paths: Vec<&mut HostPath> = self.lowers.iter_mut().collect();
        if let Upper::Dirs { upper, work } = &mut self.upper {
            paths.extend([upper, work]);
        }
        paths
    }
}

impl HostSources for Inputs {
    fn host_sources(&mut self) -> Vec<&mut HostPath> {
        self.sets.iter_mut().map(|set| &mut set.directory).collect()
    }
}

impl HostSources for Operation {
    fn host_sources(&mut self) -> Vec<&mut HostPath> {
        match self {
            Self::Bind(bind) => bind.host_sources(),
            Self::Overlay(overlay) => overlay.host_sources(),
            Self::Inputs(inputs) => inputs.host_sources(),
            _ => vec![],
        }
    }
}

impl HostSources for Root {
    fn host_sources(&mut self) -> Vec<&mut HostPath> {
        let mut paths = match &mut self.base {
            Base::Inherit | Base::Empty | Base::Host | Base::System => vec![],
            Base::Dir(path) | Base::WritableDir(path) => vec![path],
            Base::Overlay(overlay) => overlay.host_sources(),
        };
        paths.extend(self.operations.iter_mut().flat_map(HostSources::host_sources));
        paths
    }
}

impl Root {
    /// Reads the base alone, in its stored form.
    pub(crate) fn deserialize_base<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Base::deserialize(deserializer).map(|base| Self { base, ..Self::host() })
    }
}

#[cfg(feature = "_schema")]
impl Root {
    /// Returns the schema of the stored form of a base.
    pub(crate) fn base_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<Base>()
    }
}

impl Operation {
    /// Returns the path inside that it is about. `None` if it is about several.
    pub(crate) fn single_target(&self) -> Option<&Path> {
        match self {
            Self::NetworkNames | Self::UserNames | Self::Gpus => None,
            _ => Some(self.target()),
        }
    }
}

impl Bind {
    /// Returns the paths of the source and of the target. `None` for a descriptor.
    pub(crate) fn paths(&self) -> Option<(&HostPath, &Path)> {
        self.fd.is_none().then_some((&self.source, &*self.target))
    }

    /// Returns whether it is writable or a git workspace.
    pub(crate) fn is_writable_or_git(&self) -> bool {
        self.writable || self.git
    }

    /// Maps no owner, unless one is set.
    pub(crate) fn unmapped_by_default(self) -> Self {
        if self.owner == Owner::Caller { self.unmapped() } else { self }
    }

    /// Sets the target.
    pub(crate) fn at(self, target: impl Into<std::path::PathBuf>) -> Self {
        Self { target: target.into(), ..self }
    }
}

impl Overlay {
    /// Returns the lower directories.
    pub(crate) fn lowers(&self) -> &[HostPath] {
        &self.lowers
    }

    /// Maps no owner, unless one is set.
    pub(crate) fn unmapped_by_default(self) -> Self {
        if self.owner == Owner::Caller { self.unmapped() } else { self }
    }
}
