//! How two files differ that should have been equal, as a scientist would say it; and a digest of a file's content
//! without the noise of its container.
//!
//! A file's format is known by its first bytes; only for JSON, JSON lines, tables as text and old pickles does the
//! name's ending count. Every format is read into one of a few bodies (`model`): an array, members, a compressed
//! stream, a graph of values, a table, or plain bytes. Comparing and digesting are written once, over those (`walk`).
//!
//! Promises: nothing in a file is ever executed. Memory is bounded whatever the file says: arrays are streamed, headers
//! and counts have limits, what is unpacked goes to an unnamed temporary file beyond a few MiB. A file that is not
//! what it began as is compared as bytes. [`content_digest`] and [`compare_files`] agree: two files of which both
//! have a content digest have the same one exactly when they are not [`Sameness::Different`].

mod array;
mod blob;
mod codec;
mod csv;
mod folders;
mod json;
mod literal;
mod model;
mod npy;
mod parquet;
mod pickle;
mod png;
#[cfg(test)]
mod properties;
mod rebuild;
mod report;
mod safetensors;
mod tar;
#[cfg(test)]
mod tests;
mod torch;
mod tree;
mod walk;
mod zip;

pub use folders::{FolderChange, FolderDifference, compare_folders};
pub use report::{
    Change, Comparison, DESCRIBED, Difference, Distance, Elements, Noise, NoiseKind, Sameness, Tolerance,
};

use blob::Blob;
use model::{Report, Stop};
use std::io;
use std::path::{Path, PathBuf};
use trainlock_types::Digest;

/// Why two files could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file or folder that can't be opened or listed; the source names it.
    #[error("could not open what is to be compared")]
    Read(#[source] io::Error),
    /// A file whose length can't be known.
    #[error("could not look at `{}`", path.display())]
    Stat {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk failed while files were read, or unpacked to a temporary file.
    #[error("could not read `{name}` while comparing it")]
    Content {
        /// The file, as the caller named it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn failed(stop: Stop, name: &str) -> CompareError {
    let source = match stop {
        Stop::Io(error) => error,
        Stop::Damaged(why) => io::Error::other(why),
    };
    CompareError::Content { name: name.to_owned(), source }
}

/// Says how two files differ. `name` is what the file is called: it stands in the result, and its ending tells
/// text formats apart.
///
/// Errors: a file that can't be read. A damaged file is no error: it is compared as bytes.
pub fn compare_files(a: &Path, b: &Path, name: &str) -> Result<Comparison, CompareError> {
    compare_blobs(&Blob::open(a)?, &Blob::open(b)?, name)
}

fn compare_blobs(a: &Blob, b: &Blob, name: &str) -> Result<Comparison, CompareError> {
    let mut report = Report::default();
    walk::blobs("", a, b, name, 0, &mut report).map_err(|stop| failed(stop, name))?;
    let verdict = match (report.total, report.noise.is_empty()) {
        (0, true) => Sameness::Identical,
        (0, false) => Sameness::SameContent,
        _ => Sameness::Different,
    };
    let noise = report.noise.into_values().collect();
    Ok(Comparison { name: name.to_owned(), verdict, noise, differences: report.differences, total: report.total })
}

/// The digest of a file's content without the noise of its container (see [`NoiseKind`]); none where the bytes are the
/// content. `name` as for [`compare_files`].
///
/// Errors: a file that can't be read.
pub fn content_digest(path: &Path, name: &str) -> Result<Option<Digest>, CompareError> {
    walk::digest(&Blob::open(path)?, name, 0).map_err(|stop| failed(stop, name))
}
