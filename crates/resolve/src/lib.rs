//! What the manifest wants, the old lock and what the sources answer, made into a new lock.
//!
//! This crate does no IO: the same wanted things, old lock and answers give the same lock. It knows
//! nothing of manifests, the network or the file system; the [`Provider`] is asked for all that.

mod change;
mod resolve;

pub use resolve::{Mode, Resolution, ResolveError, resolve, settle, stale};
pub use trainlock_lock::{Action, Change, Subject, Why};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trainlock_lock::{Content, Determinism, HashFrom, PackagePin, Switches, ToolArtifact, ToolPin};
use trainlock_types::{
    DataRequest, Digest, ImageReference, Name, Params, Platform, PythonRequest, RelPath, ToolRequest, Validator,
};

/// An error of a provider.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// All that a workspace's manifests want locked. The order of each list has no meaning.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The data sets of all members.
    pub data: Vec<Arc<DataRequest>>,
    /// The tools of all members.
    pub tools: Vec<ToolRequest>,
    /// The python packages of all members.
    pub python: Vec<PythonRequest>,
    /// The container images of all steps.
    pub images: BTreeSet<ImageReference>,
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
    /// The version of each object of the listing, in its order, where the bucket keeps versions.
    pub versions: Vec<String>,
    /// What the server said of the bytes at the address.
    pub validator: Option<Validator>,
}

/// Whoever can find out what is there now.
pub trait Provider {
    /// The content of data sets that are fetched: one answer a request, in their order.
    fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>>;

    /// The content of files and folders of the repository: one answer a request, in their order.
    fn path(&mut self, requests: &[&DataRequest]) -> Vec<Result<Content, BoxError>>;

    /// The digest of a file of the repository that says what a data set holds.
    fn description(&mut self, path: &RelPath) -> Result<Digest, BoxError>;

    /// A tool: the newest version that is allowed, and what is fetched for it.
    /// `resolver` is the program that resolves python packages, where it is locked: it knows the builds of the interpreter.
    fn tool(&mut self, request: &ToolRequest, resolver: Option<&ToolPin>) -> Result<ToolAnswer, BoxError>;

    /// Python packages, resolved together for all platforms that the request names.
    fn python(&mut self, request: &PythonRequest, with: &ResolveWith<'_>) -> Result<PythonAnswer, BoxError>;

    /// A container image: what its reference names now.
    fn image(&mut self, reference: &ImageReference) -> Result<ImageAnswer, BoxError>;

    /// What a member's level means on every architecture, with packages of these versions.
    fn switches(&self, determinism: &Determinism, versions: &BTreeMap<String, String>) -> BTreeMap<String, Switches>;
}

/// What a provider answered for a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolAnswer {
    /// The version.
    pub version: semver::Version,
    /// What is fetched, by platform; empty for tools of the host.
    pub artifacts: BTreeMap<Platform, ToolArtifact>,
    /// Where the digests come from; none for tools of the host.
    pub hash_from: Option<HashFrom>,
}

/// What a registry answered for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAnswer {
    /// The digest of what the reference names.
    pub digest: Digest,
    /// The digest of each platform's manifest, and its size in bytes.
    pub platforms: BTreeMap<Platform, (Digest, u64)>,
}

/// What python packages are resolved with.
#[derive(Debug, Clone, Copy)]
pub struct ResolveWith<'a> {
    /// The interpreter.
    pub interpreter: &'a ToolPin,
    /// The resolver.
    pub resolver: &'a ToolPin,
    /// Versions that stay where they can.
    pub keep: &'a [PackagePin],
    /// Nothing that was uploaded later is looked at; none for no bound.
    pub exclude_newer: Option<&'a str>,
}

/// What a resolution found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonAnswer {
    /// The packages.
    pub packages: Vec<PackagePin>,
    /// When the newest of their files was uploaded; none where the index does not say.
    pub exclude_newer: Option<String>,
}
