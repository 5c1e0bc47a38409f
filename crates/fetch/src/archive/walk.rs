//! One pass over an archive: decoding on a thread of its own, what is done with the members on the
//! caller's. Members and their bytes come over in batches, so that 20,000 small files do not cost
//! 20,000 wake-ups, and memory stays flat however large a member is.

use super::decode::Codec;
use super::error::{ArchiveError, shown};
use super::{tar, zip};
use fs_err::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// A batch is sent when it holds so many bytes or parts.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_PARTS: usize = 256;

/// So many batches may wait for the consumer.
const BATCHES_AHEAD: usize = 4;

/// What an archive says of one member, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The name as it stands in the archive.
    pub(crate) name: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// When it was written to last, in seconds since 1970; 0 where that is not known.
    pub(crate) time: u64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file of `size` bytes; `exec` if its owner may execute it.
    File { size: u64, exec: bool },
    /// A folder.
    Folder,
    /// A symbolic link, with what it holds.
    Symlink(Vec<u8>),
    /// Another name of a member that came before.
    HardLink(Vec<u8>),
    /// Something that is never unpacked, with its article.
    Special(&'static str),
}

impl Kind {
    /// The kind for people, with its article.
    pub(crate) const fn words(&self) -> &'static str {
        match self {
            Kind::File { .. } => "a file",
            Kind::Folder => "a folder",
            Kind::Symlink(_) => "a symbolic link",
            Kind::HardLink(_) => "a hard link",
            Kind::Special(words) => words,
        }
    }
}

/// Calls `visit` with each member of the archive, in the archive's order (a zip's: by place in the file).
/// Only members that `wants` says yes to come with their bytes. At most `limit` bytes are decoded.
///
/// # Errors
/// What `visit` returns, else what is wrong with the archive.
pub(crate) fn walk<E: From<ArchiveError>>(
    file: File,
    limit: u64,
    wants: impl Fn(&Member) -> bool + Send,
    mut visit: impl FnMut(Member, &mut Content) -> Result<(), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let producer = scope.spawn(move || {
            let mut feed = Feed { sender, batch: Batch::default(), wants: &wants, limit };
            let done = read(file, &mut feed);
            // Also before an error: what comes first in the archive is told first.
            feed.flush()?;
            done
        });
        let mut content = Content { receiver, batch: Batch::default(), part: 0, data: 0, at: 0, left: 0, cut: false };
        let visited = (|| {
            while let Some(member) = content.next_member()? {
                visit(member, &mut content)?;
                content.skip()?;
            }
            Ok(())
        })();
        let cut = content.cut;
        // A producer that still sends learns from this that nobody listens any more.
        drop(content);
        let produced = producer.join().unwrap_or_else(|_| Err(ArchiveError::corrupt("it confuses the decoder").into()));
        match (visited, produced) {
            (Err(error), _) if !cut => Err(error),
            (_, Err(Ended::Archive(error))) => Err(error.into()),
            (visited, _) => visited,
        }
    })
}

/// Finds out what the file is and reads it.
fn read(mut file: File, feed: &mut Feed<'_>) -> Result<(), Ended> {
    let mut head = [0; 512];
    let n = fill(&mut file, &mut head).map_err(ArchiveError::Read)?;
    let head = &head[..n];
    file.rewind().map_err(ArchiveError::Read)?;
    if zip::is_zip(head) {
        return zip::read(file, feed);
    }
    let Some(codec) = Codec::of(head) else {
        if let Some(what) = other(head) {
            return Err(ArchiveError::NotAnArchive(what).into());
        }
        return tar::read(BufReader::with_capacity(BATCH_BYTES, file), feed);
    };
    let packed = BufReader::with_capacity(BATCH_BYTES, file);
    let decoder = codec.decoder(packed).map_err(|e| ArchiveError::from_read(e, None))?;
    let mut bytes = Limited { inner: decoder, left: feed.limit };
    let mut first = [0; 512];
    let n = fill(&mut bytes, &mut first).map_err(|e| feed.read_error(e, None))?;
    if !tar::is_tar(&first[..n]) {
        return Err(ArchiveError::NotAnArchive(codec.single_file()).into());
    }
    tar::read(BufReader::with_capacity(BATCH_BYTES, first.as_slice().chain(bytes)), feed)
}

/// What a file is that is neither compressed nor a tar.
fn other(head: &[u8]) -> Option<&'static str> {
    match head {
        [] => Some("an empty file"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Some("a 7z file"),
        [b'R', b'a', b'r', b'!', ..] => Some("a rar file"),
        _ if tar::is_tar(head) => None,
        _ => Some("something else (tar, tar.gz, tar.zst, tar.xz, tar.bz2 and zip are)"),
    }
}

/// Reads until `out` is full or the end is reached; the number of bytes read.
pub(crate) fn fill(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < out.len() {
        match input.read(&mut out[n..]) {
            Ok(0) => break,
            Ok(m) => n += m,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}

/// Gives so many bytes and then an error, where a decompression bomb would go on.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.left = self.left.checked_sub(n as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(n)
    }
}

/// Why a producer ended early.
pub(crate) enum Ended {
    /// The archive is not as it should be.
    Archive(ArchiveError),
    /// The consumer has heard enough.
    Unheard,
}

impl From<ArchiveError> for Ended {
    fn from(error: ArchiveError) -> Ended {
        Ended::Archive(error)
    }
}

/// Members and bytes on their way.
#[derive(Default)]
struct Batch {
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

enum Part {
    Member(Member),
    Data(usize),
}

/// The producing side: what a format's reader gives its members to.
pub(crate) struct Feed<'a> {
    sender: SyncSender<Batch>,
    batch: Batch,
    wants: &'a (dyn Fn(&Member) -> bool + Send),
    /// How many bytes may be decoded in all.
    pub(crate) limit: u64,
}

impl Feed<'_> {
    /// Gives a member, and its bytes from `content` if they are wanted; whether they were.
    pub(crate) fn member(&mut self, member: Member, content: &mut dyn Read) -> Result<bool, Ended> {
        let Member { kind: Kind::File { size, exec }, time, .. } = member else {
            return self.push(Part::Member(member)).map(|()| false);
        };
        let wanted = (self.wants)(&member);
        let name = member.name.clone();
        if !wanted {
            // Told with no bytes, so that both sides agree on how many follow.
            let kind = Kind::File { size: 0, exec };
            return self.push(Part::Member(Member { name, kind, time })).map(|()| false);
        }
        self.push(Part::Member(member))?;
        let mut left = size;
        while left > 0 {
            if self.batch.bytes.capacity() == 0 {
                self.batch.bytes.reserve_exact(BATCH_BYTES);
            }
            let room = (BATCH_BYTES - self.batch.bytes.len()) as u64;
            let mut piece = Read::take(&mut *content, left.min(room));
            let n = piece.read_to_end(&mut self.batch.bytes).map_err(|e| self.read_error(e, Some(&name)))?;
            if n == 0 {
                return Err(ArchiveError::Truncated(Some(shown(&name))).into());
            }
            left -= n as u64;
            self.push(Part::Data(n))?;
        }
        Ok(true)
    }

    /// What a failed read of decoded bytes means.
    pub(crate) fn read_error(&self, error: io::Error, name: Option<&[u8]>) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::FileTooLarge => ArchiveError::TooLarge { limit: self.limit },
            _ => ArchiveError::from_read(error, name),
        }
    }

    fn push(&mut self, part: Part) -> Result<(), Ended> {
        self.batch.parts.push(part);
        if self.batch.bytes.len() >= BATCH_BYTES || self.batch.parts.len() >= BATCH_PARTS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), Ended> {
        self.sender.send(std::mem::take(&mut self.batch)).map_err(|_| Ended::Unheard)
    }
}

/// The consuming side: the bytes of the member that is being visited.
pub(crate) struct Content {
    receiver: Receiver<Batch>,
    batch: Batch,
    /// The next part of the batch.
    part: usize,
    /// Bytes of the current data part that were not taken yet, which begin at `at`.
    data: usize,
    at: usize,
    /// Bytes of the current member that were not taken yet.
    left: u64,
    /// Whether the producer ended in the middle of a member: then its error is the one to tell.
    cut: bool,
}

impl Content {
    fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        match self.next_part() {
            None => Ok(None),
            Some(Part::Member(member)) => {
                self.left = if let Kind::File { size, .. } = member.kind { size } else { 0 };
                Ok(Some(member))
            }
            Some(Part::Data(_)) => Err(ArchiveError::corrupt("a member has more bytes than it says")),
        }
    }

    fn next_part(&mut self) -> Option<Part> {
        while self.part == self.batch.parts.len() {
            self.batch = self.receiver.recv().ok()?;
            (self.part, self.at) = (0, 0);
        }
        self.part += 1;
        Some(std::mem::replace(&mut self.batch.parts[self.part - 1], Part::Data(0)))
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        while self.left > 0 {
            let n = self.fill_buf().map_err(|_| ArchiveError::Truncated(None))?.len();
            self.consume(n);
        }
        Ok(())
    }
}

impl BufRead for Content {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left > 0 && self.data == 0 {
            match self.next_part() {
                Some(Part::Data(n)) => self.data = n,
                Some(Part::Member(_)) | None => {
                    self.cut = true;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(&self.batch.bytes[self.at..self.at + self.data])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.data -= n;
        self.left -= n as u64;
    }
}

impl Read for Content {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}
