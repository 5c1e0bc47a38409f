//! Objects that come in pieces, in any order, over several processes.
//!
//! `partial/DIGEST` holds the bytes, `partial/DIGEST.journal` says what of it is there. The journal is text: a line with the
//! format's name, a line of the writer's own (where the bytes come from), then a line `FROM TO` for each piece, `TO` being the first
//! byte behind it. Lines are only added, each after its bytes were written. Without such lines the file has been written from its
//! start to its end. A journal that can't be so means that the file is begun anew; one that lies is found out by the object's
//! digest, which decides in any case.

use crate::error::StoreError;
use crate::hash;
use crate::put::ObjectWriter;
use crate::session::Session;
use crate::sys::{Stamp, Temp};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use trainlock_types::Digest;

/// The folder of what was written in part.
pub(crate) const PARTIAL: &str = "partial";

const FORMAT: &str = "trainlock partial 1";

/// A link there would lead elsewhere.
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Pieces of a file: the first byte of each, and the one behind its last. They neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pieces(BTreeMap<u64, u64>);

impl Pieces {
    pub(crate) fn add(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..=to).next_back().filter(|(_, end)| **end >= from) {
            self.0.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        self.0.insert(from, to);
    }

    /// Takes the piece that begins at or before this byte; the byte behind it.
    fn take_from(&mut self, at: u64) -> Option<u64> {
        let (&from, &to) = self.0.first_key_value().filter(|(from, _)| **from <= at)?;
        self.0.remove(&from);
        Some(to)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.iter().map(|(from, to)| to - from).sum()
    }
}

/// The journal of a partial file.
#[derive(Debug)]
pub(crate) struct Journal {
    temp: Temp,
    file: Option<File>,
    note: Option<String>,
    /// Whether pieces are written down: since the first that did not follow the others.
    pieces: bool,
}

impl Journal {
    /// Of the file of this size. None of its bytes count if it can't be read.
    fn read(path: PathBuf, size: u64) -> Result<(Journal, Option<Pieces>), StoreError> {
        let text = match fs_err::read(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        let mut journal = Journal { temp: Temp::staying(path), file: None, note: None, pieces: false };
        let mut whole = Pieces::default();
        whole.add(0, size);
        let Some(text) = text else { return Ok((journal, Some(whole))) };
        match parse(&text, size) {
            None => {
                journal.forget()?;
                Ok((journal, None))
            }
            Some((note, pieces)) => {
                let path = journal.temp.path();
                let file = fs_err::OpenOptions::new().append(true).custom_flags(NOFOLLOW).open(path);
                let file = file.map_err(|e| StoreError::io("write", path, e))?.into_parts().0;
                (journal.file, journal.note, journal.pieces) = (Some(file), Some(note), !pieces.0.is_empty());
                Ok((journal, Some(if pieces.0.is_empty() { whole } else { pieces })))
            }
        }
    }

    fn forget(&mut self) -> Result<(), StoreError> {
        (self.file, self.note, self.pieces) = (None, None, false);
        match fs_err::remove_file(self.temp.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", self.temp.path(), error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    /// Nothing of it stays.
    pub(crate) fn give_up(&mut self) {
        self.temp.give_up();
    }
}

fn parse(text: &[u8], size: u64) -> Option<(String, Pieces)> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n');
    if lines.next()? != FORMAT {
        return None;
    }
    let note = lines.next()?.to_owned();
    let mut pieces = Pieces::default();
    for line in lines {
        let (from, to) = line.split_once(' ')?;
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        if from >= to || to > size {
            return None;
        }
        pieces.add(from, to);
    }
    Some((note, pieces))
}

impl Session {
    /// Goes on with an object where an earlier writer of it stopped, in this process or another: what is there from the start on
    /// is hashed again, and counts as written. `key` is its digest, or of what else names it. Dropped, it leaves what
    /// it has; `gc` removes that when it is a week old. There is one such writer at a time: while there is another, this is one that
    /// begins anew and leaves nothing.
    pub fn resumed_writer(&self, key: &Digest) -> Result<ObjectWriter, StoreError> {
        let folder = self.store().root().join(PARTIAL);
        fs_err::create_dir_all(&folder).map_err(|e| StoreError::io("create", &folder, e))?;
        let path = folder.join(key.to_hex());
        let failed = |e| StoreError::io("write", &path, e);
        let mut options = fs_err::OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).custom_flags(NOFOLLOW);
        let file = match options.open(&path) {
            // It had its object's mode already when its writer was ended.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fs_err::remove_file(&path).map_err(failed)?;
                options.open(&path)
            }
            other => other,
        }
        .map_err(failed)?
        .into_parts()
        .0;
        // Held until the file is closed, which is after it was moved to its place.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return self.writer();
        }
        // Who waited for nothing may still have opened what has become an object since: that is no longer to be written to.
        let (own, there) = (Stamp::fd(&file), Stamp::of(&path));
        let size = match (own, there) {
            (Ok(own), Ok(there)) if (own.dev, own.ino) == (there.dev, there.ino) => own.size,
            _ => return self.writer(),
        };
        let (journal, pieces) = Journal::read(folder.join(format!("{key}.journal", key = key.to_hex())), size)?;
        let mut writer = ObjectWriter::new(self.room.clone(), file, Temp::staying(path), Some(journal));
        match pieces {
            Some(pieces) => {
                writer.ahead = pieces;
                writer.catch_up(|_| {})?;
            }
            None => writer.file.set_len(0).map_err(|e| StoreError::io("write", writer.temp.path(), e))?,
        }
        Ok(writer)
    }

    /// Whether an earlier [`Session::resumed_writer`] left anything of this name.
    pub fn has_partial(&self, key: &Digest) -> bool {
        Stamp::of(&self.store().root().join(PARTIAL).join(key.to_hex())).is_ok_and(|stamp| stamp.size > 0)
    }
}

impl ObjectWriter {
    /// What an earlier writer has noted of where the bytes come from.
    pub fn note(&self) -> Option<&str> {
        self.journal.as_ref()?.note.as_deref()
    }

    /// Notes, in one line, where the bytes come from, for a writer that goes on with them.
    pub fn set_note(&mut self, note: impl FnOnce() -> String) -> Result<(), StoreError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let note = note();
        if journal.note.as_deref() == Some(&note) && journal.file.is_some() {
            return Ok(());
        }
        let mut text = format!("{FORMAT}\n{}\n", note.replace('\n', " "));
        if journal.pieces {
            for (from, to) in std::iter::once((0, self.written)).filter(|(_, to)| *to > 0).chain(self.ahead.iter()) {
                text.push_str(&format!("{from} {to}\n"));
            }
        }
        let failed = |e| StoreError::io("write", journal.path(), e);
        let temp = Temp::new(self.room.temporary());
        fs_err::write(temp.path(), text).map_err(failed)?;
        let file = fs_err::OpenOptions::new().append(true).open(temp.path()).map_err(failed)?;
        fs_err::rename(temp.path(), journal.path()).map_err(failed)?;
        temp.keep();
        (journal.file, journal.note) = (Some(file.into_parts().0), Some(note));
        Ok(())
    }

    /// Writes bytes at a place behind what was written so far; they count as written once all before them is.
    /// What was noted of where they come from has to be set before.
    pub fn write_ahead(&mut self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(journal) = &mut self.journal
            && !journal.pieces
        {
            journal.pieces = true;
            if self.written > 0 {
                self.jot(0, self.written)?;
            }
        }
        self.file.write_all_at(bytes, at).map_err(|e| match StoreError::io("write", self.temp.path(), e) {
            StoreError::Full { free, .. } => {
                let path = self.room.store.root().to_owned();
                StoreError::Full { path, needed: self.lacking().max(bytes.len() as u64), free }
            }
            other => other,
        })?;
        let to = at + bytes.len() as u64;
        self.jot(at, to)?;
        self.wrote(bytes.len());
        self.ahead.add(at, to);
        Ok(())
    }

    /// The pieces that are there: the first byte of each, and the one behind its last.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        std::iter::once((0, self.written)).filter(|(_, to)| *to > 0).chain(self.ahead.iter())
    }

    /// Reads what was written so far, from the first byte on.
    pub fn read_back(&self, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut buffer = vec![0; hash::CHUNK];
        let mut at = 0;
        while at < self.written {
            let want = usize::try_from(self.written - at).unwrap_or(hash::CHUNK).min(hash::CHUNK);
            let read = self.file.read_exact_at(&mut buffer[..want], at);
            read.map_err(|e| StoreError::io("read", self.temp.path(), e))?;
            each(&buffer[..want]);
            at += want as u64;
        }
        Ok(())
    }

    /// Counts as written, and hashes, what was written ahead and has all before it now; each part of it goes through `each` too.
    pub fn catch_up(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        while let Some(to) = self.ahead.take_from(self.written) {
            buffer.resize(hash::CHUNK, 0);
            while self.written < to {
                let want = usize::try_from(to - self.written).unwrap_or(hash::CHUNK).min(hash::CHUNK);
                self.file
                    .read_exact_at(&mut buffer[..want], self.written)
                    .map_err(|e| StoreError::io("read", self.temp.path(), e))?;
                self.count(&buffer[..want]);
                each(&buffer[..want]);
            }
        }
        Ok(())
    }

    /// Writes a piece into the journal, if pieces are written down.
    pub(crate) fn jot(&mut self, from: u64, to: u64) -> Result<(), StoreError> {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.pieces) else { return Ok(()) };
        let failed = |path: &Path, e| StoreError::io("write", path, e);
        match &mut journal.file {
            Some(file) => {
                file.write_all(format!("{from} {to}\n").as_bytes()).map_err(|e| failed(journal.temp.path(), e))
            }
            None => {
                Err(failed(journal.temp.path(), io::Error::other("nothing was noted of where the bytes come from")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_together() {
        let mut pieces = Pieces::default();
        for (from, to) in [(10, 20), (30, 40), (5, 5), (20, 25), (0, 3), (24, 31), (60, 70), (50, 80), (41, 42)] {
            pieces.add(from, to);
        }
        assert_eq!(pieces.iter().collect::<Vec<_>>(), [(0, 3), (10, 40), (41, 42), (50, 80)]);
        assert_eq!(pieces.bytes(), 64);
        assert_eq!((pieces.take_from(2), pieces.take_from(3), pieces.take_from(10)), (Some(3), None, Some(40)));
    }

    #[test]
    fn a_journal_that_cannot_be_so_is_none() {
        let good = b"trainlock partial 1\nfrom there\n0 10\n20 30\n";
        let (note, pieces) = parse(good, 30).unwrap();
        assert_eq!((note.as_str(), pieces.iter().collect::<Vec<_>>()), ("from there", vec![(0, 10), (20, 30)]));
        assert!(parse(b"trainlock partial 1\n\n", 5).is_some());
        assert!(parse(good, 29).is_none(), "behind the file's end");
        for end in [0, 5, 20, 25, 31, good.len() - 1] {
            let torn = parse(&good[..end], 30);
            assert!(torn.is_none_or(|(_, pieces)| pieces.0.is_empty()), "{end}");
        }
        for bad in ["10 0", "x 1", "1", "1 2 3", " 1 2", "1 2\u{0}"] {
            assert!(parse(format!("trainlock partial 1\nn\n{bad}\n").as_bytes(), 30).is_none(), "{bad}");
        }
    }
}
