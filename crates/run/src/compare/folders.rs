//! Two folders, file by file.

use super::report::{Comparison, Sameness};
use super::{CompareError, compare_files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What is the matter with one path of two folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum FolderChange {
    /// Only in the first folder.
    Missing,
    /// Only in the second folder.
    Added,
    /// A file, a folder, a link or something else.
    Kind {
        /// In the first folder, with its article.
        a: String,
        /// In the second folder.
        b: String,
    },
    /// One of the files may be executed by its owner and the other not.
    Mode {
        /// Whether the first may.
        a: bool,
        /// Whether the second may.
        b: bool,
    },
    /// Where symbolic links point.
    Link {
        /// In the first folder.
        a: String,
        /// In the second folder.
        b: String,
    },
    /// The files' bytes.
    Content(Comparison),
}

/// One path of two folders that is not the same in both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FolderDifference {
    /// The path below both folders, with `/`; what is not UTF-8 is replaced.
    pub path: String,
    /// What is the matter.
    pub change: FolderChange,
}

impl fmt::Display for FolderDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = |x: bool| if x { "executable" } else { "not executable" };
        match &self.change {
            FolderChange::Missing => write!(f, "`{}` is missing in the second", self.path),
            FolderChange::Added => write!(f, "`{}` is only in the second", self.path),
            FolderChange::Kind { a, b } => write!(f, "`{}` is something else: {a} ≠ {b}", self.path),
            FolderChange::Mode { a, b } => write!(f, "`{}` has another mode: {} ≠ {}", self.path, mode(*a), mode(*b)),
            FolderChange::Link { a, b } => write!(f, "`{}` is another link: {a:?} ≠ {b:?}", self.path),
            FolderChange::Content(comparison) => comparison.fmt(f),
        }
    }
}

fn kind(metadata: &Metadata) -> &'static str {
    match metadata.file_type() {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_file() => "a file",
        kind if kind.is_symlink() => "a link",
        _ => "something special",
    }
}

/// All that is below a folder, by path; links are not followed.
fn list(folder: &Path) -> Result<BTreeMap<std::path::PathBuf, Metadata>, CompareError> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs_err::read_dir(&next).map_err(CompareError::Read)? {
            let path = entry.map_err(CompareError::Read)?.path();
            let metadata = fs_err::symlink_metadata(&path).map_err(CompareError::Read)?;
            if metadata.is_dir() {
                open.push(path.clone());
            }
            if let Ok(below) = path.strip_prefix(folder) {
                found.insert(below.to_owned(), metadata);
            }
        }
    }
    Ok(found)
}

/// Says for every path of two folders that is not identical in both what is the matter, sorted by path. Of a folder that
/// is only in one of them all that is in it is named, too. Times, owners and modes other than the owner's right to execute
/// don't count.
///
/// Errors: a folder or a file that can't be read.
pub fn compare_folders(a: &Path, b: &Path) -> Result<Vec<FolderDifference>, CompareError> {
    let (left, right) = (list(a)?, list(b)?);
    let mut paths: Vec<_> = left.keys().chain(right.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut out = Vec::new();
    for path in paths {
        let name = path.to_string_lossy().into_owned();
        let mut say = |change| out.push(FolderDifference { path: name.clone(), change });
        let (one, two) = match (left.get(path), right.get(path)) {
            (Some(one), Some(two)) => (one, two),
            (Some(_), None) => {
                say(FolderChange::Missing);
                continue;
            }
            (None, _) => {
                say(FolderChange::Added);
                continue;
            }
        };
        if kind(one) != kind(two) {
            say(FolderChange::Kind { a: kind(one).to_owned(), b: kind(two).to_owned() });
            continue;
        }
        let (x, y) = (a.join(path), b.join(path));
        if one.is_symlink() {
            let target = |path| fs_err::read_link(path).map_err(CompareError::Read);
            let (x, y) = (target(x)?, target(y)?);
            if x != y {
                let text = |path: &Path| path.to_string_lossy().into_owned();
                say(FolderChange::Link { a: text(&x), b: text(&y) });
            }
        } else if one.is_file() {
            let runs = |metadata: &Metadata| metadata.permissions().mode() & 0o100 != 0;
            if runs(one) != runs(two) {
                say(FolderChange::Mode { a: runs(one), b: runs(two) });
            }
            let comparison = compare_files(&x, &y, &name)?;
            if comparison.verdict != Sameness::Identical {
                say(FolderChange::Content(comparison));
            }
        }
    }
    Ok(out)
}
