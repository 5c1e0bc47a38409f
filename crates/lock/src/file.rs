//! The lock's file: read whole, written whole or not at all.

use crate::{Lock, LockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// As many links as Linux follows before it gives up.
const LINKS: usize = 40;

impl Lock {
    /// The lock in a file; none if there is no such file.
    ///
    /// # Errors
    ///
    /// [`LockError::Read`], and all of [`Lock::parse`].
    pub fn load(path: &Path) -> Result<Option<Lock>, LockError> {
        match fs_err::read_to_string(path) {
            Ok(text) => Lock::parse(&text, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LockError::Read(error)),
        }
    }

    /// Writes the canonical text; tells whether the file had to be touched.
    ///
    /// The new file takes the old one's place in one moment and is on the disk before that. The old
    /// one's mode is kept, and a symbolic link stays a link.
    ///
    /// # Errors
    ///
    /// [`LockError::Write`]; then the old file stands as it was.
    pub fn save(&self, path: &Path) -> Result<bool, LockError> {
        let text = self.to_text();
        replace(path, text.as_bytes()).map_err(|source| LockError::Write { path: path.to_owned(), source })
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<bool> {
    let path = &behind_links(path)?;
    let old = match fs_err::read(path) {
        Ok(old) if old == text => return Ok(false),
        Ok(_) => Some(fs_err::metadata(path)?.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".train.lock.");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(text)?;
    if let Some(permissions) = old {
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new text is in place and whole, come what may. Some file systems refuse to sync a folder, and
    // all that a power cut could then bring back is the old text, whole too.
    let _ = fs_err::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(true)
}

/// The file that a path leads to, which need not be there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs_err::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let target = fs_err::read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("")).join(target);
            }
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("too many symbolic links at {}", path.display())))
}
