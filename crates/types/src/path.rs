//! Paths as they stand in train.toml and train.lock: relative, with `/`, the same on every machine.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A normalised relative path: components joined by `/`, none of them empty, `.` or `..`.
/// The empty path stands for the folder that paths are relative to (the workspace's root).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelPath(String);

/// Why a text is no usable path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is there.
    #[error("the path is empty")]
    Empty,
    /// It begins at the root of a file system.
    #[error("the path is absolute: write it relative to the manifest's folder")]
    Absolute,
    /// It leaves the workspace by `..`.
    #[error("the path leads out of the workspace")]
    Escapes,
    /// It holds a control character or a backslash.
    #[error("the path holds {0:?}: use `/` between folders, and no control characters")]
    Character(char),
}

impl RelPath {
    /// The folder itself that paths are relative to.
    pub const fn root() -> RelPath {
        RelPath(String::new())
    }

    /// A path that may not have `..`.
    pub fn parse(text: &str) -> Result<RelPath, PathError> {
        match RelPath::root().resolve(text) {
            Ok(path) if path.is_root() || text.split('/').any(|c| c == "..") => Err(PathError::Escapes),
            other => other,
        }
    }

    /// `text` as written in a file of this folder; `.` and `..` are taken away, a trailing `/` too.
    pub fn resolve(&self, text: &str) -> Result<RelPath, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') || text.as_bytes().get(1..3) == Some(b":\\") {
            return Err(PathError::Absolute);
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || *c == '\\') {
            return Err(PathError::Character(c));
        }
        let mut path = String::with_capacity(self.0.len() + 1 + text.len());
        path.push_str(&self.0);
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." if path.is_empty() => return Err(PathError::Escapes),
                ".." => path.truncate(path.rfind('/').unwrap_or(0)),
                name => {
                    if !path.is_empty() {
                        path.push('/');
                    }
                    path.push_str(name);
                }
            }
        }
        Ok(RelPath(path))
    }

    /// This path with one that is already normalised behind it.
    pub fn join(&self, below: &RelPath) -> RelPath {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => RelPath(format!("{}/{}", self.0, below.0)),
        }
    }

    /// Whether this is the empty path.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The text, with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder above; none for the empty path.
    pub fn parent(&self) -> Option<RelPath> {
        (!self.is_root()).then(|| RelPath(self.0[..self.0.rfind('/').unwrap_or(0)].to_owned()))
    }

    /// The last component; empty for the empty path.
    pub fn file_name(&self) -> &str {
        &self.0[self.0.rfind('/').map_or(0, |i| i + 1)..]
    }

    /// The path from `folder` to this one, if this one is `folder` itself (then empty) or below it.
    pub fn below(&self, folder: &RelPath) -> Option<RelPath> {
        if folder.is_root() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&folder.0)?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(RelPath(rest.to_owned())),
            None => rest.is_empty().then(RelPath::root),
        }
    }

    /// How this path is written in a file of `folder`, with `..` where it is elsewhere.
    pub fn relative_to(&self, folder: &RelPath) -> String {
        let mut up = String::new();
        let mut base = folder.clone();
        loop {
            match (self.below(&base), base.parent()) {
                (Some(rest), _) => {
                    let text = format!("{up}{}", rest.0);
                    return if text.is_empty() { ".".to_owned() } else { text };
                }
                (None, Some(parent)) => {
                    up.push_str("../");
                    base = parent;
                }
                (None, None) => unreachable!("every path is below the empty one"),
            }
        }
    }

    /// Where the path lies when it is relative to `base`.
    pub fn on(&self, base: &Path) -> PathBuf {
        if self.is_root() { base.to_owned() } else { base.join(&self.0) }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> RelPath {
        RelPath::parse(text).unwrap()
    }

    #[test]
    fn normalises() {
        assert_eq!(p("./a//b/./c/").as_str(), "a/b/c");
        assert_eq!(p("exp/one").resolve("../two/x").unwrap().as_str(), "exp/two/x");
        assert_eq!(p("exp").resolve("..").unwrap(), RelPath::root());
    }

    #[test]
    fn refuses() {
        assert_eq!(RelPath::parse(""), Err(PathError::Empty));
        assert_eq!(RelPath::parse("/etc/passwd"), Err(PathError::Absolute));
        assert_eq!(RelPath::parse("C:\\x"), Err(PathError::Absolute));
        assert_eq!(RelPath::parse("a/../b"), Err(PathError::Escapes));
        assert_eq!(RelPath::parse("."), Err(PathError::Escapes));
        assert_eq!(p("a").resolve("../../b"), Err(PathError::Escapes));
        assert_eq!(RelPath::parse("a\\b"), Err(PathError::Character('\\')));
        assert_eq!(RelPath::parse("a\nb"), Err(PathError::Character('\n')));
    }

    #[test]
    fn families() {
        assert_eq!(p("a/b").below(&p("a")).unwrap().as_str(), "b");
        assert_eq!(p("ab").below(&p("a")), None);
        assert_eq!(p("a").below(&p("a")), Some(RelPath::root()));
        assert_eq!(p("a/b").parent(), Some(p("a")));
        assert_eq!(p("a").parent(), Some(RelPath::root()));
        assert_eq!(p("a/b").file_name(), "b");
        assert_eq!(p("shared/x").relative_to(&p("exp/one")), "../../shared/x");
        assert_eq!(p("exp/one/x").relative_to(&p("exp/one")), "x");
        assert_eq!(p("exp").relative_to(&p("exp")), ".");
    }
}
