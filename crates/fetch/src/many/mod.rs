//! Sources of many files: packages, repositories, hubs, buckets, descriptions.
//!
//! A kind of source is one module with one type that answers [`Source::look`]: what is there, now or at the revision that
//! is locked. All else is the same for all kinds and stands here: which files the request's globs choose, fetching what
//! nobody has stated a SHA-256 of, the listing that is locked, and bringing exactly that listing.

mod bucket;
mod croissant;
mod description;
mod doi;
mod git;
mod hf;
mod now;
mod pooch;
mod pypi;
mod repository;

pub(crate) use hf::HUB;

use crate::error::{FetchError, Mismatch};
use crate::fetcher::{Content, Fetcher, Resolved};
use crate::object::NO_VERSION;
use crate::receive::Expect;
use crate::settings::Settings;
use crate::small::{Ahead, SmallFile};
use crate::standing::{Answer, Standing};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha1::{Digest as _, Sha1};
use std::collections::HashMap;
use std::io::{self, Read as _};
use trainlock_store::{PutError, Session, StoreError, Tree};
use trainlock_types::{
    Algorithm, Checksum, DataSource, Digest, Entry, EntryKind, LISTING_IN_LOCK, Listing, ListingError, RelPath,
    SourceUrl, VERSIONS_IN_LOCK, nearest,
};

/// A source that holds many files.
pub(crate) trait Source: Sync {
    /// What it holds: at the locked revision if the question names one, else now.
    ///
    /// # Errors
    /// If it can't be found out. A source that answers with another revision than the locked one is an error too.
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError>;

    /// Whether it gives now what is locked, without fetching a file of it. The question names nothing that is locked.
    ///
    /// # Errors
    /// If it can't be found out.
    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        now::by_listing(question, wanted, self.look(question)?)
    }

    /// What it answers for what is locked, without fetching a file of it. The question names what is locked.
    ///
    /// # Errors
    /// If it can't be found out, or is not there any more.
    fn answers(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Vec<Answer>, FetchError> {
        now::of_each(question, wanted, self.look(question)?)
    }

    /// An error of fetching a locked file, in terms of what it is a file of: all of that may be gone.
    fn explained(&self, _question: &Question<'_>, error: FetchError) -> FetchError {
        error
    }

    /// Where a file lies at the locked revision, for kinds that know it without asking.
    fn place(&self, _locked: &Locked<'_>, _path: &RelPath) -> Option<Vec<SourceUrl>> {
        None
    }
}

/// What a source is asked with.
pub(crate) struct Question<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) session: &'a Session,
    /// The data set, for people.
    pub(crate) name: &'a str,
    /// The files that are wanted. A source need not look at it, but for files that come as a whole.
    pub(crate) chosen: &'a Chosen,
    /// What is locked; none while locking.
    pub(crate) locked: Option<Locked<'a>>,
}

/// What the lock says of where a data set came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locked<'a> {
    /// The address with its revision resolved: [`Found::resolved`] as it was.
    pub(crate) resolved: Option<&'a str>,
    /// [`Found::by`] as it was.
    pub(crate) by: Option<(Digest, u64)>,
}

/// What a source holds, at one revision.
pub(crate) struct Found {
    /// The address with its revision resolved, without secrets; none where the request itself says it all.
    pub(crate) resolved: Option<String>,
    /// Digest and size of the file that says what there is (a description, a registry) or that holds it all (a package's
    /// archive), which is in the store.
    pub(crate) by: Option<(Digest, u64)>,
    pub(crate) files: Files,
}

/// The files of a source.
pub(crate) enum Files {
    /// Known by name, to be fetched one by one.
    Listed(Vec<Item>),
    /// In the store already, those that were chosen.
    Whole(Tree),
}

/// A file that a source says it has.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) path: RelPath,
    /// Its size in bytes, where the source states it.
    pub(crate) size: Option<u64>,
    /// Its digest, where the source states it.
    pub(crate) sha256: Option<Digest>,
    /// What else the source states of its bytes; checked when it is fetched.
    pub(crate) checksum: Option<Checksum>,
    /// Git's hash of it (SHA-1 of a header and its bytes), where the source states that.
    pub(crate) blob: Option<String>,
    /// Where it lies, in the order in which they are tried.
    pub(crate) sources: Vec<SourceUrl>,
}

impl Item {
    /// Its transfer, for people.
    fn label(&self, name: &str) -> String {
        format!("{name}/{}", self.path)
    }

    fn expect(&self) -> Expect<'_> {
        Expect { sha256: self.sha256, size: self.size, checksum: self.checksum.as_ref() }
    }
}

/// Which files a request wants.
pub(crate) struct Chosen {
    globs: Vec<String>,
    /// What is chosen, and what of that is not.
    sets: Vec<(GlobSet, GlobSet)>,
}

impl Chosen {
    /// Those that match one of the globs (`*` stays within a folder, `**` does not); all, if there are none.
    pub(crate) fn new(name: &str, globs: &[String]) -> Result<Chosen, FetchError> {
        let bad = |error: globset::Error| FetchError::Contents {
            name: name.to_owned(),
            reason: format!("a glob of `files` can't be used: {error}"),
            hint: None,
        };
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            builder.add(GlobBuilder::new(glob).literal_separator(true).build().map_err(bad)?);
        }
        Ok(Chosen { globs: globs.to_vec(), sets: vec![(builder.build().map_err(bad)?, GlobSet::empty())] })
    }

    /// Those that one of the sets chooses and does not leave out; `globs` are what is said of them.
    fn of_sets(globs: Vec<String>, sets: Vec<(GlobSet, GlobSet)>) -> Chosen {
        Chosen { globs, sets }
    }

    pub(crate) fn has(&self, path: &RelPath) -> bool {
        let path = path.as_str();
        self.globs.is_empty() || self.sets.iter().any(|(set, not)| set.is_match(path) && !not.is_match(path))
    }

    /// The error of a choice that no file is of; `there` are the files that there are.
    fn nothing<'p>(&self, name: &str, there: impl Iterator<Item = &'p str>) -> FetchError {
        let there: Vec<&str> = there.take(10_000).collect();
        let (reason, hint) = match self.globs.first() {
            None => ("it holds no file".to_owned(), None),
            Some(first) => {
                let near = nearest(first, there.iter().copied()).or_else(|| there.first().copied());
                let hint = near.map(|near| format!("it has {} files, for example `{near}`", there.len()));
                (format!("no file matches {}", self.globs.join(", ")), hint)
            }
        };
        FetchError::Contents { name: name.to_owned(), reason, hint }
    }
}

/// A locked data set of many files, as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManyWanted {
    /// What the manifest asks for.
    pub source: DataSource,
    /// The address with its revision resolved.
    pub resolved: Option<String>,
    /// Digest and size in bytes of the description or archive that it was read from.
    pub by: Option<(Digest, u64)>,
    /// The digest of the listing.
    pub tree: Digest,
    /// The bytes of all files together.
    pub size: u64,
    /// How many files there are.
    pub count: u64,
    /// The listing, where the lock holds it.
    pub listing: Option<Listing>,
    /// The version of each entry of the listing, in its order, where the bucket keeps versions; empty otherwise.
    pub versions: Vec<String>,
}

/// The source of a data set, if it is one of many files.
fn source<'a>(source: &'a DataSource, settings: &'a Settings) -> Option<Box<dyn Source + 'a>> {
    match source {
        DataSource::Url { url: SourceUrl::Git(address), rev, .. } => {
            Some(Box::new(git::Git { address, rev: rev.as_deref() }))
        }
        DataSource::Url { url: SourceUrl::Hf(address), rev, .. } => {
            Some(Box::new(hf::Hf { address, rev: rev.as_deref(), endpoint: &settings.hub }))
        }
        DataSource::Url { url: SourceUrl::Doi(address), .. } => Some(Box::new(doi::Doi { address })),
        DataSource::Url { url: SourceUrl::Object(address), files, .. }
            if address.path().is_empty() || address.path().ends_with('/') || !files.is_empty() =>
        {
            Some(Box::new(bucket::Bucket { address }))
        }
        DataSource::Url { url: SourceUrl::Pypi(address), .. } => Some(Box::new(pypi::Pypi { address })),
        DataSource::Croissant(place) => Some(Box::new(croissant::Croissant { place, hub: &settings.hub })),
        DataSource::Pooch { registry, base } => Some(Box::new(pooch::Pooch { registry, base: base.as_ref() })),
        _ => None,
    }
}

/// Whether a data set's source is one of many files.
pub(crate) fn is_many(data: &DataSource, settings: &Settings) -> bool {
    source(data, settings).is_some()
}

fn globs(source: &DataSource) -> &[String] {
    match source {
        DataSource::Url { files, .. } => files,
        _ => &[],
    }
}

impl Fetcher {
    /// Finds out what a request stands for now. Files of which the source states the SHA-256 are not fetched.
    pub(crate) fn resolve_many(
        &self,
        session: &Session,
        name: &str,
        request: &DataSource,
    ) -> Result<Resolved, FetchError> {
        let Some(source) = source(request, &self.settings) else {
            unreachable!("only sources of many files are asked for here")
        };
        let chosen = Chosen::new(name, globs(request))?;
        let found = source.look(&Question { fetcher: self, session, name, chosen: &chosen, locked: None })?;
        let (resolved, archive) = (found.resolved, found.by);
        let mut versions = Vec::new();
        let listing = match found.files {
            Files::Whole(tree) if tree.count == 0 => return Err(chosen.nothing(name, std::iter::empty())),
            Files::Whole(tree) => tree.listing,
            Files::Listed(items) => {
                let wanted: Vec<&Item> = items.iter().filter(|item| chosen.has(&item.path)).collect();
                if wanted.is_empty() {
                    return Err(chosen.nothing(name, items.iter().map(|item| item.path.as_str())));
                }
                let (listing, of_objects) = self.listed(session, name, &wanted)?;
                versions = of_objects;
                // Longer ones don't stand in the lock: they are found in the store, or asked for again.
                if versions.is_empty() && listing.entries().len() > LISTING_IN_LOCK {
                    session.put_bytes(listing.to_text().as_bytes()).map_err(|e| store(name, e))?;
                }
                listing
            }
        };
        let (digest, size, count) = (listing.digest(), listing.size(), listing.count());
        Ok(Resolved {
            source: resolved,
            content: Content::Tree { digest, size, count, listing },
            archive,
            versions,
            validator: None,
        })
    }

    /// The listing of these items; what has no stated SHA-256 is fetched to know it. With the version of each object, if all have one.
    fn listed(&self, session: &Session, name: &str, items: &[&Item]) -> Result<(Listing, Vec<String>), FetchError> {
        // Versions of longer listings would not be locked.
        let keeps = items.len() <= VERSIONS_IN_LOCK;
        let entries = self.each(items, |item| {
            let (sha256, size, version) = match (item.sha256, item.size) {
                (Some(sha256), Some(size)) => (sha256, size, None),
                _ => self.one(session, name, item, None)?,
            };
            let entry = Entry { path: item.path.clone(), sha256, size, kind: EntryKind::File };
            Ok((entry, version.filter(|_| keeps)))
        });
        let entries = entries.into_iter().collect::<Result<Vec<_>, FetchError>>()?;
        let versions: HashMap<RelPath, String> =
            entries.iter().filter_map(|(entry, version)| Some((entry.path.clone(), version.clone()?))).collect();
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
        let listing = Listing::new(entries).map_err(|error| listing_error(name, &error))?;
        let in_order = listing.entries().iter().map(|entry| versions.get(&entry.path).cloned());
        let mut versions = in_order.collect::<Option<Vec<String>>>().unwrap_or_default();
        // What was there before the bucket kept versions has this one.
        if versions.iter().all(|version| version == NO_VERSION) {
            versions.clear();
        }
        Ok((listing, versions))
    }

    /// Brings one file into the store, unless it is there; its digest and size in bytes, and the version of what came.
    fn one(
        &self,
        session: &Session,
        name: &str,
        item: &Item,
        ahead: Option<Ahead<'_>>,
    ) -> Result<(Digest, u64, Option<String>), FetchError> {
        if let (None, Some(sha256)) = (&ahead, item.sha256)
            && let Some(path) = session.store().object(&sha256, item.size).map_err(|e| store(name, e))?
        {
            let size = fs_err::metadata(&path).map_err(|source| {
                let error = StoreError::Io { action: "read", path, source };
                store(name, error)
            })?;
            return Ok((sha256, size.len(), None));
        }
        let label = item.label(name);
        let (sha256, size, marks) = self.download_marked(session, &label, &item.sources, item.expect(), ahead)?;
        if let Some(expected) = &item.blob {
            let found = blob_hash(session, &sha256, size).map_err(|e| store(name, e))?;
            if found != *expected {
                let sha1 = |hex: &str| Checksum { algorithm: Algorithm::Sha1, hex: hex.to_owned() };
                let mismatch = Mismatch::Checksum { expected: sha1(expected), found: sha1(&found) };
                let url = item.sources.first().map(SourceUrl::redacted).unwrap_or_default();
                return Err(FetchError::Unpacked { name: label, url, mismatch });
            }
        }
        Ok((sha256, size, marks.version))
    }

    /// Brings a locked data set into the store as a tree.
    pub(crate) fn bring_many(&self, session: &Session, name: &str, wanted: &ManyWanted) -> Result<(), FetchError> {
        let Some(source) = source(&wanted.source, &self.settings) else {
            unreachable!("only such sources could be locked")
        };
        let chosen = Chosen::new(name, globs(&wanted.source))?;
        let locked = Locked { resolved: wanted.resolved.as_deref(), by: wanted.by };
        let question = Question { fetcher: self, session, name, chosen: &chosen, locked: Some(locked) };
        let look = || {
            if self.settings.offline {
                let url = wanted.resolved.clone().unwrap_or_default();
                return Err(FetchError::Offline { name: name.to_owned(), url });
            }
            source.look(&question)
        };
        let listing = match &wanted.listing {
            Some(listing) => Some(listing.clone()),
            None => session.store().listing(&wanted.tree).map_err(|e| store(name, e))?,
        };
        let listing = match listing {
            Some(listing) => listing,
            None => match look()?.files {
                Files::Whole(tree) => return self.is_locked(name, wanted, &tree.listing),
                Files::Listed(items) => {
                    let items: Vec<&Item> = items.iter().filter(|item| chosen.has(&item.path)).collect();
                    let (listing, _) = self.listed(session, name, &items)?;
                    self.is_locked(name, wanted, &listing)?;
                    listing
                }
            },
        };
        let mut missing = Vec::new();
        for entry in listing.entries() {
            if session.store().object(&entry.sha256, Some(entry.size)).map_err(|e| store(name, e))?.is_none() {
                missing.push(entry);
            }
        }
        let mut places: Vec<Option<Vec<SourceUrl>>> =
            missing.iter().map(|entry| source.place(&locked, &entry.path)).collect();
        if places.iter().any(Option::is_none) {
            match look()?.files {
                Files::Whole(tree) => return self.is_locked(name, wanted, &tree.listing),
                Files::Listed(items) => {
                    let mut by_path: HashMap<&RelPath, &Item> = items.iter().map(|item| (&item.path, item)).collect();
                    for (entry, place) in missing.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
                        let item = by_path.remove(&entry.path).ok_or_else(|| FetchError::Contents {
                            name: name.to_owned(),
                            reason: format!("`{}` is locked, and the source no longer has it", entry.path),
                            hint: Some(format!("if the change upstream is meant, run `trainlock update {name}`")),
                        })?;
                        if let Some(found) = item.sha256.filter(|found| *found != entry.sha256) {
                            let mismatch = Mismatch::Sha256 { expected: entry.sha256, found };
                            let url = item.sources.first().map(SourceUrl::redacted).unwrap_or_default();
                            return Err(FetchError::Unpacked { name: format!("{name}/{}", entry.path), url, mismatch });
                        }
                        *place = Some(item.sources.clone());
                    }
                }
            }
        }
        // Each is asked for at its version, and as it is now if that is gone: the hash decides.
        let versions: HashMap<&RelPath, &String> =
            listing.entries().iter().map(|entry| &entry.path).zip(&wanted.versions).collect();
        for (entry, place) in missing.iter().zip(&mut places) {
            if let (Some(version), Some(place)) = (versions.get(&entry.path), place)
                && let Some(at) = place.first().and_then(|source| source.at_version(version))
            {
                place.insert(0, at);
            }
        }
        let wants: Vec<Item> = missing
            .iter()
            .zip(places)
            .map(|(entry, sources)| Item {
                path: entry.path.clone(),
                size: Some(entry.size),
                sha256: Some(entry.sha256),
                checksum: None,
                blob: None,
                sources: sources.unwrap_or_default(),
            })
            .collect();
        let came = self.each_ahead(
            &wants,
            |item| SmallFile::of(item.label(name), &item.sources, item.expect()),
            |item, ahead| self.one(session, name, item, ahead),
        );
        for result in came {
            result.map_err(|error| source.explained(&question, error))?;
        }
        session.tree_from_objects(&listing).map(drop).map_err(|error| put_error(name, error))
    }

    /// An error unless the listing is the locked one.
    fn is_locked(&self, name: &str, wanted: &ManyWanted, found: &Listing) -> Result<(), FetchError> {
        let (expected, found) = (wanted.tree, found.digest());
        if expected == found {
            return Ok(());
        }
        let url = wanted.resolved.clone().unwrap_or_default();
        Err(FetchError::Unpacked { name: name.to_owned(), url, mismatch: Mismatch::Tree { expected, found } })
    }
}

/// Git's hash of an object of the store, in hexadecimal digits.
fn blob_hash(session: &Session, sha256: &Digest, size: u64) -> Result<String, StoreError> {
    let path = session.store().object(sha256, Some(size))?.ok_or(StoreError::Missing(*sha256))?;
    let failed = |source: io::Error| StoreError::Io { action: "read", path: path.clone(), source };
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {size}\0"));
    let mut file = fs_err::File::open(&path).map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn store(name: &str, error: StoreError) -> FetchError {
    FetchError::Store { name: name.to_owned(), error }
}

fn listing_error(name: &str, error: &ListingError) -> FetchError {
    let reason = match error {
        ListingError::Order(path) => format!("it has `{path}` twice, or as a file and as a folder"),
        ListingError::Line(_) => "its listing can't be read".to_owned(),
    };
    FetchError::Contents { name: name.to_owned(), reason, hint: None }
}

pub(crate) fn put_error(name: &str, error: PutError) -> FetchError {
    match error {
        PutError::Store(error) => store(name, error),
        other => FetchError::Contents { name: name.to_owned(), reason: other.to_string(), hint: None },
    }
}

/// An error about what a source said: it answered, and not with what is wanted.
pub(crate) fn contents(name: &str, reason: impl Into<String>, hint: Option<String>) -> FetchError {
    FetchError::Contents { name: name.to_owned(), reason: reason.into(), hint }
}
