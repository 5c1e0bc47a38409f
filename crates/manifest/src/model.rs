//! What a valid workspace is, as the rest of trainlock sees it.

use crate::Template;
use semver::{Version, VersionReq};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trainlock_types::{
    DataRequest, ImageReference, Name, Params, Platform, RelPath, SourceText, TakenKind, ToolRequest, Value, nearest,
};

/// A root manifest and its members, all of them valid. Every [`RelPath`] is relative to `root`.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The folder of the root manifest: absolute, symbolic links resolved.
    pub root: PathBuf,
    /// The root project, if there is one, and the members, sorted by folder (so that the root project is the first).
    pub members: Vec<Member>,
    /// The platforms that are locked for, sorted.
    pub platforms: Vec<Platform>,
    /// The member whose manifest was loaded; none for a root without a project.
    pub current: Option<Name>,
    /// Whether the root manifest has no `[project]` of its own.
    pub is_virtual: bool,
    /// All steps, each behind those that it needs; steps that could stand in any order stand as in the files.
    pub order: Vec<StepId>,
}

/// One step of a workspace, by its place in [`Workspace::members`] and [`Member::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    /// The index of the member.
    pub member: usize,
    /// The index of the step in the member.
    pub step: usize,
}

/// A project of the workspace.
#[derive(Debug, Clone)]
pub struct Member {
    /// The project's name, no two alike in a workspace.
    pub name: Name,
    /// Its folder; empty for the root project.
    pub dir: RelPath,
    /// The project's version; `0.0.0` if it names none.
    pub version: Version,
    /// What it is, in words.
    pub description: Option<String>,
    /// The requirement on trainlock itself, which this trainlock satisfies.
    pub requires_trainlock: Option<VersionReq>,
    /// The data sets, in the order of the file.
    pub data: Vec<Data>,
    /// The tools, in the order of the file.
    pub tools: Vec<Tool>,
    /// The python packages.
    pub python: Option<Python>,
    /// The python packages of each profile that has its own.
    pub python_profiles: BTreeMap<Name, Python>,
    /// The hyperparameters.
    pub params: Params,
    /// What each profile lays over [`Member::params`]; types are those of `params`.
    pub profiles: BTreeMap<Name, Params>,
    /// Seed and level.
    pub determinism: Determinism,
    /// How much isolation steps need unless they say otherwise.
    pub sandbox: Sandbox,
    /// The image of steps that name none.
    pub image: Option<ImageReference>,
    /// The steps, in the order of the file.
    pub steps: Vec<Step>,
    /// The member's manifest.
    pub source: Arc<SourceText>,
}

/// A data set that a member uses.
#[derive(Debug, Clone)]
pub struct Data {
    /// What is asked for; shared with what is made of it.
    pub request: Arc<DataRequest>,
    /// Where its name stands in `source`.
    pub span: Range<usize>,
    /// The manifest that the entry stands in: the root's if it is inherited.
    pub source: Arc<SourceText>,
}

/// A tool that a member's steps may call.
#[derive(Debug, Clone)]
pub struct Tool {
    /// What is asked for.
    pub request: ToolRequest,
    /// Where its name stands in `source`.
    pub span: Range<usize>,
    /// The manifest that the entry stands in: the root's if it is inherited.
    pub source: Arc<SourceText>,
}

/// The python packages that a member's steps import.
#[derive(Debug, Clone)]
pub struct Python {
    /// Where the requirements stand.
    pub from: PythonFrom,
    /// What a profile lays over them: each takes the place of those on the same package.
    pub over: Vec<Requirement>,
    /// Packages that come from one index alone, by normalized name, each with the index's name.
    pub index: BTreeMap<String, String>,
    /// Packages that may be built from a source distribution where there is no wheel.
    pub sdist: Vec<String>,
    /// Packages of which a version may be used that its publisher has withdrawn.
    pub yanked: Vec<String>,
    /// Where `[python]` stands in `source`.
    pub span: Range<usize>,
    /// The manifest that the table stands in: the root's if it is inherited.
    pub source: Arc<SourceText>,
}

/// Where a member's python requirements stand.
#[derive(Debug, Clone)]
pub enum PythonFrom {
    /// In train.toml itself.
    Dependencies(Vec<Requirement>),
    /// In a requirements file.
    Requirements(RelPath),
    /// In a pyproject.toml.
    Pyproject {
        /// The file.
        path: RelPath,
        /// Its dependency groups that are wanted.
        groups: Vec<String>,
        /// Its extras that are wanted.
        extras: Vec<String>,
    },
    /// In a lock of another tool, which is taken over.
    Lock {
        /// What kind of lock it is.
        kind: TakenKind,
        /// The file.
        path: RelPath,
        /// Its dependency groups that are wanted.
        groups: Vec<String>,
        /// Its extras that are wanted.
        extras: Vec<String>,
    },
}

/// A requirement on a python package, as PEP 508 writes it.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// The requirement.
    pub text: String,
    /// Where it stands in `source`.
    pub span: Range<usize>,
    /// The file that it stands in.
    pub source: Arc<SourceText>,
}

/// `[determinism]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Determinism {
    /// The seed that every step's seed is derived from, at most 2^63 - 1; 0 if none is named.
    pub seed: u64,
    /// How much of the processor's numeric behaviour is pinned.
    pub level: Level,
    /// How many threads numeric libraries may use; none if the level decides.
    pub threads: Option<u32>,
    /// Whether the global random generators of python, numpy and torch are seeded.
    pub seed_globals: bool,
}

/// How much of the processor's numeric behaviour is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The widest common level of the platform.
    Portable,
    /// x86-64 with SSE4.2.
    X86_64V2,
    /// x86-64 with AVX2.
    X86_64V3,
    /// The machine's own fast paths, with a fixed number of threads.
    Machine,
    /// Nothing.
    Off,
}

/// How much isolation a step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sandbox {
    /// All of it, or the step does not run.
    Required,
    /// What the machine offers.
    BestEffort,
    /// None.
    Off,
}

/// A step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name, no two alike in a member.
    pub name: Name,
    /// What it runs.
    pub run: Run,
    /// What it reads, in the order of the file.
    pub inputs: Vec<Input>,
    /// What it writes: outputs, then metrics, then plots, each in the order of the file.
    pub outputs: Vec<Output>,
    /// The params that it sees, each a leaf or a table, sorted: those listed, and those that its command names.
    pub params: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The image that is its root file system: its own, else the project's.
    pub image: Option<ImageReference>,
    /// What it needs of the machine.
    pub resources: Resources,
    /// After how long it is ended.
    pub timeout: Option<Duration>,
    /// How many more times it is tried after a failure.
    pub retries: u32,
    /// Whether it may use the network.
    pub network: bool,
    /// Services that answer from locked bytes while it runs.
    pub serve: Vec<Service>,
    /// How much isolation it needs: its own word, else the project's.
    pub sandbox: Sandbox,
    /// Bounds of metrics, by the metric's dotted name.
    pub expect: BTreeMap<String, Bounds>,
    /// How far metrics may be from their sealed values, by the metric's dotted name; finite, not negative.
    pub tolerance: BTreeMap<String, f64>,
    /// The steps whose outputs it reads, sorted.
    pub needs: Vec<StepId>,
    /// Where its name stands in the member's manifest.
    pub span: Range<usize>,
}

/// A step's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// A script for the shell; what is substituted gets quoted.
    Shell(Template),
    /// A program and its arguments, without a shell; at least one, the first not empty.
    Exec(Vec<Template>),
}

/// An input of a step.
#[derive(Debug, Clone)]
pub struct Input {
    /// As it stands in the manifest.
    pub written: String,
    /// What it means.
    pub pattern: InputPattern,
    /// The outputs and data that it takes in. Empty: it is made of source files alone. A folder may
    /// hold source files beside what stands here.
    pub origins: Vec<Origin>,
    /// Where it stands in the member's manifest.
    pub span: Range<usize>,
}

/// What an input names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPattern {
    /// A file or a folder.
    Path {
        /// Where.
        path: RelPath,
        /// Whether a trailing `/` says that it is a folder.
        folder: bool,
    },
    /// The files below `folder` that match. If [`Input::origins`] is empty these are source files alone,
    /// never a step's outputs; else they are files of that one output or data set.
    Glob {
        /// The literal part: the deepest folder that holds all that can match.
        folder: RelPath,
        /// A pattern for paths relative to `folder`; `*` and `?` do not match `/`.
        glob: String,
    },
}

/// Where an input comes from, if it is no source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An output of another step.
    Output {
        /// The step.
        step: StepId,
        /// The index in [`Step::outputs`].
        output: usize,
    },
    /// A data set.
    Data {
        /// The index of the member.
        member: usize,
        /// The index in [`Member::data`].
        data: usize,
    },
}

/// An output of a step.
#[derive(Debug, Clone)]
pub struct Output {
    /// As it stands in the manifest.
    pub written: String,
    /// Where it lies.
    pub path: RelPath,
    /// Whether a trailing `/` says that it is a folder.
    pub folder: bool,
    /// Which list it stands in.
    pub kind: OutputKind,
    /// Where it stands in the member's manifest.
    pub span: Range<usize>,
}

/// Which list an output stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputKind {
    /// `outputs`.
    Output,
    /// `metrics`: its numbers are recorded and compared.
    Metric,
    /// `plots`: it is drawn in the report.
    Plot,
}

/// What a step needs of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Processors, at least 1.
    pub cpus: u32,
    /// Memory in bytes; none if it does not say.
    pub memory: Option<u64>,
    /// GPUs.
    pub gpus: u32,
    /// The time that a cluster's queue is told; none if it does not say.
    pub time: Option<Duration>,
}

/// A service that answers a step from locked bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The Hugging Face hub's protocol.
    Hf,
}

/// What a metric must be; at least one of them is there, and all are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// At least this.
    pub min: Option<f64>,
    /// At most this.
    pub max: Option<f64>,
    /// Exactly this.
    pub equals: Option<f64>,
}

/// A profile that a member does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("project `{member}` has no profile `{profile}`{}", near.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
pub struct UnknownProfile {
    /// The member.
    pub member: Name,
    /// What was asked for.
    pub profile: String,
    /// The profile that was likely meant.
    pub near: Option<Name>,
}

impl Workspace {
    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.name.as_str() == name)
    }

    /// A step. The id must come from this workspace.
    pub fn step(&self, id: StepId) -> &Step {
        &self.members[id.member].steps[id.step]
    }

    /// A step as it is shown: `member/step`, or `step` in the root project.
    pub fn label(&self, id: StepId) -> String {
        let member = &self.members[id.member];
        let step = &member.steps[id.step].name;
        if member.dir.is_root() { step.to_string() } else { format!("{}/{step}", member.name) }
    }
}

impl Member {
    /// The hyperparameters under a profile, or without one.
    ///
    /// # Errors
    /// If there is no such profile.
    pub fn params_for(&self, profile: Option<&str>) -> Result<Params, UnknownProfile> {
        let mut params = self.params.clone();
        if let Some(profile) = profile {
            let Some(overlay) = self.profiles.get(profile) else {
                let near = nearest(profile, self.profiles.keys().map(Name::as_str));
                let near = near.and_then(|n| Name::entry(n).ok());
                return Err(UnknownProfile { member: self.name.clone(), profile: profile.to_owned(), near });
            };
            params.extend(overlay.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        Ok(params)
    }
}

impl Step {
    /// Those of a member's params that the step sees.
    pub fn params_seen(&self, params: &Params) -> Params {
        let seen = self.params.iter().flat_map(|name| leaves(params, name));
        seen.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// The leaf of this dotted name, or all leaves of the table of this name, sorted.
pub fn leaves<'a>(params: &'a Params, name: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    // What begins with the name stands together, with other names that begin so (`a-b` before `a.b`).
    let from = (std::ops::Bound::Included(name), std::ops::Bound::Unbounded);
    let begin = params.range::<str, _>(from).take_while(move |(leaf, _)| leaf.starts_with(name));
    begin.filter(move |(leaf, _)| matches!(leaf.as_bytes().get(name.len()), None | Some(b'.')))
}

impl Determinism {
    /// What holds where a manifest says nothing.
    pub const DEFAULT: Determinism =
        Determinism { seed: 0, level: Level::Portable, threads: None, seed_globals: false };
}

impl Level {
    /// All levels, as they are explained.
    pub const ALL: [Level; 5] = [Level::Portable, Level::X86_64V2, Level::X86_64V3, Level::Machine, Level::Off];

    /// The word in train.toml and train.lock.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::X86_64V2 => "x86-64-v2",
            Level::X86_64V3 => "x86-64-v3",
            Level::Machine => "machine",
            Level::Off => "off",
        }
    }
}

impl Sandbox {
    /// All of them, strictest first.
    pub const ALL: [Sandbox; 3] = [Sandbox::Required, Sandbox::BestEffort, Sandbox::Off];

    /// The word in train.toml and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Sandbox::Required => "required",
            Sandbox::BestEffort => "best-effort",
            Sandbox::Off => "off",
        }
    }
}

impl OutputKind {
    /// The key in train.toml whose list it stands in.
    pub const fn key(self) -> &'static str {
        match self {
            OutputKind::Output => "outputs",
            OutputKind::Metric => "metrics",
            OutputKind::Plot => "plots",
        }
    }
}

impl Service {
    /// The word in train.toml.
    pub const fn as_str(self) -> &'static str {
        match self {
            Service::Hf => "hf",
        }
    }
}

impl Default for Determinism {
    fn default() -> Determinism {
        Determinism::DEFAULT
    }
}

impl Default for Resources {
    fn default() -> Resources {
        Resources { cpus: 1, memory: None, gpus: 0, time: None }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
