//! Runs one step on this machine: folder, process, outputs, result.

use crate::bench::{Place, Shell, in_store, stored_result};
use crate::metrics;
use crate::plan::Node;
use crate::result::{Content, OutputRecord, Role, StepResult};
use crate::template::{Command, TemplateError};
use fs_err as fs;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use trainlock_env::{Cancel, Ended, HostTool, Invocation, ProcessError, Stage, StageError, Stop};
use trainlock_manifest::{Bounds, OutputKind};
use trainlock_store::{Link, PutError, Session, Store, StoreError, place_file, place_part, place_tree};
use trainlock_types::{Digest, Event, Events, Name, Params};

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
    pub(crate) tools: &'a [(Name, HostTool)],
    pub(crate) shell: &'a Shell,
    /// Which GPUs it may use, if it asked for any.
    pub(crate) gpus: Vec<u32>,
    /// Run it even if the store has its result.
    pub(crate) force: bool,
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
#[derive(Debug)]
pub(crate) enum JobEnd {
    /// Its result was in the store after all (another process made it while this one waited).
    Restored(StepResult),
    /// It ran and succeeded.
    Ran { result: StepResult, ended: Ended, attempts: u32, log: bool },
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

    fn attempt(&self, shared: Shared<'_>, log: &mut Log) -> Result<Attempt, ExecuteError> {
        let step = self.node.step;
        let command = match &self.command {
            Ok(command) => command,
            Err(error) => return Ok(self.failed(error.to_string(), None, None, None)),
        };
        let stage = Stage::new(shared.session.work_dir(&step.name)?, &self.node.member.dir)?;
        let attempt = self.attempt_in(shared, &stage, command, log)?;
        if !matches!(&attempt, Attempt::Failed(Failure { folder: Some(_), .. })) {
            shared.session.discard(stage.folder())?;
        }
        Ok(attempt)
    }

    fn failed(&self, reason: String, hint: Option<String>, ended: Option<Ended>, folder: Option<PathBuf>) -> Attempt {
        Attempt::Failed(Failure { step: self.node.id.clone(), reason, hint, ended, attempts: 0, log: None, folder })
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
        let invocation = self.invocation(stage, command)?;
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
            other => other?,
        };
        let keep = |folder: &Path| shared.session.keep(folder).ok();
        let reason = match ended.stop {
            Stop::Cancelled => return Ok(Attempt::Interrupted),
            Stop::TimedOut => format!(
                "took longer than its timeout of {}",
                trainlock_types::HumanDuration(step.timeout.unwrap_or_default())
            ),
            Stop::Signaled(signal) => format!("was ended by signal {signal}"),
            Stop::Exited(0) => match self.collect(shared, stage, ended)? {
                Ok(result) => {
                    deliver(self.node, self.root, shared, &result.outputs)?;
                    return Ok(Attempt::Done(result, ended));
                }
                Err((reason, hint)) => {
                    return Ok(self.failed(reason, hint, Some(ended), keep(stage.folder())));
                }
            },
            Stop::Exited(code) => format!("failed with exit code {code}"),
        };
        Ok(self.failed(reason, None, Some(ended), keep(stage.folder())))
    }

    /// Lays the inputs into the stage.
    fn lay_out(&self, shared: Shared<'_>, stage: &Stage) -> Result<(), ExecuteError> {
        let store = shared.store;
        for place in &self.places {
            match place {
                Place::Source { path, entry } => {
                    stage.copy(&path.on(self.root), path, entry)?;
                }
                Place::Object { path, sha256, executable } => {
                    place_file(store, sha256, *executable, &stage.place(path)?, shared.link)?;
                }
                Place::Tree { path, tree } => {
                    place_tree(store, tree, &stage.place(path)?, shared.link)?;
                }
                Place::Files { path, tree, files } => {
                    for file in files {
                        let to = stage.place(&path.join(&file.path))?;
                        place_part(store, tree, file, &to, shared.link)?;
                    }
                }
                Place::Repository { .. } => unreachable!("settled before the job was made"),
            }
        }
        for output in &self.node.step.outputs {
            stage.place(&output.path)?;
        }
        Ok(())
    }

    fn invocation(&self, stage: &Stage, command: &Command) -> Result<Invocation, ExecuteError> {
        let step = self.node.step;
        stage.link_tools(self.tools.iter().map(|(name, tool)| (name.as_str(), tool.program.as_path())))?;
        let mut params = self.params.clone();
        if !params.keys().any(|name| name == "seed" || name.starts_with("seed.")) {
            params.insert("seed".to_owned(), trainlock_types::Value::Int(self.seed as i64));
        }
        let params = stage.write("params.json", &(crate::template::nested(&params).to_json() + "\n"))?;
        let mut environment = stage.variables();
        let own = [
            ("TRAINLOCK_PARAMS", params.to_string_lossy().into_owned()),
            ("TRAINLOCK_SEED", self.seed.to_string()),
            ("TRAINLOCK_STEP", step.name.to_string()),
            ("TRAINLOCK_PROJECT", self.node.member.name.to_string()),
        ];
        environment.extend(step.env.clone());
        environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if step.resources.gpus > 0 {
            let ids: Vec<String> = self.gpus.iter().map(u32::to_string).collect();
            environment.insert("CUDA_VISIBLE_DEVICES".to_owned(), ids.join(","));
        }
        let (program, arguments) = match command {
            Command::Shell(script) => {
                let options = self.shell.options.iter().map(|o| (*o).to_owned());
                (self.shell.program.clone(), options.chain([script.clone()]).collect())
            }
            Command::Exec(words) => (find_program(&words[0], stage, &environment), words[1..].to_vec()),
        };
        Ok(Invocation { program, arguments, folder: stage.member().to_owned(), environment, timeout: step.timeout })
    }

    /// Takes what a successful process made into the store, and writes the result; or says what is
    /// wrong with it, in which case nothing is kept.
    fn collect(
        &self,
        shared: Shared<'_>,
        stage: &Stage,
        ended: Ended,
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
        for output in &step.outputs {
            let path = stage.path(&output.path);
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
        let result =
            StepResult::new(self.node.id.clone(), self.form.clone(), outputs, metrics, ended.wall.as_secs_f64());
        shared.session.put_result(&self.key, &result.to_bytes())?;
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

enum Attempt {
    Done(StepResult, Ended),
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

/// The file of a program that a step names: with a `/`, from the step's folder; else from its PATH.
fn find_program(word: &str, stage: &Stage, environment: &BTreeMap<String, String>) -> PathBuf {
    if word.contains('/') {
        return stage.member().join(word);
    }
    let path = environment.get("PATH").map(String::as_str).unwrap_or_default();
    let good = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    path.split(':').map(|folder| Path::new(folder).join(word)).find(good).unwrap_or_else(|| PathBuf::from(word))
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
