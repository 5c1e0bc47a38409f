//! A session: a process that writes to the store, with a temporary folder and held locks.

use crate::error::StoreError;
use crate::lock::{self, Kind};
use crate::recover;
use crate::store::Store;
use crate::sys::{self, Temp};
use rustix::fs::CWD;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The lock file in a session's folder: held while the session lives, and as old as the session.
pub(crate) const LOCK: &str = "lock";

/// The file in a session's folder that says: this session put things in place.
pub(crate) const MARKER: &str = "put";

/// Writes to the store. Dropped without [`Session::finish`], everything put so far stays and is
/// made durable by the next session.
#[derive(Debug)]
pub struct Session {
    pub(crate) room: Arc<Room>,
}

/// What a session and its writers share; the last of them to go cleans up.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) store: Store,
    dir: PathBuf,
    count: AtomicU64,
    /// The store's folder, open since the session's begin: a sync reports the write errors since then.
    root: OwnedFd,
    /// Without locks or without a boot id nobody could settle this session later: it syncs each put.
    sync_each: bool,
    marked: Mutex<bool>,
    settled: AtomicBool,
    links_soon: AtomicBool,
    /// Whether the store's file system shares blocks, once somebody has tried.
    shares: OnceLock<bool>,
    _lock: Option<File>,
    _use_lock: Option<File>,
}

impl Session {
    pub(crate) fn begin(store: &Store, on_wait: impl FnOnce(Option<u32>)) -> Result<Session, StoreError> {
        match lock::wait(&store.use_lock(), Kind::Shared, on_wait) {
            Ok(lock) => Session::begin_with(store, Some(lock)),
            Err(StoreError::NoLocks { .. }) => Session::begin_with(store, None),
            Err(error) => Err(error),
        }
    }

    /// A session under a lock that keeps `gc` out (or that `gc` itself holds).
    pub(crate) fn begin_with(store: &Store, use_lock: Option<File>) -> Result<Session, StoreError> {
        let boot = recover::boot_id();
        let name = format!("{}.{}.{:016x}", boot.as_deref().unwrap_or("none"), std::process::id(), sys::nonce());
        let dir = store.root().join("tmp").join(name);
        fs_err::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        let lock = match lock::wait(&dir.join(LOCK), Kind::Exclusive, |_| {}) {
            Ok(lock) => Some(lock),
            Err(StoreError::NoLocks { .. }) => None,
            Err(error) => return Err(error),
        };
        let root = sys::open_dir(CWD, store.root(), true).map_err(|e| StoreError::io("read", store.root(), e))?;
        let room = Arc::new(Room {
            store: store.clone(),
            dir,
            count: AtomicU64::new(0),
            root,
            sync_each: lock.is_none() || boot.is_none(),
            marked: Mutex::new(false),
            settled: AtomicBool::new(false),
            links_soon: AtomicBool::new(false),
            shares: OnceLock::new(),
            _lock: lock,
            _use_lock: use_lock,
        });
        recover::settle(&room, boot.as_deref())?;
        Ok(Session { room })
    }

    /// The store that this writes to.
    pub fn store(&self) -> &Store {
        &self.room.store
    }

    /// A fresh, empty folder on the store's file system, removed with the session. `label` is part
    /// of its name, for people.
    pub fn work_dir(&self, label: &str) -> Result<PathBuf, StoreError> {
        let good = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' }
        };
        let label: String = label.chars().map(good).take(60).collect();
        let path = self.room.dir.join(format!("{label}.{}", self.room.next()));
        fs_err::create_dir(&path).map_err(|e| StoreError::io("create", &path, e))?;
        Ok(path)
    }

    /// Removes a work folder that has served, whatever modes its contents have.
    pub fn discard(&self, work: &Path) -> Result<(), StoreError> {
        sys::remove_all(work).map_err(|e| StoreError::io("remove", work, e))
    }

    /// Moves a work folder to where it survives the session, and returns its new place. `gc` removes
    /// it when it is a week old.
    pub fn keep(&self, work: &Path) -> Result<PathBuf, StoreError> {
        let failed = |e: io::Error| StoreError::io("keep", work, e);
        let name = work.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or("step");
        let target = self.store().root().join("failed").join(format!("{name}.{:08x}", sys::nonce() as u32));
        // Another parent changes the folder's `..`, which takes the right to write to it.
        fs_err::set_permissions(work, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        sys::rename_into(work, &target).map_err(failed)?;
        Ok(target)
    }

    /// Does now what the first put would have to wait for. Without need: whatever fails here fails then, too.
    pub fn prepare(&self) {
        let _ = self.room.mark();
    }

    /// Files that are written from now on will be placed as soon as they are put. A reflink waits until its file is on the disk:
    /// the disk begins while they come.
    pub fn links_soon(&self) {
        self.room.links_soon.store(true, Ordering::Relaxed);
    }

    /// Makes all that was put so far survive a power cut, by one sync of the store's file system.
    pub fn sync(&self) -> Result<(), StoreError> {
        let room = &self.room;
        if room.is_marked() {
            sys::sync_file_system(&room.root).map_err(|e| StoreError::io("sync", room.store.root(), e))?;
        }
        Ok(())
    }

    /// Ends the session. `durable`: one sync of the store's file system first, after which a power cut
    /// takes nothing of what was put. Otherwise the next session does that.
    pub fn finish(self, durable: bool) -> Result<(), StoreError> {
        if durable {
            self.sync()?;
            self.room.settled.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Room {
    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// A path in the session's folder that nothing has yet.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.dir.join(format!("t{}", self.next()))
    }

    /// Whether somebody will wait until what is written now is on the disk.
    pub(crate) fn is_awaited(&self) -> bool {
        self.links_soon.load(Ordering::Relaxed) && *self.shares.get_or_init(|| self.shares_blocks().is_ok())
    }

    /// An error unless the store's file system can let two files share blocks.
    fn shares_blocks(&self) -> io::Result<()> {
        let [from, to] = [(); 2].map(|()| Temp::new(self.temporary()));
        let from = fs_err::File::create_new(from.path())?;
        sys::share_blocks(from.file(), fs_err::File::create_new(to.path())?.file())?;
        Ok(())
    }

    fn is_marked(&self) -> bool {
        *self.marked.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes the session's marker, no less durable than what is put in place after it.
    fn mark(&self) -> io::Result<()> {
        let mut marked = self.marked.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !*marked && !self.sync_each {
            fs_err::File::create(self.dir.join(MARKER))?;
            if !sys::keeps_order(&self.root) {
                sys::sync_dir(&self.dir)?;
                sys::sync_dir(&self.store.root().join("tmp"))?;
            }
            *marked = true;
        }
        Ok(())
    }

    /// Moves something complete and hashed to its name in the store. No such move outlives a power cut without the session's
    /// marker, so that the next session knows what to hash again.
    pub(crate) fn put_in_place(&self, to: &Path, rename: impl Fn() -> Result<(), rustix::io::Errno>) -> io::Result<()> {
        if self.sync_each {
            sys::sync_file_system(&self.root)?;
        } else {
            self.mark()?;
        }
        sys::with_parent(to, rename)?;
        // A writer that outlives the session's end needs settling again.
        self.settled.store(false, Ordering::Release);
        if self.sync_each
            && let Some(parent) = to.parent()
        {
            sys::sync_dir(parent)?;
        }
        Ok(())
    }

    /// Makes everything on the store's file system durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        sys::sync_file_system(&self.root).map_err(|e| StoreError::io("sync", self.store.root(), e))
    }

    /// Takes a folder or file out of the store at once, and then removes it.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |e: io::Error| StoreError::io("remove", path, e);
        let temporary = self.temporary();
        sys::ignore_missing(fs_err::rename(path, &temporary)).map_err(failed)?;
        sys::remove_all(&temporary).map_err(failed)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let stays = self.is_marked() && !self.settled.load(Ordering::Acquire);
        // What cannot be removed now is removed by the next session, which finds nobody holds the lock.
        let _ = recover::clear(&self.dir, stays);
    }
}
