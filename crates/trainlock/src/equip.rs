//! What a member's steps are equipped with: tools and python packages, found, fetched, verified and built.

use crate::exit::{Exit, Failure, Problem};
use crate::project::{self, Project};
use crate::ui::Ui;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use trainlock_env::python::{
    Candidate, Environment, Installed, Locked, LockedFile, PythonError, SelectError, Selected, Target, Uv,
    environment_key, piece_key, pieces,
};
use trainlock_env::{Equipment, FetchedTool, HostTool, HostTools, Machine, Packages, Place, Tool, ToolError};
use trainlock_fetch::{FetchError, Fetcher, IndexSettings, ToolFetchError};
use trainlock_lock::{Lock, PackagePin, PythonPin, ToolPin};
use trainlock_manifest::{Member, Workspace};
use trainlock_resolve::{PythonAnswer, ResolveWith};
use trainlock_run::Plan;
use trainlock_store::{PutError, Session, Store, StoreError, Tree};
use trainlock_types::{
    Digest, HumanSize, Listing, Name, PinnedFile, Platform, PythonRequest, ToolFrom, ToolMatch, ToolProvider,
    ToolRequest, WheelName, index_of, is_python, normalized_package, requirement_name,
};

/// What each member's steps are equipped with.
pub(crate) type Equipments = BTreeMap<Name, Equipment>;

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
    #[error("{0}")]
    Index(String),
    #[error("no Python {wanted} on this machine: {found}")]
    Interpreter { wanted: String, found: String },
    #[error("package {package} {version} has no wheel for {platform}")]
    NoWheel { package: String, version: String, platform: Platform },
    #[error("package {package} comes from the package index `{index}`, and the configuration names no such index")]
    NoIndex { package: String, index: String },
    #[error("`{package}` {version} is needed by packages that are asked for with hashes, and is not named itself")]
    Unhashed { package: String, version: String },
    #[error("none of the hashes that `{package}` is asked for with is that of a file of version {version}")]
    Hashes { package: String, version: String },
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
            EquipError::Interpreter { wanted, .. } => Some(format!(
                "install Python {wanted} (`uv python install {wanted}`, pyenv, or your system's packages) so that it is on PATH, or move the lock to the one that is here: trainlock update python"
            )),
            EquipError::NoWheel { package, .. } => Some(format!(
                "take the platform out of [workspace] platforms, restrict the requirement (`{package}; sys_platform == \"linux\"`), take another version, or allow to build it: sdist = [\"{package}\"]"
            )),
            EquipError::Python { source: PythonError::Uv(text), .. } if text.contains("Failed to build") => Some(
                "a source distribution is built by what is locked beside it: add what its build needs to the requirements (often `setuptools`), or take a version with a wheel".to_owned(),
            ),
            EquipError::NoIndex { index, .. } => Some(format!(
                "add it to trainlock's configuration (`index.{index} = \"https://…\"`) or to uv's (`[[index]]` with this name in uv.toml, `UV_INDEX={index}=https://…`)"
            )),
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
            EquipError::Python { source: PythonError::Uv(text), .. } => text,
            EquipError::NoWheel { package, .. }
            | EquipError::NoIndex { package, .. }
            | EquipError::Unhashed { package, .. }
            | EquipError::Hashes { package, .. } => package,
            _ => return BTreeSet::new(),
        };
        let inner = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        text.split(inner).map(|word| normalized_package(word.trim_matches('.'))).collect()
    }
}

impl From<EquipError> for Failure {
    fn from(error: EquipError) -> Failure {
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
        let (program, digest) = artifact.program.as_ref().ok_or_else(|| EquipError::NoArtifact {
            name: pin.name.to_string(),
            version: pin.version.to_string(),
            platform,
        })?;
        let key = tree_key(&artifact.file);
        let tree = match kept(self.store, &key)? {
            Some(tree) => tree,
            None => {
                let _lock = self.store.lock(&format!("tool-{key}"), |_| {})?;
                let file = &artifact.file;
                if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                    let package = match &pin.provider {
                        ToolProvider::Fetched(tool) => tool.package.clone().unwrap_or_else(|| pin.name.to_string()),
                        ToolProvider::Host { .. } => pin.name.to_string(),
                    };
                    self.bring(&[(&package, file)], &[])?;
                }
                let tree = self.fetcher.tree_of_archive(self.session, &file.file, (file.sha256, file.size))?;
                self.session.put_result(&key, tree.to_hex().as_bytes())?;
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

    /// Brings files of packages from the index, each verified; those that the store has are left alone.
    /// `names` says which of them come from one index alone.
    fn bring(&self, files: &[(&str, &PinnedFile)], names: &[String]) -> Result<(), EquipError> {
        let mut missing = Vec::new();
        for (package, file) in files {
            if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                missing.push((*package, *file));
            }
        }
        if self.offline
            && let Some((package, file)) = missing.first()
        {
            return Err(FetchError::Offline { name: format!("{package} ({})", file.file), url: String::new() }.into());
        }
        let indexes =
            missing.iter().map(|(package, _)| self.index_of(package, names)).collect::<Result<Vec<_>, EquipError>>()?;
        let questions: Vec<_> =
            indexes.iter().zip(&missing).map(|(index, (package, file))| (index.as_ref(), *package, *file)).collect();
        let wants: Result<Vec<_>, FetchError> = self.fetcher.wants_of_index(&questions).into_iter().collect();
        for result in self.fetcher.bring_all(self.session, &wants?) {
            result.map_err(|error| self.fetcher.without_index(error, self.index))?;
        }
        Ok(())
    }

    /// Where a package is looked for: `names` says which come from one index alone.
    fn index_of(&self, package: &str, names: &[String]) -> Result<Cow<'_, IndexSettings>, EquipError> {
        let Some(name) = index_of(names, package) else { return Ok(Cow::Borrowed(self.index)) };
        let (package, index) = (package.to_owned(), name.to_owned());
        self.index.only(name).map(Cow::Owned).ok_or(EquipError::NoIndex { package, index })
    }

    /// Digests and sizes of files of which uv did not say both: of indexes that do not state them. What no index states is that of the
    /// bytes that come first.
    fn unstated<'f>(
        &self,
        package: &str,
        names: &[String],
        files: impl Iterator<Item = &'f LockedFile>,
    ) -> Result<BTreeMap<String, (Digest, u64)>, EquipError> {
        let open: Vec<&LockedFile> = files.filter(|file| file.size.is_none() || file.sha256.is_none()).collect();
        let mut found = BTreeMap::new();
        if open.is_empty() {
            return Ok(found);
        }
        let index = self.index_of(package, names)?;
        let listed = self.fetcher.index_files(&index, package)?;
        for file in open {
            let listed = listed.iter().find(|f| f.file == file.file).ok_or_else(|| {
                EquipError::Index(format!("the package index does not have {} of package {package}", file.file))
            })?;
            let fact = match (file.sha256.or(listed.sha256), file.size.or(listed.size)) {
                (Some(sha256), Some(size)) => (sha256, size),
                (sha256, _) => self.fetcher.fetched_file(self.session, listed, sha256, &index)?,
            };
            found.insert(file.file.clone(), fact);
        }
        Ok(found)
    }

    /// uv, for this interpreter.
    pub(crate) fn uv<'u>(&'u self, place: &'u Place, interpreter: &'u Path, cache: &'u Path) -> Uv<'u> {
        Uv {
            program: &place.program,
            interpreter,
            cache,
            indexes: self.index.addresses().map(str::to_owned).collect(),
            named: BTreeMap::new(),
            variables: self.variables.clone(),
            offline: self.offline,
        }
    }

    /// Installs packages, or finds them installed.
    fn environment(
        &self,
        packages: &Packages,
        interpreter: &Path,
        version: &str,
        resolver: &ToolPin,
    ) -> Result<Environment, EquipError> {
        let line = version.split('.').take(2).collect::<Vec<_>>().join(".");
        let selected = &packages.selected;
        let key = packages_key(version, resolver, selected);
        let environment = |tree: &Digest| -> Result<Environment, EquipError> {
            let packages = self.store.tree(tree).ok_or(StoreError::Missing(*tree))?;
            Ok(Environment { interpreter: interpreter.to_owned(), line: line.clone(), packages })
        };
        if let Some(tree) = kept(self.store, &key)? {
            return environment(&tree);
        }
        let _lock = self.store.lock(&format!("packages-{key}"), |_| {})?;
        if let Some(tree) = kept(self.store, &key)? {
            return environment(&tree);
        }
        // What was installed once is put together with what was not.
        let (interpreter_key, resolver_key) = (interpreter_key(version), resolver.version.to_string());
        let wheel_key = |file: &PinnedFile| piece_key(&interpreter_key, &resolver_key, file);
        let mut parts = Vec::new();
        let mut open: Vec<&Selected> = Vec::new();
        for one in selected {
            match kept(self.store, &wheel_key(&one.file))?
                .and_then(|tree| self.store.listing(&tree).transpose().map(|l| (tree, l)))
            {
                Some((tree, listing)) => parts.push((tree, listing?)),
                None => open.push(one),
            }
        }
        // What is built may need all others.
        if open.iter().any(|one| !one.file.file.ends_with(".whl")) {
            parts.clear();
            open = selected.iter().collect();
        }
        let place = self.tool(resolver)?;
        let scratch = self.session.work_dir("python")?;
        let cache = scratch.join("cache");
        let uv = Uv { offline: true, ..self.uv(&place, interpreter, &cache) };
        let failed = |source| self.python("install the python packages", source);
        if !open.is_empty() {
            let (tree, own) = self.install(&uv, &scratch, &line, &open, &packages.index)?;
            for one in &open {
                if let Some(listing) = own.get(&one.name).filter(|_| one.file.file.ends_with(".whl")) {
                    let piece = self.session.tree_from_trees(&[(tree.digest, listing.clone())])?.digest;
                    self.session.put_result(&wheel_key(&one.file), piece.to_hex().as_bytes())?;
                }
            }
            parts.push((tree.digest, tree.listing));
        }
        let tree = match &parts[..] {
            [] => self.session.take_tree(&self.session.work_dir("nothing")?)?.digest,
            [(tree, _)] => *tree,
            parts => match self.session.tree_from_trees(parts) {
                Ok(tree) => tree.digest,
                // Packages that write the same file are installed in one go.
                Err(PutError::Twice(_) | PutError::Collision(..)) => {
                    let all: Vec<&Selected> = selected.iter().collect();
                    let scratch = self.session.work_dir("python")?;
                    let tree = self.install(&uv, &scratch, &line, &all, &packages.index)?.0.digest;
                    self.session.discard(&scratch)?;
                    tree
                }
                Err(error) => return Err(error.into()),
            },
        };
        let found = environment(&tree)?;
        uv.check(&found, &scratch.join("check")).map_err(failed)?;
        self.session.put_result(&key, tree.to_hex().as_bytes())?;
        self.session.discard(&scratch)?;
        Ok(found)
    }

    /// Brings and installs packages; the tree of all, and the files of each.
    fn install(
        &self,
        uv: &Uv<'_>,
        scratch: &Path,
        line: &str,
        open: &[&Selected],
        names: &[String],
    ) -> Result<(Tree, BTreeMap<String, Listing>), EquipError> {
        let files: Vec<(&str, &PinnedFile)> = open.iter().map(|s| (s.name.as_str(), &s.file)).collect();
        self.bring(&files, names)?;
        let mut paths = Vec::new();
        for (_, file) in &files {
            let at = self.store.object(&file.sha256, Some(file.size))?.ok_or(StoreError::Missing(file.sha256))?;
            paths.push(at);
        }
        let installed: Vec<Installed<'_>> = open
            .iter()
            .zip(&paths)
            .map(|(s, at)| Installed { name: &s.name, version: &s.version, file: &s.file, at })
            .collect();
        let to = scratch.join("environment");
        uv.install(scratch, &to, line, &installed).map_err(|e| self.python("install the python packages", e))?;
        // What is installed is linked to the cache, and is to stand for itself.
        self.session.discard(uv.cache)?;
        let tree = self.session.take_tree(&to)?;
        let at = self.store.tree(&tree.digest).ok_or(StoreError::Missing(tree.digest))?;
        let own = pieces(&at, line, &tree.listing)?;
        Ok((tree, own))
    }

    /// uv's error without an index's address.
    pub(crate) fn python(&self, what: &'static str, source: PythonError) -> EquipError {
        let source = match source {
            PythonError::Uv(text) => PythonError::Uv(self.index.redact(&text)),
            other => other,
        };
        EquipError::Python { what, source }
    }
}

/// The tree that is kept under a key, if the store has both.
fn kept(store: &Store, key: &Digest) -> Result<Option<Digest>, StoreError> {
    let bytes = store.result(key)?;
    let digest = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<Digest>().ok());
    Ok(digest.filter(|digest| store.has_tree(digest)))
}

/// What the tree of an archive is kept under.
fn tree_key(file: &PinnedFile) -> Digest {
    Digest::of(format!("trainlock tree of an archive 1\n{}\n", file.sha256).as_bytes())
}

/// The interpreter and the machine that packages are installed for.
fn interpreter_key(version: &str) -> String {
    format!("cpython {version} {} {}", Platform::host(), Machine::libc_here())
}

/// What installed packages are kept under.
fn packages_key(version: &str, resolver: &ToolPin, selected: &[Selected]) -> Digest {
    environment_key(&interpreter_key(version), &resolver.version.to_string(), selected.iter().map(|s| &s.file))
}

/// The locked packages of a member (or of one of its profiles) that are for this machine.
fn selected(lock: &Lock, python: &PythonPin, version: &str) -> Result<Vec<Selected>, SelectError> {
    let target = Target::new(Platform::host(), &Machine::libc_here(), version)?;
    target.select(lock.packages(python.member.as_ref(), python.profile.as_ref()).map(candidate))
}

/// A locked package, for choosing a file.
pub(crate) fn candidate(pin: &PackagePin) -> Candidate<'_> {
    Candidate {
        name: &pin.name,
        version: &pin.version,
        marker: pin.marker.as_deref(),
        wheels: &pin.wheels,
        source: pin.source.as_ref(),
    }
}

/// The digests of all that a lock's tools and packages keep in the store of this machine, and the keys that lead to them.
pub(crate) fn live(lock: &Lock, store: &Store, live: &mut trainlock_store::Live) -> Result<(), Failure> {
    let mut keys = Vec::new();
    for pin in &lock.tools {
        live.objects.extend(pin.artifacts.values().map(|a| a.file.sha256));
        keys.extend(pin.artifacts.values().map(|a| tree_key(&a.file)));
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

/// Resolves python packages: by uv, of the locked version, with the locked interpreter.
pub(crate) fn resolve_packages(
    workshop: &Workshop<'_>,
    host: &mut HostTools,
    workspace: &Workspace,
    request: &PythonRequest,
    with: &ResolveWith<'_>,
    cache: &Path,
) -> Result<PythonAnswer, EquipError> {
    let version = with.interpreter.version.to_string();
    let of_member =
        |m: &&Member| if m.dir.is_root() { request.member.is_none() } else { request.member.as_ref() == Some(&m.name) };
    let tools = workspace.members.iter().find(of_member).map(|m| m.tools.as_slice()).unwrap_or_default();
    let tool = tools.iter().find(|tool| tool.request.name == with.interpreter.name);
    let interpreter = match tool.map(|tool| &tool.request) {
        Some(tool) => host_python(host, tool, &version)?.program,
        None => return Err(EquipError::Interpreter { wanted: version, found: "[tools] names none".to_owned() }),
    };
    let place = workshop.tool(with.resolver)?;
    let mut uv = workshop.uv(&place, &interpreter, cache);
    for line in &request.index {
        let Some((package, name)) = line.split_once(' ') else { continue };
        let (package, index) = (package.to_owned(), name.to_owned());
        let (url, login) = workshop.index.for_uv(name).ok_or(EquipError::NoIndex { package, index })?;
        uv.named.insert(name.to_owned(), url);
        uv.variables.extend(login);
    }
    let scratch = workshop.session.work_dir("resolve")?;
    let line = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let keep: Vec<(String, String)> = with.keep.iter().map(|p| (p.name.to_string(), p.version.clone())).collect();
    let found = match &request.taken {
        Some(taken) => {
            let text = fs_err::read_to_string(taken.file.on(&workspace.root))?;
            uv.take_over(&scratch, taken, &text).map_err(|source| workshop.python("take them over", source))?
        }
        None => uv
            .resolve(&scratch, request, &line, &keep, with.exclude_newer)
            .map_err(|source| workshop.python("resolve them", source))?,
    };
    workshop.session.discard(&scratch)?;
    pins(workshop, request, &line, found)
}

/// What uv found, as pins: the files of the wanted platforms, those that the request's hashes allow.
fn pins(
    workshop: &Workshop<'_>,
    request: &PythonRequest,
    line: &str,
    found: Vec<Locked>,
) -> Result<PythonAnswer, EquipError> {
    let mut hashes: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    for text in request.dependencies.iter().chain(&request.constraints) {
        let digests = text.split(" --hash=sha256:").skip(1).filter_map(|hex| hex.trim().parse::<Digest>().ok());
        hashes.entry(requirement_name(text)).or_default().extend(digests);
    }
    let all_hashed = request.dependencies.iter().any(|text| text.contains(" --hash="));
    let cp = format!("cp{}", line.replace('.', ""));
    let mut packages = Vec::new();
    let mut newest: Option<String> = None;
    let mut dated = true;
    for package in found {
        // Of a lock that was made for several versions of Python.
        if package.marker.as_ref().is_some_and(|marker| nowhere(marker, &request.platforms, line)) {
            continue;
        }
        if all_hashed && hashes.get(&package.name).is_none_or(BTreeSet::is_empty) {
            return Err(EquipError::Unhashed { package: package.name, version: package.version });
        }
        let allowed = hashes.get(&package.name).filter(|set| !set.is_empty());
        let allows =
            |file: &&LockedFile| allowed.is_none_or(|set| file.sha256.is_some_and(|sha256| set.contains(&sha256)));
        let fits = |file: &&LockedFile| {
            WheelName::parse(&file.file).is_some_and(|wheel| {
                let interpreter =
                    wheel.python.iter().any(|tag| tag.starts_with("py") || *tag == cp || wheel.abi.contains(&"abi3"));
                interpreter && request.platforms.iter().any(|platform| wheel.is_for(*platform))
            })
        };
        let mut wheels: Vec<&LockedFile> = package.wheels.iter().filter(fits).filter(allows).collect();
        let may_build = request.sdist.binary_search(&package.name).is_ok();
        let source = package.sdist.iter().filter(allows).find(|_| may_build);
        if wheels.is_empty() && source.is_none() && allowed.is_some() {
            return Err(EquipError::Hashes { package: package.name, version: package.version });
        }
        wheels.sort_by(|a, b| a.file.cmp(&b.file));
        let unstated = workshop.unstated(&package.name, &request.index, wheels.iter().copied().chain(source))?;
        for file in wheels.iter().copied().chain(source) {
            match &file.uploaded {
                Some(time) if newest.as_ref().is_none_or(|n| n < time) => newest = Some(time.clone()),
                Some(_) => {}
                None => dated = false,
            }
        }
        let name = Name::entry(&package.name).map_err(|e| EquipError::Index(e.to_string()))?;
        let pin = PackagePin {
            member: request.member.clone(),
            profile: request.profile.clone(),
            name,
            version: package.version,
            marker: package.marker.filter(|marker| !everywhere(marker, &request.platforms, line)),
            wheels: wheels.iter().filter_map(|file| file.pinned(&unstated)).collect(),
            source: source.and_then(|file| file.pinned(&unstated)),
            extra: String::new(),
        };
        for platform in &request.platforms {
            // The newest libc that there is: whether a machine's own is new enough only that machine can say.
            let libc = match platform {
                Platform::LinuxAarch64 | Platform::LinuxX86_64 => "glibc 2.99",
                Platform::MacosAarch64 | Platform::MacosX86_64 => "macOS 99.0",
            };
            let target = Target::new(*platform, libc, &format!("{line}.0"))?;
            if let Err(SelectError::NoFile { .. }) = target.select([candidate(&pin)]) {
                let (package, version) = (pin.name.to_string(), pin.version);
                return Err(EquipError::NoWheel { package, version, platform: *platform });
            }
        }
        packages.push(pin);
    }
    // What is taken over was resolved by another tool, at a time of its own.
    Ok(PythonAnswer { packages, exclude_newer: newest.filter(|_| dated && request.taken.is_none()) })
}

/// Whether a marker holds on no platform, for any release of this line of Python.
fn nowhere(marker: &str, platforms: &[Platform], line: &str) -> bool {
    let fails = |platform: &Platform, release: &str| {
        let target = Target::new(*platform, "glibc 2.99", &format!("{line}.{release}")).ok()?;
        target.holds(marker).map(|holds| !holds)
    };
    platforms.iter().all(|platform| ["0", "99"].iter().all(|release| fails(platform, release) == Some(true)))
}

/// Whether a marker holds on all platforms, so that it says nothing.
fn everywhere(marker: &str, platforms: &[Platform], line: &str) -> bool {
    let holds = |platform: &Platform| {
        let target = Target::new(*platform, "glibc 2.99", &format!("{line}.0")).ok()?;
        target.holds(marker)
    };
    !marker.contains("python_full_version") && platforms.iter().all(|platform| holds(platform) == Some(true))
}

impl Project {
    /// What the steps of a plan are equipped with, as far as that can be known without bringing anything; each tool of the
    /// machine is checked against the lock.
    pub(crate) fn equipment(
        &mut self,
        lock: &Lock,
        plan: &Plan<'_>,
        profile: Option<&str>,
    ) -> Result<Equipments, Failure> {
        let mut all = Equipments::new();
        let mut problems = Vec::new();
        let mut unverified = false;
        for node in &plan.nodes {
            if all.contains_key(&node.member.name) {
                continue;
            }
            let mut equipment = Equipment::default();
            for tool in &node.member.tools {
                let request = &tool.request;
                let pin = lock.tool(request.member.as_ref(), &request.name);
                let found = match (&request.provider, pin) {
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
                                Ok(Tool::Fetched(FetchedTool { version, digest, place: OnceLock::new() }))
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
            let member = (!node.member.dir.is_root()).then_some(&node.member.name);
            if let (Some(pin), Some(python)) = (lock.python_under(member, profile), equipment.python()) {
                match selected(lock, pin, python.version()) {
                    Ok(selected) => {
                        let (index, environment) = (pin.index.clone(), OnceLock::new());
                        equipment.packages = Some(Packages { selected, index, environment });
                    }
                    Err(error) => problems.extend(Failure::from(EquipError::from(error)).problems),
                }
            }
            all.insert(node.member.name.clone(), equipment);
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
        members: &BTreeSet<&Name>,
        offline: bool,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let open: Vec<(&Name, &Equipment)> =
            equipment.iter().filter(|(name, _)| members.contains(name)).filter(|(_, e)| !e.is_ready()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let index = self.package_index()?;
        let session = self.store.session()?;
        let (events, display) = ui.events();
        let fetcher = Fetcher::new(self.fetch_settings(offline), events);
        let variables = &self.settings.uv_variables;
        let workshop =
            Workshop { store: &self.store, session: &session, fetcher: &fetcher, index: &index, variables, offline };
        let mut built = 0;
        for (name, equipment) in open {
            let member = self.workspace.members.iter().find(|m| m.name == *name);
            let member = member.filter(|m| !m.dir.is_root()).map(|m| &m.name);
            for (tool, here) in &equipment.tools {
                if let (Tool::Fetched(fetched), Some(pin)) = (here, lock.tool(member, tool))
                    && fetched.place.get().is_none()
                {
                    let _ = fetched.place.set(workshop.tool(pin)?);
                }
            }
            let (Some(packages), Some(python)) = (&equipment.packages, equipment.python()) else { continue };
            let Some(resolver) = lock.tools.iter().find(|pin| pin.name.as_str() == UV) else {
                return Err(Failure::new(Exit::Failed, "train.lock names no uv to install python packages with")
                    .hint("run `trainlock lock`"));
            };
            let interpreter = python.program().map(Path::to_owned).unwrap_or_default();
            let key = packages_key(python.version(), resolver, &packages.selected);
            if kept(&self.store, &key)?.is_none() {
                let bytes = packages.selected.iter().map(|s| s.file.size).sum();
                ui.note("Installing", format!("{} python packages ({})", packages.selected.len(), HumanSize(bytes)));
                built += packages.selected.len();
            }
            let environment = workshop.environment(packages, &interpreter, python.version(), resolver)?;
            let _ = packages.environment.set(environment);
        }
        drop((fetcher, display));
        session.finish(false)?;
        if built > 0 {
            ui.status("Installed", format!("{built} python packages, each with its locked hash"));
        }
        Ok(())
    }

    /// Brings into the store what steps of these members are equipped with on this machine, under any profile; nothing is installed.
    pub(crate) fn bring_equipment(
        &self,
        lock: &Lock,
        members: &[usize],
        offline: bool,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let members: Vec<&Member> = members.iter().map(|i| &self.workspace.members[*i]).collect();
        let names: BTreeSet<Option<&Name>> = members.iter().map(|m| (!m.dir.is_root()).then_some(&m.name)).collect();
        let python: Vec<&PythonPin> = lock.python.iter().filter(|pin| names.contains(&pin.member.as_ref())).collect();
        let is_for_python = |pin: &ToolPin| !python.is_empty() && pin.name.as_str() == UV;
        let host = Platform::host();
        let tools: Vec<&ToolPin> = lock
            .tools
            .iter()
            .filter(|pin| names.contains(&pin.member.as_ref()) || is_for_python(pin))
            .filter(|pin| pin.artifacts.contains_key(&host))
            .collect();
        let mut packages = Vec::new();
        let mut missing = BTreeMap::new();
        for pin in python {
            let of_member = |tool: &&ToolPin| tool.member == pin.member && is_python(&tool.name);
            let Some(interpreter) = lock.tools.iter().find(of_member) else { continue };
            let selected = selected(lock, pin, &interpreter.version.to_string()).map_err(EquipError::from)?;
            for file in selected.iter().map(|s| &s.file) {
                if self.store.object(&file.sha256, Some(file.size))?.is_none() {
                    missing.insert(file.sha256, file.size);
                }
            }
            packages.push((pin, selected));
        }
        let count = format!("{} python packages ({})", missing.len(), HumanSize(missing.values().sum()));
        if !missing.is_empty() {
            ui.note("Fetching", &count);
        }
        let index = self.package_index()?;
        let session = self.store.session()?;
        {
            let (events, _display) = ui.events();
            let fetcher = Fetcher::new(self.fetch_settings(offline), events);
            let variables = &self.settings.uv_variables;
            let (store, session, fetcher, index) = (&self.store, &session, &fetcher, &index);
            let workshop = Workshop { store, session, fetcher, index, variables, offline };
            for pin in tools {
                workshop.tool(pin)?;
            }
            for (pin, selected) in &packages {
                let files: Vec<(&str, &PinnedFile)> = selected.iter().map(|s| (s.name.as_str(), &s.file)).collect();
                workshop.bring(&files, &pin.index)?;
            }
        }
        session.finish(false)?;
        if !missing.is_empty() {
            ui.status("Verified", &count);
        }
        Ok(())
    }

    /// Where packages are looked for, as the environment and pip's and uv's configuration say.
    pub(crate) fn package_index(&self) -> Result<IndexSettings, Failure> {
        IndexSettings::find(&self.settings.index_places).map_err(|reason| {
            Failure::new(Exit::Failed, reason).hint("it needs an address such as https://HOST/simple")
        })
    }

    /// uv's cache of what an index says: no part of what is verified, and removable at any time.
    pub(crate) fn uv_cache(&self) -> PathBuf {
        self.store.root().join("uv")
    }
}
