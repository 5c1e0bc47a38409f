//! Bringing objects and trees into other folders: by reflink, hard link or copy.

use crate::check;
use crate::error::StoreError;
use crate::hash;
use crate::put::write_error;
use crate::session::Session;
use crate::store::{self, Store, children};
use crate::sys::{self, Stamp, Temp};
use crate::tree::{folders_of, set_folder_times};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use trainlock_types::{Digest, Entry, EntryKind, Listing};

/// How files are brought out of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Link {
    /// Whatever works first: reflink, hard link, copy.
    #[default]
    Auto,
    /// A file of its own that shares the blocks until one of them is written to.
    Reflink,
    /// Another name of the store's file.
    Hardlink,
    /// A file of its own. Where the file system can do so, it shares blocks until one of them is written to.
    Copy,
}

/// A text that is no [`Link`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown way of linking `{0}`: use auto, reflink, hardlink or copy")]
pub struct UnknownLink(pub String);

impl FromStr for Link {
    type Err = UnknownLink;

    fn from_str(text: &str) -> Result<Link, UnknownLink> {
        match text {
            "auto" => Ok(Link::Auto),
            "reflink" => Ok(Link::Reflink),
            "hardlink" => Ok(Link::Hardlink),
            "copy" => Ok(Link::Copy),
            other => Err(UnknownLink(other.to_owned())),
        }
    }
}

/// How a file was brought out of the store. Of a tree, the greatest that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placed {
    /// Shares blocks; what is written to it does not reach the store.
    Reflink,
    /// A file of its own; what is written to it does not reach the store.
    Copy,
    /// Is the store's file: see [`Store::touched`].
    Hardlink,
}

/// The beginning of the names of what is being made beside its place.
const TEMPORARY: &str = ".trainlock-tmp.";

/// Where reflinks work, a file of up to so many bytes is rather copied: it is the project's own in either way, and a
/// reflink first waits for the store's file to reach the disk.
const SMALL: u64 = 16 << 10;

/// What was put a moment ago is rather hard-linked than reflinked, if it has fewer bytes than this: then to wait for the disk takes
/// most of the time. On other systems a reflink does not wait.
const FRESH: u64 = if cfg!(target_os = "linux") { LARGE } else { 0 };

/// From this size in bytes on, the kernel is asked to copy. Where it can share blocks, it first waits for the store's file
/// to reach the disk, which for many small files takes longer than to copy them.
const LARGE: u64 = 1 << 20;

/// How many bytes the kernel is asked to copy at once.
#[cfg(target_os = "linux")]
const KERNEL_COPY: usize = 1 << 30;

/// How many files one thread takes at once.
const PART: usize = 256;

/// Places an object at `dest`, read-only and with the store's fixed time, with the folders above it made
/// where they are missing. What stands there (a folder, too) is replaced by a rename, when the new
/// one is complete. Errors: the object is missing or damaged; the wanted way does not work.
pub fn place_file(store: &Store, sha256: &Digest, exec: bool, dest: &Path, link: Link) -> Result<Placed, StoreError> {
    place_object(store, sha256, exec, dest, link, false)
}

/// The same for an object of so many bytes that was put a moment ago, when most of it is not on the disk yet. A reflink waits until
/// it is, a hard link does not: below 1 MiB [`Link::Auto`] then makes that, where it can.
pub fn place_fresh(store: &Store, sha256: &Digest, size: u64, dest: &Path, link: Link) -> Result<Placed, StoreError> {
    let quick = link == Link::Auto && size < FRESH;
    // What it is does not have to be looked at again. What is in the way, or else wrong, shows below.
    let linked = || rustix::fs::linkat(CWD, store.object_path(sha256, false), CWD, dest, AtFlags::empty());
    match (quick || link == Link::Hardlink) && linked().is_ok() {
        true => Ok(Placed::Hardlink),
        false => place_object(store, sha256, false, dest, link, quick),
    }
}

/// `quick`: rather by hard link, whatever else works.
fn place_object(
    store: &Store,
    sha256: &Digest,
    exec: bool,
    dest: &Path,
    link: Link,
    quick: bool,
) -> Result<Placed, StoreError> {
    let (from, size) = object_file(store, sha256, exec)?;
    let (parent, name) = split(dest)?;
    let folder = match sys::open_dir(CWD, parent, true) {
        Err(Errno::NOENT) => {
            fs_err::create_dir_all(parent).map_err(|e| StoreError::outside("create", parent, e))?;
            sys::open_dir(CWD, parent, true)
        }
        other => other,
    };
    if let Err(Errno::NOTDIR) = folder {
        let file = parent.ancestors().filter(|path| fs_err::metadata(path).is_ok_and(|there| !there.is_dir())).last();
        return Err(StoreError::io("put anything into", file.unwrap_or(parent), Errno::NOTDIR));
    }
    let folder = folder.map_err(|e| StoreError::io("read", parent, e))?;
    let device = Stamp::fd(&folder).map_err(|e| StoreError::io("read", parent, e))?.dev;
    let is_there = || {
        let (there, object) = (Stamp::at(&folder, name), Stamp::of(&from));
        there.is_ok_and(|t| object.is_ok_and(|o| (o.dev, o.ino) == (t.dev, t.ino)))
    };
    if quick || link == Link::Hardlink || link == Link::Auto && store.reflinks(device) == Some(false) {
        // A hard link appears at once, so that nothing need be made beside it where nothing is in the way.
        match rustix::fs::linkat(CWD, &from, &folder, name, AtFlags::empty()) {
            Ok(()) => return Ok(Placed::Hardlink),
            Err(Errno::EXIST) if is_there() => return Ok(Placed::Hardlink),
            // What else is wrong shows below, where the other ways are tried.
            Err(_) => {}
        }
    } else if link == Link::Auto && is_there() {
        return Ok(Placed::Hardlink);
    }
    sweep(store, parent);
    let mut tries = 3;
    loop {
        let temp = Temp::new(temporary(parent, name));
        let made = temp.path().file_name().unwrap_or(name);
        let to = Target { folder: folder.as_fd(), device, name: made, path: temp.path(), guarded: true };
        let object = Object { folder: CWD, name: &from, path: &from, size, exec };
        let linked = quick.then(|| place(store, object, to, Link::Hardlink)).and_then(Result::ok);
        let (placed, _guard) = linked.map_or_else(|| place(store, object, to, link), Ok)?;
        tries -= 1;
        // Of two names in the open folder none has to be looked up from the root.
        if rustix::fs::renameat(&folder, made, &folder, name).is_ok() {
            // Of two names of one file that are renamed to each other both stay: then this one goes now.
            if placed != Placed::Hardlink {
                temp.keep();
            }
            return Ok(placed);
        }
        match swap_in(temp, dest) {
            // A hard link can't be guarded from who looks for leftovers.
            Err(StoreError::Io { source, .. })
                if placed == Placed::Hardlink && source.kind() == io::ErrorKind::NotFound && tries > 0 => {}
            done => return done.map(|()| placed),
        }
    }
}

/// Places a tree at `dest` as [`place_file`] does an object, its folders with the store's time too. A tree that
/// is found to be damaged is removed from the store, which is an error, and `dest` stays as it was.
pub fn place_tree(store: &Store, digest: &Digest, dest: &Path, link: Link) -> Result<Placed, StoreError> {
    let folder = store.tree(digest).ok_or(StoreError::Missing(*digest))?;
    let listing = match store.listing(digest)? {
        Some(listing) => listing,
        None => {
            // The tree itself can tell what it holds.
            let good = store.distrust(digest)?;
            store.listing(digest)?.filter(|_| good).ok_or(StoreError::Missing(*digest))?
        }
    };
    let (parent, name) = split(dest)?;
    fs_err::create_dir_all(parent).map_err(|e| StoreError::outside("create", parent, e))?;
    sweep(store, parent);
    let temp = Temp::new(temporary(parent, name));
    let make = || -> io::Result<OwnedFd> {
        loop {
            fs_err::create_dir(temp.path())?;
            match sys::open_dir(CWD, temp.path(), false) {
                Err(Errno::NOENT) => {}
                opened => return Ok(opened?),
            }
        }
    };
    let _held = guard(CWD, temp.path(), make).map_err(|e| StoreError::outside("create", temp.path(), e))?;
    let placed = match lay_out(store, &[(&listing, Source::Tree(&folder))], temp.path(), link, false) {
        Err(StoreError::Damaged { path }) => {
            // Only touched, and now repaired, or damaged, and now removed.
            if !store.distrust(digest)? {
                return Err(StoreError::Damaged { path });
            }
            for path in children(temp.path())? {
                sys::remove_all(&path).map_err(|e| StoreError::io("remove", &path, e))?;
            }
            lay_out(store, &[(&listing, Source::Tree(&folder))], temp.path(), link, false)?
        }
        other => other?,
    };
    swap_in(temp, dest)?;
    Ok(placed)
}

/// Places one file or link of a tree at `dest`, in a folder that exists, where nothing stands yet.
pub fn place_part(store: &Store, tree: &Digest, entry: &Entry, dest: &Path, link: Link) -> Result<(), StoreError> {
    let folder = store.tree(tree).ok_or(StoreError::Missing(*tree))?;
    let from = entry.path.on(&folder);
    let (parent, name) = split(dest)?;
    let to = sys::open_dir(CWD, parent, true).map_err(|e| StoreError::io("read", parent, e))?;
    if entry.kind == EntryKind::Symlink {
        let target = fs_err::read_link(&from).map_err(|e| StoreError::io("read", &from, e))?;
        return rustix::fs::symlinkat(&target, &to, name).map_err(|e| StoreError::outside("create", dest, e));
    }
    let device = Stamp::fd(&to).map_err(|e| StoreError::io("read", parent, e))?.dev;
    let target = Target { folder: to.as_fd(), device, name, path: dest, guarded: false };
    let exec = entry.kind == EntryKind::Executable;
    let object = Object { folder: CWD, name: &from, path: &from, size: entry.size, exec };
    place(store, object, target, link).map(drop)
}

impl Store {
    /// The files of an object or tree in the store that were written to since they were put
    /// there; also those that are missing from a tree. Looks at times and sizes only, and sets modes right. What is placed by
    /// hard link is the store's file, so that this finds a step that wrote to its input.
    pub fn touched(&self, digest: &Digest) -> Result<Vec<PathBuf>, StoreError> {
        let mut touched = Vec::new();
        for exec in [false, true] {
            let path = self.object_path(digest, exec);
            match Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e))? {
                Some(stamp) if !sys::is_whole(CWD, &path, &stamp, exec) => touched.push(path),
                _ => {}
            }
        }
        let Some(tree) = self.tree(digest) else {
            return Ok(touched);
        };
        let Some(listing) = self.listing(digest)? else {
            return Ok(vec![tree]);
        };
        let root = sys::open_dir(CWD, &tree, false).map_err(|e| StoreError::io("read", &tree, e))?;
        for entry in listing.entries().iter().filter(|e| e.kind != EntryKind::Symlink) {
            let exec = entry.kind == EntryKind::Executable;
            match Stamp::at(&root, entry.path.as_str()) {
                Ok(stamp)
                    if stamp.size == entry.size && sys::is_whole(&root, entry.path.as_str().as_ref(), &stamp, exec) => {
                }
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => touched.push(entry.path.on(&tree)),
                Err(error) => return Err(StoreError::io("read", entry.path.on(&tree), error)),
            }
        }
        Ok(touched)
    }

    /// Hashes an object or tree again. What has only another time or mode gets its own back; what is damaged is
    /// removed. Returns false if something was damaged.
    pub fn distrust(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut good = true;
        for exec in [false, true] {
            let path = self.object_path(digest, exec);
            if Stamp::of(&path).is_ok() {
                good &= self.recheck(&path, digest, exec)?;
            }
        }
        if self.has_tree(digest) {
            let session = Session::begin(self, |_| {})?;
            good &= check::check_tree(&session.room, digest)?.is_empty();
            session.finish(true)?;
        }
        Ok(good)
    }
}

/// Where the files of a listing are taken from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// This folder.
    Tree(&'a Path),
    /// The store's objects.
    Objects,
}

/// Fills an empty folder with what listings name that have no path in common, with two or more threads. `fall_back`: copies where
/// the wanted way does not work.
pub(crate) fn lay_out(
    store: &Store,
    listings: &[(&Listing, Source<'_>)],
    to: &Path,
    link: Link,
    fall_back: bool,
) -> Result<Placed, StoreError> {
    let root = sys::open_dir(CWD, to, false).map_err(|e| StoreError::io("read", to, e))?;
    let folders: BTreeSet<&str> = listings.iter().flat_map(|(listing, _)| folders_of(listing)).collect();
    for folder in &folders {
        match rustix::fs::mkdirat(&root, *folder, Mode::from_raw_mode(0o755)) {
            // Of what was laid out before.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(StoreError::outside("create", to.join(folder), error)),
        }
    }
    let mut by_folder: BTreeMap<(usize, &str), Vec<&Entry>> = BTreeMap::new();
    for (i, (listing, _)) in listings.iter().enumerate() {
        for entry in listing.entries() {
            let folder = entry.path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
            by_folder.entry((i, folder)).or_default().push(entry);
        }
    }
    let mut parts: Vec<(Source<'_>, &str, &[&Entry])> = Vec::new();
    for ((i, folder), entries) in &by_folder {
        parts.extend(entries.chunks(PART).map(|part| (listings[*i].1, *folder, part)));
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Placed, StoreError> {
        let mut placed = Placed::Reflink;
        while let Some((from, folder, entries)) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = lay_out_folder(store, entries, folder, *from, (&root, to), link, fall_back);
            if done.is_err() {
                next.store(parts.len(), Ordering::Relaxed);
            }
            placed = placed.max(done?);
        }
        Ok(placed)
    };
    let threads = sys::cores().min(8).min(parts.len());
    let placed = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut placed = work();
        for worker in workers {
            let other = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            placed = placed.and_then(|p| Ok(p.max(other?)));
        }
        placed
    })?;
    set_folder_times(&root, folders.iter().copied()).map_err(|e| StoreError::outside("write", to, e))?;
    Ok(placed)
}

fn lay_out_folder(
    store: &Store,
    entries: &[&Entry],
    folder: &str,
    from: Source<'_>,
    (root, to): (&OwnedFd, &Path),
    link: Link,
    fall_back: bool,
) -> Result<Placed, StoreError> {
    let here = if folder.is_empty() { "." } else { folder };
    let target = sys::open_dir(root, here, false).map_err(|e| StoreError::io("read", to.join(folder), e))?;
    let source = match from {
        Source::Tree(tree) => {
            let path = tree.join(folder);
            match sys::open_dir(CWD, &path, false) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return Err(StoreError::Damaged { path });
                }
                Err(error) => return Err(StoreError::io("read", path, error)),
            }
        }
        Source::Objects => None,
    };
    let device = Stamp::fd(&target).map_err(|e| StoreError::io("read", to.join(folder), e))?.dev;
    let mut placed = Placed::Reflink;
    for entry in entries {
        let exec = entry.kind == EntryKind::Executable;
        let name = entry.path.file_name();
        let (folder, object, path);
        let (source_fd, source_name) = match (&source, from) {
            (Some(fd), Source::Tree(tree)) => {
                folder = fd.as_fd();
                path = tree.join(entry.path.as_str());
                (folder, Path::new(name))
            }
            _ => {
                object = store.object_path(&entry.sha256, exec);
                path = object.clone();
                (CWD, object.as_path())
            }
        };
        let dest = to.join(entry.path.as_str());
        if entry.kind == EntryKind::Symlink {
            let text = match from {
                Source::Tree(_) => {
                    rustix::fs::readlinkat(source_fd, source_name, Vec::new()).map(|t| t.into_bytes()).ok()
                }
                Source::Objects => store.object(&entry.sha256, None)?.and_then(|p| fs_err::read(p).ok()),
            };
            let text = text.filter(|t| Digest::of(t) == entry.sha256).ok_or(StoreError::Damaged { path })?;
            if !crate::scan::link_stays_inside(&entry.path, &text) {
                return Err(StoreError::Damaged { path: dest });
            }
            rustix::fs::symlinkat(text.as_slice(), &target, name)
                .and_then(|()| rustix::fs::utimensat(&target, name, &sys::fixed_times(), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(|e| StoreError::outside("create", &dest, e))?;
            continue;
        }
        match Stamp::at(source_fd, source_name) {
            Ok(stamp) if stamp.size == entry.size && sys::is_whole(source_fd, source_name, &stamp, exec) => {}
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Err(StoreError::Damaged { path }),
            Err(error) => return Err(StoreError::io("read", path, error)),
        }
        let to = Target { folder: target.as_fd(), device, name: OsStr::new(name), path: &dest, guarded: false };
        let object = Object { folder: source_fd, name: source_name, path: &path, size: entry.size, exec };
        let done = match place(store, object, to, link) {
            Err(StoreError::Link { .. }) if fall_back => place(store, object, to, Link::Copy),
            other => other,
        };
        placed = placed.max(done?.0);
    }
    Ok(placed)
}

/// A file of the store: a name in an open folder, its whole path for messages, its size in bytes.
#[derive(Clone, Copy)]
struct Object<'a> {
    folder: BorrowedFd<'a>,
    name: &'a Path,
    path: &'a Path,
    size: u64,
    exec: bool,
}

/// Where a file is to be made: a name in an open folder, and its whole path for messages.
#[derive(Clone, Copy)]
struct Target<'a> {
    folder: BorrowedFd<'a>,
    /// The device of that folder.
    device: u64,
    name: &'a OsStr,
    path: &'a Path,
    /// Whether it is where others look for leftovers.
    guarded: bool,
}

/// Makes a file that does not exist yet; guarded, if it is to be, until what this returns is dropped.
fn place(store: &Store, from: Object<'_>, to: Target<'_>, link: Link) -> Result<(Placed, Option<File>), StoreError> {
    let failed = |link: &'static str, source: Errno| match source {
        Errno::NOSPC | Errno::DQUOT | Errno::ACCESS | Errno::ROFS => refused(to, source),
        _ => StoreError::Link { link, from: from.path.to_owned(), to: to.path.to_owned(), source: source.into() },
    };
    let auto = link == Link::Auto;
    if auto && store.reflinks(to.device) == Some(true) && from.size <= SMALL {
        return Ok((Placed::Copy, Some(copy(from, to)?)));
    }
    if link == Link::Reflink || auto && store.reflinks(to.device) != Some(false) {
        match reflink(from, to) {
            Ok(made) => {
                store.note_reflinks(to.device, true);
                return Ok((Placed::Reflink, Some(made)));
            }
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM) if auto => {
                store.note_reflinks(to.device, false)
            }
            Err(error) => return Err(failed("reflink", error)),
        }
    }
    if matches!(link, Link::Auto | Link::Hardlink) {
        match rustix::fs::linkat(from.folder, from.name, to.folder, to.name, AtFlags::empty()) {
            Ok(()) => return Ok((Placed::Hardlink, None)),
            Err(Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::PERM | Errno::NOSYS) if auto => {}
            Err(error) => return Err(failed("hard-link", error)),
        }
    }
    Ok((Placed::Copy, Some(copy(from, to)?)))
}

/// A file that does not exist yet, to be written to.
fn new_file(to: Target<'_>, exec: bool) -> Result<File, Errno> {
    let make = || rustix::fs::openat(to.folder, to.name, NEW_FILE, sys::mode(sys::mode_bits(exec)));
    Ok(File::from(if to.guarded { guard(to.folder, Path::new(to.name), make)? } else { make()? }))
}

/// Why there is no new file: what the folder does not allow, no name in it is to blame for.
fn refused(to: Target<'_>, error: Errno) -> StoreError {
    match (error, to.path.parent()) {
        (Errno::ACCESS | Errno::ROFS, Some(folder)) => StoreError::outside("put anything into", folder, error),
        _ => StoreError::outside("write", to.path, error),
    }
}

/// Makes something that has the name of a leftover, and is none as long as what this returns is open: who looks for leftovers
/// takes its lock first. It is made anew where that one was faster.
fn guard<E>(folder: impl AsFd, name: &Path, make: impl Fn() -> Result<OwnedFd, E>) -> Result<OwnedFd, E> {
    loop {
        let made = make()?;
        // Without locks nobody looks for leftovers.
        let _ = rustix::fs::flock(&made, FlockOperation::LockExclusive);
        let is = |stamp: Stamp| Stamp::fd(&made).is_ok_and(|made| (made.dev, made.ino) == (stamp.dev, stamp.ino));
        match Stamp::at(&folder, name) {
            Err(Errno::NOENT) => {}
            Ok(stamp) if !is(stamp) => {}
            _ => return Ok(made),
        }
    }
}

/// Makes a file that shares the blocks of another one.
fn reflink(from: Object<'_>, to: Target<'_>) -> Result<File, Errno> {
    let source = sys::open_file(from.folder, from.name)?;
    let copy = new_file(to, from.exec)?;
    let made = sys::share_blocks(source, &copy).and_then(|()| store::repair(&copy, from.exec));
    if made.is_err() {
        rustix::fs::unlinkat(to.folder, to.name, AtFlags::empty())?;
    }
    made.map(|()| copy)
}

thread_local! {
    /// What is copied goes through it: a new one for each file would cost more than the copying.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Makes a file of its own that holds the same.
fn copy(from: Object<'_>, to: Target<'_>) -> Result<File, StoreError> {
    let Object { path, size, .. } = from;
    let failed = |e: io::Error| StoreError::outside("write", to.path, e);
    let source = sys::open_file(from.folder, from.name).map_err(|e| StoreError::io("read", path, e))?;
    let mut source = File::from(source);
    let mut copy = new_file(to, from.exec).map_err(|e| refused(to, e))?;
    let mut written = if size >= LARGE { kernel_copy(&source, &copy) } else { 0 };
    let mut buffer = BUFFER.take();
    buffer.resize(hash::CHUNK, 0);
    let result = loop {
        // A file of the store does not grow.
        let read = if written == size { Ok(0) } else { source.read(&mut buffer) };
        match read {
            Ok(0) => break store::repair(&copy, from.exec).map_err(|e| failed(e.into())),
            Ok(n) => {
                if let Err(error) = copy.write_all(&buffer[..n]) {
                    let error = write_error(to.path, size - size.min(written), error);
                    break Err(StoreError::from_write(error).unwrap_or_else(failed));
                }
                written += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(StoreError::io("read", path, error)),
        }
    };
    BUFFER.set(buffer);
    if result.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(to.folder, to.name, AtFlags::empty());
    }
    result.map(|()| copy)
}

/// Lets the kernel copy as much as it can, and gives the bytes. It shares blocks where the file system can do so. What is left
/// (all, where it can't copy between these files) is to be read and written, from where both files now stand.
#[cfg(target_os = "linux")]
fn kernel_copy(from: &File, to: &File) -> u64 {
    let mut done = 0;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, KERNEL_COPY) {
            Ok(0) => break,
            Ok(n) => done += n as u64,
            Err(Errno::INTR) => {}
            // Whatever it is: reading and writing finds it again, and can say on which side.
            Err(_) => break,
        }
    }
    done
}

#[cfg(not(target_os = "linux"))]
fn kernel_copy(_: &File, _: &File) -> u64 {
    0
}

const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The store's file of an object with the wanted mode, good by time and mode or hashed again, and its size in bytes.
fn object_file(store: &Store, sha256: &Digest, exec: bool) -> Result<(PathBuf, u64), StoreError> {
    let path = store.object_path(sha256, exec);
    let find = || Stamp::find(&path).map_err(|e| StoreError::io("read", &path, e));
    let mut found = find()?;
    if found.is_none() {
        let session = Session::begin(store, |_| {})?;
        let made = session.room.variant(sha256, exec)?;
        session.finish(true)?;
        if !made {
            return Err(StoreError::Missing(*sha256));
        }
        found = find()?;
    }
    match found {
        None => Err(StoreError::Missing(*sha256)),
        Some(stamp) if sys::is_whole(CWD, &path, &stamp, exec) => Ok((path, stamp.size)),
        Some(stamp) if store.recheck(&path, sha256, exec)? => Ok((path, stamp.size)),
        Some(_) => Err(StoreError::Damaged { path }),
    }
}

/// The folder and the name of what is to be placed.
fn split(dest: &Path) -> Result<(&Path, &OsStr), StoreError> {
    match (dest.parent(), dest.file_name()) {
        (Some(parent), Some(name)) => Ok((if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, name)),
        _ => Err(StoreError::outside("replace", dest, Errno::INVAL)),
    }
}

fn temporary(parent: &Path, name: &OsStr) -> PathBuf {
    let mut file = OsString::from(TEMPORARY);
    // A file system has names of up to 255 bytes.
    file.push(if name.len() < 200 { name } else { OsStr::new("long") });
    file.push(format!(".{:016x}", sys::nonce()));
    parent.join(file)
}

/// Puts what was made beside it in place. A folder in the way, or a file where a folder comes, is moved aside
/// first and removed last. What is still beside it then goes: of two names of one file that are renamed to each other both stay.
fn swap_in(temp: Temp, dest: &Path) -> Result<(), StoreError> {
    let failed = |e: io::Error| StoreError::outside("replace", dest, e);
    let made = temp.path();
    match rustix::fs::rename(made, dest) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(failed(error.into())),
    }
    match rustix::fs::renameat_with(CWD, made, CWD, dest, RenameFlags::EXCHANGE) {
        Ok(()) => return Ok(()),
        // The file system cannot do that.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let (parent, name) = split(dest)?;
    let aside = Temp::new(temporary(parent, name));
    rustix::fs::rename(dest, aside.path()).map_err(|e| failed(e.into()))?;
    if let Err(error) = rustix::fs::rename(made, dest) {
        // Nothing is lost by this attempt.
        let _ = rustix::fs::rename(aside.path(), dest);
        return Err(failed(error.into()));
    }
    Ok(())
}

/// Removes what killed processes left half-made in a folder; looks once for each folder.
fn sweep(store: &Store, folder: &Path) {
    if store.first_sweep(folder) {
        remove_leftovers(folder);
    }
}

/// Rubbish that cannot be removed now hinders nobody, so that there are no errors.
fn remove_leftovers(folder: &Path) {
    for path in children(folder).unwrap_or_default() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if !name.starts_with(TEMPORARY) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(fd) = rustix::fs::open(&path, flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = sys::remove_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_unless_someone_works_on_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let folders = [".trainlock-tmp.dead.1", ".trainlock-tmp.live.2", "other"];
        for name in folders {
            fs_err::create_dir_all(path(name).join("inner")).unwrap();
        }
        fs_err::write(path(".trainlock-tmp.file.3"), "half").unwrap();
        let live = sys::open_dir(CWD, path(folders[1]), false).unwrap();
        rustix::fs::flock(&live, FlockOperation::LockExclusive).unwrap();
        remove_leftovers(dir.path());
        let mut left = children(dir.path()).unwrap();
        left.sort();
        assert_eq!(left, [path(folders[1]), path(folders[2])]);
    }
}
