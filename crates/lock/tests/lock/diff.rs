//! Differences: none exactly where two locks hold the same.

use proptest::prelude::*;
use trainlock_lock::{Lock, Subject, diff};

/// One entry of `one` put in the place of its like in `other`, or beside the others.
fn with_one_of(mut other: Lock, one: &Lock, at: prop::sample::Index) -> Lock {
    match at.index(5) {
        0 => other.data.extend(one.data.iter().find(|p| other.data.iter().all(|o| o.place() != p.place())).cloned()),
        1 => other.tools.clone_from(&one.tools),
        2 => other.determinism.clone_from(&one.determinism),
        3 => {
            other.params.clone_from(&one.params);
            other.profiles.clone_from(&one.profiles);
        }
        _ => other.results.clone_from(&one.results),
    }
    other.data.sort_by(|a, b| a.place().cmp(&b.place()));
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn none_exactly_where_the_text_is_the_same(
        old in crate::invent::lock(true), other in crate::invent::lock(true), at in any::<prop::sample::Index>(),
    ) {
        prop_assert_eq!(diff(&old, &old), []);
        let new = with_one_of(old.clone(), &other, at);
        let (there, back) = (diff(&old, &new), diff(&new, &old));
        prop_assert_eq!(there.is_empty(), old.to_text() == new.to_text(), "{:?}", there);
        let subjects = |changes: &[trainlock_lock::Change]| changes.iter().map(|c| c.subject.clone()).collect::<Vec<Subject>>();
        prop_assert_eq!(subjects(&there), subjects(&back));
        for change in &there {
            prop_assert!(!change.to_string().ends_with(": "), "{:?}", change);
            prop_assert!(serde_json::to_string(change).is_ok());
        }
    }
}
