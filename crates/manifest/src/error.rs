//! Why a manifest can't be had.

use std::path::PathBuf;
use trainlock_types::Diagnostic;

/// Why a manifest can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No train.toml in a folder or any above it.
    #[error("no train.toml in `{}` or any folder above it", start.display())]
    NotFound {
        /// The folder that the search began in.
        start: PathBuf,
    },
    /// A manifest or a folder that can't be read.
    #[error("can't read `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A manifest that is no text.
    #[error("`{}` is not UTF-8 at line {line}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, counted from 1.
        line: usize,
    },
    /// A project that asks for another trainlock than this one. Nothing else of it was looked at:
    /// the other trainlock may know keys that this one does not.
    #[error("{}", .0.message)]
    RequiresTrainlock(Box<Diagnostic>),
    /// A manifest with mistakes: all that were found, sorted by file and place; never empty.
    #[error("{}", match .0.len() { 1 => "train.toml has a mistake".to_owned(), n => format!("train.toml has {n} mistakes") })]
    Invalid(Vec<Diagnostic>),
}
