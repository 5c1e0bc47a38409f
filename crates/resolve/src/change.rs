//! What locking changes, in words.

use std::collections::BTreeMap;
use std::fmt;
use trainlock_lock::{Content, Determinism, Reason};
use trainlock_types::{Digest, HumanSize, Listing, Name, RelPath, Value};

/// One difference between an old lock and what is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it is about.
    pub subject: Subject,
    /// What happens to it.
    pub action: Action,
}

/// What a change is about.
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
}

/// In what two tables of determinism differ.
pub(crate) fn determinism(old: &Determinism, new: &Determinism) -> Vec<Why> {
    let threads = |d: &Determinism| d.threads.map_or("none".to_owned(), |n| n.to_string());
    let facts = [
        ("seed", old.seed.to_string(), new.seed.to_string()),
        ("level", old.level.clone(), new.level.clone()),
        ("threads", threads(old), threads(new)),
        ("seed-globals", old.seed_globals.to_string(), new.seed_globals.to_string()),
    ];
    let differ = |(key, old, new)| {
        if old == new { None } else { Some(Why::Fact { key, old, new }) }
    };
    let mut why: Vec<Why> = facts.into_iter().filter_map(differ).collect();
    // Which architectures a level is resolved for is a fact; what it means on them stays as it was locked.
    let architectures = |d: &Determinism| match d.switches.len() {
        0 => "none".to_owned(),
        _ => d.switches.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    why.extend(differ(("switches", architectures(old), architectures(new))));
    why
}

/// `data raw: added, sha256 1a2b…, 56.2 KiB`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.action)
    }
}

/// `data raw`, `data two/raw`, `param digits: optimizer.lr`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = |member: &Option<Name>| member.as_ref().map_or(String::new(), |m| format!("{m}/"));
        match self {
            Subject::Data { member, name } => write!(f, "data {}{name}", prefix(member)),
            Subject::Tool { member, name } => write!(f, "tool {}{name}", prefix(member)),
            Subject::Determinism { member: None } => f.write_str("determinism"),
            Subject::Determinism { member: Some(member) } => write!(f, "determinism {member}"),
            Subject::Param { member, profile, key } => {
                match profile {
                    None => write!(f, "params {member}")?,
                    Some(profile) => write!(f, "profile {profile} {member}")?,
                }
                key.as_ref().map_or(Ok(()), |key| write!(f, " {key}"))
            }
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
        match self {
            Why::Request(reason) => reason.fmt(f),
            Why::Content { old, new } => {
                write!(f, "content changed: {} -> {}", old.digest().short(), new.digest().short())?;
                match (old, new) {
                    (Content::Tree { listing: Some(old), .. }, Content::Tree { listing: Some(new), .. }) => {
                        write!(f, ", {}", files(old, new))
                    }
                    _ if old.size() != new.size() => {
                        write!(f, ", {} -> {}", HumanSize(old.size()), HumanSize(new.size()))
                    }
                    _ => Ok(()),
                }
            }
            Why::Archive { old, new } => {
                write!(f, "the archive changed, its content did not: {} -> {}", short(old), short(new))
            }
            Why::Source { old, new } => write!(f, "source: {} -> {}", place(old), place(new)),
            Why::Version { old, new } => write!(f, "version: {old} -> {new}"),
            Why::Value { old, new } => write!(f, "{old} -> {new}"),
            Why::Fact { key, old, new } => write!(f, "{key}: {old} -> {new}"),
        }
    }
}

/// What a pin holds, in words.
pub(crate) fn content(content: &Content) -> String {
    let size = HumanSize(content.size());
    match content {
        Content::File { sha256, .. } => format!("sha256 {}, {size}", sha256.short()),
        Content::Tree { tree, count: 1, .. } => format!("tree {}, 1 file, {size}", tree.short()),
        Content::Tree { tree, count, .. } => {
            format!("tree {}, {count} files, {size}", tree.short())
        }
    }
}

/// How many files came, went and changed: "3 files added, 1 changed".
fn files(old: &Listing, new: &Listing) -> String {
    let mut before: BTreeMap<&RelPath, _> = old.entries().iter().map(|e| (&e.path, (e.sha256, e.kind))).collect();
    let (mut added, mut changed) = (0_u64, 0_u64);
    for entry in new.entries() {
        match before.remove(&entry.path) {
            None => added += 1,
            Some(found) if found != (entry.sha256, entry.kind) => changed += 1,
            Some(_) => {}
        }
    }
    let mut words = String::new();
    for (number, verb) in [(added, "added"), (before.len() as u64, "removed"), (changed, "changed")] {
        match (number, words.is_empty()) {
            (0, _) => {}
            (1, true) => words = format!("1 file {verb}"),
            (_, true) => words = format!("{number} files {verb}"),
            (_, false) => words.push_str(&format!(", {number} {verb}")),
        }
    }
    words
}
