//! What sources of many files say now of what is locked: the part that is common to all kinds.

use super::{Chosen, Files, Found, Item, Locked, ManyWanted, Question, Source, globs, source, store};
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::standing::{Answer, Found as Says, Standing, fails};
use std::collections::{BTreeMap, BTreeSet};
use trainlock_store::Session;
use trainlock_types::{DataSource, Entry, EntryKind, LISTING_IN_LOCK, Listing, RelPath, SourceUrl};

/// What of an address with its revision is the revision: the commit behind the `@`, else all of it.
pub(super) fn revision(resolved: &str) -> &str {
    resolved.rsplit_once('@').map_or(resolved, |(_, revision)| revision)
}

/// Where a data set comes from, as a whole, as it may be shown.
fn address(wanted: &ManyWanted) -> String {
    match (&wanted.resolved, &wanted.source) {
        (Some(resolved), _) => resolved.clone(),
        (None, DataSource::Url { url, .. }) => url.redacted(),
        (None, DataSource::Croissant(place)) => {
            SourceUrl::parse(place).map_or_else(|_| place.clone(), |url| url.redacted())
        }
        (None, DataSource::Path(path) | DataSource::Pooch { registry: path, .. }) => path.to_string(),
    }
}

/// What a listing now says, beside the locked one.
pub(super) fn by_listing(question: &Question<'_>, wanted: &ManyWanted, found: Found) -> Result<Standing, FetchError> {
    if let (Some(locked), Some(now)) = (&wanted.resolved, &found.resolved)
        && locked != now
    {
        return Ok(Standing::of_revision("revision", revision(locked), revision(now)));
    }
    let Files::Listed(items) = found.files else {
        return Ok(Standing::Unknown { why: "it would have to be fetched to know".to_owned() });
    };
    let items: Vec<&Item> = items.iter().filter(|item| question.chosen.has(&item.path)).collect();
    let Some(listing) = listing(question, wanted)? else {
        let (locked, now) = (wanted.count.to_string(), items.len().to_string());
        return Ok(match Standing::of_revision("number of files", &locked, &now) {
            Standing::Moved { locked, now } => {
                Standing::Moved { locked: format!("{locked} files"), now: format!("{now} files") }
            }
            same => same,
        });
    };
    let there: BTreeMap<&RelPath, &Item> = items.iter().map(|item| (&item.path, *item)).collect();
    let (mut news, mut alike) = (News::default(), Vec::new());
    for (i, entry) in listing.entries().iter().enumerate() {
        match there.get(&entry.path) {
            None => news.gone.push(entry.path.to_string()),
            Some(item) if differs(entry, item).is_some() => news.changed.push(entry.path.to_string()),
            Some(item) => {
                let version = item.sources.first().zip(wanted.versions.get(i));
                alike.extend(version.map(|(source, version)| (&entry.path, source, version)));
            }
        }
    }
    // Where versions are locked, those tell of an object that was replaced by one of its size.
    let fetcher = question.fetcher;
    let now = fetcher.each(&alike, |(_, source, _)| fetcher.stated(question.name, source));
    for ((path, _, version), now) in alike.iter().zip(now) {
        if now?.version.as_ref() != Some(*version) {
            news.changed.push(path.to_string());
        }
    }
    news.changed.sort_unstable();
    let known: BTreeSet<&RelPath> = listing.entries().iter().map(|entry| &entry.path).collect();
    news.added.extend(there.keys().filter(|path| !known.contains(*path)).map(ToString::to_string));
    Ok(news.standing(if alike.is_empty() { "listing" } else { "version" }, wanted.count))
}

/// Files that are not as they were.
#[derive(Default)]
struct News {
    added: Vec<String>,
    changed: Vec<String>,
    gone: Vec<String>,
}

impl News {
    /// In words, beside so many files that are locked.
    fn standing(self, by: &'static str, locked: u64) -> Standing {
        if self.gone.len() as u64 == locked && locked > 0 && self.added.is_empty() {
            return Standing::Gone { why: format!("none of the {locked} files is there any more") };
        }
        let words = |(files, what): (Vec<String>, &str)| {
            let more = if files.len() > 3 { ", …" } else { "" };
            let named = files.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            (!files.is_empty()).then(|| format!("{} {what} ({named}{more})", files.len()))
        };
        let all = [(self.added, "added"), (self.changed, "changed"), (self.gone, "gone")];
        let now: Vec<String> = all.into_iter().filter_map(words).collect();
        if now.is_empty() {
            return Standing::Same { by };
        }
        let locked = if locked == 1 { "1 file".to_owned() } else { format!("{locked} files") };
        Standing::Moved { locked, now: now.join(", ") }
    }
}

/// What addresses state now of files that a description names, each beside the size in bytes that is locked of it, where one is.
/// What a description is silent about may change behind its back.
pub(super) fn by_addresses(
    question: &Question<'_>,
    wanted: &ManyWanted,
    items: &[Item],
) -> Result<Standing, FetchError> {
    let Some(listing) = listing(question, wanted)? else {
        return Ok(Standing::Same { by: "description" });
    };
    let sizes: BTreeMap<&RelPath, u64> = listing.entries().iter().map(|entry| (&entry.path, entry.size)).collect();
    let fetcher = question.fetcher;
    let asked: Vec<&Item> = items.iter().filter(|item| question.chosen.has(&item.path)).take(LISTING_IN_LOCK).collect();
    let answers = fetcher.each(&asked, |item| {
        let Some(source) = item.sources.first() else { return Ok(None) };
        Ok(Some(match fetcher.stated(question.name, source) {
            // The size of an archive stands in no lock.
            Ok(stated) => sizes
                .get(&item.path)
                .map_or(Standing::Same { by: "answer" }, |size| Standing::of_file(*size, None, &stated)),
            Err(error) if error.is_gone() => Standing::Gone { why: error.why() },
            Err(error) => return Err(error),
        }))
    });
    let mut news = News::default();
    for (item, answer) in asked.iter().zip(answers) {
        match answer? {
            Some(Standing::Gone { .. }) => news.gone.push(item.path.to_string()),
            Some(Standing::Moved { locked, now }) => news.changed.push(format!("{}: {locked} -> {now}", item.path)),
            _ => {}
        }
    }
    Ok(news.standing("description and sizes", wanted.count))
}

/// In what a listed file is not the locked one, in words.
fn differs(entry: &Entry, item: &Item) -> Option<String> {
    if let Some(found) = item.sha256.filter(|found| *found != entry.sha256) {
        return Some(format!("sha256 {}, and {} is locked", found.short(), entry.sha256.short()));
    }
    let size = item.size.filter(|size| *size != entry.size)?;
    Some(format!("{size} bytes, and {} are locked", entry.size))
}

/// The locked listing, where the lock or the store has it.
fn listing(question: &Question<'_>, wanted: &ManyWanted) -> Result<Option<Listing>, FetchError> {
    match &wanted.listing {
        Some(listing) => Ok(Some(listing.clone())),
        None => question.session.store().listing(&wanted.tree).map_err(|e| store(question.name, e)),
    }
}

/// What is listed at the locked revision, beside the lock; and of so many files as may stand in a lock what each address answers.
pub(super) fn of_each(question: &Question<'_>, wanted: &ManyWanted, found: Found) -> Result<Vec<Answer>, FetchError> {
    let url = wanted.resolved.clone().unwrap_or_default();
    let one = |found| Ok(vec![Answer { url: address(wanted), found }]);
    let Files::Listed(items) = found.files else {
        return one(Says::Unknown("it would have to be fetched to know".to_owned()));
    };
    let Some(listing) = listing(question, wanted)? else {
        return one(Says::Unknown("its listing is neither in the lock nor in the store: fetch it first".to_owned()));
    };
    let there: BTreeMap<&RelPath, &Item> = items.iter().map(|item| (&item.path, item)).collect();
    let mut answers = Vec::new();
    let mut asked: Vec<(&Entry, &SourceUrl)> = Vec::new();
    for entry in listing.entries().iter().filter(|entry| entry.kind != EntryKind::Symlink) {
        let of_file = |found| Answer { url: format!("{url} {}", entry.path).trim_start().to_owned(), found };
        match there.get(&entry.path) {
            None => answers.push(of_file(Says::Fails("the source no longer lists it".to_owned()))),
            Some(item) => match (differs(entry, item), item.sources.first()) {
                (Some(words), _) => answers.push(of_file(Says::Differs(words))),
                (None, Some(source)) if asked.len() < LISTING_IN_LOCK => asked.push((entry, source)),
                (None, _) => answers.push(of_file(Says::Agrees("listing"))),
            },
        }
    }
    let fetcher = question.fetcher;
    for answer in fetcher.each(&asked, |(entry, source)| fetcher.answer(question.name, source, entry.size)) {
        answers.push(answer?);
    }
    Ok(answers)
}

/// What each object answers at its locked version, where those are locked: whatever is listed now.
fn at_versions(
    source: &dyn Source,
    question: &Question<'_>,
    wanted: &ManyWanted,
) -> Option<Result<Vec<Answer>, FetchError>> {
    let (listing, locked) = (wanted.listing.as_ref()?, question.locked.as_ref()?);
    let at = |(entry, version): (&Entry, &String)| {
        Some((source.place(locked, &entry.path)?.first()?.at_version(version)?, entry.size))
    };
    let asked = listing.entries().iter().zip(&wanted.versions).map(at).collect::<Option<Vec<_>>>()?;
    let fetcher = question.fetcher;
    let answers = fetcher.each(&asked, |(url, size)| fetcher.answer(question.name, url, *size));
    (!asked.is_empty()).then(|| answers.into_iter().collect())
}

impl Fetcher {
    /// Whether a source of many files gives now what is locked of it.
    pub(crate) fn standing_of_many(
        &self,
        session: &Session,
        name: &str,
        wanted: &ManyWanted,
    ) -> Result<Standing, FetchError> {
        let Some(source) = source(&wanted.source, &self.settings) else {
            return Ok(Standing::Unknown { why: "this kind of source is not asked".to_owned() });
        };
        let chosen = Chosen::new(name, globs(&wanted.source))?;
        source.standing(&Question { fetcher: self, session, name, chosen: &chosen, locked: None }, wanted)
    }

    /// What a source of many files answers for what is locked of it.
    pub(crate) fn answers_of_many(
        &self,
        session: &Session,
        name: &str,
        wanted: &ManyWanted,
    ) -> Result<Vec<Answer>, FetchError> {
        let one = |found| vec![Answer { url: address(wanted), found }];
        let Some(source) = source(&wanted.source, &self.settings) else {
            return Ok(one(Says::Unknown("this kind of source is not asked".to_owned())));
        };
        let chosen = Chosen::new(name, globs(&wanted.source))?;
        let locked = Some(Locked { resolved: wanted.resolved.as_deref(), by: wanted.by });
        let question = Question { fetcher: self, session, name, chosen: &chosen, locked };
        let answers = match at_versions(&*source, &question, wanted) {
            Some(answers) => answers,
            None => source.answers(&question, wanted),
        };
        match answers {
            Ok(answers) => Ok(answers),
            Err(error) => Ok(one(fails(error)?)),
        }
    }
}
