//! `pypi:NAME@VERSION`: files that lie inside a wheel or a source distribution.
//!
//! Of a version's files one is taken, the same on every machine: a wheel for any platform, else the source distribution,
//! else the first wheel by name. It is locked with its name, digest and size (`source`, `archive-sha256`); where it lies
//! the package index says, at the time of fetching. A source distribution's files are seen without its outermost folder.

use super::{Files, Found, ManyWanted, Question, Source, contents};
use crate::error::FetchError;
use crate::fetcher::{Want, Wanted};
use crate::index::{IndexFile, IndexSettings};
use crate::standing::{Answer, Standing};
use crate::tool::index_standing;
use trainlock_types::{Digest, PinnedFile, RelPath, SourceUrl, WheelName, normalized_package};

/// An address `pypi:NAME@VERSION`.
pub(crate) struct Pypi<'a> {
    pub(crate) address: &'a str,
}

impl Source for Pypi<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let Question { fetcher, session, name, chosen, locked } = question;
        let (package, version) = self.parts();
        let index = index_of(question)?;
        let (file, archive) = match locked {
            Some(locked) => {
                let file = locked.resolved.and_then(|text| text.rsplit_once('/')).map(|(_, file)| file);
                let (Some(file), Some((sha256, size))) = (file, locked.by) else {
                    let hint = Some(format!("run `trainlock update {name}`"));
                    return Err(contents(name, "the lock does not name the package's file", hint));
                };
                let pinned = PinnedFile { file: file.to_owned(), sha256, size };
                if session.store().object(&sha256, Some(size)).map_err(|e| super::store(name, e))?.is_none() {
                    // The manifest names the version itself.
                    let want = fetcher.index_want(index, package, &pinned, true)?;
                    bring(question, index, want)?;
                }
                (pinned.file, (sha256, size))
            }
            None => {
                let files = fetcher.index_files(index, package)?;
                let file =
                    choose(&files, package, version).ok_or_else(|| no_version(name, package, version, &files))?;
                (file.file.clone(), first(question, index, file)?)
            }
        };
        // `NAME-VERSION/…` in source distributions.
        let outer = file.strip_suffix(".tar.gz").or_else(|| file.strip_suffix(".zip"));
        let place = |path: &RelPath| {
            let path = match outer {
                Some(outer) => path.below(&RelPath::parse(outer).ok()?)?,
                None => path.clone(),
            };
            chosen.has(&path).then_some(path)
        };
        let tree = fetcher.unpack_some(session, name, &file, archive, &place)?;
        if tree.count == 0 {
            let hint = format!("look into {file}: `pip download --no-deps {package}=={version}` brings it");
            return Err(contents(name, format!("no file of {file} matches `files`"), Some(hint)));
        }
        let resolved = Some(format!("{}/{file}", self.address));
        Ok(Found { resolved, by: Some(archive), files: Files::Whole(tree) })
    }

    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let (package, version) = self.parts();
        let index = index_of(question)?;
        let files = question.fetcher.index_files(index, package);
        let files = files.map_err(|error| question.fetcher.without_index(error, index))?;
        let pinned = locked_file(question, wanted)?;
        let locked = pinned.file.as_str();
        let Some(now) = choose(&files, package, version) else {
            return Ok(Standing::Gone {
                why: format!("the package index has no file of {package} {version} any more"),
            });
        };
        if now.file != locked {
            return Ok(Standing::Moved { locked: locked.to_owned(), now: now.file.clone() });
        }
        Ok(index_standing(&files, &pinned))
    }

    fn answers(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Vec<Answer>, FetchError> {
        let (package, _) = self.parts();
        let pinned = locked_file(question, wanted)?;
        let found = question.fetcher.index_answer(index_of(question)?, package, &pinned)?;
        Ok(vec![Answer { url: wanted.resolved.clone().unwrap_or_default(), found }])
    }
}

/// The file that is locked.
fn locked_file(question: &Question<'_>, wanted: &ManyWanted) -> Result<PinnedFile, FetchError> {
    let file = wanted.resolved.as_deref().and_then(|text| text.rsplit_once('/')).map(|(_, file)| file.to_owned());
    let (Some(file), Some((sha256, size))) = (file, wanted.by) else {
        let hint = Some(format!("run `trainlock update {}`", question.name));
        return Err(contents(question.name, "the lock does not name the package's file", hint));
    };
    Ok(PinnedFile { file, sha256, size })
}

/// The indexes that are asked.
fn index_of<'q>(question: &Question<'q>) -> Result<&'q IndexSettings, FetchError> {
    let index = question.fetcher.settings.package_index.get();
    index.map_err(|reason| contents(question.name, reason, None))
}

impl Pypi<'_> {
    /// Package and version.
    fn parts(&self) -> (&str, &str) {
        let parts = self.address.strip_prefix("pypi:").and_then(|rest| rest.split_once('@'));
        parts.unwrap_or_else(|| unreachable!("`{}` was found to be such an address", self.address))
    }
}

fn bring(question: &Question<'_>, index: &IndexSettings, want: Want) -> Result<(), FetchError> {
    let results = question.fetcher.bring_all(question.session, &[want]);
    results.into_iter().try_for_each(|result| result.map_err(|error| question.fetcher.without_index(error, index)))
}

/// Brings a file of which nothing is locked; its digest and size in bytes.
fn first(question: &Question<'_>, index: &IndexSettings, file: &IndexFile) -> Result<(Digest, u64), FetchError> {
    match (file.sha256, file.size) {
        (Some(sha256), Some(size)) => {
            let sources = vec![SourceUrl::Http(file.url.clone().into())];
            bring(question, index, Want { name: file.file.clone(), sources, content: Wanted::File { sha256, size } })?;
            Ok((sha256, size))
        }
        _ => {
            let found = question.fetcher.first_download(question.session, &file.file, &file.url, file.sha256);
            found.map_err(|error| question.fetcher.without_index(error, index))
        }
    }
}

/// The file of a version that its data is taken from.
fn choose<'f>(files: &'f [IndexFile], package: &str, version: &str) -> Option<&'f IndexFile> {
    let rank = |file: &'f IndexFile| {
        let rank = match WheelName::parse(&file.file) {
            Some(wheel) if same_version(wheel.version, version) => {
                if wheel.platform == ["any"] {
                    0
                } else {
                    2
                }
            }
            Some(_) => return None,
            None => {
                let stem = file.file.strip_suffix(".tar.gz").or_else(|| file.file.strip_suffix(".zip"))?;
                let (name, found) = stem.rsplit_once('-')?;
                (normalized_package(name) == normalized_package(package) && same_version(found, version))
                    .then_some(1)?
            }
        };
        Some((rank, file))
    };
    let best = files.iter().filter_map(rank).min_by(|a, b| (a.0, &a.1.file).cmp(&(b.0, &b.1.file)));
    best.map(|(_, file)| file)
}

/// Whether two spellings are of one version, as far as spelling goes: case, a `v` before it, `_` for `-`, zeros behind it.
fn same_version(a: &str, b: &str) -> bool {
    fn normal(text: &str) -> String {
        let text = text.trim().to_ascii_lowercase().replace(['_', '-'], ".");
        let text = text.trim_start_matches('v');
        let mut text = text.to_owned();
        while let Some(shorter) = text.strip_suffix(".0") {
            text = shorter.to_owned();
        }
        text
    }
    normal(a) == normal(b)
}

fn no_version(name: &str, package: &str, version: &str, files: &[IndexFile]) -> FetchError {
    let mut versions: Vec<&str> = files.iter().filter_map(|f| Some(WheelName::parse(&f.file)?.version)).collect();
    versions.dedup();
    let newest: Vec<&str> = versions.iter().rev().take(3).copied().collect();
    let hint = (!newest.is_empty()).then(|| format!("it has {}", newest.join(", ")));
    contents(name, format!("the package index has no wheel or source distribution of {package} {version}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> IndexFile {
        let url = url::Url::parse("https://i.org/f").unwrap();
        IndexFile { file: name.to_owned(), url, sha256: None, size: None, yanked: None, requires_python: None }
    }

    #[test]
    fn one_file_of_a_version() {
        let all = ["a-1.0.tar.gz", "a-1.0-cp311-cp311-win32.whl", "a-1.0-py3-none-any.whl", "a-2.0-py3-none-any.whl"];
        let chosen = |names: &[&str], version: &str| {
            let files: Vec<IndexFile> = names.iter().map(|n| file(n)).collect();
            choose(&files, "A", version).map(|f| f.file.clone())
        };
        assert_eq!(chosen(&all, "1.0").as_deref(), Some("a-1.0-py3-none-any.whl"));
        assert_eq!(chosen(&all[..2], "1").as_deref(), Some("a-1.0.tar.gz"));
        assert_eq!(chosen(&all[1..2], "1.0").as_deref(), Some("a-1.0-cp311-cp311-win32.whl"));
        assert_eq!(chosen(&all, "3"), None);
        assert_eq!(chosen(&["a_b-1.0.tar.gz", "a-b-c-1.0.tar.gz"], "1.0"), None);
    }
}
