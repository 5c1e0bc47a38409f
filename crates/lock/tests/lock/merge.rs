//! Merging by git, and healing what it leaves.

use crate::invent::{by_name, files, names};
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;
use trainlock_lock::{Content, DataPin, Healed, Lock, LockError, Merge, heal};

/// Merges three texts with `git merge-file`: the result, and whether it is free of conflicts.
fn merge(ours: &str, base: &str, theirs: &str, flags: &[&str]) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("ours", ours), ("base", base), ("theirs", theirs)] {
        fs_err::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("git")
        .arg("merge-file")
        .arg("-p")
        .args(flags)
        .args(["ours", "base", "theirs"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

fn parse(text: &str) -> Result<Lock, LockError> {
    Lock::parse(text, Path::new("train.lock"))
}

fn healed(text: &str) -> Healed {
    heal(text, Path::new("train.lock")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn has(healed: &Healed, pin: &DataPin) -> bool {
    healed.lock.data.contains(pin) || healed.data.iter().any(|candidates| candidates.contains(pin))
}

const STYLES: [&[&str]; 3] = [&[], &["--diff3"], &["--zdiff3"]];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Two branches that each add a data set: no conflict where an older one stands between.
    #[test]
    fn two_added_entries_merge(names in names(4..12), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (a, b) = (a.index(names.len()), b.index(names.len()));
        prop_assume!(a.abs_diff(b) >= 2);
        let without = |left: &[usize]| {
            let kept = names.iter().enumerate().filter(|(i, _)| !left.contains(i)).map(|(_, n)| n.clone());
            files(kept, "").to_text()
        };
        let (merged, clean) = merge(&without(&[b]), &without(&[a, b]), &without(&[a]), &[]);
        prop_assert!(clean, "{}", merged);
        prop_assert_eq!(merged, without(&[]));
    }

    /// Whatever two branches do to a lock, what is whole on either side comes through healing.
    #[test]
    fn healing_keeps_what_either_side_has(
        names in names(3..10),
        ours in proptest::collection::vec(0..4_u8, 10),
        theirs in proptest::collection::vec(0..4_u8, 10),
        style in 0..3_usize,
    ) {
        // 0 and 1: as it was; 2: absent from this side; 3: locked anew on this side. One in five is new.
        let side = |what: &[u8], salt: &str| {
            let kept = names.iter().enumerate().filter(|(i, _)| what[*i] != 2 && (i % 5 != 4 || what[*i] != 0));
            let mut lock = files(kept.clone().map(|(_, n)| n.clone()), "old");
            let renewed = files(kept.filter(|(i, _)| what[*i] == 3).map(|(_, n)| n.clone()), salt);
            for pin in renewed.data {
                let at = lock.data.iter().position(|old| old.name == pin.name).unwrap();
                lock.data[at] = pin;
            }
            lock
        };
        let base = files(names.iter().enumerate().filter(|(i, _)| i % 5 != 4).map(|(_, n)| n.clone()), "old");
        let (ours, theirs) = (side(&ours, "ours"), side(&theirs, "theirs"));
        let (text, clean) = merge(&ours.to_text(), &base.to_text(), &theirs.to_text(), STYLES[style]);
        let result = healed(&text);
        match parse(&text) {
            Ok(lock) => prop_assert_eq!(&lock, &result.lock),
            Err(LockError::Conflict { what: Merge::Marker, .. }) => prop_assert!(!clean),
            // Where a neighbour went, git sees two additions of the same entry as two entries.
            Err(LockError::Conflict { what: Merge::Twice(_), .. }) => prop_assert!(clean),
            Err(other) => prop_assert!(false, "{} in\n{}", other, text),
        }
        prop_assert_eq!(result.damaged, 0, "{}", text);
        let (before, ours, theirs) = (by_name(&base), by_name(&ours), by_name(&theirs));
        for (name, pin) in ours.iter().chain(&theirs) {
            let (here, there) = (ours.get(name), theirs.get(name));
            // Removed by one side and untouched by the other: git itself may take it out.
            let removed = (here.is_none() || there.is_none()) && before.get(name) == Some(pin);
            // Changed by one side only: git itself takes the change.
            let superseded = here.is_some() && there.is_some() && here != there && before.get(name) == Some(pin);
            prop_assert!(removed || superseded || has(&result, pin), "{} is lost in\n{}", name, text);
        }
    }

    /// A union merge has no markers; what it runs together is taken apart or left out, never mixed. Only a size that stands
    /// alike in two entries git may take for the other's line (one merge of 2,000 here, and the text may be as good as any): then
    /// the digest is still the entry's own, and fetching refuses what is not as large.
    #[test]
    fn healing_after_a_union_merge_invents_nothing(
        names in names(3..10),
        ours in proptest::collection::vec(0..3_u8, 10),
        theirs in proptest::collection::vec(0..3_u8, 10),
        alike in any::<bool>(),
    ) {
        let files = |names: Vec<String>, salt: &str| {
            let mut lock = files(names, salt);
            for pin in lock.data.iter_mut().filter(|_| !alike) {
                let Content::File { sha256, size } = &mut pin.content else { unreachable!("they are files") };
                *size = u64::from(u32::from_le_bytes(*sha256.as_bytes().first_chunk().unwrap()));
            }
            lock
        };
        let base = files(names.iter().step_by(2).cloned().collect(), "old");
        let side = |what: &[u8], salt: &str| {
            let of = |kind: u8| names.iter().enumerate().filter(move |(i, _)| what[*i] == kind).map(|(_, n)| n.clone());
            let mut all = files(of(0).collect(), "old").data;
            all.extend(files(of(1).collect(), salt).data);
            crate::invent::sorted(Lock { data: all, ..Lock::default() })
        };
        let (ours, theirs) = (side(&ours, "ours"), side(&theirs, "theirs"));
        let (text, _) = merge(&ours.to_text(), &base.to_text(), &theirs.to_text(), &["--union"]);
        let result = healed(&text);
        let compared = |pin: &DataPin| {
            let mut pin = pin.clone();
            if let Content::File { size, .. } = &mut pin.content
                && alike
            {
                *size = 0;
            }
            pin
        };
        let known: Vec<_> = [&base, &ours, &theirs].iter().flat_map(|lock| &lock.data).map(compared).collect();
        for pin in result.lock.data.iter().chain(result.data.iter().flatten()) {
            prop_assert!(known.contains(&compared(pin)), "{:?} in\n{}", pin, text);
        }
        if result.damaged == 0 && result.data.is_empty() {
            prop_assert_eq!(&parse(&text).unwrap_or_else(|_| result.lock.clone()), &result.lock);
        }
    }
}

#[test]
fn entries_added_at_one_place_by_a_union_merge_are_taken_apart() {
    let text = |names: &[&str]| files(names.iter().map(|n| (*n).to_owned()), "").to_text();
    let union = |ours: &str, theirs: &str| {
        let (merged, clean) =
            merge(&text(&["a", ours, "z"]), &text(&["a", "z"]), &text(&["a", theirs, "z"]), &["--union"]);
        assert!(clean);
        merged
    };
    let result = healed(&union("m", "nn"));
    assert_eq!((result.damaged, result.lock.to_text()), (0, text(&["a", "m", "nn", "z"])));
    // The last lines are alike here and stand only once, so that the first of the two is not whole.
    let result = healed(&union("m", "n"));
    assert_eq!((result.damaged, result.lock.to_text()), (1, text(&["a", "n", "z"])));
}

#[test]
fn an_entry_twice_is_an_unfinished_merge() {
    let text = |salt: &str| files(["a".to_owned()], salt).to_text();
    let block = |salt: &str| text(salt).split_once("\n\n").unwrap().1.to_owned();
    let twice = format!("{}\n{}", text("one"), block("two"));
    let error = parse(&twice).unwrap_err();
    assert!(
        matches!(&error, LockError::Conflict { line: 11, what: Merge::Twice(what), .. } if what == "data `a`"),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "train.lock:11: data `a` stands twice in the lock, as after a bad merge: `trainlock lock` heals it"
    );
    let result = healed(&twice);
    assert!(result.lock.data.is_empty());
    assert_eq!(result.data, [[parse(&text("one")).unwrap().data, parse(&text("two")).unwrap().data].concat()]);
}

#[test]
fn unknown_blocks_and_tables_of_both_sides_stay() {
    let text = "version = 1\n<<<<<<< HEAD\nlater = 1\n\n[[recipe]]\nname = \"a\"\n\n[vessel.x]\nd = 1\n||||||| 1a2b\n=======\nlater = 2\n\n[[recipe]]\nname = \"b\"\n\n[vessel.x]\nd = 2\n>>>>>>> topic\n";
    let result = healed(text);
    let written = result.lock.to_text();
    for kept in ["later = 1", "name = \"a\"", "name = \"b\"", "d = 1"] {
        assert!(written.contains(kept), "{kept} is lost:\n{written}");
    }
    assert!(!written.contains("d = 2"));
    assert!(parse(&written).is_ok());
}

#[test]
fn sides_that_no_trainlock_of_this_version_can_read_are_refused() {
    let newer = heal("<<<<<<< a\nversion = 1\n=======\nversion = 2\n>>>>>>> b\n", Path::new("train.lock")).unwrap_err();
    assert!(matches!(newer, LockError::NewerVersion { found: 2, .. }), "{newer}");
    let other = heal("PNG\n", Path::new("train.lock")).unwrap_err();
    assert!(matches!(other, LockError::Invalid(_)), "{other}");
}

#[test]
fn sealed_results_of_both_sides_stay_unless_they_disagree() {
    let sealed = |step: &str, size: u64| {
        let hex = trainlock_types::Digest::of(step.as_bytes());
        format!(
            "\n[[result]]\nstep = \"{step}\"\nclass = \"c\"\nkey = \"{hex}\"\noutputs = [\"{hex} {size} out.txt\"]\nmetrics = [\"0.5 acc\"]\n"
        )
    };
    let merge = |ours: String, theirs: String| {
        format!("version = 1\n{}<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> topic\n", sealed("a", 1))
    };
    let both = healed(&merge(sealed("b", 1), sealed("c", 1)));
    let steps: Vec<&str> = both.lock.results.iter().map(|r| r.step.as_str()).collect();
    assert_eq!((steps, both.results.len()), (vec!["a", "b", "c"], 0));
    let disputed = healed(&merge(sealed("b", 1), sealed("b", 2)));
    let steps: Vec<&str> = disputed.lock.results.iter().map(|r| r.step.as_str()).collect();
    assert_eq!((steps, disputed.results.len()), (vec!["a"], 1));
    // A union merge runs two blocks together: each begins with its step.
    let run_together = format!("version = 1\n{}{}", sealed("a", 1), sealed("b", 1).replace("[[result]]\n", ""));
    let steps: Vec<String> = healed(&run_together).lock.results.iter().map(|r| r.step.to_string()).collect();
    assert_eq!(steps, ["a", "b"]);
}
