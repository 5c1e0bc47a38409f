//! Hashing the store's content again: all of it, or what a power cut may have damaged.

use crate::error::{HashError, StoreError};
use crate::scan::{self, Nothing, Scanned};
use crate::session::{Room, Session};
use crate::store::{Store, result_content};
use crate::sys::{self, Stamp};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use trainlock_types::{Digest, Entry, EntryKind, Listing, RelPath};

/// What `verify` tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// So many bytes more have been hashed.
    Bytes(u64),
    /// This object, file of a tree, or result was damaged, and has been removed (with its tree).
    Damaged(PathBuf),
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Objects looked at.
    pub objects: u64,
    /// Trees looked at.
    pub trees: u64,
    /// Results looked at.
    pub results: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What was damaged and has been removed, sorted.
    pub damaged: Vec<PathBuf>,
}

impl Store {
    /// Hashes everything in the store again, on all cores. What is damaged is removed and named; what has only
    /// another time or mode than it should have gets its own back.
    pub fn verify(&self, mut report: impl FnMut(Checked)) -> Result<VerifyReport, StoreError> {
        let session = Session::begin(self, |_| {})?;
        let mut found = VerifyReport::default();
        let mut tell = |found: &mut VerifyReport, checked: Checked| {
            match &checked {
                Checked::Bytes(bytes) => found.bytes += bytes,
                Checked::Damaged(path) => found.damaged.push(path.clone()),
            }
            report(checked);
        };
        let objects = self.entries("objects")?;
        found.objects = objects.len() as u64;
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || check_objects(self, objects, &sender));
            for checked in receiver {
                tell(&mut found, checked);
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        for (path, digest) in self.entries("trees")? {
            let size = self.listing(&digest)?.map_or(0, |l| l.size());
            for path in check_tree(&session.room, &digest)? {
                tell(&mut found, Checked::Damaged(path));
            }
            found.trees += u64::from(Stamp::of(&path).is_ok());
            tell(&mut found, Checked::Bytes(size));
        }
        for (path, key) in self.entries("results")? {
            found.results += 1;
            let Some(stamp) = Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? else {
                continue;
            };
            if self.result(&key)?.is_none() {
                tell(&mut found, Checked::Damaged(path));
            }
            tell(&mut found, Checked::Bytes(stamp.size));
        }
        found.damaged.sort();
        session.finish(true)?;
        Ok(found)
    }
}

fn check_objects(
    store: &Store,
    objects: Vec<(PathBuf, Digest)>,
    sender: &mpsc::Sender<Checked>,
) -> Result<(), StoreError> {
    let mut sized = Vec::with_capacity(objects.len());
    for (path, digest) in objects {
        // One that is gone was removed by another process.
        if let Some(stamp) = Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
            sized.push((path, digest, stamp));
        }
    }
    scan::biggest_first(
        sized,
        |(_, _, stamp)| stamp.size,
        |(path, digest, stamp), buffer| {
            let exec = path.extension().is_some();
            let good = stamp.is_untouched(exec)
                && match scan::hash_quiet(CWD, path.as_path(), stamp, buffer) {
                    Ok(hashed) => hashed.sha256 == digest,
                    Err(_) => false,
                };
            // Told by a receiver that is there as long as this runs.
            if !good && !store.recheck(&path, &digest, exec)? && Stamp::of(&path).is_err() {
                let _ = sender.send(Checked::Damaged(path));
            }
            let _ = sender.send(Checked::Bytes(stamp.size));
            Ok(())
        },
    )
    .map(|_: Vec<()>| ())
}

/// Hashes a tree again. A damaged one is removed, and its damaged files are returned; files that have only lost their
/// time get it back, and so does the tree's listing if it is lost.
pub(crate) fn check_tree(room: &Arc<Room>, digest: &Digest) -> Result<Vec<PathBuf>, StoreError> {
    let store = &room.store;
    let Some(tree) = store.tree(digest) else {
        return Ok(Vec::new());
    };
    let known = store.listing(digest)?;
    let mut damaged = Vec::new();
    match scan::scan(&tree, &|_| true, &Nothing, None) {
        Ok(scanned) => {
            let listing = listing_of(&scanned);
            if let Some(listing) = listing.as_ref().filter(|l| l.digest() == *digest) {
                for file in &scanned.files {
                    let exec = file.kind == EntryKind::Executable;
                    if file.kind != EntryKind::Symlink && !file.stamp.is_untouched(exec) {
                        let path = file.path.on(&tree);
                        let failed = |e: Errno| StoreError::io("write", &path, e);
                        rustix::fs::chmod(&path, sys::mode(sys::mode_bits(exec))).map_err(failed)?;
                        rustix::fs::utimensat(CWD, &path, &sys::fixed_times(), AtFlags::SYMLINK_NOFOLLOW)
                            .map_err(failed)?;
                    }
                }
                if known.is_none() {
                    room.put_listing(listing)?;
                }
                return Ok(Vec::new());
            }
            let found = listing.unwrap_or_default();
            match known {
                Some(known) => damaged.extend(differences(&known, &found).map(|p| p.on(&tree))),
                None => damaged.push(tree.clone()),
            }
            if damaged.is_empty() {
                damaged.push(tree.clone());
            }
        }
        // Removed by another process.
        Err(_) if Stamp::of(&tree).is_err() => return Ok(Vec::new()),
        // What the disk cannot give back is damaged; what this user may not read is not.
        Err(HashError::Io { path, source }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(StoreError::io("read", path, source));
        }
        Err(error) => damaged.push(error.path().to_owned()),
    }
    // Moving a folder changes its `..`, which takes the right to write to it.
    let _ = fs_err::set_permissions(&tree, std::fs::Permissions::from_mode(0o755));
    room.remove(&tree)?;
    Ok(damaged)
}

fn listing_of(scanned: &Scanned) -> Option<Listing> {
    let entry = |f: &scan::Found| Entry { path: f.path.clone(), sha256: f.sha256, size: f.size, kind: f.kind };
    let files = Listing::new(scanned.files.iter().map(entry).collect()).ok()?;
    // One that the tree's listing does not name makes it another tree.
    let full = crate::tree::folders_of(&files);
    let outer: std::collections::HashSet<_> = scanned.folders.iter().filter_map(|folder| folder.parent()).collect();
    let is_empty = |folder: &&RelPath| !full.contains(folder.as_str()) && !outer.contains(*folder);
    let empty = scanned.folders.iter().filter(is_empty).cloned().collect();
    drop(full);
    files.with_empty_folders(empty).ok()
}

/// The paths at which two listings differ.
fn differences(a: &Listing, b: &Listing) -> impl Iterator<Item = RelPath> {
    let of = |l: &Listing| {
        let entries = l.entries().iter().map(|e| (e.path.clone(), Some(e.clone())));
        let empty = l.empty_folders().iter().map(|folder| (folder.clone(), None));
        entries.chain(empty).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (a, b) = (of(a), of(b));
    let paths: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).cloned().collect();
    paths.into_iter().filter(move |p| a.get(p) != b.get(p))
}

/// Hashes everything again that was put or changed since a moment (nanoseconds since 1970), by the inodes'
/// change times, and removes what is damaged.
pub(crate) fn recheck_since(room: &Arc<Room>, since: i64) -> Result<(), StoreError> {
    let store = &room.store;
    let newer = |path: &PathBuf| match Stamp::find(path) {
        Ok(stamp) => Ok(stamp.is_some_and(|s| s.ctime >= since)),
        Err(error) => Err(StoreError::io("read", path, error)),
    };
    let select = |part: &str| -> Result<Vec<(PathBuf, Digest)>, StoreError> {
        let mut selected = Vec::new();
        for (path, digest) in store.entries(part)? {
            if newer(&path)? {
                selected.push((path, digest));
            }
        }
        Ok(selected)
    };
    // Nobody listens to what was damaged: it never was complete.
    let (sender, _) = mpsc::channel();
    check_objects(store, select("objects")?, &sender)?;
    for (_, digest) in select("trees")? {
        check_tree(room, &digest)?;
    }
    for (path, _) in select("results")? {
        let damaged = match fs_err::read(&path) {
            Ok(bytes) => result_content(&bytes).is_none(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if damaged {
            sys::remove_all(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
    }
    Ok(())
}
