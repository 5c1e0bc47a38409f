//! What is fetched, from where, in which order: sources, mirrors, retries, locks, archives.

use crate::archive::{self, ArchiveError, Limits};
use crate::budget::STREAMS;
use crate::error::{Failure, FetchError, Mismatch, Reason, SourceFailure, SourceFailures};
use crate::gate::cores;
use crate::many::{self, ManyWanted};
use crate::net::Net;
use crate::object::{Listed, NO_VERSION};
use crate::receive::{Expect, Marks, Progress, Receive};
use crate::retry::backoff;
use crate::settings::Settings;
use crate::small::{Ahead, Small, SmallFile, Whole};
use crate::tree::{self, UnpackError};
use crate::{file, http};
use bytes::Bytes;
use std::io::BufRead as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use trainlock_store::{LockGuard, Session, StoreError, Tree};
use trainlock_types::{DataRequest, DataSource, Digest, Event, Events, Hashed, Listing, RelPath, SourceUrl, Validator};
use url::Url;

/// Fetches data. Nothing is set up before the first byte is needed from a network.
///
/// Its methods block, and may not be called from within an async runtime.
pub struct Fetcher {
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    net: OnceLock<Result<Net, String>>,
    transfers: AtomicU64,
}

/// What a data request stands for at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The address with its revision resolved, without secrets; none where the request's address is its own resolution.
    pub source: Option<String>,
    /// What steps will see.
    pub content: Content,
    /// Digest and size in bytes of the archive that the content was unpacked from, or of the description that names it.
    pub archive: Option<(Digest, u64)>,
    /// The version of each object of a listing, in its order, where the bucket keeps versions; empty otherwise.
    pub versions: Vec<String>,
    /// What the server of a plain address said of the bytes; none where a SHA-256 is stated, or they came from elsewhere.
    pub validator: Option<Validator>,
}

/// What a data set is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// One file.
    File {
        /// Its digest.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Many files.
    Tree {
        /// The digest of the listing.
        digest: Digest,
        /// The bytes of all files together.
        size: u64,
        /// How many files and links there are.
        count: u64,
        /// All of them.
        listing: Listing,
    },
}

/// Something locked that the store should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The data set, for people.
    pub name: String,
    /// Where it comes from, in the order in which they are tried.
    pub sources: Vec<SourceUrl>,
    /// What exactly.
    pub content: Wanted,
}

/// What exactly is wanted. Archives are `(digest, size in bytes)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The file at the source.
    File {
        /// Its digest.
        sha256: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// One file of the archive at the source.
    Member {
        /// The archive.
        archive: (Digest, u64),
        /// The file's path in it.
        member: RelPath,
        /// The file's digest.
        sha256: Digest,
        /// The file's size in bytes.
        size: u64,
    },
    /// All of the archive at the source.
    Tree {
        /// The archive.
        archive: (Digest, u64),
        /// The digest of the tree's listing.
        tree: Digest,
        /// The bytes of all files together.
        size: u64,
        /// How many files and links there are.
        count: u64,
    },
    /// Many files, each of its own.
    Many(Box<ManyWanted>),
}

impl Wanted {
    /// What the store knows it by.
    fn digest(&self) -> &Digest {
        match self {
            Wanted::File { sha256, .. } | Wanted::Member { sha256, .. } => sha256,
            Wanted::Tree { tree, .. } => tree,
            Wanted::Many(many) => &many.tree,
        }
    }

    fn is_in(&self, session: &Session) -> Result<bool, StoreError> {
        match self {
            Wanted::File { sha256, size } | Wanted::Member { sha256, size, .. } => {
                Ok(session.store().object(sha256, Some(*size))?.is_some())
            }
            Wanted::Tree { tree, .. } => Ok(session.store().has_tree(tree)),
            Wanted::Many(many) => Ok(session.store().has_tree(&many.tree)),
        }
    }
}

impl Want {
    /// What has to come, if it is one small file.
    fn small(&self) -> Option<Expect<'static>> {
        let Wanted::File { sha256, size } = self.content else { return None };
        let expect = Expect { sha256: Some(sha256), size: Some(size), checksum: None };
        Small::of(expect).map(|_| expect)
    }
}

/// A `url` request's fields, with mirrors behind the address itself.
struct UrlRequest<'a> {
    name: String,
    sources: Vec<SourceUrl>,
    expect: Expect<'a>,
    extract: Option<&'a RelPath>,
    unpack: bool,
}

/// How soon it is looked again whether more threads would have something to do: where they had, and at most.
const GROW: (Duration, Duration) = (Duration::from_millis(3), Duration::from_millis(12));

/// So many bytes more than any try before make it worth going on: each file of finite size takes so many tries at most.
const ADVANCE: u64 = 1 << 20;

impl Fetcher {
    /// With these settings; what happens is told to `events`.
    pub fn new(settings: Settings, events: Events) -> Fetcher {
        Fetcher { settings, events, net: OnceLock::new(), transfers: AtomicU64::new(0) }
    }

    /// Another that asks each source once, and is content with less time for connecting: for what can be had elsewhere.
    pub fn impatient(&self) -> Fetcher {
        let connect_timeout = self.settings.connect_timeout.min(Duration::from_secs(3));
        Fetcher::new(Settings { retries: 0, connect_timeout, ..self.settings.clone() }, self.events.clone())
    }

    /// From now on what happens is told to these.
    pub fn tell(&mut self, events: Events) {
        self.events = events;
    }

    /// Sets up now what the first byte from a network needs, if it comes from there: what fails here fails then, and is told.
    pub fn prepare(&self, source: &SourceUrl) {
        if matches!(source, SourceUrl::Http(_)) {
            let _ = self.net();
        }
    }

    /// Finds out what requests stand for, and brings all of it into the store, many at once. The
    /// answers are in the order of the requests.
    ///
    /// # Errors
    /// For each request by itself.
    pub fn resolve_all(&self, session: &Session, requests: &[&DataRequest]) -> Vec<Result<Resolved, FetchError>> {
        self.each(requests, |request| match many::is_many(&request.source, &self.settings) {
            true => self.resolve_many(session, &name(request), &request.source),
            false => self.resolve(session, &UrlRequest::of(request)?),
        })
    }

    /// Brings exactly what is wanted into the store, many at once; what is there already is not
    /// fetched, and of several processes that want the same, one fetches it. The answers are in the
    /// order of the wants.
    ///
    /// # Errors
    /// For each want by itself.
    pub fn bring_all(&self, session: &Session, wants: &[Want]) -> Vec<Result<(), FetchError>> {
        // Most of the time all is there, which needs no threads to find out.
        let mut results: Vec<Option<Result<(), FetchError>>> = Vec::new();
        for want in wants {
            results.push(match want.content.is_in(session) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(FetchError::Store { name: want.name.clone(), error })),
            });
        }
        let missing: Vec<&Want> =
            wants.iter().zip(&results).filter(|(_, r)| r.is_none()).map(|(want, _)| want).collect();
        let mut brought = self.bring_missing(session, &missing, |_| ()).into_iter();
        let answer = |result: Option<_>| result.or_else(|| brought.next()).unwrap_or(Ok(()));
        results.into_iter().map(answer).collect()
    }

    /// The same for what was found not to be there; `came` is told of each as soon as it is, from many threads.
    ///
    /// # Errors
    /// For each want by itself.
    pub fn bring_missing<'w>(
        &self,
        session: &Session,
        wants: &[&'w Want],
        came: impl Fn(usize) + Sync,
    ) -> Vec<Result<(), FetchError>> {
        if wants.is_empty() {
            return Vec::new();
        }
        let numbered: Vec<(usize, &'w Want)> = wants.iter().copied().enumerate().collect();
        thread::scope(|scope| {
            scope.spawn(|| session.prepare());
            let small = self.lock_small(session, wants);
            let file = |(_, want): &(usize, &'w Want)| {
                let ((_, look), expect) = (small.as_ref()?, want.small()?);
                let file = SmallFile::of(want.name.clone(), &want.sources, expect)?;
                // By now another process may have brought it.
                let is_there = *look && !matches!(want.content.is_in(session), Ok(false));
                Some(file).filter(|_| !is_there)
            };
            self.each_ahead(&numbered, file, |(i, want), ahead| {
                match (&small, want.small()) {
                    (Some((_, look)), Some(_)) => self.bring_locked(session, want, *look, ahead),
                    _ => self.bring(session, want),
                }?;
                came(*i);
                Ok(())
            })
        })
    }

    /// Calls `work` for all items, on a few threads, and on as many as there may be exchanges where those wait for answers.
    pub(crate) fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        self.share_out(items.len(), 1, |numbers| numbers.map(|i| (i, work(&items[i]))).collect())
    }

    /// The same for the numbers below `count`: each thread takes the next one when it likes to, and says what came of each of
    /// its numbers. `exchanges`: so many a thread may have under way.
    pub(crate) fn share_out<R: Send>(
        &self,
        count: usize,
        exchanges: usize,
        work: impl Fn(&mut dyn Iterator<Item = usize>) -> Vec<(usize, R)> + Sync,
    ) -> Vec<R> {
        let most = (self.settings.max_connections.max(1) * STREAMS).min(count);
        if most <= 1 {
            return work(&mut (0..count)).into_iter().map(|(_, result)| result).collect();
        }
        let (next, caller) = (AtomicUsize::new(0), thread::current());
        let take = || {
            let number = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count);
            if number.is_none() {
                caller.unpark();
            }
            number
        };
        let worker = || work(&mut std::iter::from_fn(take));
        // Where each has several under way, together a few more than the gate lets in at first: it need not wait for them.
        let first = few().min(3 * few() / exchanges.max(1)).clamp(1, most);
        let mut results: Vec<(usize, R)> = thread::scope(|scope| {
            let mut threads: Vec<_> = (0..first).map(|_| scope.spawn(worker)).collect();
            let mut pause = GROW.0;
            while threads.len() < most && next.load(Ordering::Relaxed) < count {
                thread::park_timeout(pause);
                pause = (pause * 2).min(GROW.1);
                let going = threads.len() * exchanges;
                if self.net.get().is_some_and(|net| net.as_ref().is_ok_and(|net| net.has_room(going))) {
                    let more = threads.len().min(most - threads.len());
                    threads.extend((0..more).map(|_| scope.spawn(worker)));
                    pause = GROW.0;
                }
            }
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn resolve(&self, session: &Session, request: &UrlRequest<'_>) -> Result<Resolved, FetchError> {
        let name = &request.name;
        let there = match request.expect.digest() {
            Some(sha256) => session
                .store()
                .object(&sha256, request.expect.size)
                .map_err(|e| store(name, e))?
                .map(|path| (sha256, path)),
            None => None,
        };
        let (sha256, size, marks) = match there {
            Some((sha256, path)) => {
                (sha256, fs_err::metadata(&path).map_err(|e| unreadable(name, &path, e))?.len(), Marks::default())
            }
            None => self.download_marked(session, name, &request.sources, request.expect, None)?,
        };
        // What is there already is not asked for: then the lock must not say more where it was not.
        let validator = marks.validator.filter(|_| request.expect.digest().is_none());
        let version = marks.version.filter(|version| version != NO_VERSION);
        let source = version.and_then(|v| request.sources.first()?.at_version(&v)).map(|url| url.to_string());
        let unpacked = match request.extract {
            Some(member) => {
                let (sha256, size) = self.extract(session, name, &request.sources, (sha256, size), member, None)?;
                Content::File { sha256, size }
            }
            None if request.unpack => {
                let tree = self.unpack(session, name, &request.sources, (sha256, size), self.limits(size), None)?;
                Content::Tree { digest: tree.digest, size: tree.size, count: tree.count, listing: tree.listing }
            }
            None => {
                let content = Content::File { sha256, size };
                return Ok(Resolved { source, content, archive: None, versions: Vec::new(), validator });
            }
        };
        let archive = Some((sha256, size));
        Ok(Resolved { source, content: unpacked, archive, versions: Vec::new(), validator })
    }

    /// One lock for all small files, where there are several: a lock of its own takes each longer than its bytes. With
    /// whether some may be there by the time that they are asked for. None where it can't be had, as each then can say.
    fn lock_small(&self, session: &Session, wants: &[&Want]) -> Option<(LockGuard, bool)> {
        let mut digests: Vec<&Digest> =
            wants.iter().filter(|want| want.small().is_some()).map(|want| want.content.digest()).collect();
        if digests.len() < 2 {
            return None;
        }
        digests.sort_unstable();
        // Of two of the same bytes the first may have brought them.
        let twice = digests.windows(2).any(|pair| pair[0] == pair[1]);
        let all: String = digests.iter().map(|digest| digest.to_hex()).collect();
        let mut waited = false;
        let waiting = |holder| {
            waited = true;
            self.events.emit(Event::Waiting { what: format!("{} small files", digests.len()), holder });
        };
        let lock = session.store().lock(&format!("data-{}", Digest::of(all.as_bytes())), waiting).ok()?;
        Some((lock, waited || twice))
    }

    fn bring(&self, session: &Session, want: &Want) -> Result<(), FetchError> {
        let _lock = self.lock(session, &want.name, want.content.digest())?;
        self.bring_locked(session, want, true, None)
    }

    /// `look`: it may be there by now.
    fn bring_locked(
        &self,
        session: &Session,
        want: &Want,
        look: bool,
        ahead: Option<Ahead<'_>>,
    ) -> Result<(), FetchError> {
        let Want { name, sources, content } = want;
        if look && ahead.is_none() && content.is_in(session).map_err(|e| store(name, e))? {
            return Ok(());
        }
        match content {
            Wanted::File { sha256, size } => self.file(session, name, sources, (*sha256, *size), ahead)?,
            Wanted::Member { archive, member, sha256, size } => {
                self.archive(session, name, sources, *archive)?;
                self.extract(session, name, sources, *archive, member, Some((*sha256, *size)))?;
            }
            Wanted::Tree { archive, tree, size, count } => {
                self.archive(session, name, sources, *archive)?;
                let limits = Limits { size: *size, count: *count, ..self.limits(archive.1) };
                self.unpack(session, name, sources, *archive, limits, Some(*tree))?;
            }
            Wanted::Many(many) => self.bring_many(session, name, many)?,
        }
        Ok(())
    }

    /// Sees to it that an archive is in the store; two inputs may come from one.
    fn archive(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        archive: (Digest, u64),
    ) -> Result<(), FetchError> {
        let is_there = || session.store().object(&archive.0, Some(archive.1)).map_err(|e| store(name, e));
        if is_there()?.is_some() {
            return Ok(());
        }
        // Locks are taken from the content to its archive, which no chain of hashes can turn into a ring.
        let _lock = self.lock(session, name, &archive.0)?;
        if is_there()?.is_some() { Ok(()) } else { self.file(session, name, sources, archive, None) }
    }

    fn file(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        (sha256, size): (Digest, u64),
        ahead: Option<Ahead<'_>>,
    ) -> Result<(), FetchError> {
        let expect = Expect { sha256: Some(sha256), size: Some(size), checksum: None };
        self.download_marked(session, name, sources, expect, ahead).map(drop)
    }

    /// Held while an input is fetched, so that other processes wait for it instead of fetching it too.
    pub(crate) fn lock(&self, session: &Session, name: &str, digest: &Digest) -> Result<LockGuard, FetchError> {
        let waiting = |holder| self.events.emit(Event::Waiting { what: format!("data `{name}`"), holder });
        session.store().lock(&format!("data-{digest}"), waiting).map_err(|e| store(name, e))
    }

    /// Brings a file into the store from the first source that has it; its digest and size in bytes.
    pub(crate) fn download(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        expect: Expect<'_>,
    ) -> Result<(Digest, u64), FetchError> {
        self.download_marked(session, name, sources, expect, None).map(|(sha256, size, _)| (sha256, size))
    }

    /// The same, with what the first source said of it besides. `ahead`: what came of its first try, if it was made already.
    pub(crate) fn download_marked<'a>(
        &'a self,
        session: &Session,
        name: &'a str,
        sources: &[SourceUrl],
        expect: Expect<'_>,
        ahead: Option<Ahead<'a>>,
    ) -> Result<(Digest, u64, Marks), FetchError> {
        let start = || Progress::start(&self.events, self.next_id(), name, "fetch", expect.size);
        let (mut progress, mut came) =
            ahead.map_or_else(|| (start(), None), |Ahead { progress, came }| (progress, Some(came)));
        let mut failures = Vec::new();
        for (i, source) in sources.iter().enumerate() {
            match self.source(session, source, expect, &mut progress, came.take()) {
                Ok((sha256, size)) => {
                    // A mirror's are its own; so is what is read in the place of an address.
                    let mut marks = std::mem::take(&mut progress.marks);
                    if i > 0 {
                        marks = Marks::default();
                    }
                    if let SourceUrl::Http(url) = source
                        && self.settings.replace.of(url).is_some()
                    {
                        marks.validator = None;
                    }
                    progress.finish(Some(sha256));
                    return Ok((sha256, size, marks));
                }
                Err((Failure::Source(reason), earlier)) => {
                    failures.push(SourceFailure { url: self.settings.replace.shown(source), reason, earlier })
                }
                Err((Failure::Store(error), _)) => {
                    progress.finish(None);
                    return Err(store(name, error));
                }
                Err((Failure::Interrupted, _)) => {
                    progress.finish(None);
                    return Err(FetchError::Interrupted { name: name.to_owned() });
                }
            }
        }
        progress.finish(None);
        if failures.iter().all(|f| matches!(f.reason, Reason::Offline)) {
            return Err(FetchError::Offline { name: name.to_owned(), url: first(sources) });
        }
        Err(FetchError::Sources { name: name.to_owned(), failures: SourceFailures(failures) })
    }

    /// Tries one source until it gives the file or fails for good; with the reasons of earlier tries.
    fn source(
        &self,
        session: &Session,
        source: &SourceUrl,
        expect: Expect<'_>,
        progress: &mut Progress<'_>,
        mut came: Option<Result<Whole<Hashed<Bytes>>, Failure>>,
    ) -> Result<(Digest, u64), (Failure, Vec<Reason>)> {
        let mut earlier = Vec::new();
        let (mut retry, mut reached) = (0, 0);
        // Once parts did not fit together, it is fetched in one piece.
        let mut alone = false;
        loop {
            if self.settings.cancel.is_thrown() {
                return Err((Failure::Interrupted, earlier));
            }
            let tried = match came.take() {
                Some(came) => came.and_then(|whole| whole.keep(session, progress)),
                None => self.attempt(session, source, expect, progress, alone),
            };
            let reason = match tried {
                Ok(done) => return Ok(done),
                Err(Failure::Source(reason)) if reason.may_pass() && retry < self.settings.retries => reason,
                Err(failure) => return Err((failure, earlier)),
            };
            let longest = self.settings.longest_wait;
            let delay = match reason {
                Reason::Status { retry_after: Some(after), .. } => after.min(longest),
                _ => backoff(self.settings.backoff, longest, retry),
            };
            progress.retry(&reason, delay);
            alone |= matches!(reason, Reason::Resume | Reason::Changed);
            earlier.push(reason);
            self.settings.cancel.wait(delay);
            // A download that gets on is not given up.
            retry = if progress.bytes() >= reached + ADVANCE { 0 } else { retry + 1 };
            reached = reached.max(progress.bytes());
        }
    }

    fn attempt(
        &self,
        session: &Session,
        source: &SourceUrl,
        expect: Expect<'_>,
        progress: &mut Progress<'_>,
        alone: bool,
    ) -> Result<(Digest, u64), Failure> {
        match source {
            SourceUrl::Http(url) | SourceUrl::Object(url) => {
                http::fetch(self.net()?, session, url, expect, progress, alone)
            }
            SourceUrl::File(url) => file::fetch(session, url, expect, progress, &self.settings.cancel),
            other => Err(Reason::Unsupported(kind(other)).into()),
        }
    }

    /// The objects behind a prefix of a bucket, with retries that go on where an earlier try broke off.
    pub(crate) fn objects(&self, name: &str, url: &Url) -> Result<Vec<Listed>, FetchError> {
        let (mut found, mut earlier, mut retry) = (Vec::new(), Vec::new(), 0);
        loop {
            let before = found.len();
            let failure = match self.net().and_then(|net| net.list(url, &mut found)) {
                Ok(()) => return Ok(found),
                Err(failure) => failure,
            };
            // A listing that gets on is not given up.
            retry = if found.len() > before { 0 } else { retry };
            match failure {
                Failure::Source(Reason::Offline) => {
                    return Err(FetchError::Offline { name: name.to_owned(), url: url.to_string() });
                }
                Failure::Source(reason) if reason.may_pass() && retry < self.settings.retries => {
                    let longest = self.settings.longest_wait;
                    let delay = match reason {
                        Reason::Status { retry_after: Some(after), .. } => after.min(longest),
                        _ => backoff(self.settings.backoff, longest, retry),
                    };
                    earlier.push(reason);
                    if self.settings.cancel.wait(delay) {
                        return Err(FetchError::Interrupted { name: name.to_owned() });
                    }
                    retry += 1;
                }
                Failure::Source(reason) => {
                    let failure = SourceFailure { url: url.to_string(), reason, earlier };
                    return Err(FetchError::Sources { name: name.to_owned(), failures: SourceFailures(vec![failure]) });
                }
                Failure::Store(error) => return Err(store(name, error)),
                Failure::Interrupted => return Err(FetchError::Interrupted { name: name.to_owned() }),
            }
        }
    }

    /// The network, set up when it is first needed.
    pub(crate) fn net(&self) -> Result<&Net, Failure> {
        // A file of this machine may stand in a server's place.
        if self.settings.offline && !self.settings.replace.has_files() {
            return Err(Reason::Offline.into());
        }
        let net = self.net.get_or_init(|| Net::start(&self.settings));
        Ok(net.as_ref().map_err(|e| Reason::Setup(e.clone()))?)
    }

    /// Puts one member of an archive of the store into the store; its digest and size in bytes.
    pub(crate) fn extract(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        archive: (Digest, u64),
        member: &RelPath,
        locked: Option<(Digest, u64)>,
    ) -> Result<(Digest, u64), FetchError> {
        let file = open(session, name, &archive.0)?;
        let mut progress = Progress::start(&self.events, self.next_id(), name, "unpack", locked.map(|(_, size)| size));
        let limits = self.limits(archive.1);
        let expect =
            Expect { sha256: locked.map(|(sha256, _)| sha256), size: locked.map(|(_, size)| size), checksum: None };
        let extracted = archive::extract(file, limits, member, |size, content| {
            self.receive_member(session, expect, (member, size), content, &mut progress)
        });
        progress.finish(extracted.as_ref().ok().map(|(sha256, _)| *sha256));
        extracted.map_err(|error| unpack_error(name, first(sources), error))
    }

    /// Puts the tree of an archive of the store into the store.
    pub(crate) fn unpack(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        archive: (Digest, u64),
        limits: Limits,
        locked: Option<Digest>,
    ) -> Result<Tree, FetchError> {
        let file = open(session, name, &archive.0)?;
        let size = locked.map(|_| limits.size);
        let mut progress = Progress::start(&self.events, self.next_id(), name, "unpack", size);
        let cancel = &self.settings.cancel;
        let whole = |path: &RelPath| Some(path.clone());
        let unpacked = tree::unpack(session, file, limits, locked, &whole, cancel, |bytes| progress.add(bytes));
        progress.finish(unpacked.as_ref().ok().map(|tree| tree.digest));
        unpacked.map_err(|error| unpack_error(name, first(sources), error))
    }

    /// Puts those members of an archive of the store into the store that `wants` expects something of: path, digest and
    /// size in bytes of each.
    pub(crate) fn extract_some<'e>(
        &self,
        session: &Session,
        name: &str,
        sources: &[SourceUrl],
        archive: (Digest, u64),
        wants: &(dyn Fn(&RelPath) -> Option<Expect<'e>> + Sync),
    ) -> Result<Vec<(RelPath, Digest, u64)>, FetchError> {
        let file = open(session, name, &archive.0)?;
        let mut progress = Progress::start(&self.events, self.next_id(), name, "unpack", None);
        let mut taken = Vec::new();
        let is_wanted = |path: &RelPath| wants(path).is_some();
        let extracted = archive::extract_some(file, self.limits(archive.1), is_wanted, |path, size, content| {
            let expect = wants(&path).unwrap_or_default();
            let (sha256, size) = self.receive_member(session, expect, (&path, size), content, &mut progress)?;
            taken.push((path, sha256, size));
            Ok(())
        });
        progress.finish(extracted.is_ok().then_some(archive.0));
        extracted.map_err(|error| unpack_error(name, first(sources), error))?;
        Ok(taken)
    }

    /// Puts the bytes of one member of an archive into the store.
    fn receive_member(
        &self,
        session: &Session,
        expect: Expect<'_>,
        (member, size): (&RelPath, u64),
        content: &mut archive::Content,
        progress: &mut Progress<'_>,
    ) -> Result<(Digest, u64), UnpackError> {
        let mut file = Receive::start(session, expect, Some(size), false)?;
        loop {
            let bytes = content.fill_buf().map_err(|e| ArchiveError::from_read(e, Some(member.as_str().as_bytes())))?;
            if bytes.is_empty() {
                return Ok(file.finish()?);
            }
            if self.settings.cancel.is_thrown() {
                return Err(UnpackError::Failure(Failure::Interrupted));
            }
            let n = bytes.len();
            file.take(bytes)?;
            progress.add(n as u64);
            content.consume(n);
        }
    }

    /// Puts some files of an archive of the store into the store, as a tree: those that have a place, at that place.
    pub(crate) fn unpack_some(
        &self,
        session: &Session,
        name: &str,
        url: &str,
        archive: (Digest, u64),
        place: &dyn Fn(&RelPath) -> Option<RelPath>,
    ) -> Result<Tree, FetchError> {
        let file = open(session, name, &archive.0)?;
        let mut progress = Progress::start(&self.events, self.next_id(), name, "unpack", None);
        let (limits, cancel) = (self.limits(archive.1), &self.settings.cancel);
        let unpacked = tree::unpack(session, file, limits, None, place, cancel, |bytes| progress.add(bytes));
        progress.finish(unpacked.as_ref().ok().map(|tree| tree.digest));
        unpacked.map_err(|error| unpack_error(name, url.to_owned(), error))
    }

    /// For an archive of this size of which nothing else is known.
    pub(crate) fn limits(&self, size: u64) -> Limits {
        let bytes = size.saturating_mul(self.settings.unpack_ratio).saturating_add(self.settings.unpack_more);
        Limits { decoded: bytes, size: bytes, count: self.settings.unpack_count }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.transfers.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many threads are at work at first: some wait for answers, or for the disk.
pub(crate) fn few() -> usize {
    4 * cores()
}

impl<'a> UrlRequest<'a> {
    fn of(request: &'a DataRequest) -> Result<UrlRequest<'a>, FetchError> {
        let name = name(request);
        let unsupported = |name, kind| Err(FetchError::Unsupported { name, kind });
        match &request.source {
            DataSource::Url { url, mirrors, checksum, size, rev, files, extract, unpack } => {
                if !matches!(url, SourceUrl::Http(_) | SourceUrl::File(_) | SourceUrl::Object(_)) {
                    return unsupported(name, kind(url));
                }
                if rev.is_some() || !files.is_empty() {
                    return unsupported(name, "a revision or several files of a plain address");
                }
                let sources = std::iter::once(url).chain(mirrors).cloned().collect();
                let expect = Expect { sha256: None, size: *size, checksum: checksum.as_ref() };
                Ok(UrlRequest { name, sources, expect, extract: extract.as_ref(), unpack: *unpack })
            }
            DataSource::Path(_) => unsupported(name, "a path of the repository"),
            DataSource::Croissant(_) => unsupported(name, "a Croissant description"),
            DataSource::Pooch { .. } => unsupported(name, "a Pooch registry"),
        }
    }
}

/// A data set, for people.
fn name(request: &DataRequest) -> String {
    request.member.as_ref().map_or_else(|| request.name.to_string(), |member| format!("{member}/{}", request.name))
}

/// The kind of a source, in words.
const fn kind(url: &SourceUrl) -> &'static str {
    match url {
        SourceUrl::Http(_) => "a web address",
        SourceUrl::File(_) => "a file of this machine",
        SourceUrl::Hf(_) => "the Hugging Face hub (`hf:`)",
        SourceUrl::Git(_) => "a git repository (`git+…:`)",
        SourceUrl::Object(_) => "an object store (`s3:`, `gs:`, `az:`)",
        SourceUrl::Pypi(_) => "a Python package (`pypi:`)",
        SourceUrl::Doi(_) => "a DOI (`doi:`)",
    }
}

fn first(sources: &[SourceUrl]) -> String {
    sources.first().map(SourceUrl::redacted).unwrap_or_default()
}

fn store(name: &str, error: StoreError) -> FetchError {
    FetchError::Store { name: name.to_owned(), error }
}

fn unreadable(name: &str, path: &std::path::Path, source: std::io::Error) -> FetchError {
    store(name, StoreError::Io { action: "read", path: path.to_owned(), source })
}

/// The archive as a file of the store.
pub(crate) fn open(session: &Session, name: &str, sha256: &Digest) -> Result<fs_err::File, FetchError> {
    let path = session.store().object(sha256, None).map_err(|e| store(name, e))?;
    let path = path.ok_or_else(|| store(name, StoreError::Missing(*sha256)))?;
    fs_err::File::open(&path).map_err(|e| unreadable(name, &path, e))
}

pub(crate) fn unpack_error(name: &str, url: String, error: UnpackError) -> FetchError {
    let name = name.to_owned();
    match error {
        UnpackError::Archive(error) => FetchError::Archive { name, url, error },
        UnpackError::Tree { expected, found } => {
            FetchError::Unpacked { name, url, mismatch: Mismatch::Tree { expected, found } }
        }
        UnpackError::Failure(Failure::Source(Reason::Mismatch { mismatch, .. })) => {
            FetchError::Unpacked { name, url, mismatch }
        }
        UnpackError::Failure(Failure::Source(reason)) => {
            let failure = SourceFailure { url, reason, earlier: Vec::new() };
            FetchError::Sources { name, failures: SourceFailures(vec![failure]) }
        }
        UnpackError::Failure(Failure::Store(error)) => FetchError::Store { name, error },
        UnpackError::Failure(Failure::Interrupted) => FetchError::Interrupted { name },
    }
}
