//! An archive's members on their way into the store as a tree.

use crate::archive::{self, ArchiveError, Content, Limits, Sink};
use crate::error::Failure;
use crate::settings::Cancel;
use fs_err::File;
use std::io::{self, Read};
use trainlock_store::{HashError, PutError, Session, StoreError, Tree, TreeBuilder};
use trainlock_types::{Digest, RelPath};

/// Why an archive did not become a tree or a file.
#[derive(Debug)]
pub(crate) enum UnpackError {
    Archive(ArchiveError),
    /// It became another tree than the locked one.
    Tree {
        expected: Digest,
        found: Digest,
    },
    Failure(Failure),
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> UnpackError {
        UnpackError::Archive(error)
    }
}

impl From<Failure> for UnpackError {
    fn from(failure: Failure) -> UnpackError {
        UnpackError::Failure(failure)
    }
}

impl From<StoreError> for UnpackError {
    fn from(error: StoreError) -> UnpackError {
        UnpackError::Failure(Failure::Store(error))
    }
}

/// Unpacks an archive into the store: each file and link to the place that `place` gives it, if it gives one. `locked` is the digest
/// that the tree must have. `progress` is told of all bytes as they are written.
pub(crate) fn unpack(
    session: &Session,
    archive: File,
    limits: Limits,
    locked: Option<Digest>,
    place: &dyn Fn(&RelPath) -> Option<RelPath>,
    cancel: &Cancel,
    progress: impl FnMut(u64),
) -> Result<Tree, UnpackError> {
    let mut sink = StoreSink { tree: session.tree()?, place, cancel, progress };
    archive::unpack(archive, limits, &mut sink)?;
    sink.tree.finish(locked).map_err(|error| put_error(error, None))
}

/// The builder of a tree, which can be interrupted and tells how far it is.
struct StoreSink<'a, P> {
    tree: TreeBuilder,
    place: &'a dyn Fn(&RelPath) -> Option<RelPath>,
    cancel: &'a Cancel,
    progress: P,
}

impl<P: FnMut(u64)> StoreSink<'_, P> {
    /// What a failed put means; an interrupted one failed because [`Watched`] said so.
    fn failed(&self, error: PutError, path: &RelPath) -> UnpackError {
        if self.cancel.is_thrown() { UnpackError::Failure(Failure::Interrupted) } else { put_error(error, Some(path)) }
    }
}

impl<P: FnMut(u64)> Sink for StoreSink<'_, P> {
    type Error = UnpackError;

    fn file(&mut self, path: &RelPath, exec: bool, content: &mut Content) -> Result<(), UnpackError> {
        let Some(path) = &(self.place)(path) else { return Ok(()) };
        let mut watched = Watched { content, cancel: self.cancel, progress: &mut self.progress };
        let added = self.tree.add_file(path, exec, &mut watched);
        added.map(drop).map_err(|error| self.failed(error, path))
    }

    fn copy(&mut self, from: &RelPath, path: &RelPath) -> Result<(), UnpackError> {
        let Some(path) = &(self.place)(path) else { return Ok(()) };
        let Some(from) = &(self.place)(from) else {
            return Err(ArchiveError::HardLink { name: path.to_string(), target: from.to_string() }.into());
        };
        self.tree.add_copy(from, path).map(drop).map_err(|error| self.failed(error, path))
    }

    fn link(&mut self, path: &RelPath, target: &str) -> Result<(), UnpackError> {
        let Some(path) = &(self.place)(path) else { return Ok(()) };
        self.tree.add_symlink(path, target).map_err(|error| self.failed(error, path))
    }
}

/// Reads a member until the user interrupts.
struct Watched<'a, P> {
    content: &'a mut Content,
    cancel: &'a Cancel,
    progress: &'a mut P,
}

impl<P: FnMut(u64)> Read for Watched<'_, P> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_thrown() {
            return Err(io::Error::other("interrupted"));
        }
        let n = self.content.read(out)?;
        (self.progress)(n as u64);
        Ok(n)
    }
}

/// In terms of the archive, where it is the archive's fault.
fn put_error(error: PutError, path: Option<&RelPath>) -> UnpackError {
    match error {
        PutError::Read(error) => ArchiveError::from_read(error, path.map(|p| p.as_str().as_bytes())).into(),
        PutError::Store(error) => error.into(),
        PutError::Twice(path) => ArchiveError::Twice(path.to_string()).into(),
        PutError::Collision(first, second) => ArchiveError::Collision(first.to_string(), second.to_string()).into(),
        PutError::Hash(HashError::Link { path, target }) => {
            ArchiveError::LinkOut { name: path.to_string_lossy().into_owned(), target }.into()
        }
        PutError::Tree { expected, found } => UnpackError::Tree { expected, found },
        // The builder reads no files and was told no size or digest of one.
        error @ (PutError::Hash(_) | PutError::Sha256 { .. } | PutError::Size { .. }) => {
            StoreError::Io { action: "write", path: Default::default(), source: io::Error::other(error) }.into()
        }
    }
}
