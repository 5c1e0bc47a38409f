//! A step's key: the digest of everything that can influence its result.
//!
//! The form is a sorted map from facts to values, for example `param:optimizer.lr` to `0.1` or
//! `input:src/train.py` to `sha256:…`. The key is the SHA-256 of a salt and, fact by fact, the length
//! and bytes of name and value, so that no two forms share an encoding. The form is kept beside the
//! result: `why` compares two of them.
//!
//! Facts: `command`, `shell`, `env:NAME`, `param:NAME`, `seed`, `level`, `inputs` (the patterns in the
//! order written), `input:PATH`, `output:PATH`, `tool:NAME`, `package:NAME` (version and the beginning of the file's digest), `image` (the digest of its manifest), `platform`, `network`, `switches` (the level's own name and a
//! digest of its variables), `seed-globals`, `serve`, `hub:PATH` (repository, revision and commit that the step's hub has from there). Paths are relative to the
//! member's folder. Whatever changes the meaning of a fact changes the salt.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use trainlock_types::{Digest, Hasher};

const SALT: &[u8] = b"trainlock step key 2\n";

/// The expanded form of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form(BTreeMap<String, String>);

/// One fact that differs between two forms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The fact, for example `param:lr`.
    pub fact: String,
    /// What it was; none if it is new.
    pub old: Option<String>,
    /// What it is; none if it is gone.
    pub new: Option<String>,
}

impl Form {
    /// Adds a fact.
    pub fn set(&mut self, fact: impl Into<String>, value: impl Into<String>) {
        self.0.insert(fact.into(), value.into());
    }

    /// The key.
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(SALT);
        for text in self.0.iter().flat_map(|(fact, value)| [fact, value]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }

    /// What differs from `old` to this form, sorted by fact.
    pub fn differences(&self, old: &Form) -> Vec<Difference> {
        let facts: std::collections::BTreeSet<&String> = self.0.keys().chain(old.0.keys()).collect();
        facts
            .into_iter()
            .filter(|fact| self.0.get(*fact) != old.0.get(*fact))
            .map(|fact| Difference {
                fact: fact.clone(),
                old: old.0.get(fact).cloned(),
                new: self.0.get(fact).cloned(),
            })
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.fact.split_once(':').unwrap_or((&self.fact, ""));
        match kind {
            "param" => write!(f, "params.{name}")?,
            "env" => write!(f, "env.{name}")?,
            "input" => write!(f, "input {name}")?,
            "output" => write!(f, "output {name}")?,
            "tool" => write!(f, "tool {name}")?,
            "package" => write!(f, "package {name}")?,
            "hub" => write!(f, "hub {name}")?,
            _ => f.write_str(&self.fact)?,
        }
        let short = |value: &str| match value.split_once(':') {
            Some((kind @ ("sha256" | "program" | "tree" | "files"), hex)) => {
                format!("{kind} {}", &hex[..hex.len().min(12)])
            }
            _ => value.to_owned(),
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, ": {} -> {}", short(old), short(new)),
            (None, Some(new)) => write!(f, ": new ({})", short(new)),
            (Some(old), None) => write!(f, ": gone (was {})", short(old)),
            (None, None) => Ok(()),
        }
    }
}

/// The seed of one step: the first 63 bits of the SHA-256 of project seed, member and step, so that
/// adding a step moves no other's seed.
pub(crate) fn step_seed(seed: u64, member: &str, step: &str) -> u64 {
    let digest = Digest::of(format!("trainlock seed\n{seed}\n{member}\n{step}\n").as_bytes());
    let first: [u8; 8] = digest.as_bytes()[..8].try_into().expect("eight of 32 bytes");
    u64::from_be_bytes(first) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(facts: &[(&str, &str)]) -> Form {
        let mut form = Form::default();
        facts.iter().for_each(|(fact, value)| form.set(*fact, *value));
        form
    }

    #[test]
    fn the_encoding_is_injective() {
        let keys: std::collections::BTreeSet<Digest> = [
            form(&[]),
            form(&[("a", "")]),
            form(&[("a", "b")]),
            form(&[("ab", "")]),
            form(&[("a", ""), ("b", "")]),
            form(&[("a", "b"), ("c", "d")]),
            form(&[("a", "bcd")]),
            form(&[("a", "b\0c")]),
        ]
        .iter()
        .map(Form::key)
        .collect();
        assert_eq!(keys.len(), 8);
        assert_eq!(form(&[("a", "1"), ("b", "2")]).key(), form(&[("b", "2"), ("a", "1")]).key());
    }

    proptest::proptest! {
        #[test]
        fn different_forms_have_different_keys(
            a in proptest::collection::btree_map("[a-c:]{0,3}", "[a-c:]{0,3}", 0..4),
            b in proptest::collection::btree_map("[a-c:]{0,3}", "[a-c:]{0,3}", 0..4),
        ) {
            let (a, b) = (Form(a), Form(b));
            proptest::prop_assert_eq!(a == b, a.key() == b.key());
            proptest::prop_assert_eq!(a == b, a.differences(&b).is_empty());
        }
    }

    #[test]
    fn differences_in_words() {
        let digest = Digest::of(b"x").to_string();
        let old = form(&[("param:lr", "0.1"), ("input:a", &format!("sha256:{digest}")), ("seed", "1")]);
        let new = form(&[("param:lr", "0.2"), ("tool:python", "3.11.7"), ("seed", "1")]);
        let words: Vec<String> = new.differences(&old).iter().map(Difference::to_string).collect();
        assert_eq!(
            words,
            ["input a: gone (was sha256 2d711642b726)", "params.lr: 0.1 -> 0.2", "tool python: new (3.11.7)"]
        );
    }

    #[test]
    fn seeds() {
        assert_eq!(step_seed(42, "digits", "train"), step_seed(42, "digits", "train"));
        assert_ne!(step_seed(42, "digits", "train"), step_seed(42, "digits", "trai"));
        assert_ne!(step_seed(42, "digits", "train"), step_seed(43, "digits", "train"));
        assert!((0..100).all(|s| step_seed(s, "m", "s") < 1 << 63));
    }
}
