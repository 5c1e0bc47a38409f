//! `https:` and `http:`: one try at one address.

use crate::error::{Failure, Reason};
use crate::net::{Ask, Came, Head, Net};
use crate::receive::{Expect, Progress, Receive};
use trainlock_store::Session;
use trainlock_types::{Digest, SourceUrl};
use url::Url;

/// Smaller files are not worth resuming: in bytes.
const RESUMED: u64 = 1 << 20;

/// Brings the file at `url` into the store; its digest and size in bytes.
pub(crate) fn fetch(
    net: &Net,
    session: &Session,
    url: &Url,
    expect: Expect<'_>,
    progress: &mut Progress<'_>,
) -> Result<(Digest, u64), Failure> {
    // A locked file is gone on with where an earlier try stopped: its hash decides whether the parts are of one piece.
    let partial = match (expect.sha256, expect.size) {
        (Some(sha256), Some(size)) if size >= RESUMED => Some((sha256, Receive::resume(session, &sha256, expect)?)),
        _ => None,
    };
    let have = partial.as_ref().map_or(0, |(_, file)| file.taken());
    // Its last byte had come, and its writer was ended before it could say so.
    let partial = match partial {
        Some((sha256, file)) if Some(have) == expect.size => match file.finish() {
            Ok(done) => return Ok(done),
            Err(Failure::Source(_)) => Some((sha256, Receive::resume(session, &sha256, expect)?)),
            Err(failure) => return Err(failure),
        },
        other => other,
    };
    let have = partial.as_ref().map_or(0, |(_, file)| file.taken());
    let range = (have > 0).then_some((have, None));
    let (head, mut body) = net.get(url, Ask { range, ..Ask::default() })?;
    let resumes = head.status == 206;
    match head.status {
        206 if have > 0 && head.range.is_some_and(|(from, total)| from == have && Some(total) == expect.size) => {}
        // What it says is not what was asked for: all of it, then, and from a part that is not there.
        206 | 416 if have > 0 => {
            if let Some((_, file)) = partial {
                file.give_up();
            }
            return Err(Reason::Resume.into());
        }
        _ => check_status(&head)?,
    }
    let name = SourceUrl::Http(url.clone().into()).file_name().unwrap_or_default().to_ascii_lowercase();
    let html = is_html(&head) && ![".html", ".htm", ".xhtml"].iter().any(|end| name.ends_with(end));
    if !expect.decided_by_hash() {
        if html {
            return Err(Reason::Html.into());
        }
        if let Some(encoding) = encoding(&head).filter(|encoding| !is_own_encoding(&name, encoding)) {
            return Err(Reason::Encoded(encoding).into());
        }
    }
    let whole = head.length.map(|length| if resumes { have + length } else { length });
    let mut file = match partial {
        None => Receive::start(session, expect, head.length, html)?,
        Some((sha256, file)) => {
            let mut file = if resumes { file } else { file.again(session, &sha256)? };
            file.answered(whole, html)?;
            file
        }
    };
    progress.begin_at(file.taken());
    while let Some((_, came)) = body.blocking_recv() {
        match came {
            Came::Head(_) => {}
            Came::Bytes(bytes) => {
                file.take(&bytes)?;
                progress.add(bytes.len() as u64);
            }
            Came::End(done) => done?,
        }
    }
    if let Some(expected) = whole.filter(|length| *length != file.taken()) {
        return Err(Reason::CutOff { expected: Some(expected), found: file.taken() }.into());
    }
    match file.finish() {
        // The source may have changed between the parts: from the start it may be right.
        Err(Failure::Source(Reason::Mismatch { .. })) if resumes => Err(Reason::Resume.into()),
        done => done,
    }
}

pub(crate) fn check_status(head: &Head) -> Result<(), Reason> {
    match head.status {
        200 => Ok(()),
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
