//! Runs one step on this machine: folder, process, outputs, result.

use super::stand::Met;
use crate::bench::{Place, Shell, in_store, stored_result};
use crate::explain::{self, Fix, Undeclared};
use crate::metrics;
use crate::plan::Node;
use crate::result::{Circumstances, Content, OutputRecord, Role, StepResult};
use crate::template::{Command, TemplateError};
use crate::train::Trial;
use crate::vary::{self, Variation};
use fs_err as fs;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trainlock_env::sandbox::{Attempt as Attempted, Hub, Paths};
use trainlock_env::{Cancel, Ended, Engine, Equipment, Machine, ProcessError, Stage, StageError, Stop, Tier};
use trainlock_lock::Switches;
use trainlock_manifest::{Bounds, OutputKind};
use trainlock_store::{Link, PutError, Session, Store, StoreError, place_file, place_tree};
use trainlock_types::{Digest, Event, Events, Params, RelPath};

/// A step ready to run, with all that it takes.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) node: &'a Node<'a>,
    pub(crate) root: &'a Path,
    pub(crate) key: Digest,
    pub(crate) form: crate::key::Form,
    pub(crate) seed: u64,
    pub(crate) places: Vec<Place>,
    pub(crate) command: Result<Command, TemplateError>,
    /// The params that the step sees.
    pub(crate) params: Params,
    pub(crate) equipment: &'a Equipment,
    pub(crate) shell: &'a Shell,
    /// Which GPUs it may use, if it asked for any.
    pub(crate) gpus: Vec<u32>,
    /// Run it even if the store has its result.
    pub(crate) force: bool,
    /// Only see what comes out.
    pub(crate) trial: Option<Trial>,
    /// How it is shut in.
    pub(crate) tier: Tier,
    /// Why it is shut in less than fully, if it is.
    pub(crate) unshut: Option<String>,
    /// Who runs it, if trainlock does not itself.
    pub(crate) engine: Option<Engine>,
    /// Watch its system calls.
    pub(crate) audit: bool,
    /// Folders that no tool may show with itself.
    pub(crate) private: &'a [PathBuf],
    /// Digests of the machine's libraries that this run has met, and the environments that it has checked.
    pub(crate) met: Arc<Met>,
    /// What its level means on this machine.
    pub(crate) switches: Option<Switches>,
    /// The numeric class that its switches make.
    pub(crate) class: String,
    /// This machine.
    pub(crate) machine: &'a Machine,
    /// The hub that it finds on its loopback, if it has one.
    pub(crate) hub: Option<Hub>,
    /// Where its log goes if it prints anything.
    pub(crate) log: PathBuf,
}

/// What all jobs share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) store: &'a Store,
    pub(crate) session: &'a Session,
    pub(crate) link: Link,
    pub(crate) events: &'a Events,
    pub(crate) cancel: &'a Cancel,
}

/// How a job ended.
#[expect(clippy::large_enum_variant, reason = "a value lives for a moment, and there are few of them")]
#[derive(Debug)]
pub(crate) enum JobEnd {
    /// Its result was in the store after all (another process made it while this one waited).
    Restored(StepResult),
    /// It ran and succeeded.
    Ran { result: Box<StepResult>, ended: Box<Ended>, attempts: u32, log: bool },
    /// It ran and failed.
    Failed(Box<Failure>),
    /// The run was interrupted while it waited or ran.
    Interrupted,
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// `member/step`, or `step` in the root project.
    pub step: String,
    /// What went wrong.
    pub reason: String,
    /// What to do about it, where trainlock knows.
    pub hint: Option<String>,
    /// How its process ended; none if it never began.
    pub ended: Option<Ended>,
    /// How many times it was tried.
    pub attempts: u32,
    /// Its log; none if it printed nothing.
    pub log: Option<PathBuf>,
    /// Its folder, kept for inspection.
    pub folder: Option<PathBuf>,
    /// What it used and was not given, each with the change that would give it.
    pub undeclared: Vec<(Undeclared, Option<Fix>)>,
}

/// Why a step could not be run at all (other than by failing).
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The store is in trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The step's folder could not be laid out.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Its process could not be watched.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A step that failed within this time is run once more to see what it lacked.
const AUDITED_AGAIN: Duration = Duration::from_secs(10);

impl Job<'_> {
    /// Does it, once no other process is at the same key.
    pub(crate) fn run(&self, shared: Shared<'_>) -> Result<JobEnd, ExecuteError> {
        let id = &self.node.id;
        let waiting = |holder| shared.events.emit(Event::Waiting { what: format!("step `{id}`"), holder });
        let stopped = || shared.cancel.is_thrown();
        let Some(_lock) = shared.store.lock_unless(&format!("step-{}", self.key), waiting, stopped)? else {
            return Ok(JobEnd::Interrupted);
        };
        if !self.force
            && self.trial.is_none()
            && let Some(result) = stored_result(shared.store, &self.key)?
            && in_store(shared.store, &result.outputs)?
        {
            deliver(self.node, self.root, shared, &result.outputs)?;
            return Ok(JobEnd::Restored(result));
        }
        if shared.cancel.is_thrown() {
            return Ok(JobEnd::Interrupted);
        }
        let mut log = Log { path: self.log.clone(), file: None };
        let tries = self.node.step.retries + 1;
        for attempt in 1..=tries {
            match self.attempt(shared, &mut log)? {
                Attempt::Done(result, ended) => {
                    return Ok(JobEnd::Ran { result, ended, attempts: attempt, log: log.file.is_some() });
                }
                Attempt::Interrupted => return Ok(JobEnd::Interrupted),
                Attempt::Failed(failure) if attempt == tries => {
                    let failed = Failure { attempts: attempt, log: log.file.map(|_| log.path), ..failure };
                    return Ok(JobEnd::Failed(Box::new(failed)));
                }
                Attempt::Failed(failure) => {
                    let message = format!("step `{id}` {}; attempt {} of {tries}", failure.reason, attempt + 1);
                    shared.events.emit(Event::Warning { message });
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    pub(super) fn variation(&self) -> Option<Variation> {
        self.trial.and_then(|trial| trial.variation)
    }

    fn attempt(&self, shared: Shared<'_>, log: &mut Log) -> Result<Attempt, ExecuteError> {
        let step = self.node.step;
        let command = match &self.command {
            Ok(command) => command,
            Err(error) => return Ok(self.failed(error.to_string(), None, None, None)),
        };
        let variation = self.variation();
        if let Some(variation) = variation {
            variation.wait();
        }
        let other = variation.map(Variation::folder).transpose()?.flatten();
        let folder = match &other {
            Some(other) => other.path().to_owned(),
            None => shared.session.work_dir(&step.name)?,
        };
        let stage = Stage::new(folder, &self.node.member.dir)?;
        let attempt = self.attempt_in(shared, &stage, command, log)?;
        if other.is_none() && !matches!(&attempt, Attempt::Failed(Failure { folder: Some(_), .. })) {
            shared.session.discard(stage.folder())?;
        }
        Ok(attempt)
    }

    fn failed(&self, reason: String, hint: Option<String>, ended: Option<Ended>, folder: Option<PathBuf>) -> Attempt {
        let (step, undeclared) = (self.node.id.clone(), Vec::new());
        Attempt::Failed(Failure { step, reason, hint, ended, attempts: 0, log: None, folder, undeclared })
    }

    fn attempt_in(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        command: &Command,
        log: &mut Log,
    ) -> Result<Attempt, ExecuteError> {
        let step = self.node.step;
        self.lay_out(shared, stage)?;
        let sandbox = self.sandbox(stage, self.audit);
        let paths = sandbox.paths();
        let invocation = self.invocation(stage, command, sandbox)?;
        if let Some((reason, hint)) = self.self_check(shared, &invocation)? {
            return Ok(self.failed(reason, hint, None, None));
        }
        let (invocation, container) = match &self.engine {
            Some(engine) => self.handed_over(shared, stage, invocation, engine)?,
            None => (invocation, None),
        };
        let before = self.beside_outputs(stage)?;
        let ended = match trainlock_env::run(&invocation, shared.cancel, |bytes| {
            log.write(bytes);
            let text = String::from_utf8_lossy(bytes).into_owned();
            shared.events.emit(Event::StepOutput { step: self.node.id.clone(), text });
        }) {
            Err(ProcessError::Start { program, source }) => {
                let hint = (source.kind() == std::io::ErrorKind::NotFound).then(|| {
                    "a step finds the programs of [tools], then those of the system; a file of the project must be among its inputs".to_owned()
                });
                return Ok(self.failed(format!("could not start `{}`: {source}", program.display()), hint, None, None));
            }
            Err(ProcessError::Sandbox(error)) => {
                let reason = format!("could not be shut in: {}: {}", error.operation, error.reason());
                return Ok(self.failed(
                    reason,
                    Some("`trainlock doctor` says what this machine offers".to_owned()),
                    None,
                    None,
                ));
            }
            other => other?,
        };
        if let Some(removal) = container.filter(|_| !matches!(ended.stop, Stop::Exited(_))) {
            // The engine's client is gone; the container may not be.
            self.remove(&removal)?;
        }
        let keep = |folder: &Path| shared.session.keep(folder).ok();
        let (reason, hint) = match ended.stop {
            Stop::Cancelled => return Ok(Attempt::Interrupted),
            Stop::TimedOut => {
                let time = trainlock_types::HumanDuration(step.timeout.unwrap_or_default());
                (format!("took longer than its timeout of {time}"), None)
            }
            Stop::Signaled(_) if ended.sandbox.as_ref().is_some_and(|r| r.out_of_memory) => {
                let memory = trainlock_types::HumanSize(step.resources.memory.unwrap_or_default());
                (format!("used more than the {memory} of memory that its `resources` declare"), None)
            }
            Stop::Signaled(signal) => (format!("was ended by signal {signal}"), None),
            Stop::Exited(0) => match self.collect(shared, stage, &ended)? {
                Ok(result) => {
                    self.tell_of_strays(shared, stage, &before)?;
                    if self.trial.is_none() {
                        deliver(self.node, self.root, shared, &result.outputs)?;
                    }
                    return Ok(Attempt::Done(Box::new(result), Box::new(ended)));
                }
                Err(complaint) => complaint,
            },
            Stop::Exited(code) => (format!("failed with exit code {code}"), None),
        };
        let undeclared = self.undeclared(shared, stage, &paths, command, &ended, log)?;
        let failed = self.failed(reason, hint, Some(ended), keep(stage.folder()));
        Ok(match failed {
            Attempt::Failed(failure) => Attempt::Failed(Failure { undeclared, ..failure }),
            other => other,
        })
    }

    /// What the step used and was not given, each with the change that would give it: from the end of its log, else
    /// from its system calls, for which it is run once more if that takes little time.
    fn undeclared(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        paths: &Paths,
        command: &Command,
        ended: &Ended,
        log: &Log,
    ) -> Result<Vec<(Undeclared, Option<Fix>)>, ExecuteError> {
        let (step, member) = (self.node.step, &self.node.member.dir);
        let folders: BTreeSet<RelPath> = self.places.iter().filter_map(|place| place.path().parent()).collect();
        let seen = explain::Seen {
            root: self.root,
            cwd: member,
            mounted: &paths.root,
            staged: &|path| stage.path(path).exists(),
            own: &|path| step.outputs.iter().any(|o| *path == o.path || path.below(&o.path).is_some()),
        };
        let with_fix = |undeclared| {
            let fix = explain::fix(&self.node.id, member, &undeclared);
            (undeclared, fix)
        };
        let mut told = match (&ended.sandbox, &self.hub) {
            (Some(report), Some(hub)) => {
                let locked = |at: &RelPath, file: &str| {
                    self.places.iter().any(|place| match place {
                        Place::Files { path, tree, .. } if path == at => {
                            let listing = shared.store.listing(tree).ok().flatten();
                            listing.is_some_and(|l| l.entries().iter().any(|entry| entry.path.as_str() == file))
                        }
                        _ => false,
                    })
                };
                explain::from_hub(&report.refusals, hub, &self.node.member.data, &locked, &self.node.id, member)
            }
            _ => Vec::new(),
        };
        let mut found = explain::from_log(&log.end(), &folders, &seen);
        let attempts = match &ended.sandbox {
            Some(report) if self.audit => report.attempts.clone(),
            Some(report)
                if found.is_empty()
                    && told.is_empty()
                    && ended.wall < AUDITED_AGAIN
                    && report.isolation.is_hermetic() =>
            {
                self.audited(shared, command)?
            }
            _ => Vec::new(),
        };
        found.extend(explain::from_attempts(&attempts, &seen));
        told.extend(found.into_iter().map(with_fix));
        told.truncate(explain::TOLD);
        Ok(told)
    }

    /// Runs the step once more for its system calls alone: what it prints and makes is let go.
    fn audited(&self, shared: Shared<'_>, command: &Command) -> Result<Vec<Attempted>, ExecuteError> {
        let stage = Stage::new(shared.session.work_dir(&self.node.step.name)?, &self.node.member.dir)?;
        self.lay_out(shared, &stage)?;
        let mut invocation = self.invocation(&stage, command, self.sandbox(&stage, true))?;
        invocation.timeout = Some(AUDITED_AGAIN * 3);
        let ended = trainlock_env::run(&invocation, shared.cancel, |_| {});
        shared.session.discard(stage.folder())?;
        Ok(ended.ok().and_then(|ended| ended.sandbox).map(|report| report.attempts).unwrap_or_default())
    }

    /// What lies beside the outputs, in the folders that the step may write to.
    fn beside_outputs(&self, stage: &Stage) -> Result<BTreeSet<RelPath>, ExecuteError> {
        let mut names = BTreeSet::new();
        for folder in self.writable() {
            for entry in fs::read_dir(stage.path(&folder))? {
                // A name that is no text can't be an output's, and is told of by none.
                if let Some(path) = entry?.file_name().to_str().and_then(|name| RelPath::parse(name).ok()) {
                    names.insert(folder.join(&path));
                }
            }
        }
        Ok(names)
    }

    /// Warns of what the step left beside its outputs: it is not kept.
    fn tell_of_strays(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        before: &BTreeSet<RelPath>,
    ) -> Result<(), ExecuteError> {
        let outputs = &self.node.step.outputs;
        let after = self.beside_outputs(stage)?;
        let stray = |path: &&RelPath| {
            !before.contains(path) && !outputs.iter().any(|o| o.path == **path || o.path.below(path).is_some())
        };
        let strays: Vec<String> =
            after.iter().filter(stray).take(5).map(|p| format!("`{}`", p.relative_to(&self.node.member.dir))).collect();
        if !strays.is_empty() {
            let message = format!(
                "step `{}` wrote {}, which its outputs do not name: it is not kept",
                self.node.id,
                strays.join(", ")
            );
            shared.events.emit(Event::Warning { message });
        }
        Ok(())
    }

    /// Takes what a successful process made into the store, and writes the result; or says what is
    /// wrong with it, in which case nothing is kept.
    fn collect(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        ended: &Ended,
    ) -> Result<Result<StepResult, Complaint>, ExecuteError> {
        let step = self.node.step;
        let dir = &self.node.member.dir;
        let mut metrics = BTreeMap::new();
        for output in &step.outputs {
            let path = stage.path(&output.path);
            let kind = fs::symlink_metadata(&path).map(|m| m.file_type());
            let name = &output.written;
            let complaint = match kind {
                Err(_) => {
                    (format!("did not write `{name}`, which its `{}` name", output.kind.key()), written_instead(&path))
                }
                Ok(kind) if kind.is_dir() && !output.folder => (
                    format!("made a folder of `{name}`"),
                    Some(format!("write `{name}/` in `{}` if a folder is meant", output.kind.key())),
                ),
                Ok(kind) if kind.is_file() && output.folder => {
                    let plain = name.trim_end_matches('/');
                    (
                        format!("made a file of `{name}`"),
                        Some(format!("write `{plain}` in `{}` if a file is meant", output.kind.key())),
                    )
                }
                Ok(kind) if !kind.is_dir() && !kind.is_file() => (
                    format!("made something of `{name}` that is neither a file nor a folder"),
                    Some("write the content itself, not a link to it".to_owned()),
                ),
                Ok(_) => {
                    if output.kind == OutputKind::Metric && !output.folder {
                        self.read_metrics(shared, &path, name, &mut metrics);
                    }
                    continue;
                }
            };
            return Ok(Err(complaint));
        }
        if let Some(complaint) = unexpected(&step.expect, &metrics) {
            return Ok(Err(complaint));
        }
        if let Some(place) = self.damaged(shared)? {
            let hint = "copy the file and write to the copy: inputs are shared with other steps and runs".to_owned();
            return Ok(Err((format!("wrote to its input `{place}`"), Some(hint))));
        }
        let mut outputs = Vec::with_capacity(step.outputs.len());
        // The store takes folders from its own file system.
        let moved = match self.variation() {
            Some(Variation::Order) => Some(shared.session.work_dir(&step.name)?),
            _ => None,
        };
        for (i, output) in step.outputs.iter().enumerate() {
            let mut path = stage.path(&output.path);
            if let Some(moved) = &moved {
                let to = moved.join(i.to_string());
                vary::copy(&path, &to)?;
                path = to;
            }
            let taken = if output.folder {
                shared.session.take_tree(&path).map(|t| Content::Tree { tree: t.digest, size: t.size, count: t.count })
            } else {
                let executable = fs::metadata(&path)?.permissions().mode() & 0o100 != 0;
                shared.session.take_file(&path, executable).map(|(sha256, size)| Content::File {
                    sha256,
                    size,
                    executable,
                })
            };
            let content = match taken {
                Err(PutError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    let name = &output.written;
                    return Ok(Err((format!("made an output `{name}` that can't be kept: {}", chain(&error)), None)));
                }
                Ok(content) => content,
            };
            let role = match output.kind {
                OutputKind::Output => Role::Output,
                OutputKind::Metric => Role::Metric,
                OutputKind::Plot => Role::Plot,
            };
            outputs.push(OutputRecord { path: output.path.relative_to(dir), role, content });
        }
        if let Some(moved) = moved {
            shared.session.discard(&moved)?;
        }
        let how = Circumstances {
            seconds: ended.wall.as_secs_f64(),
            class: self.class.clone(),
            isolation: self.isolation(ended),
            machine: self.machine.clone(),
            libraries: self.libraries(ended),
        };
        let result = StepResult::new(self.node.id.clone(), self.form.clone(), outputs, metrics, how);
        if self.trial.is_none() {
            shared.session.put_result(&self.key, &result.to_bytes())?;
        }
        Ok(Ok(result))
    }

    /// Adds the numbers of a metrics file. One that is no JSON gives a warning: hours of training are
    /// not thrown away for it, unless something is expected of its numbers.
    fn read_metrics(&self, shared: Shared<'_>, path: &Path, name: &str, metrics: &mut BTreeMap<String, f64>) {
        let parsed =
            fs::read(path).map_err(|e| e.to_string()).and_then(|t| metrics::parse(&t).map_err(|e| e.to_string()));
        match parsed {
            Ok(numbers) => metrics.extend(numbers),
            Err(error) => shared.events.emit(Event::Warning {
                message: format!(
                    "step `{}`: the metrics file `{name}` is no JSON, so that no numbers are recorded: {error}",
                    self.node.id
                ),
            }),
        }
    }

    /// The first input that the step wrote to through a hard link of the store's, if any; the store
    /// then looks at its own, and removes what is damaged.
    fn damaged(&self, shared: Shared<'_>) -> Result<Option<String>, ExecuteError> {
        let mut first = None;
        for place in &self.places {
            let (path, digest) = match place {
                Place::Object { path, sha256, .. } => (path, sha256),
                Place::Tree { path, tree } | Place::Files { path, tree, .. } => (path, tree),
                Place::Source { .. } | Place::Repository { .. } => continue,
            };
            if !shared.store.touched(digest)?.is_empty() {
                shared.store.distrust(digest)?;
                first.get_or_insert(path.relative_to(&self.node.member.dir));
            }
        }
        Ok(first)
    }
}

/// Places outputs that the store has into the project's folder.
pub(crate) fn deliver(
    node: &Node<'_>,
    root: &Path,
    shared: Shared<'_>,
    outputs: &[OutputRecord],
) -> Result<(), ExecuteError> {
    for (record, output) in outputs.iter().zip(&node.step.outputs) {
        let to = output.path.on(root);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        match &record.content {
            Content::File { sha256, executable, .. } => {
                place_file(shared.store, sha256, *executable, &to, shared.link)?
            }
            Content::Tree { tree, .. } => place_tree(shared.store, tree, &to, shared.link)?,
        };
    }
    Ok(())
}

/// What is wrong with what a step did, and what to do about it.
pub(crate) type Complaint = (String, Option<String>);

#[expect(clippy::large_enum_variant, reason = "a value lives for a moment, and there are few of them")]
enum Attempt {
    Done(Box<StepResult>, Box<Ended>),
    Failed(Failure),
    Interrupted,
}

/// A step's log, made when it first prints something.
struct Log {
    path: PathBuf,
    file: Option<fs::File>,
}

impl Log {
    /// Keeps what was printed. A log that can't be written ends no training: the terminal has it too.
    fn write(&mut self, bytes: &[u8]) {
        if self.file.is_none() {
            self.file = fs::File::create(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(bytes);
        }
    }

    /// Its last part, in which a program says why it failed.
    fn end(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = fs::File::open(&self.path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(64 << 10)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}

/// What the metrics are not, of what is expected of them.
pub(crate) fn unexpected(expect: &BTreeMap<String, Bounds>, metrics: &BTreeMap<String, f64>) -> Option<Complaint> {
    for (name, bounds) in expect {
        let Some(value) = metrics.get(name) else {
            let near = trainlock_types::nearest(name, metrics.keys().map(String::as_str));
            let hint = near.map(|n| format!("did you mean `{n}`?"));
            return Some((format!("has no metric `{name}`, which `expect` names"), hint));
        };
        let broken = [
            ("min", bounds.min, value < &bounds.min.unwrap_or(f64::MIN)),
            ("max", bounds.max, value > &bounds.max.unwrap_or(f64::MAX)),
        ]
        .into_iter()
        .chain([("equals", bounds.equals, bounds.equals.is_some_and(|e| e != *value))])
        .find_map(|(word, bound, broken)| bound.filter(|_| broken).map(|b| (word, b)));
        if let Some((word, bound)) = broken {
            return Some((format!("has {name} = {value}, but `expect` says {word} = {bound}"), None));
        }
    }
    None
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// For an output that is missing: what stands in its folder in its place.
fn written_instead(path: &Path) -> Option<String> {
    let names: Vec<String> = fs::read_dir(path.parent()?)
        .ok()?
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .take(5)
        .map(|n| format!("`{n}`"))
        .collect();
    (!names.is_empty()).then(|| format!("its folder holds {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations() {
        let bounds = |min, max, equals| BTreeMap::from([("accuracy".to_owned(), Bounds { min, max, equals })]);
        let metrics = BTreeMap::from([("accuracy".to_owned(), 0.9)]);
        assert_eq!(unexpected(&bounds(Some(0.9), Some(0.9), Some(0.9)), &metrics), None);
        let words = |expect| unexpected(&expect, &metrics).unwrap().0;
        assert_eq!(words(bounds(Some(0.95), None, None)), "has accuracy = 0.9, but `expect` says min = 0.95");
        assert_eq!(words(bounds(None, Some(0.5), None)), "has accuracy = 0.9, but `expect` says max = 0.5");
        assert_eq!(words(bounds(None, None, Some(1.0))), "has accuracy = 0.9, but `expect` says equals = 1");
        let absent =
            unexpected(&bounds(None, None, Some(1.0)), &BTreeMap::from([("acuracy".to_owned(), 1.0)])).unwrap();
        assert_eq!(absent.1.as_deref(), Some("did you mean `acuracy`?"));
    }
}
