//! Settling the sessions that ended without their final sync.
//!
//! A session's folder is `tmp/BOOT.PID.NONCE`; who can lock its lock file knows that the session is
//! over. If its marker is missing it put nothing in place, and the folder is rubbish. If the machine still runs
//! since then (the same boot id), the page cache holds everything that was put, and one sync of the
//! file system makes it durable. After a restart, what was put may be there by name and not by
//! content: everything whose inode changed since the session began (by ctime, which no program can set)
//! is hashed again. That is the promise of "sync before rename" for the price of one sync a session.

use crate::check;
use crate::error::StoreError;
use crate::lock::{self, Kind, LockGuard};
use crate::session::{LOCK, MARKER, Room};
use crate::store::{Store, children};
use crate::sys::{self, Stamp};
use std::path::Path;
use std::sync::Arc;

/// How much older than the session's beginning something put by it may seem: file times come from a
/// clock that ticks coarsely. In nanoseconds.
const TOLERANCE: i64 = 2_000_000_000;

/// What names this run of the machine; none where the system does not say.
pub(crate) fn boot_id() -> Option<String> {
    let text = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = text.trim();
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then(|| id.to_owned())
}

/// Whether a session's folder was made since this machine last started.
fn is_of_this_boot(dir: &Path, boot: Option<&str>) -> bool {
    let name = dir.file_name().and_then(|n| n.to_str());
    boot.is_some() && name.and_then(|n| n.split('.').next()) == boot
}

impl Store {
    /// Makes sure of what a power cut may have damaged, before anything in the store is relied on. Where there
    /// was none this only looks at one folder; beginning a session does it, too.
    pub fn settle(&self) -> Result<(), StoreError> {
        let boot = boot_id();
        if children(&self.root().join("tmp"))?.iter().any(|dir| !is_of_this_boot(dir, boot.as_deref())) {
            self.session()?.finish(false)?;
        }
        Ok(())
    }
}

/// Finds the sessions that are over, makes sure of what they put, and removes their folders.
pub(crate) fn settle(room: &Arc<Room>, boot: Option<&str>) -> Result<(), StoreError> {
    let tmp = room.store.root().join("tmp");
    let is_ours = |dir: &Path| is_of_this_boot(dir, boot);
    // Whoever comes while another process still hashes again must wait for it: until then, the store
    // may hold damaged objects.
    let mut others = None;
    if children(&tmp)?.iter().any(|dir| !is_ours(dir)) {
        others = Some(LockGuard::exclusive(&room.store.locks().join(".recover"), |_| {})?);
    }
    let mut over = Vec::new();
    let (mut needs_sync, mut since) = (false, None::<i64>);
    for dir in children(&tmp)? {
        // One that came after the look above is live, or of this boot.
        if !is_ours(&dir) && others.is_none() {
            continue;
        }
        let path = dir.join(LOCK);
        let lock = match lock::attempt(&path, Kind::Exclusive) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                // Without its lock file it is empty: nearly made, or nearly removed. Both cope with this.
                if matches!(Stamp::find(&path), Ok(None)) {
                    let _ = fs_err::remove_dir(&dir);
                }
                continue;
            }
            Err(StoreError::NoLocks { .. }) => return Ok(()),
            // Another user's: theirs to settle.
            Err(StoreError::NotWritable { .. }) => continue,
            Err(error) => return Err(error),
        };
        if Stamp::of(&dir.join(MARKER)).is_ok() {
            if is_ours(&dir) {
                needs_sync = true;
            } else {
                let began = Stamp::of(&path).map_err(|e| StoreError::io("read", &path, e))?.mtime - TOLERANCE;
                since = Some(since.map_or(began, |s| s.min(began)));
            }
        }
        over.push((dir, lock));
    }
    if let Some(since) = since {
        check::recheck_since(room, since)?;
    }
    if needs_sync || since.is_some() {
        room.sync()?;
    }
    for (dir, _lock) in over {
        // What stays is tried again by the next session.
        let _ = clear(&dir, false);
    }
    drop(others);
    Ok(())
}

/// Empties a session's folder, whose lock the caller holds; unless `stays`, the folder goes too. The lock
/// file goes last, so that a folder without one is empty.
pub(crate) fn clear(dir: &Path, stays: bool) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::io("remove", dir, e);
    for path in children(dir)? {
        let name = path.file_name().unwrap_or_default();
        if name != LOCK && (name != MARKER || !stays) {
            sys::remove_all(&path).map_err(failed)?;
        }
    }
    if !stays {
        sys::ignore_missing(fs_err::remove_file(dir.join(LOCK))).map_err(failed)?;
        sys::ignore_missing(fs_err::remove_dir(dir)).map_err(failed)?;
    }
    Ok(())
}
