//! Putting files into the store: written and hashed in one go, or taken from a work folder.

use crate::error::{HashError, PutError, StoreError, free};
use crate::flush::Flush;
use crate::hash;
use crate::partial::{Journal, Pieces};
use crate::session::{Room, Session};
use crate::store::{self, result_content, result_file};
use crate::sys::{self, Stamp, Temp};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use trainlock_types::{Digest, Hashed, Hasher};

/// For fewer bytes nobody asks first whether there is space for them: the write itself tells.
const SMALL: u64 = 1 << 20;

/// Writes an object, in its order (and ahead of it, by [`ObjectWriter::write_ahead`]): hashes what is written, and puts it in place only when it is what was expected.
/// Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct ObjectWriter {
    pub(crate) room: Arc<Room>,
    pub(crate) temp: Temp,
    pub(crate) file: File,
    hasher: Hashing,
    pub(crate) written: u64,
    /// What is there behind a gap.
    pub(crate) ahead: Pieces,
    expected: Option<u64>,
    /// Of one that another process may go on with.
    pub(crate) journal: Option<Journal>,
    pub(crate) flush: Option<Flush>,
}

/// A hasher has no `Debug`, and what it holds is of no interest.
struct Hashing(Hasher);

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Session {
    /// Begins an object. The writer may go to another thread, and needs no reference to the session.
    pub fn writer(&self) -> Result<ObjectWriter, StoreError> {
        let (file, temp) = self.temporary_file()?;
        Ok(ObjectWriter::new(self.room.clone(), file, temp, None))
    }

    /// Puts bytes from memory as an object.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let hashed = Hashed::of(bytes);
        self.put(&hashed)?;
        Ok(hashed.sha256())
    }

    /// Puts bytes from memory that are hashed already.
    pub fn put<B: AsRef<[u8]>>(&self, hashed: &Hashed<B>) -> Result<(), StoreError> {
        let (mut file, temp) = self.temporary_file()?;
        let (root, bytes) = (self.store().root(), hashed.bytes());
        let failed = |e| StoreError::io("write", temp.path(), e);
        file.write_all(bytes)
            .map_err(|e| StoreError::from_write(write_error(root, bytes.len() as u64, e)).unwrap_or_else(failed))?;
        store::repair(&file, false).map_err(|e| failed(e.into()))?;
        if self.room.install(temp.path(), &hashed.sha256(), bytes.len() as u64, false)? {
            temp.keep();
        }
        Ok(())
    }

    /// A file for an object of which nothing is there.
    fn temporary_file(&self) -> Result<(File, Temp), StoreError> {
        let temp = Temp::new(self.room.temporary());
        let mut options = fs_err::File::options();
        options.read(true).write(true).create_new(true).mode(sys::mode_bits(false));
        let file = options.open(temp.path()).map_err(|e| StoreError::io("create", temp.path(), e))?;
        Ok((file.into_parts().0, temp))
    }

    /// Takes a file (a step's output) as an object: hashes it, gives it the store's mode and time, and
    /// moves it into place. The path is gone afterwards. A file that is on another file system, that is
    /// another user's or that has other hard links is copied instead. Links, folders and devices are refused.
    pub fn take_file(&self, path: &Path, exec: bool) -> Result<(Digest, u64), PutError> {
        let failed = |e: Errno| HashError::io(path, e);
        let stamp = Stamp::of(path).map_err(failed)?;
        match stamp.kind() {
            Ok(trainlock_types::EntryKind::Symlink) => {
                return Err(HashError::Kind { path: path.to_owned(), found: "a link" }.into());
            }
            Err(found) => {
                return Err(HashError::Kind { path: path.to_owned(), found }.into());
            }
            Ok(_) => {}
        }
        if stamp.mode & 0o400 == 0 {
            // A failure shows when it is opened.
            let _ = rustix::fs::chmod(path, sys::mode(0o600));
        }
        let file = File::from(sys::open_file(CWD, path).map_err(failed)?);
        let mut taken = None;
        if stamp.links == 1 && rustix::fs::futimens(&file, &sys::fixed_times()).is_ok() {
            let (sha256, size) =
                hash::hash_fd(&file, stamp.size, &mut Vec::new()).map_err(|e| HashError::io(path, e))?;
            rustix::fs::fchmod(&file, sys::mode(sys::mode_bits(exec))).map_err(failed)?;
            // The time was set first, so that whatever wrote while this read shows.
            let after = Stamp::fd(&file).map_err(failed)?;
            if !after.is_untouched(exec) || after.size != size {
                return Err(HashError::Changed { path: path.to_owned() }.into());
            }
            match self.room.install(path, &sha256, size, exec) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => {}
                other => taken = Some(other.map(|_| (sha256, size))?),
            }
        }
        let taken = match taken {
            Some(taken) => taken,
            None => self.copy_in(file, path, exec)?,
        };
        sys::remove_all(path).map_err(|e| StoreError::io("remove", path, e))?;
        Ok(taken)
    }

    fn copy_in(&self, mut file: File, path: &Path, exec: bool) -> Result<(Digest, u64), PutError> {
        io::Seek::rewind(&mut file).map_err(|e| HashError::io(path, e))?;
        let mut writer = self.writer()?;
        writer.take_all(&mut file).map_err(|e| match e {
            PutError::Read(source) => HashError::io(path, source).into(),
            other => other,
        })?;
        let size = writer.written;
        store::repair(&writer.file, exec).map_err(|e| StoreError::io("write", writer.temp.path(), e))?;
        let sha256 = writer.hasher.0.finish();
        self.room.install(writer.temp.path(), &sha256, size, exec)?;
        Ok((sha256, size))
    }

    /// Keeps bytes under a step's key, with a checksum of their own. If valid bytes stand there already,
    /// those stay.
    pub fn put_result(&self, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let (room, target) = (&self.room, self.store().result_path(key));
        let failed = |e: io::Error| StoreError::io("write", &target, e);
        let temp = self.result_to_place(&target, bytes)?;
        let plain = || rustix::fs::rename(temp.path(), &target);
        let only_new = || match rustix::fs::renameat_with(CWD, temp.path(), CWD, &target, RenameFlags::NOREPLACE) {
            // The file system cannot do that; then the last one wins, which is as valid.
            Err(Errno::INVAL | Errno::NOSYS) => plain(),
            other => other,
        };
        match room.put_in_place(&target, only_new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _lock = self.store().repair_lock()?;
                match fs_err::read(&target) {
                    Ok(there) if result_content(&there).is_some() => Ok(()),
                    _ => room.put_in_place(&target, plain).map_err(failed),
                }
            }
            other => other.map_err(failed),
        }
    }

    /// The same for what names something of the store that may have gone: what stands there is replaced.
    pub fn replace_result(&self, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.store().result_path(key);
        let temp = self.result_to_place(&target, bytes)?;
        let put = self.room.put_in_place(&target, || rustix::fs::rename(temp.path(), &target));
        put.map_err(|e| StoreError::io("write", &target, e))
    }

    /// A result's file, written and to be moved to its place.
    fn result_to_place(&self, target: &Path, bytes: &[u8]) -> Result<Temp, StoreError> {
        let temp = Temp::new(self.room.temporary());
        let content = result_file(bytes);
        fs_err::write(temp.path(), &content).map_err(|e| match StoreError::io("write", target, e) {
            StoreError::Full { path, free, .. } => StoreError::Full { path, free, needed: content.len() as u64 },
            other => other,
        })?;
        Ok(temp)
    }
}

impl ObjectWriter {
    pub(crate) fn new(room: Arc<Room>, file: File, temp: Temp, journal: Option<Journal>) -> ObjectWriter {
        let (hasher, ahead) = (Hashing(Hasher::new()), Pieces::default());
        ObjectWriter { room, temp, file, hasher, written: 0, ahead, expected: None, journal, flush: None }
    }

    /// These bytes are the next ones, and in the file.
    pub(crate) fn count(&mut self, bytes: &[u8]) {
        self.hasher.0.update(bytes);
        self.written += bytes.len() as u64;
    }

    /// So many bytes are in the file now that were not.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        if let Some(flush) = &mut self.flush {
            flush.wrote(self.temp.path(), bytes as u64);
        }
    }

    /// Bytes that are still to come, as far as is known.
    pub(crate) fn lacking(&self) -> u64 {
        self.expected.unwrap_or(0).saturating_sub(self.written + self.ahead.bytes())
    }

    /// Says how many bytes are to come in all, so that a file system without the space for them is found out
    /// now and not at its last byte.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        self.expected = Some(bytes);
        self.flush = Flush::of(bytes).filter(|_| self.room.is_awaited());
        if bytes < SMALL {
            return Ok(());
        }
        let free = free(self.temp.path());
        let needed = self.lacking();
        if free < needed {
            return Err(StoreError::Full { path: self.room.store.root().to_owned(), needed, free });
        }
        Ok(())
    }

    /// What was written is of no use: nothing of it stays, also of one that could be gone on with.
    pub fn give_up(mut self) {
        self.leave_nothing();
    }

    fn leave_nothing(&mut self) {
        self.temp.give_up();
        if let Some(journal) = &mut self.journal {
            journal.give_up();
        }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Puts the object in place if it is what was expected (its digest and, where known, its size in
    /// bytes). Otherwise nothing is kept.
    pub fn finish(mut self, expect: Option<(Digest, Option<u64>)>) -> Result<(Digest, u64), PutError> {
        let size = self.written;
        if let Some((_, end)) = self.ahead.iter().last() {
            self.leave_nothing();
            return Err(PutError::Size { expected: end, found: size });
        }
        if let Some((sha256, expected)) = expect {
            let found = self.hasher.0.clone().finish();
            match expected {
                Some(expected) if expected != size => {
                    self.leave_nothing();
                    return Err(PutError::Size { expected, found: size });
                }
                _ if found != sha256 => {
                    self.leave_nothing();
                    return Err(PutError::Sha256 { expected: sha256, found, size });
                }
                _ => {}
            }
        }
        Ok((self.put(size)?, size))
    }

    fn put(mut self, size: u64) -> Result<Digest, StoreError> {
        let sha256 = self.hasher.0.clone().finish();
        store::repair(&self.file, false).map_err(|e| StoreError::io("write", self.temp.path(), e))?;
        if self.room.install(self.temp.path(), &sha256, size, false)? {
            self.temp.keep();
            if let Some(journal) = &mut self.journal {
                journal.give_up();
            }
        } else {
            self.leave_nothing();
        }
        Ok(sha256)
    }

    /// Writes all that a reader has.
    fn take_all(&mut self, from: &mut dyn io::Read) -> Result<(), PutError> {
        let mut buffer = vec![0; hash::CHUNK];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.write_all(&buffer[..n]).map_err(|e| {
                    StoreError::from_write(e).unwrap_or_else(|e| StoreError::io("write", self.temp.path(), e))
                })?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PutError::Read(error)),
            }
        }
    }
}

/// Errors hold a [`StoreError`] (see [`StoreError::from_write`]) that says which path had no space and
/// how many bytes were missing.
impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write_at(bytes, self.written) {
            Ok(n) => {
                let from = self.written;
                self.count(&bytes[..n]);
                self.jot(from, self.written).map_err(io::Error::other)?;
                self.wrote(n);
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(write_error(self.room.store.root(), self.lacking().max(bytes.len() as u64), error)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error of a write of `needed` bytes, as a store error inside an IO error.
pub(crate) fn write_error(path: &Path, needed: u64, error: io::Error) -> io::Error {
    let kind = error.kind();
    let error = match StoreError::io("write", path, error) {
        StoreError::Full { path, free, .. } => StoreError::Full { path, needed, free },
        other => other,
    };
    io::Error::new(kind, error)
}

impl Room {
    /// Moves a hashed file to its name. Where the store has it already, which is false, that one stays, so that hard links
    /// to it remain the same file, and `from` stays where it is, for the caller to remove.
    pub(crate) fn install(&self, from: &Path, sha256: &Digest, size: u64, exec: bool) -> Result<bool, StoreError> {
        let target = self.store.object_path(sha256, exec);
        let failed = |e: io::Error| StoreError::io("write", &target, e);
        let only_new = || rustix::fs::renameat_with(CWD, from, CWD, &target, RenameFlags::NOREPLACE);
        match self.put_in_place(&target, only_new) {
            Ok(()) => return Ok(true),
            Err(error) => match Errno::from_io_error(&error) {
                // The others say that the file system cannot do that.
                Some(Errno::EXIST | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                _ => return Err(failed(error)),
            },
        }
        let there = Stamp::find(&target).map_err(|e| failed(e.into()))?;
        let _repair = match there {
            Some(stamp) if stamp.is_untouched(exec) && stamp.size == size => return Ok(false),
            Some(_) => Some(self.store.repair_lock()?),
            None => None,
        };
        self.put_in_place(&target, || rustix::fs::rename(from, &target)).map_err(failed)?;
        Ok(true)
    }

    /// The file of an object with the wanted mode, made from the other one if there is only that.
    pub(crate) fn variant(&self, sha256: &Digest, exec: bool) -> Result<bool, StoreError> {
        let from = self.store.object_path(sha256, !exec);
        let target = self.store.object_path(sha256, exec);
        let failed = |e: io::Error| StoreError::io("write", &target, e);
        let Some(stamp) = Stamp::find(&from).map_err(|e| StoreError::io("read", &from, e))? else {
            return Ok(false);
        };
        if !stamp.is_untouched(!exec) && !self.store.recheck(&from, sha256, !exec)? {
            return Ok(false);
        }
        let mut source = File::from(sys::open_file(CWD, &from).map_err(|e| StoreError::io("read", &from, e))?);
        let temp = Temp::new(self.temporary());
        let mut copy = fs_err::File::create_new(temp.path()).map_err(failed)?.into_parts().0;
        let size = io::copy(&mut source, &mut copy).map_err(|e| {
            StoreError::from_write(write_error(self.store.root(), stamp.size, e)).unwrap_or_else(failed)
        })?;
        store::repair(&copy, exec).map_err(|e| failed(e.into()))?;
        self.install(temp.path(), sha256, size, exec)?;
        Ok(true)
    }
}

/// Copies a file that others may hold open or linked to a fresh one in the same place, and returns
/// what was copied.
pub(crate) fn unshare(
    room: &Room,
    file: &File,
    folder: impl std::os::fd::AsFd,
    name: &std::ffi::CStr,
) -> io::Result<File> {
    let temp = Temp::new(room.temporary());
    let mut copy = fs_err::File::options().read(true).write(true).create_new(true).open(temp.path())?.into_parts().0;
    io::copy(&mut &*file, &mut copy)?;
    io::Seek::rewind(&mut copy)?;
    rustix::fs::renameat(CWD, temp.path(), folder, name)?;
    Ok(copy)
}
