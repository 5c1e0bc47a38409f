//! Whether a run gave what was sealed, and if not, where it first went another way.
//!
//! A step is compared with the result that train.lock holds for its profile and its numeric class. The
//! steps are looked at in the order of the plan: one that differs because a step before it differs says
//! nothing new, and is named as following it.

use crate::bench::stored_result;
use crate::compare::{self, CompareError, FolderChange, Sameness};
use crate::plan::{Node, Plan};
use crate::result::{Content, OutputRecord, StepResult};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trainlock_lock::{Lock, ResultPin, SealedKind, SealedOutput};
use trainlock_store::{Store, StoreError};
use trainlock_types::{Digest, EntryKind, HumanSize, Name, RelPath};

/// As many files of a folder are told of.
const FILES_TOLD: usize = 5;

/// What came of a step that is done.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its key.
    pub key: Digest,
    /// What came out, in the order of the manifest.
    pub outputs: Vec<OutputRecord>,
    /// The numbers of its metric files.
    pub metrics: BTreeMap<String, f64>,
    /// The numeric class that it ran in; none if its outputs stood in the project already.
    pub class: Option<String>,
}

/// How a step compares with what was sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Finding {
    /// The same bytes.
    Reproduced,
    /// Other bytes, and the same content or metrics that are near enough.
    Equivalent {
        /// In what way, one a file or metric.
        notes: Vec<String>,
    },
    /// Other content.
    Diverged {
        /// Every output that differs.
        files: Vec<FileDifference>,
        /// Metrics that differ, in words.
        metrics: Vec<String>,
        /// What else is known to differ: the key's facts, the machine.
        causes: Vec<String>,
    },
    /// Other content, and so has a step that it needs.
    Follows {
        /// That step. (`step` is the name of the one that follows it.)
        #[serde(rename = "because-of")]
        step: String,
    },
    /// Sealed for other classes alone, and its bytes are not theirs.
    Elsewhere {
        /// Those classes.
        classes: Vec<String>,
        /// Metrics that differ, in words.
        metrics: Vec<String>,
    },
    /// Nothing was sealed for it.
    Unsealed,
}

/// One output that is not what was sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileDifference {
    /// Relative to the workspace.
    pub path: String,
    /// The sealed digest and size, or that there is none.
    pub expected: String,
    /// What came out.
    pub found: String,
    /// Where in it, how far apart; empty where the sealed bytes are not in the store.
    pub details: Vec<String>,
}

/// A step and how it compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    /// `member/step`, or `step` in the root project.
    pub step: String,
    /// The class of the result that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// How it compares.
    #[serde(flatten)]
    pub finding: Finding,
}

/// The verdict on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// Every sealed step gave the same bytes.
    Reproduced,
    /// Some gave other bytes with the same content, or near enough metrics.
    Equivalent,
    /// What is sealed is of other classes of machines.
    Elsewhere,
    /// Some gave something else.
    Diverged,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Reproduced => f.write_str("reproduced bit for bit"),
            Finding::Equivalent { notes } => write!(f, "equivalent: {}", notes.join("; ")),
            Finding::Diverged { files, metrics, .. } => {
                let files = files.iter().map(|file| match file.details.first() {
                    Some(detail) => detail.clone(),
                    None => format!("`{}`: sealed {}, found {}", file.path, file.expected, file.found),
                });
                write!(f, "diverged: {}", files.chain(metrics.iter().cloned()).collect::<Vec<_>>().join("; "))
            }
            Finding::Follows { step } => write!(f, "differs because `{step}` does"),
            Finding::Elsewhere { classes, .. } => write!(f, "sealed for other classes alone: {}", classes.join(", ")),
            Finding::Unsealed => f.write_str("not sealed"),
        }
    }
}

/// Why results could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The store is in trouble.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be compared.
    #[error("can't compare `{path}` with what was sealed")]
    Compare {
        /// The output.
        path: String,
        /// Why.
        #[source]
        source: CompareError,
    },
}

/// The verdict on all of them; none if nothing is sealed.
pub fn overall(judged: &[Judged]) -> Option<Overall> {
    let of = |finding: &Finding| match finding {
        Finding::Reproduced => Some(Overall::Reproduced),
        Finding::Equivalent { .. } => Some(Overall::Equivalent),
        Finding::Elsewhere { .. } => Some(Overall::Elsewhere),
        Finding::Diverged { .. } | Finding::Follows { .. } => Some(Overall::Diverged),
        Finding::Unsealed => None,
    };
    judged.iter().filter_map(|j| of(&j.finding)).max()
}

/// Compares the steps that are done with what the lock seals under a profile. `class` gives the class that a
/// step would have here.
pub fn judge(
    plan: &Plan<'_>,
    lock: &Lock,
    profile: Option<&Name>,
    outcomes: &[Option<Outcome>],
    class: impl Fn(&Node<'_>) -> String,
    store: &Store,
) -> Result<Vec<Judged>, VerdictError> {
    let mut judged: Vec<Judged> = Vec::with_capacity(plan.nodes.len());
    for (node, outcome) in plan.nodes.iter().zip(outcomes) {
        let sealed: Vec<&ResultPin> = lock.results(member(node), &node.step.name, profile).collect();
        let (Some(outcome), false) = (outcome, sealed.is_empty()) else {
            judged.push(Judged { step: node.id.clone(), class: None, finding: Finding::Unsealed });
            continue;
        };
        let here = outcome.class.clone().unwrap_or_else(|| class(node));
        let pin = sealed.iter().find(|pin| pin.class == here);
        let same = |pin: &&&ResultPin| same_bytes(node, pin, outcome);
        let (finding, pin) = match (pin, sealed.iter().find(same)) {
            (Some(pin), _) if same_bytes(node, pin, outcome) => (Finding::Reproduced, pin),
            // Another class's bits are not promised here; where they come out all the same, so much the better.
            (None, Some(pin)) => (Finding::Reproduced, pin),
            (Some(pin), _) => {
                let before = node
                    .needs
                    .iter()
                    .find(|need| matches!(judged[**need].finding, Finding::Diverged { .. } | Finding::Follows { .. }));
                let finding = differing(node, pin, outcome, store)?;
                match (finding, before) {
                    (Finding::Diverged { .. }, Some(before)) => {
                        (Finding::Follows { step: plan.nodes[*before].id.clone() }, pin)
                    }
                    (finding, _) => (finding, pin),
                }
            }
            (None, None) => {
                let classes = sealed.iter().map(|pin| pin.class.clone()).collect();
                let metrics = metrics(node, sealed[0], outcome);
                let tolerated = !node.step.tolerance.is_empty() && metrics.iter().all(|m| m.tolerated);
                let words = metrics.into_iter().map(|m| m.words).collect();
                let finding = match tolerated {
                    true => Finding::Equivalent { notes: words },
                    false => Finding::Elsewhere { classes, metrics: words },
                };
                (finding, &sealed[0])
            }
        };
        judged.push(Judged { step: node.id.clone(), class: Some(pin.class.clone()), finding });
    }
    Ok(judged)
}

/// The member as the lock names it: none for the root project.
pub(crate) fn member<'a>(node: &Node<'a>) -> Option<&'a Name> {
    (!node.member.dir.is_root()).then_some(&node.member.name)
}

/// What is sealed of an outcome. `class` is the class that it was made in.
pub fn to_seal(
    node: &Node<'_>,
    profile: Option<&Name>,
    outcome: &Outcome,
    class: String,
    store: &Store,
) -> Result<ResultPin, VerdictError> {
    let mut outputs = Vec::with_capacity(outcome.outputs.len());
    for (path, record) in made(node, outcome) {
        let kind = kind(&record.content);
        let content = match in_store(record, store)? {
            Some(at) => content_of(record, &at, &record.path, store)?,
            None => None,
        };
        outputs.push(SealedOutput {
            path: path.clone(),
            kind,
            sha256: record.content.digest(),
            size: record.content.size(),
            content,
        });
    }
    outputs.sort();
    Ok(ResultPin {
        member: member(node).cloned(),
        step: node.step.name.clone(),
        profile: profile.cloned(),
        class,
        key: outcome.key,
        outputs,
        metrics: outcome.metrics.clone(),
        extra: String::new(),
    })
}

/// The digest of an output's content without the noise of containers; none where its bytes are the content. Of a folder it
/// is that of a line a file: the content's digest (else the bytes'), what kind of file it is, and its path.
fn content_of(record: &OutputRecord, at: &Path, path: &str, store: &Store) -> Result<Option<Digest>, VerdictError> {
    let digest = |at: &Path, name: &str| {
        let failed = |source| VerdictError::Compare { path: path.to_owned(), source };
        compare::content_digest(at, name).map_err(failed)
    };
    if !matches!(record.content, Content::Tree { .. }) {
        return digest(at, path);
    }
    let Some(listing) = store.listing(&record.content.digest())? else { return Ok(None) };
    let (mut text, mut is_other) = (String::new(), false);
    for entry in listing.entries() {
        let content = match entry.kind {
            EntryKind::Symlink => None,
            _ => digest(&entry.path.on(at), entry.path.as_str())?,
        };
        is_other |= content.is_some();
        text += &format!("{} {:?} {}\n", content.unwrap_or(entry.sha256), entry.kind, entry.path);
    }
    Ok(is_other.then(|| Digest::of(text.as_bytes())))
}

fn same_bytes(node: &Node<'_>, pin: &ResultPin, outcome: &Outcome) -> bool {
    pin.outputs.len() == outcome.outputs.len()
        && made(node, outcome).all(|(path, record)| pin.outputs.iter().any(|s| s.path == *path && is(s, record)))
}

/// The outputs with their paths in the workspace.
fn made<'a>(node: &'a Node<'_>, outcome: &'a Outcome) -> impl Iterator<Item = (&'a RelPath, &'a OutputRecord)> {
    node.step.outputs.iter().map(|output| &output.path).zip(&outcome.outputs)
}

fn kind(content: &Content) -> SealedKind {
    match content {
        Content::File { executable: false, .. } => SealedKind::File,
        Content::File { executable: true, .. } => SealedKind::Executable,
        Content::Tree { .. } => SealedKind::Folder,
    }
}

/// Whether an output is what was sealed, to the bit.
fn is(sealed: &SealedOutput, output: &OutputRecord) -> bool {
    sealed.kind == kind(&output.content) && sealed.sha256 == output.content.digest()
}

/// Where the store has an output's bytes.
fn in_store(output: &OutputRecord, store: &Store) -> Result<Option<PathBuf>, StoreError> {
    match &output.content {
        Content::File { sha256, size, .. } => store.object(sha256, Some(*size)),
        Content::Tree { tree, .. } => Ok(store.tree(tree)),
    }
}

/// How far a metric is from what was sealed.
struct Metric {
    words: String,
    tolerated: bool,
}

/// The metrics that are not what was sealed.
fn metrics(node: &Node<'_>, pin: &ResultPin, outcome: &Outcome) -> Vec<Metric> {
    let names: std::collections::BTreeSet<&String> = pin.metrics.keys().chain(outcome.metrics.keys()).collect();
    let differs = |name: &String| {
        let (old, new) = (pin.metrics.get(name).copied(), outcome.metrics.get(name).copied());
        match (old, new) {
            (Some(old), Some(new)) if old.to_bits() == new.to_bits() => None,
            (Some(old), Some(new)) => {
                let most = node.step.tolerance.get(name);
                let apart = (new - old).abs();
                let within = most.map(|m| format!(" (tolerance {m})")).unwrap_or_default();
                Some(Metric {
                    words: format!("{name} {new} instead of {old}{within}"),
                    tolerated: most.is_some_and(|most| apart <= *most),
                })
            }
            (Some(old), None) => Some(Metric { words: format!("no {name}, which was {old}"), tolerated: false }),
            (None, new) => {
                let new = new.unwrap_or_default();
                Some(Metric { words: format!("{name} {new}, which was not there"), tolerated: false })
            }
        }
    };
    names.into_iter().filter_map(differs).collect()
}

/// How outputs with other bytes than the sealed ones compare with them.
fn differing(node: &Node<'_>, pin: &ResultPin, outcome: &Outcome, store: &Store) -> Result<Finding, VerdictError> {
    let mut files = Vec::new();
    let mut notes = Vec::new();
    for sealed in &pin.outputs {
        let expected = shown(&sealed.sha256, sealed.size);
        let path = sealed.path.as_str();
        let Some((_, output)) = made(node, outcome).find(|(path, _)| **path == sealed.path) else {
            let found = "no output of this name".to_owned();
            files.push(FileDifference { path: path.to_owned(), expected, found, details: Vec::new() });
            continue;
        };
        if is(sealed, output) {
            continue;
        }
        let found = shown(&output.content.digest(), output.content.size());
        let failed = |source| VerdictError::Compare { path: path.to_owned(), source };
        let ours = in_store(output, store)?;
        let theirs = match sealed.kind {
            SealedKind::Folder => store.tree(&sealed.sha256),
            _ => store.object(&sealed.sha256, Some(sealed.size))?,
        };
        let folder = matches!(output.content, Content::Tree { .. });
        let mut details = Vec::new();
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if folder == (sealed.kind == SealedKind::Folder) => {
                let compared = match folder {
                    true => folders(&theirs, &ours),
                    false => compare::compare_files(&theirs, &ours, path).map(|c| (c.verdict, vec![c.to_string()])),
                };
                let (sameness, lines) = compared.map_err(failed)?;
                if sameness != Sameness::Different {
                    notes.extend(lines);
                    continue;
                }
                details = lines;
            }
            // Without the sealed bytes, the sealed digest of the content can still say that only the container differs.
            (_, Some(ours))
                if sealed.content.is_some() && content_of(output, &ours, path, store)? == sealed.content =>
            {
                notes.push(format!("`{path}`: the container differs, the content is the same"));
                continue;
            }
            _ => {}
        }
        files.push(FileDifference { path: path.to_owned(), expected, found, details });
    }
    for (path, output) in made(node, outcome) {
        if !pin.outputs.iter().any(|sealed| sealed.path == *path) {
            files.push(FileDifference {
                path: path.to_string(),
                expected: "nothing of this name".to_owned(),
                found: shown(&output.content.digest(), output.content.size()),
                details: Vec::new(),
            });
        }
    }
    let metrics = metrics(node, pin, outcome);
    if files.is_empty() {
        return Ok(Finding::Equivalent { notes });
    }
    if !node.step.tolerance.is_empty() && metrics.iter().all(|m| m.tolerated) {
        notes.extend(files.iter().map(|f| format!("`{}`: other bytes", f.path)));
        notes.extend(metrics.into_iter().map(|m| m.words));
        return Ok(Finding::Equivalent { notes });
    }
    let causes = causes(pin, outcome, store)?;
    Ok(Finding::Diverged { files, metrics: metrics.into_iter().map(|m| m.words).collect(), causes })
}

/// Two folders: how much they are the same, and the first files that are not.
fn folders(a: &Path, b: &Path) -> Result<(Sameness, Vec<String>), CompareError> {
    let differences = compare::compare_folders(a, b)?;
    let of = |change: &FolderChange| match change {
        FolderChange::Content(comparison) => comparison.verdict,
        _ => Sameness::Different,
    };
    let sameness = differences.iter().map(|d| of(&d.change)).max().unwrap_or(Sameness::Identical);
    let mut lines: Vec<String> =
        differences.iter().filter(|d| of(&d.change) == sameness).take(FILES_TOLD).map(ToString::to_string).collect();
    let more = differences.len().saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more of its files"));
    }
    Ok((sameness, lines))
}

/// What is known to differ between the making of what was sealed and this run.
fn causes(pin: &ResultPin, outcome: &Outcome, store: &Store) -> Result<Vec<String>, StoreError> {
    let (old, new) = (stored_result(store, &pin.key)?, stored_result(store, &outcome.key)?);
    let mut causes = Vec::new();
    if pin.key != outcome.key {
        match (&old, &new) {
            (Some(old), Some(new)) => {
                causes.extend(new.form.differences(&old.form).iter().map(ToString::to_string));
            }
            _ => causes.push("its key: what goes into it is not what went into the sealed result".to_owned()),
        }
    }
    if let (Some(old), Some(new)) = (&old, &new) {
        causes.extend(StepResult::differing_hosts(old, new));
    }
    Ok(causes)
}

fn shown(digest: &Digest, size: u64) -> String {
    format!("sha256 {}, {}", &digest.to_hex()[..12], HumanSize(size))
}
