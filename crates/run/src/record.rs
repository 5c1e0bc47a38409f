//! The log of runs: `.trainlock/runs/<id>/run.json`, written as the run goes.
//!
//! The record is written whole, by rename, at the start, then at most once a second and after every
//! step that took longer than that, and at the end: a run that is killed leaves what it had done, with
//! the status `running` and the id of a process that is no more.

use crate::explain::Fix;
use crate::verdict::{Judged, Overall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trainlock_env::{HostLibrary, Isolation, Machine};

const VERSION: u32 = 1;
const EVERY: Duration = Duration::from_secs(1);

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Under way, or killed: then no process has the record's `pid` any more.
    Running,
    /// All steps are done.
    Succeeded,
    /// A step failed.
    Failed,
    /// Interrupted by the user.
    Interrupted,
}

/// One execution of `trainlock train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RunRecord {
    /// The version of this format.
    pub version: u32,
    /// The run's id: the time of its start and four hexadecimal digits.
    pub id: String,
    /// How it stands.
    pub status: Status,
    /// The version of trainlock.
    pub trainlock: String,
    /// The command line.
    pub command: Vec<String>,
    /// The process.
    pub pid: u32,
    /// When it began (RFC 3339, UTC).
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// Wall time in seconds so far.
    pub seconds: f64,
    /// The git commit of the workspace; none outside git, before the first commit, or if no step had to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,
    /// The SHA-256 of train.lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// The profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What `--set` changed for this run, as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// The hyperparameters of each project, as used.
    pub params: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// The data that the lock names.
    pub data: Vec<DataRecord>,
    /// The machine's tools that served.
    pub tools: Vec<ToolRecord>,
    /// The python packages that steps could import.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<PackageRecord>,
    /// The container images that steps ran in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageRecord>,
    /// The machine.
    pub machine: Machine,
    /// The steps of the plan, in order.
    pub steps: Vec<StepRecord>,
    /// The verdict; none if nothing is sealed, or the run did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Overall>,
    /// How each step compares with what was sealed for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<Judged>,
}

/// The state of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Git {
    /// The commit that is checked out.
    pub commit: String,
    /// Whether files differ from it, or are unknown to it.
    pub dirty: bool,
}

/// A data set as the lock pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataRecord {
    /// `member/name`, or `name` in the root project.
    pub name: String,
    /// Where it comes from.
    pub source: String,
    /// The digest of the file, or of the tree's listing.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// A tool of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it came from: `host` (this machine) or `lock` (fetched as locked).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The program's file.
    pub program: String,
    /// The SHA-256 of that file; none if no step had to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A container image as the lock pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRecord {
    /// As the manifest names it.
    pub reference: String,
    /// The digest of what it names, `sha256:…`.
    pub digest: String,
    /// The digest of its manifest for this machine, `sha256:…`.
    pub manifest: String,
}

/// A python package that steps could import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PackageRecord {
    /// The project that asks for it.
    pub member: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The file that was installed.
    pub file: String,
    /// That file's SHA-256.
    pub sha256: String,
}

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepRecord {
    /// `member/step`, or `step` in the root project.
    pub step: String,
    /// `fresh`, `restored`, `ran`, `failed`, `skipped`, `interrupted`; none before it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// How it was kept apart from the rest of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Its numeric class: where its bits are promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The machine's libraries that it mapped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<HostLibrary>,
    /// The seed that it got.
    pub seed: u64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Wall time in seconds of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Processor time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// The largest resident size of one of its processes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// The exit code; none if a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How many times it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its log, relative to the run's folder; none if it printed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The folder of a failed step, kept for inspection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What would give a failed step what it used and was not given: `trainlock fix` does it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    /// What came out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputEntry>,
    /// The numbers of its metric files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

/// An output in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputEntry {
    /// Relative to the member's folder.
    pub path: String,
    /// The digest of the file, or of the folder's listing.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// The JSON schema of run.json.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RunRecord).to_value()
}

/// Why the log of runs can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("can't read or write the log of runs")]
    Io(#[from] std::io::Error),
    /// The file is no record.
    #[error("`{}` is no run record", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What JSON said.
        #[source]
        source: serde_json::Error,
    },
    /// A later trainlock wrote it.
    #[error("`{}` was written by a newer trainlock (format {version}; this one reads {VERSION})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// A run's record while the run goes on.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    begin: Instant,
    written: Instant,
    /// What will be written.
    pub record: RunRecord,
}

impl Recorder {
    /// Makes the run's folder in `runs` and writes the first record. `describe` fills in what is known.
    pub fn start(
        runs: &Path,
        machine: Machine,
        describe: impl FnOnce(&mut RunRecord),
    ) -> Result<Recorder, RecordError> {
        let now = clock();
        fs_err::create_dir_all(runs)?;
        let (id, folder) = new_folder(runs, now)?;
        let mut record = RunRecord {
            version: VERSION,
            id,
            status: Status::Running,
            trainlock: env!("CARGO_PKG_VERSION").to_owned(),
            command: Vec::new(),
            pid: std::process::id(),
            started: show(now),
            finished: None,
            seconds: 0.0,
            git: None,
            lock: None,
            profile: None,
            set: BTreeMap::new(),
            params: BTreeMap::new(),
            data: Vec::new(),
            tools: Vec::new(),
            packages: Vec::new(),
            images: Vec::new(),
            machine,
            steps: Vec::new(),
            verdict: None,
            judged: Vec::new(),
        };
        describe(&mut record);
        let begin = Instant::now();
        let mut recorder = Recorder { folder, begin, written: begin, record };
        recorder.write()?;
        Ok(recorder)
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the record if the last one is a second old.
    pub fn note(&mut self) -> Result<(), RecordError> {
        if self.written.elapsed() >= EVERY { self.write() } else { Ok(()) }
    }

    /// Writes the last record.
    pub fn finish(mut self, status: Status) -> Result<RunRecord, RecordError> {
        self.record.status = status;
        self.record.finished = Some(now());
        self.write()?;
        Ok(self.record)
    }

    fn write(&mut self) -> Result<(), RecordError> {
        self.record.seconds = self.begin.elapsed().as_secs_f64();
        let text = serde_json::to_vec_pretty(&self.record).map_err(std::io::Error::other)?;
        let temporary = self.folder.join("run.json.tmp");
        fs_err::write(&temporary, text)?;
        fs_err::rename(&temporary, self.folder.join("run.json"))?;
        self.written = Instant::now();
        Ok(())
    }
}

/// The present time as records have it.
pub fn now() -> String {
    show(clock())
}

#[expect(clippy::disallowed_methods, reason = "a record says when; nothing else asks the clock")]
fn clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn show(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn new_folder(runs: &Path, now: jiff::Timestamp) -> std::io::Result<(String, PathBuf)> {
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    // The digits are the fraction of the second, so that ids sort by time; two runs that start in the same
    // 15 microseconds still differ, since the folder's creation decides.
    let mut digits = now.subsec_nanosecond() / 15_259;
    loop {
        let id = format!("{time}-{:04x}", digits & 0xffff);
        match fs_err::create_dir(runs.join(&id)) {
            Ok(()) => return Ok((id.clone(), runs.join(id))),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => digits += 1,
            Err(e) => return Err(e),
        }
    }
}

/// The ids of all runs, oldest first.
pub fn ids(runs: &Path) -> Result<Vec<String>, RecordError> {
    let entries = match fs_err::read_dir(runs) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().join("run.json").is_file() {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

/// The record of one run.
pub fn read(runs: &Path, id: &str) -> Result<RunRecord, RecordError> {
    let path = runs.join(id).join("run.json");
    let text = fs_err::read(&path)?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|source| RecordError::Damaged { path: path.clone(), source })?;
    if let Some(version) = value["version"].as_u64().filter(|v| *v > u64::from(VERSION)) {
        return Err(RecordError::Newer { path, version: version as u32 });
    }
    serde_json::from_value(value).map_err(|source| RecordError::Damaged { path, source })
}

impl RunRecord {
    /// Whether its process was killed: it says `running`, and no such process exists.
    pub fn was_killed(&self) -> bool {
        let alive = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)));
        self.status == Status::Running && !alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_its_start_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        assert!(ids(&runs).unwrap().is_empty());
        let recorder = Recorder::start(&runs, Machine::here(), |r| r.profile = Some("smoke".into())).unwrap();
        let id = recorder.record.id.clone();
        let running = read(&runs, &id).unwrap();
        assert_eq!((running.status, running.profile.as_deref()), (Status::Running, Some("smoke")));
        assert!(!running.was_killed());
        let mut killed = running.clone();
        killed.pid = u32::MAX >> 1;
        assert!(killed.was_killed());
        recorder.finish(Status::Succeeded).unwrap();
        assert_eq!(ids(&runs).unwrap(), std::slice::from_ref(&id));
        let done = read(&runs, &id).unwrap();
        assert_eq!(done.status, Status::Succeeded);
        assert!(done.finished.is_some());
    }

    #[test]
    fn runs_of_one_second_have_different_ids() {
        let folder = tempfile::tempdir().unwrap();
        let now = clock();
        let first = new_folder(folder.path(), now).unwrap().0;
        assert_ne!(new_folder(folder.path(), now).unwrap().0, first);
    }

    #[test]
    fn newer_and_damaged_records_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for (id, text, words) in [("a", "{\"version\": 9}", "newer trainlock"), ("b", "{", "is no run record")] {
            fs_err::create_dir(folder.path().join(id)).unwrap();
            fs_err::write(folder.path().join(id).join("run.json"), text).unwrap();
            let error = read(folder.path(), id).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
