//! What a member's steps are equipped with: tools and python packages, found, fetched, verified and built.

mod builds;
mod images;
mod index;
mod npm;
mod python;

pub(crate) use builds::Builds;
pub(crate) use npm::Npm;
pub(crate) use python::{newer_package, resolve_packages};

use crate::exit::{Exit, Failure, Problem};
use crate::lacking::{Lack, Lacking};
use crate::project::{self, Project};
use crate::settings::PythonPlaces;
use crate::ui::Ui;
use images::image_key;
use python::{interpreter_key, packages_key, selected};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;
use trainlock_env::python::{PythonError, SelectError, piece_key};
use trainlock_env::{
    Engine, Equipment, FetchedTool, HostTool, HostTools, Image, Outfit, Packages, Place, Tool, ToolError,
};
use trainlock_fetch::{FetchError, Fetcher, IndexSettings, ToolFetchError, Want, Wanted, image_parts, of_withdrawal};
use trainlock_lock::{Lock, PythonPin, ToolPin};
use trainlock_manifest::Member;
use trainlock_run::Plan;
use trainlock_store::{PutError, Session, Store, StoreError};
use trainlock_types::{
    Digest, HumanSize, ImageReference, Name, PinnedFile, Platform, RelPath, SourceUrl, ToolFrom, ToolMatch,
    ToolProvider, ToolRequest, index_of, is_python, normalized_package,
};

/// What each member's steps are equipped with.
pub(crate) type Equipments = BTreeMap<Outfit, Equipment>;

/// The program that resolves and installs python packages.
pub(crate) const UV: &str = "uv";

/// Why a tool or packages can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EquipError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    ToolFetch(#[from] ToolFetchError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Host(#[from] ToolError),
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("could not {what}")]
    Python {
        what: &'static str,
        #[source]
        source: PythonError,
    },
    #[error("could not keep python packages in the store")]
    Put(#[from] PutError),
    #[error("could not keep python packages in the store")]
    Io(#[from] std::io::Error),
    #[error("tool `{name}` {version} has no file for {platform}")]
    NoArtifact { name: String, version: String, platform: Platform },
    #[error(
        "tool `{name}`: the program in {file} is not what train.lock names: expected sha256 {expected}, found {found}"
    )]
    Program { name: String, file: String, expected: Digest, found: String },
    #[error("image {0} has no manifest for {platform}", platform = Platform::host())]
    NoImage(String),
    #[error("{0}")]
    Index(String),
    #[error("{0}")]
    Npm(String),
    /// The store lacks files, and the network is off.
    #[error("the store lacks what is locked, and the network is off")]
    Lacking(Vec<Lacking>),
    #[error("no Python {wanted} on this machine: {found}")]
    Interpreter { wanted: String, found: String },
    #[error("package {package} {version} has no wheel for {platform}")]
    NoWheel { package: String, version: String, platform: Platform },
    #[error("package {package} comes from the package index `{index}`, and the configuration names no such index")]
    NoIndex { package: String, index: String },
    #[error("`{package}` {version} is needed by packages that are asked for with hashes, and is not named itself")]
    Unhashed { package: String, version: String },
    #[error("{}", .0.iter().map(Withdrawn::to_string).collect::<Vec<_>>().join("\n"))]
    Withdrawn(Vec<Withdrawn>),
    #[error("none of the hashes that `{package}` is asked for with is that of a file of version {version}")]
    Hashes { package: String, version: String },
}

/// A version that was resolved, and that its publisher no longer wants to be used.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    package: String,
    version: String,
    /// One of its files.
    file: String,
    why: String,
}

impl fmt::Display for Withdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Withdrawn { package, version, file, why } = self;
        write!(f, "package {package} {version} was withdrawn (yanked) by its publisher{}: {file}", of_withdrawal(why))
    }
}

impl EquipError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            EquipError::Fetch(error) | EquipError::ToolFetch(ToolFetchError::Fetch(error)) => {
                project::fetch_failure(std::slice::from_ref(error)).code
            }
            EquipError::Program { .. } | EquipError::Hashes { .. } => Exit::Unverified,
            EquipError::NoIndex { .. } => Exit::Invalid,
            _ => Exit::Failed,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            EquipError::Fetch(error) => error.hint(),
            EquipError::ToolFetch(error) => error.hint(),
            EquipError::NoArtifact { .. } => Some(
                "take another version, or the machine's own program with `from = \"host\"`; the platforms that are locked for stand in [workspace] platforms".to_owned(),
            ),
            EquipError::Npm(_) => Some(
                "set npm_config_registry or `registry` in ~/.npmrc to its address, or have npm on PATH, which knows one".to_owned(),
            ),
            EquipError::NoImage(_) => {
                Some("run the step on a machine of a platform that the image is for, or take another image".to_owned())
            }
            EquipError::Interpreter { wanted, .. } => Some(format!(
                "install Python {wanted} (`uv python install {wanted}`, pyenv, or your system's packages) so that it is on PATH, or move the lock to the one that is here: trainlock update python"
            )),
            EquipError::NoWheel { package, .. } => Some(format!(
                "take the platform out of [workspace] platforms, restrict the requirement (`{package}; sys_platform == \"linux\"`), take another version, or allow to build it: sdist = [\"{package}\"]"
            )),
            EquipError::Python { source: PythonError::Uv(text), .. } if text.contains("Failed to build") => Some(
                "a source distribution is built by what is locked beside it: add what its build needs to the requirements (often `setuptools`), or take a version with a wheel".to_owned(),
            ),
            EquipError::Python { source: PythonError::Uv(text), .. } if text.contains("Failed to fetch") => Some(
                "the package index is the one that pip or uv is configured for on this machine (PIP_INDEX_URL, UV_DEFAULT_INDEX, pip.conf, uv.toml): look whether it can be reached, and whether it wants credentials (netrc)".to_owned(),
            ),
            EquipError::Python { source: PythonError::Unmet(_), .. } => Some(
                "a lock that is taken over as it stands is mended with the tool that made it; else lock the packages anew: trainlock update".to_owned(),
            ),
            EquipError::NoIndex { index, .. } => Some(format!(
                "add it to trainlock's configuration (`index.{index} = \"https://…\"`) or to uv's (`[[index]]` with this name in uv.toml, `UV_INDEX={index}=https://…`)"
            )),
            EquipError::Python { source: PythonError::Uv(text), .. } if text.contains(" was yanked") => Some(
                "a version that its publisher has withdrawn (yanked) is taken only where it is asked for by `==` and `yanked = [\"NAME\"]` in [python] names it".to_owned(),
            ),
            EquipError::Withdrawn(all) => {
                let names: Vec<&str> = all.iter().map(|one| one.package.as_str()).collect();
                Some(format!(
                    "move to another version (`trainlock update {}`, or another requirement), or say that this one is meant all the same: `yanked = [\"{}\"]` in [python]",
                    names.join(" "),
                    names.join("\", \"")
                ))
            }
            EquipError::Unhashed { package, version } => {
                Some(format!("add `{package}=={version}` with its hashes, or leave all hashes out"))
            }
            EquipError::Select(SelectError::NoFile { name, .. }) => Some(format!(
                "take a version with a wheel for this machine, or allow to build it: sdist = [\"{name}\"] in [python]"
            )),
            _ => None,
        }
    }
}

impl EquipError {
    /// The normalized names of packages that it may speak of: of uv's own words, all that could be one.
    pub(crate) fn packages(&self) -> BTreeSet<String> {
        let text = match self {
            // That an index does not answer is no requirement's fault.
            EquipError::Python { source: PythonError::Uv(text), .. } if !text.contains("Failed to fetch") => text,
            EquipError::NoWheel { package, .. }
            | EquipError::NoIndex { package, .. }
            | EquipError::Unhashed { package, .. }
            | EquipError::Hashes { package, .. } => package,
            EquipError::Withdrawn(all) => return all.iter().map(|one| one.package.clone()).collect(),
            _ => return BTreeSet::new(),
        };
        let inner = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        text.split(inner).map(|word| normalized_package(word.trim_matches('.'))).collect()
    }
}

impl EquipError {
    /// Whether a network could have brought what is needed.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(
            self,
            EquipError::Lacking(_)
                | EquipError::Fetch(FetchError::Offline { .. })
                | EquipError::ToolFetch(ToolFetchError::Fetch(FetchError::Offline { .. }))
        )
    }
}

impl From<EquipError> for Failure {
    fn from(error: EquipError) -> Failure {
        if let EquipError::Lacking(all) = error {
            return all.into();
        }
        let mut failure = Failure::from_error(error.exit(), &error);
        if let Some(Problem::Plain { hints, .. }) = failure.problems.first_mut() {
            hints.extend(error.hint());
        }
        failure
    }
}

/// All that fetching and building takes.
#[derive(Clone, Copy)]
pub(crate) struct Workshop<'a> {
    pub(crate) store: &'a Store,
    pub(crate) session: &'a Session,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) index: &'a IndexSettings,
    pub(crate) npm: &'a Npm,
    pub(crate) python: &'a PythonPlaces,
    /// What uv gets of the caller's environment.
    pub(crate) variables: &'a BTreeMap<String, String>,
    pub(crate) offline: bool,
}

impl Workshop<'_> {
    /// A fetched tool in its folder of the store: brought, verified and unpacked if it is not there.
    pub(crate) fn tool(&self, pin: &ToolPin) -> Result<Place, EquipError> {
        let platform = Platform::host();
        let artifact = pin.artifacts.get(&platform).ok_or_else(|| EquipError::NoArtifact {
            name: pin.name.to_string(),
            version: pin.version.to_string(),
            platform,
        })?;
        // A file that is the program itself is put into a folder under the tool's name.
        let alone = RelPath::parse(&pin.name).map(|path| (path, artifact.file.sha256));
        let alone = alone.map_err(|e| EquipError::Index(e.to_string()))?;
        let (program, digest) = artifact.program.as_ref().unwrap_or(&alone);
        let is_build = is_build(pin);
        let key = tree_key(pin, &artifact.file);
        let tree = match kept(self.store, &key)? {
            Some(tree) => tree,
            None => {
                let _lock = self.store.lock(&format!("tool-{key}"), |_| {})?;
                let file = &artifact.file;
                if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                    self.bring_tool(pin, file)?;
                }
                let tree = match artifact.program {
                    Some((ref program, _)) if is_build => self.tree_of_build(file, program)?,
                    Some(_) => self.fetcher.tree_of_archive(self.session, &file.file, (file.sha256, file.size))?,
                    None => self.tree_of_program(program, file)?,
                };
                self.session.replace_result(&key, tree.to_hex().as_bytes())?;
                tree
            }
        };
        let at = self.store.tree(&tree).ok_or(StoreError::Missing(tree))?;
        let listing = self.store.listing(&tree)?;
        let found = listing.iter().flat_map(|l| l.entries()).find(|entry| entry.path == *program);
        match found {
            Some(entry) if entry.sha256 == *digest => Ok(Place { program: program.on(&at), tree: at }),
            found => Err(EquipError::Program {
                name: pin.name.to_string(),
                file: artifact.file.file.clone(),
                expected: *digest,
                found: found.map_or("no such file".to_owned(), |entry| entry.sha256.to_string()),
            }),
        }
    }

    /// Whether the store has a fetched tool, or the file that it comes in.
    fn has_tool(&self, pin: &ToolPin) -> Result<bool, StoreError> {
        let Some(artifact) = pin.artifacts.get(&Platform::host()) else { return Ok(false) };
        let PinnedFile { sha256, size, .. } = &artifact.file;
        Ok(kept(self.store, &tree_key(pin, &artifact.file))?.is_some()
            || self.store.object(sha256, Some(*size))?.is_some())
    }

    /// Brings the file of a tool from where its provider has it.
    fn bring_tool(&self, pin: &ToolPin, file: &PinnedFile) -> Result<(), EquipError> {
        let ToolProvider::Fetched(tool) = &pin.provider else { return Ok(()) };
        match tool.from {
            ToolFrom::Npm if self.offline => {
                let name = format!("{} ({})", pin.name, file.file);
                Err(FetchError::Offline { name, url: String::new() }.into())
            }
            ToolFrom::Npm => {
                let settings = self.npm.settings()?;
                let want = self.fetcher.npm_want(settings, file)?;
                let brought = self.fetcher.bring_all(self.session, &[want]).into_iter().collect::<Result<(), _>>();
                Ok(brought.map_err(|error| self.fetcher.without_registry(error, settings))?)
            }
            ToolFrom::Python => self.bring_build(pin, file),
            _ => match SourceUrl::parse(&file.file) {
                Ok(source) => self.bring_from(&pin.name, source, file),
                Err(_) => self.bring(&[(tool.package.as_deref().unwrap_or(&pin.name), file)], &[]),
            },
        }
    }

    /// Brings a file from its own address.
    fn bring_from(&self, tool: &str, source: SourceUrl, file: &PinnedFile) -> Result<(), EquipError> {
        let content = Wanted::File { sha256: file.sha256, size: file.size };
        let want = Want { name: format!("tool {tool}"), sources: vec![source], content };
        self.fetcher.bring_all(self.session, &[want]).into_iter().try_for_each(|result| Ok(result?))
    }

    /// A folder that holds a program alone.
    fn tree_of_program(&self, name: &RelPath, file: &PinnedFile) -> Result<Digest, EquipError> {
        let at = self.store.object(&file.sha256, Some(file.size))?.ok_or(StoreError::Missing(file.sha256))?;
        let mut tree = self.session.tree()?;
        tree.add_file(name, true, &mut fs_err::File::open(at)?)?;
        Ok(tree.finish(None)?.digest)
    }

    /// Brings files of packages from the index, each verified; those that the store has are left alone.
    /// `names` says which of them come from one index alone.
    fn bring(&self, files: &[(&str, &PinnedFile)], names: &[String]) -> Result<(), EquipError> {
        let mut missing = Vec::new();
        for (package, file) in files {
            if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                missing.push((*package, *file));
            }
        }
        if self.offline && !missing.is_empty() {
            let lacking = missing.iter().map(|(package, file)| Lacking::package(package, file));
            return Err(EquipError::Lacking(lacking.collect()));
        }
        let indexes =
            missing.iter().map(|(package, _)| self.index_of(package, names)).collect::<Result<Vec<_>, EquipError>>()?;
        let questions: Vec<_> =
            indexes.iter().zip(&missing).map(|(index, (package, file))| (index.as_ref(), *package, *file)).collect();
        for result in self.fetcher.bring_all(self.session, &self.fetcher.wants_of_index(&questions)?) {
            result.map_err(|error| self.fetcher.without_index(error, self.index))?;
        }
        Ok(())
    }

    /// Where a package is looked for: `names` says which come from one index alone.
    fn index_of(&self, package: &str, names: &[String]) -> Result<Cow<'_, IndexSettings>, EquipError> {
        index_for(self.index, package, names)
    }
}

/// Where a package is looked for: `names` says which come from one index alone.
pub(crate) fn index_for<'i>(
    all: &'i IndexSettings,
    package: &str,
    names: &[String],
) -> Result<Cow<'i, IndexSettings>, EquipError> {
    let Some(name) = index_of(names, package) else { return Ok(Cow::Borrowed(all)) };
    let (package, index) = (package.to_owned(), name.to_owned());
    all.only(name).map(Cow::Owned).ok_or(EquipError::NoIndex { package, index })
}

/// `1 python package`, `2 python packages`.
fn count(packages: usize) -> String {
    if packages == 1 { "1 python package".to_owned() } else { format!("{packages} python packages") }
}

/// The tree that is kept under a key, if the store has both.
fn kept(store: &Store, key: &Digest) -> Result<Option<Digest>, StoreError> {
    let bytes = store.result(key)?;
    let digest = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<Digest>().ok());
    Ok(digest.filter(|digest| store.has_tree(digest)))
}

/// What the tree of a tool's archive is kept under.
fn tree_key(pin: &ToolPin, file: &PinnedFile) -> Digest {
    let what = if is_build(pin) { "a python build 2" } else { "an archive 1" };
    Digest::of(format!("trainlock tree of {what}\n{}\n", file.sha256).as_bytes())
}

/// Whether a tool is a build of the Python interpreter.
fn is_build(pin: &ToolPin) -> bool {
    matches!(&pin.provider, ToolProvider::Fetched(tool) if tool.from == ToolFrom::Python)
}

/// Whether steps in an image have a tool, too. An image has its own programs: this machine's would not find their libraries in it, and
/// neither would an interpreter that is in need of a C library of a certain kind.
fn goes_into_images(pin: Option<&ToolPin>) -> bool {
    pin.is_some_and(|pin| pin.artifacts.contains_key(&Platform::host()) && !is_build(pin))
}

/// The digests of all that a lock's tools and packages keep in the store of this machine, and the keys that lead to them.
pub(crate) fn live(lock: &Lock, store: &Store, live: &mut trainlock_store::Live) -> Result<(), Failure> {
    let mut keys = Vec::new();
    for pin in &lock.tools {
        live.objects.extend(pin.artifacts.values().map(|a| a.file.sha256));
        keys.extend(pin.artifacts.values().map(|a| tree_key(pin, &a.file)));
    }
    for pin in &lock.packages {
        live.objects.extend(pin.wheels.iter().chain(&pin.source).map(|file| file.sha256));
    }
    for python in &lock.python {
        let member = python.member.as_ref();
        let interpreter = lock.tools.iter().find(|pin| pin.member.as_ref() == member && is_python(&pin.name));
        let resolver = lock.tools.iter().find(|pin| pin.name.as_str() == UV);
        let (Some(interpreter), Some(resolver)) = (interpreter, resolver) else { continue };
        let version = interpreter.version.to_string();
        if let Ok(selected) = selected(lock, python, &version) {
            keys.push(packages_key(&version, resolver, &selected));
            let (interpreter, resolver) = (interpreter_key(&version), resolver.version.to_string());
            keys.extend(selected.iter().map(|s| piece_key(&interpreter, &resolver, &s.file)));
        }
    }
    for (digest, size) in lock.images.iter().filter_map(|pin| pin.platforms.get(&Platform::host())) {
        live.objects.extend(image_parts(store, (*digest, *size)).into_iter().map(|(digest, _)| digest));
        keys.push(image_key(digest));
    }
    for key in keys {
        live.objects.extend(kept(store, &key)?);
        live.results.insert(key);
    }
    Ok(())
}

/// The machine's interpreter of exactly the locked version.
pub(crate) fn host_python(host: &mut HostTools, request: &ToolRequest, wanted: &str) -> Result<HostTool, EquipError> {
    let request = on_host(request);
    let found = match host.get(&request) {
        Ok(found) if found.version != wanted => host.ask(&request),
        other => other,
    };
    match found {
        Ok(found) if found.version == wanted => Ok(found),
        Ok(found) => Err(EquipError::Interpreter {
            wanted: wanted.to_owned(),
            found: format!("{} is {}", found.found.display(), found.version),
        }),
        Err(error) => Err(EquipError::Interpreter { wanted: wanted.to_owned(), found: error.to_string() }),
    }
}

/// The same tool, asked of the machine.
pub(crate) fn on_host(request: &ToolRequest) -> ToolRequest {
    let provider = ToolProvider::Host { probe: Vec::new(), accept: ToolMatch::Version };
    ToolRequest { provider, ..request.clone() }
}

/// Tools, and the packages of each `[python]`.
pub(crate) type EquipmentFiles<'l> = (Vec<&'l ToolPin>, Vec<(&'l PythonPin, Vec<trainlock_env::python::Selected>)>);

impl Project {
    /// What the steps of a plan are equipped with, as far as that can be known without bringing anything; each tool of the
    /// machine is checked against the lock.
    pub(crate) fn equipment(
        &mut self,
        lock: &Lock,
        plan: &Plan<'_>,
        profile: Option<&str>,
    ) -> Result<Equipments, Failure> {
        self.equipment_of(lock, plan.nodes.iter().map(|node| (node.member, node.step.image.as_ref())), profile)
    }

    /// The same for members, and images that steps of theirs have.
    pub(crate) fn equipment_of<'m>(
        &mut self,
        lock: &Lock,
        outfits: impl Iterator<Item = (&'m Member, Option<&'m ImageReference>)>,
        profile: Option<&str>,
    ) -> Result<Equipments, Failure> {
        let mut all = Equipments::new();
        let mut problems = Vec::new();
        let mut unverified = false;
        for (of, image) in outfits {
            let outfit = (of.name.clone(), image.cloned());
            if all.contains_key(&outfit) {
                continue;
            }
            let mut equipment = Equipment::default();
            // It is not locked yet where it has no pin: `status` says so.
            if let Some(pin) = image.and_then(|image| lock.image(image)) {
                match pin.platforms.get(&Platform::host()) {
                    Some((digest, _)) => {
                        let (reference, digest, place) = (pin.reference.clone(), *digest, OnceLock::new());
                        equipment.image = Some(Image { reference, digest, place });
                    }
                    None => problems.extend(Failure::from(EquipError::NoImage(pin.reference.to_string())).problems),
                }
            }
            for tool in &of.tools {
                let request = &tool.request;
                let pin = lock.tool(request.member.as_ref(), &request.name);
                let found = match (&request.provider, pin) {
                    _ if image.is_some() && !goes_into_images(pin) => continue,
                    (ToolProvider::Host { accept, .. }, pin) => self.host_tool(request, *accept, pin),
                    // It is not locked yet: `status` says so.
                    (ToolProvider::Fetched(_), None) => continue,
                    (ToolProvider::Fetched(fetched), Some(pin)) => {
                        let artifact = pin.artifacts.get(&Platform::host());
                        match artifact {
                            Some(artifact) => {
                                let digest =
                                    artifact.program.as_ref().map_or(artifact.file.sha256, |(_, digest)| *digest);
                                let version = pin.version.to_string();
                                let (place, stand_in) = (OnceLock::new(), OnceLock::new());
                                Ok(Tool::Fetched(FetchedTool { version, digest, place, stand_in }))
                            }
                            None if fetched.from == ToolFrom::Python => {
                                host_python(&mut self.host, request, &pin.version.to_string())
                                    .map(Tool::Host)
                                    .map_err(Failure::from)
                            }
                            None => Err(EquipError::NoArtifact {
                                name: request.name.to_string(),
                                version: pin.version.to_string(),
                                platform: Platform::host(),
                            }
                            .into()),
                        }
                    }
                };
                match found {
                    Ok(found) => equipment.tools.push((request.name.clone(), found)),
                    Err(failure) => {
                        unverified |= failure.code == Exit::Unverified;
                        problems.extend(failure.problems);
                    }
                }
            }
            let member = (!of.dir.is_root()).then_some(&of.name);
            if image.is_none()
                && let (Some(pin), Some(python)) = (lock.python_under(member, profile), equipment.python())
            {
                match selected(lock, pin, python.version()) {
                    Ok(selected) => {
                        let (index, environment) = (pin.index.clone(), OnceLock::new());
                        equipment.packages = Some(Packages { selected, index, environment });
                    }
                    Err(error) => problems.extend(Failure::from(EquipError::from(error)).problems),
                }
            }
            all.insert(outfit, equipment);
        }
        if self.own_folder().is_ok() {
            self.host.save();
        }
        if problems.is_empty() {
            return Ok(all);
        }
        Err(Failure { code: if unverified { Exit::Unverified } else { Exit::Failed }, problems })
    }

    /// A tool of the machine, as the lock has it.
    fn host_tool(&mut self, request: &ToolRequest, accept: ToolMatch, pin: Option<&ToolPin>) -> Result<Tool, Failure> {
        let good = |here: &HostTool| {
            pin.is_none_or(|pin| match accept {
                ToolMatch::Version => here.version == pin.version.to_string(),
                ToolMatch::Requirement => here.version.parse().is_ok_and(|v| request.requirement.matches(&v)),
            })
        };
        // What is remembered may be older than the user's last `pyenv global`.
        let here = match self.host.get(request) {
            Ok(here) if !good(&here) => self.host.ask(request),
            other => other,
        };
        let here = here.map_err(|error| Failure::from_error(Exit::Failed, &error))?;
        let Some(pin) = pin.filter(|_| !good(&here)) else { return Ok(Tool::Host(here)) };
        let wanted = match accept {
            ToolMatch::Version => format!("train.lock has {}", pin.version),
            ToolMatch::Requirement => {
                format!("train.lock wants {} (and was made with {})", request.version, pin.version)
            }
        };
        let name = &request.name;
        let problem = Problem::Plain {
            message: format!("tool `{name}` is {} on this machine; {wanted}", here.version),
            causes: vec![format!("it was found at {}", here.found.display())],
            hints: vec![format!(
                "put the wanted version first on PATH, or lock the one that is here: trainlock update {name}"
            )],
        };
        Err(Failure { code: Exit::Unverified, problems: vec![problem] })
    }

    /// Brings and builds what these members' steps are equipped with, where that has not been done.
    pub(crate) fn equip(
        &self,
        lock: &Lock,
        equipment: &Equipments,
        outfits: &BTreeSet<Outfit>,
        (offline, engine): (bool, Option<&Engine>),
        ui: &Ui,
    ) -> Result<(), Failure> {
        let open: Vec<(&Outfit, &Equipment)> =
            equipment.iter().filter(|(outfit, _)| outfits.contains(outfit)).filter(|(_, e)| !e.is_ready()).collect();
        if open.is_empty() {
            return Ok(());
        }
        // Without a network nobody is asked.
        let index = if offline { self.package_index().unwrap_or_default() } else { self.package_index()? };
        let session = self.store.session()?;
        let (events, display) = ui.events();
        let fetcher = Fetcher::new(self.fetch_settings(offline), events);
        let workshop = self.workshop(&session, &fetcher, &index, offline);
        let mut built = 0;
        let mut lack = Lack::default();
        for ((name, _), equipment) in open {
            let member = self.workspace.members.iter().find(|m| m.name == *name);
            let member = member.filter(|m| !m.dir.is_root()).map(|m| &m.name);
            for (tool, here) in &equipment.tools {
                if let (Tool::Fetched(fetched), Some(pin)) = (here, lock.tool(member, tool))
                    && here.program().is_none()
                {
                    match lack.keep(self.tool_or_host(&workshop, pin, ui))? {
                        Some(Ok(place)) => drop(fetched.place.set(place)),
                        Some(Err(host)) => drop(fetched.stand_in.set(host)),
                        None => {}
                    }
                }
            }
            if let Some(image) = equipment.image.as_ref().filter(|image| image.place.get().is_none()) {
                let pin = lock.image(&image.reference);
                let Some(manifest) = pin.and_then(|pin| pin.platforms.get(&Platform::host())) else { continue };
                let brought = workshop.image(&image.reference, *manifest, ui).map_err(Failure::from);
                let Some(mut place) = lack.keep(brought)? else { continue };
                if let Some(engine) = engine {
                    place.handed = Some(self.handed_over(engine, &image.reference, *manifest, offline, ui)?);
                }
                let _ = image.place.set(place);
            }
            let (Some(packages), Some(python)) = (&equipment.packages, equipment.python()) else { continue };
            let Some(resolver) = lock.tools.iter().find(|pin| pin.name.as_str() == UV) else {
                return Err(Failure::new(Exit::Failed, "train.lock names no uv to install python packages with")
                    .hint("run `trainlock lock`"));
            };
            let interpreter = python.program().map(Path::to_owned).unwrap_or_default();
            let key = packages_key(python.version(), resolver, &packages.selected);
            if kept(&self.store, &key)?.is_none() {
                // Those that were installed for other sets of packages are linked.
                let (interpreter, uv) = (interpreter_key(python.version()), resolver.version.to_string());
                let mut new: Vec<(&str, &PinnedFile)> = Vec::new();
                for one in &packages.selected {
                    if kept(&self.store, &piece_key(&interpreter, &uv, &one.file))?.is_none() {
                        new.push((&one.name, &one.file));
                    }
                }
                if offline {
                    lack.keep(self.tool_or_host(&workshop, resolver, ui))?;
                    lack.keep(workshop.bring(&new, &packages.index).map_err(Failure::from))?;
                }
                // There will be no environment to build.
                if !lack.is_empty() {
                    continue;
                }
                if !new.is_empty() {
                    let bytes = HumanSize(new.iter().map(|(_, file)| file.size).sum());
                    ui.note("Installing", format!("{} ({bytes})", count(new.len())));
                    built += new.len();
                }
            }
            let environment = workshop.environment(packages, &interpreter, python.version(), resolver)?;
            let _ = packages.environment.set(environment);
        }
        drop((fetcher, display));
        session.finish(false)?;
        lack.done()?;
        if built > 0 {
            ui.status("Installed", format!("{} as locked", count(built)));
        }
        Ok(())
    }

    /// All that fetching and building takes, for one command.
    pub(crate) fn workshop<'a>(
        &'a self,
        session: &'a Session,
        fetcher: &'a Fetcher,
        index: &'a IndexSettings,
        offline: bool,
    ) -> Workshop<'a> {
        let (python, variables) = (&self.settings.python, &self.settings.uv_variables);
        Workshop { store: &self.store, session, fetcher, index, npm: &self.npm, python, variables, offline }
    }

    /// Brings into the store what steps of these members are equipped with on this machine, under any profile; nothing is installed.
    pub(crate) fn bring_equipment(
        &self,
        lock: &Lock,
        members: &[usize],
        offline: bool,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let (tools, packages) = self.equipment_files(lock, members)?;
        let mut missing = BTreeMap::new();
        for file in packages.iter().flat_map(|(_, selected)| selected).map(|s| &s.file) {
            if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                missing.insert(file.sha256, file.size);
            }
        }
        let images = self.images(lock, members);
        if tools.is_empty() && packages.is_empty() && images.is_empty() {
            return Ok(());
        }
        let what = format!("{} ({})", count(missing.len()), HumanSize(missing.values().sum()));
        if !missing.is_empty() {
            ui.note("Fetching", &what);
        }
        // Without a network nobody is asked.
        let index = if offline { self.package_index().unwrap_or_default() } else { self.package_index()? };
        let session = self.store.session()?;
        {
            let (events, _display) = ui.events();
            let fetcher = Fetcher::new(self.fetch_settings(offline), events);
            let workshop = self.workshop(&session, &fetcher, &index, offline);
            let mut lack = Lack::default();
            for pin in tools {
                lack.keep(self.tool_or_host(&workshop, pin, ui))?;
            }
            for (image, manifest) in images {
                lack.keep(workshop.image(image, manifest, ui).map_err(Failure::from))?;
            }
            for (pin, selected) in &packages {
                let files: Vec<(&str, &PinnedFile)> = selected.iter().map(|s| (s.name.as_str(), &s.file)).collect();
                lack.keep(workshop.bring(&files, &pin.index).map_err(Failure::from))?;
            }
            lack.done()?;
        }
        session.finish(false)?;
        if !missing.is_empty() {
            ui.status("Verified", &what);
        }
        Ok(())
    }

    /// The tools and packages of members that come in files for this machine.
    pub(crate) fn equipment_files<'l>(&self, lock: &'l Lock, members: &[usize]) -> Result<EquipmentFiles<'l>, Failure> {
        let members: Vec<&Member> = members.iter().map(|i| &self.workspace.members[*i]).collect();
        let names: BTreeSet<Option<&Name>> = members.iter().map(|m| (!m.dir.is_root()).then_some(&m.name)).collect();
        let python: Vec<&PythonPin> = lock.python.iter().filter(|pin| names.contains(&pin.member.as_ref())).collect();
        let is_for_python = |pin: &ToolPin| !python.is_empty() && pin.name.as_str() == UV;
        let host = Platform::host();
        let tools = lock
            .tools
            .iter()
            .filter(|pin| names.contains(&pin.member.as_ref()) || is_for_python(pin))
            .filter(|pin| pin.artifacts.contains_key(&host))
            .collect();
        let mut packages = Vec::new();
        for pin in python {
            let of_member = |tool: &&ToolPin| tool.member == pin.member && is_python(&tool.name);
            let Some(interpreter) = lock.tools.iter().find(of_member) else { continue };
            let selected = selected(lock, pin, &interpreter.version.to_string()).map_err(EquipError::from)?;
            packages.push((pin, selected));
        }
        Ok((tools, packages))
    }
}
