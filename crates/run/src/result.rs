//! A step's result: what the store keeps under the step's key, and what the project last had.

use crate::key::Form;
use crate::verdict::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainlock_env::{HostLibrary, Isolation, Machine};
use trainlock_types::Digest;

/// The version of the result's format; a result of another version is as if absent.
const VERSION: u32 = 2;

/// What an output is to its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A file or folder that later steps may use.
    Output,
    /// Numbers that are recorded and compared.
    Metric,
    /// Drawn in reports.
    Plot,
}

/// What an output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A file.
    File {
        /// Its digest.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder.
    Tree {
        /// The digest of its listing.
        tree: Digest,
        /// Bytes of all its files.
        size: u64,
        /// How many files.
        count: u64,
    },
}

impl Content {
    /// The value of an input fact: what the next step's key takes of it.
    pub fn fact(&self) -> String {
        match self {
            Content::File { sha256, executable: false, .. } => format!("sha256:{sha256}"),
            Content::File { sha256, executable: true, .. } => format!("program:{sha256}"),
            Content::Tree { tree, .. } => format!("tree:{tree}"),
        }
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        match self {
            Content::File { size, .. } | Content::Tree { size, .. } => *size,
        }
    }

    /// The digest, of a file or of a listing.
    pub fn digest(&self) -> Digest {
        match self {
            Content::File { sha256, .. } => *sha256,
            Content::Tree { tree, .. } => *tree,
        }
    }
}

/// One output of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Where it lies, relative to the member's folder.
    pub path: String,
    /// What it is to the step.
    pub role: Role,
    /// What it holds.
    pub content: Content,
}

/// What the store keeps of a step that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    version: u32,
    /// `member/step`, or `step` in the root project: for people.
    pub step: String,
    /// What went into the key.
    pub form: Form,
    /// What came out, in the order of the manifest.
    pub outputs: Vec<OutputRecord>,
    /// The numbers of its metric files, by dotted name; of a name that two files have, the later file's.
    pub metrics: BTreeMap<String, f64>,
    /// Wall time in seconds when it ran.
    pub seconds: f64,
    /// The numeric class: what was really in force when it ran.
    pub class: String,
    /// How it was kept apart from the machine.
    pub isolation: Isolation,
    /// The machine that it ran on.
    pub machine: Machine,
    /// The machine's libraries that it mapped.
    pub libraries: Vec<HostLibrary>,
}

/// Where and how a step ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Circumstances {
    /// Wall time in seconds.
    pub seconds: f64,
    /// The numeric class: what was really in force.
    pub class: String,
    /// How it was kept apart from the machine.
    pub isolation: Isolation,
    /// The machine.
    pub machine: Machine,
    /// The machine's libraries that it mapped.
    pub libraries: Vec<HostLibrary>,
}

impl StepResult {
    /// A result of the current version.
    pub fn new(
        step: String,
        form: Form,
        outputs: Vec<OutputRecord>,
        metrics: BTreeMap<String, f64>,
        how: Circumstances,
    ) -> StepResult {
        let Circumstances { seconds, class, isolation, machine, libraries } = how;
        StepResult { version: VERSION, step, form, outputs, metrics, seconds, class, isolation, machine, libraries }
    }

    /// What a verdict looks at.
    pub fn into_outcome(self, key: Digest) -> Outcome {
        Outcome { key, outputs: self.outputs, metrics: self.metrics, class: Some(self.class) }
    }

    /// In what the machines of two results differ, in words.
    pub(crate) fn differing_hosts(old: &StepResult, new: &StepResult) -> Vec<String> {
        let (a, b) = (&old.machine, &new.machine);
        let facts = [
            ("processor", &a.cpu, &b.cpu),
            ("kernel", &a.kernel, &b.kernel),
            ("C library", &a.libc, &b.libc),
            ("platform", &a.platform, &b.platform),
            ("class", &old.class, &new.class),
        ];
        let mut words: Vec<String> = facts
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(fact, old, new)| format!("{fact}: {old} -> {new}"))
            .collect();
        if a.gpus != b.gpus {
            words.push(format!("GPUs: {} -> {}", a.gpus.join(", "), b.gpus.join(", ")));
        }
        if old.isolation != new.isolation {
            words.push(format!("isolation: {} -> {}", old.isolation, new.isolation));
        }
        for library in &new.libraries {
            match old.libraries.iter().find(|l| l.name == library.name) {
                Some(before) if before.sha256 != library.sha256 => {
                    words.push(format!(
                        "library {}: sha256 {} -> {}",
                        library.name,
                        before.sha256.short(),
                        library.sha256.short()
                    ));
                }
                _ => {}
            }
        }
        words
    }

    /// As the store keeps it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a result has only text keys and finite numbers")
    }

    /// From the store's bytes; none if another version wrote them.
    pub fn from_bytes(bytes: &[u8]) -> Option<StepResult> {
        serde_json::from_slice(bytes).ok().filter(|r: &StepResult| r.version == VERSION)
    }
}

/// What the project's folder last had of each step: a cache, `.trainlock/state`, that saves asking the
/// store. Losing it costs time only.
#[derive(Debug, Default)]
pub struct State {
    file: PathBuf,
    steps: BTreeMap<String, Last>,
    changed: bool,
}

/// A step's last result in this project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its key.
    pub key: Digest,
    /// What came out.
    pub outputs: Vec<OutputRecord>,
}

impl State {
    /// Reads the cache; empty if it is missing or damaged.
    pub fn load(file: &Path) -> State {
        let steps = fs_err::read(file)
            .ok()
            .and_then(|bytes| {
                let (sum, body) = bytes.split_at_checked(32)?;
                (Digest::of(body).as_bytes() == sum).then(|| postcard::from_bytes(body).ok()).flatten()
            })
            .unwrap_or_default();
        State { file: file.to_owned(), steps, changed: false }
    }

    /// What the project last had of a step.
    pub fn get(&self, step: &str) -> Option<&Last> {
        self.steps.get(step)
    }

    /// Notes what the project has now.
    pub fn set(&mut self, step: &str, last: Last) {
        if self.steps.get(step) != Some(&last) {
            self.steps.insert(step.to_owned(), last);
            self.changed = true;
        }
    }

    /// The keys of all steps.
    pub fn keys(&self) -> impl Iterator<Item = Digest> + '_ {
        self.steps.values().map(|last| last.key)
    }

    /// Writes it, if something changed, in one go.
    pub fn save(&mut self) -> std::io::Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let body = postcard::to_stdvec(&self.steps).map_err(std::io::Error::other)?;
        let mut bytes = Digest::of(&body).as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        let temporary = self.file.with_extension(format!("{}.tmp", std::process::id()));
        fs_err::write(&temporary, bytes)?;
        fs_err::rename(&temporary, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_survives_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        let content = Content::File { sha256: Digest::of(b"x"), size: 1, executable: false };
        let outputs = vec![OutputRecord { path: "out".into(), role: Role::Output, content }];
        let last = Last { key: Digest::of(b"k"), outputs };
        let mut state = State::load(&file);
        state.set("s", last.clone());
        state.save().unwrap();
        assert_eq!(State::load(&file).get("s"), Some(&last));
        let mut bytes = fs_err::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(&file, bytes).unwrap();
        assert_eq!(State::load(&file).get("s"), None);
    }

    #[test]
    fn a_result_and_back() {
        let mut form = Form::default();
        form.set("seed", "1");
        let digest = Digest::of(b"x");
        let output = |path: &str, role, content| OutputRecord { path: path.into(), role, content };
        let outputs = vec![
            output("a", Role::Output, Content::Tree { tree: digest, size: u64::MAX, count: 3 }),
            output("b", Role::Metric, Content::File { sha256: digest, size: 1, executable: true }),
            output("c", Role::Plot, Content::File { sha256: digest, size: 0, executable: false }),
        ];
        // Numbers that a reader of JSON with less care gets wrong by the last bit.
        let metrics = [("accuracy", 0.9415041782729805), ("recall", 0.9448616270354929)];
        let result = StepResult::new(
            "s".into(),
            form,
            outputs,
            metrics.map(|(n, v)| (n.to_owned(), v)).into(),
            crate::fixture::circumstances(1.5),
        );
        assert_eq!(StepResult::from_bytes(&result.to_bytes()), Some(result.clone()));
        let newer = String::from_utf8(result.to_bytes()).unwrap().replace("\"version\":2", "\"version\":3");
        assert_eq!(StepResult::from_bytes(newer.as_bytes()), None);
    }
}
