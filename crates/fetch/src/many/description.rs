//! Files that say what a data set holds: they are inputs themselves, locked by their digest.

use super::{Question, contents, store};
use crate::error::FetchError;
use crate::receive::Expect;
use std::io;
use trainlock_types::{Digest, RelPath, SourceUrl};

/// Where a description lies.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// At an address.
    Url(SourceUrl),
    /// In the repository, relative to the workspace's root.
    Path(RelPath),
}

/// A description's text, with the digest and size in bytes that it is locked by. While nothing is locked it is the one
/// that is there now, else that very one.
pub(crate) fn read(question: &Question<'_>, place: &Place) -> Result<(String, (Digest, u64)), FetchError> {
    let Question { fetcher, session, name, locked, .. } = question;
    let by = locked.as_ref().and_then(|locked| locked.by);
    let unreadable = |path: &dyn std::fmt::Display, error: io::Error| unreadable(name, path, &error);
    let object = |digest: &Digest| session.store().object(digest, None).map_err(|e| store(name, e));
    let there = match &by {
        Some((sha256, _)) => object(sha256)?,
        None => None,
    };
    let (path, found) = match (there, place) {
        (Some(path), _) => (path, by),
        (None, Place::Path(path)) => {
            let bytes = fs_err::read(path.on(&fetcher.settings.root)).map_err(|e| unreadable(path, e))?;
            let found = (session.put_bytes(&bytes).map_err(|e| store(name, e))?, bytes.len() as u64);
            if by.is_some_and(|by| by != found) {
                let hint = Some("run `trainlock lock`, or take the file back from git".to_owned());
                return Err(contents(name, format!("`{path}` is not the one that was locked"), hint));
            }
            (object(&found.0)?.unwrap_or_default(), Some(found))
        }
        (None, Place::Url(url)) => {
            let (sha256, size) = (by.map(|(sha256, _)| sha256), by.map(|(_, size)| size));
            let expect = Expect { sha256, size, checksum: None };
            let found = fetcher.download(session, name, std::slice::from_ref(url), expect)?;
            (object(&found.0)?.unwrap_or_default(), Some(found))
        }
    };
    let text = fs_err::read_to_string(&path).map_err(|e| match place {
        Place::Url(url) => unreadable(&url.redacted(), e),
        Place::Path(path) => unreadable(path, e),
    })?;
    let by = found.unwrap_or_else(|| (Digest::of(text.as_bytes()), text.len() as u64));
    Ok((text, by))
}

/// The bytes of a description as it is now, which are not kept.
pub(crate) fn now(question: &Question<'_>, place: &Place) -> Result<Vec<u8>, FetchError> {
    let Question { fetcher, name, .. } = question;
    match place {
        Place::Path(path) => {
            let file = path.on(&fetcher.settings.root);
            fs_err::read(file).map_err(|error| unreadable(name, path, &error))
        }
        Place::Url(SourceUrl::Http(url)) => Ok(fetcher.page(name, url, "*/*")?.body),
        Place::Url(url) => Err(contents(name, format!("{} is no web address", url.redacted()), None)),
    }
}

fn unreadable(name: &str, path: &dyn std::fmt::Display, error: &io::Error) -> FetchError {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    contents(name, format!("can't read `{path}`: {reason}"), None)
}
