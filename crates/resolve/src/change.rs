//! What locking changes, in the lock's own words.

use trainlock_lock::{Determinism, Why};

/// In what two tables of determinism differ.
pub(crate) fn determinism(old: &Determinism, new: &Determinism) -> Vec<Why> {
    let mut why = old.changes(new);
    // Which architectures a level is resolved for is a fact; what it means on them stays as it was locked.
    let architectures = |d: &Determinism| match d.switches.len() {
        0 => "none".to_owned(),
        _ => d.switches.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    let (old, new) = (architectures(old), architectures(new));
    if old != new {
        why.push(Why::Fact { key: "switches", old, new });
    }
    why
}
