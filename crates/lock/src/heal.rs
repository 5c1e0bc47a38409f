//! Healing: what is whole in a lock that a merge has left with conflict markers or with entries twice.
//!
//! Both sides of every conflict are read, the common ancestor's (`|||||||`) is not. An entry that only
//! one side has, or both alike, is taken. Of an entry that they have differently all candidates are
//! given, for the manifest to choose. What is not whole (a block cut by a marker, or with a key
//! twice, as a union merge makes it) is left out: locking brings it back.

use crate::read::Reader;
use crate::{DataPin, Lock, LockError, PythonPin, ResultPin, ToolPin};
use std::cmp::Ordering;
use std::path::Path;

/// What healing found.
#[derive(Debug, Clone, PartialEq)]
pub struct Healed {
    /// All that is not in dispute. Params and determinism are those of the first side that has
    /// them: they come from the manifest anyway.
    pub lock: Lock,
    /// Data sets of which there is more than one version, each with all of them.
    pub data: Vec<Vec<DataPin>>,
    /// Tools of which there is more than one version, each with all of them.
    pub tools: Vec<Vec<ToolPin>>,
    /// Results of which there is more than one version: none is taken, since nobody can say which is right.
    pub results: Vec<Vec<ResultPin>>,
    /// How many blocks were not whole.
    pub damaged: usize,
}

/// Takes what is whole out of a lock that a merge has damaged.
///
/// # Errors
///
/// [`LockError::NewerVersion`], and [`LockError::Invalid`] if no side has a version.
pub fn heal(text: &str, path: &Path) -> Result<Healed, LockError> {
    let (ours, theirs) = sides(text);
    let mut first = Reader::new(&ours, true);
    first.read().map_err(|flaw| flaw.into_error(&ours, path))?;
    let mut second = Reader::new(&theirs, true);
    if let Some(flaw) = second.read().err() {
        return Err(flaw.into_error(&theirs, path));
    }
    let damaged = first.damaged.max(second.damaged);
    let (mut lock, mut theirs) = (first.lock, second.lock);
    for side in [&mut lock, &mut theirs] {
        side.packages.sort_by(|a, b| a.place().cmp(&b.place()));
    }
    // Packages were resolved together. Where the sides have them differently they are resolved again, from what both
    // sides agree on.
    let whole = |pin: &PythonPin| {
        let (member, profile) = pin.place();
        damaged == 0
            && theirs.python(member, profile) == Some(pin)
            && lock.packages(member, profile).eq(theirs.packages(member, profile))
    };
    let python = lock.python.iter().filter(|pin| whole(pin)).cloned().collect();
    lock.python = python;
    let (data, disputed_data) = settle(std::mem::take(&mut lock.data), theirs.data, |a, b| a.place().cmp(&b.place()));
    let (tools, disputed_tools) =
        settle(std::mem::take(&mut lock.tools), theirs.tools, |a, b| a.place().cmp(&b.place()));
    let (results, disputed_results) =
        settle(std::mem::take(&mut lock.results), theirs.results, |a, b| a.place().cmp(&b.place()));
    let (packages, _) = settle(std::mem::take(&mut lock.packages), theirs.packages, |a, b| a.place().cmp(&b.place()));
    lock.packages = packages;
    // Of one that the sides have differently none is taken: its registry says anew what it is.
    let (images, _) = settle(std::mem::take(&mut lock.images), theirs.images, |a, b| a.reference.cmp(&b.reference));
    lock.images = images;
    lock.data = data;
    lock.tools = tools;
    lock.results = results;
    for (member, table) in theirs.determinism {
        lock.determinism.entry(member).or_insert(table);
    }
    for (member, table) in theirs.params {
        lock.params.entry(member).or_insert(table);
    }
    for (place, table) in theirs.profiles {
        lock.profiles.entry(place).or_insert(table);
    }
    for line in theirs.extra.keys {
        if !lock.extra.keys.iter().any(|ours| key_of(ours) == key_of(&line)) {
            lock.extra.keys.push(line);
        }
    }
    // Blocks of an array stand beside each other; of a table there can be only one.
    for (section, table) in theirs.extra.tables {
        let same =
            |ours: &str| ours == table || !table.starts_with("[[") && ours.lines().next() == table.lines().next();
        if !lock.extra.tables.iter().any(|(_, ours)| same(ours)) {
            lock.extra.tables.push((section, table));
        }
    }
    let (data, tools, results) = (disputed_data, disputed_tools, disputed_results);
    let healed = Healed { lock, data, tools, results, damaged };
    Ok(healed.readable(path))
}

impl Healed {
    /// What was kept unread may not fit together. Then it is dropped, because a lock that can't be read
    /// would be worse.
    fn readable(mut self, path: &Path) -> Healed {
        if Lock::parse(&self.lock.to_text(), path).is_err() {
            self.lock.extra = crate::Extra::default();
            self.lock.data.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.tools.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.results.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.python.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.packages.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.images.iter_mut().for_each(|pin| pin.extra.clear());
            self.lock.determinism.values_mut().for_each(|table| {
                table.extra.clear();
                table.switches.values_mut().for_each(|switches| switches.extra.clear());
            });
            self.damaged += 1;
        }
        self
    }
}

/// Entries that are not in dispute, sorted, and the candidates of those that are.
fn settle<T: Clone + PartialEq>(
    ours: Vec<T>,
    theirs: Vec<T>,
    compare: impl Fn(&T, &T) -> Ordering,
) -> (Vec<T>, Vec<Vec<T>>) {
    let mut all = ours;
    all.extend(theirs);
    all.sort_by(&compare);
    let (mut agreed, mut disputed) = (Vec::new(), Vec::new());
    for group in all.chunk_by(|a, b| compare(a, b).is_eq()) {
        let mut candidates: Vec<T> = Vec::new();
        for pin in group {
            if !candidates.contains(pin) {
                candidates.push(pin.clone());
            }
        }
        match candidates.len() {
            1 => agreed.append(&mut candidates),
            _ => disputed.push(candidates),
        }
    }
    (agreed, disputed)
}

fn key_of(line: &str) -> &str {
    line.split('=').next().unwrap_or_default().trim()
}

/// A line of git's conflict markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Ours,
    Ancestor,
    Theirs,
    End,
}

impl Marker {
    pub(crate) fn of(line: &str) -> Option<Marker> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (marker, rest) = line.split_at_checked(7)?;
        if !rest.is_empty() && !rest.starts_with(' ') {
            return None;
        }
        match marker {
            "<<<<<<<" => Some(Marker::Ours),
            "|||||||" => Some(Marker::Ancestor),
            "=======" if rest.is_empty() => Some(Marker::Theirs),
            ">>>>>>>" => Some(Marker::End),
            _ => None,
        }
    }
}

/// The text with all conflicts decided for our side, and for theirs.
fn sides(text: &str) -> (String, String) {
    let (mut ours, mut theirs) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut part = Marker::End;
    for line in text.split_inclusive('\n') {
        match (Marker::of(line.trim_end_matches('\n')), part) {
            // A separator outside a conflict is what is left of markers that a hand took away.
            (Some(Marker::Theirs | Marker::Ancestor), Marker::End) => {}
            (Some(marker), _) => part = marker,
            (None, Marker::End) => {
                ours.push_str(line);
                theirs.push_str(line);
            }
            (None, Marker::Ours) => ours.push_str(line),
            (None, Marker::Theirs) => theirs.push_str(line),
            (None, Marker::Ancestor) => {}
        }
    }
    (ours, theirs)
}
