//! `doi:10.…/…`: the records of Zenodo, figshare and Dataverse.
//!
//! Zenodo and figshare are known by their DOIs; for others the resolver of DOIs is asked where they lead to (`https://doi.org/api/handles/DOI`).
//! A DOI that stands for all versions of a record is locked as the newest. The APIs: Zenodo `/api/records/N`; figshare
//! `/v2/articles/N` and `…/versions/V/files` (in pages); Dataverse `/api/datasets/:persistentId` and `/api/access/datafile/N`. All state
//! a checksum of each file, which is checked when it is fetched to be hashed.

use super::{Files, Found, Item, Locked, Question, Source, contents};
use crate::error::{FetchError, Reason};
use serde::Deserialize;
use trainlock_types::{Algorithm, Checksum, RelPath, SourceUrl};
use url::Url;

const ZENODO: &str = "https://zenodo.org";
const FIGSHARE: &str = "https://api.figshare.com";
const RESOLVER: &str = "https://doi.org";

/// Files of one page of figshare's listing: the most that it gives.
const PAGE: usize = 1000;

/// So many pages of a listing at the most.
const PAGES: usize = 1000;

/// A DOI.
pub(crate) struct Doi<'a> {
    /// `doi:10.…/…`.
    pub(crate) address: &'a str,
}

/// A record of a repository, at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    /// The number of a record.
    Zenodo(u64),
    /// The number of an article, and its version.
    Figshare(u64, Option<u64>),
    /// A persistent id (`doi:…`), the server that has it, and its version (`1.0`).
    Dataverse(String, Url, Option<String>),
}

#[derive(Deserialize)]
struct ZenodoRecord {
    id: u64,
    #[serde(default)]
    files: Vec<ZenodoFile>,
}

#[derive(Deserialize)]
struct ZenodoFile {
    key: String,
    size: u64,
    #[serde(default)]
    checksum: String,
}

#[derive(Deserialize)]
struct Article {
    version: u64,
}

#[derive(Deserialize)]
struct FigshareFile {
    name: String,
    size: u64,
    #[serde(default)]
    is_link_only: bool,
    download_url: String,
    #[serde(default)]
    supplied_md5: String,
    #[serde(default)]
    computed_md5: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dataset {
    latest_version: DatasetVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DatasetVersion {
    version_number: Option<u64>,
    #[serde(default)]
    version_minor_number: u64,
    #[serde(default)]
    files: Vec<DatasetFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DatasetFile {
    label: String,
    directory_label: Option<String>,
    #[serde(default)]
    restricted: bool,
    data_file: DataFile,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataFile {
    id: u64,
    filesize: Option<u64>,
    checksum: Option<Stated>,
    md5: Option<String>,
    /// Of a table that the server keeps in a format of its own.
    original_file_format: Option<String>,
    original_file_name: Option<String>,
    original_file_size: Option<u64>,
}

#[derive(Deserialize)]
struct Stated {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

#[derive(Deserialize)]
struct Handle {
    #[serde(default)]
    values: Vec<HandleValue>,
}

#[derive(Deserialize)]
struct HandleValue {
    #[serde(rename = "type")]
    kind: String,
    data: HandleData,
}

#[derive(Deserialize)]
struct HandleData {
    /// A text, but for the administrator's entries.
    value: serde_json::Value,
}

impl Source for Doi<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let record = match question.locked {
            Some(locked) => locked.resolved.and_then(Record::locked).ok_or_else(|| {
                let hint = Some(format!("run `trainlock update {}`", question.name));
                contents(question.name, "the lock names no version of a record", hint)
            })?,
            None => self.record(question)?,
        };
        let (record, items) = match record {
            Record::Zenodo(id) => zenodo(question, id)?,
            Record::Figshare(id, version) => figshare(question, id, version)?,
            Record::Dataverse(id, server, version) => dataverse(question, &id, server, version)?,
        };
        Ok(Found { resolved: Some(record.to_text()), by: None, files: Files::Listed(items) })
    }

    fn place(&self, locked: &Locked<'_>, path: &RelPath) -> Option<Vec<SourceUrl>> {
        match Record::locked(locked.resolved?)? {
            Record::Zenodo(id) => Some(vec![zenodo_file(id, path.as_str())]),
            // Their files have numbers.
            Record::Figshare(..) | Record::Dataverse(..) => None,
        }
    }
}

impl Record {
    /// As it stands in the lock.
    fn to_text(&self) -> String {
        match self {
            Record::Zenodo(id) => format!("doi:10.5281/zenodo.{id}"),
            Record::Figshare(id, version) => {
                let version = version.map(|v| format!("/versions/{v}")).unwrap_or_default();
                format!("{FIGSHARE}/v2/articles/{id}{version}")
            }
            Record::Dataverse(id, server, version) => {
                let version = version.as_ref().map(|v| format!("&version={v}")).unwrap_or_default();
                format!("{}?persistentId={id}{version}", at(server, ["dataset.xhtml"]))
            }
        }
    }

    /// What [`Record::to_text`] made a text of.
    fn locked(text: &str) -> Option<Record> {
        if let Some(doi) = text.strip_prefix("doi:") {
            return known(doi);
        }
        let url = Url::parse(text).ok()?;
        let segments: Vec<&str> = url.path_segments()?.collect();
        match segments[..] {
            ["v2", "articles", id, "versions", version] => {
                Some(Record::Figshare(id.parse().ok()?, Some(version.parse().ok()?)))
            }
            _ => of_dataverse(&url),
        }
    }
}

/// The record of a DOI that says itself which it is.
fn known(doi: &str) -> Option<Record> {
    let doi = doi.to_ascii_lowercase();
    if let Some(id) = doi.strip_prefix("10.5281/zenodo.") {
        return id.parse().ok().map(Record::Zenodo);
    }
    // Universities that publish with figshare have prefixes of their own.
    let (_, rest) = doi.split_once('/')?;
    let (_, rest) = rest.split_once("figshare.")?;
    // Some put what kind of thing it is before its number.
    let (rest, version) = match rest.rsplit_once(".v") {
        Some((rest, version)) => (rest, Some(version.parse().ok()?)),
        None => (rest, None),
    };
    let id = rest.rsplit('.').next()?.parse().ok()?;
    Some(Record::Figshare(id, version))
}

/// The record of a page of a Dataverse server.
fn of_dataverse(page: &Url) -> Option<Record> {
    let value = |name: &str| page.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let id = value("persistentId").filter(|id| id.starts_with("doi:"))?;
    let mut server = page.clone();
    server.set_query(None);
    server.set_fragment(None);
    // Some servers are not at the root of their host.
    server.path_segments_mut().ok()?.pop();
    Some(Record::Dataverse(id, server, value("version")))
}

/// An address below a server's, each segment escaped.
fn at<'s>(server: &Url, segments: impl IntoIterator<Item = &'s str>) -> Url {
    let mut url = server.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

fn of(server: &'static str) -> Url {
    Url::parse(server).unwrap_or_else(|e| unreachable!("`{server}` is a URL: {e}"))
}

/// What a server answers at an address; nothing if it has no such thing.
fn ask<T: for<'d> Deserialize<'d>>(question: &Question<'_>, url: &Url) -> Result<Option<T>, FetchError> {
    let page = match question.fetcher.page(question.name, url, "application/json") {
        Ok(page) => page,
        Err(FetchError::Sources { failures, .. })
            if failures.0.iter().all(|failure| matches!(failure.reason, Reason::NotFound(_))) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let answer = serde_json::from_slice(&page.body).map_err(|error| {
        let host = url.host_str().unwrap_or_default();
        contents(question.name, format!("{host} does not answer as its API says: {error}"), None)
    })?;
    Ok(Some(answer))
}

impl Doi<'_> {
    /// Without `doi:`.
    fn doi(&self) -> &str {
        self.address.trim_start_matches("doi:")
    }

    /// The record that the DOI stands for.
    fn record(&self, question: &Question<'_>) -> Result<Record, FetchError> {
        let doi = self.doi();
        if let Some(record) = known(doi) {
            return Ok(record);
        }
        let url = at(&of(RESOLVER), ["api", "handles"].into_iter().chain(doi.split('/')));
        let hint = "look for a misspelling: DOIs are written as `doi:10.5281/zenodo.N`".to_owned();
        let Some(handle) = ask::<Handle>(question, &url)? else {
            let reason = format!("there is no DOI `{doi}`");
            return Err(FetchError::Gone { name: question.name.to_owned(), reason, hint });
        };
        let leads_to =
            handle.values.iter().find(|value| value.kind == "URL").and_then(|value| value.data.value.as_str());
        let Some(page) = leads_to.and_then(|text| Url::parse(text).ok()) else {
            return Err(contents(question.name, format!("the DOI `{doi}` leads to no page"), Some(hint)));
        };
        let last = || page.path_segments()?.next_back()?.parse().ok();
        let record = match page.host_str().unwrap_or_default() {
            "zenodo.org" | "www.zenodo.org" => last().map(Record::Zenodo),
            _ => of_dataverse(&page),
        };
        record.ok_or_else(|| {
            let page = SourceUrl::Http(page.clone().into()).redacted();
            contents(
                question.name,
                format!("the DOI `{doi}` leads to {page}, which is a page of no known repository"),
                Some(
                    "DOIs of Zenodo, figshare and Dataverse are known; of others name the files themselves, by the address of each or in a `pooch` registry"
                        .to_owned(),
                ),
            )
        })
    }
}

fn no_record(question: &Question<'_>, what: &str) -> FetchError {
    let reason = match question.locked {
        Some(_) => format!("{what} is locked, and is not there any more"),
        None => format!("there is no {what}"),
    };
    let hint = "look at its page: it may have been withdrawn".to_owned();
    FetchError::Gone { name: question.name.to_owned(), reason, hint }
}

/// The item of a file that a repository has.
fn item(
    question: &Question<'_>,
    path: &str,
    size: Option<u64>,
    checksum: Option<Checksum>,
    source: SourceUrl,
) -> Result<Item, FetchError> {
    let path =
        RelPath::parse(path).map_err(|e| contents(question.name, format!("it has a file `{path}`: {e}"), None))?;
    let sha256 = checksum.as_ref().and_then(Checksum::sha256);
    Ok(Item { path, size, sha256, checksum, blob: None, sources: vec![source] })
}

fn md5(hex: &str) -> Option<Checksum> {
    format!("md5:{hex}").parse().ok()
}

/// The files of a record of Zenodo. The number of all versions leads to that of the newest.
fn zenodo(question: &Question<'_>, id: u64) -> Result<(Record, Vec<Item>), FetchError> {
    let url = at(&of(ZENODO), ["api", "records", &id.to_string()]);
    let Some(record) = ask::<ZenodoRecord>(question, &url)? else {
        return Err(no_record(question, &format!("record {id} of Zenodo")));
    };
    if question.locked.is_some() && record.id != id {
        let reason = format!("record {id} of Zenodo is locked, and it gives record {} now", record.id);
        return Err(contents(question.name, reason, Some(format!("run `trainlock update {}`", question.name))));
    }
    if record.files.is_empty() {
        let hint = "they may be restricted: look at its page".to_owned();
        return Err(contents(question.name, format!("record {} of Zenodo shows no files", record.id), Some(hint)));
    }
    let of_file = |file: ZenodoFile| {
        let source = zenodo_file(record.id, &file.key);
        item(question, &file.key, Some(file.size), file.checksum.parse().ok(), source)
    };
    let items = record.files.into_iter().map(of_file).collect::<Result<_, _>>()?;
    Ok((Record::Zenodo(record.id), items))
}

/// Where a file of a record lies.
fn zenodo_file(id: u64, key: &str) -> SourceUrl {
    SourceUrl::Http(at(&of(ZENODO), ["api", "records", &id.to_string(), "files", key, "content"]).into())
}

/// The files of an article of figshare, at the newest version if none is named.
fn figshare(question: &Question<'_>, id: u64, version: Option<u64>) -> Result<(Record, Vec<Item>), FetchError> {
    let article = at(&of(FIGSHARE), ["v2", "articles", &id.to_string()]);
    let none = || no_record(question, &format!("article {id} of figshare"));
    let version = match version {
        Some(version) => version,
        None => ask::<Article>(question, &article)?.ok_or_else(none)?.version,
    };
    let mut url = at(&article, ["versions", &version.to_string(), "files"]);
    let mut items = Vec::new();
    for page in 1..=PAGES {
        url.set_query(Some(&format!("page={page}&page_size={PAGE}")));
        let none = || no_record(question, &format!("version {version} of article {id} of figshare"));
        let files: Vec<FigshareFile> = ask(question, &url)?.ok_or_else(none)?;
        let count = files.len();
        for file in files {
            let bad = |reason: String| contents(question.name, format!("`{}` {reason}", file.name), None);
            if file.is_link_only {
                return Err(bad(format!("is no file of figshare, but a link to {}", file.download_url)));
            }
            let source = SourceUrl::parse(&file.download_url).map_err(|e| bad(format!("has a bad address: {e}")))?;
            if !matches!(source, SourceUrl::Http(_)) {
                return Err(bad("has an address that is no web address".to_owned()));
            }
            let checksum = md5(&file.computed_md5).or_else(|| md5(&file.supplied_md5));
            items.push(item(question, &file.name, Some(file.size), checksum, source)?);
        }
        if count < PAGE {
            return Ok((Record::Figshare(id, Some(version)), items));
        }
    }
    // What is cut off must not be taken for all of it.
    Err(contents(question.name, format!("article {id} of figshare has more than {} files", PAGES * PAGE), None))
}

/// The files of a data set of a Dataverse server, at the newest published version if none is named.
fn dataverse(
    question: &Question<'_>,
    id: &str,
    server: Url,
    version: Option<String>,
) -> Result<(Record, Vec<Item>), FetchError> {
    let dataset = at(&server, ["api", "datasets", ":persistentId"]);
    let host = server.host_str().unwrap_or_default();
    let found = match &version {
        None => {
            let mut url = dataset;
            url.query_pairs_mut().append_pair("persistentId", id);
            ask::<Answer<Dataset>>(question, &url)?.map(|answer| answer.data.latest_version)
        }
        Some(version) => {
            let mut url = at(&dataset, ["versions", version]);
            url.query_pairs_mut().append_pair("persistentId", id);
            ask::<Answer<DatasetVersion>>(question, &url)?.map(|answer| answer.data)
        }
    };
    let found = found.ok_or_else(|| no_record(question, &format!("data set `{id}` at {host}")))?;
    let Some(number) = found.version_number else {
        return Err(contents(
            question.name,
            format!("data set `{id}` at {host} is a draft, which has no version"),
            None,
        ));
    };
    let version = format!("{number}.{}", found.version_minor_number);
    let mut items = Vec::new();
    for file in found.files {
        let DataFile { id: number, filesize, checksum, md5: hex, .. } = &file.data_file;
        let mut url = at(&server, ["api", "access", "datafile", &number.to_string()]);
        let (mut name, mut size) = (file.label.as_str(), *filesize);
        // The server's own form of a table may change with the server; the publisher's file, and its checksum, do not.
        if file.data_file.original_file_format.is_some() {
            url.set_query(Some("format=original"));
            name = file.data_file.original_file_name.as_deref().unwrap_or(name);
            size = file.data_file.original_file_size;
        }
        let path = match file.directory_label.as_deref().map(|folder| folder.trim_matches('/')) {
            Some(folder) if !folder.is_empty() => format!("{folder}/{name}"),
            _ => name.to_owned(),
        };
        let stated = match checksum {
            Some(Stated { kind, value }) => {
                let kind = kind.to_ascii_lowercase().replace('-', "");
                let known = Algorithm::ALL.into_iter().find(|a| a.as_str() == kind);
                known.and_then(|a| format!("{}:{value}", a.as_str()).parse().ok())
            }
            None => hex.as_deref().and_then(md5),
        };
        let item = item(question, &path, size, stated, SourceUrl::Http(url.into()))?;
        if file.restricted && question.chosen.has(&item.path) {
            let hint = "leave it out by `files`, or ask its publisher for a copy and lock that".to_owned();
            return Err(contents(question.name, format!("`{path}` is restricted by its publisher"), Some(hint)));
        }
        items.push(item);
    }
    Ok((Record::Dataverse(id.to_owned(), server, Some(version)), items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dois_that_say_what_they_are() {
        for (doi, record) in [
            ("10.5281/zenodo.123", Record::Zenodo(123)),
            ("10.5281/ZENODO.123", Record::Zenodo(123)),
            ("10.6084/m9.figshare.14763051", Record::Figshare(14_763_051, None)),
            ("10.6084/m9.figshare.14763051.v2", Record::Figshare(14_763_051, Some(2))),
            ("10.6084/m9.figshare.c.14763051.v2", Record::Figshare(14_763_051, Some(2))),
            ("10.17028/rd.lboro.figshare.5.v1", Record::Figshare(5, Some(1))),
        ] {
            assert_eq!(known(doi), Some(record), "{doi}");
        }
        for doi in ["10.5281/zenodo.x", "10.7910/DVN/TJCLKP", "10.1000/182", "10.6084/m9.figshare.1.vx"] {
            assert_eq!(known(doi), None, "{doi}");
        }
    }

    #[test]
    fn what_is_locked_is_read_again() {
        let server = Url::parse("https://data.example.org/dv/citation?persistentId=doi:10.7910/DVN/T&x=1").unwrap();
        let found = of_dataverse(&server).unwrap();
        let Record::Dataverse(id, server, None) = found else { panic!("{found:?}") };
        let dataverse = Record::Dataverse(id, server, Some("1.2".to_owned()));
        assert_eq!(
            dataverse.to_text(),
            "https://data.example.org/dv/dataset.xhtml?persistentId=doi:10.7910/DVN/T&version=1.2"
        );
        for record in [dataverse, Record::Zenodo(3), Record::Figshare(4, Some(5))] {
            assert_eq!(Record::locked(&record.to_text()), Some(record));
        }
        assert_eq!(Record::locked("https://data.example.org/x"), None);
        // Nothing in it looks like a secret.
        let text = "https://data.example.org/dataset.xhtml?persistentId=doi:10.7910/DVN/T&version=1.2";
        assert_eq!(SourceUrl::parse(text).unwrap().redacted(), text);
    }
}
