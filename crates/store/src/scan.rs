//! Walking a folder with all cores, and hashing what is in it.
//!
//! Folders are opened once and their files looked at relative to them, in the order of their inodes, which is the
//! order they lie in on a disk. Small files are hashed as they are met, big ones afterwards, the biggest first.

use crate::error::HashError;
use crate::hash::{self, BIG};
use crate::put::unshare;
use crate::session::Room;
use crate::sys::{self, Stamp};
use rustix::fs::{AtFlags, CWD, Dir, FileType};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use trainlock_types::{Digest, EntryKind, RelPath};

/// A folder with more files than this is shared out between the threads, in parts of this many.
const PART: usize = 512;

/// How often a file that changes while it is read is read again.
const TRIES: usize = 3;

/// A file or link that was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: RelPath,
    pub(crate) sha256: Digest,
    pub(crate) size: u64,
    pub(crate) kind: EntryKind,
    pub(crate) stamp: Stamp,
    /// When the hashing began (nanoseconds since 1970); none if the digest was known.
    pub(crate) hashed_at: Option<i64>,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Files and links, sorted by path.
    pub(crate) files: Vec<Found>,
    /// Folders, the scanned one not among them, sorted by path.
    pub(crate) folders: Vec<RelPath>,
}

/// What is known of files from before.
pub(crate) trait Known: Sync {
    /// What is known of one folder.
    type Folder<'a>
    where
        Self: 'a;
    /// Looks a folder up.
    fn folder(&self, folder: &RelPath) -> Self::Folder<'_>;
    /// The digest of a file in it, if that is known for a file with this stamp.
    fn digest(&self, folder: &Self::Folder<'_>, path: &RelPath, stamp: &Stamp) -> Option<Digest>;
}

/// Nothing is known: everything is hashed.
pub(crate) struct Nothing;

impl Known for Nothing {
    type Folder<'a> = ();
    fn folder(&self, _: &RelPath) {}
    fn digest(&self, _: &(), _: &RelPath, _: &Stamp) -> Option<Digest> {
        None
    }
}

/// Walks the folder. `keep` says of each path (files and folders, relative to `root`) whether it counts; what
/// is in a folder that does not count is not looked at. With `seal`, files get the store's time and mode
/// while they are hashed, and those with other hard links are replaced by copies.
pub(crate) fn scan<K: Known>(
    root: &Path,
    keep: &(dyn Fn(&RelPath) -> bool + Sync),
    known: &K,
    seal: Option<&Room>,
) -> Result<Scanned, HashError> {
    let scan = Scan {
        root,
        fd: open_folder(CWD, root, true, seal.is_some()).map_err(|e| HashError::io(root, e))?,
        keep,
        known,
        seal,
        state: Mutex::new(State { tasks: vec![Task::Folder(RelPath::root())], working: 0, error: None }),
        wake: Condvar::new(),
    };
    // Most folders are small, and a thread costs more than looking at one.
    let mut first = Local::default();
    let task = scan.next();
    if let Some(task) = task {
        let result = scan.run(task, &mut first);
        scan.done(result);
    }
    let mut locals = vec![first];
    if !scan.lock().tasks.is_empty() {
        let threads = sys::cores().min(8);
        locals.extend(std::thread::scope(|scope| {
            let scan = &scan;
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(|| scan.work())).collect();
            let mut locals = vec![scan.work()];
            locals
                .extend(workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))));
            locals
        }));
    }
    if let Some(error) = scan.lock().error.take() {
        return Err(error);
    }
    let mut scanned = Scanned::default();
    let mut big = Vec::new();
    for mut local in locals {
        scanned.files.append(&mut local.found);
        scanned.folders.append(&mut local.folders);
        big.append(&mut local.big);
    }
    scanned.files.extend(scan.hash_big(big)?);
    scanned.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    scanned.folders.sort_unstable();
    Ok(scanned)
}

struct Scan<'a, K> {
    root: &'a Path,
    fd: OwnedFd,
    keep: &'a (dyn Fn(&RelPath) -> bool + Sync),
    known: &'a K,
    seal: Option<&'a Room>,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    tasks: Vec<Task>,
    working: usize,
    error: Option<HashError>,
}

enum Task {
    Folder(RelPath),
    Part(Arc<OwnedFd>, RelPath, Vec<Name>),
}

struct Name {
    ino: u64,
    name: CString,
    path: RelPath,
}

/// What one thread found.
#[derive(Default)]
struct Local {
    found: Vec<Found>,
    folders: Vec<RelPath>,
    big: Vec<(RelPath, Stamp)>,
    buffer: Vec<u8>,
}

impl<K: Known> Scan<'_, K> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The next task; none when there is nothing left to do, or something failed.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.error.is_some() {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.working += 1;
                return Some(task);
            }
            if state.working == 0 {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn done(&self, result: Result<(), HashError>) {
        let mut state = self.lock();
        state.working -= 1;
        if let Err(error) = result {
            // The first path in order, of those that failed, so that the message does not depend on the threads.
            if state.error.as_ref().is_none_or(|first| error.path() < first.path()) {
                state.error = Some(error);
            }
        }
        if state.working == 0 || state.error.is_some() {
            self.wake.notify_all();
        }
    }

    fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        self.lock().tasks.extend(tasks);
        self.wake.notify_all();
    }

    fn work(&self) -> Local {
        let mut local = Local::default();
        while let Some(task) = self.next() {
            // A panic must not leave the others waiting for this thread.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(task, &mut local)));
            match result {
                Ok(result) => self.done(result),
                Err(panic) => {
                    self.done(Err(HashError::Changed { path: self.root.to_owned() }));
                    std::panic::resume_unwind(panic);
                }
            }
        }
        local
    }

    fn path(&self, path: &RelPath) -> PathBuf {
        path.on(self.root)
    }

    fn run(&self, task: Task, local: &mut Local) -> Result<(), HashError> {
        match task {
            Task::Folder(folder) => self.folder(folder, local),
            Task::Part(fd, folder, names) => self.files(&fd, &folder, names, local),
        }
    }

    fn folder(&self, folder: RelPath, local: &mut Local) -> Result<(), HashError> {
        let failed = |e: Errno| HashError::io(self.path(&folder), e);
        let fd = if folder.is_root() {
            open_folder(&self.fd, Path::new("."), false, self.seal.is_some())
        } else {
            open_folder(&self.fd, Path::new(folder.as_str()), false, self.seal.is_some())
        };
        let fd = fd.map_err(failed)?;
        let (mut names, mut folders) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = self.child(&folder, name)?;
            if !(self.keep)(&path) {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                folders.push(path);
            } else {
                names.push(Name { ino: entry.ino(), name: name.to_owned(), path });
            }
        }
        local.folders.extend(folders.iter().cloned());
        if !folders.is_empty() {
            self.push(folders.into_iter().map(Task::Folder));
        }
        names.sort_unstable_by_key(|n| n.ino);
        if names.len() <= 2 * PART {
            return self.files(&fd, &folder, names, local);
        }
        let fd = Arc::new(fd);
        let mut parts = Vec::new();
        while !names.is_empty() {
            let rest = names.split_off(names.len().min(PART));
            parts.push(Task::Part(fd.clone(), folder.clone(), std::mem::replace(&mut names, rest)));
        }
        // The last one in is the first one out.
        parts.reverse();
        self.push(parts);
        Ok(())
    }

    fn child(&self, folder: &RelPath, name: &CStr) -> Result<RelPath, HashError> {
        let path = || self.path(folder).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let Ok(name) = name.to_str() else {
            return Err(HashError::Name { path: path(), source: None });
        };
        let text = if folder.is_root() { name.to_owned() } else { format!("{folder}/{name}") };
        RelPath::parse(&text).map_err(|e| HashError::Name { path: path(), source: Some(e) })
    }

    fn files(&self, fd: &OwnedFd, folder: &RelPath, names: Vec<Name>, local: &mut Local) -> Result<(), HashError> {
        let known = self.known.folder(folder);
        for Name { name, path, .. } in names {
            let failed = |e: Errno| HashError::io(self.path(&path), e);
            let stamp = match Stamp::at(fd, &*name) {
                // Gone since the folder was read: as if it had been before.
                Err(Errno::NOENT) if self.seal.is_none() => continue,
                other => other.map_err(failed)?,
            };
            match stamp.kind() {
                Ok(EntryKind::Symlink) => {
                    let found = self.link(fd, &name, path, stamp)?;
                    local.found.push(found);
                }
                Ok(kind) => {
                    if let Some(sha256) = self.known.digest(&known, &path, &stamp) {
                        local.found.push(Found { path, sha256, size: stamp.size, kind, stamp, hashed_at: None });
                    } else if stamp.size >= BIG {
                        local.big.push((path, stamp));
                    } else {
                        let found = self.hash(fd, &name, path, stamp, &mut local.buffer)?;
                        local.found.push(found);
                    }
                }
                // The file system did not say so when the folder was read.
                Err(_) if stamp.is_dir() => {
                    local.folders.push(path.clone());
                    self.push([Task::Folder(path)]);
                }
                Err(found) => {
                    return Err(HashError::Kind { path: self.path(&path), found });
                }
            }
        }
        Ok(())
    }

    fn link(&self, fd: &OwnedFd, name: &CStr, path: RelPath, stamp: Stamp) -> Result<Found, HashError> {
        let failed = |e: Errno| HashError::io(self.path(&path), e);
        let target = rustix::fs::readlinkat(fd, name, Vec::new()).map_err(failed)?;
        if !link_stays_inside(&path, target.to_bytes()) {
            let target = target.to_string_lossy().into_owned();
            return Err(HashError::Link { path: self.path(&path), target });
        }
        if self.seal.is_some() {
            rustix::fs::utimensat(fd, name, &sys::fixed_times(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        let bytes = target.to_bytes();
        let (sha256, size) = (Digest::of(bytes), bytes.len() as u64);
        Ok(Found { path, sha256, size, kind: EntryKind::Symlink, stamp, hashed_at: None })
    }

    fn hash(
        &self,
        fd: impl AsFd,
        name: &CStr,
        path: RelPath,
        stamp: Stamp,
        buffer: &mut Vec<u8>,
    ) -> Result<Found, HashError> {
        match self.seal {
            Some(room) => seal(room, fd, name, stamp, buffer),
            None => hash_quiet(fd, name, stamp, buffer),
        }
        .map_err(|error| error.on(self.path(&path)))
        .map(|hashed| Found {
            path,
            sha256: hashed.sha256,
            size: hashed.stamp.size,
            // What it is does not change by being sealed.
            kind: stamp.kind().unwrap_or(EntryKind::File),
            stamp: hashed.stamp,
            hashed_at: Some(hashed.at),
        })
    }

    fn hash_big(&self, files: Vec<(RelPath, Stamp)>) -> Result<Vec<Found>, HashError> {
        biggest_first(
            files,
            |(_, stamp)| stamp.size,
            |(path, stamp), buffer| {
                let name = CString::new(path.as_str()).map_err(|_| HashError::io(self.path(&path), Errno::INVAL))?;
                self.hash(&self.fd, &name, path, stamp, buffer)
            },
        )
    }
}

/// Runs `work` on all items with all cores, the biggest first.
pub(crate) fn biggest_first<T: Send, U: Send, E: Send>(
    mut items: Vec<T>,
    size: impl Fn(&T) -> u64,
    work: impl Fn(T, &mut Vec<u8>) -> Result<U, E> + Sync,
) -> Result<Vec<U>, E> {
    items.sort_by_key(|item| std::cmp::Reverse(size(item)));
    let total: u64 = items.iter().map(&size).sum();
    // Below this (bytes, files), starting a thread takes longer than what it could do.
    let threads =
        if items.len() < 2 || (items.len() < 64 && total < 1 << 20) { 1 } else { sys::cores().min(items.len()) };
    let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let next = AtomicUsize::new(0);
    let run = || -> Result<Vec<U>, E> {
        let (mut done, mut buffer) = (Vec::new(), Vec::new());
        while let Some(slot) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let item = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            match item.map(|item| work(item, &mut buffer)) {
                Some(Ok(result)) => done.push(result),
                Some(Err(error)) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
                None => {}
            }
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut all = run();
        for worker in workers {
            let results = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all = all.and_then(|mut all| {
                all.append(&mut results?);
                Ok(all)
            });
        }
        all
    })
}

/// A file's digest, its stamp when it was done, and when it was begun (nanoseconds since 1970).
pub(crate) struct Hashed {
    pub(crate) sha256: Digest,
    pub(crate) stamp: Stamp,
    pub(crate) at: i64,
}

/// An error of one file, before its path is known.
pub(crate) enum FileFailed {
    Io(std::io::Error),
    Kind(&'static str),
    Changed,
}

impl FileFailed {
    pub(crate) fn on(self, path: PathBuf) -> HashError {
        match self {
            FileFailed::Io(source) => HashError::Io { path, source },
            FileFailed::Kind(found) => HashError::Kind { path, found },
            FileFailed::Changed => HashError::Changed { path },
        }
    }
}

impl From<Errno> for FileFailed {
    fn from(error: Errno) -> FileFailed {
        FileFailed::Io(error.into())
    }
}

impl From<std::io::Error> for FileFailed {
    fn from(error: std::io::Error) -> FileFailed {
        FileFailed::Io(error)
    }
}

/// Hashes a file that nobody wrote to meanwhile: what its stamp was before, it must be after.
pub(crate) fn hash_quiet(
    fd: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    mut before: Stamp,
    buffer: &mut Vec<u8>,
) -> Result<Hashed, FileFailed> {
    for _ in 0..TRIES {
        let at = sys::now();
        let file = File::from(sys::open_file(fd.as_fd(), name)?);
        let (sha256, size) = hash::hash_fd(&file, before.size, buffer)?;
        let stamp = Stamp::fd(&file)?;
        // The change time may move without the content: when a hard link comes or goes, for instance.
        if (before.ino, before.mtime, size) == (stamp.ino, stamp.mtime, stamp.size) {
            return Ok(Hashed { sha256, stamp, at });
        }
        before = stamp;
        if let Err(found) = before.kind() {
            return Err(FileFailed::Kind(found));
        }
    }
    Err(FileFailed::Changed)
}

/// Hashes a file and gives it the store's time and mode.
fn seal(room: &Room, fd: impl AsFd, name: &CStr, stamp: Stamp, buffer: &mut Vec<u8>) -> Result<Hashed, FileFailed> {
    let exec = stamp.mode & 0o100 != 0;
    if stamp.mode & 0o400 == 0 {
        rustix::fs::chmodat(fd.as_fd(), name, sys::mode(0o600), AtFlags::empty())?;
    }
    let at = sys::now();
    let mut file = File::from(sys::open_file(fd.as_fd(), name)?);
    // Another name of the same file could be written to; another user's file cannot be given a time.
    if stamp.links > 1 || rustix::fs::futimens(&file, &sys::fixed_times()).is_err() {
        file = unshare(room, &file, fd.as_fd(), name)?;
        rustix::fs::futimens(&file, &sys::fixed_times())?;
    }
    let (sha256, size) = hash::hash_fd(&file, stamp.size, buffer)?;
    rustix::fs::fchmod(&file, sys::mode(sys::mode_bits(exec)))?;
    // The time was set first, so that whatever wrote while this read shows.
    let after = Stamp::fd(&file)?;
    if !after.is_untouched(exec) || after.size != size {
        return Err(FileFailed::Changed);
    }
    Ok(Hashed { sha256, stamp: after, at })
}

/// Opens a folder; `seal` gives its owner the rights to it that a step may have taken away.
fn open_folder(at: impl AsFd, path: &Path, follow: bool, seal: bool) -> Result<OwnedFd, Errno> {
    let fd = match sys::open_dir(at.as_fd(), path, follow) {
        Err(Errno::ACCESS) if seal => {
            rustix::fs::chmodat(at.as_fd(), path, sys::mode(0o700), AtFlags::empty())?;
            sys::open_dir(at.as_fd(), path, follow)?
        }
        other => other?,
    };
    if seal {
        rustix::fs::fchmod(&fd, sys::mode(0o755))?;
    }
    Ok(fd)
}

/// Whether a link at `path` can only lead to what is below the folder that paths are relative to: it goes
/// up first, not above that folder, and only then down. (Going up after going down would be up from wherever
/// another link leads.)
pub(crate) fn link_stays_inside(path: &RelPath, target: &[u8]) -> bool {
    let mut above = path.as_str().matches('/').count();
    let mut down = false;
    if target.is_empty() || target[0] == b'/' || target.contains(&0) {
        return false;
    }
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if down || above == 0 => return false,
            b".." => above -= 1,
            _ => down = true,
        }
    }
    true
}
