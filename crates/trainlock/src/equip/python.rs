//! Python packages: resolved and taken over while locking, and installed, each wheel once.

use super::index::meant_all_the_same;
use super::{EquipError, Withdrawn, Workshop, host_python, kept};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use trainlock_env::python::{
    Candidate, Environment, Installed, Locked, LockedFile, Offered, PythonError, SelectError, Selected, Target, Uv,
    environment_key, piece_key, pieces,
};
use trainlock_env::{HostTools, Machine, Packages, Place};
use trainlock_fetch::IndexFile;
use trainlock_lock::{Lock, PackagePin, PythonPin, ToolPin};
use trainlock_manifest::{Member, Workspace};
use trainlock_resolve::{PythonAnswer, ResolveWith};
use trainlock_store::{PutError, StoreError, Tree};
use trainlock_types::{
    Digest, Listing, Name, PinnedFile, Platform, PythonRequest, WheelName, is_python, masked, requirement_name,
};

impl Workshop<'_> {
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

    /// Refuses versions that their publishers have withdrawn, but for those that are `meant` all the same. uv takes none of its own
    /// accord, but what is asked for by `==`, what is locked already, and what another lock names.
    fn refuse_withdrawn(
        &self,
        request: &PythonRequest,
        packages: &[PackagePin],
        meant: &BTreeSet<String>,
    ) -> Result<(), EquipError> {
        let indexes = packages
            .iter()
            .map(|pin| self.index_of(&pin.name, &request.index))
            .collect::<Result<Vec<_>, EquipError>>()?;
        let questions: Vec<_> =
            indexes.iter().zip(packages).map(|(index, pin)| (index.as_ref(), pin.name.as_str())).collect();
        let mut refused = Vec::new();
        for (pin, listed) in packages.iter().zip(self.fetcher.files_of_index(&questions)) {
            let listed = match listed {
                Ok(listed) => listed,
                // What is taken over stands as it is, and is asked for when it is fetched.
                Err(_) if request.taken.is_some() => continue,
                Err(error) => return Err(self.fetcher.without_index(error, self.index).into()),
            };
            let withdrawn = pin.wheels.iter().chain(&pin.source).find_map(|file| {
                let now = listed.iter().find(|now| now.file == file.file)?;
                Some((file.file.clone(), now.yanked.clone()?))
            });
            let Some((file, why)) = withdrawn else { continue };
            if meant.contains(pin.name.as_str()) {
                self.fetcher.warn_of_withdrawn(&pin.name, &file, &why);
            } else {
                refused.push(Withdrawn { package: pin.name.to_string(), version: pin.version.clone(), file, why });
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(EquipError::Withdrawn(refused)) }
    }

    /// uv, for this interpreter.
    fn uv<'u>(&'u self, place: &'u Place, interpreter: &'u Path, cache: &'u Path) -> Uv<'u> {
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
    pub(super) fn environment(
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
        if !open.is_empty() {
            let (tree, own) = self.install(&uv, &scratch, &line, &open, &packages.index)?;
            for one in &open {
                if let Some(listing) = own.get(&one.name).filter(|_| one.file.file.ends_with(".whl")) {
                    let piece = self.session.tree_from_trees(&[(tree.digest, listing.clone())])?.digest;
                    self.session.replace_result(&wheel_key(&one.file), piece.to_hex().as_bytes())?;
                }
            }
            parts.push((tree.digest, tree.listing));
        }
        let tree = match &parts[..] {
            [] => self.session.take_tree(&self.session.work_dir("nothing")?)?.digest,
            [(tree, _)] => *tree,
            parts => match self.session.tree_from_trees(parts) {
                Ok(tree) => tree.digest,
                // Packages that write the same file are installed in one go; and what was installed once may have been damaged.
                Err(PutError::Twice(_) | PutError::Collision(..) | PutError::Store(StoreError::Damaged { .. })) => {
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
        let target = Target::new(Platform::host(), &Machine::libc_here(), version)?;
        let unmet = target.unmet(&found.packages.join(format!("lib/python{line}/site-packages")))?;
        if !unmet.is_empty() {
            return Err(self.python("install the python packages", PythonError::Unmet(unmet)));
        }
        self.session.replace_result(&key, tree.to_hex().as_bytes())?;
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
    fn python(&self, what: &'static str, source: PythonError) -> EquipError {
        let source = match source {
            PythonError::Uv(text) => PythonError::Uv(masked(&self.index.redact(&text))),
            other => other,
        };
        EquipError::Python { what, source }
    }
}

/// The interpreter and the machine that packages are installed for.
pub(super) fn interpreter_key(version: &str) -> String {
    format!("cpython {version} {} {}", Platform::host(), Machine::libc_here())
}

/// What installed packages are kept under.
pub(super) fn packages_key(version: &str, resolver: &ToolPin, selected: &[Selected]) -> Digest {
    environment_key(&interpreter_key(version), &resolver.version.to_string(), selected.iter().map(|s| &s.file))
}

/// The locked packages of a member (or of one of its profiles) that are for this machine.
pub(super) fn selected(lock: &Lock, python: &PythonPin, version: &str) -> Result<Vec<Selected>, SelectError> {
    let target = Target::new(Platform::host(), &Machine::libc_here(), version)?;
    target.select(lock.packages(python.member.as_ref(), python.profile.as_ref()).map(candidate))
}

/// The newest version above the locked one that an index has for this machine, and that what asks for the package allows; not of
/// packages whose versions another tool's lock decides.
pub(crate) fn newer_package(lock: &Lock, pin: &PythonPin, one: &Selected, listed: &[IndexFile]) -> Option<String> {
    if pin.taken.is_some() {
        return None;
    }
    let of_member = |tool: &&ToolPin| tool.member == pin.member && is_python(&tool.name);
    let version = lock.tools.iter().find(of_member)?.version.to_string();
    let target = Target::new(Platform::host(), &Machine::libc_here(), &version).ok()?;
    let offered = listed.iter().filter(|file| file.yanked.is_none());
    let offered = offered.map(|file| Offered { file: &file.file, requires_python: file.requires_python.as_deref() });
    let requirements: Vec<&str> = pin.dependencies.iter().chain(&pin.constraints).map(String::as_str).collect();
    target.newer(&one.name, &one.version, offered, &requirements)
}

/// A locked package, for choosing a file.
fn candidate(pin: &PackagePin) -> Candidate<'_> {
    Candidate {
        name: &pin.name,
        version: &pin.version,
        marker: pin.marker.as_deref(),
        wheels: &pin.wheels,
        source: pin.source.as_ref(),
    }
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
        Some(tool) if with.interpreter.artifacts.contains_key(&Platform::host()) => {
            match workshop.build_or_host(with.interpreter, host, tool)? {
                Ok(place) => place.program,
                Err(host) => host.program,
            }
        }
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
        None => {
            let first = uv.resolve(&scratch, request, &line, &keep, with.exclude_newer);
            // Where the index does not say when files came, none is old enough.
            let found = match (first, with.exclude_newer) {
                (Err(first), Some(_)) => uv.resolve(&scratch, request, &line, &keep, None).map_err(|_| first),
                (first, _) => first,
            };
            found.map_err(|source| workshop.python("resolve them", source))?
        }
    };
    workshop.session.discard(&scratch)?;
    let answer = pins(workshop, request, &line, found)?;
    workshop.refuse_withdrawn(request, &answer.packages, &meant_all_the_same(workspace))?;
    Ok(answer)
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
