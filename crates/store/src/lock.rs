//! File locks: `flock` on files that may be deleted while nobody holds them.

use crate::error::StoreError;
use crate::sys::{self, Stamp};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

/// Held until it is dropped (or the process ends, however it ends).
#[derive(Debug)]
#[must_use = "the lock is held until this is dropped"]
pub struct LockGuard {
    _file: Option<File>,
}

/// How often a lock that may be given up is tried.
const POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// How often the folder of a lock may be removed by others while the lock's file is made.
const REMOVED: usize = 100;

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Shared,
    Exclusive,
}

impl LockGuard {
    /// Takes a lock for one holder, whose process id then stands in the file. On a file system
    /// without locks there is nothing to hold: work may be done twice, never wrongly.
    pub(crate) fn exclusive(path: &Path, on_wait: impl FnOnce(Option<u32>)) -> Result<LockGuard, StoreError> {
        match wait(path, Kind::Exclusive, on_wait) {
            Ok(mut file) => {
                let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                written.map_err(|e| StoreError::io("write", path, e))?;
                Ok(LockGuard { _file: Some(file) })
            }
            Err(StoreError::NoLocks { .. }) => Ok(LockGuard { _file: None }),
            Err(error) => Err(error),
        }
    }
}

impl LockGuard {
    /// As [`LockGuard::exclusive`], but gives up when `stopped` says so, which is asked several times a second
    /// while another holds the lock; none then.
    pub(crate) fn exclusive_unless(
        path: &Path,
        on_wait: impl FnOnce(Option<u32>),
        stopped: impl Fn() -> bool,
    ) -> Result<Option<LockGuard>, StoreError> {
        let mut on_wait = Some(on_wait);
        loop {
            let mut file = open(path, true)?.ok_or_else(|| StoreError::io("create", path, Errno::NOENT))?;
            match lock(&file, path, Kind::Exclusive, false) {
                Ok(true) if still_there(&file, path) => {
                    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                    written.map_err(|e| StoreError::io("write", path, e))?;
                    return Ok(Some(LockGuard { _file: Some(file) }));
                }
                Ok(true) => continue,
                Ok(false) => {}
                Err(StoreError::NoLocks { .. }) => return Ok(Some(LockGuard { _file: None })),
                Err(error) => return Err(error),
            }
            if stopped() {
                return Ok(None);
            }
            match on_wait.take() {
                Some(tell) => tell(holder(&mut file)),
                // A blocking flock can't be given up, and its end can't be waited for beside anything else.
                None => std::thread::sleep(POLL),
            }
        }
    }
}

/// Takes the lock, waiting for who holds it; `on_wait` gets the holder's process id where it is known.
pub(crate) fn wait(path: &Path, kind: Kind, on_wait: impl FnOnce(Option<u32>)) -> Result<File, StoreError> {
    let mut on_wait = Some(on_wait);
    loop {
        let mut file = open(path, true)?.ok_or_else(|| StoreError::io("create", path, Errno::NOENT))?;
        if !lock(&file, path, kind, false)? {
            if let Some(tell) = on_wait.take() {
                tell(holder(&mut file));
            }
            lock(&file, path, kind, true)?;
        }
        if still_there(&file, path) {
            return Ok(file);
        }
    }
}

/// Takes the lock if nobody holds it and the file exists.
pub(crate) fn attempt(path: &Path, kind: Kind) -> Result<Option<File>, StoreError> {
    let Some(file) = open(path, false)? else {
        return Ok(None);
    };
    let free = lock(&file, path, kind, false)? && still_there(&file, path);
    Ok(free.then_some(file))
}

fn open(path: &Path, create: bool) -> Result<Option<File>, StoreError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | if create { OFlags::CREATE } else { OFlags::empty() };
    let open = || rustix::fs::open(path, flags, Mode::from_raw_mode(0o666));
    let mut opened = if create { sys::with_parent(path, open) } else { open().map_err(Into::into) };
    // Each that looks for sessions that are over may remove the folder again, as long as there is no file in it.
    for _ in 0..REMOVED {
        match opened {
            Err(ref error) if create && error.kind() == std::io::ErrorKind::NotFound => {
                opened = sys::with_parent(path, open);
            }
            _ => break,
        }
    }
    match opened {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(error) if !create && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("open", path, error)),
    }
}

/// Whether the lock was got.
fn lock(file: &File, path: &Path, kind: Kind, blocking: bool) -> Result<bool, StoreError> {
    let operation = match (kind, blocking) {
        (Kind::Shared, true) => FlockOperation::LockShared,
        (Kind::Shared, false) => FlockOperation::NonBlockingLockShared,
        (Kind::Exclusive, true) => FlockOperation::LockExclusive,
        (Kind::Exclusive, false) => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        return match flock(file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error @ (Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                Err(StoreError::NoLocks { path: path.to_owned(), source: error.into() })
            }
            Err(error) => Err(StoreError::io("lock", path, error)),
        };
    }
}

/// A lock on a file that was deleted meanwhile excludes nobody.
fn still_there(file: &File, path: &Path) -> bool {
    match (Stamp::fd(file), Stamp::of(path)) {
        (Ok(held), Ok(named)) => (held.dev, held.ino) == (named.dev, named.ino),
        _ => false,
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
