//! `s3://BUCKET/PREFIX/`, `gs://…`, `az://…`: all objects behind a prefix.
//!
//! No store states a hash of the content that can be relied on: each object is fetched once to be locked.

use super::{Files, Found, Item, Locked, Question, Source, contents};
use crate::error::FetchError;
use crate::object::Place;
use trainlock_types::{RelPath, SourceUrl};
use url::Url;

/// A prefix of keys.
pub(crate) struct Bucket<'a> {
    pub(crate) address: &'a Url,
}

impl Source for Bucket<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let found = question.fetcher.objects(question.name, self.address)?;
        let wrong = |reason: String| contents(question.name, reason, None);
        let below = Place::of(self.address).map_err(&wrong)?;
        let mut items: Vec<Item> = Vec::with_capacity(found.len());
        for (key, size) in found {
            let full = key.as_ref();
            let Some(path) = full.strip_prefix(below.key.as_ref()).map(|rest| rest.trim_start_matches('/')) else {
                continue;
            };
            // The prefix itself, which some programs make an empty object of.
            if path.is_empty() {
                continue;
            }
            let path = RelPath::parse(path).map_err(|e| wrong(format!("it has an object `{full}`: {e}")))?;
            let sources = vec![self.object(&below, &path).ok_or_else(|| wrong(format!("it has an object `{full}`")))?];
            items.push(Item { path, size: Some(size), sha256: None, checksum: None, blob: None, sources });
        }
        items.sort_by(|a, b| a.path.cmp(&b.path));
        // The same for folders: what is empty and has something below it is no file.
        let is_folder = |i: usize| {
            let path = items[i].path.as_str();
            let mut next = items[i + 1..].iter().map_while(|item| item.path.as_str().strip_prefix(path));
            items[i].size == Some(0) && next.any(|rest| rest.starts_with('/'))
        };
        let folders: Vec<bool> = (0..items.len()).map(is_folder).collect();
        let mut folders = folders.into_iter();
        items.retain(|_| !folders.next().unwrap_or_default());
        Ok(Found { resolved: None, by: None, files: Files::Listed(items) })
    }

    fn place(&self, _: &Locked<'_>, path: &RelPath) -> Option<Vec<SourceUrl>> {
        let below = Place::of(self.address).ok()?;
        Some(vec![self.object(&below, path)?])
    }
}

impl Bucket<'_> {
    /// The address of an object below the prefix.
    fn object(&self, below: &Place, path: &RelPath) -> Option<SourceUrl> {
        let prefix = below.key.as_ref();
        let key = if prefix.is_empty() { path.as_str().to_owned() } else { format!("{prefix}/{path}") };
        let key = object_store::path::Path::parse(key).ok()?;
        let object = Place { key, version: None, ..below.clone() };
        Some(SourceUrl::Object(object.url().ok()?.into()))
    }
}
