//! What the store's tests share.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use fs_err as fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use trainlock_store::{Session, Store};
use trainlock_types::{Digest, RelPath};

/// 1980-01-01T00:00:00Z.
pub(crate) const FIXED: i64 = 315_532_800;

/// A store in a folder of its own, with a `work` folder on the same file system beside it.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Place { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn session(&self) -> Session {
        self.store.session().unwrap()
    }

    /// Puts an object, durably, and returns its digest.
    pub(crate) fn put(&self, content: &[u8]) -> Digest {
        let session = self.session();
        let digest = session.put_bytes(content).unwrap();
        session.finish(true).unwrap();
        digest
    }

    /// Puts a tree of these files, durably.
    pub(crate) fn put_tree(&self, files: &[(&str, &str)]) -> trainlock_store::Tree {
        let session = self.session();
        let mut builder = session.tree().unwrap();
        for (path, content) in files {
            builder.add_file(&rel(path), false, &mut content.as_bytes()).unwrap();
        }
        let tree = builder.finish(None).unwrap();
        session.finish(true).unwrap();
        tree
    }

    /// The names in the store's `tmp`.
    pub(crate) fn sessions(&self) -> Vec<String> {
        names(&self.store.root().join("tmp"))
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.store.verify(|_| {}).unwrap().damaged.is_empty()
    }
}

pub(crate) fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Writes a file with the folders above it.
pub(crate) fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn mtime(path: &Path) -> i64 {
    fs::symlink_metadata(path).unwrap().mtime()
}

pub(crate) fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Changes a read-only file's content in place, as a step with the rights to do so could; with `hidden`, its time is
/// set back so that only hashing can tell.
pub(crate) fn damage(path: &Path, hidden: bool) {
    let old = mode(path);
    let before = fs::symlink_metadata(path).unwrap().modified().unwrap();
    set_mode(path, 0o644);
    let mut content = fs::read(path).unwrap();
    match content.first_mut() {
        Some(byte) => *byte ^= 1,
        None => content.push(1),
    }
    fs::write(path, content).unwrap();
    if hidden {
        fs::OpenOptions::new().write(true).open(path).unwrap().into_parts().0.set_modified(before).unwrap();
    }
    set_mode(path, old);
}
