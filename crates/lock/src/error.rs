//! What can go wrong with a lock's file.

use std::path::PathBuf;
use trainlock_types::Diagnostic;

/// Why a lock could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file could not be read.
    #[error("could not read the lock")]
    Read(#[source] std::io::Error),
    /// The file could not be written; what stood there still does.
    #[error("could not write the lock {}", .path.display())]
    Write {
        /// The lock.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{}", placed(.0))]
    Syntax(Box<Diagnostic>),
    /// It is TOML, and not what a lock holds.
    #[error("{}", placed(.0))]
    Invalid(Box<Diagnostic>),
    /// A merge is not finished.
    #[error("{}:{line}: {what}: `trainlock lock` heals it", .path.display())]
    Conflict {
        /// The lock.
        path: PathBuf,
        /// The first line that shows it, counted from 1.
        line: usize,
        /// What shows it.
        what: Merge,
    },
    /// A later trainlock wrote it.
    #[error(
        "{} has version {found} of the format and this trainlock knows version {known}: use {}",
        .path.display(),
        .requires.as_ref().map_or("the trainlock that wrote it, or a newer one".to_owned(), |r| format!("trainlock {r}"))
    )]
    NewerVersion {
        /// The lock.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that can be read.
        known: i64,
        /// The trainlock that reads it, where the file says so (`requires-trainlock`).
        requires: Option<String>,
    },
}

/// How an unfinished merge shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// A line of git's markers.
    Marker,
    /// A key, table or entry that stands twice.
    Twice(String),
}

impl std::fmt::Display for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Merge::Marker => f.write_str("git's conflict markers stand in the lock"),
            Merge::Twice(what) => {
                write!(f, "{what} stands twice in the lock, as after a bad merge")
            }
        }
    }
}

fn placed(diagnostic: &Diagnostic) -> String {
    let (line, column) = diagnostic.source.line_column(diagnostic.span.start);
    format!("{}:{line}:{column}: {}", diagnostic.source.path.display(), diagnostic.message)
}
