//! Bringing train.lock and the manifests to agree.

use crate::cli::LockOptions;
use crate::exit::{Exit, Failure, Problem};
use crate::project::{self, Project};
use crate::ui::Ui;
use fs_err as fs;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use trainlock_env::{HostTools, ToolError};
use trainlock_fetch::{FetchError, Fetcher};
use trainlock_lock::{Content, Determinism, Lock, LockError, Switches};
use trainlock_manifest::Workspace;
use trainlock_resolve::{
    BoxError, Change, DataAnswer, Mode, Provider, Resolution, ResolveError, Wanted, WantedMember, resolve, settle,
    stale,
};
use trainlock_store::{Index, Session, Store};
use trainlock_types::{DataRequest, DataSource, RelPath, ToolRequest};

pub(crate) use crate::project::Locking;

impl Project {
    /// The lock, brought to agree with the manifests as far as `locking` allows.
    pub(crate) fn lock(&mut self, locking: Locking, offline: bool, ui: &Ui) -> Result<Lock, Failure> {
        self.refuse_unsupported()?;
        let path = self.workspace.root.join("train.lock");
        let wanted = wanted(&self.workspace);
        let heals = locking != Locking::Check;
        let asked = matches!(locking, Locking::Lock | Locking::Update(_));
        let found = self.read_ahead(&path).unwrap_or_else(|| Lock::load(&path));
        let old = taken(found, &path, &wanted, heals)?;
        if !matches!(locking, Locking::Update(_)) {
            let changes = self.stale(&wanted, old.lock.as_ref())?;
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
            let mut sources = Sources {
                seen: &mut self.seen,
                fetcher: Some((fetcher, &session)),
                index: &mut self.index,
                tools: Some(&mut self.host),
                root: &self.workspace.root,
            };
            resolve(&wanted, old.lock.as_ref(), &mode, &mut sources)
        };
        session.finish(false)?;
        self.save_caches();
        let Resolution { lock, changes } = resolution.map_err(failure)?;
        let written = lock.save(&path).map_err(|e| lock_failure(&e))?;
        for change in &changes {
            ui.status("Locked", change);
        }
        if written && changes.is_empty() {
            ui.status("Locked", path.display());
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
        self.refuse_unsupported()?;
        let path = self.workspace.root.join("train.lock");
        let wanted = wanted(&self.workspace);
        let found = self.read_ahead(&path).unwrap_or_else(|| Lock::load(&path));
        let old = taken(found, &path, &wanted, false)?;
        let changes = self.stale(&wanted, old.lock.as_ref())?;
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
            fetcher: None,
            index: &mut self.index,
            tools: None,
            root: &self.workspace.root,
        };
        match resolve(&wanted, old.lock.as_ref(), &Mode::Lock, &mut sources) {
            Ok(resolution) => Ok(resolution.lock),
            Err(_) => Ok(old.lock.unwrap_or_default()),
        }
    }

    /// An error, with its place, for each thing that the manifests ask for and this version cannot do.
    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let unsupported = self.unsupported();
        if unsupported.is_empty() { Ok(()) } else { Err(Failure::placed(Exit::Failed, unsupported)) }
    }

    /// What no longer agrees.
    fn stale(&mut self, wanted: &Wanted, old: Option<&Lock>) -> Result<Vec<Change>, Failure> {
        let mut sources = Sources {
            seen: &mut self.seen,
            fetcher: None,
            index: &mut self.index,
            tools: None,
            root: &self.workspace.root,
        };
        stale(wanted, old, &mut sources).map_err(failure)
    }
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
fn failure(errors: Vec<ResolveError>) -> Failure {
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
        problems.push(problem);
    }
    Failure { code, problems }
}

/// What a level means on every architecture that it has a meaning on.
fn switches(level: &str, threads: Option<u32>) -> BTreeMap<String, Switches> {
    let of = |architecture: &str| {
        let resolved = trainlock_env::determinism::resolve(level, architecture, threads, &BTreeMap::new())?;
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
fn wanted(workspace: &Workspace) -> Wanted {
    let mut wanted = Wanted::default();
    for member in &workspace.members {
        wanted.data.extend(member.data.iter().map(|d| Arc::clone(&d.request)));
        wanted.tools.extend(member.tools.iter().map(|t| t.request.clone()));
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
                switches: switches(determinism.level.as_str(), determinism.threads),
                extra: String::new(),
            },
        });
    }
    wanted
}

/// Who answers while locking.
struct Sources<'a> {
    /// What the repository's own data was found to hold, until it is asked for a second time.
    seen: &'a mut BTreeMap<RelPath, Content>,
    /// None: nobody outside the repository is asked.
    fetcher: Option<(Fetcher, &'a Session)>,
    index: &'a mut Index,
    tools: Option<&'a mut HostTools>,
    root: &'a Path,
}

impl Provider for Sources<'_> {
    fn data(&mut self, requests: &[&DataRequest]) -> Vec<Result<DataAnswer, BoxError>> {
        let Some((fetcher, session)) = &self.fetcher else {
            return requests.iter().map(|_| Err("it is not locked".into())).collect();
        };
        let answer = |resolved: Result<trainlock_fetch::Resolved, FetchError>| {
            let resolved = resolved?;
            let content = match resolved.content {
                trainlock_fetch::Content::File { sha256, size } => Content::File { sha256, size },
                trainlock_fetch::Content::Tree { listing, .. } => Content::tree(listing),
            };
            // An address of these kinds is its own resolution.
            Ok(DataAnswer { resolved: None, content, archive: resolved.archive })
        };
        fetcher.resolve_all(session, requests).into_iter().map(answer).collect()
    }

    fn path(&mut self, requests: &[&DataRequest]) -> Vec<Result<Content, BoxError>> {
        let mut content = |request: &DataRequest| -> Result<Content, BoxError> {
            let DataSource::Path(path) = &request.source else { unreachable!("only paths are asked for here") };
            let content = match self.seen.remove(path) {
                Some(content) => content,
                None => in_repository(&path.on(self.root), self.index)?,
            };
            // Whoever only looks is followed by who locks, and a large folder takes a while to look at.
            if self.fetcher.is_none() {
                self.seen.insert(path.clone(), content.clone());
            }
            Ok(content)
        };
        requests.iter().map(|request| content(request)).collect()
    }

    fn tool(&mut self, request: &ToolRequest) -> Result<semver::Version, BoxError> {
        let Some(tools) = &mut self.tools else {
            return Err("it is not locked".into());
        };
        // A pin is about to be made: what is remembered of the tool will not do.
        let tool = tools.ask(request)?;
        tool.version.parse().map_err(|_| {
            ToolError::NoVersion {
                name: request.name.to_string(),
                command: tool.probe.join(" "),
                output: tool.version.clone(),
            }
            .into()
        })
    }
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
