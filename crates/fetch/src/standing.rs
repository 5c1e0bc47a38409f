//! What sources say now of what is locked, without its bytes.
//!
//! Two questions. [`Fetcher::standing`]: would locking again give the same? [`Fetcher::answers`]: does each locked address
//! still have what was locked? A size that agrees proves nothing of the bytes, one that differs does; only fetching knows more.

use crate::error::{Failure, FetchError, Reason};
use crate::fetcher::{Fetcher, Want, Wanted};
use crate::http;
use crate::many;
use crate::net::Ask;
use trainlock_store::Session;
use trainlock_types::{Digest, ImageReference, SourceUrl};
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
    /// It does not give it any more, or could not be asked: why, in words.
    Fails(String),
    /// It answers and does not say what could be compared, or is not asked: why, in words.
    Unknown(String),
}

impl Found {
    /// What a stated size says.
    fn of_size(locked: u64, (stated, page): (Option<u64>, bool)) -> Found {
        match stated {
            Some(size) if size == locked => Found::Agrees("size"),
            _ if page => Found::Differs("an HTML page, as log-ins and quotas answer with".to_owned()),
            Some(size) => Found::Differs(format!("{size} bytes, and {locked} are locked")),
            None => Found::Unknown("it does not state the size".to_owned()),
        }
    }
}

impl Standing {
    /// What a stated size says.
    fn of_size(locked: u64, (stated, page): (Option<u64>, bool)) -> Standing {
        match stated {
            Some(size) if size == locked => Standing::Same { by: "size" },
            _ if page => Standing::Moved { locked: format!("{locked} bytes"), now: "an HTML page".to_owned() },
            Some(size) => Standing::Moved { locked: format!("{locked} bytes"), now: format!("{size} bytes") },
            None => Standing::Unknown { why: "the server does not state the size".to_owned() },
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
    /// Whether a source gives now what is locked of it. Of plain addresses the first one is asked.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn standing(&self, session: &Session, want: &Want) -> Result<Standing, FetchError> {
        match (&want.content, want.sources.first()) {
            (Wanted::Many(wanted), _) => self.standing_of_many(session, &want.name, wanted),
            (content, Some(url)) => Ok(Standing::of_size(fetched_size(content), self.stated(&want.name, url)?)),
            (_, None) => Ok(Standing::Unknown { why: "it has no address".to_owned() }),
        }
    }

    /// The same of many, at once and in their order.
    pub fn standings(&self, session: &Session, wants: &[Want]) -> Vec<Result<Standing, FetchError>> {
        self.each(wants, |want| self.standing(session, want))
    }

    /// What each address of something locked answers now.
    ///
    /// # Errors
    /// If the user interrupts.
    pub fn answers(&self, session: &Session, want: &Want) -> Result<Vec<Answer>, FetchError> {
        let size = match &want.content {
            Wanted::Many(wanted) => return self.answers_of_many(session, &want.name, wanted),
            content => fetched_size(content),
        };
        want.sources.iter().map(|url| self.answer(&want.name, url, size)).collect()
    }

    /// The same of many, at once and in their order.
    pub fn all_answers(&self, session: &Session, wants: &[Want]) -> Vec<Result<Vec<Answer>, FetchError>> {
        self.each(wants, |want| self.answers(session, want))
    }

    /// What one address answers, of which so many bytes are locked.
    pub(crate) fn answer(&self, name: &str, url: &SourceUrl, size: u64) -> Result<Answer, FetchError> {
        let found = match self.stated(name, url) {
            Ok(stated) => Found::of_size(size, stated),
            Err(error) => fails(error)?,
        };
        Ok(Answer { url: url.redacted(), found })
    }

    /// The best of what the addresses of one file have, of which so many bytes are locked; without the addresses.
    pub(crate) fn found_at(&self, want: &Want, size: u64) -> Result<Found, FetchError> {
        let mut found = Found::Unknown("it has no address".to_owned());
        for url in &want.sources {
            found = self.answer(&want.name, url, size)?.found;
            if let Found::Agrees(_) = found {
                break;
            }
        }
        Ok(found)
    }

    /// Whether an address answers with a file, of whose size nothing is locked.
    pub(crate) fn answer_at_all(&self, name: &str, url: &SourceUrl) -> Result<Answer, FetchError> {
        let found = match self.stated(name, url) {
            Ok((_, true)) => Found::of_size(0, (None, true)),
            Ok(_) => Found::Agrees("answer"),
            Err(error) => fails(error)?,
        };
        Ok(Answer { url: url.redacted(), found })
    }

    /// The size in bytes that an address states of its file, and whether it is a page instead, by asking for one byte.
    pub(crate) fn stated(&self, name: &str, url: &SourceUrl) -> Result<(Option<u64>, bool), FetchError> {
        match url {
            SourceUrl::Http(url) => self.tried(name, url, || self.stated_at(url)),
            SourceUrl::File(file) => {
                let path = file.to_file_path().unwrap_or_default();
                let found = fs_err::metadata(&path).map(|found| (Some(found.len()), false));
                found.map_err(|error| many::contents(name, error.to_string(), None))
            }
            _ => Ok((None, false)),
        }
    }

    fn stated_at(&self, url: &Url) -> Result<(Option<u64>, bool), Failure> {
        let net = self.net()?;
        // Some servers answer HEAD otherwise than GET, and addresses that are signed are signed for GET.
        let (head, _body, _going) = net.get(url, Ask { range: Some((0, Some(1))), ..Ask::default() })?;
        match head.status {
            206 => Ok((head.range.map(|(_, total)| total), false)),
            // Of an empty file no byte can be given.
            416 => {
                let (head, _body, _going) = net.get(url, Ask::default())?;
                Ok(http::stated(url, &head)?)
            }
            _ => Ok(http::stated(url, &head)?),
        }
    }

    /// The digest of what an image's reference names now.
    ///
    /// # Errors
    /// If the registry can't be asked, or has no such image.
    pub fn image_now(&self, image: &ImageReference) -> Result<Digest, FetchError> {
        self.image_manifest(image, &image.target())
    }

    /// What the registry answers for a locked image.
    ///
    /// # Errors
    /// If the user interrupts.
    pub fn image_answer(&self, image: &ImageReference, locked: &Digest) -> Result<Answer, FetchError> {
        let found = match self.image_manifest(image, &format!("sha256:{locked}")) {
            Ok(_) => Found::Agrees("digest"),
            Err(error) if error.is_verification() => Found::Differs("another manifest than is locked".to_owned()),
            Err(error) => fails(error)?,
        };
        Ok(Answer { url: image.to_string(), found })
    }
}

/// An error as an answer; what ends the command stays an error.
pub(crate) fn fails(error: FetchError) -> Result<Found, FetchError> {
    match &error {
        FetchError::Interrupted { .. } | FetchError::Store { .. } => Err(error),
        FetchError::Sources { failures, .. } => {
            let reasons: Vec<String> = failures.0.iter().map(|failure| failure.reason.to_string()).collect();
            Ok(Found::Fails(reasons.join("; ")))
        }
        FetchError::Contents { reason, .. } => Ok(Found::Fails(reason.clone())),
        FetchError::Offline { .. } => Ok(Found::Unknown(Reason::Offline.to_string())),
        _ => Ok(Found::Fails(error.to_string())),
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
