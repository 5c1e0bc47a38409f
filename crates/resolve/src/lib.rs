//! What the manifest wants, the old lock and what the sources answer, made into a new lock.
//!
//! This crate does no IO: the same wanted things, old lock and answers give the same lock. It knows
//! nothing of manifests, the network or the file system; the [`Provider`] is asked for all that.

mod change;
mod resolve;

pub use resolve::{Mode, Resolution, ResolveError, resolve, settle, stale};
pub use trainlock_lock::{Action, Change, Subject, Why};

use std::collections::BTreeMap;
use std::sync::Arc;
use trainlock_lock::{Content, Determinism};
use trainlock_types::{DataRequest, Digest, Name, Params, ToolRequest};

/// An error of a provider.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All that a workspace's manifests want locked. The order of each list has no meaning.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The data sets of all members.
    pub data: Vec<Arc<DataRequest>>,
    /// The tools of all members.
    pub tools: Vec<ToolRequest>,
    /// The members.
    pub members: Vec<WantedMember>,
}

/// What is locked of a member besides its data and tools.
#[derive(Debug, Clone)]
pub struct WantedMember {
    /// The project's name.
    pub name: Name,
    /// Whether it is the workspace's root project.
    pub root: bool,
    /// The hyperparameters, inheritance applied.
    pub params: Params,
    /// What each profile lays over them.
    pub profiles: BTreeMap<Name, Params>,
    /// Seed and level.
    pub determinism: Determinism,
}

/// What a source answered for a data set.
#[derive(Debug, Clone)]
pub struct DataAnswer {
    /// The address with its revision resolved and without credentials; none if it is the request's own.
    pub resolved: Option<String>,
    /// What steps will get. A tree comes with its listing, however long.
    pub content: Content,
    /// SHA-256 and size of the fetched archive, for `extract` and `unpack`.
    pub archive: Option<(Digest, u64)>,
}

/// Whoever can find out what is there now.
pub trait Provider {
    /// The content of data sets that are fetched: one answer a request, in their order.
    fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>>;

    /// The content of files and folders of the repository: one answer a request, in their order.
    fn path(&mut self, requests: &[&DataRequest]) -> Vec<Result<Content, BoxError>>;

    /// The version of a tool.
    fn tool(&mut self, request: &ToolRequest) -> Result<semver::Version, BoxError>;
}
