//! `https:` and `http:`: one try at one address.

use crate::error::{Failure, Reason};
use crate::net::{Head, Net};
use crate::receive::{Expect, Progress, Receive};
use trainlock_store::Session;
use trainlock_types::{Digest, SourceUrl};
use url::Url;

/// Brings the file at `url` into the store; its digest and size in bytes.
pub(crate) fn fetch(
    net: &Net,
    session: &Session,
    url: &Url,
    expect: Expect<'_>,
    progress: &mut Progress<'_>,
) -> Result<(Digest, u64), Failure> {
    let (head, mut body) = net.get(url)?;
    check_status(&head)?;
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
    let mut file = Receive::start(session, expect, head.length, html)?;
    while let Some(bytes) = body.blocking_recv() {
        let bytes = bytes?;
        file.take(&bytes)?;
        progress.add(bytes.len() as u64);
    }
    if let Some(expected) = head.length.filter(|length| *length != file.taken()) {
        return Err(Reason::CutOff { expected: Some(expected), found: file.taken() }.into());
    }
    file.finish()
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
