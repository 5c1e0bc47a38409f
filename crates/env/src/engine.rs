//! The container engines that a step with an image can be handed to.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A container engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// podman, as root or not.
    Podman,
    /// docker, whose daemon runs as root.
    Docker,
    /// apptainer, or singularity.
    Apptainer,
    /// runc alone.
    Runc,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 4] = [EngineKind::Podman, EngineKind::Docker, EngineKind::Apptainer, EngineKind::Runc];

    /// Its name, which is its program's.
    pub const fn name(self) -> &'static str {
        match self {
            EngineKind::Podman => "podman",
            EngineKind::Docker => "docker",
            EngineKind::Apptainer => "apptainer",
            EngineKind::Runc => "runc",
        }
    }
}

/// An engine of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Which.
    pub kind: EngineKind,
    /// Its program's file.
    pub program: PathBuf,
    /// The variables that the engine itself gets: where its daemon listens, where it keeps its images.
    pub environment: BTreeMap<String, String>,
}
