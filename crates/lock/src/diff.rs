//! What changed between two locks, in words.

use crate::{Content, DataPin, Determinism, Lock, ResultPin};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use trainlock_types::{DataSource, Digest, HumanSize, Listing, Params};

/// One entry that is not the same in two locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What kind of entry: `data`, `tool`, `determinism`, `param`, `result`.
    pub kind: &'static str,
    /// Its name: `raw`, `two/raw`, `digits: optimizer.lr`, `train (linux-x86_64-gnu/x86-64-v3)`.
    pub name: String,
    /// What changed, one fact each.
    pub changes: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.changes.join("; "))
    }
}

/// What changed from one lock to another, in the order of the file.
pub fn diff(old: &Lock, new: &Lock) -> Vec<Difference> {
    let mut all = Vec::new();
    let pins = |lock: &'_ Lock| -> BTreeMap<String, DataPin> {
        lock.data.iter().map(|pin| (named(pin.member.as_ref(), &pin.name), pin.clone())).collect()
    };
    entries("data", &pins(old), &pins(new), data, |pin| content(&pin.content), &mut all);
    let tools = |lock: &Lock| -> BTreeMap<String, (String, String)> {
        let entry =
            |t: &crate::ToolPin| (named(t.member.as_ref(), &t.name), (t.version.to_string(), t.request.clone()));
        lock.tools.iter().map(entry).collect()
    };
    let tool = |old: &(String, String), new: &(String, String)| {
        let facts = [("version", &old.0, &new.0), ("request", &old.1, &new.1)];
        facts.into_iter().filter(|(_, a, b)| a != b).map(|(fact, a, b)| format!("{fact} {a} -> {b}")).collect()
    };
    entries("tool", &tools(old), &tools(new), tool, |(version, _)| version.clone(), &mut all);
    let members = |lock: &Lock| -> BTreeMap<String, Determinism> {
        let name =
            |m: &Option<trainlock_types::Name>| m.as_ref().map_or("of the project".to_owned(), |m| format!("of {m}"));
        lock.determinism.iter().map(|(m, d)| (name(m), d.clone())).collect()
    };
    let seed = |d: &Determinism| format!("seed {}, level {}", d.seed, d.level);
    entries("determinism", &members(old), &members(new), determinism, seed, &mut all);
    let params = |lock: &Lock| -> BTreeMap<String, String> {
        let tables = lock.params.iter().map(|(m, p)| (m.to_string(), p));
        let profiles = lock.profiles.iter().map(|((profile, m), p)| (format!("{m} (profile {profile})"), p));
        let leaves = |(table, params): (String, &Params)| {
            params.iter().map(|(key, value)| (format!("{table}: {key}"), value.to_string())).collect::<Vec<_>>()
        };
        tables.chain(profiles).flat_map(leaves).collect()
    };
    let value = |old: &String, new: &String| vec![format!("{old} -> {new}")];
    entries("param", &params(old), &params(new), value, String::clone, &mut all);
    let results = |lock: &Lock| -> BTreeMap<String, ResultPin> {
        let name = |r: &ResultPin| {
            let profile = r.profile.as_ref().map(|p| format!(", profile {p}")).unwrap_or_default();
            format!("{} ({}{profile})", named(r.member.as_ref(), &r.step), r.class)
        };
        lock.results.iter().map(|r| (name(r), r.clone())).collect()
    };
    let sealed = |r: &ResultPin| format!("{} outputs", r.outputs.len());
    entries("result", &results(old), &results(new), result, sealed, &mut all);
    all
}

fn named(member: Option<&trainlock_types::Name>, name: &str) -> String {
    member.map_or(name.to_owned(), |member| format!("{member}/{name}"))
}

fn entries<T: PartialEq>(
    kind: &'static str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    changed: impl Fn(&T, &T) -> Vec<String>,
    shown: impl Fn(&T) -> String,
    all: &mut Vec<Difference>,
) {
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let changes = match (old.get(name), new.get(name)) {
            (Some(old), None) => vec![format!("removed ({})", shown(old))],
            (None, Some(new)) => vec![format!("added ({})", shown(new))],
            (Some(old), Some(new)) if old != new => changed(old, new),
            _ => continue,
        };
        if !changes.is_empty() {
            all.push(Difference { kind, name: name.clone(), changes });
        }
    }
}

fn content(content: &Content) -> String {
    match content {
        Content::File { sha256, size } => format!("sha256 {}, {}", sha256.short(), HumanSize(*size)),
        Content::Tree { tree, size, count, .. } => {
            format!("tree {}, {count} files, {}", tree.short(), HumanSize(*size))
        }
    }
}

fn source(source: &DataSource) -> String {
    match source {
        DataSource::Url { url, .. } => url.redacted(),
        DataSource::Path(path) | DataSource::Pooch(path) => path.to_string(),
        DataSource::Croissant(place) => place.clone(),
    }
}

fn data(old: &DataPin, new: &DataPin) -> Vec<String> {
    let mut words = Vec::new();
    if old.source != new.source {
        let (a, b) = (source(&old.source), source(&new.source));
        words.push(if a == b { "other facts of its request".to_owned() } else { format!("source {a} -> {b}") });
    }
    if old.resolved != new.resolved {
        let shown = |r: &Option<String>| r.clone().unwrap_or_else(|| "none".to_owned());
        words.push(format!("resolved {} -> {}", shown(&old.resolved), shown(&new.resolved)));
    }
    match (old.content == new.content, old.archive == new.archive) {
        (true, false) => words.push("another archive with the same content".to_owned()),
        (true, true) => {}
        (false, _) => {
            words.push(format!("{} -> {}", content(&old.content), content(&new.content)));
            if let (Content::Tree { listing: Some(a), .. }, Content::Tree { listing: Some(b), .. }) =
                (&old.content, &new.content)
            {
                words.extend(files(a, b));
            }
        }
    }
    words
}

/// The files of two listings that are not the same, as far as a line has room for them.
fn files(old: &Listing, new: &Listing) -> Vec<String> {
    let by_path = |l: &Listing| -> BTreeMap<String, Digest> {
        l.entries().iter().map(|e| (e.path.to_string(), e.sha256)).collect()
    };
    let (old, new) = (by_path(old), by_path(new));
    let mut words: Vec<String> = Vec::new();
    for path in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        match (old.get(path), new.get(path)) {
            (Some(_), None) => words.push(format!("{path} removed")),
            (None, Some(_)) => words.push(format!("{path} added")),
            (Some(a), Some(b)) if a != b => words.push(format!("{path} changed")),
            _ => {}
        }
    }
    let more = words.len().saturating_sub(5);
    words.truncate(5);
    if more > 0 {
        words.push(format!("{more} more files"));
    }
    words
}

fn determinism(old: &Determinism, new: &Determinism) -> Vec<String> {
    let threads = |d: &Determinism| d.threads.map_or("none".to_owned(), |n| n.to_string());
    let facts = [
        ("seed", old.seed.to_string(), new.seed.to_string()),
        ("level", old.level.clone(), new.level.clone()),
        ("threads", threads(old), threads(new)),
        ("seed-globals", old.seed_globals.to_string(), new.seed_globals.to_string()),
    ];
    let mut words: Vec<String> =
        facts.into_iter().filter(|(_, a, b)| a != b).map(|(fact, a, b)| format!("{fact} {a} -> {b}")).collect();
    for (architecture, switches) in &new.switches {
        let before = old.switches.get(architecture);
        for (name, value) in &switches.variables {
            match before.and_then(|b| b.variables.get(name)) {
                Some(old) if old == value => {}
                Some(old) => words.push(format!("{architecture} {name} {old} -> {value}")),
                None => words.push(format!("{architecture} {name} set to {value}")),
            }
        }
    }
    for (architecture, switches) in &old.switches {
        let now = new.switches.get(architecture);
        let gone = switches.variables.keys().filter(|name| !now.is_some_and(|n| n.variables.contains_key(*name)));
        words.extend(gone.map(|name| format!("{architecture} {name} no longer set")));
    }
    words
}

fn result(old: &ResultPin, new: &ResultPin) -> Vec<String> {
    let mut words = Vec::new();
    for name in old.metrics.keys().chain(new.metrics.keys()).collect::<BTreeSet<_>>() {
        match (old.metrics.get(name), new.metrics.get(name)) {
            (Some(a), Some(b)) if a.to_bits() == b.to_bits() => {}
            (Some(a), Some(b)) => {
                let percent = if *a == 0.0 { String::new() } else { format!(" ({:+.2} %)", (b - a) / a.abs() * 100.0) };
                words.push(format!("{name} {a} -> {b}{percent}"));
            }
            (Some(a), None) => words.push(format!("{name} {a} -> none")),
            (None, b) => words.push(format!("{name} none -> {}", b.copied().unwrap_or_default())),
        }
    }
    for output in &new.outputs {
        match old.outputs.iter().find(|o| o.path == output.path) {
            Some(before) if before == output => {}
            Some(before) if before.content.is_some() && before.content == output.content => {
                words.push(format!("{} has the same content in another container", output.path));
            }
            Some(before) => {
                words.push(format!("{} {} -> {}", output.path, before.sha256.short(), output.sha256.short()));
            }
            None => words.push(format!("{} is new", output.path)),
        }
    }
    let gone = old.outputs.iter().filter(|o| !new.outputs.iter().any(|n| n.path == o.path));
    words.extend(gone.map(|o| format!("{} is gone", o.path)));
    if words.is_empty() && old.key != new.key {
        words.push("the same outputs from other inputs".to_owned());
    }
    words
}
