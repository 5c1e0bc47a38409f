//! What the hub says: its API of read calls, as `huggingface_hub` uses it.
//!
//! Paths: `/api/{models,datasets}/ID[/revision/REV]`, `…/tree/REV[/FOLDER]`, `…/paths-info/REV` (POST), `…/refs`, and
//! `/[datasets/]ID/resolve/REV/PATH` for the files. Headers of files: `X-Repo-Commit`, `ETag`, `X-Linked-Etag`,
//! `X-Linked-Size`; of errors: `X-Error-Code`, `X-Error-Message`. Every file is told as one that is kept by git LFS, since
//! of those the hub states SHA-256, which is what is locked.

use super::{Hub, HubFile, Refusal, Repository};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use std::collections::{BTreeMap, BTreeSet};

/// The revision that clients ask for where they are told none.
const MAIN: &str = "main";

/// A request, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    /// The value of `Range`, if it holds for what `If-Range` names or without it.
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) is_json: bool,
    pub(super) body: Vec<u8>,
}

/// An answer to it.
#[derive(Debug)]
pub(super) struct Answer<'h> {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body<'h>,
    /// What was asked for and is not there.
    pub(super) refusal: Option<Box<Refusal>>,
}

#[derive(Debug)]
pub(super) enum Body<'h> {
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        of: &'h Repository,
        file: &'h HubFile,
        from: u64,
        length: u64,
    },
}

/// What a path names.
struct Named {
    /// `datasets/ORG/NAME`, or `ORG/NAME`.
    repository: String,
    /// What follows.
    rest: Vec<String>,
}

impl Hub {
    /// The answer to a request.
    pub(super) fn answer(&self, request: &Request) -> Answer<'_> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let Some(segments) = path.split('/').filter(|s| !s.is_empty()).map(decoded).collect::<Option<Vec<_>>>() else {
            return error(400, "", "the address is no text");
        };
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        let asks = request.method == "POST" && segments.iter().any(|s| s == "paths-info");
        if !reads && !asks {
            return error(405, "", "trainlock's hub answers from locked files: it can only be read");
        }
        match segments.split_first() {
            Some((api, rest)) if api == "api" => self.api(rest, query, request),
            _ => self.resolve(&segments, request),
        }
    }

    fn api(&self, segments: &[String], query: &str, request: &Request) -> Answer<'_> {
        let kind = match segments.first().map(String::as_str) {
            Some("models") => "",
            Some("datasets") => "datasets/",
            _ => return error(404, "", "trainlock's hub has models and data sets, and no such call"),
        };
        let named = self.named(kind, &segments[1..]);
        let rest: Vec<&str> = named.rest.iter().map(String::as_str).collect();
        let full = truth(query, "blobs");
        let found = |revision: Option<&str>| self.at(&named.repository, revision, None);
        match rest[..] {
            [] => found(None).map(|commit| self.info(&named.repository, commit, full)),
            ["refs"] => found(None).map(|_| self.refs(&named.repository)),
            ["revision", ref revision @ ..] if !revision.is_empty() => {
                found(Some(&revision.join("/"))).map(|commit| self.info(&named.repository, commit, full))
            }
            ["tree", revision, ref folder @ ..] => found(Some(revision))
                .and_then(|commit| self.tree(&named.repository, commit, &folder.join("/"), truth(query, "recursive"))),
            ["paths-info", revision] => {
                found(Some(revision)).map(|commit| self.paths_info(&named.repository, commit, request))
            }
            _ => Err(error(404, "", "trainlock's hub has no such call")),
        }
        .unwrap_or_else(|answer| answer)
    }

    /// A file, or what is known of it.
    fn resolve(&self, segments: &[String], request: &Request) -> Answer<'_> {
        let (kind, segments) = match segments.split_first() {
            Some((first, rest)) if first == "datasets" => ("datasets/", rest),
            _ => ("", segments),
        };
        let named = self.named(kind, segments);
        let [word, revision, path @ ..] = &named.rest[..] else {
            return error(404, "", "trainlock's hub has no pages");
        };
        if word != "resolve" || path.is_empty() {
            return error(404, "", "trainlock's hub has no such page");
        }
        let path = path.join("/");
        let commit = match self.at(&named.repository, Some(revision), Some(&path)) {
            Ok(commit) => commit,
            Err(answer) => return answer,
        };
        let Some((of, file)) = self.file(&named.repository, commit, &path) else {
            let message = format!("`{path}` of {} is not among the files that the step was given", named.repository);
            let mut answer = error(404, "EntryNotFound", &message);
            answer.headers.push(("X-Repo-Commit", commit.to_owned()));
            let revision = Some(revision.clone());
            answer.refusal = Some(Box::new(Refusal { repository: named.repository, revision, path: Some(path) }));
            return answer;
        };
        let etag = format!("\"{}\"", file.sha256);
        let mut headers = vec![
            ("X-Repo-Commit", commit.to_owned()),
            ("ETag", etag.clone()),
            ("X-Linked-Etag", etag.clone()),
            ("X-Linked-Size", file.size.to_string()),
            ("Accept-Ranges", "bytes".to_owned()),
            ("Content-Type", "application/octet-stream".to_owned()),
        ];
        let wanted = request.range.as_deref().filter(|_| request.if_range.as_deref().is_none_or(|tag| tag == etag));
        let (status, from, length) = match wanted.and_then(|range| part(range, file.size)) {
            None => (200, 0, file.size),
            Some(Some((from, length))) => {
                headers.push(("Content-Range", format!("bytes {from}-{}/{}", from + length - 1, file.size)));
                (206, from, length)
            }
            Some(None) => {
                headers.push(("Content-Range", format!("bytes */{}", file.size)));
                return Answer { status: 416, headers, body: Body::Bytes(Vec::new()), refusal: None };
            }
        };
        Answer { status, headers, body: Body::File { of, file, from, length }, refusal: None }
    }

    /// The repository at the beginning of a path. Its name has two parts; one that has one is no repository of [data].
    fn named(&self, kind: &str, segments: &[String]) -> Named {
        let calls = |word: &String| ["resolve", "revision", "tree", "paths-info", "refs"].contains(&word.as_str());
        let length = if segments.get(1).is_none_or(calls) { 1 } else { 2 }.min(segments.len());
        let repository = format!("{kind}{}", segments[..length].join("/"));
        Named { repository, rest: segments[length..].to_vec() }
    }

    /// The parts of a repository.
    fn parts<'h>(&'h self, id: &str) -> impl Iterator<Item = &'h Repository> {
        self.repositories.iter().filter(move |r| r.id == id)
    }

    /// The commit that a revision stands for: a locked one, or what it was locked for. `main`, which clients ask for where a
    /// script names nothing, is the only commit that there is if it is not locked itself.
    fn at(&self, id: &str, revision: Option<&str>, path: Option<&str>) -> Result<&str, Answer<'_>> {
        let wanted = revision.unwrap_or(MAIN);
        let commits: BTreeSet<&str> = self.parts(id).map(|r| r.commit.as_str()).collect();
        let found = self
            .parts(id)
            .find(|r| r.commit == wanted || r.revision == wanted)
            .map(|r| r.commit.as_str())
            .or_else(|| commits.first().copied().filter(|_| wanted == MAIN && commits.len() == 1));
        found.ok_or_else(|| {
            let mut answer = if commits.is_empty() {
                let mut all: Vec<&str> = self.repositories.iter().map(|r| r.id.as_str()).collect();
                all.dedup();
                let all = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
                error(404, "RepoNotFound", &format!("the step was not given {id}; its hub has {all}"))
            } else {
                let all: Vec<String> = self.parts(id).map(|r| format!("{} ({})", r.revision, r.commit)).collect();
                let message = format!("the step was not given {id} at {wanted}; its hub has it at {}", all.join(", "));
                error(404, "RevisionNotFound", &message)
            };
            let (repository, revision) = (id.to_owned(), revision.map(str::to_owned));
            answer.refusal = Some(Box::new(Refusal { repository, revision, path: path.map(str::to_owned) }));
            answer
        })
    }

    fn file<'h>(&'h self, id: &str, commit: &str, path: &str) -> Option<(&'h Repository, &'h HubFile)> {
        self.parts(id).filter(|r| r.commit == commit).find_map(|of| {
            let place = of.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
            Some((of, &of.files[place]))
        })
    }

    /// All files of a repository at a commit, each once.
    fn files(&self, id: &str, commit: &str) -> BTreeMap<&str, &HubFile> {
        let parts = self.parts(id).filter(|r| r.commit == commit);
        parts.flat_map(|r| &r.files).map(|file| (file.path.as_str(), file)).collect()
    }

    fn info(&self, id: &str, commit: &str, full: bool) -> Answer<'_> {
        let siblings = self.files(id, commit).into_iter().map(|(path, file)| {
            let mut sibling = json!({"rfilename": path});
            if full {
                let lfs =
                    json!({"sha256": file.sha256.to_hex(), "size": file.size, "pointerSize": pointer(file).len()});
                sibling["size"] = file.size.into();
                sibling["blobId"] = blob(&pointer(file)).into();
                sibling["lfs"] = lfs;
            }
            sibling
        });
        let name = id.trim_start_matches("datasets/");
        let mut info = json!({
            "id": name,
            "author": name.split('/').next(),
            "sha": commit,
            "private": false,
            "gated": false,
            "disabled": false,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings.collect::<Vec<Value>>(),
        });
        if name == id {
            info["modelId"] = name.into();
        }
        ok(&info)
    }

    fn refs(&self, id: &str) -> Answer<'_> {
        let refs: BTreeMap<&str, &str> = self.parts(id).map(|r| (r.revision.as_str(), r.commit.as_str())).collect();
        let branches = refs
            .into_iter()
            .map(|(name, commit)| json!({"name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit}));
        ok(&json!({"branches": branches.collect::<Vec<Value>>(), "tags": [], "converts": []}))
    }

    fn tree(&self, id: &str, commit: &str, folder: &str, recursive: bool) -> Result<Answer<'_>, Answer<'_>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        // By their path, each folder once.
        let mut entries: BTreeMap<String, Value> = BTreeMap::new();
        for (path, file) in self.files(id, commit) {
            let Some(below) = path.strip_prefix(&prefix) else { continue };
            for (slash, _) in below.match_indices('/').take(if recursive { usize::MAX } else { 1 }) {
                let folder = &path[..prefix.len() + slash];
                entries.entry(folder.to_owned()).or_insert_with(|| directory(folder, commit));
            }
            if recursive || !below.contains('/') {
                entries.insert(path.to_owned(), entry(file));
            }
        }
        if entries.is_empty() && !folder.is_empty() {
            let message = format!("{id} has no folder `{folder}` with a file that the step was given");
            return Err(error(404, "EntryNotFound", &message));
        }
        Ok(ok(&entries.into_values().collect()))
    }

    /// What is known of some paths. Those that are not there are left out.
    fn paths_info(&self, id: &str, commit: &str, request: &Request) -> Answer<'_> {
        let Some(paths) = asked_paths(request) else {
            return error(400, "", "paths-info wants `paths`, as a form or JSON");
        };
        let files = self.files(id, commit);
        let is_folder =
            |path: &str| files.keys().any(|f| f.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
        let known = paths.iter().filter_map(|path| match files.get(path.as_str()) {
            Some(file) => Some(entry(file)),
            None => is_folder(path).then(|| directory(path, commit)),
        });
        ok(&known.collect())
    }
}

/// A file in a listing.
fn entry(file: &HubFile) -> Value {
    let pointer = pointer(file);
    json!({
        "type": "file",
        "path": file.path.as_str(),
        "oid": blob(&pointer),
        "size": file.size,
        "lfs": {"oid": file.sha256.to_hex(), "size": file.size, "pointerSize": pointer.len()},
    })
}

/// A folder in a listing. Git's hash of it is not locked; clients want one and can look nothing up by it here.
fn directory(path: &str, commit: &str) -> Value {
    json!({"type": "directory", "path": path, "oid": hex(&Sha1::digest(format!("{commit}/{path}"))), "size": 0})
}

/// What stands in git itself for a file that LFS keeps (version 1 of the format).
fn pointer(file: &HubFile) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", file.sha256.to_hex(), file.size)
}

/// Git's hash of a blob.
fn blob(text: &str) -> String {
    hex(&Sha1::digest(format!("blob {}\0{text}", text.len())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ok<'h>(value: &Value) -> Answer<'h> {
    let headers = vec![("Content-Type", "application/json".to_owned())];
    Answer { status: 200, headers, body: Body::Bytes(value.to_string().into_bytes()), refusal: None }
}

/// An error as the hub tells it. Clients show the header's message.
pub(super) fn error<'h>(status: u16, code: &str, message: &str) -> Answer<'h> {
    // What came in a path may hold anything; a header is one line of plain characters.
    let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    let mut headers = vec![
        ("Content-Type", "application/json".to_owned()),
        ("X-Error-Message", message.chars().take(1000).map(plain).collect()),
    ];
    if !code.is_empty() {
        headers.push(("X-Error-Code", code.to_owned()));
    }
    let body = json!({"error": message}).to_string().into_bytes();
    Answer { status, headers, body: Body::Bytes(body), refusal: None }
}

/// The first byte and the length that a `Range` names of so many bytes. None: it is not one range of bytes, and without
/// meaning. Some(None): there is no such part.
fn part(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = last.parse::<u64>().ok()?.min(size);
        return Some((length > 0).then(|| (size - length, length)));
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| (first, last.min(size - 1) - first + 1)))
}

/// Whether a query says yes to something.
fn truth(query: &str, name: &str) -> bool {
    form(query).any(|(n, value)| n == name && matches!(value.to_ascii_lowercase().as_str(), "true" | "1"))
}

/// The names and values of a query or form.
fn form(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
    })
}

fn asked_paths(request: &Request) -> Option<Vec<String>> {
    let text = std::str::from_utf8(&request.body).ok()?;
    if !request.is_json {
        return Some(form(text).filter(|(name, _)| name == "paths").map(|(_, path)| path).collect());
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    match value.get_mut("paths")?.take() {
        Value::String(path) => Some(vec![path]),
        Value::Array(paths) => paths.into_iter().map(|p| p.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// A text without percent-encoding; none if it is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *byte == b'%').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(digits, 16).ok()
        });
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}
