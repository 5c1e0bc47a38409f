//! Bytes on their way into the store: bounded, hashed while written, and kept only if they are right.

use crate::error::{Failure, Mismatch, Reason};
use serde::{Deserialize, Serialize};
use sha2::digest::DynDigest;
use std::io::Write as _;
use trainlock_store::{ObjectWriter, PutError, Session, StoreError};
use trainlock_types::{Algorithm, Checksum, Digest, Event, Events, Validator};

/// What is known of a file before it comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expect<'a> {
    /// Its digest, as locked.
    pub(crate) sha256: Option<Digest>,
    /// Its size in bytes, as locked or stated by the manifest.
    pub(crate) size: Option<u64>,
    /// What its publisher states.
    pub(crate) checksum: Option<&'a Checksum>,
}

impl Expect<'_> {
    /// The digest that the file must have, by the lock or by the publisher.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.sha256.or_else(|| self.checksum?.sha256())
    }

    /// Whether a hash decides if it is the right file.
    pub(crate) fn decided_by_hash(&self) -> bool {
        self.sha256.is_some() || self.checksum.is_some()
    }
}

/// Where the bytes of a file came from, as it is noted beside those that are there: whether others belong to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The address, redacted.
    pub(crate) url: String,
    /// The size of the whole in bytes.
    pub(crate) size: Option<u64>,
    /// The server's name for these bytes (`ETag`).
    pub(crate) etag: Option<String>,
    /// When they were last changed there (`Last-Modified`).
    pub(crate) modified: Option<String>,
}

impl Origin {
    /// What says in a request that other bytes are not wanted (`If-Range`, RFC 9110): no weak tag.
    pub(crate) fn condition(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/")).or(self.modified.as_deref())
    }

    /// Whether the file at the same address is another one by now.
    pub(crate) fn is_replaced_by(&self, later: &Origin) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        let tagged = self.etag.is_some() && later.etag.is_some();
        self.url == later.url
            && (differ(&self.etag, &later.etag)
                || !tagged && differ(&self.modified, &later.modified)
                || matches!((self.size, later.size), (Some(a), Some(b)) if a != b))
    }
}

/// A transfer that is shown to the user: its events.
pub(crate) struct Progress<'a> {
    events: &'a Events,
    id: u64,
    name: &'a str,
    bytes: u64,
    told: u64,
    /// What the source said of the file.
    pub(crate) marks: Marks,
}

/// What a source says of a file besides its bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// The version of the object, where its bucket keeps versions.
    pub(crate) version: Option<String>,
    /// What names the bytes at a plain address.
    pub(crate) validator: Option<Validator>,
}

/// How many bytes come between two events.
const STEP: u64 = 256 << 10;

impl<'a> Progress<'a> {
    /// Tells that it begins.
    pub(crate) fn start(
        events: &'a Events,
        id: u64,
        name: &'a str,
        action: &'static str,
        size: Option<u64>,
    ) -> Progress<'a> {
        events.emit(Event::TransferStarted { id, name: name.to_owned(), action, size });
        Progress { events, id, name, bytes: 0, told: 0, marks: Marks::default() }
    }

    /// Tells, not too often, that so many bytes came.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes - self.told >= STEP {
            self.told = self.bytes;
            self.events.emit(Event::TransferProgress { id: self.id, bytes: self.bytes });
        }
    }

    /// Tells how many bytes are there already.
    pub(crate) fn begin_at(&mut self, bytes: u64) {
        if bytes != self.bytes {
            (self.bytes, self.told) = (bytes, bytes);
            self.events.emit(Event::TransferProgress { id: self.id, bytes });
        }
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells that it is tried again.
    pub(crate) fn retry(&mut self, reason: &Reason, delay: std::time::Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.events.emit(Event::TransferRetry {
            id: self.id,
            name: self.name.to_owned(),
            reason: reason.to_string(),
            delay_ms,
        });
    }

    /// Tells that it ended, with the digest of what came, if it came.
    pub(crate) fn finish(self, sha256: Option<Digest>) {
        self.events.emit(Event::TransferFinished {
            id: self.id,
            name: self.name.to_owned(),
            bytes: self.bytes,
            sha256,
        });
    }
}

/// A file that is being received.
pub(crate) struct Receive<'a> {
    writer: ObjectWriter,
    expect: Expect<'a>,
    /// The publisher's hash function, where SHA-256 is another one.
    other: Option<Box<dyn DynDigest>>,
    html: bool,
}

impl<'a> Receive<'a> {
    /// Begins; `announced` is the size in bytes that the source states. A size that is already wrong
    /// costs no byte more.
    pub(crate) fn start(
        session: &Session,
        expect: Expect<'a>,
        announced: Option<u64>,
        html: bool,
    ) -> Result<Receive<'a>, Failure> {
        if let (Some(expected), Some(found)) = (expect.size, announced)
            && expected != found
        {
            return Err(Reason::Mismatch { mismatch: Mismatch::Size { expected, found, more: false }, html }.into());
        }
        Receive::with(session.writer()?, expect, announced, html)
    }

    /// Goes on with a file where an earlier try stopped, in this process or another. `key` is its digest, or of what else names it.
    pub(crate) fn resume(session: &Session, key: &Digest, expect: Expect<'a>) -> Result<Receive<'a>, Failure> {
        let mut file = Receive::with(session.resumed_writer(key)?, expect, None, false)?;
        if let Some(hasher) = &mut file.other {
            file.writer.read_back(|bytes| hasher.update(bytes))?;
        }
        match expect.size {
            // More than there should be is not what was wanted.
            Some(size) if file.writer.pieces().any(|(_, to)| to > size) => file.again(session, key),
            _ => Ok(file),
        }
    }

    /// Forgets what was taken; what comes next is the first byte.
    pub(crate) fn again(self, session: &Session, key: &Digest) -> Result<Receive<'a>, Failure> {
        if self.have() == 0 {
            return Ok(self);
        }
        let expect = self.expect;
        self.writer.give_up();
        Receive::with(session.resumed_writer(key)?, expect, None, false)
    }

    /// Where the bytes that are there came from, if an earlier try has noted it.
    pub(crate) fn origin(&self) -> Option<Origin> {
        serde_json::from_str(self.writer.note()?).ok()
    }

    /// Notes where the bytes come from.
    pub(crate) fn set_origin(&mut self, origin: &Origin) -> Result<(), Failure> {
        Ok(self.writer.set_note(|| serde_json::to_string(origin).unwrap_or_default())?)
    }

    /// The pieces that are there: the first byte of each, and the one behind its last.
    pub(crate) fn pieces(&self) -> Vec<(u64, u64)> {
        self.writer.pieces().collect()
    }

    /// Bytes that are there, in order or not.
    pub(crate) fn have(&self) -> u64 {
        self.writer.pieces().map(|(from, to)| to - from).sum()
    }

    /// Takes bytes of this place in the file. Those that are next are hashed at once; those that were ahead, when all before
    /// them is there.
    pub(crate) fn take_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        let taken = self.taken();
        if at > taken {
            let found = at + bytes.len() as u64;
            if let Some(expected) = self.expect.size.filter(|size| found > *size) {
                return Err(self.mismatch(Mismatch::Size { expected, found, more: true }));
            }
            return Ok(self.writer.write_ahead(at, bytes)?);
        }
        let known = usize::try_from(taken - at).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..) {
            self.take(new)?;
            let other = &mut self.other;
            self.writer.catch_up(|bytes| {
                if let Some(hasher) = other {
                    hasher.update(bytes);
                }
            })?;
        }
        Ok(())
    }

    /// What is known now that the source answers: the size that it states, and whether it calls it HTML.
    pub(crate) fn answered(&mut self, announced: Option<u64>, html: bool) -> Result<(), Failure> {
        self.html = html;
        if let (Some(expected), Some(found)) = (self.expect.size, announced)
            && expected != found
        {
            return Err(self.mismatch(Mismatch::Size { expected, found, more: false }));
        }
        Ok(())
    }

    fn with(
        mut writer: ObjectWriter,
        expect: Expect<'a>,
        announced: Option<u64>,
        html: bool,
    ) -> Result<Receive<'a>, Failure> {
        if let Some(size) = expect.size.or(announced) {
            writer.reserve(size)?;
        }
        let other: Option<Box<dyn DynDigest>> = match expect.checksum.map(|c| c.algorithm) {
            Some(Algorithm::Sha512) => Some(Box::new(sha2::Sha512::default())),
            Some(Algorithm::Sha1) => Some(Box::new(sha1::Sha1::default())),
            Some(Algorithm::Md5) => Some(Box::new(md5::Md5::default())),
            Some(Algorithm::Sha256) | None => None,
        };
        Ok(Receive { writer, expect, other, html })
    }

    /// Nothing of it stays.
    pub(crate) fn give_up(self) {
        self.writer.give_up();
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.writer.written()
    }

    /// Takes the next bytes; refuses what is beyond the known size.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let found = self.taken() + bytes.len() as u64;
        if let Some(expected) = self.expect.size.filter(|size| found > *size) {
            return Err(self.mismatch(Mismatch::Size { expected, found, more: true }));
        }
        self.writer.write_all(bytes).map_err(|error| match StoreError::from_write(error) {
            Ok(error) => Failure::Store(error),
            Err(source) => Failure::Store(StoreError::Io { action: "write", path: Default::default(), source }),
        })?;
        if let Some(hasher) = &mut self.other {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// Keeps the file if it is what was expected.
    pub(crate) fn finish(self) -> Result<(Digest, u64), Failure> {
        let html = self.html;
        let failed = |mismatch| Failure::Source(Reason::Mismatch { mismatch, html });
        let found = self.taken();
        if let Some(expected) = self.expect.size.filter(|size| *size != found) {
            self.writer.give_up();
            return Err(failed(Mismatch::Size { expected, found, more: false }));
        }
        if let (Some(hasher), Some(expected)) = (self.other, self.expect.checksum) {
            let hex = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
            let found = Checksum { algorithm: expected.algorithm, hex };
            if found != *expected {
                self.writer.give_up();
                return Err(failed(Mismatch::Checksum { expected: expected.clone(), found }));
            }
        }
        match self.writer.finish(self.expect.digest().map(|sha256| (sha256, None))) {
            Ok(done) => Ok(done),
            Err(PutError::Sha256 { found, .. }) => Err(failed(match (self.expect.sha256, self.expect.checksum) {
                (Some(expected), _) => Mismatch::Sha256 { expected, found },
                (None, Some(expected)) => {
                    let found = Checksum { algorithm: Algorithm::Sha256, hex: found.to_hex() };
                    Mismatch::Checksum { expected: expected.clone(), found }
                }
                (None, None) => unreachable!("no digest was asked for"),
            })),
            Err(PutError::Store(error)) => Err(Failure::Store(error)),
            Err(error) => unreachable!("an object's writer does not fail so: {error}"),
        }
    }

    fn mismatch(&self, mismatch: Mismatch) -> Failure {
        Failure::Source(Reason::Mismatch { mismatch, html: self.html })
    }
}
