//! Hashing files at the speed of the hash function.
//!
//! SHA-256 runs on one core a file. So several files are hashed at once, the biggest first, and a big
//! file is read by a second thread while the first one hashes, with a few small buffers between them.

use crate::error::HashError;
use crate::sys::{self, Stamp};
use rustix::fs::CWD;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use trainlock_types::{Digest, Hasher};

/// From this size on (bytes) a file is read by one thread and hashed by another.
pub(crate) const BIG: u64 = 8 << 20;

/// Bytes read at once: they stay in the processor's cache until they are hashed.
pub(crate) const CHUNK: usize = 256 << 10;

/// How many chunks are under way between the two threads.
const CHUNKS: usize = 4;

/// Hashes a regular file, which may not change meanwhile. Returns its digest and its size in bytes.
/// A symbolic link is not followed.
pub fn hash_file(path: &Path) -> Result<(Digest, u64), HashError> {
    let file = File::from(sys::open_file(CWD, path).map_err(|e| HashError::io(path, e))?);
    let before = Stamp::fd(&file).map_err(|e| HashError::io(path, e))?;
    if !before.is_file() {
        let found = before.kind().err().unwrap_or("no regular file");
        return Err(HashError::Kind { path: path.to_owned(), found });
    }
    let hashed = hash_fd(&file, before.size, &mut Vec::new()).map_err(|e| HashError::io(path, e))?;
    let after = Stamp::fd(&file).map_err(|e| HashError::io(path, e))?;
    if (before.size, before.mtime, hashed.1) != (after.size, after.mtime, after.size) {
        return Err(HashError::Changed { path: path.to_owned() });
    }
    Ok(hashed)
}

/// Hashes from the file's current position to its end. `size` is what the file system says of it;
/// `buffer` is kept by the caller from file to file.
pub(crate) fn hash_fd(file: &File, size: u64, buffer: &mut Vec<u8>) -> io::Result<(Digest, u64)> {
    if size >= BIG {
        return hash_overlapped(file);
    }
    let want = usize::try_from(size).unwrap_or(CHUNK).clamp(4096, CHUNK);
    if buffer.len() < want {
        buffer.resize(want, 0);
    }
    let (mut hasher, mut total) = (Hasher::new(), 0);
    loop {
        match read(file, buffer)? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
        }
        // The caller compares the size afterwards: the read that would find the end can be saved.
        if total == size {
            break;
        }
    }
    Ok((hasher.finish(), total))
}

fn hash_overlapped(file: &File) -> io::Result<(Digest, u64)> {
    let (full, filled) = mpsc::sync_channel::<io::Result<(Vec<u8>, usize)>>(CHUNKS);
    let (empty, emptied) = mpsc::sync_channel::<Vec<u8>>(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = empty.send(vec![0; CHUNK]);
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Either channel is closed only when the other side has stopped.
            while let Ok(mut buffer) = emptied.recv() {
                let sent = match read(file, &mut buffer) {
                    Ok(0) => break,
                    Ok(n) => full.send(Ok((buffer, n))),
                    Err(error) => full.send(Err(error)),
                };
                if sent.is_err() {
                    break;
                }
            }
        });
        let (mut hasher, mut total) = (Hasher::new(), 0);
        for chunk in filled {
            let (buffer, n) = chunk?;
            hasher.update(&buffer[..n]);
            total += n as u64;
            // The reader may be done.
            let _ = empty.send(buffer);
        }
        Ok((hasher.finish(), total))
    })
}

fn read(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
