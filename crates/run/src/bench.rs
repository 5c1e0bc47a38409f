//! The workbench: all that deciding about a step needs, and the decisions.

use crate::key::{Form, step_seed};
use crate::plan::{Feed, Node, Part, Plan, is_in_repository};
use crate::result::{Content, OutputRecord, Role, State, StepResult};
use crate::verdict::Outcome;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::LazyLock;
use trainlock_env::determinism::numeric_class;
use trainlock_env::sandbox::{Hub, HubFile, Repository};
use trainlock_env::{Equipment, Isolation, Machine, Outfit, STEP_PATH};
use trainlock_lock::{Content as PinContent, Lock, Switches};
use trainlock_manifest::{InputPattern, Run, Service, Workspace};
use trainlock_store::{FileState, Index, Store, StoreError};
use trainlock_types::{
    DataSource, Digest, Entry, EntryKind, Listing, Name, Params, Platform, RelPath, SourceUrl, hub_id,
};

/// Source files of one input beyond this number are one fact of the key, not one each.
const FACTS_PER_INPUT: usize = 256;

/// Everything that decisions are made from.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The manifests.
    pub workspace: &'a Workspace,
    /// The lock that they agree with.
    pub lock: &'a Lock,
    /// The store.
    pub store: &'a Store,
    /// Each member's params, with profile and `--set` applied.
    pub params: &'a BTreeMap<Name, Params>,
    /// What each member's steps are equipped with.
    pub equipment: &'a BTreeMap<Outfit, Equipment>,
    /// The stat index of the project's folder.
    pub index: Index,
    /// What the project last had.
    pub state: State,
    /// The shell for `run` strings: its file, and the options before the script.
    pub shell: &'a Shell,
    /// This machine.
    pub machine: Machine,
    /// The sources as this run has found them.
    sources: HashMap<RelPath, FileState>,
}

/// What runs a step's script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// The shell's file.
    pub program: PathBuf,
    /// What stands before the script on its command line.
    pub options: &'static [&'static str],
}

/// What runs a step's script in an image: every image with a shell has this one.
pub(crate) static IMAGE_SHELL: LazyLock<Shell> =
    LazyLock::new(|| Shell { program: "/bin/sh".into(), options: &["-eu", "-c"] });

impl Shell {
    /// bash if the system has one where steps look for programs, else sh.
    pub fn find() -> Shell {
        let bash = STEP_PATH.split(':').map(|folder| PathBuf::from(folder).join("bash")).find(|p| p.is_file());
        match bash {
            Some(program) => Shell { program, options: &["-euo", "pipefail", "-c"] },
            None => Shell { program: "/bin/sh".into(), options: &["-eu", "-c"] },
        }
    }
}

/// Why a decision could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The store is in trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the project could not be hashed.
    #[error("can't read an input")]
    Hash(#[source] trainlock_store::HashError),
    /// The part of a folder that an input names is not there.
    #[error("step `{step}` reads `{what}`, which is not in `{of}`")]
    NoSuchPart {
        /// The step.
        step: String,
        /// The input.
        what: String,
        /// The output or data set.
        of: RelPath,
    },
    /// A source file changed or vanished since it was looked at.
    #[error("`{0}` changed while trainlock was at work: run the command again")]
    Gone(RelPath),
    /// The lock names no commit of a data set that is to be served.
    #[error("train.lock names no commit of `{0}`, which the step's hub is to have")]
    NoCommit(Name),
    /// The listing of a data set is needed, and neither lock nor store has it.
    #[error("`{0}` has not been fetched")]
    NotHere(RelPath),
    /// The lock lacks a data set: before it is brought up to date, as `status` finds it.
    #[error("data `{0}` is not in train.lock")]
    Unlocked(Name),
}

/// One thing to lay into a step's folder. Paths are the workspace's.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A source file of the project, as hashed.
    Source { path: RelPath, entry: Entry },
    /// A file or folder of the repository that the lock pins as data; `settle` makes sources of it.
    Repository { path: RelPath, digest: Digest },
    /// An object of the store.
    Object { path: RelPath, sha256: Digest, executable: bool },
    /// A whole tree of the store.
    Tree { path: RelPath, tree: Digest },
    /// Some files of a tree of the store; `path` is where the tree itself would stand.
    Files { path: RelPath, tree: Digest, files: Vec<Entry> },
}

impl Place {
    /// Where in the workspace.
    pub(crate) fn path(&self) -> &RelPath {
        match self {
            Place::Source { path, .. }
            | Place::Repository { path, .. }
            | Place::Object { path, .. }
            | Place::Tree { path, .. }
            | Place::Files { path, .. } => path,
        }
    }
}

/// A step with its key known.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) form: Form,
    pub(crate) key: Digest,
    pub(crate) places: Vec<Place>,
    /// The files that each input which is a glob stands for, by the input's index.
    pub(crate) globbed: Vec<Vec<RelPath>>,
    pub(crate) seed: u64,
    /// What the step's hub has, without the files; none if it has no hub.
    pub(crate) hub: Option<Hub>,
}

/// What is to be done about a step.
#[expect(clippy::large_enum_variant, reason = "a value lives for a moment, and there are few of them")]
#[derive(Debug)]
pub(crate) enum Decision {
    /// Nothing: the project has its outputs, and these are the numbers of its metric files.
    Fresh(Vec<OutputRecord>, BTreeMap<String, f64>),
    /// Bring its outputs back from the store.
    Restore(StepResult),
    /// Run it, for these reasons.
    Run(Vec<String>),
}

/// What `status`, `why` and `--dry-run` say of a step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// The project has its outputs.
    Fresh,
    /// Its outputs would be brought back from the store.
    Restore,
    /// It would run.
    Run {
        /// Why.
        why: Vec<String>,
    },
    /// Its key depends on what these steps will make.
    Waits {
        /// The steps.
        on: Vec<String>,
    },
}

/// A step and what would be done about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StepStatus {
    /// `member/step`, or `step` in the root project.
    pub step: String,
    /// Its key, where it can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// What would be done.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What there is of a step to be sealed.
#[expect(clippy::large_enum_variant, reason = "a value lives for a moment, and there are few of them")]
#[derive(Debug, Clone)]
pub enum Sealable {
    /// It has a result.
    Done {
        /// The result.
        outcome: Outcome,
        /// The numeric class that it was made in.
        class: String,
        /// How its making was kept apart from the machine.
        isolation: Isolation,
    },
    /// It has none.
    NotDone {
        /// Why.
        why: String,
    },
}

impl<'a> Bench<'a> {
    /// A bench of these parts.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        workspace: &'a Workspace,
        lock: &'a Lock,
        store: &'a Store,
        params: &'a BTreeMap<Name, Params>,
        equipment: &'a BTreeMap<Outfit, Equipment>,
        shell: &'a Shell,
        index: Index,
        state: State,
    ) -> Bench<'a> {
        Bench {
            workspace,
            lock,
            store,
            params,
            equipment,
            index,
            state,
            shell,
            machine: Machine::here(),
            sources: HashMap::new(),
        }
    }

    /// Hashes all sources of a plan that the index does not know, on all cores. From then on they are
    /// taken to be what they were: a run has one picture of them.
    pub fn hash_sources(&mut self, plan: &Plan<'_>) -> Result<(), BenchError> {
        let sources: Vec<&RelPath> =
            plan.sources().into_iter().filter(|path| !self.sources.contains_key(*path)).collect();
        let paths: Vec<PathBuf> = sources.iter().map(|p| p.on(&self.workspace.root)).collect();
        let states = self.index.files(&paths).map_err(BenchError::Hash)?;
        for (path, state) in sources.into_iter().zip(states) {
            if let Some(state) = state.filter(|s| s.kind != EntryKind::Symlink) {
                self.sources.insert(path.clone(), state);
            }
        }
        Ok(())
    }

    /// What a step is equipped with.
    pub(crate) fn equipment_of(&self, node: &Node<'_>) -> Option<&'a Equipment> {
        self.equipment.get(&node.outfit())
    }

    /// The key of a step whose needs are done, and what goes into its folder.
    pub(crate) fn prepare(&mut self, node: &Node<'_>, done: &Done) -> Result<Prepared, BenchError> {
        let (member, step) = (node.member, node.step);
        let params = &self.params[&member.name];
        let seed = step_seed(member.determinism.seed, &member.name, &step.name);
        let mut form = Form::default();
        match &step.run {
            Run::Shell(template) => {
                form.set("command", template.written.clone());
                let shell = if step.image.is_some() { &IMAGE_SHELL } else { self.shell };
                let name = shell.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
                form.set("shell", format!("{name} {}", shell.options.join(" ")));
            }
            Run::Exec(templates) => form.set("command", json(templates.iter().map(|t| &t.written))),
        }
        form.set("platform", Platform::host().as_str());
        form.set("seed", seed.to_string());
        form.set("level", member.determinism.level.as_str());
        if let Some(switches) = self.switches(node) {
            let all: String = switches.variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            form.set("switches", format!("{} {}", switches.level, Digest::of(all.as_bytes()).short()));
        }
        if member.determinism.seed_globals {
            form.set("seed-globals", "true");
        }
        form.set("network", step.network.to_string());
        form.set("inputs", json(step.inputs.iter().map(|i| &i.written)));
        for (name, value) in &step.env {
            form.set(format!("env:{name}"), value.clone());
        }
        for (name, value) in step.params_seen(params) {
            form.set(format!("param:{name}"), value.to_json());
        }
        for (fact, value) in self.equipment_of(node).into_iter().flat_map(Equipment::facts) {
            form.set(fact, value);
        }
        for output in &step.outputs {
            let kind = if output.folder { "folder" } else { "file" };
            form.set(
                format!("output:{}", output.path.relative_to(&member.dir)),
                format!("{} {kind}", output.kind.key()),
            );
        }
        let mut places = Vec::new();
        let mut globbed = Vec::with_capacity(step.inputs.len());
        for (feeds, input) in node.inputs.iter().zip(&step.inputs) {
            let facts = self.input(node, feeds, done, &mut places)?;
            globbed.push(match input.pattern {
                InputPattern::Glob { .. } => facts.iter().map(|(path, _)| path.clone()).collect(),
                InputPattern::Path { .. } => Vec::new(),
            });
            if facts.len() > FACTS_PER_INPUT {
                let all: String = facts.iter().map(|(path, fact)| format!("{fact} {path}\n")).collect();
                form.set(format!("input:{}", input.written), format!("files:{}", Digest::of(all.as_bytes())));
            } else {
                for (path, fact) in facts {
                    form.set(format!("input:{}", path.relative_to(&member.dir)), fact);
                }
            }
        }
        let hub = self.hub(node)?;
        if let Some(hub) = &hub {
            form.set("serve", Service::Hf.as_str());
            for it in &hub.repositories {
                let fact = format!("{} {} {}", it.id, it.revision, it.commit);
                form.set(format!("hub:{}", it.at.relative_to(&member.dir)), fact);
            }
        }
        Ok(Prepared { key: form.key(), form, places, globbed, seed, hub })
    }

    /// The hub of a step that has one: the repositories among its inputs, without their files.
    fn hub(&self, node: &Node<'_>) -> Result<Option<Hub>, BenchError> {
        if !node.step.serve.contains(&Service::Hf) {
            return Ok(None);
        }
        let mut repositories: Vec<Repository> = Vec::new();
        for data in node.data() {
            let request = &data.request;
            let DataSource::Url { url: SourceUrl::Hf(address), rev, .. } = &request.source else { continue };
            if repositories.iter().any(|known| known.at == request.to) {
                continue;
            }
            let pin = self
                .lock
                .data(request.member.as_ref(), &request.name)
                .ok_or_else(|| BenchError::Unlocked(request.name.clone()))?;
            let commit =
                pin.resolved.as_deref().and_then(|resolved| resolved.rsplit_once('@')).map(|(_, commit)| commit);
            repositories.push(Repository {
                id: hub_id(address).to_owned(),
                commit: commit.ok_or_else(|| BenchError::NoCommit(request.name.clone()))?.to_owned(),
                revision: rev.clone().unwrap_or_else(|| "main".to_owned()),
                at: request.to.clone(),
                files: Vec::new(),
            });
        }
        Ok(Some(Hub { repositories }))
    }

    /// The same with the files that the step finds at these places.
    pub(crate) fn filled(&self, mut hub: Hub, places: &[Place]) -> Result<Hub, BenchError> {
        for repository in &mut hub.repositories {
            let mut files = BTreeMap::new();
            let mut take =
                |entries: &[Entry]| files.extend(entries.iter().map(|e| (e.path.clone(), (e.size, e.sha256))));
            for place in places.iter().filter(|place| *place.path() == repository.at) {
                match place {
                    Place::Files { files, .. } => take(files),
                    Place::Tree { tree, path } => {
                        let listing = self.store.listing(tree)?.ok_or_else(|| BenchError::NotHere(path.clone()))?;
                        take(listing.entries());
                    }
                    _ => {}
                }
            }
            let file = |(path, (size, sha256))| HubFile { path, size, sha256 };
            repository.files = files.into_iter().map(file).collect();
        }
        Ok(hub)
    }

    /// The facts of one declared input, sorted by path, and the places that it fills.
    fn input(
        &mut self,
        node: &Node<'_>,
        feeds: &[Feed<'_>],
        done: &Done,
        places: &mut Vec<Place>,
    ) -> Result<Vec<(RelPath, String)>, BenchError> {
        let mut facts = Vec::new();
        for feed in feeds {
            match feed {
                Feed::Source(path) => {
                    let entry = self.source(path)?;
                    facts.push((path.clone(), content(&entry).fact()));
                    places.push(Place::Source { path: path.clone(), entry });
                }
                Feed::Output { node: maker, output, part } => {
                    let (path, record) = done.output(*maker, *output);
                    self.part(node, path, &record.content, part, None, &mut facts, places)?;
                }
                Feed::Data { data, part } => {
                    let request = &data.request;
                    let pin = self
                        .lock
                        .data(request.member.as_ref(), &request.name)
                        .ok_or_else(|| BenchError::Unlocked(request.name.clone()))?;
                    let content = match &pin.content {
                        PinContent::File { sha256, size } => {
                            Content::File { sha256: *sha256, size: *size, executable: false }
                        }
                        PinContent::Tree { tree, size, count, .. } => {
                            Content::Tree { tree: *tree, size: *size, count: *count }
                        }
                    };
                    let to = &request.to;
                    match (is_in_repository(data), part) {
                        (false, part) => {
                            let listing = if let PinContent::Tree { listing, .. } = &pin.content {
                                listing.as_ref()
                            } else {
                                None
                            };
                            self.part(node, to, &content, part, listing, &mut facts, places)?;
                        }
                        (true, Part::Whole) => {
                            facts.push((to.clone(), content.fact()));
                            places.push(Place::Repository { path: to.clone(), digest: content.digest() });
                        }
                        (true, part) => {
                            let listing = self.folder(to)?;
                            let files = choose(&listing, to, part);
                            if files.is_empty() {
                                return Err(no_such_part(node, to, part));
                            }
                            for entry in files {
                                let path = to.join(&entry.path);
                                facts.push((path.clone(), self::content(&entry).fact()));
                                places.push(Place::Source { path, entry });
                            }
                        }
                    }
                }
            }
        }
        facts.sort();
        Ok(facts)
    }

    /// A part of a file or tree in the store. `known` is the listing that the lock has, if any.
    #[expect(clippy::too_many_arguments, reason = "two of them are what is being built")]
    fn part(
        &mut self,
        node: &Node<'_>,
        path: &RelPath,
        content: &Content,
        part: &Part,
        known: Option<&Listing>,
        facts: &mut Vec<(RelPath, String)>,
        places: &mut Vec<Place>,
    ) -> Result<(), BenchError> {
        match (content, part) {
            (Content::File { sha256, executable, .. }, Part::Whole) => {
                facts.push((path.clone(), content.fact()));
                places.push(Place::Object { path: path.clone(), sha256: *sha256, executable: *executable });
            }
            (Content::Tree { tree, .. }, Part::Whole) => {
                facts.push((path.clone(), content.fact()));
                places.push(Place::Tree { path: path.clone(), tree: *tree });
            }
            (Content::File { .. }, _) => return Err(no_such_part(node, path, part)),
            (Content::Tree { tree, .. }, part) => {
                let listing = match (known, self.store.listing(tree)?) {
                    (Some(listing), _) => listing.clone(),
                    (None, Some(listing)) => listing,
                    (None, None) => {
                        let here = self.folder(path)?;
                        if here.digest() != *tree {
                            return Err(BenchError::NotHere(path.clone()));
                        }
                        here
                    }
                };
                let files = choose(&listing, path, part);
                if files.is_empty() {
                    return Err(no_such_part(node, path, part));
                }
                facts.extend(files.iter().map(|e| (path.join(&e.path), self::content(e).fact())));
                places.push(Place::Files { path: path.clone(), tree: *tree, files });
            }
        }
        Ok(())
    }

    /// A source file; one that is a symbolic link counts as the file that it leads to.
    fn source(&mut self, path: &RelPath) -> Result<Entry, BenchError> {
        let state = match self.sources.get(path) {
            Some(state) => *state,
            None => {
                let gone = || BenchError::Gone(path.clone());
                let real = fs_err::canonicalize(path.on(&self.workspace.root)).map_err(|_| gone())?;
                let state = self.index.file(&real).map_err(BenchError::Hash)?.ok_or_else(gone)?;
                self.sources.insert(path.clone(), state);
                state
            }
        };
        Ok(Entry { path: path.clone(), sha256: state.sha256, size: state.size, kind: state.kind })
    }

    fn folder(&mut self, path: &RelPath) -> Result<Listing, BenchError> {
        self.index.folder(&path.on(&self.workspace.root), |_| true).map_err(BenchError::Hash)
    }

    /// Makes sources of what the repository itself holds as data, and checks that it is what the lock says. So too of outputs
    /// that stand in the project and are not in the store any more.
    pub(crate) fn settle(&mut self, places: Vec<Place>) -> Result<Vec<Place>, BenchError> {
        let mut settled = Vec::with_capacity(places.len());
        for place in places {
            match self.as_sources(&place)? {
                Some(sources) => settled.extend(sources),
                None => settled.push(place),
            }
        }
        Ok(settled)
    }

    /// What the project has of this; none if it comes from the store.
    fn as_sources(&mut self, place: &Place) -> Result<Option<Vec<Place>>, BenchError> {
        let (path, digest) = match place {
            Place::Source { .. } => return Ok(None),
            Place::Repository { path, digest } => (path, digest),
            Place::Object { path, sha256, .. } if self.store.object(sha256, None)?.is_none() => (path, sha256),
            Place::Tree { path, tree } | Place::Files { path, tree, .. } if !self.store.has_tree(tree) => (path, tree),
            Place::Object { .. } | Place::Tree { .. } | Place::Files { .. } => return Ok(None),
        };
        let entries = if path.on(&self.workspace.root).is_dir() {
            let listing = self.folder(path)?;
            if listing.digest() != *digest {
                return Err(BenchError::Gone(path.clone()));
            }
            match place {
                Place::Files { files, .. } => files.clone(),
                _ => listing.into_entries(),
            }
        } else {
            let entry = self.source(path)?;
            if entry.sha256 != *digest {
                return Err(BenchError::Gone(path.clone()));
            }
            return Ok(Some(vec![Place::Source { path: path.clone(), entry }]));
        };
        Ok(Some(entries.into_iter().map(|entry| Place::Source { path: path.join(&entry.path), entry }).collect()))
    }

    /// Whether the project's folder has exactly these outputs.
    fn in_project(&mut self, node: &Node<'_>, outputs: &[OutputRecord]) -> bool {
        outputs.iter().all(|output| {
            let Ok(path) = node.member.dir.resolve(&output.path) else { return false };
            let on_disk = path.on(&self.workspace.root);
            match &output.content {
                wanted @ Content::File { .. } => {
                    matches!(self.index.file(&on_disk), Ok(Some(state)) if state.kind != EntryKind::Symlink && file_content(state) == *wanted)
                }
                Content::Tree { tree, .. } => {
                    on_disk.is_dir() && self.index.folder(&on_disk, |_| true).is_ok_and(|l| l.digest() == *tree)
                }
            }
        })
    }

    /// What is to be done about a step.
    pub(crate) fn decide(&mut self, node: &Node<'_>, prepared: &Prepared, force: bool) -> Result<Decision, BenchError> {
        if force {
            return Ok(Decision::Run(vec!["forced".to_owned()]));
        }
        let last = self.state.get(&node.id).filter(|last| last.key == prepared.key).map(|last| last.outputs.clone());
        if let Some(outputs) = last
            && self.in_project(node, &outputs)
        {
            // The numbers are in the store's result; a step without metrics need not be looked up there.
            let metrics = match outputs.iter().any(|o| o.role == Role::Metric) {
                true => stored_result(self.store, &prepared.key)?.map(|r| r.metrics),
                false => Some(BTreeMap::new()),
            };
            if let Some(metrics) = metrics {
                return Ok(Decision::Fresh(outputs, metrics));
            }
        }
        let Some(result) = stored_result(self.store, &prepared.key)? else {
            return Ok(Decision::Run(self.why(node, prepared)?));
        };
        if self.in_project(node, &result.outputs) {
            return Ok(Decision::Fresh(result.outputs, result.metrics));
        }
        if in_store(self.store, &result.outputs)? {
            return Ok(Decision::Restore(result));
        }
        Ok(Decision::Run(vec!["its outputs are neither here nor in the store any more".to_owned()]))
    }

    /// Why a step without a result under its key must run: what changed since its last result here.
    fn why(&self, node: &Node<'_>, prepared: &Prepared) -> Result<Vec<String>, BenchError> {
        let Some(last) = self.state.get(&node.id) else {
            return Ok(vec!["it has not run here".to_owned()]);
        };
        if last.key == prepared.key {
            return Ok(vec!["its result is no longer in the store".to_owned()]);
        }
        match stored_result(self.store, &last.key)? {
            Some(old) => Ok(prepared.form.differences(&old.form).iter().map(ToString::to_string).collect()),
            None => Ok(vec!["something changed since its last result, which is no longer in the store".to_owned()]),
        }
    }

    /// What a run would do about each step of a plan, without doing it.
    pub fn survey(&mut self, plan: &Plan<'_>, force: bool) -> Result<Vec<StepStatus>, BenchError> {
        self.hash_sources(plan)?;
        let mut done = Done::new(plan);
        let mut statuses = Vec::with_capacity(plan.nodes.len());
        for (i, node) in plan.nodes.iter().enumerate() {
            let on: Vec<String> =
                node.needs.iter().filter(|n| !done.has(**n)).map(|n| plan.nodes[*n].id.clone()).collect();
            if !on.is_empty() {
                statuses.push(StepStatus { step: node.id.clone(), key: None, verdict: Verdict::Waits { on } });
                continue;
            }
            let prepared = match self.prepare(node, &done) {
                Ok(prepared) => prepared,
                Err(error) => {
                    let why = vec![match error {
                        BenchError::NotHere(path) => format!("`{path}` is not in the store yet"),
                        BenchError::Unlocked(name) => format!("data `{name}` is not locked yet"),
                        other => return Err(other),
                    }];
                    statuses.push(StepStatus { step: node.id.clone(), key: None, verdict: Verdict::Run { why } });
                    continue;
                }
            };
            let verdict = match self.decide(node, &prepared, force)? {
                Decision::Fresh(outputs, _) => {
                    done.set(i, outputs);
                    Verdict::Fresh
                }
                Decision::Restore(result) => {
                    done.set(i, result.outputs);
                    Verdict::Restore
                }
                Decision::Run(why) => Verdict::Run { why },
            };
            statuses.push(StepStatus { step: node.id.clone(), key: Some(prepared.key), verdict });
        }
        Ok(statuses)
    }
}

impl Bench<'_> {
    /// What the step's level means on this machine's architecture, as the lock has it.
    pub fn switches(&self, node: &Node<'_>) -> Option<&'_ Switches> {
        let table = self.lock.determinism.get(&crate::verdict::member(node).cloned())?;
        table.switches.get(std::env::consts::ARCH)
    }

    /// The numeric class that a step has on this machine: where its bits are promised.
    pub fn class(&self, node: &Node<'_>) -> String {
        let switches = self.switches(node);
        let set = |(name, value): (&String, &String)| {
            let own = node.step.env.get(name)?;
            (own != value).then(|| (name.clone(), own.clone()))
        };
        let changed: Vec<(String, String)> = switches.iter().flat_map(|s| &s.variables).filter_map(set).collect();
        let level = switches.map_or(node.member.determinism.level.as_str(), |s| s.level.as_str());
        let gpus = if node.step.resources.gpus > 0 { self.machine.gpus.as_slice() } else { &[] };
        numeric_class(&self.machine.platform, &self.machine.libc, level, &self.machine.cpu, gpus, &changed)
    }

    /// What there is of each step of a plan to be sealed.
    pub fn sealable(&mut self, plan: &Plan<'_>) -> Result<Vec<Sealable>, BenchError> {
        let statuses = self.survey(plan, false)?;
        let mut all = Vec::with_capacity(statuses.len());
        for status in statuses {
            let key = status.key.filter(|_| matches!(status.verdict, Verdict::Fresh | Verdict::Restore));
            let result = match &key {
                Some(key) => stored_result(self.store, key)?,
                None => None,
            };
            all.push(match (key, result, status.verdict) {
                (Some(key), Some(result), _) => {
                    let (class, isolation) = (result.class.clone(), result.isolation.clone());
                    Sealable::Done { outcome: result.into_outcome(key), class, isolation }
                }
                (Some(_), None, _) => {
                    Sealable::NotDone { why: "it is no longer in the store (train it with --force)".to_owned() }
                }
                (None, _, Verdict::Run { why }) => Sealable::NotDone { why: why.join("; ") },
                (None, _, Verdict::Waits { on }) => Sealable::NotDone { why: format!("it needs {}", on.join(", ")) },
                (None, ..) => Sealable::NotDone { why: "it has not run".to_owned() },
            });
        }
        Ok(all)
    }
}

/// A result of the store, if it has one under this key in a version that this trainlock reads.
pub(crate) fn stored_result(store: &Store, key: &Digest) -> Result<Option<StepResult>, StoreError> {
    Ok(store.result(key)?.and_then(|bytes| StepResult::from_bytes(&bytes)))
}

/// Whether the store has all of these.
pub(crate) fn in_store(store: &Store, outputs: &[OutputRecord]) -> Result<bool, StoreError> {
    for output in outputs {
        let there = match &output.content {
            Content::File { sha256, size, .. } => store.object(sha256, Some(*size))?.is_some(),
            Content::Tree { tree, .. } => store.has_tree(tree),
        };
        if !there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a listing's entry is, as an output or input.
fn content(entry: &Entry) -> Content {
    file_content(FileState { sha256: entry.sha256, size: entry.size, kind: entry.kind })
}

fn file_content(state: FileState) -> Content {
    Content::File { sha256: state.sha256, size: state.size, executable: state.kind == EntryKind::Executable }
}

/// The entries of a tree at `path` that a part names, with paths in the tree.
fn choose(listing: &Listing, path: &RelPath, part: &Part) -> Vec<Entry> {
    match part {
        Part::Whole => listing.entries().to_vec(),
        Part::Below(below) => {
            listing.below(below).into_iter().map(|e| Entry { path: below.join(&e.path), ..e }).collect()
        }
        Part::Matching(folder, glob) => {
            let matches = |e: &&Entry| path.join(&e.path).below(folder).is_some_and(|p| glob.is_match(p.as_str()));
            listing.entries().iter().filter(matches).cloned().collect()
        }
    }
}

fn no_such_part(node: &Node<'_>, of: &RelPath, part: &Part) -> BenchError {
    let what = match part {
        Part::Whole => of.to_string(),
        Part::Below(below) => of.join(below).to_string(),
        Part::Matching(folder, glob) => format!("{folder}/{}", glob.glob().glob()),
    };
    BenchError::NoSuchPart { step: node.id.clone(), what, of: of.clone() }
}

fn json<'t>(texts: impl Iterator<Item = &'t String>) -> String {
    serde_json::to_string(&texts.collect::<Vec<_>>()).expect("texts are JSON")
}

/// The outputs of the steps that are done.
#[derive(Debug)]
pub(crate) struct Done {
    outputs: Vec<Option<Vec<OutputRecord>>>,
    paths: Vec<Vec<RelPath>>,
}

impl Done {
    pub(crate) fn new(plan: &Plan<'_>) -> Done {
        let paths = |n: &Node<'_>| n.step.outputs.iter().map(|o| o.path.clone()).collect();
        Done { outputs: vec![None; plan.nodes.len()], paths: plan.nodes.iter().map(paths).collect() }
    }

    pub(crate) fn set(&mut self, node: usize, outputs: Vec<OutputRecord>) {
        self.outputs[node] = Some(outputs);
    }

    pub(crate) fn has(&self, node: usize) -> bool {
        self.outputs[node].is_some()
    }

    /// An output of a node that is done, and its path in the workspace.
    fn output(&self, node: usize, output: usize) -> (&RelPath, &OutputRecord) {
        let records = self.outputs[node].as_ref().expect("what a step needs is done before it");
        (&self.paths[node][output], &records[output])
    }
}

#[cfg(test)]
mod tests;
