//! Names of projects, data sets, tools, steps and profiles.

use serde::Serialize;
use std::fmt;

/// The name of a data set, tool, step, profile or project: letters, digits, `_` and `-`,
/// beginning with a letter or a digit. (A project's name has no capitals: [`Name::project`].)
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A character that names do not have.
    #[error("a name has letters, digits, `_` and `-` and begins with a letter or a digit")]
    Entry,
    /// A character that project names do not have.
    #[error("a project's name has lower-case letters, digits, `_` and `-` and begins with a letter or a digit")]
    Project,
}

impl Name {
    /// The name of a data set, tool, step or profile: `[A-Za-z0-9][A-Za-z0-9_-]*`.
    pub fn entry(text: &str) -> Result<Name, NameError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        match text.as_bytes() {
            [first, rest @ ..] if first.is_ascii_alphanumeric() && rest.iter().all(|b| good(*b)) => {
                Ok(Name(text.to_owned()))
            }
            _ => Err(NameError::Entry),
        }
    }

    /// The name of a project: `[a-z0-9][a-z0-9_-]*`.
    pub fn project(text: &str) -> Result<Name, NameError> {
        match Name::entry(text) {
            Ok(name) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok(name),
            _ => Err(NameError::Project),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The candidate that `wrong` was most likely meant to be, if one is near enough.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(wrong, c), c))
        .filter(|(distance, c)| *distance <= limit || c.eq_ignore_ascii_case(wrong))
        .min()
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "digits", "a-b_c", "train2"] {
            assert!(Name::project(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "_a", "a b", "a.b", "ä", "a/b"] {
            assert_eq!(Name::entry(bad), Err(NameError::Entry), "{bad}");
        }
        assert!(Name::entry("Raw").is_ok());
        assert_eq!(Name::project("Raw"), Err(NameError::Project));
    }

    #[test]
    fn near_names() {
        assert_eq!(nearest("inpust", ["inputs", "outputs"]), Some("inputs"));
        assert_eq!(nearest("Epochs", ["epochs"]), Some("epochs"));
        assert_eq!(nearest("lr", ["lr2", "rate"]), Some("lr2"));
        assert_eq!(nearest("banana", ["inputs", "outputs"]), None);
    }
}
