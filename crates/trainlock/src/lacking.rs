//! What a command needs and the store lacks, where the network may not be used: told all at once.

use crate::exit::{Exit, Failure, Problem};
use crate::project;
use trainlock_fetch::image_parts;
use trainlock_lock::{Content, DataPin, ToolPin};
use trainlock_store::{Store, StoreError};
use trainlock_types::{DataSource, Digest, HumanSize, ImageReference, PinnedFile, ToolFrom, ToolProvider};

/// Something that is locked and not in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lacking {
    /// `data raw`, `tool rg 14.1.0`, `package numpy`, `image …`
    what: String,
    /// How many bytes of it are lacking, where that is known.
    bytes: Option<u64>,
    /// Where it comes from, redacted.
    source: String,
}

impl Lacking {
    /// A data set.
    pub(crate) fn data(store: &Store, name: &str, pin: &DataPin) -> Result<Lacking, StoreError> {
        // A description is small, and no part of what it lists.
        let archive = pin.archive.filter(|_| matches!(pin.source, DataSource::Url { .. }));
        let mut bytes = archive.map_or(pin.content.size(), |(_, size)| size);
        if let (Content::Tree { listing: Some(listing), .. }, None) = (&pin.content, archive) {
            bytes = 0;
            for entry in listing.entries() {
                if store.object(&entry.sha256, Some(entry.size))?.is_none() {
                    bytes += entry.size;
                }
            }
        }
        let source = match (&pin.resolved, &pin.source) {
            (Some(resolved), _) => resolved.clone(),
            (None, DataSource::Pooch { base: Some(base), .. }) => base.redacted(),
            (None, source) => project::source_of(source),
        };
        Ok(Lacking { what: format!("data {name}"), bytes: Some(bytes), source })
    }

    /// A tool's file.
    pub(crate) fn tool(pin: &ToolPin, file: &PinnedFile) -> Lacking {
        let from = match &pin.provider {
            ToolProvider::Fetched(tool) if tool.from == ToolFrom::Npm => " (the npm registry)",
            ToolProvider::Fetched(tool) if tool.from == ToolFrom::Pypi => " (the package index)",
            _ => "",
        };
        let what = format!("tool {} {}", pin.name, pin.version);
        Lacking { what, bytes: Some(file.size), source: format!("{}{from}", file.file) }
    }

    /// A file of a python package.
    pub(crate) fn package(name: &str, file: &PinnedFile) -> Lacking {
        let source = format!("{} (the package index)", file.file);
        Lacking { what: format!("package {name}"), bytes: Some(file.size), source }
    }

    /// An image, of which all but the size of its manifest is known by the manifest.
    pub(crate) fn image(store: &Store, image: &ImageReference, manifest: (Digest, u64)) -> Result<Lacking, StoreError> {
        let mut bytes = None;
        for (digest, size) in image_parts(store, manifest) {
            let there = store.object(&digest, Some(size))?.is_some();
            bytes = Some(bytes.unwrap_or(0) + if there { 0 } else { size });
        }
        Ok(Lacking { what: format!("image {image}"), bytes, source: image.registry().to_owned() })
    }
}

/// What is lacking so far.
#[derive(Debug, Default)]
pub(crate) struct Lack(Vec<Lacking>);

impl Lack {
    /// A result; none, where it is that something is lacking, which is kept.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(mut failure) => match (&mut failure.problems[..], failure.code) {
                ([Problem::Lacking(all)], Exit::Failed) => {
                    for one in all.drain(..) {
                        if !self.0.contains(&one) {
                            self.0.push(one);
                        }
                    }
                    Ok(None)
                }
                _ => Err(failure),
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An error, if something is lacking.
    pub(crate) fn done(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(Failure::from(self.0)) }
    }
}

impl From<Vec<Lacking>> for Failure {
    fn from(all: Vec<Lacking>) -> Failure {
        Failure { code: Exit::Failed, problems: vec![Problem::Lacking(all)] }
    }
}

/// All of it as one problem: a line each, and the sum.
pub(crate) fn told(all: &[Lacking]) -> Problem {
    let size =
        |bytes: Option<u64>| bytes.map_or("of a size that its manifest says".to_owned(), |n| HumanSize(n).to_string());
    let line = |one: &Lacking| format!("{}: {}, from {}", one.what, size(one.bytes), one.source);
    let mut causes: Vec<String> = all.iter().map(line).collect();
    let sum: u64 = all.iter().filter_map(|one| one.bytes).sum();
    let least = if all.iter().all(|one| one.bytes.is_some()) { "" } else { "more than " };
    let inputs = if all.len() == 1 { "1 input".to_owned() } else { format!("{} inputs", all.len()) };
    causes.push(format!("{inputs}, {least}{}, missing", HumanSize(sum)));
    Problem::Plain {
        message: "the store lacks what is locked, and the network is off".to_owned(),
        causes,
        hints: vec![
            "run `trainlock fetch` once with a network; without one, `trainlock vendor DIR` where they are, then `trainlock fetch --from DIR --frozen` here"
                .to_owned(),
        ],
    }
}
