//! What is different between two locks, or between a lock and what is wanted: one vocabulary for both.
//!
//! [`diff`] compares what two locks hold. Locking tells what it is about to change with the same [`Change`]s.

use crate::satisfies::{python_satisfies, satisfies, tool_satisfies};
use crate::{
    Content, DataPin, Determinism, ImagePin, Lock, PackagePin, Reason, ResultPin, SealedKind, SealedOutput, ToolPin,
};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use trainlock_types::{DataRequest, Digest, HumanSize, Listing, Name, Params, PinnedFile, RelPath, ToolRequest, Value};

/// One difference between an old lock and a new one, or what is wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it is about.
    pub subject: Subject,
    /// What happens to it.
    pub action: Action,
}

/// What a change is about. The order is that of the lock's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A data set.
    Data {
        /// The data set.
        name: Name,
        /// The member; none for the root project.
        member: Option<Name>,
    },
    /// A tool.
    Tool {
        /// The tool.
        name: Name,
        /// The member; none for the root project.
        member: Option<Name>,
    },
    /// What a member's python packages are resolved from.
    Python {
        /// The member; none for the root project.
        member: Option<Name>,
        /// The profile; none for `[python]` itself.
        profile: Option<Name>,
    },
    /// A python package.
    Package {
        /// The package.
        name: Name,
        /// The member; none for the root project.
        member: Option<Name>,
        /// The profile; none for `[python]` itself.
        profile: Option<Name>,
    },
    /// A container image.
    Image {
        /// As the manifest names it.
        reference: String,
    },
    /// A member's seed and level.
    Determinism {
        /// The member; none for the root project.
        member: Option<Name>,
    },
    /// A hyperparameter.
    Param {
        /// The profile that lays it over; none for the member's own.
        profile: Option<Name>,
        /// The member.
        member: Name,
        /// The dotted name; none if it is about an empty table.
        key: Option<String>,
    },
    /// A sealed result.
    Result {
        /// The step.
        step: Name,
        /// The member; none for the root project.
        member: Option<Name>,
        /// The profile; none for none.
        profile: Option<Name>,
        /// The numeric class.
        class: String,
    },
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It was not locked.
    Added {
        /// What is locked now, in words; none while it is not known.
        what: Option<String>,
    },
    /// It is wanted no longer.
    Removed,
    /// It is locked otherwise.
    Changed {
        /// In what, never empty.
        why: Vec<Why>,
    },
}

/// In what a locked thing changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// The request differs from the one that was locked.
    Request(Reason),
    /// There is other content.
    Content {
        /// What was locked.
        old: Content,
        /// What is there.
        new: Content,
    },
    /// The same content in another archive, as after a new compression.
    Archive {
        /// The locked archive's digest.
        old: Option<Digest>,
        /// The new one's.
        new: Option<Digest>,
    },
    /// The same content at other versions of a bucket's objects: they were put again.
    Objects,
    /// The address is resolved otherwise.
    Source {
        /// As it was locked; none if it was the request's own.
        old: Option<String>,
        /// As it is now.
        new: Option<String>,
    },
    /// Another version of a tool.
    Version {
        /// The locked one.
        old: semver::Version,
        /// The new one.
        new: semver::Version,
    },
    /// Other versions of a python package: one each, or several for several platforms.
    Versions {
        /// The locked ones.
        old: Vec<String>,
        /// The new ones.
        new: Vec<String>,
    },
    /// Files of the same version, other than those that were locked.
    Files {
        /// Those that are gone, by name.
        old: Vec<String>,
        /// Those that are new, by name.
        new: Vec<String>,
    },
    /// Another value of a hyperparameter.
    Value {
        /// The locked one.
        old: Value,
        /// The new one.
        new: Value,
    },
    /// Another seed, level, or other fact of determinism.
    Fact {
        /// The key.
        key: &'static str,
        /// As locked.
        old: String,
        /// As wanted.
        new: String,
    },
    /// What a level means on an architecture; of a variable that one side does not set, that side is none.
    Switch {
        /// The architecture.
        architecture: String,
        /// The variable, or `level`.
        name: String,
        /// As locked.
        old: Option<String>,
        /// As it is now.
        new: Option<String>,
    },
    /// A step's key: something that goes into the step is not what it was.
    Key {
        /// The sealed one.
        old: Digest,
        /// The new one.
        new: Digest,
    },
    /// An output of a result; none on the side that does not have it.
    Output {
        /// As it was sealed.
        old: Option<SealedOutput>,
        /// As it is sealed now.
        new: Option<SealedOutput>,
    },
    /// A metric of a result; none on the side that does not have it.
    Metric {
        /// Its dotted name.
        name: String,
        /// As it was sealed.
        old: Option<f64>,
        /// As it is sealed now.
        new: Option<f64>,
    },
    /// Lines that a later trainlock wrote, and that this one does not know.
    Unknown,
}

/// The files in which two listings differ, each list sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct FileChanges {
    /// Only in the new one.
    pub added: Vec<RelPath>,
    /// Only in the old one.
    pub removed: Vec<RelPath>,
    /// In both, with other bytes or of another kind.
    pub changed: Vec<RelPath>,
}

/// What is different in `new`, in the order of the lock's file; empty exactly if both hold the same, but for keys and
/// tables outside any entry that neither knows.
pub fn diff(old: &Lock, new: &Lock) -> Vec<Change> {
    let mut changes = BTreeMap::new();
    let place = |pin: &DataPin| Subject::Data { name: pin.name.clone(), member: pin.member.clone() };
    compare(&mut changes, &old.data, &new.data, place, |pin| Some(pin.content.to_string()), data);
    let place = |pin: &ToolPin| Subject::Tool { name: pin.name.clone(), member: pin.member.clone() };
    compare(&mut changes, &old.tools, &new.tools, place, |pin| Some(pin.version.to_string()), tool);
    compare(
        &mut changes,
        &old.python,
        &new.python,
        |pin| Subject::Python { member: pin.member.clone(), profile: pin.profile.clone() },
        |pin| Some(format!("for {}", pin.python)),
        |old, new| python_satisfies(old, &new.request(), &new.python).into_iter().map(Why::Request).collect(),
    );
    changes.extend(package_changes(&old.packages, &new.packages));
    let place = |pin: &ImagePin| Subject::Image { reference: pin.reference.to_string() };
    compare(&mut changes, &old.images, &new.images, place, |pin| Some(pin.in_words()), |old, new| old.changes(new));
    let tables = |lock: &'_ Lock| lock.determinism.clone().into_iter().collect::<Vec<_>>();
    compare(
        &mut changes,
        &tables(old),
        &tables(new),
        |(member, _)| Subject::Determinism { member: member.clone() },
        |(_, table)| Some(table.in_words()),
        |(_, old), (_, new)| determinism(old, new),
    );
    let value = |(_, value): &(Subject, Option<Value>)| value.as_ref().map(Value::to_string);
    compare(
        &mut changes,
        &params(old),
        &params(new),
        |(subject, _)| subject.clone(),
        value,
        |(_, old), (_, new)| match (old, new) {
            (Some(old), Some(new)) if old != new => vec![Why::Value { old: old.clone(), new: new.clone() }],
            _ => Vec::new(),
        },
    );
    let place = |pin: &ResultPin| Subject::Result {
        step: pin.step.clone(),
        member: pin.member.clone(),
        profile: pin.profile.clone(),
        class: pin.class.clone(),
    };
    compare(&mut changes, &old.results, &new.results, place, |pin| Some(holds(pin)), result);
    changes.into_iter().map(|(subject, action)| Change { subject, action }).collect()
}

/// Notes what came, went and changed of one kind of entry.
fn compare<T>(
    changes: &mut BTreeMap<Subject, Action>,
    old: &[T],
    new: &[T],
    subject: impl Fn(&T) -> Subject,
    what: impl Fn(&T) -> Option<String>,
    changed: impl Fn(&T, &T) -> Vec<Why>,
) {
    let mut before: BTreeMap<Subject, &T> = old.iter().map(|entry| (subject(entry), entry)).collect();
    for entry in new {
        let subject = subject(entry);
        let action = match before.remove(&subject) {
            None => Action::Added { what: what(entry) },
            Some(old) => match changed(old, entry) {
                why if why.is_empty() => continue,
                why => Action::Changed { why },
            },
        };
        changes.insert(subject, action);
    }
    changes.extend(before.into_keys().map(|subject| (subject, Action::Removed)));
}

fn data(old: &DataPin, new: &DataPin) -> Vec<Why> {
    let request = DataRequest {
        member: new.member.clone(),
        name: new.name.clone(),
        source: new.source.clone(),
        to: RelPath::root(),
    };
    // A lock of before may hold an address as it was written, with what signs it.
    let reasons = if old.source == new.source { Vec::new() } else { satisfies(old, &request) }.into_iter();
    // Whether the old content holds the new statement is no difference between the two.
    let mut why: Vec<Why> = reasons
        .filter(|reason| !matches!(reason, Reason::Checksum { old, new, .. } if old == new))
        .map(Why::Request)
        .collect();
    if old.resolved != new.resolved {
        why.push(Why::Source { old: old.resolved.clone(), new: new.resolved.clone() });
    }
    if old.content.digest() != new.content.digest() {
        why.push(Why::Content { old: old.content.clone(), new: new.content.clone() });
    } else if old.archive != new.archive {
        let sha256 = |pin: &DataPin| pin.archive.map(|(sha256, _)| sha256);
        why.push(Why::Archive { old: sha256(old), new: sha256(new) });
    } else if old.versions != new.versions {
        why.push(Why::Objects);
    }
    why.extend((old.extra != new.extra).then_some(Why::Unknown));
    why
}

/// What is different in new python packages, each package by its name: it may be there in several versions.
pub fn package_changes(old: &[PackagePin], new: &[PackagePin]) -> BTreeMap<Subject, Action> {
    let grouped = |pins: &'_ [PackagePin]| -> Vec<(Subject, Vec<PackagePin>)> {
        let mut groups: BTreeMap<Subject, Vec<PackagePin>> = BTreeMap::new();
        for pin in pins {
            let (name, member, profile) = (pin.name.clone(), pin.member.clone(), pin.profile.clone());
            let subject = Subject::Package { name, member, profile };
            groups.entry(subject).or_default().push(pin.clone());
        }
        groups.into_iter().collect()
    };
    let versions = |pins: &[PackagePin]| pins.iter().map(|p| p.version.clone()).collect::<Vec<_>>();
    let mut changes = BTreeMap::new();
    compare(
        &mut changes,
        &grouped(old),
        &grouped(new),
        |(subject, _)| subject.clone(),
        |(_, pins)| Some(versions(pins).join(", ")),
        |(_, old), (_, new)| {
            let (before, after) = (versions(old), versions(new));
            if before != after {
                return vec![Why::Versions { old: before, new: after }];
            }
            let files = |pins: &[PackagePin]| {
                let of = |p: &PackagePin| p.wheels.iter().chain(&p.source).cloned().collect::<Vec<_>>();
                pins.iter().flat_map(of).collect::<BTreeSet<_>>()
            };
            let (before, after) = (files(old), files(new));
            let only = |a: &BTreeSet<_>, b: &BTreeSet<_>| {
                a.difference(b).map(|f: &PinnedFile| f.file.clone()).collect::<Vec<_>>()
            };
            let mut why = Vec::new();
            if before != after {
                why.push(Why::Files { old: only(&before, &after), new: only(&after, &before) });
            }
            let markers = |pins: &[PackagePin]| pins.iter().filter_map(|p| p.marker.clone()).collect::<Vec<_>>();
            let (before, after) = (markers(old), markers(new));
            if before != after {
                why.push(Why::Fact { key: "marker", old: before.join("; "), new: after.join("; ") });
            }
            let unknown = |pins: &[PackagePin]| pins.iter().map(|p| p.extra.clone()).collect::<Vec<_>>();
            why.extend((unknown(old) != unknown(new)).then_some(Why::Unknown));
            why
        },
    );
    changes
}

fn tool(old: &ToolPin, new: &ToolPin) -> Vec<Why> {
    let request = ToolRequest {
        member: new.member.clone(),
        name: new.name.clone(),
        version: new.request.clone(),
        requirement: semver::VersionReq::STAR,
        provider: new.provider.clone(),
        platforms: new.platforms.clone(),
    };
    // Whether the old version satisfies the new requirement is no difference between the two.
    let reasons = tool_satisfies(old, &request).into_iter().filter(|reason| !matches!(reason, Reason::Version { .. }));
    let mut why: Vec<Why> = reasons.map(Why::Request).collect();
    if old.version != new.version {
        why.push(Why::Version { old: old.version.clone(), new: new.version.clone() });
    } else {
        why.extend(artifacts(old, new));
    }
    why.extend((old.extra != new.extra).then_some(Why::Unknown));
    why
}

/// In what the files of a fetched tool differ.
pub fn artifacts(old: &ToolPin, new: &ToolPin) -> Option<Why> {
    let only = |a: &ToolPin, b: &ToolPin| -> Vec<String> {
        let other = a.artifacts.iter().filter(|(platform, artifact)| b.artifacts.get(platform) != Some(*artifact));
        other.map(|(_, artifact)| artifact.file.file.clone()).collect()
    };
    let (old, new) = (only(old, new), only(new, old));
    (!old.is_empty() || !new.is_empty()).then_some(Why::Files { old, new })
}

impl ImagePin {
    /// In what a new pin of the same reference differs.
    pub fn changes(&self, new: &ImagePin) -> Vec<Why> {
        let platforms = |pin: &ImagePin| {
            pin.platforms
                .iter()
                .map(|(p, (sha256, _))| format!("{p} {}", sha256.short()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let facts = [
            ("digest", self.digest.to_string(), new.digest.to_string()),
            ("platforms", platforms(self), platforms(new)),
        ];
        let differ = facts.into_iter().find(|(_, old, new)| old != new);
        let differ = differ.map(|(key, old, new)| Why::Fact { key, old, new });
        differ.into_iter().chain((self.extra != new.extra).then_some(Why::Unknown)).collect()
    }

    /// What is locked: `sha256 1a2b…`.
    pub fn in_words(&self) -> String {
        format!("sha256 {}", self.digest.short())
    }
}

impl Determinism {
    /// In what this table and a new one differ, but for what their levels mean.
    pub fn changes(&self, new: &Determinism) -> Vec<Why> {
        let threads = |d: &Determinism| d.threads.map_or("none".to_owned(), |n| n.to_string());
        let facts = [
            ("seed", self.seed.to_string(), new.seed.to_string()),
            ("level", self.level.clone(), new.level.clone()),
            ("threads", threads(self), threads(new)),
            ("seed-globals", self.seed_globals.to_string(), new.seed_globals.to_string()),
        ];
        let differ = facts.into_iter().filter(|(_, old, new)| old != new);
        differ.map(|(key, old, new)| Why::Fact { key, old, new }).collect()
    }

    fn in_words(&self) -> String {
        format!("seed {}, level {}", self.seed, self.level)
    }
}

fn determinism(old: &Determinism, new: &Determinism) -> Vec<Why> {
    let mut why = old.changes(new);
    let switches = |table: &Determinism| -> BTreeMap<(String, String), String> {
        let of = |(architecture, switches): (&String, &crate::Switches)| {
            let level = (String::from("level"), switches.level.clone());
            let all = std::iter::once(level).chain(switches.variables.clone());
            all.map(|(name, value)| ((architecture.clone(), name), value)).collect::<Vec<_>>()
        };
        table.switches.iter().flat_map(of).collect()
    };
    let (before, after) = (switches(old), switches(new));
    for place in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.get(place).cloned(), after.get(place).cloned());
        if old != new {
            let (architecture, name) = place.clone();
            why.push(Why::Switch { architecture, name, old, new });
        }
    }
    let unknown = |d: &Determinism| (d.extra.clone(), d.switches.values().map(|s| s.extra.clone()).collect::<String>());
    why.extend((unknown(old) != unknown(new)).then_some(Why::Unknown));
    why
}

/// Each param, and each table of params that has none.
fn params(lock: &Lock) -> Vec<(Subject, Option<Value>)> {
    let own = lock.params.iter().map(|(member, params)| (None, member, params));
    let laid_over = lock.profiles.iter().map(|((profile, member), params)| (Some(profile), member, params));
    let mut all = Vec::new();
    for (profile, member, params) in own.chain(laid_over) {
        let subject = |key| Subject::Param { profile: profile.cloned(), member: member.clone(), key };
        all.extend(leaves(params).map(|(key, value)| (subject(key), value)));
    }
    all
}

fn leaves(params: &Params) -> impl Iterator<Item = (Option<String>, Option<Value>)> {
    let empty = params.is_empty().then_some((None, None));
    params.iter().map(|(key, value)| (Some(key.clone()), Some(value.clone()))).chain(empty)
}

fn result(old: &ResultPin, new: &ResultPin) -> Vec<Why> {
    let mut why = Vec::new();
    if old.key != new.key {
        why.push(Why::Key { old: old.key, new: new.key });
    }
    let outputs = |pin: &ResultPin| -> BTreeMap<RelPath, SealedOutput> {
        pin.outputs.iter().map(|output| (output.path.clone(), output.clone())).collect()
    };
    let (before, after) = (outputs(old), outputs(new));
    for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.get(path).cloned(), after.get(path).cloned());
        if old != new {
            why.push(Why::Output { old, new });
        }
    }
    for name in old.metrics.keys().chain(new.metrics.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.metrics.get(name).copied(), new.metrics.get(name).copied());
        if old.map(f64::to_bits) != new.map(f64::to_bits) {
            why.push(Why::Metric { name: name.clone(), old, new });
        }
    }
    why.extend((old.extra != new.extra).then_some(Why::Unknown));
    why
}

/// `2 outputs, accuracy 0.97`
fn holds(pin: &ResultPin) -> String {
    let outputs = match pin.outputs.len() {
        1 => "1 output".to_owned(),
        n => format!("{n} outputs"),
    };
    let metrics = pin.metrics.iter().map(|(name, value)| format!("{name} {value}"));
    std::iter::once(outputs).chain(metrics).collect::<Vec<_>>().join(", ")
}

impl FileChanges {
    /// In which files `new` differs from `old`.
    pub fn between(old: &Listing, new: &Listing) -> FileChanges {
        let mut before: BTreeMap<&RelPath, _> = old.entries().iter().map(|e| (&e.path, (e.sha256, e.kind))).collect();
        let mut changes = FileChanges::default();
        for entry in new.entries() {
            match before.remove(&entry.path) {
                None => changes.added.push(entry.path.clone()),
                Some(found) if found != (entry.sha256, entry.kind) => changes.changed.push(entry.path.clone()),
                Some(_) => {}
            }
        }
        changes.removed = before.into_keys().cloned().collect();
        changes
    }

    /// Each file with what became of it, in the order of the words: `added a/b.txt`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let parts = [(&self.added, "added"), (&self.removed, "removed"), (&self.changed, "changed")];
        parts.into_iter().flat_map(|(paths, verb)| paths.iter().map(move |path| format!("{verb} {path}")))
    }
}

/// How many files came, went and changed: `3 files added, 1 changed`.
impl fmt::Display for FileChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(&self.added, "added"), (&self.removed, "removed"), (&self.changed, "changed")];
        for (i, (paths, verb)) in parts.into_iter().filter(|(paths, _)| !paths.is_empty()).enumerate() {
            match (paths.len(), i) {
                (1, 0) => write!(f, "1 file {verb}")?,
                (number, 0) => write!(f, "{number} files {verb}")?,
                (number, _) => write!(f, ", {number} {verb}")?,
            }
        }
        Ok(())
    }
}

impl Why {
    /// The files of a folder that changed, where both listings are known.
    pub fn files(&self) -> Option<FileChanges> {
        match self {
            Why::Content {
                old: Content::Tree { listing: Some(old), .. },
                new: Content::Tree { listing: Some(new), .. },
            } => Some(FileChanges::between(old, new)),
            _ => None,
        }
    }

    /// What changes, from what and to what, in the words of the lock; none where there is nothing.
    fn parts(&self) -> (String, Option<String>, Option<String>) {
        let hex = |digest: &Option<Digest>| digest.map(|d| d.to_string());
        let number = |metric: &Option<f64>| metric.map(|m| m.to_string());
        let line = |output: &Option<SealedOutput>| output.as_ref().map(SealedOutput::to_line);
        match self {
            Why::Request(reason) => {
                let (key, old, new) = reason.parts();
                (key.to_owned(), old, new)
            }
            Why::Content { old, new } => {
                ("content".to_owned(), Some(old.digest().to_string()), Some(new.digest().to_string()))
            }
            Why::Archive { old, new } => ("archive".to_owned(), hex(old), hex(new)),
            Why::Source { old, new } => ("source".to_owned(), old.clone(), new.clone()),
            Why::Version { old, new } => ("version".to_owned(), Some(old.to_string()), Some(new.to_string())),
            Why::Value { old, new } => ("value".to_owned(), Some(old.to_string()), Some(new.to_string())),
            Why::Versions { old, new } => ("version".to_owned(), Some(old.join(", ")), Some(new.join(", "))),
            Why::Files { old, new } => ("files".to_owned(), Some(old.join(", ")), Some(new.join(", "))),
            Why::Fact { key, old, new } => ((*key).to_owned(), Some(old.clone()), Some(new.clone())),
            Why::Switch { architecture, name, old, new } => {
                (format!("switches.{architecture}.{name}"), old.clone(), new.clone())
            }
            Why::Key { old, new } => ("key".to_owned(), Some(old.to_string()), Some(new.to_string())),
            Why::Output { old, new } => ("output".to_owned(), line(old), line(new)),
            Why::Metric { name, old, new } => (format!("metrics.{name}"), number(old), number(new)),
            Why::Objects => ("versions".to_owned(), None, None),
            Why::Unknown => ("unknown".to_owned(), None, None),
        }
    }
}

/// As an object: `what` changes, `old`, `new` (texts, or null), the same in `words`, and the `files` of a folder.
impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (what, old, new) = self.parts();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("what", &what)?;
        map.serialize_entry("old", &old)?;
        map.serialize_entry("new", &new)?;
        map.serialize_entry("words", &self.to_string())?;
        if let Some(files) = self.files() {
            map.serialize_entry("files", &files)?;
        }
        map.end()
    }
}

/// As an object: `kind`, what names it, `action` (`added`, `removed`, `changed`), and `what` or `changes`.
impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", self.subject.kind())?;
        let member = match &self.subject {
            Subject::Data { name, member } | Subject::Tool { name, member } => {
                map.serialize_entry("name", name)?;
                member.as_ref()
            }
            Subject::Package { name, member, profile } => {
                map.serialize_entry("name", name)?;
                map.serialize_entry("profile", profile)?;
                member.as_ref()
            }
            Subject::Python { member, profile } => {
                map.serialize_entry("profile", profile)?;
                member.as_ref()
            }
            Subject::Image { reference } => {
                map.serialize_entry("name", reference)?;
                None
            }
            Subject::Determinism { member } => member.as_ref(),
            Subject::Param { profile, member, key } => {
                map.serialize_entry("name", key)?;
                map.serialize_entry("profile", profile)?;
                Some(member)
            }
            Subject::Result { step, member, profile, class } => {
                map.serialize_entry("name", step)?;
                map.serialize_entry("profile", profile)?;
                map.serialize_entry("class", class)?;
                member.as_ref()
            }
        };
        map.serialize_entry("member", &member)?;
        match &self.action {
            Action::Added { what } => {
                map.serialize_entry("action", "added")?;
                map.serialize_entry("what", what)?;
            }
            Action::Removed => map.serialize_entry("action", "removed")?,
            Action::Changed { why } => {
                map.serialize_entry("action", "changed")?;
                map.serialize_entry("changes", why)?;
            }
        }
        map.end()
    }
}

/// `data raw: added, sha256 1a2b…, 56.2 KiB`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.action)
    }
}

impl Subject {
    /// Its kind, in one word: `data`, `tool`, `python`, `package`, `image`, `determinism`, `param`, `result`.
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::Data { .. } => "data",
            Subject::Tool { .. } => "tool",
            Subject::Python { .. } => "python",
            Subject::Package { .. } => "package",
            Subject::Image { .. } => "image",
            Subject::Determinism { .. } => "determinism",
            Subject::Param { .. } => "param",
            Subject::Result { .. } => "result",
        }
    }

    /// Its name within its kind: `raw`, `two/raw`, `digits: optimizer.lr`; empty for the root project's determinism.
    pub fn name(&self) -> String {
        let prefix = |member: &Option<Name>| member.as_ref().map_or(String::new(), |m| format!("{m}/"));
        match self {
            Subject::Data { member, name } | Subject::Tool { member, name } => format!("{}{name}", prefix(member)),
            Subject::Package { member, name, profile } => {
                let profile = profile.as_ref().map_or(String::new(), |profile| format!(" (profile {profile})"));
                format!("{}{name}{profile}", prefix(member))
            }
            Subject::Python { member, profile } => {
                let profile = profile.as_ref().map(|profile| format!("(profile {profile})"));
                member.iter().map(Name::to_string).chain(profile).collect::<Vec<_>>().join(" ")
            }
            Subject::Image { reference } => reference.clone(),
            Subject::Determinism { member } => member.as_ref().map(Name::to_string).unwrap_or_default(),
            Subject::Param { member, profile, key } => {
                let key = key.as_ref().map_or(String::new(), |key| format!(" {key}"));
                let profile = profile.as_ref().map_or(String::new(), |profile| format!("{profile} "));
                format!("{profile}{member}{key}")
            }
            Subject::Result { step, member, profile, class } => {
                let profile = profile.as_ref().map_or(String::new(), |profile| format!(", profile {profile}"));
                format!("{}{step} ({class}{profile})", prefix(member))
            }
        }
    }
}

/// `data raw`, `data two/raw`, `params digits optimizer.lr`, `result train (linux-x86_64-gnu/x86-64-v3)`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Subject::Param { profile: None, .. } => "params",
            Subject::Param { profile: Some(_), .. } => "profile",
            other => other.kind(),
        };
        match self.name() {
            name if name.is_empty() => f.write_str(kind),
            name => write!(f, "{kind} {name}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Added { what: None } => f.write_str("added"),
            Action::Added { what: Some(what) } => write!(f, "added, {what}"),
            Action::Removed => f.write_str("removed"),
            Action::Changed { why } => {
                for (i, why) in why.iter().enumerate() {
                    write!(f, "{}{why}", if i > 0 { "; " } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |d| d.short());
        let place = |source: &Option<String>| source.clone().unwrap_or_else(|| "the url itself".to_owned());
        let none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Why::Request(reason) => reason.fmt(f),
            Why::Content { old, new } => {
                write!(f, "content changed: {} -> {}", old.digest().short(), new.digest().short())?;
                let size = |f: &mut fmt::Formatter<'_>| match old.size() == new.size() {
                    true => Ok(()),
                    false => write!(f, ", {} -> {}", HumanSize(old.size()), HumanSize(new.size())),
                };
                match (self.files(), old, new) {
                    (Some(files), ..) => write!(f, ", {files}"),
                    (None, Content::Tree { count: old, .. }, Content::Tree { count: new, .. }) if old != new => {
                        write!(f, ", {old} -> {new} files")?;
                        size(f)
                    }
                    _ => size(f),
                }
            }
            Why::Archive { old, new } => {
                write!(f, "the archive changed, its content did not: {} -> {}", short(old), short(new))
            }
            Why::Objects => f.write_str("the same content at other versions of the bucket's objects"),
            Why::Source { old, new } => write!(f, "source: {} -> {}", place(old), place(new)),
            Why::Version { old, new } => write!(f, "version: {old} -> {new}"),
            Why::Value { old, new } => write!(f, "{old} -> {new}"),
            Why::Versions { old, new } => write!(f, "version: {} -> {}", old.join(", "), new.join(", ")),
            Why::Files { old, new } => {
                let list = |files: &[String]| if files.is_empty() { "none".to_owned() } else { files.join(", ") };
                write!(f, "files of the same version: {} -> {}", list(old), list(new))
            }
            Why::Fact { key, old, new } => write!(f, "{key}: {old} -> {new}"),
            Why::Switch { architecture, name, old, new } => {
                write!(f, "{name} on {architecture}: {} -> {}", none(old), none(new))
            }
            Why::Key { old, new } => write!(f, "key: {} -> {}", old.short(), new.short()),
            Why::Output { old: Some(old), new: Some(new) } => output(f, old, new),
            Why::Output { old, new } => {
                let verb = if old.is_none() { "added" } else { "removed" };
                match old.as_ref().or(new.as_ref()) {
                    Some(one) => {
                        write!(f, "{}: {verb}, sha256 {}, {}", one.path, one.sha256.short(), HumanSize(one.size))
                    }
                    None => f.write_str(verb),
                }
            }
            Why::Metric { name, old, new } => {
                let number = |metric: &Option<f64>| metric.map_or("none".to_owned(), |m| m.to_string());
                write!(f, "{name}: {} -> {}", number(old), number(new))?;
                match (old, new) {
                    (Some(old), Some(new)) => share(f, *old, *new),
                    _ => Ok(()),
                }
            }
            Why::Unknown => f.write_str("keys of a later trainlock changed"),
        }
    }
}

/// An output that both results have.
fn output(f: &mut fmt::Formatter<'_>, old: &SealedOutput, new: &SealedOutput) -> fmt::Result {
    write!(f, "{}: ", new.path)?;
    if old.kind != new.kind {
        let kind = |kind| match kind {
            SealedKind::File => "a file",
            SealedKind::Executable => "an executable file",
            SealedKind::Folder => "a folder",
        };
        write!(f, "{} -> {}", kind(old.kind), kind(new.kind))?;
        if old.sha256 == new.sha256 {
            return Ok(());
        }
        f.write_str(", ")?;
    }
    let digests = format!("{} -> {}", old.sha256.short(), new.sha256.short());
    if old.sha256 == new.sha256 {
        f.write_str("the digest of its content changed, its bytes did not")
    } else if old.content.is_some() && old.content == new.content {
        write!(f, "the container changed, its content did not: {digests}")
    } else if old.size == new.size {
        f.write_str(&digests)
    } else {
        write!(f, "{digests}, {} -> {}", HumanSize(old.size), HumanSize(new.size))
    }
}

/// By how much a number changed: ` (+1.03 %)`; nothing where that has no meaning.
fn share(f: &mut fmt::Formatter<'_>, old: f64, new: f64) -> fmt::Result {
    let percent = (new - old) / old.abs() * 100.0;
    match percent.abs() {
        size if !size.is_finite() || size == 0.0 => Ok(()),
        size if !(0.01..1e6).contains(&size) => write!(f, " ({percent:+.1e} %)"),
        _ => write!(f, " ({percent:+.2} %)"),
    }
}

/// What is locked: `sha256 1a2b…, 56.2 KiB`, `tree 1a2b…, 3 files, 11 B`.
impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = HumanSize(self.size());
        match self {
            Content::File { sha256, .. } => write!(f, "sha256 {}, {size}", sha256.short()),
            Content::Tree { tree, count: 1, .. } => write!(f, "tree {}, 1 file, {size}", tree.short()),
            Content::Tree { tree, count, .. } => write!(f, "tree {}, {count} files, {size}", tree.short()),
        }
    }
}

#[cfg(test)]
mod tests;
