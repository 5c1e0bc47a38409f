//! Pooch registry files: a line a file, with its name, its hash and, if it lies elsewhere than the others, its address.
//!
//! The format is that of `pooch.Pooch.load_registry`: fields separated by blanks and quoted as in a shell, `#` begins a
//! comment, a hash is a SHA-256 unless its function stands before a colon (`md5:…`).

use super::description::{self, Place};
use super::{Files, Found, Item, ManyWanted, Question, Source, contents, now};
use crate::error::FetchError;
use crate::standing::Standing;
use trainlock_types::{Checksum, Digest, RelPath, SourceUrl};
use url::Url;

/// A registry of the repository.
pub(crate) struct Pooch<'a> {
    pub(crate) registry: &'a RelPath,
    /// Where files lie whose lines have no address.
    pub(crate) base: Option<&'a SourceUrl>,
}

impl Source for Pooch<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let (text, by) = description::read(question, &Place::Path(self.registry.clone()))?;
        let mut items = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let item = self.item(line).map_err(|reason| {
                contents(question.name, format!("line {} of `{}`: {reason}", number + 1, self.registry), None)
            })?;
            items.extend(item);
        }
        Ok(Found { resolved: None, by: Some(by), files: Files::Listed(items) })
    }

    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let found = self.look(question)?;
        let items = match &found.files {
            Files::Listed(items) => items.clone(),
            Files::Whole(_) => Vec::new(),
        };
        match now::by_listing(question, wanted, found)? {
            Standing::Same { .. } => now::by_addresses(question, wanted, &items),
            other => Ok(other),
        }
    }
}

impl Pooch<'_> {
    /// The file of a line; none if it has none.
    fn item(&self, line: &str) -> Result<Option<Item>, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let fields = shlex::split(line).ok_or("a quotation mark is not closed")?;
        let (name, hash, url) = match &fields[..] {
            [name, hash] => (name, hash, None),
            [name, hash, url] => (name, hash, Some(url)),
            _ => return Err("write `NAME HASH`, or `NAME HASH URL`".to_owned()),
        };
        let path = RelPath::parse(name).map_err(|e| format!("`{name}` is no path of a file: {e}"))?;
        let (sha256, checksum) = match hash.parse::<Digest>() {
            Ok(digest) => (Some(digest), None),
            Err(_) => {
                let checksum: Checksum = hash.parse().map_err(|e| format!("`{hash}` is no hash: {e}"))?;
                (checksum.sha256(), Some(checksum))
            }
        };
        let source = match (url, self.base) {
            (Some(url), _) => SourceUrl::parse(url).map_err(|e| format!("bad URL: {e}"))?,
            (None, Some(SourceUrl::Http(base))) => {
                let mut url: Url = (**base).clone();
                let Ok(mut segments) = url.path_segments_mut() else { return Err("bad base-url".to_owned()) };
                segments.pop_if_empty().extend(path.as_str().split('/'));
                drop(segments);
                SourceUrl::Http(url.into())
            }
            (None, _) => {
                return Err(format!("`{name}` has no address: add `base-url = \"https://…\"` beside `pooch`"));
            }
        };
        Ok(Some(Item { path, size: None, sha256, checksum, blob: None, sources: vec![source] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_registry() {
        let registry = RelPath::parse("registry.txt").unwrap();
        let base = SourceUrl::parse("https://x.org/data").unwrap();
        let item = |line: &str| Pooch { registry: &registry, base: Some(&base) }.item(line);
        let sha = Digest::of(b"x").to_hex();
        let one = item(&format!("\"a b/c d.csv\" {sha}")).unwrap().unwrap();
        assert_eq!((one.path.as_str(), one.sha256), ("a b/c d.csv", Some(Digest::of(b"x"))));
        assert_eq!(one.sources[0].to_string(), "https://x.org/data/a%20b/c%20d.csv");
        let other = item("b md5:9e107d9d372bb6826bd81d3542a419d6 https://y.org/q").unwrap().unwrap();
        assert_eq!(other.sources[0].to_string(), "https://y.org/q");
        assert!(other.sha256.is_none() && other.checksum.is_some());
        assert_eq!(item(&format!("s sha256:{sha}")).unwrap().unwrap().sha256, Some(Digest::of(b"x")));
        assert!(item("  # a comment").unwrap().is_none() && item("").unwrap().is_none());
        for bad in ["a", "a b c d", "../a 00", "a zz", "\"a", "/etc/passwd md5:9e107d9d372bb6826bd81d3542a419d6"] {
            assert!(item(bad).is_err(), "{bad}");
        }
        let alone = Pooch { registry: &registry, base: None }.item(&format!("a {sha}"));
        assert!(alone.unwrap_err().contains("base-url"));
    }
}
