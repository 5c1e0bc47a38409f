//! Bringing train.lock and the manifests to agree.

use crate::cli::LockOptions;
use crate::equip::{self, EquipError, UV, Workshop};
use crate::exit::{Exit, Failure, Problem};
use crate::project::{self, Project};
use crate::ui::Ui;
use fs_err as fs;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use trainlock_env::{HostTools, ToolError};
use trainlock_fetch::{FetchError, Fetcher};
use trainlock_lock::{
    Action, Content, DataPin, Determinism, HashFrom, Lock, LockError, Subject, Switches, ToolArtifact, ToolPin,
};
use trainlock_manifest::{Member, Workspace};
use trainlock_resolve::{
    BoxError, Change, DataAnswer, ImageAnswer, Mode, Provider, PythonAnswer, Resolution, ResolveError, ResolveWith,
    ToolAnswer, Wanted, WantedMember, resolve, settle, stale,
};
use trainlock_store::{Index, Store};
use trainlock_types::{
    Advice, DataRequest, DataSource, Diagnostic, Digest, FetchedTool, ImageReference, Name, Platform, PythonRequest,
    RelPath, SourceText, ToolFrom, ToolProvider, ToolRequest, is_python, unstable,
};

pub(crate) use crate::project::Locking;

impl Project {
    /// The lock, brought to agree with the manifests as far as `locking` allows.
    pub(crate) fn lock(&mut self, locking: Locking, offline: bool, ui: &Ui) -> Result<Lock, Failure> {
        let lock = self.agreed(locking, offline, ui)?;
        self.warn_of_images(&lock, ui);
        Ok(lock)
    }

    fn agreed(&mut self, locking: Locking, offline: bool, ui: &Ui) -> Result<Lock, Failure> {
        let path = self.workspace.root.join("train.lock");
        let wanted = wanted(&self.workspace)?;
        let heals = locking != Locking::Check;
        let asked = matches!(locking, Locking::Lock | Locking::Update(_));
        let found = self.read_ahead(&path).unwrap_or_else(|| Lock::load(&path));
        let old = taken(found, &path, &wanted, heals)?;
        if !matches!(locking, Locking::Update(_)) {
            let changes = self.stale(&wanted, old.lock.as_ref(), ui)?;
            self.save_caches();
            match (old.lock, locking == Locking::Check) {
                (Some(lock), _) if changes.is_empty() && !old.healed => {
                    if asked {
                        told(false, &[], ui);
                    }
                    return Ok(lock);
                }
                (None, true) => {
                    return Err(Failure::new(Exit::Stale, format!("`{}` does not exist", path.display()))
                        .hint("`trainlock lock` writes it"));
                }
                (Some(_), true) => return Err(out_of_date(&path, &changes)),
                _ => {}
            }
        }
        // One process at a time asks the sources; the others then find the lock up to date.
        let name = lock_name(&path);
        let cancel = self.cancel();
        let waiting = |holder| ui.waiting("train.lock", holder);
        let Some(_guard) = self.store.lock_unless(&name, waiting, || cancel.is_thrown())? else {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        };
        let old = taken(Lock::load(&path), &path, &wanted, heals)?;
        if old.healed {
            ui.status("Healed", format!("{} (a merge had left it unfinished)", path.display()));
            if old.damaged > 0 {
                let entries = if old.damaged == 1 { "an entry".to_owned() } else { format!("{} entries", old.damaged) };
                ui.warning(&format!(
                    "the merge had lost lines of {entries}: what follows as added is locked anew, as its source is now"
                ));
            }
        }
        let mode = match locking {
            Locking::Update(names) => Mode::Update { names: Some(names).filter(|n| !n.is_empty()) },
            _ => Mode::Lock,
        };
        let session = self.store.session()?;
        let resolution = {
            let (events, _display) = ui.events();
            let fetcher = Fetcher::new(self.fetch_settings(offline), events);
            let packages = self.package_index()?;
            let cache = self.uv_cache();
            let workshop = Workshop {
                store: &self.store,
                session: &session,
                fetcher: &fetcher,
                index: &packages,
                npm: &self.npm,
                python: &self.settings.python,
                variables: &self.settings.uv_variables,
                offline,
            };
            let mut sources = Sources {
                seen: &mut self.seen,
                outside: Some((workshop, &cache)),
                index: &mut self.index,
                tools: Some(&mut self.host),
                workspace: &self.workspace,
                forge: &self.settings.forge,
                ui,
            };
            resolve(&wanted, old.lock.as_ref(), &mode, &mut sources)
        };
        session.finish(false)?;
        self.save_caches();
        let Resolution { lock, changes } = resolution.map_err(|errors| failure(errors, &self.workspace))?;
        let written = lock.save(&path).map_err(|e| lock_failure(&e))?;
        for change in &changes {
            ui.status("Locked", change);
        }
        if written && changes.is_empty() {
            ui.status("Locked", path.display());
        }
        for change in changes.iter().filter(|change| !matches!(change.action, Action::Removed)) {
            if let Subject::Data { name, member } = &change.subject
                && let Some(pin) = lock.data(member.as_ref(), name)
            {
                unstable_addresses(pin).for_each(|words| ui.warning(&format!("data `{}`: {words}", shown(pin))));
            }
        }
        if asked {
            told(written, &changes, ui);
        }
        Ok(lock)
    }

    /// Writes the lock with something added, unless another process has changed it since it was read; whether
    /// the file changed.
    pub(crate) fn save_lock(&self, path: &Path, read: &Lock, new: &Lock) -> Result<bool, Failure> {
        let cancel = self.cancel();
        let guard = self.store.lock_unless(&lock_name(path), |_| {}, || cancel.is_thrown())?;
        if guard.is_none() {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        if Lock::load(path).map_err(|e| lock_failure(&e))?.as_ref() != Some(read) {
            return Err(Failure::new(
                Exit::Failed,
                format!("`{}` changed meanwhile: run the command again", path.display()),
            ));
        }
        new.save(path).map_err(|e| lock_failure(&e))
    }

    /// The lock as it would be, where that can be known without asking a source, and without writing it; what
    /// makes it stale is told. Under `--locked` a stale one is an error.
    pub(crate) fn lock_for_reading(&mut self, options: LockOptions, ui: &Ui) -> Result<Lock, Failure> {
        let path = self.workspace.root.join("train.lock");
        let wanted = wanted(&self.workspace)?;
        let found = self.read_ahead(&path).unwrap_or_else(|| Lock::load(&path));
        let old = taken(found, &path, &wanted, false)?;
        let changes = self.stale(&wanted, old.lock.as_ref(), ui)?;
        self.save_caches();
        if changes.is_empty() {
            return Ok(old.lock.unwrap_or_default());
        }
        if options.locked() {
            return Err(out_of_date(&path, &changes));
        }
        if old.lock.is_none() {
            ui.note("Unlocked", "there is no train.lock yet");
        } else {
            for change in changes.iter().take(10) {
                ui.note("Stale", format!("train.lock: {change}"));
            }
        }
        let mut sources = Sources {
            seen: &mut self.seen,
            outside: None,
            index: &mut self.index,
            tools: None,
            workspace: &self.workspace,
            forge: &self.settings.forge,
            ui,
        };
        match resolve(&wanted, old.lock.as_ref(), &Mode::Lock, &mut sources) {
            Ok(resolution) => Ok(resolution.lock),
            Err(_) => Ok(old.lock.unwrap_or_default()),
        }
    }

    /// What no longer agrees.
    fn stale(&mut self, wanted: &Wanted, old: Option<&Lock>, ui: &Ui) -> Result<Vec<Change>, Failure> {
        let mut sources = Sources {
            seen: &mut self.seen,
            outside: None,
            index: &mut self.index,
            tools: None,
            workspace: &self.workspace,
            forge: &self.settings.forge,
            ui,
        };
        stale(wanted, old, &mut sources).map_err(|errors| failure(errors, &self.workspace))
    }
}

/// A data set's name, for people.
pub(crate) fn shown(pin: &DataPin) -> String {
    pin.member.as_ref().map_or_else(|| pin.name.to_string(), |member| format!("{member}/{}", pin.name))
}

/// What is not stable about the addresses of a data set, each with a better form, in words.
pub(crate) fn unstable_addresses(pin: &DataPin) -> impl Iterator<Item = String> {
    let (urls, checked) = match &pin.source {
        DataSource::Url { url, mirrors, checksum, .. } => {
            (std::iter::once(url).chain(mirrors).collect::<Vec<_>>(), checksum.is_some())
        }
        _ => (Vec::new(), false),
    };
    urls.into_iter().filter_map(move |url| {
        let Advice { why, better } = unstable(url)?;
        // The lock says that other bytes are not taken; neither it nor a checksum keeps those that are locked in their place.
        let what = match checked {
            true => "its `checksum` and the lock keep the bytes honest, not the address",
            false => "the lock keeps the bytes honest, not the address",
        };
        Some(format!("{} is no stable address: {why} ({what}); better: {better}", url.redacted()))
    })
}

/// The last words of a command that is about the lock.
pub(crate) fn told(written: bool, changes: &[Change], ui: &Ui) {
    if !written && changes.is_empty() {
        ui.status("Finished", "train.lock is up to date");
    }
    if ui.json() {
        let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
        ui.print_json(&serde_json::json!({ "written": written, "changes": changes }));
    }
}

/// A lock as it was found.
struct Old {
    lock: Option<Lock>,
    /// Whether it had to be taken out of an unfinished merge.
    healed: bool,
    /// How many entries the merge had not left whole.
    damaged: usize,
}

/// What was read of a lock's file, taken out of an unfinished merge if need and `heals` be.
fn taken(found: Result<Option<Lock>, LockError>, path: &Path, wanted: &Wanted, heals: bool) -> Result<Old, Failure> {
    match found {
        Ok(lock) => Ok(Old { lock, healed: false, damaged: 0 }),
        Err(LockError::Conflict { .. }) if heals => {
            let text = fs::read_to_string(path)?;
            let healed = trainlock_lock::heal(&text, path).map_err(|e| lock_failure(&e))?;
            let damaged = healed.damaged;
            Ok(Old { lock: Some(settle(healed, wanted)), healed: true, damaged })
        }
        Err(error) => Err(lock_failure(&error)),
    }
}

/// What a damaged or unfinished lock means for the command.
fn lock_failure(error: &LockError) -> Failure {
    match error {
        LockError::Syntax(diagnostic) | LockError::Invalid(diagnostic) => {
            let failure = Failure::placed(Exit::Invalid, vec![(**diagnostic).clone()]);
            failure.hint("take the file back from git, or delete it and run `trainlock lock`")
        }
        LockError::Read(_) | LockError::Write { .. } => Failure::from_error(Exit::Failed, error),
        LockError::Conflict { .. } | LockError::NewerVersion { .. } => Failure::from_error(Exit::Invalid, error),
    }
}

fn out_of_date(path: &Path, changes: &[Change]) -> Failure {
    let mut failure = Failure::new(Exit::Stale, format!("`{}` is out of date", path.display()))
        .hint("run `trainlock lock`, and commit train.lock");
    if let Some(Problem::Plain { causes, .. }) = failure.problems.first_mut() {
        causes.extend(changes.iter().take(20).map(Change::to_string));
        causes.extend((changes.len() > 20).then(|| format!("and {} more", changes.len() - 20)));
    }
    failure
}

/// What errors of locking mean for the command.
fn failure(errors: Vec<ResolveError>, workspace: &Workspace) -> Failure {
    let mut code = Exit::Failed;
    let mut problems = Vec::new();
    for error in &errors {
        let mut problem = Problem::from_error(error);
        if let ResolveError::UnknownName { .. } = error {
            code = Exit::Invalid;
        }
        if let ResolveError::Source { source, .. } = error
            && let Some(fetch) = source.downcast_ref::<FetchError>()
        {
            let of_fetch = project::fetch_failure(std::slice::from_ref(fetch));
            if code != Exit::Interrupted && of_fetch.code != Exit::Failed {
                code = of_fetch.code;
            }
            if let Problem::Plain { hints, .. } = &mut problem {
                hints.extend(fetch.hint());
            }
        }
        if let ResolveError::Source { source, .. } = error
            && let Some(equip) = source.downcast_ref::<EquipError>()
        {
            if code != Exit::Interrupted && equip.exit() != Exit::Failed {
                code = equip.exit();
            }
            if let Problem::Plain { hints, .. } = &mut problem {
                hints.extend(equip.hint());
            }
        }
        if let ResolveError::Source { subject: Subject::Python { member, profile }, source } = error {
            let equip = source.downcast_ref::<EquipError>();
            problems.extend(places_of_packages(workspace, member.as_ref(), profile.as_ref(), equip));
        }
        problems.push(problem);
    }
    Failure { code, problems }
}

/// Where the packages are asked for that can't be locked: each requirement that the error speaks of, else the whole table.
fn places_of_packages(
    workspace: &Workspace,
    member: Option<&Name>,
    profile: Option<&Name>,
    error: Option<&EquipError>,
) -> Vec<Problem> {
    let of = |m: &&Member| if m.dir.is_root() { member.is_none() } else { member == Some(&m.name) };
    let Some(member) = workspace.members.iter().find(of) else { return Vec::new() };
    let python = match profile {
        Some(profile) => member.python_profiles.get(profile),
        None => member.python.as_ref(),
    };
    let Some(python) = python else { return Vec::new() };
    let asked = trainlock_manifest::python_request(&workspace.root, member, profile, python, &workspace.platforms);
    let mut places = asked.map(|asked| asked.places).unwrap_or_default();
    let spoken = error.map(EquipError::packages).unwrap_or_default();
    places.retain(|(package, _)| spoken.contains(package));
    places.sort_by_key(|(_, place)| (place.source.path.clone(), place.span.start));
    let problem = |source: &Arc<SourceText>, span: Range<usize>, message: &str, related| Diagnostic {
        source: Arc::clone(source),
        span,
        message: message.to_owned(),
        label: String::new(),
        help: None,
        related,
    };
    let mut found: Vec<Diagnostic> = Vec::new();
    for (_, place) in places {
        match found.last_mut().filter(|last| Arc::ptr_eq(&last.source, &place.source)) {
            Some(last) => last.related.push((place.span, "and this".to_owned())),
            None => {
                found.push(problem(&place.source, place.span, "this can't be locked as it is asked for", Vec::new()));
            }
        }
    }
    if found.is_empty() {
        let message = "these python packages can't be locked";
        found.push(problem(&python.source, python.span.clone(), message, Vec::new()));
    }
    found.into_iter().map(Problem::Placed).collect()
}

/// What a level means on every architecture that it has a meaning on, with packages of these versions.
fn switches(level: &str, threads: Option<u32>, packages: &BTreeMap<String, String>) -> BTreeMap<String, Switches> {
    let of = |architecture: &str| {
        let resolved = trainlock_env::determinism::resolve(level, architecture, threads, packages)?;
        let (level, variables) = (resolved.level.to_owned(), resolved.variables);
        Some((architecture.to_owned(), Switches { level, variables, extra: String::new() }))
    };
    ["aarch64", "x86_64"].into_iter().filter_map(of).collect()
}

/// The name under which processes take turns with a lock.
fn lock_name(path: &Path) -> String {
    format!("lock-{}", trainlock_types::Digest::of(path.as_os_str().as_encoded_bytes()))
}

/// All that the manifests want locked.
pub(crate) fn wanted(workspace: &Workspace) -> Result<Wanted, Failure> {
    let mut wanted = Wanted::default();
    let mut problems = Vec::new();
    for member in &workspace.members {
        wanted.data.extend(member.data.iter().map(|d| Arc::clone(&d.request)));
        for tool in &member.tools {
            let mut request = tool.request.clone();
            if let ToolProvider::Fetched(_) = request.provider {
                request.platforms.clone_from(&workspace.platforms);
            }
            wanted.tools.push(request);
        }
        let profiles = member.python_profiles.iter().map(|(profile, python)| (Some(profile), python));
        for (profile, python) in member.python.iter().map(|python| (None, python)).chain(profiles) {
            if !member.tools.iter().any(|tool| is_python(&tool.request.name)) {
                problems.push(Diagnostic {
                    source: Arc::clone(&python.source),
                    span: python.span.clone(),
                    message: "`[python]` needs an interpreter, and [tools] names none".to_owned(),
                    label: String::new(),
                    help: Some("add `python = \"3.11\"` (or another version) to [tools]".to_owned()),
                    related: Vec::new(),
                });
            }
            match trainlock_manifest::python_request(&workspace.root, member, profile, python, &workspace.platforms) {
                Ok(asked) => wanted.python.push(asked.request),
                Err(found) => problems.extend(found),
            }
        }
        wanted.images.extend(member.steps.iter().filter_map(|step| step.image.clone()));
        let determinism = &member.determinism;
        wanted.members.push(WantedMember {
            name: member.name.clone(),
            root: member.dir.is_root(),
            params: member.params.clone(),
            profiles: member.profiles.clone(),
            determinism: Determinism {
                seed: determinism.seed,
                level: determinism.level.as_str().to_owned(),
                threads: determinism.threads,
                seed_globals: determinism.seed_globals,
                switches: switches(determinism.level.as_str(), determinism.threads, &BTreeMap::new()),
                extra: String::new(),
            },
        });
    }
    // Whoever asks for packages asks for the program that resolves and installs them, in a version of its own.
    let resolver = |request: &ToolRequest| request.name.as_str() == UV;
    if !wanted.python.is_empty() && !wanted.tools.iter().any(resolver) {
        wanted.tools.push(ToolRequest {
            member: None,
            name: Name::entry(UV).expect("a name"),
            version: "*".to_owned(),
            requirement: semver::VersionReq::STAR,
            provider: ToolProvider::Fetched(FetchedTool::new(ToolFrom::Pypi)),
            platforms: workspace.platforms.clone(),
        });
    }
    if problems.is_empty() { Ok(wanted) } else { Err(Failure::placed(Exit::Invalid, problems)) }
}

/// Who answers while locking.
struct Sources<'a> {
    /// What the repository's own data was found to hold, until it is asked for a second time.
    seen: &'a mut BTreeMap<RelPath, Content>,
    /// With uv's cache; none: nobody outside the repository is asked.
    outside: Option<(Workshop<'a>, &'a Path)>,
    index: &'a mut Index,
    tools: Option<&'a mut HostTools>,
    workspace: &'a Workspace,
    /// The address of GitHub's API.
    forge: &'a url::Url,
    ui: &'a Ui,
}

impl Provider for Sources<'_> {
    fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>> {
        let Some((workshop, _)) = &self.outside else {
            return requests.iter().map(|_| Err("it is not locked".into())).collect();
        };
        let answer = |resolved: Result<trainlock_fetch::Resolved, FetchError>| {
            let resolved = resolved?;
            let trainlock_fetch::Resolved { source, content, archive, versions, validator } = resolved;
            let content = match content {
                trainlock_fetch::Content::File { sha256, size } => Content::File { sha256, size },
                trainlock_fetch::Content::Tree { listing, .. } => Content::tree(listing),
            };
            Ok(DataAnswer { resolved: source, content, archive, versions, validator })
        };
        workshop.fetcher.resolve_all(workshop.session, requests).into_iter().map(answer).collect()
    }

    fn path(&mut self, requests: &[&DataRequest]) -> Vec<Result<Content, BoxError>> {
        let mut content = |request: &DataRequest| -> Result<Content, BoxError> {
            let DataSource::Path(path) = &request.source else { unreachable!("only paths are asked for here") };
            let content = match self.seen.remove(path) {
                Some(content) => content,
                None => in_repository(&path.on(&self.workspace.root), self.index)?,
            };
            // Whoever only looks is followed by who locks, and a large folder takes a while to look at.
            if self.outside.is_none() {
                self.seen.insert(path.clone(), content.clone());
            }
            Ok(content)
        };
        requests.iter().map(|request| content(request)).collect()
    }

    fn description(&mut self, path: &RelPath) -> Result<Digest, BoxError> {
        match in_repository(&path.on(&self.workspace.root), self.index)? {
            Content::File { sha256, .. } => Ok(sha256),
            Content::Tree { .. } => Err(format!("`{path}` is a folder, not a file").into()),
        }
    }

    fn tool(&mut self, request: &ToolRequest, resolver: Option<&ToolPin>) -> Result<ToolAnswer, BoxError> {
        let (Some(tools), Some((workshop, _))) = (&mut self.tools, &self.outside) else {
            return Err("it is not locked".into());
        };
        if let ToolProvider::Fetched(fetched) = &request.provider {
            let program = fetched.bin.as_deref().unwrap_or(&request.name);
            let (fetcher, session) = (workshop.fetcher, workshop.session);
            let found = match (fetched.from, &fetched.index, &fetched.repo) {
                (ToolFrom::Pypi | ToolFrom::Npm, ..) if workshop.offline => {
                    return Err("it is not locked, and the network is off".into());
                }
                (ToolFrom::Pypi, ..) => {
                    let package = fetched.package.as_deref().unwrap_or(&request.name);
                    let found = fetcher.tool_of_wheels(session, request, package, program, workshop.index);
                    Some((found, HashFrom::Index))
                }
                (ToolFrom::Npm, ..) => {
                    let package = fetched.package.as_deref().unwrap_or(&request.name);
                    let found = fetcher.tool_of_npm(session, request, package, program, workshop.npm.settings()?);
                    Some((found, HashFrom::Index))
                }
                (ToolFrom::Python, ..) => match workshop.python_builds(request, resolver, self.ui)? {
                    Some((builds, stated_by)) => {
                        let found = fetcher.tool_of_builds(session, &builds, workshop.python.mirror.as_ref());
                        Some((found, stated_by))
                    }
                    None => None,
                },
                (ToolFrom::Index, Some(list), _) => {
                    let url = url::Url::parse(list).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                    let text = match &url {
                        Some(url) => fetcher.text(&format!("the list of tool {}", request.name), url)?,
                        None => {
                            let path = RelPath::root().resolve(list)?.on(&self.workspace.root);
                            let text = fs::read_to_string(&path);
                            text.map_err(|e| format!("can't read the list `{list}`: {}", reason(&e)))?
                        }
                    };
                    let list = (list.as_str(), text.as_str(), url.as_ref());
                    Some((fetcher.tool_of_list(session, request, list, program), HashFrom::Index))
                }
                (ToolFrom::Github, _, Some(repo)) => {
                    let found = fetcher.tool_of_releases(session, request, (self.forge, repo), &fetched.asset, program);
                    Some((found, HashFrom::Publisher))
                }
                _ => None,
            };
            if let Some((found, stated_by)) = found {
                let found = found.map_err(EquipError::from)?;
                let artifacts = found.artifacts.into_iter();
                return Ok(ToolAnswer {
                    version: found.version,
                    artifacts: artifacts.map(|(p, (file, program))| (p, ToolArtifact { file, program })).collect(),
                    hash_from: Some(if found.stated { stated_by } else { HashFrom::FirstDownload }),
                });
            }
        }
        // A pin is about to be made: what is remembered of the tool will not do.
        let tool = match request.provider {
            ToolProvider::Host { .. } => tools.ask(request)?,
            ToolProvider::Fetched(_) => tools.ask(&equip::on_host(request))?,
        };
        let version = tool.version.parse().map_err(|_| ToolError::NoVersion {
            name: request.name.to_string(),
            command: tool.probe.join(" "),
            output: tool.version.clone(),
        })?;
        Ok(ToolAnswer { version, artifacts: BTreeMap::new(), hash_from: None })
    }

    fn python(&mut self, request: &PythonRequest, with: &ResolveWith<'_>) -> Result<PythonAnswer, BoxError> {
        let (Some(tools), Some((workshop, cache))) = (&mut self.tools, &self.outside) else {
            return Err("they are not locked".into());
        };
        if workshop.offline {
            return Err("they are not locked, and the network is off".into());
        }
        let what = match (&request.taken, &request.profile) {
            (Some(taken), _) => format!("python packages of {}", taken.file),
            (None, Some(profile)) => format!("python packages of profile {profile}"),
            (None, None) => "python packages".to_owned(),
        };
        self.ui.note("Resolving", format!("{what} for {}", words(&request.platforms)));
        Ok(equip::resolve_packages(workshop, tools, self.workspace, request, with, cache)?)
    }

    fn image(&mut self, reference: &ImageReference) -> Result<ImageAnswer, BoxError> {
        let Some((workshop, _)) = &self.outside else { return Err("it is not locked".into()) };
        let found = workshop.fetcher.resolve_image(workshop.session, reference)?;
        Ok(ImageAnswer { digest: found.digest, platforms: found.platforms })
    }

    fn switches(&self, determinism: &Determinism, versions: &BTreeMap<String, String>) -> BTreeMap<String, Switches> {
        switches(&determinism.level, determinism.threads, versions)
    }
}

fn words(platforms: &[Platform]) -> String {
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

/// What a file or folder of the repository holds. A link to data that lies elsewhere counts as that data.
fn in_repository(path: &Path, index: &mut Index) -> Result<Content, BoxError> {
    let real = fs::canonicalize(path).map_err(|e| format!("can't read `{}`: {}", path.display(), reason(&e)))?;
    if real.is_dir() {
        return Ok(Content::tree(index.folder(&real, |_| true)?));
    }
    let state = index.file(&real)?.ok_or_else(|| format!("`{}` does not exist", path.display()))?;
    Ok(Content::File { sha256: state.sha256, size: state.size })
}

/// What the system said, without the path that fs-err adds to it.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What `store gc` may not remove, asked of every known project that still exists; others are forgotten.
pub(crate) fn live(store: &Store) -> Result<trainlock_store::Live, Failure> {
    let mut live = trainlock_store::Live::default();
    for root in store.projects()? {
        if root.join("train.toml").is_file() || root.join("train.lock").is_file() {
            project::live(&root, store, &mut live)?;
        } else {
            store.forget_project(&root)?;
        }
    }
    Ok(live)
}
