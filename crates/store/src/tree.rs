//! Putting trees into the store: taken from a step's output, unpacked file by file, or linked
//! together from objects.

use crate::error::{HashError, PutError, StoreError};
use crate::hash::CHUNK;
use crate::materialise::{Link, Source, lay_out};
use crate::put::write_error;
use crate::scan::{self, Nothing};
use crate::session::{Room, Session};
use crate::sys::{self, Temp};
use icu_normalizer::ComposingNormalizerBorrowed;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use trainlock_types::{Digest, Entry, EntryKind, Hasher, Listing, ListingError, RelPath};

/// A tree that was put into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The digest of its listing, which names it.
    pub digest: Digest,
    /// The bytes of its entries together.
    pub size: u64,
    /// How many entries it has.
    pub count: u64,
    /// What is in it.
    pub listing: Listing,
}

impl Session {
    /// Takes a folder on the store's file system (a step's output) as a tree: hashes its files on all
    /// cores, gives them the store's modes and time, drops empty folders, and moves the folder into place. It
    /// is gone afterwards. Refused: sockets, pipes, devices, links that leave it, names that not every
    /// machine can have; then the folder stays (with modes and times already changed).
    pub fn take_tree(&self, dir: &Path) -> Result<Tree, PutError> {
        let scanned = scan::scan(dir, &|_| true, &Nothing, Some(&self.room))?;
        let entries =
            scanned.files.into_iter().map(|f| Entry { path: f.path, sha256: f.sha256, size: f.size, kind: f.kind });
        let listing = listing(entries.collect())?;
        let needed = folders_of(&listing);
        let failed = |path: &Path, e: io::Error| PutError::from(HashError::io(path, e));
        let root = sys::open_dir(CWD, dir, true).map_err(|e| HashError::io(dir, e))?;
        // From the deepest up, so that a folder of empty folders is empty when its turn comes.
        for folder in scanned.folders.iter().rev().filter(|f| !needed.contains(f.as_str())) {
            rustix::fs::unlinkat(&root, folder.as_str(), AtFlags::REMOVEDIR)
                .map_err(|e| failed(&folder.on(dir), e.into()))?;
        }
        set_folder_times(&root, needed.iter().copied()).map_err(|e| failed(dir, e.into()))?;
        let tree = self.room.install_tree(dir, listing)?;
        sys::remove_all(dir).map_err(|e| StoreError::io("remove", dir, e))?;
        Ok(tree)
    }

    /// Begins a tree that is filled file by file, as an archive is unpacked. Memory does not
    /// grow with the files' sizes. The builder needs no reference to the session.
    pub fn tree(&self) -> Result<TreeBuilder, StoreError> {
        let temp = Temp::new(self.room.temporary());
        fs_err::create_dir(temp.path()).map_err(|e| StoreError::io("create", temp.path(), e))?;
        let root = sys::open_dir(CWD, temp.path(), false).map_err(|e| StoreError::io("read", temp.path(), e))?;
        Ok(TreeBuilder {
            room: self.room.clone(),
            temp,
            root,
            folders: HashSet::new(),
            current: None,
            entries: Vec::new(),
            exact_modes: None,
            buffer: Vec::new(),
        })
    }

    /// Makes the tree of a listing from objects that are in the store (hard links; copies where the file
    /// system has none). The content of a link is an object too.
    pub fn tree_from_objects(&self, listing: &Listing) -> Result<Tree, PutError> {
        check_names(listing)?;
        self.system_from_objects(listing)
    }

    /// The same for the file system of an image, which is for this kind of machine alone: its names may differ in case only.
    pub fn system_from_objects(&self, listing: &Listing) -> Result<Tree, PutError> {
        let digest = listing.digest();
        if self.store().has_tree(&digest) {
            return Ok(Tree { digest, size: listing.size(), count: listing.count(), listing: listing.clone() });
        }
        for entry in listing.entries().iter().filter(|e| e.kind != EntryKind::Symlink) {
            let exec = entry.kind == EntryKind::Executable;
            let there = sys::Stamp::of(&self.store().object_path(&entry.sha256, exec)).is_ok();
            if !there && !self.room.variant(&entry.sha256, exec)? {
                return Err(StoreError::Missing(entry.sha256).into());
            }
        }
        let temp = Temp::new(self.room.temporary());
        fs_err::create_dir(temp.path()).map_err(|e| StoreError::io("create", temp.path(), e))?;
        lay_out(self.store(), &[(listing, Source::Objects)], temp.path(), Link::Hardlink, true)?;
        self.room.install_tree(temp.path(), listing.clone()).map_err(Into::into)
    }
}

impl Session {
    /// Makes one tree out of parts of trees that are in the store: each with what is wanted of it (hard links; copies where the
    /// file system has none). Nothing is read or hashed. No two parts may have a path in common.
    pub fn tree_from_trees(&self, parts: &[(Digest, Listing)]) -> Result<Tree, PutError> {
        let whole = listing(parts.iter().flat_map(|(_, part)| part.entries().iter().cloned()).collect())?;
        check_names(&whole)?;
        let digest = whole.digest();
        if self.store().has_tree(&digest) {
            return Ok(Tree { digest, size: whole.size(), count: whole.count(), listing: whole });
        }
        let temp = Temp::new(self.room.temporary());
        fs_err::create_dir(temp.path()).map_err(|e| StoreError::io("create", temp.path(), e))?;
        let at = |(tree, _): &(Digest, Listing)| self.store().tree(tree).ok_or(StoreError::Missing(*tree));
        let folders = parts.iter().map(at).collect::<Result<Vec<_>, _>>()?;
        let sources: Vec<_> =
            parts.iter().zip(&folders).map(|((_, part), folder)| (part, Source::Tree(folder.as_path()))).collect();
        lay_out(self.store(), &sources, temp.path(), Link::Hardlink, true)?;
        self.room.install_tree(temp.path(), whole).map_err(Into::into)
    }
}

/// Fills a tree. Dropped without [`TreeBuilder::finish`], it leaves nothing.
#[derive(Debug)]
pub struct TreeBuilder {
    room: Arc<Room>,
    temp: Temp,
    root: OwnedFd,
    /// The folders made so far: whatever else has a folder's name is an error, so that nothing is ever
    /// written through a link.
    folders: HashSet<RelPath>,
    /// The folder of the last file, open.
    current: Option<(RelPath, OwnedFd)>,
    entries: Vec<Entry>,
    /// Whether files get the mode that they are made with, which the process's umask decides.
    exact_modes: Option<bool>,
    buffer: Vec<u8>,
}

impl TreeBuilder {
    /// Adds a file with all that `content` has, hashed as it is written. Returns its digest and its size
    /// in bytes. An error of the reader is [`PutError::Read`].
    pub fn add_file(&mut self, path: &RelPath, exec: bool, content: &mut dyn Read) -> Result<(Digest, u64), PutError> {
        self.enter(path)?;
        let failed = |e: Errno| match e {
            Errno::EXIST | Errno::ISDIR => PutError::Twice(path.clone()),
            e => StoreError::io("create", path.on(self.temp.path()), e).into(),
        };
        let folder = self.current.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd =
            rustix::fs::openat(folder, path.file_name(), flags, sys::mode(sys::mode_bits(exec))).map_err(failed)?;
        let mut file = File::from(fd);
        if self.buffer.is_empty() {
            self.buffer.resize(CHUNK, 0);
        }
        let (mut hasher, mut size) = (Hasher::new(), 0);
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&self.buffer[..n]).map_err(|e| {
                        let error = write_error(self.room.store.root(), n as u64, e);
                        StoreError::from_write(error).unwrap_or_else(|e| StoreError::io("write", self.temp.path(), e))
                    })?;
                    hasher.update(&self.buffer[..n]);
                    size += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PutError::Read(error)),
            }
        }
        let exact = match self.exact_modes {
            Some(exact) => exact,
            None => sys::Stamp::fd(&file).map_err(failed)?.mode & 0o7777 == sys::mode_bits(exec),
        };
        self.exact_modes = Some(exact && (self.exact_modes.is_some() || !exec));
        if !exact {
            rustix::fs::fchmod(&file, sys::mode(sys::mode_bits(exec))).map_err(failed)?;
        }
        rustix::fs::futimens(&file, &sys::fixed_times()).map_err(failed)?;
        let kind = if exec { EntryKind::Executable } else { EntryKind::File };
        let sha256 = hasher.finish();
        self.entries.push(Entry { path: path.clone(), sha256, size, kind });
        Ok((sha256, size))
    }

    /// Adds a copy of a file that was added before (an archive's hard link). Returns its digest and its
    /// size in bytes.
    pub fn add_copy(&mut self, from: &RelPath, path: &RelPath) -> Result<(Digest, u64), PutError> {
        let failed = |e: Errno| StoreError::io("read", from.on(self.temp.path()), e);
        let mut file = File::from(sys::open_file(&self.root, from.as_str()).map_err(failed)?);
        let exec = sys::Stamp::fd(&file).map_err(failed)?.mode & 0o100 != 0;
        self.add_file(path, exec, &mut file)
    }

    /// Adds a symbolic link. Refused if it can lead out of the tree: an absolute target, one that goes up
    /// above the tree, or up again after going down.
    pub fn add_symlink(&mut self, path: &RelPath, target: &str) -> Result<(), PutError> {
        if !scan::link_stays_inside(path, target.as_bytes()) {
            return Err(HashError::Link { path: path.as_str().into(), target: target.to_owned() }.into());
        }
        self.enter(path)?;
        let folder = self.current.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
        let made = rustix::fs::symlinkat(target, folder, path.file_name()).and_then(|()| {
            rustix::fs::utimensat(folder, path.file_name(), &sys::fixed_times(), AtFlags::SYMLINK_NOFOLLOW)
        });
        made.map_err(|e| match e {
            Errno::EXIST => PutError::Twice(path.clone()),
            e => StoreError::io("create", path.on(self.temp.path()), e).into(),
        })?;
        let (sha256, size) = (Digest::of(target.as_bytes()), target.len() as u64);
        self.entries.push(Entry { path: path.clone(), sha256, size, kind: EntryKind::Symlink });
        Ok(())
    }

    /// The entries added so far, in that order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Puts the tree in place if it is what was expected. Otherwise, and when two names would be
    /// one where case does not count or Unicode is normalised, nothing is kept.
    pub fn finish(mut self, expect: Option<Digest>) -> Result<Tree, PutError> {
        let listing = listing(std::mem::take(&mut self.entries))?;
        check_names(&listing)?;
        if let Some(expected) = expect {
            let found = listing.digest();
            if found != expected {
                return Err(PutError::Tree { expected, found });
            }
        }
        let folders = self.folders.iter().map(RelPath::as_str);
        set_folder_times(&self.root, folders).map_err(|e| StoreError::io("write", self.temp.path(), e))?;
        Ok(self.room.install_tree(self.temp.path(), listing)?)
    }

    /// Makes the folder of `path`, and has it open.
    fn enter(&mut self, path: &RelPath) -> Result<(), PutError> {
        let Some(parent) = path.parent() else {
            return Err(PutError::Twice(path.clone()));
        };
        if self.current.as_ref().is_some_and(|(folder, _)| *folder == parent) {
            return Ok(());
        }
        self.make_folder(&parent)?;
        self.current = None;
        if !parent.is_root() {
            let fd = sys::open_dir(&self.root, parent.as_str(), false)
                .map_err(|e| StoreError::io("read", parent.on(self.temp.path()), e))?;
            self.current = Some((parent, fd));
        }
        Ok(())
    }

    fn make_folder(&mut self, folder: &RelPath) -> Result<(), PutError> {
        if folder.is_root() || self.folders.contains(folder) {
            return Ok(());
        }
        if let Some(parent) = folder.parent() {
            self.make_folder(&parent)?;
        }
        rustix::fs::mkdirat(&self.root, folder.as_str(), Mode::from_raw_mode(0o755)).map_err(|e| match e {
            Errno::EXIST => PutError::Twice(folder.clone()),
            e => StoreError::io("create", folder.on(self.temp.path()), e).into(),
        })?;
        self.folders.insert(folder.clone());
        Ok(())
    }
}

impl Room {
    /// Puts the listing and then the folder in place. Where the store has the tree already, that one
    /// stays, and the folder is left for the caller to remove.
    fn install_tree(self: &Arc<Room>, from: &Path, listing: Listing) -> Result<Tree, StoreError> {
        let text = listing.to_text();
        let digest = Session { room: self.clone() }.put_bytes(text.as_bytes())?;
        let target = self.store.tree_path(&digest);
        if !self.store.has_tree(&digest) {
            let put = self.put_in_place(&target, || rustix::fs::rename(from, &target));
            match put {
                // Another process was faster.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
                other => other.map_err(|e| StoreError::io("write", &target, e))?,
            }
        }
        Ok(Tree { digest, size: listing.size(), count: listing.count(), listing })
    }

    /// Puts a tree's listing back that has got lost, while the tree itself is there.
    pub(crate) fn put_listing(self: &Arc<Room>, listing: &Listing) -> Result<Digest, StoreError> {
        Session { room: self.clone() }.put_bytes(listing.to_text().as_bytes())
    }
}

fn listing(entries: Vec<Entry>) -> Result<Listing, PutError> {
    Listing::new(entries).map_err(|e| match e {
        ListingError::Order(path) => PutError::Twice(path),
        ListingError::Line(_) => PutError::Twice(RelPath::root()),
    })
}

/// All folders that a listing needs or names; the root is not among them.
pub(crate) fn folders_of(listing: &Listing) -> std::collections::BTreeSet<&str> {
    let mut folders: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
    let mut last = "";
    let empty = listing.empty_folders().iter().map(RelPath::as_str);
    folders.extend(empty.clone());
    for mut path in listing.entries().iter().map(|entry| entry.path.as_str()).chain(empty) {
        let own = path;
        while let Some((folder, _)) = path.rsplit_once('/') {
            // What is above a folder that is in the set is in it too.
            if folder == last || !folders.insert(folder) {
                break;
            }
            path = folder;
        }
        last = own.rsplit_once('/').map_or("", |(folder, _)| folder);
    }
    folders
}

/// Folders get the fixed time too, so that a step that sees a tree sees the same times each time.
pub(crate) fn set_folder_times<'a>(root: &OwnedFd, folders: impl Iterator<Item = &'a str>) -> Result<(), Errno> {
    for folder in folders {
        rustix::fs::utimensat(root, folder, &sys::fixed_times(), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::futimens(root, &sys::fixed_times())
}

/// Refuses names (of files and folders) that are one where case does not count or Unicode is normalised.
fn check_names(listing: &Listing) -> Result<(), PutError> {
    let mut names: HashMap<Cow<'_, str>, &str> = HashMap::with_capacity(listing.entries().len());
    let all = listing.entries().iter().map(|e| e.path.as_str()).chain(folders_of(listing));
    for name in all {
        if let Some(other) = names.insert(folded(name), name) {
            let path = |text: &str| RelPath::parse(text).unwrap_or_default();
            let (first, second) = if other < name { (other, name) } else { (name, other) };
            return Err(PutError::Collision(path(first), path(second)));
        }
    }
    Ok(())
}

/// One text for all names that some file system may take for the same one.
fn folded(name: &str) -> Cow<'_, str> {
    if name.is_ascii() {
        return if name.bytes().any(|b| b.is_ascii_uppercase()) {
            name.to_ascii_lowercase().into()
        } else {
            name.into()
        };
    }
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    // By capitals first: `ß` and `SS`, or the two small sigmas, have the same.
    let folded: String =
        nfc.normalize(name).chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    nfc.normalize(&folded).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folding() {
        assert_eq!(folded("README.md"), folded("readme.MD"));
        assert_eq!(folded("caf\u{e9}"), folded("CAFE\u{301}"));
        assert_eq!(folded("stra\u{df}e"), folded("STRASSE"));
        assert_ne!(folded("a"), folded("ä"));
    }

    proptest! {
        #[test]
        fn folding_is_idempotent(name in "\\PC{0,12}") {
            let once = folded(&name).into_owned();
            prop_assert_eq!(folded(&once).into_owned(), once.clone());
        }
    }
}
