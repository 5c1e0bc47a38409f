//! What sources of many files say now of what is locked: the part that is common to all kinds.

use super::{Chosen, Files, Found, Item, Locked, ManyWanted, Question, globs, source, store};
use crate::error::FetchError;
use crate::fetcher::Fetcher;
use crate::standing::{Answer, Found as Says, Standing, fails};
use std::collections::BTreeMap;
use trainlock_store::Session;
use trainlock_types::{Entry, EntryKind, LISTING_IN_LOCK, Listing, RelPath, SourceUrl};

/// What of an address with its revision is the revision: the commit behind the `@`, else all of it.
pub(super) fn revision(resolved: &str) -> &str {
    resolved.rsplit_once('@').map_or(resolved, |(_, revision)| revision)
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
    let is_gone = |entry: &&Entry| !there.contains_key(&entry.path);
    let gone = listing.entries().iter().filter(is_gone).count();
    let kept: Vec<(&Entry, &&Item)> =
        listing.entries().iter().filter_map(|entry| Some((entry, there.get(&entry.path)?))).collect();
    let changed = kept.iter().filter(|(entry, item)| differs(entry, item).is_some()).count();
    let added = there.len() - kept.len();
    if gone + changed + added == 0 {
        return Ok(Standing::Same { by: "listing" });
    }
    let counts = [(added, "added"), (changed, "changed"), (gone, "gone")];
    let now: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    Ok(Standing::Moved { locked: format!("{} files", wanted.count), now: now.join(", ") })
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
    let one = |found| Ok(vec![Answer { url: url.clone(), found }]);
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
        let one = |found| vec![Answer { url: wanted.resolved.clone().unwrap_or_default(), found }];
        let Some(source) = source(&wanted.source, &self.settings) else {
            return Ok(one(Says::Unknown("this kind of source is not asked".to_owned())));
        };
        let chosen = Chosen::new(name, globs(&wanted.source))?;
        let locked = Some(Locked { resolved: wanted.resolved.as_deref(), by: wanted.by });
        match source.answers(&Question { fetcher: self, session, name, chosen: &chosen, locked }, wanted) {
            Ok(answers) => Ok(answers),
            Err(error) => Ok(one(fails(error)?)),
        }
    }
}
