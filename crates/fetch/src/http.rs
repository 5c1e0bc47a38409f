//! `https:` and `http:`, and objects of buckets: one try at one address.

use crate::error::{Failure, Reason};
use crate::net::{Ask, BUFFERS_AHEAD, Came, Head, Net};
use crate::parts::Parts;
use crate::receive::{Expect, Marks, Origin, Progress, Receive};
use crate::small::{Asked, Small};
use tokio::sync::mpsc;
use trainlock_store::Session;
use trainlock_types::{Digest, SourceUrl, Validator};
use url::Url;

/// Smaller files are not worth resuming: in bytes.
pub(crate) const RESUMED: u64 = 1 << 20;

/// Brings the file at `url` into the store; its digest and size in bytes. `alone`: in one piece.
pub(crate) fn fetch(
    net: &Net,
    session: &Session,
    url: &Url,
    expect: Expect<'_>,
    progress: &mut Progress<'_>,
    alone: bool,
) -> Result<(Digest, u64), Failure> {
    if let Some(small) = Small::of(expect) {
        return Asked::ask(net, url, small).wait(progress)?.hashed().keep(session, progress);
    }
    let shown = SourceUrl::Http(url.clone().into()).redacted();
    // A locked file is known by its digest, and gone on with wherever it came from: its hash decides whether the parts are of
    // one piece. While locking only the server can say so.
    let key = expect.sha256.unwrap_or_else(|| Digest::of(format!("lock {url}").as_bytes()));
    let locked = expect.sha256.is_some() && expect.size.is_some();
    let mut partial = match locked {
        true if expect.size >= Some(RESUMED) => Some(Receive::resume(session, &key, expect)?),
        false if session.has_partial(&key) => Some(Receive::resume(session, &key, expect)?),
        _ => None,
    };
    if locked && partial.as_ref().is_some_and(|file| Some(file.taken()) == expect.size) {
        // Its last byte had come, and its writer was ended before it could say so.
        match partial.take().map(Receive::finish) {
            Some(Ok(done)) => return Ok(done),
            Some(Err(Failure::Source(_))) | None => partial = Some(Receive::resume(session, &key, expect)?),
            Some(Err(failure)) => return Err(failure),
        }
    }
    let before = partial.as_ref().and_then(Receive::origin).filter(|origin| origin.url == shown);
    if !locked && before.as_ref().is_none_or(|origin| origin.condition().is_none()) {
        partial = partial.map(|file| file.again(session, &key)).transpose()?;
    }
    let range = partial.as_ref().and_then(first_gap);
    let if_range = range.and_then(|_| before.as_ref()?.condition()).map(str::to_owned);
    let (to, mut arrivals) = mpsc::channel(2 * BUFFERS_AHEAD);
    let going = net.ask(url, Ask { range, if_range, ..Ask::default() }, 0, &to);
    let head = match arrivals.blocking_recv() {
        Some((_, Came::Head(head))) => head,
        Some((_, Came::End(Err(failure)))) => return Err(failure),
        _ => return Err(Failure::Interrupted),
    };
    progress.marks = marks(url, &head);
    let resumes = head.status == 206;
    let mut origin = Origin { url: shown, size: head.length, etag: head.etag.clone(), modified: head.modified.clone() };
    if resumes {
        origin.size = head.range.map(|(_, total)| total);
    }
    let expected = expect.size.or(before.as_ref().and_then(|before| before.size));
    match (head.status, range) {
        (206, Some((from, _))) if head.range.is_some_and(|(at, total)| at == from && Some(total) == expected) => {
            if before.as_ref().is_some_and(|before| before.is_replaced_by(&origin)) {
                return Err(begin_anew(partial, Reason::Changed));
            }
        }
        // What it says is not what was asked for: all of it, then, and from a part that is not there.
        (206 | 416, Some(_)) => return Err(begin_anew(partial, Reason::Resume)),
        _ => check_status(&head)?,
    }
    let name = file_name(url);
    let html = is_page(&name, &head);
    if !expect.decided_by_hash() {
        if html {
            return Err(Reason::Html.into());
        }
        if let Some(encoding) = encoding(&head).filter(|encoding| !is_own_encoding(&name, encoding)) {
            return Err(Reason::Encoded(encoding).into());
        }
    }
    let file = match partial {
        Some(file) if resumes => file,
        Some(file) => file.again(session, &key)?,
        None if !locked && origin.size >= Some(RESUMED) && origin.condition().is_some() => {
            Receive::resume(session, &key, expect)?.again(session, &key)?
        }
        None => Receive::start(session, expect, origin.size, html)?,
    };
    let mut file = file;
    file.answered(origin.size, html)?;
    file.set_origin(&origin)?;
    progress.begin_at(file.have());
    let at = range.filter(|_| resumes).map_or((0, origin.size), |(from, to)| (from, to.or(origin.size)));
    let grows = head.gives_parts != Some(false);
    let conditional = !expect.decided_by_hash();
    let mut parts = Parts::new((net, url), (to, arrivals), going, file, at, origin, conditional, alone || !grows);
    let done = parts.run(progress);
    let pieced = resumes || parts.requests() > 1;
    let file = parts.into_file();
    match done {
        Ok(()) => match file.finish() {
            // The source may have changed between the parts: in one piece it may be right.
            Err(Failure::Source(Reason::Mismatch { .. })) if pieced => Err(Reason::Resume.into()),
            done => done,
        },
        // Nothing of what can't be right stays.
        Err(Failure::Source(reason @ (Reason::Mismatch { .. } | Reason::Resume | Reason::Changed))) => {
            Err(begin_anew(Some(file), reason))
        }
        Err(failure) => Err(failure),
    }
}

/// What an answer says of a file besides its bytes.
pub(crate) fn marks(url: &Url, head: &Head) -> Marks {
    let validator = matches!(url.scheme(), "http" | "https").then(|| head.validator()).flatten();
    Marks { version: head.version.clone(), validator }
}

/// What an answer states of the whole file that it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stated {
    /// Its size in bytes.
    pub(crate) size: Option<u64>,
    /// Whether it looks like a page instead.
    pub(crate) page: bool,
    /// The header `ETag`.
    pub(crate) etag: Option<String>,
    /// The header `Last-Modified`.
    pub(crate) modified: Option<String>,
    /// The version of an object.
    pub(crate) version: Option<String>,
}

impl Stated {
    /// What an answer states; of a part, of the whole.
    pub(crate) fn of(url: &Url, head: &Head) -> Result<Stated, Reason> {
        let (etag, modified, version) = (head.etag.clone(), head.modified.clone(), head.version.clone());
        if head.status == 206 {
            return Ok(Stated { size: head.range.map(|(_, total)| total), page: false, etag, modified, version });
        }
        check_status(head)?;
        let name = file_name(url);
        // The length of an encoded body is not that of the file.
        let encoded = encoding(head).is_some_and(|encoding| !is_own_encoding(&name, &encoding));
        let size = head.length.filter(|_| !encoded);
        Ok(Stated { size, page: is_page(&name, head), etag, modified, version })
    }

    /// What is said now in the place of what was said while locking.
    pub(crate) fn validator(&self, locked: &Validator) -> Option<Validator> {
        match locked {
            Validator::Tag(_) => Some(Validator::Tag(Validator::bare_tag(self.etag.as_deref()?).to_owned())),
            Validator::Modified(_) => Some(Validator::Modified(self.modified.clone()?)),
        }
    }
}

pub(crate) fn file_name(url: &Url) -> String {
    SourceUrl::Http(url.clone().into()).file_name().unwrap_or_default().to_ascii_lowercase()
}

/// Whether an answer is a page where a file of another kind is asked for.
pub(crate) fn is_page(name: &str, head: &Head) -> bool {
    is_html(head) && ![".html", ".htm", ".xhtml"].iter().any(|end| name.ends_with(end))
}

/// Nothing stays of what was there.
fn begin_anew(partial: Option<Receive<'_>>, reason: Reason) -> Failure {
    if let Some(file) = partial {
        file.give_up();
    }
    reason.into()
}

/// The first bytes that are missing of a file of which some are there; to its end where no others follow.
fn first_gap(file: &Receive<'_>) -> Option<(u64, Option<u64>)> {
    let pieces = file.pieces();
    let next = |from: u64| pieces.iter().map(|(start, _)| *start).find(|start| *start > from);
    match pieces.first()? {
        (0, to) => Some((*to, next(*to))),
        (from, _) => Some((0, Some(*from))),
    }
}

pub(crate) fn check_status(head: &Head) -> Result<(), Reason> {
    match head.status {
        200 => Ok(()),
        status if let Some((refusal, said)) = &head.refusal => {
            Err(Reason::Hub { refusal: *refusal, status, said: said.clone(), sent: head.sent_login })
        }
        status @ (404 | 410) => Err(Reason::NotFound(status)),
        status @ (401 | 403 | 407) => Err(Reason::Denied { status, sent: head.sent_login }),
        status => Err(Reason::Status { status, retry_after: head.retry_after }),
    }
}

fn is_html(head: &Head) -> bool {
    let kind = head.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
}

fn encoding(head: &Head) -> Option<String> {
    let encoding = head.content_encoding.as_deref()?.trim().to_ascii_lowercase();
    (!encoding.is_empty() && encoding != "identity").then_some(encoding)
}

/// Some stores give `data.csv.gz` the encoding `gzip`: then the bytes are the file's own.
fn is_own_encoding(name: &str, encoding: &str) -> bool {
    let ends: &[&str] = match encoding {
        "gzip" | "x-gzip" => &[".gz", ".tgz"],
        "zstd" => &[".zst", ".tzst"],
        "br" => &[".br"],
        _ => &[],
    };
    ends.iter().any(|end| name.ends_with(end))
}
