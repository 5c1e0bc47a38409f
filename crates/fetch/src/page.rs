//! Small answers of servers: pages and listings, held in memory.

use crate::error::{Failure, FetchError, Reason, SourceFailure, SourceFailures};
use crate::fetcher::Fetcher;
use crate::http::check_status;
use crate::net::{Ask, Came, Form};
use crate::retry::backoff;
use trainlock_types::SourceUrl;
use url::Url;

/// No page is larger than this.
const LARGEST: usize = 64 << 20;

/// The body of a page and its media type, without parameters, in lower case.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) media_type: String,
    /// Where the next page is, if there is one (`Link: <…>; rel="next"`, RFC 8288).
    pub(crate) next: Option<String>,
}

impl Fetcher {
    /// A page, asked for in the media types that `accept` names, with retries. `name` is told in errors.
    pub(crate) fn page(&self, name: &str, url: &Url, accept: &'static str) -> Result<Page, FetchError> {
        self.tried(name, url, || self.one_page(url, Ask { accept: Some(accept), ..Ask::default() }))
    }

    /// The page that a server answers a form with.
    pub(crate) fn page_of_form(&self, name: &str, url: &Url, form: &Form) -> Result<Page, FetchError> {
        self.tried(name, url, || self.one_page(url, Ask { form: Some(form.clone()), ..Ask::default() }))
    }

    /// The same, with no second try.
    pub(crate) fn page_once(&self, name: &str, url: &Url, accept: &'static str) -> Result<Page, FetchError> {
        self.tried_up_to(0, name, url, || self.one_page(url, Ask { accept: Some(accept), ..Ask::default() }))
    }

    /// Asks `url` with `once` until it answers or fails for good.
    pub(crate) fn tried<T>(
        &self,
        name: &str,
        url: &Url,
        once: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, FetchError> {
        self.tried_up_to(self.settings.retries, name, url, once)
    }

    fn tried_up_to<T>(
        &self,
        retries: u32,
        name: &str,
        url: &Url,
        once: impl Fn() -> Result<T, Failure>,
    ) -> Result<T, FetchError> {
        let mut earlier = Vec::new();
        for retry in 0.. {
            match once() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Source(Reason::Offline)) => {
                    return Err(FetchError::Offline { name: name.to_owned(), url: redacted(url) });
                }
                Err(Failure::Source(reason)) if reason.may_pass() && retry < retries => {
                    let longest = self.settings.longest_wait;
                    let delay = match reason {
                        Reason::Status { retry_after: Some(after), .. } => after.min(longest),
                        _ => backoff(self.settings.backoff, longest, retry),
                    };
                    earlier.push(reason);
                    self.settings.cancel.wait(delay);
                }
                Err(Failure::Source(reason)) => {
                    let url = self.settings.replace.shown(&SourceUrl::Http(url.clone().into()));
                    let failure = SourceFailure { url, reason, earlier };
                    return Err(FetchError::Sources { name: name.to_owned(), failures: SourceFailures(vec![failure]) });
                }
                Err(Failure::Store(error)) => return Err(FetchError::Store { name: name.to_owned(), error }),
                Err(Failure::Interrupted) => return Err(FetchError::Interrupted { name: name.to_owned() }),
            }
        }
        unreachable!("the last try returns")
    }

    fn one_page(&self, url: &Url, ask: Ask) -> Result<Page, Failure> {
        let (head, mut body, _going) = self.net()?.get(url, ask)?;
        check_status(&head)?;
        let mut bytes = Vec::new();
        while let Some((_, came)) = body.blocking_recv() {
            match came {
                Came::Head(_) => {}
                Came::Bytes(part) => bytes.extend_from_slice(&part),
                Came::End(done) => done?,
            }
            if bytes.len() > LARGEST {
                return Err(Reason::Network(format!("the page is larger than {} MiB", LARGEST >> 20)).into());
            }
        }
        let media_type = head.content_type.as_deref().unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let next = head.link.as_deref().and_then(next_page);
        Ok(Page { body: bytes, media_type, next })
    }
}

/// The target of the link to the next page.
fn next_page(link: &str) -> Option<String> {
    let of_next = |part: &&str| part.split(';').skip(1).any(|p| p.trim().replace('"', "") == "rel=next");
    let part = link.split(", ").find(of_next)?;
    Some(part.trim().strip_prefix('<')?.split_once('>')?.0.to_owned())
}

pub(crate) fn redacted(url: &Url) -> String {
    SourceUrl::Http(url.clone().into()).redacted()
}
