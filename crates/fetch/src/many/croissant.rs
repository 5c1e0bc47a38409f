//! Croissant descriptions: what a data set's `distribution` lists (mlcommons Croissant 1.0, JSON-LD).
//!
//! A file object with an address becomes a file by its `name`. One that lies in an archive, and the files that a file set chooses of it,
//! are taken out of it; the archive itself is then no file of the data set. Hashes that are stated are checked, the others
//! computed. A file set is seen at its paths in the archive.

use super::description::{self, Place};
use super::{Files, Found, Item, ManyWanted, Question, Source, contents, now};
use crate::error::FetchError;
use crate::receive::Expect;
use crate::standing::{Answer, Found as Says, Standing};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::Value;
use std::collections::BTreeMap;
use trainlock_types::{Algorithm, Checksum, Digest, RelPath, SourceUrl};

/// A description at an address, or a file of the repository.
pub(crate) struct Croissant<'a> {
    pub(crate) place: &'a str,
}

/// A file object or file set.
#[derive(Debug, Default)]
struct Node {
    id: String,
    name: String,
    url: Option<String>,
    /// The ids of what it lies in.
    within: Vec<String>,
    sha256: Option<Digest>,
    md5: Option<Checksum>,
    encoding: String,
    /// Globs of a file set; none for a file object.
    chooses: Option<(Vec<String>, Vec<String>)>,
}

impl Source for Croissant<'_> {
    fn look(&self, question: &Question<'_>) -> Result<Found, FetchError> {
        let place = self.place(question)?;
        let (text, by) = description::read(question, &place)?;
        let nodes = nodes(&text).map_err(|reason| contents(question.name, reason, None))?;
        let mut items = Vec::new();
        let mut archives: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
        for node in &nodes {
            match &node.within[..] {
                [] => {}
                [one] => archives.entry(one).or_default().push(node),
                _ => {
                    let reason = format!("`{}` lies in several archives, which can't be told apart", node.id);
                    return Err(contents(question.name, reason, None));
                }
            }
        }
        for node in &nodes {
            if !node.within.is_empty() {
                continue;
            }
            let item = node.item(&place, question)?;
            match archives.remove(node.id.as_str()) {
                Some(members) => items.extend(members_of(question, &item, &members)?),
                None => items.push(item),
            }
        }
        if let Some((id, members)) = archives.into_iter().next() {
            let what = members.first().map_or("", |node| node.id.as_str());
            let reason = match nodes.iter().any(|node| node.id == id) {
                true => format!("`{what}` lies in `{id}`, which lies in an archive itself"),
                false => format!("`{what}` lies in `{id}`, which the description does not have"),
            };
            return Err(contents(question.name, reason, None));
        }
        Ok(Found { resolved: None, by: Some(by), files: Files::Listed(items) })
    }

    // What lies in archives is only known once they are there: so it is the description that is looked at, and then the addresses.
    fn standing(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Standing, FetchError> {
        let place = self.place(question)?;
        let text = description::now(question, &place)?;
        let now = Digest::of(&text);
        let locked = wanted.by.map_or(now, |(digest, _)| digest);
        let words = |digest: Digest| format!("sha256 {}", digest.short());
        match Standing::of_revision("description", &words(locked), &words(now)) {
            Standing::Same { .. } => now::by_addresses(question, wanted, &addresses(question, &place, &text)?),
            other => Ok(other),
        }
    }

    fn answers(&self, question: &Question<'_>, wanted: &ManyWanted) -> Result<Vec<Answer>, FetchError> {
        let place = self.place(question)?;
        let now = description::now(question, &place)?;
        let url = match &place {
            Place::Url(url) => url.redacted(),
            Place::Path(path) => path.to_string(),
        };
        if wanted.by.is_some_and(|(locked, _)| locked != Digest::of(&now)) {
            return Ok(vec![Answer { url, found: Says::Differs("another description than is locked".to_owned()) }]);
        }
        let mut answers = vec![Answer { url, found: Says::Agrees("digest") }];
        let items = addresses(question, &place, &now)?;
        let listed: BTreeMap<&RelPath, u64> =
            wanted.listing.iter().flat_map(|l| l.entries()).map(|entry| (&entry.path, entry.size)).collect();
        let fetcher = question.fetcher;
        let of_item = |item: &Item| {
            // Each has one address; the size of an archive stands in no lock.
            let Some(source) = item.sources.first() else { return Ok(None) };
            match listed.get(&item.path) {
                Some(size) => fetcher.answer(question.name, source, *size).map(Some),
                None => fetcher.answer_at_all(question.name, source).map(Some),
            }
        };
        for answer in fetcher.each(&items, of_item) {
            answers.extend(answer?);
        }
        Ok(answers)
    }
}

impl Croissant<'_> {
    fn place(&self, question: &Question<'_>) -> Result<Place, FetchError> {
        Ok(match SourceUrl::parse(self.place) {
            Ok(url @ SourceUrl::Http(_)) => Place::Url(url),
            _ => Place::Path(RelPath::parse(self.place).map_err(|e| contents(question.name, e.to_string(), None))?),
        })
    }
}

impl Node {
    /// The file of a node that lies in no archive.
    fn item(&self, description: &Place, question: &Question<'_>) -> Result<Item, FetchError> {
        let wrong = |reason: String, hint: Option<String>| contents(question.name, reason, hint);
        if self.chooses.is_some() {
            let reason = format!("file set `{}` names no archive that it lies in", self.id);
            return Err(wrong(reason, None));
        }
        let Some(url) = &self.url else {
            return Err(wrong(format!("`{}` has no `contentUrl`", self.id), None));
        };
        if self.encoding.starts_with("git+") || url.starts_with("git+") {
            let reason = format!("`{}` is a git repository", self.id);
            return Err(wrong(reason, Some(format!("name it as data of its own: {}", of_repository(url)))));
        }
        let path = RelPath::parse(&self.name)
            .map_err(|e| wrong(format!("the name `{}` is no path of a file: {e}", self.name), None))?;
        let unusable = |e: &dyn std::fmt::Display| wrong(format!("the address `{url}` of `{}`: {e}", self.id), None);
        let source = match (url.contains("://"), description) {
            (true, _) => SourceUrl::parse(url).map_err(|e| unusable(&e))?,
            (false, Place::Url(SourceUrl::Http(base))) => {
                SourceUrl::Http(base.join(url).map_err(|e| unusable(&e))?.into())
            }
            (false, Place::Path(file)) => {
                let folder = file.parent().unwrap_or_else(RelPath::root);
                let file = folder.resolve(url).map_err(|e| unusable(&e))?.on(&question.fetcher.settings.root);
                let file = std::path::absolute(&file).map_err(|e| unusable(&e))?;
                SourceUrl::File(url::Url::from_file_path(file).map_err(|()| unusable(&"no path"))?.into())
            }
            (false, Place::Url(_)) => return Err(unusable(&"it is relative to nothing")),
        };
        match (&source, description) {
            (SourceUrl::Http(address), Place::Url(SourceUrl::Http(from)))
                if address.scheme() == "http" && from.scheme() == "https" && self.sha256.is_none() =>
            {
                let hint = "it would have to state a sha256, or an https address".to_owned();
                return Err(wrong(format!("`{}` is at {url}, which nothing protects", self.id), Some(hint)));
            }
            // A stranger's description names no file of this machine.
            (SourceUrl::File(_), Place::Url(_)) => return Err(unusable(&"it names a file of this machine")),
            (SourceUrl::File(_), Place::Path(_)) if url.contains("://") => {
                return Err(unusable(&"write the path of a file of the repository"));
            }
            (SourceUrl::Http(_) | SourceUrl::File(_) | SourceUrl::Object(_), _) => {}
            _ => return Err(unusable(&"it names no single file")),
        }
        Ok(Item {
            path,
            size: None,
            sha256: self.sha256,
            checksum: self.md5.clone(),
            blob: None,
            sources: vec![source],
        })
    }
}

/// The files of a description that lie at addresses of their own, archives too.
fn addresses(question: &Question<'_>, place: &Place, text: &[u8]) -> Result<Vec<Item>, FetchError> {
    let nodes = nodes(&String::from_utf8_lossy(text)).map_err(|reason| contents(question.name, reason, None))?;
    nodes.iter().filter(|node| node.within.is_empty()).map(|node| node.item(place, question)).collect()
}

/// The `url` that a git repository is better named by.
fn of_repository(url: &str) -> String {
    let hub = url.split_once("huggingface.co/").map(|(_, rest)| rest);
    match hub.and_then(|rest| rest.split_once("/tree/").or(Some((rest, "")))) {
        Some((repository, rev)) if repository.starts_with("datasets/") => {
            let rev = rev.trim_end_matches('/').replace("%2F", "/");
            let rev = if rev.is_empty() { String::new() } else { format!(", rev = \"{rev}\"") };
            format!("{{ url = \"hf://{}\"{rev} }}", repository.trim_end_matches('/'))
        }
        _ => format!("{{ url = \"git+{}\" }}", url.trim_start_matches("git+")),
    }
}

/// The files that nodes name in an archive; all in the store afterwards.
fn members_of(question: &Question<'_>, archive: &Item, nodes: &[&Node]) -> Result<Vec<Item>, FetchError> {
    let Question { fetcher, session, name, .. } = question;
    let wrong = |reason: String| contents(name, reason, None);
    let mut single: BTreeMap<RelPath, &Node> = BTreeMap::new();
    let mut sets: Vec<(GlobSet, GlobSet)> = Vec::new();
    for node in nodes {
        match (&node.chooses, &node.url) {
            (Some((includes, excludes)), _) => {
                let set = |globs: &[String]| -> Result<GlobSet, FetchError> {
                    let mut builder = GlobSetBuilder::new();
                    for glob in globs {
                        // As `fnmatch` has it, by which these globs are defined: `*` goes across folders.
                        let glob = GlobBuilder::new(glob.trim_start_matches("./")).build();
                        builder.add(glob.map_err(|e| wrong(format!("file set `{}`: {e}", node.id)))?);
                    }
                    builder.build().map_err(|e| wrong(format!("file set `{}`: {e}", node.id)))
                };
                sets.push((set(includes)?, set(excludes)?));
            }
            (None, Some(member)) => {
                let path = RelPath::root().resolve(member);
                let path = path.map_err(|e| wrong(format!("`{member}` of `{}`: {e}", node.id)))?;
                single.insert(path, node);
            }
            (None, None) => return Err(wrong(format!("`{}` has no `contentUrl`", node.id))),
        }
    }
    let (sha256, size, _) = fetcher.one(session, name, archive)?;
    let in_sets = |path: &RelPath| {
        sets.iter().any(|(includes, excludes)| includes.is_match(path.as_str()) && !excludes.is_match(path.as_str()))
    };
    let wants = |path: &RelPath| match single.get(path) {
        Some(node) => Some(Expect { sha256: node.sha256, size: None, checksum: node.md5.as_ref() }),
        None => in_sets(path).then(Expect::default),
    };
    let taken = fetcher.extract_some(session, name, &archive.sources, (sha256, size), &wants)?;
    let mut items = Vec::new();
    for (member, sha256, size) in taken {
        let path = match single.remove(&member) {
            Some(node) => RelPath::parse(&node.name)
                .map_err(|e| wrong(format!("the name `{}` is no path of a file: {e}", node.name)))?,
            None => member,
        };
        items.push(Item {
            path,
            size: Some(size),
            sha256: Some(sha256),
            checksum: None,
            blob: None,
            sources: Vec::new(),
        });
    }
    match single.into_keys().next() {
        Some(missing) => Err(wrong(format!("`{}` has no member `{missing}`", archive.path))),
        None => Ok(items),
    }
}

/// The file objects and file sets of a description.
fn nodes(text: &str) -> Result<Vec<Node>, String> {
    let document: Value = serde_json::from_str(text).map_err(|e| format!("the description is no JSON: {e}"))?;
    let list = |value: &Value| match value {
        Value::Array(values) => values.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id =
        |value: &Value| text(value).or_else(|| text(&value["@id"])).map(|id| id.trim_start_matches('#').to_owned());
    let mut nodes = Vec::new();
    for entry in list(&document["distribution"]) {
        let kind = list(&entry["@type"]).iter().filter_map(text).find_map(|kind| {
            ["FileObject", "FileSet"].into_iter().find(|known| kind.rsplit([':', '/']).next() == Some(known))
        });
        let Some(kind) = kind else { continue };
        let name = text(&entry["name"]);
        let Some(own) = id(&entry["@id"]).or_else(|| name.clone()) else {
            return Err("an entry of its `distribution` has neither `@id` nor `name`".to_owned());
        };
        let strings = |key: &str| list(&entry[key]).iter().filter_map(text).collect::<Vec<_>>();
        nodes.push(Node {
            name: name.unwrap_or_else(|| own.clone()),
            id: own,
            url: text(&entry["contentUrl"]),
            within: list(&entry["containedIn"]).iter().filter_map(id).collect(),
            // What some put in their place (a note that there is none) is no hash.
            sha256: text(&entry["sha256"]).and_then(|hex| hex.parse().ok()),
            md5: text(&entry["md5"])
                .and_then(|hex| format!("md5:{hex}").parse::<Checksum>().ok())
                .filter(|checksum| checksum.algorithm == Algorithm::Md5),
            encoding: text(&entry["encodingFormat"]).unwrap_or_default(),
            chooses: (kind == "FileSet").then(|| (strings("includes"), strings("excludes"))),
        });
    }
    if nodes.is_empty() { Err("the description has no `distribution` with files".to_owned()) } else { Ok(nodes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_description() {
        let text = r#"{"@type": "sc:Dataset", "distribution": [
            {"@type": "cr:FileObject", "@id": "a.zip", "contentUrl": "a.zip", "sha256": "see issue 80"},
            {"@type": ["cr:FileObject"], "@id": "one", "name": "one.csv", "contentUrl": "x/one.csv", "containedIn": {"@id": "a.zip"},
             "md5": "9e107d9d372bb6826bd81d3542a419d6"},
            {"@type": "https://mlcommons.org/croissant/FileSet", "@id": "rest", "containedIn": [{"@id": "a.zip"}],
             "includes": ["*.csv"], "excludes": "x/*"},
            {"@type": "cr:RecordSet", "@id": "r"}]}"#;
        let nodes = nodes(text).unwrap();
        let ids: Vec<&str> = nodes.iter().map(|n| n.id.as_str()).collect();
        assert_eq!(ids, ["a.zip", "one", "rest"]);
        assert!(nodes[0].sha256.is_none() && nodes[1].md5.is_some());
        assert_eq!(nodes[1].within, ["a.zip"]);
        assert_eq!(nodes[2].chooses, Some((vec!["*.csv".to_owned()], vec!["x/*".to_owned()])));
        assert!(super::nodes("{").unwrap_err().contains("JSON"));
        assert!(super::nodes("{}").unwrap_err().contains("distribution"));
    }

    #[test]
    fn repositories_have_a_better_name() {
        assert_eq!(
            of_repository("https://huggingface.co/datasets/o/n/tree/refs%2Fconvert%2Fparquet"),
            "{ url = \"hf://datasets/o/n\", rev = \"refs/convert/parquet\" }"
        );
        assert_eq!(of_repository("https://x.org/r.git"), "{ url = \"git+https://x.org/r.git\" }");
    }
}
