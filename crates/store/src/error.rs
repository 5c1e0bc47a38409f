//! What can go wrong in the store, and while files are hashed.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trainlock_types::{Digest, HumanSize, PathError, RelPath};

/// An operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused something.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: "read", "create", …
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The store's folder may not be written by this user, or lies on a read-only file system.
    #[error("cannot write to `{}`: the store must be writable (choose another with TRAINLOCK_STORE)", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The file system is full, or the user's quota is.
    #[error("no space left for `{}`: {} needed, {} free", path.display(), HumanSize(*needed), HumanSize(*free))]
    Full {
        /// The path.
        path: PathBuf,
        /// Bytes still to be written (at least).
        needed: u64,
        /// Bytes that the file system has left for this user.
        free: u64,
    },
    /// A newer trainlock made this store.
    #[error("the store `{}` has layout `{found}`, this trainlock reads layout 1: use a newer trainlock or another store", path.display())]
    NewerVersion {
        /// The store's folder.
        path: PathBuf,
        /// What its `version` file says.
        found: String,
    },
    /// A folder with other things in it.
    #[error("`{}` holds other files and is no store: name an empty or new folder", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// An object or tree that is needed is not there.
    #[error("the store has no object {0}")]
    Missing(Digest),
    /// A file of the store was changed after it was put there. (It has been removed.)
    #[error("`{}` in the store was changed after it was put there and has been removed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A wanted way of placing files that the file system does not offer.
    #[error("cannot {link} `{}` to `{}`", from.display(), to.display())]
    Link {
        /// "reflink", "hard-link" or "copy".
        link: &'static str,
        /// The store's file.
        from: PathBuf,
        /// Where it should have come.
        to: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The store's file system has no file locks, without which nothing may be removed safely.
    #[error("the file system of `{}` has no file locks, which this needs", path.display())]
    NoLocks {
        /// The lock file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

/// A file or folder could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The file system refused something.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// Neither a regular file nor a link (nor a folder where folders may be).
    #[error("`{}` is {found}: only files, folders and links inside the folder can be used", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// A name that not every machine can have.
    #[error("`{}` has a name that cannot be used", path.display())]
    Name {
        /// The path (with what is no UTF-8 replaced).
        path: PathBuf,
        /// Why; none if it is no UTF-8.
        #[source]
        source: Option<PathError>,
    },
    /// A symbolic link that leaves its folder, or goes up again after going down.
    #[error("the link `{}` points to `{target}`, which is not plainly inside the folder", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it points.
        target: String,
    },
    /// Something wrote to it meanwhile.
    #[error("`{}` was changed while it was read", path.display())]
    Changed {
        /// The path.
        path: PathBuf,
    },
}

/// Something could not be put into the store; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The store itself failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What should be put could not be read or used.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The reader that gives the content failed.
    #[error("the content could not be read")]
    Read(#[source] io::Error),
    /// The content is not what was expected.
    #[error("expected sha256 {expected}, found {found} ({size} bytes)")]
    Sha256 {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
        /// The length of what came, in bytes.
        size: u64,
    },
    /// The content has another length than expected.
    #[error("expected {expected} bytes, found {found}")]
    Size {
        /// What was asked for.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A tree is not what was expected.
    #[error("expected tree {expected}, found {found}")]
    Tree {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A path twice, or a path inside something that is no folder.
    #[error("`{0}` stands twice, or inside what is no folder")]
    Twice(RelPath),
    /// Two names that are one on a file system that ignores case or normalises Unicode.
    #[error("`{0}` and `{1}` are the same file where names ignore case or are normalised")]
    Collision(RelPath, RelPath),
}

impl StoreError {
    /// Wraps what the file system answered, as the variant that says most.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> StoreError {
        let (path, source) = (path.as_ref().to_owned(), source.into());
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                StoreError::Full { free: free(&path), needed: 1, path }
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied if action != "read" => {
                StoreError::NotWritable { path, source }
            }
            _ => StoreError::Io { action, path, source },
        }
    }

    /// The same for a path that is not in the store, so that the right to write to the store is not what is missing.
    pub(crate) fn outside(action: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> StoreError {
        match StoreError::io(action, path, source) {
            StoreError::NotWritable { path, source } => StoreError::Io { action, path, source },
            other => other,
        }
    }

    /// The store error inside an error of a write to an [`ObjectWriter`](crate::ObjectWriter), if
    /// there is one; else the error itself.
    pub fn from_write(error: io::Error) -> Result<StoreError, io::Error> {
        error.downcast::<StoreError>()
    }
}

impl HashError {
    pub(crate) fn io(path: impl AsRef<Path>, source: impl Into<io::Error>) -> HashError {
        HashError::Io { path: path.as_ref().to_owned(), source: source.into() }
    }

    /// The path that it is about.
    pub fn path(&self) -> &Path {
        match self {
            HashError::Io { path, .. }
            | HashError::Kind { path, .. }
            | HashError::Name { path, .. }
            | HashError::Link { path, .. }
            | HashError::Changed { path } => path,
        }
    }
}

/// Bytes left for this user on the file system of a path (or of the nearest folder above that exists).
pub(crate) fn free(path: &Path) -> u64 {
    let stat = path.ancestors().find_map(|p| rustix::fs::statvfs(p).ok());
    stat.map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}
