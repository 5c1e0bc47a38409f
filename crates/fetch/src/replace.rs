//! Addresses that are read from somewhere else than they name: source replacement.
//!
//! It is applied where a request is sent, so that whatever is read over http(s) obeys it. What is locked keeps its own
//! address, and the hash decides as ever.

use crate::error::Reason;
use reqwest::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use trainlock_types::SourceUrl;
use url::Url;

/// Prefixes of addresses, and what stands in their place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replacements(Vec<(String, String)>);

impl Replacements {
    /// Reads what begins with `prefix` from the same place below `with` instead.
    ///
    /// # Errors
    /// If `prefix` is no http(s) address, or `with` neither that nor a `file:///` one; in words.
    pub fn add(&mut self, prefix: &str, with: &str) -> Result<(), String> {
        let parsed = |text: &str, schemes: &[&str]| match SourceUrl::parse(text) {
            Ok(SourceUrl::Http(url) | SourceUrl::File(url)) if schemes.contains(&url.scheme()) => {
                match (url.query(), url.fragment()) {
                    (None, None) => Ok(url.as_str().trim_end_matches('/').to_owned()),
                    _ => Err("it has a query, which no prefix can have".to_owned()),
                }
            }
            Ok(_) => Err(format!("`{text}` does not begin with {}://", schemes.join(":// or "))),
            Err(error) => Err(format!("`{text}`: {error}")),
        };
        let from = parsed(prefix, &["https", "http"])?;
        let with = parsed(with, &["https", "http", "file"])?;
        self.0.push((from, with));
        // The longest that fits is the first that fits.
        self.0.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        Ok(())
    }

    /// Where an address is read from, if that is somewhere else.
    pub fn of(&self, url: &Url) -> Option<Url> {
        let text = url.as_str();
        let (rest, with) = self.0.iter().find_map(|(from, with)| {
            let rest = text.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((rest, with))
        })?;
        // A file's name may hold what separates a query: programs that mirror a site keep it so.
        let rest = if with.starts_with("file:") { rest.replace('?', "%3F") } else { rest.to_owned() };
        Url::parse(&format!("{with}{rest}")).ok()
    }

    /// Whether some address is read from a file, which needs no network.
    pub(crate) fn has_files(&self) -> bool {
        self.0.iter().any(|(_, with)| with.starts_with("file:"))
    }

    /// An address as errors name it: redacted, with the one that it is read from.
    pub(crate) fn shown(&self, source: &SourceUrl) -> String {
        let own = source.redacted();
        let SourceUrl::Http(url) = source else { return own };
        match self.of(url) {
            Some(other) => format!("{own}{REPLACED}{})", SourceUrl::Http(other.into()).redacted()),
            None => own,
        }
    }
}

/// What stands between the two addresses of [`Replacements::shown`].
pub(crate) const REPLACED: &str = " (replaced by ";

/// An address of [`Replacements::shown`] without the one that it is read from.
pub(crate) fn own(shown: &str) -> &str {
    shown.split_once(REPLACED).map_or(shown, |(own, _)| own)
}

/// What a file of this machine answers in a server's place: all of it, whatever range is asked for. Of a folder its
/// `index.html` answers, as on servers.
pub(crate) async fn answer(url: &Url) -> Result<reqwest::Response, Reason> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Reason::NoFile,
        _ => Reason::Read(error),
    };
    let mut path = url.to_file_path().map_err(|()| Reason::NoFile)?;
    // Looked at before it is opened: opening a named pipe would wait for its other end.
    let mut metadata = tokio::fs::metadata(&path).await.map_err(failed)?;
    if metadata.is_dir() {
        path.push("index.html");
        metadata = tokio::fs::metadata(&path).await.map_err(failed)?;
    }
    if !metadata.is_file() {
        return Err(Reason::NotAFile("a device or a pipe"));
    }
    let file = tokio::fs::File::open(&path).await.map_err(failed)?;
    let length = metadata.len();
    let tag = format!("\"{:x}-{:x}-{length:x}\"", metadata.mtime(), metadata.mtime_nsec());
    let mut response = http::Response::builder().header(CONTENT_LENGTH, length).header(ETAG, tag);
    match path.extension().and_then(|e| e.to_str()) {
        Some("html" | "htm") => response = response.header(CONTENT_TYPE, "text/html"),
        Some("json") => response = response.header(CONTENT_TYPE, "application/json"),
        _ => {}
    }
    let response = response.body(Body::from(file)).map_err(|e| Reason::Setup(e.to_string()))?;
    Ok(response.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_at_a_boundary() {
        let mut replacements = Replacements::default();
        replacements.add("https://example.org", "http://127.0.0.1:8080/all").unwrap();
        replacements.add("https://example.org/data/", "file:///mirror").unwrap();
        let of = |text: &str| replacements.of(&Url::parse(text).unwrap()).map(String::from);
        assert_eq!(of("https://example.org/a?x=1").as_deref(), Some("http://127.0.0.1:8080/all/a?x=1"));
        assert_eq!(of("https://example.org").as_deref(), Some("http://127.0.0.1:8080/all/"));
        assert_eq!(of("https://example.org/data/a%20b?x=1").as_deref(), Some("file:///mirror/a%20b%3Fx=1"));
        assert_eq!(of("https://example.org/database").as_deref(), Some("http://127.0.0.1:8080/all/database"));
        for other in ["https://example.org.evil.net/a", "http://example.org/a", "https://example.org:8443/a"] {
            assert_eq!(of(other), None, "{other}");
        }
        let shown = replacements.shown(&SourceUrl::parse("https://example.org/a?token=t").unwrap());
        assert_eq!(
            shown,
            "https://example.org/a?token=REDACTED (replaced by http://127.0.0.1:8080/all/a?token=REDACTED)"
        );
    }

    #[test]
    fn what_can_be_no_replacement() {
        let mut replacements = Replacements::default();
        for (prefix, with) in [
            ("file:///a", "https://b.org"),
            ("https://a.org", "s3://b"),
            ("https://a.org", "https://u:p@b.org"),
            ("https://a.org?x=1", "https://b.org"),
            ("a.org", "https://b.org"),
        ] {
            assert!(replacements.add(prefix, with).is_err(), "{prefix}");
        }
        assert_eq!(replacements, Replacements::default());
    }
}
