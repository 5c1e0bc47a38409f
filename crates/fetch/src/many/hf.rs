//! `hf://datasets/ORG/NAME`, `hf://ORG/NAME`: the repositories of the Hugging Face hub, or of a server with its API.
//!
//! A branch or tag is resolved to its commit, which is locked (`source = "hf://…@COMMIT"`). Of large files the hub states SHA-256 and
//! size (git LFS), so that they are locked without being fetched; of small ones it states git's own hash, which is checked
//! when they are fetched to be hashed. The API: `/api/{models,datasets}/ID/revision/REV`, `…/tree/REV?recursive=true` (in pages, the
//! next one named by a `Link` header), `…/refs`, and `/[datasets/]ID/resolve/REV/PATH` for the files.

use super::now::revision;
use super::{Files, Found, Item, Locked, ManyWanted, Question, Source, contents};
use crate::error::{FetchError, Reason};
use crate::page::{Page, redacted};
use crate::refusal::HubRefusal;
use crate::standing::Standing;
use serde::Deserialize;
use std::collections::HashSet;
use trainlock_types::{Digest, RelPath, SourceUrl, hub_id, nearest};
use url::Url;

/// The hub's own address.
pub(crate) const HUB: &str = "https://huggingface.co";

/// The revision that is taken where none is named.
const MAIN: &str = "main";

/// So many pages of a listing at the most: ten million files.
const PAGES: usize = 10_000;

/// A repository of the hub.
pub(crate) struct Hf<'a> {
    /// `hf://datasets/ORG/NAME` or `hf://ORG/NAME`.
    pub(crate) address: &'a str,
    /// Branch, tag or commit.
    pub(crate) rev: Option<&'a str>,
    /// The server.
    pub(crate) endpoint: &'a Url,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

#[derive(Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Ref>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(Deserialize)]
struct Ref {
    name: String,
}

impl Source for Hf<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let commit = match question.locked {
            Some(locked) => commit_of(&locked).ok_or_else(|| {
                let hint = Some(format!("run `trainlock update {}`", question.name));
                contents(question.name, "the lock names no commit of the hub", hint)
            })?,
            None => self.commit(question)?,
        };
        let mut url = self.api(&["tree", &commit]);
        url.set_query(Some("recursive=true&expand=false"));
        let mut items = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..PAGES {
            if !seen.insert(url.clone()) {
                return Err(contents(question.name, "the hub's listing leads back to a page of before", None));
            }
            let page = question
                .fetcher
                .page(question.name, &url, "application/json")
                .map_err(|error| self.of_repository(question, error, &commit))?;
            let listed: Vec<Listed> = self.read(question, &page)?;
            for file in listed.into_iter().filter(|entry| entry.kind == "file") {
                items.push(self.item(question, file, &commit)?);
            }
            match page.next {
                Some(next) => url = self.next(question, &url, &next)?,
                None => {
                    let resolved = Some(format!("{}@{commit}", self.address));
                    return Ok(Found { resolved, by: None, files: Files::Listed(items) });
                }
            }
        }
        // What is cut off must not be taken for all of it.
        Err(contents(question.name, format!("the hub's listing has more than {PAGES} pages"), None))
    }

    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let locked = wanted.resolved.as_deref().map_or("", revision);
        // A commit stays what it is, and what an abbreviation stands for only the hub knows.
        let now = match self.rev.filter(|rev| is_commit(rev)) {
            Some(rev) => rev.to_owned(),
            None => self.commit(question)?,
        };
        Ok(Standing::of_revision("commit", locked, &now))
    }

    fn explained(&self, question: &Question<'_>, error: FetchError) -> FetchError {
        let commit = question.locked.as_ref().and_then(commit_of);
        let Some(commit) = commit.filter(|_| error.is_gone()) else { return error };
        let api = self.api(&["revision", &commit]);
        match question.fetcher.page(question.name, &api, "application/json") {
            Ok(_) => error,
            Err(of_all) => match self.of_repository(question, of_all, &commit) {
                of_all @ FetchError::Gone { .. } => of_all,
                _ => error,
            },
        }
    }

    fn place(&self, locked: &Locked<'_>, path: &RelPath) -> Option<Vec<SourceUrl>> {
        Some(vec![self.file(&commit_of(locked)?, path)])
    }
}

/// The commit that a lock names.
fn commit_of(locked: &Locked<'_>) -> Option<String> {
    let (_, commit) = locked.resolved?.rsplit_once('@')?;
    is_commit(commit).then(|| commit.to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Hf<'_> {
    /// `ORG/NAME`, and whether it is a data set rather than a model.
    fn id(&self) -> (&str, bool) {
        let id = hub_id(self.address);
        id.strip_prefix("datasets/").map_or((id, false), |id| (id, true))
    }

    /// An address below the server's, each segment escaped.
    fn at<'s>(&self, segments: impl IntoIterator<Item = &'s str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn api(&self, rest: &[&str]) -> Url {
        let (id, is_data) = self.id();
        let kind = if is_data { "datasets" } else { "models" };
        self.at(["api", kind].into_iter().chain(id.split('/')).chain(rest.iter().copied()))
    }

    /// Where a file lies.
    fn file(&self, commit: &str, path: &RelPath) -> SourceUrl {
        let (id, is_data) = self.id();
        let kind = is_data.then_some("datasets");
        let segments = kind.into_iter().chain(id.split('/')).chain(["resolve", commit]).chain(path.as_str().split('/'));
        SourceUrl::Http(self.at(segments).into())
    }

    /// The commit that the revision stands for now.
    fn commit(&self, question: &Question<'_>) -> Result<String, FetchError> {
        let rev = self.rev.unwrap_or(MAIN);
        let page = question
            .fetcher
            .page(question.name, &self.api(&["revision", rev]), "application/json")
            .map_err(|error| self.of_repository(question, error, rev))?;
        let Revision { sha } = self.read(question, &page)?;
        if is_commit(&sha) {
            Ok(sha)
        } else {
            Err(contents(question.name, format!("the hub names `{sha}` as a commit, which is none"), None))
        }
    }

    /// Where a listing goes on, which `link` of the page at `url` names.
    fn next(&self, question: &Question<'_>, url: &Url, link: &str) -> Result<Url, FetchError> {
        let wrong = |reason: String| contents(question.name, reason, None);
        let next = url.join(link).map_err(|_| wrong("the hub's listing goes on at no address".to_owned()))?;
        let is_at = |server: &Url| next.origin() == server.origin();
        // Of a mirror that is asked in the hub's place, its own pages are as good.
        if is_at(url) || question.fetcher.settings.replace.of(url).is_some_and(|mirror| is_at(&mirror)) {
            return Ok(next);
        }
        // And what it passes on of the hub's words means itself.
        let own = next.as_str().strip_prefix(HUB).filter(|rest| rest.starts_with('/'));
        let own =
            own.and_then(|rest| Url::parse(&format!("{}{rest}", self.endpoint.as_str().trim_end_matches('/'))).ok());
        // Another host would be given what is meant for this one.
        own.ok_or_else(|| wrong(format!("the hub's listing goes on at another server: {}", redacted(&next))))
    }

    fn read<T: for<'d> Deserialize<'d>>(&self, question: &Question<'_>, page: &Page) -> Result<T, FetchError> {
        serde_json::from_slice(&page.body).map_err(|error| {
            contents(question.name, format!("{} does not answer as the hub does: {error}", self.endpoint), None)
        })
    }

    fn item(&self, question: &Question<'_>, file: Listed, commit: &str) -> Result<Item, FetchError> {
        let wrong = |reason: String| contents(question.name, reason, None);
        let path = RelPath::parse(&file.path).map_err(|e| wrong(format!("it has a file `{}`: {e}", file.path)))?;
        let sources = vec![self.file(commit, &path)];
        let item = match file.lfs {
            Some(lfs) => {
                let sha256: Digest = lfs.oid.parse().map_err(|_| wrong(format!("`{path}` has no SHA-256")))?;
                Item { path, size: Some(lfs.size), sha256: Some(sha256), checksum: None, blob: None, sources }
            }
            None => Item { path, size: Some(file.size), sha256: None, checksum: None, blob: Some(file.oid), sources },
        };
        Ok(item)
    }

    /// An error of the API in terms of the repository.
    fn of_repository(&self, question: &Question<'_>, error: FetchError, rev: &str) -> FetchError {
        let FetchError::Sources { failures, .. } = &error else { return error };
        let (id, is_data) = self.id();
        let what = if is_data { "data set" } else { "model" };
        let page = self.at(is_data.then_some("datasets").into_iter().chain(id.split('/')));
        let reason = failures.0.first().map(|failure| &failure.reason);
        match reason {
            Some(
                reason @ Reason::Hub {
                    refusal: refusal @ (HubRefusal::Gated | HubRefusal::Disabled | HubRefusal::BadToken),
                    sent,
                    ..
                },
            ) => {
                let reason = format!("the hub gives no access to the {what} `{id}`: {reason}");
                contents(question.name, reason, Some(refusal.hint(page.as_str(), *sent)))
            }
            Some(Reason::Denied { sent, .. }) => {
                let hint = match sent {
                    true => format!(
                        "the token was sent: does it give access to it? Terms may have to be accepted at {page}"
                    ),
                    false => format!(
                        "it may be private, or have terms to be accepted at {page}: then set HF_TOKEN, or log in with the hub's own tools; or its name is misspelt"
                    ),
                };
                contents(question.name, format!("the hub gives no access to the {what} `{id}`"), Some(hint))
            }
            Some(Reason::NotFound(_) | Reason::Hub { .. }) => {
                let names = self.names(question);
                let gone = |reason, hint| FetchError::Gone { name: question.name.to_owned(), reason, hint };
                if names.is_empty() {
                    let none = format!("the hub has no {what} `{id}`");
                    return match reason {
                        Some(Reason::Hub { sent, .. }) => {
                            let hint = HubRefusal::NoRepository.hint(page.as_str(), *sent);
                            gone(format!("{none}, or keeps it private"), hint)
                        }
                        _ => gone(none, format!("look for it at {page}")),
                    };
                }
                let there = names.join(", ");
                let hint = match (question.locked, nearest(rev, names.iter().map(String::as_str))) {
                    (Some(_), _) => format!(
                        "its history was rewritten, perhaps; to take what is there now: trainlock update {}",
                        question.name
                    ),
                    (None, Some(near)) => format!("did you mean `{near}`? It has {there}"),
                    (None, None) => format!("it has {there}"),
                };
                gone(format!("the {what} `{id}` has no revision `{rev}`"), hint)
            }
            _ => error,
        }
    }

    /// The branches and tags that there are, as far as that can be known.
    fn names(&self, question: &Question<'_>) -> Vec<String> {
        let page = question.fetcher.page(question.name, &self.api(&["refs"]), "application/json");
        let refs = page.ok().and_then(|page| serde_json::from_slice::<Refs>(&page.body).ok());
        refs.into_iter().flat_map(|refs| refs.branches.into_iter().chain(refs.tags)).map(|r| r.name).take(20).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_hub() {
        let endpoint = Url::parse("https://hub.example/base/").unwrap();
        let hf = Hf { address: "hf://datasets/o/n", rev: None, endpoint: &endpoint };
        assert_eq!(
            hf.api(&["revision", "refs/convert/parquet"]).as_str(),
            "https://hub.example/base/api/datasets/o/n/revision/refs%2Fconvert%2Fparquet"
        );
        let path = RelPath::parse("a b/c#d.csv").unwrap();
        assert_eq!(hf.file("0", &path).to_string(), "https://hub.example/base/datasets/o/n/resolve/0/a%20b/c%23d.csv");
        let model = Hf { address: "hf://o/n", rev: None, endpoint: &endpoint };
        assert_eq!(model.api(&["refs"]).as_str(), "https://hub.example/base/api/models/o/n/refs");
        assert_eq!(model.file("0", &path).to_string(), "https://hub.example/base/o/n/resolve/0/a%20b/c%23d.csv");
        let locked = |resolved| Locked { resolved: Some(resolved), by: None };
        assert_eq!(commit_of(&locked("hf://o/n@main")), None);
        let commit = "a".repeat(40);
        assert_eq!(commit_of(&locked(&format!("hf://o/n@{commit}"))), Some(commit));
    }
}
