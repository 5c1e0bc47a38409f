//! What sources say now of what is locked, without its bytes.
//!
//! Two questions. [`Fetcher::standing`]: would locking again give the same? [`Fetcher::answers`]: does each locked address
//! still have what was locked? A size that agrees proves nothing of the bytes, one that differs does; only fetching knows more.

use crate::error::{Failure, FetchError, Reason, SourceFailure, SourceFailures};
use crate::fetcher::{Fetcher, Want, Wanted};
use crate::http::Stated;
use crate::many;
use crate::net::{Ask, Head};
use std::io;
use trainlock_store::Session;
use trainlock_types::{Digest, ImageReference, SourceUrl, Validator};
use url::Url;

/// What a source gives now, beside what is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The same, as far as it can be known without fetching.
    Same {
        /// What was compared: `commit`, `size`, …
        by: &'static str,
    },
    /// Something else.
    Moved {
        /// What is locked, in a word: a commit, a version, a size.
        locked: String,
        /// The same of what is there now.
        now: String,
    },
    /// As many bytes, of which the server says something else than when they were locked: they may be others.
    Suspect {
        /// What it said.
        locked: String,
        /// What it says now.
        now: String,
    },
    /// The same, and there is a newer one, which the request may allow: only locking again can tell.
    Newer {
        /// The locked version.
        locked: String,
        /// The newest that there is.
        now: String,
    },
    /// The source no longer has it, nor anything else that the request allows.
    Gone {
        /// What it says, in words.
        why: String,
    },
    /// The same, and its publisher no longer wants it to be used.
    Withdrawn {
        /// The publisher's reason; may be empty.
        why: String,
    },
    /// The source does not say.
    Unknown {
        /// What it does not say.
        why: String,
    },
}

/// What one locked address answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The address, redacted; of many files the source's, if one answer is about all of them.
    pub url: String,
    /// What it has, compared with the lock.
    pub found: Found,
}

/// What an address has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It answers, and nothing that it says speaks against the lock; what was compared.
    Agrees(&'static str),
    /// It answers with something else than is locked, in words.
    Differs(String),
    /// It answers with as many bytes as are locked, and says something else of them than it did: in words.
    Suspect(String),
    /// It does not give it any more, or could not be asked: why, in words.
    Fails(String),
    /// It answers and does not say what could be compared, or is not asked: why, in words.
    Unknown(String),
}

impl Found {
    /// What is stated of a file, of which so many bytes are locked, and what the server said of them.
    fn of_file(locked: u64, validator: Option<&Validator>, stated: &Stated) -> Found {
        match stated.size {
            Some(size) if size == locked => match validator.and_then(|v| Some((v, stated.validator(v)?))) {
                Some((locked, now)) if *locked == now => Found::Agrees("size and validator"),
                Some((locked, now)) => Found::Suspect(format!("{now}, and {locked} is locked")),
                None => Found::Agrees("size"),
            },
            _ if stated.page => Found::Differs("an HTML page, as log-ins and quotas answer with".to_owned()),
            Some(size) => Found::Differs(format!("{size} bytes, and {locked} are locked")),
            None => Found::Unknown("it does not state the size".to_owned()),
        }
    }
}

impl Standing {
    /// What is stated of a file, of which so many bytes are locked, and what the server said of them.
    pub(crate) fn of_file(locked: u64, validator: Option<&Validator>, stated: &Stated) -> Standing {
        match stated.size {
            Some(size) if size == locked => match validator.and_then(|v| Some((v, stated.validator(v)?))) {
                Some((locked, now)) if *locked == now => Standing::Same { by: "size and validator" },
                Some((locked, now)) => Standing::Suspect { locked: locked.to_string(), now: now.to_string() },
                None => Standing::Same { by: "size" },
            },
            _ if stated.page => Standing::Moved { locked: format!("{locked} bytes"), now: "an HTML page".to_owned() },
            Some(size) => Standing::Moved { locked: format!("{locked} bytes"), now: format!("{size} bytes") },
            None => Standing::Unknown { why: "the server does not state the size".to_owned() },
        }
    }

    /// What two versions of an object say.
    fn of_version(locked: &str, now: &str) -> Standing {
        match locked == now {
            true => Standing::Same { by: "version" },
            false => Standing::Moved { locked: format!("version {locked}"), now: format!("version {now}") },
        }
    }

    /// What two revisions or versions say.
    pub(crate) fn of_revision(by: &'static str, locked: &str, now: &str) -> Standing {
        if locked == now {
            return Standing::Same { by };
        }
        Standing::Moved { locked: locked.to_owned(), now: now.to_owned() }
    }
}

impl Fetcher {
    /// Whether a source gives now what is locked of it. Of plain addresses the first that answers counts, as for locking;
    /// `validator` is what the first one said of the bytes.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn standing(
        &self,
        session: &Session,
        want: &Want,
        validator: Option<&Validator>,
    ) -> Result<Standing, FetchError> {
        let size = match &want.content {
            Wanted::Many(wanted) => return or_gone(self.standing_of_many(session, &want.name, wanted)),
            content => fetched_size(content),
        };
        // Behind an object's locked version, which stays what it is, comes the object itself.
        let locked = want.sources.first().and_then(SourceUrl::version);
        let own = usize::from(locked.is_some() && want.sources.len() > 1);
        let mut failures = Vec::new();
        for (i, url) in want.sources.iter().skip(own).enumerate() {
            match self.stated(&want.name, url) {
                Ok(Stated { version: Some(now), .. }) if i == 0 && locked.is_some() => {
                    return Ok(Standing::of_version(&locked.unwrap_or_default(), &now));
                }
                Ok(stated) => return Ok(Standing::of_file(size, validator.filter(|_| i == 0), &stated)),
                Err(FetchError::Sources { failures: SourceFailures(found), .. }) => failures.extend(found),
                Err(error) => return Err(error),
            }
        }
        or_gone(Err(FetchError::Sources { name: want.name.clone(), failures: SourceFailures(failures) }))
    }

    /// The same of many, at once and in their order.
    pub fn standings(
        &self,
        session: &Session,
        wants: &[(Want, Option<&Validator>)],
    ) -> Vec<Result<Standing, FetchError>> {
        self.each(wants, |(want, validator)| self.standing(session, want, *validator))
    }

    /// What each address of something locked answers now; `validator` is what the first one said of the bytes.
    ///
    /// # Errors
    /// If the user interrupts.
    pub fn answers(
        &self,
        session: &Session,
        want: &Want,
        validator: Option<&Validator>,
    ) -> Result<Vec<Answer>, FetchError> {
        let size = match &want.content {
            Wanted::Many(wanted) => return self.answers_of_many(session, &want.name, wanted),
            content => fetched_size(content),
        };
        let validators = std::iter::once(validator).chain(std::iter::repeat(None));
        // An object that is locked at a version is asked for at that one: what is at its address now is another question.
        let own = want.sources.first().is_some_and(|url| url.version().is_some()).then_some(1);
        let all =
            want.sources.iter().zip(validators).enumerate().filter(|(i, _)| Some(*i) != own).map(|(_, asked)| asked);
        all.map(|(url, validator)| self.answer_of(&want.name, url, size, validator)).collect()
    }

    /// The same of many, at once and in their order.
    pub fn all_answers(
        &self,
        session: &Session,
        wants: &[(Want, Option<&Validator>)],
    ) -> Vec<Result<Vec<Answer>, FetchError>> {
        self.each(wants, |(want, validator)| self.answers(session, want, *validator))
    }

    /// What one address answers, of which so many bytes are locked.
    pub(crate) fn answer(&self, name: &str, url: &SourceUrl, size: u64) -> Result<Answer, FetchError> {
        self.answer_of(name, url, size, None)
    }

    fn answer_of(
        &self,
        name: &str,
        url: &SourceUrl,
        size: u64,
        validator: Option<&Validator>,
    ) -> Result<Answer, FetchError> {
        let found = match self.stated(name, url) {
            Ok(stated) => match Found::of_file(size, validator, &stated) {
                Found::Agrees(_) if url.version().is_some() => Found::Agrees("version"),
                found => found,
            },
            Err(error) => fails(error)?,
        };
        Ok(Answer { url: url.redacted(), found })
    }

    /// The best of what the addresses of one file have, of which so many bytes are locked; without the addresses.
    pub(crate) fn found_at(&self, want: &Want, size: u64) -> Result<Found, FetchError> {
        let mut best = Found::Unknown("it has no address".to_owned());
        for url in &want.sources {
            let found = self.answer(&want.name, url, size)?.found;
            // One that has something else says more than one that can't be reached.
            match (&best, found) {
                (_, found @ Found::Agrees(_)) => return Ok(found),
                (Found::Differs(_), _) => {}
                (_, found) => best = found,
            }
        }
        Ok(best)
    }

    /// Whether an address answers with a file, of whose size nothing is locked.
    pub(crate) fn answer_at_all(&self, name: &str, url: &SourceUrl) -> Result<Answer, FetchError> {
        let found = match self.stated(name, url) {
            Ok(stated) if stated.page => Found::of_file(0, None, &Stated { size: None, ..stated }),
            Ok(_) => Found::Agrees("answer"),
            Err(error) => fails(error)?,
        };
        Ok(Answer { url: url.redacted(), found })
    }

    /// What an address states of its file, by asking for one byte.
    pub(crate) fn stated(&self, name: &str, url: &SourceUrl) -> Result<Stated, FetchError> {
        match url {
            SourceUrl::Http(url) | SourceUrl::Object(url) => self.tried(name, url, || self.stated_at(url)),
            SourceUrl::File(file) => {
                let path = file.to_file_path().unwrap_or_default();
                let found =
                    fs_err::metadata(&path).map(|found| Stated { size: Some(found.len()), ..Stated::default() });
                found.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        let failure =
                            SourceFailure { url: file.to_string(), reason: Reason::NoFile, earlier: Vec::new() };
                        FetchError::Sources { name: name.to_owned(), failures: SourceFailures(vec![failure]) }
                    }
                    _ => many::contents(name, error.to_string(), None),
                })
            }
            _ => Ok(Stated::default()),
        }
    }

    fn stated_at(&self, url: &Url) -> Result<Stated, Failure> {
        let net = self.net()?;
        // Some servers answer HEAD otherwise than GET, and addresses that are signed are signed for GET.
        let head = match net.get(url, Ask { range: Some((0, Some(1))), ..Ask::default() }) {
            // Of an empty file no byte can be given.
            Ok((Head { status: 416, .. }, ..)) | Err(Failure::Source(Reason::Resume)) => {
                net.get(url, Ask::default())?.0
            }
            answered => answered?.0,
        };
        Ok(Stated::of(url, &head)?)
    }

    /// Whether an image's reference still names what is locked of it.
    ///
    /// # Errors
    /// If the registry can't be asked.
    pub fn image_standing(&self, image: &ImageReference, locked: &Digest) -> Result<Standing, FetchError> {
        let words = |digest: &Digest| format!("sha256:{digest}");
        or_gone(self.image_manifest(image, &image.target()).map(|now| match now == *locked {
            true => Standing::Same { by: "digest" },
            false => Standing::Moved { locked: words(locked), now: words(&now) },
        }))
    }
}

/// What a source that has nothing of the kind any more says is an answer as well.
pub(crate) fn or_gone(standing: Result<Standing, FetchError>) -> Result<Standing, FetchError> {
    match standing {
        Err(error) if error.is_gone() => Ok(Standing::Gone { why: error.why() }),
        other => other,
    }
}

/// An error as an answer; what ends the command stays an error.
pub(crate) fn fails(error: FetchError) -> Result<Found, FetchError> {
    match &error {
        FetchError::Interrupted { .. } | FetchError::Store { .. } => Err(error),
        FetchError::Offline { .. } => Ok(Found::Unknown(Reason::Offline.to_string())),
        _ => Ok(Found::Fails(error.why())),
    }
}

/// The size in bytes of the file that is fetched for it.
fn fetched_size(content: &Wanted) -> u64 {
    match content {
        Wanted::File { size, .. } => *size,
        Wanted::Member { archive, .. } | Wanted::Tree { archive, .. } => archive.1,
        Wanted::Many(many) => many.size,
    }
}
