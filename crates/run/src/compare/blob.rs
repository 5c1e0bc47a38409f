//! Bytes that can be read at any place: a part of a file, of memory, or of what was unpacked.

use super::CompareError;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

/// What is unpacked up to this size stays in memory; more goes to an unnamed temporary file.
const IN_MEMORY: usize = 4 << 20;
/// Blocks in which two blobs are compared.
pub(super) const BLOCK: usize = 256 << 10;

/// A range of bytes that is never loaded as a whole.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    data: Data,
    start: u64,
    len: u64,
}

#[derive(Clone, Debug)]
enum Data {
    File(Arc<File>),
    Memory(Arc<Vec<u8>>),
}

impl Blob {
    pub(super) fn open(path: &Path) -> Result<Blob, CompareError> {
        let (file, path) = fs_err::File::open(path).map_err(CompareError::Read)?.into_parts();
        let len = file.metadata().map_err(|source| CompareError::Stat { path, source })?.len();
        Ok(Blob { data: Data::File(Arc::new(file)), start: 0, len })
    }

    pub(super) fn memory(bytes: Vec<u8>) -> Blob {
        let len = bytes.len() as u64;
        Blob { data: Data::Memory(Arc::new(bytes)), start: 0, len }
    }

    /// All that `input` gives, if that is at most `limit` bytes.
    pub(super) fn spool(input: &mut dyn Read, limit: u64) -> io::Result<Blob> {
        let mut memory = Vec::new();
        let mut file: Option<File> = None;
        let mut total = 0;
        let mut buffer = vec![0; BLOCK];
        loop {
            let n = read_some(input, &mut buffer)?;
            if n == 0 {
                break;
            }
            total += n as u64;
            if total > limit {
                return Err(too_much(limit));
            }
            if file.is_none() && memory.len() + n > IN_MEMORY {
                let mut spill = tempfile::tempfile()?;
                spill.write_all(&memory)?;
                memory = Vec::new();
                file = Some(spill);
            }
            match &mut file {
                Some(file) => file.write_all(&buffer[..n])?,
                None => memory.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(match file {
            Some(mut file) => {
                file.rewind()?;
                Blob { data: Data::File(Arc::new(file)), start: 0, len: total }
            }
            None => Blob::memory(memory),
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The part from `start`, `len` bytes long; none if it is not all there.
    pub(super) fn slice(&self, start: u64, len: u64) -> Option<Blob> {
        (start.checked_add(len)? <= self.len).then(|| Blob { data: self.data.clone(), start: self.start + start, len })
    }

    pub(super) fn from(&self, start: u64) -> Option<Blob> {
        self.slice(start, self.len.checked_sub(start)?)
    }

    /// Fills as much of `out` as there is from `at` on; says how much.
    pub(super) fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX).min(out.len());
        match &self.data {
            Data::Memory(bytes) => {
                let at = (self.start + at.min(self.len)) as usize;
                out[..left].copy_from_slice(&bytes[at..at + left]);
                Ok(left)
            }
            Data::File(file) => {
                let mut done = 0;
                while done < left {
                    match file.read_at(&mut out[done..left], self.start + at + done as u64) {
                        Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                        Ok(n) => done += n,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(left)
            }
        }
    }

    /// `len` bytes at `at`, or none where there are fewer.
    pub(super) fn bytes(&self, at: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let mut out = vec![0; len];
        self.read_at(at, &mut out)?;
        Ok(Some(out))
    }

    /// Up to `len` of the bytes at `at`.
    pub(super) fn some(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut out = vec![0; len.min(left)];
        self.read_at(at, &mut out)?;
        Ok(out)
    }

    /// Everything, if it is at most `limit` bytes.
    pub(super) fn all(&self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        match usize::try_from(self.len) {
            Ok(len) if len <= limit => self.bytes(0, len),
            _ => Ok(None),
        }
    }

    pub(super) fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), at: 0 }
    }
}

/// Reads a blob from its beginning.
pub(super) struct BlobReader {
    blob: Blob,
    at: u64,
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read_at(self.at, out)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn read_some(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads until `buffer` is full or the input ends.
pub(super) fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match read_some(input, &mut buffer[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// What is said of data that unpacks to more than is accepted.
fn too_much(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it unpacks to more than {limit} bytes"))
}

/// Where two inputs differ first (also where one of them ends); more than `limit` bytes are an error.
pub(super) fn first_difference(a: &mut dyn Read, b: &mut dyn Read, limit: u64) -> io::Result<Option<u64>> {
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    loop {
        let n = read_full(a, &mut left)?;
        let m = read_full(b, &mut right)?;
        if left[..n] != right[..m] {
            let same = left[..n].iter().zip(&right[..m]).take_while(|(a, b)| a == b).count();
            return Ok(Some(at + same as u64));
        }
        at += n as u64;
        if at > limit {
            return Err(too_much(limit));
        }
        if n < BLOCK {
            return Ok(None);
        }
    }
}

/// Where two blobs differ first; none if they are the same.
pub(super) fn difference(a: &Blob, b: &Blob) -> io::Result<Option<u64>> {
    first_difference(&mut a.reader(), &mut b.reader(), u64::MAX)
}

/// Whether two blobs are the same; only as much is read as that needs.
pub(super) fn same(a: &Blob, b: &Blob) -> io::Result<bool> {
    Ok(a.len == b.len && difference(a, b)?.is_none())
}
