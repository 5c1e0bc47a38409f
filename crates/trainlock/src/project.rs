//! A workspace opened by a command: its manifests, lock, store, and how they are brought to agree.

use crate::cli::{Global, LockOptions, Select};
use crate::equip::{self, Equipments};
use crate::exit::{Exit, Failure, Problem};
use crate::lacking::{Lack, Lacking};
use crate::settings::Settings;
use crate::ui::Ui;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use trainlock_env::{Cancel, HostTools, Machine, Tool};
use trainlock_fetch::{FetchError, Fetcher, ManyWanted, Want, Wanted as FetchWanted};
use trainlock_lock::{Content, DataPin, Lock, LockError};
use trainlock_manifest::{Data, ManifestError, Workspace};
use trainlock_run::record::{DataRecord, ImageRecord, PackageRecord, RunRecord, ToolRecord};
use trainlock_run::{Bench, Capacity, Plan, PlanError, Shell, State, Verdict, is_in_repository};
use trainlock_store::{Index, Link, Store, StoreError, place_file, place_fresh, place_tree};
use trainlock_types::{DataSource, Digest, Events, HumanSize, Name, Params, RelPath, SourceUrl, Value, nearest};

/// Which hyperparameters.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ParamOptions {
    /// Lay this profile's params over [params]
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Change one param for this run; typed like the old value, recorded, never written to train.lock
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// The manifests that the command line names, loaded and validated.
pub(crate) fn load(global: &Global) -> Result<Workspace, Failure> {
    trainlock_manifest::load(&manifest(global)?).map_err(manifest_failure)
}

/// The manifest that the command line names.
fn manifest(global: &Global) -> Result<PathBuf, Failure> {
    match &global.manifest_path {
        Some(path) => Ok(path.clone()),
        None => trainlock_manifest::discover(&std::env::current_dir()?).map_err(manifest_failure),
    }
}

fn manifest_failure(error: ManifestError) -> Failure {
    match error {
        ManifestError::Invalid(diagnostics) => Failure::placed(Exit::Invalid, diagnostics),
        ManifestError::RequiresTrainlock(diagnostic) => Failure::placed(Exit::Invalid, vec![*diagnostic]),
        ManifestError::NotFound { .. } => {
            Failure::from_error(Exit::Invalid, &error).hint("`trainlock init` writes one")
        }
        other => Failure::from_error(Exit::Invalid, &other),
    }
}

/// How far a command may change the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Bring it up to date.
    Lock,
    /// Move pins to the newest: of these names, or all.
    Update(BTreeSet<String>),
    /// It must be up to date; nothing is written.
    Check,
    /// Bring it up to date, as a matter of course: only changes are told.
    AsNeeded,
}

impl From<LockOptions> for Locking {
    fn from(options: LockOptions) -> Locking {
        if options.locked() { Locking::Check } else { Locking::AsNeeded }
    }
}

/// A workspace that a command works on.
#[derive(Debug)]
pub(crate) struct Project {
    /// What the environment and the configuration say.
    pub(crate) settings: Settings,
    /// The manifests.
    pub(crate) workspace: Arc<Workspace>,
    /// The machine's store.
    pub(crate) store: Store,
    pub(crate) index: Index,
    pub(crate) host: HostTools,
    /// Where packages of npm are looked for.
    pub(crate) npm: equip::Npm,
    shell: Shell,
    cancel: Cancel,
    fetch_cancel: trainlock_fetch::Cancel,
    /// The lock beside the manifest, being read while the manifests are.
    read_ahead: Option<ReadAhead>,
    /// What the repository's own data was found to hold, for the second look within one command.
    pub(crate) seen: BTreeMap<RelPath, Content>,
}

/// A lock that is being read in a thread of its own, and its file.
type ReadAhead = (PathBuf, std::thread::JoinHandle<Result<Option<Lock>, LockError>>);

/// A word of the command line; of one that configures a package index (`index.NAME=ADDRESS`) without the address.
fn without_address(word: &str) -> String {
    match word.split_once("index.").and_then(|(before, rest)| Some((before, rest.split_once('=')?.0))) {
        Some((before @ ("" | "--config="), name)) => format!("{before}index.{name}=…"),
        _ => word.to_owned(),
    }
}

impl Project {
    /// Loads the manifests and opens the store.
    pub(crate) fn open(global: &Global) -> Result<Project, Failure> {
        let settings = Settings::read(global)?;
        let manifest = manifest(global)?;
        // In a large project reading the lock takes as long as reading the manifest.
        let read_ahead = fs_err::canonicalize(&manifest).ok().and_then(|file| Some(file.parent()?.join("train.lock")));
        let read_ahead = read_ahead.map(|file| (file.clone(), std::thread::spawn(move || Lock::load(&file))));
        let workspace = Arc::new(trainlock_manifest::load(&manifest).map_err(manifest_failure)?);
        // It is needed until the process ends, which frees it at once; piece by piece takes a large one a while.
        std::mem::forget(Arc::clone(&workspace));
        let store = Store::open(&settings.store)?;
        store.settle()?;
        let own = workspace.root.join(".trainlock");
        let fetch_cancel = trainlock_fetch::Cancel::new();
        let cancel = crate::signals::cancel_on_signals(fetch_cancel.clone())?;
        Ok(Project {
            index: Index::load(&own.join("index"), &workspace.root, Some(store.clone())),
            host: HostTools::new(settings.path.clone(), own.join("tools.json")),
            npm: equip::Npm::new(&settings),
            shell: Shell::find(),
            settings,
            workspace,
            store,
            cancel,
            fetch_cancel,
            read_ahead,
            seen: BTreeMap::new(),
        })
    }

    /// The lock of this file as it was when the command began, if it was read ahead; once.
    pub(crate) fn read_ahead(&mut self, file: &Path) -> Option<Result<Option<Lock>, LockError>> {
        let (read, thread) = self.read_ahead.take()?;
        (read == file).then(|| thread.join().ok()).flatten()
    }

    /// Folders that no tool may show to a step with itself.
    pub(crate) fn private(&self) -> Vec<PathBuf> {
        let home = self.settings.home.iter().cloned();
        home.chain([self.workspace.root.clone(), self.store.root().to_owned()]).collect()
    }

    /// The switch that a signal throws.
    pub(crate) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// The switch that a signal throws, for fetching.
    pub(crate) fn fetch_cancel(&self) -> trainlock_fetch::Cancel {
        self.fetch_cancel.clone()
    }

    /// The workspace's own folder, which git ignores; made if it is not there.
    pub(crate) fn own_folder(&self) -> Result<PathBuf, Failure> {
        let own = self.workspace.root.join(".trainlock");
        let ignore = own.join(".gitignore");
        if !ignore.is_file() {
            fs_err::create_dir_all(&own)?;
            fs_err::write(&ignore, "*\n")?;
        }
        self.store.remember_project(&self.workspace.root)?;
        Ok(own)
    }

    /// Keeps what hashing and asking tools found out, for the next command. These are caches: a
    /// folder that can't be written to makes the next command slower and nothing else.
    pub(crate) fn save_caches(&mut self) {
        if self.own_folder().is_ok() {
            let _ = self.index.save();
            self.host.save();
        }
    }

    /// The members that the command line selects, by their place in the workspace.
    pub(crate) fn select(&self, select: &Select) -> Result<Vec<usize>, Failure> {
        selected(&self.workspace, select)
    }

    /// Each member's params for this run.
    pub(crate) fn params(&self, options: &ParamOptions, selected: &[usize]) -> Result<BTreeMap<Name, Params>, Failure> {
        let mut all = BTreeMap::new();
        let mut unknown = None;
        let mut known = false;
        for (i, member) in self.workspace.members.iter().enumerate() {
            let params = match member.params_for(options.profile.as_deref()) {
                Ok(params) => {
                    known |= selected.contains(&i);
                    params
                }
                // Another member of the workspace need not have the profile; one of those selected must.
                Err(error) => {
                    if selected.contains(&i) {
                        unknown.get_or_insert(error);
                    }
                    member.params.clone()
                }
            };
            all.insert(member.name.clone(), params);
        }
        if let Some(error) = unknown.filter(|_| !known) {
            return Err(Failure::from_error(Exit::Invalid, &error));
        }
        for pair in &options.set {
            let Some((key, text)) = pair.split_once('=') else {
                return Err(Failure::new(Exit::Invalid, format!("`--set {pair}` is not KEY=VALUE")));
            };
            let mut found = false;
            for i in selected {
                let Some(params) = all.get_mut(&self.workspace.members[*i].name) else {
                    continue;
                };
                if let Some(value) = params.get_mut(key) {
                    *value = trainlock_manifest::parse_value(text, value)
                        .map_err(|e| Failure::new(Exit::Invalid, format!("`--set {pair}`: {e}")))?;
                    found = true;
                }
            }
            if !found {
                let names = selected.iter().flat_map(|i| self.workspace.members[*i].params.keys());
                let near = nearest(key, names.map(String::as_str))
                    .map(|n| format!("; did you mean `{n}`?"))
                    .unwrap_or_default();
                return Err(Failure::new(Exit::Invalid, format!("`--set {pair}`: there is no param `{key}`{near}")));
            }
        }
        Ok(all)
    }

    /// The stat index, to be handed to a bench; this project has none until it is read again.
    pub(crate) fn take_index(&mut self) -> Index {
        let fresh =
            Index::load(&self.workspace.root.join(".trainlock/index"), &self.workspace.root, Some(self.store.clone()));
        std::mem::replace(&mut self.index, fresh)
    }

    /// All that decisions about steps are made from.
    pub(crate) fn bench<'a>(
        &'a self,
        index: Index,
        lock: &'a Lock,
        params: &'a BTreeMap<Name, Params>,
        equipment: &'a Equipments,
    ) -> Result<Bench<'a>, Failure> {
        let state = State::load(&self.own_folder()?.join("state"));
        Ok(Bench::new(&self.workspace, lock, &self.store, params, equipment, &self.shell, index, state))
    }

    /// The data sets of these members that do not lie in the repository.
    pub(crate) fn data_of(&self, members: &[usize]) -> Vec<&Data> {
        members.iter().flat_map(|m| &self.workspace.members[*m].data).filter(|d| !is_in_repository(d)).collect()
    }

    /// The data sets that steps of a plan may read: those of steps that would run, and those whose
    /// listing is needed to know.
    pub(crate) fn data_needed<'a>(
        &self,
        bench: &mut Bench<'_>,
        plan: &Plan<'a>,
        force: bool,
    ) -> Result<Vec<&'a Data>, Failure> {
        let mut needed: Vec<&Data> = plan.nodes.iter().flat_map(|n| n.data_in_parts()).collect();
        if plan.nodes.iter().any(|n| n.data().next().is_some()) {
            for (node, status) in plan.nodes.iter().zip(bench.survey(plan, force)?) {
                if matches!(status.verdict, Verdict::Run { .. } | Verdict::Waits { .. }) {
                    needed.extend(node.data());
                }
            }
        }
        needed.retain(|d| !is_in_repository(d));
        needed.sort_by(|a, b| (&a.request.name, &a.request.member).cmp(&(&b.request.name, &b.request.member)));
        needed.dedup_by(|a, b| std::ptr::eq(*a, *b));
        Ok(needed)
    }

    /// Brings data into the store, and verifies it.
    pub(crate) fn bring(&self, lock: &Lock, data: &[&Data], offline: bool, ui: &Ui) -> Result<(), Failure> {
        self.bring_each(lock, data, offline, true, ui, |_, _| ())
    }

    /// The same; `came` is told, from many threads, of each that was not there before as soon as it is. `links`: they are
    /// placed soon.
    fn bring_each(
        &self,
        lock: &Lock,
        data: &[&Data],
        offline: bool,
        links: bool,
        ui: &Ui,
        came: impl Fn(&Data, &DataPin) + Sync,
    ) -> Result<(), Failure> {
        if data.is_empty() {
            return Ok(());
        }
        let (mut wants, mut pins, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut fetcher = Fetcher::new(self.fetch_settings(offline), Events::none());
        let session = thread::scope(|scope| {
            let mut session = None;
            for data in data {
                let request = &data.request;
                let Some(pin) = lock.data(request.member.as_ref(), &request.name) else {
                    continue;
                };
                let there = match &pin.content {
                    Content::File { sha256, size } => self.store.object(sha256, Some(*size))?.is_some(),
                    Content::Tree { tree, .. } => self.store.has_tree(tree),
                };
                if there {
                    continue;
                }
                let want = want(pin, &request.source);
                // All of this takes a while where there is much.
                session.get_or_insert_with(|| scope.spawn(|| self.store.session()));
                if let (true, Some(source)) = (wants.is_empty(), want.sources.first().cloned()) {
                    let fetcher = &fetcher;
                    scope.spawn(move || fetcher.prepare(&source));
                }
                bytes += pin.archive.map_or(pin.content.size(), |(_, size)| size);
                wants.push(want);
                pins.push((*data, pin));
            }
            let session = session.map(|session| session.join().unwrap_or_else(|panic| resume_unwind(panic)));
            session.transpose()
        })?;
        let Some(session) = session else { return Ok(()) };
        let count =
            if wants.len() == 1 { format!("`{}`", wants[0].name) } else { format!("{} data sets", wants.len()) };
        if !offline {
            ui.note("Fetching", format!("{count} ({})", HumanSize(bytes)));
        }
        if links && self.settings.link != Link::Hardlink {
            session.links_soon();
        }
        let results = {
            let (events, _display) = ui.events_of((wants.len() > 1).then_some(bytes));
            fetcher.tell(events);
            let came = |i: usize| came(pins[i].0, pins[i].1);
            let results = fetcher.bring_missing(&session, &wants.iter().collect::<Vec<_>>(), came);
            // The display ends when nobody can tell anything any more.
            drop(fetcher);
            results
        };
        session.finish(false)?;
        let (mut errors, mut lacking) = (Vec::new(), Vec::new());
        for ((result, want), (_, pin)) in results.into_iter().zip(&wants).zip(pins) {
            match result {
                Ok(()) => {}
                Err(FetchError::Offline { .. }) => lacking.push(Lacking::data(&self.store, &want.name, pin)?),
                Err(error) => errors.push(error),
            }
        }
        let lacking = (!lacking.is_empty()).then(|| Failure::from(lacking));
        if !errors.is_empty() {
            let mut failure = fetch_failure(&errors);
            failure.problems.extend(lacking.into_iter().flat_map(|failure| failure.problems));
            return Err(failure);
        }
        if let Some(failure) = lacking {
            return Err(failure);
        }
        ui.status("Verified", format!("{count} ({})", HumanSize(bytes)));
        Ok(())
    }

    /// Brings all that these members' steps may need; what can't be had without a network is told together. `link`: puts
    /// data at its place in the project's folder, too; what comes now, as soon as it is there.
    pub(crate) fn bring_all(
        &self,
        lock: &Lock,
        data: &[&Data],
        members: &[usize],
        offline: bool,
        link: bool,
        ui: &Ui,
    ) -> Result<(), Failure> {
        let linked = Mutex::new(BTreeSet::new());
        let came = |data: &Data, pin: &DataPin| {
            // What can't be done here is tried again below, and told there.
            if link && self.place(data, pin, true).is_ok() {
                linked.lock().unwrap_or_else(PoisonError::into_inner).insert(data.request.to.clone());
            }
        };
        let mut lack = Lack::default();
        lack.keep(self.bring_each(lock, data, offline, link, ui, came))?;
        lack.keep(self.bring_equipment(lock, members, offline, ui))?;
        lack.done()?;
        if link {
            let linked = linked.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.link(lock, data, &linked, ui)?;
        }
        Ok(())
    }

    /// Puts data at its place in the project's folder, but for what is there already.
    fn link(&self, lock: &Lock, data: &[&Data], there: &BTreeSet<RelPath>, ui: &Ui) -> Result<(), Failure> {
        for data in data.iter().filter(|data| !there.contains(&data.request.to)) {
            if let Some(pin) = lock.data(data.request.member.as_ref(), &data.request.name) {
                self.place(data, pin, false)?;
            }
        }
        match data {
            [] => ui.status("Finished", "no data to link"),
            [one] => ui.status("Linked", &one.request.to),
            many => ui.status("Linked", format!("{} data sets", many.len())),
        }
        Ok(())
    }

    /// Puts a data set at its place in the project's folder. `fresh`: it came a moment ago.
    fn place(&self, data: &Data, pin: &DataPin, fresh: bool) -> Result<(), StoreError> {
        let (to, link) = (data.request.to.on(&self.workspace.root), self.settings.link);
        match &pin.content {
            Content::File { sha256, size } if fresh => place_fresh(&self.store, sha256, *size, &to, link),
            Content::File { sha256, .. } => place_file(&self.store, sha256, false, &to, link),
            Content::Tree { tree, .. } => place_tree(&self.store, tree, &to, link),
        }
        .map(drop)
    }

    /// How fetching is done.
    pub(crate) fn fetch_settings(&self, offline: bool) -> trainlock_fetch::Settings {
        trainlock_fetch::Settings {
            offline,
            retries: self.settings.retries,
            stall_timeout: self.settings.stall,
            max_connections: self.settings.connections,
            host_connections: self.settings.host_connections,
            limit_rate: self.settings.limit_rate,
            netrc: self.settings.netrc.clone(),
            certificates: self.settings.index_places.certificates(),
            package_index: self.later_index(),
            root: self.workspace.root.clone(),
            hub: self.settings.hub.clone().unwrap_or_else(|| trainlock_fetch::Settings::default().hub),
            credentials: self.settings.credentials.clone(),
            docker: self.settings.docker.clone(),
            objects: self.settings.objects.clone(),
            replace: self.settings.replace.clone(),
            cancel: self.fetch_cancel(),
            ..trainlock_fetch::Settings::default()
        }
    }

    /// Fills in what a run's record says from its start.
    pub(crate) fn describe(
        &self,
        record: &mut RunRecord,
        lock: &Lock,
        params: &BTreeMap<Name, Params>,
        equipment: &Equipments,
        options: &ParamOptions,
    ) {
        record.command = std::env::args_os().map(|a| without_address(&a.to_string_lossy())).collect();
        record.lock = Some(lock.digest().to_string());
        record.profile.clone_from(&options.profile);
        record.set =
            options.set.iter().filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        record.params = params
            .iter()
            .map(|(member, params)| (member.to_string(), params.iter().map(|(n, v)| (n.clone(), json(v))).collect()))
            .collect();
        let name =
            |member: &Option<Name>, name: &Name| member.as_ref().map_or(name.to_string(), |m| format!("{m}/{name}"));
        record.data = lock
            .data
            .iter()
            .map(|pin| DataRecord {
                name: name(&pin.member, &pin.name),
                source: source_of(&pin.source),
                sha256: pin.content.digest().to_string(),
                size: pin.content.size(),
            })
            .collect();
        let mut seen = BTreeSet::new();
        for (name, tool) in equipment.values().flat_map(|e| &e.tools) {
            let program = tool.program().map(|p| p.display().to_string()).unwrap_or_default();
            if !seen.insert((name.clone(), program.clone())) {
                continue;
            }
            let (from, sha256) = match tool {
                Tool::Host(_) => ("host", None),
                Tool::Fetched(fetched) if fetched.stand_in.get().is_some() => ("host", None),
                Tool::Fetched(fetched) => ("lock", Some(fetched.digest.to_string())),
            };
            record.tools.push(ToolRecord {
                name: name.to_string(),
                version: tool.version().to_owned(),
                from: Some(from.to_owned()),
                program,
                sha256,
            });
        }
        let images = &mut record.images;
        for ((member, _), equipment) in equipment {
            if let Some(image) = &equipment.image {
                let (reference, manifest) = (image.reference.to_string(), format!("sha256:{}", image.digest));
                let digest = lock.image(&image.reference).map(|pin| format!("sha256:{}", pin.digest));
                let image = ImageRecord { reference, digest: digest.unwrap_or_default(), manifest };
                if !images.contains(&image) {
                    images.push(image);
                }
            }
            for package in equipment.packages.iter().flat_map(|p| &p.selected) {
                record.packages.push(PackageRecord {
                    member: member.to_string(),
                    name: package.name.clone(),
                    version: package.version.clone(),
                    file: package.file.file.clone(),
                    sha256: package.file.sha256.to_string(),
                });
            }
        }
    }
}

/// The members that the command line selects, by their place in the workspace.
pub(crate) fn selected(workspace: &Workspace, select: &Select) -> Result<Vec<usize>, Failure> {
    let members = &workspace.members;
    if select.workspace || select.projects.is_empty() && workspace.current.is_none() {
        return Ok((0..members.len()).collect());
    }
    let current: Vec<String> = workspace.current.iter().map(Name::to_string).collect();
    let names = if select.projects.is_empty() { &current } else { &select.projects };
    let place = |name: &String| {
        members.iter().position(|m| m.name.as_str() == name).ok_or_else(|| {
            let near = nearest(name, members.iter().map(|m| m.name.as_str()));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            Failure::new(Exit::Invalid, format!("the workspace has no project `{name}`{near}"))
        })
    };
    let mut places: Vec<usize> = names.iter().map(place).collect::<Result<_, _>>()?;
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// The plan of a command.
pub(crate) fn plan<'a>(workspace: &'a Workspace, members: &[usize], steps: &[String]) -> Result<Plan<'a>, Failure> {
    Plan::new(workspace, members, steps).map_err(|error| match error {
        PlanError::Inputs(diagnostics) => Failure::placed(Exit::Invalid, diagnostics),
        PlanError::UnknownStep { .. } => Failure::from_error(Exit::Invalid, &error),
        other => Failure::from_error(Exit::Failed, &other),
    })
}

/// Adds the digests of the tools' programs to a record.
pub(crate) fn hash_tools(record: &mut RunRecord, index: &mut Index) {
    for tool in record.tools.iter_mut().filter(|tool| tool.sha256.is_none()) {
        if let Ok(program) = fs_err::canonicalize(&tool.program)
            && let Ok(Some(state)) = index.file(&program)
        {
            tool.sha256 = Some(state.sha256.to_string());
        }
    }
}

/// What a pin wants from the request's sources: the lock holds no address with which something private can be had.
pub(crate) fn want(pin: &DataPin, request: &DataSource) -> Want {
    let name = pin.member.as_ref().map_or(pin.name.to_string(), |m| format!("{m}/{}", pin.name));
    let (sources, extract, unpack) = match request {
        DataSource::Url { url, mirrors, extract, unpack, .. } => {
            // An object is asked for at its version, and as it is now if that is gone: the hash decides.
            let resolved = pin.resolved.as_ref().and_then(|text| SourceUrl::parse(text).ok());
            let at_version = resolved.filter(|at| matches!(at, SourceUrl::Object(_)));
            let sources = at_version.iter().chain(std::iter::once(url)).chain(mirrors).cloned().collect();
            (sources, extract.as_ref(), *unpack)
        }
        _ => (Vec::new(), None, false),
    };
    if let (Content::Tree { tree, size, count, listing }, false) = (&pin.content, unpack) {
        let many = ManyWanted {
            source: request.clone(),
            resolved: pin.resolved.clone(),
            by: pin.archive,
            tree: *tree,
            size: *size,
            count: *count,
            listing: listing.clone(),
            versions: pin.versions.clone(),
        };
        return Want { name, sources, content: FetchWanted::Many(Box::new(many)) };
    }
    let content = match (&pin.content, pin.archive, extract) {
        (Content::File { sha256, size }, Some(archive), Some(member)) => {
            FetchWanted::Member { archive, member: member.clone(), sha256: *sha256, size: *size }
        }
        (Content::File { sha256, size }, ..) => FetchWanted::File { sha256: *sha256, size: *size },
        (Content::Tree { tree, size, count, .. }, Some(archive), _) => {
            FetchWanted::Tree { archive, tree: *tree, size: *size, count: *count }
        }
        (Content::Tree { .. }, None, _) => unreachable!("what is unpacked comes in an archive"),
    };
    Want { name, sources, content }
}

/// What fetch errors mean for the command.
pub(crate) fn fetch_failure(errors: &[FetchError]) -> Failure {
    let code = if errors.iter().any(|e| matches!(e, FetchError::Interrupted { .. })) {
        Exit::Interrupted
    } else if errors.iter().any(FetchError::is_verification) {
        Exit::Unverified
    } else {
        Exit::Failed
    };
    let problem = |error: &FetchError| {
        let mut problem = Problem::from_error(error);
        if let Problem::Plain { hints, .. } = &mut problem {
            hints.extend(error.hint());
        }
        problem
    };
    // That it was interrupted is said once, and so is that the store has no space left.
    let is_broken_off = |error: &&FetchError| matches!(error, FetchError::Interrupted { .. });
    let (broken_off, others): (Vec<_>, Vec<_>) = errors.iter().partition(is_broken_off);
    let is_full = |error: &&FetchError| matches!(error, FetchError::Store { error: StoreError::Full { .. }, .. });
    let (full, others): (Vec<&FetchError>, Vec<_>) = others.into_iter().partition(is_full);
    let mut problems: Vec<Problem> = others.into_iter().map(problem).collect();
    problems.extend(match &full[..] {
        [FetchError::Store { error: StoreError::Full { path, free, .. }, .. }, _, ..] => {
            let needed = |error: &&FetchError| match error {
                FetchError::Store { error: StoreError::Full { needed, .. }, .. } => *needed,
                _ => 0,
            };
            let needed = full.iter().map(needed).sum();
            let cause = StoreError::Full { path: path.clone(), needed, free: *free };
            Some(Problem::plain(format!("could not keep {} data sets in the store: {cause}", full.len())))
        }
        few => few.first().map(|error| problem(error)),
    });
    problems.extend(match &broken_off[..] {
        [] => None,
        [one] => Some(problem(one)),
        many => Some(Problem::plain(format!("interrupted while fetching {} data sets", many.len()))),
    });
    Failure { code, problems }
}

/// What a machine (this one) has for steps to share.
pub(crate) fn capacity(machine: &Machine) -> Capacity {
    let mut gpus: Vec<u32> = fs_err::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.strip_prefix("nvidia")?.parse().ok())
        .collect();
    gpus.sort_unstable();
    Capacity { cpus: machine.cpus as u32, memory: machine.memory, gpus }
}

/// The last lines of a log.
pub(crate) fn end_of_log(log: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs_err::File::open(log)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(64 << 10)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// All that the store keeps for a project: what its lock pins and seals, and the last results of its steps.
pub(crate) fn live(root: &Path, store: &Store, live: &mut trainlock_store::Live) -> Result<(), Failure> {
    let lock = Lock::load(&root.join("train.lock")).map_err(|e| {
        Failure::from_error(Exit::Failed, &e)
            .hint("nothing was removed: repair that lock first, or move the project's folder away")
    })?;
    for pin in lock.iter().flat_map(|l| &l.data) {
        live.objects.insert(pin.content.digest());
        live.objects.extend(pin.archive.map(|(digest, _)| digest));
    }
    for lock in lock.iter() {
        equip::live(lock, store, live)?;
    }
    // The bytes of sealed results are what a divergence is explained with.
    for pin in lock.iter().flat_map(|l| &l.results) {
        live.objects.extend(pin.outputs.iter().map(|o| o.sha256));
        live.results.insert(pin.key);
    }
    let keys: Vec<Digest> = State::load(&root.join(".trainlock/state")).keys().collect();
    for key in keys {
        let result = store.result(&key)?.and_then(|bytes| trainlock_run::StepResult::from_bytes(&bytes));
        live.objects.extend(result.iter().flat_map(|r| &r.outputs).map(|o| o.content.digest()));
        live.results.insert(key);
    }
    Ok(())
}

/// A value as JSON.
pub(crate) fn json(value: &Value) -> serde_json::Value {
    serde_json::from_str(&value.to_json()).expect("a value is JSON")
}

/// Where data comes from, as it may be shown.
pub(crate) fn source_of(source: &DataSource) -> String {
    match source {
        DataSource::Url { url, .. } => url.redacted(),
        DataSource::Path(path) | DataSource::Pooch { registry: path, .. } => path.to_string(),
        DataSource::Croissant(location) => {
            SourceUrl::parse(location).map_or_else(|_| location.clone(), |url| url.redacted())
        }
    }
}
