//! The stat index: what is known of files that have not changed is not hashed again.
//!
//! A file counts as unchanged when its size, modification time, change time (both in nanoseconds), inode and
//! kind are what they were when it was hashed. Two rules make that safe and cheap:
//!
//! - *Racily clean* (git's rule): a file that was modified so shortly before it was hashed that a later
//!   modification could have the same time is hashed again the next time.
//! - A hard link to the store's file has its change time moved whenever another link comes or goes. It counts as
//!   unchanged if it still *is* that file of the store, with the store's fixed modification time.
//!
//! The file is a cache, and nothing but time is lost with it: `trainlock-index 1`, a SHA-256 of the rest, and
//! the entries in postcard's encoding. One that is damaged, or of another version, is as if it were missing.

use crate::error::HashError;
use crate::scan::{self, Found, Known};
use crate::store::Store;
use crate::sys::{self, FIXED_NANOS, Stamp};
use rustix::fs::CWD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use trainlock_types::{Digest, Entry, EntryKind, Listing, ListingError, RelPath};

const HEAD: &[u8] = b"trainlock-index 1\n";

/// How much older than the moment of hashing a file must be (nanoseconds) for its time to tell later changes:
/// the kernel's clock for file times ticks every few milliseconds.
const MARGIN: i64 = 20_000_000;

/// The same where the file system keeps whole seconds (FAT: two).
const COARSE_MARGIN: i64 = 2_000_000_000;

/// From this many files on, looking at them is shared out.
const MANY: usize = 512;

/// What a file or link holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// The digest of its content; of a link, of the path that it holds.
    pub sha256: Digest,
    /// The length of its content in bytes.
    pub size: u64,
    /// Whether it is a file, a program or a link.
    pub kind: EntryKind,
}

/// What is known of the files of one project.
#[derive(Debug)]
pub struct Index {
    file: PathBuf,
    root: PathBuf,
    store: Option<Store>,
    content: OnceLock<Content>,
    changed: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// By folder, then by name. Folders below the root are relative to it, others absolute.
    folders: BTreeMap<String, Folder>,
    /// Folders that were placed from trees of the store.
    trees: BTreeMap<String, Digest>,
}

type Folder = BTreeMap<Box<str>, Noted>;

/// What is known of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    sha256: Digest,
    size: u64,
    mtime: i64,
    ctime: i64,
    ino: u64,
    kind: u8,
    racy: bool,
}

impl Index {
    /// The index that `file` holds (it is read when it is first asked). Paths given later are absolute, or
    /// relative to `root`, the project's folder. `store`: whose hard links are recognised.
    pub fn load(file: &Path, root: &Path, store: Option<Store>) -> Index {
        Index { file: file.to_owned(), root: root.to_owned(), store, content: OnceLock::new(), changed: false }
    }

    /// What a file or link holds now, from the index or by hashing it; none if it does not exist.
    /// A folder is an error.
    pub fn file(&mut self, path: &Path) -> Result<Option<FileState>, HashError> {
        Ok(self.files(&[path])?.pop().flatten())
    }

    /// As [`Index::file`] for many files, in their order: all cores hash what has changed, the biggest first.
    pub fn files<P: AsRef<Path> + Sync>(&mut self, paths: &[P]) -> Result<Vec<Option<FileState>>, HashError> {
        let root = sys::open_dir(CWD, &self.root, true).map_err(|e| HashError::io(&self.root, e))?;
        let looked = self.look(&root, paths)?;
        let mut states = vec![None; paths.len()];
        let mut stale = Vec::new();
        for (i, look) in looked {
            match look {
                Look::Missing => self.forget(paths[i].as_ref()),
                Look::Known(state) => states[i] = Some(state),
                Look::Stale(stamp) => stale.push((i, stamp)),
            }
        }
        let hashed = scan::biggest_first(
            stale,
            |(_, stamp)| stamp.size,
            |(i, stamp), buffer| {
                let path = paths[i].as_ref();
                match scan::hash_quiet(&root, path, stamp, buffer) {
                    Ok(hashed) => Ok((i, Some(hashed))),
                    Err(scan::FileFailed::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok((i, None)),
                    Err(error) => Err(error.on(self.root.join(path))),
                }
            },
        )?;
        for (i, hashed) in hashed {
            let path = paths[i].as_ref();
            match hashed.and_then(|h| Some((h.stamp.kind().ok()?, h))) {
                None => self.forget(path),
                Some((kind, hashed)) => {
                    let state = FileState { sha256: hashed.sha256, size: hashed.stamp.size, kind };
                    self.insert(path, Noted::new(&state, &hashed.stamp, hashed.at));
                    states[i] = Some(state);
                }
            }
        }
        Ok(states)
    }

    /// What a folder holds now: its files and links for which `keep` (asked with paths relative to `dir`, of
    /// folders too) says yes. Errors: the folder is missing; a name that is no UTF-8 or holds a control character or a
    /// backslash; a link that leaves the folder; what is neither file, link nor folder.
    pub fn folder(&mut self, dir: &Path, keep: impl Fn(&RelPath) -> bool + Sync) -> Result<Listing, HashError> {
        let path = self.root.join(dir);
        let key = self.key(dir);
        let known = FolderKnown { index: self, prefix: key.as_deref() };
        let scanned = scan::scan(&path, &keep, &known, None)?;
        let mut entries = Vec::with_capacity(scanned.files.len());
        let mut fresh = Vec::new();
        for Found { path, sha256, size, kind, stamp, hashed_at } in scanned.files {
            if let (Some(at), Some(_)) = (hashed_at, &key) {
                fresh.push((path.clone(), Noted::new(&FileState { sha256, size, kind }, &stamp, at)));
            }
            entries.push(Entry { path, sha256, size, kind });
        }
        let listing = Listing::new(entries).map_err(|e| match e {
            // A folder has each name once; on the way from one to the other it was changed.
            ListingError::Order(inner) => HashError::Changed { path: inner.on(&path) },
            ListingError::Line(_) => HashError::Changed { path: path.clone() },
        })?;
        if let Some(prefix) = key {
            for (path, known) in fresh {
                let (folder, name) = split(path.as_str());
                self.insert_at(joined(&prefix, folder), name, known);
            }
            self.prune(&prefix, &listing, &keep);
        }
        Ok(listing)
    }

    /// Notes what was just placed or hashed elsewhere, so that it is not hashed again. The file must hold that
    /// now; one that is missing or of another size is not noted.
    pub fn record(&mut self, path: &Path, state: FileState) {
        if let Ok(stamp) = Stamp::of(&self.root.join(path))
            && stamp.size == state.size
            && stamp.kind() == Ok(state.kind)
        {
            self.insert(path, Noted::new(&state, &stamp, sys::now()));
        }
    }

    /// As [`Index::record`] for a folder that was just placed from a tree of the store.
    pub fn record_tree(&mut self, dir: &Path, tree: &Digest, listing: &Listing) {
        let Some(prefix) = self.key(dir) else { return };
        let path = self.root.join(dir);
        let Ok(fd) = sys::open_dir(CWD, &path, true) else {
            return;
        };
        for entry in listing.entries() {
            if let Ok(stamp) = Stamp::at(&fd, entry.path.as_str())
                && stamp.size == entry.size
                && stamp.kind() == Ok(entry.kind)
            {
                let state = FileState { sha256: entry.sha256, size: entry.size, kind: entry.kind };
                let (folder, name) = split(entry.path.as_str());
                self.insert_at(joined(&prefix, folder), name, Noted::new(&state, &stamp, sys::now()));
            }
        }
        if self.content().trees.get(&prefix) != Some(tree) {
            self.content_mut().trees.insert(prefix, *tree);
            self.changed = true;
        }
    }

    /// What the index knows of a path, if that is still so; never hashes.
    pub fn lookup(&self, path: &Path) -> Option<FileState> {
        let stamp = Stamp::of(&self.root.join(path)).ok()?;
        let key = self.key(path)?;
        let (folder, name) = split(&key);
        self.still(self.content().folders.get(folder)?.get(name)?, &key, &stamp)
    }

    /// Writes the index if anything has changed. Two processes that write at once leave the index of one of them.
    pub fn save(&mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let body = postcard::to_allocvec(self.content()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD.len() + 32 + body.len());
        bytes.extend_from_slice(HEAD);
        bytes.extend_from_slice(Digest::of(&body).as_bytes());
        bytes.extend_from_slice(&body);
        let temp = sys::Temp::new(self.file.with_extension(format!("{:016x}", sys::nonce())));
        if let Some(parent) = self.file.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(temp.path(), bytes)?;
        fs_err::rename(temp.path(), &self.file)?;
        temp.keep();
        self.changed = false;
        Ok(())
    }

    /// Looks at all paths, from several threads where they are many.
    fn look<P: AsRef<Path> + Sync>(&self, root: &OwnedFd, paths: &[P]) -> Result<Vec<(usize, Look)>, HashError> {
        self.content();
        let threads = if paths.len() < MANY { 1 } else { sys::cores().min(8) };
        let part = paths.len().div_ceil(threads).max(1);
        let run = |(n, paths): (usize, &[P])| -> Result<Vec<(usize, Look)>, HashError> {
            paths.iter().enumerate().map(|(i, path)| Ok((n * part + i, self.look_at(root, path.as_ref())?))).collect()
        };
        let mut parts = paths.chunks(part).enumerate();
        let Some(first) = parts.next() else {
            return Ok(Vec::new());
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = parts.map(|part| scope.spawn(move || run(part))).collect();
            let mut looked = run(first)?;
            for worker in workers {
                looked.append(&mut worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(looked)
        })
    }

    fn look_at(&self, root: &OwnedFd, path: &Path) -> Result<Look, HashError> {
        let failed = |e: Errno| HashError::io(self.root.join(path), e);
        let stamp = match Stamp::at(root, path) {
            Ok(stamp) => stamp,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Look::Missing),
            Err(error) => return Err(failed(error)),
        };
        match stamp.kind() {
            Err(found) => {
                return Err(HashError::Kind { path: self.root.join(path), found });
            }
            Ok(EntryKind::Symlink) => {
                let target = rustix::fs::readlinkat(root, path, Vec::new()).map_err(failed)?;
                let bytes = target.to_bytes();
                return Ok(Look::Known(FileState {
                    sha256: Digest::of(bytes),
                    size: bytes.len() as u64,
                    kind: EntryKind::Symlink,
                }));
            }
            Ok(_) => {}
        }
        let known = self.key(path).and_then(|key| {
            let (folder, name) = split(&key);
            self.still(self.content().folders.get(folder)?.get(name)?, &key, &stamp)
        });
        Ok(known.map_or(Look::Stale(stamp), Look::Known))
    }

    /// What was known, if a file with this stamp still is that.
    fn still(&self, known: &Noted, key: &str, stamp: &Stamp) -> Option<FileState> {
        let kind = stamp.kind().ok()?;
        let same = !known.racy
            && (known.size, known.mtime, known.ino, known.kind) == (stamp.size, stamp.mtime, stamp.ino, kind as u8)
            && (known.ctime == stamp.ctime || self.is_stored(known, key, stamp, kind));
        same.then_some(FileState { sha256: known.sha256, size: known.size, kind })
    }

    /// Whether a file is a file of the store, with the content that was known, and untouched.
    fn is_stored(&self, known: &Noted, key: &str, stamp: &Stamp, kind: EntryKind) -> bool {
        let Some(store) = &self.store else {
            return false;
        };
        let exec = kind == EntryKind::Executable;
        if stamp.links < 2 || stamp.mtime != FIXED_NANOS {
            return false;
        }
        let is = |path: &Path| {
            Stamp::of(path).is_ok_and(|s| (s.dev, s.ino) == (stamp.dev, stamp.ino) && s.is_untouched(exec))
        };
        if is(&store.object_path(&known.sha256, exec)) {
            return true;
        }
        let mut folder = key;
        while let Some((parent, _)) = folder.rsplit_once('/') {
            if let Some(tree) = self.content().trees.get(parent) {
                return is(&store.tree_path(tree).join(&key[parent.len() + 1..]));
            }
            folder = parent;
        }
        false
    }

    fn content(&self) -> &Content {
        self.content.get_or_init(|| read(&self.file).unwrap_or_default())
    }

    fn content_mut(&mut self) -> &mut Content {
        self.content();
        self.content.get_mut().unwrap_or_else(|| unreachable!("it was read just now"))
    }

    /// How the index names a path: relative to the root where it is below it. None for what is no UTF-8 or not plain
    /// (with `.` or `..`), which is never noted.
    fn key(&self, path: &Path) -> Option<String> {
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        let bytes = path.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes).ok()?;
        let plain = text.strip_prefix('/').unwrap_or(text);
        // What lies in the root of the file system would have the key of what lies in the project's.
        if plain.len() < text.len() && !plain.contains('/') {
            return None;
        }
        (plain.is_empty() || !plain.split('/').any(|c| matches!(c, "" | "." | ".."))).then(|| text.to_owned())
    }

    fn insert(&mut self, path: &Path, known: Noted) {
        if let Some(key) = self.key(path) {
            let (folder, name) = split(&key);
            self.insert_at(folder.to_owned(), name, known);
        }
    }

    fn insert_at(&mut self, folder: String, name: &str, known: Noted) {
        let folders = &mut self.content_mut().folders;
        let before = folders.entry(folder).or_default().insert(name.into(), known);
        self.changed |= before != Some(known);
    }

    fn forget(&mut self, path: &Path) {
        let Some(key) = self.key(path) else { return };
        let (folder, name) = split(&key);
        if self.content().folders.get(folder).is_some_and(|f| f.contains_key(name))
            && let Some(files) = self.content_mut().folders.get_mut(folder)
        {
            files.remove(name);
            self.changed = true;
        }
    }

    /// Forgets the files below a folder that are gone: those that `keep` would have kept, and that are not in
    /// the listing.
    fn prune(&mut self, prefix: &str, listing: &Listing, keep: &dyn Fn(&RelPath) -> bool) {
        let folders = &self.content().folders;
        let known: usize = below(folders, prefix).map(|(_, files)| files.len()).sum();
        if known <= listing.entries().len() {
            return;
        }
        let there: HashSet<&str> = listing.entries().iter().map(|e| e.path.as_str()).collect();
        let start = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
        let mut gone = Vec::new();
        for (folder, files) in below(folders, prefix) {
            let inner = folder.get(start..).unwrap_or("");
            let parsed = RelPath::parse(inner).unwrap_or_default();
            // What is below a folder that was not looked into may be as it was.
            let above = std::iter::successors(Some(parsed), RelPath::parent);
            if !above.filter(|f| !f.is_root()).all(|f| keep(&f)) {
                continue;
            }
            for name in files.keys() {
                let path = joined(inner, name);
                if !there.contains(path.as_str()) && RelPath::parse(&path).is_ok_and(|p| keep(&p)) {
                    gone.push((folder.clone(), name.clone()));
                }
            }
        }
        for (folder, name) in gone {
            if let Some(files) = self.content_mut().folders.get_mut(&folder) {
                files.remove(&name);
                if files.is_empty() {
                    self.content_mut().folders.remove(&folder);
                }
            }
            self.changed = true;
        }
    }
}

enum Look {
    Missing,
    Known(FileState),
    Stale(Stamp),
}

impl Noted {
    fn new(state: &FileState, stamp: &Stamp, at: i64) -> Noted {
        let margin = if stamp.mtime % 1_000_000_000 == 0 { COARSE_MARGIN } else { MARGIN };
        Noted {
            sha256: state.sha256,
            size: state.size,
            mtime: stamp.mtime,
            ctime: stamp.ctime,
            ino: stamp.ino,
            kind: state.kind as u8,
            racy: stamp.mtime > at.saturating_sub(margin),
        }
    }
}

/// What the index knows, while a folder is walked.
struct FolderKnown<'i> {
    index: &'i Index,
    prefix: Option<&'i str>,
}

impl Known for FolderKnown<'_> {
    type Folder<'a>
        = Option<&'a Folder>
    where
        Self: 'a;

    fn folder(&self, folder: &RelPath) -> Option<&Folder> {
        self.index.content().folders.get(joined(self.prefix?, folder.as_str()).as_str())
    }

    fn digest(&self, folder: &Option<&Folder>, path: &RelPath, stamp: &Stamp) -> Option<Digest> {
        let known = (*folder)?.get(path.file_name())?;
        if known.ctime == stamp.ctime {
            // The key is needed only for hard links of the store.
            return self.index.still(known, "", stamp).map(|s| s.sha256);
        }
        self.index.still(known, &joined(self.prefix?, path.as_str()), stamp).map(|s| s.sha256)
    }
}

/// Folder and name of a key.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('/').unwrap_or(("", key))
}

fn joined(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// The entries of a folder and of those below it.
fn below<'a, T>(map: &'a BTreeMap<String, T>, prefix: &str) -> impl Iterator<Item = (&'a String, &'a T)> {
    let inside = format!("{prefix}/");
    let whole = prefix.is_empty();
    let own = map.get_key_value(prefix).filter(|_| !whole);
    let start = if whole { Bound::Unbounded } else { Bound::Included(inside.clone()) };
    let rest = map.range::<String, _>((start, Bound::Unbounded));
    // Below the root is everything that is relative.
    own.into_iter().chain(
        rest.take_while(move |(k, _)| whole || k.starts_with(&inside))
            .filter(move |(k, _)| !whole || !k.starts_with('/')),
    )
}

fn read(file: &Path) -> Option<Content> {
    let bytes = fs_err::read(file).ok()?;
    let rest = bytes.strip_prefix(HEAD)?;
    let (sum, body) = rest.split_first_chunk::<32>()?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    postcard::from_bytes(body).ok()
}
