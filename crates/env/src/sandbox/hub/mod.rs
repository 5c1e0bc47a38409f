//! The Hugging Face hub as a step sees it: a server on the step's own loopback that answers the hub's read calls from
//! locked files alone.
//!
//! [`Hub`] is plain data: which repositories there are, at which commit, with which files. `answer` says what the hub's
//! API says of it, and `serve` is the server: a process beside the step, behind the same walls, that the step's init
//! starts before the step and ends with it. It reads the files where the step itself finds them, so that it can give
//! out nothing that the step does not have.

#[cfg(target_os = "linux")]
mod answer;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(all(test, target_os = "linux"))]
mod tests;

#[cfg(target_os = "linux")]
pub(super) use serve::Server;

use super::Paths;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trainlock_types::{Digest, RelPath};

/// The port on the step's loopback. The network is the step's own, so that it is the same for every step; it lies below
/// those that the kernel gives to outgoing connections.
#[cfg(target_os = "linux")]
const PORT: u16 = 4343;

/// Its address.
const ENDPOINT: &str = "http://127.0.0.1:4343";

/// The repositories that a step's hub has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hub {
    /// The parts of repositories that the step was given. A repository may stand here several times: at several
    /// commits, or with other files.
    pub repositories: Vec<Repository>,
}

/// A repository at one commit, as far as it was given to the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// `datasets/ORG/NAME`, or `ORG/NAME` for a model.
    pub id: String,
    /// The locked commit.
    pub commit: String,
    /// The branch or tag that the commit was locked for.
    pub revision: String,
    /// Where its files lie, relative to the folder that the step sees the project in.
    pub at: RelPath,
    /// The files, sorted by path.
    pub files: Vec<HubFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubFile {
    /// Its path in the repository.
    pub path: RelPath,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: Digest,
}

/// What a step asked its hub for in vain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// `datasets/ORG/NAME`, or `ORG/NAME` for a model.
    pub repository: String,
    /// The revision asked for; none if it named none.
    pub revision: Option<String>,
    /// The file asked for; none if it was the repository.
    pub path: Option<String>,
}

impl Hub {
    /// What the hub's clients have to know: where the hub is, and that there is no other.
    pub fn variables(paths: &Paths) -> BTreeMap<String, String> {
        let cache = paths.tmp.join("huggingface").to_string_lossy().into_owned();
        [("HF_ENDPOINT", ENDPOINT), ("HF_HOME", &cache), ("HF_HUB_DISABLE_TELEMETRY", "1"), ("HF_HUB_DISABLE_XET", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }
}
