//! Removing what nobody uses.

use crate::error::StoreError;
use crate::lock::{self, Kind};
use crate::partial::PARTIAL;
use crate::session::Session;
use crate::store::{Store, children};
use crate::sys::{self, Stamp};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use trainlock_types::Digest;

/// How long the folder of a failed step, or what came of a download, is kept, in nanoseconds: a week.
const KEEP_FAILED: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// What is used, and stays.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Digests of objects and of trees. (A tree's listing stays with it; the objects that it was made of need not.)
    pub objects: BTreeSet<Digest>,
    /// Keys of results. (What a result refers to has to be among the objects.)
    pub results: BTreeSet<Digest>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many objects.
    pub objects: u64,
    /// How many trees.
    pub trees: u64,
    /// How many results.
    pub results: u64,
    /// How many folders of failed steps.
    pub failed: u64,
    /// Bytes given back. Files that are hard-linked elsewhere give back nothing.
    pub bytes: u64,
}

impl Store {
    /// Removes everything that is not live, folders of failed steps that are a week old, and lock files that nobody
    /// holds. Waits until no session writes to the store (`on_wait` is told so), and keeps new ones waiting.
    /// The caller may hold no session, for which it would wait forever.
    /// With `dry_run` it removes nothing and waits for nobody.
    pub fn gc(&self, live: &Live, dry_run: bool, on_wait: impl FnOnce()) -> Result<Freed, StoreError> {
        if dry_run {
            return self.collect(live, None);
        }
        let lock = lock::wait(&self.use_lock(), Kind::Exclusive, |_| on_wait())?;
        let session = Session::begin_with(self, Some(lock))?;
        let freed = self.collect(live, Some(&session))?;
        for path in children(&self.locks())? {
            let own = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            // Whoever opened it before it went finds that out, and makes a new one.
            if !own && let Ok(Some(_lock)) = lock::attempt(&path, Kind::Exclusive) {
                remove(&path)?;
            }
        }
        session.finish(true)?;
        Ok(freed)
    }

    /// Results go first and objects last, so that at every instant what a result names is there.
    fn collect(&self, live: &Live, session: Option<&Session>) -> Result<Freed, StoreError> {
        let mut freed = Freed::default();
        for (path, key) in self.entries("results")? {
            if !live.results.contains(&key) {
                freed.results += 1;
                freed.bytes += drop_file(&path, session)?;
            }
        }
        for (path, digest) in self.entries("trees")? {
            if !live.objects.contains(&digest) {
                freed.trees += 1;
                freed.bytes += drop_folder(&path, session)?;
            }
        }
        for (path, digest) in self.entries("objects")? {
            if !live.objects.contains(&digest) {
                freed.objects += 1;
                freed.bytes += drop_file(&path, session)?;
            }
        }
        for path in children(&self.root().join("failed"))? {
            if Stamp::of(&path).is_ok_and(|s| s.ctime < sys::now() - KEEP_FAILED) {
                freed.failed += 1;
                freed.bytes += drop_folder(&path, session)?;
            }
        }
        for path in children(&self.root().join(PARTIAL))? {
            if Stamp::of(&path).is_ok_and(|s| s.ctime < sys::now() - KEEP_FAILED) {
                freed.bytes += drop_file(&path, session)?;
            }
        }
        Ok(freed)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    sys::ignore_missing(fs_err::remove_file(path)).map_err(|e| StoreError::io("remove", path, e))
}

/// Removes a file (if there is a session to do it in) and says what that gives back.
fn drop_file(path: &Path, session: Option<&Session>) -> Result<u64, StoreError> {
    let Some(stamp) = Stamp::find(path).map_err(|e| StoreError::io("read", path, e))? else {
        return Ok(0);
    };
    if session.is_some() {
        remove(path)?;
    }
    Ok(if stamp.links == 1 { stamp.size } else { 0 })
}

/// As [`drop_file`], for a folder: it leaves its place as a whole.
fn drop_folder(path: &Path, session: Option<&Session>) -> Result<u64, StoreError> {
    let mut bytes = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        // Unreadable folders of a failed step are removed all the same.
        for path in children(&folder).unwrap_or_default() {
            match Stamp::of(&path) {
                Ok(stamp) if stamp.is_dir() => folders.push(path),
                Ok(stamp) if stamp.links == 1 => bytes += stamp.size,
                _ => {}
            }
        }
    }
    if let Some(session) = session {
        // Moving a folder changes its `..`, which takes the right to write to it.
        let _ = fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755));
        session.room.remove(path)?;
    }
    Ok(bytes)
}
